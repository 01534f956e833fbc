"""Approximate search of learned sparse vectors by Seismic (Bruch, Nardini, Rulli and Venturini, SIGIR 2024).

Seismic's time grows much more slowly than the collection, which pays beyond half a million documents. But it has no
updates, no deletes and no filters. So documents and vectors live in the memory backend, in RAM or in its folder, and
Seismic indices are made over its segments, which never change. What they do not cover is searched exactly: documents
that came since the last `refresh`, searches with a filter, weights below 0 in a query or a retriever, and searches for
which Seismic finds fewer than k documents. A document that Seismic finds is a hit if it still is there, and its score
is worked out anew from its stored vector. So every hit has the exact float32 score and the right place among the
others; the one thing that can happen is that a document is missed.

In a folder the indices lie beside the memory backend's files, which stay a complete index of their own:

    seismic/<digest of manifest.json>/manifest.json        the segments, build parameters, terms and files
    seismic/<digest of manifest.json>/0.index.seismic      of the first sparse retriever, and so on
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import seismic  # type: ignore[import-untyped, unused-ignore]
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.adapters.memory import MemoryBackend, kernels
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.adapters.memory.state import State, View
from hybridsearch.adapters.memory.threads import WORKERS
from hybridsearch.adapters.seismic.build import STEM, classes
from hybridsearch.backends import Capabilities, Request, Schema
from hybridsearch.corpus.store import sync_folder
from hybridsearch.errors import BackendError, HybridSearchError, IndexLockedError, InvalidArgumentError, StorageError
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.vectors import SparseQuery

log = logging.getLogger(__name__)

DEFAULTS: Mapping[str, int | float] = {"n_postings": 1000, "centroid_fraction": 0.1, "summary_energy": 0.4}
"""How an index is built where nothing else is said."""

_MANIFEST = "manifest.json"
_FORMAT = 1
_ENGINE = version("pyseismic-lsr")
_SPARE = 16
"""So many documents more than wanted are asked for, as Seismic's own scores come from 16-bit weights."""

_BATCH = 32
"""Queries given to Seismic together; it holds the interpreter lock until all of them are answered."""

_STEP = 1 << 16
"""Documents written for the builder at a time."""


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
        _check_options(query_cut, heap_factor, min_documents, self._given)
        super().__init__(_folder(location), hnsw=hnsw, verify=verify)
        self._query_cut = query_cut
        self._heap_factor = heap_factor
        self._min_documents = min_documents
        self._parameters = {**DEFAULTS, **self._given}
        self._indices = None if self._folder is None else self._folder / "seismic"
        self._shards: tuple[_Shard, ...] = ()
        self._loaded = False
        self._indexing = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        own = super().capabilities
        return replace(own, approximate=own.approximate | {"sparse"})

    def open(self) -> Schema | None:
        """The schema of the index at this place, or None if there is none. Makes Seismic indices that are missing."""
        schema = super().open()
        if schema is not None and not self._loaded:
            with self._indexing:
                self._shards = tuple(self._load_shards(self._current()))
                self._loaded = True
            try:
                self._update()
            except HybridSearchError as error:
                log.warning("Sparse searches stay exact for now: %s", error)
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

    # ------------------------------------------------------------------------------------------------- searching

    def _answer(
        self, state: State, shards: Sequence[_Shard], name: str, k: int, requests: Sequence[Request]
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
            for number, (query, rows) in enumerate(zip(queries, rows_of, strict=True)):
                best = _best(shard, views, name, query, rows, k)
                if best is None:
                    exact[number].extend(present)
                else:
                    found[number].extend(best)
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, left in enumerate(exact):
            alike.setdefault(tuple(map(id, left)), []).append(number)
        for numbers in alike.values():
            if left := exact[numbers[0]]:
                answers = State(state.schema, left).search([requests[number] for number in numbers])
                for number, ranking in zip(numbers, answers, strict=True):
                    found[number] += ranking
        return [Ranking.from_scores(hits, k) for hits in found]

    # -------------------------------------------------------------------------------------------------- indexing

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

            def alive(shard: _Shard) -> int:
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
                kept.append(self._build(names, pending))
            self._shards = tuple(kept)

    def _build(self, names: Sequence[str], views: Sequence[View]) -> _Shard:
        """A new shard over the live documents of `views`, saved where there is a folder."""
        started = time.perf_counter()
        with _workplace(self._indices) as work:
            files: dict[str, dict[str, Any] | None] = {}
            for number, name in enumerate(names):
                terms = _write_job(work / str(number), name, views, self._parameters)
                if terms is None:
                    files[name] = None
                    continue
                _run_builder(work / str(number))
                path = work / f"{number}.index.seismic"
                (work / str(number) / f"{STEM}.index.seismic").rename(path)
                files[name] = {"file": path.name, "size": path.stat().st_size, "crc32": _seal(path), "terms": terms}
                shutil.rmtree(work / str(number))
            documents = sum(view.documents for view in views)
            manifest = {
                "format": _FORMAT,
                "engine": _ENGINE,
                "parameters": self._parameters,
                "documents": documents,
                "created": time.time_ns(),
                "parts": [(view.part.name, view.part.rows) for view in views if view.part is not None],
                "indices": files,
            }
            raw = json.dumps(manifest).encode()
            shard = _Shard.load(work, _digest(raw), manifest, [view.segment for view in views])
            if self._indices is not None:
                (work / _MANIFEST).write_bytes(raw)
                _seal(work / _MANIFEST)
                sync_folder(work)
                work.rename(self._indices / shard.name)
                sync_folder(self._indices)
        log.info("Seismic indexed %d documents in %.1f seconds.", documents, time.perf_counter() - started)
        return shard

    def _load_shards(self, state: State) -> Iterator[_Shard]:
        """The saved shards that are intact and cover segments of `state`, none of them twice."""
        views = {view.part.name: view for view in state.views if view.part is not None}
        manifests: list[tuple[int, Path, dict[str, Any]]] = []
        for folder in sorted(self._indices.glob("*")) if self._indices is not None else ():
            if folder.suffix == ".tmp":
                continue
            try:
                raw = (folder / _MANIFEST).read_bytes()
                if _digest(raw) != folder.name:
                    raise ValueError("its content is not what was written")
                manifest = json.loads(raw)
            except (OSError, ValueError) as error:
                log.warning("%s is damaged (%s), and its index is made again.", folder / _MANIFEST, error)
                continue
            if manifest["format"] == _FORMAT and manifest["engine"] == _ENGINE:
                here = [views[name].documents for name, _ in manifest["parts"] if name in views]
                manifests.append((sum(here), folder, manifest))
        manifests.sort(key=lambda found: (-found[0], -found[2]["created"]))
        if manifests and manifests[0][0]:
            self._parameters = {**manifests[0][2]["parameters"], **self._given}
        covered: set[str] = set()
        for documents, folder, manifest in manifests:
            parts = {name for name, _ in manifest["parts"]}
            if not documents or parts & covered or manifest["parameters"] != self._parameters:
                continue
            try:
                if self._verify:
                    _check_files(folder, manifest)
                segments = [views[name].segment if name in views else rows for name, rows in manifest["parts"]]
                yield _Shard.load(folder, folder.name, manifest, segments)
            except (OSError, ValueError) as error:
                log.warning("A Seismic index in %s is damaged (%s), and is made again.", folder, error)
                continue
            covered |= parts

    def _remove_stale(self) -> None:
        """Delete the files of indices that are no longer used, unless another process is the writer."""
        used = {shard.name for shard in self._shards}
        stale = [] if self._indices is None else [path for path in self._indices.glob("*") if path.name not in used]
        if stale:
            with contextlib.suppress(IndexLockedError), self._writing():
                for path in stale:
                    shutil.rmtree(path, ignore_errors=True)


Source: TypeAlias = Segment | int
"""A segment, or how many rows it had, if it is no longer there."""


class _Shard:
    """Some segments, and for each sparse retriever the Seismic index over them.

    Attributes:
        name: of its folder.
        segments: those that are covered; in the index their rows are numbered one after the other.
        starts: the number of the first row of each.
        documents: how many were live when it was made.
        indices: by retriever; none for a retriever with negative weights, or without any.
        size: of the files, in bytes.
    """

    def __init__(
        self, name: str, sources: Sequence[Source], documents: int, indices: Mapping[str, _Index], size: int
    ) -> None:
        rows = [source if isinstance(source, int) else len(source) for source in sources]
        starts = np.cumsum([0, *rows[:-1]])
        covered = [(s, int(a)) for s, a in zip(sources, starts, strict=True) if isinstance(s, Segment)]
        self.name = name
        self.segments = [segment for segment, _ in covered]
        self.starts = [start for _, start in covered]
        self.documents = documents
        self.indices = indices
        self.size = size

    @classmethod
    def load(cls, folder: Path, name: str, manifest: Mapping[str, Any], sources: Sequence[Source]) -> _Shard:
        """Read the files of `folder`. Raises OSError where Seismic cannot."""
        files = {retriever: file for retriever, file in manifest["indices"].items() if file is not None}
        indices = {
            retriever: _Index(classes(len(file["terms"]))[1].load(str(folder / file["file"])), tuple(file["terms"]))
            for retriever, file in files.items()
        }
        return cls(name, sources, manifest["documents"], indices, sum(file["size"] for file in files.values()))


@dataclass(frozen=True, eq=False)
class _Index:
    """A Seismic index: documents are row numbers, and term t of `terms` is component t, both written as strings."""

    engine: Any
    terms: tuple[str, ...]

    @cached_property
    def components(self) -> dict[str, str]:
        """The name of each term's component."""
        return {term: str(component) for component, term in enumerate(self.terms)}

    def search(
        self, queries: Sequence[SparseQuery], k: int, query_cut: int, heap_factor: float
    ) -> list[NDArray[np.int64]]:
        """For each query the rows of up to `k` documents."""
        string = seismic.get_seismic_string()
        known = [self._known(query) for query in queries]
        components = [np.array(names, dtype=string) for names, _ in known]
        weights = [weights for _, weights in known]
        found: list[list[tuple[str, float, str]]] = [[] for _ in queries]
        if len(queries) == 1:
            found[0] = self.engine.search("0", components[0], weights[0], k, query_cut, heap_factor)
        for start in range(0, len(queries) if len(queries) > 1 else 0, _BATCH):
            some = slice(start, start + _BATCH)
            names = np.arange(len(queries))[some].astype(string)
            answers = self.engine.batch_search(
                names, components[some], weights[some], k, query_cut, heap_factor, num_threads=WORKERS
            )
            for hits in answers:  # in any order; those without hits have no name
                if hits:
                    found[int(hits[0][0])] = hits
        return [np.array([int(row) for _, _, row in hits], dtype=np.int64) for hits in found]

    def _known(self, query: SparseQuery) -> tuple[list[str], NDArray[np.float32]]:
        """The components of the query with weights up to 1, so that no sum overflows."""
        pairs = [
            (self.components[term], weight)
            for term, weight in zip(query.terms, query.weights.tolist(), strict=True)
            if weight and term in self.components
        ]
        weights = np.array([weight for _, weight in pairs])
        return [name for name, _ in pairs], (weights / weights.max(initial=0) if pairs else weights).astype(np.float32)


def _suits(request: Request) -> bool:
    """Whether Seismic can answer; what is wrong with other requests is found out by the exact search."""
    query, k = request.query, request.k
    if request.filter is not None or not isinstance(query, SparseQuery) or not isinstance(k, int | np.integer):
        return False
    return k >= 1 and not (query.weights < 0).any()


def _best(
    shard: _Shard,
    views: Mapping[Segment, View],
    name: str,
    query: SparseQuery,
    rows: NDArray[np.int64],
    k: int,
) -> list[tuple[str, float]] | None:
    """Ids and exact scores of the best `k` (or more, if equal) live documents among `rows`; None if there are fewer."""
    found: list[tuple[View, NDArray[np.int64], NDArray[np.float32]]] = []
    rows = np.unique(rows)
    for segment, start in zip(shard.segments, shard.starts, strict=True):
        view = views.get(segment)
        if view is None:
            continue
        first, last = np.searchsorted(rows, [start, start + len(segment)])
        own = rows[first:last] - start
        own = own if view.live is None else own[view.live[own]]
        postings = segment.postings(name)
        scores = _score(
            postings.indptr, postings.rows, postings.values, postings.columns(query.terms), query.weights, own
        )
        found.append((view, own[scores > 0], scores[scores > 0]))
    scores = np.concatenate([scores for _, _, scores in found])
    if len(scores) < k:
        return None
    least = np.partition(scores, -k)[-k]
    return [
        pair
        for view, own, scores in found
        for pair in zip(view.segment.ids.take(own[scores >= least]), scores[scores >= least].tolist(), strict=True)
    ]


def _score_rows(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    wanted: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The scores of the `wanted` rows, ascending: float32 sums in the order of the query's terms, as in `kernels`."""
    scores = np.zeros(len(wanted), dtype=np.float32)
    for term in range(len(columns)):
        if columns[term] < 0:
            continue
        position, end = indptr[columns[term]], indptr[columns[term] + 1]
        last = rows[end - 1]
        for number in range(len(wanted)):
            if wanted[number] > last:
                break
            position = kernels.seek(rows, position, end, wanted[number], last + 1)
            if rows[position] == wanted[number]:
                scores[number] += weights[term] * values[position]
    return scores


_score = cast(Callable[..., NDArray[np.float32]], njit(nogil=True, cache=True)(_score_rows))


def _write_job(
    folder: Path, name: str, views: Sequence[View], parameters: Mapping[str, int | float]
) -> list[str] | None:
    """Write what the builder reads. Returns the terms by component; None where there is nothing that it can index.

    Seismic keeps 16-bit floats. The values are multiplied by one power of two, such that the largest just fits.
    """
    parts = [view.segment.postings(name) for view in views]
    if min((float(part.values.min(initial=0)) for part in parts), default=0.0) < 0:
        return None
    exponent = int(np.frexp(max(float(part.values.max(initial=0)) for part in parts))[1])
    folder.mkdir()
    components: dict[str, int] = {}
    numbers, lengths, start = [], [], 0
    with (folder / "components.bin").open("wb") as component_file, (folder / "values.bin").open("wb") as value_file:
        for view, part in zip(views, parts, strict=True):
            live = np.arange(len(view.segment)) if view.live is None else np.flatnonzero(view.live)
            for begin in range(0, len(live), _STEP):
                taken = live[begin : begin + _STEP]
                vectors = part.to_vectors(taken)
                own = vectors.vocabulary.terms
                renamed = np.fromiter((components.setdefault(t, len(components)) for t in own), np.int32, len(own))
                matrix = vectors.matrix
                shape = (len(taken), len(components))
                rows = csr_array((matrix.data, renamed[matrix.indices], matrix.indptr.astype(np.int32)), shape=shape)
                rows.sort_indices()
                component_file.write(rows.indices.tobytes())
                value_file.write(np.ldexp(rows.data, 15 - exponent).astype(np.float32).tobytes())
                numbers.append(taken + start)
                lengths.append(np.diff(rows.indptr))
            start += len(view.segment)
    if not components:
        return None
    np.save(folder / "rows.npy", np.concatenate(numbers).astype(np.int64))
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64))
    job = {"terms": len(components), "parameters": dict(parameters)}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return list(components)


def _run_builder(folder: Path) -> None:
    """Raises BackendError where it fails."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "hybridsearch.adapters.seismic.build", str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise BackendError(
            f"Seismic could not make its index ({said}): the documents are stored and searched exactly; "
            "free memory or disk space and call refresh() to try again."
        )


@contextlib.contextmanager
def _workplace(parent: Path | None) -> Iterator[Path]:
    """A folder to build in, gone afterwards if it was not renamed."""
    try:
        if parent is None:
            with tempfile.TemporaryDirectory(prefix="hybridsearch-") as folder:
                yield Path(folder)
            return
        work = parent / f"{uuid.uuid4().hex[:16]}.tmp"
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if isinstance(error, HybridSearchError):
            raise
        raise StorageError(
            f"The Seismic index could not be written to {parent or tempfile.gettempdir()}: {error}; "
            "the documents are stored and searched exactly; free disk space and call refresh() to try again."
        ) from error


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ValueError where a file is not as it was written."""
    for file in manifest["indices"].values():
        if file is not None and _crc32(folder / file["file"]) != file["crc32"]:
            raise ValueError(f"the checksum of {file['file']} is not what was written")


def _seal(path: Path) -> int:
    """Sync a finished file to the disk. Returns its CRC-32."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    return _crc32(path)


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _digest(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]


def _folder(location: str | Path | None) -> Path | None:
    """The folder that `location` names; None for RAM."""
    if location is None or isinstance(location, Path):
        return location
    scheme, separator, rest = location.rpartition("://")
    if not separator:
        return Path(location)
    if rest == ":memory:":
        return None
    if scheme != "seismic" or not rest.startswith("/"):
        raise InvalidArgumentError(
            f"{location!r} is not a place of a Seismic index: it is seismic:///a/folder, with three slashes, "
            "or seismic://:memory:."
        )
    return Path(rest)


def _check_options(query_cut: int, heap_factor: float, min_documents: int, build: Mapping[str, float]) -> None:
    """Raises InvalidArgumentError."""
    if query_cut < 1 or min_documents < 0 or build.get("n_postings", 1) < 1:
        raise InvalidArgumentError(
            "query_cut and n_postings are at least 1 and min_documents at least 0, not "
            f"{query_cut!r}, {build.get('n_postings')!r} and {min_documents!r}."
        )
    shares = {"heap_factor": heap_factor, **{name: build[name] for name in build if name != "n_postings"}}
    for name, share in shares.items():
        if not 0 <= share <= 1 or (name != "heap_factor" and not share):
            raise InvalidArgumentError(f"{name} is a share between 0 and 1, not {share!r}.")
