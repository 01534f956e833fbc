"""Protects changes from interrupts.

Python runs signal handlers in the main thread, between any two of its steps. They may raise an error such as
KeyboardInterrupt in any line. So signals are only recorded while a change runs. They are handled after it.

Making the change in another thread would not help. An interrupt during an import can leave Python's import lock taken,
and then only the main thread can go on.
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
    """The same function, but no interrupt leaves it half done.

    A long change calls `interrupted` at points where it can stop.

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
    """Whether a signal waits for the end of the change that the main thread is making."""
    return bool(_waiting)


_waiting: list[tuple[int, FrameType | None]] = []
"""Signals that came since the outermost change began."""


class _Deferred:
    """Records signals that have a handler in Python, and calls the handlers at the end."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler) and handler is not _note:  # with `_note`, this change is part of another change
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
        for number in sorted(self._handlers, key=signal.SIGINT.__eq__):  # SIGINT last, because it may come at once
            signal.signal(number, self._handlers[number])


def _note(number: int, frame: FrameType | None) -> None:
    _waiting.append((number, frame))
