"""Segments: finding documents by id, and strings as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch.adapters.memory import segment as module
from hybridsearch.adapters.memory.segment import Segment, hash_ids
from hybridsearch.adapters.memory.strings import Strings
from hybridsearch.documents import Document
from hybridsearch.vectors import EncodedBatch

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(texts), st.randoms())
def test_strings_come_back_in_any_order(strings: list[str], random: Any) -> None:
    packed = Strings.of(strings)
    rows = list(range(len(strings)))
    random.shuffle(rows)
    assert packed.slice(0, len(strings)) == strings
    assert packed.take(np.array(rows, dtype=np.int64)) == [strings[row] for row in rows]


@given(st.lists(texts, unique=True))
def test_the_order_of_strings_is_by_code_point(strings: list[str]) -> None:
    ranks = Strings.of(strings).order()
    assert [string for _, string in sorted(zip(ranks.tolist(), strings, strict=True))] == sorted(strings)


@given(st.lists(st.tuples(texts, st.booleans())), st.lists(texts))
def test_concatenation_keeps_what_the_mask_says(first: list[tuple[str, bool]], second: list[str]) -> None:
    keep = np.array([there for _, there in first], dtype=np.bool_)
    merged = Strings.concat([(Strings.of(string for string, _ in first), keep), (Strings.of(second), None)])
    assert merged.slice(0, len(merged)) == [string for string, there in first if there] + second


def test_ids_are_found_even_when_all_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hash_ids", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    documents = [Document(f"d{number}", "") for number in range(20)]
    segment = Segment.build(EncodedBatch(documents, {}))
    found = segment.find(["d7", "unknown", "d19"], np.zeros(3, dtype=np.uint64))
    assert [(position, segment.ids[row]) for position, row in found] == [(0, "d7"), (2, "d19")]


def test_hashes_are_those_of_b2sum_in_every_process() -> None:
    digests = [bytes.fromhex("40f89e395b66422f"), bytes.fromhex("f04dbbe25e2ba039")]  # printf a | b2sum -l 64
    assert hash_ids(["a", "ä"]).tolist() == [int.from_bytes(digest, "little") for digest in digests]


def test_documents_come_back_as_they_were() -> None:
    given_metadata = {"year": 1958, "tags": ["a", None, 1.5, True], "nested": {"a.b": {"c": "ü"}}}
    documents = [Document("1", "text\x00 \U0001f600", "", given_metadata), Document("ü", "", "only a title")]
    segment = Segment.build(EncodedBatch(documents, {}))
    assert [segment.document(row).to_dict() for row in (0, 1)] == [document.to_dict() for document in documents]
