"""How sparse a SPLADE becomes: the weights of its regularisers while it is trained.

Importing this module loads torch and sentence-transformers, whose `SpladeLoss` has the regularisers and whose schedule
raises their weights from 0 in the first part of training. Added here is a target: the weights follow what is measured,
until a vector has as many active dimensions as was asked for.
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

_SMOOTHING = 0.25  # of the newest batch in what is measured
_PROPORTIONAL = 1.0  # how strongly a weight answers to a change of the measured dimensions
_INTEGRAL = 12.0  # and, over a whole run, to a deviation that stays
_LARGEST_ERROR = 1.5  # natural logarithm of measured by asked for, beyond which the answer gets no stronger
_RANGE = 1e4  # how far a weight goes from where it started, as a factor
_TOLERANCE = 1.1  # how much above its target a side may be, when the best checkpoint is chosen
_COMPARISONS = 20  # of training mode with evaluation mode, in a run


class RegularizerControl(SpladeRegularizerWeightSchedulerCallback):  # type: ignore[misc]
    """Raises the weights of a `SpladeLoss` by a schedule; then, where there is a target, moves them towards it.

    After each step the logarithm of a side's weight changes by a proportional-integral rule on
    e = ln(measured / target): by 1.0 times the change of e, and by 12 / steps times e. Measured are the mean active
    dimensions of the step's batches, smoothed over steps, times the ratio of evaluation mode to training mode. This
    ratio is taken on `samples` twenty times in a run, as dropout changes how many dimensions are active. The state is
    in each checkpoint, so that a resumed run goes on with the same weights. Weights and active dimensions are in each
    log of the trainer, target or not.

    Args:
        loss: the `SpladeLoss` whose weights move; its regularisers become measuring ones.
        schedule: how the weights rise from 0; "constant" for the full weights from the first step.
        warmup_ratio: in which part of the steps, above 0 and at most 1. A target is followed after that.
        targets: active dimensions by side, "document" and "query"; a side without one keeps its weight.
        samples: a few texts by side, for the ratio; needed for each side that has a target.
        name: of the data, so that several losses of a run keep apart in a checkpoint.
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
        self._model = loss.model  # that of the loss is wrapped while several GPUs train
        self._sides: dict[str, _Side] = {}
        for side in SIDES:
            weight = getattr(loss, f"{side}_regularizer_weight")
            if weight is not None:
                regularizer = _MeasuringFlops(loss.model, getattr(loss, f"{side}_regularizer").threshold)
                setattr(loss, f"{side}_regularizer", regularizer)
                self._sides[side] = _Side(regularizer, weight, (targets or {}).get(side))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Also takes over what a checkpoint says."""
        super().on_train_begin(args, state, control, **kwargs)
        for name, values in state.stateful_callbacks.get(self._key, {}).items():
            self._sides[name].restore(values)
        self._set_highest()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures, and moves the weights that have a target."""
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
        """Adds weights and active dimensions to the logs of the training loss."""
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
        """Hand the weights to the schedule, which is done with rising when they begin to move."""
        for name, side in self._sides.items():
            setattr(self, f"max_{name}_regularizer_weight", side.weight)


class WithinTarget(BaseEvaluator):  # type: ignore[misc]
    """An evaluator whose score falls by ln(measured / allowed) where a side has more active dimensions than allowed.

    Allowed is the target and a tenth more. So a checkpoint that is sparse enough goes before any that is not, as the
    inner evaluator's figures are between -1 and 1 and rarely far apart.

    Args:
        evaluator: as `hybridsearch.training.measure.evaluators.build_evaluator` makes it; figures without active
            dimensions, as of rows with scores, stay as they are.
        targets: active dimensions by side, "document" and "query".
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
    """The FLOPS regulariser, which also counts the active dimensions of what it is given."""

    def __init__(self, model: SparseEncoder, threshold: int | None) -> None:
        super().__init__(model, threshold)
        self._counted: list[torch.Tensor] = []

    def compute_loss_from_embeddings(self, embeddings: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            self._counted.append(torch.count_nonzero(embeddings.detach(), dim=1).float().mean())
        loss: torch.Tensor = super().compute_loss_from_embeddings(embeddings)
        return loss

    def take(self) -> float | None:
        """The mean over batches and processes since the last call; None without a batch."""
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
    """Documents or queries: the highest weight of their regulariser, and the target that moves it."""

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
    """Active dimensions of the texts in evaluation mode, divided by those in training mode."""
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
