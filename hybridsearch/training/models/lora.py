"""Low-rank adapters (LoRA, Hu et al., arXiv:2106.09685) by peft: train a large model through a few small matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hybridsearch.arguments import number, true_or_false, whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.libraries import import_library


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """How a model is adapted.

    Attributes:
        rank: of the matrices that are added to each layer.
        alpha: their product is scaled by alpha / rank.
        dropout: of what goes into them, while training.
        targets: names of the layers, or of their last parts, such as ("q_proj", "v_proj"); None for all linear ones.
        merge: save a whole model, with the adapters added to its weights; else the adapters alone, which need the
            base model where they are loaded.

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
                raise InvalidArgumentError(f"LoRA's targets are a list of layer names, not {self.targets!r}.")
            object.__setattr__(self, "targets", tuple(self.targets))  # a YAML file has a list

    def to_dict(self) -> dict[str, Any]:
        """Field name -> value, ready for JSON or YAML."""
        return asdict(self) | {"targets": None if self.targets is None else list(self.targets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoraSettings:
        """The settings with the given fields. Raises InvalidArgumentError where a name or value is not allowed."""
        known = [field.name for field in fields(cls)]
        if strange := [str(name) for name in values if name not in known]:
            raise InvalidArgumentError(f"LoRA has no setting {strange[0]!r}; it has {', '.join(known)}.")
        return cls(**values)


def add_adapters(model: Any, settings: LoraSettings, base: str | None = None, *, seed: int = 0) -> None:
    """Freeze the transformer of a model of sentence-transformers, and put adapters into it that are trained instead.

    Args:
        model: changed in place.
        base: what the saved adapters name as their base model; None for the folder that it was loaded from.
        seed: of their weights.

    Raises:
        InvalidArgumentError: no layer has a name of `settings.targets`, or the model has adapters already.
        MissingExtraError: peft is not installed.
    """
    peft = import_library("peft", "LoRA")
    if _has_adapters(model):
        raise InvalidArgumentError("The model has adapters already, which are what is trained: leave lora out.")
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
        raise InvalidArgumentError(f"LoRA cannot be put into this model: {error}") from error
    saved = model.transformers_model.peft_config["default"]
    base = base or saved.base_model_name_or_path
    folder = Path(base or "")
    saved.base_model_name_or_path = str(folder.resolve()) if base and folder.exists() else base


def thaw_adapters(model: Any) -> None:
    """Let the adapters that a model was loaded with be trained; without any, nothing changes."""
    if _has_adapters(model):
        transformer = model.transformers_model
        transformer.set_adapter(transformer.active_adapters())


def merge_adapters(model: Any) -> None:
    """Add the adapters to the weights that they belong to, and take them out; changes the model in place."""
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
