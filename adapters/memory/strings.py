"""Many strings as two arrays, without Python objects. The arrays can be memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hybridsearch.adapters.memory.arrays import Arrays, DamagedArrayError, check_starts
from hybridsearch.arrow import to_numpy
from hybridsearch.corpus.files import REPAIR
from hybridsearch.errors import IndexCorruptedError


class Strings:
    """A list of strings that never changes.

    Attributes:
        blob: The strings in UTF-8, one after the other, uint8 of shape (bytes,).
        starts: Start of each string, int64 of shape (strings + 1,). String i is `blob[starts[i]:starts[i + 1]]`.

    >>> strings = Strings.of(["b", "", "ä"])
    >>> strings.take(np.array([2, 0])), strings.order().tolist()
    (['ä', 'b'], [1, 0, 2])
    """

    __slots__ = ("_bounds", "_raw", "blob", "starts")

    def __init__(self, blob: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        self.blob = blob
        self.starts = starts
        self._raw = np.ascontiguousarray(blob).data
        self._bounds = np.ascontiguousarray(starts).data  # gives Python numbers, several times faster than an array

    @classmethod
    def from_arrays(cls, arrays: Arrays, blob: str, starts: str, length: int | None, *, empty: bool = True) -> Strings:
        """The strings in two arrays from files, without copying.

        There must be `length` strings, or any number for None. If `empty` is False, no string may be empty.

        Raises:
            DamagedArrayError: The arrays do not fit together.
        """
        check_starts(arrays, starts, length, len(arrays[blob]), empty=empty)
        return cls(arrays[blob], arrays[starts])

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        encoded = [string.encode() for string in strings]
        starts = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts)

    @classmethod
    def concat(cls, parts: Sequence[tuple[Strings, NDArray[np.bool_] | None]]) -> Strings:
        """The strings of all parts. Each part has a mask of the strings to keep. None keeps all strings."""
        lengths = [np.diff(part.starts) if keep is None else np.diff(part.starts)[keep] for part, keep in parts]
        starts = np.zeros(sum(map(len, lengths)) + 1, dtype=np.int64)
        np.cumsum(np.concatenate([np.empty(0, dtype=np.int64), *lengths]), out=starts[1:])
        blob = np.empty(int(starts[-1]), dtype=np.uint8)
        at = 0
        for part, keep in parts:
            for begin, end in _runs(len(part), keep):
                a, b = int(part.starts[begin]), int(part.starts[end])
                blob[at : at + b - a] = part.blob[a:b]
                at += b - a
        return cls(blob, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        return self.blob.nbytes + self.starts.nbytes

    def __getitem__(self, row: int) -> str:
        try:
            return str(self._raw[self.starts[row] : self.starts[row + 1]], "utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(error) from error

    def raw(self, row: int) -> memoryview:
        """The bytes of one string."""
        return self._raw[self.starts[row] : self.starts[row + 1]]

    def take(self, rows: NDArray[np.integer]) -> list[str]:
        """The strings at `rows`, in that order."""
        return self.at(rows.tolist())

    def at(self, rows: Iterable[int]) -> list[str]:
        """The strings at `rows`, in that order."""
        raw, starts = self._raw, self._bounds
        try:
            return [str(raw[starts[row] : starts[row + 1]], "utf-8") for row in rows]
        except UnicodeDecodeError as error:
            raise _damaged(error) from error

    def runs(self, rows: Iterable[int], length: int) -> list[list[str]]:
        """For each of `rows`, the string at the row and those after it, `length` in all."""
        raw, starts = self._raw, self._bounds
        try:
            return [[str(raw[starts[at] : starts[at + 1]], "utf-8") for at in range(row, row + length)] for row in rows]
        except UnicodeDecodeError as error:
            raise _damaged(error) from error

    def slice(self, begin: int, end: int) -> list[str]:
        """The strings from `begin` to before `end`."""
        raw = self._raw
        try:
            return [str(raw[a:b], "utf-8") for a, b in pairwise(self.starts[begin : end + 1].tolist())]
        except UnicodeDecodeError as error:
            raise _damaged(error) from error

    def check_unicode(self, name: str) -> None:
        """Raises DamagedArrayError with this name if a string is not UTF-8."""
        try:
            pa.LargeStringArray.from_buffers(
                len(self), pa.py_buffer(self.starts.data), pa.py_buffer(self._raw)
            ).validate(full=True)
        except pa.ArrowException as error:
            raise DamagedArrayError(name, str(error)) from error

    def order(self) -> NDArray[np.int32]:
        """The rank of each string among all, by code point, which is also the order of the UTF-8 bytes."""
        array = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(self), [None, pa.py_buffer(self.starts.data), pa.py_buffer(self._raw)]
        )
        ranks = np.empty(len(self), dtype=np.int32)
        ranks[to_numpy(pc.sort_indices(array))] = np.arange(len(self), dtype=np.int32)
        return ranks


def _damaged(error: UnicodeDecodeError) -> IndexCorruptedError:
    return IndexCorruptedError(
        f"A text of the index is damaged ({error}). Open the index with verify=True, which names the damaged file. "
        f"Then {REPAIR}."
    )


def _runs(rows: int, keep: NDArray[np.bool_] | None) -> Iterable[tuple[int, int]]:
    """The ranges of rows that are kept."""
    if keep is None:
        return [(0, rows)]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]]))).tolist()
    return zip(edges[::2], edges[1::2], strict=True)
