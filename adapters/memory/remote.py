"""`RemoteBackend`: an index in object storage, which is searched in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hybridsearch.adapters.memory.backend import MemoryBackend
from hybridsearch.corpus.remote import Remote
from hybridsearch.vectors import EncodedBatch

PAUSE = 60.0
"""Seconds between two commits of `load` that are sent to the storage."""


class RemoteBackend(MemoryBackend):
    """A backend that keeps an index in object storage: S3, Google Cloud Storage, Azure or the Hugging Face Hub.

    The files are those of an index in a folder. A local folder keeps a copy of them. `open` copies the files that the
    local folder does not have yet, and compares their checksums. Searches read the copy.

    Each `upsert` and `delete` is atomic, and is in the storage when it returns. `load` sends a commit each minute and
    at its end. One process may write at a time. Object storage has no locks, so a writer compares the manifest before
    each commit and refuses if another process has changed it.

    Args:
        location: URL of the index: `s3://bucket/name`, `gs://bucket/name`, `az://container/name` or
            `hf://datasets/user/name`. Credentials come from the environment, as the storage's own tools read them.
        hnsw: Whether dense vectors are searched approximately, as in `MemoryBackend`.
        verify: Whether `open` compares the checksums of all files of the copy, as in `MemoryBackend`.
        storage_options: Keyword arguments of the storage's fsspec file system, such as `{"endpoint_url": "https://..."}`
            for an S3 server of your own.
        cache: Folder of the copies. Default None: `hybridsearch/copies` in the user's folder of caches. It may be
            deleted if no process uses it.

    Raises:
        MissingExtraError: The package for the storage is not installed.
        InvalidArgumentError: The URL names no bucket, or an argument is not allowed.
    """

    def __init__(
        self,
        location: str,
        *,
        hnsw: bool = False,
        verify: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self._storage = Remote(location, storage_options, cache)
        super().__init__(self._storage.folder, hnsw=hnsw, verify=verify)
        self._remote = self._storage

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """Store all batches, and merge them. A commit is sent to the storage each minute and at the end.

        Raises:
            StorageError: The storage or the disk refuses to write. The storage keeps its last commit.
        """
        self._storage.pause = PAUSE
        try:
            for batch in batches:
                self.upsert(batch)
            self.refresh()
        finally:
            self._storage.pause = 0.0
            with self._writer:
                if self._store is not None:
                    self._store.send()
