"""Tests of the encoding cache: what it keeps, and that no damage to it stops the program."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridsearch.backends import Fingerprint
from hybridsearch.encoders import cache as cache_module
from hybridsearch.encoders.cache import EncodingCache, cache_folder, clear, describe, encode_windows, open_cache

FINGERPRINT = Fingerprint("dense", {"model": "0123456789abcdef"})
READ = 4
"""Number of characters that the encoder of these tests is said to read."""

Encoded: TypeAlias = tuple[NDArray[np.intp], list[bytes], NDArray[np.bool_]]


@pytest.fixture
def cache(tmp_path: Path) -> EncodingCache:
    return EncodingCache(tmp_path, FINGERPRINT)


class Recorder:
    """An encoder of bytes that remembers what it was asked to encode."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: list[int] = []

    def __call__(self, texts: list[str], numbers: list[int]) -> Iterator[Encoded]:
        self.texts += texts
        self.numbers += numbers
        for start in range(0, len(texts), 2):
            positions = np.arange(start, min(start + 2, len(texts)))[::-1]
            rows = [texts[position].upper().encode() for position in positions]
            yield positions, rows, np.array([len(row) > READ for row in rows])


def encoded(texts: list[str], recorder: Recorder, cache: EncodingCache | None = None) -> list[bytes]:
    windows = encode_windows(texts, recorder, cache, lambda count: None, never_asked)
    return [row for _, rows, _ in windows for row in rows]


def never_asked(texts: list[str]) -> list[bool]:
    pytest.fail(f"the cache does not know whether {texts} are cut off")


def truncated(texts: list[str], recorder: Recorder, cache: EncodingCache | None) -> int:
    return sum(cut for _, _, cut in encode_windows(texts, recorder, cache, lambda count: None, never_asked))


def test_vectors_come_back_bit_for_bit(cache: EncodingCache) -> None:
    vectors = {f"text {i} äß水": np.random.default_rng(i).bytes(1536) for i in range(1200)}
    cache.put(vectors)
    assert cache.get([*vectors, "unknown"]) == vectors


def test_another_fingerprint_shares_nothing(cache: EncodingCache, tmp_path: Path) -> None:
    cache.put({"a text": b"vector"})
    assert EncodingCache(tmp_path, Fingerprint("dense", {"model": "other"})).get(["a text"]) == {}


def test_each_distinct_text_is_encoded_once_and_blank_texts_never(cache: EncodingCache) -> None:
    recorder = Recorder()
    assert encoded(["b", "", "a", "b", " \n", "a"], recorder, cache) == [b"B", b"", b"A", b"B", b"", b"A"]
    assert (recorder.texts, recorder.numbers) == (["b", "a"], [0, 2])


def test_unchanged_texts_are_not_encoded_again(cache: EncodingCache) -> None:
    encoded(["one", "two", "three"], Recorder(), cache)
    recorder = Recorder()
    assert encoded(["three", "two", "four", "one"], recorder, cache) == [b"THREE", b"TWO", b"FOUR", b"ONE"]
    assert recorder.texts == ["four"]


def test_every_text_that_was_cut_off_counts_also_from_the_cache(cache: EncodingCache) -> None:
    texts = ["longer", "long", "", "longer", "longest"]
    assert [truncated(texts, Recorder(), None), truncated(texts, Recorder(), cache)] == [3, 3]
    recorder = Recorder()
    assert truncated([*texts, "longest of all"], recorder, cache) == 4
    assert recorder.texts == ["longest of all"]


def test_an_old_cache_is_asked_for_vectors_and_the_model_for_what_it_cuts_off(cache: EncodingCache) -> None:
    cache.put({"old": b"OLD!", "older": b"OLDER"})
    asked: list[str] = []

    def is_cut(texts: list[str]) -> list[bool]:
        asked.extend(texts)
        return [len(text) > READ for text in texts]

    for _ in range(2):
        windows = encode_windows(["old", "older", "new"], Recorder(), cache, lambda count: None, is_cut)
        assert [cut for _, _, cut in windows] == [1]
    assert asked == ["old", "older"]


def test_windows_bound_what_is_encoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WINDOW", 3)
    windows = encode_windows(list("abcdefg"), Recorder(), None, lambda count: None, never_asked)
    starts = [(start, len(rows)) for start, rows, _ in windows]
    assert starts == [(0, 3), (3, 3), (6, 1)]


def test_progress_counts_every_text_once(cache: EncodingCache) -> None:
    cache.put({"known": b"KNOWN"})
    counts: list[int] = []
    list(encode_windows(["known", "", "new", "newer", "new"], Recorder(), cache, counts.append, lambda texts: [True]))
    assert sum(counts) == 5


def test_what_was_encoded_before_an_interruption_is_kept(cache: EncodingCache) -> None:
    def interrupted(texts: list[str], numbers: list[int]) -> Iterator[Encoded]:
        yield np.array([0]), [b"A"], np.array([False])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(encode_windows(["a", "b"], interrupted, cache, lambda count: None, never_asked))
    assert cache.get(["a", "b"]) == {"a": b"A"}


def test_a_flipped_bit_makes_a_vector_unknown(cache: EncodingCache) -> None:
    cache.put({"good": b"good vector", "bad": b"bad vector"})
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        for key, vector in connection.execute("SELECT key, vector FROM vectors").fetchall():
            damaged = vector.replace(b"bad", b"baf")
            connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (damaged, key))
    assert cache.get(["good", "bad"]) == {"good": b"good vector"}
    cache.put({"bad": b"bad vector"})
    assert cache.get(["bad"]) == {"bad": b"bad vector"}


def test_a_damaged_file_is_set_aside_with_a_warning(cache: EncodingCache) -> None:
    cache.path.write_bytes(b"this is not a database" * 100)
    with pytest.warns(UserWarning, match="is damaged .*was renamed"):
        assert cache.get(["a text"]) == {}
    cache.put({"a text": b"vector"})
    assert cache.get(["a text"]) == {"a text": b"vector"}
    assert len(list(cache.path.parent.glob("*.damaged-*"))) == 1


def test_a_truncated_file_is_set_aside_with_a_warning(cache: EncodingCache) -> None:
    cache.put({f"text {i}": bytes(1000) for i in range(100)})
    cache.path.write_bytes(cache.path.read_bytes()[:20_000])
    with pytest.warns(UserWarning, match="is damaged"):
        cache.get([f"text {i}" for i in range(100)])
    cache.put({"a text": b"vector"})
    assert cache.get(["a text"]) == {"a text": b"vector"}


def test_a_full_disk_ends_caching_with_a_warning(cache: EncodingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = cache._connect

    def on_a_small_disk() -> sqlite3.Connection:
        connection = connect()
        connection.execute("PRAGMA max_page_count = 8")
        return connection

    monkeypatch.setattr(cache, "_connect", on_a_small_disk)
    recorder = Recorder()
    texts = [f"{i} " * 4000 for i in range(12)]
    with pytest.warns(UserWarning, match="full.*nothing is cached") as caught:
        assert encoded(texts, recorder, cache) == [text.upper().encode() for text in texts]
    assert len(caught) == 1


def test_a_folder_that_cannot_be_made_ends_caching_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = EncodingCache(tmp_path / "file" / "cache", FINGERPRINT)
    with pytest.warns(UserWarning, match="nothing is cached"):
        assert encoded(["a"], Recorder(), cache) == [b"A"]


def test_threads_may_share_a_cache(cache: EncodingCache) -> None:
    def work(number: int) -> bool:
        vectors = {f"{number} {i}": f"vector {number} {i}".encode() for i in range(40)}
        for text, vector in vectors.items():
            cache.put({text: vector})
        return cache.get(vectors) == vectors

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert describe(cache.path.parent)[0].vectors == 320


def _write(folder: Path, number: int) -> None:
    cache = EncodingCache(folder, FINGERPRINT)
    for i in range(40):
        cache.put({f"{number} {i}": b"vector", "shared": b"shared vector"})
    assert len(cache.get([f"{number} {i}" for i in range(40)])) == 40


def test_processes_may_share_a_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert describe(tmp_path)[0].vectors == 121


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("HYBRIDSEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hybridsearch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "hybridsearch"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HYBRIDSEARCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user who is in no file
    assert cache_folder() is None
    assert open_cache(True, FINGERPRINT) is None


def test_clear_removes_graphs_and_choices_and_nothing_else(tmp_path: Path) -> None:
    ours = ["dense-1f3a2b4c5d6e.sqlite", "openvino/1f3a/model.xml", "openvino/1f3a/model.bin", "choices/2b4c.json"]
    ours += [f"{ours[0]}-wal", f"{ours[0]}.damaged-17", f"{ours[0]}.damaged-17-shm"]
    theirs = ["openvino/1f3a/notes.txt", "compare/index/manifest.json", "copies/part.parquet", "my-own.sqlite"]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    assert clear(tmp_path) == 4 * len(ours)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / name for name in theirs}
    assert describe(tmp_path) == []


def test_off_turns_caching_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", "OFF")
    assert cache_folder() is None
    assert open_cache(True, FINGERPRINT) is None
    assert (describe(), clear()) == ([], 0)


def test_an_encoder_can_name_its_own_folder_or_none(tmp_path: Path) -> None:
    opened = open_cache(tmp_path / "mine", FINGERPRINT)
    assert opened is not None
    assert opened.path.parent == tmp_path / "mine"
    assert open_cache(False, FINGERPRINT) is None


def test_describe_lists_the_files_and_clear_deletes_them(cache: EncodingCache, tmp_path: Path) -> None:
    cache.put({"a": b"1", "b": b"2"})
    (tmp_path / "sparse-000000000000.sqlite").write_bytes(b"damaged")
    (tmp_path / "another.txt").write_text("stays")
    files = describe(tmp_path)
    assert [(file.encoder, file.vectors) for file in files] == [(str(FINGERPRINT), 2), ("sparse 000000000000", None)]
    assert clear(tmp_path) == sum(file.bytes for file in files)
    assert [path.name for path in tmp_path.iterdir()] == ["another.txt"]
