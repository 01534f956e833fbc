"""Makes deep filters flat, because engines refuse queries that are nested deeply."""

from __future__ import annotations

from hybridsearch.errors import FilterError
from hybridsearch.filters import And, Compare, Condition, Not, Or

_TRUE, _FALSE = And(()), Or(())


def flatten(condition: Condition, levels: int) -> Condition:
    """An equal condition with at most `levels` levels of `And` and `Or`, and with `Not` only around comparisons.

    First, levels of the same kind are joined. If that is not enough, the condition F is cut at a part G of about half
    its size: F = (G and F with G true) or (F with G false). This holds because F never turns false when G turns true.
    (P. M. Spira, "On time-hardware complexity tradeoffs for Boolean functions", 1971.)

    Raises:
        FilterError: The condition is too large for `levels` levels.

    >>> a, b = Compare("a", "$eq", 1), Compare("b", "$eq", 2)
    >>> flatten(Not(And((a, Not(Or((b,)))))), 1) == Or((Not(a), b))
    True
    """
    return _cut(_push(condition, negated=False), levels)


def _push(condition: Condition, *, negated: bool) -> Condition:
    """The condition with its negations moved to the comparisons, and with levels of the same kind joined."""
    match condition:
        case Compare():
            return Not(condition) if negated else condition
        case Not(inner):
            return _push(inner, negated=not negated)
        case And(conditions) | Or(conditions):
            parts = [_push(inner, negated=negated) for inner in conditions]
            return _join(And if isinstance(condition, And) is not negated else Or, parts)


def _join(kind: type[And] | type[Or], parts: list[Condition]) -> Condition:
    neutral, absorbing = (_TRUE, _FALSE) if kind is And else (_FALSE, _TRUE)
    joined: list[Condition] = []
    for part in parts:
        if part == absorbing:
            return absorbing
        joined += part.conditions if isinstance(part, kind) else [part]
    return joined[0] if len(joined) == 1 else kind(tuple(joined)) if joined else neutral


def _cut(condition: Condition, levels: int) -> Condition:
    if _depth(condition) <= levels:
        return condition
    if levels < 3:
        raise FilterError("The filter is nested too deeply for a search engine: use fewer levels of $and and $or.")
    part = condition
    size = _size(condition)
    while isinstance(part, And | Or) and 3 * _size(part) > 2 * size:
        part = max(part.conditions, key=_size)
    with_true, with_false = (_replace(condition, part, value) for value in (_TRUE, _FALSE))
    return _join(Or, [_join(And, [_cut(part, levels - 2), _cut(with_true, levels - 2)]), _cut(with_false, levels - 2)])


def _replace(condition: Condition, part: Condition, value: Condition) -> Condition:
    if condition is part:
        return value
    if isinstance(condition, And | Or):
        return _join(type(condition), [_replace(inner, part, value) for inner in condition.conditions])
    return condition


def _depth(condition: Condition) -> int:
    return 1 + max(map(_depth, condition.conditions), default=0) if isinstance(condition, And | Or) else 0


def _size(condition: Condition) -> int:
    return sum(map(_size, condition.conditions)) if isinstance(condition, And | Or) else 1
