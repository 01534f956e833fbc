"""Tests of batching: queries that arrive together get the answers that each would get alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.errors import FilterError, HybridSearchError, RetrieverTimeoutError
from hybridsearch.hits import Results
from hybridsearch.service.batching import Batcher
from hybridsearch.vectors import DenseVectors

WORDS = ["wing", "lift", "heat", "flow", "shock", "jet", "tail", "layer"]


class Counted:
    """A dense encoder that counts words, fails at one word, and can wait."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.gate: threading.Event | None = None
        self.delay = 0.0

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.stack([self._vector(text) for text in texts]), "dot")

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        self.calls.append(len(texts))
        if self.gate is not None:
            self.gate.wait(10)
        time.sleep(self.delay * len(texts))
        if any("poison" in text for text in texts):
            raise ValueError("the model cannot read this")
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> NDArray[np.float32]:
        return np.array([text.split().count(word) + 0.01 * bool(text) for word in WORDS], np.float32)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("counted", {})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=len(WORDS), metric="dot")


def make(**options: Any) -> tuple[hs.HybridSearch, Counted]:
    encoder = Counted()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": encoder}, **options)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(200)]
    search.upsert([hs.Document(f"d{i}", text, metadata={"n": i % 5}) for i, text in enumerate(texts)])
    encoder.calls.clear()
    return search, encoder


@pytest.fixture(scope="module")
def made() -> tuple[hs.HybridSearch, Counted]:
    return make()


def run(search: hs.HybridSearch, use: Callable[[Batcher], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        batcher = Batcher(lambda: search, **options)
        try:
            return await asyncio.wait_for(use(batcher), 20)
        finally:
            batcher.close()

    return asyncio.run(main())


async def held(encoder: Counted, batcher: Batcher) -> asyncio.Task[list[Results]]:
    """A request that is in work until the gate opens."""
    encoder.gate, before = threading.Event(), len(encoder.calls)
    first = asyncio.create_task(batcher.search_many(["wing"]))
    while len(encoder.calls) == before:
        await asyncio.sleep(0.001)
    return first


def shown(results: Results) -> tuple[object, ...]:
    hits = [(hit.id, hit.rank, pytest.approx(hit.score, rel=1e-6), list(hit.retrievers)) for hit in results]
    return results.query, results.notes, results.retrievers, hits


queries = st.lists(
    st.one_of(st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=4).map(" ".join), st.sampled_from(["", " "])),
    min_size=1,
    max_size=3,
)
options = st.fixed_dictionaries(
    {"top_k": st.sampled_from([1, 3, 10])},
    optional={
        "filter": st.sampled_from([None, {"n": 1}, {"n": True}, {"n": {"$gte": 3}}]),
        "fusion": st.sampled_from([None, "rrf", "minmax"]),
        "retrievers": st.sampled_from([None, ("bm25",), ("dense",)]),
        "offset": st.sampled_from([0, 2]),
    },
)


@settings(max_examples=30)
@given(st.lists(st.tuples(queries, options, st.integers(0, 3)), min_size=1, max_size=12), st.sampled_from([2, 5, 64]))
def test_answers_are_those_of_single_searches(
    made: tuple[hs.HybridSearch, Counted], asked: list[tuple[list[str], dict[str, Any], int]], largest: int
) -> None:
    search, _ = made

    async def one(batcher: Batcher, queries: list[str], options: dict[str, Any], late: int) -> list[Results]:
        await asyncio.sleep(late / 1000)
        return await batcher.search_many(queries, **options)

    async def use(batcher: Batcher) -> list[list[Results]]:
        return await asyncio.gather(*(one(batcher, *each) for each in asked))

    answers = run(search, use, largest=largest)
    for (queries, options, _), answer in zip(asked, answers, strict=True):
        alone = [search.search(query, **options) for query in queries]
        assert list(map(shown, answer)) == list(map(shown, alone))


def test_queries_that_arrive_during_a_batch_go_together() -> None:
    search, encoder = make()

    async def use(batcher: Batcher) -> None:
        first = await held(encoder, batcher)
        rest = [asyncio.create_task(batcher.search_many([word])) for word in WORDS]
        other = asyncio.create_task(batcher.search_many(["heat"], 3))
        await asyncio.sleep(0.01)
        encoder.gate.set()
        await asyncio.gather(first, other, *rest)

    run(search, use, threads=1)
    assert encoder.calls == [1, 1, len(WORDS)] or encoder.calls == [1, len(WORDS), 1]


def test_a_batch_has_no_more_queries_than_allowed_and_none_waits_forever() -> None:
    search, encoder = make()

    async def use(batcher: Batcher) -> None:
        first = await held(encoder, batcher)
        rest = [asyncio.create_task(batcher.search_many(["lift", "jet"])) for _ in range(9)]
        big = asyncio.create_task(batcher.search_many(["heat"] * 12))
        await asyncio.sleep(0.01)
        encoder.gate.set()
        await asyncio.gather(first, big, *rest)

    run(search, use, largest=8)
    assert encoder.calls == [1, 8, 8, 2, 12]


def test_a_lone_client_does_not_wait_and_many_wait_for_each_other() -> None:
    search, encoder = make()

    async def use(batcher: Batcher) -> tuple[float, list[int]]:
        started = time.perf_counter()
        for _ in range(20):
            await batcher.search_many(["wing"])
        seconds = time.perf_counter() - started
        encoder.calls.clear()

        async def client() -> None:
            for _ in range(10):
                await batcher.search_many(["wing"])

        await asyncio.gather(*(client() for _ in range(8)))
        return seconds, encoder.calls

    seconds, calls = run(search, use, wait=0.5)
    assert seconds < 20 * 0.5
    assert sum(calls) == 80
    assert calls.count(8) >= 8  # after the first batches, all clients are together


def test_a_bad_query_fails_alone() -> None:
    search, encoder = make()

    async def use(batcher: Batcher) -> list[Any]:
        first = await held(encoder, batcher)
        rest = [batcher.search_many([query]) for query in ("lift", "poison", "jet")]
        gathered = asyncio.gather(first, *rest, return_exceptions=True)
        await asyncio.sleep(0.01)
        encoder.gate.set()
        return await gathered

    _, lift, poison, jet = run(search, use)
    assert isinstance(poison, HybridSearchError)
    assert "the model cannot read this" in str(poison)
    assert lift[0].ids == search.search("lift").ids
    assert jet[0].ids == search.search("jet").ids


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_bad_query_makes_an_optional_retriever_fail_alone(timeout: float | None) -> None:
    search, encoder = make(optional=["dense"], timeout=timeout)

    async def use(batcher: Batcher) -> list[Any]:
        first = await held(encoder, batcher)
        gathered = asyncio.gather(first, *(batcher.search_many([query]) for query in ("lift", "poison", "jet")))
        await asyncio.sleep(0.01)
        encoder.gate.set()
        return await gathered

    _, lift, poison, jet = run(search, use)
    assert [results.degraded for results in (*lift, *poison, *jet)] == [[], ["dense"], []]
    assert [hit.score for hit in lift[0]] == [hit.score for hit in search.search("lift")]


def test_a_retriever_that_fails_for_all_is_not_asked_again_for_each_request() -> None:
    search, encoder = make(optional=["dense"])

    async def use(batcher: Batcher) -> None:
        for _ in range(3):
            found = await asyncio.gather(*(batcher.search_many([f"poison {n}"]) for n in range(8)))
            assert all(results.degraded == ["dense"] for [results] in found)

    run(search, use)
    assert len(encoder.calls) < 2 * 3 + 8 + 1  # one batch was searched again


def test_wrong_options_are_an_error_of_their_requests_only() -> None:
    search, _ = make()

    async def use(batcher: Batcher) -> list[Any]:
        deep: dict[str, Any] = {"n": 1}
        for _ in range(2000):
            deep = {"$not": deep}
        wrong = [batcher.search_many(["lift"], filter={"n": {"$newer": 1}}), batcher.search_many(["lift"], filter=deep)]
        return await asyncio.gather(*wrong, batcher.search_many(["lift"]), return_exceptions=True)

    unknown, deep, good = run(search, use)
    assert isinstance(unknown, FilterError)
    assert isinstance(deep, FilterError)
    assert good[0].ids == search.search("lift").ids


def test_a_cancelled_request_frees_its_place() -> None:
    search, encoder = make()

    async def use(batcher: Batcher) -> None:
        first = await held(encoder, batcher)
        rest = [asyncio.create_task(batcher.search_many([word])) for word in WORDS]
        gone = asyncio.create_task(batcher.search_many(["heat"], 3))
        await asyncio.sleep(0.01)
        for task in [*rest[2:], gone]:
            task.cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(first, *rest[:2])
        assert batcher._groups == {}

    run(search, use, threads=1)
    assert encoder.calls == [1, 2]


def test_other_options_take_turns_with_a_busy_group() -> None:
    search, encoder = make()
    encoder.delay = 0.002
    done: list[str] = []

    async def use(batcher: Batcher) -> None:
        async def busy() -> None:
            while "other" not in done:
                await batcher.search_many(["wing"])

        async def other() -> None:
            await asyncio.sleep(0.05)
            await batcher.search_many(["heat"], 3)
            done.append("other")

        await asyncio.gather(other(), *(busy() for _ in range(16)))

    run(search, use, threads=1, largest=4)
    assert done == ["other"]


def test_batches_shrink_if_a_timeout_ends_them() -> None:
    search, encoder = make(timeout={"dense": 0.1})
    encoder.delay = 0.02  # 16 queries take longer than the timeout

    async def use(batcher: Batcher) -> list[Any]:
        return [
            await asyncio.gather(*(batcher.search_many(["wing"]) for _ in range(16)), return_exceptions=True)
            for _ in range(5)
        ]

    rounds = run(search, use)
    assert not any(isinstance(answer, Exception) for answers in rounds for answer in answers)
    assert max(encoder.calls[:2]) > 4
    assert max(encoder.calls[-4:]) <= 4


def test_a_retriever_that_hangs_is_not_asked_once_more_for_each_request() -> None:
    search, encoder = make(timeout={"dense": 0.1})
    encoder.delay = 1.0

    async def use(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.search_many(["wing"]) for _ in range(16)), return_exceptions=True)

    started = time.perf_counter()
    assert all(isinstance(answer, RetrieverTimeoutError) for answer in run(search, use))
    assert time.perf_counter() - started < 1


def test_the_event_loop_stays_free_during_a_batch() -> None:
    search, encoder = make()
    encoder.delay = 0.2

    async def use(batcher: Batcher) -> int:
        task, turns = asyncio.create_task(batcher.search_many(["wing"])), 0
        while not task.done():
            await asyncio.sleep(0.005)
            turns += 1
        return turns

    assert run(search, use) > 10
