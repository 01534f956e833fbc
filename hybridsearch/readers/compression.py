"""Compressed files. Their first bytes show how they are compressed, whatever their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, cast

from hybridsearch.readers.fields import WholeFileError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
"""Endings of the names of compressed files. The ending before them shows the format of the content."""

XZ_MEMORY = 2**28
"""Number of bytes of memory that decompressing an .xz file may need. `xz -9` needs a quarter of it."""

_BUFFER = 2**16
_START = 64  # bytes that are enough to recognise a format, and the encoding of a text
_BZIP2 = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")  # the first block, or the end of an empty file
_ZSTD = (
    b"\x28\xb5\x2f\xfd",
    *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)),
)


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """The content of a file, from its position on, as a stream.

    Args:
        file: Open file, compressed by gzip, bzip2, xz or Zstandard, or not compressed. It can be a pipe.

    Returns:
        A stream of the content, or the file itself if it is not compressed. Reading a damaged file raises
        WholeFileError.

    >>> decompressed(io.BytesIO(gzip.compress(b"Lift grows."))).read()
    b'Lift grows.'
    """
    file, start = _with_start(file)
    for name, is_start, open in _FORMATS:
        if is_start(start):
            return cast("IO[bytes]", io.BufferedReader(_Content(open(file), name), _BUFFER))
    return file


def plain_name(name: str) -> str:
    """The name of a file without the ending of a compressed file.

    >>> plain_name("articles.jsonl.ZST"), plain_name("articles.jsonl")
    ('articles.jsonl', 'articles.jsonl')
    """
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in SUFFIXES if lower.endswith(suffix)), name)


class _Content(io.RawIOBase):
    """The content of a compressed file. An error says after how many bytes of the content it came."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name, self._count = stream, name, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            count = int(cast("io.BufferedReader", self._stream).readinto(buffer))
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the storage cannot be read
                raise
            raise WholeFileError(
                f"the compressed file ({self._name}) is damaged or cut off after {self._count:,} bytes of its content "
                f"({str(error).rstrip('.')}). Write it again."
            ) from error
        self._count += count
        return count


class _Xz(io.RawIOBase):
    """The content of an .xz file, as `lzma.LZMAFile`, but with a limit for the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = self._new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        while True:
            if self._decoder.eof:  # another stream may follow, after padding
                rest = self._decoder.unused_data.lstrip(b"\0")
                while not rest:
                    if not (chunk := self._file.read(_BUFFER)):
                        return 0
                    rest = chunk.lstrip(b"\0")
                self._decoder = self._new()
            else:
                rest = self._file.read(_BUFFER) if self._decoder.needs_input else b""
                if not rest and self._decoder.needs_input:
                    raise EOFError("the end of the stream is missing")
            if found := self._decoder.decompress(rest, len(room)):
                room[: len(found)] = found
                return len(found)

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


class _Rejoined(io.RawIOBase):
    """A file whose first bytes were read already. To close it does not close the file."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        found = self._start[: len(room)] or cast("io.BufferedReader", self._file).read1(len(room))
        self._start = self._start[len(found) :]
        room[: len(found)] = found
        return len(found)


def _with_start(file: IO[bytes]) -> tuple[IO[bytes], bytes]:
    """The file, which is where it was, and the bytes that come next."""
    if file.seekable():
        place = file.tell()
        start = file.read(_START)
        file.seek(place)
        return file, start
    start = file.read(_START)
    return cast("IO[bytes]", io.BufferedReader(_Rejoined(start, file), _BUFFER)), start


def _zstandard(file: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    kept_open = _Rejoined(b"", file)  # pyarrow closes what it was given, when it is collected
    return cast("IO[bytes]", pa.CompressedInputStream(kept_open, "zstd"))


_FORMATS: list[tuple[str, Callable[[bytes], bool], Callable[[IO[bytes]], IO[bytes]]]] = [
    ("gzip", lambda start: start.startswith(b"\x1f\x8b"), lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file))),
    ("bzip2", lambda start: start.startswith(b"BZh") and start[4:10] in _BZIP2, bz2.BZ2File),
    ("xz", lambda start: start.startswith(b"\xfd7zXZ\0"), lambda file: cast("IO[bytes]", _Xz(file))),
    ("zstd", lambda start: start.startswith(_ZSTD), _zstandard),
]
"""Each format: its name, a function that recognises its first bytes, and a function that opens the content."""
