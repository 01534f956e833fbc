"""Exact dense search.

One pass over int8 codes gives an upper and a lower bound of each score (see `codes`). Only the rows whose upper bound
reaches the k-th largest lower bound are read in float32, and scored in float64. They are always summed in the same
order. So the hits are exact, and scores do not depend on the number of queries, on threads, or on segments. The float32
vectors of an index in a folder stay on disk, but for the rows that are read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise, repeat
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import loops, threads
from hybridsearch.adapters.memory.arrays import Arrays, DamagedArrayError, Layout, check_length, check_sizes
from hybridsearch.adapters.memory.codes import CodedQueries, Codes, concat, rounded_up
from hybridsearch.adapters.memory.hnsw import Graph
from hybridsearch.adapters.memory.plain import first_of_each
from hybridsearch.corpus.files import REPAIR
from hybridsearch.errors import IndexCorruptedError
from hybridsearch.vectors import DenseVectors, Metric

Hits: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float64]]
"""Rows and scores, in descending order of score."""

_SCORES = 1 << 23
"""The largest number of bounds that are kept at a time (32 MiB)."""

_WORTH_SHARING = 1 << 22
"""The number of products (about 0.1 ms of work) from which several threads are faster than one."""

_KEPT = 1 << 26
"""The size in bytes (64 MiB) up to which the pages of a mapped file stay in the process after a search."""

_PART = 128
"""Rows that are scored at a time. Larger temporary arrays go back to the system after each use, which is slow."""

_SELECTIVE = 8
"""If fewer than one row in this many is allowed, the codes of the allowed rows are copied first."""

_FEW = 1 << 20
"""If the allowed rows have at most so many numbers, their codes are not read, because the bounds would save no time."""

_MANY = 128
"""If a quarter of so many more than `1.25 * k` rows may be hits, they are scored approximately first."""

_LOWEST = np.finfo(np.float32).min
"""A number that each upper bound of a row that may be a hit exceeds."""


class DenseMatrix:
    """The dense vectors of one segment. They never change.

    Attributes:
        array: Vectors, float32 of shape (rows, dimensions), C-contiguous. A row of zeros is never a hit.
        norms: Euclidean lengths rounded up, float32 of shape (rows,). Only rows of zeros have 0.
        metric: Metric, as in `hybridsearch.vectors.DenseVectors`.
        graph: Graph for approximate search, or None.
    """

    LAYOUT: ClassVar[Layout] = {
        "vectors": (np.float32, 2),
        "norms": (np.float32, 1),
        "codes": (np.int8, 2),
        "scales": (np.float32, 1),
        "residuals": (np.float32, 1),
        "graph": (np.uint8, 1),
    }
    """The layout of `arrays`."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"codes", "scales", "residuals", "graph"})
    """The arrays that may be missing. Codes are then made when they are first needed."""

    def __init__(
        self,
        array: NDArray[np.float32],
        norms: NDArray[np.float32],
        metric: Metric,
        codes: Codes | None = None,
        graph: Graph | None = None,
    ) -> None:
        self.array, self.norms, self.metric, self.graph = array, norms, metric, graph
        if codes is not None:
            self.codes = codes
        self._longest = float(norms.max(initial=0.0))
        self._mapped = _mapping(array) if array.nbytes > _KEPT else None

    @cached_property
    def codes(self) -> Codes:
        """The codes of the vectors."""
        codes = Codes.of(self.array)
        if np.isnan(codes.residuals).any():
            raise damaged_vector()
        return codes

    @classmethod
    def from_vectors(cls, vectors: DenseVectors) -> DenseMatrix:
        array = np.array(vectors.array, order="C")  # a copy, because the caller may change its array
        return cls(array, _norms(array), vectors.metric)

    @classmethod
    def merge(cls, parts: Sequence[tuple[DenseMatrix, NDArray[np.bool_] | None]]) -> DenseMatrix:
        """The rows of all parts. Each part has a mask of the rows to keep. None keeps all rows."""
        array = concat([(part.array, keep) for part, keep in parts])
        norms = concat([(part.norms, keep) for part, keep in parts])
        return cls(array, norms, parts[0][0].metric, Codes.concat([(part.codes, keep) for part, keep in parts]))

    @classmethod
    def from_arrays(cls, arrays: Arrays, rows: int, dimensions: int, metric: Metric) -> DenseMatrix:
        """A matrix with `rows` rows over these arrays, without copying. This is the inverse of `arrays`.

        Raises:
            DamagedArrayError: The arrays do not fit together.
        """
        names = [name for name in ("vectors", "codes") if name in arrays]
        for name in names:
            check_length(arrays, name, rows)
            if arrays[name].shape[1] != dimensions:
                raise DamagedArrayError(name, f"it has {arrays[name].shape[1]} dimensions, not {dimensions}")
        check_sizes(arrays, "norms", rows)
        codes = None
        if cls.OPTIONAL - {"graph"} <= arrays.keys():
            check_sizes(arrays, "scales", rows)
            check_sizes(arrays, "residuals", rows)
            codes = Codes(arrays["codes"], arrays["scales"], arrays["residuals"])
        graph = Graph.from_array(arrays["graph"], rows, codes) if "graph" in arrays else None
        return cls(arrays["vectors"], arrays["norms"], metric, codes, graph)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole matrix as plain arrays, to save them."""
        arrays: dict[str, NDArray[Any]] = {
            "vectors": self.array,
            "norms": self.norms,
            "codes": self.codes.values,
            "scales": self.codes.scales,
            "residuals": self.codes.residuals,
        }
        return arrays if self.graph is None else {**arrays, "graph": self.graph.to_array()}

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays, with those of the codes, also if these are not made yet."""
        return self.array.nbytes + self.array.size + 3 * self.norms.nbytes

    def build_graph(self) -> None:
        """Make `graph` if there is none. This takes about a second for each ten thousand rows."""
        if self.graph is None:
            self.graph = Graph.build(self.array, self.codes, self.metric, self.norms > 0)

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
        rows = self._rows(allowed, owners, len(queries))
        found = []
        block = max(1, _SCORES // max(1, len(rows.norms)))
        for start in range(0, len(queries), block):
            part = queries[start : start + block]
            for query, near in zip(part, self._near(part, k, rows), strict=True):
                found.append(self.best(query, near, k, order, owners))
        return found

    def search_graph(
        self, queries: NDArray[np.float32], k: int, order: NDArray[np.int32], live: NDArray[np.bool_] | None
    ) -> list[Hits]:
        """The best `k` rows that the graph finds for each query, with exact scores.

        If the graph finds fewer than `k` rows and does not reach all others, the search is exact.
        """
        if self.graph is None:
            return self.search(queries, k, order, live)
        found = []
        for query in queries:
            near = self.graph.search(query, k, live)
            if len(near) < k and len(near) < len(_Rows(None, self.norms, live, None).possible):
                found += self.search(query[None], k, order, live)
            else:
                found.append(self.best(query, near, k, order))
        return found

    def _rows(self, allowed: NDArray[np.bool_] | None, owners: NDArray[np.int32] | None, queries: int) -> _Rows:
        """The rows that a search of some queries reads. The codes of allowed rows are copied once for all queries."""
        if allowed is None or np.count_nonzero(allowed) * _SELECTIVE >= len(allowed):
            return _Rows(self.codes, self.norms, allowed, owners)
        numbers = np.flatnonzero(allowed)
        own = None if owners is None else owners[numbers]
        few = len(numbers) * self.array.shape[1] * min(queries, 4) <= _FEW
        return _Rows(None if few else self.codes.take(numbers), self.norms[numbers], None, own, numbers)

    def _near(self, queries: NDArray[np.float32], k: int, rows: _Rows) -> Iterator[NDArray[np.int64]]:
        """The rows that may be among the best `k` of each query. With owners, those of the best `k` owners."""
        for query, bounded in zip(queries, self._bounded(queries, k, rows), strict=True):
            if not query.any():
                yield np.empty(0, dtype=np.int64)
                continue
            many = 4 * len(bounded) > 5 * k + _MANY
            near = bounded[self._nearer(query, rows, bounded, k)] if many else bounded
            yield near if rows.numbers is None else rows.numbers[near]

    def _bounded(self, queries: NDArray[np.float32], k: int, rows: _Rows) -> Iterator[NDArray[np.int64]]:
        """The rows that may be among the best by the bounds of their codes."""
        if rows.codes is None:
            yield from repeat(rows.possible, len(queries))
            return
        coded = CodedQueries.of(queries, self.metric, self._longest)
        uppers, floors = rows.bounds(rows.codes, coded, max(1, min(k, len(rows.norms))))
        for upper, floor, bounded in zip(uppers, floors, coded.bounded.tolist(), strict=True):
            yield np.flatnonzero(upper >= floor) if bounded else rows.possible

    def _nearer(self, query: NDArray[np.float32], rows: _Rows, near: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
        """A mask of the rows in `near` that may be among the best `k`, by float64 sums in any order.

        With u = 2^-53 and g = d u / (1 - d u), the error of a sum of d products is at most g |x| |q|. The error of a
        squared distance is at most g times this distance. Two squared distances may differ and have equal square roots
        in float64.
        """
        wide, numbers = query.astype(np.float64), near if rows.numbers is None else rows.numbers[near]
        scores = loops.approximate(self.array, numbers, wide, self.metric == "euclidean")
        error = (len(query) + 32) * 2.0**-50
        if self.metric == "euclidean":
            margins = -error * scores
        else:
            margins = error * float(np.linalg.norm(wide)) * rows.norms[near].astype(np.float64)
        lowers = scores - margins
        if rows.owners is not None:
            lowers = np.maximum.reduceat(lowers, np.flatnonzero(np.diff(rows.owners[near], prepend=-1)))
        least = np.partition(lowers, len(lowers) - k)[len(lowers) - k] if len(lowers) > k else -np.inf
        return ~(scores + margins < least)  # a damaged vector stays, so that it is noticed

    def score(self, query: NDArray[np.float32], rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """The exact scores of some rows, in their order. They are right for rows of zeros, too, which are no hits."""
        wide = query.astype(np.float64)
        scores = np.empty(len(rows), dtype=np.float64)
        for start in range(0, len(rows), _PART):
            part = self.array.take(rows[start : start + _PART], axis=0).astype(np.float64)
            if self.metric == "euclidean":
                part -= wide
                part *= part
                scores[start : start + _PART] = -np.sqrt(part.sum(axis=1))
            else:
                part *= wide
                scores[start : start + _PART] = part.sum(axis=1)
        if self._mapped is not None:  # the system maps 64 KiB and more for each row, and keeps them in its own cache
            self._mapped.madvise(mmap.MADV_DONTNEED)
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
        if np.isnan(scores).any():
            raise damaged_vector()
        best = np.lexsort((order[rows], -scores))
        if owners is not None:
            best = best[first_of_each(owners[rows[best]])]
        best = best[:k]
        return rows[best].astype(np.int32), scores[best]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows that a search reads.

    Attributes:
        codes: Codes of the rows. None if the rows are so few that codes would save no time.
        norms: Lengths of the rows.
        allowed: Mask of the rows that may be hits. None allows all rows.
        owners: Document that each row is a passage of, ascending. None if each row is a document.
        numbers: Numbers of the rows in the matrix, ascending. None if these are all its rows.
    """

    codes: Codes | None
    norms: NDArray[np.float32]
    allowed: NDArray[np.bool_] | None
    owners: NDArray[np.int32] | None
    numbers: NDArray[np.int64] | None = None

    @property
    def possible(self) -> NDArray[np.int64]:
        """The rows that may be hits."""
        return np.flatnonzero(self.norms > 0 if self.allowed is None else self.allowed & (self.norms > 0))

    def bounds(self, codes: Codes, queries: CodedQueries, k: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Upper bounds of all scores, shape (queries, rows), and the smallest number that a hit's bound must reach.

        That is the k-th largest lower bound. With owners, it is the k-th largest among the best of each owner.
        """
        number, rows = len(queries.values), len(self.norms)
        uppers = np.empty((number, rows), dtype=np.float32)
        parts = threads.WORKERS if codes.values.size * number > _WORTH_SHARING else 1
        cuts = [rows * part // parts for part in range(parts + 1)]
        if self.owners is not None and parts > 1:  # no document is in two parts
            cuts[1:-1] = np.searchsorted(self.owners, self.owners[cuts[1:-1]]).tolist()
        ranges = [(first, last) for first, last in pairwise(cuts) if first < last]
        floors = np.full((max(1, len(ranges)), number, k), -np.inf, dtype=np.float32)
        threads.run(
            [
                partial(loops.bound, codes, self.norms, self.allowed, self.owners, queries, *range, uppers, floor)
                for range, floor in zip(ranges, floors, strict=False)
            ]
        )
        if len(floors) == 1:
            least = floors[0].min(axis=1)
        else:
            least = np.partition(np.concatenate(list(floors), axis=1), -k, axis=1)[:, -k]
        return uppers, np.maximum(least, _LOWEST)


def _mapping(array: NDArray[np.float32]) -> mmap.mmap | None:
    """The mapped file that has the array. None for an array in RAM, or if the system cannot give pages back."""
    owner: object = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    return owner if hasattr(mmap, "MADV_DONTNEED") else None


def damaged_vector() -> IndexCorruptedError:
    """The error for a vector that contains NaN, which no index stores."""
    return IndexCorruptedError(
        f"A vector of the index is damaged: it contains NaN. Open the index with verify=True, which names the damaged "
        f"file. Then {REPAIR}."
    )


def _norms(array: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.empty(len(array), dtype=np.float32)
    for start in range(0, len(array), 4096):
        part = array[start : start + 4096].astype(np.float64)
        exact = np.sqrt((part * part).sum(axis=1))
        norms[start : start + 4096] = rounded_up(exact)
    return norms
