"""Encoders turn texts into vectors: BM25, learned sparse models, dense models, or your own.

An encoder of your own is any object with the methods of `Encoder`. So that a saved index can find it again, register
its class (`hybridsearch.registry.register`), or pass the object to `hs.open(..., retrievers=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.registry import make
from hybridsearch.vectors import QueryVector, Vectors


@runtime_checkable
class Encoder(Protocol):
    """What makes the vectors of one retriever.

    Texts that are empty or only whitespace get all-zero vectors, from every encoder, for documents and queries alike.
    """

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> Vectors:
        """One row a text, in order. Raises EncodingError where the model gives NaN or infinity."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Sequence[QueryVector]:
        """One query vector a text, in order."""
        ...

    def fingerprint(self) -> Fingerprint:
        """What the vectors depend on; cheap, without loading a model into memory."""
        ...

    def schema(self) -> RetrieverSchema:
        """What an index must remember; may load the model to learn its dimensions."""
        ...


class Noting(Encoder, Protocol):
    """An encoder that can say what it left out of a query, for `Results.notes`."""

    def query_notes(self, texts: Sequence[str]) -> Sequence[str]:
        """For each text a sentence, such as that it was cut, or ""."""
        ...


def make_encoder(description: Mapping[str, Any]) -> Encoder:
    """The encoder of `RetrieverSchema.encoder`. Raises InvalidArgumentError as `hybridsearch.registry.make` does."""
    if description.get("type") == "bm25":
        description = {"tokenizer": 1, **description}  # the first version was not written down
    encoder: Encoder = make("encoder", description)
    return encoder
