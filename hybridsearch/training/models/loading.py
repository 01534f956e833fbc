"""Load models of sentence-transformers to train them: in float32, with new weights that depend only on the seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridsearch import arguments
from hybridsearch.encoders.model_folders import Family, unloadable
from hybridsearch.encoders.models import check_vocabulary, set_padding
from hybridsearch.errors import InvalidArgumentError


def load_to_train(
    folder: Path,
    family: Family,
    *,
    trust_remote_code: bool,
    seed: int,
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Load the model in a folder.

    Weights that are missing are new.

    Args:
        folder: Folder of the model.
        family: Class of sentence-transformers to make.
        trust_remote_code: Whether code in the folder may run.
        seed: Seed of new weights.
        model_kwargs: Further arguments of the transformer.
        options: Further arguments of the class.

    Raises:
        ModelNotFoundError: The model cannot be loaded, or lacks its tokenizer.
    """
    import sentence_transformers
    import torch

    arguments.true_or_false("trust_remote_code", trust_remote_code)
    try:
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(seed)
            model = getattr(sentence_transformers, family)(
                str(folder),
                model_kwargs={"use_safetensors": True, "dtype": torch.float32, **(model_kwargs or {})},
                trust_remote_code=trust_remote_code,
                local_files_only=not trust_remote_code,
                **options,
            )
    except Exception as error:  # whatever a damaged or foreign folder makes the loaders raise
        raise unloadable(folder, error) from error
    check_vocabulary(folder, model)
    set_padding(model)
    return model


def hub_name(model: Any) -> str | None:
    """The name of a model on the hub, or None if it is a folder or a loaded model."""
    return model if isinstance(model, str) and not arguments.path("The model", model).exists() else None


def set_prompts(model: Any, prompts: str | Mapping[str, str]) -> None:
    """Set the texts that a model puts before queries and documents, as `hybridsearch.train_dense` takes them.

    Raises InvalidArgumentError if a key is neither "query" nor "document".
    """
    if isinstance(prompts, str):
        prompts = {"query": prompts, "document": prompts}
        model.default_prompt_name = "query"
    if strange := [name for name in prompts if name not in ("query", "document")]:
        raise InvalidArgumentError(f"prompts has the key {strange[0]!r}. Allowed keys are 'query' and 'document'.")
    model.prompts = {**model.prompts, **prompts}


def dimensions_of(model: Any) -> int | None:
    """The number of dimensions of the embeddings of a dense or sparse model. None if the model does not know it.

    A sparse model encodes a word, because a SPLADE that has not run yet tells the dimensions of its language model.
    """
    if type(model).__name__ == "SparseEncoder":
        return int(model.encode(["dimensions"], show_progress_bar=False).shape[-1])
    dimensions: int | None = model.get_embedding_dimension()
    return dimensions


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars and log lines of transformers and sentence-transformers."""
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
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # without a choice, torch warns
            yield
    finally:
        logger.setLevel(before)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
