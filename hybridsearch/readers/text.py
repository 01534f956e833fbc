"""Readers of text: encodings, JSON lines, and files that are one document each."""

from __future__ import annotations

import codecs
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TextIO

from hybridsearch.errors import DocumentError
from hybridsearch.readers.fields import Fields, Numbered, Record, WholeFileError
from hybridsearch.readers.markdown import Content, first_heading, split_front_matter

_MARKS = {  # UTF-32 comes first, because its mark begins with the mark of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_START = 64

LONGEST_LINE = 2**27
"""Number of characters or bytes of the longest line that is read."""


@contextmanager
def decoded(file: IO[bytes], encoding: str | None, newline: str) -> Iterator[TextIO]:
    """Gives a file as text, from its position on. The file stays open.

    Bytes that the encoding does not allow become lone surrogates, so that only their line is wrong.

    Args:
        file: File to decode.
        encoding: Encoding of the file. None finds it from the first bytes.
        newline: Newline mode, as in `open`.

    Raises:
        WholeFileError: The file has another encoding, or its encoding is unknown.
    """
    peek = getattr(file, "peek", None)
    name = _encoding_of(peek(_START)[:_START] if peek else b"", encoding)
    text = io.TextIOWrapper(file, encoding=name, errors="surrogateescape", newline=newline)
    try:
        yield text
    except UnicodeError as error:
        raise WholeFileError(f"it is not valid {name} ({' '.join(str(error).split()):.200}): {_TOLD}.") from error
    finally:
        text.detach()


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise DocumentError(f"it has the field {name!r:.80} twice. Remove or rename one of them.")
    return found


decode_json = json.JSONDecoder(object_pairs_hook=_unrepeated).decode
"""Parses JSON, as `json.loads`. A name that comes twice in an object is a DocumentError, which is a ValueError."""


def json_lines(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Read a file that has one JSON object on each line."""
    with decoded(file, fields.encoding, "\n") as text:
        for number, line in enumerate(iter(lambda: text.readline(LONGEST_LINE + 1), ""), start=1):
            raw = line.removeprefix("\ufeff") if number == 1 else line
            if len(line) > LONGEST_LINE:
                yield number, DocumentError(f"it has more than {LONGEST_LINE:,} characters. Split the document.")
                rest = line
                while rest and not rest.endswith("\n"):
                    rest = text.readline(LONGEST_LINE)
            elif not raw.isspace() and raw:
                yield number, invalid_text(raw, fields.encoding) or _json_object(raw)


def text_content(raw: bytes, name: Path, encoding: str | None) -> Content:
    """Read a text. The front matter of a Markdown file is metadata. Its title is the first heading.

    Args:
        raw: Content of the file.
        name: Name of the file, without the ending of a compressed file.
        encoding: Encoding of the text. None finds it from the first bytes.

    Raises:
        DocumentError: The text is not valid in its encoding.
        WholeFileError: The encoding is unknown.
        MissingExtraError: The front matter is YAML, and PyYAML is not installed.
    """
    try:
        text = raw.decode(_encoding_of(raw[:_START], encoding), "surrogateescape").removeprefix("\ufeff")
    except UnicodeError as error:
        reason = " ".join(str(error).split())
        raise DocumentError(f"it is not valid {encoding or 'Unicode'} ({reason:.200}): {_TOLD}.") from error
    if (invalid := invalid_text(text, encoding)) is not None:
        raise invalid
    if name.suffix.lower() == ".txt":
        return Content(text)
    content = split_front_matter(text)
    return replace(content, title=first_heading(content.text))


def invalid_text(text: str, encoding: str | None) -> DocumentError | None:
    """The error of a text that `decoded` gave. None if the text is valid."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return DocumentError(f"it is not valid {encoding or 'UTF-8'} (character {error.start + 1}): {_TOLD}.")
    return None


_TOLD = "name the encoding of the file, such as encoding='cp1252' (--encoding cp1252)"


def _encoding_of(start: bytes, told: str | None) -> str:
    """The encoding of a text that begins with these bytes."""
    if told is not None:
        return "utf-8-sig" if codecs.lookup(told).name == "utf-8" else told
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name
    if b"\0" in start[:2] and start.strip(b"\0"):
        guess = "utf-16-be" if start[0] == 0 else "utf-16-le"
        raise WholeFileError(
            f"it holds zero bytes, like UTF-16 without a byte order mark: name its encoding, such as "
            f"encoding={guess!r} (--encoding {guess})."
        )
    return "utf-8-sig"


def _json_object(line: str) -> Record:
    try:
        record = decode_json(line)
    except DocumentError as error:
        return error
    except json.JSONDecodeError as error:
        return DocumentError(f"it is not valid JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1}).")
    except RecursionError:
        return DocumentError("its JSON is nested too deeply.")
    except ValueError:
        return DocumentError("it holds an integer of thousands of digits: write it as a string.")
    if isinstance(record, dict):
        return record
    if isinstance(record, list):
        return DocumentError("it is a JSON array: write one object on each line (`jq -c '.[]'` converts an array).")
    return DocumentError(f"it is not a JSON object but a single {type(record).__name__}.")
