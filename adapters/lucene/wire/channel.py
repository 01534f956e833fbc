"""Calls to an engine over HTTP. They are repeated if the engine was too busy."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import orjson

from hybridsearch.adapters import steps
from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Json, Transport
from hybridsearch.adapters.lucene.wire.refusals import NoAnswerError, decode, refusal
from hybridsearch.forks import after_fork

T = TypeVar("T")

JSON, LINES, SMILE = "application/json", "application/x-ndjson", "application/smile"

_BUSY = (429, 500, 503)
_BUSY_PAUSES, _PATIENT_PAUSES = 8, 12
_BUSY_WAIT, _PATIENT_WAIT, _LONGEST_WAIT = 0.1, 0.5, 30.0  # seconds


_parents_connections: list[Transport | None] = []
"""The connections that a forked process has from its parent. They are kept here so that Python does not close them."""


class Call(NamedTuple):
    """One request to the engine."""

    method: str
    path: str
    body: bytes | None = None
    content_type: str = JSON


Steps: TypeAlias = steps.Steps[Call, T]
"""A generator that yields calls, receives their answers as JSON, and returns a T."""


class Channel:
    """Raw requests through the official client. The client is made when it is first needed."""

    def __init__(self, address: Address, make: Callable[[], Transport]) -> None:
        self.address = address
        self._make = make
        self._made: Transport | None = None
        self._making = threading.Lock()
        after_fork(self, Channel._leave_connections)

    def send(self, call: Call) -> Answer:
        """Make a call once. Returns any status."""
        return self._transport().send(*call, timeout=self.address.timeout)

    async def asend(self, call: Call) -> Answer:
        """Make a call once, in the running event loop."""
        return await self._transport().asend(*call, timeout=self.address.timeout)

    def call(self, method: str, path: str, body: Json | None = None, *, patient: bool = False) -> Json:
        """The answer to one JSON request.

        A `patient` call is repeated if no answer came, for as long as bulk requests are. So it may be made twice.
        """
        call = Call(method, path, None if body is None else orjson.dumps(body))
        for failures in range(1, _PATIENT_PAUSES + 1 if patient else 1):
            with contextlib.suppress(NoAnswerError):
                return decode(self.address, self.answer(call))
            time.sleep(steps.pause(_PATIENT_WAIT, failures, _LONGEST_WAIT))
        return decode(self.address, self.answer(call))

    def answer(self, call: Call) -> Answer:
        """The answer to a call, of any status. While the engine is too busy, the call is repeated several times."""
        return steps.run(self._attempts(call), self.send)

    def run(self, work: Steps[T]) -> T:
        """Take all steps of `work`. A refused call raises its error at the step that made it."""
        return steps.run(work, lambda call: decode(self.address, self.answer(call)))

    async def arun(self, work: Steps[T]) -> T:
        """Take all steps of `work` in the running event loop."""

        async def ask(call: Call) -> Json:
            return decode(self.address, await steps.arun(self._attempts(call), self.asend))

        return await steps.arun(work, ask)

    def close(self) -> None:
        """Close the connections of threads."""
        if self._made is not None:
            self._made.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        if self._made is not None:
            await self._made.aclose()

    def _leave_connections(self) -> None:
        """Do not use the parent's connections in a forked process, because their answers are for the parent."""
        _parents_connections.append(self._made)
        self._made, self._making = None, threading.Lock()

    def _transport(self) -> Transport:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _attempts(self, call: Call) -> Steps[Answer]:
        """Make the call, and repeat it several times while the engine is too busy."""
        for failures in range(1, _BUSY_PAUSES + 1):
            answer: Answer = yield call
            if answer[0] not in _BUSY or not isinstance(refusal(self.address, *answer), NoAnswerError):
                return answer
            yield steps.pause(_BUSY_WAIT, failures, _LONGEST_WAIT)
        last: Answer = yield call
        return last
