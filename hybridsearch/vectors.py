"""The vectors that travel from encoders to backends.

A backend sees only these types: `SparseVectors` and `DenseVectors` for documents, `SparseQuery` or one
float32 row for a query, and `EncodedBatch`, some documents with their vectors of every retriever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.documents import Document
from hybridsearch.errors import EncodingError
from hybridsearch.messages import number_of

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]


class Vocabulary:
    """The names of the columns of a sparse matrix: words, subword tokens, or latent dimensions.

    A model has one fixed vocabulary; BM25 makes a new one for each batch, holding that batch's terms.
    Backends therefore match columns by name, never by number.

    >>> vocabulary = Vocabulary(["wing", "flow"])
    >>> vocabulary.index["flow"], len(vocabulary)
    (1, 2)
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms: tuple[str, ...] = tuple(terms)

    def __len__(self) -> int:
        return len(self.terms)

    @cached_property
    def index(self) -> dict[str, int]:
        """Column number by term."""
        return {term: column for column, term in enumerate(self.terms)}

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when any term or its place changes."""
        digest = hashlib.blake2b(digest_size=8)
        for term in self.terms:
            raw = term.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(4, "little") + raw)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class SparseVectors:
    """Sparse document vectors, one row a document.

    Attributes:
        matrix: (documents, len(vocabulary)) CSR, float32, finite, without duplicates within a row. For a lexical
            retriever the values are term frequencies and the row sum is the document's length in tokens;
            for a learned sparse retriever they are weights.
        vocabulary: the names of the columns.

    Raises:
        EncodingError: a value is NaN or infinite, or the shape does not fit the vocabulary.
    """

    matrix: csr_array[np.float32, tuple[int, int]]
    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        if self.matrix.shape[1] != len(self.vocabulary):
            raise EncodingError(
                f"The sparse matrix has {number_of(self.matrix.shape[1], 'column')} but its "
                f"vocabulary {number_of(len(self.vocabulary), 'term')}."
            )
        bad = np.flatnonzero(~np.isfinite(self.matrix.data))
        if bad.size:
            row = int(np.searchsorted(self.matrix.indptr, bad[0], side="right")) - 1
            raise EncodingError(f"The sparse vector in row {row} holds NaN or infinity.")

    def __len__(self) -> int:
        return int(self.matrix.shape[0])


@dataclass(frozen=True, slots=True)
class DenseVectors:
    """Dense document vectors, one row a document.

    An all-zero row means "no vector": such a document is never a hit of this retriever (empty text has no meaning to
    compare, and engines refuse to store a zero vector under cosine).

    Attributes:
        array: (documents, dimensions) C-contiguous float32, finite; rows of unit length (or zero) under "cosine".
        metric: "cosine" and "dot" score by inner product, "euclidean" by minus the distance. Larger is better in all.

    Raises:
        EncodingError: a value is NaN or infinite.
    """

    array: NDArray[np.float32]
    metric: Metric = "cosine"

    def __post_init__(self) -> None:
        if self.array.ndim != 2 or self.array.dtype != np.float32:
            raise EncodingError(
                f"Dense vectors are a 2-dimensional float32 array, not {self.array.dtype} of shape {self.array.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(self.array).all(axis=1))
        if bad.size:
            raise EncodingError(f"The dense vector in row {int(bad[0])} holds NaN or infinity.")

    def __len__(self) -> int:
        return int(self.array.shape[0])


Vectors: TypeAlias = SparseVectors | DenseVectors


@dataclass(frozen=True, slots=True, eq=False)
class SparseQuery:
    """One sparse query vector, by term name, so that every engine can use it.

    Attributes:
        terms: distinct terms. Scores are summed in this order.
        weights: float32, same length. Term counts for a lexical retriever, weights for a learned sparse one.
    """

    terms: tuple[str, ...]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.weights) or not np.isfinite(self.weights).all():
            raise EncodingError("A sparse query needs one finite weight for each of its terms.")


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A query for an engine that analyses texts itself."""

    text: str


QueryVector: TypeAlias = SparseQuery | TextQuery | NDArray[np.float32]
"""What a retriever is asked with: a `SparseQuery`, a float32 row of shape (dimensions,), or a text."""


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Documents with distinct ids and, by retriever name, their vectors in the same order."""

    documents: Sequence[Document]
    vectors: Mapping[str, Vectors]

    def __post_init__(self) -> None:
        for name, vectors in self.vectors.items():
            if len(vectors) != len(self.documents):
                raise EncodingError(
                    f"Retriever {name!r} has {number_of(len(vectors), 'vector')} for "
                    f"{number_of(len(self.documents), 'document')}."
                )

    def __len__(self) -> int:
        return len(self.documents)

    def __repr__(self) -> str:
        return (
            f"EncodedBatch({number_of(len(self), 'document')}, vectors of "
            f"{', '.join(map(repr, self.vectors)) or 'no retriever'})"
        )
