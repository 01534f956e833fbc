"""Lists documents in an order, without their vectors.

By id, each page is one search for the next ids. So a page costs little, wherever it is in the list. Any other order
comes from one pass over the documents that the filter allows, because values of metadata are not stored as columns. The
pass gives the keys of all documents, and the documents are then read in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson

from hybridsearch.adapters.lucene.aliases import Target
from hybridsearch.adapters.lucene.stored.reading import DOCUMENT, hit_document, scroll
from hybridsearch.adapters.lucene.wire.channel import Call, Channel, Steps
from hybridsearch.documents import Document
from hybridsearch.filters import Filter
from hybridsearch.listing import Key, Order

_PAGE = 500  # documents in one answer


def pages_by_id(
    ask: Callable[[Callable[[Target], Steps[list[Document]]]], list[Document]],
    filter: Filter | None,
    after: str | None,
    limit: int | None,
) -> Iterator[Document]:
    """Documents by id, page by page. `ask` asks the index that the backend uses at this time."""
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        start = after

        def page(target: Target, start: str | None = start, size: int = size) -> Steps[list[Document]]:
            return _page(target, filter, start, size)

        documents = ask(page)
        yield from documents
        if len(documents) < size:
            return
        after = documents[-1].id
        left = None if left is None else left - size


def _page(target: Target, filter: Filter | None, after: str | None, size: int) -> Steps[list[Document]]:
    body = {
        **DOCUMENT,
        "size": size,
        "sort": ["id"],
        "track_total_hits": False,
        "query": {"bool": {"filter": [target.searcher.query(filter)]}},
        **({} if after is None else {"search_after": [after]}),
    }
    path = f"{target.address.path}/_search?allow_partial_search_results=false"
    answer = yield Call("POST", path, orjson.dumps(body))
    return [hit_document(hit) for hit in answer["hits"]["hits"]]


def all_keys(channel: Channel, target: Target, filter: Filter | None, order: Order) -> Iterator[Key]:
    """The places in an order of all documents that the filter allows, as they are when the first one is taken."""
    body = {**DOCUMENT, "size": _PAGE, "query": target.searcher.query(filter)}
    for hits in scroll(channel, target.address, body):
        yield from (order.key(hit_document(hit)) for hit in hits)
