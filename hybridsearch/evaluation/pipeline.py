"""`Pipeline` describes a system that `compare` measures. Here its arguments are checked and completed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hybridsearch import arguments
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.results import Kind
from hybridsearch.feedback import Feedback, Planned
from hybridsearch.filters import Filter
from hybridsearch.fusion import RRF, Fusion, read_fusion
from hybridsearch.ranking import Ranking, read_trec
from hybridsearch.rerank import Reranker
from hybridsearch.rerank.base import check_reranker
from hybridsearch.retrieval import Plan
from hybridsearch.search import CONFIGURED, HybridSearch

_LOOKED_UP = 1000  # number of judged documents; an index must have at least one of them

Run: TypeAlias = Mapping[str, Ranking] | str | Path
"""A run: rankings by query id, or a TREC run file that holds them."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One system that `compare`, `evaluate` or `tune` measures: an index or runs, and how they are searched.

    Attributes:
        source: Index, or runs by retriever name. The runs are fused as if an index had returned them.
        retrievers: Names of the retrievers to ask. None asks all of them.
        fusion: Fusion that merges the rankings, or the path of a file that `Fusion.save` or `hs.tune` wrote. None takes
            the fusion of the index, and RRF for runs.
        candidates: Number of documents that are read from each retriever. None takes the number of the index, and 100
            for runs.
        reranker: Reranker. "configured" takes the reranker of the index, and none for runs. None takes none. For runs
            it reads the documents of the data set.
        filter: Filter of the documents (see `hybridsearch.filters`). Only an index can have one.
        feedback: `hs.RM3(...)`, `hs.Rocchio(...)` or a list of them, as in `HybridSearch.search`. Only an index can
            have it.

    >>> import hybridsearch as hs
    >>> runs = {"bm25": {"q1": hs.Ranking.from_scores({"a": 2.0})}, "dense": {"q1": hs.Ranking.from_scores({"b": 0.5})}}
    >>> Pipeline(runs, fusion=hs.ScoreFusion("minmax")).resolve("minmax", top_k=10).description
    "bm25 + dense, ScoreFusion(normalization='minmax'), 100 candidates"
    """

    source: HybridSearch | Mapping[str, Run]
    retrievers: Collection[str] | None = None
    fusion: Fusion | str | Path | None = None
    candidates: int | None = None
    reranker: Reranker | Literal["configured"] | None = CONFIGURED
    filter: Mapping[str, Any] | None = None
    feedback: Feedback | Sequence[Feedback] | None = None

    def __repr__(self) -> str:
        runs = not isinstance(self.source, HybridSearch)
        given: dict[str, Any] = {"retrievers": self.retrievers, "fusion": self.fusion, "candidates": self.candidates}
        given |= {"reranker": None if self.reranker == CONFIGURED else self.reranker, "filter": self.filter}
        given["feedback"] = self.feedback
        set_here = [f"{name}={value!r:.200}" for name, value in given.items() if value is not None]
        source = f"runs {', '.join(map(repr, self.source))}" if runs else repr(self.source)  # type: ignore[arg-type]
        return f"Pipeline({', '.join([source, *set_here])})"

    def resolve(self, name: str, top_k: int) -> SystemPlan:
        """Check all arguments and fill in the defaults.

        Args:
            name: Name of the system, for messages and tables.
            top_k: Number of documents that the system returns.

        Raises:
            InvalidArgumentError: An argument is not usable, such as a retriever that the source does not have.
        """
        self._check_tuned()
        if isinstance(self.source, HybridSearch):
            plan = self.source.plan(
                top_k,
                filter=self.filter,
                retrievers=self.retrievers,
                candidates=self.candidates,
                fusion=self.fusion,
                reranker=self.reranker,
                feedback=self.feedback,
            )
            names, fusion, depth, fed_back = plan.retrievers, plan.fusion, plan.depth, plan.feedback
            return SystemPlan(
                name, self.source, names, fusion, depth, plan.reranker, plan.filter, top_k, feedback=fed_back
            )
        return self._resolve_runs(name, top_k)

    def _check_tuned(self) -> None:
        """Refuse a file of `hs.tune` if retrievers are missing that it was tuned with."""
        if self.retrievers is None or self.fusion is None or isinstance(self.fusion, Fusion):
            return
        weights = read_fusion(self.fusion, None)[0].weights or {}
        asked = arguments.names(self.retrievers)
        left_out = [name for name, weight in weights.items() if weight > 0 and name not in asked]
        if left_out:
            raise InvalidArgumentError(
                f"{self.fusion} was tuned with {', '.join(map(repr, left_out))} too, but only "
                f"{', '.join(map(repr, asked))} is asked. Ask all retrievers that it was tuned with, or use another "
                "fusion."
            )

    def _resolve_runs(self, name: str, top_k: int) -> SystemPlan:
        if not isinstance(self.source, Mapping) or not self.source:
            raise InvalidArgumentError(
                f"The source of system {name!r} must be a HybridSearch or runs by retriever name, not "
                f"{self.source!r:.80}."
            )
        if self.filter is not None:
            raise InvalidArgumentError(
                f"System {name!r} has runs as its source, and runs cannot be filtered: leave out filter."
            )
        if self.feedback is not None:
            raise InvalidArgumentError(
                f"System {name!r} has runs as its source, and runs cannot be searched again: leave out feedback."
            )
        asked = list(self.source) if self.retrievers is None else arguments.names(self.retrievers)
        fusion, candidates = read_fusion(RRF() if self.fusion is None else self.fusion, self.candidates)
        if candidates is not None:
            called, sentence = f"The candidates of system {name!r}", "{name} are {allowed}, not {value}."
            candidates = arguments.whole_number(called, candidates, sentence=sentence)
        for one in [*asked, *(fusion.weights or ())]:
            if one not in self.source:
                raise InvalidArgumentError(
                    f"System {name!r} names {one!r}, which is not one of its runs: {', '.join(map(repr, self.source))}."
                )
        names = tuple(one for one in asked if fusion.weight(one) > 0)
        if not names:
            raise InvalidArgumentError(
                f"System {name!r} has no run with a weight above 0: give at least one such weight."
            )
        runs, ties = _read_runs({one: self.source[one] for one in names})
        reranker = None if self.reranker in (None, CONFIGURED) else check_reranker(self.reranker)
        depth = max(top_k, 100 if candidates is None else candidates)
        return SystemPlan(name, runs, names, fusion, depth, reranker, None, top_k, notes=ties)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SystemPlan:
    """A system with all its arguments checked and filled in.

    Attributes:
        name: Name of the system.
        source: Index, or rankings by retriever name and query id.
        retrievers: Names of the retrievers that are asked. Each has a weight above 0. Empty for a single run.
        fusion: Fusion that merges the rankings.
        depth: Number of documents that are read from each retriever.
        reranker: Reranker. None for none.
        filter: Filter of the documents. None for none.
        top_k: Number of documents that the system returns.
        oracle: Whether the reranker also gets the relevant documents that retrieval missed.
        file: Path of the run file of a single run. "" for rankings from memory.
        notes: A sentence for each run file with equal scores, or with ranks that contradict the scores.
        feedback: Feedback by retriever name.
    """

    name: str
    source: HybridSearch | Mapping[str, Mapping[str, Ranking]]
    retrievers: tuple[str, ...]
    fusion: Fusion
    depth: int
    reranker: Reranker | None
    filter: Filter | None
    top_k: int
    oracle: bool = False
    file: str = ""
    notes: tuple[str, ...] = ()
    feedback: Mapping[str, Planned] = field(default_factory=dict)

    def asks(self, search: HybridSearch, names: Collection[str] | None = None, depth: int | None = None) -> Plan:
        """How the index `search` is asked. Every retriever must answer, also an optional one.

        Args:
            search: Index of the system.
            names: Retrievers to ask. None asks the retrievers of the system.
            depth: Number of documents to read from each retriever. None takes the number of the system.
        """
        plan = search.plan(
            1,
            filter=self.filter,
            retrievers=self.retrievers if names is None else names,
            candidates=self.depth if depth is None else depth,
            fusion=self.fusion,
            reranker=self.reranker,
        )
        feedback = {name: of for name, of in self.feedback.items() if name in plan.retrievers}
        return replace(plan, optional=(), timeout={}, feedback=feedback)

    def feedback_of(self, name: str) -> str:
        """The feedback of a retriever as text. "" for none."""
        return repr(self.feedback[name].method) if name in self.feedback else ""

    @property
    def kind(self) -> Kind:
        """The kind of the system (see `Kind`)."""
        if self.oracle:
            return "oracle-positives"
        if self.reranker is not None:
            return "reranked"
        kinds: tuple[Kind, ...] = ("run", "single", "fused")
        return kinds[min(len(self.retrievers), 2)]

    @property
    def description(self) -> str:
        """A text that names the parts of the system, for people."""
        if not self.retrievers:
            return f"run file {self.file}" if self.file else "rankings"
        parts = [" + ".join(self.retrievers)]
        if len(self.retrievers) == 1 and isinstance(self.source, HybridSearch):
            parts = [repr(self.source.retrievers[self.retrievers[0]])]
        parts += dict.fromkeys(repr(of.method) for of in self.feedback.values())
        if len(self.retrievers) > 1:
            parts += [repr(self.fusion), f"{self.depth} candidates"]
        if self.reranker is not None:
            parts.append(repr(self.reranker))
        return ", ".join(parts) + (", with missed relevant documents" if self.oracle else "")


def _read_runs(runs: Mapping[str, Run]) -> tuple[dict[str, Mapping[str, Ranking]], tuple[str, ...]]:
    """The rankings of each run by query id, and notes on files with equal scores or contradicting ranks."""
    read: dict[str, Mapping[str, Ranking]] = {}
    notes = []
    for name, run in runs.items():
        if isinstance(run, str | Path):
            read[name], ties, upside_down = read_trec(run)
            if ties:
                hits = sum(map(len, read[name].values()))
                notes.append(
                    f"{run}: {ties:,} of {hits:,} hits have the same score as another hit of their query. They are "
                    "ordered as trec_eval orders them (id, descending), and not by the ranks in the file."
                )
            if upside_down:
                notes.append(
                    f"{run}: in {upside_down:,} of {len(read[name]):,} queries the first rank in the file has a lower "
                    "score than the last rank. The highest score is taken as the best, as in trec_eval. If the scores "
                    "are distances, write them as negative numbers."
                )
        elif isinstance(run, Mapping) and all(isinstance(ranking, Ranking) for ranking in run.values()):
            read[name] = run
        else:
            raise InvalidArgumentError(
                f"Run {name!r} must be a TREC run file or rankings by query id, not {run!r:.80}."
            )
    return read, tuple(notes)


def make_plan(name: str, system: HybridSearch | Pipeline | Run, top_k: int) -> SystemPlan:
    """The plan of a system, in any form that `compare` takes."""
    if isinstance(system, HybridSearch):
        system = Pipeline(system)
    if isinstance(system, Pipeline):
        return system.resolve(name, top_k)
    if not isinstance(system, str | Path | Mapping):
        raise InvalidArgumentError(
            f"System {name!r} must be a HybridSearch, a Pipeline or a run (a TREC file, or rankings by query id), "
            f"not {system!r:.80}."
        )
    if isinstance(system, str | Path) and ("://" in str(system) or Path(system).is_dir()):
        raise InvalidArgumentError(
            f"System {name!r} is {str(system)!r}, which is no run file: to measure an index, give "
            f"hs.open({str(system)!r})."
        )
    file = "" if isinstance(system, Mapping) else str(system)
    runs, ties = _read_runs({name: system})
    return SystemPlan(name, runs, (), RRF(), top_k, None, None, top_k, file=file, notes=ties)


def check_dataset(dataset: object) -> None:
    """Raises InvalidArgumentError if `dataset` is not one `Dataset`, for example if it is a name or several sets."""
    if not hasattr(dataset, "qrels"):
        several = " Use the values of this mapping one by one." if isinstance(dataset, Mapping) else ""
        raise InvalidArgumentError(
            f"The data set must be a Dataset, from hs.load_dataset(name) or Dataset.from_files, not {dataset!r:.80}."
            f"{several}"
        )


def check_sources(plans: Iterable[SystemPlan], qrels: Mapping[str, Mapping[str, int]], dataset: str) -> None:
    """Raises InvalidArgumentError if a system of `plans` is of another data set.

    It is of another one if a run has none of the queries, or an index has none of the first judged documents.
    """
    queries, judged = list(qrels), list(dict.fromkeys(id for grades in qrels.values() for id in grades))[:_LOOKED_UP]
    checked: list[HybridSearch] = []
    for plan in plans:
        if isinstance(plan.source, HybridSearch):
            if plan.source not in checked and not any(plan.source.get(judged)):
                raise InvalidArgumentError(
                    f"The index of system {plan.name!r} has none of the documents that are judged in the data set "
                    f"{dataset!r}, such as {judged[0]!r}. It holds other documents, or the same with other ids."
                )
            checked.append(plan.source)
            continue
        for name, run in plan.source.items():
            if not run:
                raise InvalidArgumentError(f"Run {name!r} has no hits: check that it was written completely.")
            if not any(query in run for query in queries):
                raise InvalidArgumentError(
                    f"Run {name!r} has no query of the data set {dataset!r}. The run has query ids such as "
                    f"{next(iter(run))!r}, and the data set has query ids such as {next(iter(queries))!r}."
                )
