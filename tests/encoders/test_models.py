"""Tests of finding a model without a network, and of the digest of its content."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridsearch.documents import Document
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.model_folders import folder_digest
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError, MissingExtraError, ModelNotFoundError
from hybridsearch.rerank import CrossEncoderReranker

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for the model encoders")


@pytest.fixture
def copy(minilm: str, tmp_path: Path) -> Path:
    """A copy of the model in another folder."""
    return Path(shutil.copytree(minilm, tmp_path / "a copy"))


def dense(model: Any, **options: Any) -> LazyModel:
    return LazyModel(model, "SentenceTransformer", device=None, **options)


def test_the_same_files_elsewhere_have_the_same_digest(minilm: str, copy: Path) -> None:
    assert dense(copy).digest() == dense(minilm).digest()


def test_texts_about_the_model_do_not_change_its_digest(copy: Path) -> None:
    before = folder_digest(copy)
    (copy / "README.md").write_text("Another text.")
    (copy / "report.json").write_text("{}")
    (copy / "training.json").write_text("{}")
    (copy / "data_config.json").unlink()
    (copy / "checkpoint-10").mkdir()
    (copy / "checkpoint-10" / "model.safetensors").write_bytes(b"an earlier state")
    assert folder_digest(copy) == before


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"])
def test_a_file_changed_in_place_changes_the_digest(copy: Path, file: str) -> None:
    before = folder_digest(copy)
    content = bytearray((copy / file).read_bytes())
    content[-2] ^= 1
    (copy / file).write_bytes(content)
    assert folder_digest(copy) != before


@pytest.mark.parametrize("file", ["bpe.codes", "source.spm", "prophetnet.tokenizer", "qwen.tiktoken"])
def test_each_vocabulary_of_a_tokenizer_counts_for_the_digest(copy: Path, file: str) -> None:
    digests = {folder_digest(copy)}
    for content in ("one", "two"):
        (copy / file).write_text(content)
        digests.add(folder_digest(copy))
    assert len(digests) == 3


def test_the_base_model_of_an_adapter_counts_for_its_digest(minilm: str, copy: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(copy)}))
    before = folder_digest(adapter)
    assert folder_digest(adapter) == before
    (copy / "config.json").write_text("{}")
    assert folder_digest(adapter) != before


def test_the_base_model_of_a_base_that_is_an_adapter_counts_for_the_digest(copy: Path, tmp_path: Path) -> None:
    base = copy
    for name in ("first", "second"):
        adapter = tmp_path / name
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        base = adapter
    before = folder_digest(base)
    (copy / "config.json").write_text("{}")
    assert folder_digest(base) != before
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert folder_digest(base) != before, "adapters that name each other have a digest"


def test_code_in_a_subfolder_counts_for_the_digest_if_it_may_run(copy: Path) -> None:
    before = [folder_digest(copy, with_code=with_code) for with_code in (False, True)]
    (copy / "code").mkdir()
    (copy / "code" / "modeling.py").write_text("x = 1")
    after = [folder_digest(copy, with_code=with_code) for with_code in (False, True)]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_model_kwargs_are_for_torch_though_the_folder_has_int8_weights(copy: Path) -> None:
    (copy / "openvino-int8").mkdir()
    assert dense(copy).way().precision == "int8"
    assert dense(copy, model_kwargs={"attn_implementation": "eager"}).way().precision == "fp32"


def test_the_tokenizer_of_a_loaded_model_counts_for_its_digest(minilm: str) -> None:
    from sentence_transformers import SentenceTransformer
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import PreTokenizer

    given = SentenceTransformer(minilm, device="cpu")
    digests = {dense_of_object(given)}
    given.tokenizer.truncation_side = "left"
    digests.add(dense_of_object(given))
    given.tokenizer.backend_tokenizer.normalizer = BertNormalizer(lowercase=False)
    digests.add(dense_of_object(given))
    given.tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(object())
    digests.add(dense_of_object(given))
    assert len(digests) == 4


def dense_of_object(model: Any) -> str:
    return LazyModel(model, "SentenceTransformer").digest()


def test_a_loaded_model_keeps_the_digest_of_what_was_loaded(copy: Path) -> None:
    model = dense(copy)
    before = model.digest()
    model.get()
    (copy / "config.json").write_text("{}")
    assert model.digest() == before != folder_digest(copy)


def test_training_a_loaded_model_changes_its_digest(minilm: str) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(minilm, device="cpu")
    lazy = dense(model)
    before = lazy.digest()
    assert lazy.digest() == before == dense(SentenceTransformer(minilm, device="cpu")).digest()
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    trained = lazy.digest()
    assert trained != before
    known = {before, trained}
    words = model[0].auto_model.embeddings.word_embeddings.weight
    zero, swapped, negated = torch.zeros(384), words.data[[9, 8]].clone(), -words.data[10]
    for rows, changed in ((7, zero), ([8, 9], swapped), (10, negated)):
        words.data[rows] = changed  # torch does not count changes through `data`
        known.add(lazy.digest())
    assert len(known) == 5


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_the_adapters_that_a_loaded_model_uses_are_part_of_its_digest(minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    peft: Any = pytest.importorskip("peft")
    model = SentenceTransformer(minilm, device="cpu")
    task = peft.TaskType.FEATURE_EXTRACTION
    for name in ("one", "other"):
        model.add_adapter(peft.LoraConfig(task_type=task, r=2, target_modules=["query"]), adapter_name=name)
    lazy = dense(model)
    digests = []
    for name in ("one", "other", "one"):
        model.set_adapter(name)
        digests.append(lazy.digest())
    model.disable_adapters()
    digests.append(lazy.digest())
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match=r"^/no/such/model is not a model folder: give"):
        dense("/no/such/model").get()


def test_a_name_that_is_nowhere_names_the_folder_and_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    with pytest.raises(ModelNotFoundError) as caught:
        dense("nobody/no-such-model").digest()
    message = str(caught.value)
    assert str(tmp_path / "nobody/no-such-model") in message
    assert str(tmp_path / "hub") in message
    assert "hf download nobody/no-such-model" in message


def test_a_model_in_the_local_hub_cache_is_found_by_name(
    minilm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("0" * 40)
    shutil.copytree(minilm, entry / "snapshots" / ("0" * 40))
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"):
        assert dense(name).digest() == dense(minilm).digest()
        assert dense(name).get().get_embedding_dimension() == 384


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="holds no model"):
        dense(tmp_path).get()


def test_a_file_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="is a file, not a model folder"):
        dense(tmp_path / "model.bin").get()


def test_damaged_weights_are_one_sentence(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        dense(copy).get()


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InvalidArgumentError, match="pickled"):
        dense(copy).get()


def without(model: str, folder: Path, part: str) -> str:
    """A copy of a model whose files lack the weights with `part` in their names."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    kept = {name: weight for name, weight in load_file(folder / "model.safetensors").items() if part not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_weights_that_would_be_random_numbers_are_refused(minilm: str, splade: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"lacks 16 of its weights \(encoder\.layer\.3\..*random numbers"):
        Dense(without(minilm, tmp_path / "dense", "layer.3.")).encode_queries(["wing"])
    with pytest.raises(InvalidArgumentError, match=r"lacks \d of its weights \(cls\.predictions\."):
        Sparse(without(splade, tmp_path / "sparse", "cls.")).encode_queries(["wing"])


def test_weights_that_no_vector_depends_on_may_be_lacking(minilm: str, tmp_path: Path) -> None:
    folder = without(minilm, tmp_path / "model", "pooler.")
    expected = Dense(minilm).encode_queries(["wing"])[0]
    assert Dense(folder).encode_queries(["wing"])[0].tolist() == expected.tolist()


def test_a_model_without_its_tokenizer_is_refused_because_each_word_would_be_unknown(copy: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (copy / file).unlink()
    with pytest.raises(ModelNotFoundError, match="lacks the files of its tokenizer"):
        Dense(copy).encode_queries(["wing"])


def test_a_model_of_word_vectors_has_a_tokenizer_of_its_own_kind(minilm: str, tmp_path: Path) -> None:
    import tokenizers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = tokenizers.Tokenizer.from_file(str(Path(minilm) / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)], device="cpu")
    model.save_pretrained(str(tmp_path))
    texts = ["lift of a wing", "heat"]
    expected = model.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(Dense(tmp_path).encode_documents(texts).array, expected, atol=1e-6)
    with pytest.raises(InvalidArgumentError, match=r"max_length is 64, but .* always reads whole texts"):
        Dense(tmp_path, max_length=64).encode_documents(texts)


def decoder(minilm: str, folder: Path, architecture: str) -> Path:
    """A small GPT-2 whose tokenizer has no padding token."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=30522, n_embd=16, n_layer=1, n_head=2, bos_token_id=101, eos_token_id=102, num_labels=1
    )
    getattr(transformers, architecture)(config).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("as_object", [False, True])
def test_a_decoder_without_a_padding_token_pads_with_its_end_token(
    tmp_path: Path, minilm: str, as_object: bool
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = decoder(minilm, tmp_path, "GPT2Model")
    texts = ["a wing", "a much longer text about the heat of a blunt body"]
    model = SentenceTransformer(str(folder), device="cpu") if as_object else folder
    alone = [Dense(folder, cache=False).encode_documents([text]).array[0] for text in texts]
    np.testing.assert_allclose(Dense(model, cache=False).encode_documents(texts).array, alone, atol=1e-6)


def test_a_reranker_without_a_padding_token_scores_long_and_short_pairs_together(tmp_path: Path, minilm: str) -> None:
    folder = decoder(minilm, tmp_path, "GPT2ForSequenceClassification")
    documents = [Document("1", "a wing"), Document("2", "a much longer text about the heat of a blunt body")]
    (together,) = CrossEncoderReranker(folder).rerank(["lift"], [documents])
    alone = [CrossEncoderReranker(folder).rerank(["lift"], [[document]])[0][0] for document in documents]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert alone[0] != alone[1]


def test_a_tokenizer_that_cannot_pad_is_named(copy: Path) -> None:
    file = copy / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": None}))
    (copy / "special_tokens_map.json").unlink()
    with pytest.raises(InvalidArgumentError, match="has no padding token"):
        Dense(copy).encode_queries(["wing"])


@pytest.mark.parametrize("file", ["modules.json", "config.json"])
def test_files_of_another_form_are_one_sentence(copy: Path, file: str) -> None:
    (copy / file).write_text('["no module"]')
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        Dense(copy).encode_queries(["wing"])


def test_a_model_is_loaded_only_as_what_it_was_saved_as(minilm: str, splade: str) -> None:
    document = Document("wing", "a wing")
    with pytest.raises(InvalidArgumentError, match=r"is a sparse encoder.*hybridsearch\.Sparse"):
        Dense(splade).encode_queries(["wing"])
    with pytest.raises(InvalidArgumentError, match=r"is no sparse encoder.*hybridsearch\.Dense"):
        Sparse(minilm).encode_queries(["wing"])
    for model in (minilm, splade):
        with pytest.raises(InvalidArgumentError, match="is no cross-encoder"):
            CrossEncoderReranker(model).rerank(["wing"], [[document]])


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertLMHeadModel", "BertForTokenClassification"])
def test_a_language_model_as_a_dense_one_is_told_that_it_was_not_trained_for_it(copy: Path, architecture: str) -> None:
    (copy / "modules.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    with pytest.warns(UserWarning, match=rf"{architecture}\) was not trained to make vectors of texts"):
        Dense(copy).encode_queries(["wing"])


@pytest.mark.parametrize("kwargs", [{"trust_remote_code": True}, {"use_safetensors": False}])
def test_model_kwargs_cannot_loosen_the_safety(kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="model_kwargs cannot hold"):
        dense("a/model", model_kwargs=kwargs)


def test_model_kwargs_hold_no_token_because_an_index_stores_them() -> None:
    with pytest.raises(InvalidArgumentError, match="HF_TOKEN") as error:
        dense("a/model", model_kwargs={"token": "hf_secret"})
    assert "hf_secret" not in str(error.value)


def test_model_kwargs_must_be_json_able() -> None:
    import torch

    with pytest.raises(InvalidArgumentError, match="JSON cannot hold"):
        dense("a/model", model_kwargs={"dtype": torch.float16})


@pytest.mark.parametrize("options", [{"max_length": 0}, {"max_length": "64"}, {"runtime": "tensorflow"}])
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        dense("a/model", **options)


def test_a_length_beyond_the_models_is_refused(minilm: str) -> None:
    with pytest.raises(InvalidArgumentError, match="at most 512"):
        dense(minilm, max_length=513).get()


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_that_leaves_no_room_for_a_word_is_refused(minilm: str, length: int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"adds 2 special tokens.*at least 3"):
        dense(minilm, max_length=length).get()
    assert dense(minilm, max_length=3).get().max_seq_length == 3


def test_max_length_is_set_on_the_loaded_model(minilm: str) -> None:
    assert dense(minilm, max_length=64).get().max_seq_length == 64


def test_options_are_not_set_on_a_model_of_the_callers(minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    with pytest.raises(InvalidArgumentError, match="set them on the SentenceTransformer object"):
        dense(SentenceTransformer(minilm, device="cpu"), max_length=64)


@pytest.mark.parametrize("wrong", [42, "", None])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        dense(wrong)


def test_a_missing_library_names_the_extra(minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[models\]'"):
        dense(minilm).get()


def test_an_index_never_remembers_to_trust_code(minilm: str) -> None:
    arguments = dense(minilm, trust_remote_code=True, max_length=64).arguments()
    assert arguments == {"model": minilm, "max_length": 64}
    assert json.loads(json.dumps(arguments)) == arguments


def test_constructing_and_fingerprinting_load_no_model_library(minilm: str) -> None:
    program = (
        "import sys, hybridsearch as hs\n"
        f"for encoder in (hs.Dense({minilm!r}), hs.Sparse({minilm!r}), hs.CrossEncoderReranker({minilm!r})):\n"
        "    encoder.fingerprint()\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
