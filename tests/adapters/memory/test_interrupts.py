"""Tests of Ctrl-C at any moment: committed changes stay whole, and the interrupted object can be used.

This file is also the program that real signals interrupt: `python test_interrupts.py FOLDER SEED INTERRUPTS`. It prints
its counts as one line of JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.adapters.memory.interrupts import interrupted as interrupted_meanwhile
from hybridsearch.adapters.memory.interrupts import whole
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.indexing.copying import copy
from hybridsearch.vectors import DenseVectors

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "layer", "plate", "jet", "nozzle", "gas", "wave", "speed"]
QUERIES = ["wing", "lift of a wing", "heat and flow", "nozzle nozzle jet"]
IDS = [f"d{number:04}" for number in range(600)]


class Hashed:
    """A dense encoder without a model. Its vectors are random and depend on the text."""

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.stack([self._vector(text) for text in texts]))

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.stack([self._vector(text) for text in texts])

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("hashed", {})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=16, metric="cosine")

    def _vector(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        vector = np.random.default_rng(list(text.encode())).standard_normal(16).astype(np.float32)
        return vector / np.linalg.norm(vector)


def retrievers() -> dict[str, Any]:
    return {"bm25": hs.BM25(), "dense": Hashed()}


def document(id: str, version: int) -> hs.Document:
    rng = random.Random(f"{id} {version}")
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 20)))
    return hs.Document(id, text, metadata={"version": version})


def interrupted(work: Callable[[], Any], delay: float) -> bool:
    """Do `work` with a real SIGINT after `delay` seconds. Returns whether the signal came before the end."""
    done = False

    def send() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        work()
        done = True
        sender.join()
        time.sleep(0.2)
    except KeyboardInterrupt:
        sender.join()
        return not done
    return False  # Python prints an interrupt that comes while an object is freed, and goes on


class Campaign:
    """An index that is interrupted, and its possible content: versions by id."""

    def __init__(self, folder: Path | None, seed: int, at: Path) -> None:
        self.rng = random.Random(seed)
        self.folder, self.at = folder, at
        self.held: dict[str, int] = {}
        self.version = 0
        self.usual: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.search = self.new()

    def new(self) -> hs.HybridSearch:
        return hs.HybridSearch(retrievers(), backend="memory" if self.folder is None else self.folder)

    def stored(self, search: hs.HybridSearch) -> dict[str, int]:
        pairs = [(d.id, d.metadata["version"]) for batch in search.backend.scan(100) for d in batch.documents]
        assert len(dict(pairs)) == len(pairs), "a document is stored twice"
        return dict(pairs)

    def step(self) -> None:
        name = self.rng.choice(
            ["upsert", "index", "delete", "search", "optimize", "scan", "save", "copy", "close", "search_many"]
        )
        if name == "close" and self.folder is None:
            name = "upsert"
        work, possible = getattr(self, f"_{name}")()
        usual = self.usual.get(name, 0.02)
        started = time.perf_counter()
        hit = interrupted(work, self.rng.uniform(0, usual))
        if not hit:
            self.usual[name] = usual = 0.5 * usual + 0.5 * min(2.0, time.perf_counter() - started)
        else:
            self.usual[name] = usual * 1.05
        self.counts[name] += hit
        if name == "close":
            self.search.close()
            self.search = self.new()
        self.check(name, possible)

    def check(self, name: str, possible: Sequence[dict[str, int]]) -> None:
        search = self.search
        if search.backend.open() is None:
            assert not self.held
            return
        held = self.stored(search)
        if (
            not held and not self.held
        ):  # nothing was stored before, so the interrupted call may have made the index or not
            return
        assert held in possible, f"after {name}: {len(held)} documents, allowed {[len(p) for p in possible]}"
        self.held = held
        assert search.count() == len(held)
        found = search.get(IDS)
        assert [None if d is None else d.metadata["version"] for d in found] == [held.get(id) for id in IDS]
        if self.rng.random() < 0.25:
            self.compare(search)

    def compare(self, search: hs.HybridSearch) -> None:
        """Assert that all answers are those of a new index."""
        if not self.held:
            return
        with hs.HybridSearch(retrievers()) as fresh:
            fresh.index([document(id, version) for id, version in self.held.items()], show_progress_bar=False)
            for got, right in zip(search.search_many(QUERIES, 30), fresh.search_many(QUERIES, 30), strict=True):
                assert got.ids == right.ids
                assert [hit.document for hit in got] == [hit.document for hit in right]

    def end(self) -> None:
        """The index as another process finds it."""
        self.search.upsert([document("last", 0)])
        self.held["last"] = 0
        if self.folder is None:
            self.search.save(self.at / "end")
        self.search.close()
        with hs.open(self.folder or self.at / "end", retrievers={"dense": Hashed()}) as again:
            assert self.stored(again) == self.held
            self.compare(again)
        left = [path for path in self.at.rglob("*") if path.name.endswith((".tmp", ".saving"))]
        assert not [path for path in left if "copied" not in path.parts], left

    def _batch(self, size: int) -> list[hs.Document]:
        self.version += 1
        return [document(id, self.version) for id in self.rng.sample(IDS, size)]

    def _upsert(self) -> Any:
        batch = self._batch(self.rng.randint(1, 5))
        return lambda: self.search.upsert(batch), [self.held, self.held | {d.id: self.version for d in batch}]

    def _index(self) -> Any:
        batch = self._batch(200)
        cuts = range(0, 201, 50)
        possible = [self.held | {d.id: self.version for d in batch[:cut]} for cut in cuts]
        return lambda: self.search.index(batch, batch_size=50, show_progress_bar=False), possible

    def _delete(self) -> Any:
        ids = self.rng.sample(IDS, self.rng.choice([1, 20, 200]))
        after = {id: version for id, version in self.held.items() if id not in ids}
        return lambda: self.held and self.search.delete(ids), [self.held, after]

    def _search(self) -> Any:
        return lambda: self.held and self.search.search(self.rng.choice(QUERIES), 20), [self.held]

    def _search_many(self) -> Any:
        filter = self.rng.choice([None, {"version": {"$gte": self.version - 5}}])
        return lambda: self.held and self.search.search_many(QUERIES * 5, 20, filter=filter), [self.held]

    def _optimize(self) -> Any:
        return lambda: self.held and self.search.backend.optimize(), [self.held]  # type: ignore[attr-defined]

    def _scan(self) -> Any:
        return lambda: self.held and list(self.search.backend.scan(7)), [self.held]

    def _save(self) -> Any:
        def work() -> None:
            if self.held:
                self.search.save(self.at / f"saved{self.rng.randint(0, 1)}", overwrite=True)

        return work, [self.held]

    def _copy(self) -> Any:
        def work() -> None:
            if self.held:
                copy(self.search.backend, self.at / "copied", show_progress_bar=False)

        shutil.rmtree(self.at / "copied", ignore_errors=True)
        return work, [self.held]

    def _close(self) -> Any:
        return self.search.close, [self.held]


def run(folder: Path, seed: int, interrupts: int) -> Counter[str]:
    """Run this program in another process. Returns the number of interrupts in each kind of call."""
    folder.mkdir()
    command = [sys.executable, __file__, str(folder), str(seed), str(interrupts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["failures"], said["failures"][0]
    return Counter(said["counts"])


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
@pytest.mark.parametrize("seed", [4, 5])
def test_an_index_that_was_interrupted_holds_what_was_committed_and_goes_on(seed: int, tmp_path: Path) -> None:
    assert run(tmp_path / "campaign", seed, 10).total() == 10


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_thousand_interrupts_leave_what_was_committed(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        counts += run(tmp_path / str(seed), seed, 25)
    assert counts.total() >= 1000


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
def test_a_change_is_made_to_its_end_before_an_interrupt_is_raised() -> None:
    made = []

    @whole
    def outer() -> None:
        inner()
        made.append(interrupted_meanwhile())

    @whole
    def inner() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        made.append("inner")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        outer()
    assert made == ["inner", True]
    assert signal.getsignal(signal.SIGINT) is before
    whole(lambda: made.append(interrupted_meanwhile()))()
    assert made[-1] is False


def test_an_index_whose_creation_was_interrupted_is_used_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_create(backend: MemoryBackend, schema: Any) -> None:
        create(backend, schema)
        raise KeyboardInterrupt

    create = MemoryBackend.create
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryBackend, "create", interrupted_create)
            with pytest.raises(KeyboardInterrupt):
                search.upsert(document("a", 0))
        search.upsert(document("a", 0))
        assert search.count() == 1


def main(folder: Path, seed: int, interrupts: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may start without it
    faulthandler.enable()
    faulthandler.dump_traceback_later(240, exit=True)
    campaign = Campaign(folder / "index" if seed % 4 else None, seed, folder)
    failures = []
    try:
        for _ in range(10 * interrupts):
            if sum(campaign.counts.values()) >= interrupts:
                break
            campaign.step()
        campaign.end()
    except BaseException:
        failures.append(traceback.format_exc())
    print(json.dumps({"counts": campaign.counts, "failures": failures}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
