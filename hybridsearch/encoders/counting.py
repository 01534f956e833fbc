"""Counting terms: what the lexical encoders `BM25` and `CharNGrams` share."""

from __future__ import annotations

import os
import time
from array import array
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from types import ModuleType
from typing import TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.compiled import Fetcher, Loops
from hybridsearch.forks import Lock, after_fork
from hybridsearch.progress import progress_bar
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

MAX_REMEMBERED_CHUNKS = 1_000_000
"""Number of distinct chunks whose terms a counter remembers, about 250 MB. With more chunks it starts again."""

MAX_CHUNK = 64
"""Number of characters of the longest chunk whose terms are remembered. Longer chunks rarely come twice."""

_PIECE = 1024
"""Number of texts whose chunks are found together. It limits the memory."""

_LONG = 20_000
"""Number of characters from which it is faster to look up the distinct chunks only."""

_MANY = 4096
"""Number of distinct terms from which the order of all terms is kept for later batches."""

_SEPARATORS = "\x1c\x1d\x1e\x1f"
"""The ASCII characters that only Python and Unicode take for white space."""

_RARE_SPACES = (
    f"{_SEPARATORS}\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""All white space of Unicode except the six usual characters of ASCII."""

NO_WORD = "the query has no word, so it finds nothing."
"""The note on a query that has no word."""


LOOPS = Loops("hybridsearch.encoders.counting_kernels", "indexing", "Arrow", ("counting_kernels.py",))

_fetcher = Fetcher(LOOPS, patience=0.1)

_SLOT = 3
"""The same as in `counting_kernels`, which is not imported for it."""

_Number = TypeVar("_Number", bound=np.generic)

_Piece: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
"""Terms of some texts: the end of each text, the numbers of the terms, and their counts. A term may come twice."""


def warm_up() -> None:
    """Read the compiled loops of indexing now, or compile them, which takes about 5 seconds.

    Raises:
        StorageError: No folder can keep the compiled loops.
    """
    _fetcher.warm_up()


class TermCounter:
    """Counts the terms of texts. Any number of threads may use one counter.

    Args:
        chunks: Function that cuts a text into chunks. Several threads may call it at once.
        make_terms: Function that makes a function from a chunk to its terms. One thread at a time calls the made
            function.
    """

    def __init__(
        self, chunks: Callable[[str], Iterable[str]], make_terms: Callable[[], Callable[[str], Iterable[str]]]
    ) -> None:
        self._chunks, self._make_terms = chunks, make_terms
        self._table = _TermTable(make_terms())
        self._last: tuple[str, list[str]] = "", []

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order and with repetitions."""
        text_before, terms = self._last  # the terms of a query are needed for its vector and for its note
        if text_before is not text:
            table = self._fresh_table()
            terms = [table.terms[number] for number in self._numbers(text, table)]
            self._last = text, terms
        return list(terms)

    def documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """Count the terms of documents. The columns are ordered by term, by code point."""
        table = self._fresh_table()
        pieces: list[_Piece] = []
        with progress_bar("Counting terms", texts, show_progress_bar) as advance:
            for begin in range(0, len(texts), _PIECE):
                piece = texts[begin : begin + _PIECE]
                pieces.append(self._piece(piece, table))
                advance(len(piece))
        starts, numbers, counts = _joined(pieces)
        used = table.in_order(np.flatnonzero(np.bincount(numbers)))
        column = np.empty(len(table.terms), dtype=np.int32)
        column[used] = np.arange(len(used), dtype=np.int32)
        columns = column[numbers]
        if _fetcher.kernels is not None:
            _fetcher.kernels.sort_rows(starts, columns, counts, len(used))
        matrix = csr_array((counts, columns, starts), shape=(len(texts), len(used)))
        matrix.sum_duplicates()
        return SparseVectors(matrix, Vocabulary(list(map(table.terms.__getitem__, used))))

    def query(self, text: str) -> SparseQuery:
        """Count the terms of a query, in the order of first occurrence."""
        count: dict[str, int] = {}
        for term in self.terms(text):
            count[term] = count.get(term, 0) + 1
        return SparseQuery(tuple(count), np.fromiter(count.values(), np.float32, len(count)))

    def _piece(self, texts: Sequence[str], table: _TermTable) -> _Piece:
        if self._chunks is str.split and sum(map(len, texts)) > _LONG:
            with suppress(UnicodeEncodeError):  # a lone surrogate
                kernels = _fetcher.kernels
                if kernels is not None:
                    return table.counted(texts, kernels)
                started = time.thread_time()
                piece = _numbers_of_words(texts, table)
                _fetcher.spend(time.thread_time() - started)
                _fetcher.settle()  # reading the code takes half a second, and three times as long beside other work
                return piece
        tokens, ends = array("i"), []
        for text in texts:
            tokens.fromlist(list(self._numbers(text, table)))
            ends.append(len(tokens))
        return np.array(ends, dtype=np.int64), np.frombuffer(tokens, dtype=np.intc), _ones(len(tokens))

    def _numbers(self, text: str, table: _TermTable) -> Iterable[int]:
        return chain.from_iterable(map(table.__getitem__, self._chunks(text)))

    def _fresh_table(self) -> _TermTable:
        if max(len(self._table), self._table.chunks, len(self._table.terms)) > MAX_REMEMBERED_CHUNKS:
            self._table = _TermTable(self._make_terms())  # a thread in the middle of a batch keeps the old table
        return self._table


def _joined(pieces: Sequence[_Piece]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The terms of all texts, as in a piece, but with the start of each text, followed by the end."""
    starts, total = [np.zeros(1, dtype=np.int64)], 0
    for ends, numbers, _ in pieces:
        starts.append(ends + total)
        total += len(numbers)
    if len(pieces) == 1:
        return np.concatenate(starts), pieces[0][1], pieces[0][2]
    numbers = np.concatenate([np.empty(0, dtype=np.int32), *(numbers for _, numbers, _ in pieces)])
    return np.concatenate(starts), numbers, np.concatenate([_ones(0), *(counts for _, _, counts in pieces)])


def _ones(size: int) -> NDArray[np.float32]:
    return np.ones(size, dtype=np.float32)


def _numbers_of_words(texts: Sequence[str], table: _TermTable) -> _Piece:
    """`TermCounter._piece` for chunks between white space.

    Arrow splits the texts and finds the distinct chunks. So the table is read once for each distinct chunk.
    """
    import pyarrow.compute as pc  # it takes longer to import than to encode a query

    from hybridsearch.arrow import of_strings, to_numpy

    strings = of_strings(texts)
    split = pc.ascii_split_whitespace if _has_usual_spaces(texts) else pc.utf8_split_whitespace
    lists = split(strings)
    chunks = lists.flatten().dictionary_encode()
    terms = list(map(table.__getitem__, cast("list[str]", chunks.dictionary.to_pylist())))
    counts = np.fromiter(map(len, terms), np.int32, len(terms))
    flat = np.fromiter(chain.from_iterable(terms), np.int32)
    place = to_numpy(chunks.indices)
    sizes = counts[place]
    ends = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=ends[1:])
    shift = (np.cumsum(counts) - counts)[place] - ends[:-1]
    at = np.repeat(shift, sizes)
    at += np.arange(len(at))
    return ends[to_numpy(lists.offsets)[1:]], flat[at], _ones(len(at))


def _has_usual_spaces(texts: Sequence[str]) -> bool:
    """Whether all white space in texts is usual. It is then faster to split them."""
    return not any(space in text for text in texts for space in (_SEPARATORS if text.isascii() else _RARE_SPACES))


def by_weight(vector: SparseQuery | SparseVectors) -> list[list[tuple[str, float]]]:
    """The terms of each row with their counts, the most frequent first, then by name."""
    if isinstance(vector, SparseQuery):
        rows = [list(zip(vector.terms, vector.weights.tolist(), strict=True))]
    else:
        matrix, terms = vector.matrix, vector.vocabulary.terms
        pairs = list(zip([terms[column] for column in matrix.indices], matrix.data.tolist(), strict=True))
        rows = [pairs[start:end] for start, end in pairwise(matrix.indptr)]
    return [sorted(row, key=lambda pair: (-pair[1], pair[0])) for row in rows]


class _TermTable(dict[str, tuple[int, ...]]):
    """The numbers of each chunk's terms.

    A chunk is added when it is looked up. Any number of threads may look up chunks. The compiled loops have a table of
    their own, with the same numbers of terms.

    Attributes:
        terms: Term of each number.
        chunks: Number of the chunks in the table of the compiled loops.
    """

    def __init__(self, terms_of: Callable[[str], Iterable[str]]) -> None:
        super().__init__()
        self.terms: list[str] = []
        self.chunks = 0
        self._table: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]
        self._starts: NDArray[np.int64]
        self._numbers_of_chunks: NDArray[np.int32]
        self._known: dict[str, int] = {}
        self._terms_of = terms_of
        self._lock = Lock()
        self._order = np.empty(0, dtype=np.int32)  # the numbers of the terms that are in order, and their places there
        self._places = np.empty(0, dtype=np.int32)
        self._forget_chunks()
        after_fork(self, _TermTable._forget_chunks)  # a thread of the parent may have been adding chunks

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        with self._lock:
            numbers = tuple(self._numbers(chunk))
            if len(chunk) <= MAX_CHUNK:
                self[chunk] = numbers
        return numbers

    def counted(self, texts: Sequence[str], kernels: ModuleType) -> _Piece:
        """The terms of texts, each once for a text, by compiled loops.

        Raises:
            UnicodeEncodeError: A text has a lone surrogate.
        """
        encoded = [text.encode() for text in texts]
        blob = b"".join(encoded)
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        chunks = np.empty(len(blob) // 2 + len(texts) + 1, dtype=np.int32)
        chunk_ends, long = np.empty(len(texts), dtype=np.int64), np.empty(2 * (len(blob) // MAX_CHUNK + 1), np.int64)
        with self._lock:
            before = self.chunks
            try:
                slots, keys, key_ends, self.chunks, found, count = kernels.find_chunks(
                    *(np.frombuffer(blob, np.uint8), ends, MAX_CHUNK, _SEED),
                    *(*self._table, before, chunks, chunk_ends, long),
                )
                self._table = slots, keys, key_ends
                at = key_ends[before : self.chunks + 1].tolist()
                raw, shift = keys[at[0] : at[-1]].tobytes(), at[0]
                new = [self._numbers(raw[a - shift : b - shift].decode()) for a, b in pairwise(at)]
                self._add(new)
            except BaseException:  # the chunks may be in the table without their terms
                self._forget_chunks()
                raise
            long_ones = [self._numbers(blob[a:b].decode()) for a, b in long[: 2 * count].reshape(-1, 2).tolist()]
            starts, numbers, terms = self._starts[: self.chunks + 1], self._numbers_of_chunks, len(self.terms)
        chunks = chunks[:found]
        if long_ones:
            chunks[chunks < 0] = len(starts) - 2 - chunks[chunks < 0]
            more = np.cumsum(np.fromiter(map(len, long_ones), np.int64, count))
            numbers = np.concatenate([numbers[: starts[-1]], np.fromiter(chain.from_iterable(long_ones), np.int32)])
            starts = np.concatenate([starts, starts[-1] + more])
        starts_of_texts, numbers, counts = kernels.count_terms(chunks, chunk_ends, starts, numbers, terms)
        return starts_of_texts[1:], numbers, counts

    def in_order(self, numbers: NDArray[np.int64]) -> list[int]:
        """Sort numbers of terms by term, by code point.

        Most terms of a large batch were in earlier batches, whose order is kept.
        """
        if len(numbers) < _MANY:
            return sorted(numbers.tolist(), key=self.terms.__getitem__)
        with self._lock:
            term, before = self.terms.__getitem__, len(self._order)
            new = sorted(range(before, len(self.terms)), key=term)
            if 16 * len(new) > before:
                self._order = np.array(sorted(range(len(self.terms)), key=term), dtype=np.int32)
            elif new:
                order = self._order.tolist()
                places = [bisect(order, term(number), key=term) for number in new]
                self._order = np.insert(self._order, places, new)
            if new:
                self._places = np.empty(len(self._order), dtype=np.int32)
                self._places[self._order] = np.arange(len(self._order), dtype=np.int32)
            found: list[int] = self._order[np.sort(self._places[numbers])].tolist()
            return found

    def _forget_chunks(self) -> None:
        """Forget the chunks of the compiled loops."""
        self.chunks = 0
        size = 1 << 12
        slots, keys, ends = np.zeros((size, _SLOT), np.uint64), np.empty(size, np.uint8), np.zeros(size, np.int64)
        self._table = (slots, keys, ends)
        self._starts, self._numbers_of_chunks = np.zeros(size, dtype=np.int64), np.empty(size, dtype=np.int32)

    def _add(self, numbers: Sequence[Sequence[int]]) -> None:
        """Add the numbers of the terms of the last chunks."""
        before = self.chunks - len(numbers)
        first = int(self._starts[before])
        ends = first + np.cumsum(np.fromiter(map(len, numbers), np.int64, len(numbers)))
        self._starts = _with_room(self._starts, self.chunks + 1)
        self._starts[before + 1 : self.chunks + 1] = ends
        flat = np.fromiter(chain.from_iterable(numbers), np.int32)
        self._numbers_of_chunks = _with_room(self._numbers_of_chunks, first + len(flat))
        self._numbers_of_chunks[first : first + len(flat)] = flat

    def _numbers(self, chunk: str) -> list[int]:
        return list(map(self._number, self._terms_of(chunk)))

    def _number(self, term: str) -> int:
        number = self._known.get(term)
        if number is None:
            number = self._known[term] = len(self.terms)
            self.terms.append(term)
        return number


_SEED = np.uint64(int.from_bytes(os.urandom(8), "little"))
"""The start of all hashes. It is random, so that nobody can write texts whose chunks have the same hash."""


def _with_room(array: NDArray[_Number], size: int) -> NDArray[_Number]:
    """The array, or a copy with room for `size` numbers. Other threads may still read the old array."""
    if size <= len(array):
        return array
    larger = np.empty(2 * size, dtype=array.dtype)
    larger[: len(array)] = array
    return larger
