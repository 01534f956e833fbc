"""The plots of the report and their texts: quality and cost, single queries, sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.report import charts
from hybridsearch.evaluation.report.markup import Markup, element, join
from hybridsearch.evaluation.report.parts import for_each_measure, index_bytes, name_of, switch, total_ms, verdict
from hybridsearch.evaluation.results import ComparisonRecord, Histogram, Sparsity, SystemRecord

MOST_BARS = 2_000
"""Number of bars in one plot. Of more queries, this many are drawn at equal steps."""


def quality_and_cost(comparison: ComparisonRecord) -> Markup | None:
    """Both scatter plots. None if fewer than two systems have costs."""
    figures = [
        _scatter(
            comparison, "Quality and latency", "median milliseconds for a query", total_ms, formats.milliseconds, " ms"
        ),
        _scatter(comparison, "Quality and index size", "index size", index_bytes, formats.size, ""),
    ]
    return join(switch(comparison), element("div", figures, class_="pair")) if any(figures) else None


def differences(comparison: ComparisonRecord) -> Markup:
    """Sorted bars, one for each query: differences from the baseline, or the values of a single system."""
    several = len(comparison.systems) > 1
    shown = [
        (place, one) for place, one in enumerate(comparison.systems) if one.name != comparison.baseline or not several
    ]

    def draw(measure: str) -> Markup:
        base: Mapping[str, float] = comparison.tested_against.scores[measure] if several else {}
        values = {place: _sorted_differences(one.scores[measure], base) for place, one in shown}
        reach = max((abs(value) for of in values.values() for value in of), default=0.0) or 1.0
        below = any(value < 0 for of in values.values() for value in of)
        figures = [_bars(one, place, measure, values[place], reach, several, below) for place, one in shown]
        return element("div", figures, class_="grid-of-bars")

    against = element("bdi", comparison.baseline)
    told = [
        "Each bar is one query: the value of the system minus the value of ",
        against,
        ". All plots have one scale.",
    ]
    keys = element("span", " Point at a bar or use the arrow keys to see its query.", class_="needs-js", hidden=True)
    lead = element(
        "p", told if several else "Each bar is one query. The bars are sorted by value.", keys, class_="lead"
    )
    return join(lead, switch(comparison), for_each_measure(comparison, draw))


def sparsities(comparison: ComparisonRecord) -> Markup | None:
    """The active dimensions of each lexical or sparse retriever. None if there is no such retriever."""
    found: list[tuple[str, Sparsity, list[str]]] = []
    for one in comparison.systems:
        for retriever, sparsity in (one.cost.sparsity if one.cost else {}).items():
            users = next((users for name, same, users in found if (name, same) == (retriever, sparsity)), None)
            if users is None:
                found.append((retriever, sparsity, users := []))
            users.append(one.name)
    if not found:
        return None
    names = [retriever for retriever, _, _ in found]
    figures = [
        _sparsity(retriever if names.count(retriever) == 1 else f"{retriever} of {', '.join(users)}", sparsity)
        for retriever, sparsity, users in found
    ]
    told = "Active dimensions are those that are not zero. A search with fewer of them is faster."
    return join(element("p", told, class_="lead"), element("div", figures, class_="pair"))


def units(value: float) -> int:
    """A value in ten-thousandths. The page keeps these, so Python and JavaScript sort in the same way."""
    return round(value * 10_000)


def tick(value: float) -> str:
    """The text of a round number on the axis of a measure: at least two digits, and as many as it needs.

    >>> tick(0.4), tick(0.405), tick(30.0)
    ('0.40', '0.405', '30.00')
    """
    digits = next((digits for digits in (2, 3) if round(value, digits) == value), 4)
    return formats.figure(value, digits)


def _scatter(
    comparison: ComparisonRecord,
    heading: str,
    x_name: str,
    cost: Callable[[SystemRecord], float | None],
    written: Callable[[float], str],
    unit: str,
) -> Markup | None:
    placed = [(one, value) for one in comparison.systems if (value := cost(one)) is not None]
    if len(placed) < 2:
        return None

    def draw(measure: str) -> Markup:
        real = [(one, value) for one, value in placed if one.kind != "oracle-positives"]
        fronts = charts.pareto([(value, one.means[measure].mean) for one, value in real])
        front = {one.name for (one, _), on in zip(real, fronts, strict=True) if on}
        points = []
        for one, value in placed:
            of = one.means[measure]
            lines = [one.name, f"{measure} {formats.figure(of.mean)} ({formats.interval(of)})", written(value) + unit]
            lines += ["on the Pareto front"] if one.name in front else []
            points.append(charts.Point(one.name, one.kind, value, of, "\n".join(lines), one.name in front))
        label = f"{measure} and {x_name}; on the Pareto front: {', '.join(one.name for one in points if one.front)}"
        axes = charts.Axes(x_name, measure, written, tick)
        return join(
            element("div", charts.scatter(points, axes, 610, 400, label), class_="when-wide"),
            element("div", charts.scatter(points, axes, 350, 380, label), class_="when-narrow"),
        )

    told = (
        "Better systems are higher and further left. The dashed line is the best quality at each cost (Pareto front)."
    )
    caption = element("figcaption", element("h3", heading), element("p", told))
    return element("figure", caption, for_each_measure(comparison, draw), class_="card")


def _bars(
    system: SystemRecord, place: int, measure: str, values: Sequence[float], reach: float, several: bool, below: bool
) -> Markup:
    versus = system.versus.get(measure)
    written = formats.difference if several else formats.figure
    ends = [written(reach, 2), "0", written(-reach, 2)] if below else [written(reach, 2), "0"]
    label = f"{system.name}: queries by {f'difference in {measure} from the baseline' if several else measure}"
    mean = record = None
    if versus is not None:
        text = f"mean {formats.difference(versus.difference.mean)} {formats.signed_interval(versus.difference)}"
        mean = element("p", text, verdict(versus))
        record = element("p", f"{versus.wins:,} won · {versus.ties:,} tied · {versus.losses:,} lost", class_="record")
    drawn = charts.sorted_bars(_thinned(values), reach, below, role="img", aria_label=label, data_system=place)
    axis = element("div", [element("span", end) for end in ends], class_="bars-axis", aria_hidden="true")
    caption = element("figcaption", element("h3", name_of(system)), mean)
    return element("figure", caption, element("div", axis, drawn, class_="bars-frame"), record, class_="card")


def _sorted_differences(scores: Mapping[str, float], base: Mapping[str, float]) -> list[float]:
    return sorted(((units(value) - units(base.get(id, 0.0))) / 10_000 for id, value in scores.items()), reverse=True)


def _thinned(values: Sequence[float]) -> Sequence[float]:
    n = len(values)
    return values if n <= MOST_BARS else [values[place * n // MOST_BARS] for place in range(MOST_BARS)]


def _sparsity(name: str, sparsity: Sparsity) -> Markup:
    flops = f"{formats.count(sparsity.flops)} expected multiplications for one query and one document (FLOPS)"
    sides = [
        _histogram("documents", sparsity.documents_mean, sparsity.documents_histogram),
        _histogram("queries", sparsity.queries_mean, sparsity.queries_histogram),
    ]
    caption = element("figcaption", element("h3", element("bdi", name)), element("p", flops))
    return element("figure", caption, element("div", sides, class_="histograms"), class_="card")


def _histogram(what: str, mean: float, of: Histogram) -> Markup:
    ends = [of.edges[0], of.edges[-1]] if of.edges else []
    axis = [element("span", formats.count(round(end))) for end in ends]
    middle = element("span", "active dimensions")
    told = element("p", element("b", formats.count(mean)), f" active dimensions in {what} on average")
    below = element("div", axis[:1], middle, axis[1:], class_="columns-axis", aria_hidden="true") if axis else None
    return element("div", told, charts.columns(of), below, class_="histogram")
