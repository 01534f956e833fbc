"""The Qdrant backend passes the conformance suite, in memory and in a folder. More tests are about Qdrant only."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import pickle
import shutil
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from filter_cases import descriptions, documents, right
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.adapters.qdrant import QdrantBackend, index, points
from hybridsearch.adapters.qdrant.refusals import RefusedError
from hybridsearch.adapters.qdrant.search import Searcher
from hybridsearch.adapters.qdrant.writing import Writer
from hybridsearch.backends import AsyncBackend, Kind, Loader, Request, Schema
from hybridsearch.documents import Document
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    FilterError,
    IndexCorruptedError,
    IndexExistsError,
    IndexLockedError,
    InvalidArgumentError,
    StorageError,
)
from hybridsearch.filters import Filter
from hybridsearch.testing import BackendSuite
from hybridsearch.testing.base import ask, check, find_all, put
from hybridsearch.testing.filtering import FILTERS
from hybridsearch.testing.misuse import MisuseTests
from hybridsearch.testing.passages import check_passages
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.samples import (
    FROZEN_LENGTH,
    Item,
    common_query,
    encode,
    long_items,
    make_schema,
    plain,
    random_items,
    random_queries,
    sparse_query,
    with_passages,
)
from hybridsearch.testing.storage import StorageTests
from hybridsearch.testing.updates import UpdateTests

KINDS: frozenset[Kind] = frozenset({"lexical", "sparse", "dense"})
SCHEMA = make_schema(KINDS, average_length=FROZEN_LENGTH)
MEMORY = "qdrant://:memory:/index"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in RAM if possible, because the embedded Qdrant syncs the disk once for each document."""
    shm = Path("/dev/shm")  # noqa: S108
    path = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def backend() -> Iterator[QdrantBackend]:
    backend = QdrantBackend(MEMORY)
    backend.create(SCHEMA)
    yield backend
    backend.close()


class TestInMemory(BackendSuite):
    many = 2000

    @pytest.fixture
    def connect(self) -> Callable[[str], QdrantBackend]:
        return lambda name: QdrantBackend(f"qdrant://:memory:/{name}")

    @pytest.fixture
    def connect_shared(self, connect: Callable[[str], QdrantBackend]) -> Callable[[str], QdrantBackend]:
        return connect  # each of them has its own memory


class TestInAFolder(StorageTests, UpdateTests, MisuseTests):
    @pytest.fixture
    def connect(self, folder: Path) -> Callable[[str], QdrantBackend]:
        return lambda name: QdrantBackend(f"qdrant://{folder}/{name}")


class TestWhereTermsCollide(RankingTests, UpdateTests):
    """Let other terms take the numbers of each term several times. Scores must not change."""

    @pytest.fixture(autouse=True)
    def _few_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        number_of = points.number_of
        monkeypatch.setattr(points, "number_of", lambda term, attempt: number_of(term, attempt) % 6007 or 1)

    @pytest.fixture
    def connect(self) -> Callable[[str], QdrantBackend]:
        return lambda name: QdrantBackend(f"qdrant://:memory:/{name}")


def test_it_is_an_asynchronous_backend_and_a_loader(backend: QdrantBackend) -> None:
    assert isinstance(backend, AsyncBackend)
    assert isinstance(backend, Loader)


def test_terms_that_want_the_same_number_stay_apart(backend: QdrantBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "number_of", lambda term, attempt: attempt + 1)
    items = [Item(f"d{n}", {f"t{n}": 1}, {f"t{n}": n + 1.0}) for n in range(20)]
    for item in items:
        put(backend, [item], SCHEMA)
    for n in range(20):
        found = ask(backend, "sparse", sparse_query({f"t{n}": 1.0}))
        assert list(found) == [(f"d{n}", n + 1.0)]
    assert not len(ask(backend, "sparse", sparse_query({"unknown": 1.0})))


def test_two_writers_of_one_folder_give_terms_the_same_numbers(folder: Path) -> None:
    one, two = (QdrantBackend(f"qdrant://{folder}/index") for _ in range(2))
    one.create(SCHEMA)
    assert two.open() == SCHEMA
    items = random_items()
    put(one, items[:30], SCHEMA)
    put(two, items[30:], SCHEMA)
    for backend in (one, two):
        for query in random_queries("sparse"):
            check(backend, "sparse", items, query)
    one.close()
    two.close()


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_every_variant_of_bm25_scores_as_in_memory(variant: str) -> None:
    items = random_items()
    average = sum(sum(item.counts.values()) for item in items) / len(items)
    base = make_schema(frozenset({"lexical"}), average_length=average).retrievers["lexical"]
    schema = Schema({"lexical": replace(base, weighting={"variant": variant, "k1": 1.5, "b": 0.6})})
    memory, qdrant = MemoryBackend(), QdrantBackend(MEMORY)
    for backend in (memory, qdrant):
        backend.create(schema)
        put(backend, items, schema)  # type: ignore[arg-type]
    for query in random_queries("lexical", 12):
        (right,), (found,) = (b.search([Request("lexical", query, 100)]) for b in (memory, qdrant))
        assert dict(found) == pytest.approx(dict(right), rel=1e-5)
    qdrant.close()
    memory.close()


def test_the_first_documents_decide_an_average_length_that_the_schema_leaves_open(folder: Path) -> None:
    backend = QdrantBackend(f"qdrant://{folder}/index")
    schema = make_schema(frozenset({"lexical"}))
    backend.create(schema)
    backend.upsert(encode([Item("empty")], schema))
    backend.upsert(encode([Item("a", {"wing": 1, "flow": 3}), Item("b", {"wing": 2})], schema))
    backend.upsert(encode([Item("c", {"wing": 100})], schema))
    backend.close()
    again = QdrantBackend(f"qdrant://{folder}/index")
    found = again.open()
    assert found is not None
    assert found.retrievers["lexical"].average_length == 3.0
    again.close()


def test_an_answer_brings_the_documents_along(backend: QdrantBackend) -> None:
    items = [plain(f"d{n:02}", text=f"text {n}", metadata={"n": n}) for n in range(40)]
    put(backend, items, SCHEMA)
    for kind in sorted(KINDS):
        ranking = ask(backend, kind, common_query(kind), 7)  # cut within a tie of 40
        assert ranking.documents == {item.id: item.document for item in items[:7]}


def test_each_answer_of_a_call_brings_its_own_documents_along(backend: QdrantBackend) -> None:
    items = [plain(f"d{n:02}", text=f"text {n}") for n in range(40)]
    put(backend, items, SCHEMA)
    requests = [Request(kind, common_query(kind), k) for kind in sorted(KINDS) for k in (3, 40)]
    for ranking in backend.search(requests):
        assert list(ranking.documents or ()) == list(ranking.ids)


def test_a_request_stays_below_the_servers_limit(backend: QdrantBackend) -> None:
    items = [plain(f"d{n}", text="x" * 2_000_000) for n in range(8)]
    put(backend, items, SCHEMA)
    assert backend.count() == 8
    _, parts = backend._prepared(backend._current(), encode(items, SCHEMA))
    sizes = [sum(len(point.model_dump_json()) for point in part.documents) for part in parts]
    assert max(sizes) < 10_000_000
    assert len(sizes) == 3


def test_asearch_answers_as_search_does(backend: QdrantBackend) -> None:
    put(backend, random_items(), SCHEMA)
    requests = [Request(kind, query, 5) for kind in sorted(KINDS) for query in random_queries(kind, 4)]

    async def many() -> list[Any]:
        return await asyncio.gather(*(backend.asearch([request]) for request in requests))

    assert [answer[0] for answer in asyncio.run(many())] == backend.search(requests)
    asyncio.run(backend.aclose())


def test_load_stores_every_batch(backend: QdrantBackend) -> None:
    items = random_items()
    backend.load(encode(items[start : start + 7], SCHEMA) for start in range(0, 60, 7))
    assert backend.count() == 60
    check(backend, "lexical", items, random_queries("lexical", 1)[0])


# ------------------------------------------------------------------------------------------------------- passages

PASSAGES = with_passages(SCHEMA)
BESIDE = with_passages(SCHEMA, beside=True)


def _check_all(backend: QdrantBackend, items: list[Item]) -> None:
    assert backend.count() == len(items)
    for kind in sorted(KINDS):
        for query in random_queries(kind, 4):
            check_passages(backend, kind, items, query, 50)


def _passages(backend: QdrantBackend) -> int:
    """The number of points in the collection of the passages."""
    client = backend._connection._connected()
    return int(client.count(f"{backend._current().collection}-passages").count)


@pytest.mark.parametrize("sent", ["passages", "documents"])
def test_a_crash_while_documents_are_replaced_leaves_no_passage_that_can_be_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    old, new = long_items(20), [*long_items(20, most=3, seed=9)[:12], *long_items(24, seed=4)[20:24]]
    after = new + old[12:]
    backend = QdrantBackend(f"qdrant://{folder}/index")
    backend.create(PASSAGES)
    put(backend, old, PASSAGES)
    send = Writer._send

    def crash(writer: Writer, collection: str, points: Any) -> Any:
        result = yield from send(writer, collection, points)
        if collection.endswith("-passages") is (sent == "passages"):
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Writer, "_send", crash)
    with pytest.raises(KeyboardInterrupt):
        put(backend, new, PASSAGES)
    monkeypatch.undo()
    right = old if sent == "passages" else after
    _check_search(backend, right)
    scanned = next(backend.scan())
    assert scanned.passages is not None
    assert len(scanned.passages) == sum(len(item.parts) for item in right) < _passages(backend)
    backend.close()
    backend = QdrantBackend(f"qdrant://{folder}/index")
    assert backend.open() is not None
    assert _passages(backend) == sum(len(item.parts) for item in right)
    _check_all(backend, right)
    put(backend, new, PASSAGES)
    _check_all(backend, after)
    assert backend.delete([item.id for item in after]) == len(after)
    assert (backend.count(), _passages(backend)) == (0, 0)
    backend.close()


def test_a_writer_removes_no_passage_that_another_writer_may_be_adding() -> None:
    backend = QdrantBackend(MEMORY)
    backend.create(PASSAGES)
    backend._writer.embedded = False  # on a server, several writers are at work
    items = [long_items(10, seed=seed)[:10] for seed in range(3)]
    put(backend, items[0], PASSAGES)
    index, (late,) = backend._prepared(backend._current(), encode(items[1], PASSAGES))
    for chunk in backend._writer._requests(late.passages):
        backend._connection.run(backend._writer._send("index-passages", chunk))
    put(backend, items[2], PASSAGES)  # another writer is faster
    _check_search(backend, items[2])
    backend._connection.run(backend._writer.store(index, late))
    _check_search(backend, items[1])
    assert _passages(backend) == sum(len(item.parts) for item in items[1])
    backend._connection.run(backend._writer._send("index-passages", late.passages[:1]))
    left = [_of_version(point, 1) for point in late.passages]
    backend._connection.run(backend._writer._send("index-passages", left))  # a crash long ago
    put(backend, items[0], PASSAGES)
    assert _passages(backend) == sum(len(item.parts) for item in items[0])
    backend.close()


def _of_version(point: models.PointStruct, version: int) -> models.PointStruct:
    payload = {**(point.payload or {}), "version": version}
    return models.PointStruct(id=str(uuid4()), vector=point.vector, payload=payload)


def _check_search(backend: QdrantBackend, items: list[Item]) -> None:
    for kind in ("sparse", "dense"):  # passages that nobody finds count in the idf
        for query in random_queries(kind, 4):
            check_passages(backend, kind, items, query, 50)


def test_a_document_whose_passage_is_refused_keeps_its_old_state(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = long_items(6), long_items(6, seed=9)
    backend = QdrantBackend(MEMORY)
    backend.create(PASSAGES)
    put(backend, old, PASSAGES)
    client = backend._connection._connected()
    upsert = client.upsert

    def refuse(collection_name: str, points: Any, **options: Any) -> Any:
        if any(point.payload.get("id") == "d3" and point.payload.get("number") == 1 for point in points):
            raise RefusedError("no")
        return upsert(collection_name, points, **options)

    monkeypatch.setattr(client, "upsert", refuse)
    with pytest.raises(BulkIndexError, match="d3"):
        put(backend, new, PASSAGES)
    monkeypatch.undo()
    right = [old[3] if item.id == "d3" else item for item in new]
    _check_all(backend, right)
    assert _passages(backend) == sum(len(item.parts) for item in right)
    backend.close()


def test_a_document_that_is_replaced_during_a_search_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    items, new = long_items(20), long_items(20, seed=9)
    backend = QdrantBackend(MEMORY)
    backend.create(PASSAGES)
    put(backend, items, PASSAGES)
    read = Searcher._read
    writes = iter([new, items, new])

    def write_and_read(searcher: Searcher, *arguments: Any) -> Any:
        if (found := next(writes, None)) is not None:
            put(backend, found, PASSAGES)
        return (yield from read(searcher, *arguments))

    monkeypatch.setattr(Searcher, "_read", write_and_read)
    check_passages(backend, "dense", new, random_queries("dense", 1)[0], 20)
    assert next(writes, None) is None
    backend.close()


def test_passages_of_a_document_that_is_replaced_during_a_scan_are_those_of_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items, new = long_items(10), long_items(10, seed=9)
    backend = QdrantBackend(MEMORY)
    backend.create(PASSAGES)
    put(backend, items, PASSAGES)
    read = Searcher._with_passages

    def write_and_read(searcher: Searcher, points: Any) -> Any:
        put(backend, new[:5], PASSAGES)
        backend.delete(["d7"])
        return (yield from read(searcher, points))

    monkeypatch.setattr(Searcher, "_with_passages", write_and_read)
    (batch,) = backend.scan()
    monkeypatch.undo()
    (again,) = backend.scan()
    assert {document.id for document in batch.documents} == {item.id for item in items} - {"d7"}
    assert {d.id: d.text for d in batch.documents} == {d.id: d.text for d in again.documents}
    assert batch.passages is not None
    assert again.passages is not None
    assert len(batch.passages) == len(again.passages)
    client, gone = backend._connection._connected(), f"{backend._current().collection}-passages"
    client.delete(gone, models.Filter(must=[models.FieldCondition(key="id", match=models.MatchValue(value="d1"))]))
    with pytest.raises(IndexCorruptedError, match="'d1' has lost passages"):
        list(backend.scan())
    backend.close()


@pytest.mark.parametrize("variant", ["lucene", "robertson", "bm25+"])
def test_every_variant_of_bm25_counts_passages(variant: str) -> None:
    items = long_items()
    retrievers = {
        name: replace(retriever, weighting={"variant": variant, "k1": 1.5, "b": 0.6}, average_length=None)
        for name, retriever in BESIDE.retrievers.items()
        if retriever.kind == "lexical"
    }
    schema = replace(BESIDE, retrievers=retrievers)
    memory, qdrant = MemoryBackend(), QdrantBackend(MEMORY)
    for backend in (memory, qdrant):
        backend.create(schema)
        put(backend, items, schema)  # type: ignore[arg-type]
    for name in retrievers:
        for query in random_queries("lexical", 6):
            request = Request(name, query, 100, passages=2)
            (right,), (found,) = (b.search([request]) for b in (memory, qdrant))
            assert dict(found) == pytest.approx(dict(right), rel=1e-5), name
    qdrant.close()
    memory.close()


def test_the_vectors_of_passages_are_read_by_the_id_of_their_document() -> None:
    items = long_items()
    memory, qdrant = MemoryBackend(), QdrantBackend(MEMORY)
    for backend in (memory, qdrant):
        backend.create(BESIDE)
        put(backend, items, BESIDE)  # type: ignore[arg-type]
    for name in ("dense", "whole-dense"):
        right, found = (backend.fetch_vectors(["d7", "?", "empty", "d1"], name) for backend in (memory, qdrant))
        assert found.documents == right.documents
        assert found.passages is not None
        assert right.passages is not None
        assert np.array_equal(found.passages.spans, right.passages.spans)
        assert np.array_equal(found.vectors[name].array, right.vectors[name].array)  # type: ignore[union-attr]
    qdrant.close()
    memory.close()


def test_the_passages_of_an_index_that_is_replaced_are_deleted_and_a_moved_alias_is_followed(folder: Path) -> None:
    one, two = long_items(10), long_items(10, seed=9)
    indexes = [QdrantBackend(f"qdrant://{folder}/{name}") for name in ("v1", "v2", "v3")]
    for backend, items in zip(indexes, (one, two, one), strict=True):
        backend.create(PASSAGES)
        put(backend, items, PASSAGES)
    indexes[0].publish("live")
    live = QdrantBackend(f"qdrant://{folder}/live")
    live.open()
    query = random_queries("sparse", 1)[0]
    check_passages(live, "sparse", one, query)
    assert indexes[1].publish("live", drop_old=False) == "v1"
    check_passages(live, "sparse", two, query)
    assert indexes[2].publish("live") == "v2"
    request = Request("sparse", query, 10)
    ids = live.search([request])[0].ids
    assert live.explain(request, ids) == indexes[2].explain(request, ids)
    check_passages(live, "sparse", one, query)
    client = live._connection._connected()
    names = {collection.name for collection in client.get_collections().collections}
    assert {name for name in names if name.startswith("v2")} == set()
    assert {"v1", "v1-terms", "v1-passages", "v3", "v3-terms", "v3-passages"} == names
    for backend in (*indexes, live):
        backend.close()


def test_a_foreign_collection_with_the_name_of_the_passages_is_untouched(folder: Path) -> None:
    client = QdrantClient(path=str(folder))
    client.create_collection("index-passages", models.VectorParams(size=3, distance=models.Distance.DOT))
    client.close()
    backend = QdrantBackend(f"qdrant://{folder}/index")
    with pytest.raises(IndexExistsError, match=r"'index-passages' already.*choose another name"):
        backend.create(PASSAGES)
    backend.create(SCHEMA)
    backend.close()
    client = QdrantClient(path=str(folder))
    assert client.get_collection("index-passages").config.params.vectors.size == 3  # type: ignore[union-attr]
    client.delete_collection("index")
    client.close()


def test_an_index_with_the_name_of_the_terms_of_another_is_untouched(folder: Path) -> None:
    first, second = QdrantBackend(f"qdrant://{folder}/index-terms"), QdrantBackend(f"qdrant://{folder}/index")
    first.create(SCHEMA)
    put(first, random_items(3), SCHEMA)
    first.close()
    with pytest.raises(IndexExistsError, match=r"'index-terms' already.*for the terms of.*choose another name"):
        second.create(SCHEMA)
    second.close()
    again = QdrantBackend(f"qdrant://{folder}/index-terms")
    again.open()
    assert (again.count(), len(list(again.scan())), again.document_frequencies("lexical", ["wing"])[1]) == (3, 1, 3)
    again.close()


def test_the_passages_of_an_index_that_was_not_finished_are_made_anew(folder: Path) -> None:
    backend = QdrantBackend(f"qdrant://{folder}/index")
    backend.create(PASSAGES)
    put(backend, long_items(5), PASSAGES)
    backend.close()
    client = QdrantClient(path=str(folder))
    client.delete_collection("index")
    client.close()
    backend = QdrantBackend(f"qdrant://{folder}/index")
    assert backend.open() is None
    backend.create(PASSAGES)
    assert _passages(backend) == 0
    put(backend, long_items(8), PASSAGES)
    _check_all(backend, long_items(8))
    backend.close()


# --------------------------------------------------------------------------------------------------------- filters


FILTER_CASES = given(documents(), st.lists(descriptions(), min_size=1, max_size=8))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@FILTER_CASES
def test_filters_let_through_what_the_definition_says(found: list[Document], filters: list[Any]) -> None:
    _check_filters(found, filters)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@FILTER_CASES
def test_thousands_of_filters_let_through_what_the_definition_says(found: list[Document], filters: list[Any]) -> None:
    _check_filters(found, filters)


def _check_filters(found: list[Document], filters: list[Any]) -> None:
    items = [plain(document.id, title=document.title, metadata=document.metadata) for document in found]
    backend = QdrantBackend(MEMORY)
    backend.create(make_schema(frozenset({"sparse"})))
    put(backend, items, make_schema(frozenset({"sparse"})))
    for filter in map(Filter.parse, filters):
        allowed = right(filter, found)
        if allowed is None:
            with pytest.raises(FilterError):
                find_all(backend, "sparse", filter)
            with pytest.raises(FilterError):
                backend.count(filter)
        else:
            assert find_all(backend, "sparse", filter) == allowed
            assert backend.count(filter) == len(allowed)
    backend.close()


def test_a_filter_of_every_depth_stays_within_the_servers_limit_of_nested_json() -> None:
    from hybridsearch.adapters.qdrant.filters import compile_filter

    description: dict[str, Any] = {"x": {"$lte": 2**60}}
    for level in range(49):
        description = [{"$not": description, "y": 1}, {"$or": [description, {"y": 1}]}, {"$and": [description]}][
            level % 3
        ]
    compiled = compile_filter(Filter.parse(description)).model_dump_json(exclude_none=True)
    depth = deepest = 0
    for character in compiled:
        depth += (character in "{[") - (character in "}]")
        deepest = max(deepest, depth)
    assert deepest < 120  # serde_json reads 128


def test_an_id_with_a_lone_surrogate_is_unknown(folder: Path) -> None:
    backend = QdrantBackend(f"qdrant://{folder}/index")
    backend.create(SCHEMA)
    put(backend, random_items(3), SCHEMA)
    assert backend.fetch(["\ud800"]) == [None]
    assert (backend.delete(["\ud800"]), backend.count()) == (0, 3)
    backend.close()


@pytest.mark.parametrize("description", FILTERS, ids=repr)
def test_the_conditions_of_a_filter_can_be_sent_to_a_server(description: Any) -> None:
    from hybridsearch.adapters.qdrant.filters import compile_filter

    assert compile_filter(Filter.parse(description)).model_dump_json()


def test_a_string_that_is_too_long_to_compare_with_is_named(backend: QdrantBackend) -> None:
    put(backend, [plain("a", metadata={"x": "y" * 600})], SCHEMA)
    assert backend.count(Filter.parse({"x": {"$gt": "y" * 512}})) == 1
    assert backend.count(Filter.parse({"x": "y" * 600})) == 1
    with pytest.raises(FilterError, match="shorten"):
        backend.count(Filter.parse({"x": {"$gt": "y" * 600}}))


# ------------------------------------------------------------------------------------------------ places and errors


@pytest.mark.parametrize(
    "location",
    ["qdrant://", "qdrant://host", "qdrant://:memory:", "qdrant://host/", "qdrant+https:///a/b", "qdrant://h:x/n",
     "qdrant://host/a%2Fb", "qdrant:///folder", "qdrant:////name", "opensearch://host/name"],
)  # fmt: skip
def test_a_location_that_names_no_collection_is_an_invalid_argument(location: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"qdrant://|cannot be the name"):
        QdrantBackend(location)


@pytest.mark.parametrize(
    "options",
    [{"shards": 0}, {"replicas": 0.5}, {"senders": 0}, {"timeout": 0}, {"dense": "flat"}, {"quantization": "int8"}],
)
def test_an_option_outside_its_range_is_an_invalid_argument(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        QdrantBackend(MEMORY, **options)


def test_a_servers_dense_search_is_approximate_unless_it_is_asked_to_be_exact() -> None:
    assert QdrantBackend("qdrant://host/name").capabilities.approximate == {"dense", "multi_vector"}
    assert not QdrantBackend("qdrant://host/name", dense="exact").capabilities.approximate
    assert not QdrantBackend(MEMORY).capabilities.approximate


def test_a_retriever_of_kind_text_is_refused() -> None:
    text = replace(SCHEMA.retrievers["sparse"], kind="text")
    with pytest.raises(BackendError, match=r"'native' \(text\).*hs\.BM25"):
        QdrantBackend(MEMORY).create(Schema({"native": text}))


def test_a_machine_whose_certificates_cannot_be_read_is_not_taken_for_an_embedded_qdrant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ssl, "create_default_context", unreadable)
    with pytest.raises(BackendError, match=r"Qdrant at qdrant\+https://\S+ cannot be reached \(.*Errno 5"):
        QdrantBackend("qdrant+https://127.0.0.1:1/name").open()


def test_looking_for_an_index_makes_no_folder(tmp_path: Path) -> None:
    assert QdrantBackend(f"qdrant://{tmp_path}/qdrant/name").open() is None
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_collection_is_refused_and_untouched(folder: Path) -> None:
    client = QdrantClient(path=str(folder))
    client.create_collection("theirs", models.VectorParams(size=3, distance=models.Distance.DOT))
    client.close()
    backend = QdrantBackend(f"qdrant://{folder}/theirs")
    with pytest.raises(BackendError, match="was not made by hybridsearch"):
        backend.open()
    with pytest.raises(IndexExistsError, match="choose another name"):
        backend.create(SCHEMA)
    backend.close()


def test_an_index_of_the_layout_before_filters_as_it_did_and_refuses_instants(folder: Path) -> None:
    backend = QdrantBackend(f"qdrant://{folder}/index")
    backend.create(SCHEMA)
    backend.close()
    client = QdrantClient(path=str(folder))
    metadata: Any = client.get_collection("index").config.metadata
    metadata["hybridsearch"]["layout"] = index.LAYOUT - 1
    client.update_collection("index", metadata=metadata)
    client.close()
    backend = QdrantBackend(f"qdrant://{folder}/index")
    assert backend.open() == SCHEMA
    held = {"at": "2024-02-29T15:30:00Z", "by": {"name": "cafe\u0301"}}
    put(backend, [plain(id, title="Wings", metadata=held) for id in ("e\u0301", "new")], SCHEMA)
    asked = {
        "at": {"$gte": "2024-02-29"},
        "by.name": "cafe\u0301",
        "by": {"$exists": False},
        "title": {"$exists": False},
        "id": {"$in": ["new", "e\u0301"]},
    }
    for field, test in asked.items():
        assert backend.count(Filter.parse({field: test})) == 2, field
    for name in ("caf\u00e9", "cafe\u0301"):
        asked = [name, {"$in": [name, None]}, {"$contains": name[3:]}, {"$gt": "cafe"}]
        assert [backend.count(Filter.parse({"by.name": test})) for test in asked] == [2, 2, 2, 2]
        assert backend.count(Filter.parse({"by.name": {"$ne": name}})) == 0
    assert backend.count(Filter.parse({"id": "\u00e9"})) == 1
    with pytest.raises(FilterError, match=r"made by an earlier version.* index its documents again"):
        backend.count(Filter.parse({"at": {"$lt": "2024-02-29T15:30:00Z"}}))
    backend.close()


def test_a_newer_layout_is_refused(folder: Path) -> None:
    backend = QdrantBackend(f"qdrant://{folder}/index")
    backend.create(SCHEMA)
    backend.close()
    client = QdrantClient(path=str(folder))
    client.update_collection("index", metadata={"hybridsearch": {"layout": 99, "schema": "{}"}})
    client.close()
    again = QdrantBackend(f"qdrant://{folder}/index")
    with pytest.raises(IndexCorruptedError, match="layout 99"):
        again.open()
    again.close()


class Command:
    """A class that a pickle from somebody else could name."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return Path.touch, (self.made,)


def spoil_points(folder: Path, outside: Path) -> None:
    with closing(sqlite3.connect(folder / "collection" / "index" / "storage.sqlite")) as storage, storage:
        storage.execute("INSERT INTO points VALUES ('x', ?)", (pickle.dumps(Command(outside / "made")),))


def cut_a_point(folder: Path, outside: Path) -> None:
    with closing(sqlite3.connect(folder / "collection" / "index" / "storage.sqlite")) as storage, storage:
        storage.execute("INSERT INTO points VALUES ('x', ?)", (pickle.dumps("a point")[:-3],))


def spoil_record(folder: Path, outside: Path) -> None:
    (folder / "meta.json").write_text('{"collections": {"index": {"vectors": 3}}, "aliases": []}')


def cut_record(folder: Path, outside: Path) -> None:
    path = folder / "meta.json"
    path.write_bytes(path.read_bytes()[:-9])


def name_another_folder(folder: Path, outside: Path) -> None:
    record = json.loads((folder / "meta.json").read_bytes())
    record["collections"]["../../outside/made"] = record["collections"]["index"]
    (folder / "meta.json").write_text(json.dumps(record))


def link_outside(folder: Path, outside: Path) -> None:
    (folder / "collection").rename(outside / "collection")
    (folder / "collection").symlink_to(outside / "collection")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client forgets its lock file
@pytest.mark.parametrize(
    "spoil", [spoil_points, cut_a_point, spoil_record, cut_record, name_another_folder, link_outside]
)
def test_a_folder_that_is_damaged_or_hostile_is_refused(spoil: Callable[[Path, Path], None], tmp_path: Path) -> None:
    backend = QdrantBackend(f"qdrant://{tmp_path}/qdrant/index")
    backend.create(SCHEMA)
    backend.close()
    (tmp_path / "outside").mkdir()
    spoil(tmp_path / "qdrant", tmp_path / "outside")
    again = QdrantBackend(f"qdrant://{tmp_path}/qdrant/index")
    with pytest.raises(IndexCorruptedError, match="index the documents again"):
        again.open()
    again.close()
    assert not (tmp_path / "outside" / "made").exists()
    gc.collect()


def test_a_folder_inside_a_folder_index_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    hs.HybridSearch({"bm25": hs.BM25()}, tmp_path).index([hs.Document("a", "wing")], show_progress_bar=False)
    files = sorted(tmp_path.iterdir())
    for place in (f"qdrant://{tmp_path}/papers", f"qdrant://{tmp_path}/segments/papers"):
        with pytest.raises(IndexExistsError, match=r"is inside the index in .*choose a folder outside of it"):
            hs.HybridSearch({"bm25": hs.BM25()}, place).index([hs.Document("a", "wing")], show_progress_bar=False)
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client forgets its lock file
def test_a_folder_that_another_process_uses_is_locked(folder: Path) -> None:
    QdrantClient(path=str(folder)).close()
    program = "import sys, qdrant_client as q; c = q.QdrantClient(path=sys.argv[1]); print(1, flush=True); input()"
    command = [sys.executable, "-c", program, str(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(IndexLockedError, match="Another process"):
            QdrantBackend(f"qdrant://{folder}/index").open()
    finally:
        other.communicate("\n")
        gc.collect()


def test_a_published_index_is_opened_by_its_alias(folder: Path) -> None:
    old, new = (QdrantBackend(f"qdrant://{folder}/{name}") for name in ("v1", "v2"))
    for backend, id in ((old, "old"), (new, "new")):
        backend.create(SCHEMA)
        put(backend, [plain(id)], SCHEMA)
    assert old.publish("live") is None
    assert new.publish("live") == "v1"
    live = QdrantBackend(f"qdrant://{folder}/live")
    assert live.open() == SCHEMA
    assert find_all(live, "lexical") == {"new"}
    put(live, [plain("more")], SCHEMA)
    assert new.count() == 2
    with pytest.raises(IndexExistsError, match="is the name of a collection"):
        live.publish("v2")
    gone = QdrantBackend(f"qdrant://{folder}/v1")
    assert gone.open() is None
    for backend in (old, new, live, gone):
        backend.close()


def test_the_files_of_an_index_that_is_replaced_are_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    closed: list[sqlite3.Connection] = []

    class Watched(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
    old, new = (QdrantBackend(f"qdrant://{folder}/{name}") for name in ("v1", "v2"))
    for backend in (old, new):
        backend.create(SCHEMA)
        backend.publish("live")
    assert len(opened) == 4  # with those of the terms
    assert set(closed) == set(opened[:2])
    old.close()
    new.close()
    assert set(closed) == set(opened)


SECRET = "s3cret-key"  # noqa: S105


class _Server(BaseHTTPRequestHandler):
    """An imitated Qdrant server with a given version, fault or wrong key."""

    script: Callable[[str], tuple[int, Any]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, answer = type(self).script(self.path)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Print no log."""


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str], tuple[int, Any]]], tuple[str, list[str]]]]:
    servers = []

    def start(script: Callable[[str], tuple[int, Any]]) -> tuple[str, list[str]]:
        asked: list[str] = []
        handler = type("Handler", (_Server,), {"script": staticmethod(script), "asked": asked})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _version(version: str) -> tuple[int, Any]:
    return 200, {"title": "qdrant", "version": version}


def test_a_server_that_is_too_old_is_named(serve: Any) -> None:
    place, _ = serve(lambda path: _version("1.9.4"))
    with pytest.raises(BackendError, match=r"version 1\.9\.4.*upgrade"):
        QdrantBackend(f"qdrant://{place}/name").open()


@pytest.mark.parametrize("answer", [(200, {"version": {"number": "3.1.0"}}), (200, [1]), (404, {"detail": "no"})])
def test_what_is_not_qdrant_is_named_in_a_short_sentence(serve: Any, answer: tuple[int, Any]) -> None:
    place, _ = serve(lambda path: answer)
    with pytest.raises(BackendError, match="does not answer like Qdrant") as caught:
        QdrantBackend(f"qdrant://{place}/name").open()
    assert len(str(caught.value)) < 200


def test_a_key_with_a_slash_as_it_is_reaches_no_host_and_no_message() -> None:
    with pytest.raises(InvalidArgumentError, match="%2F") as caught:
        QdrantBackend("qdrant+https://me:12/34secret@localhost:6333/name")
    assert "secret" not in str(caught.value)


def test_an_api_key_that_no_header_can_hold_is_refused_unseen() -> None:
    for key in ("s3cr3t\u20ac", "s3c\nr3t"):
        with pytest.raises(InvalidArgumentError, match="API key") as caught:
            QdrantBackend("qdrant://localhost/name", api_key=key)
        assert "s3c" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_newline_after_the_api_key_is_left_out(serve: Any) -> None:
    place, _ = serve(lambda path: (403, {"status": {"error": "no"}}))
    with pytest.raises(BackendError, match="refused the API key"):
        QdrantBackend(f"qdrant://{place}/name", api_key=f"{SECRET}\n").open()


def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(BackendError, match=r"qdrant://127\.0\.0\.1:9/name cannot be reached"):
        QdrantBackend("qdrant://127.0.0.1:9/name").open()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize("by", ["argument", "url", "environment"])
def test_a_wrong_key_is_refused_without_being_shown(serve: Any, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    def script(path: str) -> tuple[int, Any]:
        return 403, {"status": {"error": f"Forbidden: {SECRET} is not the key"}}

    place, _ = serve(script)
    if by == "environment":
        monkeypatch.setenv("HYBRIDSEARCH_QDRANT_API_KEY", SECRET)
    location = f"qdrant://:{SECRET}@{place}/name" if by == "url" else f"qdrant://{place}/name"
    backend = QdrantBackend(location, api_key=SECRET if by == "argument" else None)
    with pytest.raises(BackendError, match="refused the API key") as caught:
        backend.open()
    assert SECRET not in f"{caught.value} {backend!r} {caught.value.__cause__!r}"


def test_a_server_that_asks_for_a_key_is_named(serve: Any) -> None:
    place, _ = serve(lambda path: (401, {"status": {"error": "Must provide an API key"}}))
    with pytest.raises(BackendError, match=r"needs an API key.*HYBRIDSEARCH_QDRANT_API_KEY"):
        QdrantBackend(f"qdrant://{place}/name").open()


def test_a_request_is_repeated_while_the_server_is_busy(serve: Any) -> None:
    tries = []

    def script(path: str) -> tuple[int, Any]:
        if path == "/":
            return _version("1.20.0")
        tries.append(path)
        if len(tries) < 3:
            return 503, {"status": {"error": "busy"}}
        return 200, {"result": {"exists": False}, "status": "ok", "time": 0.0}

    place, _ = serve(script)
    backend = QdrantBackend(f"qdrant://{place}/name")
    assert backend.open() is None
    assert len(tries) == 3
    backend.close()


def test_a_slow_server_runs_into_the_timeout(serve: Any) -> None:
    done = threading.Event()

    def script(path: str) -> tuple[int, Any]:
        done.wait(10)
        return _version("1.20.0")

    place, _ = serve(script)
    with pytest.raises(BackendError, match="within 1 seconds"):
        QdrantBackend(f"qdrant://{place}/name", timeout=1).open()
    done.set()


def test_plain_http_where_tls_is_expected_is_named(serve: Any) -> None:
    place, _ = serve(lambda path: _version("1.20.0"))
    with pytest.raises(BackendError, match="TLS connection"):
        QdrantBackend(f"qdrant+https://{place}/name").open()


def test_a_timeout_that_the_system_cannot_count_is_an_invalid_argument() -> None:
    with pytest.raises(InvalidArgumentError, match="timeout is 1e\\+300"):
        QdrantBackend("qdrant://localhost/name", timeout=1e300)


def test_certificates_that_cannot_be_read_are_an_invalid_argument(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="ca_file"):
        QdrantBackend("qdrant+https://localhost/name", ca_file=tmp_path / "missing.pem").open()


def test_all_requests_of_a_call_travel_in_one(serve: Any) -> None:
    schema = make_schema(frozenset({"dense"}))
    info = _description(schema)

    def script(path: str) -> tuple[int, Any]:
        if path == "/":
            return _version("1.20.0")
        if path.endswith("/exists"):
            return 200, {"result": {"exists": True}}
        if path.endswith("/query/batch"):
            return 200, {"result": [{"points": []}] * 8}
        return 200, {"result": info}

    place, asked = serve(script)
    backend = QdrantBackend(f"qdrant://{place}/name")
    assert backend.open() == schema
    requests = [Request("dense", query, 5) for query in random_queries("dense", 8)]
    before = len(asked)
    assert [len(ranking) for ranking in backend.search(requests)] == [0] * 8
    assert [len(ranking) for ranking in asyncio.run(_once(backend, requests))] == [0] * 8
    assert [path.partition("?")[0] for path in asked[before:]] == ["/collections/name/points/query/batch"] * 2
    backend.close()


def _description(schema: Schema) -> dict[str, Any]:
    """How a server describes the collection of an index with this schema."""
    config = {
        "params": {}, "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10},
        "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1, "default_segment_number": 0,
                             "flush_interval_sec": 5},
        "metadata": index.Index(schema, "name", "mark", frozenset()).to_metadata(),
    }  # fmt: skip
    about = {"status": "green", "optimizer_status": "ok", "segments_count": 1, "payload_schema": {}}
    return about | {"config": config}


def test_a_server_gets_three_requests_for_a_search_of_passages_and_four_for_a_write(serve: Any) -> None:
    schema = with_passages(make_schema(frozenset({"dense"})))
    of = {name: {"id": name, "version": version, "number": 0} for version, name in enumerate("ab")}
    first = [of["a"], of["b"], *(of["a"] | {"number": number} for number in range(1, 8))]
    more = [of["b"], of["b"] | {"number": 1}]
    text = {"text": "Lift", "title": "", "metadata": "{}"}
    states = [of[name] | {"document": text, "spans": list(range(20))} for name in "ab"]

    def points(payloads: list[Any]) -> list[Any]:
        rows = enumerate(payloads)
        return [{"id": row, "version": 1, "score": 1 / (row + 1), "payload": payload} for row, payload in rows]

    done = {"operation_id": 1, "status": "completed"}
    of_passages, of_documents = iter([first, more]), iter([points(states), [], done])

    def script(path: str) -> tuple[int, Any]:
        path = path.partition("?")[0]
        if path == "/":
            return _version("1.20.0")
        if path.endswith("/exists"):
            return 200, {"result": {"exists": True}}
        if path.endswith("/query/batch"):
            return 200, {"result": [{"points": points(next(of_passages))}]}
        if path == "/collections/name/points":
            return 200, {"result": next(of_documents)}
        return 200, {"result": done if "/points" in path else _description(schema)}

    place, asked = serve(script)
    backend = QdrantBackend(f"qdrant://{place}/name")
    assert backend.open() == schema
    before = len(asked)
    (ranking,) = backend.search([Request("dense", random_queries("dense", 1)[0], 2, passages=2)])
    assert list(ranking) == [("a", 1.0), ("b", 0.5)]
    assert ranking.passages == {"a": [(0, 1, 1.0), (2, 3, 1 / 3)], "b": [(0, 1, 0.5), (2, 3, 0.5)]}
    assert [path.partition("?")[0] for path in asked[before:]] == [
        "/collections/name-passages/points/query/batch",
        "/collections/name/points",
        "/collections/name-passages/points/query/batch",
    ]
    before = len(asked)
    backend.upsert(encode(long_items(3), schema))
    assert [path.partition("?")[0] for path in asked[before:]] == [
        "/collections/name-passages/points",
        "/collections/name/points",
        "/collections/name/points",
        "/collections/name-passages/points/delete",
    ]
    backend.close()


async def _once(backend: QdrantBackend, requests: list[Request]) -> list[Any]:
    answers = await backend.asearch(requests)
    await backend.aclose()
    return answers


def test_the_vectors_of_a_dense_retriever_are_stored_as_they_were(backend: QdrantBackend) -> None:
    items = random_items(10)
    put(backend, items, SCHEMA)
    (batch,) = backend.scan()
    rows = {document.id: row for row, document in enumerate(batch.documents)}
    for item in items:
        assert np.array_equal(batch.vectors["dense"].array[rows[item.id]], item.vector)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------ as users do


def test_scifact_ranks_as_in_memory(data_folder: Path, minilm: str, folder: Path) -> None:
    documents = list(islice(hs.read_documents(data_folder / "scifact"), 50))
    lines = (data_folder / "scifact" / "queries.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    queries = [json.loads(line)["text"] for line in lines]
    retrievers: Any = {"bm25": hs.BM25(), "dense": hs.Dense(minilm, max_length=64)}
    memory = hs.HybridSearch(retrievers, backend="memory")
    qdrant = hs.HybridSearch(retrievers, backend=f"qdrant://{folder}/scifact")
    for search in (memory, qdrant):
        search.index(documents)
    qdrant.close()
    reopened = hs.open(f"qdrant://{folder}/scifact")
    for names in (["bm25"], ["dense"], ["bm25", "dense"]):
        right, found = (search.search_many(queries, top_k=50, retrievers=names) for search in (memory, reopened))
        for expected, results in zip(right, found, strict=True):
            assert [hit.id for hit in results] == [hit.id for hit in expected]
            assert [hit.score for hit in results] == pytest.approx([hit.score for hit in expected], rel=1e-5)
    reopened.close()
    memory.close()


def test_a_disk_that_is_full_at_the_end_of_a_request_is_a_storage_error(tmp_path: Path) -> None:
    class Full(sqlite3.Connection):
        def commit(self) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    with hs.HybridSearch({"bm25": hs.BM25()}, f"qdrant://{tmp_path}/papers") as search:
        search.index([hs.Document("a", "wing")], show_progress_bar=False)
        storage = search.backend._connection._connected()._client.collections["papers"].storage
        whole, storage.storage = storage.storage, sqlite3.connect(storage.location, factory=Full)
        with pytest.raises(StorageError, match="cannot be read or written: database or disk is full"):
            search.index([hs.Document("b", "wing")], show_progress_bar=False)
        storage.storage.close()
        storage.storage = whole


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_only_be_read_says_what_to_do(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, f"qdrant://{tmp_path}/papers") as search:
        search.index([hs.Document("a", "wing")], show_progress_bar=False)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / ".lock"))

    monkeypatch.setattr("hybridsearch.adapters.qdrant.connection.QdrantClient", refuse)
    with pytest.raises(StorageError, match=r"\.lock'\. Qdrant writes there even if you only search: allow it, or copy"):
        hs.open(f"qdrant://{tmp_path}/papers")


def test_an_embedded_engine_syncs_a_request_to_the_disk_once_and_not_each_point(tmp_path: Path) -> None:
    items = random_items(200)
    with closing(QdrantBackend(f"qdrant:///{tmp_path}/name")) as backend:
        backend.create(SCHEMA)
        put(backend, items[:1], SCHEMA)
        statements: list[str] = []
        for collection in backend._connection._connected()._client.collections.values():  # type: ignore[attr-defined]
            collection.storage.storage.set_trace_callback(statements.append)
        put(backend, items, SCHEMA)
        assert sum(statement.startswith("INSERT") for statement in statements) >= 200
        assert statements.count("COMMIT") < 10
    with closing(QdrantBackend(f"qdrant:///{tmp_path}/name")) as again:
        again.open()
        assert again.count() == 200


def test_an_exact_request_turns_the_graph_off() -> None:
    searcher = Searcher("papers", None, None, False, "hnsw", 64)  # type: ignore[arg-type]
    rough, exact = (searcher._params("dense", Request("dense", np.zeros(2), 10, exact=flag)) for flag in (False, True))
    assert rough is not None
    assert exact is not None
    assert (rough.exact, rough.hnsw_ef, exact.exact) == (False, 64, True)
    assert exact.quantization is not None
    assert exact.quantization.ignore


def test_questions_that_are_too_large_for_one_request_to_a_server_are_sent_in_several() -> None:
    questions = [models.QueryRequest(query=[0.1234567] * 100_000, limit=number) for number in range(1, 20)]
    for embedded in (False, True):
        searcher = Searcher("papers", None, None, embedded, "hnsw", 64)  # type: ignore[arg-type]
        steps = searcher._answers({"papers": questions, "none": []})
        calls = next(steps)
        parts = [one.arguments["requests"] for one in (calls if isinstance(calls, list) else [calls])]
        assert [len(part) for part in parts] == ([19] if embedded else [8, 8, 3])
        answers = [[question.limit for question in part] for part in parts]
        with pytest.raises(StopIteration) as stop:
            steps.send(answers if len(answers) > 1 else answers[0])
        assert stop.value.value == list(range(1, 20))


def test_a_list_that_is_read_on_after_close_does_not_take_the_folder_again(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, f"qdrant:///{tmp_path}/name")
    search.index([{"id": f"{number:04}", "text": "wing"} for number in range(600)], show_progress_bar=False)
    listing, batches = search.documents(), search.backend.scan(10)  # type: ignore[attr-defined]
    next(listing), next(batches)
    search.close()
    for rest in (listing, batches):
        with pytest.raises(BackendError, match="The index was closed"):
            list(rest)
    with hs.open(f"qdrant:///{tmp_path}/name") as again:
        assert again.count() == 600
    assert search.backend._connection._client is None  # type: ignore[attr-defined]
