"""Sends documents with their vectors from one backend to another, and compares the two."""

from __future__ import annotations

import heapq
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import numpy as np
from scipy.sparse import csr_array

from hybridsearch.backends import Backend, Capabilities, Request, RetrieverSchema, Schema, check_schema
from hybridsearch.errors import BackendError, FingerprintMismatchError
from hybridsearch.indexing.ingest import is_empty, reporting, same_document, send
from hybridsearch.messages import number_of
from hybridsearch.progress import progress_bar
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    MultiVectors,
    QueryVector,
    SparseQuery,
    SparseVectors,
    TextQuery,
    Vocabulary,
    take,
)

DEPTH = 10
"""Number of hits of each ranking that are compared."""

RECALL = 0.9
"""Share of an exact engine's hits that an approximate engine must find."""

_QUERY_TERMS = 16
_QUERY_TOKENS = 32
_SAME_LENGTH = 1e-6


@dataclass(frozen=True, slots=True)
class RetrieverCheck:
    """Comparison of one retriever of a copy with the source.

    Attributes:
        retriever: Name of the retriever.
        queries: Number of queries that were asked. They are vectors of stored documents.
        overlap: Mean share of the source's best 10 hits that the copy has among its best 10. None without queries.
        deviation: Largest difference of a document's two scores, relative to the score, or to 1 if the score is less
            than 1. None without queries.
        miscounted: Number of queries that have another number of hits in the copy. 0 if a search is approximate.
        note: Reason why no query was asked, or `""`.
    """

    retriever: str
    queries: int
    overlap: float | None = None
    deviation: float | None = None
    miscounted: int = 0
    note: str = ""


class Source(Protocol):
    """The part of a `Backend` that a transfer reads."""

    @property
    def capabilities(self) -> Capabilities:
        """Abilities and precision of the source."""
        ...

    def open(self) -> Schema | None:
        """The schema of the index."""
        ...

    def count(self) -> int:
        """The number of documents."""
        ...

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors."""
        ...


@dataclass
class Transfer:
    """Sends documents with their vectors from one backend to another.

    Attributes:
        source: Open backend to read. `compare` also searches it.
        destination: Open backend to write.
        batch_size: Number of documents that are read and sent together.
        show: Whether to show a progress bar. None shows one in a terminal.
        sample: Number of documents whose vectors become queries.
        copied: Number of documents that were stored.
        unchanged: Number of documents that were in the destination already, with the same content.
        total: Number of documents that were read.
    """

    source: Source
    destination: Backend
    batch_size: int
    show: bool | None
    sample: int = 0
    copied: int = 0
    unchanged: int = 0
    total: int = 0
    _passages: int = 0
    _tokens: dict[str, float] = field(default_factory=dict)
    _picked: list[tuple[int, str, int, Mapping[str, QueryVector]]] = field(default_factory=list)

    def run(self, schema: Schema, existing: Schema | None) -> None:
        """Store the retrievers of `schema` in the index `existing` or in a new one. Raises the errors of `copy`."""
        if not self.source.capabilities.scan:
            raise BackendError(
                "The source's engine cannot give its vectors: copy from another place that has them (such as the "
                "folder of `hybridsearch index --via`), or index the documents again."
            )
        check_schema(schema, self.destination)
        if existing is None:
            self.destination.create(self._with_average_lengths(schema))
        else:
            _check_same(schema, existing)
        compare = existing is not None and not is_empty(self.destination)
        with progress_bar("Copying", range(self.source.count()), self.show) as advance:

            def batches() -> Iterator[EncodedBatch]:
                for batch in self._scan(schema):
                    self._measure(batch, schema)
                    self._pick(batch, schema)
                    new = self._without_unchanged(batch, schema) if compare else batch
                    if len(new):
                        yield new
                        self.copied += len(new)
                    advance(len(batch))

            refused: list[tuple[str, str]] = []
            with reporting(refused):
                send(self.destination, batches(), refused)

    def compare(self, name: str) -> RetrieverCheck:
        """Ask both backends for the neighbours of the sampled documents, and compare the rankings."""
        if note := self._incomparable(name):
            return RetrieverCheck(name, 0, note=note)
        requests = [Request(name, queries[name], DEPTH) for *_, queries in sorted(self._picked) if name in queries]
        if not requests:
            return RetrieverCheck(name, 0, note="no document of the sample has a vector of this retriever")
        pairs = list(zip(cast(Backend, self.source).search(requests), self.destination.search(requests), strict=True))
        exact = self._schema_of(self.source, name).kind not in self._approximate | {"text"}
        overlaps = [len({*right.ids} & {*found.ids}) / len(right) for right, found in pairs if len(right)]
        return RetrieverCheck(
            name,
            len(requests),
            sum(overlaps) / max(len(overlaps), 1),
            max(_deviation(right, found, by_rank=exact) for right, found in pairs),
            sum(len(right) != len(found) for right, found in pairs) if exact else 0,
        )

    def differences(self, check: RetrieverCheck) -> Iterator[str]:
        """Write a sentence on each difference that the precision of the two engines does not explain."""
        if check.overlap is None or check.deviation is None:
            return
        overlap, deviation = self._allowed(check.retriever)
        found = []
        if check.miscounted:
            found.append(
                f"{check.miscounted} of {number_of(check.queries, 'query', 'queries')} have another "
                "number of hits in the copy."
            )
        if check.deviation > deviation:
            explained = f"but the two engines' precision explains only {deviation:.2g}."
            found.append(f"scores differ by up to {check.deviation:.2g}, {explained}")
        if check.overlap < overlap:
            expected = f"but an approximate search should find {overlap:.0%}."
            found.append(f"the copy finds {check.overlap:.0%} of the source's best {DEPTH} hits, {expected}")
        yield from (f"Retriever {check.retriever!r}: {sentence}" for sentence in found)

    def _allowed(self, name: str) -> tuple[float, float]:
        """The least overlap and the largest deviation that the precision of the two engines explains."""
        kind = self._schema_of(self.source, name).kind
        if kind == "text":  # each engine scores texts in its own way
            return RECALL, math.inf
        engines = (self.source.capabilities, self.destination.capabilities)
        tolerance = sum(engine.score_tolerance.get(kind, 0.0) for engine in engines)
        return RECALL if kind in self._approximate else 0.0, 2 * tolerance

    @property
    def _approximate(self) -> frozenset[str]:
        return self.source.capabilities.approximate | self.destination.capabilities.approximate

    def _with_average_lengths(self, schema: Schema) -> Schema:
        """The schema with the exact mean document lengths, if the destination stores them."""
        lexical = [name for name, of_retriever in schema.retrievers.items() if of_retriever.kind == "lexical"]
        lengths: dict[str, float | None] = dict.fromkeys(lexical)
        if lexical and not self.destination.capabilities.live_average:
            only = replace(schema, retrievers={name: schema.retrievers[name] for name in lexical})
            with progress_bar("Measuring", range(self.source.count()), self.show) as advance:
                for batch in self._scan(only):
                    self._measure(batch, only)
                    advance(len(batch))
            lengths = {name: self._average_length(name, only.retrievers[name]) for name in lexical}
            self.total, self._passages, self._tokens = 0, 0, {}
        retrievers = {
            name: replace(of_retriever, average_length=lengths[name]) if name in lengths else of_retriever
            for name, of_retriever in schema.retrievers.items()
        }
        return replace(schema, retrievers=retrievers)

    def _scan(self, schema: Schema) -> Iterator[EncodedBatch]:
        for batch in self.source.scan(self.batch_size):
            vectors = {
                name: _nothing(batch, of_retriever) if of_retriever.kind == "text" else batch.vectors[name]
                for name, of_retriever in schema.retrievers.items()
            }
            yield EncodedBatch(batch.documents, vectors, batch.passages)

    def _measure(self, batch: EncodedBatch, schema: Schema) -> None:
        self.total += len(batch)
        self._passages += len(batch.passages or ())
        for name, of_retriever in schema.retrievers.items():
            vectors = batch.vectors[name]
            if of_retriever.kind == "lexical" and isinstance(vectors, SparseVectors):
                self._tokens[name] = self._tokens.get(name, 0.0) + float(vectors.matrix.data.sum(dtype="float64"))

    def _pick(self, batch: EncodedBatch, schema: Schema) -> None:
        """Keep queries of the documents whose ids have the lowest checksums. The order of documents has no effect.

        A source may give a document twice if it is changed meanwhile. Their numbers tell the two apart.
        """
        for row, document in enumerate(batch.documents):
            place = -zlib.crc32(document.id.encode()), document.id, self.total + row
            if len(self._picked) < self.sample:
                heapq.heappush(self._picked, (*place, _queries(batch, row, schema)))
            elif self.sample and place > self._picked[0][:3]:
                heapq.heapreplace(self._picked, (*place, _queries(batch, row, schema)))

    def _average_length(self, name: str, retriever: RetrieverSchema) -> float | None:
        """The mean length of all texts in tokens. Empty texts count, too. None if there are no tokens."""
        texts = self._passages if retriever.passages else self.total
        return self._tokens.get(name, 0.0) / texts or None if texts else None

    def _without_unchanged(self, batch: EncodedBatch, schema: Schema) -> EncodedBatch:
        there = self.destination.fetch([document.id for document in batch.documents])
        rows = [
            row
            for row, (document, old) in enumerate(zip(batch.documents, there, strict=True))
            if not same_document(document, old)
        ]
        self.unchanged += len(batch) - len(rows)
        if len(rows) == len(batch):
            return batch
        return _taken(batch, rows, schema)

    def _incomparable(self, name: str) -> str:
        """A note if scores must differ, because the two sides use different mean document lengths. Otherwise ""."""
        if self._schema_of(self.source, name).kind != "lexical":
            return ""
        live = self._average_length(name, self._schema_of(self.source, name))
        used = [
            live if engine.capabilities.live_average else self._schema_of(engine, name).average_length
            for engine in (self.source, self.destination)
        ]
        if used[0] is None or used[1] is None or math.isclose(used[0], used[1], rel_tol=_SAME_LENGTH):
            return ""
        return (
            f"the source computes scores with a mean document length of {used[0]:.6g} tokens and the copy with "
            f"{used[1]:.6g}, so their scores differ by definition"
        )

    @staticmethod
    def _schema_of(engine: Source, name: str) -> RetrieverSchema:
        schema = engine.open()
        if schema is None:
            raise BackendError("The index was deleted while it was copied: copy again.")
        return schema.retrievers[name]


# Queries from stored vectors


def _queries(batch: EncodedBatch, row: int, schema: Schema) -> dict[str, QueryVector]:
    """Queries from one document, by retriever: its dense vector, its first tokens, largest terms or first words.

    If the retriever reads passages, they are from the document's first passage.
    """
    document = row
    queries: dict[str, QueryVector] = {}
    for name, vectors in batch.vectors.items():
        if schema.retrievers[name].kind == "text":
            if words := batch.documents[document].content.split()[:_QUERY_TERMS]:
                queries[name] = TextQuery(" ".join(words))
            continue
        row = document
        if batch.passages is not None and schema.retrievers[name].passages:
            row = int(batch.passages.offsets[document])
        if isinstance(vectors, DenseVectors):
            if vectors.array[row].any():
                queries[name] = vectors.array[row].copy()
            continue
        if isinstance(vectors, MultiVectors):
            if len(tokens := vectors.of_row(row)):
                queries[name] = tokens[:_QUERY_TOKENS].astype(np.float32)
            continue
        matrix, terms = vectors.matrix, vectors.vocabulary.terms
        cells = slice(int(matrix.indptr[row]), int(matrix.indptr[row + 1]))
        weights = sorted(
            (-float(w), terms[column]) for w, column in zip(matrix.data[cells], matrix.indices[cells], strict=True)
        )
        if heaviest := [(term, -negated) for negated, term in weights[:_QUERY_TERMS] if negated < 0]:
            chosen, values = zip(*heaviest, strict=True)
            queries[name] = SparseQuery(chosen, np.array(values, dtype=np.float32))
    return queries


def _nothing(batch: EncodedBatch, retriever: RetrieverSchema) -> SparseVectors:
    """The vectors of a retriever whose texts the engine analyses: rows without terms."""
    rows = len(batch.passages or ()) if retriever.passages else len(batch)
    return SparseVectors(csr_array(np.zeros((rows, 0), dtype=np.float32)), Vocabulary([]))


def _taken(batch: EncodedBatch, rows: Sequence[int], schema: Schema) -> EncodedBatch:
    """Some documents of a batch."""
    passages = batch.passages
    vectors = {
        name: take(
            of_retriever,
            rows if passages is None or not schema.retrievers[name].passages else passages.rows(rows).tolist(),
        )
        for name, of_retriever in batch.vectors.items()
    }
    kept = None if passages is None else passages.take(rows)
    return EncodedBatch([batch.documents[row] for row in rows], vectors, kept)


def _deviation(right: Ranking, found: Ranking, *, by_rank: bool) -> float:
    """The largest relative difference of the scores of the same document and, with `by_rank`, of the same rank.

    If the scores of documents differ little, the scores at each rank differ little, too, even if near-ties change the
    order.
    """
    scores = dict(found)
    pairs = [(score, scores[id]) for id, score in right if id in scores]
    if by_rank:
        pairs += zip(right.scores.tolist(), found.scores.tolist(), strict=False)
    return max((abs(a - b) / max(abs(a), abs(b), 1.0) for a, b in pairs), default=0.0)


def _check_same(schema: Schema, existing: Schema) -> None:
    """Raises FingerprintMismatchError if the destination has other retrievers or encoders than the source."""
    if schema.retrievers.keys() != existing.retrievers.keys():
        raise FingerprintMismatchError(
            f"The index at the destination has the retrievers {', '.join(map(repr, existing.retrievers))}, but "
            f"{', '.join(map(repr, schema.retrievers))} would be copied: choose another place, or name the retrievers."
        )
    if schema.passages != existing.passages:
        raise FingerprintMismatchError(
            f"The index at the destination was made with passages={dict(existing.passages or {}) or None}, but the "
            f"source with passages={dict(schema.passages or {}) or None}: choose another place."
        )
    for name, ours in schema.retrievers.items():
        theirs = existing.retrievers[name]
        if not theirs.fingerprint.takes_documents(ours.fingerprint):
            raise FingerprintMismatchError(
                f"Retriever {name!r}: the destination was built with {theirs.fingerprint}, but the source with "
                f"{ours.fingerprint} ({theirs.fingerprint.difference(ours.fingerprint) or 'another kind'}). "
                "Copy to another place."
            )
