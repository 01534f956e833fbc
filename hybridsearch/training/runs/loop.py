"""The trainers of sentence-transformers, made safe for long runs (`hybridsearch.training.runs.run.fit`).

Importing this module loads torch and transformers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import datasets
import sentence_transformers
import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from safetensors.torch import load_file, save_file
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import BatchSamplers, DefaultBatchSampler, GroupByLabelBatchSampler
from torch.utils.data import RandomSampler
from transformers.trainer_callback import PrinterCallback

from hybridsearch.errors import InvalidArgumentError, TrainingError
from hybridsearch.evaluation.formats import duration
from hybridsearch.training.data import TrainingData
from hybridsearch.training.settings import FAMILIES, ModelKind, TrainingSettings

SCORE = "eval_score_to_choose_by"
"""Key of the figure that chooses the best checkpoint, in the log of each evaluation. Larger is better."""

SECONDS = "seconds"
"""Key of the time since the run began, in each log. The time between an interruption and its end is not counted."""

NAMES = "names"
"""Key of the names of the figures in order, in each log, because a checkpoint sorts the figures."""

_LOSS_WEIGHTS = "losses.safetensors"


def make_trainer(
    model: Any,
    kind: ModelKind,
    data: Sequence[TrainingData],
    losses: dict[str, torch.nn.Module],
    settings: TrainingSettings,
    folder: Path,
    *,
    evaluator: BaseEvaluator | None,
    callbacks: Sequence[Any],
    arguments: dict[str, Any],
    resuming: bool,
) -> Any:
    """Make a trainer that is ready for `train()`.

    Args:
        model: Model to train, as in `hybridsearch.training.runs.run.fit`.
        kind: Kind of the model.
        data: Training data.
        losses: Loss of each data set by its name.
        settings: Settings of the run.
        folder: Folder for checkpoints.
        evaluator: Evaluator that chooses the best checkpoint, or None.
        callbacks: Further callbacks of the trainer.
        arguments: Further training arguments of sentence-transformers, such as router_mapping.
        resuming: Whether `train` will get a checkpoint.
    """
    args = getattr(sentence_transformers, f"{FAMILIES[kind]}TrainingArguments")(
        output_dir=str(folder),
        run_name=folder.parent.name,
        **_arguments(kind, settings),
        eval_strategy="no" if evaluator is None else "steps",
        eval_on_start=evaluator is not None and not resuming,
        load_best_model_at_end=evaluator is not None,
        metric_for_best_model=None if evaluator is None else SCORE,
        greater_is_better=True,
        **arguments,
    )
    model.model_card_data.set_widget_examples = lambda dataset: None  # no random rows of the data in the model card
    rows = {one.name: one.rows for one in data}
    several = len(rows) > 1
    trainer_class = getattr(sentence_transformers, f"{FAMILIES[kind]}Trainer")
    trainer = type(trainer_class.__name__, (_Careful, trainer_class), {})(
        model=model,
        args=args,
        train_dataset=datasets.DatasetDict(rows) if several else data[0].rows,
        loss=losses if several else losses[data[0].name],
        evaluator=None if evaluator is None else _Scored(evaluator),
        callbacks=[_Clock(), _EarlyStop(settings.patience), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.gradient_checkpointing:
        _recompute_activations(model)
    steps = steps_of_epoch(trainer)
    every = settings.evaluate_every or steps
    args.eval_steps = args.save_steps = max(1, round(every * steps if every < 1 else every))
    args.logging_steps = max(1, min(10, args.eval_steps))
    return trainer


def check_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    """Return the callbacks as a list. Raise InvalidArgumentError if one of them is not a callback of transformers."""
    kept = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for one in kept:
        if not issubclass(one if isinstance(one, type) else type(one), transformers.TrainerCallback):
            raise InvalidArgumentError(
                f"callbacks has {one!r:.80}. Give a list of transformers.TrainerCallback objects or classes."
            )
    return kept


def steps_of_epoch(trainer: Any) -> int:
    """The number of optimiser steps of one pass over the data.

    Raises InvalidArgumentError if the data do not fill a batch in each of several processes, which drop smaller ones.
    """
    batches = len(trainer.get_train_dataloader())
    if not batches:
        raise InvalidArgumentError(
            f"The data do not fill a batch of {trainer.args.per_device_train_batch_size} rows in each of "
            f"{trainer.args.world_size} processes. Lower batch_size, or train in fewer processes."
        )
    return max(1, math.ceil(batches / int(trainer.args.gradient_accumulation_steps)))


def out_of_patience(log: Sequence[dict[str, Any]], patience: int | None) -> bool:
    """Whether the last `patience` evaluations were not better than an earlier one.

    Step 0 does not count.
    """
    scores = [entry[SCORE] for entry in log if SCORE in entry and entry["step"] > 0]
    return patience is not None and len(scores) - 1 - scores.index(max(scores)) >= patience if scores else False


def _arguments(kind: ModelKind, settings: TrainingSettings) -> dict[str, Any]:
    precision = _precision(settings)
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    return {
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate_for(kind),
        "warmup_steps": settings.warmup_ratio,  # below 1 it is a share
        "lr_scheduler_type": schedule,
        "weight_decay": settings.weight_decay,
        "seed": settings.seed,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": not torch.accelerator.is_available(),
        "save_strategy": "steps",
        "save_total_limit": settings.keep_checkpoints,
        "batch_sampler": BatchSamplers.NO_DUPLICATES,
        "multi_dataset_batch_sampler": settings.sampling.replace("-", "_"),
        "report_to": list(settings.trackers) or "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _recompute_activations(model: Any) -> None:
    """Gradient checkpointing, which transformers 5 calls activation checkpointing."""
    for module in model.modules():
        if isinstance(module, transformers.PreTrainedModel):
            renamed = getattr(module, "activation_checkpointing_enable", None)
            enable = renamed or module.gradient_checkpointing_enable
            enable({"use_reentrant": False})


def _precision(settings: TrainingSettings) -> str:
    on_gpu = torch.cuda.is_available()
    if settings.precision == "fp16" and not on_gpu:
        raise InvalidArgumentError("precision 'fp16' needs a GPU, and there is none. Leave precision out.")
    if settings.precision != "auto":
        return settings.precision
    if not on_gpu:
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of torch 2.10 and later
        return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


class _Careful:
    """The changes to a trainer of sentence-transformers. This class comes before the trainer in the bases."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        trainer: Any = super()
        loss: torch.Tensor = trainer.training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise TrainingError(
                f"The loss is {loss.item()} at step {step}. Look for odd rows in the data, lower the learning rate, or "
                "train with precision 'fp32'. The checkpoints so far can be used."
            )
        return loss

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **options: Any) -> Any:
        """Draw labelled rows in random order, and other rows so that no text comes twice in a batch.

        A text that comes twice would be its own negative. Of texts with a class, two of the same class come together.
        All orders depend only on seed and epoch, so a resumed run sees the same batches.
        """
        if dataset.column_names == ["text", "label"] and not hasattr(dataset.features["label"], "feature"):
            if batch_size < 4 or batch_size % 2:
                raise InvalidArgumentError(f"batch_size is {batch_size}. For texts with class, give 4, 6, 8 or so on.")
            return GroupByLabelBatchSampler(dataset, batch_size, drop_last, **options)
        if not {"label", "labels"}.isdisjoint(dataset.column_names):
            random = RandomSampler(dataset, generator=options["generator"])
            return _Shuffled(random, batch_size=batch_size, drop_last=drop_last, **options)
        trainer: Any = super()
        return trainer.get_batch_sampler(dataset, batch_size, drop_last, **options)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save also the weights of the losses, such as the classifier of softmax, which are not part of the model."""
        trainer: Any = super()
        trainer._save(output_dir, state_dict)
        if weights := self._weights_of_losses():
            save_file({name: one.detach() for name, one in weights.items()}, Path(output_dir or "") / _LOSS_WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        trainer: Any = super()
        trainer._load_from_checkpoint(checkpoint_path)
        if weights := self._weights_of_losses():
            kept = load_file(Path(checkpoint_path) / _LOSS_WEIGHTS)
            with torch.no_grad():
                for name, one in weights.items():
                    one.copy_(kept[name])

    def _weights_of_losses(self) -> dict[str, torch.Tensor]:
        loss: Any = self.loss  # type: ignore[attr-defined]
        losses = torch.nn.ModuleDict(loss if isinstance(loss, dict) else {"data": loss})
        of_model = {id(one) for one in self.model.parameters()}  # type: ignore[attr-defined]
        own = ((name, one) for name, one in losses.named_parameters() if id(one) not in of_model)
        return {name: one for name, one in own if one.requires_grad}  # a guide is not trained

    def _load_best_model(self) -> None:
        """Load the best checkpoint or raise an error. The trainer would only log a failure and keep other weights."""
        self._load_from_checkpoint(self.state.best_model_checkpoint)  # type: ignore[attr-defined]


class _Shuffled(DefaultBatchSampler):  # type: ignore[misc]
    """Batches in a random order that depends on seed and epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        yield from super().__iter__()


class _Scored(BaseEvaluator):  # type: ignore[misc]
    """An evaluator that also gives its primary figure under a fixed name. Larger is better."""

    def __init__(self, evaluator: BaseEvaluator) -> None:
        super().__init__()
        self.evaluator = evaluator

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        found = self.evaluator(model, output_path, epoch, steps)
        if not isinstance(found, dict):
            found = {"score": found}
        name = getattr(self.evaluator, "primary_metric", None) or next(iter(found), "")
        score: Any = found.get(name)
        score = score.item() if hasattr(score, "item") else score
        if not isinstance(score, Real) or math.isnan(score):
            raise TrainingError(
                f"The evaluator gave {score!r:.80} as {name!r}, which cannot choose a checkpoint. Give an evaluator "
                "whose first figure is a number for each model. The checkpoints so far can be used."
            )
        sign = 1 if self.evaluator.greater_is_better else -1
        return {**found, SCORE.removeprefix("eval_"): sign * score}


class _Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """Write the time of the run, over all its parts, and the order of the figures into each log."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        before = max((entry.get(SECONDS, 0.0) for entry in state.log_history), default=0.0)
        self._began = time.monotonic() - before

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        entry = state.log_history[-1]
        entry |= {NAMES: list(entry), SECONDS: round(time.monotonic() - self._began, 3)}


class _EarlyStop(transformers.TrainerCallback):  # type: ignore[misc]
    """Stop training early, by the logs, which checkpoints keep."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if out_of_patience(state.log_history, self._patience):
            control.should_training_stop = True


class ProgressBar(transformers.TrainerCallback):  # type: ignore[misc]
    """A progress bar with the steps, the loss, the last score on dev and the time left.

    It is a context manager.

    For a sparse model, it also shows the active dimensions. If the output is not a terminal and `show` is None, it
    prints a line from time to time.

    Args:
        show: Whether the bar is shown. None shows it only in a terminal.
        console: Console to print on. None takes stderr.
        every: Seconds between two lines outside of a terminal.
    """

    def __init__(self, show: bool | None, console: Console | None = None, every: float = 30.0) -> None:
        console = console or Console(stderr=True)
        steps = "{task.completed:,.0f}/{task.total:,.0f} steps{task.fields[figures]}"
        columns = (
            TextColumn("Training"),
            BarColumn(),
            TextColumn(steps, table_column=Column()),  # wraps in a narrow terminal, so that the times are not cut off
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, speed_estimate_period=600)
        self._shown = console.is_terminal if show is None else show
        self._lines = console.file if show is None and not console.is_terminal else None
        self._every = every  # seconds
        self._began = (0, 0.0)  # the step, and when
        self._said = 0.0
        self._figures: dict[str, str] = {}

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # a bar that has not started would print an empty line
            self._bar.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar, or start to print lines."""
        self._said = time.monotonic()
        self._began = (state.global_step, self._said)
        if not state.is_world_process_zero:
            self._lines = None
        elif self._shown:
            self._bar.start()
            self._bar.add_task("", total=state.max_steps, completed=state.global_step, figures="")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the step, and print a line if it is time."""
        self._update(state.global_step)
        now = time.monotonic()
        if self._lines is not None and now - self._said >= self._every:
            self._said = now
            first, since = self._began
            rate = (state.global_step - first) / (now - since)
            left = (state.max_steps - state.global_step) / rate
            line = f"Training: step {state.global_step:,} of {state.max_steps:,}{self._shown_figures()}"
            print(f"{line} · {rate:.3g} steps/s · {duration(left)} left", file=self._lines, flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Take the figures of a log, and show them."""
        for label, name in (("loss", "loss"), ("dev", SCORE)):
            if name in logs:
                self._figures[label] = f"{logs[name]:.4f}"
        active = []
        for side in ("document", "query"):  # of several data sets, the first
            found = next((value for name, value in logs.items() if name.endswith(f"{side}_active_dims")), None)
            if found is not None:
                active.append(f"{found:.0f} a {side}")
        if active:
            self._figures["active dimensions"] = ", ".join(active)
        self._update(state.global_step)

    def _update(self, step: int) -> None:
        for task in self._bar.task_ids:
            self._bar.update(task, completed=step, figures=self._shown_figures())

    def _shown_figures(self) -> str:
        return "".join(f" · {label} {value}" for label, value in self._figures.items())
