"""An index that a comparison built is found again, and one that no longer fits goes when its replacement is there."""

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
    """A corpus that can be read once, for its digest, and not a second time."""

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
