"""Changes that no interrupt cuts in half.

Python runs signal handlers in the main thread, between any two of its steps, and what they raise, such as
KeyboardInterrupt, may therefore come out of any line. While a change is made, signals are noted, and handled after it.

To make the change in another thread instead would not do: an interrupt in the midst of an import can leave Python's
import lock taken, with which only the main thread goes on.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def whole(change: Callable[P, T]) -> Callable[P, T]:
    """`change`, which an interrupt finds either not begun or done.

    One that takes long asks `interrupted` where it can stop.

    >>> whole(sum)([1, 2])
    3
    """

    @functools.wraps(change)
    def changed(*arguments: P.args, **keywords: P.kwargs) -> T:
        if threading.current_thread() is not threading.main_thread():
            return change(*arguments, **keywords)
        with _Deferred():
            return change(*arguments, **keywords)

    return changed


def interrupted() -> bool:
    """Whether a signal waits for the end of the change that the main thread makes."""
    return bool(_waiting)


_waiting: list[tuple[int, FrameType | None]] = []
"""Signals that came since the outermost change began."""


class _Deferred:
    """Notes signals that have a handler in Python, and calls it at the end."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler) and handler is not _note:  # else this is part of another change
                    if not self._handlers:
                        _waiting.clear()
                    self._handlers[number] = handler
                    signal.signal(number, _note)
        except BaseException:
            self._restore()
            raise

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self._handlers:
            waiting = _waiting.copy()
            _waiting.clear()
            for number, frame in waiting:
                self._handlers[number](number, frame)

    def _restore(self) -> None:
        for number in sorted(self._handlers, key=signal.SIGINT.__eq__):  # the interrupt last, as it may come at once
            signal.signal(number, self._handlers[number])


def _note(number: int, frame: FrameType | None) -> None:
    _waiting.append((number, frame))
