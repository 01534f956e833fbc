"""Types of metadata: the type of a column of texts, values of one type, and fields that hold several kinds."""

from __future__ import annotations

import datetime as dt
import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hybridsearch.documents import plain
from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of

_INT = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_FLOAT = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DATETIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_EXACT = 2**53  # beyond it a float skips whole numbers
_MOST_VALUES = 4096
_MOST_FIELDS = 1000
_SHOWN = 12


def _int(text: str) -> int:
    if not _INT.fullmatch(text) or abs(number := int(text)) >= 2**63:
        raise ValueError
    return number


def _float(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise ValueError
    number = float(text)
    if not math.isfinite(number) or (text.lstrip("-").isdigit() and abs(int(text)) > _EXACT):
        raise ValueError
    return number


def _bool(text: str) -> bool:
    if (word := text.lower()) not in ("true", "false"):
        raise ValueError
    return word == "true"


def _date(text: str) -> dt.date:
    if not _DATE.fullmatch(text):
        raise ValueError
    return dt.date.fromisoformat(text)


def _datetime(text: str) -> dt.datetime:
    if not (found := _DATETIME.fullmatch(text)) or found[1]:
        raise ValueError
    return dt.datetime.fromisoformat(text)


def _instant(text: str) -> dt.datetime:
    if not (found := _DATETIME.fullmatch(text)) or not found[1]:
        raise ValueError
    return dt.datetime.fromisoformat(text)


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "date": _date,
    "datetime": _datetime,
    "instant": _instant,
}
"""By type, what reads a text as a value or raises ValueError. A column gets the first type that fits all of it."""

TYPES = ("str", *_PARSERS)
"""What `types` may name. A datetime has no zone; an instant is a date and time with one."""

_WORDS = {
    "str": "a text",
    "int": "a whole number of 64 bits",
    "float": "a number",
    "bool": "true or false",
    "date": "a date such as 2024-03-01",
    "datetime": "a date and time such as 2024-03-01T12:30:00",
    "instant": "a date and time with a zone, such as 2024-03-01T12:30:00Z",
}


def converted(value: Any, type: str, field: str) -> Any:
    """`value` as one of `TYPES`, a list value by value; None stays None. Raises DocumentError.

    >>> converted(90210, "str", "zip"), converted(["4.50", 10], "float", "price")
    ('90210', [4.5, 10.0])
    """
    if isinstance(value, list | tuple):
        return [converted(item, type, field) for item in value]
    try:
        given = plain(value)
        if given is None:
            return None
        text = ("true" if given else "false") if isinstance(given, bool) else str(given)
        if type == "str":
            return text
        return _PARSERS[type](text.strip().removesuffix(".0") if type == "int" else text.strip())  # "1958.0" is whole
    except ValueError:
        raise DocumentError(f"{value!r:.80} in {field!r:.80} is not {_WORDS[type]}.") from None


class Column:
    """One column of texts while it is looked at.

    Attributes:
        name: in the header.
        place: in a row, from 0.
        misfit: (line, value) of the value that made the column text, though others have a narrower type; else None.
    """

    def __init__(self, name: str, place: int) -> None:
        self.name, self.place = name, place
        self.misfit: tuple[int, str] | None = None
        self._fitting: tuple[str, ...] = tuple(_PARSERS)
        self._seen: set[str] = set()

    @property
    def type(self) -> str:
        """The narrowest of `TYPES` that fits all of its values; "str" if there are none."""
        return self._fitting[0] if self._seen and self._fitting else "str"

    def look(self, value: str, line: int) -> bool:
        """Take a value into account; an empty one is missing. Returns False once the column can only be text."""
        if value in self._seen or not (stripped := value.strip()):
            return True
        self._fitting = tuple(type for type in self._fitting if _fits(stripped, type))
        if not self._fitting:
            if self._seen or (value.isascii() and value.isdigit()):
                self.misfit = (line, value)
            return False
        if len(self._seen) < _MOST_VALUES:
            self._seen.add(value)
        return True


def _fits(text: str, type: str) -> bool:
    try:
        _PARSERS[type](text)
    except ValueError:
        return False
    return True


def types_note(file: str, columns: Iterable[Column]) -> str:
    """The types that were decided and how to change them; empty if there was nothing to decide."""
    said = []
    for column in columns:
        because = "" if column.misfit is None else f" (line {column.misfit[0]} holds {column.misfit[1]!r:.40})"
        said.append(f"{column.name!r:.40} as {column.type}{because}")
    if not said:
        return ""
    more = f" and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else ""
    read = ", ".join(said[:_SHOWN]).replace(" as ", " is read as ", 1)
    return f"{file}: column {read}{more}. To change that: types={{'NAME': 'TYPE'}} (--type NAME=TYPE)."


class Kinds:
    """Counts the kinds of values of each field, to note fields that hold several: a filter compares one kind only.

    Attributes:
        fields: the names that were seen.
    """

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, int]] = {}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Take a document's metadata into account."""
        for field, value in metadata.items():
            kinds = self.fields.get(field)
            if kinds is None:
                if len(self.fields) >= _MOST_FIELDS:
                    continue
                kinds = self.fields[field] = {}
            for kind in {_kind(item) for item in value} if isinstance(value, list | tuple) else (_kind(value),):
                kinds[kind] = kinds.get(kind, 0) + 1

    def notes(self) -> Iterator[str]:
        """A sentence for each field that holds several kinds."""
        for field, counts in self.fields.items():
            several = {kind: count for kind, count in counts.items() if kind}
            if len(several) > 1:
                shown = " and ".join(f"{kind} ({number_of(count, 'document')})" for kind, count in several.items())
                yield (
                    f"The field {field!r:.80} holds {shown}, but a filter compares one kind only. To have one kind: "
                    f"types={{{field!r:.80}: 'str'}} (--type {shlex.quote(field[:80] + '=str')})."
                )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    return "numbers" if isinstance(value, int | float) else ""
