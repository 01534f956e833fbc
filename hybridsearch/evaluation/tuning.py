"""`tune` chooses on judged queries how to merge the rankings of several retrievers, and measures the choice.

A choice always looks good on the queries on which it was made. So it is measured on queries that had no part in it, by
cross-validation of the whole choice (Varma and Simon, Bias in Error Estimation When Using Cross-Validation for Model
Selection, BMC Bioinformatics 7:91, 2006). The queries are cut into folds. For each fold everything is chosen again on
all other queries. Then it is measured on the fold.

It is compared with systems that need no folds, each measured on all queries: the best single retriever, and fusions
that need no judgements. The best one of each is chosen on these same queries, which can only favour it. The tuned
fusion is recommended, unless one of these is significantly better, or the single retriever has the same value on each
query. If the queries are few, the weights of the tuned fusion are near equal weights
(`hybridsearch.evaluation.shrinkage`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.measures import Qrels, parse_measures, score_rankings
from hybridsearch.evaluation.pipeline import Pipeline, Run, check_dataset, check_sources
from hybridsearch.evaluation.shrinkage import best_of, choose, likelihoods
from hybridsearch.evaluation.stages import Stages
from hybridsearch.evaluation.statistics import bootstrap_interval, paired_test
from hybridsearch.evaluation.tuned import Fold, Rival, Shift, Tuned, kept_digests
from hybridsearch.fusion import RRF, AdaptiveFusion, Fusion, ScoreFusion, make_fusion
from hybridsearch.fusion.base import weightings
from hybridsearch.messages import number_of
from hybridsearch.progress import progress_bar
from hybridsearch.ranking import Ranking
from hybridsearch.search import HybridSearch

KINDS = (ScoreFusion("minmax"), AdaptiveFusion(), RRF(60), RRF(20), RRF(5), ScoreFusion("zscore"))
"""Kinds of fusion that are tried, each with all weights. The first one is the default: another one is chosen only if it
is significantly better."""

CANDIDATES = (50, 100, 200)
"""Numbers of documents to read from each retriever that are tried."""

UNTUNED: Mapping[str, Fusion] = {"rrf": RRF(), "minmax": ScoreFusion("minmax")}
"""Fusions with equal weights, which need no judgements. Tuning is worth it only if it is better than these.

`AdaptiveFusion.calibrated` of the same queries is compared too.
"""

UNTUNED_CANDIDATES = 100
"""Number of documents that are read from each retriever for the fusions of `UNTUNED`."""

_WEIGHTINGS = 70  # most sets of weights for one kind of fusion
_DEPTH = 100  # number of documents at which measures without a cutoff look


def tune(
    source: HybridSearch | Mapping[str, Run],
    dataset: Dataset,
    *,
    retrievers: Collection[str] | None = None,
    measure: str = "nDCG@10",
    kinds: Sequence[Fusion] = KINDS,
    candidates: Sequence[int] = CANDIDATES,
    folds: int = 5,
    seed: int = 0,
    exclude_self: bool = False,
    work_folder: str | Path | None = None,
    show_progress_bar: bool | None = None,
) -> Tuned:
    """Choose on judged queries the fusion, its weights and the candidates, and measure the choice on other queries.

    Each retriever is asked once for each query. All kinds of fusion are tried with all numbers of candidates and a
    grid of weights. The grid has steps of 0.1 for two or three retrievers, and larger steps for more. It also has
    each retriever alone. The weights stay equal if the queries are few, and move to the best weights as the evidence
    grows (see `hybridsearch.evaluation.shrinkage`). Another kind than the first one, or other candidates than 100, are
    chosen only if they are significantly better.

    Args:
        source: Index, or runs by retriever name. A run is a TREC run file, or rankings by query id.
        dataset: Data set with judged queries. Use the train split, and keep the test split for `compare`.
        retrievers: Names of the retrievers to merge. None takes all of them.
        measure: Name of the measure to maximise (see `parse_measures`).
        kinds: Fusions to try, without weights. The first one is the default.
        candidates: Numbers of documents to read from each retriever that are tried. The one nearest to 100 is the
            default.
        folds: Number of parts into which the queries are cut for the cross-validation.
        seed: Random seed. It decides which query is in which fold. Equal arguments give equal results.
        exclude_self: Whether the document that has the id of the query is left out of each ranking, as for ArguAna.
        work_folder: Folder that keeps the rankings of the retrievers for the next run, as in `compare`.
        show_progress_bar: Whether to show progress bars. None shows them in a terminal.

    Returns:
        The recommended fusion, and the values that support it. It prints as tables and can be saved.

    Raises:
        InvalidArgumentError: There are fewer than two retrievers, or fewer than two judged queries for each fold. Or a
            run or an index is of another data set, or another argument is not usable.

    >>> from hybridsearch.ranking import Ranking
    >>> good = {f"q{i}": Ranking.from_scores({f"d{i}": 2.0, "x": 1.0}) for i in range(20)}
    >>> bad = {f"q{i}": Ranking.from_scores({"x": 2.0, "y": 1.0}) for i in range(20)}
    >>> data = Dataset("mine", {f"q{i}": "?" for i in range(20)}, {f"q{i}": {f"d{i}": 1} for i in range(20)})
    >>> tuned = tune({"good": good, "bad": bad}, data, show_progress_bar=False)
    >>> tuned.fusion
    RRF(weights={'good': 1.0, 'bad': 0.0}, k=60)
    >>> print(tuned.held_out, tuned.best_single.verdict, tuned.best_untuned.verdict)
    1.000 [1.000, 1.000] not better not better
    """
    check_dataset(dataset)
    _check(kinds, candidates, folds, seed)
    plan = Pipeline(source, retrievers, RRF(), max(*candidates, UNTUNED_CANDIDATES), None).resolve("tune", 1)
    if len(plan.retrievers) < 2:
        raise InvalidArgumentError(
            f"Tuning needs two or more retrievers, but there is only {', '.join(map(repr, plan.retrievers))}: use "
            "`evaluate` to measure a single one."
        )
    qrels = {query: grades for query, grades in dataset.qrels.items() if query in dataset.queries}
    queries = list(qrels)
    if len(queries) < 2 * folds:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has "
            f"{number_of(len(queries), 'judged query', 'judged queries')}, but {folds} folds need {2 * folds} or more."
        )
    if not any(grade > 0 for grades in qrels.values() for grade in grades.values()):
        raise InvalidArgumentError(
            f"No query of the data set {dataset.name!r} has a relevant document, so there is nothing to tune on: give "
            "judgements of grade 1 or more."
        )
    parsed = parse_measures(measure)
    if len(parsed) != 1:
        raise InvalidArgumentError(f"measure is the name of one measure, but {len(parsed)} are given.")
    check_sources([plan], qrels, dataset.name)
    texts = {query: text for query, text in dataset.queries.items() if query in qrels}
    stages = Stages(texts, dataset.corpus, work_folder, show_progress_bar, exclude_self)
    stages.retrieve([plan])
    runs = {name: {q: stages.rankings(plan, q)[name] for q in queries} for name in plan.retrievers}
    table = Table(runs, qrels, str(parsed[0]), kinds, sorted(set(candidates)), show_progress_bar)
    return _nested(table, dataset, folds, seed)


def _check(kinds: Sequence[Fusion], candidates: Sequence[int], folds: int, seed: int) -> None:
    if not kinds or not all(isinstance(kind, Fusion) for kind in kinds):
        raise InvalidArgumentError(
            f"kinds is a list of one or more fusions, such as [RRF(), ScoreFusion('minmax')], not {kinds!r}."
        )
    for kind in kinds:
        if kind.weights is not None:
            raise InvalidArgumentError(
                f"kinds are fusions without weights, because the weights are tuned: leave out the weights of {kind!r}."
            )
    if not candidates:
        raise InvalidArgumentError("candidates is empty: give one or more whole numbers of at least 1.")
    for depth in candidates:
        whole_number("One of the candidates", depth)
    whole_number("folds", folds, 2, sentence="{name} is 2 or more, not {value}.")
    whole_number("seed", seed, 0)


def _nested(table: Table, dataset: Dataset, folds: int, seed: int) -> Tuned:
    """Do the cross-validation, and make the choice on all queries."""
    everything = np.arange(len(table.queries))
    shuffled = np.random.default_rng(seed).permutation(everything)
    held_out = np.zeros(len(shuffled))
    choices = []
    for fold in np.array_split(shuffled, folds):
        rest = shuffled[~np.isin(shuffled, fold)]
        fusion, depth, _ = table.choose(rest)
        single = table.best_single(rest)
        held_out[fold] = table.measured(fusion, depth, fold)
        means = float(held_out[fold].mean()), float(table.singles[single, fold].mean())
        choices.append(Fold(len(fold), fusion, depth, means[0], table.names[single], means[1]))
    tuned, depth, shift = table.choose(everything)
    tuned.tuned_on = kept_digests(dataset.query_digests)
    best = table.best_single(everything)

    def rival(name: str, values: NDArray[np.float64]) -> Rival:
        of, difference = (bootstrap_interval(one, seed=seed) for one in (values, held_out - values))
        return Rival(name, of, difference, paired_test(held_out, values))

    equal = dict.fromkeys(table.names, 1.0)
    fusions = {name: make_fusion({**fusion.to_json(), "weights": equal}) for name, fusion in UNTUNED.items()}
    fusions["calibrated"] = AdaptiveFusion.calibrated(table.rankings(UNTUNED_CANDIDATES))
    untuned = {name: table.measured(fusion, UNTUNED_CANDIDATES, everything) for name, fusion in fusions.items()}
    result = Tuned(
        fusion=tuned,
        candidates=depth,
        tuned=tuned,
        tuned_candidates=depth,
        measure=table.measure,
        dataset=dataset.name,
        queries=len(shuffled),
        held_out=bootstrap_interval(held_out, seed=seed),
        best_single=rival(table.names[best], table.singles[best]),
        untuned=tuple(rival(name, values) for name, values in untuned.items()),
        folds=tuple(choices),
        shift=shift,
    )
    preferred = result.preferred
    if preferred is None:
        return result
    if preferred is result.best_single:
        return replace(result, fusion=RRF(weights={name: float(name == preferred.name) for name in table.names}))
    return replace(result, fusion=fusions[preferred.name], candidates=UNTUNED_CANDIDATES)


class Table:
    """The measure of every kind of fusion, depth and weighting on every query, and the choices by it.

    Attributes:
        names: Names of the retrievers.
        queries: Ids of the queries. Below, a query is its place in this list.
        singles: Measure of each retriever alone: shape (retrievers, queries).
        weightings: Sets of weights: shape (weightings, retrievers). Each row has the sum 1. Equal weights come first.
        families: Each kind of fusion with each depth. The default comes first.
        values: Measure: shape (families, weightings, queries).
    """

    def __init__(
        self,
        runs: Mapping[str, Mapping[str, Ranking]],
        qrels: Qrels,
        measure: str,
        kinds: Sequence[Fusion],
        depths: Sequence[int],
        show: bool | None,
    ) -> None:
        self.names = tuple(runs)
        self.queries = list(qrels)
        self.runs, self.qrels, self.measure = runs, qrels, measure
        self.cutoff: int = parse_measures(measure)[0].params.get("cutoff") or _DEPTH
        self.singles = np.array([self._scored(run) for run in runs.values()])
        self.weightings = _weightings(len(runs))
        nearest = sorted(depths, key=lambda depth: abs(depth - UNTUNED_CANDIDATES))
        self.families = [(kind, depth) for kind in kinds for depth in nearest]
        self.values = np.empty((len(self.families), len(self.weightings), len(self.queries)))
        trials = range(len(self.families) * len(self.weightings))
        with progress_bar("Trying fusions", trials, show, "fusions") as advance:
            for number, (kind, depth) in enumerate(self.families):
                fused = [merge(kind, rankings, self.weightings, self.cutoff) for rankings in self.rankings(depth)]
                for place in range(len(self.weightings)):
                    rankings = {q: of_query[place] for q, of_query in zip(self.queries, fused, strict=True)}
                    self.values[number, place] = self._scored(rankings)
                    advance(1)

    def choose(self, queries: NDArray[np.intp]) -> tuple[Fusion, int, Shift]:
        """The fusion and depth for `queries`, and why its weights are near equal weights or far from them."""
        values = self.values[:, :, queries]
        family, place = choose(values, self.weightings)
        kind, depth = self.families[family]
        fusion = make_fusion({**kind.to_json(), "weights": self._named(place)})
        best = int(best_of(values[family].mean(axis=1)))
        return fusion, depth, Shift(self._named(best), float(likelihoods(values[family], best)[0]))

    def _named(self, place: int) -> dict[str, float]:
        return {name: round(float(one), 6) for name, one in zip(self.names, self.weightings[place], strict=True)}

    def best_single(self, queries: NDArray[np.intp]) -> int:
        """The place of the retriever that is the best alone."""
        return int(best_of(self.singles[:, queries].mean(axis=1)))

    def measured(self, fusion: Fusion, depth: int, queries: NDArray[np.intp]) -> NDArray[np.float64]:
        """The measure of `fusion` on each of `queries`."""
        asked = [self.queries[place] for place in queries]
        fused = {query: fusion.fuse(self._rankings(query, depth)).top(self.cutoff) for query in asked}
        found = score_rankings(fused, {query: self.qrels[query] for query in asked}, self.measure)
        return np.array([found[self.measure][query] for query in asked])

    def rankings(self, depth: int) -> list[dict[str, Ranking]]:
        """The rankings of all queries by retriever name, cut at `depth`."""
        return [self._rankings(query, depth) for query in self.queries]

    def _rankings(self, query: str, depth: int) -> dict[str, Ranking]:
        return {name: run[query].top(depth) for name, run in self.runs.items()}

    def _scored(self, rankings: Mapping[str, Ranking]) -> NDArray[np.float64]:
        cut = {query: rankings[query].top(self.cutoff) for query in self.queries}
        found = score_rankings(cut, self.qrels, self.measure)[self.measure]
        return np.array([found[query] for query in self.queries])


def merge(kind: Fusion, rankings: Mapping[str, Ranking], weightings: NDArray[np.float64], top: int) -> list[Ranking]:
    """The fused ranking for each row of `weightings`, cut at `top`. It is what `Fusion.fuse` returns, but faster.

    The contribution of a retriever is proportional to its weight, up to a factor that all retrievers share. A weight
    of 0 leaves the retriever out. So contributions are computed once for each set of retrievers that have a weight
    above 0.
    """
    names = list(rankings)
    ids = sorted({id for ranking in rankings.values() for id in ranking.ids})
    place = {id: number for number, id in enumerate(ids)}
    fused: dict[int, Ranking] = {}
    groups: dict[tuple[bool, ...], list[int]] = {}
    for row, weights in enumerate(weightings):
        groups.setdefault(tuple((weights > 0).tolist()), []).append(row)
    for used, rows in groups.items():
        subset = {name: rankings[name] for name, one in zip(names, used, strict=True) if one}
        matrix = np.zeros((len(names), len(ids)))
        listed = np.zeros(len(ids), dtype=bool)
        for name, values in kind.contributions(subset).items():
            places = [place[id] for id in subset[name].ids]
            matrix[names.index(name), places] = values
            listed[places] = True
        found = np.flatnonzero(listed)  # in rising order of ids; a stable sort keeps it for equal scores
        scores = weightings[rows] @ matrix[:, found]
        scale = np.abs(scores).max(axis=1, keepdims=True, initial=1e-300)
        order = np.argsort(-np.round(scores / scale, 12), axis=1, kind="stable")[:, :top]
        for row, best in zip(rows, found[order].tolist(), strict=True):
            fused[row] = Ranking(tuple([ids[at] for at in best]), np.arange(len(best), 0.0, -1.0))
    return [fused[row] for row in range(len(weightings))]


def _weightings(retrievers: int) -> NDArray[np.float64]:
    """The sets of weights that are tried, each once, and those nearest to equal weights first."""
    grid = np.unique(weightings(retrievers, _WEIGHTINGS, 10), axis=0)
    return np.array(sorted(grid.tolist(), key=lambda row: (round(math.fsum(w * w for w in row), 9), row)))
