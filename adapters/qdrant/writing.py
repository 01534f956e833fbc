"""Writes documents to the collections of an index.

A document with passages is written in three steps. Its passages are added with a new version, then the document gets
this version, then the passages of the old version are removed. Searches ignore passages of other versions. So each
search finds the old document or the new one, and a crash between the steps leaves no passage that can be found. A
writer removes only the versions that it has replaced, so writers of the same document do no harm to each other.

Passages that a crash has left still count in the idf. The next writer of their document removes them if they are older
than an hour, because a younger passage may be of a writer that has not finished. An embedded engine has one writer. It
removes them when the index is opened.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from qdrant_client import models

from hybridsearch.adapters.qdrant.connection import Steps, call
from hybridsearch.adapters.qdrant.index import Index, passages_of
from hybridsearch.adapters.qdrant.payload import passage_ids, passage_payload, point_id, to_payload, token
from hybridsearch.adapters.qdrant.points import (
    MAX_LOOK_UP,
    Terms,
    length_of,
    sparse_rows,
    sparse_vector,
    used_terms,
    weigh,
)
from hybridsearch.adapters.qdrant.refusals import RefusedError
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors
from hybridsearch.weighting import BM25Weighting

_MAX_POINTS = 256  # documents or passages in one request
_SECOND = 10**9  # the unit of versions is 1 ns
_UNFINISHED = 3600 * _SECOND  # the age at which nobody is still writing a version

_STATE = ["id", "version", "spans"]  # the keys of the payload from which `passage_ids` are made


class Part(NamedTuple):
    """Points that are stored together: at most as many documents as fit into one request, and their passages."""

    documents: list[models.PointStruct]
    passages: list[models.PointStruct]


@dataclass(slots=True)
class Writer:
    """Writes documents to collections.

    Attributes:
        shown: The place as messages show it.
        embedded: Whether the engine is in this process.
        max_characters: Approximate number of characters at which a request ends. The default stays below the server's
            limit of 32 MB in any script. If a proxy refuses a request as too large, later requests are shorter.
    """

    shown: str
    embedded: bool
    max_characters: int = 6_000_000

    def prepare(self, index: Index, terms: Terms, batch: EncodedBatch) -> Steps[tuple[Index, list[Part]]]:
        """The index with its average lengths, and the points of `batch`."""
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
            if isinstance(vectors, MultiVectors):
                columns[name] = [vectors.of_row(row).tolist() or None for row in range(len(vectors))]
                continue
            rows = sparse_rows(vectors, numbers)
            if retriever.kind == "lexical":
                weights = BM25Weighting(**(retriever.weighting or {}))
                counts[name] = rows
                rows = [weigh(row, weights, retriever.average_length or 1.0) for row in rows]
            columns[name] = [sparse_vector(row, anchored=retriever.kind == "lexical") for row in rows]

        def point(id: str, row: int, payload: dict[str, Any], *, passage: bool) -> models.PointStruct:
            read = [name for name, retriever in index.schema.retrievers.items() if retriever.passages is passage]
            for name in read:
                if name in counts:
                    found, frequencies = counts[name][row]
                    payload[index.counts_key(name)] = {"terms": found.tolist(), "counts": frequencies.tolist()}
            vector = {index.vector(name): columns[name][row] for name in read if columns[name][row] is not None}
            return models.PointStruct(id=id, vector=vector, payload=payload)

        points, passages = [], {}
        version = time.time_ns() + secrets.randbelow(_SECOND)  # no other writer has the same for a document
        for row, document in enumerate(batch.documents):
            payload = to_payload(document, literal=index.literal)
            if batch.passages is not None:
                rows = batch.passages.rows([row]).tolist()
                payload |= {"version": version + row, "spans": batch.passages.spans[rows].ravel().tolist()}
                if index.passages is not None:
                    passages[document.id] = [
                        point(id, at, passage_payload(payload, number), passage=True)
                        for number, (id, at) in enumerate(zip(passage_ids(payload), rows, strict=True))
                    ]
            points.append(point(point_id(document.id), row, payload, passage=False))
        return index, [
            Part(of, [passage for document in of for passage in passages.get((document.payload or {})["id"], ())])
            for of in self._requests(points)
        ]

    def store(self, index: Index, part: Part) -> Steps[list[tuple[str, str]]]:
        """Store documents. Returns the id and the reason of each document that was refused."""
        if index.passages is None:
            return (yield from self._send(index.collection, part.documents))
        refused: dict[str, str] = {}
        for points in self._requests(part.passages):
            refused |= dict((yield from self._send(index.passages, points)))
        ids = [point.id for point in part.documents]
        before = yield call(index.collection, "retrieve", ids=ids, with_payload=_STATE, with_vectors=False)
        states: dict[str, Any] = {(point.payload or {})["id"]: point.payload for point in part.documents}
        accepted = [point for point in part.documents if (point.payload or {})["id"] not in refused]
        refused |= dict((yield from self._send(index.collection, accepted)))
        replaced = [point.payload for point in before if point.payload["id"] not in refused]
        live = [state["version"] for id, state in states.items() if id not in refused]
        yield from self._remove_passages(index, [*replaced, *(states[id] for id in refused)], list(states), live)
        return list(refused.items())

    def delete(self, index: Index, ids: Sequence[str]) -> Steps[int]:
        """Remove documents. Returns how many there were."""
        points = [point_id(id) for id in ids]
        state = False if index.passages is None else _STATE
        there = yield call(index.collection, "retrieve", ids=points, with_payload=state, with_vectors=False)
        if there:
            selected = models.PointIdsList(points=[point.id for point in there])
            yield call(index.collection, "delete", points_selector=selected, wait=True)
        if index.passages is not None:
            yield from self._remove_passages(index, [point.payload for point in there], ids)
        return len(there)

    def delete_found(self, index: Index, condition: models.Filter) -> Steps[None]:
        """Remove the documents that a condition lets through."""
        found: list[Any] = []
        if index.passages is not None:
            found = yield from _all_points(index.collection, _STATE, condition)
        yield call(index.collection, "delete", points_selector=models.FilterSelector(filter=condition), wait=True)
        for start in range(0, len(found), MAX_LOOK_UP):
            states = [point.payload for point in found[start : start + MAX_LOOK_UP]]
            yield from self._remove_passages(index, states, [state["id"] for state in states])

    def sweep(self, index: Index) -> Steps[None]:
        """Remove the passages that a crash has left in an embedded engine. Nobody may be writing."""
        if index.passages is not None:
            documents = yield from _all_points(index.collection, ["id", "version"])
            live = {(point.payload["id"], point.payload["version"]) for point in documents}
            passages = yield from _all_points(index.passages, ["id", "version"])
            dead = [point.id for point in passages if (point.payload["id"], point.payload["version"]) not in live]
            yield from _delete(index.passages, dead)

    def _send(self, collection: str, points: list[models.PointStruct]) -> Steps[list[tuple[str, str]]]:
        """Store points. If they are refused, their halves are sent, down to single points.

        Returns the id of the document and the reason for each point that is refused alone.
        """
        if not points:
            return []
        try:
            yield call(collection, "upsert", points=points, wait=True)
        except RefusedError as error:
            if error.too_large:  # the next requests would be too large as well
                self.max_characters = min(self.max_characters, sum(map(length_of, points)) // 2)
            if len(points) == 1:
                return [((points[0].payload or {})["id"], str(error))]
            middle = len(points) // 2
            first = yield from self._send(collection, points[:middle])
            return first + (yield from self._send(collection, points[middle:]))
        return []

    def _requests(self, points: Sequence[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
        """The points that one request can hold, then those of the next request, and so on."""
        request: list[models.PointStruct] = []
        characters = 0
        for point in points:
            request.append(point)
            characters += length_of(point)
            if len(request) == _MAX_POINTS or characters >= self.max_characters:
                yield request
                request, characters = [], 0
        if request:
            yield request

    def _remove_passages(
        self, index: Index, states: Sequence[Mapping[str, Any]], ids: Sequence[str], live: Sequence[int] = ()
    ) -> Steps[None]:
        """Remove the passages that documents had in earlier states, and those that a crash has left on a server.

        Args:
            index: The index.
            states: The earlier payloads of documents.
            ids: Ids of the documents that were written.
            live: The versions that these documents have now.
        """
        collection = passages_of(index.collection)
        yield from _delete(collection, [passage for state in states for passage in passage_ids(state)])
        if self.embedded or not ids:
            return
        old = models.FieldCondition(key="version", range=models.Range(lt=time.time_ns() - _UNFINISHED))
        left = models.Filter(
            must=[models.FieldCondition(key="tokens", match=models.MatchAny(any=[token("id", id) for id in ids])), old],
            must_not=[models.FieldCondition(key="version", match=models.MatchAny(any=list(live)))] if live else None,
        )
        yield call(collection, "delete", points_selector=models.FilterSelector(filter=left), wait=True)


def _all_points(collection: str, keys: list[str], condition: models.Filter | None = None) -> Steps[list[Any]]:
    """All points that a condition lets through, with some keys of their payload."""
    found: list[Any] = []
    offset = None
    shown = {"with_payload": keys, "with_vectors": False}
    while True:
        points, offset = yield call(
            collection, "scroll", scroll_filter=condition, limit=MAX_LOOK_UP, offset=offset, **shown
        )
        found += points
        if offset is None:
            return found


def _delete(collection: str, points: Sequence[Any]) -> Steps[None]:
    for start in range(0, len(points), MAX_LOOK_UP):
        selected = models.PointIdsList(points=list(points[start : start + MAX_LOOK_UP]))
        yield call(collection, "delete", points_selector=selected, wait=True)


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
