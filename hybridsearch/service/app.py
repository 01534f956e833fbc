"""`make_app` makes the service from indexes and settings."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from hybridsearch.access import Tokens
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.service import judging_routes, problems, programs, workbench
from hybridsearch.service.answers import State
from hybridsearch.service.bodies import answer
from hybridsearch.service.chosen import IN_USE, ChosenFusion, folder_of
from hybridsearch.service.guard import Guard
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.logs import Observer
from hybridsearch.service.metrics import MEDIA_TYPE, Metrics
from hybridsearch.service.openapi import describe, returns
from hybridsearch.service.problems import Problem
from hybridsearch.service.routes import make_router
from hybridsearch.service.settings import Settings

_log = logging.getLogger(__name__)


def make_app(
    indexes: Mapping[str, ServedIndex], settings: Settings | None = None, tokens: Tokens | None = None
) -> FastAPI:
    """Make the service for some indexes, as an ASGI application.

    Args:
        indexes: The indexes by name. The service closes them when it ends.
        settings: Settings of the service. None for the defaults.
        tokens: Tokens that clients must send one of. None for no tokens.

    Returns:
        The application.

    Raises:
        InvalidArgumentError: The settings name a file of queries that cannot be read, or need other settings.
        ModelNotFoundError: The settings name a model that is not there.
    """
    settings = settings or Settings()
    app = FastAPI(title="hybridsearch", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan)
    app.state.indexes = dict(indexes)
    app.state.settings = settings
    app.state.judge = programs.read_judge(settings)
    app.state.query_sets = workbench.read_query_sets(settings.queries)
    if settings.judgements:
        for folder, served in _folders(settings.judgements, indexes).items():
            served.chosen = ChosenFusion(folder / IN_USE)
    metrics = Metrics(app.state.indexes)
    problems.install(app)
    routers = [make_router(settings), workbench.router, judging_routes.router, judging_routes.reports]
    for router in routers:
        app.include_router(router)
    _add_probes(app, metrics)
    describe(app, has_tokens=bool(tokens))
    app.add_middleware(Guard, settings=settings, tokens=tokens or Tokens())
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    app.state.routes = [one for router in (*routers, app.router) for one in router.routes if isinstance(one, APIRoute)]
    app.add_middleware(Observer, metrics=metrics, routes=app.state.routes)
    return app


def _folders(judgements: str, indexes: Mapping[str, ServedIndex]) -> dict[Path, ServedIndex]:
    """The folder of the judgements of each index."""
    found: dict[Path, ServedIndex] = {}
    for name, served in indexes.items():
        folder = folder_of(judgements, name)
        if folder in found:
            raise InvalidArgumentError(
                f"The indexes {found[folder].name!r:.80} and {name!r:.80} would share the folder {str(folder)!r:.200}: "
                "give one of them another name."
            )
        found[folder] = served
    return found


def _add_probes(app: FastAPI, metrics: Metrics) -> None:
    """Add the addresses that programs ask about the state of the service."""

    @app.get("/health", **returns(State))
    async def health() -> Response:
        """Tell that the process answers."""
        return answer({"status": "ok"})

    @app.get("/ready", **returns(State))
    async def ready() -> Response:
        """Tell whether each index has answered a first search, so that its models are loaded."""
        waiting = [name for name, served in app.state.indexes.items() if not served.ready]
        if waiting:
            detail = f"{', '.join(waiting)}: no search was answered yet. The models are loading, or the log says why."
            return Problem(503, "not-ready", detail, {"Retry-After": "1"})
        return answer({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def numbers() -> Response:
        """Numbers about requests and searches, in the text format of Prometheus."""
        return Response(await metrics.render(), media_type=MEDIA_TYPE)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the models while the service answers already, and close the indexes at the end."""
    indexes: list[ServedIndex] = list(app.state.indexes.values())
    names = {"fields": {"indexes": [served.name for served in indexes], "process": os.getpid()}}

    async def load() -> None:
        await asyncio.gather(*(served.start() for served in indexes))
        _log.info("ready", extra=names)
        await asyncio.to_thread(programs.load, app.state.judge)

    loading = asyncio.create_task(load())
    try:
        yield
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        for desk in getattr(app.state, "desks", {}).values():
            desk.jobs.stop()
        for served in indexes:
            await served.stop()
        _log.info("stopped", extra=names)
