"""Tests of models that come with Python code, for all kinds of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.errors import ModelNotFoundError
from hybridsearch.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=1, batch_size=8)


@pytest.fixture
def own_code(tiny_bert: dict[str, Any], tiny_tokenizer: Path, tmp_path: Path) -> Path:
    """The folder of a masked language model that comes with the code of its class."""
    import transformers

    folder = tmp_path / "own-code"
    transformers.BertForMaskedLM(transformers.BertConfig(**tiny_bert)).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_tokenizer).save_pretrained(folder)
    (folder / "modeling_own.py").write_text(
        "from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
        "class OwnForMaskedLM(BertForMaskedLM):\n    config_class = OwnConfig\n"
        "class OwnForSequenceClassification(BertForSequenceClassification):\n    config_class = OwnConfig\n",
        encoding="utf-8",
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "OwnConfig", "AutoModel": "OwnModel", "AutoModelForMaskedLM": "OwnForMaskedLM"}
    classes["AutoModelForSequenceClassification"] = "OwnForSequenceClassification"
    config |= {"model_type": "own", "auto_map": {name: f"modeling_own.{one}" for name, one in classes.items()}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # sentence-transformers prints it once in a process
@pytest.mark.parametrize(
    ("train", "encode"),
    [
        (hs.train_dense, hs.Dense),
        (hs.train_sparse, hs.Sparse),
        (hs.train_late_interaction, hs.LateInteraction),
        (hs.train_reranker, hs.CrossEncoderReranker),
    ],
)
def test_a_model_with_code_of_its_own_is_trained_where_that_is_trusted(
    own_code: Path, long_questions: hs.Dataset, other_questions: hs.Dataset, tmp_path: Path, train: Any, encode: Any
) -> None:
    options: dict[str, Any] = {"test": other_questions, "hard_negatives": 1, "settings": SETTINGS}
    with pytest.raises(ModelNotFoundError, match="trust_remote_code"):
        train(own_code, long_questions, tmp_path / "refused", **options)

    result = train(own_code, long_questions, tmp_path / "output", trust_remote_code=True, **options)

    assert result.comparison is not None
    with pytest.raises(ModelNotFoundError, match="trust_remote_code"):
        encode(result.path).model.get()
    loaded = encode(result.path, trust_remote_code=True).model.get()
    assert "OwnFor" in str(loaded) or "OwnModel" in str(loaded)


def test_a_model_with_code_of_its_own_is_adapted_to_a_raw_corpus(
    own_code: Path, tiny_corpus: list[hs.Document], tmp_path: Path
) -> None:
    rows = [{"_id": one.id, "title": one.title, "text": one.text} for one in tiny_corpus]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = [
        "train", "dense", "--unsupervised", tmp_path / "corpus.jsonl", "--model", own_code,
        "--output", tmp_path / "out", "--max-steps", 1,
    ]  # fmt: skip

    refused = CliRunner().invoke(app, list(map(str, command)))
    trusted = CliRunner().invoke(app, [*map(str, command), "--trust-remote-code"])

    assert refused.exit_code == 1
    assert "has code that runs only if you allow it" in refused.stderr
    assert trusted.exit_code == 0, trusted.output
