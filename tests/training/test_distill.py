"""Tests of scores of teachers, compared with sentence-transformers and with searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.distill import add_teacher_scores
from hybridsearch.training.negatives.mining import mine_hard_negatives

pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")


@pytest.fixture(scope="module")
def tuples(tiny_pairs: list[dict[str, str]]) -> TrainingData:
    """Each question with its answer and the answers to the next two."""
    answers = [pair["positive"] for pair in tiny_pairs]
    columns = {
        "anchor": [pair["anchor"] for pair in tiny_pairs],
        "positive": answers,
        "negative_1": [*answers[1:], *answers[:1]],
        "negative_2": [*answers[2:], *answers[:2]],
    }
    return TrainingData.from_columns(Kind.TUPLES, columns)


@pytest.fixture(scope="module")
def search(tiny_dense: Path, tiny_corpus: list[hs.Document]) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(tiny_dense, cache=False)})
    search.index(tiny_corpus, show_progress_bar=False)
    return search


def texts_of(data: TrainingData) -> list[list[str]]:
    """The texts of each row without the query."""
    return [[row[column] for column in data.inputs[1:]] for row in data.rows]


def test_a_cross_encoder_scores_as_its_own_predict(tuples: TrainingData, tiny_reranker: Path) -> None:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(tiny_reranker), device="cpu")
    pairs = [(row["anchor"], text) for row, texts in zip(tuples.rows, texts_of(tuples), strict=True) for text in texts]
    expected = model.predict(pairs, show_progress_bar=False).reshape(len(tuples), 3)
    for teacher in (model, tiny_reranker, hs.CrossEncoderReranker(tiny_reranker)):
        scored = add_teacher_scores(tuples, teacher, batch_size=7)
        assert scored.kind is Kind.SCORED_TUPLES
        np.testing.assert_allclose(scored.rows["label"], expected, atol=1e-6)


def test_a_dense_model_scores_by_cosine(tuples: TrainingData, tiny_dense: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import pairwise_cos_sim

    model = SentenceTransformer(str(tiny_dense), device="cpu")
    queries = model.encode_query(tuples.rows["anchor"][:], show_progress_bar=False)
    expected = np.stack(
        [
            pairwise_cos_sim(queries, model.encode_document(tuples.rows[column][:], show_progress_bar=False)).numpy()
            for column in tuples.inputs[1:]
        ],
        axis=1,
    )
    for teacher in (model, tiny_dense, hs.Dense(tiny_dense, cache=False)):
        np.testing.assert_allclose(add_teacher_scores(tuples, teacher).rows["label"], expected, atol=1e-5)


def test_a_sparse_model_scores_by_its_own_similarity(tuples: TrainingData, tiny_splade: Path) -> None:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(tiny_splade), device="cpu")
    queries = model.encode_query(tuples.rows["anchor"][:], show_progress_bar=False)
    expected = np.stack(
        [
            model.similarity_pairwise(
                queries, model.encode_document(tuples.rows[column][:], show_progress_bar=False)
            ).numpy()
            for column in tuples.inputs[1:]
        ],
        axis=1,
    )
    for teacher in (model, hs.Sparse(tiny_splade, cache=False)):
        np.testing.assert_allclose(add_teacher_scores(tuples, teacher).rows["label"], expected, rtol=1e-4)


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(tuples: TrainingData, tiny_dense: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
    from sentence_transformers.util import pairwise_cos_sim

    model = SentenceTransformer(str(tiny_dense), device="cpu").eval()
    scored = add_teacher_scores(tuples, hs.Dense(tiny_dense, cache=False))
    features = [model.preprocess(scored.rows[column][:8]) for column in scored.inputs]
    labels = torch.tensor(scored.rows["label"][:8])
    for loss in (MarginMSELoss, DistillKLDivLoss):
        with torch.no_grad():
            assert loss(model, similarity_fct=pairwise_cos_sim)(features, labels).item() == pytest.approx(0, abs=1e-6)


def test_a_fused_search_teaches_its_fused_scores(search: hs.HybridSearch, tiny_dataset: hs.Dataset) -> None:
    mined = mine_hard_negatives(tiny_dataset, search, per_query=2, ranks=(3, 12), output_format="n-tuples")
    scored = add_teacher_scores(mined.data, search)
    for row, place in zip(scored.rows, mined.provenance, strict=True):
        assert row["label"] == pytest.approx([place["positive_score"], *place["score"]])


def test_an_index_without_the_documents_of_the_rows_is_no_teacher(
    search: hs.HybridSearch, tiny_dataset: hs.Dataset, tiny_corpus: list[hs.Document]
) -> None:
    mined = mine_hard_negatives(tiny_dataset, search, per_query=2, ranks=(3, 12), output_format="n-tuples")
    with hs.HybridSearch({"bm25": hs.BM25()}) as renamed:
        renamed.index([replace(document, id=f"other-{document.id}") for document in tiny_corpus])
        with pytest.raises(InvalidArgumentError, match="has none of the documents of these rows"):
            add_teacher_scores(mined.data, renamed)


def test_a_search_knows_a_text_without_its_id(search: hs.HybridSearch, tuples: TrainingData) -> None:
    scored = add_teacher_scores(tuples, hs.Pipeline(search, fusion=hs.ScoreFusion("minmax")))
    for row, texts in zip(scored.rows, texts_of(tuples), strict=True):
        hits = search.search(row["anchor"], 100, fusion=hs.ScoreFusion("minmax"))
        by_text = {hit.document.text: hit.score for hit in hits}
        assert row["label"] == pytest.approx([by_text.get(text, 0.0) for text in texts])


def test_a_pipeline_with_a_reranker_teaches_its_scores(
    search: hs.HybridSearch, tuples: TrainingData, tiny_reranker: Path
) -> None:
    reranker = hs.CrossEncoderReranker(tiny_reranker)
    by_pipeline = add_teacher_scores(tuples, hs.Pipeline(search, reranker=reranker))
    assert by_pipeline.rows["label"][:] == add_teacher_scores(tuples, reranker).rows["label"][:]


def test_pairs_get_one_score_and_lists_a_list_of_them(tuples: TrainingData, tiny_reranker: Path) -> None:
    tuple_scores = add_teacher_scores(tuples, tiny_reranker).rows["label"][:]
    pairs = TrainingData("pairs", tuples.rows.select_columns(["anchor", "positive"]), Kind.PAIRS)
    scored = add_teacher_scores(pairs, tiny_reranker)
    assert scored.kind is Kind.SCORED
    np.testing.assert_allclose(scored.rows["label"], [first for first, *_ in tuple_scores], atol=1e-6)

    columns = {
        "query": tuples.rows["anchor"][:],
        "docs": texts_of(tuples),
        "labels": [[1.0, 0.0, 0.0]] * len(tuples),
    }
    lists = add_teacher_scores(TrainingData.from_columns(Kind.LISTS, columns), tiny_reranker)
    assert lists.kind is Kind.LISTS
    np.testing.assert_allclose(lists.rows["labels"], tuple_scores, atol=1e-6)


def test_scores_can_be_scaled(tuples: TrainingData, tiny_reranker: Path) -> None:
    plain, scaled = (add_teacher_scores(tuples, tiny_reranker, scale=scale).rows["label"] for scale in (1, 20))
    np.testing.assert_allclose(scaled, 20 * np.array(plain), rtol=1e-6)


def test_labels_that_were_there_are_replaced_and_ids_are_kept(tuples: TrainingData, tiny_reranker: Path) -> None:
    columns = {**tuples.rows.to_dict(), "label": [[9.0, 9.0, 9.0]] * len(tuples)}
    ids = {"query_id": [str(number) for number in range(len(tuples))]}
    data = TrainingData.from_columns(Kind.SCORED_TUPLES, columns, ids=ids)
    scored = add_teacher_scores(data, tiny_reranker)
    assert scored.rows["label"][:] == add_teacher_scores(tuples, tiny_reranker).rows["label"][:]
    assert scored.ids is not None
    assert scored.ids["query_id"][:] == ids["query_id"]


def test_a_loss_of_the_kind_before_is_forgotten(tuples: TrainingData, tiny_reranker: Path) -> None:
    assert add_teacher_scores(replace(tuples, loss="mnr"), tiny_reranker).loss is None


def test_a_score_that_is_no_number_is_an_error(tuples: TrainingData) -> None:
    class Broken:
        top_k = 10

        def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]) -> list[NDArray[Any]]:
            return [np.full(len(of_query), np.nan) for of_query in documents]

        def to_json(self) -> None:
            return None

    with pytest.raises(EncodingError, match="NaN"):
        add_teacher_scores(tuples, Broken())


def test_what_cannot_teach_is_refused(tuples: TrainingData) -> None:
    with pytest.raises(InvalidArgumentError, match="Give an index as the teacher"):
        add_teacher_scores(tuples, hs.BM25())
    with pytest.raises(InvalidArgumentError, match=r"The teacher is .* Give a cross-encoder"):
        add_teacher_scores(tuples, 3)  # type: ignore[arg-type]
    runs = {"bm25": {"q": hs.Ranking.from_scores({"a": 1.0})}}
    with pytest.raises(InvalidArgumentError, match="reads saved runs"):
        add_teacher_scores(tuples, hs.Pipeline(runs))


def test_what_cannot_be_scored_is_refused(tiny_reranker: Path) -> None:
    data = TrainingData.from_columns(Kind.TEXTS, {"text": ["wing"]})
    with pytest.raises(InvalidArgumentError, match="pairs, tuples and lists"):
        add_teacher_scores(data, tiny_reranker)


@pytest.mark.parametrize("options", [{"scale": 0}, {"scale": float("nan")}, {"batch_size": 0}])
def test_an_argument_that_is_not_usable_is_refused(
    options: dict[str, Any], tuples: TrainingData, tiny_reranker: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        add_teacher_scores(tuples, tiny_reranker, **options)
