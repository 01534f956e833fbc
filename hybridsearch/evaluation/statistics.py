"""How sure a mean over queries is, and whether two systems differ: bootstrap intervals, paired tests, corrections."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridsearch.arguments import number, one_of, whole_number
from hybridsearch.errors import InvalidArgumentError

Test: TypeAlias = Literal["t", "randomization", "wilcoxon"]
Correction: TypeAlias = Literal["holm", "bonferroni", "none"]

_CELLS = 2**20
"""Numbers that are resampled at once; bounds the memory for collections with thousands of queries."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval, low <= mean <= high but for rare, very skewed values.

    >>> print(Interval(0.679, 0.634, 0.722))
    0.679 [0.634, 0.722]
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float]:
        """A JSON-able dict; `Interval(**d)` is its inverse."""
        return asdict(self)


def bootstrap_interval(values: ArrayLike, level: float = 0.95, *, samples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of `values`, one a query, and its percentile bootstrap interval.

    Queries are drawn with replacement, as many as there are, `samples` times; the interval holds the middle `level` of
    the means (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; Sakai, SIGIR 2006, for
    retrieval). Give differences of two systems, query by query, for the interval of the difference. Equal input gives
    equal output. Of a single value the interval is that value: there is nothing to resample.

    Args:
        values: shape (n,), finite, n >= 1.
        level: between 0 and 1.
        samples: resamples, 100 or more.
        seed: of numpy's default generator.

    Raises:
        InvalidArgumentError: an argument is not as above.

    >>> print(bootstrap_interval([0.0, 0.5, 1.0, 1.0]))
    0.625 [0.250, 1.000]
    """
    numbers = _numbers(values, "values")
    between = "{name} is a number between 0 and 1, such as 0.95, not {value}."
    level, samples = number("level", level, above=0, below=1, sentence=between), whole_number("samples", samples, 100)
    n = len(numbers)
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _CELLS // n)
    for start in range(0, samples, step):
        part = means[start : start + step]
        part[:] = numbers[generator.integers(0, n, (len(part), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(numbers.mean()), float(low), float(high))


def paired_test(a: ArrayLike, b: ArrayLike, test: Test | str = "t", *, samples: int = 9_999, seed: int = 0) -> float:
    """The two-sided p value of "systems a and b do not differ", from their values on the same queries; scipy's.

    * "t": the paired t test (`scipy.stats.ttest_rel`), which agrees with the randomization test on retrieval
      measures (Smucker, Allan and Carterette, CIKM 2007; Urbano, Lima and Hanjalic, SIGIR 2019) and is far faster.
    * "randomization": Fisher's: in each of `samples` rounds every query's two values change places with probability
      1/2; exact, without chance, where all 2^n exchanges are no more than `samples` (`scipy.stats.permutation_test`).
    * "wilcoxon": the signed-rank test (`scipy.stats.wilcoxon`); it ignores queries without a difference.

    Systems that agree on every query have 1.0; so have any two on a single query, which the t test cannot judge.

    Args:
        a, b: shape (n,), finite, in the same order of queries.
        test: one of the above.
        samples, seed: of the randomization test.

    Raises:
        InvalidArgumentError: an argument is not as above.

    >>> round(paired_test([0.5, 0.7, 0.9, 0.4], [0.4, 0.5, 0.6, 0.4]), 4)
    0.1027
    """
    first, second = _pair(a, b)
    one_of("test", test, get_args(Test))
    if len(first) < 2 or np.array_equal(first, second):
        return 1.0
    from scipy import stats

    with warnings.catch_warnings():
        # A constant difference is "nearly identical data" to the t test; its p value of almost 0 is right.
        warnings.simplefilter("ignore", RuntimeWarning)
        if test == "t":
            return float(stats.ttest_rel(first, second).pvalue)
        if test == "wilcoxon":
            return float(stats.wilcoxon(first, second).pvalue)
    result = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=samples,
        batch=max(1, _CELLS // len(first)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def adjust(p_values: Sequence[float], method: Correction | str = "holm") -> list[float]:
    """p values adjusted for making that many comparisons at once, in the order given.

    With "holm" or "bonferroni", the chance that any of the comparisons at or below 0.05 is a false alarm is at most
    0.05. Holm's never exceeds Bonferroni's p * m (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979).

    Raises:
        InvalidArgumentError: a p value is not between 0 and 1, or the method not one of those named.

    >>> adjust([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    one_of("The correction", method, get_args(Correction))
    p: NDArray[np.float64] = np.array(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise InvalidArgumentError(f"p values lie between 0 and 1, unlike one of {p.tolist()}.")
    if method == "bonferroni":
        p = p * len(p)
    elif method == "holm":
        order = np.argsort(p, kind="stable")
        p[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return [min(float(value), 1.0) for value in p]


def wins_losses_ties(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int]:
    """On how many queries `a` is above, below and equal to `b`; values within 1e-9 are equal.

    >>> wins_losses_ties([0.5, 0.2, 1.0], [0.4, 0.3, 1.0])
    (1, 1, 1)
    """
    first, second = _pair(a, b)
    difference = first - second
    wins, losses = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
    return wins, losses, len(difference) - wins - losses


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if len(first) != len(second):
        raise InvalidArgumentError(
            f"Two systems are compared on the same queries, but {len(first)} values are given for one and "
            f"{len(second)} for the other."
        )
    return first, second


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise InvalidArgumentError(f"{name} is a list of one or more finite numbers, one a query.")
    return numbers
