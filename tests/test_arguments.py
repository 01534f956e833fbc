"""Tests of the checks of arguments: the same values are refused everywhere, and accepted values are plain."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch import arguments
from hybridsearch.arguments import ALLOWED_FIRST, ids, names, number, one_of, true_or_false, whole_number
from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.integrations.mcp import make_server
from hybridsearch.ranking import Ranking
from hybridsearch.training.models.loading import load_to_train
from hybridsearch.training.models.lora import add_adapters
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.weighting import BM25Weighting

INTEGERS = [np.int8, np.int32, np.int64, np.uint16]
NOT_WHOLE = [True, False, np.True_, None, "3", 2.0, np.float64(3), math.nan, [3], np.array([3])]


@pytest.mark.parametrize(
    "call",
    [
        lambda no: hs.copy("here", "there", resume=no),
        lambda no: hs.publish("opensearch://localhost/new", "alias", drop_old=no),
        lambda no: hs.Dense("model", trust_remote_code=no),
        lambda no: hs.Sparse("model", trust_remote_code=no),
        lambda no: hs.LateInteraction("model", trust_remote_code=no),
        lambda no: hs.CrossEncoderReranker("model", trust_remote_code=no),
        lambda no: load_to_train(Path("model"), "CrossEncoder", trust_remote_code=no, seed=0),
        lambda no: make_server(hs.HybridSearch({"bm25": hs.BM25()}), allow_write=no),
    ],
)
@pytest.mark.parametrize("no", ["no", "false", 0, None])
def test_a_text_is_never_read_as_yes(call: Callable[[object], object], no: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"(trust_remote_code|resume|drop_old|allow_write) is true or false"):
        call(no)


@given(st.integers(), st.integers())
def test_a_whole_number_is_let_through_exactly_from_the_least_one(value: int, least: int) -> None:
    if value >= least:
        assert whole_number("n", value, least) == value
    else:
        with pytest.raises(
            InvalidArgumentError, match=f"^n is {value}, but it must be a whole number of at least {least}.$"
        ):
            whole_number("n", value, least)


@given(st.sampled_from(INTEGERS), st.integers(1, 100))
def test_an_integer_of_numpy_becomes_a_plain_one(kind: Callable[[int], Any], value: int) -> None:
    assert json.dumps([whole_number("n", kind(value)), number("n", kind(value))]) == f"[{value}, {value}]"


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="it must be a whole number of at least 1"):
        whole_number("n", value)


@given(st.floats(), st.floats(0, 1))
def test_a_number_is_let_through_exactly_within_its_bounds(value: float, most: float) -> None:
    def passes(**bounds: float) -> bool:
        try:
            return number("n", value, **bounds) == value  # type: ignore[arg-type]
        except InvalidArgumentError:
            return False

    assert passes(least=0, most=most) == (0 <= value <= most)
    assert passes(above=0, below=most) == (0 < value < most)
    assert passes(least=0) == (0 <= value < math.inf)
    assert passes(above=0, most=math.inf) == (value > 0)
    assert passes() == math.isfinite(value)


@pytest.mark.parametrize("value", [True, np.True_, None, "0.5", 0.5j, [0.5], np.array(0.5)], ids=repr)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"share is .+, but it must be a number"):
        number("share", value)


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        ({"least": 1}, "a number of at least 1"),
        ({"above": 1}, "a number above 1"),
        ({"above": 1, "unit": "seconds", "most": math.inf}, "a number of seconds above 1"),
        ({"least": 1, "most": 2}, "a number from 1 to 2"),
        ({"least": 1, "below": 2}, "a number from 1 to below 2"),
        ({"above": 1, "below": 2}, "a number above 1 and below 2"),
        ({"above": 1, "most": 2}, "a number above 1 and at most 2"),
    ],
)
def test_the_sentence_says_what_is_allowed(bounds: dict[str, Any], allowed: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^x is 0, but it must be {allowed}.$"):
        number("x", 0, **bounds)
    with pytest.raises(InvalidArgumentError, match=f"^x is {allowed}, not 0.$"):
        number("x", 0, **bounds, sentence=ALLOWED_FIRST)


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        whole_number("n", "x" * 10_000)
    assert len(str(caught.value)) < 200


def test_only_booleans_are_true_or_false() -> None:
    assert true_or_false("flag", False) is False
    for value in (0, 1, "yes", None):
        with pytest.raises(InvalidArgumentError, match=r"^flag is true or false, not "):
            true_or_false("flag", value)


def test_a_word_is_one_of_those_allowed() -> None:
    assert one_of("metric", "dot", ("cosine", "dot")) == "dot"
    with pytest.raises(InvalidArgumentError, match=r"^metric is one of cosine, dot, not 'l2'.$"):
        one_of("metric", "l2", ("cosine", "dot"))


ONE = hs.Dataset("one", {"q": "wing"}, {"q": {"a": 1}})
ROWS = [{"question": "What is lift?", "answer": "A force on a wing."}]
ENCODERS = {"bm25": hs.BM25()}
UNTYPED: Any = hs
NUMBER: Any = 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: UNTYPED.recall("papers"), r"search is an index such as hs\.open\('my-index'\), not 'papers'"),
        (lambda folder: UNTYPED.calibrate("papers", ["wing"], len), r"search is an index such as hs\.open"),
        (
            lambda folder: UNTYPED.open(folder, precision="bf17"),
            r"precision is one of auto, fp32, bf16, int8, not 'bf17'",
        ),
        (lambda folder: UNTYPED.Ranking.to_trec({"q": {"d": 1.0}}, folder), r"A ranking is an hs\.Ranking such as"),
        (lambda folder: UNTYPED.open(folder, runtime="onnx"), r"runtime is one of torch, openvino, not 'onnx'"),
        (lambda folder: hs.evaluate(folder, ONE), r"to measure an index, give hs\.open\('"),
        (lambda folder: hs.compare({"x": "opensearch://u:pw@h/x"}, ONE), r"give hs\.open\('opensearch://\*\*\*@h/x'\)"),
        (lambda folder: hs.recall(hs.HybridSearch(ENCODERS), "wing"), r"write \['wing'\]"),
        (lambda folder: UNTYPED.encode_on_ray([], folder, ENCODERS, cluster="ray"), r"cluster is an hs\.RayCluster"),
        (lambda folder: UNTYPED.train_dense("m", ROWS, folder, settings={}), r"settings is an hs\.TrainingSettings"),
        (lambda folder: add_adapters(None, NUMBER), r"lora is a LoraSettings such as .*, not 16"),
    ],
)
def test_a_value_of_another_type_is_refused_with_an_example(
    call: Callable[[str], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        call(str(tmp_path))


def test_one_name_or_id_is_a_list_of_one() -> None:
    assert (names("bm25"), names(["b", "a", "b"]), names(())) == (["bm25"], ["b", "a"], [])
    assert (ids("1"), ids(id for id in "ab"), ids([])) == (["1"], ["a", "b"], [])
    for wrong in (1, [1], [None]):
        with pytest.raises(InvalidArgumentError, match="id"):
            ids(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("keyed", [{"q1": "wing"}, pa.table({"q1": ["wing"]})])
def test_keys_are_not_taken_for_queries_ids_or_names(keyed: Any) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([{"id": "q1", "text": "q1"}])
    asks: list[Callable[[], object]] = [
        lambda: search.search_many(keyed),
        lambda: search.rankings(keyed),
        lambda: search.get(keyed),
        lambda: search.delete(keyed),
        lambda: search.search("q1", retrievers=keyed),
        lambda: hs.BM25().encode_documents(keyed),
    ]
    for ask in asks:
        with pytest.raises(InvalidArgumentError, match=r"not .*(the mapping|a table)"):
            ask()
    assert search.count() == 1


@pytest.mark.parametrize("one", [*INTEGERS, np.float32])
def test_numbers_of_numpy_are_taken_everywhere_and_stored_as_plain_ones(one: Callable[[int], Any]) -> None:
    fusion = hs.RRF(k=one(60), weights={"bm25": one(1)})
    settings = TrainingSettings(epochs=one(2), weight_decay=one(0))
    assert json.loads(json.dumps([fusion.to_json(), settings.to_dict()]))[0]["k"] == 60
    assert BM25Weighting(k1=one(1)).k1 == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: hs.RRF(k=True),
        lambda: hs.RRF(weights={"bm25": True}),
        lambda: hs.BM25(k1=True),
        lambda: hs.Dense("model", truncate_dim=True),
        lambda: hs.Sparse("model", max_active_dims=True),
        lambda: hs.CrossEncoderReranker("model", top_k=True),
        lambda: hs.CrossEncoderReranker("model", max_length=True),
        lambda: TrainingSettings(dropout=True),
        lambda: hs.HybridSearch({"bm25": hs.BM25()}, timeout=True),
        lambda: hs.HybridSearch({"bm25": hs.BM25()}, candidates=True),
    ],
)
def test_booleans_are_refused_everywhere(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError, match="True"):
        make()


# Paths

PLACES: dict[str, Callable[[hs.HybridSearch, str], object]] = {
    "backend": lambda search, path: hs.HybridSearch({"bm25": hs.BM25()}, path).upsert({"id": "a", "text": "x"}),
    "open": lambda search, path: hs.open(path),
    "save": lambda search, path: search.save(path),
    "read": lambda search, path: list(hs.read_documents(path)),
    "via": lambda search, path: search.index([{"id": "b", "text": "y"}], via=path),
    "copy": lambda search, path: hs.copy(search.backend, path),
    "fusion": lambda search, path: search.search("x", fusion=f"{path}.json"),
    "save a fusion": lambda search, path: hs.RRF().save(path),
    "runs": lambda search, path: Ranking.to_trec({}, path),
    "data set": lambda search, path: hs.load_dataset(path),
    "model": lambda search, path: hs.Dense(path).encode_queries(["x"]),
    "qdrant": lambda search, path: hs.open(f"qdrant:///{path}/name"),
}


@pytest.mark.parametrize(
    "path", ["a\0b", "\ud800", "~no-such-user/x", "x" * 300], ids=["zero", "surrogate", "user", "long"]
)
@pytest.mark.parametrize("place", PLACES)
def test_a_path_that_can_be_none_is_refused_wherever_one_comes_in(
    place: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "qdrant":
        pytest.importorskip("qdrant_client")
    monkeypatch.chdir(tmp_path)
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "a", "text": "x"})
    with pytest.raises(HybridSearchError):
        PLACES[place](search, path)
    assert not any(tmp_path.iterdir())


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.jsonl").write_text('{"id": "1", "text": "a"}')
    assert [document.id for document in hs.read_documents("~/c.jsonl")] == ["1"]
    with pytest.raises(InvalidArgumentError, match=r"'~no-such-user/x', but the home folder.*write \./~no-such-user"):
        arguments.path("via", "~no-such-user/x")
