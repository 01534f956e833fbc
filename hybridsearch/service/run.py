"""Runs the service under uvicorn."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from typing import Any

from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.service.settings import Settings

try:
    import uvicorn

    from hybridsearch.service.app import make_app
    from hybridsearch.service.indexes import ServedIndex
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve", "The service") from error

_GRACE = 10  # seconds for requests that have begun when the process is told to end


def run(places: Mapping[str, str], settings: Settings, backend_options: Mapping[str, Any] | None = None) -> None:
    """Serve indexes until the process gets a signal to end.

    Args:
        places: Places of the indexes by name.
        settings: Settings of the service.
        backend_options: Keyword arguments of the backends.

    Raises:
        InvalidArgumentError: The process cannot listen at the address, for example because another program does.
        IndexNotFoundError: There is no index at one of the places.
    """
    if settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise InvalidArgumentError("The service listens on 127.0.0.1 only for now.")
    with _listening(settings.host, settings.port) as sock:
        indexes = {name: ServedIndex(name, place, backend_options=backend_options) for name, place in places.items()}
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"hybridsearch: Listening on http://{shown}:{settings.port}/. Ctrl-C ends.", file=sys.stderr)
        config = uvicorn.Config(
            make_app(indexes, settings), log_level="warning", server_header=False, timeout_graceful_shutdown=_GRACE
        )
        uvicorn.Server(config).run(sockets=[sock])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise InvalidArgumentError(
            f"The server cannot listen on port {port} of {host!r:.80} ({reason}): give another port (--port) or host "
            "(--host)."
        ) from None
