"""Scores equal those of CrossEncoder, with any batches. Wrong models are refused with one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridsearch.documents import Document
from hybridsearch.errors import EncodingError, InvalidArgumentError, ModelNotFoundError
from hybridsearch.rerank import CrossEncoderReranker, Reranker, make_reranker
from hybridsearch.rerank import cross_encoder as rerank

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for rerankers")

QUERIES = ["how does the wing stall", "shock waves", "boundary layer"]
DOCUMENTS = [
    [
        Document("1", "The angle of attack decides how much lift a wing gives. " * 12, "Lift"),
        Document("2", "Wings."),
        Document("3", "翼の揚力"),
    ],
    [],
    [Document("4", "Boundary layers grow with distance."), Document("5", ""), Document("1", "Short.", "A title")],
]


def cross_encoder(folder: Path, minilm: str, outputs: int = 1) -> str:
    """The first two layers of MiniLM with an untrained head for scores, saved in `folder`."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=outputs, num_hidden_layers=2).save_pretrained(
        folder / "bert"
    )
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder / "bert")
    CrossEncoder(str(folder / "bert"), device="cpu").save_pretrained(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def folder(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return cross_encoder(tmp_path_factory.mktemp("cross-encoder"), minilm)


@pytest.fixture(scope="module")
def theirs(folder: str) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(folder, device="cpu")


def test_the_activation_of_a_model_object_counts_for_its_fingerprint(folder: str, theirs: Any) -> None:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    plain = CrossEncoder(folder, device="cpu", activation_fn=Identity())
    (ours,), (other,) = (CrossEncoderReranker(one).rerank(QUERIES[:1], DOCUMENTS[:1]) for one in (theirs, plain))
    assert (ours != other).any()
    assert CrossEncoderReranker(plain).fingerprint() != CrossEncoderReranker(theirs).fingerprint()


def test_it_is_a_reranker(folder: str) -> None:
    assert isinstance(CrossEncoderReranker(folder), Reranker)


@pytest.mark.parametrize("batch_tokens", [1, 100, None])
def test_scores_equal_predict(folder: str, theirs: Any, batch_tokens: int | None) -> None:
    scores = CrossEncoderReranker(folder, batch_tokens=batch_tokens).rerank(QUERIES, DOCUMENTS)
    assert [len(of_query) for of_query in scores] == [3, 0, 3]
    for query, documents, of_query in zip(QUERIES, DOCUMENTS, scores, strict=True):
        assert of_query.dtype == np.float64
        if documents:
            expected = theirs.predict([(query, document.content) for document in documents])
            np.testing.assert_allclose(of_query, expected, rtol=0, atol=1e-5)


def test_the_order_equals_rank(folder: str, theirs: Any) -> None:
    scores = CrossEncoderReranker(folder).rerank(QUERIES[:1], DOCUMENTS[:1])[0]
    expected = [hit["corpus_id"] for hit in theirs.rank(QUERIES[0], [document.content for document in DOCUMENTS[0]])]
    assert np.argsort(-scores).tolist() == expected


def test_windows_do_not_change_scores(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CrossEncoderReranker(folder).rerank(QUERIES, DOCUMENTS)
    monkeypatch.setattr(rerank, "WINDOW", 2)
    for ours, expected in zip(CrossEncoderReranker(folder).rerank(QUERIES, DOCUMENTS), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_max_length_cuts_pairs(folder: str, theirs: Any) -> None:
    scores = CrossEncoderReranker(folder, max_length=16).rerank(QUERIES[:1], DOCUMENTS[:1])[0]
    theirs.max_seq_length, before = 16, theirs.max_seq_length
    expected = theirs.predict([(QUERIES[0], document.content) for document in DOCUMENTS[0]])
    theirs.max_seq_length = before
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_nothing_to_rerank_is_fine(folder: str) -> None:
    ours = CrossEncoderReranker(folder)
    assert ours.rerank([], []) == []
    assert [len(of_query) for of_query in ours.rerank(["a", "b"], [[], []])] == [0, 0]


def test_a_loaded_model_is_accepted(theirs: Any) -> None:
    ours = CrossEncoderReranker(theirs)
    assert ours.to_json() is None
    assert len(ours.rerank(QUERIES, DOCUMENTS)) == 3
    assert ours.fingerprint() == CrossEncoderReranker(theirs).fingerprint()


def test_nan_names_query_and_document(folder: str) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    broken = CrossEncoder(folder, device="cpu")
    token = broken.tokenizer.convert_tokens_to_ids("wings")
    with torch.no_grad():
        broken[0].model.bert.embeddings.word_embeddings.weight[token] = float("nan")
    with pytest.raises(EncodingError, match="NaN for query 'how does the wing stall' and document '2'"):
        CrossEncoderReranker(broken).rerank(QUERIES, DOCUMENTS)


def test_its_description_makes_it_again(folder: str) -> None:
    ours = CrossEncoderReranker(Path(folder), top_k=20, max_length=128)
    description = json.loads(json.dumps(ours.to_json()))
    assert description == {"type": "cross-encoder", "model": folder, "max_length": 128, "top_k": 20}
    again = make_reranker(description)
    assert (again.top_k, again.fingerprint()) == (20, ours.fingerprint())


@pytest.mark.parametrize("description", [{"type": "cohere"}, {}, {"type": "cross-encoder", "modle": "a"}])
def test_an_unknown_description_is_refused(description: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        make_reranker(description)


def test_a_model_without_a_trained_head_is_refused(minilm: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no cross-encoder.*BertModel"):
        CrossEncoderReranker(minilm).rerank(QUERIES, DOCUMENTS)


def test_a_head_that_is_not_in_the_files_is_refused(folder: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "model")
    weights = load_file(f"{folder}/model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "classifier" not in name}
    save_file(kept, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidArgumentError, match=r"lacks 2 of its weights \(classifier\.bias, classifier\.weight\)"):
        CrossEncoderReranker(tmp_path / "model").rerank(QUERIES, DOCUMENTS)


def test_a_model_with_several_outputs_is_refused(minilm: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="has 3 outputs"):
        CrossEncoderReranker(cross_encoder(tmp_path, minilm, outputs=3)).rerank(QUERIES, DOCUMENTS)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="/no/such/model"):
        CrossEncoderReranker("/no/such/model").rerank(QUERIES, DOCUMENTS)


def test_queries_and_lists_of_documents_must_correspond(folder: str) -> None:
    with pytest.raises(InvalidArgumentError, match="3 queries need one list of documents each, not 1"):
        CrossEncoderReranker(folder).rerank(QUERIES, DOCUMENTS[:1])


@pytest.mark.parametrize("top_k", [0, -1, "ten"])
def test_top_k_must_be_positive(top_k: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="top_k"):
        CrossEncoderReranker("a/model", top_k=top_k)


def test_a_template_decides_what_is_read(folder: str, theirs: Any) -> None:
    reranker = CrossEncoderReranker(folder, template="{metadata.tags}: {text}")
    documents = [
        Document("1", "A wing.", "Lift", {"tags": ["stall", "flow"]}),
        Document("2", "A wing.", "Lift", {"tags": "sound"}),
    ]

    (scores,) = reranker.rerank(["stall"], [documents])

    expected = theirs.predict([("stall", "stall, flow: A wing."), ("stall", "sound: A wing.")])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6)
    assert reranker.fingerprint().digest != CrossEncoderReranker(folder).fingerprint().digest
    again = make_reranker(json.loads(json.dumps(reranker.to_json())))
    assert again.fingerprint() == reranker.fingerprint()
    assert "template" not in str(CrossEncoderReranker(folder).to_json())
