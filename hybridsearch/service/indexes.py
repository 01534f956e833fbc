"""`ServedIndex` is an index that the service answers from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from hybridsearch import opening
from hybridsearch.hits import Results
from hybridsearch.search import HybridSearch
from hybridsearch.service.batching import Batcher

T = TypeVar("T")

LOOK = "1s"
"""Time between two looks for changes that other processes made."""


class ServedIndex:
    """An index that the service answers from, under a name.

    Args:
        name: Name of the index in the addresses of the service.
        place: Place of the index: a folder, or an engine's URL.
        **options: The other arguments of `hs.open`.

    Attributes:
        name: Name of the index in the addresses of the service.
        place: Place of the index.
    """

    def __init__(self, name: str, place: str, **options: Any) -> None:
        self.name = name
        self.place = place
        self._search = opening.open(place, **{"refresh": LOOK, **options})
        self._batcher = Batcher(lambda: self._search)
        self._writer = ThreadPoolExecutor(1, f"write-{name}")
        self._ready = False

    @property
    def search(self) -> HybridSearch:
        """The search of the index. Read it once for a request, because a reload replaces it."""
        return self._search

    @property
    def ready(self) -> bool:
        """Whether the models are loaded, so that the index can answer at once."""
        return self._ready

    async def start(self) -> None:
        """Load the models. Then the index is ready."""
        await asyncio.to_thread(load_models, self._search)
        self._ready = True

    async def stop(self) -> None:
        """Release the index's files and connections."""
        self._ready = False
        self._batcher.close()
        await asyncio.to_thread(self._writer.shutdown)  # a change that has begun ends first
        await self._search.aclose()

    async def search_many(self, queries: Iterable[str], top_k: int = 10, **options: Any) -> list[Results]:
        """Find the best documents for each of several queries, together with the queries of other requests.

        Args:
            queries: Texts of the queries.
            top_k: Number of hits for each query.
            **options: The other arguments of `HybridSearch.search`.

        Returns:
            One `Results` for each query, in the order of `queries`.
        """
        return await self._batcher.search_many(queries, top_k, **options)

    async def write(self, change: Callable[[HybridSearch], T]) -> T:
        """Change the index. Changes are made one after the other.

        If the call is cancelled, a change that has begun is still made. Other changes are left out.

        Args:
            change: Function that gets the search of the index. It runs in a thread.

        Returns:
            What the function returns.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, lambda: change(self._search))


def load_models(search: HybridSearch) -> None:
    """Load the models of all retrievers and of the reranker, so that no request waits for them.

    Args:
        search: The search that uses the models.
    """
    for encoder in search.retrievers.values():
        encoder.encode_queries(["a first question loads the models"])
    search.search("a first question loads the models", 1)


def served_index(index: str, request: Request) -> ServedIndex:
    """The index that an address names. It is a dependency of routes.

    Args:
        index: Name of the index.
        request: The request.

    Returns:
        The index.

    Raises:
        HTTPException: There is no index with this name (404).
    """
    indexes: Mapping[str, ServedIndex] = request.app.state.indexes
    found = indexes.get(index)
    if found is None:
        raise HTTPException(
            404, f"There is no index {index!r:.80}. The indexes are {', '.join(map(repr, indexes)) or 'none'}."
        )
    return found
