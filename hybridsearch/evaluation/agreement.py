"""How far two judges agree: their raw agreement, and Cohen's kappa with its bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, one_of, whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.statistics import Interval

Weighting: TypeAlias = Literal["linear", "quadratic"]
"""How much a disagreement counts: in proportion to the distance of the grades, or to its square."""

_WORDS = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree on the documents that both of them graded.

    Attributes:
        first: Name of a judge.
        second: Name of the other judge.
        pairs: Number of pairs of query and document that both graded.
        same: Share of these pairs that have the same grade from both, from 0 to 1. NaN if there are no such pairs.
        kappa: Cohen's kappa with its interval. Each disagreement counts the same. NaN if it is not defined: both gave
            one and the same grade to everything, or there are no pairs.
        weighted: Cohen's kappa with its interval, in which near grades disagree less than distant grades.
    """

    first: str
    second: str
    pairs: int
    same: float
    kappa: Interval
    weighted: Interval

    @property
    def word(self) -> str:
        """The word of Landis and Koch (Biometrics 33, 1977) for the kappa, such as "substantial"."""
        kappa = self.kappa.mean
        if math.isnan(kappa):
            return "not defined"
        return next((word for above, word in _WORDS if kappa > above), "poor")

    def __str__(self) -> str:
        pairs = f"{self.pairs:,} documents graded by both"
        return f"{self.first} and {self.second}: kappa {self.kappa}, {self.word}; same grade {self.same:.0%}; {pairs}"


def agreement(
    first: Sequence[int],
    second: Sequence[int],
    names: tuple[str, str] = ("first", "second"),
    *,
    weights: Weighting = "linear",
    level: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> Agreement:
    """Compute how far the grades of two judges agree.

    Kappa is the agreement beyond chance (Cohen, A Coefficient of Agreement for Nominal Scales, 1960). Chance agreement
    is that of two judges who give each grade as often as these two do. Weighted kappa is of Cohen (Psychological
    Bulletin 70, 1968). Each interval is a percentile bootstrap over the documents. Samples in which kappa is not
    defined are left out of it.

    Args:
        first: Grades of one judge: whole numbers, one for each document.
        second: Grades of the other judge, in the same order of documents.
        names: Names of both judges.
        weights: Weighting of the weighted kappa: "linear" or "quadratic".
        level: Confidence level of the intervals, between 0 and 1.
        samples: Number of bootstrap samples, at least 100.
        seed: Seed of the bootstrap.

    Returns:
        The agreement of both judges.

    Raises:
        InvalidArgumentError: The judges have different numbers of grades, or another argument is not allowed.

    >>> print(agreement([0, 0, 2, 3, 1, 0], [0, 1, 2, 3, 1, 0], ("anna", "ben")))
    anna and ben: kappa 0.769 [0.200, 1.000], substantial; same grade 83%; 6 documents graded by both
    """
    if len(first) != len(second):
        raise InvalidArgumentError(
            f"Both judges need a grade for each document, but one has {len(first):,} grades and the other has "
            f"{len(second):,}."
        )
    one_of("weights", weights, get_args(Weighting))
    level, samples = number("level", level, above=0, below=1), whole_number("samples", samples, 100)
    grades, places = np.unique(np.array([*first, *second], dtype=np.int64), return_inverse=True)
    size, pairs = len(grades), len(first)
    if not pairs:
        nothing = Interval(math.nan, math.nan, math.nan)
        return Agreement(*names, 0, math.nan, nothing, nothing)
    table = np.bincount(places[:pairs] * size + places[pairs:], minlength=size * size)
    # Drawing pairs with replacement is drawing the cells of the table from a multinomial distribution.
    drawn = np.random.default_rng(seed).multinomial(pairs, table / pairs, samples).reshape(-1, size, size)
    distance = np.abs(grades[:, None] - grades).astype(np.float64)
    costs = {"kappa": (distance > 0).astype(np.float64), "weighted": distance ** (2 if weights == "quadratic" else 1)}
    found = {}
    for name, cost in costs.items():
        (value,) = _kappa(table.reshape(1, size, size), cost)
        values = _kappa(drawn, cost)
        values = values[np.isfinite(values)]
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if np.isfinite(value) else [math.nan] * 2
        found[name] = Interval(float(value), float(ends[0]), float(ends[1]))
    same = float(np.trace(table.reshape(size, size)) / pairs)
    return Agreement(*names, pairs, same, found["kappa"], found["weighted"])


def _kappa(tables: NDArray[np.int64], cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kappa of each table of counts: shape (tables, grades, grades). NaN if no disagreement is expected."""
    seen = (tables * cost).sum(axis=(1, 2))
    chance = np.einsum("ni,nj,ij->n", tables.sum(axis=2), tables.sum(axis=1), cost) / tables.sum(axis=(1, 2))
    kappas: NDArray[np.float64] = np.divide(chance - seen, chance, out=np.full(len(tables), np.nan), where=chance > 0)
    return kappas
