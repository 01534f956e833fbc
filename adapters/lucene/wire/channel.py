"""Calls to an engine in steps: the same for threads and event loops, again where the engine was too busy."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

import orjson

from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Transport
from hybridsearch.adapters.lucene.wire.refusals import NoAnswerError, decode, refusal

Json: TypeAlias = Any
T = TypeVar("T")

JSON, LINES, SMILE = "application/json", "application/x-ndjson", "application/smile"

_BUSY = (429, 500, 503)
_BUSY_PAUSES, _PATIENT_PAUSES = 8, 12
_BUSY_WAIT, _PATIENT_WAIT = 0.1, 0.5  # seconds, at most; twice as much each time, up to
_LONGEST_WAIT = 30.0


class Call(NamedTuple):
    """One request to the engine, sent after `pause` seconds."""

    method: str
    path: str
    body: bytes | None = None
    content_type: str = JSON
    pause: float = 0.0


Steps: TypeAlias = Generator[Call, Json, T]
"""Yields calls, is sent what they answered, and returns a T."""


class Channel:
    """Raw requests through the official client, which is made when it is first needed."""

    def __init__(self, address: Address, make: Callable[[], Transport]) -> None:
        self.address = address
        self._make = make
        self._made: Transport | None = None
        self._making = threading.Lock()

    def send(self, call: Call) -> Answer:
        """One attempt; any status."""
        return self._transport().send(*call[:4], timeout=self.address.timeout)

    def call(self, method: str, path: str, body: Json | None = None, *, patient: bool = False) -> Json:
        """The answer to one JSON request.

        A `patient` call is made again where no answer came, for as long as bulk requests are; it may be made twice.
        """
        call = Call(method, path, None if body is None else orjson.dumps(body))
        for pause in _pauses(_PATIENT_PAUSES, _PATIENT_WAIT) if patient else ():
            with contextlib.suppress(NoAnswerError):
                return decode(self.address, self.answer(call))
            time.sleep(pause)
        return decode(self.address, self.answer(call))

    def answer(self, call: Call) -> Answer:
        """Any status, but where the engine was too busy only after several attempts."""
        for pause in (call.pause, *_pauses()):
            time.sleep(pause)
            answer = self.send(call)
            if not self._busy(answer):
                break
        return answer

    async def aanswer(self, call: Call) -> Answer:
        """`answer` in the running event loop."""
        for pause in (call.pause, *_pauses()):
            await asyncio.sleep(pause)
            answer = await self._transport().asend(*call[:4], timeout=self.address.timeout)
            if not self._busy(answer):
                break
        return answer

    def run(self, steps: Steps[T]) -> T:
        """Take all steps. Raises the sentence for the first call that fails."""
        with contextlib.closing(steps):
            try:
                call = next(steps)
                while True:
                    call = steps.send(decode(self.address, self.answer(call)))
            except StopIteration as stop:
                value: T = stop.value
                return value

    async def arun(self, steps: Steps[T]) -> T:
        """`run` in the running event loop."""
        with contextlib.closing(steps):
            try:
                call = next(steps)
                while True:
                    call = steps.send(decode(self.address, await self.aanswer(call)))
            except StopIteration as stop:
                value: T = stop.value
                return value

    def close(self) -> None:
        """Close the connections of threads."""
        if self._made is not None:
            self._made.close()

    async def aclose(self) -> None:
        """Close those of the running event loop."""
        if self._made is not None:
            await self._made.aclose()

    def _transport(self) -> Transport:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _busy(self, answer: Answer) -> bool:
        """Whether the engine may answer the same call a little later."""
        status, body = answer
        return status in _BUSY and isinstance(refusal(self.address, status, body), NoAnswerError)


def _pauses(count: int = _BUSY_PAUSES, first: float = _BUSY_WAIT) -> list[float]:
    """Seconds to wait between attempts ("full jitter": M. Brooker, "Exponential Backoff And Jitter", 2015)."""
    longest = [min(first * 2**attempt, _LONGEST_WAIT) for attempt in range(count)]
    return [random.uniform(0, seconds) for seconds in longest]  # noqa: S311 - no secret
