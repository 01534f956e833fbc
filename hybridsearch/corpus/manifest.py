"""The manifest of a store, which names its parts and their files with size and CRC-32."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridsearch.backends import Schema
from hybridsearch.corpus.files import REPAIR, StoredFile, damaged, named, storage_error
from hybridsearch.corpus.parts import arrow_schema
from hybridsearch.errors import IndexCorruptedError, IndexNotFoundError
from hybridsearch.folders import CORPUS, MANIFEST

FORMAT_VERSION = 1
PART = "part.parquet"
"""Name of the Parquet file of each part."""

MOST_ROWS = 2**31 - 1
"""Largest number of documents in one part, because their numbers have 32 bits."""

_YOUNG = 100_000_000
"""Age in nanoseconds from which a manifest's time is reliable. Two commits within one clock tick have the same time."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
"""Names that parts and their files may have."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a store, which holds some of its documents.

    Attributes:
        name: Name of the part's folder under segments/.
        rows: Number of documents in the Parquet file, including deleted documents.
        files: Files of the part, by name.
        deleted: Name of the file that lists the deleted rows. None if no row is deleted.
    """

    name: str
    rows: int
    files: Mapping[str, StoredFile]
    deleted: str | None = None

    @property
    def size(self) -> int:
        """Size of all files of the part in bytes."""
        return sum(file.size for file in self.files.values())


def render_manifest(schema: Schema, parts: Sequence[Part], generation: int) -> bytes:
    """The content of a manifest. `generation` counts the commits."""
    head = {"format": CORPUS, "version": FORMAT_VERSION, "generation": generation}
    return _with_checksum({**head, "schema": schema.to_json(), "parts": [asdict(part) for part in parts]})


def read_manifest(folder: Path) -> tuple[Schema, list[Part], int]:
    """Read and check the manifest of a folder.

    Returns:
        The schema, the parts, and the number of commits.

    Raises:
        IndexNotFoundError: There is no manifest.
        IndexCorruptedError: The manifest is damaged, or of a newer version.
        StorageError: It cannot be read.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise IndexNotFoundError(f"There is no index in {folder}: index documents into it first.") from None
    except OSError as error:
        raise storage_error(folder, named(error, path)) from error
    return parse_manifest(raw, path)


def parse_manifest(raw: bytes, path: Path | str) -> tuple[Schema, list[Part], int]:
    """Check the content of a manifest, as `read_manifest` does. `path` is its name in errors."""
    try:
        content = json.loads(raw)
        content.pop("checksum")
        intact = _with_checksum(content) == raw
        version = content["version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact, version = False, None
    if not intact:
        raise IndexCorruptedError(f"{path} is damaged: its checksum does not fit its content: {REPAIR}.")
    if not _is_count(version) or version > FORMAT_VERSION:
        raise IndexCorruptedError(
            f"{path} has format version {version!r:.40}, but this hybridsearch reads up to {FORMAT_VERSION}: "
            "upgrade hybridsearch, or index the documents again."
        )
    try:
        parts = [_part(part) for part in content["parts"]]
        if len({part.name for part in parts}) < len(parts):
            raise ValueError("a part is listed twice")
        if not _is_count(content["generation"]):
            raise ValueError("its generation is not a whole number")
        schema = Schema.from_json(content["schema"])
        arrow_schema(schema)
    except IndexCorruptedError as error:
        raise IndexCorruptedError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    return schema, parts, content["generation"]


def manifest_stamp(folder: Path) -> tuple[int, ...] | None:
    """A value that changes with each commit. None without a manifest, () if the manifest is too young to be sure."""
    try:
        found = (folder / MANIFEST).stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(folder, error) from error
    young = abs(time.time_ns() - found.st_mtime_ns) < _YOUNG
    return () if young else (found.st_mtime_ns, found.st_size, found.st_ino)


def _with_checksum(content: Mapping[str, Any]) -> bytes:
    body = json.dumps(content, indent=1).encode()
    return json.dumps({**content, "checksum": zlib.crc32(body)}, indent=1).encode() + b"\n"


def _part(data: Mapping[str, Any]) -> Part:
    """The part that `data` describes. Raises ValueError, KeyError, TypeError or AttributeError for wrong data."""
    name, rows, deleted = data["name"], data["rows"], data["deleted"]
    files = {file: StoredFile(of_file["size"], of_file["crc32"]) for file, of_file in data["files"].items()}
    for one in (name, *files):
        if not isinstance(one, str) or not _NAME.fullmatch(one):
            raise ValueError(f"{one!r:.80} cannot be the name of a part or of its file")
    if not _is_count(rows) or not 0 < rows <= MOST_ROWS:
        raise ValueError(f"{rows!r:.40} cannot be a number of documents")
    if not all(_is_count(file.size) and _is_count(file.crc32) for file in files.values()):
        raise ValueError("a size or checksum is not a whole number")
    if PART not in files or not (deleted is None or deleted in files.keys() - {PART}):
        raise ValueError(f"the part {name} lacks a file")
    return Part(name, rows, files, deleted)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
