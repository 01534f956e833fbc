"""Training of late-interaction models, from data to a folder that sentence-transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.distill import add_teacher_scores
from hybridsearch.training.late_interaction import load_late_interaction, project, train_late_interaction
from hybridsearch.training.measure.evaluators import build_evaluator, retrieval_evaluator
from hybridsearch.training.models.lora import LoraSettings
from hybridsearch.training.models.pylate import save_for_pylate
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps
from hybridsearch.training.settings import TrainingSettings

st: Any = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

SETTINGS = TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3)
QUERIES = ["What is lift?", "the tides of the sea", "bread"]


def train(model: Any, data: Any, output: Path, **options: Any) -> TrainingResult:
    options = {"settings": SETTINGS, "show_progress_bar": False} | options
    return train_late_interaction(model, data, output, **options)


def scores_of(folder: Path, documents: list[hs.Document]) -> Any:
    """What sentence-transformers alone gives for `QUERIES`."""
    model = st.MultiVectorEncoder(str(folder), device="cpu")
    texts = [one.content for one in documents]
    return model.similarity(model.encode_query(QUERIES), model.encode_document(texts)).numpy()


@pytest.fixture(scope="module")
def tuples(tiny_pairs: list[dict[str, str]]) -> TrainingData:
    """Each question with its answer and the answers of the next two questions."""
    answers = [pair["positive"] for pair in tiny_pairs]
    columns = {
        "anchor": [pair["anchor"] for pair in tiny_pairs],
        "positive": answers,
        "negative_1": [*answers[1:], *answers[:1]],
        "negative_2": [*answers[2:], *answers[:2]],
    }
    return TrainingData.from_columns(Kind.TUPLES, columns, name="tuples")


def test_a_dense_model_becomes_a_better_late_interaction_model_that_sentence_transformers_loads(
    tiny_dense: Path, tiny_dataset: hs.Dataset, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    settings = SETTINGS.with_values({"epochs": 8, "learning_rate": 3e-3})
    documents = list(tiny_dataset.corpus or ())

    result = train(tiny_dense, tiny_dataset, tmp_path / "out", test=other_questions, settings=settings)

    assert result.comparison is not None
    assert result.comparison.names == ["retrieval", "before", "after"]
    assert result.summary.startswith(("Better: nDCG@10 on tiny", "Not clearly better: nDCG@10 on tiny"))  # it rose
    (_, first), *_, (_, last) = result.history.losses
    assert last["loss"] < first["loss"] / 2
    assert result.history.start is not None  # a tenth of the queries chose the checkpoint
    ours = hs.LateInteraction(result.path).rerank(QUERIES, [documents] * len(QUERIES))
    np.testing.assert_allclose(ours, scores_of(result.path, documents), atol=1e-4)
    assert not np.allclose(ours, hs.LateInteraction(tiny_dense).rerank(QUERIES, [documents] * 3), atol=1e-2)
    again = train(
        tiny_dense,
        tiny_dataset,
        tmp_path / "out",
        test=other_questions,
        settings=settings.with_values({"resume": True}),
    )
    assert again.history == result.history


def test_negatives_of_a_retriever_are_mined_and_its_results_are_reranked(
    tiny_late: Path, tiny_dataset: hs.Dataset, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}) as search:
        search.index(tiny_dataset.corpus or (), show_progress_bar=False)
        result = train(
            tiny_late, tiny_dataset, tmp_path / "out", hard_negatives=2, retriever=search, test=other_questions
        )
        alone = hs.evaluate(search, other_questions, measures=["nDCG@10"], latency_queries=0)
    assert "mnr for 'tiny' (tuples)" in result.summary
    assert result.comparison is not None
    assert result.comparison["retrieval"].means["nDCG@10"].mean == pytest.approx(alone.means["nDCG@10"].mean)
    assert result.comparison.baseline == "before"


def test_a_projection_is_added_and_is_the_best_one_for_the_token_vectors(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    texts = [pair["positive"] for pair in tiny_pairs]
    model = load_late_interaction(tiny_dense)
    vectors = np.concatenate([one.numpy() for one in model.encode_document(texts)])
    project(model, 8, texts)
    weights = model[1].linear.weight.detach().numpy()
    np.testing.assert_allclose(weights @ weights.T, np.eye(8), atol=1e-5)
    best = np.linalg.svd(vectors, compute_uv=False)[:8]  # by Eckart and Young
    assert np.linalg.norm(vectors @ weights.T) == pytest.approx(np.linalg.norm(best), rel=1e-5)

    result = train(tiny_dense, tiny_pairs, tmp_path / "out", dimensions=8)

    loaded = st.MultiVectorEncoder(str(result.path), device="cpu")
    assert loaded.encode_query("What is lift?").shape[1] == 8
    assert not np.allclose(loaded[1].linear.weight.detach().numpy(), weights, atol=1e-4)  # it was trained
    again = train(
        tiny_dense, tiny_pairs, tmp_path / "out", dimensions=8, settings=SETTINGS.with_values({"resume": True})
    )
    assert again.history == result.history
    with pytest.raises(InvalidArgumentError, match="cannot continue with these settings"):
        train(tiny_dense, tiny_pairs, tmp_path / "out", dimensions=4, settings=SETTINGS.with_values({"resume": True}))


def test_dimensions_that_a_model_cannot_get_are_refused(tiny_dense: Path, tiny_late: Path, tmp_path: Path) -> None:
    rows = [{"anchor": "a", "positive": "b"}]
    with pytest.raises(InvalidArgumentError, match=r"dimensions is 64, but the token vectors of the model have 32\."):
        train(tiny_dense, rows, tmp_path / "out", dimensions=64)
    with pytest.raises(InvalidArgumentError, match="already projects its token vectors to 128 dimensions"):
        train(tiny_late, rows, tmp_path / "out", dimensions=16)
    with pytest.raises(InvalidArgumentError, match="dimensions"):
        train(tiny_dense, rows, tmp_path / "out", dimensions=0)


def test_a_teacher_gives_lists_of_scores_that_are_learned_by_kl(
    tiny_late: Path, tiny_reranker: Path, tuples: TrainingData, tmp_path: Path
) -> None:
    result = train(tiny_late, tuples, tmp_path / "out", teacher=tiny_reranker)
    assert "kl for 'tuples' (tuples with scores)" in result.summary
    facts = json.loads((tmp_path / "out" / "training.json").read_text())["facts"]
    assert facts["losses"] == {"tuples": "MultiVectorDistillKLDivLoss"}
    assert facts["teacher"] == str(tiny_reranker)


def test_a_late_interaction_model_can_teach(tiny_late: Path, tuples: TrainingData) -> None:
    scored = add_teacher_scores(tuples, tiny_late)
    model = st.MultiVectorEncoder(str(tiny_late), device="cpu")
    queries, texts = (model.encode_query(tuples.rows["anchor"][:]), model.encode_document(tuples.rows["negative_2"][:]))
    expected = model.similarity_pairwise(queries, texts).tolist()
    assert [label[2] for label in scored.rows["label"]] == pytest.approx(expected, abs=1e-4)
    assert add_teacher_scores(tuples, model).rows["label"][:] == scored.rows["label"][:]


def test_a_loaded_model_is_copied(tiny_late: Path, tuples: TrainingData, tmp_path: Path) -> None:
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    model = st.MultiVectorEncoder(str(tiny_late), device="cpu")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    loss = MultiVectorMultipleNegativesRankingLoss(model, scale=2)
    result = train(model, tuples, tmp_path / "out", loss=loss)
    assert "MultiVectorMultipleNegativesRankingLoss for 'tuples'" in result.summary
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())
    trained = st.MultiVectorEncoder(str(result.path), device="cpu").state_dict()
    assert not all(weight.equal(before[name]) for name, weight in trained.items())


def test_a_plain_language_model_is_compared_with_the_search_alone(
    tiny_masked: Path, tuples: TrainingData, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    result = train(tiny_masked, tuples, tmp_path / "out", test=other_questions)
    assert result.comparison is not None
    assert result.comparison.names == ["retrieval", "after"]
    assert "against retrieval alone" in result.summary.splitlines()[0]


def test_a_model_is_compared_with_itself_before_training_with_the_same_prompts(
    tiny_late: Path, tuples: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Steps, "fit", lambda *_, **__: None)
    monkeypatch.setattr(Steps, "conclude", lambda _, base, before, after, **__: seen.append(before))
    train(tiny_late, tuples, tmp_path / "with", prompts={"query": "ask: "})
    train(tiny_late, tuples, tmp_path / "without")
    assert seen[0].prompts["query"] == "ask: "
    assert seen[1] == tiny_late


def test_adapters_and_prompts_are_saved_with_the_model(
    tiny_dense: Path, tuples: TrainingData, tiny_corpus: list[hs.Document], tmp_path: Path
) -> None:
    found = []
    for merge in (False, True):
        lora = LoraSettings(rank=2, merge=merge)
        result = train(
            tiny_dense, tuples, tmp_path / str(merge), lora=lora, prompts={"query": "ask: ", "document": "answer: "}
        )
        assert st.MultiVectorEncoder(str(result.path), device="cpu").prompts["query"] == "ask: "
        found.append(hs.LateInteraction(result.path).rerank(QUERIES, [tiny_corpus] * len(QUERIES)))
        np.testing.assert_allclose(found[-1], scores_of(result.path, tiny_corpus), atol=1e-4)
    np.testing.assert_allclose(*found, atol=1e-3)


def test_a_length_is_kept_with_the_model(tiny_late: Path, tuples: TrainingData, tmp_path: Path) -> None:
    result = train(tiny_late, tuples, tmp_path / "out", settings=SETTINGS.with_values({"max_length": 8}))
    words = "The lift of a wing grows with its angle of attack until the flow separates."
    assert len(st.MultiVectorEncoder(str(result.path), device="cpu").encode_document(words)) == 8


@pytest.mark.parametrize(
    ("fixture", "message"), [("tiny_splade", "sparse encoder"), ("tiny_reranker", "cross-encoder")]
)
def test_models_of_other_kinds_are_refused(
    fixture: str, message: str, tuples: TrainingData, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        train(request.getfixturevalue(fixture), tuples, tmp_path / "out")


def test_the_evaluator_of_dev_ranks_as_the_reranker_over_all_documents(
    tiny_late: Path, other_questions: hs.Dataset
) -> None:
    documents = list(other_questions.corpus or ())
    texts = list(other_questions.queries.values())
    scores = hs.LateInteraction(tiny_late).rerank(texts, [documents] * len(texts))
    runs = {
        query: hs.Ranking.from_scores(zip((one.id for one in documents), of_query.tolist(), strict=True))
        for query, of_query in zip(other_questions.queries, scores, strict=True)
    }
    expected = hs.evaluate(runs, other_questions, measures=["nDCG@10", "R@10"]).means
    found = retrieval_evaluator(other_questions, "late-interaction", TrainingSettings(measure="R@10"))(
        st.MultiVectorEncoder(str(tiny_late), device="cpu")
    )
    assert found["tiny nDCG@10"] == pytest.approx(expected["nDCG@10"].mean, abs=1e-6)
    assert found["tiny R@10"] == pytest.approx(expected["R@10"].mean, abs=1e-6)


def test_triplets_and_lists_are_measured_and_other_evaluators_say_that_they_are_not_for_it(
    tiny_late: Path, tuples: TrainingData
) -> None:
    specs = [{"type": name, "data": tuples} for name in ("triplet", "reranking")]
    found = build_evaluator(specs, "late-interaction")(st.MultiVectorEncoder(str(tiny_late), device="cpu"))
    assert 0 <= found["tuples accuracy"] <= 1
    assert 0.5 <= found["tuples nDCG@10"] <= 1
    with pytest.raises(InvalidArgumentError, match="'similarity' cannot measure a late-interaction model"):
        build_evaluator({"type": "similarity", "data": [{"anchor": "a", "positive": "b"}]}, "late-interaction")


@pytest.mark.parametrize("fixture", ["tiny_dense", "tiny_late"])
def test_a_copy_for_pylate_has_the_same_scores(
    fixture: str, request: pytest.FixtureRequest, tiny_corpus: list[hs.Document], tmp_path: Path
) -> None:
    """sentence-transformers also loads what PyLate writes."""
    model = request.getfixturevalue(fixture)
    folder = save_for_pylate(model, tmp_path / "pylate")
    expected = hs.LateInteraction(model).rerank(QUERIES, [tiny_corpus] * len(QUERIES))
    np.testing.assert_allclose(scores_of(folder, tiny_corpus), expected, atol=1e-4)
    with pytest.raises(InvalidArgumentError, match="is not empty"):
        save_for_pylate(model, folder)


def test_pylate_loads_its_copy(tiny_late: Path, tiny_corpus: list[hs.Document], tmp_path: Path) -> None:
    models: Any = pytest.importorskip("pylate.models", reason="PyLate 1.6 needs sentence-transformers 5.3")
    model = models.ColBERT(str(save_for_pylate(tiny_late, tmp_path / "pylate")), device="cpu")
    expected = hs.LateInteraction(tiny_late).rerank(QUERIES, [tiny_corpus] * len(QUERIES))
    queries = model.encode(QUERIES, is_query=True)
    documents = model.encode([one.content for one in tiny_corpus], is_query=False)
    found = [[(query @ document.T).max(axis=1).sum() for document in documents] for query in queries]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_pylate_has_not_is_refused(tiny_late: Path, tmp_path: Path) -> None:
    model = st.MultiVectorEncoder(str(tiny_late), device="cpu", similarity_fn_name="meanmaxsim")
    with pytest.raises(InvalidArgumentError, match="PyLate has neither the mean"):
        save_for_pylate(model, tmp_path / "pylate")
    whole = st.MultiVectorEncoder(str(tiny_late), device="cpu")
    rest = [module for module in whole if type(module).__name__ != "Normalize"]
    with pytest.raises(InvalidArgumentError, match="PyLate gives all token vectors unit length"):
        save_for_pylate(st.MultiVectorEncoder(modules=rest, device="cpu"), tmp_path / "pylate")
