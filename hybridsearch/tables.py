"""Tables for a terminal of any width, for text files, for Markdown and for notebooks.

No column and no number is cut. If a terminal is too narrow for a table, each row becomes a block of lines.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hybridsearch.errors import MissingExtraError
from hybridsearch.messages import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.text import Text

UNLIMITED = 1_000_000
"""Width of a medium without a limit, such as a file."""

_GAP = 2
_HEAD = 14  # a head of up to this many characters has one line, even above short cells
_BLANKS = re.compile(r"\s+")


class Marked(str):
    """A line of text with marked parts, which are bold in a terminal and `<mark>` in HTML.

    Attributes:
        marks: Spans of the marked parts, in order.
        fit: Function that makes a line for a column of a given width. None if the end of the line is cut off.
    """

    marks: tuple[tuple[int, int], ...] = ()
    fit: Callable[[int], Marked] | None = None

    @classmethod
    def of(cls, parts: Iterable[tuple[str, bool]], fit: Callable[[int], Marked] | None = None) -> Marked:
        """Join parts of a line, each with whether it is marked. White space becomes single blanks."""
        line, marks = "", []
        for text, marked in parts:
            start = len(line)
            line += _BLANKS.sub(" ", _clean(text))
            if marked and len(line) > start:
                marks.append((start, len(line)))
        made = cls(line)
        made.marks, made.fit = tuple(marks), fit
        return made

    def parts(self) -> Iterator[tuple[str, bool]]:
        """The parts of the line in order, each with whether it is marked."""
        places = [0, *(place for span in self.marks for place in span), len(self)]
        yield from ((self[start:end], bool(number % 2)) for number, (start, end) in enumerate(pairwise(places)))

    def to_html(self) -> str:
        """Convert the line to HTML."""
        return "".join(
            f"<mark>{html.escape(text)}</mark>" if marked else html.escape(text) for text, marked in self.parts()
        )

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text.assemble(*((text, "bold" if marked else "") for text, marked in self.parts()))


@dataclass(frozen=True, slots=True)
class Grid:
    """One table, which rich can print.

    Attributes:
        title: Title in the first line, or `""`.
        columns: Head of each column.
        rows: Cells of each row. A cell is a list of lines, and the first line is the main line. A line can be `Marked`.
        notes: Sentences below the table.
        texts: Positions of the columns with text, which are aligned left. All other columns are aligned right.
        wide: Position of the column that takes the rest of a line and shrinks first. Its cells have one line.
        cut: Whether a text that does not fit into the wide column is cut. If not, it is wrapped.

    >>> print(as_text(Grid("Mean", ["system", "nDCG@10"], [[["bm25"], ["0.31", "0.2–0.4"]]]), 80))
    Mean
    system  nDCG@10
    bm25       0.31
            0.2–0.4
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Sequence[str]]]
    notes: Sequence[str] = ()
    texts: Collection[int] = (0,)
    wide: int | None = None
    cut: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        if self.title:
            yield Text(_clean(self.title), style="bold")
        fits = self._least() <= options.max_width
        yield from self._as_table(options.max_width) if fits else self._as_blocks(options.max_width)
        for note in self.notes:
            yield Text(_clean(note), style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(self._least(), max(self._least(), options.max_width))

    def to_html(self) -> str:
        """Convert the table to HTML for a notebook, with text aligned left and numbers aligned right."""
        sides = ["left" if place in self.texts else "right" for place in range(len(self.columns))]
        heads = "".join(
            f'<th style="text-align: {side}">{html.escape(column)}</th>'
            for side, column in zip(sides, self.columns, strict=True)
        )
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align: {side}">{"<br>".join(map(_html, cell))}</td>'
                for side, cell in zip(sides, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        caption = f'<caption style="text-align: left">{html.escape(self.title)}</caption>' if self.title else ""
        return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{notes}"

    def to_markdown(self) -> str:
        """Convert the table to Markdown, for a README or an issue."""

        def line(cells: Iterable[str]) -> str:
            return f"| {' | '.join(_escaped(cell).replace(chr(10), '<br>') for cell in cells)} |"

        sides = ["---" if place in self.texts else "---:" for place in range(len(self.columns))]
        lines = [f"**{_escaped(self.title)}**", "", line(self.columns), line(sides)]
        lines += [line("\n".join(cell) for cell in row) for row in self.rows]
        return "\n".join([*lines, *(f"\n{_escaped(note)}" for note in self.notes)])

    # Private parts

    def _widths(self) -> list[int]:
        """The least width of each column: the width of its longest line. It is at most 20 for the wide column."""
        widths = []
        for place, column in enumerate(self.columns):
            cells = max((_length(line) for row in self.rows for line in row[place]), default=0)
            words = max(map(_length, column.split()), default=0)
            heads = max(map(_length, _wrapped(column, max(cells, words, min(_length(column), _HEAD)))))
            widths.append(max(heads, min(cells, 20) if place == self.wide else cells))
        return widths

    def _least(self) -> int:
        return sum(self._widths()) + _GAP * (len(self.columns) - 1)

    def _as_table(self, room: int) -> Iterator[Text]:
        widths = self._widths()
        if self.wide is not None:
            longest = max((_length(line) for row in self.rows for line in row[self.wide]), default=0)
            widths[self.wide] = max(widths[self.wide], min(longest, room - self._least() + widths[self.wide]))
        heads = [_wrapped(column, width) for column, width in zip(self.columns, widths, strict=True)]
        yield from self._lines([[""] * (max(map(len, heads)) - len(head)) + head for head in heads], widths, "bold")
        for row in self.rows:
            yield from self._lines([self._fitted(place, cell, widths[place]) for place, cell in enumerate(row)], widths)

    def _fitted(self, place: int, cell: Sequence[str], width: int) -> Sequence[str]:
        if place != self.wide:
            return cell
        return [part for line in cell for part in ([_cut(line, width)] if self.cut else _wrapped(line, width))]

    def _lines(self, cells: Sequence[Sequence[str]], widths: Sequence[int], style: str = "") -> Iterator[Text]:
        from rich.text import Text

        for number in range(max(map(len, cells))):
            line = Text(no_wrap=True, overflow="ignore")
            for place, cell in enumerate(cells):
                written = _clean(cell[number]) if number < len(cell) else ""
                blanks = " " * (widths[place] - _length(written))
                dim = "dim" if number and not style and place != self.wide else style
                left = place in self.texts
                line.append("" if left else blanks).append(_styled(written, dim))
                line.append(blanks if left else "").append(" " * _GAP)
            line.rstrip()
            yield line

    def _as_blocks(self, room: int) -> Iterator[Text]:
        """Each row as a block of lines: the first cell, and below it each other cell with its column's head."""
        from rich.text import Text

        label = max((_length(column) for column in self.columns[1:]), default=0)
        label = min(label, max(room // 3, 12))
        for row in self.rows:
            first = f"{self.columns[0]} {row[0][0]}" if 0 not in self.texts else row[0][0]
            yield Text(_clean(first), style="bold", overflow="fold").append(_rest(row[0]), style="not bold dim")
            for place, cell in enumerate(row[1:], 1):
                if not any(cell):
                    continue
                heads = _wrapped(self.columns[place], label)
                for head in heads[:-1]:
                    yield Text(f"  {head}", style="dim")
                written = Text(f"  {heads[-1]}{' ' * (label - _length(heads[-1]))}  ", style="dim", overflow="fold")
                line = _clean(cell[0])
                if place == self.wide and self.cut:
                    line = _cut(line, max(room - label - 4, 10))
                yield written.append(_styled(line, "not dim")).append(_rest(cell), style="dim")


def rich_tables(grids: Iterable[Grid]) -> RenderableType:
    """The tables, one below the other, in a form that rich can print."""
    from rich.console import Group
    from rich.text import Text

    return Group(*(part for grid in grids for part in (grid, Text(""))))


def as_text(shown: RenderableType, width: int) -> str:
    """The text that rich prints, without colours. It is `width` wide, or wider if a table needs it."""
    from rich.console import Console

    console = Console(width=UNLIMITED, color_system=None)
    least = console.measure(shown).minimum
    console = Console(width=max(width, least), color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).rstrip()


def _rest(cell: Sequence[str]) -> str:
    """The lines of a cell after the first line, as one text that follows the first line."""
    return "".join(f"  {_clean(line)}" for line in cell[1:] if line)


def _length(line: str) -> int:
    """The width of a line in a terminal. A Chinese character is two places wide."""
    from rich.cells import cell_len

    return cell_len(_clean(line))


def _clean(line: str) -> str:
    """The line in a form that is safe for a terminal."""
    return line if isinstance(line, Marked) else visible(line)


def _cut(line: str, width: int) -> str:
    from rich.cells import set_cell_size

    line = _clean(line)
    if _length(line) > width and isinstance(line, Marked) and line.fit is not None:
        line = line.fit(width)
    if _length(line) <= width:
        return line
    kept = set_cell_size(line, width - 1).rstrip()
    if not isinstance(line, Marked):
        return f"{kept}…"
    places = [0, *(min(place, len(kept)) for span in line.marks for place in span), len(kept)]
    parts = [(kept[start:end], bool(number % 2)) for number, (start, end) in enumerate(pairwise(places))]
    return Marked.of([*parts, ("…", False)])


def _styled(line: str, style: str) -> Text:
    """The line for rich, in a style."""
    from rich.text import Text

    text = line.__rich__() if isinstance(line, Marked) else Text(line)
    text.stylize_before(style)
    return text


def _html(line: str) -> str:
    return line.to_html() if isinstance(line, Marked) else html.escape(line)


def _wrapped(line: str, width: int) -> list[str]:
    """The line as lines of at most `width`, broken at blanks if there are any."""
    from rich.console import Console
    from rich.text import Text

    if _length(line) <= width:
        return [_clean(line)]
    return [one.plain.rstrip() for one in Text(_clean(line)).wrap(Console(), width, overflow="fold")]


def _escaped(text: str) -> str:
    """The text for Markdown, where the characters of table cells, tags and emphasis are escaped."""
    for character, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_")):
        text = text.replace(character, shown)
    return text


def import_pandas() -> Any:
    """The module pandas. Raises MissingExtraError if pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas", None, "A DataFrame") from error
    return pandas
