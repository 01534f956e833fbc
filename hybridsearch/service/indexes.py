"""`ServedIndex` is an index that the service answers from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request

from hybridsearch import opening
from hybridsearch.documents import Document
from hybridsearch.errors import FingerprintMismatchError, IndexNotFoundError, InvalidArgumentError
from hybridsearch.hits import Results
from hybridsearch.messages import redacted
from hybridsearch.places import connected
from hybridsearch.search import HybridSearch
from hybridsearch.service.batching import LARGEST, WAIT, Batcher
from hybridsearch.service.chosen import ChosenFusion
from hybridsearch.service.problems import Refusal

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK = 0.25
"""Seconds between two looks for changes that other processes made to a folder."""

LOOK_AT_SERVER = 2.0
"""Seconds between two looks whether an index on a server was replaced. Its documents are always up to date."""

TURN = 10.0
"""Seconds that a change of a folder waits until another process has ended its change."""

_GRACE = 60.0  # seconds after which an index that was replaced is closed, because requests may still use it
_PAUSES = (0.0, 0.1, 0.3, 0.6)  # seconds before a request is repeated, because an alias is moved
_AGAIN = 5.0  # seconds until the models are loaded again after an error
_QUESTION = "a first question loads the models"


class ServedIndex:
    """An index that the service answers from, under a name.

    Several processes may serve one folder. Each process looks for changes four times a second, and they write in
    turns. If the index is on a server, each process looks every two seconds whether the index was replaced.

    Args:
        name: Name of the index in the addresses of the service.
        place: Place of the index: a folder, or an engine's URL.
        reload: Whether an index that is replaced goes on answering until the models of the new index are loaded. As
            long as nothing is at the place, the old index answers. False follows the place as `HybridSearch.refresh`
            does, and requests fail as long as nothing is there.
        wait: Longest time in seconds that a batch of searches waits for more, as in `Batcher`.
        largest: Largest number of queries in a batch, as in `Batcher`.
        log_queries: Whether the log has the texts of queries, with the ids of their hits.
        **options: The other arguments of `hs.open`.

    Attributes:
        name: Name of the index in the addresses of the service.
        place: Place of the index.
        observe: Function that is called after each batch of searches with the number of its queries and with its
            results. None for no call.
        reloads: Number of times that another index has taken the place of this one.
        chosen: Fusion that people chose in the workbench. None for the fusion of the index.
    """

    def __init__(
        self,
        name: str,
        place: str,
        *,
        reload: bool = False,
        wait: float = WAIT,
        largest: int = LARGEST,
        log_queries: bool = False,
        **options: Any,
    ) -> None:
        self.name = name
        self.place = place
        self.observe: Callable[[int, Sequence[Results]], None] | None = None
        self.reloads = 0
        self.chosen: ChosenFusion | None = None
        self._options = options
        if "://" not in place:
            options["backend_options"] = {"turns": TURN, **(options.get("backend_options") or {})}
        self._reload = reload
        self._log_queries = log_queries
        self._identity = self._look_at_place() if reload else None
        self._search = opening.open(place, **options)
        self._batcher = Batcher(lambda: self.search, wait=wait, largest=largest, observe=self._observe)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="hybridsearch-write")
        self._replaced: list[tuple[float, HybridSearch]] = []
        self._following: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._ready = False

    @property
    def search(self) -> HybridSearch:
        """The search of the index. Read it once for a request, because a reload replaces it."""
        return self._search if self.chosen is None else self.chosen.used_by(self._search)

    @property
    def ready(self) -> bool:
        """Whether a first search was answered, so that the models are loaded.

        It stays so if a search server goes away later. Then every process has lost the server, so a load balancer
        could not choose a better one, and clients are told to try again.
        """
        return self._ready

    async def start(self) -> None:
        """Load the models, and begin to look for changes. Then the index is ready."""
        while not self._ready:
            try:
                await asyncio.to_thread(load_models, self._search)
                self._ready = True
            except Exception as error:
                log.error("The index %r is not ready: %s", self.name, redacted(error))
                await asyncio.sleep(_AGAIN)
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End the changes that have begun, and release the index's files and connections."""
        self._ready = False
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._batcher.close()
        await asyncio.to_thread(self._writer.shutdown)
        for search in (self._search, *(search for _, search in self._replaced)):
            await search.aclose()

    async def search_many(self, queries: Iterable[str], top_k: int = 10, **options: Any) -> list[Results]:
        """Find the best documents for each of several queries, together with the queries of other requests.

        Args:
            queries: Texts of the queries.
            top_k: Number of hits for each query.
            **options: The other arguments of `HybridSearch.search`.

        Returns:
            One `Results` for each query, in the order of `queries`.
        """
        queries = list(queries)
        found = await self._despite_reload(lambda: self._batcher.search_many(queries, top_k, **options))
        self.log_queries(found)
        return found

    async def read(self, work: Callable[[HybridSearch], T]) -> T:
        """Read from the index in a thread.

        Args:
            work: Function that gets the search. It may be called again, if another index takes the place of this one.

        Returns:
            The result of the function.
        """
        return await self._despite_reload(lambda: asyncio.to_thread(work, self.search))

    async def _despite_reload(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the index. If an alias means another index with other retrievers now, ask the new index.

        While an engine removes the old index, it may say for a moment that there is no index.
        """
        for pause in _PAUSES if self._reload else ():
            asked = self._search
            try:
                return await ask()
            except (FingerprintMismatchError, IndexNotFoundError):
                await asyncio.sleep(pause)
                await self._look_again(asked)
        return await ask()

    def log_queries(self, found: Iterable[Results]) -> None:
        """Write the queries of a request, with the ids of their hits, into the log, if the service logs queries.

        Args:
            found: The results of the queries.
        """
        if self._log_queries:
            for results in found:
                fields = {"index": self.name, "query": results.query, "hits": results.ids}
                log.info("query", extra={"fields": fields})

    def log_failures(self, failures: Mapping[str, str]) -> None:
        """Write the reasons why optional retrievers did not answer into the log. Clients are not told them.

        Args:
            failures: Reasons by name of the retriever.
        """
        for name, reason in failures.items():
            log.warning("The retriever %r of the index %r did not answer: %s", name, self.name, redacted(reason))

    async def write(self, change: Callable[[HybridSearch], T]) -> T:
        """Change the index in a thread, after the changes that were asked for before.

        If other processes serve the same folder, a change waits until their changes have ended. A change that has begun
        is completed even if the call is cancelled.

        Args:
            change: Function that gets the search and changes its index.

        Returns:
            The result of the function.

        Raises:
            IndexLockedError: Another process has written to the folder for longer than `TURN` seconds.
            HybridSearchError: The errors of the function.
        """
        loop = asyncio.get_running_loop()
        return await self._despite_reload(lambda: loop.run_in_executor(self._writer, lambda: change(self._search)))

    def _observe(self, size: int, found: Sequence[Results]) -> None:
        self.log_failures(found[0].failures)  # one for all results of a batch
        if self.observe is not None:
            self.observe(size, found)

    # Following the changes of other processes

    async def _follow(self) -> None:
        """Look for changes again and again, in a thread, so that no request waits for it."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_AT_SERVER if "://" in self.place else LOOK)
            try:
                await self._look_again(self._search)
                said = ""
            except Exception as error:
                if said != str(error):  # an engine that is away for an hour is one line in the log
                    said = str(error)
                    log.warning("The index %r could not look for changes: %s", self.name, redacted(said))

    async def _look_again(self, asked: HybridSearch) -> None:
        """Look for changes, unless another index has taken the place of `asked` since."""
        async with self._looking:
            if self._search is not asked:
                return
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        """Read the changes of other processes, or open the index that has taken the place of this one."""
        while self._replaced and time.monotonic() - self._replaced[0][0] > _GRACE:
            self._replaced.pop(0)[1].close()
        if not self._reload:
            self._search.refresh()
            return
        identity = self._look_at_place()
        if identity == self._identity:
            self._search.refresh()
        elif identity is not None:
            fresh = self._open_again()
            try:
                load_models(fresh)
            except BaseException:
                fresh.close()
                raise
            self._replaced.append((time.monotonic(), self._search))
            self._search, self._identity = fresh, identity
            self.reloads += 1
            log.info("The index %r was replaced by another one, which answers now.", self.name)

    def _look_at_place(self) -> object:
        """A value that changes if another index is at the place. None if there is no index now."""
        if "://" in self.place:
            with connected(self.place, self._options.get("backend_options")) as backend, contextlib.closing(backend):
                return backend.open()
        folder = Path(self.place)
        try:
            found = folder.stat()
            (folder / "manifest.json").stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _open_again(self) -> HybridSearch:
        """Open the index at the place, with the models that are loaded already, if it was made with them."""
        given = self._options.get("retrievers") or {}
        loaded = {name: one for name, one in self._search.retrievers.items() if one.schema().kind != "lexical"}
        try:
            return opening.open(self.place, **{**self._options, "retrievers": {**loaded, **given}})
        except (FingerprintMismatchError, InvalidArgumentError):
            return opening.open(self.place, **self._options)


def load_models(search: HybridSearch) -> None:
    """Load the models of all retrievers and of the reranker, so that no request waits for them.

    Args:
        search: The search that uses the models.
    """
    for name, encoder in search.retrievers.items():
        with contextlib.suppress(*((Exception,) if name in search.optional else ())):
            encoder.encode_queries([_QUESTION])
    if search.reranker is not None:
        search.reranker.rerank([_QUESTION], [[Document(_QUESTION, _QUESTION)]])
    search.search(_QUESTION, 1)


async def served_index(index: str, request: Request) -> ServedIndex:
    """The index that an address names. It is a dependency of routes.

    Args:
        index: Name of the index.
        request: The request.

    Returns:
        The index.

    Raises:
        Refusal: There is no index with this name (404).
    """
    indexes: Mapping[str, ServedIndex] = request.app.state.indexes
    found = indexes.get(index)
    if found is None:
        raise Refusal(
            404,
            "unknown-index",
            f"There is no index {index!r:.80}. The indexes are {', '.join(map(repr, indexes)) or 'none'}.",
        )
    return found
