"""Tests of adaptive fusion: what decides how much a retriever is trusted, and that it works like other fusions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion import AdaptiveFusion, JudgedFusion, ScoreFusion, make_fusion
from hybridsearch.fusion.adaptive import commitment, support, trust
from hybridsearch.ranking import EMPTY, Ranking

scores = st.dictionaries(st.sampled_from("abcdefghijklmno"), st.integers(-5, 20).map(lambda n: n / 4), max_size=15)
weights = st.fixed_dictionaries({name: st.floats(0.1, 3) for name in ("r0", "r1", "r2")})


def rankings(*score_maps: dict[str, float]) -> dict[str, Ranking]:
    return {f"r{i}": Ranking.from_scores(score_map) for i, score_map in enumerate(score_maps)}


def listed(ids: str) -> Ranking:
    """A ranking of one-letter ids, best first."""
    return Ranking.from_scores({id: float(-place) for place, id in enumerate(ids)})


def test_support_is_the_discounted_mean_of_damped_reciprocal_ranks_in_the_other_ranking() -> None:
    found = support({"bm25": listed("abc"), "dense": listed("xab")})
    discounts = [1 / math.log2(2), 1 / math.log2(3), 1 / math.log2(4)]
    ranks = {
        "bm25": [2, 3, 4],
        "dense": [4, 1, 2],
    }  # the rank in the other ranking; an unlisted document has rank 3 + 1
    for name, of_retriever in ranks.items():
        expected = sum(d * 11 / (10 + rank) for d, rank in zip(discounts, of_retriever, strict=True)) / sum(discounts)
        assert found[name] == pytest.approx(expected)


def test_a_retriever_whose_first_documents_no_other_lists_has_the_least_support() -> None:
    others = {"bm25": listed("abcdefghij"), "splade": listed("badcfehgji")}
    found = support({**others, "lost": listed("0123456789")})
    assert found["lost"] <= min(found[name] for name in others)


def test_the_side_whose_first_documents_the_other_has_further_down_has_more_support() -> None:
    tail = "klmnopqrst"
    found = support({"supported": listed("abcdefghij" + tail), "lost": listed("0123456789" + "abcdefghij")})
    assert found["supported"] > found["lost"]


def test_two_rankings_of_a_kind_do_not_vouch_for_each_other() -> None:
    twin, stranger = listed("abcdefghij"), listed("0123456789")
    found = support({"first": twin, "second": twin, "stranger": stranger})
    assert found["first"] == found["stranger"]


def test_the_one_document_that_has_an_identifier_comes_first() -> None:
    """A lexical ranking that is short because few documents match, and a full dense ranking."""
    fused = AdaptiveFusion().fuse({"bm25": listed("z"), "dense": listed("abcdefghijklmnopqrst")})
    assert fused.ids[0] == "z"


def test_commitment_is_half_of_the_way_from_minmax_to_scores_that_sum_to_the_same() -> None:
    flat, steep = np.array([1.0, 0.9, 0.8, 0.0]), np.array([1.0, 0.2, 0.1, 0.0])
    assert commitment(steep, 4) / commitment(flat, 4) == pytest.approx(math.sqrt(flat.sum() / steep.sum()))


def test_a_retriever_that_prefers_its_first_documents_outweighs_one_that_scores_all_alike() -> None:
    steep = Ranking.from_scores({"b": 10.0, "c": 2.0, "d": 1.0, "e": 0.0})
    flat = Ranking.from_scores({"a": 10.0, "f": 9.0, "g": 8.0, "h": 0.0})
    assert AdaptiveFusion().fuse({"steep": steep, "flat": flat}).ids[:2] == ("b", "a")


def test_trust_falls_with_the_square_of_the_repetitions() -> None:
    """For two queries, `once` repeats no document, and `often` repeats one of ten: on average 0.1 of a query."""
    samples = [
        {"once": listed("abcdefghij"), "often": listed("0123456789")},
        {"once": listed("klmnopqrst"), "often": listed("0ABCDEFGHI")},
    ]
    assert trust(samples) == {"once": 1.0, "often": pytest.approx((0.1 / (2 / 20 + 0.1)) ** 2)}


def test_a_retriever_keeps_a_tenth_of_the_trust_whatever_it_repeats() -> None:
    samples = [{"good": listed(ids), "hubs": listed("wxyz")} for ids in ("abcd", "efgh")]
    assert trust(samples) == {"good": 1.0, "hubs": pytest.approx(0.1)}


def test_twins_share_a_vote() -> None:
    samples = [{"one": listed(ids), "twin": listed(ids), "other": listed(ids.upper())} for ids in ("abc", "efg")]
    assert trust(samples) == pytest.approx({"one": 0.5, "twin": 0.5, "other": 1.0})


def test_what_all_retrievers_repeat_alike_speaks_against_none() -> None:
    samples = [{"one": listed("abc"), "other": listed("xyz")}] * 9
    assert trust(samples) == {"one": 1.0, "other": 1.0}


def test_only_the_first_ten_documents_count_for_trust() -> None:
    samples = [{"one": listed(f"{head}klm"), "other": listed(head)} for head in ("abcdefghij", "0123456789")]
    assert set(trust(samples).values()) == {1.0}


def test_a_retriever_that_finds_nothing_is_no_hub() -> None:
    assert trust([{"one": EMPTY, "other": listed("a")}] * 2)["one"] == 1.0


@pytest.mark.parametrize("samples", [[], [{}], [{"one": EMPTY}, {"other": EMPTY}]])
def test_trust_needs_the_same_retrievers_in_every_sample(samples: list[dict[str, Ranking]]) -> None:
    with pytest.raises(InvalidArgumentError, match="the same retrievers"):
        trust(samples)


def test_texts_of_queries_are_no_samples() -> None:
    for calibrated in (AdaptiveFusion.calibrated, lambda given: JudgedFusion.calibrated(given, [{}])):
        with pytest.raises(InvalidArgumentError, match=r"as search\.rankings\(queries\) gives, but it is 'a wing'"):
            calibrated(["a wing"])


def test_a_calibrated_fusion_passes_over_a_retriever_of_hubs() -> None:
    good = [listed(f"{query}a") for query in "0123456789"]
    samples = [{"good": ranking, "hubs": listed("xyz")} for ranking in good]
    fusion = AdaptiveFusion.calibrated(samples)
    assert fusion.fuse(samples[0]).ids[:2] == ("0", "x")
    assert fusion.weights == trust(samples)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(("r0", "r1", "r2"), scores)), min_size=1, max_size=6))
def test_trust_is_above_zero_and_at_most_one_whatever_the_order(samples: list[dict[str, dict[str, float]]]) -> None:
    found = [{name: Ranking.from_scores(of) for name, of in sample.items()} for sample in samples]
    weights = trust(found)
    assert max(weights.values()) == 1.0
    assert all(0 < weight <= 1 for weight in weights.values())
    assert trust(reversed(found)) == pytest.approx(weights)


@given(scores, scores, scores)
def test_support_is_above_zero_and_at_most_one(a: dict[str, float], b: dict[str, float], c: dict[str, float]) -> None:
    assert all(0 < value <= 1 for value in support(rankings(a, b, c)).values())


@given(scores, scores, st.sampled_from([0.25, 1.0, 2.0, 1024.0]), st.integers(-50, 50))
def test_another_scale_and_offset_of_a_retrievers_scores_change_nothing(
    a: dict[str, float], b: dict[str, float], scale: float, offset: int
) -> None:
    moved = {id: score * scale + offset for id, score in b.items()}
    one, other = AdaptiveFusion().fuse(rankings(a, moved)), AdaptiveFusion().fuse(rankings(a, b))
    assert dict(one) == pytest.approx(dict(other), rel=1e-9)


@given(scores, scores, scores, weights)
def test_the_order_of_retrievers_does_not_matter(
    a: dict[str, float], b: dict[str, float], c: dict[str, float], given_weights: dict[str, float]
) -> None:
    orders = itertools.permutations(rankings(a, b, c).items())
    fused = [AdaptiveFusion(given_weights).fuse(dict(order)) for order in orders]
    assert all(other == fused[0] for other in fused)


@given(scores, scores, scores)
def test_weight_zero_equals_leaving_the_retriever_out(
    a: dict[str, float], b: dict[str, float], c: dict[str, float]
) -> None:
    everything = rankings(a, b, c)
    without = {name: ranking for name, ranking in everything.items() if name != "r1"}
    fused = AdaptiveFusion({"r0": 0.3, "r1": 0, "r2": 0.6}).fuse(everything)
    assert fused == AdaptiveFusion({"r0": 0.3, "r2": 0.6}).fuse(without)


@given(scores, scores, weights)
def test_contributions_sum_to_the_fused_score(
    a: dict[str, float], b: dict[str, float], given_weights: dict[str, float]
) -> None:
    fused, contributions = AdaptiveFusion(given_weights).explain(rankings(a, b))
    for id, score in fused:
        assert sum(of[id] for of in contributions.values() if id in of) == pytest.approx(score)


@given(scores)
def test_one_retriever_alone_is_as_by_minmax(a: dict[str, float]) -> None:
    assert AdaptiveFusion().fuse(rankings(a)) == ScoreFusion("minmax").fuse(rankings(a))


@given(scores)
def test_retrievers_that_agree_are_fused_as_by_minmax(a: dict[str, float]) -> None:
    agreeing = rankings(a, {id: 2 * score for id, score in a.items()})
    assert AdaptiveFusion().fuse(agreeing) == ScoreFusion("minmax").fuse(agreeing)


@given(scores)
def test_an_empty_ranking_changes_no_order(a: dict[str, float]) -> None:
    assert AdaptiveFusion().fuse({**rankings(a), "empty": EMPTY}).ids == AdaptiveFusion().fuse(rankings(a)).ids


def test_weights_are_honoured() -> None:
    two = {"r0": listed("abc"), "r1": listed("xyz")}
    assert AdaptiveFusion({"r0": 3, "r1": 1}).fuse(two).ids[0] == "a"
    assert AdaptiveFusion({"r0": 1, "r1": 3}).fuse(two).ids[0] == "x"


def test_equal_fused_scores_are_ordered_by_id() -> None:
    assert AdaptiveFusion().fuse({"r0": listed("b"), "r1": listed("a")}).ids == ("a", "b")


def test_nothing_found_is_an_empty_ranking() -> None:
    assert AdaptiveFusion().fuse({"r0": EMPTY, "r1": EMPTY}) == EMPTY


@pytest.mark.parametrize("fusion", [AdaptiveFusion(), AdaptiveFusion({"bm25": 0.3, "dense": 0.7})])
def test_it_survives_json(fusion: AdaptiveFusion) -> None:
    again = make_fusion(fusion.to_json())
    assert isinstance(again, AdaptiveFusion)
    assert repr(again) == repr(fusion)
