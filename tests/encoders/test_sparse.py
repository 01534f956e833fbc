"""Sparse vectors, their terms and their explanations equal those of SparseEncoder, for all three architectures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.encoders import Encoder, make_encoder
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for the model encoders")

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # by SparseEncoder.intersection itself

TEXTS = [
    "Laminar flow turns turbulent behind the trailing edge.",
    "Wings.",
    "The angle of attack decides how much lift a wing gives, until the flow separates and the wing stalls. " * 4,
    "Shock waves heat the nose of a supersonic vehicle.",
]
QUERY = "how does the wing stall"


def _bert(folder: Path, tokenizer_from: str, cls: str, vocabulary: int = 30522) -> str:
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = getattr(transformers, cls)(config)
    if cls == "BertForMaskedLM":
        torch.nn.init.constant_(
            model.cls.predictions.bias, -0.2
        )  # leaves most dimensions at zero, as in a trained model
    model.save_pretrained(folder / "bert")
    transformers.AutoTokenizer.from_pretrained(tokenizer_from).save_pretrained(folder / "bert")
    return str(folder / "bert")


def splade_model(folder: Path, tokenizer_from: str, vocabulary: int = 30522) -> str:
    """An untrained SPLADE model."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    bert = _bert(folder, tokenizer_from, "BertForMaskedLM", vocabulary)
    SparseEncoder(
        modules=[Transformer(bert, transformer_task="fill-mask"), SpladePooling("max")], device="cpu"
    ).save_pretrained(str(folder / "model"))
    return str(folder / "model")


def inference_free_model(folder: Path, tokenizer_from: str) -> str:
    """Documents through an untrained SPLADE model, queries through a table of token weights."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    transformer = Transformer(_bert(folder, tokenizer_from, "BertForMaskedLM"), transformer_task="fill-mask")
    table = SparseStaticEmbedding(transformer.tokenizer, torch.rand(30522) + 0.1, frozen=True)
    router = Router.for_query_document([table], [transformer, SpladePooling("max")])
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(folder / "model"))
    return str(folder / "model")


def csr_model(folder: Path, tokenizer_from: str) -> str:
    """A mean of token vectors through an untrained sparse autoencoder."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    transformer = Transformer(_bert(folder, tokenizer_from, "BertModel"))
    autoencoder = SparseAutoEncoder(input_dim=32, hidden_dim=128, k=12)
    SparseEncoder(modules=[transformer, Pooling(32, pooling_mode="mean"), autoencoder], device="cpu").save_pretrained(
        str(folder / "model")
    )
    return str(folder / "model")


BUILDERS = {"splade": splade_model, "inference-free": inference_free_model, "csr": csr_model}


@pytest.fixture(scope="module", params=["splade", "inference-free", "csr", "trained splade"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "trained splade":
        return str(request.getfixturevalue("splade"))
    return BUILDERS[request.param](tmp_path_factory.mktemp("sparse"), request.getfixturevalue("minilm"))


@pytest.fixture(scope="module")
def theirs(folder: str) -> Any:
    from sentence_transformers import SparseEncoder

    return SparseEncoder(folder, device="cpu")


@pytest.fixture
def ours(folder: str) -> Sparse:
    return Sparse(folder)


@pytest.fixture(scope="module")
def splade_folder(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return splade_model(tmp_path_factory.mktemp("splade"), minilm)


def as_row(query: SparseQuery, vocabulary: Vocabulary) -> NDArray[np.float32]:
    row = np.zeros(len(vocabulary), dtype=np.float32)
    row[[vocabulary.index[term] for term in query.terms]] = query.weights
    return row


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def by_token(pairs: list[tuple[str, float]]) -> dict[str, float]:
    return {token: round(weight, 5) for token, weight in pairs}


def test_it_is_an_encoder(ours: Sparse) -> None:
    assert isinstance(ours, Encoder)


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_documents_equal_encode_document(folder: str, theirs: Any, batch_tokens: int) -> None:
    vectors = Sparse(folder, batch_tokens=batch_tokens, cache=False).encode_documents(TEXTS)
    close(vectors.matrix.toarray(), theirs.encode_document(TEXTS).to_dense().numpy())
    assert vectors.matrix.dtype == np.float32
    assert vectors.matrix.has_canonical_format
    assert 0 < vectors.matrix.nnz < vectors.matrix.shape[0] * vectors.matrix.shape[1]


def test_queries_equal_encode_query(ours: Sparse, theirs: Any) -> None:
    expected = theirs.encode_query([*TEXTS, QUERY]).to_dense().numpy()
    queries = ours.encode_queries([*TEXTS, QUERY])
    close(np.stack([as_row(query, ours.vocabulary) for query in queries]), expected)
    close(as_row(ours.encode_queries([QUERY])[0], ours.vocabulary), expected[-1])


def test_the_score_of_a_pair_is_theirs(ours: Sparse, theirs: Any) -> None:
    matrix = ours.encode_documents(TEXTS).matrix
    query = as_row(ours.encode_queries([QUERY])[0], ours.vocabulary)
    expected = theirs.similarity(theirs.encode_query([QUERY]), theirs.encode_document(TEXTS)).numpy()[0]
    close(matrix @ query, expected)


def test_sparsity_equals_theirs(ours: Sparse, theirs: Any) -> None:
    stats = ours.sparsity([QUERY], TEXTS)
    expected = {
        "queries": theirs.sparsity(theirs.encode_query([QUERY])),
        "documents": theirs.sparsity(theirs.encode_document(TEXTS)),
    }
    for side, values in expected.items():
        for name, value in values.items():
            assert stats[side][name] == pytest.approx(value, rel=1e-6)
    assert ours.sparsity() == {}


def test_intersection_sums_to_the_score_and_equals_theirs(ours: Sparse, theirs: Any) -> None:
    shared = ours.intersection(QUERY, TEXTS[2])
    query, document = theirs.encode_query(QUERY), theirs.encode_document(TEXTS[2])
    assert sum(weight for _, weight in shared) == pytest.approx(float(query.to_dense() @ document.to_dense()), rel=1e-4)
    expected = theirs.intersection(query, document).to_dense().numpy()
    close([weight for _, weight in shared], np.sort(expected[expected > 0])[::-1])
    terms = {ours.vocabulary.terms[column] for column in np.flatnonzero(expected)}
    assert {term for term, _ in shared} == terms
    assert ours.intersection(QUERY, TEXTS[2], top_k=2) == shared[:2]


def test_each_file_of_weights_counts_for_the_fingerprint_and_must_not_be_pickled(folder: str, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "model")
    files = [*copied.rglob("*.safetensors")]
    assert files
    for file in files:
        before = Sparse(copied).fingerprint()
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
        assert Sparse(copied).fingerprint() != before, file
    for file in files:
        pickled = file.rename(file.with_name("pytorch_model.bin"))
        with pytest.raises(InvalidArgumentError, match="pickled"):
            Sparse(copied).encode_queries([QUERY])
        pickled.rename(file)


@pytest.mark.parametrize("build", ["splade", "inference-free"])
def test_decode_equals_theirs(minilm: str, tmp_path: Path, build: str) -> None:
    from sentence_transformers import SparseEncoder

    folder = BUILDERS[build](tmp_path, minilm)
    ours, theirs = Sparse(folder), SparseEncoder(folder, device="cpu")
    assert by_token(ours.decode(TEXTS[0])) == by_token(theirs.decode(theirs.encode_document(TEXTS[0])))
    assert by_token(ours.decode(ours.encode_queries([QUERY])[0])) == by_token(theirs.decode(theirs.encode_query(QUERY)))
    several = ours.decode(ours.encode_documents(TEXTS), top_k=5)
    for ours_five, theirs_five in zip(several, theirs.decode(theirs.encode_document(TEXTS), top_k=5), strict=True):
        close([weight for _, weight in ours_five], [weight for _, weight in theirs_five])


def test_real_expansions_are_shown_as_words(splade: str) -> None:
    tokens = dict(Sparse(splade).decode(Sparse(splade).encode_queries(["cephalalgia"])[0]))
    assert "pain" in tokens


def test_latent_dimensions_are_named_by_number(minilm: str, tmp_path: Path) -> None:
    ours = Sparse(csr_model(tmp_path, minilm))
    assert ours.vocabulary.terms == tuple(map(str, range(128)))
    assert all(term.isdecimal() for term, _ in ours.decode(TEXTS[0]))


def test_rows_that_fill_the_vocabulary_up_have_names_too(minilm: str, tmp_path: Path) -> None:
    vocabulary = Sparse(splade_model(tmp_path, minilm, vocabulary=30528)).vocabulary
    assert len(vocabulary) == len(set(vocabulary.terms)) == 30528
    assert vocabulary.terms[30521:30524] == ("##～", "[30522]", "[30523]")


def test_terms_come_by_descending_weight_then_by_name(ours: Sparse) -> None:
    for query in ours.encode_queries([QUERY, TEXTS[2]]):
        pairs = list(zip(query.terms, query.weights.tolist(), strict=True))
        assert pairs == sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def test_active_dimensions_are_limited_on_each_side(folder: str, theirs: Any) -> None:
    ours = Sparse(folder, max_active_dims=6, query_max_active_dims=3)
    documents = ours.encode_documents(TEXTS).matrix
    close(documents.toarray(), theirs.encode_document(TEXTS, max_active_dims=6).to_dense().numpy())
    query = as_row(ours.encode_queries([QUERY])[0], ours.vocabulary)
    close(query, theirs.encode_query(QUERY, max_active_dims=3).to_dense().numpy())
    assert np.diff(documents.indptr).max() <= 6


def test_blank_texts_are_empty(ours: Sparse) -> None:
    assert np.diff(ours.encode_documents(["", TEXTS[0], " \n"]).matrix.indptr)[[0, 2]].tolist() == [0, 0]
    assert [len(query.terms) for query in ours.encode_queries(["", "  "])] == [0, 0]
    assert ours.encode_documents([]).matrix.shape == (0, len(ours.vocabulary))
    assert ours.intersection("", TEXTS[0]) == []


def test_it_counts_the_tokens_of_documents_and_those_that_it_cuts_off(ours: Sparse) -> None:
    limit = ours.max_tokens
    assert limit is not None
    texts = ["wing " * limit, "wing " * (limit + 1), "", "wing"]
    assert list(ours.count_tokens(texts)) == [limit, limit + 1, 0, 1]
    assert ours.encode_documents(texts).truncated == 1


def test_a_loaded_model_has_the_same_fingerprint_before_and_after_its_first_text(folder: str) -> None:
    from sentence_transformers import SparseEncoder

    loaded = SparseEncoder(folder, device="cpu")
    before = Sparse(loaded, cache=False).fingerprint()
    Sparse(loaded, cache=False).encode_documents(TEXTS)
    assert Sparse(loaded, cache=False).fingerprint() == before


def test_cached_vectors_are_bit_equal_and_encode_nothing(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Sparse(theirs).encode_documents(TEXTS).matrix
    preprocess = theirs.preprocess

    def only_queries(texts: list[str], *, task: str, **arguments: Any) -> Any:
        assert task == "query"
        return preprocess(texts, task=task, **arguments)

    monkeypatch.setattr(theirs, "preprocess", only_queries)
    again = Sparse(theirs).encode_documents(TEXTS).matrix
    for part in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(again, part), getattr(fresh, part))


def test_nan_names_the_text(splade_folder: str) -> None:
    import torch
    from sentence_transformers import SparseEncoder

    broken = SparseEncoder(splade_folder, device="cpu")
    with torch.no_grad():
        broken[0].model.bert.embeddings.position_embeddings.weight[50:] = float("nan")
    with pytest.raises(EncodingError, match="text number 2"):
        Sparse(broken).encode_documents(TEXTS)
    with pytest.raises(EncodingError, match="text number 1"):
        Sparse(broken).encode_queries(["", TEXTS[2]])


def test_a_model_that_cannot_encode_makes_no_index(minilm: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no sparse encoder"):
        hs.HybridSearch({"sparse": Sparse(minilm)}, tmp_path / "index").index([{"id": "1", "text": "a wing"}])
    report = hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index").index([{"id": "1", "text": "a wing"}])
    assert report.indexed == 1


def test_a_dense_model_is_refused(minilm: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no sparse encoder.*hybridsearch\.Dense"):
        Sparse(minilm).encode_documents(TEXTS)


def test_a_masked_language_model_alone_becomes_splade(minilm: str, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    folder = _bert(tmp_path, minilm, "BertForMaskedLM")
    expected = SparseEncoder(folder, device="cpu").encode_document(TEXTS).to_dense().numpy()
    close(Sparse(folder).encode_documents(TEXTS).matrix.toarray(), expected)


def test_the_schema_makes_the_encoder_again(splade_folder: str) -> None:
    schema = Sparse(Path(splade_folder), max_active_dims=32, max_length=64).schema()
    assert schema.encoder is not None
    assert (schema.kind, schema.encoder["type"]) == ("sparse", "sparse")
    assert make_encoder(schema.encoder).schema() == schema


def test_every_setting_that_changes_vectors_changes_the_fingerprint(splade_folder: str) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"max_active_dims": 8},
        {"query_max_active_dims": 8},
        {"max_length": 8},
        {"query_prompt": "q"},
        {"document_prompt": "d"},
    ]
    assert len({Sparse(splade_folder, **options).fingerprint().digest for options in variants}) == len(variants)


def test_vectors_of_another_vocabulary_are_not_decoded(splade_folder: str) -> None:
    from scipy.sparse import csr_array

    other = SparseVectors(csr_array(np.eye(2, dtype=np.float32)), Vocabulary(["a", "b"]))
    with pytest.raises(InvalidArgumentError, match="another vocabulary"):
        Sparse(splade_folder).decode(other)


@pytest.mark.parametrize("options", [{"max_active_dims": 0}, {"query_max_active_dims": -1}, {"batch_tokens": 0}])
def test_arguments_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Sparse("a/model", **options)


def test_a_dimension_is_located_at_the_word_with_its_largest_weight(ours: Sparse, theirs: Any) -> None:
    import torch

    text = "A cat, a dog and a fish."
    weights = dict(ours.decode(text, 8))
    (places,) = ours.locate([text], [weights])
    names = [] if "csr" in str(theirs).lower() or "AutoEncoder" in str(theirs) else ours.vocabulary.terms
    if not names:
        assert places == []
        return
    with torch.inference_mode():
        read = theirs(theirs.preprocess([text], task="document"), task="document")["token_embeddings"][0]
    tokens = theirs.tokenizer.tokenize(text)
    assert {place.term for place in places} == set(weights)
    for term in weights:
        best = tokens[int(read[1 : 1 + len(tokens), ours.vocabulary.index[term]].argmax())]
        assert {best, term} >= {
            text[start:end].lower() for start, end, found in places if found == term
        } or best in ",."
