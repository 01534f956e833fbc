"""Small random indexes with a lexical, a sparse and a dense retriever."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Fingerprint, Request, RetrieverSchema, Schema
from hybridsearch.documents import Document
from hybridsearch.testing.samples import with_passages
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    Metric,
    PassageSpans,
    SparseQuery,
    SparseVectors,
    Vocabulary,
)

TERMS = 40
DIMENSIONS = 8


class Samples:
    """Documents whose content depends only on their id and a version, so that two indexes can be compared.

    Args:
        passages: Whether each document has one to three passages, which all retrievers read.
    """

    def __init__(self, passages: bool = False) -> None:
        self.passages = passages

    def schema(self, metric: Metric = "cosine") -> Schema:
        schema = Schema(
            {
                "bm25": RetrieverSchema("lexical", Fingerprint("bm25", {}), weighting={"k1": 1.2, "b": 0.75}),
                "sparse": RetrieverSchema("sparse", Fingerprint("sparse", {})),
                "dense": RetrieverSchema("dense", Fingerprint("dense", {}), dimensions=DIMENSIONS, metric=metric),
            }
        )
        return with_passages(schema) if self.passages else schema

    def batch(self, ids: Sequence[str], version: int = 0) -> EncodedBatch:
        counts = [sum(id.encode()) % 3 + 1 if self.passages else 1 for id in ids]
        rows = [
            self._row(f"{id}{'.' * n}", version) for id, count in zip(ids, counts, strict=True) for n in range(count)
        ]
        vocabulary = Vocabulary([f"t{number}" for number in range(TERMS)])

        def sparse(number: int) -> SparseVectors:
            dense = np.array([row[number] for row in rows], dtype=np.float32).reshape(len(rows), TERMS)
            return SparseVectors(csr_array(dense), vocabulary)

        array = np.array([row[2] for row in rows], dtype=np.float32).reshape(len(rows), DIMENSIONS)
        documents = [
            Document(id, f"text of {id}, version {version}", f"title {id}", {"n": sum(id.encode()) % 10, "v": version})
            for id in ids
        ]
        vectors = {"bm25": sparse(0), "sparse": sparse(1), "dense": DenseVectors(array)}
        spans = [[(5 * n, 5 * n + 5) for n in range(count)] for count in counts]
        return EncodedBatch(documents, vectors, PassageSpans.of(spans) if self.passages else None)

    def requests(self, k: int = 10) -> list[Request]:
        rng = np.random.default_rng(7)
        queries = [SparseQuery(("t3", "t1", "no such term"), np.float32([1, 2, 1])), SparseQuery((), np.float32([]))]
        queries += [
            SparseQuery(tuple(f"t{term}" for term in rng.choice(TERMS, 4, replace=False)), rng.random(4, np.float32))
            for _ in range(3)
        ]
        listed = 2 * self.passages
        requests = [Request(name, query, k, None, listed) for name in ("bm25", "sparse") for query in queries]
        vectors = rng.standard_normal((3, DIMENSIONS), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return requests + [Request("dense", vector, k, None, listed) for vector in vectors]

    def backend(self, location: Any = None, ids: Sequence[str] = (), **options: Any) -> MemoryBackend:
        backend = MemoryBackend(location, **options)
        backend.create(self.schema())
        if ids:
            backend.upsert(self.batch(ids))
        return backend

    def _row(self, id: str, version: int) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng([version, *id.encode()])
        counts = rng.integers(1, 4, TERMS) * (rng.random(TERMS) < 0.2)
        weights = rng.random(TERMS) * (rng.random(TERMS) < 0.2)
        vector = rng.standard_normal(DIMENSIONS)
        return counts, weights, vector / np.linalg.norm(vector)


@pytest.fixture(scope="session")
def samples() -> Samples:
    return Samples()


@pytest.fixture(scope="session", autouse=True)
def _by_compiled_loops(compiled_loops: ModuleType) -> None:
    """Use the compiled loops in these tests. `test_loops.py` compares them with the loops of NumPy."""
