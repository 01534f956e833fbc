"""Pieces that several parts of the report use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.report import charts
from hybridsearch.evaluation.report.markup import Child, Markup, element, join
from hybridsearch.evaluation.results import ComparisonRecord, SystemRecord, Versus

KINDS = {
    "single": "single retriever",
    "fused": "fused",
    "reranked": "reranked, end to end",
    "oracle-positives": "reranked, oracle positives",
    "run": "run file",
}
CORRECTIONS = {"holm": "Holm’s", "bonferroni": "Bonferroni’s"}


def name_of(system: SystemRecord, tag: str | None = None) -> Markup:
    """The mark and the name of a system."""
    written = [element("bdi", system.name), element("span", tag, class_="tag") if tag else None]
    return element("div", charts.legend_mark(system.kind), element("span", written), class_="name")


def verdict(versus: Versus | None) -> Markup | None:
    """An arrow if the difference is significant."""
    if versus is None or not versus.significant:
        return None
    word, arrow = ("better", "▲") if versus.difference.mean > 0 else ("worse", "▼")
    return element("b", arrow, class_=f"verdict {word}", role="img", aria_label=f"significantly {word}")


def table(caption: str, heads: Sequence[Child], rows: Sequence[Child], class_: str = "sortable") -> Markup:
    """A table that scrolls sideways, also by keyboard. If it does, the script shows a note."""
    inside = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_=class_,
    )
    goes_on = element("p", "The table continues to the right →", class_="goes-on", hidden=True)
    return join(goes_on, element("div", inside, class_="scroll", tabindex=0, role="region", aria_label=caption))


def head(name: str, note: str | None = None, first: str = "desc", class_: str | None = None) -> Markup:
    """The head of a column. `first` is the order after the first click on it."""
    noted = small(note) if note else None
    return element("th", element("span", name), noted, scope="col", data_first=first, class_=class_)


def cell(
    *children: Child, sort: float | str | None = None, title: str | None = None, class_: str | None = None
) -> Markup:
    """A cell that sorts by `sort`. Cells with None come last."""
    key = sort if sort is None or isinstance(sort, str) else repr(float(sort))
    return element("td", *children, data_sort=key, title=title, class_=class_)


def nothing() -> Markup:
    """The cell of a missing value."""
    return cell(element("span", formats.NOTHING, class_="muted"))


def small(*children: Child) -> Markup:
    """A second line in small letters."""
    return element("div", *children, class_="small")


def switch(comparison: ComparisonRecord) -> Markup | None:
    """Buttons to choose a measure. The script shows them."""
    if len(comparison.measures) < 2:
        return None
    options = [
        element("button", name, type="button", data_choose=place, aria_pressed="true" if place == 0 else "false")
        for place, name in enumerate(comparison.measures)
    ]
    return element("div", options, class_="switch needs-js", role="group", aria_label="Measure", hidden=True)


def for_each_measure(comparison: ComparisonRecord, draw: Callable[[str], Markup]) -> Markup:
    """One drawing for each measure. All but the first are hidden until the reader chooses them."""
    drawn = [
        element("div", draw(name), data_measure=place, hidden=place > 0)
        for place, name in enumerate(comparison.measures)
    ]
    return join(drawn)


def total_ms(system: SystemRecord) -> float | None:
    """The median time of a query in milliseconds. None if it was not measured."""
    return system.cost.total_ms.p50 if system.cost and system.cost.total_ms else None


def index_bytes(system: SystemRecord) -> float | None:
    """The size of the index in bytes. None if it is not known."""
    return system.cost.index_bytes if system.cost else None
