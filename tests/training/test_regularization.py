"""Tests of the weights of the regularisers during the training of a SPLADE."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")

from sentence_transformers.sparse_encoder import losses

from hybridsearch.training.models.architectures import load_sparse
from hybridsearch.training.models.regularization import RegularizerControl, WithinTarget

TEXTS = ["The wing has lift.", "The heart has blood.", "Yeast makes bread rise."]
STEPS = 12


class Run:
    """Run the callbacks of a trainer in its order, on batches of the same texts, without an optimizer."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.model = load_sparse(folder)
        self.loss = losses.SpladeLoss(
            self.model, losses.SparseMultipleNegativesRankingLoss(self.model), 1e-4, query_regularizer_weight=2e-4
        )
        samples = {"document": TEXTS, "query": TEXTS}
        self.control = RegularizerControl(self.loss, samples=samples, **options)
        self.state = SimpleNamespace(max_steps=STEPS, global_step=0, stateful_callbacks={}, log_history=[])
        self.weights: list[tuple[float, float]] = []

    def begin(self) -> None:
        self.control.on_train_begin(None, self.state, None)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.control.on_step_begin(None, self.state, None)
            self.weights.append((self.loss.document_regularizer_weight, self.loss.query_regularizer_weight))
            self.model.train()
            self.loss([dict(self.model.preprocess(TEXTS)) for _ in range(2)])
            self.state.global_step += 1
            self.control.on_step_end(None, self.state, None)

    def log(self) -> dict[str, Any]:
        logs = {"loss": 1.0}
        self.state.log_history.append(dict(logs))
        self.control.on_log(None, self.state, None, logs)
        assert self.state.log_history[-1] == logs
        return logs


def test_weights_rise_by_the_schedule_and_stay(tiny_splade: Path) -> None:
    run = Run(tiny_splade, schedule="linear", warmup_ratio=1 / 3)
    run.begin()
    run.steps(STEPS)
    documents, queries = zip(*run.weights, strict=True)
    assert documents[:4] == pytest.approx([1e-4 * step / 4 for step in range(4)])
    assert set(documents[4:]) == {1e-4}
    assert set(queries[4:]) == {2e-4}


def test_a_constant_schedule_has_the_full_weight_after_the_first_step(tiny_splade: Path) -> None:
    run = Run(tiny_splade, schedule="constant")
    run.begin()
    run.steps(3)
    assert [documents for documents, _ in run.weights[1:]] == [1e-4, 1e-4]


def test_above_the_target_the_weight_grows_and_below_it_falls(tiny_splade: Path) -> None:
    run = Run(tiny_splade, warmup_ratio=0.1, targets={"document": 10, "query": 10**6})
    run.begin()
    run.steps(STEPS)
    documents, queries = zip(*run.weights[2:], strict=True)
    assert list(documents) == sorted(documents)
    assert documents[-1] > 100 * 1e-4
    assert list(queries) == sorted(queries, reverse=True)
    assert queries[-1] < 2e-4 / 100


def test_a_side_without_a_target_keeps_its_weight(tiny_splade: Path) -> None:
    run = Run(tiny_splade, warmup_ratio=0.1, targets={"document": 10})
    run.begin()
    run.steps(STEPS)
    assert {queries for _, queries in run.weights[2:]} == {2e-4}


def test_logs_have_weights_and_the_active_dimensions_of_the_batches(tiny_splade: Path) -> None:
    run = Run(tiny_splade, schedule="constant")
    run.model.transformers_model.config.hidden_dropout_prob = 0.0
    for module in run.model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    run.begin()
    run.steps(2)
    logs = run.log()
    active = float((run.model.encode_document(TEXTS).to_dense() != 0).sum(dim=1).float().mean())
    assert logs["document_active_dims_in_training"] == pytest.approx(active, rel=0.01)
    assert logs["document_regularizer_weight"] == 1e-4


def test_a_resumed_run_goes_on_with_the_weights_of_its_checkpoint(tiny_splade: Path) -> None:
    options: dict[str, Any] = {"warmup_ratio": 0.1, "targets": {"document": 10}}
    broken_off = Run(tiny_splade, **options)
    broken_off.begin()
    broken_off.steps(6)
    resumed = Run(tiny_splade, **options)
    resumed.state = broken_off.state
    resumed.begin()
    resumed.steps(1)
    broken_off.state.global_step -= 1
    broken_off.steps(1)
    assert resumed.weights[0] == broken_off.weights[-1]
    assert resumed.weights[0][0] > 1e-4


@pytest.mark.parametrize(("dims", "expected"), [(90.0, 0.5), (110.0, 0.5), (220.0, 0.5 - 0.6931)])
def test_a_score_falls_where_documents_are_denser_than_the_target_by_more_than_a_tenth(
    dims: float, expected: float
) -> None:
    def inner(*_: object) -> dict[str, float]:
        return {"dev nDCG@10": 0.5, "dev document_active_dims": dims}

    inner.primary_metric = "dev nDCG@10"  # type: ignore[attr-defined]
    evaluator = WithinTarget(inner, {"document": 100})
    assert evaluator(None)[evaluator.primary_metric] == pytest.approx(expected, abs=1e-4)
