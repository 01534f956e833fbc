"""Tests of the service as a process, and of connections that are slow or broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from hybridsearch.cli.app import app as program
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.service import protocol
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings

PROGRAM = str(Path(sys.executable).with_name("hybridsearch"))
READ, WRITE = "r" * 20, "w" * 20


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """A process of `hybridsearch serve`, and a client that waits until it is ready."""
    port = free_port()
    command = [PROGRAM, "serve", *arguments, "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(300):
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/ready").status_code == 200:
                        break
                assert process.poll() is None, process.communicate()
                asyncio.run(asyncio.sleep(0.1))
            yield client, process
    finally:
        process.kill()
        process.wait()


def test_the_program_serves_searches_and_documents_to_clients_with_tokens(papers: Path, tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    config.write_text(f"indexes:\n  mine: {papers}\nmax_top_k: 2\n")
    with served("--config", str(config), HYBRIDSEARCH_TOKENS=f"read:{READ},write:{WRITE}") as (client, process):
        reads = {"Authorization": f"Bearer {READ}"}
        found = client.get("/v1/mine/search", params={"q": "frozen", "top_k": 1}, headers=reads)
        unknown = client.get("/v1/mine/search", params={"q": "frozen"})
        too_many = client.post("/v1/mine/search", json={"query": "a", "top_k": 3}, headers=reads)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]

    assert [hit["id"] for hit in found.json()["hits"]] == ["über 1"]
    assert unknown.status_code == 401
    assert "server" not in unknown.headers
    assert too_many.json()["detail"] == "top_k is 3, but it must be at most 2."
    assert READ not in said
    assert "Listening on http://127.0.0.1:" in said
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "192.0.2.1"], "hybridsearch: Other machines can reach '192.0.2.1', so the server needs tokens"),
        (["--max-top-k", "0"], "hybridsearch: --max-top-k is 0, but it must be a whole number of at least 1."),
        (["--config", "none.yaml"], "hybridsearch: The settings 'none.yaml' cannot be read: No such file"),
        (["--port", "99999"], "hybridsearch: The port is 99999, but ports go up to 65535: give another"),
    ],
)
def test_a_service_that_cannot_start_says_why(papers: Path, arguments: list[str], sentence: str) -> None:
    refused = CliRunner().invoke(program, ["serve", str(papers), *arguments])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(sentence)


def test_judgements_are_in_a_folder(papers: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is a folder, but .*test_serving\.py is a file: give a folder"):
        make_app({"papers": ServedIndex("papers", str(papers))}, Settings(judgements=__file__))


def test_a_wrong_value_of_a_file_is_named_as_the_file_has_it(papers: Path, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text("max_top_k: 0")
    refused = CliRunner().invoke(program, ["serve", str(papers), "--config", str(file)])
    assert f"'max_top_k' of the file '{file}' is 0, but it must be a whole number of at least 1." in refused.stderr


def test_an_unknown_setting_of_a_file_is_named_as_the_file_has_it(papers: Path, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text("max_topk: 3")
    refused = CliRunner().invoke(program, ["serve", str(papers), "--config", str(file)])
    assert "did you mean 'max_top_k'?" in refused.stderr
    assert "allow" not in refused.stderr


def test_a_service_needs_an_index() -> None:
    refused = CliRunner().invoke(program, ["serve"])
    assert refused.stderr.startswith("hybridsearch: A server needs an index: give its place")


@contextlib.asynccontextmanager
async def listening(papers: Path, **settings: Any) -> AsyncIterator[int]:
    """The port of a service under uvicorn in this process."""
    app = make_app({"papers": ServedIndex("papers", str(papers))}, Settings(**settings))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(app, http=protocol.Protocol, ws="none", log_config=None, server_header=False)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            await running


async def answer_to(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What the service sends until it closes the connection, if it gets these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b"closed"
    finally:
        writer.close()


HEAD = b"POST /v1/papers/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"


def test_a_connection_that_is_slow_or_endless_is_closed(papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)

    async def run() -> list[bytes]:
        async with listening(papers, max_seconds=0.3) as port:
            return await asyncio.gather(
                answer_to(port),
                answer_to(port, b"GET / HT"),
                answer_to(port, *[b"X: y\r\n"] * 10, pause=0.05),
                answer_to(port, HEAD, *[b"X: " + b"y" * 60_000 + b"\r\n"] * 3),
                answer_to(port, HEAD + b"Content-Length: 100\r\n\r\n{", pause=0.1),
                answer_to(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}"),
            )

    silent, partial, dripping, endless, unfinished, chunked = asyncio.run(run())
    assert (silent, partial) == (b"", b"")
    assert b" 200 " not in dripping
    assert endless in (b"", b"closed")
    for late in (unfinished, chunked):
        assert late.startswith(b"HTTP/1.1 503 ")
        assert b"The request took longer than 0.3 s." in late


def test_broken_requests_are_refused_and_the_service_goes_on(papers: Path) -> None:
    body = json.dumps({"query": "frozen"}).encode()
    rest = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    length = f"Content-Length: {len(body)}\r\n".encode()

    async def run() -> list[bytes]:
        async with listening(papers) as port:
            sent = [
                (HEAD + length + b"\r\n" + body),
                (HEAD + length + b"X-Request-Id: a\r\n\tb\r\n\r\n" + body),
                (HEAD + length + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
                (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}"),
                (HEAD + b"Content-Length: 999999999999\r\n\r\n{}"),
                b"GET /v1/papers/documents/..%2f..%2fetc%2fpasswd" + rest,
                b"GET /page/../../../../etc/passwd" + rest,
                b"GET /page/%2e%2e/%2e%2e/app.py" + rest,
                (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"),
                (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
            ]
            return [await answer_to(port, one) for one in sent]

    good, folded, smuggled, twice, huge, large, *others = asyncio.run(run())
    traversals, (hostless, tls) = others[:3], others[3:]
    assert good.startswith(b"HTTP/1.1 200 ")
    assert b"\r\n\tb" not in folded
    for refused in (smuggled, twice, huge, tls):
        assert refused.startswith(b"HTTP/1.1 400 ")
    assert large.startswith(b"HTTP/1.1 413 ")
    assert all(one.startswith(b"HTTP/1.1 404 ") for one in traversals)
    assert hostless.startswith(b"HTTP/1.1 421 ")
