"""Control the weights of the regularisers of a SPLADE in training, which decide how sparse it becomes.

The `SpladeLoss` of sentence-transformers has the regularisers. Its schedule raises their weights from 0 in the first
part of training. This module adds a target: the weights follow the measured active dimensions until a vector has as
many as were asked for. Importing this module loads torch and sentence-transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.losses import FlopsLoss, SpladeLoss
from sentence_transformers.util import batch_to_device

from hybridsearch.training.losses import RegularizerSchedule

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

SIDES = ("document", "query")

_SMOOTHING = 0.25  # share of the newest batch in the smoothed measurement
_PROPORTIONAL = 1.0  # how strongly a weight follows a change of the measured dimensions
_INTEGRAL = 12.0  # how strongly a weight follows a constant deviation, over a whole run
_LARGEST_ERROR = 1.5  # largest natural logarithm of measured / target that is used
_RANGE = 1e4  # largest factor between a weight and its first value
_TOLERANCE = 1.1  # largest factor of the target for a checkpoint without a penalty
_COMPARISONS = 20  # comparisons of training mode with evaluation mode in a run


class RegularizerControl(SpladeRegularizerWeightSchedulerCallback):  # type: ignore[misc]
    """A callback that raises the weights of a `SpladeLoss` by a schedule, and then moves them to reach a target.

    After each step, the logarithm of the weight of a side changes by a proportional-integral rule on
    e = ln(measured / target): by 1.0 times the change of e, and by 12 / steps times e. The measured value is the mean
    number of active dimensions of the batches, smoothed over steps, times a ratio. The ratio is active dimensions in
    evaluation mode by active dimensions in training mode, because dropout changes their number. It is measured on
    `samples` twenty times in a run. Each checkpoint has the state, so a resumed run continues with the same weights.
    Each log of the trainer has the weights and the active dimensions, also without a target.

    Args:
        loss: `SpladeLoss` whose weights move. Its regularisers are replaced by regularisers that count.
        schedule: How the weights rise from 0: "quadratic", "linear", or "constant" for the full weights from the first
            step.
        warmup_ratio: Share of the steps in which the weights rise, above 0 and at most 1. A target is followed after
            these steps.
        targets: Active dimensions by side, "document" and "query". A side without a target keeps its weight.
        samples: A few texts by side, for the ratio. They are needed for each side that has a target.
        name: Name of the data, which separates several losses of a run in a checkpoint.
    """

    def __init__(
        self,
        loss: SpladeLoss,
        *,
        schedule: RegularizerSchedule = "quadratic",
        warmup_ratio: float = 1 / 3,
        targets: Mapping[str, int] | None = None,
        samples: Mapping[str, Sequence[str]] | None = None,
        name: str = "data",
    ) -> None:
        rises = schedule != "constant"
        super().__init__(loss, schedule if rises else "linear", warmup_ratio if rises else 1e-9)
        self._key = f"regularizers of {name}"
        self._samples = samples or {}
        self._model = loss.model  # kept here, because several GPUs wrap the model of the loss
        self._sides: dict[str, _Side] = {}
        for side in SIDES:
            weight = getattr(loss, f"{side}_regularizer_weight")
            if weight is not None:
                regularizer = _MeasuringFlops(loss.model, getattr(loss, f"{side}_regularizer").threshold)
                setattr(loss, f"{side}_regularizer", regularizer)
                self._sides[side] = _Side(regularizer, weight, (targets or {}).get(side))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the state of a checkpoint."""
        super().on_train_begin(args, state, control, **kwargs)
        for name, values in state.stateful_callbacks.get(self._key, {}).items():
            self._sides[name].restore(values)
        self._set_highest()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, and move the weights that have a target."""
        compare = state.global_step % max(1, state.max_steps // _COMPARISONS) == 0
        for name, side in self._sides.items():
            side.measure()
            if side.target is not None and state.global_step >= self.warmup_steps:
                if compare or side.ratio is None:
                    side.ratio = _evaluation_by_training(self._model, self._samples[name], name)
                side.follow(_INTEGRAL / state.max_steps)
        self._set_highest()
        state.stateful_callbacks[self._key] = {name: side.state() for name, side in self._sides.items()}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Add the weights and the active dimensions to the logs of the training loss."""
        if logs is None or "loss" not in logs:
            return
        figures = {}
        for name, side in self._sides.items():
            figures[f"{name}_regularizer_weight"] = getattr(self.loss, f"{name}_regularizer_weight")
            if side.dims is not None:
                figures[f"{name}_active_dims_in_training"] = round(side.dims, 2)
        logs.update(figures)
        state.log_history[-1].update(figures)

    def _set_highest(self) -> None:
        """Give the weights to the schedule. Its rise is finished when the weights begin to move."""
        for name, side in self._sides.items():
            setattr(self, f"max_{name}_regularizer_weight", side.weight)


class WithinTarget(BaseEvaluator):  # type: ignore[misc]
    """An evaluator with a lower score for a model that has more active dimensions than allowed.

    Allowed are the target and a tenth more. The score is lowered by ln(measured / allowed) for each side. The scores of
    evaluators are between -1 and 1 and rarely far apart. A checkpoint that is sparse enough is therefore usually better
    than a checkpoint that is not.

    Args:
        evaluator: Evaluator of `hybridsearch.training.measure.evaluators.build_evaluator`. Figures without active
            dimensions, such as those of rows with scores, do not change.
        targets: Active dimensions by side, "document" and "query".
    """

    def __init__(self, evaluator: BaseEvaluator, targets: Mapping[str, int]) -> None:
        super().__init__()
        self.primary_metric = "score_within_target"
        self._evaluator, self._targets = evaluator, targets

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        found: dict[str, float] = self._evaluator(model, output_path, epoch, steps)
        score = found[self._evaluator.primary_metric]
        for side, target in self._targets.items():
            measured = [value for name, value in found.items() if name.endswith(f"{side}_active_dims")]
            score -= max(0.0, math.log(max([*measured, 1e-9]) / (_TOLERANCE * target)))
        return {**found, self.primary_metric: score}


class _MeasuringFlops(FlopsLoss):  # type: ignore[misc]
    """The FLOPS regulariser, which also counts the active dimensions of its input."""

    def __init__(self, model: SparseEncoder, threshold: int | None) -> None:
        super().__init__(model, threshold)
        self._counted: list[torch.Tensor] = []

    def compute_loss_from_embeddings(self, embeddings: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            self._counted.append(torch.count_nonzero(embeddings.detach(), dim=1).float().mean())
        loss: torch.Tensor = super().compute_loss_from_embeddings(embeddings)
        return loss

    def take(self) -> float | None:
        """The mean of active dimensions over batches and processes since the last call, or None without a batch."""
        counted, self._counted = self._counted, []
        device = counted[0].device if counted else next(self.model.parameters()).device
        total = torch.tensor([0.0, len(counted)], device=device)
        if counted:
            total[0] = torch.stack(counted).sum()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)  # so that the weights are the same in all processes
        summed, batches = total.tolist()
        return summed / batches if batches else None


class _Side:
    """One side, documents or queries: the highest weight of its regulariser, and the target that moves the weight."""

    def __init__(self, regularizer: _MeasuringFlops, weight: float, target: int | None) -> None:
        self.target = target
        self.weight = weight
        self.dims: float | None = None
        self.ratio: float | None = None
        self._regularizer = regularizer
        self._first = weight
        self._error: float | None = None

    def measure(self) -> None:
        new = self._regularizer.take()
        if new is not None:
            self.dims = new if self.dims is None else (1 - _SMOOTHING) * self.dims + _SMOOTHING * new

    def follow(self, integral: float) -> None:
        if self.dims is None or self.ratio is None or self.target is None:
            return
        error = math.log(max(self.dims * self.ratio, 1e-3) / self.target)
        error = min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)
        change = integral * error + _PROPORTIONAL * (error - (error if self._error is None else self._error))
        self._error = error
        self.weight = min(max(self.weight * math.exp(change), self._first / _RANGE), self._first * _RANGE)

    def state(self) -> dict[str, float | None]:
        return {"weight": self.weight, "dims": self.dims, "ratio": self.ratio, "error": self._error}

    def restore(self, values: Mapping[str, float | None]) -> None:
        self.weight = values["weight"] or self.weight
        self.dims, self.ratio, self._error = values["dims"], values["ratio"], values["error"]


def _evaluation_by_training(model: SparseEncoder, texts: Sequence[str], side: str) -> float:
    """The active dimensions of texts in evaluation mode, divided by their active dimensions in training mode."""
    active = {}
    before = model.training
    try:
        for mode in (False, True):
            model.train(mode)
            features = batch_to_device(model.preprocess(list(texts), task=side), model.device)
            with torch.no_grad():
                active[mode] = float(torch.count_nonzero(model(features)["sentence_embedding"]))
    finally:
        model.train(before)
    return active[False] / active[True] if active[True] else 1.0
