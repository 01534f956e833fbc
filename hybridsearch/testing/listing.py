"""Tests of listing documents in an order, and of deleting documents by a filter (`Selector`)."""

from __future__ import annotations

from contextlib import closing

import pytest

from hybridsearch.backends import Backend, Schema, Selector
from hybridsearch.documents import Document
from hybridsearch.errors import FilterError
from hybridsearch.filters import Filter
from hybridsearch.listing import Order
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, Kinds, Load, case, check, find_all, put, require
from hybridsearch.testing.filtering import FILTERS, ITEMS, REFUSED
from hybridsearch.testing.passages import check_passages
from hybridsearch.testing.ties import ODD_IDS

ODD_VALUES = [
    "10", "9", "\U0001f600", "\uffff", "a\x00b", "a", "ab", -0.0, 0, 1e300, -1e300, 2**53 + 1, 2**53, -(2**62), [],
    [None], [{"a": 1}], ["b", 3], [True, "z"], "x" * 3000 + "a", "x" * 3000 + "b",
]  # fmt: skip
"""Values whose order an engine could get wrong."""

LISTED = [
    *ITEMS,
    *(
        samples.plain(f"order {number}", metadata={"year": value}, title="Zw\u00f6lf" if number % 2 else "")
        for number, value in enumerate(ODD_VALUES)
    ),
]
"""Documents with values of every type in the same fields."""

ORDERS: list[str | list[str] | None] = [
    None, "id", "-id", "year", "-year", "at", "-at", "day", "local", "language", "-title", "title", "tags", "-tags",
    "flag", "author", "author.name", "a.b", "unknown", ["-flag", "year"], ["title", "-year", "-id"],
]  # fmt: skip


class ListingTests(Base):
    """Tests of `list_documents` and `delete_by_filter`. They are skipped if the backend does not have these methods."""

    @pytest.fixture(autouse=True)
    def _needs_selector(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__.startswith("test_list_"):
            backend = request.getfixturevalue("connect")("index")
            require(isinstance(backend, Selector), "methods that list and delete by a filter")
            backend.close()

    @pytest.fixture
    def listed(self, load: Load) -> Selector:
        """An index with LISTED, from two batches. A test must not change it."""
        return _selector(load("listed", [LISTED[:19], LISTED[19:]]))

    def test_list_has_the_order_of_the_definition(self, listed: Selector) -> None:
        for sort in ORDERS:
            order = Order.parse(sort)
            right = sorted((order.key(item.document), item.document) for item in LISTED)
            with case(sort=sort):
                assert [key[1] for key, _ in listed.list_documents(None, order)] == [key[1] for key, _ in right]
                assert list(listed.list_documents(None, order)) == right

    def test_list_continues_after_any_document(self, listed: Selector) -> None:
        for sort in (None, "-id", "year", ["-flag", "year"]):
            order = Order.parse(sort)
            whole = list(listed.list_documents(None, order))
            for start, limit in ((0, 1), (0, 7), (5, 2), (20, 100), (len(whole) - 1, 3)):
                after = whole[start][0]
                with case(sort=sort, start=start, limit=limit):
                    assert (
                        list(listed.list_documents(None, order, after, limit)) == whole[start + 1 : start + 1 + limit]
                    )
            assert list(listed.list_documents(None, order, None, 3)) == whole[:3]
            assert list(listed.list_documents(None, order, whole[3][0])) == whole[4:]

    def test_list_continues_after_a_document_that_is_gone(self, listed: Selector) -> None:
        order = Order.parse("year")
        whole = list(listed.list_documents(None, order))
        for year, id in ((2020, "j"), (2020.5, ""), ("5", "x"), (None, "0")):
            after = order.key(Document(id or "-", "", metadata={"year": year}))
            assert list(listed.list_documents(None, order, after)) == [one for one in whole if one[0] > after]

    def test_list_has_what_the_filter_lets_through(self, listed: Selector) -> None:
        order = Order.parse("-year")
        documents = [item.document for item in LISTED]
        for description in FILTERS[::5]:
            filter = Filter.parse(description)
            right = [d.id for d in sorted(documents, key=order.key) if filter.matches(d)]
            with case(filter=description):
                assert [document.id for _, document in listed.list_documents(filter, order)] == right
                assert [d.id for _, d in listed.list_documents(filter, Order.parse(None))] == sorted(right)

    def test_list_refuses_what_a_search_refuses(self, listed: Selector) -> None:
        for description in REFUSED:
            for sort in (None, "year"):
                with case(filter=description, sort=sort), pytest.raises(FilterError):
                    list(listed.list_documents(Filter.parse(description), Order.parse(sort)))

    def test_list_of_an_empty_index_is_empty(self, backend: Backend) -> None:
        for sort in (None, "year"):
            assert list(_selector(backend).list_documents(None, Order.parse(sort))) == []

    def test_list_has_every_odd_id_in_order(self, backend: Backend, schema: Schema) -> None:
        put(backend, [samples.plain(id, text=f"text of {id}") for id in ODD_IDS], schema)
        for sort in (None, "-id"):
            found = [document for _, document in _selector(backend).list_documents(None, Order.parse(sort))]
            assert found == [Document(id, f"text of {id}") for id in sorted(ODD_IDS, reverse=sort is not None)]

    def test_list_follows_changes(self, backend: Backend, schema: Schema) -> None:
        put(backend, [samples.plain(id, metadata={"v": v}) for id, v in (("a", 1), ("b", 2), ("c", 3))], schema)
        put(backend, [samples.plain("a", metadata={"v": 9})], schema)
        if backend.capabilities.delete:
            backend.delete(["b"])
            backend.refresh()
        left = ["c", "a"] if backend.capabilities.delete else ["b", "c", "a"]
        assert [document.id for _, document in _selector(backend).list_documents(None, Order.parse("v"))] == left

    def test_list_of_many_documents_comes_in_pages(self, backend: Backend, schema: Schema) -> None:
        numbers = [(7919 * number) % 1201 for number in range(1201)]
        put(backend, [samples.plain(f"{n:04}", metadata={"n": n % 7}) for n in numbers], schema)
        ids = [f"{n:04}" for n in range(1201)]
        listed = _selector(backend)
        assert [d.id for _, d in listed.list_documents(None, Order.parse(None))] == ids
        assert [d.id for _, d in listed.list_documents(None, Order.parse("-n"))] == sorted(
            ids, key=lambda id: (-(int(id) % 7), id)
        )
        filter = Filter.parse({"n": {"$lte": 2}})
        assert [d.id for _, d in listed.list_documents(filter, Order.parse(None), (b"", "0100"), 400)] == [
            id for id in ids if int(id) % 7 <= 2 and id > "0100"
        ][:400]

    def test_list_and_delete_agree(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        require(backend.capabilities.delete and backend.capabilities.filters, "delete or filters")
        items = samples.random_items()
        put(backend, items[:40], schema)
        put(backend, items[40:], schema)
        left = list(items)
        for description in ({"parity": "odd", "number": {"$lt": 30}}, {"number": {"$gte": 50}}, {"id": "d2"}):
            filter = Filter.parse(description)
            gone = [item for item in left if filter.matches(item.document)]
            left = [item for item in left if item not in gone]
            assert _selector(backend).delete_by_filter(filter) == len(gone) > 0
            backend.refresh()
            assert _selector(backend).delete_by_filter(filter) == 0
            assert backend.count() == len(left)
            assert backend.fetch([gone[0].id, left[0].id]) == [None, left[0].document]
        for kind in kinds:
            for query in samples.random_queries(kind, 4):
                check(backend, kind, left, query, 100)

    def test_list_refuses_to_delete_what_a_search_refuses(self, backend: Backend, schema: Schema) -> None:
        require(backend.capabilities.delete and backend.capabilities.filters, "delete or filters")
        put(backend, ITEMS, schema)
        for description in REFUSED:
            with case(filter=description), pytest.raises(FilterError):
                _selector(backend).delete_by_filter(Filter.parse(description))
        assert backend.count() == len(ITEMS)

    def test_list_everything_is_deleted_if_the_filter_says_so(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        require(backend.capabilities.delete and backend.capabilities.filters, "delete or filters")
        put(backend, ITEMS, schema)
        assert _selector(backend).delete_by_filter(Filter.parse({"id": {"$exists": True}})) == len(ITEMS)
        backend.refresh()
        assert backend.count() == 0
        put(backend, [samples.plain("again")], schema)
        for kind in kinds:
            assert find_all(backend, kind) == {"again"}

    def test_list_and_delete_speak_of_documents_with_passages(
        self, connect: Connect, schema: Schema, kinds: Kinds
    ) -> None:
        backend = connect("index")
        require(backend.capabilities.passages, "passages")
        with closing(backend):
            schema = samples.with_passages(schema)
            backend.create(schema)
            items = samples.long_items()
            put(backend, items[:17], schema)
            put(backend, items[17:], schema)
            order = Order.parse("-number")
            right = sorted((order.key(item.document), item.document) for item in items)
            assert list(_selector(backend).list_documents(None, order)) == right
            assert len(list(_selector(backend).list_documents(None, Order.parse(None)))) == len(items)
            filter = Filter.parse({"parity": "odd"})
            left = [item for item in items if not filter.matches(item.document)]
            assert _selector(backend).delete_by_filter(filter) == len(items) - len(left)
            backend.refresh()
            assert backend.count() == len(left)
            for kind in kinds:
                for query in samples.random_queries(kind, 4):
                    check_passages(backend, kind, left, query, 100)


def _selector(backend: Backend) -> Selector:
    assert isinstance(backend, Selector)
    return backend
