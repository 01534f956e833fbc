"""The settings of a training run, the same for every kind of model.

The field names are the keys of a YAML file. With hyphens, they are the flags of `hybridsearch train`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from hybridsearch.arguments import ALLOWED_FIRST, number, one_of, true_or_false, whole_number
from hybridsearch.encoders.model_folders import Family
from hybridsearch.errors import InvalidArgumentError

ModelKind: TypeAlias = Literal["dense", "sparse", "late-interaction", "reranker"]
"""Kind of the model. The kinds are the keys of `FAMILIES`."""

FAMILIES: dict[ModelKind, Family] = {
    "dense": "SentenceTransformer",
    "sparse": "SparseEncoder",
    "late-interaction": "MultiVectorEncoder",
    "reranker": "CrossEncoder",
}
"""The class of sentence-transformers for each kind of model."""

Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]
Sampling: TypeAlias = Literal["proportional", "round-robin"]
Schedule: TypeAlias = Literal["linear", "cosine", "constant"]

LEARNING_RATES: dict[ModelKind, float] = {"dense": 3e-5, "sparse": 1e-4, "late-interaction": 3e-5, "reranker": 5e-5}
"""The learning rate for each kind of model, if `TrainingSettings.learning_rate` is None."""

_WHOLE_NUMBERS = {
    **dict.fromkeys(("batch_size", "accumulation", "keep_checkpoints", "max_steps", "mini_batch_size", "patience"), 1),
    "max_length": 2,
    "seed": 0,
}
"""The least value of each whole number."""

_NUMBERS: dict[str, dict[str, Any]] = {
    "epochs": {"above": 0},
    "warmup_ratio": {"least": 0, "below": 1},
    "weight_decay": {"least": 0},
    "dropout": {"least": 0, "below": 1},
    "learning_rate": {"above": 0, "below": 1},
}
"""The bounds of each number."""

TRACKERS: dict[str, str] = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "codecarbon": "codecarbon",
    "clearml": "clearml",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "swanlab": "swanlab",
    "trackio": "trackio",
}
"""The trackers of transformers that can record a run (`report_to`), and the package of each."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The settings of one training run, with defaults that suit a small model on a CPU.

    Attributes:
        epochs: Number of passes over the data, above 0. Fractions are allowed.
        max_steps: Number of optimiser steps after which training stops. It replaces `epochs`. None trains for `epochs`.
        batch_size: Number of rows of a batch on each device, before accumulation. In-batch negatives come from these
            rows.
        accumulation: Number of batches whose gradients are summed before an optimiser step.
        mini_batch_size: Number of rows that the cached losses and the losses on lists compute at a time. A smaller
            number needs less memory. None takes 32.
        learning_rate: Highest learning rate of the schedule, above 0 and below 1. None takes the value for the kind of
            model in `LEARNING_RATES`.
        warmup_ratio: Share of the steps in which the learning rate rises from 0, from 0 to below 1.
        schedule: How the learning rate falls after the rise: "linear", "cosine", or "constant" for no fall.
        weight_decay: Weight decay of AdamW, 0 or more. It is not applied to biases and layer norms.
        dropout: Dropout of the model's layers and attention, from 0 to below 1. LoRA has a dropout of its own. None
            keeps the dropout of the model. With 0, a step on a CPU takes half the time.
        max_length: Length of the longest text in tokens. The rest of a text is cut off. It is saved with the model.
            None keeps the length of the model.
        seed: Seed of new weights, of the order of the rows, and of dropout.
        precision: Number format of the computation: "auto", "fp32", "fp16" or "bf16". "auto" takes bf16 on a GPU or
            processor that has it (AVX-512 BF16 or AMX, twice as fast as fp32), else fp16 on a GPU, else fp32. The
            weights and the optimiser are always fp32.
        gradient_checkpointing: Whether activations are computed again instead of kept. This takes less memory and about
            a third more time.
        sampling: How batches are drawn from several data sets. Each batch comes from one data set: "proportional" to
            the sizes until all data sets are used up, or "round-robin" until the first data set is used up.
        evaluate_every: Number of steps between two evaluations. A number below 1 is a share of an epoch. None
            evaluates once an epoch. Each evaluation writes a checkpoint.
        measure: Measure that chooses the best checkpoint and stops early, if dev is measured by searching documents.
        patience: Number of evaluations. Training stops if so many in a row are not better than an earlier one. None
            never stops early.
        keep_checkpoints: Number of checkpoints that stay on disk. The best checkpoint always stays.
        resume: Whether a run continues from the last complete checkpoint in the output folder. If there is none, the
            run starts from the beginning.
        trackers: Trackers that record the run, from the names in `TRACKERS`, such as "mlflow" or "tensorboard". Their
            own environment variables, such as MLFLOW_TRACKING_URI, say where they write and how they log in.
        push_to_hub: Name on the model hub to which the result is uploaded, such as "me/my-model". None uploads nothing.

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
            raise InvalidArgumentError(f"measure is {self.measure!r}. Give the name of a measure, such as 'nDCG@10'.")
        if self.push_to_hub is not None and not (isinstance(self.push_to_hub, str) and self.push_to_hub.strip()):
            raise InvalidArgumentError(f"push_to_hub is {self.push_to_hub!r}. Give a name such as 'me/my-model'.")
        trackers = tuple(self.trackers) if isinstance(self.trackers, Iterable) else (self.trackers,)
        if isinstance(self.trackers, str) or not all(isinstance(one, str) and one in TRACKERS for one in trackers):
            raise InvalidArgumentError(f"trackers is {self.trackers!r}. Give a list of some of {', '.join(TRACKERS)}.")
        object.__setattr__(self, "trackers", trackers)  # a YAML file has a list

    def _numbers(self) -> Iterator[tuple[str, float]]:
        """The names and values of the numbers that are given, checked and as plain numbers."""
        optional = {field.name for field in fields(self) if field.default is None}
        for name, least in _WHOLE_NUMBERS.items():
            if (value := getattr(self, name)) is not None or name not in optional:
                sentence = f"{{name}} is {{value}}. Give a whole number of at least {least}."
                yield name, whole_number(name, value, least, sentence=sentence)
        for name, bounds in _NUMBERS.items():
            if (value := getattr(self, name)) is not None or name not in optional:
                yield name, number(name, value, **bounds, sentence=ALLOWED_FIRST)
        if self.evaluate_every is not None:
            sentence = "{name} is {value}. Give a number below 1 (a share of an epoch) or a whole number of steps."
            every = number("evaluate_every", self.evaluate_every, above=0, sentence=sentence)
            whole = every < 1 or float(every).is_integer()
            yield "evaluate_every", every if whole else whole_number("evaluate_every", every, sentence=sentence)

    def learning_rate_for(self, kind: ModelKind) -> float:
        """Return the learning rate of the settings, or the default for the kind of model if it is None.

        Args:
            kind: Kind of model: "dense", "sparse", "late-interaction" or "reranker".
        """
        return LEARNING_RATES[kind] if self.learning_rate is None else self.learning_rate

    def to_dict(self, kind: ModelKind | None = None) -> dict[str, Any]:
        """Convert the settings to a dict of field names and values, for JSON or YAML.

        Args:
            kind: Kind of model whose default replaces a learning rate of None. None keeps it as it is.
        """
        rate = self.learning_rate if kind is None else self.learning_rate_for(kind)
        return asdict(self) | {"trackers": list(self.trackers), "learning_rate": rate}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Make settings from a mapping of field names to values.

        Other fields have their defaults.

        Args:
            values: Field names and values, such as those of a YAML file.

        Raises:
            InvalidArgumentError: A name is not known, or a value is not allowed.
        """
        return cls().with_values(values)

    def with_values(self, values: Mapping[str, Any]) -> TrainingSettings:
        """Copy the settings and change some of their fields.

        Args:
            values: Names of the fields that change, and their new values.

        Raises:
            InvalidArgumentError: A name is not known, or a value is not allowed.
        """
        known = [field.name for field in fields(self)]
        if strange := [str(name) for name in values if name not in known]:
            raise InvalidArgumentError(
                f"There is no training setting {', '.join(map(repr, strange))}. The settings are {', '.join(known)}."
            )
        return replace(self, **{name: _number(name, value) for name, value in values.items()})


def _number(name: str, value: Any) -> Any:
    """Read a text as a number: YAML 1.1 reads 3e-5, which has no point, as a text."""
    if isinstance(value, str) and name in (*_NUMBERS, "evaluate_every"):
        with suppress(ValueError):
            return float(value)
    return value
