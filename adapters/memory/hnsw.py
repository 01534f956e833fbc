"""Approximate dense search with a graph of neighbours (HNSW) by the library usearch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.corpus.files import REPAIR
from hybridsearch.errors import IndexCorruptedError, MissingExtraError
from hybridsearch.vectors import Metric

MIN_ROWS = 8192
"""The smallest segment that gets a graph. Exact search of a smaller segment takes a fraction of a millisecond."""

_CONNECTIVITY = 16
_EXPANSION_ADD = 128
_EXPANSION_SEARCH = 96
_WAY_OUT = f"Open it without hnsw, or {REPAIR}."


class Graph:
    """A navigable small-world graph over the rows of a matrix (Malkov and Yashunin, 2016). Its vectors are bfloat16."""

    def __init__(self, rows: int, index: Any = None, raw: NDArray[np.uint8] | None = None) -> None:
        self._rows, self._raw = rows, raw
        if index is not None:
            self._index = index

    @cached_property
    def _index(self) -> Any:
        """The graph of usearch. It is read when it is first used, so that exact search works without usearch."""
        restore = _usearch().restore
        try:
            index = restore(self._raw, view=True)
        except Exception as error:  # usearch may raise any error
            raise IndexCorruptedError(f"A graph of the index is damaged ({error}). {_WAY_OUT}") from error
        if index is None:
            raise IndexCorruptedError(f"A graph of the index is damaged. {_WAY_OUT}")
        index.expansion_search = _EXPANSION_SEARCH
        return index

    @classmethod
    def build(cls, array: NDArray[np.float32], metric: Metric, wanted: NDArray[np.bool_] | None) -> Graph:
        """A new graph of the rows in the mask `wanted`, or of all rows for None.

        Raises:
            MissingExtraError: usearch is not installed.
        """
        index = _usearch()(
            ndim=array.shape[1],
            metric="l2sq" if metric == "euclidean" else "ip",
            dtype="bf16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        rows = np.arange(len(array)) if wanted is None else np.flatnonzero(wanted)
        for start in range(0, len(rows), 8192):
            part = rows[start : start + 8192]
            index.add(part.astype(np.uint64), array[part])
        return cls(len(array), index)

    @classmethod
    def from_array(cls, raw: NDArray[np.uint8], rows: int) -> Graph:
        """The graph in these bytes, for a matrix with `rows` rows, without copying. The inverse of `to_array`."""
        return cls(rows, raw=raw)

    def to_array(self) -> NDArray[np.uint8]:
        """The whole graph as bytes, to save it."""
        if self._raw is not None:
            return self._raw
        return np.frombuffer(self._index.save(), dtype=np.uint8)

    def search(self, query: NDArray[np.float32], k: int, live: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Rows near `query` that are not deleted: a few more than `k`, because of rounding, or all rows."""
        wanted = k + 16
        while True:
            keys = self._index.search(query, min(wanted, len(self._index))).keys
            found: NDArray[np.int64] = keys.astype(np.int64)
            if len(found) and not 0 <= int(found.min()) <= int(found.max()) < self._rows:
                raise IndexCorruptedError(
                    f"A graph of the index is damaged: it finds rows that do not exist. {_WAY_OUT}"
                )
            if live is None:
                return found
            alive: NDArray[np.int64] = found[live[found]]
            if len(alive) >= k or wanted >= len(self._index):
                return alive
            wanted *= 2


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise MissingExtraError("usearch", "hnsw", "Approximate dense search (hnsw=True)") from None
    return Index
