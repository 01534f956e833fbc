"""Runs the service under uvicorn, in this process or in several workers."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from socket import socket
from typing import Any

from hybridsearch.access import Tokens, listen, url_of_server
from hybridsearch.errors import MissingExtraError
from hybridsearch.service.settings import Settings

try:
    import uvicorn
    from fastapi import FastAPI
    from prometheus_client.multiprocess import mark_process_dead
    from uvicorn.supervisors import Multiprocess

    from hybridsearch.service import logs
    from hybridsearch.service.app import make_app
    from hybridsearch.service.indexes import ServedIndex
    from hybridsearch.service.protocol import Protocol
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve", "The service") from error

log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_HUNG = 60  # seconds after which a worker that does not answer the supervisor is replaced


def run(places: Mapping[str, str], settings: Settings, backend_options: Mapping[str, Any] | None = None) -> None:
    """Serve indexes until the process gets a signal to end. Requests that have begun are finished first.

    With several workers, this process only starts them, and starts another one if one dies.

    Args:
        places: Places of the indexes by name.
        settings: Settings of the service.
        backend_options: Keyword arguments of the backends.

    Raises:
        InvalidArgumentError: The host is not loopback and there are no tokens, or the process cannot listen at the
            address.
        IndexNotFoundError: There is no index at one of the places.
    """
    logs.configure()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads would wait in loops that keep all cores busy
    with listen(settings.host, settings.port, has_tokens=bool(Tokens.from_environment())) as sock:
        make = partial(_make, dict(places), settings, dict(backend_options or {}))
        app = make()  # also with workers, so that a wrong place is an error now
        config = uvicorn.Config(
            app if settings.workers == 1 else make,
            factory=settings.workers > 1,
            workers=settings.workers,
            http=Protocol,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.max_seconds),
            timeout_worker_healthcheck=_HUNG,
        )
        log.info(f"Listening on {url_of_server(settings.host, settings.port)}/. Ctrl-C ends.")
        if settings.workers == 1:
            uvicorn.Server(config).run(sockets=[sock])
        else:
            for served in app.state.indexes.values():
                served.search.close()
            _run_workers(config, sock)


def _make(places: Mapping[str, str], settings: Settings, backend_options: Mapping[str, Any]) -> FastAPI:
    """The application of one process."""
    logs.configure()
    indexes = {
        name: ServedIndex(
            name,
            place,
            reload=settings.reload_index,
            wait=settings.batch_wait / 1000,
            largest=settings.batch_queries,
            log_queries=settings.log_queries,
            backend_options=backend_options,
            precision=settings.precision or None,
            runtime=settings.runtime or None,
        )
        for name, place in places.items()
    }
    return make_app(indexes, settings, Tokens.from_environment())


def _run_workers(config: uvicorn.Config, sock: socket) -> None:
    """Run workers that share the cores and add up their metrics."""
    for variable in _THREADS:
        os.environ.setdefault(variable, str(max(1, (os.cpu_count() or 1) // config.workers)))
    with tempfile.TemporaryDirectory(prefix="hybridsearch-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _Supervisor(config, [sock]).run()


class _Supervisor(Multiprocess):
    """Starts the workers, and starts another one if one dies."""

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died, and forget their requests in flight."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            log.warning("The worker %s has died. Another one takes its place.", pid)
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
