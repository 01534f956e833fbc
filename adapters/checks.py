"""What every engine checks of a request, a batch and an index, said in the same words."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.backends import Request, RetrieverSchema, Schema
from hybridsearch.errors import BackendError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.vectors import Metric, SparseQuery

T = TypeVar("T")


def retriever_of(schema: Schema, name: str) -> RetrieverSchema:
    """Raises InvalidArgumentError where the index has none of that name."""
    try:
        return schema.retrievers[name]
    except KeyError:
        raise InvalidArgumentError(
            f"The index has no retriever {name!r}: it has {', '.join(map(repr, schema.retrievers)) or 'none'}."
        ) from None


def hits_of(request: Request) -> int:
    """How many documents are wanted; raises InvalidArgumentError where that is no whole number of at least 1."""
    k: Any = request.k
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidArgumentError(f"A search asks for at least 1 document, not {k!r}.")
    return int(k)


def sparse_query(request: Request, retriever: RetrieverSchema) -> SparseQuery:
    """The query; raises InvalidArgumentError where it is no sparse one."""
    if not isinstance(request.query, SparseQuery):
        raise InvalidArgumentError(
            f"Retriever {request.retriever!r} is {retriever.kind} and takes a SparseQuery, not "
            f"{type(request.query).__name__}."
        )
    return request.query


def dense_query(request: Request, retriever: RetrieverSchema) -> NDArray[np.float32]:
    """The query; raises InvalidArgumentError where it is no vector of the retriever's dimensions."""
    name, query = request.retriever, request.query
    if not isinstance(query, np.ndarray) or query.shape != (retriever.dimensions,):
        given = f"an array of shape {query.shape}" if isinstance(query, np.ndarray) else type(query).__name__
        raise InvalidArgumentError(
            f"Retriever {name!r} is dense and takes a float32 array of shape ({retriever.dimensions},), not {given}."
        )
    if not np.isfinite(query).all():
        raise InvalidArgumentError(f"The query of retriever {name!r} holds NaN or infinity.")
    return query.astype(np.float32, copy=False)


def check_explained(request: Request, retriever: RetrieverSchema) -> None:
    """Raises InvalidArgumentError where the retriever's scores are not made of our terms."""
    if retriever.kind in ("dense", "text"):
        raise InvalidArgumentError(
            f"Retriever {request.retriever!r} is {retriever.kind}: only lexical and sparse scores have terms."
        )


def check_batch_size(size: int) -> None:
    """Raises InvalidArgumentError where a scan cannot have batches of this size."""
    if size < 1:
        raise InvalidArgumentError(f"A scan's batches have at least 1 document, not {size!r}.")


def check_dense(name: str, retriever: RetrieverSchema) -> tuple[int, Metric]:
    """The dimensions and the metric of a dense retriever; raises InvalidArgumentError where the schema lacks them."""
    if not retriever.dimensions or not retriever.metric:
        raise InvalidArgumentError(f"The dense retriever {name!r} needs dimensions and a metric in its schema.")
    return retriever.dimensions, retriever.metric


def check_open(closed: bool) -> None:
    """Raises BackendError for a backend that was closed."""
    if closed:
        raise BackendError("The index was closed: open it again to use it.")


def opened(index: T | None, closed: bool) -> T:
    """`index`; raises BackendError for a backend that was closed, or neither opened nor created."""
    check_open(closed)
    if index is None:
        raise BackendError("There is no index yet: call open() or create() first.")
    return index


def differing_retrievers(known: Schema, new: Schema) -> list[str]:
    """The retrievers whose queries for an index of schema `known` are none for one of schema `new`."""

    def queries(schema: Schema) -> dict[str, object]:
        return {name: (r.kind, str(r.fingerprint), r.dimensions, r.metric) for name, r in schema.retrievers.items()}

    before, now = queries(known), queries(new)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def check_layout(found: object, oldest: int, known: int, place: str) -> None:
    """Raises IndexCorruptedError where the index at `place` is stored in a layout that we do not know."""
    if not isinstance(found, int) or not oldest <= found <= known:
        newer = isinstance(found, int) and found > known
        raise IndexCorruptedError(
            f"{place} has layout {found!r}, and this hybridsearch reads {known}: "
            f"{'upgrade hybridsearch, or ' if newer else ''}index the documents again under another name."
        )
