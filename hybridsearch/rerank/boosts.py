"""Boosts raise the scores of documents because of their metadata: recent documents, or documents of a kind."""

from __future__ import annotations

import copy
import datetime as dt
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, Protocol, runtime_checkable

from hybridsearch.arguments import GIVEN_FIRST, number, shown
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.filters import Filter, field_value

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365.25 * 86400}


@runtime_checkable
class Boost(Protocol):
    """An object that gives each document a factor for its score.

    A score of at least 0 is multiplied by the factor. A score below 0 is divided by it, so that a factor above 1 always
    raises the score. `repr` names the boost in explanations. A class that has no `__repr__` is named by its name.
    """

    def factor(self, document: Document) -> float:
        """The factor of one document. It is above 0, and 1 leaves the score as it is."""
        ...


@dataclass(frozen=True)
class Recency:
    """A boost for recent documents, which fades with a half-life.

    The factor is 1 + weight * 0.5 ** (age / half_life). A document of this moment gets the factor 1 + weight. A
    document that is as old as the half-life gets half of that weight. A date in the future counts as this moment. A
    document without a date gets the factor 1.

    Args:
        field: Name of the metadata field that holds a date, or a date and time, as ISO 8601 text. A date is the
            midnight at its beginning. A time without a zone is taken as UTC. The latest of a list counts.
        half_life: Age at which half of the weight is left: a text such as `"30d"`, with one of the units s, m, h, d, w
            and y, or a `datetime.timedelta`.
        weight: Weight of a document of this moment, above 0. With 0.25, this document beats documents whose scores are
            up to 25 % higher. Scores of RRF differ little: 0.25 can lift a document by 15 ranks.
        now: Moment from which the age counts. None for the present moment of each search.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> boost = Recency("published", half_life="30d", weight=1, now=dt.datetime(2024, 3, 31, tzinfo=dt.UTC))
    >>> boost.factor(Document("a", "", metadata={"published": "2024-03-01"}))
    1.5
    """

    field: str
    half_life: str | dt.timedelta = "30d"
    weight: float = 0.25
    now: dt.datetime | None = None
    _seconds: float = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_field("field", self.field)
        number("weight", self.weight, above=0)
        object.__setattr__(self, "_seconds", _half_life(self.half_life))
        if not isinstance(self.now, dt.datetime | None):
            raise InvalidArgumentError(f"now is a datetime, such as datetime.now(), not {shown(self.now)}.")

    def factor(self, document: Document) -> float:
        """The factor of one document, from 1 to 1 + weight."""
        value = field_value(document, self.field)
        dates = list(_moments(value if isinstance(value, list) else [value]))
        if not dates:
            return 1.0
        now = _now() if self.now is None else self.now
        now = now.replace(tzinfo=dt.UTC) if now.tzinfo is None else now
        age = max((now - max(dates)).total_seconds(), 0.0)
        return 1.0 + self.weight * math.pow(0.5, age / self._seconds)

    def __repr__(self) -> str:
        return f"Recency({self.field!r}, half_life={self.half_life!r}, weight={self.weight:g})"


@dataclass(frozen=True)
class FieldBoost:
    """A boost for documents that match a filter, or that have a large number in a field.

    With a filter, the factor is 1 + weight for a document that matches, and 1 for others. With the name of a field, the
    factor is 1 + weight * ln(1 + x). Here x is the number in the field. The logarithm limits the effect of very large
    numbers. The largest number of a list counts. A value that is missing, negative or not a number counts as 0.

    Args:
        where: Filter in the language of `hybridsearch.filters`, or the name of a metadata field that holds numbers.
        weight: Weight of the boost, above 0.

    Raises:
        FilterError: The filter is not usable.
        InvalidArgumentError: An argument is not allowed.

    >>> FieldBoost({"lang": "en"}, weight=0.5).factor(Document("a", "", metadata={"lang": "en"}))
    1.5
    >>> round(FieldBoost("likes", weight=0.1).factor(Document("a", "", metadata={"likes": 99})), 3)
    1.461
    """

    where: str | Mapping[str, Any]
    weight: float = 0.25
    _filter: Filter | None = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        number("weight", self.weight, above=0)
        given = self.where
        if not isinstance(given, Mapping):
            _check_field("where", given)
        object.__setattr__(self, "_filter", Filter.parse(given) if isinstance(given, Mapping) else None)

    def factor(self, document: Document) -> float:
        """The factor of one document, at least 1."""
        if self._filter is not None:
            return 1.0 + self.weight if self._filter.matches(document) else 1.0
        value = field_value(document, str(self.where))
        numbers = [
            one
            for one in (value if isinstance(value, list) else [value])
            if isinstance(one, int | float) and not isinstance(one, bool)
        ]
        return 1.0 + self.weight * math.log1p(max([0.0, *numbers]))

    def __repr__(self) -> str:
        return f"FieldBoost({self.where!r}, weight={self.weight:g})"


def boosted(score: float, factor: float) -> float:
    """The score after a boost.

    >>> boosted(2.0, 4.0), boosted(-2.0, 4.0)
    (8.0, -0.5)
    """
    return score * factor if score >= 0 else score / factor


def at_one_moment(boosts: Iterable[Boost]) -> tuple[Boost, ...]:
    """The boosts of one search. Each `Recency` that counts from the present moment counts from the same one."""
    now = _now()

    def bound(boost: Boost) -> Boost:
        if not isinstance(boost, Recency) or boost.now is not None:
            return boost
        copied = copy.copy(boost)
        object.__setattr__(copied, "now", now)
        return copied

    return tuple(map(bound, boosts))


def check_boosts(boost: object) -> tuple[Boost, ...]:
    """The boosts of an argument: None, one boost, or several."""
    boosts = () if boost is None else tuple(boost) if isinstance(boost, list | tuple) else (boost,)
    for one in boosts:
        if isinstance(one, type) or not isinstance(one, Boost):
            raise InvalidArgumentError(f"A boost is an object such as hs.Recency('published'), not {shown(one)}.")
    return boosts


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _check_field(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{name} is the name of a metadata field, not {shown(value)}.")


def _moments(values: Iterable[Any]) -> Iterator[dt.datetime]:
    """The moments of the dates among some values."""
    for value in values:
        if isinstance(value, str):
            try:
                moment = dt.datetime.fromisoformat(value)
            except ValueError:
                continue
            yield moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


def _half_life(value: object) -> float:
    """The half-life in seconds."""
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else 0.0
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdwy])\s*", value, re.ASCII)):
        seconds = float(match[1]) * _UNITS[match[2]]
    if not seconds > 0:
        raise InvalidArgumentError(
            GIVEN_FIRST.format(name="half_life", value=shown(value), allowed="a time such as '12h', '30d' or '1y'")
        )
    return seconds
