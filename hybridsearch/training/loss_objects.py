"""Losses that are given as objects or functions instead of by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError

if TYPE_CHECKING:
    import torch

LossObject: TypeAlias = "torch.nn.Module | Callable[[Any], torch.nn.Module]"
"""A loss of sentence-transformers, or a function from the model to a loss, such as the class of a loss."""

_SHORT_NAMES = {
    "BinaryCrossEntropyLoss": "bce",
    "MSELoss": "mse",
    "LambdaLoss": "lambda",
    "ListNetLoss": "list-net",
    "ListMLELoss": "list-mle",
    "PListMLELoss": "p-list-mle",
    "RankNetLoss": "rank-net",
    "ADRMSELoss": "adr-mse",
}
"""Names of the losses of rerankers that take another form of the rows, by their classes."""


def bind(loss: LossObject, given: Any, trained: Any) -> torch.nn.Module:
    """Make the loss of the model that is trained.

    Args:
        loss: Loss, or function from the model to a loss.
        given: Model that the user gave. A loss that holds this model gets `trained` in its place.
        trained: Model that is trained. It may be a copy of `given`.

    Raises:
        InvalidArgumentError: The loss is neither a loss nor a function, or holds another model.
    """
    import torch

    if not isinstance(loss, torch.nn.Module):
        made = loss(trained) if callable(loss) else None
        if not isinstance(made, torch.nn.Module):
            raise InvalidArgumentError(
                f"loss is {loss!r:.80}. Give the name of a loss, a loss of sentence-transformers, or a function from "
                "the model to a loss."
            )
        return made
    holders = [(one, name) for one in loss.modules() for name, child in one._modules.items() if child is given]
    if not holders:
        raise InvalidArgumentError(
            f"The loss {type(loss).__name__} does not hold the model that is trained. Give the loaded model of the "
            f"loss as the model, or give a function such as lambda model: {type(loss).__name__}(model)."
        )
    for one, name in holders:
        setattr(one, name, trained)
    return loss


def short_name(loss: torch.nn.Module) -> str:
    """The name by which `train_reranker` finds the form of the rows: "lambda" for LambdaLoss, else the class.

    A subclass has the name of its base.
    """
    known = (_SHORT_NAMES.get(one.__name__) for one in type(loss).__mro__)
    return next(filter(None, known), type(loss).__name__)


def facts_of(loss: torch.nn.Module) -> dict[str, Any]:
    """The class of a loss and its settings, also those of a loss in it, for the report and to resume a run.

    A guide has the digest of its content. Other settings that JSON cannot hold have the name of their class.
    """
    settings: dict[str, Any] = getattr(loss, "get_config_dict", dict)()
    facts = {"class": type(loss).__name__, **{name: _plain(value) for name, value in settings.items()}}
    inner = getattr(loss, "loss", None)
    return facts if inner is None or not hasattr(inner, "forward") else {**facts, "loss": facts_of(inner)}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if "SentenceTransformer" in {cls.__name__ for cls in type(value).__mro__}:
        return {"class": type(value).__name__, "digest": LazyModel(value, "SentenceTransformer").digest()}
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__
