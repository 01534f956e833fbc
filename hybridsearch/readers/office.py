"""Office files (.docx, .pptx, .xlsx): their headings, lists and tables become Markdown."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import zip_longest
from typing import Any, NamedTuple

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.markdown import Content, first_heading, list_item, squeezed, table, unread_comments
from hybridsearch.readers.pages import PAGE_END

MOST_PARTS = 20_000
"""Number of parts that an office file, which is a zip archive, may have."""

LARGEST_PARTS = 2**29
"""Number of bytes that the parts of an office file may have together, after they are decompressed."""

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_COMPATIBLE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_DELETED = {f"{_WORD}{name}" for name in ("del", "moveFrom", "pPr", "rPr", "instrText", "delText")} | {
    f"{_COMPATIBLE}Fallback"  # the same text again, for old programs
}
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_DRAWN = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_COMMENT_PART = re.compile(r"(word|xl|ppt)/(comments/)?[a-z]*comments?\d*\.xml|ppt/comments/.*\.xml", re.IGNORECASE)
_COMMENT = re.compile(rb"<(?:\w+:)?(?:comment|cm)[\s>]")
_FORMULA = re.compile(  # a cell with a formula and no value. An empty text is a value
    rb"""<c(?=[\s>])(?![^>]{0,200}\bt="str")[^>]{0,200}><f(?:\s[^>]{0,200})?>[^<]*</f>\s*(?:<v>\s*</v>|<v\s*/>)?\s*</c>"""
)
_OLD = b"\xd0\xcf\x11\xe0"  # a compound file: .doc, .ppt, .xls, or any office file with a password


def read_docx(raw: bytes, encoding: str | None = None) -> Content:
    """Read a Word file. Its title is the one in its properties, or its first heading."""
    import docx

    _check(raw, "Word")
    document = docx.Document(io.BytesIO(raw))
    blocks = _Word(document).blocks()
    text = "\n\n".join(blocks)
    title = squeezed(document.core_properties.title or "") or first_heading(text)
    return Content(text, title, unread=_comments(raw))


def read_pptx(raw: bytes, encoding: str | None = None) -> Content:
    """Read a PowerPoint file. Each slide is a page. Its title is the one in its properties, or that of a slide."""
    import pptx

    _check(raw, "PowerPoint")
    presentation = pptx.Presentation(io.BytesIO(raw))
    slides = ["\n\n".join(_slide(slide)) for slide in presentation.slides]
    text = "\n\n".join(slide + PAGE_END for slide in slides)
    title = squeezed(presentation.core_properties.title or "")
    title = "" if title.lower() in ("powerpoint presentation", "powerpoint-präsentation") else title
    return Content(text if any(slides) else "", title or first_heading(text), unread=_comments(raw))


def read_xlsx(raw: bytes, encoding: str | None = None) -> Content:
    """Read a spreadsheet. The name of each sheet is a heading, and its rows are a table."""
    import python_calamine

    unread: list[str] = []
    if raw.startswith(b"PK"):
        _check(raw, "Excel")
        unread = _comments(raw) + _formulas(raw)
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(raw))
    sheets = []
    for name in book.sheet_names:
        rows = book.get_sheet_by_name(name).to_python(skip_empty_area=True)
        if written := table([_cell(value) for value in row] for row in rows):
            sheets.append(f"# {squeezed(name)}\n\n{written}")
    return Content("\n\n".join(sheets), unread=unread)


def _check(raw: bytes, program: str) -> None:
    """Refuse a file that is no zip archive of a usual size, by the list of its parts."""
    if raw.startswith(_OLD):
        raise DocumentError(f"it is encrypted, or of an old version of {program}. Save it again, without a password.")
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = archive.infolist()
    if len(parts) > MOST_PARTS:
        raise DocumentError(f"it has {len(parts):,} parts, more than the limit of {MOST_PARTS:,}.")
    if (size := sum(part.file_size for part in parts)) > LARGEST_PARTS:
        raise DocumentError(
            f"its parts have {size:,} bytes when they are decompressed, more than the limit of {LARGEST_PARTS:,}. "
            "Split the file."
        )


def _comments(raw: bytes) -> list[str]:
    """A note if the file has comments, as in `Content.unread`."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = [name for name in archive.namelist() if _COMMENT_PART.fullmatch(name)]
        return unread_comments(sum(len(_COMMENT.findall(archive.read(name))) for name in parts))


def _formulas(raw: bytes) -> list[str]:
    """A note if a sheet has formulas whose values are not stored, as in `Content.unread`."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = [name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
        count = sum(len(_FORMULA.findall(archive.read(name))) for name in parts)
    has = number_of(count, "formula")
    return [f"has {has} without a stored value. Open and save the file in a spreadsheet program"] if count else []


def _drawings(part: Any) -> Iterator[str]:
    """The charts of a document or slide, as tables, and the texts of its diagrams (SmartArt), as lists."""
    for relation in part.rels.values():
        kind = relation.reltype.rpartition("/")[2]
        if relation.is_external or kind not in ("chart", "diagramData"):
            continue
        root = _parsed(relation.target_part.blob)
        if kind == "chart":
            yield from _chart(root)
            continue
        paragraphs = ("".join(text.text or "" for text in one.iter(f"{_DRAWN}t")) for one in root.iter(f"{_DRAWN}p"))
        if items := [list_item([squeezed(text)], "-") for text in paragraphs if text.strip()]:
            yield "\n".join(items)


def _chart(root: Any) -> Iterator[str]:
    """The titles of a chart, and a table with a column for each series."""
    for title in root.iter(f"{_CHART}title"):
        if text := squeezed("".join(one.text or "" for one in title.iter(f"{_DRAWN}t"))):
            yield text

    def values(series: Any, *names: str) -> list[str]:
        found = (one for name in names for one in series.iterchildren(f"{_CHART}{name}"))
        return [value.text or "" for one in found for value in one.iter(f"{_CHART}v")]

    every = list(root.iter(f"{_CHART}ser"))
    labels = max((values(series, "cat", "xVal") for series in every), key=len, default=[])
    columns = [labels, *(values(series, "val", "yVal") for series in every)]
    head = ["", *(" ".join(values(series, "tx")) for series in every)]
    if written := table([head, *zip_longest(*columns, fillvalue="")]):
        yield written


def _parsed(xml: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))


class _Level(NamedTuple):
    """How the items of a list are numbered at one level."""

    format: str
    sequence: str  # lists of one sequence share their numbers
    start: int
    begins_anew: bool  # whether the list begins with `start`, although its sequence has begun


class _Word:
    """Converts the body of a Word file."""

    def __init__(self, document: Any) -> None:
        self._body = document.element.body
        self._part = document.part
        self._styles = {style.style_id: style for style in document.styles if hasattr(type(style), "base_style")}
        self._levels = self._list_levels()
        self._numbers: dict[tuple[str, int], int] = {}  # the last number, by sequence and level
        self._begun: set[tuple[str, int]] = set()  # lists that begin anew, and have begun
        self._boxes: list[Any] = []

    def blocks(self) -> list[str]:
        """The head of the pages, the paragraphs, headings, lists and tables, the notes, and the foot of the pages."""
        body = [*_with_lists(self._blocks(self._body)), *self._notes(), *_drawings(self._part)]
        return [*self._margin("header"), *body, *self._margin("footer")]

    def _margin(self, name: str) -> list[str]:
        """The texts of the heads or feet of pages, each once."""
        blocks = (text for root in self._related(name) for text, _ in self._blocks(root))
        return list(dict.fromkeys(text for text in blocks if any(map(str.isalpha, text))))

    def _blocks(self, container: Any) -> Iterator[tuple[str, int | None]]:
        """Each block, and its level if it is an item of a list."""
        for child in container:
            if child.tag == f"{_WORD}p":
                yield from self._paragraph(child)
            elif child.tag == f"{_WORD}tbl":
                yield from self._table(child)
            elif child.tag not in _DELETED and child.tag != f"{_WORD}sectPr" and isinstance(child.tag, str):
                yield from self._blocks(child)

    def _paragraph(self, paragraph: Any) -> Iterator[tuple[str, int | None]]:
        text = "\n".join(squeezed(line) for line in "".join(self._text(paragraph)).split("\n")).strip()
        boxes, self._boxes = self._boxes, []
        if text:
            level, listed = self._kind(paragraph)
            if level:
                yield f"{'#' * level} {squeezed(text)}", None
            elif listed is None:
                yield text, None
            else:
                yield list_item([text], self._mark(*listed)), listed[1]
        for box in boxes:
            yield from self._blocks(box)

    def _text(self, element: Any) -> Iterator[str]:
        """The pieces of text of a paragraph. Text boxes are kept for later."""
        for child in element:
            tag = child.tag
            if not isinstance(tag, str) or tag in _DELETED:
                continue
            name = tag.rpartition("}")[2]
            if name == "t":
                yield child.text or ""
            elif name in ("tab", "ptab"):
                yield " "
            elif name in ("br", "cr"):
                yield "\n"
            elif name == "noBreakHyphen":
                yield "-"
            elif name in ("footnoteReference", "endnoteReference"):
                yield f"[^{name[0]}{child.get(f'{_WORD}id')}]"
            elif name == "txbxContent":
                self._boxes.append(child)
            else:
                yield from self._text(child)

    def _kind(self, paragraph: Any) -> tuple[int, tuple[str, int] | None]:
        """The level of a heading (0 for other paragraphs), and the number and level of a list."""
        properties = paragraph.find(f"{_WORD}pPr")
        if properties is None:
            return 0, None
        listed = _listed(properties)
        named = properties.find(f"{_WORD}pStyle")
        style = self._styles.get(named.get(f"{_WORD}val")) if named is not None else None
        for _ in range(20):  # styles may be based on each other
            if style is None:
                break
            name = str(style.name or "").lower()
            if name == "title":
                return 1, None
            if name.startswith("heading ") and name[8:].isdigit():
                return min(int(name[8:]), 6), None
            own = style.element.find(f"{_WORD}pPr")
            if listed is None and own is not None:
                listed = _listed(own)
            style = style.base_style
        return 0, listed if listed and listed[0] != "0" else None

    def _mark(self, number: str, level: int) -> str:
        """The mark of an item: a dash, or its number."""
        found = self._levels.get((number, level))
        if found is None or found.format in ("bullet", "none"):
            return "-"
        for deeper in [key for key in self._numbers if key[0] == found.sequence and key[1] > level]:
            del self._numbers[deeper]
        place = found.sequence, level
        if found.begins_anew and (number, level) not in self._begun:
            self._begun.add((number, level))
            self._numbers.pop(place, None)
        self._numbers[place] = self._numbers.get(place, found.start - 1) + 1
        return f"{self._numbers[place]}."

    def _list_levels(self) -> dict[tuple[str, int], _Level]:
        """How items are numbered, by list and level."""
        found: dict[tuple[str, int], _Level] = {}
        root = next(self._related("numbering"), None)
        if root is None:
            return found
        abstract = {one.get(f"{_WORD}abstractNumId"): one for one in root.iter(f"{_WORD}abstractNum")}
        for one in root.iter(f"{_WORD}num"):
            named = one.find(f"{_WORD}abstractNumId")
            sequence = "" if named is None else named.get(f"{_WORD}val")
            starts = {
                override.get(f"{_WORD}ilvl"): override.find(f"{_WORD}startOverride")
                for override in one.iter(f"{_WORD}lvlOverride")
            }
            for level in abstract[sequence].iter(f"{_WORD}lvl") if sequence in abstract else ():
                format, anew = level.find(f"{_WORD}numFmt"), starts.get(level.get(f"{_WORD}ilvl"))
                start = level.find(f"{_WORD}start") if anew is None else anew
                found[one.get(f"{_WORD}numId"), int(level.get(f"{_WORD}ilvl"))] = _Level(
                    "bullet" if format is None else format.get(f"{_WORD}val"),
                    sequence,
                    1 if start is None else int(start.get(f"{_WORD}val")),
                    anew is not None,
                )
        return found

    def _table(self, element: Any) -> Iterator[tuple[str, int | None]]:
        """A table, or the blocks of its cells if it has one column or other tables in it."""
        rows = [row for row in element.iter(f"{_WORD}tr") if next(row.iterancestors(f"{_WORD}tbl")) is element]
        cells = [
            [cell for cell in row.iter(f"{_WORD}tc") if next(cell.iterancestors(f"{_WORD}tr")) is row] for row in rows
        ]
        nested = next(element.iterdescendants(f"{_WORD}tbl"), None) is not None
        if nested or max(map(len, cells), default=0) < 2:
            for cell in (cell for row in cells for cell in row):
                yield from self._blocks(cell)
            return
        yield table([[text for cell in row for text in self._spanned(cell)] for row in cells]), None

    def _spanned(self, cell: Any) -> Iterator[str]:
        """The text of a cell, and an empty one for each further column that it spans."""
        merged = cell.find(f"{_WORD}tcPr/{_WORD}vMerge")
        below = merged is not None and merged.get(f"{_WORD}val") != "restart"
        yield "" if below else " ".join(text for text, _ in self._blocks(cell))
        span = cell.find(f"{_WORD}tcPr/{_WORD}gridSpan")
        if span is not None:
            yield from [""] * (min(int(span.get(f"{_WORD}val")), 1000) - 1)

    def _notes(self) -> Iterator[str]:
        """The footnotes and endnotes, with the marks that refer to them."""
        for kind in ("footnote", "endnote"):
            for note in (one for root in self._related(f"{kind}s") for one in root.iter(f"{_WORD}{kind}")):
                text = squeezed(" ".join(text for text, _ in self._blocks(note)))
                if text and note.get(f"{_WORD}type") is None:
                    yield f"[^{kind[0]}{note.get(f'{_WORD}id')}]: {text}"

    def _related(self, name: str) -> Iterator[Any]:
        """The roots of the other parts of the file that have this name."""
        for relation in self._part.rels.values():
            if relation.reltype.endswith(f"/{name}") and not relation.is_external:
                yield _parsed(relation.target_part.blob)


def _listed(properties: Any) -> tuple[str, int] | None:
    """The number and the level of a list in the properties of a paragraph or a style."""
    number = properties.find(f"{_WORD}numPr/{_WORD}numId")
    level = properties.find(f"{_WORD}numPr/{_WORD}ilvl")
    if number is None:
        return None
    return number.get(f"{_WORD}val"), min(int(level.get(f"{_WORD}val")), 8) if level is not None else 0


def _with_lists(blocks: Iterator[tuple[str, int | None]]) -> Iterator[str]:
    """The blocks, with the items of a list in one block."""
    items: list[str] = []
    for text, level in blocks:
        if level is None:
            if items:
                yield "\n".join(items)
                items = []
            yield text
        else:
            items.append("\n".join("  " * level + line for line in text.split("\n")))
    if items:
        yield "\n".join(items)


def _slide(slide: Any) -> Iterator[str]:
    """The blocks of a slide: its title as a heading, its texts and tables, its charts and diagrams, and its notes."""
    title = slide.shapes.title
    if title is not None and (text := squeezed(title.text_frame.text)):
        yield f"# {text}"
    for shape in slide.shapes:
        if title is None or shape.shape_id != title.shape_id:
            yield from _shape(shape)
    yield from _drawings(slide.part)
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None and (text := _lines(notes.text)):
        yield f"Notes: {text}"


def _shape(shape: Any) -> Iterator[str]:
    """The blocks of a shape. Several paragraphs of a placeholder are a list."""
    if hasattr(shape, "shapes"):
        for inner in shape.shapes:
            yield from _shape(inner)
    elif getattr(shape, "has_table", False):
        if written := table([[cell.text for cell in row.cells] for row in shape.table.rows]):
            yield written
    elif shape.has_text_frame:
        paragraphs = [(one.level, _lines(one.text)) for one in shape.text_frame.paragraphs]
        paragraphs = [(level, text) for level, text in paragraphs if text]
        if len(paragraphs) > 1 and shape.is_placeholder:
            yield "\n".join("  " * level + list_item([text], "-") for level, text in paragraphs)
        else:
            yield from (text for _, text in paragraphs)


def _lines(text: str) -> str:
    return "\n".join(squeezed(line) for line in text.replace("\v", "\n").split("\n")).strip()


def _cell(value: Any) -> str:
    """The text of a cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):  # spreadsheet programs show 15 digits
        return str(int(Decimal(repr(value)))) if value.is_integer() and abs(value) < 1e21 else f"{value:.15g}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    return str(value)
