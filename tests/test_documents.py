"""A document is what can be stored, fetched and found, or it is refused by name."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch import Document
from hybridsearch.documents import MAX_ID_BYTES
from hybridsearch.errors import DocumentError


def test_encoders_read_title_and_text_as_one() -> None:
    assert Document("1", "text").content == "text"
    assert Document("1", "text", "title").content == "title text"


def test_empty_text_is_a_document() -> None:
    assert Document("1", "").content == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"id": ""}, "non-empty"),
        ({"id": 7}, "string"),
        ({"id": "é" * (MAX_ID_BYTES // 2 + 1)}, "512 bytes"),
        ({"id": "\ud800"}, "lone surrogate"),
        ({"text": None}, "text is a string"),
        ({"text": "\udfff"}, "lone surrogate"),
        ({"title": 1}, "title is a string"),
        ({"metadata": [1]}, "metadata is a mapping"),
        ({"metadata": {1: "a"}}, "keys are strings"),
        ({"metadata": {"a": math.nan}}, "nan"),
        ({"metadata": {"a": {"b": math.inf}}}, "inf"),
        ({"metadata": {"a": 2**63}}, "64 bits"),
        ({"metadata": {"a": [{"b": math.nan}]}}, "nan"),
        ({"metadata": {"a": b"raw"}}, "bytes"),
        ({"metadata": {"a": "\ud800"}}, "lone surrogate"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_a_reason(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        Document(**{"id": "1", "text": "text", **arguments})


def test_the_longest_id_is_allowed() -> None:
    assert Document("é" * (MAX_ID_BYTES // 2), "").id


def test_metadata_nested_too_deeply_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(2000):
        nested = {"a": nested}
    with pytest.raises(DocumentError, match="deeper than 20"):
        Document("1", "", metadata=nested)


def test_metadata_becomes_plain_json() -> None:
    metadata = {
        "date": dt.date(2024, 2, 29),
        "time": dt.datetime(2024, 2, 29, 12, 30),
        "int": np.int64(3),
        "float": np.float32(0.5),
        "flag": np.bool_(True),
        "price": decimal.Decimal("1.5"),
        "tags": ("a", None, 1),
        "nested": {"deep": {"er": 1}},
    }
    document = Document("1", "", metadata=metadata)
    assert json.loads(json.dumps(document.to_dict()["metadata"])) == {
        "date": "2024-02-29",
        "time": "2024-02-29T12:30:00",
        "int": 3,
        "float": 0.5,
        "flag": True,
        "price": 1.5,
        "tags": ["a", None, 1],
        "nested": {"deep": {"er": 1}},
    }


def test_metadata_cannot_be_changed_from_outside() -> None:
    metadata = {"year": 1958}
    document = Document("1", "", metadata=metadata)
    metadata["year"] = 0
    assert document.metadata["year"] == 1958
    with pytest.raises(TypeError):
        document.metadata["year"] = 0  # type: ignore[index]


@given(
    st.text(),
    st.text(),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.floats()),
)
def test_a_document_comes_back_from_its_dict_and_from_pickle(text: str, title: str, metadata: dict[str, Any]) -> None:
    try:
        document = Document("1", text, title, metadata)
    except DocumentError:
        return
    assert Document(**document.to_dict()) == document
    assert pickle.loads(pickle.dumps(document)) == document  # noqa: S301
