"""The loops of `kernels` in NumPy. They find the same hits with the same scores, but are several times slower.

They need no compiler. Searches use them until the compiled loops are ready.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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


def multiply(
    array: NDArray[np.float32], query: NDArray[np.float32], first: int, last: int, out: NDArray[np.float32]
) -> None:
    """Do what `kernels.multiply` does. It may sum in any order."""
    np.matmul(array[first:last], query, out=out[first:last])
