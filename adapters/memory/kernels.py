"""The compiled loops: the loop that finds the best documents in an inverted index, and smaller loops.

`loops` calls them. Until they are compiled, it calls the loops in `plain`, which find the same hits with the same
scores. No other module may import this one, because importing it loads the compiler.

Every function releases the interpreter lock, and no function starts threads. So any number of Python threads can run
them at the same time. An inverted index is three arrays in column order (CSC): `indptr` (columns + 1, int64), `rows`
(int32, ascending within a column) and `values` (float32).

Positions in the inner loops are unsigned, because numba then leaves out the test for negative indices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

from hybridsearch.adapters.memory.dense_kernels import approximate, bound
from hybridsearch.adapters.memory.prefetch import prefetch

BLOCK = 8192
"""The number of documents that are scored together. Their scores (32 KiB) stay in the fastest cache."""

SCAN = 64
"""The number of scores in one vectorised comparison. BLOCK is a multiple of it."""

LANES = 8
"""The number of lanes for each hit in the first guess of the threshold."""

REVISIT = 16
"""If a block has less than one posting for this many documents, its scores are read through the postings."""

AHEAD = 256
"""How many postings ahead memory is loaded. The processor cannot predict short runs of many columns."""

SMALLEST: np.float32 = np.nextafter(np.float32(0), np.float32(1))
"""The threshold while there are fewer than k hits. Every score above 0 passes."""

TOLERATED = 0.3
"""The largest sum of the bounds of the skipped terms, as a fraction of the threshold."""

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(**options: Any) -> Callable[[F], F]:
    """Compiles a function that `loops` calls. Its machine code is kept, with the functions that it calls."""
    return cast(Callable[[F], F], njit(nogil=True, cache=True, **options))


def _inner(function: F) -> F:
    return cast(F, njit(nogil=True)(function))


@_compiled()
def top_k(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    peaks: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    starts: NDArray[np.int64],
    order: NDArray[np.int32],
    allowed: NDArray[np.bool_],
    owners: NDArray[np.int32],
    first_query: int,
    last_query: int,
    first: int,
    last: int,
    k: int,
    shared: NDArray[np.float32],
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
    out_counts: NDArray[np.int64],
) -> None:
    """The best `k` documents of [first, last) for each of the queries [first_query, last_query), best first.

    Query q has the terms `columns[starts[q]:starts[q + 1]]`. An unknown term is -1. Documents are scored in blocks,
    term after term. The scores of a block are compared with the k-th best score so far before the next block begins.

    When there is a k-th best score, terms with many postings and small contributions are skipped, as in MaxScore
    (Turtle and Flood, "Query evaluation: strategies and optimizations", 1995). A document is looked up in the skipped
    terms only if they could lift its score to the threshold. Then its score is summed again in the order of the
    query's terms. The hits are the same as without skipping, including ties.

    If the documents are passages of larger ones, a hit is the best passage of its owner. The passages of an owner are
    beside each other, so one of them is held back until the next owner begins.

    Args:
        indptr: Start of the postings of each column.
        rows: Documents of the postings.
        values: Values of the postings.
        peaks: Largest magnitude of the values of each column. A negative number is unknown, and is filled in.
        columns: Columns of the terms of all queries.
        weights: Weights of these terms.
        starts: Start of the terms of each query.
        order: Numbers that order equal scores, the smallest first.
        allowed: One flag for each document. Empty if all documents are allowed.
        owners: Owner of each passage, ascending. Empty if each document is a hit of its own.
        first_query: First query.
        last_query: Query after the last one.
        first: First document.
        last: Document after the last one.
        k: Number of hits of a query.
        shared: For each query, a k-th best score that calls for other documents have reached. 0 at first. Documents
            with smaller scores may be missing.
        out_rows: Rows of the hits, shape (all queries, k).
        out_scores: Scores of the hits, shape (all queries, k).
        out_counts: Number of hits of each query, shape (all queries,).
    """
    longest = 0
    for query in range(first_query, last_query):
        longest = max(longest, starts[query + 1] - starts[query])
    begins = np.empty(longest, dtype=np.int64)
    cursors = np.empty(longest, dtype=np.int64)
    ends = np.empty(longest, dtype=np.int64)
    factors = np.empty(longest, dtype=np.float32)
    bounds = np.empty(longest, dtype=np.float64)
    gains = np.empty(longest, dtype=np.float64)
    found = np.empty(longest, dtype=np.float32)
    walked = np.empty(longest, dtype=np.bool_)
    ranks = np.empty(k, dtype=np.int32)
    scores = np.zeros((min(BLOCK, max(last - first, 1)) + SCAN - 1) // SCAN * SCAN, dtype=np.float32)
    near = np.empty(len(scores), dtype=np.int32)
    partial = np.empty(len(scores), dtype=np.float32)
    for query in range(first_query, last_query):
        terms = 0
        for term in range(starts[query], starts[query + 1]):
            column = columns[term]
            if column >= 0 and weights[term] != 0:
                begin, end = indptr[column], indptr[column + 1]
                cursors[terms] = begin if first == 0 else _lower_bound(rows, begin, end, first)
                ends[terms] = end if last == len(order) else _lower_bound(rows, begin, end, last)
                factors[terms] = weights[term]
                if last - first > BLOCK:
                    if peaks[column] < 0:
                        peaks[column] = _peak(values, begin, end)
                    bounds[terms] = abs(np.float64(weights[term]) * peaks[column])
                    gains[terms] = bounds[terms] / (ends[terms] - cursors[terms] + 1)
                terms += 1
        choosable = terms if last - first > BLOCK else 0
        cheapest = np.argsort(gains[:choosable])  # terms with the smallest contribution per posting come first
        rounding = 2.0**-22 * (terms + 2) * bounds[:choosable].sum()
        hits = 0
        threshold = SMALLEST
        held, best = -1, np.float32(0)  # the best passage of the last owner, and its score
        high = first
        while True:
            threshold = max(threshold, shared[query])
            missing = rounding  # the most that the skipped terms can add, including rounding errors
            omitted = 0
            walked[:terms] = True
            while omitted < choosable and missing + bounds[cheapest[omitted]] <= TOLERATED * threshold:
                missing += bounds[cheapest[omitted]]
                walked[cheapest[omitted]] = False
                omitted += 1
            low = last  # a block begins at the first document that one of the other terms still has
            for term in range(terms):
                if walked[term]:
                    cursors[term] = begins[term] = _seek(rows, cursors[term], ends[term], high, last)
                    if cursors[term] < ends[term]:
                        low = min(low, int(rows[cursors[term]]))
            if low >= last:
                break
            high = min(low + BLOCK, last)
            postings = _score_block(rows, values, factors, walked, terms, low, high, cursors, ends, scores)
            cutoff = np.float32(threshold - missing) if omitted else threshold
            if postings * REVISIT < high - low:
                candidates = _revisit(rows, walked, terms, begins, cursors, low, cutoff, scores, near, partial)
            else:
                if len(allowed):
                    for i in range(high - low):
                        scores[np.uint64(i)] *= allowed[np.uint64(low + i)]
                if threshold == SMALLEST and len(owners):
                    cutoff = threshold = _guess_of_owners(scores, low, high, k, owners)
                elif threshold == SMALLEST:
                    cutoff = threshold = _guess(scores, high - low, k)
                candidates = _scan(low, high, cutoff, scores, near, partial)
            for candidate in range(candidates):
                row, score = near[candidate], partial[candidate]
                if len(allowed) and not allowed[row]:
                    continue
                if omitted:
                    most = score + missing
                    for i in range(omitted - 1, -1, -1):
                        term = cheapest[i]
                        cursors[term] = _seek(rows, cursors[term], ends[term], row, last)
                        found[term] = 0
                        if cursors[term] < ends[term] and rows[cursors[term]] == row:
                            found[term] = factors[term] * values[cursors[term]]
                        most += found[term] - bounds[term]
                        if most < threshold:
                            break
                    if most < threshold:
                        continue
                    score = np.float32(0)
                    for term in range(terms):
                        if not walked[term]:
                            score += found[term]
                            continue
                        position = _lower_bound(rows, begins[term], cursors[term], row)
                        if position < cursors[term] and rows[position] == row:
                            score += factors[term] * values[position]
                if score < threshold:
                    continue
                if len(owners):
                    if held >= 0 and owners[held] == owners[row]:
                        if score > best:
                            held, best = row, score
                        continue
                    held, row = row, held  # the passage that was held back is complete now
                    best, score = score, best
                    if row < 0:
                        continue
                hits = _offer(score, row, order[row], hits, out_scores[query], out_rows[query], ranks)
                if hits == k:
                    threshold = max(threshold, out_scores[query, 0])
            shared[query] = max(shared[query], threshold)  # two calls may come here at once, and both scores are valid
        if held >= 0:
            hits = _offer(best, held, order[held], hits, out_scores[query], out_rows[query], ranks)
        out_counts[query] = hits
        _sort_hits(hits, out_scores[query], out_rows[query], ranks)


@_inner
def _peak(values: NDArray[np.float32], begin: int, end: int) -> np.float32:
    """The largest magnitude of values[begin:end]."""
    peak = np.float32(0)
    for position in range(begin, end):
        peak = max(peak, abs(values[np.uint64(position)]))
    return peak


@_inner
def _scan(
    low: int,
    high: int,
    cutoff: np.float32,
    scores: NDArray[np.float32],
    near: NDArray[np.int32],
    partial: NDArray[np.float32],
) -> int:
    """Copy the documents whose score reaches the cutoff to `near` and `partial`. Then set all scores to 0."""
    count = 0
    for begin in range(0, high - low, SCAN):
        passing = np.int32(0)  # as wide as a score, which is twice as fast as 64 bits
        for i in range(SCAN):
            passing = np.int32(passing + np.int32(scores[np.uint64(begin + i)] >= cutoff))
        if passing:
            for i in range(begin, begin + SCAN):
                if scores[i] >= cutoff:
                    near[count], partial[count] = low + i, scores[i]
                    count += 1
        for i in range(SCAN):
            scores[np.uint64(begin + i)] = 0
    return count


@_inner
def _revisit(
    rows: NDArray[np.int32],
    walked: NDArray[np.bool_],
    terms: int,
    begins: NDArray[np.int64],
    cursors: NDArray[np.int64],
    low: int,
    cutoff: np.float32,
    scores: NDArray[np.float32],
    near: NDArray[np.int32],
    partial: NDArray[np.float32],
) -> int:
    """Do what `_scan` does, for a block with so few postings that reading them again is faster."""
    count = 0
    for term in range(terms):
        if walked[term]:
            for position in range(begins[term], cursors[term]):
                row = rows[position]
                score = scores[row - low]
                scores[row - low] = 0
                if score >= cutoff:
                    near[count], partial[count] = row, score
                    count += 1
    ascending = np.argsort(near[:count])
    near[:count] = near[:count][ascending]
    partial[:count] = partial[:count][ascending]
    return count


@_inner
def _score_block(
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    factors: NDArray[np.float32],
    walked: NDArray[np.bool_],
    terms: int,
    low: int,
    high: int,
    cursors: NDArray[np.int64],
    ends: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> int:
    """Add the contributions of the terms in `walked` to the scores of [low, high). Returns their number.

    `cursors` move from the first posting of the block to the first posting after it.
    """
    one, run, ahead = np.uint64(1), np.uint64(16), np.uint64(AHEAD)
    postings = 0
    for term in range(terms):
        if not walked[term]:
            continue
        position, end, factor = np.uint64(cursors[term]), np.uint64(ends[term]), factors[term]
        while position + run <= end and rows[position + run - one] < high:
            prefetch(rows, position + ahead)
            prefetch(values, position + ahead)
            for i in range(16):
                at = position + np.uint64(i)
                scores[np.uint32(rows[at] - low)] += factor * values[at]
            position += run
        while position < end and rows[position] < high:
            scores[np.uint32(rows[position] - low)] += factor * values[position]
            position += one
        postings += np.int64(position) - cursors[term]
        cursors[term] = position
    return postings


@_inner
def _guess(scores: NDArray[np.float32], width: int, k: int) -> np.float32:
    """A score that at least `k` of the first `width` documents reach. SMALLEST if finding it is not cheap.

    The scores are divided into more than k lanes. The best scores of the lanes belong to different documents. So at
    least k documents reach the k-th best of them. This saves raising the threshold of the first block step by step.
    """
    lanes = (k * LANES + SCAN - 1) // SCAN * SCAN
    if lanes * 4 > width:
        return SMALLEST
    bits = scores.view(np.int32)  # floats above 0 sort like their bits, and integers have a vectorised maximum
    best = np.zeros(lanes, dtype=np.int32)
    for begin in range(0, width - lanes + 1, lanes):
        for lane in range(lanes):
            best[np.uint64(lane)] = max(best[np.uint64(lane)], bits[np.uint64(begin + lane)])
    kth = np.partition(best.view(np.float32), lanes - k)[lanes - k]
    return kth if kth > SMALLEST else SMALLEST


@_inner
def _guess_of_owners(scores: NDArray[np.float32], low: int, high: int, k: int, owners: NDArray[np.int32]) -> np.float32:
    """A score that at least `k` owners of the passages in [low, high) reach: the k-th best of the first owners.

    SMALLEST if there are fewer than k.
    """
    width = min(high - low, max(SCAN * 16, k * SCAN // 2))
    best = np.empty(width, dtype=np.float32)
    count, last = 0, -1
    for i in range(width):
        if scores[i] >= SMALLEST:
            if owners[low + i] != last:
                last = owners[low + i]
                best[count] = scores[i]
                count += 1
            elif scores[i] > best[count - 1]:
                best[count - 1] = scores[i]
    return SMALLEST if count < k else np.partition(best[:count], count - k)[count - k]


@_inner
def _lower_bound(rows: NDArray[np.int32], begin: int, end: int, row: int) -> int:
    """The first position in [begin, end) whose row is `row` or larger."""
    while begin < end:
        middle = begin + (end - begin) // 2
        if rows[middle] < row:
            begin = middle + 1
        else:
            end = middle
    return begin


@_inner
def _seek(rows: NDArray[np.int32], begin: int, end: int, row: int, last: int) -> int:
    """Do what `_lower_bound` does. It is faster if the answer is near `begin`, or if the rows are evenly spread."""
    if begin >= end or rows[begin] >= row:
        return begin
    guess = begin + (row - rows[begin]) * (end - begin) // (last - rows[begin])
    step = 8
    if rows[guess] < row:
        begin = guess + 1
        while guess + step < end and rows[guess + step] < row:
            begin = guess + step + 1
            step *= 2
        return _lower_bound(rows, begin, min(end, guess + step), row)
    end = guess
    while guess - step > begin and rows[guess - step] >= row:
        end = guess - step
        step *= 2
    return _lower_bound(rows, max(begin, guess - step), end, row)


@_inner
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


@_inner
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


@_inner
def _sort_hits(hits: int, scores: NDArray[np.float32], rows: NDArray[np.int32], ranks: NDArray[np.int32]) -> None:
    """Turn the heap into a list, best first."""
    while hits > 1:
        hits -= 1
        score, row, rank = scores[hits], rows[hits], ranks[hits]
        scores[hits], rows[hits], ranks[hits] = scores[0], rows[0], ranks[0]
        _sink(score, row, rank, hits, scores, rows, ranks)


@_compiled()
def score_rows(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    wanted: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """The scores of the `wanted` rows, which are ascending. They are float32 sums in the order of the query's terms."""
    out[:] = 0
    for term in range(len(columns)):
        if columns[term] < 0:
            continue
        position, end = indptr[columns[term]], indptr[columns[term] + 1]
        last = rows[end - 1]
        for number in range(len(wanted)):
            if wanted[number] > last:
                break
            position = _seek(rows, position, end, wanted[number], last + 1)
            if rows[position] == wanted[number]:
                out[number] += weights[term] * values[position]


def _read(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C", readonly=True)


def _changed(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C")


_POSTINGS = (_read(types.int64), _read(types.int32), _read(types.float32))
_SIGNATURES: dict[Callable[..., Any], tuple[Any, ...]] = {
    top_k: (
        *_POSTINGS,
        _changed(types.float32),
        *(_changed(types.int64), _changed(types.float32), _changed(types.int64)),
        *(_read(types.int32), _read(types.bool_), _read(types.int32)),
        *[types.int64] * 5,
        *(_changed(types.float32), _changed(types.int32, 2), _changed(types.float32, 2), _changed(types.int64)),
    ),
    score_rows: (
        *_POSTINGS,
        *(_changed(types.int64), _changed(types.float32), _changed(types.int64), _changed(types.float32)),
    ),
    bound: (
        *(_read(types.int8, 2), *[_read(types.float32)] * 3, _read(types.bool_), _read(types.int32)),
        *(_changed(types.int16, 2), _changed(types.float32, 2), types.int64, types.int64),
        *[_changed(types.float32, 2)] * 2,
    ),
    approximate: (
        *(_read(types.float32, 2), _changed(types.int64), _changed(types.float64), types.bool_),
        _changed(types.float64),
    ),
}
"""The types of the arguments of each function. It is called with no other types."""


def compile_all() -> None:
    """Read each function from its cache, or compile it and write it to the cache if possible."""
    for function, arguments in _SIGNATURES.items():
        if isinstance(function, Dispatcher):  # if NUMBA_DISABLE_JIT is set, it is a plain function
            with contextlib.suppress(OSError):  # code that could not be written to the cache still works
                function.compile(arguments)
