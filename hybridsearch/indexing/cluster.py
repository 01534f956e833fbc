"""Encodes documents on a Ray cluster, into the same store that one process writes.

    report = hs.encode_on_ray("papers.jsonl", "/shared/encoded", {"dense": hs.Dense("MODEL")})
    hs.copy("/shared/encoded", "opensearch://localhost:9200/papers")

This process, the driver, reads the documents. Each batch of them is a *shard*. A worker encodes a shard with the model
that it has loaded, and writes a finished part into `staging/<name>/`. The name is a digest of the encoders'
fingerprints and of the documents, so the next call finds the parts that a call left that died. When all parts are
there, the driver commits them to the store in one step, in the order of the documents. The store is a folder that all
machines share, or in object storage.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hybridsearch.arguments import number, of_type, shown, whole_number, whole_number_or_none
from hybridsearch.arguments import path as checked_path
from hybridsearch.backends import Capabilities, Schema
from hybridsearch.corpus.files import StoredFile
from hybridsearch.corpus.manifest import PART, Part
from hybridsearch.corpus.parts import dump_metadata
from hybridsearch.corpus.remote import Remote
from hybridsearch.corpus.store import STAGING, CorpusStore, exists
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.errors import (
    BackendError,
    FingerprintMismatchError,
    HybridSearchError,
    InvalidArgumentError,
    MissingExtraError,
    StorageError,
)
from hybridsearch.filters import field_value
from hybridsearch.indexing.adding import Documents, warn_of_duplicates
from hybridsearch.indexing.encoding import IndexEncoders
from hybridsearch.indexing.ingest import IndexReport, SeenIds, batches
from hybridsearch.indexing.staging import FolderStaging, Record, RemoteStaging, Staging
from hybridsearch.messages import redacted
from hybridsearch.passages import Passages
from hybridsearch.progress import progress_bar
from hybridsearch.readers import read_documents
from hybridsearch.vectors import EncodedBatch

_OBJECT_STORE = 100_000_000
"""Bytes of the object store of a Ray that is started here. Only documents that wait for a worker are in it."""

_SHARED = ("s3", "gs", "az")
"""Schemes of object storage into which workers write. The Hugging Face Hub makes a commit for each file."""

_MOST_DEATHS = 10
"""Number of workers, more than there are, that may die one after the other while no shard is finished."""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A Ray cluster, and the workers to start on it.

    Args:
        address: Address of a running cluster, such as `"ray://head:10001"` or `"head:6379"`. None for the address in
            the environment variable `RAY_ADDRESS`. Without it, Ray is started on this machine, reachable from this
            machine only, and ended afterwards. If the program has called `ray.init`, that cluster is used.
        workers: Number of workers. Each loads the models once. None for as many as the cluster has room for. Give a
            number if the cluster grows on demand.
        cpus: Number of CPU cores that a worker reserves. A model on a CPU computes with this many threads, and with one
            at least, unless the machine's environment sets `OMP_NUM_THREADS`.
        gpus: Number of GPUs that a worker reserves. `0.5` puts two workers on one GPU.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> RayCluster(workers=8, cpus=2)
    RayCluster(address=None, workers=8, cpus=2, gpus=0.0)
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not (self.address is None or (isinstance(self.address, str) and ":" in self.address)):
            raise InvalidArgumentError(
                "The address of a Ray cluster is a text such as 'ray://head:10001' or 'head:6379', not "
                f"{shown(self.address)}."
            )
        whole_number_or_none("workers", self.workers)
        number("cpus", self.cpus, least=0)
        number("gpus", self.gpus, least=0)


def encode_on_ray(
    documents: Documents,
    folder: str | Path,
    retrievers: Mapping[str, Encoder],
    *,
    passages: Passages | None = None,
    cluster: RayCluster | None = None,
    batch_size: int = 1024,
    show_progress_bar: bool | None = None,
) -> IndexReport:
    """Encode documents on a Ray cluster into a folder, which is then an index that `hs.open` and `hs.copy` read.

    The folder holds the same documents and vectors as after `index` in one process. After a crash of a worker, a
    machine or this process, make the same call again: shards that are finished are not encoded again.

    Args:
        documents: Documents or dicts, a table, or the path of a file or folder, as in `HybridSearch.index`. The rows of
            a Ray Data pipeline are `dataset.iter_rows()`.
        folder: Folder of the index, which all machines of the cluster see under this path, or a URL of object storage
            such as `"s3://bucket/encoded"`, for which all machines need credentials. A document in it is replaced if
            `documents` has the same id with other content.
        retrievers: Encoders by name, as in `HybridSearch`. The machines of the cluster load a model by its name, and
            compare its fingerprint. So a folder or name of a model must be found on each of them.
        passages: Passages to split long documents into. None for whole documents.
        cluster: The cluster and its workers. None for `RayCluster()`.
        batch_size: Number of documents of a shard, which one worker encodes and writes as one part.
        show_progress_bar: Whether to show a progress bar. None shows one in a terminal.

    Returns:
        Counts of encoded and unchanged documents, the ids that came twice, and notes. Documents of shards that an
        earlier call finished count as `indexed`, too.

    Raises:
        MissingExtraError: Ray is not installed.
        DocumentError: A document is not usable.
        EncodingError: A model gives NaN or infinity.
        FingerprintMismatchError: The folder was made with other encoders, or a machine has another model.
        IndexLockedError: Another process writes to the folder.
        BackendError: Workers die again and again, or the cluster is lost.
        StorageError: A worker cannot write to the folder, or the driver does not see what it wrote.
        InvalidArgumentError: The cluster has no room for a worker, or an argument is not allowed.

    >>> import hybridsearch as hs
    >>> report = hs.encode_on_ray("papers.jsonl", "encoded", {"bm25": hs.BM25()})  # doctest: +SKIP
    >>> hs.open("encoded").search("wing")  # doctest: +SKIP
    """
    encoders = IndexEncoders(retrievers, passages)
    place = SharedPlace.of(folder)
    return encode_shards(
        documents, place, encoders, encoders.make_schema({}), cluster or RayCluster(), batch_size, show_progress_bar
    )


@dataclass(frozen=True, slots=True)
class SharedPlace:
    """A place that the driver and all workers reach.

    Attributes:
        folder: The shared folder, or the folder of this process that holds the copy of the object storage.
        remote: The object storage. None for a shared folder.
        staging: Where workers put finished parts.
    """

    folder: Path
    remote: Remote | None
    staging: Staging

    @classmethod
    def of(cls, place: str | Path) -> SharedPlace:
        """The place of a folder or of a URL of object storage.

        Raises:
            InvalidArgumentError: It is neither.
        """
        scheme, mark, _ = str(place).partition("://")
        if mark and scheme in _SHARED:
            remote = Remote(str(place))
            return cls(remote.folder, remote, RemoteStaging(str(place), remote))
        if mark or str(place) == "memory":
            raise InvalidArgumentError(
                "A cluster encodes into a folder that all its machines share, or into object storage such as "
                f"'s3://bucket/encoded', not into {redacted(place)!r}: encode there, then copy it with hs.copy "
                "(hybridsearch copy)."
            )
        folder = checked_path("folder", place).absolute()
        return cls(folder, None, FolderStaging(folder / STAGING))

    def store(self, schema: Schema) -> CorpusStore:
        """The store there. It is made with `schema` if there is none."""
        if self.remote is not None:
            self.remote.pull()
        if exists(self.folder):
            return CorpusStore.open(self.folder, verify=False, remote=self.remote)
        return CorpusStore.create(self.folder, schema, remote=self.remote)


def encode_shards(
    documents: Documents,
    place: SharedPlace,
    encoders: IndexEncoders,
    schema: Schema,
    cluster: RayCluster,
    batch_size: int,
    show_progress_bar: bool | None,
) -> IndexReport:
    """Encode documents into the store at `place`, which is made with `schema` if it is new. See `encode_on_ray`."""
    of_type("cluster", cluster, RayCluster, "an hs.RayCluster such as hs.RayCluster(workers=8)")
    started, batch_size = time.perf_counter(), whole_number("batch_size", batch_size)
    reader = read_documents(documents)
    with closing(place.store(schema)) as store:
        store.lock()
        _check_encoders(schema, store)
        plan = _Plan(store, encoders)
        finished: dict[str, Record] = {}
        with progress_bar("Encoding", reader, show_progress_bar) as advance:

            def missing() -> Iterator[_Shard]:
                """The shards that nobody has encoded yet."""
                for shard in plan.shards(batches(reader, batch_size), batch_size):
                    if record := place.staging.take(shard.name):
                        finished[shard.name] = record
                        advance(len(shard.documents))
                    else:
                        yield shard

            shards = missing()
            for first in islice(shards, 1):  # no cluster is needed if all parts are there
                setup = (place.staging, dict(encoders.given), encoders.passages, store.schema)
                with _connected(cluster) as ray:
                    for shard, record in _Workers(ray, cluster, setup).encode(chain([first], shards)):
                        finished[shard.name] = _taken(place.staging, record)
                        advance(len(shard.documents))
        _commit(store, place.staging, [finished[name] for name in plan.names], plan.replaced)
        place.staging.clear()
    warn_of_duplicates([*plan.seen.twice])
    encoders.schema = schema
    read, cut = (sum((Counter(getattr(one, what)) for one in finished.values()), Counter()) for what in ("read", "cut"))
    notes = [*reader.notes, reader.skipped_note, *(encoders.truncation_note(n, cut[n], read[n]) for n in cut)]
    seconds = time.perf_counter() - started
    notes = [*filter(None, notes), *plan.field_notes()]
    return IndexReport(plan.new, plan.unchanged, (*plan.seen.twice,), seconds, 0, tuple(notes), dict(cut))


def _check_encoders(schema: Schema, store: CorpusStore) -> None:
    """Raises FingerprintMismatchError if the store was made with other encoders or passages."""

    if _made_by(schema) != _made_by(store.schema):
        raise FingerprintMismatchError(
            f"The index in {store.folder} was made with other encoders or passages: choose another folder."
        )


def _made_by(schema: Schema) -> str:
    """Everything that the content of a part depends on, beside its documents."""
    fingerprints = {name: str(one.fingerprint) for name, one in schema.retrievers.items()}
    return json.dumps([fingerprints, schema.passages and dict(schema.passages)], sort_keys=True)


class Stored:
    """The documents of a store, as `Transfer` reads them: one part after the other, without search arrays in memory."""

    capabilities = Capabilities(persistent=True, passages=True)

    def __init__(self, folder: Path) -> None:
        self._store = CorpusStore.open(folder)

    def open(self) -> Schema | None:
        """The schema of the store."""
        return self._store.schema

    def count(self) -> int:
        """The number of documents."""
        return len(self._store)

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors. A batch is a row group of a part, of whatever size."""
        return self._store.batches()


# ------------------------------------------------------------------------------------------------- what to encode


@dataclass(frozen=True, slots=True)
class _Shard:
    name: str
    documents: Sequence[Document]


class _Plan:
    """Splits documents into shards, in the batches in which one process would encode them."""

    def __init__(self, store: CorpusStore, encoders: IndexEncoders) -> None:
        self.new = self.unchanged = 0
        self.names: dict[str, None] = {}
        self.seen = SeenIds()
        self._stored = _digests_of(store)
        self._changed: set[str] = set()
        self._made_by = _made_by(store.schema).encode()
        self._missed = {name: {*getattr(one, "metadata_fields", ())} for name, one in encoders.given.items()}

    def shards(self, source: Iterable[list[Document]], size: int) -> Iterator[_Shard]:
        """The shards of all documents that the store does not have. Ids that come again are in shards at the end."""
        again: dict[str, Document] = {}
        for batch in source:
            known = self.seen.add([document.id for document in batch])
            again.update((document.id, document) for document in batch if document.id in known)
            yield from self._shard([document for document in batch if document.id not in known], compare=True)
            if len(again) >= size:
                yield from self._shard([*again.values()], compare=False)
                again = {}
        yield from self._shard([*again.values()], compare=False)

    @property
    def replaced(self) -> set[str]:
        """The ids that may be in an earlier part, too."""
        return self._changed.union(self.seen.twice)

    def field_notes(self) -> Iterator[str]:
        """A sentence for each metadata field that a retriever reads and that no document has."""
        for name, fields in self._missed.items():
            for path in sorted(fields) if self.new and not len(self._stored) else ():
                yield f"{name} reads metadata.{path}, but no document has this field."

    def _shard(self, documents: list[Document], *, compare: bool) -> Iterator[_Shard]:
        digests = [_digest(d.id, d.title, d.text, dump_metadata(d)) for d in documents]
        if compare and len(self._stored):
            there = _isin(np.array(digests, dtype="S16"), self._stored)
            self.unchanged += int(there.sum())
            rows = np.flatnonzero(~there).tolist()
            documents = [documents[row] for row in rows]
            digests = [digests[row] for row in rows]
            self._changed.update(document.id for document in documents)
        if not documents:
            return
        self.new += len(documents)
        for fields in self._missed.values():
            fields -= {path for path in fields if any(field_value(one, path) is not None for one in documents)}
        name = hashlib.blake2b(self._made_by + b"".join(digests), digest_size=16).hexdigest()
        self.names.pop(name, None)  # the last of two equal shards counts
        self.names[name] = None
        yield _Shard(name, documents)


def _digest(*strings: str) -> bytes:
    return hashlib.blake2b(json.dumps(strings).encode(), digest_size=16).digest()


def _digests_of(store: CorpusStore) -> NDArray[np.bytes_]:
    """The sorted digests of all documents of a store. They need 16 bytes a document."""
    found = []
    for part in store.parts:
        live = store.tombstones(part)
        table = pq.read_table(store.path(part), columns=["id", "title", "text", "metadata"]).to_pydict()
        digests = np.array([_digest(*row) for row in zip(*table.values(), strict=True)], dtype="S16")
        found.append(digests if live is None else digests[live])
    return np.sort(np.concatenate([np.empty(0, dtype="S16"), *found]))


def _isin(digests: NDArray[np.bytes_], among: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(among, digests), len(among) - 1)
    found: NDArray[np.bool_] = among[places] == digests
    return found


# ---------------------------------------------------------------------------------------------- what is committed


def _taken(staging: Staging, record: Record) -> Record:
    """The record of a part that a worker has just finished. Its file is here, if it was in object storage."""
    if isinstance(staging, RemoteStaging) and staging.take(record.name) is None:
        raise StorageError(f"The part {record.name} was damaged or lost in the object storage: run this again.")
    return record


def _commit(store: CorpusStore, staging: Staging, records: Sequence[Record], replaced: set[str]) -> None:
    """Add the finished parts to the store. Older rows of the ids in `replaced` are deleted."""
    taken, new = {part.name for part in store.parts}, []
    for record in records:
        name = record.name if record.name not in taken else f"{record.name}-{uuid.uuid4().hex[:8]}"
        part = Part(name, record.rows, {PART: StoredFile(record.size, record.crc32)})
        staging.adopt(store, part, record)
        new.append(part)
    parts = _without_older([*store.parts, *new], replaced, store) if replaced else [*store.parts, *new]
    if tuple(parts) != store.parts:
        store.commit(parts)


def _without_older(parts: Sequence[Part], replaced: set[str], store: CorpusStore) -> list[Part]:
    """The parts, with deleted rows for the ids that a later part has, too."""
    later: set[str] = set()
    kept: list[Part] = []
    for part in reversed(parts):
        ids = pq.read_table(store.path(part), columns=["id"]).column("id").to_pylist()
        live = store.tombstones(part)
        old = np.array([id in later for id in ids]) & (True if live is None else live)
        if old.any():
            live = ~old if live is None else live & ~old
        if live is None or live.any():
            kept.append(store.with_tombstones(part, live) if live is not None and old.any() else part)
        later.update(replaced.intersection(ids))
    return kept[::-1]


# ---------------------------------------------------------------------------------------------------- the cluster

_Ray: TypeAlias = Any
"""The module `ray`."""

_Setup: TypeAlias = tuple[Staging, dict[str, Encoder], Passages | None, Schema]
"""What a worker needs to know: where parts go, the encoders, the passages and the schema."""


class _Worker:
    """Runs on the cluster. It loads its models once, and encodes one shard after the other."""

    def set_up(self, setup: _Setup) -> None:
        """Compare the encoders of this machine with the fingerprints of the index."""
        self._staging, given, passages, self._schema = setup
        self._encoders = IndexEncoders(given, passages)
        self._encoders.schema = self._schema
        for name in given:
            self._encoders.verified(name)

    def encode(self, name: str, documents: Sequence[Document]) -> Record:
        """Encode a shard and write its part, unless another worker has written it."""
        there = self._staging.has(name)
        return there or self._staging.write(name, self._encoders.encode(documents), self._schema)


class _Workers:
    """The workers on the cluster. A worker that dies is replaced, and its shard goes to another one."""

    def __init__(self, ray: _Ray, cluster: RayCluster, setup: _Setup) -> None:
        self._ray, self._cluster = ray, cluster
        self._setup = ray.put(setup)
        actor = ray.remote(_Worker).options(num_cpus=cluster.cpus, num_gpus=cluster.gpus)
        self._start: Callable[[], Any] = actor.remote
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Shard | None]] = {}  # workers without a shard are starting

    def encode(self, shards: Iterator[_Shard]) -> Iterator[tuple[_Shard, Record]]:
        """Encode the shards. They come in the order in which they are finished."""
        again: deque[_Shard] = deque()
        deaths = 0
        try:
            following = next(shards, None)
            for _ in range(_room(self._ray, self._cluster)) if following else ():
                self._add()
            while following or again or any(shard for _, shard in self._busy.values()):
                while self._idle and (shard := again.popleft() if again else following):
                    worker = self._idle.pop()
                    self._busy[worker.encode.remote(shard.name, shard.documents)] = worker, shard
                    following = next(shards, None) if shard is following else following
                (ready, *_), _ = self._ray.wait([*self._busy], num_returns=1)
                worker, done = self._busy.pop(ready)
                try:
                    record = self._result(ready)
                except self._ray.exceptions.RayActorError as error:
                    deaths += 1
                    if deaths > _MOST_DEATHS + len(self._busy):
                        raise BackendError(
                            f"{deaths} workers of the Ray cluster died one after the other, and none finished a shard. "
                            f"The parts so far are kept. The last one died so: {' '.join(str(error).split()):.400}"
                        ) from error
                    again.extend([done] if done else [])
                    self._end(worker)
                    self._add()
                    continue
                self._idle.append(worker)
                if done and record:
                    deaths = 0
                    yield done, record
        finally:
            for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
                self._end(worker)

    def _add(self) -> None:
        worker = self._start()
        self._busy[worker.set_up.remote(self._setup)] = worker, None

    def _result(self, ready: Any) -> Record | None:
        """The result of a call. An error of the worker is raised as it was there."""
        try:
            result: Record | None = self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, HybridSearchError):
                raise cause from error
            raise
        return result

    def _end(self, worker: Any) -> None:
        with suppress(Exception):  # it may be dead already
            self._ray.kill(worker, no_restart=True)


def _room(ray: _Ray, cluster: RayCluster) -> int:
    """The number of workers to start. Raises InvalidArgumentError if the cluster has no room for one."""
    if cluster.workers is not None:
        return cluster.workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    if not any(wanted.values()):
        raise InvalidArgumentError("Workers that reserve no CPU and no GPU need a number: give workers.")
    room = sum(min(int(node.get(kind, 0) / need) for kind, need in wanted.items() if need) for node in nodes)
    if not room:
        raise InvalidArgumentError(
            f"No machine of the Ray cluster has room for a worker with {cluster.cpus:g} CPU and {cluster.gpus:g} GPU: "
            "let a worker reserve less, or give a number of workers if the cluster grows on demand."
        )
    return room


@contextmanager
def _connected(cluster: RayCluster) -> Iterator[_Ray]:
    """The module `ray`, connected to the cluster. The connection is closed at the end if it was made here."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if not address:  # before the import, which reads them
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux, too: listen on loopback only
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "Encoding on a cluster") from error
    if ours := not ray.is_initialized():
        cores = max(os.cpu_count() or 1, math.ceil((cluster.workers or 0) * cluster.cpus))
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        local = {"include_dashboard": False, "num_cpus": cores, "object_store_memory": _OBJECT_STORE, **quiet}
        try:
            if not address:
                ray.init("local", **local)
            else:  # a Ray client takes no other arguments
                ray.init(address, **({} if address.startswith("ray://") else quiet))
        except Exception as error:  # Ray raises many kinds
            raise BackendError(
                f"The Ray cluster at {redacted(address or 'this machine')} cannot be used ({error}): check the address "
                "and that the cluster runs the same version of Ray and Python."
            ) from error
    try:
        yield ray
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError):
            raise
        raise BackendError(
            f"The Ray cluster failed ({' '.join(str(error).split()):.400}). The parts so far are kept: run this again."
        ) from error
    finally:
        if ours:
            ray.shutdown()
