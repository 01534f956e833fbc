"""Searches a collection of Qdrant.

Qdrant cannot sort ties by id. So if an answer ends within a tie, the search is repeated with a larger limit, until the
answer contains the whole tie. Hits come with their documents.

The embedded engine computes the scores of all dense vectors as one product of float32 matrices. There the scores of
equal vectors may differ in their last digits. So its candidates are scored again in float64, one by one, and equal
vectors get equal scores. A server scores each vector separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from hybridsearch.adapters.checks import check_explained, dense_query, hits_of, retriever_of, sparse_query
from hybridsearch.adapters.qdrant.connection import Steps, call
from hybridsearch.adapters.qdrant.filters import compile_filter
from hybridsearch.adapters.qdrant.index import Index
from hybridsearch.adapters.qdrant.payload import SHOWN, from_payload, point_id
from hybridsearch.adapters.qdrant.points import Terms, from_rows
from hybridsearch.backends import Kind, Request, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError, IndexNotFoundError
from hybridsearch.filters import Check, Filter
from hybridsearch.listing import Key, Order
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.vectors import DenseVectors, EncodedBatch, SparseQuery, Vectors
from hybridsearch.weighting import BM25Weighting

MAX_FETCH = 256
"""The largest number of documents that one request fetches."""

_KEYS = 1000  # documents whose sort fields one request reads

OVERSAMPLING = 3.0
"""The number of candidates of quantized vectors for one hit. They are scored again with the full vectors."""

_EMBEDDED_ERROR = 1e-5
"""The error of a dense score of the embedded engine, relative to the product of the lengths of the two vectors."""


@dataclass(frozen=True)
class Searcher:
    """Reads one collection.

    Attributes:
        collection: Name of the collection, or an alias.
        index: The index in the collection.
        terms: The numbers of the terms.
        embedded: Whether the engine is in this process.
        dense: How a server searches dense vectors.
    """

    collection: str
    index: Index
    terms: Terms
    embedded: bool
    dense: Literal["hnsw", "exact"]

    def search(self, requests: Sequence[Request]) -> Steps[list[Ranking]]:
        searches = [Search(request, retriever_of(self.index.schema, request.retriever)) for request in requests]
        for search in searches:
            search.again = self.embedded and search.retriever.kind == "dense"
        yield from self._weigh_queries(searches)
        waiting = [search for search in searches if search.vector is not None]
        if searches and not waiting:
            yield from self._check_index()
        checks = self._checks([request.filter for request in requests if request.filter is not None])
        while waiting:
            questions = [*(self._query(search) for search in waiting), *(self._look(check) for check in checks)]
            answers = yield call(self.collection, "query_batch_points", requests=questions)
            _check(checks, [len(answer.points) for answer in answers[len(waiting) :]])
            answers, checks = answers[: len(waiting)], []
            for search, answer in zip(waiting, answers, strict=True):
                search.take(answer.points)
            waiting = [search for search in waiting if search.cut_in_a_tie()]
        rankings = [search.ranking() for search in searches]
        documents = {id: document for search in searches for id, document in search.documents.items()}
        late = [
            (search, ids)
            for search, ranking in zip(searches, rankings, strict=True)
            if (ids := [id for id in ranking.ids if id not in documents])
        ]
        if late:
            answers = yield call(self.collection, "query_batch_points", requests=[self._query(*of) for of in late])
            for answer in answers:
                documents |= {point.payload["id"]: from_payload(point.payload) for point in answer.points}
        return [
            replace(ranking, documents={id: documents[id] for id in ranking.ids if id in documents})
            for ranking in rankings
        ]

    def _weigh_queries(self, searches: Sequence[Search]) -> Steps[None]:
        """Give each search the query vector that is sent to Qdrant. It is None if no document can match."""
        sparse = [search for search in searches if isinstance(search.request.query, SparseQuery)]
        numbers: dict[str, int] = {}
        if sparse:
            terms = dict.fromkeys(term for search in sparse for term in search.request.query.terms)  # type: ignore[union-attr]
            numbers = yield from self.terms.numbers(list(terms))
        idf = yield from self._count_terms(sparse, numbers)
        for search in searches:
            query = search.request.query
            if not isinstance(query, SparseQuery):
                array = np.asarray(query, dtype=np.float32)
                search.vector = array.tolist() if array.any() else None
                continue
            name = search.request.retriever
            weights = {
                term: weight * idf.get((name, term), 1.0)
                for term, weight in zip(query.terms, query.weights.tolist(), strict=True)
                if term in numbers and weight and idf.get((name, term), 1.0)
            }
            by_number = sorted((numbers[term], term, weight) for term, weight in weights.items())
            search.terms = [term for _, term, _ in by_number]
            if by_number:
                search.vector = models.SparseVector(
                    indices=[number for number, _, _ in by_number], values=[weight for _, _, weight in by_number]
                )

    def _count_terms(self, searches: Sequence[Search], numbers: dict[str, int]) -> Steps[dict[tuple[str, str], float]]:
        """The idf by retriever and term, for the retrievers for which Qdrant does not compute it."""
        retrievers = {
            (search.request.retriever, term): search.retriever
            for search in searches
            if search.retriever.kind == "lexical" and search.request.retriever not in self.index.idf
            for term in search.request.query.terms  # type: ignore[union-attr]
            if term in numbers
        }
        if not retrievers:
            return {}
        having = [
            models.FieldCondition(
                key=f"{self.index.counts_key(name)}.terms", match=models.MatchValue(value=numbers[term])
            )
            for name, term in retrievers
        ]
        filters = [None, *(models.Filter(must=[condition]) for condition in having)]
        counts = yield [call(self.collection, "count", count_filter=filter, exact=True) for filter in filters]
        documents, *with_term = (int(answer.count) for answer in counts)
        idf = {}
        for (key, retriever), n in zip(retrievers.items(), with_term, strict=True):
            weighting = BM25Weighting(**(retriever.weighting or {}))
            idf[key] = float(weighting.idf(np.array(min(n, documents)), documents)) if n else 0.0
        return idf

    def _check_index(self) -> Steps[None]:
        """Raises IndexNotFoundError if an alias means another index by now. It is called if no query is sent."""
        if self.collection != self.index.collection:
            info = yield call(self.collection, "get_collection")
            if Index.from_metadata(info.config.metadata, self.collection).mark != self.index.mark:
                raise IndexNotFoundError(
                    f"The alias {self.collection!r} was moved several times during a search: try again later."
                )

    def _checks(self, filters: Sequence[Filter]) -> list[Check]:
        if self.index.literal:
            return []
        distinct = {id(filter): filter for filter in filters}.values()
        return list(dict.fromkeys(check for filter in distinct for check in filter.checks()))

    def _look(self, check: Check) -> models.QueryRequest:
        """The question whether any document passes the check."""
        return models.QueryRequest(filter=compile_filter(Filter(check.condition)), limit=1, with_payload=False)

    def _query(self, search: Search, among: Sequence[str] = ()) -> models.QueryRequest:
        """The question for the best documents. With `among`, the question for the texts of these hits."""
        request = search.request
        filter = None if request.filter is None else self.compiled(request.filter)
        return models.QueryRequest(
            query=search.vector,
            using=self.index.vector(request.retriever),
            filter=_with_ids(among) if among else filter,
            limit=len(among) or search.limit,
            with_payload=SHOWN if among or search.limit == request.k + 1 else ["id"],
            with_vector=[self.index.vector(request.retriever)] if search.again and not among else False,
            params=self._params(search.retriever.kind, request.retriever),
        )

    def _params(self, kind: Kind, name: str) -> models.SearchParams | None:
        if self.embedded:  # it is exact, and its idf ignores deleted documents
            return None
        if kind == "dense":
            exact = self.dense == "exact"
            quantization = models.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=OVERSAMPLING)
            return models.SearchParams(exact=exact, quantization=quantization)
        if name in self.index.idf:
            return models.SearchParams(idf=models.IdfCorpusParams(corpus=models.Filter()))
        return None

    def count(self, filter: Filter | None) -> Steps[int]:
        compiled = None if filter is None else self.compiled(filter)
        if filter is not None and (checks := self._checks([filter])):
            looks = [self._look(check) for check in checks]
            answers = yield call(self.collection, "query_batch_points", requests=looks)
            _check(checks, [len(answer.points) for answer in answers])
        answer = yield call(self.collection, "count", count_filter=compiled, exact=True)
        return int(answer.count)

    def compiled(self, filter: Filter) -> models.Filter:
        """The conditions for the documents that the filter lets through. Its `checks` are not part of them."""
        return compile_filter(filter, literal=self.index.literal)

    def keys(self, filter: Filter | None, order: Order, offset: Any) -> Steps[tuple[list[Key], Any]]:
        """The places of documents in an order from `offset` on, and the offset of the next ones, as in `page`."""
        points, following = yield call(
            self.collection,
            "scroll",
            scroll_filter=None if filter is None else self.compiled(filter),
            limit=_KEYS,
            offset=offset,
            with_payload=["id"] if order.by_id else ["id", "document.title", "document.metadata"],
            with_vectors=False,
        )
        empty = {"text": "", "title": "", "metadata": "{}"}
        documents = [{"id": p.payload["id"], "document": empty | p.payload.get("document", {})} for p in points]
        return [order.key(from_payload(document)) for document in documents], following

    def fetch(self, ids: Sequence[str]) -> Steps[dict[str, Document]]:
        points = [point_id(id) for id in dict.fromkeys(ids)]
        documents: dict[str, Document] = {}
        for start in range(0, len(points), MAX_FETCH):
            found = yield call(self.collection, "retrieve", ids=points[start : start + MAX_FETCH], with_payload=SHOWN)
            documents |= {point.payload["id"]: from_payload(point.payload) for point in found}
        return documents

    def page(self, size: int, offset: Any) -> Steps[tuple[EncodedBatch, Any]]:
        """The documents with their vectors from `offset` on, and the offset of the next page.

        The first offset is None, and the offset after the last page is None.
        """
        whole = {"with_payload": True, "with_vectors": True}
        points, following = yield call(self.collection, "scroll", limit=size, offset=offset, **whole)
        rows: dict[str, list[tuple[list[int], list[float]]]] = {}
        dense: dict[str, NDArray[np.float32]] = {}
        for name, retriever in self.index.schema.retrievers.items():
            found = [(point.vector or {}).get(self.index.vector(name)) for point in points]
            if retriever.kind == "dense":
                dense[name] = np.zeros((len(points), retriever.dimensions or 0), dtype=np.float32)
                for row, vector in enumerate(found):
                    if vector is not None:
                        dense[name][row] = vector
            elif retriever.kind == "lexical":
                counts = [point.payload[self.index.counts_key(name)] for point in points]
                rows[name] = [(of["terms"], of["counts"]) for of in counts]
            else:
                rows[name] = [([], []) if vector is None else (vector.indices, vector.values) for vector in found]
        numbers = {number for of in rows.values() for indices, _ in of for number in indices}
        terms = yield from self.terms.names(sorted(numbers))
        vectors: dict[str, Vectors] = {name: from_rows(of, terms) for name, of in rows.items()}
        for name, array in dense.items():
            vectors[name] = DenseVectors(array, self.index.schema.retrievers[name].metric or "cosine")
        return EncodedBatch([from_payload(point.payload) for point in points], vectors), following

    def explain(self, request: Request, ids: Sequence[str]) -> Steps[dict[str, dict[str, float]]]:
        """What each term adds to the score of each document. It asks Qdrant for the scores of each term alone."""
        search = Search(request, retriever_of(self.index.schema, request.retriever))
        check_explained(request, search.retriever)
        yield from self._weigh_queries([search])
        if not isinstance(search.vector, models.SparseVector) or not ids:
            return {}
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=[number], values=[weight]),
                using=self.index.vector(request.retriever),
                filter=_with_ids(ids),
                limit=len(ids),
                with_payload=["id"],
                params=self._params(search.retriever.kind, request.retriever),
            )
            for number, weight in zip(search.vector.indices, search.vector.values, strict=True)
        ]
        answers = yield call(self.collection, "query_batch_points", requests=requests)
        found: dict[str, dict[str, float]] = {}
        for term, answer in zip(search.terms, answers, strict=True):
            for point in answer.points:
                found.setdefault(point.payload["id"], {})[term] = point.score
        return found


@dataclass(eq=False)
class Search:
    """One request that is being answered.

    Attributes:
        request: The request.
        retriever: Schema of its retriever.
        vector: Query vector that is sent to Qdrant. None if no document can match.
        terms: Terms of a sparse `vector`, in its order.
        limit: Number of documents that Qdrant is asked for.
        scores: Scores of the last answer, by document id.
        documents: Documents that came with the answers, by id.
        again: Whether the dense candidates are scored again here.
    """

    request: Request
    retriever: RetrieverSchema
    vector: list[float] | models.SparseVector | None = None
    terms: list[str] = field(default_factory=list)
    limit: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    again: bool = False
    _undecided: bool = False

    def __post_init__(self) -> None:
        self.limit = hits_of(self.request) + 1
        (dense_query if self.retriever.kind == "dense" else sparse_query)(self.request, self.retriever)

    def take(self, points: Sequence[models.ScoredPoint]) -> None:
        """Take Qdrant's answer to the question for `limit` documents."""
        sign = -1.0 if self.retriever.metric == "euclidean" else 1.0
        scores = sign * np.array([point.score for point in points], dtype=np.float64)
        if self.retriever.kind != "dense":
            points = points[: int((scores > 0).sum())]
        error = 0.0
        if self.again and points:
            found: list[Any] = [point.vector for point in points]
            vectors = np.array([next(iter(named.values())) for named in found], dtype=np.float64)
            error = _EMBEDDED_ERROR * float(
                np.linalg.norm(np.asarray(self.request.query)) * np.linalg.norm(vectors, axis=1).max()
            )
        self._undecided = len(points) >= self.limit and scores[-1] >= scores[self.request.k - 1] - error
        if self.again and points:
            scores = _score(self.request.query, vectors, self.retriever.metric)
        self.scores = {}
        for point, score in zip(points, scores.tolist(), strict=False):
            payload = point.payload or {}
            self.scores[payload["id"]] = score
            if "document" in payload:
                self.documents[payload["id"]] = from_payload(payload)

    def cut_in_a_tie(self) -> bool:
        """Whether documents that are not in the answer may tie with the last hit. If so, `limit` is raised."""
        if self._undecided:
            self.limit *= 4
        return self._undecided

    def ranking(self) -> Ranking:
        return Ranking.from_scores(self.scores, int(self.request.k)) if self.scores else EMPTY


def _check(checks: Sequence[Check], found: Sequence[int]) -> None:
    """Raises the FilterError of a check that fails. `found` has the number of documents that pass each check."""
    for check, documents in zip(checks, found, strict=True):
        if bool(documents) is not check.some:
            raise FilterError(check.error)


def _with_ids(ids: Sequence[str]) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=[point_id(id) for id in ids])])


def _score(query: Any, vectors: NDArray[np.float64], metric: str | None) -> NDArray[np.float64]:
    """The score of each row. It depends on that row only."""
    query = np.asarray(query, dtype=np.float64)
    euclidean = metric == "euclidean"
    scores: NDArray[np.float64] = np.square(vectors - query).sum(axis=1) if euclidean else (vectors * query).sum(axis=1)
    return -np.sqrt(scores) if euclidean else scores
