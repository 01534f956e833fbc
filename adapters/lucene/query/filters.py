"""Translates filters to queries on the fields that `stored.fields` describes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, TypeAlias, cast

from hybridsearch.adapters.checks import encodable
from hybridsearch.adapters.lucene.query.flattening import flatten
from hybridsearch.adapters.lucene.stored.fields import (
    STEP,
    kind_of,
    path_name,
    point,
    string_key,
    token,
)
from hybridsearch.errors import FilterError
from hybridsearch.filters import And, Compare, Condition, Filter, Instant, Not, Or
from hybridsearch.listing import number_key

Query: TypeAlias = dict[str, Any]

MAX_CLAUSES = 600
"""The largest number of clauses of a compiled filter. OpenSearch allows 1024 in a query; the search needs the rest."""

_TOKENS, _POINTS, _ID = "fields.tokens", "fields.points", "id"
_MAX_TERMS = 65_536  # index.max_terms_count
_MAX_LEVELS = 20  # Elasticsearch allows 30; a comparison takes up to 4, and the search around the filter some more
_MAX_WILDCARD_WORK = 40_000  # both engines accept 45,000 and refuse 97,000
_ALL: Query = {"match_all": {}}
_NOTHING: Query = {"match_none": {}}


def compile_filter(filter: Filter, *, literal: bool = False) -> Query:
    """The query that finds the documents for which `filter.matches` is true. Its scores mean nothing.

    Args:
        filter: The filter. Its `checks` are not part of the query.
        literal: Whether the index is literal (see `stored.fields`).

    Raises:
        FilterError: An engine would refuse the query, or a literal index cannot answer it. An engine refuses more than
            `MAX_CLAUSES` clauses: equalities of one `$or` are one clause, a range is two or three. It also refuses a
            substring of more than 4,000 characters (a few hundred if it repeats itself), and a range with a string of
            8,000 or more characters.

    >>> compile_filter(Filter.parse({"$or": [{"language": "en"}, {"year": {"$in": [2020, 2021]}}]}))
    {'terms': {'fields.tokens': ['language="en', 'year=2020', 'year=2021']}}
    """
    filter = filter.literal() if literal else filter
    query = _compile(flatten(filter.condition, _MAX_LEVELS), literal)
    if (clauses := _count(query)) > MAX_CLAUSES:
        raise FilterError(
            f"The filter needs {clauses} clauses, but a search engine takes at most {MAX_CLAUSES}: use fewer ranges "
            "and substrings. All equalities within one $or need one clause together."
        )
    return query


def one_of(ids: Iterable[str]) -> Query:
    """The query that finds the documents with these ids."""
    return _any([_terms(_ID, *ids)])


def _compile(condition: Condition, literal: bool) -> Query:
    match condition:
        case Compare(path="id"):
            return _compare_id(condition, literal)
        case Compare():
            return _compare(condition)
        case And(conditions):
            negated = [inner.condition for inner in conditions if isinstance(inner, Not)]
            return _all(
                [_compile(inner, literal) for inner in conditions if not isinstance(inner, Not)],
                [_compile(inner, literal) for inner in negated],
            )
        case Or(conditions):
            return _any(_compile(inner, literal) for inner in conditions)
        case Not(inner):
            return _all([], [_compile(inner, literal)])


def _compare(compare: Compare) -> Query:
    name, key = path_name(compare.path), compare.key
    exists, is_list = _terms(_TOKENS, name), _terms(_TOKENS, f"{name}=[")
    if compare.operator == "$exists":
        return exists if key else _all([], [exists])
    equal = _terms(_TOKENS, *(token(name, item) for item in compare.keys))
    if compare.operator in ("$eq", "$in"):
        return _any([equal, _all([], [exists])] if None in compare.keys else [equal])
    if compare.operator == "$contains":
        if isinstance(key, Instant):
            return equal
        element = _all([is_list, equal])
        if not isinstance(key, str):
            return element
        substring = _any(_wildcard(_TOKENS, head, key) for head in (f'{name}="', f"{name}=+"))
        return _any([element, _all([substring], [is_list])])
    if isinstance(key, str):
        found = _string_range(compare.path, compare.operator, key)
    else:
        # The key is a number here, because the parser refuses None and booleans.
        found = [_point_range(name, "number", compare.operator, number_key(cast(float, key)))]
    return _all([exists, _any(found)])  # `exists` leaves out other paths with the same digest


def _compare_id(compare: Compare, literal: bool) -> Query:
    key = compare.key
    if compare.operator == "$exists":
        return _ALL if key else _NOTHING
    if compare.operator in ("$eq", "$in"):
        ids = [item for item in compare.keys if isinstance(item, str) and encodable(item)]
        return _any([_terms(_ID, *ids), *([] if literal else [_terms(_TOKENS, *(token("id", id) for id in ids))])])
    if not isinstance(key, str):
        return _NOTHING
    head = 'id="'  # the start of the tokens of ids that are not in the composed form
    if compare.operator == "$contains":
        found, other = _wildcard(_ID, "", key), _wildcard(_TOKENS, head, key)
    else:
        bound, operator = _without_surrogates(key, compare.operator)
        end = {"lt": _after(head)} if operator in ("$gt", "$gte") else {"gte": head}
        found = {"range": {_ID: {operator[1:]: bound}}}
        other = {"range": {_TOKENS: {**end, operator[1:]: head + bound}}}
    return found if literal else _any([_all([found], [_terms(_TOKENS, "id")]), other])


def _string_range(path: str, operator: str, bound: str) -> list[Query]:
    """The queries of a range of strings.

    Points find the strings whose first 9 bytes differ from those of the bound. Tokens find the other strings.
    """
    if len(bound) >= 2 * STEP:
        raise FilterError(
            f"filter[{path!r:.80}][{operator!r}] compares with a string of {len(bound)} characters, but a search "
            f"engine compares at most {2 * STEP - 1}: shorten the string."
        )
    kind = kind_of(bound)
    bound, operator = _without_surrogates(bound, operator)
    name = path_name(path)
    head = f"{name}=@" if kind == "instant" else f'{name}="'
    start = bound.encode()[:9]  # a shorter string has the same point as the string filled up with NUL
    same = start.decode(errors="ignore")
    if operator in ("$gt", "$gte"):
        limits = {"lt": _after(head + same + "\0" * (9 - len(start))), operator[1:]: head + bound}
    else:
        limits = {"gte": head + same.rstrip("\0"), operator[1:]: head + bound}
    different = _point_range(name, kind, operator[:3], string_key(bound))  # $gt or $lt
    return [different, {"range": {_TOKENS: limits}}]


def _point_range(name: str, kind: str, operator: str, key: int) -> Query:
    low, high = {
        "$gt": (key + 1, 2**74 - 1),
        "$gte": (key, 2**74 - 1),
        "$lt": (0, key - 1),
        "$lte": (0, key),
    }[operator]
    return {"range": {_POINTS: {"gte": point(name, kind, low), "lte": point(name, kind, high)}}}


def _without_surrogates(bound: str, operator: str) -> tuple[str, str]:
    """The same comparison with a bound that has no lone surrogates.

    Documents have no characters between U+D7FF and U+E000, so the result is the same.
    """
    if encodable(bound):
        return bound, operator
    valid = re.split("[\ud800-\udfff]", bound, maxsplit=1)[0]
    return valid + "\ue000", {"$gt": "$gte", "$lte": "$lt"}.get(operator, operator)


def _after(start: str) -> str:
    """The smallest string that is larger than all strings that begin with `start`."""
    last = ord(start[-1])
    if last == 0x10FFFF:
        return _after(start[:-1])
    return start[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)


def _wildcard(field: str, head: str, substring: str) -> Query:
    """The query for tokens that begin with `head` and contain `substring` after it."""
    if not encodable(substring):
        return _NOTHING
    if len(substring) > STEP or _wildcard_work(substring) > _MAX_WILDCARD_WORK:
        raise FilterError(
            f"The filter looks for a substring of {len(substring)} characters, but a search engine takes at most "
            f"{STEP}, and about {math.isqrt(2 * _MAX_WILDCARD_WORK)} if the substring repeats itself: shorten it."
        )
    head, substring = (re.sub(r"([\\*?])", r"\\\1", text) for text in (head, substring))
    return {"wildcard": {field: {"value": f"{head}*{substring}*"}}}


def _wildcard_work(substring: str) -> int:
    """The number of states that Lucene visits to make the automaton of a substring. It refuses more than 100,000.

    The number is a sum over all prefixes of the substring. Each prefix counts the prefixes that it ends with, which the
    failure function of Knuth, Morris and Pratt gives.
    """
    failure, work = [0] * (len(substring) + 1), [0] * (len(substring) + 1)
    matched = 0
    for i, character in enumerate(substring):
        while matched and character != substring[matched]:
            matched = failure[matched]
        matched += i > 0 and character == substring[matched]
        failure[i + 1] = matched
        work[i + 1] = work[matched] + 1
    return sum(work)


def _terms(field: str, *values: str) -> Query:
    return {"terms": {field: list(values)}} if values else _NOTHING


def _all(queries: Iterable[Query], but_none_of: Iterable[Query] = ()) -> Query:
    required, excluded = list(queries), _merge(but_none_of)
    if len(required) == 1 and not excluded:
        return required[0]
    clauses = {"filter": required, "must_not": excluded}
    return {"bool": {kind: queries for kind, queries in clauses.items() if queries}} if required or excluded else _ALL


def _any(queries: Iterable[Query]) -> Query:
    merged = _merge(queries)
    if len(merged) > 1:
        return {"bool": {"should": merged, "minimum_should_match": 1}}
    return merged[0] if merged else _NOTHING


def _merge(alternatives: Iterable[Query]) -> list[Query]:
    """Join all equalities on a field to one clause, or to several if an engine does not take as many values."""
    values: dict[str, dict[str, None]] = {}
    others = []
    for query in alternatives:
        if "terms" in query:
            ((field, some),) = query["terms"].items()
            values.setdefault(field, {}).update(dict.fromkeys(some))
        elif query != _NOTHING:
            others.append(query)
    merged = []
    for field, some in values.items():
        every = list(some)
        merged += [_terms(field, *every[i : i + _MAX_TERMS]) for i in range(0, len(every), _MAX_TERMS)]
    return merged + others


def _count(query: Query) -> int:
    """The number of clauses that Lucene counts.

    A query on a field with doc values counts as two, any other query as one. A `bool` query itself counts nothing.
    """
    if "bool" in query:
        clauses = query["bool"]
        return sum(_count(inner) for kind in ("filter", "must_not", "should") for inner in clauses.get(kind, ()))
    return 2 if any(field in (_POINTS, _ID) for inner in query.values() for field in inner) else 1
