"""Approximate search of learned sparse vectors by Seismic (Bruch, Nardini, Rulli and Venturini, SIGIR 2024).

The search time of Seismic grows much more slowly than the collection. It is faster than exact search from about half a
million documents on. But Seismic has no updates, no deletes and no filters. So the memory backend stores documents and
vectors, in RAM or in a folder. The Seismic indexes are built over its segments, which never change.

These searches are exact: searches of documents that were added since the last `refresh`, searches with a filter,
queries or retrievers with weights below 0, searches for which Seismic finds fewer than k documents, and requests with
`exact`.

A document that Seismic finds is a hit if it was not deleted meanwhile. Its score is computed again from its stored
vector. So every hit has the exact float32 score and the right rank among the others. But Seismic may miss a document.

With passages, Seismic finds passages. Their documents are hits, and each has the exact score of its best passage. If
the passages belong to too few documents, Seismic is asked for more, and then the exact search answers.

In a folder, the Seismic indexes are in `seismic`, beside the files of the memory backend. Those files are a complete
index by themselves.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.adapters.memory.state import State
from hybridsearch.adapters.seismic.shards import DEFAULTS, Parameters, Shard, read_shards
from hybridsearch.arguments import number, whole_number, whole_number_or_none
from hybridsearch.arguments import path as checked_path
from hybridsearch.backends import Capabilities, Request, Schema
from hybridsearch.corpus.files import storage_errors
from hybridsearch.errors import HybridSearchError, IndexLockedError, InvalidArgumentError
from hybridsearch.forks import Lock
from hybridsearch.messages import redacted
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.vectors import SparseQuery

log = logging.getLogger(__name__)

_SPARE = 16
"""The number of documents that Seismic finds beyond k. They are needed because it scores with 16-bit weights."""

_WIDTHS = (4, 32)
"""The number of passages that Seismic finds for each document that is needed, at first and if they are too few."""


class SeismicBackend(MemoryBackend):
    """A memory backend that searches large sparse retrievers approximately with Seismic.

    Lexical and dense retrievers are searched as in `MemoryBackend`. `refresh` builds Seismic indexes. `open` builds an
    index if it is missing, damaged or made by another version of Seismic. A search never builds one. Building runs in
    another process, and searches go on meanwhile. It takes about 5 seconds of one core for each million of `n_postings`
    times the number of terms.

    An index in a folder remembers `n_postings`, `centroid_fraction` and `summary_energy`. If other values are given
    later, the Seismic indexes are built again.

    Args:
        location: Place of the index: "seismic://:memory:" for RAM, or "seismic:///a/folder" or a path for a folder.
            Default None: RAM.
        query_cut: Number of query terms that Seismic uses to find candidates: the terms with the largest weights. All
            terms count in the score. Default 10. A larger number finds more and takes longer. It is useful if you want
            many hundreds of hits.
        heap_factor: How readily Seismic skips clusters of documents that promise less than the k documents found so
            far, from 0 to 1. Default 0.8. With 0 it skips none. A larger number is faster and finds less.
        n_postings: Average number of documents that Seismic keeps for each term: the documents in which the term
            weighs most. Default None: 1000 for a new index. A larger number finds more and takes more memory.
        centroid_fraction: Number of clusters of a term's documents, as a fraction of these documents, above 0 and at
            most 1. Default None: 0.1 for a new index.
        summary_energy: Fraction of the weight of a cluster that its summary keeps, above 0 and at most 1. Default
            None: 0.4 for a new index.
        min_documents: Smallest number of new documents or passages for which a Seismic index is built. Default
            500,000. Fewer documents are searched exactly, which is as fast.
        hnsw: Whether dense retrievers are searched approximately by HNSW. Default False. See `MemoryBackend`.
        verify: Whether files are checked when they are opened. Default True. See `MemoryBackend`.

    >>> backend = SeismicBackend("seismic://:memory:")
    >>> backend.create(Schema({}))
    >>> sorted(backend.capabilities.approximate)
    ['multi_vector', 'sparse']
    """

    def __init__(
        self,
        location: str | Path | None = None,
        *,
        query_cut: int = 10,
        heap_factor: float = 0.8,
        n_postings: int | None = None,
        centroid_fraction: float | None = None,
        summary_energy: float | None = None,
        min_documents: int = 500_000,
        hnsw: bool = False,
        verify: bool = True,
    ) -> None:
        given = {"n_postings": n_postings, "centroid_fraction": centroid_fraction, "summary_energy": summary_energy}
        self._given = {name: value for name, value in given.items() if value is not None}
        for name, count in {"query_cut": query_cut, "n_postings": n_postings}.items():
            whole_number_or_none(name, count)
        whole_number("min_documents", min_documents, 0)
        number("heap_factor", heap_factor, least=0, most=1)
        for name in self._given.keys() - {"n_postings"}:
            number(name, self._given[name], above=0, most=1)
        super().__init__(_folder(location), hnsw=hnsw, verify=verify)
        self._query_cut = query_cut
        self._heap_factor = heap_factor
        self._min_documents = min_documents
        self._parameters: Parameters = {**DEFAULTS, **self._given}
        self._indices = None if self._folder is None else self._folder / "seismic"
        self._shards: tuple[Shard, ...] = ()
        self._loaded = False
        self._indexing = Lock()

    @property
    def capabilities(self) -> Capabilities:
        """The kinds of retrievers that this index stores, and how exactly it searches them."""
        own = super().capabilities
        more = f"query_cut (now {self._query_cut}): raise it, or heap_factor (now {self._heap_factor:g}): lower it."
        return replace(own, approximate=own.approximate | {"sparse"}, finds_more={**own.finds_more, "sparse": more})

    def open(self) -> Schema | None:
        """Open the index. Returns its schema, or None if there is no index. Builds Seismic indexes that are missing."""
        schema = super().open()
        if schema is not None and not self._loaded:
            with self._indexing:
                if self._indices is not None:
                    with storage_errors(self._indices):
                        shards, self._parameters = read_shards(self._indices, self._current().views, self._given)
                    self._shards = tuple(shards)
                self._loaded = True
            try:
                self._update()
            except HybridSearchError as error:
                log.warning("Sparse searches are exact until the next refresh(), because this failed: %s", error)
        return schema

    def reopen(self) -> Schema | None:
        """Do what `MemoryBackend.reopen` does, and read Seismic indexes that another process has built."""
        before, schema = self._state, super().reopen()
        if self._state is not before:
            self._loaded = False
            return self.open()
        return schema

    def create(self, schema: Schema) -> None:
        """Make an empty index. It raises the same errors as `MemoryBackend.create`."""
        super().create(schema)
        self._loaded = True

    def refresh(self) -> None:
        """Build the Seismic index of the documents since the last call, if there are at least `min_documents`.

        Upserts and deletes are searchable and stored without this call.

        Raises:
            BackendError: Seismic failed. The documents are stored, and are searched exactly.
            StorageError: The disk is full or cannot be written. The documents are stored, and are searched exactly.
        """
        super().refresh()
        self._update()
        self._remove_stale()

    def close(self) -> None:
        """Wait for a running merge, and release the files and the writer's lock. It may be called twice."""
        super().close()
        self._shards = ()

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests, in order, from one state of the index."""
        state, shards = self._current(), self._shards
        rankings = [EMPTY] * len(requests)
        exact: list[int] = []
        groups: dict[tuple[str, int], list[int]] = {}
        for position, request in enumerate(requests):
            if any(request.retriever in shard.indices for shard in shards) and _suits(request):
                groups.setdefault((request.retriever, int(request.k)), []).append(position)
            else:
                exact.append(position)
        answers = [(exact, state.search([requests[position] for position in exact]))]
        for (name, k), positions in groups.items():
            answers.append((positions, self._answer(state, shards, name, k, [requests[p] for p in positions])))
        for positions, answered in answers:
            for position, ranking in zip(positions, answered, strict=True):
                rankings[position] = ranking
        return rankings

    def describe(self) -> dict[str, Any]:
        """Facts about the index, as in `MemoryBackend.describe`.

        "seismic" has the documents and bytes of each Seismic index, and all settings.
        """
        shards = [{"documents": shard.documents, "bytes": shard.size} for shard in self._shards]
        searched = {"query_cut": self._query_cut, "heap_factor": self._heap_factor}
        return {**super().describe(), "seismic": {"indices": shards, **self._parameters, **searched}}

    def _answer(
        self, state: State, shards: Sequence[Shard], name: str, k: int, requests: Sequence[Request]
    ) -> list[Ranking]:
        """Answer requests to one sparse retriever: with Seismic for the segments that it covers, the rest exactly."""
        queries = [cast(SparseQuery, request.query) for request in requests]
        views = {view.segment: view for view in state.views}
        covered = {segment for shard in shards for segment in shard.segments}
        exact = [[view for view in state.views if view.segment not in covered] for _ in requests]
        found: list[list[tuple[str, float]]] = [[] for _ in requests]
        for shard in shards:
            index, present = shard.indices.get(name), [views[s] for s in shard.segments if s in views]
            alive = sum(view.documents for view in present)
            if index is None or alive < k:
                for left in exact:
                    left.extend(present)
                continue
            wanted = (k + _SPARE) * shard.documents // alive  # some of the documents may have been deleted
            missing = list(range(len(queries)))
            for width in _WIDTHS if state.schema.retrievers[name].passages else (1,):
                asked = [queries[position] for position in missing]
                rows_of = index.search(asked, width * wanted, self._query_cut, self._heap_factor) if asked else []
                answers = [shard.best(views, name, query, rows, k) for query, rows in zip(asked, rows_of, strict=True)]
                for position, best in zip(missing, answers, strict=True):
                    found[position].extend(best or ())
                missing = [position for position, best in zip(missing, answers, strict=True) if best is None]
            for position in missing:
                exact[position].extend(present)
        alike: dict[tuple[int, ...], list[int]] = {}
        for position, left in enumerate(exact):
            alike.setdefault(tuple(map(id, left)), []).append(position)
        for positions in alike.values():
            if left := exact[positions[0]]:
                rest = [replace(requests[position], passages=0) for position in positions]
                for position, ranking in zip(positions, State(state.schema, left).search(rest), strict=True):
                    found[position] += ranking
        rankings = [Ranking.from_scores(hits, k) for hits in found]
        if not state.schema.retrievers[name].passages:
            return rankings
        return [
            state.listed(ranking, request) if request.passages else ranking
            for ranking, request in zip(rankings, requests, strict=True)
        ]

    def _update(self) -> None:
        """Build a Seismic index over all segments that have none, if they have enough documents.

        The new index also replaces indexes that are at most twice as large. So there are few indexes, and each
        document is indexed a logarithmic number of times.
        """
        with self._indexing:
            if self._merger is not None:
                self._merger.join()  # or it would replace segments that are indexed here
            state = self._current()
            views = {view.segment: view for view in state.views}

            def alive(shard: Shard) -> int:
                return sum(views[segment].documents for segment in shard.segments if segment in views)

            kept = sorted((shard for shard in self._shards if 2 * alive(shard) > shard.documents), key=alive)
            covered = {segment for shard in kept for segment in shard.segments}
            pending = [view for view in state.views if view.segment not in covered]
            documents = sum(view.documents for view in pending)
            names = [name for name, retriever in state.schema.retrievers.items() if retriever.kind == "sparse"]
            rows = sum(view.segment.rows * view.documents // max(1, len(view.segment)) for view in pending)
            if names and rows >= max(1, self._min_documents):
                while kept and alive(kept[0]) <= 2 * documents:
                    pending += [views[segment] for segment in kept[0].segments if segment in views]
                    documents += alive(kept.pop(0))
                kept.append(Shard.build(self._indices, names, pending, self._parameters))
            self._shards = tuple(kept)

    def _remove_stale(self) -> None:
        """Delete the files of Seismic indexes that are no longer used, unless another process is the writer."""
        used = {shard.name for shard in self._shards}
        stale = [] if self._indices is None else [path for path in self._indices.glob("*") if path.name not in used]
        if stale:
            with contextlib.suppress(IndexLockedError), self._writing():
                for path in stale:
                    shutil.rmtree(path, ignore_errors=True)


def _suits(request: Request) -> bool:
    """Whether Seismic can answer a request. The exact search answers other requests, or raises their errors."""
    query, k = request.query, request.k
    if request.exact or request.filter is not None:
        return False
    if not isinstance(query, SparseQuery) or not isinstance(k, int | np.integer):
        return False
    return k >= 1 and not (query.weights < 0).any()


def _folder(location: str | Path | None) -> Path | None:
    """The folder that `location` names. None for RAM."""
    if location is None or isinstance(location, Path):
        return location
    scheme, separator, rest = location.rpartition("://")
    if not separator:
        return checked_path("The place of the index", location)
    if rest == ":memory:":
        return None
    if scheme != "seismic" or not rest.startswith("/"):
        raise InvalidArgumentError(
            f"{redacted(location)!r} is not a place of a Seismic index: write seismic:///a/folder, with three slashes, "
            "or seismic://:memory:."
        )
    return Path(rest)
