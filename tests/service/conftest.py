"""Fixtures of the service: an index in a folder, and a function that asks the service in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="pip install 'hybridsearch[serve]'")

import httpx

import hybridsearch as hs
from hybridsearch.access import Tokens
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings

DOCUMENTS = [
    hs.Document("manual/alder", "Charge the battery indoors.", "Alder", {"year": 2020, "published": "2020-03-01"}),
    hs.Document("über 1", "Never charge a battery that is frozen.", metadata={"year": 2023}),
    hs.Document("long", "The saddle is high. " * 50 + "The battery is charged.", "Long"),
]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A service may change the log of the whole process. What pytest has set is restored."""
    root, ours = logging.getLogger(), logging.getLogger("hybridsearch")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an index with three documents, which no test changes."""
    folder = tmp_path_factory.mktemp("served") / "papers"
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, folder) as search:
        search.index(DOCUMENTS, show_progress_bar=False)
    return folder


Serving = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, ServedIndex]]]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """A function that serves the index in a folder, under the folder's name, and gives a client and the index."""

    @asynccontextmanager
    async def serve(
        folder: Path, tokens: str = "", optional: Sequence[str] = (), **settings: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, ServedIndex]]:
        served = ServedIndex(folder.name, str(folder), optional=optional)
        app = make_app({folder.name: served}, Settings(**settings), Tokens.parse(tokens))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            yield client, served

    return serve


@pytest.fixture(scope="session")
def ask(papers: Path, serving: Serving) -> Callable[..., httpx.Response]:
    """A function that sends one request to a service of `papers`, and returns the answer."""

    def send(
        method: str, path: str, *, settings: dict[str, Any] | None = None, tokens: str = "", **request: Any
    ) -> httpx.Response:
        async def run() -> httpx.Response:
            async with serving(papers, tokens, **settings or {}) as (client, _):
                return await client.request(method, path, **request)

        return asyncio.run(run())

    return send


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index, which no test changes. `chars` also finds the beginnings of its words. BM25 finds whole words."""
    words = ("alder", "birch", "cedar", "maple", "oaken", "poplar", "rowan", "spruce", "willow", "linden")
    folder = tmp_path_factory.mktemp("judged") / "trees"
    documents = [hs.Document(word, f"The {word} is a tree.\nIt grows.", word.title()) for word in words]
    documents += [hs.Document(f"{word}/2", f"A table of {word}") for word in words]
    documents.append(hs.Document("long", "About an alder tree. " + "It is tall and very old. " * 60 + "The end."))
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, folder) as search:
        search.index(documents, show_progress_bar=False)
    return folder
