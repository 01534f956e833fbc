"""The inverted index of one segment and one retriever, and exact search over some of them.

`Postings` holds for each term the documents that have it and their values. `search` walks the postings of the query's
terms only, with the top k as part of the walk (see `kernels`); it is exact, and its scores are float32 sums in the
order of the query's terms, so that they do not depend on batches, threads or how documents are spread over segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from operator import mul
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.adapters.memory import kernels
from hybridsearch.adapters.memory.threads import WORKERS, run
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

Scalar = TypeVar("Scalar", bound=np.generic)
Hits: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Rows and scores, best first."""


class Postings:
    """For each term the documents that have it, ascending, and their values. Immutable.

    Attributes:
        documents: how many there are, with or without any term.
        indptr: (terms + 1,) int64; the postings of term t are `rows[indptr[t]:indptr[t + 1]]` and `values` likewise.
        rows: (postings,) int32 document numbers.
        values: (postings,) float32, never 0.
        lengths: (documents,) float32 row sums: document lengths, where the values are term frequencies.
        peaks: (terms,) float32, the largest magnitude of each term's values, -1 until a search needs it.

    >>> matrix = csr_array(np.array([[1, 0, 2], [0, 0, 3]], dtype=np.float32))
    >>> postings = Postings.from_vectors(SparseVectors(matrix, Vocabulary(["wing", "lift", "flow"])))
    >>> postings.terms, postings.rows.tolist(), postings.lengths.tolist()
    (('wing', 'flow'), [0, 0, 1], [3.0, 3.0])
    """

    def __init__(
        self,
        indptr: NDArray[np.int64],
        rows: NDArray[np.int32],
        values: NDArray[np.float32],
        lengths: NDArray[np.float32],
        terms: Vocabulary | tuple[NDArray[np.uint8], NDArray[np.int64]],
    ) -> None:
        self.indptr = _read_only(indptr)
        self.rows = _read_only(rows)
        self.values = _read_only(values)
        self.lengths = _read_only(lengths)
        self.peaks = _unknown(len(indptr) - 1)
        self._terms = terms

    @classmethod
    def from_vectors(cls, vectors: SparseVectors) -> Postings:
        """Transpose; columns without a value other than 0 are dropped."""
        matrix = vectors.matrix
        vocabulary = vectors.vocabulary
        data = matrix.data.astype(np.float32, copy=False)
        counts = kernels.count_columns(matrix.indices, data, len(vocabulary))
        ends = np.cumsum(counts)
        rows, values = _empty(int(ends[-1]) if len(ends) else 0)
        lengths = np.empty(len(vectors), dtype=np.float32)
        kernels.transpose(matrix.indptr, matrix.indices, data, ends - counts, rows, values, lengths)
        present = np.flatnonzero(counts)
        if len(present) < len(vocabulary):
            vocabulary = Vocabulary([vocabulary.terms[column] for column in present.tolist()])
        return cls(_starts(counts[present]), rows, values, lengths, vocabulary)

    @classmethod
    def merge(cls, parts: Sequence[tuple[Postings, NDArray[np.bool_] | None]]) -> Postings:
        """Put indices one after the other, each with a mask of the documents to keep (None keeps all).

        The kept documents are numbered from 0 in the order of `parts`. Needs memory for the result and little more.
        """
        union: dict[str, int] = {}
        targets = [
            np.fromiter((union.setdefault(term, len(union)) for term in part.terms), np.int64, len(part.terms))
            for part, _ in parts
        ]
        renumbered = []
        documents = 0
        for part, keep in parts:
            kept = np.ones(part.documents, dtype=np.bool_) if keep is None else keep
            numbers = np.cumsum(kept, dtype=np.int32) + np.int32(documents - 1)
            numbers[~kept] = -1
            renumbered.append(numbers)
            documents += int(np.count_nonzero(kept))
        counts = np.zeros(len(union), dtype=np.int64)
        for (part, _), numbers, target in zip(parts, renumbered, targets, strict=True):
            kernels.count_kept(part.indptr, part.rows, numbers, target, counts)
        rows, values = _empty(int(counts.sum()))
        heads = np.cumsum(counts) - counts
        for (part, _), numbers, target in zip(parts, renumbered, targets, strict=True):
            kernels.append_kept(part.indptr, part.rows, part.values, numbers, target, heads, rows, values)
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
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Postings:
        """The inverse of `arrays`, without copying, for instance over memory-mapped files."""
        terms = (arrays["terms"], arrays["term_starts"])
        return cls(arrays["indptr"], arrays["rows"], arrays["values"], arrays["lengths"], terms)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays to save; the terms as `terms` (UTF-8 bytes) and `term_starts` (terms + 1)."""
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
        """The terms that have a posting, by column; decoded on first use."""
        if isinstance(self._terms, Vocabulary):
            return self._terms
        blob, starts = self._terms
        raw, bounds = blob.tobytes(), starts.tolist()
        return Vocabulary([raw[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(bounds)])

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that have a posting, by column."""
        return self.vocabulary.terms

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays; the terms once decoded are not counted."""
        return sum(array.nbytes for array in (self.indptr, self.rows, self.values, self.lengths))

    def columns(self, terms: Iterable[str]) -> NDArray[np.int64]:
        """The column of each term, -1 for one that no document has."""
        column = self.vocabulary.index.get
        return np.array([column(term, -1) for term in terms], dtype=np.int64)

    def document_frequency(self, terms: Sequence[str], live: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """How many documents have each term, those only that are `live`. Without `live` it costs next to nothing."""
        columns = self.columns(terms)
        if live is not None:
            return kernels.count_live(self.indptr, self.rows, columns, _read_only(live))
        known = np.maximum(columns, 0)
        if not len(self.rows):
            return np.zeros(len(columns), dtype=np.int64)
        return np.where(columns >= 0, self.indptr[known + 1] - self.indptr[known], 0)

    def to_vectors(self, rows: NDArray[np.integer] | None = None) -> SparseVectors:
        """The documents as CSR rows, or only `rows` in that order, over a vocabulary of the terms that they have."""
        if rows is None:
            first, last = 0, self.documents
            wanted = slots = np.arange(self.documents, dtype=np.int32)
        else:
            wanted = np.unique(rows)
            first, last = (int(wanted[0]), int(wanted[-1]) + 1) if len(wanted) else (0, 0)
            slots = np.full(last - first, -1, dtype=np.int32)
            slots[wanted - first] = np.arange(len(wanted), dtype=np.int32)
        in_column = np.zeros(len(self.indptr) - 1, dtype=np.int64)
        in_slot = np.zeros(len(wanted), dtype=np.int64)
        kernels.count_rows(self.indptr, self.rows, slots, first, last, in_column, in_slot)
        indptr = _starts(in_slot)
        indices, values = _empty(int(indptr[-1]))
        renamed = (np.cumsum(in_column > 0) - 1).astype(np.int32)
        kernels.take_rows(
            self.indptr, self.rows, self.values, slots, first, last, renamed, indptr[:-1].copy(), indices, values
        )
        vocabulary = Vocabulary([self.terms[column] for column in np.flatnonzero(in_column).tolist()])
        matrix = csr_array((values, indices, indptr), shape=(len(wanted), len(vocabulary)))
        if rows is not None and not np.array_equal(rows, wanted):
            matrix = matrix[np.searchsorted(wanted, rows)]
        return SparseVectors(matrix, vocabulary)


class Weighting(Protocol):
    """What turns term frequencies into values, such as `hybridsearch.weighting.BM25Weighting`."""

    def idf(self, document_frequency: NDArray[np.int64], documents: int) -> NDArray[np.float64]:
        """The factor of each query term, for frequencies from 1 to `documents`."""
        ...

    def term_weights(
        self, frequency: NDArray[np.float32], length: NDArray[np.float32], average_length: float
    ) -> NDArray[np.float32]:
        """The value of each posting, elementwise."""
        ...


class TermStatistics:
    """What a lexical score needs to know about the whole collection, for one state of it.

    The idf of a term is worked out when it is first asked for, and remembered.

    Attributes:
        weighting: whose idf it is.
        documents: how many are live.
        average_length: of those, in tokens; 0 without any.
    """

    def __init__(self, parts: Sequence[tuple[Postings, NDArray[np.bool_] | None]], weighting: Weighting) -> None:
        """`parts` are the indices of all segments, each with a mask of its live documents (None: all)."""
        self._parts = parts
        self.weighting = weighting
        self._idf: dict[str, float] = {}
        lengths = [postings.lengths if live is None else postings.lengths[live] for postings, live in parts]
        self.documents = sum(map(len, lengths))
        tokens = sum(float(own.sum(dtype=np.float64)) for own in lengths)
        self.average_length = tokens / self.documents if self.documents else 0.0

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The idf of each term, 0 for one that no live document has."""
        known = self._idf
        for term in terms:
            if term not in known:
                self._learn([term for term in terms if term not in known])
                break
        return [known.get(term, 0.0) for term in terms]

    def weigh(self, query: SparseQuery) -> SparseQuery:
        """The query with each weight, a count, multiplied by the term's idf."""
        return SparseQuery(query.terms, (np.array(self.idf(query.terms)) * query.weights).astype(np.float32))

    def _learn(self, terms: Sequence[str]) -> None:
        """Remember the idf of those terms that some document has: what people mistype has no end."""
        terms = [term for term in terms if any(term in postings.vocabulary.index for postings, _ in self._parts)]
        if not terms:
            return
        frequency = np.zeros(len(terms), dtype=np.int64)
        for postings, live in self._parts:
            frequency += postings.document_frequency(terms, live)
        idf = self.weighting.idf(np.maximum(frequency, 1), self.documents)
        self._idf.update(zip(terms, np.where(frequency > 0, idf, 0.0).tolist(), strict=True))


class LexicalWeights:
    """The values of lexical postings for a given average document length, worked out term by term when first asked for.

    The average changes with every document that comes or goes, but few of the terms are ever searched before it changes
    again. Each value depends on its own frequency and length and on the average alone, so scores equal a fresh index's.
    Threads may share one object: two that fill the same term write the same values.
    """

    _CHUNK = 1 << 22
    """Postings weighted at a time, which bounds the memory needed."""

    def __init__(self, postings: Postings, weighting: Weighting, average_length: float) -> None:
        self._postings = postings
        self._weighting = weighting
        self._average_length = average_length
        self._values = np.empty(len(postings.values), dtype=np.float32)
        self._fresh: set[str] = set()
        self.values = _read_only(self._values)
        """(postings,) float32, parallel to `Postings.values`; valid for the terms given to `ensure`."""
        self.peaks = _unknown(len(postings.peaks))
        """As `Postings.peaks`, of these values."""

    def ensure(self, terms: Iterable[str]) -> None:
        """Make `values` valid for these terms; unknown ones are ignored."""
        index = self._postings.vocabulary.index
        columns = {term: index[term] for term in terms if term not in self._fresh and term in index}
        if not columns:
            return
        wanted = np.array(sorted(columns.values()), dtype=np.int64)
        sizes = self._postings.indptr[wanted + 1] - self._postings.indptr[wanted]
        chunk = (np.cumsum(sizes) - sizes) // self._CHUNK
        for part in np.split(wanted, np.flatnonzero(np.diff(chunk)) + 1):
            self._fill(part)
        self._fresh.update(columns)

    def _fill(self, columns: NDArray[np.int64]) -> None:
        postings = self._postings
        count = kernels.count_postings(postings.indptr, columns)
        frequency, length = np.empty((2, count), dtype=np.float32)
        kernels.gather_columns(
            postings.indptr, postings.rows, postings.values, postings.lengths, columns, frequency, length
        )
        weights = self._weighting.term_weights(frequency, length, self._average_length)
        kernels.scatter_columns(postings.indptr, columns, weights, self._values)


@dataclass(frozen=True, slots=True, eq=False)
class SparseSlice:
    """One segment as a search sees it.

    Attributes:
        postings: the segment's index.
        order: (documents,) int32, the rank of each document's id within the segment; it decides between equal scores.
        allowed: (documents,) bool, the documents that may be hits (live and passing the filter); None for all.
        weights: to be used instead of `postings.values`, valid for the query's terms; None for those.
    """

    postings: Postings
    order: NDArray[np.int32]
    allowed: NDArray[np.bool_] | None = None
    weights: LexicalWeights | None = None

    @property
    def values(self) -> NDArray[np.float32]:
        return self.postings.values if self.weights is None else self.weights.values

    @property
    def peaks(self) -> NDArray[np.float32]:
        return self.postings.peaks if self.weights is None else self.weights.peaks


def search(
    slices: Sequence[SparseSlice],
    queries: Sequence[SparseQuery],
    k: int,
    *,
    statistics: TermStatistics | None = None,
    threads: int | None = None,
) -> list[list[Hits]]:
    """The best `k` documents of every slice for every query, exactly. Safe to call from many threads at once.

    A hit has a score above 0. The score is the sum of query weight times value, in float32, in the order of the query's
    terms. Hits are in descending order of score; equal scores are ordered by `SparseSlice.order`, also at the cut.

    Args:
        slices: the segments.
        queries: may have terms that no document has; a negative weight counts against a document.
        k: how many hits a slice may have; more than it has documents is fine.
        statistics: where query weights are counts, to be multiplied by the idf of their terms (as its `weigh` does).
        threads: at most so many work on this call, where there is enough to do; None for one a core.

    Returns:
        For each query, for each slice, the rows and scores of at most `k` hits.

    Raises:
        InvalidArgumentError: `k` is below 1.
    """
    if k < 1:
        raise InvalidArgumentError(f"The number of hits must be at least 1, not {k}.")
    batch = _Batch(queries, statistics)
    walks = [_Walk(slice, batch, min(k, slice.postings.documents)) for slice in slices]
    threads = threads or WORKERS
    work = [0]
    if threads > 1 and sum(len(slice.postings.rows) for slice in slices) > _WORTH_SHARING:
        work = [walk.postings() for walk in walks]
    if (total := sum(work)) > _WORTH_SHARING:
        run([task for walk, own in zip(walks, work, strict=True) for task in walk.share(own, threads * own / total)])
    else:
        for walk in walks:
            walk.whole()
    if len(walks) == 1:
        return [[hits] for hits in walks[0].hits()]
    found = [walk.hits() for walk in walks]
    return [[hits[query] for hits in found] for query in range(len(queries))]


def explain(slice: SparseSlice, query: SparseQuery, rows: Iterable[int]) -> list[dict[str, float]]:
    """For each of `rows`, what every matching query term adds to its score, by term, in the order of the query.

    The float32 sum of a row's contributions, in order, is its score.
    """
    postings = slice.postings
    wanted = np.fromiter(rows, np.int64)
    explained: list[dict[str, float]] = [{} for _ in wanted]
    columns = postings.columns(query.terms)
    for term, column, weight in zip(query.terms, columns.tolist(), query.weights, strict=True):
        if column < 0 or weight == 0:
            continue
        begin, end = postings.indptr[column : column + 2].tolist()
        positions = begin + np.searchsorted(postings.rows[begin:end], wanted)
        for contributions, row, position in zip(explained, wanted.tolist(), positions.tolist(), strict=True):
            if position < end and postings.rows[position] == row:
                contributions[term] = float(np.float32(weight) * slice.values[position])
    return explained


_WORTH_SHARING = 200_000
"""Postings (about 0.1 ms of work) from which handing some to another thread pays."""

_HEAD_START = 70_000
"""Postings that a thread walks while another one wakes up."""

_ALL_ALLOWED = np.empty(0, dtype=np.bool_)
_ALL_ALLOWED.flags.writeable = False


class _Batch:
    """Queries as flat arrays; the terms of query q are those of [starts[q], starts[q + 1])."""

    __slots__ = ("queries", "starts", "terms", "weights")

    def __init__(self, queries: Sequence[SparseQuery], statistics: TermStatistics | None) -> None:
        self.queries = len(queries)
        self.terms = [term for query in queries for term in query.terms]
        weights = [weight for query in queries for weight in query.weights.tolist()]
        if statistics is not None:
            weights = list(map(mul, weights, statistics.idf(self.terms)))
        self.weights = np.array(weights, dtype=np.float32)
        self.starts = np.array([0, *accumulate([len(query.terms) for query in queries])], dtype=np.int64)


class _Walk:
    """The search of one slice: the arguments of the kernel, and the pieces that its results come in."""

    __slots__ = ("_batch", "_columns", "_k", "_pieces", "_shared", "_slice")

    def __init__(self, slice: SparseSlice, batch: _Batch, k: int) -> None:
        column = slice.postings.vocabulary.index.get
        self._slice = slice
        self._batch = batch
        self._columns = np.array([column(term, -1) for term in batch.terms], dtype=np.int64)
        self._k = k
        self._shared = np.zeros(batch.queries, dtype=np.float32)
        self._pieces: list[_Piece] = []

    def postings(self) -> int:
        """How many this walk has before it."""
        return kernels.count_postings(self._slice.postings.indptr, self._columns)

    def whole(self) -> None:
        """Do it."""
        self._walk(self._new_piece(), 0, self._batch.queries, 0, self._slice.postings.documents)

    def share(self, postings: int, threads: float) -> list[Callable[[], None]]:
        """Calls that do it together, for so many threads: each takes some queries, or some documents.

        The first is the caller's, who is at work while the others are still being woken up.
        """
        queries, documents, parts = self._batch.queries, self._slice.postings.documents, max(1, round(threads))
        if queries < 4 * parts:
            others = max(0, postings - _HEAD_START) / max(1, postings) / parts
            cuts = [0, *(documents - int(documents * others * part) for part in reversed(range(parts)))]
            return [partial(self._walk, self._new_piece(), 0, queries, a, b) for a, b in pairwise(cuts)]
        piece = self._new_piece()
        cuts = [queries * part // (4 * parts) for part in range(4 * parts + 1)]
        return [partial(self._walk, piece, a, b, 0, documents) for a, b in pairwise(cuts)]

    def hits(self) -> list[Hits]:
        """The hits of each query, once the walk is done."""
        found = [
            [
                (of_query[:n], of_scores[:n])
                for of_query, of_scores, n in zip(rows, scores, counts.tolist(), strict=True)
            ]
            for rows, scores, counts in self._pieces
        ]
        if len(found) == 1:
            return found[0]
        return [self._best(of_query) for of_query in zip(*found, strict=True)]

    def _best(self, found: Sequence[Hits]) -> Hits:
        rows = np.concatenate([rows for rows, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        best = np.lexsort((self._slice.order[rows], -scores))[: self._k]
        return rows[best], scores[best]

    def _new_piece(self) -> _Piece:
        shape = (self._batch.queries, self._k)
        self._pieces.append((np.empty(shape, np.int32), np.empty(shape, np.float32), np.zeros(shape[0], np.int64)))
        return self._pieces[-1]

    def _walk(self, piece: _Piece, first_query: int, last_query: int, first: int, last: int) -> None:
        """Search documents [first, last) for some of the queries."""
        slice, postings = self._slice, self._slice.postings
        rows, scores, counts = piece
        if first < last:
            kernels.top_k(
                postings.indptr,
                postings.rows,
                _read_only(slice.values),
                slice.peaks,
                self._columns,
                self._batch.weights,
                self._batch.starts,
                _read_only(slice.order),
                _read_only(_ALL_ALLOWED if slice.allowed is None else slice.allowed),
                first_query,
                last_query,
                first,
                last,
                self._k,
                self._shared,
                rows,
                scores,
                counts,
            )


_Piece: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]
"""For every query rows and scores, of shape (queries, k), and how many of the k there are."""


def _read_only(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """A plain read-only view, so that the kernels are compiled for one kind of array only."""
    if type(array) is np.ndarray and not array.flags.writeable:
        return array
    view: NDArray[Scalar] = array.view(np.ndarray)
    view.flags.writeable = False
    return view


def _empty(postings: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.empty(postings, dtype=np.int32), np.empty(postings, dtype=np.float32)


def _unknown(terms: int) -> NDArray[np.float32]:
    """Peaks that are not known yet. Threads that find one at the same time write the same number."""
    return np.full(terms, -1, dtype=np.float32)


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 and the running sums of `counts`."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
