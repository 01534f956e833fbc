"""Predict the latency of a query from the number of shards, their documents, their skew and the tail of each shard.

    python benchmarks/simulate_shards.py [--queries N] [--times 10000=12,200000=30] [--plan N:SHARDS,...] [--json]

The model. A shard of n documents answers a query in `t(n) * difficulty + pause`. The difficulty is that of the query,
so all shards of one query share it. The pause is how much longer one answer took than the shortest to the same query,
until it was in the process that asks. It is drawn for each shard, and makes the tail. A query waits for the slowest
shard, and at least as long as its node needs for the sum of its shards:

    latency = overhead(shards) + contention * max(slowest shard, sum of the shards of a node / cores of a node)

What is measured to calibrate it, with one process for each shard and one thread in each: t(n) at two sizes (a straight
line), difficulties and pauses (the same queries in several rounds), the overhead of one and two shards, and the
contention of two busy cores. The prediction is compared with measurements at three other sizes in 1, 2 and 4 shards,
and in two shards of which one has three times the documents of the other. All indexes are there at the same time and
are asked in turns, because a shared machine is not equally fast all the time. A query asks for 100 hits by exact dense
vectors of 384 dimensions.

`--plan` prints predictions for clusters with a node for each shard, with the skew 0 and .5: the largest shard then has
1.5 times the mean. `--times` gives t(n) of a shard of your engine in milliseconds, at two or more sizes, and a power of
n is fitted to them. Beyond these sizes the prediction is an extrapolation. The overhead is then the merging of hits.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from _common import arguments, best_of, finish, table
from numpy.typing import NDArray

from hybridsearch.adapters.memory import MemoryBackend, threads
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.backends import Fingerprint, Request, RetrieverSchema, Schema
from hybridsearch.documents import Document
from hybridsearch.vectors import DenseVectors, EncodedBatch

CALIBRATED = (10_000, 40_000)
CHECKED = (20_000, 60_000, 100_000)
SHARDS = (1, 2, 4)
SKEW = 0.5
CHECKS = [(n, shards, 0.0) for n in CHECKED for shards in SHARDS] + [(max(CHECKED), 2, SKEW)]
ROUNDS = 5
DRAWN = 20_000
DIMENSIONS = 384
HITS = 100

Milliseconds: TypeAlias = NDArray[np.float64]
Sizes: TypeAlias = tuple[int, ...]


class Shards:
    """Processes with one shard each. `ask` sends a query to all of them and merges their hits.

    Args:
        rows: Vectors of the documents, which are cut into consecutive shards.
        sizes: Number of documents of each shard.
        queries: Vectors of the queries that `ask` takes by their number.
    """

    def __init__(self, rows: NDArray[np.float32], sizes: Sequence[int], queries: NDArray[np.float32]) -> None:
        self.pipes, self.processes = [], []
        starts = np.cumsum([0, *sizes]).tolist()
        context = mp.get_context("fork")
        for start, size in zip(starts, sizes, strict=False):
            ours, theirs = context.Pipe()
            given = (theirs, rows[start : start + size], start, queries)
            process = context.Process(target=_serve, args=given, daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def wait(self) -> None:
        """Wait until all shards are indexed."""
        for pipe in self.pipes:
            pipe.recv()

    def ask(self, query: int) -> tuple[float, list[float]]:
        """Milliseconds of a query, and of each shard."""
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(query)
        answers = [pipe.recv() for pipe in self.pipes]
        merge([hits for _, hits in answers])
        return (time.perf_counter() - started) * 1e3, [seconds * 1e3 for seconds, _ in answers]

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


def _serve(pipe: Any, rows: NDArray[np.float32], start: int, queries: NDArray[np.float32]) -> None:
    threads.WORKERS = 1
    backend = MemoryBackend()
    fingerprint = Fingerprint("given", {})
    backend.create(Schema({"dense": RetrieverSchema("dense", fingerprint, dimensions=rows.shape[1], metric="cosine")}))
    documents = [Document(str(start + row), "") for row in range(len(rows))]
    backend.upsert(EncodedBatch(documents, {"dense": DenseVectors(rows, "cosine")}))
    backend.refresh()
    pipe.send("ready")
    while (query := pipe.recv()) is not None:
        started = time.perf_counter()
        rankings = backend.search([Request("dense", queries[query], HITS)])
        found = [(ranking.ids, ranking.scores) for ranking in rankings]
        pipe.send((time.perf_counter() - started, found))


def merge(answers: Sequence[Sequence[tuple[Sequence[str], NDArray[np.float64]]]]) -> list[list[str]]:
    """The best ids of each retriever, from the hits of all shards."""
    merged = []
    for of_retriever in zip(*answers, strict=True):
        scores = np.concatenate([scores for _, scores in of_retriever])
        ids = [id for ids, _ in of_retriever for id in ids]
        merged.append([ids[place] for place in np.argsort(-scores, kind="stable")[:HITS]])
    return merged


@dataclass(frozen=True)
class Model:
    """What the calibration has found.

    Attributes:
        time: Milliseconds of a shard by its number of documents.
        difficulty: Factors of queries.
        pauses: Milliseconds that a whole query to one shard took longer than its shortest time, with waking up the
            processes.
        overhead: Milliseconds by number of shards.
        contention: Factor of a shard's time while another core is busy.
    """

    time: Callable[[NDArray[np.float64]], Milliseconds]
    difficulty: NDArray[np.float64]
    pauses: Milliseconds
    overhead: Callable[[int], float]
    contention: float

    def latencies(self, sizes: Sizes, cores: int | None, *, undisturbed: bool = False) -> Milliseconds:
        """Milliseconds of drawn queries. `cores` is that of the one node with all shards. None: a node for each."""
        random, shards = np.random.default_rng(0), len(sizes)
        taken = np.empty(DRAWN)
        for start in range(0, DRAWN, 1000):
            pauses = 0.0 if undisturbed else random.choice(self.pauses, (1000, shards))
            times = self.time(np.array(sizes, dtype=np.float64)) * random.choice(self.difficulty, (1000, 1)) + pauses
            slowest = times.max(axis=1)
            if cores is not None and shards > 1:
                slowest = self.contention * np.maximum(slowest, times.sum(axis=1) / cores)
            taken[start : start + 1000] = slowest
        return taken + self.overhead(shards)


def calibrate(measured: dict[Sizes, tuple[Milliseconds, Milliseconds]]) -> Model:
    """The model. `measured` has the milliseconds of queries and of their shards, of each round."""
    medians, pauses, difficulty, rest = [], [], [], []
    for size in CALIBRATED:
        whole, times = measured[(size,)]
        of_query = times[:, :, 0].min(axis=0)
        medians.append(float(np.median(of_query)))
        pauses.append((whole - whole.min(axis=0)).ravel())
        difficulty.append(of_query / np.median(of_query))
        rest.append(float(np.median(whole.min(axis=0) - of_query)))
    slope = (medians[1] - medians[0]) / (CALIBRATED[1] - CALIBRATED[0])
    first, alone = medians[0] - slope * CALIBRATED[0], statistics.mean(rest)
    whole, times = measured[(CALIBRATED[0],) * 2]
    slowest = times.max(axis=2).min(axis=0)
    more = max(0.0, float(np.median(whole.min(axis=0) - slowest)) - alone)
    return Model(
        lambda n: first + slope * n,
        np.concatenate(difficulty),
        np.concatenate(pauses),
        lambda shards: alone + more * (shards - 1),
        max(1.0, float(np.median(slowest)) / medians[0]),
    )


def merging() -> float:
    """Milliseconds that the hits of one more shard take to merge."""
    random = np.random.default_rng(0)
    hits = [[([f"d{n}" for n in range(HITS)], np.sort(random.random(HITS))[::-1])] * 2 for _ in range(64)]
    return best_of(lambda: merge(hits)) * 1e3 / 64


def sizes_of(documents: int, shards: int, skew: float) -> Sizes:
    """Documents of each shard, from `1 - skew` to `1 + skew` times the mean."""
    shares = np.ones(shards) if shards == 1 else np.linspace(1 - skew, 1 + skew, shards)
    return tuple([int(documents / shards * share) for share in shares])


def power(times: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The power of n through times such as "10000=12,200000=30"."""
    pairs = [tuple(map(float, pair.split("="))) for pair in times.split(",")]
    exponent, log = np.polyfit(*np.log(np.array(pairs)).T, 1)
    return lambda n: np.exp(log) * n**exponent


def percentiles(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.percentile(values, [50, 95, 99])]


def measure(queries: int) -> dict[Sizes, tuple[Milliseconds, Milliseconds]]:
    """Milliseconds of all queries of all rounds, and of their shards, by the sizes of the shards."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(1000, DIMENSIONS)).astype(np.float32)[random.integers(0, 1000, max(CHECKED) + queries)]
    rows += random.standard_normal(rows.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = [(CALIBRATED[0],), (CALIBRATED[1],), (CALIBRATED[0],) * 2, *(sizes_of(*check) for check in CHECKS)]
    running = {sizes: Shards(rows[queries:], sizes, rows[:queries]) for sizes in wanted}
    for shards in running.values():
        shards.wait()
    rounds: dict[Sizes, list[Any]] = {sizes: [] for sizes in wanted}
    for number in range(ROUNDS + 1):
        for sizes, shards in running.items():
            asked = [shards.ask(query) for query in range(queries)]
            if number:  # the first round warms up
                rounds[sizes].append(asked)
    for shards in running.values():
        shards.close()
    return {
        sizes: (np.array([[a for a, _ in row] for row in of]), np.array([[b for _, b in row] for row in of]))
        for sizes, of in rounds.items()
    }


def main() -> None:
    plan = "1000000:1,100000000:25,10000000000:2500"
    extra = {"queries": {"type": int, "default": 100}, "times": {"default": ""}, "plan": {"default": plan}}
    options = arguments(__doc__, **extra)
    warm_up()
    show(measure(options.queries), options)


def show(measured: dict[Sizes, tuple[Milliseconds, Milliseconds]], options: Any) -> None:
    """Print the predictions beside the measurements, and the predictions for clusters."""
    model, cores = calibrate(measured), os.cpu_count() or 1
    rows, ratios = [], []
    for n, count, skew in CHECKS:
        sizes = sizes_of(n, count, skew)
        whole = measured[sizes][0]
        found = [float(np.median(whole.min(axis=0))), *percentiles(whole)[:2]]
        quiet = float(np.median(model.latencies(sizes, cores, undisturbed=True)))
        predicted = [quiet, *percentiles(model.latencies(sizes, cores))[:2]]
        ratios.append([one / other for one, other in zip(predicted, found, strict=True)])
        rows.append([f"{n:,}", count, skew, *(f"{a:.1f} / {b:.1f}" for a, b in zip(predicted, found, strict=True))])
    low, high = np.min(ratios, axis=0), np.max(ratios, axis=0)
    names = ["best of the rounds", "p50", "p95"]
    said = [f"{name} {a:.2f} to {b:.2f}" for name, a, b in zip(names, low, high, strict=True)]
    table(
        f"Milliseconds of a query, predicted / measured: {cores} cores, {options.queries} queries in {ROUNDS} rounds",
        ["documents", "shards", "skew", *names],
        rows,
        f"predicted by measured: {', '.join(said)}; contention {model.contention:.2f}; "
        f"pauses p50 {np.median(model.pauses):.2f} ms, "
        f"p95 {np.percentile(model.pauses, 95):.2f} ms; one more shard {model.overhead(2) - model.overhead(1):.2f} ms",
    )
    if options.times:
        one_more = merging()
        model = Model(power(options.times), model.difficulty, model.pauses, lambda shards: one_more * shards, 1.0)
    plans = []
    for text in options.plan.split(","):
        n, count = map(int, text.split(":"))
        for skew in (0.0, SKEW) if count > 1 else (0.0,):
            quiet = float(np.median(model.latencies(sizes_of(n, count, skew), None, undisturbed=True)))
            plans.append([f"{n:,}", count, skew, quiet, *percentiles(model.latencies(sizes_of(n, count, skew), None))])
    table(
        f"Predicted: a node for each shard, t(n) {f'from {options.times}' if options.times else 'of the engine above'}",
        ["documents", "shards", "skew", "p50 without pauses", "p50 ms", "p95 ms", "p99 ms"],
        plans,
    )
    finish(options, {"checks": rows, "plans": plans, "contention": model.contention})


if __name__ == "__main__":
    main()
