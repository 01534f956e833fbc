"""Translates requests to `_msearch` bodies and responses to rankings.

This includes term statistics, ties at a cut, and searches that are too deep for one request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from math import frexp
from operator import mul
from typing import TypeAlias, TypeVar

import numpy as np

from hybridsearch.adapters.checks import dense_query, hits_of, lexical_retriever, retriever_of, sparse_query
from hybridsearch.adapters.lucene import impacts, seismic
from hybridsearch.adapters.lucene.dialect import Dialect, Search
from hybridsearch.adapters.lucene.query.filters import compile_filter
from hybridsearch.adapters.lucene.query.heavy import Heavy, heavy_terms
from hybridsearch.adapters.lucene.query.passages import ListedPassages, by_best_passage, with_lists
from hybridsearch.adapters.lucene.query.statistics import Key, Statistics, read_statistics, searches_for
from hybridsearch.adapters.lucene.stored.lines import encode_term
from hybridsearch.adapters.lucene.stored.mapping import MAX_WINDOW, PASSAGES
from hybridsearch.adapters.lucene.stored.reading import (
    LENGTH,
    NO_FIELDS,
    STAMP,
    documents_by_query,
    hit_document,
    hit_id,
    hit_length,
    hit_score,
    hit_scores,
)
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.adapters.steps import through
from hybridsearch.backends import Request, RetrieverSchema, Schema
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.ranking import EMPTY, PassageScore, Ranking
from hybridsearch.vectors import SparseQuery, TextQuery
from hybridsearch.weighting import BM25Weighting

T = TypeVar("T")

Steps: TypeAlias = Generator[list[Search], list[Json], T]
"""A generator that yields the bodies of one `_msearch`, receives their responses, and returns a T."""

Listed: TypeAlias = tuple[Mapping[str, Document], list[Mapping[str, Sequence[PassageScore]] | None]]
"""What `hybridsearch.backends.Lister.fetch_passages` returns."""

MAX_WEIGHT = 64.0
"""The largest query weight that Lucene's feature queries take. Larger weights are scaled down, and the scores up."""

PART_DOCUMENTS = 5000
"""Number of documents in one part of a dense search that is deeper than the engine allows."""

WITH_DOCUMENTS = 3000
"""The largest number of hits of a call that come with their documents.

With more hits, only few of them get into the final results. Their documents are fetched afterwards, all at once. That
sends less, and needs less memory."""

WITH_CHARACTERS = 500_000
"""The largest number of characters of documents that come with the hits of a call, as they are stored.

Long documents are fetched afterwards too. Then only those that are shown are sent. The lengths are those of the hits of
the last search that has told them."""

_ANY = 2**31 - 1  # a number of hits that no index has

_SOURCES = 100  # documents whose vectors come with one search
_MEASURED = 20  # hits whose length is taken for that of all
_ATTEMPTS = 4  # after these, statistics are used even if they change all the time


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """A request that is being answered. For a lexical request, `weights` are counts until idf is known."""

    position: int
    request: Request
    retriever: RetrieverSchema
    path: str  # of the field that is searched
    filter: Json | None
    weights: Mapping[str, float] = field(default_factory=dict)
    fields: tuple[str, ...] = ("id",)  # fields that each hit contains
    by_id: bool = False  # whether the engine must order ties by id
    heavy: Heavy | None = None  # the terms of which each hit has one
    all_terms: bool = False  # whether hits with any of the terms count
    given: bool = False  # whether the filter names the documents. Those without a match are hits too, with score 0

    @property
    def keys(self) -> list[Key]:
        """The keys of the terms whose idf is needed."""
        lexical = self.retriever.kind == "lexical"
        return [(self.path, term) for term in self.weights] if lexical else []

    @property
    def listed(self) -> int:
        """The number of passages to list for each document."""
        return self.request.passages if self.retriever.passages else 0


class Searcher:
    """Searches one index. It keeps the document frequencies of lexical retrievers until the index changes."""

    def __init__(self, schema: Schema, dialect: Dialect, *, literal: bool = False, impacts: bool = False) -> None:
        self.schema = schema
        self._dialect = dialect
        self._literal = literal
        self._by_impacts = impacts
        self._statistics = Statistics()
        self._length: float | None = None  # mean length of the documents of the last search

    def search(self, requests: Sequence[Request]) -> Steps[list[Ranking]]:
        """The rankings, in the order of the requests.

        They have their documents if the requests ask for at most `WITH_DOCUMENTS` hits and the documents are short.
        There is one `_msearch`. Another one follows if frequencies are unknown, if there are ties at a cut, or if
        documents that were left out may be hits.
        """
        filters = [request.filter for request in requests if request.filter is not None]
        return (yield from self._checked(self._search(requests), filters))

    def list_passages(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> Steps[Listed]:
        """The documents `ids`, and the passages that each request finds in its documents.

        They come with one `_msearch`. If one request lists passages, its hits come with their documents, and ids that
        are no hits need another `_msearch`. If several do, the documents come once, and the stamps of all hits tell
        which passages are of another version.
        """
        wanted = list(dict.fromkeys(chain.from_iterable(ids)))
        questions = [
            replace(question, filter={"terms": {"id": list(ids[question.position])}}, given=True)
            for question in (
                self._question(place, replace(request, k=len(ids[place]), filter=None))
                for place, request in enumerate(requests)
                if ids[place]
            )
            if question is not None and question.listed
        ]
        together = len(questions) == 1 and len(wanted) <= WITH_DOCUMENTS
        fields = ("id", "document") if together else ("id", STAMP)
        rankings, responses = yield from _beside(
            self._answers([replace(question, fields=fields) for question in questions], len(requests)),
            [] if together else _reads(wanted),
        )
        hits = {hit_id(hit): hit for response in responses for hit in response["hits"]["hits"]}
        if together:
            sent = rankings[questions[0].position].documents
            hits = dict(sent.hits) if isinstance(sent, _Documents) else {}
            responses = yield _reads([id for id in wanted if id not in hits])  # no request if there are none
            hits |= {hit_id(hit): hit for response in responses for hit in response["hits"]["hits"]}
        passages: list[Mapping[str, Sequence[PassageScore]] | None] = []
        for request, ranking in zip(requests, rankings, strict=True):
            listed = ranking.passages
            if not retriever_of(self.schema, request.retriever).passages:
                passages.append(None)
            elif isinstance(listed, ListedPassages):
                passages.append(listed if together else listed.of_versions(hits))
            else:
                passages.append({})
        return _Documents(hits), passages

    def count(self, filter: Filter | None) -> Steps[int]:
        """The number of documents that the filter lets through."""
        query = self.query(filter)

        def rounds() -> Steps[int]:
            (response,) = yield [{"size": 0, "track_total_hits": True, "query": query}]
            return int(response["hits"]["total"]["value"])

        return (yield from self._checked(rounds(), [] if filter is None else [filter]))

    def query(self, filter: Filter | None) -> Json:
        """The query for the documents that the filter lets through. The `checks` of the filter are not part of it."""
        return {"match_all": {}} if filter is None else compile_filter(filter, literal=self._literal)

    def _checked(self, rounds: Steps[T], filters: Sequence[Filter]) -> Steps[T]:
        """The same rounds, but the first also does the `checks` of the filters. Raises FilterError if one fails."""
        distinct = {id(filter): filter for filter in filters}.values() if not self._literal else ()
        checks = list(dict.fromkeys(check for filter in distinct for check in filter.checks()))
        looks: list[Search] = [
            {
                **NO_FIELDS,
                "size": 1,
                "track_total_hits": False,
                "terminate_after": 1,
                "query": {"bool": {"filter": [compile_filter(Filter(check.condition))]}},
            }
            for check in checks
        ]
        result, responses = yield from _beside(rounds, looks)
        for check, told in zip(checks, responses, strict=False):  # without any round, nothing was told
            if bool(told["hits"]["hits"]) is not check.some:
                raise FilterError(check.error)
        return result

    def _search(self, requests: Sequence[Request]) -> Steps[list[Ranking]]:
        asked = [self._question(position, request) for position, request in enumerate(requests)]
        questions = [question for question in asked if question is not None]
        fields = self._fields(questions)
        return (yield from self._answers([replace(question, fields=fields) for question in questions], len(requests)))

    def _answers(self, waiting: list[_Question], count: int) -> Steps[list[Ranking]]:
        """The rankings of `count` requests. A request without a question has an empty one."""
        rankings = [EMPTY] * count
        deep: list[_Question] = []
        attempt = 0
        while waiting:
            attempt += 1
            known = self._statistics
            missing = {key for q in waiting for key in q.keys if key not in known.frequencies}
            asked: list[_Question] = []
            held: list[_Question] = []
            for q in waiting:
                (asked if missing.isdisjoint(q.keys) else held).append(q)
            ready = [self._weighed(q, known) for q in asked]
            bodies = [self._body(q) for q in ready if q is not None]
            lexical = any(q.retriever.kind == "lexical" for q in waiting)
            if lexical:
                bodies += searches_for(missing, self._dialect)
            responses = yield bodies
            current = True
            if lexical:
                told = responses[sum(q is not None for q in ready) :]
                now = read_statistics(told, missing, known)
                current = now.state == known.state or attempt >= _ATTEMPTS
                self._statistics = now
            answers = iter(responses)
            waiting = held
            for question, weighed in zip(asked, ready, strict=True):
                response = next(answers) if weighed is not None else None
                if question.retriever.kind == "lexical" and not current:
                    waiting.append(question)
                elif weighed is not None and response is not None:
                    verdict = self._verdict(weighed, response)
                    if isinstance(verdict, Ranking):
                        rankings[question.position] = verdict
                    elif verdict is weighed:
                        deep.append(weighed)
                    else:
                        waiting.append(replace(question, by_id=verdict.by_id, all_terms=verdict.all_terms))
        for question in deep:
            rankings[question.position] = yield from self._in_parts(question)
        return rankings

    def _fields(self, questions: Sequence[_Question]) -> tuple[str, ...]:
        """The fields that each hit contains."""
        hits = sum(question.request.k for question in questions)
        if self.schema.passages is None:
            short = self._length is None or hits * self._length <= WITH_CHARACTERS
            return ("id", "document") if hits <= WITH_DOCUMENTS and short else ("id",)
        if any(question.retriever.passages and not question.listed for question in questions):
            return ("id",)  # the documents come later, with their passages
        few = hits <= WITH_DOCUMENTS and self._length is not None and hits * self._length <= WITH_CHARACTERS
        return ("id", LENGTH, "document") if few else ("id", LENGTH)

    def explain(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> Steps[list[list[dict[str, float]]]]:
        """What each term of a query adds to the scores of documents, for each request and each of its `ids`.

        The vectors come with the frequencies of the terms, in one `_msearch`.
        """
        paths = [
            f"{f'{PASSAGES}.' if retriever_of(self.schema, name).passages else ''}vectors.{name}"
            for name in dict.fromkeys(request.retriever for request in requests)
        ]
        wanted = list(dict.fromkeys(chain.from_iterable(ids)))
        reads: list[Search] = [
            {
                "size": _SOURCES,
                "track_total_hits": False,
                "_source": paths,
                "docvalue_fields": ["id"],
                "query": {"bool": {"filter": [{"terms": {"id": wanted[start : start + _SOURCES]}}]}},
            }
            for start in range(0, len(wanted), _SOURCES)
        ]
        weights, responses = yield from _beside(self._weights(requests), reads)
        sources = {hit_id(hit): hit["_source"] for response in responses for hit in response["hits"]["hits"]}
        return [
            [_best_parts(sources.get(id), request.retriever, of_request) for id in of_ids]
            for request, of_request, of_ids in zip(requests, weights, ids, strict=True)
        ]

    def document_frequencies(self, name: str, terms: Sequence[str]) -> Steps[tuple[list[int], int]]:
        """The number of documents or passages that have each term, and of all of them. There is at least one term."""
        retriever = lexical_retriever(self.schema, name)
        path = self._path(name, retriever)
        keys = [(path, encode_term(term)) for term in terms]
        missing = {key for key in keys if key not in self._statistics.frequencies}
        while True:
            found = read_statistics((yield searches_for(missing, self._dialect)), missing, self._statistics)
            self._statistics = found
            if all(key in found.frequencies for key in keys):
                return [found.frequencies[key] for key in keys], found.texts(path)
            missing = set(keys)  # the index has changed, so what was known is forgotten

    def _weights(self, requests: Sequence[Request]) -> Steps[list[dict[str, float]]]:
        """The weights of the terms of each query as they are now, by term. There is always one round."""
        questions = [self._question(place, request) for place, request in enumerate(requests)]
        missing = {key for question in questions if question is not None for key in question.keys}
        responses = yield searches_for(missing, self._dialect) if missing else []
        if missing:
            self._statistics = read_statistics(responses, missing, self._statistics)
        weights: list[dict[str, float]] = []
        for question in questions:
            if question is None or not isinstance(question.request.query, SparseQuery):
                weights.append({})
                continue
            lexical = question.retriever.kind == "lexical"
            of_names = self._idf_weights(question, self._statistics) if lexical else question.weights
            terms = question.request.query.terms
            weights.append({term: of_names[name] for term in terms if (name := encode_term(term)) in of_names})
        return weights

    def forget(self) -> None:
        """Forget all frequencies, because this process has written to the index."""
        self._statistics = Statistics()

    def _question(self, position: int, request: Request) -> _Question | None:
        """The question for a request. None if no document can match."""
        name, retriever, query = request.retriever, retriever_of(self.schema, request.retriever), request.query
        hits_of(request)
        filter = None if request.filter is None else compile_filter(request.filter, literal=self._literal)
        asked = partial(_Question, position, request, retriever, self._path(name, retriever), filter)
        if retriever.kind == "dense":
            return asked() if dense_query(request, retriever).any() else None
        if retriever.kind == "text":
            if not isinstance(query, TextQuery):
                raise InvalidArgumentError(f"Retriever {name!r} takes a TextQuery, not {type(query).__name__}.")
            return asked() if query.text.strip() else None
        query = sparse_query(request, retriever)
        values = query.weights.tolist()
        if values and min(values) < 0:
            raise InvalidArgumentError(
                f"The query of retriever {name!r} has the weight {min(values)!r}, but Lucene takes no weights below 0: "
                "leave the term out, or use the memory backend."
            )
        weights = {encode_term(term): value for term, value in zip(query.terms, values, strict=True) if value > 0}
        return asked(weights) if weights else None

    def _path(self, name: str, retriever: RetrieverSchema) -> str:
        """The path of the field that a retriever searches."""
        if retriever.passages and self._by_impacts and retriever.kind in ("lexical", "sparse"):
            return f"{PASSAGES}.{impacts.MEMBER}.{name}"
        within = f"{PASSAGES}." if retriever.passages else ""
        return f"{within}{'content' if retriever.kind == 'text' else 'vectors'}.{name}"

    def _weighed(self, question: _Question, known: Statistics) -> _Question | None:
        """The question with the weights to send. None if no term can match."""
        if question.retriever.kind != "lexical":
            return question
        weights = self._idf_weights(question, known)
        if not weights:
            return None
        question = replace(question, weights=weights)
        # Lucene passes over documents that cannot be hits. It does not if there is a filter, and the engine adds one to
        # each search of an index with passages. If the user gives a filter, too, the frequencies do not tell how many
        # documents it lets through, so that search stays as it is.
        if self.schema.passages is None or question.filter is not None or question.all_terms:
            return question
        frequencies = {term: known.frequencies[question.path, term] for term in weights}
        largest = BM25Weighting(**(question.retriever.weighting or {})).largest
        return replace(question, heavy=heavy_terms(weights, frequencies, largest, question.request.k))

    def _idf_weights(self, question: _Question, known: Statistics) -> dict[str, float]:
        weighting = BM25Weighting(**(question.retriever.weighting or {}))
        found = [known.frequencies.get(key, 0) for key in question.keys]
        held = [(term, n) for term, n in zip(question.weights, found, strict=True) if n > 0]
        if not held:
            return {}
        idf = weighting.idf(np.array([n for _, n in held], dtype=np.int64), known.texts(question.path)).tolist()
        weights = {term: question.weights[term] * value for (term, _), value in zip(held, idf, strict=True)}
        return {term: weight for term, weight in weights.items() if weight > 0}

    def _is_approximate(self, question: _Question) -> bool:
        """Whether a dense search may miss documents."""
        return self._dialect.approximate_dense and not question.request.exact

    def _deepest(self, question: _Question) -> int:
        """The largest number of hits of one dense search."""
        return _ANY if question.request.exact and self._dialect.approximate_dense else self._dialect.deepest_dense()

    def _body(self, question: _Question) -> Search:
        request, retriever = question.request, question.retriever
        k = int(min(request.k, MAX_WINDOW - 1))
        body: Search = {**NO_FIELDS, "docvalue_fields": question.fields, "track_total_hits": False}
        if retriever.kind == "dense":
            deepest = self._deepest(question)
            size = k if question.by_id or self._is_approximate(question) else k + 1
            depth = deepest if question.by_id else min(size, deepest)
            clause = self._dense_clause(question, depth)
            body["track_total_hits"] = question.by_id
        else:
            size = k if question.by_id else k + 1
            needed: Json = None
            if isinstance(request.query, TextQuery):
                clause = {"match": {question.path: {"query": request.query.text}}}
            else:
                scale = _scale(question.weights)
                weights = {term: weight / scale for term, weight in question.weights.items()}
                pruned = retriever.kind == "sparse" and not request.exact
                clause = self._dialect.sparse_clause(question.path, weights, pruned=pruned)
                if question.heavy is not None:
                    heavy = {term: weights[term] for term in question.heavy.terms}
                    needed = self._dialect.sparse_clause(question.path, heavy, pruned=False)
                if self._is_rough(question):
                    return {**body, **self._dialect.rough_search(request.retriever, weights, k, clause), "size": k}
            if needed is not None:
                ranked: Json = {"bool": {"must": [clause], "filter": [needed]}}
                if retriever.passages:  # a passage that is listed need not have one of the heavy terms
                    ranked = with_lists(by_best_passage(ranked), clause, question.listed)
                clause = ranked
            elif retriever.passages:
                clause = by_best_passage(clause, question.listed)
        if question.filter is not None and (retriever.kind != "dense" or retriever.passages):
            clause = {"bool": {"should" if question.given else "must": [clause], "filter": [question.filter]}}
        body["query"] = clause
        body["size"] = size
        if question.by_id:
            body["sort"] = ["_score", "id"]
        elif not request.exact:
            body.update(self._dialect.pipeline(retriever.kind))
        return body

    def _dense_clause(self, question: _Question, k: int) -> Json:
        """The query for the nearest `k` documents."""
        retriever, path, listed = question.retriever, question.path, question.listed
        vector = np.ascontiguousarray(question.request.query, dtype=np.float32)
        if question.request.exact and self._dialect.approximate_dense:
            clause = self._dialect.exact_clause(
                path, retriever, vector, None if retriever.passages else question.filter
            )
            return by_best_passage(clause, listed) if retriever.passages else clause
        clause = self._dialect.dense_clause(path, retriever, vector, k, question.filter)
        if not retriever.passages:
            return clause
        scoring = self._dialect.scoring_clause(path, retriever, vector, listed=listed > 0)
        if scoring is None:
            return by_best_passage(clause, listed)
        found = [] if question.given else [by_best_passage(clause, boost=0)]
        return {"bool": {"must": [*found, by_best_passage(scoring, listed)]}}

    def _verdict(self, question: _Question, response: Json) -> Ranking | _Question:
        """The ranking, or the question that must be asked next. It is the same question if the search was too deep."""
        request, retriever = question.request, question.retriever
        k = int(min(request.k, MAX_WINDOW - 1))
        hits = response["hits"]["hits"]
        dense = retriever.kind == "dense"
        if dense:
            deepest = self._deepest(question)
            exact = not self._is_approximate(question)
            if question.by_id:
                if response["hits"]["total"]["value"] >= deepest:
                    return question
            elif (len(hits) >= deepest and k >= deepest) or (exact and _tied(hits, min(k, deepest - 1))):
                return replace(question, by_id=True)
        elif self._is_rough(question):
            if response["hits"]["total"]["value"] < seismic.candidates(k):
                return replace(question, by_id=True)  # the next search is exact
        elif question.heavy is not None and not question.heavy.has_all(hits, k, self._score_of(question)):
            return replace(question, all_terms=True)
        elif not question.by_id and _tied(hits, k):
            return replace(question, by_id=True)
        return self._ranking(question, hits, k)

    def _ranking(self, question: _Question, hits: Sequence[Json], k: int) -> Ranking:
        ids = [hit["fields"]["id"][0] for hit in hits]  # faster than many calls
        scored = self._score_of(question)
        pairs = [(id, scored(score)) for id, score in zip(ids, hit_scores(hits), strict=True)]
        if self._is_rough(question):  # leave out candidates that have none of the query's terms
            pairs = [(id, score) for id, score in pairs if score > 0]
        if hits and not {LENGTH, "document"}.isdisjoint(question.fields):
            some = hits[:_MEASURED]
            self._length = sum(map(hit_length, some)) / len(some)
        ranking = Ranking.from_scores(pairs, k)
        if not len(ranking):
            return EMPTY
        listed = question.listed > 0
        found: dict[str, Json] = {}
        if listed or "document" in question.fields:
            of_id = dict(zip(ids, hits, strict=True))
            found = {id: of_id[id] for id in ranking.ids}
        documents = _Documents(found) if "document" in question.fields else None
        return Ranking(ranking.ids, ranking.scores, documents, ListedPassages(found, scored) if listed else None)

    def _score_of(self, question: _Question) -> Callable[[float], float]:
        """The function that turns the engine's scores into ours."""
        metric = question.retriever.metric
        if metric is not None:
            return partial(self._dialect.similarity, metric)
        scale = 1.0 if question.retriever.kind == "text" else _scale(question.weights)
        return partial(mul, scale)

    def _is_rough(self, question: _Question) -> bool:
        first = question.filter is None and not question.by_id and not question.request.exact
        kind = question.retriever.kind
        return first and kind == "sparse" and self._dialect.rough_sparse and not question.retriever.passages

    def _in_parts(self, question: _Question) -> Steps[Ranking]:
        """Answer a dense search that is deeper than the engine allows, or has too many ties, part by part.

        Each part is a range of ids.
        """
        k = int(min(question.request.k, MAX_WINDOW - 1))
        bounds: list[str] = []
        filters = [] if question.filter is None else [question.filter]
        while True:
            page: Search = {**NO_FIELDS, "size": PART_DOCUMENTS, "track_total_hits": False, "sort": ["id"]}
            page["query"] = {"bool": {"filter": [{"exists": {"field": "id"}}, *filters]}}
            if bounds:
                page["search_after"] = [bounds[-1]]
            (response,) = yield [page]
            hits = response["hits"]["hits"]
            if len(hits) < PART_DOCUMENTS:
                break
            bounds.append(hits[-1]["sort"][0])
        parts = []
        for low, high in zip([None, *bounds], [*bounds, None], strict=True):
            limits = {**({} if low is None else {"gt": low}), **({} if high is None else {"lte": high})}
            conditions = [
                *([question.filter] if question.filter else []),
                *([{"range": {"id": limits}}] if limits else []),
            ]
            parts.append(replace(question, filter={"bool": {"filter": conditions}}, by_id=True))
        responses = yield [self._body(part) for part in parts]
        return self._ranking(question, [hit for response in responses for hit in response["hits"]["hits"]], k)


def _reads(ids: Sequence[str]) -> list[Search]:
    """The searches for documents and their stamps."""
    parts = [ids[start : start + WITH_DOCUMENTS] for start in range(0, len(ids), WITH_DOCUMENTS)]
    return [documents_by_query({"terms": {"id": part}}, len(part), STAMP) for part in parts]


def _beside(rounds: Steps[T], searches: Sequence[Search]) -> Steps[tuple[T, list[Json]]]:
    """The result of the rounds, and the responses to other searches, which are sent together with the first round."""
    waiting = [list(searches)]
    answers: list[Json] = []

    def ask(round: list[Search]) -> Steps[list[Json]]:
        responses = yield [*round, *(waiting.pop() if waiting else [])]
        answers.extend(responses[len(round) :])
        return responses[: len(round)]

    result = yield from through(rounds, ask)
    return result, answers


class _Documents(Mapping[str, Document]):
    """The documents of hits. A document is made when it is looked up, because few get into the final results."""

    def __init__(self, hits: Mapping[str, Json]) -> None:
        self.hits = hits

    def __getitem__(self, id: str) -> Document:
        return hit_document(self.hits[id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


def _best_parts(source: Json, retriever: str, weights: Mapping[str, float]) -> dict[str, float]:
    """What each term adds to the dot product of a query and a document, or the best passage of a document."""
    held: Sequence[Json] = [] if source is None else source.get(PASSAGES, [source])
    vectors = (passage.get("vectors", {}).get(retriever, {}) for passage in held)
    parts = (
        {term: weight * vector.get(encode_term(term), 0.0) for term, weight in weights.items()} for vector in vectors
    )
    best = max(parts, key=lambda values: sum(values.values()), default={})
    return {term: value for term, value in best.items() if value}


def _scale(weights: Mapping[str, float]) -> float:
    """The power of two by which weights are divided so that none is above MAX_WEIGHT. It is 1 in most cases."""
    largest = max(weights.values())
    return 1.0 if largest <= MAX_WEIGHT else 2.0 ** (frexp(largest / MAX_WEIGHT)[1])


def _tied(hits: Sequence[Json], k: int) -> bool:
    """Whether the hits before and after the cut have the same score."""
    return len(hits) > k and hit_score(hits[k - 1]) == hit_score(hits[k])
