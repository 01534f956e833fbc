"""Measure what an index on OpenSearch or Elasticsearch needs: bytes on disk by kind of field, shards, and heap.

    export HYBRIDSEARCH_TEST_OPENSEARCH=http://127.0.0.1:9200 HYBRIDSEARCH_TEST_ELASTICSEARCH=http://127.0.0.1:9201
    python benchmarks/sizing.py [--documents N] [--full] [--json]

The documents are those of engines.py: real texts, 384-dimensional vectors, and mixtures of SPLADE-v3 vectors of about
110 terms. There is one index for each kind of field, with one shard and no replicas. It is merged into one segment
before it is measured. The size of the documents alone is measured too, and subtracted.

Shards: 10,000 and 50,000 documents (with `--full` also 200,000) with BM25, sparse and dense vectors are loaded into 1,
2 and 4 shards of one node. They are measured as they are after loading. Each query asks three retrievers for 100 hits.
The queries are asked one at a time, then by several threads: one more than the machine has cores.

Heap: the values are the peak of the old generation since the node was started, and how often a circuit breaker refused
a request. For values of this run alone, start the node again, with another heap, before the run.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _common import arguments, finish, table
from engines import ENGINES, Collection, Engine

import hybridsearch as hs
from hybridsearch.backends import Schema
from hybridsearch.vectors import EncodedBatch

FIELDS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "document only": (None, {}),
    "text (native BM25)": ("text", {}),
    "BM25 vectors": ("bm25", {}),
    "sparse vectors, 110 terms": ("sparse", {}),
    "dense 384, HNSW": ("dense", {"dense": "hnsw"}),
    "dense 384, exact": ("dense", {"dense": "exact"}),
}
"""The retriever of each index, and the options of its backend."""

SHARDS = (1, 2, 4)
SIZES = (10_000, 50_000)
QUERIES = 200


def measure(
    engine: Engine, collection: Collection, retriever: str | None, options: dict[str, Any]
) -> tuple[int, float]:
    """Bytes on disk of the merged index, and documents loaded per second."""
    index = engine.new_index()
    backend = engine.backend(index, **options)
    native = hs.NativeBM25()
    known = {**collection.schema(lexical=True).retrievers, "text": native.schema()}
    schema = Schema({} if retriever is None else {retriever: known[retriever]})
    backend.create(schema)

    def batches() -> Iterator[EncodedBatch]:
        for batch in collection.batches(lexical=retriever == "bm25"):
            vectors: dict[str, Any] = dict(batch.vectors)
            vectors["text"] = native.encode_documents([document.content for document in batch.documents])
            yield EncodedBatch(batch.documents, {} if retriever is None else {retriever: vectors[retriever]})

    encoded = list(batches())
    start = time.perf_counter()
    backend.load(encoded)
    rate = len(collection.documents) / (time.perf_counter() - start)
    engine.client.indices.forcemerge(index=index, max_num_segments=1)
    engine.client.indices.flush(index=index)
    engine.client.indices.refresh(index=index)  # frees the segments that were merged
    size = int(backend.describe()["bytes"])
    backend.close()
    return size, rate


def by_shards(engine: Engine, collection: Collection, documents: int, shards: int) -> dict[str, float]:
    """Documents loaded per second, milliseconds of one query, and queries per second of several threads."""
    backend = engine.backend(engine.new_index(), shards=shards)
    backend.create(collection.schema(lexical=True))
    encoded = list(collection.batches(lexical=True, end=documents))
    start = time.perf_counter()
    backend.load(encoded)
    rate = documents / (time.perf_counter() - start)
    times = []
    for _ in range(2):  # the first round fills caches and the statistics of BM25
        times.clear()
        for requests in collection.requests:
            start = time.perf_counter()
            backend.search(requests)
            times.append((time.perf_counter() - start) * 1e3)
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        start = time.perf_counter()
        list(pool.map(backend.search, collection.requests))
        throughput = len(collection.requests) / (time.perf_counter() - start)
    backend.close()
    engine.clean()
    return {"documents_per_second": rate, "query_ms": statistics.median(times), "queries_per_second": throughput}


def heap(engine: Engine) -> str:
    (node,) = dict(engine.client.nodes.stats(metric="jvm,breaker"))["nodes"].values()
    memory, refused = node["jvm"]["mem"], sum(breaker["tripped"] for breaker in node["breakers"].values())
    peak, most = memory["pools"]["old"]["peak_used_in_bytes"], memory["heap_max_in_bytes"]
    return f"Heap: old generation at most {peak / 2**20:.0f} of {most / 2**20:.0f} MiB, {refused} requests refused."


def main() -> None:
    options = arguments(__doc__, documents={"type": int, "default": 10_000})
    urls = {name: os.environ.get(f"HYBRIDSEARCH_TEST_{name.upper()}", "") for name in ENGINES}
    engines = [Engine(name, url) for name, url in urls.items() if url]
    if not engines:
        raise SystemExit("Set HYBRIDSEARCH_TEST_OPENSEARCH or HYBRIDSEARCH_TEST_ELASTICSEARCH to a server's URL.")
    sizes = (*SIZES, 200_000) if options.full else SIZES
    collection = Collection(options.documents, 1)
    searched = Collection(max(sizes), QUERIES)
    results: dict[str, Any] = {"documents": options.documents}
    for engine in engines:
        try:
            found = {label: measure(engine, collection, *field) for label, field in FIELDS.items()}
            engine.clean()
            timed = {(n, shards): by_shards(engine, searched, n, shards) for n in sizes for shards in SHARDS}
        finally:
            engine.clean()
        base = found["document only"][0]
        rows = [
            (label, (size if label == "document only" else size - base) / options.documents, rate)
            for label, (size, rate) in found.items()
        ]
        table(
            f"{engine.name}: {options.documents:,} documents, one segment",
            ["field", "bytes per document", "documents per second"],
            rows,
            note="The first row is the document itself. Each other row is what the field adds to it.",
        )
        table(
            f"{engine.name}: shards on one node",
            ["documents", "shards", "documents loaded per second", "ms per query, median", "queries per second"],
            [(f"{n:,}", shards, *figures.values()) for (n, shards), figures in timed.items()],
            note=heap(engine),
        )
        results[engine.name] = {
            **{label: {"bytes": size, "documents_per_second": rate} for label, size, rate in rows},
            **{f"{n} documents, {shards} shards": figures for (n, shards), figures in timed.items()},
        }
    finish(options, results)


if __name__ == "__main__":
    main()
