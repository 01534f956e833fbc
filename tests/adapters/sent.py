"""The documents that tests of faults send, and a check that an index has exactly these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hybridsearch.backends import Backend, Schema
from hybridsearch.testing import samples
from hybridsearch.testing.samples import Item
from hybridsearch.vectors import DenseVectors, EncodedBatch

BATCH = 100


def batches(
    items: Sequence[Item], schema: Schema, at: int | None = None, happens: Callable[[], object] = lambda: None
) -> Iterator[EncodedBatch]:
    """All items in batches. Something happens before batch `at` is taken, while earlier batches are being sent."""
    for number, start in enumerate(range(0, len(items), BATCH)):
        if number == at:
            happens()
        yield samples.encode(items[start : start + BATCH], schema)


def assert_holds(backend: Backend, items: Sequence[Item], schema: Schema) -> None:
    """Assert that the index has exactly these items, each once, with the vectors that were sent."""
    found = [row for batch in backend.scan() for row in _rows(batch)]
    by_id = dict(found)
    assert len(found) == len(by_id), "a document is there twice"
    sent = dict(_rows(samples.encode(items, schema)))
    assert by_id.keys() == sent.keys(), f"lost {[*(sent.keys() - by_id.keys())][:5]}"
    assert backend.fetch([item.id for item in items]) == [item.document for item in items]
    wrong = [id for id, row in by_id.items() if row != sent[id]]
    assert not wrong, f"{wrong[0]!r}: {by_id[wrong[0]]} is not {sent[wrong[0]]}"
    assert backend.count() == len(items)


def _rows(batch: EncodedBatch) -> list[tuple[str, dict[str, Any]]]:
    """The vectors of each document, by id: weights by term, or the bytes of a dense vector."""
    rows: list[tuple[str, dict[str, Any]]] = [(document.id, {}) for document in batch.documents]
    for name, vectors in batch.vectors.items():
        for number, (_, row) in enumerate(rows):
            if isinstance(vectors, DenseVectors):
                row[name] = vectors.array[number].tobytes()
                continue
            held = slice(*vectors.matrix.indptr[number : number + 2])
            terms = [vectors.vocabulary.terms[column] for column in vectors.matrix.indices[held]]
            row[name] = dict(zip(terms, vectors.matrix.data[held].tolist(), strict=True))
    return rows
