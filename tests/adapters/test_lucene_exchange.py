"""Requests over open connections: every kind of answer arrives as urllib3 would read it."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile

import pytest
import urllib3
from urllib3.exceptions import ProtocolError, ReadTimeoutError

pytest.importorskip("orjson")

from hybridsearch.adapters.lucene.wire.exchange import LeanPool

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
HEADERS = {"content-type": "application/json", "authorization": "ApiKey a=="}


def plain(body: bytes, more: bytes = b"", status: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return status + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextmanager
def serving(*answers: bytes | Callable[[socket.socket], None]) -> Iterator[tuple[LeanPool, list[bytes], list[int]]]:
    """A pool for a server, the requests that the server got, and the number of the connection of each request.

    The first answer of the server is always `{}`, so that the connection is open.
    """
    heard: list[bytes] = []
    connections: list[int] = []
    left = [plain(b"{}"), *answers]

    def serve(listener: socket.socket) -> None:
        number = 0
        while left:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            number += 1
            with sock, sock.makefile("rb") as file:
                while left:
                    head = b"".join(takewhile(bytes.strip, iter(file.readline, b"")))
                    if not head:
                        break
                    size = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                    heard.append(head + b"\r\n" + file.read(int(size or 0)))
                    connections.append(number)
                    answer = left.pop(0)
                    if callable(answer):
                        answer(sock)
                        break
                    sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        pool = LeanPool(urllib3.HTTPConnectionPool("127.0.0.1", listener.getsockname()[1], timeout=5, maxsize=2))
        assert ask(pool).data == b"{}"
        yield pool, heard, connections
        left.clear()
        pool.close()
        socket.create_connection(listener.getsockname()).close()  # the server may wait for one
        thread.join(5)


def ask(
    pool: LeanPool, method: str = "POST", body: bytes | None = b'{"a": 1}', timeout: float = 5
) -> urllib3.HTTPResponse:
    response: urllib3.HTTPResponse = pool.urlopen(
        method, "/index/_search", body=body, headers=HEADERS, retries=urllib3.Retry(False), timeout=timeout
    )
    return response


def test_a_request_is_sent_as_urllib3_sends_it() -> None:
    with serving(plain(b"[1]")) as (pool, heard, connections):
        assert ask(pool).data == b"[1]"
    by_urllib3, ours = heard
    assert connections == [1, 1]
    head, _, body = ours.partition(b"\r\n\r\n")
    sent = set(head.lower().split(b"\r\n"))
    assert sent <= set(by_urllib3.partition(b"\r\n\r\n")[0].lower().split(b"\r\n"))
    assert {b"post /index/_search http/1.1", b"content-length: 8", b"authorization: apikey a=="} <= sent
    assert body == b'{"a": 1}'


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_answers_and_requests_of_any_size(size: int) -> None:
    body = b"x" * size
    with serving(plain(body), plain(b"{}")) as (pool, heard, connections):
        response = ask(pool, body=body)
        assert (response.status, response.data) == (200, body)
        assert ask(pool).data == b"{}"
    assert connections == [1, 1, 1]
    assert heard[1].endswith(b"\r\n\r\n" + body)


def test_a_request_without_a_body_says_so_if_it_might_have_one() -> None:
    with serving(plain(b"{}"), plain(b"{}")) as (pool, heard, _):
        ask(pool, body=None)
        ask(pool, "GET", body=None)
    assert b"content-length: 0\r\n" in heard[1]
    assert b"content-length" not in heard[2]


@pytest.mark.parametrize(
    ("answer", "status", "data"),
    [
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n", 200, b"[1]"),
        (plain(gzip.compress(b"[1]"), b"content-encoding: gzip\r\n"), 200, b"[1]"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(b"[1]"), 200, b"[1]"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (plain(b"[1]", b"x-padding: " + b"p" * 60_000 + b"\r\n"), 200, b"[1]"),
        (plain(b'{"error": 1}', status=b"HTTP/1.1 404 Not Found\r\n"), 404, b'{"error": 1}'),
    ],
    ids=["chunked", "gzip", "continue", "no content", "long head", "refusal"],
)
def test_unusual_answers_are_read_and_the_connection_stays_open(answer: bytes, status: int, data: bytes) -> None:
    with serving(answer, plain(b"{}")) as (pool, _, connections):
        response = ask(pool)
        assert (response.status, response.data) == (status, data)
        assert ask(pool).data == b"{}"
    assert connections == [1, 1, 1]


def test_an_answer_may_arrive_byte_by_byte() -> None:
    def drip(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in plain(b"[1]", b"Warning: 299 - old\r\n"):
            sock.sendall(bytes([byte]))

    with serving(drip) as (pool, _, _):
        response = ask(pool)
    assert response.data == b"[1]"
    assert response.headers["warning"] == "299 - old"


def test_a_connection_is_not_used_again_if_the_server_closes_it() -> None:
    with serving(plain(b"[1]", b"Connection: close\r\n"), plain(b"[2]")) as (pool, _, connections):
        assert ask(pool).data == b"[1]"
        # The server of this test goes on listening to the connection, but a client must not send to it.
        closed = pool._pool.pool.queue[-1]
        assert closed is None or closed.sock is None
    assert connections == [1, 1]


def test_bytes_after_an_answer_end_the_connection() -> None:
    with serving(plain(b"[1]") + b"HTTP/1.1 200 OK\r\n") as (pool, _, _):
        assert ask(pool).data.startswith(b"[1]")
        assert pool._pool.pool.queue[-1].sock is None


def test_an_answer_that_ends_too_early_is_an_error_and_the_next_request_uses_a_new_connection() -> None:
    with serving(lambda sock: sock.sendall(plain(b"[1]")[:-1]), plain(b"[2]")) as (pool, _, connections):
        with pytest.raises(ProtocolError):
            ask(pool)
        assert ask(pool).data == b"[2]"
    assert connections == [1, 1, 2]


def test_no_answer_at_all_is_an_error() -> None:
    with serving(lambda sock: None) as (pool, _, _), pytest.raises(ProtocolError, match="closed connection without"):
        ask(pool)


def test_a_late_answer_is_an_error() -> None:
    done = threading.Event()
    with serving(lambda sock: done.wait(5) and None) as (pool, _, _):
        with pytest.raises(ReadTimeoutError, match=r"read timeout=0\.05"):
            ask(pool, timeout=0.05)
        done.set()


def test_a_header_with_a_line_break_is_never_sent() -> None:
    with serving(plain(b"{}")) as (pool, heard, _), pytest.raises(ValueError, match="Invalid header value"):
        pool.urlopen("GET", "/", headers={"authorization": "a\r\nb: c"}, retries=urllib3.Retry(False), timeout=5)
    assert len(heard) == 1
