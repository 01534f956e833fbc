"""An HTTP proxy in front of a real server. It makes faults on demand.

    with FaultyProxy(backend.address) as proxy:
        proxy.faults += [status(429), reset_after(0.5)]     # for the next two requests whose path has "_bulk"
        ... requests to proxy.url ...
        assert not proxy.faults

A fault is a function of the `Exchange`. If a fault answers by itself, the server does not see the request.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import smile_reader

from hybridsearch.adapters.lucene.wire.connection import Address

Fault: TypeAlias = Callable[["Exchange"], None]


class Exchange:
    """One request to the proxy. A fault answers it."""

    def __init__(self, handler: BaseHTTPRequestHandler, upstream: Address | None) -> None:
        self._handler = handler
        self._upstream = upstream
        self.command, self.path, self.headers = handler.command, handler.path, handler.headers
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))

    def forward(self, body: bytes | None = None) -> tuple[int, bytes, Mapping[str, str]]:
        """The status, the body and the headers of the server's answer."""
        handler, upstream = self._handler, self._upstream
        assert upstream is not None, "there is no server behind this proxy"
        (host, port), context = upstream.hosts[0], upstream.ssl_context()
        connection = (
            http.client.HTTPConnection(host.strip("[]"), port, timeout=60)
            if context is None
            else http.client.HTTPSConnection(host.strip("[]"), port, timeout=60, context=context)
        )
        try:
            sent = self.body if body is None else body
            kept = {k: v for k, v in handler.headers.items() if k.lower() in ("content-type", "accept")}
            connection.request(handler.command, f"{upstream.prefix}{self.path}", sent, {**kept, **upstream.headers})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int = 0) -> None:
        """Send an answer. If `length` is larger than the body, the client waits for more."""
        handler = self._handler
        handler.send_response(status)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            if name.lower() not in ("content-length", "transfer-encoding", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(max(length, len(body))))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        handler.wfile.flush()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True

    def ended(self) -> bool:
        """Wait until the client closes the connection. Returns False if it sends something."""
        return not self._handler.connection.recv(1)


def passing(exchange: Exchange) -> None:
    """Make no fault: the request goes to the server."""
    exchange.reply(*exchange.forward())


def status(code: int, body: bytes = b"") -> Fault:
    """Answer with an HTTP status, without asking the server."""
    return lambda exchange: exchange.reply(code, body, {"Content-Type": "text/plain"})


def reset_before(exchange: Exchange) -> None:
    """Reset the connection before the server has seen the request."""
    exchange.reset()


def reset_after(share: float = 0.5) -> Fault:
    """Reset the connection in the middle of the answer. The server has done its work by then."""

    def fault(exchange: Exchange) -> None:
        code, body, headers = exchange.forward()
        exchange.reply(code, body[: int(share * len(body))], headers, len(body))
        exchange.reset()

    return fault


def slow(seconds: float) -> Fault:
    """Answer late. The server has done its work at once."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        time.sleep(seconds)
        exchange.reply(*answer)

    return fault


def too_large_above(limit: int) -> Fault:
    """Answer with 413 if the body is larger, like a payload limit."""
    return lambda exchange: exchange.reply(413, b"") if len(exchange.body) > limit else passing(exchange)


def rejecting(among: Callable[[int], bool], code: int, kind: str, reason: str = "queue is full") -> Fault:
    """Reject the items of a bulk request that `among` picks by number, under HTTP 200. The server sees the others."""

    def fault(exchange: Exchange) -> None:
        items: list[dict[str, Any]] = []
        passed: list[bytes] = []
        binary = exchange.body.startswith(b":)")
        lines = iter(re.findall(rb"[^\xff]*\xff", exchange.body) if binary else exchange.body.splitlines(keepends=True))
        for number, action in enumerate(lines):
            read = smile_reader.documents(action)[0] if binary else json.loads(action)
            ((operation, target),) = read.items()
            whole = action if operation == "delete" else action + next(lines)
            error = {"type": kind, "reason": reason}
            if among(number):
                items.append({operation: {"_id": target["_id"], "status": code, "error": error}})
            else:
                items.append({})
                passed.append(whole)
        real = iter(json.loads(exchange.forward(b"".join(passed))[1])["items"] if passed else [])
        answer = {"took": 1, "errors": True, "items": [item or next(real) for item in items]}
        exchange.reply(200, json.dumps(answer).encode())

    return fault


def busy_searches(among: Callable[[int], bool]) -> Fault:
    """Refuse the searches of an `_msearch` that `among` picks by number because of load, under HTTP 200."""
    error = {"type": "es_rejected_execution_exception", "reason": "queue is full"}

    def fault(exchange: Exchange) -> None:
        code, body, headers = exchange.forward()
        answer = json.loads(body)
        answer["responses"] = [
            {"error": error, "status": 429} if among(number) else response
            for number, response in enumerate(answer["responses"])
        ]
        exchange.reply(code, json.dumps(answer).encode(), headers)

    return fault


class FaultyProxy:
    """Listens on a free port of the loopback interface.

    Requests go to the server by TLS and with credentials, if the address of `upstream` has them. Without a server,
    `rule` answers all requests. With a `context`, clients speak TLS.

    Attributes:
        url: URL of the proxy.
        faults: Faults for the next requests whose path contains `on`, one for each request. After them, `rule` is used.
        rule: Fault of requests that have no other fault. Default: `passing`.
        seen: Path and number of bytes of each request whose path contains `on`.
        most_at_once: Largest number of these requests at the same time.
    """

    def __init__(self, upstream: Address | None, on: str = "_bulk", context: ssl.SSLContext | None = None) -> None:
        self.faults: deque[Fault] = deque()
        self.rule: Fault = passing
        self.seen: list[tuple[str, int]] = []
        self.most_at_once = 0
        self._upstream = upstream
        self._on = on
        self._context = context
        self._at_once = 0
        self._lock = threading.Lock()

    def __enter__(self) -> FaultyProxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                exchange = Exchange(self, proxy._upstream)
                if proxy._on in exchange.path:
                    proxy._answer(exchange)
                else:
                    passing(exchange)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names that the class asks for

            def log_message(self, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        if self._context is not None:
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if self._context is None else 'https'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="faulty-proxy")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, exchange: Exchange) -> None:
        with self._lock:
            self.seen.append((exchange.path, len(exchange.body)))
            fault = self.faults.popleft() if self.faults else self.rule
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            fault(exchange)
        finally:
            with self._lock:
                self._at_once -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the polite end that would come before a reset

    def handle_error(self, *args: object) -> None:
        pass  # the client is gone
