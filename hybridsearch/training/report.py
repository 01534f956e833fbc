"""What training gave: before and after on held-out queries, and the model card and report that say it."""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.measures import parse_measures
from hybridsearch.evaluation.results import ALPHA, Comparison, Sparsity, Versus
from hybridsearch.training.record import History, is_main_process
from hybridsearch.training.settings import FAMILIES, ModelKind, TrainingSettings

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator

    from hybridsearch.encoders import Encoder
    from hybridsearch.encoders.sparse import Sparse
    from hybridsearch.evaluation.datasets import Dataset
    from hybridsearch.evaluation.pipeline import Pipeline
    from hybridsearch.search import HybridSearch

MEASURES = ("nDCG@10", "RR@10", "R@100")
"""Of `compare_models`, the one that decides first."""

_PACKAGES = ("hybridsearch", "sentence-transformers", "transformers", "torch", "datasets", "accelerate", "peft")
_START, _END = "<!-- report of hybridsearch -->", "<!-- end of the report of hybridsearch -->"
_SAMPLED = 20_000  # documents whose active dimensions are counted
_TERMS = 6  # shown of each expansion
_TOLERANCE = 0.1  # by how much of a target it may be missed


@dataclass(frozen=True, slots=True)
class Expansion:
    """How the sparse vector of a text changed.

    Attributes:
        text: what was encoded, as a document.
        gained: terms that it has now and had not before, with their weights, heaviest first; no words of the text.
        lost: terms that it had before and has no more, with the weights they had, heaviest first.
    """

    text: str
    gained: tuple[tuple[str, float], ...]
    lost: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        def listed(terms: Sequence[tuple[str, float]]) -> str:
            return ", ".join(f"{term} {weight:.2f}" for term, weight in terms) or "nothing"

        return f'"{_short(self.text)}" gained {listed(self.gained)}; lost {listed(self.lost)}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is to be said about a run; as a text, its `summary`.

    Attributes:
        kind: of the model.
        base: the model that training started from, by name.
        data: one sentence each: what it was, how many rows of which kind, which loss and why.
        settings: JSON-able: `TrainingSettings.to_dict()`, and what else the run was given.
        history: the course of training.
        comparison: of `compare_models`; None where there were no held-out queries.
        figures: of `compare_figures`.
        sparsity: of `compare_sparsity`; empty but for sparse models.
        targets: the active dimensions that were asked for, by side: "document" and "query".
        expansions: of `changed_expansions`.
        command: that ran; this process's by default.
        created: in ISO form, UTC.
    """

    kind: ModelKind
    base: str
    data: Sequence[str]
    settings: Mapping[str, Any]
    history: History = field(default_factory=History)
    comparison: Comparison | None = None
    figures: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    sparsity: Mapping[str, Sparsity] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    expansions: Sequence[Expansion] = ()
    command: str = field(default_factory=lambda: _command(sys.argv))
    created: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    @property
    def verdict(self) -> str:
        """One line: better, not better or worse, and by how much.

        By the test queries; where there are none by the first figure of an evaluator, else by that of dev.
        """
        if self.comparison is None:
            return self._verdict_without_test
        baseline = self.comparison.baseline
        if baseline == "after":
            mean = self.comparison["after"].means[self.comparison.main].mean
            return f"Not compared: {self.comparison.main} on {self.comparison.dataset.name} is {mean:.4f}."
        against = "" if baseline == "before" else f", against {baseline} alone"
        return f"{_judged(self.comparison, 'after', baseline)}{against}."

    @property
    def _verdict_without_test(self) -> str:
        start, best = self.history.start, self.history.best
        name, (before, after) = next(iter(self.figures.items()), ("", (None, 0.0)))
        if before is not None:
            return f"{_changed(name, before, after)}, by an evaluator; there were no held-out queries with judgements."
        if start is not None and best is not None:
            name = next(iter(best.measures))
            said = _changed(name, start.measures[name], best.measures[name])
            return f"{said}, on dev, which also chose the checkpoint; there were no other held-out queries."
        if name:
            return f"Not compared: {name} is {after:.4f}."
        return "Not measured: there were no held-out queries with judgements, so nobody knows whether it helped."

    @property
    def summary(self) -> str:
        """The verdict, then a few lines: with other retrievers, by evaluators, sparsity, time and data."""
        lines = [self.verdict]
        if self.comparison is not None:
            names = self.comparison.names
            for name in (name for name in names if name.startswith("after + ")):
                beside = name.removeprefix("after + ")
                other = f"before + {beside}" if f"before + {beside}" in names else beside
                lines.append(f"With {beside}: {_judged(self.comparison, name, other)}.")
        for name, (was, now) in self.figures.items():
            lines.append(f"{name}: {'none' if was is None else f'{was:.4f}'} before, {now:.4f} after.")
        lines.extend(
            f"Active dimensions {name}: {one.documents_mean:.0f} a document, {one.queries_mean:.0f} a query, "
            f"FLOPS {one.flops:.2f}."
            for name, one in self.sparsity.items()
        )
        if reached := self.sparsity.get("after"):
            means = {"document": reached.documents_mean, "query": reached.queries_mean}
            lines.extend(_aimed(side, target, means[side]) for side, target in self.targets.items())
        lines.append(f"Trained for {_duration(self.history.seconds)} from {self.base}. {self.history.course}")
        return "\n".join([*lines, *self.data])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict."""
        from hybridsearch.evaluation.plain import to_plain

        comparison = None
        if self.comparison is not None:
            systems = tuple(replace(system, rankings={}) for system in self.comparison.systems)
            comparison = replace(self.comparison, systems=systems).to_dict()
        return {
            "verdict": self.verdict,
            "kind": self.kind,
            "base": self.base,
            "data": list(self.data),
            "settings": dict(self.settings),
            "history": self.history.to_dict(),
            "comparison": comparison,
            "figures": {name: {"before": was, "after": now} for name, (was, now) in self.figures.items()},
            "sparsity": {name: to_plain(one) for name, one in self.sparsity.items()},
            "targets": dict(self.targets),
            "expansions": [to_plain(one) for one in self.expansions],
            "command": self.command,
            "created": self.created,
            "versions": versions(),
        }

    def to_markdown(self) -> str:
        """The whole report."""
        seconds, settings = _duration(self.history.seconds), json.dumps(dict(self.settings), indent=2, default=str)
        parts = [*self.summary.split("\n", 1)[:1], "\n".join(f"* {line}" for line in self.summary.splitlines()[1:])]
        if self.comparison is not None:
            parts += [f"### Before and after on {self.comparison.dataset.name}", self.comparison.to_markdown().strip()]
        if self.sparsity:
            parts += ["### Sparsity", _sparsity_table(self.sparsity)]
        if self.expansions:
            parts += ["### Expansions that changed most", "\n".join(f"* {one}" for one in self.expansions)]
        if self.history.evaluations:
            parts += ["### While training", _history_table(self.history)]
        used = ", ".join(f"{name} {version}" for name, version in versions().items())
        parts += [
            "### How to get it again",
            f"```\n{self.command}\n```",
            f"Seed {self.settings.get('seed', 0)}; {seconds} on {platform.machine()}; {used}.",
            f"<details><summary>Settings</summary>\n\n```json\n{settings}\n```\n\n</details>",
        ]
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        return self.summary


def write_report(report: Report, folder: str | Path) -> None:
    """Write report.json and report.md, and put the report into README.md, the model card that is there already.

    A second report takes the place of the first one in the card. The card is the one that sentence-transformers writes
    when it saves a model.
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


def compare_all(
    before: Any,
    after: str | Path,
    kind: ModelKind,
    test: Dataset | None,
    evaluator: BaseEvaluator | None,
    settings: TrainingSettings,
    **options: Any,
) -> dict[str, Any]:
    """What a report says of any kind of model: `comparison` on the test set and `figures` of the evaluator.

    The test set is searched by the settings' measure first, where it is one of retrieval; `options` are further ones
    of `compare_models`. Of several processes the first one compares.
    """
    if not is_main_process():
        return {}
    comparison = None
    if test is not None:
        measures = list(MEASURES)
        with suppress(InvalidArgumentError):  # such as Spearman, which chose among rows
            measures = list(dict.fromkeys([str(parse_measures(settings.measure)[0]), *MEASURES]))
        comparison = compare_models(before, after, test, kind, measures=measures, **options)
    return {"comparison": comparison, "figures": compare_figures(before, after, kind, evaluator)}


def compare_models(
    before: Any,
    after: Any,
    dataset: Dataset,
    kind: ModelKind,
    *,
    beside: Mapping[str, Encoder] | None = None,
    retriever: HybridSearch | Pipeline | None = None,
    measures: Sequence[str] = MEASURES,
    show_progress_bar: bool | None = None,
) -> Comparison:
    """What training changed, on queries that it did not see.

    Of a dense or sparse model the systems are "before", "after", those of `beside`, and "before + bm25" and
    "after + bm25", the same with all of `beside` by the mean of min-max scores. Of a reranker they are "retrieval",
    what `retriever` finds, and "before" and "after", the same with its first 50 documents reranked. The first is the
    baseline.

    Args:
        before, after: folders, hub names or loaded models. `before` may be None: for a reranker whose base has no
            trained head, and for a sparse model whose base is none; then "after" stands beside the others.
        dataset: held-out queries and the corpus they are about.
        kind: of both models.
        beside: by name, other encoders; None for BM25. Not for a reranker.
        retriever: for a reranker; None for BM25.
        measures: the first decides.
        show_progress_bar: None shows it in a terminal.

    Raises:
        InvalidArgumentError: the data set has no corpus, or a name in `beside` is taken.
    """
    import hybridsearch as hs

    if dataset.corpus is None:
        raise InvalidArgumentError(f"The data set {dataset.name!r} has no corpus, so nothing can be searched.")
    models = {name: model for name, model in (("before", before), ("after", after)) if model is not None}
    options: dict[str, Any] = {"measures": measures, "latency_queries": 0, "show_progress_bar": show_progress_bar}
    if kind == "reranker":
        return _compare_rerankers(models, dataset, retriever, options)
    others = {"bm25": hs.BM25()} if beside is None else dict(beside)
    if taken := [name for name in others if name in ("before", "after") or "+" in name]:
        raise InvalidArgumentError(f"A retriever beside the model cannot have the name {taken[0]!r}: rename it.")
    encode = hs.Dense if kind == "dense" else hs.Sparse
    encoders: dict[str, Encoder] = {**{name: encode(model) for name, model in models.items()}, **others}
    with hs.HybridSearch(encoders) as search:
        search.index(dataset.corpus, show_progress_bar=show_progress_bar)
        asked = {name: [name] for name in encoders}
        if len(others) > 1:
            asked[" + ".join(others)] = list(others)
        asked |= {" + ".join([name, *others]): [name, *others] for name in models if others}
        fusion = hs.ScoreFusion("minmax")
        systems = {name: hs.Pipeline(search, names, fusion) for name, names in asked.items()}
        baseline = "before" if before is not None else next(iter(others), "after")
        return hs.compare(systems, dataset, baseline=baseline, **options)


def compare_figures(
    before: Any, after: Any, kind: ModelKind, evaluator: BaseEvaluator | None
) -> dict[str, tuple[float | None, float]]:
    """Each figure of an evaluator, before and after; the one that decides is the first.

    Args:
        before, after: as in `compare_models`; before is None in the answer where there is no such model.
        kind: of both models.
        evaluator: of `hybridsearch.training.evaluators.build_evaluator`; None gives nothing.
    """
    if evaluator is None:
        return {}
    was, now = (
        {} if model is None else dict(evaluator(LazyModel(model, FAMILIES[kind]).get())) for model in (before, after)
    )
    return {name: (was.get(name), figure) for name, figure in now.items() if name != evaluator.primary_metric}


def compare_sparsity(before: Any, after: Any, dataset: Dataset) -> dict[str, Sparsity]:
    """Active dimensions and FLOPS of two sparse models, "before" and "after", on the first 20,000 documents.

    Args:
        before, after: as in `compare_models`; None is left out.
        dataset: its documents and queries are encoded; vectors that are in the cache are not made again.
    """
    import hybridsearch as hs
    from hybridsearch.evaluation.costs import measure_sparsity

    found = {}
    for name, model in (("before", before), ("after", after)):
        if model is None:
            continue
        encoder = hs.Sparse(model)
        texts = [document.content for document in islice(dataset.corpus or (), _SAMPLED)]
        documents = (encoder.encode_documents(texts[start : start + 1024]) for start in range(0, len(texts), 1024))
        found[name] = measure_sparsity(documents, encoder.encode_queries(list(dataset.queries.values())))
    return found


def changed_expansions(before: Any, after: Any, texts: Sequence[str], *, examples: int = 5) -> tuple[Expansion, ...]:
    """The texts whose expansion gained most weight, most first, such as "cephalalgia" that gained "headache".

    Pieces of words and latent dimensions say nothing to people and are left out, as are texts that gained nothing.

    Args:
        before, after: sparse models, as in `compare_models`; without `before` there is nothing to compare.
        texts: encoded as documents: the side that is expanded by every sparse model.
        examples: how many are returned, at most.
    """
    import hybridsearch as hs

    if before is None or not texts:
        return ()
    rows = zip(texts, _weights(hs.Sparse(before), texts), _weights(hs.Sparse(after), texts), strict=True)
    changes = []
    for text, old, new in rows:
        gained = {term: weight for term, weight in new.items() if term not in old and not _is_in(term, text)}
        lost = {term: weight for term, weight in old.items() if term not in new}
        changes.append((sum(_heaviest(gained).values()), Expansion(text, *map(_terms, (gained, lost)))))
    changes.sort(key=lambda change: -change[0])
    return tuple(expansion for weight, expansion in changes[:examples] if weight > 0)


def versions() -> dict[str, str]:
    """Of Python and the packages that training uses, those that are installed."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# Comparing


def _compare_rerankers(
    models: Mapping[str, Any], dataset: Dataset, retriever: HybridSearch | Pipeline | None, options: Mapping[str, Any]
) -> Comparison:
    import hybridsearch as hs

    if retriever is None:
        with hs.HybridSearch({"bm25": hs.BM25()}) as search:
            search.index(dataset.corpus or (), show_progress_bar=options["show_progress_bar"])
            return _compare_rerankers(models, dataset, search, options)
    pipeline = hs.Pipeline(retriever) if isinstance(retriever, hs.HybridSearch) else retriever
    systems = {"retrieval": replace(pipeline, reranker=None)}
    systems |= {name: replace(pipeline, reranker=hs.CrossEncoderReranker(model)) for name, model in models.items()}
    return hs.compare(systems, dataset, **options)


def _judged(comparison: Comparison, system: str, other: str) -> str:
    """ "Better: nDCG@10 on scifact from .645 to .722 (...)", for one planned comparison, so nothing is corrected."""
    measure, dataset = comparison.main, comparison.dataset
    means = {one.name: one.means[measure].mean for one in comparison.systems}
    versus = _versus(comparison, system, other)
    difference = versus.difference
    if versus.same:
        return f"No different: {measure} on {dataset.name} is {means[system]:.4f} before and after"
    sure = versus.p_value < ALPHA
    word = "Better" if sure else "Not clearly better"
    if difference.mean == 0:
        word = "Not better"
    elif difference.mean < 0:
        word = "WORSE" if sure else "WORSE, though perhaps by chance"
    return (
        f"{word}: {measure} on {dataset.name} from {means[other]:.4f} to {means[system]:.4f} "
        f"({difference.mean:+.4f}, {comparison.level:.0%} interval {difference.low:+.4f} to {difference.high:+.4f}, "
        f"p = {versus.p_value:.2g}, {dataset.queries} queries)"
    )


def _changed(name: str, before: float, after: float) -> str:
    """ "WORSE: sts Spearman from 0.93 to 0.12", of figures that are the better the greater."""
    if before == after:
        return f"No different: {name} is {after:.4f} before and after"
    return f"{'Better' if after > before else 'WORSE'}: {name} from {before:.4f} to {after:.4f}"


def _aimed(side: str, target: int, reached: float) -> str:
    """Whether a target of active dimensions was reached."""
    off = reached / target - 1
    if abs(off) <= _TOLERANCE:
        return f"The target of {target} active dimensions a {side} was reached: {reached:.0f}."
    missed = f"{abs(off):.0%} {'above' if off > 0 else 'below'}"
    return f"The target of {target} active dimensions a {side} was MISSED: {reached:.0f}, which is {missed}."


def _versus(comparison: Comparison, system: str, other: str) -> Versus:
    from hybridsearch.evaluation.statistics import bootstrap_interval, paired_test, wins_losses_ties

    scores = [comparison[name].scores[comparison.main] for name in (system, other)]
    ours, theirs = (np.array([of[query] for query in scores[0]]) for of in scores)
    p_value = paired_test(ours, theirs, comparison.test)
    difference = bootstrap_interval(ours - theirs, comparison.level)
    return Versus(difference, p_value, p_value, *wins_losses_ties(ours, theirs))


# Expansions


def _weights(encoder: Sparse, texts: Sequence[str]) -> Iterator[dict[str, float]]:
    """Weight by term of each text, without what is no word."""
    vectors = encoder.encode_documents(list(texts))
    terms, matrix = vectors.vocabulary.terms, vectors.matrix
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        row = zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
        yield {terms[column]: weight for column, weight in row if terms[column].isalpha()}


def _is_in(term: str, text: str) -> bool:
    return term.lower() in re.findall(r"\w+", text.lower())


def _heaviest(weights: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:_TERMS])


def _terms(weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple((term, round(weight, 4)) for term, weight in _heaviest(weights).items())


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
    """`card` with the report after its front matter and title, in the place of an earlier one."""
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
    """As typed, without passwords and keys, and without the folder that the program is in."""
    from hybridsearch.backends import redacted

    if not arguments:
        return ""
    program = Path(arguments[0]).name
    shown = [re.sub(r"((?:password|api_key)=).*", r"\1***", redacted(one), flags=re.DOTALL) for one in arguments[1:]]
    return shlex.join([*(["python"] if program.endswith(".py") else []), program, *shown])


def _short(text: str, width: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
