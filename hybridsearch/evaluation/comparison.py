"""The results that `compare` and `evaluate` return. They print as tables and can be saved in several formats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation import formats, report
from hybridsearch.evaluation.formats import NOTHING
from hybridsearch.evaluation.plain import from_plain, safe_name, to_plain
from hybridsearch.evaluation.results import ALPHA, ComparisonRecord, Cost, SystemRecord, Timing, Versus
from hybridsearch.evaluation.statistics import Interval
from hybridsearch.messages import number_of
from hybridsearch.ranking import Ranking
from hybridsearch.readers.lines import writable
from hybridsearch.tables import Grid, as_text, import_pandas, rich_tables

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

_LONGEST = 200  # bytes of the name of a file; systems of file systems take 255, and an ending is added
_CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni"}


@dataclass(frozen=True, slots=True, repr=False)
class SystemResult(SystemRecord):
    """The results of one system on one data set, which print as a table.

    The fields are those of `hybridsearch.evaluation.results.SystemRecord`.
    """

    def ranking(self, query_id: str) -> Ranking:
        """Return the ranking of the system for one query. It is empty for an unknown query id."""
        pairs = self.rankings.get(query_id, ())
        return Ranking(tuple(id for id, _ in pairs), np.array([score for _, score in pairs], dtype=np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Convert the results to a dict that JSON can hold."""
        return dict(to_plain(self))

    def to_pandas(self) -> pd.DataFrame:
        """Convert the scores to a DataFrame with a row for each query and a column for each measure.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return import_pandas().DataFrame(self.scores).rename_axis("query")

    def __rich__(self) -> RenderableType:
        return rich_tables(self._grids())

    def _repr_html_(self) -> str:
        return "".join(grid.to_html() for grid in self._grids())

    def _grids(self) -> list[Grid]:
        return [_of_system(self), *_of_costs([self], {})]

    def __str__(self) -> str:
        return as_text(self, 120)

    def __repr__(self) -> str:
        means = ", ".join(f"{measure} {interval.mean:.4f}" for measure, interval in self.means.items())
        return f"SystemResult({self.name!r}, {self.description!r}: {means})"


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(ComparisonRecord):
    """The results of several systems on one data set, which print as tables.

    The fields are those of `hybridsearch.evaluation.results.ComparisonRecord`. `comparison["name"]` returns the results
    of one system.
    """

    systems: tuple[SystemResult, ...]

    def __getitem__(self, name: str) -> SystemResult:
        """The results of the system of this name."""
        for system in self.systems:
            if system.name == name:
                return system
        names = ", ".join(repr(one.name) for one in self.systems)
        raise KeyError(f"{name!r} was not compared. The systems are {names}.")

    # Saving

    def to_dict(self) -> dict[str, Any]:
        """Convert the comparison to a dict that JSON can hold. `from_dict` converts it back."""
        return dict(to_plain(self))

    def to_json(self, indent: int | None = None) -> str:
        """Convert the comparison to one JSON document.

        Args:
            indent: Number of spaces of an indentation. None writes one line.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """Make a comparison from a dict that `to_dict` made.

        Raises:
            InvalidArgumentError: `data` has another form.
        """
        return from_plain(cls, data)

    def save(self, path: str | Path) -> None:
        """Write all results to a JSON file. `load` reads it.

        Raises:
            StorageError: The file cannot be written.
        """
        with writable(path) as place:
            place.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a comparison from a file that `save` wrote.

        Raises:
            InvalidArgumentError: The file cannot be read, or does not hold a comparison.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"{path} does not hold a saved comparison ({error}). Write the file by `hybridsearch compare "
                "--save FILE` or `Comparison.save`. The output of --json is a summary that cannot be loaded."
            ) from error

    def save_runs(self, folder: str | Path) -> dict[str, Path]:
        """Write the rankings of each system to a TREC run file `NAME.trec` in `folder`.

        Returns:
            The paths of the files, by system name.

        Raises:
            StorageError: A file cannot be written.
        """
        with writable(folder) as place:
            place.mkdir(parents=True, exist_ok=True)
        paths: dict[str, Path] = {}
        for system in self.systems:
            tag = safe_name(system.name).encode()[:_LONGEST].decode(errors="ignore")
            while any(f"{tag}.trec".lower() == other.name.lower() for other in paths.values()):  # as macOS compares
                tag += "-2"
            paths[system.name] = place / f"{tag}.trec"
            Ranking.to_trec({query: system.ranking(query) for query in system.rankings}, paths[system.name], tag)
        return paths

    def to_pandas(self) -> pd.DataFrame:
        """Convert the results to a DataFrame with one row for each system.

        The columns are:

        - the mean of each measure,
        - by the main measure, `difference` from the baseline, `low` and `high` (the interval of the difference), and
          `p` (corrected),
        - by the main measure, `best_single` (the mean of the best single retriever), and `best_single_difference`,
          `best_single_low`, `best_single_high` and `best_single_p`: the same comparison with this retriever,
        - `milliseconds` (median time of a query) and `bytes` (size of the index).

        A missing value is NaN. `comparison["name"].to_pandas()` has the values of each query.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        rows = []
        for one in self.systems:
            versus, best, cost = one.versus.get(self.main), one.best_single, one.cost or Cost()
            rows.append({
                **{name: of.mean for name, of in one.means.items()},
                **_columns("", versus),
                "best_single": None if best is None else best.means[self.main],
                **_columns("best_single_", None if best is None else best.versus[self.main]),
                "milliseconds": None if cost.total_ms is None else cost.total_ms.p50,
                "bytes": cost.index_bytes,
            })  # fmt: skip
        return import_pandas().DataFrame(rows, import_pandas().Index(self.names, name="system"), dtype="float64")

    # Showing

    def to_html(self, path: str | Path) -> None:
        """Write the report as one HTML file, which needs no network.

        Raises:
            StorageError: The file cannot be written.
        """
        report.write_html(self, path)

    def to_markdown(self) -> str:
        """Make the tables as Markdown text, for a README or an issue."""
        return "\n\n".join(grid.to_markdown() for grid in _grids(self)) + "\n"

    def __rich__(self) -> RenderableType:
        return rich_tables(_grids(self))

    def _repr_html_(self) -> str:
        return "".join(grid.to_html() for grid in _grids(self))

    def __str__(self) -> str:
        return as_text(self, 120)

    def __repr__(self) -> str:
        names = ", ".join(system.name for system in self.systems)
        return f"Comparison({self.dataset.name!r}, {names}; {', '.join(self.measures)})"


def _columns(prefix: str, versus: Versus | None) -> dict[str, float | None]:
    """The columns of a comparison with another system. All are None if there is none."""
    of = None if versus is None else versus.difference
    return {
        f"{prefix}difference": None if of is None else of.mean,
        f"{prefix}low": None if of is None else of.low,
        f"{prefix}high": None if of is None else of.high,
        f"{prefix}p": None if versus is None else versus.p_adjusted,
    }


def means_over(comparisons: Mapping[str, Comparison]) -> RenderableType:
    """A table of the mean of each measure over several data sets, for rich.

    It has the systems that were compared on all of the data sets.
    """
    first = next(iter(comparisons.values()))
    names = [one.name for one in first.systems if all(one.name in other.names for other in comparisons.values())]
    rows = []
    for name in names:
        of_sets = [comparison[name].means for comparison in comparisons.values()]
        figures = [formats.figure(fmean(means[measure].mean for means in of_sets)) for measure in first.measures]
        rows.append([[name], *([figure] for figure in figures)])
    return rich_tables([Grid(f"Mean over {len(comparisons)} data sets", ["system", *first.measures], rows)])


def _grids(comparison: Comparison) -> list[Grid]:
    """The tables of quality, differences, costs and retrievers. Empty tables are left out."""
    found = [_quality(comparison), _differences(comparison), *_of_costs(comparison.systems, comparison.machine)]
    return [grid for grid in found if grid.rows]


def _quality(comparison: Comparison) -> Grid:
    versus_best = any(one.best_single for one in comparison.systems)
    rows = [
        [
            _name(system, comparison),
            *(_mean(system.means[name], system.versus.get(name)) for name in comparison.measures),
            *([_best_single(system, comparison.main)] if versus_best else []),
        ]
        for system in comparison.systems
    ]
    warnings = dict.fromkeys(warning for system in comparison.systems for warning in system.warnings)
    return Grid(
        str(comparison.dataset),
        ["system", *comparison.measures, *(["best single"] if versus_best else [])],
        rows,
        [*warnings, *_answer(comparison), *_explanations(comparison), *comparison.dataset.problems],
    )


def _differences(comparison: Comparison) -> Grid:
    rows = []
    for system in comparison.systems:
        if (versus := system.versus.get(comparison.main)) is not None:
            of = versus.difference
            found = ["same", NOTHING, NOTHING]
            if not versus.same:
                found = [
                    formats.difference(of.mean, 4),
                    formats.signed_interval(of),
                    formats.p_value(versus.p_adjusted),
                ]
            counts = [f"{count:,}" for count in (versus.wins, versus.losses, versus.ties)]
            rows.append([[cell] for cell in (system.name, *found, *counts)])
    columns = ["system", "difference", "interval", "corrected p", "wins", "losses", "ties"]
    return Grid(f"{comparison.main} against {comparison.baseline}", columns, rows)


def _answer(comparison: Comparison) -> Iterable[str]:
    """A sentence that names the best system, and how much it adds to its best single retriever."""
    real = [one for one in comparison.systems if one.kind != "oracle-positives"]
    if len(real) < 2:
        return
    best = max(real, key=lambda one: one.means[comparison.main].mean)
    found = f"Best by {comparison.main}: {best.name}, {formats.figure(best.means[comparison.main].mean)}"
    if best.best_single is None:
        yield f"{found}."
        return
    adds = best.best_single.versus[comparison.main]
    if adds.same:
        yield f"{found}. On every query it is equal to {best.best_single.retriever}, its best single retriever."
        return
    yield (
        f"{found}. That is {formats.difference(adds.difference.mean, 4)} {formats.signed_interval(adds.difference)} "
        f"compared with {best.best_single.retriever}, its best single retriever (corrected "
        f"{formats.p_value(adds.p_adjusted)}; {number_of(adds.wins, 'win')}, "
        f"{number_of(adds.losses, 'loss', 'losses')})."
    )


def _explanations(comparison: Comparison) -> Iterable[str]:
    yield f"Under each mean: its {100 * comparison.level:g} % bootstrap interval over the queries."
    uncut = [name for name in comparison.measures if not re.search(r"@\d+$", name)]  # IPrec@0.1 has no cutoff
    if uncut and comparison.top_k:
        yield (
            f"{' and '.join(uncut)} {'looks' if len(uncut) == 1 else 'look'} at the first {comparison.top_k:,} "
            "documents of each query. With more documents (--top-k) the values can be others."
        )
    yield from formats.unanswered(comparison.systems)
    family = sum(1 for one in comparison.systems if one.versus)
    if family:
        correction = _CORRECTIONS.get(comparison.correction)
        corrected = f", {correction} correction for {family} systems" if correction and family > 1 else ""
        test = formats.TESTS.get(comparison.test, comparison.test)
        yield f"*: differs significantly from {comparison.baseline} ({test}{corrected}, p < {ALPHA:g})."
    if any(one.best_single for one in comparison.systems):
        yield (
            f"best single: the best one of the system's retrievers by {comparison.main}, alone. Under it: how much the "
            "system adds (*: significant, by the same test)."
        )
    if any(one.kind == "oracle-positives" for one in comparison.systems):
        yield (
            "oracle positives: the reranker also got the relevant documents that retrieval missed. No real system can "
            "do that. Compare these rows only with published values of the same kind. All other rows are end to end."
        )


def _of_system(system: SystemResult) -> Grid:
    rows = [[[name], [formats.figure(of.mean)], [formats.interval(of, 4)]] for name, of in system.means.items()]
    queries = len(next(iter(system.scores.values()), {}))
    notes = [*system.warnings, "interval: the bootstrap interval over the queries."]
    if (best := system.best_single) is not None:
        found = ", ".join(
            f"{name} {formats.figure(mean)} ({_signed(best.versus[name])})" for name, mean in best.means.items()
        )
        notes.append(
            f"The best single retriever is {best.retriever}: {found}. In parentheses: how much the system adds."
        )
    return Grid(
        f"{system.description}: {number_of(queries, 'query', 'queries')}", ["measure", "mean", "interval"], rows, notes
    )


def _of_costs(systems: Sequence[SystemResult], machine: Mapping[str, str]) -> list[Grid]:
    return [grid for grid in (_costs(systems, machine), _retrievers(systems)) if grid.rows]


def _costs(systems: Sequence[SystemResult], machine: Mapping[str, str]) -> Grid:
    costs = [(system.name, system.cost) for system in systems if system.cost is not None and system.cost.queries]
    rows = []
    for name, cost in costs:
        stages = (cost.encode_ms, cost.search_ms, cost.fuse_ms, cost.rerank_ms, cost.total_ms)
        rows.append([[name], *map(_timing, stages), [formats.size(cost.index_bytes)]])
    return Grid(
        "Milliseconds for a query: median, then 95th percentile",
        ["system", "encode", "search", "fuse", "rerank", "total", "index"],
        rows,
        [
            formats.timed(cost for _, cost in costs),
            *formats.loaded(cost for _, cost in costs),
            *([f"Machine: {formats.machine(machine)}."] if machine else []),
        ],
    )


def _retrievers(systems: Sequence[SystemResult]) -> Grid:
    rows: dict[tuple[str, ...], list[str]] = {}
    for system in systems:
        cost = system.cost or Cost()
        for name in dict.fromkeys([*cost.documents_per_second, *cost.sparsity]):
            rate, sparsity = cost.documents_per_second.get(name), cost.sparsity.get(name)
            found = [NOTHING, NOTHING, NOTHING]
            if sparsity is not None:
                found = [f"{sparsity.documents_mean:.1f}", f"{sparsity.queries_mean:.1f}", f"{sparsity.flops:.3f}"]
            rows.setdefault((name, NOTHING if rate is None else f"{rate:,.0f}", *found), []).append(system.name)
    names = [name for name, *_ in rows]
    told = [name if names.count(name) == 1 else f"{name} of {', '.join(users)}" for (name, *_), users in rows.items()]
    return Grid(
        "Retrievers",
        ["retriever", "documents encoded per second", "active dimensions, document", "query", "FLOPS"],
        [[[name], *([cell] for cell in cells)] for name, (_, *cells) in zip(told, rows, strict=True)],
        ["FLOPS: expected number of multiplications to score one document for one query."] if rows else (),
    )


def _name(system: SystemResult, comparison: Comparison) -> list[str]:
    notes = {"oracle-positives": "not end to end", "reranked": "end to end"}
    if system.name == comparison.baseline and len(comparison.systems) > 1:
        return [system.name, "baseline"]
    return [system.name, notes[system.kind]] if system.kind in notes else [system.name]


def _mean(interval: Interval, versus: Versus | None) -> list[str]:
    mark = "*" if versus is not None and versus.significant else ""
    return [f"{formats.figure(interval.mean)}{mark}", formats.interval(interval)]


def _best_single(system: SystemResult, main: str) -> list[str]:
    best = system.best_single
    if best is None:
        return [NOTHING]
    return [f"{best.retriever} {formats.figure(best.means[main])}", _signed(best.versus[main])]


def _signed(versus: Versus) -> str:
    if versus.same:
        return "same"
    return f"{formats.difference(versus.difference.mean, 4)}{'*' if versus.significant else ''}"


def _timing(timing: Timing | None) -> list[str]:
    return [NOTHING] if timing is None else [formats.milliseconds(timing.p50), formats.milliseconds(timing.p95)]
