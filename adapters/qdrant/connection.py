"""The connection to an embedded Qdrant or to a server: calls of its client, repeated if that can help."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import ssl
import threading
import warnings
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from hybridsearch.adapters import steps
from hybridsearch.adapters.checks import check_open
from hybridsearch.adapters.qdrant.folder import check_folder, damaged
from hybridsearch.adapters.qdrant.place import API_KEY, Place
from hybridsearch.adapters.qdrant.refusals import Refusals, passes
from hybridsearch.errors import BackendError, HybridSearchError, IndexLockedError, InvalidArgumentError
from hybridsearch.forks import after_fork

OLDEST_SERVER = (1, 20)
"""The oldest version that is supported. It is the first that finds substrings."""

ATTEMPTS = {
    **dict.fromkeys(("query_batch_points", "retrieve", "scroll", "count", "get_collection", "collection_exists"), 5),
    **dict.fromkeys(("upsert", "delete"), 12),
}
"""How many times a request is sent while the server is busy or the connection breaks. Repeating these does no harm.

Writing requests are also sent again if no answer came in time, because they name the ids."""

AT_ONCE = 8
"""The largest number of requests that one call of a thread sends at the same time."""

FIRST_WAIT, MAX_WAIT = 0.2, 30.0
"""The longest pause after the first failure, and after any failure, in seconds. It doubles with each failure."""

T = TypeVar("T")


_parents_clients: list[QdrantClient] = []
"""The clients that a forked process has from its parent. They are kept here so that Python does not close them."""


class Call(NamedTuple):
    """One request: the name of a client's method, and its arguments."""

    method: str
    arguments: Mapping[str, Any]


def call(collection: str, method: str, **arguments: Any) -> Call:
    """A request to one collection."""
    return Call(method, {"collection_name": collection, **arguments})


Steps: TypeAlias = steps.Steps[Call, T]
"""A generator that yields calls, receives what the client's methods return, and returns a T."""


class Connection:
    """Takes `Steps` with one Qdrant, and turns its errors into ours. It connects at the first request.

    Args:
        place: Place of the collection.
        api_key: API key. None for the key in the place, else the key in the environment.
        verify: Whether the server's certificate is checked.
        ca_file: Certificate of the authority that signed the server's certificate. None for the default authorities.
        timeout: Seconds to wait for the answer to one request.
    """

    def __init__(
        self, place: Place, *, api_key: str | None, verify: bool, ca_file: str | Path | None, timeout: float
    ) -> None:
        self.place = place
        self.embedded = place.url is None
        self.version = ""
        self._key = _checked_key(api_key or place.key or (None if self.embedded else os.environ.get(API_KEY)))
        self._verify, self._ca_file = verify, ca_file
        self._refusals = Refusals(place, self._key, timeout)
        self._engine: _Embedded | None = None
        self._client: QdrantClient | None = None
        self._clients: steps.LoopClients[AsyncQdrantClient] = steps.LoopClients(
            lambda: AsyncQdrantClient(**self._arguments()), lambda client: client.close()
        )
        self._lock = threading.Lock()
        self._forked = self._closed = False
        after_fork(self, Connection._leave)

    def exists(self) -> bool:
        """Whether there may be an index at this place. No folder is made."""
        return self.place.folder is None or (self.place.folder / "meta.json").exists()

    def run(self, work: Steps[T]) -> T:
        """Take all steps of `work`."""
        client = self._connected()

        def ask(call: Call) -> Any:
            if self._engine is not None and call.method == "delete_collection":
                self._engine.close_collection(call.arguments["collection_name"])
            return steps.run(self._attempts(call), lambda one: getattr(client, one.method)(**one.arguments))

        def ask_embedded(call: Call) -> Any:
            with self._translating(), _one_commit(client, call):
                return ask(call)

        if self._engine is None:
            return steps.run(work, ask, at_once=AT_ONCE)
        with self._engine.lock:
            return steps.run(work, ask_embedded)

    async def arun(self, work: Steps[T]) -> T:
        """Take all steps of `work` with the asynchronous client of this event loop. Cancelling frees the connection."""
        if self.embedded:
            return await asyncio.to_thread(self.run, work)
        check_open(self._closed)
        with self._translating():
            client = await self._clients.get()

        def send(call: Call) -> Awaitable[Any]:
            return cast(Awaitable[Any], getattr(client, call.method)(**call.arguments))

        return await steps.arun(work, lambda call: steps.arun(self._attempts(call), send))

    def close(self) -> None:
        """Close the connection for good. Each event loop closes its asynchronous client itself."""
        with self._lock:
            self._closed = True
            engine, client = self._engine, self._client
            self._engine = self._client = None
        if self._forked:
            return
        if engine is not None:
            engine.release()
        elif client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connection and the asynchronous client of this event loop."""
        await self._clients.close()
        self.close()

    def _attempts(self, call: Call) -> Steps[Any]:
        """Make the call, and repeat it while it may succeed a moment later."""
        failures = 0
        while True:
            try:
                return (yield call)
            except Exception as error:
                failures += 1
                yield self._pause(error, call, failures)

    def _leave(self) -> None:
        """Do not use the parent's connections or the folder of its embedded engine in a forked process."""
        self._lock = threading.Lock()
        if self._engine is not None:
            self._forked = self._engine.folder is not None
        elif self._client is not None:
            _parents_clients.append(self._client)
            self._client = None

    def _connected(self) -> QdrantClient:
        if self._forked:
            raise IndexLockedError(
                f"The parent of this process uses the embedded Qdrant in {self.place.shown}: use it in one process "
                "only, or run a Qdrant server."
            )
        with self._lock:
            check_open(self._closed)
            if self._client is None:
                with self._translating():
                    if self.embedded:
                        self._engine = _Embedded.acquire(self.place)
                        self._client = self._engine.client
                    else:
                        self._client = QdrantClient(**self._arguments())
                        self._check_version(self._client)
            return self._client

    def _arguments(self) -> dict[str, Any]:
        verify: bool | ssl.SSLContext = self._verify
        if self._ca_file is not None and verify:
            try:
                verify = ssl.create_default_context(cafile=str(self._ca_file))
            except (OSError, ValueError) as error:
                raise InvalidArgumentError(
                    f"The certificates in ca_file={str(self._ca_file)!r} cannot be read ({error}): give a PEM file "
                    "with the authority's certificate."
                ) from error
        return {
            "url": self.place.url,
            "api_key": self._key,
            "timeout": self._refusals.timeout,
            "check_compatibility": False,
            **({"verify": verify} if str(self.place.url).startswith("https") else {}),
        }

    def _check_version(self, client: QdrantClient) -> None:
        try:
            version = client.info().version
            if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_SERVER:
                raise BackendError(
                    f"The Qdrant server at {self.place.shown} is version {version}, but hybridsearch needs "
                    f"{'.'.join(map(str, OLDEST_SERVER))} or newer: upgrade the server."
                )
        except Exception:
            self._client = None
            client.close()
            raise
        self.version = version

    def _pause(self, error: Exception, call: Call, failures: int) -> steps.Pause:
        """The time to wait before `call` is sent again. Raises the error if it is not sent again."""
        more = not self.embedded and failures < ATTEMPTS.get(call.method, 1)
        if not more or not passes(error, writes=call.method in ("upsert", "delete")):
            with self._translating():
                raise error
        asked = float(error.retry_after_s) if isinstance(error, ResourceExhaustedResponse) else 0.0
        return steps.Pause(min(MAX_WAIT, max(asked, steps.pause(FIRST_WAIT, failures, MAX_WAIT))))

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except HybridSearchError:
            raise
        except Exception as error:
            translated = self._refusals.sentence(error, first=not self.embedded and not self.version)
            if translated is None:
                raise
            raise translated from None if self._key else error  # the cause could show the key


@contextmanager
def _one_commit(client: QdrantClient, call: Call) -> Iterator[None]:
    """Write the changes of `call` to disk once. The embedded engine would do so for every point, in 20 ms each."""
    collections = getattr(client._client, "collections", {})
    storage = getattr(collections.get(call.arguments.get("collection_name")), "storage", None)
    database = getattr(storage, "storage", None)
    if storage is None or not isinstance(database, sqlite3.Connection) or call.method not in ("upsert", "delete"):
        yield
        return
    storage.storage = _WithoutCommits(database)
    try:
        yield
    finally:
        storage.storage = database
        database.commit()


class _WithoutCommits:
    """A database connection that does not commit at the end of a `with` block."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def __enter__(self) -> _WithoutCommits:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Embedded:
    """An embedded engine. Qdrant lets only one client use a folder, so all backends of a folder share one engine."""

    _shared: dict[Path, _Embedded] = {}  # noqa: RUF012 (the registry of the process)
    _registry = threading.Lock()

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.users = 0
        self.lock = threading.RLock()
        warnings.filterwarnings("ignore", r"Local mode is not recommended .*-terms>")  # terms, unlike documents
        arguments = {"location": ":memory:"} if folder is None else {"path": str(folder)}
        if folder is not None:
            check_folder(folder)
        try:
            self.client = QdrantClient(**arguments, force_disable_check_same_thread=True)  # type: ignore[arg-type]
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # a damaged record may raise anything
            if folder is None or "already accessed" in str(error):
                raise
            raise damaged(folder, error) from error

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

    def close_collection(self, name: str) -> None:
        """Close the file of a collection before it is deleted, because the client would leave the file open."""
        collection = getattr(self.client._client, "collections", {}).get(name)
        if collection is not None:
            collection.close()

    def release(self) -> None:
        with self._registry:
            self.users -= 1
            if self.users:
                return
            if self.folder is not None:
                self._shared.pop(self.folder, None)
            with self.lock:
                self.client.close()


def _checked_key(key: str | None) -> str | None:
    """The key without white space around it. Raises InvalidArgumentError, without the key, if no header can hold it."""
    key = str(key or "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise InvalidArgumentError(
            "The API key for Qdrant has a space or a character that is not printable ASCII: give it exactly as the "
            "server has it."
        )
    return key or None
