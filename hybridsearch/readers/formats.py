"""The formats of files, and the files of a folder that have one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hybridsearch.errors import DocumentError
from hybridsearch.folders import holds_index
from hybridsearch.readers.compression import SUFFIXES, plain_name
from hybridsearch.readers.fields import Fields, Numbered
from hybridsearch.readers.tables import csv_columns, csv_rows, parquet_rows, tsv_columns, tsv_rows
from hybridsearch.readers.text import json_lines
from hybridsearch.readers.types import Column

BEIR_NAMES = tuple(f"corpus.jsonl{packed}" for packed in ("", *SUFFIXES))
"""Names of the file with the documents in a BEIR data set."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the files of one format are read.

    Attributes:
        suffixes: Endings of the files' names, without those of compressed files.
        records: Function that gives the records of an open file with their numbers. None if a file is one document.
        columns: Function that finds the types of an open file's columns. None if the file has its types.
        unit: Word for what a record's number counts.
        compressed: Whether files may be compressed.
    """

    suffixes: tuple[str, ...]
    records: Callable[[IO[bytes], Fields], Iterator[Numbered]] | None = None
    columns: Callable[[IO[bytes], Fields], list[Column]] | None = None
    unit: str = "line"
    compressed: bool = True


FORMATS = {
    "jsonl": Format((".jsonl", ".ndjson", ".json"), json_lines),
    "csv": Format((".csv",), csv_rows, csv_columns),
    "tsv": Format((".tsv",), tsv_rows, tsv_columns),
    "parquet": Format((".parquet",), parquet_rows, unit="row", compressed=False),
    "beir": Format((), json_lines),
    "text": Format((".txt", ".md", ".markdown")),
    "pdf": Format((".pdf",)),
    "docx": Format((".docx",)),
    "pptx": Format((".pptx",)),
    "xlsx": Format((".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")),
    "html": Format((".html", ".htm", ".xhtml")),
    "eml": Format((".eml",)),
    "mbox": Format((".mbox",), unit="message"),
}
_ALONE = (".json",)  # endings of files that are only read if they are given themselves: in folders they are settings
_BY_SUFFIX = {suffix: name for name, format in FORMATS.items() for suffix in format.suffixes}


def locate(path: Path, format: str | None) -> tuple[Path, str | None]:
    """Find the file or folder to read, and its format. The format is None for a folder with files of any format.

    Raises:
        DocumentError: There is no such file or folder, it is an index, or it holds no file of the format.
    """
    if not path.exists():
        way_out = "write /dev/stdin for standard input" if str(path) == "-" else "check the path"
        raise DocumentError(f"There is no file or folder {str(path)!r}: {way_out}.")
    if not path.is_dir():
        format = format or format_of(path.name)
        if format is None:
            raise DocumentError(
                f"The name of {str(path)!r} does not show its format: use a name that ends with "
                f"{', '.join(_BY_SUFFIX)} (compressed files: and then {', '.join(SUFFIXES)}), or give "
                f"format={'|'.join(FORMATS)} (--format)."
            )
        return path, format
    if holds_index(path):
        raise DocumentError(
            f"{str(path)!r} is an index. `hybridsearch copy` copies it, and `hybridsearch list --json` writes its "
            "documents as JSON lines."
        )
    if format in (None, "beir"):
        for name in BEIR_NAMES:
            if (path / name).is_file():
                return path / name, "beir"
    if any(found for _, found in files_in(path, format)):
        return path, format
    end = f", which format={format!r} needs: give the file itself" if format else ": give one file, or another folder"
    endings = FORMATS[format].suffixes if format else [one for one in _BY_SUFFIX if one not in _ALONE]
    raise DocumentError(
        f"The folder {str(path)!r} holds neither corpus.jsonl (a BEIR data set) nor a file that ends with "
        f"{', '.join(endings) or 'another name'}{end}."
    )


def files_in(folder: Path, format: str | None) -> Iterator[tuple[Path, str | None]]:
    """The files in a folder, sorted by name within each folder, each with its format.

    If `format` is None, these are all files, and the format of an unknown file is None. If not, only files of this
    format are given. A folder in it that holds an index is given in place of its files, with the format None, because
    its files also have old and deleted documents. A link to a folder is not followed, because it may lead back. It has
    the format None, too.
    """
    for place, below, names in os.walk(folder, onerror=_raise):
        if holds_index(Path(place)):
            below.clear()
            yield Path(place), None
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from ((link, None) for name in below if (link := Path(place, name)).is_symlink())
        for name in sorted(names):
            if name.startswith("."):
                continue
            found = format_of(name)
            if format is None:
                yield Path(place, name), None if plain_name(name.lower()).endswith(_ALONE) else found
            elif found == format:
                yield Path(place, name), found


def format_of(name: str) -> str | None:
    """The format that the ending of a file's name shows."""
    return _BY_SUFFIX.get(Path(plain_name(name.lower())).suffix)


def _raise(error: OSError) -> None:
    raise error
