"""Tests of tables: they lose no column, no figure and no id in a narrow terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import hybridsearch as hs
from hybridsearch.cli.terminal import console_on
from hybridsearch.tables import UNLIMITED, Grid, as_text

LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs", "Mn", "Me", "Cf"]), max_size=30
)
CELLS = st.lists(LINES, min_size=1, max_size=2)
LONG = "https://example.org/a/very/long/path/of/a/document/that/nobody/wants/to/see/cut.html"


def printed(grid: object, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(grid)
    return [line.rstrip() for line in file.getvalue().split("\n")]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    columns = draw(st.lists(LINES, min_size=1, max_size=6))
    rows = draw(st.lists(st.lists(CELLS, min_size=len(columns), max_size=len(columns)), max_size=4))
    return Grid("", columns, rows, texts=draw(st.sets(st.integers(0, 5))))


@given(grids(), st.integers(10, 200))
def test_every_cell_is_printed_at_every_width(grid: Grid, width: int) -> None:
    lines = printed(grid, width)
    assert max(map(cell_len, lines)) <= width
    together = "".join("".join(lines).split())
    for row in grid.rows:
        for cell in row:
            for line in cell:
                assert "".join(line.split()) in together


@given(grids())
def test_where_nothing_has_to_fit_each_line_of_a_row_is_one_line(grid: Grid) -> None:
    lines = printed(grid, UNLIMITED)
    heads = len(lines) - 1 - sum(max(map(len, row)) for row in grid.rows)
    assert heads >= 1
    for place, line in enumerate(line for row in grid.rows for line in [row[0][0]]):
        assert any(line.strip() in one for one in lines[heads:]), place


def test_a_table_that_is_too_wide_becomes_a_block_a_row() -> None:
    grid = Grid("Runs", ["system", "nDCG@10", "R@100"], [[["bm25", "baseline"], ["0.31", "0.2–0.4"], ["0.7"]]])
    assert printed(grid, 80)[:3] == ["Runs", "system    nDCG@10  R@100", "bm25         0.31    0.7"]
    assert printed(grid, 20)[:5] == ["Runs", "bm25  baseline", "  nDCG@10  0.31", "0.2–0.4", "  R@100    0.7"]


def test_long_heads_take_more_lines_and_no_width() -> None:
    lines = printed(Grid("", ["retriever", "documents encoded a second"], [[["bm25"], ["15,000"]]]), 80)
    assert lines[:4] == ["           documents", "           encoded a", "retriever     second", "bm25          15,000"]


@pytest.fixture(scope="module")
def results() -> hs.Results:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index([hs.Document(LONG, "wing " * 200), hs.Document("b\nc", "wing lift")], show_progress_bar=False)
        return search.search("wing")


@pytest.mark.parametrize("width", [30, 80, 120, UNLIMITED])
def test_hits_keep_their_ids_in_one_piece_where_they_fit(results: hs.Results, width: int) -> None:
    lines = printed(results, width)
    assert any(LONG in line for line in lines) or width < len(LONG) + 12
    assert LONG in "".join("".join(lines).split())
    assert any("b c" in line for line in lines)


def test_a_hit_shows_a_window_that_fits_the_column(results: hs.Results) -> None:
    assert str(results).count("…") == 1
    assert max(map(len, str(results).splitlines())) > 100  # the id takes that space
    (shown,) = (line for line in printed(results, UNLIMITED) if "wing wing" in line)
    assert shown.endswith("wing…")
    assert shown.count("wing") == 39  # 200 characters with the ellipses


def test_a_retriever_alone_is_shown_with_its_own_scores(results: hs.Results) -> None:
    own = [hit.retrievers["bm25"].score for hit in results]
    assert [f"{score:.4f}" for score in own] == [line.split()[1] for line in printed(results, UNLIMITED)[2:4]]
    assert all(f"{score:.4f}" in results._repr_html_() for score in own)
    assert own != [hit.score for hit in results]  # the score of the fusion stays


def test_a_notebook_has_text_to_the_left_and_no_markup_of_the_data() -> None:
    page = Grid("<i>", ["system", "AP"], [[["<b>"], ["0.31", "±0.1"]]], ["a < b"]).to_html()
    assert page.count("text-align: left") == 3
    assert '<td style="text-align: right">0.31<br>±0.1</td>' in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "<p>a &lt; b</p>" in page


def test_what_is_piped_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    file = io.StringIO()
    console_on(file).print(Grid("", ["a"] * 30, [[["0.1234"]] * 30]))
    assert [line.count("0.1234") for line in file.getvalue().splitlines()] == [0, 30]


def test_text_is_as_wide_as_its_tables_need() -> None:
    assert as_text(Grid("", ["a"] * 30, [[["0.1234"]] * 30]), 40).splitlines()[1].count("0.1234") == 30
