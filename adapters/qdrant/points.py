"""The collections of Qdrant: what they remember of an index, the numbers of terms, and vectors as Qdrant has them.

Qdrant numbers the dimensions of a sparse vector with 32 bits. A second collection, `NAME-terms`, says which term has
which number: its points have the number as id and the term as payload. A term takes the first free number of a
sequence that is hashed from the term itself; numbers are only ever inserted, never changed, so that all writers agree
without a lock, and a number that another term has taken, as happens to a few among 100,000, is passed over. A reader
looks up terms that it has not seen before in one small request, and never takes one term for another.

Each index has a mark, chosen at random when it is made, in the names of its vectors. A search names them, and so Qdrant
refuses it where an alias means another index by then, or the collection was made anew: it is never answered by an index
whose terms have other numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models
from scipy.sparse import csr_array

from hybridsearch.adapters.checks import check_dense, check_layout, differing_retrievers
from hybridsearch.adapters.qdrant.connection import Call, Steps
from hybridsearch.backends import RetrieverSchema, Schema
from hybridsearch.errors import BackendError, FingerprintMismatchError, IndexCorruptedError
from hybridsearch.vectors import EncodedBatch, SparseVectors, Vectors, Vocabulary
from hybridsearch.weighting import BM25Weighting

LAYOUT = 2
"""Of points and metadata; a collection with another one is refused."""

MAX_LOOK_UP = 10_000
"""Most terms or ids in one request."""

MAX_REMEMBERED_TERMS = 1_000_000
"""Terms whose numbers are kept in memory, some 150 MB; then they are looked up anew."""

METADATA_KEY = "hybridsearch"
"""Under which a collection's metadata has what is ours."""

_NO_TERM = 0
_DISTANCES = {"cosine": models.Distance.DOT, "dot": models.Distance.DOT, "euclidean": models.Distance.EUCLID}

Quantization: TypeAlias = Literal["int8", "binary", "product"]
"""What a server searches with in place of 32 bits for a number: eight, one, or two on average."""

Row: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""The numbers of the terms of one document, ascending, and their values."""


@dataclass(frozen=True)
class Index:
    """What the metadata of a collection says.

    Attributes:
        schema: of the index.
        collection: its own name, whatever alias it was opened by.
        mark: no other index has it.
        idf: the lexical retrievers that Qdrant itself weighs by idf.
    """

    schema: Schema
    collection: str
    mark: str
    idf: frozenset[str]

    def to_metadata(self) -> dict[str, Any]:
        """The schema as text, so that every number comes back as it was."""
        schema = json.dumps(self.schema.to_json(), ensure_ascii=False)
        ours = {"schema": schema, "collection": self.collection, "mark": self.mark, "idf": sorted(self.idf)}
        return {METADATA_KEY: {"layout": LAYOUT, **ours}}

    @classmethod
    def from_metadata(cls, metadata: Any, shown: str) -> Index:
        """The inverse of `to_metadata`, for the collection at `shown`.

        Raises:
            BackendError: the collection was not made by hybridsearch.
            IndexCorruptedError: it is of another layout or a newer schema version, or `metadata` is damaged.
        """
        if not is_ours(metadata):
            raise BackendError(f"The collection at {shown} was not made by hybridsearch: choose another name.")
        ours = metadata[METADATA_KEY]
        check_layout(ours.get("layout"), LAYOUT, f"The index at {shown}")
        try:
            schema = Schema.from_json(json.loads(ours["schema"]))
            return cls(schema, ours["collection"], ours["mark"], frozenset(ours["idf"]))
        except (KeyError, TypeError, ValueError) as error:
            raise IndexCorruptedError(f"The index at {shown} has a damaged record of its schema ({error!r}).") from None

    @property
    def terms(self) -> str:
        """The collection with the numbers of the terms."""
        return terms_of(self.collection)

    def vector(self, retriever: str) -> str:
        """The name of a retriever's vectors; a server makes folders of these names."""
        return f"{quote(retriever, safe='')}-{self.mark}"

    def check_same_vectors(self, other: Index, shown: str) -> None:
        """Raises FingerprintMismatchError where queries for this index are none for `other`, now at `shown`."""
        if differing := differing_retrievers(self.schema, other.schema):
            raise FingerprintMismatchError(
                f"{shown} now means the collection {other.collection!r}, whose retrievers are others than those it was "
                f"opened with ({', '.join(differing)}): open it again."
            )

    def counts_key(self, name: str) -> str:
        """The payload key of the term frequencies of a lexical retriever, in letters that need no quoting."""
        return f"counts{sorted(self.schema.retrievers).index(name)}"

    def missing_lengths(self, batch: EncodedBatch) -> dict[str, float]:
        """The mean lengths in `batch` of the lexical retrievers whose average is not decided, where there are any."""
        means = {
            name: float(vectors.matrix.sum(dtype=np.float64)) / len(batch)
            for name, vectors in batch.vectors.items()
            if isinstance(vectors, SparseVectors)
            and self.schema.retrievers[name].kind == "lexical"
            and self.schema.retrievers[name].average_length is None
        }
        return {name: mean for name, mean in means.items() if mean > 0}


def is_ours(metadata: Any) -> bool:
    """Whether the collection with `metadata` is an index of hybridsearch, of whatever layout."""
    ours = (metadata or {}).get(METADATA_KEY)
    return isinstance(ours, dict) and "schema" in ours


def terms_of(collection: str) -> str:
    """The collection with the numbers of the terms of an index."""
    return f"{collection}-terms"


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
        collection = {"collection_name": self.collection}
        known = self._numbers
        missing = [term for term in terms if term not in known]
        for start in range(0, len(missing), MAX_LOOK_UP):
            trying = dict.fromkeys(missing[start : start + MAX_LOOK_UP], 0)
            while trying:
                wanted = {term: number_of(term, attempt) for term, attempt in trying.items()}
                found = yield Call("retrieve", {**collection, "ids": sorted({*wanted.values()}), "with_payload": True})
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
                    only_new = {"update_mode": models.UpdateMode.INSERT_ONLY, "wait": True}
                    yield Call("upsert", {**collection, "points": points, **only_new})
        return {term: known[term] for term in terms if term in known}

    def names(self, numbers: Sequence[int]) -> Steps[dict[int, str]]:
        """The inverse of `numbers`."""
        terms: dict[int, str] = {}
        for start in range(0, len(numbers), MAX_LOOK_UP):
            ids = numbers[start : start + MAX_LOOK_UP]
            found = yield Call("retrieve", {"collection_name": self.collection, "ids": ids, "with_payload": True})
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


def dense_params(name: str, retriever: RetrieverSchema, quantized: Quantization | None) -> models.VectorParams:
    """How the vectors of a dense retriever are stored.

    Raises:
        InvalidArgumentError: the retriever lacks its dimensions or metric.
    """
    size, metric = check_dense(name, retriever)
    quantization: Any = None
    if quantized == "int8":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        quantization = models.ScalarQuantization(scalar=scalar)
    elif quantized == "binary":
        quantization = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    elif quantized == "product":
        product = models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
        quantization = models.ProductQuantization(product=product)
    return models.VectorParams(size=size, distance=_DISTANCES[metric], quantization_config=quantization)


def quantization_of(params: models.CollectionParams) -> Quantization | None:
    """How the dense vectors of a collection are quantized."""
    vectors = params.vectors if isinstance(params.vectors, dict) else {}
    kinds: dict[type, Quantization] = {
        models.ScalarQuantization: "int8",
        models.BinaryQuantization: "binary",
        models.ProductQuantization: "product",
    }
    return next((kinds[type(of)] for v in vectors.values() if (of := v.quantization_config) is not None), None)


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
