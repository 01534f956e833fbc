"""Filters as masks: they agree with `Filter.matches`, the reference, on every document."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch.adapters.memory.filters import MetadataColumns
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.documents import Document
from hybridsearch.filters import Filter
from hybridsearch.vectors import EncodedBatch

KEYS = ["a", "b", "a.b", "b.a", "id", "", "a."]
scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2, 2**53, 2**53 + 1, 2**62, 0.0, 1.0, 1.5, -0.0, 1e300, "", "a", "ab", "b", "1", "ä"])
)
values = st.recursive(
    scalars | st.lists(scalars, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)
metadata = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
orderable = st.sampled_from([0, 1, 1.0, 1.5, 2**53, 2**53 + 1, "", "a", "b", "d2"])
operators = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$contains"]), scalars),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), orderable),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(scalars | st.just("d1"), max_size=3)),
    st.tuples(st.just("$exists"), st.booleans()),
)
fields = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "id", "a.", "a..b", "other"])
conditions = st.recursive(
    st.builds(lambda field, test: {field: dict([test])}, fields, operators),
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=4,
)


def segment(documents: list[Document]) -> Segment:
    return Segment.build(EncodedBatch(documents, {}))


@given(st.lists(metadata, max_size=8), st.lists(conditions, min_size=1, max_size=3), st.integers(0, 255))
def test_a_mask_equals_the_reference_for_every_document(
    data: list[dict[str, Any]], filters: list[dict[str, Any]], deleted: int
) -> None:
    documents = [Document(f"d{number}", "", metadata=item) for number, item in enumerate(data)]
    whole = segment(documents)
    keep = np.array([not deleted >> number & 1 for number in range(len(documents))], dtype=np.bool_)
    kept = [document for document, there in zip(documents, keep, strict=True) if there]
    other = [Document("other", "", metadata={"a": 1, "b": {"a": "a"}})]
    merged = Segment.merge([(whole, keep), (segment(other), None)])
    for raw in filters:
        filter = Filter.parse(raw)
        assert whole.mask(filter).tolist() == [filter.matches(document) for document in documents]
        assert merged.mask(filter).tolist() == [filter.matches(document) for document in [*kept, *other]]


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
    assert again.mask(filter.condition, lambda compare: np.zeros(20, dtype=np.bool_)).tolist() == expected
