"""Tests of crashes, damaged files, full disks, several writers, wrong encoders and senseless input.

This file is also the program that is killed: see `_serve`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.errors import (
    FingerprintMismatchError,
    HybridSearchError,
    IndexCorruptedError,
    IndexLockedError,
    IndexNotFoundError,
    StorageError,
)

BATCH, BATCHES = 40, 12
WORDS = [
    "wing", "lift", "drag", "flow", "heat", "shock", "layer", "plate", "jet", "nozzle", "gas", "wave", "speed", "angle",
]  # fmt: skip
QUERIES = ["wing", "lift of a wing", "heat and flow", "shock wave drag", "nozzle nozzle jet", "number7"]
OPERATIONS = ["index", "upsert", "delete", "save", "passages"]


def make_document(number: int, generation: int = 0) -> hs.Document:
    rng = random.Random(f"{number} {generation}")
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 30))) + f" number{number % 10}"
    return hs.Document(f"d{number:05}", text, metadata={"generation": generation})


def make_batch(number: int, generation: int = 0) -> list[hs.Document]:
    return [make_document(i, generation) for i in range(number * BATCH, (number + 1) * BATCH)]


def everything(generation: int = 0) -> list[hs.Document]:
    return [document for number in range(BATCHES) for document in make_batch(number, generation)]


def passages_of(operation: str) -> hs.Passages | None:
    return hs.Passages(size=8) if operation == "passages" else None


def in_memory(documents: list[hs.Document], passages: hs.Passages | None = None) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=passages)
    search.index(documents, show_progress_bar=False)
    return search


def stored_documents(search: hs.HybridSearch) -> list[hs.Document]:
    return sorted((d for batch in search.backend.scan() for d in batch.documents), key=lambda document: document.id)


def assert_answers_like_a_fresh_index(
    search: hs.HybridSearch, documents: list[hs.Document], passages: hs.Passages | None = None
) -> None:
    if not documents:
        assert all(len(results) == 0 for results in search.search_many(QUERIES))
        return
    with in_memory(documents, passages) as fresh:
        for found, right in zip(search.search_many(QUERIES, 50), fresh.search_many(QUERIES, 50), strict=True):
            assert found.ids == right.ids
            scores = [[hit.retrievers["bm25"].score for hit in results] for results in (found, right)]
            assert scores[0] == pytest.approx(scores[1], rel=1e-6)
            assert [hit.document for hit in found] == [hit.document for hit in right]
            assert [hit.passages for hit in found] == [hit.passages for hit in right]


# Storage that fails


class Failing:
    """In this block, the use number `at` of a file or folder in `folder` fails with `code`."""

    NAMES = ("stat", "lstat", "open", "fsync", "rename", "replace", "mkdir", "scandir", "listdir", "unlink", "rmdir")

    def __init__(self, folder: Path, at: int, code: int) -> None:
        self.folder, self.at, self.code = str(folder), at, code
        self.used = 0
        self.patch = pytest.MonkeyPatch()

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            place = arguments[0] if arguments else ""
            where = self.folder if real is os.fsync else os.fspath(place) if isinstance(place, str | Path) else ""
            if where.startswith(self.folder):
                self.used += 1
                if self.used == self.at:
                    raise OSError(self.code, os.strerror(self.code), where)
            return real(*arguments, **options)

        return call

    def __enter__(self) -> Failing:
        for name in self.NAMES:
            self.patch.setattr(os, name, self.failing(getattr(os, name)))
        self.patch.setattr(io, "open", self.failing(io.open))
        self.patch.setattr("builtins.open", self.failing(open))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def _with_index(name: str, work: Callable[[hs.HybridSearch], object]) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        with hs.HybridSearch({"bm25": hs.BM25()}, folder / name) as search:
            work(search)

    return use


USES: dict[str, Callable[[Path], object]] = {
    "make": _with_index("new", lambda search: search.index(make_batch(3), show_progress_bar=False)),
    "search": _with_index("index", lambda search: search.search("wing")),
    "change": _with_index("index", lambda search: (search.upsert(make_document(1, 1)), search.delete("d00000"))),
    "copy": lambda folder: hs.copy(folder / "index", folder / "copied"),
    "jsonl": lambda folder: list(hs.read_documents(folder / "c.jsonl")),
    "csv": lambda folder: list(hs.read_documents(folder / "c.csv")),
    "parquet": lambda folder: list(hs.read_documents(folder / "c.parquet")),
    "texts": lambda folder: list(hs.read_documents(folder / "texts")),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "given"
    with hs.HybridSearch({"bm25": hs.BM25()}, folder / "index") as search:
        search.index(make_batch(0), show_progress_bar=False)
        search.delete("d00000")
    (folder / "c.jsonl").write_text('{"id": "1", "text": "a"}\n')
    (folder / "c.csv").write_text("id,text,year\n1,a,1958\n")
    pq.write_table(pa.table({"id": ["1"], "text": ["a"]}), folder / "c.parquet")
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("a")
    return folder


def fail_everywhere(use: str, files: Path, folder: Path, code: int, step: int) -> tuple[int, int]:
    """The number of faults and of reported faults. Every `step`-th use of the storage fails, one in each run."""
    told: list[str] = []
    for number in itertools.count():
        shutil.copytree(files, folder)
        storage = Failing(folder, 1 + number * step, code)
        try:
            with storage:
                USES[use](folder)
        except StorageError as error:
            told.append(str(error))
        if storage.used < storage.at:
            shutil.rmtree(folder)
            assert all(str(folder) in message for message in told)
            return number, len(told)
        with hs.open(folder / "index") as search:
            assert search.count() in (BATCH - 1, BATCH)
        shutil.rmtree(folder)
    return 0, 0


@pytest.mark.parametrize("use", USES)
def test_errors_of_the_storage_name_the_place_and_leave_the_index_sound(use: str, files: Path, tmp_path: Path) -> None:
    faults, told = fail_everywhere(use, files, tmp_path / "used", errno.EIO, step=5)
    assert faults > 0
    assert told > 0 or use in ("jsonl", "csv", "parquet")


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("use", USES)
def test_every_use_of_the_storage_may_fail(use: str, code: int, files: Path, tmp_path: Path) -> None:
    faults, told = fail_everywhere(use, files, tmp_path / "used", code, step=1)
    assert told > faults / 2


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.parquet"])
def test_a_file_that_cannot_be_read_to_its_end_is_named(
    name: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        read = readall = readinto  # type: ignore[assignment]

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Broken(path)))
    with pytest.raises(StorageError, match=rf"{name} cannot be read: Input/output error"):
        list(hs.read_documents(files / name))


# Crashes


def states(operation: str) -> list[list[hs.Document]]:
    """The possible content of the index after 0, 1, 2, ... commits of an operation."""
    old, new = everything(), everything(1)
    cuts = [number * BATCH for number in range(BATCHES + 1)]
    if operation == "index":
        return [old[:cut] for cut in cuts]
    if operation in ("upsert", "passages"):
        return [new[:cut] + old[cut:] for cut in cuts]
    if operation == "delete":
        return [old[cut:] for cut in cuts]
    return [everything(number % 2) for number in range(BATCHES + 1)]


def run_operation(operation: str, folder: Path, progress: Path) -> None:
    """Make one commit after another. The file `progress` grows by one byte after each commit."""
    with progress.open("ab", buffering=0) as done:
        if operation == "save":
            searches = [in_memory(everything(generation)) for generation in (0, 1)]
            for number in range(1, BATCHES + 1):
                searches[number % 2].save(folder, overwrite=True)
                done.write(b".")
            return
        with hs.HybridSearch({"bm25": hs.BM25()}, backend=folder, passages=passages_of(operation)) as search:
            for number in range(BATCHES):
                if operation == "delete":
                    search.delete([document.id for document in make_batch(number)])
                else:
                    search.index(make_batch(number, int(operation != "index")), show_progress_bar=False)
                done.write(b".")


def _serve() -> None:
    """Fork a child for each line `operation folder progress` and print its process id. Libraries are loaded once."""

    for line in sys.stdin:
        operation, folder, progress = json.loads(line)
        child = os.fork()
        if not child:
            run_operation(operation, Path(folder), Path(progress))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


class Victims:
    """Starts processes that run one operation each."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, operation: str, folder: Path, kill_after: float | None) -> tuple[int, float]:
        """Run an operation. Returns the number of acknowledged commits and the seconds."""
        progress = folder.with_name(f"{folder.name}.progress")
        progress.write_bytes(b"")
        pid = int(self._say(json.dumps([operation, str(folder), str(progress)])))
        started = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.server.stdout is not None
        status = int(self.server.stdout.readline())
        assert status == 0 or (kill_after is not None and os.WTERMSIG(status) == signal.SIGKILL)
        return progress.stat().st_size, time.perf_counter() - started

    def _say(self, line: str) -> str:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(line + "\n")
        self.server.stdin.flush()
        return self.server.stdout.readline()

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    victims = Victims()
    yield victims
    victims.close()


def prepare(operation: str, folder: Path) -> None:
    """Make the index with which an operation starts. For "index" there is none."""
    if operation == "save":
        in_memory(everything()).save(folder)
    elif operation != "index":
        with hs.HybridSearch({"bm25": hs.BM25()}, backend=folder, passages=passages_of(operation)) as search:
            search.index(everything(), batch_size=BATCH * 5, show_progress_bar=False)


def crash_and_check(victims: Victims, operation: str, folder: Path, kill_after: float) -> None:
    prepare(operation, folder)
    acknowledged, _ = victims.run(operation, folder, kill_after)
    possible = states(operation)[acknowledged : acknowledged + 2]
    try:
        search = hs.open(folder)
    except IndexNotFoundError:
        assert operation == "index"
        assert acknowledged == 0
    else:
        with search:
            held = stored_documents(search)
            assert held in possible, f"{len(held)} documents are not what {acknowledged} commits, or one more, left"
            assert search.get([document.id for document in held]) == held
            assert_answers_like_a_fresh_index(search, held, passages_of(operation))
    acknowledged, _ = victims.run(operation, folder, None)
    assert acknowledged == BATCHES
    final = states(operation)[-1]
    with hs.open(folder) as search:
        assert stored_documents(search) == final
        assert_answers_like_a_fresh_index(search, final, passages_of(operation))
        search.upsert([hs.Document("one more", "a write removes what a crash left")])
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    assert [path for path in folder.rglob("*") if ".tmp" in path.name] == []


def _crash_many_times(victims: Victims, operation: str, tmp_path: Path, kills: int) -> None:
    prepare(operation, tmp_path / "whole")
    _, seconds = victims.run(operation, tmp_path / "whole", None)
    rng = random.Random(f"{operation} {kills}")
    for number in range(kills):
        crash_and_check(victims, operation, tmp_path / f"index{number}", rng.uniform(0, seconds))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_process_killed_at_any_instant_leaves_a_committed_state(
    victims: Victims, operation: str, tmp_path: Path
) -> None:
    _crash_many_times(victims, operation, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_process_killed_at_fifty_instants_leaves_a_committed_state_each_time(
    victims: Victims, operation: str, tmp_path: Path
) -> None:
    _crash_many_times(victims, operation, tmp_path, 50)


# Damaged files


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with a large part, small parts and deleted documents."""
    folder = tmp_path_factory.mktemp("intact") / "index"
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=folder) as search:
        search.index([make_document(i) for i in range(4500)], batch_size=4500, show_progress_bar=False)
        search.delete([f"d{i:05}" for i in range(0, 4500, 50)])
        search.upsert([make_document(i, 1) for i in range(30)])
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def check_damaged(damaged: Path, file: Path, right: list[hs.Results]) -> None:
    """Assert that opening the index names the file, or that all answers are right."""
    try:
        with hs.open(damaged) as search:
            found = search.search_many(QUERIES, 20)
    except IndexCorruptedError as error:
        message = str(error)
    else:
        assert [results.to_dict()["hits"] for results in found] == [results.to_dict()["hits"] for results in right]
        return
    assert str(damaged / file) in message
    assert "\n" not in message


def test_a_damaged_file_is_named_and_never_answered_from(intact: Path, tmp_path: Path) -> None:
    with hs.open(intact) as search:
        right = search.search_many(QUERIES, 20)
    names = {file.name for file in files_of(intact)}
    assert {"manifest.json", "part.parquet"} < names
    assert any(name.startswith("deleted") for name in names)
    rng = random.Random(11)
    damaged = tmp_path / "damaged"
    shutil.copytree(intact, damaged)
    for file in files_of(intact):
        raw = (intact / file).read_bytes()
        places = {0, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(3))}
        for place in places:
            flipped = bytearray(raw)
            flipped[place] ^= 1 << rng.randrange(8)
            for spoilt in (bytes(flipped), raw[:place], raw + b"\0"):
                (damaged / file).write_bytes(spoilt)
                check_damaged(damaged, file, right)
        (damaged / file).write_bytes(raw)
    check_damaged(damaged, Path(), right)


def test_a_missing_file_is_named_or_made_again(intact: Path, tmp_path: Path) -> None:
    with hs.open(intact) as search:
        right = search.search_many(QUERIES, 20)
    damaged = tmp_path / "damaged"
    for file in files_of(intact):
        shutil.copytree(intact, damaged)
        (damaged / file).unlink()
        check_damaged(damaged, file, right)
        shutil.rmtree(damaged)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"\xff\x00", b"[" * 100_000, b'{"version": 99}'])
def test_a_manifest_that_is_something_else_is_named(intact: Path, tmp_path: Path, raw: bytes) -> None:
    shutil.copytree(intact, tmp_path / "damaged")
    (tmp_path / "damaged" / "manifest.json").write_bytes(raw)
    with pytest.raises(IndexCorruptedError, match=r"manifest\.json"):
        hs.open(tmp_path / "damaged")


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB. A file `filler` takes half of it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    (disk / "filler").write_bytes(b"\0" * (2 << 20))
    yield disk
    subprocess.run([shutil.which("umount") or "umount", "-l", str(disk)], check=True)


def big_documents(batch: int) -> list[hs.Document]:
    rng = random.Random(batch)
    return [hs.Document(f"big{batch}-{i}", rng.randbytes(6000).hex()) for i in range(20)]


def test_a_full_disk_leaves_the_last_committed_state_and_works_again_with_space(small_disk: Path) -> None:
    folder = small_disk / "index"
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=folder) as search:
        search.index(everything(), show_progress_bar=False)
        held = everything()

        def fill_the_disk() -> None:
            for batch in range(100):
                search.upsert(big_documents(batch))
                held.extend(big_documents(batch))

        with pytest.raises(StorageError, match="index"):
            fill_the_disk()
        assert stored_documents(search) == sorted(held, key=lambda document: document.id)
        assert_answers_like_a_fresh_index(search, held)
        with hs.open(folder) as other:
            assert stored_documents(other) == stored_documents(search)
        (small_disk / "filler").unlink()
        search.upsert(big_documents(1000))
        held += big_documents(1000)
        assert search.count() == len(held)
    with hs.open(folder) as search:
        assert stored_documents(search) == sorted(held, key=lambda document: document.id)


def test_saving_to_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    folder = small_disk / "saved"
    too_much = [document for batch in range(50) for document in big_documents(batch)]
    with in_memory(everything()) as small, in_memory(too_much) as large:
        with pytest.raises(StorageError):
            large.save(folder)
        assert not folder.exists()
        small.save(folder)
        with pytest.raises(StorageError):
            large.save(folder, overwrite=True)
        with hs.open(folder) as search:
            assert stored_documents(search) == everything()
            assert_answers_like_a_fresh_index(search, everything())
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "saved"]


# Rival writers and wrong encoders


def test_a_second_writer_is_refused_and_may_write_when_the_first_has_closed(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=tmp_path / "index") as first:
        first.index(make_batch(0), show_progress_bar=False)
        with hs.open(tmp_path / "index") as second:
            assert second.search("wing").ids == first.search("wing").ids
            with pytest.raises(IndexLockedError, match="index"):
                second.upsert(make_document(1000))
            assert second.count() == BATCH
            first.upsert(make_document(2000))
            first.close()
            second.upsert(make_document(1000))
            assert second.count() == BATCH + 2


def test_a_writer_in_another_process_is_noticed(tmp_path: Path) -> None:
    code = (
        "import sys, hybridsearch as hs\n"
        "search = hs.HybridSearch({'bm25': hs.BM25()}, backend=sys.argv[1])\n"
        "search.upsert(hs.Document('theirs', 'wing'))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "index")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with hs.open(tmp_path / "index") as search:
            assert search.search("wing").ids == ["theirs"]
            with pytest.raises(IndexLockedError):
                search.upsert(hs.Document("mine", "wing"))
            other.communicate("")
            search.upsert(hs.Document("mine", "wing"))
            assert search.search("wing").ids == ["mine", "theirs"]


def test_opening_with_another_encoder_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    indexed, other = hs.BM25(), hs.BM25("german")
    with hs.HybridSearch({"bm25": indexed}, backend=tmp_path / "index") as search:
        search.index(make_batch(0), show_progress_bar=False)
    for reopen in (
        lambda: hs.HybridSearch({"bm25": other}, backend=tmp_path / "index"),
        lambda: hs.open(tmp_path / "index", retrievers={"bm25": other}),
    ):
        with pytest.raises(FingerprintMismatchError) as caught:
            reopen()
        assert str(indexed.fingerprint()) in str(caught.value)
        assert str(other.fingerprint()) in str(caught.value)
        assert "language" in str(caught.value)
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=tmp_path / "index") as search:
        assert search.count() == BATCH


# Senseless input


@pytest.fixture(scope="module")
def searchable() -> Iterator[hs.HybridSearch]:
    with in_memory([*make_batch(0), hs.Document("odd", "wing", metadata={"a": [1, "x"], "b": {"c": None}})]) as search:
        yield search


TEXTS = st.text(st.characters(codec=None), max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))
LINES = (
    st.binary(max_size=80)
    | st.builds(lambda value: json.dumps(value).encode(), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "_id", "text", "title", "metadata"]) | TEXTS, inner, max_size=5),
        max_leaves=8,
    ))
    | st.binary(max_size=8).map(lambda raw: b'{"id": "a", "text": "' + raw + b'"}')
)  # fmt: skip
FILTER_KEYS = st.sampled_from(
    ["$and", "$or", "$not", "$eq", "$gt", "$lte", "$in", "$nin", "$exists", "$contains", "a", "b.c", "id"]
)
FILTERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FILTER_KEYS | TEXTS, inner, max_size=3),
    max_leaves=8,
)
few = settings(suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=10_000)


def try_each(check: Callable[[Any], bool], values: Any, *examples: Any, how: settings = few) -> None:
    """Run `check` on examples and random values. It tells whether a value was accepted, and some must be."""
    taken = 0

    def one(value: Any) -> None:
        nonlocal taken
        taken += check(value)

    for value in examples:
        one = example(value)(one)
    how(given(values)(one))()
    assert taken, "each value was refused, so that nothing was tested"


def check_query(search: hs.HybridSearch, query: str) -> bool:
    try:
        results = search.search(query, 5)
    except HybridSearchError:
        return False
    assert all(hit.score > 0 for hit in results)
    return True


def check_lines(path: Path, raw: bytes) -> bool:
    path.write_bytes(raw)
    try:
        documents = list(hs.read_documents(path))
    except HybridSearchError as error:
        message = str(error)
    else:
        assert all(isinstance(document, hs.Document) for document in documents)
        return bool(documents)
    assert path.name in message
    assert "\n" not in message
    return False


def check_filter(search: hs.HybridSearch, filter: Any) -> bool:
    try:
        results = search.search("wing", 5, filter=filter)
        assert search.count(filter) >= len(results)
    except HybridSearchError:
        return False
    return True


def test_any_query_gives_results_or_one_of_our_errors(searchable: hs.HybridSearch) -> None:
    odd = ["\ud800", "\x00" * 10, "wing " * 20_000, '"wing" AND (lift OR -drag) +flow* ~2 ^5 \\']
    try_each(partial(check_query, searchable), TEXTS, *odd)


def test_any_bytes_as_a_jsonl_file_give_documents_or_one_of_our_errors(tmp_path: Path) -> None:
    odd = [
        b"[" * 100_000,
        b'{"id": "a", "text": ' + b"[" * 100_000,
        b'{"id": "a", "text": "b", "metadata": {"x": ' + b"9" * 5000 + b"}}",
        b'{"id": ' + b"9" * 5000 + b', "text": "b"}',
        b'{"id": "a", "text": "b", "metadata": {"x": 1e999}}',
        b'{"id": "a", "text": "\\ud800"}',
        b'\xef\xbb\xbf{"id": "a", "text": "b"}',
        b'{"id": "a", "text": "b"}\r\n\r\n{"id": "b", "text": "c"}',
        b'{"id": "a", "text": "b"}{"id": "b", "text": "c"}',
    ]
    try_each(partial(check_lines, tmp_path / "senseless.jsonl"), LINES, *odd)


def test_any_filter_gives_results_or_one_of_our_errors(searchable: hs.HybridSearch) -> None:
    odd: list[Any] = [
        {"a": 10**400},
        {"a": {"$gt": 2**64}},
        {"a": {"$in": [2**70, -(2**70), 1e308]}},
        {"a": "\ud800"},
        {"id": {"$in": ["\ud800", "odd"]}},
        {"id": {"$gt": "\ud800"}},
        {"\ud800": 1},
        {"a": {"$contains": "\ud800"}},
        {"id": "\x00"},
    ]
    try_each(partial(check_filter, searchable), FILTERS, *odd)


@pytest.mark.slow
def test_ten_thousand_queries_give_results_or_our_errors(searchable: hs.HybridSearch) -> None:
    try_each(partial(check_query, searchable), TEXTS, how=many)


@pytest.mark.slow
def test_ten_thousand_jsonl_files_give_documents_or_our_errors(tmp_path: Path) -> None:
    try_each(partial(check_lines, tmp_path / "senseless.jsonl"), LINES, how=many)


@pytest.mark.slow
def test_ten_thousand_filters_give_results_or_our_errors(searchable: hs.HybridSearch) -> None:
    try_each(partial(check_filter, searchable), FILTERS, how=many)


if __name__ == "__main__":
    _serve()
