"""Filters of Haystack in the language of `hybridsearch.filters`.

They mean what `haystack.utils.filters` says, with the differences that `HybridSearchDocumentStore` lists.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from haystack.errors import FilterError

from hybridsearch import errors
from hybridsearch.arguments import shown

ALL: Final[dict[str, Any]] = {"id": {"$exists": True}}
"""A filter that allows every document."""

_NONE: Final[dict[str, Any]] = {"id": {"$exists": False}}
_ORDERS: Final = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_LOGIC: Final = ("AND", "OR", "NOT")
_COMPARISONS: Final = ("==", "!=", *_ORDERS, "in", "not in")
_OTHER_FIELDS: Final = ("content", "blob", "meta", "score", "embedding", "sparse_embedding")
_MAX_DEPTH: Final = 50
_FIRST_DIGIT, _AFTER_DIGITS = "0", ":"


def filter_of(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Translate a filter of Haystack. None and an empty filter allow every document, and give None.

    Raises:
        FilterError: Haystack's error: the filter does not follow Haystack's rules, or cannot be translated.

    >>> filter_of({"field": "meta.year", "operator": ">=", "value": 2020})
    {'year': {'$gte': 2020}}
    >>> filter_of({"field": "meta.date", "operator": "==", "value": "2020-03-01"})
    {'date': {'$in': ['2020-03-01', '2020-03-01T00:00:00']}}
    """
    if filters is None or (isinstance(filters, Mapping) and not filters):
        return None
    return _condition(filters, 0)


@contextmanager
def filtering() -> Iterator[None]:
    """Raise Haystack's FilterError in place of ours."""
    try:
        yield
    except errors.FilterError as error:
        raise FilterError(str(error)) from error


def _condition(filters: Any, depth: int) -> dict[str, Any]:
    if not isinstance(filters, Mapping):
        raise FilterError(f"A filter is a dict with a field or with conditions, not {shown(filters)}.")
    if depth > _MAX_DEPTH:
        raise FilterError(f"The filter is nested deeper than {_MAX_DEPTH} levels.")
    for key in ("operator", "value") if "field" in filters else ("operator", "conditions"):
        if key not in filters:
            raise FilterError(f"A filter with the keys {', '.join(map(repr, filters))} lacks the key {key!r}.")
    return _comparison(filters) if "field" in filters else _logic(filters, depth)


def _logic(filters: Mapping[str, Any], depth: int) -> dict[str, Any]:
    operator, conditions = filters["operator"], filters["conditions"]
    if operator not in _LOGIC:
        raise FilterError(f"The logical operator is one of {', '.join(_LOGIC)}, not {shown(operator)}.")
    if not isinstance(conditions, Sequence) or isinstance(conditions, str):
        raise FilterError(f"conditions is a list of filters, not {shown(conditions)}.")
    if not conditions:  # as in Python: all of nothing is true, any of nothing is false
        return ALL if operator == "AND" else _NONE
    parts = [_condition(one, depth + 1) for one in conditions]
    if operator == "OR":
        return {"$or": parts}
    return {"$and": parts} if operator == "AND" else {"$not": {"$and": parts}}


def _comparison(filters: Mapping[str, Any]) -> dict[str, Any]:
    path, operator, value = _path(filters["field"]), filters["operator"], filters["value"]
    if operator not in _COMPARISONS:
        raise FilterError(f"The comparison operator is one of {', '.join(_COMPARISONS)}, not {shown(operator)}.")
    if operator in _ORDERS:
        return _order(path, operator, value)
    values = value if operator in ("in", "not in") else [value]
    if not isinstance(values, list):
        raise FilterError(f"The operator {operator!r} takes a list, not {shown(value)}.")
    if any(isinstance(one, list | tuple | set | Mapping) for one in values):
        raise FilterError(
            f"The filter on {path!r:.80} compares with a list or a dict: compare with its elements, by 'in'."
        )
    equal = [form for one in values for form in _equal_forms(one)]
    return {path: {"$in" if operator in ("==", "in") else "$nin": equal}}


def _order(path: str, operator: str, value: Any) -> dict[str, Any]:
    """Dates are compared as instants. Haystack has no order between other strings, and none with None."""
    if value is None:
        return _NONE
    if isinstance(value, list | tuple | set | Mapping):
        raise FilterError(f"The operator {operator!r} takes a number or a date, not {shown(value)}.")
    if not isinstance(value, str | dt.date):
        return {path: {_ORDERS[operator]: value}}
    moment = _moment(value)
    if moment is None:
        raise FilterError(
            f"The operator {operator!r} compares numbers, and dates such as '2020-03-01T10:00:00', not {shown(value)}."
        )
    if moment.tzinfo is not None:
        return {path: {_ORDERS[operator]: moment.isoformat()}}
    # A date is midnight, and as a string it comes just before midnight. Texts that begin with a letter are no dates.
    forms = _forms_of(moment)
    bound = forms[-1] if operator in (">", "<=") else forms[0]
    other = {"$lt": _AFTER_DIGITS} if operator in (">", ">=") else {"$gte": _FIRST_DIGIT}
    # In $or, because the second comparison must not hide instants from the check that refuses them.
    return {"$or": [{path: {_ORDERS[operator]: bound, **other}}]}


def _equal_forms(value: Any) -> list[Any]:
    """The values that equal a value: for a date these are all its spellings that `comparable` does not make equal."""
    moment = _moment(value) if isinstance(value, dt.date) or (isinstance(value, str) and _is_date(value)) else None
    return [value] if moment is None else _forms_of(moment)


def _forms_of(moment: dt.datetime) -> list[str]:
    text = moment.isoformat()
    is_date = moment.tzinfo is None and moment.time() == dt.time()
    return [text[:10], text] if is_date else [text]


def _is_date(text: str) -> bool:
    return text[4:5] == "-" and text[7:8] == "-"


def _moment(value: str | dt.date) -> dt.datetime | None:
    """The point in time that a text or a date means. None if it means none."""
    if isinstance(value, dt.datetime):
        return value
    try:
        return dt.datetime.fromisoformat(value if isinstance(value, str) else value.isoformat())
    except ValueError:
        return None


def _path(field: Any) -> str:
    if not isinstance(field, str) or not field:
        raise FilterError(f"The field of a filter is a text such as 'meta.year', not {shown(field)}.")
    if field in _OTHER_FIELDS:
        raise FilterError(f"A filter selects by id and metadata, such as 'meta.year', not by {field!r}.")
    path = field.removeprefix("meta.")
    if not path or (path == "id" and path != field):
        raise FilterError(f"A filter cannot select by {field!r}: give the metadata field another name.")
    return path
