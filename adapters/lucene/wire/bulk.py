"""Sends lines of the bulk API in parallel. What the server could not take yet is sent again."""

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
"""A document's id, and its bytes for the bulk API: an action and, for an index action, the document."""

Send: TypeAlias = Callable[[bytes], tuple[int, bytes]]
"""A function that posts one `_bulk` body. It returns the HTTP status and the body of the answer.

It raises one of the `retryable` types of `BulkSender` if no complete answer came."""

_OVERLOADED = frozenset({429, 502, 503, 504})
_TOO_MUCH_OR_MALFORMED = frozenset({400, 413})  # some document is at fault, and smaller requests find out which
_REFUSED_FOR_ALL = frozenset({401, 403})
_OUTDATED = "version_conflict_engine_exception"
_REASON_CHARACTERS = 500


class BulkSender:
    """Sends lines of the bulk API to one index. Any number of threads may use one sender.

    Every line names its document, so sending it twice does no harm. A line that may not have arrived is sent again. Two
    lines of one document are never sent at the same time, so the later line wins.

    - HTTP 429, 502, 503 and 504, errors that pass (`PASSING`), and errors of the connection: the request is sent again.
      From the second time on it is sent in smaller parts. When a part succeeds, the count of failures starts again.
    - Items that were rejected because of load, under HTTP 200: these items are sent again.
    - HTTP 413 and 400: the request is sent in halves, down to the document that is at fault. After a 413, all later
      requests are smaller.
    - Items that were refused for good, such as a mapping conflict: they are reported after all others were sent.
    - Items that may only replace a version that is no longer there: they are done, because a newer one stays.

    There is a `pause` between two attempts. The header Retry-After is ignored: neither engine sends it, and
    opensearch-py does not show it.

    Args:
        send: Function that posts one body.
        threads: Number of requests that are sent at the same time. Default 3.
        max_bytes: Largest number of bytes of one request. Default 8 MiB. A longer line is sent alone.
        max_documents: Largest number of lines of one request. Default 500.
        retries: Number of failures in a row after which the sender gives up. Default 12.
        first_wait: Longest pause after the first failure, in seconds. Default 0.5.
        max_wait: Longest pause after any failure, in seconds. Default 30.
        retryable: Types of errors that `send` raises if no complete answer came.
        refusal: Function that makes an error from an HTTP status and the `error` or the text of the answer. The type of
            the error must take a message as its only argument. Default None: BackendError.

    Raises:
        InvalidArgumentError: A limit is below 1, or a time is below 0.
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
        """Send all lines. This thread reads them, not faster than the server takes them.

        Args:
            lines: Lines with index and delete actions. At most `threads` + 1 requests of them are in memory.
            progress: Function that this thread calls with the number of lines that were done since the last call.

        Returns:
            The number of documents that were stored or deleted. A delete whose answer was lost does not count, because
            it finds nothing when it is repeated.

        Raises:
            BulkIndexError: Some documents were refused. All others are stored.
            HybridSearchError: The server takes no more documents. The message tells how many were stored before.
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
                stop.set()  # ends the pauses of the other threads, because the pool waits for them
        if total.error is not None:
            raise _given_up(total.error, total)
        if total.refused:
            raise BulkIndexError(total.refused)
        return total.stored

    def _requests(self, lines: Iterable[Line]) -> Iterator[list[Line]]:
        """The lines in requests within the limits. No document is twice in one request."""
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
        """Send one request, in as many parts and as often as needed. Errors are returned, not raised."""
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
        if len(part) > 1 and len(body) > self._max_bytes:  # the limit has shrunk since the request was made
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
            reason = f"a request with only this document ({len(body)} bytes) was refused: {_describe(status, error)}"
            return _Answer(_Outcome(done=1, refused=[(part[0][0], reason)]))
        if not 200 <= status < 300:
            again = (status in _OVERLOADED or _type_of(error) in PASSING) and not _is_block(status, error)
            return _Answer(again=part if again else (), error=self._refusal(status, error))
        items = None if reply is None else reply.get("items")
        if reply is not None and items is None and reply.get("errors") is False:
            return _Answer(_Outcome(len(part), len(part)))  # a filter_path left the items out of the answer
        if not isinstance(items, list) or len(items) != len(part):
            return _Answer(again=part, error=self._refusal(status, error))
        return self._sort_out(part, items)

    def _sort_out(self, part: Sequence[Line], items: Sequence[Mapping[str, Any]]) -> _Answer:
        """Sort the lines of a request that was answered with 200: stored, refused, or to be sent again."""
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
            elif kind == _OUTDATED:
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
    failures: int = 0  # failures in a row before that error

    def add(self, other: _Outcome) -> None:
        self.stored += other.stored
        self.done += other.done
        self.refused += other.refused
        if self.error is None:
            self.error, self.failures = other.error, other.failures


@dataclass(slots=True)
class _Answer:
    """The result of one request.

    Attributes:
        outcome: Outcome of the lines that are done.
        again: Lines to send again.
        error: Why lines must be sent again. If there are no such lines: why no later request would succeed either.
        too_large: Whether the request must be sent in halves. Nothing was done then.
    """

    outcome: _Outcome = field(default_factory=_Outcome)
    again: Sequence[Line] = ()
    error: Exception | None = None
    too_large: bool = False


def _is_block(status: int, error: Any) -> bool:
    """Whether writing is blocked, by an administrator or because the disk is full. Waiting seldom helps then.

    A block with status 503 is different: the cluster is starting or has no master, and the block passes.
    """
    return _type_of(error) == "cluster_block_exception" and status != 503


def _given_up(error: Exception, total: _Outcome) -> Exception:
    """The error with the number of stored documents in its message. An error of another library stays as it is."""
    if not isinstance(error, HybridSearchError):
        return error
    notes = [f"{number_of(len(total.refused), 'was', 'were')} refused"] if total.refused else []
    notes += [f"{number_of(total.failures, 'attempt')} failed in a row"] if total.failures else []
    again = type(error)(
        f"{str(error).rstrip('.')}. {number_of(total.stored, 'document')} of this call "
        f"{'is' if total.stored == 1 else 'are'} stored"
        f"{' (' + ', '.join(notes) + ')' if notes else ''}: remove the cause and run the call again. It stores the "
        "rest, and no document twice."
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
    except orjson.JSONDecodeError:  # the body is empty, or a page of a proxy
        return None
    return reply if isinstance(reply, Mapping) else None


def _describe(status: int, error: Any) -> str:
    return f"HTTP {status}, {_text_of(error)}" if error else f"HTTP {status}"


def _type_of(error: Any) -> Any:
    return error.get("type") if isinstance(error, Mapping) else None


def _text_of(error: Any) -> str:
    """An engine's error as one line: the type, the reason, and the reason of its cause."""
    if not isinstance(error, Mapping):
        return _shortened(str(error))
    cause = error.get("caused_by")
    parts = [error.get("type"), error.get("reason"), cause.get("reason") if isinstance(cause, Mapping) else None]
    return _shortened(": ".join(dict.fromkeys(str(part) for part in parts if part)))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    half = _REASON_CHARACTERS // 2
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:half]}...{text[-half:]}"
