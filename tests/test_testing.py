"""Tests of the conformance suite: a backend that follows the contract passes it, and each known fault makes it fail."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch.testing
from hybridsearch.backends import Capabilities, Request, RetrieverSchema, Schema, check_batch, check_schema
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, FilterError, IndexExistsError, InvalidArgumentError, install_command
from hybridsearch.filters import Filter, holds
from hybridsearch.listing import Key, Order, in_order, with_documents
from hybridsearch.ranking import EMPTY, PassageScore, Ranking
from hybridsearch.testing import BackendSuite
from hybridsearch.testing.base import KINDS, TERM_KINDS, Kinds, put
from hybridsearch.testing.filtering import ITEMS
from hybridsearch.testing.listing import LISTED, ListingTests
from hybridsearch.testing.oracles import right_passages, right_scores
from hybridsearch.testing.passages import PassageTests
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.samples import Item, encode, long_items, make_schema, random_items, with_passages
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    MultiVectors,
    PassageSpans,
    SparseQuery,
    SparseVectors,
    Vectors,
    take,
)


class PlainBackend:
    """A backend with items in a dict. The oracles of the suite score them, so it is slow and right."""

    capabilities = Capabilities(frozenset(KINDS), passages=True)

    def __init__(self) -> None:
        self.schema: Schema | None = None
        self.items: dict[str, dict[str, Item]] = {}  # by document id, then by retriever
        self.documents: dict[str, Document] = {}
        self.spans: dict[str, list[tuple[int, int]]] = {}
        self.closed = False
        self.lock = threading.RLock()

    def open(self) -> Schema | None:
        return None

    def create(self, schema: Schema) -> None:
        if self.schema is not None:
            raise IndexExistsError("There is an index already.")
        check_schema(schema, self)
        self.schema = schema

    def upsert(self, batch: EncodedBatch) -> None:
        schema = self._open()
        check_batch(batch, schema)
        with self.lock:
            for row, document in enumerate(batch.documents):
                self.documents[document.id] = document
                self.spans[document.id] = _spans(batch, row)
                self.items[document.id] = {name: _item(batch, schema, name, row) for name in schema.retrievers}

    def delete(self, ids: Sequence[str]) -> int:
        self._open()
        with self.lock:
            known = set(ids) & self.documents.keys()
            for id in known:
                del self.documents[id], self.items[id]
            return len(known)

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        self._open()
        return [self.documents.get(id) for id in ids]

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        self._open()
        with self.lock:
            return [self.rank(self.scores(request), request) for request in requests]

    def scores(self, request: Request) -> dict[str, float]:
        retriever = self._check(request)
        if retriever.passages:
            return {id: max(scores.values()) for id, scores in self.passages(request).items()}
        items = [items[request.retriever] for items in self.items.values()]
        return right_scores(retriever.kind, items, request.query, retriever.metric or "cosine")

    def passages(self, request: Request) -> dict[str, dict[tuple[int, int], float]]:
        """The scores of passages by span, by document id. The best passage is first."""
        retriever = self._check(request)
        items = [items[request.retriever] for items in self.items.values()]
        right = right_passages(retriever.kind, items, request.query, retriever.metric or "cosine")
        return {id: dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))) for id, scores in right.items()}

    def rank(self, scores: dict[str, float], request: Request) -> Ranking:
        passing = {id: score for id, score in scores.items() if self._passes(request.filter, id)}
        ranking = Ranking.from_scores(passing, request.k)
        if not request.passages or not ranking.ids or not self._check(request).passages:
            return ranking
        found = self.passages(request)
        listed = {
            id: [PassageScore(*span, score) for span, score in found[id].items()][: request.passages]
            for id in ranking.ids
        }
        return replace(ranking, passages=listed)

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        best = {}
        if self._check(request).passages:
            best = {id: next(iter(scores)) for id, scores in self.passages(request).items()}
        terms = request.query.terms if isinstance(request.query, SparseQuery) else ()
        weights = request.query.weights if isinstance(request.query, SparseQuery) else []
        parts: list[dict[str, float]] = [{} for _ in ids]
        for term, weight in zip(terms, weights, strict=True):
            query = SparseQuery((term,), np.array([weight], dtype=np.float32))
            scores = self.scores(Request(request.retriever, query, request.k))
            if best:
                of_passages = self.passages(Request(request.retriever, query, request.k))
                scores = {id: of_passages[id][span] for id, span in best.items() if span in of_passages.get(id, ())}
            for part, id in zip(parts, ids, strict=True):
                if id in scores:
                    part[term] = scores[id]
        return parts

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        schema, ids = self._open(), list(self.documents)
        for start in range(0, len(ids), batch_size):
            part = ids[start : start + batch_size]
            batches = {
                name: encode([self.items[id][name] for id in part], replace(schema, retrievers={name: retriever}))
                for name, retriever in schema.retrievers.items()
            }
            vectors = {name: batch.vectors[name] for name, batch in batches.items()}
            passages = None if schema.passages is None else PassageSpans.of([self.spans[id] for id in part])
            yield EncodedBatch([self.documents[id] for id in part], vectors, passages)

    def count(self, filter: Filter | None = None) -> int:
        self._open()
        self._check_filter(filter)
        return sum(self._passes(filter, id) for id in self.documents)

    def refresh(self) -> None:
        self._open()

    def close(self) -> None:
        self.closed = True

    def _open(self) -> Schema:
        if self.closed or self.schema is None:
            raise BackendError("The index is not open.")
        return self.schema

    def _check(self, request: Request) -> RetrieverSchema:
        retriever = self._open().retrievers.get(request.retriever)
        self._check_filter(request.filter)
        if retriever is None or request.k < 1:
            raise InvalidArgumentError(f"No retriever {request.retriever!r}, or k = {request.k} is below 1.")
        query = request.query
        if isinstance(query, SparseQuery) != (retriever.kind in TERM_KINDS):
            raise InvalidArgumentError(f"{request.retriever!r} is {retriever.kind}.")
        if isinstance(query, np.ndarray):
            shapes = {"dense": (retriever.dimensions,), "multi_vector": (len(query), retriever.dimensions)}
            if query.shape != shapes[retriever.kind] or not np.isfinite(query).all():
                raise InvalidArgumentError(f"A vector of a query has {retriever.dimensions} finite numbers.")
        return retriever

    def _passes(self, filter: Filter | None, id: str) -> bool:
        return filter is None or holds(filter.condition, self.documents[id])

    def _check_filter(self, filter: Filter | None) -> None:
        for check in filter.checks() if filter else ():
            if any(holds(check.condition, document) for document in self.documents.values()) is not check.some:
                raise FilterError(check.error)


def _spans(batch: EncodedBatch, row: int) -> list[tuple[int, int]]:
    return [] if batch.passages is None else [(start, end) for start, end in batch.passages.take([row]).spans.tolist()]


def _item(batch: EncodedBatch, schema: Schema, name: str, row: int) -> Item:
    """A document as one retriever sees it."""
    id, vectors = batch.documents[row].id, batch.vectors[name]
    if batch.passages is None or not schema.retrievers[name].passages:
        return _of_row(id, vectors, row)
    rows = batch.passages.rows([row]).tolist()
    return Item(
        id,
        passages={span: _of_row(id, vectors, passage) for span, passage in zip(_spans(batch, row), rows, strict=True)},
    )


def _of_row(id: str, vectors: Vectors, row: int) -> Item:
    if isinstance(vectors, DenseVectors):
        return Item(id, vector=vectors.array[row].copy())
    if isinstance(vectors, MultiVectors):
        return Item(id, tokens=vectors.of_row(row).astype(np.float32))
    matrix = vectors.matrix[[row]]
    terms = {vectors.vocabulary.terms[c]: v for c, v in zip(matrix.indices, matrix.data.tolist(), strict=True)}
    return Item(id, {term: value for term, value in terms.items() if value}, terms)


class TestPlainBackend(BackendSuite):
    many = 2000

    @pytest.fixture
    def connect(self) -> Callable[[str], PlainBackend]:
        return lambda name: PlainBackend()


class _StoresNoPassages(PlainBackend):
    capabilities = Capabilities()


class TestWithoutPassages(PassageTests):
    @pytest.fixture
    def connect(self) -> Callable[[str], PlainBackend]:
        return lambda name: _StoresNoPassages()


@pytest.fixture(scope="class")
def shared_by_class() -> Iterator[dict[str, PlainBackend]]:
    made: dict[str, PlainBackend] = {}
    yield made
    assert all(backend.closed for backend in made.values())


class TestIndexesThatAreShared(RankingTests):
    @pytest.fixture
    def connect(self) -> Callable[[str], PlainBackend]:
        return lambda name: PlainBackend()

    @pytest.fixture
    def connect_shared(self, shared_by_class: dict[str, PlainBackend]) -> Callable[[str], PlainBackend]:
        def connect(name: str) -> PlainBackend:
            assert name not in shared_by_class
            return shared_by_class.setdefault(name, PlainBackend())

        return connect


class _TiesByInsertion(PlainBackend):
    def rank(self, scores: dict[str, float], request: Request) -> Ranking:
        pairs = sorted(scores.items(), key=lambda pair: -pair[1])
        return Ranking.from_scores([pair for pair in pairs if self._passes(request.filter, pair[0])][: request.k])


class _TiesByUtf16(PlainBackend):
    def rank(self, scores: dict[str, float], request: Request) -> Ranking:
        pairs = sorted(super().rank(scores, request), key=lambda pair: (-pair[1], pair[0].encode("utf-16-be")))
        return Ranking(tuple(id for id, _ in pairs), np.array([score for _, score in pairs]))


class _FiltersAfterTheCut(PlainBackend):
    def rank(self, scores: dict[str, float], request: Request) -> Ranking:
        cut = Ranking.from_scores(scores, request.k)
        return Ranking.from_scores([(id, score) for id, score in cut if self._passes(request.filter, id)])


class _FillsUpWithOthers(PlainBackend):
    def rank(self, scores: dict[str, float], request: Request) -> Ranking:
        return super().rank(dict.fromkeys(self.documents, 0.0) | scores, request)


class _ForgetsADocument(PlainBackend):
    def scores(self, request: Request) -> dict[str, float]:
        scores = super().scores(request)
        scores.pop(max(scores, key=scores.__getitem__, default=""), None)
        return scores


class _RoundsScores(PlainBackend):
    def scores(self, request: Request) -> dict[str, float]:
        return {id: float(np.float16(score)) for id, score in super().scores(request).items()}


class _KeepsDeletedStatistics(PlainBackend):
    def delete(self, ids: Sequence[str]) -> int:
        hidden = [id for id in dict.fromkeys(ids) if self.documents.pop(id, None)]
        return len(hidden)

    def scores(self, request: Request) -> dict[str, float]:
        return {id: score for id, score in super().scores(request).items() if id in self.documents}


class _KeepsReplacedTerms(PlainBackend):
    def upsert(self, batch: EncodedBatch) -> None:
        old = dict(self.items)
        super().upsert(batch)
        for id in old.keys() & {document.id for document in batch.documents}:
            for name, item in self.items[id].items():
                merged = {**old[id][name].weights, **item.weights}
                self.items[id][name] = Item(id, {**old[id][name].counts, **item.counts}, merged, item.vector)


class _ShowsHalfABatch(PlainBackend):
    def upsert(self, batch: EncodedBatch) -> None:
        for row, document in enumerate(batch.documents):
            vectors = {name: take(vectors, [row]) for name, vectors in batch.vectors.items()}
            super().upsert(EncodedBatch([document], vectors))
            threading.Event().wait(0.0005)


class _CutsTerms(PlainBackend):
    def upsert(self, batch: EncodedBatch) -> None:
        super().upsert(batch)
        for items in self.items.values():
            for name, item in items.items():
                counts, weights = ({term[:30]: v for term, v in part.items()} for part in (item.counts, item.weights))
                items[name] = Item(item.id, counts, weights, item.vector)


class _ReadsTrueAsOne(PlainBackend):
    def _passes(self, filter: Filter | None, id: str) -> bool:
        document = self.documents[id]
        metadata = {key: 1 if value is True else value for key, value in document.metadata.items()}
        return filter is None or filter.matches(Document(id, "", metadata=metadata))


class _SpoilsItsInput(PlainBackend):
    def upsert(self, batch: EncodedBatch) -> None:
        super().upsert(batch)
        for vectors in batch.vectors.values():
            if isinstance(vectors, SparseVectors):
                vectors.matrix.data *= 2


class _FailsInOneCase(PlainBackend):
    def __init__(self, failing: tuple[str, int]) -> None:
        super().__init__()
        self.failing = failing

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        if [(request.retriever, request.k) for request in requests] == [self.failing]:
            return [EMPTY]
        return super().search(requests)


class _Lists(PlainBackend):
    """Lists and deletes right."""

    def list_documents(
        self, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
    ) -> Iterator[tuple[Key, Document]]:
        self._check_filter(filter)
        keys = [order.key(document) for id, document in self.documents.items() if self._passes(filter, id)]
        return with_documents(in_order(keys, after, limit), self.fetch)

    def delete_by_filter(self, filter: Filter) -> int:
        self._check_filter(filter)
        return self.delete([id for id in self.documents if self._passes(filter, id)])


class TestBackendThatLists(ListingTests):
    @pytest.fixture
    def connect(self) -> Callable[[str], PlainBackend]:
        return lambda name: _Lists()


class _ListsByUtf16(_Lists):
    def list_documents(self, *arguments: Any) -> Iterator[tuple[Key, Document]]:
        return iter(sorted(super().list_documents(*arguments), key=lambda pair: pair[0][1].encode("utf-16-be")))


class _ContinuesAtTheCursor(_Lists):
    def list_documents(
        self, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
    ) -> Iterator[tuple[Key, Document]]:
        found = (pair for pair in super().list_documents(filter, order) if after is None or pair[0] >= after)
        return islice(found, limit)


class _DeletesTheFirstOnly(_Lists):
    def delete_by_filter(self, filter: Filter) -> int:
        return self.delete([id for id in self.documents if self._passes(filter, id)][:3])


class _ComparesMeans(PlainBackend):
    def upsert(self, batch: EncodedBatch) -> None:
        super().upsert(batch)
        for id in (document.id for document in batch.documents):
            tokens = self.items[id]["multi_vector"].multi_vector
            if len(tokens):
                mean = tokens.mean(axis=0, keepdims=True, dtype=np.float32)
                self.items[id]["multi_vector"] = Item(id, tokens=mean)


class _GroupsAfterTheCut(PlainBackend):
    def rank(self, scores: dict[str, float], request: Request) -> Ranking:
        flat = [(score, id) for id, of_id in self.passages(request).items() for score in of_id.values()]
        kept = {id for _, id in sorted(flat, reverse=True)[: request.k]}
        return super().rank({id: score for id, score in scores.items() if id in kept}, request)


class _SumsPassages(PlainBackend):
    def scores(self, request: Request) -> dict[str, float]:
        if not self._check(request).passages:
            return super().scores(request)
        return {id: sum(scores.values()) for id, scores in self.passages(request).items()}


class _ListsTheLastOfEqualPassages(PlainBackend):
    def passages(self, request: Request) -> dict[str, dict[tuple[int, int], float]]:
        found = super().passages(request)
        return {
            id: dict(sorted(scores.items(), key=lambda pair: (-pair[1], -pair[0][0]))) for id, scores in found.items()
        }


class _KeepsOldPassages(PlainBackend):
    def upsert(self, batch: EncodedBatch) -> None:
        old = dict(self.items)
        super().upsert(batch)
        for id in old.keys() & {document.id for document in batch.documents}:
            for name, item in self.items[id].items():
                self.items[id][name] = replace(item, passages={**old[id][name].passages, **item.passages})


class _ScoresPassagesTooLow(PlainBackend):
    def passages(self, request: Request) -> dict[str, dict[tuple[int, int], float]]:
        found = super().passages(request)
        return {id: {span: score * 0.9 for span, score in scores.items()} for id, scores in found.items()}


FAULTS: list[tuple[type[PlainBackend], str, Kinds]] = [
    (_TiesByInsertion, "test_equal_scores_are_cut_by_id", ("sparse",)),
    (_TiesByUtf16, "test_odd_ids_are_ordered_by_code_point", ("sparse",)),
    (_FiltersAfterTheCut, "test_filter_applies_before_the_cut", ("sparse",)),
    (_FillsUpWithOthers, "test_scores_and_order_are_right_at_every_k", ("sparse",)),
    (_FillsUpWithOthers, "test_only_documents_with_a_matching_term_are_hits", ("sparse",)),
    (_ForgetsADocument, "test_scores_and_order_are_right_at_every_k", ("sparse",)),
    (_RoundsScores, "test_scores_and_order_are_right_at_every_k", ("sparse",)),
    (_KeepsDeletedStatistics, "test_deleted_documents_are_gone", ("sparse", "lexical")),
    (_KeepsReplacedTerms, "test_old_terms_no_longer_match_after_a_replacement", ("sparse",)),
    (_ShowsHalfABatch, "test_readers_see_whole_batches_while_a_writer_replaces_them", ("sparse",)),
    (_ShowsHalfABatch, "test_readers_see_whole_batches_while_a_writer_replaces_them", ("lexical", "sparse", "dense")),
    (_CutsTerms, "test_odd_terms_match_themselves_and_nothing_else", ("sparse",)),
    (_ReadsTrueAsOne, "test_filter_lets_through_what_the_definition_says", ("sparse",)),
    (_SpoilsItsInput, "test_inputs_are_not_changed", ("sparse",)),
    (_ListsByUtf16, "test_list_has_every_odd_id_in_order", ("sparse",)),
    (_ContinuesAtTheCursor, "test_list_continues_after_any_document", ("sparse",)),
    (_DeletesTheFirstOnly, "test_list_and_delete_agree", ("sparse",)),
    (_ComparesMeans, "test_scores_and_order_are_right_at_every_k", ("multi_vector",)),
    (_ComparesMeans, "test_each_vector_of_a_query_counts_with_its_most_similar_token", ("multi_vector",)),
]


PASSAGE_FAULTS: list[tuple[type[PlainBackend], str]] = [
    (_GroupsAfterTheCut, "test_candidates_are_documents_however_deep_they_are"),
    (_SumsPassages, "test_documents_are_ranked_by_their_best_passage"),
    (_ListsTheLastOfEqualPassages, "test_equal_passages_are_in_order_and_equal_documents_by_id"),
    (_KeepsOldPassages, "test_replaced_documents_leave_no_passage_behind"),
    (_ScoresPassagesTooLow, "test_documents_are_ranked_by_their_best_passage"),
]


@pytest.mark.parametrize(("faulty", "test"), PASSAGE_FAULTS)
def test_the_suite_notices_a_fault_of_passages(faulty: type[PlainBackend], test: str) -> None:
    schema, backend = with_passages(make_schema(KINDS)), faulty()
    backend.create(schema)
    available: dict[str, object] = {"opened": backend, "long_items": backend, "of_passages": schema}
    available |= dict.fromkeys(("kinds", "term_kinds", "exact_kinds"), ("lexical",))
    function = getattr(BackendSuite(), test)
    wanted = inspect.signature(function).parameters
    put(backend, long_items() if "long_items" in wanted else [], schema)
    with pytest.raises(AssertionError):
        function(**{name: value for name, value in available.items() if name in wanted})


@pytest.mark.parametrize(("faulty", "test", "kinds"), FAULTS)
def test_the_suite_notices_a_fault(faulty: type[PlainBackend], test: str, kinds: Kinds) -> None:
    schema, backend = make_schema(KINDS), faulty()
    backend.create(schema)
    available: dict[str, object] = {"backend": backend, "schema": schema, "can_delete": None}
    available |= dict.fromkeys(("filled", "filtered", "listed"), backend)
    available |= dict.fromkeys(("kinds", "term_kinds", "exact_kinds"), kinds)
    available["multi_vector"] = "multi_vector"
    function = getattr(BackendSuite(), test)
    wanted = inspect.signature(function).parameters
    items = {"filled": random_items(), "filtered": ITEMS, "listed": LISTED}
    put(backend, [item for name, some in items.items() if name in wanted for item in some], schema)
    with pytest.raises(AssertionError):
        function(**{name: value for name, value in available.items() if name in wanted})


@pytest.mark.parametrize(
    ("test", "failing", "said"),
    [
        ("scores_and_order_are_right_at_every_k", ("sparse", 2), "the case kind = 'sparse', query = .*, k = 2, "),
        ("a_k_below_one_is_an_invalid_argument", ("dense", 0), "the case kind = 'dense', k = 0$"),
        ("asking_for_more_never_reorders_the_top", ("lexical", 3), r"\('lexical', 3\)"),
    ],
)
def test_a_failure_says_which_case_it_was(test: str, failing: tuple[str, int], said: str) -> None:
    schema, backend = make_schema(KINDS), _FailsInOneCase(failing)
    backend.create(schema)
    put(backend, random_items(), schema)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        getattr(BackendSuite(), f"test_{test}")(backend, KINDS)
    assert re.search(said, str(caught.getrepr()), re.MULTILINE)


def test_the_suite_needs_pytest_numpy_and_scipy_only() -> None:
    heavy = "{'torch', 'numba', 'pyarrow', 'Stemmer', 'rich', 'hypothesis', 'sentence_transformers'}"
    code = f"import sys, hybridsearch.testing; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_pytest_one_sentence_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['pytest'] = None; import hybridsearch.testing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "hybridsearch.errors.MissingExtraError: The conformance suite needs the package 'pytest', which is not "
        f"installed: run `{install_command('dev')}`."
    )


def test_the_example_in_the_documentation_is_a_whole_test_file(tmp_path: Path) -> None:
    example = textwrap.dedent(
        (hybridsearch.testing.__doc__ or "").partition("complete test file of a backend:\n")[2].split("\nYou write")[0]
    )
    package = tmp_path / "my_package.py"
    package.write_text(
        "from hybridsearch.adapters.memory import MemoryBackend\n\n\nclass MyBackend(MemoryBackend):\n    pass\n"
    )
    (tmp_path / "test_mine.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "equal_scores_are_cut"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    result = subprocess.run(
        [*command, "test_mine.py"], cwd=tmp_path, env=alone, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
