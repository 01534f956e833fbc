"""What a document takes on the disk of OpenSearch and Elasticsearch, by kind of field, and how fast it goes in.

    export HYBRIDSEARCH_TEST_OPENSEARCH=http://127.0.0.1:9200 HYBRIDSEARCH_TEST_ELASTICSEARCH=http://127.0.0.1:9201
    python benchmarks/sizing.py [--documents N] [--json]

Documents as in engines.py: real texts, 384-dimensional vectors, mixtures of SPLADE-v3 vectors of about 110 terms. One
index for each kind of field, one shard, no replicas, merged into one segment before it is measured; what the documents
themselves take is measured alone and subtracted. The heap figure is the peak of the old generation since the node was
started: start it anew for a figure of this run alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
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
"""The retriever that an index has, and how its backend is made."""


def measure(
    engine: Engine, collection: Collection, retriever: str | None, options: dict[str, Any]
) -> tuple[int, float]:
    """Bytes on disk of the merged index, and documents a second on the way in."""
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
    engine.client.indices.refresh(index=index)  # lets go of what was merged
    size = int(backend.describe()["bytes"])
    backend.close()
    return size, rate


def heap(engine: Engine) -> str:
    nodes = dict(engine.client.nodes.stats(metric="jvm"))["nodes"].values()
    (memory,) = (node["jvm"]["mem"] for node in nodes)
    peak, most = memory["pools"]["old"]["peak_used_in_bytes"], memory["heap_max_in_bytes"]
    return f"Heap: at most {peak / 2**20:.0f} MiB of {most / 2**20:.0f} MiB in the old generation."


def main() -> None:
    options = arguments(__doc__, documents={"type": int, "default": 10_000})
    urls = {name: os.environ.get(f"HYBRIDSEARCH_TEST_{name.upper()}", "") for name in ENGINES}
    engines = [Engine(name, url) for name, url in urls.items() if url]
    if not engines:
        raise SystemExit("Set HYBRIDSEARCH_TEST_OPENSEARCH or HYBRIDSEARCH_TEST_ELASTICSEARCH to a server's URL.")
    collection = Collection(options.documents, 1)
    results: dict[str, Any] = {"documents": options.documents}
    for engine in engines:
        try:
            found = {label: measure(engine, collection, *field) for label, field in FIELDS.items()}
        finally:
            engine.clean()
        base = found["document only"][0]
        rows = [
            (label, (size if label == "document only" else size - base) / options.documents, rate)
            for label, (size, rate) in found.items()
        ]
        table(
            f"{engine.name}: {options.documents:,} documents, one segment",
            ["field", "bytes a document", "documents a second"],
            rows,
            note=f"Each row but the first is what the field adds to the document itself. {heap(engine)}",
        )
        results[engine.name] = {label: {"bytes": size, "documents_per_second": rate} for label, size, rate in rows}
    finish(options, results)


if __name__ == "__main__":
    main()
