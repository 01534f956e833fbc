"""Tests of bulk requests: all documents reach a real server, whatever faults there are."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import faulty_proxy
import pytest
import urllib3
from servers import address_of, call, server_of

from hybridsearch.adapters.lucene.wire.bulk import BulkSender
from hybridsearch.errors import BackendError, BulkIndexError, InvalidArgumentError, StorageError

DEAD = "http://127.0.0.1:1"
"""An address at which no server listens."""


ENGINES = ("opensearch", "elasticsearch")
"""The engines. Most tests use one of them, and some use both."""

both_engines = pytest.mark.parametrize("index", ENGINES, indirect=True)


class Index:
    """An index of documents {"n": number}, reached through a proxy."""

    def __init__(self, server: str, name: str) -> None:
        self.address = address_of(f"{server}/{name}")
        self.proxy = faulty_proxy.FaultyProxy(self.address)
        self.pool = urllib3.PoolManager(timeout=20, retries=False)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the server to a request that does not use the proxy."""
        return call(self.address, method, f"{self.address.path}{path}", body)

    def send(self, body: bytes, to: str | None = None) -> tuple[int, bytes]:
        url = f"{to or self.proxy.url}{self.address.path}/_bulk"
        answer = self.pool.request("POST", url, body=body, headers={"Content-Type": "application/x-ndjson"})
        return answer.status, answer.data

    def sender(self, **options: Any) -> BulkSender:
        fast = {"max_documents": 20, "first_wait": 0.01, "max_wait": 0.1, "retryable": (urllib3.exceptions.HTTPError,)}
        return BulkSender(self.send, **(fast | options))

    def stored(self) -> dict[str, int]:
        self.ask("POST", "/_refresh")
        hits = self.ask("POST", "/_search", {"size": 10_000})["hits"]["hits"]
        found = {hit["_id"]: hit["_source"]["n"] for hit in hits}
        assert len(found) == len(hits)
        return found


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, str]]:
    """The index that the tests of this module share on each server. It is made when it is first needed."""
    names: dict[str, str] = {}
    yield names
    for server, name in names.items():
        Index(server, name).ask("DELETE", "")


@pytest.fixture
def index(request: pytest.FixtureRequest, names: dict[str, str]) -> Iterator[Index]:
    server = server_of(*([request.param] if hasattr(request, "param") else ENGINES))
    index = Index(server, names.get(server) or f"hstest-{uuid.uuid4().hex[:8]}-bulk")
    if server not in names:
        index.ask("PUT", "", {"mappings": {"properties": {"n": {"type": "long"}}}})
        names[server] = index.address.index
    with index.proxy:
        yield index
    left = b"".join(b'{"delete":{"_id":%b}}\n' % json.dumps(id).encode() for id in index.stored())
    if left:
        index.ask("POST", "/_bulk", left)
    assert index.stored() == {}
    index.pool.clear()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("hybridsearch-bulk")] == []


def lines(count: int, first: int = 0, padding: int = 0) -> Iterator[tuple[str, bytes]]:
    for number in range(first, first + count):
        yield line(f"d{number}", number, padding)


def line(id: str, n: Any, padding: int = 0) -> tuple[str, bytes]:
    source = json.dumps({"n": n, "padding": "x" * padding}).encode()
    return id, b'{"index":{"_id":%b}}\n%b\n' % (json.dumps(id).encode(), source)


def numbers(count: int) -> dict[str, int]:
    return {f"d{number}": number for number in range(count)}


@both_engines
def test_all_lines_are_stored_by_several_requests_at_a_time(index: Index) -> None:
    index.proxy.rule = faulty_proxy.slow(0.05)
    done: list[int] = []
    assert index.sender(threads=3).send_all(lines(205), done.append) == 205
    assert (sum(done), len(done), len(index.proxy.seen)) == (205, 11, 11)
    assert index.proxy.most_at_once == 3
    assert index.stored() == numbers(205)


def test_nothing_to_send_sends_nothing(index: Index) -> None:
    assert index.sender().send_all([]) == 0
    assert index.proxy.seen == []


def test_requests_are_limited_in_bytes(index: Index) -> None:
    index.sender(max_bytes=3000).send_all(lines(30, padding=500))
    assert max(size for _, size in index.proxy.seen) <= 3000
    assert len(index.proxy.seen) <= 8
    assert index.stored() == numbers(30)


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_a_storm_of_refusals_loses_nothing(index: Index, code: int) -> None:
    index.proxy.faults += [faulty_proxy.status(code, b"<html>busy</html>")] * 6
    assert index.sender().send_all(lines(100)) == 100
    assert not index.proxy.faults
    assert index.stored() == numbers(100)


def test_connections_reset_before_the_request_was_read_lose_nothing(index: Index) -> None:
    index.proxy.faults += [faulty_proxy.reset_before] * 5
    assert index.sender().send_all(lines(100)) == 100
    assert index.stored() == numbers(100)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_connections_reset_in_mid_answer_store_nothing_twice(index: Index, share: float) -> None:
    index.proxy.faults += [faulty_proxy.reset_after(share)] * 5
    assert index.sender().send_all(lines(100)) == 100
    assert index.stored() == numbers(100)


def test_an_answer_slower_than_the_timeout_is_asked_for_again(index: Index) -> None:
    index.pool = urllib3.PoolManager(timeout=1, retries=False)
    index.proxy.faults += [faulty_proxy.slow(1.5)]
    assert index.sender(threads=1).send_all(lines(20)) == 20
    assert len(index.proxy.seen) >= 2
    assert index.stored() == numbers(20)


def test_only_rejected_items_are_sent_again(index: Index) -> None:
    index.proxy.faults += [faulty_proxy.rejecting(lambda n: n % 5 == 0, 429, "es_rejected_execution_exception")]
    assert index.sender(threads=1).send_all(lines(20)) == 20
    (_, first), (_, second) = index.proxy.seen
    assert second < first / 3
    assert index.stored() == numbers(20)


def test_items_that_are_rejected_again_and_again_get_through_as_long_as_some_do(index: Index) -> None:
    index.proxy.faults += [faulty_proxy.rejecting(lambda n: n != 0, 503, "unavailable_shards_exception")] * 12
    assert index.sender(threads=1, retries=2).send_all(lines(15)) == 15
    assert index.stored() == numbers(15)


def test_requests_shrink_below_a_payload_limit_and_stay_there(index: Index) -> None:
    index.proxy.rule = faulty_proxy.too_large_above(5000)
    sender = index.sender(threads=1, max_documents=100)
    assert sender.send_all(lines(200, padding=400)) == 200
    sizes = [size for _, size in index.proxy.seen]
    assert sum(size > 5000 for size in sizes) <= 5
    assert sender.send_all(lines(100, 200, padding=400)) == 100
    assert all(size <= 5000 for _, size in index.proxy.seen[len(sizes) :])
    assert index.stored() == numbers(300)


def test_a_document_that_no_request_can_carry_is_reported_and_the_others_are_stored(index: Index) -> None:
    index.proxy.rule = faulty_proxy.too_large_above(5000)
    with pytest.raises(BulkIndexError, match="All others are stored") as caught:
        index.sender().send_all([*lines(30), line("giant", 1, 6000), *lines(30, 30)])
    ((id, reason),) = caught.value.failed
    assert id == "giant"
    assert "HTTP 413" in reason
    assert index.stored() == numbers(60)


@both_engines
def test_refused_documents_are_reported_with_their_reason_when_all_others_are_stored(index: Index) -> None:
    wrong = [line("w1", "not a number"), line("w2", {"an": "object"})]
    done: list[int] = []
    with pytest.raises(BulkIndexError) as caught:
        index.sender().send_all([wrong[0], *lines(50), wrong[1], *lines(50, 50)], done.append)
    failed = dict(caught.value.failed)
    assert failed.keys() == {"w1", "w2"}
    assert all("n" in reason and "pars" in reason for reason in failed.values())
    assert sum(done) == 102
    assert index.stored() == numbers(100)


@both_engines
def test_a_document_that_makes_the_server_refuse_its_whole_request_is_found(index: Index) -> None:
    with pytest.raises(BulkIndexError) as caught:
        index.sender().send_all([*lines(10), line("x" * 600, 1), *lines(10, 10)])
    ((id, reason),) = caught.value.failed
    assert id == "x" * 600
    assert "512" in reason
    assert index.stored() == numbers(20)


@both_engines
@pytest.mark.parametrize("seed", range(2))
def test_any_mixture_of_faults_loses_nothing_and_stores_nothing_twice(index: Index, seed: int) -> None:
    rng = random.Random(seed)
    kinds = [
        faulty_proxy.passing,
        faulty_proxy.reset_before,
        faulty_proxy.reset_after(0.3),
        faulty_proxy.reset_after(0.0),
        faulty_proxy.slow(0.05),
        faulty_proxy.status(429),
        faulty_proxy.status(503),
        faulty_proxy.too_large_above(700),
        faulty_proxy.status(200, b"<html>captive portal</html>"),
        faulty_proxy.rejecting(lambda n: n % 3 == 0, 429, "es_rejected_execution_exception"),
        faulty_proxy.rejecting(lambda n: n % 2 == 0, 503, "unavailable_shards_exception"),
    ]
    index.proxy.faults += rng.choices(kinds, k=60)
    refused = {f"w{number}" for number in range(5)}
    sent = [*lines(200), *(line(id, "wrong") for id in sorted(refused))]
    rng.shuffle(sent)
    with pytest.raises(BulkIndexError) as caught:
        index.sender(retries=40, threads=3).send_all(sent)
    assert len(index.proxy.faults) < 40
    assert {id for id, _ in caught.value.failed} == refused
    assert index.stored() == numbers(200)


def test_a_server_that_stays_away_ends_in_one_error_that_says_how_much_is_stored(index: Index) -> None:
    def send(body: bytes) -> Any:
        return index.send(body, to=index.proxy.url if len(index.proxy.seen) < 2 else DEAD)

    sender = BulkSender(
        send,
        threads=1,
        max_documents=20,
        retries=3,
        first_wait=0.01,
        retryable=(urllib3.exceptions.HTTPError,),
    )
    with pytest.raises(BackendError, match=r"40 documents of this call are stored.* run the call again") as caught:
        sender.send_all(lines(200))
    assert "4 attempts failed in a row" in str(caught.value)
    assert not isinstance(caught.value, BulkIndexError)
    assert index.stored() == numbers(40)
    assert index.sender().send_all(lines(200)) == 200
    assert index.stored() == numbers(200)


def test_one_request_that_is_given_up_ends_the_pauses_of_the_others(index: Index) -> None:
    sender = index.sender(retries=1, threads=4, first_wait=60.0, max_wait=60.0)
    index.proxy.rule = faulty_proxy.status(429)
    index.proxy.faults += [faulty_proxy.status(404, b"not here")]
    start = time.monotonic()
    with pytest.raises(BackendError, match="HTTP 404"):
        sender.send_all(lines(200))
    assert time.monotonic() - start < 5


def test_pauses_are_random_between_nothing_and_a_growing_limit(index: Index) -> None:
    times: list[float] = []

    def send(body: bytes) -> tuple[int, bytes]:
        times.append(time.monotonic())
        return 429, b""

    sender = BulkSender(send, retries=5, first_wait=0.1, max_wait=0.4)
    with pytest.raises(BackendError):
        sender.send_all(lines(1))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    limits = [0.1, 0.2, 0.4, 0.4, 0.4]
    assert all(pause < limit + 0.3 for pause, limit in zip(pauses, limits, strict=True))
    assert len({round(pause, 5) for pause in pauses}) == 5


@both_engines
def test_an_index_that_takes_no_writes_is_an_error_at_once(index: Index) -> None:
    index.sender().send_all(lines(10))
    index.ask("PUT", "/_settings", {"index.blocks.read_only_allow_delete": True})
    with pytest.raises(BackendError, match=r"read-only.*0 documents of this call are stored"):
        index.sender(first_wait=60.0, max_wait=60.0).send_all(lines(50, 10))
    index.ask("PUT", "/_settings", {"index.blocks.read_only_allow_delete": None})
    assert index.stored() == numbers(10)


def test_an_error_keeps_the_type_that_it_was_given() -> None:
    def refusal(status: int, error: Any) -> StorageError:
        return StorageError(f"The index is read-only (HTTP {status}, {error['type']}).")

    body = json.dumps({"error": {"type": "cluster_block_exception", "reason": "disk"}}).encode()
    sender = BulkSender(lambda sent: (403, body), refusal=refusal)
    with pytest.raises(StorageError, match=r"read-only \(HTTP 403, cluster_block_exception\)\. 0 documents of this"):
        sender.send_all(lines(3))


@both_engines
def test_deletions_count_the_documents_that_were_there(index: Index) -> None:
    index.sender().send_all(lines(50))
    deletions = [(f"d{n}", b'{"delete":{"_id":"d%d"}}\n' % n) for n in range(40, 120)]
    index.proxy.faults += [
        faulty_proxy.status(429),
        faulty_proxy.rejecting(lambda n: n == 3, 429, "rejected_execution_exception"),
    ]
    assert index.sender().send_all(deletions) == 10
    assert index.stored() == numbers(40)


def test_of_two_lines_of_one_document_the_later_wins_whatever_happens_to_the_first(index: Index) -> None:
    def run(*faults: Any, rest: int = 30) -> int:
        index.proxy.faults.extend(faults)
        index.sender(threads=4, max_documents=5).send_all([line("a", 1), *lines(rest), line("a", 2)])
        return index.stored()["a"]

    assert run(faulty_proxy.slow(0.3)) == 2
    assert run(faulty_proxy.status(429), faulty_proxy.status(429)) == 2
    assert run(faulty_proxy.rejecting(lambda n: n == 0, 429, "es_rejected_execution_exception"), rest=2) == 2
    assert run(rest=0) == 2


def test_lines_are_taken_only_as_fast_as_the_server_takes_them(index: Index) -> None:
    taken = 0
    waiting: list[int] = []

    def counted() -> Iterator[tuple[str, bytes]]:
        nonlocal taken
        for one in lines(400):
            taken += 1
            yield one

    def fault(exchange: Any) -> None:
        waiting.append(taken - 20 * len(waiting))
        time.sleep(0.02)
        faulty_proxy.passing(exchange)

    index.proxy.rule = fault
    index.sender(threads=2).send_all(counted())
    assert max(waiting) <= 20 * 3 + 20  # two requests are sent, one is ready, and the answer of one is not read yet


@pytest.mark.parametrize("error", [ValueError("no more"), KeyboardInterrupt()])
def test_an_error_of_the_lines_ends_the_call_and_its_threads(index: Index, error: BaseException) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield from lines(50)
        raise error

    index.proxy.faults += [faulty_proxy.passing, faulty_proxy.status(429)]
    start = time.monotonic()
    with pytest.raises(type(error)):
        index.sender(first_wait=60.0, max_wait=60.0).send_all(broken())
    assert time.monotonic() - start < 5


def test_an_interrupt_while_waiting_for_the_server_ends_the_call_and_its_threads(index: Index) -> None:
    index.proxy.rule = faulty_proxy.status(429)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            index.sender(first_wait=60.0, max_wait=60.0).send_all(lines(100))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert 0.2 < time.monotonic() - start < 5


def test_an_error_that_is_not_to_be_repeated_ends_the_call(index: Index) -> None:
    def send(body: bytes) -> tuple[int, bytes]:
        raise RuntimeError("a mistake of the caller")

    with pytest.raises(RuntimeError, match="a mistake of the caller"):
        BulkSender(send).send_all(lines(100))


def test_one_sender_serves_many_threads(index: Index) -> None:
    sender = index.sender()
    index.proxy.faults += [faulty_proxy.status(429), faulty_proxy.reset_after(0.5)] * 3
    counts: list[int] = []
    threads = [threading.Thread(target=lambda n=n: counts.append(sender.send_all(lines(50, 50 * n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [50] * 4
    assert index.stored() == numbers(200)


@pytest.mark.parametrize("option", ["threads", "max_bytes", "max_documents", "retries", "first_wait", "max_wait"])
def test_limits_below_the_smallest_are_invalid_arguments(option: str) -> None:
    send: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, b"")  # noqa: E731
    with pytest.raises(InvalidArgumentError, match=option):
        BulkSender(send, **{option: -1})
