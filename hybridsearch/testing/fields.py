"""Tests of weighted fields (BM25F) and of synonyms, whose frequencies and counts are no whole numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hybridsearch.backends import Backend, Kind, Request, RetrieverSchema, Schema
from hybridsearch.documents import Document
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, check, frozen_average, require
from hybridsearch.testing.samples import WORDS, Item
from hybridsearch.vectors import EncodedBatch, SparseVectors

if TYPE_CHECKING:
    from hybridsearch.encoders.bm25 import BM25

FIELDS = {"title": 2.3, "text": 1.0, "metadata.tags": 0.1}

_SYNONYMS = ["word0, word6", "word1 => word1, word8 word9 word10", "word7 => word5 unknown"]


@cache
def _encoder() -> BM25:
    from hybridsearch.encoders.bm25 import BM25  # the suite can be imported without what BM25 needs

    return BM25(None, k1=samples.K1, b=samples.B, identifiers=False, fields=FIELDS)


class FieldTests(Base):
    """Tests of the scores of weighted fields and of synonyms, compared with the published formula in float64."""

    @pytest.fixture
    def fielded(self, connect: Connect, lexical: Kind) -> Backend:
        """An empty index with one lexical retriever, whose encoder weighs fields."""
        backend = connect("fields")
        average = frozen_average(backend.capabilities)
        retriever: RetrieverSchema = replace(_encoder().schema(), average_length=average)
        backend.create(Schema({lexical: retriever}))
        return backend

    def test_weighted_fields_are_scored_as_published(self, fielded: Backend, lexical: Kind) -> None:
        documents = _documents(70)
        _put(fielded, lexical, documents[:40])
        _put(fielded, lexical, documents[40:])
        _check(fielded, lexical, documents)

        changed = [
            replace(document, title=other.title) for document, other in zip(documents, documents[20:], strict=False)
        ]
        _put(fielded, lexical, changed[:30])
        documents = changed[:30] + documents[30:]
        _check(fielded, lexical, documents)
        if fielded.capabilities.delete:
            fielded.delete([document.id for document in documents[10:50]])
            fielded.refresh()
            _check(fielded, lexical, documents[:10] + documents[50:])
        fielded.close()

    def test_explained_terms_of_weighted_fields_sum_to_the_score(self, fielded: Backend, lexical: Kind) -> None:
        require(fielded.capabilities.explain, "explain")
        _put(fielded, lexical, _documents(30))
        request = Request(lexical, _encoder().encode_queries(["word0 word1 word2 word3"])[0], 10)
        (ranking,) = fielded.search([request])
        assert len(ranking) == 10
        for (id, score), terms in zip(ranking, fielded.explain(request, ranking.ids), strict=True):
            assert sum(terms.values()) == pytest.approx(score, rel=8 * fielded.capabilities.score_tolerance[lexical]), (
                id
            )
        fielded.close()

    def test_weighted_frequencies_are_read_as_they_were_written(self, fielded: Backend, lexical: Kind) -> None:
        require(fielded.capabilities.scan, "scan")
        documents = _documents(30)
        _put(fielded, lexical, documents)
        written = dict(zip((one.id for one in documents), _rows(_encoder().encode_fields(documents)), strict=True))
        read: dict[str, dict[str, float]] = {}
        for batch in fielded.scan():
            vectors = batch.vectors[lexical]
            assert isinstance(vectors, SparseVectors)
            read |= zip((one.id for one in batch.documents), _rows(vectors), strict=True)
        assert read == written
        fielded.close()


def _documents(count: int) -> list[Document]:
    """Documents whose fields have words in common. Some fields are empty or missing."""
    rng = np.random.default_rng(7)

    def words(most: int) -> str:
        return " ".join(rng.choice(WORDS[:12], size=int(rng.integers(0, most + 1))).tolist())

    return [
        Document(f"d{number}", words(20), words(4), {"tags": words(3).split()} if number % 3 else {"other": "word0"})
        for number in range(count)
    ]


def _item(document: Document) -> Item:
    """The item whose frequencies are the weighted sums over the fields. Its words are counted without the encoder."""
    weighted: dict[str, float] = {}
    fields = {
        "title": document.title,
        "text": document.text,
        "metadata.tags": " ".join(document.metadata.get("tags", ())),
    }
    for field, text in fields.items():
        for word in text.split():
            weighted[word] = weighted.get(word, 0.0) + FIELDS[field]
    return Item(document.id, weighted)


def _put(backend: Backend, kind: Kind, documents: list[Document]) -> None:
    backend.upsert(EncodedBatch(documents, {kind: _encoder().encode_fields(documents)}))
    backend.refresh()


def _check(backend: Backend, kind: Kind, documents: list[Document]) -> None:
    items = [_item(document) for document in documents]
    texts = ["word0", "word1 word5 word1", "word2 word3 word4 word11 word7"]
    for query in [*_encoder().encode_queries(texts), *_encoder().with_synonyms(_SYNONYMS).encode_queries(texts)]:
        for k in (1, 10, 100):
            check(backend, kind, items, query, k)


def _rows(vectors: SparseVectors) -> list[dict[str, float]]:
    """The values of each row, by term."""
    terms, matrix = vectors.vocabulary.terms, vectors.matrix
    return [
        {
            terms[column]: value
            for column, value in zip(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist(), strict=True)
        }
        for a, b in zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True)
    ]
