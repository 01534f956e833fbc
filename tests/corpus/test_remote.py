"""An index in object storage is the index of a folder, also after kills, with a real S3 server beside it."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.corpus.manifest import parse_manifest
from hybridsearch.corpus.remote import Remote
from hybridsearch.errors import (
    IndexCorruptedError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidArgumentError,
    MissingExtraError,
    StorageError,
)

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
