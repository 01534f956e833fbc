"""Choosing: the judged queries go into `compare` and `tune`, and a fusion that they favour goes into use.

Everything is in one folder, so that each worker of the service, and the next start of the service, finds it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridsearch.corpus.files import sync_folder
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.experiment import compare
from hybridsearch.evaluation.judging import Judgements, Rule
from hybridsearch.evaluation.pipeline import SystemPlan, make_plan
from hybridsearch.evaluation.plain import to_plain
from hybridsearch.evaluation.report import page
from hybridsearch.evaluation.results import SystemRecord, Versus
from hybridsearch.evaluation.spec import default_systems, parse_systems
from hybridsearch.evaluation.tuned import Tuned, load_tuned
from hybridsearch.evaluation.tuning import tune
from hybridsearch.fusion import Fusion, make_fusion
from hybridsearch.fusion.files import TUNED
from hybridsearch.messages import number_of
from hybridsearch.search import HybridSearch
from hybridsearch.service.chosen import IN_USE

ENOUGH = 25
"""Number of judged queries below which the page warns that there are few."""

_FOLDS = 5
_TIMED = 20  # queries whose time is measured
_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")


@dataclass(frozen=True, slots=True)
class Settlement:
    """Which grades count.

    Attributes:
        judges: Names of the judges whose grades count. None for all people.
        rule: How different grades are settled.
        decider: Name of the judge with the last word. None for nobody.
    """

    judges: Collection[str] | None = None
    rule: Rule = "lower-median"
    decider: str | None = None

    def dataset(self, judgements: Judgements, name: str) -> Dataset:
        """The data set of the finished queries."""
        return judgements.dataset(name, judges=self.judges, rule=self.rule, decider=self.decider)


class Chooser:
    """The results of choosing for one index, and the fusion that is in use.

    Args:
        folder: Folder that keeps both.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results = folder / "results"

    @property
    def in_use(self) -> Path:
        """Path of the fusion that is in use. There is no such file if the index uses its own fusion."""
        return self._folder / IN_USE

    def run(self, judgements: Judgements, search: HybridSearch, name: str, settled: Settlement) -> None:
        """Compare the usual systems on the judged queries, and tune a fusion. It replaces the earlier results.

        Args:
            judgements: The grades.
            search: The index.
            name: Name of the index, for tables.
            settled: Which grades count.

        Raises:
            InvalidArgumentError: No query is finished.
        """
        dataset = settled.dataset(judgements, name)
        texts = default_systems(list(search.retrievers), search.reranker)
        systems = parse_systems(texts, search, search.reranker)
        comparison = compare(systems, dataset, measures=_MEASURES, latency_queries=_TIMED)
        named = [replace(one, description=without_folders(one.description)) for one in comparison.systems]
        comparison = replace(comparison, systems=tuple(named))
        folds = min(_FOLDS, len(dataset.queries) // 2)
        tuned = tune(search, dataset, folds=folds) if len(search.retrievers) > 1 and folds > 1 else None
        notes = [
            *_about_number(dataset, comparison),
            *_about_left_out(judgements, dataset),
            *_about_tuning(search, folds),
            *_about_grades(judgements, search, dataset, settled),
            *_about_unjudged(comparison, dataset),
        ]
        self._results.mkdir(parents=True, exist_ok=True)
        comparison.save(self._results / "comparison.json")
        if tuned is None:
            (self._results / "tuned.json").unlink(missing_ok=True)
        else:
            tuned.save(self._results / "tuned.json")
        plans = [make_plan(name, system, comparison.top_k) for name, system in systems.items()]
        measured = {plan.name: _chosen(plan, list(search.retrievers)) for plan in plans}
        choice = {"report": secrets.token_urlsafe(24), "notes": notes, "systems": measured}
        _write(self._results / "choice.json", choice)

    def result(self) -> dict[str, Any] | None:
        """What was measured, as JSON can hold it. None if nothing was measured yet."""
        choice = self._choice()
        if choice is None:
            return None
        comparison, tuned = Comparison.load(self._results / "comparison.json"), self._tuned()
        main = comparison.main
        return {
            "measure": main,
            "measures": list(comparison.measures),
            "queries": comparison.dataset.queries,
            "judgements": comparison.dataset.judgements,
            "created": comparison.created,
            "problems": [*choice["notes"], *comparison.dataset.problems],
            "report": choice["report"],
            "systems": [_row(one, main) for one in comparison.systems],
            "tuned": None if tuned is None else _tuned_row(tuned),
        }

    def report(self, key: str) -> str | None:
        """The HTML of the report, if `key` is the key of this choice. Else None."""
        choice = self._choice()
        if choice is None or not secrets.compare_digest(choice["report"].encode(), key.encode()):
            return None
        return page.render(Comparison.load(self._results / "comparison.json"))

    def use(self, search: HybridSearch, system: str | None) -> None:
        """Put the fusion of a measured system into use, with its number of candidates: write the file `in_use`.

        Args:
            search: The index.
            system: Name of a measured system. None for the tuned fusion.

        Raises:
            InvalidArgumentError: There is no such system, or it does not fit the index any more.
        """
        tuned, measured = self._tuned(), (self._choice() or {}).get("systems", {})
        if system is None and tuned is not None:
            chosen = tuned.to_dict()
        elif system in measured:
            chosen = measured[system]
        else:
            asked = "tuned fusion" if system is None else f"measured system {system!r:.80}"
            raise InvalidArgumentError(f"There is no {asked}: measure the systems first.")
        search.plan(1, fusion=make_fusion(chosen["fusion"]), candidates=chosen["candidates"])
        _write(self.in_use, chosen)

    def stop_using(self) -> None:
        """Remove the file `in_use`, so that the index uses its own fusion again."""
        self.in_use.unlink(missing_ok=True)

    def _choice(self) -> dict[str, Any] | None:
        path = self._results / "choice.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _tuned(self) -> Tuned | None:
        path = self._results / "tuned.json"
        return load_tuned(path) if path.exists() else None


def without_folders(text: str) -> str:
    """A text without the folders of models, because the page does not show paths of the machine.

    >>> without_folders("Dense('/data/models/minilm') + Dense('owner/name')")
    "Dense('minilm') + Dense('owner/name')"
    """
    return re.sub(r"'(?:[~.]?[/\\\\]|[A-Za-z]:)[^']*[/\\\\]([^'/\\\\]+)'", r"'\1'", text)


def settings_of(fusion: Fusion) -> dict[str, Any]:
    """The settings of a fusion for clients, without the digests of queries and the folders of models.

    >>> settings_of(make_fusion({"type": "judged", "weights": {"bm25": 1.0}, "judge": "Dense('/data/models/minilm')"}))
    {'type': 'judged', 'weights': {'bm25': 1.0}, 'strengths': {}, 'queries': 0, 'judge': "Dense('minilm')"}
    """
    settings = {name: value for name, value in fusion.to_json().items() if name != "tuned_on"}
    return settings | ({"judge": without_folders(settings["judge"])} if "judge" in settings else {})


def _chosen(plan: SystemPlan, retrievers: Sequence[str]) -> dict[str, Any]:
    """The fusion of a measured system and its number of candidates, as a file that `fusion=` takes."""
    weights = {name: plan.fusion.weight(name) if name in plan.retrievers else 0.0 for name in retrievers}
    fusion = make_fusion({**plan.fusion.to_json(), "weights": weights})
    return {"type": TUNED, "fusion": fusion.to_json(), "candidates": plan.depth}


def _row(one: SystemRecord, main: str) -> dict[str, Any]:
    best = one.best_single
    return {
        "name": one.name,
        "description": one.description,
        "kind": one.kind,
        "means": {measure: to_plain(interval) for measure, interval in one.means.items()},
        "milliseconds": None if one.cost is None or one.cost.total_ms is None else one.cost.total_ms.p50,
        "best": None if best is None else best.retriever,
        "gain": None if best is None else _gain(best.versus[main]),
        "warnings": list(one.warnings),
    }


def _gain(versus: Versus) -> dict[str, Any]:
    counts = {"wins": versus.wins, "losses": versus.losses, "ties": versus.ties}
    return {**to_plain(versus.difference), "p": versus.p_adjusted, "significant": versus.significant, **counts}


def _tuned_row(tuned: Tuned) -> dict[str, Any]:
    return {
        "mean": to_plain(tuned.held_out),
        "recommended": tuned.recommended,
        "recommendation": tuned.recommendation,
        "better": tuned.better,
        "fusion": repr(tuned.fusion),
        "candidates": tuned.candidates,
        "rivals": [
            {"name": one.name, "mean": to_plain(one.held_out), "gain": to_plain(one.difference), "p": one.p_value}
            for one in (tuned.best_single, *tuned.untuned)
        ],
    }


def _about_number(dataset: Dataset, comparison: Comparison) -> list[str]:
    """How sure the figures are."""
    count = len(dataset.queries)
    judged = number_of(count, "judged query", "judged queries")
    found = (
        [f"There are only {judged}. Judge {ENOUGH} or more before you trust a difference."] if count < ENOUGH else []
    )
    widths = [
        (of.high - of.low) / 2
        for one in comparison.systems
        if one.best_single is not None and not one.best_single.versus[comparison.main].same
        for of in (one.best_single.versus[comparison.main].difference,)
    ]
    if widths and max(widths) > 0:
        least = f"a difference in {comparison.main} below about {max(widths):.2f}"
        found.append(f"With {judged}, {least} cannot be told from chance.")
    return found


def _about_left_out(judgements: Judgements, dataset: Dataset) -> list[str]:
    empty = sum(not judgements.documents(query) for query in judgements.queries)
    reasons = {
        "no system found a document": empty,
        "documents are not judged yet": dataset.left_out - empty,
    }
    return [
        f"{number_of(count, 'query is', 'queries are')} left out, because {reason}."
        for reason, count in reasons.items()
        if count
    ]


def _about_tuning(search: HybridSearch, folds: int) -> list[str]:
    if len(search.retrievers) < 2:
        return ["The index has one retriever, so there is no fusion to tune."]
    if folds < 2:
        return ["Tuning needs 4 or more judged queries. Its weights stay near equal weights until it has more."]
    return []


def _about_grades(judgements: Judgements, search: HybridSearch, dataset: Dataset, settled: Settlement) -> list[str]:
    """What can mislead about the judges and the grades."""
    found = []
    for name in dict.fromkeys([*(settled.judges or ()), *([settled.decider] if settled.decider else [])]):
        about = judgements.judges[name]
        if search.reranker is not None and about.startswith(repr(search.reranker)):
            found.append(
                f"The judge {name} is the reranker that is compared, so values with the reranker are too good."
            )
        elif about:
            found.append(f"The judge {name} is a program. Check its grades before you trust them.")
    pools = sum(len(judgements.documents(query)) for query in dataset.queries)
    skipped = pools - sum(map(len, dataset.qrels.values()))
    if skipped:
        found.append(f"{number_of(skipped, 'document')} without a grade count as not relevant.")
    return found


def _about_unjudged(comparison: Comparison, dataset: Dataset) -> list[str]:
    """The systems whose first documents are not all in the pools."""
    found = []
    for one in comparison.systems:
        firsts = [(query, id) for query, ranking in one.rankings.items() for id, _ in ranking[:10]]
        unjudged = sum(id not in dataset.qrels[query] for query, id in firsts)
        if unjudged:
            found.append(
                f"{one.name}: {unjudged:,} of its {number_of(len(firsts), 'first document')} have no grade and count "
                "as not relevant. Add this system to the pools to judge them."
            )
    return found


def _write(path: Path, content: Any) -> None:
    """Replace a file of JSON. After a crash there is the old or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)
