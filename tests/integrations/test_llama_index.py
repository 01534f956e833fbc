"""Tests of the LlamaIndex vector store, retriever, reranker and encoder, with real indexes, engines and pipelines."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_index.core", reason="pip install llama-index-core")

from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import IndexNode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

import hybridsearch as hs
from hybridsearch.errors import DocumentError, EncodingError, FingerprintMismatchError, InvalidArgumentError
from hybridsearch.integrations.llama_index import (
    EmbeddingsEncoder,
    HybridSearchReranker,
    HybridSearchRetriever,
    HybridSearchVectorStore,
)

TEXTS = {
    "lift": "Lift grows with the angle of attack until the flow separates.",
    "flutter": "Flutter of thin panels at the speed of sound.",
    "heat": "Heat transfer in a laminar boundary layer.",
    "layer": "The boundary layer of a wing grows along its chord.",
}


class Letters(BaseEmbedding):
    """Embeddings that count letters: texts with the same letters are near to each other."""

    calls: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        self.calls += 1
        return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def new_store(model: BaseEmbedding, place: str | Path = "memory", **settings: Any) -> HybridSearchVectorStore:
    return HybridSearchVectorStore(
        hs.HybridSearch({"bm25": hs.BM25(), "dense": EmbeddingsEncoder(model)}, place, **settings)
    )


@pytest.fixture
def store() -> HybridSearchVectorStore:
    store = new_store(Letters())
    store.add([TextNode(id_=id, text=text, metadata={"n": n}) for n, (id, text) in enumerate(TEXTS.items())])
    return store


def ids(found: Sequence[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in found]


# A vector store index


def test_an_index_answers_from_all_retrievers_and_its_documents_can_be_replaced() -> None:
    model, store = Letters(), new_store(Letters())
    documents = [Document(doc_id=id, text=text, metadata={"source": f"{id}.pdf"}) for id, text in TEXTS.items()]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=model,
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0)],
    )  # fmt: skip

    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=2).query("boundary layer of a wing")

    assert [one.node.ref_doc_id for one in answer.source_nodes] == ["layer", "heat"]
    assert "source: layer.pdf" in str(answer)
    assert TEXTS["heat"] in str(answer)
    index.delete_ref_doc("layer")
    index.update_ref_doc(Document(doc_id="heat", text="Ice on a wing."))
    found = index.as_retriever(similarity_top_k=4).retrieve("wing")
    assert found[0].text == "Ice on a wing."
    assert {one.node.ref_doc_id for one in found} == {"lift", "flutter", "heat"}


def test_nodes_come_back_as_they_were_added(store: HybridSearchVectorStore) -> None:
    source = RelatedNodeInfo(node_id="book", metadata={"author": "Abbott"})
    node = TextNode(
        id_="n1", text="A wing.\n", metadata={"page": 3, "tags": ["a"], "none": None}, start_char_idx=10,
        relationships={NodeRelationship.SOURCE: source, NodeRelationship.NEXT: RelatedNodeInfo(node_id="n2")},
        excluded_llm_metadata_keys=["page"], text_template="{content} ({metadata_str})",
    )  # fmt: skip
    pointer = IndexNode(id_="i1", text="A pointer.", index_id="other")

    assert store.add([node, pointer]) == ["n1", "i1"]

    assert store.get_nodes(["i1", "unknown", "n1"]) == [pointer, node]
    assert asyncio.run(store.aget_nodes(["n1"])) == [node]
    result = store.query(VectorStoreQuery(query_str="wing", similarity_top_k=1, doc_ids=["book"]))
    assert (result.nodes, result.ids) == ([node], ["n1"])


def test_metadata_that_cannot_be_stored_is_refused(store: HybridSearchVectorStore) -> None:
    with pytest.raises(DocumentError, match=r"metadata\['raw'\] is of type bytes"):
        store.add([TextNode(id_="raw", text="wing", metadata={"raw": b"text"})])


def test_a_pipeline_stores_changed_documents_only(tmp_path: Path) -> None:
    model = Letters()
    store = new_store(model)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=32, chunk_overlap=0), model],
        vector_store=store, docstore=SimpleDocumentStore(), docstore_strategy=DocstoreStrategy.UPSERTS,
    )  # fmt: skip
    documents = [Document(doc_id=id, text=text) for id, text in TEXTS.items()]

    pipeline.run(documents=documents)
    made = model.calls
    documents[0] = Document(doc_id="lift", text="Drag grows with the square of the speed.")
    changed = pipeline.run(documents=documents)

    assert {node.ref_doc_id for node in changed} == {"lift"}
    assert model.calls == made + len(changed)  # the embeddings of nodes are not computed again
    assert store.client.count({"ref_doc_id": "lift"}) == len(changed)
    assert ids_of(store, "the square of the speed", 1) == [changed[0].node_id]


def ids_of(store: HybridSearchVectorStore, text: str, top_k: int = 4, **query: Any) -> list[str]:
    result = store.query(VectorStoreQuery(query_str=text, similarity_top_k=top_k, **query))
    assert result.ids is not None
    return result.ids


# Queries


def test_numbers_of_another_mode_are_told(store: HybridSearchVectorStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store.query(VectorStoreQuery(query_str="heat", similarity_top_k=1, alpha=0.9), mmr_threshold=0.5)
    assert [record.message for record in caplog.records] == [
        "alpha has no effect in the mode default: use the mode hybrid.",
        "mmr_threshold has no effect in the mode default: use the mode mmr.",
    ]


def test_a_tuned_fusion_also_sets_the_candidates_of_a_store(store: HybridSearchVectorStore, tmp_path: Path) -> None:
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"type": "tuned", "fusion": {"type": "score"}, "candidates": 2}), encoding="utf-8")
    tuned = store.client.search("boundary layer", 2, fusion=file)
    assert tuned[1].score != store.client.search("boundary layer", 2, fusion="minmax")[1].score

    found = store.query(VectorStoreQuery(query_str="boundary layer", similarity_top_k=2), fusion=file)

    assert (found.ids, found.similarities) == (tuned.ids, [hit.score for hit in tuned])


def test_modes_ask_the_retrievers_that_they_name(store: HybridSearchVectorStore) -> None:
    search, query = store.client, "boundary layer of sound"
    vector = Letters()._get_text_embedding(query)

    for mode, expected in {
        VectorStoreQueryMode.DEFAULT: search.search(query, 3),
        VectorStoreQueryMode.HYBRID: search.search(query, 3),
        VectorStoreQueryMode.TEXT_SEARCH: search.search(query, 3, retrievers=["bm25"]),
        VectorStoreQueryMode.SPARSE: search.search(query, 3, retrievers=["bm25"]),
        VectorStoreQueryMode.MMR: search.search(query, 3, diversity=hs.MMR(0.5, 12)),
    }.items():
        asked = VectorStoreQuery(query_embedding=vector, query_str=query, similarity_top_k=3, mode=mode)
        result = store.query(asked)
        assert (result.ids, result.similarities) == (expected.ids, [hit.score for hit in expected])
        assert asyncio.run(store.aquery(asked)).ids == expected.ids
        assert store.query(dataclasses.replace(asked, mode=mode.value)).ids == expected.ids  # type: ignore[arg-type]
    weighted = search.search(query, 2, fusion=hs.ScoreFusion("minmax", weights={"dense": 0.9, "bm25": 0.1}))
    assert ids_of(store, query, 1, mode=VectorStoreQueryMode.HYBRID, alpha=0.9, hybrid_top_k=2) == weighted.ids
    with pytest.raises(InvalidArgumentError, match=r"mode of a query is one of default.*not 'svm'"):
        store.query(VectorStoreQuery(query_str=query, mode=VectorStoreQueryMode.SVM))


def test_the_vector_of_a_query_is_used_and_may_come_without_a_text(store: HybridSearchVectorStore) -> None:
    vector = Letters()._get_text_embedding(TEXTS["flutter"])

    assert ids_of(store, "zzz", 1, query_embedding=vector) == ["flutter"]
    alone = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1))
    assert alone.ids == ["flutter"]
    with pytest.raises(InvalidArgumentError, match="has 2 numbers, but the vectors of retriever 'dense' have 26"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 2.0]))
    with pytest.raises(EncodingError, match="NaN"):
        store.query(VectorStoreQuery(query_embedding=[float("nan")] * 26))
    for mode in (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH):  # there is no text to search by
        with pytest.raises(InvalidArgumentError, match="asks the retriever 'dense' alone"):
            store.query(VectorStoreQuery(query_embedding=vector, mode=mode))
    with pytest.raises(InvalidArgumentError, match="asks the retriever 'dense' alone"):
        store.query(VectorStoreQuery(query_embedding=vector), retrievers=["bm25"])


def test_a_query_and_an_option_do_not_replace_each_other(store: HybridSearchVectorStore) -> None:
    below = MetadataFilters(filters=[MetadataFilter(key="n", value=3, operator=FilterOperator.LT)])
    query = VectorStoreQuery(query_str="boundary layer of sound", similarity_top_k=4, filters=below)
    assert set(store.query(query, filter={"n": {"$gte": 2}}).ids) == {"heat"}
    assert set(store.query(dataclasses.replace(query, node_ids=["heat", "lift"]), filter={"n": {"$gte": 1}}).ids) == {
        "heat"
    }
    for mode, option in {"hybrid": {"fusion": "rrf"}, "mmr": {"diversity": hs.MMR()}}.items():
        with pytest.raises(InvalidArgumentError, match="leave out one of the two"):
            store.query(VectorStoreQuery(query_str="sound", mode=VectorStoreQueryMode(mode), alpha=0.5), **option)


def test_options_of_search_are_vector_store_kwargs(store: HybridSearchVectorStore) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=Letters())

    found = index.as_retriever(similarity_top_k=4, vector_store_kwargs={"retrievers": ["bm25"]}).retrieve("laminar")

    assert ids(found) == ["heat"]
    with pytest.raises(InvalidArgumentError, match="'top' is no option of a search"):
        index.as_retriever(vector_store_kwargs={"top": 3}).retrieve("laminar")
    assert asyncio.run(index.as_retriever(similarity_top_k=1).aretrieve("laminar"))[0].node.node_id == "heat"


METADATA: dict[str, dict[str, Any]] = {
    "a": {"year": 1958, "name": "Wing Theory", "tags": ["lift", "drag"], "note": ""},
    "b": {"year": 1971, "name": "wing flutter", "tags": ["drag"], "note": "x"},
    "c": {"year": 1990, "name": "Heat", "tags": [], "note": None},
    "d": {"name": "Ice"},
}
SINGLE = [
    ("year", FilterOperator.EQ, 1971), ("year", FilterOperator.NE, 1971), ("year", FilterOperator.GT, 1971),
    ("year", FilterOperator.GTE, 1971), ("year", FilterOperator.LT, 1971), ("year", FilterOperator.LTE, 1971),
    ("year", FilterOperator.IN, [1958, 1990]), ("year", FilterOperator.NIN, [1958, 1990]),
    ("tags", FilterOperator.ANY, ["lift", "ice"]), ("tags", FilterOperator.ALL, ["lift", "drag"]),
    ("tags", FilterOperator.ANY, []), ("tags", FilterOperator.ALL, []),
    ("tags", FilterOperator.CONTAINS, "drag"), ("name", FilterOperator.CONTAINS, "ing"),
    ("name", FilterOperator.TEXT_MATCH, "wing"), ("name", FilterOperator.TEXT_MATCH_INSENSITIVE, "WING"),
    ("tags", FilterOperator.IS_EMPTY, None), ("note", FilterOperator.IS_EMPTY, None),
    ("year", FilterOperator.IS_EMPTY, None), ("name", FilterOperator.NE, "Heat"),
]  # fmt: skip


@pytest.fixture(scope="class", params=["memory", "opensearch", "elasticsearch"])
def filtered(
    lucene_names_of_class: Callable[[str, str], str], request: pytest.FixtureRequest
) -> Iterator[HybridSearchVectorStore]:
    place = request.param
    if place != "memory":
        place = lucene_names_of_class(request.getfixturevalue(f"{place}_url"), "llama-index")
    store = new_store(MockEmbedding(embed_dim=4), place)
    store.add([TextNode(id_=id, text="text", metadata=metadata) for id, metadata in METADATA.items()])
    with store.client:
        yield store


def test_every_operator_is_tested() -> None:
    assert {operator for _, operator, _ in SINGLE} == set(FilterOperator)


class TestFilters:
    @pytest.mark.parametrize(("key", "operator", "value"), SINGLE)
    def test_an_operator_means_what_it_means_in_llama_index(
        self, filtered: HybridSearchVectorStore, key: str, operator: FilterOperator, value: Any
    ) -> None:
        filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
        theirs = build_metadata_filter_fn(METADATA.__getitem__, filters)

        assert sorted(ids_of(filtered, "text", filters=filters)) == [id for id in METADATA if theirs(id)]

    @pytest.mark.parametrize("condition", list(FilterCondition))
    def test_conditions_combine_filters_and_may_be_nested(
        self, filtered: HybridSearchVectorStore, condition: FilterCondition
    ) -> None:
        drag = MetadataFilter(key="tags", operator=FilterOperator.CONTAINS, value="drag")
        old = MetadataFilter(key="year", operator=FilterOperator.LT, value=1960)
        filters = MetadataFilters(filters=[drag, old], condition=condition)
        theirs = build_metadata_filter_fn(METADATA.__getitem__, filters)
        matching = [id for id in METADATA if theirs(id)]

        assert [node.node_id for node in filtered.get_nodes(filters=filters)] == matching
        outer = MetadataFilters(
            filters=[filters, MetadataFilter(key="name", value="Ice")], condition=FilterCondition.OR
        )
        assert [node.node_id for node in filtered.get_nodes(filters=outer)] == sorted({*matching, "d"})


# Removing and keeping


def test_nodes_are_removed_by_id_filter_or_document(store: HybridSearchVectorStore) -> None:
    late = MetadataFilters(filters=[MetadataFilter(key="n", operator=FilterOperator.GTE, value=2)])

    store.delete_nodes(["lift", "unknown"])
    store.delete_nodes(["flutter", "heat"], late)
    store.delete("no document")
    assert [node.node_id for node in store.get_nodes()] == ["flutter", "layer"]
    with pytest.raises(InvalidArgumentError, match="call clear"):
        store.delete_nodes()
    asyncio.run(store.aclear())
    assert store.get_nodes() == []


def test_an_empty_store_finds_nothing() -> None:
    store = new_store(Letters())

    assert (ids_of(store, "wing"), store.get_nodes(["a"]), store.add([])) == ([], [], [])
    store.delete("book")
    store.clear()


def test_an_index_in_memory_is_saved_with_the_storage_context(store: HybridSearchVectorStore, tmp_path: Path) -> None:
    StorageContext.from_defaults(vector_store=store).persist(tmp_path / "storage")

    (place,) = [path for path in (tmp_path / "storage").iterdir() if path.is_dir()]
    with hs.open(place, retrievers={"dense": EmbeddingsEncoder(Letters())}) as search:
        opened = HybridSearchVectorStore(search)
        assert opened.get_nodes() == store.get_nodes()
    with pytest.raises(FingerprintMismatchError):
        hs.open(place, retrievers={"dense": EmbeddingsEncoder(Letters(model_name="other"))})


# The retriever


def test_a_query_engine_sees_passages_but_not_how_they_were_found() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=hs.Passages(size=8))
    text = "Charge the battery indoors at night. Never open the motor, which is sealed. Keep both keys in a dry place."
    search.upsert([hs.Document("alder", text, "Alder", {"year": 2024}), hs.Document("birch", "A red bike.")])
    retriever = HybridSearchRetriever(search)

    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query("the motor")

    [found] = answer.source_nodes
    [hit] = search.search("the motor")
    assert hit.passage is not None
    assert (found.node.node_id, found.node.ref_doc_id, found.score) == ("alder", "alder", hit.score)
    assert found.text == hit.passage.text
    node = found.node
    assert isinstance(node, TextNode)
    assert (node.start_char_idx, node.end_char_idx) == (hit.passage.start, hit.passage.end)
    assert found.metadata["hybridsearch"]["retrievers"]["bm25"]["rank"] == 1
    assert "title: Alder" in str(answer)
    assert "hybridsearch" not in str(answer)
    assert asyncio.run(retriever.aretrieve("the motor")) == retriever.retrieve("the motor")
    whole = HybridSearchRetriever(search, content="document", details=None).retrieve("the motor")
    assert (whole[0].text, whole[0].metadata) == (text, {"title": "Alder", "year": 2024})


def test_details_never_replace_a_field_of_the_metadata() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "a", "text": "a wing", "hybridsearch": 1})

    with pytest.raises(InvalidArgumentError, match="'a' has the metadata field 'hybridsearch'"):
        HybridSearchRetriever(search).retrieve("wing")


def test_notes_are_logged(store: HybridSearchVectorStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        HybridSearchRetriever(store.client, search_kwargs={"filter": {"yaer": 1950}}).retrieve("wing")

    assert "yaer" in caplog.text


# The reranker and the encoder


class Longest:
    """A reranker that prefers long texts."""

    top_k = 2

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]) -> list[NDArray[np.float64]]:
        return [np.array([float(len(one.text)) for one in of_query]) for of_query in documents]

    def to_json(self) -> None:
        return None


def test_a_reranker_gives_new_scores_and_reads_the_metadata(store: HybridSearchVectorStore) -> None:
    found = HybridSearchRetriever(store.client, 4, details=None).retrieve("boundary layer of thin panels")

    reranked = HybridSearchReranker(Longest(), top_n=3).postprocess_nodes(found, query_str="wing")

    assert ids(reranked) == ["lift", "layer", "flutter"]
    assert reranked[0].score == len(f"n: 0\n\n{TEXTS['lift']}")
    assert HybridSearchReranker(Longest()).postprocess_nodes([], query_str="wing") == []
    blending = Longest()
    blending.blend = 1.0  # type: ignore[attr-defined]
    assert ids(HybridSearchReranker(blending).postprocess_nodes(found, query_str="wing")) == ids(found)
    with pytest.raises(InvalidArgumentError, match="needs the query"):
        HybridSearchReranker(Longest()).postprocess_nodes(found)
    with pytest.raises(InvalidArgumentError, match="A reranker is an object"):
        HybridSearchReranker("cross-encoder")  # type: ignore[arg-type]


def test_the_encoder_reads_what_llama_index_embeds_and_keeps_given_embeddings() -> None:
    model = Letters()
    store = new_store(model)
    read = TextNode(id_="read", text="wing", metadata={"title": "zzz", "path": "qqq"})
    read.excluded_embed_metadata_keys = ["path"]
    given = TextNode(id_="given", text="wing", embedding=[0.0] * 25 + [2.0])

    store.add([read, given])

    assert model.calls == 1
    vectors = store.client.backend.fetch_vectors(["given", "read"], "dense").vectors["dense"].array  # type: ignore[attr-defined]
    expected = np.array(model._get_text_embedding("title: zzz\n\nwing"))
    assert vectors[0].tolist() == [0.0] * 25 + [1.0]
    assert vectors[1] == pytest.approx(expected / np.linalg.norm(expected))
    with pytest.raises(EncodingError, match="vectors of 3 and 26 numbers"):
        store.add([TextNode(id_="short", text="wing", embedding=[1.0, 2.0, 3.0])])


def test_an_index_of_other_encoders_reads_the_texts_of_nodes() -> None:
    store = HybridSearchVectorStore(hs.HybridSearch({"bm25": hs.BM25()}))
    index = VectorStoreIndex(
        [TextNode(id_=id, text=text) for id, text in TEXTS.items()],
        storage_context=StorageContext.from_defaults(vector_store=store), embed_model=MockEmbedding(embed_dim=4),
    )  # fmt: skip

    assert ids(index.as_retriever().retrieve("laminar")) == ["heat"]
    assert store.is_embedding_query is False
