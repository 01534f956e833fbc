"""Runs the service under uvicorn."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hybridsearch.access import Tokens, listen, url_of_server
from hybridsearch.errors import MissingExtraError
from hybridsearch.service.settings import Settings

try:
    import uvicorn

    from hybridsearch.service.app import make_app
    from hybridsearch.service.indexes import ServedIndex
    from hybridsearch.service.protocol import Protocol
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
        InvalidArgumentError: The host is not loopback and there are no tokens, or the process cannot listen at the
            address.
        IndexNotFoundError: There is no index at one of the places.
    """
    tokens = Tokens.from_environment()
    with listen(settings.host, settings.port, has_tokens=bool(tokens)) as sock:
        indexes = {name: ServedIndex(name, place, backend_options=backend_options) for name, place in places.items()}
        print(
            f"hybridsearch: Listening on {url_of_server(settings.host, settings.port)}/. Ctrl-C ends.", file=sys.stderr
        )
        config = uvicorn.Config(
            make_app(indexes, settings, tokens),
            http=Protocol,
            ws="none",
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        uvicorn.Server(config).run(sockets=[sock])
