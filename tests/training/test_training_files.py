"""Tests of random YAML files of `hybridsearch train`: each is used, or refused with one of our errors."""

from __future__ import annotations

import random
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from hybridsearch.cli.training import train
from hybridsearch.cli.training_options import check_options, read_config, run_options
from hybridsearch.errors import HybridSearchError
from hybridsearch.training.losses import choose_loss
from hybridsearch.training.measure.evaluators import build_evaluator
from hybridsearch.training.measure.measuring import asked_by
from hybridsearch.training.sources import gather

yaml: Any = pytest.importorskip("yaml", reason="pip install 'hybridsearch[training]'")
pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")
pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")

KINDS = ("dense", "sparse", "reranker")
OPTIONS = [name for name in signature(train).parameters if name not in ("context", "kind", "config", "as_json")]
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 1.5, -2.5, 1e308, float("inf"), float("nan"), 10**400, "", "x", "a=b", "a,b=c", "0",
    "1e999", "3e-5", "null", "\0", "~nobody/x", "a" * 5000, b"x", [], {}, [[]], [1, 2], ["a"], [None], [{}], {"a": 1},
    {1: 2}, {None: None}, {"rank": "x"}, {"rank": 1, "alpha": []}, {"targets": 3}, {"type": "similarity"}, {"type": []},
    ["tensorboard"], "mnr", "kl", "anchor=sentence1,positive=sentence2", {"anchor": [1]}, "label=score,anchor=score",
    "pairs with class", [0, 5], [5, 0], ["a", "b"], "opensearch://user:password@host/x", "sqlite://", "linear",
    "nDCG@10",
]  # fmt: skip
SENSIBLE: dict[str, Any] = {
    "columns": "anchor=anchor,positive=positive", "ignore": "score", "limit": 3, "split": "train", "epochs": 2,
    "batch_size": 8, "learning_rate": "3e-5", "loss": "mnr", "matryoshka_dims": "32,16", "lora": {"rank": 2},
    "target_active_dims": 20, "regularizer_schedule": "linear", "seed": 3, "trackers": [], "resume": True,
}  # fmt: skip
DAMAGE = (
    "[", "{", "&a ", "*a", "!!python/object:x", "- ", "\t", ": ", "<<: *a", "? ", " #", "0x", "1_0", "!!binary x",
    "!!set", "!!timestamp z", "!!int x", "!!float y", "2001-99-99", "1:2:99", "\x85", "\0", "'", '"', "%", "|", ">",
)  # fmt: skip


def value_of(chance: random.Random, files: list[str], depth: int = 0) -> Any:
    if depth < 3 and chance.random() < 0.25:
        if chance.random() < 0.5:
            return [value_of(chance, files, depth + 1) for _ in range(chance.randrange(4))]
        keys = ("type", "data", "source", "columns", "ignore", "kind", "limit", "score_range", "name", "loss", "x", 1)
        return {chance.choice(keys): value_of(chance, files, depth + 1) for _ in range(chance.randrange(4))}
    if chance.random() < 0.3:
        file = chance.choice(files)
        return chance.choice([file, {"source": file}, f"similarity={file}", {"type": "triplet", "data": file}])
    return chance.choice(VALUES)


def text_of(chance: random.Random, files: list[str]) -> str:
    """A file that is correct except for some options, values or characters."""
    if chance.random() < 0.01:
        return "[" * chance.choice([10, 3000])
    options: dict[Any, Any] = {"data": chance.choice(files), "model": "m", "output": files[0] + ".out"}
    for name in chance.sample(OPTIONS, chance.choice([1, 1, 1, 2, 5])):
        sensible = name in SENSIBLE and chance.random() < 0.5
        written = name if chance.random() < 0.9 else name.replace("_", "-")
        options[written] = SENSIBLE[name] if sensible else value_of(chance, files)
    if chance.random() < 0.05:
        options[chance.choice([1, None, True, 1.5, "kind", "zzz"])] = value_of(chance, files)
    text = str(yaml.dump(options, default_flow_style=chance.choice([True, False, None])))
    if chance.random() < 0.2:
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(DAMAGE) + text[place:]
    return text


def read_all(kind: Any, data: Any, arguments: dict[str, Any]) -> None:
    """The checks of a run before it loads a model."""
    specs = arguments.get("evaluators")
    evaluator = None if specs is None else build_evaluator(specs, kind, arguments["settings"])
    sources = gather(data, dev=arguments.get("dev"), test=arguments.get("test"), measured=asked_by(evaluator))
    for one in sources.training:
        choose_loss(kind, one, arguments.get("loss"))


def refuse(*_: object, **__: object) -> None:
    raise HybridSearchError("Nothing is mined here.")


def check(seed: int, count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for name, lines in {
        "pairs": ["anchor,positive", *(f"What is {one}?,It is {one}." for one in range(5))],
        "scored": ["sentence1,sentence2,score", *(f"One {one}.,Some {one}.,0.{one}" for one in range(5))],
        "classes": ["premise,hypothesis,label", "a,b,entailment", "a,c,contradiction", "a,d,-"],
        "damaged": ["anchor,positive", "a", 'b,"'],
    }.items():
        (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
        files.append(str(folder / f"{name}.csv"))
    for kind in KINDS:
        monkeypatch.setattr(
            f"hybridsearch.training.{kind}.train_{kind}",
            lambda model, data, output, kind=kind, **arguments: read_all(kind, data, arguments),
        )
    monkeypatch.setattr("hybridsearch.training.unlabelled.unsupervised.unsupervised_data", refuse)
    chance = random.Random(seed)
    used, messages = 0, []
    for _ in range(count):
        text, kind = text_of(chance, files), chance.choice(KINDS)
        config = folder / "run.yaml"
        config.write_bytes(text.encode("utf-8" if chance.random() < 0.97 else "utf-16", "surrogatepass"))
        try:
            options = read_config(config, kind, OPTIONS)
            check_options(kind, options)
            run_options(kind, options, show_progress_bar=False)
            used += 1
        except HybridSearchError as error:
            messages.append(str(error))
        except Exception as error:
            raise AssertionError(f"seed {seed}: a {kind} model with\n{text[:2000]}") from error
    assert not any("user:password" in message for message in messages)
    assert used > count / 50


def test_a_file_is_used_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(1, 150, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_any_file_is_used_or_refused(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(seed, 1000, tmp_path, monkeypatch)
