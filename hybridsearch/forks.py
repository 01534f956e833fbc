"""What a process does that was made by `fork`: it has its parent's memory, but neither its threads nor its own files.

A lock that another thread of the parent held stays held, a connection is read by both, and a writer's lock belongs to
the parent. Whoever has one of these says here how a new process gets rid of it.
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
    """Call `reset(owner)` in each process that is forked from this one, as long as `owner` lives."""
    key = id(owner)
    _resets[key] = ref(owner, lambda _: _resets.pop(key, None)), reset


class Lock:
    """A `threading.Lock` that nobody holds in a process that was forked while a thread of its parent held it."""

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
