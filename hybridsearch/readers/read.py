"""Documents from files: JSON lines, CSV, Parquet, BEIR folders, folders of text files; streamed, one at a time."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError, InvalidArgumentError, StorageError
from hybridsearch.readers.fields import ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, Fields, Numbered, Record, WholeFileError
from hybridsearch.readers.tables import csv_rows, parquet_rows, tsv_rows
from hybridsearch.readers.text import json_lines, text_document


@dataclass(frozen=True, slots=True)
class _Format:
    """How the files of one format are read.

    Attributes:
        suffixes: of their names, without .gz.
        records: those of an open file, by line or row; None where a file is one document.
        document: what the content of a whole file becomes, given its path and its document's id.
        unit: what a record's number counts.
        compressed: whether a name that ends in .gz is that of a compressed file.
    """

    suffixes: tuple[str, ...]
    records: Callable[[IO[bytes], Fields], Iterator[Numbered]] | None = None
    document: Callable[[bytes, Path, str], Record] = text_document
    unit: str = "line"
    compressed: bool = True


_FORMATS = {
    "jsonl": _Format((".jsonl", ".ndjson", ".json"), json_lines),
    "csv": _Format((".csv",), csv_rows),
    "tsv": _Format((".tsv",), tsv_rows),
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
    source: str | Path | Iterable[Document | Mapping[str, Any]],
    *,
    format: str | None = None,
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
    )
    skip = on_error == "skip"
    if isinstance(source, str | Path):
        with _readable(SkippedLine(str(source), None, "")):
            return DocumentReader(*_locate(Path(source), format), fields, skip)
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
        self, source: Path | Iterable[Document | Mapping[str, Any]], format: str | None, fields: Fields, skip: bool
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
                document = self._fields.document(record, where.file, number)
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

    def _records(self) -> Iterator[tuple[SkippedLine, int | None, Record]]:
        """(where, number, record or what is wrong with it); `where` has the file and the unit of the number."""
        source = self._source
        if not isinstance(source, Path):
            where = SkippedLine("documents", None, "", "number")
            yield from ((where, number, _mapping(record)) for number, record in enumerate(source, start=1))
            return
        format = _FORMATS[self._format or "text"]
        if format.records is None:
            with _readable(SkippedLine(str(source), None, "")):
                for path in _files(source, format):
                    id = path.name if path == source else path.relative_to(source).as_posix()
                    yield SkippedLine(str(path), None, ""), None, format.document(_content(path), path, id)
            return
        where = SkippedLine(str(source), None, "", format.unit)
        with _readable(where), source.open("rb") as file:
            self._position = lambda: (self.bytes_total or 0) if file.closed else file.tell()
            packed = format.compressed and source.suffix == ".gz"
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
            yield from ((where, number, record) for number, record in format.records(plain, self._fields))


def _locate(path: Path, format: str | None) -> tuple[Path, str]:
    """The file or folder to read, and its format."""
    if not path.exists():
        raise DocumentError(f"There is no file or folder {str(path)!r}: check the path.")
    if not path.is_dir():
        suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
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
        return gzip.decompress(raw) if path.suffix == ".gz" else raw


def _raise(error: OSError) -> None:
    raise error
