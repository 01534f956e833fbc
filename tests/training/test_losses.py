"""Tests of losses: those that fit the data are those with which sentence-transformers can train."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.losses import (
    Architecture,
    ModelKind,
    build_loss,
    choose_loss,
    explain_losses,
    to_scale_of,
)

pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

QUERIES = ["What is lift?", "What is drag?", "What is bread?", "What is a comet?"]
ANSWERS = ["A force on a wing.", "A force against the motion.", "A food of flour.", "A body of ice with a tail."]
OTHERS = ANSWERS[1:] + ANSWERS[:1]


def data_of(kind: Kind, negatives: int = 1, dimensions: int = 32) -> TrainingData:
    """Four rows of one kind of data."""
    pairs = {"anchor": QUERIES, "positive": ANSWERS}
    tuples = pairs | {f"negative_{number}": OTHERS for number in range(1, negatives + 1)}
    scores = [[5.0 + row, *[-3.0] * negatives] for row in range(4)]
    columns: dict[Kind, dict[str, Any]] = {
        Kind.TEXTS: {"text": QUERIES},
        Kind.EMBEDDED: {"text": QUERIES, "label": [[0.1] * dimensions] * 4},
        Kind.CLASSED_TEXTS: {"text": QUERIES, "label": [0, 0, 1, 1]},
        Kind.PAIRS: pairs,
        Kind.CLASSED: pairs | {"label": [0, 1, 2, 1]},
        Kind.LABELLED: {"anchor": QUERIES, "positive": QUERIES[:1] + ANSWERS[1:], "label": [0, 1, 1, 1]},
        Kind.SCORED: pairs | {"label": [0.9, 0.1, 0.4, 0.3]},
        Kind.TUPLES: tuples,
        Kind.SCORED_TUPLES: tuples | {"label": scores},
        Kind.LISTS: {"query": QUERIES, "docs": [[*ANSWERS]] * 4, "labels": [[1.0, 0.0, 0.0, 2.0]] * 4},
    }
    return TrainingData.from_columns(kind, columns[kind], name="four")


def fitting() -> list[Any]:
    """The kind of model, the kind of data and the loss of each row of the printed tables."""
    found = []
    kinds: tuple[ModelKind, ...] = ("dense", "sparse", "late-interaction", "reranker")
    for model_kind in kinds:
        for line in explain_losses(model_kind).splitlines()[1:]:
            name, _, losses = re.split(r"\s{2,}", line)
            found += [pytest.param(model_kind, Kind(name), loss) for loss in losses.split(", ")]
    return found


@pytest.fixture(scope="module")
def models(tiny_dense: Path, tiny_splade: Path, tiny_late: Path, tiny_reranker: Path) -> dict[str, Any]:
    import sentence_transformers as st

    return {
        "dense": st.SentenceTransformer(str(tiny_dense), device="cpu"),
        "sparse": st.SparseEncoder(str(tiny_splade), device="cpu"),
        "late-interaction": st.MultiVectorEncoder(str(tiny_late), device="cpu"),
        "reranker": st.CrossEncoder(str(tiny_reranker), device="cpu"),
        "classifier": st.CrossEncoder(
            str(tiny_reranker), num_labels=3, device="cpu", model_kwargs={"ignore_mismatched_sizes": True}
        ),
    }


@pytest.fixture(scope="module")
def trainers(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A trainer of each model. Tests change its data and its loss, because making a trainer takes a second."""
    import sentence_transformers as st

    of_kind = {
        "dense": (st.SentenceTransformerTrainer, st.SentenceTransformerTrainingArguments),
        "sparse": (st.SparseEncoderTrainer, st.SparseEncoderTrainingArguments),
        "late-interaction": (st.MultiVectorEncoderTrainer, st.MultiVectorEncoderTrainingArguments),
        "reranker": (st.CrossEncoderTrainer, st.CrossEncoderTrainingArguments),
    }
    made = {}
    for name, model in models.items():
        trainer, arguments = of_kind["reranker" if name == "classifier" else name]
        data = data_of(Kind.CLASSED if name == "classifier" else Kind.PAIRS)
        model_kind: Any = "reranker" if name == "classifier" else name
        loss = build_loss(choose_loss(model_kind, data), model, data)
        settings = {"per_device_train_batch_size": 4, "use_cpu": True, "report_to": [], "disable_tqdm": True}
        folder = str(tmp_path_factory.mktemp("trainer"))
        made[name] = trainer(model=model, args=arguments(folder, **settings), train_dataset=data.rows, loss=loss)
    return made


def one_step(trainer: Any, data: TrainingData, loss: Any) -> float:
    """The loss of a batch of all rows. Its gradients are checked: they must be finite and not all zero."""
    import torch

    trainer.train_dataset, trainer.loss = data.rows, loss
    trainer.model.zero_grad()
    trainer.model.train()
    value = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    value.backward()
    gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    return float(value.detach())


@pytest.mark.parametrize(("model_kind", "kind", "name"), fitting())
def test_a_loss_that_the_table_has_takes_a_step_in_the_trainer(
    trainers: dict[str, Any], model_kind: ModelKind, kind: Kind, name: str
) -> None:
    trainer = trainers["classifier" if name == "cross-entropy" else model_kind]
    data = data_of(kind, dimensions=len(trainer.model.tokenizer) if model_kind == "sparse" else 32)
    guide = copy.deepcopy(trainer.model).requires_grad_(False) if "gist" in name else None
    loss = build_loss(choose_loss(model_kind, data, name), trainer.model, data, mini_batch_size=2, guide=guide)
    assert math.isfinite(one_step(trainer, data, loss))


@pytest.mark.parametrize("architecture", ["splade", "inference-free", "csr"])
def test_a_sparse_loss_is_wrapped_for_the_architecture(models: dict[str, Any], architecture: Architecture) -> None:
    from sentence_transformers.sparse_encoder import losses

    data = data_of(Kind.PAIRS)
    loss: Any = build_loss(choose_loss("sparse", data), models["sparse"], data, architecture=architecture)
    assert type(loss) is (losses.CSRLoss if architecture == "csr" else losses.SpladeLoss)
    assert type(loss.loss) is losses.SparseMultipleNegativesRankingLoss


def test_queries_of_an_inference_free_model_are_not_regularised(models: dict[str, Any]) -> None:
    data = data_of(Kind.PAIRS)
    loss: Any = build_loss(choose_loss("sparse", data), models["sparse"], data, architecture="inference-free")
    assert (loss.document_regularizer_weight, loss.query_regularizer_weight) == (1e-4, 0)


def test_a_cached_sparse_loss_gives_the_loss_and_gradients_of_the_plain_one(
    trainers: dict[str, Any],
) -> None:
    trainer, data = trainers["sparse"], data_of(Kind.TUPLES)
    model = _without_dropout(trainer.model)
    values, gradients = [], []
    for name in ("mnr", "cached-mnr"):
        loss = build_loss(choose_loss("sparse", data, name), model, data, mini_batch_size=2)
        values.append(one_step(trainer, data, loss))
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    for plain, cached in zip(*gradients, strict=True):
        np.testing.assert_allclose(plain, cached, rtol=1e-3, atol=1e-3)


def test_matryoshka_trains_the_dimensions_asked_for_and_the_full_one(trainers: dict[str, Any]) -> None:
    trainer, data = trainers["dense"], data_of(Kind.PAIRS)
    loss: Any = build_loss(choose_loss("dense", data), trainer.model, data, matryoshka_dims=[8, 16])
    assert loss.matryoshka_dims == (32, 16, 8)
    assert math.isfinite(one_step(trainer, data, loss))


@pytest.mark.parametrize(
    ("model_kind", "kind", "name"),
    [
        ("dense", Kind.PAIRS, "mnr"),
        ("dense", Kind.CLASSED, "softmax"),
        ("dense", Kind.LABELLED, "online-contrastive"),
        ("dense", Kind.SCORED, "cosent"),
        ("dense", Kind.TUPLES, "mnr"),
        ("dense", Kind.SCORED_TUPLES, "kl"),
        ("sparse", Kind.SCORED_TUPLES, "margin-mse"),
        ("sparse", Kind.SCORED, "cosent"),
        ("late-interaction", Kind.TUPLES, "mnr"),
        ("late-interaction", Kind.SCORED_TUPLES, "kl"),
        ("reranker", Kind.LABELLED, "bce"),
        ("reranker", Kind.TUPLES, "mnr"),
        ("reranker", Kind.LISTS, "lambda"),
    ],
)
def test_the_default_follows_from_model_and_data_and_has_a_reason(model_kind: ModelKind, kind: Kind, name: str) -> None:
    choice = choose_loss(model_kind, data_of(kind))
    assert choice.name == name
    assert choice.reason.startswith(f"{name} for 'four' ({kind.value}): ")


def test_the_loss_of_a_part_of_a_mixture_is_asked_for_by_its_data() -> None:
    assert choose_loss("dense", replace(data_of(Kind.SCORED), loss="angle")).name == "angle"
    assert choose_loss("dense", replace(data_of(Kind.SCORED), loss="angle"), "cosine").name == "cosine"


def test_the_page_on_training_data_has_the_losses() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "training-data.md"
    kinds = {str(kind) for kind in Kind}
    cells = [line.strip("| ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if "|" in line]
    table = {row[0]: [cell.strip() for cell in row[1:]] for row in cells if row[0] in kinds}
    for place, model_kind in enumerate(("dense", "sparse", "late-interaction", "reranker")):
        for kind in Kind:
            line = explain_losses(model_kind, kind).splitlines()[1:]  # type: ignore[arg-type]
            shown = (*table.get(str(kind), []), "", "", "", "")[place]
            assert shown == (re.split(r"\s{2,}", line[0])[2] if line else "")


def test_a_loss_that_does_not_fit_is_refused_with_the_table() -> None:
    with pytest.raises(
        InvalidArgumentError, match="'softmax' does not fit the data 'four', which holds pairs"
    ) as raised:
        choose_loss("dense", data_of(Kind.PAIRS), "softmax")
    assert explain_losses("dense") in "".join(raised.value.__notes__)


def test_data_that_trains_no_such_model_is_refused_with_the_table() -> None:
    with pytest.raises(InvalidArgumentError, match=r"holds lists. No loss trains a dense model on them") as raised:
        choose_loss("dense", data_of(Kind.LISTS))
    assert explain_losses("dense") in "".join(raised.value.__notes__)


def test_classes_train_no_sparse_model_and_the_reason_is_said() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'four' holds .* no softmax loss for sparse models\. Give"):
        choose_loss("sparse", data_of(Kind.CLASSED))


def test_a_cached_loss_trains_no_csr_and_the_reason_is_said(models: dict[str, Any]) -> None:
    data = data_of(Kind.PAIRS)
    choice = choose_loss("sparse", data, "cached-mnr")
    with pytest.raises(InvalidArgumentError, match=r"no cached CSRLoss. Take 'mnr'"):
        build_loss(choice, models["sparse"], data, architecture="csr")


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"There is no loss 'infonce'. For 'four', take mnr or cached-mnr"):
        choose_loss("dense", data_of(Kind.PAIRS), "infonce")


def test_triplet_loss_takes_one_negative_only() -> None:
    with pytest.raises(InvalidArgumentError, match="has 3 negatives a row, but the loss takes one"):
        choose_loss("dense", data_of(Kind.TUPLES, negatives=3), "triplet")


def test_margins_are_not_taken_for_scores() -> None:
    tuples = {"anchor": QUERIES, "positive": ANSWERS, "negative_1": OTHERS, "label": [[4.0]] * 4}
    data = TrainingData.from_columns(Kind.SCORED_TUPLES, tuples)
    assert choose_loss("dense", data).name == "margin-mse"
    with pytest.raises(InvalidArgumentError, match="has margins, but the loss takes the score of each text"):
        choose_loss("dense", data, "kl")


@pytest.fixture(scope="module")
def students(models: dict[str, Any], tiny_dense: Path, tiny_late: Path) -> dict[str, tuple[ModelKind, Any, float]]:
    """The kind of model, the model, and the usual difference of its scores of a positive and a negative."""
    import sentence_transformers as st

    by_dot = st.SentenceTransformer(str(tiny_dense), device="cpu", similarity_fn_name="dot")
    by_mean = st.MultiVectorEncoder(str(tiny_late), device="cpu", similarity_fn_name="meanmaxsim")
    return {
        "dense by cosine": ("dense", models["dense"], 0.2),
        "dense by dot product": ("dense", by_dot, 4),
        "sparse": ("sparse", models["sparse"], 8),
        "late interaction by sum": ("late-interaction", models["late-interaction"], 4),
        "late interaction by mean": ("late-interaction", by_mean, 0.2),
        "reranker": ("reranker", models["reranker"], 4),
    }


@pytest.mark.parametrize("margin", [0.01, 0.2, 1, 8, 99.9])  # of fused ranks, cosines, normalised scores, logits, BM25
@pytest.mark.parametrize(
    "student",
    [
        "dense by cosine",
        "dense by dot product",
        "sparse",
        "late interaction by sum",
        "late interaction by mean",
        "reranker",
    ],
)
def test_the_scores_of_any_teacher_are_within_reach_of_any_student(
    students: dict[str, tuple[ModelKind, Any, float]], student: str, margin: float
) -> None:
    model_kind, model, usual = students[student]
    scores = [[margin * (row + 1.5), margin * (row + 0.5)] for row in range(4)]
    tuples = {"anchor": QUERIES, "positive": ANSWERS, "negative_1": OTHERS, "label": scores}
    lists = {"query": QUERIES, "docs": [list(pair) for pair in zip(ANSWERS, OTHERS, strict=True)], "labels": scores}
    asked = [(Kind.SCORED_TUPLES, tuples, "margin-mse")]
    asked.append((Kind.LISTS, lists, "list-net") if model_kind == "reranker" else (Kind.SCORED_TUPLES, tuples, "kl"))
    for kind, columns, name in asked:
        data = TrainingData.from_columns(kind, columns)
        scaled = to_scale_of(data, choose_loss(model_kind, data, name), model)
        found = [first - second for first, second in scaled.rows[str(scaled.label)]]
        assert found == pytest.approx([found[0]] * 4)
        assert usual / 4.1 <= found[0] <= usual * 4.1
        near = usual / 4 <= margin <= usual * 4
        assert (scaled is data) == near
        assert any("scores were multiplied by" in note for note in scaled.notes) != near


def test_margins_that_are_given_are_scaled_as_scores_are(models: dict[str, Any]) -> None:
    columns = {"anchor": QUERIES, "positive": ANSWERS, "negative_1": OTHERS, "label": [[0.2], [-0.2], [0.2], [0.2]]}
    data = TrainingData.from_columns(Kind.SCORED_TUPLES, columns)
    scaled = to_scale_of(data, choose_loss("sparse", data), models["sparse"])
    assert scaled.rows["label"][:] == [[8.0], [-8.0], [8.0], [8.0]]


def test_a_teacher_that_tells_nothing_apart_is_refused(models: dict[str, Any]) -> None:
    data = replace(
        data_of(Kind.SCORED_TUPLES), rows=data_of(Kind.SCORED_TUPLES).rows.map(lambda _: {"label": [0.5] * 2})
    )
    with pytest.raises(InvalidArgumentError, match="gives all texts of a row the same score"):
        to_scale_of(data, choose_loss("sparse", data), models["sparse"])


def test_losses_that_go_by_order_leave_the_scores_as_they_are(models: dict[str, Any]) -> None:
    for model_kind, kind in (("dense", Kind.SCORED), ("reranker", Kind.LISTS), ("dense", Kind.PAIRS)):
        data = data_of(kind)
        assert to_scale_of(data, choose_loss(model_kind, data), models[model_kind]) is data  # type: ignore[arg-type]


def test_scores_that_are_no_probabilities_are_not_taken_for_them() -> None:
    rows = data_of(Kind.SCORED).rows.remove_columns(["label"]).add_column("label", [8.5, -3.0, 0.5, 2.0])
    logits = replace(data_of(Kind.SCORED), rows=rows)
    assert choose_loss("reranker", logits).name == "mse"
    assert choose_loss("reranker", data_of(Kind.SCORED)).name == "bce"
    with pytest.raises(
        InvalidArgumentError, match=r"has scores from -3 to 8\.5, but the loss takes scores from 0 to 1"
    ):
        choose_loss("reranker", logits, "bce")
    with pytest.raises(InvalidArgumentError, match="the loss takes scores from -1 to 1"):
        choose_loss("dense", logits, "cosine")


def test_scores_below_zero_are_no_grades() -> None:
    lists = data_of(Kind.LISTS)
    rows = lists.rows.remove_columns(["labels"]).add_column("labels", [[1.5, -2.0, 0.5, -8.0]] * 4)
    assert choose_loss("reranker", replace(lists, rows=rows)).name == "list-net"
    with pytest.raises(InvalidArgumentError, match="but the loss takes grades of 0 and more"):
        choose_loss("reranker", replace(lists, rows=rows), "lambda")


def test_a_dense_student_is_compared_as_it_is_searched(models: dict[str, Any], tiny_dense: Path) -> None:
    import sentence_transformers as st
    from sentence_transformers import util

    by_dot = st.SentenceTransformer(str(tiny_dense), device="cpu", similarity_fn_name="dot")
    data = data_of(Kind.SCORED_TUPLES)
    for model, expected in ((models["dense"], util.pairwise_cos_sim), (by_dot, util.pairwise_dot_score)):
        for name in ("kl", "margin-mse"):
            loss: Any = build_loss(choose_loss("dense", data, name), model, data)
            assert loss.similarity_fct is expected


@pytest.mark.parametrize("name", ["mnr", "cached-mnr", "kl", "margin-mse"])
def test_a_late_interaction_student_is_compared_by_the_sum_or_the_mean_of_its_model(
    students: dict[str, tuple[ModelKind, Any, float]], name: str
) -> None:
    data = data_of(Kind.TUPLES if "mnr" in name else Kind.SCORED_TUPLES)
    for student, means, temperature in (("sum", False, 1), ("mean", True, 0.05)):
        model = students[f"late interaction by {student}"][1]
        settings = build_loss(choose_loss("late-interaction", data, name), model, data).get_config_dict()  # type: ignore[operator]
        assert ("mean" in settings["similarity_fct"]) == means
        assert settings.get("scale", 1 / temperature) == pytest.approx(1 / temperature)
        assert settings.get("temperature", temperature) == temperature


def test_a_classifier_needs_as_many_outputs_as_there_are_classes(models: dict[str, Any]) -> None:
    data = data_of(Kind.CLASSED)
    with pytest.raises(InvalidArgumentError, match="num_labels=3, but the model has 1"):
        build_loss(choose_loss("reranker", data), models["reranker"], data)


def test_rare_positives_weigh_more_in_the_binary_loss(models: dict[str, Any]) -> None:
    pairs = {"anchor": QUERIES, "positive": ANSWERS, "label": [1, 0, 0, 0]}
    data = TrainingData.from_columns(Kind.LABELLED, pairs)
    loss: Any = build_loss(choose_loss("reranker", data), models["reranker"], data)
    assert float(loss.pos_weight) == 3


@pytest.mark.parametrize(
    ("model_kind", "options", "message"),
    [
        ("dense", {"matryoshka_dims": [64]}, "from 1 to 32, the dimensions of the model"),
        ("dense", {"matryoshka_dims": [8.5]}, r"matryoshka_dims is \[8.5\]. Give numbers from 1 to 32"),
        ("dense", {"matryoshka_dims": [float("nan")]}, "from 1 to 32"),
        ("dense", {"matryoshka_dims": "16"}, "from 1 to 32"),
        ("sparse", {"document_regularizer_weight": float("nan")}, "is nan, but it must be a number of at least 0"),
        ("dense", {"mini_batch_size": 0}, "mini_batch_size is 0. Give at least 1"),
        ("sparse", {"matryoshka_dims": [8]}, "an option of dense models"),
        ("sparse", {"document_regularizer_weight": -1.0}, "at least 0"),
    ],
)
def test_an_option_that_does_not_go_with_the_loss_is_refused(
    models: dict[str, Any], model_kind: ModelKind, options: dict[str, Any], message: str
) -> None:
    data = data_of(Kind.PAIRS)
    with pytest.raises(InvalidArgumentError, match=message):
        build_loss(choose_loss(model_kind, data), models[model_kind], data, **options)


def test_a_teacher_has_as_many_dimensions_as_its_student(models: dict[str, Any]) -> None:
    data = data_of(Kind.EMBEDDED, dimensions=16)
    with pytest.raises(InvalidArgumentError, match="have 16 dimensions, but the embeddings of the model have 32"):
        build_loss(choose_loss("dense", data), models["dense"], data)
    with pytest.raises(InvalidArgumentError, match="have 16 dimensions, but the embeddings of the model have"):
        build_loss(choose_loss("sparse", data), models["sparse"], data)


def test_softmax_is_not_trained_at_several_dimensions(models: dict[str, Any]) -> None:
    data = data_of(Kind.CLASSED)
    with pytest.raises(InvalidArgumentError, match="'softmax' does not work with matryoshka_dims"):
        build_loss(choose_loss("dense", data), models["dense"], data, matryoshka_dims=[8])


def _without_dropout(model: Any) -> Any:
    """The model without dropout, so that each pass gives the same result."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
