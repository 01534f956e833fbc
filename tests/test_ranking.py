"""Rank, tie and cut; and TREC run files. Oracles: Python's sorted, and ir-measures for what other tools read."""

from __future__ import annotations

from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.ranking import EMPTY, Ranking

SCORES = st.dictionaries(st.text(min_size=1), st.sampled_from([-1.5, 0.0, 1.0, 1.0000000000000002, 2.0]))


def in_order(scores: dict[str, float]) -> list[tuple[str, float]]:
    """Sorted twice, as Python's sort is stable: by id, then by falling score."""
    return sorted(sorted(scores.items()), key=lambda pair: pair[1], reverse=True)


@given(SCORES, st.integers(0, 20))
def test_documents_are_ordered_by_score_then_id_and_cut(scores: dict[str, float], k: int) -> None:
    assert list(Ranking.from_scores(scores, k)) == in_order(scores)[:k]
    assert list(Ranking.from_scores(reversed(list(scores.items())), k)) == in_order(scores)[:k]


@given(SCORES, st.integers(0, 20))
def test_a_cut_of_a_ranking_is_the_ranking_of_the_cut(scores: dict[str, float], k: int) -> None:
    assert Ranking.from_scores(scores).top(k) == Ranking.from_scores(scores, k)


def test_ties_are_ordered_by_code_point_not_by_locale_or_utf16() -> None:
    ids = ["\U0001f600", "\uff61", "é", "z", "a", "Z", "10", "9"]
    assert Ranking.from_scores(dict.fromkeys(ids, 1.0)).ids == ("10", "9", "Z", "a", "z", "é", "\uff61", "\U0001f600")


def test_scores_are_float64_and_infinities_have_their_place() -> None:
    ranking = Ranking.from_scores({"a": -np.inf, "b": 1.0, "c": np.inf})
    assert (ranking.ids, ranking.scores.dtype) == (("c", "b", "a"), np.float64)


def test_an_empty_ranking_equals_the_ranking_without_hits() -> None:
    assert (Ranking.from_scores({}), len(EMPTY), list(EMPTY)) == (EMPTY, 0, [])


def test_rankings_with_other_scores_or_ids_are_not_equal() -> None:
    ranking = Ranking.from_scores({"a": 1.0})
    assert ranking != Ranking.from_scores({"a": 2.0})
    assert ranking != Ranking.from_scores({"b": 1.0})
    assert ranking != "a"


def test_a_score_of_nan_is_refused_by_id() -> None:
    with pytest.raises(InvalidArgumentError, match="'b' is NaN"):
        Ranking.from_scores({"a": 1.0, "b": float("nan")})


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="twice"):
        Ranking.from_scores([("a", 1.0), ("a", 2.0)])


def test_ids_and_scores_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="one score for each id"):
        Ranking(("a",), np.array([1.0, 2.0]))


def test_a_run_file_is_ordered_by_score_whatever_its_rank_column_says(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("q2 Q0 x 1 0.5 t\nq1\tQ0\tb\t0\t1\tt\n\nq1 Q0 c 7 2e0 t\r\nq1 Q0 a 0 1.0 t\n")
    runs = Ranking.from_trec(path)
    assert list(runs) == ["q2", "q1"]
    assert list(runs["q1"]) == [("c", 2.0), ("a", 1.0), ("b", 1.0)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q1 Q0 d1 1 0.5", "a run line is"),
        ("q1 Q0 d1 1 0.5 tag more", "a run line is"),
        ("q1 Q0 d1 1 high tag", "a run line is"),
        ("q1 Q0 d0 1 0.5 tag", "'d0' comes twice for query 'q1'"),
        ("q1 Q0 d1 1 nan tag", "NaN"),
        ("{}", "a run line is"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_number(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "run.txt"
    path.write_text(f"q1 Q0 d0 1 0.9 tag\n\n{line}\n")
    with pytest.raises(InvalidArgumentError) as caught:
        Ranking.from_trec(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert problem in str(caught.value)


def test_a_run_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(InvalidArgumentError, match="cannot be read"):
            Ranking.from_trec(path)


@given(st.binary())
@example(b"q Q0 d 1 1_0 t")
@example(b"\xff\xfe")
@example(b"q Q0 d 1 " + b"9" * 5000 + b" t")
def test_any_bytes_are_a_run_or_one_of_our_errors(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(raw)
    try:
        runs = Ranking.from_trec(path)
    except HybridSearchError:
        return
    assert all(len(ranking) > 0 for ranking in runs.values())


def test_a_written_run_has_the_same_order_when_read_again(tmp_path: Path) -> None:
    rankings = {"q1": Ranking.from_scores(dict.fromkeys("dcba", 1.0)), "q2": Ranking(("z", "a"), np.array([0.0, 0.0]))}
    Ranking.to_trec(rankings, tmp_path / "run.txt", tag="mine")
    again = Ranking.from_trec(tmp_path / "run.txt")
    assert {query: ranking.ids for query, ranking in again.items()} == {"q1": tuple("abcd"), "q2": ("z", "a")}


def test_a_written_run_keeps_scores_as_numbers_of_32_bits(tmp_path: Path) -> None:
    scores = np.array([1e300, 12.5, 3.1415927, 3.1415927, 0.0, 0.0, -7.25])
    Ranking.to_trec({"q": Ranking(tuple("abcdefg"), scores)}, tmp_path / "run.txt")
    again = Ranking.from_trec(tmp_path / "run.txt")["q"]
    assert again.ids == tuple("abcdefg")
    assert again.scores[1:].tolist() == pytest.approx(scores[1:].tolist(), rel=1e-6, abs=1e-40)
    assert (np.diff(again.scores.astype(np.float32)) < 0).all()  # as trec_eval reads it


def test_a_written_run_keeps_the_order_of_a_hundred_thousand_documents(tmp_path: Path) -> None:
    ids = tuple(f"d{number:06}" for number in range(100_000, 0, -1))
    Ranking.to_trec({"q": Ranking(ids, np.ones(len(ids)))}, tmp_path / "run.txt")
    assert Ranking.from_trec(tmp_path / "run.txt")["q"].ids == ids


@pytest.mark.parametrize("ids", [("b", "a", "c"), ("c", "b", "a"), ("a", "b", "c")])
def test_other_tools_read_a_written_run_in_the_order_returned(tmp_path: Path, ids: tuple[str, ...]) -> None:
    Ranking.to_trec({"q": Ranking(ids, np.ones(3))}, tmp_path / "run.txt")
    for rank, id in enumerate(ids, 1):
        qrels = [ir_measures.Qrel("q", id, 1)]
        run = ir_measures.read_trec_run(str(tmp_path / "run.txt"))
        assert ir_measures.calc_aggregate([ir_measures.RR], qrels, run)[ir_measures.RR] == pytest.approx(1 / rank)


@pytest.mark.parametrize(("query", "id"), [("q", "with space"), ("q", "tab\t"), ("two words", "a"), ("", "a")])
def test_ids_that_a_run_file_cannot_hold_are_refused(tmp_path: Path, query: str, id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="space"):
        Ranking.to_trec({query: Ranking((id,), np.ones(1))}, tmp_path / "run.txt")
