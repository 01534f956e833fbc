"""Training of rerankers, from data to a folder with a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")

from hybridsearch.errors import InvalidArgumentError, ModelNotFoundError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.reranker import has_head, load_reranker, shape_for, train_reranker
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=1, batch_size=16, max_length=32)


def train(model: Path, data: Any, output: Path, **options: Any) -> TrainingResult:
    options = {"settings": SETTINGS, "show_progress_bar": False} | options
    return train_reranker(model, data, output, **options)


@pytest.fixture(scope="module")
def tuples(tiny_pairs: list[dict[str, str]]) -> TrainingData:
    """Each question with its answer and that of the next question."""
    answers = [pair["positive"] for pair in tiny_pairs]
    columns = {
        "anchor": [pair["anchor"] for pair in tiny_pairs],
        "positive": answers,
        "negative_1": [*answers[1:], answers[0]],
    }
    return TrainingData.from_columns(Kind.TUPLES, columns, name="tuples")


def test_mined_negatives_train_a_reranker_that_is_judged_end_to_end(
    tiny_reranker: Path, tiny_dense: Path, tiny_dataset: hs.Dataset, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(tiny_dense, cache=False)}) as search:
        search.index(tiny_dataset.corpus or (), show_progress_bar=False)
        result = train(
            tiny_reranker, tiny_dataset, tmp_path / "out", hard_negatives=2, retriever=search, test=other_questions
        )
        assert result.comparison is not None
        assert result.comparison.names == ["retrieval", "before", "after"]
        documents = list(tiny_dataset.corpus or ())
        scores = hs.CrossEncoderReranker(result.path).rerank(["What is lift?"], [documents])[0]
    assert scores.shape == (40,)
    assert "pairs with 0/1" in result.summary
    assert (result.path / "report.md").exists()


def test_a_decoder_without_a_padding_token_becomes_a_reranker(
    tiny_decoder: Path, tuples: TrainingData, tmp_path: Path
) -> None:
    result = train(tiny_decoder, tuples, tmp_path / "out", settings=replace(SETTINGS, max_steps=1))
    documents = [hs.Document("short", "lift"), hs.Document("long", "lift grows with the angle of a wing")]
    reranker = hs.CrossEncoderReranker(result.path)
    (together,) = reranker.rerank(["What is lift?"], [documents])
    alone = [reranker.rerank(["What is lift?"], [[document]])[0][0] for document in documents]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("loss", "kind"), [("lambda", "lists"), ("bce", "pairs with 0/1"), ("mnr", "tuples")])
def test_tuples_become_what_the_loss_takes(
    tiny_reranker: Path, tuples: TrainingData, tmp_path: Path, loss: str, kind: str
) -> None:
    result = train(tiny_reranker, tuples, tmp_path / "out", loss=loss)
    assert f"{loss} for 'tuples' ({kind})" in result.summary
    assert result.history.steps > 0


def test_an_encoder_without_a_head_gets_one_with_the_same_weights_for_the_same_seed(tiny_dense: Path) -> None:
    assert not has_head(tiny_dense)
    one, same, other = (load_reranker(tiny_dense, seed=seed) for seed in (0, 0, 1))
    heads = [model.transformers_model.classifier.weight for model in (one, same, other)]
    assert heads[0].shape[0] == 1
    assert heads[0].equal(heads[1])
    assert not heads[0].equal(heads[2])


def test_a_model_with_a_head_keeps_it(tiny_reranker: Path) -> None:
    import sentence_transformers

    plain = sentence_transformers.CrossEncoder(str(tiny_reranker), device="cpu")
    pair = [("What is lift?", "A force on a wing.")]
    assert has_head(tiny_reranker)
    assert load_reranker(tiny_reranker).predict(pair) == pytest.approx(plain.predict(pair))


def test_a_text_that_is_a_positive_anywhere_is_never_a_negative_of_its_query() -> None:
    columns = {"anchor": ["q", "q"], "positive": ["a", "b"], "negative_1": ["b", "x"], "negative_2": ["x", "y"]}
    pairs = shape_for(TrainingData.from_columns(Kind.TUPLES, columns), "mse").rows
    assert {(row["positive"], row["label"]) for row in pairs} == {("a", 1), ("b", 1), ("x", 0), ("y", 0)}


def test_a_model_without_a_head_is_compared_with_the_search_alone(
    tiny_dense: Path, tuples: TrainingData, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    result = train(tiny_dense, tuples, tmp_path / "out", loss="bce", test=other_questions)
    assert result.comparison is not None
    assert result.comparison.names == ["retrieval", "after"]
    assert "against retrieval alone" in result.summary.splitlines()[0]


def test_data_of_several_classes_train_a_head_of_as_many_outputs(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    columns = {name: [pair[name] for pair in tiny_pairs] for name in ("anchor", "positive")}
    data = TrainingData.from_columns(Kind.CLASSED, {**columns, "label": [0, 1, 2, 1] * 10}, name="classes")
    import datasets

    named = datasets.ClassLabel(names=["no", "perhaps", "yes"])
    data = replace(data, rows=data.rows.cast_column("label", named))
    result = train(tiny_dense, data, tmp_path / "out")
    import sentence_transformers

    trained = sentence_transformers.CrossEncoder(str(result.path), device="cpu")
    assert trained.num_labels == 3
    assert trained.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    assert result.comparison is None
    other = data.rows.cast_column("label", datasets.ClassLabel(names=["yes", "perhaps", "no"]))
    with pytest.raises(
        InvalidArgumentError, match="classes of 'other' are yes, perhaps, no, but those of 'classes' are"
    ):
        train(tiny_dense, [data, replace(data, name="other", rows=other)], tmp_path / "other")


def test_an_index_without_the_documents_that_are_asked_for_is_refused(
    tiny_reranker: Path, tuples: TrainingData, tiny_dataset: hs.Dataset, tmp_path: Path
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index([hs.Document("other", "Something else.")], show_progress_bar=False)
        dev = replace(tiny_dataset, queries={"q-wing-0": "Why do wings lift?"})
        with pytest.raises(InvalidArgumentError, match="index of the retriever has none of the documents"):
            train(tiny_reranker, tuples, tmp_path / "out", dev=dev, retriever=search)


def test_a_teachers_scores_of_tuples_are_learned(
    tiny_reranker: Path, tiny_dense: Path, tuples: TrainingData, tmp_path: Path
) -> None:
    result = train(tiny_reranker, tuples, tmp_path / "out", teacher=tiny_dense)
    assert "margin-mse for 'tuples' (tuples with scores)" in result.summary
    assert json.loads((tmp_path / "out" / "training.json").read_text())["facts"]["teacher"] == str(tiny_dense)


def test_losses_that_do_not_fit_are_refused(tiny_reranker: Path, tuples: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="does not fit the data"):
        train(tiny_reranker, tuples, tmp_path / "out", loss="cosent")
    with pytest.raises(ModelNotFoundError):
        load_reranker(tmp_path)
