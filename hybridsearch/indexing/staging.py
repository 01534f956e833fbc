"""Finished parts of a store that are not committed yet, in a folder that all machines share, or in object storage.

A worker writes a part, the driver reads it and commits it. The name of a part is made from its content, so a later call
finds the parts that an earlier one left. A part counts as finished if its record is there, which is written last.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from hybridsearch.backends import Schema
from hybridsearch.corpus.files import StoredFile, crc32, seal, storage_errors, sync_folder
from hybridsearch.corpus.manifest import PART, Part
from hybridsearch.corpus.parts import to_tables, write_part
from hybridsearch.corpus.remote import Remote
from hybridsearch.corpus.store import STAGING, CorpusStore
from hybridsearch.errors import IndexCorruptedError, StorageError
from hybridsearch.vectors import EncodedBatch

_RECORD = "shard.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What a worker notes about a finished part.

    Attributes:
        name: Name of the part.
        rows: Number of documents.
        size: Size of the Parquet file in bytes.
        crc32: CRC-32 of the Parquet file.
        read: Number of texts that each retriever read.
        cut: Number of texts of which its model read only the beginning, for each retriever that has some.
        file: Name of the Parquet file.
    """

    name: str
    rows: int
    size: int
    crc32: int
    read: Mapping[str, int] = field(default_factory=dict)
    cut: Mapping[str, int] = field(default_factory=dict)
    file: str = PART


class Staging(Protocol):
    """Where finished parts wait. It travels to the workers."""

    def has(self, name: str) -> Record | None:
        """The record of a part that a worker has finished. None if there is none."""
        ...

    def write(self, name: str, batch: EncodedBatch, schema: Schema) -> Record:
        """Write a finished part. It appears at once. Called by workers."""
        ...

    def take(self, name: str) -> Record | None:
        """The record of a finished part, whose file is then here, and whose checksum is right. Called by the driver.

        A damaged part is removed.
        """
        ...

    def adopt(self, store: CorpusStore, part: Part, record: Record) -> None:
        """Make the file of a part that was taken the file of a new part of the store. Called by the driver."""
        ...

    def clear(self) -> None:
        """Remove all parts."""
        ...


@dataclass(frozen=True, slots=True)
class FolderStaging:
    """Finished parts in a folder that all machines see under one path.

    Attributes:
        folder: The folder. Each part is a folder in it.
    """

    folder: Path

    def has(self, name: str) -> Record | None:
        return self.take(name)

    def take(self, name: str) -> Record | None:
        place = self.folder / name
        with storage_errors(place):
            if not place.exists():
                return None
            with suppress(ValueError, TypeError, FileNotFoundError):
                record = Record(**json.loads((place / _RECORD).read_bytes()))
                if record.name == name and crc32(place / PART) == record.crc32:
                    return record
            shutil.rmtree(place)
            return None

    def write(self, name: str, batch: EncodedBatch, schema: Schema) -> Record:
        beside = self.folder / f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        with storage_errors(self.folder):
            try:
                beside.mkdir(parents=True)
                record = _write(beside / PART, name, batch, schema)
                (beside / _RECORD).write_text(_dump(record), encoding="utf-8")
                seal(beside / _RECORD)
                sync_folder(beside)
                try:
                    beside.rename(self.folder / name)
                except OSError:  # a worker that was thought to be dead has written the same part
                    if there := self.take(name):
                        return there
                    raise
                sync_folder(self.folder)
                return record
            finally:
                shutil.rmtree(beside, ignore_errors=True)

    def adopt(self, store: CorpusStore, part: Part, record: Record) -> None:
        try:
            store.adopt(part, self.folder / record.name / PART)
        except FileNotFoundError:
            raise StorageError(
                f"A worker has written a part to {store.folder}, but this process does not see it: choose a folder "
                "that all machines of the cluster share."
            ) from None

    def clear(self) -> None:
        with suppress(OSError):
            shutil.rmtree(self.folder)


class RemoteStaging:
    """Finished parts in object storage. The driver copies them into the folder that holds the copy of the store.

    A part is two objects. The Parquet file has a new name each time, so two workers that encode one part do not mix.
    The record names it, and is written last.

    Args:
        url: URL of the store.
        remote: The store and its copy, in the driver. None makes one without a copy, in a worker.
    """

    def __init__(self, url: str, remote: Remote | None = None) -> None:
        self._url, self._remote = url, remote

    def __reduce__(self) -> tuple[type[RemoteStaging], tuple[str]]:
        return RemoteStaging, (self._url,)

    @property
    def _storage(self) -> Remote:
        if self._remote is None:
            self._remote = Remote(self._url, cache=tempfile.gettempdir())  # a worker keeps no copy there
        return self._remote

    def has(self, name: str) -> Record | None:
        content = self._storage.read(f"{STAGING}/{name}/{_RECORD}")
        with suppress(ValueError, TypeError):
            record = Record(**json.loads(content or b""))
            return record if record.name == name and Path(record.file).name == record.file else None
        return None

    def write(self, name: str, batch: EncodedBatch, schema: Schema) -> Record:
        file = f"{uuid.uuid4().hex[:16]}.parquet"
        with tempfile.TemporaryDirectory(prefix="hybridsearch-") as folder:
            path = Path(folder, file)
            with storage_errors(path.parent):
                record = _write(path, name, batch, schema)
            self._storage.write(f"{STAGING}/{name}/{file}", path)
        self._storage.write(f"{STAGING}/{name}/{_RECORD}", _dump(record).encode())
        return record

    def take(self, name: str) -> Record | None:
        if record := self.has(name):
            with suppress(IndexCorruptedError):
                if self._storage.fetch(self._local(record), StoredFile(record.size, record.crc32)):
                    return record
            self._storage.remove_folder(f"{STAGING}/{name}")
        return None

    def adopt(self, store: CorpusStore, part: Part, record: Record) -> None:
        store.adopt(part, self._local(record))
        self._storage.copy(f"{STAGING}/{record.name}/{record.file}", f"segments/{part.name}/{PART}")

    def clear(self) -> None:
        with suppress(OSError):
            shutil.rmtree(self._storage.folder / STAGING)
        with suppress(StorageError):
            self._storage.remove_folder(STAGING)

    def _local(self, record: Record) -> Path:
        return self._storage.folder / STAGING / record.name / record.file


def _write(path: Path, name: str, batch: EncodedBatch, schema: Schema) -> Record:
    rows = write_part(path, to_tables(batch, schema), schema)
    file = seal(path)
    read = {retriever: len(vectors) for retriever, vectors in batch.vectors.items()}
    cut = {retriever: vectors.truncated for retriever, vectors in batch.vectors.items() if vectors.truncated}
    return Record(name, rows, file.size, file.crc32, read, cut, path.name)


def _dump(record: Record) -> str:
    return json.dumps(asdict(record))
