"""Score fusion, which merges rankings by normalised scores."""

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
    """Score fusion, whose fused score is the weighted mean of normalised scores.

    The mean is over all retrievers that were asked. A retriever that does not have a document in its ranking counts 0.
    Scores are normalised for each query and retriever, over the candidates of the retriever. With `"minmax"` and
    `"zscore"`, candidates with equal scores, and a single candidate, get 1.0.

    Args:
        normalization: Method that normalises scores: `"minmax"` to the range from 0 to 1, `"zscore"` to mean 0 and
            (population) standard deviation 1, `"none"` leaves scores as they are.
        weights: Weights by retriever name, at least 0. None gives all retrievers the same weight.

    Raises:
        InvalidArgumentError: The normalisation is unknown, or a weight is not allowed.

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
        """Compute the normalised score times the weight's share of all weights, for each document of each ranking."""
        total = math.fsum(self.weight(name) for name in rankings)
        return {
            name: normalize(ranking.scores, self.normalization) * (self.weight(name) / total)
            for name, ranking in rankings.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Convert the fusion to a dict that JSON can hold."""
        return {**super().to_json(), "normalization": self.normalization}


def normalize(scores: NDArray[np.float64], normalization: Normalization) -> NDArray[np.float64]:
    """Normalise the scores of one retriever for one query, as `ScoreFusion` describes.

    Raises:
        InvalidArgumentError: A score is infinite.
    """
    if not np.isfinite(scores).all():
        raise InvalidArgumentError(
            "A ranking has an infinite score, and only ranks can be merged then: use RRF, or give finite scores."
        )
    if normalization == "none" or not len(scores):
        return scores
    if scores.min() == scores.max():
        return np.ones_like(scores)
    scaled = scores / float(np.abs(scores).max()) / 2  # so that differences and squares cannot overflow
    if normalization == "minmax":
        low, high = float(scaled.min()), float(scaled.max())
        return (scaled - low) / (high - low)
    return (scaled - float(scaled.mean())) / float(scaled.std())
