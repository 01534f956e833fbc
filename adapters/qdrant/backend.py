"""Qdrant: embedded in this process, or a server.

A collection holds a point for each document: its dense vectors, its lexical and sparse vectors as Qdrant's sparse
ones, and the payload that `payload` describes; `points` says how terms become numbers, `search`
how answers become rankings. What an index must remember is in the collection's metadata.

**BM25.** Documents are weighed when they are written, with the average length of the schema or, where that has none,
of the first batch. The idf is that of the documents there are at the time of a search: Qdrant's own, which is the
"lucene" variant, in an embedded engine or a single shard; else from counts, at one more request for each term, which
are on their way at once.
Qdrant leaves documents without a vector out of its idf's N, so one without terms gets a vector along dimension 0, which
is no term.

**Cosine** is the inner product of vectors of length 1, which is what they are given as; Qdrant's own "Cosine" would
store them normalised once more, and not as they were.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from hybridsearch.adapters.checks import check_batch_size, closed, not_opened
from hybridsearch.adapters.qdrant.connection import Call, Connection, Steps
from hybridsearch.adapters.qdrant.filters import compile_filter
from hybridsearch.adapters.qdrant.payload import INDEXES, from_payload, point_id, to_payload
from hybridsearch.adapters.qdrant.place import Place, check_name
from hybridsearch.adapters.qdrant.points import (
    MAX_LOOK_UP,
    METADATA_KEY,
    Index,
    Quantization,
    Terms,
    dense_params,
    from_rows,
    is_ours,
    length_of,
    quantization_of,
    sparse_rows,
    sparse_vector,
    terms_of,
    used_terms,
    weigh,
)
from hybridsearch.adapters.qdrant.refusals import RefusedError
from hybridsearch.adapters.qdrant.search import Searcher
from hybridsearch.backends import Capabilities, Request, Schema, check_batch
from hybridsearch.documents import Document
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidArgumentError,
)
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import DenseVectors, EncodedBatch, Vectors
from hybridsearch.weighting import BM25Weighting

T = TypeVar("T")

MAX_POINTS = 256
"""Most documents in one request."""

MAX_CHARACTERS = 6_000_000
"""A request ends early once it is about this long, below the server's limit of 32 MB whatever the script. Where a proxy
takes less, requests become shorter."""

_MOVES = 8  # of an alias, that one search follows


class QdrantBackend:
    """A collection of Qdrant as an index.

    The embedded engine is exact and made for up to some 20,000 documents; one process at a time may use its folder. A
    server searches dense vectors by HNSW. Any number of threads and processes may read and write an index on a server.

    Args:
        location: `qdrant://:memory:/name` (gone with this object), `qdrant:///a/folder/name`, `qdrant://host:6333/name`
            (http) or `qdrant+https://host:6333/name`.
        api_key: of a server; else the one in the URL (`qdrant+https://:KEY@host/name`), else that of the environment
            variable HYBRIDSEARCH_QDRANT_API_KEY.
        verify: False to trust any certificate.
        ca_file: the certificates of a private authority, PEM.
        timeout: seconds for one request.
        dense: how a server searches dense vectors: "hnsw", or "exact", which compares with all of them.
        quantization: makes dense vectors on a server four ("int8"), 16 ("product") or 32 times ("binary") smaller in
            memory; the best candidates are scored again by the full vectors. None for what the index was made with,
            none for a new one.
        shards, replicas: of a new index on a server; None for the server's default number of replicas.
        senders: how many requests `load` keeps on the way to a server.

    Raises:
        InvalidArgumentError: the location or an option is outside its range.

    >>> backend = QdrantBackend("qdrant://:memory:/papers")
    >>> backend.create(Schema({}))
    >>> backend.upsert(EncodedBatch([Document("1", "Lift", metadata={"year": 1958})], {}))
    >>> backend.count(Filter.parse({"year": {"$lt": 1960}})), backend.fetch(["1"])[0].text
    (1, 'Lift')
    >>> backend.close()
    """

    def __init__(
        self,
        location: str,
        *,
        api_key: str | None = None,
        verify: bool = True,
        ca_file: str | Path | None = None,
        timeout: float = 60.0,
        dense: Literal["hnsw", "exact"] = "hnsw",
        quantization: Quantization | None = None,
        shards: int = 1,
        replicas: int | None = None,
        senders: int = 4,
    ) -> None:
        place = Place.parse(location)
        for name, value, least in (("shards", shards, 1), ("replicas", replicas or 1, 1), ("senders", senders, 1)):
            if not isinstance(value, int) or value < least:
                raise InvalidArgumentError(f"{name} is a whole number of at least {least}, not {value!r}.")
        if not timeout > 0:
            raise InvalidArgumentError(f"timeout is a number of seconds above 0, not {timeout!r}.")
        if dense not in ("hnsw", "exact"):
            raise InvalidArgumentError(f"dense is 'hnsw' or 'exact', not {dense!r}.")
        if quantization is not None and (quantization not in get_args(Quantization) or place.url is None):
            raise InvalidArgumentError(
                f"quantization={quantization!r} is not known here: a server has 'int8', 'product' and 'binary', the "
                "embedded Qdrant has none."
            )
        self._place = place
        self._connection = Connection(place, api_key=api_key, verify=verify, ca_file=ca_file, timeout=timeout)
        self._dense, self._quantization = dense, quantization
        self._shards, self._replicas, self._senders = shards, replicas, senders
        self._max_characters = MAX_CHARACTERS
        self._index: Index | None = None
        self._terms: Terms | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"QdrantBackend({self._place.shown!r})"

    @property
    def capabilities(self) -> Capabilities:
        hnsw = not self._connection.embedded and self._dense == "hnsw"
        return Capabilities(
            persistent=self._place.url is not None or self._place.folder is not None,
            approximate=frozenset({"dense"}) if hnsw else frozenset(),
            score_tolerance={"lexical": 1e-5, "sparse": 1e-5, "dense": 1e-5},  # float32 arithmetic
            atomic_batches=False,
            live_average=False,
        )

    # ------------------------------------------------------------------------------------------- opening, closing

    def open(self) -> Schema | None:
        """The schema of the index at this place, or None if there is none.

        Raises:
            IndexCorruptedError: the index is of another version of hybridsearch, or its metadata are damaged.
            IndexLockedError: another process uses the folder.
            BackendError: the server cannot be reached, refuses the key, or is too old; or the collection is not an
                index of hybridsearch.
        """
        self._check_open()
        if self._index is None and self._connection.exists():
            self._index = self._connection.run(self._read_index())
        return None if self._index is None else self._index.schema

    def create(self, schema: Schema) -> None:
        """Make an empty index.

        Raises:
            IndexExistsError: there is one, or another collection of this name.
            InvalidArgumentError: a dense retriever lacks its dimensions or metric.
            IndexLockedError, BackendError: as in `open`.
        """
        self._check_open()
        if self._index is not None:
            raise IndexExistsError(f"There is an index at {self._place.shown} already: choose another name.")
        self._index = self._connection.run(self._create(schema))

    def close(self) -> None:
        """Release the connection, and the folder of an embedded engine. Idempotent."""
        self._closed = True
        self._index = None
        self._connection.close()

    async def aclose(self) -> None:
        """`close`, also of what `asearch` has opened in this event loop."""
        self._closed = True
        self._index = None
        await self._connection.aclose()

    # --------------------------------------------------------------------------------------------------- writing

    def upsert(self, batch: EncodedBatch) -> None:
        """Add documents, replacing those with the same id; searchable when it returns.

        Raises:
            InvalidArgumentError: the batch does not fit the schema, or has an id twice. Nothing is stored.
            BulkIndexError: some documents were refused; all others are stored.
            BackendError: the server refused or could not be reached. A part may be stored; the call can be repeated.
        """
        index = self._pinned()
        check_batch(batch, index.schema)
        _, parts = self._connection.run(self._prepare(index, batch))
        _report([refused for part in parts for refused in self._connection.run(self._store(index, part))])

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """`upsert` each batch, with `senders` requests on the way to a server at once.

        Raises:
            InvalidArgumentError, BulkIndexError, BackendError: as `upsert`; what was on the way is waited for.
        """
        index = self._pinned()
        if self._connection.embedded:
            for batch in batches:
                self.upsert(batch)
            return
        pending: set[Future[list[tuple[str, str]]]] = set()
        refused: list[tuple[str, str]] = []

        def collect(when: str) -> None:
            nonlocal pending
            done, pending = wait(pending, return_when=when)
            for sent in done:
                refused.extend(sent.result())

        with ThreadPoolExecutor(self._senders, thread_name_prefix="hybridsearch-load") as pool:
            for batch in batches:
                check_batch(batch, index.schema)
                index, parts = self._connection.run(self._prepare(index, batch))
                for part in parts:
                    pending.add(pool.submit(self._connection.run, self._store(index, part)))
                    if len(pending) >= 2 * self._senders:
                        collect(FIRST_COMPLETED)
                collect(ALL_COMPLETED)  # so that a document that comes again in a later batch is replaced
        _report(refused)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; unknown ids are ignored. Returns how many were there."""
        index = self._pinned()
        points = [point_id(id) for id in dict.fromkeys(ids)]
        return sum(
            self._connection.run(self._delete(index, points[start : start + MAX_LOOK_UP]))
            for start in range(0, len(points), MAX_LOOK_UP)
        )

    def refresh(self) -> None:
        """Nothing waits: what was upserted and deleted is searchable at once."""
        self._current()

    # --------------------------------------------------------------------------------------------------- reading

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents, in the order of `ids`; None for an unknown id."""
        found = self._connection.run(self._searcher().fetch(ids))
        return [found.get(id) for id in ids]

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests, in order, in one round trip.

        There are more where a term is new to this object or in no document, where an answer's last document ties with
        the next, and where idf comes from counts (see the module). By an alias that was moved, what it means now
        answers.

        Raises:
            InvalidArgumentError: a retriever is unknown, or a query does not fit it.
        """
        self._current()
        return self._connection.run(self._asking(lambda searcher: searcher.search(requests))) if requests else []

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        """`search`; on a server without a thread. Cancelling it frees its connection."""
        self._current()
        return await self._connection.arun(self._asking(lambda searcher: searcher.search(requests))) if requests else []

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """For each id, what each matched term adds to its raw score, as the engine itself adds it.

        Raises:
            InvalidArgumentError: the retriever is dense or unknown.
        """
        distinct = list(dict.fromkeys(ids))
        found = self._connection.run(self._asking(lambda searcher: searcher.explain(request, distinct)))
        return [dict(found.get(id, {})) for id in ids]

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors, of one index. Those that come or go meanwhile may be in it or not."""
        check_batch_size(batch_size)
        self._current()
        return self._scan(batch_size)

    def count(self, filter: Filter | None = None) -> int:
        """How many documents there are, or how many of them `filter` lets through."""
        return self._connection.run(self._searcher().count(None if filter is None else compile_filter(filter)))

    def describe(self) -> dict[str, Any]:
        """Figures for people: where the index is, its engine, how many documents it has, and how it stores them."""
        index = self._current()
        info = self._connection.run(_one(self._call("get_collection")))
        embedded = self._connection.embedded
        return {
            "location": self._place.shown,
            "engine": "qdrant, embedded" if embedded else f"qdrant {self._connection.version}",
            "documents": self.count(),
            "status": str(getattr(info.status, "value", info.status)),
            "shards": info.config.params.shard_number or 1,
            "replicas": info.config.params.replication_factor or 1,
            "options": {
                "dense": "exact" if embedded else self._dense,
                "quantization": quantization_of(info.config.params),
                **({} if embedded else {"hnsw": info.config.hnsw_config.model_dump(exclude_none=True)}),
            },
            "terms": index.terms,
            "idf": {
                name: "by the engine" if name in index.idf else "from counts"
                for name, retriever in index.schema.retrievers.items()
                if retriever.kind == "lexical"
            },
        }

    # ----------------------------------------------------------------------------------------------------- aliases

    def publish(self, alias: str, drop_old: bool = True) -> str | None:
        """Let the name `alias` mean this index, in one step; `qdrant://.../alias` then opens it.

        What is opened by the alias already goes on with this index, unless its retrievers are others: then it raises
        FingerprintMismatchError until it is opened again.

        Returns:
            The collection that `alias` meant until now, deleted with `drop_old`; None if there was none.

        Raises:
            IndexExistsError: `alias` is the name of a collection itself.
            InvalidArgumentError: it cannot be a name.
            BackendError: it means a collection that hybridsearch did not make; nothing was changed.
        """
        self._current()
        check_name(alias)
        return self._connection.run(self._publish(alias, drop_old))

    # ------------------------------------------------------------------------------------------ opening, creating

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    def _current(self) -> Index:
        self._check_open()
        if self._index is None:
            raise not_opened()
        return self._index

    def _pinned(self) -> Index:
        """The index that one call writes to or reads whole, whatever happens to an alias meanwhile."""
        if self._current().collection != self._place.collection:
            self._connection.run(self._follow())
        return self._current()

    def _asking(self, ask: Callable[[Searcher], Steps[T]]) -> Steps[T]:
        """What `ask` gives; where the name means another index than before, what it gives for that one."""
        attempt = 0
        while True:
            attempt += 1
            searcher = self._searcher()
            try:
                return (yield from ask(searcher))
            except (RefusedError, IndexNotFoundError):
                yield from self._follow()
                if attempt == _MOVES or self._current().mark == searcher.index.mark:
                    raise

    def _follow(self) -> Steps[None]:
        """Look up what the name means, which is another index where an alias was moved."""
        known, found = self._current(), (yield from self._read_index())
        if found is not None and found.mark != known.mark:
            known.check_same_vectors(found, self._place.shown)
            self._index = found

    def _searcher(self) -> Searcher:
        index = self._current()
        return Searcher(self._place.collection, index, self._numbering(index), self._connection.embedded, self._dense)

    def _numbering(self, index: Index) -> Terms:
        terms = self._terms
        if terms is None or terms.mark != index.mark:
            terms = self._terms = Terms(index)
        return terms

    def _call(self, method: str, **arguments: Any) -> Call:
        return Call(method, {"collection_name": self._place.collection, **arguments})

    def _read_index(self) -> Steps[Index | None]:
        if not (yield self._call("collection_exists")):
            return None
        info = yield self._call("get_collection")
        index = Index.from_metadata(info.config.metadata, self._place.shown)
        made, asked = quantization_of(info.config.params), self._quantization
        if asked not in (None, made) and any(r.kind == "dense" for r in index.schema.retrievers.values()):
            raise InvalidArgumentError(
                f"The index at {self._place.shown} was made with quantization={made!r}, not {asked!r}: leave "
                "quantization out, or index the documents again under another name."
            )
        return index

    def _create(self, schema: Schema) -> Steps[Index]:
        name = self._place.collection
        if (yield self._call("collection_exists")):
            raise IndexExistsError(f"There is a collection at {self._place.shown} already: choose another name.")
        unknown = [retriever for retriever, r in schema.retrievers.items() if r.kind not in self.capabilities.kinds]
        if unknown:
            raise InvalidArgumentError(
                f"Qdrant stores lexical, sparse and dense retrievers, not {', '.join(map(repr, unknown))} of kind "
                f"{schema.retrievers[unknown[0]].kind!r}: take BM25 in place of an engine's own."
            )
        own_idf = self._connection.embedded or self._shards == 1
        weighted = {
            retriever
            for retriever, r in schema.retrievers.items()
            if r.kind == "lexical" and own_idf and BM25Weighting(**(r.weighting or {})).variant == "lucene"
        }
        index = Index(schema, name, secrets.token_hex(4), frozenset(weighted))
        dense: dict[str, models.VectorParams] = {}
        sparse: dict[str, models.SparseVectorParams] = {}
        for retriever, r in schema.retrievers.items():
            if r.kind == "dense":
                dense[index.vector(retriever)] = dense_params(retriever, r, self._quantization)
            else:
                modifier = models.Modifier.IDF if retriever in weighted else None
                sparse[index.vector(retriever)] = models.SparseVectorParams(modifier=modifier)
        shared: dict[str, Any] = {}
        if not self._connection.embedded:
            shared = {"shard_number": self._shards, "replication_factor": self._replicas}
        if not (yield Call("collection_exists", {"collection_name": index.terms})):
            of = {METADATA_KEY: {"terms_of": name}}
            yield Call(
                "create_collection", {"collection_name": index.terms, "vectors_config": {}, "metadata": of, **shared}
            )
        yield self._call(
            "create_collection",
            vectors_config=dense,
            sparse_vectors_config=sparse,
            metadata=index.to_metadata(),
            **shared,
        )
        if not self._connection.embedded:
            counted = {
                f"{index.counts_key(retriever)}.terms": models.PayloadSchemaType.INTEGER
                for retriever, r in schema.retrievers.items()
                if r.kind == "lexical" and retriever not in index.idf
            }
            for key, type_ in {**INDEXES, **counted}.items():
                yield self._call("create_payload_index", field_name=key, field_schema=type_)
        return index

    # ----------------------------------------------------------------------------------------------------- points

    def _prepare(self, index: Index, batch: EncodedBatch) -> Steps[tuple[Index, list[list[models.PointStruct]]]]:
        """The index, its average lengths known, and the points of `batch`, its terms numbered, request by request."""
        if not len(batch):
            return index, []
        index = yield from self._freeze_lengths(index, batch)
        terms = {term for vectors in batch.vectors.values() for term in used_terms(vectors)}
        numbers = yield from self._numbering(index).numbers(list(terms), insert=True)
        columns: dict[str, list[Any]] = {}
        counts: dict[str, list[Any]] = {}
        for name, retriever in index.schema.retrievers.items():
            vectors = batch.vectors[name]
            if isinstance(vectors, DenseVectors):
                columns[name] = [row.tolist() if row.any() else None for row in vectors.array]
                continue
            rows = sparse_rows(vectors, numbers)
            if retriever.kind == "lexical":
                weights = BM25Weighting(**(retriever.weighting or {}))
                counts[name] = rows
                rows = [weigh(row, weights, retriever.average_length or 1.0) for row in rows]
            columns[name] = [sparse_vector(row, anchored=retriever.kind == "lexical") for row in rows]
        parts, points, characters = [], [], 0
        for row, document in enumerate(batch.documents):
            payload = to_payload(document)
            for name, of_documents in counts.items():
                found, frequencies = of_documents[row]
                payload[index.counts_key(name)] = {"terms": found.tolist(), "counts": frequencies.tolist()}
            here = {index.vector(name): column[row] for name, column in columns.items() if column[row] is not None}
            points.append(models.PointStruct(id=point_id(document.id), vector=here, payload=payload))
            characters += length_of(points[-1])
            if len(points) == MAX_POINTS or characters >= self._max_characters or row + 1 == len(batch):
                parts.append(points)
                points, characters = [], 0
        return index, parts

    def _store(self, index: Index, points: list[models.PointStruct]) -> Steps[list[tuple[str, str]]]:
        """Store points; in halves where they are refused together. Returns (id, reason) of each that is alone, too."""
        try:
            yield _call(index, "upsert", points=points, wait=True)
        except RefusedError as error:
            if error.too_large:  # so are the next
                self._max_characters = min(self._max_characters, sum(map(length_of, points)) // 2)
            if len(points) == 1:
                return [((points[0].payload or {})["id"], str(error))]
            middle = len(points) // 2
            first = yield from self._store(index, points[:middle])
            return first + (yield from self._store(index, points[middle:]))
        return []

    def _freeze_lengths(self, index: Index, batch: EncodedBatch) -> Steps[Index]:
        """Let the first documents decide the average lengths that the schema leaves open."""
        if not index.missing_lengths(batch):
            return index
        info = yield _call(index, "get_collection")
        index = Index.from_metadata(info.config.metadata, self._place.shown)  # another writer may have decided
        means = index.missing_lengths(batch)
        if means:
            retrievers = {
                name: replace(r, average_length=means[name]) if name in means else r
                for name, r in index.schema.retrievers.items()
            }
            index = replace(index, schema=replace(index.schema, retrievers=retrievers))
            yield _call(index, "update_collection", metadata=index.to_metadata())
        if self._current().mark == index.mark:
            self._index = index
        return index

    def _publish(self, alias: str, drop_old: bool) -> Steps[str | None]:
        collections = yield Call("get_collections", {})
        if alias in {collection.name for collection in collections.collections}:
            raise IndexExistsError(f"{alias!r} is the name of a collection itself: choose another alias, or delete it.")
        known = yield Call("get_aliases", {})
        meant = {known.alias_name: known.collection_name for known in known.aliases}
        this, old = meant.get(self._place.collection, self._place.collection), meant.get(alias)
        if old == this:
            return None
        steps: list[Any] = []
        if old is not None:
            info = yield Call("get_collection", {"collection_name": old})
            if not is_ours(info.config.metadata):
                raise BackendError(
                    f"The alias {alias!r} means the collection {old!r}, which was not made by hybridsearch: nothing "
                    "was changed; choose another alias, or take it from that collection first."
                )
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        create = models.CreateAlias(collection_name=this, alias_name=alias)
        steps.append(models.CreateAliasOperation(create_alias=create))
        yield Call("update_collection_aliases", {"change_aliases_operations": steps})
        if old is not None and drop_old:
            for name in (old, terms_of(old)):
                yield Call("delete_collection", {"collection_name": name})
        return old

    def _delete(self, index: Index, points: list[str]) -> Steps[int]:
        there = yield _call(index, "retrieve", ids=points, with_payload=False, with_vectors=False)
        if there:
            selected = models.PointIdsList(points=[point.id for point in there])
            yield _call(index, "delete", points_selector=selected, wait=True)
        return len(there)

    # ---------------------------------------------------------------------------------------------------- scanning

    def _scan(self, batch_size: int) -> Iterator[EncodedBatch]:
        index, offset = self._pinned(), None
        while True:
            batch, offset = self._connection.run(self._page(index, batch_size, offset))
            if len(batch):
                yield batch
            if offset is None:
                return

    def _page(self, index: Index, size: int, offset: Any) -> Steps[tuple[EncodedBatch, Any]]:
        whole = {"with_payload": True, "with_vectors": True}
        points, following = yield _call(index, "scroll", limit=size, offset=offset, **whole)
        rows: dict[str, list[tuple[list[int], list[float]]]] = {}
        dense: dict[str, NDArray[np.float32]] = {}
        for name, retriever in index.schema.retrievers.items():
            found = [(point.vector or {}).get(index.vector(name)) for point in points]
            if retriever.kind == "dense":
                dense[name] = np.zeros((len(points), retriever.dimensions or 0), dtype=np.float32)
                for row, vector in enumerate(found):
                    if vector is not None:
                        dense[name][row] = vector
            elif retriever.kind == "lexical":
                counts = [point.payload[index.counts_key(name)] for point in points]
                rows[name] = [(of["terms"], of["counts"]) for of in counts]
            else:
                rows[name] = [([], []) if vector is None else (vector.indices, vector.values) for vector in found]
        numbers = {number for of in rows.values() for indices, _ in of for number in indices}
        terms = yield from self._numbering(index).names(sorted(numbers))
        vectors: dict[str, Vectors] = {name: from_rows(of, terms) for name, of in rows.items()}
        for name, array in dense.items():
            vectors[name] = DenseVectors(array, index.schema.retrievers[name].metric or "cosine")
        return EncodedBatch([from_payload(point.payload) for point in points], vectors), following


def _call(index: Index, method: str, **arguments: Any) -> Call:
    """A request to the collection that the index is, and to no other that an alias may mean by then."""
    return Call(method, {"collection_name": index.collection, **arguments})


def _report(refused: list[tuple[str, str]]) -> None:
    if refused:
        raise BulkIndexError(refused)


def _one(call: Call) -> Steps[Any]:
    return (yield call)
