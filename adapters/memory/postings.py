"""The inverted index of a segment and a retriever: the documents that have each term, with their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import count, pairwise
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from hybridsearch.adapters.memory.arrays import (
    Arrays,
    DamagedArrayError,
    Layout,
    check_length,
    check_starts,
)
from hybridsearch.adapters.memory.impacts import Impacts
from hybridsearch.corpus.files import REPAIR
from hybridsearch.errors import IndexCorruptedError
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

Scalar = TypeVar("Scalar", bound=np.generic)

_PIECE = 1 << 19
"""The number of postings that are processed at a time. It limits the memory."""


class Postings:
    """An inverted index: for each term the documents that have it, ascending, and their values. It never changes.

    Attributes:
        documents: Number of documents, with or without terms.
        indptr: Start of the postings of each term, int64 of shape (terms + 1,). The postings of term t are
            `rows[indptr[t]:indptr[t + 1]]` and `values[indptr[t]:indptr[t + 1]]`.
        rows: Document numbers, int32 of shape (postings,).
        values: Values, never 0, float32 of shape (postings,).
        lengths: Sums of the values of each document, float32 of shape (documents,). If the values are term
            frequencies, these are document lengths.

    >>> matrix = csr_array(np.array([[1, 0, 2], [0, 0, 3]], dtype=np.float32))
    >>> postings = Postings.from_vectors(SparseVectors(matrix, Vocabulary(["wing", "lift", "flow"])))
    >>> postings.terms, postings.rows.tolist(), postings.lengths.tolist()
    (('wing', 'flow'), [0, 0, 1], [3.0, 3.0])
    """

    LAYOUT: ClassVar[Layout] = {
        "indptr": (np.int64, 1),
        "rows": (np.int32, 1),
        "values": (np.float32, 1),
        "lengths": (np.float32, 1),
        "terms": (np.uint8, 1),
        "term_starts": (np.int64, 1),
    }
    """The layout of `arrays`."""

    def __init__(
        self,
        indptr: NDArray[np.int64],
        rows: NDArray[np.int32],
        values: NDArray[np.float32],
        lengths: NDArray[np.float32],
        terms: Vocabulary | tuple[NDArray[np.uint8], NDArray[np.int64]],
    ) -> None:
        self.indptr = read_only(indptr)
        self.rows = read_only(rows)
        self.values = read_only(values)
        self.lengths = read_only(lengths)
        self._terms = terms

    @classmethod
    def from_vectors(cls, vectors: SparseVectors) -> Postings:
        """The inverted index of these vectors. Terms whose values are all 0 are left out."""
        matrix = vectors.matrix
        vocabulary = vectors.vocabulary
        columns = csr_array((matrix.data.astype(np.float32), matrix.indices, matrix.indptr), matrix.shape).tocsc()
        columns.eliminate_zeros()
        of_value = np.repeat(np.arange(len(vectors)), np.diff(matrix.indptr))
        lengths = np.bincount(of_value, weights=matrix.data[: len(of_value)], minlength=len(vectors))
        counts = np.diff(columns.indptr)
        present = np.flatnonzero(counts)
        if len(present) < len(vocabulary):
            vocabulary = Vocabulary([vocabulary.terms[column] for column in present.tolist()])
        rows, values = columns.indices.astype(np.int32, copy=False), columns.data.astype(np.float32, copy=False)
        return cls(_starts(counts[present]), rows, values, lengths.astype(np.float32), vocabulary)

    @classmethod
    def merge(cls, parts: Sequence[tuple[Postings, NDArray[np.bool_] | None]]) -> Postings:
        """Join inverted indexes. Each has a mask of the documents to keep. None keeps all documents.

        The documents are numbered from 0 in the order of `parts`. The call needs little more memory than the result.
        """
        union: dict[str, int] = {}
        targets = []
        for part, _ in parts:
            terms = part.terms
            union.update(zip([term for term in terms if term not in union], count(len(union)), strict=False))
            targets.append(np.fromiter(map(union.__getitem__, terms), np.int64, len(terms)))
        renumbered = []
        documents = 0
        for part, keep in parts:
            kept = np.ones(part.documents, dtype=np.bool_) if keep is None else keep
            numbers = np.cumsum(kept, dtype=np.int32) + np.int32(documents - 1)
            numbers[~kept] = -1
            renumbered.append(numbers)
            documents += int(np.count_nonzero(kept))
        counts = np.zeros(len(union), dtype=np.int64)
        for (part, keep), numbers, target in zip(parts, renumbered, targets, strict=True):
            if keep is None:
                counts[target] += np.diff(part.indptr)
                continue
            for first, last, span in part._pieces():
                counts[target[first:last]] += _sums(numbers[part.rows[span]] >= 0, part.indptr[first : last + 1])
        rows, values = _empty(int(counts.sum()))
        heads = np.cumsum(counts) - counts
        for (part, keep), numbers, target in zip(parts, renumbered, targets, strict=True):
            for first, last, span in part._pieces():
                new_rows, new_values = numbers[part.rows[span]], part.values[span]
                starts = part.indptr[first : last + 1] - part.indptr[first]
                if keep is not None:
                    kept = new_rows >= 0
                    new_rows, new_values, starts = new_rows[kept], new_values[kept], _starts(_sums(kept, starts))
                sizes = np.diff(starts)
                at = np.repeat(heads[target[first:last]] - starts[:-1], sizes) + np.arange(len(new_rows))
                rows[at], values[at] = new_rows, new_values
                heads[target[first:last]] += sizes
        lengths = [part.lengths if keep is None else part.lengths[keep] for part, keep in parts]
        present = counts > 0
        return cls(
            _starts(counts[present]),
            rows,
            values,
            np.concatenate([np.empty(0, dtype=np.float32), *lengths]),
            Vocabulary([term for term, there in zip(union, present.tolist(), strict=True) if there]),
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays, documents: int) -> Postings:
        """The inverted index over these arrays, for this number of documents, without copying.

        This is the inverse of `arrays`. The arrays may be memory-mapped files.

        Raises:
            DamagedArrayError: The arrays do not fit together, so a search could read beyond their ends.
        """
        indptr, rows = arrays["indptr"], arrays["rows"]
        check_starts(arrays, "indptr", None, len(rows), empty=False)
        check_length(arrays, "values", len(rows))
        check_length(arrays, "lengths", documents)
        check_starts(arrays, "term_starts", len(indptr) - 1, len(arrays["terms"]))
        if len(rows) and (rows[indptr[:-1]].min() < 0 or rows[indptr[1:] - 1].max() >= documents):
            raise DamagedArrayError("rows", f"it has numbers that are not from 0 to {documents - 1}")
        heads = indptr[1:-1]
        falls = -int(np.count_nonzero(rows[heads] <= rows[heads - 1]))  # from one term to the next
        for start in range(0, len(rows), _CHECKED):
            part = rows[start : start + _CHECKED + 1]
            falls += int(np.count_nonzero(part[1:] <= part[:-1]))
        if falls:
            raise DamagedArrayError("rows", "the documents of a term are out of order")
        return cls(indptr, rows, arrays["values"], arrays["lengths"], (arrays["terms"], arrays["term_starts"]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All data as plain arrays, to save them. Terms are `terms` (UTF-8 bytes) and `term_starts` (terms + 1)."""
        if isinstance(self._terms, Vocabulary):
            encoded = [term.encode("utf-8", "surrogatepass") for term in self._terms.terms]
            starts = _starts(np.fromiter(map(len, encoded), np.int64, len(encoded)))
            blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        else:
            blob, starts = self._terms
        return {
            "indptr": self.indptr,
            "rows": self.rows,
            "values": self.values,
            "lengths": self.lengths,
            "terms": blob,
            "term_starts": starts,
        }

    @property
    def documents(self) -> int:
        return len(self.lengths)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The terms that have a posting, by column. They are decoded when they are first used."""
        if isinstance(self._terms, Vocabulary):
            return self._terms
        blob, starts = self._terms
        raw, bounds = blob.tobytes(), starts.tolist()
        try:
            return Vocabulary([raw[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(bounds)])
        except UnicodeDecodeError as error:
            raise IndexCorruptedError(
                f"A term of the index is damaged ({error}). Open the index with verify=True, which names the damaged "
                f"file. Then {REPAIR}."
            ) from error

    @cached_property
    def impacts(self) -> Impacts:
        """The codes of the values."""
        return Impacts(self.documents, self.indptr, self.rows, self.values)

    @cached_property
    def longest(self) -> int:
        """The largest number of postings of a term."""
        return int(np.diff(self.indptr).max(initial=0))

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that have a posting, by column."""
        return self.vocabulary.terms

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays. Decoded terms are not counted."""
        return sum(array.nbytes for array in (self.indptr, self.rows, self.values, self.lengths))

    def columns(self, terms: Iterable[str]) -> NDArray[np.int64]:
        """The column of each term. A term that no document has gets -1."""
        column = self.vocabulary.index.get
        return np.array([column(term, -1) for term in terms], dtype=np.int64)

    def document_frequency(self, terms: Sequence[str], live: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """The number of documents in the mask `live` that have each term. None is fast: all documents count."""
        columns = self.columns(terms)
        if live is not None:
            spans = [self._span(column) for column in columns.tolist()]
            return np.array([np.count_nonzero(live[self.rows[span]]) for span in spans], dtype=np.int64)
        known = np.maximum(columns, 0)
        if not len(self.rows):
            return np.zeros(len(columns), dtype=np.int64)
        return np.where(columns >= 0, self.indptr[known + 1] - self.indptr[known], 0)

    def to_vectors(self, rows: NDArray[np.integer] | None = None) -> SparseVectors:
        """The vectors of all documents, or of `rows` in that order. The vocabulary has the terms of these documents."""
        if rows is None:
            first, last = 0, self.documents
            wanted = slots = np.arange(self.documents, dtype=np.int32)
        else:
            wanted = np.unique(rows)
            first, last = (int(wanted[0]), int(wanted[-1]) + 1) if len(wanted) else (0, 0)
            slots = np.full(last - first, -1, dtype=np.int32)
            slots[wanted - first] = np.arange(len(wanted), dtype=np.int32)
        at = np.flatnonzero((self.rows >= first) & (self.rows < last))
        slot = slots[self.rows[at] - first]
        at, slot = at[slot >= 0], slot[slot >= 0]
        column = np.searchsorted(self.indptr, at, side="right") - 1
        present = np.unique(column)
        vocabulary = Vocabulary([self.terms[column] for column in present.tolist()])
        starts = np.searchsorted(at, np.append(self.indptr[present], self.indptr[-1]))
        by_column = csc_array((self.values[at], slot, starts), shape=(len(wanted), len(vocabulary)))
        matrix = by_column.tocsr()
        if rows is not None and not np.array_equal(rows, wanted):
            matrix = matrix[np.searchsorted(wanted, rows)]
        return SparseVectors(matrix, vocabulary)

    def _span(self, column: int) -> slice:
        """The range of the postings of a column. It is empty for -1, which is an unknown term."""
        return slice(0, 0) if column < 0 else slice(int(self.indptr[column]), int(self.indptr[column + 1]))

    def _pieces(self) -> Iterator[tuple[int, int, slice]]:
        """Ranges of columns, and the ranges of their postings. They are small, to limit the memory."""
        cuts = np.searchsorted(self.indptr, np.arange(0, len(self.rows), _PIECE), side="right") - 1
        for first, last in pairwise([*np.unique(cuts).tolist(), len(self.indptr) - 1]):
            if first < last:
                yield first, last, slice(int(self.indptr[first]), int(self.indptr[last]))


_CHECKED = 1 << 17
"""The number of postings that are checked at a time. They stay in the processor's cache."""


class Weighting(Protocol):
    """Formulas that turn term frequencies into values, such as `hybridsearch.weighting.BM25Weighting`."""

    def idf(self, document_frequency: NDArray[np.int64], documents: int) -> NDArray[np.float64]:
        """The factor of each query term, for frequencies from 1 to `documents`."""
        ...

    def term_weights(
        self, frequency: NDArray[np.float32], length: NDArray[np.float32], average_length: float
    ) -> NDArray[np.float32]:
        """The value of each posting. It is computed element by element."""
        ...


class TermStatistics:
    """The facts about the whole collection that lexical scores depend on, in one state of the index.

    The idf of a term is computed when it is first needed, and remembered.

    Attributes:
        weighting: Formulas of idf and term weights.
        documents: Number of documents that are not deleted.
        average_length: Average length of these documents in tokens. 0 if there are none.
    """

    def __init__(self, parts: Sequence[tuple[Postings, NDArray[np.bool_] | None]], weighting: Weighting) -> None:
        """`parts` has the inverted index of each segment, and a mask of the documents that are not deleted, or None."""
        self._parts = parts
        self.weighting = weighting
        self._idf: dict[str, float] = {}
        lengths = [postings.lengths if live is None else postings.lengths[live] for postings, live in parts]
        self.documents = sum(map(len, lengths))
        tokens = sum(float(own.sum(dtype=np.float64)) for own in lengths)
        self.average_length = tokens / self.documents if self.documents else 0.0

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The idf of each term. A term that no document has gets 0."""
        known = self._idf
        for term in terms:
            if term not in known:
                self._learn([term for term in terms if term not in known])
                break
        return [known.get(term, 0.0) for term in terms]

    def frequencies(self, terms: Sequence[str]) -> NDArray[np.int64]:
        """The number of documents that have each term."""
        frequency = np.zeros(len(terms), dtype=np.int64)
        for postings, live in self._parts:
            frequency += postings.document_frequency(terms, live)
        return frequency

    def weigh(self, query: SparseQuery) -> SparseQuery:
        """The query with its weights, which are counts, multiplied by idf."""
        return SparseQuery(query.terms, (np.array(self.idf(query.terms)) * query.weights).astype(np.float32))

    def _learn(self, terms: Sequence[str]) -> None:
        """Remember the idf of the terms that some document has. Unknown terms are not kept, as there is no limit."""
        terms = [term for term in terms if any(term in postings.vocabulary.index for postings, _ in self._parts)]
        if not terms:
            return
        frequency = self.frequencies(terms)
        idf = self.weighting.idf(np.maximum(frequency, 1), self.documents)
        self._idf.update(zip(terms, np.where(frequency > 0, idf, 0.0).tolist(), strict=True))


class LexicalWeights:
    """The values of the lexical postings of a segment, and the idf of its terms, in one state of the index.

    A term is computed when it is first searched. The average document length and the idf change with every document
    that is added or deleted, and only few terms are searched before they change again. Each value depends only on its
    frequency, on its document's length, and on the average. So scores are equal to those of a new index. Threads may
    share one object: if two compute the same term, they write the same numbers.

    Attributes:
        statistics: Facts about the whole collection.
        values: Values, float32 of shape (postings,), in the order of `Postings.values`. They are valid for the terms
            that were given to `columns`.
        idf: Factor of each term, float64 of shape (terms,). It is valid for the same terms.
        impacts: What the search loops read in place of the values.
    """

    def __init__(self, postings: Postings, statistics: TermStatistics) -> None:
        self._postings, self.statistics = postings, statistics
        self._values = np.empty(len(postings.values), dtype=np.float32)
        self._known: dict[str, int] = {}
        self.values = read_only(self._values)
        self.idf = np.empty(len(postings.indptr) - 1, dtype=np.float64)
        self.impacts = Impacts(postings.documents, postings.indptr, postings.rows, self.values, postings.impacts)

    def columns(self, terms: Sequence[str]) -> NDArray[np.int64]:
        """The column of each term, or -1, as `Postings.columns`. Their values and idf are valid from now on."""
        known = self._known
        columns = list(map(known.get, terms))
        if None in columns:
            self._learn({term for term, column in zip(terms, columns, strict=True) if column is None})
            columns = [known.get(term, -1) for term in terms]
        return np.array(columns, dtype=np.int64)

    def _learn(self, terms: Iterable[str]) -> None:
        """Compute the values and the idf of terms. Unknown terms are not kept, as there is no limit to them."""
        index = self._postings.vocabulary.index
        columns = {term: index[term] for term in terms if term in index}
        if not columns:
            return
        self.idf[list(columns.values())] = self.statistics.idf(list(columns))
        wanted = np.array(sorted(columns.values()), dtype=np.int64)
        sizes = self._postings.indptr[wanted + 1] - self._postings.indptr[wanted]
        chunk = (np.cumsum(sizes) - sizes) // _PIECE
        for part in np.split(wanted, np.flatnonzero(np.diff(chunk)) + 1):
            self._fill(part)
        self._known.update(columns)

    def _fill(self, columns: NDArray[np.int64]) -> None:
        postings, statistics = self._postings, self.statistics
        spans = list(zip(postings.indptr[columns].tolist(), postings.indptr[columns + 1].tolist(), strict=True))
        frequency = np.concatenate([postings.values[begin:end] for begin, end in spans])
        length = postings.lengths[np.concatenate([postings.rows[begin:end] for begin, end in spans])]
        weights = statistics.weighting.term_weights(frequency, length, statistics.average_length)
        head = 0
        for begin, end in spans:
            self._values[begin:end] = weights[head : head + end - begin]
            head += end - begin


def read_only(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """A plain read-only view of an array. The loops are compiled for this kind of array only."""
    if type(array) is np.ndarray and not array.flags.writeable:
        return array
    view: NDArray[Scalar] = array.view(np.ndarray)
    view.flags.writeable = False
    return view


def _empty(postings: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.empty(postings, dtype=np.int32), np.empty(postings, dtype=np.float32)


def _starts(counts: NDArray[np.integer | np.bool_]) -> NDArray[np.int64]:
    """0, followed by the running sums of `counts`."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _sums(flags: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of flags that are set between neighbouring `starts`. The first flag is at the first start."""
    sums: NDArray[np.int64] = np.diff(_starts(flags)[starts - starts[0]])
    return sums
