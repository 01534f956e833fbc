"""Tests of intervals, paired tests and corrections, compared with scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.statistics import adjust, bootstrap_interval, paired_test, wins_losses_ties


def systems(queries: int, seed: int = 0) -> np.ndarray:
    """The values of two systems on a grid, like those of nDCG and AP, with ties and many zeros."""
    generator = np.random.default_rng(seed)
    values = np.round(generator.random((2, queries)) * 10) / 10
    values[1, : queries // 3] = values[0, : queries // 3]
    return values


@pytest.mark.parametrize("queries", [2, 43, 300])
@pytest.mark.parametrize("level", [0.95, 0.9])
def test_the_interval_is_scipys_percentile_bootstrap(queries: int, level: float) -> None:
    values = systems(queries)[0]
    ours = bootstrap_interval(values, level, seed=7)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=10_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.mean == pytest.approx(values.mean())


def test_memory_bounded_resampling_of_many_queries_gives_scipys_interval_too() -> None:
    values = np.random.default_rng(3).random(5000)
    ours = bootstrap_interval(values, samples=1000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    generator = np.random.default_rng(1)
    intervals = [bootstrap_interval(generator.random(50), samples=1000, seed=seed) for seed in range(300)]
    assert 0.90 <= np.mean([interval.low <= 0.5 <= interval.high for interval in intervals]) <= 0.98


def test_an_interval_of_equal_values_is_a_point() -> None:
    assert bootstrap_interval([0.25] * 10).to_dict() == {"mean": 0.25, "low": 0.25, "high": 0.25}
    assert bootstrap_interval([0.5]).to_dict() == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_the_seed_decides_the_interval() -> None:
    values = systems(20)[0]
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


@pytest.mark.parametrize("queries", [5, 43, 300])
def test_the_t_test_is_scipys(queries: int) -> None:
    a, b = systems(queries)
    assert paired_test(a, b, "t") == stats.ttest_rel(a, b).pvalue


@pytest.mark.parametrize("queries", [12, 300])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_wilcoxon_test_of_tenths_is_scipys_of_whole_numbers(queries: int) -> None:
    a, b = systems(queries)  # in floats 0.3 - 0.1 is not 0.2 - 0.0
    assert paired_test(a, b, "wilcoxon") == stats.wilcoxon((10 * a).round(), (10 * b).round()).pvalue


def test_the_randomization_test_is_scipys() -> None:
    a, b = systems(60)
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        permutation_type="samples",
        n_resamples=9_999,
        rng=np.random.default_rng(5),
    )
    assert paired_test(a, b, "randomization", seed=5) == pytest.approx(theirs.pvalue, abs=2e-4)


def test_the_randomization_test_of_few_queries_is_exact() -> None:
    # Of the 2^4 ways to exchange the values, only the given one and its opposite are as extreme.
    assert paired_test([0.4, 0.5, 0.6, 0.7], [0.1, 0.1, 0.1, 0.1], "randomization") == 2 / 16


@pytest.mark.parametrize("test", ["t", "randomization", "wilcoxon"])
def test_equal_systems_have_a_p_value_of_one(test: str) -> None:
    a, _ = systems(30)
    assert paired_test(a, a, test) == 1.0


@pytest.mark.parametrize("test", ["t", "randomization", "wilcoxon"])
def test_a_single_query_decides_nothing(test: str) -> None:
    assert paired_test([0.9], [0.1], test) == 1.0


@pytest.mark.parametrize("test", ["t", "randomization", "wilcoxon"])
def test_differences_by_rounding_are_no_differences(test: str) -> None:
    assert paired_test([0.1 + 0.2] * 20, [0.3] * 20, test) == 1.0


@pytest.mark.parametrize(("queries", "scale"), [(2, 1.0), (3, 1.0), (12, 1.0), (12, 1e9)])
def test_the_t_test_of_a_constant_difference_is_the_exact_randomization_test(queries: int, scale: float) -> None:
    a, b = np.full((2, queries), [[0.3], [0.1]]) + np.arange(queries) / 100  # the differences differ by rounding
    a, b = a * scale, b * scale
    assert paired_test(a, b, "t") == pytest.approx(paired_test(a, b, "randomization")) == 2 / 2**queries


@pytest.mark.parametrize("test", ["t", "randomization", "wilcoxon"])
def test_a_test_without_an_effect_gives_few_false_alarms(test: str) -> None:
    alarms = [
        paired_test(*np.random.default_rng(seed).random((2, 40)), test, samples=499) < 0.05 for seed in range(200)
    ]
    assert np.mean(alarms) < 0.1


def test_holms_correction_gives_the_textbook_values() -> None:
    # https://en.wikipedia.org/wiki/Holm-Bonferroni_method#Example; R: p.adjust(c(.01, .04, .03, .005), "holm")
    assert adjust([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_bonferronis_correction_multiplies_and_stops_at_one() -> None:
    assert adjust([0.01, 0.04, 0.5], "bonferroni") == pytest.approx([0.03, 0.12, 1.0])


def test_without_a_correction_p_values_stay() -> None:
    assert adjust([0.01, 0.04], "none") == [0.01, 0.04]


def test_correcting_one_or_no_p_value_changes_nothing() -> None:
    assert adjust([0.04]) == [0.04]
    assert adjust([]) == []


def test_wins_losses_and_ties_are_counted() -> None:
    assert wins_losses_ties([1.0, 0.2, 0.5, 0.1 + 0.2], [0.5, 0.4, 0.5, 0.3]) == (1, 1, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([]),
        lambda: bootstrap_interval([0.1, float("nan")]),
        lambda: bootstrap_interval([0.1, 0.2], level=95),
        lambda: bootstrap_interval([0.1, 0.2], samples=1),
        lambda: paired_test([0.1, 0.2], [0.1]),
        lambda: paired_test([0.1, 0.2], [0.1, 0.3], "z"),
        lambda: adjust([0.1, 1.2]),
        lambda: adjust([0.1], "tukey"),
        lambda: wins_losses_ties([0.1, 0.2], [0.1]),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call: object) -> None:
    with pytest.raises(InvalidArgumentError):
        call()  # type: ignore[operator]
