"""`QdrantBackend`: an index in Qdrant, embedded in this process or on a server.

A Qdrant collection holds a point for each document. A point has dense vectors, sparse vectors (for lexical and sparse
retrievers), and the payload that `payload` describes. `points` describes how terms become numbers. `search` turns
answers into rankings. The schema of the index is in the metadata of the Qdrant collection.

**Passages.** A second collection, `NAME-passages`, holds a point for each passage, with the vectors of the retrievers
that read passages. `writing` describes how a document and its passages appear and vanish together.

**BM25.** Term weights are computed when documents are written. They use the average length in the schema or, if there
is none yet, the average of the first batch. The idf always fits the documents at the time of a search. In an embedded
engine or a single shard, Qdrant computes it: its idf is the "lucene" variant. Otherwise it is computed from counts,
with one more request for each term, all sent at the same time.
Qdrant's idf ignores documents that have no vector. So a document that has no terms gets a vector along dimension 0,
which is not the number of a term.

**Cosine** is stored as the inner product, because the vectors have length 1 already. Qdrant's own "Cosine" would
normalise them again and change their last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, Literal, TypeVar, get_args

from hybridsearch.adapters.checks import check_batch_size, check_open, opened
from hybridsearch.adapters.qdrant.connection import Call, Connection, Steps, call
from hybridsearch.adapters.qdrant.index import Index, Quantization, create_index, publish, quantization_of, read_index
from hybridsearch.adapters.qdrant.place import Place, check_name
from hybridsearch.adapters.qdrant.points import MAX_LOOK_UP, Terms
from hybridsearch.adapters.qdrant.refusals import RefusedError
from hybridsearch.adapters.qdrant.search import Searcher
from hybridsearch.adapters.qdrant.writing import Part, Writer
from hybridsearch.arguments import number, one_of, whole_number, whole_number_or_none
from hybridsearch.backends import Capabilities, Kind, OldIndex, Request, Schema, check_batch, check_schema
from hybridsearch.documents import Document
from hybridsearch.errors import BulkIndexError, IndexExistsError, IndexNotFoundError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.listing import Key, Order, in_order, with_documents
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import EncodedBatch

T = TypeVar("T")

_MOVES = 8  # how often one search follows an alias that is moved

_TOLERANCES: Mapping[Kind, float] = dict.fromkeys(("lexical", "sparse", "dense", "multi_vector"), 1e-5)
"""The relative error of scores, which are computed in float32."""


class QdrantBackend:
    """A backend that keeps an index in Qdrant, embedded in this process or on a server of version 1.20 or newer.

    The embedded engine is exact. It is made for up to about 20,000 documents or passages, and one process at a time may
    use its folder. Any number of threads and processes may use an index on a server.

    Args:
        location: URL of the index. `qdrant://:memory:/name` is embedded and gone when this object is closed.
            `qdrant:///a/folder/name` is embedded and kept in the folder. `qdrant://host:6333/name` and
            `qdrant+https://host:6333/name` are on a server, without and with TLS.
        api_key: API key of a server. Default None: from the URL (`qdrant+https://:KEY@host/name`), else from the
            environment variable HYBRIDSEARCH_QDRANT_API_KEY. No message shows it.
        verify: Whether the server's certificate is checked. Default True. False accepts any certificate.
        ca_file: Path of the certificate (PEM) of a private authority that signed the server's certificate. Default
            None: the authorities that the client trusts.
        timeout: Seconds to wait for the answer to one request, above 0. Default 60.
        dense: How a server searches dense vectors: "hnsw" (fast, approximate) or "exact" (compares all vectors).
            Default "hnsw". The embedded engine is always exact.
        ef_search: Least number of candidates that an HNSW search on a server keeps. A larger number finds more of the
            nearest vectors and takes longer. Default None: the number of the server (`ef_construct`, by default 100).
        quantization: Compression of the dense vectors on a server: "int8" (a quarter of the memory), "product" (1/16)
            or "binary" (1/32). The best candidates are scored again with the full vectors. Default None: no
            compression of a new index. An existing index keeps the value that it was made with.
        shards: Number of shards of a new index on a server. Default None: 1. With more, BM25 needs one more request for
            each query term. If an existing index has another number, it is refused.
        replicas: Number of copies of each shard of a new index on a server, the shard itself included. Default None:
            the default of the server. If an existing index has another number, it is refused.
        senders: Number of requests that `load` sends to a server at the same time. Default 4.

    Raises:
        InvalidArgumentError: The location or an option is not usable.

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
        ef_search: int | None = None,
        quantization: Quantization | None = None,
        shards: int | None = None,
        replicas: int | None = None,
        senders: int = 4,
    ) -> None:
        place = Place.parse(location)
        for name, count in {"shards": shards, "replicas": replicas, "ef_search": ef_search}.items():
            whole_number_or_none(name, count)
        whole_number("senders", senders)
        number("timeout", timeout, above=0, most=TIMEOUT_MAX, unit="seconds")
        one_of("dense", dense, ("hnsw", "exact"))
        if quantization is not None and (quantization not in get_args(Quantization) or place.url is None):
            raise InvalidArgumentError(
                f"quantization={quantization!r} is not possible here: a Qdrant server takes 'int8', 'product' and "
                "'binary', and the embedded Qdrant takes none of them."
            )
        self._place = place
        self._connection = Connection(place, api_key=api_key, verify=verify, ca_file=ca_file, timeout=timeout)
        self._dense, self._ef_search, self._quantization = dense, ef_search, quantization
        self._copies = {"shard_number": shards, "replication_factor": replicas}
        self._senders = senders
        self._writer = Writer(place.shown, self._connection.embedded)
        self._index: Index | None = None
        self._terms: Terms | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"QdrantBackend({self._place.shown!r})"

    @property
    def capabilities(self) -> Capabilities:
        """The kinds of retrievers that this index stores, and how exactly it searches them."""
        hnsw = not self._connection.embedded and self._dense == "hnsw"
        more = f"ef_search (now {self._ef_search or 'that of the server'}): raise it."
        return Capabilities(
            kinds=frozenset(_TOLERANCES),
            persistent=self._place.url is not None or self._place.folder is not None,
            approximate=frozenset({"dense", "multi_vector"}) if hnsw else frozenset(),
            exact_on_request=True,
            finds_more=dict.fromkeys(("dense", "multi_vector"), more),
            score_tolerance=_TOLERANCES,
            atomic_batches=False,
            live_average=False,
            passages=True,
        )

    # ------------------------------------------------------------------------------------------- opening, closing

    def open(self) -> Schema | None:
        """Open the index. Returns its schema, or None if there is no index.

        Raises:
            IndexCorruptedError: This version of hybridsearch cannot read the index, or its metadata are damaged.
            IndexLockedError: Another process uses the folder.
            BackendError: The server cannot be reached, refuses the key or is too old, or hybridsearch did not make the
                collection.
        """
        check_open(self._closed)
        if self._index is None and self._connection.exists():
            self._index = self._connection.run(self._read(self._copies))
            if self._index is not None and self._connection.embedded:
                self._connection.run(self._writer.sweep(self._index))
        return None if self._index is None else self._index.schema

    def reopen(self) -> Schema | None:
        """Open the index that the name or the alias means now. Returns its schema, or None if there is no index.

        Call this after somebody has made or deleted the index, or changed its retrievers. Documents that others write
        are found without it. It raises the same errors as `open`.
        """
        check_open(self._closed)
        found = self._connection.run(self._read()) if self._connection.exists() else None
        if found is None or self._index is None or (found.mark, found.schema) != (self._index.mark, self._index.schema):
            self._index = found
        return None if self._index is None else self._index.schema

    def create(self, schema: Schema) -> None:
        """Make an empty index.

        Raises:
            IndexExistsError: There is an index or another collection of this name already.
            InvalidArgumentError: A dense retriever has no dimensions or no metric.
            IndexLockedError: Another process uses the folder.
            BackendError: The server cannot be reached, refuses the key, or is too old.
        """
        check_open(self._closed)
        if self._index is not None:
            raise IndexExistsError(f"There is an index at {self._place.shown} already: choose another name.")
        check_schema(schema, self)
        copies = self._copies | {"shard_number": self._copies["shard_number"] or 1}
        self._index = self._connection.run(create_index(self._place, schema, self._quantization, copies))

    def close(self) -> None:
        """Close the connection, and release the folder of an embedded engine. It may be called twice."""
        self._closed = True
        self._index = None
        self._connection.close()

    async def aclose(self) -> None:
        """Close all connections, also those that `asearch` has opened in this event loop."""
        self._closed = True
        self._index = None
        await self._connection.aclose()

    # --------------------------------------------------------------------------------------------------- writing

    def upsert(self, batch: EncodedBatch) -> None:
        """Add documents. A document replaces the stored document that has the same id.

        The documents are searchable when the call returns.

        Raises:
            InvalidArgumentError: The batch does not fit the schema, or has an id twice. Nothing is stored.
            BulkIndexError: Some documents were refused. All others are stored.
            BackendError: The server refused a request or could not be reached. A part of the documents may be stored.
                The call can be repeated.
        """
        index = self._pinned()
        check_batch(batch, index.schema)
        _, parts = self._prepared(index, batch)
        if refused := [one for part in parts for one in self._connection.run(self._writer.store(index, part))]:
            raise BulkIndexError(refused)

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """Add the documents of all batches. A server receives `senders` requests at the same time.

        It raises the same errors as `upsert`, after the requests that were sent have ended.
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
                collect(ALL_COMPLETED)  # so that a later batch can replace a document of this one
        if refused:
            raise BulkIndexError(refused)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents. Unknown ids are ignored. Returns how many documents were removed."""
        index = self._pinned()
        distinct = list(dict.fromkeys(ids))
        return sum(
            self._connection.run(self._writer.delete(index, distinct[start : start + MAX_LOOK_UP]))
            for start in range(0, len(distinct), MAX_LOOK_UP)
        )

    def delete_by_filter(self, filter: Filter) -> int:
        """Remove the documents that a filter allows. Returns how many there were.

        One request counts the documents, and one deletes them. With passages, more requests find their passages first
        and delete these afterwards.
        """
        searcher = self._pinned_searcher()
        found = self._connection.run(searcher.count(filter))
        if found:
            self._connection.run(self._writer.delete_found(searcher.index, searcher.compiled(filter)))
        return found

    def refresh(self) -> None:
        """Do nothing, because Qdrant makes each change searchable at once."""
        self._current()

    # --------------------------------------------------------------------------------------------------- reading

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents with these ids, in the order of `ids`. An unknown id gives None."""
        return self._fetched(self._searcher(), ids)

    def fetch_vectors(self, ids: Sequence[str], retriever: str) -> EncodedBatch:
        """The documents with the vectors of one retriever, in the order of `ids`. Unknown ids are left out.

        Raises:
            InvalidArgumentError: The retriever is unknown.
        """
        return self._connection.run(self._pinned_searcher().fetch_vectors(ids, retriever))

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests, in order, in one round trip.

        More round trips are needed in three cases: a term is new to this object or is in no document, the last hit
        ties with the next document, or idf comes from counts (more than one shard). Retrievers that read passages need
        a second one for the documents, and a third one if passages are listed. If an alias was moved, the index
        that it means now answers.

        Raises:
            InvalidArgumentError: A retriever is unknown, or a query does not fit its retriever.
        """
        self._current()
        return self._connection.run(self._asking(lambda searcher: searcher.search(requests))) if requests else []

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests like `search`, in the running event loop. With a server, it needs no thread.

        Cancelling it frees its connection.
        """
        self._current()
        return await self._connection.arun(self._asking(lambda searcher: searcher.search(requests))) if requests else []

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """What each matched term adds to the raw score, for each id. Qdrant itself computes the values.

        Raises:
            InvalidArgumentError: The retriever is dense or unknown.
        """
        distinct = list(dict.fromkeys(ids))
        found = self._connection.run(self._asking(lambda searcher: searcher.explain(request, distinct)))
        return [dict(found.get(id, {})) for id in ids]

    def document_frequencies(self, retriever: str, terms: Sequence[str]) -> tuple[list[int], int]:
        """The number of documents that have each term, and of all documents. See `hybridsearch.backends.Counted`."""
        self._current()
        return self._connection.run(self._asking(lambda searcher: searcher.document_frequencies(retriever, terms)))

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors. Documents that are added or deleted meanwhile may be missing or not."""
        check_batch_size(batch_size)
        self._current()
        return self._scan(batch_size)

    def count(self, filter: Filter | None = None) -> int:
        """The number of documents in the index, or the number that `filter` lets through."""
        return self._connection.run(self._searcher().count(filter))

    def list_documents(
        self, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
    ) -> Iterator[tuple[Key, Document]]:
        """Documents in an order. First all ids and sort fields are read, because Qdrant cannot sort by them."""
        searcher = self._pinned_searcher()
        if filter is not None and not self._connection.run(searcher.count(filter)):
            return iter(())
        keys = in_order(self._keys(searcher, filter, order), after, limit)
        return with_documents(keys, lambda ids: self._fetched(searcher, ids))

    def describe(self) -> dict[str, Any]:
        """Facts about the index: its place and engine, the number of documents, and how it stores them.

        If there is no index on a server, only facts about the server.
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
                "quantization": self._connection.run(quantization_of(index)),
                **({} if embedded else {"hnsw": info.config.hnsw_config.model_dump(exclude_none=True)}),
            },
            "terms": index.terms,
            **({} if index.passages is None else {"passages": index.passages}),
            "idf": {
                name: "by the engine" if name in index.idf else "from counts"
                for name, retriever in index.schema.retrievers.items()
                if retriever.kind == "lexical"
            },
        }

    # ----------------------------------------------------------------------------------------------------- aliases

    def publish(self, alias: str, drop_old: bool = True) -> OldIndex | None:
        """Give this index a second name, in one step: `hs.open("qdrant://host/alias")` then opens this index.

        A search that was opened by the alias before goes on with this index. If the retrievers differ, it raises
        FingerprintMismatchError until it is opened again.

        Args:
            alias: The second name. It may mean another index until now, but it must not be the name of a collection.
            drop_old: Whether the index that `alias` meant until now is deleted. Default True. If another alias means it
                too, it is kept.

        Returns:
            The name of the index that `alias` meant until now, with the other aliases that it was kept for. None if the
            alias is new or means this index already.

        Raises:
            IndexExistsError: `alias` is the name of a collection.
            InvalidArgumentError: `alias` is not allowed as a name.
            BackendError: `alias` means a collection that hybridsearch did not make. Nothing was changed.
        """
        self._current()
        check_name(alias)
        return self._connection.run(publish(self._place, alias, drop_old))

    # ------------------------------------------------------------------------------------------ opening, creating

    def _current(self) -> Index:
        return opened(self._index, self._closed)

    def _pinned(self) -> Index:
        """The index that one call writes to or reads, even if an alias is moved meanwhile."""
        if self._current().collection != self._place.collection:
            self._connection.run(self._follow())
        return self._current()

    def _asking(self, ask: Callable[[Searcher], Steps[T]]) -> Steps[T]:
        """The result of `ask`. If an alias was moved meanwhile, the result for the index that it means now."""
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
        """Look up which index the name means. It is another one if an alias was moved."""
        known, found = self._current(), (yield from self._read())
        if found is not None and found.mark != known.mark:
            known.check_same_vectors(found, self._place.shown)
            self._index = found

    def _searcher(self) -> Searcher:
        index = self._current()
        how = self._connection.embedded, self._dense, self._ef_search
        return Searcher(self._place.collection, index, self._numbering(index), *how)

    def _numbering(self, index: Index) -> Terms:
        terms = self._terms
        if terms is None or terms.mark != index.mark:
            terms = self._terms = Terms(index)
        return terms

    def _read(self, copies: Mapping[str, int | None] | None = None) -> Steps[Index | None]:
        return read_index(self._place, self._quantization, copies)

    def _prepared(self, index: Index, batch: EncodedBatch) -> tuple[Index, list[Part]]:
        """The index with its average lengths, and the points of `batch`."""
        index, parts = self._connection.run(self._writer.prepare(index, self._numbering(index), batch))
        if self._current().mark == index.mark:
            self._index = index
        return index, parts

    def _pinned_searcher(self) -> Searcher:
        index = self._pinned()
        return replace(self._searcher(), collection=index.collection)

    def _fetched(self, searcher: Searcher, ids: Sequence[str]) -> list[Document | None]:
        found = self._connection.run(searcher.fetch(ids))
        return [found.get(id) for id in ids]

    def _keys(self, searcher: Searcher, filter: Filter | None, order: Order) -> Iterator[Key]:
        offset = None
        while True:
            keys, offset = self._connection.run(searcher.keys(filter, order, offset))
            yield from keys
            if offset is None:
                return

    def _scan(self, batch_size: int) -> Iterator[EncodedBatch]:
        searcher, offset = self._pinned_searcher(), None
        while True:
            batch, offset = self._connection.run(searcher.page(batch_size, offset))
            if len(batch):
                yield batch
            if offset is None:
                return


def _one(call: Call) -> Steps[Any]:
    return (yield call)
