"""The compiled loop that finds the best documents in an inverted index, and the list of all compiled loops.

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

from hybridsearch.adapters.memory.block_kernels import (
    BLOCK,
    REVISIT,
    add_four_rows,
    add_list,
    add_row,
    encode,
    guess,
    guess_of_owners,
    revisit,
    scan,
)
from hybridsearch.adapters.memory.dense_kernels import approximate, bound
from hybridsearch.adapters.memory.impacts import SPAN
from hybridsearch.adapters.memory.token_kernels import most_similar
from hybridsearch.adapters.memory.value_kernels import choose, lower_bound, top_k_by_values, weight

ROW_COST = 14
"""Adding the codes of this many documents of a common term takes as long as adding one posting of another term."""

TOLERATED = 0.2
"""The largest sum of the bounds of the skipped terms, as a fraction of the threshold."""

LARGEST = 1e37
"""The largest sum of the bounds of all terms for which no float32 sum can overflow."""

UNITS = 2.0**29
"""The largest sum of codes. A sum of 32 bits holds it."""

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
    places: NDArray[np.int32],
    begins: NDArray[np.int64],
    ids: NDArray[np.uint16],
    codes: NDArray[np.uint8],
    steps: NDArray[np.float32],
    common: NDArray[np.uint8],
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
    shared: NDArray[np.int64],
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
    out_counts: NDArray[np.int64],
) -> None:
    """The best `k` documents of [first, last) for each of the queries [first_query, last_query), best first.

    Query q has the terms `columns[starts[q]:starts[q + 1]]`. An unknown term is -1. Documents are scored in blocks,
    term after term, by the codes of `Impacts`. Such a sum of whole numbers is near the score, and its largest error is
    known. A document that may be among the best is kept. At the end, the kept documents that the k-th best sum does not
    rule out are scored exactly: a float32 sum in the order of the query's terms.

    When there is a k-th best sum, terms with many postings and small contributions are skipped, as in MaxScore
    (Turtle and Flood, "Query evaluation: strategies and optimizations", 1995). A document is looked up in the skipped
    terms only if they could lift its sum to the threshold.

    If the documents are passages of larger ones, a hit is the best passage of its owner. The passages of an owner are
    beside each other, so one of them is held back until the next owner begins.

    Args:
        indptr: Start of the postings of each column.
        rows: Documents of the postings.
        values: Values of the postings.
        places: As in `Impacts`.
        begins: As in `Impacts`.
        ids: As in `Impacts`.
        codes: As in `Impacts`.
        steps: As in `Impacts`.
        common: As in `Impacts`.
        columns: Columns of the terms of all queries.
        weights: Weights of these terms.
        idf: Factor of each column that its weights are multiplied by. Empty if there are none.
        starts: Start of the terms of each query.
        order: Numbers that order equal scores, the smallest first.
        allowed: One flag for each document. Empty if all documents are allowed.
        owners: Owner of each passage, ascending. Empty if each document is a hit of its own.
        first_query: First query.
        last_query: Query after the last one.
        first: First document.
        last: Document after the last one.
        k: Number of hits of a query.
        shared: For each query, a threshold that calls for other documents have reached. 0 at first. Documents with
            smaller scores may be missing.
        out_rows: Rows of the hits, shape (all queries, k).
        out_scores: Scores of the hits, shape (all queries, k).
        out_counts: Number of hits of each query, shape (all queries,). -1 if float32 sums could overflow. Then the
            query is not answered.
    """
    longest = 0
    for query in range(first_query, last_query):
        longest = max(longest, starts[query + 1] - starts[query])
    term_columns = np.empty(longest, dtype=np.int64)
    term_places = np.empty(longest, dtype=np.int64)  # the term's row in `common`, or -1
    zeros = np.empty(longest, dtype=np.int32)
    factors = np.empty(longest, dtype=np.float32)
    multipliers = np.empty(longest, dtype=np.int32)
    bounds = np.empty(longest, dtype=np.int64)
    gains = np.empty(longest, dtype=np.float64)
    cursors = np.empty(longest, dtype=np.int64)
    heads = np.empty(longest, dtype=np.int64)
    ends = np.empty(longest, dtype=np.int64)
    walked = np.empty(longest, dtype=np.bool_)
    chosen = np.empty(longest + 2, dtype=np.int64)
    chosen_factors = np.empty(longest + 2, dtype=np.int32)
    sums = np.zeros(BLOCK, dtype=np.int32)
    near = np.empty(len(sums), dtype=np.int32)
    partial = np.empty(len(sums), dtype=np.int32)
    heap = np.empty(k, dtype=np.int64)
    ranks = np.empty(k, dtype=np.int32)
    kept = np.empty(4 * k + 256, dtype=np.int32)
    kept_sums = np.empty(len(kept), dtype=np.int64)
    for query in range(first_query, last_query):
        terms = 0
        total = 0.0
        for term in range(starts[query], starts[query + 1]):
            column, factor = columns[term], weight(weights, idf, columns, term)
            if factor != 0:
                term_columns[terms], factors[terms] = column, factor
                zero = zeros[terms] = np.int32(steps[column, 1])
                term_places[terms] = -1 if zero > 0 else places[column, 1]
                total += abs(np.float64(factor) * steps[column, 0]) * max(255 - zero, zero)
                terms += 1
        out_counts[query] = 0
        if not terms:
            continue
        if not 0 < total <= LARGEST:
            out_counts[query] = -1
            continue
        unit = total / UNITS
        rounding = np.int64(min(UNITS, 2.0**-22 * (terms + 2) * UNITS + terms * 2.0**-149 / unit)) + 1
        below: Any = rounding  # the most that a score may be below the sum of its codes
        above: Any = rounding  # the most that it may be above it
        least: Any = 1  # the smallest sum of a document with a score above 0
        lowering = 0  # the number of terms that can only lower scores. They are the last of `cheapest`
        for term in range(terms):
            column, wide, zero = term_columns[term], np.float64(factors[term]), zeros[term]
            size = np.int64(np.ceil(abs(wide * steps[column, 0]) / unit))
            multipliers[term] = size if wide > 0 else -size
            bounds[term] = size * (255 - zero) if wide > 0 else size * zero
            below += 256 + (size if wide > 0 else 0)
            if wide < 0 or zero > 0:
                above += 256 + (size if wide < 0 else 0)
            if zero > 0:
                least = -1
            cost = len(order) / ROW_COST if term_places[term] >= 0 else indptr[column + 1] - indptr[column] + 1.0
            gains[term] = bounds[term] / cost
            if bounds[term] == 0:
                gains[term] = np.inf
                lowering += 1
        if least < 0:
            least = 1 - above
        cheapest = np.argsort(gains[:terms])  # terms with the smallest contribution per posting come first
        threshold = 0
        found = count = 0
        held, best = -1, np.int64(0)  # the owner of the last passages, and their best sum
        span = -1
        high = first
        while high < last:
            low = high
            if low // SPAN != span:
                span = low // SPAN
                base = span * SPAN
                for term in range(terms):
                    column = term_columns[term]
                    cursors[term] = _begin(indptr, rows, places, begins, column, span)
                    ends[term] = _begin(indptr, rows, places, begins, column, span + 1)
            high = min(low + BLOCK, last, base + SPAN)
            threshold = max(threshold, shared[query])
            needed = threshold - above
            missing = omitted = 0  # the most that the skipped terms can add, and their number
            while omitted < terms - lowering and missing + bounds[cheapest[omitted]] <= TOLERATED * needed:
                missing += bounds[cheapest[omitted]]
                omitted += 1
            skip, end_of_skip = (0, omitted) if needed >= 1 else (terms - lowering, terms)  # in `cheapest`
            walked[:terms] = True
            for i in range(skip, end_of_skip):
                walked[cheapest[i]] = False
            added = 0
            for term in range(terms):
                if walked[term] and term_places[term] >= 0:
                    chosen[added], chosen_factors[added] = term_places[term], multipliers[term]
                    added += 1
            postings = added * (high - low)
            while added % 4 > 1:  # adding four rows is faster than adding two
                chosen[added], chosen_factors[added] = chosen[added - 1], 0
                added += 1
            for i in range(0, added - 3, 4):
                add_four_rows(common, chosen, chosen_factors, i, low, high, sums)
            if added % 4:
                add_row(common, chosen[added - 1], chosen_factors[added - 1], low, high, sums)
            for term in range(terms):
                if walked[term] and term_places[term] < 0:
                    head = heads[term] = _seek(ids, cursors[term], ends[term], low - base, SPAN)
                    cursors[term] = head
                    if head < ends[term] and ids[head] < high - base:
                        cursors[term] = add_list(
                            ids, codes, head, ends[term], low - base, high - base, multipliers[term], sums
                        )
                        if zeros[term]:
                            for position in range(head, cursors[term]):
                                sums[np.int64(ids[position]) - (low - base)] -= zeros[term] * multipliers[term]
                        postings += cursors[term] - head
                else:
                    heads[term] = cursors[term]
            if not postings:
                continue
            cutoff = np.int32(max(least, needed - missing))
            if least > 0 and postings * REVISIT < high - low:
                candidates = revisit(ids, walked, terms, heads, cursors, low, low - base, cutoff, sums, near, partial)
            else:
                if len(allowed):
                    for i in range(high - low):
                        sums[np.uint64(i)] *= allowed[np.uint64(low + i)]
                if threshold == 0 and skip == end_of_skip:
                    if len(owners):
                        threshold = max(0, guess_of_owners(sums, low, high, k, owners) - below)
                    else:
                        threshold = max(0, guess(sums, high - low, k) - below)
                    cutoff = np.int32(max(least, threshold - above))
                candidates = scan(low, high, cutoff, sums, near, partial)
            for candidate in range(candidates):
                row, score = near[candidate], np.int64(partial[candidate])
                if len(allowed) and not allowed[row]:
                    continue
                if skip < end_of_skip:
                    score += missing
                    for i in range(end_of_skip - 1, skip - 1, -1):
                        term = cheapest[i]
                        code = np.int64(zeros[term])
                        if term_places[term] >= 0:
                            code = np.int64(common[term_places[term], row])
                        else:
                            at = cursors[term] = _seek(ids, cursors[term], ends[term], row - base, SPAN)
                            if at < ends[term] and ids[at] == row - base:
                                code = np.int64(codes[at])
                        score += (code - zeros[term]) * multipliers[term] - bounds[term]
                        if score + above < threshold:
                            break
                if score + above < threshold:
                    continue
                if count == len(kept):
                    count = _drop(kept, kept_sums, count, threshold - above)
                    if 2 * count > len(kept):
                        kept = np.append(kept, np.empty_like(kept))
                        kept_sums = np.append(kept_sums, np.empty_like(kept_sums))
                kept[count], kept_sums[count] = row, score
                count += 1
                if len(owners):
                    if held == owners[row]:
                        best = score if score > best else best
                        continue
                    before, held = held, owners[row]  # the owner that was held back is complete now
                    score, best = best, score
                    if before < 0:
                        continue
                found = _raise(heap, found, score)
                if found == k:
                    threshold = max(threshold, heap[0] - below)
            shared[query] = max(shared[query], threshold)  # two calls may come here at once, and both are valid
        if held >= 0:
            found = _raise(heap, found, best)
            if found == k:
                threshold = max(threshold, heap[0] - below)
        count = _drop(kept, kept_sums, count, threshold - above)
        scores = _exact(
            indptr,
            rows,
            values,
            places,
            begins,
            ids,
            common,
            term_columns[:terms],
            term_places,
            factors,
            kept[:count],
        )
        out_counts[query] = choose(kept[:count], scores, order, owners, out_rows[query], out_scores[query], ranks)


@_inner
def _begin(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    places: NDArray[np.int32],
    begins: NDArray[np.int64],
    column: int,
    span: int,
) -> Any:
    """The first posting of a column at or after the first document of a span."""
    if places[column, 0] >= 0:
        return begins[places[column, 0], min(span, begins.shape[1] - 1)]
    if span == 0:
        return indptr[column]
    return lower_bound(rows, indptr[column], indptr[column + 1], span * SPAN)


@_inner
def _drop(kept: NDArray[np.int32], sums: NDArray[np.int64], count: int, least: int) -> int:
    """Remove the documents whose sum is below `least`. Returns how many are left."""
    left = 0
    for i in range(count):
        if sums[i] >= least:
            kept[left], sums[left] = kept[i], sums[i]
            left += 1
    return left


@_inner
def _exact(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    places: NDArray[np.int32],
    begins: NDArray[np.int64],
    ids: NDArray[np.uint16],
    common: NDArray[np.uint8],
    columns: NDArray[np.int64],
    term_places: NDArray[np.int64],
    factors: NDArray[np.float32],
    wanted: NDArray[np.int32],
) -> NDArray[np.float32]:
    """The scores of the `wanted` rows, which are ascending. They are float32 sums in the order of the query's terms."""
    out = np.zeros(len(wanted), dtype=np.float32)
    for term in range(len(columns)):
        column, place, factor = columns[term], term_places[term], factors[term]
        span = -1
        at = end = 0
        for i in range(len(wanted)):
            row = wanted[i]
            if place >= 0 and common[place, row] == 0:
                continue
            if row // SPAN != span:
                span = row // SPAN
                at = _begin(indptr, rows, places, begins, column, span)
                end = _begin(indptr, rows, places, begins, column, span + 1)
            at = _seek(ids, at, end, row - span * SPAN, SPAN)
            if at < end and ids[at] == row - span * SPAN:
                out[i] += factor * values[at]
                at += 1
    return out


@_inner
def _raise(heap: NDArray[np.int64], count: int, number: np.int64) -> int:
    """Put a number into the heap of the largest numbers, whose root is the smallest. Returns the size of the heap."""
    if count < len(heap):
        child = count
        while child > 0 and heap[(child - 1) // 2] > number:
            heap[child] = heap[(child - 1) // 2]
            child = (child - 1) // 2
        heap[child] = number
        return count + 1
    if number > heap[0]:
        parent = 0
        while True:
            child = 2 * parent + 1
            if child + 1 < count and heap[child + 1] < heap[child]:
                child += 1
            if child >= count or heap[child] >= number:
                break
            heap[parent] = heap[child]
            parent = child
        heap[parent] = number
    return count


@_inner
def _seek(rows: NDArray[np.int32] | NDArray[np.uint16], begin: int, end: int, row: int, last: int) -> Any:
    """Do what `lower_bound` does. It is faster if the answer is near `begin`, or if the rows are evenly spread."""
    if begin >= end or rows[begin] >= row:
        return begin
    guess = begin + (row - rows[begin]) * (end - begin) // (last - rows[begin])
    step = 8
    if rows[guess] < row:
        begin = guess + 1
        while guess + step < end and rows[guess + step] < row:
            begin = guess + step + 1
            step *= 2
        return lower_bound(rows, begin, min(end, guess + step), row)
    end = guess
    while guess - step > begin and rows[guess - step] >= row:
        end = guess - step
        step *= 2
    return lower_bound(rows, max(begin, guess - step), end, row)


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
        *(_changed(types.int32, 2), _changed(types.int64, 2), _changed(types.uint16), _changed(types.uint8)),
        *(_changed(types.float32, 2), _changed(types.uint8, 2)),
        *(_changed(types.int64), _changed(types.float32), _changed(types.float64), _changed(types.int64)),
        *(_read(types.int32), _read(types.bool_), _read(types.int32)),
        *[types.int64] * 5,
        *(_changed(types.int64), _changed(types.int32, 2), _changed(types.float32, 2), _changed(types.int64)),
    ),
    top_k_by_values: (
        *_POSTINGS,
        *(_changed(types.int64), _changed(types.float32), _changed(types.float64), _changed(types.int64)),
        *(_read(types.int32), _read(types.bool_), _read(types.int32)),
        *[types.int64] * 5,
        *(_changed(types.int32, 2), _changed(types.float32, 2), _changed(types.int64)),
    ),
    encode: (
        *_POSTINGS,
        *(_changed(types.int64), _changed(types.int32, 2), _changed(types.int64, 2), _changed(types.uint16)),
        *(_changed(types.uint8), _changed(types.float32, 2), _changed(types.uint8, 2)),
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
    most_similar: (
        *(_read(types.uint16, 2), _read(types.int64), _changed(types.int64), _changed(types.float32, 3)),
        *(types.int64, types.int64, *[_changed(types.float32, 2)] * 2, _changed(types.int32, 2)),
    ),
}
"""The types of the arguments of each function. It is called with no other types."""


def compile_all() -> None:
    """Read each function from its cache, or compile it and write it to the cache if possible."""
    for function, arguments in _SIGNATURES.items():
        if isinstance(function, Dispatcher):  # if NUMBA_DISABLE_JIT is set, it is a plain function
            with contextlib.suppress(OSError):  # code that could not be written to the cache still works
                function.compile(arguments)
