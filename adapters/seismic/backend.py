"""Approximate search of learned sparse vectors by Seismic (Bruch, Nardini, Rulli and Venturini, SIGIR 2024).

Seismic's time grows much more slowly than the collection, which pays beyond half a million documents. But it has no
updates, no deletes and no filters. So documents and vectors live in the memory backend, in RAM or in its folder, and
Seismic indices are made over its segments, which never change. What they do not cover is searched exactly: documents
that came since the last `refresh`, searches with a filter, weights below 0 in a query or a retriever, and searches for
which Seismic finds fewer than k documents. A document that Seismic finds is a hit if it still is there, and its score
is worked out anew from its stored vector. So every hit has the exact float32 score and the right place among the
others; the one thing that can happen is that a document is missed.

In a folder the indices lie in `seismic` beside the memory backend's files, which stay a complete index of their own.
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
from hybridsearch.corpus.store import storage_errors
from hybridsearch.errors import HybridSearchError, IndexLockedError, InvalidArgumentError
from hybridsearch.forks import Lock
from hybridsearch.messages import redacted
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.vectors import SparseQuery

log = logging.getLogger(__name__)

_SPARE = 16
"""So many documents more than wanted are asked for, as Seismic's own scores come from 16-bit weights."""


class SeismicBackend(MemoryBackend):
    """The memory backend with approximate search of large sparse retrievers.

    Lexical and dense retrievers are searched exactly, as there. Seismic indices are made by `refresh`, and by `open`
    where one is missing, damaged or made by another version of Seismic; never by a search. That is done by a process
    of its own and takes about 5 seconds of a core for each million of `n_postings` times the number of terms. Searches
    go on meanwhile.

    Args:
        location: "seismic://:memory:" (or None) for RAM only, "seismic:///a/folder" or a path to keep the index there.
        query_cut: how many of a query's terms, the heaviest, Seismic looks documents up by. All count in the score.
            More are worth their time where many hundreds of hits are wanted.
        heap_factor: from 0 to 1; how readily Seismic leaves out clusters of documents that promise less than the k
            found so far. 0 leaves out none.
        n_postings: how many documents a term keeps on average, those where it weighs most.
        centroid_fraction: clusters of a term's documents, as a share of these.
        summary_energy: how much of the weight of a cluster its summary keeps, from 0 to 1.
        min_documents: fewer new documents than that get no index, as exact search is as fast.
        hnsw, verify: as in `MemoryBackend`.

    `n_postings`, `centroid_fraction` and `summary_energy` are remembered in a folder; others given later make the
    indices anew.

    >>> backend = SeismicBackend("seismic://:memory:")
    >>> backend.create(Schema({}))
    >>> sorted(backend.capabilities.approximate)
    ['sparse']
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
        own = super().capabilities
        return replace(own, approximate=own.approximate | {"sparse"})

    def open(self) -> Schema | None:
        """The schema of the index at this place, or None if there is none. Makes Seismic indices that are missing."""
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
                log.warning("Sparse searches stay exact for now: %s", error)
        return schema

    def reopen(self) -> Schema | None:
        """As `MemoryBackend.reopen`; Seismic indices that another process has made are read, too."""
        before, schema = self._state, super().reopen()
        if self._state is not before:
            self._loaded = False
            return self.open()
        return schema

    def create(self, schema: Schema) -> None:
        super().create(schema)
        self._loaded = True

    def refresh(self) -> None:
        """Make the Seismic index of what came since the last call, if that is `min_documents` or more.

        What was upserted and deleted is searchable, and durable, at once in any case.

        Raises:
            BackendError: Seismic failed; the documents are stored and searched exactly.
            StorageError: the disk is full or refuses; likewise.
        """
        super().refresh()
        self._update()
        self._remove_stale()

    def close(self) -> None:
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
        """As `MemoryBackend.describe`; "seismic" has each index's documents and bytes, and all settings."""
        shards = [{"documents": shard.documents, "bytes": shard.size} for shard in self._shards]
        searched = {"query_cut": self._query_cut, "heap_factor": self._heap_factor}
        return {**super().describe(), "seismic": {"indices": shards, **self._parameters, **searched}}

    def _answer(
        self, state: State, shards: Sequence[Shard], name: str, k: int, requests: Sequence[Request]
    ) -> list[Ranking]:
        """Answer requests to one sparse retriever: from Seismic where it covers enough, the rest exactly."""
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
            wanted = (k + _SPARE) * shard.documents // alive  # as some of what it finds may have been deleted
            rows_of = index.search(queries, wanted, self._query_cut, self._heap_factor)
            for position, (query, rows) in enumerate(zip(queries, rows_of, strict=True)):
                best = shard.best(views, name, query, rows, k)
                if best is None:
                    exact[position].extend(present)
                else:
                    found[position].extend(best)
        alike: dict[tuple[int, ...], list[int]] = {}
        for position, left in enumerate(exact):
            alike.setdefault(tuple(map(id, left)), []).append(position)
        for positions in alike.values():
            if left := exact[positions[0]]:
                answers = State(state.schema, left).search([requests[position] for position in positions])
                for position, ranking in zip(positions, answers, strict=True):
                    found[position] += ranking
        return [Ranking.from_scores(hits, k) for hits in found]

    def _update(self) -> None:
        """Make an index of all segments that have none, if it is worth it.

        Indices that are at most twice as large are replaced by the new one. So there are few, and each document is
        indexed a logarithmic number of times.
        """
        with self._indexing:
            if self._merger is not None:
                self._merger.join()  # or it would replace what is indexed here
            state = self._current()
            views = {view.segment: view for view in state.views}

            def alive(shard: Shard) -> int:
                return sum(views[segment].documents for segment in shard.segments if segment in views)

            kept = sorted((shard for shard in self._shards if 2 * alive(shard) > shard.documents), key=alive)
            covered = {segment for shard in kept for segment in shard.segments}
            pending = [view for view in state.views if view.segment not in covered]
            documents = sum(view.documents for view in pending)
            names = [name for name, retriever in state.schema.retrievers.items() if retriever.kind == "sparse"]
            if names and documents >= max(1, self._min_documents):
                while kept and alive(kept[0]) <= 2 * documents:
                    pending += [views[segment] for segment in kept[0].segments if segment in views]
                    documents += alive(kept.pop(0))
                kept.append(Shard.build(self._indices, names, pending, self._parameters))
            self._shards = tuple(kept)

    def _remove_stale(self) -> None:
        """Delete the files of indices that are no longer used, unless another process is the writer."""
        used = {shard.name for shard in self._shards}
        stale = [] if self._indices is None else [path for path in self._indices.glob("*") if path.name not in used]
        if stale:
            with contextlib.suppress(IndexLockedError), self._writing():
                for path in stale:
                    shutil.rmtree(path, ignore_errors=True)


def _suits(request: Request) -> bool:
    """Whether Seismic can answer; what is wrong with other requests is found out by the exact search."""
    query, k = request.query, request.k
    if request.filter is not None or not isinstance(query, SparseQuery) or not isinstance(k, int | np.integer):
        return False
    return k >= 1 and not (query.weights < 0).any()


def _folder(location: str | Path | None) -> Path | None:
    """The folder that `location` names; None for RAM."""
    if location is None or isinstance(location, Path):
        return location
    scheme, separator, rest = location.rpartition("://")
    if not separator:
        return checked_path("The place of the index", location)
    if rest == ":memory:":
        return None
    if scheme != "seismic" or not rest.startswith("/"):
        raise InvalidArgumentError(
            f"{redacted(location)!r} is not a place of a Seismic index: it is seismic:///a/folder, with three slashes, "
            "or seismic://:memory:."
        )
    return Path(rest)
