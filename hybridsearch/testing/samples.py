"""The data of the conformance tests: small documents with vectors of every kind. They are always the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.backends import Fingerprint, Kind, RetrieverSchema, Schema
from hybridsearch.documents import Document
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    Metric,
    MultiVectors,
    PassageSpans,
    QueryVector,
    SparseQuery,
    SparseVectors,
    Vectors,
    Vocabulary,
)

DIMENSIONS = 24
"""The dimensions of the dense vectors, unless a test uses others."""

K1, B = 1.2, 0.75
"""The BM25 parameters of the lexical retriever."""

FROZEN_LENGTH = 11.5
"""The average document length in the schema, for a backend without the capability `live_average`."""

WORDS = [f"word{i}" for i in range(40)]
"""The terms of the random items and queries."""


@dataclass(frozen=True)
class Item:
    """One document with its vectors.

    Attributes:
        id: Id of the document.
        counts: Term frequencies, for the lexical retriever.
        weights: Term weights, for the sparse retriever.
        vector: Vector, for the dense retriever. None for a vector of zeros.
        tokens: Vectors of the tokens, for the multi-vector retriever, of shape (tokens, dimensions). Default None:
            `vector` alone.
        text: Text of the document.
        title: Title of the document.
        metadata: Metadata of the document.
        passages: Items with the vectors of the passages, by span of `text`, in order. The vectors of the document
            itself are for retrievers that read whole documents. An item without passages has one, which is itself.
    """

    id: str
    counts: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None
    text: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    passages: Mapping[tuple[int, int], Item] = field(default_factory=dict)
    tokens: NDArray[np.float32] | None = None

    @property
    def multi_vector(self) -> NDArray[np.float16]:
        """The vectors of the tokens as they are stored. An item without a vector has none."""
        if self.tokens is not None:
            return self.tokens.astype(np.float16)
        return np.zeros((0, DIMENSIONS), np.float16) if self.vector is None else self.vector[None].astype(np.float16)

    @property
    def parts(self) -> Mapping[tuple[int, int], Item]:
        """The passages by span, at least one."""
        return self.passages or {(0, len(self.text)): self}

    @property
    def document(self) -> Document:
        """The document."""
        return Document(self.id, self.text, self.title, self.metadata)


def plain(id: str, **parts: Any) -> Item:
    """An item that `common_query` finds with every kind of retriever. All plain items have the same score."""
    return Item(id, {"common": 1}, {"common": 1.0}, unit(np.ones(DIMENSIONS)), **parts)


def common_query(kind: Kind) -> QueryVector:
    """A query that finds every plain item."""
    if kind == "multi_vector":
        return unit(np.ones(DIMENSIONS))[None]
    return unit(np.ones(DIMENSIONS)) if kind == "dense" else sparse_query({"common": 1.0})


def nothing(kind: Kind) -> QueryVector:
    """A query that is empty."""
    if kind == "multi_vector":
        return np.zeros((0, DIMENSIONS), dtype=np.float32)
    return np.zeros(DIMENSIONS, dtype=np.float32) if kind == "dense" else sparse_query({})


def random_items(count: int = 60, seed: int = 0, prefix: str = "d") -> list[Item]:
    """Items that have a few words, random weights and random unit vectors, of which there is one for each word, too."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1.0, len(WORDS) + 1)
    items = []
    for number in range(count):
        words = rng.choice(WORDS, size=int(rng.integers(2, 12)), p=popularity / popularity.sum()).tolist()
        counts = {word: words.count(word) for word in dict.fromkeys(words)}
        weights = {word: float(np.float32(rng.gamma(2.0))) for word in counts}
        items.append(
            Item(
                f"{prefix}{number}",
                counts,
                weights,
                unit(rng.standard_normal(DIMENSIONS)),
                text=" ".join(words),
                metadata={"number": number, "parity": ("even", "odd")[number % 2]},
            )
        )
    return [replace(item, tokens=_units(rng, len(item.text.split()))) for item in items]


def long(id: str, passages: Sequence[Item], metadata: Mapping[str, Any] | None = None) -> Item:
    """An item with passages. A whole-document retriever reads the words of all passages and the first vector."""
    text, spans = "", {}
    for number, passage in enumerate(passages):
        words = passage.text or f"passage {number}"
        spans[max(0, len(text) - number % 2 * 3), len(text) + len(words) + 1] = passage  # every second one overlaps
        text += f"{words} "
    counts, weights = Counter[str](), dict[str, float]()
    for passage in passages:
        counts.update(passage.counts)
        weights |= passage.weights
    first = passages[0]
    return Item(id, counts, weights, first.vector, text, "", metadata or {}, spans, first.tokens)


def long_items(count: int = 40, most: int = 6, seed: int = 0) -> list[Item]:
    """Items of one to `most` random passages. Some passages have no vectors, and some come twice."""
    rng = np.random.default_rng(seed)
    pool = random_items(count * most, seed)
    items = []
    for number in range(count):
        passages = [pool.pop() for _ in range(int(rng.integers(1, most + 1)))]
        if number % 5 == 1:
            passages.insert(1, Item("no vectors", text="..."))
        if number % 7 == 2:
            passages.append(passages[0])
        items.append(long(f"d{number}", passages, {"number": number, "parity": ("even", "odd")[number % 2]}))
    return [*items, Item("empty")]


def random_queries(kind: Kind, count: int = 8, seed: int = 1) -> list[QueryVector]:
    """Queries of one to six words. For the kind "dense", random unit vectors, and for "multi_vector" several each."""
    rng = np.random.default_rng(seed)
    if kind == "multi_vector":
        return [_units(rng, number % 3 * 9 + 1) for number in range(count)]
    if kind == "dense":
        return [unit(rng.standard_normal(DIMENSIONS)) for _ in range(count)]
    queries: list[QueryVector] = []
    for _ in range(count):
        words = rng.choice(WORDS, size=int(rng.integers(1, 7)), replace=False).tolist()
        values = rng.integers(1, 3, len(words)) if kind == "lexical" else rng.gamma(2.0, size=len(words))
        queries.append(sparse_query(dict(zip(words, values.tolist(), strict=True))))
    return queries


def _units(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Random unit vectors, of shape (count, DIMENSIONS)."""
    return np.stack([unit(rng.standard_normal(DIMENSIONS)) for _ in range(count)])


def sparse_query(weights: Mapping[str, float]) -> SparseQuery:
    """A sparse query. `weights` has the weight or the count of each term."""
    return SparseQuery(tuple(weights), np.array(list(weights.values()), dtype=np.float32))


def unit(vector: NDArray[Any]) -> NDArray[np.float32]:
    """The vector with length 1, as float32."""
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def make_schema(
    kinds: Sequence[Kind] | frozenset[Kind],
    metric: Metric = "cosine",
    dimensions: int = DIMENSIONS,
    average_length: float | None = None,
) -> Schema:
    """A schema with one retriever of each kind. The name of a retriever is its kind."""
    retrievers: dict[str, RetrieverSchema] = {}
    for kind in sorted(kinds):
        fingerprint = Fingerprint(f"suite-{kind}", {"made": "by hand"})
        if kind == "lexical":
            weighting = {"variant": "lucene", "k1": K1, "b": B}
            retrievers[kind] = RetrieverSchema(kind, fingerprint, weighting=weighting, average_length=average_length)
        elif kind == "sparse":
            retrievers[kind] = RetrieverSchema(kind, fingerprint)
        elif kind == "multi_vector":
            retrievers[kind] = RetrieverSchema(kind, fingerprint, dimensions=dimensions)
        else:
            retrievers[kind] = RetrieverSchema(kind, fingerprint, dimensions=dimensions, metric=metric)
    return Schema(retrievers, {"suite": [1, "two", None]})


def with_passages(schema: Schema, beside: bool = False) -> Schema:
    """The schema with passages, which all retrievers read.

    With `beside`, each retriever is there a second time for whole documents, with the name "whole-<name>".
    """
    retrievers = {name: replace(retriever, passages=True) for name, retriever in schema.retrievers.items()}
    if beside:
        retrievers |= {f"whole-{name}": retriever for name, retriever in schema.retrievers.items()}
    return replace(schema, retrievers=retrievers, passages={"size": 100, "by": "sentences"})


def encode(items: Sequence[Item], schema: Schema) -> EncodedBatch:
    """The batch that encoders would give to a backend. Its vocabularies have only the terms of this batch, shuffled."""
    passages = [passage for item in items for passage in item.parts.values()]
    vectors: dict[str, Vectors] = {}
    for name, retriever in schema.retrievers.items():
        read = passages if retriever.passages else items
        if retriever.kind == "lexical":
            vectors[name] = _sparse([item.counts for item in read])
        elif retriever.kind == "sparse":
            vectors[name] = _sparse([item.weights for item in read])
        elif retriever.kind == "multi_vector":
            dimensions = retriever.dimensions or 0
            vectors[name] = MultiVectors.of([item.multi_vector[:, :dimensions] for item in read], dimensions)
        else:
            array = np.zeros((len(read), retriever.dimensions or 0), dtype=np.float32)
            for row, item in enumerate(read):
                if item.vector is not None:
                    array[row] = item.vector
            vectors[name] = DenseVectors(array, retriever.metric or "cosine")
    spans = None if schema.passages is None else PassageSpans.of([list(item.parts) for item in items])
    return EncodedBatch([item.document for item in items], vectors, spans)


def _sparse(rows: Sequence[Mapping[str, float]]) -> SparseVectors:
    terms = sorted({term for row in rows for term in row})
    np.random.default_rng(len(terms)).shuffle(terms)
    vocabulary = Vocabulary(terms)
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    indices = np.array([vocabulary.index[term] for row in rows for term in row], dtype=np.int32)
    data = np.array([value for row in rows for value in row.values()], dtype=np.float32)
    parts = data, indices, indptr.astype(np.int32)
    matrix: csr_array[np.float32, tuple[int, int]] = csr_array(parts, shape=(len(rows), len(terms)))
    matrix.sort_indices()
    return SparseVectors(matrix, vocabulary)
