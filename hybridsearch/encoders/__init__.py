"""Encoders turn texts into vectors: BM25, sparse models, dense models, late interaction, or your own encoder.

Your own encoder is any object with the methods of `Encoder`. `hs.open` needs to find it again: register its class by
`hybridsearch.registry.register`, or pass the object to `hs.open(..., retrievers=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.registry import make
from hybridsearch.vectors import QueryVector, Vectors


@runtime_checkable
class Encoder(Protocol):
    """An object that turns texts into vectors for one retriever.

    A text that is empty or only whitespace gets an all-zero vector, as a document and as a query, or no multi-vectors.
    """

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> Vectors:
        """Encode the texts of documents.

        Args:
            texts: Texts of the documents.
            show_progress_bar: Whether to show a progress bar.

        Returns:
            Sparse vectors, dense vectors or multi-vectors with one row for each text, in order.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        ...

    def encode_queries(self, texts: Sequence[str]) -> Sequence[QueryVector]:
        """Encode the texts of queries.

        Args:
            texts: Texts of the queries.

        Returns:
            One query vector for each text, in order.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        ...

    def fingerprint(self) -> Fingerprint:
        """Name everything that the vectors depend on, without loading a model into memory."""
        ...

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index. The call may load the model, to find its dimensions."""
        ...


class Reading(Encoder, Protocol):
    """An encoder that reads other parts of a document than `Document.content`, for example its metadata."""

    def encode_fields(self, documents: Sequence[Document]) -> Vectors:
        """Encode documents. An index calls this method in place of `encode_documents`.

        Args:
            documents: Documents to encode. If the index has passages, each is one passage with the title and the
                metadata of its document.

        Returns:
            Sparse vectors, dense vectors or multi-vectors with one row for each document, in order.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        ...


class Place(NamedTuple):
    """A place in a text that gives a term.

    Attributes:
        start: First character of the place.
        end: Character after its last character.
        term: The term.
    """

    start: int
    end: int
    term: str


class Locating(Encoder, Protocol):
    """An encoder that can tell which words of a text give its terms, for `Hit.highlights`."""

    def locate(
        self, texts: Sequence[str], terms: Sequence[Mapping[str, float]], *, models: bool = True
    ) -> Sequence[Sequence[Place]]:
        """Find the words that give terms.

        Args:
            texts: Texts of documents or of passages.
            terms: Terms to find in each text, with what they add to the score of the document, in the order of `texts`.
                An encoder that makes a `TextQuery` gets the text of the query as the only term.
            models: Whether a neural model may run. If not, the call must be fast.

        Returns:
            The places in each text, in the order of `texts`.
        """
        ...


class Noting(Encoder, Protocol):
    """An encoder that can tell which part of a query it does not use, for `Results.notes`."""

    def query_notes(self, texts: Sequence[str]) -> Sequence[str]:
        """Write a note on each query, for example that its text is cut off.

        Returns:
            One sentence for each text, or `""` if there is nothing to say.
        """
        ...


@runtime_checkable
class Counting(Encoder, Protocol):
    """An encoder that counts the tokens of documents, so that they can be split into passages that it reads whole."""

    @property
    def max_tokens(self) -> int | None:
        """Number of tokens that are read of a document, without special tokens and the prompt. None for all of them."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Count the tokens of each text, without special tokens and the prompt. Nothing is cut off."""
        ...


def encode(encoder: Encoder, documents: Sequence[Document]) -> Vectors:
    """Encode documents by `encode_fields` if the encoder has it (`Reading`), else their `content`.

    Raises:
        EncodingError: The model gives NaN or infinity.

    >>> from hybridsearch.encoders.bm25 import BM25
    >>> encode(BM25(), [Document("1", "A wing in a slipstream.", "Lift")]).vocabulary.terms
    ('lift', 'slipstream', 'wing')
    """
    encode_fields: Callable[[Sequence[Document]], Vectors] | None = getattr(encoder, "encode_fields", None)
    if encode_fields is not None:
        return encode_fields(documents)
    return encoder.encode_documents([document.content for document in documents])


def query_digest(encoder: Encoder) -> str:
    """A digest of everything that the vectors of queries depend on.

    It is the digest of the fingerprint. If the encoder has `query_settings`, they change it. These are settings that
    documents do not depend on, such as synonyms.
    """
    fingerprint = encoder.fingerprint()
    settings: Mapping[str, Any] = getattr(encoder, "query_settings", {})
    return replace(fingerprint, settings={**fingerprint.settings, **settings}).digest


def describe(encoder: Encoder) -> Mapping[str, Any] | None:
    """The arguments from which `make_encoder` makes an encoder again, as in `RetrieverSchema.encoder`.

    No model of a `Dense` or `Sparse` is loaded. The result is None for an encoder that only the caller can make.

    >>> from hybridsearch.encoders.dense import Dense
    >>> describe(Dense("my-model"))["model"]
    'my-model'
    """
    without_model: Callable[[], Mapping[str, Any] | None] | None = getattr(encoder, "_description", None)
    return encoder.schema().encoder if without_model is None else without_model()


def make_encoder(description: Mapping[str, Any]) -> Encoder:
    """Make the encoder that `RetrieverSchema.encoder` describes.

    Raises:
        InvalidArgumentError: The type is not known, or its class does not take the arguments.
    """
    if description.get("type") == "bm25":
        description = {"tokenizer": 1, **description}  # an index of version 1 does not store the version
    encoder: Encoder = make("encoder", description)
    return encoder
