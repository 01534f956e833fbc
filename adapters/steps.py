"""Work in steps, which does no I/O itself, so that one text serves threads and event loops.

Steps are a generator. It yields calls, and each `yield` gives the answer or raises the error, as if the call were made
there: what a step does not catch ends the work, and its `finally` blocks run. An engine says what a call is and how it
is made, once for threads and once for event loops.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")


class Pause(float):
    """Seconds to wait, yielded in place of a call."""


Steps: TypeAlias = Generator[C | list[C] | Pause, Any, T]
"""Yields calls of type C, is sent their answers, and returns a T. The calls of a list are on their way at once: all of
them are waited for, and answered by a list; where some fail, the first of their errors is raised and names the others.
"""


def run(steps: Steps[C, T], ask: Callable[[C], Any], *, at_once: int = 1) -> T:
    """Take all steps in this thread. `ask` makes a call; those of a list are made in up to `at_once` threads."""
    step = partial(next, steps)
    while True:
        try:
            call = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            step = partial(steps.send, _answer(call, ask, at_once))
        except BaseException as error:
            step = partial(steps.throw, error)


async def arun(steps: Steps[C, T], ask: Callable[[C], Awaitable[Any]]) -> T:
    """`run` in the running event loop. Cancelling it cancels the calls that are on their way."""
    step = partial(next, steps)
    while True:
        try:
            call = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            step = partial(steps.send, await _aanswer(call, ask))
        except BaseException as error:
            step = partial(steps.throw, error)


def through(steps: Generator[C, Any, T], ask: Callable[[C], Generator[D, Any, Any]]) -> Generator[D, Any, T]:
    """`steps`, whose calls are answered by other steps."""
    step = partial(next, steps)
    while True:
        try:
            call = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            step = partial(steps.send, (yield from ask(call)))
        except BaseException as error:
            step = partial(steps.throw, error)


def pause(first: float, failures: int, longest: float) -> Pause:
    """How long to wait after so many failures in a row.

    It is random, up to `first` seconds after one failure, up to twice as much after each further one, and never more
    than `longest` ("full jitter": M. Brooker, "Exponential Backoff And Jitter", 2015).
    """
    return Pause(random.uniform(0, min(first * 2.0 ** min(failures - 1, 60), longest)))  # noqa: S311 - no secret


class LoopClients(Generic[C]):
    """One asynchronous client for each event loop, closed when the loop ends if not before.

    An event loop closes its asynchronous generators at its end (`asyncio.run` sees to that): each client lives in one.
    """

    def __init__(self, make: Callable[[], C], close: Callable[[C], Awaitable[object]]) -> None:
        self._make, self._close = make, close
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[C, AsyncGenerator[C]]] = WeakKeyDictionary()

    async def get(self) -> C:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            keeper = self._keep()
            self._clients[loop] = (await anext(keeper), keeper)
        return self._clients[loop][0]

    async def close(self) -> None:
        """Close the client of the running event loop."""
        if found := self._clients.pop(asyncio.get_running_loop(), None):
            await found[1].aclose()

    async def _keep(self) -> AsyncGenerator[C]:
        client = self._make()
        try:
            yield client
        finally:
            await self._close(client)


def _answer(call: C | list[C] | Pause, ask: Callable[[C], Any], at_once: int) -> Any:
    if isinstance(call, Pause):
        return time.sleep(call)
    if not isinstance(call, list):
        return ask(call)

    def outcome(one: C) -> Any:
        try:
            return ask(one)
        except Exception as error:
            return error

    if at_once == 1:
        return _all_of(map(outcome, call))
    with ThreadPoolExecutor(at_once, thread_name_prefix="hybridsearch-steps") as pool:
        return _all_of(pool.map(outcome, call))


async def _aanswer(call: C | list[C] | Pause, ask: Callable[[C], Awaitable[Any]]) -> Any:
    if isinstance(call, Pause):
        return await asyncio.sleep(call)
    if isinstance(call, list):
        return _all_of(await asyncio.gather(*map(ask, call), return_exceptions=True))
    return await ask(call)


def _all_of(outcomes: Iterable[Any]) -> list[Any]:
    answers = list(outcomes)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"Another call failed, too: {other}")
        raise errors[0]
    return answers
