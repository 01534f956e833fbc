"""Pages of a document, as the readers of PDF and slides keep them: a form feed ends each page of the text."""

from __future__ import annotations

from hybridsearch.documents import Document

PAGE_END = "\f"
"""The character that ends each page of a text."""


def pages_of(document: Document, start: int, end: int) -> tuple[int, int] | None:
    """Find the pages of a part of a document.

    The readers of PDF and PPTX end each page, or slide, with a form feed (`"\\f"`), which is white space. So the pages
    stay right for every part of the text. The texts of other programs, such as `pdftotext`, have the same form feeds.

    Args:
        document: Document that holds the part.
        start: Place of the first character of the part in `document.text`, from 0.
        end: Place after the last character of the part.

    Returns:
        The first and the last page of the part, from 1. White space at the ends of the part does not count. None if the
        text has no pages.

    >>> document = Document("manual.pdf", "Open the lid.\\f\\nClose the\\nlid.\\f")
    >>> pages_of(document, 0, 13), pages_of(document, 5, 20), pages_of(document, 15, 30)
    ((1, 1), (1, 2), (2, 2))
    """
    text = document.text
    if PAGE_END not in text:
        return None
    part = text[start:end]
    stripped = part.strip()
    begin = start + part.find(stripped[0]) if stripped else start
    first = text.count(PAGE_END, 0, begin) + 1
    most = text.count(PAGE_END) + bool(text[text.rindex(PAGE_END) :].strip())
    return min(first, most), min(first + stripped.count(PAGE_END), most)
