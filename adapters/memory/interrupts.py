"""Changes that no interrupt cuts in half.

Python runs signal handlers in the main thread, between any two of its steps. They may raise an error such as
KeyboardInterrupt in any line. While a change is made, signals are noted. They are handled after it.

A change in another thread would not help. An interrupt in an import can leave Python's import lock taken, and then only
the main thread goes on.
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
    """`change`, which no interrupt leaves half done.

    A long change asks `interrupted` at points where it can stop.

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
    """Whether a signal waits for the present change of the main thread to end."""
    return bool(_waiting)


_waiting: list[tuple[int, FrameType | None]] = []
"""Signals that came since the outermost change began."""


class _Deferred:
    """Notes signals that have a handler in Python, and calls the handlers at the end."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler) and handler is not _note:  # `_note` means that this change is part of another one
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
        for number in sorted(self._handlers, key=signal.SIGINT.__eq__):  # the interrupt last: it may come at once
            signal.signal(number, self._handlers[number])


def _note(number: int, frame: FrameType | None) -> None:
    _waiting.append((number, frame))
