"""The fusion that people chose in the workbench, and put into use for all searches of a served index."""

from __future__ import annotations

import logging
from copy import copy
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
from hybridsearch.fusion import read_fusion
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
        self._made: HybridSearch | None = None
        self._of: tuple[object, ...] = ()
        self._seen: tuple[int, ...] | None = None
        self._lock = Lock()  # a thread that sees half of a change would take the copy with the fusion of before

    def used_by(self, search: HybridSearch) -> HybridSearch:
        """The search with the fusion of the file, or the search itself if there is no file.

        A file that does not fit the index is logged, and has no effect. If the index does not answer now, the file is
        read again the next time.

        Args:
            search: The search. It stays as it is.

        Returns:
            A copy of the search on the same open index, or the search itself.
        """
        with self._lock:
            seen = self._signature()
            if seen is None:
                self._made, self.refused = None, False
                return search
            of = search, *search.retrievers.values()  # another index may be at the place now
            if self._made is None or seen != self._seen or of != self._of:
                self._seen, self._of, self.refused = seen, of, False
                self._made = self._with_fusion(search)
            return self._made

    def _with_fusion(self, search: HybridSearch) -> HybridSearch:
        """A copy of a search that uses the fusion of the file."""
        made = copy(search)
        try:
            made.fusion, candidates = read_fusion(self._path, None)
            made.candidates = search.candidates if candidates is None else candidates
            made.plan(1)
        except HybridSearchError as error:
            self.refused = True
            _log.error("The chosen fusion is not used: %s", redacted(str(error)))
            if isinstance(error, BackendError | IndexNotFoundError | StorageError):
                self._seen = None
            return search
        return made

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
