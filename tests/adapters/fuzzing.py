"""Random content of files and arguments. It must give an answer or one of our errors."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from hybridsearch.errors import HybridSearchError

SIZES = [300, pytest.param(10_000, marks=pytest.mark.slow)]
"""The number of inputs for each parser."""

_VALUES: Sequence[Any] = (
    *(None, True, False, 0, 1, -1, 60, 0.5, 1e300, 10**400, float("nan"), float("inf")),
    *("", "x" * 50, "\ud800", "\0", [], {}, [1], {"a": 1}, "1"),
)


def value(rng: random.Random, words: Sequence[str], depth: int = 0) -> Any:
    """A random value that JSON can hold. `words` are its keys and some of its texts."""
    kind = rng.random()
    if depth > 3 or kind < 0.6:
        return rng.choice(words) if rng.random() < 0.5 else copy.copy(rng.choice(_VALUES))
    inner = [value(rng, words, depth + 1) for _ in range(rng.randrange(4))]
    return inner if kind < 0.75 else {rng.choice(words): one for one in inner}


def mutated(rng: random.Random, content: Any, words: Sequence[str]) -> Any:
    """`content` with one to three values changed, added or removed. JSON can hold it."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        holder, key = rng.choice(list(_places(content)) or [({}, "")])
        kind = rng.random()
        if kind < 0.2 and isinstance(holder, dict):
            holder.pop(key, None)
        elif kind < 0.4 and isinstance(holder, dict):
            holder[rng.choice(words)] = value(rng, words)
        else:
            holder[key] = value(rng, words)
    return content


def as_file(rng: random.Random, content: Any) -> bytes:
    """Random JSON. Sometimes it is cut off, too deep, or has a number that is too long."""
    text = json.dumps(content)
    kind = rng.random()
    if kind < 0.1:
        text = text[: rng.randrange(len(text) + 1)]
    elif kind < 0.12:
        text = "[" * 100_000
    elif kind < 0.14:
        text = text.replace("1", "9" * rng.choice([400, 5000]))
    return text.encode("utf-8", "surrogatepass")


def _places(content: Any) -> Iterable[tuple[Any, Any]]:
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys):
        yield content, key
        yield from _places(content[key])


def count_answers(count: int, seed: int, call: Callable[[random.Random], Any]) -> int:
    """The number of random calls that gave an answer. If a call raises an error that is not ours, the test fails."""
    answers = 0
    for number in range(count):
        try:
            call(random.Random(f"{seed} {number}"))
            answers += 1
        except HybridSearchError:
            pass
        except Exception as error:
            raise AssertionError(f"input {number} of seed {seed} raises {type(error).__name__}: {error}") from error
    return answers
