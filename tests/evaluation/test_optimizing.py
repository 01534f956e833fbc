"""A model in int8 finds nearly the same, has a fingerprint of its own, and its folder still gives the exact vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hybridsearch as hs
from hybridsearch.errors import FingerprintMismatchError, InvalidArgumentError
from hybridsearch.evaluation.optimizing import Optimization

pytest.importorskip("nncf", reason="pip install 'hybridsearch[openvino]'")

SUBJECTS = ["wing", "nozzle", "boundary layer", "shock wave", "propeller", "heat shield", "flutter", "wake"]
DOCUMENTS = [
    hs.Document(f"{subject} {number}", f"The {subject} was measured in wind tunnel {number} at high speed.", subject)
    for subject in SUBJECTS
    for number in range(2)
]
DATASET = hs.Dataset(
    "small",
    {subject: f"measurements of a {subject}" for subject in SUBJECTS},
    {subject: {f"{subject} 0": 1, f"{subject} 1": 1} for subject in SUBJECTS},
    DOCUMENTS,
)


@pytest.fixture(scope="module")
def made(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Optimization]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDSEARCH_CACHE", "off")
        folder = tmp_path_factory.mktemp("optimized") / "model"
        return folder, hs.optimize(minilm, DATASET, folder, texts=8)


def test_it_measures_what_int8_costs_and_gives(made: tuple[Path, Optimization]) -> None:
    folder, result = made
    assert result.cosine is not None
    assert result.mean_cosine is not None
    assert 0.9 < result.cosine < result.mean_cosine < 1
    assert 0.8 < result.overlap <= 1
    assert result.ndcg is not None
    assert min(result.ndcg) > 0.8
    assert result.speed > 0
    assert (result.calibrated, result.queries) == (8, len(SUBJECTS))
    assert json.loads((folder / "optimization.json").read_text())["ndcg"] == list(result.ndcg)


def test_the_folder_computes_in_int8_unless_it_is_told_otherwise(made: tuple[Path, Optimization], minilm: str) -> None:
    folder, _ = made
    fast, exact = hs.Dense(folder), hs.Dense(folder, precision="fp32")
    assert str(fast.model.way()) == "int8 by openvino"
    assert exact.fingerprint() == hs.Dense(minilm).fingerprint()
    assert not exact.fingerprint().takes_queries(fast.fingerprint())
    assert fast.fingerprint().tolerance is None
    assert 0.9 < float(fast.encode_queries(["wings"])[0] @ exact.encode_queries(["wings"])[0]) < 0.99999


def test_an_index_of_int8_takes_int8_only(made: tuple[Path, Optimization], tmp_path: Path) -> None:
    with hs.HybridSearch({"dense": hs.Dense(made[0])}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
    with hs.open(tmp_path / "index") as search:
        assert {*search.search("propeller", top_k=2).ids} == {"propeller 0", "propeller 1"}
    with hs.open(tmp_path / "index", precision="fp32") as search, pytest.raises(FingerprintMismatchError, match="int8"):
        search.search("propeller")


def test_data_and_folders_that_are_not_usable_are_refused(minilm: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match=r"is not empty: give a new folder"):
        hs.optimize(minilm, DOCUMENTS, tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"fewer than two documents with text"):
        hs.optimize(minilm, [hs.Document("1", "")], tmp_path / "new")
