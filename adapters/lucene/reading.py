"""Documents by id, and all of them, as they are stored."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, TypeAlias

import orjson

from hybridsearch.adapters.lucene.channel import Call, Channel, Steps
from hybridsearch.adapters.lucene.connection import Address
from hybridsearch.adapters.lucene.lines import document_key
from hybridsearch.adapters.lucene.refusals import refusal
from hybridsearch.errors import BackendError, HybridSearchError

Json: TypeAlias = Any

_IDS_AT_ONCE = 1000
_AT_ONCE = 2000
_SCROLL = "5m"


def fetch(address: Address, ids: Sequence[str], members: Sequence[str]) -> Steps[list[Json | None]]:
    """These members of the stored documents, in the order of `ids`; None for an unknown id."""
    found: dict[str, Json] = {}
    keys = list(dict.fromkeys(document_key(id) for id in ids if id))
    for start in range(0, len(keys), _IDS_AT_ONCE):
        docs = [{"_id": key, "_source": members} for key in keys[start : start + _IDS_AT_ONCE]]
        answer = yield Call("POST", f"{address.path}/_mget", orjson.dumps({"docs": docs}))
        for item in answer["docs"]:
            if "error" in item:
                raise refusal(address, 500, item["error"])
            if item.get("found"):
                found[item["_source"]["id"]] = item["_source"]
    return [found.get(id) for id in ids]


def scan(channel: Channel, address: Address, batch_size: int) -> Generator[list[Json]]:
    """All stored documents, as they are when the first batch is taken.

    Raises:
        BackendError: some did not come. (A page whose answer is lost is gone: asked again, the engine gives the next.)
    """
    body = {"size": min(batch_size, _AT_ONCE), "sort": ["_doc"], "track_total_hits": True}
    options = f"scroll={_SCROLL}&allow_partial_search_results=false"
    page = channel.call("POST", f"{address.path}/_search?{options}", body)
    missing = int(page["hits"]["total"]["value"])
    try:
        while hits := page["hits"]["hits"]:
            yield [hit["_source"] for hit in hits]
            missing -= len(hits)
            page = channel.call("POST", "/_search/scroll", {"scroll": _SCROLL, "scroll_id": page["_scroll_id"]})
    finally:
        with contextlib.suppress(HybridSearchError):  # it ends by itself, too
            channel.call("DELETE", "/_search/scroll", {"scroll_id": page["_scroll_id"]})
    if missing:
        raise BackendError(
            f"{missing} documents of the index {address.index!r} at {address} did not come, as the answer to some "
            "request for them was lost: read them all again from the start."
        )
