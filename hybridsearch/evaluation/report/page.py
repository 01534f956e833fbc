"""The whole page of the report. It needs no network, and can be read without JavaScript.

All tables and plots are made here, as HTML and SVG. `report.js` adds sorting, tooltips, and the choice of theme and
measure. A content security policy allows only the style sheet and the script of this page, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from hybridsearch.evaluation.report import overview, plots, queries, tables
from hybridsearch.evaluation.report.markup import Markup, element, join
from hybridsearch.evaluation.results import ComparisonRecord
from hybridsearch.messages import number_of
from hybridsearch.readers.lines import writable

MOST_VALUES = 200_000
"""Number of per-query values that are kept for tooltips, of about five bytes each. Further measures have none."""


def write_html(comparison: ComparisonRecord, path: str | Path) -> None:
    """Write `comparison` as one HTML file. Raises StorageError if the file cannot be written."""
    page = render(comparison)
    with writable(path) as place:
        place.write_text(page, encoding="utf-8")


def render(comparison: ComparisonRecord) -> str:
    """The HTML of the page that `write_html` writes."""
    sections = [
        ("results", "Results", tables.results(comparison)),
        ("cost", "Quality and cost", _costs(comparison)),
        ("differences", "Query by query", plots.differences(comparison)),
        ("sparsity", "Sparsity", plots.sparsities(comparison)),
        ("queries", "Queries worth reading", queries.readable(comparison)),
        ("method", "How it was measured", overview.method(comparison)),
    ]
    shown = [(anchor, heading, content) for anchor, heading, content in sections if content]
    links = [element("a", heading, href=f"#{anchor}") for anchor, heading, _ in shown]
    body = element(
        "body",
        element("a", "Skip to the results", href="#results", class_="skip"),
        overview.header(comparison),
        element("nav", links, aria_label="Sections"),
        element("main", [_section(*one) for one in shown]),
        element("footer", f"hybridsearch {comparison.version}".strip()),
        element("script", _embedded(comparison), type="application/json", id="data"),
    )
    return f"<!doctype html>\n{element('html', _head(comparison), body, lang='en')}\n"


def policy() -> str:
    """The content security policy of the page. A server that sends the page can send it as a header too."""
    return (
        f"default-src 'none'; style-src '{_digest(_asset('report.css'))}'; "
        f"script-src '{_digest(_asset('report.js'))}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _head(comparison: ComparisonRecord) -> Markup:
    style, script = _asset("report.css"), _asset("report.js")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{comparison.dataset.name}: {number_of(len(comparison.systems), 'system')} compared"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(style)),
        element("script", Markup(script)),
    )


def _section(anchor: str, heading: str, content: Markup) -> Markup:
    named = f"{anchor}-heading"
    return element("section", element("h2", heading, id=named), content, id=anchor, aria_labelledby=named)


def _costs(comparison: ComparisonRecord) -> Markup | None:
    costed = [one for one in comparison.systems if one.cost is not None]
    if not costed:
        return None
    missing = [one.name for one in comparison.systems if one.cost is None and one.kind != "oracle-positives"]
    note = f"Run files have no costs: {', '.join(missing)}."
    return join(
        plots.quality_and_cost(comparison),
        element("p", note, class_="note", dir="auto") if missing else None,
        tables.costs(costed, comparison.machine),
    )


def _embedded(comparison: ComparisonRecord) -> Markup:
    """The data of the tooltips in per-query plots, as JSON that cannot end its script element."""
    ids = list(comparison.systems[0].scores[comparison.main])
    names = [one.name for one in comparison.systems]
    kept = comparison.measures[: MOST_VALUES // max(len(ids) * len(names), 1)]
    data = {
        "queries": ids if kept else [],
        "texts": {detail.id: detail.text for detail in comparison.details},
        "details": {detail.id: queries.anchor(place) for place, detail in enumerate(comparison.details)},
        "names": names,
        "baseline": names.index(comparison.baseline) if len(names) > 1 else None,
        "scores": [
            [[plots.units(one.scores[measure].get(id, 0.0)) for id in ids] for one in comparison.systems]
            for measure in kept
        ],
    }
    written = json.dumps(data, separators=(",", ":"))
    return Markup(written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _asset(name: str) -> str:
    return files("hybridsearch.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
