"""`MemoryBackend`: an index in this process, in RAM or in a folder."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridsearch.adapters.checks import check_batch_size, check_open, differing_retrievers, opened
from hybridsearch.adapters.memory import loops, merging
from hybridsearch.adapters.memory.interrupts import interrupted, whole
from hybridsearch.adapters.memory.loading import Collector
from hybridsearch.adapters.memory.segment import Mask, Segment
from hybridsearch.adapters.memory.state import State, View, weighting_of
from hybridsearch.adapters.memory.storing import from_own_files, read_views, write_segment, write_state
from hybridsearch.arguments import number as checked_number
from hybridsearch.arguments import path as checked_path
from hybridsearch.arguments import whole_number_or_none
from hybridsearch.backends import Capabilities, Kind, Request, Schema, check_batch, check_schema
from hybridsearch.corpus.files import storage_errors, sync_folder
from hybridsearch.corpus.manifest import Part
from hybridsearch.corpus.parts import arrow_schema, read_part, to_tables
from hybridsearch.corpus.remote import Remote
from hybridsearch.corpus.store import CorpusStore, exists, remove_unfinished, unfinished
from hybridsearch.documents import Document
from hybridsearch.errors import (
    BackendError,
    HybridSearchError,
    IndexCorruptedError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidArgumentError,
    StorageError,
)
from hybridsearch.filters import Filter
from hybridsearch.forks import after_fork
from hybridsearch.listing import Key, Order, with_documents
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import EncodedBatch

log = logging.getLogger(__name__)

CANDIDATES = 256
"""Default number of documents whose token vectors are compared with a query."""


class MemoryBackend:
    """A backend that keeps an index in this process, in RAM or in a folder.

    Any number of threads may search while one thread writes. Searches do not wait for the writer.

    In a folder, each `upsert` and `delete` is atomic, and is on disk when it returns. One process at a time may write,
    and any number of processes may read. A reader sees the index as it was when it was opened, until `reopen`. Segments
    are merged in the background. An interrupt (Ctrl-C) never leaves a change half done.

    Args:
        location: Folder of the index. Default None: the index is in RAM only.
        hnsw: Whether dense vectors of large segments are searched approximately, with an HNSW graph. Default False:
            exactly. Needs the extra `hnsw`. Searches with a filter stay exact.
        multi_vector_candidates: Number of documents whose token vectors are compared with a query of late interaction.
            They are the documents with the nearest mean vectors. If a search asks for more documents, as many are
            compared. A larger number finds more of the best documents and takes longer. None compares all documents,
            so that the search is exact.
        verify: Whether `open` compares the checksums of all files, which reads all files once. Default True. False
            opens a large index faster: only files of up to 4 MiB are compared, and larger files are checked only for
            positions that are out of range. Then damaged texts, weights and vectors in larger files can give wrong
            results.
        turns: Seconds that a change waits until another process has ended its change. The process then holds the
            writer's lock only during its own changes, so several processes can write in turns. Default None: the first
            change takes the lock until `close`, and does not wait for it.

    >>> backend = MemoryBackend()
    >>> backend.create(Schema({}))
    >>> backend.upsert(EncodedBatch([Document("1", "Lift", metadata={"year": 1958})], {}))
    >>> backend.count(Filter.parse({"year": {"$lt": 1960}})), backend.fetch(["1"])[0].text
    (1, 'Lift')
    """

    def __init__(
        self,
        location: str | Path | None = None,
        *,
        hnsw: bool = False,
        multi_vector_candidates: int | None = CANDIDATES,
        verify: bool = True,
        turns: float | None = None,
    ) -> None:
        self._folder = None if location is None else checked_path("The place of the index", location).absolute()
        self._hnsw = hnsw
        self._compared = whole_number_or_none("multi_vector_candidates", multi_vector_candidates)
        self._verify = verify
        self._turns = None if turns is None else checked_number("turns", turns, least=0, unit="seconds")
        self._merging = False
        self._state: State | None = None
        self._store: CorpusStore | None = None
        self._remote: Remote | None = None
        self._closing = self._closed = False
        self._added = 0
        self._writer = threading.RLock()
        self._merger: threading.Thread | None = None
        self._stamp: tuple[object, ...] = ()
        after_fork(self, MemoryBackend._forget_threads)

    @property
    def capabilities(self) -> Capabilities:
        """The kinds of retrievers that this index stores, and how exactly it searches them."""
        approximate: set[Kind] = {"dense"} if self._hnsw else set()
        if self._compared is not None:
            approximate.add("multi_vector")
        return Capabilities(
            persistent=self._folder is not None,
            # Sparse scores are float32 sums over a query's terms, often a hundred of them.
            kinds=frozenset({"lexical", "sparse", "dense", "multi_vector"}),
            score_tolerance={"lexical": 1e-5, "sparse": 1e-5, "dense": 1e-6, "multi_vector": 1e-6},
            approximate=frozenset(approximate),
            finds_more={"multi_vector": f"multi_vector_candidates (now {self._compared}): raise it."},
            exact_on_request=True,
            passages=True,
        )

    @staticmethod
    def compiled_loops(*, make: bool = False) -> Path | None:
        """The folder with the compiled search loops for this machine. None if there is none.

        Args:
            make: Whether to compile the loops if there is none. Default False. Compiling takes about 25 seconds.

        Raises:
            StorageError: No folder can keep the compiled loops.
        """
        if make:
            loops.warm_up()
        return loops.LOOPS.find()

    # ------------------------------------------------------------------------------------------- opening, closing

    def open(self) -> Schema | None:
        """Open the index. Returns its schema, or None if there is no index.

        Raises:
            IndexCorruptedError: A file is damaged or missing. The message names the file.
            StorageError: The folder cannot be read.
        """
        state = self._state
        if state is not None:  # a search does not wait for a writer
            check_open(self._closed)
            return state.schema
        with self._writer:
            check_open(self._closed)
            if self._state is None and self._folder is not None:
                if self._remote is not None:
                    self._remote.pull()
                with storage_errors(self._folder):
                    if not exists(self._folder):
                        return None
                    store = CorpusStore.open(self._folder, verify=self._verify, remote=self._remote)
                    try:
                        self._check_schema(store.schema)
                    except (InvalidArgumentError, BackendError) as error:
                        raise IndexCorruptedError(f"The manifest in {self._folder} is damaged: {error}") from error
                    state = self._read(store)
                self._store, self._state = store, state
            return None if self._state is None else self._state.schema

    def reopen(self) -> Schema | None:
        """Read the changes of other processes, or the index that replaced this one. Returns its schema.

        If nothing has changed, this only looks at the size and the time of the manifest. Otherwise it reads the new
        parts.

        Raises:
            IndexCorruptedError: A file is damaged or missing. The backend keeps the documents that it had.
            StorageError: The folder cannot be read. The backend keeps the documents that it had.
        """
        if self._folder is None or self._state is None:
            return self.open()
        with self._writer:
            check_open(self._closed)
            stamp = None if self._store is None else self._store.stamp()
            if stamp is None or self._store is None:
                if self._store is not None:
                    self._store.close()
                self._store = self._state = None
                return self.open()
            if stamp == () or stamp != self._stamp:
                changed = self._store.reload()
                if changed:
                    self._store.close()  # the lock may belong to an index that is gone
                if changed or self._is_behind(self._store):
                    self._state = self._read(self._store)
                self._stamp = stamp
            return self._state.schema

    @whole
    def create(self, schema: Schema) -> None:
        """Make an empty index and become its writer.

        Raises:
            IndexExistsError: There is an index already, or the folder has other files.
            IndexLockedError: Another process is making an index there.
            BackendError: The backend cannot store a retriever of `schema`.
            InvalidArgumentError: `schema` is not valid.
        """
        with self._writer:
            check_open(self._closed)
            if self._state is not None:
                raise IndexExistsError("This backend already has an index: make another MemoryBackend for a new index.")
            self._check_schema(schema)
            if self._folder is not None:
                self._store = CorpusStore.create(self._folder, schema, remote=self._remote)
            self._state = State(schema, approximate=self._hnsw, compared=self._compared)
            self._end_turn()

    def close(self) -> None:
        """Wait for a running merge, and release the files and the writer's lock. It may be called twice."""
        self._closing = True
        try:
            if self._merger is not None:
                self._merger.join()
        except BaseException:  # after an interrupt the index stays open
            self._closing = False
            raise
        self._close()

    @whole
    def _close(self) -> None:
        with self._writer:
            self._closed = True
            if self._store is not None:
                self._store.close()
            self._state = None

    # --------------------------------------------------------------------------------------------------- writing

    def upsert(self, batch: EncodedBatch) -> None:
        """Add documents. A document replaces the stored document that has the same id.

        If there is an error, no document of the batch is stored.

        Raises:
            InvalidArgumentError: The batch does not fit the schema, or has an id twice.
            IndexLockedError: Another process is writing.
            StorageError: The disk is full or cannot be written.
        """
        self._wait_if_behind()
        self._upsert(batch)

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """Add the documents of many batches, as `upsert` does, but several batches in one step.

        This takes less time and memory, because fewer segments are merged. A step has the batches of about ten seconds,
        or 256 MiB. A batch that took more than a second to read and encode ends a step. If there is an error or an
        interrupt, the batches that were read before are added.

        Raises:
            InvalidArgumentError: A batch does not fit the schema, or has an id twice.
            IndexLockedError: Another process is writing.
            StorageError: The disk is full or cannot be written.
        """
        schema = self._current().schema
        collector = Collector(schema, durable=self._store is not None)
        collect = whole(collector.add)
        started = time.monotonic()
        try:
            for batch in batches:
                seconds = time.monotonic() - started
                collect(batch)
                if collector.is_due(seconds):
                    self._add_collected(collector)
                started = time.monotonic()
        finally:
            self._add_collected(collector)
        self.refresh()

    def _add_collected(self, collector: Collector) -> None:
        if collector.nbytes:
            self._wait_if_behind()
            whole(lambda: self._add(*collector.take()))()

    @whole
    def _upsert(self, batch: EncodedBatch) -> None:
        with self._writing() as state:
            check_batch(batch, state.schema)
            self._add(Segment.build(batch, state.schema), to_tables(batch, state.schema))

    def _add(self, segment: Segment, tables: Any = ()) -> None:
        """Add a segment. Its documents replace those with the same ids. Of equal ids in it, the last counts."""
        if not len(segment):
            return
        with self._writing() as state:
            views = self._without(state, segment.ids.slice(0, len(segment)))
            with self._adding(segment, tables) as added:
                self._commit((*views, added.without(segment.repeated())))
            self._added += len(segment)
            self._merge_later()

    @whole
    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents. Unknown ids are ignored. Returns how many documents were removed."""
        with self._writing() as state:
            views = self._without(state, list(dict.fromkeys(ids)))
            removed = state.documents - sum(view.documents for view in views)
            if removed:
                self._commit(views)
                self._merge_later()
        return removed

    @whole
    def delete_by_filter(self, filter: Filter) -> int:
        """Remove the documents that a filter allows, in one commit. Returns how many documents were removed."""
        with self._writing() as state:
            removed = state.count(filter)
            if removed:
                self._commit([view.without(view.rows(filter).tolist()) for view in state.views])
                self._merge_later()
        return removed

    def refresh(self) -> None:
        """Merge all segments if at least half of the documents were added since the last call.

        Upserts and deletes are searchable and stored without this call.
        """
        if 2 * self._added >= self._current().documents > 0:
            self.optimize()
        self._added = 0

    def optimize(self) -> None:
        """Merge all segments into as few as possible now, for the fastest searches. An interrupt stops it early."""
        done = False
        while not done:
            merger = self._merger
            if merger is not None:
                merger.join()
            done = self._optimize(merger)

    @whole
    def _optimize(self, merger: threading.Thread | None) -> bool:
        """Merge all segments. Returns False if another `merger` was started meanwhile and must end first."""
        with self._writing() as state:
            if self._merger is not merger:
                return False
            for group in merging.group_by_size(state.views):
                if not interrupted() and (len(group) > 1 or group[0].live is not None):
                    self._merge(group)
            return True

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the index as it is now to a folder. `MemoryBackend(path)` opens it from there.

        The folder appears when it is complete. An index that is overwritten stays unchanged until then. Saving to the
        folder that this backend uses does nothing, because that folder is always up to date.

        Args:
            path: Folder to write to.
            overwrite: Whether an index in the folder is replaced. Default False.

        Raises:
            IndexExistsError: The folder has an index and `overwrite` is False, or it has other files.
            StorageError: The disk is full or cannot be written.
        """
        state, path = self._current(), checked_path("path", path).absolute()
        with storage_errors(path):
            if self._folder is not None and path.resolve() == self._folder.resolve():
                return
            remove_unfinished(path)
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                self._save_over(path, state, overwrite=overwrite)
                return
            beside = unfinished(path)
            try:
                write_state(CorpusStore.create(beside, state.schema), state, hnsw=self._hnsw)
                beside.rename(path)
                sync_folder(path.parent)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                raise

    # --------------------------------------------------------------------------------------------------- reading

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents with these ids, in the order of `ids`. An unknown id gives None."""
        return self._current().fetch(ids)

    def fetch_vectors(self, ids: Sequence[str], retriever: str) -> EncodedBatch:
        """The documents with the vectors of one retriever, in the order of `ids`. Unknown ids are left out.

        Raises:
            InvalidArgumentError: The retriever is unknown.
        """
        return self._current().fetch_vectors(ids, retriever)

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests, in order, from one state of the index."""
        return self._current().search(requests)

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """What each matched term adds to the raw score, for each id.

        Raises:
            InvalidArgumentError: The retriever is dense or unknown.
        """
        return self._current().explain(request, ids)

    def document_frequencies(self, retriever: str, terms: Sequence[str]) -> tuple[list[int], int]:
        """The number of documents that have each term, and of all documents. See `hybridsearch.backends.Counted`."""
        return self._current().document_frequencies(retriever, terms)

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors, as they were when the scan began."""
        check_batch_size(batch_size)
        return self._current().scan(batch_size)

    def count(self, filter: Filter | None = None) -> int:
        """The number of documents in the index, or the number that `filter` lets through."""
        return self._current().count(filter)

    def list_documents(
        self, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
    ) -> Iterator[tuple[Key, Document]]:
        """Documents in an order, as they were when the first one is taken."""
        state = self._current()
        return with_documents(state.keys(filter, order, after, limit), state.fetch)

    def describe(self) -> dict[str, Any]:
        """Facts about the index: documents, deleted documents, segments, bytes in memory and on disk, retrievers."""
        state = self._current()
        rows = sum(len(view.segment) for view in state.views)
        return {
            "location": None if self._folder is None else str(self._folder),
            "documents": state.documents,
            "deleted": rows - state.documents,
            "segments": len(state.views),
            "bytes": sum(view.segment.nbytes for view in state.views),
            "bytes_on_disk": sum(view.part.size for view in state.views if view.part is not None),
            "retrievers": {
                name: {"kind": r.kind, "bytes": sum(view.segment.indices[name].nbytes for view in state.views)}
                for name, r in state.schema.retrievers.items()
            },
        }

    # --------------------------------------------------------------------------------------------------- helpers

    def _current(self) -> State:
        return opened(self._state, self._closed)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[State]:
        """The latest state, for the only thread of the only process that may change it now."""
        deadline = time.monotonic() + (self._turns or 0)
        while True:
            with self._writer:
                try:
                    self._begin_turn()
                except IndexLockedError:
                    if time.monotonic() >= deadline or interrupted():
                        raise
                else:
                    try:
                        yield self._current()
                    finally:
                        self._end_turn()
                    return
            time.sleep(0.01)

    def _begin_turn(self) -> None:
        """Become the writer, and read what other processes have written."""
        self._current()
        store = self._store
        if store is not None and (store.lock() or self._is_behind(store)):  # another process has changed the folder
            if differing := differing_retrievers(self._current().schema, store.schema):
                raise IndexNotFoundError(
                    f"Another index is in {store.folder} now, and its retrievers differ "
                    f"({', '.join(map(repr, differing))}). Nothing was written: open the index again."
                )
            self._state = self._read(store)

    def _end_turn(self) -> None:
        """Let other processes write, unless this process keeps the writer's lock or still merges segments."""
        if self._turns is not None and self._store is not None and not self._merging:
            self._store.close()

    def _is_behind(self, store: CorpusStore) -> bool:
        return self._state is None or tuple(view.part for view in self._state.views) != store.parts

    def _forget_threads(self) -> None:
        """Make a new lock in a forked process, because a thread of the parent may hold the old one."""
        self._writer, self._merger, self._merging = threading.RLock(), None, False

    def _check_schema(self, schema: Schema) -> None:
        """Raises InvalidArgumentError or BackendError if this backend cannot store an index with this schema."""
        check_schema(schema, self)
        arrow_schema(schema)
        for name, retriever in schema.retrievers.items():
            if retriever.kind == "lexical":
                weighting_of(name, retriever)

    def _read(self, store: CorpusStore) -> State:
        """The content of the store. Segments that are known already are used again."""
        held = () if self._state is None else self._state.views
        views = read_views(store, held, hnsw=self._hnsw, verify=self._verify)
        return State(store.schema, views, approximate=self._hnsw, compared=self._compared)

    def _save_over(self, path: Path, state: State, *, overwrite: bool) -> None:
        """Write `state` to a folder that is not empty."""
        if not (path.is_dir() and exists(path)):
            raise IndexExistsError(f"{path} has files that are not an index: choose another folder.")
        if not overwrite:
            raise IndexExistsError(
                f"There is already an index in {path}: choose another folder, or replace the index with overwrite=True."
            )
        try:
            store = CorpusStore.open(path, verify=False)
        except IndexCorruptedError as error:
            raise IndexCorruptedError(f"{error} To save a new index there, delete {path} first.") from error
        write_state(store, state, hnsw=self._hnsw)

    def _without(self, state: State, ids: Sequence[str]) -> list[View]:
        rows: dict[int, list[int]] = {}
        for _, number, row in state.find(ids):
            rows.setdefault(number, []).append(row)
        return [view.without(rows.get(number, ())) for number, view in enumerate(state.views)]

    @contextlib.contextmanager
    def _adding(self, segment: Segment, tables: Any) -> Iterator[View]:
        """A view of `segment`, which is stored if there is a store. If it is not committed, its files are removed."""
        if self._hnsw:
            segment.build_graphs()
        store = self._store
        if store is None:
            yield View(segment)
            return
        part = write_segment(store, segment, tables)
        try:
            yield View(from_own_files(store, part, segment), None, part)
        finally:
            store.discard([part], keep=store.parts)

    def _commit(self, views: Sequence[View]) -> None:
        """Make `views` the content of the index. Readers see the whole change or none of it."""
        state = self._current()
        views = [view for view in views if view.documents]
        store = self._store
        if store is not None:
            before = {view.part.name: view.live for view in state.views if view.part is not None}
            new: list[Part] = []
            try:
                for number, view in enumerate(views):
                    if view.part is not None and view.live is not None and view.live is not before.get(view.part.name):
                        new.append(store.with_tombstones(view.part, view.live))
                        views[number] = View(view.segment, view.live, new[-1])
            except BaseException:
                store.discard(new, keep=store.parts)
                raise
        after = State(state.schema, views, approximate=self._hnsw, compared=self._compared)
        parts = [view.part for view in views if view.part is not None]
        try:
            if store is not None:
                store.commit(parts)
        finally:  # after an error that came after the commit, the new index stays
            if store is None or store.parts == tuple(parts):
                self._state = after

    # --------------------------------------------------------------------------------------------------- merging

    def _merge_later(self) -> None:
        """Start merging in the background if there are segments to merge and no thread merges them yet."""
        with self._writer:
            if self._merging or self._closing or self._state is None or not merging.choose(self._state.views):
                return
            self._merger = threading.Thread(target=self._merge_all, name="hybridsearch-merge")
            self._merging = True
            try:
                self._merger.start()
            except BaseException:
                self._merging, self._merger = False, None
                raise

    def _wait_if_behind(self) -> None:
        merger = self._merger
        if merger is not None and merging.behind(self._current().views):
            merger.join()

    def _merge_all(self) -> None:
        try:
            while not self._closing and self._state is not None and (chosen := merging.choose(self._state.views)):
                try:
                    self._merge(chosen)
                except StorageError:
                    state = self._state
                    if state is not None and {v.segment for v in chosen} <= {v.segment for v in state.views}:
                        raise  # if not, another thread has removed a part and its files
        except HybridSearchError as error:
            log.warning("Merging segments failed. It is tried again after the next change: %s", error)
        except Exception:
            log.exception("Merging segments failed. The index is not damaged.")
        finally:
            with self._writer:
                self._merging = False
                self._end_turn()

    def _merge(self, chosen: Sequence[View]) -> None:
        """Replace some segments by one segment with their documents. Other threads may write meanwhile."""
        segment = Segment.merge([(view.segment, view.live) for view in chosen])
        store = self._store
        tables = (
            table
            for view in chosen
            if store is not None and view.part is not None
            for table in read_part(store.path(view.part), view.live)
        )
        with self._adding(segment, tables) as merged, self._writer:
            if self._state is None:
                raise BackendError("The index was closed.")
            now = {view.segment: view for view in self._state.views}
            gone = np.flatnonzero(~np.concatenate([_survivors(view, now.get(view.segment)) for view in chosen]))
            replaced = {view.segment for view in chosen}
            kept = [view for view in self._state.views if view.segment not in replaced]
            self._commit([merged.without(gone.tolist()), *kept])


def _survivors(then: View, now: View | None) -> Mask:
    """A mask over the documents of `then` that were not deleted: True for those that are still there."""
    there = np.zeros(len(then.segment), dtype=np.bool_) if now is None else now.live
    if there is None:
        return np.ones(then.documents, dtype=np.bool_)
    return there if then.live is None else there[then.live]
