"""Checks of arguments: numbers, words, names, paths and ids.

Each check returns the argument as a plain value (an `int`, a `float`, a list), so that JSON can hold it. Numbers of
numpy are numbers. Booleans are not, because `top_k=True` is a mistake.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from numbers import Integral, Real
from pathlib import Path
from typing import TypeVar

from hybridsearch.errors import InvalidArgumentError

T = TypeVar("T")

_LONGEST_NAME = 255  # bytes, on all usual file systems

GIVEN_FIRST = "{name} is {value}, but it must be {allowed}."
ALLOWED_FIRST = "{name} is {allowed}, not {value}."
"""Sentences of errors. A caller may give another sentence with the same three fields."""


def whole_number(name: str, value: object, least: int = 1, *, sentence: str = GIVEN_FIRST) -> int:
    """Return `value` if it is a whole number of at least `least`. Otherwise raise InvalidArgumentError.

    >>> whole_number("top_k", 0)
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: top_k is 0, but it must be a whole number of at least 1.
    """
    if type(value) is int and value >= least:  # the usual case, and the tests below are slow
        return value
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise _refusal(sentence, name, value, f"a whole number of at least {least}")
    return int(value)


def whole_number_or_none(name: str, value: object, least: int = 1) -> int | None:
    """Return None for None, and check any other value as `whole_number` does."""
    return None if value is None else whole_number(name, value, least)


def number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    unit: str = "",
    sentence: str = GIVEN_FIRST,
) -> float:
    """Return `value` if it is a number within the bounds. An `int` stays an `int`.

    Args:
        name: Name of the argument.
        value: Value that was given.
        least: Smallest allowed number.
        above: Lower bound that is not allowed itself.
        most: Largest allowed number. Only `math.inf` allows infinity.
        below: Upper bound that is not allowed itself.
        unit: Unit of the number, such as `"seconds"`.
        sentence: Sentence of the error.

    Raises:
        InvalidArgumentError: The value is not a number within the bounds.

    >>> number("dropout", 1, least=0, below=1)
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: dropout is 1, but it must be a number from 0 to below 1.
    """
    if not isinstance(value, bool) and isinstance(value, Real):
        plain = int(value) if isinstance(value, Integral) else float(value)
        high_enough = (least is None or plain >= least) and (above is None or plain > above)
        low_enough = (most is None or plain <= most) and (below is None or plain < below)
        if high_enough and low_enough and (_finite(plain) or plain == most):
            return plain
    lower = f"of at least {least:g}" if least is not None else f"above {above:g}" if above is not None else ""
    upper = f"below {below:g}" if below is not None else f"at most {most:g}" if most not in (None, math.inf) else ""
    bounds = " and ".join(filter(None, (lower, upper)))
    if least is not None and upper:
        bounds = f"from {least:g} to {upper.removeprefix('at most ')}"
    raise _refusal(sentence, name, value, " ".join(filter(None, ("a number", unit and f"of {unit}", bounds))))


def seconds(name: str, value: object) -> float:
    """Return a time in seconds, from a number of at least 0 or from a text with a unit.

    Raises:
        InvalidArgumentError: The value is not a time.

    >>> seconds("refresh", 2), seconds("refresh", "1.5s"), seconds("refresh", "500ms"), seconds("refresh", "5m")
    (2, 1.5, 0.5, 300.0)
    """
    if not isinstance(value, str):
        return number(name, value, least=0, unit="seconds")
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*", value, re.ASCII)
    if found is None:
        raise _refusal(GIVEN_FIRST, name, value, "a number of seconds, or a text such as '1s', '500ms' or '5m'")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def true_or_false(name: str, value: object) -> bool:
    """Return `value` if it is a boolean. Otherwise raise InvalidArgumentError."""
    if not isinstance(value, bool):
        raise _refusal(ALLOWED_FIRST, name, value, "true or false")
    return value


def one_of(name: str, value: T, allowed: Iterable[object]) -> T:
    """Return `value` if it is one of `allowed`. Otherwise raise InvalidArgumentError.

    >>> one_of("metric", "l2", ("cosine", "dot"))
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: metric is one of cosine, dot, not 'l2'.
    """
    if value not in (allowed := tuple(allowed)):
        raise _refusal(ALLOWED_FIRST, name, value, f"one of {', '.join(map(str, allowed))}")
    return value


def of_type(name: str, value: T, kinds: type | tuple[type, ...], allowed: str) -> T:
    """Return `value` if it has one of the types. Otherwise raise InvalidArgumentError.

    >>> of_type("names", "bm25", list, "a list such as ['bm25']")
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: names is a list such as ['bm25'], not 'bm25'.
    """
    if not isinstance(value, kinds):
        raise _refusal(ALLOWED_FIRST, name, value, allowed)
    return value


def path(name: str, value: str | Path) -> Path:
    """Return `value` as a path, with the home folder in place of "~".

    Raises:
        InvalidArgumentError: The value is not a path.

    >>> path("via", "encoded").name
    'encoded'
    """
    if not isinstance(value, str | Path):
        raise _refusal(GIVEN_FIRST, name, value, "a path, a string or a pathlib.Path")
    if "\0" in str(value):
        raise InvalidArgumentError(f"{name} is {str(value)!r:.80}, but a path cannot hold a zero byte.")
    try:
        longest = max(map(len, map(os.fsencode, Path(value).parts)), default=0)
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{name} is {str(value)!r:.80}, but a path cannot hold a lone surrogate.") from None
    if longest > _LONGEST_NAME:
        raise InvalidArgumentError(
            f"{name} is {str(value)!r:.80}, but a name in a path has at most {_LONGEST_NAME} bytes."
        )
    try:
        return Path(value).expanduser()
    except RuntimeError:
        user = Path(value).parts[0]
        raise InvalidArgumentError(
            f"{name} is {str(value)!r:.80}, but the home folder of {user!r:.80} is not known: write ./{user} for a "
            "folder of this name."
        ) from None


def new_folder(name: str, value: str | Path) -> Path:
    """Return `value` as the path of a folder to write.

    Raises:
        InvalidArgumentError: The value is not a path, or the folder is not empty.

    >>> new_folder("output", "no-such-folder").name
    'no-such-folder'
    """
    folder = path(name, value)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidArgumentError(f"The folder {folder} is not empty: give a new folder.")
    return folder


def names(value: str | Iterable[str]) -> list[str]:
    """Return one name or several names as a list without repetitions.

    Raises:
        InvalidArgumentError: A name is not a string.

    >>> names("bm25"), names(("bm25", "dense", "bm25"))
    (['bm25'], ['bm25', 'dense'])
    """
    if is_keyed(value):
        raise InvalidArgumentError(f"Names are given as one name or a list of them, not as {keyed(value)}.")
    listed = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    for name in listed:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"A name is a string, such as 'bm25', not {shown(name)}.")
    return list(dict.fromkeys(listed))


def ids(value: str | Iterable[str]) -> list[str]:
    """Return one document id or several ids as a list. Raises InvalidArgumentError if an id is not a string."""
    if isinstance(value, str):
        return [value]
    if is_keyed(value):
        raise InvalidArgumentError(f"ids is a document id or a list of them, not {keyed(value)}.")
    if not isinstance(value, Iterable):
        raise InvalidArgumentError(f"ids is a document id or a list of them, not {value!r:.80}.")
    listed = list(value)
    for id in listed:
        if not isinstance(id, str):
            raise InvalidArgumentError(f"A document id is a string, not {id!r:.80}: write {str(id)!r:.80}.")
    return listed


def texts(value: Sequence[str]) -> Sequence[str]:
    """Return the texts to encode if they are a list of strings. Otherwise raise InvalidArgumentError."""
    if isinstance(value, str):
        raise InvalidArgumentError(f"texts is a list of strings, not one string: write [{value[:40]!r}].")
    if is_keyed(value):
        raise InvalidArgumentError(f"texts is a list of strings, not {keyed(value)}.")
    if not isinstance(value, Sized):  # an iterator can be read only once
        raise InvalidArgumentError(f"texts is a list of strings, not {shown(value)}.")
    for row, text in enumerate(value):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"texts[{row}] is a string, not {type(text).__name__} {text!r:.80}.")
    return value


def is_keyed(value: object) -> bool:
    """Whether a value is a mapping or a DataFrame, which iterates over keys or column names."""
    return isinstance(value, Mapping) or (hasattr(value, "columns") and hasattr(value, "__arrow_c_stream__"))


def keyed(value: object) -> str:
    """The words of a message for a mapping or a DataFrame."""
    return f"the mapping {shown(value)}" if isinstance(value, Mapping) else "a table: give one of its columns"


def shown(value: object) -> str:
    """A value in a message: the beginning of its `repr`, or its type if `repr` fails.

    >>> shown("a" * 100) == "'" + "a" * 79, shown(10**5000)
    (True, 'an int')
    """
    try:
        return f"{value!r:.80}"
    except Exception:  # a __repr__ may raise anything, and Python refuses to write very long integers
        return f"an {type(value).__name__}" if isinstance(value, int) else f"a {type(value).__name__}"


def _finite(value: float) -> bool:
    """Whether a number is finite. An `int` that is too long for a `float` is not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _refusal(sentence: str, name: str, value: object, allowed: str) -> InvalidArgumentError:
    return InvalidArgumentError(sentence.format(name=name, allowed=allowed, value=shown(value)))
