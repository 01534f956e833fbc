"""Tests of data sets in folders in the forms of the hub, BEIR and TREC. sentence-transformers is an oracle."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridsearch.documents import Document
from hybridsearch.errors import DatasetNotFoundError, DocumentError, InvalidArgumentError, MissingExtraError
from hybridsearch.evaluation.datasets import NANOBEIR, Dataset, Problem, load_dataset
from hybridsearch.evaluation.measures import write_qrels
from hybridsearch.readers import read_documents

CORPUS = {"10": "Lift grows with the angle of attack.", "11": "A wing stalls at high angles.", "12": "Shock waves."}
QUERIES = {"1": "what makes lift", "2": "when does a wing stall", "3": "nobody judged this"}
QRELS = {"1": {"10": 1}, "2": {"11": 1, "12": 1}}


def write_parquet(path: Path, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def front_matter(configs: str) -> str:
    return f"---\nlicense: mit\nconfigs:\n{configs}---\n\n# A data set\n"


def write_nanobeir(folder: Path, splits: list[str]) -> Path:
    """A folder like sentence-transformers/NanoBEIR-en: three subsets, one split for each data set, no scores."""
    lines = []
    for subset in ("corpus", "queries", "qrels"):
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
    for split in splits:
        part = f"{split}-00000-of-00001.parquet"
        write_parquet(folder / "corpus" / part, _id=list(CORPUS), text=[f"{split}: {text}" for text in CORPUS.values()])
        write_parquet(folder / "queries" / part, _id=list(QUERIES), text=list(QUERIES.values()))
        pairs = [(query, id) for query, grades in QRELS.items() for id in grades]
        columns = {"query-id": [query for query, _ in pairs], "corpus-id": [id for _, id in pairs]}
        write_parquet(folder / "qrels" / part, **columns)
    (folder / "README.md").write_text(front_matter("\n".join(lines) + "\n"))
    return folder


def write_beir(folder: Path, split: str = "test") -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": id, "title": "", "text": text}) for id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    write_qrels(QRELS, folder / "qrels" / f"{split}.tsv")
    return folder


def texts(dataset: Dataset) -> dict[str, str]:
    assert dataset.corpus is not None
    return {document.id: document.text for document in dataset.corpus}


@pytest.fixture(scope="module")
def nanobeir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nanobeir(tmp_path_factory.mktemp("hub") / "NanoBEIR-en", list(NANOBEIR.values()))


def test_grades_of_numpy_are_numbers_as_any() -> None:
    queries = {"q": "wing"}
    dataset = Dataset("mine", queries, {"q": {"a": np.int64(2), "b": np.float64(1), "c": True}})
    assert json.dumps(dataset.qrels) == '{"q": {"a": 2, "b": 1, "c": 1}}'
    plain = {"q": {"a": 1}}
    assert Dataset("mine", queries, plain).qrels is plain


@pytest.mark.parametrize(
    ("queries", "qrels", "part"),
    [
        (["wing"], {"q": {"a": 1}}, "queries is a mapping"),
        ({"q": "wing"}, {"q": ["a"]}, "qrels is a mapping"),
        ({"q": "wing"}, [("q", "a", 1)], "qrels is a mapping"),
        ({"q": "wing"}, {"q": {"a": 0.5}}, "'a' for query 'q' is 0.5. A grade must be a whole number"),
        ({"q": "wing"}, {"q": {"a": "1"}}, "is '1'. A grade"),
        ({"q": "wing"}, {"q": {"a": float("nan")}}, "is nan. A grade"),
        ({"q": "wing"}, {"q": {7: 1}}, "not 7: write '7'"),
        ({7: "wing"}, {7: {"a": 1}}, "not 7: write '7'"),
    ],
)
def test_queries_and_judgements_of_another_form_are_refused_by_a_sentence(queries: Any, qrels: Any, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=part):
        Dataset("mine", queries, qrels)


def test_nanobeir_is_thirteen_sets(nanobeir: Path) -> None:
    sets = load_dataset("nanobeir", dataset_id=nanobeir)
    assert list(sets) == list(NANOBEIR)
    assert len(sets) == 13
    assert texts(sets["fiqa2018"])["12"] == "NanoFiQA2018: Shock waves."


@pytest.mark.parametrize("name", ["nanobeir/msmarco", "nanobeir/MSMARCO", "nanobeir/NanoMSMARCO"])
def test_one_set_of_nanobeir_is_loaded_by_name(nanobeir: Path, name: str) -> None:
    dataset = load_dataset(name, dataset_id=str(nanobeir))
    assert dataset.queries == {id: QUERIES[id] for id in ("1", "2")}
    assert dataset.qrels == QRELS
    assert texts(dataset)["10"] == "NanoMSMARCO: Lift grows with the angle of attack."


def test_a_set_of_nanobeir_is_what_sentence_transformers_reads(
    nanobeir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("datasets", reason="pip install datasets to compare with sentence-transformers' reader")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    from sentence_transformers.sentence_transformer.evaluation import NanoBEIREvaluator

    theirs = NanoBEIREvaluator(["msmarco", "touche2020"], dataset_id=str(nanobeir)).evaluators
    for evaluator, name in zip(theirs, ["msmarco", "touche2020"], strict=True):
        ours = load_dataset(f"nanobeir/{name}", dataset_id=nanobeir)
        assert list(ours.queries.items()) == list(zip(evaluator.queries_ids, evaluator.queries, strict=True))
        assert list(texts(ours).items()) == list(zip(evaluator.corpus_ids, evaluator.corpus, strict=True))
        assert {query: set(ours.qrels[query]) for query in ours.queries} == evaluator.relevant_docs


def test_sentence_transformers_names_of_the_sets_are_ours() -> None:
    from sentence_transformers.sentence_transformer.evaluation import nano_beir

    assert {key: f"Nano{name}" for key, name in nano_beir.DATASET_NAME_TO_HUMAN_READABLE.items()} == NANOBEIR


def test_a_folder_laid_out_as_the_hub_needs_only_the_split(nanobeir: Path) -> None:
    dataset = load_dataset(nanobeir, split="NanoNQ")
    assert (dataset.name, dataset.qrels) == ("NanoBEIR-en/NanoNQ", QRELS)
    (nanobeir / "README.md").rename(nanobeir / "elsewhere")
    try:
        assert load_dataset(nanobeir, split="NanoNQ") == dataset  # the names of the files tell it
    finally:
        (nanobeir / "elsewhere").rename(nanobeir / "README.md")


def test_the_corpus_of_several_files_is_read_anew_each_time(tmp_path: Path) -> None:
    write_nanobeir(tmp_path, ["test"])
    (tmp_path / "corpus" / "test-00000-of-00001.parquet").unlink()
    for part, (id, text) in enumerate(CORPUS.items()):
        write_parquet(tmp_path / "corpus" / f"test-0000{part}-of-00003.parquet", _id=[id], text=[text])
    dataset = load_dataset(tmp_path)
    assert texts(dataset) == texts(dataset) == CORPUS
    assert list(texts(dataset)) == list(CORPUS)


def test_the_corpus_is_read_while_it_is_iterated(tmp_path: Path) -> None:
    write_beir(tmp_path / "x")
    dataset = load_dataset(tmp_path / "x")
    with (tmp_path / "x" / "corpus.jsonl").open("a") as file:
        file.write("\nno JSON")
    assert dataset.corpus is not None
    documents = iter(dataset.corpus)
    assert [next(documents).id for _ in CORPUS] == list(CORPUS)
    with pytest.raises(DocumentError, match=r"corpus\.jsonl, line 4"):
        next(documents)


def test_a_beir_folder_keeps_the_judged_queries_unless_asked(tmp_path: Path) -> None:
    write_beir(tmp_path / "wings")
    dataset = load_dataset(tmp_path / "wings")
    assert (dataset.name, list(dataset.queries), dataset.left_out) == ("wings", ["1", "2"], 1)
    assert list(load_dataset(tmp_path / "wings", all_queries=True).queries) == ["1", "2", "3"]


def test_scifact_and_the_dl19_pool_have_their_known_sizes(data_folder: Path) -> None:
    report = load_dataset(data_folder / "scifact").check()
    assert (report.documents, report.queries, report.judgements, report.left_out) == (5183, 300, 339, 809)
    assert not report.problems
    train = load_dataset(str(data_folder / "scifact"), split="train")
    assert (len(train.queries), sum(map(len, train.qrels.values()))) == (809, 919)
    assert len(load_dataset(data_folder / "trec_dl19_pool", split="test_full").qrels) == 43


def test_cranfields_two_empty_documents_are_found(data_folder: Path) -> None:
    report = load_dataset(data_folder / "cranfield").check()
    assert report.problems == (Problem("documents with an empty text", 2, ("471", "995")),)


@pytest.mark.parametrize("name", ["qrels.trec", "qrels.tsv", "all.qrels"])
def test_judgements_without_a_split_are_no_split_beside_those_that_have_one(tmp_path: Path, name: str) -> None:
    write_beir(tmp_path / "x")
    (tmp_path / "x" / name).write_text("1 0 d9 1\n")
    assert load_dataset(tmp_path / "x").qrels == QRELS
    with pytest.raises(InvalidArgumentError, match=r"no judgements for the split 'train'\. It has 'test'"):
        load_dataset(tmp_path / "x", split="train")
    (tmp_path / "x" / "qrels" / "test.tsv").unlink()
    for split in ("test", "train"):
        assert load_dataset(tmp_path / "x", split=split).qrels == {"1": {"d9": 1}}


def test_dev_and_validation_are_one_split(tmp_path: Path) -> None:
    write_beir(tmp_path / "x", "dev")
    assert load_dataset(tmp_path / "x", split="validation").qrels == QRELS


def test_a_split_that_is_not_there_is_answered_with_those_that_are(nanobeir: Path, tmp_path: Path) -> None:
    write_beir(tmp_path / "x", "train")
    with pytest.raises(
        InvalidArgumentError, match=r"split 'test'\. It has 'train'\. Choose .*split='train' \(--split train"
    ):
        load_dataset(tmp_path / "x")
    with pytest.raises(InvalidArgumentError, match=r"split 'test'\. It has 'NanoArguAna', .*split='NanoArguAna'"):
        load_dataset(nanobeir)
    with pytest.raises(InvalidArgumentError, match=r"split 'NanoNQ'.*Load it by its path, such as with split='train'"):
        load_dataset("nanobeir/nq", dataset_id=tmp_path / "x")


MTEB = """\
- config_name: default
  data_files:
  - split: train
    path: qrels/train.jsonl
  - split: test
    path: qrels/test.jsonl
- config_name: corpus
  data_files: corpus.jsonl
- config_name: queries
  data_files:
    queries: queries.jsonl
"""


def test_judgements_may_be_the_default_subset_in_json_lines(tmp_path: Path) -> None:
    write_beir(tmp_path / "x")
    (tmp_path / "x" / "qrels" / "test.tsv").unlink()
    rows = [{"query-id": query, "corpus-id": id, "score": 2.0} for query, grades in QRELS.items() for id in grades]
    (tmp_path / "x" / "qrels" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "x" / "README.md").write_text(front_matter(MTEB))
    dataset = load_dataset(tmp_path / "x")
    assert dataset.qrels == {"1": {"10": 2}, "2": {"11": 2, "12": 2}}
    assert texts(dataset) == CORPUS


def test_compressed_files_are_known_whatever_the_case_of_their_names(tmp_path: Path) -> None:
    for name, text in (("queries.JSONL.GZ", '{"_id": "q1", "text": "wing"}\n'), ("topics.TSV.gz", "q1\twing\n")):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    judged = '{"query-id": "q1", "corpus-id": "d\u2028", "score": 2}\n'
    (tmp_path / "qrels.Jsonl.Gz").write_bytes(gzip.compress(judged.encode()))
    (tmp_path / "qrels.TXT.GZ").write_bytes(gzip.compress("q1 0 d\u2028 2\n".encode()))
    for queries in ("queries.JSONL.GZ", "topics.TSV.gz"):
        for qrels in ("qrels.Jsonl.Gz", "qrels.TXT.GZ"):
            found = Dataset.from_files(tmp_path / queries, tmp_path / qrels)
            assert (found.queries, found.qrels) == ({"q1": "wing"}, {"q1": {"d\u2028": 2}})


def test_a_judgement_may_list_all_relevant_documents_and_ids_may_be_numbers(tmp_path: Path) -> None:
    write_beir(tmp_path / "x")
    (tmp_path / "x" / "qrels" / "test.tsv").unlink()
    columns = {"query-id": [1, 2], "corpus-id": [[10], [11, 12]]}
    write_parquet(tmp_path / "x" / "qrels" / "test-00000-of-00001.parquet", **columns)
    assert load_dataset(tmp_path / "x").qrels == QRELS


@pytest.mark.parametrize("path", ["../secret.tsv", "/etc/passwd", "https://example.org/qrels.tsv"])
def test_a_readme_names_only_files_inside_the_folder(tmp_path: Path, path: str) -> None:
    write_beir(tmp_path / "x")
    (tmp_path / "x" / "README.md").write_text(front_matter(f"- config_name: qrels\n  data_files: {path}\n"))
    with pytest.raises(InvalidArgumentError, match=r"README\.md.*is not inside the folder"):
        load_dataset(tmp_path / "x")


def test_a_readme_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    write_beir(tmp_path / "x")
    (tmp_path / "x" / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(InvalidArgumentError, match=r"README\.md: its `configs` cannot be read"):
        load_dataset(tmp_path / "x")


TOPICS = """
<top>
<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations that participate
in international criminal activity.

<narr> Narrative:
A relevant document names one.
</top>

<top>
<num> 302 </num>
<title> Topic: Poliomyelitis </title>
<desc> Is it under control? </desc>
</top>
"""


@pytest.fixture
def trec(tmp_path: Path) -> Path:
    (tmp_path / "topics.robust").write_text(TOPICS)
    (tmp_path / "qrels.robust").write_text("301 0 FBIS3-1 1\n302 0 FT-2 0\n302 0 FT-3 2\n")
    return tmp_path


def test_classic_trec_topics_are_read(trec: Path) -> None:
    dataset = Dataset.from_files(trec / "topics.robust", trec / "qrels.robust", name="robust")
    assert dataset.queries == {"301": "International Organized Crime", "302": "Poliomyelitis"}
    assert dataset.qrels == {"301": {"FBIS3-1": 1}, "302": {"FT-2": 0, "FT-3": 2}}
    assert dataset.corpus is None
    assert str(dataset.check()).splitlines()[0] == "robust: no documents, 2 queries, 3 judgements (2 relevant)"


def test_the_description_of_a_topic_can_be_the_query(trec: Path) -> None:
    dataset = Dataset.from_files(trec / "topics.robust", trec / "qrels.robust", topic_field="desc")
    assert dataset.queries["301"] == "Identify organizations that participate in international criminal activity."
    assert dataset.queries["302"] == "Is it under control?"


def test_a_folder_of_trec_files_is_loaded_by_its_path(trec: Path) -> None:
    assert load_dataset(trec) == Dataset.from_files(trec / "topics.robust", trec / "qrels.robust", name=trec.name)


@pytest.mark.parametrize("header", ["", "qid\tquery\n"])
@pytest.mark.parametrize("name", ["topics.dl19.tsv", "topics.dl19.tsv.gz"])
def test_topics_in_two_columns_are_read(trec: Path, header: str, name: str) -> None:
    text = f"{header}301\tcrime\n302\tpolio\tvaccine\n303\tnot judged\n"
    (trec / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    dataset = Dataset.from_files(trec / name, trec / "qrels.robust")
    assert (dataset.name, dataset.queries) == ("topics", {"301": "crime", "302": "polio\tvaccine"})


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ("301\tcrime\n302 polio\n", r"topics\.tsv, line 2: a query is a line `id<TAB>text`"),
        ("<top>\n<num> 301\n<title> crime\n</top>\n<top>\n<title> polio\n</top>\n", r"line 5: the topic has no <num>"),
        ("<?xml version='1.0'?>\n<topics/>\n", "has no <top>"),
        ("1\tother ids\n", "No query of .* has a judgement .* '1' in the one, '301' in the other"),
    ],
)
def test_bad_topics_are_named_with_their_line(trec: Path, topics: str, message: str) -> None:
    (trec / "topics.tsv").write_text(topics)
    with pytest.raises(InvalidArgumentError, match=message):
        Dataset.from_files(trec / "topics.tsv", trec / "qrels.robust")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"query-id": "1", "corpus-id": "10"}\nnot json', r"test\.jsonl, line 2: the line is not valid JSON"),
        ("[1]", "line 1: the line is not a JSON object"),
        ('{"query-id": "1", "score": 1}', "line 1: a judgement has the fields query-id, corpus-id"),
        ('{"query-id": "1", "corpus-id": "10", "score": 0.5}', "line 1: the score of a judgement is an integer"),
        ('{"query-id": "1", "corpus-id": "10", "score": NaN}', "line 1: the score of a judgement is an integer"),
    ],
)
def test_bad_judgements_are_named_with_their_line(tmp_path: Path, rows: str, message: str) -> None:
    write_beir(tmp_path / "x")
    (tmp_path / "x" / "qrels" / "test.tsv").unlink()
    (tmp_path / "x" / "qrels" / "test.jsonl").write_text(rows)
    with pytest.raises(InvalidArgumentError, match=message):
        load_dataset(tmp_path / "x")


def test_a_damaged_parquet_file_is_named(nanobeir: Path, tmp_path: Path) -> None:
    write_nanobeir(tmp_path, ["NanoNQ"])
    (tmp_path / "qrels" / "NanoNQ-00000-of-00001.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DocumentError, match=r"NanoNQ-00000-of-00001\.parquet cannot be read as Parquet"):
        load_dataset("nanobeir/nq", dataset_id=tmp_path)


def test_check_counts_what_is_wrong(tmp_path: Path) -> None:
    queries = [("1", "lift"), ("1", "lift, again"), ("2", " "), ("4", "all judged irrelevant"), ("5", "unjudged")]
    lines = [json.dumps({"_id": id, "text": text}) for id, text in queries]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels.txt").write_text("1 0 a 1\n2 0 a 1\n3 0 gone 1\n4 0 a 0\n")
    documents = [Document("a", "wing"), Document("b", ""), Document("b", "later"), Document("c", " ", "a title")]
    with_corpus = [json.dumps({"_id": d.id, "text": d.text, "title": d.title}) for d in documents]
    (tmp_path / "corpus.jsonl").write_text("\n".join(with_corpus))
    dataset = Dataset.from_files(tmp_path / "queries.jsonl", tmp_path / "qrels.txt", tmp_path / "corpus.jsonl")
    report = dataset.check()
    assert {problem.what: (problem.count, problem.examples) for problem in report.problems} == {
        "judged queries without a text": (1, ("3",)),
        "queries without a relevant document": (1, ("4",)),
        "queries with an empty text": (1, ("2",)),
        "query ids with several texts": (1, ("1",)),
        "judged documents that are not in the corpus": (1, ("gone",)),
        "documents with an empty text": (1, ("b",)),
        "document ids that occur more than once": (1, ("b",)),
    }
    assert (report.documents, report.queries, report.judgements, report.relevant, report.left_out) == (3, 3, 4, 3, 1)
    assert json.loads(json.dumps(report.to_dict()))["problems"][0]["examples"] == ["3"]
    assert str(report).splitlines()[:3] == [
        "queries: 3 documents, 3 queries, 4 judgements (3 relevant)",
        "1 query without judgements left out",
        "judged queries without a text: 1 (3)",
    ]


def test_a_corpus_that_can_be_read_only_once_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="an iterator can be read only once"):
        Dataset("x", {"1": "a"}, {"1": {"d": 1}}, iter([Document("d", "text")]))


def test_a_corpus_that_holds_no_documents_is_refused_and_read_documents_makes_it_usable(tmp_path: Path) -> None:
    rows = [{"id": "d", "text": "a"}]
    for corpus, given in [
        (pa.table({"id": ["d"], "text": ["a"]}), "Table"),
        (rows, "list of dict"),
        (str(tmp_path), "str"),
        (rows[0], "dict"),
    ]:
        with pytest.raises(InvalidArgumentError, match=f"iterable of documents, not a {given}: give hs.read_documents"):
            Dataset("x", {"1": "a"}, {"1": {"d": 1}}, corpus)
    assert Dataset("x", {"1": "a"}, {"1": {"d": 1}}, read_documents(rows)).check().documents == 1
    assert Dataset("x", {"1": "a"}, {"1": {"d": 1}}, []).check().documents == 0


def test_queries_without_judgements_are_counted_where_they_are_kept() -> None:
    report = Dataset("x", {"1": "a", "2": "b"}, {"1": {"d": 1}}).check()
    assert report.problems == (Problem("queries without judgements", 1, ("2",)),)


def test_the_digest_depends_on_queries_and_judgements_and_not_on_their_order() -> None:
    one = Dataset("x", {"1": "a", "2": "b"}, {"1": {"d": 1, "e": 0}, "2": {"d": 1}})
    same = Dataset("y", {"2": "b", "1": "a"}, {"2": {"d": 1}, "1": {"e": 0, "d": 1}})
    assert one.digest == same.digest
    assert one.digest != Dataset("x", {"1": "a", "2": "c"}, one.qrels).digest
    assert one.digest != Dataset("x", one.queries, {"1": {"d": 1, "e": 1}, "2": {"d": 1}}).digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scifact", "There is no folder 'scifact'.*nanobeir/msmarco"),
        ("no/such/folder", "There is no folder"),
        (Path("owner/name"), "There is no folder"),
        ("nanobeir/trec", "NanoBEIR has no set 'trec'. The sets are arguana, "),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name: str | Path, message: str) -> None:
    with pytest.raises(DatasetNotFoundError, match=message):
        load_dataset(name)


def test_a_file_in_place_of_a_folder_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("helpdesk").mkdir()
    Path("helpdesk/queries.jsonl").write_text("")  # the name looks like one of the hub
    with pytest.raises(DatasetNotFoundError, match=r"'helpdesk/queries\.jsonl' is a file, but .*: give the folder"):
        load_dataset("helpdesk/queries.jsonl")


def test_a_folder_goes_without_a_dataset_id(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="is a folder, so dataset_id"):
        load_dataset(tmp_path, dataset_id="owner/name")


def test_without_huggingface_hub_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[evaluation\]'"):
        load_dataset("nanobeir/msmarco")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def snapshot(cache: Path, repository: str) -> Path:
    """The folder of a repository in the cache, as huggingface_hub lays it out."""
    place = cache / f"datasets--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    return place / "snapshots" / ("0" * 40)


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("nanobeir", ["sentence-transformers/NanoBEIR-en --repo-type dataset --local-dir NanoBEIR-en"]),
        (
            "beir/scifact",
            [
                "BeIR/scifact --repo-type dataset --local-dir scifact",
                "BeIR/scifact-qrels --repo-type dataset --local-dir scifact/qrels",
            ],
        ),
        ("owner/name", ["owner/name --repo-type dataset --local-dir name"]),
    ],
)
def test_offline_the_message_says_what_to_download_and_where_it_goes(
    cache: Path, name: str, commands: list[str]
) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        load_dataset(name)
    assert all(f"`hf download {command}`" in str(caught.value) for command in commands)
    assert "dataset_id='path/to/it'" in str(caught.value)
    assert str(cache) in str(caught.value)


def test_offline_a_data_set_in_the_cache_is_loaded(cache: Path) -> None:
    write_nanobeir(snapshot(cache, "sentence-transformers/NanoBEIR-en"), ["NanoMSMARCO"])
    dataset = load_dataset("nanobeir/msmarco")
    assert (dataset.name, dataset.qrels) == ("nanobeir/msmarco", QRELS)


def test_offline_a_translation_in_the_cache_is_loaded_by_its_id(cache: Path) -> None:
    write_nanobeir(snapshot(cache, "lightonai/NanoBEIR-de"), ["NanoMSMARCO"])
    assert load_dataset("nanobeir/msmarco", dataset_id="lightonai/NanoBEIR-de").name == "lightonai/NanoBEIR-de/msmarco"


def test_offline_a_cache_that_holds_other_sets_only_is_not_complete(cache: Path) -> None:
    folder = write_nanobeir(snapshot(cache, "sentence-transformers/NanoBEIR-en"), ["NanoMSMARCO", "NanoNQ"])
    (folder / "corpus" / "NanoNQ-00000-of-00001.parquet").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"no file with the corpus of 'NanoNQ'.*`hf download"):
        load_dataset("nanobeir/nq")


def write_beir_repositories(place: Callable[[str], Path]) -> None:
    """Folders like BeIR/scifact and BeIR/scifact-qrels: no `configs`, compressed lines, separate judgements."""
    folder, qrels = place("BeIR/scifact"), place("BeIR/scifact-qrels")
    write_beir(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    for name in ("corpus.jsonl", "queries.jsonl"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    qrels.mkdir(parents=True)
    (folder / "qrels" / "test.tsv").rename(qrels / "test.tsv")
    (folder / "qrels").rmdir()


def test_offline_a_set_of_beir_is_put_together_from_its_two_repositories(cache: Path) -> None:
    write_beir_repositories(lambda repository: snapshot(cache, repository))
    for name in ("beir/scifact", "BeIR/scifact"):
        dataset = load_dataset(name)
        assert (dataset.name, dataset.qrels, texts(dataset)) == (name, QRELS, CORPUS)


def test_a_set_of_beir_that_was_copied_as_the_message_says_is_loaded(tmp_path: Path) -> None:
    write_beir_repositories(
        lambda repository: tmp_path / repository.replace("BeIR/scifact-qrels", "BeIR/scifact/qrels2")
    )
    (tmp_path / "BeIR" / "scifact" / "qrels2").rename(tmp_path / "BeIR" / "scifact" / "qrels")
    assert load_dataset("beir/scifact", dataset_id=tmp_path / "BeIR" / "scifact").qrels == QRELS
    assert texts(load_dataset(tmp_path / "BeIR" / "scifact")) == CORPUS


class _Hub(http.server.BaseHTTPRequestHandler):
    """The answers of the hub that huggingface_hub needs for a download: the commit, the files and their content."""

    root: Path
    sha = "1" * 40
    served: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/datasets/(\w[\w-]*/[\w-]+)(/revision/\w+|/tree/\w+)?", path):
            repository, what = found[1], found[2] or ""
            folder = self.root / repository
            if not folder.is_dir():
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
            entries = [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}
                for name in names
            ]
            info = {"id": repository, "sha": self.sha, "siblings": [{"rfilename": name} for name in names]}
            self.answer(200, json.dumps(entries if what.startswith("/tree") else info).encode())
        elif found := re.fullmatch(r"/datasets/(\w[\w-]*/[\w-]+)/resolve/\w+/(.+)", path):
            content = (self.root / found[1] / found[2]).read_bytes()
            if self.command == "GET":
                self.served.append(found[2])
            self.answer(200, content, {"ETag": f'"{len(content)}-{abs(hash(found[2]))}"', "X-Repo-Commit": self.sha})
        else:
            self.answer(404, b"{}")

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, type[_Hub]]]:
    """A server with the part of the hub's API that a download needs."""
    handler = type("Handler", (_Hub,), {"root": tmp_path / "repositories", "served": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def load_in_a_new_process(
    name: str, endpoint: str, cache: Path, offline: bool = False, split: str = "test"
) -> subprocess.CompletedProcess[str]:
    load = f"load_dataset({name!r}, split={split!r})"
    code = f"from hybridsearch.evaluation.datasets import load_dataset; print({load}.check())"
    variables = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": str(int(offline))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **variables, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        timeout=120,
        check=False,
    )


def test_one_set_is_downloaded_without_the_others_and_kept_for_offline_use(
    hub: tuple[str, type[_Hub]], tmp_path: Path
) -> None:
    endpoint, handler = hub
    write_nanobeir(handler.root / "sentence-transformers" / "NanoBEIR-en", ["NanoMSMARCO", "NanoNQ"])
    done = load_in_a_new_process("nanobeir/msmarco", endpoint, tmp_path / "cache")
    assert done.stdout.startswith("nanobeir/msmarco: 3 documents, 2 queries, 3 judgements"), done.stderr
    part = "NanoMSMARCO-00000-of-00001.parquet"
    assert sorted(handler.served) == ["README.md", f"corpus/{part}", f"qrels/{part}", f"queries/{part}"]
    again = load_in_a_new_process("nanobeir/msmarco", endpoint, tmp_path / "cache", offline=True)
    assert again.stdout == done.stdout
    other = load_in_a_new_process("nanobeir/nq", endpoint, tmp_path / "cache", offline=True)
    assert "`hf download sentence-transformers/NanoBEIR-en" in other.stderr


def test_a_set_of_beir_is_downloaded_from_its_two_repositories(hub: tuple[str, type[_Hub]], tmp_path: Path) -> None:
    endpoint, handler = hub
    write_beir_repositories(lambda repository: handler.root / repository)
    done = load_in_a_new_process("beir/scifact", endpoint, tmp_path / "cache")
    assert done.stdout.startswith("beir/scifact: 3 documents, 2 queries, 3 judgements"), done.stderr


def test_a_split_that_the_hub_does_not_have_is_no_incomplete_download(
    hub: tuple[str, type[_Hub]], tmp_path: Path
) -> None:
    endpoint, handler = hub
    write_beir(handler.root / "owner" / "wings")
    done = load_in_a_new_process("owner/wings", endpoint, tmp_path / "cache")
    assert done.stdout.startswith("owner/wings: 3 documents"), done.stderr
    dev = load_in_a_new_process("owner/wings", endpoint, tmp_path / "cache", split="dev")
    assert "NoSplitError: " in dev.stderr
    assert "It has 'test'." in dev.stderr
    offline = load_in_a_new_process("owner/wings", endpoint, tmp_path / "cache", offline=True, split="dev")
    assert "DatasetNotFoundError: " in offline.stderr  # the split may be on the hub


def test_a_data_set_that_the_hub_does_not_have_is_said_so(hub: tuple[str, type[_Hub]], tmp_path: Path) -> None:
    done = load_in_a_new_process("owner/nothing", hub[0], tmp_path / "cache")
    assert "DatasetNotFoundError: The hub has no data set 'owner/nothing' that you may read" in done.stderr


def test_a_connection_that_fails_is_answered_with_what_to_download(tmp_path: Path) -> None:
    done = load_in_a_new_process("nanobeir/nq", "http://127.0.0.1:9", tmp_path / "cache")
    assert "the hub cannot be reached. Run `hf download sentence-transformers/NanoBEIR-en" in done.stderr


def test_queries_are_written_into_the_documents_that_answer_them() -> None:
    judged = {"1": {"10": 2, "11": 0}, "2": {"10": 1, "lost": 1}, "gone": {"12": 1}}
    corpus = [Document(id, text, "Wings", {"year": 1958}) for id, text in CORPUS.items()]
    written = list(Dataset("wings", QUERIES, judged, corpus).written_into(iter(corpus)))
    first = f"{QUERIES['1']}\n{QUERIES['2']}\n{CORPUS['10']}"
    assert written == [Document("10", first, "Wings", {"year": 1958}), *corpus[1:]]
    as_dicts = [{"id": id, "text": text, "title": "Wings", "year": 1958} for id, text in CORPUS.items()]
    assert list(Dataset("wings", QUERIES, judged).written_into(as_dicts)) == written
    with pytest.raises(DocumentError, match="document"):
        list(Dataset("wings", QUERIES, judged).written_into(["10"]))  # type: ignore[list-item]
