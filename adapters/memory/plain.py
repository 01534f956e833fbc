"""The loops of `kernels` in NumPy. They find the same hits with the same scores, but are several times slower.

They need no compiler. Searches use them until the compiled loops are ready.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 2048
"""The number of vectors that are multiplied at a time, so that they stay in the cache."""

WIDTH = 16
"""The number of vectors of a query that `most_similar` multiplies at a time. Each block of a query has this width."""


def top_k(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    order: NDArray[np.int32],
    allowed: NDArray[np.bool_],
    owners: NDArray[np.int32],
    first: int,
    last: int,
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
) -> int:
    """Do what `kernels.top_k` does, for one query with the terms `columns`. Returns the number of hits in the outputs.

    No document has a term twice, so fancy indexing can add to all scores of a term at once. The sums are float32, in
    the order of the terms, as in the compiled loop.
    """
    scores = np.zeros(last - first, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for column, weight in zip(columns.tolist(), weights, strict=True):
            if column >= 0 and weight != 0:
                begin, end = indptr[column : column + 2].tolist()
                if last - first < len(order):
                    begin, end = (begin + np.searchsorted(rows[begin:end], (first, last))).tolist()
                scores[rows[begin:end] - first] += weight * values[begin:end]
    if len(allowed):
        scores[~allowed[first:last]] = 0
    found = np.flatnonzero(scores > 0)
    k = len(out_rows)
    if len(owners):
        best = found[np.lexsort((found, -scores[found], owners[found + first]))]
        found = np.sort(best[first_of_each(owners[best + first])])
    if len(found) > k:
        least = np.partition(scores[found], len(found) - k)[len(found) - k]
        found = found[scores[found] >= least]
    best = found[np.lexsort((order[found + first], -scores[found]))][:k]
    out_rows[: len(best)] = best + first
    out_scores[: len(best)] = scores[best]
    return len(best)


def first_of_each(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """The first place of each different number, ascending."""
    return np.sort(np.unique(numbers, return_index=True)[1])


def score_rows(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    wanted: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Do what `kernels.score_rows` does."""
    out[:] = 0
    for column, weight in zip(columns.tolist(), weights, strict=True):
        if column >= 0:
            begin, end = indptr[column : column + 2].tolist()
            at = np.minimum(np.searchsorted(rows[begin:end], wanted), end - begin - 1)
            there = rows[begin:end][at] == wanted
            out[there] += weight * values[begin:end][at[there]]


def bound(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    residuals: NDArray[np.float32],
    norms: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    owners: NDArray[np.int32],
    queries: NDArray[np.int16],
    factors: NDArray[np.float32],
    first: int,
    last: int,
    uppers: NDArray[np.float32],
    floors: NDArray[np.float32],
) -> None:
    """Do what `dense_kernels.bound` does, with products in float32."""
    wide = queries.astype(np.float32).T
    scores, there, lengths = uppers[:, first:last], norms[first:last] > 0, norms[first:last]
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        scores[:, start - first : stop - first] = (codes[start:stop].astype(np.float32) @ wide).T
    if len(allowed):
        there &= allowed[first:last]
    starts = np.flatnonzero(np.diff(owners[first:last], prepend=-1)) if len(owners) else None
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # `CodedQueries.bounded` says where
        for query, (step, of_residual, of_norm, constant, square, of_square) in enumerate(factors):
            less = lengths * square * lengths
            middles = scores[query] * step * scales[first:last] - less
            margins = residuals[first:last] * of_residual + lengths * of_norm + constant + less * of_square
            scores[query] = np.where(there, middles + margins, np.float32(-np.inf))
            lowers = np.where(there, middles - margins, np.float32(-np.inf))
            if starts is not None:
                lowers = np.maximum.reduceat(lowers, starts)
            k = min(floors.shape[1], len(lowers))
            floors[query, :k] = np.partition(lowers, len(lowers) - k)[len(lowers) - k :]
            floors[query, k:] = -np.inf


def approximate(
    array: NDArray[np.float32],
    rows: NDArray[np.int64],
    query: NDArray[np.float64],
    euclidean: bool,
    out: NDArray[np.float64],
) -> None:
    """Do what `dense_kernels.approximate` does. It may sum in another order."""
    for start in range(0, len(rows), BLOCK):
        part = array[rows[start : start + BLOCK]].astype(np.float64)
        if euclidean:
            part -= query
            out[start : start + BLOCK] = -(part * part).sum(axis=1)
        else:
            out[start : start + BLOCK] = part @ query


def most_similar(
    tokens: NDArray[np.uint16],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    query: NDArray[np.float32],
    first: int,
    last: int,
    tops: NDArray[np.float32],
    seconds: NDArray[np.float32],
    places: NDArray[np.int32],
) -> None:
    """Do what `token_kernels.most_similar` does. It may sum in another order."""
    wide = query.transpose(1, 0, 2).reshape(query.shape[1], -1)
    columns = np.arange(wide.shape[1])
    for number in range(first, last):
        begin, end = starts[rows[number] : rows[number] + 2].tolist()
        products = tokens[begin:end].view(np.float16).astype(np.float32) @ wide
        best = products.argmax(axis=0)
        tops[number], places[number] = products[best, columns], best
        products[best, columns] = -np.inf
        seconds[number] = products.max(axis=0)
