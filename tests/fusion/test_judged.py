"""Tests of judged fusion: what a judge's grades do to the weights, and what they cannot do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion import JudgedFusion, ScoreFusion, make_fusion, read_fusion
from hybridsearch.fusion.judged import Strength
from hybridsearch.ranking import EMPTY, Ranking

Samples = list[dict[str, Ranking]]
Grades = list[dict[str, float]]

documents = st.sampled_from("abcdefghijklmnop")
rankings = st.dictionaries(documents, st.integers(0, 20).map(float), max_size=14).map(Ranking.from_scores)
samples_of_three = st.lists(st.fixed_dictionaries(dict.fromkeys(("r0", "r1", "r2"), rankings)), min_size=2, max_size=5)
grades_of_all = st.fixed_dictionaries({id: st.integers(-5, 5).map(float) for id in "abcdefghijklmnop"})


def simulated(
    skills: dict[str, float], queries: int = 60, *, judge: float = 1.0, seed: int = 0
) -> tuple[Samples, Grades]:
    """Retrievers and a judge that see a document's relevance with noise. A skill is the relevance's factor."""
    generator = np.random.default_rng(seed)
    samples, grades = [], []
    for query in range(queries):
        relevance = generator.normal(size=60)
        seen = {name: skill * relevance + generator.normal(size=60) for name, skill in skills.items()}
        ids = [f"q{query}d{number}" for number in range(60)]
        samples.append({n: Ranking.from_scores(dict(zip(ids, s.tolist(), strict=True)), 30) for n, s in seen.items()})
        of_judge = judge * relevance + generator.normal(size=60)
        grades.append(dict(zip(ids, of_judge.tolist(), strict=True)))
    return samples, grades


def shares(fusion: JudgedFusion) -> dict[str, float]:
    assert fusion.weights is not None
    total = sum(fusion.weights.values())
    return {name: weight / total for name, weight in fusion.weights.items()}


def test_a_good_judge_gives_the_better_retriever_more_weight_and_strength() -> None:
    fusion = JudgedFusion.calibrated(*simulated({"weak": 0.2, "strong": 1.5}))
    found = fusion.strengths
    assert shares(fusion)["strong"] > 0.55
    assert found["strong"].mean > 3 * found["strong"].error > 0
    assert found["strong"].mean == pytest.approx(-found["weak"].mean)
    assert found["strong"].graded == 1.0
    assert fusion.queries == 60


def test_a_judge_that_knows_nothing_leaves_equal_weights() -> None:
    farthest = []
    for seed in range(5):
        samples, grades = simulated({"one": 1.0, "other": 1.0}, judge=0.0, seed=seed)
        farthest.append(abs(shares(JudgedFusion.calibrated(samples, grades))["one"] - 0.5))
    assert np.mean(farthest) < 0.06


def test_few_queries_move_the_weights_less_than_many() -> None:
    def moved(queries: int) -> float:
        skills = {"weak": 0.6, "strong": 1.0}
        found = [JudgedFusion.calibrated(*simulated(skills, queries, seed=seed)) for seed in range(5)]
        return float(np.mean([shares(fusion)["strong"] - 0.5 for fusion in found]))

    assert abs(moved(3)) < moved(80)


@pytest.mark.parametrize("grades", [[{"a": 1.0, "b": 1.0}], [{"a": 1.0, "x": 0.0}]])
def test_no_difference_and_one_query_leave_equal_weights(grades: Grades) -> None:
    sample = {"one": Ranking.from_scores({"a": 2.0, "b": 1.0}), "other": Ranking.from_scores({"x": 2.0, "a": 1.0})}
    assert shares(JudgedFusion.calibrated([sample], grades)) == {"one": 0.5, "other": 0.5}


def test_a_document_without_a_grade_is_an_average_one_and_is_counted() -> None:
    samples, grades = simulated({"weak": 0.2, "strong": 1.5}, 20)
    first = [set(sample["strong"].ids[:10]) for sample in samples]
    partly = [{id: grade for id, grade in of.items() if id in top} for of, top in zip(grades, first, strict=True)]
    fusion = JudgedFusion.calibrated(samples, partly)
    assert fusion.strengths["strong"].graded == 1.0
    assert fusion.strengths["weak"].graded < 0.6
    assert abs(fusion.strengths["strong"].mean) < JudgedFusion.calibrated(samples, grades).strengths["strong"].mean


def test_a_retriever_that_finds_nothing_is_as_bad_as_the_worst_document() -> None:
    samples, grades = simulated({"good": 1.0, "other": 1.0}, 20)
    fusion = JudgedFusion.calibrated([{**sample, "other": EMPTY} for sample in samples], grades)
    assert fusion.strengths["other"].mean < 0
    assert shares(fusion)["good"] >= 0.5


@settings(max_examples=15, deadline=None)
@given(samples_of_three, grades_of_all, st.permutations(["r0", "r1", "r2"]))
def test_the_order_of_retrievers_has_no_effect(samples: Samples, grades: dict[str, float], order: list[str]) -> None:
    every = [grades] * len(samples)
    if not any(len(ranking) for sample in samples for ranking in sample.values()):
        return
    fusion = JudgedFusion.calibrated(samples, every)
    moved = JudgedFusion.calibrated([{name: sample[name] for name in order} for sample in samples], every)
    assert moved.weights == fusion.weights
    assert moved.strengths == fusion.strengths


@settings(max_examples=15, deadline=None)
@given(samples_of_three, grades_of_all, st.sampled_from([0.5, 4.0, 1024.0]), st.integers(-8, 8))
def test_the_scale_of_a_querys_grades_has_no_effect(
    samples: Samples, grades: dict[str, float], factor: float, added: int
) -> None:
    if not any(len(ranking) for sample in samples for ranking in sample.values()):
        return
    fusion = JudgedFusion.calibrated(samples, [grades] * len(samples))
    changed = [{id: factor * (grade + added) for id, grade in grades.items()}, *[grades] * (len(samples) - 1)]
    assert shares(JudgedFusion.calibrated(samples, changed)) == pytest.approx(shares(fusion), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(samples_of_three, grades_of_all)
def test_equal_retrievers_get_equal_weights(samples: Samples, grades: dict[str, float]) -> None:
    if not any(len(ranking) for sample in samples for ranking in sample.values()):
        return
    twins = [{**sample, "r1": sample["r0"]} for sample in samples]
    found = shares(JudgedFusion.calibrated(twins, [grades] * len(samples)))
    assert found["r0"] == pytest.approx(found["r1"], abs=1e-12)
    assert sum(found.values()) == pytest.approx(1)


def test_it_merges_as_min_max_with_its_weights_and_survives_its_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    samples, grades = simulated({"weak": 0.2, "strong": 1.5}, 10)
    fusion = JudgedFusion.calibrated(samples, grades, judge="a test")
    assert list(fusion.fuse(samples[0])) == list(ScoreFusion("minmax", fusion.weights).fuse(samples[0]))
    fusion.save(tmp_path / "judged.json")
    read, _ = read_fusion(tmp_path / "judged.json", None)
    assert isinstance(read, JudgedFusion)
    assert (read.to_json(), read.judge, read.strengths) == (fusion.to_json(), "a test", fusion.strengths)
    assert "judge='a test'" in repr(read)
    with pytest.raises(InvalidArgumentError, match="none for 'other'"):
        read.fuse({"other": samples[0]["weak"]})


def test_many_retrievers_are_weighed() -> None:
    fusion = JudgedFusion.calibrated(*simulated({**{f"r{number}": 0.0 for number in range(5)}, "r5": 2.0}, 30))
    found = list(shares(fusion).values())
    assert found[5] > 1 / 6 > found[0]


@pytest.mark.parametrize(
    ("samples", "grades", "message"),
    [
        ([], [], "no query"),
        ([{"a": EMPTY}, {"b": EMPTY}], [{}, {}], "different retrievers"),
        ([{"a": EMPTY}], [], "0 items for 1 queries"),
        ([{"a": Ranking.from_scores({"d": 1.0})}], [{"d": float("nan")}], "grade of document 'd'"),
        ([{"a": Ranking.from_scores({"d": 1.0})}], [{"e": 1.0}], "No document"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(samples: Samples, grades: Grades, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        JudgedFusion.calibrated(samples, grades)


@pytest.mark.parametrize("strength", [{"mean": 1.0}, 5, {**dict.fromkeys(Strength.__slots__, 0.0), "mean": "high"}])
def test_a_file_with_other_strengths_is_refused(strength: object) -> None:
    with pytest.raises(InvalidArgumentError, match="'dense'"):
        make_fusion({"type": "judged", "weights": {"dense": 1}, "strengths": {"dense": strength}})
