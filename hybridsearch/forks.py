"""What a process does that was made by `fork`: it has its parent's memory, but neither its threads nor its own files.

A lock that another thread of the parent held stays held, a connection is read by both, and a writer's lock belongs to
the parent. Whoever has one of these says here how a new process gets rid of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_resets: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def after_fork(owner: T, reset: Callable[[T], None]) -> None:
    """Call `reset(owner)` in each process that is forked from this one, as long as `owner` lives."""
    _resets[owner] = reset


def _run() -> None:
    for owner, reset in list(_resets.items()):
        reset(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
