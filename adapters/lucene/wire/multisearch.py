"""Sends the searches of a round together: one `_msearch`, or one `_search` if there is only one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import orjson

from hybridsearch.adapters.lucene.wire.channel import JSON, LINES, Call, Steps
from hybridsearch.adapters.lucene.wire.connection import Address, Json
from hybridsearch.adapters.lucene.wire.refusals import NoAnswerError, refusal
from hybridsearch.adapters.steps import Pause, through

T = TypeVar("T")

Search: TypeAlias = dict[str, Json]
"""The body of a search."""

Rounds: TypeAlias = Generator[list[Search], list[Json], T]
"""A generator that yields the searches of one round, receives their responses, and returns a T at its end."""

INDEX = "_index"
"""Member that names the index of a search, if it is not the index of the address."""

_HITS = 200_000  # hits in one request: about 20 MB of ids and scores
_BYTES = 8 << 20  # bytes in one request; a longer search is sent alone
_ATTEMPTS = 7
_FIRST_PAUSE = 0.1  # seconds; each pause is twice as long as the one before
_OPTION = orjson.OPT_SERIALIZE_NUMPY


def msearch(address: Address, rounds: Rounds[T]) -> Steps[T]:
    """The calls that answer `rounds`.

    Every response covers all shards. Raises the error of the first search that still fails after several attempts.
    """

    def ask(searches: list[Search]) -> Steps[list[Json]]:
        responses: list[Json] = []
        for part in _parts(searches):
            responses += yield from _ask(address, part)
        return responses

    return through(rounds, ask)


class _Written(NamedTuple):
    """A search as JSON, and the name of its index, if it is not the index of the address."""

    index_name: str | None
    body: bytes


def _ask(address: Address, searches: Sequence[_Written]) -> Steps[list[Json]]:
    """The responses to the searches of one request. Searches that the engine was too busy for are sent again."""
    if len(searches) == 1:  # a `_msearch` of one search takes longer
        index, body = searches[0]
        path = address.path if index is None else f"/{quote(index, safe='')}"
        response = yield Call("POST", f"{path}/_search?allow_partial_search_results=false", body, JSON)
        return [response]
    responses: list[Json] = [None] * len(searches)
    open = list(range(len(searches)))
    for attempt in range(_ATTEMPTS):
        body = _body([searches[place] for place in open])
        answer = yield Call("POST", f"{address.path}/_msearch", body, LINES)
        busy = []
        for place, response in zip(open, answer["responses"], strict=True):
            if "error" in response:
                error = refusal(address, response.get("status", 500), response["error"])
                if attempt == _ATTEMPTS - 1 or not isinstance(error, NoAnswerError):
                    raise error
                busy.append(place)
            responses[place] = response
        if not busy:
            break
        open = busy
        yield Pause(_FIRST_PAUSE * 2**attempt)
    return responses


def _parts(searches: Sequence[Search]) -> Iterator[list[_Written]]:
    """All searches in one list, or in several lists if they or their hits together would need too much memory."""
    part: list[_Written] = []
    hits = size = 0
    for search in searches:
        index = search.get(INDEX)
        body = search if index is None else {member: value for member, value in search.items() if member != INDEX}
        written = _Written(index, orjson.dumps(body, option=_OPTION))
        found, length = min(search["size"], 10_000), len(written.body)
        if part and (hits + found > _HITS or size + length > _BYTES):
            yield part
            part, hits, size = [], 0, 0
        part.append(written)
        hits, size = hits + found, size + length
    if part:
        yield part


def _body(searches: Sequence[_Written]) -> bytes:
    lines: list[bytes] = []
    for index, body in searches:
        header = {"allow_partial_search_results": False, **({} if index is None else {"index": index})}
        lines += [orjson.dumps(header), b"\n", body, b"\n"]
    return b"".join(lines)
