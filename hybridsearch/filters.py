"""The filter language: which documents a search may return, by metadata and id.

    {"year": {"$gte": 2020}, "language": "en"}                 both must hold
    {"$or": [{"tags": {"$contains": "gpu"}}, {"$not": {"draft": True}}]}

A field is a metadata key, a dotted path into nested metadata, or `id`. Operators on a field:

    $eq $ne           equal, not equal (a plain value means $eq)
    $gt $gte $lt $lte numbers against numbers, strings against strings by code point; anything else is false
    $in $nin          equal to one, to none of a list
    $exists           true: the field is there and not None; false: it is not
    $contains         a list holds the value, or a string holds the substring (case-sensitive)

and `$and`, `$or` (lists of filters), `$not` (a filter) anywhere. A list in metadata matches $eq, $in and the
comparisons if any element does. $ne and $nin are the negations of $eq and $in, so a document without the field matches
them. Numbers compare by value (1 equals 1.0); a boolean equals only a boolean.

`Filter.parse` validates; `Filter.matches` is the reference that every backend's compiled filter must agree with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeAlias, cast

from hybridsearch.documents import Document, Scalar
from hybridsearch.errors import FilterError

Operator: TypeAlias = Literal["$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$contains"]

_FIELD_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains")
_LOGICAL_OPERATORS = ("$and", "$or", "$not")
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}
_MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Compare:
    """`field operator value`. `$ne` and `$nin` are parsed into `Not` of `$eq` and `$in`."""

    field: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]

    def test(self, value: Any) -> bool:
        """Whether a field with this metadata value matches; `value` is None where the field is missing."""
        if self.operator == "$exists":
            return (value is not None) == self.value
        if self.operator == "$contains":
            if isinstance(value, str):
                return isinstance(self.value, str) and self.value in value
            return isinstance(value, list | tuple) and any(_equal(item, self.value) for item in value)
        if isinstance(value, list | tuple):
            return any(self._test_scalar(item) for item in value)
        return self._test_scalar(value)

    def _test_scalar(self, value: Any) -> bool:
        if self.operator == "$eq":
            return _equal(value, self.value)
        if self.operator == "$in":
            return any(_equal(value, item) for item in cast(tuple[Scalar, ...], self.value))
        return _ordered(value, self.value) and bool(_ORDERS[self.operator](value, self.value))


@dataclass(frozen=True, slots=True)
class And:
    """All of the conditions hold."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the conditions holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Condition


Condition: TypeAlias = Compare | And | Or | Not


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; hashable, so that backends can cache what they compile it to.

    >>> f = Filter.parse({"year": {"$gte": 2020}, "tags": {"$contains": "gpu"}})
    >>> f.matches(Document("1", "...", metadata={"year": 2021, "tags": ["gpu", "sparse"]}))
    True
    """

    condition: Condition

    @classmethod
    def parse(cls, filter: Mapping[str, Any]) -> Filter:
        """Raises FilterError, which names the part that is wrong and what is allowed there."""
        return cls(_parse(filter, "filter", 0))

    def matches(self, document: Document) -> bool:
        """Whether the document passes, by the definition at the top of this module."""
        return _matches(self.condition, document)

    @property
    def fields(self) -> list[str]:
        """The fields that it asks about, each once, in order of first mention."""
        return list(dict.fromkeys(_fields(self.condition)))

    def __hash__(self) -> int:  # 1, 1.0 and True are equal in Python but not here
        return hash(repr(self.condition))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and repr(self.condition) == repr(other.condition)


def field_value(document: Document, field: str) -> Any:
    """The value that a filter on `field` sees: the id, a metadata value, or None where there is none."""
    if field == "id":
        return document.id
    if field in document.metadata:
        value = document.metadata[field]
        return None if isinstance(value, Mapping) else value
    return _descend(document.metadata, field)


def _descend(metadata: Mapping[str, Any], path: str) -> Any:
    """Follow a dotted path; keys may hold dots themselves, and the longest key wins."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        inner = metadata.get(".".join(parts[:cut]))
        if isinstance(inner, Mapping):
            rest = ".".join(parts[cut:])
            value = inner[rest] if rest in inner else _descend(inner, rest)
            if value is not None and not isinstance(value, Mapping):
                return value
    return None


def _matches(condition: Condition, document: Document) -> bool:
    match condition:
        case Compare():
            return condition.test(field_value(document, condition.field))
        case And(conditions):
            return all(_matches(inner, document) for inner in conditions)
        case Or(conditions):
            return any(_matches(inner, document) for inner in conditions)
        case Not(inner):
            return not _matches(inner, document)


def _fields(condition: Condition) -> Iterator[str]:
    match condition:
        case Compare():
            yield condition.field
        case And(conditions) | Or(conditions):
            for inner in conditions:
                yield from _fields(inner)
        case Not(inner):
            yield from _fields(inner)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return (type(a) is type(b) and a == b) or (_number(a) and _number(b) and a == b)


def _ordered(a: Any, b: Any) -> bool:
    return (_number(a) and _number(b)) or (isinstance(a, str) and isinstance(b, str))


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
        raise FilterError(f"{where} is empty; leave the filter out to search everything.")
    conditions = [_parse_entry(key, value, where, depth) for key, value in filter.items()]
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _parse_entry(key: Any, value: Any, where: str, depth: int) -> Condition:
    if not isinstance(key, str) or not key:
        raise FilterError(f"{where} has the field {_show(key)}; a field is a non-empty string.")
    if not key.startswith("$"):
        return _parse_field(key, value, where)
    inner = f"{where}[{key!r:.80}]"
    if key == "$not":
        return Not(_parse(value, inner, depth + 1))
    if key in ("$and", "$or"):
        if not isinstance(value, list | tuple) or not value:
            raise FilterError(f"{inner} is {_show(value)}, but it takes a non-empty list of filters.")
        parts = tuple(_parse(item, f"{inner}[{i}]", depth + 1) for i, item in enumerate(value))
        return And(parts) if key == "$and" else Or(parts)
    allowed = ", ".join(_LOGICAL_OPERATORS)
    hint = f"; write it under a field: {{'field': {{{key!r}: ...}}}}" if key in _FIELD_OPERATORS else ""
    raise FilterError(f"{where} has the operator {key!r:.80} in place of a field; allowed there: {allowed}{hint}.")


def _parse_field(field: str, value: Any, where: str) -> Condition:
    inner = f"{where}[{field!r:.80}]"
    if not isinstance(value, Mapping):
        return Compare(field, "$eq", _scalar(value, inner, "use $in for one of several, $contains for a list"))
    if not value:
        raise FilterError(f"{inner} is empty; give it an operator such as {{'$exists': True}}.")
    conditions = [_parse_operator(field, operator, operand, inner) for operator, operand in value.items()]
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _parse_operator(field: str, operator: Any, operand: Any, where: str) -> Condition:
    if operator not in _FIELD_OPERATORS:
        raise FilterError(
            f"{where} has the unknown operator {_show(operator)}; known are {', '.join(_FIELD_OPERATORS)}."
        )
    inner = f"{where}[{operator!r}]"
    if operator in ("$in", "$nin"):
        if not isinstance(operand, Sequence | set | frozenset) or isinstance(operand, str | bytes):
            raise FilterError(f"{inner} is {_show(operand)}, but it takes a list.")
        found = Compare(field, "$in", tuple(_scalar(item, inner, "give plain values") for item in operand))
        return found if operator == "$in" else Not(found)
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise FilterError(f"{inner} is {_show(operand)}, but it takes true or false.")
        return Compare(field, "$exists", operand)
    scalar = _scalar(operand, inner, "give one plain value")
    if operator in _ORDERS and (scalar is None or isinstance(scalar, bool)):
        raise FilterError(f"{inner} is {_show(operand)}, but only numbers and strings have an order.")
    if operator == "$ne":
        return Not(Compare(field, "$eq", scalar))
    return Compare(field, cast(Operator, operator), scalar)


def _scalar(value: Any, where: str, hint: str) -> Scalar:
    if hasattr(value, "item") and not isinstance(value, str | int | float) and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a numpy scalar
    if hasattr(value, "isoformat"):
        value = value.isoformat()  # dates are stored as ISO 8601 strings
    if isinstance(value, float) and not math.isfinite(value):
        raise FilterError(f"{where} is {value}, which compares with nothing.")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise FilterError(f"{where} is an integer beyond 64 bits, which no document holds.")
    if isinstance(value, str):
        return str(value)  # of a subclass, such as numpy's, which would equal no plain string
    if value is None or isinstance(value, bool | int | float):
        return value
    raise FilterError(f"{where} is {_show(value)}, but it takes a string, number, boolean or None; {hint}.")


def _show(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=True)[:80]
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__
