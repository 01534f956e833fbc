"""The report of a training run: a verdict in one line, a summary, and a section of the model card."""

from __future__ import annotations

import datetime as dt
import json
import math
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.formats import duration
from hybridsearch.evaluation.results import ALPHA, Sparsity, Versus
from hybridsearch.messages import number_of, redacted_command
from hybridsearch.training.libraries import versions_of
from hybridsearch.training.measure.comparing import Expansion
from hybridsearch.training.runs.record import History
from hybridsearch.training.settings import ModelKind

_PACKAGES = ("hybridsearch", "sentence-transformers", "transformers", "torch", "datasets", "accelerate", "peft")
_START, _END = "<!-- report of hybridsearch -->", "<!-- end of the report of hybridsearch -->"
_TOLERANCE = 0.1  # share of a target by which it may be missed
_DENSER = 1.5  # factor of active dimensions that is told in the first line


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of a training run.

    Its text form is the `summary`.

    Attributes:
        kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        base: Name of the model before training.
        data: Sentences about each data set: the number of rows, their kind, the loss and the reason for it.
        settings: Settings of the run, ready for JSON: `TrainingSettings.to_dict()` and the other arguments.
        history: Course of the training.
        comparison: Result of `compare_models`, or None without test queries.
        figures: Result of `compare_figures`.
        shared: Number of questions that the evaluators of `figures` share with dev, which chose the checkpoint.
        sparsity: Result of `compare_sparsity`. Empty for models that are not sparse.
        sparsity_on: Texts that `sparsity` was measured on, or "" for the test set.
        targets: Active dimensions that were asked for, by side: "document" and "query".
        expansions: Result of `changed_expansions`.
        command: Command that ran. By default, the command of this process.
        created: Time of the report in ISO format, UTC.
    """

    kind: ModelKind
    base: str
    data: Sequence[str]
    settings: Mapping[str, Any]
    history: History = field(default_factory=History)
    comparison: Comparison | None = None
    figures: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    shared: int = 0
    sparsity: Mapping[str, Sparsity] = field(default_factory=dict)
    sparsity_on: str = ""
    targets: Mapping[str, int] = field(default_factory=dict)
    expansions: Sequence[Expansion] = ()
    command: str = field(default_factory=lambda: _command(sys.argv))
    created: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    @property
    def verdict(self) -> str:
        """One line: whether the model is better or worse, by how much, and what else changed.

        The test queries decide. Without test queries, the first figure of an evaluator decides, or else the figure of
        dev. These have no values for single queries and therefore no interval. Their words are "Higher" and "LOWER".
        """
        return "; ".join([self._judgement, *self._costs]) + "."

    @property
    def _judgement(self) -> str:
        if self.comparison is None:
            return self._without_test
        baseline = self.comparison.baseline
        if baseline == "after":
            mean = self.comparison["after"].means[self.comparison.main].mean
            return f"Not compared: {self.comparison.main} on {self.comparison.dataset.name} is {mean:.4f}"
        against = "" if baseline == "before" else f", against {baseline} alone"
        return f"{_judged(self.comparison, 'after', baseline)}{against}"

    @property
    def _without_test(self) -> str:
        start, best = self.history.start, self.history.best
        name, (before, after) = next(iter(self.figures.items()), ("", (None, 0.0)))
        if before is not None:
            shared = f" (dev, which chose the checkpoint, has {self.shared:,} of the same questions)"
            return f"{_changed(name, before, after)}, by an evaluator{shared * bool(self.shared)}, without an interval"
        if start is not None and best is not None:
            name = next(iter(best.measures))
            said = _changed(name, start.measures[name], best.measures[name])
            return f"{said}, on dev. Dev chose the checkpoint, so this is too favourable. There were no test queries"
        if name:
            return f"Not compared: {name} is {after:.4f}"
        return "Not measured: no queries with judgements were held out, so it is not known whether training helped"

    @property
    def _costs(self) -> Iterator[str]:
        """What else changed: other measures that fell, and the sparsity."""
        if self.comparison is not None and self.comparison.baseline != "after":
            baseline = self.comparison.baseline
            means = {name: self.comparison[name].means for name in ("after", baseline)}
            worse = _versus(self.comparison, "after", baseline, self.comparison.main).difference.mean < 0
            for measure in () if worse else self.comparison.measures:
                versus = _versus(self.comparison, "after", baseline, measure)
                if versus.difference.mean < 0 and _is_sure(versus):
                    was, now = means[baseline][measure].mean, means["after"][measure].mean
                    yield f"{measure} FELL from {was:.4f} to {now:.4f} (p = {versus.p_value:.2g})"
        if {"before", "after"} <= self.sparsity.keys():
            before, after = self.sparsity["before"], self.sparsity["after"]
            for side, old, new in (
                ("document", before.documents_mean, after.documents_mean),
                ("query", before.queries_mean, after.queries_mean),
            ):
                if old and not 1 / _DENSER < new / old < _DENSER:
                    yield f"a {side} has {new:.0f} active dimensions instead of {old:.0f}"

    @property
    def summary(self) -> str:
        """The verdict and a few lines about other retrievers, evaluators, sparsity, time and data."""
        lines = [self.verdict]
        if self.comparison is not None:
            names = self.comparison.names
            for name in (name for name in names if name.startswith("after + ")):
                beside = name.removeprefix("after + ")
                other = f"before + {beside}" if f"before + {beside}" in names else beside
                lines.append(f"With {beside}: {_judged(self.comparison, name, other)}.")
        for name, (was, now) in self.figures.items():
            lines.append(f"{name}: {'none' if was is None else f'{was:.4f}'} before, {now:.4f} after.")
        on = f" on {self.sparsity_on}" if self.sparsity_on else ""
        lines.extend(
            f"Active dimensions {name}{on}: {one.documents_mean:.0f} a document, {one.queries_mean:.0f} a query, "
            f"FLOPS {one.flops:.2f}."
            for name, one in self.sparsity.items()
        )
        if reached := self.sparsity.get("after"):
            means = {"document": reached.documents_mean, "query": reached.queries_mean}
            lines.extend(_aimed(side, target, means[side]) for side, target in self.targets.items())
        lines.append(f"Trained for {duration(self.history.seconds)} from {self.base}. {self.history.course}")
        return "\n".join([*lines, *self.data])

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary, ready for JSON."""
        from hybridsearch.evaluation.plain import to_plain

        return {
            "verdict": self.verdict,
            "kind": self.kind,
            "base": self.base,
            "data": list(self.data),
            "settings": dict(self.settings),
            "history": self.history.to_dict(),
            "comparison": None if self.comparison is None else without_rankings(self.comparison),
            "figures": {name: {"before": was, "after": now} for name, (was, now) in self.figures.items()},
            "shared": self.shared,
            "sparsity_on": self.sparsity_on,
            "sparsity": {name: to_plain(one) for name, one in self.sparsity.items()},
            "targets": dict(self.targets),
            "expansions": [to_plain(one) for one in self.expansions],
            "command": self.command,
            "created": self.created,
            "versions": versions(),
        }

    def to_markdown(self) -> str:
        """The whole report as Markdown."""
        seconds, settings = duration(self.history.seconds), json.dumps(dict(self.settings), indent=2, default=str)
        parts = [*self.summary.split("\n", 1)[:1], "\n".join(f"* {line}" for line in self.summary.splitlines()[1:])]
        if self.comparison is not None:
            names = " and ".join(name for name in ("before", "after") if name in self.comparison.names)
            parts += [
                f"### {names.capitalize()} on {self.comparison.dataset.name}",
                self.comparison.to_markdown().strip(),
            ]
        if self.sparsity:
            on = f" on {self.sparsity_on}" if self.sparsity_on else ""
            parts += [f"### Sparsity{on}", _sparsity_table(self.sparsity)]
        if self.expansions:
            parts += ["### Expansions that changed most", "\n".join(f"* {one}" for one in self.expansions)]
        if self.history.evaluations:
            parts += ["### During training", _history_table(self.history)]
        used = ", ".join(f"{name} {version}" for name, version in versions().items())
        parts += [
            "### How to repeat this run",
            f"```\n{self.command}\n```",
            f"Seed {self.settings.get('seed', 0)}; {seconds} on {platform.machine()}; {used}.",
            f"<details><summary>Settings</summary>\n\n```json\n{settings}\n```\n\n</details>",
        ]
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        return self.summary


def write_report(report: Report, folder: str | Path) -> None:
    """Write report.json and report.md, and put the report into README.md, the model card of sentence-transformers.

    A second report replaces the first report in the model card.

    Args:
        report: Report of the run.
        folder: Folder of the model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(
        json.dumps(report.to_dict(), indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )
    (folder / "report.md").write_text(f"# Training report\n\n{report.to_markdown()}", encoding="utf-8")
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    card.write_text(_with_section(text, report.to_markdown()), encoding="utf-8")


def without_rankings(comparison: Comparison) -> dict[str, Any]:
    """A comparison as a dictionary, ready for JSON, without the documents that each system found for each query."""
    systems = tuple(replace(system, rankings={}) for system in comparison.systems)
    return replace(comparison, systems=systems).to_dict()


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that training needs."""
    return {"Python": platform.python_version(), **versions_of(_PACKAGES)}


def _judged(comparison: Comparison, system: str, other: str) -> str:
    """The words of one comparison, such as "Better: nDCG@10 on scifact from .645 to .722".

    It is a single planned comparison, so the p-value is not corrected.
    """
    measure, dataset = comparison.main, comparison.dataset
    means = {one.name: one.means[measure].mean for one in comparison.systems}
    versus = _versus(comparison, system, other, measure)
    difference = versus.difference
    if versus.same:
        when = "before and after" if other.startswith("before") else "after training"
        return f"No different: {measure} on {dataset.name} is {means[system]:.4f} {when}"
    sure = _is_sure(versus)
    word = "Better" if sure else "Not clearly better"
    if difference.mean == 0:
        word = "Not better"
    elif difference.mean < 0:
        word = "WORSE" if sure else "WORSE, perhaps by chance"
    return (
        f"{word}: {measure} on {dataset.name} from {means[other]:.4f} to {means[system]:.4f} "
        f"({difference.mean:+.4f}, {comparison.level:.0%} interval {difference.low:+.4f} to {difference.high:+.4f}, "
        f"p = {versus.p_value:.2g}{_disagreement(versus)}, {number_of(dataset.queries, 'query', 'queries')})"
    )


def _is_sure(versus: Versus) -> bool:
    """Whether the test and the interval both exclude chance. On few queries they may disagree."""
    return versus.p_value < ALPHA and _excludes_zero(versus)


def _excludes_zero(versus: Versus) -> bool:
    return not versus.difference.low <= 0 <= versus.difference.high


def _disagreement(versus: Versus) -> str:
    if (versus.p_value < ALPHA) == _excludes_zero(versus):
        return ""
    return ", but p and the interval disagree, because there are few queries or differences"


def _changed(name: str, before: float, after: float) -> str:
    """The words of a figure for which larger is better, such as "LOWER: sts Spearman from 0.93 to 0.12"."""
    if math.isnan(before) or math.isnan(after):
        return f"Not compared: {name} is {before:.4f} before and {after:.4f} after"
    if before == after:
        return f"No different: {name} is {after:.4f} before and after"
    return f"{'Higher' if after > before else 'LOWER'}: {name} from {before:.4f} to {after:.4f}"


def _aimed(side: str, target: int, reached: float) -> str:
    off = reached / target - 1
    if abs(off) <= _TOLERANCE:
        return f"The target of {target} active dimensions a {side} was reached: {reached:.0f}."
    missed = f"{abs(off):.0%} {'above' if off > 0 else 'below'}"
    return f"The target of {target} active dimensions a {side} was MISSED: {reached:.0f}, which is {missed}."


def _versus(comparison: Comparison, system: str, other: str, measure: str) -> Versus:
    from hybridsearch.evaluation.statistics import bootstrap_interval, paired_test, wins_losses_ties

    scores = [comparison[name].scores[measure] for name in (system, other)]
    ours, theirs = (np.array([of[query] for query in scores[0]]) for of in scores)
    p_value = paired_test(ours, theirs, comparison.test)
    difference = bootstrap_interval(ours - theirs, comparison.level)
    return Versus(difference, p_value, p_value, *wins_losses_ties(ours, theirs))


# Writing


def _sparsity_table(sparsity: Mapping[str, Sparsity]) -> str:
    rows = [
        f"| {name} | {one.documents_mean:.1f} | {one.queries_mean:.1f} | {one.flops:.2f} |"
        for name, one in sparsity.items()
    ]
    head = "|  | active dimensions of a document | of a query | FLOPS |"
    return "\n".join([head, "|---|---:|---:|---:|", *rows])


def _history_table(history: History) -> str:
    table: list[dict[str, Any]] = [{"step": one.step, **one.measures} for one in history.evaluations]
    names = list(dict.fromkeys(name for row in table for name in row))

    def cell(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)

    rows = ["| " + " | ".join(cell(row.get(name)) for name in names) + " |" for row in table]
    return "\n".join(["| " + " | ".join(names) + " |", "|" + "---:|" * len(names), *rows])


def _with_section(card: str, report: str) -> str:
    """The model card with the report after its front matter and title. It replaces an earlier report."""
    section = f"{_START}\n\n## What training changed\n\n{report}\n{_END}\n\n"
    if _START in card and _END in card:
        head, _, rest = card.partition(_START)
        return head + section + rest.partition(_END)[2].lstrip("\n")
    if not card:
        return f"# A model trained by hybridsearch\n\n{section}"
    front = re.match(r"---\n.*?\n---\n+", card, flags=re.DOTALL)
    place = front.end() if front else 0
    if title := re.compile(r"# .*\n+").match(card, place):
        place = title.end()
    return card[:place] + section + card[place:]


def _command(arguments: Sequence[str]) -> str:
    """The command as it was typed, without passwords, keys and the folder of the program."""
    if not arguments:
        return ""
    program = Path(arguments[0]).name
    return redacted_command([*(["python"] if program.endswith(".py") else []), program, *arguments[1:]])
