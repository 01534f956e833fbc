"""Points as Qdrant has them: the numbers of terms, and vectors.

Qdrant numbers the dimensions of a sparse vector with 32 bits. A second collection, `NAME-terms`, says which term has
which number: its points have the number as id and the term as payload. A term takes the first free number of a
sequence that is hashed from the term itself; numbers are only ever inserted, never changed, so that all writers agree
without a lock, and a number that another term has taken, as happens to a few among 100,000, is passed over. A reader
looks up terms that it has not seen before in one small request, and never takes one term for another.
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
"""Most terms or ids in one request."""

MAX_REMEMBERED_TERMS = 1_000_000
"""Terms whose numbers are kept in memory, some 150 MB; then they are looked up anew."""

_NO_TERM = 0

Row: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""The numbers of the terms of one document, ascending, and their values."""


class Terms:
    """The numbers of terms, as they are in a collection, and as far as they have been asked for."""

    def __init__(self, index: Index) -> None:
        self.collection = index.terms
        self.mark = index.mark
        self._numbers: dict[str, int] = {}

    def numbers(self, terms: Sequence[str], *, insert: bool = False) -> Steps[dict[str, int]]:
        """The number of each term; a term that no document has is left out, or gets one where `insert`."""
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
                if free:  # read again afterwards: another writer may have been faster
                    points = [models.PointStruct(id=n, vector={}, payload={"term": t}) for n, t in free.items()]
                    only_new = models.UpdateMode.INSERT_ONLY
                    yield call(self.collection, "upsert", points=points, update_mode=only_new, wait=True)
        return {term: known[term] for term in terms if term in known}

    def names(self, numbers: Sequence[int]) -> Steps[dict[int, str]]:
        """The inverse of `numbers`."""
        terms: dict[int, str] = {}
        for start in range(0, len(numbers), MAX_LOOK_UP):
            ids = numbers[start : start + MAX_LOOK_UP]
            found = yield call(self.collection, "retrieve", ids=ids, with_payload=True)
            terms |= {point.id: point.payload["term"] for point in found}
        return terms


def number_of(term: str, attempt: int) -> int:
    """The number that a term takes if the earlier attempts found theirs taken: 32 bits, never 0.

    >>> number_of("wing", 0) == number_of("wing", 0) != number_of("wing", 1)
    True
    """
    salt = attempt.to_bytes(8, "little")
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4, salt=salt).digest()
    return int.from_bytes(digest, "little") or 1


def length_of(point: models.PointStruct) -> int:
    """About how many characters a point has as JSON."""
    payload: dict[str, Any] = point.payload or {}
    document = payload["document"]
    vectors: Any = point.vector
    numbers = sum(len(v) if isinstance(v, list) else 2 * len(v.indices) for v in vectors.values())
    numbers += sum(2 * len(counts["terms"]) for key, counts in payload.items() if key.startswith("counts"))
    return len(document["text"]) + len(document["title"]) + 6 * len(document["metadata"]) + 22 * numbers


def used_terms(vectors: Vectors) -> Iterator[str]:
    if isinstance(vectors, SparseVectors):
        terms, matrix = vectors.vocabulary.terms, vectors.matrix
        for column in np.unique(matrix.indices[matrix.data != 0]).tolist():
            yield terms[column]


def sparse_rows(vectors: SparseVectors, numbers: dict[str, int]) -> list[Row]:
    """The rows of `vectors` without zeros."""
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
    """The inverse of `sparse_rows`."""
    numbers = np.array([number for found, _ in rows for number in found], dtype=np.int64)
    data = np.array([value for _, values in rows for value in values], dtype=np.float32)
    ends = np.cumsum([0, *(len(found) for found, _ in rows)])
    used, columns = np.unique(numbers, return_inverse=True)
    parts = data, columns.astype(np.int32), ends.astype(np.int32)
    matrix: csr_array[np.float32, tuple[int, int]] = csr_array(parts, shape=(len(rows), len(used)))
    return SparseVectors(matrix, Vocabulary([terms[number] for number in used.tolist()]))
