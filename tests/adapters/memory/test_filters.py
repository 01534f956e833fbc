"""Tests of filters as masks: they agree with `Filter.matches` on every document."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from filter_cases import descriptions, documents
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridsearch.adapters.memory.filters import MetadataColumns, mask_of
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.adapters.memory.strings import Strings
from hybridsearch.documents import Document
from hybridsearch.filters import Filter, holds
from hybridsearch.vectors import EncodedBatch


def segment(documents: list[Document]) -> Segment:
    return Segment.build(EncodedBatch(documents, {}))


CASES = given(documents(), st.lists(descriptions(), min_size=1, max_size=3), st.integers(0, 2**18))


@CASES
def test_a_mask_equals_the_reference_for_every_document(
    found: list[Document], filters: list[dict[str, Any]], deleted: int
) -> None:
    _check(found, filters, deleted)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@CASES
def test_ten_thousand_masks_equal_the_reference(
    found: list[Document], filters: list[dict[str, Any]], deleted: int
) -> None:
    _check(found, filters, deleted)


def _check(found: list[Document], filters: list[dict[str, Any]], deleted: int) -> None:
    whole = segment(found)
    keep = np.array([not deleted >> number & 1 for number in range(len(found))], dtype=np.bool_)
    kept = [document for document, there in zip(found, keep, strict=True) if there]
    other = [Document("other", "", metadata={"a": 1, "b": {"a": "a"}})]
    merged = Segment.merge([(whole, keep), (segment(other), None)])
    after = [*kept, *other]
    for filter in map(Filter.parse, filters):
        for condition in (filter.condition, *(check.condition for check in filter.checks())):
            assert whole.mask(Filter(condition)).tolist() == [holds(condition, document) for document in found]
            assert merged.mask(Filter(condition)).tolist() == [holds(condition, document) for document in after]


def test_distinct_values_are_stored_once_and_dropped_with_their_last_document() -> None:
    documents = [Document(str(n), "", metadata={"year": 1990 + n % 3, "only": n}) for n in range(300)]
    columns = MetadataColumns.build(documents)
    assert len(columns.values) == 303
    keep = np.arange(300) % 3 == 0
    assert len(MetadataColumns.merge([(columns, keep), (columns, keep)]).values) == 101


def test_columns_survive_a_round_trip_through_arrays() -> None:
    documents = [Document(str(n), "", metadata={"n": n, "tags": ["x", n % 2 == 0]}) for n in range(20)]
    columns = MetadataColumns.build(documents)
    again = MetadataColumns.from_arrays(20, columns.arrays())
    filter = Filter.parse({"n": {"$gte": 5}, "tags": {"$contains": True}})
    expected = [filter.matches(document) for document in documents]
    assert mask_of(filter.condition, again.compare).tolist() == expected


def test_an_index_that_was_made_before_has_strings_and_keys_as_they_came() -> None:
    names, values = ["e\u0301", "by.name", "at"], ['"e\u0301"', '"Ada"', '"2024-03-01T00:30:00+09:00"']
    numbers = np.arange(3, dtype=np.int32)
    ends = np.stack([numbers + 1, numbers + 1], axis=1).astype(np.int64)
    columns = MetadataColumns(3, Strings.of(names), ends, numbers, np.zeros(3, dtype=np.int32), Strings.of(values))
    for row, (field, test) in enumerate(
        [("\u00e9", "\u00e9"), ("by", {"$exists": True}), ("at", {"$lte": "2024-02-29 15:30Z"})]
    ):
        found = mask_of(Filter.parse({field: test}).condition, columns.compare)
        assert np.flatnonzero(found).tolist() == [row], field
