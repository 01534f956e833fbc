"""LlamaIndex: a vector store, a retriever, a reranker, and `EmbeddingsEncoder` for any LlamaIndex embedding model.

A search logs its notes as warnings of the logger `hybridsearch.integrations.llama_index`, because a list of nodes has
no place for them. A note says for example that an optional retriever failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import numpy as np

from hybridsearch.arguments import whole_number
from hybridsearch.backends import RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.fusion import ScoreFusion
from hybridsearch.hits import Hit, Results
from hybridsearch.integrations.asking import (
    A_VECTOR,
    check_options,
    check_search,
    is_indexed,
    log_notes,
    plan_by_vector,
    reading,
    reranked,
    with_vector,
)
from hybridsearch.integrations.encoding import FunctionEncoder, model_of
from hybridsearch.integrations.found import Content, check_form, check_free, how_found, text_of, with_title
from hybridsearch.rerank import MMR, Reranker, check_reranker
from hybridsearch.search import HybridSearch
from hybridsearch.vectors import DenseVectors, Metric

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index", "hybridsearch.integrations.llama_index") from error

DETAILS: Final = "hybridsearch"
"""Field of the metadata in which a retriever says how it found a node."""

EMPTY: Final = "_empty_lists"
"""Field of a stored node that names its fields with an empty list, for the operator `is_empty`. It begins with ""."""

_MODES: Final = ("default", "hybrid", "text_search", "sparse", "mmr")
_LEXICAL: Final = ("lexical", "sparse", "text")

_log = logging.getLogger(__name__)


class EmbeddingsEncoder(FunctionEncoder):
    """An encoder for dense search that calls a LlamaIndex embedding model.

    It reads of a node what LlamaIndex embeds of it: the text with the metadata that is not excluded. If a node has an
    embedding already, as in a `VectorStoreIndex`, the model is not called again.

    Args:
        embed_model: Embedding model of LlamaIndex.
        name: Name of the model and its version, which the index remembers. The index refuses a model with another name.
            None for the class of the model with its attributes `model_name`, `dimensions` and similar ones.
        metric: Metric that compares vectors: `"cosine"`, `"dot"` or `"euclidean"`. With `"cosine"`, vectors are scaled
            to unit length.

    Raises:
        InvalidArgumentError: `embed_model` is not a `BaseEmbedding`, or the metric is not known.

    >>> from llama_index.core import MockEmbedding
    >>> EmbeddingsEncoder(MockEmbedding(embed_dim=4)).encode_documents(["a wing"]).array.tolist()
    [[0.5, 0.5, 0.5, 0.5]]
    """

    def __init__(self, embed_model: BaseEmbedding, *, name: str | None = None, metric: Metric = "cosine") -> None:
        if not isinstance(embed_model, BaseEmbedding):
            raise InvalidArgumentError(f"embed_model is an instance of BaseEmbedding, not {embed_model!r:.80}.")
        self.embed_model = embed_model
        self._known: dict[tuple[str, str], Sequence[float]] = {}
        model = model_of(embed_model, name)
        super().__init__(embed_model.get_text_embedding_batch, embed_model.get_query_embedding, model, metric)

    def encode_fields(self, documents: Sequence[Document]) -> DenseVectors:
        """Encode documents. An index calls this method in place of `encode_documents`.

        Args:
            documents: Documents to encode.

        Returns:
            Vectors in the order of `documents`.

        Raises:
            EncodingError: As for `encode_documents`, and for embeddings that came with nodes.
        """
        known = [self._known.get((document.id, document.text)) for document in documents]
        given = [vector for vector in known if vector is not None]
        rows = self._checked(given, len(given)) if given else None
        made = self.encode_documents([_embedded_text(d) for d, v in zip(documents, known, strict=True) if v is None])
        array = np.zeros((len(documents), self.dimensions), dtype=np.float32)
        is_given = np.array([vector is not None for vector in known], dtype=bool)
        array[~is_given] = made.array
        if rows is not None:
            array[is_given] = rows
        return DenseVectors(array, self.metric)

    @contextmanager
    def knowing(self, nodes: Sequence[BaseNode]) -> Iterator[None]:
        """Use the embeddings of nodes, where they have some, in place of the model."""
        known = {(node.node_id, _text(node)): node.embedding for node in nodes if node.embedding is not None}
        for vector in known.values():  # one is enough to know the dimensions, and the model need not encode a word
            self._checked([vector], 1)
            break
        self._known.update(known)
        try:
            yield
        finally:
            for key in known:  # another thread may add the same node: then the model encodes it there
                self._known.pop(key, None)


class HybridSearchVectorStore(BasePydanticVectorStore):
    """A LlamaIndex vector store in an index, whose queries ask all retrievers of the index.

    Nodes come back as they were added, with their relationships. The mode of a query says what is asked:

    - `default` and `hybrid`: all retrievers. In the mode `hybrid`, `alpha` is the weight of the dense retrievers from 0
      to 1, and min-max fusion merges the rankings. `hybrid_top_k` is the number of nodes, if it is given.
    - `text_search` and `sparse`: the lexical and sparse retrievers.
    - `mmr`: all retrievers, and `hs.MMR` chooses. `mmr_threshold` is its `relevance` (0.5 by default), and
      `mmr_prefetch_k` its `depth` (4 times `similarity_top_k` by default).

    `vector_store_kwargs` of a LlamaIndex retriever may have options of `HybridSearch.search`, such as `fusion` and
    `reranker`. A `filter` among them holds beside the filters of the query.

    Args:
        search: The index. `hs.open` opens one, `hs.HybridSearch` makes one, with `EmbeddingsEncoder` for a LlamaIndex
            model. Without an `EmbeddingsEncoder`, embeddings of nodes and queries are not used: the encoders of the
            index read the texts.
        content: Text of a node that was found: `"passage"` for the best passage, or `"document"` for the whole text. It
            is the whole text if the index has no passages.
        details: Field of the metadata that says how a node was found, as in `HybridSearchRetriever`. None for no such
            field.

    >>> import hybridsearch as hs
    >>> from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
    >>> model = MockEmbedding(embed_dim=4)
    >>> store = HybridSearchVectorStore(hs.HybridSearch({"bm25": hs.BM25(), "dense": EmbeddingsEncoder(model)}))
    >>> context = StorageContext.from_defaults(vector_store=store)
    >>> nodes = [TextNode(id_="lift", text="Lift of a wing"), TextNode(id_="heat", text="Heat of a jet")]
    >>> index = VectorStoreIndex(nodes, storage_context=context, embed_model=model)
    >>> [found.node.node_id for found in index.as_retriever(similarity_top_k=1).retrieve("the lift")]
    ['lift']
    """

    stores_text: bool = True
    _search: HybridSearch = PrivateAttr()
    _content: Content = PrivateAttr()
    _details: str | None = PrivateAttr()
    _read: Mapping[str, RetrieverSchema] = PrivateAttr(default_factory=dict)

    def __init__(self, search: HybridSearch, *, content: Content = "passage", details: str | None = None) -> None:
        check_search(search)
        check_form(content, details)
        super().__init__(stores_text=True, is_embedding_query=any(_embedders(search)))
        self._search, self._content, self._details = search, content, details

    @classmethod
    def class_name(cls) -> str:
        """Name of the class."""
        return "HybridSearchVectorStore"

    @property
    def client(self) -> HybridSearch:
        """The index."""
        return self._search

    # Adding, removing and reading nodes

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes. A node replaces the stored node that has the same id.

        Args:
            nodes: Nodes to add. If they have embeddings, the `EmbeddingsEncoder` of the index uses them.
            **kwargs: Options of `HybridSearch.index`, such as `batch_size`.

        Returns:
            The ids of the nodes, in order.

        Raises:
            DocumentError: A node is not usable, for example because its metadata has bytes.
            EncodingError: An embedding has a wrong length, or is not finite.
        """
        encoders = [encoder for encoder in self._search.retrievers.values() if isinstance(encoder, EmbeddingsEncoder)]
        documents = [_stored(node) for node in nodes]
        if documents:
            with encoders[0].knowing(nodes) if encoders else nullcontext():
                report = self._search.index(documents, **{"show_progress_bar": False, **kwargs})
            log_notes(_log, report.notes)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, as `add` does, without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document.

        Args:
            ref_doc_id: Id of the document that the nodes were made from.
            **delete_kwargs: Not used.
        """
        self._delete({"ref_doc_id": ref_doc_id})

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document, as `delete` does, without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove nodes by id, or all nodes that filters allow, or those with an id that filters allow.

        Args:
            node_ids: Ids of nodes. Unknown ids are ignored. None for all ids.
            filters: Filters on the metadata. None for none.
            **delete_kwargs: Not used.

        Raises:
            InvalidArgumentError: Neither ids nor filters are given. `clear` removes all nodes.
        """
        if node_ids is None and not (filters and filters.filters):
            raise InvalidArgumentError(
                "delete_nodes takes node_ids or filters, but neither is given: call clear to remove all."
            )
        self._delete(self._filter(filters, node_ids=node_ids))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove nodes, as `delete_nodes` does, without blocking the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Remove all nodes. The index stays."""
        self._delete({"id": {"$exists": True}})

    async def aclear(self) -> None:
        """Remove all nodes, as `clear` does, without blocking the event loop."""
        await asyncio.to_thread(self.clear)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Read nodes by id, or all nodes that filters allow, or those with an id that filters allow.

        Args:
            node_ids: Ids of nodes. Unknown ids are left out. None for all ids.
            filters: Filters on the metadata. None for none.

        Returns:
            The nodes in the order of the ids, or by id if no ids are given.
        """
        if not is_indexed(self._search):
            return []
        if node_ids is not None and not (filters and filters.filters):
            return [node_of(document) for document in self._search.get(node_ids) if document is not None]
        found = {one.id: node_of(one) for one in self._search.documents(self._filter(filters, node_ids=node_ids))}
        return [found[id] for id in (found if node_ids is None else node_ids) if id in found]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Read nodes, as `get_nodes` does, without blocking the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Save an index in RAM to a folder, which `hs.open` opens. An index at another place is stored already.

        Args:
            persist_path: Path of the folder. An index that is there already is replaced.
            fs: File system of fsspec. Only a local one is allowed.

        Raises:
            InvalidArgumentError: `fs` is not local.
        """
        if fs is not None and "file" not in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
            raise InvalidArgumentError(
                f"An index is saved in a local folder, not on {fs.protocol!r}: leave out fs, and copy the folder."
            )
        if is_indexed(self._search) and not self._search.backend.capabilities.persistent:
            self._search.save(persist_path, overwrite=True)

    # Searching

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the best nodes.

        Args:
            query: The query, with its mode, filters and numbers.
            **kwargs: Options of `HybridSearch.search`, and `mmr_threshold`, `mmr_prefetch_k`.

        Returns:
            The nodes, best first, with their ids and their scores (`Hit.score`). A larger score is better.

        Raises:
            InvalidArgumentError: The mode is not one of those above, or an option is not allowed.
            FilterError: The filters cannot be compared with the metadata.
        """
        if not is_indexed(self._search):
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        plan, text = self._plan(query, kwargs)
        return self._result(plan.results([text])[0])

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the best nodes, as `query` does, without blocking the event loop."""
        if not await asyncio.to_thread(is_indexed, self._search):
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        plan, text = await asyncio.to_thread(self._plan, query, kwargs)
        return self._result((await plan.aresults([text]))[0])

    # Private parts

    def _plan(self, query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The plan that answers the query, and the text of the query."""
        if query.embedding_field is not None:
            raise InvalidArgumentError("embedding_field is not allowed: give the option retrievers in its place.")
        options, top_k = self._options(query, kwargs)
        dense, vector = next(_embedders(self._search), None), query.query_embedding
        text = query.query_str or ""
        if not text.strip() and vector is not None and dense is not None:
            asked = {"top_k": top_k, **options}
            return plan_by_vector(self._search, (dense, self._schemas()[dense]), vector, asked), A_VECTOR
        plan = self._search.plan(top_k, **options)
        if vector is not None and dense is not None and dense in plan.retrievers:
            plan = with_vector(plan, dense, self._schemas()[dense], vector)
        return plan, text

    def _options(self, query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The options of `HybridSearch.search` that a query means, and the number of nodes."""
        given, top_k = dict(kwargs), query.similarity_top_k
        mode = str(getattr(query.mode, "value", query.mode))
        if mode not in _MODES:
            raise InvalidArgumentError(f"The mode of a query is one of {', '.join(_MODES)}, not {mode!r}.")
        threshold, depth = given.pop("mmr_threshold", None), given.pop("mmr_prefetch_k", None)
        check_options(given)
        of_modes = {
            "alpha": (query.alpha, "hybrid"),
            "hybrid_top_k": (query.hybrid_top_k, "hybrid"),
            "mmr_threshold": (query.mmr_threshold if threshold is None else threshold, "mmr"),
            "mmr_prefetch_k": (depth, "mmr"),
        }
        unused = {name: its for name, (value, its) in of_modes.items() if value is not None and its != mode}
        log_notes(
            _log, (f"{name} has no effect in the mode {mode}: use the mode {its}." for name, its in unused.items())
        )
        options: dict[str, Any] = {}
        filters = self._filter(query.filters, query.node_ids or None, query.doc_ids or None), given.pop("filter", None)
        if parts := [one for one in filters if one is not None]:
            options["filter"] = parts[0] if len(parts) == 1 else {"$and": parts}
        least = query.sparse_top_k or 0
        names = list(self._search.retrievers)
        if mode in ("text_search", "sparse"):
            options["retrievers"] = [name for name in names if self._schemas()[name].kind in _LEXICAL]
            if not options["retrievers"]:
                raise InvalidArgumentError(f"The index has no lexical or sparse retriever for the mode {mode!r}.")
        elif mode == "hybrid":
            top_k = query.hybrid_top_k or top_k
            if query.alpha is not None:
                options["fusion"] = ScoreFusion("minmax", weights=self._weights(query.alpha))
        elif mode == "mmr":
            relevance = next((one for one in (threshold, query.mmr_threshold) if one is not None), 0.5)
            options["diversity"] = MMR(relevance, 4 * top_k if depth is None else depth)
            least = max(least, options["diversity"].depth)
        for name in ("fusion", "diversity"):
            if name in options and given.get(name) is not None:
                what = "alpha" if name == "fusion" else "the mode mmr"
                raise InvalidArgumentError(f"The query has {what}, which chooses the {name}: leave out one of the two.")
        return reading(self._search, {**options, **given}, least), top_k

    def _weights(self, alpha: float) -> dict[str, float]:
        """`alpha` for the dense retrievers together, and the rest for the others together."""
        schemas = self._schemas()
        names = list(self._search.retrievers)
        dense = [name for name in names if schemas[name].kind == "dense"]
        others = [name for name in names if name not in dense]
        if not dense or not others:
            raise InvalidArgumentError(
                "alpha weighs dense retrievers against others, but the index has only one of the two: leave out alpha."
            )
        return {name: alpha / len(dense) if name in dense else (1 - alpha) / len(others) for name in names}

    def _schemas(self) -> Mapping[str, RetrieverSchema]:
        """The descriptions of the retrievers. They are read once, because a backend may have to wait for a writer."""
        if not self._read:
            schema = self._search.backend.open()
            self._read = {} if schema is None else schema.retrievers
        return self._read

    def _filter(
        self,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> dict[str, Any] | None:
        parts = [] if filters is None or not filters.filters else [self._of_filters(filters)]
        parts += [] if node_ids is None else [{"id": {"$in": list(node_ids)}}]
        parts += [] if doc_ids is None else [{"ref_doc_id": {"$in": list(doc_ids)}}]
        return {"$and": parts} if parts else None

    def _of_filters(self, filters: MetadataFilters) -> dict[str, Any]:
        parts = [
            self._of_filters(one) if isinstance(one, MetadataFilters) else self._of_one(one) for one in filters.filters
        ]
        if filters.condition == FilterCondition.NOT:  # none of them
            return {"$not": {"$or": parts}}
        return {"$or" if filters.condition == FilterCondition.OR else "$and": parts}

    def _of_one(self, one: MetadataFilter) -> dict[str, Any]:
        """A filter of LlamaIndex in our language."""
        key, value, operator = one.key, one.value, one.operator
        if operator in _OPERATORS:
            return {key: {_OPERATORS[operator]: value}}
        if operator in (FilterOperator.ANY, FilterOperator.ALL):
            values = value if isinstance(value, list) else [value]
            if not values:  # of no values, a list has all and not any
                return {key: {"$exists": True} if operator == FilterOperator.ALL else {"$in": []}}
            return {"$or" if operator == FilterOperator.ANY else "$and": [{key: {"$contains": v}} for v in values]}
        if operator == FilterOperator.IS_EMPTY:
            return {"$or": [{key: {"$exists": False}}, {key: ""}, {EMPTY: {"$contains": key}}]}
        if operator == FilterOperator.TEXT_MATCH_INSENSITIVE:
            return {key: {"$in": self._spelt_alike(key, str(value))}}
        raise InvalidArgumentError(f"The filter operator {operator.value!r} is not known.")

    def _spelt_alike(self, key: str, text: str) -> list[str]:
        """The values of a field that contain a text in upper or lower case. All documents with the field are read."""
        found = (document.metadata.get(key) for document in self._search.documents({key: {"$exists": True}}))
        return sorted({value for value in found if isinstance(value, str) and text.lower() in value.lower()})

    def _delete(self, filter: dict[str, Any] | None) -> None:
        if self._search.count(filter):  # so that there is no warning about a field that no node has
            self._search.delete(filter=filter)

    def _result(self, results: Results) -> VectorStoreQueryResult:
        log_notes(_log, results.notes)
        nodes = [node_of_hit(hit, self._content, self._details) for hit in results]
        return VectorStoreQueryResult(nodes=nodes, similarities=[hit.score for hit in results], ids=results.ids)


class HybridSearchRetriever(BaseRetriever):
    """A LlamaIndex retriever that searches an index.

    Each returned node has the id, the metadata and the title (as `metadata["title"]`) of a document in the index. If
    the document was added as a node, it is that node. `metadata["hybridsearch"]` says how it was found: `rank`,
    `score`, `fused_score`, `reranker_score`, `retrievers` (rank, score and contribution by name), and `passage`. This
    field is not shown to language models.

    Args:
        search: The index.
        similarity_top_k: Number of nodes.
        search_kwargs: Options of `HybridSearch.search`, such as `filter`, `fusion` and `reranker`.
        content: Text of a returned node: `"passage"` for the best passage, or `"document"` for the whole text. It is
            the whole text if the index has no passages. `start_char_idx` and `end_char_idx` say where a passage is.
        details: Field of the metadata that says how a node was found. None for no such field. If a found document has a
            field of this name already, there is an InvalidArgumentError.
        callback_manager: Callback manager of LlamaIndex.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.upsert([{"id": "a", "text": "a wing", "year": 1958}, {"id": "b", "text": "a jet"}])
    >>> [found] = HybridSearchRetriever(search, search_kwargs={"filter": {"year": 1958}}).retrieve("wing")
    >>> found.node.node_id, found.text, found.metadata["hybridsearch"]["retrievers"]["bm25"]["rank"]
    ('a', 'a wing', 1)
    """

    def __init__(
        self,
        search: HybridSearch,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        *,
        search_kwargs: Mapping[str, Any] | None = None,
        content: Content = "passage",
        details: str | None = DETAILS,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        check_search(search)
        check_form(content, details)
        check_options(search_kwargs or ())
        self._search, self._top_k = search, whole_number("similarity_top_k", similarity_top_k)
        self._search_kwargs, self._content, self._details = dict(search_kwargs or {}), content, details
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._nodes(self._search.search(query_bundle.query_str, self._top_k, **self._search_kwargs))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._nodes(await self._search.asearch(query_bundle.query_str, self._top_k, **self._search_kwargs))

    def _nodes(self, results: Results) -> list[NodeWithScore]:
        log_notes(_log, results.notes)
        return [NodeWithScore(node=node_of_hit(hit, self._content, self._details), score=hit.score) for hit in results]


class HybridSearchReranker(BaseNodePostprocessor):
    """A LlamaIndex node postprocessor that gives nodes the scores of a reranker.

    Args:
        reranker: Reranker, such as `hs.CrossEncoderReranker(...)`. It reads of a node what LlamaIndex embeds of it. Its
            `blend` is the weight of the scores that the nodes have.
        top_n: Number of nodes to keep. None keeps all.

    >>> import numpy as np
    >>> class Shortest:
    ...     top_k = 10
    ...     def rerank(self, queries, documents):
    ...         return [np.array([-len(one.text) for one in of_query]) for of_query in documents]
    ...     def to_json(self):
    ...         return None
    >>> nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in ("a long text", "a text")]
    >>> [found.text for found in HybridSearchReranker(Shortest(), top_n=1).postprocess_nodes(nodes, query_str="text")]
    ['a text']
    """

    top_n: int | None = None
    _reranker: Reranker = PrivateAttr()

    def __init__(self, reranker: Reranker, *, top_n: int | None = None) -> None:
        check_reranker(reranker)
        super().__init__()
        self.top_n = None if top_n is None else whole_number("top_n", top_n)
        self._reranker = reranker

    @classmethod
    def class_name(cls) -> str:
        """Name of the class."""
        return "HybridSearchReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidArgumentError("A reranker needs the query: give query_bundle or query_str.")
        documents = [Document(one.node.node_id, one.node.get_content(MetadataMode.EMBED)) for one in nodes]
        before = [one.score for one in nodes]
        ranked = reranked(self._reranker, query_bundle.query_str, documents, before)[: self.top_n]
        return [NodeWithScore(node=nodes[number].node, score=score) for number, score in ranked]


_OPERATORS: Final[Mapping[FilterOperator, str]] = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
}


def node_of(document: Document) -> BaseNode:
    """The node that a document was added as, or a new node if it was not added as a node."""
    fields = document.to_dict()
    metadata = fields["metadata"]
    if "_node_content" in metadata:
        return metadata_dict_to_node(metadata, text=document.text)
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document.id)}
    return TextNode(id_=document.id, text=document.text, metadata=with_title(fields), relationships=source)


def node_of_hit(hit: Hit, content: Content, details: str | None) -> BaseNode:
    """The node of a hit, with the text that `content` names, and with how it was found.

    Raises:
        InvalidArgumentError: The metadata has a field of the name `details` already.
    """
    node = node_of(hit.document)
    if content == "passage" and hit.passage is not None:
        node.set_content(text_of(hit, content))
        if isinstance(node, TextNode):
            first = node.start_char_idx or 0
            node.start_char_idx, node.end_char_idx = first + hit.passage.start, first + hit.passage.end
    if details is not None:
        check_free(hit.id, node.metadata, details)
        node.metadata[details] = how_found(hit)
        node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, details]
        node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, details]
    return node


def _stored(node: BaseNode) -> Document:
    """A node as a document of the index."""
    Document(node.node_id, "", metadata=node.metadata)  # LlamaIndex would turn bytes and others into strings
    metadata = node_to_metadata_dict(node, remove_text=True, flat_metadata=False)
    empty = [name for name, value in node.metadata.items() if isinstance(value, list | tuple | set) and not value]
    return Document(node.node_id, _text(node), metadata={**metadata, EMPTY: ["", *empty]})


def _text(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE)


def _embedded_text(document: Document) -> str:
    """What LlamaIndex embeds of a document that was added as a node, else title and text."""
    if "_node_content" not in document.metadata:
        return document.content
    return node_of(document).get_content(metadata_mode=MetadataMode.EMBED)


def _embedders(search: HybridSearch) -> Iterator[str]:
    """The names of the retrievers that use a LlamaIndex model."""
    return (name for name, encoder in search.retrievers.items() if isinstance(encoder, EmbeddingsEncoder))
