"""Tests of what happens after ranking: a least score, boosts, groups, variety and pages."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.errors import FilterError, InvalidArgumentError, RetrieverError
from hybridsearch.rerank import boosted, similarities
from hybridsearch.vectors import DenseVectors

NOW = dt.datetime(2024, 6, 30, tzinfo=dt.UTC)

DOCUMENTS = [
    hs.Document("old", "wing wing wing flow", metadata={"published": "2020-01-01", "site": "a", "likes": 3}),
    hs.Document("new", "wing flow jet", metadata={"published": "2024-06-30T00:00:00+00:00", "site": "b", "likes": 900}),
    hs.Document("mid", "wing flow", metadata={"published": "2024-05-31", "site": "a", "lang": "en"}),
    hs.Document("undated", "wing", metadata={"likes": True}),
    hs.Document("twin", "wing wing wing flow", metadata={"published": "soon", "site": "c"}),
    hs.Document("other", "a jet engine"),
]


class Reversing:
    """A reranker that gives the last document the best score, and scores below 0."""

    top_k = 3

    def rerank(self, queries: Any, documents: Any) -> list[Any]:
        return [np.arange(len(of_query), dtype=np.float64) - 10 for of_query in documents]

    def to_json(self) -> None:
        return None


@pytest.fixture(scope="module")
def search() -> Iterator[hs.HybridSearch]:
    with hs.HybridSearch({"bm25": hs.BM25(language=None)}) as search:
        search.index(DOCUMENTS, show_progress_bar=False)
        yield search


# Boosts


def test_recent_documents_come_first_and_the_explanation_says_why(search: hs.HybridSearch) -> None:
    boost = hs.Recency("published", half_life="30d", weight=10, now=NOW)
    results = search.search("wing flow", boost=boost)
    assert results.ids[:2] == ["new", "mid"]
    new, plain = results[0], {hit.id: hit for hit in search.search("wing flow")}
    assert new.boosts == {"Recency('published', half_life='30d', weight=10)": 11.0}
    assert new.score == pytest.approx(11 * new.fused_score)
    assert new.fused_score == plain["new"].score
    assert "times 11 by Recency('published'" in str(new.explain())
    assert json.loads(json.dumps(new.explain().to_dict()))["boosts"] == new.boosts
    assert new.to_dict()["boosts"] == new.boosts
    assert results[1].boosts[repr(boost)] == pytest.approx(6.0)  # 30 days old


def test_a_document_without_a_date_keeps_its_score(search: hs.HybridSearch) -> None:
    for hit in search.search("wing flow", boost=hs.Recency("published", now=NOW)):
        if hit.id in ("undated", "twin"):
            assert hit.score == hit.fused_score


@pytest.mark.parametrize(
    ("published", "factor"),
    [
        ("2024-06-30", 2.0),
        ("2099-01-01", 2.0),
        ("2024-06-29T18:00:00-06:00", 2.0),
        (["2001-01-01", "2024-06-23"], 1.5),
        ("2024-06-23 00:00", 1.5),
        (20240630, 1.0),
        (None, 1.0),
    ],
)
def test_the_age_counts_from_the_latest_date(published: Any, factor: float) -> None:
    boost = hs.Recency("a.published", half_life="1w", weight=1, now=NOW)
    document = hs.Document("x", "", metadata={"a": {"published": published}})
    assert boost.factor(document) == pytest.approx(factor)


def test_without_a_moment_the_age_counts_from_now() -> None:
    today = hs.Document("x", "", metadata={"published": dt.datetime.now(dt.UTC)})
    assert hs.Recency("published", half_life=dt.timedelta(days=2)).factor(today) == pytest.approx(1.25, abs=1e-3)


def test_all_documents_of_a_search_have_their_age_at_one_moment() -> None:
    boost = hs.Recency("day", "1000y", 1e9)
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index([{"id": f"{number}", "text": "a wing", "day": "2024-06-30"} for number in range(50)])
        plan = search.plan(top_k=50, boost=boost)
        asked = [plan.results(["wing", "a wing"]) for _ in range(2)]
    first, second = ({hit.boosts[repr(boost)] for results in of for hit in results} for of in asked)
    assert (len(first), len(second)) == (1, 1)
    assert min(first) > min(second)  # each search has its own moment


def test_fields_boost_by_filter_and_by_number(search: hs.HybridSearch) -> None:
    results = search.search("wing", boost=[hs.FieldBoost({"lang": "en"}, weight=9), hs.FieldBoost("likes", weight=1)])
    assert results.ids[:2] == ["mid", "new"]
    assert results[1].boosts["FieldBoost('likes', weight=1)"] == pytest.approx(1 + np.log(901))
    assert next(hit for hit in results if hit.id == "undated").score > 0  # True is no number
    assert set(results[0].boosts.values()) == {10.0, 1.0}
    several = hs.Document("x", "", metadata={"likes": [3, 99, "many", True]})
    assert hs.FieldBoost("likes", weight=1).factor(several) == pytest.approx(1 + np.log(100))


@given(st.floats(-1e6, 1e6), st.floats(1.0, 100.0))
def test_a_boost_never_lowers_a_score(score: float, factor: float) -> None:
    assert boosted(score, factor) >= score


def test_a_boost_also_counts_after_reranking(search: hs.HybridSearch) -> None:
    plain = search.search("wing flow", reranker=Reversing())
    assert [hit.score for hit in plain[:3]] == [-8, -9, -10]
    boost = hs.FieldBoost({"id": {"$in": ["old", "twin"]}}, weight=99)
    found = search.search("wing flow", reranker=Reversing(), boost=boost)
    assert found.ids[:2] == ["twin", "old"]  # the boost put them before the others, and Reversing turned them around
    assert found[0].reranker_score == -9
    assert found[0].score == -0.09


def test_boosts_that_are_too_large_to_compute_with_are_refused(search: hs.HybridSearch) -> None:
    large = [hs.FieldBoost("likes", weight=1e200), hs.FieldBoost({"site": "b"}, weight=1e200)]
    for options in ({}, {"reranker": Reversing()}):
        with pytest.raises(InvalidArgumentError, match=r"multiply the score .* of document 'new' by inf.*smaller"):
            search.search("wing flow", boost=large, **options)


def test_a_boost_of_your_own_is_named_by_its_class_and_its_errors_name_the_document(search: hs.HybridSearch) -> None:
    class Site:
        def factor(self, document: hs.Document) -> float:
            return 2.0 + ord(document.metadata["site"])

    assert search.search("wing flow", boost=Site(), filter={"site": "b"})[0].boosts == {Site.__qualname__: 100.0}
    with pytest.raises(RetrieverError, match=r"Site failed for document 'undated': KeyError: 'site'"):
        search.search("wing flow", boost=Site())


# Least scores


def test_hits_below_the_least_score_are_left_out(search: hs.HybridSearch) -> None:
    results = search.search("wing flow")
    least = results[2].score
    found = search.search("wing flow", min_score=least)
    assert found.ids == results.ids[:3]
    assert f"  not below the min_score {least:g}" in str(found[0].explain()).splitlines()
    assert (found[0].explain().to_dict()["min_score"], "min_score" in results[0].explain().to_dict()) == (least, False)
    assert search.search("wing flow", min_score=2.0).ids == []


def test_a_note_tells_if_no_hit_reaches_the_least_score(search: hs.HybridSearch) -> None:
    (note,) = search.search("wing flow", min_score=2).notes
    assert note.startswith("No hit reaches the min_score 2: the highest score is 0.01639. It is a fused score.")
    assert note.endswith("name it: {'bm25': 1} (--min-score bm25=1).")
    (note,) = search.search("wing flow", min_score=2, reranker=Reversing()).notes
    assert note == "No hit reaches the min_score 2: the highest score is -8."
    assert search.search("wing flow", min_score=0.001).notes == ()


def test_with_a_reranker_the_least_score_is_the_rerankers(search: hs.HybridSearch) -> None:
    assert len(search.search("wing flow", reranker=Reversing(), min_score=-9)) == 2
    assert len(search.search("wing flow", reranker=Reversing(), min_score=-1000)) == 3


def test_a_retriever_does_not_find_what_is_below_its_least_score(search: hs.HybridSearch) -> None:
    results = search.search("wing flow")
    third = results[2].retrievers["bm25"].score
    few = search.search("wing flow", min_score={"bm25": third})
    assert few.ids == [hit.id for hit in results if hit.retrievers["bm25"].score >= third]
    explanation = few[0].explain()
    assert (explanation.fused_rank, explanation.to_dict()["min_score"]) == (1, {"bm25": third})
    assert f"(min_score {third:g}), adds" in str(explanation)
    none = search.search("wing flow", min_score={"bm25": 99})
    assert (none.ids, few.notes) == ([], ())
    highest = results[0].retrievers["bm25"].score
    assert none.notes == (f"bm25: no document reaches the min_score 99: the highest score is {highest:.4g}.",)


@pytest.mark.parametrize("limit", [{"min_score": {"bm25": 99}}, {"min_score": 99}, {"group_by": "site"}])
def test_a_plan_explains_documents_that_are_no_hits(search: hs.HybridSearch, limit: dict[str, Any]) -> None:
    first = search.search("wing flow")[0].document
    assert search.plan(1, offset=1).explain("wing flow", first).rank == 1
    plan = search.plan(10, **limit)
    hits = plan.results(["wing flow"])[0].ids
    left_out = next(document for document in (DOCUMENTS[0], DOCUMENTS[2]) if document.id not in hits)
    explanation = plan.explain("wing flow", left_out)
    assert (explanation.rank, list(explanation.retrievers)) == (None, ["bm25"])
    assert str(explanation).startswith(f"{left_out.id}: left out by a least score, or by a better document of its")


# Groups


def test_each_value_of_the_field_gives_one_hit(search: hs.HybridSearch) -> None:
    plain = search.search("wing flow")
    results = search.search("wing flow", group_by="site")
    assert [hit.group for hit in results].count("a") == 1
    best = next(hit for hit in results if hit.group == "a")
    assert best.id == next(hit.id for hit in plain if hit.document.metadata.get("site") == "a")
    assert {best.id, *best.grouped} == {"old", "mid"}
    assert "undated" in results.ids  # without the field, a document is a group of its own
    assert [hit.rank for hit in results] == list(range(1, len(results) + 1))
    assert "best of the group 'a', with 1 other candidate" in str(best.explain())
    assert best.to_dict()["grouped"] == list(best.grouped)


def test_groups_hold_values_that_filters_compare_as_equal() -> None:
    groups = [
        [1, 1.0],
        [True],
        ["1"],
        [["x", 1, {"y": 1}], ["x", 1.0, {"y": 1}]],
        ["é", "e\u0301"],
        ["2024-01-01T00:00Z", "2024-01-01 01:00+01:00"],
    ]
    alone = [{"y": 1}, {"z": 1}, [], [], None]  # these count as no value
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        values = [value for group in groups for value in group] + alone
        search.index(
            [hs.Document(f"d{n}", "wing", metadata={"of": value}) for n, value in enumerate(values)],
            show_progress_bar=False,
        )
        hits = search.search("wing", 20, group_by="of")
        assert sorted(len(hit.grouped) + 1 for hit in hits) == [1] * (2 + len(alone)) + [2] * 4
        assert [hit.group for hit in hits].count(None) == len(alone)


def test_boosts_and_groups_without_effect_are_noted() -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        one = {"id": "a", "text": "wing", "kind": "x", "day": "2024-01-01", "of": {"kind": "x"}}
        search.index([one], show_progress_bar=False)
        results = search.search("wing", boost=[hs.Recency("dya"), hs.FieldBoost({"kind": "x"})], group_by="knid")
        boost, group = results.notes
        assert boost.startswith("The boost Recency('dya'")
        assert boost.endswith("changed no score. It needs dates such as '2024-05-31' in 'dya'.")
        (unlike,) = search.search("wing", boost=hs.FieldBoost({"kind": "y"})).notes
        assert unlike == "The boost FieldBoost({'kind': 'y'}, weight=0.25) changed no score."
        (text,) = search.search("wing", boost=hs.FieldBoost("kind")).notes
        assert text.endswith("changed no score. It needs numbers above 0 in 'kind'.")
        assert group == "No candidate has a value in 'knid', so each hit is a group of its own."
        assert search.search("wing", boost=hs.Recency("day"), group_by="kind").notes == ()
        assert search.search("jet", boost=hs.Recency("dya"), group_by="knid").notes == ()
        (note,) = search.search("wing", group_by="of").notes
        assert note.startswith("No candidate has a value in 'of'")
        assert note.endswith("It holds mappings: name a field of them, as in 'of.name'.")


# Variety


def test_mmr_puts_what_is_new_before_what_was_said(search: hs.HybridSearch) -> None:
    assert search.search("wing flow").ids == ["mid", "old", "twin", "new", "undated"]
    results = search.search("wing flow", diversity=hs.MMR(0.2))
    assert results.ids[0] == "mid"
    assert results.ids[-1] == "twin"
    last = results[-1]
    assert last.likeness is not None
    assert (last.likeness.to, round(last.likeness.similarity, 6)) == ("old", 1.0)
    assert "similarity 1.000 to old, which MMR put before it" in str(last.explain())
    assert last.to_dict()["likeness"]["to"] == "old"
    assert results[0].likeness is None
    assert search.search("wing flow", diversity=hs.MMR(1.0)).ids == search.search("wing flow").ids
    assert search.search("wing flow", diversity=hs.MMR(0.2, depth=2)).ids == search.search("wing flow").ids


def test_mmr_compares_by_a_retriever_that_is_not_asked() -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}) as search:
        search.index(DOCUMENTS, show_progress_bar=False)
        by_chars = search.search("wing flow", retrievers=["bm25"], diversity=hs.MMR(0.2, retriever="chars"))
        by_both = search.search("wing flow", diversity=hs.MMR(0.2, retriever="chars"))
        unlimited = search.search("wing flow", retrievers=["bm25"], min_score={"chars": 99})
        assert (len(unlimited), unlimited.notes) == (5, ())
    assert not any("chars" in hit.retrievers for hit in by_chars)
    same = {hit.id: hit.likeness for hit in by_both if hit.likeness and hit.likeness.to == by_both[0].id}
    compared = [hit for hit in by_chars if hit.id in same and hit.likeness and hit.likeness.to == by_both[0].id]
    assert compared
    assert all(hit.likeness == same[hit.id] for hit in compared)


def test_mmr_equals_the_definition_on_random_vectors() -> None:
    rng = np.random.default_rng(0)
    for relevance in (0.0, 0.3, 0.7, 1.0):
        scores = np.sort(rng.random(12))[::-1].tolist()
        rows = rng.normal(size=(12, 5)).astype(np.float32)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = similarities(DenseVectors(rows, "dot"))
        np.testing.assert_allclose(cosines, unit @ unit.T, atol=1e-6)
        low, high = min(scores), max(scores)
        chosen: list[int] = []
        while len(chosen) < 12:
            left = [n for n in range(12) if n not in chosen]
            value = {
                n: relevance * (scores[n] - low) / (high - low)
                - (1 - relevance) * (max(float(unit[n] @ unit[m]) for m in chosen) if chosen else 0)
                for n in left
            }
            chosen.append(max(left, key=lambda n: (round(value[n], 9), -n)))
        assert [place for place, _ in hs.MMR(relevance).order(scores, cosines)] == chosen


def test_mmr_keeps_documents_that_were_not_reranked_behind(search: hs.HybridSearch) -> None:
    results = search.search("wing flow", reranker=Reversing(), diversity=hs.MMR(0.1))
    scored = [hit.reranker_score is not None for hit in results]
    assert scored == sorted(scored, reverse=True)


def test_zero_vectors_are_like_nothing() -> None:
    assert similarities(DenseVectors(np.zeros((2, 3), np.float32))).tolist() == [[0, 0], [0, 0]]


# Pages


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reranker": Reversing()},
        {"boost": hs.FieldBoost("likes")},
        {"diversity": hs.MMR(0.3, depth=3)},
        {"group_by": "site"},
        {"diversity": hs.MMR(0.5), "boost": hs.Recency("published", now=NOW), "reranker": Reversing()},
    ],
    ids=["plain", "reranker", "boost", "mmr", "groups", "all"],
)
def test_pages_never_show_a_hit_twice_and_leave_none_out(search: hs.HybridSearch, options: Any) -> None:
    whole = search.search("wing flow", **options)
    pages = [search.search("wing flow", 2, offset=offset, **options) for offset in range(0, 8, 2)]
    assert [hit.id for page in pages for hit in page] == whole.ids
    assert [hit.rank for page in pages for hit in page] == list(range(1, len(whole) + 1))
    assert "past the last of" in pages[-1].notes[-1]


def test_pages_end_with_the_candidates(search: hs.HybridSearch) -> None:
    assert search.search("wing", 2, offset=2, candidates=2).ids == []
    assert "raise candidates" in search.search("wing", 2, offset=2, candidates=2).notes[-1]


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": -1}, "offset is -1"),
        ({"min_score": "high"}, "min_score is 'high'"),
        ({"min_score": {"dense": 0.5}}, "min_score names 'dense', which is not a retriever of this index"),
        ({"boost": hs.Recency}, "A boost is an object such as"),
        ({"boost": [3]}, "A boost is an object such as"),
        ({"group_by": ""}, "group_by is the name"),
        ({"diversity": 0.7}, "diversity is an object such as"),
        ({"diversity": hs.MMR(retriever="dense")}, "MMR names 'dense', which is not a retriever"),
        ({"reranker": type("Bad", (Reversing,), {"top_k": -1})()}, "The top_k of the reranker is -1"),
    ],
)
def test_wrong_arguments_are_refused(search: hs.HybridSearch, options: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        search.search("wing", **options)


@pytest.mark.parametrize("half_life", ["", "0d", "month", 30, "-1d", dt.timedelta(0)])
def test_a_half_life_is_a_time(half_life: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="half_life is"):
        hs.Recency("published", half_life)


def test_wrong_settings_of_boosts_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="weight"):
        hs.FieldBoost("likes", weight=0)
    with pytest.raises(InvalidArgumentError, match="weight"):
        hs.Recency("published", weight=-1)
    with pytest.raises(InvalidArgumentError, match="field is the name"):
        hs.Recency("")
    with pytest.raises(InvalidArgumentError, match="where is the name"):
        hs.FieldBoost(3)  # type: ignore[arg-type]
    with pytest.raises(FilterError):
        hs.FieldBoost({"year": {"$near": 3}})
    with pytest.raises(InvalidArgumentError, match="relevance"):
        hs.MMR(1.5)


def test_hits_are_pickled_with_what_the_selection_did(search: hs.HybridSearch) -> None:
    results = search.search("wing flow", boost=hs.FieldBoost("likes"), diversity=hs.MMR(0.5), group_by="site")
    again = pickle.loads(pickle.dumps(results))  # noqa: S301 - our own bytes
    assert again == results
    assert [hit.to_dict() for hit in again] == [hit.to_dict() for hit in results]
