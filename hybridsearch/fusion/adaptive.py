"""Adaptive fusion, which estimates from the rankings how good each retriever is. It needs no judgements.

The rankings of one query have two signs that a retriever has found the wrong documents. Neither sign is certain.

- The retriever's first documents have low ranks with the other retrievers (`support`). Markovits, Shtok, Kurland and
  Carmel predict from such similarities how good a ranking is (Predicting Query Performance for Fusion-Based Retrieval,
  CIKM 2012).
- The retriever's candidates have nearly equal scores (`commitment`). The scores of good rankings are further apart.
  This is the idea of NQC (Shtok, Kurland, Carmel, Raiber and Markovits, Predicting Query Performance by Query-Drift
  Estimation, ACM TOIS 30(2), 2012).

Santra, Basuchowdhuri and Ganguly study weights of a fusion that such predictions give for each query (Beyond
Correlations, arXiv 2601.17339).

The rankings of many queries have two more signs (`trust`), which no single query shows.

- The retriever finds the same few documents for many different queries. These hubs are near to all queries
  (Radovanović, Nanopoulos and Ivanović, Hubs in Space, JMLR 11, 2010).
- The retriever finds the same documents as another retriever, so that one opinion counts twice. Bates and Granger
  compute weights for estimates with correlated errors (The Combination of Forecasts, Operational Research Quarterly
  20(4), 1969).

benchmarks/adaptive_fusion.py measures each sign, all signs together, and other signs that were tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hybridsearch.fusion.base import Fusion, checked_samples
from hybridsearch.fusion.score import normalize
from hybridsearch.ranking import Ranking

TOP = 10
"""Number of first documents of a ranking that are compared with the other rankings: one page of results."""

DAMPING = 10.0
"""The k of the reciprocal ranks, which decides how slowly support falls with the rank. Half is left at rank k + 2.

It is about as large as `TOP`, so that a ranking with the same ten documents on its first page gives good support."""

FEW_REPEATS = 0.1
"""Number of repetitions that count as none, as a mean number of other queries with the same first document."""

LEAST_TRUST = 0.1
"""Least factor of a retriever that repeats documents. If queries are few or similar, it may be right to repeat."""

LEAST_SHARE = 0.05
"""Least share of a retriever whose documents several other retrievers find as well."""


class AdaptiveFusion(Fusion):
    """Score fusion by min-max whose weights are computed for each query from the rankings.

    The weight of a retriever has three factors: the given weight (1 by default), the support of its first ten documents
    in the other rankings (`support`), and how clearly its scores prefer its first documents (`commitment`). Scores are
    merged as by `ScoreFusion("minmax")`.

    The rankings of one query do not show whether a retriever is weak on the whole collection. The rankings of many
    queries do, without judgements: `calibrated` computes weights from them. benchmarks/adaptive_fusion.py measures the
    effect of both. If you have judged queries, `hs.tune` gives better results.

    Args:
        weights: Weights by retriever name, at least 0. None gives all retrievers the same weight.

    Raises:
        InvalidArgumentError: A weight is not allowed.

    >>> bm25 = Ranking.from_scores({"a": 9.0, "b": 7.0, "c": 5.0})
    >>> dense = Ranking.from_scores({"x": 0.9, "a": 0.8, "b": 0.7})
    >>> [(id, round(score, 3)) for id, score in AdaptiveFusion().fuse({"bm25": bm25, "dense": dense})]
    [('a', 0.748), ('x', 0.504), ('b', 0.248), ('c', 0.0)]
    """

    name = "adaptive"

    @classmethod
    def calibrated(cls, samples: Iterable[Mapping[str, Ranking]]) -> AdaptiveFusion:
        """Make an adaptive fusion whose weights are computed from the rankings of many queries, without judgements.

        Args:
            samples: Rankings of a hundred queries or more, as `HybridSearch.rankings` returns them.

        Returns:
            The fusion, with the weights of `hybridsearch.fusion.adaptive.trust`.

        Raises:
            InvalidArgumentError: There is no query, or two queries have different retrievers.

        >>> good = [Ranking.from_scores({f"a{query}": 2.0, f"b{query}": 1.0}) for query in range(100)]
        >>> hubs = [Ranking.from_scores({"x": 2.0, "y": 1.0})] * 100
        >>> fusion = AdaptiveFusion.calibrated({"good": a, "hubs": b} for a, b in zip(good, hubs, strict=True))
        >>> fusion.fuse({"good": good[0], "hubs": hubs[0]}).ids
        ('a0', 'x', 'b0', 'y')
        """
        return cls(trust(samples))

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """Compute the min-max score times the weight's share of all weights, for each document of each ranking."""
        depth = max((len(ranking) for ranking in rankings.values()), default=0)
        scores = {name: normalize(ranking.scores, "minmax") for name, ranking in rankings.items()}
        weights = {
            name: self.weight(name) * supported * commitment(scores[name], depth)
            for name, supported in support(rankings).items()
        }
        total = math.fsum(weights.values())
        return {name: of_retriever * (weights[name] / total) for name, of_retriever in scores.items()}


def support(rankings: Mapping[str, Ranking]) -> dict[str, float]:
    """Compute how well the other rankings support each ranking's first documents.

    Ranking A supports ranking B by a weighted mean over the first ten documents of B. A document counts
    (k + 1) / (k + its rank in A), with the discount of DCG, 1 / log2(its rank in B + 1). A document that is not in A
    has the rank after the end of the longest ranking. So a short ranking does not support documents that it does not
    have. The result is the least support that any other ranking gives. So two similar retrievers cannot raise each
    other's support.

    Args:
        rankings: Rankings of one query by retriever name.

    Returns:
        A number above 0 and up to 1 by retriever name. It is 1 if no other ranking has a document.

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
    """Compute how clearly the scores of a retriever prefer its first documents.

    The result is 1 over the square root of the mean min-max score. As a weight, it is the geometric mean of two
    others: 1, and the weight that gives the scores of every retriever the same sum (the "sum" normalisation of Montague
    and Aslam, CIKM 2001).

    Args:
        scores: Min-max scores of all candidates, of shape (n,) with n at most `depth`.
        depth: Length of the longest ranking. A shorter ranking is filled up with the score 0.

    Returns:
        A number of at least 1.

    >>> commitment(np.array([1.0, 0.2, 0.1, 0.0]), 4) > commitment(np.array([1.0, 0.9, 0.8, 0.0]), 4)
    True
    """
    total = float(scores.sum())
    return math.sqrt(depth / total) if total > 0 else 1.0


def trust(samples: Iterable[Mapping[str, Ranking]]) -> dict[str, float]:
    """Compute a weight for each retriever from its rankings of many queries.

    The weight has two factors.

    - Repetition: for each document among a query's first ten, the other queries are counted that have it among their
      first ten. A retriever with the mean count c gets ((least c + 0.1) / (c + 0.1))^2, but at least 0.1. The least c
      of all retrievers is what the queries have in common. Only more repetition lowers the weight.
    - Overlap: the retriever's part of S^-1 1, but at least 0.05. S has the mean Jaccard overlap of the first ten
      documents of any two retrievers. These are the weights with the least variance for estimates that are correlated
      by S. Two retrievers with the same documents share one weight.

    Args:
        samples: Rankings by retriever name, for each of a hundred queries or more that people ask. If the queries are
            few, or the collection is very large, no document is repeated, and repetition gives all the same factor.

    Returns:
        Weights by retriever name. The largest is 1.

    Raises:
        InvalidArgumentError: There is no query, or two queries have different retrievers.

    >>> bm25 = [Ranking.from_scores({f"d{query}": 2.0, f"e{query}": 1.0}) for query in range(100)]
    >>> lost = [Ranking.from_scores({"hub": 2.0, f"d{query}": 1.0}) for query in range(100)]
    >>> samples = ({"bm25": one, "lost": other} for one, other in zip(bm25, lost, strict=True))
    >>> {name: round(weight, 4) for name, weight in trust(samples).items()}
    {'bm25': 1.0, 'lost': 0.1}
    """
    tops = [{name: ranking.ids[:TOP] for name, ranking in sample.items()} for sample in checked_samples(samples)]
    names = list(tops[0])
    repeats = np.array([_repeats([one[name] for one in tops]) for name in names])
    overlaps = np.array([[np.mean([_overlap(one[a], one[b]) for one in tops]) for b in names] for a in names])
    shares = np.maximum(np.linalg.pinv(overlaps, hermitian=True).sum(axis=1), LEAST_SHARE)
    trusted = np.maximum(((repeats.min() + FEW_REPEATS) / (repeats + FEW_REPEATS)) ** 2, LEAST_TRUST)
    weights = trusted * shares
    return dict(zip(names, (weights / weights.max()).tolist(), strict=True))


def _repeats(tops: Iterable[tuple[str, ...]]) -> float:
    """The mean number of other queries that have the same document, over all documents."""
    counts = Counter(id for top in tops for id in top)
    shown = counts.total()
    return sum(count * (count - 1) for count in counts.values()) / shown if shown else 0.0


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """The Jaccard similarity of two sets of documents."""
    both = set(one) | set(other)
    return len(set(one) & set(other)) / len(both) if both else 1.0
