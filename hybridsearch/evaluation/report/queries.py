"""The part of the report about single queries: what each system returned, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.report import charts
from hybridsearch.evaluation.report.markup import Child, Markup, element, join
from hybridsearch.evaluation.report.parts import name_of, table
from hybridsearch.evaluation.results import ComparisonRecord, DetailHit, QueryDetail, SystemRecord
from hybridsearch.messages import number_of

MOST_RELEVANT = 8
MOST_TERMS = 5


def readable(comparison: ComparisonRecord) -> Markup | None:
    """The content of the section. None if no query was kept with its hits."""
    if not comparison.details:
        return None
    text = (
        "These are the queries on which the systems are worst or differ most. Each has the first hits of every system, "
        "with their judgements, the rank that each retriever gave, and the terms that matched."
    )
    words = element("input", type="search", id="find", placeholder="words or id", autocomplete="off")
    expand = element("button", "Expand all", type="button", id="expand")
    tools = element("div", element("label", "Find ", words), expand, class_="tools needs-js", hidden=True)
    queries = [_query(comparison, place, detail) for place, detail in enumerate(comparison.details)]
    return join(element("p", text, class_="lead"), tools, element("div", queries, class_="queries"))


def anchor(place: int) -> str:
    """The id in the page of the query at `place` in `ComparisonRecord.details`."""
    return f"query-{place}"


def _query(comparison: ComparisonRecord, place: int, detail: QueryDetail) -> Markup:
    scores = {one.name: one.scores[comparison.main].get(detail.id, 0.0) for one in comparison.systems}
    low, high = min(scores.values()), max(scores.values())
    spread = formats.figure(low, 2) if low == high else f"{formats.figure(low, 2)} to {formats.figure(high, 2)}"
    bars = charts.small_bars([(one.kind, scores[one.name]) for one in comparison.systems], max(1.0, high))
    summary = element(
        "summary",
        element("span", detail.text, class_="query-text", dir="auto"),
        element("bdi", detail.id, class_="query-id"),
        element("span", bars, element("span", f"{comparison.main} {spread}"), class_="query-scores"),
    )
    systems = [one for one in comparison.systems if one.name in detail.systems]
    hits = [_hits(one, scores[one.name], comparison.main, detail.systems[one.name]) for one in systems]
    inside = [_relevant(comparison.systems, detail), element("div", hits, class_="systems")]
    return element("details", summary, element("div", inside, class_="inside"), id=anchor(place), class_="query card")


def _relevant(systems: Sequence[SystemRecord], detail: QueryDetail) -> Markup:
    """The rank of each relevant document in each system."""
    if not detail.relevant:
        return element("p", "No document was judged relevant.", class_="note")
    ranks = {one.name: {id: rank for rank, (id, _) in enumerate(one.rankings.get(detail.id, ()), 1)} for one in systems}
    depth = max((len(of) for of in ranks.values()), default=0)
    heads = [
        element("th", "Relevant document", scope="col"),
        element("th", "Grade", scope="col"),
        *[element("th", name_of(one), scope="col") for one in systems],
    ]
    rows = []
    for id, grade, title in detail.relevant[:MOST_RELEVANT]:
        named = [element("span", title or id, dir="auto", class_="title"), element("bdi", id, class_="doc-id")]
        cells = [_rank_cell(ranks[one.name].get(id)) for one in systems]
        rows.append(element("tr", element("th", named, scope="row"), element("td", str(grade)), cells))
    rest = len(detail.relevant) - MOST_RELEVANT
    more = f"{number_of(rest, 'more relevant document')} not shown. " if rest > 0 else ""
    caption = f"Ranks of the relevant documents for query {detail.id}"
    none = f"The numbers are ranks. {formats.NOTHING} means: not among the first {depth:,}."
    note = more + (none if depth else "No system returned a document.")
    return join(table(caption, heads, rows, "ranks"), element("p", note, class_="note"))


def _rank_cell(rank: int | None) -> Markup:
    if rank is None:
        return element("td", formats.NOTHING, class_="rank-none")
    return element("td", f"{rank:,}", class_="rank-top" if rank <= 10 else "rank-low")


def _hits(system: SystemRecord, score: float, measure: str, hits: Sequence[DetailHit]) -> Markup:
    figure = element("span", f"{measure} {formats.figure(score, 3)}", class_="of-query")
    heading = element("h3", name_of(system), figure)
    if not hits:
        return element("article", heading, element("p", "Nothing was returned.", class_="note"))
    return element("article", heading, element("ol", [_hit(hit) for hit in hits], class_="hits"))


def _hit(hit: DetailHit) -> Markup:
    ranks = [
        element("span", element("bdi", name), f" #{rank}", class_="place") for name, rank in hit.retrievers.items()
    ]
    facts: list[Child] = [_grade(hit.grade), element("bdi", hit.id, class_="doc-id")]
    if len(ranks) > 1 or any(rank != hit.rank for rank in hit.retrievers.values()):
        facts += ranks
    return element(
        "li",
        element("span", str(hit.rank), class_="rank"),
        element(
            "div",
            element("div", hit.title or hit.id, class_="title", dir="auto"),
            element("div", _marked(hit), class_="excerpt", dir="auto") if hit.text else None,
            element("div", facts, element("span", f"score {hit.score:.4g}", class_="score"), class_="facts"),
            [_terms(name, terms) for name, terms in hit.terms.items() if terms],
        ),
        class_=f"grade-{'relevant' if hit.grade and hit.grade > 0 else 'other'}",
    )


def _marked(hit: DetailHit) -> list[Child]:
    """The text of a hit, with the words that matched."""
    places = [0, *(place for span in hit.marks for place in span), len(hit.text)]
    parts = [hit.text[start:end] for start, end in pairwise(places)]
    return [element("mark", part) if number % 2 else part for number, part in enumerate(parts)]


def _grade(grade: int | None) -> Markup:
    if grade is None:
        return element("span", "not judged", class_="badge unjudged")
    if grade > 0:
        return element("span", f"relevant, grade {grade}", class_="badge relevant")
    return element("span", "not relevant", class_="badge irrelevant")


def _terms(retriever: str, terms: Mapping[str, float]) -> Markup:
    """The terms that matched, each with the amount that it added to the score."""
    heaviest = list(terms.items())[:MOST_TERMS]
    rest = len(terms) - len(heaviest)
    chips = [
        element("span", element("bdi", term), element("i", f"{weight:.2f}"), class_="term") for term, weight in heaviest
    ]
    more = element("span", f"+{rest} more", class_="of") if rest > 0 else None
    return element("div", element("bdi", retriever, class_="of"), chips, more, class_="terms")
