"""Checks arrays from files before loops read them, because the loops do not check bounds.

Each check is one pass of NumPy at most. All checks run whenever an index is opened, because a folder may come from
anybody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.corpus.files import read_array

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

Layout: TypeAlias = Mapping[str, tuple[type[np.generic], int]]
"""The type and the number of dimensions of each array of a group."""


class DamagedArrayError(Exception):
    """An array does not fit the other arrays.

    Attributes:
        name: Name of the array.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(reason)


def read_group(folder: Path, group: str, layout: Layout, optional: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays in the files `folder/<group>.<name>.npy`, memory-mapped.

    Raises:
        FileNotFoundError: An array is missing and not `optional`.
        IndexCorruptedError: An array does not have the type and dimensions of `layout`.
    """
    arrays = {}
    for name, (dtype, dimensions) in layout.items():
        path = folder / f"{group}.{name}.npy"
        if name not in optional or path.exists():
            arrays[name] = read_array(path, dtype, dimensions)
    return arrays


def check_length(arrays: Arrays, name: str, length: int) -> None:
    """Raises DamagedArrayError if the array has another length."""
    if len(arrays[name]) != length:
        raise DamagedArrayError(name, f"it has {len(arrays[name])} entries, not {length}")


def check_starts(arrays: Arrays, name: str, length: int | None, end: int, *, empty: bool = True) -> None:
    """Raises DamagedArrayError unless the array rises from 0 to `end` in `length` steps.

    With `empty`, neighbouring numbers may be equal.
    """
    starts = arrays[name]
    if length is not None:
        check_length(arrays, name, length + 1)
    if not len(starts) or starts[0] != 0 or starts[-1] != end:
        raise DamagedArrayError(name, f"it does not go from 0 to {end}")
    steps = starts[1:] >= starts[:-1] if empty else starts[1:] > starts[:-1]
    if not steps.all():
        raise DamagedArrayError(name, f"its entry {int(np.argmin(steps)) + 1} is out of order")


def check_numbers(arrays: Arrays, name: str, below: int) -> None:
    """Raises DamagedArrayError if a number is not from 0 to `below` - 1."""
    numbers = arrays[name]
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= below):
        raise DamagedArrayError(name, f"it has numbers that are not from 0 to {below - 1}")


def check_permutation(arrays: Arrays, name: str, length: int) -> None:
    """Raises DamagedArrayError unless the array has each number from 0 to `length` - 1 once."""
    check_length(arrays, name, length)
    check_numbers(arrays, name, length)
    there = np.zeros(length, dtype=np.bool_)
    there[arrays[name]] = True
    if not there.all():
        raise DamagedArrayError(name, f"it lacks the number {int(np.argmin(there))}")


def check_sizes(arrays: Arrays, name: str, length: int) -> None:
    """Raises DamagedArrayError unless the array has `length` numbers of at least 0."""
    check_length(arrays, name, length)
    if length and not arrays[name].min() >= 0:  # also false for NaN
        raise DamagedArrayError(name, "it has numbers below 0, or NaN")
