"""Tests of storage. Documents, ids, terms, metadata and vectors must come back unchanged, also after opening again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hybridsearch.backends import Backend, Capabilities, Kind, Reopened, Schema
from hybridsearch.documents import Document
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, Kinds, ask, assert_same, case, check, find_all, put, require
from hybridsearch.testing.samples import Item, sparse_query
from hybridsearch.testing.ties import ODD_IDS
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors, SparseVectors, Vectors

ODD_TERMS = [
    "a.b.c", ".", "..", "$gt", "$", "_", "-", "*", "with space", " ", "\t", "quote'\"", "back\\slash", "[MASK]",
    "##ing", "été", "e\u0301te\u0301", "日本", "\U0001f600", "\u200b", "\u00a0", "nul\x00inside", "UPPER", "upper",
    "0", "00", "1.0", "-1", "null", "true", "t" * 3000, "t" * 3001, "ü" * 600, "<s>", "%20", "a/b", "a:b", "a^2", "a~1",
    "(a)",
]  # fmt: skip
"""Terms that an engine could split, change, cut off or mistake for a path."""

ODD_METADATA: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "false": False,
    "one": 1,
    "float one": 1.0,
    "zero": 0,
    "minus zero point five": -0.5,
    "largest": 2**63 - 1,
    "smallest": -(2**63 - 1),
    "exact": 2**53 + 1,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "third": 1 / 3,
    "": "empty key",
    "empty": "",
    "list": [1, 1.0, True, None, "1", -0.5, ""],
    "empty list": [],
    "nested": {"deep": {"deeper": {"": [None], "a.b": 1, "x": {}}}},
    "dotted.key": {"inner.key": 1},
    "$dollar": "$value",
    "id": "not the id",
    "text": "not the text",
    "_source": 1,
    "Zoë \U0001f600": "\u65e5\u672c \x00 \" ' \\ \n\t\r\u2028",
}
"""Metadata whose values JSON, a column or a mapping could easily change."""


class StorageTests(Base):
    """Tests that stored data come back unchanged."""

    def test_documents_come_back_in_the_order_asked(self, backend: Backend, schema: Schema) -> None:
        items = samples.random_items(20)
        put(backend, items[:11], schema)
        put(backend, items[11:], schema)
        asked = ["d13", "unknown", "d2", "d2", "D2", "d19", "d0", "", "d" * 10_000]
        by_id = {item.id: item.document for item in items}
        assert backend.fetch(asked) == [by_id.get(id) for id in asked]

    def test_what_another_object_makes_and_stores_is_found_after_looking_again(
        self, connect: Connect, capabilities: Capabilities, schema: Schema, any_kind: Kind
    ) -> None:
        require(capabilities.persistent, "persistence")
        reader, writer = connect("followed"), connect("followed")
        look = reader.reopen if isinstance(reader, Reopened) else reader.open
        try:
            assert reader.open() is None
            writer.create(schema)
            put(writer, [samples.plain("a")], schema)
            seen = look()
            assert seen is not None
            assert list(seen.retrievers) == list(schema.retrievers)
            assert (find_all(reader, any_kind), reader.count()) == ({"a"}, 1)
            put(writer, [samples.plain("b")], schema)
            look()
            assert (find_all(reader, any_kind), reader.count()) == ({"a", "b"}, 2)
        finally:
            reader.close()
            writer.close()

    def test_fetching_nothing_gives_nothing(self, backend: Backend, schema: Schema) -> None:
        put(backend, [samples.plain("a")], schema)
        assert backend.fetch([]) == []

    def test_an_empty_index_has_no_documents(self, backend: Backend) -> None:
        assert (backend.count(), backend.fetch(["a"])) == (0, [None])

    def test_a_batch_of_no_documents_changes_nothing(self, backend: Backend, schema: Schema, any_kind: Kind) -> None:
        put(backend, [samples.plain("a")], schema)
        put(backend, [], schema)
        assert (backend.count(), find_all(backend, any_kind)) == (1, {"a"})

    def test_odd_ids_are_found_fetched_counted_and_deleted(
        self, backend: Backend, schema: Schema, any_kind: Kind
    ) -> None:
        put(backend, [samples.plain(id, text=f"text of {id}") for id in ODD_IDS], schema)
        assert backend.count() == len(ODD_IDS)
        assert find_all(backend, any_kind) == set(ODD_IDS)
        assert backend.fetch(ODD_IDS) == [Document(id, f"text of {id}") for id in ODD_IDS]
        if backend.capabilities.delete:
            assert backend.delete(ODD_IDS[::2]) == len(ODD_IDS[::2])
            backend.refresh()
            assert find_all(backend, any_kind) == set(ODD_IDS[1::2])

    def test_odd_terms_match_themselves_and_nothing_else(
        self, backend: Backend, schema: Schema, term_kinds: Kinds
    ) -> None:
        items = [Item(f"d{n}", {term: n % 3 + 1}, {term: n % 5 + 1.5}) for n, term in enumerate(ODD_TERMS)]
        put(backend, items[::2], schema)
        put(backend, items[1::2], schema)
        for kind in term_kinds:
            for term in ODD_TERMS:
                check(backend, kind, items, sparse_query({term: 1.0}), 100)
            check(backend, kind, items, sparse_query(dict.fromkeys(ODD_TERMS, 1.0)), 100)

    def test_metadata_comes_back_with_the_same_types(self, backend: Backend, schema: Schema) -> None:
        put(backend, [samples.plain("a", metadata=ODD_METADATA), samples.plain("b", metadata={"one": "1"})], schema)
        put(backend, [samples.plain("c", metadata={"one": [1], "list": {"a": 1}, "nested": 2})], schema)
        a, b, c = backend.fetch(["a", "b", "c"])
        assert a is not None
        assert b is not None
        assert c is not None
        assert _typed(a.metadata) == _typed(Document("a", "", "", ODD_METADATA).metadata)
        assert (b.metadata, c.metadata) == ({"one": "1"}, {"one": [1], "list": {"a": 1}, "nested": 2})

    def test_text_and_title_come_back_as_they_were(self, backend: Backend, schema: Schema) -> None:
        for text in ("", " \n", "x" * 1_000_000, "日本語 \U0001f600 \u0000 \u2028 \r\n\t \ufeff"):
            put(backend, [samples.plain("a", text=text, title=text[:100])], schema)
            assert backend.fetch(["a"]) == [Document("a", text, text[:100])]

    def test_a_document_of_many_thousand_terms_is_found_by_each(
        self, backend: Backend, schema: Schema, term_kinds: Kinds
    ) -> None:
        terms = [f"t{number}" for number in range(5000)]
        big = Item("big", dict.fromkeys(terms, 1), dict.fromkeys(terms, 0.5))
        items = [big, *samples.random_items(10)]
        put(backend, items, schema)
        for kind in term_kinds:
            for query in ({"t0": 1.0}, {"t4999": 1.0}, dict.fromkeys(terms[::50], 1.0)):
                check(backend, kind, items, sparse_query(query))

    def test_inputs_are_not_changed(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        items = [replace(item, metadata={"list": [1, 2], "nested": {"a": [3]}}) for item in samples.random_items(20)]
        batch, untouched = samples.encode(items, schema), samples.encode(items, schema)
        ids = [item.id for item in items]
        backend.upsert(batch)
        backend.refresh()
        for kind in kinds:
            query, same_query = samples.random_queries(kind, 1)[0], samples.random_queries(kind, 1)[0]
            ask(backend, kind, query)
            with case(kind=kind):
                _assert_same_query(query, same_query)
        backend.fetch(ids)
        if backend.capabilities.delete:
            backend.delete(ids)
            backend.refresh()
        assert ids == [item.id for item in items]
        _assert_same_batch(batch, untouched)

    def test_changing_the_inputs_afterwards_changes_nothing(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        items = samples.random_items(20)
        batch = put(backend, items, schema)
        for vectors in batch.vectors.values():
            if isinstance(vectors, DenseVectors | MultiVectors):
                vectors.array[:] = 7.0
            else:
                vectors.matrix.data[:] = 7.0
        for kind in kinds:
            for query in samples.random_queries(kind, 4):
                check(backend, kind, items, query)

    def test_changing_an_answer_changes_no_later_one(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        items = samples.random_items(20)
        put(backend, items, schema)
        for kind in kinds:
            query = samples.random_queries(kind, 1)[0]
            first = ask(backend, kind, query)
            if first.scores.flags.writeable:
                first.scores[:] = -1.0
            check(backend, kind, items, query)

    def test_opening_an_empty_place_finds_no_index(self, connect: Connect) -> None:
        backend = connect("index")
        assert backend.open() is None
        backend.close()

    def test_an_index_can_be_created_after_nothing_was_found(self, connect: Connect, schema: Schema) -> None:
        backend = connect("index")
        assert backend.open() is None
        backend.create(schema)
        put(backend, [samples.plain("a")], schema)
        assert backend.count() == 1
        backend.close()

    def test_a_reopened_index_is_the_same(self, connect: Connect, schema: Schema, kinds: Kinds) -> None:
        items = samples.random_items()
        questions = [(kind, query) for kind in kinds for query in samples.random_queries(kind)]
        backend = connect("index")
        require(backend.capabilities.persistent, "persistence")
        backend.create(schema)
        put(backend, items[:40], schema)
        put(backend, items[40:], schema)
        if backend.capabilities.delete:
            backend.delete([items[1].id])
            backend.refresh()
            del items[1]
        before = [ask(backend, kind, query, 30) for kind, query in questions]
        backend.close()
        again = connect("index")
        found = again.open()
        assert found is not None
        assert found.to_json() == schema.to_json()
        assert again.count() == len(items)
        assert again.fetch([item.id for item in items]) == [item.document for item in items]
        for (kind, query), ranking in zip(questions, before, strict=True):
            assert_same(again, kind, ask(again, kind, query, 30), ranking)
        again.close()

    def test_a_reopened_index_can_be_changed(self, connect: Connect, schema: Schema, kinds: Kinds) -> None:
        items = samples.random_items()
        require(connect("index").capabilities.persistent, "persistence")
        backend = connect("index")
        backend.create(schema)
        put(backend, items[:30], schema)
        for start in (30, 40, 50):
            backend.close()
            backend = connect("index")
            assert backend.open() is not None
            put(backend, items[start : start + 10], schema)
        for kind in kinds:
            for query in samples.random_queries(kind, 4):
                check(backend, kind, items, query, 100)
        backend.close()

    def test_a_reopened_empty_index_is_empty(self, connect: Connect, schema: Schema, any_kind: Kind) -> None:
        backend = connect("index")
        require(backend.capabilities.persistent, "persistence")
        backend.create(schema)
        backend.close()
        again = connect("index")
        assert again.open() is not None
        assert (again.count(), find_all(again, any_kind)) == (0, set())
        again.close()

    def test_two_places_are_two_indexes(self, connect: Connect, schema: Schema, any_kind: Kind) -> None:
        one, two = connect("index"), connect("copy")
        for backend, id in ((one, "a"), (two, "b")):
            backend.create(schema)
            put(backend, [samples.plain(id)], schema)
        assert (find_all(one, any_kind), find_all(two, any_kind)) == ({"a"}, {"b"})
        one.close()
        two.close()

    def test_a_scan_gives_every_document_with_its_vectors(self, backend: Backend, schema: Schema) -> None:
        require(backend.capabilities.scan, "scan")
        items = [*samples.random_items(25), Item("empty"), *(Item(id, {id: 2}, {id: 0.25}) for id in ODD_TERMS[:9])]
        put(backend, items[:20], schema)
        put(backend, items[20:], schema)
        put(backend, [replace(items[3], weights={"replaced": 2.0})], schema)
        items[3] = replace(items[3], weights={"replaced": 2.0})
        expected = sorted(_rows(samples.encode(items, schema)), key=_id_of)
        for batch_size in (1, 7, 1024):
            batches = list(backend.scan(batch_size))
            assert all(0 < len(batch) <= batch_size for batch in batches), batch_size
            scanned = [row for batch in batches for row in _rows(batch)]
            assert sorted(scanned, key=_id_of) == expected, batch_size

    def test_an_index_copied_by_scan_gives_the_same_rankings(
        self, connect: Connect, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        require(backend.capabilities.scan, "scan")
        put(backend, samples.random_items(), schema)
        if backend.capabilities.delete:
            backend.delete(["d7", "d8"])
            backend.refresh()
        copied = connect("copy")
        copied.create(schema)
        for batch in backend.scan(13):
            copied.upsert(batch)
        copied.refresh()
        assert copied.count() == backend.count()
        for kind in kinds:
            for query in samples.random_queries(kind):
                assert ask(copied, kind, query, 20) == ask(backend, kind, query, 20), kind
        copied.close()

    def test_a_scan_of_an_empty_index_gives_nothing(self, backend: Backend) -> None:
        require(backend.capabilities.scan, "scan")
        assert list(backend.scan()) == []


def _typed(value: Any) -> Any:
    """The value with the type of each scalar, because 1, 1.0 and True are equal in Python."""
    if isinstance(value, Mapping):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(inner) for inner in value]
    return type(value).__name__, value


def _rows(batch: EncodedBatch) -> list[tuple[Document, dict[str, Any]]]:
    """Each document with its vectors: weights by term, or a list of floats."""
    return [
        (document, {name: vector_of(vectors, row) for name, vectors in batch.vectors.items()})
        for row, document in enumerate(batch.documents)
    ]


def vector_of(vectors: Vectors, row: int) -> dict[str, float] | list[Any]:
    """One vector: weights by term, or a list of floats. Of multi-vectors, a list of lists."""
    if isinstance(vectors, MultiVectors):
        tokens: list[Any] = vectors.of_row(row).tolist()
        return tokens
    if isinstance(vectors, DenseVectors):
        return [float(value) for value in vectors.array[row]]
    matrix = vectors.matrix
    start, end = matrix.indptr[row], matrix.indptr[row + 1]
    return {
        vectors.vocabulary.terms[column]: float(value)
        for column, value in zip(matrix.indices[start:end], matrix.data[start:end], strict=True)
    }


def _id_of(row: tuple[Document, dict[str, Any]]) -> str:
    return row[0].id


def _assert_same_batch(batch: EncodedBatch, untouched: EncodedBatch) -> None:
    assert list(batch.documents) == list(untouched.documents)
    assert batch.vectors.keys() == untouched.vectors.keys()
    for name, vectors in batch.vectors.items():
        other = untouched.vectors[name]
        if isinstance(vectors, DenseVectors) and isinstance(other, DenseVectors):
            assert np.array_equal(vectors.array, other.array)
            continue
        if isinstance(vectors, MultiVectors) and isinstance(other, MultiVectors):
            assert np.array_equal(vectors.array, other.array)
            assert np.array_equal(vectors.offsets, other.offsets)
            continue
        assert isinstance(vectors, SparseVectors)
        assert isinstance(other, SparseVectors)
        assert vectors.vocabulary.terms == other.vocabulary.terms
        for part in ("data", "indices", "indptr"):
            assert np.array_equal(getattr(vectors.matrix, part), getattr(other.matrix, part))


def _assert_same_query(query: Any, other: Any) -> None:
    if isinstance(query, np.ndarray):
        assert np.array_equal(query, other)
    else:
        assert query.terms == other.terms
        assert np.array_equal(query.weights, other.weights)
