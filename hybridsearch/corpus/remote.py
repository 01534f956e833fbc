"""A store in object storage (S3, Google Cloud Storage, Azure, the Hugging Face Hub), with a copy in a local folder.

The files of the store have the same names there as in a folder. A reader copies the files that it does not have yet,
and compares their checksums. A writer stores the files of new parts first and the manifest last. So a crash at any time
leaves the last commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from hybridsearch.arguments import shown
from hybridsearch.corpus.files import REPAIR, StoredFile, compare, crc32, storage_errors
from hybridsearch.corpus.manifest import PART, Part, parse_manifest
from hybridsearch.errors import (
    HybridSearchError,
    IndexCorruptedError,
    IndexLockedError,
    InvalidArgumentError,
    MissingExtraError,
    StorageError,
)
from hybridsearch.folders import MANIFEST, cache_home
from hybridsearch.messages import redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PACKAGES: Mapping[str, str] = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub"}
"""Package that each scheme needs. The extra that installs it has the name of the scheme."""

_SEGMENTS = "segments"
_AT_ONCE = 8  # number of files that are copied at the same time
_OUTDATED = 412
"""Status of the Hugging Face Hub if the parent of a commit is not the newest commit."""

_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict")
"""Codes of S3 if a condition of a write is not met."""

_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "oid", "blob_id", "size")
"""What file systems say about a file. One of them changes with the content."""

_SERVER_OPTIONS = ("endpoint_url", "account_name", "account_host", "connection_string")
_SERVER_VARIABLES = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "HF_ENDPOINT"),
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING"),
)
"""What tells the server or the account of a URL. Two of them may have a bucket of the same name."""


class Remote:
    """A store at a URL, and the folder that holds its copy.

    Args:
        url: URL of the store, such as `"s3://bucket/papers"`.
        options: Keyword arguments of the fsspec file system, such as `{"endpoint_url": "https://s3.example.org"}`.
        cache: Folder of the copies. None for `hybridsearch/copies` in the user's folder of caches.

    Attributes:
        url: URL of the store, without secrets.
        folder: Folder of the copy.
        pause: Seconds that pass between two commits that are sent. The commits between them are in the copy only.

    Raises:
        MissingExtraError: The package for the URL's scheme is not installed.
        InvalidArgumentError: The URL names no bucket, or an argument is not allowed.
        StorageError: No folder can hold the copy.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, cache: str | Path | None = None) -> None:
        scheme, _, path = url.partition("://")
        if not path.strip("/"):
            raise InvalidArgumentError(f"The place {redacted(url)!r} names no bucket: write {scheme}://bucket/folder.")
        if not isinstance(options, Mapping | None):
            raise InvalidArgumentError(
                f"storage_options is a mapping, such as {{'endpoint_url': 'https://...'}}, not {shown(options)}."
            )
        home = cache_home()
        if cache is None and home is None:
            raise StorageError(
                f"The index at {redacted(url)} needs a folder for its copy, and this user has no folder of caches: "
                "give cache='FOLDER' (--option cache=FOLDER), or set XDG_CACHE_HOME."
            )
        base = Path(cache) if cache is not None else Path(home or "", "hybridsearch", "copies")
        self.url, self.pause = redacted(url).rstrip("/"), 0.0
        self._given, self._options = url, dict(options or {})
        place = f"{url.rstrip('/')} {_server(self._options)}"
        self.folder = (base / hashlib.sha256(place.encode()).hexdigest()[:32]).absolute()
        self._file_system: tuple[int, AbstractFileSystem, str] | None = None
        self._files: set[str] = set()
        self._manifest: bytes | None = None
        self._swept, self._sent, self._waiting = False, -math.inf, False
        self._connected()

    @property
    def waits(self) -> bool:
        """Whether a commit waits for the end of `pause`, so that the copy is newer than the store."""
        return self._waiting and self.pause > 0

    def pull(self) -> None:
        """Copy what the store holds now. Without a manifest there, the copy has none either.

        The copy stays as it is as long as a commit waits to be sent.

        Raises:
            IndexCorruptedError: A file is damaged or missing. The message names it.
            StorageError: The storage cannot be read, or the copy cannot be written.
        """
        if self.waits:
            return
        with storage_errors(self.folder.parent):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder.with_suffix(".lock"))
        with lock:
            tried: bytes | None = None
            while (content := self.read(MANIFEST)) != tried or content is None:
                if content is None:
                    with storage_errors(self.folder):
                        (self.folder / MANIFEST).unlink(missing_ok=True)
                    self._files, self._manifest = set(), None
                    return
                parts = parse_manifest(content, f"{self.url}/{MANIFEST}")[1]
                if self._copy(parts):
                    self._took(parts, content)
                    return
                tried = content  # a writer may have replaced the missing part meanwhile
        raise IndexCorruptedError(f"A part of the index at {self.url} is missing: {REPAIR}.")

    def push(self, parts: Sequence[Part], manifest: bytes) -> None:
        """Store the files of new parts, then the manifest, and remove the files that it no longer names.

        Nothing is sent if the last commit was sent less than `pause` seconds ago.

        Args:
            parts: Parts of the copy that the manifest names.
            manifest: Content of the manifest.

        Raises:
            IndexLockedError: Another process has changed the store since it was read.
            StorageError: The storage refuses to write. It keeps its last commit.
        """
        self._waiting = manifest != self._manifest
        if time.monotonic() - self._sent < self.pause or not self._waiting:
            return
        files = _files(parts)
        new, gone = sorted(files - self._files), self._files - files
        if self._given.startswith("hf://") and not self._given.startswith("hf://buckets/"):
            self._commit_to_hub(new, sorted(gone), manifest)
        else:
            if new:
                with self._asking("stored") as (system, root):
                    system.put([str(self.folder / file) for file in new], [f"{root}/{file}" for file in new])
            self._replace(manifest)
            with contextlib.suppress(StorageError):  # the next writer tries again
                self._remove(gone if self._swept else self._stored() - files)
                self._swept = True
        self._files, self._manifest, self._sent, self._waiting = files, manifest, time.monotonic(), False

    def _commit_to_hub(self, new: Sequence[str], gone: Sequence[str], manifest: bytes) -> None:
        """Store files and the manifest, and remove files, in one commit of a repository of the Hugging Face Hub.

        The Hub refuses if there is a newer commit by then.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        changed = IndexLockedError(f"Another process has changed the index at {self.url}: open it again.")
        with self._asking("stored") as (system, root):
            place, hub = system.resolve_path(root), system._api
            where = {"repo_id": place.repo_id, "repo_type": place.repo_type, "revision": place.revision}
            head = hub.repo_info(**where).sha  # read before the manifest, so that a change between both is noticed
            if self.read(MANIFEST) != self._manifest:
                raise changed
            inside = f"{place.path_in_repo}/" if place.path_in_repo else ""
            added = [CommitOperationAdd(f"{inside}{file}", str(self.folder / file)) for file in new]
            operations = [
                *added,
                CommitOperationAdd(f"{inside}{MANIFEST}", manifest),
                *(CommitOperationDelete(f"{inside}{file}") for file in gone),
            ]
            try:
                hub.create_commit(operations=operations, commit_message="Change the index", parent_commit=head, **where)
            except Exception as error:
                if getattr(getattr(error, "response", None), "status_code", None) == _OUTDATED:
                    raise changed from error
                raise

    def _replace(self, manifest: bytes) -> None:
        """Store a manifest in place of the one that was read last.

        S3 itself refuses if there is another one by then. On other storage, two writers that commit at the same instant
        may miss each other.
        """
        changed = IndexLockedError(f"Another process has changed the index at {self.url}: open it again.")
        condition: dict[str, str] = {}
        if self._given.startswith("s3://"):
            stamp = self.stamp("ETag")  # read before the content, so that a change between both is noticed
            condition = {"IfMatch": stamp[0]} if stamp else {"IfNoneMatch": "*"}
        if self.read(MANIFEST) != self._manifest:
            raise changed
        with self._asking("stored") as (system, root):
            try:
                system.pipe_file(f"{root}/{MANIFEST}", manifest, **condition)
            except Exception as error:
                code = _code_of(error)
                if code == "NotImplemented":  # a server that speaks S3 and has no conditional writes
                    system.pipe_file(f"{root}/{MANIFEST}", manifest)
                elif code not in _REFUSED:
                    raise
                elif self.read(MANIFEST) != manifest:  # the client may have sent it twice
                    raise changed from error

    def stamp(self, *names: str) -> tuple[str, ...] | None:
        """A value that changes with each commit. None without a manifest.

        Args:
            names: Names of what the file system says about the manifest. None for all names that are known.

        Raises:
            StorageError: The storage cannot be read.
        """
        with self._asking("read") as (system, root):
            try:
                info = system.info(f"{root}/{MANIFEST}")
            except FileNotFoundError:
                return None
        return tuple(str(info[key]) for key in names or _STAMPS if info.get(key) is not None)

    def read(self, file: str) -> bytes | None:
        """The content of a file. None if there is no such file.

        Raises:
            StorageError: The storage cannot be read.
        """
        with self._asking("read") as (system, root):
            try:
                found: bytes = system.cat_file(f"{root}/{file}")
            except FileNotFoundError:
                return None
            return found

    def write(self, file: str, content: bytes | Path) -> None:
        """Store a file, whose content is given or in a file here. It appears at once.

        Raises:
            StorageError: The storage refuses to write.
        """
        with self._asking("stored") as (system, root):
            if isinstance(content, Path):
                system.put_file(str(content), f"{root}/{file}")
            else:
                system.pipe_file(f"{root}/{file}", content)

    def copy(self, source: str, target: str) -> None:
        """Copy a file within the storage. The next commit, which names the copy, does not send it again.

        Nothing happens if there is no such file.

        Raises:
            StorageError: The storage refuses to write.
        """
        with self._asking("stored") as (system, root):
            try:
                system.copy(f"{root}/{source}", f"{root}/{target}")
            except FileNotFoundError:
                return
        self._files.add(target)

    def remove_folder(self, name: str) -> None:
        """Remove all files of a folder.

        Raises:
            StorageError: The storage refuses to write.
        """
        with self._asking("changed") as (system, root):
            if files := system.find(f"{root}/{name}"):
                system.rm(files)

    def fetch(self, path: Path, file: StoredFile) -> bool:
        """Copy one file of the store to its place in the folder, unless it is there, and compare its checksum.

        Returns:
            Whether the storage has the file.

        Raises:
            IndexCorruptedError: The file is damaged.
            StorageError: The storage cannot be read, or the folder cannot be written.
        """
        if _has_size(path, file.size) and crc32(path) == file.crc32:
            return True
        return self._fetch(path, file)

    def _copy(self, parts: Sequence[Part]) -> bool:
        """Copy the files that are not here yet. Returns False if a part is missing."""
        new = [
            (path, file, name in (PART, part.deleted))
            for part in parts
            for name, file in part.files.items()
            if not _has_size(path := self.folder / _SEGMENTS / part.name / name, file.size)
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._fetch, (path for path, _, _ in new), (file for _, file, _ in new)))
        return all(there or not needed for there, (_, _, needed) in zip(found, new, strict=True))

    def _fetch(self, path: Path, file: StoredFile) -> bool:
        """Copy one file, and compare its checksum. Returns False if it is not there."""
        there = path.relative_to(self.folder).as_posix()
        beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with storage_errors(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._asking("read") as (system, root):
                try:
                    system.get_file(f"{root}/{there}", str(beside))
                except FileNotFoundError:
                    return False
            with storage_errors(self.folder):
                compare(f"{self.url}/{there}", file, crc32(beside))
                beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _took(self, parts: Sequence[Part], manifest: bytes) -> None:
        """Keep the manifest in the copy, and remove the files of the copy that the store no longer has."""
        path, files = self.folder / MANIFEST, _files(parts)
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)  # an empty index has no files
            beside = path.with_name(f"{MANIFEST}.{uuid.uuid4().hex[:8]}.tmp")
            beside.write_bytes(manifest)
            beside.replace(path)
            for file in self._files - files:
                (self.folder / file).unlink(missing_ok=True)
        self._files, self._manifest = files, manifest

    def _stored(self) -> set[str]:
        """All files of parts that the storage has, also those that a crashed writer left."""
        with self._asking("listed") as (system, root):
            return {path.rpartition(f"{root}/")[2] for path in system.find(f"{root}/{_SEGMENTS}")}

    def _remove(self, files: set[str]) -> None:
        if files:
            with self._asking("changed") as (system, root):
                system.rm([f"{root}/{file}" for file in sorted(files)])

    def _connected(self) -> tuple[AbstractFileSystem, str]:
        """The file system and the path in it. A forked process makes a file system of its own."""
        if self._file_system is None or self._file_system[0] != os.getpid():
            scheme = self._given.partition("://")[0]
            try:
                from fsspec.core import url_to_fs

                options = {"use_listings_cache": False, **self._options}
                system, root = url_to_fs(self._given, skip_instance_cache=True, **options)
            except ImportError as error:
                raise MissingExtraError(PACKAGES[scheme], scheme, f"The place {self.url}") from error
            except Exception as error:
                raise InvalidArgumentError(f"The place {self.url} cannot be used: {redacted(str(error))}") from error
            self._file_system = (os.getpid(), system, root.rstrip("/"))
        return self._file_system[1:]

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[tuple[AbstractFileSystem, str]]:
        """Gives the file system and the path in it. Its errors become a StorageError."""
        system, root = self._connected()
        system.invalidate_cache()
        try:
            yield system, root
        except HybridSearchError:
            raise
        except Exception as error:  # each file system has errors of its own
            reason = " ".join(redacted(str(error) or type(error).__name__).split())
            raise StorageError(
                f"The index at {self.url} cannot be {what} ({reason:.300}). Everything that was committed before is "
                "intact. Check the address, the credentials and the permissions, and try again."
            ) from error


def _code_of(error: BaseException | None) -> str:
    """The error code of S3. "" if there is none."""
    while error is not None:
        if isinstance(response := getattr(error, "response", None), Mapping):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _server(options: Mapping[str, Any]) -> str:
    """What the options of a file system say about the server or the account, else the environment."""
    client = options.get("client_kwargs")
    told = [*map(options.get, _SERVER_OPTIONS), client.get("endpoint_url") if isinstance(client, Mapping) else None]
    return " ".join(map(str, filter(None, told))) or " ".join(filter(None, map(os.environ.get, _SERVER_VARIABLES)))


def _files(parts: Sequence[Part]) -> set[str]:
    return {f"{_SEGMENTS}/{part.name}/{name}" for part in parts for name in part.files}
