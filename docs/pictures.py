"""Draws the pictures of the README into docs/images/: an answer in a terminal, and the report of `compare`.

    python docs/pictures.py MODEL DATASET   # a dense model, and the data set that the report is about (Cranfield)

The answer is from examples/helpdesk. Chromium takes the picture of the report; `--browser` names the program.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

import hybridsearch as hs

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
QUERY = "E13 on the display, engine gets hot"


def answer(search: hs.HybridSearch) -> None:
    """Writes answer.svg: a search on the command line."""
    results = search.search(QUERY, top_k=4)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text(f'$ hybridsearch search help "{QUERY}" --explain', style="bold"))
    with console.capture() as capture:
        console.print(results)
    for number, line in enumerate(Text.from_ansi(capture.get()).plain.splitlines()):
        console.print(Text(line.rstrip(), style="bold cyan" if number == 1 else ""))
    console.print(Text(f"\n{results[0].explain()}"), highlight=True)
    svg = console.export_svg(title="hybridsearch", clear=True)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no fonts from other hosts
    (IMAGES / "answer.svg").write_text(svg, encoding="utf-8")


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
            tab.screenshot(path=IMAGES / "report.png")
            chromium.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    answer(indexed(options.model, str(ROOT / "examples" / "helpdesk")))
    report(indexed(options.model, options.dataset), hs.load_dataset(options.dataset), options.browser)


def indexed(model: str, collection: str) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(model)})
    search.index(collection)
    return search


if __name__ == "__main__":
    main()
