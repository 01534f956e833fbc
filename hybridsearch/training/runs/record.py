"""The record and the checkpoints of a run, with which it continues after an interruption."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridsearch import arguments
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.libraries import versions_of
from hybridsearch.training.settings import TrainingSettings

_DIGEST = re.compile("[0-9a-f]{16}")
_RECORD = "training.json"
_OF_OTHERS = {
    "modules.json": "a model that was not trained here",
    "config.json": "a model that was not trained here",
    "manifest.json": "an index or encoded documents",
    "mining.json": "mined negatives",
    "meta.json": "an index of Qdrant",
    "corpus.jsonl": "a data set",
    "qrels": "a data set",
    "dataset_info.json": "a data set",
    "dataset_dict.json": "a data set",
}
"""Files that show that a folder holds something else, and what it holds."""

_VERSIONS = ("sentence-transformers", "transformers", "torch", "datasets", "accelerate", "peft")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The measures of a model on dev at one step of training.

    Attributes:
        step: Number of optimiser steps so far. 0 is the model before training.
        epoch: Number of passes over the data so far.
        seconds: Time since the run began, without interruptions.
        score: Figure that chooses the best checkpoint. Larger is better.
        measures: All figures of the evaluator by name.
    """

    step: int
    epoch: float
    seconds: float
    score: float
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class History:
    """The course of a training run: evaluations, losses, steps and time.

    Attributes:
        evaluations: Evaluations in order. Empty without dev.
        losses: Pairs of a step and the means of the loss and its parts since the pair before.
        steps: Number of optimiser steps of the run.
        best_step: Step whose weights were kept. Without dev, the last step.
        seconds: Time of the run in seconds, without interruptions.
        stopped_early: Whether `patience` ended the run.
        resumed_at: Steps at which the run continued after an interruption.
        precision: Number format of the computation: "fp32", "bf16" or "fp16".
    """

    evaluations: tuple[Evaluation, ...] = ()
    losses: tuple[tuple[int, Mapping[str, float]], ...] = ()
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    stopped_early: bool = False
    resumed_at: tuple[int, ...] = ()
    precision: str = ""

    @property
    def course(self) -> str:
        """A few sentences: the step that was kept, early stopping, interruptions, and the precision."""
        chosen = "the best on dev" if self.evaluations else "the last step, because there were no dev data"
        parts = [f"Step {self.best_step} of {self.steps} was kept: {chosen}"]
        if self.stopped_early:
            parts.append("Training stopped early, because later steps were not better")
        if self.resumed_at:
            steps = " and ".join(map(str, self.resumed_at))
            parts.append(f"The run was interrupted, and continued after step {steps}")
        if self.precision:
            parts.append(f"It was computed in {self.precision}")
        return ". ".join(parts) + "."

    @property
    def start(self) -> Evaluation | None:
        """The evaluation before training, or None."""
        return next((one for one in self.evaluations if one.step == 0), None)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of the weights that were kept, or None."""
        return next((one for one in self.evaluations if one.step == self.best_step), None)

    def to_dict(self) -> dict[str, Any]:
        """The history as a dictionary, ready for JSON.

        `from_dict` reads it.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> History:
        """Read the history from the dictionary of `to_dict`, also after JSON.

        Args:
            values: Dictionary of `to_dict`.
        """
        lists = {
            "evaluations": tuple(Evaluation(**one) for one in values["evaluations"]),
            "losses": tuple((step, parts) for step, parts in values["losses"]),
            "resumed_at": tuple(values["resumed_at"]),
        }
        return cls(**{**values, **lists})


def check_output(output: str | Path, settings: TrainingSettings) -> dict[str, Any] | None:
    """Check that a run may use a folder, and read the record of the run that is there.

    Args:
        output: Folder for the model.
        settings: Settings of the run.

    Returns:
        The content of training.json for a run that continues, or None for a new run.

    Raises:
        InvalidArgumentError: The folder holds another run or something else.
    """
    output = arguments.path("output", output)
    found = _read_record(output / _RECORD)
    if output.exists() and not output.is_dir():
        raise InvalidArgumentError(f"{output} is a file. Give a folder for the trained model.")
    if found is None:
        if there := next((what for name, what in _OF_OTHERS.items() if (output / name).exists()), None):
            raise InvalidArgumentError(f"{output} holds {there}. Give another folder for the trained model.")
        return None
    if not settings.resume and is_main_process():
        if found["status"] == "finished":
            raise InvalidArgumentError(
                f"{output} holds a finished run. Give another folder, remove this folder, or load the run with "
                "resume=True (--resume)."
            )
        raise InvalidArgumentError(
            f"{output} holds a run that was interrupted. Continue it with resume=True (--resume), or remove the folder."
        )
    return found if settings.resume else None


def last_good_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint in a folder, or None.

    Later checkpoints, which are not complete, are removed.
    """
    checkpoints = [one for one in folder.glob("checkpoint-*") if one.name.removeprefix("checkpoint-").isdecimal()]
    for checkpoint in sorted(checkpoints, key=step_of, reverse=True):
        if _is_complete(checkpoint):
            return checkpoint
        if is_main_process():
            shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """The number of optimiser steps after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def is_main_process() -> bool:
    """Whether this process is the first or the only process of a run."""
    return int(os.environ.get("RANK", "0")) == 0


def has_several_processes() -> bool:
    """Whether accelerate or torchrun runs several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def correct_paths(checkpoint: Path) -> None:
    """Correct the path of the best checkpoint in a checkpoint, in case the folder was moved."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    if state.get("best_model_checkpoint"):
        best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
        if str(best) != state["best_model_checkpoint"]:
            path.write_text(json.dumps({**state, "best_model_checkpoint": str(best)}), encoding="utf-8")


class Record:
    """The file training.json of a run.

    Args:
        output: Folder of the run.
        facts: Facts that a run must share to continue another run, ready for JSON.
    """

    def __init__(self, output: Path, facts: Mapping[str, Any]) -> None:
        self._path = output / _RECORD
        self._facts = json.loads(json.dumps(facts))

    def check_same(self, found: Mapping[str, Any]) -> None:
        """Raise InvalidArgumentError if the run in the folder is another run."""
        before = _flat(found["facts"])
        now = _flat(self._facts)
        if differ := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            shown = "; ".join(_difference(name, before.get(name), now.get(name)) for name in differ[:3])
            raise InvalidArgumentError(
                f"{self._path.parent} holds another run, which cannot continue with these settings ({shown}). Give the "
                "same settings or another folder."
            )

    def write(self, **state: Any) -> None:
        """Replace the file.

        After an interruption, the folder has the old or the new file.
        """
        python = platform.python_version()
        content = {**state, "facts": self._facts, "python": python, "versions": versions_of(_VERSIONS)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._path)


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"status", "facts"} <= content.keys():
            return content
    except (OSError, ValueError, AttributeError):
        pass
    raise InvalidArgumentError(
        f"{path} is damaged, or is not the file of a training run. Give another folder, or remove this folder."
    )


def _difference(name: str, then: Any, now: Any) -> str:
    """How a fact differs between two runs. Digests are not shown."""
    digests = all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in (then, now))
    return f"{name} has changed" if digests else f"{name}: {then!r} then, {now!r} now"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _is_complete(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint are complete. The state is written last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        archives = [file for file in checkpoint.glob("*.pt") if file.stem in ("optimizer", "scheduler")]
        return len(archives) == 2 and all(map(zipfile.is_zipfile, archives)) and _weights_are_whole(checkpoint)
    except (OSError, ValueError):
        return False


def _weights_are_whole(folder: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        for file in folder.rglob("*.safetensors"):
            with safe_open(file, "pt"):
                pass
    except SafetensorError:
        return False
    return True
