"""Leaves out documents that have only frequent terms of a query, if they cannot be among the hits.

This is MaxScore (H. Turtle and J. Flood, "Query evaluation: strategies and optimizations", 1995), made with a filter.
Lucene does it too, but not if a search has a filter or ranks documents by their passages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from hybridsearch.adapters.lucene.stored.reading import hit_score
from hybridsearch.adapters.lucene.wire.connection import Json

_LEAST = 10_000  # documents with a term that are left out; for fewer, a second search would cost more than this saves
_SHARE = 0.5  # of the weight of a term that k documents have, which the last hit mostly reaches
_SLACK = 1 + 1e-4  # Lucene adds float32 values


@dataclass(frozen=True, slots=True)
class Heavy:
    """The terms of a query of which each hit has at least one.

    Attributes:
        terms: The terms. All other terms of the query are frequent and have small weights.
        bound: The largest score of documents that have none of the terms.
    """

    terms: Sequence[str]
    bound: float

    def has_all(self, hits: Sequence[Json], k: int, scored: Callable[[float], float]) -> bool:
        """Whether the first `k` hits are those of a search for all terms.

        Args:
            hits: The hits of a search for documents that have one of the terms, best first.
            k: The number of hits that count.
            scored: Function that turns the engine's scores into ours.
        """
        return len(hits) >= k and scored(hit_score(hits[k - 1])) > self.bound


def heavy_terms(weights: Mapping[str, float], frequencies: Mapping[str, int], largest: float, k: int) -> Heavy | None:
    """The terms of which the best `k` documents probably have at least one. None if this does not save much.

    Args:
        weights: Weights of the query's terms, above 0.
        frequencies: Number of documents or passages that have each term.
        largest: The largest weight of a term in a document.
        k: Number of hits.

    >>> heavy_terms({"the": 0.01, "wing": 6.0}, {"the": 90_000, "wing": 40}, 1.0, 10).terms
    ['wing']
    """
    order = sorted(weights, key=lambda term: -weights[term])
    reached = accumulate(frequencies[term] for term in order)
    least = next((weights[term] for term, found in zip(order, reached, strict=True) if found >= k), 0.0) * _SHARE
    bound, saved, terms = 0.0, 0, list(order)
    while len(terms) > 1 and bound + weights[terms[-1]] <= least:
        term = terms.pop()
        bound, saved = bound + weights[term], saved + frequencies[term]
    return Heavy(terms, bound * largest * _SLACK) if saved > _LEAST else None
