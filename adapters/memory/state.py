"""The content of an index at one moment, and all ways to read it.

A `State` never changes: a writer makes a new one. So a reader never sees half of a change, and never waits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.checks import (
    check_explained,
    dense_query,
    hits_of,
    lexical_retriever,
    multi_query,
    retriever_of,
    sparse_query,
)
from hybridsearch.adapters.memory import sparse
from hybridsearch.adapters.memory.multi_vectors import TokenQuery
from hybridsearch.adapters.memory.passages import Lazy, best_passages, find_documents, spans_of
from hybridsearch.adapters.memory.postings import LexicalWeights, TermStatistics
from hybridsearch.adapters.memory.segment import Mask, Segment, hash_ids
from hybridsearch.adapters.memory.sparse import SparseSlice
from hybridsearch.backends import Request, RetrieverSchema, Schema
from hybridsearch.corpus.manifest import Part
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.listing import Key, Order, in_order
from hybridsearch.ranking import EMPTY, PassageScore, Ranking
from hybridsearch.vectors import EncodedBatch, PassageSpans, concat, take
from hybridsearch.weighting import BM25Weighting

_REMEMBERED_FILTERS = 1000

_BITS = 32
"""Number of bits of the row in the key of a document. The bits above are the number of the view."""

_ROWS = (1 << _BITS) - 1
_NO_KEYS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class View:
    """A segment without its deleted documents.

    Attributes:
        segment: The whole segment.
        live: Mask that is False for deleted documents, shape (rows,). None if no document was deleted.
        part: The part of the folder that stores the segment. None for a segment in RAM.
    """

    segment: Segment
    live: Mask | None = None
    part: Part | None = None

    @cached_property
    def documents(self) -> int:
        """The number of documents that are not deleted."""
        return len(self.segment) if self.live is None else int(np.count_nonzero(self.live))

    def without(self, rows: Sequence[int]) -> View:
        """The view without the documents in `rows`."""
        if not rows:
            return self
        live = np.ones(len(self.segment), dtype=np.bool_) if self.live is None else self.live.copy()
        live[list(rows)] = False
        return replace(self, live=live)

    def allowed(self, filter: Filter | None, name: str | None = None) -> Mask | None:
        """A mask of the documents that are not deleted and that `filter` lets through. None allows all rows.

        With `name` it is over the rows of this retriever's index: these documents, or their passages.
        """
        live = self._live_passages if name is not None and name in self.segment.reading else self.live
        if filter is None:
            return live
        mask = self.segment.mask(filter, name)
        return mask if live is None else mask & live

    @cached_property
    def _live_passages(self) -> Mask | None:
        """Mask that is False for the passages of deleted documents. None if no document was deleted."""
        return None if self.live is None else np.repeat(self.live, self.segment.counts)

    def rows(self, filter: Filter | None) -> NDArray[np.int64]:
        """The numbers of these documents."""
        mask = self.allowed(filter)
        return np.arange(len(self.segment)) if mask is None else np.flatnonzero(mask)


class State:
    """The content of an index at one moment.

    Attributes:
        schema: Schema of the index.
        views: Segments of the index. No document is in two of them.
        approximate: Whether dense search may use graphs.
        compared: Number of documents whose token vectors are compared with a query. None for all.
        documents: Number of documents.
    """

    def __init__(
        self, schema: Schema, views: Iterable[View] = (), *, approximate: bool = False, compared: int | None = None
    ) -> None:
        self.schema = schema
        self.views = tuple(views)
        self.approximate, self.compared = approximate, compared
        self.documents = sum(view.documents for view in self.views)
        self._statistics: dict[str, TermStatistics] = {}
        self._all_slices: dict[str, list[SparseSlice]] = {}
        self._checked: set[Filter] = set()

    def find(self, ids: Sequence[str]) -> list[tuple[int, int, int]]:
        """The position in `ids`, the number of the view and the row of every document with one of the ids."""
        hashes = hash_ids(ids)
        return [
            (position, number, row)
            for number, view in enumerate(self.views)
            for position, row in view.segment.find(ids, hashes)
            if view.live is None or view.live[row]
        ]

    def fetch_vectors(self, ids: Sequence[str], retriever: str) -> EncodedBatch:
        """The documents with the vectors of one retriever, in the order of `ids`. Unknown ids are left out."""
        reads_passages = retriever_of(self.schema, retriever).passages
        rows: dict[int, list[int]] = {}
        positions: list[int] = []
        for position, number, row in self.find(ids):
            rows.setdefault(number, []).append(row)
            positions.append(position)
        if not rows:
            return EncodedBatch([], {}, None if self.schema.passages is None else PassageSpans.of([]))
        batches = [self.views[number].segment.encoded(of_view, retriever) for number, of_view in rows.items()]
        documents = [document for batch in batches for document in batch.documents]
        vectors = concat([batch.vectors[retriever] for batch in batches])
        spans = [batch.passages for batch in batches if batch.passages is not None]
        joined = PassageSpans.concat(spans) if spans else None
        order = np.argsort(positions, kind="stable")
        places = order if joined is None or not reads_passages else joined.rows(order)
        return EncodedBatch(
            [documents[place] for place in order.tolist()],
            {retriever: take(vectors, places.tolist())},
            None if joined is None else joined.take(order),
        )

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        documents: list[Document | None] = [None] * len(ids)
        for position, number, row in self.find(ids):
            documents[position] = self.views[number].segment.document(row)
        return documents

    def count(self, filter: Filter | None) -> int:
        if filter is None:
            return self.documents
        self._check(filter)
        masks = [view.allowed(filter) for view in self.views]
        return sum(int(np.count_nonzero(mask)) for mask in masks if mask is not None)

    def keys(self, filter: Filter | None, order: Order, after: Key | None, limit: int | None) -> Iterator[Key]:
        """The places of documents in an order (see `Selector.list_documents`), made without reading texts."""
        if filter is not None:
            self._check(filter)
        if order.by_id:
            ids = [
                view.segment.sorted_ids(view.rows(filter), None if after is None else after[1]) for view in self.views
            ]
            return islice(((b"", id) for id in heapq.merge(*ids)), limit)
        keys = (key for view in self.views for key in view.segment.keys(view.rows(filter), order))
        return in_order(keys, after, limit)

    def scan(self, batch_size: int) -> Iterator[EncodedBatch]:
        for view in self.views:
            yield from view.segment.batches(view.live, batch_size)

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests. Requests that differ only in the query are answered together."""
        if len(requests) == 1:
            return self._answer(requests)
        groups: dict[tuple[str, int, int, int, bool], list[int]] = {}
        for position, request in enumerate(requests):
            key = (request.retriever, request.k, id(request.filter), request.passages, request.exact)
            groups.setdefault(key, []).append(position)
        rankings = [EMPTY] * len(requests)
        for positions in groups.values():
            for position, ranking in zip(positions, self._answer([requests[p] for p in positions]), strict=True):
                rankings[position] = ranking
        return rankings

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        name, retriever = request.retriever, retriever_of(self.schema, request.retriever)
        check_explained(request, retriever)
        query = sparse_query(request, retriever)
        statistics = self._lexical(name, retriever)
        if statistics is not None:
            query = statistics.weigh(query)
        explained: list[dict[str, float]] = [{} for _ in ids]
        slices = self._slices(name, retriever, None)
        for position, number, row in self.find(ids):
            rows = self.views[number].segment.rows_of(name, np.array([row]))
            if len(rows) > 1:
                rows = rows[[sparse.score(slices[number], query, rows).argmax()]]
            explained[position] = sparse.explain(slices[number], query, rows)[0]
        return explained

    def document_frequencies(self, name: str, terms: Sequence[str]) -> tuple[list[int], int]:
        statistics = self._statistics_of(name, lexical_retriever(self.schema, name))
        return statistics.frequencies(terms).tolist(), statistics.documents

    def _answer(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer requests that differ only in the query."""
        name, filter = requests[0].retriever, requests[0].filter
        retriever, k = retriever_of(self.schema, name), hits_of(requests[0])
        if filter is not None:
            self._check(filter)
        found: Sequence[Sequence[tuple[NDArray[np.int32], NDArray[Any]]]]
        if retriever.kind == "dense":
            vectors = np.stack([dense_query(request, retriever) for request in requests])
            found = self._search_dense(name, vectors, k, filter, exact=requests[0].exact)
        elif retriever.kind == "multi_vector":
            asked = [TokenQuery.of(multi_query(request, retriever)) for request in requests]
            found = self._search_tokens(name, asked, k, filter, exact=requests[0].exact)
        else:
            queries = [sparse_query(request, retriever) for request in requests]
            found = sparse.search(self._slices(name, retriever, filter), queries, k)
        rankings = [self._ranking(name, hits, k) for hits in found]
        if retriever.passages and requests[0].passages:
            return [self.listed(ranking, request) for ranking, request in zip(rankings, requests, strict=True)]
        return rankings

    def listed(self, ranking: Ranking, request: Request) -> Ranking:
        """The ranking with its documents and their best passages."""
        places: dict[str, tuple[int, int]] = {}
        located = ranking.located
        score = cache(lambda: self._scorer(request))

        def place(id: str) -> tuple[Segment, int, int]:
            if not places and located is not None:
                keys = located[1].tolist()
                places.update(zip(ranking.ids, ((key >> _BITS, key & _ROWS) for key in keys), strict=True))
            elif not places:
                places.update((ranking.ids[at], (number, row)) for at, number, row in self.find(ranking.ids))
            number, row = places[id]
            return self.views[number].segment, number, row

        def document(id: str) -> Document:
            segment, _, row = place(id)
            return segment.document(row)

        def passages(id: str) -> Sequence[PassageScore]:
            segment, number, row = place(id)
            return best_passages(spans_of(segment), row, partial(score(), number), request.passages)

        return replace(ranking, documents=Lazy(ranking.ids, document), passages=Lazy(ranking.ids, passages))

    def _scorer(self, request: Request) -> Callable[[int, NDArray[np.int64]], NDArray[np.float64]]:
        """A function from the number of a view and ascending rows to scores. A row that is no hit has -inf."""
        name, retriever = request.retriever, retriever_of(self.schema, request.retriever)
        if retriever.kind == "dense":
            vector = dense_query(request, retriever)

            def dense_scores(number: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
                index = self.views[number].segment.matrix(name)
                return np.where(index.norms[rows] > 0, index.score(vector, rows), -np.inf)

            return dense_scores
        if retriever.kind == "multi_vector":
            asked = TokenQuery.of(multi_query(request, retriever))
            return lambda number, rows: self.views[number].segment.token_matrix(name).score(asked, rows)
        query, statistics = sparse_query(request, retriever), self._lexical(name, retriever)
        slices = self._slices(name, retriever, None)
        weighed = query if statistics is None else statistics.weigh(query)

        def sparse_scores(number: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
            scores = sparse.score(slices[number], weighed, rows).astype(np.float64)
            return np.where(scores > 0, scores, -np.inf)

        return sparse_scores

    def _check(self, filter: Filter) -> None:
        """Raises FilterError if the filter cannot be answered: see `Filter.checks`."""
        if filter in self._checked:
            return
        for check in filter.checks():
            masks = [view.allowed(Filter(check.condition)) for view in self.views]
            if any(mask is not None and mask.any() for mask in masks) is not check.some:
                raise FilterError(check.error)
        if len(self._checked) >= _REMEMBERED_FILTERS:
            self._checked.clear()
        self._checked.add(filter)

    def _search_dense(
        self, name: str, queries: NDArray[np.float32], k: int, filter: Filter | None, *, exact: bool
    ) -> list[list[tuple[NDArray[np.int32], NDArray[np.float64]]]]:
        columns = []
        for view in self.views:
            segment, index = view.segment, view.segment.matrix(name)
            order, allowed = segment.order_of_rows(name), view.allowed(filter, name)
            approximate = self.approximate and not exact and filter is None and index.graph is not None
            if name not in segment.reading:
                search = index.search_graph if approximate else index.search
                columns.append(search(queries, k, order, allowed))
            elif approximate:
                columns.append([self._search_graph(segment, name, query, allowed, k) for query in queries])
            else:
                columns.append(index.search(queries, k, order, allowed, segment.owners))
        return [[column[query] for column in columns] for query in range(len(queries))]

    def _search_tokens(
        self, name: str, queries: Sequence[TokenQuery], k: int, filter: Filter | None, *, exact: bool
    ) -> list[list[tuple[NDArray[np.int32], NDArray[np.float64]]]]:
        allowed = [view.allowed(filter, name) for view in self.views]
        found = []
        for query, rows in zip(queries, self._compared(name, queries, k, allowed, exact=exact), strict=True):
            of_query = []
            for view, of_view in zip(self.views, rows, strict=True):
                segment = view.segment
                owners = segment.owners if name in segment.reading else None
                of_query.append(segment.token_matrix(name).best(query, of_view, k, segment.order_of_rows(name), owners))
            found.append(of_query)
        return found

    def _compared(
        self, name: str, queries: Sequence[TokenQuery], k: int, allowed: Sequence[Mask | None], *, exact: bool
    ) -> list[list[NDArray[np.int64]]]:
        """The rows of each view whose token vectors are compared with each query, ascending.

        They are the rows of the documents with the nearest means in the whole index, so they do not depend on the
        segments. Those that are as near as the last are among them.
        """
        indices = [view.segment.token_matrix(name) for view in self.views]
        most = self.documents if exact or self.compared is None else max(self.compared, k)
        if most >= self.documents:
            every = [
                np.arange(len(index.longest)) if mask is None else np.flatnonzero(mask)
                for index, mask in zip(indices, allowed, strict=True)
            ]
            return [every] * len(queries)
        means = np.stack([query.mean for query in queries])
        columns = []
        for view, index, mask in zip(self.views, indices, allowed, strict=True):
            segment = view.segment
            owners = segment.owners if name in segment.reading else None
            columns.append(index.pooled.search(means, most, segment.order_of_rows(name), mask, owners))
        chosen = []
        for query in range(len(queries)):
            hits = [column[query] for column in columns]
            scores = np.concatenate([of_view for _, of_view in hits])
            least = np.partition(scores, len(scores) - most)[len(scores) - most] if len(scores) > most else -np.inf
            near = [rows[of_view >= least].astype(np.int64) for rows, of_view in hits]
            chosen.append(
                [
                    np.sort(
                        view.segment.rows_of(name, view.segment.owners[rows].astype(np.int64))
                        if name in view.segment.reading
                        else rows
                    )
                    for view, rows in zip(self.views, near, strict=True)
                ]
            )
        return chosen

    def _search_graph(
        self, segment: Segment, name: str, query: NDArray[np.float32], allowed: Mask | None, k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The best passages of the best `k` documents that a graph finds.

        All passages of these documents are scored, because the graph may miss the best.
        """
        index, order = segment.matrix(name), segment.order_of_rows(name)
        found = find_documents(
            lambda asked, among: index.search_graph(query[None], asked, order, among)[0][0], segment, allowed, k
        )
        rows = segment.rows_of(name, found)
        return index.best(query, rows[index.norms[rows] > 0], k, order, segment.owners)

    def _slices(self, name: str, retriever: RetrieverSchema, filter: Filter | None) -> list[SparseSlice]:
        if name not in self._all_slices:
            self._all_slices[name] = [self._slice(name, retriever, view) for view in self.views]
        slices = self._all_slices[name]
        if filter is None:
            return slices
        return [
            replace(slice, allowed=view.allowed(filter, name)) for slice, view in zip(slices, self.views, strict=True)
        ]

    def _slice(self, name: str, retriever: RetrieverSchema, view: View) -> SparseSlice:
        """All documents of a view that are not deleted."""
        segment, statistics = view.segment, self._lexical(name, retriever)
        postings = segment.postings(name)
        weights = None if statistics is None else LexicalWeights(postings, statistics)
        owners = segment.owners if name in segment.reading else None
        return SparseSlice(postings, segment.order_of_rows(name), view.allowed(None, name), weights, owners)

    def _lexical(self, name: str, retriever: RetrieverSchema) -> TermStatistics | None:
        """The statistics that BM25 needs. None for a retriever that is not lexical."""
        return self._statistics_of(name, retriever) if retriever.kind == "lexical" else None

    def _statistics_of(self, name: str, retriever: RetrieverSchema) -> TermStatistics:
        if name not in self._statistics:
            parts = [(view.segment.postings(name), view.allowed(None, name)) for view in self.views]
            self._statistics[name] = TermStatistics(parts, weighting_of(name, retriever))
        return self._statistics[name]

    def _ranking(self, name: str, hits: Sequence[tuple[NDArray[np.int32], NDArray[Any]]], k: int) -> Ranking:
        """The best `k` documents of the hits of all views. The hits of each view are in order."""
        hits = [
            (view.segment.owners[rows] if name in view.segment.reading else rows, scores)
            for view, (rows, scores) in zip(self.views, hits, strict=True)
        ]
        if len(hits) == 1:
            rows, scores = hits[0]
            return Ranking.lazy(self, rows.astype(np.int64), scores.astype(np.float64))
        keys = np.concatenate([_keys(number, rows) for number, (rows, _) in enumerate(hits)] or [_NO_KEYS])
        scores = np.concatenate([scores for _, scores in hits] or [_NO_KEYS]).astype(np.float64)
        if len(scores) > k:
            best = scores >= -np.partition(-scores, k - 1)[k - 1]
            keys, scores = keys[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        keys, scores = keys[order], scores[order]
        equal = scores[1:] == scores[:-1]
        if equal.any():
            tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
            by_id = sorted(zip((-scores[tied]).tolist(), self.ids_of(keys[tied].tolist()), tied.tolist(), strict=True))
            keys[tied] = keys[[place for _, _, place in by_id]]
        return Ranking.lazy(self, keys[:k], scores[:k])

    def ids_of(self, keys: Sequence[int]) -> list[str]:
        """The ids of documents of a lazy ranking. A key has the number of the view and the row."""
        if len(self.views) == 1:
            return self.views[0].segment.ids.at(keys)
        return [self.views[key >> _BITS].segment.ids[key & _ROWS] for key in keys]

    def documents_of(self, keys: Sequence[int], ids: Sequence[str]) -> list[Document]:
        """Documents of a lazy ranking. `ids` are their ids."""
        if len(self.views) == 1:
            return self.views[0].segment.documents(keys, ids)
        return [self.views[key >> _BITS].segment.document(key & _ROWS) for key in keys]


def _keys(number: int, rows: NDArray[np.int32]) -> NDArray[np.int64]:
    return rows.astype(np.int64) | (number << _BITS)


def weighting_of(name: str, retriever: RetrieverSchema) -> BM25Weighting:
    """The weighting of a lexical retriever. Raises InvalidArgumentError if its schema has no valid one."""
    try:
        return BM25Weighting(**(retriever.weighting or {}))
    except TypeError as error:
        raise InvalidArgumentError(f"The BM25 weighting of retriever {name!r} is not valid: {error}.") from error
