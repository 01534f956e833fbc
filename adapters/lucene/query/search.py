"""Searches an index in rounds: asks questions, and asks some of them again when the answers are not enough.

This includes term statistics, ties at a cut, and searches that are too deep for one request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeAlias, TypeVar

from hybridsearch.adapters.checks import lexical_retriever, retriever_of
from hybridsearch.adapters.lucene.dialect import Dialect
from hybridsearch.adapters.lucene.query.answers import Documents, next_question, ranking_of
from hybridsearch.adapters.lucene.query.filters import compile_filter, one_of
from hybridsearch.adapters.lucene.query.maxscore import heavy_terms
from hybridsearch.adapters.lucene.query.passages import ListedPassages
from hybridsearch.adapters.lucene.query.questions import Question, path_of, question_of
from hybridsearch.adapters.lucene.query.statistics import Statistics, read_statistics, searches_for
from hybridsearch.adapters.lucene.stored.lines import encode_term
from hybridsearch.adapters.lucene.stored.mapping import PASSAGES
from hybridsearch.adapters.lucene.stored.reading import (
    LENGTH,
    NO_FIELDS,
    STAMP,
    documents_by_query,
    hit_id,
    hit_length,
)
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.adapters.lucene.wire.multisearch import Rounds, Search
from hybridsearch.adapters.steps import through
from hybridsearch.backends import Request, Schema
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError
from hybridsearch.filters import Filter
from hybridsearch.ranking import EMPTY, PassageScore, Ranking
from hybridsearch.vectors import SparseQuery

T = TypeVar("T")

Listed: TypeAlias = tuple[Mapping[str, Document], list[Mapping[str, Sequence[PassageScore]] | None]]
"""What `hybridsearch.backends.Lister.fetch_passages` returns."""

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

_SOURCES = 100  # documents whose vectors come with one search
_MEASURED = 20  # hits whose length is taken for that of all
_ATTEMPTS = 4  # after these, statistics are used even if they change all the time


class Searcher:
    """Searches one index. It keeps the document frequencies of lexical retrievers until the index changes."""

    def __init__(self, schema: Schema, dialect: Dialect, *, literal: bool = False, impacts: bool = False) -> None:
        self.schema = schema
        self._dialect = dialect
        self._literal = literal
        self._by_impacts = impacts
        self._question = partial(question_of, schema=schema, dialect=dialect, literal=literal, by_impacts=impacts)
        self._statistics = Statistics()
        self._length: float | None = None  # mean length of the documents of the last search

    def search(self, requests: Sequence[Request]) -> Rounds[list[Ranking]]:
        """The rankings, in the order of the requests.

        They have their documents if the requests ask for at most `WITH_DOCUMENTS` hits and the documents are short.
        There is one request. Another one follows if frequencies are unknown, if there are ties at a cut, or if
        documents that were left out may be hits.
        """
        filters = [request.filter for request in requests if request.filter is not None]
        return (yield from self._checked(self._search(requests), filters))

    def list_passages(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> Rounds[Listed]:
        """The documents `ids`, and the passages that each request finds in its documents.

        They come with one request. If one retriever lists passages, its hits come with their documents, and ids that
        are no hits need another request. If several do, the documents come once, and the stamps of all hits tell
        which passages are of another version.
        """
        wanted = list(dict.fromkeys(chain.from_iterable(ids)))
        questions = [
            replace(question, filter=one_of(ids[question.position]), given=True)
            for question in (
                self._question(replace(request, k=len(ids[place]), filter=None), place)
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
            hits = dict(sent.hits) if isinstance(sent, Documents) else {}
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
        return Documents(hits), passages

    def count(self, filter: Filter | None) -> Rounds[int]:
        """The number of documents that the filter lets through."""
        query = self.query(filter)

        def rounds() -> Rounds[int]:
            (response,) = yield [{"size": 0, "track_total_hits": True, "query": query}]
            return int(response["hits"]["total"]["value"])

        return (yield from self._checked(rounds(), [] if filter is None else [filter]))

    def query(self, filter: Filter | None) -> Json:
        """The query for the documents that the filter lets through. The `checks` of the filter are not part of it."""
        return {"match_all": {}} if filter is None else compile_filter(filter, literal=self._literal)

    def _checked(self, rounds: Rounds[T], filters: Sequence[Filter]) -> Rounds[T]:
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
        if looks and not responses:  # there was no round
            responses = yield looks
        for check, told in zip(checks, responses, strict=True):
            if bool(told["hits"]["hits"]) is not check.some:
                raise FilterError(check.error)
        return result

    def _search(self, requests: Sequence[Request]) -> Rounds[list[Ranking]]:
        asked = [self._question(request, position) for position, request in enumerate(requests)]
        questions = [question for question in asked if question is not None]
        fields = self._fields(questions)
        return (yield from self._answers([replace(question, fields=fields) for question in questions], len(requests)))

    def _answers(self, waiting: list[Question], count: int) -> Rounds[list[Ranking]]:
        """The rankings of `count` requests. A request without a question has an empty one."""
        rankings = [EMPTY] * count
        deep: list[Question] = []
        attempt, known = 0, self._statistics
        while waiting:
            attempt += 1
            missing = {key for q in waiting for key in q.keys if key not in known.frequencies}
            asked: list[Question] = []
            held: list[Question] = []
            for q in waiting:
                (asked if missing.isdisjoint(q.keys) else held).append(q)
            ready = [self._weighed(q, known) for q in asked]
            bodies = [q.body() for q in ready if q is not None]
            lexical = any(q.retriever.kind == "lexical" for q in waiting)
            if lexical:
                bodies += searches_for(missing, self._dialect)
            responses = yield bodies
            current = True
            if lexical:
                told = responses[sum(q is not None for q in ready) :]
                now = self._statistics = read_statistics(told, missing, known)
                current = now.state == known.state or attempt >= _ATTEMPTS
                known = now if attempt < _ATTEMPTS else now.with_older(known)
            answers = iter(responses)
            waiting = held
            for question, weighed in zip(asked, ready, strict=True):
                response = next(answers) if weighed is not None else None
                if question.retriever.kind == "lexical" and not current:
                    waiting.append(question)
                elif weighed is not None and response is not None:
                    again = next_question(weighed, response)
                    if again is None:
                        rankings[question.position] = self._ranking(weighed, response["hits"]["hits"])
                    elif again is weighed:
                        deep.append(weighed)
                    else:
                        waiting.append(replace(question, by_id=again.by_id, all_terms=again.all_terms))
        for question in deep:
            rankings[question.position] = yield from self._in_parts(question)
        return rankings

    def _fields(self, questions: Sequence[Question]) -> tuple[str, ...]:
        """The fields that each hit contains."""
        hits = sum(question.request.k for question in questions)
        if self.schema.passages is None:
            short = self._length is None or hits * self._length <= WITH_CHARACTERS
            return ("id", "document") if hits <= WITH_DOCUMENTS and short else ("id",)
        if any(question.retriever.passages and not question.listed for question in questions):
            return ("id",)  # the documents come later, with their passages
        few = hits <= WITH_DOCUMENTS and self._length is not None and hits * self._length <= WITH_CHARACTERS
        return ("id", LENGTH, "document") if few else ("id", LENGTH)

    def explain(
        self, requests: Sequence[Request], ids: Sequence[Sequence[str]]
    ) -> Rounds[list[list[dict[str, float]]]]:
        """What each term of a query adds to the scores of documents, for each request and each of its `ids`.

        The vectors come with the frequencies of the terms, in one request.
        """
        of_passages = {one.retriever: retriever_of(self.schema, one.retriever).passages for one in requests}
        paths = [f"{f'{PASSAGES}.' if within else ''}vectors.{name}" for name, within in of_passages.items()]
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
            [
                _best_parts(_held(sources.get(id, {}), of_passages[request.retriever]), request.retriever, of_request)
                for id in of_ids
            ]
            for request, of_request, of_ids in zip(requests, weights, ids, strict=True)
        ]

    def document_frequencies(self, name: str, terms: Sequence[str]) -> Rounds[tuple[list[int], int]]:
        """The number of documents or passages that have each term, and of all of them. There is at least one term."""
        retriever = lexical_retriever(self.schema, name)
        path = path_of(name, retriever, by_impacts=self._by_impacts)
        keys = [(path, encode_term(term)) for term in terms]
        missing = {key for key in keys if key not in self._statistics.frequencies}
        while True:
            found = read_statistics((yield searches_for(missing, self._dialect)), missing, self._statistics)
            self._statistics = found
            if all(key in found.frequencies for key in keys):
                return [found.frequencies[key] for key in keys], found.texts(path)
            missing = set(keys)  # the index has changed, so what was known is forgotten

    def _weights(self, requests: Sequence[Request]) -> Rounds[list[dict[str, float]]]:
        """The weights of the terms of each query as they are now, by term. There is always one round."""
        questions = [self._question(request, place) for place, request in enumerate(requests)]
        missing = {key for question in questions if question is not None for key in question.keys}
        responses = yield searches_for(missing, self._dialect) if missing else []
        known = self._statistics
        if missing:
            known = self._statistics = read_statistics(responses, missing, known)
        weights: list[dict[str, float]] = []
        for question in questions:
            if question is None or not isinstance(question.request.query, SparseQuery):
                weights.append({})
                continue
            lexical = question.retriever.kind == "lexical"
            of_names = question.idf_weights(known) if lexical else question.weights
            terms = question.request.query.terms
            weights.append({term: of_names[name] for term in terms if (name := encode_term(term)) in of_names})
        return weights

    def forget(self) -> None:
        """Forget all frequencies, because this process has written to the index."""
        self._statistics = Statistics()

    def _weighed(self, question: Question, known: Statistics) -> Question | None:
        """The question with the weights to send. None if no term can match."""
        if question.retriever.kind != "lexical":
            return question
        weights = question.idf_weights(known)
        if not weights:
            return None
        question = replace(question, weights=weights)
        # Lucene passes over documents that cannot be hits. It does not if there is a filter, and the engine adds one to
        # each search of an index with passages. If the user gives a filter, too, the frequencies do not tell how many
        # documents it lets through, so that search stays as it is.
        if self.schema.passages is None or question.filter is not None or question.all_terms:
            return question
        frequencies = {term: known.frequencies[question.path, term] for term in weights}
        largest = question.weighting.largest
        return replace(question, heavy=heavy_terms(weights, frequencies, largest, question.request.k))

    def _ranking(self, question: Question, hits: Sequence[Json]) -> Ranking:
        """The ranking of the hits. It also measures their documents, for the next search."""
        if hits and not {LENGTH, "document"}.isdisjoint(question.fields):
            some = hits[:_MEASURED]
            self._length = sum(map(hit_length, some)) / len(some)
        return ranking_of(question, hits)

    def _in_parts(self, question: Question) -> Rounds[Ranking]:
        """Answer a dense search that is deeper than the engine allows, or has too many ties, part by part.

        Each part is a range of ids.
        """
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
        responses = yield [part.body() for part in parts]
        return self._ranking(question, [hit for response in responses for hit in response["hits"]["hits"]])


def _reads(ids: Sequence[str]) -> list[Search]:
    """The searches for documents and their stamps."""
    parts = [ids[start : start + WITH_DOCUMENTS] for start in range(0, len(ids), WITH_DOCUMENTS)]
    return [documents_by_query({"terms": {"id": part}}, len(part), STAMP) for part in parts]


def _beside(rounds: Rounds[T], searches: Sequence[Search]) -> Rounds[tuple[T, list[Json]]]:
    """The result of the rounds, and the responses to other searches, which are sent together with the first round."""
    waiting = [list(searches)]
    answers: list[Json] = []

    def ask(round: list[Search]) -> Rounds[list[Json]]:
        responses = yield [*round, *(waiting.pop() if waiting else [])]
        answers.extend(responses[len(round) :])
        return responses[: len(round)]

    result = yield from through(rounds, ask)
    return result, answers


def _held(source: Json, of_passages: bool) -> Sequence[Json]:
    """The passages of a document with their vectors, or the document itself if the retriever reads it whole."""
    found: Sequence[Json] = source.get(PASSAGES, []) if of_passages else [source]
    return found


def _best_parts(held: Sequence[Json], retriever: str, weights: Mapping[str, float]) -> dict[str, float]:
    """What each term adds to the dot product of a query and a document, or the best passage of a document."""
    vectors = (passage.get("vectors", {}).get(retriever, {}) for passage in held)
    parts = (
        {term: weight * vector.get(encode_term(term), 0.0) for term, weight in weights.items()} for vector in vectors
    )
    best = max(parts, key=lambda values: sum(values.values()), default={})
    return {term: value for term, value in best.items() if value}
