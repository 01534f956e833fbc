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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from qdrant_client import models

from hybridsearch.adapters.checks import check_batch_size, check_open, opened
from hybridsearch.adapters.qdrant.connection import Call, Connection, Steps, call
from hybridsearch.adapters.qdrant.index import Index, Quantization, create_index, publish, quantization_of, read_index
from hybridsearch.adapters.qdrant.payload import point_id
from hybridsearch.adapters.qdrant.place import Place, check_name
from hybridsearch.adapters.qdrant.points import MAX_LOOK_UP, Terms
from hybridsearch.adapters.qdrant.refusals import RefusedError
from hybridsearch.adapters.qdrant.search import Searcher
from hybridsearch.adapters.qdrant.writing import Writer
from hybridsearch.arguments import number, one_of, whole_number, whole_number_or_none
from hybridsearch.backends import Capabilities, Request, Schema, check_batch, check_schema
from hybridsearch.documents import Document
from hybridsearch.errors import BulkIndexError, IndexExistsError, IndexNotFoundError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import EncodedBatch

T = TypeVar("T")

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
        shards, replicas: of a new index on a server; None for one shard, and for the server's default number of
            replicas. An index that exists and has others is refused.
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
        shards: int | None = None,
        replicas: int | None = None,
        senders: int = 4,
    ) -> None:
        place = Place.parse(location)
        for name, count in {"shards": shards, "replicas": replicas}.items():
            whole_number_or_none(name, count)
        whole_number("senders", senders)
        number("timeout", timeout, above=0, unit="seconds")
        one_of("dense", dense, ("hnsw", "exact"))
        if quantization is not None and (quantization not in get_args(Quantization) or place.url is None):
            raise InvalidArgumentError(
                f"quantization={quantization!r} is not known here: a server has 'int8', 'product' and 'binary', the "
                "embedded Qdrant has none."
            )
        self._place = place
        self._connection = Connection(place, api_key=api_key, verify=verify, ca_file=ca_file, timeout=timeout)
        self._dense, self._quantization = dense, quantization
        self._copies = {"shard_number": shards, "replication_factor": replicas}
        self._senders = senders
        self._writer = Writer(place.shown)
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
        check_open(self._closed)
        if self._index is None and self._connection.exists():
            self._index = self._connection.run(self._read(self._copies))
        return None if self._index is None else self._index.schema

    def reopen(self) -> Schema | None:
        """Use the index that the name or the alias means now. Returns its schema, or None if there is none.

        Searches find what others have written without this call. It is needed if the index was made or deleted, or if
        its retrievers have changed. Raises as `open`.
        """
        check_open(self._closed)
        found = self._connection.run(self._read()) if self._connection.exists() else None
        if found is None or self._index is None or (found.mark, found.schema) != (self._index.mark, self._index.schema):
            self._index = found
        return None if self._index is None else self._index.schema

    def create(self, schema: Schema) -> None:
        """Make an empty index.

        Raises:
            IndexExistsError: there is one, or another collection of this name.
            InvalidArgumentError: a dense retriever lacks its dimensions or metric.
            IndexLockedError, BackendError: as in `open`.
        """
        check_open(self._closed)
        if self._index is not None:
            raise IndexExistsError(f"There is an index at {self._place.shown} already: choose another name.")
        check_schema(schema, self)
        copies = self._copies | {"shard_number": self._copies["shard_number"] or 1}
        self._index = self._connection.run(create_index(self._place, schema, self._quantization, copies))

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
        _, parts = self._prepared(index, batch)
        if refused := [one for part in parts for one in self._connection.run(self._writer.store(index, part))]:
            raise BulkIndexError(refused)

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
                index, parts = self._prepared(index, batch)
                for part in parts:
                    pending.add(pool.submit(self._connection.run, self._writer.store(index, part)))
                    if len(pending) >= 2 * self._senders:
                        collect(FIRST_COMPLETED)
                collect(ALL_COMPLETED)  # so that a document that comes again in a later batch is replaced
        if refused:
            raise BulkIndexError(refused)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; unknown ids are ignored. Returns how many were there."""
        index = self._pinned()
        points = [point_id(id) for id in dict.fromkeys(ids)]
        return sum(
            self._connection.run(self._writer.delete(index, points[start : start + MAX_LOOK_UP]))
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
        return self._connection.run(self._searcher().count(filter))

    def describe(self) -> dict[str, Any]:
        """Figures for people: where the index is, its engine, how many documents it has, and how it stores them.

        Without an index, only what a server is.
        """
        embedded = self._connection.embedded
        if self._index is None and not embedded:
            check_open(self._closed)
            self._connection.run(_one(call(self._place.collection, "collection_exists")))
            return {"location": self._place.shown, "engine": f"qdrant {self._connection.version}"}
        index = self._current()
        info = self._connection.run(_one(call(self._place.collection, "get_collection")))
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
        """Let the name `alias` mean this index, in one step, as `hybridsearch.backends.Aliased` says.

        What is opened by the alias already goes on with this index, unless its retrievers are others: then it raises
        FingerprintMismatchError until it is opened again. Raises BackendError if the alias means a collection that
        hybridsearch did not make; nothing was changed then.
        """
        self._current()
        check_name(alias)
        return self._connection.run(publish(self._place, alias, drop_old))

    # ------------------------------------------------------------------------------------------ opening, creating

    def _current(self) -> Index:
        return opened(self._index, self._closed)

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
        known, found = self._current(), (yield from self._read())
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

    def _read(self, copies: Mapping[str, int | None] | None = None) -> Steps[Index | None]:
        return read_index(self._place, self._quantization, copies)

    def _prepared(self, index: Index, batch: EncodedBatch) -> tuple[Index, list[list[models.PointStruct]]]:
        """The index as it is once its first documents are known, and the points of `batch`, request by request."""
        index, parts = self._connection.run(self._writer.prepare(index, self._numbering(index), batch))
        if self._current().mark == index.mark:
            self._index = index
        return index, parts

    def _scan(self, batch_size: int) -> Iterator[EncodedBatch]:
        index, offset = self._pinned(), None
        searcher = replace(self._searcher(), collection=index.collection)
        while True:
            batch, offset = self._connection.run(searcher.page(batch_size, offset))
            if len(batch):
                yield batch
            if offset is None:
                return


def _one(call: Call) -> Steps[Any]:
    return (yield call)
