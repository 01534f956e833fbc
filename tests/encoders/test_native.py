"""Tests of what is sent to the BM25 of an engine. Its rankings are tested with the engines."""

from __future__ import annotations

import pytest

from hybridsearch.backends import Schema
from hybridsearch.encoders import make_encoder
from hybridsearch.encoders.native import NativeBM25
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import TextQuery


def test_documents_have_no_terms_and_queries_are_texts() -> None:
    encoder = NativeBM25("english")
    vectors = encoder.encode_documents(["lift of a wing", ""])
    assert vectors.matrix.shape == (2, 0)
    assert encoder.encode_queries(["wing"]) == [TextQuery("wing")]


def test_an_index_remembers_analyzer_and_parameters() -> None:
    schema = Schema({"native": NativeBM25("english", k1=0.9, b=0.4).schema()})
    remembered = Schema.from_json(schema.to_json()).retrievers["native"]
    assert remembered.encoder is not None
    again = make_encoder(remembered.encoder)
    assert repr(again) == "NativeBM25(analyzer='english', k1=0.9, b=0.4)"
    assert again.fingerprint() == remembered.fingerprint
    assert again.fingerprint() != NativeBM25("standard", k1=0.9, b=0.4).fingerprint()


@pytest.mark.parametrize("arguments", [{"analyzer": ""}, {"k1": -1.0}, {"k1": float("nan")}, {"b": 1.5}])
def test_senseless_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        NativeBM25(**arguments)  # type: ignore[arg-type]
