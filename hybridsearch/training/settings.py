"""How a model is trained: one frozen set of values, the same for every kind of model.

The field names are the keys of a YAML file and, with hyphens, the flags of `hybridsearch train`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from hybridsearch.arguments import ALLOWED_FIRST, number, one_of, true_or_false, whole_number
from hybridsearch.encoders.models import Family
from hybridsearch.errors import InvalidArgumentError

ModelKind: TypeAlias = Literal["dense", "sparse", "reranker"]
"""What is trained: a SentenceTransformer, a SparseEncoder or a CrossEncoder."""

FAMILIES: dict[ModelKind, Family] = {
    "dense": "SentenceTransformer",
    "sparse": "SparseEncoder",
    "reranker": "CrossEncoder",
}
"""The class of sentence-transformers that each kind of model is."""

Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]
Sampling: TypeAlias = Literal["proportional", "round-robin"]
Schedule: TypeAlias = Literal["linear", "cosine", "constant"]

LEARNING_RATES: dict[ModelKind, float] = {"dense": 3e-5, "sparse": 1e-4, "reranker": 5e-5}
"""Where `TrainingSettings.learning_rate` is None."""

_WHOLE_NUMBERS = {
    **dict.fromkeys(("batch_size", "accumulation", "keep_checkpoints", "max_steps", "mini_batch_size", "patience"), 1),
    "max_length": 2,
    "seed": 0,
}
"""The least value of each."""

_NUMBERS: dict[str, dict[str, Any]] = {
    "epochs": {"above": 0},
    "warmup_ratio": {"least": 0, "below": 1},
    "weight_decay": {"least": 0},
    "dropout": {"least": 0, "below": 1},
    "learning_rate": {"above": 0, "below": 1},
}
"""The bounds of each."""

TRACKERS = ("tensorboard", "wandb", "codecarbon")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The settings of one training run; every value has a default that suits a small model on a CPU.

    Attributes:
        epochs: how often the data are gone through; a fraction is allowed.
        max_steps: stop after this many optimizer steps instead, whatever `epochs` says.
        batch_size: rows of a batch on each device, before accumulation. In-batch negatives come from these rows.
        accumulation: batches whose gradients are summed before an optimizer step.
        mini_batch_size: rows computed at a time by the cached losses, whose memory it bounds; None for 32.
        learning_rate: the highest of the schedule; None for that of `LEARNING_RATES`.
        warmup_ratio: share of the steps in which the learning rate rises from 0.
        schedule: how the learning rate falls afterwards.
        weight_decay: AdamW's, not applied to biases and layer norms.
        dropout: of the model's layers and attention (not of LoRA's matrices); None for the model's own. Without any a
            step on a CPU takes half the time, as attention need not draw a random number for each pair of tokens.
        max_length: longest text in tokens, the rest is cut off; None for the model's own. Saved with the model.
        seed: of weights that are new, of the order of the rows, and of dropout.
        precision: "auto" is bf16 on a GPU or processor that has it (AVX-512 BF16 or AMX, twice as fast as fp32), else
            fp16 on a GPU, else fp32. Weights and optimizer are fp32 in all of them.
        gradient_checkpointing: less memory for activations, for about a third more time.
        sampling: with several data sets, each batch comes from one of them: "proportional" to their sizes until all
            are used up, or "round-robin" until the first is.
        evaluate_every: below 1 a share of an epoch, else a number of steps; None for once an epoch. A checkpoint is
            written each time.
        measure: what early stopping and the best checkpoint go by, where a retrieval data set is evaluated.
        patience: stop after this many evaluations in a row without a better one; None never stops early.
        keep_checkpoints: how many checkpoints stay on disk, the best one among them.
        resume: go on from the last good checkpoint in the output folder, or start where there is none.
        trackers: of "tensorboard", "wandb" and "codecarbon", those that record the run.
        push_to_hub: name on the model hub to upload the result to, such as "me/my-model"; None uploads nothing.

    >>> TrainingSettings(epochs=1, batch_size=16).learning_rate_for("dense")
    3e-05
    >>> TrainingSettings.from_dict({"epochs": 2, "precision": "fp32"}).to_dict()["epochs"]
    2
    """

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    accumulation: int = 1
    mini_batch_size: int | None = None
    learning_rate: float | None = None
    warmup_ratio: float = 0.1
    schedule: Schedule = "linear"
    weight_decay: float = 0.0
    dropout: float | None = None
    max_length: int | None = None
    seed: int = 0
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    sampling: Sampling = "proportional"
    evaluate_every: float | None = None
    measure: str = "nDCG@10"
    patience: int | None = None
    keep_checkpoints: int = 2
    resume: bool = False
    trackers: tuple[str, ...] = ()
    push_to_hub: str | None = None

    def __post_init__(self) -> None:
        for name, value in self._numbers():
            object.__setattr__(self, name, value)
        for name in ("resume", "gradient_checkpointing"):
            true_or_false(name, getattr(self, name))
        one_of("precision", self.precision, get_args(Precision))
        one_of("sampling", self.sampling, get_args(Sampling))
        one_of("schedule", self.schedule, get_args(Schedule))
        if not isinstance(self.measure, str) or not self.measure.strip():
            raise InvalidArgumentError(f"measure is the name of a measure, such as 'nDCG@10', not {self.measure!r}.")
        if self.push_to_hub is not None and not (isinstance(self.push_to_hub, str) and self.push_to_hub.strip()):
            raise InvalidArgumentError(f"push_to_hub is a name such as 'me/my-model', not {self.push_to_hub!r}.")
        if isinstance(self.trackers, str) or _unknown(self.trackers):
            raise InvalidArgumentError(f"trackers is a list of {', '.join(TRACKERS)}, not {self.trackers!r}.")
        object.__setattr__(self, "trackers", tuple(self.trackers))  # a YAML file has a list

    def _numbers(self) -> Iterator[tuple[str, float]]:
        """Those that are given, checked, as plain numbers."""
        optional = {field.name for field in fields(self) if field.default is None}
        for name, least in _WHOLE_NUMBERS.items():
            if (value := getattr(self, name)) is not None or name not in optional:
                sentence = f"{{name}} is an integer of at least {least}, not {{value}}."
                yield name, whole_number(name, value, least, sentence=sentence)
        for name, bounds in _NUMBERS.items():
            if (value := getattr(self, name)) is not None or name not in optional:
                yield name, number(name, value, **bounds, sentence=ALLOWED_FIRST)
        if self.evaluate_every is not None:
            sentence = "{name} is a number below 1 (a share of an epoch) or a whole number of steps, not {value}."
            every = number("evaluate_every", self.evaluate_every, above=0, sentence=sentence)
            whole = every < 1 or float(every).is_integer()
            yield "evaluate_every", every if whole else whole_number("evaluate_every", every, sentence=sentence)

    def learning_rate_for(self, kind: ModelKind) -> float:
        """The learning rate that was asked for, or the one that suits the kind of model."""
        return LEARNING_RATES[kind] if self.learning_rate is None else self.learning_rate

    def to_dict(self, kind: ModelKind | None = None) -> dict[str, Any]:
        """Field name -> value, ready for JSON or YAML; with the learning rate of a kind of model where it is None."""
        rate = self.learning_rate if kind is None else self.learning_rate_for(kind)
        return asdict(self) | {"trackers": list(self.trackers), "learning_rate": rate}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """The settings with the given fields, and the default for every other one.

        Raises InvalidArgumentError where a name is not known, or a value not allowed.
        """
        return cls().with_values(values)

    def with_values(self, values: Mapping[str, Any]) -> TrainingSettings:
        """The same settings with some fields changed. Raises InvalidArgumentError as `from_dict` does."""
        known = [field.name for field in fields(self)]
        if strange := [str(name) for name in values if name not in known]:
            raise InvalidArgumentError(
                f"There is no training setting {', '.join(map(repr, strange))}; there are {', '.join(known)}."
            )
        return replace(self, **{name: _number(name, value) for name, value in values.items()})


def _number(name: str, value: Any) -> Any:
    """The number that a text stands for: YAML 1.1 reads 3e-5, without a point, as a text."""
    if isinstance(value, str) and name in (*_NUMBERS, "evaluate_every"):
        with suppress(ValueError):
            return float(value)
    return value


def _unknown(trackers: Any) -> list[str]:
    """Those that are no tracker; all of them where `trackers` is no collection."""
    try:
        return [tracker for tracker in trackers if tracker not in TRACKERS]
    except TypeError:
        return [repr(trackers)]
