"""Tests of labels: classes, 0 or 1, scores, and entailments that become triplets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, read_training_data

datasets: Any = pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")


def test_names_of_classes_are_kept_with_their_numbers() -> None:
    rows = [{"query": q, "answer": "x", "label": label} for q, label in [("a", "no"), ("b", "yes"), ("c", "no")]]
    data = read_training_data(rows)
    assert data.kind is Kind.CLASSED
    assert [data.rows.features["label"].int2str(label) for label in data.rows["label"]] == ["no", "yes", "no"]


def test_numbers_of_a_csv_file_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence1,sentence2,score\na,b,2.5\nc,d,5\ne,f,0\n")
    assert read_training_data(tmp_path / "a.csv").rows["label"][:] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ([-0.5, 0.5], [-0.5, 0.5]),
        ([0.0, 2.5, 5.0], [0.0, 0.5, 1.0]),
        ([1.0, 3.0, 5.0], [0.0, 0.5, 1.0]),
        ([0.0, 25.0, 100.0], [0.0, 0.25, 1.0]),
        ([-200.0, 0.0, 200.0], [0.0, 0.5, 1.0]),
    ],
)
def test_scores_become_0_to_1(scores: list[float], expected: list[float]) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in scores]
    data = read_training_data(rows)
    assert data.rows["label"][:] == expected
    assert bool(data.notes) == (scores != expected)


def test_the_range_of_scores_can_be_said() -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": 3}]
    assert read_training_data(rows, score_range=(0, 4)).rows["label"][:] == [0.75]


NLI = [
    {"premise": "A man eats.", "hypothesis": "A man has food.", "label": "entailment"},
    {"premise": "A man eats.", "hypothesis": "A man eats cake.", "label": "neutral"},
    {"premise": "A man eats.", "hypothesis": "A man sleeps.", "label": "contradiction"},
    {"premise": "A man eats.", "hypothesis": "Nobody eats.", "label": "contradiction"},
    {"premise": "A man eats.", "hypothesis": "Who knows.", "label": "-"},
    {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": "entailment"},
]


def test_entailments_and_contradictions_become_triplets() -> None:
    data = read_training_data(NLI)
    assert data.kind is Kind.TUPLES
    assert data.rows.to_list() == [
        {"anchor": "A man eats.", "positive": "A man has food.", "negative_1": "A man sleeps."},
        {"anchor": "A man eats.", "positive": "A man has food.", "negative_1": "Nobody eats."},
    ]
    assert data.notes == (
        "pairs without a class were left out: 1",
        "6 pairs with entailments became 2 triplets",
    )


def test_numbered_classes_of_the_hub_become_the_same_triplets() -> None:
    feature = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    numbers = [-1 if row["label"] == "-" else feature.str2int(row["label"]) for row in NLI]
    rows = datasets.Dataset.from_list([row | {"label": number} for row, number in zip(NLI, numbers, strict=True)])
    features = datasets.Features({**rows.features, "label": feature})
    hub = datasets.Dataset(rows.data.table, datasets.DatasetInfo(features=features))
    assert read_training_data(hub).rows[:] == read_training_data(NLI).rows[:]


def test_classes_of_entailment_are_kept_where_asked_for() -> None:
    data = read_training_data(NLI, kind="pairs with class")
    assert data.kind is Kind.CLASSED
    assert data.rows.features["label"].names == ["entailment", "neutral", "contradiction"]
    assert data.rows["label"][:] == [0, 1, 2, 2, 0]


def of_labels(labels: list[Any], column: str = "label", **options: Any) -> Any:
    rows = [{"sentence1": f"one {label}", "sentence2": f"other {label}", column: label} for label in labels]
    return read_training_data(rows, **options)


def test_minus_one_is_no_label_beside_numbered_classes() -> None:
    data = of_labels([0, 1, 2, -1, 0])
    assert data.kind is Kind.CLASSED
    assert data.rows["label"][:] == [0, 1, 2, 0]
    assert data.rows["anchor"][:] == ["one 0", "one 1", "one 2", "one 0"]
    assert data.notes == ("pairs without a class were left out: 1",)


def test_classes_of_the_hub_without_a_label_are_left_out() -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": label} for label in (1, -1, 0)]
    feature = datasets.ClassLabel(names=["different", "same"])
    features = datasets.Features({"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string")})
    features["label"] = feature
    data = read_training_data(datasets.Dataset.from_list(rows, features=features))
    assert data.rows.features["label"].names == ["different", "same"]
    assert data.rows["label"][:] == [1, 0]


@pytest.mark.parametrize("first", ["-", "-1", -1, "", None])
def test_the_first_inference_may_be_without_a_label(first: Any) -> None:
    data = read_training_data([{"premise": "A man eats.", "hypothesis": "Who knows.", "label": first}, *NLI])
    assert data.rows[:] == read_training_data(NLI).rows[:]
    assert data.notes[0] == "pairs without a class were left out: 2"


@pytest.mark.parametrize("labels", [["True", "False", "true"], ["TRUE", "0", "1"], [True, False, 1]])
def test_true_and_false_are_0_and_1_however_they_are_spelled(labels: list[Any]) -> None:
    for options in ({}, {"kind": "pairs with 0/1"}):
        data = of_labels(labels, **options)
        assert data.kind is Kind.LABELLED
        assert data.rows["label"][:] == [1, 0, 1]


def test_classes_that_differ_in_case_are_one() -> None:
    data = of_labels(["Yes", "no", "yes"])
    assert data.rows["label"][:] == [0, 1, 0]
    assert data.rows.features["label"].names == ["Yes", "no"]
    assert data.notes == ("classes that differ only in case were taken as one class",)


@pytest.mark.parametrize("labels", [[0, 3, 5], ["0", "4"], [0, 1, -1], [-1, 4]])
def test_whole_numbers_that_may_be_scores_or_classes_are_asked_about(labels: list[Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="may be scores or classes"):
        of_labels(labels)


def test_whole_numbers_are_what_the_columns_say() -> None:
    columns = {"anchor": "sentence1", "positive": "sentence2"}
    scores = of_labels([0, 3, 5], columns={**columns, "score": "label"})
    assert (scores.kind, scores.rows["label"][:]) == (Kind.SCORED, [0.0, 0.6, 1.0])
    classes = of_labels([0, 3, 5], columns={**columns, "class": "label"})
    assert (classes.kind, classes.rows["label"][:]) == (Kind.CLASSED, [0, 3, 5])
    truths = of_labels([0, 1, -1], columns={**columns, "class": "label"})
    assert (truths.kind, truths.rows["label"][:]) == (Kind.LABELLED, [0, 1])
    assert of_labels([0, 1], "class").kind is Kind.LABELLED


def test_minus_one_beside_scores_is_asked_about() -> None:
    with pytest.raises(InvalidArgumentError, match=r"some are -1\. .*leave these rows out"):
        of_labels([2.5, -1.0, 5.0], "score")
    assert of_labels([0.0, -1.0, 4.0], "score", score_range=(-1, 4)).rows["label"][:] == [0.2, 0.0, 1.0]


def test_rows_without_any_label_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="No row has a label"):
        of_labels([-1, -1])


def test_entailments_without_contradictions_are_said() -> None:
    with pytest.raises(InvalidArgumentError, match="No premise of 'data' has both"):
        read_training_data(NLI[:2])


def test_triplets_of_real_inferences_have_what_annotators_said(data_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(data_folder / "cad_nli/all_combined/train.tsv", sep="\t", quoting=3, keep_default_na=False)
    said = {
        label: set(zip(rows["sentence1"], rows["sentence2"], strict=True)) for label, rows in table.groupby("label")
    }
    data = read_training_data(data_folder / "cad_nli/all_combined")
    triplets = {(row["anchor"], row["positive"], row["negative_1"]) for row in data.rows}
    assert len(triplets) == len(data) == 1682
    assert {(anchor, positive) for anchor, positive, _ in triplets} <= said["entailment"]
    assert {(anchor, negative) for anchor, _, negative in triplets} <= said["contradiction"]
    both = {premise for premise, _ in said["entailment"]} & {premise for premise, _ in said["contradiction"]}
    assert {anchor for anchor, _, _ in triplets} == both
