"""Tests of bulk lines: they keep documents and vectors without loss, under names that an engine accepts."""

from __future__ import annotations

import json
import uuid
import zlib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import smile_reader
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from scipy.sparse import csr_array
from servers import address_of, call, server_of

from hybridsearch.adapters.lucene.stored.lines import (
    bulk_lines,
    delete_lines,
    document_key,
    encode_term,
    read_document,
    text_lengths,
    vectors_from_source,
)
from hybridsearch.adapters.lucene.wire.connection import Address
from hybridsearch.backends import Schema
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.testing import samples
from hybridsearch.testing.samples import Item
from hybridsearch.testing.storage import ODD_METADATA, ODD_TERMS
from hybridsearch.testing.ties import ODD_IDS
from hybridsearch.vectors import DenseVectors, EncodedBatch, SparseVectors, Vectors, Vocabulary
from hybridsearch.weighting import BM25Weighting

KINDS = frozenset({"lexical", "sparse", "dense"})
SCHEMA = samples.make_schema(KINDS, "dot", dimensions=5)
TERMS = st.text(st.characters(), max_size=80) | st.text("a.%~ 2E\ud800\udc00", max_size=6) | st.sampled_from(ODD_TERMS)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def sources_of(batch: EncodedBatch, schema: Schema = SCHEMA, average: float = 11.5) -> list[dict[str, Any]]:
    sources = []
    for _, raw in bulk_lines(batch, schema, {"lexical": average}, 7):
        _, source = smile_reader.documents(raw)
        sources.append(source)
    return sources


def rows_of(vectors: Vectors) -> list[dict[str, float]] | list[list[float]]:
    if isinstance(vectors, DenseVectors):
        return [row.tolist() for row in vectors.array]
    matrix, terms = vectors.matrix, vectors.vocabulary.terms
    return [
        {
            terms[column]: value
            for column, value in zip(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist(), strict=True)
        }
        for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ]


# ------------------------------------------------------------------------------------------------------ names and keys


@given(TERMS)
def test_only_a_long_term_is_named_by_its_hash(term: str) -> None:
    if encode_term(term).startswith("~"):
        assert len(term.encode("utf-8", "surrogatepass")) > 200 / 3


@given(st.sets(TERMS | st.text("xyü", min_size=190, max_size=220), min_size=2, max_size=30))
def test_no_two_terms_share_a_name(terms: set[str]) -> None:
    assert len({encode_term(term) for term in terms}) == len(terms)


@given(TERMS | st.text(max_size=2000))
def test_a_name_is_one_that_engines_take(term: str) -> None:
    name = encode_term(term)
    assert 1 <= len(name.encode()) <= 200
    assert "." not in name
    assert not any(character.isspace() for character in name)
    assert name.isprintable() or not term.isprintable()


def test_names_of_words_stay_readable() -> None:
    assert [encode_term(term) for term in ("wing", "##ing", "日本", "a_b", "1.5")] == [
        "wing", "##ing", "日本", "a_b", "1%2E5",
    ]  # fmt: skip


@given(st.sets(st.text(st.characters(), max_size=6) | IDS | st.text("x~é", min_size=500, max_size=520), max_size=30))
def test_no_two_ids_share_a_key(ids: set[str]) -> None:
    keys = {document_key(id) for id in ids}
    assert len(keys) == len(ids)
    assert all(1 <= len(key.encode()) <= 512 for key in keys)


def test_the_key_of_an_id_that_looks_like_a_hash_is_no_other_ids_key() -> None:
    long = "x" * 600
    assert document_key(document_key(long)) != document_key(long)


@given(st.lists(st.text(st.characters(), max_size=600)))
def test_delete_lines_name_the_key_of_any_id(ids: list[str]) -> None:
    lines = list(delete_lines(ids))
    assert [id for id, _ in lines] == ids
    read = [document for _, raw in lines for document in smile_reader.documents(raw)]
    assert read == [{"delete": {"_id": document_key(id)}} for id in ids]


# -------------------------------------------------------------------------------------------------------- losslessness


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHTS = st.floats(2.0**-126, 2.0**127, width=32)
ITEMS = st.lists(
    st.builds(
        Item,
        IDS,
        st.dictionaries(TERMS, st.integers(1, 1000), max_size=5),
        st.dictionaries(TERMS, WEIGHTS, max_size=5),
        st_numpy.arrays(np.float32, 5, elements=FINITE),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    max_size=8,
    unique_by=lambda item: item.id,
)


@given(ITEMS)
def test_documents_and_vectors_come_back_bit_for_bit(items: list[Item]) -> None:
    batch = samples.encode(items, SCHEMA)
    sources = sources_of(batch)
    assert [read_document(source["document"]) for source in sources] == list(batch.documents)
    back = vectors_from_source(sources, SCHEMA)
    assert back.keys() == batch.vectors.keys()
    for name, vectors in batch.vectors.items():
        assert rows_of(back[name]) == rows_of(vectors)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_kind_of_float32_comes_back(sign: int) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(1, 0x7F800000, 40_000, dtype=np.uint32)
    bits[:3] = 0x15AE43FD, 0x15AE43FE, 0x15AE43FC  # the decimal that a double would change
    array = sign * bits.view(np.float32).reshape(-1, 5)
    batch = _dense_only(array)
    back = vectors_from_source(sources_of(batch, _dense_schema()), _dense_schema())["dense"]
    assert isinstance(back, DenseVectors)
    assert np.array_equal(back.array.view(np.uint32), array.view(np.uint32))


def test_metadata_comes_back_with_the_same_types() -> None:
    document = Document("a", "x", "", ODD_METADATA)
    (source,) = sources_of(EncodedBatch([document], {}), Schema({}))
    assert repr(read_document(source["document"])) == repr(document)


def test_columns_that_come_back_are_in_the_order_of_their_terms() -> None:
    back = vectors_from_source(sources_of(samples.encode(samples.random_items(), _schema_of_24())), _schema_of_24())
    for name in ("lexical", "sparse"):
        vectors = back[name]
        assert isinstance(vectors, SparseVectors)
        assert list(vectors.vocabulary.terms) == sorted(vectors.vocabulary.terms)
        assert vectors.matrix.has_sorted_indices
        assert (vectors.matrix.data.dtype, vectors.matrix.indices.dtype) == (np.float32, np.int32)


def test_more_documents_than_are_written_at_one_time_come_back() -> None:
    items = [Item(f"d{n}", {f"t{n % 7}": 1 + n % 3}, {f"t{n % 5}.{n % 3}": n / 8 + 1}) for n in range(2500)]
    batch = samples.encode(items, SCHEMA)
    back = vectors_from_source(sources_of(batch), SCHEMA)
    for name in ("lexical", "sparse"):
        assert rows_of(back[name]) == rows_of(batch.vectors[name])


def test_no_sources_give_vectors_without_rows() -> None:
    back = vectors_from_source([], SCHEMA)
    assert {name: len(vectors) for name, vectors in back.items()} == {"lexical": 0, "sparse": 0, "dense": 0}


# -------------------------------------------------------------------------------------------------------------- layout


def test_long_documents_are_compressed_by_zlib_unless_the_index_was_made_before() -> None:
    text = "The air above a wing is faster. " * 9
    item = Item("a", {"x": 1}, {"x": 0.5}, np.ones(5, np.float32), text, "Lift\U0001f600")
    batch = samples.encode([item], SCHEMA)
    held = {}
    for compressed in (True, False):
        ((_, raw),) = bulk_lines(batch, SCHEMA, {"lexical": 9.0}, 7, compressed=compressed)
        text = smile_reader.documents(raw)[1]["document"]
        assert read_document(text) == read_document(text.rstrip("=")) == item.document
        held[compressed] = b64decode(text)
    assert json.loads(zlib.decompress(held[True])) == json.loads(held[False]) == item.document.to_dict()
    assert len(held[True]) < len(held[False]) / 2


def test_a_source_has_the_members_that_the_engines_index() -> None:
    item = Item("a", {"x.y": 2, "z": 1}, {"x.y": 0.5}, np.ones(5, np.float32), "text", "title", {"year": 1958})
    (source,) = sources_of(samples.encode([item], SCHEMA))
    weights = BM25Weighting().term_weights(np.float32([2, 1]), np.float32([3, 3]), 11.5)
    assert source.pop("fields")
    assert json.loads(zlib.decompress(b64decode(source.pop("document")))) == {
        "id": "a",
        "text": "text",
        "title": "title",
        "metadata": {"year": 1958},
    }
    assert source == {
        "id": "a",
        "vectors": {
            "lexical": {name: float(str(weight)) for name, weight in zip(("x%2Ey", "z"), weights, strict=True)},
            "sparse": {"x%2Ey": 0.5},
            "dense": [1.0] * 5,
        },
        "counts": {"lexical": {"x%2Ey": 2.0, "z": 1.0}},
        "stamp": 7,
    }


def test_what_has_no_vector_has_no_member_for_it() -> None:
    (source,) = sources_of(samples.encode([Item("a")], SCHEMA))
    assert source["vectors"] == {}
    assert source.keys() == {"id", "document", "vectors", "stamp"}


def test_lexical_weights_are_those_of_the_average_length_given() -> None:
    batch = samples.encode(samples.random_items(), _schema_of_24())
    lexical = batch.vectors["lexical"]
    assert isinstance(lexical, SparseVectors)
    lengths = np.asarray(lexical.matrix.sum(axis=1)).ravel()
    assert text_lengths(lexical).tolist() == lengths.tolist()
    for average in (0.0, 1.0, 300.0):
        for row, source in enumerate(sources_of(batch, _schema_of_24(), average)):
            for name, count in source["counts"]["lexical"].items():
                norm = 0.25 + (0.75 * lengths[row] / average if average else 0.0)
                assert source["vectors"]["lexical"][name] == pytest.approx(count / (count + 1.2 * norm), rel=1e-6)


def test_weights_that_lucene_cannot_store_are_left_out() -> None:
    batch = _sparse_only([{"zero": 0.0, "subnormal": 1e-40, "smallest": 2.0**-126}])
    (source,) = sources_of(batch, _sparse_schema())
    assert source["vectors"] == {"sparse": {"smallest": pytest.approx(2.0**-126)}}


@pytest.mark.parametrize("kind", ["lexical", "sparse"])
def test_a_negative_weight_is_refused_before_anything_is_written(kind: str) -> None:
    batch = samples.encode([*samples.random_items(3), Item("bad", {"t": -1}, {"t": -1.0})], _schema_of_24())
    schema = Schema({kind: SCHEMA.retrievers[kind]})
    with pytest.raises(InvalidArgumentError, match=f"'bad'.*'t'.*'{kind}'"):
        bulk_lines(EncodedBatch(batch.documents, {kind: batch.vectors[kind]}), schema, {"lexical": 1.0}, 1)


def test_inputs_are_not_changed() -> None:
    batch, same = (samples.encode(samples.random_items(), _schema_of_24()) for _ in range(2))
    sources_of(batch, _schema_of_24())
    for name, vectors in batch.vectors.items():
        assert rows_of(vectors) == rows_of(same.vectors[name])


# ------------------------------------------------------------------------------------------------------- real engines


@pytest.fixture(params=["opensearch", "elasticsearch"])
def index(request: pytest.FixtureRequest) -> Iterator[Address]:
    """The address of an index with the fields of the retriever "sparse"."""
    address = address_of(f"{server_of(request.param)}/hstest-{uuid.uuid4().hex[:8]}-lines")
    feature = {"type": "rank_features" if request.param == "opensearch" else "sparse_vector"}
    unread = {"type": "object", "enabled": False}
    fields = {"id": {"type": "keyword"}, "stamp": {"type": "long"}, "counts": unread, "long_terms": unread}
    properties = {**fields, "vectors": {"properties": {"sparse": feature, "lexical": feature}}}
    call(address, "PUT", address.path, {"mappings": {"dynamic": False, "properties": properties}})
    yield address
    call(address, "DELETE", address.path)


def test_odd_ids_terms_and_metadata_come_back_from_the_engines(index: Address) -> None:
    schema = Schema({name: SCHEMA.retrievers[name] for name in ("lexical", "sparse")})
    terms = [*ODD_TERMS, "", "\ud800", "\ud83d\ude00", "~", "%", "%41", "\u3000", "\u2028", "\x1f"]
    counts = dict.fromkeys(terms, 3)
    weights = {term: float(np.float32(1 / (n + 3))) for n, term in enumerate(terms)}
    items = [Item(id, counts, weights, text=id, metadata=ODD_METADATA) for id in [*ODD_IDS, "~", "_x"]]
    batch = samples.encode(items, schema)
    lines = dict(bulk_lines(batch, schema, {"lexical": 9.0}, 1))
    answer = call(index, "POST", f"{index.path}/_bulk?refresh=true", b"".join(lines.values()))
    assert answer["errors"] is False, [item for item in answer["items"] if "error" in item["index"]][:3]
    keys = [document_key(item.id) for item in items]
    found = call(index, "POST", f"{index.path}/_mget", {"ids": keys})["docs"]
    sources = [document["_source"] for document in found]
    assert [read_document(source["document"]) for source in sources] == list(batch.documents)
    back = vectors_from_source(sources, schema)
    for name in ("lexical", "sparse"):
        assert rows_of(back[name]) == rows_of(batch.vectors[name])
    gone = b"".join(raw for _, raw in delete_lines([item.id for item in items]))
    results = [item["delete"]["result"] for item in call(index, "POST", f"{index.path}/_bulk", gone)["items"]]
    assert results == ["deleted"] * len(items)


# -------------------------------------------------------------------------------------------------------------- helpers


def _schema_of_24() -> Schema:
    return samples.make_schema(KINDS)


def _dense_schema() -> Schema:
    return Schema({"dense": SCHEMA.retrievers["dense"]})


def _dense_only(array: NDArray[np.float32]) -> EncodedBatch:
    documents = [Document(str(row), "") for row in range(len(array))]
    return EncodedBatch(documents, {"dense": DenseVectors(array, "dot")})


def _sparse_schema() -> Schema:
    return Schema({"sparse": SCHEMA.retrievers["sparse"]})


def _sparse_only(rows: list[Mapping[str, float]]) -> EncodedBatch:
    terms = list(dict.fromkeys(term for row in rows for term in row))
    indices = np.array([terms.index(term) for row in rows for term in row], dtype=np.int32)
    data = np.array([value for row in rows for value in row.values()], dtype=np.float32)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    matrix: csr_array[np.float32, tuple[int, int]] = csr_array((data, indices, indptr), shape=(len(rows), len(terms)))
    documents = [Document(str(row), "") for row in range(len(rows))]
    return EncodedBatch(documents, {"sparse": SparseVectors(matrix, Vocabulary(terms))})
