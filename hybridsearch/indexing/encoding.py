"""The encoders of an index: handed to whoever adds documents or asks queries, each after a check that it is the one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from hybridsearch.backends import Schema
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.errors import FingerprintMismatchError, InvalidArgumentError
from hybridsearch.vectors import EncodedBatch

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class IndexEncoders:
    """The encoders of one index by name.

    Each is compared with the one that the index was built with when it is first needed: that may load a model.

    Attributes:
        given: the encoders as they were given, unchecked.
        schema: what the index remembers; None until there is one.

    Raises:
        InvalidArgumentError: there is none, one is no encoder, or a name is not allowed.
    """

    def __init__(self, given: Mapping[str, Encoder]) -> None:
        if not isinstance(given, Mapping):
            raise InvalidArgumentError(
                f"retrievers is a mapping such as {{'bm25': hs.BM25()}}, not {type(given).__name__}."
            )
        for name, encoder in given.items():
            if isinstance(encoder, type) or not isinstance(encoder, Encoder):
                raise InvalidArgumentError(f"Retriever {name!r} is {encoder!r:.80}, not an encoder such as hs.BM25().")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InvalidArgumentError(
                    f"The retriever name {name!r} is not allowed: letters, digits, '_' and '-', starting with a letter."
                )
        if not given:
            raise InvalidArgumentError("There is no retriever; give at least one, such as {'bm25': hs.BM25()}.")
        self.given = dict(given)
        self.schema: Schema | None = None
        self._verified: set[str] = set()

    def check_names(self, names: Iterable[str], what: str, known: Collection[str] | None = None) -> None:
        """Raises InvalidArgumentError where `what` names a retriever that is not among `known`; None for all given."""
        known = self.given if known is None else known
        for name in names:
            if name not in known:
                raise InvalidArgumentError(
                    f"{what} names {name!r}, which is not a retriever of this index; they are "
                    f"{', '.join(map(repr, known))}."
                )

    def built(self, schema: Schema) -> None:
        """The index was built just now, with all of them."""
        self._verified.update(self.given)
        self.schema = schema

    def verified(self, name: str) -> Encoder:
        """The encoder. Raises FingerprintMismatchError where the index was built with another one."""
        encoder = self.given[name]
        if name in self._verified or self.schema is None:
            return encoder
        indexed, given = self.schema.retrievers[name].fingerprint, encoder.fingerprint()
        if indexed.digest != given.digest:
            raise FingerprintMismatchError(
                f"Retriever {name!r}: the index was built with {indexed}, and this encoder is {given} "
                f"({indexed.difference(given) or 'another kind'}). Open the index with the encoder it was built with "
                "(hs.open finds it by itself), or index the documents again."
            )
        self._verified.add(name)
        return encoder

    def encode(self, documents: Sequence[Document]) -> EncodedBatch:
        """The documents with the vectors of all retrievers. Raises InvalidArgumentError where the index has more."""
        if missing := self.schema.retrievers.keys() - self.given.keys() if self.schema else ():
            raise InvalidArgumentError(
                f"The index also holds vectors of {', '.join(map(repr, sorted(missing)))}: "
                "give those retrievers too when adding documents."
            )
        texts = [document.content for document in documents]
        return EncodedBatch(documents, {name: self.verified(name).encode_documents(texts) for name in self.given})
