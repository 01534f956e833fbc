"""Tables: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Literal

from hybridsearch.errors import DocumentError
from hybridsearch.readers.fields import Fields, Numbered, Record, WholeFileError

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_CSV_FIELD = 2**27
"""Characters; the csv module's own limit of 131,072 refuses long documents, and none at all an unclosed quote."""

_NUMBER = re.compile(r"-?\d{1,17}(\.\d{1,17})?", re.ASCII)
_PARQUET_BATCH = 256  # rows; a batch of long documents should still fit into memory with ease


def csv_rows(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Rows below a header, with values in quotes where they need them."""
    return _rows(file, fields, ",", csv.QUOTE_MINIMAL)


def tsv_rows(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Rows below a header, without quoting."""
    return _rows(file, fields, "\t", csv.QUOTE_NONE)


def parquet_rows(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Rows, read some at a time."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    damage = (ArrowException, ValueError, OSError)
    try:
        table = pq.ParquetFile(file)
        columns = table.schema_arrow.names
        fields.check(columns)
    except DocumentError as error:
        raise WholeFileError(str(error)) from error
    except damage as error:
        raise WholeFileError(f"it is not a readable Parquet file ({error}).") from error
    if fields.metadata is not None:
        wanted = {*fields.id, *fields.text, *fields.title, *fields.metadata, "metadata"}
        columns = [name for name in columns if name in wanted]
    batches = table.iter_batches(_PARQUET_BATCH, columns=columns)
    number = 0
    while True:
        try:
            batch = next(batches, None)
        except damage as error:
            raise WholeFileError(f"it is damaged after row {number} ({error}).") from error
        if batch is None:
            return
        for record in _parquet_records(batch):
            number += 1
            yield number, record


def _rows(file: IO[bytes], fields: Fields, delimiter: str, quoting: Literal[0, 3]) -> Iterator[Numbered]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    # Bytes that are no UTF-8 become lone surrogates, so that they spoil their own row and not the lines around it.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = csv.reader(text, delimiter=delimiter, quoting=quoting)
        try:
            header = next(rows, [])
            if not header:
                raise DocumentError("the first line is empty, but should name the columns.")
            fields.check(header)
        except (csv.Error, DocumentError) as error:
            raise WholeFileError(str(error)) from error
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, DocumentError(f"it is not valid CSV ({error}); is a quote not closed?")
                continue
            if row:
                yield number, _csv_record(header, row, fields)


def _csv_record(header: list[str], row: list[str], fields: Fields) -> Record:
    if len(row) != len(header):
        return DocumentError(f"it has {len(row)} values for {len(header)} columns; is a quote missing?")
    if not _is_unicode(row):
        return DocumentError("it is not valid UTF-8.")
    verbatim = (*fields.id, *fields.text, *fields.title)
    cells = zip(header, row, strict=True)
    return {name: value if name in verbatim else _number(value) for name, value in cells if value or name in verbatim}


def _is_unicode(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: str) -> str | int | float:
    """The number that is spelled just so, or the string: "007" and "1.10" are no numbers."""
    if not value.isascii() or not _NUMBER.fullmatch(value):
        return value
    number = float(value) if "." in value else int(value)
    return number if str(number) == value else value


def _parquet_records(batch: pa.RecordBatch) -> Iterator[Record]:
    broken = (ValueError, OverflowError)  # bytes that are no UTF-8, a time in nanoseconds, a year beyond 9999
    try:
        records = batch.to_pylist()
    except broken as error:
        if batch.num_rows == 1:
            yield DocumentError(f"it holds a value that cannot be read ({error}).")
            return
        for row in range(batch.num_rows):
            yield from _parquet_records(batch.slice(row, 1))
    else:
        yield from records
