"""Tests of passages. A document is ranked by its best passage, and everything else speaks of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridsearch.backends import Backend, Capabilities, Kind, Lister, Request, Schema, check_schema
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, Kinds, Load, ask, case, frozen_average, put, require
from hybridsearch.testing.oracles import check_ranking, right_passages, right_scores
from hybridsearch.testing.samples import DIMENSIONS, Item, long
from hybridsearch.testing.storage import vector_of
from hybridsearch.vectors import EncodedBatch, Metric, PassageSpans, QueryVector

_METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")


class PassageTests(Base):
    """Tests of passages: grouping, ties, the listed passages, updates, storage and BM25's numbers."""

    @pytest.fixture
    def of_passages(self, schema: Schema, capabilities: Capabilities) -> Schema:
        """The schema of an index whose retrievers all read passages. Skips the test if the backend stores none."""
        require(capabilities.passages, "passages")
        return samples.with_passages(schema)

    @pytest.fixture
    def opened(self, connect: Connect, of_passages: Schema) -> Iterator[Backend]:
        """An empty index with passages."""
        backend = connect("index")
        backend.create(of_passages)
        yield backend
        backend.close()

    @pytest.fixture
    def long_items(self, load: Load, of_passages: Schema) -> Backend:
        """An index with `samples.long_items()`, which came in three batches. A test must not change it."""
        items = samples.long_items()
        return load("passages", [items[:11], items[11:32], items[32:]], of_passages)

    def test_passages_need_the_capability(self, connect: Connect, schema: Schema, capabilities: Capabilities) -> None:
        if capabilities.passages:
            pytest.skip("the backend stores passages")
        backend = connect("index")
        with pytest.raises(BackendError, match="passages"):
            check_schema(samples.with_passages(schema), backend)  # as an index does before it is made
        backend.close()

    def test_documents_are_ranked_by_their_best_passage(self, long_items: Backend, kinds: Kinds) -> None:
        items = samples.long_items()
        for kind in kinds:
            for query in samples.random_queries(kind):
                for k, listed in ((1, 3), (2, 1), (10, 0), (10, 3), (40, 2), (10_000, 100)):
                    check_passages(long_items, kind, items, query, k, listed)

    @pytest.mark.parametrize("metric", _METRICS)
    def test_every_metric_ranks_by_the_best_passage(
        self, connect: Connect, of_passages: Schema, dense: Kind, metric: Metric
    ) -> None:
        schema = samples.with_passages(samples.make_schema(frozenset({dense}), metric))
        lengths = iter(np.random.default_rng(5).uniform(0.5, 2.0, 1000).astype(np.float32))
        items = [
            replace(
                item,
                passages={
                    span: replace(passage, vector=passage.vector * (next(lengths) if metric != "cosine" else 1))
                    for span, passage in item.passages.items()
                    if passage.vector is not None
                },
            )
            for item in samples.long_items()
        ]
        backend = connect("metric")
        backend.create(schema)
        put(backend, items, schema)
        for query in samples.random_queries(dense):
            check_passages(backend, dense, items, query, metric=metric)
        backend.close()

    def test_equal_passages_are_in_order_and_equal_documents_by_id(
        self, opened: Backend, of_passages: Schema, exact_kinds: Kinds
    ) -> None:
        same = samples.plain("same")
        many = [same] * 30
        put(opened, [long("b", many), long("c", [same]), long("a", many)], of_passages)
        put(opened, [samples.plain("ab"), long("aa", many)], of_passages)
        for kind in exact_kinds:
            for k in (1, 2, 3, 4, 5, 6):
                request = Request(kind, samples.common_query(kind), k, passages=3)
                (ranking,) = opened.search([request])
                assert ranking.ids == ("a", "aa", "ab", "b", "c")[:k], (kind, k)
                assert ranking.passages is not None, kind
                starts = [passage.start for passage in ranking.passages["a"]]
                assert starts == [start for start, _ in long("a", many).passages][:3], kind

    def test_a_document_of_many_passages_crowds_nobody_out(
        self, opened: Backend, of_passages: Schema, kinds: Kinds
    ) -> None:
        best = samples.plain("best")
        less = Item("less", {"common": 1, "filler": 4}, {"common": 0.5}, _turned(0.5))
        least = Item("least", {"common": 1, "filler": 30}, {"common": 0.2}, _turned(0.2))
        others = [long(f"d{n}", _varied(least, n % 3, n) + _varied(less, 20, n + 12)) for n in range(12)]
        big = long("big", _varied(best, self.many, 24))
        items = [*others, big]
        put(opened, items, of_passages)
        assert opened.count() == 13
        queries = {kind: samples.common_query(kind) for kind in kinds}
        for kind, query in queries.items():
            check_passages(opened, kind, items, query, (1, 2, 12, 13, 14))
        items = [*others, long("big", [least, less])]
        put(opened, items[-1:], of_passages)
        for kind, query in queries.items():
            check_passages(opened, kind, items, query, 20, 10)
        if opened.capabilities.delete:
            assert opened.delete(["big", "d0"]) == 2
            opened.refresh()
            for kind, query in queries.items():
                check_passages(opened, kind, others[1:], query, 20, 10)

    def test_candidates_are_documents_however_deep_they_are(
        self, opened: Backend, of_passages: Schema, kinds: Kinds
    ) -> None:
        items = [long(f"d{n}", samples.random_items(80, seed=n)) for n in range(20)]
        put(opened, items, of_passages)
        for kind in kinds:
            for query in samples.random_queries(kind, 3):
                check_passages(opened, kind, items, query, (5, 19, 20, 50), 5)

    def test_a_filter_speaks_of_documents(self, long_items: Backend, kinds: Kinds) -> None:
        require(long_items.capabilities.filters, "filters")
        items = samples.long_items()
        asked: list[tuple[dict[str, Any], Callable[[Item], bool]]] = [
            ({"parity": "odd"}, lambda item: item.metadata.get("parity") == "odd"),
            ({"number": {"$lt": 3}}, lambda item: item.metadata.get("number", 99) < 3),
            ({"number": 1000}, lambda item: False),
        ]
        for given, among in asked:
            filter = Filter.parse(given)
            assert long_items.count(filter) == sum(map(among, items)), given
            for kind in kinds:
                for query in samples.random_queries(kind, 3):
                    check_passages(long_items, kind, items, query, 10, 3, among=among, filter=filter)

    def test_counts_and_fetches_speak_of_documents(self, long_items: Backend) -> None:
        items = samples.long_items()
        assert long_items.count() == len(items)
        assert long_items.fetch(["d3", "empty", "d3#1", "d0"]) == [
            items[3].document,
            Document("empty", ""),
            None,
            items[0].document,
        ]

    def test_fetched_passages_are_those_of_a_search(self, long_items: Backend, kinds: Kinds) -> None:
        require(isinstance(long_items, Lister), "method fetch_passages")
        assert isinstance(long_items, Lister)
        documents = {item.id: item.document for item in samples.long_items()}
        for kind in kinds:
            tolerance = long_items.capabilities.score_tolerance[kind]
            for query in samples.random_queries(kind, 4):
                request = Request(kind, query, 20, passages=3)
                (ranking,) = long_items.search([request])
                found = ranking.ids[::3]
                ids = [*found, "empty", "unknown"]
                for others in ([], ids):
                    read, (listed, again) = long_items.fetch_passages([request, request], [ids, others])
                    with case(kind=kind, query=query, others=others):
                        assert dict(read) == {id: documents[id] for id in found} | {"empty": Document("empty", "")}
                        assert listed is not None
                        assert dict(again or {}) == (dict(listed) if others else {})
                        assert set(listed) == set(found)
                        for id, passages in listed.items():
                            right = (ranking.passages or {})[id]
                            assert [one[:2] for one in passages] == [one[:2] for one in right]
                            scores = [one.score for one in right]
                            assert [one.score for one in passages] == pytest.approx(
                                scores, rel=tolerance, abs=tolerance
                            )

    def test_replaced_documents_leave_no_passage_behind(
        self, opened: Backend, of_passages: Schema, kinds: Kinds
    ) -> None:
        items = samples.long_items()
        new = samples.long_items(15, most=2, seed=9)[:15]
        put(opened, items, of_passages)
        put(opened, new, of_passages)
        items[:15] = new
        if opened.capabilities.delete:
            assert opened.delete(["d20", "d21", "d20", "unknown"]) == 2
            opened.refresh()
            del items[20:22]
        assert opened.count() == len(items)
        for kind in kinds:
            for query in samples.random_queries(kind):
                check_passages(opened, kind, items, query, 100)

    def test_a_document_without_any_vector_is_never_found(
        self, opened: Backend, of_passages: Schema, kinds: Kinds
    ) -> None:
        nothing = Item("nothing")
        put(opened, [nothing, long("b", [nothing, nothing]), long("c", [nothing, samples.plain("d")])], of_passages)
        for kind in kinds:
            query = samples.common_query(kind)
            assert ask(opened, kind, query).ids == ("c",), kind
            (ranking,) = opened.search([Request(kind, query, 10, passages=5)])
            assert ranking.passages is not None, kind
            assert [len(passages) for passages in ranking.passages.values()] == [1], kind
            assert opened.search([Request(kind, samples.nothing(kind), 10, passages=5)]) == [EMPTY], kind

    def test_explained_terms_are_those_of_the_best_passage(self, long_items: Backend, term_kinds: Kinds) -> None:
        require(long_items.capabilities.explain, "explain")
        by_id = {item.id: item for item in samples.long_items()}
        for kind in term_kinds:
            tolerance = 8 * long_items.capabilities.score_tolerance[kind]
            for query in samples.random_queries(kind):
                request = Request(kind, query, 20, passages=1)
                (ranking,) = long_items.search([request])
                explained = long_items.explain(request, [*ranking.ids, "unknown", "empty"])
                assert explained[-2:] == [{}, {}], kind
                for (id, score), terms in zip(ranking, explained[:-2], strict=True):
                    assert ranking.passages is not None, kind
                    start, end, _ = ranking.passages[id][0]
                    best = by_id[id].passages[start, end]
                    assert sum(terms.values()) == pytest.approx(score, rel=tolerance), (kind, id)
                    assert set(terms) == set(getattr(query, "terms", ())) & set(best.counts), (kind, id)

    def test_retrievers_of_passages_and_of_documents_live_side_by_side(
        self, connect: Connect, of_passages: Schema, schema: Schema, kinds: Kinds
    ) -> None:
        both, items = samples.with_passages(schema, beside=True), samples.long_items()
        backend = connect("both")
        backend.create(both)
        put(backend, items[:20], both)
        put(backend, items[20:], both)
        average = frozen_average(backend.capabilities)
        for kind in kinds:
            query = samples.random_queries(kind, 1)[0]
            check_passages(backend, kind, items, query)
            requests = [Request(f"whole-{kind}", query, 10, None, 3), Request(kind, query, 10)]
            whole, of_best = backend.search(requests)
            assert (whole.passages, of_best.passages) == (None, None), kind
            if isinstance(backend, Lister):
                assert backend.fetch_passages(requests[:1], [whole.ids])[1] == [None], kind
            with case(kind=kind):
                check_ranking(
                    whole,
                    right_scores(kind, items, query, average_length=average),
                    10,
                    tolerance=backend.capabilities.score_tolerance[kind],
                    approximate=kind in backend.capabilities.approximate,
                )
        backend.close()

    def test_passages_are_stored_even_if_no_retriever_reads_them(
        self, connect: Connect, of_passages: Schema, schema: Schema, kinds: Kinds
    ) -> None:
        stored, items = replace(schema, passages=of_passages.passages), samples.long_items(10)
        backend = connect("stored")
        backend.create(stored)
        put(backend, items, stored)
        for kind in kinds:
            (ranking,) = backend.search([Request(kind, samples.random_queries(kind, 1)[0], 5, passages=2)])
            assert (ranking.passages, bool(ranking.ids)) == (None, True), kind
        if backend.capabilities.scan:
            _check_scan(backend, items, stored)
        backend.close()

    def test_a_batch_must_have_passages_if_the_index_has_them(
        self, connect: Connect, opened: Backend, of_passages: Schema, schema: Schema
    ) -> None:
        without = connect("without")
        without.create(schema)
        for backend, wrong in ((opened, schema), (without, replace(schema, passages=of_passages.passages))):
            with pytest.raises(InvalidArgumentError, match="passages"):
                backend.upsert(samples.encode([samples.plain("a")], wrong))
            assert backend.count() == 0
        without.close()

    def test_changing_the_spans_afterwards_changes_nothing(
        self, opened: Backend, of_passages: Schema, kinds: Kinds
    ) -> None:
        items = samples.long_items(10)
        batch = put(opened, items, of_passages)
        assert batch.passages is not None
        batch.passages.spans[:] = 0
        batch.passages.offsets[:] = 0
        for kind in kinds:
            check_passages(opened, kind, items, samples.random_queries(kind, 1)[0])

    def test_a_reopened_index_with_passages_is_the_same(
        self, connect: Connect, of_passages: Schema, kinds: Kinds
    ) -> None:
        items = samples.long_items()
        backend = connect("index")
        require(backend.capabilities.persistent, "persistence")
        backend.create(of_passages)
        put(backend, items[:30], of_passages)
        backend.close()
        backend = connect("index")
        found = backend.open()
        assert found is not None
        assert found.to_json() == of_passages.to_json()
        put(backend, [*items[30:], items[2]], of_passages)
        backend.close()
        backend = connect("index")
        assert backend.open() is not None
        assert backend.count() == len(items)
        for kind in kinds:
            for query in samples.random_queries(kind, 4):
                check_passages(backend, kind, items, query, 100)
        backend.close()

    def test_a_scan_gives_the_passages_with_their_vectors(
        self, connect: Connect, of_passages: Schema, schema: Schema, kinds: Kinds
    ) -> None:
        both, items = samples.with_passages(schema, beside=True), samples.long_items()
        backend, copied = connect("index"), connect("copy")
        require(backend.capabilities.scan, "scan")
        backend.create(both)
        put(backend, items[:30], both)
        put(backend, [*items[30:], items[2]], both)
        for batch_size in (1, 7, 1024):
            _check_scan(backend, items, both, batch_size)
        copied.create(both)
        for batch in backend.scan(13):
            copied.upsert(batch)
        copied.refresh()
        for kind in kinds:
            requests = [Request(kind, query, 20, passages=2) for query in samples.random_queries(kind)]
            for one, other in zip(copied.search(requests), backend.search(requests), strict=True):
                assert (one, one.passages) == (other, other.passages), kind
        backend.close()
        copied.close()


def check_passages(
    backend: Backend,
    kind: Kind,
    items: Sequence[Item],
    query: QueryVector,
    k: int | Sequence[int] = 10,
    listed: int = 3,
    metric: Metric = "cosine",
    among: Callable[[Item], bool] | None = None,
    filter: Filter | None = None,
) -> None:
    """Assert that an index of exactly these items ranks by the best passage, and lists the best passages.

    Several values of `k` are asked for one after the other. `among` tells which items `filter` lets through. The
    numbers of BM25 always cover the passages of all items.
    """
    capabilities = backend.capabilities
    tolerance, approximate = capabilities.score_tolerance[kind], kind in capabilities.approximate
    right = right_passages(kind, items, query, metric, frozen_average(capabilities))
    if among is not None:
        right = {item.id: right[item.id] for item in items if item.id in right and among(item)}
    best = {id: max(scores.values()) for id, scores in right.items()}
    names = {item.id: {span: f"{number:08}" for number, span in enumerate(item.parts)} for item in items}
    for depth in [k] if isinstance(k, int) else k:
        with case(kind=kind, query=query, k=depth, listed=listed, filter=filter):
            (ranking,) = backend.search([Request(kind, query, depth, filter, listed)])
            check_ranking(ranking, best, depth, tolerance=tolerance, approximate=approximate)
            assert listed or ranking.passages is None
            for id, score in ranking if listed else ():
                with case(id=id):
                    found = (ranking.passages or {})[id]
                    assert found[0].score == score, "the first passage does not have the score of the document"
                    numbers = [names[id][passage.start, passage.end] for passage in found]
                    scores = {names[id][span]: score for span, score in right[id].items()}
                    if approximate:  # a passage may be missing
                        scores = {number: scores[number] for number in numbers}
                    of_document = Ranking(tuple(numbers), np.array([p.score for p in found], dtype=np.float64))
                    check_ranking(of_document, scores, listed, tolerance=tolerance)


def _check_scan(backend: Backend, items: Sequence[Item], schema: Schema, batch_size: int = 1024) -> None:
    batches = list(backend.scan(batch_size))
    assert all(0 < len(batch) <= batch_size for batch in batches), batch_size
    scanned = {id: row for batch in batches for id, row in _rows(batch, schema).items()}
    assert sum(map(len, batches)) == len(items), batch_size
    assert scanned == _rows(samples.encode(items, schema), schema), batch_size


def _rows(batch: EncodedBatch, schema: Schema) -> dict[str, tuple[Document, list[list[int]], dict[str, Any]]]:
    """Each document with its spans and the vectors of each retriever, by id."""
    passages = batch.passages
    assert isinstance(passages, PassageSpans)
    rows = {}
    for number, document in enumerate(batch.documents):
        own = passages.rows([number]).tolist()
        vectors = {
            name: [
                vector_of(batch.vectors[name], row) for row in (own if schema.retrievers[name].passages else [number])
            ]
            for name in schema.retrievers
        }
        rows[document.id] = (document, passages.spans[own].tolist(), vectors)
    return rows


def _varied(item: Item, count: int, seed: int) -> list[Item]:
    """Items with slightly different vectors, because equal vectors have no edges to others in a graph of neighbours."""
    assert item.vector is not None
    noise = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)) / DIMENSIONS**0.5
    return [replace(item, vector=samples.unit(item.vector + 0.1 * row)) for row in noise]


def _turned(cosine: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector whose cosine with the common vector is about `cosine`."""
    away = np.ones(DIMENSIONS)
    away[: DIMENSIONS // 2] = -1
    return samples.unit(cosine * samples.unit(np.ones(DIMENSIONS)) + (1 - cosine**2) ** 0.5 * samples.unit(away))
