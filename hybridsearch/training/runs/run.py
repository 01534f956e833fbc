"""Run one training in one folder, continue it after an interruption, and record it.

All training goes through `fit`, which calls the trainers of sentence-transformers. The output folder holds:

    training.json      settings, seed, versions, model, data, losses and history; its status is "running" until the
                       model is saved
    checkpoints/       checkpoints from which an interrupted run continues
    other files        the model, as `save_pretrained` of sentence-transformers writes it
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch import arguments
from hybridsearch.encoders.models import LazyModel, check_length
from hybridsearch.errors import InvalidArgumentError, TrainingError
from hybridsearch.messages import warn
from hybridsearch.training.data import TrainingData
from hybridsearch.training.libraries import check_libraries, is_installed
from hybridsearch.training.measure.report import Report, write_report
from hybridsearch.training.models.loading import quiet
from hybridsearch.training.runs.record import (
    Evaluation,
    History,
    Record,
    check_output,
    correct_paths,
    is_main_process,
    last_good_checkpoint,
    step_of,
)
from hybridsearch.training.settings import FAMILIES, TRACKERS, ModelKind, TrainingSettings

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.evaluation import BaseEvaluator

    from hybridsearch.evaluation.comparison import Comparison

_MAY_DIFFER = ("resume", "keep_checkpoints", "trackers", "push_to_hub")  # settings that do not change the weights
_NOT_MEASURES = ("runtime", "samples_per_second", "steps_per_second", "score_to_choose_by", "sequential_score")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a training run: the folder of the model, and what was measured.

    Attributes:
        path: Folder of the trained model. sentence-transformers loads it, and so do `hs.Dense`, `hs.Sparse`,
            `hs.LateInteraction` and `hs.CrossEncoderReranker`.
        history: Course of the training.
        comparison: Comparison of the model before and after training on the test queries, or None without test queries.
        figures: Figures of the evaluators by name, before and after training. Before is None if there was no model.
        summary: Report in a few lines. The first line is the verdict: whether the model got better or worse.
        settings: Settings of the run.
    """

    path: Path
    history: History
    comparison: Comparison | None
    figures: Mapping[str, tuple[float | None, float]]
    summary: str
    settings: TrainingSettings = field(repr=False)

    def __str__(self) -> str:
        return self.summary


def fit(
    model: Any,
    kind: ModelKind,
    data: Sequence[TrainingData],
    losses: Mapping[str, torch.nn.Module],
    settings: TrainingSettings,
    output: str | Path,
    *,
    evaluator: BaseEvaluator | None = None,
    callbacks: Iterable[Any] = (),
    prompts: Mapping[str, str] | str | None = None,
    router_mapping: Mapping[str, str] | None = None,
    learning_rate_mapping: Mapping[str, float] | None = None,
    finish: Callable[[Any], object] | None = None,
    identity: Mapping[str, Any] | None = None,
    show_progress_bar: bool | None = None,
) -> History:
    """Train a model in place, keep its best weights, and save it in a folder.

    With `settings.resume`, an interrupted run continues from its last complete checkpoint. It has the same batches,
    random numbers and steps as a run without an interruption. A finished run is not trained again. Then `fit` returns
    its history, the trained model is in the folder, and `model` does not change.

    Args:
        model: Model to train, of the class that `FAMILIES` has for its kind.
        kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        data: Training data. If there are several sets, each batch comes from one of them (`settings.sampling`).
        losses: Loss of sentence-transformers for each data set, by name.
        settings: Settings of the run. `push_to_hub` is only checked here. `push` uploads the model after the report.
        output: Folder for the model.
        evaluator: Evaluator of sentence-transformers. It runs before training and at each checkpoint. Its primary
            metric chooses the best checkpoint. None keeps the last weights.
        callbacks: Callbacks of transformers (`TrainerCallback`), objects or classes.
        prompts: Text that is put before each text of a column, by column, or one text for all columns.
        router_mapping: Route of each column, for models with a Router.
        learning_rate_mapping: Learning rates by regular expressions of parameter names.
        finish: Function that gets the trained model before it is saved, such as to merge adapters.
        identity: Further facts, ready for JSON, that a run must share to continue another run.
        show_progress_bar: Whether a progress bar is shown. None shows it only in a terminal.

    Returns:
        The course of the training.

    Raises:
        InvalidArgumentError: The folder holds another run, or a run and `settings.resume` is not set. Or there are no
            data, a tracker is not installed, a callback is none, or there is patience without an evaluator.
        TrainingError: The loss is NaN or infinite, the evaluator gives no number, the memory of the GPU is too small, a
            file cannot be written, or the model hub cannot be reached.
        MissingExtraError: A library of the extra "training" is not installed.
    """
    check_libraries()
    from hybridsearch.training.runs import loop

    check_data(data, losses)
    check_trackers(settings)
    callbacks = loop.check_callbacks(callbacks)
    if settings.patience is not None and evaluator is None:
        raise InvalidArgumentError(
            f"patience is {settings.patience}, but there are no dev data to measure. Give dev, or leave patience out."
        )
    if settings.push_to_hub is not None and is_main_process():
        _check_hub(settings.push_to_hub)
    output = arguments.path("output", output).resolve()
    checkpoints = output / "checkpoints"
    if settings.max_length is not None:
        limit_length(model, settings.max_length)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    with quiet(), loop.ProgressBar(show_progress_bar) as bar:
        found = check_output(output, settings)
        record = Record(output, _facts(model, kind, data, losses, settings, identity))
        if found is not None:
            record.check_same(found)
            if found["status"] == "finished":
                return History.from_dict(found["history"])
        checkpoint = last_good_checkpoint(checkpoints) if settings.resume else None
        resumed_at = [*(found or {}).get("resumed_at", []), *([] if checkpoint is None else [step_of(checkpoint)])]
        trainer = loop.make_trainer(
            model,
            kind,
            data,
            dict(losses),
            settings,
            checkpoints,
            evaluator=evaluator,
            callbacks=[bar, *callbacks],
            arguments={
                "prompts": prompts if isinstance(prompts, str) or not prompts else dict(prompts),
                "router_mapping": dict(router_mapping or {}),
                "learning_rate_mapping": dict(learning_rate_mapping or {}),
            },
            resuming=checkpoint is not None,
        )
        if trainer.is_world_process_zero():
            record.write(status="running", resumed_at=resumed_at)
        with _room_for(output):
            _train(trainer, checkpoint, settings)
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # encode in fp32 again
        history = _history(trainer, resumed_at, settings)
        if trainer.is_world_process_zero():
            if finish is not None:
                finish(model)
            with _room_for(output):
                model.save_pretrained(str(output))
            record.write(status="finished", resumed_at=resumed_at, history=history.to_dict())
            logged = [
                entry[name] for entry in trainer.state.log_history for name in ("loss", "train_loss") if name in entry
            ]
            if logged and not any(logged):
                warn(
                    "The loss was 0 at every step, so the model learned nothing. Most losses compare the rows of a "
                    "batch: give more rows that differ, a larger batch_size, or hard_negatives."
                )
        trainer.accelerator.wait_for_everyone()
    return history


def conclude(output: Path, report: Report, settings: TrainingSettings) -> TrainingResult:
    """Write the report of a run into the folder of the model, and upload both if `settings.push_to_hub` is set."""
    if is_main_process():
        write_report(report, output)
        if settings.push_to_hub is not None:
            push(output, settings.push_to_hub)
    return TrainingResult(output, report.history, report.comparison, report.figures, report.summary, settings)


def push(output: Path, name: str) -> str:
    """Upload a trained model to the model hub, without its checkpoints and mined texts.

    Args:
        output: Folder of the model.
        name: Name on the model hub, such as "me/my-model".

    Returns:
        The address of the upload.

    Raises:
        TrainingError: The hub cannot be reached, or does not allow the upload.
    """
    from huggingface_hub import HfApi

    try:
        repository = HfApi().create_repo(name, exist_ok=True).repo_id
        kept_here = ["checkpoints/**", "negatives/**"]
        return str(HfApi().upload_folder(repo_id=repository, folder_path=output, ignore_patterns=kept_here))
    except Exception as error:  # no network, no token, no right: each hub version has its own types
        raise TrainingError(
            f"The model is in {output} with its report.md, but it cannot be uploaded as {name!r} "
            f"({str(error).strip().splitlines()[0]}). Log in with `hf auth login`, then run "
            f"`hf upload {name} {shlex.quote(str(output))}`."
        ) from error


def limit_length(model: Any, tokens: int) -> None:
    """Set the length in tokens of the longest text of a model.

    Raises InvalidArgumentError if it is too long, or leaves no room for a word.
    """
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise InvalidArgumentError(
            f"max_length is {tokens}, but the model reads at most {limit} tokens. Give at most {limit}."
        )
    check_length(model, tokens, getattr(model.tokenizer, "name_or_path", type(model).__name__))
    model.max_seq_length = tokens
    for module in model.modules():  # a late-interaction model may have a limit of its own for documents
        if getattr(module, "document_length", None) is not None:
            module.document_length = tokens


def set_dropout(model: Any, share: float) -> None:
    """Set the dropout of all layers and of attention, but not of adapters.

    The saved configuration does not change.
    """
    import torch

    for name, module in model.named_modules():
        if "lora_" in name:
            continue
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        for attribute, value in vars(module).items():
            if "dropout" in attribute and isinstance(value, float):
                setattr(module, attribute, share)


def check_data(data: Sequence[TrainingData], losses: Mapping[str, Any]) -> None:
    """Raise InvalidArgumentError if there are no data, if two names are the same, or if a loss is missing."""
    names = [one.name for one in data]
    if not data:
        raise InvalidArgumentError("There are no data to train on. Give at least one data set.")
    if len(set(names)) < len(names):
        raise InvalidArgumentError(f"The data sets have the names {names}. Give each data set its own name.")
    if missing := [name for name in names if name not in losses]:
        raise InvalidArgumentError(
            f"There is no loss for the training data {missing[0]!r}. There are losses for {list(losses)}."
        )


def _facts(
    model: Any,
    kind: ModelKind,
    data: Sequence[TrainingData],
    losses: Mapping[str, Any],
    settings: TrainingSettings,
    identity: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The facts that a run must share with an interrupted run to continue it."""
    kept = {name: value for name, value in settings.to_dict().items() if name not in _MAY_DIFFER}
    return {
        "kind": kind,
        "settings": kept,
        "model": LazyModel(model, FAMILIES[kind]).digest(),
        "data": {one.name: {"rows": len(one), "kind": str(one.kind), "content": one.digest} for one in data},
        "losses": {one.name: _loss_name(losses[one.name]) for one in data},
        **(identity or {}),
    }


def _loss_name(loss: Any) -> str:
    inner = getattr(loss, "loss", None)
    return type(loss).__name__ + (f"({_loss_name(inner)})" if hasattr(inner, "forward") else "")


def _train(trainer: Any, checkpoint: Path | None, settings: TrainingSettings) -> None:
    """Run the trainer to its end, from the checkpoint if there is one."""
    import torch

    from hybridsearch.training.runs import loop

    if checkpoint is not None:
        correct_paths(checkpoint)
        state = trainer.state.load_from_json(str(checkpoint / "trainer_state.json"))
        if loop.out_of_patience(state.log_history, settings.patience):  # interrupted after its last checkpoint
            trainer.state = state
            trainer._load_best_model()
            return
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The memory of the GPU is too small for a batch of {settings.batch_size} rows. Lower batch_size (and "
            "raise accumulation), set gradient_checkpointing, lower max_length, or take a cached loss."
        ) from error


@contextmanager
def _room_for(output: Path) -> Iterator[None]:
    """Raises TrainingError if there is no room for a file. safetensors and torch have no type of error for it."""
    try:
        yield
    except Exception as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not is_full and "I/O error" not in str(error) and "inline_container" not in str(error):
            raise
        raise TrainingError(
            f"The run cannot be written to {output} ({str(error).strip()}). Free space, then go on from the last "
            "checkpoint with resume, or give another folder."
        ) from error


def _history(trainer: Any, resumed_at: Sequence[int], settings: TrainingSettings) -> History:
    from hybridsearch.training.runs import loop

    state = trainer.state
    evaluations = []
    losses = []
    for entry in state.log_history:
        names = entry.get(loop.NAMES, entry)
        values = {name: entry[name] for name in (*names, *entry) if isinstance(entry.get(name), int | float)}
        step, epoch, seconds = int(values.pop("step")), values.pop("epoch", 0.0), values.pop(loop.SECONDS, 0.0)
        if loop.SCORE in values:
            score = values[loop.SCORE]
            named = {name.removeprefix("eval_"): value for name, value in values.items()}
            measures = {name: value for name, value in named.items() if name not in _NOT_MEASURES}
            evaluations.append(Evaluation(step, round(epoch, 4), seconds, score, measures))
        elif "loss" in values:
            losses.append((step, values))
    return History(
        evaluations=tuple(evaluations),
        losses=tuple(losses),
        steps=state.global_step,
        best_step=state.best_global_step or state.global_step,
        seconds=max((entry.get(loop.SECONDS, 0.0) for entry in state.log_history), default=0.0),
        stopped_early=state.global_step < state.max_steps
        and loop.out_of_patience(state.log_history, settings.patience),
        resumed_at=tuple(resumed_at),
        precision=next((name for name in ("bf16", "fp16") if getattr(trainer.args, name)), "fp32"),
    )


def check_trackers(settings: TrainingSettings) -> None:
    """Raise InvalidArgumentError if a tracker is not installed. Nothing is imported."""
    for tracker in settings.trackers:
        if not is_installed(tracker):
            raise InvalidArgumentError(
                f"The tracker {tracker!r} is not installed. Run `pip install {TRACKERS[tracker]}`, or leave it out."
            )


def _check_hub(name: str) -> None:
    """Raise TrainingError before the training if the model cannot be uploaded after it."""
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:  # no network, no token: each hub version has its own types
        raise TrainingError(
            f"push_to_hub is {name!r}, but the model hub cannot be reached or does not know you "
            f"({str(error).strip().splitlines()[0]}). Log in with `hf auth login`, or leave it out and upload later."
        ) from error
