"""Readers of tables: CSV, TSV, Parquet, and tables in memory."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from hybridsearch.documents import in_order
from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.fields import Fields, Numbered, Record, WholeFileError
from hybridsearch.readers.text import decoded, invalid_text
from hybridsearch.readers.types import Column

if TYPE_CHECKING:
    from _csv import Reader

    import pyarrow as pa

LONGEST_CSV_FIELD = 2**27
"""Number of characters of the longest field in a CSV file.

The limit of the csv module, 131,072, is too small for long documents. Without a limit, an unclosed quote would read the
whole file as one field."""

_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r"sep=([^\r\n])\r?\n?", re.IGNORECASE)
_SAMPLE = 2**16  # characters at the start of a table by which its dialect is found
_PARQUET_BATCH = 256  # rows, so that a batch of long documents fits into memory


def csv_rows(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Read the rows of a CSV file below its header. Values may be in quotes."""
    return _records(file, fields, _DELIMITERS, csv.QUOTE_MINIMAL)


def tsv_rows(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Read the rows of a TSV file below its header. Quotes have no meaning."""
    return _records(file, fields, "\t", csv.QUOTE_NONE)


def csv_columns(file: IO[bytes], fields: Fields) -> list[Column]:
    """Find the types of the metadata columns of a CSV file whose types are not given, from all its rows."""
    return _columns(file, fields, _DELIMITERS, csv.QUOTE_MINIMAL)


def tsv_columns(file: IO[bytes], fields: Fields) -> list[Column]:
    """Find the types of the metadata columns of a TSV file whose types are not given, from all its rows."""
    return _columns(file, fields, "\t", csv.QUOTE_NONE)


def parquet_rows(file: IO[bytes], fields: Fields) -> Iterator[Numbered]:
    """Read the rows of a Parquet file in batches."""
    import pyarrow.parquet as pq

    with _damage("it is not a readable Parquet file"):
        table = pq.ParquetFile(file)
        columns = table.schema_arrow.names
        fields.check(columns)
        batches = table.iter_batches(_PARQUET_BATCH, columns=_wanted(columns, fields))
    number = 0
    while True:
        with _damage(f"it is damaged after row {number}"):
            batch = next(batches, None)
        if batch is None:
            return
        for record in _arrow_records(batch):
            number += 1
            yield number, record


def arrow_rows(table: Any, fields: Fields) -> Iterator[Numbered]:
    """Read the rows of a table in memory in batches."""
    import pyarrow as pa

    number = 0
    table = _without_sets(table)
    with _damage("it is not readable, and each column needs one type", table):
        reader = pa.RecordBatchReader.from_stream(table)
        _refuse_periods(reader.schema)
        columns = [name for name in reader.schema.names if not name.startswith("__index_level_")]
        fields.check(columns)
        wanted = _wanted(columns, fields)
    while True:
        with _damage(f"it is damaged after row {number}"):
            batch = next(reader, None)
        if batch is None:
            return
        rows = batch.select(wanted)
        for start in range(0, rows.num_rows, _PARQUET_BATCH):
            for record in _arrow_records(rows.slice(start, _PARQUET_BATCH)):
                number += 1
                yield number, record


def named_rows(columns: list[str], rows: Iterable[Sequence[Any]], fields: Fields) -> Iterator[Numbered]:
    """Read rows that are sequences of values."""
    try:
        fields.check(columns)
    except DocumentError as error:
        raise WholeFileError(str(error)) from error
    wanted = set(_wanted(columns, fields))
    for number, row in enumerate(rows, 1):
        yield number, {name: value for name, value in zip(columns, row, strict=True) if name in wanted}


def _without_sets(table: Any) -> Any:
    """The table with sorted lists in place of sets. Arrow would order their elements anew in each process."""
    if not hasattr(table, "isetitem"):  # only a DataFrame of pandas can hold sets
        return table
    found = table
    for place, kind in enumerate(table.dtypes):
        if str(kind) == "object" and any(isinstance(value, set | frozenset) for value in table.iloc[:, place]):
            found = table.copy(deep=False) if found is table else found
            listed = [in_order(v) if isinstance(v, set | frozenset) else v for v in table.iloc[:, place]]
            found.isetitem(place, type(table.iloc[:, place])(listed, index=table.index, dtype=object))
    return found


def _refuse_periods(schema: pa.Schema) -> None:
    """Refuse columns with periods of pandas, because Arrow has only their numbers."""
    for name, type in zip(schema.names, schema.types, strict=True):
        if getattr(type, "extension_name", "") == "pandas.period":
            raise DocumentError(
                f"the column {name!r:.80} holds periods, which cannot be stored. Convert them to text, such as "
                f"df[{name!r:.80}] = df[{name!r:.80}].astype(str)."
            )


def _unlike(error: Exception, table: Any) -> str | None:
    """The error of a DataFrame's column that Arrow cannot convert. None for any other error."""
    found = re.search(r"Conversion failed for column (.*) with type", str(error.args[-1]) if error.args else "")
    if found is None:
        return None
    name = found[1]
    try:
        kinds = sorted({type(value).__name__ for value in table[name].dropna()})
    except Exception:  # not a DataFrame of pandas, or the name is not a string
        kinds = []
    held = f"values of the types {', '.join(kinds[:4])}{', ...' if len(kinds) > 4 else ''}; it needs one type"
    if len(kinds) < 2:
        held = f"values{f' of the type {kinds[0]}' if kinds else ''} that cannot be stored"
    return f"the column {name!r:.80} holds {held}. Convert it, such as df[{name!r:.80}] = df[{name!r:.80}].astype(str)."


@contextmanager
def _damage(what: str, table: Any = None) -> Iterator[None]:
    """Turns an error of Arrow into a WholeFileError. An error of the storage stays as it is."""
    from pyarrow import ArrowException

    try:
        yield
    except DocumentError as error:
        raise WholeFileError(str(error)) from error
    except (ArrowException, ValueError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if (unlike := _unlike(error, table)) is not None:
            raise WholeFileError(unlike) from error
        raise WholeFileError(f"{what} ({' '.join(str(error).split()):.300}).") from error


def _wanted(columns: list[str], fields: Fields) -> list[str]:
    if fields.metadata is None:
        return columns
    wanted = {*fields.id, *fields.text, *fields.title, *fields.metadata, "metadata"}
    return [name for name in columns if name in wanted]


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How the columns of a table are separated, and how values are quoted.

    Attributes:
        delimiter: Character between two columns.
        quoting: Whether quotes have a meaning, as in the module csv.
        quote: Character around a value that holds a delimiter.
        escape: Character before a quote that is part of a value. None doubles such quotes.
    """

    delimiter: str
    quoting: Literal[0, 3]
    quote: str = '"'
    escape: str | None = None

    def reader(self, lines: Iterable[str]) -> Reader:
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=self.quoting,
            quotechar=self.quote,
            escapechar=self.escape,
            strict=True,
        )


@contextmanager
def _table(
    file: IO[bytes], fields: Fields, delimiters: str, quoting: Literal[0, 3]
) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str] | DocumentError]]]]:
    """Opens a table. Gives its header, and the number of each line with its row or its error."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    with decoded(file, fields.encoding, "") as text:
        start = _start(text)
        told = _SEPARATOR.fullmatch(start[0]) if start and quoting == csv.QUOTE_MINIMAL else None
        above = len(start[:1]) if told else 0  # a line that only names the delimiter, as Excel writes it
        dialect = _dialect(start[above:], fields, fields.delimiter or (told[1] if told else delimiters), quoting)
        lines = dialect.reader(chain(start[above:], _lines(text)))
        header: list[str] = []
        try:
            if (wrong := invalid_text("".join(start[: above + 1]), fields.encoding)) is not None:
                raise wrong
            header = next(lines, [])
            if not header:
                raise DocumentError("the first line is empty, but must name the columns.")
            fields.check(header)
        except (csv.Error, DocumentError) as error:
            told_how = " If the columns are separated by another character, name it with delimiter (--delimiter)."
            raise WholeFileError(f"{error}{told_how if len(header) == 1 else ''}") from error

        def rows() -> Iterator[tuple[int, list[str] | DocumentError]]:
            while True:
                number = lines.line_num + above + 1
                try:
                    row = next(lines)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield number, DocumentError(f"it is not valid CSV ({error}). Perhaps a quote is not closed.")
                    continue
                if len(row) == len(header):
                    yield number, invalid_text("\n".join(row), fields.encoding) or row
                elif row:
                    values, columns = number_of(len(row), "value"), number_of(len(header), "column")
                    yield number, DocumentError(f"it has {values} for {columns}. Perhaps a quote is missing.")

        yield header, rows()


def _lines(text: TextIO) -> Iterator[str]:
    """The lines of a text, none of which is longer than a field may be."""
    for line in iter(lambda: text.readline(LONGEST_CSV_FIELD + 1), ""):
        if len(line) > LONGEST_CSV_FIELD:
            raise WholeFileError(f"it has a line of more than {LONGEST_CSV_FIELD:,} characters.")
        yield line


def _start(text: TextIO) -> list[str]:
    """The first lines of a table, by which its dialect is found."""
    start: list[str] = []
    length = 0
    for line in _lines(text):
        start.append(line if start else line.removeprefix("\ufeff"))
        length += len(line)
        if length > _SAMPLE:
            break
    return start


def _dialect(start: Sequence[str], fields: Fields, delimiters: str, quoting: Literal[0, 3]) -> _Dialect:
    """The dialect of a table that begins with these lines.

    Values are quoted by double quotes, which are doubled within a value. If the lines do not fit this, and show a
    backslash before a quote, or single quotes and no double quotes, these dialects are tried.
    """
    usual = _Dialect(_delimiter(start, fields, delimiters, _Dialect(",", quoting)), quoting)
    if quoting == csv.QUOTE_NONE or _fits(usual, start):
        return usual
    whole = "".join(start)
    others = [_Dialect(",", quoting, '"', "\\")] if '\\"' in whole else []
    if '"' not in whole:
        others += [_Dialect(",", quoting, "'"), _Dialect(",", quoting, "'", "\\")]
    for other in others:
        dialect = replace(other, delimiter=_delimiter(start, fields, delimiters, other))
        if _fits(dialect, start):
            return dialect
    return usual


def _fits(dialect: _Dialect, start: Sequence[str]) -> bool:
    """Whether all rows have as many values as the header. The last row may be cut off."""
    widths: list[int] = []
    try:
        widths.extend(len(row) for row in dialect.reader(start) if row)
    except csv.Error:
        if sum(map(len, start)) <= _SAMPLE:
            return False
    whole = widths[:-1] if sum(map(len, start)) > _SAMPLE else widths
    return len(set(whole)) <= 1


def _delimiter(start: Sequence[str], fields: Fields, delimiters: str, dialect: _Dialect) -> str:
    """The first delimiter that gives a usable header. If there is none, the most frequent one, for the error."""
    for delimiter in delimiters:
        with contextlib.suppress(csv.Error, DocumentError):
            fields.check(next(replace(dialect, delimiter=delimiter).reader(start), []))
            return delimiter
    return max(delimiters, key=start[0].count) if start else delimiters[0]


def _records(file: IO[bytes], fields: Fields, delimiters: str, quoting: Literal[0, 3]) -> Iterator[Numbered]:
    with _table(file, fields, delimiters, quoting) as (header, rows):
        verbatim = set(fields.of_document(header))
        for number, row in rows:
            if isinstance(row, DocumentError):
                yield number, row
                continue
            cells = zip(header, row, strict=True)
            yield number, {name: value for name, value in cells if name in verbatim or value.strip()}


def _columns(file: IO[bytes], fields: Fields, delimiters: str, quoting: Literal[0, 3]) -> list[Column]:
    with _table(file, fields, delimiters, quoting) as (header, rows):
        known = {*fields.of_document(header), *fields.types}
        kept = set(header) if fields.metadata is None else fields.metadata
        columns = [Column(name, at) for at, name in enumerate(header) if name not in known and name in kept]
        undecided = columns
        for number, row in rows:
            if not isinstance(row, DocumentError):
                undecided = [column for column in undecided if column.look(row[column.place], number)]
            if not undecided:
                break
    return columns


def _with_decimals(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with float32, also in lists and mappings, as float64 with the same short decimals.

    So 4.99 does not become 4.989999771118164. `_finished` does the same for types that Arrow cannot convert.
    """
    import pyarrow as pa

    def longer(column: pa.Array[Any]) -> pa.Array[Any]:
        kind = column.type
        if "float" in str(kind) and (texts := _without_float32(kind, pa.string())) != kind:
            return column.cast(texts).cast(_without_float32(kind, pa.float64()))
        return column

    columns = [longer(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _without_float32(kind: Any, other: Any) -> Any:
    """The type of Arrow with another one in place of float32 at each level."""
    import pyarrow as pa

    if kind == pa.float32():
        return other
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        inner = [_without_float32(field.type, other) for field in fields]
        return pa.struct([(field.name, one) for field, one in zip(fields, inner, strict=True)])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _without_float32(kind.item_type, other))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        found = _without_float32(kind.value_type, other)
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(found, kind.list_size)
        return pa.large_list(found) if pa.types.is_large_list(kind) else pa.list_(found)
    return kind


def _finished(value: Any, kind: Any) -> Any:
    """The value with short decimals, and with mappings in place of the pairs of maps whose keys are strings.

    Raises:
        ValueError: A map has a key twice.
    """
    import pyarrow as pa

    if value is None:
        return None
    if kind in (pa.float16(), pa.float32()):
        return float(str((np.float16 if kind == pa.float16() else np.float32)(value)))
    if pa.types.is_map(kind):
        pairs = [(key, _finished(item, kind.item_type)) for key, item in value]
        if not (pa.types.is_string(kind.key_type) or pa.types.is_large_string(kind.key_type)):
            return pairs
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a map has a key twice")
        return dict(pairs)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _finished(value, kind.value_type)
    if pa.types.is_struct(kind):
        return {name: _finished(item, kind.field(name).type) for name, item in value.items()}
    if isinstance(value, list):
        return [_finished(item, kind.value_type) for item in value]
    return value


_UNFINISHED = ("map<", "halffloat", "list_view<", "values=float", "values: float")
"""Parts of the names of types whose values `_finished` changes."""


def _arrow_records(batch: pa.RecordBatch) -> Iterator[Record]:
    broken = (ValueError, OverflowError)  # bytes that are not UTF-8, a time in nanoseconds, a year after 9999
    try:
        records = _with_decimals(batch).to_pylist()
        for field in batch.schema:
            if any(name in str(field.type) for name in _UNFINISHED):
                for record in records:
                    record[field.name] = _finished(record[field.name], field.type)
    except broken as error:
        if batch.num_rows == 1:
            yield DocumentError(f"it holds a value that cannot be read ({error}).")
            return
        for row in range(batch.num_rows):
            yield from _arrow_records(batch.slice(row, 1))
    else:
        yield from records
