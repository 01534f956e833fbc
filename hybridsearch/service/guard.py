"""The checks and limits of every request before it reaches a route, and the headers of every answer."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridsearch.access import Right, Tokens, is_loopback
from hybridsearch.messages import number_of
from hybridsearch.service.bodies import NDJSON, media_type, strict_json
from hybridsearch.service.problems import Problem, Refusal, problem_of
from hybridsearch.service.settings import Settings

PUBLIC = ("/", "/health", "/ready", "/favicon.ico", "/page/", "/report/")
"""Addresses that need no token. An address that ends with "/" stands for all below it, except "/" itself."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer."""

_READING = ("GET", "HEAD", "OPTIONS")
_STREAMED = re.compile(r"/v1/[^/]+/documents")
_MEMBERS = 1000  # of one object in the body of a search
_SMALL = 65_536  # bytes of a body that is read before the request counts as a request in flight
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


def check_may_write(request: Request) -> None:
    """A dependency of routes that write. It refuses clients that may not write.

    Raises:
        Refusal: The client may not write (403).
    """
    if (reason := why_not_write(request)) is not None:
        raise Refusal(403, "read-token" if request.state.right else "read-only", reason)


def why_not_write(request: Request) -> str | None:
    """Why the client may not write, as a sentence. None if it may."""
    if request.state.may_write:
        return None
    if request.state.right:
        return "This token may read, but not write."
    return "This service only reads: start it with --allow-write, or give it a token that may write."


class Guard:
    """An ASGI application that lets only some requests pass to another one.

    It checks the host, the origin, the type of the body and the token. It limits the size of the body, the time, and
    the number of requests in flight. If the client goes away, the work for it is cancelled.

    Args:
        app: Application that gets the requests that pass.
        settings: Settings of the service.
        tokens: Tokens that clients must send one of. If there are none, clients need no token.
    """

    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens) -> None:
        self._app, self._settings, self._tokens = app, settings, tokens
        self._in_flight = 0
        local = ("localhost", "127.0.0.1", "[::1]") if is_loopback(settings.host) else ()
        self._hosts = frozenset((*local, *settings.allow_host)) if local or settings.allow_host else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        given = headers.get("x-request-id", "")
        state["request_id"] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        answer = _Answer(send, scope["path"], state["request_id"])
        try:
            state["right"] = self._right(scope, headers)
            state["may_write"] = state["right"] == "write" or (self._settings.allow_write and not self._tokens)
            await self._limited(scope, headers, receive, answer.send)
        except _Refused as refused:
            await answer.give(refused.response, scope, receive)
        except (_Gone, ClientDisconnect):
            pass
        except Exception as error:
            await answer.give(problem_of(error), scope, receive)

    def _right(self, scope: Scope, headers: Headers) -> Right | None:
        """The right of the client. None if the service has no tokens, or the address needs none."""
        host = headers.get("host", "")
        if self._hosts is not None and re.sub(r":\d*$", "", host).lower() not in self._hosts:
            detail = f"This service is not {host!r:.80}. To let clients use this name, give --allow-host."
            raise _Refused(421, "unknown-host", detail)
        if scope["method"] not in _READING:
            self._check_origin(headers.get("origin"), host)
        if _has_body(headers) and media_type(headers) not in ("application/json", NDJSON):
            detail = "The body has another type: send the header Content-Type: application/json."
            raise _Refused(415, "media-type", detail)
        if not self._tokens or _is_public(scope["path"]):
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        right = self._tokens.right_of(token.strip()) if scheme.lower() == "bearer" else None
        if right is None:
            raise _no_token() if scheme.lower() != "bearer" or not token.strip() else _wrong_token()
        return right

    def _check_origin(self, origin: str | None, host: str) -> None:
        """Refuse a request that a page of another site makes a browser send."""
        if origin is not None and origin not in self._settings.cors and _host_of(origin) != host:
            raise _Refused(
                403, "foreign-page", f"Pages of {origin!r:.80} may not use this service. To allow it, give --cors."
            )

    async def _limited(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Pass a request on, within the limits of size, time and requests in flight."""
        slot = _Slot(self)
        seconds = self._settings.max_seconds
        stores = scope["method"] == "PUT" and scope["path"].startswith("/v1/")
        try:
            if media_type(headers) == NDJSON:
                if not (stores and _STREAMED.fullmatch(scope["path"])):
                    detail = "This address takes JSON: send the header Content-Type: application/json."
                    raise _Refused(415, "media-type", detail)
                slot.take()
                await self._app(scope, _patient(receive, seconds), send)
                return
            async with asyncio.timeout(seconds):
                searches = scope["path"].startswith("/v1/") and not stores
                most = self._settings.max_search_body if searches else self._settings.max_body
                body = await _body(headers, receive, most, slot)
                if scope["path"] not in PUBLIC:
                    slot.take()
                if body:
                    await _check_json(body, _MEMBERS if searches else None)
                await self._until_gone(scope, body, receive, send)
        except TimeoutError:
            detail = f"The request took longer than {seconds:g} s."
            raise _Refused(503, "time-over", detail, {"Retry-After": "1"}) from None
        finally:
            slot.free()

    async def _until_gone(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Pass a request on, and cancel the work if the client goes away."""
        gone = asyncio.ensure_future(_gone(receive))
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await asyncio.shield(gone)

        work = asyncio.ensure_future(self._app(scope, replay, send))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _Gone
            await work
        finally:
            for task in (work, gone):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

    def enter(self) -> None:
        """Count one more request in flight. Too many are refused."""
        if self._in_flight >= self._settings.max_requests:
            detail = "The service has too many requests now. Try again later."
            raise _Refused(429, "too-many-requests", detail, {"Retry-After": "1"})
        self._in_flight += 1

    def leave(self) -> None:
        """Count one request less."""
        self._in_flight -= 1


class _Slot:
    """The place of one request among the requests in flight."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._taken = guard, False

    def take(self) -> None:
        if not self._taken:
            self._guard.enter()
            self._taken = True

    def free(self) -> None:
        if self._taken:
            self._guard.leave()
            self._taken = False


class _Answer:
    """The answer to one request, with the headers of every answer."""

    def __init__(self, send: Send, path: str, request_id: str) -> None:
        self._send, self._request_id, self._started = send, request_id, False
        self._cache = {} if path.startswith("/page/") or path == "/" else {"Cache-Control": "no-store"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers = MutableHeaders(scope=message)
            for name, value in (HEADERS | self._cache | {"X-Request-Id": self._request_id}).items():
                headers.setdefault(name, value)
        await self._send(message)

    async def give(self, response: Response, scope: Scope, receive: Receive) -> None:
        """Give another answer, if none was begun. A broken one ends here, and the server closes the connection."""
        if not self._started:
            await response(scope, receive, self.send)


class _Refused(Exception):  # noqa: N818 - an answer
    """The request is not passed on."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = Problem(status, kind, detail, headers)


def _no_token() -> _Refused:
    detail = "This service needs a token: send the header Authorization: Bearer TOKEN."
    return _Refused(401, "no-token", detail, {"WWW-Authenticate": 'Bearer realm="hybridsearch"'})


def _wrong_token() -> _Refused:
    detail = "The service does not know this token: send another token in the header Authorization: Bearer TOKEN."
    challenge = 'Bearer realm="hybridsearch", error="invalid_token"'
    return _Refused(401, "wrong-token", detail, {"WWW-Authenticate": challenge})


class _Gone(Exception):  # noqa: N818 - needs no answer
    """The client has gone away."""


def _host_of(origin: str) -> str | None:
    """The host and port of an origin. None for a text that is no origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _body(headers: Headers, receive: Receive, most: int, slot: _Slot) -> bytes:
    """The whole body, of at most so many bytes."""
    declared = headers.get("content-length", "")
    parts, size = list[bytes](), int(declared) if declared.isdigit() and len(declared) < 20 else 0
    if size <= most:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                break
            if size > _SMALL:
                slot.take()
            if not message.get("more_body"):
                return b"".join(parts)
    raise _Refused(413, "too-large", f"The body has more than {number_of(most, 'byte')}.")


async def _check_json(body: bytes, members: int | None) -> None:
    """Refuse JSON that readers understand in different ways. FastAPI reads it again, and is not so strict."""
    if len(body) > _SMALL:
        await asyncio.to_thread(strict_json, body, members)
    else:
        strict_json(body, members)


def _patient(receive: Receive, seconds: float) -> Receive:
    """Receive the parts of a streamed body, each of which must come in some seconds."""

    async def next_part() -> Message:
        async with asyncio.timeout(seconds):
            return await receive()

    return next_part


async def _gone(receive: Receive) -> Message:
    """Wait until the client goes away."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_public(path: str) -> bool:
    return any(path == one or (one.endswith("/") and one != "/" and path.startswith(one)) for one in PUBLIC)
