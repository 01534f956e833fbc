"""The fusion that people chose in the workbench, and put into use for all searches of a served index."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from hybridsearch import arguments
from hybridsearch.errors import (
    BackendError,
    HybridSearchError,
    IndexNotFoundError,
    InvalidArgumentError,
    StorageError,
)
from hybridsearch.evaluation.plain import safe_name
from hybridsearch.fusion import Fusion, read_fusion
from hybridsearch.messages import redacted
from hybridsearch.search import HybridSearch

IN_USE = "fusion.json"
"""Name of the file in the folder of the judgements of an index."""


def folder_of(judgements: str | Path, index: str) -> Path:
    """The folder that keeps the judgements of one index.

    Args:
        judgements: Folder of the judgements of all indexes.
        index: Name of the index. It cannot lead out of the folder.

    Raises:
        InvalidArgumentError: `judgements` is a file.

    >>> folder_of("judged", "../papers").as_posix()
    'judged/papers'
    """
    folder = arguments.path("judgements", judgements)
    if folder.is_file():
        raise InvalidArgumentError(f"judgements (--judgements) is a folder, but {folder} is a file: give a folder.")
    return folder / safe_name(index)


_log = logging.getLogger(__name__)


class ChosenFusion:
    """A file with a fusion. While the file exists, the searches of an index use its fusion.

    Args:
        path: Path of the file. Another worker of the service may write it.

    Attributes:
        refused: Whether there is a file that has no effect, because it does not fit the index.
    """

    def __init__(self, path: Path) -> None:
        self.refused = False
        self._path = path
        self._search: HybridSearch | None = None
        self._own: tuple[Fusion, int] | None = None
        self._used: Fusion | None = None
        self._seen: tuple[int, ...] | None = None
        self._lock = Lock()  # a thread that sees half of a change would take the chosen fusion for the index's own

    def apply(self, search: HybridSearch) -> None:
        """Let a search use the fusion of the file, or its own fusion if there is no file.

        A file that does not fit the index is logged, and has no effect. If the index does not answer now, the file is
        read again the next time.

        Args:
            search: The search.
        """
        with self._lock:
            if search is not self._search or search.fusion is not self._used:  # another index may be at the place now
                self._search, self._own, self._seen = search, (search.fusion, search.candidates), None
            seen = self._signature()
            if seen != self._seen and self._own is not None:
                self._seen, self.refused = seen, False
                search.fusion, search.candidates = self._own
                if seen is not None:
                    self._read(search)
            self._used = search.fusion

    def _read(self, search: HybridSearch) -> None:
        """Let a search use the fusion of the file."""
        try:
            fusion, candidates = read_fusion(self._path, None)
            search.plan(1, fusion=fusion, candidates=candidates)
        except HybridSearchError as error:
            self.refused = True
            _log.error("The chosen fusion is not used: %s", redacted(str(error)))
            if isinstance(error, BackendError | IndexNotFoundError | StorageError):
                self._seen = None
            return
        search.fusion = fusion
        if candidates is not None:
            search.candidates = candidates

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
