"""Encoders turn texts into vectors: BM25, learned sparse models, dense models, or your own.

An encoder of your own is any object with the methods of `Encoder`; add its class to `ENCODERS` (or pass the object to
`hs.open(..., retrievers=...)`) so that a saved index can find it again.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.errors import InvalidArgumentError
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


ENCODERS: dict[str, str] = {
    "bm25": "hybridsearch.encoders.bm25:BM25",
    "sparse": "hybridsearch.encoders.sparse:Sparse",
    "dense": "hybridsearch.encoders.dense:Dense",
    "native": "hybridsearch.encoders.native:NativeBM25",
}
"""The type names that an index's schema may carry. An index file never names a module to import."""


def make_encoder(description: Mapping[str, Any]) -> Encoder:
    """The encoder for `RetrieverSchema.encoder`: `{"type": registered name, **constructor arguments}`.

    Raises:
        InvalidArgumentError: the type is not registered, or does not take the arguments.
    """
    arguments = dict(description)
    name = arguments.pop("type", None)
    if name not in ENCODERS:
        raise InvalidArgumentError(f"No encoder type {name!r} is known: known are {', '.join(ENCODERS)}.")
    module, _, cls = ENCODERS[name].partition(":")
    try:
        encoder: Encoder = getattr(importlib.import_module(module), cls)(**arguments)
    except TypeError as error:
        raise InvalidArgumentError(f"The encoder type {name!r} does not take these arguments: {error}.") from error
    return encoder
