"""A question: a request to one index, and the body of the search that asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import frexp
from operator import mul

import numpy as np

from hybridsearch.adapters.checks import dense_query, hits_of, retriever_of, sparse_query
from hybridsearch.adapters.lucene import impacts
from hybridsearch.adapters.lucene.dialect import Dialect
from hybridsearch.adapters.lucene.query.filters import compile_filter
from hybridsearch.adapters.lucene.query.maxscore import Heavy
from hybridsearch.adapters.lucene.query.passages import by_best_passage, with_lists
from hybridsearch.adapters.lucene.query.statistics import Key, Statistics
from hybridsearch.adapters.lucene.stored.lines import encode_term
from hybridsearch.adapters.lucene.stored.mapping import MAX_WINDOW, PASSAGES
from hybridsearch.adapters.lucene.stored.reading import NO_FIELDS
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.adapters.lucene.wire.multisearch import Search
from hybridsearch.backends import Request, RetrieverSchema, Schema
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import TextQuery
from hybridsearch.weighting import BM25Weighting

MAX_WEIGHT = 64.0
"""The largest query weight that Lucene's feature queries take. Larger weights are scaled down, and the scores up."""

_ANY = 2**31 - 1  # a number of hits that no index has


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A request that is being answered. For a lexical request, `weights` are counts until idf is known."""

    position: int
    request: Request
    retriever: RetrieverSchema
    dialect: Dialect
    path: str  # of the field that is searched
    filter: Json | None
    weights: Mapping[str, float] = field(default_factory=dict)
    fields: tuple[str, ...] = ("id",)  # fields that each hit contains
    by_id: bool = False  # whether the engine must order ties by id
    heavy: Heavy | None = None  # the terms of which each hit has one
    all_terms: bool = False  # whether hits with any of the terms count
    given: bool = False  # whether the filter names the documents. Those without a match are hits too, with score 0

    @property
    def k(self) -> int:
        """The number of hits that the ranking may have."""
        return int(min(self.request.k, MAX_WINDOW - 1))

    @property
    def listed(self) -> int:
        """The number of passages to list for each document."""
        return self.request.passages if self.retriever.passages else 0

    @property
    def keys(self) -> list[Key]:
        """The keys of the terms whose idf is needed."""
        lexical = self.retriever.kind == "lexical"
        return [(self.path, term) for term in self.weights] if lexical else []

    @property
    def weighting(self) -> BM25Weighting:
        """The formula of a lexical retriever."""
        return BM25Weighting(**(self.retriever.weighting or {}))

    @property
    def is_approximate(self) -> bool:
        """Whether a dense search may miss documents."""
        return self.dialect.approximate_dense and not self.request.exact

    @property
    def is_settled(self) -> bool:
        """Whether an approximate search for more hits finds the same hits first. Ties at its cut are resolved."""
        return self.is_approximate and self.k < self.dialect.least_candidates

    @property
    def is_rough(self) -> bool:
        """Whether this is a SEISMIC search (see `seismic`)."""
        first = self.filter is None and not self.by_id and not self.request.exact
        return first and self.retriever.kind == "sparse" and self.dialect.rough_sparse and not self.retriever.passages

    @property
    def deepest(self) -> int:
        """The largest number of hits of one dense search."""
        return _ANY if self.request.exact and self.dialect.approximate_dense else self.dialect.deepest_dense()

    @property
    def scored(self) -> Callable[[float], float]:
        """The function that turns the engine's scores into ours."""
        metric = self.retriever.metric
        if metric is not None:
            return partial(self.dialect.similarity, metric)
        return partial(mul, 1.0 if self.retriever.kind == "text" else _scale(self.weights))

    def idf_weights(self, known: Statistics) -> dict[str, float]:
        """The weights of a lexical request, from its counts. Terms that no document has are left out."""
        found = [known.frequencies.get(key, 0) for key in self.keys]
        held = [(term, n) for term, n in zip(self.weights, found, strict=True) if n > 0]
        if not held:
            return {}
        idf = self.weighting.idf(np.array([n for _, n in held], dtype=np.int64), known.texts(self.path)).tolist()
        weights = {term: self.weights[term] * value for (term, _), value in zip(held, idf, strict=True)}
        return {term: weight for term, weight in weights.items() if weight > 0}

    def body(self) -> Search:
        """The body of the search. It asks for one hit more than the ranking has if that shows a tie at the cut."""
        body: Search = {**NO_FIELDS, "docvalue_fields": self.fields, "track_total_hits": False}
        size = self.k if self.by_id else self.k + 1
        if self.retriever.kind == "dense":
            size = self.k if self.is_approximate and not self.is_settled else size
            most = self.dialect.least_candidates if self.is_settled else self.deepest
            clause = self._dense_clause(most if self.by_id else min(size, self.deepest))
            body["track_total_hits"] = self.by_id
        elif isinstance(self.request.query, TextQuery):
            clause = {"match": {self.path: {"query": self.request.query.text}}}
            clause = by_best_passage(clause, self.listed) if self.retriever.passages else clause
        else:
            scale = _scale(self.weights)
            weights = {term: weight / scale for term, weight in self.weights.items()}
            pruned = self.retriever.kind == "sparse" and not self.request.exact
            clause = self.dialect.sparse_clause(self.path, weights, pruned=pruned)
            if self.is_rough:
                rough = self.dialect.rough_search(self.request.retriever, weights, self.k, clause)
                return {**body, **rough, "size": self.k}
            clause = self._sparse_clause(clause, weights)
        if self.filter is not None and (self.retriever.kind != "dense" or self.retriever.passages):
            clause = {"bool": {"should" if self.given else "must": [clause], "filter": [self.filter]}}
        body["query"] = clause
        body["size"] = size
        if self.by_id:
            body["sort"] = ["_score", "id"]
        elif not self.request.exact:
            body.update(self.dialect.pipeline(self.retriever.kind))
        return body

    def _sparse_clause(self, clause: Json, weights: Mapping[str, float]) -> Json:
        """The query for the documents with a heavy term. `clause` scores documents or passages."""
        if self.heavy is None:
            return by_best_passage(clause, self.listed) if self.retriever.passages else clause
        heavy = {term: weights[term] for term in self.heavy.terms}
        needed = self.dialect.sparse_clause(self.path, heavy, pruned=False)
        ranked: Json = {"bool": {"must": [clause], "filter": [needed]}}
        if not self.retriever.passages:
            return ranked
        return with_lists(by_best_passage(ranked), clause, self.listed)  # listed passages need not have a heavy term

    def _dense_clause(self, k: int) -> Json:
        """The query for the nearest `k` documents."""
        retriever, path, listed = self.retriever, self.path, self.listed
        vector = np.ascontiguousarray(self.request.query, dtype=np.float32)
        if self.request.exact and self.dialect.approximate_dense:
            clause = self.dialect.exact_clause(path, retriever, vector, None if retriever.passages else self.filter)
            return by_best_passage(clause, listed) if retriever.passages else clause
        clause = self.dialect.dense_clause(path, retriever, vector, k, self.filter)
        if not retriever.passages:
            return clause
        scoring = partial(self.dialect.scoring_clause, path, retriever, vector)
        again, lister = scoring(listed=False), scoring(listed=listed > 0)
        if self.given:
            return by_best_passage(lister or clause, listed)
        if again is not None:
            return {"bool": {"must": [by_best_passage(clause, boost=0), by_best_passage(again, listed)]}}
        if lister is None:
            return by_best_passage(clause, listed)
        return with_lists(by_best_passage(clause), lister, listed)


def question_of(
    request: Request, position: int, schema: Schema, dialect: Dialect, *, literal: bool, by_impacts: bool
) -> Question | None:
    """The question for a request. None if no document can match.

    Args:
        request: The request.
        position: Its place among the requests of a call.
        schema: Schema of the index.
        dialect: The engine.
        literal: Whether the index is literal (see `stored.fields`).
        by_impacts: Whether the sparse vectors of passages are found by the fields of `impacts`.
    """
    name, query = request.retriever, request.query
    retriever = retriever_of(schema, name)
    hits_of(request)
    filter = None if request.filter is None else compile_filter(request.filter, literal=literal)
    path = path_of(name, retriever, by_impacts=by_impacts)
    asked = partial(Question, position, request, retriever, dialect, path, filter)
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


def path_of(name: str, retriever: RetrieverSchema, *, by_impacts: bool) -> str:
    """The path of the field that a retriever searches."""
    if retriever.passages and by_impacts and retriever.kind in ("lexical", "sparse"):
        return f"{PASSAGES}.{impacts.MEMBER}.{name}"
    within = f"{PASSAGES}." if retriever.passages else ""
    return f"{within}{'content' if retriever.kind == 'text' else 'vectors'}.{name}"


def _scale(weights: Mapping[str, float]) -> float:
    """The power of two by which weights are divided so that none is above MAX_WEIGHT. It is 1 in most cases."""
    largest = max(weights.values())
    return 1.0 if largest <= MAX_WEIGHT else 2.0 ** (frexp(largest / MAX_WEIGHT)[1])
