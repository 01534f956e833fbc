"""Searches a collection of Qdrant.

The questions of a search are in `questions`. They are asked again until the answers show the best hits for certain.
Hits come with their documents.

Passages are searched in their own collection. The documents of the best passages are read with one more request, which
also tells which passages are out of date (see `writing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from hybridsearch.adapters.checks import (
    check_explained,
    lexical_retriever,
    retriever_of,
)
from hybridsearch.adapters.qdrant.connection import Steps, call
from hybridsearch.adapters.qdrant.filters import compile_filter
from hybridsearch.adapters.qdrant.index import Index, passages_of
from hybridsearch.adapters.qdrant.payload import SHOWN, from_payload, passage_ids, point_id, spans_of
from hybridsearch.adapters.qdrant.points import Terms, from_rows
from hybridsearch.adapters.qdrant.questions import Listing, Scored, Search, parts_of
from hybridsearch.backends import Kind, Request, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError, IndexCorruptedError, IndexNotFoundError
from hybridsearch.filters import Check, Filter
from hybridsearch.listing import Key, Order
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors, PassageSpans, SparseQuery, Vectors
from hybridsearch.weighting import BM25Weighting

MAX_FETCH = 256
"""The largest number of documents that one request fetches."""

_COUNTED = 10_000  # texts whose terms one request reads

_KEYS = 1000  # documents whose sort fields one request reads

_IDF_OF_ALL = models.SearchParams(idf=models.IdfCorpusParams(corpus=models.Filter()))
"""The idf comes from the documents that are there now."""

OVERSAMPLING = 3.0
"""The number of candidates of quantized vectors for one hit. They are scored again with the full vectors."""


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
        while waiting or checks:
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
            answers = yield from self._answers({self.collection: [self._query(*of) for of in late]})
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
        points = [answer.points for answer in (yield from self._answers(asked))]
        found = [points.pop(len(whole)) for _ in also]
        for search, of_search in zip([*whole, *deep], points, strict=True):
            search.take(of_search)
        return list(map(len, found))

    def _answers(self, asked: Mapping[str, Sequence[models.QueryRequest]]) -> Steps[list[Any]]:
        """The answers to questions to collections, in order. They take several requests if one would be too large."""
        parts = [(of, part) for of, questions in asked.items() for part in parts_of(questions, whole=self.embedded)]
        calls = [call(of, "query_batch_points", requests=part) for of, part in parts]
        if len(calls) < 2:  # a list of calls takes longer
            return list((yield calls[0])) if calls else []
        return [answer for answers in (yield calls) for answer in answers]

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
        answers = yield from self._answers({collection: requests})
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
            spans = PassageSpans.of([spans_of(point.payload) for point in points])
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
        answers = yield from self._answers({self._collection_of(search.retriever): requests})
        found: dict[str, dict[str, float]] = {}
        for term, answer in zip(search.terms, answers, strict=True):
            for point in answer.points:
                found.setdefault(point.payload["id"], {})[term] = point.score
        return found


def _check(checks: Sequence[Check], found: Sequence[int]) -> None:
    """Raises the FilterError of a check that fails. `found` has the number of documents that pass each check."""
    for check, documents in zip(checks, found, strict=True):
        if bool(documents) is not check.some:
            raise FilterError(check.error)


def _with_ids(ids: Sequence[str]) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=[point_id(id) for id in ids])])
