"""Tests of the HTML report in a real browser."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch.errors import StorageError
from hybridsearch.evaluation.comparison import Comparison, SystemResult
from hybridsearch.evaluation.formats import milliseconds, size
from hybridsearch.evaluation.report import render, write_html
from hybridsearch.evaluation.report.charts import Axes, Point, pareto, scatter
from hybridsearch.evaluation.report.plots import tick
from hybridsearch.evaluation.results import Cost, Timing
from hybridsearch.evaluation.statistics import Interval

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "<script>window.hacked = 1</script></script></style><!-- \"quoted\" 'too' &amp; <img src=x onerror=window.hacked=1>"
    " \u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 🙂\u2028" + "x" * 90
)
WIDTHS = (360, 1600)

# How the page looks and behaves


@dataclass
class Opened:
    """A report in the browser, with the requests and errors of the page."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """The number of pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def column(self, place: int) -> list[str]:
        """The first lines of a column of the main table."""
        texts = self.page.locator(f"#results .sortable >> nth=0 >> tbody tr > :nth-child({place})").all_inner_texts()
        return [text.split("\n")[0].strip() for text in texts]

    def close_to_all_details(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


Open = Callable[..., Opened]


@pytest.fixture
def look(browser: Browser, new_page: Callable[..., Page], tmp_path: Path) -> Iterator[Open]:
    """A function that opens the report of a comparison. At the end, no page may have made a request or an error."""
    every: list[Opened] = []

    def opener(comparison: Comparison, width: int = 1280, scheme: str = "light", script: bool = True) -> Opened:
        path = tmp_path / f"report-{len(every)}.html"
        write_html(comparison, path)
        requests, complaints = list[str](), list[str]()
        listeners: dict[Any, Callable[[Any], None]] = {
            "request": lambda request: requests.append(request.url),
            "console": lambda message: complaints.append(message.text),
            "pageerror": lambda error: complaints.append(str(error)),
        }
        if script:
            page = new_page(width, 900, scheme, **listeners)
        else:
            page = browser.new_context(java_script_enabled=False).new_page()
            for event, listener in listeners.items():
                page.on(event, listener)
        every.append(Opened(page, requests, complaints))
        every[-1].page.goto(path.as_uri())
        return every[-1]

    yield opener
    for number, opened in enumerate(every):
        assert set(opened.requests) == {(tmp_path / f"report-{number}.html").as_uri()}
        assert opened.complaints == []


def test_the_page_asks_for_nothing_and_has_no_errors_in_either_theme(look: Open, comparison: Comparison) -> None:
    for scheme in ("light", "dark"):
        opened = look(comparison, scheme=scheme)
        opened.close_to_all_details()
        opened.page.wait_for_timeout(100)  # the fixture looks at requests and errors


def test_the_table_has_every_mean_with_its_interval(look: Open, comparison: Comparison) -> None:
    rows = look(comparison).page.locator("#results .sortable >> nth=0 >> tbody tr").all_inner_texts()
    assert len(rows) == len(comparison.systems)
    for row, system in zip(rows, comparison.systems, strict=True):
        assert system.name in row
        for of in system.means.values():
            assert f"{of.mean:.4f}" in row
            assert f"{of.low:.3f}–{of.high:.3f}" in row


def test_the_better_single_retriever_stands_beside_each_fused_row(look: Open, comparison: Comparison) -> None:
    opened = look(comparison)
    heads = opened.page.locator("#results thead >> nth=0 >> th").all_inner_texts()
    column = next(place for place, head in enumerate(heads, 1) if head.startswith("Best single"))
    best = [f"{one.best_single.means['nDCG@10']:.4f} bm25" if one.best_single else "–" for one in comparison.systems]
    assert opened.column(column) == best


def test_a_click_on_a_head_sorts_and_another_turns_the_order_round(look: Open, comparison: Comparison) -> None:
    opened = look(comparison)
    names = [one.name for one in sorted(comparison.systems, key=lambda one: -one.means["nDCG@10"].mean)]
    head = opened.page.locator("#results th", has_text="nDCG@10").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [text.removesuffix("baseline").strip() for text in opened.column(1)] == names
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [text.removesuffix("baseline").strip() for text in opened.column(1)] == names[::-1]


def test_sorting_by_cost_begins_with_the_cheapest_and_ends_with_what_has_none(
    look: Open, comparison: Comparison
) -> None:
    opened = look(comparison)
    head = opened.page.locator("#results th", has_text="ms/query").first
    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert opened.column(1)[0].startswith("bm25")
    assert opened.column(1)[-1] == "elsewhere.trec"
    opened.page.keyboard.press("Enter")
    assert opened.column(1)[-1] == "elsewhere.trec"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(look: Open, comparison: Comparison, width: int) -> None:
    opened = look(comparison, width)
    assert opened.overflow() == 0
    opened.close_to_all_details()
    assert opened.overflow() == 0


def test_every_column_of_the_tables_is_seen_on_a_laptop(look: Open, comparison: Comparison) -> None:
    tables = look(comparison, 1280).page.locator("section > .scroll").all()
    assert [table.evaluate("one => one.scrollWidth - one.clientWidth") for table in tables] == [0, 0]


@pytest.mark.parametrize(("width", "said"), [(360, [True, True]), (1400, [False, False])])
def test_a_table_that_goes_on_says_so_until_its_end_is_reached(
    look: Open, comparison: Comparison, width: int, said: list[bool]
) -> None:
    page = look(comparison, width).page
    notes, tables = page.locator("section > .goes-on"), page.locator("section > .scroll")
    assert [note.is_visible() for note in notes.all()] == said
    tables.first.evaluate("one => { one.scrollLeft = one.scrollWidth }")
    notes.first.wait_for(state="hidden")  # `wait_for_function` would need eval, which the page's policy forbids


def test_the_legend_says_what_bold_and_p_mean(look: Open, comparison: Comparison) -> None:
    legend = look(comparison).page.locator("#results .legend").inner_text()
    assert "bold: best in its column (without oracle positives)" in " ".join(legend.split())
    assert "p is corrected (Holm’s correction for 6 comparisons)" in legend
    assert "over the best single is corrected (Holm’s correction for 4 comparisons)" in " ".join(legend.split())
    legend = look(replace(comparison, correction="none")).page.locator("#results .legend").inner_text()
    assert "p is not corrected for the number of systems" in legend


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(look: Open, comparison: Comparison, scheme: str) -> None:
    opened = look(comparison, scheme=scheme)
    opened.close_to_all_details()
    found = opened.page.evaluate(CONTRASTS)
    assert len(found["text"]) > 300
    assert [one for one in found["text"] if one["contrast"] < 4.5] == []
    assert [one for one in found["marks"] if one["contrast"] < 3] == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1600, "dark")])
def test_the_page_breaks_no_rule_of_axe(look: Open, comparison: Comparison, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    opened = look(comparison, width, scheme)
    opened.page.locator("details.query summary").first.click()
    violations = axe.Axe().run(opened.page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in violations] == []


def test_the_button_changes_the_theme_for_good(look: Open, comparison: Comparison) -> None:
    page = look(comparison, scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(background) == light


def test_table_and_plots_are_there_without_javascript(look: Open, comparison: Comparison) -> None:
    page = look(comparison, script=False).page
    assert page.locator("#results tbody tr:visible").count() >= len(comparison.systems)
    assert page.locator("svg.scatter:visible").count() == 2
    assert page.locator("svg.bars:visible").count() == len(comparison.systems) - 1
    assert page.locator("button:visible").count() == 0
    page.locator("details.query summary").first.click()
    assert page.locator("details.query ol.hits:visible").count() == len(comparison.systems)


@pytest.mark.parametrize(
    ("costs", "form", "ticks"),
    [
        ([0.02, 0.06], milliseconds, ["0", "0.020", "0.040", "0.060"]),
        ([1e6, 5e6], size, ["0 B", "2 MB", "4 MB"]),
    ],
)
def test_the_ticks_of_an_axis_are_their_numbers(
    costs: list[float], form: Callable[[float], str], ticks: list[str]
) -> None:
    points = [Point("system", "single", cost, Interval(0.5, 0.4, 0.6), "") for cost in costs]
    plot = str(scatter(points, Axes("cost", "nDCG", form, str), 400, 300, "plot"))
    assert re.findall(r'class="tick"[^>]*text-anchor="middle"[^>]*>([^<]*)<', plot) == ticks


@pytest.mark.parametrize(("low", "high"), [(0.394, 0.411), (0.5, 0.502), (0.1, 0.9)])
def test_the_ticks_of_a_narrow_axis_differ(low: float, high: float) -> None:
    points = [Point("system", "single", 1.0, Interval((low + high) / 2, low, high), "")]
    plot = str(scatter(points, Axes("cost", "nDCG", str, tick), 610, 400, "plot"))
    ticks = re.findall(r'class="tick"[^>]*text-anchor="end"[^>]*>([^<]*)<', plot)
    assert len(set(ticks)) == len(ticks) > 2


def test_names_in_a_scatter_plot_do_not_cover_each_other(look: Open, comparison: Comparison) -> None:
    for width in WIDTHS:
        page = look(comparison, width).page
        for plot in page.locator("svg.scatter:visible").all():
            ends = plot.locator("text.name").evaluate_all(
                "all => all.map(one => one.getBBox()).map(({ x, y, width, height }) => [x, y, x + width, y + height])"
            )
            assert len(ends) == sum(one.cost is not None for one in comparison.systems)
            for one, other in combinations(ends, 2):
                wide = min(one[2], other[2]) - max(one[0], other[0])
                high = min(one[3], other[3]) - max(one[1], other[1])
                assert wide <= 0 or high <= 1


def test_names_with_one_beginning_differ_in_a_scatter_plot() -> None:
    name = "dense and sparse, merged by a fusion with the weight 0."
    points = [Point(f"{name}{n}", "fused", n, Interval(n / 10, n / 10, n / 10), "") for n in (1, 2, 3)]
    for width in (350, 610):
        svg = scatter(points, Axes("ms", "nDCG@10", str, tick), width, 380, "label")
        assert len(set(re.findall(r'class="name"[^>]*>([^<]*)<', svg))) == 3


def test_fifty_systems_fit_into_the_page_of_a_phone(look: Open, comparison: Comparison) -> None:
    first, detail = comparison.systems[0], comparison.details[0]
    systems = (first, *(replace(comparison.systems[1], name=f"dense {number}") for number in range(50)))
    assert look(replace(comparison, systems=systems, details=(detail,)), 360).overflow() == 0


def test_systems_with_numbers_in_their_names_are_sorted_by_them(look: Open, comparison: Comparison) -> None:
    names = ["10", "9", "1a", "100", "2", "b", "0x1"]
    systems = tuple(replace(one, name=name) for one, name in zip(comparison.systems, names, strict=True))
    opened = look(replace(comparison, systems=systems, baseline="10", details=()))
    opened.page.locator("#results th", has_text="System").first.locator("button").click()
    shown = [name.removesuffix("baseline").strip() for name in opened.column(1)]
    assert shown == ["0x1", "1a", "2", "9", "10", "100", "b"]


def test_another_measure_can_be_chosen_for_all_plots(look: Open, comparison: Comparison) -> None:
    page = look(comparison).page
    assert page.locator("svg.scatter:visible").first.get_attribute("aria-label", timeout=1000).startswith("nDCG@10")  # type: ignore[union-attr]
    page.get_by_role("group", name="Measure").first.get_by_role("button", name="R@100").click()
    assert page.locator("svg.scatter:visible").first.get_attribute("aria-label").startswith("R@100")  # type: ignore[union-attr]
    assert page.locator("svg.bars:visible").first.get_attribute("aria-label").endswith("R@100 from the baseline")  # type: ignore[union-attr]
    assert page.locator("svg.bars:visible").count() == len(comparison.systems) - 1


def test_a_point_tells_its_figures_to_mouse_and_keyboard(look: Open, comparison: Comparison) -> None:
    page = look(comparison).page
    point = page.locator("svg.scatter:visible .point").first
    point.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    point.locator(".mark").hover()
    told = page.locator("#tip").inner_text()
    assert "bm25" in told
    assert f"{comparison['bm25'].means['nDCG@10'].mean:.4f}" in told
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.locator("#results summary").last.focus()
    page.keyboard.press("Tab")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('point')"):
            break
    page.wait_for_timeout(100)
    assert page.locator("#tip").is_visible()


def test_bars_tell_their_query_and_open_it(look: Open, comparison: Comparison) -> None:
    page = look(comparison).page
    system = comparison.systems[1]
    own, base = system.scores["nDCG@10"], comparison["bm25"].scores["nDCG@10"]
    order = sorted(own, key=lambda id: -round(own[id] - base[id], 4))
    plot = page.locator("svg.bars:visible").first
    plot.focus()
    for key, query in (("Home", order[0]), ("ArrowRight", order[1]), ("End", order[-1]), ("ArrowLeft", order[-2])):
        page.keyboard.press(key)
        told = page.locator("#tip").inner_text()
        assert re.match(rf"(Query )?{query}\b", told)
        assert f"dense: {own[query]:.3f}" in told
        assert f"bm25: {base[query]:.3f}" in told
    detailed = [detail.id for detail in comparison.details]
    place = next(place for place, query in enumerate(order) if query in detailed)
    page.keyboard.press("Home")
    for _ in range(place):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    opened = page.locator("details.query[open]")
    assert opened.count() == 1
    assert order[place] in opened.locator("summary").inner_text()


def test_a_query_may_have_any_id(look: Open, comparison: Comparison) -> None:
    ids = ("constructor", "__proto__")

    def renamed(one: SystemResult) -> SystemResult:
        scores = {m: dict(zip(ids, of.values(), strict=False)) for m, of in one.scores.items()}
        return replace(one, scores=scores, rankings={})

    page = look(replace(comparison, systems=tuple(map(renamed, comparison.systems)), details=())).page
    page.locator("svg.bars:visible").first.focus()
    told = []
    for key in ("Home", "End"):
        page.keyboard.press(key)
        told.append(page.locator("#tip").inner_text())
    assert {text.split("\n")[0] for text in told} == {f"Query {id}" for id in ids}
    assert "Click" not in "".join(told)


def test_queries_can_be_found_by_words_and_all_be_opened(look: Open, comparison: Comparison) -> None:
    page = look(comparison).page
    page.get_by_label("Find").fill(comparison.details[2].id)
    assert page.locator("details.query:visible").count() < len(comparison.details)
    page.get_by_label("Find").fill("")
    page.get_by_role("button", name="Expand all").click()
    assert page.locator("details.query[open]").count() == len(comparison.details)
    page.get_by_role("button", name="Collapse all").click()
    assert page.locator("details.query[open]").count() == 0


def test_a_query_shows_why_its_hits_are_there(look: Open, comparison: Comparison) -> None:
    page = look(comparison).page
    detail = comparison.details[0]
    page.locator("details.query summary").first.click()
    article = page.locator("details.query[open] article").nth(2)
    assert "rrf" in article.locator("h3").inner_text()
    for shown, hit in zip(article.locator("li").all(), detail.systems["rrf"], strict=True):
        text = shown.inner_text()
        assert hit.id in text
        assert hit.text in shown.locator(".excerpt").inner_text()
        assert shown.locator(".excerpt mark").all_inner_texts() == ["wing"]
        assert all(f"{name} #{rank}" in text for name, rank in hit.retrievers.items())
        assert ("relevant, grade 2" in text) == (hit.grade == 2)
        assert "wing\n3.21" in text or "wing3.21" in text or "wing 3.21" in text


def test_bars_of_time_have_one_scale_where_only_merging_took_any(look: Open, comparison: Comparison) -> None:
    times = {"rrf": 0.2, "minmax & <zscore>": 0.4}

    def merging(one: SystemResult) -> SystemResult:
        return replace(one, cost=Cost(43, fuse_ms=Timing(times[one.name], 1.0)) if one.name in times else None)

    runs = replace(comparison, systems=tuple(map(merging, comparison.systems)))
    page = look(runs).page
    bars = page.locator("#cost .bar-cell .stage-fuse").evaluate_all("all => all.map(one => one.getAttribute('width'))")
    assert list(map(float, bars)) == [50, 100]
    assert page.locator("#cost thead th").all_inner_texts()[2:] == ["Fuse\nms"]  # no index, nothing was encoded


def test_the_machine_stands_below_the_costs(look: Open, comparison: Comparison) -> None:
    told = "Measured on Some Processor 7000 <fast>, cores 2, memory 8 GiB, Linux 6.1."
    assert look(comparison).page.locator("#cost > .note").last.inner_text() == told
    assert "Measured on" not in render(replace(comparison, machine={}))


def test_a_warning_stands_above_the_table(look: Open, comparison: Comparison) -> None:
    warning = look(comparison).page.locator("#results > .warning:first-of-type")
    assert warning.inner_text() == "The fusion of minmax & <zscore> was tuned on these queries."


def test_only_the_baseline_is_called_the_baseline(look: Open, comparison: Comparison) -> None:
    untested = (replace(one, versus={}) if one.kind == "oracle-positives" else one for one in comparison.systems)
    opened = look(replace(comparison, systems=tuple(untested)))
    heads = opened.page.locator("#results thead >> nth=0 >> th").all_inner_texts()
    place = next(place for place, head in enumerate(heads, 1) if head.startswith("Against the baseline"))
    column = opened.column(place)
    assert (column[0], column[5], column.count("baseline")) == ("baseline", "–", 1)


def test_equal_differences_have_bars_of_one_height_in_all_plots(comparison: Comparison) -> None:
    base, better, mixed = comparison.systems[:3]
    gains = {"better": (0.5, 0.0), "mixed": (0.5, -0.5)}
    queries = list(base.scores["nDCG@10"])[:2]

    def scored(one: SystemResult, name: str) -> SystemResult:
        values = dict(zip(queries, (0.5 + gain for gain in gains.get(name, (0.0, 0.0))), strict=True))
        return replace(one, name=name, scores=dict.fromkeys(comparison.measures, values))

    systems = (scored(base, "base"), scored(better, "better"), scored(mixed, "mixed"))
    page = render(replace(comparison, systems=systems, baseline="base", details=()))
    bars = re.findall(r'<path class="win" d="M0 50M0\.08 50V([\d.]+)', page)
    assert bars == ["0"] * 2 * len(comparison.measures)


def test_the_report_says_who_judged_and_which_queries_have_no_results(comparison: Comparison) -> None:
    silent = replace(comparison.systems[6], rankings={"q1": (("d1", 1.0),)})
    facts = replace(comparison.dataset, judged_by="anna & ben")
    page = render(replace(comparison, dataset=facts, systems=(*comparison.systems[:6], silent)))
    assert "judged by <bdi>anna &amp; ben</bdi>" in page
    assert "elsewhere.trec has results for 1 of 60 queries. The others count 0." in page


def test_the_report_says_when_and_on_how_many_queries_times_were_measured(comparison: Comparison) -> None:
    measured = iter((5, 50, 50, 50, 50, 50))
    page = render(_with_costs(comparison, lambda cost: replace(cost, queries=next(measured), timed="2026-11-02 09:30")))
    assert "5 to 50 queries asked one at a time" in page
    assert "measured 2026-11-02 09:30." in page


def test_a_system_that_no_query_tells_from_the_baseline_is_the_same(look: Open, twins: Comparison) -> None:
    page = look(twins).page
    row = page.locator("#results tbody tr", has_text="twin").first.inner_text()
    assert row.count("same") == 2  # as the baseline, and as its best single retriever
    assert "±" not in page.locator("body").inner_text()


# Text that would like to be more


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_text_is_shown_and_never_run(look: Open, comparison: Comparison, width: int) -> None:
    hostile: Comparison = _in_every_text(comparison, lambda text: f"{text} {HOSTILE}")
    opened = look(hostile, width)
    opened.close_to_all_details()
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("main img").count() == 0
    assert opened.overflow() == 0
    shown = opened.page.locator("#results tbody th bdi").first.text_content()
    assert shown == hostile.systems[0].name
    assert opened.page.locator("details.query .query-text").first.text_content() == hostile.details[0].text
    assert opened.page.title().startswith("cranfield (made up) <script>")


def test_characters_that_html_cannot_hold_are_replaced(look: Open, comparison: Comparison) -> None:
    strange: Comparison = _in_every_text(comparison, lambda text: f"{text}\x00\ud800\x1b\x85")
    shown = look(strange).page.locator("#results tbody th bdi").first.text_content()
    assert shown == "bm25" + 4 * "\ufffd"


def test_only_runs_are_said_to_have_no_cost_because_they_are_runs(comparison: Comparison) -> None:
    def without_cost(of: Comparison) -> Comparison:
        kept = (replace(one, cost=None) if one.kind == "oracle-positives" else one for one in of.systems)
        return replace(of, systems=tuple(kept))

    page = render(without_cost(comparison))
    assert "Run files have no costs: elsewhere.trec." in page


# Comparisons with little in them


def _one_system(of: Comparison) -> Comparison:
    return replace(of, systems=(of.systems[0],), details=())


def _runs_only(of: Comparison) -> Comparison:
    runs = tuple(replace(one, kind="run", cost=None, best_single=None, retrievers=()) for one in of.systems)
    return replace(of, systems=runs, details=(), dataset=replace(of.dataset, documents=None), command=None)


def _equal_scores(of: Comparison) -> Comparison:
    first = of.systems[0]
    return replace(of, systems=tuple(replace(one, scores=first.scores, means=first.means) for one in of.systems))


def _without_sparsity(of: Comparison) -> Comparison:
    return _with_costs(of, lambda cost: replace(cost, sparsity={}, documents_per_second={}))


def _with_empty_costs(of: Comparison) -> Comparison:
    return _with_costs(of, lambda _: Cost())


def _nothing_found(of: Comparison) -> Comparison:
    details = tuple(replace(one, relevant=(), systems=dict.fromkeys(one.systems, ())) for one in of.details)
    zeros = {name: dict.fromkeys(scores, 0.0) for name, scores in of.systems[0].scores.items()}
    means = {name: replace(mean, mean=0.0, low=0.0, high=0.0) for name, mean in of.systems[0].means.items()}
    systems = tuple(replace(one, scores=zeros, means=means, rankings={}) for one in of.systems)
    return replace(of, details=details, systems=systems)


def _one_measure(of: Comparison) -> Comparison:
    return replace(of, measures=of.measures[:1])


@pytest.mark.parametrize(
    "reduce",
    [_one_system, _runs_only, _equal_scores, _without_sparsity, _with_empty_costs, _nothing_found, _one_measure],
)
def test_a_comparison_with_little_in_it_has_a_report(
    look: Open, comparison: Comparison, reduce: Callable[[Comparison], Comparison]
) -> None:
    opened = look(reduce(comparison), 360)
    assert opened.overflow() == 0
    assert opened.page.locator("#results tbody tr").count() >= 1
    assert opened.page.locator("svg.bars:visible").count() >= 1
    assert not re.search(r"\b(nan|NaN|None|inf|undefined)\b", opened.page.locator("body").inner_text())


def test_one_query_has_a_report(look: Open, comparison: Comparison) -> None:
    opened = look(_with_queries(comparison, 1), 360)
    assert opened.page.locator("svg.bars:visible").count() == 6
    assert "1 query" in opened.page.locator("header").inner_text()


# The file


def test_the_file_stays_small(comparison: Comparison) -> None:
    large = _with_queries(comparison, 300)
    large = replace(large, systems=(*large.systems, replace(large.systems[2], name="an eighth")))
    details = tuple(replace(large.details[place % 5], id=f"query {place}") for place in range(20))
    assert len(render(replace(large, details=details)).encode()) < 2_000_000


def test_thousands_of_queries_stay_small(comparison: Comparison) -> None:
    assert len(render(_with_queries(comparison, 7000)).encode()) < 2_000_000


def test_every_element_is_closed_and_every_id_is_there_once(comparison: Comparison) -> None:
    checker = _Checker()
    checker.feed(render(comparison))
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.styled == []  # the content security policy does not allow these


def test_the_same_comparison_gives_the_same_file(comparison: Comparison) -> None:
    assert render(comparison) == render(Comparison.from_dict(comparison.to_dict()))


def test_a_folder_that_is_not_there_is_one_clear_error(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"report\.html cannot be written: No such file or directory\."):
        write_html(comparison, tmp_path / "nowhere" / "report.html")


_costs = st.integers(0, 8).map(float)


@given(st.lists(st.tuples(_costs, _costs), min_size=1, max_size=12, unique=True))
def test_the_front_has_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beaten(one: tuple[float, float]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)

    assert pareto(points) == [not beaten(one) for one in points]


# Helpers


class _Checker(HTMLParser):
    """Checks start and end tags. Elements of HTML and SVG that have no content need no end tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.styled: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "input"}:
            self.open.append(tag)
        self._look(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"circle", "line", "path", "polygon", "rect"}
        self._look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _look(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value is not None:
                self.ids.append(value)
            if name == "style" or name.startswith("on"):
                self.styled.append(tag)


def _with_queries(of: Comparison, count: int) -> Comparison:
    """The comparison with `count` queries. The scores of its queries are repeated."""

    def repeated(scores: Mapping[str, float]) -> dict[str, float]:
        values = list(scores.values())
        return {f"query {place}": values[place % len(values)] for place in range(count)}

    systems = (
        replace(one, scores={name: repeated(scores) for name, scores in one.scores.items()}, rankings={})
        for one in of.systems
    )
    return replace(of, systems=tuple(systems), dataset=replace(of.dataset, queries=count))


def _with_costs(of: Comparison, change: Callable[[Cost], Cost]) -> Comparison:
    def changed(one: SystemResult) -> SystemResult:
        return replace(one, cost=None if one.cost is None else change(one.cost))

    return replace(of, systems=tuple(map(changed, of.systems)))


def _in_every_text(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with all its texts changed: names of measures, systems, queries and documents."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _in_every_text(item, change) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_in_every_text(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value) if one.name != "kind"]
        return replace(value, **{name: _in_every_text(getattr(value, name), change) for name in names})
    assert value is None or isinstance(value, int | float)
    assert value is None or math.isfinite(value)
    return value


CONTRASTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(color).map((one) => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor, parts = numbers(color);
      if (parts.length < 4 || parts[3] > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const seen = (element) => element.checkVisibility() && element.getBoundingClientRect().width > 1;
  const text = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, shown = walker.currentNode.textContent.trim();
    if (!shown || element.tagName === "SCRIPT" || !seen(element)) continue;
    const style = getComputedStyle(element), color = element instanceof SVGElement ? style.fill : style.color;
    text.push({ shown, color, contrast: contrast(color, behind(element)) });
  }
  const marks = [...document.querySelectorAll(".mark, .win, .loss, .column, .stacked rect")].filter(seen)
    .filter((one) => !one.matches(".tie, .stage-rest")).map((element) => {
      const style = getComputedStyle(element), hollow = element.matches(".mark.k-oracle-positives");
      const color = hollow ? style.stroke : style.fill;
      return { name: element.getAttribute("class"), color, contrast: contrast(color, behind(element)) };
    });
  return { text, marks };
}"""
