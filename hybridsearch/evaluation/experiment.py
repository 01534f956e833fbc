"""`compare` measures several systems on the same judged queries, and `evaluate` measures one."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch.arguments import true_or_false, whole_number
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
from hybridsearch.found_passages import FoundPassages
from hybridsearch.fusion import RRF
from hybridsearch.messages import number_of
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.rerank import Reranker
from hybridsearch.search import HybridSearch

if TYPE_CHECKING:
    from hybridsearch.evaluation.datasets import Dataset

__all__ = ["RETRIEVE_RERANK_MEASURES", "Pipeline", "compare", "evaluate", "retrieve_rerank"]

RETRIEVE_RERANK_MEASURES = ("nDCG@10", "RR@10", "AP")
"""Measures of the preset retrieve-rerank. `RR@10` is also called MRR@10, and `AP` is also called MAP."""

Scores = Mapping[str, Mapping[str, float]]
"""Measure name -> query id -> value of the measure."""


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
    """Measure how good one system is on a data set, and what it costs.

    Args:
        system: System to measure: an index, a `Pipeline`, a TREC run file, or rankings by query id.
        dataset: Data set whose queries are asked and whose judgements are used.
        measures: Names of the measures, as ir-measures writes them. The first one is the main measure.
        top_k: Number of documents that the system returns. No measure may look deeper.
        exclude_self: Whether the document that has the id of the query is left out of each ranking.
        work_folder: Folder that keeps finished work for the next run. None keeps nothing.
        latency_queries: Number of queries that are asked one at a time to measure the time. 0 measures no costs.
        time_again: Whether to measure all times again, also those that the work folder has.
        show_progress_bar: Whether to show progress bars. None shows them in a terminal.

    Returns:
        The measures with their intervals, the scores of each query, the rankings and the costs. It prints as a table.

    Raises:
        InvalidArgumentError: An argument is not usable, or the system is of another data set.

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
    """Measure several systems on one data set: how good each is, whether differences are real, and what each costs.

    Each system returns what `search_many` would return for the queries of the data set. Shared work is done once. Each
    retriever of an index is asked once for each query. Each reranker scores a pair of query and document once.

    Args:
        systems: Systems by name: an index, a `Pipeline`, a TREC run file, or rankings by query id.
        dataset: Data set whose queries are asked and whose judgements are used. Every judged query counts. A query
            without results counts 0.
        measures: Names of the measures, as ir-measures writes them. The first one is the main measure: it decides
            which system and which single retriever is the best.
        baseline: Name of the system that all others are tested against. None takes the first one.
        test: Name of the significance test: "t", "randomization" or "wilcoxon". All are two-sided and paired over the
            queries.
        correction: Name of the correction of the p-values for the number of systems: "holm", "bonferroni" or "none".
            Each measure is corrected alone.
        level: Confidence level of the bootstrap intervals, between 0 and 1.
        top_k: Number of documents that each system returns. No measure may look deeper.
        exclude_self: Whether the document that has the id of the query is left out of each ranking. ArguAna needs
            this. Each retriever is then read one document deeper.
        oracle_positives: Whether to add a system "NAME (oracle positives)" for each system with a reranker. There the
            reranker also gets the relevant documents that retrieval missed. No real system can do that. The evaluators
            CrossEncoderRerankingEvaluator and CrossEncoderNanoBEIREvaluator of sentence-transformers report it.
        work_folder: Folder that keeps finished work. An interrupted comparison, or one with more systems, then does
            only what is new. None keeps nothing.
        latency_queries: Number of queries that are asked one at a time, without any cache, to measure the time. A slow
            system is asked fewer. 0 measures no costs.
        time_again: Whether to measure all times again, also those that the work folder has.
        details: Number of queries that are kept with the first hits of each system.
        show_progress_bar: Whether to show progress bars. None shows them in a terminal.

    Returns:
        The results of all systems. They print as tables, and can be saved as JSON, HTML, Markdown or run files.

    Raises:
        InvalidArgumentError: An argument is not usable, or a system is of another data set.

    >>> import hybridsearch as hs
    >>> documents = [hs.Document("d1", "lift of a wing"), hs.Document("d2", "heat in a nozzle")]
    >>> dataset = hs.Dataset("tiny", {"q1": "wing", "q2": "nozzle"}, {"q1": {"d1": 1}, "q2": {"d2": 1}}, documents)
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.index(documents, show_progress_bar=False)
    >>> run = {"q1": hs.Ranking.from_scores({"d1": 2.0})}
    >>> comparison = compare({"bm25": search, "run": run}, dataset, measures=["nDCG@10"], show_progress_bar=False)
    >>> comparison["bm25"].means["nDCG@10"].mean, comparison["run"].means["nDCG@10"].mean
    (1.0, 0.5)
    """
    started = time.perf_counter()
    check_dataset(dataset)
    parsed = parse_measures(measures)
    names, top_k = tuple(map(str, parsed)), whole_number("top_k", top_k)
    _check_cutoffs(names, [measure.params.get("cutoff") for measure in parsed], top_k)
    _check_statistics(test, correction, level, latency_queries)
    details = whole_number("details", details, 0)
    true_or_false("oracle_positives", oracle_positives)
    true_or_false("time_again", time_again)
    plans = _make_plans(systems, top_k, oracle_positives)
    baseline = _check_baseline(baseline, systems)
    qrels = {query: dataset.qrels[query] for query in dataset.queries if query in dataset.qrels}
    if not qrels:
        raise InvalidArgumentError(
            f"No query of the data set {dataset.name!r} has a judgement: check the ids in its qrels."
        )
    texts = {query: dataset.queries[query] for query in qrels}
    stages = Stages(texts, dataset.corpus, work_folder, show_progress_bar, exclude_self)
    check_sources(plans, qrels, dataset.name)
    returned = rankings_of(plans, stages, qrels)
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
    """The six systems of a retrieve-and-rerank table, for `compare`.

    They are the sparse retriever, the dense retriever and both merged by RRF, each without and with the reranker.

    Args:
        search: Index that has both retrievers.
        reranker: Reranker. It reads the first `top_k` documents of each ranking.
        sparse: Name of the sparse retriever, or of a BM25 retriever.
        dense: Name of the dense retriever.
    """
    asked = {sparse: [sparse], dense: [dense], f"{sparse}+{dense}": [sparse, dense]}
    return {
        name + ("" if one is None else "+rerank"): Pipeline(search, names, RRF(), reranker=one)
        for one in (None, reranker)
        for name, names in asked.items()
    }


# Helpers


def rankings_of(
    plans: Sequence[SystemPlan], stages: Stages, qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Ranking]]:
    """The ranking that each system returns, by system name and query id."""
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
        plan.name: (plan.reranker, _heads(plan, plan.reranker, fused[plan.name], stages, qrels))
        for plan in plans
        if plan.reranker is not None
    }
    for name, scores in stages.rerank(heads).items():
        for query, documents in heads[name][1].items():
            whole = _with_head(fused[name][query], [document.id for document in documents])
            blend = getattr(heads[name][0], "blend", 0.0)
            fused[name][query] = reordered(whole, scores[query], len(documents), blend)
    return fused


def _heads(
    plan: SystemPlan,
    reranker: Reranker,
    fused: Mapping[str, Ranking],
    stages: Stages,
    qrels: Mapping[str, Mapping[str, int]],
) -> dict[str, list[Document]]:
    """The documents as the reranker reads them, by query id."""
    wanted = {query: list(ranking.ids[: reranker.top_k]) for query, ranking in fused.items()}
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
            "in its index nor in the data set: use the data set that the runs were made with."
        )
    rankings = {query: stages.rankings(plan, query) if plan.retrievers else {} for query in wanted}
    others: Sequence[Ranking] = [EMPTY] * len(wanted)
    headings = True
    if isinstance(plan.source, HybridSearch) and plan.source.passages is not None:
        headings = plan.source.passages.headings
        listed = [
            set[str]().union(*(ranking.ids for ranking in rankings[query].values() if ranking.passages is not None))
            for query in wanted
        ]
        unlisted = [[id for id in ids if id not in known] for ids, known in zip(wanted.values(), listed, strict=True)]
        others = plan.asks(plan.source).list_passages([stages.queries[query] for query in wanted], unlisted)
    heads = {}
    for (query, ids), of_others in zip(wanted.items(), others, strict=True):
        found = FoundPassages(plan.fusion, rankings[query], documents, of_others, headings)
        heads[query] = [found.read(id, getattr(reranker, "passages", 1)) for id in ids if id in documents]
    return heads


def _with_own_scores(ranking: Ranking, plan: SystemPlan, stages: Stages, query: str) -> Ranking:
    """`ranking`, with the retriever's scores instead of fused scores if the system is a single retriever."""
    if plan.kind != "single":
        return ranking
    scores = dict(stages.ranking(plan, plan.retrievers[0], query))
    return Ranking(ranking.ids, np.array([scores[id] for id in ranking.ids], dtype=np.float64))


def _with_head(ranking: Ranking, head: Sequence[str]) -> Ranking:
    """`ranking` with `head` first. `head` can hold documents that `ranking` does not list."""
    if list(ranking.ids[: len(head)]) == list(head):
        return ranking
    scores = dict(ranking)
    ids = list(dict.fromkeys([*head, *ranking.ids]))
    return Ranking(tuple(ids), np.array([scores.get(id, 0.0) for id in ids], dtype=np.float64))


class _Singles:
    """The scores of each retriever alone. Each is computed once."""

    def __init__(
        self, stages: Stages, qrels: Mapping[str, Mapping[str, int]], measures: Sequence[Any], top_k: int
    ) -> None:
        self._stages, self._qrels, self._measures, self._top_k = stages, qrels, measures, top_k
        self._known: dict[Any, Scores] = {}

    def best(self, plan: SystemPlan) -> tuple[str, Scores]:
        """The retriever of `plan` with the best main measure, and its scores. Of equal ones it is the first."""
        main = str(self._measures[0])
        scores = {name: self._score(plan, name) for name in plan.retrievers}
        name = max(scores, key=lambda name: float(np.mean(_values(scores[name][main]))))
        return name, scores[name]

    def _score(self, plan: SystemPlan, name: str) -> Scores:
        key = (id(plan.source), name, repr(plan.filter), plan.depth, plan.feedback_of(name))
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
    """`results`, each compared with the baseline and with its best single retriever.

    `best` has the name and the scores of that retriever, by system name.
    """
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
    """System name -> measure -> the comparison of the first scores of a pair with the second."""
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
    """The notes of `plan`, and a warning if its fusion was tuned on these queries."""
    asked = dataset.query_digests
    share = share_tuned_on(asked, plan.fusion.tuned_on)
    if not share or len(plan.retrievers) < 2:
        return plan.notes
    about = "about " if len(plan.fusion.tuned_on) == KEPT and share < 1 else ""
    return (
        *plan.notes,
        f"The fusion of {plan.name} was tuned on {about}{max(1, round(share * len(asked))):,} of these {len(asked):,} "
        "queries, so its values are too good: measure it on queries that it was not tuned on.",
    )


def _no_judged(plan: SystemPlan, qrels: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """A warning about each run that lists no judged document, for example because its ids are different."""
    for name, run in plan.source.items() if isinstance(plan.source, Mapping) else ():
        listed = [(query, id) for query in qrels if query in run for id in run[query].ids]
        if listed and not any(id in qrels[query] for query, id in listed):
            judged = next(iter(next(of_query for of_query in qrels.values() if of_query)))
            yield (
                f"{name} lists no judged document, so all of its values are 0. The run has ids such as "
                f"{listed[0][1]!r:.80}, and the judgements have ids such as {judged!r:.80}."
            )


def _values(of_queries: Mapping[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.fromiter(of_queries.values(), dtype=np.float64, count=len(of_queries))


def _make_plans(systems: Mapping[str, HybridSearch | Pipeline | Run], top_k: int, oracle: bool) -> list[SystemPlan]:
    if not isinstance(systems, Mapping) or not systems:
        raise InvalidArgumentError(
            "systems is a mapping from names to one or more systems, such as {'hybrid': search}."
        )
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
                f"There are two systems {name!r}. oracle_positives made one of them: rename the other."
            )
    return plans


def _check_baseline(baseline: str | None, systems: Mapping[str, Any]) -> str:
    if baseline is not None and baseline not in systems:
        raise InvalidArgumentError(
            f"The baseline {baseline!r} is not one of the systems {', '.join(map(repr, systems))}."
        )
    return next(iter(systems)) if baseline is None else baseline


def _check_statistics(test: str, correction: str, level: float, latency_queries: int) -> None:
    """Check arguments before the work begins, because they are used only at its end."""
    paired_test([0.0], [0.0], test)
    adjust([], correction)
    bootstrap_interval([0.0], level, samples=100)
    whole_number("latency_queries", latency_queries, 0)


def _check_cutoffs(names: Iterable[str], cutoffs: Iterable[int | None], top_k: int) -> None:
    for name, cutoff in zip(names, cutoffs, strict=True):
        if cutoff is not None and cutoff > top_k:
            raise InvalidArgumentError(
                f"The measure {name} looks at {cutoff} documents, but systems return {top_k}: give top_k={cutoff}."
            )


def _facts(dataset: Dataset, qrels: Mapping[str, Mapping[str, int]]) -> DatasetFacts:
    report = dataset.check()
    judgements, problems = sum(map(len, qrels.values())), tuple(map(str, report.problems))
    return DatasetFacts(dataset.name, report.documents, len(qrels), judgements, problems, dataset.judged_by)
