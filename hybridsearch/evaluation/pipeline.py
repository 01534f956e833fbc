"""`Pipeline`: how one system answers, from an index or from saved runs; and what that comes to, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hybridsearch import arguments
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.results import Kind
from hybridsearch.filters import Filter
from hybridsearch.fusion import RRF, Fusion, read_fusion
from hybridsearch.ranking import Ranking, read_trec
from hybridsearch.rerank import Reranker
from hybridsearch.retrieval import Plan
from hybridsearch.search import CONFIGURED, HybridSearch

_LOOKED_UP = 1000  # judged documents, of which an index must have one

Run: TypeAlias = Mapping[str, Ranking] | str | Path
"""Rankings by query id, or the TREC run file that holds them."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How one system answers. What is left out is as the source was made.

    Attributes:
        source: an index, or runs by retriever name, to be fused as if an index had given them.
        retrievers: the names to ask; None asks all.
        fusion: None for the index's own, for runs RRF; a path is that of a file of `Fusion.save` or `hs.tune`.
        candidates: how deep each retriever is read; None for the index's own depth, for runs 100.
        reranker: None for none; "configured" for the index's own, for runs none. Over runs it reads the documents in
            the data set's corpus.
        filter: see `hybridsearch.filters`; only of an index.

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

    def __repr__(self) -> str:
        runs = not isinstance(self.source, HybridSearch)
        given: dict[str, Any] = {"retrievers": self.retrievers, "fusion": self.fusion, "candidates": self.candidates}
        given |= {"reranker": None if self.reranker == CONFIGURED else self.reranker, "filter": self.filter}
        set_here = [f"{name}={value!r:.200}" for name, value in given.items() if value is not None]
        source = f"runs {', '.join(map(repr, self.source))}" if runs else repr(self.source)  # type: ignore[arg-type]
        return f"Pipeline({', '.join([source, *set_here])})"

    def resolve(self, name: str, top_k: int) -> SystemPlan:
        """What asking for `top_k` documents comes to, under the name of the system.

        Raises:
            InvalidArgumentError: an argument is not usable, such as a retriever that the source does not have.
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
            )
            names, fusion, depth = plan.retrievers, plan.fusion, plan.depth
            return SystemPlan(name, self.source, names, fusion, depth, plan.reranker, plan.filter, top_k)
        return self._resolve_runs(name, top_k)

    def _check_tuned(self) -> None:
        """A file of `hs.tune` is for the retrievers that it was tuned with; of fewer it would say nothing."""
        if self.retrievers is None or self.fusion is None or isinstance(self.fusion, Fusion):
            return
        weights = read_fusion(self.fusion, None)[0].weights or {}
        asked = arguments.names(self.retrievers)
        left_out = [name for name, weight in weights.items() if weight > 0 and name not in asked]
        if left_out:
            raise InvalidArgumentError(
                f"{self.fusion} was tuned with {', '.join(map(repr, left_out))} too, but only "
                f"{', '.join(map(repr, asked))} is asked: ask all that it was tuned with, or leave it out."
            )

    def _resolve_runs(self, name: str, top_k: int) -> SystemPlan:
        if not isinstance(self.source, Mapping) or not self.source:
            raise InvalidArgumentError(
                f"The source of system {name!r} is a HybridSearch, or runs by retriever name, not {self.source!r:.80}."
            )
        if self.filter is not None:
            raise InvalidArgumentError(f"System {name!r} is made of runs, which cannot be filtered: leave out filter.")
        asked = list(self.source) if self.retrievers is None else arguments.names(self.retrievers)
        fusion, candidates = read_fusion(RRF() if self.fusion is None else self.fusion, self.candidates)
        if candidates is not None:
            called, sentence = f"The candidates of system {name!r}", "{name} are {allowed}, not {value}."
            candidates = arguments.whole_number(called, candidates, sentence=sentence)
        for one in [*asked, *(fusion.weights or ())]:
            if one not in self.source:
                raise InvalidArgumentError(
                    f"System {name!r} names {one!r}, which is not one of its runs {', '.join(map(repr, self.source))}."
                )
        names = tuple(one for one in asked if fusion.weight(one) > 0)
        if not names:
            raise InvalidArgumentError(f"System {name!r} has no run with a weight above 0.")
        runs, ties = _read_runs({one: self.source[one] for one in names})
        reranker = None if isinstance(self.reranker, str) else self.reranker
        depth = max(top_k, 100 if candidates is None else candidates)
        return SystemPlan(name, runs, names, fusion, depth, reranker, None, top_k, notes=ties)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SystemPlan:
    """A system with all its arguments known.

    Attributes:
        source: an index, or rankings by retriever name and query id.
        retrievers: those asked, each with a weight above 0; empty for a run that stands alone.
        depth: how deep each retriever is read.
        top_k: how many documents it returns.
        oracle: whether relevant documents that retrieval missed are put before the reranker.
        file: the path of a run that stands alone, where it was read from one.
        notes: one sentence for each run file with equal scores.
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

    def asks(self, search: HybridSearch, names: Collection[str] | None = None, depth: int | None = None) -> Plan:
        """How its index `search` is asked, by these retrievers (None for all its own) read this deep.

        All of them at once; each answers, or there is an error.
        """
        plan = search.plan(
            1,
            filter=self.filter,
            retrievers=self.retrievers if names is None else names,
            candidates=self.depth if depth is None else depth,
            fusion=self.fusion,
            reranker=self.reranker,
        )
        return replace(plan, optional=(), timeout={})

    @property
    def kind(self) -> Kind:
        if self.oracle:
            return "oracle-positives"
        if self.reranker is not None:
            return "reranked"
        kinds: tuple[Kind, ...] = ("run", "single", "fused")
        return kinds[min(len(self.retrievers), 2)]

    @property
    def description(self) -> str:
        """Of its parts, for people."""
        if not self.retrievers:
            return f"run file {self.file}" if self.file else "rankings"
        parts = [" + ".join(self.retrievers)]
        if len(self.retrievers) == 1 and isinstance(self.source, HybridSearch):
            parts = [repr(self.source.retrievers[self.retrievers[0]])]
        if len(self.retrievers) > 1:
            parts += [repr(self.fusion), f"{self.depth} candidates"]
        if self.reranker is not None:
            parts.append(repr(self.reranker))
        return ", ".join(parts) + (", missed relevant documents put in" if self.oracle else "")


def _read_runs(runs: Mapping[str, Run]) -> tuple[dict[str, Mapping[str, Ranking]], tuple[str, ...]]:
    """The rankings of each run by query id, and sentences on files with equal scores or contrary ranks."""
    read: dict[str, Mapping[str, Ranking]] = {}
    notes = []
    for name, run in runs.items():
        if isinstance(run, str | Path):
            read[name], ties, upside_down = read_trec(run)
            if ties:
                hits = sum(map(len, read[name].values()))
                notes.append(
                    f"{run}: {ties:,} of {hits:,} hits share their score with another hit of their query. They are "
                    "ordered as by trec_eval (id, descending), not by the file's ranks."
                )
            if upside_down:
                notes.append(
                    f"{run}: in {upside_down:,} of {len(read[name]):,} queries the hit with the file's first rank has "
                    "a lower score than the hit with its last rank. The highest score counts as the best, as in "
                    "trec_eval: write distances as negative numbers."
                )
        elif isinstance(run, Mapping) and all(isinstance(ranking, Ranking) for ranking in run.values()):
            read[name] = run
        else:
            raise InvalidArgumentError(f"Run {name!r} is a TREC run file or rankings by query id, not {run!r:.80}.")
    return read, tuple(notes)


def make_plan(name: str, system: HybridSearch | Pipeline | Run, top_k: int) -> SystemPlan:
    """The plan of anything that `compare` takes as a system."""
    if isinstance(system, HybridSearch):
        system = Pipeline(system)
    if isinstance(system, Pipeline):
        return system.resolve(name, top_k)
    if not isinstance(system, str | Path | Mapping):
        raise InvalidArgumentError(
            f"System {name!r} is a HybridSearch, a Pipeline or a run (a TREC file, or rankings by query id), "
            f"not {system!r:.80}."
        )
    file = "" if isinstance(system, Mapping) else str(system)
    runs, ties = _read_runs({name: system})
    return SystemPlan(name, runs, (), RRF(), top_k, None, None, top_k, file=file, notes=ties)


def check_dataset(dataset: object) -> None:
    """Raises InvalidArgumentError if `dataset` is not one data set, but for example a name or several."""
    if not hasattr(dataset, "qrels"):
        several = ", or one after the other of these" if isinstance(dataset, Mapping) else ""
        raise InvalidArgumentError(
            f"The data set is a Dataset, as hs.load_dataset(name) or Dataset.from_files gives it{several}, not "
            f"{dataset!r:.80}."
        )


def check_sources(plans: Iterable[SystemPlan], qrels: Mapping[str, Mapping[str, int]], dataset: str) -> None:
    """Raises InvalidArgumentError where what `plans` ask is of another data set.

    That is a run with none of the queries, or an index with none of the first judged documents.
    """
    queries, judged = list(qrels), list(dict.fromkeys(id for grades in qrels.values() for id in grades))[:_LOOKED_UP]
    checked: list[HybridSearch] = []
    for plan in plans:
        if isinstance(plan.source, HybridSearch):
            if plan.source not in checked and not any(plan.source.get(judged)):
                raise InvalidArgumentError(
                    f"The index of system {plan.name!r} has none of the documents that are judged in the data set "
                    f"{dataset!r}, such as {judged[0]!r}: it is of another collection, or has other ids."
                )
            checked.append(plan.source)
            continue
        for name, run in plan.source.items():
            if not any(query in run for query in queries):
                raise InvalidArgumentError(
                    f"Run {name!r} has no query of the data set {dataset!r}: its query ids are like "
                    f"{next(iter(run), '')!r}, the data set's like {next(iter(queries))!r}."
                )
