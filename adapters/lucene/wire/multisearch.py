"""Sends the searches of a round together: one `_msearch`, or one `_search` if there is only one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TypeAlias, TypeVar
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


def _ask(address: Address, searches: Sequence[Search]) -> Steps[list[Json]]:
    """The responses to the searches of one request. Searches that the engine was too busy for are sent again."""
    if len(searches) == 1:  # a `_msearch` of one search takes longer
        index, search = _apart(searches[0])
        path = address.path if index is None else f"/{quote(index, safe='')}"
        path = f"{path}/_search?allow_partial_search_results=false"
        response = yield Call("POST", path, orjson.dumps(search, option=_OPTION), JSON)
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


def _parts(searches: Sequence[Search]) -> Iterator[list[Search]]:
    """All searches in one list, or in several lists if their hits together would need too much memory."""
    part: list[Search] = []
    hits = 0
    for search in searches:
        size = min(search["size"], 10_000)
        if part and hits + size > _HITS:
            yield part
            part, hits = [], 0
        part.append(search)
        hits += size
    if part:
        yield part


def _body(searches: Sequence[Search]) -> bytes:
    lines: list[Json] = []
    for search in searches:
        index, body = _apart(search)
        lines += [{"allow_partial_search_results": False, **({} if index is None else {"index": index})}, body]
    return b"".join(orjson.dumps(line, option=_OPTION | orjson.OPT_APPEND_NEWLINE) for line in lines)


def _apart(search: Search) -> tuple[str | None, Search]:
    """The name of the index of a search, if it is not the index of the address, and the body."""
    return search.get(INDEX), {member: value for member, value in search.items() if member != INDEX}
