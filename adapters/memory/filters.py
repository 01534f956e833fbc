"""Stores metadata in columns, and turns filters into masks over documents.

The distinct values of a field are stored once, as they came. Documents refer to them by number. `Compare` of the filter
language decides a comparison once for each distinct value. The results are then copied to the documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory.arrays import (
    Arrays,
    DamagedArrayError,
    Layout,
    check_length,
    check_numbers,
    check_starts,
)
from hybridsearch.adapters.memory.strings import Strings
from hybridsearch.corpus.files import REPAIR
from hybridsearch.documents import Document
from hybridsearch.errors import IndexCorruptedError
from hybridsearch.filters import And, Compare, Condition, Not, Or, comparable, composed, enclosing, fields_of
from hybridsearch.listing import sort_bytes

_EXACT = 2**53
"""Integers up to this number are exact in float64, so they can be compared as float64."""

_ON_NUMBERS = {"$eq": np.equal, "$gt": np.greater, "$gte": np.greater_equal, "$lt": np.less, "$lte": np.less_equal}


def mask_of(condition: Condition, test: Callable[[Compare], NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """A mask over the documents for which `condition` is true, shape (documents,). `test` decides comparisons."""
    match condition:
        case Compare():
            return test(condition)
        case Not(inner):
            return ~mask_of(inner, test)
        case And(conditions):
            return reduce(np.logical_and, [mask_of(inner, test) for inner in conditions])
        case Or(conditions):
            return reduce(np.logical_or, [mask_of(inner, test) for inner in conditions])


class MetadataColumns:
    """The metadata of one segment. They never change.

    Attributes:
        documents: Number of documents.
        fields: Names of all fields that a filter can use. Nested fields have a dotted path.
        ends: End of the entries and of the values of each field, int64 of shape (fields, 2).
        rows: Documents that have a field, ascending within the field, int32 of shape (entries,).
        codes: Number of the value that each of these documents has, int32 of shape (entries,).
        values: The distinct values of all fields, as JSON.
    """

    LAYOUT: ClassVar[Layout] = {
        "fields": (np.uint8, 1),
        "field_starts": (np.int64, 1),
        "ends": (np.int64, 2),
        "rows": (np.int32, 1),
        "codes": (np.int32, 1),
        "values": (np.uint8, 1),
        "value_starts": (np.int64, 1),
    }
    """The layout of `arrays`."""

    def __init__(
        self,
        documents: int,
        fields: Strings,
        ends: NDArray[np.int64],
        rows: NDArray[np.int32],
        codes: NDArray[np.int32],
        values: Strings,
    ) -> None:
        self.documents = documents
        self.fields, self.ends, self.rows, self.codes, self.values = fields, ends, rows, codes, values
        self._number = {composed(name): number for number, name in enumerate(fields.slice(0, len(fields)))}
        self._parsed: dict[str, tuple[list[Any], NDArray[np.float64] | None]] = {}

    @classmethod
    def build(cls, documents: Sequence[Document]) -> MetadataColumns:
        columns: dict[str, _Column] = {}
        for row, document in enumerate(documents):
            if document.metadata:
                for name, value in fields_of(document).items():
                    columns.setdefault(name, _Column()).add(row, value)
        return cls._pack(len(documents), columns)

    @classmethod
    def merge(cls, parts: Sequence[tuple[MetadataColumns, NDArray[np.bool_] | None]]) -> MetadataColumns:
        """The columns of all parts. Each part has a mask of the documents to keep. None keeps all documents."""
        columns: dict[str, _Column] = {}
        start = 0
        for part, keep in parts:
            kept = np.ones(part.documents, dtype=np.bool_) if keep is None else keep
            numbers = np.cumsum(kept) + (start - 1)
            for name in part._number:
                rows, codes = part._entries(name)
                there = kept[rows]
                columns.setdefault(name, _Column()).extend(numbers[rows[there]], codes[there], part._texts(name))
            start += int(kept.sum())
        return cls._pack(start, {name: column for name, column in columns.items() if column.entries})

    @classmethod
    def _pack(cls, documents: int, columns: Mapping[str, _Column]) -> MetadataColumns:
        packed = [column.arrays() for column in columns.values()]
        ends = [(len(rows), len(values)) for rows, _, values in packed]
        none = np.empty(0, dtype=np.int32)
        return cls(
            documents,
            Strings.of(columns),
            np.cumsum(np.array(ends, dtype=np.int64).reshape(-1, 2), axis=0),
            np.concatenate([none, *(rows for rows, _, _ in packed)]),
            np.concatenate([none, *(codes for _, codes, _ in packed)]),
            Strings.of(value for _, _, values in packed for value in values),
        )

    @classmethod
    def from_arrays(cls, documents: int, arrays: Arrays) -> MetadataColumns:
        """The columns over these arrays, without copying. This is the inverse of `arrays`.

        Raises:
            DamagedArrayError: The arrays do not fit together.
        """
        ends, rows, codes = arrays["ends"], arrays["rows"], arrays["codes"]
        fields = Strings.from_arrays(arrays, "fields", "field_starts", len(ends))
        fields.check_unicode("fields")
        values = Strings.from_arrays(arrays, "values", "value_starts", None)
        bounds = np.concatenate([np.zeros((1, 2), np.int64), ends]) if ends.shape[1:] == (2,) else ends
        if bounds.shape[1:] != (2,) or bounds[-1].tolist() != [len(rows), len(values)]:
            raise DamagedArrayError("ends", "its last entries are not where the other arrays end")
        check_starts({"ends": bounds[:, 0]}, "ends", None, len(rows))
        check_starts({"ends": bounds[:, 1]}, "ends", None, len(values))
        check_length(arrays, "codes", len(rows))
        check_numbers(arrays, "rows", documents)
        of_field = np.diff(bounds, axis=0)
        if len(codes) and (codes.min() < 0 or (codes >= np.repeat(of_field[:, 1], of_field[:, 0])).any()):
            raise DamagedArrayError("codes", "it has numbers of values that do not exist")
        return cls(documents, fields, ends, rows, codes, values)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All columns as plain arrays, to save them."""
        return {
            "fields": self.fields.blob,
            "field_starts": self.fields.starts,
            "ends": self.ends,
            "rows": self.rows,
            "codes": self.codes,
            "values": self.values.blob,
            "value_starts": self.values.starts,
        }

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def compare(self, compare: Compare) -> NDArray[np.bool_]:
        """A mask over the documents whose metadata match, shape (documents,)."""
        mask = np.full(self.documents, compare.test_key(None), dtype=np.bool_)
        for name in self._number:
            if compare.path in enclosing(name):
                mask[self._entries(name)[0]] = compare.test_key({})
        if compare.path in self._number:
            rows, codes = self._entries(compare.path)
            mask[rows] = self._test_values(compare)[codes]
        return mask

    def _test_values(self, compare: Compare) -> NDArray[np.bool_]:
        """A mask over the distinct values of the field: True for those that pass."""
        keys, numbers = self._comparable_values(compare.path)
        if numbers is not None and _exact(compare.key) and compare.operator in _ON_NUMBERS:
            passed: NDArray[np.bool_] = _ON_NUMBERS[compare.operator](numbers, np.float64(compare.key))
            return passed
        return np.fromiter((compare.test_key(key) for key in keys), np.bool_, len(keys))

    def sort_parts(self, path: str, descending: bool) -> tuple[list[bytes], NDArray[np.int32]]:
        """What `sort_bytes` gives for each distinct value of a field, and the number of each document's value.

        The last value stands for documents that do not have the field. Its number is -1.
        """
        parts, numbers = [], np.full(self.documents, -1, dtype=np.int32)
        if path in self._number:
            parts = [sort_bytes(value, path, descending) for value in self._comparable_values(path)[0]]
            rows, codes = self._entries(path)
            numbers[rows] = codes
        return [*parts, sort_bytes(None)], numbers

    def _comparable_values(self, path: str) -> tuple[list[Any], NDArray[np.float64] | None]:
        """The distinct values of a field in the form of `comparable`, and as float64 if all are exact in it."""
        if path not in self._parsed:
            texts = self._texts(path)
            try:
                parsed = comparable(json.loads(f"[{','.join(texts)}]"))
            except (ValueError, TypeError, RecursionError):
                parsed = []
            if len(parsed) != len(texts):
                raise IndexCorruptedError(
                    f"A value of the field {path!r:.80} is damaged. Open the index with verify=True, which names the "
                    f"damaged file. Then {REPAIR}."
                )
            self._parsed[path] = parsed, _numbers(parsed)
        return self._parsed[path]

    def _entries(self, name: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        begin, end = self._bounds(name, 0)
        return self.rows[begin:end], self.codes[begin:end]

    def _texts(self, name: str) -> list[str]:
        return self.values.slice(*self._bounds(name, 1))

    def _bounds(self, name: str, of: int) -> tuple[int, int]:
        number = self._number[name]
        return int(self.ends[number - 1, of]) if number else 0, int(self.ends[number, of])


_to_json = json.JSONEncoder(ensure_ascii=False).encode


class _Column:
    """A field whose values are being collected."""

    def __init__(self) -> None:
        self._code: dict[Any, int] = {}
        self._values: list[str] = []
        self._rows: list[int] = []
        self._codes: list[int] = []
        self._arrays: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        self.entries = 0

    def add(self, row: int, value: Any) -> None:
        key = (type(value), str(value) if isinstance(value, list | dict) else value)
        code = self._code.get(key)
        if code is None:
            code = self._code[key] = len(self._values)
            self._values.append(_to_json(value))
        self._rows.append(row)
        self._codes.append(code)
        self.entries += 1

    def extend(self, rows: NDArray[np.integer], codes: NDArray[np.int32], values: list[str]) -> None:
        """Add many entries whose `codes` refer to `values`. Values that no entry has are left out."""
        used = np.zeros(len(values), dtype=np.bool_)
        used[codes] = True
        renamed = np.zeros(len(values), dtype=np.int32)
        for old in np.flatnonzero(used).tolist():
            text = values[old]
            code = self._code.get(text)
            if code is None:
                code = self._code[text] = len(self._values)
                self._values.append(text)
            renamed[old] = code
        self._arrays.append((rows.astype(np.int32), renamed[codes]))
        self.entries += len(rows)

    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.int32], list[str]]:
        if not self._arrays:
            return np.array(self._rows, dtype=np.int32), np.array(self._codes, dtype=np.int32), self._values
        rows, codes = zip(*self._arrays, strict=True)
        return np.concatenate(rows), np.concatenate(codes), self._values


def _numbers(values: list[Any]) -> NDArray[np.float64] | None:
    """The values as float64, or None if some value is not a number that is exact in float64."""
    if all(_exact(value) for value in values):
        return np.array(values, dtype=np.float64)
    return None


def _exact(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT)
