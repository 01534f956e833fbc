"""Tests of filters. Every operator must agree with `Filter.matches`, in `search` before the cut and in `count`."""

from __future__ import annotations

import datetime as dt
from itertools import product
from typing import Any

import pytest

from hybridsearch.backends import Backend, Kind, Schema
from hybridsearch.errors import FilterError
from hybridsearch.filters import Filter
from hybridsearch.ranking import EMPTY
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Kinds, Load, ask, case, check, find_all, put, require

METADATA: dict[str, dict[str, Any]] = {
    "none": {},
    "null": {"year": None, "tags": []},
    "int": {"year": 2020, "tags": ["gpu", "sparse"], "language": "en"},
    "float": {"year": 2020.0, "tags": ["GPU"], "language": "de"},
    "later": {"year": 2021.5, "tags": ["dense", 7, True, None], "language": "en-GB"},
    "text": {"year": "2020", "tags": "gpu and more", "language": ""},
    "true": {"year": True, "flag": True},
    "false": {"year": False, "flag": False},
    "one": {"year": 1, "flag": 1},
    "zero": {"year": 0, "flag": 0.0},
    "large": {"year": 2**62 + 1},
    "larger": {"year": 2**62 + 2},
    "negative": {"year": -3},
    "years": {"year": [1999, 2020, 2030]},
    "nested": {"author": {"name": "Ada", "born": {"year": 1815}}, "a.b": "dotted"},
    "dotted": {"author.name": "Grace", "a": {"b": "inner"}},
    "unicode": {"stra\u00dfe": "\u00fc", "language": "\u65e5\u672c", "year": "\U0001f600"},
    "halfwidth": {"year": "\uff61"},
    "quoted": {"language": 'it\'s "quoted" \\ back', "$odd": 1, "with space": "x"},
    "empty": {"author": {}, "tags": [[]], "a": {"b": {"c": None}}},
    "composed": {"language": "caf\u00e9", "tags": ["\u00e9"], "title": "its own"},
    "decomposed": {"language": "cafe\u0301", "tags": ["e\u0301"], "strasse": {"e\u0301": 1}},
    "caf\u00e9": {},
    "the\u0301": {},
    "early": {"at": "2024-02-29T15:30:00Z", "day": "2024-02-29", "local": "2024-02-29 15:30"},
    "same": {"at": dt.datetime(2024, 3, 1, 0, 30, tzinfo=dt.timezone(dt.timedelta(hours=9))), "day": ["2024-02-29"]},
    "later instant": {"at": "2024-02-29T17:00:00.5+01:00", "day": dt.date(2024, 3, 1)},
    "several": {"at": ["2024-01-01T00:00Z", "soon", None], "local": dt.datetime(2024, 2, 29, 15, 30)},
    "soon": {"at": "soon", "local": "2024-02-29"},
}
"""Metadata by document id."""

TITLES = {"int": "Wings", "text": "caf\u00e9", "composed": "not seen", "early": "cafe\u0301", "nested": "2020"}
"""The titles of some of these documents."""

ITEMS = [samples.plain(id, metadata=metadata, title=TITLES.get(id, "")) for id, metadata in METADATA.items()]

FILTERS: list[dict[str, Any]] = [
    {"year": 2020},
    {"year": {"$eq": 2020.0}},
    {"year": "2020"},
    {"year": True},
    {"year": 1},
    {"year": 0},
    {"year": None},
    {"flag": 1},
    {"flag": False},
    {"year": {"$ne": 2020}},
    {"year": {"$ne": None}},
    {"year": {"$gt": 2020}},
    {"year": {"$gte": 2020}},
    {"year": {"$lt": 2020}},
    {"year": {"$lte": 2020.0}},
    {"year": {"$gt": 2**62 + 1}},
    {"year": 2**62 + 1},
    {"year": {"$gt": -3.5, "$lt": 1}},
    {"year": {"$lte": 2**63 - 1}},
    {"year": {"$gte": -(2**63) + 1}},
    {"year": {"$lt": 1e300}},
    {"year": {"$gt": 2020, "$lt": 2000}},
    {"year": {"$gt": "2"}},
    {"year": {"$gte": "\uff61"}},
    {"year": {"$lt": "\U0001f600"}},
    {"year": {"$in": [2020, "2020", True]}},
    {"year": {"$in": []}},
    {"year": {"$in": [None]}},
    {"year": {"$nin": [2020, 1]}},
    {"year": {"$nin": []}},
    {"year": {"$exists": True}},
    {"year": {"$exists": False}},
    {"tags": {"$contains": "gpu"}},
    {"tags": {"$contains": ""}},
    {"tags": {"$contains": 7}},
    {"tags": {"$contains": True}},
    {"tags": {"$contains": None}},
    {"tags": "gpu"},
    {"tags": {"$ne": "gpu"}},
    {"language": {"$contains": "en"}},
    {"language": ""},
    {"language": "\u65e5\u672c"},
    {"language": {"$contains": '\'s "quoted" \\'}},
    {"language": {"$gte": "en", "$lt": "en-H"}},
    {"author": {"$exists": True}},
    {"author.name": "Ada"},
    {"author.name": {"$exists": True}},
    {"author.born.year": {"$lt": 1900}},
    {"author.born": {"$exists": True}},
    {"a.b": "dotted"},
    {"a.b": "inner"},
    {"stra\u00dfe": "\u00fc"},
    {"with space": "x"},
    {"id": "int"},
    {"id": {"$in": ["int", "float", "unknown"]}},
    {"id": {"$nin": ["int", "float"]}},
    {"id": {"$gt": "n"}},
    {"id": {"$contains": "t"}},
    {"id": "cafe\u0301"},
    {"id": {"$in": ["th\u00e9", "cafe\u0301"]}},
    {"id": {"$ne": "the\u0301"}},
    {"id": {"$lte": "th\u00e9", "$gt": "tex"}},
    {"id": {"$contains": "\u00e9"}},
    {"id": {"$contains": "e"}},
    {"language": "caf\u00e9"},
    {"language": {"$in": ["cafe\u0301"]}},
    {"language": {"$gt": "cafe\u0301"}},
    {"language": {"$contains": "e\u0301"}},
    {"language": {"$contains": "\u0301"}},
    {"tags": {"$contains": "e\u0301"}},
    {"strasse.\u00e9": {"$exists": True}},
    {"title": "Wings"},
    {"title": "caf\u00e9"},
    {"title": {"$contains": "in"}},
    {"title": {"$exists": False}},
    {"title": "not seen"},
    {"title": {"$gte": "its own", "$lt": "j"}},
    {"author": {"$exists": False}},
    {"author": None},
    {"author": {"$ne": None}},
    {"author": {"$in": [None, "x"]}},
    {"author": {"$gte": ""}},
    {"a": {"$exists": True}},
    {"a.b": {"$exists": True}},
    {"a.b.c": {"$exists": True}},
    {"at": "2024-02-29T15:30:00+00:00"},
    {"at": dt.datetime(2024, 2, 29, 16, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))},
    {"at": {"$ne": "2024-02-29T15:30Z"}},
    {"at": {"$in": ["2024-02-29 16:00:00.500Z", "soon"]}},
    {"at": {"$gt": "2024-02-29T15:30:00Z"}},
    {"at": {"$gte": "2024-03-01T00:30:00+09:00"}},
    {"at": {"$lt": "2024-02-29T16:00:00.50000001Z"}},
    {"at": {"$lte": "2024-01-01T09:00+09:00"}},
    {"at": {"$contains": "2024-01-01T01:00+01:00"}},
    {"at": {"$contains": "2024-02-29T15:30Z"}},
    {"at": {"$contains": "oo"}},
    {"at": "soon"},
    {"at": {"$gt": "a"}},
    {"at": {"$gte": "2024-02-29"}, "id": {"$in": ["soon", "none", "int"]}},
    {"at": {"$in": ["1", "20240229", "soon"]}},
    {"day": "2024-02-29"},
    {"day": {"$gt": dt.date(2024, 2, 29)}},
    {"local": dt.datetime(2024, 2, 29, 15, 30)},
    {"local": {"$gte": "2024-02-29"}},
    {"local": {"$gt": "2024-02-29 15:29:59.9"}},
    {"unknown": 1},
    {"unknown": {"$ne": 1}},
    {"unknown": {"$exists": False}},
    {"$and": [{"year": {"$gte": 2020}}, {"language": "en"}]},
    {"$or": [{"flag": True}, {"tags": {"$contains": "gpu"}}]},
    {"$not": {"year": {"$gte": 2020}}},
    {"$not": {"$or": [{"year": 2020}, {"$not": {"flag": {"$exists": True}}}]}},
    {"$and": [{"$or": [{"year": 2020}, {"year": 1}]}, {"$not": {"id": "int"}}], "language": {"$exists": True}},
    {"$or": [{"$and": [{"id": "int"}, {"id": "float"}]}]},
    {"language": {"$gt": "\ud800"}},
    {"language": {"$lte": "en\udfff"}},
    {"language": {"$in": ["en", "\ud800", 200 * "\ud800"]}},
    {"language": {"$contains": "\ud800"}},
    {"id": {"$in": ["int", "\ud800"]}},
    {"id": {"$lt": "i\ud800"}},
    {"\ud800": {"$lt": 1}},
    {"\ud800": {"$ne": 1}},
]
"""Filters with each operator, on values of every type, and on missing, null, nested and combined values.

The last ones have lone surrogates. No document has one, but JSON can.
"""

REFUSED: list[dict[str, Any]] = [
    {"at": "2024-02-29"},
    {"at": {"$gte": "2024-02-29T15:30"}},
    {"at": {"$nin": ["soon", "2024"]}},
    {"day": {"$lt": "2024-02-29T15:30Z"}},
    {"at": {"$lt": "2025"}, "id": {"$in": ["soon", "early"]}},
    {"$or": [{"year": 2020}, {"local": {"$ne": "2024-02-29T15:30:00+01:00"}}]},
    {"text": "wing"},
]
"""Filters that must be refused. Each compares an instant with a time that has no offset, or reads the text."""


class FilterTests(Base):
    """Tests of filters. They are skipped if the backend declares that it has no filters."""

    @pytest.fixture(autouse=True)
    def _needs_filters(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__.startswith("test_filter_"):
            require(request.getfixturevalue("capabilities").filters, "filters")

    @pytest.fixture
    def filtered(self, load: Load) -> Backend:
        """An index with a plain item for each entry of METADATA, from two batches. A test must not change it."""
        return load("filtered", [ITEMS[:9], ITEMS[9:]])

    def test_filter_lets_through_what_the_definition_says(self, filtered: Backend, kinds: Kinds) -> None:
        wrong = {}
        for description in FILTERS:
            filter = Filter.parse(description)
            right = {item.id for item in ITEMS if filter.matches(item.document)}
            for kind in kinds:
                if (found := find_all(filtered, kind, filter)) != right:
                    wrong[kind, repr(description)] = f"found {sorted(found)}, right is {sorted(right)}"
        assert not wrong

    def test_filter_counts_what_it_lets_through(self, filtered: Backend) -> None:
        wrong = {}
        for description in FILTERS:
            filter = Filter.parse(description)
            right = sum(filter.matches(item.document) for item in ITEMS)
            if (found := filtered.count(filter)) != right:
                wrong[repr(description)] = f"counted {found}, right is {right}"
        assert not wrong

    def test_filter_that_compares_what_cannot_be_compared_is_refused(self, filtered: Backend, kinds: Kinds) -> None:
        for description in REFUSED:
            filter = Filter.parse(description)
            with (
                case(filter=description),
                pytest.raises(FilterError, match=r"cannot be compared|cannot select by the text"),
            ):
                filtered.count(filter)
            for kind in kinds:
                with case(filter=description, kind=kind), pytest.raises(FilterError):
                    find_all(filtered, kind, filter)

    def test_filter_is_refused_whatever_the_query_finds(self, filtered: Backend, kinds: Kinds) -> None:
        filter = Filter.parse(REFUSED[0])
        for kind in kinds:
            if kind in ("lexical", "sparse"):
                with case(kind=kind), pytest.raises(FilterError):
                    ask(filtered, kind, samples.sparse_query({"unheard-of": 1.0}), 10, filter)

    def test_filter_is_not_refused_for_what_was_deleted(self, backend: Backend, schema: Schema, any_kind: Kind) -> None:
        require(backend.capabilities.delete, "delete")
        instants = [
            samples.plain("a", metadata={"at": "2024-02-29T15:30Z"}),
            samples.plain("b", metadata={"at": "soon"}),
        ]
        put(backend, [*instants, samples.plain("c", metadata={"at": "2024-02-29"})], schema)
        backend.delete(["c"])
        backend.refresh()
        assert find_all(backend, any_kind, Filter.parse({"at": {"$lt": "2025-01-01T00:00Z"}})) == {"a"}

    def test_filter_applies_before_the_cut(self, filled: Backend, kinds: Kinds) -> None:
        items = samples.random_items()
        for description, among in (
            ({"parity": "odd"}, lambda item: item.metadata["parity"] == "odd"),
            ({"number": {"$gte": 55}}, lambda item: item.metadata["number"] >= 55),
            ({"id": "d17"}, lambda item: item.id == "d17"),
        ):
            filter = Filter.parse(description)
            for kind, k in product(kinds, (1, 3, 30)):
                for query in samples.random_queries(kind, 5):
                    check(filled, kind, items, query, k, among=among, filter=filter)

    def test_filter_keeps_only_documents_worse_than_the_best_k(self, filled: Backend, kinds: Kinds) -> None:
        for kind in kinds:
            query = samples.random_queries(kind, 1)[0]
            worst = list(ask(filled, kind, query, 1000).ids[-3:])
            assert set(ask(filled, kind, query, 3, Filter.parse({"id": {"$in": worst}})).ids) == set(worst), kind

    def test_filter_that_lets_nothing_through_gives_no_hits(self, filtered: Backend, kinds: Kinds) -> None:
        nothing = Filter.parse({"unknown": {"$exists": True}})
        for kind in kinds:
            assert ask(filtered, kind, samples.common_query(kind), 10, nothing) == EMPTY, kind
        assert filtered.count(nothing) == 0

    def test_filter_sees_replaced_metadata(self, backend: Backend, schema: Schema, any_kind: Kind) -> None:
        put(backend, [samples.plain("a", metadata={"v": 1}), samples.plain("b", metadata={"v": 1})], schema)
        put(backend, [samples.plain("a", metadata={"v": 2})], schema)
        assert find_all(backend, any_kind, Filter.parse({"v": 1})) == {"b"}
        assert find_all(backend, any_kind, Filter.parse({"v": 2})) == {"a"}
        assert backend.count(Filter.parse({"v": 2})) == 1

    def test_filter_finds_no_deleted_document(self, backend: Backend, schema: Schema, any_kind: Kind) -> None:
        require(backend.capabilities.delete, "delete")
        put(backend, ITEMS[:9], schema)
        put(backend, ITEMS[9:], schema)
        everything = Filter.parse({"id": {"$exists": True}})
        backend.delete(["int", "float"])
        backend.refresh()
        assert find_all(backend, any_kind, everything) == set(METADATA) - {"int", "float"}
        assert backend.count(everything) == len(METADATA) - 2

    def test_filter_is_applied_to_each_request_alone(self, filtered: Backend, any_kind: Kind) -> None:
        filters = [Filter.parse(description) for description in FILTERS]
        assert [find_all(filtered, any_kind, filter) for filter in filters] == [
            find_all(filtered, any_kind, filter) for filter in filters
        ]

    def test_filter_of_every_depth_allowed_is_answered(self, filtered: Backend, any_kind: Kind) -> None:
        description: dict[str, Any] = {"language": "en"}
        for _ in range(48):
            description = {"$not": description}
        assert find_all(filtered, any_kind, Filter.parse(description)) == {"int"}

    def test_filter_with_thousands_of_ids_is_answered(self, filtered: Backend, any_kind: Kind) -> None:
        ids = [f"unknown{number}" for number in range(5000)]
        assert find_all(filtered, any_kind, Filter.parse({"id": {"$in": [*ids, "int"]}})) == {"int"}
