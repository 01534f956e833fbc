"""Tests of documents: a document can be stored, fetched and found, or it is refused with its id."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import operator
import pickle
import uuid
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
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
        ({"metadata": {"a": {"b": math.inf}}}, "inf"),
        ({"metadata": {"a": 2**63}}, "64 bits"),
        ({"metadata": {"a": [{"b": -math.inf}]}}, "inf"),
        ({"metadata": {"a": decimal.Decimal("1e400")}}, "64 bits"),
        ({"metadata": {"a": dt.timedelta(1)}}, "a duration: use a number, such as its seconds"),
        ({"metadata": {"a": np.timedelta64(1, "s")}}, "a duration"),
        ({"metadata": {"a": pd.Timedelta(1)}}, "a duration"),
        ({"metadata": {"a": pd.Period("2020-01")}}, "of type Period, but only"),
        ({"metadata": {"a": dt.time(1, tzinfo=dt.UTC)}}, "leave out the zone"),
        ({"metadata": {"a": np.bytes_(b"raw")}}, "of type bytes"),
        ({"metadata": {"a": 1j}}, "of type complex"),
        ({"metadata": {"a": MagicMock()}}, "of type MagicMock"),
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


class Colour(str, enum.Enum):  # noqa: UP042 - its str() is "Colour.RED"
    RED = "red"


class Day(enum.Enum):
    FIRST = dt.date(1970, 1, 1)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (pd.NaT, None),
        (pd.NA, None),
        (math.nan, None),
        (np.float32("nan"), None),
        (decimal.Decimal("NaN"), None),
        (np.datetime64("NaT"), None),
        ([1, pd.NaT], [1, None]),
        (np.datetime64("2024-02-29T12:30:00", "ns"), "2024-02-29T12:30:00"),
        (np.datetime64("2024-02-29T12:30:00.25"), "2024-02-29T12:30:00.250000"),
        (np.datetime64("2024-02-29T12:30:00.000000001"), "2024-02-29T12:30:00.000000001"),
        (np.datetime64("2024-02-29T12:30"), "2024-02-29T12:30:00"),
        (np.datetime64("2024-02-29"), "2024-02-29"),
        (np.datetime64("2024-02"), "2024-02-01"),
        (np.array(["2024-02-29"], dtype="datetime64[ns]"), ["2024-02-29T00:00:00"]),
        (pd.Timestamp("2024-02-29T12:30"), "2024-02-29T12:30:00"),
        (pd.Timestamp("2024-03-01T00:30", tz="Asia/Tokyo"), "2024-02-29T15:30:00+00:00"),
        (dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(-dt.timedelta(hours=9))), "9999-12-31T23:00:00-09:00"),
        (dt.time(12, 30), "12:30:00"),
        (np.float32(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (fractions.Fraction(1, 2), 0.5),
        (decimal.Decimal(2**53 + 1), 2**53 + 1),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(7), 7),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Colour.RED, "red"),
        (Day.FIRST, "1970-01-01"),
        ({"b", "a", 2, 10, None, True}, [None, True, 10, 2, "a", "b"]),
        (np.str_("x"), "x"),
    ],
)
def test_each_kind_of_value_becomes_the_plain_one_that_it_stands_for(given: Any, kept: Any) -> None:
    (found,) = Document("1", "", metadata={"a": given}).metadata.values()
    assert found == kept
    assert json.dumps(found) == json.dumps(kept)


def test_metadata_cannot_be_changed_from_outside() -> None:
    metadata: dict[str, Any] = {"year": 1958, "by": {"names": ["Ada", {"first": "Grace"}]}}
    document, before = Document("1", "", metadata=metadata), copy.deepcopy(metadata)
    metadata["year"] = 0
    metadata["by"]["names"][1]["first"] = "nobody"
    metadata["by"]["names"].append("nobody")
    assert document.metadata == before
    changes: list[Callable[[Any], Any]] = [
        lambda found: found.update(year=0),
        lambda found: found["by"].update(names=[]),
        lambda found: found["by"].pop("names"),
        lambda found: found["by"].setdefault("other", 1),
        lambda found: found["by"]["names"].append("nobody"),
        lambda found: found["by"]["names"].sort(key=str),
        lambda found: operator.setitem(found["by"]["names"][1], "first", "nobody"),
        lambda found: operator.ior(found["by"], {"names": 1}),
        lambda found: operator.iadd(found["by"]["names"], ["nobody"]),
        lambda found: operator.delitem(found["by"]["names"], 0),
    ]
    for change in changes:
        with pytest.raises((TypeError, AttributeError)):
            change(document.metadata)
        assert document.metadata == before
    assert json.loads(json.dumps(document.metadata)) == before
    for copied in (document.to_dict()["metadata"], copy.deepcopy(document.metadata)):
        copied["by"]["names"][1]["first"] = "nobody"
        assert document.metadata == before
    assert pickle.loads(pickle.dumps(document)) == document  # noqa: S301


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
