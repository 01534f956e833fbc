"""PDF files: the text of their pages. `layout.py` makes paragraphs of the lines."""

from __future__ import annotations

import ctypes
import re
from typing import Any

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.layout import Line, text_of_pages
from hybridsearch.readers.markdown import Content, first_heading, squeezed

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
        raise DocumentError(f"it is not a readable PDF file ({str(error).rstrip('.')}).") from error
    pages, pictures = [], 0
    for number in range(len(document)):
        lines, is_picture = _lines(document, number)
        pages.append(lines)
        pictures += is_picture
    if not any(pages):
        raise DocumentError(
            "it holds no text, because its pages are pictures, as in a scan. Add the text by OCR first, for example "
            "with `ocrmypdf in.pdf out.pdf`."
            if pictures
            else "it holds no text, because its pages are empty."
        )
    text = text_of_pages(pages)
    title = squeezed(_CONTROLS.sub(" ", document.get_metadata_value("Title")))
    note = f"has {number_of(pictures, 'page')} without text, perhaps scanned" if pictures else ""
    return Content(text, first_heading(text) if _NO_TITLE.fullmatch(title) else title, note=note)


def _lines(document: Any, number: int) -> tuple[list[Line], bool]:
    """The lines of a page, and whether the page shows something, but no text."""
    import pypdfium2.raw as pdfium

    page = document[number]
    text_page = page.get_textpage()
    text = text_page.get_text_range()
    found: list[Line] = []
    start = 0
    for end in [*_LINE_END.finditer(text), None]:
        raw = text[start : end.start() if end else None]
        if line := squeezed(_CONTROLS.sub(" ", raw)):
            hyphen = "-" if end and end[1] else ""
            found.append(Line(line + hyphen, number, *_box(text_page, start, start + len(raw) - 1)))
        start = end.end() if end else start
    shows_something = pdfium.FPDFPage_CountObjects(page.raw) > 0
    text_page.close()
    page.close()
    return found, shows_something and not found


def _box(text_page: Any, start: int, end: int) -> tuple[float, float, float, float]:
    """The left, bottom, right and top of a line, by its first and its last character, in points."""
    import pypdfium2.raw as pdfium

    first, last = pdfium.FS_RECTF(), pdfium.FS_RECTF()
    for place, box in ((start, first), (end, last)):
        character = pdfium.FPDFText_GetCharIndexFromTextIndex(text_page.raw, place)
        pdfium.FPDFText_GetLooseCharBox(text_page.raw, character, ctypes.byref(box))
    return first.left, first.bottom, last.right, first.top
