"""Scores equal MaxSim in float64 and those of sentence-transformers, with any batches and windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.encoders.cache import describe
from hybridsearch.encoders.model_folders import family_of
from hybridsearch.encoders.spec import make_encoders
from hybridsearch.errors import EncodingError, FingerprintMismatchError, InvalidArgumentError
from hybridsearch.rerank import Reranker, blended, kept_tokens, late_interaction, make_reranker, read_reranker

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for rerankers")

QUERIES = ["how does the wing stall", "shock waves", "boundary layer"]
WING = hs.Document("1", "The angle of attack decides how much lift a wing gives, and when it stalls. " * 4, "Lift")
LAYER = hs.Document("4", "Boundary layers grow with distance.")
DOCUMENTS = [[WING, hs.Document("2", "Wings."), hs.Document("3", "翼の揚力")], [], [LAYER, hs.Document("5", ""), WING]]


@pytest.fixture(scope="module")
def folder(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A late-interaction model with all that one can have: prompts, expansion, skipped words, a projection, a mean."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    torch.manual_seed(5)
    transformer = hs.LateInteraction(minilm).model.get()[0]
    transformer.query_expansion = {"strategy": "fixed", "attend": False, "length": 12}
    transformer.document_length = 40
    projection = Dense(
        384, 16, bias=False, module_input_name="token_embeddings", activation_function=torch.nn.Identity()
    )
    modules = [transformer, projection, MultiVectorMask([",", "."]), Normalize(module_input_name="token_embeddings")]
    model = MultiVectorEncoder(modules=modules, prompts={"query": "ask: ", "document": "read: "}, device="cpu")
    model.similarity_fn_name = "meanmaxsim"
    place = tmp_path_factory.mktemp("late") / "model"
    model.save_pretrained(str(place))
    return place


def theirs(model: Any, queries: list[str], documents: list[list[hs.Document]]) -> list[Any]:
    """The scores of sentence-transformers."""
    return [
        model.similarity(model.encode_query([query]), model.encode_document([one.content for one in of_query])).numpy()[
            0
        ]
        for query, of_query in zip(queries, documents, strict=True)
        if of_query
    ]


@pytest.mark.parametrize(("batch_tokens", "window"), [(1, 2), (None, 256)])
def test_scores_equal_those_of_sentence_transformers(
    folder: Path, batch_tokens: int | None, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_interaction, "WINDOW", window)
    late = hs.LateInteraction(folder, batch_tokens=batch_tokens)
    assert isinstance(late, Reranker)
    scores = late.rerank(QUERIES, DOCUMENTS)
    assert [len(of_query) for of_query in scores] == [3, 0, 3]
    expected = theirs(late.model.get(), QUERIES, DOCUMENTS)
    for ours, reference in zip([scores[0], scores[2]], expected, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)


def test_a_dense_model_compares_its_token_vectors(minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(minilm, device="cpu")

    def tokens(text: str) -> Any:
        rows = model.encode([text], output_value="token_embeddings")[0].numpy().astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    scores = hs.LateInteraction(minilm).rerank(QUERIES[:1], DOCUMENTS[:1])[0]
    query = tokens(QUERIES[0])
    expected = [(query @ tokens(one.content).T).max(axis=1).sum() for one in DOCUMENTS[0]]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_maxsim_of_a_document_without_tokens_is_the_lowest_score() -> None:
    query = np.float32([[1, 0], [0, 1]])
    scores = late_interaction.maxsim(query, [np.empty((0, 2), np.float32), -query[:1], query])
    assert scores.tolist() == [-2, -1, 2]


def test_max_length_cuts_documents_and_not_queries(folder: Path) -> None:
    late = hs.LateInteraction(folder, max_length=8)
    assert [len(one) for one in late.vectors([WING.text], "document")] == [8]
    assert [len(one) for one in late.vectors(["wing"], "query")] == [12]


def test_its_description_makes_it_again(folder: Path) -> None:
    late = hs.LateInteraction(folder, top_k=20, passages=2, blend=0.5, template="{text}")
    description = json.loads(json.dumps(late.to_json()))
    own = {"top_k": 20, "passages": 2, "blend": 0.5, "template": "{text}"}
    assert description == {"type": "late-interaction", "model": str(folder), **own}
    again: Any = make_reranker(description)
    assert repr(again) == repr(late)
    assert again.fingerprint() == late.fingerprint() != hs.LateInteraction(folder).fingerprint()
    assert repr(read_reranker(f"late={folder}", top_k=7)) == repr(hs.LateInteraction(folder, top_k=7))


def test_blending_is_that_of_search_and_of_compare(folder: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, reranker=hs.LateInteraction(folder, blend=0.25, top_k=3))
    texts = {"a": "wing stall stall", "b": "the wing", "c": "a wing in a stall, at last", "d": "no wing is seen here"}
    search.index([{"id": id, "text": text} for id, text in texts.items()], show_progress_bar=False)
    hits = search.search("wing stall")
    first = [hit for hit in hits if hit.reranker_score is not None]
    fused = sorted(first, key=lambda hit: hit.rank_before_reranking)
    mixed = blended([hit.reranker_score or 0 for hit in fused], [hit.fused_score for hit in fused], 0.25)
    assert sorted(mixed, reverse=True) == pytest.approx([hit.score for hit in first])
    assert ", blended with 0.25 of the fused score\n" in str(hits[0].explain())
    assert len(first) == 3
    data = hs.Dataset("wings", {"q": "wing stall"}, {"q": {"c": 1}})
    (result,) = hs.compare({"search": search}, data, measures=["RR"], latency_queries=0).systems
    assert list(result.rankings["q"]) == [(hit.id, pytest.approx(hit.score)) for hit in hits]


def test_models_of_other_kinds_are_told_apart(folder: Path, tmp_path: Path) -> None:
    assert family_of(folder) == "MultiVectorEncoder"
    with pytest.raises(InvalidArgumentError, match="is a late-interaction model"):
        hs.Dense(folder).encode_queries(["wing"])
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(InvalidArgumentError, match="is a cross-encoder"):
        hs.LateInteraction(tmp_path).rerank(QUERIES[:1], DOCUMENTS[:1])
    with pytest.raises(InvalidArgumentError, match="blend"):
        hs.LateInteraction(folder, blend=2)


def test_explanations_add_up_to_the_score(folder: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=hs.Passages(20), reranker=hs.LateInteraction(folder))
    search.index([WING, LAYER], show_progress_bar=False)
    for hit in search.search("wing stalls, boundary layers"):
        matches = hit.explain().matches
        assert len(matches) == 12
        assert sum(one.weight for one in matches) == pytest.approx(hit.reranker_score, abs=1e-5)
        assert hit.explain().to_dict()["matches"][0]["query"] == "[CLS]"
        start, end = hit.span
        for one in matches:
            if one.start is not None and one.end is not None:
                assert hit.document.text[one.start : one.end] == one.document
                assert start <= one.start < one.end <= end


def test_highlights_are_words_of_the_text_that_match(minilm: str) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, reranker=hs.LateInteraction(minilm))
    search.index([hs.Document("a", "The floor was soaked. An engine roared.", "Car: soaked")], show_progress_bar=False)
    hit = search.search("car drenched")[0]
    assert hit.document.text[14:20] == "soaked"
    (found,) = [one for one in hit.highlights if one.term == "drenched"]
    assert (found.start, found.end, found.retriever) == (14, 20, "reranker")
    assert search.search("car", reranker=None)[0].explain().matches == ()


def test_stop_words_match_and_are_not_highlighted(minilm: str) -> None:
    document = hs.Document("a", "The noise of the engine.")
    shown = {}
    for stop_words in (True, False):
        search = hs.HybridSearch({"bm25": hs.BM25(stop_words=stop_words)}, reranker=hs.LateInteraction(minilm))
        search.index([document], show_progress_bar=False)
        hit = search.search("the sound of an engine")[0]
        assert "of" in {one.query for one in hit.explain().matches}
        of_reranker = [one for one in hit.highlights if one.retriever == "reranker"]
        shown[stop_words] = {document.text[one.start : one.end] for one in of_reranker}
    assert shown[True] == {"noise", "engine"}
    assert {"of", "noise", "engine"} <= shown[False]


@pytest.fixture
def kept(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hs.LateInteraction:
    """A reranker that keeps its token vectors, after 20 of them."""
    monkeypatch.setattr(kept_tokens, "LEARNED_FROM", 20)
    return hs.LateInteraction(minilm, keep=tmp_path / "tokens")


def test_kept_vectors_are_made_at_indexing_and_read_at_search(kept: hs.LateInteraction, minilm: str) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=hs.Passages(20), reranker=kept)
    search.index([WING, LAYER], show_progress_bar=False)
    read: list[str] = []
    again: Any = make_reranker(json.loads(json.dumps(kept.to_json())))
    vectors = again.vectors
    again.vectors = lambda texts, task: read.extend(texts if task == "document" else ()) or vectors(texts, task)
    scores = [hit.reranker_score for hit in search.search("wing stalls", reranker=again)]
    assert read == []
    exact = [hit.reranker_score for hit in search.search("wing stalls", reranker=hs.LateInteraction(minilm))]
    assert scores == pytest.approx(exact, rel=0.1)
    assert scores != exact
    search.upsert(hs.Document("4", "No wing stalls here."))  # a text that changed has other vectors
    assert "4" in [hit.id for hit in search.search("wing stalls", reranker=again)]
    assert read == []
    again.rerank(["wing"], [[hs.Document("9", "Wings of another text.")]])
    assert read == ["Wings of another text."]


@pytest.mark.parametrize("passages", [None, hs.Passages(20)])
def test_a_dense_retriever_with_the_same_model_makes_the_kept_vectors(
    kept: hs.LateInteraction, minilm: str, passages: hs.Passages | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tokens, "_COLLECTED", 30)
    long = hs.Document("7", "A word that a model does not read, because it comes after many others. " * 60)
    documents = [WING, LAYER, hs.Document("3", "翼の揚力"), hs.Document("6", "Wings, again."), long]
    made: list[str] = []
    vectors = kept.vectors
    monkeypatch.setattr(kept, "vectors", lambda texts, task: made.extend(texts) or vectors(texts, task))
    rows: dict[str, Any] = {}
    collect = kept_tokens.KeptTokens.collect
    monkeypatch.setattr(kept_tokens.KeptTokens, "collect", lambda self, of: rows.update(of) or collect(self, of))
    search = hs.HybridSearch({"dense": hs.Dense(minilm, cache=False)}, passages=passages, reranker=kept)
    search.index(documents, show_progress_bar=False)
    assert made == []
    assert len(rows) >= len(documents)
    for text, right in zip(rows, vectors([*rows], "document"), strict=True):
        np.testing.assert_allclose(rows[text], right, atol=1e-5)
    search.search("wing stalls")
    assert made == ["wing stalls"]


@pytest.mark.parametrize("other", [{"max_length": 16}, {"document_prompt": "read: "}])
def test_a_dense_retriever_that_reads_otherwise_does_not_make_them(
    kept: hs.LateInteraction, minilm: str, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    vectors = kept.vectors
    monkeypatch.setattr(kept, "vectors", lambda texts, task: made.extend(texts) or vectors(texts, task))
    search = hs.HybridSearch({"dense": hs.Dense(minilm, cache=False, **other)}, reranker=kept)
    search.index([WING, LAYER], show_progress_bar=False)
    assert sorted(made) == sorted(one.content for one in (WING, LAYER))


def test_kept_vectors_have_56_bytes(kept: hs.LateInteraction, tmp_path: Path) -> None:
    few = [hs.Document("2", "Wings.")]
    assert kept.rerank(["wing"], [few])[0] == hs.LateInteraction(kept.model.name).rerank(["wing"], [few])[0]
    kept.prepare([WING])
    (file,) = describe(tmp_path / "tokens")
    assert file.vectors == 2  # of one text, and the code
    fingerprint = hs.LateInteraction(kept.model.name).fingerprint()
    assert kept.fingerprint() != fingerprint  # because scores differ
    ((_, packed),) = kept_tokens.KeptTokens(tmp_path / "tokens", fingerprint).get([WING.content]).items()
    assert packed.shape == (len(kept.vectors([WING.content], "document")[0]), 56)
    other = kept_tokens.KeptTokens(tmp_path / "tokens", fingerprint)
    other._known = other.code, b"another "  # type: ignore[assignment]
    assert other.get([WING.content]) == {}


def test_nan_is_an_error(folder: Path) -> None:
    import torch

    late = hs.LateInteraction(folder)
    token = late.model.get().tokenizer.convert_tokens_to_ids("wings")
    with torch.no_grad():
        late.model.get()[0].model.embeddings.word_embeddings.weight[token] = float("nan")
    with pytest.raises(EncodingError, match=r"NaN or infinity for the document 'Wings\.'"):
        late.rerank(QUERIES, DOCUMENTS)


# As a retriever


@pytest.mark.parametrize("place", [None, "index", "qdrant://:memory:/late"])
def test_a_retriever_ranks_as_the_reranker_scores(folder: Path, place: str | None, tmp_path: Path) -> None:
    late = hs.LateInteraction(folder)
    where = {} if place is None else {"backend": place if "://" in place else str(tmp_path / place)}
    if place and "://" in place:
        pytest.importorskip("qdrant_client", reason="pip install 'hybridsearch[qdrant]' for Qdrant")
    search = hs.HybridSearch({"late": late, "bm25": hs.BM25()}, **where)
    documents = [WING, *(one for of_query in DOCUMENTS for one in of_query if one is not WING)]
    search.index(documents, show_progress_bar=False)
    readable = [one for one in documents if one.content]
    for query in QUERIES:
        (scores,) = late.rerank([query], [readable])
        hits = search.search(query, retrievers=["late"])
        expected = {one.id: score for one, score in zip(readable, scores.tolist(), strict=True)}
        assert {hit.id: hit.retrievers["late"].score for hit in hits} == pytest.approx(expected, abs=2e-4)
        assert hits.ids == sorted(expected, key=expected.__getitem__, reverse=True)
        matches = hits[0].explain().token_matches["late"]
        assert sum(one.weight for one in matches) == pytest.approx(hits[0].retrievers["late"].score, abs=2e-4)
    assert search.search("stall", filter={"id": {"$in": ["2", "4"]}}, retrievers=["late"]).ids != []
    search.upsert(hs.Document("2", "Shock waves."))
    search.delete(["1"])
    assert "1" not in search.search("shock waves", retrievers=["late"]).ids
    assert search.search("shock waves", retrievers=["late"]).ids[0] == "2"
    search.close()


def test_a_retriever_is_saved_opened_copied_and_measured(folder: Path, tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25(), "late": hs.LateInteraction(folder, template="{title}. {text}")})
    search.index([WING, LAYER, hs.Document("5", "")], show_progress_bar=False)
    search.save(tmp_path / "saved")
    with hs.open(tmp_path / "saved") as again:
        assert again.retrievers["late"].fingerprint() == search.retrievers["late"].fingerprint()
        query = "boundary layers"
        assert again.search(query) == search.search(query)
        assert hs.recall(again, [query], show_progress_bar=False).retrievers[0].name == "late"
        fusion = hs.ScoreFusion("minmax", weights={"bm25": 0.2, "late": 0.8})
        data = hs.Dataset("layers", {"q": query}, {"q": {"4": 1}})
        measured = hs.compare(
            {"late": hs.Pipeline(again, retrievers=["late"]), "both": hs.Pipeline(again, fusion=fusion)},
            data,
            measures=["RR"],
            latency_queries=0,
        )
        assert [one.scores["RR"] for one in measured.systems] == [{"q": 1.0}] * 2
    copied = hs.copy(tmp_path / "saved", str(tmp_path / "copy"), show_progress_bar=False)
    assert [(check.retriever, check.overlap) for check in copied.checks] == [("bm25", 1.0), ("late", 1.0)]
    with pytest.raises(FingerprintMismatchError, match="template"):
        hs.HybridSearch({"bm25": hs.BM25(), "late": hs.LateInteraction(folder)}, str(tmp_path / "copy"))


def test_a_retriever_of_passages_explains_the_best_one(folder: Path) -> None:
    search = hs.HybridSearch({"late": hs.LateInteraction(folder)}, passages=hs.Passages(20))
    search.index([WING, LAYER], show_progress_bar=False)
    for hit in search.search("wing stalls, boundary layers"):
        matches = hit.explain().token_matches["late"]
        assert sum(one.weight for one in matches) == pytest.approx(hit.retrievers["late"].score, abs=2e-4)
        start, end = hit.span
        assert all(start <= one.start < end for one in matches if one.start is not None)
        assert hit.explain().to_dict()["token_matches"]["late"][0]["query"] == "[CLS]"
        assert " ~ " in str(hit.explain())
    assert search.explain("wing", "4").token_matches["late"]


def test_highlights_of_a_retriever_are_words_that_match(minilm: str) -> None:
    search = hs.HybridSearch({"late": hs.LateInteraction(minilm)})
    search.index([hs.Document("a", "The floor was soaked. An engine roared.", "Car: soaked")], show_progress_bar=False)
    hit = search.search("car drenched")[0]
    (found,) = [one for one in hit.highlights if one.term == "drenched"]
    assert (found.start, found.end, found.retriever) == (14, 20, "late")
    assert search.search("car", diversity=hs.MMR(0.5)).ids == ["a"]


def test_encoded_documents_say_what_was_cut_and_blank_texts_have_no_vectors(folder: Path) -> None:
    late = hs.LateInteraction(folder, max_length=8)
    vectors = late.encode_documents([WING.text, " ", "Wings", WING.text])
    assert (vectors.counts[[0, 1]].tolist(), vectors.truncated) == ([8, 0], 2)
    np.testing.assert_array_equal(vectors.of_row(0), vectors.of_row(3))
    np.testing.assert_array_equal(vectors.of_row(2), late.vectors(["Wings"], "document")[0].astype(np.float16))
    assert late.encode_documents([""]).array.shape == (0, 16)
    assert [query.shape for query in late.encode_queries(["wing", ""])] == [(12, 16), (0, 16)]
    assert late.schema().dimensions == 16


@pytest.mark.parametrize("argument", [{"keep": True}, {"blend": 0.5}, {"passages": 2}])
def test_an_argument_of_a_reranker_is_refused_for_a_retriever(folder: Path, argument: dict[str, Any]) -> None:
    search = hs.HybridSearch({"late": hs.LateInteraction(folder, **argument)})
    with pytest.raises(InvalidArgumentError, match=f"{next(iter(argument))!r} of LateInteraction is for a reranker"):
        search.index([WING], show_progress_bar=False)


def test_a_text_makes_a_retriever(folder: Path) -> None:
    made = make_encoders(f"bm25,late={folder}", "english", template="{text}")
    assert repr(made["late"]) == repr(hs.LateInteraction(folder, template="{text}"))
    with pytest.raises(InvalidArgumentError, match="late needs a model"):
        make_encoders("late", "english")
