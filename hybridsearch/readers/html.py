"""HTML files: their headings, lists and tables become Markdown."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hybridsearch.errors import DocumentError
from hybridsearch.readers.markdown import Content, first_heading, list_item, squeezed, table

_SKIPPED = {
    "script", "style", "template", "noscript", "head", "nav", "svg", "annotation", "annotation-xml", "iframe", "object",
    "audio", "video", "canvas", "select", "textarea", "input", "button",
}  # fmt: skip
_INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
    "var", "wbr", "math", "mi", "mn", "mo", "mrow", "ms", "mtext", "msub", "msup", "msubsup", "mfrac", "msqrt", "mroot",
    "semantics",
}  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w:-]{1,40})""", re.IGNORECASE)
_XML = re.compile(rb"""\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([\w:-]{1,40})""")  # if there is no `_DECLARED`
_END = re.compile(r"</(?:body|html)\s*>", re.IGNORECASE)  # browsers show what comes after it, and libxml2 drops it
_DEEPEST = 200  # levels that are converted one by one; what is nested more deeply becomes plain text
_WIDEST = 1000  # cells that one cell may span


def read_html(raw: bytes, encoding: str | None) -> Content:
    """Read an HTML file. Its title is its `<title>`, or its first heading."""
    text, guessed = decoded_html(raw, encoding)
    return replace(html_content(text), unread=guessed)


def html_content(text: str) -> Content:
    """The content of a page of HTML."""
    from lxml import etree, html

    if not text.strip():
        return Content("")
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    raw = _END.sub("", text).encode("utf-8", "replace")
    try:
        root = html.document_fromstring(raw, parser=parser, ensure_head_body=True)
    except etree.ParserError:  # it holds comments only
        return Content("")
    if any("depth" in error.message for error in parser.error_log):
        raise DocumentError("its elements are nested too deeply.")
    found = _Blocks()
    for body in root.iterchildren("body", "frameset"):
        found.walk(body, 0)
    written = "\n\n".join(found.done())
    titles = (one for one in root.iter("title") if next(one.iterancestors("svg"), None) is None)
    title = next((squeezed(one.text_content()) for one in titles), "")
    return Content(written, title or first_heading(written))


def decoded_html(raw: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """The text of HTML, in its encoding: the given one, that of a byte order mark, the declared one, UTF-8, or cp1252.

    Returns:
        The text. Then a note if the encoding was guessed, as in `Content.unread`.

    Raises:
        DocumentError: The bytes are not valid in this encoding.
    """
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    marked = next((name for mark, name in marks.items() if raw.startswith(mark)), None)
    declared = _DECLARED.search(raw[:4096]) or _XML.match(raw)
    return decoded_bytes(raw, encoding or marked or (known_encoding(declared[1].decode()) if declared else None))


def decoded_bytes(raw: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """The text of bytes whose encoding is known, or else is UTF-8 or cp1252.

    Returns:
        The text. Then a note if the encoding was guessed, as in `Content.unread`.

    Raises:
        DocumentError: The bytes are not valid in this encoding.
    """
    for name in [encoding] if encoding else ["utf-8", "cp1252", "latin-1"]:
        try:
            text = raw.decode(name)
        except UnicodeError:
            continue
        is_known = encoding or name == "utf-8"
        return text, [] if is_known else [f"does not say its encoding and is read as {name}. Name it with --encoding"]
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
            self._say(" ".join(_seen_texts(element)))
            return
        self._say(element.text)
        for child in element:
            self._child(child, depth + 1)
            self._say(child.tail)

    def _child(self, child: Any, depth: int) -> None:
        if not _is_seen(child):
            return
        tag = child.tag
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
        found = _Rows()
        found.look(element, depth)
        nested = next(element.iterdescendants("table"), None) is not None
        if nested or element.get("role") == "presentation" or max(map(len, found.rows), default=0) < 2:
            self._flush()
            self.walk(element, depth)
            self._flush()
            return
        for text in found.outside:
            self._block(text)
        self._block(table(_grid(found.rows, depth)))

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
    items = [squeezed(element.text or "")]
    for child in element:
        if _is_seen(child) and (blocks := _of(child, depth)):
            items.append(list_item(blocks, "-" if element.tag != "ol" else f"{number}."))
            number += 1
        items.append(squeezed(child.tail or ""))
    return "\n".join(filter(None, items))


class _Rows:
    """Collects the cells of a table.

    Attributes:
        rows: The cells of each row. Cells that are in no row, which browsers show too, are a row.
        outside: Texts that are in no cell, such as the caption.
    """

    def __init__(self) -> None:
        self.rows: list[list[Any]] = [[]]
        self.outside: list[str] = []

    def look(self, element: Any, depth: int) -> None:
        """Look for cells in a table, or in a part of it."""
        if depth > _DEEPEST:
            self.outside.append(squeezed(" ".join(_seen_texts(element))))
            return
        self.outside.append(squeezed(element.text or ""))
        for child in element:
            if _is_seen(child):
                if child.tag in ("td", "th"):
                    self.rows[-1].append(child)
                elif child.tag == "caption":
                    self.outside += _of(child, depth)
                else:
                    self.rows += [[]] if child.tag == "tr" else []
                    self.look(child, depth + 1)
                    self.rows += [[]] if child.tag == "tr" else []
            self.outside.append(squeezed(child.tail or ""))


def _grid(rows: list[list[Any]], depth: int) -> Iterator[list[str]]:
    """The texts of the cells. Each is in its first column and row, and the others that it spans are empty."""
    covered: dict[int, int] = {}  # rows that a cell above still spans, by column
    for cells in rows:
        texts: list[str] = []
        for cell in cells:
            while covered.get(len(texts), 0):
                covered[len(texts)] -= 1
                texts.append("")
            more = _spanned(cell, "colspan") - 1
            covered |= dict.fromkeys(range(len(texts), len(texts) + more + 1), _spanned(cell, "rowspan") - 1)
            texts += [" ".join(_of(cell, depth)), *[""] * more]
        for column, left in covered.items():
            if column >= len(texts) and left and cells:
                covered[column] = left - 1
        yield texts


def _spanned(cell: Any, direction: str) -> int:
    """The number of columns or rows that a cell spans."""
    span = cell.get(direction) or ""
    return min(int(span), _WIDEST) if re.fullmatch(r"[1-9]\d{0,5}", span) else 1


def _seen_texts(element: Any) -> Iterator[str]:
    """The texts in an element that are seen, however deeply it is nested."""
    waiting = [element]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
            continue
        for child in reversed(found):
            waiting += [child.tail or "", child] if _is_seen(child) else [child.tail or ""]
        waiting.append(found.text or "")


def _is_seen(element: Any) -> bool:
    if not isinstance(element.tag, str) or element.tag in _SKIPPED or element.get("hidden") is not None:
        return False
    return not _HIDDEN.search(element.get("style") or "")
