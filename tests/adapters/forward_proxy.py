"""A forward proxy, which connects clients to servers by names that only the proxy knows."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class ForwardProxy:
    """Listens on a free port of the loopback interface, and asks for a user and a password.

    A client in front of TLS sends CONNECT. A client of plain HTTP sends requests with whole URLs.

    Args:
        hosts: Address of the server for each name. Other names are answered with 502.

    Attributes:
        url: URL of the proxy with the credentials, as the environment would have it.
        seen: Method and target of each request: "name:port" of CONNECT, otherwise the whole URL.
    """

    def __init__(self, hosts: Mapping[str, tuple[str, int]]) -> None:
        self.hosts = hosts
        self.seen: list[tuple[str, str]] = []

    def __enter__(self) -> ForwardProxy:
        proxy, expected = self, "Basic " + base64.b64encode(b"me:s3c/r3t").decode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                proxy.seen.append((self.command, self.path))
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("proxy-authorization") != expected:
                    self.reply(407, b"")
                elif self.command == "CONNECT":
                    self.connect()
                else:
                    self.forward(body)

            def connect(self) -> None:
                name, _, _ = self.path.rpartition(":")
                if name not in proxy.hosts:
                    self.reply(502, b"")
                    return
                with socket.create_connection(proxy.hosts[name]) as server:
                    self.send_response(200)
                    self.end_headers()
                    there = threading.Thread(target=pump, args=(server, self.connection), daemon=True)
                    there.start()
                    pump(self.connection, server)
                    there.join()
                self.close_connection = True

            def forward(self, body: bytes) -> None:
                parts = urlsplit(self.path)
                if parts.hostname not in proxy.hosts:
                    self.reply(502, b"")
                    return
                server = http.client.HTTPConnection(*proxy.hosts[parts.hostname], timeout=60)
                headers = {k: v for k, v in self.headers.items() if not k.lower().startswith(("proxy-", "connection"))}
                server.request(self.command, f"{parts.path}{'?' if parts.query else ''}{parts.query}", body, headers)
                answer = server.getresponse()
                self.reply(answer.status, answer.read(), answer.getheader("content-type") or "")
                server.close()

            def reply(self, status: int, body: bytes, kind: str = "text/plain") -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_CONNECT = do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://me:s3c%2Fr3t@127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="forward-proxy")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        pass  # the client is gone


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on until one side ends."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
