"""Reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number
from hybridsearch.fusion.base import Fusion
from hybridsearch.ranking import Ranking


class RRF(Fusion):
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): sum of weight / (k + rank), rank from 1.

    A retriever that does not list a document adds nothing.

    >>> from hybridsearch.ranking import round_score
    >>> bm25, dense = Ranking.from_scores({"a": 9.0, "b": 7.0}), Ranking.from_scores({"b": 0.8})
    >>> fused = RRF().fuse({"bm25": bm25, "dense": dense})
    >>> fused.ids, fused.scores.tolist() == [round_score(1 / 62 + 1 / 61), round_score(1 / 61)]
    (('b', 'a'), True)
    """

    name = "rrf"

    def __init__(self, k: float = 60, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(weights)
        self.k = number("RRF's k", k, least=0, sentence="{name} is {value}; it is a number >= 0, usually 60.")

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        return {
            name: self.weight(name) / (self.k + np.arange(1.0, len(ranking) + 1)) for name, ranking in rankings.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "k": self.k}
