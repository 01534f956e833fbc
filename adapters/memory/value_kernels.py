"""The compiled loop of sparse search that reads the float32 values of all postings, and the choice of the best hits.

It answers searches of small indexes, and the first search of a term. `kernels` compiles it. The hints on `kernels`
hold here, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hybridsearch.adapters.memory.block_kernels import (
    BLOCK,
    REVISIT,
    SCAN,
    guess,
    guess_of_owners,
    kth_largest,
    revisit,
    scan,
)

SHORT = 8
"""The largest number of terms whose postings are read block by block. With more, memory is waited for too often."""

SMALLEST: np.float32 = np.nextafter(np.float32(0), np.float32(1))
"""The smallest score of a hit."""


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def top_k_by_values(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    idf: NDArray[np.float64],
    starts: NDArray[np.int64],
    order: NDArray[np.int32],
    allowed: NDArray[np.bool_],
    owners: NDArray[np.int32],
    first_query: int,
    last_query: int,
    first: int,
    last: int,
    k: int,
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
    out_counts: NDArray[np.int64],
) -> None:
    """Do what `kernels.top_k` does without codes. The scores of all documents are summed exactly, block by block.

    A document is kept if its score reaches the k-th best score of the blocks before. For many terms there is one block.
    """
    one = np.uint64(1)
    longest = 0
    for query in range(first_query, last_query):
        longest = max(longest, starts[query + 1] - starts[query])
    factors = np.empty(longest, dtype=np.float32)
    begins = np.empty(longest, dtype=np.int64)
    cursors = np.empty(longest, dtype=np.int64)
    ends = np.empty(longest, dtype=np.int64)
    walked = np.ones(longest, dtype=np.bool_)
    step = max(1, min(BLOCK, last - first) if longest <= SHORT else last - first)
    scores = np.zeros((step + SCAN - 1) // SCAN * SCAN, dtype=np.float32)
    near = np.empty(last - first, dtype=np.int32)
    partial = np.empty(last - first, dtype=np.float32)
    ranks = np.empty(k, dtype=np.int32)
    for query in range(first_query, last_query):
        terms = 0
        for term in range(starts[query], starts[query + 1]):
            column, factor = columns[term], weight(weights, idf, columns, term)
            if factor != 0:
                begin, end = indptr[column], indptr[column + 1]
                cursors[terms] = lower_bound(rows, begin, end, first) if first > 0 else begin
                ends[terms], factors[terms] = end, factor
                terms += 1
        threshold: Any = SMALLEST
        count = 0
        for low in range(first, last, step):
            high = min(low + step, last)
            postings = 0
            for term in range(terms):
                begin, end = cursors[term], ends[term]
                if high < len(order):
                    end = lower_bound(rows, begin, end, high)
                factor, position, stop = factors[term], np.uint64(begin), np.uint64(end)
                while position < stop:
                    scores[np.uint32(rows[position] - low)] += factor * values[position]
                    position += one
                begins[term], cursors[term] = begin, end
                postings += end - begin
            if not postings:
                continue
            if not len(allowed) and postings * REVISIT < high - low:
                found = revisit(
                    rows, walked, terms, begins, cursors, low, low, threshold, scores, near[count:], partial[count:]
                )
            else:
                if len(allowed):
                    for i in range(high - low):
                        if not allowed[low + i]:
                            scores[i] = 0
                if threshold == SMALLEST:
                    few = guess_of_owners(scores, low, high, k, owners) if len(owners) else guess(scores, high - low, k)
                    threshold = few if few > SMALLEST else SMALLEST
                found = scan(low, high, threshold, scores, near[count:], partial[count:])
            count += found
            if found and count >= k and high < last and not len(owners):
                threshold = max(threshold, kth_largest(partial[:count].view(np.int32), k).view(np.float32)[0])
        out_counts[query] = choose(
            near[:count], partial[:count], order, owners, out_rows[query], out_scores[query], ranks
        )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def weight(weights: NDArray[np.float32], idf: NDArray[np.float64], columns: NDArray[np.int64], term: int) -> Any:
    """The weight of a term of a query, multiplied by its idf if there is one. An unknown term has 0."""
    column = columns[term]
    if column < 0:
        return np.float32(0)
    return np.float32(weights[term] * idf[column]) if len(idf) else weights[term]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def choose(
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    order: NDArray[np.int32],
    owners: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
    ranks: NDArray[np.int32],
) -> int:
    """Write the best documents to the outputs, best first. Returns their number. With `owners`, the best of each."""
    hits, held = 0, -1
    for i in range(len(rows) + 1):
        at = i
        if len(owners):
            if i < len(rows) and (held < 0 or owners[rows[held]] == owners[rows[i]]):
                if held < 0 or scores[i] > scores[held]:
                    held = i
                continue
            at, held = held, i
        if 0 <= at < len(rows) and scores[at] >= SMALLEST:
            hits = _offer(scores[at], rows[at], order[rows[at]], hits, out_scores, out_rows, ranks)
    _sort_hits(hits, out_scores, out_rows, ranks)
    return hits


@njit(nogil=True)  # type: ignore[untyped-decorator]
def lower_bound(rows: NDArray[np.int32] | NDArray[np.uint16], begin: int, end: int, row: int) -> int:
    """The first position in [begin, end) whose row is `row` or larger."""
    while begin < end:
        middle = begin + (end - begin) // 2
        if rows[middle] < row:
            begin = middle + 1
        else:
            end = middle
    return begin


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _offer(
    score: np.float32,
    row: int,
    rank: int,
    hits: int,
    scores: NDArray[np.float32],
    rows: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> int:
    """Put a document into the heap of the best documents, whose root is the worst. Returns the size of the heap."""
    if hits < len(ranks):
        child = hits
        while child > 0:
            parent = (child - 1) // 2
            if scores[parent] < score or (scores[parent] == score and ranks[parent] > rank):
                break
            scores[child], rows[child], ranks[child] = scores[parent], rows[parent], ranks[parent]
            child = parent
        scores[child], rows[child], ranks[child] = score, row, rank
        return hits + 1
    if score > scores[0] or (score == scores[0] and rank < ranks[0]):
        _sink(score, row, rank, hits, scores, rows, ranks)
    return hits


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _sink(
    score: np.float32,
    row: int,
    rank: int,
    hits: int,
    scores: NDArray[np.float32],
    rows: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> None:
    """Replace the root of the heap."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= hits:
            break
        other = child + 1
        if other < hits and (
            scores[other] < scores[child] or (scores[other] == scores[child] and ranks[other] > ranks[child])
        ):
            child = other
        if scores[child] > score or (scores[child] == score and ranks[child] < rank):
            break
        scores[parent], rows[parent], ranks[parent] = scores[child], rows[child], ranks[child]
        parent = child
    scores[parent], rows[parent], ranks[parent] = score, row, rank


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _sort_hits(hits: int, scores: NDArray[np.float32], rows: NDArray[np.int32], ranks: NDArray[np.int32]) -> None:
    """Turn the heap into a list, best first."""
    while hits > 1:
        hits -= 1
        score, row, rank = scores[hits], rows[hits], ranks[hits]
        scores[hits], rows[hits], ranks[hits] = scores[0], rows[0], ranks[0]
        _sink(score, row, rank, hits, scores, rows, ranks)
