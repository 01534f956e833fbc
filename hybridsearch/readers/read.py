"""`read_documents` reads documents from files, tables and iterables, as a stream."""

from __future__ import annotations

import codecs
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias, runtime_checkable

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError, InvalidArgumentError, StorageError
from hybridsearch.messages import number_of, redacted
from hybridsearch.readers.compression import decompressed, plain_name
from hybridsearch.readers.fields import ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, Fields, Record, WholeFileError
from hybridsearch.readers.formats import FORMATS, files_in, locate
from hybridsearch.readers.mail import messages
from hybridsearch.readers.sql import EXAMPLE, SQLITE, Query, is_url, query_rows
from hybridsearch.readers.tables import arrow_rows, named_rows
from hybridsearch.readers.text import text_content
from hybridsearch.readers.types import TYPES, Column, Kinds, types_note
from hybridsearch.readers.worker import PARSERS, Worker

LARGEST_FILE = 2**28
"""Number of bytes of the largest file that is read as one document, after it is decompressed."""

_Placed: TypeAlias = "tuple[SkippedLine, Fields, int | None, Record]"

_SHOWN = 3
"""Number of skipped records that a note names."""


@runtime_checkable
class Table(Protocol):
    """A table in memory with Arrow's interface in Python, such as a DataFrame of pandas or polars."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A record that was skipped because it is not a usable document.

    Attributes:
        file: File of the record.
        line: Line or row of the record, from 1. None for a whole file.
        reason: Reason why the record is not usable.
        unit: Word for what `line` counts, such as `"line"` or `"row"`.

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
    delimiter: str | None = None,
    query: str | None = None,
    on_error: Literal["stop", "skip"] | str = "stop",
) -> DocumentReader:
    """Read documents from files, from a table of pandas, polars or pyarrow, or from an iterable, as a stream.

    | source                          | records                                                            |
    |---------------------------------|--------------------------------------------------------------------|
    | `.jsonl`, `.ndjson`, `.json`    | one JSON object on each line                                       |
    | `.csv`, `.tsv`                  | rows below a header (quotes have a meaning in `.csv` only)         |
    | `.parquet`, a table in memory   | rows                                                               |
    | a folder with `corpus.jsonl`    | the lines of this file (a BEIR data set)                           |
    | `.txt`, `.md`                   | the file                                                           |
    | `.pdf`, `.docx`, `.pptx`,       | the file. This needs the extra `files`                             |
    | `.xlsx`, `.html`, `.eml`        |                                                                    |
    | `.mbox`                         | e-mails. This needs the extra `files`                              |
    | a database and a `query`        | rows. This needs the extra `sql`                                   |
    | another folder                  | those of each file above in it and below, if not hidden            |

    All files but Parquet may be compressed by gzip, bzip2, xz or Zstandard. Their first bytes show how, so their names
    may end with `.gz`, `.bz2`, `.xz` or `.zst`, but need not. Text is UTF-8, or has the encoding of its byte order
    mark. The columns of a `.csv` file are separated by commas, semicolons, tabs or bars, as its header shows.

    The fields of a record become a document. The first field that exists is used:

    - The id is the field `id`, `_id` or `docid`. Integers become strings.
    - The text is the field `text`, `contents`, `content` or `body`. It may be empty, but not null or NaN.
    - The title is the field `title`.
    - All other fields are metadata. A mapping in the field `metadata` is merged into the metadata.

    A file that is one document has its path below the folder as id. Its title is the one that the file says, or its
    first heading, or its name. Headings, lists and tables become Markdown. A form feed ends each page of PDF and each
    slide (`hybridsearch.readers.pages_of`). The front matter of Markdown is metadata. An e-mail has the metadata
    `from`, `from_name`, `to`, `cc`, `date` and `attachments`. Such files, but not texts, are parsed in another process,
    which has limits of time and memory. `DocumentReader.notes` says what of a file was not read.

    Each column of CSV or TSV has one type: whole number, number, true or false, date, date with time, instant, or text.
    A first pass over the whole file finds the types. A number with a leading zero makes its column text. An empty cell
    is a missing value. A pipe is copied to a temporary file first. `DocumentReader.notes` names the types.

    Args:
        source: Path of a file or folder, a table in memory (an object with `__arrow_c_stream__`), or documents and
            mappings. A `DocumentReader` is returned as it is.
        format: Format of the file: `"jsonl"`, `"csv"`, `"tsv"`, `"parquet"`, `"beir"`, `"text"`, `"pdf"`, `"docx"`,
            `"pptx"`, `"xlsx"`, `"html"`, `"eml"` or `"mbox"`. For a folder, only these files are read. None finds it
            from the names.
        id_field: Field of the id, in place of the fields above.
        text_field: Field of the text, in place of the fields above.
        title_field: Field of the title, in place of `title`.
        metadata_fields: Fields to keep as metadata. None keeps all.
        auto_id: Whether a record that has no id gets the id `<file name>-<line>`. In a folder, the name is the path
            below the folder.
        types: Types of metadata fields, such as `{"zip": "str"}`. The types are `"str"`, `"int"`, `"float"`, `"bool"`,
            `"date"` (also from a datetime at midnight), `"datetime"` (without a time zone) and `"instant"` (with a time
            zone). A record with a value of another type is not usable.
        encoding: Encoding of text files, such as `"cp1252"`. None for UTF-8 or the encoding of the byte order mark.
        delimiter: Character between the columns of CSV and TSV files, such as `"^"`. None finds it from the header, as
            above.
        query: SQL query that gives the rows, if `source` is a database: a URL of SQLAlchemy, such as
            `"sqlite:///shop.db"`, or the file of a SQLite database. Its columns are the fields.
        on_error: Reaction to a record that is not a usable document. `"stop"` raises DocumentError with the file and
            the line. `"skip"` adds the record to `DocumentReader.skipped`, and continues.

    Returns:
        An iterable of documents. The source is read while you iterate.

    Raises:
        InvalidArgumentError: An argument is not allowed.
        DocumentError: There is no such file or folder, or its format is not recognised. During the iteration: a record
            is not a usable document, a file has no document, or a file has another encoding.
        MissingExtraError: During the iteration: a file needs a package of the extra `files`.
        StorageError: The file cannot be read.

    >>> documents = [{"_id": 7, "title": "Wings", "contents": "Lift grows.", "year": 1958}]
    >>> next(iter(read_documents(documents)))
    Document(id='7', text='Lift grows.', title='Wings', metadata={'year': 1958})
    """
    if isinstance(source, DocumentReader):
        return source
    if on_error not in ("stop", "skip"):
        raise InvalidArgumentError(f"on_error is 'stop' or 'skip', not {on_error!r}.")
    if format is not None and format not in FORMATS:
        raise InvalidArgumentError(f"No format {format!r} is known: known are {', '.join(FORMATS)}.")
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
        _checked_delimiter(delimiter),
    )
    skip = on_error == "skip"
    if query is not None:
        if not isinstance(source, str | Path) or not isinstance(query, str):
            raise InvalidArgumentError("query (--query) is a SQL text, and its source the URL or file of a database.")
        return DocumentReader(Query(str(source), query), None, fields, skip)
    if is_url(source) or (isinstance(source, str | Path) and Path(source).suffix.lower() in SQLITE and not format):
        raise InvalidArgumentError(
            f"{redacted(source)} is a database: choose the documents with a query, such as query={EXAMPLE!r} (--query)."
        )
    if isinstance(source, str | Path):
        with _readable(SkippedLine(str(source), None, "")):
            found = locate(arguments.path("source", source), format)
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
    """An iterable of documents that reads its source during the iteration. `read_documents` makes it.

    A second iteration reads the source again. This does not work for an iterator or a pipe.

    Attributes:
        skipped: Records that the latest iteration has skipped, with `on_error="skip"`.
        stopped: Record that ended the latest iteration with an error. None if none did.
        bytes_total: Size of the file in bytes. None if it is not known, for example for a folder or an iterable.
    """

    def __init__(
        self,
        source: Path | Query | Table | Iterable[Document | Mapping[str, Any]],
        format: str | None,
        fields: Fields,
        skip: bool,
    ) -> None:
        self._source = source
        self._format = format
        self._fields = fields
        self._skip = skip
        self._position: Callable[[], int] = int
        self._columns: dict[str, list[Column]] = {}
        self._unread: list[Path] = []
        self._indexes: list[Path] = []
        self._links: list[Path] = []
        self._lacking: list[str] = []
        self._once: list[str] = []
        self._kinds = Kinds()
        self._untitled = False
        self._blank: dict[str, None] = {}  # ids of documents without text and title
        self.skipped: list[SkippedLine] = []
        self.stopped: SkippedLine | None = None
        self.bytes_total = _size(source) if isinstance(source, Path) else None

    @property
    def bytes_read(self) -> int:
        """Number of bytes of the file that the latest iteration has read, for a progress bar."""
        return self._position()

    @property
    def types(self) -> dict[str, str]:
        """Types of metadata columns that the latest iteration found in CSV or TSV files, by column."""
        return {column.name: column.type for columns in self._columns.values() for column in columns}

    @property
    def notes(self) -> list[str]:
        """Sentences about the latest iteration: types of columns, fields of several kinds, fields that do not exist."""
        fields, seen = self._fields, self._kinds.fields
        names = {"types (--type)": fields.types, "metadata_fields": sorted(fields.metadata or ())}
        if self._untitled and fields.title != TITLE_FIELDS:
            names["title_field (--title-field)"] = fields.title
        return [
            *filter(None, starmap(types_note, self._columns.items())),
            *_first_few(self._lacking, "more notes are like these"),
            *_first_few(self._once, "more files have lines that repeat on their pages and are read once"),
            *self._unread_note(),
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

    def _unread_note(self) -> Iterator[str]:
        if self._indexes:
            were = number_of(len(self._indexes), "folder that holds an index was", "folders that hold an index were")
            yield f"{were} not read: {_few(list(map(str, self._indexes)))}."
        if self._links:
            were = number_of(len(self._links), "link to a folder was", "links to folders were")
            yield f"{were} not followed: {_few(list(map(str, self._links)))}."
        if self._unread:
            yield (
                f"{number_of(len(self._unread), 'file was', 'files were')} not read, because no reader is known for "
                f"the ending of the name: {_few([path.name for path in self._unread])}."
            )
        if any(path.suffix.lower() in SQLITE for path in self._unread):
            yield "A database is read by a query: give its file as the source, with query='SELECT ...' (--query)."

    def _blank_note(self) -> Iterator[str]:
        if self._blank:
            have = number_of(len(self._blank), "document has", "documents have")
            found = f"so no retriever finds {'it' if len(self._blank) == 1 else 'them'}"
            yield f"{have} neither text nor title, {found}. The first id is {next(iter(self._blank))!r:.80}."

    def __iter__(self) -> Iterator[Document]:
        self.skipped = skipped = []
        self.stopped = None
        self._columns, self._kinds, self._blank = {}, Kinds(), {}
        self._unread, self._indexes, self._links = [], [], []
        self._lacking, self._once = [], []
        add, read, titled = self._kinds.add, 0, False
        for where, fields, number, record in self._records():
            try:
                document = fields.document(record, where.file, number)
            except DocumentError as error:
                bad = replace(where, line=number, reason=str(error))
                if not self._skip:
                    self.stopped = bad
                    raise DocumentError(str(bad)) from error.__cause__
                skipped.append(bad)
            else:
                add(document.metadata)
                read += 1
                titled = titled or bool(document.title)
                if _is_blank(document.text) and _is_blank(document.title):
                    self._blank[document.id] = None
                elif self._blank:  # the last document of an id is stored
                    self._blank.pop(document.id, None)
                yield document
        self._untitled = bool(read) and not titled
        if not read and (skipped or isinstance(self._source, Path | Query)):
            table = "the table" if isinstance(self._source, Table) else "the iterable"
            name = self._source if isinstance(self._source, Path | Query) else table
            because = f": {_count(skipped)} ({str(skipped[0]).rstrip('.')})" if skipped else ""
            raise DocumentError(f"{name} holds no document{because}.")

    def __repr__(self) -> str:
        shown = repr(str(self._source)) if isinstance(self._source, Path | Query) else type(self._source).__name__
        return f"DocumentReader({shown}{f', format={self._format!r}' if self._format else ''})"

    def _records(self) -> Iterator[_Placed]:
        """The place (file and unit), the fields, the number, and the record or its error, for each record."""
        source, fields = self._source, self._fields
        if isinstance(source, Path):
            yield from self._of_path(source)
            return
        if isinstance(source, Table):
            where = SkippedLine("the table", None, "", "row")
            with _readable(where):
                yield from ((where, fields, number, record) for number, record in arrow_rows(source, fields))
            return
        if isinstance(source, Query):
            where = SkippedLine(str(source), None, "", "row")
            with _readable(where), query_rows(source) as (columns, rows):
                yield from ((where, fields, number, record) for number, record in named_rows(columns, rows, fields))
            return
        where = SkippedLine("documents", None, "", "number")
        yield from ((where, fields, number, _mapping(record)) for number, record in enumerate(source, start=1))

    def _of_path(self, source: Path) -> Iterator[_Placed]:
        """The records of a file, or of the files in a folder."""
        if self._format is not None and not source.is_dir():
            with _readable(SkippedLine(str(source), None, "")):
                yield from self._of_file(source, source.name, self._format)
            return
        with _readable(SkippedLine(str(source), None, "")), Worker() as worker:
            for path, format in files_in(source, self._format):
                if format is None:
                    left = self._unread if not path.is_dir() else self._links if path.is_symlink() else self._indexes
                    left.append(path)
                    continue
                try:
                    _check_opens(path)
                    yield from self._of_file(path, path.relative_to(source).as_posix(), format, worker)
                except WholeFileError as error:
                    yield SkippedLine(str(path), None, ""), self._fields, None, DocumentError(str(error))

    def _of_file(self, path: Path, id: str, format: str, worker: Worker | None = None) -> Iterator[_Placed]:
        """The records of one file."""
        if FORMATS[format].records is not None:
            yield from self._of_table(path, id, format)
            return
        with nullcontext(worker) if worker else Worker() as parser:
            if format == "mbox":
                yield from self._of_mailbox(path, id, parser)
                return
            place = SkippedLine(str(path), None, "")
            try:
                raw = _content(path)
            except WholeFileError as error:
                yield place, self._fields, None, DocumentError(str(error))
                return
            yield place, self._fields, None, self._document(place, raw, id, format, parser)

    def _of_mailbox(self, path: Path, id: str, worker: Worker) -> Iterator[_Placed]:
        """The messages of a mailbox."""
        with _stored(path), path.open("rb") as file:
            for number, raw in enumerate(messages(decompressed(file), LARGEST_FILE), 1):
                place = SkippedLine(str(path), number, "", "message")
                yield place, self._fields, number, self._document(place, raw, f"{id}-{number}", "eml", worker)

    def _document(self, place: SkippedLine, raw: bytes, id: str, format: str, worker: Worker) -> Record:
        """The document that a file or a message is, or its error."""
        name, encoding = Path(plain_name(Path(place.file).name)), self._fields.encoding
        where = str(place).removesuffix(": ")
        try:
            content = worker.parse(format, raw, encoding) if format in PARSERS else text_content(raw, name, encoding)
            if _is_blank(content.text):
                self._lacking.append(f"{where} holds no text.")
            self._lacking += (f"{where} {unread}." for unread in content.unread)
            if content.once:
                self._once.append(
                    f"{where} has lines that repeat on its pages and are read once: {_few(content.once)}."
                )
            return self._fields.of_file(content, id, name.stem)
        except (DocumentError, WholeFileError) as error:
            return DocumentError(str(error))

    def _of_table(self, path: Path, id: str, format: str) -> Iterator[_Placed]:
        """The records of a file that has several."""
        read = FORMATS[format]
        where, fields = SkippedLine(str(path), None, "", read.unit), replace(self._fields, name=id)
        records, columns = read.records, read.columns
        if records is None:
            return
        with _stored(path), path.open("rb") as opened, _seekable(opened, columns is not None) as file:
            self._position = lambda: (self.bytes_total or 0) if file.closed else file.tell()
            if columns is not None:
                found = self._columns[str(path)] = columns(decompressed(file), fields)
                fields = replace(fields, types={**fields.types, **{column.name: column.type for column in found}})
                file.seek(0)
            plain = decompressed(file) if read.compressed else file
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
    except OSError:  # the error is raised again when the file is opened
        return None


@contextmanager
def _readable(where: SkippedLine) -> Iterator[None]:
    """Turns errors that end the reading of a file into errors of this package that name the file."""
    try:
        with _stored(where.file):
            yield
    except WholeFileError as error:
        raise DocumentError(f"{where.file}: {error}") from error.__cause__


@contextmanager
def _stored(path: str | Path) -> Iterator[None]:
    """Turns errors of the storage into errors of this package that name the file."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _mapping(value: object) -> Record:
    if isinstance(value, Document | Mapping):
        return value
    return DocumentError(f"a document is a Document or a mapping with id and text, not {type(value).__name__}.")


def _check_opens(path: Path) -> None:
    """Raises WholeFileError if a file of a folder cannot be opened: a link to nothing, a pipe, or no permission."""
    with _stored(path):
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise WholeFileError("it is a pipe, a socket or a device, and not a file.")
        try:
            path.open("rb").close()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP):
                raise  # the storage is at fault, not the file
            raise WholeFileError(f"it cannot be opened ({error.strerror}).") from error


def _content(path: Path) -> bytes:
    with _stored(path), path.open("rb") as file:
        raw = decompressed(file).read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise WholeFileError(f"it has more than {LARGEST_FILE:,} bytes, which is too much for one document. Split it.")
    return raw


def _first_few(notes: Sequence[str], others: str) -> Iterator[str]:
    yield from notes[:_SHOWN]
    if len(notes) > _SHOWN:
        yield f"{len(notes) - _SHOWN:,} {others}."


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return f"{', '.join(words[:_SHOWN])}{more}"


@contextmanager
def _seekable(file: IO[bytes], needed: bool) -> Iterator[IO[bytes]]:
    """Gives the file, or a copy if the file must be read twice and is a pipe."""
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
            f"The encoding {encoding!r:.80} is not known: give a name such as utf-8, cp1252 or utf-16."
        ) from None
    return encoding


def _checked_delimiter(delimiter: str | None) -> str | None:
    delimiter = "\t" if delimiter in ("\\t", "tab") else delimiter
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in "\r\n\"'"):
        raise InvalidArgumentError(
            f"The delimiter is one character that is neither a quote nor the end of a line, such as ';', not "
            f"{delimiter!r:.80}."
        )
    return delimiter
