"""Tests of the store of encoded documents: they are encoded once and read anywhere."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from hybridsearch.backends import Fingerprint, RetrieverSchema, Schema
from hybridsearch.corpus import CorpusStore
from hybridsearch.corpus.parts import GROUP_ROWS, from_table, read_part, to_tables, write_part
from hybridsearch.documents import Document
from hybridsearch.errors import (
    IndexCorruptedError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidArgumentError,
)
from hybridsearch.testing.samples import Item, encode, long, long_items, make_schema, with_passages
from hybridsearch.testing.storage import vector_of
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors, PassageSpans, SparseVectors, Vocabulary

SCHEMA = Schema(
    {
        "bm25": RetrieverSchema("lexical", Fingerprint("bm25", {}), weighting={}),
        "a/b é": RetrieverSchema("dense", Fingerprint("dense", {}), dimensions=3, metric="dot"),
    },
    {"fusion": {"type": "rrf"}},
)


def batch(start: int, stop: int, prefix: str = "w") -> EncodedBatch:
    rows = stop - start
    rng = np.random.default_rng([start, stop])
    matrix = csr_array(random_array((rows, 6), density=0.4, rng=rng, dtype=np.float32))
    vocabulary = Vocabulary([f"{prefix}{number}" for number in range(6)])
    documents = [Document(f"d{n}", f"text {n}", "title", {"n": n, "tags": ["ü"]}) for n in range(start, stop)]
    vectors = {
        "bm25": SparseVectors(matrix, vocabulary),
        "a/b é": DenseVectors(rng.standard_normal((rows, 3), dtype=np.float32), "dot"),
    }
    return EncodedBatch(documents, vectors)


def content(batches: list[EncodedBatch]) -> dict[str, object]:
    """All documents by id, with sparse vectors as mappings, so that the order of the vocabulary does not matter."""
    found: dict[str, object] = {}
    for part in batches:
        lexical, dense = part.vectors["bm25"], part.vectors["a/b é"]
        assert isinstance(lexical, SparseVectors)
        assert isinstance(dense, DenseVectors)
        for row, document in enumerate(part.documents):
            of_row = slice(lexical.matrix.indptr[row], lexical.matrix.indptr[row + 1])
            terms = [lexical.vocabulary.terms[column] for column in lexical.matrix.indices[of_row]]
            weights = dict(zip(terms, lexical.matrix.data[of_row].tolist(), strict=True))
            found[document.id] = (document.to_dict(), weights, dense.array[row].tolist(), dense.metric)
    return found


def test_what_was_appended_comes_back_after_reopening(tmp_path: Path) -> None:
    batches = [batch(0, 5), batch(5, 6, "other"), batch(6, 40)]
    with_store = CorpusStore.create(tmp_path / "corpus", SCHEMA)
    for part in batches:
        with_store.append(part)
    with_store.close()
    store = CorpusStore.open(tmp_path / "corpus")
    assert store.schema == SCHEMA
    assert len(store) == 40
    assert content(list(store.batches())) == content(batches)


def test_passages_come_back_with_their_vectors(tmp_path: Path) -> None:
    schema = with_passages(make_schema(frozenset({"lexical", "sparse", "dense", "multi_vector"})), beside=True)
    items = [*long_items(300, seed=2), Item("nothing"), long("many", [Item("same")] * (GROUP_ROWS + 5)), Item("last")]
    given = encode(items, schema)
    store = CorpusStore.create(tmp_path / "corpus", schema)
    store.append(given)
    store.close()
    assert [len(table) for table in to_tables(given, schema)] == [303, 1]
    read = list(CorpusStore.open(tmp_path / "corpus").batches())
    assert [d for batch in read for d in batch.documents] == list(given.documents)
    assert given.passages is not None
    passages = PassageSpans.concat([batch.passages for batch in read if batch.passages is not None])
    assert np.array_equal(passages.offsets, given.passages.offsets)
    assert np.array_equal(passages.spans, given.passages.spans)
    for name, vectors in given.vectors.items():
        rows = [vector_of(batch.vectors[name], row) for batch in read for row in range(len(batch.vectors[name]))]
        assert rows == [vector_of(vectors, row) for row in range(len(vectors))], name


def test_a_file_without_passages_has_the_columns_that_it_always_had(tmp_path: Path) -> None:
    store = CorpusStore.create(tmp_path / "corpus", SCHEMA)
    store.append(batch(0, 3))
    store.close()
    (part,) = (tmp_path / "corpus").rglob("*.parquet")
    columns = pq.ParquetFile(part).schema_arrow
    assert columns.names == ["id", "title", "text", "metadata", "bm25.terms", "bm25.values", "a/b é"]
    assert [str(columns.field(name).type) for name in columns.names[-2:]] == [
        "list<element: float>",
        "fixed_size_list<element: float>[3]",
    ]
    assert '"passages"' not in (tmp_path / "corpus" / "manifest.json").read_text()


def test_token_vectors_are_lists_of_halves(tmp_path: Path) -> None:
    schema = make_schema(frozenset({"multi_vector"}), dimensions=3)
    given_batch = tokens_batch([2, 0, 5], 3)
    store = CorpusStore.create(tmp_path / "corpus", schema)
    store.append(given_batch)
    path = store.path(store.parts[0])
    assert str(pq.ParquetFile(path).schema_arrow.field("multi_vector").type) == "list<element: halffloat>"
    rows = pq.read_table(path).to_pylist()
    assert [(len(row["multi_vector"]), row["multi_vector.counts"]) for row in rows] == [(6, [2]), (0, [0]), (15, [5])]
    (read,) = store.batches()
    vectors = given_batch.vectors["multi_vector"]
    assert [vector_of(read.vectors["multi_vector"], row) for row in range(3)] == [
        vector_of(vectors, row) for row in range(3)
    ]
    store.close()


def test_many_token_vectors_make_short_row_groups() -> None:
    batch = tokens_batch([3, 0, *[1500] * 50], 512)
    schema = make_schema(frozenset({"multi_vector"}), dimensions=512)
    assert [len(table) for table in to_tables(batch, schema)] == [24, 22, 6]  # 32 MiB, and 1.5 MB a document


def tokens_batch(counts: list[int], dimensions: int) -> EncodedBatch:
    rows = [np.random.default_rng(count).standard_normal((count, dimensions)) for count in counts]
    documents = [Document(f"d{row}", "text") for row in range(len(rows))]
    return EncodedBatch(documents, {"multi_vector": MultiVectors.of(rows, dimensions)})


def test_tombstones_hide_documents(tmp_path: Path) -> None:
    store = CorpusStore.create(tmp_path / "corpus", SCHEMA)
    store.append(batch(0, 10))
    live = np.arange(10) % 2 == 0
    store.commit([store.with_tombstones(store.parts[0], live)])
    store.close()
    store = CorpusStore.open(tmp_path / "corpus")
    assert len(store) == 5
    assert [d.id for part in store.batches() for d in part.documents] == ["d0", "d2", "d4", "d6", "d8"]


def test_parts_read_as_plain_parquet(tmp_path: Path) -> None:
    store = CorpusStore.create(tmp_path / "corpus", SCHEMA)
    given_batch = batch(0, 10)
    store.append(given_batch)
    rows = pq.read_table(store.path(store.parts[0])).to_pylist()
    assert list(rows[0]) == ["id", "title", "text", "metadata", "bm25.terms", "bm25.values", "a/b é"]
    assert rows[3]["text"] == "text 3"
    assert rows[3]["metadata"] == '{"n":3,"tags":["ü"]}'
    _, weights, dense, _ = content([given_batch])["d3"]  # type: ignore[misc]
    assert dict(zip(rows[3]["bm25.terms"], rows[3]["bm25.values"], strict=True)) == weights
    assert rows[3]["a/b é"] == dense


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_small_tables_with_different_vocabularies_are_joined(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("part") / "part.parquet"
    ends = np.cumsum(sizes).tolist()
    batches = [batch(end - size, end, f"v{size % 3}-") for end, size in zip(ends, sizes, strict=True)]
    tables = (table for part in batches for table in to_tables(part, SCHEMA))
    assert write_part(path, tables, SCHEMA) == ends[-1]
    assert pq.ParquetFile(path).num_row_groups == 1
    assert content([from_table(table, SCHEMA) for table in read_part(path)]) == content(batches)


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    many = batch(0, 2 * GROUP_ROWS + 1)
    assert [len(table) for table in to_tables(many, SCHEMA)] == [GROUP_ROWS, GROUP_ROWS, 1]
    long = batch(0, 3)
    documents = [Document(d.id, "x" * (1 << 25)) for d in long.documents]
    assert [len(table) for table in to_tables(EncodedBatch(documents, long.vectors), SCHEMA)] == [1, 1, 1]


def test_a_store_without_documents_is_fine(tmp_path: Path) -> None:
    CorpusStore.create(tmp_path, SCHEMA).close()
    store = CorpusStore.open(tmp_path)
    assert (len(store), list(store.batches())) == (0, [])


def test_a_store_inside_another_store_is_refused(tmp_path: Path) -> None:
    """The outer store deletes folders that its manifest does not name."""
    CorpusStore.create(tmp_path / "outer", SCHEMA).close()
    for inner in (tmp_path / "outer" / "inner", tmp_path / "outer" / "segments" / "mine" / "inner"):
        with pytest.raises(IndexExistsError, match=r"is inside the index in .*outer, which may delete it"):
            CorpusStore.create(inner, SCHEMA)
        assert not inner.exists()


def test_creating_twice_or_over_other_files_is_refused(tmp_path: Path) -> None:
    CorpusStore.create(tmp_path / "corpus", SCHEMA).close()
    with pytest.raises(IndexExistsError, match="already"):
        CorpusStore.create(tmp_path / "corpus", SCHEMA)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(IndexExistsError, match=r"corpus, notes\.txt"):
        CorpusStore.create(tmp_path, SCHEMA)


def test_opening_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="nothing"):
        CorpusStore.open(tmp_path / "nothing")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first = CorpusStore.create(tmp_path, SCHEMA)
    second = CorpusStore.open(tmp_path)
    with pytest.raises(IndexLockedError):
        second.append(batch(0, 1))
    first.append(batch(0, 3))
    first.close()
    assert second.lock()
    second.append(batch(3, 4))
    assert len(second) == 4


def test_the_writer_may_close_in_another_thread(tmp_path: Path) -> None:
    store = CorpusStore.create(tmp_path, SCHEMA)
    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join()
    CorpusStore.open(tmp_path).append(batch(0, 1))


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridsearch.corpus.manifest.FORMAT_VERSION", 2)
    CorpusStore.create(tmp_path, SCHEMA).close()
    monkeypatch.undo()
    with pytest.raises(IndexCorruptedError, match="upgrade"):
        CorpusStore.open(tmp_path)


@pytest.mark.parametrize("names", [["text"], ["a", "a.terms"]])
def test_retrievers_that_would_share_a_column_are_refused(tmp_path: Path, names: list[str]) -> None:
    dense = RetrieverSchema("dense", Fingerprint("f", {}), dimensions=2, metric="cosine")
    sparse = RetrieverSchema("sparse", Fingerprint("f", {}))
    retrievers = {name: dense if "." in name or len(names) == 1 else sparse for name in names}
    with pytest.raises(InvalidArgumentError, match=names[-1]):
        CorpusStore.create(tmp_path / "corpus", Schema(retrievers))
    assert not (tmp_path / "corpus").exists()


def test_a_manifest_of_random_bytes_is_damage(tmp_path: Path) -> None:
    CorpusStore.create(tmp_path, SCHEMA).close()
    for raw in (b"", b"{}", b"[]", b'{"checksum": 1}', b"\xff\xfe", b"null", b"[" * 100_000):
        (tmp_path / "manifest.json").write_bytes(raw)
        with pytest.raises(IndexCorruptedError, match=r"manifest\.json"):
            CorpusStore.open(tmp_path)
