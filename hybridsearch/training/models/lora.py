"""Train a large model through small added matrices: low-rank adapters (LoRA, Hu et al., arXiv:2106.09685) by peft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hybridsearch.arguments import number, of_type, true_or_false, whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.libraries import import_library


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The settings of LoRA, which trains small adapters instead of all weights of a model.

    Attributes:
        rank: Rank of the matrices that are added to each layer, at least 1.
        alpha: Scale of the adapters, at least 1. The product of the matrices is multiplied by alpha / rank.
        dropout: Dropout of the input of the adapters in training, from 0 to below 1.
        targets: Names of the layers that get adapters, or the last parts of the names, such as ("q_proj", "v_proj").
            None takes all linear layers.
        merge: Whether the adapters are added to the weights, so that a whole model is saved. Otherwise only the
            adapters are saved, and loading them needs the base model.

    Raises:
        InvalidArgumentError: A value is not allowed.

    >>> LoraSettings(rank=8, targets=("query", "value")).to_dict()["rank"]
    8
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        for name in ("rank", "alpha"):
            object.__setattr__(self, name, whole_number(f"LoRA's {name}", getattr(self, name)))
        object.__setattr__(self, "dropout", number("LoRA's dropout", self.dropout, least=0, below=1))
        true_or_false("LoRA's merge", self.merge)
        if self.targets is not None:
            listed = isinstance(self.targets, list | tuple) and all(isinstance(one, str) for one in self.targets)
            if not listed or not self.targets:
                raise InvalidArgumentError(
                    f"LoRA's targets are {self.targets!r}. Give a list of layer names, such as ['query', 'value']."
                )
            object.__setattr__(self, "targets", tuple(self.targets))  # a YAML file has a list

    def to_dict(self) -> dict[str, Any]:
        """Convert the settings to a dict of field names and values, for JSON or YAML."""
        return asdict(self) | {"targets": None if self.targets is None else list(self.targets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoraSettings:
        """Make settings from a mapping of field names to values.

        Other fields have their defaults.

        Args:
            values: Field names and values, such as those of a YAML file.

        Raises:
            InvalidArgumentError: A name is not known, or a value is not allowed.
        """
        known = [field.name for field in fields(cls)]
        if strange := [str(name) for name in values if name not in known]:
            raise InvalidArgumentError(f"LoRA has no setting {strange[0]!r}. The settings are {', '.join(known)}.")
        return cls(**values)


def add_adapters(model: Any, settings: LoraSettings, base: str | None = None, *, seed: int = 0) -> None:
    """Put adapters into a model of sentence-transformers, and freeze all other weights of its transformer.

    Args:
        model: Model, which is changed in place.
        settings: Settings of LoRA.
        base: Name of the base model in the saved adapters. None takes the folder from which the model was loaded.
        seed: Seed of the weights of the adapters.

    Raises:
        InvalidArgumentError: No layer has a name of `settings.targets`, or the model already has adapters, or
            `settings` has another type.
        MissingExtraError: The package peft is not installed.
    """
    of_type("lora", settings, LoraSettings, "a LoraSettings such as LoraSettings(rank=16)")
    peft = import_library("peft", "LoRA")
    if _has_adapters(model):
        raise InvalidArgumentError("The model already has adapters, which will be trained. Leave lora out.")
    config = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.targets is None else list(settings.targets),
    )
    import torch

    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model.add_adapter(config)
    except ValueError as error:
        raise InvalidArgumentError(f"LoRA does not work with this model: {error}") from error
    saved = model.transformers_model.peft_config["default"]
    base = base or saved.base_model_name_or_path
    folder = Path(base or "")
    saved.base_model_name_or_path = str(folder.resolve()) if base and folder.exists() else base


def thaw_adapters(model: Any) -> None:
    """Make the adapters of a loaded model trainable.

    A model without adapters does not change.
    """
    if _has_adapters(model):
        transformer = model.transformers_model
        transformer.set_adapter(transformer.active_adapters())


def merge_adapters(model: Any) -> None:
    """Add the adapters of a model to its weights, and remove the adapters.

    The model is changed in place.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    transformer = model.transformers_model
    for name, layer in list(transformer.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(transformer.get_submodule(parent), child, layer.get_base_layer())
    del transformer.peft_config
    transformer._hf_peft_config_loaded = False


def _has_adapters(model: Any) -> bool:
    return bool(getattr(model.transformers_model, "_hf_peft_config_loaded", False))
