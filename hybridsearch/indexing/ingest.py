"""Stores the documents of one call in an index, in batches, and reports what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.backends import Backend, Finisher, Immediate, Loader
from hybridsearch.documents import Document
from hybridsearch.errors import BulkIndexError, HybridSearchError
from hybridsearch.filters import Compare, Filter, field_value
from hybridsearch.indexing.encoding import IndexEncoders
from hybridsearch.vectors import EncodedBatch, PassageSpans

_BATCH_CHARACTERS = 8_000_000


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Report of one call of `HybridSearch.index`.

    Attributes:
        indexed: Number of documents that were encoded and stored.
        unchanged: Number of documents that were in the index already, with the same content.
        duplicates: Ids that came more than once in the call. The last document of each id is stored.
        seconds: Duration of the call.
        removed: Number of documents that `sync` removed, because the source no longer has them.
        notes: Sentences about the types of metadata, empty documents, records that were skipped, texts of which a model
            read only the beginning, and metadata that a retriever reads and that no document has.
        truncated: Number of texts of which a retriever's model read only the beginning, by retriever name. Retrievers
            that read all texts completely are left out. The texts are documents, or passages if the retriever reads
            passages. Only documents that were encoded count.
    """

    indexed: int
    unchanged: int
    duplicates: tuple[str, ...] = field(repr=False)  # there may be thousands
    seconds: float
    removed: int = 0
    notes: tuple[str, ...] = ()
    truncated: Mapping[str, int] = field(default_factory=dict)


def batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Group documents into lists of at most `size` documents and about `_BATCH_CHARACTERS` characters."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == size or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def is_last(batch: Sequence[Document], size: int) -> bool:
    """Whether a batch is the last batch of `batches`."""
    return len(batch) < size and sum(len(document.text) for document in batch) < _BATCH_CHARACTERS


def is_empty(backend: Backend) -> bool:
    """Whether an open index is empty. A refresh comes first, to show documents of a load that was interrupted."""
    if isinstance(backend, Loader):
        backend.refresh()
    return backend.count() == 0


class SeenIds:
    """Finds ids that come twice.

    It keeps a hash of eight bytes for each id. With 10^6 ids, an id is wrongly found with a chance of 1 in 10^7.
    """

    def __init__(self) -> None:
        self.twice: dict[str, None] = {}  # the ids that came again, in order
        self._runs: list[NDArray[np.int64]] = []  # sorted hashes, each run more than twice as long as the next

    def add(self, ids: Sequence[str]) -> set[str]:
        """Add ids. Returns those that came before, in this call or in an earlier call."""
        hashes = _hashes(ids)
        unique, first = np.unique(hashes, return_index=True)
        again = self._known(hashes)
        again[np.setdiff1d(np.arange(len(ids)), first, assume_unique=True)] = True
        known = dict.fromkeys(ids[i] for i in np.flatnonzero(again).tolist())
        self.twice.update(known)
        if ids:
            self._runs.append(unique)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._runs.append(np.sort(np.concatenate([self._runs.pop(), self._runs.pop()]), kind="stable"))
        return set(known)

    def missing(self, ids: Sequence[str]) -> list[str]:
        """The ids that were never added."""
        return [ids[i] for i in np.flatnonzero(~self._known(_hashes(ids))).tolist()]

    def _known(self, hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
        known = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            known |= run[places] == hashes
        return known


def _hashes(ids: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))


Prepare: TypeAlias = Callable[[Sequence[Document], PassageSpans | None], None]
"""Function that is called with documents that are stored, and their passages."""


class Ingest:
    """Stores the documents of one call, and counts them.

    Attributes:
        indexed: Number of documents that were encoded and stored.
        unchanged: Number of documents that were in the index already, with the same content.
        refused: A pair of id and reason for each document that the engine refused.
    """

    def __init__(
        self, backend: Backend, encoders: IndexEncoders, batch_size: int, prepare: Prepare | None = None
    ) -> None:
        self.indexed = self.unchanged = 0
        self.refused: list[tuple[str, str]] = []
        self._backend = backend
        self._encoders = encoders
        self._prepare = prepare
        self._batch_size = batch_size
        self._seen = SeenIds()
        self._read: Counter[str] = Counter()  # texts that each retriever read, and of which it read the beginning
        self._cut: Counter[str] = Counter()
        self._missed = {name: {*getattr(one, "metadata_fields", ())} for name, one in encoders.given.items()}

    @property
    def duplicates(self) -> tuple[str, ...]:
        """The ids that came more than once, in order."""
        return tuple(self._seen.twice)

    @property
    def truncated(self) -> dict[str, int]:
        """The number of texts of which a retriever's model read only the beginning, by retriever name."""
        return dict(self._cut)

    def truncation_notes(self) -> Iterator[str]:
        """A sentence for each retriever whose model read only the beginning of some texts."""
        for name, cut in self._cut.items():
            yield self._encoders.truncation_note(name, cut, self._read[name])

    def field_notes(self) -> Iterator[str]:
        """A sentence for each metadata field that a retriever reads and that no document has."""
        for name, fields in self._missed.items():
            for path in sorted(fields) if self.indexed and self._backend.capabilities.filters else ():
                with suppress(HybridSearchError):  # the documents are stored, so a note must not end the call
                    if not self._backend.count(Filter(Compare(path, "$exists", True))):
                        yield f"{name} reads metadata.{path}, but no document has this field."

    def add(self, batches: Iterable[list[Document]], *, empty: bool = False) -> None:
        """Store new and changed documents, one batch after the other. `empty` tells that the index has no documents."""
        refreshed = many = False
        for batch in batches:
            known = self._seen.add([document.id for document in batch])
            new = {document.id: document for document in batch}.values()
            last = is_last(batch, self._batch_size)
            many = many or not last
            refreshed = self._change(new, compare=not empty or bool(known), refresh=last)
        if not refreshed:
            self._backend.refresh()
        if many and isinstance(self._backend, Finisher):
            self._backend.finish_load()

    def load(self, batches: Iterable[list[Document]]) -> None:
        """Store documents in an empty index, where nothing is compared and the engine may take several batches at once.

        A document whose id came before waits until all earlier documents are stored. At most a batch of them waits.
        """
        source, exhausted = iter(batches), False
        again: dict[str, Document] = {}

        def first_time() -> Iterator[EncodedBatch]:
            nonlocal exhausted
            for batch in source:
                known = self._seen.add([document.id for document in batch])
                again.update((document.id, document) for document in batch if document.id in known)
                if new := [document for document in batch if document.id not in known]:
                    yield self._encoded(new)
                if len(again) >= self._batch_size:
                    return
            exhausted = True

        while not exhausted:
            try:
                send(self._backend, first_time(), self.refused)
            except Exception:
                with suppress(Exception):  # the first error is the one to tell
                    self._store_again(again)
                raise
            self._store_again(again)

    def _store_again(self, again: dict[str, Document]) -> None:
        """Store the documents that waited in `load`."""
        if again:
            self._change(again.values())
            again.clear()
            self._backend.refresh()

    def gone(self) -> list[str]:
        """The ids of documents in the index that did not come in this call."""
        batches = self._backend.scan(self._batch_size)
        return [id for batch in batches for id in self._seen.missing([document.id for document in batch.documents])]

    def _change(self, documents: Iterable[Document], *, compare: bool = True, refresh: bool = False) -> bool:
        """Store the documents that are new or changed. Returns whether this has also done the `refresh` asked for."""
        new = list(documents)
        old_ones = self._backend.fetch([document.id for document in new]) if new and compare else [None] * len(new)
        changed = [document for document, old in zip(new, old_ones, strict=True) if not same_document(document, old)]
        self.unchanged += len(new) - len(changed)
        if changed:
            encoded = self._encoded(changed)
            with collecting(self.refused):
                if refresh and isinstance(self._backend, Immediate):
                    self._backend.upsert_now(encoded)
                    return True
                self._backend.upsert(encoded)
        return False

    def _encoded(self, documents: list[Document]) -> EncodedBatch:
        batch = self._encoders.encode(documents)
        if self._prepare is not None:
            self._prepare(documents, batch.passages)
        self.indexed += len(documents)
        for fields in self._missed.values():  # most often the first document has them
            fields -= {path for path in fields if any(field_value(one, path) is not None for one in documents)}
        for name, vectors in batch.vectors.items():
            self._read[name] += len(vectors)
            if vectors.truncated:
                self._cut[name] += vectors.truncated
        return batch


def same_document(new: Document, old: Document | None) -> bool:
    """Whether two documents are equal. In metadata, 1, 1.0 and True differ, and the order of keys does not count."""
    return old is not None and new == old and _typed(new.metadata) == _typed(old.metadata)


def _typed(value: Any) -> Any:
    """A value with its types, so that 1, 1.0 and True differ."""
    if isinstance(value, Mapping):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(item) for item in value]
    return type(value), value


def send(backend: Backend, batches: Iterable[EncodedBatch], refused: list[tuple[str, str]]) -> None:
    """Store all batches, by `load` if the backend has it, and refresh. Refused documents are added to `refused`.

    If `batches` raises an error, the batches before it are stored first.
    """
    failure: list[Exception] = []

    def until_failure() -> Iterator[EncodedBatch]:
        try:
            yield from batches
        except Exception as error:
            failure.append(error)

    if isinstance(backend, Loader):
        with collecting(refused):
            backend.load(until_failure())
    else:
        for batch in until_failure():
            with collecting(refused):
                backend.upsert(batch)
        backend.refresh()
    if failure:
        raise failure[0]


@contextmanager
def reporting(refused: list[tuple[str, str]]) -> Iterator[None]:
    """Raises BulkIndexError at the end if documents were refused. Another error gets a note about these documents."""
    try:
        yield
    except BaseException as error:
        if refused:
            error.add_note(str(BulkIndexError(refused)))
        raise
    if refused:
        raise BulkIndexError(refused)


@contextmanager
def collecting(refused: list[tuple[str, str]]) -> Iterator[None]:
    """Adds the documents of a BulkIndexError to `refused`, so that the call can continue with other documents."""
    try:
        yield
    except BulkIndexError as error:
        refused.extend(error.failed)
