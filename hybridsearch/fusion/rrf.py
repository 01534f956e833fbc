"""Reciprocal rank fusion (RRF)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number
from hybridsearch.fusion.base import Fusion
from hybridsearch.ranking import Ranking

_LARGE = 1e6
"""The k from which `RRF.keeps_order` is False. There are at most about as many candidates."""


class RRF(Fusion):
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), which merges rankings by ranks alone.

    A retriever adds weight / (k + rank) to the fused score of each document in its ranking. Ranks count from 1. It adds
    nothing to other documents.

    Args:
        k: Number that is added to each rank, at least 0. A large number makes the first ranks count less.
        weights: Weights by retriever name, at least 0. None gives all retrievers the same weight.

    Raises:
        InvalidArgumentError: An argument is outside its range.

    >>> from hybridsearch.ranking import round_score
    >>> bm25, dense = Ranking.from_scores({"a": 9.0, "b": 7.0}), Ranking.from_scores({"b": 0.8})
    >>> fused = RRF().fuse({"bm25": bm25, "dense": dense})
    >>> fused.ids, fused.scores.tolist() == [round_score(1 / 62 + 1 / 61), round_score(1 / 61)]
    (('b', 'a'), True)
    """

    name = "rrf"

    def __init__(self, k: float = 60, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(weights)
        k = number("RRF's k", k, least=0, sentence="{name} is {value}, but it must be a number >= 0, usually 60.")
        self.k = int(k) if k < _LARGE and float(k).is_integer() else k  # 60.0 is shown as 60

    @property
    def keeps_order(self) -> bool:
        """True, unless k is so large that the contributions of neighbouring ranks have the same 12 digits."""
        return self.k < _LARGE

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """Compute weight / (k + rank) for each document of each ranking."""
        return {name: _shares(self.weight(name), self.k, len(ranking)) for name, ranking in rankings.items()}

    def to_json(self) -> dict[str, Any]:
        """Convert the fusion to a dict that JSON can hold."""
        return {**super().to_json(), "k": self.k}


@lru_cache(maxsize=1000)
def _shares(weight: float, k: float, ranks: int) -> NDArray[np.float64]:
    """weight / (k + rank) for the first `ranks` ranks. Most rankings have the same length."""
    shares: NDArray[np.float64] = weight / (k + np.arange(1.0, ranks + 1))
    shares.flags.writeable = False
    return shares
