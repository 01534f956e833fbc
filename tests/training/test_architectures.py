"""The three architectures of a sparse model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import hybridsearch as hs

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")

from hybridsearch.errors import InvalidArgumentError, ModelNotFoundError
from hybridsearch.training.models.architectures import architecture_of, idf_weights, load_sparse, query_parameters

TEXTS = ["The wing has lift.", "The heart has blood.", "The wing of a bird."]


def active(model: object, side: str, texts: list[str]) -> list[int]:
    rows = getattr(model, f"encode_{side}")(texts).to_dense()
    return [int(count) for count in (rows != 0).sum(dim=1)]


def test_a_masked_language_model_becomes_a_splade(tiny_splade: Path) -> None:
    model = load_sparse(tiny_splade)
    assert architecture_of(model) == "splade"
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}


def test_a_dense_model_becomes_a_csr_with_as_many_active_dimensions_as_asked_for(tiny_dense: Path) -> None:
    model = load_sparse(tiny_dense, active_dims=50)
    assert architecture_of(model) == "csr"
    assert model[-1].k == 50
    assert model[-1].hidden_dim >= 4 * 50
    assert max(active(model, "document", TEXTS)) <= 50


def test_a_new_autoencoder_has_the_same_weights_for_the_same_seed(tiny_dense: Path) -> None:
    one, same, other = (load_sparse(tiny_dense, seed=seed)[-1].encoder.weight for seed in (0, 0, 1))
    assert one.equal(same)
    assert not one.equal(other)


def test_queries_of_an_inference_free_splade_weigh_by_idf(tiny_splade: Path) -> None:
    model = load_sparse(tiny_splade, "inference-free", documents=TEXTS)
    assert architecture_of(model) == "inference-free"
    decoded = dict(model.decode(model.encode_query("wing heart the")))
    n_wing, n_heart, n_the = 2, 1, 3
    for token, n in (("wing", n_wing), ("heart", n_heart), ("the", n_the)):
        assert decoded[token] == pytest.approx(math.log(1 + (3 - n + 0.5) / (n + 0.5)), rel=1e-6)


def test_documents_of_an_inference_free_splade_go_through_the_splade_that_it_was_made_of(tiny_splade: Path) -> None:
    splade, made = load_sparse(tiny_splade), load_sparse(tiny_splade, "inference-free", documents=TEXTS)
    assert np.array_equal(made.encode_document(TEXTS).to_dense(), splade.encode_document(TEXTS).to_dense())


def test_documents_and_queries_of_an_inference_free_splade_have_the_same_dimensions(
    tiny_splade: Path, tmp_path: Path
) -> None:
    splade = load_sparse(tiny_splade)
    plain = splade.encode_document(TEXTS).to_dense().numpy()
    terms = len(splade.tokenizer)
    splade[0].auto_model.resize_token_embeddings(terms + 6)  # a round number, as many models have it
    made = load_sparse(splade, "inference-free", documents=TEXTS)
    made.save_pretrained(str(tmp_path))
    for model in (made, load_sparse(tmp_path)):
        documents, queries = model.encode_document(TEXTS), model.encode_query(TEXTS)
        assert documents.shape == queries.shape == (3, terms)
        np.testing.assert_allclose(documents.to_dense().numpy(), plain, rtol=1e-5, atol=1e-6)


def test_an_inference_free_splade_that_was_saved_is_loaded_as_one(tiny_splade: Path, tmp_path: Path) -> None:
    model = load_sparse(tiny_splade, "inference-free", documents=TEXTS)
    model.save_pretrained(str(tmp_path))
    assert architecture_of(load_sparse(tmp_path)) == "inference-free"
    query = hs.Sparse(tmp_path, cache=False).encode_queries(["tail of a comet"])[0]
    assert set(query.terms) == {"tail", "of", "a", "comet"}


def test_idf_counts_documents_and_not_occurrences(tiny_splade: Path) -> None:
    tokenizer = load_sparse(tiny_splade).tokenizer
    weights = idf_weights(tokenizer, ["wing wing wing", "heart"])
    wing, heart, mask = tokenizer.convert_tokens_to_ids(["wing", "heart", "[MASK]"])
    assert weights[wing] == weights[heart]
    assert weights[mask] == 0


def test_the_pattern_of_query_parameters_finds_the_table_alone(tiny_splade: Path) -> None:
    import re

    model = load_sparse(tiny_splade, "inference-free", documents=TEXTS)
    pattern = query_parameters(model)
    assert pattern is not None
    names = [f"model.{name}" for name, _ in model.named_parameters()]
    found = [name for name in names if re.search(pattern, name)]
    shapes = [dict(model.named_parameters())[name.removeprefix("model.")].shape for name in found]
    assert shapes == [(len(model.tokenizer),)]
    assert query_parameters(load_sparse(tiny_splade)) is None


def test_a_loaded_model_is_copied(tiny_splade: Path) -> None:
    loaded = load_sparse(tiny_splade)
    copied = load_sparse(loaded)
    assert copied is not loaded
    assert next(copied.parameters()).data_ptr() != next(loaded.parameters()).data_ptr()


@pytest.mark.parametrize(
    ("base", "architecture", "message"),
    [
        ("tiny_dense", "splade", "starts from a masked language model"),
        ("tiny_dense", "inference-free", "starts from a masked language model"),
        ("tiny_splade", "csr", "starts from a dense model"),
        ("tiny_splade", "dense", "architecture is 'dense'. Give splade, inference-free, csr or None"),
    ],
)
def test_an_architecture_that_a_model_does_not_allow_is_refused(
    base: str, architecture: str, message: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        load_sparse(request.getfixturevalue(base), architecture)  # type: ignore[arg-type]


def test_a_cross_encoder_is_refused(tiny_reranker: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="is a cross-encoder, which scores pairs and makes no vectors"):
        load_sparse(tiny_reranker)


def test_query_weights_need_documents_to_count_in(tiny_splade: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="Give a corpus"):
        load_sparse(tiny_splade, "inference-free")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=tmp_path.name):
        load_sparse(tmp_path)
