"""Tests of scores and order, which are compared with float64 arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hybridsearch.backends import Backend, Kind, Request, RetrieverSchema, Schema
from hybridsearch.filters import Filter
from hybridsearch.ranking import EMPTY
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Connect, Kinds, ask, assert_same, check, frozen_average, put, require
from hybridsearch.testing.oracles import check_ranking, right_scores
from hybridsearch.testing.samples import DIMENSIONS, Item, sparse_query
from hybridsearch.vectors import EncodedBatch, Metric, QueryVector

_METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")


class RankingTests(Base):
    """Tests of scores, order, the cut at k, documents that must not be hits, and batches of requests."""

    def test_scores_and_order_are_right_at_every_k(self, filled: Backend, kinds: Kinds) -> None:
        items = samples.random_items()
        for kind in kinds:
            for k in (1, 2, 10, 59, 60, 61, 10_000):
                for query in samples.random_queries(kind):
                    check(filled, kind, items, query, k)

    def test_scores_are_right_when_documents_came_in_many_batches(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        items = samples.random_items()
        for start in range(0, len(items), 7):
            put(backend, items[start : start + 7], schema)
        for kind in kinds:
            for query in samples.random_queries(kind):
                check(backend, kind, items, query)

    @pytest.mark.parametrize("metric", _METRICS)
    def test_every_metric_scores_as_defined(self, connect: Connect, dense: Kind, metric: Metric) -> None:
        schema = samples.make_schema(frozenset({dense}), metric)
        lengths = np.random.default_rng(5).uniform(0.5, 2.0, 100)
        scale = lengths if metric != "cosine" else np.ones_like(lengths)
        items = [
            replace(item, vector=item.vector * np.float32(length))
            for item, length in zip(samples.random_items(), scale.tolist(), strict=False)
            if item.vector is not None
        ]
        backend = connect("metric")
        backend.create(schema)
        put(backend, items, schema)
        for query in samples.random_queries(dense):
            check(backend, dense, items, query, metric=metric)
        backend.close()

    def test_each_vector_of_a_query_counts_with_its_most_similar_token(
        self, backend: Backend, schema: Schema, multi_vector: Kind
    ) -> None:
        """Documents of no token, one, two and many, and tokens that are equal, opposite and longer than others."""
        one, two = axis(1.0), axis(1.0, 1)
        of_tokens = {
            "both": [one, two],
            "both, twice": [one, two, two, one],
            "none": [],
            "opposite": [one, -one],
            "second": [two],
            "third": [axis(0.5, 2)] * 70,
            "zero": [np.zeros_like(one)],
        }
        items = [
            Item(id, tokens=np.array(tokens, np.float32).reshape(len(tokens), DIMENSIONS))
            for id, tokens in of_tokens.items()
        ]
        put(backend, items, schema)
        for query in ([one], [two, one], [one, one, -two], [axis(3.0, 2)], [one, np.zeros_like(one)], [one] * 40):
            for k in (1, 3, 10):
                check(backend, multi_vector, items, np.stack(query), k)
        assert ask(backend, multi_vector, np.stack([one, two])).ids == (
            *("both", "both, twice", "opposite", "second"),
            *("third", "zero"),
        )

    def test_distance_to_the_same_point_is_zero(self, connect: Connect, dense: Kind) -> None:
        schema = samples.make_schema(frozenset({dense}), "euclidean")
        items = samples.random_items(20)
        backend = connect("euclidean")
        backend.create(schema)
        put(backend, items, schema)
        for item in items[:5]:
            assert item.vector is not None
            found = ask(backend, dense, item.vector, 1)
            assert found.ids == (item.id,)
            assert -backend.capabilities.score_tolerance[dense] <= found.scores[0] <= 0
        backend.close()

    def test_documents_that_point_away_are_still_dense_hits(
        self, backend: Backend, schema: Schema, dense: Kind
    ) -> None:
        items = [plain_at("towards", 1.0), plain_at("away", -1.0)]
        put(backend, items, schema)
        assert ask(backend, dense, axis(1.0)).ids == ("towards", "away")

    def test_a_document_that_holds_the_query_and_nothing_else_is_first(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        items = [
            Item("both", {"wing": 1, "flow": 1}, {"wing": 0.5, "flow": 2.0}, samples.unit(axis(1.0) + axis(1.0, 1))),
            Item("exact", {"wing": 1}, {"wing": 1.0}, axis(1.0)),
            Item("other", {"flow": 1}, {"flow": 3.0}, axis(1.0, 1)),
        ]
        put(backend, items, schema)
        for kind in kinds:
            vectors: dict[Kind, QueryVector] = {"dense": axis(1.0), "multi_vector": axis(1.0)[None]}
            query = vectors.get(kind, sparse_query({"wing": 1.0}))
            assert ask(backend, kind, query, 2).ids == ("exact", "both"), kind

    def test_an_empty_index_answers_with_no_hits(self, backend: Backend, kinds: Kinds) -> None:
        for kind in kinds:
            assert ask(backend, kind, samples.common_query(kind)) == EMPTY, kind

    def test_an_empty_query_finds_nothing(self, filled: Backend, kinds: Kinds) -> None:
        for kind in kinds:
            assert ask(filled, kind, samples.nothing(kind)) == EMPTY, kind

    def test_a_document_without_vectors_is_never_found_but_counts(
        self, backend: Backend, schema: Schema, kinds: Kinds
    ) -> None:
        items = [Item("empty"), *samples.random_items(20), Item("a-blank-one")]
        put(backend, items, schema)
        assert backend.count() == 22
        for kind in kinds:
            for query in samples.random_queries(kind):
                check(backend, kind, items, query, 100)

    def test_an_index_of_empty_documents_finds_nothing(self, backend: Backend, schema: Schema, kinds: Kinds) -> None:
        put(backend, [Item("a"), Item("b")], schema)
        for kind in kinds:
            assert ask(backend, kind, samples.common_query(kind)) == EMPTY, kind

    def test_unknown_terms_find_nothing(self, filled: Backend, term_kinds: Kinds) -> None:
        for kind in term_kinds:
            for words in ({"unknown": 1.0}, {"unknown": 2.0, "never seen": 1.0}):
                assert ask(filled, kind, sparse_query(words)) == EMPTY, (kind, words)

    def test_unknown_terms_change_nothing_beside_known_ones(self, filled: Backend, term_kinds: Kinds) -> None:
        items = samples.random_items()
        known, more = {"word0": 1.0, "word3": 2.0}, {"unknown": 5.0}
        for kind in term_kinds:
            assert ask(filled, kind, sparse_query(known)) == ask(filled, kind, sparse_query(known | more)), kind
            check(filled, kind, items, sparse_query(more | known))

    def test_only_documents_with_a_matching_term_are_hits(self, filled: Backend, term_kinds: Kinds) -> None:
        items = samples.random_items()
        right = {item.id for item in items if {"word1", "word7"} & set(item.counts)}
        for kind in term_kinds:
            assert set(ask(filled, kind, sparse_query({"word1": 1.0, "word7": 1.0}), 1000).ids) == right, kind

    def test_a_weight_of_zero_is_no_match(self, backend: Backend, schema: Schema, term_kinds: Kinds) -> None:
        put(backend, [samples.plain("a"), Item("zero", {}, {"common": 0.0})], schema)
        for kind in term_kinds:
            assert ask(backend, kind, samples.common_query(kind)).ids == ("a",), kind
            assert ask(backend, kind, sparse_query({"common": 0.0})) == EMPTY, kind

    def test_how_often_a_query_repeats_a_term_counts(self, filled: Backend, lexical: Kind) -> None:
        once = dict(ask(filled, lexical, sparse_query({"word2": 1.0}), 100))
        thrice = dict(ask(filled, lexical, sparse_query({"word2": 3.0}), 100))
        assert thrice == pytest.approx(
            {id: 3 * score for id, score in once.items()}, rel=2 * filled.capabilities.score_tolerance[lexical]
        )

    def test_long_documents_count_less(self, backend: Backend, schema: Schema, lexical: Kind) -> None:
        items = [Item("short", {"wing": 1}), Item("long", {"wing": 1, "filler": 100_000}), Item("other", {"flow": 10})]
        put(backend, items, schema)
        check(backend, lexical, items, sparse_query({"wing": 1.0}))
        assert ask(backend, lexical, sparse_query({"wing": 1.0})).ids == ("short", "long")

    def test_a_batch_of_requests_equals_the_loop(self, filled: Backend, kinds: Kinds) -> None:
        for kind in kinds:
            requests = [Request(kind, query, 7) for query in samples.random_queries(kind, 13)]
            alone = [filled.search([request])[0] for request in requests]
            for one, other in zip(filled.search(requests), alone, strict=True):
                assert_same(filled, kind, one, other)

    def test_one_call_answers_different_requests_in_order(self, filled: Backend, schema: Schema) -> None:
        kinds = sorted({retriever.kind for retriever in schema.retrievers.values()})
        requests = [
            Request(kind, query, k, filter)
            for number in range(3)
            for kind in kinds
            for query in [samples.random_queries(kind, 5)[number], samples.nothing(kind)]
            for k in (1, 10, 100)
            for filter in _some_filters(filled)
        ]
        together = filled.search(requests)
        assert together == [filled.search([request])[0] for request in requests]
        assert filled.search(requests[::-1]) == together[::-1]

    def test_a_request_for_an_exact_search_is_answered_exactly(self, filled: Backend, kinds: Kinds) -> None:
        require(filled.capabilities.exact_on_request, "exact search on request")
        items = samples.random_items()
        for kind in kinds:
            for query in samples.random_queries(kind, 5):
                right = right_scores(kind, items, query, "cosine", frozen_average(filled.capabilities))
                for k in (1, 5, 1000):
                    (ranking,) = filled.search([Request(kind, query, k, exact=True)])
                    check_ranking(ranking, right, k, tolerance=filled.capabilities.score_tolerance[kind])

    def test_no_request_gives_no_ranking(self, backend: Backend) -> None:
        assert backend.search([]) == []

    def test_asking_for_more_never_reorders_the_top(self, filled: Backend, exact_kinds: Kinds) -> None:
        for kind in exact_kinds:
            for query in samples.random_queries(kind, 4):
                most = ask(filled, kind, query, 1000)
                for k in (1, 3, 20, 50):
                    assert ask(filled, kind, query, k) == most.top(k), (kind, k)

    def test_the_same_question_has_the_same_answer_twice(self, filled: Backend, kinds: Kinds) -> None:
        for kind in kinds:
            query = samples.random_queries(kind, 1)[0]
            assert_same(filled, kind, ask(filled, kind, query), ask(filled, kind, query))

    def test_two_retrievers_of_one_kind_live_side_by_side(self, connect: Connect, any_kind: Kind) -> None:
        average = frozen_average(connect("two").capabilities)
        base = samples.make_schema(frozenset({any_kind}), average_length=average).retrievers[any_kind]
        others: dict[Kind, RetrieverSchema] = {
            "dense": replace(base, dimensions=5, metric="dot"),
            "multi_vector": replace(base, dimensions=5),
        }
        other = others.get(any_kind, base)
        names: dict[str, RetrieverSchema] = {"first-One_1": base, "second": other}
        left, right = samples.random_items(20, seed=3), samples.random_items(20, seed=4)
        right = [
            replace(item, vector=None if item.vector is None else item.vector[: other.dimensions]) for item in right
        ]
        backend, schema = connect("two"), Schema(names)
        backend.create(schema)
        batches = [
            samples.encode(items, Schema({name: retriever})).vectors[name]
            for items, (name, retriever) in zip((left, right), names.items(), strict=True)
        ]
        documents = [item.document for item in left]
        backend.upsert(EncodedBatch(documents, dict(zip(names, batches, strict=True))))
        backend.refresh()
        query = samples.random_queries(any_kind, 1)[0]
        second = query[..., : other.dimensions] if isinstance(query, np.ndarray) else query
        rankings = backend.search([Request("first-One_1", query, 5), Request("second", second, 5)])
        tolerance = backend.capabilities.score_tolerance[any_kind]
        approximate = any_kind in backend.capabilities.approximate
        for ranking, items, retriever, asked in zip(
            rankings, (left, right), names.values(), (query, second), strict=True
        ):
            scores = right_scores(any_kind, items, asked, retriever.metric or "cosine", average)
            check_ranking(ranking, scores, 5, tolerance=tolerance, approximate=approximate)
        backend.close()

    def test_explained_terms_sum_to_the_score(self, backend: Backend, schema: Schema, term_kinds: Kinds) -> None:
        require(backend.capabilities.explain, "explain")
        items = samples.random_items()
        for start in range(0, len(items), 25):
            put(backend, items[start : start + 25], schema)
        by_id = {item.id: item for item in items}
        for kind in term_kinds:
            tolerance = 8 * backend.capabilities.score_tolerance[kind]
            for query in samples.random_queries(kind):
                request = Request(kind, query, 20)
                (ranking,) = backend.search([request])
                for (id, score), terms in zip(ranking, backend.explain(request, ranking.ids), strict=True):
                    assert sum(terms.values()) == pytest.approx(score, rel=tolerance), (kind, id)
                    assert set(terms) == set(getattr(query, "terms", ())) & set(by_id[id].counts), (kind, id)

    def test_explain_is_empty_for_unknown_ids_and_where_no_term_matched(
        self, backend: Backend, schema: Schema, term_kinds: Kinds
    ) -> None:
        require(backend.capabilities.explain, "explain")
        put(backend, [samples.plain("a"), Item("b", {"other": 1}, {"other": 1.0})], schema)
        for kind in term_kinds:
            found = backend.explain(Request(kind, samples.common_query(kind), 1), ["b", "unknown", "a", "a"])
            assert [sorted(terms) for terms in found] == [[], [], ["common"], ["common"]], kind
            assert found[2] == found[3], kind


def axis(length: float, number: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A vector along one axis."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[number] = length
    return vector


def plain_at(id: str, length: float) -> Item:
    """An item whose vector is along the first axis."""
    return Item(id, {"x": 1}, {"x": 1.0}, axis(length))


def _some_filters(backend: Backend) -> list[Filter | None]:
    if not backend.capabilities.filters:
        return [None]
    return [None, Filter.parse({"parity": "odd"}), Filter.parse({"number": {"$lt": 20}})]
