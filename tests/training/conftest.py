"""Tiny models with random weights, and a small collection, for tests of training."""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs

TOPICS = {
    "wing": [
        ("Lift", "The lift of a wing grows with its angle of attack until the flow separates."),
        ("Drag", "Drag on a wing has a part from friction and a part that comes with lift."),
        ("Stall", "A wing stalls when the flow on its upper side separates."),
        ("Flaps", "Flaps raise the lift of a wing at low speed and add drag."),
        ("Winglets", "Winglets weaken the vortex that leaves the tip of a wing."),
        ("Icing", "Ice on the leading edge spoils the shape of a wing and its lift."),
        ("Flutter", "Flutter is a growing oscillation of a wing in fast flow."),
        ("Sweep", "A swept wing meets shock waves later than a straight one."),
    ],
    "heart": [
        ("Headache", "Cephalalgia is the medical name of a headache and has many causes."),
        ("Hypertension", "High blood pressure harms the heart and the vessels over the years."),
        ("Aspirin", "Aspirin keeps blood from clotting and lowers the risk of infarction."),
        ("Infarction", "A myocardial infarction is the death of heart muscle for want of blood."),
        ("Statins", "Statins lower cholesterol and with it the risk of heart disease."),
        ("Anaemia", "Anaemia is a lack of red blood cells and makes people tired."),
        ("Insulin", "Insulin moves glucose from the blood into muscle and fat."),
        ("Asthma", "Asthma narrows the airways of the lung and makes breathing hard."),
    ],
    "kitchen": [
        ("Bread", "Bread rises because yeast turns sugar into gas."),
        ("Cheese", "Cheese is made from milk with rennet and bacteria."),
        ("Pasta", "Pasta is cooked in much salted water until it is firm to the bite."),
        ("Caramel", "Caramel is sugar that was heated until it turned brown."),
        ("Vinegar", "Vinegar comes about when bacteria turn alcohol into acid."),
        ("Stock", "Stock is water in which bones and vegetables simmered for hours."),
        ("Mayonnaise", "Mayonnaise holds oil in water by the yolk of an egg."),
        ("Tempering", "Chocolate is tempered so that it shines and breaks with a snap."),
    ],
    "sky": [
        ("Eclipse", "A solar eclipse happens when the moon passes in front of the sun."),
        ("Comets", "A comet grows a tail of gas and dust near the sun."),
        ("Tides", "The moon and the sun raise the tides of the sea."),
        ("Aurora", "The aurora glows where particles from the sun meet the air."),
        ("Orbits", "Planets move on ellipses with the sun in one focus."),
        ("Galaxies", "A galaxy holds billions of stars, gas and dark matter."),
        ("Redshift", "The light of far galaxies is shifted to the red."),
        ("Supernova", "A supernova is the end of a heavy star in an explosion."),
    ],
    "garden": [
        ("Compost", "Compost is made of leaves and kitchen waste that rot with air."),
        ("Pruning", "Apple trees are pruned in winter so that light reaches the fruit."),
        ("Bees", "Bees carry pollen from flower to flower and make honey."),
        ("Slugs", "Slugs eat young lettuce at night and hide by day."),
        ("Roses", "Roses want sun, loam and a cut in early spring."),
        ("Peas", "Peas fix nitrogen from the air by bacteria in their roots."),
        ("Moss", "Moss takes over a lawn that is wet, shaded and poor."),
        ("Bulbs", "Tulip bulbs are planted in autumn and flower in spring."),
    ],
}


@pytest.fixture(scope="session", autouse=True)
def _templates_are_compiled_once() -> Iterator[None]:
    """Each checkpoint has a model card. Compiling the card's template takes longer than a few steps of training."""
    jinja2 = pytest.importorskip("jinja2", reason="pip install 'hybridsearch[training]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", functools.cache(jinja2.Environment.compile))
        yield


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, because tiny models are faster without threads, above all on a busy machine."""
    torch: Any = pytest.importorskip("torch", reason="pip install 'hybridsearch[training]'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_corpus() -> list[hs.Document]:
    """Forty documents of one sentence about five topics, with ids such as "wing-3"."""
    return [
        hs.Document(f"{topic}-{number}", text, title)
        for topic, entries in TOPICS.items()
        for number, (title, text) in enumerate(entries)
    ]


@pytest.fixture(scope="session")
def tiny_pairs(tiny_corpus: list[hs.Document]) -> list[dict[str, str]]:
    """A question and its answer for each document of `tiny_corpus`, in its order."""
    return [{"anchor": f"What is {document.title.lower()}?", "positive": document.text} for document in tiny_corpus]


@pytest.fixture(scope="session")
def tiny_dataset(tiny_corpus: list[hs.Document], tiny_pairs: list[dict[str, str]]) -> hs.Dataset:
    """The questions of `tiny_pairs` with the document that answers each as the only relevant one."""
    ids = [document.id for document in tiny_corpus]
    queries = {f"q-{id}": pair["anchor"] for id, pair in zip(ids, tiny_pairs, strict=True)}
    return hs.Dataset("tiny", queries, {f"q-{id}": {id: 1} for id in ids}, tiny_corpus)


@pytest.fixture(scope="session")
def other_questions(tiny_dataset: hs.Dataset) -> hs.Dataset:
    """A test set beside `tiny_dataset`: its documents are asked for in other words."""
    queries = {id: text.replace("What is", "Tell me about") for id, text in tiny_dataset.queries.items()}
    return hs.Dataset("tiny", queries, tiny_dataset.qrels, tiny_dataset.corpus)


@pytest.fixture(scope="session")
def long_questions(tiny_dataset: hs.Dataset) -> hs.Dataset:
    """`tiny_dataset` with queries that match all documents, so that BM25 finds enough documents to mine."""
    titles = ", ".join(document.title for document in tiny_dataset.corpus or ())
    queries = {id: f"{text} Unlike {titles}." for id, text in tiny_dataset.queries.items()}
    return hs.Dataset("tiny", queries, tiny_dataset.qrels, tiny_dataset.corpus)


@pytest.fixture(scope="session")
def tiny_tokenizer(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer that knows the words of `tiny_corpus`, a thousand others, and all letters.

    With the whole vocabulary of MiniLM, a model spends nearly all its time on tokens that no text has.
    """
    pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
    transformers: Any = pytest.importorskip("transformers")
    numbers: dict[str, int] = transformers.AutoTokenizer.from_pretrained(minilm).get_vocab()
    words = re.findall(r"\w+", " ".join(chain.from_iterable(chain.from_iterable(TOPICS.values()))).lower())
    kept = {*words, *string.printable, *(f"##{one}" for one in string.printable)} & numbers.keys()
    kept |= {word for word, number in numbers.items() if number < 104 and "unused" not in word}
    frequent = [word for word in sorted(numbers, key=lambda word: numbers[word]) if word.isascii() and word.isalpha()]
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = sorted({*kept, *frequent[:1000]}, key=lambda word: numbers[word])
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tiny_tokenizer: Path) -> dict[str, Any]:
    """Settings of a BERT of two layers and 32 dimensions, with the vocabulary of `tiny_tokenizer`."""
    return {
        "vocab_size": len((tiny_tokenizer / "vocab.txt").read_text(encoding="utf-8").splitlines()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }


@pytest.fixture(scope="session")
def tiny_dense(tiny_bert: dict[str, Any], tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SentenceTransformer with random weights and mean pooling."""
    import sentence_transformers
    import transformers

    base = _save_bert(transformers.BertModel, tiny_bert, tiny_tokenizer, tmp_path_factory.mktemp("bert"))
    folder = tmp_path_factory.mktemp("models") / "tiny-dense"
    sentence_transformers.SentenceTransformer(str(base), device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_masked(tiny_bert: dict[str, Any], tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a masked language model with random weights, as transformers writes it."""
    import transformers

    return _save_bert(transformers.BertForMaskedLM, tiny_bert, tiny_tokenizer, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tiny_splade(tiny_masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SPLADE with random weights, whose vectors have a few hundred active dimensions."""
    import sentence_transformers

    folder = tmp_path_factory.mktemp("models") / "tiny-splade"
    sentence_transformers.SparseEncoder(str(tiny_masked), device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_late(tiny_dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a MultiVectorEncoder with random weights and a projection to 128 dimensions."""
    import sentence_transformers
    import torch

    folder = tmp_path_factory.mktemp("models") / "tiny-late"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sentence_transformers.MultiVectorEncoder(str(tiny_dense), device="cpu")
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_reranker(tiny_bert: dict[str, Any], tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CrossEncoder with random weights and one output."""
    import sentence_transformers
    import transformers

    settings = {**tiny_bert, "num_labels": 1}
    empty = tmp_path_factory.mktemp("bert")
    base = _save_bert(transformers.BertForSequenceClassification, settings, tiny_tokenizer, empty)
    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    sentence_transformers.CrossEncoder(str(base), device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a decoder language model with random weights and no token to pad with."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_tokenizer)
    tokenizer.add_special_tokens({"eos_token": "[SEP]"})
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def _save_bert(architecture: Any, settings: dict[str, Any], tokenizer: Path, folder: Path) -> Path:
    """A model of `architecture` with random weights, the same in each run, and the tokenizer in the folder."""
    import torch
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture(transformers.BertConfig(**settings))
    if isinstance(model, transformers.BertForMaskedLM):
        model.cls.predictions.bias.data.fill_(-0.22)  # without this, nearly all tokens of the vocabulary are active
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder
