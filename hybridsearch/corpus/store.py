"""A folder of Parquet parts that changes only by atomic commits.

    manifest.json                     what the folder holds: schema, parts, their files with size and CRC-32
    write.lock                        held by the one process that writes
    segments/<name>/part.parquet      some documents with their vectors (see `hybridsearch.corpus.parts`)
    segments/<name>/*.npy             arrays that a backend derived from the part, and rows deleted since

The manifest decides what the store holds. A file is complete and synced before a manifest names it, and is never
changed afterwards. A new manifest replaces the old one by a rename. So a crash at any time leaves the last commit. A
reader never waits, and never sees half of a change. The next writer removes the files that a crashed writer left.

A folder may come from a stranger, so the manifest is checked. Names stay in their folder, folders are not links,
numbers are whole, files have the noted sizes, and most files have the noted checksums.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hybridsearch.arguments import path as checked_path
from hybridsearch.backends import Schema, check_batch
from hybridsearch.corpus.files import (
    REPAIR,
    StoredFile,
    compare,
    crc32,
    damaged,
    read_array,
    refuse_links,
    seal,
    storage_error,
    storage_errors,
    sync_folder,
)
from hybridsearch.corpus.manifest import PART, Part, manifest_stamp, read_manifest, render_manifest
from hybridsearch.corpus.parts import arrow_schema, from_table, read_part, to_tables, write_part
from hybridsearch.corpus.remote import Remote
from hybridsearch.errors import (
    HybridSearchError,
    IndexCorruptedError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    StorageError,
)
from hybridsearch.folders import LOCK, MANIFEST, refuse_inside_index
from hybridsearch.forks import after_fork
from hybridsearch.vectors import EncodedBatch

T = TypeVar("T")

_SEGMENTS = "segments"
_parents_locks: list[filelock.BaseFileLock] = []
"""Locks of the parent, in a forked process. They are kept here, because Python would release a lock without a name."""
STAGING = "staging"
"""Folder in the store's folder that holds the parts of a cluster that are not committed yet."""

_OURS = {MANIFEST, f"{MANIFEST}.tmp", LOCK, _SEGMENTS, STAGING}
_UNFINISHED = ".saving"

SMALL_FILE = 1 << 22
"""Size in bytes up to which checksums are compared even without `verify`. It takes a few milliseconds at most."""


class CorpusStore:
    """A folder with encoded documents. Any number of processes may read it while one process writes.

    Attributes:
        folder: Path of the folder.
        schema: Schema with the retrievers whose vectors the store holds.
        parts: Parts of the last commit that this object knows.
        remote: Object storage that the folder is a copy of. None if the folder is the store.

    >>> from hybridsearch.backends import Fingerprint, RetrieverSchema
    >>> from hybridsearch.documents import Document
    >>> from hybridsearch.vectors import DenseVectors
    >>> import tempfile
    >>> schema = Schema({"dense": RetrieverSchema("dense", Fingerprint("mine", {}), dimensions=2, metric="cosine")})
    >>> store = CorpusStore.create(tempfile.mkdtemp(), schema)
    >>> store.append(EncodedBatch([Document("1", "Lift")], {"dense": DenseVectors(np.float32([[0, 1]]))}))
    >>> store.close()
    >>> [document.text for batch in CorpusStore.open(store.folder).batches() for document in batch.documents]
    ['Lift']
    """

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        parts: Sequence[Part] = (),
        generation: int = 0,
        *,
        remote: Remote | None = None,
    ) -> None:
        self.folder = folder
        self.schema = schema
        self.remote = remote
        self.parts: tuple[Part, ...] = tuple(parts)
        self._generation = generation
        self._manifest = b""  # of the last commit, if this object made it
        self._lock: filelock.BaseFileLock | None = None
        self._lock_file: tuple[int, ...] = ()
        self._verified: set[tuple[str, str]] = set()
        after_fork(self, CorpusStore._leave_lock)

    @classmethod
    def create(cls, folder: str | Path, schema: Schema, *, remote: Remote | None = None) -> CorpusStore:
        """Make an empty store, and become its writer.

        Raises:
            IndexExistsError: The folder holds an index or other files, or it is inside the folder of an index.
            IndexLockedError: Another process is making an index in the folder.
            InvalidArgumentError: The schema cannot be stored.
        """
        folder = checked_path("folder", folder).absolute()
        arrow_schema(schema)
        taken = IndexExistsError(f"There is an index in {folder} already: open it, or choose another folder.")
        try:
            refuse_inside_index(folder, folder.resolve().parents)
            folder.mkdir(parents=True, exist_ok=True)
            foreign = sorted({path.name for path in folder.iterdir()} - _OURS)
            if (folder / MANIFEST).exists():
                raise taken
        except OSError as error:
            if isinstance(error, HybridSearchError):
                raise
            raise StorageError(
                f"No index can be made in {folder} ({error.strerror}): choose another folder."
            ) from error
        if foreign:
            raise IndexExistsError(
                f"The folder {folder} holds other files ({', '.join(foreign[:3])}): choose an empty or a new folder."
            )
        store = cls(folder, schema, remote=remote)
        try:
            store._acquire()
            with storage_errors(folder):
                if (folder / MANIFEST).exists():
                    raise taken
            store._remove_garbage()
            store.commit(())
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True, remote: Remote | None = None) -> CorpusStore:
        """Open a store, and check that its files are there and not damaged.

        Args:
            folder: Folder of the store.
            verify: Whether to read all files and compare their checksums. If not, only the sizes of all files and the
                checksums of small files (up to `SMALL_FILE`) are compared.

        Raises:
            IndexNotFoundError: There is no store in the folder.
            IndexCorruptedError: A file is damaged or missing. The message names the file.
            StorageError: The folder cannot be read.
        """
        folder = checked_path("folder", folder).absolute()
        if not exists(folder):
            raise IndexNotFoundError(f"There is no index in {folder}: index documents into it first.")
        store = cls(folder, *read_manifest(folder), remote=remote)
        store.load(lambda part: None, verify=verify)
        return store

    def load(self, read: Callable[[Part], T], *, verify: bool = True) -> list[T]:
        """Check the files, and call a function with each part. If a writer replaces parts, this starts again.

        Args:
            read: Function that is called with each part.
            verify: Whether to compare the checksums of all files, as in `open`.

        Returns:
            The results of the function.

        Raises:
            IndexCorruptedError: A file is damaged or missing.
            StorageError: A file cannot be read.
        """
        while True:
            with storage_errors(self.folder):
                try:
                    self._check_files(verify)
                    return [read(part) for part in self.parts]
                except FileNotFoundError as error:
                    if isinstance(error, HybridSearchError):
                        raise
                    if not self.reload():
                        raise IndexCorruptedError(f"{error.filename or error} is missing: {REPAIR}.") from error

    def reload(self) -> bool:
        """Read the manifest again.

        Returns:
            Whether another process has committed.

        Raises:
            IndexNotFoundError: The index was deleted or moved.
        """
        if self.remote is not None:
            self.remote.pull()
        try:
            schema, parts, generation = read_manifest(self.folder)
        except IndexNotFoundError as error:
            raise self._gone() from error
        if (generation, tuple(parts), schema) == (self._generation, self.parts, self.schema):
            return False
        if self.remote is not None and self.remote.waits and generation < self._generation:
            return False  # another process has put an older manifest into the folder, which is its copy, too
        self.schema, self.parts, self._generation, self._manifest = schema, tuple(parts), generation, b""
        return True

    def check(self, part: Part, file: str) -> None:
        """Compare the checksum of one file, unless it was compared before. Raises IndexCorruptedError if it differs."""
        with storage_errors(self.folder):
            if (part.name, file) not in self._verified:
                compare(self.path(part, file), part.files[file], crc32(self.path(part, file)))
                self._verified.add((part.name, file))

    def lock(self) -> bool:
        """Become the writer, until `close`.

        Returns:
            Whether another process has committed since this store was read.

        Raises:
            IndexLockedError: Another process, or another object in this process, is the writer.
            IndexNotFoundError: The folder was deleted, moved or replaced.
        """
        if self._lock is not None:
            if self._lock_file != self._identity():
                raise self._gone()
            return False
        with storage_errors(self.folder):
            if not (self.folder / MANIFEST).exists():
                raise self._gone()
        self._acquire()
        try:
            changed = self.reload()
            self._remove_garbage()
        except BaseException:
            self.close()
            raise
        return changed

    def path(self, part: Part, file: str = PART) -> Path:
        """The path of a file of a part."""
        return self.folder / _SEGMENTS / part.name / file

    def tombstones(self, part: Part) -> NDArray[np.bool_] | None:
        """Read which documents of a part are not deleted.

        Returns:
            An array of shape (part.rows,), True for each document that is not deleted. None if no row is deleted.
        """
        if part.deleted is None:
            return None
        path = self.path(part, part.deleted)
        packed = read_array(path, np.uint8, 1)
        if len(packed) != (part.rows + 7) // 8:
            raise damaged(path, f"it has {8 * len(packed)} flags for {part.rows} documents")
        return ~np.unpackbits(packed, count=part.rows).astype(bool)

    def add_part(self, tables: Iterable[pa.Table], arrays: Iterable[tuple[str, NDArray[Any]]] = ()) -> Part:
        """Write a new part. Readers see it after the next `commit` that names it.

        Args:
            tables: Tables from `to_tables` or `read_part`.
            arrays: Arrays that a backend keeps beside the documents, by name. The files are `<name>.npy`.

        Raises:
            StorageError: The disk is full, or refuses to write. No file is left.
        """
        self.lock()
        name = uuid.uuid4().hex[:16]
        beside = self.folder / _SEGMENTS / f"{name}.tmp"
        with storage_errors(self.folder):
            try:
                beside.parent.mkdir(exist_ok=True)
                beside.mkdir()
                rows = write_part(beside / PART, tables, self.schema)
                for key, array in arrays:
                    np.save(beside / f"{key}.npy", array, allow_pickle=False)
                files = {path.name: seal(path) for path in sorted(beside.iterdir())}
                sync_folder(beside)
                beside.rename(beside.with_name(name))
                sync_folder(beside.parent)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                shutil.rmtree(beside.with_name(name), ignore_errors=True)
                raise
        return Part(name, rows, files)

    def adopt(self, part: Part, file: Path) -> None:
        """Make a finished Parquet file the file of a new part. Readers see it after the next `commit` that names it.

        The file stays where it is, too. It is linked, or copied if the file system has no links.

        Args:
            part: The new part, with the size and checksum of the file.
            file: The file, which `write_part` wrote with this store's schema.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: The disk is full, or refuses to write.
        """
        self.lock()
        target, _ = self.path(part), file.stat()
        with storage_errors(self.folder):
            shutil.rmtree(target.parent, ignore_errors=True)  # a call that failed may have left it
            target.parent.mkdir(parents=True)
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)
                seal(target)
            sync_folder(target.parent)
            sync_folder(target.parent.parent)

    def with_tombstones(self, part: Part, live: NDArray[np.bool_]) -> Part:
        """Delete the rows of a part that are False in `live`. Returns the changed part for the next `commit`."""
        self.lock()
        name = f"deleted-{uuid.uuid4().hex[:8]}.npy"
        path = self.path(part, name)
        with storage_errors(self.folder):
            try:
                np.save(path, np.packbits(~live))
                file = seal(path)
                sync_folder(path.parent)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        files = {key: value for key, value in part.files.items() if key != part.deleted}
        return replace(part, files={**files, name: file}, deleted=name)

    def commit(self, parts: Sequence[Part], schema: Schema | None = None) -> None:
        """Make `parts` the content of the store, atomically and durably. Files that it no longer needs are removed.

        Raises:
            IndexLockedError: Another process has committed since this store was read.
            StorageError: The disk is full, or refuses to write. The store keeps its old content, and the files of new
                parts are removed.
        """
        if self.lock():
            raise IndexLockedError(f"Another process has changed the index in {self.folder}: open it again.")
        before, schema = self.parts, schema or self.schema
        manifest = self.folder / MANIFEST
        beside = manifest.with_name(f"{MANIFEST}.tmp")
        with storage_errors(self.folder):
            try:
                beside.unlink(missing_ok=True)  # it may be a link to somewhere else
                content = render_manifest(schema, parts, self._generation + 1)
                with beside.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if self.remote is not None:
                    self.remote.push(parts, content)
                beside.replace(manifest)
                self.schema, self.parts, self._generation = schema, tuple(parts), self._generation + 1
                self._manifest = content
            except BaseException:  # an interrupt may come just after the rename, so look into the folder
                beside.unlink(missing_ok=True)
                if self.parts == before and not (manifest.exists() and self.reload()):
                    self.discard(parts, keep=before)
                raise
            self._verified.update((part.name, name) for part in parts for name in part.files)
            sync_folder(self.folder)
        self.discard(before, keep=self.parts)

    def send(self) -> None:
        """Send the last commit to the object storage, if it was not sent yet."""
        if self.remote is not None and self._lock is not None and self._manifest:
            self.remote.push(self.parts, self._manifest)  # another process may have put an older one into the folder

    def stamp(self) -> tuple[object, ...] | None:
        """A value that changes with each commit. None without a store, () if it is too young to be sure."""
        return manifest_stamp(self.folder) if self.remote is None else self.remote.stamp()

    def discard(self, parts: Sequence[Part], keep: Sequence[Part] = ()) -> None:
        """Remove the files of `parts` that no part in `keep` uses."""
        kept = {part.name: part for part in keep}
        for part in parts:
            if part.name not in kept:
                shutil.rmtree(self.folder / _SEGMENTS / part.name, ignore_errors=True)
                continue
            for name in set(part.files) - set(kept[part.name].files):
                with contextlib.suppress(OSError):
                    self.path(part, name).unlink()

    def append(self, batch: EncodedBatch) -> None:
        """Add documents with new ids, durably.

        The caller must know that the ids are new. The embedded engine does, and replaces documents.

        Raises:
            InvalidArgumentError: The batch does not fit the schema.
            StorageError: The disk is full, or refuses to write.
        """
        check_batch(batch, self.schema)
        if len(batch):
            self.lock()
            self.commit((*self.parts, self.add_part(to_tables(batch, self.schema))))

    def batches(self) -> Iterator[EncodedBatch]:
        """Read all documents with their vectors, in stored order, some thousands at a time."""
        for part in self.parts:
            with storage_errors(self.folder):
                yield from self.part_batches(part, self.tombstones(part))

    def part_batches(self, part: Part, live: NDArray[np.bool_] | None = None) -> Iterator[EncodedBatch]:
        """Read the documents of one part, without the rows that are False in `live`.

        Raises:
            IndexCorruptedError: The part does not fit the manifest and the schema.
            FileNotFoundError: The part is missing.
        """
        path, rows = self.path(part), 0
        for table in read_part(path, live):
            rows += len(table)
            if not len(table):
                continue
            try:
                batch = from_table(table, self.schema)
            except (
                *(ValueError, TypeError, KeyError, IndexError, AttributeError),
                *(OverflowError, RecursionError, pa.ArrowException),
            ) as error:
                raise damaged(path, str(error)) from error
            yield batch
        if rows != (part.rows if live is None else int(live.sum())):
            raise damaged(path, f"it has {rows} documents, but its manifest has another number")

    def __len__(self) -> int:
        """The number of documents that are not deleted."""
        lives = [(part, self.tombstones(part)) for part in self.parts]
        return sum(part.rows if live is None else int(live.sum()) for part, live in lives)

    def close(self) -> None:
        """Stop being the writer. A second call does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _leave_lock(self) -> None:
        """Give up the lock in a forked process. It belongs to the parent, and a release here would release it there."""
        if self._lock is not None:
            _parents_locks.append(self._lock)
            self._lock = None

    def _acquire(self) -> None:
        path = self.folder / LOCK
        with storage_errors(self.folder):
            refuse_links(self.folder / _SEGMENTS, path)
            lock = filelock.FileLock(path, timeout=0, thread_local=False)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise IndexLockedError(
                    f"Another process or object is writing to the index in {self.folder}: close it first."
                ) from None
            self._lock, self._lock_file = lock, self._identity()

    def _identity(self) -> tuple[int, ...]:
        """A value that identifies the lock file. It changes if the folder is replaced, and is () without a file."""
        try:
            found = (self.folder / LOCK).stat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise storage_error(self.folder, error) from error
        return found.st_dev, found.st_ino

    def _gone(self) -> IndexNotFoundError:
        return IndexNotFoundError(
            f"The index in {self.folder} is no longer there: it was deleted, moved or replaced while it was open. "
            "Nothing was written now. Open the index again where it is, or index the documents again."
        )

    def _remove_garbage(self) -> None:
        """Remove the files that a crashed writer left. Only the writer may call this, before it adds parts."""
        used = {part.name: part for part in self.parts}
        with contextlib.suppress(OSError):  # the next writer tries again
            (self.folder / f"{MANIFEST}.tmp").unlink(missing_ok=True)
            for folder in (self.folder / _SEGMENTS).glob("*"):
                if folder.name not in used:
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                for path in folder.iterdir():
                    if path.name not in used[folder.name].files:
                        path.unlink(missing_ok=True)
        remove_unfinished(self.folder)

    def _check_files(self, verify: bool) -> None:
        """Raises IndexCorruptedError for a damaged file, and FileNotFoundError for a missing file.

        Arrays that a backend derived from a part may be missing, because they can be made again.
        """
        refuse_links(self.folder / _SEGMENTS, *(self.path(part).parent for part in self.parts))
        unread: list[tuple[tuple[str, str], Path, StoredFile]] = []
        for part in self.parts:
            for name, file in part.files.items():
                if (part.name, name) in self._verified:
                    continue
                path = self.path(part, name)
                try:
                    found = path.stat()
                except FileNotFoundError:
                    if name in (PART, part.deleted) or not self.path(part).exists():
                        raise
                    continue
                if not stat.S_ISREG(found.st_mode):
                    raise damaged(path, "it is not a file")
                if found.st_size != file.size:
                    raise IndexCorruptedError(
                        f"{path} has {found.st_size} bytes, but {file.size} were written: {REPAIR}."
                    )
                if verify or file.size <= SMALL_FILE:
                    unread.append(((part.name, name), path, file))
        with ThreadPoolExecutor(2) as pool:
            for (_, path, file), crc in zip(unread, pool.map(crc32, (path for _, path, _ in unread)), strict=True):
                compare(path, file, crc)
        self._verified.update(key for key, _, _ in unread)


def exists(folder: Path) -> bool:
    """Whether a folder holds a store. Raises IndexCorruptedError if the folder holds parts but no manifest."""
    manifest = folder / MANIFEST
    with storage_errors(folder):
        if manifest.is_file():
            return True
        if any(path.suffix != ".tmp" for path in (folder / _SEGMENTS).glob("*")) and not manifest.is_file():
            raise IndexCorruptedError(f"{manifest} is missing: {REPAIR}.")
        return False


def unfinished(folder: Path) -> Path:
    """A new hidden folder beside `folder`. When the index in it is complete, it is renamed to `folder`."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{_UNFINISHED}")


def remove_unfinished(folder: Path) -> None:
    """Remove the hidden folders of `unfinished` that killed processes left.

    The folder of a running process stays: the process holds its lock, or made the folder a moment ago.
    """
    with contextlib.suppress(OSError):
        for left in [path for path in folder.parent.iterdir() if _is_unfinished(path.name, folder.name)]:
            if not (left / LOCK).exists() and time.time() - left.stat().st_mtime < _JUST_NOW:
                continue
            store = CorpusStore(left, Schema({}))
            with contextlib.suppress(HybridSearchError):
                store._acquire()
                shutil.rmtree(left, ignore_errors=True)
                store.close()


_JUST_NOW = 60
"""Number of seconds after which a running process has locked the folder that it made."""


def _is_unfinished(name: str, of: str) -> bool:
    return name.startswith(f".{of}.") and name.endswith(_UNFINISHED) and len(name) == len(of) + 10 + len(_UNFINISHED)
