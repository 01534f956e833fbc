"""Files of an index: written durably, with noted sizes and checksums, and read without trust in their content."""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.errors import HybridSearchError, IndexCorruptedError, StorageError

REPAIR = "restore the index from a copy, or index the documents again"
"""Advice for a damaged file."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Size and checksum of a file as it was written.

    Attributes:
        size: Size in bytes.
        crc32: CRC-32 of the content.
    """

    size: int
    crc32: int


def sync_folder(folder: Path) -> None:
    """Make renames and new files in a folder durable, if the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path) -> StoredFile:
    """Sync a finished file to the disk. Returns its size and its checksum."""
    with path.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise named(error, path) from error
    return StoredFile(path.stat().st_size, crc32(path))


def crc32(path: Path) -> int:
    """The CRC-32 checksum of a file."""
    crc, buffer = 0, bytearray(1 << 20)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        try:
            while size := file.readinto(buffer):
                crc = zlib.crc32(view[:size], crc)
        except OSError as error:
            raise named(error, path) from error
    return crc


def damaged(path: Path | str, reason: str) -> IndexCorruptedError:
    """The error for a file with wrong content."""
    return IndexCorruptedError(f"{path} is damaged ({' '.join(reason.split()):.200}): {REPAIR}.")


def read_array(path: Path, dtype: Any, dimensions: int) -> NDArray[Any]:
    """Map a `.npy` file whose type and number of dimensions are known.

    Raises:
        FileNotFoundError: The file is missing.
        IndexCorruptedError: The file is not a `.npy` file, or has an array of another type or shape.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the format")
            shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), path.stat().st_size
    except OSError as error:
        raise named(error, path) from error
    except Exception as error:  # NumPy parses a header as Python code and may raise anything
        raise damaged(path, str(error)) from error
    if found != np.dtype(dtype) or fortran or len(shape) != dimensions or min(shape, default=0) < 0:
        raise damaged(path, f"it holds an array of {found} and shape {shape}")
    if start + prod(shape) * found.itemsize != size:
        raise damaged(path, f"it has {size} bytes, but an array of shape {shape} needs another number")
    if not prod(shape):
        return np.empty(shape, dtype=found)
    try:
        return np.asarray(np.memmap(path, found, "r", start, shape))
    except OSError as error:
        raise named(error, path) from error


def refuse_links(*paths: Path) -> None:
    """Raises IndexCorruptedError if a path is a link, because a link may lead out of the index."""
    for path in paths:
        if path.is_symlink():
            raise damaged(path, "it is a link and may lead out of the index")


def compare(path: Path | str, file: StoredFile, crc: int) -> None:
    """Raises IndexCorruptedError if a file's checksum is not the noted one."""
    if crc != file.crc32:
        raise IndexCorruptedError(
            f"{path} is damaged: its checksum is {crc:08x}, but {file.crc32:08x} was written: {REPAIR}."
        )


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError into a StorageError that names the file and tells what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, HybridSearchError):
            raise
        raise storage_error(folder, error) from error


def named(error: OSError, path: Path) -> OSError:
    """The error with the name of its file."""
    return error if error.filename else OSError(error.errno, error.strerror or str(error), str(path))


def storage_error(folder: Path, error: OSError) -> StorageError:
    """The StorageError for an OSError in a folder."""
    advice = _ADVICE.get(error.errno or 0, "free space or fix permissions")
    return StorageError(
        f"The storage of {folder} refused: {error}. Everything that was committed before is intact. To go on, "
        f"{advice}, and try again."
    )


_ADVICE = {
    errno.EIO: "check the disk or the network that it is on",
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space, or ask for a larger quota",
    errno.EROFS: "mount it so that it can be written to, or copy the index elsewhere",
    errno.EACCES: "fix the permissions of the folder",
    errno.EPERM: "fix the permissions of the folder",
    errno.EMFILE: "let this process open more files (ulimit -n)",
    errno.ENOENT: "check that nobody else removes the folder's files",
}
