"""The compiled loops of `counting`: they cut texts into chunks, and count the terms of each text.

No other module may import this one, because importing it loads the compiler. Every function releases the interpreter
lock. Positions in the inner loops are unsigned, because numba then leaves out the test for negative indices.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

SHORT = 16
"""The number of bytes of a short chunk. A slot of the table holds them, so that no other memory is read."""

SLOT = 3
"""The numbers of a slot: the first and the next eight bytes of a short chunk, and twice its number, plus 2.

A long chunk, or one with a zero byte, has its hash and its length in place of the bytes, and 1 more in the last number.
An empty slot ends with 0.
"""

_FOLD, _LAST = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
_ONE, _BYTE, _SHIFT, _HALF, _WORD = np.uint64(1), np.uint64(8), np.uint64(29), np.uint64(32), np.uint64(64)
_FIRST, _NEXT, _NUMBER = np.uint64(0), np.uint64(1), np.uint64(2)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _width_of_space(blob: NDArray[np.uint8], at: int) -> int:
    """The number of bytes of the white space at a position. 0 if there is none.

    White space is what `str.split` takes for it. `blob` is UTF-8.
    """
    byte = blob[np.uint64(at)]
    if byte <= 32:
        return 1 if byte == 32 or 9 <= byte <= 13 or byte >= 28 else 0
    if byte < 0xC2 or byte > 0xE3:
        return 0
    second = blob[np.uint64(at + 1)]
    if byte == 0xC2:
        return 2 if second in (0x85, 0xA0) else 0
    if byte < 0xE1:
        return 0
    third = blob[np.uint64(at + 2)]
    if byte == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    if byte == 0xE2 and second == 0x80:
        return 3 if third <= 0x8A or third in (0xA8, 0xA9, 0xAF) else 0
    return 3 if third == (0x9F if byte == 0xE2 else 0x80) and second == (0x81 if byte == 0xE2 else 0x80) else 0


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def find_chunks(
    blob: NDArray[np.uint8],
    text_ends: NDArray[np.int64],
    longest: int,
    seed: np.uint64,
    slots: NDArray[np.uint64],
    keys: NDArray[np.uint8],
    key_ends: NDArray[np.int64],
    known: int,
    chunks: NDArray[np.int32],
    chunk_ends: NDArray[np.int64],
    spans: NDArray[np.int64],
) -> Any:
    """The number of each chunk of some texts. A new chunk gets the next number, and is added to the table.

    The table is a hash table with open addressing. It grows if it is half full. All chunks of a text are cut before
    they are looked up. So the processor can read several slots at a time.

    Args:
        blob: The texts as UTF-8, one after the other.
        text_ends: End of each text in `blob`.
        longest: Number of characters of the longest chunk that is added.
        seed: Start of every hash.
        slots: Hash table of shape (slots, SLOT). The number of slots is a power of 2.
        keys: Chunks of the table, one after the other.
        key_ends: 0, followed by the end of each chunk in `keys`.
        known: Number of chunks of the table.
        chunks: Output: the number of each chunk. -1 - i is the i-th chunk that is longer than `longest`. It has room
            for all chunks.
        chunk_ends: Output: the end of each text in `chunks`.
        spans: Output: start and end of each chunk longer than `longest` in `blob`, one after the other.

    Returns:
        The three arrays of the table, which are new if it has grown, the number of its chunks, and the numbers of all
        chunks and of those longer than `longest` in the texts.
    """
    most, begin = 0, 0
    for text in range(len(text_ends)):
        most = max(most, (text_ends[text] - begin) // 2 + 1)
        begin = text_ends[text]
    words, hashes = np.empty((most, 2), np.uint64), np.empty(most, np.uint64)
    begins, lengths, short = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
    found, long, at = 0, 0, 0
    for text in range(len(text_ends)):
        end, count = text_ends[np.uint64(text)], 0
        while at < end:
            width = _width_of_space(blob, at)
            if width:
                at += width
                continue
            i = np.uint64(count)
            hashed, word, shift, zero = seed, np.uint64(0), np.uint64(0), False
            begins[i] = at
            words[i, _FIRST] = words[i, _NEXT] = 0
            while at < end:
                byte = blob[np.uint64(at)]
                if byte <= 32 or 0xC2 <= byte <= 0xE3:
                    if _width_of_space(blob, at):
                        break
                    zero |= byte == 0
                word |= np.uint64(byte) << shift
                shift += _BYTE
                at += 1
                if shift == _WORD:
                    words[i, _FIRST if at - begins[i] == 8 else _NEXT] = word
                    hashed = (hashed ^ word) * _FOLD
                    hashed ^= hashed >> _HALF
                    word, shift = np.uint64(0), np.uint64(0)
            length = at - begins[i]
            if shift:
                words[i, _FIRST if length < 8 else _NEXT] = word
                hashed = (hashed ^ word) * _FOLD
                hashed ^= hashed >> _HALF
            hashed *= _LAST
            hashed ^= hashed >> _SHIFT
            hashes[i], lengths[i], short[i] = hashed, length, length <= SHORT and not zero
            if not short[i]:
                words[i, _FIRST], words[i, _NEXT] = hashed, np.uint64(length)
            count += 1
        mask = np.uint64(len(slots) - 1)
        for token in range(count):
            i = np.uint64(token)
            slot = hashes[i] & mask
            entry = slots[slot, _NUMBER]
            same = slots[slot, _FIRST] == words[i, _FIRST] and slots[slot, _NEXT] == words[i, _NEXT]
            if same and short[i] and not entry & _ONE:  # the first word of a short chunk is not 0
                chunks[np.uint64(found)] = np.int32(entry >> _ONE) - 1
                found += 1
                continue
            start, length = begins[i], lengths[i]
            if length > longest:
                characters = 0
                for place in range(start, start + length):
                    characters += (blob[np.uint64(place)] & 0xC0) != 0x80
                if characters > longest:
                    spans[np.uint64(2 * long)], spans[np.uint64(2 * long + 1)] = start, start + length
                    long += 1
                    chunks[np.uint64(found)] = -long
                    found += 1
                    continue
            number: Any = -1
            while entry:
                if slots[slot, _FIRST] == words[i, _FIRST] and slots[slot, _NEXT] == words[i, _NEXT]:
                    candidate = np.int64(entry >> _ONE) - 1
                    if short[i] != bool(entry & _ONE):
                        same, first, place = True, key_ends[np.uint64(candidate)], 0
                        while same and place < length and not short[i]:
                            same = keys[np.uint64(first + place)] == blob[np.uint64(start + place)]
                            place += 1
                        if same:
                            number = candidate
                            break
                slot = (slot + _ONE) & mask
                entry = slots[slot, _NUMBER]
            if number < 0:
                number, head = known, key_ends[np.uint64(known)]
                tail = head + length
                if tail > len(keys):
                    more_keys = np.empty(2 * tail, np.uint8)
                    more_keys[:head] = keys[:head]
                    keys = more_keys
                if known + 2 > len(key_ends):
                    more_ends = np.empty(2 * len(key_ends), np.int64)
                    more_ends[: known + 1] = key_ends
                    key_ends = more_ends
                for place in range(length):
                    keys[np.uint64(head + place)] = blob[np.uint64(start + place)]
                known += 1
                key_ends[np.uint64(known)] = tail
                slots[slot, _FIRST], slots[slot, _NEXT] = words[i, _FIRST], words[i, _NEXT]
                slots[slot, _NUMBER] = (np.uint64(known) << _ONE) | np.uint64(not short[i])
                if 2 * known > len(slots):
                    slots = _larger(slots, keys, key_ends, seed)
                    mask = np.uint64(len(slots) - 1)
            chunks[np.uint64(found)] = number
            found += 1
        chunk_ends[np.uint64(text)] = found
    return slots, keys, key_ends, known, found, long


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _larger(
    slots: NDArray[np.uint64], keys: NDArray[np.uint8], key_ends: NDArray[np.int64], seed: np.uint64
) -> NDArray[np.uint64]:
    """The hash table with four times as many slots."""
    larger = np.zeros((4 * len(slots), SLOT), np.uint64)
    mask = np.uint64(len(larger) - 1)
    for old in range(len(slots)):
        entry = slots[old, _NUMBER]
        if not entry:
            continue
        if entry & _ONE:
            hashed = slots[old, _FIRST]
        else:
            hashed = seed
            number = np.int64(entry >> _ONE) - 1
            length = key_ends[number + 1] - key_ends[number]
            for word in range(1 + (length > 8)):
                hashed = (hashed ^ slots[old, np.uint64(word)]) * _FOLD
                hashed ^= hashed >> _HALF
            hashed *= _LAST
            hashed ^= hashed >> _SHIFT
        slot = hashed & mask
        while larger[slot, _NUMBER]:
            slot = (slot + _ONE) & mask
        larger[slot] = slots[old]
    return larger


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def count_terms(
    chunks: NDArray[np.int32],
    chunk_ends: NDArray[np.int64],
    term_starts: NDArray[np.int64],
    term_numbers: NDArray[np.int32],
    terms: int,
) -> Any:
    """The distinct terms of each text with their counts, in the order of first occurrence.

    Args:
        chunks: Number of each chunk, one text after the other.
        chunk_ends: End of each text in `chunks`.
        term_starts: Start of each chunk's terms in `term_numbers`. It has one more entry for the end.
        term_numbers: Numbers of the terms of all chunks.
        terms: Number of all terms.

    Returns:
        The start of each text, followed by the end (int64), term numbers (int32), and counts (float32).
    """
    size = 0
    for token in range(len(chunks)):
        chunk = np.uint64(chunks[np.uint64(token)])
        size += term_starts[chunk + _ONE] - term_starts[chunk]
    numbers, counts = np.empty(size, np.int32), np.empty(size, np.float32)
    starts = np.zeros(len(chunk_ends) + 1, np.int64)
    places = np.full(terms, -1, np.int64)
    filled, token = 0, 0
    for text in range(len(chunk_ends)):
        begin = filled
        while token < chunk_ends[np.uint64(text)]:
            chunk = np.uint64(chunks[np.uint64(token)])
            for i in range(term_starts[chunk], term_starts[chunk + _ONE]):
                number = term_numbers[np.uint64(i)]
                place = places[np.uint64(number)]
                if place >= begin:
                    counts[np.uint64(place)] += np.float32(1)
                else:
                    places[np.uint64(number)] = filled
                    numbers[np.uint64(filled)] = number
                    counts[np.uint64(filled)] = 1
                    filled += 1
            token += 1
        starts[np.uint64(text + 1)] = filled
    return starts, numbers[:filled].copy(), counts[:filled].copy()


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sort_rows(starts: NDArray[np.int64], columns: NDArray[np.int32], values: NDArray[np.float32], width: int) -> None:
    """Sort each row of a CSR matrix with `width` columns by column, in place. A row may have a column twice."""
    heads = np.zeros(width + 1, np.int64)
    for i in range(len(columns)):
        heads[np.uint64(columns[np.uint64(i)] + 1)] += 1
    for column in range(width):
        heads[column + 1] += heads[column]
    rows, sorted_values = np.empty(len(columns), np.int32), np.empty(len(columns), np.float32)
    for row in range(len(starts) - 1):
        for i in range(starts[row], starts[row + 1]):
            own = np.uint64(columns[np.uint64(i)])
            to = np.uint64(heads[own])
            heads[own] += 1
            rows[to], sorted_values[to] = row, values[np.uint64(i)]
    nexts = starts.copy()
    at = 0
    for column in range(width):
        while at < heads[column]:
            own = np.uint64(rows[np.uint64(at)])
            to = np.uint64(nexts[own])
            nexts[own] += 1
            columns[to], values[to] = column, sorted_values[np.uint64(at)]
            at += 1


def _array(kind: Any) -> Any:
    return types.Array(kind, 1, "C")


_BYTES, _PLACES, _NUMBERS = types.Array(types.uint8, 1, "C", readonly=True), _array(types.int64), _array(types.int32)
_SIGNATURES: dict[Any, tuple[Any, ...]] = {
    find_chunks: (
        *(_BYTES, _PLACES, types.int64, types.uint64, types.Array(types.uint64, 2, "C"), _array(types.uint8), _PLACES),
        *(types.int64, _NUMBERS, _PLACES, _PLACES),
    ),
    count_terms: (_NUMBERS, _PLACES, _PLACES, _NUMBERS, types.int64),
    sort_rows: (_PLACES, _NUMBERS, _array(types.float32), types.int64),
}
"""The types of the arguments of each function. It is called with no other types."""


def compile_all() -> None:
    """Read each function from its cache, or compile it and write it to the cache if possible."""
    for function, arguments in _SIGNATURES.items():
        if isinstance(function, Dispatcher):  # if NUMBA_DISABLE_JIT is set, it is a plain function
            with contextlib.suppress(OSError):  # code that could not be written to the cache still works
                function.compile(arguments)
