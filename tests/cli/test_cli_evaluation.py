"""`hybridsearch evaluate` and `hybridsearch compare`."""

from __future__ import annotations

import gzip
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.evaluation.spec import parse_systems
from hybridsearch.evaluation.tuning import tune
from hybridsearch.messages import redacted_command
from hybridsearch.ranking import Ranking

PROGRAM = Path(sys.executable).with_name("hybridsearch")
DOCUMENTS = {
    "wing": "Lift grows with the angle of attack until flow separates from the wing.",
    "heat": "Heat transfer in a laminar boundary layer.",
    "shock": "A shock wave thickens the boundary layer of a wing.",
    "flutter": "Flutter of panels at supersonic speed.",
}
QUERIES = {"1": "lift of a wing", "2": "heat in a boundary layer", "3": "panel flutter"}
QRELS = {"1": "wing", "2": "heat", "3": "flutter"}
RUNS = {"a": ["wing", "heat", "shock", "flutter"], "b": ["flutter", "shock", "heat", "wing"]}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder with two run files."""
    folder = tmp_path_factory.mktemp("data") / "planes"
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": id, "title": "", "text": text}) for id, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": id, "text": text}) for id, text in QUERIES.items())
    )
    rows = "".join(f"{query}\t{document}\t1\n" for query, document in QRELS.items())
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    for name, ids in RUNS.items():
        Ranking.to_trec(
            {query: Ranking.from_scores({id: 9.0 - rank for rank, id in enumerate(ids)}) for query in QUERIES},
            folder / f"{name}.trec",
        )
    return folder


def invoke(*arguments: object, **environment: str) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "120", **environment})


def compared(*arguments: object) -> dict[str, Any]:
    result = invoke("compare", *arguments, "--json")
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_compare_builds_an_index_and_prints_tables(collection: Path, tmp_path: Path) -> None:
    result = invoke("compare", collection, "--work", tmp_path / "work", "--systems", "bm25,german=bm25+zscore")
    assert result.exit_code == 0, result.output
    assert "planes: 4 documents, 3 queries, 3 judgements" in result.stdout
    assert "nDCG@10 against bm25" in result.stdout
    assert "Milliseconds for a query" in result.stdout


def test_the_installed_program_has_the_verbs(collection: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "compare", collection, "--work", tmp_path / "work", "--latency-queries", "0", "--json"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["systems"][0]["means"]["nDCG@10"]["mean"] == 1
    assert found["command"].startswith("hybridsearch compare")


def test_everything_asked_for_is_written(collection: Path, tmp_path: Path) -> None:
    result = invoke(
        "compare", collection, "--html", tmp_path / "report.html", "--markdown", tmp_path / "report.md",
        "--save", tmp_path / "report.json", "--runs", tmp_path / "runs", "--work", tmp_path / "work",
        "--systems", "bm25,bm25+minmax",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert Comparison.load(tmp_path / "report.json").baseline == "bm25"
    assert "</html>" in (tmp_path / "report.html").read_text()
    assert "| bm25" in (tmp_path / "report.md").read_text()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["bm25+minmax.trec", "bm25.trec"]


def test_the_second_run_encodes_nothing(collection: Path, tmp_path: Path) -> None:
    first = compared(collection, "--work", tmp_path)
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert compared(collection, "--work", tmp_path)["systems"] == first["systems"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == stored


def test_standard_output_has_figures_and_the_saved_file_has_everything(collection: Path, tmp_path: Path) -> None:
    printed = compared(collection, "--systems", "bm25,ours=bm25", "--work", tmp_path, "--save", tmp_path / "all.json")
    saved = Comparison.load(tmp_path / "all.json")
    for of_system in printed["systems"]:
        assert not {"scores", "rankings"} & of_system.keys()
        system = saved[of_system["name"]]
        assert of_system["means"] == {name: mean.to_dict() for name, mean in system.means.items()}
        assert of_system["versus"].keys() == system.versus.keys()
        assert of_system["cost"]["sparsity"]["bm25"].keys() == {"documents_mean", "queries_mean", "flops"}
        assert system.rankings.keys() == QUERIES.keys() == system.scores["AP"].keys()
    assert printed["dataset"]["documents"] == len(DOCUMENTS)
    assert printed["machine"]["Python"] == platform.python_version()
    assert "details" not in printed
    assert len(saved.details) == len(QUERIES)


def test_documents_that_left_the_corpus_are_found_no_more(collection: Path, tmp_path: Path) -> None:
    data = shutil.copytree(collection, tmp_path / "planes")
    compared(data, "--work", tmp_path / "work")
    lines = (data / "corpus.jsonl").read_text().splitlines()
    (data / "corpus.jsonl").write_text("\n".join(line for line in lines if '"heat"' not in line))
    found = {}
    for work in ("work", "new"):
        compared(data, "--work", tmp_path / work, "--latency-queries", "0", "--save", tmp_path / "found.json")
        found[work] = Comparison.load(tmp_path / "found.json")["bm25"].rankings
    assert found["work"] == found["new"]
    assert "heat" not in {id for ranking in found["work"].values() for id, _ in ranking}


def test_the_index_of_a_corpus_that_has_changed_is_removed(collection: Path, tmp_path: Path) -> None:
    data, work = shutil.copytree(collection, tmp_path / "planes"), tmp_path / "work"
    compared(data, "--work", work)
    (first,) = work.glob("index-*")
    compared(data, "--work", work, "--retrievers", "bm25", "--language", "german")
    assert len(list(work.glob("index-*"))) == 2  # the settings of other retrievers stay
    with (data / "corpus.jsonl").open("a") as file:
        file.write('\n{"_id": "jet", "title": "", "text": "A jet in a cross flow."}')
    compared(data, "--work", work)
    assert len(list(work.glob("index-*"))) == 2
    assert not first.exists()


def test_a_comparison_of_run_files_builds_no_index(collection: Path, tmp_path: Path) -> None:
    compared(collection, "--systems", f"a={collection / 'a.trec'},b={collection / 'b.trec'}", "--work", tmp_path)
    assert not list(tmp_path.glob("index-*"))


def test_a_file_named_like_a_retriever_is_not_taken_for_a_run(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bm25").write_text("notes")
    assert compared(collection, "--systems", "bm25", "--work", tmp_path / "work")["systems"][0]["kind"] == "single"


def test_the_command_in_a_report_has_no_password_or_key() -> None:
    words = ["compare", "d", "--index", "qdrant+https://:s3cret@host/papers", "--option", "api_key=s3cret"]
    shown = redacted_command(["hybridsearch", *words])
    assert "s3cret" not in shown
    assert "host/papers" in shown


def test_without_work_it_is_kept_in_the_cache_folder(collection: Path, tmp_path: Path) -> None:
    result = invoke("compare", collection, HYBRIDSEARCH_CACHE=str(tmp_path / "cache"))
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "cache" / "compare").iterdir()
    assert folder.name.startswith("planes-")
    assert str(folder) in result.stdout.replace("\n", "")
    assert invoke("compare", collection, HYBRIDSEARCH_CACHE="off").exit_code == 0


def test_run_files_are_compared_and_fused(collection: Path) -> None:
    data = compared(
        collection,
        *("--retrievers", f"a={collection / 'a.trec'},b={collection / 'b.trec'}"),
        *("--systems", "a,b,a+b,all=minmax"),
        *("--systems", f"alone={collection / 'b.trec'}"),
        *("--baseline", "b", "--measures", "RR@10,R@2"),
    )
    kinds = {one["name"]: one["kind"] for one in data["systems"]}
    assert kinds == {"a": "single", "b": "single", "a+b": "fused", "all": "fused", "alone": "run"}
    assert (data["baseline"], data["measures"]) == ("b", ["RR@10", "R@2"])
    means = {one["name"]: one["means"]["RR@10"]["mean"] for one in data["systems"]}
    assert means["a"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert means["alone"] == means["b"]


@pytest.mark.parametrize("retrievers", [["bm25", "a={}"], ["a={}", "bm25"]])
def test_a_run_file_stands_beside_what_is_built(retrievers: list[str], collection: Path, tmp_path: Path) -> None:
    spec = ",".join(retrievers).format(collection / "a.trec")
    data = compared(collection, "--retrievers", spec, "--work", tmp_path, "--latency-queries", "0")
    assert {one["name"]: one["kind"] for one in data["systems"]} == {"bm25": "single", "a": "run"}
    named = compared(
        *(collection, "--systems", f"a={collection / 'a.trec'},bm25", "--work", tmp_path, "--latency-queries", "0"),
        *("--baseline", "bm25"),
    )
    means = [{one["name"]: one["means"] for one in found["systems"]} for found in (data, named)]
    assert means[0] == means[1]


def test_a_run_is_named_after_its_file_and_its_path_is_in_the_description(collection: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(collection / "a.trec", tmp_path / folder / "bm25.trec")
    paths = [collection / "b.trec", tmp_path / "one" / "bm25.trec", tmp_path / "two" / "bm25.trec"]
    data = compared(collection, "--systems", ",".join(map(str, paths)), "--work", tmp_path / "work")
    assert {one["name"]: one["description"] for one in data["systems"]} == {
        name: f"run file {path}" for name, path in zip(("b", "one/bm25", "two/bm25"), paths, strict=True)
    }


@pytest.mark.parametrize("name", ["b.trec.gz", "b.TREC", "b.run.GZ", "b.res", "b.v2+x.txt", "minmax.txt"])
def test_a_run_file_is_known_by_its_name_or_by_being_there(name: str, collection: Path, tmp_path: Path) -> None:
    content = (collection / "b.trec").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    systems = f"{collection / 'b.trec'},{tmp_path / name}"
    data = compared(collection, "--systems", systems, "--work", tmp_path / "work")
    assert [one["kind"] for one in data["systems"]] == ["run", "run"]
    assert data["systems"][0]["means"] == data["systems"][1]["means"]
    missing = invoke("compare", collection, "--systems", tmp_path / "absent.TREC.gz")
    assert f"There is no file '{tmp_path / 'absent.TREC.gz'}'" in missing.stderr


def test_a_file_named_like_a_fusion_is_not_taken_for_a_run(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minmax").write_text("no run")
    monkeypatch.chdir(tmp_path)
    spec = f"a={collection / 'a.trec'},b={collection / 'b.trec'}"
    assert compared(collection, "--retrievers", spec, "--systems", "minmax")["systems"][0]["kind"] == "fused"


def test_a_tuned_fusion_is_not_used_with_fewer_retrievers(collection: Path, tmp_path: Path) -> None:
    queries = [f"q{number}" for number in range(20)]
    runs = {name: dict.fromkeys(queries, Ranking.from_scores({"wing": 1.0})) for name in ("bm25", "dense")}
    dataset = Dataset("many", dict.fromkeys(queries, "wing"), {query: {"wing": 1} for query in queries})
    tuned = tune(runs, dataset, show_progress_bar=False)
    replace(tuned, fusion=hs.ScoreFusion("minmax", {"bm25": 0.5, "dense": 0.5})).save(tmp_path / "tuned.json")
    assert invoke("index", collection, "--index", tmp_path / "index").exit_code == 0
    for arguments in (
        ["evaluate", tmp_path / "index", collection, "--retrievers", "bm25", "--fusion", tmp_path / "tuned.json"],
        ["compare", collection, "--work", tmp_path, "--systems", f"bm25+{tmp_path / 'tuned.json'}"],
    ):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "was tuned with 'dense' too, but only 'bm25' is asked" in result.stderr


def test_an_index_that_is_there_is_evaluated_and_compared(collection: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    assert invoke("index", collection, "--index", place).exit_code == 0
    table = invoke("evaluate", place, collection)
    assert table.exit_code == 0, table.output
    assert re.search(r"nDCG@10 +1\.0000 ", table.stdout)
    measured = invoke(
        "evaluate", place, collection, "--json", "--measures", "AP", "--runs", tmp_path / "runs", "--fusion", "minmax"
    )
    assert json.loads(measured.stdout)["means"]["AP"]["mean"] == 1
    (run,) = (tmp_path / "runs").iterdir()
    assert Ranking.from_trec(run)["1"].ids[0] == "wing"
    data = compared(collection, "--index", place, "--systems", "bm25,bm25+candidates:2")
    assert [one["name"] for one in data["systems"]] == ["bm25", "bm25+candidates:2"]


def test_an_index_is_compared_with_its_own_number_of_candidates(collection: Path, tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, tmp_path / "index", candidates=7) as search:
        search.index(collection, show_progress_bar=False)

    asked = collection, "--index", tmp_path / "index", "--systems", "rrf", "--top-k", "5", "--measures", "AP@5"
    for options, number in (((), "7"), (("--candidates", "9"), "9")):
        [system] = compared(*asked, *options)["systems"]
        assert f", {number} candidates" in system["description"]


def test_candidates_are_those_of_merged_runs_too(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "tuned.json").write_text('{"type": "tuned", "fusion": {"type": "rrf"}, "candidates": 9}')
    runs = f"{collection / 'a.trec'},{collection / 'b.trec'}"
    systems = f"rrf,rrf+candidates:8,{tmp_path / 'tuned.json'}"

    asked = "--retrievers", runs, "--systems", systems, "--top-k", "5", "--measures", "AP@5"
    found = compared(collection, *asked, "--candidates", "7")["systems"]

    numbers = [re.findall(r", (\d+) candidates", one["description"]) for one in found]
    assert numbers == [["7"], ["8"], ["9"]]


def test_the_preset_prints_six_systems(minilm: str, collection: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1, num_hidden_layers=2).save_pretrained(
        tmp_path / "bert"
    )
    AutoTokenizer.from_pretrained(minilm).save_pretrained(tmp_path / "bert")
    CrossEncoder(str(tmp_path / "bert"), device="cpu").save_pretrained(str(tmp_path / "model"))
    data = compared(
        collection, "--preset", "retrieve-rerank", "--sparse", "bm25", "--dense", minilm,
        "--reranker", tmp_path / "model", "--oracle-positives", "--latency-queries", "2",
    )  # fmt: skip
    assert data["measures"] == ["nDCG@10", "RR@10", "AP"]
    assert [one["name"] for one in data["systems"] if one["kind"] != "oracle-positives"] == [
        *("bm25", "dense", "bm25+dense"),
        *("bm25+rerank", "dense+rerank", "bm25+dense+rerank"),
    ]
    assert sum(one["kind"] == "oracle-positives" for one in data["systems"]) == 3


def test_all_of_nanobeir_is_compared_set_by_set(tmp_path: Path) -> None:
    from hybridsearch.evaluation.datasets import NANOBEIR

    def write(subset: str, split: str, **columns: list[str]) -> None:
        (tmp_path / "nano" / subset).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "nano" / subset / f"{split}-00000-of-00001.parquet")

    for split in NANOBEIR.values():
        write("corpus", split, _id=list(DOCUMENTS), text=list(DOCUMENTS.values()))
        write("queries", split, _id=list(QUERIES), text=list(QUERIES.values()))
        write("qrels", split, **{"query-id": list(QRELS), "corpus-id": list(QRELS.values())})
    arguments = ("compare", "nanobeir", "--dataset-id", tmp_path / "nano", "--latency-queries", "0")
    result = invoke(*arguments, "--save", tmp_path / "found.json", "--work", tmp_path / "work")
    assert result.exit_code == 0, result.output
    assert "Mean over 13 data sets" in result.stdout
    assert len(list(tmp_path.glob("found-*.json"))) == 13
    assert Comparison.load(tmp_path / "found-msmarco.json")["bm25"].means["RR@10"].mean == 1
    refused = invoke("evaluate", tmp_path, "nanobeir", "--dataset-id", tmp_path / "nano")
    assert refused.exit_code == 1
    assert "one is needed: nanobeir/arguana" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "bm25+splade"], "has the unknown part 'splade'. A part is a retriever (bm25)"),
        (["--systems", "bm25,bm25"], "two systems 'bm25'"),
        (["--systems", "bm25+rrf+minmax"], "two fusions"),
        (["--systems", "bm25+rerank"], "--reranker"),
        (["--systems", "bm25:much"], "but a colon needs a number after it"),
        (["--systems", "minmax:3"], "only rrf takes a number"),
        (["--systems", "bm25+candidates:1.5"], "whole number"),
        (["--systems", "bm25+candidates:inf"], "whole number"),
        (["--systems", "=bm25"], "is empty"),
        (["--systems", "missing.trec"], "missing.trec"),
        (["--baseline", "dense"], "'dense' is not one of the systems 'bm25'"),
        (["--measures", "R@1000"], "give --top-k 1000"),
        (["--measures", "nDCG@0"], "its cutoff is not 1 or more"),
        (["--retrievers", "bm25,elastic"], "known are bm25"),
        (["--retrievers", "bm25,bm25=a.trec"], "has 'bm25' twice"),
        (["--systems", "bm25,a=a.trec,bm25+a"], "merges the run 'a' with an index"),
        (["--html", "one.html", "--save", "./one.html"], "--html and --save both name 'one.html'"),
        (["--runs", __file__], "--runs takes a folder"),
        (["--markdown", "/"], "--markdown takes a file"),
        (["--dense", "a-model"], "need --preset"),
        (["--preset", "retrieve-rerank"], "needs --dense MODEL and --reranker MODEL"),
        (["--preset", "retrieve-rerank", "--systems", "bm25"], "--preset chooses the systems"),
        (["--index", "place", "--retrievers", "bm25"], "leave out --retrievers"),
        (["--index", "place", "--language", "german"], "leave out --language"),
        (["--rerank-top-k", "5"], "--rerank-top-k needs a reranker"),
        (["--reranker", "m", "--systems", "bm25,rrf"], "--systems has none: write a system such as bm25+rerank"),
        (["--oracle-positives"], "--oracle-positives is for systems with a reranker"),
        (
            ["--retrievers", "chars", "--language", "german"],
            "--language is for bm25, which --retrievers chars does not",
        ),
        (
            ["--retrievers", "a.trec", "--language", "german"],
            "--language is for an index, but there are only run files",
        ),
        (["--html", "/nowhere/at/all/report.html"], "There is no folder '/nowhere/at/all'"),
        (["--split", "never"], "never"),
        (["--split", "/etc/never"], "a split cannot have this name"),
        (["--split", "**never"], "a split cannot have this name"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, collection: Path, tmp_path: Path) -> None:
    result = invoke("compare", collection, "--work", tmp_path, *arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give top_k=5.", "give --top-k 5."),
        ("load it with dataset_id='path/to/it'.", "load it with --dataset-id 'path/to/it'."),
        ("latency_queries is -1", "--latency-queries is -1"),
        (
            "There is no file '/data/top_k/split.tsv' or 'top_k.trec'.",
            "There is no file '/data/top_k/split.tsv' or 'top_k.trec'.",
        ),
        ("write dense=MODEL, ours=bm25+dense", "write dense=MODEL, ours=bm25+dense"),
    ],
)
def test_a_message_names_options_as_the_command_line_does(message: str, shown: str) -> None:
    from hybridsearch.cli.app import _with_options

    assert _with_options(message, get_command(app).commands["compare"]) == shown  # type: ignore[attr-defined]


def test_an_index_that_is_tuned_keeps_its_language(collection: Path) -> None:
    result = invoke("tune", collection, "--index", "place", "--language", "german")
    assert result.exit_code == 1
    assert "leave out --language" in result.stderr


def test_models_and_runs_are_not_tuned_together(collection: Path, tmp_path: Path) -> None:
    spec = f"bm25,{collection / 'a.trec'}"
    result = invoke("tune", collection, "--split", "test", "--folds", "2", "--work", tmp_path, "--retrievers", spec)
    assert result.exit_code == 1
    assert "runs can be merged only with runs" in result.stderr


def test_an_index_in_the_place_of_a_data_set_is_told_from_one(collection: Path, tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        search.index([hs.Document("wing", "Lift grows.")], show_progress_bar=False)
    for place, shown in (
        (tmp_path / "index", tmp_path / "index"),
        ("qdrant://me:secret@host/x", "qdrant://***@host/x"),
    ):
        for arguments in (["compare", place], ["evaluate", collection, place]):
            told = " ".join(invoke(*arguments).stderr.split())
            assert f"'{shown}' is an index, but a data set with queries and judgements is needed" in told
            assert re.search(rf"`hybridsearch compare DATASET --index '?{re.escape(str(shown))}'?`", told)
            assert "secret" not in told


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_says_what_the_same_command_will_find_done(
    kept: bool, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(self: Dataset) -> None:
        raise KeyboardInterrupt

    index = tmp_path / "index"
    with hs.HybridSearch({"bm25": hs.BM25()}, index) as search:
        search.index([hs.Document("wing", "Lift grows.")], show_progress_bar=False)
    monkeypatch.setattr(Dataset, "check", broken_off)  # near the end
    work = ["--work", tmp_path / "work"] if kept else []
    commands = [["compare", collection], ["evaluate", index, collection]]
    for command in commands if kept else commands[1:]:
        result = invoke(*command, *work, "--latency-queries", "0")
        assert result.exit_code == 130
        found = f"finished work is in {tmp_path / 'work'}" if kept else "no work was kept. Use --work FOLDER"
        assert f"Interrupted: {found}" in result.stderr


def test_a_data_set_that_is_not_there_is_named() -> None:
    result = invoke("compare", "no-such-folder")
    assert result.exit_code == 1
    assert "no-such-folder" in result.stderr


# The text of a system


@pytest.fixture
def search() -> hs.HybridSearch:
    return hs.HybridSearch({"bm25": hs.BM25(), "german": hs.BM25("german")})


def parsed(text: str, search: hs.HybridSearch) -> tuple[str, Pipeline]:
    ((name, system),) = parse_systems([text], search).items()
    assert isinstance(system, Pipeline)
    return name, system


@pytest.mark.parametrize(
    ("text", "retrievers", "fusion"),
    [
        ("bm25", ["bm25"], hs.RRF()),
        ("bm25+german", ["bm25", "german"], hs.RRF()),
        ("rrf:20", ["bm25", "german"], hs.RRF(20)),
        ("german+zscore", ["german"], hs.ScoreFusion("zscore")),
        ("bm25:0.3+german+minmax", ["bm25", "german"], hs.ScoreFusion("minmax", {"bm25": 0.3, "german": 1.0})),
        (" ours = minmax ", ["bm25", "german"], hs.ScoreFusion("minmax")),
    ],
)
def test_a_system_is_read_from_text(text: str, retrievers: list[str], fusion: hs.RRF, search: hs.HybridSearch) -> None:
    name, system = parsed(text, search)
    assert name == text.partition("=")[0].strip()
    assert list(system.retrievers or ()) == retrievers
    assert system.fusion is not None
    assert system.fusion.to_json() == fusion.to_json()


def test_depths_stand_in_the_text(search: hs.HybridSearch) -> None:
    reranker = hs.CrossEncoderReranker("a-model", top_k=9)
    systems = parse_systems(["bm25+rerank", "bm25+rerank:30+candidates:200"], search, reranker)
    made = [(one.reranker.top_k, one.candidates) for one in systems.values()]  # type: ignore[union-attr]
    assert made == [(9, None), (30, 200)]
    assert reranker.top_k == 9


def test_a_weight_of_all_zero_is_refused(search: hs.HybridSearch) -> None:
    with pytest.raises(InvalidArgumentError, match="weights are 0"):
        parse_systems(["bm25:0"], search)
