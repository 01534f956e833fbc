"""Text: JSON lines, and files that are one document each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError
from hybridsearch.readers.fields import Fields, Numbered, Record

_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t]*#*[ \t]*$", re.MULTILINE)


def json_lines(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """One JSON object a line."""
    for number, line in enumerate(file, start=1):
        raw = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not raw.isspace() and raw:
            yield number, _json_object(raw)


def text_document(raw: bytes, path: Path, id: str) -> Record:
    """A whole file, with its first Markdown heading, or else its name, as the title."""
    try:
        text = raw.decode("utf-8-sig")
        name = Path(path.name.removesuffix(".gz"))
        heading = None if name.suffix.lower() == ".txt" else _HEADING.search(text.partition("\n```")[0])
        return Document(id, text, heading[1] if heading else name.stem)
    except UnicodeDecodeError as error:
        return DocumentError(f"it is not valid UTF-8 (byte {error.start + 1}).")
    except DocumentError as error:
        return error


def _json_object(raw: bytes) -> Record:
    try:
        record = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return DocumentError(f"it is not valid UTF-8 (byte {error.start + 1}).")
    except json.JSONDecodeError as error:
        return DocumentError(f"it is not valid JSON ({error.msg} at character {error.pos + 1}).")
    except RecursionError:
        return DocumentError("its JSON is nested too deeply.")
    except ValueError:
        return DocumentError("it holds an integer of thousands of digits; write it as a string.")
    if isinstance(record, dict):
        return record
    if isinstance(record, list):
        return DocumentError("it is a JSON array: one object a line is needed (`jq -c '.[]'` makes them of an array).")
    return DocumentError(f"it is not a JSON object but a single {type(record).__name__}.")
