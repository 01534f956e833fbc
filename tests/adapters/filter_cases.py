"""Random documents and filters, and the right answers. The tests of all engines use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from hybridsearch.documents import Document
from hybridsearch.filters import Filter, holds

NUMBERS = [0, 1, -1, 2, 2020, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 0.0, 1.0, 1.5, -0.0, 1e-7, 1e300]
TEXTS = ["", "a", "ab", "b", "B", "1", "2020", "\0", "a\0", "é", "e\u0301", "\uff61", "\U0001f600", "Å", "\u212b"]
TIMES = [
    "2020", "2020-01", "2020-01-01", "2020-01-02", "00:30", "00:30:00", "2020-01-01T00:30", "2020-01-01 00:30:00.000",
    "2020-01-01T00:30:00.25", "2020-01-01T00:30Z", "2020-01-01 09:30:00+09:00", "2019-12-31T19:30:00.000-0500",
    "2020-01-01T00:30:00.25Z", "2020-01-01T00:30:00.250000001+00", "2020-01-02T00:00:00Z", "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00+14:00", "2020-02-30T00:30Z", "2020-01-01T24:00Z", "2020-01-01T00:30+24:00", "x 2020-01-01T00:30Z",
]  # fmt: skip
KEYS = ["a", "b", "a.b", "b.a", "é", "e\u0301", "id", "title", "text", "", "a.", "$a"]
FIELDS = ["a", "b", "a.b", "b.a", "a.b.a", "é", "e\u0301", "title", "text", "a.", "a..b", "b.$a", "other"]
IDS = ["a", "b", "é", "e\u0301", "Å", "\u212b", "2020-01-01T00:30Z", "7", "\0", "\U0001f600"]

Strategy = st.SearchStrategy[Any]

_NOTHING: Strategy = st.nothing()


def scalars(more: Strategy) -> Strategy:
    """Plain values."""
    numbers = st.sampled_from(NUMBERS) | st.integers(-3, 3) | st.integers(-(2**63) + 1, 2**63 - 1)
    floats = st.floats(allow_nan=False, allow_infinity=False)
    texts = st.sampled_from(TEXTS) | st.sampled_from(TIMES) | st.sampled_from(TIMES)
    moments = st.datetimes(timezones=st.none() | st.timezones()) | st.dates() | st.times()
    return st.none() | st.booleans() | numbers | floats | texts | moments | more


def documents(more: Strategy = _NOTHING, keys: Sequence[str] = (), most: int = 8) -> Strategy:
    """Some documents with different ids. Their metadata also use the values in `more` and the keys in `keys`."""
    scalar = scalars(more)
    key = st.sampled_from([*KEYS, *keys])
    value = st.recursive(
        scalar | st.lists(scalar, max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(key, inner, max_size=3),
        max_leaves=5,
    )
    ids = [*IDS, *(f"d{number}" for number in range(most))]
    titles = st.sampled_from(["", "a", "é", "2020-01-01", "2020-01-01T00:30Z"])
    document = st.builds(Document, st.sampled_from(ids), st.just(""), titles, st.dictionaries(key, value, max_size=4))
    return st.lists(document, min_size=1, max_size=most, unique_by=lambda document: document.id)


def descriptions(more: Strategy = _NOTHING, fields: Sequence[str] = ()) -> Strategy:
    """Filters as they are written."""
    scalar = scalars(more)
    text = st.sampled_from([*IDS, "c", "", "\u0301"])
    on_ids = _tests(text, text, st.none() | text)
    ordered = scalar.filter(lambda value: value is not None and not isinstance(value, bool))
    on_fields = _tests(scalar, ordered, scalar)
    simple = st.one_of(
        _pairs(["id"], on_ids),
        *[_pairs([*FIELDS, *fields], on_fields)] * 4,
    )
    return st.recursive(
        simple,
        lambda inner: st.one_of(
            st.builds(
                lambda name, parts: {name: parts},
                st.sampled_from(["$and", "$or"]),
                st.lists(inner, min_size=1, max_size=3),
            ),
            st.builds(lambda part: {"$not": part}, inner),
        ),
        max_leaves=5,
    )


def right(filter: Filter, documents: Sequence[Document]) -> set[str] | None:
    """The ids of the documents that the filter lets through, by definition. None if an index must refuse it."""
    for check in filter.checks():
        if any(holds(check.condition, document) for document in documents) is not check.some:
            return None
    return {document.id for document in documents if holds(filter.condition, document)}


def _tests(equal: Strategy, ordered: Strategy, listed: Strategy) -> Strategy:
    return st.one_of(
        _pairs(["$eq", "$ne", "$contains"], equal),
        _pairs(["$gt", "$gte", "$lt", "$lte"], ordered),
        _pairs(["$in", "$nin"], st.lists(listed, max_size=3)),
        _pairs(["$exists"], st.booleans()),
    )


def _pairs(names: Sequence[str], value: Strategy) -> Strategy:
    return st.builds(lambda name, value: {name: value}, st.sampled_from(names), value)
