"""Training of sparse encoders, from data to a folder with a report."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData, read_training_data
from hybridsearch.training.distill import add_teacher_scores
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sparse import train_sparse

SETTINGS = TrainingSettings(epochs=1, batch_size=8, max_length=24, evaluate_every=4)


def train(model: Path, data: Any, output: Path, **options: Any) -> TrainingResult:
    options = {"settings": SETTINGS, "show_progress_bar": False} | options
    return train_sparse(model, data, output, **options)


def train_to_target(
    model: Path,
    pairs: list[dict[str, str]],
    output: Path,
    *,
    resume: bool = False,
    end: Callable[[], None] | None = None,
) -> TrainingResult:
    """Ten steps of training. From the second on, active dimensions are reduced. `end` is called after the seventh."""
    from hybridsearch.training.models.regularization import RegularizerControl

    class Ending(RegularizerControl):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            super().on_step_end(args, state, control, **others)
            if end is not None and state.global_step == 7:
                end()

    settings = SETTINGS.with_values({"epochs": 2, "learning_rate": 1e-3, "keep_checkpoints": 1, "resume": resume})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridsearch.training.models.regularization.RegularizerControl", Ending)
        return train(model, pairs, output, settings=settings, regularizer_warmup=0.1, target_active_dims=50)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def weights(folder: Path) -> dict[str, Any]:
    import sentence_transformers

    model = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    return {name: value.float().numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def trained(tiny_splade: Path, tiny_dataset: hs.Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A SPLADE that is trained on the questions and tested on four. Random weights activate half the vocabulary."""
    output = tmp_path_factory.mktemp("trained") / "splade"
    queries = dict(list(tiny_dataset.queries.items())[:4])
    test = replace(tiny_dataset, queries=queries, qrels={query: tiny_dataset.qrels[query] for query in queries})
    return train(tiny_splade, tiny_dataset, output, test=test, regularizer_schedule="linear")


def test_a_splade_is_trained_and_loads_with_plain_sentence_transformers(
    trained: TrainingResult, tiny_splade: Path
) -> None:
    before, after = weights(tiny_splade), weights(trained.path)
    assert before.keys() == after.keys()
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_a_splade_is_trained_without_keeping_its_logits(
    tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    steps = TrainingSettings(max_steps=1, batch_size=4, max_length=24)
    plain, seen = SpladePooling.forward, []

    def watched(self: Any, features: dict[str, Any]) -> Any:
        seen.append(torch.is_grad_enabled())
        return plain(self, features)

    monkeypatch.setattr(SpladePooling, "forward", watched)
    columns = {name: [pair[name] for pair in tiny_pairs] for name in ("anchor", "positive")}
    train(tiny_splade, TrainingData.from_columns(Kind.PAIRS, columns), tmp_path / "out", settings=steps)
    assert True not in seen


def test_each_evaluation_has_the_sparsity_beside_the_quality(trained: TrainingResult) -> None:
    assert [one.step for one in trained.history.evaluations][:2] == [0, 4]
    for one in trained.history.evaluations:
        for figure in ("nDCG@10", "document_active_dims", "query_active_dims", "flops"):
            assert any(name.endswith(figure) for name in one.measures), (figure, one.measures)


def test_logs_have_the_regularizers(trained: TrainingResult) -> None:
    _, last = trained.history.losses[-1]
    assert last["document_regularizer_weight"] == pytest.approx(1e-4)
    assert last["document_active_dims_in_training"] > 0


def test_the_report_compares_before_and_after_alone_and_with_bm25(trained: TrainingResult) -> None:
    assert trained.comparison is not None
    assert {"before", "after", "bm25", "after + bm25"} <= set(trained.comparison.names)
    report = json.loads((trained.path / "report.json").read_text())
    assert set(report["sparsity"]) == {"before", "after"}
    assert report["settings"]["architecture"] == "splade"
    assert "Active dimensions after" in trained.summary


def test_the_report_has_the_expansions_that_changed_most(
    trained: TrainingResult, tiny_splade: Path, tiny_dataset: hs.Dataset
) -> None:
    import sentence_transformers

    shown = json.loads((trained.path / "report.json").read_text())["expansions"]
    assert 0 < len(shown) <= 5
    for one in shown:
        assert one["text"] in tiny_dataset.queries.values()
        active = {}
        for folder in (tiny_splade, trained.path):
            model = sentence_transformers.SparseEncoder(str(folder), device="cpu")
            active[folder] = dict(model.decode(model.encode_document([one["text"]]))[0])
        for term, weight in one["gained"]:
            assert term not in active[tiny_splade]
            assert active[trained.path][term] == pytest.approx(weight, abs=1e-4)
        assert {term for term, _ in one["lost"]}.isdisjoint(active[trained.path])


def test_an_inference_free_splade_learns_its_query_weights_at_their_own_rate(
    tiny_splade: Path, tiny_dataset: hs.Dataset, tmp_path: Path
) -> None:
    from hybridsearch.training.models.architectures import load_sparse

    train(tiny_splade, tiny_dataset, tmp_path / "out", architecture="inference-free", query_learning_rate=0.1)
    corpus = [document.content for document in tiny_dataset.corpus or ()]
    start = load_sparse(tiny_splade, "inference-free", documents=corpus).state_dict()
    change = {name: np.abs(value - start[name].numpy()).max() for name, value in weights(tmp_path / "out").items()}
    queries = change.pop("0.sub_modules.query.0.weight")
    assert queries > 0.05  # some steps of 0.1
    assert 0 < max(change.values()) < 0.01  # and of 1e-4
    query = hs.Sparse(tmp_path / "out", cache=False).encode_queries(["what is lift"])[0]
    assert set(query.terms) == {"what", "is", "lift"}


def test_a_csr_keeps_as_many_dimensions_as_asked_for(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    result = train(tiny_dense, tiny_pairs, tmp_path / "out", target_active_dims=5)
    vectors = hs.Sparse(result.path, cache=False).encode_documents([pair["positive"] for pair in tiny_pairs])
    assert np.diff(vectors.matrix.indptr).max() == 5
    assert result.comparison is None
    assert result.summary.startswith("Not measured")
    assert "Active dimensions after on texts of data that it was trained on: 5 a document, 5 a query" in result.summary
    assert "The target of 5 active dimensions a document was reached: 5." in result.summary


def test_a_target_that_is_missed_is_said(tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path) -> None:
    settings = SETTINGS.with_values({"max_steps": 1})
    result = train(tiny_splade, tiny_pairs[:8], tmp_path / "out", target_active_dims=9, settings=settings)
    vectors = hs.Sparse(result.path, cache=False).encode_documents([pair["positive"] for pair in tiny_pairs[:8]])
    reached = np.diff(vectors.matrix.indptr).mean()
    assert f"The target of 9 active dimensions a document was MISSED: {reached:.0f}, which is" in result.summary


def test_a_masked_language_model_becomes_a_splade_by_negatives_of_bm25_alone(
    tiny_masked: Path, long_questions: hs.Dataset, tmp_path: Path
) -> None:
    import sentence_transformers
    import transformers

    settings = SETTINGS.with_values({"max_steps": 2, "learning_rate": 1e-2, "warmup_ratio": 0})
    result = train(tiny_masked, long_questions, tmp_path / "out", hard_negatives=1, settings=settings)

    assert "mnr for 'tiny' (tuples)" in result.summary
    kept = read_training_data(result.path / "negatives" / "0")
    assert kept.ids is not None
    assert set(kept.ids["retriever"]) == {"bm25"}
    start = transformers.AutoModelForMaskedLM.from_pretrained(tiny_masked).bert.embeddings.word_embeddings.weight
    model = sentence_transformers.SparseEncoder(str(result.path), device="cpu")
    trained = model[0].model.bert.embeddings.word_embeddings.weight
    assert trained.shape == start.shape
    assert not np.array_equal(trained.detach().numpy(), start.detach().numpy())


@pytest.mark.parametrize("end", ["Ctrl-C", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_a_run_with_a_target_goes_on_to_the_same_weights_and_regularisers(
    end: str, tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    whole = train_to_target(tiny_splade, tiny_pairs, tmp_path / "whole")
    if end == "SIGKILL":
        arguments = (tiny_splade, tiny_pairs, tmp_path / "cut")
        child = get_context("fork").Process(target=train_to_target, args=arguments, kwargs={"end": _kill})
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
    else:
        with pytest.raises(KeyboardInterrupt):
            train_to_target(tiny_splade, tiny_pairs, tmp_path / "cut", end=_interrupt)

    resumed = train_to_target(tiny_splade, tiny_pairs, tmp_path / "cut", resume=True)

    assert resumed.history.resumed_at == (4,)
    assert [figures for _, figures in resumed.history.losses] == [figures for _, figures in whole.history.losses]
    moved = {figures["document_regularizer_weight"] for _, figures in whole.history.losses}
    assert len(moved) == len(whole.history.losses)  # or there would be no state to go on with
    before, after = weights(whole.path), weights(resumed.path)
    for name, weight in before.items():
        assert np.array_equal(after[name], weight), name


@pytest.mark.slow
def test_a_target_makes_documents_sparser_than_without(
    tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    settings = TrainingSettings(max_steps=40, batch_size=8, max_length=24, learning_rate=3e-3, warmup_ratio=0)
    texts = [pair["positive"] for pair in tiny_pairs]
    active = {}
    for target in (None, 100):
        result = train(
            tiny_splade,
            tiny_pairs,
            tmp_path / str(target),
            settings=settings,
            regularizer_warmup=0.1,
            target_active_dims=target,
        )
        vectors = hs.Sparse(result.path, cache=False).encode_documents(texts)
        active[target] = np.diff(vectors.matrix.indptr).mean()
    assert active[100] < 0.7 * active[None], active


def test_scored_tuples_distil_a_teacher(tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path) -> None:
    rows = tiny_pairs[:16]
    columns = {
        "anchor": [row["anchor"] for row in rows],
        "positive": [row["positive"] for row in rows],
        "negative_1": [row["positive"] for row in tiny_pairs[16:32]],
        "label": [[8.0, 1.0]] * 16,
    }
    data = TrainingData.from_columns(Kind.SCORED_TUPLES, columns, name="teacher")
    result = train(tiny_splade, data, tmp_path / "out")
    assert "margin-mse" in result.summary
    assert result.history.steps == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_active_dims": 0}, "target_active_dims"),
        ({"regularizer_schedule": "steep"}, "regularizer_schedule is one of"),
        ({"regularizer_warmup": 0.0}, "regularizer_warmup"),
        ({"query_learning_rate": 2.0}, "query_learning_rate"),
        ({"architecture": "csr"}, "starts from a dense model"),
        ({"architecture": "inference-free", "target_query_active_dims": 8}, "is only for SPLADE"),
    ],
)
def test_options_that_are_not_allowed_are_refused_before_training(
    tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        train(tiny_splade, tiny_pairs, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_sparse_student_learns_a_dense_teachers_margins_on_its_own_scale(
    tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    """The student's margins are about ten times as large as those of cosines, so the teacher's must be scaled."""
    answers = [pair["positive"] for pair in tiny_pairs]
    rows = [{**pair, "negative": answers[place - 1], "label": [0.7, 0.4]} for place, pair in enumerate(tiny_pairs)]
    settings = SETTINGS.with_values({"epochs": 16, "learning_rate": 5e-3, "evaluate_every": 80})
    result = train(tiny_splade, rows, tmp_path / "out", settings=settings)
    scored = add_teacher_scores(read_training_data(rows), hs.Sparse(tmp_path / "out", cache=False))
    margins = np.subtract(*np.transpose(scored.rows["label"][:]))
    assert margins.mean() > 2
    assert "The teacher's scores were multiplied by 27, because the teacher's margins are about 0.3" in result.summary
