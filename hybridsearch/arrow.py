"""Arrow arrays from NumPy arrays and strings, and back.

pyarrow's own conversions import pandas if it is installed, which takes a second. These do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ArrowArray: TypeAlias = Any
"""pyarrow's stubs do not follow nested arrays."""

_LARGEST = np.iinfo(np.int32).max
_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}


def of_numbers(values: NDArray[Any]) -> ArrowArray:
    """An array of numbers or flags, without copying numbers.

    >>> of_numbers(np.array([True, False])).to_pylist()
    [True, False]
    """
    values = np.ascontiguousarray(values)
    data: NDArray[Any] = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else values
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(data.data)])


def of_places(values: NDArray[np.integer]) -> ArrowArray:
    """An array of int32 numbers.

    Raises:
        ArrowInvalid: A number is too large.
    """
    if values.max(initial=0) > _LARGEST:
        raise pa.ArrowInvalid(f"{values.max()} is too large for 32 bits")
    return of_numbers(values.astype(np.int32))


def of_strings(strings: Iterable[str], *, large: bool = True) -> ArrowArray:
    """An array of strings, with places of 64 bits, or of 32 bits if it is not `large`.

    Raises:
        UnicodeEncodeError: A string has a lone surrogate.
        ArrowInvalid: The strings are too large for 32 bits.
    """
    encoded = [string.encode() for string in strings]
    ends = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=ends[1:])
    blob = pa.py_buffer(b"".join(encoded))
    if large:
        return pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(ends.data), blob)
    return pa.StringArray.from_buffers(len(encoded), of_places(ends).buffers()[1], blob)


def to_numpy(array: ArrowArray) -> NDArray[Any]:
    """The numbers of an array, without copying them. Missing numbers are NaN.

    >>> to_numpy(of_numbers(np.arange(4))[1:3]).tolist()
    [1, 2]
    """
    if array.null_count:
        found: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return found
    kind = str(array.type)
    dtype = np.dtype(_NAMES.get(kind, kind))
    data = array.buffers()[1]
    if data is None:
        return np.empty(0, dtype=dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)
