"""Tests of names of adapters, encoders, fusions and rerankers, also of classes that a user registers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch import registry
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.fusion import RRF, Fusion
from hybridsearch.places import connect
from hybridsearch.ranking import Ranking
from hybridsearch.registry import Kind, find, make, register, registered

KINDS: tuple[Kind, ...] = get_args(Kind)


class BordaCount(Fusion):
    """A fusion that gives one point for each candidate with a lower rank."""

    name = "borda"

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        return {name: self.weight(name) * np.arange(len(ranking), 0, -1.0) for name, ranking in rankings.items()}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Remove what a test has registered."""
    before = {kind: dict(known) for kind, known in registry._REGISTERED.items()}
    yield
    registry._REGISTERED.update(before)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_sorted_and_each_is_found(kind: Kind) -> None:
    names = list(registered(kind))
    assert names == sorted(names)
    for name, target in registered(kind).items():
        if kind != "backend" or name == "memory":
            assert find(kind, name).__name__ == target.partition(":")[2]


class Counted(hs.BM25):
    """A subclass of one of our encoders."""


def test_a_saved_index_restores_a_registered_subclass_of_an_encoder(tmp_path: Path) -> None:
    register("encoder", "counted", Counted)
    with hs.HybridSearch({"bm25": Counted(k1=0.9)}, tmp_path / "index") as search:
        search.index([hs.Document("a", "wing")])
    with hs.open(tmp_path / "index") as opened:
        assert repr(opened.retrievers["bm25"]) == "Counted('english', k1=0.9)"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_registered_cannot_be_changed_in_the_view(kind: Kind) -> None:
    with pytest.raises(TypeError):
        registered(kind)["mine"] = "os:system"  # type: ignore[index]
    with pytest.raises(InvalidArgumentError, match="'mine' is known: known are "):
        find(kind, "mine")


def test_the_error_for_an_unknown_backend_says_that_a_folder_will_do() -> None:
    with pytest.raises(InvalidArgumentError, match=r"No backend 'mine' is known: known are .*, or a folder's path\."):
        find("backend", "mine")


def test_a_saved_index_restores_a_registered_fusion(tmp_path: Path) -> None:
    documents = [hs.Document("1", "lift of a wing"), hs.Document("2", "a wing")]
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index", fusion=BordaCount()) as search:
        search.index(documents, show_progress_bar=False)
        expected = search.search("lift wing").ids
    known = "No fusion 'borda' is known: known are adaptive, judged, rrf, score"
    with pytest.raises(InvalidArgumentError, match=known):
        hs.open(tmp_path / "index")
    register("fusion", "borda", BordaCount)
    with hs.open(tmp_path / "index") as search:
        assert isinstance(search.fusion, BordaCount)
        assert search.search("lift wing").ids == expected


def test_a_class_may_be_named_and_is_imported_at_first_use() -> None:
    register("fusion", "mine", "hybridsearch.fusion.rrf:RRF")
    register("fusion", "nowhere", "no_such_module:Class")
    assert isinstance(make("fusion", {"type": "mine", "k": 3}), RRF)
    with pytest.raises(ModuleNotFoundError):
        find("fusion", "nowhere")


def test_one_name_stands_for_one_class() -> None:
    register("fusion", "rrf", RRF)  # what it is already
    with pytest.raises(InvalidArgumentError, match=r"'rrf' is registered as .*:RRF already.*Borda"):
        register("fusion", "rrf", BordaCount)
    assert find("fusion", "rrf") is RRF


def test_a_function_without_a_module_is_registered_too() -> None:
    register("tokenizer", "spaces", str.split)
    register("tokenizer", "spaces", str.split)
    assert registered("tokenizer")["spaces"] == "builtins:str.split"
    assert find("tokenizer", "spaces")("a b") == ["a", "b"]


def test_a_class_that_is_defined_again_takes_the_place_of_the_old_one() -> None:
    def define(number: int) -> type[RRF]:
        class Mine(RRF):
            version = number

        return Mine

    for number in (1, 2):
        register("fusion", "mine", define(number))
        assert find("fusion", "mine").version == number


@pytest.mark.parametrize("target", ["RRF", "module:", ":RRF", RRF(), None])
def test_what_is_no_class_is_not_registered(target: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="registered as a class or as 'module:Class'"):
        register("fusion", "mine", target)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"backend, encoder, tokenizer, fusion, reranker, not 'fusions'"):
        register("fusions", "borda", BordaCount)  # type: ignore[arg-type]


def test_a_file_never_names_what_is_imported(tmp_path: Path) -> None:
    for kind in KINDS:
        for name in ("os:system", "hybridsearch.fusion.rrf:RRF", None):
            with pytest.raises(InvalidArgumentError, match=r"is known: known are|has a name"):
                make(kind, {"type": name})


@pytest.mark.parametrize(("kind", "name"), [("encoder", "dense"), ("encoder", "sparse"), ("reranker", "cross-encoder")])
def test_a_file_never_lets_the_code_of_a_model_run(kind: Kind, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot let a .* run the code of its model"):
        make(kind, {"type": name, "model": "any", "trust_remote_code": True})


def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"The fusion 'rrf' does not take these arguments.*depth"):
        make("fusion", {"type": "rrf", "depth": 3})


def test_a_missing_package_is_named_with_what_installs_it() -> None:
    register("backend", "engine", "no_such_client:Engine", extra="engine")
    with pytest.raises(MissingExtraError, match=r"The engine backend.*\[engine\]"):
        connect("engine://host/name")


def test_the_entry_point_of_another_package_is_a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text(
        "from hybridsearch.adapters.memory import MemoryBackend\n"
        "class Theirs(MemoryBackend):\n"
        "    def __init__(self, location, *, speed=1):\n"
        "        super().__init__()\n"
        "        self.location, self.speed = location, speed\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hybridsearch.backends]\ntheirs = their_package:Theirs\nmemory = their_package:Theirs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    theirs: Any = connect("theirs://host/name", {"speed": 2})

    assert (type(theirs).__name__, theirs.location, theirs.speed) == ("Theirs", "theirs://host/name", 2)
    assert registered("backend")["theirs"] == "their_package:Theirs"
    assert type(connect("memory")) is MemoryBackend  # our own names stay ours


def test_every_description_is_json(tmp_path: Path) -> None:
    for fusion in (hs.RRF(k=3), hs.ScoreFusion("zscore", {"a": 1})):
        assert repr(make("fusion", json.loads(json.dumps(fusion.to_json())))) == repr(fusion)
