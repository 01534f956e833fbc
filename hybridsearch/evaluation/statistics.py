"""Statistics over queries: bootstrap intervals, paired significance tests and corrections of p-values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridsearch.arguments import number, one_of, whole_number
from hybridsearch.errors import InvalidArgumentError

Test: TypeAlias = Literal["t", "randomization", "wilcoxon"]
"""Name of a significance test (see `paired_test`)."""

Correction: TypeAlias = Literal["holm", "bonferroni", "none"]
"""Name of a correction of p-values (see `adjust`)."""

_EQUAL = 1e-9
"""Largest difference of values that count as equal, because sums of floats differ by their rounding."""

_CELLS = 2**20
"""Number of values that are resampled at once. It limits the memory for thousands of queries."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: Mean of the values.
        low: Lower end of the interval. For very skewed values it can, rarely, be above the mean.
        high: Upper end of the interval. For very skewed values it can, rarely, be below the mean.

    >>> print(Interval(0.679, 0.634, 0.722))
    0.679 [0.634, 0.722]
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float]:
        """The fields as a dict that `json` can write. `Interval(**d)` reads it."""
        return asdict(self)


def bootstrap_interval(values: ArrayLike, level: float = 0.95, *, samples: int = 10_000, seed: int = 0) -> Interval:
    """Compute the mean of `values` and its percentile bootstrap interval.

    `samples` times, n queries are drawn with replacement from the n queries. The interval holds the middle `level` of
    the means (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; Sakai, SIGIR 2006, for
    retrieval). For the interval of a difference of two systems, give the differences of the queries. Equal input gives
    equal output. The interval of a single value is that value.

    Args:
        values: Values, one for each query: shape (n,), finite, n of at least 1.
        level: Confidence level, between 0 and 1.
        samples: Number of resamples, at least 100.
        seed: Seed of numpy's default generator.

    Raises:
        InvalidArgumentError: An argument is outside its range.

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


def proportion_interval(found: ArrayLike, wanted: ArrayLike, level: float = 0.95) -> Interval:
    """Compute the share of wanted things that were found, and its confidence interval.

    It is Wilson's score interval (Wilson, Journal of the American Statistical Association 22, 1927). The number of
    things is divided by the design effect of a cluster sample (Kish, Survey Sampling, 1965), because the things of one
    query are found or missed together. The design effect is at least 1. So the interval of things that were all found
    has a length above 0.

    Args:
        found: Number of things that were found, for each query: shape (n,).
        wanted: Number of things that were wanted, for each query: shape (n,). Their sum is at least 1.
        level: Confidence level, between 0 and 1.

    Raises:
        InvalidArgumentError: An argument is outside its range.

    >>> print(proportion_interval([10, 10, 9, 10], [10, 10, 10, 10]))
    0.975 [0.869, 0.996]
    >>> print(proportion_interval([10] * 100, [10] * 100))
    1.000 [0.996, 1.000]
    """
    hits, sizes = _pair(found, wanted)
    level = number("level", level, above=0, below=1)
    total, n = float(sizes.sum()), len(sizes)
    if total < 1 or (hits < 0).any() or (hits > sizes).any():
        raise InvalidArgumentError("found has from 0 to `wanted` things for each query, and one thing must be wanted.")
    share = float(hits.sum()) / total
    binomial = share * (1 - share) / total
    clustered = n / max(n - 1, 1) * float(np.square(hits - share * sizes).sum()) / total**2
    effect = max(1.0, clustered / binomial) if binomial > 0 else 1.0
    z, size = NormalDist().inv_cdf((1 + level) / 2), total / effect
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def paired_test(a: ArrayLike, b: ArrayLike, test: Test | str = "t", *, samples: int = 9_999, seed: int = 0) -> float:
    """Compute the two-sided p-value of a paired test of two systems on the same queries, by scipy.

    - "t" is the paired t test (`scipy.stats.ttest_rel`). On measures of retrieval it agrees with the randomization
      test (Smucker, Allan and Carterette, CIKM 2007; Urbano, Lima and Hanjalic, SIGIR 2019) and is much faster. If
      the difference is the same on all n queries, it has no standard error to test with: scipy gives 0 and warns, and
      R refuses. Then the p-value is that of the randomization test, 2^(1 - n).
    - "randomization" is Fisher's test (`scipy.stats.permutation_test`). In each of `samples` rounds, the two values of
      each query change places with probability 1/2. If there are at most `samples` exchanges (2^n), all are computed,
      and the result is exact.
    - "wilcoxon" is the signed-rank test (`scipy.stats.wilcoxon`). It ignores queries without a difference. Differences
      are compared with 9 decimal places, so equal ones have the same rank.

    The p-value is 1.0 if both systems have equal values on every query, or if there is only one query. Values within
    1e-9 are equal.

    Args:
        a: Values of the first system: shape (n,), finite.
        b: Values of the second system: shape (n,), finite, in the same order of queries.
        test: Name of the test: "t", "randomization" or "wilcoxon".
        samples: Number of rounds of the randomization test.
        seed: Seed of the randomization test.

    Raises:
        InvalidArgumentError: An argument is outside its range.

    >>> round(paired_test([0.5, 0.7, 0.9, 0.4], [0.4, 0.5, 0.6, 0.4]), 4)
    0.1027
    """
    first, second = _pair(a, b)
    one_of("test", test, get_args(Test))
    differences = first - second
    if len(first) < 2 or np.abs(differences).max() <= _EQUAL:
        return 1.0
    if test == "t" and np.ptp(differences) <= _EQUAL * max(1.0, float(np.abs(differences).max())):
        return float(2.0 ** (1 - len(first)))
    from scipy import stats

    if test == "t":
        return float(stats.ttest_rel(first, second).pvalue)
    if test == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return float(stats.wilcoxon(differences.round(9)).pvalue)  # 0.3 - 0.1 ties with 0.2 - 0.0
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
    """Correct p-values for the number of comparisons, in the order given.

    With "holm" or "bonferroni", the probability of any false alarm at or below 0.05 is at most 0.05. Holm's p-values
    are never larger than Bonferroni's (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979).

    Args:
        p_values: p-values, each between 0 and 1.
        method: Name of the correction: "holm", "bonferroni" or "none".

    Raises:
        InvalidArgumentError: A p-value is not between 0 and 1, or the method is unknown.

    >>> adjust([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    one_of("The correction", method, get_args(Correction))
    p: NDArray[np.float64] = np.array(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise InvalidArgumentError(f"p-values are between 0 and 1, but one of {p.tolist()} is not.")
    if method == "bonferroni":
        p = p * len(p)
    elif method == "holm":
        order = np.argsort(p, kind="stable")
        p[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return [min(float(value), 1.0) for value in p]


def wins_losses_ties(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int]:
    """Count the queries on which `a` is above, below and equal to `b`. Values within 1e-9 are equal.

    >>> wins_losses_ties([0.5, 0.2, 1.0], [0.4, 0.3, 1.0])
    (1, 1, 1)
    """
    first, second = _pair(a, b)
    difference = first - second
    wins, losses = int((difference > _EQUAL).sum()), int((difference < -_EQUAL).sum())
    return wins, losses, len(difference) - wins - losses


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if len(first) != len(second):
        raise InvalidArgumentError(
            f"Both systems need a value for each query, but {len(first)} values are given for one and {len(second)} "
            "for the other."
        )
    return first, second


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise InvalidArgumentError(f"{name} is a list of one or more finite numbers, one for each query.")
    return numbers
