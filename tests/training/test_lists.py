"""Tests of rows with lists of positives and negatives, and of rows that become lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridsearch.errors import DocumentError
from hybridsearch.training.data import Kind, TrainingData, read_training_data
from hybridsearch.training.reranker import shape_for

datasets: Any = pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

TEVATRON = [
    {
        "query_id": "7",
        "query": "What is lift?",
        "positive_passages": [{"docid": "a", "title": "Lift", "text": "A force."}],
        "negative_passages": [
            {"docid": "b", "title": "Bread", "text": "A food."},
            {"docid": "c", "title": "", "text": "A comet."},
        ],
    },
    {
        "query_id": "8",
        "query": "What is bread?",
        "positive_passages": [{"docid": "b", "title": "Bread", "text": "A food."}, {"docid": "d", "text": "A loaf."}],
        "negative_passages": [{"docid": "c", "title": "", "text": "A comet."}],
    },
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def rows_of(data: TrainingData) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in data.rows]


def test_the_passages_of_tevatron_become_tuples_that_hold_all_of_them(tmp_path: Path) -> None:
    data = read_training_data(write(tmp_path / "train.jsonl", TEVATRON))

    assert data.kind is Kind.TUPLES
    assert rows_of(data) == [
        ("What is lift?", "Lift A force.", "Bread A food."),
        ("What is lift?", "Lift A force.", "A comet."),
        ("What is bread?", "Bread A food.", "A comet."),
        ("What is bread?", "A loaf.", "A comet."),
    ]
    assert data.ids is not None
    assert data.ids["query_id"][:] == ["7", "7", "8", "8"]
    assert data.notes == ("2 rows with lists became 4 tuples with 1 negative",)
    assert read_training_data(datasets.Dataset.from_list(TEVATRON)).rows[:] == data.rows[:]


def test_each_text_of_ragged_lists_is_in_a_tuple_and_none_twice_in_one() -> None:
    rows = [
        {
            "query": f"query {place}",
            "pos": [f"p{place}-{number}" for number in range(positives)],
            "neg": [f"n{place}-{number}" for number in range(negatives)],
        }
        for place, (positives, negatives) in enumerate([(1, 5), (4, 3), (2, 2), (1, 7)])
    ]

    data = read_training_data(rows)

    assert data.rows.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert [row[0] for row in rows_of(data)] == [f"query {place}" for place in (0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3)]
    for row in rows:
        of_row = [found for found in rows_of(data) if found[0] == row["query"]]
        assert {text for found in of_row for text in found[1:]} == {*row["pos"], *row["neg"]}
        assert all(len(set(found)) == 4 for found in of_row)


def test_rows_of_flagembedding_keep_the_scores_of_their_teacher() -> None:
    rows = [
        {"query": "a", "pos": ["p"], "neg": ["x", "y"], "pos_scores": [3.0], "neg_scores": [1.0, -1.0]},
        {"query": "b", "pos": ["q", "r"], "neg": ["z"], "pos_scores": [2.0, 2.5], "neg_scores": [0.5]},
    ]

    data = read_training_data(rows)

    assert data.kind is Kind.SCORED_TUPLES
    assert rows_of(data) == [
        ("a", "p", "x", [3.0, 1.0]),
        ("a", "p", "y", [3.0, -1.0]),
        ("b", "q", "z", [2.0, 0.5]),
        ("b", "r", "z", [2.5, 0.5]),
    ]


def test_scores_that_are_missing_in_all_rows_are_no_scores() -> None:
    row = {"query": "a", "pos": ["p"], "neg": ["x"], "pos_scores": None, "neg_scores": []}
    data = read_training_data([row, {**row, "query": "b"}])
    assert data.kind is Kind.TUPLES
    assert rows_of(data) == [("a", "p", "x"), ("b", "p", "x")]


def test_margins_and_scores_in_one_column_are_not_mixed() -> None:
    row = {"query": "a", "pos": ["p"], "neg": ["x", "y"], "label": [1.0, 2.0]}
    with pytest.raises(DocumentError, match="row 2: the row has one score for each text, but the rows before have mar"):
        read_training_data([row, {**row, "label": [3.0, 1.0, 2.0]}])


def test_lists_of_the_same_length_stay_tuples_with_all_negatives_and_their_margins() -> None:
    rows = [
        {"query": "a", "pos": ["p"], "neg": ["x", "y"], "label": [2.0, 4.0]},
        {"query": "b", "pos": ["q"], "neg": ["u", "v"], "label": [1.0, 3.0]},
    ]
    data = read_training_data(rows)
    assert rows_of(data) == [("a", "p", "x", "y", [2.0, 4.0]), ("b", "q", "u", "v", [1.0, 3.0])]
    assert data.notes == ()


def test_positives_without_any_negatives_become_pairs() -> None:
    data = read_training_data([{"query": "a", "pos": ["p", "q"], "neg": []}, {"query": "b", "pos": ["r"], "neg": None}])
    assert data.kind is Kind.PAIRS
    assert rows_of(data) == [("a", "p"), ("a", "q"), ("b", "r")]


def test_a_row_without_negatives_is_kept_with_the_answer_of_another_query() -> None:
    rows = [
        {"query": "a", "pos": ["p"], "neg": ["x"]},
        {"query": "b", "pos": ["q"], "neg": []},
        {"query": "B", "pos": ["r"], "neg": ["y"]},
    ]
    data = read_training_data(rows)
    assert rows_of(data) == [("a", "p", "x"), ("b", "q", "p"), ("B", "r", "y")]
    assert data.notes == ("1 row without negatives took positives of other rows as negatives",)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"pos": [], "neg": ["x"]}, r"rows.jsonl, line 2: the column 'pos' \(positive\) is an empty list"),
        ({"pos": ["p", 3], "neg": ["x"]}, r"line 2: the column 'pos' \(positive, item 2\) is the int 3. Give a text"),
        ({"pos": ["p"], "neg": {"id": "x"}}, r"line 2: a passage in the column 'neg' has no text \(its fields: 'id'\)"),
        ({"pos": ["p"], "neg": 7}, r"line 2: the column 'neg' \(negative\) is the int 7. Give a list of texts"),
        ({"pos": ["p"]}, "line 2: the column 'neg' is missing"),
        ({"query": "", "pos": ["p"], "neg": []}, r"line 2: the column 'query' \(anchor\) is empty"),
    ],
)
def test_a_malformed_line_is_one_error_with_its_place(second: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [{"query": "a", "pos": ["p"], "neg": ["x"]}, {"query": "b", **second}]
    with pytest.raises(DocumentError, match=message):
        read_training_data(write(tmp_path / "rows.jsonl", rows))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"pos_scores": [1.0], "neg_scores": []}, "row 2: the row has 1 score, but 1 positive and 2 negatives"),
        ({"pos_scores": None, "neg_scores": None}, "row 2: the row has no scores, but the rows before have"),
        ({"pos_scores": [1.0], "neg_scores": [1.0, "low"]}, "row 2: the column 'neg_scores' is the text 'low'"),
        ({"pos_scores": None, "neg_scores": [1.0, 2.0]}, "row 2: the row has 2 scores, but 1 positive and 2 negatives"),
    ],
)
def test_scores_that_do_not_fit_the_texts_are_one_error(scores: dict[str, Any], message: str) -> None:
    first = {"query": "a", "pos": ["p"], "neg": ["x"], "pos_scores": [3.0], "neg_scores": [1.0]}
    with pytest.raises(DocumentError, match=message):
        read_training_data([first, {"query": "b", "pos": ["q"], "neg": ["y", "z"], **scores}])


ANSWERS = [
    {"question_id": "Q1", "question": "What is lift?", "sentence": "A force.", "label": 1},
    {"question_id": "Q2", "question": "What is bread?", "sentence": "A comet.", "label": 0},
    {"question_id": "Q1", "question": "What is lift?", "sentence": "A food.", "label": 0},
]


def test_questions_with_labelled_sentences_are_pairs_and_become_lists_for_a_loss_on_lists() -> None:
    pairs = read_training_data(ANSWERS)
    assert pairs.kind is Kind.LABELLED
    expected = [("What is lift?", ["A force.", "A food."], [1.0, 0.0]), ("What is bread?", ["A comet."], [0.0])]
    for lists in (shape_for(pairs, "lambda"), read_training_data(ANSWERS, kind="lists")):
        assert lists.kind is Kind.LISTS
        assert rows_of(lists) == expected
        assert lists.notes[-1] == "3 rows became 2 lists, 1 without a label above 0"
    assert shape_for(pairs, "bce") is pairs


def test_grades_of_lists_stay_as_they_are() -> None:
    rows = [{**row, "label": grade} for row, grade in zip(ANSWERS, [4, 1, 2], strict=True)]
    assert read_training_data(rows, kind="lists").rows["labels"][:] == [[4.0, 2.0], [1.0]]
    with pytest.raises(DocumentError, match=r"row 2: the column 'label' is the text 'good'\. Give"):
        read_training_data([rows[0], {**rows[1], "label": "good"}], kind="lists")


@pytest.mark.parametrize("id", [None, "", " ", float("nan")])
def test_queries_without_an_id_are_queries_of_their_own(id: Any) -> None:
    rows = [{"query_id": id, "query": query, "text": "a", "label": 1} for query in ("one", "two")]
    assert read_training_data(rows, kind="lists").rows["query"][:] == ["one", "two"]


def test_a_query_without_an_id_is_not_the_query_that_has_its_text_as_the_id() -> None:
    rows = [{"query_id": id, "query": query, "text": "a", "label": 1} for id, query in (("one", "two"), (None, "one"))]
    assert read_training_data(rows, kind="lists").rows["query"][:] == ["two", "one"]


def test_two_queries_with_one_id_are_refused() -> None:
    rows = [{"query_id": "7", "query": query, "text": "a", "label": 1} for query in ("one", "ONE", "two")]
    assert len(read_training_data(rows[:2], kind="lists")) == 1
    with pytest.raises(DocumentError, match="query_id '7' has two queries, 'one' and 'two'"):
        read_training_data(rows, kind="lists")


@pytest.mark.parametrize(("limit", "queries"), [(1, ["q0"]), (5, ["q0"]), (6, ["q0", "q1"]), (100, ["q0", "q1", "q2"])])
def test_a_limit_takes_whole_lists(limit: int, queries: list[str]) -> None:
    rows = [{"query": f"q{row % 3}", "text": f"text {row}", "label": row // 6} for row in range(9)]
    lists = read_training_data(rows, kind="lists", limit=limit)
    assert lists.rows["query"][:] == queries
    assert all(labels == [0.0, 0.0, 1.0] for labels in lists.rows["labels"])
    assert lists.notes[0].startswith(f"{3 * len(queries)} rows became")
