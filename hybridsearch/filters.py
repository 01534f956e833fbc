"""The filter language, which selects documents by metadata, title and id.

A filter is a mapping from fields to values or operators:

    {"year": {"$gte": 2020}, "language": "en"}                 both conditions must hold
    {"$or": [{"tags": {"$contains": "gpu"}}, {"$not": {"draft": True}}]}

A field is a metadata key, a dotted path into nested metadata, `id` or `title`. If the metadata has the key `title`,
this key is meant, and not the title of the document. A filter cannot select by text. Search for text instead.

| operator                     | matches if                                                                           |
|------------------------------|--------------------------------------------------------------------------------------|
| `$eq`, `$ne`                 | the value is equal, or not equal (`{"year": 2020}` means `{"year": {"$eq": 2020}}`)  |
| `$gt`, `$gte`, `$lt`, `$lte` | both are numbers, or both are strings (by code point), and have this order           |
| `$in`, `$nin`                | the value equals one element of a list, or none of them                              |
| `$exists`                    | true: the field is there and not None. false: it is not there, or None               |
| `$contains`                  | a list contains the value, or a string contains the substring (case-sensitive)       |

`$and` and `$or` take a list of filters, and `$not` takes a filter. They may be nested.

- If the value in the metadata is a list, `$eq`, `$in` and the order operators match if they match any element. Two
  operators may match two different elements.
- `$ne` and `$nin` are the opposites of `$eq` and `$in`. So they match documents that do not have the field.
- A mapping and an empty list exist, and are equal to nothing.
- Numbers are compared by value: 1 equals 1.0. A boolean equals only a boolean.
- Strings and ids are compared in Unicode's composed form (NFC). The two spellings of "é" are equal.
- If a path has two meanings, because one key is "a.b" and another is "a", the longer key counts.
- A path cannot name an empty key, or a top-level key that begins with "$".

Dates and times are strings:

- An ISO 8601 date and time with an offset, such as "2024-03-01T00:30:00+09:00", is an instant. Instants are compared
  with instants, in UTC.
- A date and time without an offset is compared as a string. Its spellings are equal ("T" or a space, with or without
  ":00"). It comes after the string of its date.
- An instant cannot be compared with a date, a time, a year or a month, because these have no offset. A filter raises
  FilterError in two cases: it gives one of these and a document has an instant in the field, or it gives an instant and
  a document has a string in the field that begins with a digit. Documents that other conditions exclude do not count.
- An instant is not equal to any other string, and has no order with it.

An index that an earlier version made on a server has no titles, does not see mappings, compares strings as they were
written, and refuses instants. Index its documents again, or copy the index.

`Filter.matches` is the reference: each backend must give the same answers.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeAlias, cast

from hybridsearch.documents import Document, Scalar, plain, spellings
from hybridsearch.errors import FilterError

Operator: TypeAlias = Literal["$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$contains"]

_FIELD_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains")
_LOGICAL_OPERATORS = ("$and", "$or", "$not")
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}
_MAX_DEPTH = 50
_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
    r"(?: ?(?:([Zz])|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?))?",
    re.ASCII,
)
_WITHOUT_OFFSET = re.compile(r"\d{4}(-\d\d(-\d\d([Tt ].*)?)?)?|\d\d:\d\d(:.*)?", re.ASCII | re.DOTALL)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_FIRST_INSTANT = "0001-01-01T00:00:00+23:59:59"

_OF_KIND: dict[str, tuple[Operator, Any]] = {
    "a number": ("$gte", -sys.float_info.max),
    "a string": ("$gte", ""),
    "an instant": ("$gte", _FIRST_INSTANT),
    "a boolean": ("$in", (True, False)),
}
"""For each kind of value, a condition that holds for the values of this kind only."""


class Instant(str):
    """A point in time, as a string of seconds that sorts by time.

    An instant is not equal to any other string, and has no order with it.
    """

    __slots__ = ()


def comparable(value: Any) -> Any:
    """Convert a value to the form that filters compare: an `Instant`, a string in NFC, a list of these, or the value.

    >>> comparable("2024-03-01T00:30:00+09:00") == comparable("2024-02-29 15:30Z")
    True
    >>> comparable("2024-02-29 15:30"), comparable("e\u0301") == "\u00e9"
    ('2024-02-29T15:30:00', True)
    """
    if isinstance(value, str):
        if value[4:5] == "-" and len(value) >= 16 and (match := _DATE_TIME.fullmatch(value)):
            return _date_time(match) or value
        return composed(value)
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    return value


def composed(text: str) -> str:
    """Convert a text to Unicode's composed form (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _date_time(match: re.Match[str]) -> str | None:
    """The date and time in the form of `comparable`. None if there is no such day or time."""
    year, month, day, hour, minute, second, fraction, utc, sign, hours, minutes, seconds = match.groups()
    try:
        moment = dt.datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0))
    except ValueError:
        return None
    rest = (fraction or "").rstrip("0")
    rest = f".{rest}" if rest else ""
    if not (utc or sign):
        return moment.isoformat() + rest
    if int(hours or 0) > 23 or int(minutes or 0) > 59 or int(seconds or 0) > 59:
        return None
    offset = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    since = 86400 * moment.toordinal() + 3600 * moment.hour + 60 * moment.minute + moment.second
    return Instant(f"{since + (offset if sign == '-' else -offset):012d}{rest}")


@dataclass(frozen=True, slots=True)
class Compare:
    """Condition that compares one field with a value. `$ne` and `$nin` are parsed into `Not` of `$eq` and `$in`.

    Attributes:
        field: Field as it was given.
        operator: Operator, such as `"$eq"`.
        value: Value, or tuple of values for `"$in"`, as it was given.
        path: The field in NFC.
        key: The value in the form of `comparable`.
    """

    field: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]
    path: str = attribute(init=False, repr=False, compare=False)
    key: Any = attribute(init=False, repr=False, compare=False)
    _held: frozenset[object] = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", composed(self.field))
        read = self._read
        object.__setattr__(
            self, "key", tuple(map(read, self.value)) if isinstance(self.value, tuple) else read(self.value)
        )
        held = map(_hashable, self.keys) if self.operator == "$in" else ()
        object.__setattr__(self, "_held", frozenset(held))

    @property
    def keys(self) -> tuple[Any, ...]:
        """The compared values as a tuple. It has one element for all operators but `"$in"`."""
        return self.key if isinstance(self.key, tuple) else (self.key,)

    def test(self, value: Any) -> bool:
        """Tell whether a field with this metadata value matches. The value is None if the field is missing."""
        return self.test_key(self._read(value))

    def test_key(self, key: Any) -> bool:
        """Tell whether a field matches whose value was converted by `comparable`."""
        if self.operator == "$exists":
            return (key is not None) == self.value
        if self.operator == "$contains":
            if type(key) is str:
                return type(self.key) is str and self.key in key
            held = key if isinstance(key, list) else [key] if isinstance(key, Instant) else []
            return any(_equal(item, self.key) for item in held)
        if isinstance(key, list):
            return any(self._test_scalar(item) for item in key)
        return self._test_scalar(key)

    def _read(self, value: Any) -> Any:
        return composed(value) if self.path == "id" and isinstance(value, str) else comparable(value)

    def _test_scalar(self, key: Any) -> bool:
        if self.operator == "$eq":
            return _equal(key, self.key)
        if self.operator == "$in":
            return not isinstance(key, list | dict) and _hashable(key) in self._held
        return _ordered(key, self.key) and bool(_ORDERS[self.operator](key, self.key))


@dataclass(frozen=True, slots=True)
class And:
    """Condition that holds if all of its conditions hold."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Condition that holds if at least one of its conditions holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Condition that holds if its condition does not hold."""

    condition: Condition


Condition: TypeAlias = Compare | And | Or | Not


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was parsed and checked. It can be hashed, so that backends can cache its compiled form.

    >>> f = Filter.parse({"year": {"$gte": 2020}, "tags": {"$contains": "gpu"}})
    >>> f.matches(Document("1", "...", metadata={"year": 2021, "tags": ["gpu", "sparse"]}))
    True
    """

    condition: Condition

    @classmethod
    def parse(cls, filter: Mapping[str, Any]) -> Filter:
        """Parse a filter, and check it.

        Args:
            filter: Mapping in the language of this module.

        Returns:
            The parsed filter.

        Raises:
            FilterError: The filter does not follow the language. The message names the part that is wrong.
        """
        return cls(_parse(filter, "filter", 0))

    def matches(self, document: Document) -> bool:
        """Tell whether the filter allows a document.

        Raises:
            FilterError: The document has a value that cannot be compared with the value of the filter.
        """
        for check in self.checks():
            if not check.some and holds(check.condition, document):
                raise FilterError(check.error)
        return holds(self.condition, document)

    def checks(self) -> tuple[Check, ...]:
        """List what must be true for the documents of an index. If a check fails, the filter raises FilterError."""
        parts = self.condition.conditions if isinstance(self.condition, And) else (self.condition,)
        found: dict[tuple[str, str], Check] = {}
        for number, part in enumerate(parts):
            others = parts[:number] + parts[number + 1 :]
            for check in (check for compare in _compares(part) for check in _checks(compare)):
                # Documents that the other parts exclude need not be compared.
                condition = check.condition if check.some or not others else And((check.condition, *others))
                found.setdefault((check.field, repr(condition)), replace(check, condition=condition))
        return tuple(found.values())

    def expectations(self) -> tuple[Check, ...]:
        """List what is usually true for the documents of an index. If a check fails, the results have a note.

        - At least one document has the field.
        - At least one value of the field has the kind (number, string, boolean, instant) that the filter compares with.
        - If the filter compares with a date, no document has midnight of this day, which is another value.

        >>> for expected in Filter.parse({"year": {"$gte": 2020}}).expectations():
        ...     print(expected.error)
        The filter asks about 'year', but no document has this field.
        The filter compares 'year' with a number, but all values of this field are of another kind.
        """
        return tuple(
            dict.fromkeys(expected for compare in _compares(self.condition) for expected in _expected(compare))
        )

    def literal(self) -> Filter:
        """Make the filter for an index that an earlier version made on a server, where strings are not in NFC.

        Raises:
            FilterError: The filter compares with an instant, which the old index does not know.
        """
        return Filter(_literal(self.condition))

    def __hash__(self) -> int:  # 1, 1.0 and True are equal in Python but not here
        return hash(repr(self.condition))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and repr(self.condition) == repr(other.condition)


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that must hold for some document of an index, or for none, so that a filter makes sense.

    Attributes:
        field: Field that the check is about.
        condition: Condition to look up in the index.
        some: True if at least one document must meet the condition. False if no document may meet it.
        error: Sentence of the FilterError or of the note if the check fails.
    """

    field: str
    condition: Condition
    some: bool
    error: str


def _compares(condition: Condition) -> Iterator[Compare]:
    """All comparisons in a condition, in order."""
    match condition:
        case Compare():
            yield condition
        case Not(inner):
            yield from _compares(inner)
        case And(conditions) | Or(conditions):
            for inner in conditions:
                yield from _compares(inner)


def _literal(condition: Condition) -> Condition:
    match condition:
        case And(conditions) | Or(conditions):
            return type(condition)(tuple(map(_literal, conditions)))
        case Not(inner):
            return Not(_literal(inner))
        case Compare():
            return _literal_compare(condition)


def _literal_compare(compare: Compare) -> Condition:
    """The comparison with paths and strings as given, in NFC and in NFD. The order operators use strings as given."""
    if any(isinstance(key, Instant) for key in compare.keys):
        raise FilterError(
            f"The filter on {compare.field!r:.80} compares with an instant, but this index was made by an earlier "
            "version and holds instants as text: index its documents again, or copy the index."
        )
    paths = spellings(compare.field)
    there: list[Condition] = [_as_given(path, "$exists", True) for path in paths]
    if compare.operator == "$exists":
        return Or(tuple(there)) if compare.value else Not(Or(tuple(there)))
    given = compare.value if isinstance(compare.value, tuple) else (compare.value,)
    forms = [form for value in given for form in (spellings(value) if isinstance(value, str) else [value])]
    if compare.operator in ("$eq", "$in"):
        held = tuple(form for form in forms if form is not None)
        found: list[Condition] = [_as_given(path, "$in", held) for path in paths]
        return Or((*found, Not(Or(tuple(there))))) if None in forms else Or(tuple(found))
    if compare.operator == "$contains":
        return Or(tuple(_as_given(path, "$contains", form) for path in paths for form in forms))
    return Or(tuple(_as_given(path, compare.operator, compare.value) for path in paths))


def _as_given(path: str, operator: Operator, value: Any) -> Compare:
    compare = Compare(path, operator, value)
    held = frozenset(map(_hashable, value)) if operator == "$in" else frozenset()
    for name, given in (("path", path), ("key", value), ("_held", held)):
        object.__setattr__(compare, name, given)
    return compare


def _checks(compare: Compare) -> Iterator[Check]:
    path, shown = compare.path, f"The filter on {compare.field!r:.80}"
    if path == "id" or compare.operator == "$exists":
        return
    if path == "text":
        yield Check(
            path,
            Compare("text", "$exists", True),
            True,
            "The filter names 'text', but no document has this key in its metadata. A filter cannot select by the text "
            "of documents: search for the text, or store the values that you filter by in the metadata.",
        )
    instant = next((key for key in compare.keys if isinstance(key, Instant)), None)
    if instant is not None:
        yield Check(
            path,
            And((Compare(path, "$gte", "0"), Compare(path, "$lt", ":"))),
            False,
            f"{shown} gives an instant, but some documents have a date or time without an offset from UTC in this "
            "field (or another text that begins with a digit). These cannot be compared: give a date or time without "
            "an offset, or index instants only.",
        )
    text = next((key for key in compare.keys if type(key) is str and _WITHOUT_OFFSET.fullmatch(key)), None)
    if text is not None:
        yield Check(
            path,
            Compare(path, "$gte", _FIRST_INSTANT),
            False,
            f"{shown} gives {text!r:.80} without an offset from UTC, but some documents have instants in this field. "
            "These cannot be compared: give an instant, such as '2020-01-01T00:00:00Z'.",
        )


def _expected(compare: Compare) -> Iterator[Check]:
    field, shown = compare.field, f"{compare.field!r:.80}"
    if compare.path == "id":
        return
    there = Compare(field, "$exists", True)
    yield Check(field, there, True, f"The filter asks about {shown}, but no document has this field.")
    kinds = {} if compare.operator == "$exists" else {kind: None for key in compare.keys if (kind := _kind(key))}
    if kinds:
        held = tuple(Compare(field, *_OF_KIND[kind]) for kind in kinds)
        named = f"The filter compares {shown} with {' or '.join(kinds)}"
        yield Check(field, Or(held), True, f"{named}, but all values of this field are of another kind.")
    dates = [key for key in compare.keys if type(key) is str and _DATE.fullmatch(key)]
    if dates and compare.operator in ("$eq", "$in", "$gt", "$lte"):
        midnights = tuple(f"{date}T00:00:00" for date in dates)
        error = (
            f"The filter compares {shown} with the date {dates[0]!r}, but some documents have a date and time, such as "
            f"{midnights[0]!r}, which is not equal to the date and comes after it. Give the time in the filter, or "
            f"store dates: types={{{field!r:.80}: 'date'}}."
        )
        yield Check(field, Compare(field, "$in", midnights), False, error)


def _kind(key: Any) -> str | None:
    if key is None:
        return None
    if isinstance(key, str):
        return "an instant" if isinstance(key, Instant) else "a string"
    return "a boolean" if isinstance(key, bool) else "a number"


def fields_of(document: Document) -> dict[str, Any]:
    """The values of a document's metadata by dotted path in NFC. Fields that are None are left out.

    A mapping that is empty or has only None values has the value {}. Another mapping is given by its fields, and
    `enclosing` gives its path. The document's id and title are left out.

    >>> fields_of(Document("1", "", metadata={"year": 1958, "author": {"name": "Ada", "born": None}, "of": {}}))
    {'year': 1958, 'author.name': 'Ada', 'of': {}}
    """
    found: dict[str, tuple[tuple[int, ...], Any]] = {}

    def walk(mapping: Mapping[str, Any], prefix: str, lengths: tuple[int, ...]) -> bool:
        """Whether the mapping holds anything."""
        some = False
        for key, value in mapping.items():
            path, rank = prefix + composed(key), (*lengths, len(key))
            if isinstance(value, Mapping):
                some = True
                if not walk(value, f"{path}.", rank):
                    found.setdefault(path, ((), {}))
            elif value is not None:
                some = True
                if path not in found or found[path][0] <= rank:
                    found[path] = rank, value
        return some

    walk(document.metadata, "", ())
    found.pop("id", None)
    return {path: value for path, (_, value) in found.items()}


def enclosing(path: str) -> Iterator[str]:
    """The paths of the mappings that may contain a value at `path`.

    >>> list(enclosing("author.born.year"))
    ['author', 'author.born']
    """
    place = path.find(".")
    while place >= 0:
        if path[:place] != "id":
            yield path[:place]
        place = path.find(".", place + 1)


def field_value(document: Document, field: str) -> Any:
    """The value that a filter on `field` sees: None if the field is missing, {} for a mapping."""
    path = composed(field)
    if path == "id":
        return document.id
    fields = fields_of(document)
    if path in fields:
        return fields[path]
    if any(path in enclosing(name) for name in fields):
        return {}
    return document.title or None if path == "title" else None


def holds(condition: Condition, document: Document) -> bool:
    """Whether a condition holds for a document. `Filter.checks` are not made."""
    match condition:
        case Compare():
            return condition.test(field_value(document, condition.field))
        case And(conditions):
            return all(holds(inner, document) for inner in conditions)
        case Or(conditions):
            return any(holds(inner, document) for inner in conditions)
        case Not(inner):
            return not holds(inner, document)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return (type(a) is type(b) and a == b) or (_number(a) and _number(b) and a == b)


def _hashable(key: Any) -> object:
    """Equal for two scalars that are `_equal`, and for no others."""
    return float if _number(key) else type(key), key


def _ordered(a: Any, b: Any) -> bool:
    return (_number(a) and _number(b)) or (isinstance(a, str) and type(a) is type(b))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse(filter: Any, where: str, depth: int) -> Condition:
    if depth > _MAX_DEPTH:
        raise FilterError(f"The filter is nested deeper than {_MAX_DEPTH} levels.")
    if not isinstance(filter, Mapping):
        raise FilterError(
            f"{where} is {_show(filter)}, but a filter is a mapping such as {{'year': {{'$gte': 2020}}}}."
        )
    if not filter:
        every = '{"id": {"$exists": true}}'
        raise FilterError(
            f"{where} is empty: leave the filter out to search everything, or write {every} for every document."
        )
    conditions = [_parse_entry(key, value, where, depth) for key, value in filter.items()]
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _parse_entry(key: Any, value: Any, where: str, depth: int) -> Condition:
    if not isinstance(key, str) or not key:
        raise FilterError(f"{where} has the field {_show(key)}, but a field is a non-empty string.")
    if not key.startswith("$"):
        return _parse_field(str.__str__(key), value, where)
    inner = f"{where}[{key!r:.80}]"
    if key == "$not":
        return Not(_parse(value, inner, depth + 1))
    if key in ("$and", "$or"):
        if not isinstance(value, list | tuple) or not value:
            raise FilterError(f"{inner} is {_show(value)}, but it takes a non-empty list of filters.")
        parts = tuple(_parse(item, f"{inner}[{i}]", depth + 1) for i, item in enumerate(value))
        return And(parts) if key == "$and" else Or(parts)
    allowed = ", ".join(_LOGICAL_OPERATORS)
    hint = f", or write it under a field: {{'field': {{{key!r}: ...}}}}" if key in _FIELD_OPERATORS else ""
    raise FilterError(f"{where} has the operator {key!r:.80} in place of a field: use one of {allowed}{hint}.")


def _parse_field(field: str, value: Any, where: str) -> Condition:
    inner = f"{where}[{field!r:.80}]"
    if not isinstance(value, Mapping):
        scalar = _scalar(value, inner, "use $in for one of several, $contains for a list")
        return _checked(Compare(field, "$eq", scalar), inner)
    if not value:
        raise FilterError(f"{inner} is empty: give an operator, such as {{'$exists': True}}.")
    conditions = [_parse_operator(field, operator, operand, inner) for operator, operand in value.items()]
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _parse_operator(field: str, operator: Any, operand: Any, where: str) -> Condition:
    if operator not in _FIELD_OPERATORS:
        raise FilterError(
            f"{where} has the unknown operator {_show(operator)}: known are {', '.join(_FIELD_OPERATORS)}."
        )
    inner = f"{where}[{operator!r}]"
    if operator in ("$in", "$nin"):
        if not isinstance(operand, Sequence | set | frozenset) or isinstance(operand, str | bytes):
            raise FilterError(f"{inner} is {_show(operand)}, but it takes a list.")
        values = tuple(_scalar(item, inner, "give plain values") for item in operand)
        found = _checked(Compare(field, "$in", values), inner)
        return found if operator == "$in" else Not(found)
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise FilterError(f"{inner} is {_show(operand)}, but it takes true or false.")
        return Compare(field, "$exists", operand)
    scalar = _scalar(operand, inner, "give one plain value")
    if operator in _ORDERS and (scalar is None or isinstance(scalar, bool)):
        raise FilterError(f"{inner} is {_show(operand)}, but only numbers and strings have an order.")
    if operator == "$ne":
        return Not(_checked(Compare(field, "$eq", scalar), inner))
    return _checked(Compare(field, cast(Operator, operator), scalar), inner)


def _checked(compare: Compare, where: str) -> Compare:
    if compare.path == "id":
        for value in compare.value if isinstance(compare.value, tuple) else (compare.value,):
            if not isinstance(value, str | None) and compare.operator != "$exists":
                raise FilterError(f"{where} is {_show(value)}, but an id is a string: write {json.dumps(str(value))}.")
    return compare


def _scalar(given: Any, where: str, hint: str) -> Scalar:
    try:
        value = plain(given)
    except ValueError as error:
        if str(error).startswith("of type"):
            error = ValueError(f"{_show(given)}, but it takes a string, number, boolean or None: {hint}")
        raise FilterError(f"{where} is {error}.") from None
    if value is None and given is not None:
        raise FilterError(f"{where} is {given}, which is no value: write None to find documents without a value.")
    return value


def _show(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=True)[:80]
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__
