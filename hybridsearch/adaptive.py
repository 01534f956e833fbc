"""How far to trust each retriever for one query, told from the rankings of that query alone; no labels.

Two signs that a retriever is lost, and neither is sure:

* It fills its top ranks with documents that no other retriever would show: `support`, from the ranks of the other
  lists. Predicting how well a list answers a query from its similarity to others is Markovits, Shtok, Kurland and
  Carmel's (Predicting Query Performance for Fusion-Based Retrieval, CIKM 2012).
* All its candidates score about the same: `commitment`, from the shape of its own scores. That the scores of good
  lists are further apart is the idea of NQC (Shtok, Kurland, Carmel, Raiber and Markovits, Predicting Query Performance
  by Query-Drift Estimation, ACM TOIS 30(2), 2012).

Weighting a fusion by such predictions, query by query, is studied by Santra, Basuchowdhuri and Ganguly (Beyond
Correlations, arXiv 2601.17339). benchmarks/adaptive_fusion.py measures each sign, both, and others that were tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hybridsearch.ranking import Ranking

TOP = 10
"""How many first documents of a retriever the others are asked about: a page of results."""

DAMPING = 10.0
"""The k of the reciprocal ranks: how slowly support falls with the other's rank (half of it is left at rank k + 2).

Of order `TOP`, so that an other that has all ten on its own first page supports them well, in whatever order."""


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
        return math.fsum(gain * discount for gain, discount in zip(gains, discounts, strict=True)) / math.fsum(
            discounts
        )

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
