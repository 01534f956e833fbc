"""Tests of filters on real servers: a compiled filter finds the documents for which `Filter.matches` is true."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from filter_cases import descriptions, documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import address_of, call, server_of

from hybridsearch.adapters.lucene.query.filters import MAX_CLAUSES, compile_filter
from hybridsearch.adapters.lucene.query.flattening import flatten
from hybridsearch.adapters.lucene.stored.fields import METADATA_MAPPING, to_fields
from hybridsearch.adapters.lucene.wire.connection import Address
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError
from hybridsearch.filters import And, Compare, Condition, Filter, Not, Or, holds
from hybridsearch.testing.filtering import FILTERS, METADATA

FILTER_LEVELS = 20


@dataclass
class Index:
    """An index on a real server. A filter is applied to the documents of one batch."""

    address: Address

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return call(self.address, method, f"{self.address.path}{path}", body)

    def put(self, documents: Sequence[Document]) -> str:
        """Index documents as one batch, and return its name."""
        batch = uuid.uuid4().hex
        lines: list[Any] = []
        for document in documents:
            lines += [{"index": {}}, {"id": document.id, "batch": batch, "fields": to_fields(document)}]
        answer = self.call("POST", "/_bulk", _lines(lines))
        assert not answer["errors"], next(i for i in answer["items"] if "error" in i["index"])
        self.call("POST", "/_refresh")
        return batch

    def find(self, batch: str, filters: Sequence[Filter]) -> list[set[str]]:
        """The ids that each filter finds in a batch, in one request."""
        lines: list[Any] = []
        for filter in filters:
            query = {"bool": {"filter": [{"term": {"batch": batch}}, compile_filter(filter)]}}
            lines += [{}, {"size": 10_000, "_source": ["id"], "query": query}]
        answers = self.call("POST", "/_msearch", _lines(lines))["responses"]
        wrong = [
            (filter, answer["error"]) for filter, answer in zip(filters, answers, strict=True) if "error" in answer
        ]
        assert not wrong, f"{wrong[0][1]!r:.2000}"
        return [{hit["_source"]["id"] for hit in answer["hits"]["hits"]} for answer in answers]


def _lines(lines: Sequence[Any]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


@pytest.fixture(scope="module", params=["opensearch", "elasticsearch"])
def index(request: pytest.FixtureRequest) -> Iterator[Index]:
    found = Index(address_of(f"{server_of(request.param)}/hstest-{uuid.uuid4().hex[:8]}-metadata"))
    properties = {"id": {"type": "keyword"}, "batch": {"type": "keyword"}, "fields": METADATA_MAPPING}
    body = {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": -1},
        "mappings": {"dynamic": "strict", "properties": properties},
    }
    found.call("PUT", "", body)
    yield found
    found.call("DELETE", "")


def _documents(*metadata: Mapping[str, Any]) -> list[Document]:
    return [Document(f"d{number}", "", metadata=one) for number, one in enumerate(metadata)]


def _check(index: Index, documents: Sequence[Document], descriptions: Sequence[Mapping[str, Any]]) -> None:
    filters = [Filter.parse(description) for description in descriptions]
    filters += [Filter(check.condition) for filter in filters for check in filter.checks()]
    wrong = [
        f"{filter!r:.500} found {sorted(found)!r:.300}, right is {sorted(right)!r:.300}"
        for filter, found in zip(filters, index.find(index.put(documents), filters), strict=True)
        if found != (right := {document.id for document in documents if holds(filter.condition, document)})
    ]
    assert not wrong, "\n".join(wrong[:5])


# ------------------------------------------------------------------------------------------------------ on the servers


def test_each_operator_finds_what_the_definition_says(index: Index) -> None:
    _check(index, [Document(id, "", metadata=metadata) for id, metadata in METADATA.items()], FILTERS)


NUMBERS = [
    0, -0.0, 1, True, 1.5, -1.5, 0.1, 0.1 + 0.2, 0.3, 5e-324, -5e-324, 16777217, 2**53 - 1, 2**53, 2.0**53, 2**53 + 1,
    2**53 + 2, -(2**53), -(2**53) - 1, 2**62 - 1, 2**62, 2.0**62, 2**62 + 1, 2**63 - 1025, 2**63 - 1024, 2**63 - 1,
    -(2**63) + 1, 2.0**63, -(2.0**63), 1e22, 1e300, -1e300, 1.7976931348623157e308,
]  # fmt: skip
STRINGS = [
    "", "a", "A", "ab", "abc", "b", "\0", "a\0", "a\0\0b", "\0a", " ", "  ", "\n", "\t", "*", "?", "\\", "a*b", "a?b",
    "a\\*b", "\\\\", '"', "'", "=", "[", "~", "+", "null", "true", "1", "1.0", "{}", "$eq", "../../_all", "</script>",
    "'; DROP TABLE", "${jndi:ldap://x}", "%00", "\x7f", "\x80", "\u00e9", "e\u0301", "\u0130", "\u00df", "ss",
    "\u200b", "\u202e", "\ufeff", "\ud7ff", "\ue000", "\ufdd0", "\ufffd", "\uffff", "\U00010000", "\U0001f600",
    "\U0001f600a", "\U0010ffff", "\U0010ffff\U0010ffff", "2020-01-01", "2020-01-01T00:00:00", "2020-01-02",
    "2020-01-1", "2020-02-01", "1234567", "1234567\0\0", "12345678", "123456789", "123456789\0", "1234567890",
    "123456789a", "12345678\u00e8z", "12345678\u00e9", "12345678\U0001f600", "12345678\U0001f601", "123456\ud7ff",
    "123456\ud7ffz", "12345\U0010ffff", "12345\U0010ffffz", "12346",
]  # fmt: skip


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("values", [NUMBERS, STRINGS], ids=["numbers", "strings"])
def test_every_value_compares_with_every_other_as_defined(index: Index, values: list[Any], as_list: bool) -> None:
    documents = _documents({}, {"x": None}, {"x": []}, *({"x": [value] if as_list else value} for value in values))
    operators = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]
    bounds = [value for value in values if not isinstance(value, bool)]
    _check(index, documents, [{"x": {operator: bound}} for operator in operators for bound in bounds])


def test_every_string_is_found_as_an_id_and_in_a_field_of_its_own_name(index: Index) -> None:
    documents = [Document(text or "empty", "", metadata={text: text}) for text in STRINGS]
    descriptions: list[dict[str, Any]] = []
    for text in STRINGS:
        if text and not text.startswith("$"):
            descriptions += [
                {text: text},
                {text: {"$contains": text}},
                {text: {"$exists": False}},
                {text: {"$lt": text}},
            ]
        for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"):
            descriptions.append({"id": {operator: text}})
    descriptions += [{"id": {"$in": STRINGS}}, {"id": {"$nin": STRINGS}}, {"id": None}]
    _check(index, documents, descriptions)


def test_a_filter_with_a_lone_surrogate_is_answered_although_no_document_holds_one(index: Index) -> None:
    documents = [Document(text, "", metadata={"x": text}) for text in ("a", "a\ud7ff", "a\ue000", "b", "\U0001f600")]
    operators = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]
    fields = ["x", "id", "\udfff"]
    _check(
        index, documents, [{f: {o: text}} for f in fields for o in operators for text in ("a\ud800", "\udfff\ud800b")]
    )


LONG = [
    "x" * 7999,
    "x" * 8000,
    "x" * 8001,
    "x" * 40_000,
    "x" * 39_999 + "y",
    "ab" * 6000 + "needle" + "\U0001f600" * 6000,
]
LONG += [
    "".join(f"{number} " for number in range(0, 100_000, 7)),
    "\u00e9" * 8000 + "end",
    "-" * 3997 + "border" + "-" * 3997,
]


def test_long_strings_are_equal_ordered_and_hold_substrings_at_every_place(index: Index) -> None:
    documents = _documents(*({"x": text} for text in LONG), *({"x": [text, text[:100]]} for text in LONG))
    descriptions: list[dict[str, Any]] = [{"x": text} for text in LONG]
    descriptions += [{"x": {"$in": LONG[:3]}}, {"x": {"$nin": LONG[2:]}}]
    for text in LONG:
        descriptions += [{"x": {operator: text[:7999]}} for operator in ("$gt", "$gte", "$lt", "$lte")]
        for start in (0, 3990, 3999, 4000, 4001, 7990, 7999, 8000, 11_998, len(text) - 20):
            descriptions.append({"x": {"$contains": text[start : start + 20]}})
    numbers = LONG[6]
    for start in (0, 1, 3999, 4000, 4001, 50_000, len(numbers) - 4000):
        descriptions.append({"x": {"$contains": numbers[start : start + 4000]}})
    descriptions += [{"x": {"$contains": "-" * 282}}, {"x": {"$contains": "ab" * 180}}]
    _check(index, documents, descriptions)


def test_dates_far_apart_and_close_together_are_found_by_range(index: Index) -> None:
    days = [f"20{year}-{month:02}-{day:02}" for year in (19, 20) for month in (1, 2, 12) for day in (1, 9, 10, 11, 28)]
    documents = _documents(*({"day": day} for day in days), *({"day": f"{day}T10:00:00"} for day in days))
    bounds = [*days, "20", "2020", "2020-0", "2020-01-09T10:00:00", "2020-01-09T09"]
    _check(index, documents, [{"day": {o: bound}} for o in ("$gt", "$gte", "$lt", "$lte") for bound in bounds])


def test_a_list_of_more_values_than_an_engine_takes_at_once_is_answered(index: Index) -> None:
    documents = [Document(f"d{number}", "", metadata={"n": number}) for number in range(5)]
    many = [*range(3, 140_000), None, "x"]
    ids = [f"d{number}" for number in many]
    _check(index, documents, [{"n": {"$in": many}}, {"n": {"$nin": many}}, {"id": {"$in": ids}}])


def test_thousands_of_alternatives_are_joined(index: Index) -> None:
    documents = _documents(*({"n": number, "m": -number} for number in range(9)))
    either = {"$or": [{"n": 3}, *({"m": number} for number in range(-5, 3000))]}
    neither = {"$and": [{"n": {"$ne": number}} for number in range(2, 3000)]}
    _check(index, documents, [either, neither, {"$not": either}, {"$not": neither}])


def test_as_many_clauses_as_are_allowed_are_answered_beside_those_of_a_search(index: Index) -> None:
    documents = _documents(*({"n": number} for number in range(9)), {"n": "x"}, {"n": ["x", 1]})
    ranges = {"$or": [{"n": {"$gt": number}} for number in range(4, 4 + MAX_CLAUSES // 3)]}
    strings = {"$or": [{"n": {"$gt": f"a{number}"}} for number in range(MAX_CLAUSES // 4)]}
    elements = {"$and": [{"$not": {"n": {"$contains": -number}}} for number in range(MAX_CLAUSES // 2)]}
    ids = {"$or": [{"id": {"$contains": f"{number} "}} for number in range(MAX_CLAUSES // 4)]}
    _check(index, documents, [ranges, strings, elements, ids])


def test_a_filter_of_fifty_levels_is_answered(index: Index) -> None:
    documents = _documents(*({f"f{level}": level % 3 == number % 3 for level in range(60)} for number in range(6)))
    inner: dict[str, Any] = {"f0": True}
    descriptions = []
    for level in range(1, 49):
        inner = {f"f{level}": {"$ne": level % 2 == 0}, "$or": [{f"f{level + 1}": True, "f1": {"$gt": 0}}, inner]}
        descriptions.append(inner)
    _check(index, documents, [*descriptions[9::10], {"$not": descriptions[-1]}, {"$not": descriptions[-2]}])


def test_documents_of_any_shape_do_not_change_the_mapping(index: Index) -> None:
    before = index.call("GET", "/_mapping")
    documents = _documents(*({f"key{n}.{m}": {f"{m}": [m, str(m), True]} for m in range(20)} for n in range(300)))
    _check(index, documents, [{"key7.3.3": 3}, {"key7.3.3": {"$gt": 2}}, {"key7.3.3": {"$exists": True}}])
    assert index.call("GET", "/_mapping") == before


def test_paths_of_any_length_and_form_are_told_apart(index: Index) -> None:
    long = "k" * 151
    keys = [long[1:], long, "~" + hashlib.sha256(long.encode()).hexdigest(), "k" * 40_000, "k" * 39_999 + "l"]
    keys += ["a", "a=", "a=[", 'a="b', "~", "~a", "a.", ".a", "..", "\0", "a\0"]
    documents = _documents(
        *({key: value} for key in keys for value in ("b", ["b"], 1)),
        *({"a": {key: "b"}} for key in keys),
        *({key: {"a": "b"}} for key in keys),
        {"a.b": {"c": 1}, "a": {"b.c": 2, "b": {"c": 3}}},
        {"a.b": None, "a": {"b": 1}},
        {"a": {"": 1}},
        {"": 1},
    )
    paths = [*keys, *(f"a.{key}" for key in keys), *(f"{key}.a" for key in keys), "a.b", "a.b.c"]
    comparisons: list[Any] = ["b", 1, {"$exists": False}, {"$gt": "a"}, {"$gte": 1}, {"$contains": "b"}]
    _check(index, documents, [{path: comparison} for path in paths for comparison in comparisons])


TEXTS = st.text('ab\0*?\\"[=\u00e9\ud7ff\ue000\uffff\U0001f600\U0010ffff', max_size=12) | st.sampled_from(STRINGS)
SCALARS = st.sampled_from(NUMBERS) | st.sampled_from(["", "a", "b", "ab", "aab"]) | TEXTS
FIELDS = ["a=", "~", ".", "*", "a "]


CASES = given(documents(SCALARS, FIELDS, 40), st.lists(descriptions(SCALARS, FIELDS), min_size=1, max_size=40))


@settings(database=None, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@CASES
def test_any_filter_agrees_with_the_definition_on_any_metadata(
    index: Index, found: list[Document], filters: list[dict[str, Any]]
) -> None:
    _check(index, found, filters)


@pytest.mark.slow
@settings(database=None, deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@CASES
def test_thousands_of_filters_agree_with_the_definition(
    index: Index, found: list[Document], filters: list[dict[str, Any]]
) -> None:
    _check(index, found, filters)


# ----------------------------------------------------------------------------------------------------- without a server


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"x": {"$contains": "".join(map(str, range(2000)))}}, "at most 4000"),
        ({"x": {"$contains": "-" * 300}}, "if the substring repeats itself"),
        ({"id": {"$contains": "ab" * 250}}, "if the substring repeats itself"),
        ({"x": {"$gt": "z" * 8000}}, "compares at most 7999"),
        ({"$or": [{f"x{n}": {"$gt": n}} for n in range(600)]}, "1800 clauses"),
    ],
)
def test_what_no_engine_answers_is_refused_in_one_sentence(description: dict[str, Any], problem: str) -> None:
    with pytest.raises(FilterError, match=problem) as caught:
        compile_filter(Filter.parse(description))
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400


COMPARES = st.builds(lambda name: Compare(name, "$eq", True), st.sampled_from([f"f{n}" for n in range(6)]))
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    COMPARES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, max_size=3)),
    ),
    max_leaves=25,
)


def _levels(condition: Condition) -> int:
    if isinstance(condition, And | Or):
        return 1 + max(map(_levels, condition.conditions), default=0)
    return _levels(condition.condition) if isinstance(condition, Not) else 0


@given(CONDITIONS, st.integers(4, 7))
def test_a_flattened_condition_says_the_same_in_no_more_levels(condition: Condition, levels: int) -> None:
    try:
        flat = flatten(condition, levels)
    except FilterError:
        return
    assert _levels(flat) <= levels
    for number in range(64):
        document = Document("d", "", metadata={f"f{bit}": bool(number >> bit & 1) for bit in range(6)})
        assert Filter(flat).matches(document) == Filter(condition).matches(document)


def test_two_levels_at_each_of_the_fifty_that_a_filter_may_have_are_flattened_to_twenty() -> None:
    condition: Condition = Compare("f0", "$eq", True)
    for level in range(1, 101):
        condition = (And if level % 2 else Or)((Compare(f"f{level}", "$eq", True), condition))
    flat = flatten(condition, FILTER_LEVELS)
    assert _levels(flat) <= FILTER_LEVELS
    assert repr(flat).count("Compare") < 10 * 101
