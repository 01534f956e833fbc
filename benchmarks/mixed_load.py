"""Load `hybridsearch serve` with a mixture of requests for long, and check that memory and descriptors stay level.

    python benchmarks/mixed_load.py [--minutes N] [--workers N] [--json]

Clients search, list, explain, store, replace and delete documents, import lines, send wrong requests, and go away in
the middle of a request. The number of documents stays between 5,000 and 7,000. The first third of the time is not
counted, because caches fill up. The script ends with an error if, from the second third to the last, memory grows by
more than 5% and 10 MiB, or descriptors by more than 10, or if a request fails. It needs the extra `serve` and psutil.

Before the load, the script stores 20 documents, and measures after how many seconds all workers count each of them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
from _common import arguments, finish, table

import hybridsearch as hs

WORDS = "wing lift drag flow heat shock layer jet tail flap spar rib skin nose fuel pump".split()  # noqa: SIM905

WRONG = [b"{", b'{"query": 1}', b'{"query": "a", "top_k": 0}', b'{"query": "a", "filter": {"$no": 1}}']
IDLE = 4
"""Seconds after which the service may have closed a connection that nobody used. It does so after 5 seconds."""
HEAD = "POST /v1/papers/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
Row = tuple[float, float, int, int]
"""Minute, MiB of memory, descriptors and threads."""


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=30))


class Connection(http.client.HTTPConnection):
    """A connection that is opened again if it was not used for long, as on a machine that is busy with other work."""

    used = 0.0

    def request(self, *arguments: Any, **named: Any) -> None:
        if time.monotonic() - self.used > IDLE:
            self.close()
        try:
            super().request(*arguments, **named)
        except ConnectionError:
            if time.monotonic() - self.used <= IDLE:
                raise
            self.close()
            super().request(*arguments, **named)

    def getresponse(self) -> http.client.HTTPResponse:
        found = super().getresponse()
        self.used = time.monotonic()
        return found


class Client:
    """The clients, which run in threads until `over` is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.over = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failed: list[str] = []
        self._numbers = itertools.count()

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **more: str) -> Any:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, raw, {"Content-Type": "application/json", **more} if raw else {})
        answer = connection.getresponse()
        content = answer.read()
        self.answers[str(answer.status)] += 1
        if answer.status >= 500:
            self.failed.append(f"{method} {path}: {answer.status} {content[:200]!r}")
        return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    def search(self, rng: random.Random, connection: http.client.HTTPConnection) -> None:
        body: dict[str, Any] = {"query": text(rng)[:40], "top_k": rng.choice([1, 10, 50])}
        if rng.random() < 0.3:
            body |= {"filter": {"n": {"$lt": rng.randrange(100)}}, "snippets": True}
        if rng.random() < 0.1:
            body |= {"explain": True, "fusion": "minmax"}
        self.ask(connection, "POST", "/v1/papers/search", body)

    def write(self, rng: random.Random, connection: http.client.HTTPConnection) -> None:
        id = f"w{rng.randrange(1000)}"
        fields = {"text": text(rng), "metadata": {"n": rng.randrange(100)}}
        self.ask(connection, "PUT", f"/v1/papers/documents/{id}", fields)
        if rng.random() < 0.5:
            self.ask(connection, "DELETE", f"/v1/papers/documents/{id}")
        if rng.random() < 0.1:
            lines = (json.dumps({"id": f"m{rng.randrange(1000)}", "text": text(rng)}) for _ in range(50))
            kind = {"Content-Type": "application/x-ndjson"}
            self.ask(connection, "PUT", "/v1/papers/documents", "\n".join(lines).encode(), **kind)
        time.sleep(0.05)

    def read(self, rng: random.Random, connection: http.client.HTTPConnection) -> None:
        self.ask(connection, "GET", f"/v1/papers/documents?limit=50&sort={rng.choice(['-n', 'id'])}")
        self.ask(connection, "GET", f"/v1/papers/documents/d{rng.randrange(5000)}")
        self.ask(connection, "POST", "/v1/papers/explain", {"query": "wing", "id": f"d{rng.randrange(5000)}"})
        self.ask(connection, "GET", "/metrics")
        time.sleep(0.1)

    def misuse(self, rng: random.Random, connection: http.client.HTTPConnection) -> None:
        self.ask(connection, "POST", "/v1/papers/search", rng.choice(WRONG))
        self.ask(connection, "GET", f"/nothing/{next(self._numbers)}")
        with socket.create_connection(("127.0.0.1", self.port)) as gone:  # leaves before the answer
            body = json.dumps({"query": text(rng), "top_k": 100}).encode()
            gone.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[: rng.randrange(len(body) + 1)])
        time.sleep(0.05)

    def run(self, act: Callable[[random.Random, http.client.HTTPConnection], None], seed: int) -> None:
        rng = random.Random(seed)
        with closing(Connection("127.0.0.1", self.port, timeout=60)) as connection:
            while not self.over.is_set():
                try:
                    act(rng, connection)
                except (OSError, http.client.HTTPException) as error:
                    idle = time.monotonic() - connection.used
                    self.failed.append(f"{act.__name__}: {error!r}, {idle:.1f} s after the last answer")
                    connection.close()


def measure(process: psutil.Process) -> tuple[float, int, int]:
    """MiB of memory, descriptors and threads of a process and its children."""
    mebibytes, files, threads = 0.0, 0, 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            mebibytes += one.memory_full_info().uss / 2**20
            files += one.num_fds()
            threads += one.num_threads()
    return mebibytes, files, threads


def seconds_until_all_count(port: int, id: str) -> float:
    """Seconds after which all workers count a document that was just stored. A new connection gets any worker."""

    def ask(method: str, path: str, body: Any = None) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            return Client(port).ask(connection, method, f"/v1/papers/{path}", body)

    expected = ask("GET", "count")["count"] + 1
    ask("PUT", f"documents/{id}", {"text": "wing"})
    last = began = time.monotonic()
    while time.monotonic() - began < 2:
        if ask("GET", "count")["count"] != expected:
            last = time.monotonic()
        time.sleep(0.003)
    return last - began


def main() -> None:
    options = arguments(__doc__, minutes={"type": float, "default": 30.0}, workers={"type": int, "default": 1})
    with tempfile.TemporaryDirectory() as made:
        rng = random.Random(0)
        folder = Path(made) / "papers"
        with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, folder) as search:
            given = (hs.Document(f"d{i}", text(rng), metadata={"n": i % 100}) for i in range(5000))
            search.index(given, show_progress_bar=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "hybridsearch", "serve", str(folder), "--allow-write", "--port", str(port)]
        process = subprocess.Popen([*command, "--workers", str(options.workers)], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(port)
            seen = [seconds_until_all_count(port, f"seen{number}") for number in range(20)]
            rows, client = load(process, port, options.minutes)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    report(options, rows, client, seen)


def wait_until_ready(port: int) -> None:
    while True:
        with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)


def load(process: subprocess.Popen[bytes], port: int, minutes: float) -> tuple[list[Row], Client]:
    client, server = Client(port), psutil.Process(process.pid)
    acts = [client.search] * 3 + [client.write] * 2 + [client.read, client.misuse]
    threads = [threading.Thread(target=client.run, args=(act, seed)) for seed, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    rows, started = [], time.monotonic()
    while (now := time.monotonic() - started) < minutes * 60:
        rows.append((now / 60, *measure(server)))
        time.sleep(max(1.0, minutes * 60 / 120))
    client.over.set()
    for thread in threads:
        thread.join()
    return rows, client


def report(options: Any, rows: list[Row], client: Client, seen: list[float]) -> None:
    third = len(rows) // 3
    middle, last = rows[third : 2 * third], rows[2 * third :]
    memory = [statistics.median(row[1] for row in part) for part in (middle, last)]
    files = [statistics.median(row[2] for row in part) for part in (middle, last)]
    table(
        f"{options.minutes:g} minutes of mixed load, {options.workers} worker(s)",
        ["minute", "memory MiB", "descriptors", "threads"],
        rows[:: max(1, len(rows) // 12)],
        f"Answers by status: {dict(sorted(client.answers.items()))}. Failed: {len(client.failed)}. "
        f"Medians of the second and the last third: memory {memory[0]:.0f} and {memory[1]:.0f} MiB, descriptors "
        f"{files[0]:.0f} and {files[1]:.0f}. All workers count a new document after {statistics.median(seen):.2f} s "
        f"(median of {len(seen)}), at most {max(seen):.2f} s.",
    )
    results = {"memory_mib": memory, "descriptors": files, "answers": dict(client.answers), "seen_seconds": seen}
    finish(options, results)
    if client.failed:
        raise SystemExit(f"{len(client.failed)} requests failed, for example {client.failed[:5]}.")
    if memory[1] > max(memory[0] * 1.05, memory[0] + 10) or files[1] > files[0] + 10:
        raise SystemExit("Memory or descriptors have grown.")


if __name__ == "__main__":
    main()
