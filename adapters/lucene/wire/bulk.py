"""Sending lines of the bulk API: in parallel, in requests that the server takes, again what it could not take yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from hybridsearch.adapters.lucene.wire.refusals import PASSING
from hybridsearch.adapters.steps import pause
from hybridsearch.arguments import number, whole_number
from hybridsearch.errors import BackendError, BulkIndexError, HybridSearchError
from hybridsearch.messages import number_of

Line: TypeAlias = tuple[str, bytes]
"""A document's id, and what the bulk API reads for it: an action, and for an index action the document."""

Send: TypeAlias = Callable[[bytes], tuple[int, bytes]]
"""Posts one `_bulk` body; HTTP status and body. Raises one of `BulkSender`'s `retryable` types for no whole answer."""

_OVERLOADED = frozenset({429, 502, 503, 504})
_TOO_MUCH_OR_MALFORMED = frozenset({400, 413})  # the fault of some document in the request: smaller requests find it
_REFUSED_FOR_ALL = frozenset({401, 403})
_REASON_CHARACTERS = 500


class BulkSender:
    """Sends lines of the bulk API to one index. Any number of threads may use one sender.

    Every line names its document, so that sending it twice does no harm: whatever is in doubt is sent again. Two lines
    of one document never travel at the same time, so that the later one wins.

    * HTTP 429, 502, 503 and 504, errors that pass (`PASSING`), and errors of the connection: the request again, in
      smaller parts from the second time on; after one part got through, the count of failures begins anew.
    * Items that were rejected for load under HTTP 200: those items again.
    * HTTP 413 and 400: the request in halves, down to the document that is at fault; after a 413 all later requests
      are smaller.
    * Items that were refused for good (a mapping conflict): collected, and reported when all others were sent.

    Between two attempts there is a `pause`. Retry-After is not heeded: neither engine sends it, and opensearch-py does
    not show it.

    Args:
        send: posts one body.
        threads: requests on their way at one time.
        max_bytes, max_documents: of one request. A single longer line travels alone.
        retries: failures in a row after which a request is given up, and the whole call with it.
        first_wait, max_wait: seconds, the limits of the pauses after the first failure and after any.
        retryable: what `send` raises where no whole answer came.
        refusal: the error for an HTTP status and what came with it: the `error` of the answer, or its text. Its type
            takes a message alone.

    Raises:
        InvalidArgumentError: a limit is below 1, or a time below 0.
    """

    def __init__(
        self,
        send: Send,
        *,
        threads: int = 3,
        max_bytes: int = 8 << 20,
        max_documents: int = 500,
        retries: int = 12,
        first_wait: float = 0.5,
        max_wait: float = 30.0,
        retryable: tuple[type[Exception], ...] = (ConnectionError, TimeoutError),
        refusal: Callable[[int, Any], HybridSearchError] | None = None,
    ) -> None:
        for name, count in {"threads": threads, "max_bytes": max_bytes, "max_documents": max_documents}.items():
            whole_number(name, count)
        for name, limit in {"retries": retries, "first_wait": first_wait, "max_wait": max_wait}.items():
            number(name, limit, least=0)
        self._send = send
        self._threads = threads
        self._max_bytes = max_bytes
        self._max_documents = max_documents
        self._retries = retries
        self._first_wait = first_wait
        self._max_wait = max_wait
        self._retryable = retryable
        self._refusal = refusal or _refusal

    def send_all(self, lines: Iterable[Line], progress: Callable[[int], None] | None = None) -> int:
        """Send all lines. They are taken in this thread, and only as fast as the server takes them.

        Args:
            lines: of index and delete actions; at most `threads` + 1 requests of them are in memory.
            progress: called in this thread with the number of lines that were done since the last call.

        Returns:
            How many documents were stored, or were there to be deleted. (A deletion whose answer was lost finds
            nothing when it is repeated.)

        Raises:
            BulkIndexError: some documents were refused; all others are stored.
            HybridSearchError: the server takes nothing any more; the message says how much was stored before.
        """
        total, stop = _Outcome(), threading.Event()
        on_their_way: dict[Future[_Outcome], frozenset[str]] = {}

        def collect() -> None:
            for future in wait(on_their_way, return_when=FIRST_COMPLETED).done:
                ids = on_their_way.pop(future)
                outcome = future.result()
                total.add(outcome)
                if outcome.error is not None:
                    stop.set()
                if progress is not None:
                    progress(len(ids) if outcome.error is None else outcome.done)

        with ThreadPoolExecutor(self._threads, thread_name_prefix="hybridsearch-bulk") as pool:
            try:
                for request in self._requests(lines):
                    ids = frozenset(id for id, _ in request)
                    while len(on_their_way) >= self._threads or not all(
                        ids.isdisjoint(others) for others in on_their_way.values()
                    ):
                        collect()
                    if stop.is_set():
                        break
                    on_their_way[pool.submit(self._deliver, request, stop)] = ids
                while on_their_way:
                    collect()
            finally:
                stop.set()  # ends the pauses of the other threads, of which the pool waits for what is on its way
        if total.error is not None:
            raise _given_up(total.error, total)
        if total.refused:
            raise BulkIndexError(total.refused)
        return total.stored

    def _requests(self, lines: Iterable[Line]) -> Iterator[list[Line]]:
        """Lines of distinct documents, within the limits."""
        request: list[Line] = []
        ids: set[str] = set()
        size = 0
        for line in lines:
            id, content = line
            full = len(request) == self._max_documents or size + len(content) > self._max_bytes
            if request and (full or id in ids):
                yield request
                request, ids, size = [], set(), 0
            request.append(line)
            ids.add(id)
            size += len(content)
        if request:
            yield request

    def _deliver(self, request: Sequence[Line], stop: threading.Event) -> _Outcome:
        """Send one request, in as many parts and as often as needed; never raises."""
        outcome = _Outcome()
        parts = deque([request])
        failures = 0
        try:
            while parts and not stop.is_set():
                part = parts.popleft()
                answer = self._post(part)
                outcome.add(answer.outcome)
                if answer.too_large:
                    parts.extendleft(reversed(_halves(part)))
                    continue
                failures = failures + 1 if len(answer.again) == len(part) else min(len(answer.again), 1)
                if answer.error is not None and (not answer.again or failures > self._retries):
                    outcome.error, outcome.failures = answer.error, failures
                    return outcome
                if not answer.again:
                    continue
                parts.extendleft(reversed(_halves(answer.again) if failures > 1 else [answer.again]))
                stop.wait(pause(self._first_wait, failures, self._max_wait))
        except Exception as error:
            outcome.error = error
        return outcome

    def _post(self, part: Sequence[Line]) -> _Answer:
        body = b"".join([content for _, content in part])
        if len(part) > 1 and len(body) > self._max_bytes:  # which has shrunk since the request was made
            return _Answer(too_large=True)
        try:
            status, content = self._send(body)
        except self._retryable as failure:
            ours = isinstance(failure, HybridSearchError)
            return _Answer(
                again=part, error=failure if ours else BackendError(f"The server did not answer: {failure}.")
            )
        reply = _parse(content)
        error = content.decode("utf-8", "replace") if reply is None else reply.get("error")
        if status in _TOO_MUCH_OR_MALFORMED:
            if status == 413:
                self._max_bytes = min(self._max_bytes, max(len(body) // 2, 1))
            if len(part) > 1:
                return _Answer(too_large=True)
            reason = f"one request with it alone, {len(body)} bytes, was refused with {_describe(status, error)}"
            return _Answer(_Outcome(done=1, refused=[(part[0][0], reason)]))
        if not 200 <= status < 300:
            again = (status in _OVERLOADED or _type_of(error) in PASSING) and not _is_block(status, error)
            return _Answer(again=part if again else (), error=self._refusal(status, error))
        items = None if reply is None else reply.get("items")
        if reply is not None and items is None and reply.get("errors") is False:
            return _Answer(_Outcome(len(part), len(part)))  # the items were left out of the answer by a filter_path
        if not isinstance(items, list) or len(items) != len(part):
            return _Answer(again=part, error=self._refusal(status, error))
        return self._sort_out(part, items)

    def _sort_out(self, part: Sequence[Line], items: Sequence[Mapping[str, Any]]) -> _Answer:
        """What became of each line of a request that was answered with 200."""
        answer = _Answer()
        again = []
        for line, item in zip(part, items, strict=True):
            (result,) = item.values()
            error = result.get("error")
            status = int(result.get("status", 200))
            kind = _type_of(error)
            if error is None and (status < 300 or status == 404):
                answer.outcome.stored += status != 404 and result.get("result") != "not_found"
                answer.outcome.done += 1
            elif status in _REFUSED_FOR_ALL or kind == "index_not_found_exception" or _is_block(status, error):
                return _Answer(answer.outcome, error=self._refusal(status, error))
            elif status in _OVERLOADED or kind in PASSING:
                again.append(line)
                answer.error = answer.error or self._refusal(status, error)
            else:
                answer.outcome.refused.append((line[0], _text_of(error)))
                answer.outcome.done += 1
        answer.again = again
        return answer


@dataclass(slots=True)
class _Outcome:
    stored: int = 0
    done: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None
    failures: int = 0  # in a row, before that error

    def add(self, other: _Outcome) -> None:
        self.stored += other.stored
        self.done += other.done
        self.refused += other.refused
        if self.error is None:
            self.error, self.failures = other.error, other.failures


@dataclass(slots=True)
class _Answer:
    """What became of one request.

    Attributes:
        outcome: of the lines that are done with.
        again: the lines to repeat.
        error: why; without any line to repeat, why nothing that follows would get through either.
        too_large: the request must go in halves; nothing is done.
    """

    outcome: _Outcome = field(default_factory=_Outcome)
    again: Sequence[Line] = ()
    error: Exception | None = None
    too_large: bool = False


def _is_block(status: int, error: Any) -> bool:
    """Whether writing is switched off (by an administrator, or for a full disk), which waiting seldom ends.

    The blocks with status 503 are those of a cluster that is starting or without a master: they pass.
    """
    return _type_of(error) == "cluster_block_exception" and status != 503


def _given_up(error: Exception, total: _Outcome) -> Exception:
    """`error` with how much was stored; what is no error of ours is raised as it came."""
    if not isinstance(error, HybridSearchError):
        return error
    notes = [f"{number_of(len(total.refused), 'was', 'were')} refused"] if total.refused else []
    notes += [f"{number_of(total.failures, 'attempt')} failed in a row"] if total.failures else []
    again = type(error)(
        f"{str(error).rstrip('.')}. {number_of(total.stored, 'document')} of this call "
        f"{'is' if total.stored == 1 else 'are'} stored"
        f"{' (' + ', '.join(notes) + ')' if notes else ''}: when the cause is mended, run it again, which stores the "
        "rest and doubles nothing."
    )
    again.__cause__ = error
    return again


def _refusal(status: int, error: Any) -> HybridSearchError:
    return BackendError(f"The server did not take documents ({_describe(status, error)}).")


def _halves(part: Sequence[Line]) -> list[Sequence[Line]]:
    middle = (len(part) + 1) // 2
    return [half for half in (part[:middle], part[middle:]) if half]


def _parse(content: bytes) -> Mapping[str, Any] | None:
    try:
        reply = orjson.loads(content)
    except orjson.JSONDecodeError:  # a proxy's page, or nothing
        return None
    return reply if isinstance(reply, Mapping) else None


def _describe(status: int, error: Any) -> str:
    return f"HTTP {status}, {_text_of(error)}" if error else f"HTTP {status}"


def _type_of(error: Any) -> Any:
    return error.get("type") if isinstance(error, Mapping) else None


def _text_of(error: Any) -> str:
    """An engine's error as one line: the kind, the reason, and what caused it."""
    if not isinstance(error, Mapping):
        return _shortened(str(error))
    cause = error.get("caused_by")
    parts = [error.get("type"), error.get("reason"), cause.get("reason") if isinstance(cause, Mapping) else None]
    return _shortened(": ".join(dict.fromkeys(str(part) for part in parts if part)))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    half = _REASON_CHARACTERS // 2
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:half]}...{text[-half:]}"
