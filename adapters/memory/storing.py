"""The content of an index in its store: read from it, and written to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import merging
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.adapters.memory.state import State, View
from hybridsearch.corpus.files import REPAIR, storage_errors
from hybridsearch.corpus.manifest import PART, Part
from hybridsearch.corpus.parts import to_tables
from hybridsearch.corpus.store import CorpusStore
from hybridsearch.errors import IndexCorruptedError

SMALL_ROWS = 4096
"""A segment with fewer documents or passages is stored only as a Parquet file. `read_views` makes its arrays."""


def read_views(store: CorpusStore, held: Sequence[View], *, hnsw: bool, verify: bool) -> Sequence[View]:
    """The segments of a store, with their deleted documents.

    Args:
        store: The store.
        held: Segments that are known already. They are used again.
        hnsw: Whether the segments have graphs for dense vectors.
        verify: Whether the checksums of all files are compared.

    Raises:
        IndexCorruptedError: A file is damaged or missing, or the index has a document twice.
    """
    known = {view.part.name: view.segment for view in held if view.part is not None}

    def read(part: Part) -> View:
        segment = known.get(part.name) or _read_segment(store, part, hnsw)
        return View(segment, store.tombstones(part), part)

    views = store.load(read, verify=verify)
    _check_distinct(views, store)
    return views


def write_state(store: CorpusStore, state: State, *, hnsw: bool) -> None:
    """Replace the content of a store, in one commit, and close the store."""
    try:
        store.lock()
        parts: list[Part] = []
        try:
            store.schema = state.schema
            for group in merging.group_by_size([view for view in state.views if view.documents]):
                segment, live = group[0].segment, group[0].live
                if len(group) > 1 or live is not None:
                    segment = Segment.merge([(view.segment, view.live) for view in group])
                if hnsw:
                    segment.build_graphs()
                batches = segment.batches(None, SMALL_ROWS)
                tables = (table for batch in batches for table in to_tables(batch, state.schema))
                parts.append(write_segment(store, segment, tables))
            store.commit(parts, state.schema)
        except BaseException:
            store.discard(parts, keep=store.parts)
            raise
    finally:
        store.close()


def write_segment(store: CorpusStore, segment: Segment, tables: Iterable[Any]) -> Part:
    """Write a segment, whose documents are in `tables`. The part is not committed yet."""
    return store.add_part(tables, segment.arrays() if segment.rows >= SMALL_ROWS else ())


def from_own_files(store: CorpusStore, part: Part, segment: Segment) -> Segment:
    """The segment with the arrays of its files, to free the memory. The same segment if its arrays are not stored."""
    if segment.rows < SMALL_ROWS:
        return segment
    with storage_errors(store.folder):
        return Segment.from_files(store.path(part).parent, store.schema, part.rows)


def _read_segment(store: CorpusStore, part: Part, hnsw: bool) -> Segment:
    """A stored segment. Its arrays are memory-mapped, or made from the Parquet file if an array is missing."""
    arrays = [name for name in part.files if name not in (PART, part.deleted)]
    if arrays and all(store.path(part, name).exists() for name in arrays):
        if hnsw:  # check the graphs here, because the library that reads them does not
            for name in arrays:
                if name.endswith(".graph.npy"):
                    store.check(part, name)
        segment = Segment.from_files(store.path(part).parent, store.schema, part.rows)
    else:
        pieces = [Segment.build(batch, store.schema) for batch in store.part_batches(part)]
        segment = pieces[0] if len(pieces) == 1 else Segment.merge([(piece, None) for piece in pieces])
    if hnsw:
        segment.build_graphs()
    return segment


def _check_distinct(views: Sequence[View], store: CorpusStore) -> None:
    """Raises IndexCorruptedError if the index has a document twice."""

    def live_hashes(view: View) -> NDArray[np.uint64]:
        segment = view.segment
        return segment.hashes if view.live is None else segment.hashes[view.live[segment.hashed_rows]]

    hashes = np.concatenate([np.empty(0, dtype=np.uint64), *map(live_hashes, views)])
    hashes.sort(kind="stable")  # a stable sort merges sorted runs
    again = hashes[1:][hashes[1:] == hashes[:-1]]
    ids: set[str] = set()
    for view in views if len(again) else ():
        rows = view.segment.hashed_rows[np.isin(view.segment.hashes, again)]
        for id in view.segment.ids.take(rows if view.live is None else rows[view.live[rows]]):
            if id in ids:
                raise IndexCorruptedError(f"The index in {store.folder} has the document {id!r:.80} twice: {REPAIR}.")
            ids.add(id)
