"""Filters: every operator agrees with `Filter.matches`, before the cut, in search and in count."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from hybridsearch.backends import Backend, Kind, Schema
from hybridsearch.filters import Filter
from hybridsearch.ranking import EMPTY
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Kinds, Load, ask, check, find_all, put, require

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
}
"""Metadata by document id."""

ITEMS = [samples.plain(id, metadata=metadata) for id, metadata in METADATA.items()]

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
    {"unknown": 1},
    {"unknown": {"$ne": 1}},
    {"unknown": {"$exists": False}},
    {"$and": [{"year": {"$gte": 2020}}, {"language": "en"}]},
    {"$or": [{"flag": True}, {"tags": {"$contains": "gpu"}}]},
    {"$not": {"year": {"$gte": 2020}}},
    {"$not": {"$or": [{"year": 2020}, {"$not": {"flag": {"$exists": True}}}]}},
    {"$and": [{"$or": [{"year": 2020}, {"year": 1}]}, {"$not": {"id": "int"}}], "language": {"$exists": True}},
    {"$or": [{"$and": [{"id": "int"}, {"id": "float"}]}]},
]
"""Each operator, on values of every type, missing, null, nested and combined."""


class FilterTests(Base):
    """All are skipped where the backend declares that it has no filters."""

    @pytest.fixture(autouse=True)
    def _needs_filters(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__.startswith("test_filter_"):
            require(request.getfixturevalue("capabilities").filters, "filters")

    @pytest.fixture
    def filtered(self, load: Load) -> Backend:
        """An index of one plain item for each entry of METADATA, in two batches, which the test must not change."""
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
