"""Translates filters to conditions of Qdrant on the `payload` of points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from qdrant_client import models

from hybridsearch.adapters.checks import encodable
from hybridsearch.adapters.qdrant.payload import ORDERED_BYTES, Digits, canonical, digits, point_id, token
from hybridsearch.errors import FilterError
from hybridsearch.filters import And, Compare, Condition, Filter, Instant, Not, Or


@lru_cache(maxsize=256)
def compile_filter(filter: Filter, *, literal: bool = False) -> models.Filter:
    """The conditions that are true for exactly the documents for which `filter.matches` is true.

    Args:
        filter: The filter. Its `checks` are not part of the conditions.
        literal: Whether the index is literal (see `payload`).

    Raises:
        FilterError: A range has a string with more bytes than are stored for comparison, or a literal index cannot
            answer the filter.
    """
    return _compile((filter.literal() if literal else filter).condition, literal)


def _compile(condition: Condition, literal: bool) -> models.Filter:
    match condition:
        case Compare():
            return _compile_compare(condition, literal)
        case And(conditions):
            parts = [_compile(inner, literal) for inner in conditions]
            must: list[Any] = []
            must_not: list[Any] = []
            for part in parts:  # merged if possible, because a server limits how deeply conditions are nested
                if part.should:
                    must.append(part)
                else:
                    must += part.must or []
                    must_not += part.must_not or []
            return models.Filter(must=must or None, must_not=must_not or None)
        case Or(conditions):
            return models.Filter(should=[_compile(inner, literal) for inner in conditions])
        case Not(Not(inner)):
            return _compile(inner, literal)
        case Not(inner):
            return models.Filter(must_not=[_compile(inner, literal)])


def _compile_compare(compare: Compare, literal: bool) -> models.Filter:
    field, operator, value = compare.path, compare.operator, compare.key
    if operator == "$exists":
        if field == "id":
            return models.Filter() if value else _nothing()
        there = _has(token(field))
        return models.Filter(must=[there]) if value else models.Filter(must_not=[there])
    if operator in ("$eq", "$in"):
        values = compare.keys
        if field == "id":
            ids = [item for item in values if isinstance(item, str) and item]
            if not ids:
                return _nothing()
            same: list[Any] = [models.HasIdCondition(has_id=[point_id(id) for id in ids])]
            if not literal:
                same.append(_has(*(token("id", id) for id in ids)))
            return models.Filter(should=same)
        if not values:
            return _nothing()
        equal = _has(*(token(field, canonical(item)) for item in values))
        if None not in values:
            return models.Filter(must=[equal])
        return models.Filter(should=[equal, models.Filter(must_not=[_has(token(field))])])
    if operator == "$contains":
        if isinstance(value, Instant):
            return models.Filter(must=[_has(token(field, canonical(value)))])
        if not isinstance(value, str):
            return _nothing() if field == "id" else models.Filter(must=[_has(token(field, [canonical(value)]))])
        if not value:  # the empty string is in every string
            found: Any = models.Filter() if field == "id" else _has(token(field, {}))
        else:
            text = models.FieldCondition(key="text", match=models.MatchSubstring(substring=value))
            found = _nested(field, [text]) if encodable(value) else _nothing()
        return models.Filter(should=[found, _has(token(field, [value]))])
    if isinstance(value, str) and (size := len(value.encode("utf-8", "surrogatepass"))) >= ORDERED_BYTES:
        raise FilterError(
            f"The filter compares {field!r:.80} with a string of {size} bytes, but Qdrant compares "
            f"strings of less than {ORDERED_BYTES} bytes: shorten the string."
        )
    return models.Filter(must=[_nested(field, [_compare_digits(digits(value), operator)])])


def _compare_digits(bound: Digits, operator: str) -> models.Filter:
    """The condition that compares digits with `bound`, like written numbers: the first different digit decides."""
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


def _nested(field: str, conditions: Sequence[Any]) -> Any:
    if not encodable(field):
        return _nothing()
    name = models.FieldCondition(key="field", match=models.MatchValue(value=field))
    return models.NestedCondition(nested=models.Nested(key="ordered", filter=models.Filter(must=[name, *conditions])))


def _nothing() -> models.Filter:
    return models.Filter(must=[_has("")])  # no token is empty
