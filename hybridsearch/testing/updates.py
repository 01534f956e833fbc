"""Tests of changes. After any upserts and deletes, an index must answer like a new index."""

from __future__ import annotations

import numpy as np
import pytest

from hybridsearch.backends import Backend, Capabilities, Kind, Schema
from hybridsearch.documents import Document
from hybridsearch.ranking import EMPTY
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Kinds, ask, check, find_all, put, require
from hybridsearch.testing.samples import Item, sparse_query


class UpdateTests(Base):
    """Tests of upserts and deletes after the first batch."""

    @pytest.fixture
    def can_delete(self, capabilities: Capabilities) -> None:
        """Skips the test if the backend cannot delete."""
        require(capabilities.delete, "delete")

    def test_upserting_the_same_batch_again_changes_nothing(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        items = samples.random_items(30)
        put(backend, items, schema)
        questions = [(kind, query) for kind in kinds for query in samples.random_queries(kind)]
        before = [ask(backend, kind, query) for kind, query in questions]
        for _ in range(3):
            put(backend, items, schema)
        assert backend.count() == 30
        for (kind, query), ranking in zip(questions, before, strict=True):
            assert ask(backend, kind, query) == ranking, kind

    def test_upsert_replaces_text_title_and_metadata(self, backend: Backend, schema: Schema) -> None:
        put(backend, [samples.plain("a", text="old", title="Old", metadata={"old": 1, "both": 1})], schema)
        put(backend, [samples.plain("a", text="new", metadata={"both": 2})], schema)
        assert backend.fetch(["a"]) == [Document("a", "new", "", {"both": 2})]
        assert backend.count() == 1

    def test_upsert_replaces_vectors(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        old = samples.random_items(20, seed=1)
        new = samples.random_items(20, seed=2)
        put(backend, old, schema)
        put(backend, new[:7], schema)
        for kind in kinds:
            for query in samples.random_queries(kind):
                check(backend, kind, new[:7] + old[7:], query, 100)

    def test_old_terms_no_longer_match_after_a_replacement(
        self, backend: Backend, schema: Schema, term_kinds: Kinds
    ) -> None:
        put(backend, [Item("a", {"old": 1, "both": 1}, {"old": 1.0, "both": 1.0})], schema)
        put(backend, [Item("a", {"new": 1, "both": 1}, {"new": 1.0, "both": 1.0})], schema)
        for kind in term_kinds:
            assert ask(backend, kind, sparse_query({"old": 1.0})) == EMPTY, kind
            assert ask(backend, kind, sparse_query({"new": 1.0})).ids == ("a",), kind
            assert ask(backend, kind, sparse_query({"both": 1.0})).ids == ("a",), kind

    def test_a_document_that_loses_its_vector_is_no_longer_found(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        put(backend, [samples.plain("a"), samples.plain("b")], schema)
        put(backend, [Item("a")], schema)
        for kind in kinds:
            assert find_all(backend, kind) == {"b"}, kind
        assert backend.count() == 2

    def test_deleted_documents_are_gone(self, backend: Backend, schema: Schema, kinds: Kinds, can_delete: None) -> None:
        items = samples.random_items(40)
        put(backend, items, schema)
        assert backend.delete([item.id for item in items[5:25]]) == 20
        backend.refresh()
        left = items[:5] + items[25:]
        assert backend.count() == 20
        assert backend.fetch([items[5].id, items[0].id]) == [None, items[0].document]
        for kind in kinds:
            for query in samples.random_queries(kind):
                check(backend, kind, left, query, 100)

    def test_deleting_unknown_ids_changes_nothing(
        self, backend: Backend, schema: Schema, any_kind: Kind, can_delete: None
    ) -> None:
        put(backend, [samples.plain("a"), samples.plain("b")], schema)
        assert backend.delete(["unknown", "a ", "A", ""]) == 0
        assert backend.delete([]) == 0
        backend.refresh()
        assert find_all(backend, any_kind) == {"a", "b"}

    def test_deleting_counts_each_document_once(self, backend: Backend, schema: Schema, can_delete: None) -> None:
        put(backend, [samples.plain("a"), samples.plain("b")], schema)
        assert backend.delete(["a", "a", "unknown"]) == 1
        backend.refresh()
        assert backend.delete(["a"]) == 0
        assert backend.count() == 1

    def test_deleting_everything_leaves_an_index_that_can_be_filled_again(
        self, backend: Backend, schema: Schema, kinds: Kinds, can_delete: None
    ) -> None:
        old, new = samples.random_items(20, seed=1), samples.random_items(20, seed=2)
        put(backend, old, schema)
        assert backend.delete([item.id for item in old]) == 20
        backend.refresh()
        questions = [(kind, samples.random_queries(kind, 1)[0]) for kind in kinds]
        assert backend.count() == 0
        for kind, query in questions:
            assert ask(backend, kind, query) == EMPTY, kind
        put(backend, new, schema)
        for kind, query in questions:
            check(backend, kind, new, query, 100)

    def test_a_deleted_document_can_come_back(
        self, backend: Backend, schema: Schema, kinds: Kinds, can_delete: None
    ) -> None:
        items = samples.random_items(20)
        put(backend, items, schema)
        backend.delete([items[3].id])
        put(backend, [items[3]], schema)
        for kind in kinds:
            for query in samples.random_queries(kind, 4):
                check(backend, kind, items, query, 100)
        assert backend.count() == 20

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_after_any_updates_the_index_answers_like_a_fresh_one(
        self, backend: Backend, schema: Schema, kinds: Kinds, can_delete: None, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        held: dict[str, Item] = {}
        for step in range(12):
            if held and rng.random() < 0.35:
                gone = rng.choice(sorted(held), size=int(rng.integers(1, 12))).tolist()
                assert backend.delete(gone) == len(set(gone) & set(held))
                held = {id: item for id, item in held.items() if id not in gone}
            else:
                count = int(rng.integers(1, 25))
                pool = samples.random_items(50, seed=100 * seed + step)
                chosen = [pool[i] for i in rng.choice(50, size=count, replace=False)]
                backend.upsert(samples.encode(chosen, schema))
                held |= {item.id: item for item in chosen}
            if step % 3 == 2:
                backend.refresh()
                assert backend.count() == len(held)
                for kind in kinds:
                    for query in samples.random_queries(kind, 3, seed=step):
                        check(backend, kind, list(held.values()), query, int(rng.integers(1, 60)))

    def test_the_length_of_changed_documents_changes_the_average(
        self, backend: Backend, schema: Schema, lexical: Kind, can_delete: None
    ) -> None:
        require(backend.capabilities.live_average, "live average length")
        short = [Item(f"s{i}", {"wing": 1, "flow": 1}) for i in range(5)]
        long = [Item(f"l{i}", {"wing": 2, "filler": 5000}) for i in range(5)]
        put(backend, short + long, schema)
        backend.delete([item.id for item in long])
        backend.refresh()
        check(backend, lexical, short, sparse_query({"wing": 1.0}))
        put(backend, [Item("s0", {"wing": 9})], schema)
        check(backend, lexical, [Item("s0", {"wing": 9}), *short[1:]], sparse_query({"wing": 1.0, "flow": 1.0}))
