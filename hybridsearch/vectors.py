"""The types of vectors that encoders give to backends.

Documents have `SparseVectors`, `DenseVectors` or `MultiVectors`. A query is a `SparseQuery`, a float32 array or a
`TextQuery`. An `EncodedBatch` has some documents with the vectors of all retrievers, and with the `PassageSpans` of the
documents.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from hybridsearch.documents import Document
from hybridsearch.errors import EncodingError
from hybridsearch.messages import number_of

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
"""Metric that compares dense vectors."""


class Vocabulary:
    """Names of the columns of a sparse matrix: words, subword tokens or latent dimensions.

    A model has one fixed vocabulary. BM25 makes a new vocabulary for each batch. So backends match columns by name, and
    never by number.

    Args:
        terms: Names of the columns, all different.

    Attributes:
        terms: Names of the columns, as a tuple.

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
        """Number of each term's column, by term."""
        return {term: column for column, term in enumerate(self.terms)}

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change if a term or its place changes."""
        digest = hashlib.blake2b(digest_size=8)
        for term in self.terms:
            raw = term.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(4, "little") + raw)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class SparseVectors:
    """Sparse vectors of documents, with one row for each document.

    Attributes:
        matrix: CSR matrix of shape (documents, len(vocabulary)), float32, finite, without duplicates in a row. The
            values of a lexical retriever are term frequencies, and the sum of a row is the document's length in tokens.
            The values of a sparse retriever are weights.
        vocabulary: Names of the columns.
        truncated: Number of texts of which the model read only the beginning.

    Raises:
        EncodingError: A value is NaN or infinite, or the shape does not fit the vocabulary.
    """

    matrix: csr_array[np.float32, tuple[int, int]]
    vocabulary: Vocabulary
    truncated: int = 0

    def __post_init__(self) -> None:
        if self.matrix.shape[1] != len(self.vocabulary):
            raise EncodingError(
                f"The sparse matrix has {number_of(self.matrix.shape[1], 'column')}, but its vocabulary has "
                f"{number_of(len(self.vocabulary), 'term')}: give one term for each column."
            )
        bad = np.flatnonzero(~np.isfinite(self.matrix.data))
        if bad.size:
            row = int(np.searchsorted(self.matrix.indptr, bad[0], side="right")) - 1
            raise EncodingError(f"The sparse vector in row {row} holds NaN or infinity.")

    def __len__(self) -> int:
        return int(self.matrix.shape[0])


@dataclass(frozen=True, slots=True)
class DenseVectors:
    """Dense vectors of documents, with one row for each document.

    An all-zero row means that the document has no vector. It is never a hit of this retriever. Empty texts have no
    vector, and engines cannot store a zero vector with the metric `"cosine"`.

    Attributes:
        array: C-contiguous array of shape (documents, dimensions), float32, finite. With `"cosine"` each row has unit
            length or is zero. An index refuses others.
        metric: Metric of the scores, where a larger score is better. `"cosine"` and `"dot"` score by the inner product,
            `"euclidean"` by minus the distance.
        truncated: Number of texts of which the model read only the beginning.

    Raises:
        EncodingError: A value is NaN or infinite, or the array has another shape or type.
    """

    array: NDArray[np.float32]
    metric: Metric = "cosine"
    truncated: int = 0

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


@dataclass(frozen=True, slots=True)
class MultiVectors:
    """Several vectors of each document, one for each token, as late interaction compares them.

    The score of a document is the sum, over the vectors of the query, of the largest inner product with a vector of the
    document (MaxSim, from Khattab and Zaharia, "ColBERT", SIGIR 2020). A document without vectors is never a hit.

    The numbers have 16 bits, which is half the size of float32 and costs at most 0.05 % of a number. They are rounded
    here and nowhere else, so that all engines score the same numbers.

    Attributes:
        array: C-contiguous array of the vectors of all documents, of shape (vectors, dimensions), float16, finite.
        offsets: int64 array of shape (documents + 1,). The vectors of document i are the rows from `offsets[i]` to
            `offsets[i + 1] - 1`.
        truncated: Number of texts of which the model read only the beginning.

    Raises:
        EncodingError: A value is NaN or infinite, or the arrays have another shape or type or do not fit each other.

    >>> vectors = MultiVectors.of([np.float32([[1, 0], [0, 1]]), np.zeros((0, 2), np.float32)], 2)
    >>> len(vectors), vectors.offsets.tolist(), vectors.of_row(0).tolist()
    (2, [0, 2, 2], [[1.0, 0.0], [0.0, 1.0]])
    """

    array: NDArray[np.float16]
    offsets: NDArray[np.int64]
    truncated: int = 0

    def __post_init__(self) -> None:
        if self.array.ndim != 2 or self.array.dtype != np.float16:
            raise EncodingError(
                f"Multi-vectors are a 2-dimensional float16 array, not {self.array.dtype} of shape {self.array.shape}."
            )
        offsets = self.offsets
        if offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets) or offsets[0] != 0:
            raise EncodingError("The offsets of multi-vectors are an int64 array that begins with 0.")
        if offsets[-1] != len(self.array) or (np.diff(offsets) < 0).any():
            raise EncodingError(f"The offsets of multi-vectors do not rise from 0 to {len(self.array)}.")
        bad = np.flatnonzero(~np.isfinite(self.array).all(axis=1))
        if bad.size:
            row = int(np.searchsorted(offsets, bad[0], side="right")) - 1
            raise EncodingError(f"A token vector in row {row} holds NaN or infinity, or a number that exceeds 65,504.")

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.floating]], dimensions: int, truncated: int = 0) -> MultiVectors:
        """Make the vectors from one array of shape (vectors, dimensions) for each document.

        Raises:
            EncodingError: An array has another number of dimensions, NaN, infinity, or a number that exceeds 65,504.
        """
        wrong = next((number for number, row in enumerate(rows) if row.ndim != 2 or row.shape[1] != dimensions), None)
        if wrong is not None:
            raise EncodingError(
                f"The token vectors in row {wrong} have the shape {rows[wrong].shape}, but (tokens, {dimensions}) is "
                "needed."
            )
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        array = np.empty((int(offsets[-1]), dimensions), dtype=np.float16)
        with np.errstate(over="ignore", under="ignore"):
            for start, row in zip(offsets.tolist(), rows, strict=False):
                array[start : start + len(row)] = row
        return cls(array, offsets, truncated)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of vectors of each document, of shape (documents,)."""
        return np.diff(self.offsets)

    def of_row(self, row: int) -> NDArray[np.float16]:
        """The vectors of one document, of shape (vectors, dimensions)."""
        return self.array[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> MultiVectors:
        """The vectors of some documents, in the order of `rows`."""
        offsets, places = members(self.offsets, rows)
        return MultiVectors(np.ascontiguousarray(self.array[places]), offsets)

    def pooled(self) -> NDArray[np.float32]:
        """The mean of the vectors of each document with unit length, of shape (documents, dimensions), float32.

        A document without vectors has a row of zeros. If the mean is zero, the row is the first axis.
        """
        means = np.zeros((len(self), self.array.shape[1]), dtype=np.float64)
        filled = np.flatnonzero(self.counts)
        step = max(1, _POOLED // max(1, self.array.shape[1]))
        for start in range(0, len(filled), step):
            rows = filled[start : start + step]
            offsets, places = members(self.offsets, rows)
            means[rows] = np.add.reduceat(self.array[places], offsets[:-1], axis=0, dtype=np.float64)
        lengths = np.linalg.norm(means, axis=1)
        means[filled[lengths[filled] == 0], :1] = 1.0
        lengths[lengths == 0] = 1.0
        units: NDArray[np.float32] = (means / lengths[:, None]).astype(np.float32)
        return units


_POOLED = 1 << 15  # numbers of the means that are computed at a time

Vectors: TypeAlias = SparseVectors | DenseVectors | MultiVectors


@dataclass(frozen=True, slots=True, eq=False)
class SparseQuery:
    """Sparse vector of one query, with the names of its terms.

    Attributes:
        terms: Distinct terms. Scores are summed in this order.
        weights: Weights in the order of `terms`, as float32. A lexical retriever has term counts.

    Raises:
        EncodingError: There is not one finite weight for each term, or a term comes twice.
    """

    terms: tuple[str, ...]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.weights) or not math.isfinite(sum(self.weights.tolist())):
            raise EncodingError("A sparse query needs one finite weight for each of its terms.")
        if len(set(self.terms)) < len(self.terms):
            twice = next(term for place, term in enumerate(self.terms) if term in self.terms[:place])
            raise EncodingError(
                f"A sparse query has the term {twice!r} twice: give each term once, with all its weight."
            )


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Text of one query, for an engine that analyses texts.

    Attributes:
        text: Text of the query.
    """

    text: str


def concat(parts: Sequence[Vectors]) -> Vectors:
    """The rows of all parts, in order. The parts are of one retriever, and there is at least one."""
    dense = [part for part in parts if isinstance(part, DenseVectors)]
    if dense:
        return DenseVectors(np.concatenate([part.array for part in dense]), dense[0].metric)
    multi = [part for part in parts if isinstance(part, MultiVectors)]
    if multi:
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.counts for part in multi]))])
        return MultiVectors(np.concatenate([part.array for part in multi]), offsets)
    sparse = [part for part in parts if isinstance(part, SparseVectors)]
    vocabulary = Vocabulary(list(dict.fromkeys(term for part in sparse for term in part.vocabulary.terms)))
    matrices = []
    for part in sparse:
        columns = np.array([vocabulary.index[term] for term in part.vocabulary.terms], dtype=np.int64)
        matrix, shape = part.matrix, (len(part), len(vocabulary))
        matrices.append(csr_array((matrix.data, columns[matrix.indices], matrix.indptr), shape=shape))
    joined: csr_array[np.float32, tuple[int, int]] = csr_array(vstack(matrices, format="csr"))
    joined.sort_indices()
    return SparseVectors(joined, vocabulary)


def take(vectors: Vectors, rows: Sequence[int]) -> Vectors:
    """Some rows of document vectors, in the order of `rows`."""
    if isinstance(vectors, DenseVectors):
        return DenseVectors(np.ascontiguousarray(vectors.array[rows]), vectors.metric)
    if isinstance(vectors, MultiVectors):
        return vectors.take(rows)
    return SparseVectors(vectors.matrix[rows], vectors.vocabulary)


QueryVector: TypeAlias = SparseQuery | TextQuery | NDArray[np.float32]
"""Query of a retriever: a `SparseQuery`, a `TextQuery`, a float32 vector of shape (dimensions,), or several float32
vectors of shape (vectors, dimensions) for `MultiVectors`."""


def members(
    offsets: NDArray[np.int64], rows: Sequence[int] | NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The offsets and the places of the members of some rows, in the order of `rows`.

    Args:
        offsets: int64 array of shape (all rows + 1,). The members of row i have the places from `offsets[i]` to
            `offsets[i + 1] - 1`.
        rows: Numbers of rows.

    >>> [found.tolist() for found in members(np.array([0, 2, 3, 6]), [2, 0])]
    [[0, 3, 5], [3, 4, 5, 0, 1]]
    """
    chosen = np.asarray(rows, dtype=np.int64)
    counts = offsets[chosen + 1] - offsets[chosen]
    new = np.concatenate([[0], np.cumsum(counts)])
    return new, np.repeat(offsets[chosen] - new[:-1], counts) + np.arange(new[-1])


@dataclass(frozen=True, slots=True, eq=False)
class PassageSpans:
    """The passages of some documents, as spans of `Document.text`.

    The passages are numbered through all documents. The spans of a document are in order, and together they cover the
    text. Every document has at least one passage.

    Attributes:
        offsets: int64 array of shape (documents + 1,). The passages of document i have the numbers from `offsets[i]` to
            `offsets[i + 1] - 1`.
        spans: int32 array of shape (passages, 2), with the first character of each passage and the character after the
            last.

    Raises:
        EncodingError: A document has no passage, or the arrays do not fit each other.

    >>> passages = PassageSpans.of([[(0, 4), (4, 9)], [(0, 3)]])
    >>> passages.offsets.tolist(), len(passages), passages.take([1]).spans.tolist()
    ([0, 2, 3], 3, [[0, 3]])
    """

    offsets: NDArray[np.int64]
    spans: NDArray[np.int32]

    def __post_init__(self) -> None:
        offsets, spans = self.offsets, self.spans
        fits = offsets.ndim == 1 and len(offsets) and spans.ndim == 2 and spans.shape[1] == 2
        if not fits or offsets[0] != 0 or offsets[-1] != len(spans) or (np.diff(offsets) < 1).any():
            raise EncodingError("Each document needs at least one passage, and each passage a start and an end.")
        starts, ends = spans[:, 0], spans[:, 1]
        inner = np.delete(np.arange(len(spans)), offsets[:-1])  # passages that are not the first of their document
        if (starts < 0).any() or (ends < starts).any() or (starts[inner] < starts[inner - 1]).any():
            raise EncodingError("The passages of a document are spans [start, end) in order, from 0.")

    @classmethod
    def of(cls, documents: Iterable[Sequence[tuple[int, int]]]) -> PassageSpans:
        """Make the spans from a list of pairs (start, end) for each document."""
        of_documents = list(documents)
        offsets = np.cumsum([0, *map(len, of_documents)], dtype=np.int64)
        flat = [bound for spans in of_documents for span in spans for bound in span]
        return cls(offsets, np.array(flat, dtype=np.int32).reshape(-1, 2))

    @classmethod
    def concat(cls, parts: Sequence[PassageSpans]) -> PassageSpans:
        """The passages of all documents of the parts, in order."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(np.concatenate([[0], np.cumsum(counts)]), np.concatenate([part.spans for part in parts]))

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of passages of each document, of shape (documents,)."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> NDArray[np.int64]:
        """Number of the document that each passage belongs to, of shape (passages,)."""
        return np.repeat(np.arange(self.documents), self.counts)

    def rows(self, documents: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """Numbers of the passages of some documents, in the order of `documents`."""
        return members(self.offsets, documents)[1]

    def take(self, documents: Sequence[int] | NDArray[np.integer]) -> PassageSpans:
        """The passages of some documents, in the order of `documents`."""
        offsets, places = members(self.offsets, documents)
        return PassageSpans(offsets, self.spans[places])


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Documents with their vectors.

    Attributes:
        documents: Documents with distinct ids.
        vectors: Vectors by retriever name: one vector for each document, in the order of the documents. A retriever
            that reads passages has one vector for each passage, in the order of `passages`.
        passages: Passages of the documents. None for an index without passages.

    Raises:
        EncodingError: A retriever does not have one vector for each document or each passage.
    """

    documents: Sequence[Document]
    vectors: Mapping[str, Vectors]
    passages: PassageSpans | None = None

    def __post_init__(self) -> None:
        if self.passages is not None and self.passages.documents != len(self.documents):
            raise EncodingError(
                f"There are passages of {number_of(self.passages.documents, 'document')} for "
                f"{number_of(len(self.documents), 'document')}."
            )
        for name, vectors in self.vectors.items():
            if len(vectors) != len(self.documents) and (self.passages is None or len(vectors) != len(self.passages)):
                also = "" if self.passages is None else f" and {number_of(len(self.passages), 'passage')}"
                raise EncodingError(
                    f"Retriever {name!r} has {number_of(len(vectors), 'vector')} for "
                    f"{number_of(len(self.documents), 'document')}{also}."
                )

    def __len__(self) -> int:
        return len(self.documents)

    def __repr__(self) -> str:
        return (
            f"EncodedBatch({number_of(len(self), 'document')}, vectors of "
            f"{', '.join(map(repr, self.vectors)) or 'no retriever'})"
        )
