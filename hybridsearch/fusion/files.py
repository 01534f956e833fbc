"""Fusions from what an index or a file remembers of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion.adaptive import AdaptiveFusion
from hybridsearch.fusion.base import Fusion
from hybridsearch.fusion.rrf import RRF
from hybridsearch.fusion.score import ScoreFusion

FUSIONS: dict[str, type[Fusion]] = {fusion.name: fusion for fusion in (RRF, ScoreFusion, AdaptiveFusion)}
"""The type names that `make_fusion` and an index's settings know."""


def make_fusion(description: Mapping[str, Any]) -> Fusion:
    """The fusion of `Fusion.to_json`. Raises InvalidArgumentError where it is not one."""
    arguments = dict(description)
    name, tuned_on = arguments.pop("type", None), arguments.pop("tuned_on", "")
    if name not in FUSIONS:
        raise InvalidArgumentError(f"No fusion {name!r} is known: known are {', '.join(FUSIONS)}.")
    try:
        fusion: Fusion = FUSIONS[name](**arguments)
    except TypeError as error:
        raise InvalidArgumentError(f"The fusion {name!r} does not take these arguments: {error}.") from error
    fusion.tuned_on = frozenset(tuned_on.split())
    return fusion


def read_fusion(fusion: Fusion | str | Path, candidates: int | None) -> tuple[Fusion, int | None]:
    """The fusion, and the depth that a file of `hs.tune` was tuned at where `candidates` is None."""
    if isinstance(fusion, Fusion):
        return fusion, candidates
    if not isinstance(fusion, str | Path) or not str(fusion).endswith(".json"):
        raise InvalidArgumentError(
            "A fusion is an object such as hs.RRF(), or the path of a .json file of hs.tune or Fusion.save, not "
            f"{fusion!r:.80}."
        )
    from hybridsearch.evaluation.tuned import load_fusion

    loaded, depth = load_fusion(fusion)
    return loaded, depth if candidates is None else candidates
