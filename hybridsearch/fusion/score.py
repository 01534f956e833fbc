"""Fusion by normalised scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion.base import Fusion
from hybridsearch.ranking import Ranking

Normalization = Literal["minmax", "zscore", "none"]


class ScoreFusion(Fusion):
    """Weighted mean of normalised scores, over all retrievers asked; one that does not list a document counts 0.

    Scores are normalised per query and retriever over its candidates: "minmax" to [0, 1], "zscore" to mean 0 and
    (population) standard deviation 1, "none" leaves them. A list of equal scores, also a list of one, becomes 1.0
    under "minmax" and "zscore".

    >>> bm25, dense = Ranking.from_scores({"a": 9.0, "b": 7.0, "c": 5.0}), Ranking.from_scores({"b": 0.8})
    >>> list(ScoreFusion("minmax").fuse({"bm25": bm25, "dense": dense}))
    [('b', 0.75), ('a', 0.5), ('c', 0.0)]
    """

    name = "score"

    def __init__(self, normalization: Normalization = "minmax", weights: Mapping[str, float] | None = None) -> None:
        if normalization not in ("minmax", "zscore", "none"):
            raise InvalidArgumentError(f"Normalization {normalization!r} is unknown: use 'minmax', 'zscore' or 'none'.")
        super().__init__(weights)
        self.normalization = normalization

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        total = math.fsum(self.weight(name) for name in rankings)
        return {
            name: normalize(ranking.scores, self.normalization) * (self.weight(name) / total)
            for name, ranking in rankings.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "normalization": self.normalization}


def normalize(scores: NDArray[np.float64], normalization: Normalization) -> NDArray[np.float64]:
    if normalization == "none" or not len(scores):
        return scores
    if scores.min() == scores.max():
        return np.ones_like(scores)
    scaled = scores / float(np.abs(scores).max()) / 2  # neither differences nor squares leave float64 now
    if normalization == "minmax":
        low, high = float(scaled.min()), float(scaled.max())
        return (scaled - low) / (high - low)
    return (scaled - float(scaled.mean())) / float(scaled.std())
