"""Lists and deletes the documents that a filter allows, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hybridsearch.backends import Backend, Selector
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError
from hybridsearch.filters import Filter
from hybridsearch.listing import Key, Order, in_order, with_documents

_AT_ONCE = 1024


def select(
    backend: Backend, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
) -> Iterator[tuple[Key, Document]]:
    """Read documents in an order, as `Selector.list_documents` describes."""
    if isinstance(backend, Selector):
        return backend.list_documents(filter, order, after, limit)
    return with_documents(in_order(_keys(backend, filter, order), after, limit), backend.fetch)


def delete_selected(backend: Backend, filter: Filter) -> int:
    """Remove the documents that a filter allows, as `Selector.delete_by_filter` describes."""
    if isinstance(backend, Selector):
        return backend.delete_by_filter(filter)
    keys = in_order(_keys(backend, filter, Order.parse(None)))
    removed = 0
    while part := [id for _, id in islice(keys, _AT_ONCE)]:
        removed += backend.delete(part)
    return removed


def _keys(backend: Backend, filter: Filter | None, order: Order) -> Iterator[Key]:
    """The keys of all documents that the filter allows, from a scan of the index."""
    if not backend.capabilities.scan:
        raise BackendError(
            "The engine cannot list its documents: read them by id, or copy the source to another engine."
        )
    if filter is not None and not backend.count(filter):  # this also does the checks of the filter
        return
    for batch in backend.scan(_AT_ONCE):
        yield from (order.key(document) for document in batch.documents if filter is None or filter.matches(document))
