"""Tests of listing and deleting by a filter on real servers: numbers of requests, and changes by others meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch.adapters.lucene import listing, writing
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.errors import BackendError
from hybridsearch.filters import Filter
from hybridsearch.listing import Order
from hybridsearch.testing import samples
from hybridsearch.testing.base import put

Make = Callable[..., LuceneBackend]
SCHEMA = samples.make_schema(frozenset({"lexical"}), average_length=samples.FROZEN_LENGTH)
OLD = Filter.parse({"year": {"$lt": 1960}})
BY_ID = Order.parse(None)


def items(year: int, ids: range) -> list[samples.Item]:
    return [samples.plain(f"{number:03}", metadata={"year": year}) for number in ids]


@pytest.fixture
def filled(make: Make) -> LuceneBackend:
    """An index with 60 documents of 1950 and 40 of 1970."""
    backend = make()
    backend.create(SCHEMA)
    put(backend, [*items(1950, range(60)), *items(1970, range(60, 100))], SCHEMA)
    return backend


@pytest.fixture
def paths(filled: LuceneBackend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all requests from now on, without their options."""
    seen: list[str] = []
    answer = filled._channel.answer

    def noted(call: Any) -> Any:
        seen.append(call.path.partition("?")[0].rpartition("/")[2])
        return answer(call)

    monkeypatch.setattr(filled._channel, "answer", noted)
    return seen


def deletes_by_query(backend: LuceneBackend) -> None:
    """Skip the test on a server without the module `reindex`. Every usual distribution has it."""
    path = f"{backend.address.path}/_delete_by_query"
    try:
        backend._channel.call("POST", path, {"query": {"match_none": {}}})
    except BackendError:
        pytest.skip("the server has no module reindex")


def test_deleting_by_filter_is_one_request(filled: LuceneBackend, paths: list[str]) -> None:
    deletes_by_query(filled)
    paths.clear()
    assert filled.delete_by_filter(OLD) == 60
    assert paths == ["_delete_by_query"]
    assert filled.count() == 40
    assert filled.delete_by_filter(OLD) == 0


def test_very_many_documents_are_deleted_in_several_requests(
    filled: LuceneBackend, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes_by_query(filled)
    monkeypatch.setattr(writing, "_DELETED_AT_ONCE", 25)
    paths.clear()
    assert filled.delete_by_filter(OLD) == 60
    assert paths.count("_delete_by_query") == 3
    assert filled.count() == 40


def test_a_document_that_somebody_else_has_changed_is_looked_at_again(make: Make, never_refreshed: Any) -> None:
    writer, other = never_refreshed(make()), make()
    writer.create(SCHEMA)
    put(writer, items(1950, range(10)), SCHEMA)
    deletes_by_query(writer)
    assert other.open() is not None
    other.upsert(samples.encode(items(1970, range(3)), SCHEMA))  # `writer` does not see this yet
    other.upsert(samples.encode(items(1955, range(3, 5)), SCHEMA))
    assert writer.delete_by_filter(OLD) == 7
    writer.refresh()
    assert [document.id for _, document in writer.list_documents(None, BY_ID)] == ["000", "001", "002"]


def test_documents_that_change_all_the_time_are_left(filled: LuceneBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    deletes_by_query(filled)
    call, sent = filled._channel.answer, []

    def disturbed(one: Any) -> Any:
        if "_delete_by_query" not in one.path:
            return call(one)
        sent.append(one)
        return 200, b'{"total": 3, "deleted": 1, "version_conflicts": 2, "failures": []}'

    monkeypatch.setattr(filled._channel, "answer", disturbed)
    with pytest.raises(BackendError, match=r"8 documents were deleted, but others change 2 documents .* delete again"):
        filled.delete_by_filter(OLD)
    assert len(sent) == writing._DISTURBED


def test_a_failure_is_an_error(filled: LuceneBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    call = filled._channel.answer
    failure = b'{"status": 403, "cause": {"type": "cluster_block_exception", "reason": "index read-only"}}'

    def failing(one: Any) -> Any:
        if "_delete_by_query" not in one.path:
            return call(one)
        return 200, b'{"total": 3, "deleted": 1, "version_conflicts": 0, "failures": [%b]}' % failure

    monkeypatch.setattr(filled._channel, "answer", failing)
    with pytest.raises(OSError, match="is read-only"):
        filled.delete_by_filter(OLD)


def test_a_server_without_the_module_deletes_what_it_finds(
    filled: LuceneBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = filled._channel.answer

    def without(one: Any) -> Any:
        unknown = b'{"error":"no handler found for uri [/x/_delete_by_query] and method [POST]"}'
        return (400, unknown) if "_delete_by_query" in one.path else call(one)

    monkeypatch.setattr(filled._channel, "answer", without)
    assert filled.delete_by_filter(OLD) == 60
    assert filled.count() == 40


def test_a_page_by_id_is_one_request_wherever_it_is(filled: LuceneBackend, paths: list[str]) -> None:
    for after in (None, (b"", "080")):
        paths.clear()
        first = [document.id for _, document in filled.list_documents(None, BY_ID, after, 5)]
        assert first == [f"{number:03}" for number in (range(5) if after is None else range(81, 86))]
        assert paths == ["_search"]


def test_an_order_by_a_field_reads_all_documents_once(
    filled: LuceneBackend, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_PAGE", 30)
    paths.clear()
    found = [document.id for _, document in filled.list_documents(OLD, Order.parse("-year"), None, 5)]
    assert found == ["000", "001", "002", "003", "004"]
    assert paths.count("scroll") == 3  # two pages of 30, an empty one, and the end
    assert paths.count("_search") == 2  # the first page, and the texts of the 5 documents


def test_a_list_finds_what_was_written_before_it(filled: LuceneBackend) -> None:
    filled.upsert(samples.encode([samples.plain("new", metadata={"year": 1990})], SCHEMA))
    assert [document.id for _, document in filled.list_documents(None, Order.parse("-year"), None, 1)] == ["new"]
    assert [document.id for _, document in filled.list_documents(None, BY_ID, (b"", "098"))] == ["099", "new"]
