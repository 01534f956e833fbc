"""Tests of encoding on a Ray cluster, on two nodes on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.corpus import CorpusStore
from hybridsearch.encoders import Encoder
from hybridsearch.errors import EncodingError, FingerprintMismatchError, InvalidArgumentError, MissingExtraError
from hybridsearch.vectors import DenseVectors

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"include_dashboard": False, "object_store_memory": 100_000_000}


class Nodes:
    """A cluster of a head without workers and of two nodes."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        self.nodes = [self.add(), self.add()]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=2, **SMALL)

    def kill_one(self) -> None:
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # listen on loopback only
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        pytest.importorskip("ray")
        there = Nodes()
        yield there
        there.cluster.shutdown()


@pytest.fixture
def on(nodes: Nodes) -> hs.RayCluster:
    return hs.RayCluster(nodes.cluster.address, workers=3)


def documents(count: int = 60) -> list[hs.Document]:
    words = ["wing", "lift", "drag", "flow", "shock", "plate", "heat", "layer", "jet", "cone"]
    return [
        hs.Document(str(n), " ".join(words[(n * step) % 10] for step in range(1, 6)) + f" {n}", metadata={"year": n})
        for n in range(count)
    ]


def make_encoder(log: Path, seconds: float = 0.0, deadly: Sequence[str] = (), wrong: str = "") -> Encoder:
    """An encoder that notes each text that it has encoded, and whose process dies at some texts, once each.

    The class is made here, so that it travels to workers that cannot import this module.
    """

    class Noting:
        def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
            time.sleep(seconds)
            for text in texts:
                marker = log.with_name(f"died-{hashlib.sha256(text.encode()).hexdigest()}")
                if text in deadly and not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            if wrong in texts:
                raise EncodingError("The model gives NaN for text number 3.")
            with log.open("a") as file:
                file.write("".join(f"{text}\n" for text in texts))
            rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")[:4] for text in texts]
            return DenseVectors(np.array(rows, dtype=np.float32) / 2**32, "dot")

        def encode_queries(self, texts: Sequence[str]) -> list[Any]:
            return list(self.encode_documents(texts).array)

        def fingerprint(self) -> Fingerprint:
            return Fingerprint("noting", {"seconds": seconds})

        def schema(self) -> RetrieverSchema:
            return RetrieverSchema("dense", self.fingerprint(), dimensions=4, metric="dot")

    return Noting()


def content(folder: Path) -> dict[str, Any]:
    """The documents of a store in stored order, with the bytes of their vectors. Damaged files raise an error."""
    found: dict[str, Any] = {}
    for batch in CorpusStore.open(folder).batches():
        for row, document in enumerate(batch.documents):
            assert document.id not in found
            rows = [row] if batch.passages is None else batch.passages.rows([row]).tolist()
            vectors = []
            for one in batch.vectors.values():
                at = rows if len(one) != len(batch) else [row]
                if isinstance(one, DenseVectors):
                    vectors.append(one.array[at].tobytes())
                else:
                    words = one.vocabulary.terms
                    cells = [one.matrix[[number]].tocoo() for number in at]
                    vectors.append(
                        [sorted(zip((words[i] for i in c.coords[1]), c.data.tolist(), strict=True)) for c in cells]
                    )
            found[document.id] = document.to_dict(), vectors
    return found


@pytest.mark.slow
@pytest.mark.parametrize("passages", [None, hs.Passages(size=8)])
def test_the_store_is_that_of_one_process(
    tmp_path: Path, on: hs.RayCluster, minilm: str, passages: hs.Passages | None
) -> None:
    """Documents, order and bits of the vectors are the same, with ids that come twice and after changes."""
    encoders = {"bm25": hs.BM25(), "dense": hs.Dense(minilm, cache=False)}
    source = documents(40)
    twice = [*source, hs.Document("3", "another wing"), hs.Document("3", "the last wing")]
    changed = [*source[:3], hs.Document("3", "the last wing"), hs.Document("4", "a changed cone"), *source[5:]]
    with hs.HybridSearch(encoders, tmp_path / "one", passages=passages) as one:
        one.index(twice, batch_size=16)
        report = hs.encode_on_ray(twice, tmp_path / "many", encoders, passages=passages, cluster=on, batch_size=16)
        assert (report.indexed, report.unchanged, report.duplicates) == (41, 0, ("3",))
        assert content(tmp_path / "many") == content(tmp_path / "one")
        one.index(changed, batch_size=16)
    report = hs.encode_on_ray(changed, tmp_path / "many", encoders, passages=passages, cluster=on, batch_size=16)
    assert (report.indexed, report.unchanged) == (1, 39)
    assert content(tmp_path / "many") == content(tmp_path / "one")
    with hs.open(tmp_path / "many") as many, hs.open(tmp_path / "one") as one:
        assert many.search("changed cone").ids == one.search("changed cone").ids
    with pytest.raises(FingerprintMismatchError, match="other encoders"):
        hs.encode_on_ray(source, tmp_path / "many", {"bm25": hs.BM25(language="german")}, cluster=on)


@pytest.mark.slow
def test_an_engine_is_loaded_from_the_parts(tmp_path: Path, on: hs.RayCluster) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        report = search.index(documents(), via=tmp_path / "via", cluster=on, batch_size=8)
        assert report.indexed == search.count() == 60
        report = search.index(documents(), via=tmp_path / "via", cluster=on, batch_size=8)
        assert (report.indexed, report.unchanged) == (0, 60)
    assert content(tmp_path / "index") == content(tmp_path / "via")


@pytest.mark.slow
def test_workers_that_die_are_replaced(tmp_path: Path, on: hs.RayCluster) -> None:
    source = documents()
    deadly = [source[n].text for n in (0, 17, 18, 40, 59)]
    encoders = {"noting": make_encoder(tmp_path / "log", deadly=deadly)}
    hs.encode_on_ray(source, tmp_path / "many", encoders, cluster=on, batch_size=6)
    assert len([*tmp_path.glob("died-*")]) == 5
    check_complete(tmp_path, source)


@pytest.mark.slow
def test_a_node_that_dies_is_not_missed(tmp_path: Path, nodes: Nodes, on: hs.RayCluster) -> None:
    source = documents()
    encoders = {"noting": make_encoder(tmp_path / "log", seconds=0.5)}
    killer = threading.Thread(target=lambda: (when(lambda: parts(tmp_path) > 3), nodes.kill_one()))
    killer.start()
    try:
        hs.encode_on_ray(source, tmp_path / "many", encoders, cluster=on, batch_size=2)
    finally:
        killer.join()
        nodes.nodes.append(nodes.add())
    check_complete(tmp_path, source)


@pytest.mark.slow
def test_a_driver_that_dies_loses_nothing(tmp_path: Path, on: hs.RayCluster) -> None:
    """The next call encodes only what is missing, and makes the parts that an undisturbed call makes."""
    source, encoders = documents(), {"noting": make_encoder(tmp_path / "log", seconds=0.5)}
    program = tmp_path / "driver.py"
    program.write_text(
        "import sys, ray.cloudpickle, hybridsearch as hs\n"
        "source, folder, encoders, cluster = ray.cloudpickle.load(open(sys.argv[1], 'rb'))\n"
        "hs.encode_on_ray(source, folder, encoders, cluster=cluster, batch_size=2)\n"
    )
    import ray.cloudpickle

    (tmp_path / "call").write_bytes(ray.cloudpickle.dumps((source, tmp_path / "many", encoders, on)))
    driver = subprocess.Popen([sys.executable, program, tmp_path / "call"])
    when(lambda: parts(tmp_path) > 5 or driver.poll() is not None)
    driver.kill()
    driver.wait()
    assert 5 < parts(tmp_path) < 30
    time.sleep(2)  # the cluster ends the workers
    finished = [
        text
        for path in (tmp_path / "many" / "staging").glob("*[!p]/part.parquet")
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
    ]
    before = Counter(log_of(tmp_path))
    hs.encode_on_ray(source, tmp_path / "many", encoders, cluster=on, batch_size=2)
    assert len(finished) > 10
    assert all(Counter(log_of(tmp_path))[text] == before[text] for text in finished)
    check_complete(tmp_path, source)
    hs.encode_on_ray(source, tmp_path / "again", encoders, cluster=on, batch_size=2)
    assert [p.name for p in CorpusStore.open(tmp_path / "many").parts] == [
        p.name for p in CorpusStore.open(tmp_path / "again").parts
    ]


@pytest.mark.slow
def test_an_error_of_a_worker_ends_the_call_and_a_damaged_part_is_encoded_again(
    tmp_path: Path, on: hs.RayCluster
) -> None:
    source, log = documents(), tmp_path / "log"
    encoders = {"noting": make_encoder(log, wrong=source[-1].text)}
    with pytest.raises(EncodingError, match="text number 3"):
        hs.encode_on_ray(source, tmp_path / "many", encoders, cluster=on, batch_size=6)
    finished = [path for path in (tmp_path / "many" / "staging").iterdir() if path.suffix != ".tmp"]
    assert finished
    damaged = finished[0] / "part.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20] + bytes(20))
    before = len(log_of(tmp_path))
    hs.encode_on_ray(source, tmp_path / "many", {"noting": make_encoder(log)}, cluster=on, batch_size=6)
    assert len(log_of(tmp_path)) - before == 60 - 6 * (len(finished) - 1)
    check_complete(tmp_path, source)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="ray"):
        hs.encode_on_ray(documents(), tmp_path / "many", {"bm25": hs.BM25()})
    with pytest.raises(InvalidArgumentError, match="all its machines share"):
        hs.encode_on_ray(documents(), "hf://datasets/me/encoded", {"bm25": hs.BM25()})
    with hs.HybridSearch({"bm25": hs.BM25()}) as search, pytest.raises(InvalidArgumentError, match="--via"):
        search.index(documents(), cluster=hs.RayCluster())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"address": "local"}, "ray://head"),
        ({"workers": 0}, "workers"),
        ({"cpus": -1}, "cpus"),
        ({"gpus": "1"}, "gpus"),
    ],
)
def test_wrong_arguments_of_a_cluster(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        hs.RayCluster(**wrong)


def check_complete(folder: Path, source: Sequence[hs.Document]) -> None:
    expected = make_encoder(folder / "expected").encode_documents([one.text for one in source])
    found = content(folder / "many")
    assert [*found] == [one.id for one in source]
    for one, row in zip(source, expected.array, strict=True):
        assert found[one.id] == (one.to_dict(), [row.tobytes()])
    assert not (folder / "many" / "staging").exists()


def log_of(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def parts(folder: Path) -> int:
    staging = folder / "many" / "staging"
    return len([path for path in staging.glob("*") if path.suffix != ".tmp"])


def when(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
