"""Tests of feedback: document frequencies, and both passes compared with formulas that are written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from hybridsearch.backends import Backend, Counted, Kind, Request, Schema, Vectored
from hybridsearch.encoders import Encoder
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.feedback import RM3, Feedback, Planned, Rocchio
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Kinds, Load, case, check, put, require
from hybridsearch.testing.samples import Item
from hybridsearch.vectors import QueryVector, SparseQuery, Vectors

_FED: Kinds = ("lexical", "sparse", "dense")
"""The kinds of retrievers that take feedback."""


class FeedbackTests(Base):
    """Tests of `document_frequencies`, for a backend that has it, and of the second pass of a search with feedback."""

    def test_the_documents_with_each_term_are_counted(self, filled: Backend, lexical: Kind) -> None:
        if not isinstance(filled, Counted):
            pytest.skip("the backend declares no document frequencies")
        items, terms = samples.random_items(), ["unknown", *reversed(samples.WORDS)]
        counts, total = filled.document_frequencies(lexical, terms)
        assert list(counts) == [sum(term in item.counts for item in items) for term in terms]
        assert total == len(items)
        assert list(filled.document_frequencies(lexical, ["word3"])[0]) == [counts[terms.index("word3")]]
        for name in ("stranger", *(kind for kind in ("dense", "sparse") if kind in filled.capabilities.kinds)):
            with pytest.raises(InvalidArgumentError, match=name):
                filled.document_frequencies(name, ["word3"])

    def test_the_counts_follow_updates_and_deletions(self, backend: Backend, schema: Schema, lexical: Kind) -> None:
        if not isinstance(backend, Counted):
            pytest.skip("the backend declares no document frequencies")
        require(backend.capabilities.delete, "delete")
        put(backend, [Item("a", {"wing": 2}), Item("b", {"wing": 1, "flow": 1}), Item("c", {"heat": 1})], schema)
        terms = ["wing", "flow", "heat"]
        assert (list(backend.document_frequencies(lexical, terms)[0]), backend.count()) == ([2, 1, 1], 3)
        put(backend, [Item("b", {"heat": 3}), Item("d", {"wing": 1})], schema)
        backend.delete(["a"])
        backend.refresh()
        counts, total = backend.document_frequencies(lexical, terms)
        assert (list(counts), total) == ([1, 0, 2], 3)

    def test_passages_are_counted_if_the_retriever_reads_passages(
        self, load: Load, schema: Schema, lexical: Kind
    ) -> None:
        require(load("filled", [samples.random_items()]).capabilities.passages, "passages")
        items = samples.long_items()
        backend = load("passages", [items[:11], items[11:32], items[32:]], samples.with_passages(schema))
        if not isinstance(backend, Counted):
            pytest.skip("the backend declares no document frequencies")
        passages = [passage for item in items for passage in item.parts.values()]
        counts, total = backend.document_frequencies(lexical, samples.WORDS)
        assert list(counts) == [sum(term in passage.counts for passage in passages) for term in samples.WORDS]
        assert total == len(passages)

    def test_the_second_pass_finds_the_documents_of_the_expanded_query(
        self, filled: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        items = {item.id: item for item in samples.random_items()}
        for kind in (kind for kind in kinds if kind in _FED):
            methods: list[Feedback] = [Rocchio(4, 0.7, 0.3)]
            if kind == "lexical":
                methods = [RM3(5, 4, 0.6, 1.0), *([RM3(max_share=0.25)] if isinstance(filled, Counted) else [])]
            filters = [None, Filter.parse({"parity": "odd"})] if filled.capabilities.filters else [None]
            requests = [
                Request(kind, query, 10, filter) for query in samples.random_queries(kind, 3) for filter in filters
            ]
            for method in methods:
                first, second = _both_passes(filled, schema, kind, method, requests)
                for request, ranking, expanded in zip(requests, first, second, strict=True):
                    read = [items[id] for id in ranking.ids]
                    assert 0 < len(read) <= method.documents
                    right = _right_query(kind, method, request.query, read, ranking.scores.tolist(), items.values())
                    with case(kind=kind, method=method, filter=request.filter):
                        assert _plain(expanded.query) == pytest.approx(_plain(right), rel=1e-5, abs=1e-7)
                        found = [item for id, item in items.items() if request.filter is None or int(id[1:]) % 2]
                        if request.filter is None:
                            check(filled, kind, found, expanded.query)
                        else:
                            (shown,) = filled.search([expanded])
                            assert set(shown.ids) <= {item.id for item in found}

    def test_the_best_passage_is_read(self, load: Load, schema: Schema, kinds: Kinds) -> None:
        require(load("filled", [samples.random_items()]).capabilities.passages, "passages")
        items = {item.id: item for item in samples.long_items()}
        of_passages = samples.with_passages(schema)
        parts = list(items.values())
        backend = load("passages", [parts[:11], parts[11:32], parts[32:]], of_passages)
        if not isinstance(backend, Vectored):
            pytest.skip("the backend declares no vectors of single documents")
        method = Rocchio(3, 0.5, 0.5)
        for kind in (kind for kind in kinds if kind in _FED[1:]):
            requests = [Request(kind, query, 10) for query in samples.random_queries(kind, 2)]
            first, second = _both_passes(backend, of_passages, kind, method, requests)
            for request, ranking, expanded in zip(requests, first, second, strict=True):
                best = ranking.passages or {}
                read = [items[id].parts[best[id][0].start, best[id][0].end] for id in ranking.ids]
                right = _right_query(kind, method, request.query, read, ranking.scores.tolist(), [])
                with case(kind=kind):
                    assert len(read) == 3
                    assert _plain(expanded.query) == pytest.approx(_plain(right), rel=1e-5, abs=1e-7)


class _Samples:
    """An encoder that gives the random items their vectors, by text."""

    def __init__(self, kind: Kind) -> None:
        self._kind, self._items = kind, {item.text: item for item in samples.random_items()}

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> Vectors:
        items = [self._items[text] for text in texts]
        return samples.encode(items, samples.make_schema(frozenset({self._kind}))).vectors[self._kind]


def _both_passes(
    backend: Backend, schema: Schema, kind: Kind, method: Feedback, requests: Sequence[Request]
) -> tuple[list[Ranking], list[Request]]:
    """The rankings of the first pass, and the requests of the second."""
    from hybridsearch.expanding import expand, first_requests  # loads a stemmer, which other tests do not need

    planned: dict[str, Planned] = {kind: Planned(method, schema.retrievers[kind])}
    first = backend.search(first_requests({kind: requests}, planned))
    known: Any = _Samples(kind)
    encoder = cast(Encoder, known)
    expanded, _ = expand({kind: requests}, planned, first, backend, lambda _: encoder)
    return first, expanded[kind]


def _right_query(
    kind: Kind,
    method: Feedback,
    query: QueryVector,
    read: Sequence[Item],
    scores: Sequence[float],
    items: Any,
) -> QueryVector:
    """The query of the second pass, by the formulas of `RM3` and `Rocchio`."""
    if isinstance(method, RM3):
        return samples.sparse_query(_right_rm3(method, cast(SparseQuery, query), read, scores, list(items)))
    if kind == "dense":
        mean = np.mean([item.vector for item in read if item.vector is not None], axis=0, dtype=np.float64)
        return samples.unit(method.alpha * np.asarray(query, dtype=np.float64) + method.beta * mean)
    weights = _plain(query)
    sums = {term: method.alpha * weight for term, weight in weights.items()}
    for item in read:
        for term, weight in item.weights.items():
            sums[term] = sums.get(term, 0.0) + method.beta * weight / len(read)
    return samples.sparse_query(sums)


def _right_rm3(
    method: RM3, query: SparseQuery, read: Sequence[Item], scores: Sequence[float], items: Sequence[Item]
) -> Mapping[str, float]:
    """The weights of the query by RM3, with one array over all words."""
    words = sorted({*samples.WORDS, *query.terms})
    frequency = np.array([sum(word in item.counts for item in items) for word in words]) / len(items)
    model = np.zeros(len(words))
    for item, score in zip(read, scores, strict=True):
        counts = np.array([item.counts.get(word, 0.0) for word in words]) * (frequency <= method.max_share)
        counts[np.argsort(-counts, kind="stable")[method.terms :]] = 0
        if counts.any():
            model += score * counts / counts.sum()
    model[np.argsort(-model, kind="stable")[method.terms :]] = 0
    if not model.any():
        return _plain(query)
    asked = np.array([_plain(query).get(word, 0.0) for word in words])
    mixed = method.original * asked / asked.sum() + (1 - method.original) * model / model.sum()
    return {word: weight for word, weight in zip(words, mixed.tolist(), strict=True) if weight}


def _plain(query: QueryVector) -> dict[str, float]:
    """The weights of a query by term, or by the number of the dimension."""
    if isinstance(query, SparseQuery):
        return dict(zip(query.terms, query.weights.tolist(), strict=True))
    return {str(number): value for number, value in enumerate(cast(Any, query).tolist())}
