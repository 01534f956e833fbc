"""HTML files: their headings, lists and tables become Markdown."""

from __future__ import annotations

import codecs
import re
from typing import Any

from hybridsearch.errors import DocumentError
from hybridsearch.readers.markdown import Content, first_heading, list_item, squeezed, table

_SKIPPED = {
    "script", "style", "template", "noscript", "head", "nav", "svg", "math", "iframe", "object", "audio", "video",
    "canvas", "select", "textarea", "input", "button",
}  # fmt: skip
_INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
    "var",
}  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w:-]{1,40})""", re.IGNORECASE)
_DEEPEST = 200  # levels that are converted one by one; what is nested more deeply becomes plain text
_WIDEST = 1000  # cells that one cell may span


def read_html(raw: bytes, encoding: str | None) -> Content:
    """Read an HTML file. Its title is its `<title>`, or its first heading."""
    return html_content(decoded_html(raw, encoding))


def html_content(text: str) -> Content:
    """The content of a page of HTML."""
    from lxml import html

    if not text.strip():
        return Content("")
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser, ensure_head_body=True)
    if any("depth" in error.message for error in parser.error_log):
        raise DocumentError("its elements are nested too deeply.")
    found = _Blocks()
    for body in root.iterchildren("body", "frameset"):
        found.walk(body, 0)
    written = "\n\n".join(found.done())
    title = next((squeezed(one.text_content()) for one in root.iter("title")), "")
    return Content(written, title or first_heading(written))


def decoded_html(raw: bytes, encoding: str | None) -> str:
    """The text of HTML, in its encoding: the given one, that of a byte order mark, the declared one, UTF-8, or cp1252.

    Raises:
        DocumentError: The bytes are not valid in this encoding.
    """
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    marked = next((name for mark, name in marks.items() if raw.startswith(mark)), None)
    declared = _DECLARED.search(raw[:4096])
    return decoded_bytes(raw, encoding or marked or (known_encoding(declared[1].decode()) if declared else None))


def decoded_bytes(raw: bytes, encoding: str | None) -> str:
    """The text of bytes whose encoding is known, or else is UTF-8 or cp1252.

    Raises:
        DocumentError: The bytes are not valid in this encoding.
    """
    for name in [encoding] if encoding else ["utf-8", "cp1252", "latin-1"]:
        try:
            return raw.decode(name)
        except UnicodeError:
            continue
    raise DocumentError(
        f"it is not valid {encoding}: name the encoding of the file, such as encoding='cp1252' (--encoding cp1252)."
    )


def known_encoding(name: str) -> str | None:
    """The encoding of this name, as browsers understand it. None if it is unknown."""
    try:
        found = codecs.lookup(name).name
        b"".decode(found)
    except (LookupError, ValueError):
        return None
    if found.startswith("utf-16"):  # the declaration could be read byte by byte, so it is not true
        return "utf-8"
    return "cp1252" if found in ("iso8859-1", "ascii") else found


class _Blocks:
    """Collects the blocks of Markdown of an element: paragraphs, headings, lists, tables."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._inline: list[str] = []

    def done(self) -> list[str]:
        """The blocks that were found."""
        self._flush()
        return self._found

    def walk(self, element: Any, depth: int) -> None:
        """Add what an element holds."""
        if depth > _DEEPEST:
            self._say(" ".join(element.itertext()))
            return
        self._say(element.text)
        for child in element:
            self._child(child, depth + 1)
            self._say(child.tail)

    def _child(self, child: Any, depth: int) -> None:
        tag = child.tag
        if not isinstance(tag, str) or tag in _SKIPPED or _is_hidden(child):
            return
        if tag in _INLINE:
            self.walk(child, depth)
        elif tag == "br":
            self._inline.append("\n")
        elif tag == "img":
            self._say(f" {child.get('alt') or ''} ")
        elif tag in _HEADINGS:
            text = squeezed(" ".join(_of(child, depth)))
            self._block(f"{'#' * _HEADINGS[tag]} {text}" if text else "")
        elif tag in ("ul", "ol", "menu"):
            self._block(_list(child, depth))
        elif tag == "table":
            self._table(child, depth)
        elif tag == "pre":
            text = "".join(child.itertext()).strip("\n")
            self._block(f"```\n{text}\n```" if text.strip() else "")
        elif tag == "blockquote":
            quoted = "\n\n".join(_of(child, depth))
            self._block("\n".join(f"> {line}".rstrip() for line in quoted.split("\n")) if quoted else "")
        else:
            self._flush()
            self.walk(child, depth)
            self._flush()

    def _table(self, element: Any, depth: int) -> None:
        """Add a table. One that lays out a page, as in e-mails, is not a table of data: its cells are blocks."""
        rows = [row for row in element.iter("tr") if next(row.iterancestors("table")) is element]
        cells = [[cell for cell in row if cell.tag in ("td", "th")] for row in rows]
        nested = next(element.iterdescendants("table"), None) is not None
        if nested or element.get("role") == "presentation" or max(map(len, cells), default=0) < 2:
            self._flush()
            self.walk(element, depth)
            self._flush()
            return
        for caption in element.iterchildren("caption"):
            self._block(squeezed(caption.text_content()))
        self._block(table([[text for cell in row for text in _spanned(cell, depth)] for row in cells]))

    def _say(self, text: str | None) -> None:
        if text:
            self._inline.append(text.replace("\n", " "))

    def _block(self, text: str) -> None:
        self._flush()
        if text:
            self._found.append(text)

    def _flush(self) -> None:
        lines = map(squeezed, "".join(self._inline).split("\n"))
        self._inline = []
        if text := "\n".join(lines).strip("\n"):
            self._found.append(re.sub(r"\n{2,}", "\n\n", text))


def _of(element: Any, depth: int) -> list[str]:
    """The blocks of one element."""
    found = _Blocks()
    found.walk(element, depth)
    return found.done()


def _list(element: Any, depth: int) -> str:
    """A list, with one line for each item."""
    start = element.get("start") or ""
    number = int(start) if re.fullmatch(r"\d{1,9}", start) else 1
    items = []
    for child in element:
        if isinstance(child.tag, str) and (blocks := _of(child, depth)):
            items.append(list_item(blocks, "-" if element.tag != "ol" else f"{number}."))
            number += 1
    return "\n".join(items)


def _spanned(cell: Any, depth: int) -> list[str]:
    """The text of a cell, and an empty one for each further column that the cell spans."""
    span = cell.get("colspan") or ""
    more = min(int(span), _WIDEST) - 1 if re.fullmatch(r"[1-9]\d{0,5}", span) else 0
    return [" ".join(_of(cell, depth)), *[""] * more]


def _is_hidden(element: Any) -> bool:
    return element.get("hidden") is not None or bool(_HIDDEN.search(element.get("style") or ""))
