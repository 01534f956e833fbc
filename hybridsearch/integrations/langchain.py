"""LangChain: `HybridSearchRetriever`, `HybridSearchVectorStore`, and `EmbeddingsEncoder` for any LangChain embeddings.

A search logs its notes as warnings of the logger `hybridsearch.integrations.langchain`, because a list of LangChain
documents has no place for them. A note says for example that an optional retriever failed.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from hybridsearch.arguments import whole_number
from hybridsearch.backends import RetrieverSchema
from hybridsearch.context import Context, Tokenizer
from hybridsearch.documents import Document as StoredDocument
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import FilterError, IndexNotFoundError, InvalidArgumentError, MissingExtraError
from hybridsearch.hits import Hit, Results
from hybridsearch.integrations.asking import (
    A_VECTOR,
    check_options,
    check_search,
    dense_retriever,
    is_indexed,
    log_notes,
    plan_by_vector,
    reading,
)
from hybridsearch.integrations.encoding import FunctionEncoder, model_of
from hybridsearch.integrations.found import Content, check_form, metadata_of, text_of, with_title
from hybridsearch.rerank import MMR
from hybridsearch.search import HybridSearch
from hybridsearch.vectors import Metric

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import RunnableConfig
    from langchain_core.runnables.config import get_config_list
    from langchain_core.vectorstores import VectorStore
    from pydantic import ConfigDict, Field
except ImportError as error:
    raise MissingExtraError("langchain-core", "langchain", "hybridsearch.integrations.langchain") from error

DETAILS = "hybridsearch"
"""Field of the metadata in which a retriever says how it found a document."""

_log = logging.getLogger(__name__)


class EmbeddingsEncoder(FunctionEncoder):
    """An encoder for dense search that calls LangChain embeddings.

    `hs.open` cannot make the embeddings again, so pass the encoder: `hs.open(place, retrievers={"dense": encoder})`.

    Args:
        embeddings: LangChain `Embeddings`. `embed_documents` encodes documents, and `embed_query` encodes queries.
        name: Name of the model and its version, which the index remembers. The index refuses embeddings with another
            name. None for the class of the embeddings with its attributes `model`, `model_name`, `dimensions` and
            similar ones. Give a name if these do not say which model it is.
        metric: Metric that compares vectors: `"cosine"`, `"dot"` or `"euclidean"`. With `"cosine"`, vectors are scaled
            to unit length.

    Raises:
        InvalidArgumentError: `embeddings` is not an `Embeddings`, or the metric is not known.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> encoder = EmbeddingsEncoder(DeterministicFakeEmbedding(size=8))
    >>> encoder.encode_documents(["a wing", "a jet"]).array.shape
    (2, 8)
    """

    def __init__(self, embeddings: Embeddings, *, name: str | None = None, metric: Metric = "cosine") -> None:
        if not isinstance(embeddings, Embeddings):
            raise InvalidArgumentError(
                f"embeddings is an object of LangChain's class Embeddings, not {embeddings!r:.80}."
            )
        self.embeddings = embeddings
        super().__init__(embeddings.embed_documents, embeddings.embed_query, model_of(embeddings, name), metric)


class HybridSearchRetriever(BaseRetriever):
    """A LangChain retriever that searches an index.

    Each returned document has the id, the metadata and the title (as `metadata["title"]`) of a document in the index.
    `metadata["hybridsearch"]` says how it was found: `rank`, `score`, `fused_score`, `reranker_score`, `retrievers`
    (rank, score and contribution by name), and `passage` (`start`, `end`, and `pages` if the text has pages) if the
    index has passages.

    `invoke`, `ainvoke`, `batch` and `abatch` take `k`, `content`, `details` and the options of `HybridSearch.search` as
    keyword arguments, which count for this call. `batch` and `abatch` search for all queries together.

    Attributes:
        search: The index.
        k: Number of documents.
        search_kwargs: Options of `HybridSearch.search`, such as `filter`, `fusion` and `reranker`.
        content: Text of a returned document: `"passage"` for the best passage, or `"document"` for the whole text. It
            is the whole text if the index has no passages.
        details: Field of the metadata that says how a document was found. None for no such field. If a found document
            has a field of this name already, there is an InvalidArgumentError.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.upsert([{"id": "a", "text": "a wing", "year": 1958}, {"id": "b", "text": "a jet"}])
    >>> retriever = HybridSearchRetriever(search=search, k=2)
    >>> [document] = retriever.invoke("wing", filter={"year": {"$lt": 1960}})
    >>> document.id, document.page_content, document.metadata["year"]
    ('a', 'a wing', 1958)
    >>> document.metadata["hybridsearch"]["retrievers"]["bm25"]["rank"]
    1
    """

    search: HybridSearch
    k: int = Field(default=4, gt=0)
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    content: Content = "passage"
    details: str | None = DETAILS

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        _found: list[Document] | None = None,
        **options: Any,
    ) -> list[Document]:
        if _found is not None:
            return _found
        form, asked = self._asked(options)
        return form.documents(self.search.search(query, **asked))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        _found: list[Document] | None = None,
        **options: Any,
    ) -> list[Document]:
        if _found is not None:
            return _found
        form, asked = self._asked(options)
        return form.documents(await self.search.asearch(query, **asked))

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[list[Document]]:
        """Find documents for several queries in one search.

        Args:
            inputs: Texts of the queries.
            config: Configuration of all queries, or one for each. `max_concurrency` has no effect.
            return_exceptions: Whether to return an error in place of the documents of a query.
            **kwargs: Keyword arguments of `invoke`.

        Returns:
            The documents of each query, in order.
        """
        try:
            form, asked = self._asked(kwargs)
            found = [form.documents(results) for results in self.search.search_many(inputs, **asked)]
        except Exception:  # each query on its own, so that each has its own answer or error
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        configs = get_config_list(config, len(inputs))
        return [self.invoke(query, one, _found=its) for query, one, its in zip(inputs, configs, found, strict=True)]

    async def abatch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[list[Document]]:
        """Find documents for several queries in one search, without blocking the event loop.

        Args:
            inputs: Texts of the queries.
            config: Configuration of all queries, or one for each. `max_concurrency` has no effect.
            return_exceptions: Whether to return an error in place of the documents of a query.
            **kwargs: Keyword arguments of `ainvoke`.

        Returns:
            The documents of each query, in order.
        """
        try:
            form, asked = self._asked(kwargs)
            found = [form.documents(results) for results in await self.search.asearch_many(inputs, **asked)]
        except Exception:
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        configs = get_config_list(config, len(inputs))
        return [
            await self.ainvoke(query, one, _found=its) for query, one, its in zip(inputs, configs, found, strict=True)
        ]

    def context(
        self,
        query: str,
        max_tokens: int | None = 2000,
        *,
        tokenizer: Tokenizer | None = None,
        per_document: int = 4,
        url: str | None = None,
        **options: Any,
    ) -> Context:
        """Find passages for a prompt, numbered so that an answer can cite them.

        In a chain, use `RunnableLambda(retriever.context, afunc=retriever.acontext)`.

        Args:
            query: Text of the query.
            max_tokens: Largest number of tokens, as in `Results.context`.
            tokenizer: Function that counts tokens, as in `Results.context`.
            per_document: Largest number of passages of one document.
            url: Name of the metadata field that holds the address of a document, as in `Results.context`.
            **options: `k`, and options of `HybridSearch.search`.

        Returns:
            The context. `str(context)` is its text. `context.cite(answer)` finds the sources that an answer cites.

        >>> import hybridsearch as hs
        >>> search = hs.HybridSearch({"bm25": hs.BM25()})
        >>> report = search.upsert({"id": "a", "text": "Charge it indoors."})
        >>> print(HybridSearchRetriever(search=search).context("charge"))
        <source id="1">
        Charge it indoors.
        </source>
        """
        results = self.search.search(query, **self._asked(options)[1])
        log_notes(_log, results.notes)
        return results.context(max_tokens, tokenizer=tokenizer, per_document=per_document, url=url)

    async def acontext(
        self,
        query: str,
        max_tokens: int | None = 2000,
        *,
        tokenizer: Tokenizer | None = None,
        per_document: int = 4,
        url: str | None = None,
        **options: Any,
    ) -> Context:
        """Find passages for a prompt, as `context` does, without blocking the event loop."""
        results = await self.search.asearch(query, **self._asked(options)[1])
        log_notes(_log, results.notes)
        make = partial(results.context, max_tokens, tokenizer=tokenizer, per_document=per_document, url=url)
        return await asyncio.to_thread(make)

    def _asked(self, options: Mapping[str, Any]) -> tuple[_Form, dict[str, Any]]:
        """The form of the documents, and the arguments of `search`."""
        return _Form(self.content, self.details).and_rest({"k": self.k, **self.search_kwargs, **options})


class HybridSearchVectorStore(VectorStore):
    """A LangChain vector store in an index, whose searches ask all retrievers of the index.

    A LangChain document has the text, the metadata and the id of a document in the index. A title in the index is
    `metadata["title"]`, unless the metadata has a field `title`. Documents that are added have no title of their own.

    All searches take the options of `HybridSearch.search` as keyword arguments, such as `filter`, `fusion` and
    `reranker`, and also `content` and `details`. A store in which nothing is indexed finds nothing.

    Args:
        search: The index. `hs.open` opens one, `hs.HybridSearch` makes one, with `EmbeddingsEncoder` for LangChain
            embeddings.
        content: Text of a document that was found, as in `HybridSearchRetriever`.
        details: Field of the metadata that says how a document was found, as in `HybridSearchRetriever`. None, so that
            a document comes back as it was added.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> store = HybridSearchVectorStore.from_texts(
    ...     ["Lift of a wing", "Heat of a jet"], DeterministicFakeEmbedding(size=8), ids=["lift", "heat"]
    ... )
    >>> [document.id for document in store.similarity_search("the lift", k=1)]
    ['lift']
    """

    def __init__(self, search: HybridSearch, *, content: Content = "passage", details: str | None = None) -> None:
        check_search(search)
        self.hybrid_search = search
        self._form = _Form(content, details)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        content: Content = "passage",
        details: str | None = None,
        retrievers: Mapping[str, Encoder] | None = None,
        **settings: Any,
    ) -> HybridSearchVectorStore:
        """Make a store with the retriever `dense` of LangChain embeddings, and add texts to it.

        Args:
            texts: Texts of the documents.
            embedding: LangChain embeddings.
            metadatas: Metadata of each document. None for none.
            ids: Id of each document. None for random ids.
            content: Text of a document that was found, as in the class.
            details: Field of the metadata that says how a document was found, as in the class.
            retrievers: Encoders by name, of the other retrievers. None for `{"bm25": hs.BM25()}`. None of them is named
                `dense`.
            **settings: Other arguments of `HybridSearch`, such as `backend` for the place of the index.

        Returns:
            The store.
        """
        others = {"bm25": BM25()} if retrievers is None else dict(retrievers)
        if "dense" in others:
            raise InvalidArgumentError(
                "The retriever 'dense' is that of the embeddings: give the other one another name."
            )
        search = HybridSearch({**others, "dense": EmbeddingsEncoder(embedding)}, **settings)
        store = cls(search, content=content, details=details)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def __repr__(self) -> str:
        return f"HybridSearchVectorStore({self.hybrid_search!r})"

    @property
    def embeddings(self) -> Embeddings | None:
        """The LangChain embeddings of the first retriever that has some. None if no retriever has."""
        encoders = self.hybrid_search.retrievers.values()
        return next((one.embeddings for one in encoders if isinstance(one, EmbeddingsEncoder)), None)

    # Adding, removing and reading documents

    def add_documents(self, documents: list[Document], *, ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Add documents. A document replaces the stored document that has the same id.

        Args:
            documents: Documents to add. They are not changed.
            ids: Id of each document. None for the ids of the documents. A document without an id gets a random one.
            **kwargs: Options of `HybridSearch.index`, such as `batch_size`.

        Returns:
            The ids, in the order of the documents.

        Raises:
            DocumentError: A document is not usable, for example because its metadata has bytes.
            InvalidArgumentError: `ids` has another length than `documents`, or `documents` has something else.
        """
        _check_documents(documents)
        given = [document.id for document in documents] if ids is None else list(ids)
        _check_length("ids", given, documents)
        named = [str(uuid.uuid4()) if id is None else id for id in given]
        added = [
            StoredDocument(id, document.page_content, metadata=document.metadata)
            for id, document in zip(named, documents, strict=True)
        ]
        if added:
            report = self.hybrid_search.index(added, **{"show_progress_bar": False, **kwargs})
            log_notes(_log, report.notes)
        return named

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, as `add_documents` does.

        Args:
            texts: Texts of the documents.
            metadatas: Metadata of each document. None for none.
            ids: Id of each document. None for random ids.
            **kwargs: Options of `HybridSearch.index`, such as `batch_size`.

        Returns:
            The ids, in the order of the texts.
        """
        if isinstance(texts, str):
            raise InvalidArgumentError("texts is a list of strings, not one string: put it into a list.")
        texts = list(texts)
        fields: Sequence[dict[str, Any]] = [{}] * len(texts) if metadatas is None else metadatas
        _check_length("metadatas", fields, texts)
        documents = [Document(text, metadata=metadata) for text, metadata in zip(texts, fields, strict=True)]
        return self.add_documents(documents, ids=ids, **kwargs)

    def delete(
        self, ids: list[str] | None = None, *, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> bool | None:
        """Remove documents by id, or all documents that a filter allows.

        Args:
            ids: Ids of the documents. Unknown ids are ignored.
            filter: Filter in the language of `hybridsearch.filters`. `{"id": {"$exists": True}}` removes all documents.
            **kwargs: No other arguments are allowed.

        Returns:
            True.

        Raises:
            InvalidArgumentError: Both ids and a filter are given, or neither. So `delete()` does not remove all
                documents.
        """
        if kwargs:
            raise InvalidArgumentError(f"delete takes ids or filter, not {next(iter(kwargs))!r}.")
        if ids is None or filter is not None or is_indexed(self.hybrid_search):
            self.hybrid_search.delete(ids, filter=filter)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Read documents by id.

        Args:
            ids: Ids of the documents. Unknown ids are left out.

        Returns:
            The documents with their whole texts, in the order of the ids.
        """
        found = self.hybrid_search.get(ids) if is_indexed(self.hybrid_search) else []
        return [Document(one.text, id=one.id, metadata=with_title(one.to_dict())) for one in found if one is not None]

    # Searching

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Find the best documents for a query, with all retrievers.

        Args:
            query: Text of the query.
            k: Number of documents.
            **kwargs: Options of `HybridSearch.search`, and `content` and `details`.

        Returns:
            The documents, best first.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Find the best documents for a query, as `similarity_search` does, without blocking the event loop."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """Find the best documents for a query, with their scores (`Hit.score`). A larger score is better.

        Args:
            query: Text of the query.
            k: Number of documents.
            **kwargs: Options of `HybridSearch.search`, and `content` and `details`.

        Returns:
            The documents and their scores, best first.
        """
        form, asked = self._form.and_rest({"k": k, **kwargs})
        return form.scored(self._search(query, asked))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Find documents and scores, as `similarity_search_with_score` does, without blocking the event loop."""
        form, asked = self._form.and_rest({"k": k, **kwargs})
        return form.scored(await self._asearch(query, asked))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Find the documents whose dense vectors are nearest to a vector. The other retrievers are not asked.

        Args:
            embedding: Vector of the query.
            k: Number of documents.
            **kwargs: Options of `HybridSearch.search`, and `content` and `details`. A reranker is not allowed, because
                there is no text of a query.

        Returns:
            The documents, best first.

        Raises:
            InvalidArgumentError: The vector has a wrong length, or the index has no dense retriever.
            EncodingError: The vector is not finite.
        """
        form, asked = self._form.and_rest({"k": k, **kwargs})
        return form.documents(self._search_by_vector(embedding, asked)) if is_indexed(self.hybrid_search) else []

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Find documents, as `similarity_search_by_vector` does, without blocking the event loop."""
        return await asyncio.to_thread(self.similarity_search_by_vector, embedding, k, **kwargs)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find documents that are relevant and differ from each other, by `hs.MMR`.

        Args:
            query: Text of the query.
            k: Number of documents.
            fetch_k: Number of first hits that are compared (`MMR.depth`).
            lambda_mult: Weight of the relevance, from 0 to 1 (`MMR.relevance`).
            **kwargs: Options of `HybridSearch.search`, and `content` and `details`.

        Returns:
            The documents in the order in which they were chosen.
        """
        return self.similarity_search(query, k, **self._diverse(fetch_k, lambda_mult, kwargs))

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find documents, as `max_marginal_relevance_search` does, without blocking the event loop."""
        return await self.asimilarity_search(query, k, **self._diverse(fetch_k, lambda_mult, kwargs))

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find documents that are near to a vector and differ from each other.

        Args:
            embedding: Vector of the query.
            k: Number of documents.
            fetch_k: Number of first hits that are compared (`MMR.depth`).
            lambda_mult: Weight of the relevance, from 0 to 1 (`MMR.relevance`).
            **kwargs: As in `similarity_search_by_vector`.

        Returns:
            The documents in the order in which they were chosen.
        """
        return self.similarity_search_by_vector(embedding, k, **self._diverse(fetch_k, lambda_mult, kwargs))

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find documents, as `max_marginal_relevance_search_by_vector` does, without blocking the event loop."""
        return await self.asimilarity_search_by_vector(embedding, k, **self._diverse(fetch_k, lambda_mult, kwargs))

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The documents of `similarity_search`, each with its cosine to the query, or 0 if that is negative."""
        form, asked = self._form.and_rest({"k": k, **kwargs})
        return self._with_cosines(self._search(query, asked), form, asked)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        form, asked = self._form.and_rest({"k": k, **kwargs})
        return await asyncio.to_thread(self._with_cosines, await self._asearch(query, asked), form, asked)

    # Private parts

    def _search(self, query: str, asked: dict[str, Any]) -> Results:
        try:
            return self.hybrid_search.search(query, **asked)
        except IndexNotFoundError:
            return Results(query, ())

    async def _asearch(self, query: str, asked: dict[str, Any]) -> Results:
        try:
            return await self.hybrid_search.asearch(query, **asked)
        except IndexNotFoundError:
            return Results(query, ())

    def _search_by_vector(self, embedding: Sequence[float], asked: dict[str, Any]) -> Results:
        return plan_by_vector(self.hybrid_search, self._dense, embedding, asked).results([A_VECTOR])[0]

    def _diverse(self, fetch_k: int, lambda_mult: float, options: Mapping[str, Any]) -> dict[str, Any]:
        if options.get("diversity") is not None:
            raise InvalidArgumentError("A search with MMR takes fetch_k and lambda_mult: leave out diversity.")
        return reading(self.hybrid_search, {**options, "diversity": MMR(lambda_mult, fetch_k)}, fetch_k)

    def _with_cosines(self, results: Results, form: _Form, asked: dict[str, Any]) -> list[tuple[Document, float]]:
        if not results:
            return []
        name, schema = self._dense
        if schema.metric != "cosine":
            raise InvalidArgumentError(
                f"Relevance scores are cosines, but retriever {name!r} compares by {schema.metric}: use "
                "similarity_search_with_score, or the option min_score."
            )
        cosines = {hit.id: hit.retrievers[name].score for hit in results if name in hit.retrievers}
        if others := [hit.id for hit in results if hit.id not in cosines]:
            only = {"id": {"$in": others}}
            found = self.hybrid_search.rankings([results.query], filter=only, retrievers=[name], candidates=len(others))
            cosines.update(found[0][name])
        pairs = form.scored(results)
        return [(document, min(max(cosines.get(document.id or "", 0.0), 0.0), 1.0)) for document, _ in pairs]

    @cached_property
    def _dense(self) -> tuple[str, RetrieverSchema]:
        return dense_retriever(self.hybrid_search, EmbeddingsEncoder)


@dataclass(frozen=True, slots=True)
class _Form:
    """How hits become LangChain documents."""

    content: Content
    details: str | None

    def __post_init__(self) -> None:
        check_form(self.content, self.details)

    def and_rest(self, options: Mapping[str, Any]) -> tuple[_Form, dict[str, Any]]:
        """The form that the options of a call ask for, and the other options as arguments of `HybridSearch.search`."""
        rest = dict(options)
        form = _Form(rest.pop("content", self.content), rest.pop("details", self.details))
        top_k = whole_number("k", rest.pop("k"))
        check_options(rest, "k", "content", "details")
        rest["top_k"] = top_k
        if callable(rest.get("filter")):
            raise FilterError(
                "filter is a function, but an engine cannot call it: give a dict, such as {'year': {'$gte': 2020}}."
            )
        return form, rest

    def document(self, hit: Hit) -> Document:
        return Document(text_of(hit, self.content), id=hit.id, metadata=metadata_of(hit, self.details))

    def documents(self, results: Results) -> list[Document]:
        log_notes(_log, results.notes)
        return [self.document(hit) for hit in results]

    def scored(self, results: Results) -> list[tuple[Document, float]]:
        documents = self.documents(results)
        return [(document, hit.score) for document, hit in zip(documents, results, strict=True)]


def _check_documents(documents: Iterable[object]) -> None:
    for one in documents:
        if not isinstance(one, Document):
            raise InvalidArgumentError(f"documents is a list of LangChain documents, but it has {one!r:.80}.")


def _check_length(name: str, given: Sequence[object], of: Sequence[object]) -> None:
    if len(given) != len(of):
        raise InvalidArgumentError(
            f"{name} has the length {len(given)}, but the number of documents is {len(of)}: give one for each, or "
            f"leave out {name}."
        )
