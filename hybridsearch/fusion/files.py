"""Fusions from their names, from files, and from the settings of an index."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridsearch.arguments import shown
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion.base import Fusion
from hybridsearch.registry import make, registered

TUNED = "tuned"
"""Type of a file with a fusion and the number of candidates for it. `hs.tune` also writes its measures."""


def fusion_names() -> list[str]:
    """List the names that `named_fusion` takes.

    >>> fusion_names()
    ['rrf', 'minmax', 'zscore', 'adaptive']
    """
    described = ("rrf", "score", "judged")  # "judged" without its weights is min-max
    return ["rrf", "minmax", "zscore", *(name for name in registered("fusion") if name not in described)]


def named_fusion(name: str, weights: Mapping[str, float] | None = None) -> Fusion:
    """Make a fusion from its name, with default settings and the given weights.

    Args:
        name: One of `fusion_names`.
        weights: Weights by retriever name. None gives all retrievers the same weight.

    >>> named_fusion("minmax", {"bm25": 1, "dense": 2})
    ScoreFusion(weights={'bm25': 1.0, 'dense': 2.0}, normalization='minmax')
    """
    kind = {"type": "score", "normalization": name} if name in ("minmax", "zscore") else {"type": name}
    return make_fusion(kind | {"weights": weights})


def make_fusion(description: Mapping[str, Any]) -> Fusion:
    """Make the fusion that `Fusion.to_json` described.

    Raises:
        InvalidArgumentError: The dict does not describe a fusion.
    """
    arguments = dict(description) if isinstance(description, Mapping) else {}
    tuned_on = arguments.pop("tuned_on", "")
    if not isinstance(tuned_on, str):
        raise InvalidArgumentError(f"tuned_on of a fusion is a string of digests, not {shown(tuned_on)}.")
    fusion: Fusion = make("fusion", arguments or description)
    fusion.tuned_on = frozenset(tuned_on.split())
    return fusion


def restricted(description: Mapping[str, Any], retrievers: Collection[str]) -> Mapping[str, Any]:
    """Restrict the description of a fusion to some of its retrievers.

    If the weights of these retrievers are all 0, they get the same weight. Their zeros only mean that the other
    retrievers are better.

    >>> restricted({"type": "rrf", "k": 60, "weights": {"bm25": 1, "dense": 2}}, ["dense"])
    {'type': 'rrf', 'k': 60, 'weights': {'dense': 2}}
    """
    weights = description.get("weights") if isinstance(description, Mapping) else None
    if not isinstance(weights, Mapping):
        return description
    kept = {name: weight for name, weight in weights.items() if name in retrievers}
    return {**description, "weights": kept if any(kept.values()) else None}


def read_fusion(fusion: Fusion | str | Path, candidates: int | None) -> tuple[Fusion, int | None]:
    """Make a fusion from an argument `fusion`.

    Args:
        fusion: Fusion, one of `fusion_names`, or the path of a file.
        candidates: Number of candidates that the user gave. None if a file of `hs.tune` may decide it.

    Returns:
        The fusion and the number of candidates.

    Raises:
        InvalidArgumentError: There is no such file, or it does not describe a fusion.
    """
    if isinstance(fusion, Fusion):
        return fusion, candidates
    if isinstance(fusion, str) and fusion in fusion_names():
        return named_fusion(fusion), candidates
    if not isinstance(fusion, str | Path) or not str(fusion).endswith(".json"):
        raise InvalidArgumentError(
            f"A fusion is one of {', '.join(map(repr, fusion_names()))}, the path of a .json file that hs.tune or "
            f"Fusion.save wrote, or in Python an object such as hs.RRF(), not {shown(fusion)}."
        )
    content = read_content(fusion)
    kind = content.get("type") if isinstance(content, Mapping) else None
    if kind in list(registered("fusion")):
        return make_fusion(content), candidates
    with content_of_tune(f"The file {str(fusion)!r}"):
        if kind != TUNED:
            raise ValueError("it names no fusion" if kind is None else f"its type is {kind!r:.40}")
        tuned, depth = make_fusion(content["fusion"]), content["candidates"]
    return tuned, depth if candidates is None else candidates


def read_content(path: str | Path) -> Any:
    """Read the JSON in the file of a fusion.

    Raises:
        InvalidArgumentError: The file cannot be read, or it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidArgumentError(f"There is no file {str(path)!r}: check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"The fusion {str(path)!r} cannot be read: {reason}.") from error


@contextmanager
def content_of_tune(what: str = "This") -> Iterator[None]:
    """Turns errors of reading a file of `hs.tune` into InvalidArgumentError."""
    try:
        yield
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{what} is not a tuned fusion as `hybridsearch tune --save FILE` writes it ({str(error)[:200]})."
        ) from error
