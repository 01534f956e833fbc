"""Tests of training data that are made from documents only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, read_training_data
from hybridsearch.training.dense import train_dense
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.unlabelled.unsupervised import Unsupervised, unsupervised_data

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def long_corpus(tiny_corpus: list[hs.Document]) -> list[hs.Document]:
    """Documents of several sentences. Each has its text and the texts of the first nine documents."""
    return [
        hs.Document(one.id, " ".join([one.text, *(other.text for other in tiny_corpus[:9])]), one.title)
        for one in tiny_corpus
    ]


@pytest.fixture(scope="module")
def made(long_corpus: list[hs.Document], tiny_dense: Path) -> Unsupervised:
    return unsupervised_data(long_corpus, str(tiny_dense), "dense", show_progress_bar=False)


def test_rows_have_a_negative_that_is_not_the_answer(made: Unsupervised) -> None:
    assert made.data.kind is Kind.TUPLES
    assert made.summary is not None
    assert len(made.data) == made.summary.rows > 50
    assert all(row["positive"] != row["negative_1"] for row in made.data.rows)


def test_documents_that_are_held_out_are_not_trained_on(made: Unsupervised) -> None:
    assert made.data.ids is not None
    held = {id for part in (made.dev, made.test) for of_query in part.qrels.values() for id in of_query}
    assert len(held) == 8
    assert not held & set(made.data.ids["document_id"])


def test_a_held_out_query_is_no_copy_of_what_it_is_to_find(made: Unsupervised, long_corpus: list[hs.Document]) -> None:
    whole = {document.id: document.content for document in long_corpus}
    for part in (made.dev, made.test):
        found = {document.id: document.content for document in part.corpus or ()}
        assert found.keys() == whole.keys()
        assert all(found[id].count(text) < whole[id].count(text) for id, text in part.queries.items())


def test_the_same_seed_makes_the_same(made: Unsupervised, long_corpus: list[hs.Document], tiny_dense: Path) -> None:
    again = unsupervised_data(long_corpus, str(tiny_dense), "dense", show_progress_bar=False)
    other = unsupervised_data(long_corpus, str(tiny_dense), "dense", seed=1, show_progress_bar=False)
    assert again.data.rows.to_list() == made.data.rows.to_list()
    assert again.dev.queries == made.dev.queries != other.dev.queries


def test_what_was_made_is_said_and_kept(long_corpus: list[hs.Document], tiny_dense: Path, tmp_path: Path) -> None:
    made = unsupervised_data(long_corpus, tiny_dense, "dense", output=tmp_path / "made", show_progress_bar=False)
    assert made.data.notes[0] == 'title queries: 40, such as "Lift"'
    assert made.summary is not None
    assert made.data.notes[-1] == f"mined {made.summary.title}"
    assert read_training_data(tmp_path / "made").rows.to_list() == made.data.rows.to_list()


def test_the_hybrid_grades_other_documents_than_the_one_of_the_query(
    long_corpus: list[hs.Document], tiny_dense: Path
) -> None:
    made = unsupervised_data(
        long_corpus, str(tiny_dense), "dense", teacher="hybrid", hard_negatives=3, show_progress_bar=False
    )
    assert made.data.kind is Kind.SCORED_TUPLES
    assert made.data.notes[0].startswith("sentence queries: ")
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(tiny_dense)}, fusion=hs.ScoreFusion("minmax")) as search:
        search.index(long_corpus, show_progress_bar=False)
        for row in list(made.data.rows)[:10]:
            texts = [row["positive"], *(row[f"negative_{number}"] for number in (1, 2, 3))]
            found = [hit.document.content for hit in search.search(row["anchor"], 40)]
            places = [found.index(text) for text in texts]
            assert places[:2] in ([0, 1], [0, 2], [1, 2])  # one of the first three is the query's own
            assert row["label"][0] == pytest.approx(0.4)
            by_rank = [score for _, score in sorted(zip(places, row["label"], strict=True))]
            assert by_rank == sorted(by_rank, reverse=True)
            assert len(set(texts)) == 4


def test_too_few_documents_cannot_be_graded(long_corpus: list[hs.Document], tiny_dense: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No query found 25 documents that can be graded"):
        unsupervised_data(
            long_corpus[:12], str(tiny_dense), "dense", teacher="hybrid", hard_negatives=24, show_progress_bar=False
        )


def test_a_generator_and_a_cross_encoder_make_the_margins_of_gpl(
    long_corpus: list[hs.Document], tiny_dense: Path, tiny_reranker: Path, tmp_path: Path
) -> None:
    def ask(texts: Sequence[str]) -> list[list[str]]:
        return [[f"What is {text.split()[0]}?", f"Tell me about {text.split()[0]}."] for text in texts]

    made = unsupervised_data(
        long_corpus, str(tiny_dense), "dense", kinds=["generated"], generator=ask, teacher=tiny_reranker,
        ranks=(1, 30), show_progress_bar=False,
    )  # fmt: skip

    assert made.data.kind is Kind.SCORED_TUPLES
    assert len(made.data) == 64  # two questions about each of 32 documents
    texts = {one.content for one in long_corpus}
    assert all(row["positive"] in texts and row["anchor"][:4] in ("What", "Tell") for row in made.data.rows)
    scores = hs.CrossEncoderReranker(tiny_reranker)
    row = made.data.rows[0]
    documents = [hs.Document("p", row["positive"]), hs.Document("n", row["negative_1"])]
    assert row["label"] == pytest.approx(scores.rerank([row["anchor"]], [documents])[0].tolist(), abs=1e-5)
    settings = TrainingSettings(max_steps=1, batch_size=8)
    result = train_dense(tiny_dense, made.data, tmp_path / "out", loss="margin-mse", dev=made.dev, settings=settings)
    assert "margin-mse for 'pseudo-queries' (tuples with scores)" in result.summary


def test_the_texts_themselves_are_trained_on_without_those_that_are_held_out(
    long_corpus: list[hs.Document], tiny_dense: Path
) -> None:
    made = unsupervised_data(long_corpus, tiny_dense, "dense", texts=True, limit=20, show_progress_bar=False)
    assert (made.data.kind, len(made.data), made.summary) == (Kind.TEXTS, 20, None)
    held = {id for part in (made.dev, made.test) for id in part.queries}
    allowed = {one.content for one in long_corpus if one.id not in held}
    assert len(allowed) == 32
    assert set(made.data.rows["text"]) <= allowed


@pytest.mark.parametrize(("kind", "rows"), [("sparse", Kind.TUPLES), ("reranker", Kind.LABELLED)])
def test_each_kind_of_model_gets_rows_that_train_it(
    kind: Any, rows: Kind, long_corpus: list[hs.Document], tiny_splade: Path
) -> None:
    made = unsupervised_data(long_corpus, str(tiny_splade), kind, per_document=1, show_progress_bar=False)
    assert made.data.kind is rows


def test_a_late_interaction_model_gets_negatives_of_the_dense_model_that_it_starts_from(
    long_corpus: list[hs.Document], tiny_dense: Path, tiny_late: Path
) -> None:
    options: dict[str, Any] = {"per_document": 1, "hard_negatives": 2, "show_progress_bar": False}
    for model, searched in ((tiny_dense, {"bm25", "dense"}), (tiny_late, {"bm25"})):
        made = unsupervised_data(long_corpus, model, "late-interaction", **options)
        assert made.data.kind is Kind.TUPLES
        assert made.summary is not None
        assert {name for listed in made.summary.kept_by for name in listed.split("+")} == searched


def test_a_few_documents_are_too_few(tiny_corpus: list[hs.Document], tiny_dense: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="too few to train"):
        unsupervised_data(tiny_corpus[:5], str(tiny_dense), "dense", show_progress_bar=False)


def test_several_processes_are_refused(
    tiny_corpus: list[hs.Document], tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidArgumentError, match=r"Several processes cannot make one set of pseudo-queries. Run"):
        unsupervised_data(tiny_corpus, str(tiny_dense), "dense", output=tmp_path / "made", show_progress_bar=False)
    assert not (tmp_path / "made").exists()


def test_a_query_that_is_held_out_is_not_trained_on_for_another_document(tiny_reranker: Path) -> None:
    documents = [
        {"id": str(number), "text": f"The text of document {number}.", "title": f"Part {number % 12}"}
        for number in range(40)
    ]
    for corpus in (documents, iter(documents), pa.Table.from_pylist(documents)):
        made = unsupervised_data(corpus, str(tiny_reranker), "reranker", kinds=["title"], show_progress_bar=False)
        held = {*made.dev.queries.values(), *made.test.queries.values()}
        assert held
        assert held.isdisjoint(made.data.rows["anchor"])
        assert len(list(made.dev.corpus or ())) == 40
