"""Tests of losses that are given as objects or functions, and of callbacks, for each kind of model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.dense import train_dense
from hybridsearch.training.loss_objects import facts_of, short_name
from hybridsearch.training.reranker import train_reranker
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sparse import train_sparse

st: Any = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
transformers: Any = pytest.importorskip("transformers")

SETTINGS = TrainingSettings(max_steps=2, batch_size=8, learning_rate=1e-2)


class Seen(transformers.TrainerCallback):  # type: ignore[misc]
    """Note the steps of a run."""

    steps: list[int]

    def __init__(self) -> None:
        self.steps = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.append(state.global_step)


@pytest.fixture(scope="module")
def tuples(tiny_pairs: list[dict[str, str]]) -> TrainingData:
    answers = [pair["positive"] for pair in tiny_pairs]
    columns = {
        "anchor": [pair["anchor"] for pair in tiny_pairs],
        "positive": answers,
        "negative_1": [*answers[1:], answers[0]],
    }
    return TrainingData.from_columns(Kind.TUPLES, columns, name="tuples")


def losses_of_dense() -> Any:
    from sentence_transformers.sentence_transformer import losses

    return losses


def losses_of(output: Path) -> dict[str, str]:
    facts: dict[str, Any] = json.loads((output / "training.json").read_text())["facts"]
    losses: dict[str, str] = facts["losses"]
    return losses


def changed(before: Any, folder: Path) -> bool:
    """Whether the weights in a folder differ from a model's."""
    after = type(before)(str(folder), device="cpu").state_dict()
    return any((weight != after[name]).any() for name, weight in before.state_dict().items())


def test_a_loss_object_trains_its_dense_model_and_a_callback_sees_the_steps(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    model = st.SentenceTransformer(str(tiny_dense), device="cpu")
    loss = losses_of_dense().MultipleNegativesRankingLoss(model, scale=7.0)
    seen = Seen()

    result = train_dense(
        model, tiny_pairs, tmp_path / "out", loss=loss, callbacks=[seen], settings=SETTINGS, show_progress_bar=False
    )

    assert seen.steps == [1, 2]
    assert "MultipleNegativesRankingLoss for 'data' (pairs): as you asked." in result.summary
    assert changed(st.SentenceTransformer(str(tiny_dense), device="cpu"), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["loss"]["scale"] == 7.0


def test_the_facts_of_a_loss_have_its_lists_and_the_settings_of_the_loss_in_it(tiny_dense: Path) -> None:
    losses, model = losses_of_dense(), st.SentenceTransformer(str(tiny_dense), device="cpu")

    facts = facts_of(losses.MatryoshkaLoss(model, losses.CoSENTLoss(model, scale=10.0), [32, 8]))

    assert facts["matryoshka_dims"] == [32, 8]
    assert facts["loss"]["class"] == "CoSENTLoss"
    assert facts["loss"]["scale"] == 10.0
    assert json.loads(json.dumps(facts)) == facts
    guide = facts_of(losses.GISTEmbedLoss(model, model))["guide"]
    assert guide["class"] == "SentenceTransformer"
    assert re.fullmatch("[0-9a-f]{16}", guide["digest"])


def test_a_loss_of_ones_own_takes_the_rows_of_its_base(tiny_reranker: Path) -> None:
    from sentence_transformers.cross_encoder import losses

    class Own(losses.LambdaLoss):  # type: ignore[misc]
        pass

    assert short_name(Own(st.CrossEncoder(str(tiny_reranker), device="cpu"))) == "lambda"


def test_a_loss_object_of_a_sparse_model_trains_the_copy_with_regularisers(
    tiny_splade: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    from sentence_transformers.sparse_encoder import losses

    model = st.SparseEncoder(str(tiny_splade), device="cpu")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    loss = losses.SparseMultipleNegativesRankingLoss(model)

    train_sparse(model, tiny_pairs, tmp_path / "out", loss=loss, settings=SETTINGS, show_progress_bar=False)

    assert losses_of(tmp_path / "out") == {"data": "SpladeLoss(SparseMultipleNegativesRankingLoss)"}
    assert all((weight == before[name]).all() for name, weight in model.state_dict().items())
    assert changed(model, tmp_path / "out")


def test_a_function_makes_the_loss_of_a_reranker_and_tuples_become_its_lists(
    tiny_reranker: Path, tuples: TrainingData, tmp_path: Path
) -> None:
    from sentence_transformers.cross_encoder import losses

    def by_ndcg(model: Any) -> Any:
        return losses.LambdaLoss(model, losses.NDCGLoss1Scheme())

    result = train_reranker(
        tiny_reranker, tuples, tmp_path / "out", loss=by_ndcg, callbacks=[Seen], settings=SETTINGS,
        show_progress_bar=False,
    )  # fmt: skip

    assert "40 rows; LambdaLoss for 'tuples' (lists): as you asked." in result.summary
    assert losses_of(tmp_path / "out") == {"tuples": "LambdaLoss"}


def test_a_function_makes_a_loss_for_each_data_set(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tuples: TrainingData, tmp_path: Path
) -> None:
    data = {"pairs": tiny_pairs, "tuples": tuples}
    kind = losses_of_dense().MultipleNegativesRankingLoss

    train_dense(tiny_dense, data, tmp_path / "out", loss=kind, settings=SETTINGS, show_progress_bar=False)

    assert losses_of(tmp_path / "out") == dict.fromkeys(data, "MultipleNegativesRankingLoss")
    model = st.SentenceTransformer(str(tiny_dense), device="cpu")
    with pytest.raises(InvalidArgumentError, match=r"is one object, but there are 2 data sets\. Give a function"):
        train_dense(model, data, tmp_path / "other", loss=kind(model), settings=SETTINGS)


def test_what_is_no_loss_of_this_model_or_no_callback_is_refused(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    model = st.SentenceTransformer(str(tiny_dense), device="cpu")
    loss = losses_of_dense().MultipleNegativesRankingLoss(model)
    for options, message in (
        ({"loss": loss}, "does not hold the model that is trained. Give the loaded model"),
        ({"loss": lambda model: model.encode}, "or a function from the model to a loss"),
        ({"callbacks": [print]}, r"callbacks has <built-in function print>\. Give a list of transformers"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            train_dense(tiny_dense, tiny_pairs, tmp_path / "out", settings=SETTINGS, **options)  # type: ignore[arg-type]


def test_a_tracker_that_is_not_installed_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    settings = SETTINGS.with_values({"trackers": ["swanlab"]})
    with pytest.raises(InvalidArgumentError, match=r"'swanlab' is not installed\. Run `pip install swanlab`"):
        train_dense("nowhere", "nowhere.csv", tmp_path / "out", settings=settings)


@pytest.mark.filterwarnings("ignore")  # of mlflow's libraries
def test_mlflow_records_the_run_and_no_password(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    scored = {"bread": 0, "drag": 0.5, "lift": 1}
    rows = [{"anchor": "wing", "positive": text, "score": score} for text, score in scored.items()]
    dev = {"type": "similarity", "data": rows}
    settings = SETTINGS.with_values({"trackers": ["mlflow"]})

    train_dense(tiny_dense, tiny_pairs, tmp_path / "my-run", dev=dev, settings=settings, show_progress_bar=False)

    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs.db'}").search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("my-run", "FINISHED")
    assert run.data.params["per_device_train_batch_size"] == "8"
    assert any("Spearman" in name for name in run.data.metrics)
    for written in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"s3cret" not in written.read_bytes()
