"""The encoders of an index, which are compared with its fingerprints before they are used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hybridsearch.arguments import of_type
from hybridsearch.backends import Backend, Fingerprint, Schema
from hybridsearch.documents import Document
from hybridsearch.encoders import Counting, Encoder, encode
from hybridsearch.errors import BackendError, FingerprintMismatchError, InvalidArgumentError
from hybridsearch.messages import number_of
from hybridsearch.passages import Passages, Splitter, counter_of
from hybridsearch.vectors import EncodedBatch

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class IndexEncoders:
    """The encoders of one index, by name.

    Before its first use, an encoder is compared with the fingerprint in the index. This may load a model. It is
    compared again if a search on the same backend has found that the index was replaced.

    Args:
        given: Encoders by name.
        passages: Passages that the encoders read. None for whole documents, or for the passages of an existing index.

    Attributes:
        given: The encoders as they were given.
        passages: Passages that the encoders read. None for whole documents.
        schema: Schema of the index. None until there is an index.
        backend: Backend that holds the index. None if `schema` is always the schema of the index.

    Raises:
        InvalidArgumentError: There is no encoder, an object is not an encoder, or a name is not allowed.
    """

    def __init__(self, given: Mapping[str, Encoder], passages: Passages | None = None) -> None:
        if not isinstance(given, Mapping):
            raise InvalidArgumentError(
                f"retrievers is a mapping such as {{'bm25': hs.BM25()}}, not {type(given).__name__}."
            )
        for name, encoder in given.items():
            if isinstance(encoder, type) or not isinstance(encoder, Encoder):
                raise InvalidArgumentError(f"Retriever {name!r} is {encoder!r:.80}, not an encoder such as hs.BM25().")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InvalidArgumentError(
                    f"The retriever name {name!r} is not allowed: use letters, digits, '_' and '-', and begin with a "
                    "letter."
                )
        if not given:
            raise InvalidArgumentError("There is no retriever: give at least one, such as {'bm25': hs.BM25()}.")
        if passages is not None:
            of_type("passages", passages, Passages, "an hs.Passages such as hs.Passages(size=128)")
        self.given = dict(given)
        self.passages = passages
        self.schema: Schema | None = None
        self.backend: Backend | None = None
        self._verified: dict[tuple[str, bool], Fingerprint] = {}
        self._splitter: Splitter | None = None

    def check_names(self, names: Iterable[str], what: str) -> None:
        """Raises InvalidArgumentError if one of `names` is no retriever. `what` is the argument with the names."""
        for name in names:
            if name not in self.given:
                raise InvalidArgumentError(
                    f"{what} names {name!r}, which is not a retriever of this index. Its retrievers are "
                    f"{', '.join(map(repr, self.given))}."
                )

    def check_passages(self, schema: Schema, place: str) -> None:
        """Use the passages of an index. Raises FingerprintMismatchError if others were given."""
        recorded = None if schema.passages is None else Passages.from_json(schema.passages)
        if self.passages is not None and not self.passages.fits(recorded):
            raise FingerprintMismatchError(
                f"The index at {place!r} was made with {recorded or 'whole documents'}, not with {self.passages}: "
                "leave out passages, or index the documents into another place."
            )
        self.passages = recorded

    def make_schema(self, settings: Mapping[str, Any]) -> Schema:
        """The schema of a new index."""
        schemas = {name: encoder.schema() for name, encoder in self.given.items()}
        if self.passages is None:
            return Schema(schemas, settings)
        self.passages = self.passages.resolved({name: one.kind for name, one in schemas.items()})
        whole = self.passages.whole or ()
        self.check_names(whole, "whole")
        by_passage = {name: replace(one, passages=name not in whole) for name, one in schemas.items()}
        counter = counter_of(self.given, whole)
        return Schema(by_passage, settings, {**self.passages.to_json(), "counter": counter.name})

    def built(self, schema: Schema) -> None:
        """Set the schema of an index that these encoders have just built."""
        for name, built in schema.retrievers.items():
            self._verified[name, False] = self._verified[name, True] = built.fingerprint
        self.schema = schema

    def verified(self, name: str, *, documents: bool = False) -> Encoder:
        """The encoder of a retriever, to encode queries, or to encode documents with `documents`.

        Raises:
            FingerprintMismatchError: The index was built with another encoder.
        """
        encoder, schema = self.given[name], self._stored()
        if schema is None:
            return encoder
        if name not in schema.retrievers:
            raise FingerprintMismatchError(
                f"The index was replaced by one that has no retriever {name!r}: call refresh(), or open it again."
            )
        use, indexed = (name, documents), schema.retrievers[name].fingerprint
        if self._verified.get(use) == indexed:
            return encoder
        given = encoder.fingerprint()
        if documents and indexed.takes_queries(given) and not indexed.takes_documents(given):
            raise FingerprintMismatchError(
                f"Retriever {name!r}: the index holds vectors of a higher precision than this encoder makes "
                f"({indexed.difference(given)}). It may search the index: to add documents, open the index without "
                "precision (--precision)."
            )
        if not indexed.takes_queries(given):
            raise FingerprintMismatchError(
                f"Retriever {name!r}: the index was built with {indexed}, but this encoder is {given} "
                f"({indexed.difference(given) or 'another kind'}). Open the index with its own encoder (hs.open finds "
                "it), or index the documents again."
            )
        self._verified[use] = indexed
        return encoder

    def _stored(self) -> Schema | None:
        """The schema of the index that the backend uses now, or the known one if the backend was closed."""
        if self.backend is not None:
            with suppress(BackendError):
                return self.backend.open()
        return self.schema

    def encode(self, documents: Sequence[Document]) -> EncodedBatch:
        """Encode documents for all retrievers. Raises InvalidArgumentError if the index has other retrievers, too."""
        if missing := self.schema.retrievers.keys() - self.given.keys() if self.schema else ():
            raise InvalidArgumentError(
                f"The index also holds vectors of {', '.join(map(repr, sorted(missing)))}: name these retrievers, too. "
                "hs.open uses those of the index, and so does the command line without --retrievers."
            )
        if self.passages is None:
            return EncodedBatch(
                documents, {name: encode(self.verified(name, documents=True), documents) for name in self.given}
            )
        if self._splitter is None:
            recorded = (self.schema and self.schema.passages) or {}
            counter = counter_of(self.given, self.passages.whole or (), recorded.get("counter"))
            self._splitter = Splitter(self.passages, counter)
        spans, readings = self._splitter.read(documents)
        vectors = {
            name: encode(
                self.verified(name, documents=True), documents if name in (self.passages.whole or ()) else readings
            )
            for name in self.given
        }
        return EncodedBatch(documents, vectors, spans)

    def truncation_note(self, name: str, cut: int, read: int) -> str:
        """Say that a retriever's model read only the beginning of some texts, and what to do.

        Args:
            name: Name of the retriever.
            cut: Number of texts of which the model read only the beginning.
            read: Number of all texts.
        """
        encoder = self.given[name]
        limit = encoder.max_tokens if isinstance(encoder, Counting) else None
        beginning = "the beginning" if limit is None else f"the first {number_of(limit, 'token')}"
        passages = bool(self.schema and self.schema.passages)
        if self.schema and self.schema.retrievers[name].passages:
            return f"{name} read only {beginning} of {cut:,} of {number_of(read, 'passage')}: choose smaller passages."
        advice = "leave it out of whole" if passages else "index with passages=hs.Passages() (--passages)"
        what = number_of(read, "document")
        return f"{name} read only {beginning} of {cut:,} of {what}: {advice}, or use a model that reads more."
