"""A model in int8 finds nearly the same, has a fingerprint of its own, and its folder still gives the exact vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.errors import DocumentError, FingerprintMismatchError, InvalidArgumentError
from hybridsearch.evaluation.optimizing import Optimization

pytest.importorskip("nncf", reason="pip install 'hybridsearch[openvino]'")

SUBJECTS = ["wing", "nozzle", "boundary layer", "shock wave", "propeller", "heat shield", "flutter", "wake"]
DOCUMENTS = [
    hs.Document(f"{subject} {number}", f"The {subject} was measured in wind tunnel {number} at high speed.", subject)
    for subject in SUBJECTS
    for number in range(2)
]
DATASET = hs.Dataset(
    "small",
    {subject: f"measurements of a {subject}" for subject in SUBJECTS},
    {subject: {f"{subject} 0": 1, f"{subject} 1": 1} for subject in SUBJECTS},
    DOCUMENTS,
)


@pytest.fixture(scope="module")
def small(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the first of the six layers of MiniLM, which takes a sixth of the time."""
    models: Any = pytest.importorskip("sentence_transformers")
    model = models.SentenceTransformer(minilm)
    bert = model[0].auto_model
    del bert.encoder.layer[1:]
    bert.config.num_hidden_layers = 1
    folder = str(tmp_path_factory.mktemp("small"))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(small: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Optimization]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDSEARCH_CACHE", "off")
        folder = tmp_path_factory.mktemp("optimized") / "model"
        return folder, hs.optimize(small, DATASET, folder, texts=8)


def test_it_measures_what_int8_costs_and_gives(made: tuple[Path, Optimization]) -> None:
    folder, result = made
    assert result.cosine is not None
    assert result.mean_cosine is not None
    assert 0.9 < result.cosine < result.mean_cosine < 1
    assert 0.8 < result.overlap <= 1
    assert result.ndcg is not None
    assert min(result.ndcg) > 0.8
    assert result.speed > 0
    assert (result.calibrated, result.queries) == (8, len(SUBJECTS))
    assert json.loads((folder / "optimization.json").read_text())["ndcg"] == list(result.ndcg)


def test_the_folder_computes_in_int8_unless_it_is_told_otherwise(made: tuple[Path, Optimization], small: str) -> None:
    folder, _ = made
    fast, exact = hs.Dense(folder), hs.Dense(folder, precision="fp32")
    assert str(fast.model.way()) == "int8 by openvino"
    assert exact.fingerprint() == hs.Dense(small).fingerprint()
    assert not exact.fingerprint().takes_queries(fast.fingerprint())
    assert fast.fingerprint().tolerance is None
    assert 0.9 < float(fast.encode_queries(["wings"])[0] @ exact.encode_queries(["wings"])[0]) < 0.99999


def test_an_index_of_int8_takes_int8_only(made: tuple[Path, Optimization], tmp_path: Path) -> None:
    with hs.HybridSearch({"dense": hs.Dense(made[0])}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
    with hs.open(tmp_path / "index") as search:
        assert {*search.search("propeller", top_k=2).ids} == {"propeller 0", "propeller 1"}
    with hs.open(tmp_path / "index", precision="fp32") as search, pytest.raises(FingerprintMismatchError, match="int8"):
        search.search("propeller")


@pytest.fixture(scope="module")
def of_cross_encoder(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Optimization]:
    """Of a cross-encoder from MiniLM that was trained on each query with a right and a wrong document."""
    rows = [
        {"query": query, "text": document.content, "label": int(document.title == subject)}
        for place, (subject, query) in enumerate(DATASET.queries.items())
        for document in (DOCUMENTS[2 * place], DOCUMENTS[2 * place - 2])
    ]
    settings = hs.TrainingSettings(epochs=4, batch_size=8, max_length=48, learning_rate=1e-4)
    folder = tmp_path_factory.mktemp("trained")
    hs.train_reranker(minilm, rows, folder / "model", settings=settings, show_progress_bar=False)
    return folder / "fast", hs.optimize(folder / "model", DATASET, folder / "fast", texts=8)


@pytest.fixture(scope="module")
def of_sparse(splade: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Optimization]:
    folder = tmp_path_factory.mktemp("sparse") / "fast"
    return folder, hs.optimize(splade, DATASET, folder, texts=8)


@pytest.fixture(scope="module")
def of_late_interaction(small: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Optimization]:
    """Of a late-interaction model that has the token vectors of `small`."""
    folder = tmp_path_factory.mktemp("late")
    hs.LateInteraction(small).model.get().save_pretrained(str(folder / "model"))
    return folder / "fast", hs.optimize(folder / "model", DATASET, folder / "fast", texts=8)


@pytest.mark.slow
def test_a_cross_encoder_gives_nearly_the_same_scores(of_cross_encoder: tuple[Path, Optimization]) -> None:
    folder, result = of_cross_encoder
    assert result.cosine is result.mean_cosine is None
    assert result.correlation is not None
    assert 0.8 < result.correlation < 1
    assert 0.8 < result.overlap <= 1
    assert result.ndcg is not None
    assert result.ndcg[1] == pytest.approx(result.ndcg[0], abs=0.1)
    assert not (folder / "checkpoints").exists()  # they are not part of the model


@pytest.mark.slow
def test_a_sparse_model_finds_nearly_the_same(of_sparse: tuple[Path, Optimization]) -> None:
    _, result = of_sparse
    assert result.cosine is not None
    assert 0.9 < result.cosine < 1
    assert result.correlation is None
    assert 0.8 < result.overlap <= 1


def test_a_late_interaction_model_has_nearly_the_same_token_vectors_and_scores(
    of_late_interaction: tuple[Path, Optimization],
) -> None:
    folder, result = of_late_interaction
    assert result.cosine is not None
    assert result.mean_cosine is not None
    assert 0.7 < result.cosine < result.mean_cosine < 1
    assert result.correlation is not None
    assert 0.9 < result.correlation < 1
    fast, exact = hs.LateInteraction(folder), hs.LateInteraction(folder, precision="fp32")
    ours, theirs = (np.concatenate(one.vectors([DOCUMENTS[0].content], "document")) for one in (fast, exact))
    assert result.cosine - 0.01 < (ours * theirs).sum(axis=1).min() < 1


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("of_sparse", marks=pytest.mark.slow),
        pytest.param("of_cross_encoder", marks=pytest.mark.slow),
        "of_late_interaction",
    ],
)
def test_verbs_take_the_folder(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)[0]
    rows = [{"_id": one.id, "title": one.title, "text": one.text} for one in DOCUMENTS]
    texts, index = tmp_path / "corpus.jsonl", tmp_path / "index"
    texts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    retrievers = f"bm25,sparse={folder}" if kind == "of_sparse" else "bm25"
    reranking = {"of_cross_encoder": ["--rerank", f"{folder}"], "of_late_interaction": ["--rerank", f"late={folder}"]}
    for command in (
        ["index", texts, "--index", index, "--retrievers", retrievers],
        ["search", index, "flutter", "--top-k", "2", *reranking.get(kind, [])],
    ):
        done = CliRunner().invoke(app, [str(part) for part in command])
        assert done.exit_code == 0, done.output
    assert "flutter 0" in done.output
    assert "flutter 1" in done.output


def test_data_and_folders_that_are_not_usable_are_refused(minilm: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match=r"is not empty: give a new folder"):
        hs.optimize(minilm, DOCUMENTS, tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"fewer than two documents with text"):
        hs.optimize(minilm, [{"id": "1", "text": ""}], tmp_path / "new")
    with pytest.raises(DocumentError, match=r"no file or folder 'texts.csv'"):
        hs.optimize(minilm, "texts.csv", tmp_path / "new")
    with pytest.raises(InvalidArgumentError, match=r"'empty' has no queries: give its documents instead"):
        hs.optimize(minilm, hs.Dataset("empty", {}, {}, DOCUMENTS), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_int8_or_weights_in_bf16_is_measured_against_fp32(
    made: tuple[Path, Optimization], small: str, tmp_path: Path
) -> None:
    models: Any = pytest.importorskip("sentence_transformers")
    models.SentenceTransformer(small).bfloat16().save_pretrained(str(tmp_path / "bf16"))
    unjudged = hs.Dataset("unjudged", DATASET.queries, {}, DOCUMENTS)
    for model in (made[0], tmp_path / "bf16"):
        result = hs.optimize(model, unjudged, tmp_path / f"{model.name} again", texts=8)
        assert result.cosine is not None
        assert 0.9 < result.cosine < 0.9999
        assert result.ndcg is None
