"""Measure dense search in one process beside a search that reads all of float32, and HNSW beside usearch with bfloat16.

    python benchmarks/dense.py [--documents N] [--full] [--json]

Exact: our search walks int8 codes, and reads few float32 rows. The other search walks the float32 rows by a compiled
loop on all cores (batches: by BLAS), and scores the rows near the k-th best in float64. Both find the same hits with
the same scores, which is checked. They run in turns. The small collection has 5,000 vectors. The filter allows one
document in a hundred, and the other search copies the rows that are allowed. The vectors have 384 dimensions: 1,000
clusters with noise. `k` is 100. The ratio is the median over the rounds. Its spread is the smallest and the largest.

HNSW: our graph has int8 vectors. The other has bfloat16 vectors, 16 neighbours, and candidate lists of 128 (building)
and 96 (searching). Both score what they find by float32 vectors. It needs the extra `hnsw`.

With `--full`, a process opens a folder with a million documents without comparing checksums, and asks 200 queries. Its
resident memory is that of the process at the end. It has the parts of files that are in use.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _common import arguments, finish, table
from numba import njit
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.adapters.memory.dense import DenseMatrix
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.backends import Fingerprint, Request, RetrieverSchema, Schema
from hybridsearch.vectors import DenseVectors, EncodedBatch

DIMENSIONS, K, ROUNDS, QUERIES = 384, 100, 15, 200

Hits = list[tuple[NDArray[np.int64], NDArray[np.float64]]]


def generate(rows: int, start: int = 0) -> NDArray[np.float32]:
    """Unit vectors around 1,000 centres."""
    centres = np.random.default_rng(0).standard_normal((1000, DIMENSIONS), np.float32)
    rng = np.random.default_rng(start + 1)
    vectors = centres[rng.integers(0, len(centres), rows)] + rng.standard_normal((rows, DIMENSIONS), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@njit(nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def multiply(
    array: NDArray[np.float32], query: NDArray[np.float32], first: int, last: int, out: NDArray[np.float32]
) -> None:
    for row in range(first, last):
        total = np.float32(0)
        for column in range(array.shape[1]):
            total += array[row, column] * query[column]
        out[row] = total


class AllOfFloat32:
    """Exact search that reads all float32 rows."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self._array, self._cores = array, os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._cores)  # it starts its threads when they are needed

    def search(self, queries: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None) -> Hits:
        if allowed is not None:
            numbers = np.flatnonzero(allowed)
            return [(numbers[rows], scores) for rows, scores in AllOfFloat32(self._array[numbers]).search(queries)]
        if len(queries) > 1 or len(self._array) < 10_000:
            return [self._best(q, scores) for q, scores in zip(queries, queries @ self._array.T, strict=True)]
        scores = np.empty(len(self._array), np.float32)
        cuts = [len(scores) * part // self._cores for part in range(self._cores + 1)]
        list(self._pool.map(lambda a, b: multiply(self._array, queries[0], a, b, scores), cuts, cuts[1:]))
        return [self._best(queries[0], scores)]

    def _best(self, query: NDArray[np.float32], scores: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        least = np.partition(scores, len(scores) - K)[len(scores) - K] - 2 * DIMENSIONS * 2.0**-24
        near = np.flatnonzero(scores >= least)
        exact = (self._array[near].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        best = np.lexsort((near, -exact))[:K]
        return near[best], exact[best]


def in_turns(first: Callable[[int], object], second: Callable[[int], object]) -> tuple[list[float], list[float]]:
    """Seconds of both in each round. BLAS keeps the cores busy for a moment after its work, so there is a pause."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 2):
        for function, found in zip((first, second), times, strict=True):
            time.sleep(0.005)
            function(number)  # wakes the cores up again
            started = time.perf_counter()
            function(number)
            found.append(time.perf_counter() - started)
    return times[0][2:], times[1][2:]


def compared(name: str, queries: int, first: list[float], second: list[float]) -> list[object]:
    """A row of the table of exact search."""
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    a, b = (statistics.median(times) / queries * 1e3 for times in (first, second))
    return [name, a, b, statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"]


def exact(array: NDArray[np.float32], queries: NDArray[np.float32]) -> list[list[object]]:
    allowed = np.random.default_rng(3).random(len(array)) < 0.01
    rows = []
    for name, part, size, mask in (
        ("one query", array, 1, None),
        ("a batch of 64, a query", array, 64, None),
        ("one query with a filter", array, 1, allowed),
        ("a batch of 64 with a filter, a query", array, 64, allowed),
        ("small collection, one query", array[:5000], 1, None),
        ("small collection, a batch of 64, a query", array[:5000], 64, None),
    ):
        matrix, other = DenseMatrix.from_vectors(DenseVectors(part)), AllOfFloat32(part)
        order = np.arange(len(part), dtype=np.int32)
        for (ours, scores), (theirs, expected) in zip(
            matrix.search(queries[:20], K, order, mask), other.search(queries[:20], mask), strict=True
        ):
            assert ours.tolist() == theirs.tolist()
            assert scores.tolist() == expected.tolist()
        starts = [number % (len(queries) - size + 1) for number in range(ROUNDS + 2)]

        def theirs_at(
            n: int, size: int = size, starts: list[int] = starts, other: AllOfFloat32 = other, mask: Any = mask
        ) -> object:
            return other.search(queries[starts[n] : starts[n] + size], mask)

        def ours_at(
            n: int,
            size: int = size,
            starts: list[int] = starts,
            matrix: Any = matrix,
            order: Any = order,
            mask: Any = mask,
        ) -> object:
            return matrix.search(queries[starts[n] : starts[n] + size], K, order, mask)

        rows.append(compared(name, size, *in_turns(theirs_at, ours_at)))
    return rows


def graphs(array: NDArray[np.float32], queries: NDArray[np.float32]) -> list[list[object]]:
    from usearch.index import Index

    matrix = DenseMatrix.from_vectors(DenseVectors(array))
    order = np.arange(len(array), dtype=np.int32)
    expected = [set(rows.tolist()) for rows, _ in matrix.search(queries, K, order, None)]

    def build() -> Any:
        index = Index(
            ndim=DIMENSIONS, metric="ip", dtype="bf16", connectivity=16, expansion_add=128, expansion_search=96
        )
        for start in range(0, len(array), 8192):
            part = array[start : start + 8192]
            index.add(np.arange(start, start + len(part), dtype=np.uint64), part)
        return index

    started = time.perf_counter()
    other = build()
    middle = time.perf_counter()
    matrix.build_graph()
    builds = [middle - started, time.perf_counter() - middle]
    searches: list[Callable[[NDArray[np.float32]], NDArray[np.int32]]] = [
        lambda query: matrix.best(query, other.search(query, K + 16).keys.astype(np.int64), K, order)[0],
        lambda query: matrix.search_graph(query[None], K, order, None)[0][0],
    ]
    rows: list[list[object]] = []
    times: list[list[float]] = [[], []]
    right = [0, 0]
    for _ in range(5):
        for which, search in enumerate(searches):
            for query, wanted in zip(queries, expected, strict=True):
                started = time.perf_counter()
                found = search(query)
                times[which].append(time.perf_counter() - started)
                right[which] += len(wanted & set(found.tolist()))
    for which, name in enumerate(("usearch, bfloat16", "ours, int8")):
        recall = right[which] / 5 / K / len(queries)
        rows.append([name, builds[which], statistics.median(times[which]) * 1e3, recall])
    return rows


SCHEMA = Schema({"dense": RetrieverSchema("dense", Fingerprint("random", {}), dimensions=DIMENSIONS, metric="cosine")})


def batches(documents: int) -> Iterator[EncodedBatch]:
    for start in range(0, documents, 20_000):
        ids = range(start, min(start + 20_000, documents))
        vectors = DenseVectors(generate(len(ids), start))
        yield EncodedBatch([hs.Document(f"d{id}", f"text {id}") for id in ids], {"dense": vectors})


def status() -> dict[str, float]:
    """MiB of this process: all that is resident, and of that what is not in files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("resident", "VmRSS"), ("own", "RssAnon"))}


def open_and_ask(folder: str) -> None:
    """Print, as JSON, the seconds of opening, the median milliseconds of a query, and the memory before and after."""
    warm_up()
    before = status()
    backend = MemoryBackend(folder, verify=False)
    started = time.perf_counter()
    backend.open()
    opened = time.perf_counter() - started
    times = []
    for query in generate(QUERIES, -1):
        started = time.perf_counter()
        backend.search([Request("dense", query, K)])
        times.append(time.perf_counter() - started)
    after = status()
    print(json.dumps({"open_s": opened, "query_ms": statistics.median(times) * 1e3, "before": before, **after}))


def changes(folder: str) -> dict[str, float]:
    """Seconds of opening the folder without comparing checksums, of adding 1,000 documents, and of one change."""
    backend = MemoryBackend(folder, verify=False)
    found = {}
    started = time.perf_counter()
    backend.open()
    found["open"] = time.perf_counter() - started
    for name, ids in (("add 1,000", [f"n{i}" for i in range(1000)]), ("change one", ["d7"])):
        vectors = DenseVectors(generate(len(ids), 10**9))
        started = time.perf_counter()
        backend.upsert(EncodedBatch([hs.Document(id, "new") for id in ids], {"dense": vectors}))
        found[name] = time.perf_counter() - started
    backend.close()
    return found


def in_a_folder(documents: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        backend = MemoryBackend(folder)
        backend.create(SCHEMA)
        for batch in batches(documents):
            backend.upsert(batch)
        backend.optimize()
        backend.close()
        done = subprocess.run(
            [sys.executable, __file__, "--folder", folder], check=True, capture_output=True, text=True
        )
        return {**json.loads(done.stdout), "changes": changes(folder)}


def main() -> None:
    options = arguments(__doc__, documents={"type": int, "default": 100_000}, folder={"help": "for our own use"})
    if options.folder:
        open_and_ask(options.folder)
        return
    warm_up()
    array, queries = generate(options.documents), generate(QUERIES, -1)
    found: dict[str, Any] = {"exact": exact(array, queries)}
    table(
        f"Exact dense search: {options.documents:,} vectors of {DIMENSIONS} dimensions, top {K}, ms",
        ["what", "all of float32", "codes", "ratio", "spread"],
        found["exact"],
        f"{ROUNDS} rounds in turns. Same hits and same scores.",
    )
    found["hnsw"] = graphs(array, queries)
    table("HNSW", ["graph", "build s", "query ms", f"recall@{K}"], found["hnsw"], "5 rounds of 200 queries in turns.")
    if options.full:
        found["folder"] = in_a_folder(1_000_000)
        table(
            "A folder with 1,000,000 documents",
            ["what", "value"],
            [
                ["open, s", found["folder"]["open_s"]],
                ["one query, ms", found["folder"]["query_ms"]],
                ["resident before, MiB", found["folder"]["before"]["resident"]],
                ["resident after 200 queries, MiB", found["folder"]["resident"]],
                ["of that not in files, MiB", found["folder"]["own"]],
                *[[f"{name}, s", seconds] for name, seconds in found["folder"]["changes"].items()],
            ],
        )
    finish(options, found)


if __name__ == "__main__":
    main()
