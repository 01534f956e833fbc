"""Tests of the settings of a run: wrong values are refused, and a file keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.settings import TrainingSettings

yaml: Any = pytest.importorskip("yaml", reason="pip install 'hybridsearch[training]'")


def test_settings_survive_a_yaml_file() -> None:
    settings = TrainingSettings(epochs=0.5, learning_rate=3e-5, trackers=("wandb",), evaluate_every=0.25, patience=3)

    assert TrainingSettings.from_dict(yaml.safe_load(yaml.safe_dump(settings.to_dict()))) == settings


def test_a_number_that_yaml_takes_for_a_text_is_read() -> None:
    assert TrainingSettings.from_dict(yaml.safe_load("learning_rate: 3e-5")).learning_rate == 3e-5


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", 0, "above 0"),
        ("epochs", float("nan"), "above 0"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", True, "at least 1"),
        ("max_steps", 1.5, "at least 1"),
        ("learning_rate", 3, "below 1"),
        ("learning_rate", "fast", "below 1"),
        ("warmup_ratio", 1, "below 1"),
        ("precision", "fp8", "fp32"),
        ("sampling", "random", "round-robin"),
        ("schedule", "step", "cosine"),
        ("evaluate_every", 1.5, "whole number of steps"),
        ("trackers", "wandb", "tensorboard"),
        ("trackers", ["mlfow"], "mlflow"),
        ("resume", "yes", "true or false"),
        ("measure", "", "nDCG@10"),
        ("push_to_hub", "", "me/my-model"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(name: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{name} .*{allowed}"):
        TrainingSettings.from_dict({name: value})


def test_an_unknown_setting_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"no training setting 'lr'. The settings are epochs, .*learning_rate"
    ):
        TrainingSettings.from_dict({"lr": 0.1})


def test_trackers_that_can_be_read_only_once_are_kept() -> None:
    assert TrainingSettings(trackers=(name for name in ("wandb", "mlflow"))).trackers == ("wandb", "mlflow")  # type: ignore[arg-type]
