"""Draws the pictures of the documentation into docs/images/.

They are two answers in a terminal, the report of `compare`, and the workbench.

    python docs/pictures.py MODEL DATASET   # a dense model, and the data set that the report is about (Cranfield)

The first answer and the workbench are from examples/helpdesk, and the second answer is from the manual in
docs/how-to/long-documents.md. Chromium takes the pictures of pages; `--browser` names the
program.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import socket
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.text import Text

import hybridsearch as hs
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
QUERY = "E13 on the display, engine gets hot"
PASSAGE_QUERY = "how do I lift the battery out?"


def answer(search: hs.HybridSearch) -> None:
    """Writes answer.svg: a search on the command line."""
    _terminal("answer", f'$ hybridsearch search help "{QUERY}" --explain', search.search(QUERY, top_k=4))


def passage(model: str) -> None:
    """Writes passage.svg: a search on the command line that finds a passage of a manual."""
    page = (ROOT / "docs" / "how-to" / "long-documents.md").read_text(encoding="utf-8")
    (manual,) = re.findall(r'title="manuals/alder.md"\n(.*?)```', page, flags=re.DOTALL)
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(model)}, passages=hs.Passages())
    search.index([hs.Document("alder.md", manual, "Alder manual")])
    command = f'$ hybridsearch search manuals-index "{PASSAGE_QUERY}" --explain'
    _terminal("passage", command, search.search(PASSAGE_QUERY, top_k=1), width=120)


def _terminal(name: str, command: str, results: hs.Results, width: int = 100) -> None:
    """Writes a picture of a terminal with a command, the results, and the explanation of the first hit."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text(command, style="bold"))
    with console.capture() as capture:
        console.print(results)
    for number, line in enumerate(Text.from_ansi(capture.get()).plain.splitlines()):
        console.print(Text(line.rstrip(), style="bold cyan" if number == 1 else ""))
    console.print(Text(f"\n{results[0].explain()}"), highlight=True)
    svg = console.export_svg(title="hybridsearch", clear=True)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no fonts from other hosts
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")


def report(search: hs.HybridSearch, data: hs.Dataset, browser: str) -> None:
    """Writes report.png: the top of the report."""
    systems = {
        "bm25": hs.Pipeline(search, ["bm25"]),
        "dense": hs.Pipeline(search, ["dense"]),
        "rrf": hs.Pipeline(search, fusion=hs.RRF()),
        "minmax": hs.Pipeline(search, fusion=hs.ScoreFusion("minmax")),
    }
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        hs.compare(systems, data).to_html(page)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            tab = chromium.new_page(viewport={"width": 1180, "height": 860})
            tab.goto(page.as_uri())
            _save(tab, "report")
            chromium.close()


def workbench(model: str, browser: str) -> None:
    """Writes look.png, explain.png, compare.png, judge.png and choose.png: the tabs of the workbench."""
    helpdesk = ROOT / "examples" / "helpdesk"
    dataset = hs.load_dataset(helpdesk)
    with tempfile.TemporaryDirectory() as folder:
        place, judged = Path(folder) / "helpdesk", Path(folder) / "judged"
        with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(model)}, place) as search:
            search.index(helpdesk)
            hs.Judgements(judged / "helpdesk").add_pool(search, dataset.queries)
        listening = socket.create_server(("127.0.0.1", 0))
        app = make_app(
            {"helpdesk": ServedIndex("helpdesk", str(place))},
            Settings(queries=(str(helpdesk),), judgements=str(judged), allow_write=True),
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
        thread.start()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            tab = chromium.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
            _workbench(tab, f"http://127.0.0.1:{listening.getsockname()[1]}/")
            _judge(tab, dataset)
            chromium.close()
        server.should_exit = True
        thread.join()


def _workbench(tab: Page, address: str) -> None:
    tab.goto(f"{address}#/look?q={quote(QUERY)}")
    rows = tab.locator(".column.fused .row")
    rows.nth(2).hover()
    tab.get_by_role("searchbox").fill(QUERY + " ")  # the models are loaded now, so the times are those of a search
    tab.wait_for_timeout(2000)
    _save(tab, "look")
    rows.nth(0).click()
    tab.locator(".sums").wait_for()
    _save(tab, "explain")
    tab.keyboard.press("Escape")
    tab.get_by_role("link", name="Compare").click()
    tab.get_by_role("button", name="helpdesk (40 queries)").click()
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.locator("#status", has_text="40 queries compared").wait_for(state="attached")
    tab.get_by_text("Common hits", exact=True).evaluate("one => one.scrollIntoView()")
    tab.evaluate("scrollBy(0, -80)")
    _save(tab, "compare")


def _judge(tab: Page, dataset: hs.Dataset) -> None:
    """Judges everything as the collection does."""
    ids = {text: id for id, text in dataset.queries.items()}
    tab.set_viewport_size({"width": 1000, "height": 670})
    tab.get_by_role("link", name="Judge").click()
    tab.get_by_label("Your name").fill("Anna")
    tab.keyboard.press("Enter")
    tab.locator(".document .text").wait_for()
    while not tab.locator(".finished").count():
        query, document = tab.locator(".query h2").inner_text(), tab.locator(".document .id").inner_text()
        if (query, document) == ("engine overheats on steep hills", "fault-e13"):
            _save(tab, "judge")
        tab.keyboard.press("013"[dataset.qrels[ids[query]].get(document, 0)])
        tab.wait_for_timeout(10)
    tab.get_by_role("link", name="Go to Choose").click()
    tab.get_by_role("button", name="Measure and tune").click()
    tab.locator(".advice").wait_for(timeout=120_000)
    tab.set_viewport_size({"width": 1000, "height": 880})
    tab.mouse.move(0, 0)
    _save(tab, "choose")


def _save(tab: Page, name: str) -> None:
    """Writes a picture of the page with 256 colours, which is a third of the size."""
    picture = Image.open(io.BytesIO(tab.screenshot()))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    answer(indexed(options.model, str(ROOT / "examples" / "helpdesk")))
    passage(options.model)
    workbench(options.model, options.browser)
    report(indexed(options.model, options.dataset), hs.load_dataset(options.dataset), options.browser)


def indexed(model: str, collection: str) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(model)})
    search.index(collection)
    return search


if __name__ == "__main__":
    main()
