"""Makes paragraphs and headings of lines that only have places on pages, and leaves out running heads and feet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from hybridsearch.readers.pages import PAGE_END

_BULLET = re.compile(r"^[•◦▪‣·●○■\uf0a7\uf0b7\uf0d8]\s*")
_LISTED = re.compile(r"(?:[•◦▪‣·●○■\uf0a7\uf0b7\uf0d8–*-]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s")
_NUMBER = re.compile(r"(?:^|\bpage )(\d{1,5})\b|\b(\d{1,5})$", re.IGNORECASE)
_HYPHENS = "-\u2010\u00ad"
_AROUND = "([{\"'“‘«"
_ENDS = '.!?:;"”»。！？'
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
        level: Level of a heading, from 1. 0 for other lines.
    """

    text: str
    page: int
    left: float
    bottom: float
    right: float
    top: float
    level: int = 0

    @property
    def height(self) -> float:
        """Height of the line, in tenths of a point."""
        return round(self.top - self.bottom, 1)


def text_of_pages(pages: Sequence[Sequence[Line]]) -> str:
    """The text of all pages. A blank line comes between paragraphs, and a form feed ends each page."""
    usual = _usual_height(pages)
    is_head = _heads(pages, usual)
    kept = [[line for place, line in enumerate(lines) if not is_head(lines, place)] for lines in pages]
    _find_headings(kept, usual)
    words = Counter(word for lines in kept for line in lines for word in re.findall(r"[\w-]+", line.text.lower()))
    written: list[str] = []
    for lines, following in pairwise([*kept, []]):
        written += _paragraphs(lines, words)
        goes_on = bool(lines and following) and _goes_on(lines[-1], following[0])
        written.append(f"{PAGE_END}\n" if goes_on else f"{PAGE_END}\n\n")
    return "".join(written[:-1]) + PAGE_END


# Running heads and feet


def _heads(pages: Sequence[Sequence[Line]], usual: float) -> Callable[[Sequence[Line], int], bool]:
    """A function that tells whether a line of a page is a running head or foot, or the number of the page.

    It is one if it comes at the top or bottom of many pages, but for its numbers. Or if it has the number of the page
    at its start or end, as many pages have, and stands apart from the text.
    """
    counts: Counter[str] = Counter()
    differences: Counter[int] = Counter()  # between the number that a page shows and its number in the file
    for lines in pages:
        edges = [line for place, line in enumerate(lines) if _is_edge(lines, place)]
        counts.update({_pattern(line.text) for line in edges})
        differences.update({number - line.page for line in edges for number in _numbers(line.text)})
    most = max(_REPEATED, sum(map(bool, pages)) / 4)
    numbered = [difference for difference, count in differences.most_common(1) if count >= most]

    def is_head(lines: Sequence[Line], place: int) -> bool:
        line = lines[place]
        if not _is_edge(lines, place):
            return False
        if counts[_pattern(line.text)] >= most:
            return True
        has_number = any(number - line.page in numbered for number in _numbers(line.text))
        return has_number and line.height <= usual * _LARGER and (line.text.isdigit() or _is_apart(lines, place))

    return is_head


def _is_edge(lines: Sequence[Line], place: int) -> bool:
    """Whether a line is the first or last of a page, or the second or last but one and apart from the text."""
    from_edge = min(place, len(lines) - 1 - place)
    return len(lines) > 1 and (from_edge == 0 or (from_edge == 1 and _is_apart(lines, place)))


def _is_apart(lines: Sequence[Line], place: int) -> bool:
    """Whether there is more room than usual between a line at the edge of a page and the text."""
    above, line = (lines[place], lines[place + 1]) if place < len(lines) / 2 else (lines[place - 1], lines[place])
    return abs(above.bottom - line.bottom) > 1.5 * lines[place].height


def _pattern(text: str) -> str:
    return re.sub(r"\d+|\b[ivxl]+\b", "0", text.lower())


def _numbers(text: str) -> list[int]:
    """The numbers at the start and at the end of a line. One of them may be the number of the page."""
    return [int(first or last) for first, last in _NUMBER.findall(text)]


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
