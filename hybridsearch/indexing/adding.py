"""Adds documents to an index, as one call of `HybridSearch.index` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

from hybridsearch.backends import Backend
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, DocumentError
from hybridsearch.indexing.encoding import IndexEncoders
from hybridsearch.indexing.ingest import IndexReport, Ingest, Prepare, batches, is_empty, is_last, reporting
from hybridsearch.messages import number_of, warn
from hybridsearch.progress import progress_bar
from hybridsearch.readers import Table, read_documents

Documents: TypeAlias = Iterable[Document | Mapping[str, Any]] | Table | str | Path
"""Documents or dicts, a table in memory, or the path of a file or folder."""

Sync: TypeAlias = bool | Callable[[int], bool]
"""Whether to remove the documents that are not in the source, or a function that their number is given to."""


def add_documents(
    backend: Backend,
    encoders: IndexEncoders,
    documents: Documents,
    *,
    create: Callable[[], None],
    batch_size: int,
    sync: Sync,
    show_progress_bar: bool | None,
    prepare: Prepare | None = None,
) -> IndexReport:
    """Store documents in an index. If there is none yet, `create` makes it after the first batch was read.

    `prepare` is called with the documents that are stored.
    """
    started = time.perf_counter()
    reader = read_documents(documents)
    sized = documents if isinstance(documents, Sized) and not isinstance(documents, str) else reader
    ingest, removed = Ingest(backend, encoders, batch_size, prepare), 0
    with reporting(ingest.refused):
        with progress_bar("Indexing", sized, show_progress_bar) as advance:

            def counted(source: Iterable[list[Document]]) -> Iterator[list[Document]]:
                for batch in source:
                    yield batch
                    advance(len(batch))

            source = batches(reader, batch_size)
            first = list(islice(source, 1))  # an error here makes no index
            if sync and not first and not reader.skipped:
                raise DocumentError(
                    "The source holds no document, so sync (--sync) would remove every document of the index. No "
                    "document was removed. Check the source. To empty an index, call delete with its ids."
                )
            few, new = all(is_last(batch, batch_size) for batch in first), encoders.schema is None
            empty = new or (not few and is_empty(backend))
            create()
            if empty and not few:
                ingest.load(counted(chain(first, source)))
            else:
                ingest.add(counted(chain(first, source)), empty=empty)
        warn_of_duplicates(ingest.duplicates)
        if sync and not empty:
            removed = _remove_gone(backend, ingest, reader.skipped, sync, batch_size)
    seconds = time.perf_counter() - started
    notes = tuple(filter(None, [*reader.notes, reader.skipped_note, *ingest.truncation_notes(), *ingest.field_notes()]))
    return IndexReport(ingest.indexed, ingest.unchanged, ingest.duplicates, seconds, removed, notes, ingest.truncated)


def warn_of_duplicates(ids: Sequence[str]) -> None:
    """Warn of ids that came more than once in a call, if there are any."""
    if ids:
        shown = ", ".join(map(repr, ids[:5])) + (", ..." if len(ids) > 5 else "")
        came = number_of(len(ids), "document id came", "document ids came")
        warn(f"{came} more than once, and the last document of each is stored: {shown}.")


def check_sync(backend: Backend, place: str) -> None:
    """Raises BackendError if the engine cannot find and remove the documents that a source no longer has."""
    able = backend.capabilities
    if not (able.delete and able.scan):
        raise BackendError(
            f"The engine of {place!r} cannot {'list' if able.delete else 'delete'} its documents, and sync (--sync) "
            "needs that: index into a new place instead."
        )


def _remove_gone(backend: Backend, ingest: Ingest, skipped: Sequence[object], sync: Sync, batch_size: int) -> int:
    """Remove the documents that the source no longer has. Returns their number."""
    if skipped:
        lines = number_of(len(skipped), "line was", "lines were")
        raise DocumentError(
            f"{lines} skipped, so it is unknown which documents the source no longer has. No document was removed. "
            f"Repair the source and index it again. The first skipped line: {skipped[0]}"
        )
    gone = ingest.gone()
    if not gone or (callable(sync) and not sync(len(gone))):
        return 0
    removed = sum(backend.delete(gone[at : at + batch_size]) for at in range(0, len(gone), batch_size))
    backend.refresh()
    return removed
