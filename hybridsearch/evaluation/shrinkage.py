"""The choice of weights and of a kind of fusion, near equal weights unless judged queries give evidence for others.

The weights that are the best on a few judged queries are mostly the best by chance. Equal weights are hard to beat, so
weights are shrunk towards them, as Diebold and Pauly do for combined forecasts (The Use of Prior Information in
Forecast Combination, International Journal of Forecasting 6, 1990). Here the shrinkage is Bayesian:

- Before a query is seen, exactly equal weights are the best ones with probability `EQUAL`. All sets of weights of the
  grid share the rest (a spike and a slab: Mitchell and Beauchamp, JASA 83, 1988).
- The queries give each set of weights a likelihood (`likelihoods`).
- The result is the set of weights of the grid that is nearest to the mean of all sets, each weighted by the product of
  both numbers.

So few queries leave the weights equal, and many queries lead to the best weights, or to one retriever alone.
benchmarks/few_labels.py measures the rule, and other values of `EQUAL`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybridsearch.evaluation.results import ALPHA
from hybridsearch.evaluation.statistics import paired_test

EQUAL = 0.2
"""Probability of exactly equal weights before a query is seen."""


def choose(values: NDArray[np.float64], weightings: NDArray[np.float64], equal: float = EQUAL) -> tuple[int, int]:
    """Choose a family of fusions and its weights.

    The weights of each family are shrunk. Then each family is compared with the first one. Another family is chosen
    only if it is significantly better (paired t test with Bonferroni's correction for the number of other families).

    Args:
        values: Measure: shape (families, weightings, queries).
        weightings: Sets of weights, each with the sum 1: shape (weightings, retrievers). Equal weights come first.
        equal: Probability of exactly equal weights before a query is seen.

    Returns:
        Places of the family and of its set of weights.

    >>> weightings = np.array([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25], [0.0, 1.0], [1.0, 0.0]])
    >>> few = np.array([[[0.6, 0.7, 0.3], [0.5, 0.7, 0.2], [0.6, 0.5, 0.5], [0.4, 0.6, 0.1], [0.6, 0.6, 0.5]]])
    >>> choose(few, weightings), choose(np.tile(few, 100), weightings)
    ((0, 0), (0, 4))
    """
    places = [_shrunk(of, weightings, equal) for of in values]
    found = values[np.arange(len(places)), places]
    means = found.mean(axis=1)
    family, least = 0, ALPHA / max(1, len(places) - 1)
    for other in np.flatnonzero(means > means[0]).tolist():
        p = paired_test(found[other], found[0])
        if p < least:
            family, least = other, p
    return family, places[family]


def likelihoods(values: NDArray[np.float64], best: int) -> NDArray[np.float64]:
    """Compute how likely it is that each system is as good as the system `best`, which has the best mean.

    It is the likelihood that both means are equal, divided by the likelihood of the means that were seen. The
    differences of the queries are normal with an unknown variance. So the result is (1 + t^2 / (n - 1))^(-n / 2), with
    the t of the paired t test (the profile likelihood ratio of the normal distribution).

    Args:
        values: Measure of each system on each query: shape (systems, n).
        best: Place of the system with the best mean.

    Returns:
        Numbers from 0 to 1: shape (systems,).

    >>> likelihoods(np.array([[0.5, 0.5, 0.5], [0.6, 0.5, 0.9], [0.1, 0.1, 0.0]]), 1).round(3).tolist()
    [0.364, 1.0, 0.039]
    """
    differences = values[best] - values
    means, variances = differences.mean(axis=1), differences.var(axis=1)
    ratio = np.where(np.abs(means) < 1e-12, 0.0, means**2 / np.maximum(variances, 1e-24))
    found: NDArray[np.float64] = (1 + ratio) ** (-values.shape[1] / 2)
    return found


def best_of(means: NDArray[np.float64]) -> NDArray[np.intp]:
    """The place of the highest value in each row. If several differ only by rounding, it is the first."""
    places: NDArray[np.intp] = np.round(means, 12).argmax(axis=-1)
    return places


def _shrunk(values: NDArray[np.float64], weightings: NDArray[np.float64], equal: float) -> int:
    """The place of the set of weights that one family gets, from its values of shape (weightings, queries)."""
    prior = np.full(len(weightings), (1 - equal) / len(weightings))
    prior[0] += equal
    belief = prior * likelihoods(values, int(best_of(values.mean(axis=1))))
    mean = belief @ weightings / belief.sum()
    return int(((weightings - mean) ** 2).sum(axis=1).round(9).argmin())
