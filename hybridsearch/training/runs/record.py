"""What a run leaves in its folder so that it can go on after a kill: a record of its course, and checkpoints."""

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
"""What a folder with this file holds, which is no place for a trained model."""

_VERSIONS = ("sentence-transformers", "transformers", "torch", "datasets", "accelerate", "peft")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on the dev data.

    Attributes:
        step: optimizer steps done; 0 is the model before training.
        epoch: passes over the data done.
        seconds: since the run began, without the time between a kill and its resumption.
        score: the figure by which the best checkpoint is chosen; larger is better.
        measures: all that the evaluator gave, by its names.
    """

    step: int
    epoch: float
    seconds: float
    score: float
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class History:
    """The course of a run.

    Attributes:
        evaluations: in order; empty without dev data.
        losses: (step, the mean of the loss and of its parts since the last one).
        steps: optimizer steps done in all.
        best_step: the step whose weights were kept; the last one without dev data.
        seconds: all the time it took, without the time between a kill and its resumption.
        stopped_early: whether `patience` ended it.
        resumed_at: the steps from which it went on after having been broken off.
        precision: that it was computed in: "fp32", "bf16" or "fp16".
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
        """One sentence: which step was kept, whether it stopped early or was broken off, and the precision."""
        chosen = "the best on dev" if self.evaluations else "the last one, as there were no dev data"
        parts = [f"Step {self.best_step} of {self.steps} was kept, {chosen}"]
        if self.stopped_early:
            parts.append("training stopped early, as no better one came")
        if self.resumed_at:
            parts.append(f"it was broken off and went on after step {' and '.join(map(str, self.resumed_at))}")
        if self.precision:
            parts.append(f"computed in {self.precision}")
        return "; ".join(parts) + "."

    @property
    def start(self) -> Evaluation | None:
        """The evaluation before training."""
        return next((one for one in self.evaluations if one.step == 0), None)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of the weights that were kept."""
        return next((one for one in self.evaluations if one.step == self.best_step), None)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> History:
        """What `to_dict` gave, also by way of JSON."""
        lists = {
            "evaluations": tuple(Evaluation(**one) for one in values["evaluations"]),
            "losses": tuple((step, parts) for step, parts in values["losses"]),
            "resumed_at": tuple(values["resumed_at"]),
        }
        return cls(**{**values, **lists})


def check_output(output: str | Path, settings: TrainingSettings) -> dict[str, Any] | None:
    """What `training.json` in the folder says; None where a new run may start there.

    Raises InvalidArgumentError where the folder is not free for this run, as `fit` says, or holds something else.
    """
    output = arguments.path("output", output)
    found = _read_record(output / _RECORD)
    if output.exists() and not output.is_dir():
        raise InvalidArgumentError(f"{output} is a file: give a folder for the trained model.")
    if found is None:
        if there := next((what for name, what in _OF_OTHERS.items() if (output / name).exists()), None):
            raise InvalidArgumentError(f"{output} holds {there}: give another folder for the trained model.")
        return None
    if not settings.resume and is_main_process():
        if found["status"] == "finished":
            raise InvalidArgumentError(
                f"{output} holds a finished run: give another folder, remove this one, or load it with resume=True "
                "(--resume)."
            )
        raise InvalidArgumentError(
            f"{output} holds a run that was broken off: go on with it by resume=True (--resume), or remove the folder."
        )
    return found if settings.resume else None


def last_good_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint in the folder that was written to its end; those after it are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if _is_complete(checkpoint):
            return checkpoint
        if is_main_process():
            shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps after which it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def is_main_process() -> bool:
    """Whether this process is the first, or the only one, of a run."""
    return int(os.environ.get("RANK", "0")) == 0


def has_several_processes() -> bool:
    """Whether this run is one of accelerate or torchrun with more processes than one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def correct_paths(checkpoint: Path) -> None:
    """Let the checkpoint find the best one where the folder was moved in between."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    if state.get("best_model_checkpoint"):
        best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
        if str(best) != state["best_model_checkpoint"]:
            path.write_text(json.dumps({**state, "best_model_checkpoint": str(best)}), encoding="utf-8")


class Record:
    """`training.json` of a run."""

    def __init__(self, output: Path, facts: Mapping[str, Any]) -> None:
        self._path = output / _RECORD
        self._facts = json.loads(json.dumps(facts))

    def check_same(self, found: Mapping[str, Any]) -> None:
        """Raises InvalidArgumentError where the folder's run is not this one."""
        before = _flat(found["facts"])
        now = _flat(self._facts)
        if differ := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            shown = "; ".join(_difference(name, before.get(name), now.get(name)) for name in differ[:3])
            raise InvalidArgumentError(
                f"{self._path.parent} holds another run, which cannot be resumed with this one's settings ({shown}): "
                "give the same ones, or another folder."
            )

    def write(self, **state: Any) -> None:
        """Replace the file, so that a kill leaves the old or the new one."""
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
    raise InvalidArgumentError(f"{path} is damaged, or not of a training run: give another folder, or remove this one.")


def _difference(name: str, then: Any, now: Any) -> str:
    """How a fact differs. Two digests say only that it has changed."""
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
    """Whether all files of a checkpoint are whole; its state is the last that is written."""
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
