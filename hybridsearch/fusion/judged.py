"""Judged fusion, whose weights come from a judge that graded the first documents of each retriever.

The rankings alone do not show which retriever is weak. A judge shows it, if it makes other mistakes than the
retrievers. But a judge is not always right, and may know less than the retrievers. So it gets one half of the say:

- A document's estimated relevance is the sum of two standardised numbers: its grade, and its score in the fusion with
  equal weights. The standardisation is over the documents of the query that are compared. So the scale of the grades
  does not count.
- The weights are those whose fused rankings have the highest mean DCG of this relevance over the queries. If the
  grades are noise, equal weights have the highest mean, because a sorted list has the highest DCG. The more a judge
  agrees with one retriever, the more weight the retriever gets.
- The weights are the mean of the best weights of many resamples of the queries (bagging: Breiman, Bagging Predictors,
  Machine Learning 24, 1996; with the weights of Rubin, The Bayesian Bootstrap, Annals of Statistics 9(1), 1981).
- They are shrunk towards equal weights by the factor 1 - (standard error / gain)^2, at least 0. The gain is that of the
  best weights over equal weights, and its standard error is that of paired differences. This is the positive part of
  the James-Stein estimator, with the variance that the queries show (Efron and Morris, JASA 68, 1973).

Only documents that are compared count: the first ten of each retriever, and the other documents with a grade. The rest
of a ranking is left out, as in condensed lists (Sakai, Alternatives to Bpref, SIGIR 2007).

benchmarks/judged_fusion.py measures it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, shown, whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion.base import Fusion, checked_samples, weightings
from hybridsearch.fusion.score import normalize
from hybridsearch.messages import number_of
from hybridsearch.ranking import Ranking

if TYPE_CHECKING:
    from rich.console import RenderableType

TOP = 10
"""Number of first documents of a ranking that are compared: one page of results."""

RESAMPLES = 200
"""Number of resamples of the queries. The mean of their best weights is known to a tenth of its standard error."""

FEWEST = 50
"""Number of queries below which the weights often stay near equal, because little is known."""

_WEIGHTINGS = 500
"""Largest number of sets of weights that are tried."""

_DISCOUNTS: NDArray[np.float64] = 1 / np.log2(np.arange(2, TOP + 2))

_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strength:
    """How good a judge finds the first ten documents of a retriever.

    Attributes:
        mean: Mean grade of the first ten documents, above the mean of all retrievers. It is discounted by rank as in
            DCG, and its unit is the standard deviation of the grades of a query.
        error: Standard error of `mean` over the queries. 0 if there are fewer than two queries.
        weight_error: Standard error of the retriever's share of all weights.
        graded: Share of the first ten documents that have a grade, from 0 to 1.
    """

    mean: float
    error: float
    weight_error: float
    graded: float


class JudgedFusion(Fusion):
    """Score fusion by min-max, with weights from the grades of a judge. It needs no judgements of people.

    `calibrated` computes the weights. They are used as those of `ScoreFusion("minmax", weights)`.

    Args:
        weights: Weights by retriever name, at least 0. None gives all retrievers the same weight.
        strengths: Strength of each retriever by name, as `calibrated` computes it. It has no effect on rankings.
        queries: Number of queries whose grades differ, from which the weights were computed.
        judge: Description of the judge.

    Raises:
        InvalidArgumentError: An argument is not allowed.
    """

    name = "judged"

    strengths: dict[str, Strength]
    """Strength of each retriever, with standard errors. Empty if the weights were given."""

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        strengths: Mapping[str, Strength | Mapping[str, float]] | None = None,
        queries: int = 0,
        judge: str = "",
    ) -> None:
        super().__init__(weights)
        self.strengths = {name: _strength(name, one) for name, one in (strengths or {}).items()}
        self.queries = whole_number("queries", queries, 0)
        if not isinstance(judge, str):
            raise InvalidArgumentError(f"judge is a text that describes the judge, not {shown(judge)}.")
        self.judge = judge

    @classmethod
    def calibrated(
        cls,
        samples: Iterable[Mapping[str, Ranking]],
        grades: Iterable[Mapping[str, float]],
        *,
        judge: str = "",
    ) -> JudgedFusion:
        """Make a fusion with the weights that a judge's grades support.

        The module `hybridsearch.fusion.judged` describes how. Grades of a judge that resembles one of the retrievers
        favour this retriever. So use an independent judge.

        Args:
            samples: Rankings by retriever name, for each of 50 queries or more, as `HybridSearch.rankings` returns
                them.
            grades: For each of the same queries, in the same order, grades by document id. A grade is a finite number
                of any scale. Higher is better. A document without a grade counts as an average one for the judge, and
                its rankings still count. If the grades of a query do not differ, the query is left out.
            judge: Description of the judge, which the fusion keeps.

        Returns:
            The fusion. If no query has different grades, all weights are equal.

        Raises:
            InvalidArgumentError: There is no query, or two queries have different retrievers, or there is not one
                mapping of grades for each query, or a grade is not a finite number, or no document has a grade.

        >>> good = [Ranking.from_scores({f"a{query}": 2.0, f"b{query}": 1.0}) for query in range(50)]
        >>> poor = [Ranking.from_scores({f"x{query}": 2.0, f"a{query}": 1.0}) for query in range(50)]
        >>> samples = [{"good": a, "poor": b} for a, b in zip(good, poor, strict=True)]
        >>> grades = [{f"a{query}": 3, f"b{query}": 1, f"x{query}": 0} for query in range(50)]
        >>> fusion = JudgedFusion.calibrated(samples, grades)
        >>> fusion.strengths["good"].mean > fusion.strengths["poor"].mean
        True
        """
        rankings, given = checked_samples(samples), list(grades)
        names = _check(rankings, given)
        queries = [_Query(names, of_query, of_judge) for of_query, of_judge in zip(rankings, given, strict=True)]
        told = [query for query in queries if query.differs]
        weights, errors = _weigh([query.values(weightings(len(names), _WEIGHTINGS, 20)) for query in told], len(names))
        strengths = _strengths(told, len(names))
        graded = np.mean([query.graded for query in queries], axis=0)
        found = {
            name: Strength(*strengths[place], float(errors[place]), float(graded[place]))
            for place, name in enumerate(names)
        }
        order = list(rankings[0])
        shares = dict(zip(names, weights.tolist(), strict=True))
        return cls(
            {name: shares[name] for name in order},
            strengths={name: found[name] for name in order},
            queries=len(told),
            judge=judge,
        )

    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, _Values]:
        """Compute the min-max score times the weight's share of all weights, for each document of each ranking."""
        total = math.fsum(self.weight(name) for name in rankings)
        return {
            name: normalize(ranking.scores, "minmax") * (self.weight(name) / total)
            for name, ranking in rankings.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Convert the fusion to a dict that JSON can hold."""
        strengths = {name: asdict(one) for name, one in self.strengths.items()}
        return {**super().to_json(), "strengths": strengths, "queries": self.queries, "judge": self.judge}

    def __rich__(self) -> RenderableType:
        from hybridsearch.tables import Grid, rich_tables

        total = math.fsum((self.weights or {}).values())
        rows = [
            [
                [name],
                [f"{weight / total:.3f}", *([f"± {one.weight_error:.3f}"] if one else [])],
                *([[f"{one.mean:+.3f}", f"± {one.error:.3f}"], [f"{one.graded:.0%}"]] if one else [["-"], ["-"]]),
            ]
            for name, weight in (self.weights or {}).items()
            for one in [self.strengths.get(name)]
        ]
        title = f"{number_of(self.queries, 'query', 'queries')}, judged by {self.judge or 'an unknown judge'}"
        few = f"Fewer than {FEWEST} queries often leave the weights near equal. {FEWEST} to 500 are recommended."
        notes = [few] if self.strengths and self.queries < FEWEST else []
        return rich_tables([Grid(title, ["retriever", "share of weight", "strength", "graded"], rows, notes)])

    def __repr__(self) -> str:
        about = f", queries={self.queries}, judge={self.judge!r}" if self.strengths else ""
        return f"JudgedFusion(weights={self.weights!r}{about})"


class _Query:
    """The documents of one query that are compared, with what retrievers and judge say about them."""

    def __init__(self, names: Sequence[str], rankings: Mapping[str, Ranking], grades: Mapping[str, float]) -> None:
        tops = [rankings[name].ids[:TOP] for name in names]
        known = {id: place for place, id in enumerate(sorted({*itertools.chain(*tops), *_listed(rankings, grades)}))}
        self.scores = np.zeros((len(names), len(known)))
        self.listed = np.zeros((len(names), len(known)), dtype=bool)
        for row, name in enumerate(names):
            scores = normalize(rankings[name].scores, "minmax").tolist()
            for id, score in zip(rankings[name].ids, scores, strict=True):
                if id in known:
                    self.scores[row, known[id]], self.listed[row, known[id]] = score, True
        opinions = np.zeros(len(known))
        kept = [id for id in known if id in grades]
        opinions[[known[id] for id in kept]] = _standardized(np.array([grades[id] for id in kept], dtype=np.float64))
        self.differs = bool(opinions.any())
        relevance = opinions + _standardized(self.scores.sum(axis=0))
        self.relevance = relevance - relevance.min(initial=0.0)  # nothing found is as bad as the worst document
        self.graded = [sum(id in grades for id in top) / max(1, len(top)) for top in tops]
        self.strengths = _paired([opinions[[known[id] for id in top]] for top in tops], opinions.min(initial=0.0))

    def values(self, weightings: _Values) -> _Values:
        """The DCG of the fused ranking for each row of `weightings`, over the largest sum of discounts."""
        found = ((weightings > 0).astype(float) @ self.listed) > 0
        sums = np.where(found, np.round(weightings @ self.scores, 12), -1.0)
        first = np.argsort(-sums, axis=1, kind="stable")[:, :TOP]
        gains = self.relevance[first] * np.take_along_axis(found, first, axis=1)
        values: _Values = gains @ _DISCOUNTS[: first.shape[1]] / _DISCOUNTS.sum()
        return values


def _listed(rankings: Mapping[str, Ranking], grades: Mapping[str, float]) -> set[str]:
    """The documents with a grade that a retriever found."""
    return {id for ranking in rankings.values() for id in ranking.ids if id in grades}


def _standardized(values: _Values) -> _Values:
    """`values` with mean 0 and standard deviation 1. All are 0 if they are equal, or differ only by rounding."""
    if not len(values):
        return values
    scaled = values / max(float(np.abs(values).max()), 1e-300) / 2  # so that differences cannot overflow
    deviation = float(scaled.std())
    if deviation <= 1e-12:
        return np.zeros_like(values)
    standardized: _Values = (scaled - scaled.mean()) / deviation
    return standardized


def _paired(tops: Sequence[_Values], worst: float) -> _Values:
    """The discounted mean of each retriever's first ten opinions, above the mean of all retrievers."""
    means = [
        float(np.concatenate([top, np.full(TOP - len(top), worst)]) @ _DISCOUNTS / _DISCOUNTS.sum()) for top in tops
    ]
    above: _Values = np.array(means) - np.mean(means)
    return above


def _strengths(queries: Sequence[_Query], retrievers: int) -> list[tuple[float, float]]:
    """The mean strength of each retriever and its standard error."""
    if not queries:
        return [(0.0, 0.0)] * retrievers
    found = np.array([query.strengths for query in queries])
    errors = found.std(axis=0, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else np.zeros(retrievers)
    return list(zip(found.mean(axis=0).tolist(), errors.tolist(), strict=True))


def _weigh(values: Sequence[_Values], retrievers: int) -> tuple[_Values, _Values]:
    """The weights and their standard errors, from the values of each query for each set of weights."""
    equal = np.full(retrievers, 1 / retrievers)
    if len(values) < 2 or retrievers < 2:
        return equal, np.zeros(retrievers)
    tried, table = weightings(retrievers, _WEIGHTINGS, 20), np.array(values)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        means = generator.dirichlet(np.ones(len(table))) @ table
        found.append(tried[means >= means.max() - 1e-9].mean(axis=0))  # the mean of all that are equally good
    means = table.mean(axis=0)
    gains = table[:, means >= means.max() - 1e-9].mean(axis=1) - table[:, 0]
    error = gains.std(ddof=1) / math.sqrt(len(gains))
    kept = max(0.0, 1 - (error / gains.mean()) ** 2) if gains.mean() > 1e-9 else 0.0
    return equal + kept * (np.mean(found, axis=0) - equal), kept * np.std(found, axis=0)


def _check(rankings: Sequence[Mapping[str, Ranking]], grades: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of the retrievers, sorted, so that their order has no effect."""
    if len(grades) != len(rankings) or not all(isinstance(one, Mapping) for one in grades):
        raise InvalidArgumentError(
            f"grades has {len(grades)} items for {len(rankings)} queries: give one mapping from document id to a "
            "number for each query."
        )
    for one in grades:
        for id, grade in one.items():
            number(f"The grade of document {id!r:.80}", grade)
    if not any(_listed(*one) for one in zip(rankings, grades, strict=True)):
        raise InvalidArgumentError("No document of the rankings has a grade: check that the ids are the same.")
    return sorted(rankings[0])


def _strength(name: str, given: object) -> Strength:
    if isinstance(given, Strength):
        return given
    if not isinstance(given, Mapping) or set(given) != set(Strength.__slots__):
        raise InvalidArgumentError(
            f"The strength of {name!r} has {', '.join(Strength.__slots__)}, but {shown(given)} was given."
        )
    return Strength(**{key: float(number(f"{key} of {name!r}", value)) for key, value in given.items()})
