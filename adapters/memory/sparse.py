"""Exact lexical and sparse search over segments.

`search` reads only the postings of the query's terms, and finds the best k documents in the same pass (see `loops`).
Scores are float32 sums in the order of the query's terms. So they do not depend on batches, threads or segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import loops
from hybridsearch.adapters.memory.impacts import Impacts
from hybridsearch.adapters.memory.plain import first_of_each
from hybridsearch.adapters.memory.postings import LexicalWeights, Postings, read_only
from hybridsearch.adapters.memory.threads import WORKERS, run
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import SparseQuery

Hits: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Rows and scores, in descending order of score."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseSlice:
    """The data of one segment that a search needs.

    Attributes:
        postings: Inverted index of the segment.
        order: Rank of each document's id within the segment, int32 of shape (documents,). It orders equal scores.
        allowed: Mask of the documents that may be hits, shape (documents,): they are not deleted, and the filter lets
            them through. None allows all documents.
        weights: BM25 weights to use in place of `postings.values`. Weights of queries are then multiplied by idf. None
            for a retriever that is not lexical.
        owners: Document that each row is a passage of, ascending, int32 of the shape of `order`. A hit is then the best
            passage of its document. None if each row is a document.
    """

    postings: Postings
    order: NDArray[np.int32]
    allowed: NDArray[np.bool_] | None = None
    weights: LexicalWeights | None = None
    owners: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        for name in ("order", "allowed", "owners"):  # the loops take read-only arrays
            if (array := getattr(self, name)) is not None:
                object.__setattr__(self, name, read_only(array))

    @property
    def values(self) -> NDArray[np.float32]:
        return self.postings.values if self.weights is None else self.weights.values

    @property
    def impacts(self) -> Impacts:
        return self.postings.impacts if self.weights is None else self.weights.impacts

    @property
    def idf(self) -> NDArray[np.float64]:
        return _NO_IDF if self.weights is None else self.weights.idf

    def columns(self, terms: Sequence[str]) -> NDArray[np.int64]:
        """The column of each term, or -1. `values` and `idf` are valid for these columns from now on."""
        return self.postings.columns(terms) if self.weights is None else self.weights.columns(terms)


def search(
    slices: Sequence[SparseSlice],
    queries: Sequence[SparseQuery],
    k: int,
    *,
    threads: int | None = None,
) -> list[list[Hits]]:
    """The exact best `k` documents of every slice for every query. Many threads may call it at the same time.

    A hit has a score above 0. The score is the float32 sum of query weight times value, in the order of the query's
    terms. Hits are in descending order of score. Equal scores are ordered by `SparseSlice.order`, also at the cut.

    Args:
        slices: Segments to search.
        queries: Queries. Terms that no document has are ignored. A negative weight lowers the score of a document.
        k: Largest number of hits of a slice, at least 1.
        threads: Largest number of threads of this call. Default None: one for each core.

    Returns:
        The rows and scores of at most `k` hits, for each slice, for each query.

    Raises:
        InvalidArgumentError: `k` is below 1.
    """
    if k < 1:
        raise InvalidArgumentError(f"The number of hits must be at least 1, not {k}.")
    batch = _Batch(queries)
    walks = [_Walk(slice, batch, min(k, slice.postings.documents)) for slice in slices]
    threads = threads or WORKERS
    work = [0]
    if threads > 1 and len(batch.terms) * sum([slice.postings.longest for slice in slices]) > _WORTH_SHARING:
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
    """What each matched term adds to the score of each row, by term, in the order of the query.

    The query has its final weights. The float32 sum of the values of a row, in order, is its score.
    """
    postings = slice.postings
    wanted = np.fromiter(rows, np.int64)
    explained: list[dict[str, float]] = [{} for _ in wanted]
    columns = slice.columns(query.terms)
    asked = np.flatnonzero((columns >= 0) & (query.weights != 0))
    if not asked.size or not wanted.size or not postings.rows.size:
        return explained
    found, positions = _find(postings, columns[asked], wanted)
    weights = query.weights[asked].astype(np.float32)
    numbers, places = np.nonzero(found)
    parts = weights[numbers] * slice.values[positions[found]]
    for number, place, part in zip(asked[numbers].tolist(), places.tolist(), parts.tolist(), strict=True):
        explained[place][query.terms[number]] = part
    return explained


def _find(
    postings: Postings, columns: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each column has each row, and the place of the posting, by binary search in all columns at once.

    Both arrays have the shape (columns, rows).
    """
    shape = (len(columns), len(wanted))
    low = np.broadcast_to(postings.indptr[columns, None], shape)
    end = np.broadcast_to(postings.indptr[columns + 1, None], shape)
    high = end
    while (searched := low < high).any():
        middle = (low + high) // 2
        before = searched & (postings.rows[np.where(searched, middle, 0)] < wanted)
        low, high = np.where(before, middle + 1, low), np.where(searched & ~before, middle, high)
    inside = low < end
    return inside & (postings.rows[np.where(inside, low, 0)] == wanted), low


def score(slice: SparseSlice, query: SparseQuery, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores of some rows, which are ascending, as in `search`. The query has its final weights."""
    postings, columns = slice.postings, slice.columns(query.terms)
    return loops.score_rows(postings.indptr, postings.rows, slice.values, columns, query.weights, rows)


_WORTH_SHARING = 200_000
"""The number of postings (about 0.1 ms of work) from which several threads are faster than one."""

_HEAD_START = 70_000
"""The number of postings that a thread reads while another thread wakes up."""

_ALL_ALLOWED = np.empty(0, dtype=np.bool_)
_ALL_ALLOWED.flags.writeable = False
_NO_OWNERS = np.empty(0, dtype=np.int32)
_NO_OWNERS.flags.writeable = False
_NO_IDF = np.empty(0, dtype=np.float64)
_NO_WEIGHTS = np.empty(0, dtype=np.float32)


class _Batch:
    """Queries as flat arrays. The terms of query q are at [starts[q], starts[q + 1])."""

    __slots__ = ("queries", "starts", "terms", "weights")

    def __init__(self, queries: Sequence[SparseQuery]) -> None:
        self.queries = len(queries)
        if len(queries) == 1:
            self.terms: Sequence[str] = queries[0].terms
            self.weights = np.array(queries[0].weights, dtype=np.float32)
            self.starts = np.array((0, len(self.terms)), dtype=np.int64)
            return
        terms = [query.terms for query in queries]
        self.terms = list(chain.from_iterable(terms))
        self.weights = np.concatenate([_NO_WEIGHTS, *[query.weights for query in queries]], dtype=np.float32)
        self.starts = np.array(list(accumulate(map(len, terms), initial=0)), dtype=np.int64)


class _Walk:
    """The search of one slice: the arguments of the loop, and the pieces of its results."""

    __slots__ = ("_batch", "_coded", "_columns", "_k", "_pieces", "_shared", "_slice")

    def __init__(self, slice: SparseSlice, batch: _Batch, k: int) -> None:
        self._slice, self._batch, self._k = slice, batch, k
        self._columns = slice.columns(batch.terms)
        self._coded = loops.prepare(slice.impacts, self._columns, batch.queries)
        self._shared = np.zeros(batch.queries, dtype=np.int64)
        self._pieces: list[_Piece] = []

    def postings(self) -> int:
        """The number of postings that the search reads."""
        known = self._columns[self._columns >= 0]
        indptr = self._slice.postings.indptr
        return int((indptr[known + 1] - indptr[known]).sum())

    def whole(self) -> None:
        """Search the whole slice in this thread."""
        self._walk(self._new_piece(), 0, self._batch.queries, 0, self._slice.postings.documents)

    def share(self, postings: int, threads: float) -> list[Callable[[], None]]:
        """Calls that search the slice together, for this number of threads. Each takes some queries or some documents.

        The first call has more work than the others, because its thread starts first.
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
        """The hits of each query, after the search."""
        found = [
            [(rows[query, :n], scores[query, :n]) for query, n in enumerate(counts.tolist())]
            for rows, scores, counts in self._pieces
        ]
        if len(found) == 1:
            return found[0]
        return [self._best(of_query) for of_query in zip(*found, strict=True)]

    def _best(self, found: Sequence[Hits]) -> Hits:
        rows = np.concatenate([rows for rows, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        best = np.lexsort((self._slice.order[rows], -scores))
        if self._slice.owners is not None:  # the passages of a document may be in two pieces
            best = best[first_of_each(self._slice.owners[rows[best]])]
        return rows[best[: self._k]], scores[best[: self._k]]

    def _new_piece(self) -> _Piece:
        shape = (self._batch.queries, self._k)
        self._pieces.append((np.empty(shape, np.int32), np.empty(shape, np.float32), np.zeros(shape[0], np.int64)))
        return self._pieces[-1]

    def _walk(self, piece: _Piece, first_query: int, last_query: int, first: int, last: int) -> None:
        """Search documents [first, last) for some of the queries."""
        slice = self._slice
        rows, scores, counts = piece
        if first < last:
            loops.top_k(
                slice.impacts,
                self._coded,
                self._columns,
                self._batch.weights,
                slice.idf,
                self._batch.starts,
                slice.order,
                _ALL_ALLOWED if slice.allowed is None else slice.allowed,
                _NO_OWNERS if slice.owners is None else slice.owners,
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
"""Rows and scores, both of shape (queries, k), and the number of hits of each query."""
