"""Exact search over the postings of some segments.

`search` walks the postings of the query's terms only, with the top k as part of the walk (see `loops`). Its scores
are float32 sums in the order of the query's terms, so that they do not depend on batches, threads or how documents are
spread over segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from operator import mul
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import loops
from hybridsearch.adapters.memory.postings import LexicalWeights, Postings, TermStatistics, read_only
from hybridsearch.adapters.memory.threads import WORKERS, run
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import SparseQuery

Hits: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Rows and scores, best first."""


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
    """The search of one slice: the arguments of the loop, and the pieces that its results come in."""

    __slots__ = ("_batch", "_columns", "_k", "_pieces", "_shared", "_slice")

    def __init__(self, slice: SparseSlice, batch: _Batch, k: int) -> None:
        self._slice, self._batch, self._k = slice, batch, k
        self._columns = slice.postings.columns(batch.terms)
        self._shared = np.zeros(batch.queries, dtype=np.float32)
        self._pieces: list[_Piece] = []

    def postings(self) -> int:
        """How many this walk has before it."""
        known = self._columns[self._columns >= 0]
        indptr = self._slice.postings.indptr
        return int((indptr[known + 1] - indptr[known]).sum())

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
            loops.top_k(
                postings.indptr,
                postings.rows,
                read_only(slice.values),
                slice.peaks,
                self._columns,
                self._batch.weights,
                self._batch.starts,
                read_only(slice.order),
                read_only(_ALL_ALLOWED if slice.allowed is None else slice.allowed),
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
