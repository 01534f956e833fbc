"""Tests of faults between the clients and a real server: loads lose nothing, and searches are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import faulty_proxy
import orjson
import pytest
from sent import assert_holds, batches

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.lucene.wire import multisearch
from hybridsearch.adapters.lucene.wire.connection import Address
from hybridsearch.adapters.steps import Pause
from hybridsearch.backends import Request
from hybridsearch.errors import BackendError
from hybridsearch.ranking import Ranking
from hybridsearch.testing import samples
from hybridsearch.testing.base import put

Make = Callable[..., LuceneBackend]
Search = Callable[[LuceneBackend, list[Request]], list[Ranking]]

SCHEMA = samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=samples.FROZEN_LENGTH)
BUSY = {"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}, "status": 429}
FAULTS = {
    "whole requests are refused for load": faulty_proxy.status(429, b"<html>busy</html>"),
    "items are refused for load": faulty_proxy.rejecting(lambda n: n % 3 == 0, 429, "es_rejected_execution_exception"),
    "connections are reset in mid-answer": faulty_proxy.reset_after(0.5),
}


def in_thread(backend: LuceneBackend, requests: list[Request]) -> list[Ranking]:
    return backend.search(requests)


def in_event_loop(backend: LuceneBackend, requests: list[Request]) -> list[Ranking]:
    async def search() -> list[Ranking]:
        try:
            return await backend.asearch(requests)
        finally:
            await backend.aclose()

    return asyncio.run(search())


both_ways = pytest.mark.parametrize("search", [in_thread, in_event_loop])


@pytest.mark.parametrize("kind", FAULTS)
def test_a_load_through_the_engines_own_client_loses_nothing_and_stores_nothing_twice(make: Make, kind: str) -> None:
    direct, items = make(), samples.random_items(500)
    direct.create(SCHEMA)
    with faulty_proxy.FaultyProxy(direct.address) as proxy:
        backend = make(through=proxy.url)
        backend.open()
        proxy.faults += [FAULTS[kind]] * 4
        backend.load(batches(items, SCHEMA))
        assert not proxy.faults
    assert_holds(direct, items, SCHEMA)


@pytest.fixture
def filled(make: Make) -> LuceneBackend:
    """An index of 60 random items."""
    backend = make()
    backend.create(SCHEMA)
    put(backend, samples.random_items(), SCHEMA)
    return backend


@pytest.fixture
def proxy(filled: LuceneBackend) -> Iterator[faulty_proxy.FaultyProxy]:
    """A proxy for the searches of that index."""
    with faulty_proxy.FaultyProxy(filled.address, on="_msearch") as proxy:
        yield proxy


@pytest.fixture
def requests() -> list[Request]:
    """Requests that need one `_msearch`: they ask for all hits, so there are no ties, and need no term frequencies."""
    return [Request(kind, query, 60) for kind in ("dense", "sparse") for query in samples.random_queries(kind, 3)]


@both_ways
def test_a_search_whose_answer_was_cut_off_is_asked_again(
    make: Make, filled: LuceneBackend, proxy: faulty_proxy.FaultyProxy, requests: list[Request], search: Search
) -> None:
    backend = make(through=proxy.url)
    backend.open()
    proxy.faults.append(faulty_proxy.reset_after(0.5))
    assert search(backend, requests) == filled.search(requests)
    assert len(proxy.seen) == 2


@both_ways
def test_searches_whose_answers_are_always_cut_off_end_in_one_sentence(
    make: Make, proxy: faulty_proxy.FaultyProxy, requests: list[Request], search: Search
) -> None:
    backend = make(through=proxy.url)
    backend.open()
    proxy.rule = faulty_proxy.reset_after(0.5)
    with pytest.raises(BackendError, match=r"cannot be reached .*: check that it runs"):
        search(backend, requests)


@both_ways
def test_only_the_searches_that_a_busy_server_refused_are_asked_again(
    make: Make, filled: LuceneBackend, proxy: faulty_proxy.FaultyProxy, requests: list[Request], search: Search
) -> None:
    backend = make(through=proxy.url)
    backend.open()
    proxy.faults += [faulty_proxy.busy_searches(lambda n: n % 2 == 0), faulty_proxy.busy_searches(lambda n: n == 1)]
    assert search(backend, requests) == filled.search(requests)
    sizes = [size for _, size in proxy.seen]
    assert len(sizes) == 3
    assert sizes[0] > sizes[1] > sizes[2]


@both_ways
@pytest.mark.parametrize("fault", ["whole requests are refused for load", "connections are reset in mid-answer"])
def test_a_single_search_that_failed_is_asked_again(
    make: Make, filled: LuceneBackend, requests: list[Request], search: Search, fault: str
) -> None:
    with faulty_proxy.FaultyProxy(filled.address, on="_search") as proxy:
        backend = make(through=proxy.url)
        backend.open()
        proxy.faults.append(FAULTS[fault])
        assert search(backend, requests[:1]) == filled.search(requests[:1])
        assert len(proxy.seen) == 2


@both_ways
def test_a_search_that_a_server_is_always_too_busy_for_ends_in_one_sentence(
    make: Make,
    proxy: faulty_proxy.FaultyProxy,
    requests: list[Request],
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multisearch, "_FIRST_PAUSE", 0.001)
    backend = make(through=proxy.url)
    backend.open()
    proxy.rule = faulty_proxy.busy_searches(lambda n: n == 0)
    with pytest.raises(BackendError, match=r"overloaded or not ready \(HTTP 429 .*queue is full\): try again later"):
        search(backend, requests)


def test_searches_are_asked_again_later_and_later_until_all_are_answered() -> None:
    def rounds() -> Any:
        return (yield [{"size": number} for number in range(3)])

    steps = multisearch.msearch(Address.parse("opensearch://localhost/name", "OpenSearch"), rounds())
    calls, pauses = [next(steps)], []
    for responses in ([BUSY, {"hits": 1}, BUSY], [{"hits": 0}, BUSY]):
        pauses.append(steps.send({"responses": responses}))
        calls.append(next(steps))
    with pytest.raises(StopIteration) as stop:
        steps.send({"responses": [{"hits": 2}]})
    assert stop.value.value == [{"hits": 0}, {"hits": 1}, {"hits": 2}]
    bodies = [call.body.split(b"\n")[1:-1:2] for call in calls if call.body is not None]
    assert bodies == [[b'{"size":0}', b'{"size":1}', b'{"size":2}'], [b'{"size":0}', b'{"size":2}'], [b'{"size":2}']]
    assert pauses == [Pause(0.1), Pause(0.2)]


def test_searches_that_are_too_large_for_one_request_are_sent_in_several() -> None:
    large = "x" * (5 << 20)

    def rounds() -> Any:
        return (yield [{"size": number, "query": large if number < 3 else ""} for number in range(5)])

    steps = multisearch.msearch(Address.parse("opensearch://localhost/name", "OpenSearch"), rounds())
    calls = [next(steps)]
    for answer in ({"hits": 0}, {"hits": 1}):
        calls.append(steps.send(answer))
    with pytest.raises(StopIteration) as stop:
        steps.send({"responses": [{"hits": number} for number in (2, 3, 4)]})
    lines = [(call.body or b"").splitlines() for call in calls]
    sizes = [[orjson.loads(line)["size"] for line in of if line.startswith(b'{"size"')] for of in lines]
    assert sizes == [[0], [1], [2, 3, 4]]
    assert stop.value.value == [{"hits": number} for number in range(5)]


def test_a_node_that_does_not_answer_is_named_without_the_nodes_that_were_not_asked(make: Make) -> None:
    direct = make()
    direct.create(SCHEMA)
    put(direct, samples.random_items(), SCHEMA)
    request = Request("lexical", samples.random_queries("lexical", 1)[0], 5)
    with faulty_proxy.FaultyProxy(direct.address, on="_msearch") as proxy:
        proxy.rule = faulty_proxy.slow(2)
        ((host, port),) = direct.address.hosts
        backend = make(through=f"{proxy.url},{host}:{port}", timeout=0.5)
        backend.open()
        told = []
        for _ in range(3):  # the nodes are asked in turn
            try:
                backend.search([request])
            except BackendError as error:
                told.append(str(error))
    assert told
    assert all(f"at {proxy.url} did not answer" in text for text in told)
