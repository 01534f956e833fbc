"""Tests of the Haystack document store, retrievers and ranker, with real indexes and pipelines."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("haystack", reason="pip install haystack-ai")

from haystack import Document, Pipeline, component
from haystack.components.builders import PromptBuilder
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError, SerializationError
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.errors import (
    BackendError,
    DocumentError,
    EncodingError,
    FingerprintMismatchError,
    InvalidArgumentError,
    RetrieverError,
)
from hybridsearch.integrations.haystack import (
    EmbeddingsEncoder,
    HybridSearchContextRetriever,
    HybridSearchDocumentStore,
    HybridSearchEmbeddingRetriever,
    HybridSearchRanker,
    HybridSearchRetriever,
)

MODULE = "hybridsearch.integrations.haystack"
TEXTS = {
    "lift": "Lift grows with the angle of attack until the flow separates.",
    "flutter": "Flutter of thin panels at the speed of sound.",
    "heat": "Heat transfer in a laminar boundary layer.",
    "layer": "The boundary layer of a wing grows along its chord.",
}


def letters(text: str) -> list[float]:
    """An embedding: texts with the same letters are near to each other."""
    return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


def documents() -> list[Document]:
    return [Document(id=id, content=text, meta={"n": n}) for n, (id, text) in enumerate(TEXTS.items())]


@component
class LetterEmbedder:
    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        return {"embedding": letters(text)}


@component
class LetterDocumentEmbedder:
    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        made = [
            Document(id=d.id, content=d.content, meta=d.meta, embedding=letters(d.content or "")) for d in documents
        ]
        return {"documents": made}


def new_store(place: str | Path | Secret = "memory", **settings: Any) -> HybridSearchDocumentStore:
    return HybridSearchDocumentStore(
        place, retrievers={"bm25": hs.BM25(), "dense": EmbeddingsEncoder(26, name="letters")}, **settings
    )


@pytest.fixture
def store() -> HybridSearchDocumentStore:
    store = new_store()
    store.write_documents(
        [
            Document(id=id, content=text, meta={"n": n}, embedding=letters(text))
            for n, (id, text) in enumerate(TEXTS.items())
        ]
    )
    return store


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


# Documents


def test_documents_come_back_as_they_were_written() -> None:
    store = new_store()
    blob = ByteStream(b"\x00\xff", meta={"name": "picture"}, mime_type="image/png")
    documents = [
        Document(
            id="z", content="A wing \U0001f6e9", embedding=[0.1] * 26, meta={"none": None, "deep": {"a": [1, 2.0, "x"]}}
        ),
        Document(id="a", content=None, blob=blob, score=0.25),
        Document(id="é", content="", sparse_embedding=SparseEmbedding([3, 70000], [0.5, 1e-30])),
    ]

    assert store.write_documents(documents) == 3

    assert store.filter_documents() == documents
    assert store.count_documents() == 3
    assert store.update_by_filter({"field": "id", "operator": "==", "value": "z"}, {"year": 1958}) == 1
    first, *others = store.filter_documents()
    assert (first.meta["year"], first.embedding, others) == (1958, documents[0].embedding, documents[1:])


def test_a_policy_decides_about_ids_that_come_twice() -> None:
    store = new_store()
    one, other = Document(id="1", content="first"), Document(id="1", content="second")
    new = Document(id="2", content="new")

    with pytest.raises(DuplicateDocumentError, match="'1'"):
        store.write_documents([new, one, other])
    assert store.count_documents() == 0
    assert store.write_documents([one, other, new], DuplicatePolicy.SKIP) == 2
    assert [document.content for document in store.filter_documents()] == ["first", "new"]
    with pytest.raises(ValueError, match="never"):
        store.write_documents([other], "never")  # type: ignore[arg-type]
    assert store.write_documents([one, other], DuplicatePolicy.OVERWRITE) == 2
    assert [document.content for document in store.filter_documents()] == ["new", "second"]


def test_ids_that_only_look_alike_are_two_documents_under_every_policy() -> None:
    for policy in (DuplicatePolicy.SKIP, DuplicatePolicy.NONE, DuplicatePolicy.OVERWRITE):
        store = new_store()
        store.write_documents([Document(id="caf\u00e9", content="composed")])
        assert store.write_documents([Document(id="cafe\u0301", content="decomposed")], policy) == 1
        assert store.count_documents() == 2


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (Document(content="x", meta={"a": b"bytes"}), DocumentError),
        (Document(content="x", meta={"_haystack": 1}), DocumentError),
        (Document(content="x", embedding=[[1.0]]), DocumentError),  # type: ignore[list-item]
        (Document(content="x", embedding=["a"] * 26), DocumentError),  # type: ignore[list-item]
        (Document(content="x", embedding=[1.0]), EncodingError),
        (Document(content="x", embedding=[float("nan")] * 26), EncodingError),
    ],
)
def test_documents_that_cannot_be_stored_are_refused(document: Document, error: type[Exception]) -> None:
    store = new_store()

    with pytest.raises(error):
        store.write_documents([document])

    assert store.filter_documents() == []


def test_threads_that_skip_duplicates_write_each_document_once() -> None:
    store = new_store()
    documents = [Document(id=str(n), content=f"wing {n}") for n in range(30)]

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: store.write_documents(documents, DuplicatePolicy.SKIP), range(8)))

    assert sorted(counts) == [0] * 7 + [30]
    assert store.count_documents() == 30


def test_metadata_is_described() -> None:
    store = new_store()
    values = [{"n": 1, "deep": {"a": "x"}}, {"n": 2.5, "deep": {"a": "y"}, "t": True}, {"n": None, "tags": ["b"]}]
    store.write_documents([Document(content=str(n), meta=meta) for n, meta in enumerate(values)])

    info = store.get_metadata_fields_info()

    assert {name: one["type"] for name, one in info.items()} == {
        "n": "float", "deep": "keyword", "t": "boolean", "tags": "keyword",
    }  # fmt: skip
    assert store.get_metadata_field_min_max("n") == {"min": 1, "max": 2.5}
    assert store.get_metadata_field_unique_values("meta.deep.a", "Y") == (["y"], 1)
    assert store.get_metadata_field_unique_values("tags") == ([["b"]], 1)


# Filters


MOMENTS = ["1969-07-21", "1969-07-21T00:00:00", "1969-07-21T20:17:40", "1972-12-11 19:54:58", "1972-12-11"]
INSTANTS = ["1969-07-21T20:17:40Z", "1969-07-21T22:17:40+02:00", "1969-07-21T20:17:39.5Z", "1972-12-11T00:00+00:00"]
VALUES: dict[str, list[Any]] = {
    "n": [1, 2, 2.0, -0.5, 10**6, None],
    "s": ["a", "A", "1", "", None],
    "date": [*MOMENTS, None],
    "instant": [*INSTANTS, None],
    "deep.inner": [1, 2, None],
}


@pytest.fixture(scope="module")
def filterable() -> tuple[HybridSearchDocumentStore, list[Document]]:
    documents = []
    for n in range(24):
        meta: dict[str, Any] = {}
        for step, (field, values) in enumerate(VALUES.items(), 1):
            value = values[n * step % len(values)] if n % (step + 3) else None
            if field == "deep.inner":
                meta["deep"] = {"inner": value}
            elif n % 7 != step:
                meta[field] = value
        documents.append(Document(id=f"{n:02}", content=f"text {n}", meta=meta))
    store = HybridSearchDocumentStore()
    store.write_documents(documents)
    return store, documents


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(sorted(VALUES)))
    values = st.sampled_from(VALUES[field])
    if field in ("date", "instant"):
        values |= values.filter(bool).map(dt.datetime.fromisoformat)
    operator = draw(st.sampled_from(["==", "!=", "in", "not in"] if field == "s" else list(OPERATORS)))
    value = draw(st.lists(values, max_size=3) if operator.endswith("in") else values)
    return {"field": f"meta.{field}", "operator": operator, "value": value}


OPERATORS = ("==", "!=", ">", ">=", "<", "<=", "in", "not in")
FILTERS = st.recursive(
    comparisons(),
    lambda inner: st.builds(
        lambda operator, conditions: {"operator": operator, "conditions": conditions},
        st.sampled_from(["AND", "OR", "NOT"]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)


@given(filters=FILTERS)
def test_filters_select_what_they_select_in_haystack(
    filterable: tuple[HybridSearchDocumentStore, list[Document]], filters: dict[str, Any]
) -> None:
    store, documents = filterable

    expected = [document for document in documents if document_matches_filter(filters, document)]

    assert store.filter_documents(filters) == expected
    assert store.count_documents_by_filter(filters) == len(expected)


@pytest.mark.parametrize(
    "filters",
    [
        [],
        "meta.n",
        {"field": "meta.n", "operator": "=", "value": 1},
        {"field": "meta.n", "operator": ">", "value": "late"},
        {"field": "meta.n", "operator": "==", "value": [1]},
        {"field": "meta.n", "operator": "in", "value": [[1]]},
        {"field": "meta.n", "operator": "==", "value": float("nan")},
        {"field": "content", "operator": "==", "value": "text"},
        {"field": "meta.id", "operator": "==", "value": "a"},
        {"field": "meta.", "operator": "==", "value": "a"},
        {"field": 1, "operator": "==", "value": "a"},
        {"operator": "XOR", "conditions": []},
        {"operator": "AND", "conditions": 5},
        {"operator": "AND", "conditions": [5]},
        {"field": "meta.instant", "operator": ">", "value": "1969-07-21T20:17:40"},
        {"field": "meta.date", "operator": ">", "value": "1969-07-21T20:17:40Z"},
    ],
)
def test_filters_that_cannot_be_used_are_errors_of_haystack(
    filterable: tuple[HybridSearchDocumentStore, list[Document]], filters: Any
) -> None:
    store, _ = filterable
    for use in (store.filter_documents, store.count_documents_by_filter, store.delete_by_filter):
        with pytest.raises((FilterError, InvalidArgumentError) if filters == [] else FilterError):
            use(filters)
    with pytest.raises(FilterError):
        HybridSearchRetriever(store).run("text", filters=filters or {"operator": "AND"})


def test_a_filter_is_not_nested_without_end() -> None:
    store = new_store()
    filters: dict[str, Any] = {"field": "meta.n", "operator": "==", "value": 1}
    for _ in range(100_000):
        filters = {"operator": "NOT", "conditions": [filters]}

    with pytest.raises(FilterError, match="50 levels"):
        store.filter_documents(filters)
    for wrong in ([filters], {"conditions": [filters]}, {"field": "meta.n", "operator": ">", "value": [filters]}):
        with pytest.raises(FilterError):
            store.filter_documents(wrong)  # type: ignore[arg-type]


def test_an_empty_filter_neither_deletes_nor_changes_all_documents(store: HybridSearchDocumentStore) -> None:
    with pytest.raises(InvalidArgumentError, match="delete_all_documents"):
        store.delete_by_filter({})
    with pytest.raises(InvalidArgumentError):
        store.update_by_filter({}, {"a": 1})

    assert store.count_documents() == 4


# Retrievers and the ranker


def test_a_pipeline_indexes_searches_and_is_the_same_after_yaml(tmp_path: Path) -> None:
    store = new_store(tmp_path / "index", fusion=hs.ScoreFusion("minmax"), candidates=50)
    indexing = Pipeline()
    indexing.add_component("embedder", LetterDocumentEmbedder())
    indexing.add_component("writer", DocumentWriter(store, DuplicatePolicy.OVERWRITE))
    indexing.connect("embedder", "writer")
    querying = Pipeline()
    querying.add_component("embedder", LetterEmbedder())
    options = {"diversity": hs.MMR(0.9, 4), "boost": [hs.FieldBoost({"key": "a"})], "fusion": hs.RRF(k=10)}
    options["feedback"] = [hs.RM3(2, max_share=1), hs.Rocchio()]
    querying.add_component("retriever", HybridSearchRetriever(store, top_k=3, search_kwargs=options))
    querying.connect("embedder.embedding", "retriever.query_embedding")
    query = "boundary layer of a wing"
    asked = {"embedder": {"text": query}, "retriever": {"query": query}}

    assert indexing.run({"embedder": {"documents": documents()}})["writer"]["documents_written"] == 4
    found = querying.run(asked)["retriever"]["documents"]
    text = querying.dumps()

    assert ids(found)[0] == "layer"
    assert set(found[0].meta["hybridsearch"]["retrievers"]) == {"bm25", "dense"}
    assert found[0].score == found[0].meta["hybridsearch"]["score"]
    assert found[0].embedding is None
    with pytest.raises(DeserializationError, match="allowlist"):
        Pipeline.loads(text)
    again = Pipeline.loads(text, allowed_modules=[MODULE, __name__])
    assert again.dumps() == text
    assert again.run(asked)["retriever"]["documents"] == found
    assert asyncio.run(again.run_async(asked))["retriever"]["documents"] == found


def test_a_store_opens_an_index_with_its_recorded_encoders(tmp_path: Path) -> None:
    place = tmp_path / "index"
    store = new_store(place)
    store.write_documents([Document(id="a", content="a wing", embedding=letters("a wing"))])
    store.close()

    assert ids(HybridSearchEmbeddingRetriever(HybridSearchDocumentStore(place)).run(letters("wing"))["documents"]) == [
        "a"
    ]
    with hs.open(place) as search:
        assert search.search("wing", retrievers=["bm25"]).ids == ["a"]
    with pytest.raises(FingerprintMismatchError):
        HybridSearchDocumentStore(place, retrievers={"dense": EmbeddingsEncoder(26, name="other")}).count_documents()


def test_stores_with_the_same_arguments_share_the_open_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, relative = new_store(tmp_path / "index"), new_store("index")
    copied = pickle.loads(pickle.dumps(store))  # noqa: S301
    other = new_store(tmp_path / "index", candidates=7)

    for number, one in enumerate((store, relative, copied, HybridSearchDocumentStore.from_dict(store.to_dict()))):
        one.write_documents([Document(id=str(number), content="a wing")])

    assert store.count_documents() == relative.count_documents() == 4
    assert store.hybrid_search is copied.hybrid_search is not other.hybrid_search
    store.close()
    assert relative.count_documents() == 4
    for name, count in (("index", 4), ("other", 0)):
        monkeypatch.setenv("SEARCH_PLACE", str(tmp_path / name))
        assert new_store(Secret.from_env_var("SEARCH_PLACE")).count_documents() == count
    in_ram = new_store()
    in_ram.write_documents([Document(content="a wing")])
    assert new_store().count_documents() == 0
    with pytest.raises(BackendError, match="RAM"):
        pickle.dumps(in_ram)


def test_an_embedding_finds_the_nearest_documents(store: HybridSearchDocumentStore) -> None:
    store.write_documents([Document(id="none", content="flutter flutter")])
    retriever = HybridSearchEmbeddingRetriever(store, top_k=2, return_embedding=True)

    found = retriever.run(letters("flutter of panels"))["documents"]

    vectors = {id: np.array(letters(text)) for id, text in TEXTS.items()}
    query = np.array(letters("flutter of panels"))
    cosines = {id: v @ query / np.linalg.norm(v) / np.linalg.norm(query) for id, v in vectors.items()}
    assert ids(found) == sorted(cosines, key=lambda id: -cosines[id])[:2]
    assert [document.score for document in found] == pytest.approx(sorted(cosines.values())[:1:-1], rel=1e-5)
    assert found[0].embedding == letters(TEXTS[found[0].id])
    assert asyncio.run(retriever.run_async(letters("flutter of panels"))) == {"documents": found}
    with pytest.raises(InvalidArgumentError, match="3 numbers"):
        retriever.run([1.0, 2.0, 3.0])
    with pytest.raises(InvalidArgumentError, match="without a reranker"):
        retriever.run(letters("wing"), search_kwargs={"retrievers": ["bm25"]})
    bare = HybridSearchDocumentStore()
    bare.write_documents([Document(content="a wing")])
    with pytest.raises(InvalidArgumentError, match="no dense retriever"):
        HybridSearchEmbeddingRetriever(bare).run([1.0])


def test_a_query_without_an_embedding_needs_other_retrievers(store: HybridSearchDocumentStore) -> None:
    retriever = HybridSearchRetriever(store)

    with pytest.raises((EncodingError, RetrieverError), match="query_embedding"):
        retriever.run("flutter")
    assert ids(retriever.run("flutter", search_kwargs={"retrievers": ["bm25"]})["documents"]) == ["flutter"]
    with pytest.raises(InvalidArgumentError, match="query_embedding"):
        retriever.run("flutter", letters("flutter"), search_kwargs={"retrievers": ["bm25"]})
    with pytest.raises(InvalidArgumentError, match="text of a query"):
        retriever.run(None, letters("flutter"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="filters"):
        HybridSearchRetriever(store, search_kwargs={"filter": {"n": 1}})


def test_filters_of_a_call_replace_or_join_those_of_the_retriever(store: HybridSearchDocumentStore) -> None:
    early = {"field": "id", "operator": "in", "value": ["lift", "heat"]}
    late = {"field": "meta.n", "operator": ">", "value": 1}
    asked = {"query": "boundary layer", "query_embedding": letters("boundary layer"), "filters": late}

    assert set(ids(HybridSearchRetriever(store, filters=early).run(**asked)["documents"])) == {"heat", "layer"}
    merging = HybridSearchRetriever(store, filters=early, filter_policy="merge")
    assert ids(merging.run(**asked)["documents"]) == ["heat"]


def test_a_store_in_which_nothing_is_written_finds_nothing() -> None:
    store = new_store()

    assert HybridSearchRetriever(store).run("wing")["documents"] == []
    assert HybridSearchEmbeddingRetriever(store).run(letters("wing"))["documents"] == []
    assert str(HybridSearchContextRetriever(store).run("wing")["text"]) == ""
    assert store.get_metadata_fields_info() == {}
    store.delete_documents(["a"])
    store.delete_all_documents()


def test_a_passage_goes_into_a_prompt_and_an_answer_cites_it() -> None:
    store = HybridSearchDocumentStore(retrievers={"bm25": hs.BM25()}, passages=hs.Passages(size=16, overlap=0))
    text = "# Battery\n\nThe battery is heavy.\n\n# Charging\n\nCharge it indoors at room temperature."
    store.write_documents([Document(id="alder", content=text, meta={"title": "Alder", "url": "https://example.org"})])
    pipeline = Pipeline()
    pipeline.add_component("sources", HybridSearchContextRetriever(store, top_k=1, max_tokens=200, per_document=1))
    pipeline.add_component("prompt", PromptBuilder("{{sources}}\n{{question}}", required_variables="*"))
    pipeline.connect("sources.text", "prompt.sources")

    done = pipeline.run(
        {"sources": {"query": "charge indoors"}, "prompt": {"question": "Where?"}}, include_outputs_from={"sources"}
    )

    assert "# Charging\n\nCharge it indoors" in done["prompt"]["prompt"]
    assert "heavy" not in done["prompt"]["prompt"]
    [source] = done["sources"]["context"].cite("Indoors [1].").sources
    assert (source.id, source.url, text[source.start : source.end]) == ("alder", "https://example.org", source.text)
    [document] = done["sources"]["documents"]
    span = document.meta["hybridsearch"]["passage"]
    assert document.content == text[span["start"] : span["end"]]
    whole = HybridSearchRetriever(store, content="document").run("charge indoors")["documents"]
    assert whole[0].content == text


class Shortest:
    """A reranker that gives the shortest text the largest score."""

    top_k = 10

    def rerank(self, queries: list[str], documents: list[list[hs.Document]]) -> list[NDArray[np.float64]]:
        return [np.array([-float(len(one.text)) for one in of_query]) for of_query in documents]

    def to_json(self) -> dict[str, Any] | None:
        return None


def test_a_ranker_orders_documents_by_the_scores_of_a_reranker() -> None:
    ranker = HybridSearchRanker(Shortest(), top_k=2)
    given = [replace(one, score=1.0) for one in documents()]

    ranked = ranker.run("any", [*given, given[0]])["documents"]

    assert ids(ranked) == ["heat", "flutter"]
    assert ranked[0].score == -len(TEXTS["heat"])
    assert given[2].score == 1.0
    assert ids(asyncio.run(ranker.run_async("any", given, top_k=1))["documents"]) == ["heat"]
    assert ranker.run("any", [])["documents"] == []
    with pytest.raises(SerializationError, match="register"):
        ranker.to_dict()
    again = HybridSearchRanker.from_dict(HybridSearchRanker(hs.CrossEncoderReranker("my-model"), top_k=3).to_dict())
    assert (again.reranker.model.name, again.top_k) == ("my-model", 3)


def test_a_ranker_blends_as_a_search_does() -> None:
    class Blending(Shortest):
        blend = 0.75

    store = HybridSearchDocumentStore()
    store.write_documents(documents())
    query = "boundary layer of thin panels"
    found = HybridSearchRetriever(store, details=None).run(query)["documents"]
    ranked = HybridSearchRanker(Blending()).run(query, found)["documents"]

    expected = store.hybrid_search.search(query, reranker=Blending())
    assert ids(ranked) == expected.ids != ids(HybridSearchRanker(Shortest()).run(query, found)["documents"])
    assert [one.score for one in ranked] == pytest.approx([hit.score for hit in expected])
    with pytest.raises(InvalidArgumentError, match="a document has none"):
        HybridSearchRanker(Blending()).run(query, documents())


def test_a_retriever_with_embeddings_of_documents_reads_no_passages() -> None:
    retrievers = {"bm25": hs.BM25(), "dense": EmbeddingsEncoder(26)}
    text = f"# One\n\n{TEXTS['heat']}\n\n# Two\n\n{TEXTS['lift']}"
    store = HybridSearchDocumentStore(retrievers=retrievers, passages=hs.Passages(size=16, whole=["dense"]))
    store.write_documents([Document(id="both", content=text, embedding=letters(text))])

    [found] = HybridSearchRetriever(store).run("angle of attack", letters("attack"))["documents"]

    assert set(found.meta["hybridsearch"]["retrievers"]) == {"bm25", "dense"}
    assert found.content == text[text.index("# Two") :]
    with pytest.raises(InvalidArgumentError, match=r"whole=\['dense'\]"):
        HybridSearchDocumentStore(retrievers=retrievers, passages=hs.Passages())


def test_notes_are_logged(store: HybridSearchDocumentStore, caplog: pytest.LogCaptureFixture) -> None:
    unknown = {"field": "meta.unknown", "operator": "==", "value": 1}

    with caplog.at_level(logging.WARNING, MODULE):
        assert HybridSearchRetriever(store).run("wing", letters("wing"), unknown)["documents"] == []

    assert "no document has this field" in caplog.text


def test_a_search_in_a_store_in_which_nothing_was_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = HybridSearchDocumentStore(tmp_path / "mistyped")
    with caplog.at_level(logging.WARNING, MODULE):
        assert store.count_documents() == 0
        assert caplog.text == ""
        assert HybridSearchRetriever(store).run("wing")["documents"] == []
    assert "mistyped') has no documents, because nothing was written to this place yet." in caplog.text


# Secrets


def test_secrets_are_written_as_the_names_of_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"password": Secret.from_env_var("SEARCH_PASSWORD"), "user": "me", "timeout": 1}
    store = HybridSearchDocumentStore(Secret.from_env_var("SEARCH_URL"), backend_options=options)

    described = store.to_dict()

    again = HybridSearchDocumentStore.from_dict(described)
    assert again.to_dict() == described
    assert described["init_parameters"]["place"]["env_vars"] == ["SEARCH_URL"]
    with pytest.raises(InvalidArgumentError, match="SEARCH_URL"):
        again.count_documents()
    monkeypatch.setenv("SEARCH_URL", "opensearch://localhost:1/papers")
    with pytest.raises(InvalidArgumentError, match="SEARCH_PASSWORD"):
        again.count_documents()
    monkeypatch.setenv("SEARCH_PASSWORD", "geheim-7")
    with pytest.raises(BackendError, match="localhost:1") as caught:
        again.count_documents()
    assert "geheim-7" not in f"{caught.value}{again.to_dict()}{again!r}"


@pytest.mark.parametrize(
    "arguments",
    [
        {"place": "opensearch://me:geheim-7@localhost/papers"},
        {"place": "opensearch://localhost/papers", "backend_options": {"api_key": "geheim-7"}},
        {"place": "opensearch://localhost/papers", "backend_options": {"password": Secret.from_token("geheim-7")}},
        {"place": Secret.from_token("opensearch://me:geheim-7@localhost/papers")},
        {"retrievers": {"dense": hs.Dense("my-model", model_kwargs={"access_token": "geheim-7"})}},
    ],
)
def test_secrets_in_plain_text_are_never_written(arguments: dict[str, Any]) -> None:
    store = HybridSearchDocumentStore(**arguments)

    with pytest.raises((SerializationError, ValueError)) as caught:
        HybridSearchRetriever(store).to_dict()

    assert "geheim-7" not in f"{caught.value}{store!r}"


def test_what_only_the_caller_can_make_is_not_written() -> None:
    class Mine(hs.BM25):
        pass

    for store in (HybridSearchDocumentStore(retrievers={"bm25": Mine()}), new_store(reranker=Shortest())):
        with pytest.raises(SerializationError, match="register"):
            store.to_dict()


def test_an_option_that_no_search_has_is_refused() -> None:
    retriever = HybridSearchRetriever(HybridSearchDocumentStore())
    with pytest.raises(InvalidArgumentError, match=r"'topk' is no option of a search\. The options are filter, "):
        retriever.run("wing", search_kwargs={"topk": 3})
