"""Documents as Qdrant payload, and filters as conditions on it.

Qdrant compares payload by rules of its own (a float equals nothing, strings have no order, 64-bit integers are compared
as float64), so filters never look at the metadata itself. Each point carries, beside its document, two derived arrays
that say the same in values whose comparison is beyond doubt:

    {"id": "d1",
     "document": {"text": "...", "title": "...", "metadata": "{...}"},   metadata as JSON, so that 1, 1.0, true stay
     "tokens": ["[\\"year\\"]", "[\\"year\\",2020]", ...],                facts, compared as whole strings
     "ordered": [{"field": "year", "n0": 2020.0}, ...]}                  values, compared digit by digit

A token is JSON: `[field]` where the field is there, `[field, value]` for each value it equals, `[field, [value]]` for
each element of a list, and `[field, {}]` where it is one string. Numbers of equal value give equal tokens.

An ordered value is a sequence of digits that float64 holds exactly, compared like the digits of a numeral: a number is
`n0` and, from 2**53 on, the rest `n1` that float64 cannot hold; a string is one digit `s0`, `s1`, ... for every six
bytes of its UTF-8, whose order is the order of code points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID, uuid5

from qdrant_client import models

from hybridsearch.corpus.parts import dump_metadata, load_metadata
from hybridsearch.documents import MAX_ID_BYTES, Document
from hybridsearch.errors import FilterError
from hybridsearch.filters import And, Compare, Condition, Filter, Not, Or, field_value

INDEXES: Mapping[str, models.PayloadSchemaType] = {
    "tokens": models.PayloadSchemaType.KEYWORD,
    "ordered[].field": models.PayloadSchemaType.KEYWORD,
    "ordered[].n0": models.PayloadSchemaType.FLOAT,
    "ordered[].s0": models.PayloadSchemaType.FLOAT,
}
"""The payload indexes that make filters fast on a server."""

SHOWN = ["id", "document"]
"""The part of the payload that makes a document again."""

_NAMESPACE = UUID("5f1c9b1e-3f0a-5b0e-9d55-0c6a4f0d9b7e")
_EXACT = 2**53
_DIGIT_BYTES = 6
_ORDERED_BYTES = MAX_ID_BYTES + _DIGIT_BYTES - MAX_ID_BYTES % _DIGIT_BYTES
_LONGEST_TOKEN = 200

_Digits: TypeAlias = list[tuple[str, float]]
"""Payload key and value, the most significant first."""


def point_id(id: str) -> str:
    """The UUID under which Qdrant stores a document.

    >>> point_id("d1") == point_id("d1") != point_id("d2")
    True
    """
    return str(uuid5(_NAMESPACE, id))


def to_payload(document: Document) -> dict[str, Any]:
    """`document`, and what filters need to know of it."""
    tokens: dict[str, None] = {}
    ordered: list[dict[str, Any]] = [_ordered("id", document.id)]
    for field, value in _fields(document).items():
        tokens[_token(field)] = None
        if isinstance(value, str):
            tokens[_token(field, {})] = None
        several = isinstance(value, list)
        for item in value if several else [value]:
            if isinstance(item, list | Mapping):
                continue  # nothing equals it, and it has no order
            tokens[_token(field, _canonical(item))] = None
            if several:
                tokens[_token(field, [_canonical(item)])] = None
            if isinstance(item, str | int | float) and not isinstance(item, bool):
                entry = _ordered(field, item)
                if several:
                    entry.pop("text", None)
                ordered.append(entry)
    text = {"text": document.text, "title": document.title, "metadata": dump_metadata(document)}
    return {"id": document.id, "document": text, "tokens": list(tokens), "ordered": ordered}


def from_payload(payload: Mapping[str, Any]) -> Document:
    """The document of a point; the inverse of `to_payload`."""
    document = payload["document"]
    return Document(payload["id"], document["text"], document["title"], load_metadata(document["metadata"]))


@lru_cache(maxsize=256)
def compile_filter(filter: Filter) -> models.Filter:
    """The conditions that hold for exactly the documents that `filter.matches`.

    Raises:
        FilterError: a string is compared with one of more bytes than are stored for comparison.
    """
    return _compile(filter.condition)


def _compile(condition: Condition) -> models.Filter:
    match condition:
        case Compare():
            return _compile_compare(condition)
        case And(conditions):
            parts = [_compile(inner) for inner in conditions]
            must: list[Any] = []
            must_not: list[Any] = []
            for part in parts:  # merged where possible, as a server limits how deeply conditions may be nested
                if part.should:
                    must.append(part)
                else:
                    must += part.must or []
                    must_not += part.must_not or []
            return models.Filter(must=must or None, must_not=must_not or None)
        case Or(conditions):
            return models.Filter(should=[_compile(inner) for inner in conditions])
        case Not(Not(inner)):
            return _compile(inner)
        case Not(inner):
            return models.Filter(must_not=[_compile(inner)])


def _compile_compare(compare: Compare) -> models.Filter:
    field, operator, value = compare.field, compare.operator, compare.value
    if operator == "$exists":
        if field == "id":
            return models.Filter() if value else _nothing()
        there = _has(_token(field))
        return models.Filter(must=[there]) if value else models.Filter(must_not=[there])
    if operator in ("$eq", "$in"):
        values = value if isinstance(value, tuple) else (value,)
        if field == "id":
            ids: list[Any] = [point_id(item) for item in values if isinstance(item, str) and item]
            return models.Filter(must=[models.HasIdCondition(has_id=ids)]) if ids else _nothing()
        if not values:
            return _nothing()
        equal = _has(*(_token(field, _canonical(item)) for item in values))
        if None not in values:
            return models.Filter(must=[equal])
        return models.Filter(should=[equal, models.Filter(must_not=[_has(_token(field))])])
    if operator == "$contains":
        if not isinstance(value, str):
            return _nothing() if field == "id" else models.Filter(must=[_has(_token(field, [_canonical(value)]))])
        if not value:  # is in every string
            found: Any = models.Filter() if field == "id" else _has(_token(field, {}))
        else:
            text = models.FieldCondition(key="text", match=models.MatchSubstring(substring=value))
            found = _nested(field, [text])
        return models.Filter(should=[found, _has(_token(field, [value]))])
    if isinstance(value, str) and len(value.encode()) >= _ORDERED_BYTES:
        raise FilterError(
            f"The filter compares {field!r:.80} with a string of {len(value.encode())} bytes, but Qdrant compares with "
            f"strings of less than {_ORDERED_BYTES}: shorten it."
        )
    return models.Filter(must=[_nested(field, [_compare_digits(_digits(value), operator)])])


def _compare_digits(bound: _Digits, operator: str) -> models.Filter:
    """Digits compare like numerals: the first one that differs decides."""
    strict = operator.removesuffix("e")
    alternatives: list[Any] = []
    equal: list[Any] = []
    for key, digit in bound:
        beyond = models.Range(gt=digit) if strict == "$gt" else models.Range(lt=digit)
        alternatives.append(models.Filter(must=[*equal, models.FieldCondition(key=key, range=beyond)]))
        equal.append(models.FieldCondition(key=key, range=models.Range(gte=digit, lte=digit)))
    if operator != strict:
        alternatives.append(models.Filter(must=equal))
    return models.Filter(should=alternatives)


def _has(*tokens: str) -> models.FieldCondition:
    return models.FieldCondition(key="tokens", match=models.MatchAny(any=list(tokens)))


def _nested(field: str, conditions: Sequence[Any]) -> models.NestedCondition:
    name = models.FieldCondition(key="field", match=models.MatchValue(value=field))
    return models.NestedCondition(nested=models.Nested(key="ordered", filter=models.Filter(must=[name, *conditions])))


def _nothing() -> models.Filter:
    return models.Filter(must=[_has("")])  # no token is empty


def _fields(document: Document) -> dict[str, Any]:
    """Each field that a filter finds in the metadata, by the filter language's own look-up."""
    paths = dict.fromkeys(_paths(document.metadata))
    values = {path: field_value(document, path) for path in paths if path != "id"}
    return {path: value for path, value in values.items() if value is not None}


def _paths(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key, value in metadata.items():
        yield key
        if isinstance(value, Mapping):
            for path in _paths(value):
                yield f"{key}.{path}"


def _token(*parts: Any) -> str:
    token = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    if len(token) <= _LONGEST_TOKEN:
        return token
    return "#" + hashlib.sha256(token.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """Equal for values that a filter calls equal: numbers by value, booleans apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ordered(field: str, value: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"field": field, **dict(_digits(value))}
    return entry | {"text": value} if isinstance(value, str) else entry


def _digits(value: Any) -> _Digits:
    if isinstance(value, str):
        raw = value.encode()[:_ORDERED_BYTES]
        chunks = range(0, min(len(raw) + 1, _ORDERED_BYTES), _DIGIT_BYTES)
        return [(f"s{n}", _digit(raw[start : start + _DIGIT_BYTES])) for n, start in enumerate(chunks)]
    first = float(value)
    if abs(first) < _EXACT:
        return [("n0", first)]
    return [("n0", first), ("n1", float(int(value) - int(first)))]


def _digit(raw: bytes) -> float:
    """Six bytes as one number below 257**6 < 2**49; the end of the string comes before every byte."""
    number = 0
    for place in range(_DIGIT_BYTES):
        number = 257 * number + (raw[place] + 1 if place < len(raw) else 0)
    return float(number)
