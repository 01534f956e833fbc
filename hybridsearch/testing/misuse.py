"""Tests of mistakes. Each must raise one of `hybridsearch.errors` and leave the index unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hybridsearch.backends import Backend, Kind, Request, Schema
from hybridsearch.errors import BackendError, HybridSearchError, IndexExistsError, InvalidArgumentError
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, Kinds, case, check, find_all, put, require
from hybridsearch.testing.samples import DIMENSIONS
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors, QueryVector, Vectors

_OTHER_DIMENSIONS = (DIMENSIONS - 1, DIMENSIONS + 1, 0)


class MisuseTests(Base):
    """Tests of wrong arguments, of calls in the wrong order, and of NaN."""

    def test_creating_an_index_where_one_is_raises_index_exists_error(self, backend: Backend, schema: Schema) -> None:
        put(backend, [samples.plain("a")], schema)
        with pytest.raises(IndexExistsError):
            backend.create(schema)
        assert backend.count() == 1

    def test_creating_an_index_where_another_handle_made_one_raises_index_exists_error(
        self, connect: Connect, schema: Schema
    ) -> None:
        first = connect("index")
        require(first.capabilities.persistent, "persistence")
        first.create(schema)
        put(first, [samples.plain("a")], schema)
        first.close()
        second = connect("index")
        with pytest.raises(IndexExistsError):
            second.create(schema)
        second.close()

    def test_closing_twice_is_allowed(self, backend: Backend) -> None:
        backend.close()
        backend.close()

    def test_closing_before_opening_is_allowed(self, connect: Connect) -> None:
        connect("index").close()

    def test_using_a_closed_backend_raises_backend_error(
        self, backend: Backend, schema: Schema, any_kind: Kind
    ) -> None:
        put(backend, [samples.plain("a")], schema)
        backend.close()
        calls: list[Callable[[], object]] = [
            lambda: backend.search([Request(any_kind, samples.common_query(any_kind), 1)]),
            lambda: backend.upsert(samples.encode([samples.plain("b")], schema)),
            lambda: backend.fetch(["a"]),
            backend.count,
            backend.refresh,
        ]
        for call in calls:
            with pytest.raises(BackendError):
                call()

    def test_using_a_backend_without_an_index_raises_our_error(self, connect: Connect, any_kind: Kind) -> None:
        backend = connect("index")
        backend.open()
        with pytest.raises(HybridSearchError):
            backend.search([Request(any_kind, samples.common_query(any_kind), 1)])
        backend.close()

    def test_an_unknown_retriever_is_an_invalid_argument(self, filled: Backend, any_kind: Kind) -> None:
        with pytest.raises(InvalidArgumentError, match="unknown"):
            filled.search([Request("unknown", samples.common_query(any_kind), 1)])

    def test_a_batch_without_a_retriever_of_the_schema_is_an_invalid_argument(
        self, backend: Backend, schema: Schema, any_kind: Kind
    ) -> None:
        batch = put(backend, [samples.plain("a")], schema)
        missing = {name: vectors for name, vectors in batch.vectors.items() if name != any_kind}
        with pytest.raises(InvalidArgumentError, match=any_kind):
            backend.upsert(EncodedBatch(batch.documents, missing))
        assert backend.count() == 1

    def test_a_batch_with_a_retriever_that_the_schema_lacks_is_an_invalid_argument(
        self, backend: Backend, schema: Schema, any_kind: Kind
    ) -> None:
        batch = put(backend, [samples.plain("a")], schema)
        more = {**batch.vectors, "stranger": batch.vectors[any_kind]}
        with pytest.raises(InvalidArgumentError, match="stranger"):
            backend.upsert(EncodedBatch(batch.documents, more))
        assert backend.count() == 1

    def test_vectors_of_other_dimensions_are_refused_and_nothing_is_stored(
        self, backend: Backend, schema: Schema, dense: Kind
    ) -> None:
        batch = put(backend, [samples.plain("a")], schema)
        for dimensions in _OTHER_DIMENSIONS:
            with case(dimensions=dimensions):
                wrong = DenseVectors(np.ones((1, dimensions), dtype=np.float32))
                with pytest.raises(HybridSearchError):
                    backend.upsert(EncodedBatch([samples.plain("b").document], {**batch.vectors, dense: wrong}))
                backend.refresh()
                assert find_all(backend, dense) == {"a"}
                assert backend.fetch(["b"]) == [None]

    def test_cosine_vectors_of_other_lengths_than_1_are_refused_and_nothing_is_stored(
        self, backend: Backend, schema: Schema, dense: Kind
    ) -> None:
        batch = put(backend, [samples.plain("a")], schema)
        right = batch.vectors[dense]
        assert isinstance(right, DenseVectors)
        for length in (0.5, 3.0):
            with case(length=length):
                wrong = DenseVectors(right.array * np.float32(length), "cosine")
                with pytest.raises(InvalidArgumentError, match="length"):
                    backend.upsert(EncodedBatch([samples.plain("b").document], {**batch.vectors, dense: wrong}))
                backend.refresh()
                assert find_all(backend, dense) == {"a"}

    def test_a_query_of_other_dimensions_is_refused(self, filled: Backend, dense: Kind) -> None:
        for dimensions in _OTHER_DIMENSIONS:
            with case(dimensions=dimensions), pytest.raises(HybridSearchError):
                filled.search([Request(dense, np.ones(dimensions, dtype=np.float32), 1)])

    def test_token_vectors_of_other_dimensions_are_refused_and_nothing_is_stored(
        self, backend: Backend, schema: Schema, multi_vector: Kind
    ) -> None:
        batch = put(backend, [samples.plain("a")], schema)
        for dimensions in _OTHER_DIMENSIONS:
            with case(dimensions=dimensions):
                wrong = MultiVectors.of([np.ones((2, dimensions), dtype=np.float32)], dimensions)
                with pytest.raises(HybridSearchError):
                    backend.upsert(EncodedBatch([samples.plain("b").document], {**batch.vectors, multi_vector: wrong}))
                backend.refresh()
                assert find_all(backend, multi_vector) == {"a"}
        for shape in ((2, DIMENSIONS - 1), (DIMENSIONS,), (1, 1, DIMENSIONS)):
            with case(shape=shape), pytest.raises(HybridSearchError):
                backend.search([Request(multi_vector, np.ones(shape, dtype=np.float32), 1)])

    def test_vectors_of_another_kind_are_refused(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        batch = put(backend, [samples.plain("a")], schema)
        for kind in kinds:
            other = samples.make_schema(frozenset({_another(kind)}))
            (vectors,) = samples.encode([samples.plain("b")], other).vectors.values()
            with case(kind=kind), pytest.raises(HybridSearchError):
                backend.upsert(EncodedBatch([samples.plain("b").document], {**batch.vectors, kind: vectors}))
            assert backend.count() == 1, kind

    def test_a_query_of_another_kind_is_refused(self, filled: Backend, kinds: Kinds) -> None:
        for kind in kinds:
            with case(kind=kind), pytest.raises(HybridSearchError):
                filled.search([Request(kind, samples.common_query(_another(kind)), 1)])

    def test_documents_with_nan_or_infinity_are_refused(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        put(backend, [samples.plain("a")], schema)
        batch = samples.encode([samples.plain("b")], schema)
        for kind, value in product(kinds, (np.nan, np.inf, -np.inf)):
            spoilt = _spoil(batch.vectors[kind], value)
            with case(kind=kind, value=value):
                with pytest.raises(HybridSearchError):
                    backend.upsert(EncodedBatch(batch.documents, {**batch.vectors, kind: spoilt()}))
                assert backend.count() == 1
                assert find_all(backend, kind) == {"a"}

    def test_queries_with_nan_or_infinity_are_refused(self, filled: Backend, kinds: Kinds) -> None:
        for kind, value in product(kinds, (np.nan, np.inf)):
            with case(kind=kind, value=value), pytest.raises(HybridSearchError):
                filled.search([Request(kind, _spoilt_query(kind, value), 1)])

    def test_an_id_that_comes_twice_in_a_batch_is_refused(
        self, backend: Backend, schema: Schema, any_kind: Kind
    ) -> None:
        items = samples.random_items(5)
        put(backend, items, schema)
        twice = [samples.plain("x"), samples.plain("y"), samples.plain("x")]
        with pytest.raises(HybridSearchError, match="x"):
            backend.upsert(samples.encode(twice, schema))
        backend.refresh()
        assert backend.fetch(["x", "y"]) == [None, None]
        for query in samples.random_queries(any_kind, 3):
            check(backend, any_kind, items, query, 100)

    def test_a_k_below_one_is_an_invalid_argument(self, filled: Backend, kinds: Kinds) -> None:
        for kind, k in product(kinds, (0, -1)):
            with case(kind=kind, k=k), pytest.raises(InvalidArgumentError):
                filled.search([Request(kind, samples.common_query(kind), k)])


def _another(kind: Kind) -> Kind:
    return "sparse" if kind == "dense" else "dense"


def _spoilt_query(kind: Kind, value: float) -> QueryVector:
    if kind in ("dense", "multi_vector"):
        query = np.ones(DIMENSIONS, dtype=np.float32)
        query[3] = value
        return query if kind == "dense" else query[None]
    return samples.sparse_query({"common": value})


def _spoil(vectors: Vectors, value: float) -> Callable[[], Vectors]:
    """A function that makes vectors that contain `value`. The vector types themselves refuse NaN and infinity."""
    if isinstance(vectors, DenseVectors):
        array = vectors.array.copy()
        array[0, 0] = value
        return lambda: replace(vectors, array=array)
    if isinstance(vectors, MultiVectors):
        tokens = vectors.array.copy()
        tokens[0, 0] = value
        return lambda: replace(vectors, array=tokens)
    matrix = vectors.matrix.copy()
    matrix.data[0] = value
    return lambda: replace(vectors, matrix=matrix)
