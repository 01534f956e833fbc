"""Measure the latency of one hybrid query at 100 thousand documents: BM25, 384 dense dimensions, RRF, fetching.

    python benchmarks/hybrid_latency.py [--documents N] [--json]

The model's forward pass is not measured, because the query vectors are looked up. An exact dense search has to read the
int8 codes of all vectors once. `overhead_ms` is the latency minus one read of as many bytes by all cores, measured in
turns. The second row answers the dense part by HNSW. Each text has 80 words from a Zipf vocabulary of 50,000 words. The
vectors are 1,000 clusters with noise. It needs the extra `hnsw`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

import numpy as np
from _common import arguments, finish, read_bandwidth, table
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.vectors import DenseVectors

DIMENSIONS = 384
QUERIES = 200


class Precomputed:
    """An encoder that looks up its vectors, so that no time of a model is measured."""

    def __init__(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        self._vectors = vectors

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.stack([self._vectors[text] for text in texts]), "cosine")

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self._vectors[text] for text in texts]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("precomputed", {"dimensions": DIMENSIONS})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=DIMENSIONS, metric="cosine")


def generate(documents: int) -> tuple[list[hs.Document], list[str], dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50_000)])
    odds = 1 / np.arange(1, len(words) + 1)
    odds /= odds.sum()
    texts = [" ".join(row) for row in words[rng.choice(len(words), size=(documents, 80), p=odds)]]
    queries = [" ".join(row) for row in words[rng.choice(len(words), size=(QUERIES, 6), p=odds)]]
    centres = rng.normal(size=(1000, DIMENSIONS))
    rows = centres[rng.integers(0, len(centres), documents + QUERIES)] + rng.normal(
        size=(documents + QUERIES, DIMENSIONS)
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = dict(zip(texts + queries, rows.astype(np.float32), strict=False))
    return [hs.Document(f"d{i}", text, metadata={"n": i}) for i, text in enumerate(texts)], queries, vectors


def latency(search: hs.HybridSearch, queries: list[str], **arguments: object) -> list[float]:
    """Milliseconds of each query. Queries are asked one at a time, after a warm-up."""
    times = []
    for query in [*queries[:20], *queries]:
        started = time.perf_counter()
        search.search(query, 10, **arguments)
        times.append((time.perf_counter() - started) * 1e3)
    return times[20:]


def overhead(search: hs.HybridSearch, queries: list[str], megabytes: int) -> tuple[float, float]:
    """Median milliseconds of one read of the codes, and of the rest of a query.

    Both are measured in turns of twenty queries, because the bandwidth of a shared machine changes within seconds.
    """
    cores = os.cpu_count() or 1
    reads, extra = [], []
    for start in range(0, len(queries), 20):
        read = megabytes * 2**20 / read_bandwidth(cores, megabytes) * 1e3
        some = queries[start : start + 20]
        reads.append(read)
        extra.append(statistics.median(latency(search, some)) - read)
    return statistics.median(reads), statistics.median(extra)


def growth(documents: int) -> dict[str, float]:
    """Median milliseconds of an exact hybrid query and of its parts."""
    texts, queries, vectors = generate(documents)
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": Precomputed(vectors)})
    search.index(texts, batch_size=20_000)
    asked = {"hybrid_ms": None, "bm25_ms": ["bm25"], "dense_ms": ["dense"]}
    medians = {name: statistics.median(latency(search, queries, retrievers=only)) for name, only in asked.items()}
    return {"documents": documents, **medians}


def main() -> None:
    options = arguments(__doc__, documents={"type": int, "default": 100_000})
    warm_up()
    documents, queries, vectors = generate(options.documents)
    megabytes = round(options.documents * DIMENSIONS / 2**20)
    rows, found, top = [], {}, {}
    for name, backend_options in (("exact", {}), ("hnsw", {"hnsw": True})):
        search = hs.HybridSearch(
            {"bm25": hs.BM25(), "dense": Precomputed(vectors)}, backend_options=backend_options, candidates=100
        )
        started = time.perf_counter()
        search.index(documents, batch_size=20_000)
        build = time.perf_counter() - started
        times = latency(search, queries)
        top[name] = [search.search(query, 100, retrievers=["dense"]).ids for query in queries]
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        bm25 = statistics.median(latency(search, queries, retrievers=["bm25"]))
        dense = statistics.median(latency(search, queries, retrievers=["dense"]))
        rows.append([name, p50, p95, bm25, dense, build])
        if name == "exact":
            found["read_ms"], found["overhead_ms"] = overhead(search, queries, megabytes)
        found |= {f"{name}_p50_ms": p50, f"{name}_p95_ms": p95, f"{name}_build_s": build}
    found["hnsw_recall_at_100"] = statistics.mean(
        len(set(a) & set(b)) / len(a) for a, b in zip(top["exact"], top["hnsw"], strict=True)
    )
    table(
        f"Milliseconds of one hybrid query: {options.documents:,} documents, top 10, 100 candidates each",
        ["dense search", "hybrid p50", "hybrid p95", "BM25 alone p50", "dense alone p50", "index s"],
        rows,
        f"one read of the codes by all cores: {found['read_ms']:.2f} ms; "
        f"exact overhead {found['overhead_ms']:.2f} ms; HNSW recall@100 {found['hnsw_recall_at_100']:.3f}",
    )
    found["growth"] = [growth(size) for size in [10_000, 30_000] + [1_000_000] * options.full]
    table(
        "Milliseconds of an exact hybrid query by number of documents",
        ["documents", "hybrid p50", "BM25 alone p50", "dense alone p50"],
        [(f"{row['documents']:,}", *list(row.values())[1:]) for row in found["growth"]],
    )
    finish(options, found)


if __name__ == "__main__":
    main()
