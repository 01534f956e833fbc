"""Work that is written once and runs in threads as well as in event loops.

The work is a generator of steps. It does no I/O itself: it yields calls. Each `yield` returns the answer of the call or
raises its error. An error that the generator does not catch ends the work, and its `finally` blocks run. Each engine
defines what a call is, and how a thread and an event loop make it.
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
    """A number of seconds to wait. Steps yield it in place of a call."""


Steps: TypeAlias = Generator[C | list[C] | Pause, Any, T]
"""A generator that yields calls of type C, receives their answers, and returns a T.

It may yield a list of calls. They are made at the same time, and the answer is a list. If some of them fail, the first
error is raised after all have ended, with the other errors as notes.
"""


def run(steps: Steps[C, T], ask: Callable[[C], Any], *, at_once: int = 1) -> T:
    """Take all steps in this thread. `ask` makes one call. The calls of a list are made in up to `at_once` threads."""
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
    """Take all steps in the running event loop. Cancelling it cancels the calls that are not answered yet."""
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
    """The same steps, but each of their calls is answered by the steps that `ask` gives."""
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
    """The time to wait after some failures in a row.

    It is random. After one failure it is at most `first` seconds. The maximum doubles with each failure, up to
    `longest` ("full jitter": M. Brooker, "Exponential Backoff And Jitter", 2015).
    """
    return Pause(random.uniform(0, min(first * 2.0 ** min(failures - 1, 60), longest)))  # noqa: S311 - no secret


class LoopClients(Generic[C]):
    """One asynchronous client for each event loop. It is closed when the loop ends, if `close` was not called before.

    `asyncio.run` closes the asynchronous generators of its event loop at the end. So each client lives in a generator.
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
            errors[0].add_note(f"Another call failed too: {other}")
        raise errors[0]
    return answers
