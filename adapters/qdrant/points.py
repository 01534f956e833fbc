"""The numbers of terms, and the vectors of points.

In a sparse vector of Qdrant, a term is a number of 32 bits. A second collection, `NAME-terms`, records which term has
which number: the id of a point is the number, and its payload is the term. Hashes of the term give a sequence of
numbers, and the term takes the first number that is free. Of 100,000 terms, a few find their first number taken.

Numbers are inserted but never changed. So all writers agree without a lock. A reader looks up new terms in one small
request, and never takes one term for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models
from scipy.sparse import csr_array

from hybridsearch.adapters.qdrant.connection import Steps, call
from hybridsearch.adapters.qdrant.index import Index
from hybridsearch.vectors import SparseVectors, Vectors, Vocabulary
from hybridsearch.weighting import BM25Weighting

MAX_LOOK_UP = 10_000
"""The largest number of terms or ids in one request."""

MAX_REMEMBERED_TERMS = 1_000_000
"""The number of terms whose numbers are kept in memory, about 150 MB. Beyond it, all are looked up again."""

_NO_TERM = 0

Row: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""The numbers of the terms of one document, in ascending order, and their values."""


class Terms:
    """The numbers of terms in a collection. It remembers those that were asked for."""

    def __init__(self, index: Index) -> None:
        self.collection = index.terms
        self.mark = index.mark
        self._numbers: dict[str, int] = {}

    def numbers(self, terms: Sequence[str], *, insert: bool = False) -> Steps[dict[str, int]]:
        """The number of each term. A term that has no number gets one if `insert` is true, else it is left out."""
        if len(self._numbers) > MAX_REMEMBERED_TERMS:
            self._numbers = {}
        known = self._numbers
        missing = [term for term in terms if term not in known]
        for start in range(0, len(missing), MAX_LOOK_UP):
            trying = dict.fromkeys(missing[start : start + MAX_LOOK_UP], 0)
            while trying:
                wanted = {term: number_of(term, attempt) for term, attempt in trying.items()}
                found = yield call(self.collection, "retrieve", ids=sorted({*wanted.values()}), with_payload=True)
                holder = {point.id: point.payload["term"] for point in found}
                free: dict[int, str] = {}
                for term, number in wanted.items():
                    if holder.get(number) == term:
                        known[term] = number
                        del trying[term]
                    elif number in holder:
                        trying[term] += 1
                    elif insert:
                        free.setdefault(number, term)
                    else:
                        del trying[term]
                if free:  # the loop reads them again, because another writer may have been faster
                    points = [models.PointStruct(id=n, vector={}, payload={"term": t}) for n, t in free.items()]
                    only_new = models.UpdateMode.INSERT_ONLY
                    yield call(self.collection, "upsert", points=points, update_mode=only_new, wait=True)
        return {term: known[term] for term in terms if term in known}

    def names(self, numbers: Sequence[int]) -> Steps[dict[int, str]]:
        """The term of each number. This is the inverse of `numbers`."""
        terms: dict[int, str] = {}
        for start in range(0, len(numbers), MAX_LOOK_UP):
            ids = numbers[start : start + MAX_LOOK_UP]
            found = yield call(self.collection, "retrieve", ids=ids, with_payload=True)
            terms |= {point.id: point.payload["term"] for point in found}
        return terms


def number_of(term: str, attempt: int) -> int:
    """The number that a term tries at this attempt, after other terms had the numbers before. 32 bits, never 0.

    >>> number_of("wing", 0) == number_of("wing", 0) != number_of("wing", 1)
    True
    """
    salt = attempt.to_bytes(8, "little")
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4, salt=salt).digest()
    return int.from_bytes(digest, "little") or 1


def length_of(point: models.PointStruct) -> int:
    """The approximate number of characters of a point as JSON."""
    payload: dict[str, Any] = point.payload or {}
    document = payload.get("document", {"text": "", "title": "", "metadata": "".join(payload["tokens"])})
    vectors: Any = point.vector
    numbers = sum(np.size(v) if isinstance(v, list) else 2 * len(v.indices) for v in vectors.values())
    numbers += sum(2 * len(counts["terms"]) for key, counts in payload.items() if key.startswith("counts"))
    numbers += len(payload.get("spans", ()))
    return len(document["text"]) + len(document["title"]) + 6 * len(document["metadata"]) + 22 * numbers


def used_terms(vectors: Vectors) -> Iterator[str]:
    if isinstance(vectors, SparseVectors):
        terms, matrix = vectors.vocabulary.terms, vectors.matrix
        for column in np.unique(matrix.indices[matrix.data != 0]).tolist():
            yield terms[column]


def sparse_rows(vectors: SparseVectors, numbers: dict[str, int]) -> list[Row]:
    """The rows of `vectors`, without their zeros."""
    matrix = vectors.matrix
    number = np.array([numbers.get(term, _NO_TERM) for term in vectors.vocabulary.terms], dtype=np.int64)
    rows = []
    for start, end in zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True):
        values = matrix.data[start:end]
        found, values = number[matrix.indices[start:end]][values != 0], values[values != 0]
        order = np.argsort(found)
        rows.append((found[order], values[order]))
    return rows


def weigh(row: Row, weighting: BM25Weighting, average_length: float) -> Row:
    numbers, frequencies = row
    length = np.array(frequencies.sum(dtype=np.float64), dtype=np.float32)
    return numbers, weighting.term_weights(frequencies, length, average_length)


def sparse_vector(row: Row, *, anchored: bool) -> models.SparseVector | None:
    numbers, values = row
    if len(numbers):
        return models.SparseVector(indices=numbers.tolist(), values=values.tolist())
    return models.SparseVector(indices=[_NO_TERM], values=[1.0]) if anchored else None


def from_rows(rows: Sequence[tuple[list[int], list[float]]], terms: dict[int, str]) -> SparseVectors:
    """The vectors of these rows. This is the inverse of `sparse_rows`."""
    numbers = np.array([number for found, _ in rows for number in found], dtype=np.int64)
    data = np.array([value for _, values in rows for value in values], dtype=np.float32)
    ends = np.cumsum([0, *(len(found) for found, _ in rows)])
    used, columns = np.unique(numbers, return_inverse=True)
    parts = data, columns.astype(np.int32), ends.astype(np.int32)
    matrix: csr_array[np.float32, tuple[int, int]] = csr_array(parts, shape=(len(rows), len(used)))
    return SparseVectors(matrix, Vocabulary([terms[number] for number in used.tolist()]))
