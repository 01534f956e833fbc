"""Merging the rankings of several retrievers into one.

A fusion is a subclass of `Fusion` with one method: what each listed document earns from each retriever. The rest
(summing, ties, weights) is the same for all. Add its class to `FUSIONS` so that a saved index can restore it.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adaptive import commitment, support, trust
from hybridsearch.errors import InvalidArgumentError, StorageError
from hybridsearch.ranking import EMPTY, Ranking


class Fusion(ABC):
    """How rankings are merged: the fused score of a document is the sum of what it earns from each retriever.

    Args:
        weights: non-negative weight by retriever name, with an entry for every retriever that is fused; None = all
            equal. Weight 0 is the same as leaving the retriever out.

    Raises:
        InvalidArgumentError: a weight is negative, not finite, or all are 0.
    """

    name: ClassVar[str]

    tuned_on: frozenset[str] = frozenset()
    """Digests of the queries that `hs.tune` chose it by, as `Dataset.query_digests` gives them."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        if weights is not None:
            for retriever, weight in weights.items():
                if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e300:
                    raise InvalidArgumentError(f"The weight of {retriever!r} is {weight!r}; weights are numbers >= 0.")
            if not any(weights.values()):
                raise InvalidArgumentError("All fusion weights are 0, so nothing could be found; raise one of them.")
        self.weights = None if weights is None else {name: float(weight) for name, weight in weights.items()}

    @abstractmethod
    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """What each document of each ranking earns, parallel to that ranking's ids; no ranking has weight 0 here."""

    def fuse(self, rankings: Mapping[str, Ranking]) -> Ranking:
        """The fused ranking of one query.

        Sums are exactly rounded and compared after rounding to 12 significant digits, so that the order of the
        retrievers cannot decide; equal scores are ordered by document id.

        Args:
            rankings: by retriever name; all of those asked, also the empty ones.
        """
        return self.explain(rankings)[0]

    def explain(self, rankings: Mapping[str, Ranking]) -> tuple[Ranking, dict[str, dict[str, float]]]:
        """The fused ranking, and by retriever name and document id what each listing contributed to its score."""
        used = {name: ranking for name, ranking in rankings.items() if self.weight(name) > 0}
        contributions = {
            name: dict(zip(used[name].ids, values.tolist(), strict=True))
            for name, values in self.contributions(used).items()
        }
        parts: dict[str, list[float]] = {}
        for of_retriever in contributions.values():
            for id, value in of_retriever.items():
                parts.setdefault(id, []).append(value)
        if not parts:
            return EMPTY, contributions
        scores = [round_score(math.fsum(values)) for values in parts.values()]
        return Ranking.from_scores(zip(parts, scores, strict=True)), contributions

    def weight(self, retriever: str) -> float:
        """The weight of one retriever. Raises InvalidArgumentError where `weights` leaves it open."""
        if self.weights is None:
            return 1.0
        if retriever not in self.weights:
            raise InvalidArgumentError(
                f"The fusion has weights for {', '.join(map(repr, self.weights))} but none for {retriever!r}: "
                "give it one (0 leaves the retriever out)."
            )
        return self.weights[retriever]

    def to_json(self) -> dict[str, Any]:
        """`{"type": name, **constructor arguments}`, with `tuned_on` if there is any; `make_fusion` is its inverse."""
        tuned_on = {"tuned_on": " ".join(sorted(self.tuned_on))} if self.tuned_on else {}
        return {"type": self.name, "weights": self.weights, **tuned_on}

    def save(self, path: str | Path) -> None:
        """Write a small JSON file, which is taken wherever a fusion is. Raises StorageError where that fails."""
        try:
            Path(path).write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}.") from error

    def __repr__(self) -> str:
        described = {key: value for key, value in self.to_json().items() if key not in ("type", "tuned_on")}
        arguments = {key: value for key, value in described.items() if value is not None}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


class RRF(Fusion):
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): sum of weight / (k + rank), rank from 1.

    A retriever that does not list a document adds nothing.

    >>> bm25, dense = Ranking.from_scores({"a": 9.0, "b": 7.0}), Ranking.from_scores({"b": 0.8})
    >>> fused = RRF().fuse({"bm25": bm25, "dense": dense})
    >>> fused.ids, fused.scores.tolist() == [round_score(1 / 62 + 1 / 61), round_score(1 / 61)]
    (('b', 'a'), True)
    """

    name = "rrf"

    def __init__(self, k: float = 60, weights: Mapping[str, float] | None = None) -> None:
        if isinstance(k, bool) or not isinstance(k, int | float) or not 0 <= k < math.inf:
            raise InvalidArgumentError(f"RRF's k is {k!r}; it is a number >= 0, usually 60.")
        super().__init__(weights)
        self.k = k

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        return {
            name: self.weight(name) / (self.k + np.arange(1.0, len(ranking) + 1)) for name, ranking in rankings.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "k": self.k}


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
            name: _normalize(ranking.scores, self.normalization) * (self.weight(name) / total)
            for name, ranking in rankings.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "normalization": self.normalization}


class AdaptiveFusion(Fusion):
    """Weighted mean of min-max scores whose weights are chosen for each query, from its rankings alone.

    The weight of a retriever is its own (1 unless given) times how well the others' rankings support its first ten
    documents, times how clearly its scores prefer them (`hybridsearch.adaptive`). Else it is `ScoreFusion("minmax")`.

    No ranking of one query shows that a retriever is weak on the whole collection; those of many queries do, without a
    judgement: `calibrated` takes its weights from them (`hybridsearch.adaptive.trust`). benchmarks/adaptive_fusion.py
    says what either is worth. Where there are judged queries, `hybridsearch.evaluation.tuning.tune` does better.

    >>> bm25 = Ranking.from_scores({"a": 9.0, "b": 7.0, "c": 5.0})
    >>> dense = Ranking.from_scores({"x": 0.9, "a": 0.8, "b": 0.7})
    >>> [(id, round(score, 3)) for id, score in AdaptiveFusion().fuse({"bm25": bm25, "dense": dense})]
    [('a', 0.748), ('x', 0.504), ('b', 0.248), ('c', 0.0)]
    """

    name = "adaptive"

    @classmethod
    def calibrated(cls, samples: Iterable[Mapping[str, Ranking]]) -> AdaptiveFusion:
        """An adaptive fusion whose weights say how far each retriever is to be trusted at all, from unjudged queries.

        Args:
            samples: the rankings of a hundred queries or more, as `HybridSearch.rankings` gives them.

        Raises:
            InvalidArgumentError: there is no query, or not every query has the same retrievers.

        >>> good = [Ranking.from_scores({f"a{query}": 2.0, f"b{query}": 1.0}) for query in range(100)]
        >>> hubs = [Ranking.from_scores({"x": 2.0, "y": 1.0})] * 100
        >>> fusion = AdaptiveFusion.calibrated({"good": a, "hubs": b} for a, b in zip(good, hubs, strict=True))
        >>> fusion.fuse({"good": good[0], "hubs": hubs[0]}).ids
        ('a0', 'x', 'b0', 'y')
        """
        return cls(trust(samples))

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        depth = max((len(ranking) for ranking in rankings.values()), default=0)
        scores = {name: _normalize(ranking.scores, "minmax") for name, ranking in rankings.items()}
        weights = {
            name: self.weight(name) * supported * commitment(scores[name], depth)
            for name, supported in support(rankings).items()
        }
        total = math.fsum(weights.values())
        return {name: of_retriever * (weights[name] / total) for name, of_retriever in scores.items()}


def _normalize(scores: NDArray[np.float64], normalization: Normalization) -> NDArray[np.float64]:
    if normalization == "none" or not len(scores):
        return scores
    if scores.min() == scores.max():
        return np.ones_like(scores)
    scaled = scores / float(np.abs(scores).max()) / 2  # neither differences nor squares leave float64 now
    if normalization == "minmax":
        low, high = float(scaled.min()), float(scaled.max())
        return (scaled - low) / (high - low)
    return (scaled - float(scaled.mean())) / float(scaled.std())


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


def round_score(score: float) -> float:
    """`score` to 12 significant digits: what fused and reranked scores are compared by."""
    return float(f"{score:.12g}")
