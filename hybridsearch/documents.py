"""Documents, and the values that their metadata may have. `hybridsearch.readers` reads documents from files."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import numbers
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of

Scalar: TypeAlias = str | int | float | bool | None

MAX_ID_BYTES = 512
"""Length of the longest id, in bytes of UTF-8. Engines that use Lucene store no longer ids."""

MAX_DEPTH = 20
"""Number of levels that metadata may be nested."""

_SHOWN = 200
"""Number of characters of a text that `repr` shows."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text that can be found, with an id, a title and metadata.

    Attributes:
        id: Id of the document, not empty, at most 512 bytes of UTF-8. It is kept as it is given.
        text: Text of the document. If text and title are empty, the document is stored, but no retriever finds it.
        title: Title of the document, or `""`. Encoders read title and text together (`content`).
        metadata: Values for filters and for display, by name: strings, finite numbers, booleans, None, and lists and
            mappings of these. Sets become sorted lists, and arrays become lists. `plain` describes what happens to
            other values. The metadata cannot be changed. `copy.deepcopy` makes a copy that can be changed.

    Raises:
        DocumentError: A part has a type or a value that cannot be stored.

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
            if type(value) is not str:
                object.__setattr__(self, name, str.__str__(value))
        if len(self.id) > MAX_ID_BYTES // 4 and len(self.id.encode()) > MAX_ID_BYTES:
            raise DocumentError(f"Document {self.id[:60]!r}...: an id has at most {MAX_ID_BYTES} bytes of UTF-8.")
        if not isinstance(self.metadata, Mapping):
            raise DocumentError(f"Document {self.id!r:.80}: metadata is a mapping, not {type(self.metadata).__name__}.")
        if type(self.metadata) is not _FrozenDict:  # metadata of another document is clean already
            where = f"Document {self.id!r:.80}: metadata"
            clean = _clean_mapping(self.metadata, where, 0) if self.metadata else _NOTHING
            object.__setattr__(self, "metadata", clean)

    @classmethod
    def restored(cls, id: str, text: str, title: str, metadata: Mapping[str, Any]) -> Document:
        """Make a document from parts that an index stored. They were checked before, and are not checked again.

        Args:
            id: Id of the document.
            text: Text of the document.
            title: Title of the document.
            metadata: Metadata as JSON gives it.

        Returns:
            The document.
        """
        document, put = object.__new__(cls), object.__setattr__
        put(document, "id", id)
        put(document, "text", text)
        put(document, "title", title)
        put(document, "metadata", _frozen(metadata) if metadata else _NOTHING)
        return document

    def __reduce__(self) -> tuple[Any, ...]:
        return Document, (self.id, self.text, self.title, dict(self.metadata))

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        metadata = repr(self.metadata)
        shown = metadata if len(metadata) <= _SHOWN else f"{number_of(len(self.metadata), 'field')}"
        return f"Document(id={self.id!r}, text={_shown(self.text)}, title={_shown(self.title)}, metadata={shown})"

    @property
    def content(self) -> str:
        """Title and text, joined by a space. Encoders and rerankers read this if they are not told to read others."""
        return f"{self.title} {self.text}" if self.title else self.text

    def to_dict(self) -> dict[str, Any]:
        """Convert the document to a dict that JSON can hold. `Document(**d)` converts it back."""
        return {"id": self.id, "text": self.text, "title": self.title, "metadata": _thawed(self.metadata)}


def plain(value: Any) -> Scalar:
    """Convert a value to one that metadata and filters can hold: a string, a number, a boolean or None.

    | given                                                     | becomes                                            |
    |-----------------------------------------------------------|----------------------------------------------------|
    | a date, a time, a datetime or datetime64 without a zone   | its ISO 8601 text                                  |
    | a datetime with a zone                                    | the ISO 8601 text of the instant, in UTC           |
    | NaN, NaT, `pandas.NA`                                     | None: there is no value                            |
    | a Decimal, a Fraction                                     | the nearest float; an int if whole, from 2**53 on  |
    | a numpy scalar                                            | the plain one; a float32 the decimal that it shows |
    | an Enum, a UUID                                           | its value, its text                                |

    Args:
        value: Value of any type.

    Returns:
        The value of the table, or `value` itself.

    Raises:
        ValueError: `value` cannot be converted. The message is the end of a sentence that begins with "... is".

    >>> import datetime as dt
    >>> plain(dt.datetime(2024, 3, 1, 0, 30, tzinfo=dt.timezone(dt.timedelta(hours=9)))), plain(float("nan"))
    ('2024-02-29T15:30:00+00:00', None)
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str.__str__(value)  # a subclass may have another __str__
    if type(value).__name__ in ("NaTType", "NAType"):  # types of pandas, which may not be installed
        return None
    if isinstance(value, dt.date | dt.time):
        return _iso(value)
    if _dimensions(value) == 0:
        value = _from_array(value)
        return value if value is None or isinstance(value, bool | str) else plain(value)
    if isinstance(value, decimal.Decimal):
        if value.is_finite() and abs(value) >= 2**53 and value == value.to_integral_value():
            value = int(value)
        else:
            value = math.nan if value.is_nan() else float(value)
    elif isinstance(value, numbers.Rational) and not isinstance(value, int):
        value = float(value)
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise ValueError("an integer beyond 64 bits: use a string")
        return int(value)
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(f"{value}, but a number must be finite: leave it out, or use None")
        return None if math.isnan(value) else float(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dt.timedelta):
        raise ValueError("a duration: use a number, such as its seconds")
    raise ValueError(
        f"of type {type(value).__name__}, but only strings, numbers, booleans, None, dates, times, UUIDs and enums are "
        "allowed"
    )


def in_order(items: Iterable[Any]) -> list[Any]:
    """The elements of a set in an order that is the same in every process.

    >>> in_order({"b", 2, "a"})
    [2, 'a', 'b']
    """
    return sorted(items, key=lambda item: (type(item).__name__, json.dumps(item, default=str)))


def spellings(id: str) -> list[str]:
    """The spellings of an id that Unicode treats as equal: as given, composed (NFC) and decomposed (NFD), each once.

    >>> [len(form) for form in spellings("caf\u00e9")], spellings("cafe")
    ([4, 5], ['cafe'])
    """
    return [id] if id.isascii() else list(dict.fromkeys([id, *(unicodedata.normalize(f, id) for f in ("NFC", "NFD"))]))


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"


def _iso(value: dt.date | dt.time) -> str:
    if isinstance(value, dt.time) and value.tzinfo is not None:
        raise ValueError("a time with a zone but without a date: leave out the zone, or add the date")
    if isinstance(value, dt.datetime) and value.utcoffset() is not None:
        try:
            return value.astimezone(dt.UTC).isoformat()
        except OverflowError:  # its UTC time is before the year 1 or after the year 9999
            pass
    return value.isoformat()


def _dimensions(value: Any) -> int | None:
    """The number of dimensions of an array or a numpy scalar. None for any other value."""
    dimensions = getattr(value, "ndim", None) if hasattr(value, "dtype") else None
    return dimensions if isinstance(dimensions, int) else None


def _from_array(value: Any) -> Any:
    """The value of an array without dimensions, or of a numpy scalar."""
    kind, text = getattr(value.dtype, "kind", ""), str(value)
    if kind == "M":
        if text == "NaT":
            return None
        day, _, time = (str(value.astype("datetime64[D]")) if len(text) < 10 else text).partition("T")
        clock, _, fraction = time.partition(".")
        fraction = fraction.rstrip("0")
        places = 0 if not fraction else 6 if len(fraction) <= 6 else 9  # as pandas and Python write them
        clock += ":00" * (2 - clock.count(":")) if clock else ""
        return day + (f"T{clock}" if clock else "") + (f".{fraction:0<{places}}" if fraction else "")
    if kind == "m":
        raise ValueError("a duration: use a number, such as its seconds")
    if kind == "f":
        return float(text)  # the short decimal of a float32, without the extra digits of a float64
    return value.item()


class _FrozenDict(dict[str, Any]):
    """Metadata, or a mapping in metadata. It is a dict because JSON writers take a dict. Copies can be changed."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("The metadata of a document cannot be changed: change a copy.deepcopy of it.")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = setdefault = clear = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


_NOTHING = _FrozenDict()


class _FrozenList(list[Any]):
    """A list in metadata."""

    _refuse = _FrozenDict._refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = extend = insert = _refuse
    pop = remove = clear = sort = reverse = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def _frozen(value: Any) -> Any:
    """A value that JSON gives, with dicts and lists that cannot be changed."""
    if isinstance(value, dict):
        return _FrozenDict({key: _frozen(inner) for key, inner in value.items()})
    return _FrozenList(map(_frozen, value)) if isinstance(value, list) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _thawed(inner) for key, inner in value.items()}
    return [_thawed(inner) for inner in value] if isinstance(value, list) else value


def _check_unicode(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{where} holds a lone surrogate at character {error.start}, which is not valid Unicode: repair the text."
        ) from None


def _clean_mapping(metadata: Mapping[Any, Any], where: str, depth: int) -> _FrozenDict:
    clean: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise DocumentError(f"{where}: keys are strings, not {key!r:.80}.")
        if not key.isascii():
            _check_unicode(key, f"{where}: key {key!r:.80}")
        clean[str.__str__(key)] = _clean(value, f"{where}[{key!r:.80}]", depth + 1)
    return _FrozenDict(clean)


def _clean(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise DocumentError(f"{where[:200]} is nested deeper than {MAX_DEPTH} levels.")
    if value is not None and not isinstance(value, str | int | float):
        if isinstance(value, Mapping):
            return _clean_mapping(value, where, depth)
        if isinstance(value, list | tuple) or _dimensions(value):
            return _FrozenList(_clean(item, where, depth + 1) for item in value)
        if isinstance(value, set | frozenset):
            items = [_clean(item, where, depth + 1) for item in value]
            return _FrozenList(in_order(items))
    try:
        scalar = plain(value)
    except ValueError as error:
        raise DocumentError(f"{where} is {error}.") from None
    if isinstance(scalar, str) and not scalar.isascii():
        _check_unicode(scalar, where)
    return scalar
