"""Writing documents to an index: bulk requests, the average lengths behind the weights, and relaxed settings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import orjson

from hybridsearch.adapters.lucene.aliases import Target, only_index
from hybridsearch.adapters.lucene.stored.identity import Identity
from hybridsearch.adapters.lucene.stored.lines import Unchanged, bulk_lines, delete_lines, text_lengths
from hybridsearch.adapters.lucene.stored.reading import ID, hit_id, read_batches, read_versions, scroll
from hybridsearch.adapters.lucene.wire.bulk import BulkSender
from hybridsearch.adapters.lucene.wire.channel import SMILE, Call, Channel
from hybridsearch.adapters.lucene.wire.connection import Address, Json
from hybridsearch.adapters.lucene.wire.refusals import NoAnswerError, decode, refusal
from hybridsearch.backends import RetrieverSchema, Schema, check_batch
from hybridsearch.errors import BackendError, BulkIndexError, HybridSearchError
from hybridsearch.forks import Lock
from hybridsearch.messages import number_of, warn
from hybridsearch.vectors import EncodedBatch, SparseVectors

_AT_ONCE = 1000  # documents per batch of `reweigh`
# The graph of a small segment grows faster. But a refresh every second makes too many segments to merge.
_WITH_GRAPHS = "3s"
_TOLERATED = 0.05  # relative difference of the average lengths from which a load calls `reweigh`
_DELETED_AT_ONCE = 100_000  # documents, so that a request ends before the usual timeout
_READ_AT_ONCE = 5000  # of them. OpenSearch adds a header for each reading, and Python accepts 100 headers
_NO_HANDLER = "no handler found for uri"
_DISTURBED = 8  # requests that may find documents which others have just changed
_FAR, _ENOUGH = 0.25, 100  # relative difference and number of upserted texts from which there is a warning


class Writer:
    """Writes to the index that a backend's address means.

    Attributes:
        writes: Number of attempts to write.
        refreshed: Number of these attempts that searches see.
        loads: Number of loads that are running.
    """

    def __init__(self, channel: Channel, address: Address, threads: int, *, impacts: bool) -> None:
        self.writes = self.refreshed = 0
        self.loads = 0
        self._channel = channel
        self._address = address
        self._threads = threads
        self._impacts = impacts
        self._stamp = 0
        self._settled = False  # whether an upsert has just seen that no setting is relaxed
        self._upserted: dict[str, _Mean] = {}  # for each retriever whose average length an upsert of this object set
        self._lock = Lock()

    def look(self) -> Json:
        """What the engine tells about the index now, because another process may have changed it."""
        return self._call("GET", self._address.path)

    def upsert(self, target: Target, batch: EncodedBatch, found: Json, *, refresh: bool) -> bool:
        """Write one batch. `found` is what `look` has just told.

        With `refresh`, the request that stores the documents also makes them visible to searches. It refreshes only
        the shards that it writes to. So it does not refresh if another shard may have an earlier write.

        Returns:
            Whether searches see all earlier writes too.
        """
        before = self.writes
        refresh = refresh and (before == self.refreshed or _shards(found) == 1)
        self.send(target, self._lines(target, batch, self._identity_in(found)), refresh=refresh)
        with self._lock:
            seen = refresh and self.writes == before + 1
            if seen:
                self.refreshed = self.writes
                self._settled = False
        return seen

    def load(self, target: Target, batches: Iterable[EncodedBatch], *, empty: bool) -> None:
        """Write all batches with relaxed settings. Reweigh if the first batch had another average length.

        This also ends a load that was interrupted.

        `empty` tells whether the index has no documents yet.
        """
        identity = self._identity(target)
        lexical = {name: r for name, r in identity.schema.retrievers.items() if r.kind == "lexical"}
        lengths = {name: _Mean() for name, r in lexical.items() if r.average_length is None or identity.unsettled}
        mixed = identity.unsettled and not empty
        refused: BulkIndexError | None = None
        with self._relaxed(target, empty, unsettled=bool(lengths)):
            try:
                self.send(target, self._lines_of_all(target, batches, lengths))
            except BulkIndexError as error:  # all others are stored, and rank by their own mean
                refused = error
            now = target.searcher.schema.retrievers
            if mixed or any(_is_off(mean.value, now[name]) for name, mean in lengths.items()):
                self.reweigh(target)
        if refused is not None:
            raise refused

    def reweigh(self, target: Target) -> dict[str, float]:
        """Compute the weights of all documents again. Returns the average lengths by retriever.

        Documents that others change or delete meanwhile stay as they are then.
        """
        self._channel.call("POST", f"{target.address.path}/_refresh")
        identity = self._identity(target)
        means = {name: _Mean() for name, r in identity.schema.retrievers.items() if r.kind == "lexical"}
        for batch in read_batches(self._channel, target.address, identity.schema, _AT_ONCE):
            _add_lengths(means, batch)
        averages = {name: mean.value for name, mean in means.items() if mean.value > 0}
        retrievers = dict(identity.schema.retrievers)
        for name, average in averages.items():
            retrievers[name] = replace(retrievers[name], average_length=average)
        schema = replace(identity.schema, retrievers=retrievers)
        if averages:
            weighed = replace(identity, schema=schema, unsettled=True)
            self._put_meta(target, weighed)
            target.searcher.schema = schema
            stored = read_versions(self._channel, target.address, schema, _AT_ONCE)
            self.send(target, chain.from_iterable(self._weighed_lines(batch, weighed, of) for batch, of in stored))
            self._put_meta(target, replace(self._identity(target), unsettled=False))
        return averages

    def is_unsettled(self, target: Target) -> bool:
        """Whether the weights may be of several average lengths. False while this object runs a load."""
        return not self.loads and self._identity(target).unsettled

    def end_crashed_load(self, pinned: Callable[[], Target]) -> None:
        """Restore the settings that an interrupted load has relaxed. Do nothing while this object runs a load."""
        if not self.loads and not self._settled:
            target = pinned()
            self._ended(target, self._identity(target))
        self._settled = False

    def send(self, target: Target, lines: Iterable[tuple[str, bytes]], *, refresh: bool = False) -> int:
        """Send lines of the bulk API. Returns how many documents were stored or deleted.

        With `refresh`, each request refreshes the shards that it writes to.
        """
        options = "filter_path=errors,items.*.status,items.*.error" + ("&refresh=true" if refresh else "")

        def post(body: bytes) -> tuple[int, bytes]:
            path = f"{target.address.path}/_bulk?{options}"
            status, content = self._channel.send(Call("POST", path, body, SMILE))
            return status, content.encode() if isinstance(content, str) else content

        refuse = partial(refusal, target.address)
        sender = BulkSender(post, threads=self._threads, retryable=(NoAnswerError,), refusal=refuse)
        try:
            done = sender.send_all(lines)
        finally:
            self.writes += 1
            target.searcher.forget()
        if target.alias is not None:
            self._identity(target)
        return done

    def delete_found(self, target: Target, query: Json) -> int:
        """Delete the documents that a query finds. Returns how many were deleted.

        A server without the module `reindex` knows no `_delete_by_query`. There, the ids are read and then deleted.

        Raises:
            BackendError: Others change the documents all the time, or the engine did not delete some of them.
        """
        options = f"conflicts=proceed&max_docs={_DELETED_AT_ONCE}&scroll_size={_READ_AT_ONCE}"
        path = f"{target.address.path}/_delete_by_query?{options}"
        call = Call("POST", path, orjson.dumps({"query": query}))
        deleted = disturbed = 0
        try:
            while True:
                status, body = self._channel.answer(call)
                if status == 400 and _NO_HANDLER in str(body):
                    found = scroll(self._channel, target.address, {**ID, "size": _AT_ONCE, "query": query})
                    return self.send(target, delete_lines(hit_id(hit) for hits in found for hit in hits))
                answer = decode(target.address, (status, body))
                deleted += int(answer["deleted"])
                if failures := answer["failures"]:
                    raise refusal(target.address, int(failures[0].get("status", 500)), failures[0].get("cause", {}))
                conflicts = int(answer["version_conflicts"])
                if not conflicts and int(answer["total"]) < _DELETED_AT_ONCE:
                    break
                disturbed += conflicts > 0
                if disturbed == _DISTURBED:
                    raise BackendError(
                        f"{number_of(deleted, 'document was', 'documents were')} deleted, but others change "
                        f"{number_of(conflicts, 'document')} of the index {target.address.index!r} all the time: call "
                        "delete again when nobody else writes."
                    )
                self._channel.call("POST", f"{target.address.path}/_refresh")  # so that the next request sees this one
        finally:
            self.writes += 1
            target.searcher.forget()
        if target.alias is not None:
            self._identity(target)
        return deleted

    def _lines(self, target: Target, batch: EncodedBatch, identity: Identity) -> Iterator[tuple[str, bytes]]:
        # The identity is always new. If the index was deleted, the bulk API would make a new one without our mapping.
        check_batch(batch, identity.schema)
        if not self.loads:
            identity = self._ended(target, identity)
        schema = _with_averages(identity.schema, batch)
        if schema != identity.schema:
            self._put_meta(target, replace(identity, schema=schema))
        target.searcher.schema = schema
        if not self.loads:
            self._note_lengths(batch, identity.schema, schema)
        return self._weighed_lines(batch, replace(identity, schema=schema))

    def _lines_of_all(
        self, target: Target, batches: Iterable[EncodedBatch], lengths: Mapping[str, _Mean]
    ) -> Iterator[tuple[str, bytes]]:
        for batch in batches:
            if len(batch):
                yield from self._lines(target, batch, self._identity(target))
                _add_lengths(lengths, batch)

    def _weighed_lines(
        self, batch: EncodedBatch, identity: Identity, unchanged: Sequence[Unchanged] | None = None
    ) -> Iterator[tuple[str, bytes]]:
        schema = identity.schema
        averages = {name: r.average_length or 0.0 for name, r in schema.retrievers.items() if r.kind == "lexical"}
        with self._lock:
            stamp = self._stamp = max(self._stamp + 1, time.time_ns() // 1000)
        forms = {
            "rough": identity.options.get("sparse") == "seismic",
            "by_impacts": self._impacts and identity.impacts,
            "literal": identity.literal,
            "compressed": identity.compressed,
        }
        return bulk_lines(batch, schema, averages, stamp, unchanged=unchanged, **forms)

    def _note_lengths(self, batch: EncodedBatch, before: Schema, schema: Schema) -> None:
        """Warn if the upserted documents differ much from the average length that the first batch set."""
        now = schema.retrievers
        for name, retriever in before.retrievers.items():
            if retriever.average_length is None and now[name].average_length is not None:
                self._upserted[name] = _Mean()
        _add_lengths(self._upserted, batch)
        for name, mean in list(self._upserted.items()):
            if mean.texts >= _ENOUGH and _is_off(mean.value, now[name], _FAR):
                del self._upserted[name]
                what = "passage" if now[name].passages else "document"
                warn(
                    f"The {number_of(mean.texts, what)} so far have {mean.value:.4g} tokens on average, but the index "
                    f"{self._address.index!r} computes the weights of {name!r} with the average of the first batch, "
                    f"{now[name].average_length:.4g}: when all documents are stored, call reweigh() of the backend."
                )

    @contextlib.contextmanager
    def _relaxed(self, target: Target, empty: bool, *, unsettled: bool) -> Iterator[None]:
        """Relax the settings of the index, and restore them at the end.

        A relaxed index refreshes seldom or never. If it is empty, it has no replicas. If `unsettled`, the index is
        unsettled until this ends without an error.
        """
        identity = self._identity(target)
        path = f"{target.address.path}/_settings"
        settings = next(iter(self._channel.call("GET", path).values()))["settings"]["index"]
        before = identity.before_load or {
            "refresh_interval": settings.get("refresh_interval"),
            "number_of_replicas": settings["number_of_replicas"],
        }
        graphs = identity.options.get("dense") == "hnsw" and any(
            retriever.kind == "dense" for retriever in identity.schema.retrievers.values()
        )
        relaxed: dict[str, Json] = {"refresh_interval": _WITH_GRAPHS if graphs else "-1"}
        if empty:
            relaxed["number_of_replicas"] = 0
        try:
            with self._lock:
                self.loads += 1
                self._settled = False
            try:
                marked = replace(identity, before_load=before, unsettled=unsettled or identity.unsettled)
                self._put_meta(target, marked)
                self._call("PUT", path, {"index": relaxed})
                yield
                self._restore(target, before, settled=unsettled)
            finally:
                with self._lock:
                    self.loads -= 1
        except BaseException:
            with contextlib.suppress(HybridSearchError):  # the first error tells more than this one
                self._restore(target, before)
            raise

    def _restore(self, target: Target, before: Mapping[str, Json], *, settled: bool = False) -> None:
        path = target.address.path
        self._call("PUT", f"{path}/_settings", {"index": before})
        found = self._identity_in(self._call("GET", path))
        self._put_meta(target, replace(found, before_load=None, unsettled=found.unsettled and not settled))

    def _ended(self, target: Target, identity: Identity) -> Identity:
        """Restore relaxed settings, if there are any. Returns the identity after that."""
        if identity.before_load is not None:
            self._restore(target, identity.before_load)
        self._settled = True
        return replace(identity, before_load=None)

    def _put_meta(self, target: Target, identity: Identity) -> None:
        self._call("PUT", f"{target.address.path}/_mapping", {"_meta": identity.to_meta()})

    def _identity(self, target: Target) -> Identity:
        """The identity of the index as it is now, because another process may have changed it.

        Raises:
            IndexNotFoundError: The index was deleted.
            BackendError: The alias was moved to another index.
        """
        found = self.look()
        if target.alias is not None and only_index(found, self._address)[0] != target.address.index:
            raise BackendError(
                f"The alias {target.alias!r} at {self._address} was moved while documents were written. The index "
                f"{target.address.index!r} has only a part of them: write them again."
            )
        return self._identity_in(found)

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Make a call that does no harm if it is made twice. During a load it is repeated while a node restarts."""
        return self._channel.call(method, path, body, patient=self.loads > 0)

    def _identity_in(self, found: Json) -> Identity:
        return Identity.from_meta(next(iter(found.values()))["mappings"].get("_meta"), self._address)


def _with_averages(schema: Schema, batch: EncodedBatch) -> Schema:
    """The schema with an average length for each lexical retriever. The first batch that has terms decides it."""
    retrievers = dict(schema.retrievers)
    for name, retriever in schema.retrievers.items():
        vectors = batch.vectors[name]
        if retriever.kind == "lexical" and retriever.average_length is None and isinstance(vectors, SparseVectors):
            average = float(text_lengths(vectors).mean())
            if average > 0:
                retrievers[name] = replace(retriever, average_length=average)
    return replace(schema, retrievers=retrievers) if retrievers != schema.retrievers else schema


def _shards(found: Json) -> int:
    """The number of primary shards of an index."""
    return int(next(iter(found.values()))["settings"]["index"]["number_of_shards"])


@dataclass(slots=True)
class _Mean:
    """The average length of documents or passages. Those that have no terms count too."""

    tokens: float = 0.0
    texts: int = 0

    @property
    def value(self) -> float:
        return self.tokens / self.texts if self.texts else 0.0


def _add_lengths(means: Mapping[str, _Mean], batch: EncodedBatch) -> None:
    for name, mean in means.items():
        vectors = batch.vectors[name]
        if isinstance(vectors, SparseVectors):
            mean.tokens += float(text_lengths(vectors).sum())
            mean.texts += len(vectors)


def _is_off(mean: float, retriever: RetrieverSchema, tolerated: float = _TOLERATED) -> bool:
    """Whether the average length in the schema differs from `mean` by more than is tolerated."""
    frozen = retriever.average_length
    return frozen is not None and mean > 0 and abs(frozen - mean) > tolerated * mean
