"""Tests of steps in threads and in event loops: the answers are the same, and no error is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from hybridsearch.adapters.steps import LoopClients, Pause, Steps, arun, pause, run, through

Take = Callable[[Steps[str, Any]], Any]


def answer(call: str) -> str:
    if call.startswith("bad"):
        raise LookupError(call)
    return call.upper()


async def aanswer(call: str) -> str:
    await asyncio.sleep(0)
    return answer(call)


def ask(call: Any) -> Steps[str, Any]:
    return (yield call)


in_every_way = pytest.mark.parametrize(
    "take",
    [
        lambda work: run(work, answer),
        lambda work: run(work, answer, at_once=3),
        lambda work: asyncio.run(arun(work, aanswer)),
        lambda work: run(through(work, ask), answer),
    ],
    ids=["here", "threads", "loop", "through"],
)


@in_every_way
def test_each_call_is_answered_and_a_list_by_a_list(take: Take) -> None:
    def work() -> Steps[str, Any]:
        one = yield "a"
        yield Pause(0.0)
        return [one, *(yield ["b", "c", "d"])]

    assert take(work()) == ["A", "B", "C", "D"]


@in_every_way
def test_a_step_may_catch_the_error_of_its_call_and_go_on(take: Take) -> None:
    def work() -> Steps[str, Any]:
        try:
            yield "bad"
        except LookupError as error:
            return [str(error), (yield "a")]

    assert take(work()) == ["bad", "A"]


@in_every_way
def test_an_error_that_no_step_catches_ends_the_work_after_its_finally_blocks(take: Take) -> None:
    ended = []

    def work() -> Steps[str, Any]:
        try:
            yield "bad"
        finally:
            ended.append((yield "last"))

    with pytest.raises(LookupError, match="bad"):
        take(work())
    assert ended == ["LAST"]


@in_every_way
def test_of_the_calls_of_a_list_the_first_error_is_raised_and_names_the_others(take: Take) -> None:
    def work() -> Steps[str, Any]:
        yield ["a", "bad 1", "b", "bad 2"]

    with pytest.raises(LookupError, match="bad 1") as caught:
        take(work())
    assert caught.value.__notes__ == ["Another call failed too: bad 2"]


def test_cancelling_ends_the_work_and_its_call() -> None:
    seen = []

    async def wait(call: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(f"{call} cancelled")

    def work() -> Steps[str, Any]:
        try:
            yield ["a"]
        finally:
            seen.append("ended")

    async def main() -> None:
        async with asyncio.timeout(0.05):
            await arun(work(), wait)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert seen == ["a cancelled", "ended"]


def test_a_pause_is_waited_for() -> None:
    def work() -> Steps[str, float]:
        started = time.perf_counter()
        yield Pause(0.05)
        return time.perf_counter() - started

    assert run(work(), answer) >= 0.05
    assert asyncio.run(arun(work(), aanswer)) >= 0.04


def test_pauses_grow_up_to_the_longest() -> None:
    longest = [max(pause(1.0, failures, 5.0) for _ in range(300)) for failures in (1, 2, 3, 4, 1000)]
    assert all(0.8 * limit < most <= limit for most, limit in zip(longest, [1, 2, 4, 5, 5], strict=True))


def test_an_event_loop_has_one_client_that_is_closed_at_its_end() -> None:
    made: list[object] = []
    closed: list[object] = []

    async def close(client: object) -> None:
        closed.append(client)

    clients = LoopClients(lambda: made.append(object()) or made[-1], close)  # type: ignore[func-returns-value]

    async def main() -> None:
        assert await clients.get() is await clients.get()

    asyncio.run(main())
    asyncio.run(main())
    assert len(made) == 2
    assert closed == made
