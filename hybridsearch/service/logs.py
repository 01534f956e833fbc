"""The log of the service: one JSON object a line, with the id of the request.

A line about a request has its route, status and time. It has no query string, no header and no body, so it has no
token. Queries are logged only if `log_queries` is set.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridsearch.messages import redacted
from hybridsearch.service.metrics import Metrics

log = logging.getLogger("hybridsearch.requests")

_QUIET = ("/health", "/ready", "/metrics")
"""Addresses that are asked all the time. Their requests are logged only if they fail."""

_scope: ContextVar[Scope | None] = ContextVar("scope", default=None)


class JsonLines(logging.Formatter):
    """Writes a record of the log as one JSON object.

    A record may have more members: `log.info("request", extra={"fields": {"status": 200}})`. Passwords in messages and
    tracebacks are left out.

    >>> record = logging.LogRecord("hybridsearch", logging.INFO, "", 1, "Cannot reach %s", ("http://me:key@h",), None)
    >>> orjson.loads(JsonLines().format(record))["message"]
    'Cannot reach http://***@h'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write one record.

        Args:
            record: The record.

        Returns:
            The line, without a line feed.
        """
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        if (scope := _scope.get()) is not None:
            line["request_id"] = scope.get("state", {}).get("request_id")
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = redacted("".join(traceback.format_exception(*record.exc_info)))
        return orjson.dumps(line, default=str).decode()


class Observer:
    """An ASGI application that counts and logs the requests of another one.

    Args:
        app: Application that answers the requests.
        metrics: The numbers that are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # the client went away before an answer

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = _scope.set(scope)
        self._metrics.begin()
        started = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            seconds, route = time.perf_counter() - started, route_of(scope)
            self._metrics.end(route, scope["method"], status, seconds)
            if log.isEnabledFor(logging.INFO) and (status >= 400 or route not in _QUIET):
                fields = {
                    "method": scope["method"],
                    "route": route,
                    **({"index": index} if (index := scope.get("path_params", {}).get("index")) else {}),
                    "status": status,
                    "seconds": round(seconds, 6),
                }
                log.info("request", extra={"fields": fields})
            _scope.reset(token)


def route_of(scope: Scope) -> str:
    """The address of a request as it is declared, such as `/v1/{index}/search`. "unknown" if there is no such address.

    Args:
        scope: The scope of the request, after the application has answered it.
    """
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or "unknown"


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Write the log of this process as JSON lines.

    Args:
        stream: Where to write. None for stderr.
        level: Least level of the records of hybridsearch. Other packages log warnings and errors.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("hybridsearch").setLevel(level)
    logging.captureWarnings(True)
