"""Documents; `hybridsearch.readers` streams them from files."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from hybridsearch.errors import DocumentError

Scalar: TypeAlias = str | int | float | bool | None

MAX_ID_BYTES = 512
"""Longest id in UTF-8 bytes; Lucene-based engines store no longer one."""

MAX_DEPTH = 20
"""Levels of nesting in metadata."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text that can be found.

    Attributes:
        id: its identity: non-empty, at most 512 bytes of UTF-8.
        text: what it says. Empty text is allowed: the document is stored but no retriever finds it.
        title: optional; encoders read title and text as one (`content`).
        metadata: for filters and display: strings, finite numbers, booleans, None, and lists and mappings of these.
            Dates and times become ISO 8601 strings, numpy and decimal numbers plain ones. Filters reach values in
            nested mappings by a dotted path, and look at the plain values of a list.

    Raises:
        DocumentError: a part has a type or value that cannot be stored.

    >>> Document("1", "Lift grows with the angle of attack.", "Wings", {"year": 1958}).content
    'Wings Lift grows with the angle of attack.'
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise DocumentError(f"A document's id is a non-empty string, not {self.id!r:.80}.")
        for name, value in (("id", self.id), ("text", self.text), ("title", self.title)):
            if not isinstance(value, str):
                raise DocumentError(
                    f"Document {self.id!r:.80}: {name} is a string, not {type(value).__name__} {value!r:.80}."
                )
            if not value.isascii():
                _check_unicode(value, f"Document {self.id!r:.80}: its {name}")
        if len(self.id) > MAX_ID_BYTES // 4 and len(self.id.encode()) > MAX_ID_BYTES:
            raise DocumentError(f"Document {self.id[:60]!r}...: an id has at most {MAX_ID_BYTES} bytes of UTF-8.")
        if not isinstance(self.metadata, Mapping):
            raise DocumentError(f"Document {self.id!r:.80}: metadata is a mapping, not {type(self.metadata).__name__}.")
        clean = {} if not self.metadata else _clean_mapping(self.metadata, f"Document {self.id!r:.80}: metadata", 0)
        object.__setattr__(self, "metadata", MappingProxyType(clean))

    def __reduce__(self) -> tuple[Any, ...]:
        return Document, (self.id, self.text, self.title, dict(self.metadata))

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def content(self) -> str:
        """What encoders read: title and text, joined by a space."""
        return f"{self.title} {self.text}" if self.title else self.text

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `Document(**d)` is its inverse."""
        return {"id": self.id, "text": self.text, "title": self.title, "metadata": dict(self.metadata)}


def _check_unicode(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{where} holds a lone surrogate at character {error.start}, which is not valid Unicode: repair the text."
        ) from None


def _clean_mapping(metadata: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise DocumentError(f"{where}: keys are strings, not {key!r:.80}.")
        if not key.isascii():
            _check_unicode(key, f"{where}: key {key!r:.80}")
        clean[key] = _clean(value, f"{where}[{key!r:.80}]", depth + 1)
    return clean


def _clean(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise DocumentError(f"{where[:200]} is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Mapping):
        return _clean_mapping(value, where, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, where, depth + 1) for item in value]
    return _clean_scalar(value, where)


def _clean_scalar(value: Any, where: str) -> Scalar:
    if hasattr(value, "item") and not isinstance(value, str | int | float) and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a numpy scalar
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_unicode(value, where)
        return str(value)
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise DocumentError(f"{where} is an integer beyond 64 bits; store it as a string.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DocumentError(f"{where} is {value}, which no filter can compare; leave it out or use None.")
        return float(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    raise DocumentError(
        f"{where} is of type {type(value).__name__}; allowed are strings, numbers, booleans, None, dates, "
        "and lists and mappings of these."
    )
