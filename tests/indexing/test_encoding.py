"""What encoders read of documents."""

from __future__ import annotations

from collections.abc import Sequence

import hybridsearch as hs
from hybridsearch.vectors import SparseVectors


class Tags(hs.BM25):
    """An encoder that reads the metadata alone."""

    def encode_fields(self, documents: Sequence[hs.Document]) -> SparseVectors:
        return self.encode_documents([document.metadata["tags"] for document in documents])


def test_an_encoder_with_encode_fields_gets_whole_documents() -> None:
    search = hs.HybridSearch({"tags": Tags(), "bm25": hs.BM25()})
    search.index(
        [hs.Document("1", "A wing.", metadata={"tags": "lift"}), hs.Document("2", "lift", "Wing", {"tags": ""})]
    )
    search.upsert([hs.Document("3", "wing", metadata={"tags": "drag"})])

    assert search.search("wing", retrievers=["tags"]).ids == []
    assert search.search("drag", retrievers=["tags"]).ids == ["3"]
    assert sorted(search.search("wing", retrievers=["bm25"]).ids) == ["1", "2", "3"]
