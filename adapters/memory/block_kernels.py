"""The compiled loops of sparse search within a block of documents, and the loop that makes codes.

`kernels` compiles and calls them. The hints on `kernels` hold here, too.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hybridsearch.adapters.memory.impacts import SPAN
from hybridsearch.adapters.memory.prefetch import prefetch

Sum = TypeVar("Sum", np.int32, np.float32)

BLOCK = 1 << 14
"""The number of documents that are scored together, a multiple of SCAN. Their sums (64 KiB) stay in a fast cache."""

REVISIT = 16
"""If a block has less than one posting for this many documents, its scores are read through the postings."""

SCAN = 64
"""The number of scores in one vectorised comparison."""

LANES = 8
"""The number of lanes for each hit in the first guess of the threshold."""

FEW = 16
"""Up to this number of hits, the k-th largest of a few numbers is found by insertion, which is faster."""

AHEAD = 512
"""How many postings ahead memory is loaded. The processor cannot predict short runs of many columns."""


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def encode(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    places: NDArray[np.int32],
    begins: NDArray[np.int64],
    ids: NDArray[np.uint16],
    codes: NDArray[np.uint8],
    steps: NDArray[np.float32],
    common: NDArray[np.uint8],
) -> None:
    """Write the codes of some columns. The arguments are as in `Impacts`.

    Other threads may write or read the same columns. Each number is written once, and always with the same value.
    """
    for number in range(len(columns)):
        column = columns[number]
        begin, end = indptr[column], indptr[column + 1]
        lowest, highest = np.float32(0), np.float32(0)
        for position in range(begin, end):
            value = values[np.uint64(position)]
            lowest = value if value < lowest else lowest
            highest = value if value > highest else highest
        step = np.nextafter(np.float32((np.float64(highest) - lowest) / 253), np.float32(np.inf))
        wide = np.float64(step)
        zero = np.ceil(-np.float64(lowest) / wide)
        steps[column, 0], steps[column, 1] = step, zero
        for position in range(begin, end):
            at = np.uint64(position)
            ids[at] = np.uint16(rows[at] & (SPAN - 1))
            codes[at] = np.uint8(np.int64(np.ceil(np.float64(values[at]) / wide) + zero))
        slot, place = places[column, 0], places[column, 1]
        if slot >= 0:
            position = begin
            for span in range(begins.shape[1]):
                while position < end and rows[position] < span * SPAN:
                    position += 1
                begins[slot, span] = position
        if place >= 0 and zero == 0:
            row = 0
            for position in range(begin, end):
                common[place, row : rows[position]] = 0
                row = rows[position]
                common[place, row] = codes[position]
                row += 1
            common[place, row:] = 0


@njit(nogil=True)  # type: ignore[untyped-decorator]
def add_list(
    ids: NDArray[np.uint16],
    codes: NDArray[np.uint8],
    begin: int,
    end: int,
    low: int,
    high: int,
    multiplier: np.int32,
    sums: NDArray[np.int32],
) -> np.int64:
    """Add the codes of one term to the sums of the documents [low, high) of a span. Returns the posting after these."""
    one, run, ahead = np.uint64(1), np.uint64(16), np.uint64(AHEAD)
    position, last, first = np.uint64(begin), np.uint64(end), np.uint64(low)
    while position + run <= last and np.int64(ids[position + run - one]) < high:
        prefetch(ids, position + ahead)
        prefetch(codes, position + ahead)
        for i in range(16):
            at = position + np.uint64(i)
            sums[np.uint64(ids[at]) - first] += np.int32(codes[at]) * multiplier
        position += run
    while position < last and np.int64(ids[position]) < high:
        sums[np.uint64(ids[position]) - first] += np.int32(codes[position]) * multiplier
        position += one
    return np.int64(position)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def add_row(
    common: NDArray[np.uint8], place: int, multiplier: np.int32, low: int, high: int, sums: NDArray[np.int32]
) -> None:
    """Add the codes of a common term to the sums of the documents [low, high)."""
    begin = np.uint64(low)
    for i in range(high - low):
        sums[np.uint64(i)] += np.int32(common[place, begin + np.uint64(i)]) * multiplier


@njit(nogil=True)  # type: ignore[untyped-decorator]
def add_four_rows(
    common: NDArray[np.uint8],
    places: NDArray[np.int64],
    multipliers: NDArray[np.int32],
    first: int,
    low: int,
    high: int,
    sums: NDArray[np.int32],
) -> None:
    """Add the codes of four common terms from `first` on, which is faster than one after another."""
    begin = np.uint64(low)
    a, b, c, d = places[first], places[first + 1], places[first + 2], places[first + 3]
    of_a, of_b = multipliers[first], multipliers[first + 1]
    of_c, of_d = multipliers[first + 2], multipliers[first + 3]
    for i in range(high - low):
        at = begin + np.uint64(i)
        sums[np.uint64(i)] += (
            np.int32(common[a, at]) * of_a
            + np.int32(common[b, at]) * of_b
            + np.int32(common[c, at]) * of_c
            + np.int32(common[d, at]) * of_d
        )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def scan(low: int, high: int, cutoff: Sum, sums: NDArray[Sum], near: NDArray[np.int32], partial: NDArray[Sum]) -> int:
    """Copy the documents whose sum reaches the cutoff to `near` and `partial`. Then set all sums to 0."""
    count = 0
    for begin in range(0, high - low, SCAN):
        passing = np.int32(0)  # as wide as a sum, which is twice as fast as 64 bits
        for i in range(SCAN):
            passing = np.int32(passing + np.int32(sums[np.uint64(begin + i)] >= cutoff))
        if passing:
            for i in range(begin, min(begin + SCAN, high - low)):
                if sums[i] >= cutoff:
                    near[count], partial[count] = low + i, sums[i]
                    count += 1
        for i in range(SCAN):
            sums[np.uint64(begin + i)] = 0
    return count


@njit(nogil=True)  # type: ignore[untyped-decorator]
def revisit(
    ids: NDArray[np.uint16] | NDArray[np.int32],
    walked: NDArray[np.bool_],
    terms: int,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    low: int,
    first: int,
    cutoff: Sum,
    sums: NDArray[Sum],
    near: NDArray[np.int32],
    partial: NDArray[Sum],
) -> int:
    """Do what `scan` does, for a block with so few postings that reading them again is faster.

    The block begins at document `low`, which has the number `first` in `ids`.
    """
    count = 0
    for term in range(terms):
        if walked[term]:
            for position in range(begins[term], ends[term]):
                at = np.int64(ids[position]) - first
                total = sums[at]
                sums[at] = 0
                if total >= cutoff:
                    near[count], partial[count] = low + at, total
                    count += 1
    ascending = np.argsort(near[:count])
    near[:count] = near[:count][ascending]
    partial[:count] = partial[:count][ascending]
    return count


@njit(nogil=True)  # type: ignore[untyped-decorator]
def guess(sums: NDArray[Sum], width: int, k: int) -> Any:
    """A sum that at least `k` of the first `width` documents reach. 0 or less if finding it is not cheap.

    The sums are divided into more than k lanes. The best sums of the lanes belong to different documents. So at least
    k documents reach the k-th best of them. This saves raising the threshold of the first block step by step.
    """
    best = np.zeros((k * LANES + SCAN - 1) // SCAN * SCAN, dtype=np.int32)
    lanes = len(best)
    if lanes * 4 > width:
        return best.view(sums.dtype)[0]
    bits = sums.view(np.int32)  # floats above 0 sort like their bits, and integers have a vectorised maximum
    for begin in range(0, width - lanes + 1, lanes):
        for lane in range(lanes):
            best[np.uint64(lane)] = max(best[np.uint64(lane)], bits[np.uint64(begin + lane)])
    return kth_largest(best, k).view(sums.dtype)[0]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def kth_largest(numbers: NDArray[np.int32], k: int) -> Any:
    """The k-th largest number, alone in an array."""
    if k > FEW:
        return np.partition(numbers, len(numbers) - k)[len(numbers) - k : len(numbers) - k + 1]
    largest = numbers[:k].copy()  # in ascending order
    largest.sort()
    for i in range(k, len(numbers)):
        if numbers[i] > largest[0]:
            at = 0
            while at + 1 < k and largest[at + 1] < numbers[i]:
                largest[at] = largest[at + 1]
                at += 1
            largest[at] = numbers[i]
    return largest[:1]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def guess_of_owners(sums: NDArray[Sum], low: int, high: int, k: int, owners: NDArray[np.int32]) -> Any:
    """A sum that at least `k` owners of the passages in [low, high) reach: the k-th best of the first owners.

    0 if there are fewer than k.
    """
    width = max(k, min(high - low, max(SCAN * 16, k * SCAN // 2)))
    best = np.zeros(width, dtype=sums.dtype)
    count, last = 0, -1
    for i in range(min(width, high - low)):
        if sums[i] > 0:
            if owners[low + i] != last:
                last = owners[low + i]
                best[count] = sums[i]
                count += 1
            elif sums[i] > best[count - 1]:
                best[count - 1] = sums[i]
    return np.partition(best, width - k)[width - k]
