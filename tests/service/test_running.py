"""Tests of a service that runs for long: it ends in order, follows and swaps its index, and loses no change."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from servers import address_of, call, server_of

import hybridsearch as hs

PROGRAM = str(Path(sys.executable).with_name("hybridsearch"))


@dataclass
class Server:
    """A process of `hybridsearch serve`, in a session of its own."""

    process: subprocess.Popen[bytes]
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, connection: Any = None) -> tuple[int, Any]:
        """The status and the content of an answer."""
        with contextlib.ExitStack() as stack:
            used = connection or stack.enter_context(contextlib.closing(self.connect()))
            headers = {} if body is None else {"Content-Type": "application/json"}
            used.request(method, path, None if body is None else json.dumps(body), headers)
            answer = used.getresponse()
            content = answer.read()
        return answer.status, json.loads(content) if "json" in answer.headers["Content-Type"] else content.decode()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PROGRAM, "serve", *arguments, "--port", str(port), "--allow-write"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    server = Server(process, port)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                if server.ask("GET", "/ready")[0] == 200:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield server
    finally:
        server.kill()


def make(folder: Path, *words: str) -> Path:
    """An index with one document for each word."""
    with hs.HybridSearch({"bm25": hs.BM25()}, folder) as search:
        search.index([hs.Document(f"d{i}", f"plane {word}") for i, word in enumerate(words)], show_progress_bar=False)
    return folder


@dataclass
class Load:
    """Threads that call a function again and again until the end of the block. Errors are collected."""

    errors: list[BaseException] = field(default_factory=list)
    done: int = 0

    @contextlib.contextmanager
    def of(self, call: Callable[[http.client.HTTPConnection], None], server: Server, threads: int) -> Iterator[None]:
        over = threading.Event()

        def work() -> None:
            with contextlib.closing(server.connect()) as connection:
                while not over.is_set():
                    try:
                        call(connection)
                        self.done += 1
                    except BaseException as error:
                        self.errors.append(error)
                        return

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            over.set()
            for worker in workers:
                worker.join()


def test_sigterm_finishes_what_has_begun(tmp_path: Path) -> None:
    with serving(f"papers={make(tmp_path / 'papers', 'wings')}") as server, contextlib.ExitStack() as stack:
        lines = [json.dumps({"id": f"n{i}", "text": "plane lift"}).encode() + b"\n" for i in range(200)]
        connection = stack.enter_context(contextlib.closing(server.connect()))
        connection.putrequest("PUT", "/v1/papers/documents")
        connection.putheader("Content-Type", "application/x-ndjson")
        connection.putheader("Content-Length", str(sum(map(len, lines))))
        connection.endheaders()
        connection.send(b"".join(lines[:100]))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError, match=r"refused|reset"):
            server.ask("GET", "/health")
        connection.send(b"".join(lines[100:]))
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["indexed"]) == (200, 200)
        assert server.process.wait(30) == -signal.SIGTERM
    with hs.open(tmp_path / "papers") as search:
        assert search.count() == 201


def test_workers_write_in_turns_and_all_see_a_commit_within_a_second(tmp_path: Path) -> None:
    with serving(f"papers={make(tmp_path / 'papers', 'wings')}", "--workers", "2") as server:
        numbers = itertools.count()

        def put(connection: http.client.HTTPConnection) -> None:
            body = {"text": "plane lift"}
            assert server.ask("PUT", f"/v1/papers/documents/n{next(numbers)}", body, connection)[0] == 200

        load = Load()
        with load.of(put, server, 4):  # the connections are spread over the workers
            time.sleep(1.5)
        assert load.errors == []
        assert load.done >= 4
        assert seconds_until_all_count(server, 1 + load.done) < 5  # less than half a second on an idle machine
        with hs.open(tmp_path / "papers") as another:
            another.delete(["d0"])
        assert seconds_until_all_count(server, load.done) < 5
        metrics = server.ask("GET", "/metrics")[1]
        total = sum(float(line.split()[-1]) for line in metrics.splitlines() if "PUT" in line and "_total" in line)
        assert total == load.done  # of both workers


def seconds_until_all_count(server: Server, expected: int) -> float:
    """Seconds until all workers count so many documents. Each request is a new connection to any worker."""
    started = time.monotonic()
    while {server.ask("GET", "/v1/papers/count")[1]["count"] for _ in range(20)} != {expected}:
        assert time.monotonic() - started < 30
    return time.monotonic() - started


def swap(server: Server, replace: Callable[[int], None], swaps: int, requests: int) -> None:
    """Replace an index again and again under load. No request fails, and the indexes answer one after the other."""
    seen, numbers = list[str](), itertools.count()
    others = [("GET", "count", None), ("GET", "documents/d0", None), ("GET", "documents?limit=1", None)]
    others += [("POST", "explain", {"query": "plane", "id": "d0"})]
    begun, each = time.monotonic(), requests // swaps

    def ask(connection: http.client.HTTPConnection) -> None:
        if (number := next(numbers)) % 2:
            method, path, body = others[number // 2 % len(others)]
            assert server.ask(method, f"/v1/papers/{path}", body, connection)[0] == 200
            return
        status, found = server.ask("POST", "/v1/papers/search", {"query": "plane"}, connection)
        assert status == 200, found
        seen.append(found["hits"][0]["document"]["text"])

    load = Load()
    with load.of(ask, server, 4):
        for number in range(1, swaps + 1):
            replace(number)
            while f"plane version{number}" not in seen[-50:] or load.done < each * number:
                assert time.monotonic() - begun < 600
                assert load.errors == []
                time.sleep(0.05)
    assert load.errors == []
    assert load.done >= requests
    assert list(dict.fromkeys(seen)) == [f"plane version{number}" for number in range(swaps + 1)]
    counted = f'hybridsearch_reloads_total{{index="papers"}} {swaps}.0'
    while counted not in server.ask("GET", "/metrics")[1]:  # the first answers may come before it is counted
        assert time.monotonic() - begun < 600
        time.sleep(0.05)


@pytest.mark.parametrize(("swaps", "requests"), [(2, 200), pytest.param(20, 10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_an_index_is_replaced_without_a_failed_request(tmp_path: Path, swaps: int, requests: int) -> None:
    folder = make(tmp_path / "papers", "version0")

    def replace(number: int) -> None:
        new = make(tmp_path / f"new{number}", f"version{number}")
        folder.rename(tmp_path / f"old{number}")
        if number % 2:
            time.sleep(0.7)  # for a while there is no index
        new.rename(folder)
        shutil.rmtree(tmp_path / f"old{number - 1}", ignore_errors=True)

    with serving(f"papers={folder}", "--reload-index") as server:
        swap(server, replace, swaps, requests)


def test_a_link_to_the_published_index_can_be_moved(tmp_path: Path) -> None:
    link = tmp_path / "published"
    link.symlink_to(make(tmp_path / "one", "wings"))
    make(tmp_path / "two", "tails", "jets")
    with serving(f"papers={link}", "--reload-index") as server:
        (tmp_path / "beside").symlink_to(tmp_path / "two")
        (tmp_path / "beside").rename(link)
        deadline = time.monotonic() + 30
        while server.ask("GET", "/v1/papers/count")[1]["count"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.ask("PUT", "/v1/papers/documents/new", {"text": "plane lift"})[0] == 200
    with hs.open(tmp_path / "two") as two, hs.open(tmp_path / "one") as one:
        assert (two.count(), one.count()) == (3, 1)  # the document went into the index that is published now


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_every_acknowledged_change_survives_a_kill(tmp_path: Path, kills: int) -> None:
    rng, numbers = random.Random(kills), itertools.count()
    folder = make(tmp_path / "papers", "wings")
    stored, leaving, deleted = {"d0"}, set[str](), set[str]()
    for kill in range(kills):
        with serving(f"papers={folder}", "--workers", str(1 + kill % 2)) as server:

            def change(connection: http.client.HTTPConnection, server: Server = server) -> None:
                ids = [f"n{next(numbers)}" for _ in range(3)]
                body = [{"id": id, "text": "plane lift"} for id in ids]
                assert server.ask("PUT", "/v1/papers/documents", body, connection)[0] == 200
                stored.update(ids)
                leaving.add(ids[0])  # the kill may come before or after the deletion
                assert server.ask("DELETE", f"/v1/papers/documents/{ids[0]}", None, connection)[0] == 200
                deleted.add(ids[0])

            load = Load()
            with load.of(change, server, 4):
                while not load.done:
                    time.sleep(0.01)
                time.sleep(rng.random())
                server.kill()
            assert all(isinstance(error, OSError | http.client.HTTPException) for error in load.errors)
        with hs.open(folder) as search:
            there = {document.id for document in search.documents()}
        assert stored - leaving <= there
        assert not there & deleted


@pytest.mark.parametrize(("swaps", "requests"), [(1, 20), pytest.param(20, 10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
@pytest.mark.timeout(900)
def test_an_alias_is_moved_to_an_index_with_other_retrievers_without_a_failed_request(
    engine: str, swaps: int, requests: int
) -> None:
    name = f"served-{uuid.uuid4().hex[:8]}"
    place = f"{server_of(engine)}/{name}"

    def publish(number: int) -> None:
        retrievers = {"bm25": hs.BM25(), "chars": hs.CharNGrams()} if number % 2 else {"bm25": hs.BM25()}
        with hs.HybridSearch(retrievers, f"{place}-{number}") as search:
            search.index([hs.Document("d0", f"plane version{number}")], show_progress_bar=False)
        hs.publish(f"{place}-{number}", name)

    publish(0)
    try:
        with serving(f"papers={place}", "--reload-index") as server:
            swap(server, publish, swaps, requests)
    finally:
        address = address_of(place)
        for number in range(swaps + 1):
            call(address, "DELETE", f"{address.path}-{number}", allowed=(404,))
