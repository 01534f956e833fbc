"""Counting terms: what the lexical encoders `BM25` and `CharNGrams` share."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.forks import Lock
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

_SEPARATORS = "\x1c\x1d\x1e\x1f"
"""The ASCII characters that only Python and Unicode take for white space."""

_RARE_SPACES = (
    f"{_SEPARATORS}\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""All white space of Unicode except the six usual characters of ASCII."""

NO_WORD = "the query has no word, so it finds nothing."
"""The note on a query that has no word."""


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
        parts: list[NDArray[np.int32]] = []
        ends = [np.zeros(1, dtype=np.int64)]
        with progress_bar("Counting terms", texts, show_progress_bar) as advance:
            for begin in range(0, len(texts), _PIECE):
                piece = texts[begin : begin + _PIECE]
                numbers, of_texts = self._piece(piece, table)
                parts.append(numbers)
                ends.append(ends[-1][-1] + of_texts)
                advance(len(piece))
        numbers = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        used = np.flatnonzero(np.bincount(numbers)).tolist()
        used.sort(key=table.terms.__getitem__)
        column = np.empty(len(table.terms), dtype=np.int32)
        column[used] = np.arange(len(used), dtype=np.int32)
        ones = np.ones(len(numbers), dtype=np.float32)
        matrix = csr_array((ones, column[numbers], np.concatenate(ends)), shape=(len(texts), len(used)))
        matrix.sum_duplicates()
        return SparseVectors(matrix, Vocabulary([table.terms[number] for number in used]))

    def query(self, text: str) -> SparseQuery:
        """Count the terms of a query, in the order of first occurrence."""
        count: dict[str, int] = {}
        for term in self.terms(text):
            count[term] = count.get(term, 0) + 1
        return SparseQuery(tuple(count), np.fromiter(count.values(), np.float32, len(count)))

    def _piece(self, texts: Sequence[str], table: _TermTable) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The numbers of all terms of some texts, one text after the other, and the end of each text among them."""
        if self._chunks is str.split and sum(map(len, texts)) > _LONG:
            with suppress(UnicodeEncodeError):  # a lone surrogate
                return _numbers_of_words(texts, table)
        tokens, ends = array("i"), []
        for text in texts:
            tokens.fromlist(list(self._numbers(text, table)))
            ends.append(len(tokens))
        return np.frombuffer(tokens, dtype=np.intc), np.array(ends, dtype=np.int64)

    def _numbers(self, text: str, table: _TermTable) -> Iterable[int]:
        return chain.from_iterable(map(table.__getitem__, self._chunks(text)))

    def _fresh_table(self) -> _TermTable:
        if max(len(self._table), len(self._table.terms)) > MAX_REMEMBERED_CHUNKS:
            self._table = _TermTable(self._make_terms())  # a thread in the middle of a batch keeps the old table
        return self._table


def _numbers_of_words(texts: Sequence[str], table: _TermTable) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """`TermCounter._piece` for chunks between white space.

    Arrow splits the texts and finds the distinct chunks. So the table is read once for each distinct chunk.
    """
    import pyarrow as pa  # it takes longer to import than to encode a query
    import pyarrow.compute as pc

    strings = pa.array(texts, pa.large_string())
    split = pc.ascii_split_whitespace if _has_usual_spaces(texts) else pc.utf8_split_whitespace
    lists = split(strings)
    chunks = lists.flatten().dictionary_encode()
    terms = list(map(table.__getitem__, cast("list[str]", chunks.dictionary.to_pylist())))
    counts = np.fromiter(map(len, terms), np.int32, len(terms))
    flat = np.fromiter(chain.from_iterable(terms), np.int32)
    place = chunks.indices.to_numpy()
    sizes = counts[place]
    ends = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=ends[1:])
    shift = (np.cumsum(counts) - counts)[place] - ends[:-1]
    at = np.repeat(shift, sizes)
    at += np.arange(len(at))
    return flat[at], ends[lists.offsets.to_numpy()[1:]]


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

    A chunk is added when it is looked up. Any number of threads may look up chunks.
    """

    def __init__(self, terms_of: Callable[[str], Iterable[str]]) -> None:
        super().__init__()
        self.terms: list[str] = []
        self._known: dict[str, int] = {}
        self._terms_of = terms_of
        self._lock = Lock()

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        with self._lock:
            numbers = tuple(map(self._number, self._terms_of(chunk)))
            if len(chunk) <= MAX_CHUNK:
                self[chunk] = numbers
        return numbers

    def _number(self, term: str) -> int:
        number = self._known.get(term)
        if number is None:
            number = self._known[term] = len(self.terms)
            self.terms.append(term)
        return number
