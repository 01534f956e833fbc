"""An index in object storage is the index of a folder, also after kills, with a real S3 server beside it."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import CommitOperationDelete, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.backends import Schema
from hybridsearch.cli.app import app
from hybridsearch.corpus import CorpusStore, Part, StoredFile
from hybridsearch.corpus.manifest import PART, parse_manifest
from hybridsearch.corpus.remote import Remote
from hybridsearch.errors import (
    IndexCorruptedError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidArgumentError,
    MissingExtraError,
    StorageError,
)
from hybridsearch.indexing.staging import RemoteStaging
from hybridsearch.vectors import EncodedBatch

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

DOCUMENTS = [hs.Document(f"d{n}", f"lift of wing {n % 7} in stream {n % 11}", metadata={"n": n}) for n in range(300)]

_WRITER = """
import sys
import hybridsearch as hs
url, cache, first = sys.argv[1:]
search = hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options={"cache": cache})
for number in range(int(first), 10**6):
    search.upsert({"id": str(number), "text": f"wing {number}"})
    print(number, flush=True)
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[s3fs.S3FileSystem]:
    """The file system of an S3 server, which the environment names."""
    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        files.mkdir("bucket")
        yield files
    started.stop()


@pytest.fixture
def url(s3: s3fs.S3FileSystem) -> Iterator[str]:
    """URL of a new index."""
    name = f"s3://bucket/{random.getrandbits(64):x}"
    yield name
    if s3.exists(name):
        s3.rm(name, recursive=True)


@pytest.fixture
def cache(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Backend options with a new folder for copies, as on another machine."""
    numbers = itertools.count()
    return lambda: {"cache": str(tmp_path / f"cache-{next(numbers)}")}


def names_of(files: s3fs.S3FileSystem, url: str) -> set[str]:
    """The names of the files at a URL. They must be those that the manifest names."""
    root = url.partition("://")[2]
    found = {path.removeprefix(f"{root}/") for path in files.find(root)}
    _, parts, _ = parse_manifest(files.cat_file(f"{root}/manifest.json"), url)
    assert found - {"manifest.json"} == {f"segments/{part.name}/{file}" for part in parts for file in part.files}
    return found


def test_it_has_the_hits_of_a_folder(
    s3: s3fs.S3FileSystem, url: str, cache: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    folder = hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "folder")
    stored = hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache())
    for search in (folder, stored):
        search.index(DOCUMENTS, batch_size=100)
    with hs.open(url, backend_options=cache()) as elsewhere:
        for search in (folder, stored):
            search.upsert({"id": "new", "text": "wing of a gull"})
            search.delete(["d3", "d8"])
            search.delete(filter={"n": {"$gte": 250}})
        assert elsewhere.count() == 300
        elsewhere.refresh()
        for query in ("gull", "wing 4 stream", "lift"):
            expected = folder.search(query)
            for search in (stored, elsewhere):
                found = search.search(query)
                assert [(hit.id, hit.score, hit.document.text) for hit in found] == [
                    (hit.id, hit.score, hit.document.text) for hit in expected
                ]
    stored.close()
    folder.close()
    names_of(s3, url)


def test_an_index_is_copied_there_and_back(
    s3: s3fs.S3FileSystem, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "papers") as search:
        search.index(DOCUMENTS)
    there = hs.copy(tmp_path / "papers", url, batch_size=32)
    back = hs.copy(url, tmp_path / "back")
    assert (there.copied, there.differences, back.copied, back.differences) == (300, (), 300, ())
    names_of(s3, url)


def test_the_command_line_keeps_vectors_there(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)
    Path("notes.jsonl").write_text('{"id": "a", "text": "lift of a wing"}\n', encoding="utf-8")
    command = ["index", "notes.jsonl", "--via", url, "--retrievers", "bm25", "--index"]
    assert CliRunner().invoke(app, [*command, "first"]).exit_code == 0
    engine = CliRunner().invoke(app, ["index", "notes.jsonl", "--via", "opensearch://me:pw@x/y", "--index", "third"])
    assert "via is a folder, or a URL such as 's3://" in " ".join(engine.output.split())
    refused = CliRunner().invoke(app, [*command, "second"])
    assert refused.exit_code == 1
    assert f"{url} is not empty: give --resume" in " ".join(refused.output.split())
    assert "second holds 1 document" in CliRunner().invoke(app, [*command, "second", "--resume"]).output
    assert '"a"' in CliRunner().invoke(app, ["search", url, "wing", "--json"]).output


def test_a_file_that_changed_on_the_way_is_refused(
    s3: s3fs.S3FileSystem, url: str, cache: Callable[[], dict[str, str]]
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache()) as search:
        search.index(DOCUMENTS)
    (path,) = (path for path in s3.find(url) if path.endswith("part.parquet"))
    content = bytearray(s3.cat_file(path))
    content[len(content) // 2] ^= 1
    s3.pipe_file(path, bytes(content))
    options = cache()
    with pytest.raises(IndexCorruptedError, match=f"{url}/segments/.*part.parquet is damaged"):
        hs.open(url, backend_options=options)
    s3.rm(path)
    with pytest.raises(IndexCorruptedError, match=f"A part of the index at {url} is missing"):
        hs.open(url, backend_options=options)
    s3.pipe_file(f"{url}/manifest.json", b"{}")
    with pytest.raises(IndexCorruptedError, match=r"manifest.json is damaged"):
        hs.open(url, backend_options=options)


def test_a_second_writer_is_refused_and_loses_nothing(url: str, cache: Callable[[], dict[str, str]]) -> None:
    first = hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache())
    first.upsert({"id": "a", "text": "wing"})
    with hs.open(url, backend_options=cache()) as second:
        second.upsert({"id": "b", "text": "wing"})
        with pytest.raises(IndexLockedError, match=f"Another process has changed the index at {url}"):
            first.upsert({"id": "c", "text": "wing"})
    first.close()
    with hs.open(url, backend_options=cache()) as search:
        assert sorted(search.search("wing").ids) == ["a", "b"]


@pytest.mark.parametrize("exists", [False, True])
def test_of_two_writers_at_the_same_instant_one_is_refused(
    url: str, cache: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """The other writer commits after the manifest was compared, and before it is replaced."""
    if exists:
        with hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache()) as search:
            search.upsert({"id": "a", "text": "wing"})
    first, second = (hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache()) for _ in range(2))
    read, waiting = Remote.read, [lambda: second.upsert({"id": "b", "text": "wing"})]

    def read_and_wait(remote: Remote, file: str) -> bytes | None:
        content = read(remote, file)
        if remote is first.backend._storage and waiting:  # type: ignore[attr-defined]
            waiting.pop()()
        return content

    monkeypatch.setattr(Remote, "read", read_and_wait)
    with pytest.raises(IndexLockedError, match="Another process has changed the index"):
        first.upsert({"id": "c", "text": "wing"})
    monkeypatch.undo()
    assert not waiting
    with hs.open(url, backend_options=cache()) as search:
        assert sorted(search.search("wing").ids) == (["a", "b"] if exists else ["b"])


def test_the_first_commit_is_sent_though_the_machine_has_just_started(
    s3: s3fs.S3FileSystem, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(url, cache=tmp_path)
    remote.pause = 60
    monkeypatch.setattr("hybridsearch.corpus.remote.time", SimpleNamespace(monotonic=lambda: 5.0))
    remote.push([], b"{}")
    assert remote.read("manifest.json") == b"{}"


def test_a_load_loses_nothing_if_a_search_looks_for_changes_meanwhile(
    url: str, cache: Callable[[], dict[str, str]]
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache()) as search:

        def documents() -> Iterator[hs.Document]:
            for number, document in enumerate(DOCUMENTS):
                if number in (150, 250):
                    other = threading.Thread(target=search.refresh)
                    other.start()
                    other.join()
                yield document

        assert search.index(documents(), batch_size=20).indexed == search.count() == 300
    with hs.open(url, backend_options=cache()) as elsewhere:
        assert elsewhere.count() == 300


def test_a_load_loses_nothing_if_another_process_reads_the_storage_into_the_same_folder(
    url: str, tmp_path: Path
) -> None:
    writer, reader = (Remote(url, cache=tmp_path / "shared") for _ in range(2))
    schema = Schema({"bm25": hs.BM25().schema()})
    store = CorpusStore.create(writer.folder, schema, remote=writer)
    writer.pause = 60
    for id in "ab":
        store.append(EncodedBatch([hs.Document(id, "wing")], {"bm25": hs.BM25().encode_documents(["wing"])}))
    reader.pull()
    assert not store.reload()
    writer.pause = 0
    store.send()
    store.close()
    elsewhere = Remote(url, cache=tmp_path / "elsewhere")
    elsewhere.pull()
    assert len(CorpusStore.open(elsewhere.folder)) == 2


def test_a_part_of_a_worker_is_taken_checked_and_not_sent_again(
    s3: s3fs.S3FileSystem, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, encoder = Schema({"bm25": hs.BM25().schema()}), hs.BM25()
    batch = EncodedBatch(DOCUMENTS[:20], {"bm25": encoder.encode_documents([d.content for d in DOCUMENTS[:20]])})
    worker, remote = pickle.loads(pickle.dumps(RemoteStaging(url))), Remote(url, cache=tmp_path)  # noqa: S301
    driver = RemoteStaging(url, remote)
    assert driver.take("one") is None
    worker.write("one", batch, schema)
    (path,) = s3.glob(f"{url}/staging/one/*.parquet")
    s3.pipe_file(path, s3.cat_file(path)[:-20] + bytes(20))
    assert driver.take("one") is None, "a damaged part is removed"
    assert s3.find(f"{url}/staging") == []
    for _ in range(2):  # two workers may encode the same part
        record = worker.write("one", batch, schema)
    assert driver.take("one") == record
    part = Part("one", record.rows, {PART: StoredFile(record.size, record.crc32)})
    with closing(CorpusStore.create(remote.folder, schema, remote=remote)) as store:
        driver.adopt(store, part, record)
        monkeypatch.setattr(s3fs.S3FileSystem, "put", None)
        store.commit([part])
        driver.clear()
    names_of(s3, url)
    with hs.open(url, backend_options={"cache": str(tmp_path / "other")}) as search:
        assert search.count() == 20


class DeathError(Exception):
    """A worker has died."""


class InOneProcess:
    """The part of Ray that the driver uses. A call of a worker runs when the driver waits for its result."""

    exceptions = SimpleNamespace(RayActorError=DeathError, RayTaskError=LookupError, RayError=DeathError)

    def put(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def remote(self, made: Any) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: self.actor(made())))

    def actor(self, worker: Any) -> SimpleNamespace:
        calls: dict[str, Callable[..., Any]] = {
            "set_up": lambda setup: worker.set_up(pickle.loads(setup)),  # noqa: S301
            "encode": worker.encode,
        }
        return SimpleNamespace(**{name: SimpleNamespace(remote=partial(partial, call)) for name, call in calls.items()})

    def wait(self, calls: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return calls[:1], calls[1:]

    def get(self, call: Callable[[], Any]) -> Any:
        return call()

    def kill(self, worker: Any, no_restart: bool) -> None:
        pass


def test_workers_write_to_the_storage_and_the_driver_commits(
    s3: s3fs.S3FileSystem, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies between a part and its record. Then the driver dies, and the next one takes what is finished."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr("hybridsearch.indexing.cluster._connected", lambda _: nullcontext(InOneProcess()))
    written, write = [], Remote.write

    def write_and_die(remote: Remote, file: str, content: bytes | Path) -> None:
        written.append(file)
        if len(written) == 4:
            raise DeathError("worker")
        if len(written) == 9:
            raise KeyboardInterrupt("driver")
        write(remote, file, content)

    monkeypatch.setattr(Remote, "write", write_and_die)
    how: dict[str, Any] = {"cluster": hs.RayCluster(workers=2), "batch_size": 30}
    with pytest.raises(KeyboardInterrupt):
        hs.encode_on_ray(DOCUMENTS, url, {"bm25": hs.BM25()}, **how)
    records = [path for path in s3.find(f"{url}/staging") if path.endswith("shard.json")]
    assert len(records) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "engine") as engine:
        report = engine.index(DOCUMENTS, via=url, **how)
        assert report.indexed == engine.count() == 300
    assert len([file for file in written[9:] if file.endswith("shard.json")]) == 7
    assert s3.find(f"{url}/staging") == []
    names_of(s3, url)
    with hs.open(url) as search:
        assert {document.id for document in search.documents()} == {one.id for one in DOCUMENTS}
    assert hs.encode_on_ray(DOCUMENTS, url, {"bm25": hs.BM25()}, **how).unchanged == 300


class FakeHub:
    """The newest commit of a repository, as `HfApi` changes it and `HfFileSystem` reads it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commits: list[list[str]] = []

    def repo_info(self, **where: str) -> SimpleNamespace:
        assert where == {"repo_id": "me/papers", "repo_type": "dataset", "revision": "main"}
        return SimpleNamespace(sha=str(len(self.commits)))

    def create_commit(self, *, operations: list[Any], commit_message: str, parent_commit: str, **where: str) -> None:
        if parent_commit != self.repo_info(**where).sha:
            raise HfHubHTTPError("newer commit", response=SimpleNamespace(status_code=412, headers={}, request=None))
        for one in operations:
            if isinstance(one, CommitOperationDelete):
                del self.files[one.path_in_repo]
            else:
                with one.as_file() as file:
                    self.files[one.path_in_repo] = file.read()
        self.commits.append([one.path_in_repo for one in operations])


def test_a_change_on_the_hub_is_one_commit(
    cache: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, root = FakeHub(), "datasets/me/papers/index"

    def name(path: str) -> str:
        return path.partition("datasets/me/papers/")[2]

    def cat_file(system: HfFileSystem, path: str) -> bytes:
        if name(path) not in hub.files:
            raise FileNotFoundError(path)
        return hub.files[name(path)]

    def get_file(system: HfFileSystem, path: str, target: str) -> None:
        Path(target).write_bytes(cat_file(system, path))

    place = HfFileSystemResolvedRepositoryPath("dataset", "me/papers", "main", "index")
    monkeypatch.setattr(HfFileSystem, "resolve_path", lambda system, path, *_, **__: place)
    monkeypatch.setattr(HfFileSystem, "__init__", lambda system, **_: setattr(system, "_api", hub))
    for function in (cat_file, get_file):
        monkeypatch.setattr(HfFileSystem, function.__name__, function)
    monkeypatch.setattr(HfFileSystem, "invalidate_cache", lambda *_: None)
    url = f"hf://{root}"
    first = hs.HybridSearch({"bm25": hs.BM25()}, url, backend_options=cache())
    first.upsert({"id": "a", "text": "wing"})
    assert [files[-1] for files in hub.commits] == ["index/manifest.json"] * 2, "an empty index, and one document"
    with hs.open(url, backend_options=cache()) as second:
        second.upsert({"id": "a", "text": "another wing"})
        assert "index/manifest.json" in hub.commits[-1]
        assert set(hub.commits[1][:-1]) & set(hub.commits[-1]), "the same commit removes files of the old part"
        with pytest.raises(IndexLockedError, match="Another process has changed the index"):
            first.upsert({"id": "c", "text": "wing"})
    with hs.open(url, backend_options=cache()) as search:
        assert [document.text for document in search.documents()] == ["another wing"]


def test_killed_writers_lose_nothing_that_they_reported(
    s3: s3fs.S3FileSystem, url: str, cache: Callable[[], dict[str, str]]
) -> None:
    chance, options, stored = random.Random(20), cache(), 0
    for _ in range(3):
        command = [sys.executable, "-c", _WRITER, url, options["cache"], str(stored)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as writer:
            assert writer.stdout is not None
            told = [writer.stdout.readline()]  # it has begun
            time.sleep(chance.uniform(0, 0.5))
            writer.kill()
            told += writer.stdout.readlines()
        stored = 1 + max(int(line) for line in told if line.endswith("\n"))
        with hs.open(url, backend_options=cache()) as search:  # the last one may be stored and not reported
            assert {document.id for document in search.documents()} >= set(map(str, range(stored)))
            assert search.count() <= stored + 1
    with hs.open(url, backend_options=options) as search:
        search.delete(["0"])
    names_of(s3, url)


def test_what_is_not_there_is_told(
    url: str, cache: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(IndexNotFoundError, match=url):
        hs.open(url, backend_options=cache())
    with pytest.raises(StorageError, match="s3://nothing/papers cannot be stored"):
        hs.HybridSearch({"bm25": hs.BM25()}, "s3://nothing/papers", backend_options=cache()).upsert(
            {"id": "a", "text": "wing"}
        )
    with pytest.raises(InvalidArgumentError, match="names no bucket"):
        hs.open("s3://")
    with pytest.raises(InvalidArgumentError, match="storage_options"):
        Remote(url, "endpoint")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"gcsfs.*gs"):
        hs.open("gs://bucket/papers")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=f"{url} cannot be read") as caught:
        hs.open(url, backend_options=cache())
    assert "hush" not in str(caught.value)


def test_each_server_and_each_account_has_a_copy_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(variables: dict[str, str], options: dict[str, Any]) -> Path:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return Remote("s3://bucket/papers", options, tmp_path).folder

    one, other = "http://127.0.0.1:8", "http://127.0.0.1:9"
    asked = [
        ({}, {"endpoint_url": one}),
        ({}, {"endpoint_url": other}),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:10"}, {}),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:11"}, {}),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "ada"}, {}),
    ]
    assert len({folder(*of) for of in asked}) == len(asked)
    assert folder({}, {"client_kwargs": {"endpoint_url": one}}) == folder({}, {"endpoint_url": one, "anon": True})
