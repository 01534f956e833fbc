"""Makes paragraphs and headings of lines that only have places on pages, and keeps running heads and feet once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

from hybridsearch.readers.pages import PAGE_END

_BULLET = re.compile(r"^[•◦▪‣·●○■\uf0a7\uf0b7\uf0d8]\s*")
_LISTED = re.compile(r"(?:[•◦▪‣·●○■\uf0a7\uf0b7\uf0d8–*-]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s")
_NUMBER = re.compile(r"\b\d{1,5}\b", re.ASCII)
_HYPHENS = "-\u2010\u00ad"
_AROUND = "([{\"'“‘«"
_ENDS = '.!?:;"”»。！？'
_MARGIN = 0.12  # part of a page's height that is margin, at the top and at the bottom
_MOST_RUNNING = 3  # lines of a head or foot
_REPEATED = 3  # pages that a line needs to come on to be a head or foot
_LARGER = 1.15  # times the height of most lines, from which on a line is a heading
_LIKE = 1.04  # times the height of other headings, up to which a heading has the same level
_HEADING_LINES = 3
_HEADING_LENGTH = 200


@dataclass(slots=True)
class Line:
    """A line of a page.

    Attributes:
        text: Text of the line.
        page: Number of the page, from 0.
        left, bottom, right, top: The box around the line, in points from the lower left corner of the page.
        height_on_page: Height of the line's middle above the lower edge of the page, from 0 to 1.
        is_row: Whether the line has wide gaps, as the row of a table has.
        level: Level of a heading, from 1. 0 for other lines.
    """

    text: str
    page: int
    left: float
    bottom: float
    right: float
    top: float
    height_on_page: float
    is_row: bool = False
    level: int = 0

    @property
    def height(self) -> float:
        """Height of the line, in tenths of a point."""
        return round(self.top - self.bottom, 1)


def text_of_pages(pages: Sequence[Sequence[Line]]) -> tuple[str, list[str]]:
    """The text of all pages. A blank line comes between paragraphs, and a form feed ends each page.

    Returns:
        The text. Then the running heads and feet, which are in the text once, each with the number of its pages.
    """
    usual = _usual_height(pages)
    kept, once = _read_once(pages, usual)
    _find_headings(kept, usual)
    words = Counter(word for lines in kept for line in lines for word in re.findall(r"[\w-]+", line.text.lower()))
    written: list[str] = []
    for lines, following in pairwise([*kept, []]):
        written += _paragraphs(lines, words)
        goes_on = bool(lines and following) and _goes_on(lines[-1], following[0])
        written.append(f"{PAGE_END}\n" if goes_on else f"{PAGE_END}\n\n")
    return "".join(written[:-1]) + PAGE_END, once


# Running heads and feet


def _read_once(pages: Sequence[Sequence[Line]], usual: float) -> tuple[list[list[Line]], list[str]]:
    """The lines of each page with each running head on its first page only, and each foot on its last page only.

    A head or foot is a line in the margin that is the same on many pages, but for the number of the page. Margins that
    hold only the number of the page are left out.

    Returns:
        The lines of the pages. Then each line that is read once, with the number of its pages, for a note.
    """
    margins = [(is_head, line) for lines in pages for is_head, line in _margins(lines, usual)]
    least = max(_REPEATED, len(pages) / 20)
    same = Counter((is_head, line.text) for is_head, line in margins)
    first = _first_number([line for _, line in margins], len(pages))
    found: dict[tuple[bool, str], list[Line]] = {}
    for is_head, line in margins:
        text = line.text if same[is_head, line.text] >= least else _without_number(line, first)
        found.setdefault((is_head, text), []).append(line)
    order: dict[int, int | None] = {}  # by id of a line: where it is on its page, or None if it is left out
    notes = []
    for (is_head, text), lines in found.items():
        if len(lines) < least:
            continue
        order |= {id(line): None for line in lines}
        if any(map(str.isalpha, text)):
            kept = lines[0] if is_head else lines[-1]
            order[id(kept)] = -1 if is_head else 1
            notes.append(f"{kept.text!r:.80} ({len(lines):,} of {len(pages):,} pages)")
    kept_lines = [[line for line in lines if order.get(id(line), 0) is not None] for lines in pages]
    return [sorted(lines, key=lambda line: order.get(id(line)) or 0) for lines in kept_lines], notes


def _margins(lines: Sequence[Line], usual: float) -> Iterator[tuple[bool, Line]]:
    """The lines in the margins of a page that stand apart from its text, and whether they are at the top."""
    downwards = sorted(lines, key=lambda line: -line.bottom)
    for is_head, inwards in ((True, downwards), (False, downwards[::-1])):
        for count, (line, inner) in enumerate(pairwise(inwards[: _MOST_RUNNING + 1]), 1):
            if _MARGIN < line.height_on_page < 1 - _MARGIN or line.height > usual * _LARGER:
                break
            if abs(line.bottom - inner.bottom) > 1.5 * line.height:
                yield from ((is_head, one) for one in inwards[:count])
                break


def _first_number(lines: Sequence[Line], pages: int) -> int | None:
    """The number that the first page shows, or would show. None if the pages do not show their numbers."""
    counts = Counter(
        chain.from_iterable({int(number) - line.page for number in _NUMBER.findall(line.text)} for line in lines)
    )
    return next((first for first, count in counts.most_common(1) if count >= max(_REPEATED, pages / 4)), None)


def _without_number(line: Line, first: int | None) -> str:
    """The text of a line without the number of its page."""
    number = "" if first is None else str(line.page + first)
    return re.sub(rf"\b0*{number}\b", "", line.text, count=1) if number else line.text


# Headings


def _usual_height(pages: Sequence[Sequence[Line]]) -> float:
    """The height of the lines that hold most of the text."""
    heights: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            heights[line.height] += len(line.text)
    return heights.most_common(1)[0][0] if heights else 0.0


def _find_headings(pages: Sequence[Sequence[Line]], usual: float) -> None:
    """Give levels to the lines that are larger than usual. The largest lines have level 1."""
    found: list[list[Line]] = []
    for lines in pages:
        for height, several in groupby(lines, lambda line: line.height):
            run = list(several)
            text = " ".join(line.text for line in run)
            is_short = len(run) <= _HEADING_LINES and len(text) <= _HEADING_LENGTH
            if height > usual * _LARGER and is_short and any(map(str.isalpha, text)):
                found.append(run)
    level, largest = 0, 0.0
    levels: dict[float, int] = {}
    for height in sorted({run[0].height for run in found}, reverse=True):
        if not level or largest > height * _LIKE:
            level, largest = min(level + 1, 6), height
        levels[height] = level
    for line in (line for run in found for line in run):
        line.level = levels[line.height]


# Paragraphs


def _paragraphs(lines: Sequence[Line], words: Counter[str]) -> list[str]:
    """The text of a page, in pieces. A new line begins where the page means it: in lists, tables and verses."""
    gaps = sorted(above.bottom - line.bottom for above, line in pairwise(lines))
    gaps = [gap for gap in gaps if gap > 1]
    pitch = gaps[len(gaps) // 2] if gaps else 0.0
    edges = _right_edges(lines)
    written: list[str] = []
    for place, line in enumerate(lines):
        text = f"{'#' * line.level} {line.text}" if line.level else _BULLET.sub("- ", line.text)
        if place == 0:
            written.append(text)
            continue
        above = lines[place - 1]
        gap = above.bottom - line.bottom
        if line.level or above.level:
            goes_on = line.level == above.level and 0 <= gap < 2 * line.height
            written.append(f" {line.text}" if goes_on else f"\n\n{text}")
        elif gap >= 0 and _LISTED.match(line.text) and _LISTED.match(above.text):
            written.append(f"\n{text}")
        elif gap > max(1.4 * pitch, 1.2 * line.height) or (gap < -line.height and not _goes_on(above, line)):
            written.append(f"\n\n{text}")
        elif _LISTED.match(line.text) or (gap >= 0 and _breaks(above, line, edges[place - 1])):
            written.append(f"\n{text}")
        else:
            _join(written, text, words)
    return written


def _right_edges(lines: Sequence[Line]) -> list[float]:
    """For each line, the right edge of its column. A column ends before a line that is higher on the page."""
    edges: list[float] = []
    column: list[Line] = []
    for line in lines:
        if column and line.bottom > column[-1].top:
            edges += [max(one.right for one in column)] * len(column)
            column = []
        column.append(line)
    return edges + [max((one.right for one in column), default=0.0)] * len(column)


def _breaks(above: Line, line: Line, edge: float) -> bool:
    """Whether the end of a line is meant: the next word had room, or the next line is indented after a sentence."""
    if above.is_row or line.is_row:
        return True
    if above.text[-1] in _HYPHENS and line.text[0].islower():
        return False
    word = line.text.split(" ", 1)[0]
    letter = (line.right - line.left) / max(len(line.text), 1)
    is_indented = line.left - above.left > line.height / 2 and not _LISTED.match(above.text)
    return edge - above.right > letter * (len(word) + 1) or (is_indented and above.text[-1] in _ENDS)


def _goes_on(above: Line, line: Line) -> bool:
    """Whether a sentence goes on, on the next page or in the next column."""
    if above.level or line.level or above.text[-1] in _ENDS:
        return False
    return line.text[0].islower() or above.text[-1] in ",-"


def _join(written: list[str], text: str, words: Counter[str]) -> None:
    """Add a line to a paragraph. A hyphen that only divides a word is left out.

    The hyphen stays if the file has the word with the hyphen more often than without it.
    """
    before, after = written[-1].rsplit(None, 1)[-1], re.match(r"[\w-]+", text)
    if before[-1] not in _HYPHENS or not before[-2:-1].isalpha() or after is None:
        written.append(f" {text}")
        return
    whole, divided = (f"{before[:-1]}{hyphen}{after[0]}".strip(_AROUND).lower() for hyphen in ("", "-"))
    if after[0][0].islower() and words[divided] <= words[whole]:
        written[-1] = written[-1][:-1]
    written.append(text)
