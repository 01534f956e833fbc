"""bf16 and OpenVINO give the vectors of fp32 by torch within their tolerance, and an index says what it takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.cli import doctor
from hybridsearch.encoders import runtimes
from hybridsearch.encoders.runtimes import Way
from hybridsearch.errors import FingerprintMismatchError, InvalidArgumentError, MissingExtraError

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for the model encoders")

TEXTS = ["Lift grows with the angle of attack. " * n for n in range(1, 6)] + ["", "Boundary layers", "翼の揚力"]
FILLED = [number for number, text in enumerate(TEXTS) if text]
DOCUMENTS = [hs.Document(str(number), text) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that keeps the graphs of OpenVINO for this module, because a conversion takes seconds."""
    pytest.importorskip("openvino", reason="pip install 'hybridsearch[openvino]'")
    folder = tmp_path_factory.mktemp("graphs")
    yield folder
    assert len(list(folder.glob("openvino/*/model.xml"))) == len(list(folder.glob("openvino/*")))


@pytest.fixture
def by_openvino(kept: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(kept))
    return {"runtime": "openvino", "device": "cpu"}


def cosines(ours: Any, theirs: Any) -> Any:
    ours, theirs = (np.asarray(rows[FILLED], dtype=np.float64) for rows in (ours, theirs))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return np.einsum("ij,ij->i", ours, theirs) / lengths


def test_bf16_by_torch_is_close_to_fp32(minilm: str) -> None:
    exact = hs.Dense(minilm, cache=False).encode_documents(TEXTS).array
    fast = hs.Dense(minilm, cache=False, precision="bf16")
    found = fast.encode_documents(TEXTS).array
    assert 0.9999 < cosines(found, exact).min() < 1
    assert not found[TEXTS.index("")].any()
    assert found[0] @ fast.encode_queries(TEXTS[:1])[0] > 0.9999


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.9999)])
def test_openvino_gives_the_dense_vectors_of_torch(
    minilm: str, by_openvino: dict[str, Any], precision: runtimes.Precision, least: float
) -> None:
    exact = hs.Dense(minilm, cache=False, max_length=32).encode_documents(TEXTS).array
    fast = hs.Dense(minilm, cache=False, max_length=32, batch_tokens=40, precision=precision, **by_openvino)
    assert cosines(fast.encode_documents(TEXTS).array, exact).min() > least
    assert cosines(np.concatenate([fast.encode_queries([text]) for text in TEXTS]), exact).min() > least
    assert fast.metric == "cosine"
    assert fast.dimensions == 384


def test_a_new_process_starts_with_several_batches_at_once(minilm: str, by_openvino: dict[str, Any]) -> None:
    exact = hs.Dense(minilm, cache=False, max_length=32, **by_openvino).encode_queries(["Lift"])[0]  # keeps the graph
    code = f"""
import hybridsearch as hs
dense = hs.Dense({minilm!r}, cache=False, max_length=32, batch_tokens=8, runtime="openvino", device="cpu")
print(*dense.encode_documents(["Lift"] * 8).array[7])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert np.array(done.stdout.split(), dtype=np.float32) @ exact == pytest.approx(1, abs=1e-4)


def test_openvino_refuses_weights_that_are_not_float32(minilm: str, by_openvino: dict[str, Any]) -> None:
    for dtype in ("bfloat16", "float16"):
        dense = hs.Dense(minilm, cache=False, model_kwargs={"dtype": dtype}, **by_openvino)
        with pytest.raises(InvalidArgumentError, match=f"needs the weights as float32, not as {dtype}: give model_"):
            dense.encode_queries(["Lift"])


def test_openvino_gives_the_weights_and_places_of_torch(splade: str, by_openvino: dict[str, Any]) -> None:
    exact = hs.Sparse(splade, cache=False)
    fast = hs.Sparse(splade, cache=False, **by_openvino)
    ours, theirs = (one.encode_documents(TEXTS).matrix.toarray() for one in (fast, exact))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    wanted = [{"lift": 1.0, "wing": 0.5}]
    assert fast.locate(TEXTS[:1], wanted) == exact.locate(TEXTS[:1], wanted)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"runtime": "openvino", "device": "cpu"}])
def test_rerankers_keep_their_order(
    hub: dict[str, str], kept: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(kept))
    model = str(Path(hub["HF_HUB_CACHE"]) / "cross-encoder")
    exact, fast = hs.CrossEncoderReranker(model), hs.CrossEncoderReranker(model, batch_tokens=64, **options)
    ours, theirs = (one.rerank(["how much lift"], [DOCUMENTS])[0] for one in (fast, exact))
    assert len(set(ours)) == len(DOCUMENTS)  # the head is not rounded to bf16, so scores are not tied
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.02)


def test_pooling_of_splade_skips_padding(splade: str) -> None:
    fast = hs.Sparse(splade, cache=False, precision="bf16")
    short, long = "lift", "The angle of attack decides how much lift a wing gives."
    together = fast.encode_documents([short, long]).matrix.toarray()
    alone = fast.encode_documents([short]).matrix.toarray()
    np.testing.assert_allclose(together[0], alone[0], rtol=0, atol=0.05)
    assert cosines_of(together[:1], hs.Sparse(splade, cache=False).encode_documents([short]).matrix.toarray()) > 0.99


def cosines_of(one: Any, other: Any) -> float:
    return float((one @ other.T).item() / np.linalg.norm(one) / np.linalg.norm(other))


def test_precision_is_part_of_the_fingerprint_and_runtime_is_not(minilm: str) -> None:
    exact, other = hs.Dense(minilm).fingerprint(), hs.Dense(minilm, precision="bf16").fingerprint()
    assert exact == hs.Dense(minilm, precision="fp32", runtime="openvino").fingerprint()
    assert exact.digest != other.digest
    assert (exact.tolerance, other.tolerance) == (0, 0.001)
    assert exact.takes_queries(other)
    assert other.takes_queries(exact)
    assert not exact.takes_queries(hs.Dense(minilm, precision="bf16", max_length=9).fingerprint())


def test_an_index_of_fp32_takes_queries_in_bf16_but_no_documents(minilm: str, tmp_path: Path) -> None:
    with hs.HybridSearch({"dense": hs.Dense(minilm)}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
        wanted = search.search("wings")
    with hs.open(tmp_path / "index", precision="bf16") as search:
        assert "precision='bf16'" in repr(search.retrievers["dense"])
        assert search.search("wings").ids == wanted.ids
        with pytest.raises(FingerprintMismatchError, match=r"higher precision .*'fp32' against 'bf16'"):
            search.upsert([hs.Document("new", "A new document")])
    with hs.open(tmp_path / "index") as search:
        assert search.upsert([hs.Document("new", "A new document")]).indexed == 1


def test_an_index_of_bf16_takes_everything_in_fp32(minilm: str, tmp_path: Path) -> None:
    with hs.HybridSearch({"dense": hs.Dense(minilm, precision="bf16")}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
    with hs.open(tmp_path / "index", precision="fp32") as search:
        assert search.upsert([hs.Document("new", "A new document")]).indexed == 1
        assert search.search("new document").ids[0] == "new"


def test_the_cache_keeps_each_precision_apart(minilm: str) -> None:
    fast = hs.Dense(minilm, precision="bf16").encode_documents(TEXTS).array
    exact = hs.Dense(minilm).encode_documents(TEXTS).array
    assert (fast != exact).any()


def test_what_cannot_run_is_refused(minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no faster with int8: give runtime='openvino'"):
        hs.Dense(minilm, precision="int8", runtime="torch")
    with pytest.raises(InvalidArgumentError, match=r"int8 weights .* leave out model_kwargs"):
        hs.Dense(minilm, precision="int8", model_kwargs={"attn_implementation": "eager"})
    with pytest.raises(InvalidArgumentError, match=r"has no int8 weights: make .* `hybridsearch optimize MODEL"):
        hs.Dense(minilm, precision="int8").fingerprint()
    with pytest.raises(InvalidArgumentError, match=r"precision is one of auto, .*not 'fp8'"):
        hs.Dense(minilm, precision="fp8")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'openvino', .*\[openvino\]"):
        hs.Dense(minilm, runtime="openvino", device="cpu").encode_queries(["wings"])


def test_a_forked_process_encodes_though_its_parent_used_openvino(
    minilm: str, by_openvino: dict[str, Any], in_a_fork: Callable[..., Any]
) -> None:
    dense = hs.Dense(minilm, cache=False, max_length=32, **by_openvino)
    wanted = dense.encode_queries(["wings"])[0]
    assert in_a_fork(lambda: float(dense.encode_queries(["wings"])[0] @ wanted)) == pytest.approx(1, abs=1e-5)


def test_auto_takes_what_is_fastest_and_as_good_and_says_it_once(
    minilm: str, kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seconds = iter([1.0, 0.5, 0.9, 0.4])
    measured = runtimes._measured
    monkeypatch.setattr(runtimes, "_measured", lambda model: (measured(model)[0], next(seconds)))
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(kept))
    with pytest.warns(UserWarning, match=r"'auto' runs .* in bf16 by openvino: 2.5 times as fast .* cosine 0.9999"):
        fingerprint = hs.Dense(minilm, precision="auto", device="cpu").fingerprint()
    assert fingerprint == hs.Dense(minilm, precision="bf16").fingerprint()
    dense = hs.Dense(minilm, precision="auto", device="cpu")
    assert dense.model.way() == Way("bf16", "openvino")
    assert "precision='auto'" in repr(dense)
    assert dense.schema().encoder["precision"] == "auto"  # another machine chooses for itself
    told = [one.detail for one in doctor.examine().findings if one.name == minilm]
    assert [detail.partition(":")[0] for detail in told] == [f"precision='auto' runs {minilm} in bf16 by openvino"]
    shutil.rmtree(kept / "choices")


def test_auto_compares_the_token_vectors_of_late_interaction(minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_version", lambda package: None)  # without OpenVINO
    late = hs.LateInteraction(minilm, precision="auto", device="cpu")
    with pytest.warns(UserWarning, match="precision='auto' runs"):
        assert late.model.way().runtime == "torch"
    assert len(late.vectors(["Lift"], "document")[0]) > 1


def test_the_graph_of_a_model_with_its_head_is_not_that_of_the_model_without_it(
    splade: str, by_openvino: dict[str, Any], tmp_path: Path
) -> None:
    models: Any = pytest.importorskip("sentence_transformers")
    encoder = models.SparseEncoder(splade, device="cpu")
    encoder[0].auto_model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    terms = hs.Sparse(tmp_path, cache=False, **by_openvino).encode_documents(TEXTS)
    exact, fast = (hs.Dense(tmp_path, cache=False, **way) for way in ({"device": "cpu"}, by_openvino))
    with pytest.warns(UserWarning, match="not trained to make vectors"):
        vectors = [one.encode_documents(TEXTS).array for one in (exact, fast)]
    assert vectors[0].shape == vectors[1].shape != terms.matrix.shape
    assert cosines(*vectors).min() > 0.999


def test_auto_stays_fp32_if_nothing_is_faster_or_as_good(
    minilm: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    rows = np.eye(2)
    for times, loss in (((1.0, 0.99), 0.0), ((1.0, 0.1), 0.01)):
        answers = iter([(rows, times[0]), (rows + loss**0.5 * np.array([[0, 2], [0, 0]]), times[1])])
        monkeypatch.setattr(runtimes, "_measured", lambda _, answers=answers: next(answers))
        monkeypatch.setenv("HYBRIDSEARCH_CACHE", "off")
        assert hs.Dense(minilm, precision="auto", runtime="torch").model.way() == Way()
    assert "nothing that is installed is faster" in str(recwarn.pop(UserWarning).message)


def test_graphs_and_choices_are_kept_for_each_way_to_load_a_model(minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr("hybridsearch.encoders.models.use", lambda model, way, folder, made_of: kept.append(made_of))
    monkeypatch.setattr(
        "hybridsearch.encoders.models.choose", lambda load, name, made_of, runtime: kept.append(made_of) or Way()
    )
    for options in ({}, {"model_kwargs": {"dtype": "float16"}}):
        hs.Dense(minilm, device="cpu", **options).model.get()
    assert len(set(kept)) == 2
    kept.clear()
    for options in ({"device": "cpu"}, {"device": "cuda"}, {"model_kwargs": {"dtype": "float16"}}):
        hs.Dense(minilm, precision="auto", **options).model.way()
    hs.LateInteraction(minilm, precision="auto", device="cpu").model.way()
    assert len(set(kept)) == 4


def test_the_setting_is_written_and_made_again(minilm: str) -> None:
    dense = hs.Dense(minilm, precision="bf16", runtime="openvino")
    assert "precision='bf16', runtime='openvino'" in repr(dense)
    assert dense.model.way() == Way("bf16", "openvino")
    assert str(dense.model.way()) == "bf16 by openvino"


def test_nothing_of_torch_or_openvino_is_imported_before_it_is_used(minilm: str) -> None:
    code = f"import sys, hybridsearch as hs; hs.Dense({minilm!r}, precision='bf16', runtime='openvino').fingerprint()\n"
    code += "sys.exit(bool({'torch', 'openvino', 'nncf'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
