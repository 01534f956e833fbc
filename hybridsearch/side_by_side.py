"""Calls that run side by side, each with a time limit: in threads, or as tasks of an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from hybridsearch.errors import RetrieverTimeoutError

T = TypeVar("T")


def in_threads(calls: Mapping[str, Callable[[], T]], timeouts: Mapping[str, float]) -> dict[str, T | BaseException]:
    """Run `calls` side by side. Returns the result or the error of each call, or an error if it was too slow."""
    answers: dict[str, T | BaseException] = {}

    def run(name: str) -> None:
        try:
            answers[name] = calls[name]()
        except BaseException as error:  # the caller decides whether to raise it
            answers[name] = error

    started = time.perf_counter()
    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in calls}
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        limit = timeouts.get(name)
        thread.join(None if limit is None else max(0.0, started + limit - time.perf_counter()))
    late = {name: too_slow(name, timeouts) for name, thread in threads.items() if thread.is_alive()}
    return {name: late[name] if name in late else answers[name] for name in calls}


async def in_tasks(
    calls: Mapping[str, Callable[[], Awaitable[T]]], timeouts: Mapping[str, float]
) -> dict[str, T | BaseException]:
    """`in_threads` for coroutines. A call that is too slow is cancelled, and all are if the caller is."""

    async def run(name: str) -> T | BaseException:
        try:
            async with asyncio.timeout(timeouts.get(name)) as limit:
                return await calls[name]()
        except Exception as error:
            return too_slow(name, timeouts) if limit.expired() else error

    return dict(zip(calls, await asyncio.gather(*map(run, calls)), strict=True))


async def in_a_thread(call: Callable[[], T]) -> T:
    """`asyncio.to_thread` in a new thread. If the call hangs, no other call waits for it, and the process can exit."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from now on `cancel` does nothing, so that the thread can always answer

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # the waiting task raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


def too_slow(name: str, timeouts: Mapping[str, float]) -> RetrieverTimeoutError:
    """The error of a retriever that took longer than its timeout."""
    return RetrieverTimeoutError(f"Retriever {name!r} took longer than its timeout of {timeouts[name]:g} s.")
