"""Tests of a cluster of three nodes that loses one under load: documents and searches go to the others."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from nodes import Nodes, start_nodes
from sent import assert_holds, batches

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")

from hybridsearch.adapters.opensearch import OpenSearchBackend
from hybridsearch.backends import Request
from hybridsearch.testing import samples
from hybridsearch.testing.base import check
from hybridsearch.testing.samples import Item

Make = Callable[..., OpenSearchBackend]

SCHEMA = samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=samples.FROZEN_LENGTH)
REQUESTS = [Request(kind, samples.random_queries(kind, 1)[0], 20) for kind in ("lexical", "sparse", "dense")]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with start_nodes("opensearch", 3) as cluster:
        yield cluster


@pytest.fixture
def make(cluster: Nodes) -> Iterator[Make]:
    """A function that makes backends of one index, with a URL that names all three nodes."""
    location = cluster.location(f"index-{next(_numbers)}")
    made: list[OpenSearchBackend] = []

    def make() -> OpenSearchBackend:
        made.append(OpenSearchBackend(location, shards=3, replicas=1, dense="exact"))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def assert_ranks_rightly(backend: OpenSearchBackend, items: Sequence[Item]) -> None:
    for kind in ("lexical", "sparse", "dense"):
        for query in samples.random_queries(kind, 3):
            check(backend, kind, items, query, 50)


def opened(make: Make) -> OpenSearchBackend:
    backend = make()
    assert backend.open() is not None
    return backend


class Searching:
    """Search without pauses, in two threads and in an event loop, until the block ends."""

    def __init__(self, make: Make) -> None:
        self.answered = 0
        self.hits: set[str] = set()
        self._make = make
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(3)

    def __enter__(self) -> Searching:
        work = [self._in_a_thread, self._in_a_thread, lambda: asyncio.run(self._in_an_event_loop())]
        self._futures: list[Future[None]] = [self._pool.submit(one) for one in work]
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        if error[0] is None:
            for future in self._futures:
                future.result()

    def _in_a_thread(self) -> None:
        backend = opened(self._make)
        while not self._stop.is_set():
            self._note(backend.search(REQUESTS))

    async def _in_an_event_loop(self) -> None:
        backend = opened(self._make)
        try:
            while not self._stop.is_set():
                for rankings in await asyncio.gather(*(backend.asearch(REQUESTS) for _ in range(4))):
                    self._note(rankings)
        finally:
            await backend.aclose()

    def _note(self, rankings: Any) -> None:
        assert all(len(ranking) == request.k for ranking, request in zip(rankings, REQUESTS, strict=True))
        self.hits.update(id for ranking in rankings for id in ranking.ids)
        self.answered += 1


def test_a_cluster_that_loses_its_manager_answers_every_search_and_loses_no_document(
    cluster: Nodes, make: Make
) -> None:
    backend, items = make(), samples.random_items(3000)
    backend.create(SCHEMA)
    backend.load(batches(items[:600], SCHEMA))
    cluster.wait(3, "green")
    (manager,) = cluster.ask("GET", "/_cat/cluster_manager?format=json")
    victim = int(manager["node"].removeprefix("node-"))
    other = victim % 3 + 1
    before = 0

    def crash() -> None:
        nonlocal before
        cluster.kill(victim)
        before = searching.answered

    with Searching(make) as searching:
        backend.load(batches(items[600:], SCHEMA, 8, crash))
    assert searching.answered > before + 10
    assert searching.hits <= {item.id for item in items}
    cluster.wait(2, number=other)
    assert_holds(backend, items, SCHEMA)
    assert_ranks_rightly(backend, items)
    cluster.restart(victim)
    cluster.wait(3, "green")
    assert_holds(opened(make), items, SCHEMA)
    assert_ranks_rightly(backend, items)


@pytest.mark.slow
def test_a_first_load_rides_out_a_node_that_is_killed_although_there_are_no_replicas_yet(
    cluster: Nodes, make: Make
) -> None:
    backend, items = make(), samples.random_items(3000)
    backend.create(SCHEMA)
    with ThreadPoolExecutor(1) as pool:
        restarted: list[Future[None]] = []

        def crash() -> None:
            cluster.kill(3)
            restarted.append(pool.submit(cluster.restart, 3))

        backend.load(batches(items, SCHEMA, 8, crash))
        restarted[0].result()
    cluster.wait(3, "green")
    assert_holds(backend, items, SCHEMA)
    assert_ranks_rightly(backend, items)
