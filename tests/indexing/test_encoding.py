"""What encoders read of documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import hybridsearch as hs
from hybridsearch.indexing.encoding import IndexEncoders
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


class Small(hs.BM25):
    """An encoder whose model reads few tokens, which are characters."""

    max_tokens = 60  # type: ignore[assignment]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return list(map(len, texts))


def test_an_index_keeps_whose_tokens_are_counted() -> None:
    document = hs.Document("1", "Wings give lift. Lift grows with the angle. It ends.")
    encoders = IndexEncoders({"small": Small(), "bm25": hs.BM25()}, hs.Passages(size=30))
    schema = encoders.make_schema({})
    assert schema.passages == {**hs.Passages(size=30, whole=()).to_json(), "counter": "small"}

    def ends(counter: str) -> list[int]:
        again = IndexEncoders({"small": Small(), "bm25": hs.BM25()}, hs.Passages(size=30))
        again.built(replace(schema, passages={**schema.passages, "counter": counter}))
        passages = again.encode([document]).passages
        return [] if passages is None else passages.spans[:, 1].tolist()

    assert (ends("small"), ends("bm25")) == ([17, 44, 52], [52])
