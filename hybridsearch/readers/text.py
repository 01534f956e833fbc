"""Documents from files: JSON lines, CSV, Parquet, BEIR folders, folders of text files; streamed, one at a time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError, InvalidArgumentError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

Format: TypeAlias = Literal["jsonl", "csv", "tsv", "parquet", "beir", "text"]

ID_FIELDS = ("id", "_id", "docid")
TEXT_FIELDS = ("text", "contents", "content", "body")
TITLE_FIELDS = ("title",)

LONGEST_CSV_FIELD = 2**27
"""Characters; the csv module's own limit of 131,072 refuses long documents, and none at all an unclosed quote."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".markdown": "text",
}
_TEXT_SUFFIXES = tuple(suffix for suffix, format in _FORMATS.items() if format == "text")
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t]*#*[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d{1,17}(\.\d{1,17})?", re.ASCII)
_PARQUET_BATCH = 256  # rows; a batch of long documents should still fit into memory with ease

_Record: TypeAlias = "Mapping[str, Any] | Document | DocumentError"
_Numbered: TypeAlias = tuple[int | None, _Record]


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A record that is no document: its file, its 1-based line (or row, or None for a whole file), and why.

    >>> print(SkippedLine("corpus.jsonl", 12, "is not valid JSON"))
    corpus.jsonl, line 12: is not valid JSON
    """

    file: str
    line: int | None
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f', {self.unit} {self.line}'}: {self.reason}"


def read_documents(
    source: str | Path | Iterable[Document | Mapping[str, Any]],
    *,
    format: Format | str | None = None,
    id_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    metadata_fields: Sequence[str] | None = None,
    auto_id: bool = False,
    on_error: Literal["stop", "skip"] | str = "stop",
) -> DocumentReader:
    """Stream documents from files, or from any iterable of documents and mappings.

    | source                              | records                                              |
    |-------------------------------------|------------------------------------------------------|
    | .jsonl, .ndjson, .json              | one JSON object a line                               |
    | .csv, .tsv                          | rows below a header; .tsv has no quoting             |
    | .parquet                            | rows                                                 |
    | a folder with corpus.jsonl          | its lines (a BEIR dataset)                           |
    | any other folder, or .txt, .md      | the .txt and .md files in it and below, none hidden  |

    All but Parquet may be compressed (.gz); text is UTF-8. A record's id is its field id, _id or docid (integers
    become strings), its text the field text, contents, content or body, its title the field title, whichever comes
    first in this order. Everything else is metadata, and a field "metadata" that holds a mapping is merged into it.
    In CSV a metadata value that is a number's usual spelling ("1958", "0.5", but not "007") becomes that number, and
    an empty one is left out. A text file's id is its path below the folder, its title the first Markdown heading or
    else its name.

    Args:
        source: a path, or documents and mappings; a `DocumentReader` is returned as it is.
        format: "jsonl", "csv", "tsv", "parquet", "beir" or "text"; None tells it by the name.
        id_field, text_field, title_field: fields to use instead of the recognised ones.
        metadata_fields: the only fields to keep as metadata; None keeps all.
        auto_id: number the records that have no id as "<file name>-<line>"; two files of the same name collide.
        on_error: at a record that is no usable document, "stop" by raising DocumentError with the file and line, or
            "skip" it and list it in the reader's `skipped`.

    Raises:
        InvalidArgumentError: an argument is not one of those above.
        DocumentError: there is no such file or folder, or its format is not recognised.

    >>> documents = [{"_id": 7, "title": "Wings", "contents": "Lift grows.", "year": 1958}]
    >>> next(iter(read_documents(documents)))
    Document(id='7', text='Lift grows.', title='Wings', metadata=mappingproxy({'year': 1958}))
    """
    if isinstance(source, DocumentReader):
        return source
    if on_error not in ("stop", "skip"):
        raise InvalidArgumentError(f"on_error is 'stop' or 'skip', not {on_error!r}.")
    if format is not None and format not in get_args(Format):
        raise InvalidArgumentError(f"No format {format!r} is known: known are {', '.join(get_args(Format))}.")
    if isinstance(metadata_fields, str):
        raise InvalidArgumentError(f"metadata_fields is a list of names, not the string {metadata_fields!r}.")
    fields = _Fields(
        (id_field,) if id_field else ID_FIELDS,
        (text_field,) if text_field else TEXT_FIELDS,
        (title_field,) if title_field else TITLE_FIELDS,
        None if metadata_fields is None else frozenset(metadata_fields),
        auto_id,
    )
    skip = on_error == "skip"
    if isinstance(source, str | Path):
        with _readable(SkippedLine(str(source), None, "")):
            return DocumentReader(*_locate(Path(source), cast("Format | None", format)), fields, skip)
    if isinstance(source, Document | Mapping):
        source = [source]
    if not isinstance(source, Iterable):
        raise InvalidArgumentError(
            f"Documents come from a path or an iterable of documents or mappings, not from {type(source).__name__}."
        )
    return DocumentReader(source, None, fields, skip)


class DocumentReader(Iterable[Document]):
    """Documents that are read while they are iterated; made by `read_documents`.

    Iterating again reads again, except from an iterator.

    Attributes:
        skipped: what the latest iteration skipped so far, with on_error="skip".
        bytes_total: size of the file; None where it is not known, as for a folder or an iterable.
    """

    def __init__(
        self,
        source: Path | Iterable[Document | Mapping[str, Any]],
        format: Format | None,
        fields: _Fields,
        skip: bool,
    ) -> None:
        self._source = source
        self._format = format
        self._fields = fields
        self._skip = skip
        self._position: Callable[[], int] = int
        self.skipped: list[SkippedLine] = []
        self.bytes_total = source.stat().st_size if isinstance(source, Path) and source.is_file() else None

    @property
    def bytes_read(self) -> int:
        """How much of the file the latest iteration has read, for a progress bar."""
        return self._position()

    def __iter__(self) -> Iterator[Document]:
        self.skipped = skipped = []
        for where, number, record in self._records():
            try:
                document = self._fields.document(record, where, number)
            except DocumentError as error:
                bad = replace(where, line=number, reason=str(error))
                if not self._skip:
                    raise DocumentError(str(bad)) from error.__cause__
                skipped.append(bad)
            else:
                yield document

    def __repr__(self) -> str:
        shown = repr(str(self._source)) if isinstance(self._source, Path) else type(self._source).__name__
        return f"DocumentReader({shown}{f', format={self._format!r}' if self._format else ''})"

    def _records(self) -> Iterator[tuple[SkippedLine, int | None, _Record]]:
        """(where, number, record or what is wrong with it); `where` has the file and the unit of the number."""
        source = self._source
        if not isinstance(source, Path):
            where = SkippedLine("documents", None, "", "number")
            yield from ((where, number, _mapping(record)) for number, record in enumerate(source, start=1))
            return
        if self._format == "text":
            with _readable(SkippedLine(str(source), None, "")):
                for path in _text_files(source):
                    id = path.name if path == source else path.relative_to(source).as_posix()
                    yield SkippedLine(str(path), None, ""), None, _text_file(path, id)
            return
        where = SkippedLine(str(source), None, "", "row" if self._format == "parquet" else "line")
        with _readable(where), source.open("rb") as file:
            self._position = lambda: (self.bytes_total or 0) if file.closed else file.tell()
            if self._format == "parquet":
                numbered = _parquet_rows(file, self._fields)
            else:
                plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if source.suffix == ".gz" else file
                numbered = (
                    _json_lines(plain)
                    if self._format in ("jsonl", "beir")
                    else _csv_rows(plain, "\t" if self._format == "tsv" else ",", self._fields)
                )
            yield from ((where, number, record) for number, record in numbered)


@dataclass(frozen=True, slots=True)
class _Fields:
    """Which fields of a record become what in its document."""

    id: tuple[str, ...]
    text: tuple[str, ...]
    title: tuple[str, ...]
    metadata: frozenset[str] | None
    auto_id: bool

    def document(self, record: _Record, where: SkippedLine, number: int | None) -> Document:
        if isinstance(record, Document):
            return record
        if isinstance(record, DocumentError):
            raise record
        id_field, text_field, title_field = (_first(names, record) for names in (self.id, self.text, self.title))
        if text_field is None:
            raise self.without_text(record)
        id = record[id_field] if id_field is not None else None
        if id is None or id == "":
            if not self.auto_id:
                raise self.without_id(record)
            id = f"{Path(where.file).name}-{number}"
        elif isinstance(id, int) and not isinstance(id, bool):
            id = _decimal(id)
        title = record[title_field] if title_field is not None else None
        used = (id_field, text_field, title_field)
        metadata = {field: value for field, value in record.items() if field not in used}
        nested = metadata.get("metadata")
        if isinstance(nested, Mapping):
            del metadata["metadata"]
            metadata = {**nested, **metadata}
        if self.metadata is not None:
            metadata = {field: value for field, value in metadata.items() if field in self.metadata}
        return Document(id, record[text_field], "" if title is None else title, metadata)

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a table at once that lacks what every row needs."""
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise DocumentError(f"two columns are named {twice!r:.80}; names must differ.")
        if _first(self.text, columns) is None:
            raise self.without_text(columns)
        if _first(self.id, columns) is None and not self.auto_id:
            raise self.without_id(columns)

    def without_text(self, found: Iterable[str]) -> DocumentError:
        return DocumentError(
            f"there is no text: {_listed(self.text)} is not among its fields ({_shown(found)}); "
            "name the field with text_field (--text-field)."
        )

    def without_id(self, found: Iterable[str]) -> DocumentError:
        return DocumentError(
            f"there is no id: {_listed(self.id)} is missing or empty among its fields ({_shown(found)}); "
            "name the field with id_field (--id-field), or let ids be made with auto_id=True (--auto-id)."
        )


def _first(names: Sequence[str], record: Iterable[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _listed(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _shown(fields: Iterable[str]) -> str:
    names = [f"{field!r:.40}" for field in fields]
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "it has none"


def _decimal(value: int) -> str:
    if value.bit_length() > 1024:
        raise DocumentError("its id is an integer of hundreds of digits; write it as a string.")
    return str(value)


def _locate(path: Path, format: Format | None) -> tuple[Path, Format]:
    """The file or folder to read, and its format."""
    if not path.exists():
        raise DocumentError(f"There is no file or folder {str(path)!r}: check the path.")
    if not path.is_dir():
        suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        format = format or _FORMATS.get(suffix.lower())
        if format is None:
            raise DocumentError(
                f"The format of {str(path)!r} is not told by its name: use one of {', '.join(_FORMATS)} "
                f"(.gz too), or say format={'|'.join(get_args(Format))} (--format)."
            )
        return path, format
    if format in (None, "beir"):
        for name in ("corpus.jsonl", "corpus.jsonl.gz"):
            if (path / name).is_file():
                return path / name, "beir"
    if format == "text" or (format is None and next(_text_files(path), None) is not None):
        return path, "text"
    raise DocumentError(
        f"The folder {str(path)!r} holds neither corpus.jsonl (a BEIR dataset) nor .txt or .md files"
        + (
            f", which format={format!r} needs: give the file itself."
            if format
            else ": give one file, or another folder."
        )
    )


@contextmanager
def _readable(where: SkippedLine) -> Iterator[None]:
    """Damage that ends a file becomes a DocumentError that names it."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DocumentError(f"{where.file}: the compressed file is damaged or cut off ({error}).") from error
    except OSError as error:
        raise StorageError(f"{where.file} cannot be read: {error.strerror or error}.") from error
    except _WholeFileError as error:
        raise DocumentError(f"{where.file}: {error}") from error.__cause__


class _WholeFileError(Exception):
    """The file as a whole cannot be read as documents, so that skipping lines does not help."""


def _mapping(value: object) -> _Record:
    if isinstance(value, Document | Mapping):
        return value
    return DocumentError(f"a document is a Document or a mapping with id and text, not {type(value).__name__}.")


def _json_lines(file: IO[bytes]) -> Iterator[_Numbered]:
    for number, line in enumerate(file, start=1):
        raw = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not raw.isspace() and raw:
            yield number, _json_object(raw)


def _json_object(raw: bytes) -> _Record:
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


def _csv_rows(file: IO[bytes], delimiter: str, fields: _Fields) -> Iterator[_Numbered]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    # Bytes that are no UTF-8 become lone surrogates, so that they spoil their own row and not the lines around it.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        rows = csv.reader(text, delimiter=delimiter, quoting=quoting)
        try:
            header = next(rows, [])
            if not header:
                raise DocumentError("the first line is empty, but should name the columns.")
            fields.check(header)
        except (csv.Error, DocumentError) as error:
            raise _WholeFileError(str(error)) from error
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


def _csv_record(header: list[str], row: list[str], fields: _Fields) -> _Record:
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


def _parquet_rows(file: IO[bytes], fields: _Fields) -> Iterator[_Numbered]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    damage = (ArrowException, ValueError, OSError)
    try:
        table = pq.ParquetFile(file)
        columns = table.schema_arrow.names
        fields.check(columns)
    except DocumentError as error:
        raise _WholeFileError(str(error)) from error
    except damage as error:
        raise _WholeFileError(f"it is not a readable Parquet file ({error}).") from error
    if fields.metadata is not None:
        wanted = {*fields.id, *fields.text, *fields.title, *fields.metadata, "metadata"}
        columns = [name for name in columns if name in wanted]
    batches = table.iter_batches(_PARQUET_BATCH, columns=columns)
    number = 0
    while True:
        try:
            batch = next(batches, None)
        except damage as error:
            raise _WholeFileError(f"it is damaged after row {number} ({error}).") from error
        if batch is None:
            return
        for record in _parquet_records(batch):
            number += 1
            yield number, record


def _parquet_records(batch: pa.RecordBatch) -> Iterator[_Record]:
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


def _text_files(path: Path) -> Iterator[Path]:
    """The file itself, or the text files of a folder, sorted within each folder."""
    if path.is_file():
        yield path
        return
    for folder, below, names in os.walk(path, onerror=_raise):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.lower().removesuffix(".gz").endswith(_TEXT_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _text_file(path: Path, id: str) -> _Record:
    with _readable(SkippedLine(str(path), None, "")):
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    try:
        text = raw.decode("utf-8-sig")
        name = Path(path.name.removesuffix(".gz"))
        heading = None if name.suffix.lower() == ".txt" else _HEADING.search(text.partition("\n```")[0])
        return Document(id, text, heading[1] if heading else name.stem)
    except UnicodeDecodeError as error:
        return DocumentError(f"it is not valid UTF-8 (byte {error.start + 1}).")
    except DocumentError as error:
        return error


def _raise(error: OSError) -> None:
    raise error
