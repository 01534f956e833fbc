"""Dense vectors equal those of SentenceTransformer, with any batches, prompts, metric and cache."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.encoders import Encoder, make_encoder
from hybridsearch.encoders.dense import Dense
from hybridsearch.errors import EncodingError, InvalidArgumentError

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for the model encoders")

TEXTS = [
    "Laminar flow turns turbulent behind the trailing edge.",
    "Wings.",
    "The angle of attack decides how much lift a wing gives, until the flow separates and the wing stalls. " * 8,
    "Boundary layers grow with distance.",
    "翼の揚力",
    "Supersonic speeds make shock waves, which heat the nose of a vehicle.",
]


@pytest.fixture(scope="module")
def model(minilm: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(minilm, device="cpu")


def tiny(folder: Path, tokenizer_from: str, *, seed: int = 7, **options: Any) -> str:
    """A small untrained model without a Normalize module, saved in `folder`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(tokenizer_from).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="mean")], device="cpu", **options)
    model.save_pretrained(str(folder / "model"))
    return str(folder / "model")


def rows(queries: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack(list(queries))


def close(ours: NDArray[np.float32], theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=2e-6)


def test_it_is_an_encoder(minilm: str) -> None:
    assert isinstance(Dense(minilm), Encoder)


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_documents_equal_encode_document(minilm: str, model: Any, batch_tokens: int) -> None:
    vectors = Dense(minilm, batch_tokens=batch_tokens, cache=False).encode_documents(TEXTS)
    close(vectors.array, model.encode_document(TEXTS))
    assert vectors.metric == "cosine"
    assert vectors.array.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors.array, axis=1), 1, rtol=1e-6)


def test_queries_equal_encode_query(minilm: str, model: Any) -> None:
    queries = Dense(minilm).encode_queries(TEXTS)
    close(rows(queries), model.encode_query(TEXTS))
    assert {query.dtype for query in queries} == {np.dtype(np.float32)}
    close(rows(Dense(minilm).encode_queries(TEXTS[:1])), model.encode_query(TEXTS[:1]))


def test_the_models_own_prompts_are_routed(minilm: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny(tmp_path, minilm, prompts={"query": "find: ", "passage": "read: "})
    theirs = SentenceTransformer(folder, device="cpu")
    ours = Dense(folder)
    assert theirs.prompts["query"] == "find: "
    expected = theirs.encode_document(TEXTS, normalize_embeddings=True)
    close(ours.encode_documents(TEXTS).array, expected)
    close(rows(ours.encode_queries(TEXTS)), theirs.encode_query(TEXTS, normalize_embeddings=True))
    assert not np.allclose(expected, theirs.encode_query(TEXTS, normalize_embeddings=True), atol=1e-3)


def test_the_models_default_prompt_is_used(minilm: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny(tmp_path, minilm, prompts={"sts": "compare: "}, default_prompt_name="sts")
    theirs = SentenceTransformer(folder, device="cpu")
    close(rows(Dense(folder).encode_queries(TEXTS)), theirs.encode_query(TEXTS, normalize_embeddings=True))
    close(Dense(folder).encode_documents(TEXTS).array, theirs.encode_document(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("wrong", [{"query_prompt": 5}, {"document_prompt": "\ud800"}, {"normalize": "no"}])
def test_prompts_and_normalize_of_another_type_are_refused(minilm: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        Dense(minilm, **wrong)


def test_given_prompts_replace_the_models(minilm: str, model: Any) -> None:
    ours = Dense(minilm, query_prompt="query: ", document_prompt="passage: ")
    close(ours.encode_documents(TEXTS).array, model.encode_document(TEXTS, prompt="passage: "))
    close(rows(ours.encode_queries(TEXTS)), model.encode_query(TEXTS, prompt="query: "))


def test_a_router_sends_queries_and_documents_different_ways(minilm: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    folders = [tiny(tmp_path / str(seed), minilm, seed=seed) for seed in (1, 2)]
    sides = [list(SentenceTransformer(folder, device="cpu")) for folder in folders]
    theirs = SentenceTransformer(modules=[Router.for_query_document(*sides)], device="cpu")
    ours = Dense(theirs)
    queries = theirs.encode_query(TEXTS, normalize_embeddings=True)
    documents = theirs.encode_document(TEXTS, normalize_embeddings=True)
    assert not np.allclose(queries, documents, atol=0.1)
    close(rows(ours.encode_queries(TEXTS)), queries)
    close(ours.encode_documents(TEXTS).array, documents)


def test_truncated_vectors_have_unit_length_again(minilm: str, model: Any) -> None:
    ours = Dense(minilm, truncate_dim=64)
    close(ours.encode_documents(TEXTS).array, model.encode_document(TEXTS, truncate_dim=64, normalize_embeddings=True))
    close(rows(ours.encode_queries(TEXTS)), model.encode_query(TEXTS, truncate_dim=64, normalize_embeddings=True))
    assert ours.schema().dimensions == 64


def test_truncation_to_more_dimensions_than_there_are_is_refused(minilm: str) -> None:
    dense = Dense(minilm, truncate_dim=385)
    for use in (dense.schema, lambda: dense.encode_documents(["a"])):
        with pytest.raises(InvalidArgumentError, match=r"truncate_dim is 385, but .* gives only 384 dimensions"):
            use()


def test_a_model_that_truncates_its_vectors_can_be_truncated_less(minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    ours = Dense(SentenceTransformer(minilm, device="cpu", truncate_dim=32), truncate_dim=64)
    assert ours.schema().dimensions == ours.encode_documents(["a wing"]).array.shape[1] == 64


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_the_metric_comes_from_the_model_and_decides_on_normalisation(minilm: str, tmp_path: Path, metric: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny(tmp_path, minilm, similarity_fn_name=metric)
    ours = Dense(folder)
    close(ours.encode_documents(TEXTS).array, SentenceTransformer(folder, device="cpu").encode_document(TEXTS))
    assert ours.encode_documents(TEXTS).metric == ours.schema().metric == metric
    unit = Dense(folder, normalize=True).encode_documents(TEXTS).array
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)


def test_manhattan_distance_is_refused(minilm: str, tmp_path: Path) -> None:
    folder = tiny(tmp_path, minilm, similarity_fn_name="manhattan")
    with pytest.raises(InvalidArgumentError, match="Manhattan"):
        Dense(folder).encode_documents(TEXTS)
    assert Dense(folder, metric="euclidean").schema().metric == "euclidean"


def test_cosine_without_unit_length_is_refused(minilm: str) -> None:
    with pytest.raises(InvalidArgumentError, match="unit length"):
        Dense(minilm, metric="cosine", normalize=False)
    with pytest.raises(InvalidArgumentError, match="unit length"):
        Dense(minilm, normalize=False).encode_documents(TEXTS)


def test_blank_texts_are_zero_rows_and_never_sent_to_the_model(
    minilm: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Dense(model, cache=False)
    assert not ours.encode_documents(["", " \n\t"]).array.any()
    assert ours.encode_documents([]).array.shape == (0, 384)
    assert ours.encode_queries([]) == []
    mixed = ours.encode_documents(["", TEXTS[0]]).array
    assert not mixed[0].any()
    close(mixed[1], model.encode_document(TEXTS[0]))
    assert [query.any() for query in ours.encode_queries(["  ", TEXTS[0]])] == [False, True]
    monkeypatch.setattr(model, "preprocess", None)
    assert not ours.encode_queries([""])[0].any()


def test_max_length_cuts_texts(minilm: str, model: Any) -> None:
    short = Dense(minilm, max_length=8).encode_documents(TEXTS[:1]).array
    model.max_seq_length, before = 8, model.max_seq_length
    close(short, model.encode_document(TEXTS[:1]))
    model.max_seq_length = before


def test_a_query_that_the_model_does_not_read_to_its_end_is_noted(minilm: str, model: Any) -> None:
    ours, limit = Dense(minilm), model.max_seq_length
    fits, longer = " ".join(["wing"] * (limit - 2)), " ".join(["wing"] * (limit - 1))
    note = f"the query has {limit + 1} tokens, but the model reads only {limit}."
    assert ours.query_notes(["wing", fits, longer]) == ["", "", note]
    assert Dense(minilm, query_prompt="query: ").query_notes([fits])[0].startswith(f"the query has {limit + 2} tokens")
    search = hs.HybridSearch({"dense": ours})
    search.index([hs.Document("wing", "a wing")])
    assert search.search(longer).notes == (f"dense: {note}",)


def test_cached_vectors_are_bit_equal_and_encode_nothing(minilm: str, model: Any, monkeypatch: Any) -> None:
    fresh = Dense(model).encode_documents(TEXTS).array
    monkeypatch.setattr(model, "preprocess", None)
    again = Dense(model).encode_documents([*reversed(TEXTS), ""]).array
    assert np.array_equal(again[:-1], fresh[::-1])


def test_the_cache_can_be_turned_off(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Dense(model, cache=False).encode_documents(TEXTS[:1])
    Dense(model).encode_documents([""])
    monkeypatch.setattr(model, "preprocess", None)
    with pytest.raises(TypeError):
        Dense(model).encode_documents(TEXTS[:1])


def test_nan_names_the_text(minilm: str) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    broken = SentenceTransformer(minilm, device="cpu")
    token = broken.tokenizer.convert_tokens_to_ids("stalls")
    with torch.no_grad():
        broken[0].model.embeddings.word_embeddings.weight[token] = float("nan")
    ours = Dense(broken)
    with pytest.raises(EncodingError, match="text number 2"):
        ours.encode_documents(TEXTS)
    with pytest.raises(EncodingError, match="text number 1"):
        ours.encode_queries(["", "it stalls"])


def test_threads_get_the_vectors_of_one_thread(minilm: str, model: Any) -> None:
    ours = Dense(minilm)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda text: ours.encode_queries([text])[0], TEXTS * 3))
    close(rows(answers), np.concatenate([model.encode_query([text]) for text in TEXTS * 3]))


def test_a_model_left_in_training_mode_is_put_right(minilm: str, model: Any) -> None:
    from sentence_transformers import SentenceTransformer

    training = SentenceTransformer(minilm, device="cpu").train()
    close(rows(Dense(training).encode_queries(TEXTS)), model.encode_query(TEXTS))


def test_the_schema_makes_the_encoder_again(minilm: str) -> None:
    ours = Dense(Path(minilm), truncate_dim=128, query_prompt="query: ", max_length=32)
    schema = ours.schema()
    assert schema.encoder is not None
    assert schema.encoder["type"] == "dense"
    assert make_encoder(schema.encoder).schema() == schema


def test_a_model_object_has_a_fingerprint_but_no_description(model: Any) -> None:
    schema = Dense(model).schema()
    assert schema.encoder is None
    assert schema.fingerprint == Dense(model).fingerprint()


def test_the_cache_keeps_the_vectors_of_each_similarity_of_a_model_object(minilm: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny(tmp_path, minilm), device="cpu")
    before = Dense(model, cache=tmp_path / "cache")
    assert np.linalg.norm(before.encode_documents(["wing"]).array) == pytest.approx(1)
    model.similarity_fn_name = "dot"
    dense = Dense(model, cache=tmp_path / "cache")
    close(dense.encode_documents(["wing"]).array, model.encode(["wing"]))


def test_every_setting_that_changes_vectors_changes_the_fingerprint(minilm: str, tmp_path: Path) -> None:
    variants = [
        Dense(minilm),
        Dense(minilm, truncate_dim=64),
        Dense(minilm, max_length=64),
        Dense(minilm, query_prompt="q: "),
        Dense(minilm, document_prompt="d: "),
        Dense(minilm, metric="dot"),
        Dense(minilm, model_kwargs={"dtype": "float64"}),
        Dense(tiny(tmp_path, minilm)),
    ]
    assert len({encoder.fingerprint().digest for encoder in variants}) == len(variants)
    moved = shutil.copytree(minilm, tmp_path / "moved")
    assert Dense(moved, device="cpu", batch_tokens=7, cache=False).fingerprint() == Dense(minilm).fingerprint()


@pytest.mark.parametrize("texts", ["one string", [1], ["fine", None], ["\ud800"]])
def test_what_is_no_list_of_texts_is_refused(minilm: str, texts: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        Dense(minilm).encode_documents(texts)
    with pytest.raises(InvalidArgumentError):
        Dense(minilm).encode_queries(texts)


@pytest.mark.parametrize("options", [{"metric": "jaccard"}, {"truncate_dim": 0}, {"batch_tokens": -1}])
def test_arguments_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Dense("a/model", **options)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_encodes_though_its_parent_computed_with_several_threads(
    in_a_fork: Callable[..., Any], minilm: str
) -> None:
    """A forked process would wait forever for threads of its parent."""
    import torch

    threads, texts = torch.get_num_threads(), ["a long text about wings " * 12] * 2
    torch.set_num_threads(2)
    try:
        dense = Dense(minilm, cache=False)
        expected = dense.encode_queries(texts)[0]
        found, shape = in_a_fork(
            lambda: [
                dense.encode_queries(texts)[0].tolist(),
                Dense(minilm, cache=False)
                .encode_documents(texts)
                .array.shape,  # a model that is loaded in that process
            ]
        )
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert shape == [2, 384]


def test_it_is_pickled_by_its_models_name_and_loads_that_again(minilm: str) -> None:
    dense = Dense(minilm, batch_tokens=512, device="cpu", cache=False)
    dense.encode_queries(["wing"])
    pickled = pickle.dumps(dense)
    assert len(pickled) < 2000
    back = pickle.loads(pickled)  # noqa: S301 - its own
    assert (back.fingerprint(), back.schema(), repr(back)) == (dense.fingerprint(), dense.schema(), repr(dense))
