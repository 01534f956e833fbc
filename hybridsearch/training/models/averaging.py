"""Average the weights of models that were trained from the same model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch import arguments
from hybridsearch.encoders.model_folders import family_of, find_model
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.models.loading import quiet

if TYPE_CHECKING:
    import torch

_FAR = 0.1
"""Distance between the weights of two models, as a share of their length. Fine-tuning of one model stays far below.

Two all-MiniLM-L6-v2 that were trained on SciFact are .003 apart. all-MiniLM-L6-v2 and a SPLADE that was made of it by
long training are .27 apart."""


def average_models(models: Sequence[str | Path], folder: str | Path, *, trust_remote_code: bool = False) -> Path:
    """Write a model whose weights are the mean of the weights of several models.

    The models must come from the same model, such as those of one training with several seeds. The mean may be better
    than each of them, and costs no time at search ("model soups": Wortsman et al., arXiv:2203.05482). Everything else,
    such as the tokenizer and the prompts, is that of the first model.

    Args:
        models: Folders or hub names of at least two models. They are dense, sparse or late-interaction models or
            rerankers of sentence-transformers, all of one kind.
        folder: Folder to write. It must be new or empty.
        trust_remote_code: Whether code in the folders may run.

    Returns:
        The folder.

    Raises:
        InvalidArgumentError: There is only one model, the folder is not empty, a model lacks weights, or the models are
            language models, have LoRA adapters or do not come from the same model.
        ModelNotFoundError: There is no such model, or it cannot be loaded.
    """
    place = arguments.new_folder("folder", folder)
    if isinstance(models, str | Path) or len(models) < 2:
        raise InvalidArgumentError(f"models is {models!r:.200}: give a list of at least two models.")
    found = [find_model(str(one), "SentenceTransformer") for one in models]
    kinds = {family_of(one) for one in found}
    family = kinds.pop()
    if family is None or kinds:
        raise InvalidArgumentError(
            f"{', '.join(map(str, models))} are not of one kind: give sentence-transformers models that came "
            "from the same model."
        )
    options: dict[str, Any] = {
        "runtime": "torch",
        "model_kwargs": {"dtype": "float32"},
        "trust_remote_code": trust_remote_code,
    }
    averaged = LazyModel(found[0], family, **options).get()
    weights = averaged.state_dict()
    if any("lora_" in name for name in weights):
        raise InvalidArgumentError(
            f"{models[0]} has LoRA adapters that are not merged, and the product of two means is not the mean of the "
            "products: give models whose adapters were merged (LoraSettings(merge=True))."
        )
    total = {name: one.double() for name, one in weights.items() if one.is_floating_point()}
    for model, place_of_model in zip(models[1:], found[1:], strict=True):
        of_model = LazyModel(place_of_model, family, **options).get().state_dict()
        if {name: one.shape for name, one in of_model.items()} != {name: one.shape for name, one in weights.items()}:
            raise InvalidArgumentError(
                f"{model} and {models[0]} have weights of other names or shapes: give models that were trained "
                "from the same model."
            )
        far = _length(of_model[name] - weights[name] for name in total) / _length(weights[name] for name in total)
        if not far <= _FAR:
            raise InvalidArgumentError(
                f"The weights of {model} and {models[0]} differ by {far:.2g} of their length, so their mean "
                "would be no good model: give models that were trained from the same model."
            )
        total = {name: one + of_model[name] for name, one in total.items()}
    averaged.load_state_dict({**weights, **{name: one / len(models) for name, one in total.items()}})
    with quiet():
        averaged.save_pretrained(str(place))
    return place


def _length(tensors: Iterable[torch.Tensor]) -> float:
    """The length of the vector of all numbers."""
    return math.sqrt(sum(float(one.double().square().sum()) for one in tensors))
