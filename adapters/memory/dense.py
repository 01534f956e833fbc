"""Exact dense search.

One pass over the float32 matrix gives approximate scores. Then the rows that may be among the best k are scored again
in float64: those whose score is within the proven rounding error of the k-th best. They are always summed in the same
order. So the hits are exact, and scores do not depend on the number of queries, on threads, or on segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import loops, threads
from hybridsearch.adapters.memory.arrays import Arrays, DamagedArrayError, Layout, check_length, check_sizes
from hybridsearch.adapters.memory.hnsw import Graph
from hybridsearch.adapters.memory.plain import first_of_each
from hybridsearch.adapters.memory.postings import read_only
from hybridsearch.corpus.files import REPAIR
from hybridsearch.errors import IndexCorruptedError
from hybridsearch.vectors import DenseVectors, Metric

Hits: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float64]]
"""Rows and scores, in descending order of score."""

_BATCH = 32
"""The number of queries from which a matrix product of BLAS is faster than the compiled loop."""

_BATCH_PLAIN = 4
"""The same number as long as the loop is not compiled."""

_BLOCK = 2048
"""The number of rows that are multiplied with all queries before the next rows, so that they stay in the cache."""

_PRODUCT = 1 << 23
"""The largest number of scores of one matrix product (32 MiB)."""

_SELECTIVE = 8
"""If fewer than one row in this many is allowed, the allowed rows are copied first."""

_WORTH_SHARING = 1 << 20
"""The number of matrix elements (about 0.1 ms of work) from which several threads are faster than one."""


class DenseMatrix:
    """The dense vectors of one segment. They never change.

    Attributes:
        array: Vectors, float32 of shape (rows, dimensions), C-contiguous. A row of zeros is never a hit.
        norms: Euclidean lengths rounded up, float32 of shape (rows,). Only rows of zeros have 0.
        metric: Metric, as in `hybridsearch.vectors.DenseVectors`.
        graph: Graph for approximate search, or None.
    """

    LAYOUT: ClassVar[Layout] = {"vectors": (np.float32, 2), "norms": (np.float32, 1), "graph": (np.uint8, 1)}
    """The layout of `arrays`. The graph may be missing."""

    def __init__(
        self, array: NDArray[np.float32], norms: NDArray[np.float32], metric: Metric, graph: Graph | None = None
    ) -> None:
        self.array, self.norms, self.metric, self.graph = array, norms, metric, graph
        nonzero = norms > 0
        self._nonzero = None if nonzero.all() else nonzero
        self._longest = float(norms.max(initial=0.0))

    @classmethod
    def from_vectors(cls, vectors: DenseVectors) -> DenseMatrix:
        array = np.array(vectors.array, order="C")  # a copy, because the caller may change its array
        return cls(array, _norms(array), vectors.metric)

    @classmethod
    def merge(cls, parts: Sequence[tuple[DenseMatrix, NDArray[np.bool_] | None]]) -> DenseMatrix:
        """The rows of all parts. Each part has a mask of the rows to keep. None keeps all rows."""
        rows = sum(len(part.array) if keep is None else int(keep.sum()) for part, keep in parts)
        array = np.empty((rows, parts[0][0].array.shape[1]), dtype=np.float32)
        start = 0
        for part, keep in parts:
            stop = start + (len(part.array) if keep is None else int(keep.sum()))
            if keep is None:
                array[start:stop] = part.array
            else:
                np.compress(keep, part.array, axis=0, out=array[start:stop])
            start = stop
        norms = np.concatenate([part.norms if keep is None else part.norms[keep] for part, keep in parts])
        return cls(array, norms, parts[0][0].metric)

    @classmethod
    def from_arrays(cls, arrays: Arrays, rows: int, dimensions: int, metric: Metric) -> DenseMatrix:
        """A matrix with `rows` rows over these arrays, without copying. This is the inverse of `arrays`.

        Raises:
            DamagedArrayError: The arrays do not fit together.
        """
        check_length(arrays, "vectors", rows)
        if arrays["vectors"].shape[1] != dimensions:
            raise DamagedArrayError("vectors", f"it has {arrays['vectors'].shape[1]} dimensions, not {dimensions}")
        check_sizes(arrays, "norms", rows)
        graph = Graph.from_array(arrays["graph"], rows) if "graph" in arrays else None
        return cls(arrays["vectors"], arrays["norms"], metric, graph)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole matrix as plain arrays, to save them."""
        arrays: dict[str, NDArray[Any]] = {"vectors": self.array, "norms": self.norms}
        return arrays if self.graph is None else {**arrays, "graph": self.graph.to_array()}

    @property
    def nbytes(self) -> int:
        return self.array.nbytes + self.norms.nbytes

    def build_graph(self) -> None:
        """Make `graph` if there is none. This takes some seconds for each ten thousand rows."""
        if self.graph is None:
            self.graph = Graph.build(self.array, self.metric, self._nonzero)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        order: NDArray[np.int32],
        allowed: NDArray[np.bool_] | None,
        owners: NDArray[np.int32] | None = None,
    ) -> list[Hits]:
        """The exact best `k` rows for each query. With `owners`, the best row of each of the best `k` owners.

        Args:
            queries: Query vectors, float32 of shape (queries, dimensions). A query of zeros has no hits.
            k: Number of rows, at least 1.
            order: Numbers that order equal scores, ascending, shape (rows,).
            allowed: Mask of the rows that may be hits, shape (rows,). None allows all rows.
            owners: Number of the document that each row is a passage of, ascending, shape (rows,). Default None: each
                row is a document.
        """
        if self._nonzero is not None:
            allowed = self._nonzero if allowed is None else allowed & self._nonzero
        rows = None
        array, norms = self.array, self.norms
        if allowed is not None and np.count_nonzero(allowed) * _SELECTIVE < len(allowed):
            rows, allowed = np.flatnonzero(allowed).astype(np.int32), None
            array, norms = array[rows], norms[rows]
        starts = None
        if owners is not None:
            starts = np.flatnonzero(np.diff(owners if rows is None else owners[rows], prepend=-1))
        found = []
        block = max(1, _PRODUCT // max(1, len(array)))
        least = _BATCH if loops.are_compiled() else _BATCH_PLAIN
        for start in range(0, len(queries), block):
            part = queries[start : start + block]
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # `_near` knows when this can happen
                products = part @ array.T if len(part) >= least else _products(array, part)
            for query, scores in zip(part, products, strict=True):
                near = self._near(scores, norms, query, k, allowed, starts)
                found.append(self.best(query, near if rows is None else rows[near], k, order, owners))
        return found

    def search_graph(
        self, queries: NDArray[np.float32], k: int, order: NDArray[np.int32], live: NDArray[np.bool_] | None
    ) -> list[Hits]:
        """The best `k` rows that the graph finds for each query, with exact scores."""
        if self.graph is None:
            return self.search(queries, k, order, live)
        return [self.best(query, self.graph.search(query, k, live), k, order) for query in queries]

    def _near(
        self,
        products: NDArray[np.float32],
        norms: NDArray[np.float32],
        query: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        starts: NDArray[np.int64] | None,
    ) -> NDArray[np.int64]:
        """The rows that may be among the best `k`, from float32 inner products that were summed in any order.

        `starts` has the first row of each document. Then these are the rows that may be the best of their document, of
        the documents that may be among the best `k`.

        With u = 2^-24, the error of a product of d terms is at most d u / (1 - d u) |x| |q| (Higham, Accuracy and
        Stability of Numerical Algorithms, section 3.1). If terms underflow, d times the smallest normal number is
        added. Euclidean distance is ordered by 2 x.q - |x|^2. Its error is twice as large, plus a few roundings. The
        last term is for distances that differ, but are equal in float64.
        """
        length = float(np.linalg.norm(query.astype(np.float64)))
        if length == 0.0:
            return np.empty(0, dtype=np.int64)
        u = 2.0**-24
        d = len(query)
        error = 1.01 * (d + 8) * u * self._longest * length + d * 2.0**-126
        if self._longest * max(length, self._longest) > 1e37:  # float32 may overflow, so all rows are kept
            return np.arange(len(products)) if allowed is None else np.flatnonzero(allowed)
        scores = products
        if self.metric == "euclidean":
            scores = 2 * products - norms * norms
            error = 2 * error + 8 * u * self._longest**2 + (d + 4) * 2.0**-52 * (self._longest + length) ** 2
        if allowed is not None:
            scores = np.where(allowed, scores, np.float32(-np.inf))
        best = scores if starts is None else np.maximum.reduceat(scores, starts)
        bound = _kth(best, k) - 2 * error
        if np.isnan(bound):
            raise IndexCorruptedError(
                f"A vector of the index is damaged: it contains NaN. Open the index with verify=True, which names the "
                f"damaged file. Then {REPAIR}."
            )
        near = np.flatnonzero(scores >= np.nextafter(np.float32(bound), np.float32(-np.inf)))
        if starts is not None:
            of_document = best[np.searchsorted(starts, near, side="right") - 1]
            near = near[scores[near] >= np.nextafter((of_document - 2 * error).astype(np.float32), np.float32(-np.inf))]
        return near if allowed is None else near[allowed[near]]

    def score(self, query: NDArray[np.float32], rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """The exact scores of some rows, in their order. They are right for rows of zeros, too, which are no hits."""
        wide = query.astype(np.float64)
        scores = np.empty(len(rows), dtype=np.float64)
        for start in range(0, len(rows), 1024):
            part = self.array[rows[start : start + 1024]].astype(np.float64)
            if self.metric == "euclidean":
                part -= wide
                scores[start : start + 1024] = -np.sqrt((part * part).sum(axis=1))
            else:
                scores[start : start + 1024] = (part * wide).sum(axis=1)
        return scores

    def best(
        self,
        query: NDArray[np.float32],
        rows: NDArray[np.integer],
        k: int,
        order: NDArray[np.int32],
        owners: NDArray[np.int32] | None = None,
    ) -> Hits:
        """The best `k` of some rows, as in `search`. None of them is a row of zeros."""
        if not query.any():
            rows = rows[:0]
        scores = self.score(query, rows)
        best = np.lexsort((order[rows], -scores))
        if owners is not None:
            best = best[first_of_each(owners[rows[best]])]
        best = best[:k]
        return rows[best].astype(np.int32), scores[best]


def _norms(array: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.empty(len(array), dtype=np.float32)
    for start in range(0, len(array), 4096):
        part = array[start : start + 4096].astype(np.float64)
        exact = np.sqrt((part * part).sum(axis=1))
        norms[start : start + 4096] = np.where(exact > 0, np.nextafter(exact.astype(np.float32), np.inf), 0)
    return norms


def _kth(scores: NDArray[np.float32], k: int) -> float:
    """The k-th largest score. Minus infinity if there are at most k scores."""
    if len(scores) <= k:
        return -np.inf
    columns = len(scores) // 64
    if columns > 4 * k:  # at least k scores reach the k-th largest of the maxima, so smaller scores can be left out
        highest = scores[: 64 * columns].reshape(64, columns).max(axis=0)
        scores = scores[scores >= np.partition(highest, columns - k)[columns - k]]
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def _products(array: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """`queries @ array.T`. This is several times as fast as BLAS, which is slow for few vectors."""
    array = read_only(np.ascontiguousarray(array))
    vectors = [read_only(np.ascontiguousarray(query)) for query in queries]
    out = np.empty((len(queries), len(array)), dtype=np.float32)
    parts = threads.WORKERS if array.size > _WORTH_SHARING else 1
    cuts = [len(array) * part // parts for part in range(parts + 1)]

    def task(first: int, last: int) -> Callable[[], None]:
        step = _BLOCK if len(vectors) > 1 else max(1, len(array))

        def multiply() -> None:
            for start in range(first, last, step):
                for vector, scores in zip(vectors, out, strict=True):
                    loops.multiply(array, vector, start, min(start + step, last), scores)

        return multiply

    threads.run([task(first, last) for first, last in pairwise(cuts)])
    return out
