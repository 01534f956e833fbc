"""Tests that training data, the data that choose a model, and the test data share no query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData, with_queries
from hybridsearch.training.measure.evaluators import build_evaluator
from hybridsearch.training.measure.measuring import asked_by
from hybridsearch.training.sources import Part, gather, hold_out, mine, searched_texts

pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")


def test_queries_of_the_same_text_are_held_out_together() -> None:
    queries = {f"q{number}": f"Question {number // 2}" for number in range(100)}
    dataset = hs.Dataset("mine", queries, {query: {"d": 1} for query in queries}, [hs.Document("d", "text")])

    rest, held = hold_out(dataset)

    assert held is not None
    assert len(held.queries) == 10
    assert set(held.queries.values()).isdisjoint(rest.queries.values())
    assert set(held.qrels) == set(held.queries)


def test_a_beir_folder_is_split_by_its_own_splits(data_folder: Path) -> None:
    sources = gather(data_folder / "scifact")

    assert sources.test is not None
    assert len(sources.test.queries) == 300
    assert isinstance(sources.dev, hs.Dataset)
    anchors = set(sources.training[0].rows["anchor"])
    assert len(sources.dev.queries) >= 80
    assert anchors.isdisjoint(sources.dev.queries.values())
    assert anchors.isdisjoint(sources.test.queries.values())
    assert len(anchors) + len(set(sources.dev.queries.values())) == 807 - 2  # which test asks, too


def test_a_tenth_each_of_many_pairs_chooses_and_judges() -> None:
    rows = [{"question": f"What is number {number}?", "answer": f"It is {number}."} for number in range(200)]

    sources = gather(rows)

    assert isinstance(sources.dev, hs.Dataset)
    assert sources.test is not None
    assert [len(sources.training[0]), len(sources.dev.queries), len(sources.test.queries)] == [160, 20, 20]
    assert len(list(sources.test.corpus or ())) == 200  # found among all answers


def test_nothing_is_held_out_beside_given_dev_data() -> None:
    rows = [{"question": f"What is number {number}?", "answer": f"It is {number}."} for number in range(200)]

    sources = gather({"numbers": rows}, dev="triplet=dev.csv")

    assert sources.training[0].name == "numbers"
    assert len(sources.training[0]) == 200
    assert sources.test is None


def test_a_second_source_does_not_bring_back_what_the_first_held_out(tiny_dataset: hs.Dataset) -> None:
    again = [{"anchor": text.upper(), "positive": "What it is."} for text in tiny_dataset.queries.values()]

    sources = gather({"judged": tiny_dataset, "rows": again})

    assert isinstance(sources.dev, hs.Dataset)
    held = {text.lower() for text in sources.dev.queries.values()}
    assert len(held) == 4
    for one in sources.training:
        assert held.isdisjoint(text.lower() for text in one.rows["anchor"])
    assert sources.training[1].notes == ("rows with a question of dev, test or an evaluator were left out: 4",)


def test_questions_of_the_test_set_are_neither_trained_on_nor_held_out(tiny_dataset: hs.Dataset) -> None:
    some = dict(list(tiny_dataset.queries.items())[:10])
    test = hs.Dataset("some", some, {id: tiny_dataset.qrels[id] for id in some}, tiny_dataset.corpus)

    sources = gather(tiny_dataset, test=test)

    assert isinstance(sources.dev, hs.Dataset)
    assert set(some.values()).isdisjoint([*sources.training[0].rows["anchor"], *sources.dev.queries.values()])
    assert len(sources.training[0]) + len(sources.dev.queries) == 30


@pytest.mark.parametrize(("grade", "has_documents"), [(0, True), (-1, True), (1, False)])
def test_test_data_that_cannot_judge_a_model_are_refused_before_the_training(grade: int, has_documents: bool) -> None:
    documents = [hs.Document("d", "A force.")] if has_documents else None
    test = hs.Dataset("held", {"q": "What is lift?"}, {"q": {"d": grade}}, documents)
    lacks = "query with a relevant document" if has_documents else "documents"
    with pytest.raises(InvalidArgumentError, match=f"The test data 'held' have no {lacks}"):
        gather([{"anchor": "What is drag?", "positive": "A force."}], test=test)


def test_data_that_ask_nothing_else_than_the_test_set_are_refused(tiny_dataset: hs.Dataset) -> None:
    with pytest.raises(InvalidArgumentError, match="All rows of 'tiny' have questions of dev, test or an evaluator"):
        gather(tiny_dataset, test=tiny_dataset)


def test_pairs_with_labels_are_held_apart_by_both_texts() -> None:
    columns: dict[str, list[Any]] = {"anchor": ["a", "a", "b"], "positive": ["b", "c", "c"], "label": [1.0, 0.5, 0.0]}
    dev = {"anchor": ["B"], "positive": ["a"], "label": [0.9]}

    sources = gather(
        TrainingData.from_columns(Kind.SCORED, columns), dev=TrainingData.from_columns(Kind.SCORED, dev, name="dev")
    )

    assert sources.training[0].rows["positive"][:] == ["c", "c"]


@pytest.mark.parametrize(
    ("type_", "kind", "columns"),
    [
        ("similarity", Kind.SCORED, {"label": [0.5, 1.0]}),
        ("binary", Kind.LABELLED, {"label": [0, 1]}),
        ("triplet", Kind.TUPLES, {"negative_1": ["x", "y"]}),
        ("reranking", Kind.TUPLES, {"negative_1": ["x", "y"]}),
        ("translation", Kind.PAIRS, {}),
        ("paraphrase-mining", Kind.PAIRS, {}),
    ],
)
def test_what_an_evaluator_asks_is_not_trained_on(type_: str, kind: Kind, columns: dict[str, list[Any]]) -> None:
    asked = {"anchor": ["What is 0?", "What is  1?"], "positive": ["It is 0.", "It IS 1."]}
    evaluator = build_evaluator({"type": type_, "data": TrainingData.from_columns(kind, {**asked, **columns})}, "dense")
    rows = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in range(5)]
    data = gather(rows, measured=asked_by(evaluator)).training[0]
    assert data.rows["anchor"][:] == ["What is 2?", "What is 3?", "What is 4?"]
    assert data.notes == ("rows with a question of dev, test or an evaluator were left out: 2",)


def test_questions_that_an_evaluator_searches_with_are_not_trained_on(tiny_dataset: hs.Dataset) -> None:
    some = dict(list(tiny_dataset.queries.items())[:10])
    part = hs.Dataset("some", some, {id: tiny_dataset.qrels[id] for id in some}, tiny_dataset.corpus)
    for kind in ("dense", "reranker"):
        evaluator = build_evaluator({"type": "retrieval", "data": part}, kind)  # type: ignore[arg-type]
        sources = gather(tiny_dataset, measured=asked_by(evaluator))
        assert isinstance(sources.dev, hs.Dataset)
        assert set(some.values()).isdisjoint([*sources.training[0].rows["anchor"], *sources.dev.queries.values()])


def test_texts_whose_embeddings_an_evaluator_compares_are_not_trained_on(minilm: str) -> None:
    texts = [f"Text {number}." for number in range(4)]
    spec = {"type": "mse", "data": [{"text": text} for text in texts[:2]], "teacher": minilm}
    embedded = TrainingData.from_columns(Kind.EMBEDDED, {"text": texts, "label": [[0.0]] * 4})
    assert gather(embedded, measured=asked_by(build_evaluator(spec, "dense"))).training[0].rows["text"][:] == texts[2:]


def test_pairs_whose_similarity_dev_asks_are_no_positives() -> None:
    dev = TrainingData.from_columns(Kind.SCORED, {"anchor": ["A cat."], "positive": ["One cat."], "label": [0.1]})
    rows = [{"anchor": "One cat.", "positive": "a cat."}, {"anchor": "A cat.", "positive": "A pet."}]
    assert gather(rows, dev=dev).training[0].rows["positive"][:] == ["A pet."]


def test_queries_of_dev_that_test_asks_are_left_out(tiny_dataset: hs.Dataset) -> None:
    ids = list(tiny_dataset.queries)
    dev, test = (with_queries(tiny_dataset, name, some) for name, some in (("dev", ids[:10]), ("test", ids[5:15])))
    sources = gather(tiny_dataset, dev=dev, test=test)
    assert isinstance(sources.dev, hs.Dataset)
    assert list(sources.dev.queries) == ids[:5]
    assert sources.training[0].notes == (
        "questions of dev that are also in test were left out: 5",
        "rows with a question of dev, test or an evaluator were left out: 15",
    )
    with pytest.raises(InvalidArgumentError, match=r"All queries of dev .* are also in test"):
        gather(tiny_dataset, dev=dev, test=dev)


def test_the_judgements_for_dev_of_a_folder_choose_and_nothing_else_is_held_out(
    tiny_dataset: hs.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "qrels").mkdir()
    for name, texts in (
        ("corpus", {document.id: document.text for document in tiny_dataset.corpus or ()}),
        ("queries", tiny_dataset.queries),
    ):
        lines = [json.dumps({"_id": id, "text": text}) for id, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    judged = [f"{query}\t{document}\t1" for query, of in tiny_dataset.qrels.items() for document in of]
    for split, lines in (("dev", judged[:12]), ("train", judged[12:])):
        (tmp_path / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    sources = gather(tmp_path)
    assert isinstance(sources.dev, hs.Dataset)
    assert list(sources.dev.queries) == list(tiny_dataset.queries)[:12]
    assert len(sources.training[0]) == len(judged) - 12


def test_a_given_test_set_costs_no_rows() -> None:
    rows = [{"question": f"What is number {number}?", "answer": f"It is {number}."} for number in range(200)]
    test = hs.Dataset("other", {"q": "Why?"}, {"q": {"d": 1}}, [hs.Document("d", "Because.")])

    sources = gather(rows, test=test)

    assert isinstance(sources.dev, hs.Dataset)
    assert sources.test is test
    assert (len(sources.training[0]), len(sources.dev.queries)) == (180, 20)


def test_sources_of_the_same_name_are_all_there(tiny_pairs: list[dict[str, str]], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pairs.csv").write_text("question,answer\n" + f"What is {folder}?,A number.\n")

    sources = gather([tmp_path / "one" / "pairs.csv", tmp_path / "two" / "pairs.csv"])

    assert [one.name for one in sources.training] == ["pairs", "pairs-2"]


def test_each_data_set_is_mined_in_its_own_documents(tiny_corpus: list[hs.Document], tmp_path: Path) -> None:
    parts = {}
    for name, documents in (("first", tiny_corpus[:20]), ("second", tiny_corpus[20:])):
        queries = {one.id: f"What is {one.title}, and not {', '.join(tiny.title for tiny in tiny_corpus)}?"
                   for one in documents[:5]}  # fmt: skip
        parts[name] = hs.Dataset(name, queries, {id: {id: 1} for id in queries}, documents)

    mined = mine(gather(parts), 1, None, tmp_path, show_progress_bar=False)

    for one in mined.training:
        known = {document.content for document in parts[one.name].corpus or ()}
        assert set(one.rows["negative_1"]) <= known


def test_several_processes_do_not_mine(
    tiny_dataset: hs.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidArgumentError, match=r"Several processes cannot mine one set of negatives. Run"):
        mine(gather(tiny_dataset), 1, None, tmp_path / "negatives")


def test_a_part_of_judged_queries_keeps_its_corpus_and_its_test_set(data_folder: Path) -> None:
    sources = gather([Part(str(data_folder / "scifact"), {"limit": 50, "loss": "cached-mnr"})])

    assert sources.training[0].loss == "cached-mnr"
    assert 40 < len(sources.training[0]) <= 50
    assert sources.test is not None
    assert sources.corpora[0] is not None


def test_a_corpus_that_can_be_read_once_is_read_as_often_as_needed(tiny_corpus: list[hs.Document]) -> None:
    rows = [{"question": f"What is number {number}?", "answer": f"It is {number}."} for number in range(200)]

    sources = gather(rows, corpus=iter(tiny_corpus))

    assert list(sources.corpora[0] or ()) == tiny_corpus
    assert len(list(sources.test.corpus or ()) if sources.test else ()) == 240


def test_rows_that_are_held_out_keep_the_ids_of_their_documents() -> None:
    numbers = [str(number) for number in range(200)]
    columns = {"anchor": [f"What is {one}?" for one in numbers], "positive": [f"It is {one}." for one in numbers]}
    ids = {"document_id": [f"d{one}" for one in numbers]}

    sources = gather(TrainingData.from_columns(Kind.PAIRS, columns, ids=ids))

    assert sources.test is not None
    found = {document.id: document.text for document in sources.test.corpus or ()}
    assert found == {f"d{one}": f"It is {one}." for one in numbers}


def test_no_data_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no data to train on"):
        gather([])


def test_a_damaged_split_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    for name, key in (("corpus", "_id"), ("queries", "_id")):
        lines = (json.dumps({key: str(number), "text": f"{name} {number}"}) for number in range(20))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    head = "query-id\tcorpus-id\tscore\n"
    (tmp_path / "qrels/train.tsv").write_text(head + "".join(f"{number}\t{number}\t1\n" for number in range(15)))
    assert gather(tmp_path).dev is not None
    (tmp_path / "qrels/dev.tsv").write_text(head + "16\t16\tgood\n")
    with pytest.raises(InvalidArgumentError, match=r"dev\.tsv"):
        gather(tmp_path)


def test_a_corpus_may_be_a_table_or_mappings() -> None:
    rows = [{"anchor": "What is drag?", "positive": "A force."}]
    records = [{"id": "1", "text": "one"}, {"id": "2", "text": "two"}]
    for corpus in (records, iter(records), pa.Table.from_pylist(records)):
        sources = gather(rows, corpus=corpus)  # type: ignore[arg-type]
        assert list(searched_texts(sources)) == list(searched_texts(sources)) == ["one", "two"]
