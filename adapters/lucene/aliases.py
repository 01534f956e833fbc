"""Aliases: moving an alias to another index, and searching by an alias while somebody moves it.

A backend that was opened by an alias sends its requests to the index itself, by the index's name. So all parts of an
answer come from one index. Each search also asks which index the alias means, in the same round trip (`watched`). If
the alias means another index by now, or the index was deleted and made again, the backend opens that index and asks
again. If the new index has vectors of other encoders, the backend raises FingerprintMismatchError, because the encoded
queries do not fit.

A user who searches by an alias needs the permission to search the indexes that it means, such as `papers-*` for
`papers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import orjson

from hybridsearch.adapters.checks import differing_retrievers
from hybridsearch.adapters.lucene.query.search import Searcher
from hybridsearch.adapters.lucene.stored.reading import NO_FIELDS
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.lucene.wire.connection import Address, Json, check_name
from hybridsearch.adapters.lucene.wire.multisearch import INDEX, Rounds, Search
from hybridsearch.adapters.lucene.wire.refusals import decode, refusal
from hybridsearch.adapters.steps import through
from hybridsearch.backends import OldIndex, Schema
from hybridsearch.errors import BackendError, FingerprintMismatchError, IndexExistsError, IndexNotFoundError

T = TypeVar("T")


class Sign(NamedTuple):
    """What a search by an alias tells about the index that the alias means.

    Attributes:
        name: Name of the index. None if the index is empty.
        oldest: Oldest stamp in the index. An index that was deleted and made again has younger stamps. None if the
            index is empty.
    """

    name: str | None
    oldest: float | None


@dataclass(slots=True)
class Target:
    """The index that receives the requests.

    Attributes:
        address: Address with the index's name, not with the alias.
        searcher: Searcher of the index.
        uuid: Id of the index in the engine. An index that was deleted and made again has another id.
        alias: Alias by which the index was opened. None if it was opened by its name.
        sign: What searches by the alias tell while the alias means this index. None before the first search.
    """

    address: Address
    searcher: Searcher
    uuid: str | None = None
    alias: str | None = None
    sign: Sign | None = None


class MovedError(BackendError):
    """The alias may mean another index by now. It must be looked up, and the search repeated."""

    def __init__(self, alias: str, sign: Sign) -> None:
        super().__init__(f"The alias {alias!r} was moved several times during a search: try again later.")
        self.sign = sign


def watched(rounds: Rounds[T], target: Target) -> Rounds[T]:
    """The same rounds, but the first also asks what the alias means. Raises MovedError if the answer has changed."""
    if target.alias is None:
        return (yield from rounds)
    waiting = [target.alias]

    def ask(searches: list[Search]) -> Rounds[list[Json]]:
        if not waiting:
            return (yield searches)
        alias = waiting.pop()
        question = {**NO_FIELDS, "size": 1, "aggs": {"oldest": {"min": {"field": "stamp"}}}}
        *responses, told = yield [*searches, {INDEX: alias, "track_total_hits": False, **question}]
        hits = told["hits"]["hits"]
        sign = Sign(hits[0]["_index"] if hits else None, told["aggregations"]["oldest"]["value"])
        if sign != target.sign:
            raise MovedError(alias, sign)
        return responses

    return (yield from through(rounds, ask))


def only_index(found: Json, address: Address) -> tuple[str, Json]:
    """The name and the content of the index that the address's name means.

    Raises:
        BackendError: The name means several indexes, or it is an alias with a filter or a routing value.
    """
    if not found:
        raise refusal(address, 200, b"{}")
    if len(found) != 1:
        raise BackendError(
            f"{address.index!r} at {address} is an alias of {len(found)} indexes ({', '.join(sorted(found)[:3])}): "
            "open one of these indexes by its name."
        )
    ((name, index),) = found.items()
    check_plain(index["aliases"].get(address.index, {}), address.index, name, address)
    return name, index


def check_plain(properties: Json, alias: str, index: str, address: Address, done: str = "") -> None:
    """Raises BackendError if the alias has a filter or a routing value, because requests go to the index itself."""
    if "filter" in properties:
        raise BackendError(
            f"The alias {alias!r} at {address} has a filter, which would not be applied{done}: open the index "
            f"{index!r} itself, and give the filter with each search."
        )
    if "index_routing" in properties or "search_routing" in properties:
        raise BackendError(
            f"The alias {alias!r} at {address} has a routing value, which would not be applied{done}: open the index "
            f"{index!r} itself."
        )


def check_same_vectors(known: Schema, new: Schema, index: str, address: Address) -> None:
    """Raises FingerprintMismatchError if queries encoded for schema `known` do not fit schema `new`."""
    if differing := differing_retrievers(known, new):
        raise FingerprintMismatchError(
            f"The alias {address.index!r} at {address} now means the index {index!r}, which has other retrievers "
            f"({', '.join(differing)}): open it again."
        )


def publish(channel: Channel, alias: str, drop_old: bool) -> OldIndex | None:
    """Let `alias` mean the channel's index, as `LuceneBackend.publish` describes."""
    address = channel.address
    check_name(alias)
    found = channel.call("GET", f"{address.path},{quote(alias, safe='')}?ignore_unavailable=true")
    if alias in found:
        raise IndexExistsError(
            f"{alias!r} is the name of an index at {address}: choose another alias, or delete that index."
        )
    known_as = {name: {name, *index["aliases"]} for name, index in found.items()}
    here = [name for name, names in known_as.items() if address.index in names]
    if not here:
        raise IndexNotFoundError(f"There is no index {address.index!r} at {address}. It may have been deleted.")
    meant = sorted(name for name, names in known_as.items() if alias in names)
    if len(here) > 1 or len(meant) > 1:
        several, indexes = (alias, meant) if len(meant) > 1 else (address.index, sorted(here))
        raise BackendError(
            f"The alias {several!r} at {address} means {len(indexes)} indexes ({', '.join(indexes[:3])}), so nothing "
            "was changed: remove the alias from all of them but one first."
        )
    for name in meant:
        check_plain(found[name]["aliases"][alias], alias, name, address, ", so nothing was changed")
    if meant == here:
        return None
    this, old = here[0], meant[0] if meant else None
    actions: list[Json] = [{"add": {"index": this, "alias": alias}}]
    others: list[str] = []
    if old is not None:
        if "hybridsearch" not in found[old]["mappings"].get("_meta", {}):
            raise BackendError(
                f"The alias {alias!r} at {address} means the index {old!r}, which was not made by hybridsearch, so "
                "nothing was changed: choose another alias, or remove the alias from that index first."
            )
        others = sorted(set(found[old]["aliases"]) - {alias}) if drop_old else []
        only_alias = {"remove": {"index": old, "alias": alias, "must_exist": True}}
        actions.insert(0, {"remove_index": {"index": old}} if drop_old and not others else only_alias)
    answer = channel.answer(Call("POST", "/_aliases", orjson.dumps({"actions": actions})))
    if answer[0] == 404:
        raise BackendError(
            f"Somebody else changed the alias {alias!r} at {address}, or its index, at the same time, so nothing was "
            "published: publish again."
        )
    decode(address, answer)
    return None if old is None else OldIndex(old, kept_for=others)
