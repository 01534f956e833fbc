"""Checks of requests, batches, schemas and indexes that all engines share, with the same messages."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.backends import Request, RetrieverSchema, Schema, check_lengths
from hybridsearch.errors import BackendError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.vectors import Metric, SparseQuery

T = TypeVar("T")


def retriever_of(schema: Schema, name: str) -> RetrieverSchema:
    """The schema of one retriever. Raises InvalidArgumentError if the index has no retriever of that name."""
    try:
        return schema.retrievers[name]
    except KeyError:
        raise InvalidArgumentError(
            f"The index has no retriever {name!r}: it has {', '.join(map(repr, schema.retrievers)) or 'none'}."
        ) from None


def hits_of(request: Request) -> int:
    """The number of documents to find. Raises InvalidArgumentError if it is not a whole number of at least 1."""
    k: Any = request.k
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidArgumentError(f"A search asks for at least 1 document, not {k!r}.")
    return int(k)


def sparse_query(request: Request, retriever: RetrieverSchema) -> SparseQuery:
    """The query of the request. Raises InvalidArgumentError if it is not a sparse query."""
    if not isinstance(request.query, SparseQuery):
        raise InvalidArgumentError(
            f"Retriever {request.retriever!r} is {retriever.kind} and takes a SparseQuery, not "
            f"{type(request.query).__name__}."
        )
    return request.query


def dense_query(request: Request, retriever: RetrieverSchema) -> NDArray[np.float32]:
    """The query vector. Raises InvalidArgumentError if its dimensions or its length do not fit the retriever."""
    name, query = request.retriever, request.query
    if not isinstance(query, np.ndarray) or query.shape != (retriever.dimensions,):
        given = f"an array of shape {query.shape}" if isinstance(query, np.ndarray) else type(query).__name__
        raise InvalidArgumentError(
            f"Retriever {name!r} is dense and takes a float32 array of shape ({retriever.dimensions},), not {given}."
        )
    if not np.isfinite(query).all():
        raise InvalidArgumentError(f"The query of retriever {name!r} holds NaN or infinity.")
    query = query.astype(np.float32, copy=False)
    if retriever.metric == "cosine":
        check_lengths(name, query[None])
    return query


def multi_query(request: Request, retriever: RetrieverSchema) -> NDArray[np.float32]:
    """The query vectors, of shape (vectors, dimensions). Raises InvalidArgumentError if they have another shape."""
    name, query, dimensions = request.retriever, request.query, retriever.dimensions
    if not isinstance(query, np.ndarray) or query.ndim != 2 or query.shape[1] != dimensions:
        given = f"an array of shape {query.shape}" if isinstance(query, np.ndarray) else type(query).__name__
        raise InvalidArgumentError(
            f"Retriever {name!r} is multi_vector and takes a float32 array of shape (vectors, {dimensions}), not "
            f"{given}."
        )
    if not np.isfinite(query).all():
        raise InvalidArgumentError(f"The query of retriever {name!r} holds NaN or infinity.")
    return query.astype(np.float32, copy=False)


def encodable(text: str) -> bool:
    """Whether the text has no lone surrogate. Documents never have one, filters and ids that are asked for may."""
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def check_explained(request: Request, retriever: RetrieverSchema) -> None:
    """Raises InvalidArgumentError if the retriever's scores are not sums over terms that we know."""
    if retriever.kind in ("dense", "multi_vector", "text"):
        raise InvalidArgumentError(
            f"Retriever {request.retriever!r} is {retriever.kind}. Only lexical and sparse scores have terms."
        )


def lexical_retriever(schema: Schema, name: str) -> RetrieverSchema:
    """The schema of a lexical retriever. Raises InvalidArgumentError if it is of another kind or unknown."""
    retriever = retriever_of(schema, name)
    if retriever.kind != "lexical":
        raise InvalidArgumentError(
            f"Retriever {name!r} is {retriever.kind}. Only the terms of lexical retrievers are counted."
        )
    return retriever


def check_batch_size(size: int) -> None:
    """Raises InvalidArgumentError if `size` is not a size for the batches of a scan."""
    if size < 1:
        raise InvalidArgumentError(f"batch_size of a scan is at least 1, not {size!r}.")


def check_dense(name: str, retriever: RetrieverSchema) -> tuple[int, Metric]:
    """The dimensions and the metric of a dense retriever. Raises InvalidArgumentError if the schema lacks them."""
    if not retriever.dimensions or not retriever.metric:
        raise InvalidArgumentError(f"The dense retriever {name!r} needs dimensions and a metric in its schema.")
    return retriever.dimensions, retriever.metric


def check_multi_vector(name: str, retriever: RetrieverSchema) -> int:
    """The dimensions of a multi-vector retriever. Raises InvalidArgumentError if the schema lacks them."""
    if not retriever.dimensions:
        raise InvalidArgumentError(f"The multi-vector retriever {name!r} needs dimensions in its schema.")
    return retriever.dimensions


def check_open(closed: bool) -> None:
    """Raises BackendError if the backend was closed."""
    if closed:
        raise BackendError("The index was closed: open it again to use it.")


def opened(index: T | None, closed: bool) -> T:
    """`index`. Raises BackendError if the backend was closed, or if it has no index yet."""
    check_open(closed)
    if index is None:
        raise BackendError("There is no index yet: call open() or create() first.")
    return index


def differing_retrievers(known: Schema, new: Schema) -> list[str]:
    """The names of the retrievers that need other query vectors in schema `new` than in schema `known`."""

    def queries(schema: Schema) -> dict[str, object]:
        return {name: (r.kind, str(r.fingerprint), r.dimensions, r.metric) for name, r in schema.retrievers.items()}

    before, now = queries(known), queries(new)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def check_layout(found: object, oldest: int, known: int, place: str) -> None:
    """Raises IndexCorruptedError if this version cannot read the layout of the index at `place`."""
    if not isinstance(found, int) or not oldest <= found <= known:
        newer = isinstance(found, int) and found > known
        raise IndexCorruptedError(
            f"{place} has layout {found!r}, but this version of hybridsearch reads layout {known}: "
            f"{'upgrade hybridsearch, or ' if newer else ''}index the documents again under another name."
        )
