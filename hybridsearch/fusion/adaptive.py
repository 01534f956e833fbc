"""How far to trust each retriever, told from rankings alone; no labels.

Two signs of one query that a retriever is lost, and neither is sure:

* It fills its top ranks with documents that no other retriever would show: `support`, from the ranks of the other
  lists. Predicting how well a list answers a query from its similarity to others is Markovits, Shtok, Kurland and
  Carmel's (Predicting Query Performance for Fusion-Based Retrieval, CIKM 2012).
* All its candidates score about the same: `commitment`, from the shape of its own scores. That the scores of good
  lists are further apart is the idea of NQC (Shtok, Kurland, Carmel, Raiber and Markovits, Predicting Query Performance
  by Query-Drift Estimation, ACM TOIS 30(2), 2012).

Weighting a fusion by such predictions, query by query, is studied by Santra, Basuchowdhuri and Ganguly (Beyond
Correlations, arXiv 2601.17339).

Two more that the rankings of many queries show (`trust`), where each of them alone looks like any other:

* It shows the same few documents again and again, whatever is asked: such hubs are near to everything and say nothing
  (Radovanović, Nanopoulos and Ivanović, Hubs in Space, JMLR 11, 2010).
* It is the twin of another retriever, so that one opinion has two votes. Weights for estimates whose errors are
  correlated are Bates and Granger's (The Combination of Forecasts, Operational Research Quarterly 20(4), 1969).

benchmarks/adaptive_fusion.py measures each sign, all, and others that were tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion.base import Fusion
from hybridsearch.fusion.score import normalize
from hybridsearch.ranking import Ranking

TOP = 10
"""How many first documents of a retriever the others are asked about: a page of results."""

DAMPING = 10.0
"""The k of the reciprocal ranks: how slowly support falls with the other's rank (half of it is left at rank k + 2).

Of order `TOP`, so that an other that has all ten on its own first page supports them well, in whatever order."""

FEW_REPEATS = 0.1
"""Repetitions that are taken for none: of a first document in the first ten of this many other queries."""

LEAST_TRUST = 0.1
"""Of a retriever that repeats more than others: with queries that are few or alike it may be right to."""

LEAST_SHARE = 0.05
"""Of a vote, for a retriever that only repeats what several others say."""


class AdaptiveFusion(Fusion):
    """Weighted mean of min-max scores whose weights are chosen for each query, from its rankings alone.

    The weight of a retriever is its own (1 unless given) times how well the others' rankings support its first ten
    documents (`support`), times how clearly its scores prefer them (`commitment`). Else it is `ScoreFusion("minmax")`.

    No ranking of one query shows that a retriever is weak on the whole collection; those of many queries do, without a
    judgement: `calibrated` takes its weights from them (`trust`). benchmarks/adaptive_fusion.py
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
        scores = {name: normalize(ranking.scores, "minmax") for name, ranking in rankings.items()}
        weights = {
            name: self.weight(name) * supported * commitment(scores[name], depth)
            for name, supported in support(rankings).items()
        }
        total = math.fsum(weights.values())
        return {name: of_retriever * (weights[name] / total) for name, of_retriever in scores.items()}


def support(rankings: Mapping[str, Ranking]) -> dict[str, float]:
    """How well the other rankings support each one's first documents: in (0, 1], by retriever name.

    The support that one ranking gives another is the mean of (k + 1) / (k + rank) over the other's first ten documents,
    discounted as in DCG by 1 / log2(position + 1). A document that it does not list has the rank after the longest
    list, so that a short list (few documents have the term) does not support what it never listed. What counts is the
    least supporter: with two of a kind and one stranger, the two do not vouch for each other. Where there is no other,
    or none found anything, it is 1.

    >>> bm25 = Ranking.from_scores({"a": 9.0, "b": 7.0, "c": 5.0})
    >>> dense = Ranking.from_scores({"x": 0.9, "a": 0.8, "b": 0.7})
    >>> {name: round(value, 3) for name, value in support({"bm25": bm25, "dense": dense}).items()}
    {'bm25': 0.865, 'dense': 0.88}
    """
    found = {name: ranking for name, ranking in rankings.items() if len(ranking)}
    missing = 1 + max((len(ranking) for ranking in found.values()), default=0)
    ranks = {name: {id: rank for rank, id in enumerate(ranking.ids, 1)} for name, ranking in found.items()}

    def given(supporter: str, name: str) -> float:
        top = found[name].ids[:TOP]
        gains = [(DAMPING + 1) / (DAMPING + ranks[supporter].get(id, missing)) for id in top]
        discounts = [1 / math.log2(position + 1) for position in range(1, len(top) + 1)]
        total = math.fsum(gain * discount for gain, discount in zip(gains, discounts, strict=True))
        return total / math.fsum(discounts)

    return {
        name: min((given(other, name) for other in found if other != name), default=1.0) if name in found else 1.0
        for name in rankings
    }


def commitment(scores: NDArray[np.float64], depth: int) -> float:
    """How much a retriever prefers its first documents: 1 over the square root of its mean min-max score; 1 or more.

    As a weight of min-max scores it is halfway (by the geometric mean) between leaving them alone and making the
    scores of every retriever sum to the same (the "sum" normalisation of Montague and Aslam, CIKM 2001).

    Args:
        scores: min-max scores of all its candidates, shape (n,), n <= depth.
        depth: length of the longest list; what a shorter one does not list counts 0.

    >>> commitment(np.array([1.0, 0.2, 0.1, 0.0]), 4) > commitment(np.array([1.0, 0.9, 0.8, 0.0]), 4)
    True
    """
    total = float(scores.sum())
    return math.sqrt(depth / total) if total > 0 else 1.0


def trust(samples: Iterable[Mapping[str, Ranking]]) -> dict[str, float]:
    """A weight for each retriever, by what it does over many queries: the greatest is 1.

    Of each query's first ten documents it counts in how many other queries' first ten they are, too. A retriever with
    the mean count c has the weight ((least c + 0.1) / (c + 0.1))^2, but 0.1 at least: what all retrievers repeat alike
    is what the queries have in common, and only repeating more speaks against one. That is multiplied by its part in
    S^-1 1, where S holds the mean overlaps (Jaccard) of the first ten documents of any two: the weights with the least
    variance for estimates that are correlated so, by which twins share a vote.

    Args:
        samples: by retriever name the rankings of each query: of a hundred queries or more, as people ask them. With
            few queries, or of unlike topics in a huge collection, nothing is repeated and all are trusted alike.

    Raises:
        InvalidArgumentError: there is no query, or not every query has the same retrievers.

    >>> bm25 = [Ranking.from_scores({f"d{query}": 2.0, f"e{query}": 1.0}) for query in range(100)]
    >>> lost = [Ranking.from_scores({"hub": 2.0, f"d{query}": 1.0}) for query in range(100)]
    >>> samples = ({"bm25": one, "lost": other} for one, other in zip(bm25, lost, strict=True))
    >>> {name: round(weight, 4) for name, weight in trust(samples).items()}
    {'bm25': 1.0, 'lost': 0.1}
    """
    tops = [{name: ranking.ids[:TOP] for name, ranking in sample.items()} for sample in samples]
    if not tops or any(one.keys() != tops[0].keys() for one in tops):
        raise InvalidArgumentError("Trust is learned from the rankings of one or more queries by the same retrievers.")
    names = list(tops[0])
    repeats = np.array([_repeats([one[name] for one in tops]) for name in names])
    overlaps = np.array([[np.mean([_overlap(one[a], one[b]) for one in tops]) for b in names] for a in names])
    shares = np.maximum(np.linalg.pinv(overlaps, hermitian=True).sum(axis=1), LEAST_SHARE)
    trusted = np.maximum(((repeats.min() + FEW_REPEATS) / (repeats + FEW_REPEATS)) ** 2, LEAST_TRUST)
    weights = trusted * shares
    return dict(zip(names, (weights / weights.max()).tolist(), strict=True))


def _repeats(tops: Iterable[tuple[str, ...]]) -> float:
    """The mean, over all documents that were shown, of how many other queries show the same one."""
    counts = Counter(id for top in tops for id in top)
    shown = counts.total()
    return sum(count * (count - 1) for count in counts.values()) / shown if shown else 0.0


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """Jaccard's similarity."""
    both = set(one) | set(other)
    return len(set(one) & set(other)) / len(both) if both else 1.0
