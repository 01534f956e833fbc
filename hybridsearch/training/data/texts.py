"""Read the rows of CSV and JSON files, each with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from hybridsearch.errors import DocumentError, StorageError
from hybridsearch.messages import number_of
from hybridsearch.readers import LONGEST_CSV_FIELD
from hybridsearch.readers.compression import decompressed, plain_name
from hybridsearch.readers.fields import WholeFileError
from hybridsearch.readers.text import decode_json

Placed: TypeAlias = tuple[str, Mapping[str, Any]]
"""A row and its place, such as "pairs.csv, line 12"."""


def rows_of_text(path: Path) -> Iterator[Placed]:
    """Read the rows of a file in one of `TEXT_FORMATS`, which may be compressed.

    Raises:
        DocumentError: A row or the compressed file is damaged.
        StorageError: The file cannot be read.
    """
    read = TEXT_FORMATS[Path(plain_name(path.name)).suffix.lower()]
    with _readable(path), path.open("rb") as opened:
        file = decompressed(opened)
        lines = (line.removeprefix(b"\xef\xbb\xbf") if place == 0 else line for place, line in enumerate(file))
        yield from read(path, lines)


def _csv_rows(path: Path, lines: Iterator[bytes]) -> Iterator[Placed]:
    yield from _delimited(path, lines, ",", csv.QUOTE_MINIMAL)


def _tsv_rows(path: Path, lines: Iterator[bytes]) -> Iterator[Placed]:
    yield from _delimited(path, lines, "\t", csv.QUOTE_NONE)


def _delimited(path: Path, lines: Iterator[bytes], delimiter: str, quoting: Any) -> Iterator[Placed]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    reader = csv.reader(_decoded(path, lines), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, [])
        other = next((mark for mark in ";\t,|" if mark != delimiter and mark in "".join(header)), None)
        if len(header) == 1 and other:
            raise DocumentError(
                f"{path}: the columns seem to be separated by {other!r}. Use commas in a .csv file and tabs in a .tsv "
                "file."
            )
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None or "" in header:
            raise DocumentError(
                f"{path}: "
                + (f"two columns are named {twice!r}" if twice else "a column has no name")
                + ". Give each column its own name in the first line."
            )
        number = reader.line_num + 1
        for row in reader:
            where = f"{path}, line {number}"
            number = reader.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                values, columns = number_of(len(row), "value"), number_of(len(header), "column")
                raise DocumentError(f"{where}: the row has {values} for {columns}. Check that no quote is missing.")
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DocumentError(
            f"{path}, line {reader.line_num}: the line is not valid CSV ({error}). Check that all quotes are closed."
        ) from error


def _json_rows(path: Path, lines: Iterator[bytes]) -> Iterator[Placed]:
    """Rows of one object a line, or of one array of objects."""
    texts = ((number, line) for number, line in enumerate(_decoded(path, lines), 1) if line.strip())
    first = next(texts, (1, ""))
    if first[1].lstrip().startswith("["):
        yield from _json_array(path, "".join(line for _, line in chain([first], texts)))
        return
    for number, line in chain([first], texts) if first[1] else ():
        where = f"{path}, line {number}"
        row = _json(line, where)
        if not isinstance(row, dict):
            raise DocumentError(
                f"{where}: the line is not a JSON object. Give one object a line, or one array of objects."
            )
        yield where, row


def _json_array(path: Path, text: str) -> Iterator[Placed]:
    rows = _json(text, str(path))
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DocumentError(f"{path}, row {number}: the row is {row!r:.80}. Give a JSON object.")
        yield f"{path}, row {number}", row


def _json(text: str, where: str) -> Any:
    try:
        return decode_json(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise DocumentError(f"{where}: this is not valid JSON ({reason}).") from error


def _decoded(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise DocumentError(
                f"{path}, line {number}: the line is not valid UTF-8 (byte {error.start + 1}). Save the file as UTF-8."
            ) from error


TEXT_FORMATS: dict[str, Callable[[Path, Iterator[bytes]], Iterator[Placed]]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
}
"""The endings of text files, and the function that reads each."""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except WholeFileError as error:
        raise DocumentError(f"{path}: {error}") from error
    except OSError as error:
        if isinstance(error, StorageError | DocumentError):
            raise
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
