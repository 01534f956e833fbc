"""The tables of the report: quality, differences and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.report import charts, parts
from hybridsearch.evaluation.report.markup import Child, Markup, element, join
from hybridsearch.evaluation.report.parts import (
    KINDS,
    cell,
    head,
    index_bytes,
    name_of,
    small,
    table,
    total_ms,
    verdict,
)
from hybridsearch.evaluation.results import ALPHA, ComparisonRecord, Cost, SystemRecord, Timing, Versus
from hybridsearch.messages import number_of

_STAGES = (("encode", "Encode"), ("search", "Search"), ("fuse", "Fuse"), ("rerank", "Rerank"))


def results(comparison: ComparisonRecord) -> Markup:
    """The main table. Empty columns are left out."""
    main, systems = comparison.main, comparison.systems
    several, singles = len(systems) > 1, any(one.best_single for one in systems)
    timed = any(total_ms(one) is not None for one in systems)
    sized = any(index_bytes(one) is not None for one in systems)
    low, high = charts.padded([one.means[main] for one in systems])
    ends = [element("span", formats.figure(end, 2)) for end in (low, high)]
    sure = f"{100 * comparison.level:g}% interval"
    heads = [
        head("System", first="asc", class_="system"),
        head(main, sure),
        element("th", ends, scope="col", class_="axis-head", aria_label=f"{main} on one axis"),
        head("Against the baseline", "won · tied · lost") if several else None,
        *[head(name, "interval") for name in comparison.measures[1:]],
        head("Best single", f"{main}, gain over it") if singles else None,
        head("ms/query", "median, 95th", first="asc") if timed else None,
        head("Index", first="asc") if sized else None,
    ]
    real = [one for one in systems if one.kind != "oracle-positives"]
    best = {name: max((one.means[name].mean for one in real), default=None) for name in comparison.measures}
    reference = comparison.tested_against.means[main].mean if several else None
    rows = [
        element(
            "tr",
            _name_cell(one, is_baseline=several and one.name == comparison.baseline),
            _measure_cell(one, main, best[main]),
            element("td", charts.forest(one.means[main], one.kind, low, high, reference), class_="forest-cell"),
            _versus_cell(one, main, comparison.baseline) if several else None,
            *[_measure_cell(one, name, best[name]) for name in comparison.measures[1:]],
            _single_cell(one, main) if singles else None,
            _time_cell(one.cost.total_ms if one.cost else None) if timed else None,
            cell(formats.size(index_bytes(one)), sort=index_bytes(one)) if sized else None,
            class_=f"row-{one.kind}",
        )
        for one in systems
    ]
    caption = f"{', '.join(comparison.measures)} of each system on {comparison.dataset.name}"
    texts = dict.fromkeys(warning for one in systems for warning in one.warnings)
    warnings = [element("p", warning, class_="warning", dir="auto") for warning in texts]
    differences = _every_difference(comparison) if several else None
    notes = [element("p", said, class_="note", dir="auto") for said in formats.unanswered(systems)]
    return join(warnings, table(caption, heads, rows), _legend(comparison), notes, differences)


def costs(systems: Sequence[SystemRecord], machine: Mapping[str, str]) -> Markup:
    """The table of costs: milliseconds of each stage, index size, encoding speed, and the machine."""
    used = [(stage, heading) for stage, heading in _STAGES if any(getattr(one.cost, f"{stage}_ms") for one in systems)]
    totals = any(total_ms(one) is not None for one in systems)
    sized = any(index_bytes(one) is not None for one in systems)
    encoded = any(one.cost and one.cost.documents_per_second for one in systems)
    longest = max(sum(length for _, length in _parts(one)) for one in systems)
    heads = [
        head("System", first="asc", class_="system"),
        element("th", "Median milliseconds (one scale)", scope="col") if used else None,
        *[head(heading, "ms", first="asc") for _, heading in used],
        head("Total", "ms", first="asc") if totals else None,
        head("Index", first="asc") if sized else None,
        head("Documents encoded", "per second", first="desc") if encoded else None,
    ]
    rows = [
        element(
            "tr",
            element("th", name_of(one), scope="row", data_sort=one.name),
            element("td", charts.stacked(_parts(one), longest), class_="bar-cell") if used else None,
            *[_time_cell(getattr(one.cost, f"{stage}_ms", None)) for stage, _ in used],
            _time_cell(one.cost.total_ms if one.cost else None, strong=True) if totals else None,
            cell(formats.size(index_bytes(one)), sort=index_bytes(one)) if sized else None,
            _speed_cell(one.cost or Cost()) if encoded else None,
        )
        for one in systems
    ]
    legend = [element("span", element("i", class_=f"swatch stage-{stage}"), heading) for stage, heading in used]
    if totals:
        legend.append(element("span", element("i", class_="swatch stage-rest"), "All else, such as fetching documents"))
    how = formats.timed(one.cost for one in systems if one.cost)
    explained = f"Large numbers are medians, small numbers are 95th percentiles. {how}" if used else how
    loaded = formats.loaded(one.cost for one in systems if one.cost)
    return join(
        element("h3", "What each stage costs"),
        [element("p", sentence, class_="warning") for sentence in loaded],
        table("Cost of each system", heads, rows),
        element("p", legend, element("span", explained), class_="legend") if explained else None,
        element("p", f"Measured on {formats.machine(machine)}.", class_="note", dir="auto") if machine else None,
    )


def _parts(system: SystemRecord) -> list[tuple[str, float]]:
    """The class and median milliseconds of each stage, and the rest of the total."""
    timings = {stage: getattr(system.cost, f"{stage}_ms", None) for stage, _ in _STAGES}
    staged = [(f"stage-{stage}", timing.p50) for stage, timing in timings.items() if timing is not None]
    return [*staged, ("stage-rest", max((total_ms(system) or 0.0) - sum(length for _, length in staged), 0.0))]


def _speed_cell(cost: Cost) -> Markup:
    speeds = cost.documents_per_second
    if not speeds:
        return parts.nothing()
    lines = [element("div", element("bdi", name), f" {formats.count(speed)}") for name, speed in speeds.items()]
    return cell(lines, sort=min(speeds.values()))


def _legend(comparison: ComparisonRecord) -> Markup:
    kinds = list(dict.fromkeys(one.kind for one in comparison.systems))
    legend = [element("span", charts.legend_mark(kind), KINDS[kind]) for kind in kinds]
    if len(comparison.systems) > 1:
        others = " (without oracle positives)" if "oracle-positives" in kinds else ""
        legend.append(element("span", element("b", "bold", class_="number"), f": best in its column{others}"))
    if any(one.versus for one in comparison.systems):
        up, down = element("b", "▲", class_="better"), element("b", "▼", class_="worse")
        sure = f", p < {formats.figure(ALPHA, 2)}"
        legend.append(element("span", up, " better, ", down, " worse than ", element("bdi", comparison.baseline), sure))
        legend.append(element("span", f"p is {_corrected(comparison, [one.versus for one in comparison.systems])}"))
    if any(singles := [one.best_single for one in comparison.systems]):
        legend.append(element("span", f"p of the gain over the best single is {_corrected(comparison, singles)}"))
    oracle = (
        "In rows with oracle positives the reranker also got the relevant documents that retrieval missed. No real "
        "system can do that. Compare these rows only with published values of the same kind."
    )
    noted = element("p", oracle, class_="note") if "oracle-positives" in kinds else None
    return join(element("p", legend, class_="legend"), noted)


def _corrected(comparison: ComparisonRecord, compared: Sequence[object]) -> str:
    """How p-values are corrected. Only what is true in `compared` was compared."""
    correction, count = parts.CORRECTIONS.get(comparison.correction), sum(map(bool, compared))
    if correction is None:
        return "not corrected for the number of systems"
    return f"corrected ({correction} correction for {number_of(count, 'comparison')})"


def _every_difference(comparison: ComparisonRecord) -> Markup:
    names = ("System", "Measure", "Difference", "Interval", "p", "p adjusted", "Won", "Tied", "Lost")
    rows = [
        element(
            "tr",
            element("th", name_of(one), scope="row", data_sort=one.name),
            cell(name, sort=name),
            cell(formats.difference(versus.difference.mean, 4), verdict(versus), sort=versus.difference.mean),
            cell(formats.signed_interval(versus.difference, 4)),
            cell(formats.p_value(versus.p_value), sort=versus.p_value),
            cell(formats.p_value(versus.p_adjusted), sort=versus.p_adjusted),
            *[cell(f"{number:,}", sort=number) for number in (versus.wins, versus.ties, versus.losses)],
        )
        for one in comparison.systems
        for name, versus in one.versus.items()
    ]
    summary = element("summary", "All measures compared with the baseline")
    inside = table(f"All differences from {comparison.baseline}", [head(name) for name in names], rows)
    return element("details", summary, inside, class_="more")


def _name_cell(system: SystemRecord, is_baseline: bool) -> Markup:
    described = system.description if system.description not in ("", system.name) else KINDS[system.kind]
    named = name_of(system, "baseline" if is_baseline else None)
    about = element("div", described, class_="small", dir="auto")
    return element("th", named, about, scope="row", data_sort=system.name)


def _measure_cell(system: SystemRecord, measure: str, best: float | None) -> Markup:
    of, versus = system.means[measure], system.versus.get(measure)
    number = element("b" if of.mean == best else "span", formats.figure(of.mean), class_="number")
    title = None if versus is None else f"{system.name}, {measure}, compared with the baseline\n{_told(versus)}"
    return cell(number, verdict(versus), small(formats.interval(of)), sort=of.mean, title=title)


def _told(versus: Versus) -> str:
    sure = f"{formats.difference(versus.difference.mean, 4)} {formats.signed_interval(versus.difference)}"
    chance = f"{formats.p_value(versus.p_value)}, adjusted {formats.p_value(versus.p_adjusted)}"
    return f"{sure}\n{chance}\n{versus.wins:,} won, {versus.ties:,} tied, {versus.losses:,} lost"


def _versus_cell(system: SystemRecord, measure: str, baseline: str) -> Markup:
    versus = system.versus.get(measure)
    if system.name == baseline or (versus is not None and versus.same):
        return cell(element("span", "baseline" if system.name == baseline else "same", class_="muted"), sort=0.0)
    if versus is None:  # rows with oracle positives are not tested
        return parts.nothing()
    tone = "" if not versus.significant else " better" if versus.difference.mean > 0 else " worse"
    number = element("span", formats.difference(versus.difference.mean), class_=f"number{tone}")
    about = f"{formats.signed_interval(versus.difference)} {formats.p_value(versus.p_adjusted)}"
    shares = [("win", versus.wins), ("tie", versus.ties), ("loss", versus.losses)]
    bar = charts.stacked(shares, sum(count for _, count in shares))
    record = element("span", f"{versus.wins:,} · {versus.ties:,} · {versus.losses:,}")
    return cell(number, element("div", bar, record, class_="won small"), small(about), sort=versus.difference.mean)


def _single_cell(system: SystemRecord, measure: str) -> Markup:
    best = system.best_single
    if best is None:
        return parts.nothing()
    gain: list[Child] = []
    if (versus := best.versus.get(measure)) is not None:
        told = f"{formats.difference(versus.difference.mean)} {formats.p_value(versus.p_adjusted)}"
        gain = ["same"] if versus.same else [told, verdict(versus)]
    number = element("span", formats.figure(best.means[measure]), class_="number")
    return cell(
        number, " ", element("bdi", best.retriever), small(*gain), sort=best.means[measure], class_="single-cell"
    )


def _time_cell(of: Timing | None, strong: bool = False) -> Markup:
    if of is None:
        return parts.nothing()
    number = element("span", formats.milliseconds(of.p50), class_="number strong" if strong else "number")
    return cell(number, small(formats.milliseconds(of.p95)), sort=of.p50)
