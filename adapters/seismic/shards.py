"""Builds, saves, reads and searches Seismic indexes over segments of the memory backend.

The files of a shard:

    <digest of manifest.json>/manifest.json        the segments, build parameters, terms and files
    <digest of manifest.json>/0.index.seismic      the index of the first sparse retriever, and so on
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import seismic  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.adapters.memory import sparse
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.adapters.memory.sparse import SparseSlice
from hybridsearch.adapters.memory.state import View
from hybridsearch.adapters.memory.threads import WORKERS
from hybridsearch.adapters.seismic import build as builder
from hybridsearch.corpus.files import crc32, damaged, seal, sync_folder
from hybridsearch.errors import BackendError, HybridSearchError, StorageError
from hybridsearch.vectors import SparseQuery

log = logging.getLogger(__name__)

Parameters: TypeAlias = Mapping[str, int | float]
"""The parameters of `SeismicIndex.build_from_dataset`."""

DEFAULTS: Parameters = {"n_postings": 1000, "centroid_fraction": 0.1, "summary_energy": 0.4}
"""The default parameters of a new index."""

_MANIFEST = "manifest.json"
_FORMAT = 1
_ENGINE = version("pyseismic-lsr")

_BATCH = 32
"""The number of queries in one call of Seismic. It holds the interpreter lock until it has answered all of them."""

_STEP = 1 << 16
"""The number of documents or passages that are written for the builder at a time."""

Source: TypeAlias = Segment | int
"""A segment. If the segment is gone, its number of rows."""


class Shard:
    """The Seismic indexes over some segments, one for each sparse retriever.

    Attributes:
        name: Name of its folder.
        segments: Segments that it covers. In the index, their rows are numbered one after the other.
        starts: Number of the first row of each segment.
        documents: Number of documents that were not deleted when it was built.
        indices: Seismic indexes by retriever. A retriever that has negative weights or no weights has no index.
        size: Size of the files in bytes.
    """

    def __init__(
        self, name: str, sources: Sequence[Source], documents: int, indices: Mapping[str, Index], size: int
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
    def load(cls, folder: Path, name: str, manifest: Mapping[str, Any], sources: Sequence[Source]) -> Shard:
        """Read the files of `folder`. Raises OSError or ValueError if Seismic cannot read them."""
        files = {retriever: file for retriever, file in manifest["indices"].items() if file is not None}
        indices = {}
        for retriever, file in files.items():
            _, index_class = builder.classes(len(file["terms"]))
            try:
                engine = index_class.load(str(folder / file["file"]))
            except Exception:
                raise
            except BaseException as error:  # a crash inside Seismic is not an Exception
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                raise ValueError(f"Seismic cannot read the file: {error}") from error
            indices[retriever] = Index(engine, tuple(file["terms"]))
        return cls(name, sources, manifest["documents"], indices, sum(file["size"] for file in files.values()))

    @classmethod
    def build(cls, place: Path | None, names: Sequence[str], views: Sequence[View], parameters: Parameters) -> Shard:
        """Build a shard over the documents of `views` that are not deleted.

        It is saved in a new folder in `place`. If `place` is None, it is not saved.

        Raises:
            BackendError: Seismic failed.
            StorageError: The disk is full or cannot be written.
        """
        started = time.perf_counter()
        with _workplace(place) as work:
            files: dict[str, dict[str, Any] | None] = {}
            for number, name in enumerate(names):
                terms = _write_job(work / str(number), name, views, parameters)
                if terms is None:
                    files[name] = None
                    continue
                _run_builder(work / str(number))
                path = work / f"{number}.index.seismic"
                (work / str(number) / f"{builder.STEM}.index.seismic").rename(path)
                sealed = seal(path)
                files[name] = {"file": path.name, "size": sealed.size, "crc32": sealed.crc32, "terms": terms}
                shutil.rmtree(work / str(number))
            documents = sum(view.documents for view in views)
            manifest = {
                "format": _FORMAT,
                "engine": _ENGINE,
                "parameters": parameters,
                "documents": documents,
                "created": time.time_ns(),
                "parts": [(view.part.name, view.part.rows) for view in views if view.part is not None],
                "indices": files,
            }
            raw = json.dumps(manifest).encode()
            shard = cls.load(work, _digest(raw), manifest, [view.segment for view in views])
            if place is not None:
                (work / _MANIFEST).write_bytes(raw)
                seal(work / _MANIFEST)
                sync_folder(work)
                work.rename(place / shard.name)
                sync_folder(place)
        log.info("Seismic indexed %d documents in %.1f seconds.", documents, time.perf_counter() - started)
        return shard

    def best(
        self, views: Mapping[Segment, View], name: str, query: SparseQuery, rows: NDArray[np.int64], k: int
    ) -> list[tuple[str, float]] | None:
        """The ids and exact scores of the best `k` documents of `rows` that are not deleted.

        With passages, the score of a document is that of its best passage, also if Seismic missed this passage. There
        are more than `k` if scores are equal. The result is None if there are fewer.
        """
        found: list[tuple[View, NDArray[np.int64], NDArray[np.float32]]] = []
        rows = np.unique(rows)
        for segment, start in zip(self.segments, self.starts, strict=True):
            view = views.get(segment)
            if view is None:
                continue
            first, last = np.searchsorted(rows, [start, start + len(segment)])
            own = rows[first:last] - start
            own = own if view.live is None else own[view.live[own]]
            scores = sparse.score(SparseSlice(segment.postings(name), segment.order), query, segment.rows_of(name, own))
            if name in segment.reading:
                scores = np.maximum.reduceat(scores, np.cumsum([0, *segment.counts[own[:-1]]])) if len(own) else scores
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


@dataclass(frozen=True, eq=False)
class Index:
    """A Seismic index. Documents are row numbers, and the term at position t is component t, both as strings.

    The passages of a document have the same number, so Seismic finds a document several times.
    """

    engine: Any
    terms: tuple[str, ...]

    @cached_property
    def components(self) -> dict[str, str]:
        """The name of the component of each term."""
        return {term: str(component) for component, term in enumerate(self.terms)}

    def search(
        self, queries: Sequence[SparseQuery], k: int, query_cut: int, heap_factor: float
    ) -> list[NDArray[np.int64]]:
        """The rows of up to `k` documents for each query. With passages, of the documents of up to `k` passages."""
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
            for hits in answers:  # they come in any order, and an answer without hits has no name
                if hits:
                    found[int(hits[0][0])] = hits
        return [np.array([int(row) for _, _, row in hits], dtype=np.int64) for hits in found]

    def _known(self, query: SparseQuery) -> tuple[list[str], NDArray[np.float32]]:
        """The components and weights of the query. The weights are at most 1, so that no sum overflows."""
        pairs = [
            (self.components[term], weight)
            for term, weight in zip(query.terms, query.weights.tolist(), strict=True)
            if weight and term in self.components
        ]
        weights = np.array([weight for _, weight in pairs])
        return [name for name, _ in pairs], (weights / weights.max(initial=0) if pairs else weights).astype(np.float32)


def read_shards(place: Path, stored: Sequence[View], given: Parameters) -> tuple[list[Shard], Parameters]:
    """The saved shards that can be used, and the build parameters.

    A shard can be used if its files are intact, if it covers segments of `stored`, if no other shard covers them, and
    if it was built with these parameters. The parameters come from `given`, else from the saved shard with the most
    documents, else from DEFAULTS.

    Raises:
        IndexCorruptedError: `place` is a link, which may lead out of the index.
    """
    views = {view.part.name: view for view in stored if view.part is not None}
    parameters = {**DEFAULTS, **given}
    manifests: list[tuple[int, Path, dict[str, Any]]] = []
    if place.is_symlink():
        raise damaged(place, "it is a link, which may lead out of the index")
    for folder in sorted(place.glob("*")):
        if folder.suffix == ".tmp":
            continue
        try:
            manifest = _read_manifest(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s is damaged (%s). Its Seismic index is built again.", folder / _MANIFEST, error)
            continue
        if manifest is not None:
            here = [views[name].documents for name, _ in manifest["parts"] if name in views]
            manifests.append((sum(here), folder, manifest))
    manifests.sort(key=lambda found: (-found[0], -found[2]["created"]))
    if manifests and manifests[0][0]:
        parameters = {**manifests[0][2]["parameters"], **given}
    shards: list[Shard] = []
    covered: set[str] = set()
    for documents, folder, manifest in manifests:
        parts = {name for name, _ in manifest["parts"]}
        if not documents or parts & covered or manifest["parameters"] != parameters:
            continue
        try:
            _check_files(folder, manifest)  # Seismic itself does not check the files that it reads
            segments = [views[name].segment if name in views else rows for name, rows in manifest["parts"]]
            shards.append(Shard.load(folder, folder.name, manifest, segments))
        except (OSError, ValueError) as error:
            log.warning("A Seismic index in %s is damaged (%s). It is built again.", folder, error)
            continue
        covered |= parts
    return shards, parameters


def _write_job(folder: Path, name: str, views: Sequence[View], parameters: Parameters) -> list[str] | None:
    """Write the files that the builder reads. Returns the terms by component, or None if there is nothing to index.

    Seismic keeps 16-bit floats. All values are multiplied by the same power of two, so that the largest just fits.
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
            segment = view.segment
            live = np.arange(len(segment)) if view.live is None else np.flatnonzero(view.live)
            for taken in segment.steps(live, _STEP):
                vectors = part.to_vectors(segment.rows_of(name, taken))
                own = vectors.vocabulary.terms
                renamed = np.fromiter((components.setdefault(t, len(components)) for t in own), np.int32, len(own))
                matrix = vectors.matrix
                shape = (len(vectors), len(components))
                rows = csr_array((matrix.data, renamed[matrix.indices], matrix.indptr.astype(np.int32)), shape=shape)
                rows.sort_indices()
                component_file.write(rows.indices.tobytes())
                value_file.write(np.ldexp(rows.data, 15 - exponent).astype(np.float32).tobytes())
                of_rows = np.repeat(taken, segment.counts[taken]) if name in segment.reading else taken
                numbers.append(of_rows + start)  # all passages of a document have its number
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
    """Run the builder. Raises BackendError if it fails."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", builder.__file__, str(folder)],
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
            f"Seismic could not build its index ({said}). The documents are stored, and are searched exactly: free "
            "memory or disk space, and call refresh() to try again."
        )


@contextlib.contextmanager
def _workplace(parent: Path | None) -> Iterator[Path]:
    """A folder to build in. It is deleted at the end if it was not renamed."""
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
            f"The Seismic index could not be written to {parent or tempfile.gettempdir()} ({error}). The documents are "
            "stored, and are searched exactly: free disk space, and call refresh() to try again."
        ) from error


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a shard. None if another version wrote it.

    Raises OSError, ValueError, KeyError, TypeError, AttributeError or RecursionError if it is damaged.
    """
    raw = (folder / _MANIFEST).read_bytes()
    if _digest(raw) != folder.name:
        raise ValueError("its content has changed since it was written")
    manifest: dict[str, Any] = json.loads(raw)
    if manifest["format"] != _FORMAT or manifest["engine"] != _ENGINE:
        return None
    numbers = [manifest["documents"], manifest["created"], *(rows for _, rows in manifest["parts"])]
    for file in manifest["indices"].values():
        if file is not None:
            numbers += [file["size"], file["crc32"]]
            if not re.fullmatch(r"\d{1,9}\.index\.seismic", file["file"]):
                raise ValueError(f"{file['file']!r:.80} is not the name of an index file")
            terms = file["terms"]
            if not all(isinstance(term, str) for term in terms) or not 0 < len(terms) == len(set(terms)):
                raise ValueError("its terms are not valid")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError("one of its numbers is not valid")
    parameters = manifest["parameters"]
    if parameters.keys() != DEFAULTS.keys() or not all(type(one) in (int, float) for one in parameters.values()):
        raise ValueError("its parameters are not valid")
    if not all(isinstance(name, str) for name, _ in manifest["parts"]):
        raise ValueError("its parts are not valid")
    return manifest


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ValueError if a file has changed since it was written."""
    for file in manifest["indices"].values():
        if file is not None and crc32(folder / file["file"]) != file["crc32"]:
            raise ValueError(f"the checksum of {file['file']} is wrong")


def _digest(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]
