"""`hybridsearch train` and `hybridsearch mine`."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.cli.training_options import _dev
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind
from hybridsearch.training.data.columns import NAMES
from hybridsearch.training.losses import explain_losses

st: Any = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
pytest.importorskip("datasets")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "80"})


def error_of(*arguments: object) -> str:
    """The only line that a failing command prints."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    return str(result.stderr)


@pytest.fixture(scope="module")
def collection(long_questions: hs.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder with 40 queries. Every fourth query is in test, and the others are in train."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": one.id, "title": one.title, "text": one.text} for one in long_questions.corpus or ()]
    queries = [{"_id": id, "text": text} for id, text in long_questions.queries.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judged = [f"{query}\t{document}\t1" for query, of in long_questions.qrels.items() for document in of]
    for split, rows in (("test", judged[::4]), ("train", [row for row in judged if row not in judged[::4]])):
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder


@pytest.fixture(scope="module")
def pairs(tiny_pairs: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with columns that have to be mapped."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"q": pair["anchor"], "a": pair["positive"], "note": "x"} for pair in tiny_pairs]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_three_options_are_enough(collection: Path, tiny_dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("train", "dense", "--data", collection, "--model", tiny_dense, "--output", out, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert ": nDCG@10 on tiny" in result.stdout.splitlines()[0]
    assert str(out) in result.stdout.replace("\n", "")
    assert len(st.SentenceTransformer(str(out), device="cpu").encode("wing")) == 32
    assert "What training changed" in (out / "README.md").read_text()
    assert (out / "report.md").is_file()


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_the_loss_is_said_with_the_reason(output: list[str], pairs: Path, tiny_dense: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "dense", "--data", pairs, "--columns", "anchor=q,positive=a",
        "--model", tiny_dense, "--output", tmp_path / "out", "--max-steps", 1, *output,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    said = (
        "40 rows; mnr for 'pairs' (pairs): the data have no labels, so the other texts of the batch serve as negatives."
    )
    assert result.stderr.splitlines() == ([] if output else [said])
    assert said in (json.loads(result.stdout)["summary"] if output else result.stdout.replace("\n", " "))


def test_flags_go_before_the_file(pairs: Path, tiny_dense: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {tiny_dense}\ndata:\n  - source: {pairs}\n    columns: {{anchor: q, positive: a}}\n"
        "max_steps: 9\nbatch-size: 8\nlearning_rate: 1e-3\nmatryoshka_dims: [32, 16]\n"
    )
    result = invoke("train", "dense", "--config", config, "--output", tmp_path / "out", "--max-steps", 2, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    settings = found["settings"]
    assert (settings["max_steps"], settings["batch_size"], settings["learning_rate"]) == (2, 8, 1e-3)
    assert found["history"]["steps"] == 2
    assert found["comparison"] is None
    assert found["summary"].startswith("Not measured")


def test_evaluators_measure_before_and_after(pairs: Path, tiny_dense: Path, tmp_path: Path) -> None:
    rows = ["sentence1\tsentence2\tscore", *(f"A wing.\tA {word}.\t{score}" for score, word in enumerate("abcdef"))]
    (tmp_path / "sick").mkdir()
    (tmp_path / "sick" / "test.tsv").write_text("\n".join(rows))
    result = invoke(
        "train", "dense", "--data", pairs, "--columns", "anchor=q,positive=a", "--model", tiny_dense,
        "--output", tmp_path / "out", "--max-steps", 1, "--evaluator", f"sts={tmp_path}", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    measured = found["evaluators"]["SICK-R Spearman"]
    assert measured.keys() == {"before", "after"}
    assert ": mean Spearman " in found["summary"].splitlines()[0]
    line = f"SICK-R Spearman: {measured['before']:.4f} before, {measured['after']:.4f} after."
    assert f"* {line}" in (tmp_path / "out" / "report.md").read_text()
    assert f"* {line}" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["figures"]["SICK-R Spearman"] == measured


def test_all_of_two_files_of_the_same_name_is_trained_on(
    pairs: Path, tiny_pairs: list[dict[str, str]], tiny_dense: Path, tmp_path: Path
) -> None:
    other = tmp_path / pairs.name
    other.write_text(
        "\n".join(json.dumps({"q": f"Say: {pair['anchor']}", "a": pair["positive"]}) for pair in tiny_pairs)
    )
    result = invoke(
        "train", "dense", "--data", pairs, "--data", other, "--columns", "anchor=q,positive=a", "--model", tiny_dense,
        "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)["summary"]
    assert "40 rows; mnr for 'pairs'" in summary
    assert "40 rows; mnr for 'pairs-2'" in summary


def test_what_was_left_out_is_said(pairs: Path, tiny_dense: Path, collection: Path, tmp_path: Path) -> None:
    asked = [json.loads(line) for line in (collection / "queries.jsonl").read_text().splitlines()]
    rows = [{"anchor": query["text"], "positive": f"Answer {place}."} for place, query in enumerate(asked)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = invoke(
        "train", "dense", "--data", tmp_path / "rows.jsonl", "--test", collection, "--model", tiny_dense,
        "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (
        "Rows with a question of dev, test or an evaluator were left out: 10." in json.loads(result.stdout)["summary"]
    )


@pytest.mark.parametrize("option", ["--dev", "--evaluator"])
def test_rows_that_an_evaluator_reads_are_not_trained_on(option: str, tiny_dense: Path, tmp_path: Path) -> None:
    lines = ["sentence1,sentence2,score", *(f"A {word}.,One {word}.,0.{place}" for place, word in enumerate("abcdef"))]
    for name, some in (("rows", lines), ("part", lines[:4])):
        (tmp_path / f"{name}.csv").write_text("\n".join(some))
    command = [
        "train", "dense", "--data", tmp_path / "rows.csv", "--model", tiny_dense, "--output", tmp_path / "out",
        "--max-steps", 1,
    ]  # fmt: skip
    part = invoke(*command, option, f"similarity={tmp_path}/part.csv", "--json")
    assert part.exit_code == 0, part.output
    summary = json.loads(part.stdout)["summary"]
    assert "3 rows; cosent for 'rows'" in summary
    assert "Rows with a question of dev, test or an evaluator were left out: 3." in summary
    command[command.index("--output") + 1] = tmp_path / "other"
    assert "have questions of dev, test or an evaluator" in error_of(
        *command, option, f"similarity={tmp_path}/rows.csv"
    )


@pytest.mark.parametrize("option", ["--dev", "--evaluator"])
def test_columns_are_those_of_dev_and_evaluators_too(
    option: str, pairs: Path, tiny_dense: Path, tmp_path: Path
) -> None:
    rows = [
        {"q": f"Say {one}.", "a": f"It is {one}.", "score": place / 5, "note": "x"}
        for place, one in enumerate("abcdef")
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [
        "train", "dense", "--data", pairs, "--columns", "anchor=q,positive=a", "--model", tiny_dense, "--max-steps", 1,
    ]  # fmt: skip
    spec = f"similarity={tmp_path}/own.jsonl"
    result = invoke(*command, "--output", tmp_path / "out", option, spec, "--json")
    assert result.exit_code == 0, result.output
    assert "own Spearman" in json.loads(result.stdout)["summary"]


def test_rows_of_a_file_choose_the_checkpoint(pairs: Path, tiny_dense: Path, tmp_path: Path) -> None:
    rows = [{"q": f"Say {one}.", "a": f"It is {one}."} for one in "abcdef"]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = invoke(
        "train", "dense", "--data", pairs, "--columns", "anchor=q,positive=a", "--model", tiny_dense, "--max-steps", 1,
        "--output", tmp_path / "out", "--dev", tmp_path / "own.jsonl", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "own nDCG@10" in json.loads(result.stdout)["summary"].splitlines()[0]


def test_rows_of_dev_are_of_the_kind_of_the_data(tmp_path: Path) -> None:
    rows = [{"query": "lift", "text": f"text {place}", "label": place % 2} for place in range(4)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert _dev(str(tmp_path / "own.jsonl"), {}).kind is Kind.LABELLED
    assert _dev(str(tmp_path / "own.jsonl"), {"rows": "lists"}).kind is Kind.LISTS


def test_a_limit_goes_with_documents_alone(collection: Path, tiny_dense: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "dense", "--unsupervised", collection / "corpus.jsonl", "--model", tiny_dense, "--output",
        tmp_path / "out", "--max-steps", 1, "--limit", 12, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "for 12 queries" in json.loads(result.stdout)["summary"]


def test_a_raw_corpus_is_enough(collection: Path, tiny_dense: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "dense", "--unsupervised", collection / "corpus.jsonl", "--model", tiny_dense,
        "--output", tmp_path / "out", "--epochs", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["comparison"]["dataset"]["name"] == "held-out pseudo-queries (test)"
    assert found["history"]["evaluations"]


def test_the_texts_of_a_corpus_are_trained_on(collection: Path, tiny_masked: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "dense", "--unsupervised", collection / "corpus.jsonl", "--queries", "title", "--loss", "tsdae",
        "--model", tiny_masked, "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "32 rows; tsdae for 'texts of documents' (texts)" in json.loads(result.stdout)["summary"]


def test_a_teacher_scores_what_was_made_of_a_corpus(collection: Path, tiny_dense: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "dense", "--unsupervised", collection / "corpus.jsonl", "--teacher", "hybrid", "--model", tiny_dense,
        "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "tuples with scores" in json.loads(result.stdout)["summary"]


def test_a_teacher_scores_mined_negatives(
    collection: Path, tiny_splade: Path, tiny_dense: Path, tmp_path: Path
) -> None:
    result = invoke(
        "train", "sparse", "--data", collection, "--hard-negatives", 1, "--teacher", tiny_dense, "--model", tiny_splade,
        "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "margin-mse for 'tiny/train' (tuples with scores)" in json.loads(result.stdout)["summary"]


def test_a_sparse_model_is_trained_by_its_options(collection: Path, tiny_splade: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "sparse", "--data", collection, "--model", tiny_splade, "--output", tmp_path / "out",
        "--max-steps", 1, "--document-regularizer-weight", 0.001, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Active dimensions after" in json.loads(result.stdout)["summary"]


def test_a_reranker_is_trained_and_reorders(collection: Path, tiny_reranker: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "reranker", "--data", collection, "--test", collection, "--retriever", "bm25", "--hard-negatives", 1,
        "--model", tiny_reranker, "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "retrieval" in [one["name"] for one in json.loads(result.stdout)["comparison"]["systems"]]


def test_a_late_interaction_model_is_trained_with_a_projection_and_reorders(
    collection: Path, tiny_dense: Path, tmp_path: Path
) -> None:
    result = invoke(
        "train", "late-interaction", "--data", collection, "--test", collection, "--retriever", "bm25,chars",
        "--hard-negatives", 1, "--model", tiny_dense, "--dimensions", 8, "--query-prompt", "ask: ",
        "--output", tmp_path / "out", "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    systems = [one["name"] for one in json.loads(result.stdout)["comparison"]["systems"]]
    assert systems == ["retrieval", "before", "after"]
    assert hs.LateInteraction(tmp_path / "out").vectors(["wing"], "query")[0].shape[1] == 8


def test_data_are_chosen_in_a_database_and_trained_with_adapters_pooling_and_prompts(
    tiny_pairs: list[dict[str, str]], tiny_dense: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "rows.db")) as database, database:
        database.execute("create table faq (q text, a text, kept integer)")
        rows = [(pair["anchor"], pair["positive"], place % 2) for place, pair in enumerate(tiny_pairs)]
        database.executemany("insert into faq values (?, ?, ?)", rows)
    result = invoke(
        "train", "dense", "--data", tmp_path / "rows.db", "--sql", "select q, a from faq where kept = 1",
        "--columns", "anchor=q,positive=a", "--limit", 16, "--model", tiny_dense, "--output", tmp_path / "out",
        "--lora", 2, "--pooling", "cls", "--query-prompt", "ask: ", "--document-prompt", "answer: ",
        "--batch-size", 4, "--max-steps", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "16 rows; mnr for " in json.loads(result.stdout)["summary"]
    model = st.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert model[1].pooling_mode == "cls"
    assert (model.prompts["query"], model.prompts["document"]) == ("ask: ", "answer: ")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["lora"]["rank"] == 2


def test_a_part_of_the_data_without_a_column_is_trained_on_until_patience_ends(
    tiny_pairs: list[dict[str, str]], tiny_dense: Path, tmp_path: Path
) -> None:
    negatives = [pair["positive"] for pair in tiny_pairs[7:] + tiny_pairs[:7]]
    files = {
        "rows/train": [{"question": "A", "answer": "B", "note": "x"}],
        "rows/validation": [
            {"question": f"Say: {one['anchor']}", "answer": one["positive"], "note": "x"} for one in tiny_pairs
        ],
        "apart": [{**one, "negative": other} for one, other in zip(tiny_pairs, negatives, strict=True)],
        "graded": [{**one, "score": place / 40} for place, one in enumerate(tiny_pairs)],
    }
    (tmp_path / "rows").mkdir()
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = invoke(
        "train", "dense", "--data", tmp_path / "rows", "--split", "validation", "--ignore", "note",
        "--dev", f"triplet={tmp_path / 'apart.jsonl'}", "--dev", f"similarity={tmp_path / 'graded.jsonl'}",
        "--model", tiny_dense, "--output", tmp_path / "out", "--learning-rate", 1e-12, "--batch-size", 8,
        "--evaluate-every", 1, "--patience", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "40 rows; mnr for " in found["summary"]
    assert [one["step"] for one in found["history"]["evaluations"]] == [0, 1, 2]
    for one in found["history"]["evaluations"]:
        assert one["score"] == one["measures"]["apart accuracy"]
        assert "graded Spearman" in one["measures"]


def test_a_run_that_was_broken_off_goes_on_by_the_same_command(
    pairs: Path, tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hybridsearch.training.runs.loop import ProgressBar

    class Broken(ProgressBar):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    command = [
        "train", "dense", "--data", pairs, "--columns", "anchor=q,positive=a", "--model", tiny_dense,
        "--output", tmp_path / "out", "--batch-size", 8, "--epochs", 1, "--evaluate-every", 2, "--json",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("hybridsearch.training.runs.loop.ProgressBar", Broken)
        assert invoke(*command).exit_code == 130
    assert "was interrupted" in error_of(*command)

    result = invoke(*command, "--resume")

    assert result.exit_code == 0, result.output
    history = json.loads(result.stdout)["history"]
    assert (history["resumed_at"], history["steps"]) == ([2], 5)


def test_negatives_are_mined_and_kept(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "negatives"
    result = invoke("mine", collection, "--output", out, "--ranks", "1-20", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["rows"] == found["kept"] > 0
    assert sum(found["dropped"].values()) + found["kept"] == found["candidates"]
    shown = invoke("mine", collection, "--output", out, "--ranks", "1-20")
    assert f"{found['rows']} rows are in" in shown.stdout


def test_an_index_that_is_there_is_mined(collection: Path, pairs: Path, tmp_path: Path) -> None:
    assert invoke("index", collection / "corpus.jsonl", "--index", tmp_path / "index").exit_code == 0
    arguments = ["--columns", "anchor=q,positive=a", "--index", tmp_path / "index", "--ranks", "1-9"]
    result = invoke("mine", pairs, *arguments, "--output", tmp_path / "negatives", "--json")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m", "--data", "d"], "--output is missing"),
        (["--output", "o", "--data", "d"], "--model is missing"),
        (["--model", "m", "--output", "o"], "Give either --data SOURCE or --unsupervised SOURCE."),
        (["--model", "m", "--output", "o", "--data", "d", "--unsupervised", "c"], "Give either --data"),
        (["--model", "m", "--output", "o", "--data", "d", "--teacher", "hybrid"], "hybrid needs --unsupervised"),
        (["--model", "m", "--output", "o", "--unsupervised", "c", "--corpus", "d"], "--corpus d needs --data"),
        (["--model", "m", "--output", "o", "--data", "d", "--architecture", "csr"], "is for sparse models"),
        (["--model", "m", "--output", "o", "--data", "d", "--retriever", "bm25"], "for late-interaction and reranker"),
        (["--model", "m", "--output", "o", "--data", "d", "--epochs", "-1"], "epochs is a number above 0"),
        (["--model", "m", "--output", "o", "--data", "d", "--columns", "anchor"], "--columns takes ROLE=COLUMN"),
        (
            ["--model", "m", "--output", "o", "--data", "d", "--columns", "anchor=a,anchor=b"],
            "--columns gives the role 'anchor' two columns, a and b",
        ),
        (["--model", "m", "--output", "o", "--data", "d", "--test", "nowhere"], "There is no folder 'nowhere'"),
        (
            ["--model", "m", "--output", "o", "--data", "d", "--config", "nowhere.yaml"],
            "nowhere.yaml cannot be read: No such file",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of("train", "dense", *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch: 3", "has the unknown option 'batch'. The options are model, output"),
        ("kind: sparse", "is for `hybridsearch train sparse`, not for a dense model"),
        ("- 1", "has no options: write lines such as `epochs: 3`"),
        ("epochs: 3\nlora: {", "run.yaml, line 2 is not valid YAML: expected the node content"),
        ("epochs: 3\nseed: 1\nepochs: 4", "run.yaml, line 3 is not valid YAML: 'epochs' comes twice"),
        ("data: [{source: x, source: y}]", "line 1 is not valid YAML: 'source' comes twice"),
        ("batch-size: 3\nbatch_size: 4", "run.yaml has the option 'batch-size' twice"),
        ("batch_size: many", "run.yaml: --batch-size is 'many'. Give a whole number"),
        ("data: [{file: x}]", "a mapping with a source"),
        ("data: [{source: x, index: y}]", "run.yaml: An entry of data has no 'index'"),
        ("data: [{source: x, kind: twins}]", "kind is 'twins'. Give one of"),
        ("trust_remote_code: maybe", "--trust-remote-code is true or false, not 'maybe'"),
        ("lora: {r: 4}", "run.yaml: LoRA has no setting 'r'"),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    arguments = ["--model", "m", "--output", tmp_path / "out", *([] if "data" in text else ["--data", "d"])]
    assert message in error_of("train", "dense", "--config", tmp_path / "run.yaml", *arguments)


def test_a_column_without_a_role_is_named(pairs: Path, tiny_dense: Path, tmp_path: Path) -> None:
    message = error_of("train", "dense", "--data", pairs, "--model", tiny_dense, "--output", tmp_path / "out")
    assert "note" in message
    assert "--columns" in message


def test_a_loss_that_does_not_fit_comes_with_the_table(pairs: Path, tiny_dense: Path, tmp_path: Path) -> None:
    result = invoke(
        "train", "dense", "--data", pairs, "--columns", "anchor=q,positive=a", "--model", tiny_dense,
        "--output", tmp_path / "out", "--loss", "cosent",
    )  # fmt: skip
    assert result.exit_code == 1
    first, second, *table = result.stderr.splitlines()
    assert "take mnr or cached-mnr" in first
    assert second == "The losses for a dense model:"
    assert any(line.split()[:4] == ["pairs", "anchor,", "positive", "mnr,"] for line in table)


def test_a_file_with_pairs_has_nothing_to_mine_in(pairs: Path, tmp_path: Path) -> None:
    message = error_of("mine", pairs, "--columns", "anchor=q,positive=a", "--output", tmp_path / "out")
    assert "--index PLACE" in message


def test_a_folder_with_pairs_has_nothing_to_mine_in(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / f"train{pairs.suffix}").write_bytes(pairs.read_bytes())
    message = error_of("mine", folder, "--columns", "anchor=q,positive=a", "--output", tmp_path / "out")
    assert "has no documents to search: give an index of the documents with --index PLACE" in message


@pytest.mark.parametrize("option", ["--retrievers", "--language"])
def test_options_of_a_new_index_do_not_go_with_an_index_that_is_mined(
    option: str, collection: Path, tmp_path: Path
) -> None:
    message = error_of("mine", collection, "--index", tmp_path, option, "chars", "--output", tmp_path / "out")
    assert f"--index searches an existing index, so nothing is built: leave out {option}." in message


def test_precision_is_that_of_all_models_that_mine(
    collection: Path, tiny_late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def mined(pairs: Any, search: hs.HybridSearch, reranker: Any, **_: Any) -> None:
        made.extend([search.retrievers["late"], reranker])
        raise InvalidArgumentError("seen")

    monkeypatch.setattr("hybridsearch.training.negatives.mining.mine_hard_negatives", mined)
    options = ["--retrievers", f"late={tiny_late}", "--reranker", f"late={tiny_late}", "--precision", "bf16"]
    assert "seen" in error_of("mine", collection, *options, "--output", tmp_path / "out")
    assert ["precision='bf16'" in repr(one) for one in made] == [True, True]


def test_nothing_is_mined_or_scored_if_texts_are_trained_on(collection: Path, tmp_path: Path) -> None:
    for option, value in (("--hard-negatives", "3"), ("--teacher", "hybrid")):
        message = error_of(
            "train", "dense", "--unsupervised", collection / "corpus.jsonl", "--loss", "tsdae", option, value,
            "--model", "m", "--output", tmp_path / "out",
        )  # fmt: skip
        assert "On the texts themselves nothing is mined or scored. Leave --hard-negatives and teacher out" in message


def test_ranks_are_two_numbers(collection: Path, tmp_path: Path) -> None:
    assert "--ranks takes FIRST-LAST" in error_of("mine", collection, "--output", tmp_path / "out", "--ranks", "six")


def test_who_breaks_training_off_is_told_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybridsearch.cli.training_options.run_options", interrupted)
    result = invoke("train", "dense", "--data", "d", "--model", "m", "--output", tmp_path / "out")
    assert result.exit_code == 130
    assert "with --resume to go on" in result.stderr
    again = invoke("train", "dense", "--data", "d", "--model", "m", "--output", tmp_path / "out", "--resume")
    assert "Interrupted: run the same command to go on" in again.stderr


def test_who_breaks_mining_off_is_told_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, collection: Path, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybridsearch.training.negatives.mining.mine_hard_negatives", interrupted)
    result = invoke("mine", collection, "--output", tmp_path / "out")
    assert result.exit_code == 130
    assert "run the same command to go on" in result.stderr


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction", "reranker"])
def test_the_help_for_a_kind_has_its_options_losses_and_roles(kind: str) -> None:
    own = {"dense": "--matryoshka-dims", "sparse": "--target-active-dims", "late-interaction": "--dimensions"}
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", invoke("train", kind, "--help").stdout).split())
    assert {one for one in own if own[one] in text} == {kind} & own.keys()
    assert ("--lora" in text) == (kind in ("dense", "late-interaction"))
    assert ("--retriever" in text) == (kind in ("late-interaction", "reranker"))
    table = explain_losses(kind)  # type: ignore[arg-type]
    losses = {loss for line in table.splitlines()[1:] for loss in re.split(r"\s{2,}", line)[2].split(", ")}
    said = re.search(r"--loss NAME Name of the loss: (.*?)\. Default", text)
    assert said is not None
    assert set(re.split(", | or ", said[1].replace("- ", "-"))) == losses
    for role in NAMES:
        assert role in text
    everything = invoke("train", "--help").stdout
    assert all(option in everything for option in own.values())


@pytest.mark.slow
def test_two_processes_train_one_model(collection: Path, tiny_dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command = [
        "hybridsearch", "train", "dense", "--data", collection, "--model", tiny_dense,
        "--output", out, "--batch-size", 4, "--epochs", 1, "--precision", "fp32", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [*launch, *map(str, command)], capture_output=True, text=True, timeout=240, check=False, env=environment
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["history"]["steps"] == 3  # 27 rows, four at a time in each process
    assert done.stderr.count("27 rows; mnr for 'tiny/train'") == 1
    assert [one["step"] for one in found["history"]["evaluations"]] == [0, 3]
    assert found["comparison"]["dataset"]["queries"] == 10
    start, trained = (
        st.SentenceTransformer(str(folder), device="cpu").encode("wing").tolist() for folder in (tiny_dense, out)
    )
    assert trained != start
