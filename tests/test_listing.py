"""Tests of orders, cursors, listing documents and deleting by a filter, with the memory backend."""

from __future__ import annotations

import random
import sqlite3
import string
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch import listing
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.errors import BackendError, FilterError, IndexNotFoundError, InvalidArgumentError, StorageError
from hybridsearch.listing import Key, Order, in_order, number_key, read_cursor, sort_bytes, write_cursor

PAPERS = [
    {"id": "a", "text": "wing", "title": "Wings", "year": 1958, "tags": ["x", "b"]},
    {"id": "b", "text": "jet", "year": 1971},
    {"id": "c", "text": "heat", "title": "Heat", "year": 1958, "tags": ["c"]},
    {"id": "d", "text": "", "tags": []},
]
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


class Bare:
    """A backend with the methods of the contract and no others."""

    def __init__(self, **abilities: bool) -> None:
        backend = MemoryBackend()
        for name in ("open", "create", "upsert", "delete", "fetch", "search", "explain", "scan", "count", "refresh"):
            setattr(self, name, getattr(backend, name))
        self.close = backend.close
        self.capabilities = hs.backends.Capabilities(**abilities)  # type: ignore[arg-type]


def made(backend: Any = "memory") -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25()}, backend)
    search.upsert(PAPERS)
    return search


def ids(documents: Any) -> list[str]:
    return [document.id for document in documents]


# Orders


@given(NUMBERS, NUMBERS)
def test_numbers_are_ordered_by_value(a: float, b: float) -> None:
    assert (number_key(a) < number_key(b)) == (a < b)
    assert (sort_bytes(a) == sort_bytes(b)) == (a == b)
    assert (sort_bytes(a, descending=True) > sort_bytes(b, descending=True)) == (a < b)


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=8))
def test_several_strings_are_ordered_as_tuples(pairs: list[tuple[str, str]]) -> None:
    def key(pair: tuple[str, str]) -> bytes:
        return b"".join(sort_bytes(part, "id") for part in pair)

    assert sorted(pairs, key=key) == sorted(pairs)


def test_a_descending_order_reverses_values_but_not_ids() -> None:
    assert ids(made().documents(sort="-year")) == ["b", "a", "c", "d"]
    assert ids(made().documents(sort=["year", "-id"])) == ["c", "a", "b", "d"]
    assert ids(made().documents(sort="-id")) == ["d", "c", "b", "a"]


def test_a_list_counts_by_its_smallest_or_largest_element() -> None:
    assert ids(made().documents(sort="tags")) == ["a", "c", "b", "d"]
    assert ids(made().documents(sort="-tags")) == ["a", "c", "b", "d"]
    assert sort_bytes(["b", "x"]) < sort_bytes("c")
    assert sort_bytes(["b", "x"], descending=True) < sort_bytes("c", descending=True)


def test_an_id_that_looks_like_an_instant_is_ordered_as_a_string() -> None:
    late, early = "2024-01-01T00:00+09:00", "2024-01-01T00:00-09:00"
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert([{"id": id, "text": ""} for id in (early, late)])
    assert ids(search.documents()) == [late, early]
    assert ids(search.documents(sort="-id")) == [early, late]


@pytest.mark.parametrize("sort", ["", "-", 5, ["year", 5], [""], ["year", "-year"], {"year": 1}])
def test_a_wrong_order_is_refused(sort: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^sort "):
        made().documents(sort=sort)


# Sorting


def keys(number: int) -> list[Key]:
    random.seed(number)
    return [
        (random.randbytes(random.randrange(3)), "".join(random.choices(string.printable, k=3)) + str(n))
        for n in range(number)
    ]


@pytest.mark.parametrize("limit", [None, 1, 49, 50, 51, 1000])
def test_many_keys_are_sorted_on_disk(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given = keys(500)
    whole = sorted(given)
    for in_memory in (50, 100_000):
        monkeypatch.setattr(listing, "_IN_MEMORY", in_memory)
        assert list(in_order(given, None, limit)) == whole[:limit]
        assert list(in_order(given, whole[99], limit)) == whole[100:][:limit]


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(listing, "_IN_MEMORY", 10)
    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(StorageError, match=r"database or disk is full.*Free some space"):
        list(in_order(keys(20)))


# Cursors


@given(
    st.lists(st.text(min_size=1, max_size=4).filter(lambda text: text.strip("-")), unique=True, max_size=3),
    st.binary(),
    st.text(),
)
def test_a_cursor_comes_back(names: list[str], part: bytes, id: str) -> None:
    order = Order(tuple(names), ())
    cursor = write_cursor(order, (part, id))
    assert read_cursor(order, cursor) == (part, id)
    assert set(cursor) <= {*string.ascii_letters, *string.digits, "-", "_"}


def test_pages_join_to_the_whole_list() -> None:
    search = made()
    for sort in (None, "-year", ["title", "-tags"]):
        whole, found, cursor = ids(search.documents(sort=sort)), [], None
        while True:
            page = search.documents(sort=sort, limit=3, after=cursor)
            found += ids(page)
            if (cursor := page.cursor) is None:
                break
        assert found == whole


@pytest.mark.parametrize("limit", [sys.maxsize, 10**30])
@pytest.mark.parametrize("sort", [None, "year"])
def test_a_limit_may_be_any_number(limit: int, sort: str | None) -> None:
    assert len(ids(made().documents(sort=sort, limit=limit))) == 4


def test_the_cursor_is_none_at_the_end_and_follows_each_document() -> None:
    search = made()
    page = search.documents(limit=4)
    assert page.cursor is None
    for document in page:
        assert page.cursor is not None
        assert ids(search.documents(after=page.cursor)) == [id for id in "abcd" if id > document.id]
    assert page.cursor is None


def test_a_cursor_works_after_its_document_is_gone() -> None:
    search = made()
    page = search.documents(sort="year", limit=1)
    assert ids(page) == ["a"]
    search.delete("a")
    assert ids(search.documents(sort="year", after=page.cursor)) == ["c", "b", "d"]


@pytest.mark.parametrize(
    "change",
    [lambda text: text[:-3], lambda text: "x" + text, lambda text: "", lambda text: "not one!", lambda text: 7],
)
def test_a_wrong_cursor_is_refused(change: Any) -> None:
    search = made()
    page = search.documents(limit=1)
    next(page)
    list(page)
    with pytest.raises(InvalidArgumentError, match="is not a cursor or not a whole one"):
        search.documents(after=change(page.cursor))


def test_a_cursor_of_another_order_is_refused() -> None:
    search = made()
    page = search.documents(sort=["-year", "title"], limit=1)
    list(page)
    with pytest.raises(InvalidArgumentError, match="sorted by -year, title, but this list is sorted by id"):
        search.documents(after=page.cursor)


# HybridSearch.documents and .delete


@pytest.mark.parametrize("backend", ["memory", Bare])
def test_documents_come_whole_and_filtered(backend: Any) -> None:
    search = made(backend if backend == "memory" else backend())
    assert list(search.documents({"year": 1958}, sort="-title")) == search.get(["a", "c"])
    assert ids(search.documents({"year": {"$exists": False}})) == ["d"]
    assert ids(search.documents({"nope": 1})) == []
    with pytest.raises(FilterError, match="cannot select by the text"):
        list(search.documents({"text": "wing"}))


def test_notes_name_fields_that_no_document_has() -> None:
    search = made()
    assert search.documents({"year": 1958}, sort=["title", "-id"]).notes == ()
    assert search.documents({"yaer": 1958}, sort="titel").notes == (
        "The filter asks about 'yaer', but no document has this field.",
        "The order names 'titel', but no document has this field.",
    )


@pytest.mark.parametrize("backend", ["memory", Bare])
def test_delete_by_filter_removes_what_the_filter_allows(backend: Any) -> None:
    search = made(backend if backend == "memory" else backend())
    assert search.delete(filter={"year": {"$lt": 1970}}) == 2
    assert search.search("wing").ids == []
    assert (search.count(), ids(search.documents())) == (2, ["b", "d"])
    assert search.delete(filter={"id": {"$exists": True}}) == 2
    assert search.count() == 0


def test_delete_by_filter_is_one_commit(tmp_path: Path) -> None:
    with made(tmp_path / "index") as search, hs.open(tmp_path / "index") as reader:
        before = (tmp_path / "index" / "manifest.json").read_bytes()
        assert search.delete(filter={"year": 1}) == 0
        assert (tmp_path / "index" / "manifest.json").read_bytes() == before
        assert search.delete(filter={"year": 1958}) == 2
        assert reader.count() == 4
        reader.refresh()
        assert reader.count() == 2


def test_delete_takes_ids_or_a_filter() -> None:
    search = made()
    with pytest.raises(InvalidArgumentError, match="neither is given"):
        search.delete()
    with pytest.raises(InvalidArgumentError, match="both are given"):
        search.delete("a", filter={"year": 1958})
    with pytest.raises(FilterError, match=r'filter is empty: .*\$exists": true.* for every document'):
        search.delete(filter={})
    with pytest.raises(FilterError, match="unknown operator"):
        search.delete(filter={"year": {"$newer": 1}})
    assert search.count() == 4


def test_delete_warns_of_a_field_that_no_document_has() -> None:
    search = made()
    with pytest.warns(UserWarning, match="asks about 'yaer'"):
        assert search.delete(filter={"yaer": 1958}) == 0


def test_an_engine_that_cannot_says_so() -> None:
    with pytest.raises(BackendError, match="cannot list its documents"):
        list(made(Bare(scan=False)).documents())
    with pytest.raises(BackendError, match="cannot filter"):
        made(Bare(filters=False)).documents({"year": 1958})
    with pytest.raises(BackendError, match="cannot filter"):
        made(Bare(filters=False)).delete(filter={"year": 1958})
    with pytest.raises(BackendError, match="cannot delete"):
        made(Bare(delete=False)).delete(filter={"year": 1958})


def test_a_wrong_filter_is_refused_before_anything_is_indexed() -> None:
    with pytest.raises(FilterError, match="unknown operator"):
        hs.HybridSearch({"bm25": hs.BM25()}).count({"year": {"$near": 1958}})


def test_nothing_can_be_listed_before_it_is_indexed() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    with pytest.raises(IndexNotFoundError):
        search.documents()
    with pytest.raises(IndexNotFoundError):
        search.delete(filter={"year": 1958})


def test_a_list_shows_the_index_as_it_was_when_it_began() -> None:
    search = made()
    page = search.documents(sort="year")
    assert next(page).id == "a"
    search.delete("c")
    search.upsert({"id": "e", "text": "", "year": 1960})
    assert ids(page) == ["c", "b", "d"]


def test_a_long_list_needs_far_less_memory_than_its_documents() -> None:
    """The list reads a part of the documents at a time, so it needs far less memory than all texts."""
    import tracemalloc

    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(
        ({"id": f"{n:05}", "text": "", "metadata": {"n": n % 97, "rest": "x" * 2000}} for n in range(20_000)),
        show_progress_bar=False,
    )
    for sort in (None, "-n"):
        tracemalloc.start()
        assert sum(1 for _ in search.documents(sort=sort)) == 20_000
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 20_000_000 < sys.getsizeof("x" * 2000) * 20_000


def test_a_list_says_its_order_and_how_to_read_it() -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.upsert(PAPERS)
        assert repr(search.documents(sort="-year")).startswith("<Listing by -year, id: iterate over it")
