"""SPLADE's pooling without its logits: what sentence-transformers' own modules give, forwards and backwards."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling

from hybridsearch.training import splade
from hybridsearch.training.architectures import load_sparse
from hybridsearch.training.run import set_dropout

TEXTS = ["the lift of a wing", "bread", "planets move on ellipses with the sun in one focus " * 3, "blood pressure"]


@pytest.fixture
def plain(tiny_splade: Path) -> Any:
    return trainable(tiny_splade)


def trainable(folder: Path) -> Any:
    """In training mode, as the plain model's gradient needs, but without dropout."""
    model = SparseEncoder(str(folder), device="cpu").train()
    set_dropout(model, 0)
    return model


def is_direct(model: Any) -> bool:
    return any("forward" in vars(module) for module in model.modules() if isinstance(module, SpladePooling))


def vectors_and_gradients(model: Any, texts: list[str], task: str = "document") -> tuple[Any, dict[str, Any]]:
    """The gradients are those of a weighted sum of all entries."""
    model.zero_grad()
    vectors = model(model.preprocess(texts, task=task), task=task)["sentence_embedding"]
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    (vectors * weights).sum().backward()
    return vectors.detach(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def assert_alike(found: tuple[Any, dict[str, Any]], wanted: tuple[Any, dict[str, Any]]) -> None:
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: name + m)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=9))
def test_vectors_and_gradients_are_those_of_the_plain_model(tiny_splade: Path, texts: list[str]) -> None:
    plain = _loaded(tiny_splade)
    assert_alike(vectors_and_gradients(_direct(tiny_splade), texts), vectors_and_gradients(plain, texts))


@pytest.mark.parametrize("logits", [1, 100_000, 500_000])
def test_portions_do_not_change_the_result(plain: Any, logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = vectors_and_gradients(plain, TEXTS * 3)
    monkeypatch.setattr(splade, "_CPU_LOGITS", logits)
    assert_alike(vectors_and_gradients(splade.pool_directly(copy.deepcopy(plain)), TEXTS * 3), wanted)


def test_twice_the_logarithm(plain: Any) -> None:
    plain[1].activation_function = "log1p_relu"
    wanted = vectors_and_gradients(plain, TEXTS)
    assert_alike(vectors_and_gradients(splade.pool_directly(copy.deepcopy(plain)), TEXTS), wanted)


def test_documents_of_an_inference_free_model(tiny_splade: Path) -> None:
    plain = load_sparse(tiny_splade, "inference-free", documents=TEXTS).train()
    set_dropout(plain, 0)
    direct = splade.pool_directly(copy.deepcopy(plain))
    assert is_direct(direct)
    for task in ("document", "query"):
        assert_alike(vectors_and_gradients(direct, TEXTS, task), vectors_and_gradients(plain, TEXTS, task))


def test_mixed_precision_is_as_near_to_full_precision_as_that_of_the_plain_model(plain: Any) -> None:
    exact = vectors_and_gradients(plain, TEXTS)
    direct = splade.pool_directly(copy.deepcopy(plain))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = vectors_and_gradients(direct, TEXTS), vectors_and_gradients(plain, TEXTS)
    assert (ours[0] - exact[0]).abs().max() <= 1.5 * (theirs[0] - exact[0]).abs().max()
    name = "0.model.bert.embeddings.word_embeddings.weight"
    assert (ours[1][name] - exact[1][name]).norm() <= 1.5 * (theirs[1][name] - exact[1][name]).norm()


def test_a_model_that_does_something_to_its_logits_stays_as_it_is(plain: Any) -> None:
    model = plain[0].auto_model
    model.forward = functools.partial(_halved, model.forward)
    assert not is_direct(splade.pool_directly(plain))
    assert vectors_and_gradients(plain, TEXTS)[0].shape == (4, 30522)


def test_sums_over_tokens_stay_as_they_are(plain: Any) -> None:
    plain[1].pooling_strategy = "sum"
    assert not is_direct(splade.pool_directly(plain))


def test_what_is_saved_is_a_plain_splade(plain: Any, tiny_splade: Path, tmp_path: Path) -> None:
    direct = splade.pool_directly(plain)
    assert is_direct(direct)
    assert is_direct(copy.deepcopy(direct))
    direct.save_pretrained(str(tmp_path))
    assert (tmp_path / "modules.json").read_text() == (tiny_splade / "modules.json").read_text()
    again = trainable(tmp_path)
    assert not is_direct(again)
    assert_alike(vectors_and_gradients(direct, TEXTS), vectors_and_gradients(again, TEXTS))


@functools.cache
def _loaded(folder: Path) -> Any:
    return trainable(folder)


@functools.cache
def _direct(folder: Path) -> Any:
    direct = splade.pool_directly(trainable(folder))
    assert is_direct(direct)
    return direct


def _halved(forward: Any, *args: Any, **options: Any) -> Any:
    output = forward(*args, **options)
    output.logits = output.logits / 2
    return output
