"""Tests of the vectors that encoders give to backends."""

from __future__ import annotations

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema, Schema, check_batch
from hybridsearch.errors import EncodingError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.vectors import DenseVectors, EncodedBatch, PassageSpans

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
