"""The retrievers of Haystack that ask an index."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from hybridsearch.arguments import whole_number
from hybridsearch.context import Context, Tokenizer, make_context
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.hits import Hit, Results
from hybridsearch.integrations.asking import (
    A_VECTOR,
    check_options,
    is_indexed,
    log_notes,
    plan_by_vector,
    with_vector,
)
from hybridsearch.integrations.found import Content, check_form, metadata_of, text_of
from hybridsearch.integrations.haystack.filters import filter_of, filtering
from hybridsearch.integrations.haystack.parts import from_plain, to_plain
from hybridsearch.integrations.haystack.records import RECORD, document_of
from hybridsearch.integrations.haystack.store import HybridSearchDocumentStore
from hybridsearch.retrieval import Plan

DETAILS: Final = "hybridsearch"
"""Field of the metadata in which a retriever says how it found a document."""

_log = logging.getLogger(__package__)


class _Retriever:
    """The common parts of the retrievers: how they are made, how they ask the index, and how hits become documents."""

    def __init__(
        self,
        document_store: HybridSearchDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        search_kwargs: dict[str, Any] | None = None,
        content: Content = "passage",
        details: str | None = DETAILS,
        return_embedding: bool = False,
    ) -> None:
        if not isinstance(document_store, HybridSearchDocumentStore):
            raise InvalidArgumentError(f"document_store is a HybridSearchDocumentStore, not {document_store!r:.80}.")
        check_form(content, details)
        self.document_store = document_store
        self.filters, self.top_k = filters, whole_number("top_k", top_k)
        self.filter_policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy
        self.search_kwargs = _check_options(search_kwargs)
        self.content, self.details, self.return_embedding = content, details, return_embedding

    def to_dict(self) -> dict[str, Any]:
        """Describe the component by its arguments, as YAML holds them."""
        return default_to_dict(self, **self._arguments())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Make the component from what `to_dict` gave."""
        return default_from_dict(cls, {**data, "init_parameters": from_plain(data.get("init_parameters", {}))})

    def _arguments(self) -> dict[str, Any]:
        return {
            "document_store": self.document_store,
            "filters": self.filters,
            "top_k": self.top_k,
            "filter_policy": self.filter_policy.value,
            "search_kwargs": to_plain("search_kwargs", self.search_kwargs),
            "content": self.content,
            "details": self.details,
            "return_embedding": self.return_embedding,
        }

    def _plan(
        self,
        query: str | None,
        embedding: list[float] | None,
        filters: dict[str, Any] | None,
        top_k: int | None,
        options: dict[str, Any] | None,
    ) -> Plan | None:
        """The plan of a search: by a vector alone if there is no text. None if there is no index."""
        store = self.document_store
        asked = {"top_k": self.top_k if top_k is None else top_k, **self.search_kwargs, **_check_options(options)}
        with filtering():
            asked["filter"] = filter_of(apply_filter_policy(self.filter_policy, self.filters, filters))
            if not is_indexed(store.hybrid_search):
                log_notes(_log, [f"{store!r} has no documents, because nothing was written to this place yet."])
                return None
            if query is None:
                return plan_by_vector(store.hybrid_search, store.dense_retriever(), embedding or (), asked)
            plan = store.hybrid_search.plan(**asked)
        if embedding is None:
            return plan
        name, schema = store.dense_retriever()
        if name not in plan.retrievers:
            raise InvalidArgumentError(
                f"There is a query_embedding, but the retriever {name!r} is not asked: leave out query_embedding, or "
                "name the retriever in `retrievers`."
            )
        return with_vector(plan, name, schema, embedding)

    def _results(self, query: str | None, *asked: Any) -> Results:
        text, plan = A_VECTOR if query is None else query, self._plan(query, *asked)
        if plan is None:
            return Results(text, ())
        with filtering():
            return plan.results([text])[0]

    async def _aresults(self, query: str | None, *asked: Any) -> Results:
        text, plan = A_VECTOR if query is None else query, await asyncio.to_thread(self._plan, query, *asked)
        if plan is None:
            return Results(text, ())
        with filtering():
            return (await plan.aresults([text]))[0]

    def _documents(self, results: Results) -> list[Document]:
        log_notes(_log, results.notes)
        return [self._document(hit) for hit in results]

    def _document(self, hit: Hit) -> Document:
        document = document_of(hit.document)
        meta = {name: value for name, value in metadata_of(hit, self.details).items() if name != RECORD}
        content = document.content if document.content is None else text_of(hit, self.content)
        embedding = document.embedding if self.return_embedding else None
        return replace(document, content=content, meta=meta, score=hit.score, embedding=embedding)


@component
class HybridSearchRetriever(_Retriever):
    """A Haystack retriever that asks all retrievers of an index, and merges their rankings.

    Each returned document has the id, the metadata and the title (as `meta["title"]`) of a document in the index, and
    the score of the hit. `meta["hybridsearch"]` says how it was found: `rank`, `score`, `fused_score`,
    `reranker_score`, `retrievers` (rank, score and contribution by name), and `passage` (`start`, `end`, and `pages` if
    the text has pages) if the index has passages.

    Args:
        document_store: The store.
        filters: Filter of Haystack. None for all documents.
        top_k: Number of documents.
        filter_policy: Whether the filter of a call replaces `filters` (`"replace"`), or is merged with it (`"merge"`).
        search_kwargs: Options of `HybridSearch.search`, such as `fusion`, `reranker` and `candidates`.
        content: Text of a returned document: `"passage"` for the best passage, or `"document"` for the whole text. It
            is the whole text if the index has no passages.
        details: Field of the metadata that says how a document was found. None for no such field. If a found document
            has a field of this name already, there is an InvalidArgumentError.
        return_embedding: Whether a document has the embedding that it was written with.

    >>> store = HybridSearchDocumentStore()
    >>> count = store.write_documents([Document(id="a", content="a wing"), Document(id="b", content="a jet")])
    >>> [document] = HybridSearchRetriever(store).run("wing")["documents"]
    >>> document.id, document.meta["hybridsearch"]["retrievers"]["bm25"]["rank"]
    ('a', 1)
    """

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Find the best documents for a query.

        Args:
            query: Text of the query.
            query_embedding: Embedding of the query, for the first retriever with an `EmbeddingsEncoder`, or the first
                dense retriever if there is none. None if the encoders of the index encode the text.
            filters: Filter of Haystack for this call.
            top_k: Number of documents of this call.
            search_kwargs: Options of `HybridSearch.search` for this call.

        Returns:
            `documents`, best first. A larger score is better.

        Raises:
            FilterError: Haystack's error: the filter is not usable.
            InvalidArgumentError: Another argument is not usable.
            EncodingError: The embedding is not finite.
        """
        return {
            "documents": self._documents(self._results(_text(query), query_embedding, filters, top_k, search_kwargs))
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Find the best documents, as `run` does, without blocking the event loop."""
        return {
            "documents": self._documents(
                await self._aresults(_text(query), query_embedding, filters, top_k, search_kwargs)
            )
        }


@component
class HybridSearchEmbeddingRetriever(_Retriever):
    """A Haystack retriever that finds the documents whose vectors are nearest to an embedding.

    It asks the first retriever with an `EmbeddingsEncoder`, or the first dense retriever of the index if there is none.
    The arguments and the documents are those of `HybridSearchRetriever`, but the score of a document is its similarity
    to the embedding. A reranker is not allowed, because there is no text of a query.

    >>> from hybridsearch.integrations.haystack import EmbeddingsEncoder
    >>> store = HybridSearchDocumentStore(retrievers={"dense": EmbeddingsEncoder(2)})
    >>> count = store.write_documents([Document(id="a", content="a wing", embedding=[0.0, 1.0])])
    >>> [document] = HybridSearchEmbeddingRetriever(store).run([1.0, 1.0])["documents"]
    >>> document.id, round(document.score, 2)
    ('a', 0.71)
    """

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Find the nearest documents.

        Args:
            query_embedding: Embedding of the query.
            filters: Filter of Haystack for this call.
            top_k: Number of documents of this call.
            search_kwargs: Options of `HybridSearch.search` for this call.

        Returns:
            `documents`, best first.

        Raises:
            FilterError: Haystack's error: the filter is not usable.
            InvalidArgumentError: The embedding has a wrong length, or the index has no dense retriever.
            EncodingError: The embedding is not finite.
        """
        return {"documents": self._similar(self._results(None, query_embedding, filters, top_k, search_kwargs))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Find the nearest documents, as `run` does, without blocking the event loop."""
        return {"documents": self._similar(await self._aresults(None, query_embedding, filters, top_k, search_kwargs))}

    def _similar(self, results: Results) -> list[Document]:
        scores = [next(iter(hit.retrievers.values())).score for hit in results]
        return [replace(one, score=score) for one, score in zip(self._documents(results), scores, strict=True)]


@component
class HybridSearchContextRetriever(_Retriever):
    """A Haystack retriever that puts the best passages into a text for a prompt, numbered for citations.

    `text` goes into a prompt. `context` is the `Context` of `Results.context`: `context.cite(answer)` finds the sources
    that an answer cites.

    Args:
        document_store: The store.
        filters: Filter of Haystack. None for all documents.
        top_k: Number of documents.
        filter_policy: As in `HybridSearchRetriever`.
        search_kwargs: Options of `HybridSearch.search`, such as `fusion`, `reranker` and `candidates`.
        content: As in `HybridSearchRetriever`, for `documents`.
        details: As in `HybridSearchRetriever`, for `documents`.
        return_embedding: As in `HybridSearchRetriever`, for `documents`.
        max_tokens: Largest number of tokens of the text, as in `Results.context`.
        per_document: Largest number of passages of one document.
        url: Name of the metadata field that holds the address of a document, as in `Results.context`.
        tokenizer: Function that counts the tokens of a text, or an object whose `encode` gives them. None for an
            estimate. A function of a module can be written to YAML.

    >>> store = HybridSearchDocumentStore()
    >>> count = store.write_documents([Document(id="a", content="Charge it indoors.")])
    >>> print(HybridSearchContextRetriever(store).run("charge")["text"])
    <source id="1">
    Charge it indoors.
    </source>
    """

    def __init__(
        self,
        document_store: HybridSearchDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        search_kwargs: dict[str, Any] | None = None,
        content: Content = "passage",
        details: str | None = DETAILS,
        return_embedding: bool = False,
        max_tokens: int | None = 2000,
        per_document: int = 4,
        url: str | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        _Retriever.__init__(  # `component` makes another class, for which `super()` does not work
            self,
            document_store,
            filters=filters,
            top_k=top_k,
            filter_policy=filter_policy,
            search_kwargs=search_kwargs,
            content=content,
            details=details,
            return_embedding=return_embedding,
        )
        make_context((), max_tokens, tokenizer, per_document, url)  # checks them
        self.max_tokens, self.per_document, self.url, self.tokenizer = max_tokens, per_document, url, tokenizer

    def _arguments(self) -> dict[str, Any]:
        return {
            **_Retriever._arguments(self),
            "max_tokens": self.max_tokens,
            "per_document": self.per_document,
            "url": self.url,
            "tokenizer": to_plain("tokenizer", self.tokenizer),
        }

    @component.output_types(text=str, context=Context, documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Find passages for a prompt.

        Args:
            query: Text of the query.
            query_embedding: As in `HybridSearchRetriever`.
            filters: Filter of Haystack for this call.
            top_k: Number of documents of this call.
            search_kwargs: Options of `HybridSearch.search` for this call.

        Returns:
            `text`, `context`, and the `documents` that were found.

        Raises:
            FilterError: Haystack's error: the filter is not usable.
            InvalidArgumentError: Another argument is not usable.
            EncodingError: The embedding is not finite.
        """
        return self._found(self._results(_text(query), query_embedding, filters, top_k, search_kwargs))

    @component.output_types(text=str, context=Context, documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        search_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Find passages for a prompt, as `run` does, without blocking the event loop."""
        results = await self._aresults(_text(query), query_embedding, filters, top_k, search_kwargs)
        return await asyncio.to_thread(self._found, results)

    def _found(self, results: Results) -> dict[str, Any]:
        settings: dict[str, Any] = {"tokenizer": self.tokenizer, "per_document": self.per_document, "url": self.url}
        context = results.context(self.max_tokens, **settings)
        return {"text": str(context), "context": context, "documents": self._documents(results)}


def _check_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a search. Raises InvalidArgumentError if they have a filter, `top_k` or an unknown name."""
    for name, other in (("filter", "filters"), ("top_k", "top_k")):
        if name in (options or {}):
            raise InvalidArgumentError(f"search_kwargs has {name!r}: give the argument {other} in its place.")
    check_options(options or ())
    return dict(options or {})


def _text(query: Any) -> str:
    if not isinstance(query, str):
        raise InvalidArgumentError(f"query is the text of a query, not {query!r:.80}.")
    return query
