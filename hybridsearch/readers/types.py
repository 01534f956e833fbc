"""Types of metadata: how a type is found for a column of texts, and how values are converted to it."""

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
_EXACT = 2**53  # a float cannot hold all larger whole numbers
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
"""For each type, a function that converts a text or raises ValueError. A column gets the first type that fits it."""

TYPES = ("str", *_PARSERS)
"""Names of all types. A datetime has no time zone. An instant is a date and time with a time zone."""

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
    """Convert a value to one of `TYPES`. Each element of a list is converted. None stays None.

    A datetime at midnight that has no zone is a date.

    Raises:
        DocumentError: The value does not have this type.

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
        if type == "date" and not isinstance(value, str):
            text = text.removesuffix("T00:00:00")  # pandas keeps dates as datetimes at midnight
        return _PARSERS[type](text.strip().removesuffix(".0") if type == "int" else text.strip())  # "1958.0" is whole
    except ValueError:
        raise DocumentError(f"{value!r:.80} in {field!r:.80} is not {_WORDS[type]}.") from None


class Column:
    """A column of texts whose type is found from its values.

    Attributes:
        name: Name of the column in the header.
        place: Position of the column in a row, from 0.
        misfit: Line and value that decided that the column is text, although other values have a narrower type. None if
            there is no such value.
    """

    def __init__(self, name: str, place: int) -> None:
        self.name, self.place = name, place
        self.misfit: tuple[int, str] | None = None
        self._fitting: tuple[str, ...] = tuple(_PARSERS)
        self._seen: set[str] = set()

    @property
    def type(self) -> str:
        """The narrowest of `TYPES` that fits all values of the column. `"str"` if there are no values."""
        return self._fitting[0] if self._seen and self._fitting else "str"

    def look(self, value: str, line: int) -> bool:
        """Look at one more value. An empty value counts as missing.

        Returns:
            False if the column can only be text, so that no more values need a look.
        """
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
    """A note on the types that were found, and how to change them. Empty if no type was found."""
    said = []
    for column in columns:
        because = "" if column.misfit is None else f" (line {column.misfit[0]} holds {column.misfit[1]!r:.40})"
        said.append(f"{column.name!r:.40} as {column.type}{because}")
    if not said:
        return ""
    more = f" and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else ""
    read = ", ".join(said[:_SHOWN]).replace(" as ", " is read as ", 1)
    return f"{file}: column {read}{more}. To change a type, give types={{'NAME': 'TYPE'}} (--type NAME=TYPE)."


class Kinds:
    """Counts the kinds of values of each field, because a filter compares only one kind.

    Attributes:
        fields: Number of documents by kind, by field.
    """

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, int]] = {}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Count the kinds of one document's metadata."""
        for field, value in metadata.items():
            kinds = self.fields.get(field)
            if kinds is None:
                if len(self.fields) >= _MOST_FIELDS:
                    continue
                kinds = self.fields[field] = {}
            for kind in {_kind(item) for item in value} if isinstance(value, list | tuple) else (_kind(value),):
                kinds[kind] = kinds.get(kind, 0) + 1

    def notes(self) -> Iterator[str]:
        """Write a sentence for each field that has values of several kinds."""
        for field, counts in self.fields.items():
            several = {kind: count for kind, count in counts.items() if kind}
            if len(several) > 1:
                shown = " and ".join(f"{kind} ({number_of(count, 'document')})" for kind, count in several.items())
                yield (
                    f"The field {field!r:.80} holds {shown}, but a filter compares one kind only. To get one kind, "
                    f"give types={{{field!r:.80}: 'str'}} (--type {shlex.quote(field[:80] + '=str')})."
                )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    return "numbers" if isinstance(value, int | float) else ""
