"""PDF files: the text of their pages. `layout.py` makes paragraphs of the lines."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.layout import Line, text_of_pages
from hybridsearch.readers.markdown import Content, first_heading, squeezed, unread_comments

_NO_TITLE = re.compile(r"untitled.*|.*\.\w{2,4}|microsoft \w+ - .*|slide 1|document\d*|\(anonymous\)|", re.IGNORECASE)
_LINE_END = re.compile("([\ufffe\x02])(?:\r\n)?|\r\n")  # PDFium writes the first two for a hyphen that divides a word
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def read_pdf(raw: bytes, encoding: str | None = None) -> Content:
    """Read a PDF file. Its title is the one in its properties, or its first heading.

    Raises:
        DocumentError: The file is encrypted, damaged, or holds no text.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(raw)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError(
                "it is encrypted, and needs a password. Remove the password first, for example with "
                "`qpdf --decrypt --password=... in.pdf out.pdf`."
            ) from error
        reason = "it is empty" if not raw else str(error).rstrip(".")
        raise DocumentError(
            f"it is not a readable PDF file ({reason}). Get the file again, or print it to a new PDF file in a viewer."
        ) from error
    pages, pictures, comments = [], 0, 0
    for number in range(len(document)):
        page, count = _page(document, number)
        lines, is_picture = _lines(page, number)
        page.close()
        pages.append(lines)
        pictures += is_picture
        comments += count
    if not any(pages):
        raise DocumentError(
            "it holds no text, because its pages are pictures, as in a scan. Add the text by OCR first, for example "
            "with `ocrmypdf in.pdf out.pdf`."
            if pictures
            else "it holds no text, because its pages are empty."
        )
    text, once = text_of_pages(pages)
    title = squeezed(_CONTROLS.sub(" ", document.get_metadata_value("Title")))
    unread = [f"has {number_of(pictures, 'page')} without text, perhaps scanned"] if pictures else []
    unread += unread_comments(comments)
    title = first_heading(text) if _NO_TITLE.fullmatch(title) else title
    return Content(text, title, unread=unread, once=once)


def _page(document: Any, number: int) -> tuple[Any, int]:
    """A page, and the number of its comments, which are not seen.

    Values of forms, stamps, and text that was added are seen. They become a part of the page.
    """
    import pypdfium2.raw as pdfium

    page = document[number]
    kinds: Counter[int] = Counter()
    for place in range(pdfium.FPDFPage_GetAnnotCount(page.raw)):
        mark = pdfium.FPDFPage_GetAnnot(page.raw, place)
        kinds[pdfium.FPDFAnnot_GetSubtype(mark)] += 1
        pdfium.FPDFPage_CloseAnnot(mark)
    if kinds.keys() & {pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP}:
        pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY)
        page.close()
        page = document[number]
    return page, kinds[pdfium.FPDF_ANNOT_TEXT]


def _lines(page: Any, number: int) -> tuple[list[Line], bool]:
    """The lines of a page, and whether the page shows something, but no text."""
    import pypdfium2.raw as pdfium

    text_page = page.get_textpage()
    text = text_page.get_text_range()
    view = _View.of(page)
    found: list[Line] = []
    start = 0
    for end in [*_LINE_END.finditer(text), None]:
        raw = text[start : end.start() if end else None]
        if line := squeezed(_CONTROLS.sub(" ", raw)):
            hyphen = "-" if end and end[1] else ""
            left, bottom, right, top = view.box(text_page, start, start + len(raw) - 1)
            height = (bottom + top) / 2 / view.height
            is_row = view.has_gap(text_page, start, len(raw), 1.5 * (top - bottom))
            found.append(Line(line + hyphen, number, left, bottom, right, top, height, is_row))
        start = end.end() if end else start
    shows_something = pdfium.FPDFPage_CountObjects(page.raw) > 0
    text_page.close()
    return found, shows_something and not found


@dataclass(frozen=True, slots=True)
class _View:
    """Places on a page as a reader sees it, which may be rotated.

    Attributes:
        rotation: Degrees by which the page is turned clockwise.
        left, bottom, right, top: Edges of the page before it is turned, in points.
    """

    rotation: int
    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def of(cls, page: Any) -> _View:
        """The view of a page."""
        return cls(page.get_rotation(), *page.get_bbox())

    @property
    def height(self) -> float:
        """Height of the page as it is seen, in points."""
        seen = self.top - self.bottom if self.rotation in (0, 180) else self.right - self.left
        return max(abs(seen), 1.0)

    def box(self, text_page: Any, start: int, end: int) -> tuple[float, float, float, float]:
        """The left, bottom, right and top of a line, by its first and its last character."""
        import pypdfium2.raw as pdfium

        first, last = pdfium.FS_RECTF(), pdfium.FS_RECTF()
        for place, box in ((start, first), (end, last)):
            character = pdfium.FPDFText_GetCharIndexFromTextIndex(text_page.raw, place)
            pdfium.FPDFText_GetLooseCharBox(text_page.raw, character, ctypes.byref(box))
        (left, bottom, _, _), (_, _, right, top) = (
            self._turned(box.left, box.bottom, box.right, box.top) for box in (first, last)
        )
        return left, bottom, right, top

    def has_gap(self, text_page: Any, start: int, count: int, least: float) -> bool:
        """Whether two neighbouring pieces of a line are at least this far apart."""
        import pypdfium2.raw as pdfium

        edges = [ctypes.c_double() for _ in range(4)]
        before: float | None = None
        pieces = pdfium.FPDFText_CountRects(text_page.raw, start, count)
        for place in range(pieces) if pieces > 1 else ():
            pdfium.FPDFText_GetRect(text_page.raw, place, *edges)
            left, top, right, bottom = (edge.value for edge in edges)
            left, _, right, _ = self._turned(left, bottom, right, top)
            if before is not None and left - before > least:
                return True
            before = right
        return False

    def _turned(self, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        """The left, bottom, right and top of a box as it is seen."""
        if self.rotation == 90:
            return bottom - self.bottom, self.right - right, top - self.bottom, self.right - left
        if self.rotation == 180:
            return self.right - right, self.top - top, self.right - left, self.top - bottom
        if self.rotation == 270:
            return self.top - top, left - self.left, self.top - bottom, right - self.left
        return left - self.left, bottom - self.bottom, right - self.left, top - self.bottom
