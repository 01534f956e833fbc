"""Tests of queries that are made from documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError, ModelNotFoundError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.negatives.mining import mine_hard_negatives
from hybridsearch.training.unlabelled.generation import QueryModel
from hybridsearch.training.unlabelled.pseudo import headings, pseudo_queries, sentences

pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

ARTICLE = hs.Document(
    "wings",
    """Wings carry aircraft through the air.

## Lift

Lift grows with the angle of attack. It ends where the flow separates.

Stall
=====
A stall is the loss of lift. It comes suddenly!

Winglets and their use

They weaken the vortex at the tip, and save some fuel.

## Empty
""",
    "Wing",
)


def rows_of(data: TrainingData) -> list[tuple[str, str]]:
    return list(zip(data.rows["anchor"], data.rows["positive"], strict=True))


def test_headings_come_with_the_sections_below_them() -> None:
    assert [(one.query, one.answer) for one in headings(ARTICLE)] == [
        ("Wing Lift", "Lift grows with the angle of attack. It ends where the flow separates."),
        ("Wing Stall", "A stall is the loss of lift. It comes suddenly!"),
        ("Winglets and their use", "They weaken the vortex at the tip, and save some fuel."),
    ]


def test_a_sentence_is_asked_of_the_document_without_it() -> None:
    document = hs.Document("1", "Lift grows with speed. Is it so? Drag grows with the square of speed.", "Wing")
    assert [(one.query, one.answer) for one in sentences(document)] == [
        ("Lift grows with speed.", "Wing Is it so? Drag grows with the square of speed."),
        ("Drag grows with the square of speed.", "Wing Lift grows with speed. Is it so?"),
    ]


def test_sentences_end_without_a_space_in_chinese() -> None:
    document = hs.Document(
        "1", "机翼的升力随着迎角的增大而增大，直到气流在上表面分离为止。阻力随着速度的平方增大，并且随着升力增大。"
    )
    assert [one.query for one in sentences(document)] == document.text.replace("。", "。 ").split()


def test_a_document_of_one_sentence_gives_none() -> None:
    assert list(sentences(hs.Document("1", "Lift grows with the angle of attack."))) == []


def test_a_document_gives_no_more_queries_than_asked_for_and_titles_first() -> None:
    data = pseudo_queries([ARTICLE], per_document=2)
    assert [query for query, _ in rows_of(data)] == ["Wing", "Wing Lift"]
    assert data.kind is Kind.PAIRS
    assert data.ids is not None
    assert data.ids.to_dict() == {"query_id": ["wings/0", "wings/1"], "document_id": ["wings", "wings"]}
    assert data.notes == (
        'title queries: 1, such as "Wing"',
        'heading queries: 1, such as "Wing Lift"',
        "sentence queries: 0",
    )


def test_no_query_is_a_part_of_its_answer(tiny_corpus: list[hs.Document]) -> None:
    data = pseudo_queries([ARTICLE, *tiny_corpus], kinds=["heading", "sentence"], per_document=10)
    assert all(query not in answer for query, answer in rows_of(data))


def test_the_same_seed_chooses_the_same_sentences() -> None:
    text = " ".join(f"This is the sentence with the number {number}." for number in range(20))
    documents = [hs.Document(str(number), text) for number in range(5)]
    one, same, other = (rows_of(pseudo_queries(documents, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_documents_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "title": "Lift", "text": "It carries a wing."}\n')
    assert rows_of(pseudo_queries(tmp_path / "corpus.jsonl")) == [("Lift", "It carries a wing.")]


def test_a_function_may_write_the_queries() -> None:
    def ask(texts: Sequence[str]) -> list[list[str]]:
        return [[f"what is {text.split()[0].lower()}", "", f"What is {text.split()[0].lower()}"] for text in texts]

    documents = [hs.Document("1", "Lift carries."), hs.Document("2", "Drag brakes.")]
    data = pseudo_queries(documents, generator=ask)
    assert rows_of(data) == [("what is lift", "Lift carries."), ("what is drag", "Drag brakes.")]


@pytest.mark.parametrize("architecture", ["seq2seq", "causal"])
def test_a_model_of_transformers_writes_the_same_queries_again(
    architecture: str, minilm: str, tmp_path: Path, tiny_corpus: list[hs.Document]
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    small = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": 102}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if architecture == "seq2seq":
            config = transformers.T5Config(
                d_model=32, d_ff=64, d_kv=16, num_layers=1, num_heads=2, decoder_start_token_id=0, **small
            )
            model = transformers.T5ForConditionalGeneration(config)
        else:
            sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **small))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    documents = tiny_corpus[:3]
    one, other = (QueryModel(tmp_path, queries=2, max_new_tokens=6, device="cpu") for _ in range(2))
    data = pseudo_queries(documents, kinds=["generated"], generator=one)
    assert rows_of(data) == rows_of(pseudo_queries(documents, kinds=["generated"], generator=other))
    assert {answer for _, answer in rows_of(data)} == {document.content for document in documents}
    assert len(data) == 6


def test_the_beginning_of_a_chat_is_marked_once(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers: Any = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    tokenizer.chat_template = "[CLS]{{ messages[0]['content'] }}"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    seen: list[Any] = []

    def generate(model: Any, input_ids: Any, **_: Any) -> Any:
        seen.append(input_ids)
        return input_ids

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", generate)
    QueryModel(tmp_path, prompt="lift {text}", device="cpu")(["wing"])
    assert tokenizer.decode(seen[0][0]) == "[CLS] lift wing"


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        pseudo_queries([ARTICLE], generator=tmp_path / "nowhere")


def test_negatives_can_be_mined_for_pseudo_queries(tiny_corpus: list[hs.Document]) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(tiny_corpus, show_progress_bar=False)
    mined = mine_hard_negatives(pseudo_queries(tiny_corpus), search, ranks=(1, 10))
    assert all(one["document_id"] != one["negative_id"] for one in mined.provenance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_document": 0}, "per_document is a whole number"),
        ({"kinds": "title"}, "kinds is .* Give a list of some of title"),
        ({"kinds": ["question"]}, "kinds is .* Give a list of some of title"),
        ({"kinds": ["generated"]}, "need each other"),
        ({"kinds": ["title"], "generator": list}, "need each other"),
        ({"generator": 3}, "The generator is 3"),
        ({"generator": lambda texts: ["one", "two"]}, "gave 2 answers to 1 text"),
    ],
)
def test_an_argument_that_is_not_usable_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        pseudo_queries([ARTICLE], **options)


def test_documents_that_give_no_query_are_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="give no queries"):
        pseudo_queries([hs.Document("1", "Too short.")])
