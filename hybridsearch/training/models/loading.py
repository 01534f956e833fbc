"""Models of sentence-transformers as training takes them: in float32, and what is new in them the same in each run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridsearch.encoders.models import Family, unloadable


def load_to_train(
    folder: Path,
    family: Family,
    *,
    trust_remote_code: bool,
    seed: int,
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The model in a folder, with weights of its own or new ones where it lacks any.

    `family` is the class of sentence-transformers that is made, and `seed` that of new weights. `model_kwargs` are
    further arguments of the transformer, `options` of the class. Raises ModelNotFoundError where it cannot be loaded.
    """
    import sentence_transformers
    import torch

    try:
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(seed)
            return getattr(sentence_transformers, family)(
                str(folder),
                model_kwargs={"use_safetensors": True, "dtype": torch.float32, **(model_kwargs or {})},
                trust_remote_code=trust_remote_code,
                local_files_only=not trust_remote_code,
                **options,
            )
    except Exception as error:  # whatever a damaged or foreign folder makes the loaders raise
        raise unloadable(folder, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and the chatter of transformers and sentence-transformers."""
    import torch
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    logger = logging.getLogger("sentence_transformers")
    before = logger.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # torch warns where nobody has chosen
            yield
    finally:
        logger.setLevel(before)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
