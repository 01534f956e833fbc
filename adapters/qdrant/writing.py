"""Writes documents to a collection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from hybridsearch.adapters.qdrant.connection import Steps, call
from hybridsearch.adapters.qdrant.index import Index
from hybridsearch.adapters.qdrant.payload import point_id, to_payload
from hybridsearch.adapters.qdrant.points import Terms, length_of, sparse_rows, sparse_vector, used_terms, weigh
from hybridsearch.adapters.qdrant.refusals import RefusedError
from hybridsearch.vectors import DenseVectors, EncodedBatch
from hybridsearch.weighting import BM25Weighting

_MAX_POINTS = 256  # documents in one request


@dataclass(slots=True)
class Writer:
    """Writes documents to collections.

    Attributes:
        shown: The place as messages show it.
        max_characters: Approximate number of characters at which a request ends. The default stays below the server's
            limit of 32 MB in any script. If a proxy refuses a request as too large, later requests are shorter.
    """

    shown: str
    max_characters: int = 6_000_000

    def prepare(
        self, index: Index, terms: Terms, batch: EncodedBatch
    ) -> Steps[tuple[Index, list[list[models.PointStruct]]]]:
        """The index with its average lengths, and the points of `batch`, one list for each request."""
        if not len(batch):
            return index, []
        index = yield from _freeze_lengths(index, batch, self.shown)
        used = {term for vectors in batch.vectors.values() for term in used_terms(vectors)}
        numbers = yield from terms.numbers(list(used), insert=True)
        columns: dict[str, list[Any]] = {}
        counts: dict[str, list[Any]] = {}
        for name, retriever in index.schema.retrievers.items():
            vectors = batch.vectors[name]
            if isinstance(vectors, DenseVectors):
                columns[name] = [row.tolist() if row.any() else None for row in vectors.array]
                continue
            rows = sparse_rows(vectors, numbers)
            if retriever.kind == "lexical":
                weights = BM25Weighting(**(retriever.weighting or {}))
                counts[name] = rows
                rows = [weigh(row, weights, retriever.average_length or 1.0) for row in rows]
            columns[name] = [sparse_vector(row, anchored=retriever.kind == "lexical") for row in rows]
        parts, points, characters = [], [], 0
        for row, document in enumerate(batch.documents):
            payload = to_payload(document, literal=index.literal)
            for name, of_documents in counts.items():
                found, frequencies = of_documents[row]
                payload[index.counts_key(name)] = {"terms": found.tolist(), "counts": frequencies.tolist()}
            here = {index.vector(name): column[row] for name, column in columns.items() if column[row] is not None}
            points.append(models.PointStruct(id=point_id(document.id), vector=here, payload=payload))
            characters += length_of(points[-1])
            if len(points) == _MAX_POINTS or characters >= self.max_characters or row + 1 == len(batch):
                parts.append(points)
                points, characters = [], 0
        return index, parts

    def store(self, index: Index, points: list[models.PointStruct]) -> Steps[list[tuple[str, str]]]:
        """Store points. If they are refused, their halves are sent, down to single points.

        Returns the id and the reason of each point that is refused alone.
        """
        try:
            yield call(index.collection, "upsert", points=points, wait=True)
        except RefusedError as error:
            if error.too_large:  # the next requests would be too large as well
                self.max_characters = min(self.max_characters, sum(map(length_of, points)) // 2)
            if len(points) == 1:
                return [((points[0].payload or {})["id"], str(error))]
            middle = len(points) // 2
            first = yield from self.store(index, points[:middle])
            return first + (yield from self.store(index, points[middle:]))
        return []

    def delete(self, index: Index, points: list[str]) -> Steps[int]:
        there = yield call(index.collection, "retrieve", ids=points, with_payload=False, with_vectors=False)
        if there:
            selected = models.PointIdsList(points=[point.id for point in there])
            yield call(index.collection, "delete", points_selector=selected, wait=True)
        return len(there)

    def delete_found(self, index: Index, condition: models.Filter) -> Steps[None]:
        yield call(index.collection, "delete", points_selector=models.FilterSelector(filter=condition), wait=True)


def _freeze_lengths(index: Index, batch: EncodedBatch, shown: str) -> Steps[Index]:
    """Let the first documents decide the average lengths that the schema does not have yet."""
    if not index.missing_lengths(batch):
        return index
    info = yield call(index.collection, "get_collection")
    index = Index.from_metadata(info.config.metadata, shown)  # another writer may have decided first
    means = index.missing_lengths(batch)
    if means:
        retrievers = {
            name: replace(r, average_length=means[name]) if name in means else r
            for name, r in index.schema.retrievers.items()
        }
        index = replace(index, schema=replace(index.schema, retrievers=retrievers))
        yield call(index.collection, "update_collection", metadata=index.to_metadata())
    return index
