"""Reads JSON from clients, which may be hostile, and writes JSON for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, NoReturn

import orjson
from fastapi import Response
from starlette.datastructures import Headers

from hybridsearch.arguments import shown
from hybridsearch.errors import InvalidArgumentError

NDJSON = "application/x-ndjson"


def media_type(headers: Headers) -> str:
    """The type of a body, without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def answer(content: Any) -> Response:
    """The answer with this content, which is not checked."""
    return Response(orjson.dumps(content), media_type="application/json")


def strict_json(raw: bytes, members: int | None = None, name: str = "The body") -> Any:
    """Read JSON as RFC 8259 has it, without what readers understand in different ways.

    Args:
        raw: The JSON, in UTF-8.
        members: Largest number of members of an object. None for no limit.
        name: What the JSON is, for the errors.

    Returns:
        The value.

    Raises:
        InvalidArgumentError: It is not valid JSON in UTF-8, it is nested too deep, an object has a key twice or too
            many keys, it has NaN or an infinite number, or a string has a lone surrogate.

    >>> strict_json(b'{"a": NaN}')
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: The body is not usable JSON: it has NaN, which is no number.
    """

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if members is not None and len(pairs) > members:
            raise ValueError(f"an object has more than {members:,} keys")
        return _without_repetition(pairs)

    try:
        value = json.loads(
            raw.decode(), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=read_object
        )
        if b"\\u" in raw:  # an escape may stand for a half of a pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{name} is not valid UTF-8 ({error.reason}).") from None
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{name} has a string with a lone surrogate, which is not valid Unicode.") from None
    except RecursionError:
        raise InvalidArgumentError(f"{name} is nested too deep.") from None
    except ValueError as error:
        reason = "a number has too many digits" if "integer string conversion" in str(error) else str(error).rstrip(".")
        raise InvalidArgumentError(f"{name} is not usable JSON: {reason}.") from None
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"it has {text}, which is no number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text:.40} is too large")
    return number


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has the key {shown(twice)} twice")
    return found


async def lines_of(parts: AsyncIterable[bytes], most: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """Split a streamed body into its lines. At most one line, and what came with it, is in memory.

    Args:
        parts: Parts of the body.
        most: Number of bytes of the longest line.

    Yields:
        The number of each line, from 1, and the line. None for a line that is too long. Blank lines are left out.
    """
    number, rest, too_long = 1, bytearray(), False
    async for part in parts:
        *ended, last = part.split(b"\n")
        for end in ended:
            rest += end
            if too_long or len(rest) > most:
                yield number, None
            elif rest.strip():
                yield number, bytes(rest)
            number, too_long = number + 1, False
            rest.clear()
        rest += last
        if len(rest) > most:
            too_long = True
            rest.clear()
    if too_long or rest.strip():
        yield number, None if too_long else bytes(rest)
