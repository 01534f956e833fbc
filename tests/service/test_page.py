"""Tests of the workbench in a real browser: the shell, Look and Compare."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("fastapi", reason="pip install 'hybridsearch[serve]'")
pytest.importorskip("playwright", reason="pip install playwright to look at pages in a browser")

import uvicorn
from playwright.sync_api import Browser, Locator, Page, expect

import hybridsearch as hs
from hybridsearch.access import Tokens
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.fusion.judged import Strength
from hybridsearch.ranking import Ranking
from hybridsearch.service.agreement import overlap, rank_biased_overlap
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings
from hybridsearch.vectors import DenseVectors

HELPDESK = Path(__file__).resolve().parents[2] / "examples" / "helpdesk"
QUERY = "E13 on the display, engine gets hot"
HOSTILE = "<img src=x onerror=window.hacked=1></textarea><script>window.hacked=1</script> & \u202e\"'"
RANKS = {str(rank) for rank in range(11, 101)}
WIDTHS = (360, 768, 1440, 3840)
TOKEN = "a-token-that-may-read"  # noqa: S105 - of this test


class Letters:
    """A dense encoder that counts pairs of letters."""

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.stack([self._vector(text) for text in texts]), "cosine")

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = np.full(64, 0.01, np.float32)
        for pair in zip(text.lower(), text.lower()[1:], strict=False):
            vector[(ord(pair[0]) * 31 + ord(pair[1])) % 64] += 1
        return vector / np.linalg.norm(vector)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("letters", {})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=64, metric="cosine")


class Short:
    """A reranker that prefers short texts."""

    top_k = 15

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]) -> list[NDArray[np.float64]]:
        return [np.array([-float(len(one.text)) for one in of_query]) for of_query in documents]

    def to_json(self) -> None:
        return None


RETRIEVERS = {"bm25": hs.BM25(), "dense": Letters()}
JUDGED = hs.JudgedFusion({"bm25": 0.5, "dense": 0.5}, strengths={"bm25": Strength(0.5, 0.1, 0.1, 1.0)}, queries=50)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an index of the help desk."""
    folder = tmp_path_factory.mktemp("page") / "help"
    with hs.HybridSearch(RETRIEVERS, folder) as search:
        search.index(HELPDESK, show_progress_bar=False)
    return folder


@pytest.fixture(scope="module")
def search(place: Path) -> Iterator[hs.HybridSearch]:
    with hs.open(place, retrievers=RETRIEVERS) as opened:
        yield opened


def serve(indexes: Mapping[str, ServedIndex], tokens: Tokens | None = None, **options: Any) -> Iterator[str]:
    """Serve indexes in a thread of this process, at the address that is returned."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(indexes, Settings(**options), tokens)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(scope="module")
def address(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with four indexes: as it is, reranked, with hostile texts, and with a judged fusion."""
    hostile = tmp_path_factory.mktemp("hostile") / "hostile"
    with hs.HybridSearch({"bm25": hs.BM25()}, hostile) as made:
        text = f"hostile words {HOSTILE} more hostile words"
        made.index([hs.Document(HOSTILE, text, HOSTILE, {HOSTILE: HOSTILE})], show_progress_bar=False)
    yield from serve(
        {
            "help": ServedIndex("help", str(place), retrievers=RETRIEVERS),
            "reranked": ServedIndex("reranked", str(place), retrievers=RETRIEVERS, reranker=Short()),
            "hostile": ServedIndex("hostile", str(hostile)),
            "judged": ServedIndex("judged", str(place), retrievers=RETRIEVERS, fusion=JUDGED),
        },
        queries=(str(HELPDESK),),
    )


@dataclass
class Opened:
    """The page in the browser, with its requests and complaints."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The document ids of a column of Look."""
        return [str(row.get_attribute("data-id")) for row in self.rows(name).all()]

    def rows(self, name: str) -> Locator:
        return self.page.locator("section.column", has=self.page.get_by_role("heading", name=name)).locator(".row")

    def asked(self) -> int:
        """The number of requests for rankings."""
        return sum(url.endswith("/look") for url in self.requests)

    def overflow(self) -> int:
        """The number of pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


Open = Callable[..., Opened]


@pytest.fixture
def look(new_page: Callable[..., Page], address: str) -> Iterator[Open]:
    """A function that opens the page. It may ask only its server, and may break neither a rule nor its policy."""
    every: list[Opened] = []

    def opener(
        hash: str = "", *, at: str = address, width: int = 1600, scheme: str = "light", motion: str = "reduce"
    ) -> Opened:
        requests, complaints = list[str](), list[str]()
        page = new_page(
            width,
            1000,
            scheme,
            motion,
            request=lambda request: requests.append(request.url),
            console=lambda message: complaints.append(message.text),
            pageerror=lambda error: complaints.append(str(error)),
        )
        page.route(lambda url: not url.startswith(at), lambda route: route.abort())
        page.set_default_timeout(10_000)
        page.goto(at + hash)
        every.append(Opened(page, requests, complaints))
        return every[-1]

    yield opener
    for opened in every:
        assert [url for url in opened.requests if not url.startswith("http://127.0.0.1:")] == []
        assert opened.complaints == []
        assert opened.page.evaluate("window.hacked") is None


def at_look(index: str = "help", query: str = QUERY, **state: Any) -> str:
    """The part of an address that opens Look with a query."""
    given = {"index": index, "q": query} | {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in state.items()
    }
    return "#/look?" + "&".join(f"{name}={quote(value)}" for name, value in given.items())


def fused(page: Page) -> Locator:
    return page.locator(".column.fused .row")


# Merging in the browser


@pytest.fixture(scope="module")
def merging(browser: Browser, address: str) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A function that merges rankings in the browser."""
    page = browser.new_page()
    page.goto(address)
    yield lambda case: page.evaluate(
        "async (case_) => { const { merge } = await import('/page/merge.js');"
        "const { ids, scores, contributions } = merge(case_.rankings, case_.fusion, case_.candidates);"
        "return { ids, scores, contributions: Object.fromEntries(Object.entries(contributions)"
        ".map(([name, of]) => [name, [...of.values()]])) }; }",
        case,
    )
    page.close()


IDS = [f"d{number}" for number in range(140)] + ["é", "z", "\U0001f600", "\U0001f600a", "\uffee", "\ue000"]
# Some sums of these are half-way between two numbers of 12 digits.
SCORES = st.one_of(
    st.floats(-1e12, 1e12, allow_subnormal=False),
    st.integers(0, 6).map(lambda value: value / 8),
    st.integers(10**12, 10**13).map(lambda value: value / 8),
)
RANKINGS = st.dictionaries(
    st.sampled_from(["bm25", "dense", "sparse"]),
    st.lists(st.sampled_from(IDS), unique=True, max_size=140).flatmap(
        lambda ids: st.lists(SCORES, min_size=len(ids), max_size=len(ids)).map(
            lambda scores: dict(zip(ids, scores, strict=True))
        )
    ),
    min_size=1,
)
WEIGHTS = (
    st.fixed_dictionaries({name: st.floats(0.05, 50) | st.just(1.0) for name in ("bm25", "dense", "sparse")})
    | st.none()
)
FUSIONS = st.one_of(
    st.builds(hs.RRF, st.floats(0, 200) | st.just(60), WEIGHTS),
    st.builds(hs.ScoreFusion, st.sampled_from(["minmax", "zscore", "none"]), WEIGHTS),
)


@given(scores=RANKINGS, fusion=FUSIONS, candidates=st.sampled_from([1, 5, 20, 1000]))
def test_the_browser_merges_to_the_same_bits_as_python(
    merging: Callable[[dict[str, Any]], Any], scores: dict[str, dict[str, float]], fusion: hs.Fusion, candidates: int
) -> None:
    rankings = {name: Ranking.from_scores(of) for name, of in scores.items()}
    expected, contributions = fusion.explain({name: ranking.top(candidates) for name, ranking in rankings.items()})
    found = merging(
        {
            "rankings": {
                name: {"ids": list(ranking.ids), "scores": ranking.scores.tolist()}
                for name, ranking in rankings.items()
            },
            "fusion": fusion.to_json(),
            "candidates": candidates,
        }
    )
    assert found["ids"] == list(expected.ids)
    assert found["scores"] == expected.scores.tolist()
    assert found["contributions"] == {name: list(of.values()) for name, of in contributions.items()}


# Look


def test_the_columns_are_the_rankings_of_the_search(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look())
    fused(opened.page).first.wait_for()
    (rankings,) = search.rankings([QUERY])
    assert opened.column("bm25") == list(rankings["bm25"].ids[:10])
    assert opened.column("dense") == list(rankings["dense"].ids[:10])
    assert opened.column("fused") == search.search(QUERY).ids
    titles = opened.page.locator(".column.fused .title").all_inner_texts()
    assert titles == [hit.document.title for hit in search.search(QUERY)]
    assert opened.rows("bm25").first.locator("mark").first.inner_text() == "E13"
    assert "encode dense" in opened.page.get_by_role("list", name="Time of each stage").inner_text()


def test_reranked_documents_have_a_column_of_their_own(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look("reranked"))
    opened.rows("reranked").first.wait_for()
    expected = search.search(QUERY, reranker=Short())
    assert opened.column("fused") == search.search(QUERY).ids
    assert opened.column("reranked") == expected.ids
    chip = opened.rows("reranked").first.locator(".chip", has_text="fused").inner_text()
    assert chip.split()[:2] == ["fused", str(expected[0].rank_before_reranking)]


def test_settings_merge_again_without_a_request(look: Open, search: hs.HybridSearch) -> None:
    weights = {"bm25": 0.5, "dense": 2}
    opened = look(at_look())
    page = opened.page
    fused(page).first.wait_for()
    asked = opened.asked()
    page.get_by_label("k", exact=True).fill("5")
    page.get_by_label("bm25", exact=True).fill("0.5")
    page.get_by_label("dense, exact").fill("2")
    page.get_by_label("Candidates", exact=True).fill("12")
    found = {}
    for kind, fusion in {
        "RRF": hs.RRF(5, weights),
        "min-max": hs.ScoreFusion("minmax", weights),
        "z-score": hs.ScoreFusion("zscore", weights),
        "none": hs.ScoreFusion("none", weights),
    }.items():
        page.get_by_label(kind, exact=True).check()
        found[kind] = opened.column("fused")
        assert found[kind] == search.search(QUERY, fusion=fusion, candidates=12).ids
    assert opened.asked() == asked
    assert len(set(map(tuple, found.values()))) > 2
    page.reload()  # the address has the settings
    fused(page).first.wait_for()
    assert opened.column("fused") == found["none"]
    assert page.get_by_label("dense, exact").input_value() == "2"


def test_a_fusion_that_only_the_service_knows_is_asked_for(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look())
    fused(opened.page).first.wait_for()
    with opened.page.expect_response("**/look"):
        opened.page.get_by_label("adaptive").check()
    expected = search.search(QUERY, fusion="adaptive").ids
    opened.page.locator(f".column.fused li:first-child .row[data-id='{expected[0]}']").wait_for()
    assert opened.column("fused") == expected


def test_the_weights_of_a_judged_fusion_can_be_changed(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look("judged"))
    fused(opened.page).first.wait_for()
    assert opened.column("fused") == search.search(QUERY, fusion=JUDGED).ids
    expected = search.search(QUERY, fusion=hs.JudgedFusion({"bm25": 0.5, "dense": 0})).ids
    with opened.page.expect_response("**/look"):
        opened.page.get_by_label("dense, exact").fill("0")
    opened.page.locator(f".column.fused li:first-child .row[data-id='{expected[0]}']").wait_for()
    assert opened.column("fused") == expected


def test_the_reranker_scores_the_documents_that_come_into_its_reach(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look("reranked"))
    opened.rows("reranked").first.wait_for()
    weights = {"bm25": 0.0, "dense": 1.0}
    with opened.page.expect_response("**/look"):
        opened.page.get_by_label("bm25, exact").fill("0")
    expected = search.search(QUERY, fusion=hs.RRF(weights=weights), reranker=Short()).ids
    opened.page.locator(f".column.reranked li:first-child .row[data-id='{expected[0]}']").wait_for()
    assert opened.column("reranked") == expected


def test_weights_of_zero_are_explained(look: Open) -> None:
    opened = look(at_look(a={"fusion": {"type": "rrf", "k": 60, "weights": {"bm25": 1, "dense": 0}}}))
    fused(opened.page).first.wait_for()
    opened.page.get_by_label("bm25, exact").fill("0")
    assert "All weights of A are 0" in opened.page.locator(".notes").inner_text()
    assert opened.rows("bm25").count() > 0


def test_a_line_follows_each_document_to_the_next_column(look: Open) -> None:
    opened = look(at_look())
    fused(opened.page).first.wait_for()
    dense, both = opened.column("dense"), opened.column("fused")
    pair = ".lines g.line[data-id='{}']"
    for id in set(dense) & set(both):
        way = "up" if both.index(id) < dense.index(id) else "down" if both.index(id) > dense.index(id) else "level"
        lines = opened.page.locator(pair.format(id)).all()
        assert way in [str(line.get_attribute("class")).split()[0] for line in lines]
    (gone,) = [id for id in dense if id not in both][:1]
    assert opened.page.locator(f".lines g.leaves[data-id='{gone}'] text").text_content() in RANKS
    row = opened.rows("fused").nth(2)
    row.hover()
    marked = opened.page.locator(".row.on")
    assert {one.get_attribute("data-id") for one in marked.all()} == {row.get_attribute("data-id")}


def test_equal_ranks_have_equal_heights(look: Open) -> None:
    opened = look(at_look(b=BOTH))
    fused(opened.page).first.wait_for()
    places = [[row.bounding_box() for row in opened.rows(name).all()] for name in ("dense", "A fused", "B fused")]
    tops = [[(box["y"], box["height"]) for box in column if box] for column in places]
    assert tops[0] == tops[1] == tops[2]


def test_rows_move_to_their_new_places(look: Open) -> None:
    opened = look(at_look(), motion="no-preference")
    fused(opened.page).first.wait_for()
    opened.page.evaluate(
        "window.moved = 0; new MutationObserver(all => all.forEach(one => {"
        " if (one.target.style.transform.includes('translateY')) window.moved += 1 }))"
        ".observe(document.querySelector('.board'), { subtree: true, attributeFilter: ['style'] })"
    )
    opened.page.get_by_label("none", exact=True).check()
    opened.page.wait_for_timeout(400)  # a movement takes 260 ms
    opened.page.locator(".row[style*='translateY']").first.wait_for(state="detached")
    assert opened.page.evaluate("window.moved") > 0
    tops = [row.bounding_box() for row in opened.rows("fused").all()]
    assert [box["y"] for box in tops if box] == sorted(box["y"] for box in tops if box)


def test_a_click_explains_the_hit_with_the_numbers_of_explain(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look())
    page = opened.page
    page.route("**/explain", lambda route: (panel.get_by_text("Explaining…").wait_for(), route.continue_()), times=1)
    panel = page.get_by_role("dialog", name="Explanation")
    fused(page).nth(1).click()
    expected = search.search(QUERY)[1].explain()
    panel.locator(".sums").wait_for()
    for name, of in expected.retrievers.items():
        cells = panel.locator("tbody tr", has_text=name).locator("td").all_inner_texts()
        assert int(cells[0]) == of.rank
        assert float(cells[1]) == pytest.approx(of.score, rel=1e-4)
        assert float(cells[2]) == pytest.approx(of.contribution, rel=1e-4)
    assert expected.fused_score is not None
    assert float(panel.locator("tfoot .adds").inner_text()) == pytest.approx(expected.fused_score, rel=1e-4)
    assert panel.locator(".term").all_inner_texts() == list(expected.terms["bm25"])
    (document,) = search.get(expected.id)
    assert document is not None
    assert panel.locator(".text").inner_text() == document.text
    assert panel.locator(".text .nearest").count() > 0
    page.keyboard.press("j")
    panel.get_by_role("heading", name=search.search(QUERY)[2].document.title).wait_for()
    page.keyboard.press("Escape")
    assert panel.count() == 0
    assert page.evaluate("document.activeElement.className").startswith("row")


def test_a_filter_is_built_from_the_fields_of_the_index(look: Open, search: hs.HybridSearch) -> None:
    opened = look(at_look())
    page = opened.page
    fused(page).first.wait_for()
    page.get_by_role("button", name="+ Condition").click()
    assert page.get_by_label("Field").locator("option").all_inner_texts() == ["kind", "product", "year"]
    with page.expect_response("**/look"):
        page.get_by_label("Value").fill("fault")
    page.get_by_role("button", name="+ Condition").click()
    page.get_by_label("Field").nth(1).select_option("year")
    page.get_by_label("Condition", exact=True).nth(1).select_option("≥")
    with page.expect_response("**/look"):
        page.get_by_label("Value").nth(1).fill("2023")
    wanted = {"kind": "fault", "year": {"$gte": 2023}}
    expected = search.search(QUERY, filter=wanted).ids
    page.locator(f".column.fused li:nth-child({len(expected)}):last-child").wait_for()
    assert opened.column("fused") == expected
    page.get_by_text("As JSON").click()
    raw = page.get_by_label("Filter as JSON")
    assert json.loads(raw.input_value()) == wanted
    raw.fill('{"kind": ')
    assert page.get_by_text("This is not a JSON object yet.").is_visible()
    with page.expect_response("**/look"):
        raw.fill('{"$or": [{"kind": "policy"}]}')
    page.reload()
    fused(page).first.wait_for()
    assert opened.column("fused") == search.search(QUERY, filter={"kind": "policy"}).ids
    raw.fill('{"year": {"$newer": 1}}')
    page.get_by_role("alert").get_by_text("unknown operator").wait_for()
    opened.complaints.clear()  # Chromium writes about the status 400


def test_each_condition_of_a_filter_counts(look: Open, search: hs.HybridSearch) -> None:
    wanted = {"year": {"$ne": 2023}, "$and": [{"year": {"$ne": 2024}}]}
    opened = look(at_look(filter=wanted))
    page = opened.page
    fused(page).first.wait_for()
    assert [field.input_value() for field in page.get_by_label("Value").all()] == ["2023", "2024"]
    page.get_by_role("button", name="+ Condition").click()
    page.get_by_label("Field").nth(2).select_option("year")
    page.get_by_label("Condition", exact=True).nth(2).select_option("≠")
    with page.expect_response("**/look"):
        page.get_by_label("Value").nth(2).fill("2022")
    wanted["$and"].append({"year": {"$ne": 2022}})  # type: ignore[attr-defined]
    page.get_by_text("As JSON").click()
    assert json.loads(page.get_by_label("Filter as JSON").input_value()) == wanted
    expected = search.search(QUERY, filter=wanted).ids
    assert expected != search.search(QUERY, filter={"year": {"$ne": 2022}}).ids
    page.locator(f".column.fused li:nth-child({len(expected)}):last-child").wait_for()
    assert opened.column("fused") == expected


def test_everything_can_be_reached_by_keys(look: Open, search: hs.HybridSearch) -> None:
    opened = look("#/look?index=help")
    page = opened.page
    page.get_by_role("searchbox").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    fused(page).first.wait_for()
    focused = "[document.activeElement.dataset.column, document.activeElement.dataset.id]"
    page.keyboard.press("ArrowDown")
    ids = search.search(QUERY).ids
    assert page.evaluate(focused) == ["f:a", ids[0]]
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == ["f:a", ids[1]]
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == ["r:dense", ids[1]]
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Explanation").locator(".sums").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    assert "Follow a document to another ranking" in keys.inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "query"
    assert page.locator("#status").inner_text() != ""


def test_a_closed_dialog_does_not_take_the_focus_again(look: Open) -> None:
    page = look("#/look?index=help").page
    page.get_by_role("searchbox").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.locator("#theme").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    # The browser tells the page of the close later than it closes. The user may have gone on by then.
    page.evaluate(
        """new Promise((told) => {
            const dialog = document.querySelector("dialog");
            dialog.addEventListener("close", () => setTimeout(told));
            dialog.close();
            document.querySelector("main [type=search]").focus();
        })"""
    )
    assert page.evaluate("document.activeElement.type") == "search"


def test_the_back_button_goes_to_the_query_before(look: Open) -> None:
    opened = look("#/look?index=help")
    box = opened.page.get_by_role("searchbox")
    for query in ("brake", "charger"):
        box.fill(query)
        box.press("Enter")
        fused(opened.page).first.wait_for()
    opened.page.go_back()
    expect(box).to_have_value("brake")


def test_a_narrow_page_shows_one_ranking_at_a_time(look: Open) -> None:
    opened = look(at_look(), width=360)
    fused(opened.page).first.wait_for()
    visible = opened.page.locator("section.column:visible")
    assert visible.count() == 1
    opened.page.get_by_role("group", name="Ranking").get_by_role("button", name="bm25").click()
    assert visible.locator(".name").inner_text() == "bm25"


def test_hostile_texts_are_only_shown(look: Open) -> None:
    opened = look(at_look("hostile", "hostile words"))
    row = fused(opened.page).first
    assert row.locator(".title").inner_text() == HOSTILE
    row.click()
    panel = opened.page.get_by_role("dialog")
    panel.locator(".metadata").wait_for()
    assert HOSTILE in panel.locator(".metadata").inner_text()
    assert opened.page.locator("main img, dialog img, script:not([src])").count() == 0


# Compare


def test_two_configurations_are_compared_over_the_queries_of_a_set(look: Open, search: hs.HybridSearch) -> None:
    opened = look("#/compare?index=help")
    page = opened.page
    page.get_by_role("button", name="helpdesk (40 queries)").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#status", has_text="40 queries compared").wait_for(state="attached")
    queries = [json.loads(line)["text"] for line in (HELPDESK / "queries.jsonl").read_text().splitlines()]
    one = [results.ids for results in search.search_many(queries, fusion="rrf")]
    other = [results.ids for results in search.search_many(queries, fusion="minmax")]
    pairs = list(zip(one, other, strict=True))
    values = page.locator(".tile .value").all_inner_texts()
    assert [float(value.rstrip("%")) for value in values] == [
        pytest.approx(100 * np.mean([overlap(*pair) for pair in pairs]), abs=0.051),
        pytest.approx(np.mean([rank_biased_overlap(*pair) for pair in pairs]), abs=0.00051),
        sum(a[:1] != b[:1] for a, b in pairs),
        sum(a == b for a, b in pairs),
    ]
    most = sorted(range(40), key=lambda number: rank_biased_overlap(*pairs[number]))
    assert page.locator(".change .title").all_inner_texts() == [queries[number] for number in most]

    page.locator(".change").first.click()  # opens the query in Look, with both configurations
    opened.rows("B fused").first.wait_for()
    assert opened.column("A fused") == one[most[0]]
    assert opened.column("B fused") == other[most[0]]
    page.go_back()
    page.locator(".tile .value").first.wait_for()  # the comparison is still there
    assert page.locator(".tile .value").all_inner_texts() == values


def test_conditions_that_the_builder_cannot_show_stay(look: Open) -> None:
    one_of = {"kind": {"$in": ["fault", "guide"]}}
    for parts in (one_of, {"kind": None}, {"kind": ""}, {"$and": [one_of]}):
        page = look(at_look(filter=parts)).page
        page.get_by_role("button", name="+ Condition").click()
        page.get_by_label("Field", exact=True).last.select_option("year")
        page.get_by_label("Value", exact=True).last.fill("2023")
        kept = json.loads(page.get_by_label("Filter as JSON").input_value())
        assert kept == {"year": 2023, "$and": [one_of if "$and" in parts else parts]}


def test_a_number_that_is_not_used_does_not_stay_in_its_field(look: Open) -> None:
    page = look(at_look()).page
    fused(page).first.wait_for()
    candidates = page.get_by_label("Candidates, exact")
    candidates.fill("5")
    page.locator(".settings summary", has_text="5 candidates").wait_for()
    for unused in ("-3", "", "4.6"):
        candidates.fill(unused)
        candidates.blur()
        expect(candidates).to_have_value("5")


def test_a_query_that_is_taken_back_leaves_no_dim_page(look: Open) -> None:
    page = look("#/look?index=help").page
    page.route("**/look", lambda route: None)  # an answer that takes long
    page.get_by_role("searchbox").fill("brake")
    page.locator(".board.waits").wait_for()
    page.get_by_role("searchbox").fill("")
    page.get_by_text("Type a query to see").wait_for()
    page.locator(".board:not(.waits)").wait_for()
    page.unroute_all(behavior="ignoreErrors")


def test_queries_come_from_a_file_or_are_pasted(look: Open, tmp_path: Path) -> None:
    page = look("#/compare?index=help").page
    field = page.get_by_label("Queries", exact=True)
    files = {
        "log.log": ('{"query": "brake"}\n{"query": "charger"}\n', ["brake", "charger"]),
        "queries.jsonl": (
            '{"_id": "1", "text": "front  brake"}\n{"_id": "2", "text": "E13"}\n',
            ["front brake", "E13"],
        ),
        "queries.csv": ('id,text\n1,"brake, front"\n2,"a ""loud"" noise"\n', ["brake, front", 'a "loud" noise']),
        "queries.tsv": ("1\tbrake\n2\tcharger\n", ["brake", "charger"]),
    }
    for name, (content, queries) in files.items():
        for encoding in ("utf-8", "utf-16"):
            (tmp_path / name).write_bytes(content.encode(encoding))
            field.fill("")
            page.locator("input[type=file]").set_input_files(tmp_path / name)
            page.locator("form [role=status]", has_text="2 queries").wait_for()
            assert field.input_value().split("\n") == queries
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    page.locator("input[type=file]").set_input_files(tmp_path / "latin.txt")
    page.get_by_role("alert").get_by_text("save it as UTF-8").wait_for()
    field.fill("brake\ncharger\nbattery\nE13")
    page.get_by_label("B, settings").get_by_label("RRF").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#status", has_text="All results are the same").wait_for(state="attached")
    field.fill("brake\n\nbrake\n")
    assert page.get_by_text("1 query", exact=True).is_visible()


def test_compare_takes_the_settings_of_look_and_look_its_query_back(look: Open) -> None:
    page = look(at_look()).page
    fused(page).first.wait_for()
    page.get_by_label("min-max", exact=True).check()
    page.get_by_role("link", name="Compare").click()
    one, other = (page.get_by_label(f"{name}, settings").get_by_role("radio", checked=True) for name in "AB")
    expect(one).to_have_value("minmax")
    expect(other).to_have_value("rrf")
    page.get_by_label("A, settings").get_by_label("z-score").check()
    page.get_by_role("link", name="Look").click()
    expect(page.get_by_role("searchbox")).to_have_value(QUERY)
    expect(page.get_by_label("z-score", exact=True)).to_be_checked()


# The shell


def test_the_theme_can_be_chosen(look: Open) -> None:
    page = look(scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(background)
    page.reload()
    page.get_by_role("button", name="Light theme").wait_for()
    assert page.evaluate(background) == dark != light


def test_a_service_with_tokens_is_asked_with_one(look: Open, place: Path) -> None:
    indexes = {"help": ServedIndex("help", str(place), retrievers=RETRIEVERS)}
    for at in serve(indexes, Tokens.parse(f"read:{TOKEN}")):
        opened = look(at_look(), at=at)
        token = opened.page.get_by_label("Token", exact=True)
        token.fill("tökén-€-with-letters")  # no header can hold it
        token.press("Enter")
        assert token.is_visible()
        token.fill("another-token-that-is-wrong")
        token.press("Enter")
        opened.page.get_by_text("does not know this token").wait_for()
        token.fill(f" {TOKEN} ")
        token.press("Enter")
        fused(opened.page).first.wait_for()
        opened.complaints.clear()  # Chromium writes about the status 401


@pytest.mark.parametrize("id", ["constructor", "__proto__"])
def test_a_document_may_have_the_id_of_a_part_of_javascript(look: Open, id: str) -> None:
    opened = look("#/constructor?index=hostile&q=hostile")
    page = opened.page
    assert page.get_by_role("link", name="Look").get_attribute("aria-current") == "page"

    def also(route: Any) -> None:
        answer = route.fetch().json()
        answer["retrievers"]["bm25"] = {"ids": [HOSTILE, id], "scores": [2.0, 1.0]}  # without title and snippet
        route.fulfill(json=answer)

    page.route("**/look", also)
    page.get_by_role("searchbox").fill("words")
    page.locator(f".column.fused .row[data-id='{id}'] .title", has_text=id).wait_for()
    assert page.locator(f".column.fused .row[data-id='{id}'] .snippet").count() == 0
    page.unroute_all(behavior="ignoreErrors")


def test_the_page_works_without_storage(look: Open) -> None:
    page = look().page
    page.add_init_script(
        "Storage.prototype.getItem = Storage.prototype.setItem = () => { throw new DOMException('off'); };"
    )
    page.reload()
    page.get_by_role("searchbox").fill("brake")
    fused(page).first.wait_for()


def test_the_skip_link_keeps_the_tab(look: Open) -> None:
    page = look("#/compare?index=help").page
    page.get_by_label("A, settings").wait_for()
    page.get_by_role("link", name="Skip to the content").press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_label("A, settings").get_by_label("z-score").check()
    assert page.evaluate("location.hash").startswith("#/compare?")
    assert page.get_by_role("link", name="Compare").get_attribute("aria-current") == "page"


def test_an_index_that_does_not_answer_shows_nothing_of_another_one(look: Open) -> None:
    opened = look("#/look?index=help")
    page = opened.page
    page.get_by_role("searchbox").wait_for()
    page.route("**/workbench/hostile", lambda route: route.abort())
    page.locator("#index").select_option("hostile")
    page.get_by_role("alert").get_by_text("The service does not answer.").wait_for()
    assert page.get_by_role("searchbox").count() == 0
    page.locator("#index").select_option("help")
    page.get_by_role("searchbox").wait_for()
    opened.complaints.clear()


def test_problems_are_told_in_a_sentence(look: Open) -> None:
    opened = look("#/look?index=nothing")
    alert = opened.page.get_by_role("alert")
    assert 'There is no index "nothing"' in alert.inner_text()
    opened.page.route("**/look", lambda route: route.abort())
    opened.page.get_by_role("searchbox").fill("brake")
    alert.get_by_text("The service does not answer. Is it still running?").wait_for()
    opened.complaints.clear()  # Chromium writes about the failed request


BOTH = {"fusion": {"type": "score", "normalization": "minmax", "weights": None}}


def test_the_page_never_scrolls_sideways(look: Open) -> None:
    opened = look(at_look("reranked", b=BOTH))
    fused(opened.page).first.wait_for()

    def check() -> None:
        for width in WIDTHS:
            opened.page.set_viewport_size({"width": width, "height": 1000})
            opened.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            assert (width, opened.overflow()) == (width, 0)

    check()
    opened.page.locator("section.column:visible .row").first.click()
    opened.page.locator(".sums").wait_for()
    check()
    assert opened.page.locator(".inside").evaluate("one => one.scrollWidth - one.clientWidth") == 0
    opened.page.keyboard.press("Escape")
    compare(opened)
    check()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1440, "dark")])
def test_the_page_breaks_no_rule_of_axe(look: Open, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python").Axe()
    opened = look("#/look?index=reranked", width=width, scheme=scheme)

    def check() -> None:
        violations = axe.run(opened.page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in violations] == []

    opened.page.locator(".tries button").first.wait_for()
    check()
    opened.page.goto(re.sub("#.*", "", opened.page.url) + at_look("reranked", b=BOTH, filter={"kind": "fault"}))
    opened.page.locator("section.column:visible .row").nth(1).click()
    opened.page.locator(".sums").wait_for()
    check()
    opened.page.keyboard.press("Escape")
    opened.page.locator("details.settings").evaluate("one => { one.open = true }")
    check()
    compare(opened)
    check()


def compare(opened: Opened) -> None:
    """Compare three queries."""
    opened.page.get_by_role("link", name="Compare").click()
    opened.page.get_by_label("Queries", exact=True).fill("brake\nscreen won't turn on\nE13")
    opened.page.get_by_role("button", name="Compare", exact=True).click()
    opened.page.locator("#status", has_text="3 queries compared").wait_for(state="attached")
