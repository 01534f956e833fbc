"""Tests of Judge and Choose in a real browser, by what a person sees. Most people use only the keyboard there."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("fastapi", reason="pip install 'hybridsearch[serve]'")
pytest.importorskip("playwright", reason="pip install playwright to look at pages in a browser")

import uvicorn
from playwright.sync_api import expect

import hybridsearch as hs
from hybridsearch.access import Tokens
from hybridsearch.evaluation.measures import read_qrels
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "<img src=x onerror=window.hacked=1></textarea><script>window.hacked=1</script>"
WORDS = ("alder", "birch", "cedar", "maple", "oaken", "poplar", "rowan", "spruce", "willow", "linden")
NAMES = (
    "sitting",
    "keys",
    "fails",
    "away",
    "clicks",
    "late",
    "files",
    "jobs",
    "judges",
    "programs",
    "hostile",
    "reads",
    "axe",
)
READ = "a-token-that-may-read"
_SHOWN = """() => document.querySelector(".finished") ? null
    : [document.querySelector(".query h2").innerText, document.querySelector(".document .id").innerText]"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that keeps the judgements."""
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def address(trees: Path, judged: Path) -> Iterator[str]:
    """The address of a service with one index under several names, each for one test."""
    queries = judged.parent / "trees.tsv"
    queries.write_text("q01\talder\nq02\tbirch\n")
    yield from serve(Settings(judgements=str(judged), allow_write=True, queries=(str(queries),)), Tokens(), trees)


def serve(settings: Settings, tokens: Tokens, place: Path) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app({name: ServedIndex(name, str(place)) for name in NAMES}, settings, tokens)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    listening.close()


@dataclass
class Opened:
    """The page in the browser, with its complaints."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def make_pools(self, *queries: str, depth: int = 3) -> None:
        """Fill in what is judged, and wait for the pools."""
        self.page.get_by_label("Queries, one in each line").fill("\n".join(queries))
        self.page.get_by_label("First documents of each system").fill(str(depth))
        self.page.get_by_role("button", name="Make the pools").click()
        self.page.get_by_role("heading", name="Who are you?").wait_for()

    def begin(self, judge: str) -> None:
        """Give a name."""
        self.page.get_by_label("Your name").fill(judge)
        self.page.keyboard.press("Enter")
        self.page.locator(".document .text").wait_for()

    @property
    def document(self) -> str:
        return self.page.locator(".document .id").inner_text()

    @property
    def query(self) -> str:
        return self.page.locator(".query h2").inner_text()

    @property
    def progress(self) -> str:
        return self.page.locator(".judge-progress .small").first.inner_text()

    def judge_all(self, grade: Callable[[str, str], int]) -> None:
        """Grade each document by one key, until everything is judged."""
        shown = self.page.evaluate(_SHOWN)
        while shown:
            self.page.keyboard.press(str(grade(*shown)))
            before, until = shown, time.monotonic() + 15
            while shown == before and time.monotonic() < until:  # `wait_for_function` needs eval, which is forbidden
                shown = self.page.evaluate(_SHOWN)
            assert shown != before

    def violations(self, **options: object) -> list[object]:
        """The rules of axe that the page breaks, with the elements."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
        found = axe.Axe().run(self.page, options=options).response["violations"]
        return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]

    def overflow(self) -> int:
        """The number of pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


Open = Callable[..., Opened]


@pytest.fixture
def look(new_page: Callable[..., Page], address: str) -> Iterator[Open]:
    """A function that opens the page. It may ask only its server, and may break neither a rule nor its policy."""
    every: list[Opened] = []

    def opener(hash: str, *, at: str = address, width: int = 1200, scheme: str = "light") -> Opened:
        complaints: list[str] = []
        page = new_page(
            width,
            900,
            scheme,
            "no-preference",
            console=lambda message: complaints.append(message.text),
            pageerror=lambda error: complaints.append(str(error)),
        )
        page.route(lambda url: not url.startswith((at, "blob:")), lambda route: route.abort())
        page.set_default_timeout(15_000)
        page.goto(at + hash)
        every.append(Opened(page, complaints))
        return every[-1]

    yield opener
    for opened in every:
        assert opened.complaints == []
        assert opened.page.evaluate("window.hacked") is None


def test_from_no_judgement_to_a_fusion_in_use_by_keys_alone(
    look: Open, address: str, judged: Path, trees: Path
) -> None:
    """Queries are beginnings of words, which only `chars` finds."""
    opened = look("#/judge?index=sitting")
    page = opened.page
    opened.make_pools(*(word[:4] for word in WORDS))
    pool = json.loads((judged / "sitting" / "pool.json").read_text())["documents"]
    assert page.get_by_text(f"{sum(map(len, pool.values()))} documents of 10 queries to judge").is_visible()
    opened.begin("anna")
    assert opened.query == "alde"
    assert page.locator(".rank, .score").count() == 0
    opened.judge_all(lambda query, document: 3 if document.startswith(query) else 0)
    page.locator(".saved", has_text="saved").wait_for()
    lines = (judged / "sitting" / "grades.jsonl").read_text().splitlines()
    assert opened.progress == f"{len(lines)} of {len(lines)} documents"
    page.get_by_role("link", name="Go to Choose").press("Enter")
    page.get_by_role("button", name="Measure and tune").press("Enter")
    page.get_by_role("heading", name="Advice: chars alone").wait_for(timeout=60_000)
    assert page.get_by_text("There are only 10 judged queries.").is_visible()
    row = page.get_by_role("row").filter(has=page.get_by_text("chars", exact=True)).first
    with hs.open(trees) as search:
        dataset = hs.Judgements(judged / "sitting").dataset()
        measured = hs.evaluate(hs.Pipeline(search, ["chars"]), dataset, latency_queries=0, show_progress_bar=False)
    assert row.locator(".range b").inner_text() == f"{measured.means['nDCG@10'].mean:.3f}"
    page.locator(".report summary").press("Enter")
    report = page.frame_locator("iframe")
    report.get_by_role("heading", name="sitting").wait_for()
    report.locator("th button").first.click()  # its script may run
    assert report.locator("[aria-sort]").count() == 1
    page.get_by_role("button", name="Use this").press("Enter")
    page.get_by_text("In use:", exact=True).wait_for()
    assert "In use: chars alone" in page.locator(".used").inner_text()
    assert "min-max" in page.locator(".measured").inner_text()
    assert "minmax" not in page.locator("main").inner_text()
    ask = Request(f"{address}v1/sitting/search", b'{"query": "alde"}', {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(ask) as answer:  # noqa: S310
        assert json.load(answer)["hits"][0]["id"].startswith("alder")
    with hs.open(trees, fusion=judged / "sitting" / "fusion.json") as search:
        assert search.fusion.weights == {"bm25": 0.0, "chars": 1.0}
    for at in serve(Settings(judgements=str(judged)), Tokens(), trees):
        only_judges = look("#/choose?index=sitting", at=at).page
        only_judges.get_by_text("start it with --allow-write").wait_for()
        assert only_judges.get_by_role("button", name="Use this").is_disabled()
        assert only_judges.get_by_role("button", name="own fusion again").count() == 0
        assert only_judges.get_by_role("button", name="Measure and tune").is_enabled()
    page.get_by_role("button", name="Use the index’s own fusion again").press("Enter")
    page.get_by_text("In use:", exact=True).wait_for(state="detached")
    file = judged / "sitting" / "fusion.json"
    file.write_text('{"type": "rrf", "weights": {"other": 1}}')
    page.reload()
    page.get_by_text("has no effect, because it does not fit the index").wait_for()
    page.get_by_role("button", name="Use the index’s own fusion again").press("Enter")
    page.get_by_text("has no effect").wait_for(state="detached")
    assert not file.exists()


def test_keys_undo_skip_show_the_text_and_change_the_query(look: Open, judged: Path) -> None:
    opened = look("#/judge?index=keys")
    page = opened.page
    opened.make_pools("alder very old", "birch", "xyz")
    opened.begin("anna")
    first = opened.document
    page.keyboard.press("2")
    second = opened.document
    assert second != first
    page.keyboard.press("s")
    page.get_by_text("2 of", exact=False).first.wait_for()
    page.locator(".judge-progress", has_text="1 skipped").wait_for()
    page.keyboard.press("u")
    page.locator(".judge-progress", has_text="1 of").wait_for()
    assert opened.document == second
    page.get_by_role("button", name="Document 1, grade 2").click()
    assert opened.document == first
    assert page.get_by_role("button", name="Answers a part").get_attribute("aria-pressed") == "true"
    page.keyboard.press("n")
    page.locator(".query", has_text="birch").wait_for()
    page.keyboard.press("n")
    page.get_by_text("No system found a document for this query.").wait_for()
    page.keyboard.press("3")
    page.keyboard.press("n")
    page.locator(".query", has_text="alder very old").wait_for()
    page.keyboard.press("n")
    page.keyboard.press("p")
    page.locator(".query", has_text="alder very old").wait_for()
    page.reload()  # the name and the grades are kept
    page.get_by_role("button", name="Document 1, grade 2").wait_for()
    assert page.locator(".who b").inner_text() == "anna"
    page.locator(".dot").nth(hs.Judgements(judged / "keys").documents("q1").index("long")).click()
    assert page.get_by_role("button", name="Full text").get_attribute("aria-expanded") == "false"
    page.keyboard.press("t")
    page.locator(".document .text", has_text="The end.").wait_for()
    assert page.locator(".document mark").first.inner_text() == "alder"


def test_a_grade_that_cannot_be_saved_is_shown_as_missing(look: Open) -> None:
    opened = look("#/judge?index=fails")
    page = opened.page
    opened.make_pools("alder")
    opened.begin("anna")
    first = opened.document
    page.route("**/judging/grade", lambda route: route.fulfill(status=503, content_type="application/problem+json",
        body='{"detail": "The index does not answer now. Try again later."}'))  # fmt: skip
    page.keyboard.press("1")
    page.get_by_role("alert").filter(has_text="Try again later.").wait_for()
    page.get_by_role("button", name="Document 1, not judged").wait_for()
    page.unroute("**/judging/grade")
    page.get_by_role("button", name="Document 1, not judged").click()
    assert opened.document == first
    page.keyboard.press("1")
    page.locator(".judge-progress", has_text="1 of").wait_for()
    opened.complaints = [one for one in opened.complaints if "503" not in one]


def test_grades_that_no_service_saved_do_not_look_saved(look: Open, judged: Path) -> None:
    opened = look("#/judge?index=away")
    page = opened.page
    opened.make_pools("alder")
    opened.begin("anna")
    count = page.locator(".dot").count()
    page.route("**/judging/**", lambda route: route.abort())
    page.keyboard.press("1")
    page.get_by_role("alert").filter(has_text="The service does not answer.").wait_for()
    page.locator(".judge-progress", has_text=f"0 of {count} documents").wait_for()
    assert page.get_by_role("button", name=", not judged").count() == count
    page.unroute("**/judging/**")
    page.keyboard.press("2")
    page.locator(".judge-progress", has_text=f"1 of {count} documents").wait_for()
    page.locator(".saved", has_text="saved").wait_for()
    (line,) = (judged / "away" / "grades.jsonl").read_text().splitlines()
    assert json.loads(line)["grade"] == 2
    opened.complaints = [one for one in opened.complaints if "ERR_FAILED" not in one]


def test_a_view_that_comes_late_does_not_take_the_place_of_the_chosen_one(look: Open) -> None:
    opened = look("#/judge?index=late")
    page = opened.page
    opened.make_pools("alder", "birch")
    page.route("**/judging/documents?*", lambda route: route.abort())
    page.get_by_label("Your name").fill("anna")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="The service does not answer.").wait_for()
    for key in ("u", "t"):
        page.keyboard.press(key)
    page.unroute("**/judging/documents?*")
    page.keyboard.press("n")  # the first query could not be loaded
    page.locator(".document .text").wait_for()
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/judging/agreement", hold)
    with page.expect_request("**/judging/agreement"):
        page.get_by_role("button", name="Agreement and export").click()
    page.get_by_role("button", name="Grade", exact=True).click()
    page.wait_for_timeout(300)
    held[0].continue_()
    page.wait_for_timeout(700)
    assert page.get_by_role("button", name="Grade", exact=True).get_attribute("aria-pressed") == "true"
    assert page.locator(".document .text").is_visible()
    opened.complaints = [one for one in opened.complaints if "ERR_FAILED" not in one]


def test_a_double_click_grades_one_document(look: Open) -> None:
    opened = look("#/judge?index=clicks")
    opened.make_pools("alder")
    opened.begin("anna")
    first = opened.document
    for number in (1, 2):  # the two clicks of a double click
        opened.page.get_by_role("button", name="Answers a part").dispatch_event("click", {"detail": number})
    opened.page.locator(".saved", has_text="saved").wait_for()
    assert opened.progress.startswith("1 of")
    opened.page.keyboard.press("1")
    for number in (1, 2):
        opened.page.get_by_role("button", name="Undo").dispatch_event("click", {"detail": number})
    opened.page.locator("#status", has_text="Undone").wait_for(state="attached")
    assert (opened.progress[:4], opened.document != first) == ("1 of", True)


def test_a_file_of_queries_is_shown_as_lines_that_can_be_changed(look: Open, judged: Path, tmp_path: Path) -> None:
    opened = look("#/judge?index=files")
    (tmp_path / "queries.csv").write_text('id,text\n7,"alder, old"\n')
    opened.page.locator("input[type=file]").set_input_files(tmp_path / "queries.csv")
    field = opened.page.get_by_label("Queries, one in each line")
    expect(field).to_have_value("7\talder, old")
    opened.make_pools("birch", "oaken")
    assert json.loads((judged / "files" / "pool.json").read_text())["queries"] == {"q1": "birch", "q2": "oaken"}


def test_a_job_is_followed_again_when_the_service_answers_again(look: Open) -> None:
    opened = look("#/judge?index=jobs")
    page = opened.page
    page.route("**/workbench/jobs/job", lambda route: route.abort())
    page.get_by_label("Queries, one in each line").fill("alder")
    page.get_by_role("button", name="Make the pools").click()
    page.get_by_role("alert").filter(has_text="The service does not answer.").wait_for()
    page.unroute("**/workbench/jobs/job")
    page.get_by_role("heading", name="Who are you?").wait_for()
    opened.complaints = [one for one in opened.complaints if "ERR_FAILED" not in one]


def test_two_judges_are_compared_and_their_grades_exported(
    look: Open, judged: Path, trees: Path, tmp_path: Path
) -> None:
    opened = look("#/judge?index=judges")
    page = opened.page
    page.get_by_role("button", name="Take trees (2 queries)").click()
    field = page.get_by_label("Queries, one in each line")
    expect(field).not_to_have_value("")
    opened.make_pools(*field.input_value().split("\n"))
    queries = {"q01": "alder", "q02": "birch"}  # the ids of the set
    with hs.open(trees) as search:
        assert hs.Judgements(judged / "judges").add_pool(search, queries, depth=3, show_progress_bar=False) == 0
    opened.begin("anna")
    opened.judge_all(lambda query, document: 3 if document == query else 0)
    page.get_by_role("button", name="Change").click()
    opened.begin("ben")
    opened.judge_all(lambda query, document: 3 if document == "birch" == query else 0)
    page.get_by_role("button", name="Agreement and export").click()
    page.get_by_role("heading", name="Where judges differ (1)").wait_for()
    assert page.get_by_role("cell", name="anna and ben").is_visible()
    with page.expect_download() as download:
        page.get_by_label("Judge with the last word").select_option("anna")
        page.get_by_role("button", name="TREC qrels").click()
    download.value.save_as(tmp_path / "judges.qrels")
    assert read_qrels(tmp_path / "judges.qrels")["q01"]["alder"] == 3
    with page.expect_download() as download:
        page.get_by_role("button", name="BEIR folder").click()
    download.value.save_as(tmp_path / "judges.zip")
    shutil.unpack_archive(tmp_path / "judges.zip", tmp_path)
    assert hs.load_dataset(tmp_path / "judges").queries == queries
    page.get_by_role("button", name="Look at Alder").click()
    page.get_by_role("button", name="Not relevant").and_(page.locator("[aria-pressed=true]")).wait_for()
    assert (opened.query, opened.document) == ("alder", "alder")


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small cross-encoder with random weights, which knows letters and some beginnings of words."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]'")
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, set_seed

    base, folder = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("models") / "tiny-judge"
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    (base / "vocab.txt").write_text("\n".join(words))
    set_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, initializer_range=1.0, num_labels=1, **size)
    BertForSequenceClassification(config).save_pretrained(base)
    BertTokenizerFast(vocab=str(base / "vocab.txt"), model_max_length=64).save_pretrained(base)
    sentence_transformers.CrossEncoder(str(base), device="cpu").save_pretrained(str(folder))
    return folder


def test_a_cross_encoder_judges_first_and_people_see_where_it_differs(
    look: Open, judged: Path, trees: Path, cross_encoder: Path
) -> None:
    for at in serve(Settings(judgements=str(judged), judge=str(cross_encoder)), Tokens(), trees):
        opened = look("#/judge?index=programs", at=at)
        page = opened.page
        opened.make_pools("alder", "birch")
        page.get_by_role("button", name="Let a program judge").click()
        page.get_by_role("button", name="Show some scores").click()
        rows = page.get_by_role("region", name="Score").locator("tbody tr")
        rows.first.wait_for(timeout=60_000)
        judgements = hs.Judgements(judged / "programs")
        pool = [(query, id) for query in judgements.queries for id in judgements.documents(query)]
        with hs.open(trees) as search:
            texts = [(judgements.queries[query], search.get(id)[0].content) for query, id in pool]
        import sentence_transformers

        scores = sentence_transformers.CrossEncoder(str(cross_encoder), device="cpu").predict(texts).tolist()
        shown = [float(text) for text in rows.locator("td:first-child").all_inner_texts()]
        assert shown == [pytest.approx(score, rel=0.01) for score in sorted(scores, reverse=True)]
        middle = sum(sorted({round(score, 4) for score in scores})[:2]) / 2
        low = sum(score < middle for score in scores)
        for grade, least in enumerate((middle, 100, 101), 1):
            page.get_by_label(f"Least score of grade {grade}").fill(str(least))
        assert rows.locator("td:nth-child(2)").all_inner_texts() == ["1"] * (len(pool) - low) + ["0"] * low
        page.get_by_role("button", name="Grade all documents").click()
        page.get_by_role("cell", name=f"{low}, {len(pool) - low}, 0, 0").wait_for()
        assert opened.violations() == []
        page.set_viewport_size({"width": 360, "height": 900})
        assert opened.overflow() <= 0
        page.set_viewport_size({"width": 1200, "height": 900})
        grades = {pair: int(score >= middle) for pair, score in zip(pool, scores, strict=True)}
        judge = hs.Judgements(judged / "programs").of("tiny-judge")
        assert {pair: one.grade for pair, one in judge.items()} == grades
        assert str(cross_encoder.parent) not in page.content()
        for grade in (1, 2, 3):
            page.get_by_label(f"Least score of grade {grade}").fill(str(grade))
        page.get_by_role("button", name="Grade all documents").click()
        page.get_by_role("alert").filter(has_text="give another program or other thresholds another name").wait_for()
        assert str(cross_encoder.parent) not in page.content()
        page.get_by_role("button", name="Grade", exact=True).click()
        opened.begin("anna")
        opened.judge_all(lambda query, document: 3)
        page.get_by_role("button", name="Agreement and export").click()
        page.get_by_role("heading", name=f"Where judges differ ({len(pool)})").wait_for()
        page.get_by_role("cell", name="tiny-judge and anna").wait_for()


def test_hostile_texts_are_texts(look: Open) -> None:
    opened = look("#/judge?index=hostile")
    opened.make_pools(f"{HOSTILE} alder")
    opened.begin(HOSTILE[:80])
    assert opened.query == f"{HOSTILE} alder"
    assert opened.page.locator(".who b").inner_text() == HOSTILE[:80]
    opened.judge_all(lambda query, document: 1)
    opened.page.get_by_role("button", name="Agreement and export").click()
    opened.page.get_by_role("cell", name=HOSTILE[:80]).wait_for()


def test_a_token_that_may_only_read_sees_but_cannot_judge(look: Open, trees: Path, judged: Path) -> None:
    hs.Judgements(judged / "reads").add_pool(hs.open(trees), {"q1": "alder"}, show_progress_bar=False)
    for at in serve(Settings(judgements=str(judged)), Tokens.parse(f"read:{READ}"), trees):
        opened = look("#/judge?index=reads", at=at)
        opened.page.get_by_role("textbox", name="Token").fill(READ)
        opened.page.keyboard.press("Enter")
        opened.begin("anna")
        assert opened.page.get_by_role("button", name="Answers it").is_disabled()
        opened.page.keyboard.press("3")
        opened.page.get_by_role("button", name="Queries and systems").click()
        opened.page.get_by_text("This token may read, but not write.").wait_for()
        assert opened.page.get_by_role("button", name="Add to the pools").is_disabled()
        assert not (judged / "reads" / "grades.jsonl").exists()
        opened.complaints = [one for one in opened.complaints if "401" not in one]


def test_the_page_breaks_no_rule_of_axe_and_fits_every_window(look: Open) -> None:
    opened = look("#/judge?index=axe")
    page = opened.page

    def check() -> None:
        for width, scheme, options in (
            (3840, "light", None),
            (360, "light", {}),
            (1200, "dark", {"runOnly": ["color-contrast"]}),
        ):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert opened.overflow() <= 0, (page.url, width)
            tables = page.locator(".wide").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
            assert all(more <= 0 for more in tables), (page.url, width)
            assert options is None or opened.violations(**options) == []
        page.set_viewport_size({"width": 1200, "height": 900})

    page.get_by_role("button", name="Make the pools").wait_for()
    check()
    opened.make_pools(*(word[:4] for word in WORDS[:4]))
    check()
    opened.begin("anna")
    page.keyboard.press("2")
    check()
    opened.judge_all(lambda query, document: 3 if document.startswith(query) else 0)
    page.get_by_role("button", name="Change").click()
    opened.begin("ben")
    opened.judge_all(lambda query, document: 2 if document.startswith(query) else 0)
    page.get_by_role("button", name="Agreement and export").click()
    page.get_by_role("heading", name="Agreement", exact=True).wait_for()
    check()
    page.get_by_role("link", name="Choose").click()
    page.get_by_role("button", name="Measure and tune").click()
    page.get_by_role("button", name="Use this").click(timeout=60_000)
    page.get_by_text("In use:", exact=True).wait_for()
    check()
