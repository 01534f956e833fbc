"""Saving results in files: frozen dataclasses as JSON and back, by their type hints."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from hybridsearch.errors import InvalidArgumentError

T = TypeVar("T")


def to_plain(value: Any, leave_out: Collection[str] = ()) -> Any:
    """`value` as dicts, lists, strings and numbers, without the fields that `leave_out` names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in leave_out]
        return {name: to_plain(getattr(value, name), leave_out) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, leave_out) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, leave_out) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def from_plain(cls: type[T], data: Any) -> T:
    """An object of the dataclass `cls`, from data that `to_plain` made.

    Unknown keys are ignored, and missing keys take their defaults. So a file of another version can often be read.
    Fields can be dataclasses, mappings, tuples, strings, numbers and None.

    Raises:
        InvalidArgumentError: `data` has another form.
    """
    try:
        made: T = _make(cls, data)
        return made
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidArgumentError(f"This is not the JSON of a {cls.__name__} ({error}).") from error


def safe_name(name: str) -> str:
    """`name`, changed so that it can be part of a file name."""
    return re.sub(r"[^\w.+=-]+", "-", name).strip("-.") or "unnamed"


def _make(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if data is None else _make(next(one for one in arguments if one is not type(None)), data)
    if origin is tuple:
        kinds = (arguments[0] for _ in data) if arguments[-1] is Ellipsis else arguments
        return tuple(_make(one, item) for one, item in zip(kinds, _expect(list, data), strict=True))
    if origin is Literal:
        if data not in arguments:
            raise ValueError(f"{data!r:.80} is not one of {', '.join(map(repr, arguments))}")
        return data
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _make(arguments[1], item) for key, item in _expect(dict, data).items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        fields, given = _hints(kind), _expect(dict, data)
        for one in dataclasses.fields(kind):
            if one.name not in given and one.default is one.default_factory is dataclasses.MISSING:
                raise ValueError(f"{kind.__name__} has no {one.name}")
        return kind(**{name: _make(fields[name], item) for name, item in given.items() if name in fields})
    return float(data) if kind is float else _expect(kind, data)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _expect(kind: Any, data: Any) -> Any:
    if not isinstance(data, kind):
        raise TypeError(f"{data!r:.80} is not of type {kind.__name__}")
    return data
