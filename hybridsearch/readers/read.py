"""Documents from files, tables and iterables: streamed, one at a time."""

from __future__ import annotations

import codecs
import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast, runtime_checkable

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError, InvalidArgumentError, StorageError
from hybridsearch.messages import number_of
from hybridsearch.readers.fields import ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, Fields, Numbered, Record, WholeFileError
from hybridsearch.readers.tables import arrow_rows, csv_columns, csv_rows, parquet_rows, tsv_columns, tsv_rows
from hybridsearch.readers.text import json_lines, text_document
from hybridsearch.readers.types import TYPES, Column, Kinds, types_note

_SHOWN = 3
"""Number of skipped records that a note names."""


@runtime_checkable
class Table(Protocol):
    """A table in memory, such as a DataFrame of pandas or polars: Arrow's interface in Python."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, slots=True)
class _Format:
    """How the files of one format are read.

    Attributes:
        suffixes: of their names, without .gz.
        records: gives the records of an open file, by line or row; None if a file is one document.
        columns: reads an open file for the types of its columns; None if it needs no look.
        document: makes a record of a whole file, given its content, path, id and encoding.
        unit: what a record's number counts.
        compressed: whether files may end in .gz.
    """

    suffixes: tuple[str, ...]
    records: Callable[[IO[bytes], Fields], Iterator[Numbered]] | None = None
    columns: Callable[[IO[bytes], Fields], list[Column]] | None = None
    document: Callable[[bytes, Path, str, str | None], Record] = text_document
    unit: str = "line"
    compressed: bool = True


_FORMATS = {
    "jsonl": _Format((".jsonl", ".ndjson", ".json"), json_lines),
    "csv": _Format((".csv",), csv_rows, csv_columns),
    "tsv": _Format((".tsv",), tsv_rows, tsv_columns),
    "parquet": _Format((".parquet",), parquet_rows, unit="row", compressed=False),
    "beir": _Format((), json_lines),
    "text": _Format((".txt", ".md", ".markdown"), document=text_document),
}


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
    source: str | Path | Table | Iterable[Document | Mapping[str, Any]],
    *,
    format: str | None = None,
    id_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    metadata_fields: Sequence[str] | None = None,
    auto_id: bool = False,
    types: Mapping[str, str] | None = None,
    encoding: str | None = None,
    on_error: Literal["stop", "skip"] | str = "stop",
) -> DocumentReader:
    """Stream documents from files, a table of pandas, polars or pyarrow, or any iterable of documents and mappings.

    | source                              | records                                              |
    |-------------------------------------|------------------------------------------------------|
    | .jsonl, .ndjson, .json              | one JSON object a line                               |
    | .csv, .tsv                          | rows below a header; .tsv has no quoting             |
    | .parquet, a table in memory         | rows                                                 |
    | a folder with corpus.jsonl          | its lines (a BEIR dataset)                           |
    | any other folder, or .txt, .md      | the .txt and .md files in it and below, none hidden  |

    All but Parquet may be compressed (.gz). Text is UTF-8, or what its byte order mark says. A .csv file has commas,
    semicolons, tabs or bars between its columns, as its header shows. A record's id is its field id, _id or docid
    (integers become strings), its text the field text, contents, content or body, its title the field title, whichever
    comes first in this order. Everything else is metadata. A mapping in the field "metadata" is merged into it. The id
    of a text file is its path below the folder. Its title is the first Markdown heading, or else its name.

    A column of CSV or TSV has one type: whole numbers, numbers, true or false, dates, dates with times, instants, or
    else text. A first pass over the whole file finds it. A leading zero makes a column text. An empty cell is missing.
    A pipe is first copied to a temporary file. `notes` says what was found.

    Args:
        source: a path, a table in memory (anything that has `__arrow_c_stream__`), or documents and mappings; a
            `DocumentReader` is returned as it is.
        format: "jsonl", "csv", "tsv", "parquet", "beir" or "text"; None tells it by the name.
        id_field, text_field, title_field: fields to use instead of the recognised ones.
        metadata_fields: the only fields to keep as metadata; None keeps all.
        auto_id: number the records that have no id as "<file name>-<line>"; two files of the same name collide.
        types: types of fields of metadata, such as `{"zip": "str"}`: "str", "int", "float", "bool", "date",
            "datetime" (without a zone) or "instant" (with one). A value of another type makes its record unusable.
        encoding: the encoding of text files, such as "cp1252"; None for UTF-8, or what a byte order mark says.
        on_error: what to do about a record that is no usable document. "stop" raises DocumentError with the file and
            line. "skip" lists it in the reader's `skipped` and goes on.

    Raises:
        InvalidArgumentError: an argument is not one of those above.
        DocumentError: there is no such file or folder, or its format is not recognised. While iterating: a record is
            no document, a file holds none, or its encoding is another one.
        StorageError: the file cannot be read.

    >>> documents = [{"_id": 7, "title": "Wings", "contents": "Lift grows.", "year": 1958}]
    >>> next(iter(read_documents(documents)))
    Document(id='7', text='Lift grows.', title='Wings', metadata={'year': 1958})
    """
    if isinstance(source, DocumentReader):
        return source
    if on_error not in ("stop", "skip"):
        raise InvalidArgumentError(f"on_error is 'stop' or 'skip', not {on_error!r}.")
    if format is not None and format not in _FORMATS:
        raise InvalidArgumentError(f"No format {format!r} is known: known are {', '.join(_FORMATS)}.")
    if isinstance(metadata_fields, str):
        raise InvalidArgumentError(f"metadata_fields is a list of names, not the string {metadata_fields!r}.")
    fields = Fields(
        (id_field,) if id_field else ID_FIELDS,
        (text_field,) if text_field else TEXT_FIELDS,
        (title_field,) if title_field else TITLE_FIELDS,
        None if metadata_fields is None else frozenset(metadata_fields),
        auto_id,
        _checked_types(types),
        _checked_encoding(encoding),
    )
    skip = on_error == "skip"
    if isinstance(source, str | Path):
        with _readable(SkippedLine(str(source), None, "")):
            found = _locate(arguments.path("source", source), format)
        return DocumentReader(*found, fields, skip)
    if isinstance(source, Document | Mapping):
        source = [source]
    if not isinstance(source, Table) and not isinstance(source, Iterable):
        raise InvalidArgumentError(
            "Documents come from a path, a table of pandas, polars or pyarrow, or an iterable of documents or "
            f"mappings, not from {type(source).__name__}."
        )
    return DocumentReader(source, None, fields, skip)


class DocumentReader(Iterable[Document]):
    """Documents that are read while they are iterated; made by `read_documents`.

    Iterating again reads again, except from an iterator or a pipe.

    Attributes:
        skipped: what the latest iteration skipped so far, with on_error="skip".
        types: by column of metadata, the type that the latest iteration found in a CSV or TSV file.
        bytes_total: size of the file; None where it is not known, as for a folder or an iterable.
    """

    def __init__(
        self,
        source: Path | Table | Iterable[Document | Mapping[str, Any]],
        format: str | None,
        fields: Fields,
        skip: bool,
    ) -> None:
        self._source = source
        self._format = format
        self._fields = fields
        self._skip = skip
        self._position: Callable[[], int] = int
        self._columns: list[Column] = []
        self._kinds = Kinds()
        self._untitled = False
        self._blank = 0
        self._first_blank = ""
        self.skipped: list[SkippedLine] = []
        self.bytes_total = _size(source) if isinstance(source, Path) else None

    @property
    def bytes_read(self) -> int:
        """How much of the file the latest iteration has read, for a progress bar."""
        return self._position()

    @property
    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self._columns}

    @property
    def notes(self) -> list[str]:
        """What the latest iteration found, one sentence each: types of columns, fields of several kinds."""
        fields, seen = self._fields, self._kinds.fields
        names = {"types (--type)": fields.types, "metadata_fields": sorted(fields.metadata or ())}
        if self._untitled and fields.title != TITLE_FIELDS:
            names["title_field (--title-field)"] = fields.title
        return [
            *filter(None, [types_note(str(self._source), self._columns)]),
            *self._kinds.notes(),
            *self._blank_note(),
            *(
                f"{argument} names {name!r:.80}, but no document has this field."
                for argument, given in names.items()
                for name in given
                if name not in seen
            ),
        ]

    @property
    def skipped_note(self) -> str:
        """Number of records that the latest iteration skipped, and the first of them. Empty if it skipped none."""
        if not self.skipped:
            return ""
        shown = "; ".join(str(bad).rstrip(".") for bad in self.skipped[:_SHOWN])
        more = f"; and {len(self.skipped) - _SHOWN:,} more" if len(self.skipped) > _SHOWN else ""
        return f"{_count(self.skipped)}: {shown}{more}."

    def _blank_note(self) -> Iterator[str]:
        if self._blank:
            have = number_of(self._blank, "document has", "documents have")
            found = f"so no retriever finds {'it' if self._blank == 1 else 'them'}"
            yield f"{have} neither text nor title, {found}. The first id is {self._first_blank!r:.80}."

    def __iter__(self) -> Iterator[Document]:
        self.skipped = skipped = []
        self._columns, self._kinds, self._blank = [], Kinds(), 0
        add, read, titled = self._kinds.add, 0, False
        for where, fields, number, record in self._records():
            try:
                document = fields.document(record, where.file, number)
            except DocumentError as error:
                bad = replace(where, line=number, reason=str(error))
                if not self._skip:
                    raise DocumentError(str(bad)) from error.__cause__
                skipped.append(bad)
            else:
                add(document.metadata)
                read += 1
                titled = titled or bool(document.title)
                if _is_blank(document.text) and _is_blank(document.title):
                    self._blank += 1
                    self._first_blank = self._first_blank if self._blank > 1 else document.id
                yield document
        self._untitled = bool(read) and not titled
        if not read and (skipped or isinstance(self._source, Path)):
            table = "the table" if isinstance(self._source, Table) else "the iterable"
            name = self._source if isinstance(self._source, Path) else table
            because = f": {_count(skipped)} ({skipped[0]})" if skipped else ""
            raise DocumentError(f"{name} holds no document{because}.")

    def __repr__(self) -> str:
        shown = repr(str(self._source)) if isinstance(self._source, Path) else type(self._source).__name__
        return f"DocumentReader({shown}{f', format={self._format!r}' if self._format else ''})"

    def _records(self) -> Iterator[tuple[SkippedLine, Fields, int | None, Record]]:
        """(where, its fields, number, record or what is wrong with it); `where` names the file and the unit."""
        source, fields = self._source, self._fields
        if isinstance(source, Path):
            format = _FORMATS[self._format or "text"]
            yield from self._of_files(source, format) if format.records is None else self._of_file(source, format)
            return
        if isinstance(source, Table):
            where = SkippedLine("the table", None, "", "row")
            with _readable(where):
                yield from ((where, fields, number, record) for number, record in arrow_rows(source, fields))
            return
        where = SkippedLine("documents", None, "", "number")
        yield from ((where, fields, number, _mapping(record)) for number, record in enumerate(source, start=1))

    def _of_files(self, source: Path, format: _Format) -> Iterator[tuple[SkippedLine, Fields, int | None, Record]]:
        """Files that are one document each."""
        with _readable(SkippedLine(str(source), None, "")):
            for path in _files(source, format):
                id = path.name if path == source else path.relative_to(source).as_posix()
                document = format.document(_content(path), path, id, self._fields.encoding)
                yield SkippedLine(str(path), None, ""), self._fields, None, document

    def _of_file(self, source: Path, format: _Format) -> Iterator[tuple[SkippedLine, Fields, int | None, Record]]:
        """One file of many records."""
        where, fields = SkippedLine(str(source), None, "", format.unit), self._fields
        records, columns = format.records, format.columns
        if records is None:
            return
        with _readable(where), source.open("rb") as opened, _seekable(opened, columns is not None) as file:
            self._position = lambda: (self.bytes_total or 0) if file.closed else file.tell()
            packed = format.compressed and _is_gzip(source)
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
            if columns is not None:
                self._columns = columns(plain, fields)
                fields = replace(fields, types={**fields.types, **self.types})
                plain.seek(0)
            yield from ((where, fields, number, record) for number, record in records(plain, fields))


def _count(skipped: Sequence[SkippedLine]) -> str:
    first = skipped[0]
    noun = "file" if first.line is None else "document" if first.unit == "number" else first.unit
    return f"{number_of(len(skipped), f'{noun} was', f'{noun}s were')} skipped"


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # opening it will raise the error
        return None


def _locate(path: Path, format: str | None) -> tuple[Path, str]:
    """The file or folder to read, and its format."""
    if not path.exists():
        way_out = "standard input is /dev/stdin" if str(path) == "-" else "check the path"
        raise DocumentError(f"There is no file or folder {str(path)!r}: {way_out}.")
    if not path.is_dir():
        suffix = path.with_suffix("").suffix if _is_gzip(path) else path.suffix
        by_suffix = {suffix: name for name, one in _FORMATS.items() for suffix in one.suffixes}
        format = format or by_suffix.get(suffix.lower())
        if format is None:
            raise DocumentError(
                f"The format of {str(path)!r} is not told by its name: use one of {', '.join(by_suffix)} "
                f"(.gz too), or say format={'|'.join(_FORMATS)} (--format)."
            )
        return path, format
    if format in (None, "beir"):
        for name in ("corpus.jsonl", "corpus.jsonl.gz"):
            if (path / name).is_file():
                return path / name, "beir"
    if format == "text" or (format is None and next(_files(path, _FORMATS["text"]), None) is not None):
        return path, "text"
    end = f", which format={format!r} needs: give the file itself" if format else ": give one file, or another folder"
    raise DocumentError(
        f"The folder {str(path)!r} holds neither corpus.jsonl (a BEIR dataset) nor .txt or .md files{end}."
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
    except WholeFileError as error:
        raise DocumentError(f"{where.file}: {error}") from error.__cause__


def _mapping(value: object) -> Record:
    if isinstance(value, Document | Mapping):
        return value
    return DocumentError(f"a document is a Document or a mapping with id and text, not {type(value).__name__}.")


def _files(path: Path, format: _Format) -> Iterator[Path]:
    """The file itself, or those of the format in a folder, sorted within each folder."""
    if path.is_file():
        yield path
        return
    for folder, below, names in os.walk(path, onerror=_raise):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.lower().removesuffix(".gz").endswith(format.suffixes) and not name.startswith("."):
                yield Path(folder, name)


def _content(path: Path) -> bytes:
    with _readable(SkippedLine(str(path), None, "")):
        raw = path.read_bytes()
        return gzip.decompress(raw) if _is_gzip(path) else raw


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


@contextmanager
def _seekable(file: IO[bytes], needed: bool) -> Iterator[IO[bytes]]:
    """`file`, or a copy of it if it is `needed` twice and is a pipe."""
    if not needed or file.seekable():
        yield file
        return
    try:
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy
    except OSError as error:
        raise StorageError(
            f"{file.name} is a pipe, but its content could not be copied to a temporary file "
            f"({error.strerror or error}): set TMPDIR to a folder with room, or read a file."
        ) from error


def _checked_types(types: Mapping[str, str] | None) -> dict[str, str]:
    if types is None:
        return {}
    if not isinstance(types, Mapping):
        raise InvalidArgumentError(f"types is a mapping such as {{'zip': 'str'}}, not {types!r:.80}.")
    for name, type in types.items():
        if not isinstance(name, str) or not isinstance(type, str) or type not in TYPES:
            raise InvalidArgumentError(f"The type of {name!r:.80} is one of {', '.join(TYPES)}, not {type!r:.80}.")
    return dict(types)


def _checked_encoding(encoding: str | None) -> str | None:
    try:
        if encoding is not None:
            b"".decode(encoding)
            codecs.lookup(encoding)
    except (LookupError, ValueError, TypeError):
        raise InvalidArgumentError(
            f"No encoding {encoding!r:.80} is known; allowed are names such as utf-8, cp1252 and utf-16."
        ) from None
    return encoding


def _raise(error: OSError) -> None:
    raise error
