"""The mean of the weights of models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.encoders.model_folders import family_of
from hybridsearch.errors import InvalidArgumentError, ModelNotFoundError
from hybridsearch.training.models.averaging import average_models
from hybridsearch.training.models.lora import LoraSettings, add_adapters

sentence_transformers: Any = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
torch: Any = pytest.importorskip("torch")


def loaded(model: Path) -> Any:
    """A model, loaded by sentence-transformers alone."""
    return getattr(sentence_transformers, family_of(model) or "SentenceTransformer")(str(model), local_files_only=True)


def changed(model: Path, folder: Path, size: float) -> Path:
    """A copy of a model in `folder`, with noise in all weights."""
    copy = loaded(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in copy.parameters():
            weights.add_(size * weights.std(correction=0) * torch.randn(weights.shape, generator=generator))
    copy.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("kind", ["tiny_dense", "tiny_splade", "tiny_late", "tiny_reranker"])
def test_weights_are_the_mean_of_all_models(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Path = request.getfixturevalue(kind)
    other = changed(model, tmp_path / "other", 0.02)
    averaged = average_models([model, str(other), model], tmp_path / "averaged")
    assert averaged == tmp_path / "averaged"
    assert family_of(averaged) == family_of(model)
    first, second, found = (loaded(one).state_dict() for one in (model, other, averaged))
    assert found.keys() == first.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, mean in found.items():
        torch.testing.assert_close(mean, (2 * first[name] + second[name]) / 3 if mean.is_floating_point() else mean)


def test_the_average_is_a_model_like_the_others(tiny_dense: Path, tmp_path: Path) -> None:
    other = changed(tiny_dense, tmp_path / "other", 0.02)
    average_models([tiny_dense, other], tmp_path / "averaged")
    texts = ["the lift of a wing", "salted water"]
    first, second, mean = (
        hs.Dense(str(one), cache=False).encode_documents(texts).array
        for one in (tiny_dense, other, tmp_path / "averaged")
    )
    between = (first * second).sum(axis=1)
    assert (between < 1 - 1e-6).all()
    assert ((first * mean).sum(axis=1) > between).all()
    assert ((second * mean).sum(axis=1) > between).all()
    assert np.isfinite(mean).all()


def test_models_that_do_not_fit_together_are_refused(
    tiny_dense: Path, tiny_splade: Path, tiny_masked: Path, tmp_path: Path
) -> None:
    far, new = changed(tiny_dense, tmp_path / "far", 1.0), tmp_path / "new"
    with pytest.raises(InvalidArgumentError, match=r"far and .* differ by .* of their length"):
        average_models([tiny_dense, far], new)
    for others in ([tiny_splade, tiny_dense], [tiny_masked, tiny_masked]):  # a language model has no kind
        with pytest.raises(InvalidArgumentError, match="are not of one kind"):
            average_models(others, new)
    with pytest.raises(InvalidArgumentError, match="give a list of at least two models"):
        average_models([tiny_dense], new)
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        average_models([tiny_dense, tmp_path / "nowhere"], new)
    assert not new.exists()
    with pytest.raises(InvalidArgumentError, match="is not empty: give a new folder"):
        average_models([tiny_dense, tiny_dense], far)


def test_a_model_that_lacks_weights_is_refused_because_they_would_be_random(tiny_dense: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    lacking = Path(shutil.copytree(tiny_dense, tmp_path / "lacking"))
    (file,) = lacking.rglob("model.safetensors")
    kept = {name: weight for name, weight in load_file(file).items() if "layer.0.output" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(InvalidArgumentError, match=r"lacks \d+ of its weights \(.*layer\.0\.output"):
        average_models([lacking, lacking], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_adapters_that_are_not_merged_are_refused(tiny_dense: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    for seed in (0, 1):
        model = loaded(tiny_dense)
        add_adapters(model, LoraSettings(rank=2), str(tiny_dense), seed=seed)
        model.save_pretrained(str(tmp_path / str(seed)))
    with pytest.raises(InvalidArgumentError, match="has LoRA adapters that are not merged"):
        average_models([tmp_path / "0", tmp_path / "1"], tmp_path / "averaged")
    assert not (tmp_path / "averaged").exists()
