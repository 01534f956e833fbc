"""The right answers in float64, with each formula written out, and the comparison with a backend's answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.backends import Kind
from hybridsearch.ranking import Ranking
from hybridsearch.testing.samples import K1, B, Item
from hybridsearch.vectors import Metric, QueryVector, SparseQuery, TextQuery

RECALL = 0.9
"""The fraction of the right documents that an approximate search must find in the small collections of the suite."""


def right_scores(
    kind: Kind,
    items: Sequence[Item],
    query: QueryVector,
    metric: Metric = "cosine",
    average_length: float | None = None,
) -> dict[str, float]:
    """The score of every item that is a hit, by id."""
    scores = _scores(kind, items, query, metric, average_length)
    return {item.id: score for item, score in zip(items, scores, strict=True) if score is not None}


def right_passages(
    kind: Kind,
    items: Sequence[Item],
    query: QueryVector,
    metric: Metric = "cosine",
    average_length: float | None = None,
) -> dict[str, dict[tuple[int, int], float]]:
    """The score of every passage that is a hit, by span, by id. The largest is the score of the item (MaxP).

    Each passage is scored like an item. So the numbers of BM25 are those of a collection of passages.
    """
    owners = [(item.id, span) for item in items for span in item.parts]
    passages = [passage for item in items for passage in item.parts.values()]
    right: dict[str, dict[tuple[int, int], float]] = {}
    for (id, span), score in zip(owners, _scores(kind, passages, query, metric, average_length), strict=True):
        if score is not None:
            right.setdefault(id, {})[span] = score
    return right


def _scores(
    kind: Kind, items: Sequence[Item], query: QueryVector, metric: Metric, average_length: float | None
) -> list[float | None]:
    """The score of every item. None for an item that is no hit."""
    assert not isinstance(query, TextQuery), "only the engine knows the right scores of a text query"
    if isinstance(query, SparseQuery):
        scores = bm25(items, query, average_length) if kind == "lexical" else sparse_dot(items, query)
        return [score if score > 0 else None for score in scores.tolist()]
    if kind == "multi_vector":
        return [maxsim(item.multi_vector, query) if len(item.multi_vector) and query.any() else None for item in items]
    return [
        None
        if item.vector is None or not item.vector.any() or not query.any()
        else dense_score(item.vector, query, metric)
        for item in items
    ]


def bm25(items: Sequence[Item], query: SparseQuery, average_length: float | None = None) -> NDArray[np.float64]:
    """The scores of Lucene's BM25 (Kamphuis et al., ECIR 2020, table 1).

    They are the sum over the query's terms of the term's count in the query times

        ln(1 + (N - n + 0.5) / (n + 0.5)) * tf / (tf + k1 * (1 - b + b * length / average length))

    for N documents of which n have the term. Lengths are in tokens. The average is over all N documents unless it is
    given.
    """
    lengths = [sum(item.counts.values()) for item in items]
    average = sum(lengths) / max(len(items), 1) if average_length is None else average_length
    scores = np.zeros(len(items))
    for term, count in zip(query.terms, query.weights.tolist(), strict=True):
        n = sum(term in item.counts for item in items)
        idf = math.log(1 + (len(items) - n + 0.5) / (n + 0.5))
        for row, item in enumerate(items):
            if tf := item.counts.get(term, 0):
                scores[row] += count * idf * tf / (tf + K1 * (1 - B + B * lengths[row] / average))
    return scores


def sparse_dot(items: Sequence[Item], query: SparseQuery) -> NDArray[np.float64]:
    """The dot products of the query and the items, by scipy."""
    terms = sorted({*query.terms, *(term for item in items for term in item.weights)})
    columns = {term: column for column, term in enumerate(terms)}
    rows = [row for row, item in enumerate(items) for _ in item.weights]
    places = np.array([rows, [columns[term] for item in items for term in item.weights]], dtype=np.int64)
    values = np.array([value for item in items for value in item.weights.values()], dtype=np.float64)
    documents = csr_array((values, places), shape=(len(items), len(terms)))
    vector = np.zeros(len(terms))
    for term, weight in zip(query.terms, query.weights.tolist(), strict=True):
        vector[columns[term]] = weight
    return np.asarray(documents @ vector)


def dense_score(vector: NDArray[np.float32], query: NDArray[np.float32], metric: Metric) -> float:
    """The inner product. For the metric "euclidean", minus the distance."""
    v, q = vector.astype(np.float64), query.astype(np.float64)
    return -float(np.linalg.norm(v - q)) if metric == "euclidean" else float(v @ q)


def maxsim(tokens: NDArray[np.float16], query: NDArray[np.float32]) -> float:
    """The sum, over the vectors of the query, of the largest inner product with a vector of a document."""
    products = query.astype(np.float64) @ tokens[:, : query.shape[1]].astype(np.float64).T
    return float(products.max(axis=1).sum())


def check_ranking(
    ranking: Ranking,
    right: Mapping[str, float],
    k: int,
    *,
    tolerance: float,
    approximate: bool = False,
) -> None:
    """Assert that `ranking` has the best `k` documents of `right`, in order, with the right scores.

    If two right scores differ by less than the tolerance, they may be in either order and on either side of the cut.
    The tolerance is relative to the score, or to 1 if the score is smaller, because sums of larger terms may cancel.
    """
    assert len(set(ranking.ids)) == len(ranking.ids), "a document is twice in one ranking"
    unexpected = [id for id in ranking.ids if id not in right]
    assert not unexpected, f"documents that are not hits were returned: {unexpected[:5]}"
    scores = ranking.scores.tolist()
    assert ranking.scores.dtype == np.float64
    assert list(ranking) == sorted(ranking, key=lambda pair: (-pair[1], pair[0])), "not in order of score, then id"
    for id, score in zip(ranking.ids, scores, strict=True):
        assert abs(score - right[id]) <= _band(right[id], tolerance), (
            f"{id!r} has the score {score!r}, but {right[id]!r} is right"
        )
    best = sorted(right.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    if approximate:
        found = len({id for id, _ in best} & set(ranking.ids))
        assert len(ranking) <= k
        assert found >= RECALL * len(best), f"found {found} of the best {len(best)}"
        return
    assert len(ranking) == len(best), f"there are {len(ranking)} hits, but {len(best)} is right"
    for rank, (id, (_, score)) in enumerate(zip(ranking.ids, best, strict=True), 1):
        band = 2 * _band(score, tolerance)
        assert abs(right[id] - score) <= band, f"{id!r} is at rank {rank}, where the right score is {score!r}"


def _band(score: float, tolerance: float) -> float:
    return tolerance * max(abs(score), 1.0)
