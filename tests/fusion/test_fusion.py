"""Tests of fusion by its definitions, compared with ranx if it has the same definition."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fuzzing import SIZES, as_file, count_answers, mutated, value
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.errors import InvalidArgumentError, RetrieverError, StorageError
from hybridsearch.fusion import RRF, AdaptiveFusion, Fusion, ScoreFusion, make_fusion, read_fusion
from hybridsearch.ranking import EMPTY, Ranking

scores = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(-5, 20).map(lambda n: n / 4), max_size=10)


def rankings(*score_maps: dict[str, float]) -> dict[str, Ranking]:
    return {f"r{i}": Ranking.from_scores(score_map) for i, score_map in enumerate(score_maps)}


def test_rrf_adds_weight_over_k_plus_rank_from_one() -> None:
    fused = RRF(k=60, weights={"r0": 2.0, "r1": 1.0}).fuse(rankings({"a": 9, "b": 8}, {"b": 5}))
    assert dict(fused) == {"a": pytest.approx(2 / 61), "b": pytest.approx(2 / 62 + 1 / 61)}
    assert fused.ids == ("b", "a")


def test_the_score_of_a_document_that_both_retrievers_list_first_is_two_over_k_plus_one() -> None:
    fused = RRF(k=0).fuse(rankings({"a": 1.0}, {"a": 7.0}))
    assert dict(fused) == {"a": 2.0}


_RANX = """
import json, sys
import ranx
for runs, arguments in json.load(sys.stdin):
    print(json.dumps(dict(ranx.fuse(runs=[ranx.Run({"q": run}) for run in runs], **arguments).run["q"])))
"""


def test_rrf_and_minmax_equal_ranx() -> None:
    """The library runs in a process of plain Python, because it would compile its loops for most of a minute."""
    pytest.importorskip("ranx")
    rng = np.random.default_rng(5)
    scores = [{f"d{i}": float(score) for i, score in enumerate(rng.permutation(50)[: 10 + 10 * r])} for r in range(3)]
    normal = [{f"d{i}": float(score) for i, score in enumerate(rng.normal(size=30 + r))} for r in range(3)]
    rrf = [[scores, {"norm": None, "method": "rrf", "params": {"k": k}}] for k in (60, 7)]

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RANX],
        input=json.dumps([*rrf, [normal, {"norm": "min-max", "method": "sum"}]]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    at_60, at_7, minmax = map(json.loads, done.stdout.splitlines())
    assert dict(RRF(60).fuse(rankings(*scores))) == pytest.approx(at_60)
    assert dict(RRF(7).fuse(rankings(*scores))) == pytest.approx(at_7)
    mean = {id: score / 3 for id, score in minmax.items()}
    assert dict(ScoreFusion("minmax").fuse(rankings(*normal))) == pytest.approx(mean)


def test_zscore_uses_the_population_deviation_and_counts_missing_as_zero() -> None:
    fused = ScoreFusion("zscore").fuse(rankings({"a": 3.0, "b": 1.0}, {"c": 4.0, "d": 2.0}))
    assert dict(fused) == pytest.approx({"a": 0.5, "c": 0.5, "b": -0.5, "d": -0.5})


@pytest.mark.parametrize("normalization", ["minmax", "zscore"])
def test_equal_scores_become_one_and_never_nan(normalization: str) -> None:
    fused = ScoreFusion(normalization).fuse(rankings({"a": 0.1 + 0.2, "b": 0.1 + 0.2}, {"a": 5.0}))  # type: ignore[arg-type]
    assert dict(fused) == {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize("values", [{"a": 2e-200, "b": 1e-200}, {"a": 1.7e308, "b": -1.7e308}, {"a": 5e-324, "b": 0.0}])
@pytest.mark.parametrize("normalization", ["minmax", "zscore"])
def test_extreme_scores_are_normalised_like_any_others(normalization: str, values: dict[str, float]) -> None:
    fused = ScoreFusion(normalization).fuse(rankings(values))  # type: ignore[arg-type]
    assert list(fused) == [("a", 1.0), ("b", 0.0 if normalization == "minmax" else -1.0)]


@pytest.mark.parametrize(
    "fusion", [ScoreFusion("minmax"), ScoreFusion("zscore"), ScoreFusion("none"), AdaptiveFusion()]
)
def test_infinite_scores_have_only_ranks_to_merge(fusion: Fusion) -> None:
    found = rankings({"a": math.inf, "b": 1.0}, {"b": 5.0})
    with pytest.raises(InvalidArgumentError, match="an infinite score, and only ranks can be merged then: use RRF"):
        fusion.fuse(found)
    assert RRF().fuse(found).ids == ("b", "a")


def test_an_empty_ranking_still_counts_in_the_mean() -> None:
    fused = ScoreFusion("none").fuse({"r0": Ranking.from_scores({"a": 4.0}), "r1": EMPTY})
    assert dict(fused) == {"a": 2.0}


def test_nothing_fused_is_nothing_found() -> None:
    assert RRF().fuse({"r0": EMPTY, "r1": EMPTY}) == EMPTY
    assert ScoreFusion().fuse({}) == EMPTY


@given(scores, scores, scores, st.sampled_from([RRF, ScoreFusion]))
def test_the_order_of_retrievers_does_not_matter(
    a: dict[str, float], b: dict[str, float], c: dict[str, float], kind: type[Fusion]
) -> None:
    weights = {"r0": 0.1, "r1": 0.2, "r2": 0.7}
    fused = [kind(weights=weights).fuse(dict(order)) for order in itertools.permutations(rankings(a, b, c).items())]
    assert all(other == fused[0] for other in fused)


@given(scores, scores, scores, st.sampled_from([RRF, ScoreFusion]))
def test_weight_zero_equals_leaving_the_retriever_out(
    a: dict[str, float], b: dict[str, float], c: dict[str, float], kind: type[Fusion]
) -> None:
    everything = rankings(a, b, c)
    without = {name: ranking for name, ranking in everything.items() if name != "r1"}
    assert kind(weights={"r0": 0.3, "r1": 0, "r2": 0.6}).fuse(everything) == kind(weights={"r0": 0.3, "r2": 0.6}).fuse(
        without
    )


def test_scores_that_differ_only_by_summation_order_are_ties_broken_by_id() -> None:
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    fused = ScoreFusion("none").fuse(rankings({"b": 0.1, "a": 0.3}, {"b": 0.2, "a": 0.2}, {"b": 0.3, "a": 0.1}))
    assert fused.ids == ("a", "b")
    assert fused.scores[0] == fused.scores[1]


@given(scores, scores)
def test_contributions_sum_to_the_fused_score(a: dict[str, float], b: dict[str, float]) -> None:
    for fusion in (RRF(), ScoreFusion("minmax", weights={"r0": 0.3, "r1": 0.7})):
        fused, contributions = fusion.explain(rankings(a, b))
        for id, score in fused:
            assert sum(of[id] for of in contributions.values() if id in of) == pytest.approx(score)


def test_a_whole_k_is_shown_alike_wherever_it_came_from() -> None:
    assert repr(RRF(20.0)) == repr(RRF(20)) == "RRF(k=20)"  # the service and `--systems rrf:20` read 20.0
    assert repr(RRF(0.5)) == "RRF(k=0.5)"


@pytest.mark.parametrize("fusion", [RRF(), RRF(k=10, weights={"a": 1}), ScoreFusion("zscore", weights={"a": 0.5})])
def test_a_fusion_survives_json(fusion: Fusion) -> None:
    again = make_fusion(fusion.to_json())
    assert repr(again) == repr(fusion)
    assert type(again) is type(fusion)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: RRF(k=-1), "number >= 0"),
        (lambda: RRF(weights={"a": -1}), "'a'"),
        (lambda: RRF(weights={"a": float("nan")}), "nan"),
        (lambda: RRF(weights={"a": 0}), "All fusion weights"),
        (lambda: ScoreFusion("softmax"), "'softmax'"),  # type: ignore[arg-type]
        (lambda: RRF(weights=["a"]), "by retriever name"),  # type: ignore[arg-type]
        (lambda: RRF(k=10**5000), "number >= 0"),
        (lambda: make_fusion({"type": "magic"}), "'magic'"),
        (lambda: make_fusion(["rrf"]), "described as"),  # type: ignore[arg-type]
        (lambda: make_fusion({"type": ["rrf"]}), "has a name"),
        (lambda: make_fusion({"type": "rrf", "tuned_on": 5}), "tuned_on"),
        (lambda: read_fusion("max", None), "'rrf', 'minmax', 'zscore', 'adaptive'"),
        (lambda: make_fusion({"type": "rrf", "depth": 3}), "depth"),
        (lambda: RRF(weights={"a": 1}).fuse({"b": EMPTY}), "none for 'b'"),
    ],
)
def test_a_wrong_argument_is_named(make: object, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=part):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    "fusion", [RRF(20), ScoreFusion("zscore", {"bm25": 2}), AdaptiveFusion({"bm25": 0.5})], ids=repr
)
def test_a_saved_fusion_is_taken_wherever_one_is(fusion: Fusion, tmp_path: Path) -> None:
    fusion.save(tmp_path / "fusion.json")

    again, depth = read_fusion(tmp_path / "fusion.json", None)

    assert repr(again) == repr(fusion)
    assert depth is None
    search = hs.HybridSearch({"bm25": hs.BM25()}, fusion=tmp_path / "fusion.json")
    assert repr(search.fusion) == repr(fusion)


def test_a_fusion_is_not_written_under_a_name_by_which_no_search_takes_it(tmp_path: Path) -> None:
    place = str(tmp_path / "fusion.txt")
    named = r"name that ends with \.json, unlike '.*fusion\.txt'"
    with pytest.raises(InvalidArgumentError, match=named):
        RRF().save(place)
    for verb in (["tune", "none", "--retrievers", "a,b"], ["calibrate", "none", "--queries", "q.txt", "--judge", "m"]):
        assert re.search(named, " ".join(CliRunner().invoke(app, [*verb, "--save", place]).stderr.split()))
    assert not Path(place).exists()


def test_a_fusion_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/fusion\.json cannot be written"):
        RRF().save(tmp_path / "gone" / "fusion.json")
    with pytest.raises(InvalidArgumentError, match=r"^There is no file '.*none\.json': check the path\.$"):
        read_fusion(tmp_path / "none.json", None)
    for content, reason in (('{"type": "other"}', "its type is 'other'"), ("{}", "it names no fusion"), ("[]", "it")):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(InvalidArgumentError, match=rf"^The file '.*other\.json' is not a tuned fusion .*{reason}"):
            read_fusion(tmp_path / "other.json", None)


@pytest.mark.parametrize(
    ("name", "same"), [("rrf", RRF()), ("minmax", ScoreFusion()), ("zscore", ScoreFusion("zscore"))], ids=str
)
def test_a_fusion_may_be_given_by_the_name_that_the_command_line_takes(name: str, same: Fusion) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, fusion=name)
    assert repr(search.fusion) == repr(same)
    search.index([hs.Document("a", "wing")])
    assert search.search("wing", fusion=name).ids == ["a"]


class Mine(Fusion):
    """A fusion that has only the required methods."""

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        return {name: np.full(len(ranking), 7.0) for name, ranking in rankings.items()}


class Steeper(RRF):
    """A fusion that is a subclass of one of ours."""


def test_a_fusion_of_your_own_is_remembered_by_its_class_and_never_taken_for_another(tmp_path: Path) -> None:
    for fusion in (Mine(), Steeper(k=5)):
        folder = tmp_path / type(fusion).__name__
        with hs.HybridSearch({"bm25": hs.BM25()}, folder, fusion) as search:
            search.index([hs.Document("a", "wing")])
        with pytest.raises(InvalidArgumentError, match=f"No fusion '{type(fusion).__name__}' is known.*register"):
            hs.open(folder)
        with hs.open(folder, fusion=fusion) as again:
            assert again.search("wing").ids == ["a"]


def test_what_an_index_cannot_remember_is_refused_before_there_is_an_index(tmp_path: Path) -> None:
    class Keeping(Mine):
        def to_json(self) -> dict[str, object]:
            return {"type": "keeping", "lock": object()}

    search = hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index", Keeping())
    with pytest.raises(InvalidArgumentError, match="cannot store these settings"):
        search.index([hs.Document("a", "wing")])
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("given", [np.array([1.0]), np.array([np.nan, 1.0]), [[1.0], [2.0]], "no", None])
def test_a_fusion_must_give_one_finite_number_a_document(given: object) -> None:
    class Careless(Fusion):
        def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
            return dict.fromkeys(rankings, given)  # type: ignore[misc]

    with pytest.raises(RetrieverError, match="The fusion Careless"):
        Careless().fuse(rankings({"a": 2.0, "b": 1.0}))


def test_a_fusion_may_leave_out_empty_rankings_only() -> None:
    class Forgetful(Fusion):
        def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
            return {"r0": np.ones(len(rankings["r0"]))}

    assert Forgetful().fuse({"r0": Ranking(("a",), np.ones(1)), "r1": EMPTY}).ids == ("a",)
    with pytest.raises(RetrieverError, match="did not give one finite number for each document of 'r1'"):
        Forgetful().fuse({"r0": Ranking(("a",), np.ones(1)), "r1": Ranking(("b",), np.ones(1))})


@pytest.mark.parametrize("count", SIZES)
def test_a_malformed_file_is_one_of_our_errors(count: int, tmp_path: Path) -> None:
    kinds = [RRF(weights={"r0": 1, "r1": 2}), ScoreFusion(weights={"r0": 1, "r1": 2}), AdaptiveFusion(), RRF(7)]
    words = ["type", "weights", "k", "normalization", "tuned_on", "fusion", "candidates", "rrf", "score", "tuned", "r0"]
    lists = rankings({"a": 2.0, "b": 1.0}, {"b": 0.9, "c": 0.1})
    search = hs.HybridSearch({"r0": hs.BM25()})
    search.index([hs.Document("a", "wing"), hs.Document("b", "wing wing")])

    def call(rng: random.Random) -> None:
        content = rng.choice(kinds).to_json()
        if rng.random() < 0.3:
            content = {"type": "tuned", "fusion": content, "candidates": 50}
        content = mutated(rng, content, words) if rng.random() < 0.7 else value(rng, words)
        (tmp_path / "fusion.json").write_bytes(as_file(rng, content))
        fusion, _ = read_fusion(tmp_path / "fusion.json", None)
        assert all(np.isfinite(fusion.fuse(lists).scores))
        assert sorted(search.search("wing", fusion=tmp_path / "fusion.json").ids) == ["a", "b"]

    assert count_answers(count, 1, call) > count // 100
