"""A comparison as tables of text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.formats import NOTHING
from hybridsearch.evaluation.results import ALPHA, LATENCY_TOP_K, Comparison, Cost, SystemResult, Timing, Versus
from hybridsearch.evaluation.statistics import Interval

if TYPE_CHECKING:
    from rich.console import RenderableType

_TESTS = {"t": "paired t test", "randomization": "paired randomization test", "wilcoxon": "Wilcoxon signed-rank test"}
_CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni"}


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: cells of one or more lines, the first column to the left, the others to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Sequence[str]]]
    notes: Sequence[str] = ()


def renderable(comparison: Comparison) -> RenderableType:
    """All tables, for rich."""
    from rich.console import Group

    return Group(*(rich_table(grid) for grid in grids(comparison)))


def renderable_system(system: SystemResult) -> RenderableType:
    """The tables of one system, for rich."""
    from rich.console import Group

    return Group(*(rich_table(grid) for grid in [_of_system(system), *_of_costs([system], {})]))


def means_over(comparisons: Mapping[str, Comparison]) -> RenderableType:
    """The mean over data sets of each measure, for rich; of the systems that were compared on all of them."""
    first = next(iter(comparisons.values()))
    names = [one.name for one in first.systems if all(one.name in other.names for other in comparisons.values())]
    rows = [
        [
            [name],
            *(
                [formats.figure(fmean(comparison[name].means[measure].mean for comparison in comparisons.values()))]
                for measure in first.measures
            ),
        ]
        for name in names
    ]
    return rich_table(Grid(f"Mean over {len(comparisons)} data sets", ["system", *first.measures], rows))


def markdown(comparison: Comparison) -> str:
    """All tables in Markdown, apart by blank lines."""
    return "\n\n".join(_markdown(grid) for grid in grids(comparison)) + "\n"


def grids(comparison: Comparison) -> list[Grid]:
    """Quality, differences, cost, and the retrievers; those that would be empty are left out."""
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
    facts = comparison.dataset
    corpus = "" if facts.documents is None else f"{facts.documents:,} documents, "
    return Grid(
        f"{facts.name}: {corpus}{facts.queries:,} queries, {facts.judgements:,} judgements",
        ["system", *comparison.measures, *(["best single"] if versus_best else [])],
        rows,
        [*_warnings(comparison.systems), *_answer(comparison), *_explanations(comparison), *facts.problems],
    )


def _differences(comparison: Comparison) -> Grid:
    rows = [
        [
            [system.name],
            *(
                [["same"], [NOTHING], [NOTHING]]
                if versus.same
                else [
                    [formats.difference(versus.difference.mean, 4)],
                    [formats.signed_interval(versus.difference)],
                    [formats.p_value(versus.p_adjusted)],
                ]
            ),
            *([f"{count:,}"] for count in (versus.wins, versus.losses, versus.ties)),
        ]
        for system in comparison.systems
        if (versus := system.versus.get(comparison.main)) is not None
    ]
    return Grid(
        f"{comparison.main} against {comparison.baseline}",
        ["system", "difference", "interval", "corrected p", "wins", "losses", "ties"],
        rows,
    )


def _warnings(systems: Iterable[SystemResult]) -> Iterable[str]:
    return (warning for system in systems for warning in system.warnings)


def _answer(comparison: Comparison) -> Iterable[str]:
    """Which system is best and, where it merges or reranks, how much that adds."""
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
        yield f"{found}, on every query the same as {best.best_single.retriever}, the better of its single retrievers."
        return
    yield (
        f"{found}: {formats.difference(adds.difference.mean, 4)} {formats.signed_interval(adds.difference)} over "
        f"{best.best_single.retriever}, the better of its single retrievers (corrected "
        f"{formats.p_value(adds.p_adjusted)}; {adds.wins:,} wins, {adds.losses:,} losses)."
    )


def _explanations(comparison: Comparison) -> Iterable[str]:
    yield f"Below each mean its {100 * comparison.level:g} % bootstrap interval over queries."
    for system in comparison.systems:
        asked, answered = len(next(iter(system.scores.values()))), sum(map(bool, system.rankings.values()))
        if answered < asked:
            yield f"{system.name} has results for {answered:,} of {asked:,} queries; the others count 0."
    family = sum(1 for one in comparison.systems if one.versus)
    if family:
        correction = _CORRECTIONS.get(comparison.correction)
        corrected = f", {correction} correction for {family} systems" if correction and family > 1 else ""
        test = _TESTS.get(comparison.test, comparison.test)
        yield f"* differs from {comparison.baseline} ({test}{corrected}, p < {ALPHA:g})."
    if any(one.best_single for one in comparison.systems):
        yield (
            f"best single: of the retrievers that the system asks, the better one by {comparison.main}, alone; and how "
            "much the system adds to it (* significant in the same way)."
        )
    if any(one.kind == "oracle-positives" for one in comparison.systems):
        yield (
            "oracle positives: relevant documents that retrieval missed are put before the reranker, which no real "
            "system can do; compare these rows with published figures of that kind only. All other rows are end to end."
        )


def _of_system(system: SystemResult) -> Grid:
    rows = [[[name], [formats.figure(of.mean)], [formats.interval(of, 4)]] for name, of in system.means.items()]
    queries = len(next(iter(system.scores.values()), {}))
    notes = [*system.warnings, "The interval is the bootstrap one over queries."]
    if (best := system.best_single) is not None:
        found = ", ".join(
            f"{name} {formats.figure(mean)} ({_signed(best.versus[name])})" for name, mean in best.means.items()
        )
        notes.append(f"The best single retriever is {best.retriever}: {found}; in parentheses what the system adds.")
    return Grid(f"{system.description}: {queries:,} queries", ["measure", "mean", "interval"], rows, notes)


def _of_costs(systems: Sequence[SystemResult], machine: Mapping[str, str]) -> list[Grid]:
    return [grid for grid in (_costs(systems, machine), _retrievers(systems)) if grid.rows]


def _costs(systems: Sequence[SystemResult], machine: Mapping[str, str]) -> Grid:
    costs = [(system.name, system.cost) for system in systems if system.cost is not None and system.cost.queries]
    rows = []
    for name, cost in costs:
        stages = (cost.encode_ms, cost.search_ms, cost.fuse_ms, cost.rerank_ms, cost.total_ms)
        rows.append([[name], *map(_timing, stages), [formats.size(cost.index_bytes)]])
    counts = sorted({cost.queries for _, cost in costs})
    note = f"{' to '.join(f'{count:,}' for count in (counts[:1] + counts[1:][-1:]))} queries asked one at a time"
    if any(cost.total_ms for _, cost in costs):
        note += f" for {LATENCY_TOP_K} hits, nothing from a cache; total has fetching the documents too"
    timed = sorted({cost.timed for _, cost in costs if cost.timed})
    if timed:
        note += f"; timed {timed[0]}{f' to {timed[-1]}' if len(timed) > 1 else ''}"
    return Grid(
        "Milliseconds a query: the median, and below it the 95th percentile",
        ["system", "encode", "search", "fuse", "rerank", "total", "index"],
        rows,
        [f"{note}.", *([f"On {formats.machine(machine)}."] if machine else [])],
    )


def _retrievers(systems: Sequence[SystemResult]) -> Grid:
    rows: dict[tuple[str, ...], None] = {}
    for system in systems:
        cost = system.cost or Cost()
        for name in dict.fromkeys([*cost.documents_per_second, *cost.sparsity]):
            rate, sparsity = cost.documents_per_second.get(name), cost.sparsity.get(name)
            row = [name, NOTHING if rate is None else f"{rate:,.0f}"]
            row += (
                [NOTHING, NOTHING, NOTHING]
                if sparsity is None
                else [f"{sparsity.documents_mean:.1f}", f"{sparsity.queries_mean:.1f}", f"{sparsity.flops:.3f}"]
            )
            rows[tuple(row)] = None
    return Grid(
        "Retrievers",
        ["retriever", "documents encoded a second", "active dimensions, document", "query", "FLOPS"],
        [[[cell] for cell in row] for row in rows],
        ["FLOPS: expected multiplications to score one document for one query."] if rows else (),
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


def rich_table(grid: Grid) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(grid.columns):
        if number == 0:
            table.add_column(Text(column), overflow="fold", min_width=12)
        else:
            table.add_column(Text(column), justify="right", overflow="fold")
    for row in grid.rows:
        cells = []
        for lines in row:
            cell = Text(lines[0])
            for line in lines[1:]:
                cell.append(f"\n{line}", style="dim")
            cells.append(cell)
        table.add_row(*cells)
    return Group(Text(grid.title, style="bold"), table, *(Text(note, style="dim") for note in grid.notes), Text(""))


def _markdown(grid: Grid) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(_escaped(cell).replace(chr(10), '<br>') for cell in cells)} |"

    lines = [f"**{_escaped(grid.title)}**", "", line(grid.columns), line(["---", *["---:"] * (len(grid.columns) - 1)])]
    lines += [line("\n".join(cell) for cell in row) for row in grid.rows]
    return "\n".join([*lines, *(f"\n{_escaped(note)}" for note in grid.notes)])


def _escaped(text: str) -> str:
    """`text` as Markdown shows it: no table cell, tag or emphasis begins in it."""
    for character, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_")):
        text = text.replace(character, shown)
    return text
