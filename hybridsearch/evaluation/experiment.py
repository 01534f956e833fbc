"""`evaluate` one system, or `compare` several: the same queries, shared work done once, honest statistics."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.comparison import Comparison, SystemResult
from hybridsearch.evaluation.costs import machine_facts, measure_costs
from hybridsearch.evaluation.details import make_details, pick_queries
from hybridsearch.evaluation.measures import DEFAULT_MEASURES, parse_measures, score_rankings
from hybridsearch.evaluation.pipeline import Pipeline, Run, SystemPlan, check_dataset, check_sources, make_plan
from hybridsearch.evaluation.results import BestSingle, DatasetFacts, Versus
from hybridsearch.evaluation.stages import Stages, reordered
from hybridsearch.evaluation.statistics import adjust, bootstrap_interval, paired_test, wins_losses_ties
from hybridsearch.evaluation.tuned import KEPT, share_tuned_on
from hybridsearch.fusion import RRF
from hybridsearch.messages import number_of
from hybridsearch.ranking import Ranking
from hybridsearch.rerank import Reranker
from hybridsearch.search import HybridSearch

if TYPE_CHECKING:
    from hybridsearch.evaluation.datasets import Dataset

__all__ = ["RETRIEVE_RERANK_MEASURES", "Pipeline", "compare", "evaluate", "retrieve_rerank"]

RETRIEVE_RERANK_MEASURES = ("nDCG@10", "RR@10", "AP")
"""Of the preset; `RR@10` is what others call MRR@10, and `AP` MAP."""

Scores = Mapping[str, Mapping[str, float]]
"""Measure name -> query id -> figure."""


def evaluate(
    system: HybridSearch | Pipeline | Run,
    dataset: Dataset,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    top_k: int = 100,
    exclude_self: bool = False,
    work_folder: str | Path | None = None,
    latency_queries: int = 50,
    time_again: bool = False,
    show_progress_bar: bool | None = None,
) -> SystemResult:
    """How good one system is on one data set: measures with intervals, and what it costs. Prints as a table.

    The arguments are those of `compare`.

    >>> import hybridsearch as hs
    >>> from hybridsearch.evaluation.datasets import Dataset
    >>> documents = [hs.Document("d1", "lift of a wing"), hs.Document("d2", "heat in a nozzle")]
    >>> dataset = Dataset("tiny", {"q1": "wing", "q2": "nozzle"}, {"q1": {"d1": 1}, "q2": {"d1": 1}}, documents)
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.index(documents, show_progress_bar=False)
    >>> result = evaluate(search, dataset, measures=["nDCG@10"], show_progress_bar=False)
    >>> result.means["nDCG@10"].mean, result.scores["nDCG@10"]
    (0.5, {'q1': 1.0, 'q2': 0.0})
    """
    comparison = compare(
        {"system": system},
        dataset,
        measures=measures,
        top_k=top_k,
        exclude_self=exclude_self,
        work_folder=work_folder,
        latency_queries=latency_queries,
        time_again=time_again,
        show_progress_bar=show_progress_bar,
        details=0,
    )
    return comparison.systems[0]


def compare(
    systems: Mapping[str, HybridSearch | Pipeline | Run],
    dataset: Dataset,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    baseline: str | None = None,
    test: str = "t",
    correction: str = "holm",
    level: float = 0.95,
    top_k: int = 100,
    exclude_self: bool = False,
    oracle_positives: bool = False,
    work_folder: str | Path | None = None,
    latency_queries: int = 50,
    time_again: bool = False,
    details: int = 20,
    show_progress_bar: bool | None = None,
) -> Comparison:
    """Measure several systems on one data set, and say which differences are real and what each system costs.

    Each system returns what `search_many` would return for all queries of the data set. What systems have in common
    is done once: a retriever of an index is asked once, as deep as any system reads it, and a reranker scores each
    pair of a query and a document once.

    Args:
        systems: by name: an index, a `Pipeline`, a TREC run file, or rankings by query id.
        dataset: its queries are asked and its judgements measure. Every judged query counts: one without results
            counts 0.
        measures: names as ir-measures parses them; the first one orders systems and chooses single retrievers.
        baseline: the system that all others are tested against; None for the first.
        test: "t", "randomization" or "wilcoxon", paired over queries, two-sided.
        correction: of the p-values of one measure for the number of systems: "holm", "bonferroni" or "none".
        level: of the bootstrap intervals.
        top_k: how many documents each system returns; no measure may look deeper.
        exclude_self: drop the document whose id is the query's id from what every retriever returns, as ArguAna needs
            it; each is then read one document deeper.
        oracle_positives: for each system with a reranker add one named "... (oracle positives)", where the relevant
            documents that retrieval missed are put before the reranker too. No real system can do that; it is what
            sentence-transformers' CrossEncoderRerankingEvaluator and CrossEncoderNanoBEIREvaluator report.
        work_folder: keeps finished stages, so that a comparison that was broken off, or is made again with more
            systems, does only what is new.
        latency_queries: how many queries are asked one at a time, with nothing from a cache, to time the stages; a slow
            system is asked fewer. 0 measures no costs.
        time_again: take all times again, also those that the work folder has.
        details: how many queries are kept with what each system returned for them.
        show_progress_bar: None shows it in a terminal.

    Raises:
        InvalidArgumentError: an argument is not usable, or a run has no query of the data set.
    """
    started = time.perf_counter()
    check_dataset(dataset)
    parsed = parse_measures(measures)
    names, top_k = tuple(map(str, parsed)), whole_number("top_k", top_k)
    _check_cutoffs(names, [measure.params.get("cutoff") for measure in parsed], top_k)
    _check_statistics(test, correction, level, latency_queries)
    plans = _make_plans(systems, top_k, oracle_positives)
    baseline = _check_baseline(baseline, systems)
    qrels = {query: dataset.qrels[query] for query in dataset.queries if query in dataset.qrels}
    if not qrels:
        raise InvalidArgumentError(f"No query of the data set {dataset.name!r} has a judgement: check its qrels.")
    texts = {query: dataset.queries[query] for query in qrels}
    stages = Stages(texts, dataset.corpus, work_folder, show_progress_bar, exclude_self)
    check_sources(plans, qrels, dataset.name)
    returned = _rankings(plans, stages, qrels)
    found = {
        plan.name: {q: _with_own_scores(one, plan, stages, q).top(top_k) for q, one in returned[plan.name].items()}
        for plan in plans
    }
    scores = {name: score_rankings(rankings, qrels, parsed) for name, rankings in found.items()}
    singles = _Singles(stages, qrels, parsed, top_k)
    costs = measure_costs(plans, stages, latency_queries, time_again)
    results = [
        SystemResult(
            name=plan.name,
            description=plan.description,
            retrievers=plan.retrievers,
            kind=plan.kind,
            scores=scores[plan.name],
            means={name: bootstrap_interval(_values(scores[plan.name][name]), level) for name in names},
            cost=costs.get(plan.name),
            rankings={query: tuple(ranking) for query, ranking in found[plan.name].items()},
            warnings=(*_warnings(plan, dataset), *_no_judged(plan, qrels)),
        )
        for plan in plans
    ]
    best = {plan.name: singles.best(plan) for plan in plans if plan.kind in ("fused", "reranked")}
    results = _tested(results, baseline, best, test, correction, level)
    real = [plan for plan in plans if not plan.oracle]
    picked = pick_queries({plan.name: scores[plan.name][names[0]] for plan in real}, details)
    return Comparison(
        dataset=_facts(dataset, qrels),
        measures=names,
        baseline=baseline,
        test=test,
        correction=correction,
        systems=tuple(results),
        details=make_details(picked, real, stages, found, qrels),
        seconds=time.perf_counter() - started,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        version=version("hybridsearch"),
        level=level,
        machine=machine_facts(),
        top_k=top_k,
    )


def retrieve_rerank(
    search: HybridSearch, reranker: Reranker, *, sparse: str = "sparse", dense: str = "dense"
) -> dict[str, Pipeline]:
    """The six systems of the usual retrieve-and-rerank table: each retriever and both by RRF, then all three reranked.

    Args:
        search: an index with both retrievers.
        reranker: reads as many documents of each ranking as its `top_k` says.
        sparse, dense: names of the retrievers.
    """
    asked = {sparse: [sparse], dense: [dense], f"{sparse}+{dense}": [sparse, dense]}
    return {
        name + ("" if one is None else "+rerank"): Pipeline(search, names, RRF(), reranker=one)
        for one in (None, reranker)
        for name, names in asked.items()
    }


# How it is done


def _rankings(
    plans: Sequence[SystemPlan], stages: Stages, qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Ranking]]:
    """What every system returns, by name and query id."""
    stages.retrieve(plans)
    fused: dict[str, dict[str, Ranking]] = {}
    for plan in plans:
        of_query = {query: stages.rankings(plan, query) for query in stages.queries}
        fused[plan.name] = (
            {query: plan.fusion.fuse(rankings) for query, rankings in of_query.items()}
            if plan.retrievers
            else {query: rankings[plan.name] for query, rankings in of_query.items()}
        )
    heads = {
        plan.name: (plan.reranker, _heads(plan, plan.reranker.top_k, fused[plan.name], stages, qrels))
        for plan in plans
        if plan.reranker is not None
    }
    for name, scores in stages.rerank(heads).items():
        for query, documents in heads[name][1].items():
            whole = _with_head(fused[name][query], [document.id for document in documents])
            fused[name][query] = reordered(whole, scores[query], len(documents))
    return fused


def _heads(
    plan: SystemPlan, depth: int, fused: Mapping[str, Ranking], stages: Stages, qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, list[Document]]:
    """What goes to the reranker, by query id."""
    wanted = {query: list(ranking.ids[:depth]) for query, ranking in fused.items()}
    if plan.oracle:
        for query, ids in wanted.items():
            known = {*ids, query} if stages.exclude_self else set(ids)
            ids.extend(id for id, grade in qrels[query].items() if grade > 0 and id not in known)
    documents = stages.documents((id for ids in wanted.values() for id in ids), [plan])
    missing = list(dict.fromkeys(id for ids in wanted.values() for id in ids if id not in documents))
    if missing and not plan.oracle:
        raise InvalidArgumentError(
            f"System {plan.name!r} cannot rerank {number_of(len(missing), 'document')} such as "
            f"{missing[0]!r}, which are neither "
            "in its index nor in the data set's corpus: rerank runs only with the corpus they were made of."
        )
    return {query: [documents[id] for id in ids if id in documents] for query, ids in wanted.items()}


def _with_own_scores(ranking: Ranking, plan: SystemPlan, stages: Stages, query: str) -> Ranking:
    """A single retriever's own scores say more than what a fusion makes of one list."""
    if plan.kind != "single":
        return ranking
    scores = dict(stages.ranking(plan, plan.retrievers[0], query))
    return Ranking(ranking.ids, np.array([scores[id] for id in ranking.ids], dtype=np.float64))


def _with_head(ranking: Ranking, head: Sequence[str]) -> Ranking:
    """`ranking` starting with `head`, which may hold documents that it does not list."""
    if list(ranking.ids[: len(head)]) == list(head):
        return ranking
    scores = dict(ranking)
    ids = list(dict.fromkeys([*head, *ranking.ids]))
    return Ranking(tuple(ids), np.array([scores.get(id, 0.0) for id in ids], dtype=np.float64))


class _Singles:
    """How good each retriever is alone."""

    def __init__(
        self, stages: Stages, qrels: Mapping[str, Mapping[str, int]], measures: Sequence[Any], top_k: int
    ) -> None:
        self._stages, self._qrels, self._measures, self._top_k = stages, qrels, measures, top_k
        self._known: dict[Any, Scores] = {}

    def best(self, plan: SystemPlan) -> tuple[str, Scores]:
        """The plan's retriever with the best main measure, the first of equal ones, and its scores."""
        main = str(self._measures[0])
        scores = {name: self._score(plan, name) for name in plan.retrievers}
        name = max(scores, key=lambda name: float(np.mean(_values(scores[name][main]))))
        return name, scores[name]

    def _score(self, plan: SystemPlan, name: str) -> Scores:
        key = (id(plan.source), name, repr(plan.filter), plan.depth)
        if key not in self._known:
            rankings = {query: self._stages.ranking(plan, name, query).top(self._top_k) for query in self._qrels}
            self._known[key] = score_rankings(rankings, self._qrels, self._measures)
        return self._known[key]


def _tested(
    results: Sequence[SystemResult],
    baseline: str,
    best: Mapping[str, tuple[str, Scores]],
    test: str,
    correction: str,
    level: float,
) -> list[SystemResult]:
    """`results` with how they stand against the baseline, and against `best`, a retriever and its scores by system."""
    scores = {one.name: one.scores for one in results}
    others = [one.name for one in results if one.name != baseline and one.kind != "oracle-positives"]
    versus = _versus({name: (scores[name], scores[baseline]) for name in others}, test, correction, level)
    added = _versus({name: (scores[name], single) for name, (_, single) in best.items()}, test, correction, level)
    singles = {}
    for name, (retriever, single) in best.items():
        means = {measure: float(np.mean(_values(values))) for measure, values in single.items()}
        singles[name] = BestSingle(retriever, means, added[name])
    return [replace(one, versus=versus.get(one.name, {}), best_single=singles.get(one.name)) for one in results]


def _versus(
    pairs: Mapping[str, tuple[Scores, Scores]], test: str, correction: str, level: float
) -> dict[str, dict[str, Versus]]:
    """System name -> measure -> the first of each pair against the second."""
    result: dict[str, dict[str, Versus]] = {name: {} for name in pairs}
    for measure in next(iter(pairs.values()))[0] if pairs else ():
        values = {name: (_values(ours[measure]), _values(other[measure])) for name, (ours, other) in pairs.items()}
        p_values = [paired_test(ours, other, test) for ours, other in values.values()]
        adjusted = adjust(p_values, correction)
        for (name, (ours, other)), p, p_adjusted in zip(values.items(), p_values, adjusted, strict=True):
            difference = bootstrap_interval(ours - other, level)
            result[name][measure] = Versus(difference, p, p_adjusted, *wins_losses_ties(ours, other))
    return result


def _warnings(plan: SystemPlan, dataset: Dataset) -> tuple[str, ...]:
    """A note if the fusion of `plan` was tuned on these queries: its figures are then too good."""
    asked = dataset.query_digests
    share = share_tuned_on(asked, plan.fusion.tuned_on)
    if not share or len(plan.retrievers) < 2:
        return plan.notes
    about = "about " if len(plan.fusion.tuned_on) == KEPT and share < 1 else ""
    return (
        *plan.notes,
        f"The fusion of {plan.name} was tuned on {about}{max(1, round(share * len(asked))):,} of these {len(asked):,} "
        "queries, so its figures are too good: measure it on queries that had no part in tuning.",
    )


def _no_judged(plan: SystemPlan, qrels: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """A sentence on each run that lists no judged document, for example because its ids are written otherwise."""
    for name, run in plan.source.items() if isinstance(plan.source, Mapping) else ():
        listed = [(query, id) for query in qrels if query in run for id in run[query].ids]
        if listed and not any(id in qrels[query] for query, id in listed):
            judged = next(iter(next(of_query for of_query in qrels.values() if of_query)))
            yield (
                f"{name} lists no judged document, so all of its figures are 0: its ids are like "
                f"{listed[0][1]!r:.80}, those of the judgements like {judged!r:.80}."
            )


def _values(of_queries: Mapping[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.fromiter(of_queries.values(), dtype=np.float64, count=len(of_queries))


def _make_plans(systems: Mapping[str, HybridSearch | Pipeline | Run], top_k: int, oracle: bool) -> list[SystemPlan]:
    if not isinstance(systems, Mapping) or not systems:
        raise InvalidArgumentError("systems is a mapping with at least one system, such as {'hybrid': search}.")
    plans: list[SystemPlan] = []
    for name, system in systems.items():
        if not isinstance(name, str) or not name.strip():
            raise InvalidArgumentError(f"The name of a system is a text that is not empty, not {name!r:.60}.")
        plan = make_plan(name, system, top_k)
        plans.append(plan)
        if oracle and plan.reranker is not None:
            plans.append(replace(plan, name=f"{name} (oracle positives)", oracle=True))
    names = [plan.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgumentError(
                f"There are two systems {name!r}, one of them made by oracle_positives: rename the other."
            )
    return plans


def _check_baseline(baseline: str | None, systems: Mapping[str, Any]) -> str:
    if baseline is not None and baseline not in systems:
        raise InvalidArgumentError(
            f"The baseline {baseline!r} is not one of the systems {', '.join(map(repr, systems))}."
        )
    return next(iter(systems)) if baseline is None else baseline


def _check_statistics(test: str, correction: str, level: float, latency_queries: int) -> None:
    """Before anything is asked, what is needed only when all is measured."""
    paired_test([0.0], [0.0], test)
    adjust([], correction)
    bootstrap_interval([0.0], level, samples=100)
    whole_number("latency_queries", latency_queries, 0)


def _check_cutoffs(names: Iterable[str], cutoffs: Iterable[int | None], top_k: int) -> None:
    for name, cutoff in zip(names, cutoffs, strict=True):
        if cutoff is not None and cutoff > top_k:
            raise InvalidArgumentError(
                f"The measure {name} looks at {cutoff} documents but systems return {top_k}: give top_k={cutoff}."
            )


def _facts(dataset: Dataset, qrels: Mapping[str, Mapping[str, int]]) -> DatasetFacts:
    report = dataset.check()
    judgements, problems = sum(map(len, qrels.values())), tuple(map(str, report.problems))
    return DatasetFacts(dataset.name, report.documents, len(qrels), judgements, problems)
