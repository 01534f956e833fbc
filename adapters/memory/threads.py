"""A pool of threads for the compiled loops, which release the interpreter lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

WORKERS = os.cpu_count() or 1

_pool: ThreadPoolExecutor | None = None


def run(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks, with the help of the pool.

    The caller runs tasks too, and never waits for a task that has not begun. So calls that run at the same time cannot
    block each other.
    """
    global _pool  # noqa: PLW0603
    waiting = deque(tasks)

    def work() -> None:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            task()

    helpers: list[Future[None]] = []
    if len(tasks) > 1:
        if _pool is None:
            _pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="hybridsearch")
        helpers = [_pool.submit(work) for _ in range(min(WORKERS, len(tasks)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def _forget_pool() -> None:
    """Forget the pool in a forked process, which does not have the threads of its parent. It starts another pool."""
    global _pool  # noqa: PLW0603
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
