"""The first and the last part of the report: the main answers, and how they were measured."""

from __future__ import annotations

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.report import charts
from hybridsearch.evaluation.report.markup import Child, Markup, element, join
from hybridsearch.evaluation.report.parts import CORRECTIONS, KINDS, name_of, total_ms, verdict
from hybridsearch.evaluation.results import ComparisonRecord, SystemRecord, Versus
from hybridsearch.messages import number_of

_MEASURES = {
    "nDCG": "gain by grade, reduced by rank, divided by the best possible gain",
    "RR": "1 divided by the rank of the first relevant document (the mean is MRR)",
    "AP": "mean of the precision at each relevant document (the mean over queries is MAP)",
    "R": "share of the relevant documents that were found",
    "P": "share of the first documents that are relevant; a missing document counts as not relevant",
    "Success": "whether a relevant document was returned",
}


def header(comparison: ComparisonRecord) -> Markup:
    """The title, facts and main answers."""
    facts = [
        number_of(len(comparison.systems), "system"),
        number_of(comparison.dataset.queries, "query", "queries"),
        None if comparison.dataset.documents is None else number_of(comparison.dataset.documents, "document"),
        formats.moment(comparison.created) or None,
    ]
    headline = element(
        "div",
        element("p", "Comparison of search systems", class_="kicker"),
        element("h1", comparison.dataset.name, dir="auto"),
        element("p", [element("span", fact) for fact in facts if fact], class_="facts"),
        class_="headline",
    )
    toggle = element("button", "Theme", type="button", id="theme", hidden=True)
    return element("header", headline, toggle, element("div", _tiles(comparison), class_="tiles"))


def method(comparison: ComparisonRecord) -> Markup:
    """The data, measures, statistics and systems, and how to repeat the comparison."""
    data = comparison.dataset
    counts = [
        None if data.documents is None else number_of(data.documents, "document"),
        number_of(data.queries, "judged query", "judged queries"),
        number_of(data.judgements, "judgement"),
    ]
    judged = [", judged by ", element("bdi", data.judged_by)] if data.judged_by else None
    problems = element("ul", [element("li", problem, dir="auto") for problem in data.problems])
    measures = [
        element("div", element("b", name), f": {_MEASURES[stem]}" if stem in _MEASURES else None)
        for name in comparison.measures
        for stem in [name.split("@")[0].split("(")[0]]
    ]
    depth = f", for the first {comparison.top_k:,} documents of each query" if comparison.top_k else ""
    rows: list[tuple[str, Child]] = [
        ("Data", [element("bdi", data.name), ": ", ", ".join(count for count in counts if count), judged]),
        ("Problems in the data", problems if data.problems else "none were found"),
        ("Measures", measures),
        ("Rankings", f"measured in the order in which they were returned{depth}; a query without results counts 0"),
        ("Intervals", f"{100 * comparison.level:g}% bootstrap intervals over the queries"),
    ]
    compared = sum(1 for one in comparison.systems if one.versus)
    if compared:
        against = element("bdi", comparison.baseline)
        correction = CORRECTIONS.get(comparison.correction)
        rows += [
            ("Test", [f"{formats.TESTS.get(comparison.test, comparison.test)}, each system against ", against]),
            (
                "Correction",
                f"{correction} correction for {number_of(compared, 'comparison')}" if correction else "none",
            ),
        ]
    systems = [
        element("li", element("b", element("bdi", one.name)), f": {one.description or KINDS[one.kind]}", dir="auto")
        for one in comparison.systems
    ]
    made = " ".join(
        part for part in (formats.moment(comparison.created), "with hybridsearch", comparison.version) if part
    )
    rows += [("Systems", element("ul", systems)), ("Made", f"{made}, in {formats.duration(comparison.seconds)}")]
    if comparison.command:
        rows.append(("Command", element("pre", element("code", comparison.command), tabindex=0)))
    return element("dl", [[element("dt", term), element("dd", value)] for term, value in rows], class_="card method")


def _tiles(comparison: ComparisonRecord) -> list[Markup]:
    main = comparison.main
    real = [one for one in comparison.systems if one.kind != "oracle-positives"] or list(comparison.systems)
    best = max(real, key=lambda one: one.means[main].mean)
    sure = f"{100 * comparison.level:g}% interval {formats.interval(best.means[main])}"
    tiles = [_tile(f"Best {main}", formats.figure(best.means[main].mean), best, sure)]
    if main in best.versus:
        tiles.append(
            _gain_tile(f"Best system compared with the baseline, {comparison.baseline}", best.versus[main], best)
        )
    gains = [(one.best_single.versus[main], one) for one in real if one.best_single and main in one.best_single.versus]
    if gains:
        versus, hybrid = max(gains, key=lambda pair: pair[0].difference.mean)
        above = sum(one.significant and one.difference.mean > 0 for one, _ in gains)
        single = hybrid.best_single.retriever if hybrid.best_single else ""
        note = f"{above} of {number_of(len(gains), 'fused or reranked system')} significantly above their best single"
        tiles.append(_gain_tile(f"Largest gain over a best single retriever ({single})", versus, hybrid, note))
    timed = [(milliseconds, one) for one in real if (milliseconds := total_ms(one)) is not None]
    if len(timed) > 1:
        front = charts.pareto([(milliseconds, one.means[main].mean) for milliseconds, one in timed])
        milliseconds, quick = min((pair for pair, on in zip(timed, front, strict=True) if on), key=lambda pair: pair[0])
        slow = total_ms(best)
        rest = "" if slow is None else f"; the best system takes {formats.milliseconds(slow)} ms"
        rest = "; it is also the best system" if best is quick else rest
        note = f"{main} {formats.figure(quick.means[main].mean)}{rest}"
        tiles.append(_tile("Fastest", f"{formats.milliseconds(milliseconds)} ms", quick, note))
    return tiles


def _gain_tile(label: str, versus: Versus, system: SystemRecord, note: str = "") -> Markup:
    sure = f"{formats.signed_interval(versus.difference)}, {formats.p_value(versus.p_adjusted)}"
    sure = "equal on every query" if versus.same else sure
    value = join(formats.difference(versus.difference.mean), verdict(versus))
    return _tile(label, value, system, f"{sure}; {note}" if note else sure)


def _tile(label: str, value: Child, system: SystemRecord, note: str) -> Markup:
    return element(
        "div",
        element("p", label, class_="tile-label", dir="auto"),
        element("p", value, class_="tile-value"),
        name_of(system),
        element("p", note, class_="tile-note", dir="auto"),
        class_="tile",
    )
