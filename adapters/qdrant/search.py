"""Searches a collection of Qdrant.

Qdrant cannot sort ties by id. So if an answer ends within a tie, the search is repeated with a larger limit, until the
answer contains the whole tie. Hits come with their documents.

Passages are searched in their own collection. The documents of the best passages are read with one more request, which
also tells which passages are out of date (see `writing`). If the answer does not show the best k documents for certain,
it is repeated with a larger limit. So a document of any number of passages cannot crowd others out.

The embedded engine computes the scores of all dense vectors as one product of float32 matrices. There the scores of
equal vectors may differ in their last digits. So its candidates are scored again in float64, one by one, and equal
vectors get equal scores. A server scores each vector separately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from hybridsearch.adapters.checks import (
    check_explained,
    dense_query,
    hits_of,
    lexical_retriever,
    multi_query,
    retriever_of,
    sparse_query,
)
from hybridsearch.adapters.qdrant.connection import Steps, call
from hybridsearch.adapters.qdrant.filters import compile_filter
from hybridsearch.adapters.qdrant.index import Index, passages_of
from hybridsearch.adapters.qdrant.payload import SHOWN, from_payload, passage_ids, point_id
from hybridsearch.adapters.qdrant.points import Terms, from_rows
from hybridsearch.backends import Kind, Request, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError, IndexCorruptedError, IndexNotFoundError
from hybridsearch.filters import Check, Filter
from hybridsearch.listing import Key, Order
from hybridsearch.ranking import EMPTY, PassageScore, Ranking
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors, PassageSpans, SparseQuery, Vectors
from hybridsearch.weighting import BM25Weighting

MAX_FETCH = 256
"""The largest number of documents that one request fetches."""

_WIDTH = 4  # passages that one request asks for, for each document or passage that is wanted

_COUNTED = 10_000  # texts whose terms one request reads

_KEYS = 1000  # documents whose sort fields one request reads

_IDF_OF_ALL = models.SearchParams(idf=models.IdfCorpusParams(corpus=models.Filter()))
"""The idf comes from the documents that are there now."""

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
        ef_search: Least number of candidates of a search with HNSW. None for the number of the server.
    """

    collection: str
    index: Index
    terms: Terms
    embedded: bool
    dense: Literal["hnsw", "exact"]
    ef_search: int | None = None

    def search(self, requests: Sequence[Request]) -> Steps[list[Ranking]]:
        """Answer all requests."""
        searches = [Search(request, retriever_of(self.index.schema, request.retriever)) for request in requests]
        for search in searches:
            search.again = self.embedded and search.retriever.kind == "dense"
        yield from self._weigh_queries(searches)
        waiting = [search for search in searches if search.vector is not None]
        if searches and not any(search.vector is not None and not search.retriever.passages for search in searches):
            yield from self._check_index()
        checks = self._checks([request.filter for request in requests if request.filter is not None])
        while waiting:
            found = yield from self._ask(waiting, [self._look(check) for check in checks])
            _check(checks, found)
            checks = []
            yield from self._drop_stale([search for search in waiting if search.retriever.passages])
            waiting = [search for search in waiting if search.undecided()]
        rankings = [search.ranking() for search in searches]
        listed = yield from self._list(
            [(search, of.ids, search.request.passages) for search, of in zip(searches, rankings, strict=True)]
        )
        for search, ranking in zip(searches, rankings, strict=True):
            if search.retriever.passages:
                search.documents = {id: from_payload(search.states[id]) for id in ranking.ids}
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
            replace(
                ranking,
                documents={id: documents[id] for id in ranking.ids if id in documents},
                passages={id: search.spans(id, best[id]) for id in ranking.ids} if best else None,
            )
            for search, ranking, best in zip(searches, rankings, listed, strict=True)
        ]

    def _ask(self, searches: Sequence[Search], also: Sequence[models.QueryRequest] = ()) -> Steps[list[int]]:
        """Ask each search's question and take the answers. Returns the number of points that `also` finds."""
        whole = [search for search in searches if not search.retriever.passages]
        deep = [search for search in searches if search.retriever.passages]
        asked = {
            self.collection: [*map(self._query, whole), *also],
            passages_of(self.index.collection): [*map(self._query, deep)],
        }
        calls = [call(of, "query_batch_points", requests=questions) for of, questions in asked.items() if questions]
        answers = (yield calls) if len(calls) > 1 else [(yield calls[0])]
        points = [answer.points for of_call in answers for answer in of_call]
        found = [points.pop(len(whole)) for _ in also]
        for search, of_search in zip([*whole, *deep], points, strict=True):
            search.take(of_search)
        return list(map(len, found))

    def _drop_stale(self, searches: Sequence[Search]) -> Steps[None]:
        """Read the documents of the best passages, and drop the passages that are of another version."""
        states: dict[str, Any] = {}
        while ids := {id: None for search in searches for id in search.ranking().ids if id not in states}:
            states |= dict.fromkeys(ids) | (yield from self._read(list(ids), [*SHOWN, "version", "spans"]))
            for search in searches:
                search.drop_stale(states)

    def _list(self, wanted: Sequence[tuple[Search, Sequence[str], int]]) -> Steps[list[dict[str, list[Scored]]]]:
        """The best passages of documents: their numbers and scores, best first, by document id.

        `wanted` has a search that was answered, the ids of documents, and the number of passages of each document.
        """
        listings = [
            Listing(search, ids, most if search.retriever.passages else 0, self.embedded)
            for search, ids, most in wanted
        ]
        while waiting := [listing for listing in listings if listing.pending]:
            yield from self._ask([listing.question for listing in waiting])
            for listing in waiting:
                listing.take()
        return [listing.found for listing in listings]

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
        having = [self._having(name, numbers[term]) for name, term in retrievers]
        where = list(dict.fromkeys(map(self._collection_of, retrievers.values())))
        counted: list[tuple[str, models.Filter | None]] = [(collection, None) for collection in where]
        for retriever, condition in zip(retrievers.values(), having, strict=True):
            counted.append((self._collection_of(retriever), condition))
        counts = yield [call(of, "count", count_filter=filter, exact=True) for of, filter in counted]
        number = {collection: int(answer.count) for collection, answer in zip(where, counts, strict=False)}
        idf = {}
        for (key, retriever), answer in zip(retrievers.items(), counts[len(where) :], strict=True):
            weighting, n = BM25Weighting(**(retriever.weighting or {})), int(answer.count)
            texts = number[self._collection_of(retriever)]
            idf[key] = float(weighting.idf(np.array(min(n, texts)), texts)) if n else 0.0
        return idf

    def document_frequencies(self, name: str, terms: Sequence[str]) -> Steps[tuple[list[int], int]]:
        """The number of documents or passages that have each term, and of all of them.

        A server is asked for the number of documents, or for the idf if it computes it. In the embedded engine either
        takes as long for one term as reading the terms of all documents, so these are read.
        """
        collection = self._collection_of(lexical_retriever(self.index.schema, name))
        numbers = yield from self.terms.numbers(terms)
        texts = int((yield call(collection, "count", exact=True)).count)
        counts: dict[int, int]
        if self.embedded:
            counts = yield from self._counted_here(collection, name)
        elif name in self.index.idf:
            counts = yield from self._counts_by_idf(collection, name, list(numbers.values()), texts)
        else:
            asked = [
                call(collection, "count", count_filter=self._having(name, n), exact=True) for n in numbers.values()
            ]
            answers = (yield asked) if asked else []
            counts = {n: int(answer.count) for n, answer in zip(numbers.values(), answers, strict=True)}
        return [counts.get(numbers[term], 0) if term in numbers else 0 for term in terms], texts

    def _having(self, name: str, number: int) -> models.Filter:
        """The condition that a text has the term with this number."""
        key = f"{self.index.counts_key(name)}.terms"
        return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=number))])

    def _counted_here(self, collection: str, name: str) -> Steps[dict[int, int]]:
        """The number of texts that have each term, from the counts of all texts."""
        found: Counter[int] = Counter()
        key, offset = self.index.counts_key(name), None
        while True:
            some = {"limit": _COUNTED, "offset": offset, "with_payload": [f"{key}.terms"], "with_vectors": False}
            points, offset = yield call(collection, "scroll", **some)
            for point in points:
                found.update(point.payload[key]["terms"])
            if offset is None:
                return found

    def _counts_by_idf(self, collection: str, name: str, numbers: Sequence[int], texts: int) -> Steps[dict[int, int]]:
        """The number of texts that have each term, from the idf that Qdrant multiplies the weight of the best hit by.

        The scores have 24 bits, so the number may be wrong by one in some hundred thousand.
        """
        vector = self.index.vector(name)
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=[number], values=[1.0]),
                using=vector,
                limit=1,
                with_payload=False,
                with_vector=[vector],
                params=_IDF_OF_ALL,
            )
            for number in numbers
        ]
        answers = (yield call(collection, "query_batch_points", requests=requests)) if requests else []
        counts = {}
        for number, answer in zip(numbers, answers, strict=True):
            for point in answer.points:
                found = point.vector[vector]
                weight = dict(zip(found.indices, found.values, strict=True))[number]
                counts[number] = round((texts + 1) / np.exp(point.score / weight) - 0.5)
        return counts

    def _collection_of(self, retriever: RetrieverSchema) -> str:
        """The collection with the vectors of a retriever. That of the documents may be named by an alias."""
        return passages_of(self.index.collection) if retriever.passages else self.collection

    def _check_index(self) -> Steps[None]:
        """Raises IndexNotFoundError if an alias means another index by now.

        It is needed if no query names a vector in the collection of the documents, because that query would be refused.
        """
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
        filter = search.within or filter
        shown = SHOWN if among or search.limit == request.k + 1 else ["id"]
        return models.QueryRequest(
            query=search.vector,
            using=self.index.vector(request.retriever),
            filter=_with_ids(among) if among else filter,
            limit=len(among) or search.limit,
            with_payload=["id", "version", "number"] if search.retriever.passages else shown,
            with_vector=[self.index.vector(request.retriever)] if search.again and not among else False,
            params=self._params(search.retriever.kind, request),
        )

    def _params(self, kind: Kind, request: Request) -> models.SearchParams | None:
        if self.embedded:  # it is exact, and its idf ignores deleted documents
            return None
        if kind in ("dense", "multi_vector"):
            exact = self.dense == "exact" or request.exact
            quantization = models.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=OVERSAMPLING)
            return models.SearchParams(exact=exact, hnsw_ef=self.ef_search, quantization=quantization)
        if request.retriever in self.index.idf:
            return _IDF_OF_ALL
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
        """The documents with these ids. Unknown ids are left out."""
        found = yield from self._read(ids, SHOWN, self.collection)
        return {id: from_payload(payload) for id, payload in found.items()}

    def _read(self, ids: Sequence[str], keys: list[str], collection: str | None = None) -> Steps[dict[str, Any]]:
        """Some keys of the payload of documents, by id. Unknown ids are left out."""
        points = [point_id(id) for id in dict.fromkeys(ids)]
        payloads: dict[str, Any] = {}
        for start in range(0, len(points), MAX_FETCH):
            some = points[start : start + MAX_FETCH]
            found = yield call(collection or self.index.collection, "retrieve", ids=some, with_payload=keys)
            payloads |= {point.payload["id"]: point.payload for point in found}
        return payloads

    def fetch_vectors(self, ids: Sequence[str], name: str) -> Steps[EncodedBatch]:
        """The documents with the vectors of one retriever, in the order of `ids`. Unknown ids are left out."""
        retriever = retriever_of(self.index.schema, name)
        vectors = False if retriever.passages else [self.index.vector(name)]
        ids = [point_id(id) for id in dict.fromkeys(ids)]
        points: dict[Any, Any] = {}
        for start in range(0, len(ids), MAX_FETCH):
            some = {"ids": ids[start : start + MAX_FETCH], "with_payload": True, "with_vectors": vectors}
            points |= {point.id: point for point in (yield call(self.collection, "retrieve", **some))}
        return (yield from self._encoded([points[id] for id in ids if id in points], {name: retriever}))

    def page(self, size: int, offset: Any) -> Steps[tuple[EncodedBatch, Any]]:
        """The documents with their vectors from `offset` on, and the offset of the next page.

        The first offset is None, and the offset after the last page is None.
        """
        whole = {"with_payload": True, "with_vectors": True}
        points, following = yield call(self.collection, "scroll", limit=size, offset=offset, **whole)
        return (yield from self._encoded(points, self.index.schema.retrievers)), following

    def _encoded(self, points: list[Any], retrievers: Mapping[str, RetrieverSchema]) -> Steps[EncodedBatch]:
        """The documents of these points with the vectors of some retrievers."""
        stored = {False: points}
        spans = None
        if any(retriever.passages for retriever in retrievers.values()):
            points, stored[True] = yield from self._with_passages(points)
            stored[False] = points
        if self.index.schema.passages is not None:
            spans = PassageSpans.of([_pairs(point.payload["spans"]) for point in points])
        rows: dict[str, list[tuple[list[int], list[float]]]] = {}
        dense: dict[str, NDArray[np.float32]] = {}
        multi: dict[str, MultiVectors] = {}
        for name, retriever in retrievers.items():
            read = stored[retriever.passages]
            found = [(point.vector or {}).get(self.index.vector(name)) for point in read]
            if retriever.kind == "dense":
                dense[name] = np.zeros((len(read), retriever.dimensions or 0), dtype=np.float32)
                for row, vector in enumerate(found):
                    if vector is not None:
                        dense[name][row] = vector
            elif retriever.kind == "multi_vector":
                size = retriever.dimensions or 0
                tokens = [np.array([] if of is None else of, dtype=np.float32).reshape(-1, size) for of in found]
                multi[name] = MultiVectors.of(tokens, size)
            elif retriever.kind == "lexical":
                counts = [point.payload[self.index.counts_key(name)] for point in read]
                rows[name] = [(of["terms"], of["counts"]) for of in counts]
            else:
                rows[name] = [([], []) if vector is None else (vector.indices, vector.values) for vector in found]
        numbers = {number for of in rows.values() for indices, _ in of for number in indices}
        terms = yield from self.terms.names(sorted(numbers))
        vectors: dict[str, Vectors] = {**multi, **{name: from_rows(of, terms) for name, of in rows.items()}}
        for name, array in dense.items():
            vectors[name] = DenseVectors(array, self.index.schema.retrievers[name].metric or "cosine")
        return EncodedBatch([from_payload(point.payload) for point in points], vectors, spans)

    def _with_passages(self, points: list[Any]) -> Steps[tuple[list[Any], list[Any]]]:
        """The points of documents, and the points of all their passages.

        If a document was written anew meanwhile, its point is the new one. If it was deleted, it is left out.
        """
        documents = {point.id: point for point in points}
        passages: dict[Any, Any] = {}
        missing = list(documents)
        while missing:
            wanted = [id for point in missing for id in passage_ids(documents[point].payload)]
            for start in range(0, len(wanted), MAX_FETCH):
                some = {"ids": wanted[start : start + MAX_FETCH], "with_payload": True, "with_vectors": True}
                found = yield call(passages_of(self.index.collection), "retrieve", **some)
                passages |= {point.id: point for point in found}
            missing = [id for id in missing if any(one not in passages for one in passage_ids(documents[id].payload))]
            if missing:
                before = {id: documents.pop(id).payload["version"] for id in missing}
                some = {"ids": missing, "with_payload": True, "with_vectors": True}
                documents |= {point.id: point for point in (yield call(self.index.collection, "retrieve", **some))}
                missing = [id for id in missing if id in documents]
                for id in missing:
                    if (payload := documents[id].payload)["version"] == before[id]:
                        raise IndexCorruptedError(
                            f"The document {payload['id']!r} has lost passages: index this document again."
                        )
        found = list(documents.values())
        return found, [passages[id] for point in found for id in passage_ids(point.payload)]

    def explain(self, request: Request, ids: Sequence[str]) -> Steps[dict[str, dict[str, float]]]:
        """What each term adds to the score of each document. It asks Qdrant for the scores of each term alone."""
        search = Search(request, retriever_of(self.index.schema, request.retriever))
        check_explained(request, search.retriever)
        yield from self._weigh_queries([search])
        if not isinstance(search.vector, models.SparseVector) or not ids:
            return {}
        among = _with_ids(ids)
        if search.retriever.passages:
            yield from self._check_index()
            search.states = yield from self._read(ids, ["id", "version", "spans"])
            (best,) = yield from self._list([(search, list(search.states), 1)])
            of_best: list[Any] = [
                passage_ids(search.states[id])[number] for id, scored in best.items() for number, _ in scored
            ]
            if not of_best:
                return {}
            among = models.Filter(must=[models.HasIdCondition(has_id=of_best)])
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=[number], values=[weight]),
                using=self.index.vector(request.retriever),
                filter=among,
                limit=len(ids),
                with_payload=["id"],
                params=self._params(search.retriever.kind, request),
            )
            for number, weight in zip(search.vector.indices, search.vector.values, strict=True)
        ]
        answers = yield call(self._collection_of(search.retriever), "query_batch_points", requests=requests)
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
        limit: Number of documents or passages that Qdrant is asked for.
        scores: Scores of the last answer, by document id.
        documents: Documents that came with the answers, by id.
        again: Whether the dense candidates are scored again here.
        passages: The passages of the last answer, best first, if the retriever reads passages.
        floor: Every passage or document with a higher score is in the last answer. Minus infinity if all are.
        states: The payloads of the documents of these passages, by id.
        within: The condition for the passages that are wanted, in place of the filter of the request.
    """

    request: Request
    retriever: RetrieverSchema
    vector: list[float] | list[list[float]] | models.SparseVector | None = None
    terms: list[str] = field(default_factory=list)
    limit: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    again: bool = False
    passages: list[Passage] = field(default_factory=list)
    floor: float = -np.inf
    states: dict[str, Any] = field(default_factory=dict)
    within: models.Filter | None = None
    _replaced: set[tuple[str, int]] = field(default_factory=set)
    _outdated: bool = False

    def __post_init__(self) -> None:
        self.limit = hits_of(self.request) * (_WIDTH if self.retriever.passages else 1) + 1
        checks: dict[Kind, Callable[[Request, RetrieverSchema], object]]
        checks = {"dense": dense_query, "multi_vector": multi_query}
        checks.get(self.retriever.kind, sparse_query)(self.request, self.retriever)

    def take(self, points: Sequence[models.ScoredPoint]) -> None:
        """Take Qdrant's answer to the question for `limit` documents."""
        sign = -1.0 if self.retriever.metric == "euclidean" else 1.0
        scores = sign * np.array([point.score for point in points], dtype=np.float64)
        if self.retriever.kind in ("lexical", "sparse"):
            points = points[: int((scores > 0).sum())]
        error = 0.0
        if self.again and points:
            found: list[Any] = [point.vector for point in points]
            vectors = np.array([next(iter(named.values())) for named in found], dtype=np.float64)
            error = _EMBEDDED_ERROR * float(
                np.linalg.norm(np.asarray(self.request.query)) * np.linalg.norm(vectors, axis=1).max()
            )
        self.floor = float(scores[-1]) + error if len(points) >= self.limit else -np.inf
        if self.again and points:
            scores = _score(self.request.query, vectors, self.retriever.metric)
        self.scores = {}
        found = [(point.payload or {}, score) for point, score in zip(points, scores.tolist(), strict=False)]
        if self.retriever.passages:
            self.passages = sorted(
                (Passage(of["id"], of["version"], of["number"], score) for of, score in found),
                key=lambda passage: (-passage.score, passage.number),
            )
            self._rank_passages()
            return
        for payload, score in found:
            self.scores[payload["id"]] = score
            if "document" in payload:
                self.documents[payload["id"]] = from_payload(payload)

    def drop_stale(self, states: Mapping[str, Any]) -> None:
        """Drop the passages that documents do not have now. `states` has their payloads, or None without a document."""
        self.states |= {id: state for id, state in states.items() if state is not None}
        kept = [
            passage
            for passage in self.passages
            if passage.id not in states or (states[passage.id] or {}).get("version") == passage.version
        ]
        if len(kept) < len(self.passages):
            lost = {passage.id for passage in self.passages} - {passage.id for passage in kept}
            replaced = {(id, states[id]["version"]) for id in lost if states[id] is not None}
            self._outdated = self._outdated or not replaced <= self._replaced
            self._replaced |= replaced
            self.passages = kept
            self._rank_passages()

    def _rank_passages(self) -> None:
        self.scores = {}
        for passage in self.passages:
            self.scores.setdefault(passage.id, passage.score)

    def undecided(self) -> bool:
        """Whether the question must be asked again: the last answer does not show the best documents for certain.

        Documents that are not in the answer may belong to the best, or tie with them: then `limit` is raised. Or a
        document was written anew after its old passages were found.
        """
        if self._outdated:
            self._outdated = False
            return True
        certain = sum(score > self.floor for score in self.scores.values())
        if undecided := self.floor > -np.inf and certain < self.request.k:
            self.limit *= 4
        return undecided

    def spans(self, id: str, best: Sequence[Scored]) -> list[PassageScore]:
        """Passages of a document with their spans."""
        spans = _pairs(self.states[id]["spans"])
        return [PassageScore(*spans[number], score) for number, score in best]

    def ranking(self) -> Ranking:
        return Ranking.from_scores(self.scores, int(self.request.k)) if self.scores else EMPTY


class Passage(NamedTuple):
    """A passage that was found."""

    id: str
    version: int
    number: int
    score: float


Scored: TypeAlias = tuple[int, float]
"""The number of a passage, and its score."""


class Listing:
    """The best passages of some documents.

    A search for the best documents may show too few passages of a document. Then they are asked for, those of all
    documents in one question. Documents whose passages do not all come are asked for again without the others.

    Args:
        search: The search. Its last answer is used as far as it goes.
        ids: Ids of the documents.
        most: Largest number of passages of each document.
        embedded: Whether the engine is in this process. It finds ids faster than values of the payload.

    Attributes:
        pending: The documents whose best passages are not known yet: their versions by id.
        found: The best passages of the others, by document id.
        question: The search for the passages of these documents.
    """

    def __init__(self, search: Search, ids: Sequence[str], most: int, embedded: bool) -> None:
        self._most, self._embedded = most, embedded
        self._first = _by_document(search.passages)
        self.pending = {id: search.states[id]["version"] for id in ids} if most else {}
        self.found: dict[str, list[Scored]] = {}
        self.question = replace(search)
        if search.passages:
            self._settle(search)
        self._widen(1)

    def take(self) -> None:
        """Take the answer to the question."""
        before = len(self.pending)
        self._settle(self.question)
        self._widen(4 if len(self.pending) == before else 1)

    def _settle(self, search: Search) -> None:
        passages = _by_document(search.passages)
        for id in list(self.pending):
            scores = passages.get(id, {})
            if search.floor == -np.inf or sum(score > search.floor for score in scores.values()) >= self._most:
                scores |= self._first.get(id, {})  # so that the best passage has the score of its document
                self.found[id] = sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))[: self._most]
                del self.pending[id]

    def _widen(self, factor: int) -> None:
        condition: Any = models.FieldCondition(key="version", match=models.MatchAny(any=list(self.pending.values())))
        if self._embedded:
            ids: list[Any] = [id for document in self.pending for id in passage_ids(self.question.states[document])]
            condition = models.HasIdCondition(has_id=ids)
        self.question.within = models.Filter(must=[condition])
        wanted = _WIDTH * self._most * len(self.pending) + 1
        self.question.limit = wanted if factor == 1 else factor * self.question.limit


def _by_document(passages: Sequence[Passage]) -> dict[str, dict[int, float]]:
    """The scores of passages, by document id and number."""
    scores: dict[str, dict[int, float]] = {}
    for passage in passages:
        scores.setdefault(passage.id, {})[passage.number] = passage.score
    return scores


def _pairs(spans: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(spans[::2], spans[1::2], strict=True))


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
