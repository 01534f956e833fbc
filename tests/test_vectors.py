"""Tests of the vectors that encoders give to backends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema, Schema, check_batch
from hybridsearch.errors import EncodingError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    MultiVectors,
    PassageSpans,
    SparseQuery,
    SparseVectors,
    Vectors,
    Vocabulary,
    concat,
    take,
)

SPANS = PassageSpans.of([[(0, 4), (4, 9)], [(0, 0)], [(0, 3), (2, 5), (5, 8)]])


def test_passages_of_chosen_documents_keep_their_spans() -> None:
    assert SPANS.rows([2, 0]).tolist() == [3, 4, 5, 0, 1]
    taken = SPANS.take([2, 0])
    assert (taken.offsets.tolist(), taken.spans.tolist()) == ([0, 3, 5], [[0, 3], [2, 5], [5, 8], [0, 4], [4, 9]])
    assert SPANS.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert SPANS.documents == 3


def test_there_may_be_no_documents() -> None:
    assert (len(PassageSpans.of([])), PassageSpans.of([]).documents, SPANS.take([]).documents) == (0, 0, 0)
    assert SPANS.rows([]).tolist() == []


@pytest.mark.parametrize("documents", [[[(0, 2)], []], [[(2, 1)]], [[(-1, 1)]], [[(4, 6), (0, 4)]]])
def test_passages_that_are_not_spans_in_order_are_refused(documents: list[list[tuple[int, int]]]) -> None:
    with pytest.raises(EncodingError):
        PassageSpans.of(documents)


def test_a_batch_has_one_vector_for_each_document_or_passage() -> None:
    documents = [hs.Document(id, "0123456789") for id in "abc"]
    spec = RetrieverSchema("dense", Fingerprint("mine", {}), dimensions=2, metric="dot")
    by_passage = RetrieverSchema("dense", Fingerprint("mine", {}), dimensions=2, metric="dot", passages=True)
    schema = Schema({"whole": spec, "deep": by_passage}, passages={"size": 3})
    three, six = (DenseVectors(np.ones((rows, 2), np.float32), "dot") for rows in (3, 6))
    check_batch(EncodedBatch(documents, {"whole": three, "deep": six}, SPANS), schema)
    with pytest.raises(InvalidArgumentError, match="'deep' reads passages, but it has 3 vectors"):
        check_batch(EncodedBatch(documents, {"whole": three, "deep": three}, SPANS), schema)
    with pytest.raises(InvalidArgumentError, match="no passages, and the index has passages"):
        check_batch(EncodedBatch(documents, {"whole": three, "deep": three}), schema)
    with pytest.raises(EncodingError, match="passages of 3 documents for 1 document"):
        EncodedBatch(documents[:1], {}, SPANS)
    with pytest.raises(EncodingError, match="2 vectors for 3 documents and 6 passages"):
        EncodedBatch(documents, {"whole": DenseVectors(np.ones((2, 2), np.float32), "dot")}, SPANS)


def test_vectors_that_engines_would_understand_differently_are_refused() -> None:
    made = Fingerprint("any", {})
    sparse = Schema({"any": RetrieverSchema("sparse", made)})
    dense = Schema({"any": RetrieverSchema("dense", made, dimensions=2, metric="cosine")})

    def check(vectors: Vectors, schema: Schema) -> None:
        check_batch(EncodedBatch([hs.Document(str(row), "") for row in range(len(vectors))], {"any": vectors}), schema)

    def rows(columns: list[int], terms: list[str]) -> SparseVectors:
        matrix = csr_array((np.float32([1, 2]), np.array(columns), np.array([0, 2])), shape=(1, 2))
        return SparseVectors(matrix, Vocabulary(terms))

    rounded = np.float32([0.6, 0.8]).astype(np.float16).astype(np.float32)
    check(DenseVectors(np.stack([rounded, np.float32([0, 0])])), dense)
    with pytest.raises(
        InvalidArgumentError, match=r"'any' has a vector of length 5, .* 'cosine' every vector has length 1"
    ):
        check(DenseVectors(np.float32([[1, 0], [3, 4]])), dense)
    check(rows([1, 0], ["a", "b"]), sparse)
    with pytest.raises(InvalidArgumentError, match="'any' have a term twice in one row"):
        check(rows([1, 1], ["a", "b"]), sparse)
    with pytest.raises(InvalidArgumentError, match="'any' has the term 'a' twice"):
        check(rows([0, 1], ["a", "a"]), sparse)
    with pytest.raises(EncodingError, match="'a' twice"):
        SparseQuery(("a", "b", "a"), np.float32([1, 2, 3]))


def test_a_schema_with_passages_has_version_2_and_comes_back() -> None:
    retriever = RetrieverSchema("sparse", Fingerprint("mine", {}), passages=True)
    schema = Schema({"sparse": retriever}, {"candidates": 5}, {"size": 100, "whole": ["bm25"]})
    assert schema.to_json()["version"] == 2
    assert Schema.from_json(schema.to_json()) == schema
    plain = Schema({"sparse": RetrieverSchema("sparse", Fingerprint("mine", {}))}).to_json()
    assert "passages" not in str(plain)
    assert plain["version"] == 1
    with pytest.raises(IndexCorruptedError, match="reads up to 2"):
        Schema.from_json(schema.to_json() | {"version": 3})
    with pytest.raises(IndexCorruptedError):
        Schema.from_json(plain | {"retrievers": schema.to_json()["retrievers"]})


TOKENS = MultiVectors.of([np.float32([[3, 4], [1, 0]]), np.empty((0, 2)), np.float32([[0, 2], [0, -2]])], 2)


def test_multi_vectors_are_taken_and_joined_by_row() -> None:
    assert (len(TOKENS), TOKENS.counts.tolist(), TOKENS.array.dtype) == (3, [2, 0, 2], np.float16)
    taken = take(TOKENS, [2, 1])
    assert isinstance(taken, MultiVectors)
    assert (taken.of_row(0).tolist(), taken.of_row(1).tolist()) == ([[0, 2], [0, -2]], [])
    joined = concat([taken, TOKENS])
    assert isinstance(joined, MultiVectors)
    assert (joined.offsets.tolist(), joined.of_row(2).tolist()) == ([0, 2, 2, 4, 4, 6], [[3, 4], [1, 0]])


def test_the_mean_of_multi_vectors_has_unit_length_and_is_never_zero() -> None:
    expected = [np.float32([4, 4]) / 32**0.5, [0, 0], [1, 0]]  # no vectors, and vectors that add up to zero
    np.testing.assert_allclose(TOKENS.pooled(), expected, rtol=1e-6)


def test_numbers_are_rounded_to_16_bits() -> None:
    numbers = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    rounded = MultiVectors.of([numbers], 8).array.astype(np.float32)
    np.testing.assert_allclose(rounded, numbers, rtol=2.0**-11)


@pytest.mark.parametrize(
    ("array", "offsets", "said"),
    [
        (np.ones((2, 3), np.float32), [0, 2], "float16"),
        (np.ones(3, np.float16), [0, 3], "2-dimensional"),
        (np.float16([[1, np.nan]]), [0, 0, 1], "row 1 holds NaN"),
        (np.float16([[1, np.inf]]), [0, 1], "row 0 holds NaN or infinity"),
        (np.ones((2, 3), np.float16), [1, 2], "begins with 0"),
        (np.ones((2, 3), np.float16), [], "begins with 0"),
        (np.ones((2, 3), np.float16), [0, 1], "rise from 0 to 2"),
        (np.ones((2, 3), np.float16), [0, 2, 1, 2], "rise from 0 to 2"),
    ],
)
def test_multi_vectors_that_do_not_fit_are_refused(array: np.ndarray, offsets: list[int], said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(EncodingError, match=said):
        MultiVectors(array, np.array(offsets, dtype=np.int64))


def test_rows_of_other_shapes_or_too_large_numbers_are_refused() -> None:
    with pytest.raises(EncodingError, match=r"row 1 have the shape \(2,\), but \(tokens, 3\)"):
        MultiVectors.of([np.ones((1, 3)), np.ones(2)], 3)
    with pytest.raises(EncodingError, match="exceeds 65,504"):
        MultiVectors.of([np.float32([[1e5]])], 1)
