"""`LuceneBackend`: the part of the backend contract that OpenSearch and Elasticsearch share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from hybridsearch.adapters.checks import check_batch_size, check_explained, check_open, opened, retriever_of
from hybridsearch.adapters.lucene.aliases import (
    MovedError,
    Sign,
    Target,
    check_same_vectors,
    only_index,
    publish,
    watched,
)
from hybridsearch.adapters.lucene.describing import ask_nodes, describe_index, describe_server
from hybridsearch.adapters.lucene.dialect import Dialect, Server, dotted
from hybridsearch.adapters.lucene.listing import all_keys, pages_by_id
from hybridsearch.adapters.lucene.query.search import Listed, Searcher
from hybridsearch.adapters.lucene.stored.identity import Identity
from hybridsearch.adapters.lucene.stored.lines import delete_lines
from hybridsearch.adapters.lucene.stored.mapping import index_body
from hybridsearch.adapters.lucene.stored.reading import FEW, fetch_documents, fetch_vectors, read_batches
from hybridsearch.adapters.lucene.wire.channel import Call, Channel, Steps
from hybridsearch.adapters.lucene.wire.connection import Address, Json, check_switches
from hybridsearch.adapters.lucene.wire.multisearch import Rounds, msearch
from hybridsearch.adapters.lucene.wire.refusals import NoAnswerError, decode
from hybridsearch.adapters.lucene.writing import Writer
from hybridsearch.arguments import one_of, whole_number, whole_number_or_none
from hybridsearch.backends import Capabilities, Kind, OldIndex, Request, Schema, check_batch
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, BulkIndexError, IndexExistsError, IndexNotFoundError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.listing import Key, Order, in_order, with_documents
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import EncodedBatch

T = TypeVar("T")
DenseMode: TypeAlias = Literal["hnsw", "exact"]

_AT_ONCE = 100  # documents that are stored and made visible by one request
_ATTEMPTS = 8  # at a search by an alias that is moved again and again


class LuceneBackend(Dialect):
    """A backend that keeps an index in OpenSearch or Elasticsearch. Use one of its two subclasses.

    Any number of threads may use one object. Hits come with their documents. A search finds everything that this
    object has written before, because it first refreshes the index. With `refresh=False` it does not.
    """

    engine: ClassVar[str]
    oldest: ClassVar[tuple[int, ...]]
    rescores_since: ClassVar[tuple[int, ...]]
    """The first version that scores the candidates of quantized vectors again with the full vectors."""

    def __init__(
        self,
        location: str,
        *,
        dense: DenseMode | None,
        options: Mapping[str, Any],
        defaults: Mapping[str, Any],
        shards: int | None,
        replicas: int | None,
        refresh: bool,
        user: str | None,
        password: str | None,
        api_key: str | None,
        auth: Literal["aws"] | None,
        ca_file: str | Path | None,
        verify: bool,
        timeout: float,
        ef_search: int,
        bulk_threads: int,
    ) -> None:
        for name, count in {"bulk_threads": bulk_threads, "ef_search": ef_search}.items():
            whole_number(name, count)
        self._copies = {
            "shards": whole_number_or_none("shards", shards),
            "replicas": whole_number_or_none("replicas", replicas, 0),
        }
        check_switches(verify=verify, refresh=refresh)
        one_of("dense", dense, (None, "hnsw", "exact"))
        if options["quantization"] is not None and dense == "exact":
            raise InvalidArgumentError("quantization needs dense='hnsw', but dense is 'exact': leave one of them out.")
        self.address = Address.parse(
            location,
            self.engine,
            user=user,
            password=password,
            api_key=api_key,
            auth=auth,
            ca_file=ca_file,
            verify=verify,
            timeout=timeout,
        )
        self._asked = {"dense": dense, **options}
        self._defaults = {"dense": "hnsw", **defaults}
        self._options = {**self._defaults, **{k: v for k, v in self._asked.items() if v is not None}}
        self._refreshes, self._ef_search = refresh, ef_search
        self._channel = Channel(self.address, self.make_transport)
        self._writer = Writer(self._channel, self.address, bulk_threads, impacts=self.impacts)
        self._server: Server | None = None
        self._searcher: Searcher | None = None
        self._target: Target | None = None  # set if the backend was opened by an alias
        self._uuid: str | None = None  # of the index that was opened
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.address}/{self.address.index}')"

    def check_server(self, server: Server, schema: Schema) -> None:
        if server.version is None:
            return
        found = "Elasticsearch" if server.version[0] >= 5 else "OpenSearch"
        if found != self.engine:
            raise BackendError(
                f"The server at {self.address} is {found}: write {found.lower()}:// in place of "
                f"{self.engine.lower()}://."
            )
        if server.version < self.oldest:
            raise BackendError(
                f"{self.engine} at {self.address} is version {server}, but hybridsearch needs {dotted(self.oldest)} or "
                "newer: upgrade the server."
            )
        if "quantization" in self._options and server.version < self.rescores_since:
            raise BackendError(
                f"{self.engine} at {self.address} is version {server}, but quantization needs "
                f"{dotted(self.rescores_since)} or newer: upgrade the server, or leave quantization out."
            )

    def make_index(self, body: dict[str, Json]) -> None:
        """Send the settings and mappings of a new index."""
        self._channel.call("PUT", self.address.path, body)

    # ------------------------------------------------------------------------------------------------ describing

    @property
    def approximate_dense(self) -> bool:
        return bool(self._options["dense"] != "exact")

    @property
    def exact_on_request(self) -> bool:
        """Whether the server has what `exact_clause` needs."""
        return True

    @property
    def finds_more(self) -> dict[Kind, str]:
        """What makes approximate searches find more, by kind of retriever."""
        return {"dense": f"ef_search (now {self._ef_search}): raise it."}

    @property
    def least_candidates(self) -> int:
        return 0 if "quantization" in self._options else self._ef_search  # quantized, it is a multiple of the hits

    @property
    def capabilities(self) -> Capabilities:
        """The kinds of retrievers that this index stores, and how exactly it searches them."""
        approximate: dict[Kind, bool] = {"dense": self.approximate_dense, "sparse": self.approximate_sparse}
        # Lucene keeps 9 significant bits of a weight, so each weight is too small by less than 1/256. A distance is
        # the root of a float32 from which 1 was subtracted: near 0 few of its digits are right.
        far = self._searcher is None or all(r.metric != "euclidean" for r in self._searcher.schema.retrievers.values())
        return Capabilities(
            kinds=frozenset({"lexical", "sparse", "dense", "text"}),
            persistent=True,
            approximate=frozenset(kind for kind, is_so in approximate.items() if is_so),
            least_candidates={"dense": self.least_candidates},
            exact_on_request=self.exact_on_request,
            finds_more=self.finds_more,
            score_tolerance={"lexical": 1 / 256, "sparse": 1 / 256, "dense": 1e-5 if far else 5e-4, "text": 1e-5},
            atomic_batches=False,
            live_average=False,
            passages=True,
        )

    # ------------------------------------------------------------------------------------------- opening, closing

    def open(self) -> Schema | None:
        """Open the index. Returns its schema, or None if there is no index.

        Raises:
            BackendError: The engine cannot be used, hybridsearch did not make the index, or the name is an alias with a
                filter or a routing value.
            IndexCorruptedError: A newer version of hybridsearch made the index.
        """
        check_open(self._closed)
        if self._searcher is None:
            status, body = self._channel.answer(Call("GET", self.address.path))
            if status == 404:
                return None
            self._adopt(decode(self.address, (status, body)), opening=True)
        return self._current().schema

    def reopen(self) -> Schema | None:
        """Open the index that the name or the alias means now. Returns its schema, or None if there is no index.

        Call this after somebody has made or deleted the index, or changed its retrievers. Documents that others write
        are found without it.

        Raises:
            BackendError: The engine cannot be used, hybridsearch did not make the index, or the name is an alias with a
                filter or a routing value.
            IndexCorruptedError: A newer version of hybridsearch made the index.
        """
        check_open(self._closed)
        status, body = self._channel.answer(Call("GET", self.address.path))
        if status == 404:
            self._searcher = self._target = None
            return None
        found = decode(self.address, (status, body))
        name, index = only_index(found, self.address)
        identity = Identity.from_meta(index["mappings"].get("_meta"), replace(self.address, index=name))
        same = self._uuid == index["settings"]["index"].get("uuid") and self._searcher is not None
        if not same or identity.schema != self._current().schema:
            self._target = None
            self._adopt(found)
        return self._current().schema

    def _adopt(self, found: Json, *, opening: bool = False) -> None:
        """Use the index in `found` from now on, if it is not the index that is used already.

        Shards and replicas are compared only if the backend is `opening`, because they make no difference to a search.
        """
        name, index = only_index(found, self.address)
        uuid, known = index["settings"]["index"].get("uuid"), self._target
        if known is not None and known.uuid == uuid:
            return
        address = replace(self.address, index=name)
        identity = Identity.from_meta(index["mappings"].get("_meta"), address)
        schema, options = identity.schema, {**self._defaults, **identity.options}
        if known is not None:
            check_same_vectors(known.searcher.schema, schema, name, self.address)
        for option, value in self._asked.items():
            if value is not None and value != options.get(option):
                raise InvalidArgumentError(
                    f"The index {name!r} was made with {option}={options.get(option)!r}, not with {value!r}: "
                    f"leave {option} out, or index the documents again under another name."
                )
        if opening:
            self._check_copies(name, index["settings"]["index"], identity)
        self._options = options
        self._uuid = uuid
        self.check_server(self._ask_server(), schema)
        by_impacts = self.impacts and identity.impacts
        self._searcher = Searcher(schema, self, literal=identity.literal, impacts=by_impacts)
        if name != self.address.index:
            self._target = Target(address, self._searcher, uuid, self.address.index)

    def _check_copies(self, name: str, settings: Json, identity: Identity) -> None:
        relaxed = identity.before_load or {}  # a load sets replicas to 0 and restores them at its end
        for option, value in self._copies.items():
            has = value if value is None else int({**settings, **relaxed}[f"number_of_{option}"])
            if value != has:
                change = "change number_of_replicas in the settings of the index"
                raise InvalidArgumentError(
                    f"The index {name!r} has {option}={has}, not {value}: leave {option} out, or "
                    f"{change if option == 'replicas' else 'index the documents again under another name'}."
                )

    def create(self, schema: Schema) -> None:
        """Make an empty index.

        Raises:
            IndexExistsError: There is an index or an alias of that name already, whoever made it.
            InvalidArgumentError: An option or a part of `schema` is not possible in the engine.
            BackendError: The server lacks what `schema` needs, or refuses the index.
        """
        check_open(self._closed)
        if self._searcher is not None:
            raise IndexExistsError(f"There is an index or alias {self.address.index!r} at {self.address} already.")
        server = self._ask_server()
        self.check_server(server, schema)
        copies = {f"number_of_{option}": 1 if count is None else count for option, count in self._copies.items()}
        identity = Identity(schema, self._options)
        self.make_index(index_body(identity, self, copies, self.settings(schema, server)))
        self._searcher = Searcher(schema, self, impacts=self.impacts)

    def close(self) -> None:
        """Close the connections of all threads. It may be called twice. `aclose` also closes those of an event loop."""
        self._closed = True
        self._channel.close()

    async def aclose(self) -> None:
        """Close all connections, also those that `asearch` has opened in this event loop."""
        await self._channel.aclose()
        self.close()

    # --------------------------------------------------------------------------------------------------- writing

    def upsert(self, batch: EncodedBatch) -> None:
        """Add documents. A document replaces the stored document that has the same id.

        Raises:
            InvalidArgumentError: The batch does not fit the schema, has an id twice, or has a weight below 0.
            BulkIndexError: Some documents were refused. All others are stored.
        """
        self._upsert(batch, refresh=False)

    def upsert_now(self, batch: EncodedBatch) -> None:
        """Add documents as `upsert` does, and `refresh`. For up to 100 documents, one `_bulk` request does both."""
        if not self._upsert(batch, refresh=len(batch) <= _AT_ONCE):
            self.refresh()

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents. Unknown ids are ignored. Returns how many documents were removed."""
        self._current()
        distinct = [id for id in dict.fromkeys(ids) if id]
        return self._writer.send(self._pinned(), delete_lines(distinct)) if distinct else 0

    def delete_by_filter(self, filter: Filter) -> int:
        """Remove the documents that a filter allows. Returns how many documents were removed.

        This is one `_delete_by_query` for up to 100,000 documents. A document that somebody else changes meanwhile is
        looked at again. If the filter compares instants, a search first checks that it can be answered.
        """
        self._current()
        if filter.checks():
            self.count(filter)
        self._channel.run(self._refreshing())
        target = self._pinned()
        return self._writer.delete_found(target, target.searcher.query(filter))

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """Add the documents of all batches with several requests at a time, then `refresh`.

        During the load the index refreshes seldom or never. An index that was empty has no replicas during the load.
        Afterwards both settings are as before. After a crash, the next `load`, `upsert` or `refresh` restores them.

        The first batch decides the average document lengths that lexical weights are made with. If the average of all
        batches differs by more than 5 %, `reweigh` follows. After a crash, `finish_load` does it.
        """
        self._current()
        try:
            self._writer.load(self._pinned(), batches, empty=self.count() == 0)
        except BulkIndexError:
            self.refresh()
            raise
        self.refresh()

    def finish_load(self) -> None:
        """Call `reweigh` if the load that decided the average lengths, or an earlier `reweigh`, was interrupted."""
        self._current()
        if self._writer.is_unsettled(self._pinned()):
            self.reweigh()

    def reweigh(self) -> dict[str, float]:
        """Compute all lexical (BM25) weights again, with the average document length that the index has now.

        BM25 weights depend on the average length. The index keeps the average of its first documents until this is
        called. Rankings get worse if later documents are much longer or shorter.

        All documents are read and written once, under the same ids. If the call is interrupted, run it again. Documents
        that others change or delete meanwhile stay as they are then.

        Returns:
            The average length in tokens, by lexical retriever. It is empty if no document has terms.

        Raises:
            BulkIndexError: Some documents were refused. All others have new weights.
        """
        self._current()
        averages = self._writer.reweigh(self._pinned())
        self.refresh()
        return averages

    def refresh(self) -> None:
        """Make everything that was written before visible to searches."""
        self._current()
        self._writer.end_crashed_load(self._pinned)
        self._channel.run(self._refreshing(always=True))

    # --------------------------------------------------------------------------------------------------- reading

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents with these ids, in the order of `ids`. An unknown id gives None.

        Documents that this object has written, or that another writer has added, are seen at once. Documents that
        another writer has changed are seen as soon as searches see the change. Up to 3 documents come as they were last
        written, with one request.
        """
        self._current()
        latest = len(ids) <= FEW
        if not latest:
            self._channel.run(self._refreshing())
            latest = self._writer.refreshed < self._writer.writes  # without refreshing
        return self._channel.run(self._asking(lambda _: fetch_documents(self.address, ids, latest=latest)))

    def fetch_passages(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> Listed:
        """The documents `ids`, and the passages that each request finds in its documents, with one request.

        Documents that are no hits of the only retriever that lists passages need another request. The server searches
        a hit again to list its passages. For all hits of a search, this would take longer than the search.
        """
        return self._channel.run(self._rounds(lambda searcher: searcher.list_passages(requests, ids)))

    def fetch_vectors(self, ids: Sequence[str], retriever: str) -> EncodedBatch:
        """The documents with the vectors of one retriever, in the order of `ids`. Unknown ids are left out."""
        self._current()
        return self._channel.run(
            self._asking(lambda target: fetch_vectors(self.address, ids, target.searcher.schema, retriever))
        )

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests by one call of the engine.

        The rankings come with their documents if the requests ask for at most 3,000 hits in all, and if the documents
        have at most 500,000 characters in all, as they are stored. In an index with passages, they come without
        documents at the first search, and if a retriever of passages lists none. A second request follows if term
        frequencies are unknown or out of date, if the hits before and after a cut have the same score, or if documents
        that were left out may be hits (see `query.maxscore`).
        """
        return self._channel.run(self._rounds(lambda searcher: searcher.search(requests)))

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests like `search`, in the running event loop.

        Cancelling it closes its connection, and the engine stops searching.
        """
        return await self._channel.arun(self._rounds(lambda searcher: searcher.search(requests)))

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """What each matched term adds to the raw score, for each id.

        The values are computed from the stored float32 weights. The engine itself scores with 9 significant bits of
        them, so its scores differ slightly.
        """
        return self.explain_all([request], [ids])[0]

    def explain_all(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> list[list[dict[str, float]]]:
        """What each matched term adds to the raw scores of several retrievers, with one request."""
        schema = self._current().schema
        for request in requests:
            check_explained(request, retriever_of(schema, request.retriever))
        return self._channel.run(self._rounds(lambda searcher: searcher.explain(requests, ids)))

    def document_frequencies(self, retriever: str, terms: Sequence[str]) -> tuple[list[int], int]:
        """The number of documents that have each term, and of all documents. See `hybridsearch.backends.Counted`."""
        return self._channel.run(self._rounds(lambda searcher: searcher.document_frequencies(retriever, terms)))

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors, as they are when the first batch is taken."""
        check_batch_size(batch_size)
        self._current()
        return self._scan(batch_size)

    def list_documents(
        self, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
    ) -> Iterator[tuple[Key, Document]]:
        """Documents in an order. By id, each page is one search. Any other order first reads all documents once."""
        if filter is not None and filter.checks():
            self.count(filter)
        self._channel.run(self._refreshing())
        if order.by_id:
            pages = pages_by_id(lambda page: self._channel.run(self._asking(page)), filter, after and after[1], limit)
            return ((order.key(document), document) for document in pages)
        keys = all_keys(self._channel, self._pinned(), filter, order)
        return with_documents(in_order(keys, after, limit), self.fetch)

    def count(self, filter: Filter | None = None) -> int:
        """The number of documents in the index, or the number that `filter` lets through."""
        return self._channel.run(self._rounds(lambda searcher: searcher.count(filter)))

    # ---------------------------------------------------------------------------------------------- administration

    def publish(self, alias: str, drop_old: bool = True) -> OldIndex | None:
        """Give this index a second name, in one step: `hs.open(".../alias")` then opens this index.

        A search that was opened by the alias before goes on with this index. If the retrievers differ, it raises
        FingerprintMismatchError until it is opened again.

        Args:
            alias: The second name. It may mean another index until now, but it must not be the name of an index.
            drop_old: Whether the index that `alias` meant until now is deleted. Default True. If another alias means it
                too, it is kept.

        Returns:
            The name of the index that `alias` meant until now, with the other aliases that it was kept for. None if the
            alias is new or means this index already.

        Raises:
            IndexExistsError: `alias` is the name of an index.
            InvalidArgumentError: `alias` is not allowed as a name.
            BackendError: `alias` means several indexes or an index that hybridsearch did not make, or it has a filter
                or a routing value. Nothing was changed.
        """
        self.refresh()  # so that searches by the alias find everything at once
        return publish(self._channel, alias, drop_old)

    def describe(self) -> dict[str, Any]:
        """Facts about the engine and the index that can be written as JSON.

        Facts that the user has no permission to read are left out. "bytes" is the disk use of all primary shards and
        replicas. "status" is the status of the whole cluster.
        """
        check_open(self._closed)
        server = self._ask_server()
        if self._searcher is None:
            self.check_server(server, Schema({}))
        facts: dict[str, Any] = {
            "location": f"{self.address}{self.address.path}",
            "engine": self.engine,
            "version": None if server.version is None else str(server),
            **describe_server(self._channel),
            "plugins": sorted(server.plugins),
        }
        return facts if self._searcher is None else facts | describe_index(self._channel, self.count(), self._options)

    # ------------------------------------------------------------------------------------------------------ steps

    def _rounds(self, ask: Callable[[Searcher], Rounds[T]]) -> Steps[T]:
        """What the searcher of the index finds in several rounds. It finds all that this object has written."""
        self._current()
        yield from self._refreshing()
        return (yield from self._asking(lambda to: msearch(to.address, watched(ask(to.searcher), to))))

    def _asking(self, ask: Callable[[Target], Steps[T]]) -> Steps[T]:
        """The result of `ask`. If an alias was moved meanwhile, the result for the index that it means now."""
        attempt = 0
        while True:
            attempt += 1
            target = self._aim()
            try:
                return (yield from ask(target))
            except (BackendError, IndexNotFoundError) as error:
                check_open(self._closed)  # another thread has closed the connections
                if target.alias is None or attempt == _ATTEMPTS or isinstance(error, NoAnswerError):
                    raise
                sign = error.sign if isinstance(error, MovedError) else None
                yield from self._follow(sign)
                if sign is None and self._target is target and not isinstance(error, IndexNotFoundError):
                    raise  # but while an engine removes an index, the alias still means it for a moment

    def _follow(self, sign: Sign | None = None) -> Steps[None]:
        """Look up which index the alias means. `sign` is what a search saw before."""
        self._adopt((yield Call("GET", self.address.path)))
        if self._target is not None and sign is not None and sign.name in (None, self._target.address.index):
            self._target.sign = sign

    def _refreshing(self, *, always: bool = False) -> Steps[None]:
        writer, writes = self._writer, self._writer.writes
        if always or (self._refreshes and writer.refreshed < writes):
            yield Call("POST", f"{self.address.path}/_refresh")
            writer.refreshed = max(writer.refreshed, writes)

    def _scan(self, batch_size: int) -> Iterator[EncodedBatch]:
        self._channel.run(self._refreshing())
        if self._target is not None:
            self._channel.run(self._follow())
        target = self._aim()
        yield from read_batches(self._channel, target.address, target.searcher.schema, batch_size)

    # ------------------------------------------------------------------------------------------------- connections

    def _upsert(self, batch: EncodedBatch, *, refresh: bool) -> bool:
        """Store a batch. Returns whether searches see all that was written."""
        check_batch(batch, self._current().schema)
        if not len(batch):
            return False
        found = self._writer.look()
        if self._target is not None:
            self._adopt(found)
        return self._writer.upsert(self._aim(), batch, found, refresh=refresh)

    def _pinned(self) -> Target:
        """The index that one call writes to, even if the alias is moved meanwhile."""
        if self._target is not None:
            self._channel.run(self._follow())
        return self._aim()

    def _ask_server(self) -> Server:
        """The version, the plugins and the modules of the server. They are asked for once."""
        self._server = self._server or ask_nodes(self._channel)
        return self._server

    def _current(self) -> Searcher:
        return opened(self._searcher, self._closed)

    def _aim(self) -> Target:
        return self._target or Target(self.address, self._current())
