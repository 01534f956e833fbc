"""`LuceneBackend`: all of the backend contract that does not differ between OpenSearch and Elasticsearch."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from hybridsearch.adapters.lucene import metadata
from hybridsearch.adapters.lucene.bulk import BulkSender
from hybridsearch.adapters.lucene.channel import LINES, Call, Channel, Steps
from hybridsearch.adapters.lucene.connection import Address, Transport
from hybridsearch.adapters.lucene.identity import Identity
from hybridsearch.adapters.lucene.lines import (
    bulk_lines,
    delete_lines,
    document_key,
    document_lengths,
    encode_term,
    from_source,
    vectors_from_source,
)
from hybridsearch.adapters.lucene.multisearch import msearch
from hybridsearch.adapters.lucene.refusals import NoAnswerError, decode, refusal
from hybridsearch.adapters.lucene.searching import MAX_WINDOW, Searcher
from hybridsearch.backends import Capabilities, Kind, Request, RetrieverSchema, Schema
from hybridsearch.corpus.parts import check_batch
from hybridsearch.documents import Document
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    HybridSearchError,
    IndexExistsError,
    InvalidArgumentError,
)
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import EncodedBatch, Metric, SparseVectors

Json: TypeAlias = Any
T = TypeVar("T")
DenseMode: TypeAlias = Literal["hnsw", "exact"]

_UNINDEXED = {"type": "keyword", "index": False, "doc_values": False}
_IDS_AT_ONCE = 1000
_SCAN_AT_ONCE = 2000
_SCROLL = "5m"
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Server:
    """What the engine has; None and empty where it does not tell whoever asks.

    Attributes:
        version: of the oldest node.
        plugins: that every node has.
    """

    version: tuple[int, ...] | None = None
    plugins: frozenset[str] = frozenset()


class LuceneBackend:
    """An index in OpenSearch or Elasticsearch; the subclasses say how to make one. Any number of threads may use it.

    Documents come back with the hits. What this object has written it finds: it refreshes the index before the next
    search, count or scan, unless it was made with `refresh=False`.
    """

    engine: ClassVar[str]
    oldest: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        location: str,
        *,
        dense: DenseMode | None,
        options: Mapping[str, Any],
        shards: int,
        replicas: int,
        refresh: bool,
        user: str | None,
        password: str | None,
        api_key: str | None,
        ca_file: str | Path | None,
        verify: bool,
        timeout: float,
        bulk_threads: int,
    ) -> None:
        numbers = {"shards": (shards, 1), "replicas": (replicas, 0), "bulk_threads": (bulk_threads, 1)}
        for name, (number, least) in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise InvalidArgumentError(f"{name} is {number!r}; it is a whole number of at least {least}.")
        if dense not in (None, "hnsw", "exact"):
            raise InvalidArgumentError(f"dense is {dense!r}; it is 'hnsw' (approximate) or 'exact'.")
        self.address = Address.parse(
            location,
            self.engine,
            user=user,
            password=password,
            api_key=api_key,
            ca_file=ca_file,
            verify=verify,
            timeout=timeout,
        )
        self._asked = {"dense": dense, **options}
        self._options = {"dense": dense or "hnsw", **{k: v for k, v in options.items() if v is not None}}
        self._shards, self._replicas = shards, replicas
        self._refreshes = refresh
        self._bulk_threads = bulk_threads
        self._channel = Channel(self.address, self.make_transport)
        self._server: Server | None = None
        self._searcher: Searcher | None = None
        self._closed = False
        self._writes = self._refreshed = self._stamp = 0
        self._stamping = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.address}/{self.address.index}')"

    # ------------------------------------------------------------------------------- what the engines do differently

    def make_transport(self) -> Transport:
        """The official client."""
        raise NotImplementedError

    def check_server(self, server: Server, schema: Schema) -> None:
        """Raise BackendError where the server lacks what an index of `schema` needs."""

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        """More settings of a new index."""
        return {}

    def dense_field(self, retriever: RetrieverSchema) -> Json:
        raise NotImplementedError

    def sparse_field(self) -> Json:
        raise NotImplementedError

    def deepest_dense(self) -> int:
        raise NotImplementedError

    def dense_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], k: int, filter: Json | None
    ) -> Json:
        raise NotImplementedError

    def sparse_clause(self, path: str, weights: Mapping[str, float], kind: Kind) -> Json:
        raise NotImplementedError

    def pipeline(self, kind: Kind) -> dict[str, Json]:
        return {}

    def term_clause(self, path: str, term: str) -> Json:
        raise NotImplementedError

    def similarity(self, metric: Metric, score: float) -> float:
        """Both engines turn similarities into positive scores the same way; this turns them back."""
        score = max(score, _SMALLEST)
        if metric == "cosine":
            return 2 * score - 1
        if metric == "dot":
            return score - 1 if score >= 1 else 1 - 1 / score
        return -float(np.sqrt(max(1 / score - 1, 0.0)))

    # ------------------------------------------------------------------------------------------------ describing

    @property
    def approximate_dense(self) -> bool:
        return bool(self._options["dense"] != "exact")

    @property
    def approximate_sparse(self) -> bool:
        """Whether searches of learned sparse retrievers leave something out."""
        return False

    @property
    def capabilities(self) -> Capabilities:
        approximate: dict[Kind, bool] = {"dense": self.approximate_dense, "sparse": self.approximate_sparse}
        # Lucene keeps 9 significant bits of a weight, so that each is too small by up to 1/256. A distance is the root
        # of a float32 of which 1 was subtracted: near 0 little is left of it.
        far = self._searcher is None or all(r.metric != "euclidean" for r in self._searcher.schema.retrievers.values())
        return Capabilities(
            kinds=frozenset({"lexical", "sparse", "dense", "text"}),
            persistent=True,
            approximate=frozenset(kind for kind, is_so in approximate.items() if is_so),
            score_tolerance={"lexical": 1 / 128, "sparse": 1 / 128, "dense": 1e-5 if far else 5e-4, "text": 1e-5},
            atomic_batches=False,
            live_average=False,
        )

    # ------------------------------------------------------------------------------------------- opening, closing

    def open(self) -> Schema | None:
        """The schema of the index, or None if there is none.

        Raises:
            BackendError: the engine cannot be used, or the index was not made by hybridsearch.
            IndexCorruptedError: the index is of a newer version of hybridsearch.
        """
        self._check_open()
        if self._searcher is None:
            status, body = self._channel.answer(Call("GET", self.address.path))
            if status == 404:
                return None
            found = decode(self.address, (status, body))
            if len(found) != 1:
                raise BackendError(
                    f"{self.address.index!r} at {self.address} is an alias of {len(found)} indexes "
                    f"({', '.join(sorted(found)[:3])}): open one of them by its name."
                )
            (index,) = found.values()
            identity = Identity.from_meta(index["mappings"].get("_meta"), self.address)
            schema, options = identity.schema, dict(identity.options)
            for name, value in self._asked.items():
                if value is not None and value != options.get(name):
                    raise InvalidArgumentError(
                        f"The index {self.address.index!r} was made with {name}={options.get(name)!r}, not {value!r}: "
                        f"leave {name} out, or index the documents again under another name."
                    )
            self._options = options
            self.check_server(self._ask_server(), schema)
            self._searcher = Searcher(schema, self)
        return self._searcher.schema

    def create(self, schema: Schema) -> None:
        """Make an empty index.

        Raises:
            IndexExistsError: there is one of that name, whoever made it.
            InvalidArgumentError, BackendError: the engine cannot store `schema`.
        """
        self._check_open()
        if self._searcher is not None:
            raise IndexExistsError(f"There is an index or alias {self.address.index!r} at {self.address} already.")
        server = self._ask_server()
        self.check_server(server, schema)
        vectors: dict[str, Json] = {}
        texts: dict[str, Json] = {}
        similarity: dict[str, Json] = {}
        for name, retriever in schema.retrievers.items():
            if retriever.kind == "text":
                weighting = dict(retriever.weighting or {})
                texts[name] = {"type": "text", "analyzer": weighting.pop("analyzer", "standard"), "similarity": name}
                similarity[name] = {"type": "BM25", **weighting}
                continue
            if retriever.kind == "dense" and not (retriever.dimensions and retriever.metric):
                raise InvalidArgumentError(f"The dense retriever {name!r} needs dimensions and a metric in its schema.")
            vectors[name] = self.dense_field(retriever) if retriever.kind == "dense" else self.sparse_field()
        stored = {"type": "object", "enabled": False}
        body = {
            "settings": {
                "number_of_shards": self._shards,
                "number_of_replicas": self._replicas,
                "max_result_window": MAX_WINDOW,
                **({"similarity": similarity} if similarity else {}),
                **self.settings(schema, server),
            },
            "mappings": {
                "_meta": Identity(schema, self._options).to_meta(),
                "dynamic": False,
                "properties": {
                    "id": {"type": "keyword"},
                    "document": stored,
                    "counts": stored,
                    "long_terms": stored,
                    "stamp": {"type": "long"},
                    "vectors": {"type": "object", "dynamic": False, "properties": vectors},
                    "fields": metadata.METADATA_MAPPING,
                    **({"content": {**_UNINDEXED, "fields": texts}} if texts else {}),
                },
            },
        }
        self._channel.call("PUT", self.address.path, body)
        self._searcher = Searcher(schema, self)

    def close(self) -> None:
        """Close all connections of threads; `aclose` closes those of an event loop, too. Idempotent."""
        self._closed = True
        self._channel.close()

    async def aclose(self) -> None:
        """`close`, and close what `asearch` has opened in this event loop."""
        await self._channel.aclose()
        self.close()

    # --------------------------------------------------------------------------------------------------- writing

    def upsert(self, batch: EncodedBatch) -> None:
        """Add documents, replacing those with the same id.

        Raises:
            InvalidArgumentError: the batch does not fit the schema, has an id twice, or a weight below 0.
            BulkIndexError: some documents were refused; all others are stored.
        """
        check_batch(batch, self._current().schema)
        if len(batch):
            self._write(self._lines(batch))

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; unknown ids are ignored. Returns how many were there."""
        self._current()
        distinct = [id for id in dict.fromkeys(ids) if id]
        return self._write(delete_lines(distinct)) if distinct else 0

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """`upsert` all batches, several requests at once, then `refresh`.

        Meanwhile the index does not refresh by itself and, if it is empty, has no replicas; both are as before
        afterwards. After a crash the next `load` restores what it was before the first.
        """
        self._current()
        try:
            with self._relaxed():
                self._write(self._lines_of_all(batches))
        except BulkIndexError:
            self.refresh()
            raise
        self.refresh()

    def refresh(self) -> None:
        """What was written before is found after this."""
        self._current()
        self._channel.run(self._refreshing(always=True))

    # --------------------------------------------------------------------------------------------------- reading

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents, in the order of `ids`; None for an unknown id."""
        self._current()
        found = self._channel.run(self._fetching(ids, ["id", "document"]))
        return [None if source is None else from_source(source) for source in found]

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests with one `_msearch`.

        A second one follows where term frequencies are not known or no longer right, and where equal scores are on
        both sides of a cut.
        """
        return self._channel.run(self._searching(requests))

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        """`search` in the running event loop. Cancelling it closes its connection, and the engine stops searching."""
        return await self._channel.arun(self._searching(requests))

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """For each id, what each matched term adds to its raw score.

        Computed from the stored float32 weights, while the engine scores with 9 significant bits of them.
        """
        return self._channel.run(self._explaining(request, ids))

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors, as they are when the first batch is taken."""
        if batch_size < 1:
            raise InvalidArgumentError(f"A scan's batches have at least 1 document, not {batch_size!r}.")
        self._current()
        return self._scan(min(batch_size, _SCAN_AT_ONCE))

    def count(self, filter: Filter | None = None) -> int:
        """How many documents there are, or how many of them `filter` lets through."""
        self._current()
        self._channel.run(self._refreshing())
        body = {} if filter is None else {"query": metadata.compile_filter(filter)}
        return int(self._channel.call("POST", f"{self.address.path}/_count", body)["count"])

    # ------------------------------------------------------------------------------------------------------ steps

    def _searching(self, requests: Sequence[Request]) -> Steps[list[Ranking]]:
        searcher = self._current()
        steps = searcher.search(requests)
        yield from self._refreshing()
        return (yield from msearch(self.address, steps))

    def _refreshing(self, *, always: bool = False) -> Steps[None]:
        writes = self._writes
        if always or (self._refreshes and self._refreshed < writes):
            yield Call("POST", f"{self.address.path}/_refresh")
            self._refreshed = max(self._refreshed, writes)

    def _fetching(self, ids: Sequence[str], members: Sequence[str]) -> Steps[list[Json | None]]:
        found: dict[str, Json] = {}
        keys = list(dict.fromkeys(document_key(id) for id in ids if id))
        for start in range(0, len(keys), _IDS_AT_ONCE):
            docs = [{"_id": key, "_source": members} for key in keys[start : start + _IDS_AT_ONCE]]
            answer = yield Call("POST", f"{self.address.path}/_mget", orjson.dumps({"docs": docs}))
            for item in answer["docs"]:
                if "error" in item:
                    raise refusal(self.address, 500, item["error"])
                if item.get("found"):
                    found[item["_source"]["id"]] = item["_source"]
        return [found.get(id) for id in ids]

    def _explaining(self, request: Request, ids: Sequence[str]) -> Steps[list[dict[str, float]]]:
        searcher, name = self._current(), request.retriever
        if (kind := searcher.retriever(name).kind) in ("dense", "text"):
            raise InvalidArgumentError(f"Retriever {name!r} is {kind}: only lexical and sparse scores have our terms.")
        yield from self._refreshing()
        weights = yield from msearch(self.address, searcher.weights(request))
        sources = yield from self._fetching(ids, ["id", f"vectors.{name}"])
        explained = []
        for source in sources:
            vector = {} if source is None else source.get("vectors", {}).get(name, {})
            values = {term: weight * vector.get(encode_term(term), 0.0) for term, weight in weights.items()}
            explained.append({term: value for term, value in values.items() if value})
        return explained

    def _scan(self, batch_size: int) -> Iterator[EncodedBatch]:
        schema = self._current().schema
        self._channel.run(self._refreshing())
        body = {"size": batch_size, "sort": ["_doc"]}
        page = self._channel.call("POST", f"{self.address.path}/_search?scroll={_SCROLL}", body)
        try:
            while hits := page["hits"]["hits"]:
                sources = [hit["_source"] for hit in hits]
                documents = [from_source(source) for source in sources]
                yield EncodedBatch(documents, vectors_from_source(sources, schema))
                page = self._channel.call(
                    "POST", "/_search/scroll", {"scroll": _SCROLL, "scroll_id": page["_scroll_id"]}
                )
        finally:
            with contextlib.suppress(HybridSearchError):  # it ends by itself, too
                self._channel.call("DELETE", "/_search/scroll", {"scroll_id": page["_scroll_id"]})

    # ---------------------------------------------------------------------------------------------------- writing

    def _write(self, lines: Iterable[tuple[str, bytes]]) -> int:
        sender = BulkSender(self._send_bulk, threads=self._bulk_threads, retryable=(NoAnswerError,))
        try:
            return sender.send_all(lines)
        finally:
            self._writes += 1
            self._current().forget()

    def _send_bulk(self, body: bytes) -> tuple[int, bytes]:
        path = f"{self.address.path}/_bulk?filter_path=errors,items.*.status,items.*.error"
        status, content = self._channel.send(Call("POST", path, body, LINES))
        return status, content.encode() if isinstance(content, str) else content

    def _lines(self, batch: EncodedBatch) -> Iterator[tuple[str, bytes]]:
        # Asked each time: the bulk API would make an index anew, without our mapping, that was deleted meanwhile.
        identity = self._stored_identity()
        check_batch(batch, identity.schema)
        schema = _with_averages(identity.schema, batch)
        if schema != identity.schema:
            self._put_meta(replace(identity, schema=schema).to_meta())
        self._current().schema = schema
        averages = {name: r.average_length or 0.0 for name, r in schema.retrievers.items() if r.kind == "lexical"}
        with self._stamping:
            stamp = self._stamp = max(self._stamp + 1, time.time_ns() // 1000)
        return bulk_lines(batch, schema, averages, stamp)

    def _lines_of_all(self, batches: Iterable[EncodedBatch]) -> Iterator[tuple[str, bytes]]:
        for batch in batches:
            if len(batch):
                yield from self._lines(batch)

    @contextlib.contextmanager
    def _relaxed(self) -> Iterator[None]:
        """No refreshing by itself and, while the index is empty, no replicas; as before at the end."""
        path = f"{self.address.path}/_settings"
        identity = self._stored_identity()
        found = self._channel.call("GET", path)
        settings = next(iter(found.values()))["settings"]["index"]
        before = identity.before_load or {
            "refresh_interval": settings.get("refresh_interval"),
            "number_of_replicas": settings["number_of_replicas"],
        }
        relaxed: dict[str, Json] = {"refresh_interval": "-1"}
        if self.count() == 0:
            relaxed["number_of_replicas"] = 0
        self._put_meta(replace(identity, before_load=before).to_meta())
        self._channel.call("PUT", path, {"index": relaxed})
        try:
            yield
        finally:
            self._channel.call("PUT", path, {"index": before})
            self._put_meta(replace(self._stored_identity(), before_load=None).to_meta())

    # ------------------------------------------------------------------------------------------------------- _meta

    def _put_meta(self, meta: Json) -> None:
        self._channel.call("PUT", f"{self.address.path}/_mapping", {"_meta": meta})

    def _stored_identity(self) -> Identity:
        """As it is now; another process may have changed it, or deleted the index."""
        found = self._channel.call("GET", f"{self.address.path}/_mapping")
        return Identity.from_meta(next(iter(found.values()))["mappings"].get("_meta"), self.address)

    # ------------------------------------------------------------------------------------------------- connections

    def _ask_server(self) -> Server:
        """Versions and plugins, asked once."""
        if self._server is None:
            status, body = self._channel.answer(
                Call("GET", "/_nodes/plugins?filter_path=nodes.*.version,nodes.*.plugins.name,nodes.*.modules.name")
            )
            if status == 403:  # whoever only searches may not ask
                self._server = Server()
            else:
                nodes = list(decode(self.address, (status, body)).get("nodes", {}).values())
                versions = [tuple(int(n) for n in node["version"].split("-")[0].split(".")) for node in nodes]
                plugins = [frozenset(plugin["name"] for plugin in node.get("plugins", [])) for node in nodes]
                self._server = Server(
                    min(versions, default=None), frozenset.intersection(*plugins) if plugins else frozenset()
                )
        return self._server

    def compile_filter(self, request: Request) -> Json | None:
        return None if request.filter is None else metadata.compile_filter(request.filter)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("The index was closed: open it again to use it.")

    def _current(self) -> Searcher:
        self._check_open()
        if self._searcher is None:
            raise BackendError("There is no index yet: call open() or create() first.")
        return self._searcher


def _with_averages(schema: Schema, batch: EncodedBatch) -> Schema:
    """The schema with a mean length for each lexical retriever, which the first documents with any terms decide."""
    retrievers = dict(schema.retrievers)
    for name, retriever in schema.retrievers.items():
        vectors = batch.vectors[name]
        if retriever.kind == "lexical" and retriever.average_length is None and isinstance(vectors, SparseVectors):
            average = float(document_lengths(vectors).mean())
            if average > 0:
                retrievers[name] = replace(retriever, average_length=average)
    return replace(schema, retrievers=retrievers) if retrievers != schema.retrievers else schema
