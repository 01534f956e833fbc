"""Measure forms of requests to OpenSearch and Elasticsearch: SMILE or JSON, with or without gzip, over slow networks.

    export HYBRIDSEARCH_TEST_OPENSEARCH=http://127.0.0.1:9200 HYBRIDSEARCH_TEST_ELASTICSEARCH=http://127.0.0.1:9201
    python benchmarks/wire.py [--documents N] [--queries N] [--rounds N] [--json]

The documents and queries are those of `engines.py`. Loading sends the same documents in requests of 500, one after the
other, by the official client with and without its option `http_compress`. It shows the best of all rounds, in which the
ways take turns. Searching sends our `_msearch` bodies of three retrievers. It shows the median. `http_compress`
compresses requests by gzip and asks for answers that are compressed by gzip.

A network is a program between client and server that passes on at most so many bytes a second in each direction. CBOR
is not measured: neither engine reads it in `_bulk`, because it has no mark between documents.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from _common import arguments, finish, table
from engines import ENGINES, Collection, Engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "adapters"))
import smile_reader

from hybridsearch.adapters.lucene.stored.lines import bulk_lines

AT_ONCE = 500
NETWORKS = {"this machine": None, "1 Gbit/s": 125_000_000, "100 Mbit/s": 12_500_000}
TYPES = {"SMILE": "application/smile", "JSON": "application/x-ndjson"}


@contextlib.contextmanager
def network(host: str, port: int, rate: int | None) -> Iterator[tuple[str, int]]:
    """The address of a program that passes on at most `rate` bytes a second in each direction."""
    if rate is None:
        yield host, port
        return

    def pump(source: socket.socket, sink: socket.socket) -> None:
        free = 0.0
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                free = max(free, time.perf_counter()) + len(data) / rate
                time.sleep(max(0.0, free - time.perf_counter()))
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, port))
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield "127.0.0.1", listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def bulk_bodies(collection: Collection) -> dict[str, list[bytes]]:
    """The bodies of the bulk requests, in each form."""
    bodies: dict[str, list[bytes]] = {"SMILE": [], "JSON": []}
    schema = collection.schema(lexical=True)
    for batch in collection.batches(lexical=True, size=AT_ONCE):
        lines = [content for _, content in bulk_lines(batch, schema, {"bm25": 150.0}, 1)]
        bodies["SMILE"].append(b"".join(lines))
        read = [orjson.dumps(one) + b"\n" for line in lines for one in smile_reader.documents(line)]
        bodies["JSON"].append(b"".join(read))
    return bodies


def measure(engine: Engine, collection: Collection, rounds: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Rows of loading and of searching."""
    pattern = engine.new_index()
    backend = engine.backend(pattern)
    backend.create(collection.schema(lexical=True))
    backend.load(collection.batches(lexical=True))
    backend.search([request for of_query in collection.requests for request in of_query])  # fills the statistics
    sent = []
    for of_query in collection.requests:
        with engine.recorded() as seen:
            backend.search(of_query)
        sent.append(seen[0])
    bodies = bulk_bodies(collection)
    host, _, port = engine.url.partition("://")[2].rpartition(":")
    loading, searching = [], []
    for link, rate in NETWORKS.items():
        with network(host, int(port), rate) as (name, number):
            clients = {gzip: client_of(engine, name, number, gzip) for gzip in (False, True)}
            best: dict[tuple[str, bool], float] = {}
            times: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds):
                for form in bodies:
                    for gzip, client in clients.items():
                        index = engine.like(pattern)
                        start = time.perf_counter()
                        for body in bodies[form]:
                            send(client, f"/{index}/_bulk?filter_path=errors", body, TYPES[form])
                        seconds = time.perf_counter() - start
                        best[form, gzip] = min(best.get((form, gzip), 1e9), seconds)
                        engine.clean(but=pattern)
                for _, target, _, body in sent:
                    for gzip, client in clients.items():
                        start = time.perf_counter()
                        send(client, target, body, TYPES["JSON"])
                        times[gzip].append((time.perf_counter() - start) * 1e3)
            documents = len(collection.documents)
            loading.append((link, *(documents / best[form, gzip] for form in bodies for gzip in (False, True))))
            searching.append((link, *(statistics.median(times[gzip]) for gzip in (False, True))))
            for client in clients.values():
                client.close()
    backend.close()
    return loading, searching


def client_of(engine: Engine, host: str, port: int, gzip: bool) -> Any:
    if engine.name == "opensearch":
        return engine.module.OpenSearch(f"http://{host}:{port}", timeout=120, http_compress=gzip)
    from elastic_transport import Serializer

    class AsItIs(Serializer):
        mimetype = TYPES["SMILE"]

        def dumps(self, data: bytes) -> bytes:
            return data

    serializers = {TYPES["SMILE"]: AsItIs()}
    return engine.module.Elasticsearch(
        f"http://{host}:{port}", request_timeout=120, http_compress=gzip, serializers=serializers
    )


def send(client: Any, target: str, body: Any, kind: str) -> None:
    client.transport.perform_request(
        "POST", target, body=body, headers={"content-type": kind, "accept": "application/json"}
    )


def main() -> None:
    options = arguments(
        __doc__,
        documents={"type": int, "default": 2000},
        queries={"type": int, "default": 50},
        rounds={"type": int, "default": 3},
    )
    urls = {name: os.environ.get(f"HYBRIDSEARCH_TEST_{name.upper()}", "") for name in ENGINES}
    engines = [Engine(name, url) for name, url in urls.items() if url]
    if not engines:
        raise SystemExit("Set HYBRIDSEARCH_TEST_OPENSEARCH or HYBRIDSEARCH_TEST_ELASTICSEARCH to a server's URL.")
    collection = Collection(options.documents, options.queries)
    sizes = {form: sum(map(len, of_form)) / options.documents for form, of_form in bulk_bodies(collection).items()}
    results: dict[str, Any] = {"bytes": sizes}
    print("bytes of a document:", json.dumps({form: round(size) for form, size in sizes.items()}))
    for engine in engines:
        try:
            loading, searching = measure(engine, collection, options.rounds)
        finally:
            engine.clean()
        ways = ["SMILE", "SMILE, gzip", "JSON", "JSON, gzip"]
        table(f"{engine.name}: documents loaded per second", ["network", *ways], loading)
        table(f"{engine.name}: milliseconds of a query, median", ["network", "plain", "gzip"], searching)
        results[engine.name] = {"loading": loading, "searching": searching}
    finish(options, results)


if __name__ == "__main__":
    main()
