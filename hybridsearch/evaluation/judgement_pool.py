"""The file that keeps what is judged: queries, the documents of their pools, and the systems that found them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hybridsearch.corpus.files import storage_errors, sync_folder
from hybridsearch.errors import StorageError


@dataclass(frozen=True, slots=True)
class Pool:
    """What is judged.

    Attributes:
        queries: Text by query id.
        documents: Document ids by query id, in the order in which a judge sees them.
        systems: Description by name of each system whose first documents are judged.
        retrievers: Names of the retrievers of these systems.
    """

    queries: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    systems: Mapping[str, str] = field(default_factory=dict)
    retrievers: tuple[str, ...] = ()


class PoolFile:
    """The pool in a file. It sees what other processes write.

    Args:
        path: Path of the file. `write` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, int, int], Pool] = ((0, 0, 0), Pool())

    def read(self) -> Pool:
        """The content of the file. It is read again if it has changed. An empty pool if there is no file.

        Raises:
            StorageError: The file cannot be read, or `write` did not write it.
        """
        with storage_errors(self.path.parent):
            if not self.path.exists():
                return Pool()
            found = self.path.stat()
            signature = found.st_mtime_ns, found.st_size, found.st_ino
            if signature != self._read[0]:
                try:
                    content = json.loads(self.path.read_text(encoding="utf-8"))
                    documents = {query: tuple(ids) for query, ids in content["documents"].items()}
                    retrievers = tuple(content["retrievers"])
                    pool = Pool(content["queries"], documents, content["systems"], retrievers)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise StorageError(
                        f"{self.path} is not a file that Judgements.add_pool wrote ({error!r:.80}): give another "
                        "folder."
                    ) from error
                self._read = signature, pool
        return self._read[1]

    def write(self, pool: Pool) -> None:
        """Replace the file. After a crash, there is the old or the new file."""
        beside = self.path.with_name(f"{self.path.name}.tmp")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(asdict(pool), file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        sync_folder(self.path.parent)
