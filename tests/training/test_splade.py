"""Tests of SPLADE pooling without storing logits: results and gradients equal those of sentence-transformers."""

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
from sentence_transformers.sparse_encoder.modules import Router, SpladePooling

from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.losses import build_loss, choose_loss
from hybridsearch.training.models import splade
from hybridsearch.training.models.architectures import load_sparse
from hybridsearch.training.runs.run import set_dropout

TEXTS = ["the lift of a wing", "bread", "planets move on ellipses with the sun in one focus " * 3, "blood pressure"]


@pytest.fixture
def plain(tiny_splade: Path) -> Any:
    return trainable(tiny_splade)


def trainable(folder: Path) -> Any:
    """The model in training mode, which the gradient of the plain model needs, but without dropout."""
    model = SparseEncoder(str(folder), device="cpu").train()
    set_dropout(model, 0)
    return model


def is_direct(model: Any) -> bool:
    return any("forward" in vars(module) for module in model.modules() if isinstance(module, SpladePooling))


def vectors_and_gradients(model: Any, texts: list[str], task: str = "document") -> tuple[Any, dict[str, Any]]:
    """The results, and the gradients of a weighted sum of all entries."""
    model.zero_grad()
    vectors = model(model.preprocess(texts, task=task), task=task)["sentence_embedding"]
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    (vectors * weights).sum().backward()
    return vectors.detach(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def assert_alike(found: tuple[Any, dict[str, Any]], wanted: tuple[Any, dict[str, Any]]) -> None:
    """Assert that gradients differ only because of the order of summation.

    An entry is a sum of terms as large as the largest entry, up to 55 here. Each order rounds such terms by some units
    in the last place (1.2e-7 of them), also where the terms nearly cancel. Sixteen units are allowed.
    """
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        atol = max(1e-5, 16 * torch.finfo(gradient.dtype).eps * float(gradient.abs().max()))
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=atol, msg=lambda m, name=name: name + m)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=9))
def test_vectors_and_gradients_are_those_of_the_plain_model(tiny_splade: Path, texts: list[str]) -> None:
    plain = _loaded(tiny_splade)
    assert_alike(vectors_and_gradients(_direct(tiny_splade), texts), vectors_and_gradients(plain, texts))


@pytest.mark.parametrize("logits", [1, 4_000, 20_000])
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


def test_a_loss_in_small_batches_has_the_gradients_of_the_plain_model(plain: Any) -> None:
    direct = splade.pool_directly(copy.deepcopy(plain))
    data = TrainingData.from_columns(Kind.PAIRS, {"anchor": TEXTS, "positive": TEXTS[::-1]})
    gradients = []
    for model, name in ((plain, "mnr"), (direct, "cached-mnr")):
        loss = build_loss(choose_loss("sparse", data, name), model, data, mini_batch_size=2)
        loss([model.preprocess(data.rows[column]) for column in data.inputs], None)["base_loss"].backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-3)


def test_what_is_frozen_gets_no_gradient(plain: Any) -> None:
    plain[0].auto_model.get_output_embeddings().weight.requires_grad_(False)
    wanted = vectors_and_gradients(plain, TEXTS)
    assert "0.model.bert.embeddings.word_embeddings.weight" not in wanted[1]
    assert_alike(vectors_and_gradients(splade.pool_directly(copy.deepcopy(plain)), TEXTS), wanted)


def test_without_gradients_the_largest_logits_alone_are_looked_for(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = splade.pool_directly(plain)
    monkeypatch.setattr(torch.Tensor, "max", lambda *_: pytest.fail("also their places were"))
    with torch.no_grad():
        direct(direct.preprocess(TEXTS))


def test_texts_without_padding_between_them(plain: Any) -> None:
    """As flash attention gives them; the second has no tokens at all."""
    direct = splade.pool_directly(copy.deepcopy(plain))
    decoder = plain[0].auto_model.get_output_embeddings()
    hidden = torch.randn(1, 9, decoder.in_features, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([0, 4, 4, 9])
    found = direct[1]({"token_embeddings": hidden, "cu_seq_lens_q": places})["sentence_embedding"]
    for row, part in zip(found, hidden[0].tensor_split(places[1:-1]), strict=True):
        wanted = decoder(part).relu().log1p().amax(0) if len(part) else torch.zeros_like(row)
        torch.testing.assert_close(row, wanted)


def test_a_language_model_with_two_poolings_stays_as_it_is(plain: Any) -> None:
    shared, one = plain
    router = Router.for_query_document([shared, one], [shared, SpladePooling("max")])
    assert not is_direct(splade.pool_directly(SparseEncoder(modules=[router], device="cpu")))


def test_weights_that_a_trainer_spreads_stay_as_they_are(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not is_direct(splade.pool_directly(plain))


def test_a_model_that_does_something_to_its_logits_stays_as_it_is(plain: Any) -> None:
    model = plain[0].auto_model
    model.forward = functools.partial(_halved, model.forward)
    assert not is_direct(splade.pool_directly(plain))
    assert vectors_and_gradients(plain, TEXTS)[0].shape == (4, len(plain.tokenizer))


def test_sums_over_tokens_stay_as_they_are(plain: Any) -> None:
    plain[1].pooling_strategy = "sum"
    assert not is_direct(splade.pool_directly(plain))


def test_what_is_saved_is_a_plain_splade(plain: Any, tmp_path: Path) -> None:
    direct = splade.pool_directly(copy.deepcopy(plain))
    assert is_direct(direct)
    plain.encode_document(TEXTS)  # learns how many dimensions it has
    for name, model in (("plain", plain), ("direct", direct)):
        model.save_pretrained(str(tmp_path / name))
    for name in ("modules.json", "config.json", "1_SpladePooling/config.json"):
        assert (tmp_path / "direct" / name).read_text() == (tmp_path / "plain" / name).read_text()
    again = trainable(tmp_path / "direct")
    assert not is_direct(again)
    assert_alike(vectors_and_gradients(direct, TEXTS), vectors_and_gradients(again, TEXTS))


def test_a_copy_has_gradients_of_its_own(plain: Any) -> None:
    copied = copy.deepcopy(splade.pool_directly(plain))
    _, gradients = vectors_and_gradients(copied, TEXTS)
    assert gradients
    assert all(one.grad is None for one in plain.parameters())


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
