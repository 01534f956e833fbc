"""`HybridSearch` makes an index and searches it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypedDict, Unpack

from hybridsearch import arguments
from hybridsearch.arguments import whole_number
from hybridsearch.backends import AsyncBackend, Backend, Schema, check_schema
from hybridsearch.corpus.remote import PACKAGES
from hybridsearch.documents import Document, spellings
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.sharing import shared_with
from hybridsearch.errors import (
    BackendError,
    FingerprintMismatchError,
    IndexNotFoundError,
    InvalidArgumentError,
    NoRetrieverError,
)
from hybridsearch.feedback import Feedback, Planned, check_feedback
from hybridsearch.filters import Compare, Condition, Filter
from hybridsearch.forks import after_fork
from hybridsearch.fusion import RRF, Fusion, make_fusion, read_fusion
from hybridsearch.fusion.files import restricted
from hybridsearch.hits import Explanation, Results
from hybridsearch.indexing.adding import Documents, add_documents, check_sync
from hybridsearch.indexing.cluster import RayCluster, SharedPlace, Stored, encode_shards
from hybridsearch.indexing.encoding import IndexEncoders
from hybridsearch.indexing.filtered import delete_selected, select
from hybridsearch.indexing.ingest import IndexReport, Prepare
from hybridsearch.indexing.transfer import Source, Transfer
from hybridsearch.listing import Listing, Order, read_cursor
from hybridsearch.messages import redacted, warn
from hybridsearch.passages import Passages
from hybridsearch.places import Recipe, connected, place_name
from hybridsearch.ranking import Ranking
from hybridsearch.readers import Table
from hybridsearch.rerank import MMR, Boost, Reranker, check_reranker
from hybridsearch.retrieval import Plan, filter_notes
from hybridsearch.selection import Selection

_FETCHED: Final = 1024  # documents that are read at a time

CONFIGURED: Final = "configured"
"""Default of an argument of a call: use the reranker that the `HybridSearch` was made with."""


class SearchOptions(TypedDict, total=False):
    """The options of `HybridSearch.search`, which describes them."""

    filter: Mapping[str, Any] | None
    retrievers: Collection[str] | None
    candidates: int | None
    fusion: Fusion | str | Path | None
    reranker: Reranker | Literal["configured"] | None
    offset: int
    min_score: float | Mapping[str, float] | None
    boost: Boost | Sequence[Boost] | None
    group_by: str | None
    diversity: MMR | None
    feedback: Feedback | Sequence[Feedback] | None


class HybridSearch:
    """An index with one or more retrievers, and the search in it.

    A search merges the rankings of the retrievers, and can rerank the first documents. Each hit explains its rank.

    Args:
        retrievers: Encoders by name, such as `{"bm25": hs.BM25(), "dense": hs.Dense("...")}`.
        backend: Place of the index: `"memory"`, a folder, an engine's URL, or a `Backend`. If there is an index, it is
            opened, and its fingerprints must be those of `retrievers`.
        fusion: Method that merges the rankings: a `Fusion`, or a name (`"rrf"`, `"minmax"`, `"zscore"`, `"adaptive"`),
            or the path of a file that `Fusion.save` or `hs.tune` wrote. A file of `hs.tune` also sets `candidates`.
            None uses the fusion of the existing index, or `RRF()` for a new one. If you open an index with some of its
            retrievers, these keep their weights.
        reranker: Reranker that reorders the top of the fused ranking. None for no reranker.
        passages: Passages that the retrievers read in place of whole documents. None uses the setting of the existing
            index; a new index then has no passages, and each retriever reads whole documents.
        candidates: Number of documents that are read from each retriever. A search reads at least `top_k`. None uses
            the number of the existing index, or 100 for a new one.
        optional: Names of the optional retrievers. If one of them fails, the search answers without it, and
            `Results.degraded` names it.
        timeout: Seconds that a retriever may take to encode and search in one call: one number for all retrievers, or
            numbers by name. None for no limit.
        backend_options: Keyword arguments of the backend that `backend` names.
        refresh: Time between two looks for changes that other processes made (see the method `refresh`): a number of
            seconds, or a text such as `"1s"`, `"500ms"` or `"5m"`. None for no looks.

    Raises:
        FingerprintMismatchError: The index was built with another encoder or other passages.
        InvalidArgumentError: An argument is not allowed, or the index does not have one of the retrievers.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.index([
    ...     hs.Document("wing", "Lift grows with the angle of attack until the flow separates."),
    ...     hs.Document("heat", "Heat transfer in a laminar boundary layer."),
    ... ], show_progress_bar=False)
    >>> results = search.search("separated flow over a wing")
    >>> [(hit.id, hit.rank, hit.retrievers["bm25"].rank) for hit in results]
    [('wing', 1, 1)]
    >>> sorted(results[0].explain().terms["bm25"])
    ['flow', 'separ']
    """

    def __init__(
        self,
        retrievers: Mapping[str, Encoder],
        backend: str | Path | Backend = "memory",
        fusion: Fusion | str | Path | None = None,
        reranker: Reranker | None = None,
        *,
        passages: Passages | None = None,
        candidates: int | None = None,
        optional: Collection[str] = (),
        timeout: float | Mapping[str, float] | None = None,
        backend_options: Mapping[str, Any] | None = None,
        refresh: float | str | None = None,
        _recorded: Collection[str] = (),
        _recipe: Recipe[HybridSearch] | None = None,
    ) -> None:
        options = {"optional": optional, "timeout": timeout, "backend_options": backend_options, "refresh": refresh}
        settings = {"fusion": fusion, "reranker": reranker, "passages": passages, "candidates": candidates}
        given = {"retrievers": retrievers, **settings, **options}
        self._recipe = _recipe or Recipe(type(self), "backend", backend, given)
        self._every = None if refresh is None else arguments.seconds("refresh", refresh)
        self._checked = time.monotonic()
        self._encoders = IndexEncoders(retrievers, passages)
        self.reranker = _check_reranker(reranker)
        self.optional = frozenset(arguments.names(optional))
        self.timeout = _timeouts(timeout, self._encoders.given)
        self._encoders.check_names(self.optional, "optional")
        self._place = place_name(self._recipe.place)
        self._make_locks()
        after_fork(self, HybridSearch._make_locks)
        self._known: set[Condition] = set()
        with connected(backend, backend_options) as self._backend:
            schema = self._encoders.schema = self._backend.open()
            self._encoders.backend = self._backend if hasattr(self._backend, "reopen") else None
            recorded = {} if schema is None else schema.settings
            if fusion is None:
                fusion = make_fusion(restricted(recorded["fusion"], retrievers)) if "fusion" in recorded else RRF()
            self.fusion, candidates = read_fusion(fusion, candidates)
            self._check_weights(self.fusion, retrievers)
            self.candidates = whole_number(
                "candidates", recorded.get("candidates", 100) if candidates is None else candidates
            )
            if schema is not None:
                self._check_retrievers(schema)
                self._encoders.check_passages(schema, str(self._place))
                for name in retrievers:
                    if name not in self.optional.union(_recorded):  # these are checked at their first search
                        self._encoders.verified(name)
        self._opened = self._settings()

    @property
    def retrievers(self) -> dict[str, Encoder]:
        """The encoder of each retriever, by the retriever's name."""
        return dict(self._encoders.given)

    @property
    def passages(self) -> Passages | None:
        """Settings of the passages. None if the retrievers read whole documents."""
        return self._encoders.passages

    @property
    def backend(self) -> Backend:
        """The backend that holds the index."""
        return self._backend

    @property
    def place(self) -> str:
        """Place of the index, without passwords: a folder, a URL, or `"memory"`."""
        return str(self._place)

    # Adding, removing and reading documents

    def index(
        self,
        documents: Iterable[Document | Mapping[str, Any]] | Table | str | Path,
        *,
        batch_size: int = 1024,
        via: str | Path | None = None,
        cluster: RayCluster | None = None,
        sync: bool | Callable[[int], bool] = False,
        show_progress_bar: bool | None = None,
    ) -> IndexReport:
        """Add documents to the index. A document replaces the stored document that has the same id.

        The documents are read as a stream, so they may be larger than the memory. After a crash, make the same call
        again: documents that are stored already and have not changed are not encoded again. An empty index loads many
        documents in the fastest way of its engine. An index that has documents stores one batch after the other.

        Args:
            documents: Documents or dicts, a DataFrame of pandas or polars, a table of pyarrow, or the path of a file or
                folder. `hs.read_documents` reads them. Call it yourself if you need its options.
            batch_size: Number of documents that are encoded together. They are also stored together, unless the index
                is new: then several batches may be stored together, and searches find them up to ten seconds later.
            via: Place that keeps the encoded documents: a folder, or a URL of object storage such as
                `"s3://bucket/encoded"`. All documents are first encoded into an index there, which is then copied to
                this one. After a crash nothing is encoded twice.
            cluster: Ray cluster that encodes the documents into the folder `via`, with many workers. None encodes in
                this process.
            sync: Whether to remove the documents of the index that are not in `documents`. They are removed at the end.
                A function gets the number of these documents, if there are any, and returns whether to remove them.
            show_progress_bar: Whether to show a progress bar. None shows one in a terminal.

        Returns:
            Counts of stored, unchanged and removed documents, the ids that came twice, and notes.

        Raises:
            DocumentError: A document is not usable. The batches before it are stored. With `sync`, the error also comes
                if the reader skipped lines, because the missing documents are not known then, and if the source is
                empty.
            BulkIndexError: The engine refused some documents. All others are stored. If another error ends the call,
                this error has a note about the refused documents.
        """
        batch_size = whole_number("batch_size", batch_size)
        if not isinstance(sync, bool) and not callable(sync):
            raise InvalidArgumentError(
                f"sync is True, False or a function such as lambda number: number < 100, not {arguments.shown(sync)}."
            )
        if sync:
            if via is not None:
                raise InvalidArgumentError(
                    "sync (--sync) does not work with via (--via): call index again without via to sync."
                )
            check_sync(self._backend, str(self._place))
        if via is not None:
            with self._changing():
                return self._index_via(via, documents, cluster, batch_size, show_progress_bar)
        if cluster is not None:
            raise InvalidArgumentError("A cluster encodes into a folder first: give the folder as via (--via).")
        if self._encoders.schema is None:
            self.refresh()  # another process, or a call that was interrupted, may have made the index
        with self._changing(), shared_with(self.reranker):
            return add_documents(
                self._backend,
                self._encoders,
                documents,
                create=self._create,
                batch_size=batch_size,
                sync=sync,
                show_progress_bar=show_progress_bar,
                prepare=self._prepare(),
            )

    def upsert(
        self, documents: Document | Mapping[str, Any] | Table | Iterable[Document | Mapping[str, Any]]
    ) -> IndexReport:
        """Add one document or a few, as `index` does, without a progress bar.

        Args:
            documents: One document, or anything that `index` takes.

        Returns:
            The report of `index`.
        """
        if isinstance(documents, Document | Mapping):
            documents = [documents]
        return self.index(documents, show_progress_bar=False)

    def delete(self, ids: str | Iterable[str] | None = None, *, filter: Mapping[str, Any] | None = None) -> int:
        """Remove documents by id, or all documents that a filter allows.

        Give either ids or a filter. A filter is one request to an engine on a server, and one commit of an index in a
        folder. If the filter names a field that no document has, there is a warning.

        Args:
            ids: One document id, or several. They mean the documents that `get` reads. Unknown ids are ignored.
            filter: Filter in the language of `hybridsearch.filters`. `{"id": {"$exists": True}}` removes all documents.

        Returns:
            Number of documents that were removed.

        Raises:
            BackendError: The engine cannot delete, or it cannot filter.
            FilterError: The filter is not usable, or it is empty.
            IndexNotFoundError: Nothing has been indexed yet.
            InvalidArgumentError: Both ids and a filter are given, or neither.

        >>> import hybridsearch as hs
        >>> search = HybridSearch({"bm25": hs.BM25()})
        >>> report = search.upsert([{"id": id, "text": "wing", "year": y} for id, y in (("a", 1958), ("b", 1971))])
        >>> search.delete(filter={"year": {"$lt": 1960}}), search.delete("b")
        (1, 1)
        """
        if (ids is None) == (filter is None):
            both = "neither is" if ids is None else "both are"
            raise InvalidArgumentError(f"delete takes ids or a filter, but {both} given: give one of them.")
        self._check_indexed()
        if not self._backend.capabilities.delete:
            raise BackendError(
                f"The engine at {self._place} cannot delete documents: index the documents to keep into another place."
            )
        parsed = self._parsed(filter)
        if parsed is None:
            given = arguments.ids(() if ids is None else ids)
            spelt = [id for id in given if len(spellings(id)) > 1]
            found = {id: one.id for part in _parts(spelt) for id, one in zip(part, self.get(part), strict=True) if one}
            with self._changing():
                return self._backend.delete([found.get(id, id) for id in given])
        for note in filter_notes(self._backend, parsed, self._known):
            warn(note)
        with self._changing():
            return delete_selected(self._backend, parsed)

    def documents(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Listing:
        """List the documents of the index, or those that a filter allows, without a query.

        The documents come one after the other, so there may be more than fit into memory. Documents that are added,
        changed or deleted meanwhile may come or not, but no document comes twice.

        A list by id begins at once, except on Qdrant. Another order first reads the sort fields of all documents that
        the filter allows.

        Args:
            filter: Filter in the language of `hybridsearch.filters`. None lists all documents.
            sort: Field to sort by, such as `"year"`, or `"-year"` for descending, or a list of fields. The id decides
                between equal values. `hybridsearch.listing` has the rules. None sorts by id.
            limit: Largest number of documents. None lists all.
            after: `Listing.cursor` of an earlier list, to continue it. The `sort` must be the same.

        Returns:
            An iterator over the documents. Its `cursor` continues the list later. Its `notes` name fields that no
            document has.

        Raises:
            IndexNotFoundError: Nothing has been indexed yet.
            FilterError: The filter is not usable. It may come with the first document.
            InvalidArgumentError: Another argument is not usable.
            BackendError: There is a filter, and the engine cannot filter, or the engine cannot list its documents.

        >>> import hybridsearch as hs
        >>> search = HybridSearch({"bm25": hs.BM25()})
        >>> report = search.upsert([{"id": id, "text": "wing", "year": y} for id, y in (("a", 1958), ("b", 1971))])
        >>> [document.id for document in search.documents(sort="-year")]
        ['b', 'a']
        """
        self._check_indexed()
        order, parsed = Order.parse(sort), self._parsed(filter)
        most = arguments.whole_number_or_none("limit", limit)
        place = None if after is None else read_cursor(order, after)
        return Listing(
            lambda after, limit: select(self._backend, parsed, order, after, limit),
            order,
            place,
            most,
            lambda: [*filter_notes(self._backend, parsed, self._known), *self._sort_notes(order)],
        )

    def get(self, ids: str | Iterable[str]) -> list[Document | None]:
        """Read documents by id.

        If there is no document with an id, the id means the document whose id Unicode treats as equal. For example, the
        "é" that a keyboard writes equals the "é" in names of files on macOS.

        Args:
            ids: One document id, or several.

        Returns:
            One document for each id, in the order of `ids`. None for an unknown id.

        Raises:
            IndexNotFoundError: Nothing has been indexed yet.
        """
        self._check_indexed()
        forms = [spellings(id) for id in arguments.ids(ids)]
        found = iter(self._backend.fetch(list(chain.from_iterable(forms))))
        documents = [[next(found) for _ in of_id] for of_id in forms]
        return [next((one for one in of_id if one is not None), None) for of_id in documents]

    def count(self, filter: Mapping[str, Any] | None = None) -> int:
        """Count the documents of the index, or those that a filter allows.

        A number cannot have notes: `documents(filter).notes` names fields of the filter that no document has.

        Args:
            filter: Filter in the language of `hybridsearch.filters`. None counts all documents.

        Returns:
            Number of documents. 0 if nothing has been indexed yet.

        Raises:
            FilterError: The filter is not usable.
            BackendError: There is a filter, and the engine cannot filter.
        """
        parsed = self._parsed(filter)
        return self._backend.count(parsed) if self._is_indexed() else 0

    # Searching

    def search(
        self,
        query: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        retrievers: Collection[str] | None = None,
        candidates: int | None = None,
        fusion: Fusion | str | Path | None = None,
        reranker: Reranker | Literal["configured"] | None = CONFIGURED,
        offset: int = 0,
        min_score: float | Mapping[str, float] | None = None,
        boost: Boost | Sequence[Boost] | None = None,
        group_by: str | None = None,
        diversity: MMR | None = None,
        feedback: Feedback | Sequence[Feedback] | None = None,
    ) -> Results:
        """Find the best documents for a query.

        The arguments count for this call only. They do not change the settings of the `HybridSearch`.

        Args:
            query: Text of the query. Empty or blank text finds nothing.
            top_k: Number of hits.
            filter: Filter in the language of `hybridsearch.filters`. Each retriever applies it before it cuts its
                ranking. None searches all documents.
            retrievers: Names of the retrievers to ask. None asks all.
            candidates: Number of documents that are read from each retriever. None uses the setting.
            fusion: Method that merges the rankings, as in `HybridSearch`. None uses the setting.
            reranker: Reranker of this call. `"configured"` uses the setting. None turns reranking off.
            offset: Number of first hits to leave out, for the next page. With the same other arguments, pages never
                show a hit twice. Pages end with the last of the candidates.
            min_score: Least score of a hit, after fusion, boosts and reranking. If there is a reranker, hits that it
                did not score are left out. A mapping has a least score for single retrievers, such as `{"dense": 0.4}`:
                a retriever does not find documents with a lower score. It has no effect on a retriever that is not
                asked.
            boost: Boosts that raise scores by metadata, such as `hs.Recency("published")` or `hs.FieldBoost(...)`.
            group_by: Metadata field that groups the hits. Each value gives one hit, the best, which names the others.
            diversity: `hs.MMR(...)` for hits that differ from each other. None for the best hits.
            feedback: `hs.RM3(...)` for BM25, `hs.Rocchio(...)` for dense and sparse retrievers, or a list of them. The
                first documents of the retriever then expand its query, and it searches again. None for one search.

        Returns:
            The hits, best first, with notes and timings.

        Raises:
            IndexNotFoundError: Nothing has been indexed yet.
            FilterError: The filter is not usable.
            InvalidArgumentError: Another argument is not usable.
            BackendError: There is a filter, and the engine cannot filter.
            RetrieverError: A retriever that is not optional failed.
            RetrieverTimeoutError: A retriever that is not optional took longer than its timeout.
        """
        queries = _check_query(query)
        plan = self.plan(
            top_k,
            filter=filter,
            retrievers=retrievers,
            candidates=candidates,
            fusion=fusion,
            reranker=reranker,
            offset=offset,
            min_score=min_score,
            boost=boost,
            group_by=group_by,
            diversity=diversity,
            feedback=feedback,
        )
        return plan.results(queries)[0]

    def search_many(self, queries: Iterable[str], top_k: int = 10, **options: Unpack[SearchOptions]) -> list[Results]:
        """Find the best documents for each of several queries, faster than a loop over `search`.

        The results are those of `search`. Scores may differ in the last digits if a neural encoder is used, because it
        encodes the queries in one batch.

        Args:
            queries: Texts of the queries.
            top_k: Number of hits for each query.
            **options: The other arguments of `search`.

        Returns:
            One `Results` for each query, in the order of `queries`.
        """
        return self.plan(top_k, **options).results(queries)

    def rankings(
        self,
        queries: Iterable[str],
        *,
        filter: Mapping[str, Any] | None = None,
        retrievers: Collection[str] | None = None,
        candidates: int | None = None,
        feedback: Feedback | Sequence[Feedback] | None = None,
    ) -> list[dict[str, Ranking]]:
        """Get the ranking of each retriever for each query, before the rankings are merged.

        Args:
            queries: Texts of the queries.
            filter: Filter in the language of `hybridsearch.filters`. None searches all documents.
            retrievers: Names of the retrievers to ask. None asks all.
            candidates: Number of documents in each ranking. None uses the setting.
            feedback: `hs.RM3(...)`, `hs.Rocchio(...)` or a list of them, as in `search`.

        Returns:
            For each query, in order, the rankings by retriever name. If an optional retriever failed, a warning says
            so, and its rankings are missing.

        >>> import hybridsearch as hs
        >>> search = HybridSearch({"bm25": hs.BM25()})
        >>> report = search.index([hs.Document("a", "a wing"), hs.Document("b", "a jet")], show_progress_bar=False)
        >>> [{name: ranking.ids for name, ranking in found.items()} for found in search.rankings(["wing", "jet"])]
        [{'bm25': ('a',)}, {'bm25': ('b',)}]
        """
        plan = self.plan(filter=filter, retrievers=retrievers, candidates=candidates, reranker=None, feedback=feedback)
        answers = replace(plan, passages=()).ask(queries)
        for name, reason in answers.failures.items():
            warn(f"The rankings are without {name}: {reason}")
        return answers.by_query

    async def asearch(self, query: str, top_k: int = 10, **options: Unpack[SearchOptions]) -> Results:
        """Find the best documents for a query without blocking the event loop.

        The results are those of `search`. If the engine has an asynchronous client, its requests are awaited.
        Encoders, rerankers and other engines work in threads. If you cancel the call, or a retriever's timeout ends,
        the request to the engine is cancelled. A thread finishes its work, and its answer is not used.

        Args:
            query: Text of the query.
            top_k: Number of hits.
            **options: The other arguments of `search`.

        Returns:
            The hits, best first, with notes and timings.
        """
        return (await self.asearch_many(_check_query(query), top_k, **options))[0]

    async def asearch_many(
        self, queries: Iterable[str], top_k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Results]:
        """Find the best documents for each of several queries without blocking the event loop.

        Args:
            queries: Texts of the queries.
            top_k: Number of hits for each query.
            **options: The other arguments of `search`.

        Returns:
            One `Results` for each query, in the order of `queries`.
        """
        if self._is_due() or self._encoders.schema is None:
            await asyncio.to_thread(self._check_indexed)
        return await self.plan(top_k, **options).aresults(queries)

    def plan(
        self,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | Filter | None = None,
        retrievers: Collection[str] | None = None,
        candidates: int | None = None,
        fusion: Fusion | str | Path | None = None,
        reranker: Reranker | Literal["configured"] | None = CONFIGURED,
        offset: int = 0,
        min_score: float | Mapping[str, float] | None = None,
        boost: Boost | Sequence[Boost] | None = None,
        group_by: str | None = None,
        diversity: MMR | None = None,
        feedback: Feedback | Sequence[Feedback] | None = None,
    ) -> Plan:
        """Check the arguments of a search, and make the `Plan` that answers queries with them.

        `plan.results(queries)` returns the hits. `plan.ask(queries)` returns the rankings of the retrievers. In an
        event loop, use `aresults` and `aask`. All searches of `HybridSearch` go through a plan.

        Args:
            top_k: Number of hits for each query.
            filter: Filter in the language of `hybridsearch.filters`, or a parsed `Filter`. None searches all documents.
            retrievers: Names of the retrievers to ask. None asks all.
            candidates: Number of documents that are read from each retriever. None uses the setting.
            fusion: Method that merges the rankings, as in `HybridSearch`. None uses the setting.
            reranker: Reranker of the plan. `"configured"` uses the setting. None turns reranking off.
            offset: Number of first hits to leave out, as in `search`.
            min_score: Least score of a hit, as in `search`.
            boost: Boosts that raise scores by metadata, as in `search`.
            group_by: Metadata field that groups the hits, as in `search`.
            diversity: `hs.MMR(...)` for hits that differ from each other, as in `search`.
            feedback: `hs.RM3(...)`, `hs.Rocchio(...)` or a list of them, as in `search`.

        Returns:
            The plan.

        Raises:
            IndexNotFoundError: Nothing has been indexed yet.
            FilterError: The filter is not usable.
            InvalidArgumentError: Another argument is not usable.

        >>> import hybridsearch as hs
        >>> search = HybridSearch({"bm25": hs.BM25()})
        >>> report = search.index([hs.Document("a", "a wing"), hs.Document("b", "a jet")], show_progress_bar=False)
        >>> plan = search.plan(top_k=1, candidates=50)
        >>> plan.retrievers, plan.depth, plan.fusion, plan.reranker, plan.top_k
        (('bm25',), 50, RRF(k=60), None, 1)
        >>> [results.ids for results in plan.results(["wing", "jet"])]
        [['a'], ['b']]
        >>> [ranking.ids for ranking in plan.ask(["wing", "jet"]).rankings["bm25"]]
        [('a',), ('b',)]
        """
        self._check_indexed()
        top_k = whole_number("top_k", top_k)
        fusion, candidates = (self.fusion, candidates) if fusion is None else read_fusion(fusion, candidates)
        depth = self.candidates if candidates is None else whole_number("candidates", candidates)
        parsed = self._parsed(filter)
        names = self._asked(retrievers, fusion)
        reranker = self.reranker if isinstance(reranker, str) and reranker == CONFIGURED else _check_reranker(reranker)
        return Plan(
            retrievers=tuple(names),
            depth=max(depth, top_k),
            filter=parsed,
            fusion=fusion,
            reranker=reranker,
            top_k=top_k,
            backend=self._backend,
            encoder=self._encoders.verified,
            optional=self.optional,
            timeout=self.timeout,
            known=self._known,
            passages=tuple(name for name in names if self.passages and name not in (self.passages.whole or ())),
            selection=Selection.of(offset, min_score, boost, diversity, group_by, list(self._encoders.given)),
            exact=len(names) == 1 and self._is_exact(names[0], max(depth, top_k)),
            feedback={} if feedback is None else self._planned(feedback, names),
            headings=self._headings(),
        )

    def explain(
        self,
        query: str,
        id: str,
        *,
        retrievers: Collection[str] | None = None,
        candidates: int | None = None,
        feedback: Feedback | Sequence[Feedback] | None = None,
    ) -> Explanation:
        """Explain the place of one document in the results of a query.

        The document may be any document of the index, even if no retriever has it among its candidates. A search reads
        at least `top_k` documents from each retriever. After a search with a larger `top_k` than `candidates`, give
        `top_k` as `candidates`.

        Args:
            query: Text of the query.
            id: Id of the document.
            retrievers: Names of the retrievers to ask. None asks all.
            candidates: Number of documents that are read from each retriever. None uses the setting.
            feedback: `hs.RM3(...)`, `hs.Rocchio(...)` or a list of them, as in `search`.

        Returns:
            Ranks, scores and contributions of the document, and its matched terms.

        Raises:
            InvalidArgumentError: There is no document with this id.
            IndexNotFoundError: Nothing has been indexed yet.
        """
        if not isinstance(id, str):
            raise InvalidArgumentError(f"The id of a document is one string, not {id!r:.80}.")
        (document,) = self.get(id)
        if document is None:
            raise InvalidArgumentError(f"There is no document {id!r} in the index.")
        plan = self.plan(1, retrievers=retrievers, candidates=candidates, feedback=feedback)
        return plan.explain(query, document)

    # Saving, refreshing and closing

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write an index in RAM to a folder, which `hs.open` opens.

        The index is written completely or not at all.

        Args:
            path: Folder of the new index.
            overwrite: Whether to replace an index that is in the folder already.

        Raises:
            IndexExistsError: There is something at `path`. `overwrite=True` replaces an index, and nothing else.
            BackendError: The index is not in RAM, so its engine keeps it already.
            IndexNotFoundError: Nothing has been indexed yet.
        """
        arguments.true_or_false("overwrite", overwrite)
        self._check_indexed()
        save = getattr(self._backend, "save", None)
        if save is None:
            raise BackendError(f"The engine at {self._place} stores the index, so there is nothing to save.")
        save(path, overwrite=overwrite)

    def refresh(self) -> None:
        """Read the changes that other processes have made to the index.

        Other processes may have stored or deleted documents. They may also have made, deleted or replaced the index.
        If the index was replaced, its encoders and settings are used unless you gave or set others. Searches that have
        begun use the old state. A plan or a copy whose encoders do not fit the new index raises
        FingerprintMismatchError at its next search: make the plan again, or refresh the copy, too. If nothing has
        changed, the call costs one look at a file's time or one request to a server. An index in RAM and the documents
        of an index on a server are always up to date.

        Raises:
            IndexCorruptedError: A file of the index is damaged. After this and the next two errors, searches use the
                old state.
            BackendError: The engine did not answer, or refused the request.
            StorageError: A file cannot be read.
            FingerprintMismatchError: The new index was built with another encoder than the one given. Searches raise
                this error, too.
            InvalidArgumentError: The new index does not fit the settings given.
        """
        with self._refreshing:
            self._look_again()

    def close(self) -> None:
        """Release the index's files and connections.

        A second call does nothing.
        """
        self._backend.close()

    async def aclose(self) -> None:
        """Release the index's files and connections, and the connections that `asearch` opened in this event loop.

        `contextlib.aclosing` calls it.
        """
        if isinstance(self._backend, AsyncBackend):
            await self._backend.aclose()
        else:
            await asyncio.to_thread(self._backend.close)

    def __enter__(self) -> HybridSearch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = [f"retrievers={self._encoders.given!r}", f"backend={str(self._place)!r}", f"fusion={self.fusion!r}"]
        if self.reranker is not None:
            parts.append(f"reranker={self.reranker!r}")
        return f"HybridSearch({', '.join(parts)})"

    def __reduce__(self) -> tuple[Recipe[HybridSearch], tuple[()]]:
        """The pickle holds the place and the settings. Unpickling opens the index again."""
        recipe = self._to_its_place()
        recipe.check_pickles()
        return recipe, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> HybridSearch:
        """A second search, which opens the same place again. Its settings may be changed without changing this one."""
        return self._to_its_place()()

    def __copy__(self) -> HybridSearch:
        """A second search on the same open index. Its settings may be changed. Closing one of the two closes both."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        copied._make_locks()
        after_fork(copied, HybridSearch._make_locks)
        return copied

    # Private parts

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Forget at the end what filters were known to find, because documents were changed."""
        try:
            yield
        finally:
            self._known.clear()

    def _to_its_place(self) -> Recipe[HybridSearch]:
        """The recipe that opens this index again with the present settings."""
        if not self._backend.capabilities.persistent:
            raise BackendError(
                "An index in RAM cannot be pickled or copied deeply: save it with save(folder) and pickle "
                "hs.open(folder), or index into a folder from the start."
            )
        return self._recipe.placed(**self._settings(), optional=self.optional, timeout=self.timeout or None)

    def _settings(self) -> dict[str, Any]:
        """The settings that an index may record, as they are now."""
        return {"fusion": self.fusion, "reranker": self.reranker, "candidates": self.candidates}

    def _make_locks(self) -> None:
        """Make new locks. A forked process needs them, because the thread that held a lock does not exist there."""
        self._create_lock, self._refreshing = threading.Lock(), threading.Lock()

    def _refresh_if_due(self) -> None:
        """Look for changes if it is time to. One thread looks, and the others use the old state."""
        if self._is_due() and self._refreshing.acquire(blocking=False):
            try:
                self._look_again()
            finally:
                self._refreshing.release()

    def _prepare(self) -> Prepare | None:
        """The function that makes what the reranker keeps of documents. None if it has none."""
        prepare: Any = getattr(self.reranker, "prepare", None)
        return prepare if prepare is None or self._headings() else partial(prepare, headings=False)

    def _headings(self) -> bool:
        """Whether passages have headings."""
        return self.passages is None or self.passages.headings

    def _is_due(self) -> bool:
        return self._every is not None and time.monotonic() - self._checked >= self._every

    def _look_again(self) -> None:
        self._checked = time.monotonic()
        self._known.clear()
        schema: Schema | None = getattr(self._backend, "reopen", self._backend.open)()  # see `Reopened`
        known = self._encoders.schema
        if schema is known or schema == known:
            return
        if schema is None or (known is not None and _made_alike(schema, known)):
            self._encoders.schema = schema
            return
        now = self._settings()
        set_since = {name: value for name, value in now.items() if value != self._opened[name]}
        recipe = replace(self._recipe, options={**self._recipe.options, **set_since})
        there = recipe.on(self._backend)
        self._recipe, self._encoders, self._opened = recipe, there._encoders, there._opened
        self.fusion, self.candidates, self.reranker = there.fusion, there.candidates, there.reranker

    def _index_via(
        self,
        folder: str | Path,
        documents: Documents,
        cluster: RayCluster | None,
        batch_size: int,
        show_progress_bar: bool | None,
    ) -> IndexReport:
        """Encode the documents into an index in `folder`, then copy that index to this one."""
        scheme, mark, _ = str(folder).partition("://")
        if str(folder) == "memory" or (mark and scheme not in PACKAGES):
            raise InvalidArgumentError(
                "via is a folder, or a URL such as 's3://bucket/encoded', that keeps what was encoded, not "
                f"{redacted(folder)!r}."
            )
        schema, given = self._new_schema(), self._encoders.given
        encoders = {name: one for name, one in given.items() if schema.retrievers[name].kind != "text"}
        if not encoders:
            raise InvalidArgumentError(
                "The engine itself analyses the text for all retrievers, so there is nothing to encode: leave out via."
            )
        check_schema(schema, self._backend)  # now, not after hours of encoding
        fusion = self.fusion if len(encoders) == len(given) else None
        passages, candidates = self.passages, self.candidates
        if passages is not None:
            passages = replace(passages, whole=tuple(name for name in passages.whole or () if name in encoders))
        place = folder if cluster is None else "memory"
        with HybridSearch(encoders, place, fusion, self.reranker, passages=passages, candidates=candidates) as store:
            if passages is None and store.passages is not None:
                raise FingerprintMismatchError(
                    f"The index in {redacted(folder)!r} was made with {store.passages}, not with whole documents: "
                    "choose another folder as via (--via)."
                )
            source: Source = store.backend
            if cluster is None:
                encoded = store.index(documents, batch_size=batch_size, show_progress_bar=show_progress_bar)
            else:
                there = SharedPlace.of(folder)
                how = cluster, batch_size, show_progress_bar
                encoded = encode_shards(documents, there, store._encoders, store._new_schema(), *how)
                source = Stored(there.folder)
            started = time.perf_counter()
            moved = Transfer(source, self._backend, batch_size, show_progress_bar)
            moved.run(schema, self._backend.open())
        self._encoders.schema = self._backend.open()
        seconds = encoded.seconds + time.perf_counter() - started
        return replace(encoded, indexed=moved.copied, unchanged=moved.unchanged, seconds=seconds)

    def _check_retrievers(self, schema: Schema) -> None:
        if new := [name for name in self._encoders.given if name not in schema.retrievers]:
            raise InvalidArgumentError(
                f"The index at {str(self._place)!r} has the retrievers {', '.join(map(repr, schema.retrievers))}, and "
                f"{new[0]!r} cannot be added. Leave out {new[0]!r}, or index the documents into another place with all "
                "retrievers (the encoding cache keeps what models have encoded)."
            )

    def _create(self) -> None:
        """Make the index if there is none."""
        with self._create_lock:  # two threads may both add the first documents
            if self._encoders.schema is None:
                schema = self._new_schema()
                check_schema(schema, self._backend)
                self._backend.create(schema)
                self._encoders.built(schema)

    def _new_schema(self) -> Schema:
        """The schema of a new index."""
        reranker = {} if self.reranker is None else {"reranker": self.reranker.to_json()}
        settings = {"fusion": self.fusion.to_json(), "candidates": self.candidates, **reranker}
        return self._encoders.make_schema(settings)

    def _sort_notes(self, order: Order) -> Iterator[str]:
        for path, _ in order.fields:
            there = Filter(Compare(path, "$exists", True))
            if path != "id" and self._backend.capabilities.filters and not self._backend.count(there):
                yield f"The order names {path!r:.80}, but no document has this field."

    def _check_indexed(self) -> None:
        if not self._is_indexed():
            raise IndexNotFoundError(f"Nothing is indexed at {str(self._place)!r} yet: call index(documents) first.")

    def _is_indexed(self) -> bool:
        """Whether there is an index. Looks for changes first if it is time to, or if there was no index."""
        self._refresh_if_due()
        if self._encoders.schema is None:
            self.refresh()
        return self._encoders.schema is not None

    def _planned(self, feedback: Feedback | Sequence[Feedback], names: Sequence[str]) -> dict[str, Planned]:
        schema = self._encoders.schema
        return check_feedback(feedback, names, {} if schema is None else schema.retrievers, self._backend)

    def _is_exact(self, name: str, depth: int) -> bool:
        """Whether a ranking of fewer documents is the beginning of a ranking of `depth` documents."""
        schema, can = self._encoders.schema, self._backend.capabilities
        kind = None if schema is None else schema.retrievers[name].kind
        return kind is not None and (kind not in can.approximate or depth <= can.least_candidates.get(kind, 0))

    def _parsed(self, filter: Mapping[str, Any] | Filter | None) -> Filter | None:
        if filter is None:
            return None
        if not self._backend.capabilities.filters:
            raise BackendError(
                f"The engine at {self._place} cannot filter: leave out the filter, or copy the index to an engine that "
                "can filter."
            )
        return filter if isinstance(filter, Filter) else Filter.parse(filter)

    def _asked(self, retrievers: Collection[str] | None, fusion: Fusion) -> list[str]:
        """The names of the retrievers to ask. Retrievers with weight 0 are left out."""
        names = list(self._encoders.given) if retrievers is None else arguments.names(retrievers)
        self._encoders.check_names(names, "retrievers")
        self._check_weights(fusion, names)
        weighted = [name for name in names if fusion.weight(name) > 0]
        if not weighted:
            zeros = f"The fusion gives the weight 0 to {', '.join(map(repr, names))}, so no retriever"
            raise NoRetrieverError(
                f"{zeros if names else 'No retriever'} is left to ask: name another retriever, or give another fusion, "
                "such as fusion='rrf'."
            )
        return weighted

    def _check_weights(self, fusion: Fusion, names: Iterable[str]) -> None:
        """Raises InvalidArgumentError if the fusion has a weight for an unknown retriever, or lacks one of these."""
        self._encoders.check_names(fusion.weights or (), "fusion weights")
        for name in names:
            fusion.weight(name)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts whose documents fit into memory."""
    return (ids[first : first + _FETCHED] for first in range(0, len(ids), _FETCHED))


def _made_alike(schema: Schema, other: Schema) -> bool:
    """Whether the schemas are equal, apart from average lengths. The first documents of an index decide these."""
    ours, theirs = (
        replace(one, retrievers={name: replace(r, average_length=None) for name, r in one.retrievers.items()})
        for one in (schema, other)
    )
    return ours == theirs


def _timeouts(timeout: float | Mapping[str, float] | None, names: Iterable[str]) -> dict[str, float]:
    given = {} if timeout is None else timeout
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name, seconds in by_name.items():
        if name not in names:
            raise InvalidArgumentError(
                f"timeout names {name!r}, which is not a retriever. The retrievers are {', '.join(names)}."
            )
        checked = arguments.number(f"The timeout of {name!r}", seconds, above=0, most=math.inf, unit="seconds")
        by_name[name] = min(checked, threading.TIMEOUT_MAX)  # about 290 years
    return by_name


def _check_reranker(reranker: Reranker | str | None) -> Reranker | None:
    if reranker is None:
        return None
    checked = check_reranker(reranker)
    whole_number("The top_k of the reranker", checked.top_k)
    return checked


def _check_query(query: str) -> list[str]:
    if not isinstance(query, str):
        several = ": use search_many for several queries" if isinstance(query, list | tuple) else ""
        raise InvalidArgumentError(f"A query is a string, not {type(query).__name__}{several}.")
    return [query]
