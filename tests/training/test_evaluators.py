"""Tests of evaluators that are given by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

import hybridsearch as hs
from hybridsearch.errors import DatasetNotFoundError, InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.measure.evaluators import build_evaluator, retrieval_evaluator, sts_suite
from hybridsearch.training.measure.measuring import digest_of
from hybridsearch.training.settings import TrainingSettings

datasets: Any = pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")
st: Any = pytest.importorskip("sentence_transformers")


def data(kind: Kind, **columns: list[Any]) -> TrainingData:
    return TrainingData("dev", datasets.Dataset.from_dict(columns), kind)


@pytest.fixture(scope="module")
def texts(tiny_pairs: list[dict[str, str]]) -> dict[str, list[str]]:
    """Columns with a row for each pair. The negative of a row is the positive of the row before."""
    positives = [pair["positive"] for pair in tiny_pairs]
    return {
        "anchor": [pair["anchor"] for pair in tiny_pairs],
        "positive": positives,
        "negative_1": [positives[-1], *positives[:-1]],
    }


@pytest.fixture(scope="module")
def model(tiny_dense: Path) -> Any:
    return st.SentenceTransformer(str(tiny_dense), device="cpu")


@pytest.fixture(scope="module")
def splade_model(tiny_splade: Path) -> Any:
    return st.SparseEncoder(str(tiny_splade), device="cpu")


@pytest.fixture(scope="module")
def cross_encoder(tiny_reranker: Path) -> Any:
    return st.CrossEncoder(str(tiny_reranker), device="cpu")


def measured(model: Any, dataset: hs.Dataset, *measures: str) -> dict[str, float]:
    """The values that hybridsearch measures if it searches with the model."""
    encoder = hs.Dense(model) if type(model) is st.SentenceTransformer else hs.Sparse(model)
    search = hs.HybridSearch({"model": encoder})
    search.index(dataset.corpus or (), show_progress_bar=False)
    result = hs.evaluate(search, dataset, measures=measures, latency_queries=0, show_progress_bar=False)
    return {name: interval.mean for name, interval in result.means.items()}


def test_retrieval_with_a_dense_model_measures_what_searching_does(model: Any, tiny_dataset: hs.Dataset) -> None:
    found = retrieval_evaluator(tiny_dataset, "dense")(model)
    searched = measured(model, tiny_dataset, "nDCG@10", "RR@10")
    assert found["tiny nDCG@10"] == pytest.approx(searched["nDCG@10"], abs=1e-6)
    assert found["tiny RR@10"] == pytest.approx(searched["RR@10"], abs=1e-6)


def test_retrieval_with_a_sparse_model_counts_active_dimensions(splade_model: Any, tiny_dataset: hs.Dataset) -> None:
    found = retrieval_evaluator(tiny_dataset, "sparse")(splade_model)
    documents = splade_model.encode_document([document.content for document in tiny_dataset.corpus or ()])
    queries = splade_model.encode_query(list(tiny_dataset.queries.values()))
    assert found["tiny document_active_dims"] == pytest.approx(splade_model.sparsity(documents)["active_dims"])
    assert found["tiny query_active_dims"] == pytest.approx(splade_model.sparsity(queries)["active_dims"])
    flops = (queries.to_dense() != 0).float().mean(0) @ (documents.to_dense() != 0).float().mean(0)
    assert found["tiny flops"] == pytest.approx(float(flops), rel=1e-4)


def test_the_measure_of_the_settings_decides(model: Any, tiny_dataset: hs.Dataset) -> None:
    evaluator = retrieval_evaluator(tiny_dataset, "dense", TrainingSettings(measure="R@5"))
    assert evaluator.primary_metric == "sequential_score"
    found = evaluator(model)
    assert found["sequential_score"] == found["tiny R@5"]
    assert found["tiny R@5"] == pytest.approx(measured(model, tiny_dataset, "R@5")["R@5"])


def test_a_measure_that_cannot_be_followed_is_refused(tiny_dataset: hs.Dataset) -> None:
    with pytest.raises(InvalidArgumentError, match="nDCG@K, RR@K with a number"):
        retrieval_evaluator(tiny_dataset, "reranker", TrainingSettings(measure="R@10"))
    with pytest.raises(InvalidArgumentError, match="The measure is AP"):
        retrieval_evaluator(tiny_dataset, "dense", TrainingSettings(measure="AP"))


def test_a_large_corpus_is_cut_to_relevant_documents_and_what_bm25_finds(tiny_dataset: hs.Dataset) -> None:
    few = hs.Dataset("few", {"q": "lift and drag of a wing"}, {"q": {"sky-1": 1}}, tiny_dataset.corpus)
    searched = retrieval_evaluator(few, "dense", documents=6).evaluators[0].inner.corpus_ids
    assert len(searched) == 6
    assert "sky-1" in searched
    assert sum(id.startswith("wing") for id in searched) == 5


def test_a_dataset_without_corpus_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="has no documents"):
        retrieval_evaluator(hs.Dataset("runs", {"q": "wing"}, {"q": {"d": 1}}), "dense")


def test_a_corpus_without_the_relevant_documents_is_refused(tiny_corpus: list[hs.Document]) -> None:
    with pytest.raises(InvalidArgumentError, match="none of the documents that are judged relevant"):
        retrieval_evaluator(hs.Dataset("other", {"q": "wing"}, {"q": {"elsewhere": 1}}, tiny_corpus), "dense")


def test_a_reranker_is_measured_on_what_retrieval_found(cross_encoder: Any, tiny_corpus: list[hs.Document]) -> None:
    queries = {"lift": "lift of a wing", "sun": "moon and sun", "milk": "heart and blood"}
    dataset = hs.Dataset(
        "hard", queries, {"lift": {"wing-0": 1}, "sun": {"sky-2": 1}, "milk": {"garden-0": 1}}, tiny_corpus
    )
    found = retrieval_evaluator(dataset, "reranker")(cross_encoder)
    search = hs.HybridSearch({"bm25": hs.BM25()}, reranker=hs.CrossEncoderReranker(cross_encoder))
    search.index(tiny_corpus, show_progress_bar=False)
    searched = hs.evaluate(search, dataset, measures=["nDCG@10"], latency_queries=0, show_progress_bar=False)
    assert found["hard nDCG@10"] == pytest.approx(searched.means["nDCG@10"].mean, abs=1e-6)


def test_a_reranker_is_measured_where_nothing_was_found(cross_encoder: Any, tiny_corpus: list[hs.Document]) -> None:
    dataset = hs.Dataset("none", {"q": "zeppelin"}, {"q": {"wing-0": 1}}, tiny_corpus)
    assert retrieval_evaluator(dataset, "reranker")(cross_encoder)["none nDCG@10"] == 0


@pytest.mark.parametrize("kind", ["dense", "sparse", "reranker"])
def test_similarity_is_spearman_of_the_models_scores(
    kind: Any, model: Any, splade_model: Any, cross_encoder: Any, texts: dict[str, list[str]]
) -> None:
    scores = list(np.linspace(0, 1, 40))
    rows = data(Kind.SCORED, anchor=texts["anchor"], positive=texts["positive"], label=scores)
    chosen = {"dense": model, "sparse": splade_model, "reranker": cross_encoder}[kind]
    if kind == "reranker":
        predicted = chosen.predict(list(zip(texts["anchor"], texts["positive"], strict=True)))
    else:
        one, other = chosen.encode(texts["anchor"]), chosen.encode(texts["positive"])
        predicted = chosen.similarity_pairwise(one, other).tolist()
    found = build_evaluator({"type": "similarity", "data": rows}, kind)(chosen)
    assert found["dev Spearman"] == pytest.approx(spearmanr(scores, predicted).statistic, abs=1e-4)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_triplets_count_positives_nearer_than_negatives(
    kind: Any, model: Any, splade_model: Any, texts: dict[str, list[str]]
) -> None:
    chosen = model if kind == "dense" else splade_model
    found = build_evaluator({"type": "triplet", "data": data(Kind.TUPLES, **texts)}, kind)(chosen)
    anchor, positive, negative = (chosen.encode(texts[column]) for column in texts)
    nearer = chosen.similarity_pairwise(anchor, positive) > chosen.similarity_pairwise(anchor, negative)
    assert found["dev accuracy"] == pytest.approx(float(nearer.float().mean()))


def test_triplets_count_each_negative_of_a_row(model: Any, texts: dict[str, list[str]]) -> None:
    positives = texts["positive"]
    negatives = {f"negative_{number}": [*positives[number:], *positives[:number]] for number in (1, 2, 3)}
    rows = {"anchor": texts["anchor"], "positive": positives, **negatives}
    found = build_evaluator({"type": "triplet", "data": data(Kind.TUPLES, **rows)}, "dense")(model)
    anchor, positive, *others = (model.encode(column) for column in rows.values())
    near = model.similarity_pairwise(anchor, positive)
    nearer = [float((near > model.similarity_pairwise(anchor, other)).float().mean()) for other in others]
    assert len(set(nearer)) > 1
    assert found["dev accuracy"] == pytest.approx(float(np.mean(nearer)))


@pytest.mark.parametrize("kind", ["dense", "sparse", "reranker"])
def test_binary_and_reranking_are_there_for_each_kind_of_model(
    kind: Any, model: Any, splade_model: Any, cross_encoder: Any, texts: dict[str, list[str]]
) -> None:
    labelled = data(Kind.LABELLED, anchor=texts["anchor"], positive=texts["positive"], label=[0, 1] * 20)
    lists = data(
        Kind.LISTS,
        query=texts["anchor"],
        docs=[list(pair) for pair in zip(texts["negative_1"], texts["positive"], strict=True)],
        labels=[[0.0, 1.0]] * 40,
    )
    specs = [{"type": "reranking", "data": lists}, {"type": "binary", "data": labelled, "name": "pairs"}]
    found = build_evaluator(specs, kind)({"dense": model, "sparse": splade_model, "reranker": cross_encoder}[kind])
    assert 0.5 <= found["dev nDCG@10"] <= 1
    assert 0 <= found["pairs accuracy"] <= 1


def test_two_evaluators_cannot_have_the_same_name(texts: dict[str, list[str]]) -> None:
    spec = {"type": "triplet", "data": data(Kind.TUPLES, **texts)}
    with pytest.raises(InvalidArgumentError, match="Two evaluators give the figure 'dev accuracy'"):
        build_evaluator([spec, spec], "dense")


def test_a_figure_that_is_not_the_first_of_its_evaluator_is_not_replaced(texts: dict[str, list[str]]) -> None:
    labelled = data(Kind.LABELLED, anchor=texts["anchor"], positive=texts["positive"], label=[0, 1] * 20)
    specs = [{"type": "binary", "data": labelled}, {"type": "triplet", "data": data(Kind.TUPLES, **texts)}]
    with pytest.raises(InvalidArgumentError, match="Two evaluators give the figure 'dev accuracy'"):
        build_evaluator(specs, "dense")


def test_two_sts_suites_would_have_the_same_figures(tmp_path: Path) -> None:
    (tmp_path / "stsb.csv").write_text("sentence1,sentence2,score\na,b,1\na,c,5\n")
    with pytest.raises(InvalidArgumentError, match="Two evaluators give the figure 'mean Spearman'"):
        build_evaluator([f"sts={tmp_path}", f"sts={tmp_path}"], "dense")


@pytest.mark.parametrize(
    ("type_", "kind", "columns", "message"),
    [
        ("similarity", Kind.SCORED, {"label": [0.5, 0.5]}, "All pairs of 'dev' have the label 0.5"),
        ("binary", Kind.LABELLED, {"label": [1, 1]}, "All pairs of 'dev' have the label 1"),
        ("reranking", Kind.LISTS, {"labels": [[2.0, 1.0], [0.5, 1.0]]}, "No query of 'dev' has both"),
    ],
)
def test_data_that_cannot_measure_a_model_are_refused(
    type_: str, kind: Kind, columns: dict[str, list[Any]], message: str
) -> None:
    texts: dict[str, list[Any]] = {"anchor": ["a", "b"], "positive": ["c", "d"]}
    if kind is Kind.LISTS:
        texts = {"query": ["a", "b"], "docs": [["c", "d"], ["e", "f"]]}
    with pytest.raises(InvalidArgumentError, match=message):
        build_evaluator({"type": type_, "data": data(kind, **texts, **columns)}, "dense")


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_model_that_gives_all_pairs_the_same_score_has_no_correlation(model: Any) -> None:
    rows = data(Kind.SCORED, anchor=["a", "a"], positive=["b", "b"], label=[0.0, 1.0])
    found = build_evaluator({"type": "similarity", "data": rows}, "dense")(model)
    assert found == {"dev Spearman": 0, "dev Pearson": 0, "sequential_score": 0}


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"type": "retrieval", "limit": 5}, "limit"),
        ({"type": "nanobeir", "split": "train"}, "split"),
        ({"type": "sts", "name": "mine"}, "name"),
        ({"type": "similarity", "teacher": "a/model"}, "teacher"),
        ({"type": "triplet", "documents": 10}, "documents"),
    ],
)
def test_keys_that_a_type_would_ignore_are_refused(spec: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"The evaluator '{spec['type']}' has no key '{key}'. Its keys are"):
        build_evaluator({"data": "data", **spec}, "dense")


def test_an_evaluator_has_the_name_that_was_given(
    model: Any, tiny_dataset: hs.Dataset, texts: dict[str, list[str]]
) -> None:
    triplets = {"type": "triplet", "data": data(Kind.TUPLES, **texts)}
    specs = [triplets, {**triplets, "name": "again"}, {"type": "retrieval", "data": tiny_dataset, "name": "asked"}]
    assert {"dev accuracy", "again accuracy", "asked nDCG@10"} <= build_evaluator(specs, "dense")(model).keys()


def test_samples_of_a_query_are_put_together(texts: dict[str, list[str]]) -> None:
    rows = data(Kind.TUPLES, anchor=["a", "a"], positive=["one", "two"], negative_1=["two", "three"])
    evaluator = build_evaluator({"type": "reranking", "data": rows}, "reranker")
    assert evaluator.evaluators[0].inner.samples == [{"query": "a", "positive": ["one", "two"], "negative": ["three"]}]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_model_is_as_far_from_the_teacher_as_their_vectors_are(
    kind: Any, model: Any, splade_model: Any, tiny_dense: Path, tiny_splade: Path, texts: dict[str, list[str]]
) -> None:
    chosen, folder = (model, tiny_dense) if kind == "dense" else (splade_model, tiny_splade)
    rows = {
        "same": data(Kind.TEXTS, text=texts["positive"]),
        "moved": data(Kind.PAIRS, anchor=texts["positive"], positive=texts["negative_1"]),
    }
    specs = [{"type": "mse", "data": of, "name": name, "teacher": str(folder)} for name, of in rows.items()]
    found = build_evaluator(specs, kind)(chosen)
    vectors = [
        np.asarray(one.to_dense() if kind == "sparse" else one)
        for one in map(chosen.encode, (texts["positive"], texts["negative_1"]))
    ]
    assert found["same negative MSE"] == pytest.approx(0, abs=1e-6)
    assert found["moved negative MSE"] == pytest.approx(-100 * ((vectors[0] - vectors[1]) ** 2).mean(), rel=1e-3)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_teacher_with_other_dimensions_is_refused(
    kind: Any, model: Any, splade_model: Any, texts: dict[str, list[str]]
) -> None:
    class Teacher:
        def encode(self, sentences: list[str], **_: Any) -> Any:
            return np.zeros((len(sentences), 7), dtype=np.float32)

        def sparsity(self, embeddings: Any) -> dict[str, float]:
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}

    spec = {"type": "mse", "data": data(Kind.TEXTS, text=texts["positive"]), "teacher": Teacher()}
    chosen = model if kind == "dense" else splade_model
    with pytest.raises(InvalidArgumentError, match="have 7 dimensions, but the embeddings of the model have"):
        build_evaluator(spec, kind)(chosen)


def test_the_digest_of_an_evaluator_changes_with_its_data(
    texts: dict[str, list[str]], tiny_dense: Path, minilm: str, tmp_path: Path
) -> None:
    file = tmp_path / "dev.csv"
    header = "anchor,positive,score\n"
    digests = []
    for score in ("0.5", "0.6", "0.5"):
        file.write_text(f"{header}lift,a force,{score}\nbread,of rye,1\n")
        digests.append(digest_of(build_evaluator(f"similarity={file}", "dense")))
    assert digests[0] == digests[2] != digests[1]

    rows = data(Kind.TEXTS, text=texts["positive"])
    teachers = [str(tiny_dense), st.SentenceTransformer(minilm, device="cpu")]
    of_teachers = {
        digest_of(build_evaluator({"type": "mse", "data": rows, "teacher": one}, "dense")) for one in teachers
    }
    assert len(of_teachers) == 2

    own = st.sentence_transformer.evaluation.RerankingEvaluator(
        [{"query": "q", "positive": ["a"], "negative": ["b"]}], name="own"
    )
    before = digest_of(build_evaluator(own, "dense"))
    own(st.SentenceTransformer(str(tiny_dense), device="cpu"))
    assert digest_of(build_evaluator(own, "dense")) == before


def test_a_text_is_its_own_translation(model: Any, texts: dict[str, list[str]]) -> None:
    rows = data(Kind.PAIRS, anchor=texts["positive"], positive=texts["positive"])
    assert build_evaluator({"type": "translation", "data": rows}, "dense")(model)["dev accuracy"] == 1


def test_paraphrases_are_mined(model: Any, texts: dict[str, list[str]]) -> None:
    rows = data(Kind.PAIRS, anchor=texts["positive"], positive=[f"{text} " + "Yes." for text in texts["positive"]])
    found = build_evaluator({"type": "paraphrase-mining", "data": rows}, "dense")(model)
    assert 0 < found["dev AP"] <= 1


def test_several_run_at_once_and_the_first_decides(
    model: Any, tiny_dataset: hs.Dataset, texts: dict[str, list[str]]
) -> None:
    specs = [{"type": "triplet", "data": data(Kind.TUPLES, **texts)}, {"type": "retrieval", "data": tiny_dataset}]
    found = build_evaluator(specs, "dense")(model)
    assert {"dev accuracy", "tiny nDCG@10"} <= found.keys()
    assert found["sequential_score"] == found["dev accuracy"]


def test_an_evaluator_of_sentence_transformers_is_taken_as_it_is(model: Any, texts: dict[str, list[str]]) -> None:
    theirs = st.sentence_transformer.evaluation.TripletEvaluator(*texts.values(), name="theirs")
    assert build_evaluator(theirs, "dense")(model)["theirs_cosine_accuracy"] == theirs(model)["theirs_cosine_accuracy"]


def test_data_of_another_kind_are_refused(texts: dict[str, list[str]]) -> None:
    rows = data(Kind.PAIRS, anchor=texts["anchor"], positive=texts["positive"])
    with pytest.raises(InvalidArgumentError, match="'triplet' needs tuples, but 'dev' holds pairs"):
        build_evaluator({"type": "triplet", "data": rows}, "dense")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rouge", "There is no evaluator 'rouge'. The evaluators are retrieval"),
        ("triplet", "needs data"),
        ({"type": "triplet", "file": "x"}, "has no key 'file'"),
        ({"type": "nanobeir", "data": "scifact,nonsense"}, "no set 'nonsense'"),
        (3, "The evaluator is 3"),
    ],
)
def test_a_wrong_spec_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        build_evaluator([spec], "dense")


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_nanobeir_is_read_from_a_copy(
    kind: Any,
    model: Any,
    splade_model: Any,
    tiny_dataset: hs.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = model if kind == "dense" else splade_model
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    copy = tmp_path / "copy"
    subsets = {
        "corpus": [{"_id": one.id, "text": one.content} for one in tiny_dataset.corpus or ()],
        "queries": [{"_id": id, "text": text} for id, text in tiny_dataset.queries.items()],
        "qrels": [{"query-id": query, "corpus-id": id} for query, of in tiny_dataset.qrels.items() for id in of],
    }
    for subset, rows in subsets.items():
        (copy / subset).mkdir(parents=True)
        for name in ("NanoMSMARCO", "NanoNQ"):
            pq.write_table(pa.Table.from_pylist(rows), copy / subset / f"{name}-00000-of-00001.parquet")
    (copy / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {subset}\n  data_files:\n"
            + "".join(f"  - split: {name}\n    path: {subset}/{name}-*\n" for name in ("NanoMSMARCO", "NanoNQ"))
            for subset in subsets
        )
        + "---\n"
    )
    found = build_evaluator({"type": "nanobeir", "data": "msmarco,nq", "dataset_id": str(copy)}, kind)(chosen)
    searched = measured(chosen, tiny_dataset, "nDCG@10")
    assert found["NanoBEIR_mean nDCG@10"] == pytest.approx(searched["nDCG@10"], abs=1e-6)


def test_nanobeir_out_of_reach_is_said() -> None:
    with pytest.raises(DatasetNotFoundError, match="Connect to the hub once"):
        build_evaluator({"type": "nanobeir", "data": "scifact", "dataset_id": "nobody/nothing"}, "dense")


def test_sts_takes_the_sets_that_are_in_the_folder(model: Any, data_folder: Path) -> None:
    found = sts_suite(data_folder, limit=50)(model)
    assert {"STS-B Spearman", "SICK-R Spearman"} <= found.keys()
    assert found["sequential_score"] == pytest.approx((found["STS-B Spearman"] + found["SICK-R Spearman"]) / 2)


def test_sts_sets_are_known_by_the_names_of_their_folders_and_files(
    model: Any, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    names = {"STS12": "STS12/test", "STS13": "sts-13/test", "STS14": "STS14", "STS15": "sts15", "STS16": "STS16-sts"}
    names |= {"STS17": "STS17", "BIOSSES": "biosses/test"}
    expected = {}
    for place, (name, path) in enumerate(names.items()):
        one, other = texts["anchor"][place : place + 9], texts["positive"][place : place + 9]
        file = tmp_path / f"{path}.csv"
        file.parent.mkdir(exist_ok=True)
        rows = [f'"{first}","{second}",{score}' for score, (first, second) in enumerate(zip(one, other, strict=True))]
        file.write_text("\n".join(["sentence1,sentence2,score", *rows]))
        similar = model.similarity_pairwise(model.encode(one), model.encode(other)).tolist()
        expected[f"{name} Spearman"] = spearmanr(range(9), similar).statistic
    found = sts_suite(tmp_path)(model)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert found["sequential_score"] == pytest.approx(sum(expected.values()) / 7, abs=1e-4)


def test_several_files_of_a_year_are_one_set(model: Any, texts: dict[str, list[str]], tmp_path: Path) -> None:
    rows = [
        f'"{first}","{second}",{score / 8}'
        for score, (first, second) in enumerate(zip(texts["anchor"], texts["positive"], strict=True))
    ]
    similar = model.similarity_pairwise(model.encode(texts["anchor"]), model.encode(texts["positive"])).tolist()
    (tmp_path / "STS13").mkdir()
    for name, some in {
        "STS12.MSRpar": rows[:20], "STS12.MSRvid": rows[20:], "STS12.train": rows[:5],
        "STS13/FNWN": rows[:9], "STS13/headlines": rows[9:],
        "STS14.test": rows, "STS14.train": rows[:5],
    }.items():  # fmt: skip
        (tmp_path / f"{name}.csv").write_text("\n".join(["sentence1,sentence2,score", *some]))
    found = sts_suite(tmp_path)(model)
    expected = spearmanr(range(len(rows)), similar).statistic
    for name in ("STS12", "STS13", "STS14"):
        assert found[f"{name} Spearman"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("type_", ["mse", "triplet", "translation", "paraphrase-mining"])
def test_an_evaluator_that_is_not_for_rerankers_says_so(type_: str) -> None:
    spec = {"type": type_, "data": [{"anchor": "a", "positive": "b"}]}
    with pytest.raises(InvalidArgumentError, match=f"'{type_}' cannot measure a reranker model. It is for dense"):
        build_evaluator(spec, "reranker")


def test_an_evaluator_knows_what_the_labels_of_its_pairs_are() -> None:
    rows = [{"sentence1": "a", "sentence2": f"b{grade}", "label": grade} for grade in range(6)]
    assert build_evaluator({"type": "similarity", "data": rows, "name": "dev"}, "dense")


def test_of_the_languages_of_sts17_english_is_taken(
    model: Any, texts: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    one, other = texts["anchor"], texts["positive"]
    configurations = ""
    for name, scores in (("ar-ar", range(40, 0, -1)), ("en-en", range(40))):
        rows = [
            {"sentence1": first, "sentence2": second, "score": score / 8}
            for first, second, score in zip(one, other, scores, strict=True)
        ]
        (tmp_path / "hub" / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hub" / name / "test.parquet")
        configurations += f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test.parquet\n"
    (tmp_path / "hub" / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n")
    monkeypatch.setattr("hybridsearch.training.measure.evaluators.STS", {"STS17": str(tmp_path / "hub")})
    similar = model.similarity_pairwise(model.encode(one), model.encode(other)).tolist()
    expected = spearmanr(range(40), similar).statistic
    assert sts_suite()(model)["STS17 Spearman"] == pytest.approx(expected, abs=1e-4)


def test_a_folder_without_sts_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="none of the STS sets STS12"):
        sts_suite(tmp_path)


def test_sts_does_not_measure_late_interaction(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="The evaluator 'sts' cannot measure a late-interaction model"):
        sts_suite(tmp_path, "late-interaction")
