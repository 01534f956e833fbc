"""The compiled loops of dense search. `kernels` compiles them, `loops` calls them.

The hints on `kernels` hold here, too.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hybridsearch.adapters.memory.tiles import COLUMNS, QUERIES, ROWS, multiply_tile

STRIP = 128
"""The number of rows that are multiplied with all queries before the next rows, so that they stay in the cache."""


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
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
    """Upper bounds of the scores of the rows [first, last), and the largest lower bounds.

    Args:
        codes: As in `codes.Codes`.
        scales: As in `codes.Codes`.
        residuals: As in `codes.Codes`.
        norms: Lengths of the vectors. A row with length 0 is no hit.
        allowed: One flag for each row. Empty if all rows are allowed.
        owners: Owner of each row, ascending. Empty if each row is a hit of its own.
        queries: As in `codes.CodedQueries`.
        factors: As in `codes.CodedQueries`.
        first: First row.
        last: Row after the last one. The row has another owner than the row before.
        uppers: Output, shape (queries, all rows). A row that is no hit has minus infinity.
        floors: Output, shape (queries, k). The k largest lower bounds of each query, in any order. With `owners`, those
            of k owners. Minus infinity fills the places that are left.
    """
    number, k = floors.shape
    best = np.empty((number, 2 * k + STRIP), dtype=np.float32)
    counts = np.zeros(number, dtype=np.int64)
    thresholds = np.full(number, -np.inf, dtype=np.float32)
    held = np.full(number, -1, dtype=np.int64)  # the owner whose rows are being read, and its best lower bound
    held_best = np.full(number, -np.inf, dtype=np.float32)
    products = np.zeros((QUERIES, STRIP), dtype=np.int32)
    highest = np.empty(STRIP, dtype=np.float32)
    lowers = np.empty(STRIP, dtype=np.float32)
    for start in range(first, last, STRIP):
        width = min(STRIP, last - start)
        for query in range(number):
            if query % QUERIES == 0:
                _multiply_strip(codes, queries, start, width, query, products)
            threshold = thresholds[query]
            passing = _bound_strip(
                products[query % QUERIES],
                scales,
                residuals,
                norms,
                factors[query],
                start,
                width,
                threshold,
                highest,
                lowers,
            )
            if len(allowed):
                passing = _exclude(allowed, start, width, threshold, highest, lowers)
            uppers[query, start : start + width] = highest[:width]
            if not passing:
                continue
            count = counts[query]
            for i in range(width):
                lower = lowers[i]
                if not lower > threshold:
                    continue
                if len(owners):
                    if owners[start + i] == held[query]:
                        held_best[query] = max(held_best[query], lower)
                        continue
                    held[query] = owners[start + i]
                    lower, held_best[query] = held_best[query], lower
                    if not lower > threshold:
                        continue
                best[query, count] = lower
                count += 1
            if count > 2 * k:
                best[query, :k] = np.partition(best[query, :count], count - k)[count - k :]
                count = k
                thresholds[query] = best[query, :k].min()
            counts[query] = count
    for query in range(number):
        count = counts[query]
        if held_best[query] > thresholds[query]:
            best[query, count] = held_best[query]
            count += 1
        if count > k:
            best[query, :k] = np.partition(best[query, :count], count - k)[count - k :]
            count = k
        floors[query, :count] = best[query, :count]
        floors[query, count:] = -np.inf


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _bound_strip(
    products: NDArray[np.int32],
    scales: NDArray[np.float32],
    residuals: NDArray[np.float32],
    norms: NDArray[np.float32],
    factors: NDArray[np.float32],
    start: int,
    width: int,
    threshold: np.float32,
    uppers: NDArray[np.float32],
    lowers: NDArray[np.float32],
) -> np.int32:
    """The bounds of the rows [start, start + width) from their products. Returns how many exceed the threshold."""
    step, of_residual, of_norm = factors[0], factors[1], factors[2]
    constant, square, of_square = factors[3], factors[4], factors[5]
    passing = np.int32(0)  # as wide as a bound, which is twice as fast as 64 bits
    for i in range(width):
        at, row = np.uint64(i), np.uint64(start + i)
        less = norms[row] * square * norms[row]
        middle = np.float32(products[at]) * step * scales[row] - less
        margin = residuals[row] * of_residual + norms[row] * of_norm + constant + less * of_square
        there = norms[row] > 0
        uppers[at] = middle + margin if there else np.float32(-np.inf)
        lower = middle - margin if there else np.float32(-np.inf)
        lowers[at] = lower
        passing = np.int32(passing + np.int32(lower > threshold))
    return passing


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _exclude(
    allowed: NDArray[np.bool_],
    start: int,
    width: int,
    threshold: np.float32,
    uppers: NDArray[np.float32],
    lowers: NDArray[np.float32],
) -> np.int32:
    """Take the rows that are not allowed out of a strip. Returns how many lower bounds exceed the threshold."""
    passing = np.int32(0)
    for i in range(width):
        at, there = np.uint64(i), allowed[np.uint64(start + i)]
        uppers[at] = uppers[at] if there else np.float32(-np.inf)
        lower = lowers[at] if there else np.float32(-np.inf)
        lowers[at] = lower
        passing = np.int32(passing + np.int32(lower > threshold))
    return passing


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _multiply_strip(
    codes: NDArray[np.int8],
    queries: NDArray[np.int16],
    start: int,
    width: int,
    first: int,
    out: NDArray[np.int32],
) -> None:
    """The inner products of the rows [start, start + width) and the next `QUERIES` queries from `first` on."""
    if len(queries) - first < QUERIES or width < ROWS or codes.shape[1] < COLUMNS:
        for query in range(min(QUERIES, len(queries) - first)):
            for i in range(width):
                out[query, i] = _product(codes, queries, start + i, first + query)
        return
    for i in range(0, width, ROWS):
        row = min(i, width - ROWS)  # the last tile may repeat rows
        multiply_tile(codes, start + row, queries, first, out, row)
    for column in range(codes.shape[1] // COLUMNS * COLUMNS, codes.shape[1]):
        for query in range(QUERIES):
            for i in range(width):
                out[query, i] += np.int32(codes[start + i, column]) * np.int32(queries[first + query, column])


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _product(codes: NDArray[np.int8], queries: NDArray[np.int16], row: int, query: int) -> np.int32:
    """The inner product of a row and a query. The compiler makes it from instructions that add pairs of products."""
    total = np.int32(0)
    for column in range(codes.shape[1]):
        total = np.int32(total + np.int32(codes[row, np.uint64(column)]) * np.int32(queries[query, np.uint64(column)]))
    return total


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def approximate(
    array: NDArray[np.float32],
    rows: NDArray[np.int64],
    query: NDArray[np.float64],
    euclidean: bool,
    out: NDArray[np.float64],
) -> None:
    """Inner products of some rows and a query, or minus the squares of their distances, summed in any order."""
    for i in range(len(rows)):
        total, row = 0.0, rows[i]
        if euclidean:
            for column in range(array.shape[1]):
                difference = np.float64(array[row, np.uint64(column)]) - query[np.uint64(column)]
                total -= difference * difference
        else:
            for column in range(array.shape[1]):
                total += np.float64(array[row, np.uint64(column)]) * query[np.uint64(column)]
        out[i] = total
