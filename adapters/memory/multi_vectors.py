"""Late interaction: documents with the most similar mean vectors, compared with the query by their token vectors.

The mean vectors are in a `DenseMatrix`. Comparing token vectors finds the most similar one for each vector of the query
in float32. Only these are multiplied again in float64, always in the same order, and so are those that float32 cannot
tell apart. So the scores of the compared documents are exact. They do not depend on threads, on segments, or on the
documents beside them. The token vectors of an index in a folder stay on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import frexp, ldexp
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import loops, threads
from hybridsearch.adapters.memory.arrays import (
    Arrays,
    DamagedArrayError,
    Layout,
    check_sizes,
    check_starts,
)
from hybridsearch.adapters.memory.codes import concat, rounded_up
from hybridsearch.adapters.memory.dense import DenseMatrix, Hits, damaged_vector
from hybridsearch.adapters.memory.plain import WIDTH, first_of_each
from hybridsearch.vectors import DenseVectors, MultiVectors, members

_WORTH_SHARING = 1 << 24
"""The number of products (about 0.4 ms of work) from which several threads are faster than one."""

_PART = 64
"""Rows whose most similar vectors are multiplied again at a time."""

_NORMED = 1 << 14
"""Token vectors whose lengths are computed at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenQuery:
    """A query that is ready to be compared.

    Attributes:
        vectors: The vectors that are not zero, float64 of shape (vectors, dimensions).
        blocks: These in float32, multiplied by a power of two so that the largest number is from 0.5 to 1, of shape
            (blocks, dimensions, WIDTH). Zeros fill the last block.
        errors: Largest error of an inner product of each vector in `blocks` for a token vector of length 1, float64.
        mean: The mean of the vectors with length 1, float32 of shape (dimensions,).
    """

    vectors: NDArray[np.float64]
    blocks: NDArray[np.float32]
    errors: NDArray[np.float64]
    mean: NDArray[np.float32]

    @classmethod
    def of(cls, query: NDArray[np.float32]) -> TokenQuery:
        """Prepare the vectors of a query, of shape (vectors, dimensions), float32.

        The error of a sum of d products in float32 is at most d u / (1 - d u) |x| |q| with u = 2^-24 (Higham, Accuracy
        and Stability of Numerical Algorithms, section 3.1). The constant is for products that are too small for
        float32.
        """
        wide = query[query.any(axis=1)].astype(np.float64)
        number, dimensions = wide.shape
        scaled = (wide * ldexp(1.0, -frexp(np.abs(wide).max(initial=0.0))[1])).astype(np.float32)
        blocks = np.zeros((-(-number // WIDTH), WIDTH, dimensions), dtype=np.float32)
        blocks.reshape(-1, dimensions)[:number] = scaled
        errors = (dimensions + 8) * 2.0**-23 * np.linalg.norm(scaled.astype(np.float64), axis=1) + 2.0**-120
        mean = wide.mean(axis=0) if number else np.zeros(dimensions)
        length = float(np.linalg.norm(mean))
        if length == 0:
            mean[:1] = 1.0
        mean = mean / (length or 1.0)
        return cls(wide, np.ascontiguousarray(blocks.transpose(0, 2, 1)), errors, mean.astype(np.float32))

    def __len__(self) -> int:
        return len(self.vectors)


class TokenMatrix:
    """The token vectors of one segment. They never change.

    Attributes:
        tokens: Vectors of all rows, float16 of shape (vectors, dimensions), C-contiguous.
        starts: First vector of each row, int64 of shape (rows + 1,). A row without vectors is never a hit.
        longest: Euclidean length of the longest vector of each row, rounded up, float32 of shape (rows,).
        pooled: Means of the vectors of each row.
    """

    LAYOUT: ClassVar[Layout] = {
        "tokens": (np.float16, 2),
        "starts": (np.int64, 1),
        "longest": (np.float32, 1),
        **{name: kind for name, kind in DenseMatrix.LAYOUT.items() if name != "graph"},
    }
    """The layout of `arrays`."""

    OPTIONAL: ClassVar[frozenset[str]] = DenseMatrix.OPTIONAL - {"graph"}
    """The arrays that may be missing."""

    def __init__(
        self, tokens: NDArray[np.float16], starts: NDArray[np.int64], longest: NDArray[np.float32], pooled: DenseMatrix
    ) -> None:
        self.tokens, self.starts, self.longest, self.pooled = tokens, starts, longest, pooled

    @classmethod
    def from_vectors(cls, vectors: MultiVectors) -> TokenMatrix:
        tokens, starts = vectors.array.copy(), vectors.offsets.copy()  # because the caller may change its arrays
        pooled = DenseMatrix.from_vectors(DenseVectors(vectors.pooled(), "cosine"))
        return cls(tokens, starts, _longest(tokens, starts), pooled)

    @classmethod
    def merge(cls, parts: Sequence[tuple[TokenMatrix, NDArray[np.bool_] | None]]) -> TokenMatrix:
        """The rows of all parts. Each part has a mask of the rows to keep. None keeps all rows."""
        counts = concat([(np.diff(part.starts), keep) for part, keep in parts])
        tokens = [
            (part.tokens, None if keep is None else np.repeat(keep, np.diff(part.starts))) for part, keep in parts
        ]
        return cls(
            concat(tokens),
            np.concatenate([[0], np.cumsum(counts)]),
            concat([(part.longest, keep) for part, keep in parts]),
            DenseMatrix.merge([(part.pooled, keep) for part, keep in parts]),
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays, rows: int, dimensions: int) -> TokenMatrix:
        """A matrix with `rows` rows over these arrays, without copying. This is the inverse of `arrays`.

        Raises:
            DamagedArrayError: The arrays do not fit together.
        """
        tokens = arrays["tokens"]
        if tokens.shape[1] != dimensions:
            raise DamagedArrayError("tokens", f"it has {tokens.shape[1]} dimensions, not {dimensions}")
        check_starts(arrays, "starts", rows, len(tokens))
        check_sizes(arrays, "longest", rows)
        pooled = DenseMatrix.from_arrays(arrays, rows, dimensions, "cosine")
        return cls(tokens, arrays["starts"], arrays["longest"], pooled)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole matrix as plain arrays, to save them."""
        return {"tokens": self.tokens, "starts": self.starts, "longest": self.longest, **self.pooled.arrays()}

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self.tokens.nbytes + self.starts.nbytes + self.longest.nbytes + self.pooled.nbytes

    def to_vectors(self, rows: NDArray[np.integer]) -> MultiVectors:
        """The vectors of some rows, in their order."""
        offsets, places = members(self.starts, rows)
        return MultiVectors(self.tokens[places], offsets)

    def filled(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """A mask of those of some rows that have vectors."""
        filled: NDArray[np.bool_] = self.starts[rows] < self.starts[rows + 1]
        return filled

    def score(self, query: TokenQuery, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The exact scores of some rows, in their order. Minus infinity stands for a row without vectors."""
        scores = np.full(len(rows), -np.inf)
        places = np.flatnonzero(self.filled(rows))
        if len(query):
            scores[places] = self._exact(query, rows[places], self._compare(query, rows[places]))
        return scores

    def best(
        self,
        query: TokenQuery,
        rows: NDArray[np.int64],
        k: int,
        order: NDArray[np.int32],
        owners: NDArray[np.int32] | None = None,
    ) -> Hits:
        """The best `k` of some rows with exact scores. With `owners`, the best row of each of the best `k` owners.

        Args:
            query: Query. Without vectors it has no hits.
            rows: Rows to compare, ascending.
            k: Number of rows, at least 1.
            order: Numbers that order equal scores, ascending, shape (all rows,).
            owners: Number of the document that each row is a passage of, ascending, shape (all rows,). Default None:
                each row is a document.
        """
        rows = rows[self.filled(rows)] if len(query) else rows[:0]
        if not len(rows):
            return rows.astype(np.int32), np.empty(0)
        found = self._compare(query, rows)
        totals = found.tops.sum(axis=1, dtype=np.float64)
        margins = query.errors.sum() * self.longest[rows].astype(np.float64)
        lowers = totals - margins
        if owners is not None:
            lowers = np.maximum.reduceat(lowers, np.flatnonzero(np.diff(owners[rows], prepend=-1)))
        if len(lowers) > k:
            near = totals + margins >= np.partition(lowers, len(lowers) - k)[len(lowers) - k]
            rows, found = rows[near], found.take(near)
        scores = self._exact(query, rows, found)
        if np.isnan(scores).any():
            raise damaged_vector()
        best = np.lexsort((order[rows], -scores))
        if owners is not None:
            best = best[first_of_each(owners[rows[best]])]
        best = best[:k]
        return rows[best].astype(np.int32), scores[best]

    def _compare(self, query: TokenQuery, rows: NDArray[np.int64]) -> _Found:
        """The most similar vectors of some rows, all of which have vectors."""
        shape = len(rows), len(query.blocks) * WIDTH
        tops, seconds = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        places = np.empty(shape, dtype=np.int32)
        ends = np.cumsum(self.starts[rows + 1] - self.starts[rows])
        products = int(ends[-1]) * query.blocks.size if len(rows) else 0
        parts = threads.WORKERS if products > _WORTH_SHARING else 1
        cuts = [0, *np.searchsorted(ends, [ends[-1] * part // parts for part in range(1, parts)]).tolist(), len(rows)]
        compare = partial(loops.most_similar, self.tokens, self.starts, rows, query.blocks)
        threads.run(
            [partial(compare, first, last, tops, seconds, places) for first, last in pairwise(cuts) if first < last]
        )
        return _Found(tops[:, : len(query)], seconds[:, : len(query)], places[:, : len(query)])

    def _exact(self, query: TokenQuery, rows: NDArray[np.int64], found: _Found) -> NDArray[np.float64]:
        """The scores of some rows in float64."""
        products = np.empty(found.tops.shape)
        first = self.starts[rows][:, None]
        for start in range(0, len(rows), _PART):
            part = slice(start, start + _PART)
            chosen = self.tokens[first[part] + found.places[part]].astype(np.float64)
            chosen *= query.vectors
            products[part] = chosen.sum(axis=2)
        errors = 2 * query.errors * self.longest[rows].astype(np.float64)[:, None]
        for place, number in np.argwhere(found.tops - found.seconds <= errors).tolist():
            row = rows[place]
            similar = self.tokens[self.starts[row] : self.starts[row + 1]].astype(np.float64) * query.vectors[number]
            products[place, number] = similar.sum(axis=1).max()
        scores: NDArray[np.float64] = products.sum(axis=1)
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What `loops.most_similar` finds: arrays of shape (rows, vectors of the query)."""

    tops: NDArray[np.float32]
    seconds: NDArray[np.float32]
    places: NDArray[np.int32]

    def take(self, rows: NDArray[np.bool_]) -> _Found:
        return _Found(self.tops[rows], self.seconds[rows], self.places[rows])


def _longest(tokens: NDArray[np.float16], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The length of the longest vector of each row, rounded up."""
    lengths = np.empty(len(tokens), dtype=np.float64)
    for start in range(0, len(tokens), _NORMED):
        part = tokens[start : start + _NORMED].astype(np.float64)
        lengths[start : start + _NORMED] = np.sqrt(np.einsum("ij,ij->i", part, part))
    longest = np.zeros(len(starts) - 1)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        longest[filled] = np.maximum.reduceat(lengths, starts[filled])
    return rounded_up(longest)
