"""Tests of indexes that a comparison builds: they are used again, and replaced when they no longer fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridsearch as hs
from hybridsearch.documents import Document
from hybridsearch.evaluation.indexes import kept_index

RETRIEVERS = {"bm25": hs.BM25()}
DOCUMENTS = [Document("d1", "wing lift"), Document("d2", "heat panel")]


class Breaking:
    """Documents that can be read only once, for their digest."""

    def __init__(self) -> None:
        self.reads = 0

    def __iter__(self) -> Iterator[Document]:
        self.reads += 1
        yield DOCUMENTS[0]
        if self.reads > 1:
            raise OSError("the disk is gone")


def indexes(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("index-*")}


def test_the_same_documents_have_the_same_index(tmp_path: Path) -> None:
    for _ in range(2):
        with kept_index(RETRIEVERS, DOCUMENTS, tmp_path) as search:
            assert search.search("heat").ids == ["d2"]
    assert len(indexes(tmp_path)) == 1


def test_the_order_of_keys_in_metadata_makes_no_other_index(tmp_path: Path) -> None:
    made: list[set[str]] = []
    for metadata in ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}):
        with kept_index(RETRIEVERS, [Document("d1", "wing lift", metadata=metadata)], tmp_path):
            made.append(indexes(tmp_path))
    assert made[0] == made[1]


def test_an_index_of_other_documents_is_removed_and_one_of_other_retrievers_stays(tmp_path: Path) -> None:
    for retrievers in (RETRIEVERS, {"german": hs.BM25("german")}):
        with kept_index(retrievers, DOCUMENTS, tmp_path):
            pass
    before = indexes(tmp_path)
    with kept_index(RETRIEVERS, DOCUMENTS[:1], tmp_path) as search:
        assert search.count() == 1
    assert len(indexes(tmp_path)) == 2
    assert len(indexes(tmp_path) & before) == 1


def test_an_index_stays_until_its_replacement_is_complete(tmp_path: Path) -> None:
    with kept_index(RETRIEVERS, DOCUMENTS, tmp_path):
        pass
    before = indexes(tmp_path)
    with pytest.raises(OSError, match="the disk is gone"), kept_index(RETRIEVERS, Breaking(), tmp_path):
        pass
    assert before <= indexes(tmp_path)
    with kept_index(RETRIEVERS, DOCUMENTS[:1], tmp_path):
        pass
    assert len(indexes(tmp_path)) == 1


def test_two_settings_of_one_model_have_an_index_each_and_a_name_each(tmp_path: Path, minilm: str) -> None:
    for encoder in (hs.Dense(minilm, truncate_dim=64), hs.Dense(minilm, query_prompt="query: ")):
        with kept_index({"dense": encoder}, DOCUMENTS, tmp_path):
            pass
    assert len(indexes(tmp_path)) == 2
    assert (
        repr(hs.Dense(minilm, truncate_dim=64, max_length=32)) == f"Dense({minilm!r}, max_length=32, truncate_dim=64)"
    )
    assert repr(hs.Sparse("a/b", max_active_dims=9, revision="x")) == "Sparse('a/b', revision='x', max_active_dims=9)"
    reranker = hs.CrossEncoderReranker("a/b", max_length=64)
    assert repr(reranker) == "CrossEncoderReranker('a/b', max_length=64, top_k=50)"
