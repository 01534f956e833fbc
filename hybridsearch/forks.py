"""Resets objects in a forked process, which has the memory of its parent, but not the parent's threads.

A lock would stay held if a thread of the parent held it. Both processes would read from one connection. A writer's lock
belongs to the parent. An object with one of these registers a function here that resets it in the new process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ref

T = TypeVar("T")

_resets: dict[int, tuple[ref[Any], Callable[[Any], None]]] = {}


def after_fork(owner: T, reset: Callable[[T], None]) -> None:
    """Call `reset(owner)` in each process that is forked from this process, as long as `owner` exists."""
    key = id(owner)
    _resets[key] = ref(owner, lambda _: _resets.pop(key, None)), reset


class Lock:
    """A `threading.Lock` that is free in a forked process, even if a thread of the parent held it."""

    def __init__(self) -> None:
        self._renew()
        after_fork(self, Lock._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _run() -> None:
    for owner, reset in list(_resets.values()):
        alive = owner()
        if alive is not None:
            reset(alive)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
