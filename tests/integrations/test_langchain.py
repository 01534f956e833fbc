"""Tests of the LangChain retriever, vector store and encoder."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="pip install langchain-core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore

import hybridsearch as hs
from hybridsearch.errors import (
    DocumentError,
    EncodingError,
    FilterError,
    FingerprintMismatchError,
    IndexNotFoundError,
    InvalidArgumentError,
)
from hybridsearch.integrations.langchain import EmbeddingsEncoder, HybridSearchRetriever, HybridSearchVectorStore

TEXTS = {
    "lift": "Lift grows with the angle of attack until the flow separates.",
    "flutter": "Flutter of thin panels at the speed of sound.",
    "heat": "Heat transfer in a laminar boundary layer.",
    "layer": "The boundary layer of a wing grows along its chord.",
}


class Letters(Embeddings):
    """Embeddings that count letters: texts with the same letters are near to each other."""

    def __init__(self, model: str = "letters", scale: float = 1.0) -> None:
        self.model, self.scale, self.calls = model, scale, 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.calls += 1
        return [self.scale * text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]


class Gives(Embeddings):
    """Embeddings that give what a test wants."""

    def __init__(self, vectors: list[Any]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.vectors

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[0]  # type: ignore[no-any-return]


@pytest.fixture
def store() -> HybridSearchVectorStore:
    metadatas = [{"year": 1950 + number} for number in range(len(TEXTS))]
    return HybridSearchVectorStore.from_texts([*TEXTS.values()], Letters(), metadatas, ids=[*TEXTS])


@pytest.fixture(scope="module")
def manual() -> hs.HybridSearch:
    """An index with titles and passages."""
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=hs.Passages(size=8))
    text = "Charge the battery indoors at night. Never open the motor, which is sealed. Keep both keys in a dry place."
    search.upsert([hs.Document("alder", text, "Alder", {"year": 2024}), hs.Document("birch", "A red bike.")])
    return search


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# The retriever


def test_a_document_says_which_passage_was_found_and_by_which_retriever(manual: hs.HybridSearch) -> None:
    [document] = HybridSearchRetriever(search=manual).invoke("the motor")

    [hit] = manual.search("the motor")
    best = hit.passage
    assert best is not None
    assert (document.id, document.page_content) == ("alder", hit.document.text[best.start : best.end])
    found = document.metadata.pop("hybridsearch")
    assert document.metadata == {"title": "Alder", "year": 2024}
    assert found["passage"] == {"start": best.start, "end": best.end}
    assert (found["rank"], found["score"]) == (1, hit.score)
    assert found["retrievers"]["bm25"] == {
        "rank": 1, "score": hit.retrievers["bm25"].score, "contribution": hit.retrievers["bm25"].contribution,
    }  # fmt: skip


def test_the_whole_document_can_be_the_content(manual: hs.HybridSearch) -> None:
    retriever = HybridSearchRetriever(search=manual, content="document", details=None)

    [document] = retriever.invoke("the motor")

    assert document.page_content.endswith("dry place.")
    assert document.metadata == {"title": "Alder", "year": 2024}
    with pytest.raises(InvalidArgumentError, match="content is one of passage, document"):
        retriever.invoke("the motor", content="page")


def test_details_never_replace_a_field_of_the_metadata() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "a", "text": "a wing", "hybridsearch": 1})

    with pytest.raises(InvalidArgumentError, match=r"'a' has the metadata field 'hybridsearch'.*details='found'"):
        HybridSearchRetriever(search=search).invoke("wing")
    [document] = HybridSearchRetriever(search=search, details="found").invoke("wing")
    assert (document.metadata["hybridsearch"], document.metadata["found"]["rank"]) == (1, 1)


def test_options_of_a_call_are_those_of_search(store: HybridSearchVectorStore) -> None:
    search = store.hybrid_search
    retriever = HybridSearchRetriever(search=search, k=2, search_kwargs={"filter": {"year": {"$lt": 1953}}})

    assert (
        ids(retriever.invoke("boundary layer"))
        == search.search("boundary layer", 2, filter={"year": {"$lt": 1953}}).ids
    )
    changed = retriever.invoke("boundary layer", filter=None, k=3, fusion="minmax", candidates=2)
    assert [document.metadata["hybridsearch"]["score"] for document in changed] == [
        hit.score for hit in search.search("boundary layer", 3, fusion="minmax", candidates=2)
    ]
    assert len(retriever.invoke("boundary", retrievers=["bm25"], filter=None)) == 2
    with pytest.raises(InvalidArgumentError, match=r"'fitler' is no option of a search\. The options are k, .*filter"):
        retriever.invoke("boundary", fitler={})
    with pytest.raises(InvalidArgumentError, match=r"^k is '2', but"):
        store.similarity_search("boundary", k="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="greater than 0"):
        HybridSearchRetriever(search=search, k=0)
    with pytest.raises(InvalidArgumentError, match=r"^A query is a string, not dict\.$"):
        retriever.invoke({"query": "boundary"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fitler"):
        HybridSearchRetriever(search=search, fitler={})  # type: ignore[call-arg]


def test_a_filter_that_is_a_function_is_refused(store: HybridSearchVectorStore) -> None:
    with pytest.raises(FilterError, match=r"filter is a function.*give a dict"):
        store.similarity_search("wing", filter=lambda document: True)


def test_sync_async_and_batches_give_the_same_documents(store: HybridSearchVectorStore) -> None:
    retriever = HybridSearchRetriever(search=store.hybrid_search, k=2)
    queries = ["boundary layer", "panel flutter", "attack"]

    one_by_one = [retriever.invoke(query) for query in queries]

    assert retriever.batch(queries) == one_by_one
    assert asyncio.run(retriever.abatch(queries)) == one_by_one
    assert [asyncio.run(retriever.ainvoke(query)) for query in queries] == one_by_one
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(retriever.invoke, queries * 20)) == one_by_one * 20


def test_a_batch_is_one_search(store: HybridSearchVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    ask = store.hybrid_search.backend.search
    monkeypatch.setattr(
        store.hybrid_search.backend, "search", lambda requests: (calls.append(len(requests)), ask(requests))[1]
    )

    HybridSearchRetriever(search=store.hybrid_search).batch(["wing", "heat", "panel"])

    assert calls == [6]  # 3 queries, 2 retrievers


def test_each_query_of_a_batch_has_its_own_error(store: HybridSearchVectorStore) -> None:
    wrong: Any = 7

    good, bad = HybridSearchRetriever(search=store.hybrid_search).batch(["wing", wrong], return_exceptions=True)

    assert ids(good)[0] == "layer"
    assert isinstance(bad, InvalidArgumentError)


class Events(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.seen.append(("start", query, tuple(kwargs["tags"])))

    def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
        self.seen.append(("end", len(documents)))

    def on_retriever_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen.append(("error", type(error)))


def test_callbacks_and_tags_see_each_query(store: HybridSearchVectorStore) -> None:
    events = Events()
    retriever = HybridSearchRetriever(search=store.hybrid_search, k=1, tags=["manuals"])

    retriever.batch(["wing", "heat"], {"callbacks": [events]})
    with pytest.raises(IndexNotFoundError):
        HybridSearchRetriever(search=hs.HybridSearch({"bm25": hs.BM25()})).invoke("wing", {"callbacks": [events]})

    assert events.seen == [
        ("start", "wing", ("manuals",)), ("end", 1), ("start", "heat", ("manuals",)), ("end", 1),
        ("start", "wing", ()), ("error", IndexNotFoundError),
    ]  # fmt: skip


def test_k_can_be_configured_and_a_retriever_of_a_folder_pickles(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index")
    search.upsert([{"id": id, "text": text} for id, text in TEXTS.items()])
    retriever = HybridSearchRetriever(search=search, k=1)

    configurable = retriever.configurable_fields(k=ConfigurableField(id="k"))

    assert len(configurable.invoke("boundary layer", {"configurable": {"k": 2}})) == 2
    assert pickle.loads(pickle.dumps(retriever)).invoke("wing") == retriever.invoke("wing")  # noqa: S301
    assert "HybridSearch(" in repr(retriever)


def test_notes_are_logged(store: HybridSearchVectorStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store.similarity_search("wing", filter={"yaer": 1950})

    assert "yaer" in caplog.text


# The vector store


def test_the_retriever_of_the_embeddings_takes_no_place_of_another_one() -> None:
    with pytest.raises(InvalidArgumentError, match="give the other one another name"):
        HybridSearchVectorStore.from_texts(["a wing"], Letters(), retrievers={"dense": hs.BM25()})


def test_texts_get_ids_and_must_match_their_metadata() -> None:
    store = HybridSearchVectorStore.from_texts([], Letters())
    given = Document("a wing", metadata={"year": 1958, "deep": {"list": [1, "b", None]}})

    [id] = store.add_documents([given])

    assert store.get_by_ids([id, "unknown"]) == [Document("a wing", id=id, metadata=given.metadata)]
    store.get_by_ids([id])[0].metadata["deep"]["list"].append(2)  # a copy that the caller may change
    assert given.id is None
    assert store.add_texts(["a jet"], ids=[id]) == [id]
    assert store.hybrid_search.count() == 1
    with pytest.raises(InvalidArgumentError, match="ids has the length 1, but the number of documents is 2"):
        store.add_texts(["a", "b"], ids=["1"])
    with pytest.raises(InvalidArgumentError, match="metadatas has the length 1, but"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InvalidArgumentError, match="a list of LangChain documents, but it has 'a text'"):
        store.add_documents(["a text"])  # type: ignore[list-item]


def test_metadata_that_cannot_be_stored_is_refused(store: HybridSearchVectorStore) -> None:
    with pytest.raises(DocumentError, match=r"metadata\['raw'\] is of type bytes"):
        store.add_texts(["a wing"], [{"raw": b"\x00"}])
    store.add_texts(["a wing"], [{"missing": float("nan")}], ids=["nan"])
    assert store.get_by_ids(["nan"])[0].metadata == {"missing": None}


def test_documents_are_deleted_by_id_or_filter_but_never_all_by_mistake(store: HybridSearchVectorStore) -> None:
    assert store.delete(["lift", "unknown"]) is True
    assert store.delete([]) is True
    store.delete(filter={"year": {"$gt": 1952}})
    assert ids(store.get_by_ids([*TEXTS])) == ["flutter", "heat"]
    with pytest.raises(InvalidArgumentError, match="neither is given"):
        store.delete()
    with pytest.raises(InvalidArgumentError, match="not 'where'"):
        store.delete(["heat"], where={})


def test_a_search_by_vector_ranks_as_langchains_own_store_does(store: HybridSearchVectorStore) -> None:
    theirs = InMemoryVectorStore.from_texts([*TEXTS.values()], Letters(), ids=[*TEXTS])
    vector = Letters().embed_query("thin layers")

    assert ids(store.similarity_search_by_vector(vector, 4)) == ids(theirs.similarity_search_by_vector(vector, 4))
    assert (
        ids(asyncio.run(store.asimilarity_search_by_vector(vector, 2, filter={"year": {"$ne": 1953}})))
        == [one.id for one in theirs.similarity_search_by_vector(vector, 4) if one.id != "layer"][:2]
    )
    with pytest.raises(InvalidArgumentError, match=r"has 3 numbers, but the vectors of .* have 26"):
        store.similarity_search_by_vector([1.0, 2.0, 3.0])
    with pytest.raises(EncodingError, match="NaN"):
        store.similarity_search_by_vector([float("nan")] * 26)
    with pytest.raises(InvalidArgumentError, match="asks the retriever 'dense' alone"):
        store.similarity_search_by_vector(vector, retrievers=["bm25"])


def test_relevance_scores_are_cosines_also_of_documents_that_only_bm25_found(store: HybridSearchVectorStore) -> None:
    query = "panels at the speed"
    pairs = store.similarity_search_with_relevance_scores(query, 4, candidates=4)
    few = store.hybrid_search
    few.candidates = 1

    unit = {
        id: vector / np.linalg.norm(vector)
        for id, vector in zip(TEXTS, Letters().embed_documents([*TEXTS.values()]), strict=True)
    }
    asked = np.array(Letters().embed_query(query))
    for document, score in pairs:
        assert score == pytest.approx(float(unit[str(document.id)] @ asked / np.linalg.norm(asked)), abs=1e-6)
    assert asyncio.run(store.asimilarity_search_with_relevance_scores(query, 1)) == [
        (document, pytest.approx(score)) for document, score in pairs[:1]
    ]
    threshold = sorted(score for _, score in pairs)[-2]
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": threshold - 1e-6, "k": 4}
    )
    few.candidates = 100
    assert len(retriever.invoke(query)) == 2


def test_scores_are_those_of_hits_and_mmr_is_ours(store: HybridSearchVectorStore) -> None:
    hits = store.hybrid_search.search("boundary layer", 3)
    diverse = store.hybrid_search.search("boundary layer", 3, diversity=hs.MMR(0.2, 4))

    assert [(one.id, score) for one, score in store.similarity_search_with_score("boundary layer", 3)] == [
        (hit.id, hit.score) for hit in hits
    ]
    asked = {"k": 3, "fetch_k": 4, "lambda_mult": 0.2}
    assert ids(store.max_marginal_relevance_search("boundary layer", **asked)) == diverse.ids
    assert ids(asyncio.run(store.amax_marginal_relevance_search("boundary layer", **asked))) == diverse.ids
    assert ids(store.as_retriever(search_type="mmr", search_kwargs=asked).invoke("boundary layer")) == diverse.ids
    vector = Letters().embed_query("boundary layer")
    by_vector = ids(store.max_marginal_relevance_search_by_vector(vector, **asked))
    assert (
        by_vector == store.hybrid_search.search("boundary layer", 3, retrievers=["dense"], diversity=hs.MMR(0.2, 4)).ids
    )
    assert ids(asyncio.run(store.amax_marginal_relevance_search_by_vector(vector, **asked))) == by_vector


def test_mmr_with_a_tuned_fusion_reads_as_many_candidates_as_were_tuned(
    store: HybridSearchVectorStore, tmp_path: Path
) -> None:
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"type": "tuned", "fusion": {"type": "score"}, "candidates": 2}), encoding="utf-8")
    search = store.hybrid_search
    tuned = search.search("boundary layer", 2, fusion=file, diversity=hs.MMR(1, 2))
    assert tuned[1].score != search.search("boundary layer", 2, fusion="minmax", diversity=hs.MMR(1, 2))[1].score

    found = store.max_marginal_relevance_search("boundary layer", 2, 2, 1, fusion=file, details="found")

    assert [(one.id, one.metadata["found"]["score"]) for one in found] == [(hit.id, hit.score) for hit in tuned]
    with pytest.raises(InvalidArgumentError, match="takes fetch_k and lambda_mult: leave out diversity"):
        store.max_marginal_relevance_search("boundary layer", diversity=hs.MMR())


def test_a_store_without_vectors_says_what_it_cannot_do(manual: hs.HybridSearch) -> None:
    store = HybridSearchVectorStore(manual)

    assert ids(store.similarity_search("motor")) == ["alder"]
    assert store.embeddings is None
    for search in (
        lambda: store.similarity_search_by_vector([1.0]),
        lambda: store.similarity_search_with_relevance_scores("motor"),
    ):
        with pytest.raises(InvalidArgumentError, match="no dense retriever"):
            search()


def test_as_retriever_takes_the_options_of_search(store: HybridSearchVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"year": 1952}, "details": "found"})

    [document] = retriever.invoke("wing", fusion="minmax")

    assert (document.id, set(document.metadata)) == ("heat", {"year", "found"})
    assert retriever.tags == ["HybridSearchVectorStore", "Letters"]


# The encoder


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[1.0, 2.0]], "gave 1 vectors for 2 texts"),
        ([[1.0, 2.0], [1.0]], "vectors of 1 and 2 numbers"),
        ([[], []], "vectors of 0 numbers"),
        ([[1.0, float("nan")], [1.0, 2.0]], "NaN, infinity"),
        ([[1.0, 1e300], [1.0, 2.0]], "beyond float32"),
        ([["a"], ["b"]], "not numbers"),
    ],
)
def test_vectors_that_no_index_can_hold_are_refused(vectors: list[Any], says: str) -> None:
    with pytest.raises(EncodingError, match=says):
        EmbeddingsEncoder(Gives(vectors)).encode_documents(["a wing", "a jet"])


def test_blank_texts_have_no_vector_and_reach_no_model() -> None:
    embeddings = Letters()
    encoder = EmbeddingsEncoder(embeddings)

    vectors = encoder.encode_documents(["", "ab", " \n"])

    assert np.linalg.norm(vectors.array, axis=1).tolist() == pytest.approx([0, 1, 0])
    assert embeddings.calls == 1
    assert not encoder.encode_queries([" "])[0].any()


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_the_metric_decides_which_vector_is_near(metric: Any) -> None:
    encoder = EmbeddingsEncoder(Letters(scale=3.0), metric=metric)
    search = hs.HybridSearch({"dense": encoder})
    search.upsert([{"id": "short", "text": "ab"}, {"id": "long", "text": "aabbb"}])

    scores = {hit.id: hit.retrievers["dense"].score for hit in search.search("ab")}

    a, b, q = np.array([3.0, 3.0]), np.array([6.0, 9.0]), np.array([3.0, 3.0])
    expected = {
        "cosine": (1.0, b @ q / np.linalg.norm(b) / np.linalg.norm(q)),
        "dot": (a @ q, b @ q),
        "euclidean": (0.0, -np.linalg.norm(b - q)),
    }[metric]
    assert (scores["short"], scores["long"]) == pytest.approx(expected, abs=1e-5)


def test_an_index_refuses_other_embeddings(tmp_path: Path) -> None:
    place = tmp_path / "index"
    with hs.HybridSearch({"dense": EmbeddingsEncoder(Letters())}, place) as search:
        search.upsert([{"id": id, "text": text} for id, text in TEXTS.items()])

    with pytest.raises(FingerprintMismatchError, match="letters-2"):
        hs.HybridSearch({"dense": EmbeddingsEncoder(Letters("letters-2"))}, place)
    with pytest.raises(InvalidArgumentError, match="pass it"):
        hs.open(place)
    with hs.open(place, retrievers={"dense": EmbeddingsEncoder(Letters())}) as search:
        assert ids(HybridSearchVectorStore(search).similarity_search(TEXTS["heat"], k=1)) == ["heat"]


def test_embeddings_are_called_in_a_thread_by_asynchronous_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HybridSearchVectorStore.from_texts(["a wing"], DeterministicFakeEmbedding(size=4))
    called: list[bool] = []
    monkeypatch.setattr(
        store.hybrid_search.retrievers["dense"],
        "_embed_query",
        lambda text: called.append(threading.current_thread() is threading.main_thread()) or [1.0, 0, 0, 0],
    )

    assert len(asyncio.run(store.asimilarity_search("wing"))) == 1
    assert called == [False]
