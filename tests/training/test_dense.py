"""Tests of training dense models: held-out data, prompts, pooling, adapters and the report."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.dense import train_dense
from hybridsearch.training.measure.evaluators import build_evaluator
from hybridsearch.training.models.lora import LoraSettings
from hybridsearch.training.runs.steps import prompts_of_columns
from hybridsearch.training.settings import TrainingSettings

sentence_transformers: Any = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

SETTINGS = TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3)


def test_queries_with_judgements_make_a_better_model_and_a_report(
    tiny_dense: Path, tiny_dataset: hs.Dataset, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    settings = SETTINGS.with_values({"epochs": 8, "learning_rate": 3e-3})

    result = train_dense(tiny_dense, tiny_dataset, tmp_path / "output", test=other_questions, settings=settings)

    assert result.comparison is not None
    assert result.summary.startswith("Better: nDCG@10 on tiny from")
    assert result.history.start is not None  # a tenth of the queries chose the checkpoint
    assert hs.Dense(tmp_path / "output", cache=False).dimensions == 32
    report = json.loads((tmp_path / "output" / "report.json").read_text())
    assert report["settings"]["seed"] == 0
    assert result.summary.splitlines()[0] in (tmp_path / "output" / "README.md").read_text()


def test_the_verdict_is_by_the_measure_of_the_settings(
    tiny_dense: Path, tiny_dataset: hs.Dataset, other_questions: hs.Dataset, tmp_path: Path
) -> None:
    settings = SETTINGS.with_values({"max_steps": 1, "measure": "MRR@10"})

    result = train_dense(tiny_dense, tiny_dataset, tmp_path / "output", test=other_questions, settings=settings)

    assert ": RR@10 on tiny" in result.summary.splitlines()[0]


def test_a_ruined_model_is_called_worse_by_an_evaluator(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
    texts = [pair["positive"] for pair in tiny_pairs]
    likeness = model.similarity_pairwise(model.encode(texts), model.encode(texts[1:] + texts[:1])).tolist()
    columns = {"anchor": texts, "positive": texts[1:] + texts[:1], "label": likeness}
    scored = TrainingData.from_columns(Kind.SCORED, columns, name="its-own")
    settings = SETTINGS.with_values({"learning_rate": 0.1})
    evaluators = [{"type": "similarity", "data": scored}]

    result = train_dense(model, tiny_pairs, tmp_path / "output", evaluators=evaluators, settings=settings)

    assert list(result.figures) == ["its-own Spearman", "its-own Pearson"]
    before, after = result.figures["its-own Spearman"]
    assert before == pytest.approx(1)  # the labels are the scores of the model
    loaded = sentence_transformers.SentenceTransformer(str(result.path), device="cpu")
    assert after == pytest.approx(build_evaluator(evaluators, "dense")(loaded)["its-own Spearman"], abs=1e-4)
    assert result.summary.startswith("LOWER: its-own Spearman from 1.0000 to")
    assert "\nits-own Spearman: 1.0000 before" in result.summary


def test_hard_negatives_are_mined_and_trained_on(tiny_dense: Path, tiny_dataset: hs.Dataset, tmp_path: Path) -> None:
    result = train_dense(tiny_dense, tiny_dataset, tmp_path / "output", hard_negatives=1, settings=SETTINGS)

    assert "(tuples)" in result.summary
    assert (tmp_path / "output" / "negatives" / "0" / "mining.json").exists()


def test_adapters_merged_and_apart_give_the_same_vectors(
    tiny_decoder: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    rows = [{**pair, "negative": other["positive"]} for pair, other in zip(tiny_pairs, tiny_pairs[8:], strict=False)]
    texts = [pair["anchor"] for pair in tiny_pairs[:5]]
    embeddings = {}
    for merge in (False, True):
        folder = tmp_path / str(merge)
        lora = LoraSettings(rank=4, alpha=8, targets=("q_proj", "v_proj"), merge=merge)
        settings = SETTINGS.with_values({"learning_rate": 1e-2})
        train_dense(tiny_decoder, rows, folder, lora=lora, prompts="Represent this: ", settings=settings)
        embeddings[merge] = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)

    untrained = sentence_transformers.SentenceTransformer(str(tmp_path / "True"), device="cpu")
    assert untrained[1].pooling_mode == "lasttoken"
    assert untrained.prompts["query"] == "Represent this: "
    assert {file.name for file in (tmp_path / "False").glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert {file.name for file in (tmp_path / "True").glob("*.safetensors")} == {"model.safetensors"}
    np.testing.assert_allclose(embeddings[False], embeddings[True], atol=1e-5)


def test_adapters_load_from_anywhere_and_are_trained_further(
    tiny_decoder: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_decoder.parent)
    lora = LoraSettings(rank=2, targets=("q_proj",))
    train_dense(tiny_decoder.name, tiny_pairs, tmp_path / "first", lora=lora, settings=SETTINGS)
    monkeypatch.chdir(tmp_path)
    train_dense("first", tiny_pairs, tmp_path / "second", settings=SETTINGS)

    first, second = (
        sentence_transformers.SentenceTransformer(str(tmp_path / name), device="cpu").state_dict()
        for name in ("first", "second")
    )
    assert {name.partition(".lora_")[1] for name in first if (first[name] != second[name]).any()} == {".lora_"}
    assert {file.name for file in (tmp_path / "second").glob("*.safetensors")} == {"adapter_model.safetensors"}
    with pytest.raises(InvalidArgumentError, match="already has adapters"):
        train_dense("first", tiny_pairs, tmp_path / "third", lora=lora, settings=SETTINGS)


def test_a_cross_encoder_is_no_start(tiny_reranker: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="is a cross-encoder, which scores pairs"):
        train_dense(tiny_reranker, tiny_pairs, tmp_path / "output", settings=SETTINGS)


def test_mined_negatives_are_said_and_learned_by_a_teachers_scores(
    tiny_dense: Path, tiny_reranker: Path, tiny_dataset: hs.Dataset, tmp_path: Path
) -> None:
    result = train_dense(
        tiny_dense, tiny_dataset, tmp_path / "output", hard_negatives=1, teacher=tiny_reranker, settings=SETTINGS
    )

    assert "kl for 'tiny' (tuples with scores)" in result.summary
    assert re.search(r"Mined \d+ negatives for 36 queries", result.summary)
    with pytest.raises(InvalidArgumentError, match=r"holds pairs without negatives. Set hard_negatives"):
        train_dense(tiny_dense, tiny_dataset, tmp_path / "other", teacher=tiny_reranker, settings=SETTINGS)


def test_adapters_train_nothing_else(tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path) -> None:
    import torch

    model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
    before = model[0].auto_model.embeddings.word_embeddings.weight.clone()

    settings = SETTINGS.with_values({"dropout": 0.0})
    train_dense(model, tiny_pairs, tmp_path / "output", lora=LoraSettings(rank=2, dropout=0.05), settings=settings)

    dropouts = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert all(share == (0.05 if "lora_" in name else 0.0) for name, share in dropouts.items())
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert (model[0].auto_model.embeddings.word_embeddings.weight == before).all()


def test_layers_that_the_model_lacks_are_refused(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="LoRA does not work with this model"):
        train_dense(tiny_dense, tiny_pairs, tmp_path / "output", lora=LoraSettings(targets=("nope",)))


def test_scored_rows_are_trained_by_cosent_and_chosen_by_spearman(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    texts = [pair["positive"] for pair in tiny_pairs]
    columns = {"anchor": texts, "positive": texts[1:] + texts[:1], "label": [place % 5 / 4 for place in range(40)]}
    scored = TrainingData.from_columns(Kind.SCORED, columns, name="training")
    dev = TrainingData.from_columns(Kind.SCORED, {**columns, "positive": texts[2:] + texts[:2]}, name="sts")

    result = train_dense(tiny_dense, scored, tmp_path / "output", dev=dev, settings=SETTINGS)

    assert "cosent" in result.summary
    assert result.history.best is not None
    assert "sts Spearman" in result.history.best.measures


def test_pooling_and_prompts_are_saved_with_the_model(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    prompts = {"query": "query: ", "document": "passage: "}

    train_dense(tiny_dense, tiny_pairs, tmp_path / "output", pooling="cls", prompts=prompts, settings=SETTINGS)

    model = sentence_transformers.SentenceTransformer(str(tmp_path / "output"), device="cpu")
    assert model[1].pooling_mode == "cls"
    assert {name: model.prompts[name] for name in prompts} == prompts


def test_prompts_are_fed_while_training(tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path) -> None:
    model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
    fed: list[str] = []

    def note(module: Any, given: tuple[dict[str, Any], ...]) -> None:
        if module.training:
            fed.extend(model.tokenizer.batch_decode(given[0]["input_ids"], skip_special_tokens=True))

    model[0].register_forward_pre_hook(note)
    prompts = {"query": "find an answer: ", "document": "an answer: "}

    train_dense(model, tiny_pairs[:8], tmp_path / "output", prompts=prompts, settings=SETTINGS)

    texts = [prompts["query"] + pair["anchor"] for pair in tiny_pairs[:8]]
    texts += [prompts["document"] + pair["positive"] for pair in tiny_pairs[:8]]
    assert sorted(fed) == sorted(
        model.tokenizer.batch_decode(model.tokenizer(texts).input_ids, skip_special_tokens=True)
    )


def test_of_several_evaluators_on_dev_all_measure_and_the_first_chooses(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    positives = [pair["positive"] for pair in tiny_pairs]
    columns = {"anchor": [f"Tell me: {pair['anchor']}" for pair in tiny_pairs], "positive": positives}
    scored = TrainingData.from_columns(Kind.SCORED, {**columns, "label": [place / 40 for place in range(40)]})
    tuples = TrainingData.from_columns(Kind.TUPLES, {**columns, "negative_1": positives[7:] + positives[:7]})
    dev = [
        {"type": "similarity", "data": scored, "name": "graded"},
        {"type": "triplet", "data": tuples, "name": "apart"},
    ]

    result = train_dense(tiny_dense, tiny_pairs, tmp_path / "output", dev=dev, settings=SETTINGS)

    assert [one.step for one in result.history.evaluations] == [0, 5]
    for one in result.history.evaluations:
        assert {"graded Spearman", "graded Pearson", "apart accuracy"} == one.measures.keys()
        assert one.score == one.measures["graded Spearman"]
    loaded = sentence_transformers.SentenceTransformer(str(result.path), device="cpu")
    assert build_evaluator(dev, "dense")(loaded)["apart accuracy"] == one.measures["apart accuracy"]


def test_matryoshka_dimensions_are_part_of_the_loss(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    train_dense(tiny_dense, tiny_pairs, tmp_path / "output", matryoshka_dims=(16, 8), settings=SETTINGS)

    record = json.loads((tmp_path / "output" / "training.json").read_text())
    assert record["facts"]["losses"] == {"data": "MatryoshkaLoss(MultipleNegativesRankingLoss)"}


def test_a_run_is_not_resumed_with_other_data(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    settings = SETTINGS.with_values({"max_steps": 1, "resume": True})
    train_dense(tiny_dense, tiny_pairs, tmp_path / "output", settings=settings)
    with pytest.raises(InvalidArgumentError, match=r"another run.*\(data\.data\.content has changed\)"):
        train_dense(tiny_dense, tiny_pairs[::-1], tmp_path / "output", settings=settings)


def test_a_run_is_not_resumed_with_other_rows_of_dev(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    settings = SETTINGS.with_values({"max_steps": 1, "resume": True})
    file = tmp_path / "dev.csv"
    for score, change in (("0.5", nullcontext()), ("0.6", pytest.raises(InvalidArgumentError, match="dev content"))):
        file.write_text(f"anchor,positive,score\nlift,a force,{score}\nbread,of rye,1\n")
        with change:
            train_dense(tiny_dense, tiny_pairs, tmp_path / "output", settings=settings, dev=f"similarity={file}")


def test_a_run_is_not_resumed_with_other_documents_of_dev(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tiny_dataset: hs.Dataset, tmp_path: Path
) -> None:
    settings = SETTINGS.with_values({"max_steps": 1, "resume": True})
    pairs = [{"anchor": f"{pair['anchor']} now", "positive": pair["positive"]} for pair in tiny_pairs]
    train_dense(tiny_dense, pairs, tmp_path / "output", settings=settings, dev=tiny_dataset)
    train_dense(tiny_dense, pairs, tmp_path / "output", settings=settings, dev=tiny_dataset)
    others = [replace(document, text=f"{document.text} more") for document in tiny_dataset.corpus or ()]
    with pytest.raises(InvalidArgumentError, match="dev content has changed"):
        train_dense(tiny_dense, pairs, tmp_path / "output", settings=settings, dev=replace(tiny_dataset, corpus=others))


def test_a_run_is_not_resumed_with_another_loaded_guide(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    import torch

    settings = SETTINGS.with_values({"max_steps": 1, "resume": True})
    guide = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
    options: dict[str, Any] = {"loss": "gist", "guide": guide, "settings": settings}
    train_dense(tiny_dense, tiny_pairs, tmp_path / "output", **options)
    train_dense(tiny_dense, tiny_pairs, tmp_path / "output", **options)
    with torch.no_grad():
        next(guide.parameters()).add_(1)
    with pytest.raises(InvalidArgumentError, match=r"guide\.digest has changed"):
        train_dense(tiny_dense, tiny_pairs, tmp_path / "output", **options)


def test_a_taken_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")

    with pytest.raises(InvalidArgumentError, match="Give another folder"):
        train_dense("nowhere/nothing", [], tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "first"}, "pooling is one of"),
        ({"prompts": {"title": "x"}}, "prompts has the key 'title'"),
        ({"hard_negatives": 0}, "hard_negatives is 0. Give a whole number"),
        ({"loss": "cosent"}, "does not fit"),
        ({"settings": SETTINGS.with_values({"max_length": 1000})}, "the model reads at most 64"),
    ],
)
def test_an_argument_that_does_not_fit_is_one_error(
    options: dict[str, Any], message: str, tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        train_dense(tiny_dense, tiny_pairs, tmp_path / "output", **options)


def test_training_puts_the_prompts_before_texts_that_encoding_does(tiny_dense: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_dense), device="cpu")
    model.prompts = {"query": "query: ", "document": "", "passage": "passage: "}
    data = TrainingData.from_columns(Kind.PAIRS, {"anchor": ["lift"], "positive": ["A force."]})
    assert prompts_of_columns(model, [data]) == {"anchor": "query: "}
    whole = hs.Dense(model, cache=False).encode_documents(["A force."]).array
    np.testing.assert_allclose(whole, model.encode_document(["A force."], normalize_embeddings=True), atol=1e-5)
    model.prompts.pop("document")
    assert prompts_of_columns(model, [data]) == {"anchor": "query: ", "positive": "passage: "}
