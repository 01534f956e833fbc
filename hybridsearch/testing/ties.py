"""Tests of ties. Equal scores must be ordered by document id, by code point, at every cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hybridsearch.backends import Backend, Schema
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, Kinds, ask, put
from hybridsearch.testing.samples import Item

ODD_IDS = [
    "10", "9", "a", "B", "b", "A", "Z", "z", "é", "e\u0301", "ß", "ss", "ı", "İ", "\uff61", "\U0001f600", "\U00010000",
    "with space", " leading", "trailing ", "tab\tinside", "new\nline", "quote'", 'quote"', "back\\slash", "a/b/../c",
    ".hidden", "..", "%2e%2e", "a.b.c", "$eq", "_id", "_all", "null", "None", "true", "0", "-1", "1e5", "#?&=;,",
    "日本語", "مرحبا", "\u200b", "nul\x00inside", "nul", "x" * 512, "ü" * 256, "*", "?", "{}", "[0]", "<b>", "a|b",
]  # fmt: skip
"""Ids that sort differently by locale, in UTF-16 or after normalisation, or that a path, URL or query could change."""


class TieTests(Base):
    """Tests of ties and of the order of insertion.

    Only exact kinds are tested, because an approximate search may miss any of several equal documents.
    """

    def test_equal_scores_are_cut_by_id(self, backend: Backend, schema: Schema, exact_kinds: Kinds) -> None:
        ids = [f"d{number}" for number in range(40)]
        for part in _shuffled_parts([samples.plain(id) for id in ids], 5):
            put(backend, part, schema)
        _check_cuts(backend, exact_kinds, sorted(ids), (1, 2, 19, 39, 40, 41))

    def test_ties_below_better_documents_are_cut_by_id(
        self, backend: Backend, schema: Schema, exact_kinds: Kinds
    ) -> None:
        better = [_twice_as_good(f"x{number}") for number in range(4)]
        equal = [samples.plain(f"d{number}") for number in range(40)]
        for part in _shuffled_parts(better + equal, 3):
            put(backend, [_lower(item) if item in equal else item for item in part], schema)
        ids = sorted(item.id for item in better) + sorted(item.id for item in equal)
        _check_cuts(backend, exact_kinds, ids, (3, 4, 5, 20, 44))

    def test_odd_ids_are_ordered_by_code_point(self, backend: Backend, schema: Schema, exact_kinds: Kinds) -> None:
        for part in _shuffled_parts([samples.plain(id) for id in ODD_IDS], 3):
            put(backend, part, schema)
        _check_cuts(backend, exact_kinds, sorted(ODD_IDS), (5, 17, len(ODD_IDS)))

    def test_the_order_and_batches_of_insertion_change_no_ranking(
        self, connect: Connect, backend: Backend, schema: Schema, exact_kinds: Kinds
    ) -> None:
        items = samples.random_items()
        put(backend, items, schema)
        for seed in range(3):
            mixed = connect(f"mixed{seed}")
            mixed.create(schema)
            for part in _shuffled_parts(items, 4, seed):
                put(mixed, part, schema)
            for kind in exact_kinds:
                for query in samples.random_queries(kind):
                    assert ask(mixed, kind, query, 30) == ask(backend, kind, query, 30), (kind, seed)
            mixed.close()

    def test_equal_vectors_have_equal_scores_wherever_they_are_stored(
        self, backend: Backend, schema: Schema, exact_kinds: Kinds
    ) -> None:
        twins = [replace(item, id=f"{item.id}-{copy}") for item in samples.random_items(9) for copy in "abcdefg"]
        for part in _shuffled_parts(twins, 4):
            put(backend, part, schema)
        for kind in exact_kinds:
            for query in samples.random_queries(kind, 6):
                ranking = ask(backend, kind, query, 1000)
                scores: dict[str, set[float]] = {}
                for id, score in ranking:
                    scores.setdefault(id[:-2], set()).add(score)
                assert all(len(distinct) == 1 for distinct in scores.values()), kind
                assert list(ranking.ids) == [f"{id}-{copy}" for id in scores for copy in "abcdefg"], kind

    def test_a_large_index_is_cut_by_id_too(self, backend: Backend, schema: Schema, exact_kinds: Kinds) -> None:
        ids = [f"d{number}" for number in range(self.many)]
        for part in _shuffled_parts([samples.plain(id) for id in ids], 2):
            put(backend, part, schema)
        _check_cuts(backend, exact_kinds, sorted(ids), (100,))


def _check_cuts(backend: Backend, kinds: Kinds, ids: Sequence[str], cuts: Sequence[int]) -> None:
    """Assert that the plain items are found in the order of `ids`, at every cut."""
    for kind in kinds:
        for k in cuts:
            assert ask(backend, kind, samples.common_query(kind), k).ids == tuple(ids[:k]), (kind, k)


def _shuffled_parts(items: Sequence[Item], parts: int, seed: int = 7) -> list[list[Item]]:
    order = np.random.default_rng(seed).permutation(len(items))
    return [[items[i] for i in part] for part in np.array_split(order, parts)]


def _twice_as_good(id: str) -> Item:
    """An item that scores higher than every `_lower` item for `samples.common_query`, with every kind of retriever."""
    return Item(id, {"common": 2}, {"common": 2.0}, samples.unit(np.ones(samples.DIMENSIONS)))


def _lower(item: Item) -> Item:
    vector = np.ones(samples.DIMENSIONS, dtype=np.float32)
    vector[0] = -1.0
    return replace(item, counts={"common": 1, "filler": 1}, vector=samples.unit(vector))
