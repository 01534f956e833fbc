"""Tests of several readers and one writer. Every answer must come from one committed state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hybridsearch.backends import Backend, Request, Schema
from hybridsearch.filters import Filter
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Kinds, ask, put, require
from hybridsearch.testing.samples import Item

READERS = 4
SECONDS = 0.6
DOCUMENTS = 24


class ConcurrencyTests(Base):
    """Tests of threads that search while another thread writes. Some need the capability `atomic_batches`."""

    def test_readers_see_whole_batches_while_a_writer_replaces_them(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        require(backend.capabilities.atomic_batches, "atomic batches")
        put(backend, _generation(1), schema)
        done = threading.Event()

        def read() -> int:
            answers = 0
            while not done.is_set():
                for kind in kinds:
                    ranking = ask(backend, kind, samples.common_query(kind), 100)
                    assert ranking.ids == tuple(sorted(ranking.ids)), kind
                    assert len(ranking) == DOCUMENTS, kind
                    assert len(set(ranking.scores.tolist())) == 1, f"an answer mixes two states: {kind}"
                answers += 1
            return answers

        def write() -> None:
            try:
                end = time.monotonic() + SECONDS
                generation = 2
                while time.monotonic() < end:
                    put(backend, _generation(generation), schema)
                    generation += 1
            finally:
                done.set()

        _run(write, read)

    def test_readers_see_whole_batches_while_a_writer_adds_and_deletes(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        require(backend.capabilities.atomic_batches, "atomic batches")
        require(backend.capabilities.delete, "delete")
        stay, come_and_go = [samples.plain(f"s{i}") for i in range(5)], [samples.plain(f"g{i}") for i in range(7)]
        put(backend, stay, schema)
        done = threading.Event()
        from_g = Filter.parse({"id": {"$gte": "g"}}) if backend.capabilities.filters else None

        def read() -> int:
            answers = 0
            while not done.is_set():
                for kind in kinds:
                    query = samples.common_query(kind)
                    first, second = backend.search([Request(kind, query, 100), Request(kind, query, 3, from_g)])
                    assert len(first) in (5, 12), kind
                    assert second.ids == first.ids[:3], f"two answers of one call come from different states: {kind}"
                answers += 1
            return answers

        def write() -> None:
            try:
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    put(backend, come_and_go, schema)
                    assert backend.delete([item.id for item in come_and_go]) == 7
                    backend.refresh()
            finally:
                done.set()

        _run(write, read)

    def test_many_threads_get_the_answers_of_one(self, filled: Backend, kinds: Kinds) -> None:
        requests = [Request(kind, query, 10) for kind in kinds for query in samples.random_queries(kind, 40)]
        alone = filled.search(requests)
        with ThreadPoolExecutor(READERS) as pool:
            together = list(pool.map(lambda request: filled.search([request])[0], requests))
        assert together == alone


def _generation(number: int) -> list[Item]:
    """Documents that have the same score for the common query. Each generation has another score."""
    vector = np.ones(samples.DIMENSIONS)
    vector[0] = 1 + number % 97
    return [
        Item(f"d{i:02}", {"common": number % 97 + 1}, {"common": float(number)}, samples.unit(vector))
        for i in range(DOCUMENTS)
    ]


def _run(write: Callable[[], None], read: Callable[[], int]) -> None:
    with ThreadPoolExecutor(READERS + 1) as pool:
        readers = [pool.submit(read) for _ in range(READERS)]
        writer = pool.submit(write)
        writer.result()
        assert all(reader.result() > 0 for reader in readers)
