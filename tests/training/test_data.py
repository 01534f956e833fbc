"""Tests of training data: its sources and its kinds."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs
from hybridsearch.errors import (
    DatasetNotFoundError,
    DocumentError,
    HybridSearchError,
    InvalidArgumentError,
    MissingExtraError,
)
from hybridsearch.training.data import Kind, TrainingData, read_training_data

datasets: Any = pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

ROWS = [
    {"question": "What is lift?", "answer": "A force on a wing, upwards."},
    {"question": 'What is "drag"?', "answer": "Une force\ncontre le mouvement — à peu près."},
    {"question": "What is null?", "answer": "NA"},
]


def write_csv(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_csv(str(path), index=False)


def write_tsv(path: Path) -> None:
    lines = [f"{row['question']}\t{row['answer']}".replace("\n", " ") for row in ROWS]
    path.write_text("question\tanswer\n" + "\n".join(lines), encoding="utf-8")


def write_jsonl(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_json(str(path))


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")


def write_parquet(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(str(path))


def write_arrow(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(path.with_suffix("")))
    next(path.with_suffix("").glob("*.arrow")).rename(path)


def write_folder(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(path))


def write_splits(path: Path) -> None:
    parts = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(parts).save_to_disk(str(path))


def write_as_on_the_hub(path: Path) -> None:
    (path / "data").mkdir(parents=True)
    write_parquet(path / "data" / "train-00000-of-00001.parquet")


WRITERS: dict[str, Callable[[Path], None]] = {
    "rows.csv": write_csv,
    "rows.tsv": write_tsv,
    "rows.jsonl": write_jsonl,
    "rows.json": write_json,
    "rows.parquet": write_parquet,
    "rows.arrow": write_arrow,
    "saved": write_folder,
    "splits": write_splits,
    "hub": write_as_on_the_hub,
}


# Sources


@pytest.mark.parametrize("name", WRITERS)
def test_pairs_are_read_as_the_datasets_library_wrote_them(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    WRITERS[name](tmp_path / name)
    data = read_training_data(tmp_path / name)
    assert data.kind is Kind.PAIRS
    assert data.rows.column_names == ["anchor", "positive"]
    assert data.rows["anchor"][:] == [row["question"] for row in ROWS]
    expected = [row["answer"] for row in ROWS]
    assert data.rows["positive"][:] == [text.replace("\n", " ") if name == "rows.tsv" else text for text in expected]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl")
    (tmp_path / "zipped.jsonl.gz").write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    assert len(read_training_data(tmp_path / "zipped.jsonl.gz")) == 3


def test_the_rows_of_a_query_are_read_from_a_sqlite_file(tmp_path: Path) -> None:
    _database(tmp_path / "faq.db")
    data = read_training_data(
        tmp_path / "faq.db", sql="SELECT question, answer FROM faq WHERE year > 2000 ORDER BY year"
    )
    assert data.rows["positive"][:] == ["A force.", "A food."]
    assert data.name == "faq"


def test_the_rows_of_a_query_are_read_from_a_database_by_its_url(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="pip install sqlalchemy to read from databases by their URL")
    _database(tmp_path / "faq.db")
    url = f"sqlite:///{tmp_path / 'faq.db'}"
    assert len(read_training_data(url, sql="SELECT question, answer FROM faq")) == 3


@pytest.mark.parametrize(
    ("source", "sql", "message"),
    [
        ("faq.db", None, "Choose rows with sql="),
        (
            "faq.db",
            "SELECT a FROM nowhere",
            "does not answer the query 'SELECT a FROM nowhere': no such table",
        ),
        ("faq.db", "SELECT question FROM faq WHERE year > 3000", "gives no rows"),
        ("faq.db", "DELETE FROM faq", "does not answer the query 'DELETE FROM faq': attempt to write a readonly"),
        ("other.db", "SELECT 1", "There is no database file"),
    ],
)
def test_a_database_that_does_not_answer_is_said(tmp_path: Path, source: str, sql: str | None, message: str) -> None:
    _database(tmp_path / "faq.db")
    with pytest.raises(InvalidArgumentError, match=message):
        read_training_data(tmp_path / source, sql=sql)


def test_rows_at_hand_and_a_dataset_of_the_library_give_the_same() -> None:
    listed = read_training_data(ROWS)
    dataset = read_training_data(datasets.Dataset.from_list(ROWS))
    assert listed.rows[:] == dataset.rows[:] == read_training_data(iter(ROWS)).rows[:]


def test_a_dataset_stays_mapped_from_its_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "saved")
    data = read_training_data(tmp_path / "saved", limit=2)
    assert [Path(file["filename"]).parent for file in data.rows.cache_files] == [tmp_path / "saved"]
    assert len(data) == 2


def test_lists_of_one_negative_become_texts() -> None:
    columns = {"anchor": ["What is lift?"], "positive": ["A force."], "negative": [["A fish."]]}
    assert read_training_data(datasets.Dataset.from_dict(columns)).rows[0]["negative_1"] == "A fish."


def test_a_shuffled_dataset_keeps_its_order_and_its_labels() -> None:
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "score": n / 10} for n in range(10)]
    shuffled = datasets.Dataset.from_list(rows).shuffle(seed=1)
    data = read_training_data(shuffled)
    assert data.rows["anchor"][:] == shuffled["sentence1"][:]
    assert data.rows["label"][:] == shuffled["score"][:]


def test_the_judged_pairs_of_a_retrieval_collection_keep_their_ids(tiny_dataset: hs.Dataset) -> None:
    data = read_training_data(tiny_dataset)
    contents = {document.id: document.content for document in tiny_dataset.corpus or ()}
    assert len(data) == len(tiny_dataset.qrels)
    assert data.ids is not None
    for row, ids in zip(data.rows, data.ids, strict=True):
        assert row == {"anchor": tiny_dataset.queries[ids["query_id"]], "positive": contents[ids["document_id"]]}


def test_empty_and_missing_documents_of_a_collection_are_left_out_and_counted() -> None:
    qrels = {"q": {"full": 1, "empty": 1, "missing": 1, "not relevant": 0}}
    documents = [hs.Document("full", "Lift."), hs.Document("empty", ""), hs.Document("not relevant", "Bread.")]
    data = read_training_data(hs.Dataset("few", {"q": "lift"}, qrels, documents))
    assert data.rows[:] == {"anchor": ["lift"], "positive": ["Lift."]}
    assert data.notes == ("2 judgements of missing or empty texts left out",)


@pytest.mark.parametrize(
    "rows",
    [
        [{"query": "q", "pos": ["a", "b"], "neg": ["a", "c"]}, {"query": "p", "pos": ["a"], "neg": ["c", "d"]}],
        [
            {"anchor": "q", "positive": "a", "negative": "a", "label": [2, 1]},
            {"anchor": "q", "positive": "b", "negative": "a", "label": [2, 1]},
        ],
    ],
)
def test_rows_whose_positive_is_also_a_negative_are_counted(rows: list[dict[str, Any]]) -> None:
    note = "rows whose positive is also one of their negatives, which you should leave out: 1"
    assert read_training_data(rows).notes[-1] == note


def test_judgements_of_unknown_queries_are_counted() -> None:
    qrels = {"q": {"wing": 1}, "typo": {"wing": 1, "not relevant": 0}}
    data = read_training_data(hs.Dataset("few", {"q": "lift"}, qrels, [hs.Document("wing", "Lift.")]))
    assert data.notes == ("1 judgement of missing or empty texts left out",)


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ({"queries": {"_id": "q", "text": "drag"}}, r"beir/queries\.jsonl, the query id 'q' has two texts"),
        ({"corpus": {"_id": "other", "text": "Drag."}}, r"beir/corpus\.jsonl, the document id 'other' has two texts"),
        ({"queries": {"_id": "q", "text": "lift"}, "corpus": {"_id": "other", "text": "Bread."}}, None),
    ],
)
def test_an_id_has_one_text(again: dict[str, dict[str, str]], message: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\twing\t1\n")
    rows = {
        "queries": [{"_id": "q", "text": "lift"}],
        "corpus": [{"_id": "wing", "text": "Lift."}, {"_id": "other", "text": "Bread."}],
    }
    for name, of_file in rows.items():
        lines = [*of_file, *([again[name]] if name in again else [])]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    if message is None:
        assert len(read_training_data(folder)) == 1
    else:
        with pytest.raises(DocumentError, match=message):
            read_training_data(folder)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "zero.csv").write_text("")
    with pytest.raises(InvalidArgumentError, match=r"zero\.csv has no rows"):
        read_training_data(tmp_path / "zero.csv")


@pytest.mark.parametrize(("limit", "queries"), [(1, ["a", "a"]), (3, ["a", "a"]), (4, ["a", "a", "b", "b"])])
def test_a_limit_keeps_queries_whole_so_that_no_positive_is_unknown(limit: int, queries: list[str]) -> None:
    documents = [hs.Document(id, f"Text {id}.") for id in "1234"]
    qrels = {"a": {"1": 1, "2": 1, "4": 0}, "b": {"3": 1, "4": 1}, "c": {"1": 1}}

    data = read_training_data(hs.Dataset("few", {id: f"Query {id}" for id in qrels}, qrels, documents), limit=limit)

    assert data.ids is not None
    assert data.ids["query_id"][:] == queries


def test_the_train_judgements_of_a_beir_folder_become_pairs(data_folder: Path) -> None:
    data = read_training_data(data_folder / "scifact")
    assert (len(data), data.kind, data.name) == (919, Kind.PAIRS, "scifact/train")


def test_a_split_of_a_folder_is_chosen_by_its_files_name(data_folder: Path) -> None:
    assert len(read_training_data(data_folder / "stsb", split="validation")) == 1500
    assert len(read_training_data(data_folder / "stsb", split="test")) == 1379


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("no/such/file.csv", InvalidArgumentError, "There is no file or folder 'no/such/file.csv'"),
        ("owner/nothing", DatasetNotFoundError, "is not a local file or folder with data"),
        ({"question": "a"}, InvalidArgumentError, "is of type dict"),
        (7, InvalidArgumentError, "is of type int"),
        ([], InvalidArgumentError, "has no rows"),
        (["text"], InvalidArgumentError, "Row 1 of the training data is 'text'. Give a mapping"),
    ],
)
def test_a_source_that_is_none_is_refused(source: Any, error: type[HybridSearchError], message: str) -> None:
    with pytest.raises(error, match=message):
        read_training_data(source)


def test_a_file_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("PK")
    with pytest.raises(
        InvalidArgumentError, match=r"The name of '.*rows.xlsx' does not tell its format. Use one of the endings .csv"
    ):
        read_training_data(tmp_path / "rows.xlsx")


def test_without_the_datasets_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[training\]'"):
        read_training_data(ROWS)


# Columns


@pytest.mark.parametrize(
    ("row", "kind", "columns"),
    [
        ({"text": "a"}, Kind.TEXTS, ["text"]),
        ({"sentence": "a", "embedding": [0.1, 0.2]}, Kind.EMBEDDED, ["text", "label"]),
        ({"answer": "b", "query": "a"}, Kind.PAIRS, ["anchor", "positive"]),
        ({"Premise": "a", "Hypothesis": "b", "label": 2}, Kind.CLASSED, ["anchor", "positive", "label"]),
        ({"sentence1": "a", "sentence2": "b", "label": 1}, Kind.LABELLED, ["anchor", "positive", "label"]),
        ({"sentence1": "a", "sentence2": "b", "label": True}, Kind.LABELLED, ["anchor", "positive", "label"]),
        ({"sentence1": "a", "sentence2": "b", "label": 0.5}, Kind.SCORED, ["anchor", "positive", "label"]),
        ({"sentence_A": "a", "sentence_B": "b", "relatedness": 1}, Kind.SCORED, ["anchor", "positive", "label"]),
        ({"neg": "c", "pos": "b", "query": "a"}, Kind.TUPLES, ["anchor", "positive", "negative_1"]),
        (
            {"query": "a", "positive": "b", "negatives": ["c", "d"]},
            Kind.TUPLES,
            ["anchor", "positive", "negative_1", "negative_2"],
        ),
        (
            {"query": "a", "positive": "b", "negative_2": "d", "negative_1": "c", "scores": [3.5, 1, -2]},
            Kind.SCORED_TUPLES,
            ["anchor", "positive", "negative_1", "negative_2", "label"],
        ),
        (
            {"query": "a", "positive": "b", "negative": "c", "label": 2.5},
            Kind.SCORED_TUPLES,
            ["anchor", "positive", "negative_1", "label"],
        ),
        ({"query": "a", "docs": ["b", "c"], "labels": [1, 0]}, Kind.LISTS, ["query", "docs", "labels"]),
    ],
)
def test_columns_are_recognised_and_ordered_and_tell_the_kind(
    row: dict[str, Any], kind: Kind, columns: list[str]
) -> None:
    for data in (read_training_data([row]), read_training_data(datasets.Dataset.from_list([row]))):
        assert data.kind is kind
        assert data.rows.column_names == columns
        assert [data.rows[0][name] for name in data.inputs if name != "docs"] == list("abcd")[
            : len(data.inputs) - (kind is Kind.LISTS)
        ]


def test_mapped_columns_are_read_and_the_others_left_out() -> None:
    rows = [{"id": 1, "title": "What is lift?", "body": "A force.", "question": "unrelated"}]
    data = read_training_data(rows, columns={"anchor": "title", "positive": "body"})
    assert data.rows[0] == {"anchor": "What is lift?", "positive": "A force."}


def test_extra_columns_are_refused_by_name() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"No role is known for the columns 'url', 'year'.*--ignore.*--columns"
    ):
        read_training_data([{"url": "x", "query": "a", "answer": "b", "year": 1990}])


def test_ignored_columns_are_left_out() -> None:
    data = read_training_data([{"url": "x", "query": "a", "answer": "b"}], ignore=["url"])
    assert data.rows.column_names == ["anchor", "positive"]


def test_one_name_in_place_of_a_list_or_a_mapping_of_columns_is_refused() -> None:
    rows = [{"url": "x", "query": "a", "answer": "b"}]
    with pytest.raises(InvalidArgumentError, match=r"ignore is a list of columns, not 'url': write \['url'\]"):
        read_training_data(rows, ignore="url")
    wrong: Any = "query"
    with pytest.raises(InvalidArgumentError, match="columns is a mapping from roles to columns"):
        read_training_data(rows, columns=wrong)


def test_ids_are_kept_beside_the_rows() -> None:
    data = read_training_data([{"query-id": 7, "query": "a", "corpus-id": "d7", "answer": "b"}])
    assert data.rows.column_names == ["anchor", "positive"]
    assert data.ids is not None
    assert data.ids[0] == {"query_id": "7", "document_id": "d7"}


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"query": "a", "question": "b", "answer": "c"}, {}, "'query' and 'question' both look like the anchor"),
        ({"query": "a", "answer": "b", "label": 1, "score": 2}, {}, "'label', 'score' could each be the label"),
        ({"query": "a"}, {}, "'query' do not make rows to train on"),
        ({"answer": "a", "label": 1}, {}, "do not make rows to train on"),
        ({"query": "a", "docs": ["b"]}, {}, "do not make rows to train on"),
        (
            {"query": "a", "answer": "b"},
            {"ignore": ["url"]},
            "no column 'url' to ignore. The columns are 'query', 'answer'",
        ),
        (
            {"query": "a", "answer": "b"},
            {"columns": {"anchor": "title"}},
            "there is no such column. The columns are 'query'",
        ),
        (
            {"query": "a", "answer": "b"},
            {"columns": {"colour": "query"}},
            "the key 'colour', which is not a role. The roles are anchor",
        ),
        ({"query": "a", "answer": "b"}, {"kind": "triples"}, "kind is 'triples'. Give one of 'texts'"),
        ({"query": "a", "answer": "b"}, {"kind": Kind.SCORED}, "holds pairs .*, not pairs with score"),
        ({"query": "a", "answer": "b"}, {"limit": 0}, "limit is 0. Give at least 1"),
        ({"query": "a", "answer": "b", "score": 7}, {"score_range": (0, 5)}, "beyond the score_range of 0 to 5"),
    ],
)
def test_what_cannot_be_understood_is_refused(row: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_training_data([row], **options)


# Malformed rows


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, r"data, row 2: the column 'answer' \(positive\) is missing \(null\)\. Give a text"),
        (float("nan"), "is NaN"),
        (" \n", "is empty"),
        (7, "is the int 7"),
        (["b"], r"is the list \['b'\]"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_a_text_that_is_none_is_one_error_with_its_row(answer: object, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_training_data([{"query": "a", "answer": "b"}, {"query": "c", "answer": answer}])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"score": 1}, {"score": "high"}, "row 2: the column 'score' is the text 'high'. Give a number"),
        ({"score": 1}, {"score": None}, "row 2: the column 'score' is missing"),
        ({"score": 1}, {"score": float("nan")}, "row 2: the column 'score' is NaN"),
        ({"label": 1}, {"label": "yes"}, "row 2: the column 'label' is the text 'yes'. Give a number"),
        ({"label": "yes"}, {"label": None}, "row 2: the column 'label' is missing or empty. Give a class"),
        ({"label": 1}, {"label": [1, 2]}, "row 2: the column 'label' is a list, but a pair has one label"),
        ({"label": 1}, {}, "row 2: the column 'label' is missing"),
        ({}, {"note": "x"}, "row 2: the row has the field 'note', but the first row does not"),
        (
            {"negative": "x", "score": [1, 2]},
            {"negative": "x", "score": [1, 2, 3]},
            "row 2: .* has 3 numbers, but needs 2 or 1",
        ),
        (
            {"negative": "x", "score": [1, 2]},
            {"negative": "x", "score": [1]},
            "row 2: .* has 1 number, but the first row has 2",
        ),
    ],
)
def test_a_row_unlike_the_others_is_one_error_with_its_place(
    first: Mapping[str, Any], second: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(DocumentError, match=message):
        read_training_data([{"query": "a", "positive": "b", **first}, {"query": "c", "positive": "d", **second}])


def test_a_list_has_as_many_labels_as_documents() -> None:
    with pytest.raises(DocumentError, match="row 1: the column 'labels' has 1 number, but needs 2"):
        read_training_data([{"query": "a", "docs": ["b", "c"], "labels": [1]}])


@pytest.mark.parametrize("as_dataset", [False, True])
def test_forced_binary_labels_are_checked(as_dataset: bool) -> None:
    rows: Any = [{"query": "a", "answer": "b", "label": 1}, {"query": "c", "answer": "d", "label": 3}]
    with pytest.raises(DocumentError, match=r"row 2: the column 'label' is 3. Give 0 or 1"):
        read_training_data(datasets.Dataset.from_list(rows) if as_dataset else rows, kind=Kind.LABELLED)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b'query,answer\nq1,"a\nb"\nq2,\n', "a.csv, line 4: the column 'answer' .* is empty"),
        ("a.csv", b"query,answer\nq1,a\nq2\n", "a.csv, line 3: the row has 1 value for 2 columns"),
        ("a.csv", b'query,answer\nq1,a\nq2,"b\n', "a.csv, line 3: the line is not valid CSV .* all quotes are closed"),
        ("a.csv", b"query,query\nq1,a\n", "two columns are named 'query'"),
        ("a.csv", b"query;answer\nq1;a\n", "a.csv: the columns seem to be separated by ';'. Use commas"),
        ("a.csv", b"query,answer\nq1,\xff\n", "a.csv, line 2: the line is not valid UTF-8 .* Save the file as UTF-8"),
        ("a.tsv", b"query\tanswer\nq1\ta\tb\n", "a.tsv, line 2: the row has 3 values for 2 columns"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": }\n',
            r"line 2: this is not valid JSON \(Expecting value, character 10\)",
        ),
        (
            "a.jsonl",
            b'{"query": "a", "answer": "b"}\n\n{"query": "c"}\n',
            "a.jsonl, line 3: the column 'answer' is missing",
        ),
        ("a.jsonl", b'{"query": "a", "answer": "b"}\n7\n', "a.jsonl, line 2: the line is not a JSON object"),
        ("a.json", b'[{"query": "a", "answer": "b"}, 7]', "a.json, row 2: the row is 7. Give a JSON object"),
        ("a.parquet", b"PAR1 no more", "a.parquet is not a readable Parquet file"),
        ("a.arrow", b"ARROW no more", "a.arrow is not a readable Arrow file"),
        ("a.jsonl.gz", gzip.compress(b'{"query": "a", "answer": "b"}\n' * 999, mtime=0)[:40], "damaged or cut off"),
    ],
)
def test_a_malformed_file_is_one_error_with_the_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        read_training_data(tmp_path / name)


# The data itself


def test_columns_of_another_kind_are_refused() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"The columns are positive, anchor, but .* need the columns anchor, positive"
    ):
        TrainingData.from_columns(Kind.PAIRS, {"positive": ["b"], "anchor": ["a"]})


def test_rows_are_chosen_with_their_ids() -> None:
    pairs = {"anchor": ["a", "b", "c"], "positive": ["x", "y", "z"]}
    chosen = TrainingData.from_columns(Kind.PAIRS, pairs, ids={"query_id": ["1", "2", "3"]}).select([2, 0])
    assert chosen.ids is not None
    assert (chosen.rows["anchor"][:], chosen.ids["query_id"][:]) == (["c", "a"], ["3", "1"])


def test_it_says_what_it_is() -> None:
    data = read_training_data(ROWS, name="faq", loss="cached-mnr")
    assert repr(data) == "TrainingData('faq', 3 rows of pairs: anchor, positive, loss='cached-mnr')"


def _database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE faq (question TEXT, answer TEXT, year INTEGER)")
        rows = [("What is lift?", "A force.", 2001), ("What is bread?", "A food.", 2002), ("What is a ship?", "It.", 1)]
        connection.executemany("INSERT INTO faq VALUES (?, ?, ?)", rows)
    connection.close()


def test_the_names_of_classes_are_read_from_parquet_and_from_several_arrow_files(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    features = {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"), "label": classes}
    rows = {"premise": ["A man eats."] * 2, "hypothesis": ["He has food.", "He fasts."], "label": [0, 2]}
    nli = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    nli.to_parquet(str(tmp_path / "nli.parquet"))
    (tmp_path / "parts").mkdir()
    for part in range(2):
        nli.save_to_disk(str(tmp_path / str(part)))
        next((tmp_path / str(part)).glob("*.arrow")).rename(tmp_path / "parts" / f"train-0000{part}.arrow")
    wanted = read_training_data(nli).rows.to_dict()
    assert set(wanted) == {"anchor", "positive", "negative_1"}
    for source in ("nli.parquet", "parts"):
        assert read_training_data(tmp_path / source).rows.to_dict() == wanted


def test_a_folder_that_the_library_datasets_would_take_for_another_is_refused(tmp_path: Path) -> None:
    for name in ("set1", "set[1]"):
        write_parquet(tmp_path / name / "data" / "train-00000-of-00001.parquet")
    assert len(read_training_data(tmp_path / "set1")) == len(ROWS)
    with pytest.raises(InvalidArgumentError, match=r"one of the characters \* \? \[.* Rename the folder"):
        read_training_data(tmp_path / "set[1]")


def test_the_digest_of_rows_tells_rows_apart() -> None:
    one, other = (TrainingData.from_columns(Kind.PAIRS, {"anchor": ["q"], "positive": [text]}) for text in "ab")
    assert one.digest == one.select([0]).digest != other.digest
    numbers = [[0.0] * 50 for _ in range(100)]
    several = [{"text": [str(row) for row in range(100)], "label": numbers}]
    several.append({**several[0], "label": [*numbers[:50], [0.0] * 25 + [1.0] + [0.0] * 24, *numbers[51:]]})
    rows = (TrainingData.from_columns(Kind.EMBEDDED, columns) for columns in several)
    assert len({replace(data, rows=data.rows.with_format("numpy")).digest for data in rows}) == 2


def test_a_query_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "pairs.db") as database:
        database.execute("CREATE TABLE pairs (question, answer)")
        database.execute("INSERT INTO pairs VALUES ('What is lift?', 'A force.')")
    with pytest.raises(InvalidArgumentError, match="Two columns are named 'text'"):
        read_training_data(tmp_path / "pairs.db", sql="SELECT question AS text, answer AS text FROM pairs")
