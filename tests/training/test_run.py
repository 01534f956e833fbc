"""Tests of a run in a folder: after a kill it goes on with the same steps, and it reports wrong data and folders."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError, TrainingError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.measure.evaluators import build_evaluator
from hybridsearch.training.measure.report import Report
from hybridsearch.training.runs.record import History, check_output, last_good_checkpoint
from hybridsearch.training.runs.run import conclude, fit, push, set_dropout
from hybridsearch.training.settings import TrainingSettings

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
datasets: Any = pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3, evaluate_every=3, keep_checkpoints=1)


def mixture(pairs: list[dict[str, str]]) -> list[TrainingData]:
    """Pairs, and pairs with a score: two data sets with two losses and two orders of rows."""
    scored = [
        {"anchor": one["anchor"], "positive": other["positive"], "label": float(one is other)}
        for place, one in enumerate(pairs)
        for other in (one, pairs[place - 1])
    ]
    return [
        TrainingData("pairs", datasets.Dataset.from_list(pairs), Kind.PAIRS),
        TrainingData("scored", datasets.Dataset.from_list(scored[:32]), Kind.SCORED),
    ]


def losses_of(model: Any, data: list[TrainingData]) -> dict[str, Any]:
    from sentence_transformers.sentence_transformer import losses

    made = {
        "pairs": losses.MultipleNegativesRankingLoss,
        "scored": losses.CosineSimilarityLoss,
        "classed": lambda model: losses.SoftmaxLoss(model, 32, 3),
    }
    return {one.name: made[one.name](model) for one in data}


def triplets_of(pairs: list[dict[str, str]]) -> Any:
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

    positives = [pair["positive"] for pair in pairs]
    return TripletEvaluator([pair["anchor"] for pair in pairs], positives, positives[7:] + positives[:7])


@pytest.fixture
def train(tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path) -> Callable[..., tuple[History, Any]]:
    """A function that trains the tiny model on the given data (default: the pairs) in a folder in `tmp_path`."""
    import sentence_transformers

    def run(
        name: str = "output",
        data: list[TrainingData] | None = None,
        settings: TrainingSettings = SETTINGS,
        evaluate: bool = True,
        callbacks: tuple[Any, ...] = (),
        evaluator: Any = None,
    ) -> tuple[History, Any]:
        model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
        data = mixture(tiny_pairs)[:1] if data is None else data
        evaluator = evaluator or (triplets_of(tiny_pairs) if evaluate else None)
        losses = losses_of(model, data)
        return fit(
            model, "dense", data, losses, settings, tmp_path / name, evaluator=evaluator, callbacks=callbacks
        ), model

    return run


@pytest.mark.parametrize("evaluate", [True, False])
def test_a_run_in_which_no_row_has_another_to_be_compared_with_says_that_it_learned_nothing(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]], evaluate: bool
) -> None:
    alone = replace(SETTINGS, batch_size=1, max_steps=4)
    with pytest.warns(UserWarning, match="The loss was 0 at every step, so the model learned nothing"):
        train("alone", mixture(tiny_pairs)[:1], alone, evaluate)
    train("together", mixture(tiny_pairs)[:1], replace(alone, batch_size=2), evaluate)  # a warning would be an error


@pytest.mark.parametrize("size", [10_000, 300_000])
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    train: Callable[..., tuple[History, Any]], size: int
) -> None:
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(TrainingError, match=r"The run cannot be written to .*output \(.*Free space, then go on"):
            train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert train(settings=replace(SETTINGS, resume=True))[0].steps == train("whole")[0].steps


def test_a_length_that_leaves_no_room_for_a_word_is_refused(train: Callable[..., tuple[History, Any]]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"max_length is 2, but .* adds 2 special tokens.*at least 3"):
        train(settings=replace(SETTINGS, max_length=2))


def test_a_killed_run_goes_on_with_the_same_steps_to_the_same_weights(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]]
) -> None:
    import torch
    import transformers

    class Kill(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 12:
                os.kill(os.getpid(), signal.SIGKILL)

    data = mixture(tiny_pairs)
    killed = get_context("fork").Process(target=train, args=("killed", data), kwargs={"callbacks": (Kill(),)})
    killed.start()
    whole, expected = train("whole", data)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL

    resumed, model = train("killed", mixture(tiny_pairs), SETTINGS.with_values({"resume": True}))

    assert resumed.resumed_at == (9,)
    assert resumed.steps == whole.steps == 18
    assert [one.step for one in resumed.evaluations] == [0, 3, 6, 9, 12, 15, 18]
    assert [(step, parts["loss"]) for step, parts in resumed.losses] == [
        (step, parts["loss"]) for step, parts in whole.losses
    ]
    assert [one.score for one in resumed.evaluations] == [one.score for one in whole.evaluations]
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_labelled_rows_come_in_the_same_order_after_a_pause_in_a_later_epoch(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]]
) -> None:
    data = mixture(tiny_pairs)[1:]
    whole, _ = train("whole", data, evaluate=False)
    with pytest.raises(KeyboardInterrupt):
        train("paused", data, evaluate=False, callbacks=(Interrupt.at(7),))

    resumed, _ = train("paused", data, SETTINGS.with_values({"resume": True}), evaluate=False)

    assert resumed.resumed_at == (6,)
    assert [parts["loss"] for _, parts in resumed.losses] == [parts["loss"] for _, parts in whole.losses]


def test_a_loss_with_weights_of_its_own_goes_on_with_them(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]]
) -> None:
    import torch

    rows = [{**pair, "label": place % 3} for place, pair in enumerate(tiny_pairs)]
    data = [TrainingData("classed", datasets.Dataset.from_list(rows), Kind.CLASSED)]
    torch.manual_seed(0)
    whole, _ = train("whole", data)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        train("paused", data, callbacks=(Interrupt.at(7),))

    resumed, _ = train("paused", data, SETTINGS.with_values({"resume": True}))

    assert [parts["loss"] for _, parts in resumed.losses] == [parts["loss"] for _, parts in whole.losses]


def test_figures_keep_their_order_after_a_pause(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]]
) -> None:
    spec = {"type": "similarity", "data": mixture(tiny_pairs)[1]}
    with pytest.raises(KeyboardInterrupt):
        train(callbacks=(Interrupt.at(10),), evaluator=build_evaluator(spec, "dense"))

    resumed, _ = train(settings=SETTINGS.with_values({"resume": True}), evaluator=build_evaluator(spec, "dense"))

    assert resumed.resumed_at == (9,)
    assert {tuple(one.measures) for one in resumed.evaluations} == {("scored Spearman", "scored Pearson")}


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(
    train: Callable[..., tuple[History, Any]], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(settings=SETTINGS.with_values({"keep_checkpoints": 3}), callbacks=(Interrupt.at(8),))
    checkpoints = tmp_path / "output" / "checkpoints"
    (checkpoints / "checkpoint-best").mkdir()  # of the user
    weights = checkpoints / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    assert last_good_checkpoint(checkpoints) == checkpoints / "checkpoint-3"
    assert not weights.exists()
    assert (checkpoints / "checkpoint-best").is_dir()


@pytest.mark.parametrize("figure", [math.nan, None])
def test_an_evaluator_that_gives_no_number_chooses_nothing(
    figure: float | None, train: Callable[..., tuple[History, Any]]
) -> None:
    from sentence_transformers.base.evaluation import BaseEvaluator

    class Own(BaseEvaluator):  # type: ignore[misc]
        def __call__(self, model: Any, *_: Any, **__: Any) -> Any:
            return {"own": figure}

    with pytest.raises(TrainingError, match=r"gave (nan|None) as 'sequential_score', which cannot choose"):
        train(evaluator=build_evaluator(Own(), "dense"))
    with pytest.raises(TrainingError, match=r"gave (nan|None) as 'own', which cannot choose"):
        train("other", evaluator=Own())


def test_the_best_weights_are_kept_and_plain_sentence_transformers_loads_them(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    import sentence_transformers

    history, model = train(settings=SETTINGS.with_values({"learning_rate": 0.05}))

    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "output"), device="cpu")
    scores = {one.step: one.score for one in history.evaluations if one.step > 0}
    assert history.best_step == max(scores, key=lambda step: scores[step])
    assert triplets_of(tiny_pairs)(loaded)["cosine_accuracy"] == pytest.approx(scores[history.best_step])
    text = tiny_pairs[0]["anchor"]
    assert model.encode(text) == pytest.approx(loaded.encode(text), abs=1e-6)


def test_training_stops_early_without_a_better_evaluation(train: Callable[..., tuple[History, Any]]) -> None:
    settings = SETTINGS.with_values({"learning_rate": 1e-12, "epochs": 20, "evaluate_every": 1, "patience": 2})

    history, _ = train(settings=settings)

    assert history.stopped_early
    assert (history.best_step, history.steps) == (1, 3)


def test_patience_without_dev_data_is_refused(train: Callable[..., tuple[History, Any]]) -> None:
    with pytest.raises(InvalidArgumentError, match="patience is 2, but there are no dev data"):
        train(settings=SETTINGS.with_values({"patience": 2}), evaluate=False)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("round-robin", ["pairs", "scored"] * 4), ("proportional", ["pairs"] * 5 + ["scored"] * 4)],
)
def test_batches_come_from_the_data_sets_in_turn_or_until_all_are_used_up(
    sampling: str, expected: list[str], tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
    data = mixture(tiny_pairs)
    losses = losses_of(model, data)
    order: list[str] = []
    for name, loss in losses.items():
        loss.register_forward_hook(lambda *_, name=name: order.append(name))
    settings = SETTINGS.with_values({"epochs": 1, "sampling": sampling})

    fit(model, "dense", data, losses, settings, tmp_path)

    assert (order if sampling == "round-robin" else sorted(order)) == expected


@pytest.mark.parametrize(
    ("gpu", "bf16", "processor", "expected"),
    [
        (True, True, {}, "bf16"),
        (True, False, {}, "fp16"),
        (False, False, {"avx512_bf16": True}, "bf16"),
        (False, False, {"amx_bf16": True}, "bf16"),
        (False, False, {"avx512_bf16": False}, "fp32"),
    ],
)
def test_the_precision_is_what_the_hardware_is_fast_in(
    gpu: bool, bf16: bool, processor: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hybridsearch.training.runs.loop import _precision

    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: bf16)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: processor, raising=False)
    assert _precision(TrainingSettings()) == expected


def test_data_that_do_not_fill_a_batch_in_each_process_are_refused() -> None:
    from hybridsearch.training.runs.loop import steps_of_epoch

    arguments = SimpleNamespace(gradient_accumulation_steps=1, per_device_train_batch_size=8, world_size=2)
    trainer = SimpleNamespace(get_train_dataloader=list, args=arguments)

    with pytest.raises(InvalidArgumentError, match=r"a batch of 8 rows in each of 2 processes. Lower batch_size"):
        steps_of_epoch(trainer)


def test_fp16_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridsearch.training.runs.loop import _precision

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InvalidArgumentError, match=r"'fp16' needs a GPU, and there is none. Leave precision out"):
        _precision(TrainingSettings(precision="fp16"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_that_was_used_is_known(precision: str, train: Callable[..., tuple[History, Any]]) -> None:
    history, _ = train(settings=SETTINGS.with_values({"max_steps": 1, "precision": precision}), evaluate=False)

    assert history.precision == precision
    assert (
        history.course
        == f"Step 1 of 1 was kept: the last step, because there were no dev data. It was computed in {precision}."
    )


def test_without_an_evaluator_the_last_weights_are_kept(train: Callable[..., tuple[History, Any]]) -> None:
    history, _ = train(settings=SETTINGS.with_values({"epochs": 1}), evaluate=False)

    assert history.evaluations == ()
    assert history.best_step == history.steps == 5


def test_a_loss_of_nan_is_one_error_and_leaves_the_checkpoints(
    train: Callable[..., tuple[History, Any]], tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    rows = [{**pair, "label": 0.5} for pair in tiny_pairs]
    rows[-1]["label"] = math.nan
    data = [TrainingData("scored", datasets.Dataset.from_list(rows), Kind.SCORED)]

    with pytest.raises(TrainingError, match="The loss is nan at step"):
        train(data=data, settings=SETTINGS.with_values({"evaluate_every": 1}), evaluate=False)

    assert not (tmp_path / "output" / "model.safetensors").exists()


def test_a_finished_run_is_not_overwritten_and_with_resume_not_repeated(
    train: Callable[..., tuple[History, Any]],
) -> None:
    settings = SETTINGS.with_values({"epochs": 1})
    history, _ = train(settings=settings)

    with pytest.raises(InvalidArgumentError, match="holds a finished run"):
        train(settings=settings)
    again, _ = train(settings=settings.with_values({"resume": True}))

    assert again == history


def test_a_run_is_not_resumed_with_other_settings(train: Callable[..., tuple[History, Any]]) -> None:
    train(settings=SETTINGS.with_values({"epochs": 1, "max_steps": 1}), evaluate=False)

    with pytest.raises(InvalidArgumentError, match=r"another run.*settings\.epochs: 1 then, 2 now"):
        train(settings=SETTINGS.with_values({"resume": True}))


def test_a_model_of_another_origin_is_not_overwritten(
    train: Callable[..., tuple[History, Any]], tmp_path: Path
) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "config.json").write_text("{}")

    with pytest.raises(InvalidArgumentError, match="was not trained here"):
        train()


@pytest.mark.parametrize(
    ("name", "what"),
    [("manifest.json", "an index"), ("mining.json", "mined negatives"), ("corpus.jsonl", "a data set")],
)
def test_a_folder_that_holds_something_else_is_not_written_into(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(InvalidArgumentError, match=f"holds {what}.*. Give another folder for the trained model"):
        check_output(tmp_path, SETTINGS)


def test_an_index_is_not_written_into(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=str(tmp_path / "index")) as search:
        search.index([hs.Document("a", "wing")], show_progress_bar=False)
    with pytest.raises(InvalidArgumentError, match="holds an index or encoded documents"):
        check_output(tmp_path / "index", SETTINGS.with_values({"resume": True}))


def test_without_dropout_nothing_of_the_model_is_random_in_training(tiny_dense: Path) -> None:
    import sentence_transformers
    import torch

    model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu").train()
    features = model.preprocess(["a wing in a stream of air"])

    def embedding() -> torch.Tensor:
        return model({**features})["sentence_embedding"]

    assert not torch.equal(embedding(), embedding())
    set_dropout(model, 0.0)
    assert torch.equal(embedding(), embedding())


def test_gradient_accumulation_makes_fewer_steps(train: Callable[..., tuple[History, Any]]) -> None:
    settings = SETTINGS.with_values({"epochs": 1, "accumulation": 2, "gradient_checkpointing": True})

    history, _ = train(settings=settings, evaluate=False)

    assert history.steps == math.ceil(40 / 8 / 2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_computes_each_layer_again_for_the_gradients(
    checkpointing: bool, tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(tiny_dense), device="cpu")
    layer = model[0].model.encoder.layer[0].attention.self
    modes: list[bool] = []
    layer.register_forward_pre_hook(lambda layer, _: modes.append(layer.training))
    settings = SETTINGS.with_values({"max_steps": 1, "gradient_checkpointing": checkpointing})
    data = mixture(tiny_pairs)[:1]

    fit(model, "dense", data, losses_of(model, data), settings, tmp_path)

    assert sum(modes) == (4 if checkpointing else 2)  # of anchors and of positives


@pytest.mark.parametrize("width", [80, 160])
def test_the_progress_line_has_score_sparsity_and_the_time_left(width: int) -> None:
    from rich.console import Console
    from transformers import TrainerControl, TrainerState

    from hybridsearch.training.runs.loop import SCORE, ProgressBar

    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None)
    state = TrainerState(max_steps=1800, global_step=30)
    evaluated = {"eval_dev document_active_dims": 252.4, "eval_dev query_active_dims": 23.6, "eval_dev flops": 1.0}
    with ProgressBar(True, console) as bar:
        bar.on_train_begin(None, state, TrainerControl())
        bar.on_log(None, state, TrainerControl(), {"loss": 0.12341, "document_active_dims_in_training": 999.0})
        bar.on_log(None, state, TrainerControl(), {SCORE: 0.51234, **evaluated})

    said = shown.getvalue().split("Training")[-1].split()  # as it was drawn last
    assert {"30/1,800", "0.1234", "0.5123", "252", "24", "0:00:00", "-:--:--"} <= set(said), said


def test_outside_of_a_terminal_progress_is_a_line_now_and_then() -> None:
    from rich.console import Console

    from hybridsearch.training.runs.loop import SCORE, ProgressBar

    def lines_of(show: bool | None, every: float, first: bool = True) -> list[str]:
        output = io.StringIO()
        state = SimpleNamespace(global_step=0, max_steps=4000, is_world_process_zero=first)
        with ProgressBar(show, Console(file=output, width=80), every) as bar:
            bar.on_train_begin(None, state, None)
            bar.on_log(None, state, None, {"loss": 0.5, SCORE: 0.25})
            for step in (1, 2):
                state.global_step = step
                bar.on_step_end(None, state, None)
        return output.getvalue().splitlines()

    first, second = lines_of(None, 0)
    assert re.fullmatch(
        r"Training: step 1 of 4,000 · loss 0\.5000 · dev 0\.2500 · \S+ steps/s · .*(s|min|h) left", first
    )
    assert second.startswith("Training: step 2 of 4,000")
    assert lines_of(None, 30) == lines_of(False, 0) == lines_of(None, 0, first=False) == []


def test_a_model_that_cannot_be_uploaded_stays_and_the_error_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(TrainingError, match=r"cannot be uploaded as 'me/my-model' .*hf upload me/my-model"):
        push(tmp_path, "me/my-model")


def test_the_model_is_uploaded_with_its_report_and_without_what_only_training_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    uploaded: dict[str, list[str]] = {}

    class Api:
        def create_repo(self, name: str, exist_ok: bool) -> Any:
            return SimpleNamespace(repo_id=f"{name}-as-it-is-there")

        def upload_folder(self, repo_id: str, folder_path: Path, ignore_patterns: list[str]) -> str:
            files = (file.relative_to(folder_path).as_posix() for file in folder_path.rglob("*") if file.is_file())
            uploaded[repo_id] = sorted(filter_repo_objects(files, ignore_patterns=ignore_patterns))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    for name in (
        "model.safetensors",
        "1_Pooling/config.json",
        "checkpoints/checkpoint-3/a.pt",
        "negatives/0/part.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    report = Report(kind="dense", base="base", data=[], settings={}, history=History())

    conclude(tmp_path, report, TrainingSettings(push_to_hub="me/my-model"))

    files = ["1_Pooling/config.json", "README.md", "model.safetensors", "report.json", "report.md"]
    assert uploaded == {"me/my-model-as-it-is-there": files}


def test_a_tracker_records_the_loss_of_each_step_that_is_logged(
    train: Callable[..., tuple[History, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))

    history, _ = train(settings=SETTINGS.with_values({"max_steps": 6, "trackers": ["tensorboard"]}), evaluate=False)

    kept = events.EventAccumulator(str(tmp_path / "events")).Reload().Scalars("train/loss")
    expected = [(step, pytest.approx(figures["loss"])) for step, figures in history.losses]
    assert [(one.step, one.value) for one in kept] == expected


def test_a_hub_that_cannot_be_reached_is_known_before_training(
    train: Callable[..., tuple[History, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(TrainingError, match=r"push_to_hub is 'me/my-model'.*Log in with `hf auth login`, or leave it"):
        train(settings=SETTINGS.with_values({"push_to_hub": "me/my-model"}))

    assert not (tmp_path / "output").exists()


def test_a_tracker_that_is_not_installed_is_named(
    train: Callable[..., tuple[History, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)

    with pytest.raises(InvalidArgumentError, match="pip install codecarbon"):
        train(settings=SETTINGS.with_values({"trackers": ["codecarbon"]}))


class Interrupt:
    """A callback that stops the training at a step, like Ctrl-C."""

    @staticmethod
    def at(step: int) -> Any:
        import transformers

        class Callback(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == step:
                    raise KeyboardInterrupt

        return Callback()
