"""Approximate dense search with a graph of neighbours (HNSW) by the library usearch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory.codes import Codes
from hybridsearch.corpus.files import REPAIR
from hybridsearch.errors import IndexCorruptedError, MissingExtraError
from hybridsearch.vectors import Metric

MIN_ROWS = 8192
"""The smallest segment that gets a graph. Exact search of a smaller segment takes a fraction of a millisecond."""

_CONNECTIVITY = 16
_EXPANSION_ADD = 96
_EXPANSION_SEARCH = 144
_COARSEST = 16
"""If the largest scale is so many times the median, int8 vectors of one scale are too coarse for most rows."""

_WAY_OUT = f"Open it without hnsw, or {REPAIR}."


class Graph:
    """A navigable small-world graph over the rows of a matrix (Malkov and Yashunin, 2016).

    Its vectors are int8 numbers of one scale, made from the codes of the rows. If the lengths of the rows differ too
    much for that, they are bfloat16. Graphs of earlier versions have bfloat16, too.
    """

    def __init__(self, rows: int, step: float, index: Any = None, raw: NDArray[np.uint8] | None = None) -> None:
        self._rows, self._step, self._raw = rows, step, raw
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
    def build(cls, array: NDArray[np.float32], codes: Codes, metric: Metric, wanted: NDArray[np.bool_]) -> Graph:
        """A new graph of the rows in the mask `wanted`.

        Raises:
            MissingExtraError: usearch is not installed.
        """
        rows, step = np.flatnonzero(wanted), _step(codes)
        small = not len(rows) or step <= _COARSEST * float(np.median(codes.scales[rows]))
        index = _usearch()(
            ndim=array.shape[1],
            metric="l2sq" if metric == "euclidean" else "ip",
            dtype="i8" if small else "bf16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        for start in range(0, len(rows), 8192):
            part = rows[start : start + 8192]
            vectors: NDArray[Any] = array[part]
            if small:
                vectors = np.rint(codes.values[part] * (codes.scales[part] / np.float32(step))[:, None]).astype(np.int8)
            index.add(part.astype(np.uint64), vectors)
        return cls(len(array), step, index)

    @classmethod
    def from_array(cls, raw: NDArray[np.uint8], rows: int, codes: Codes | None) -> Graph:
        """The graph in these bytes, for a matrix with `rows` rows, without copying. The inverse of `to_array`."""
        return cls(rows, 1.0 if codes is None else _step(codes), raw=raw)

    def to_array(self) -> NDArray[np.uint8]:
        """The whole graph as bytes, to save it."""
        if self._raw is not None:
            return self._raw
        return np.frombuffer(self._index.save(), dtype=np.uint8)

    def search(self, query: NDArray[np.float32], k: int, live: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Rows near `query` that are not deleted: a few more than `k`, because of rounding, or all that it reaches."""
        if not len(self._index):
            return np.empty(0, dtype=np.int64)
        wanted = k + 16
        vector = self._vector(query)
        while True:
            keys = self._index.search(vector, min(wanted, len(self._index))).keys
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

    def _vector(self, query: NDArray[np.float32]) -> NDArray[Any]:
        """The query in numbers of the graph. Its scale does not matter for inner products."""
        if not self._small:
            return query
        step = self._step if self._fixed else float(np.abs(query).max(initial=0)) / 127
        return np.rint(query / np.float64(step or 1)).clip(-127, 127).astype(np.int8)

    @cached_property
    def _small(self) -> bool:
        """Whether the vectors of the graph are int8."""
        return bool(self._index.dtype.name == "I8")

    @cached_property
    def _fixed(self) -> bool:
        """Whether queries need the scale of the rows."""
        return bool(self._index.metric_kind.name == "L2sq")


def _step(codes: Codes) -> float:
    """The step of the int8 vectors, so that the largest number is 127."""
    return float(codes.scales.max(initial=0)) or 1.0


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise MissingExtraError("usearch", "hnsw", "Approximate dense search (hnsw=True)") from None
    return Index
