"""Haystack documents as documents of an index, and the encoder that reads their embeddings."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import numpy as np
from haystack import Document
from haystack.dataclasses import ByteStream, SparseEmbedding
from numpy.typing import NDArray

from hybridsearch.arguments import whole_number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.documents import Document as StoredDocument
from hybridsearch.errors import DocumentError, EncodingError
from hybridsearch.integrations.encoding import FunctionEncoder
from hybridsearch.integrations.found import with_title
from hybridsearch.vectors import DenseVectors, Metric

RECORD: Final = "_haystack"
"""Field of a stored document for what only Haystack knows. It is a list with one dict, which no filter searches."""


def stored_of(document: Document, number: int) -> StoredDocument:
    """A Haystack document as a document of the index.

    Args:
        document: Haystack document.
        number: Number that orders the documents as they were written.

    Raises:
        DocumentError: A part of the document cannot be stored.
    """
    if RECORD in document.meta:
        raise DocumentError(f"Document {document.id!r:.80} has the metadata field {RECORD!r}: give it another name.")
    record: dict[str, Any] = {"written": number}
    if document.content is None:
        record["no_content"] = True
    if document.embedding is not None:
        record["embedding"] = _packed(document.id, document.embedding)
    if document.sparse_embedding is not None:
        record["sparse_embedding"] = document.sparse_embedding.to_dict()
    if document.blob is not None:
        blob = document.blob
        data = base64.b64encode(blob.data).decode()
        record["blob"] = {"data": data, "meta": blob.meta, "mime_type": blob.mime_type}
    if document.score is not None:
        record["score"] = document.score
    return StoredDocument(document.id, document.content or "", metadata={**document.meta, RECORD: [record]})


def document_of(stored: StoredDocument) -> Document:
    """The Haystack document that a document was written as, or a new one if it was not written by Haystack."""
    record, fields = _record(stored), stored.to_dict()
    sparse, blob, embedding = record.get("sparse_embedding"), record.get("blob"), embedding_of(stored)
    stream = None if blob is None else ByteStream(base64.b64decode(blob["data"]), blob["meta"], blob["mime_type"])
    return Document(
        id=stored.id,
        content=None if "no_content" in record else stored.text,
        blob=stream,
        meta={name: value for name, value in with_title(fields).items() if name != RECORD},
        score=record.get("score"),
        embedding=None if embedding is None else embedding.tolist(),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )


def written(stored: StoredDocument) -> int:
    """The number that orders documents as they were written. 0 for a document that Haystack did not write."""
    return int(_record(stored).get("written", 0))


class EmbeddingsEncoder(FunctionEncoder):
    """An encoder for dense search that takes the embeddings of Haystack documents.

    A document embedder of Haystack makes them before the documents are written. A document that has no embedding is not
    found by this retriever. A text embedder makes the embeddings of queries, which `run` of a retriever takes.

    Args:
        dimensions: Number of dimensions of an embedding.
        name: Name of the embedding model and its version, which the index remembers. The index refuses an encoder with
            another name.
        metric: Metric that compares vectors: `"cosine"`, `"dot"` or `"euclidean"`. With `"cosine"`, vectors are scaled
            to unit length. The documents keep their embeddings as they are.

    Raises:
        InvalidArgumentError: The number of dimensions is not a positive whole number, or the metric is not known.

    >>> encoder = EmbeddingsEncoder(2, name="my model")
    >>> encoder.encode_fields([stored_of(Document(content="a wing", embedding=[0.0, 2.0]), 1)]).array.tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, dimensions: int, *, name: str | None = None, metric: Metric = "cosine") -> None:
        dimensions = whole_number("dimensions", dimensions)
        super().__init__(self._refuse, self._refuse, {"name": name, "dimensions": dimensions}, metric)
        self._dimensions = dimensions

    def encode_fields(self, documents: Sequence[StoredDocument]) -> DenseVectors:
        """Take the embeddings of documents. An index calls this method in place of `encode_documents`.

        Args:
            documents: Documents that `HybridSearchDocumentStore` stored.

        Returns:
            Vectors in the order of `documents`. A document that has no embedding has an all-zero row.

        Raises:
            EncodingError: An embedding has another length than `dimensions`, or is not finite.
        """
        embeddings = [embedding_of(document) for document in documents]
        given = [one.tolist() for one in embeddings if one is not None]
        array = np.zeros((len(documents), self.dimensions), dtype=np.float32)
        if given:
            array[[one is not None for one in embeddings]] = self._checked(given, len(given))
        return DenseVectors(array, self.metric)

    def fingerprint(self) -> Fingerprint:
        """Name the model and its settings."""
        return Fingerprint("haystack", {**self._model, "metric": self.metric})

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index."""
        arguments = {"type": "haystack", **self._model, "metric": self.metric}
        return RetrieverSchema("dense", self.fingerprint(), arguments, self.dimensions, self.metric)

    def _refuse(self, _: object) -> NoReturn:
        raise EncodingError(
            "A retriever with embeddings of Haystack cannot encode texts: give query_embedding from a text embedder, "
            "or leave the retriever out by `retrievers`."
        )


def embedding_of(stored: StoredDocument) -> NDArray[np.float64] | None:
    """The embedding that a document was written with. None if it had none."""
    packed = _record(stored).get("embedding")
    if packed is None:
        return None
    kind, data = packed
    return np.frombuffer(base64.b64decode(data), dtype="<f4" if kind == "<f4" else "<f8").astype(np.float64)


def _record(stored: StoredDocument) -> Mapping[str, Any]:
    value = stored.metadata.get(RECORD)
    return value[0] if isinstance(value, list) and value and isinstance(value[0], Mapping) else {}


def _packed(id: str, embedding: Sequence[float]) -> list[str]:
    """The type and the bytes of an embedding. It is stored with 32 bits a number if these hold it exactly."""
    try:
        exact = np.asarray(embedding, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DocumentError(f"Document {id!r:.80}: its embedding is not a list of numbers: {error}.") from error
    if exact.ndim != 1:
        raise DocumentError(f"Document {id!r:.80}: its embedding is not a list of numbers, but of lists.")
    with np.errstate(over="ignore"):
        single = exact.astype(np.float32)
    kind = "<f4" if (single == exact).all() else "<f8"
    return [kind, base64.b64encode(exact.astype(kind).tobytes()).decode()]
