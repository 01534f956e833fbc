"""How Qdrant is reached: embedded in this process or by URL, and what its errors mean for a user."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import sqlite3
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import unquote, urlsplit

import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from hybridsearch.backends import redacted
from hybridsearch.errors import (
    BackendError,
    HybridSearchError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidArgumentError,
    StorageError,
)

API_KEY = "HYBRIDSEARCH_QDRANT_API_KEY"
"""The environment variable with the API key, where neither the argument nor the URL has one."""

OLDEST_SERVER = (1, 20)
"""The first version that finds substrings; from 1.19 on, idf can leave out deleted documents."""

ATTEMPTS = {
    **dict.fromkeys(("query_batch_points", "retrieve", "scroll", "count", "get_collection", "collection_exists"), 5),
    **dict.fromkeys(("upsert", "delete"), 12),
}
"""How often a request is sent while the server is busy or the connection breaks, which does no harm to any of these.
What writes, by ids, is also sent again where no answer came in time."""

AT_ONCE = 8
"""Most requests on the way from one call of a thread."""

FIRST_WAIT, MAX_WAIT = 0.2, 30.0
"""Seconds: the longest pauses after the first failure, which double, and after any."""

T = TypeVar("T")


class Call(NamedTuple):
    """One request: the name of a client's method, and its arguments."""

    method: str
    arguments: Mapping[str, Any]


Steps: TypeAlias = Generator["Call | list[Call]", Any, T]
"""Work that yields its requests and is sent their answers, or thrown their errors, so that one text serves both kinds
of client. A list of requests is on its way at once, and is sent the list of their answers."""


class RefusedError(BackendError):
    """The request itself is at fault: a document in it, its length (`too_large`), or the index that it is for."""

    too_large = False


@dataclass(frozen=True)
class Place:
    """Where a collection is.

    Attributes:
        collection: its name.
        url: of a server, else None.
        folder: of an embedded engine that keeps its data, else None.
        shown: the place for people, without secrets.
        key: the API key that the location had.
    """

    collection: str
    url: str | None
    folder: Path | None
    shown: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, location: str) -> Place:
        """Read `qdrant://:memory:/name`, `qdrant:///a/folder/name`, `qdrant://host:6333/name` or `qdrant+https://...`.

        Raises:
            InvalidArgumentError: it is none of these.

        >>> Place.parse("qdrant+https://:secret@search.example.org:6333/papers").shown
        'qdrant+https://***@search.example.org:6333/papers'
        """
        match = re.fullmatch(r"qdrant(\+https?)?://(.*)/([^/]+)", location, re.DOTALL)
        shown = redacted(location)
        if match is None:
            raise InvalidArgumentError(
                f"{shown!r:.200} names no Qdrant collection: write qdrant://host:6333/name, qdrant://:memory:/name or "
                "qdrant:///a/folder/name."
            )
        name = check_name(unquote(match[3]))
        scheme, middle = match[1], match[2]
        if not scheme and middle == ":memory:":
            return cls(name, None, None, shown)
        if not scheme and not middle.strip("/"):
            raise InvalidArgumentError(
                f"{shown!r:.200} names a folder or a collection only: write qdrant:///a/folder/name for both."
            )
        if not scheme and middle.startswith("/"):
            return cls(name, None, Path(middle), shown)
        url = urlsplit(f"{'https' if scheme == '+https' else 'http'}://{middle}")
        try:
            host, port = url.hostname, url.port or 6333
        except ValueError:
            host, port = None, 0
        if "@" in url.path:
            raise InvalidArgumentError(
                f"The API key in the URL has a '/' as it is, so that the host is not clear: write it as %2F, or give "
                f"the key as {API_KEY}."
            )
        if not host:
            raise InvalidArgumentError(f"{shown!r:.200} names no host: write qdrant://host:6333/name.")
        host = f"[{host}]" if ":" in host else host
        key = unquote(url.password or url.username or "") or None
        return cls(name, f"{url.scheme}://{host}:{port}{url.path.rstrip('/')}", None, shown, key)


def check_name(name: str) -> str:
    """Raises InvalidArgumentError where `name` cannot be that of a collection."""
    if not re.fullmatch(r'[^<>:"/\\|?*\x00-\x1f]{1,240}', name):
        raise InvalidArgumentError(
            f"{name!r:.80} cannot be the name of a Qdrant collection: it has up to 240 characters, no control "
            'characters and none of <>:"/\\|?*.'
        )
    return name


class Connection:
    """Runs `Steps` against one Qdrant, and turns its errors into ours. Connects at the first request.

    Args:
        place: where.
        api_key: overrides the one in the location, which overrides the environment.
        verify, ca_file: whether, and by which certificate authority, a server is checked.
        timeout: seconds for one request.
    """

    def __init__(
        self, place: Place, *, api_key: str | None, verify: bool, ca_file: str | Path | None, timeout: float
    ) -> None:
        self.place = place
        self.embedded = place.url is None
        self.version = ""
        self._key = _checked_key(api_key or place.key or (None if self.embedded else os.environ.get(API_KEY)))
        self._verify, self._ca_file, self._timeout = verify, ca_file, timeout
        self._engine: _Embedded | None = None
        self._client: QdrantClient | None = None
        self._async_clients: dict[asyncio.AbstractEventLoop, AsyncQdrantClient] = {}
        self._lock = threading.Lock()

    def exists(self) -> bool:
        """Whether there can be anything at this place; looking for it makes no folder."""
        return self.place.folder is None or (self.place.folder / "meta.json").exists()

    def run(self, steps: Steps[T]) -> T:
        """Carry out `steps`."""
        client = self._connected()
        if self._engine is None:
            return self._drive(client, steps)
        with self._engine.lock:
            return self._drive(client, steps)

    async def arun(self, steps: Steps[T]) -> T:
        """`run` with the asynchronous client of this event loop; cancelling it frees the connection."""
        if self.embedded:
            return await asyncio.to_thread(self.run, steps)
        client = self._async_connected()
        step: Callable[[], Call | list[Call]] = partial(next, steps)
        while True:
            try:
                call = step()
            except StopIteration as stop:
                return cast(T, stop.value)
            try:
                step = partial(steps.send, await self._aanswer(client, call))
            except HybridSearchError as error:
                step = partial(steps.throw, error)

    def close(self) -> None:
        """Free the connection; asynchronous clients of other event loops are left to these. Idempotent."""
        with self._lock:
            engine, client = self._engine, self._client
            self._engine = self._client = None
        if engine is not None:
            engine.release()
        elif client is not None:
            client.close()

    async def aclose(self) -> None:
        """`close`, and the asynchronous client of this event loop too."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()
        self.close()

    def _drive(self, client: QdrantClient, steps: Steps[T]) -> T:
        step: Callable[[], Call | list[Call]] = partial(next, steps)
        while True:
            try:
                call = step()
            except StopIteration as stop:
                return cast(T, stop.value)
            try:
                step = partial(steps.send, self._answer(client, call))
            except HybridSearchError as error:
                step = partial(steps.throw, error)

    def _answer(self, client: QdrantClient, call: Call | list[Call]) -> Any:
        answer = partial(self._answer, client)
        if isinstance(call, list):
            if self.embedded:
                return list(map(answer, call))
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hybridsearch-qdrant") as pool:
                return list(pool.map(answer, call))
        for attempt in itertools.count():
            try:
                return getattr(client, call.method)(**call.arguments)
            except Exception as error:
                time.sleep(self._pause(error, call, attempt))
        raise AssertionError

    async def _aanswer(self, client: AsyncQdrantClient, call: Call | list[Call]) -> Any:
        if isinstance(call, list):
            return await asyncio.gather(*(self._aanswer(client, one) for one in call))
        for attempt in itertools.count():
            try:
                return await getattr(client, call.method)(**call.arguments)
            except Exception as error:
                await asyncio.sleep(self._pause(error, call, attempt))
        raise AssertionError

    def _connected(self) -> QdrantClient:
        with self._lock:
            if self._client is None:
                with self._translating():
                    if self.embedded:
                        self._engine = _Embedded.acquire(self.place)
                        self._client = self._engine.client
                    else:
                        self._client = QdrantClient(**self._arguments())
                        self._check_version(self._client)
            return self._client

    def _async_connected(self) -> AsyncQdrantClient:
        loop = asyncio.get_running_loop()
        for old in [other for other in self._async_clients if other.is_closed()]:
            self._async_clients.pop(old, None)
        if loop not in self._async_clients:
            with self._translating():
                self._async_clients[loop] = AsyncQdrantClient(**self._arguments())
        return self._async_clients[loop]

    def _arguments(self) -> dict[str, Any]:
        verify: bool | ssl.SSLContext = self._verify
        if self._ca_file is not None and verify:
            try:
                verify = ssl.create_default_context(cafile=str(self._ca_file))
            except OSError as error:
                raise InvalidArgumentError(
                    f"The certificates in ca_file={str(self._ca_file)!r} cannot be read: {error}."
                ) from error
        return {
            "url": self.place.url,
            "api_key": self._key,
            "timeout": self._timeout,
            "check_compatibility": False,
            **({"verify": verify} if str(self.place.url).startswith("https") else {}),
        }

    def _check_version(self, client: QdrantClient) -> None:
        try:
            version = client.info().version
        except Exception:
            self._client = None
            client.close()
            raise
        self.version = version
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_SERVER:
            self._client = None
            client.close()
            raise BackendError(
                f"The Qdrant at {self.place.shown} has version {version}, but hybridsearch needs "
                f"{'.'.join(map(str, OLDEST_SERVER))} or later: upgrade the server."
            )

    def _pause(self, error: Exception, call: Call, attempt: int) -> float:
        """Seconds to wait before `call` is sent again; raises where it is not."""
        again = not self.embedded and attempt + 1 < ATTEMPTS.get(call.method, 1) and _passing(error, call)
        if not again:
            with self._translating():
                raise error
        asked = float(error.retry_after_s) if isinstance(error, ResourceExhaustedResponse) else 0.0
        jittered = random.uniform(0, FIRST_WAIT * 2.0**attempt)  # noqa: S311 (only spreads the load)
        return min(MAX_WAIT, max(asked, jittered))

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except HybridSearchError:
            raise
        except Exception as error:
            translated = self._translate(error)
            if translated is None:
                raise
            raise translated from None if self._key else error  # a cause might show the key

    def _translate(self, error: Exception) -> HybridSearchError | None:
        where = f"Qdrant at {self.place.shown}"
        if not self.embedded and not self.version and _foreign(error):
            return BackendError(
                f"What answers at {self.place.shown} does not speak like Qdrant: check host and port, and the path if "
                "it is behind a proxy."
            )
        if isinstance(error, UnexpectedResponse):
            return self._translate_response(error, where)
        if isinstance(error, ResourceExhaustedResponse):
            return BackendError(f"The {where} is overloaded, and several attempts did not help: try again later.")
        source = error.source if isinstance(error, ResponseHandlingException) else error
        if isinstance(source, httpx.TimeoutException):
            return BackendError(
                f"The {where} did not answer within {self._timeout:g} seconds: raise `timeout`, or lower its load."
            )
        if isinstance(source, httpx.TransportError):
            text = self._safe(str(source))
            if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
                return BackendError(
                    f"The TLS connection to {where} failed ({text}): give `ca_file` for a private certificate "
                    "authority, and qdrant+https:// only for a server with TLS."
                )
            return BackendError(f"The {where} cannot be reached ({text}): is it running, and is the URL right?")
        if isinstance(source, RuntimeError) and "already accessed" in str(source):
            return IndexLockedError(
                f"Another process uses the embedded Qdrant in {self.place.folder}: close it there, or run a server."
            )
        if isinstance(source, RuntimeError) and "closed" in str(source):
            return BackendError("The index was closed: open it again to use it.")
        if isinstance(source, OSError | sqlite3.Error):
            return StorageError(f"The embedded Qdrant in {self.place.folder} cannot be read or written: {source}.")
        if isinstance(source, ValueError | KeyError) and "not found" in str(source):
            return IndexNotFoundError(f"There is no index at {self.place.shown} any more.")
        if isinstance(error, ApiException | ValueError):
            return BackendError(f"The {where} did not understand the request or its answer: {self._safe(str(source))}.")
        return None

    def _translate_response(self, error: UnexpectedResponse, where: str) -> HybridSearchError:
        said = self._safe(_said(error))
        if error.status_code in (401, 403):
            given = "refused the API key" if self._key else "asks for an API key"
            return BackendError(
                f"The {where} {given} ({said}): give `api_key` or set {API_KEY}; to write, a key needs write access."
            )
        if error.status_code == 404:
            return IndexNotFoundError(f"There is no index at {self.place.shown} ({said}).")
        if error.status_code == 409:
            return IndexExistsError(f"There is an index at {self.place.shown} already.")
        if re.search(r"no space|disk|read.?only", said, re.IGNORECASE):
            return StorageError(f"The {where} cannot write: {said}.")
        refused = RefusedError if error.status_code in _AT_FAULT else BackendError
        translated = refused(f"The {where} refused the request with status {error.status_code}: {said}.")
        if isinstance(translated, RefusedError):
            translated.too_large = error.status_code == 413 or "larger than allowed" in said
        return translated

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Embedded:
    """One engine in this process. Qdrant lets one client use a folder, so all backends of a folder share it."""

    _shared: dict[Path, _Embedded] = {}  # noqa: RUF012 (the registry of the process)
    _registry = threading.Lock()

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.users = 0
        self.lock = threading.RLock()
        warnings.filterwarnings("ignore", r"Local mode is not recommended .*-terms>")  # of documents, not of terms
        arguments = {"location": ":memory:"} if folder is None else {"path": str(folder)}
        self.client = QdrantClient(**arguments, force_disable_check_same_thread=True)  # type: ignore[arg-type]

    @classmethod
    def acquire(cls, place: Place) -> _Embedded:
        folder = None if place.folder is None else place.folder.resolve()
        with cls._registry:
            engine = cls._shared.get(folder) if folder is not None else None
            if engine is None:
                engine = cls(folder)
                if folder is not None:
                    cls._shared[folder] = engine
            engine.users += 1
            return engine

    def release(self) -> None:
        with self._registry:
            self.users -= 1
            if self.users:
                return
            if self.folder is not None:
                self._shared.pop(self.folder, None)
            with self.lock:
                self.client.close()


_AT_FAULT = frozenset({400, 413, 422})


def _passing(error: Exception, call: Call) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (429, 502, 503, 504)
    if isinstance(error, ResponseHandlingException):
        late = isinstance(error.source, httpx.TimeoutException)
        return isinstance(error.source, httpx.TransportError) and (not late or call.method in ("upsert", "delete"))
    return isinstance(error, ResourceExhaustedResponse)


def _checked_key(key: str | None) -> str | None:
    """Without the newline that a file ends with; what no HTTP header can hold is refused, unseen."""
    key = str(key or "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise InvalidArgumentError("The API key for Qdrant has a character that is not printable ASCII, or a space.")
    return key or None


def _foreign(error: Exception) -> bool:
    """Whether this answer to the first request, for the version, is none of Qdrant's."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (400, 404, 405)
    return isinstance(error, ValueError) or (
        isinstance(error, ResponseHandlingException) and isinstance(error.source, ValueError)
    )


def _said(error: UnexpectedResponse) -> str:
    """The server's own words."""
    try:
        data = json.loads(error.content)
        return str(data["status"]["error"]).rstrip(".")[:500]
    except (ValueError, KeyError, TypeError):
        return (error.content.decode("utf-8", "replace").strip() or error.reason_phrase)[:200]
