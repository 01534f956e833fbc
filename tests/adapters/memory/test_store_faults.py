"""Tests of an index on disk: damage is named, leftovers do no harm, and readers are not disturbed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.backends import Fingerprint, Schema
from hybridsearch.corpus import CorpusStore
from hybridsearch.corpus import store as store_module
from hybridsearch.errors import IndexCorruptedError, IndexNotFoundError, StorageError

IDS = [str(number) for number in range(4200)]


@pytest.fixture
def index(tmp_path: Path, samples: Any) -> Path:
    """A folder with a segment that has arrays, a small segment without arrays, and tombstones."""
    backend = samples.backend(tmp_path / "index", IDS)
    backend.upsert(samples.batch(["small"]))
    backend.delete(["7"])
    backend.close()
    return tmp_path / "index"


def test_a_flipped_bit_in_any_file_is_named(index: Path) -> None:
    files = [path for path in sorted(index.rglob("*")) if path.is_file() and path.name != "write.lock"]
    assert {path.suffix for path in files} == {".json", ".parquet", ".npy"}
    for path in files:
        raw = path.read_bytes()
        for position in {0, len(raw) // 2, len(raw) - 1}:
            path.write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
            with pytest.raises(IndexCorruptedError, match=path.name) as error:
                MemoryBackend(index).open()
            assert "index the documents again" in str(error.value)
        path.write_bytes(raw)
    backend = MemoryBackend(index)
    backend.open()
    assert backend.count() == len(IDS)


def test_a_truncated_file_is_named_even_without_verification(index: Path) -> None:
    for path in sorted(index.rglob("*")):
        if not path.is_file() or path.name == "write.lock":
            continue
        raw = path.read_bytes()
        for size in {0, len(raw) - 1}:
            path.write_bytes(raw[:size])
            with pytest.raises(IndexCorruptedError, match=path.name):
                MemoryBackend(index, verify=False).open()
        path.write_bytes(raw)


def test_a_missing_part_or_manifest_is_named(index: Path) -> None:
    for path in [*index.rglob("part.parquet"), *index.rglob("deleted-*"), index / "manifest.json"]:
        path.rename(index.parent / "away")
        with pytest.raises(IndexCorruptedError, match=path.name):
            MemoryBackend(index).open()
        (index.parent / "away").rename(path)


def test_a_missing_array_is_made_again_from_the_part(index: Path, samples: Any) -> None:
    intact = MemoryBackend(index)
    intact.open()
    expected = intact.search(samples.requests())
    for name in ("documents.order.npy", "retriever-0.rows.npy", "metadata.codes.npy"):
        next(index.rglob(name)).unlink()
        backend = MemoryBackend(index)
        backend.open()
        assert backend.search(samples.requests()) == expected
        assert backend.fetch(IDS) == intact.fetch(IDS)


def test_leftovers_of_a_crash_are_ignored_and_removed_by_the_next_writer(index: Path) -> None:
    segment = next(path.parent for path in index.rglob("part.parquet"))
    leftovers = [
        index / "manifest.json.tmp",
        index / "segments" / "0123.tmp" / "part.parquet",
        index / "segments" / "abcd" / "part.parquet",
        segment / "deleted-00000000.npy",
    ]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half a fi")
    backend = MemoryBackend(index)
    backend.open()
    assert backend.count() == len(IDS)
    assert all(path.exists() for path in leftovers)
    backend.delete(["9"])
    assert not any(path.exists() for path in leftovers)
    backend.close()


READER = """
import sys
from hybridsearch.adapters.memory import MemoryBackend
print("ready", flush=True)
opened = 0
while True:
    backend = MemoryBackend(sys.argv[1])
    backend.open()
    documents = backend.fetch([str(n) for n in range(100)])
    versions = {document.metadata["v"] for document in documents if document is not None}
    assert len(versions) == 1 and backend.count() >= 100, (versions, backend.count())
    opened += 1
    if versions == {60}:
        print(opened)
        break
"""


def test_a_reader_in_another_process_sees_whole_states_while_a_writer_merges(tmp_path: Path, samples: Any) -> None:
    ids = [str(number) for number in range(100)]
    backend = samples.backend(tmp_path / "index", ids)
    command = [sys.executable, "-c", READER, str(tmp_path / "index")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for version in range(1, 61):
            backend.upsert(samples.batch(ids, version))
            if version % 10 == 0:
                backend.optimize()
        backend.close()
        output, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    assert int(output) > 1


def test_a_reader_keeps_its_state_after_its_files_are_gone(index: Path, samples: Any) -> None:
    reader = MemoryBackend(index)
    reader.open()
    before = reader.search(samples.requests()), reader.fetch(IDS[:50]), reader.count()
    writer = MemoryBackend(index)
    writer.open()
    writer.delete(IDS[:4000])
    writer.optimize()
    writer.close()
    assert (reader.search(samples.requests()), reader.fetch(IDS[:50]), reader.count()) == before
    assert sum(len(batch) for batch in reader.scan()) == len(IDS)


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from conftest import Samples
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.errors import StorageError
samples = Samples()
backend = MemoryBackend(sys.argv[1])
backend.open()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    backend.upsert(samples.batch([str(n) for n in range(5000)], 1))
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert {d.metadata["v"] for d in backend.fetch([str(n) for n in range(100)])} == {0}
backend.upsert(samples.batch(["after"]))
backend.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")
def test_a_storage_that_takes_no_more_bytes_leaves_the_old_state(tmp_path: Path, samples: Any) -> None:
    ids = [str(number) for number in range(100)]
    samples.backend(tmp_path / "index", ids).close()
    before = {path for path in (tmp_path / "index").rglob("*") if path.suffix != ".tmp"}
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "index"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "intact" in done.stdout
    backend = MemoryBackend(tmp_path / "index")
    backend.open()
    assert backend.count() == 101
    after = set((tmp_path / "index").rglob("*"))
    assert len(after) == len(before) + 2  # the one part that was added afterwards


def test_a_file_in_the_place_of_the_folder_is_a_storage_error(tmp_path: Path, samples: Any) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="file"):
        samples.backend(tmp_path / "file")


def interrupted_after(function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """The function with a Ctrl-C that comes while it returns."""

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        result = function(*arguments, **keywords)
        if when(*arguments):
            raise KeyboardInterrupt
        return result

    return interrupted


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        (Path, "replace", lambda *_: True),
        (store_module.shutil, "rmtree", lambda path, *_: not str(path).endswith(".tmp")),
        (store_module, "sync_folder", lambda *_: True),
    ],
)
def test_an_interrupted_change_leaves_an_index_that_goes_on(
    owner: Any, name: str, when: Callable[..., bool], samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = samples.backend(tmp_path / "index", ["a", "b"])
    backend.upsert(samples.batch(["c"]))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted_after(getattr(owner, name), when))
        with pytest.raises(KeyboardInterrupt):
            backend.delete(["a", "b"])  # a part loses all its documents, so its files are removed
    backend.upsert(samples.batch(["d"]))
    ids = {document.id for batch in backend.scan() for document in batch.documents}
    assert ids in ({"c", "d"}, {"a", "b", "c", "d"})
    backend.close()
    again = MemoryBackend(tmp_path / "index")
    again.open()
    assert {document.id for batch in again.scan() for document in batch.documents} == ids


def test_a_store_that_another_one_has_changed_appends_to_what_is_there_now(samples: Any, tmp_path: Path) -> None:
    first = CorpusStore.create(tmp_path / "store", samples.schema())
    first.append(samples.batch(["a"]))
    first.close()
    second = CorpusStore.open(tmp_path / "store")
    second.append(samples.batch(["b"]))
    second.close()
    first.append(samples.batch(["c"]))
    first.close()
    assert len(CorpusStore.open(tmp_path / "store")) == 3


def test_a_writer_whose_folder_was_deleted_says_so_and_makes_no_index_of_half_its_parts(
    index: Path, samples: Any
) -> None:
    backend = MemoryBackend(index)
    backend.open()
    backend.delete(["8"])
    before = backend.search(samples.requests())
    shutil.rmtree(index)
    for _ in range(2):
        with pytest.raises(IndexNotFoundError, match=r"deleted, moved or replaced.*index the documents again"):
            backend.upsert(samples.batch(["lost"]))
        with pytest.raises(IndexNotFoundError):
            backend.delete(["7"])
    assert not index.exists()
    assert backend.search(samples.requests()) == before
    backend.close()


def test_a_reader_that_writes_for_the_first_time_into_a_deleted_folder_makes_none(index: Path, samples: Any) -> None:
    backend = MemoryBackend(index)
    backend.open()
    shutil.rmtree(index)
    with pytest.raises(IndexNotFoundError, match="deleted, moved or replaced"):
        backend.upsert(samples.batch(["lost"]))
    assert not index.exists()
    backend.close()


def test_a_writer_does_not_write_into_another_index_that_took_the_place_of_its_own(index: Path, samples: Any) -> None:
    first = MemoryBackend(index)
    first.open()
    first.delete(["8"])
    index.rename(index.with_name("moved"))
    other = samples.backend(index, ["theirs"])
    with pytest.raises(IndexNotFoundError, match="replaced"):
        first.upsert(samples.batch(["mine"]))
    first.close()
    assert [document.id for batch in other.scan() for document in batch.documents] == ["theirs"]
    other.upsert(samples.batch(["more"]))
    other.close()


def test_a_reader_does_not_write_into_an_index_of_another_encoder(index: Path, samples: Any) -> None:
    reader = MemoryBackend(index)
    reader.open()
    shutil.rmtree(index)
    retrievers = samples.schema().retrievers
    other = Schema({**retrievers, "dense": replace(retrievers["dense"], fingerprint=Fingerprint("another", {}))})
    writer = MemoryBackend(index)
    writer.create(other)
    writer.close()
    for _ in range(2):
        with pytest.raises(IndexNotFoundError, match=r"its retrievers differ \('dense'\)"):
            reader.upsert(samples.batch(["mine"]))
    assert reader.count() == len(IDS)
    reader.close()


def test_a_merge_of_a_segment_that_went_meanwhile_begins_anew_without_a_word(
    samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = samples.backend(tmp_path / "index", ["0"])
    went, merging_begins = threading.Event(), threading.Event()
    merge = Segment.merge.__func__  # type: ignore[attr-defined]

    def slow(cls: type[Segment], parts: Any) -> Segment:
        merging_begins.set()
        assert went.wait(60)
        merged: Segment = merge(cls, parts)
        return merged

    monkeypatch.setattr(Segment, "merge", classmethod(slow))
    with caplog.at_level("WARNING"):
        for number in range(1, 8):
            backend.upsert(samples.batch([str(number)]))
        assert merging_begins.wait(60)
        backend.delete(["0", "1"])  # two of the segments that are being merged, with their files
        went.set()
        backend.close()
    assert caplog.text == ""
    again = MemoryBackend(tmp_path / "index")
    again.open()
    assert sorted(d.id for batch in again.scan() for d in batch.documents) == [str(n) for n in range(2, 8)]


def test_what_a_killed_save_left_is_removed_by_the_next_writer_and_a_living_one_is_left(
    index: Path, samples: Any, tmp_path: Path
) -> None:
    dead, young, alive = (tmp_path / f".index.{number * 8}.saving" for number in "123")
    CorpusStore.create(dead, samples.schema()).close()
    young.mkdir()
    living = CorpusStore.create(alive, samples.schema())
    foreign = tmp_path / ".index.mine.saving"
    foreign.mkdir()
    backend = MemoryBackend(index)
    backend.open()
    assert dead.exists()  # a reader removes nothing
    backend.delete(["8"])
    backend.close()
    assert [path.exists() for path in (dead, young, alive, foreign)] == [False, True, True, True]
    os.utime(young, (0, 0))
    living.close()
    samples.backend(None, ["a"]).save(index, overwrite=True)
    assert [path.exists() for path in (dead, young, alive, foreign)] == [False, False, False, True]


@pytest.fixture
def read_only(index: Path) -> Iterator[Path]:
    """The folder on a file system that cannot be written."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no mount")
    if subprocess.run([mount, "--bind", str(index), str(index)], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root on Linux")
    try:
        if subprocess.run([mount, "-o", "remount,ro,bind", str(index)], capture_output=True, check=False).returncode:
            pytest.skip("remounting needs root on Linux")
        yield index
    finally:
        subprocess.run([umount, "-l", str(index)], check=True)


def test_a_read_only_folder_is_searched_and_says_why_it_takes_nothing(read_only: Path, samples: Any) -> None:
    backend = MemoryBackend(read_only)
    backend.open()
    assert len(backend.search(samples.requests())[0])
    with pytest.raises(StorageError, match=r"index.*[Rr]ead-only.*mount it so that it can be written to"):
        backend.upsert(samples.batch(["a"]))
    with pytest.raises(StorageError, match=r"[Rr]ead-only"):
        samples.backend(None, ["a"]).save(read_only, overwrite=True)
    assert backend.count() == len(IDS)
    backend.close()
