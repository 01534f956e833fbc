"""The log of the service: one JSON object a line, with the id of the request. In a terminal, lines for people.

A line about a request has its route, status and time, and the kind of its problem. It has no query string, no header
and no body, so it has no token. Queries are logged only if `log_queries` is set.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridsearch.messages import redacted, visible
from hybridsearch.service.metrics import Metrics

log = logging.getLogger("hybridsearch.requests")

_QUIET = ("/health", "/ready", "/metrics")
"""Addresses that are asked all the time. Their requests are logged only if the service refuses them."""

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


class PlainLines(logging.Formatter):
    """Writes a record of the log for people who watch a terminal: the time, the message, and the members.

    >>> record = logging.LogRecord("a", logging.WARNING, "", 1, "Cannot reach %s", ("http://me:key@h",), None)
    >>> record.fields = {"index": "papers"}
    >>> PlainLines().format(record)[9:]
    'warning: Cannot reach http://***@h index=papers'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write one record.

        Args:
            record: The record.

        Returns:
            The line, without a line feed. A traceback follows in more lines.
        """
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = f"{time} {level}{visible(redacted(record.getMessage()) + fields)}"
        if record.exc_info:
            line += "\n" + visible(redacted("".join(traceback.format_exception(*record.exc_info))), lines=True)
        return line


class Observer:
    """An ASGI application that counts and logs the requests of another one.

    Args:
        app: Application that answers the requests.
        metrics: The numbers that are counted.
        routes: Routes of the application. They tell the address of a request that was refused before a route had it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route] = ()) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

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
            seconds = time.perf_counter() - started
            if "route" not in scope:
                self._find_route(scope)
            route, kind = route_of(scope), scope.get("state", {}).get("problem")
            self._metrics.end(route, scope["method"], status, seconds)
            quiet = route in _QUIET and (status < 400 or kind == "not-ready")
            if log.isEnabledFor(logging.INFO) and not quiet:
                index = scope.get("path_params", {}).get("index")
                fields = {
                    "method": scope["method"],
                    "route": route,
                    **({"index": index} if index else {}),
                    "status": status,
                    **({"problem": kind} if kind else {}),
                    "seconds": round(seconds, 6),
                }
                log.info("request", extra={"fields": fields})
            _scope.reset(token)

    def _find_route(self, scope: Scope) -> None:
        """Add the route to the scope of a request that was refused before a route had it, if there is a route."""
        matches = [(*route.matches(scope), route) for route in self._routes]
        match, child, route = max(matches, key=lambda one: one[0].value, default=(Match.NONE, {}, None))
        if match is not Match.NONE:
            scope.update(route=route, path_params=child["path_params"])


def route_of(scope: Scope) -> str:
    """The address of a request as it is declared, such as `/v1/{index}/search`. "unknown" if there is no such address.

    Args:
        scope: The scope of the request, after the application has answered it.
    """
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or "unknown"


def configure(stream: TextIO | None = None) -> None:
    """Write the log of this process: as lines for people if the stream is a terminal, else as JSON lines.

    Records of hybridsearch are written from the level INFO on, and those of other packages from WARNING on.

    Args:
        stream: Where to write. None for stderr.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainLines() if stream.isatty() else JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("hybridsearch").setLevel(logging.INFO)
    logging.captureWarnings(True)
