"""The memory backend passes the conformance suite, in RAM, in a folder, and with HNSW for dense vectors.

Token vectors are compared with those of all documents, or with those of the nearest 256.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Kind, Request
from hybridsearch.testing import BackendSuite
from hybridsearch.testing.base import Connect
from hybridsearch.testing.oracles import check_ranking, right_scores
from hybridsearch.testing.passages import check_passages
from hybridsearch.testing.samples import Item, encode, long, make_schema, sparse_query, with_passages
from hybridsearch.vectors import QueryVector


class TestInRam(BackendSuite):
    @pytest.fixture
    def connect(self) -> Connect:
        return lambda name: MemoryBackend(None, multi_vector_candidates=None)

    @pytest.fixture
    def connect_shared(self, connect: Connect) -> Connect:
        return connect


class TestInAFolder(BackendSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return lambda name: MemoryBackend(tmp_path / name, multi_vector_candidates=None)

    @pytest.fixture
    def connect_shared(self, new_folder: Callable[[], Path]) -> Connect:
        return lambda name: MemoryBackend(new_folder(), multi_vector_candidates=None)


class TestWithHnsw(BackendSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        pytest.importorskip("usearch", reason="HNSW needs usearch: pip install 'hybridsearch[hnsw]'")
        return lambda name: MemoryBackend(tmp_path / name, hnsw=True)

    @pytest.fixture
    def connect_shared(self, new_folder: Callable[[], Path]) -> Connect:
        return lambda name: MemoryBackend(new_folder(), hnsw=True)


TERMS = ["a", "b", "c", "d", "e"]
ITEMS = st.builds(
    lambda number, counts, vector, tokens: Item(
        f"d{number}",
        counts,
        {t: n / 4 for t, n in counts.items()},
        np.float32(vector),
        tokens=np.array(tokens, np.float32).reshape(-1, 2),
    ),
    st.integers(0, 12),
    st.dictionaries(st.sampled_from(TERMS), st.integers(1, 3)),
    st.tuples(*[st.integers(-2, 2)] * 2),
    st.lists(st.tuples(*[st.integers(-2, 2)] * 2), max_size=6),
)
SCHEMA = make_schema(frozenset({"lexical", "sparse", "dense", "multi_vector"}), "dot", dimensions=2)


class AnySequence(RuleBasedStateMachine):
    """Makes upserts, deletes, merges and reopenings in any order, and compares the index with a dict."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.backend = MemoryBackend(self.folder)
        self.backend.create(self.schema)
        self.held: dict[str, Item] = {}

    def change(self, items: list[Item]) -> None:
        self.backend.upsert(encode(items, self.schema))
        self.held |= {item.id: item for item in items}

    upsert = rule(items=st.lists(ITEMS, max_size=6, unique_by=lambda item: item.id))(change)

    @rule(numbers=st.lists(st.integers(0, 12), max_size=5))
    def delete(self, numbers: list[int]) -> None:
        ids = [f"d{number}" for number in numbers]
        assert self.backend.delete(ids) == len(set(ids) & self.held.keys())
        self.held = {id: item for id, item in self.held.items() if id not in ids}

    @rule()
    def merge(self) -> None:
        self.backend.optimize()

    @rule()
    def reopen(self) -> None:
        self.backend.close()
        self.backend = MemoryBackend(self.folder)
        assert self.backend.open() == self.schema

    @rule(
        counts=st.dictionaries(st.sampled_from(TERMS), st.integers(1, 2)),
        vector=st.tuples(*[st.integers(-2, 2)] * 2),
        k=st.integers(1, 14),
    )
    def search(self, counts: dict[str, int], vector: tuple[int, int], k: int) -> None:
        assert self.backend.count() == len(self.held)
        whole = "whole-" if self.schema.passages else ""
        for kind in ("lexical", "sparse"):
            self.compare(f"{whole}{kind}", kind, sparse_query(counts), k)
        self.compare(f"{whole}dense", "dense", np.float32(vector), k)
        self.compare(f"{whole}multi_vector", "multi_vector", np.float32([vector, vector[::-1]]), k)

    def compare(self, name: str, kind: Kind, query: QueryVector, k: int) -> None:
        right = right_scores(kind, list(self.held.values()), query, "dot")
        (ranking,) = self.backend.search([Request(name, query, k)])
        check_ranking(ranking, right, k, tolerance=self.backend.capabilities.score_tolerance[kind])

    def teardown(self) -> None:
        self.backend.close()
        shutil.rmtree(self.folder)


ITEMS_OF_PASSAGES = st.builds(
    lambda number, passages: long(f"d{number}", passages), st.integers(0, 12), st.lists(ITEMS, min_size=1, max_size=4)
)
OF_PASSAGES = with_passages(SCHEMA, beside=True)


class AnySequenceOfPassages(AnySequence):
    """Does the same with passages, beside retrievers that read whole documents."""

    schema = OF_PASSAGES
    upsert = rule(items=st.lists(ITEMS_OF_PASSAGES, max_size=6, unique_by=lambda item: item.id))(AnySequence.change)

    @rule(
        counts=st.dictionaries(st.sampled_from(TERMS), st.integers(1, 2)),
        vector=st.tuples(*[st.integers(-2, 2)] * 2),
        k=st.integers(1, 14),
        listed=st.integers(0, 3),
    )
    def search_passages(self, counts: dict[str, int], vector: tuple[int, int], k: int, listed: int) -> None:
        held = list(self.held.values())
        check_passages(self.backend, "lexical", held, sparse_query(counts), k, listed)
        check_passages(self.backend, "sparse", held, sparse_query(counts), k, listed)
        check_passages(self.backend, "dense", held, np.float32(vector), k, listed, metric="dot")
        check_passages(self.backend, "multi_vector", held, np.float32([vector, vector[::-1]]), k, listed)


AnySequenceOfPassages.TestCase.settings = AnySequence.TestCase.settings = settings(
    database=None, deadline=None, max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck)
)
TestAnySequenceOfChanges = AnySequence.TestCase
TestAnySequenceOfChangesOfPassages = AnySequenceOfPassages.TestCase
