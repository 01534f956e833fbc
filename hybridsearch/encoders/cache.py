"""The encoding cache, which keeps the vectors of texts on disk, so that no text is encoded twice.

There is one SQLite file for each encoder fingerprint, in `$HYBRIDSEARCH_CACHE` or `~/.cache/hybridsearch`. The value
"off" turns the cache off. A key is a hash of the text. A value is the vector's bytes with a checksum. Any number of
processes and threads may share a file. Errors of the cache never end an encoding: a damaged file is renamed, a full
disk turns the cache off, and each of them brings a warning.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch import arguments
from hybridsearch.backends import Fingerprint
from hybridsearch.folders import cache_home
from hybridsearch.messages import warn

T = TypeVar("T")

WINDOW = 4096
"""Number of texts that are sorted by length and held in memory at a time."""

EncodeBatches: TypeAlias = Callable[
    [list[str], list[int]], Iterator[tuple[NDArray[np.intp], list[bytes], NDArray[np.bool_]]]
]
"""Function that encodes texts and yields batches: positions, vectors as bytes, and which texts were cut off.

Its second argument has the number of each text, for messages."""

GRAPHS, CHOICES = "openvino", "choices"
"""Folders in the cache with the graphs of OpenVINO, and with what `precision="auto"` has chosen."""

_SUFFIX = ".sqlite"
_VECTORS = f"*-{'[0-9a-f]' * 12}{_SUFFIX}"  # not any database that somebody keeps in this folder
_OURS = (
    _VECTORS,
    f"{_VECTORS}-*",
    f"{_VECTORS}.damaged-*",
    f"{GRAPHS}/*/model.xml",
    f"{GRAPHS}/*/model.bin",
    f"{CHOICES}/*.json",
)
_USED = ContextVar("_USED", default=True)
_KEYS_A_QUERY = 500


def cache_folder() -> Path | None:
    """The folder of the cache, which may not exist yet. None if `HYBRIDSEARCH_CACHE` is "off" or there is no home."""
    given = os.environ.get("HYBRIDSEARCH_CACHE", "").strip()
    if given.lower() == "off":
        return None
    if given:
        return arguments.path("HYBRIDSEARCH_CACHE", given)
    home = cache_home()
    return None if home is None else home / "hybridsearch"


@dataclass(frozen=True, slots=True)
class CacheFile:
    """One file of the encoding cache.

    Attributes:
        path: Path of the file.
        encoder: Fingerprint of the encoder, as text.
        vectors: Number of vectors. None if the file is damaged.
        bytes: Size of the file.
    """

    path: Path
    encoder: str
    vectors: int | None
    bytes: int


def describe(folder: Path | None = None) -> list[CacheFile]:
    """List the files of the cache in a folder by name. The default is `cache_folder()`."""
    folder = folder or cache_folder()
    files = []
    for path in sorted(folder.glob(_VECTORS)) if folder is not None else ():
        vectors = None
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                vectors = int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
        except sqlite3.Error:
            pass  # shown as None
        size = sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
        files.append(CacheFile(path, " ".join(path.name.removesuffix(_SUFFIX).rsplit("-", 1)), vectors, size))
    return files


def clear(folder: Path | None = None) -> int:
    """Delete all files of the cache: vectors, damaged files, graphs of OpenVINO, and choices of `precision="auto"`.

    Args:
        folder: Folder of the cache. None for `cache_folder()`.

    Returns:
        Number of bytes that were freed.
    """
    folder = folder or cache_folder()
    freed = 0
    for pattern in _OURS:
        for path in list(folder.glob(pattern)) if folder is not None else ():
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    for graph in list((folder / GRAPHS).glob("*")) if folder is not None else ():
        with suppress(OSError):  # it is no folder, or it has files that are not ours
            graph.rmdir()
    return freed


class EncodingCache:
    """The cached vectors of one encoder.

    >>> import tempfile
    >>> cache = EncodingCache(Path(tempfile.mkdtemp()), Fingerprint("dense", {"model": "1f3a"}))
    >>> cache.put({"a text": b"its vector"})
    >>> cache.get(["a text", "another"])
    {'a text': b'its vector'}
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        self.path = folder / f"{fingerprint.name}-{fingerprint.digest}{_SUFFIX}"
        self._usable = True

    def get(self, texts: Collection[str]) -> dict[str, bytes]:
        """Read the vectors that are in the cache, by text. A vector with a wrong checksum is left out."""
        found = {}
        for text, key, value in self._read("SELECT key, vector FROM vectors WHERE key", texts):
            if zlib.crc32(value[4:], zlib.crc32(key)) == int.from_bytes(value[:4], "little"):
                found[text] = value[4:]
        return found

    def cut(self, texts: Collection[str]) -> dict[str, bool]:
        """Read whether the model cut off each text, by text. Texts of which it is not known are left out."""
        return {text: bool(value) for text, _, value in self._read("SELECT key, cut FROM cut_off WHERE key", texts)}

    def put(self, vectors: Mapping[str, bytes]) -> None:
        """Write vectors, given by text. They are committed when the call returns."""
        rows = []
        for text, vector in vectors.items():
            key = _key(text)
            rows.append((key, zlib.crc32(vector, zlib.crc32(key)).to_bytes(4, "little") + vector))

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

        if rows:
            self._run(write)

    def put_cut(self, cut: Mapping[str, bool]) -> None:
        """Write whether the model cut off each text, given by text."""
        rows = [(_key(text), int(value)) for text, value in cut.items()]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO cut_off VALUES (?, ?)", rows)

        if rows:
            self._run(write)

    def _read(self, select: str, texts: Collection[str]) -> list[tuple[str, bytes, Any]]:
        """The text, the key and the value of each row that `select` finds."""
        by_key = {_key(text): text for text in texts}
        keys = list(by_key)

        def read(connection: sqlite3.Connection) -> list[tuple[str, bytes, Any]]:
            found: list[tuple[str, bytes, Any]] = []
            for start in range(0, len(keys), _KEYS_A_QUERY):
                some = keys[start : start + _KEYS_A_QUERY]
                rows = connection.execute(f"{select} IN ({','.join('?' * len(some))})", some)
                found += ((by_key[key], key, value) for key, value in rows)
            return found

        return (self._run(read) if keys else None) or []

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do `work` on a new connection. Returns None if the cache cannot be used."""
        for attempt in range(2):
            if not self._usable:
                break
            try:
                with closing(self._connect()) as connection:
                    return work(connection)
            except (sqlite3.OperationalError, OSError) as error:  # disk full, no permission, locked for too long
                self._usable = False
                warn(
                    f"The encoding cache {self.path} cannot be used ({error}), so nothing is cached: set "
                    "HYBRIDSEARCH_CACHE to another folder, or to 'off'."
                )
            except sqlite3.DatabaseError as error:  # not a database, or malformed
                self._set_aside(error)
                self._usable = attempt == 0
        return None

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                with suppress(sqlite3.OperationalError):  # another connection does it now, and SQLite does not wait
                    connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            connection.execute("CREATE TABLE IF NOT EXISTS cut_off (key BLOB PRIMARY KEY, cut INTEGER NOT NULL)")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        for ending in ("", "-wal", "-shm"):
            try:
                Path(f"{self.path}{ending}").replace(f"{aside}{ending}")
            except OSError:
                continue  # there is no such file, or another process was faster
        warn(f"The encoding cache {self.path} is damaged ({error}). It was renamed to {aside.name}, and starts empty.")


@contextmanager
def no_cache() -> Iterator[None]:
    """Turns the cache off for the encoders of this thread, so that the time of encoding can be measured."""
    token = _USED.set(False)
    try:
        yield
    finally:
        _USED.reset(token)


def open_cache(setting: bool | str | Path, fingerprint: Fingerprint) -> EncodingCache | None:
    """The cache for an encoder's `cache` argument. None if there is no cache.

    A template decides what the texts are, and not what their vectors are. So it does not divide the cache.
    """
    if setting is False or not _USED.get():
        return None
    fingerprint = replace(fingerprint, settings={k: v for k, v in fingerprint.settings.items() if k != "template"})
    folder = cache_folder() if setting is True else arguments.path("cache", setting)
    return None if folder is None else EncodingCache(folder, fingerprint)


def encode_windows(
    texts: Sequence[str],
    encode: EncodeBatches,
    cache: EncodingCache | None,
    advance: Callable[[int], None],
    is_cut: Callable[[list[str]], Sequence[bool] | NDArray[np.bool_]],
) -> Iterator[tuple[int, list[bytes], int]]:
    """Encode texts that are not in the cache, each distinct text once, `WINDOW` texts at a time.

    Args:
        texts: Texts to encode. Blank texts are not encoded.
        encode: Function that makes the vectors of new texts.
        cache: Cache to read and to write. None for no cache.
        advance: Function that is called with the number of texts since its last call.
        is_cut: Function that tells which texts the model cuts off. It is called if the cache has a vector, but does not
            know this.

    Yields:
        The number of a window's first text, the window's vectors as bytes in order, and the number of its texts that
        the model cut off. A blank text has `b""`.
    """
    for start in range(0, len(texts), WINDOW):
        window = texts[start : start + WINDOW]
        numbers: dict[str, int] = {}
        for number, text in enumerate(window, start):
            if text.strip():
                numbers.setdefault(text, number)
        vectors = {} if cache is None else cache.get(numbers)
        cut = {} if cache is None else cache.cut(vectors)
        if cache is not None and (unknown := [text for text in vectors if text not in cut]):
            found = {text: bool(value) for text, value in zip(unknown, is_cut(unknown), strict=True)}
            cut |= found
            cache.put_cut(found)
        new = [text for text in numbers if text not in vectors]
        advance(len(window) - len(new))
        for positions, rows, cut_rows in encode(new, [numbers[text] for text in new]) if new else ():
            batch = {new[position]: row for position, row in zip(positions, rows, strict=True)}
            cut_batch = {new[position]: bool(value) for position, value in zip(positions, cut_rows, strict=True)}
            vectors |= batch
            cut |= cut_batch
            if cache is not None:
                cache.put(batch)
                cache.put_cut(cut_batch)
            advance(len(batch))
        yield start, [vectors.get(text, b"") for text in window], sum(cut.get(text, False) for text in window)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
