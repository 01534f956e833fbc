"""Tests of ranks, ties, cuts and TREC run files, compared with Python's sorted and with trec_eval."""

from __future__ import annotations

import gzip
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import example, given
from hypothesis import strategies as st

from hybridsearch.errors import HybridSearchError, InvalidArgumentError, StorageError
from hybridsearch.fusion import RRF, Fusion, ScoreFusion
from hybridsearch.ranking import EMPTY, Ranking, read_trec

SCORES = st.dictionaries(st.text(min_size=1), st.sampled_from([-1.5, 0.0, 1.0, 1.0000000000000002, 2.0]))


def in_order(scores: dict[str, float]) -> list[tuple[str, float]]:
    """The pairs sorted by id, then by descending score. Python's sort is stable."""
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
    assert list(runs["q1"]) == [("c", 2.0), ("b", 1.0), ("a", 1.0)]


@given(
    st.dictionaries(
        st.text("az\u00e9\uffff\U0001f600", min_size=1, max_size=3),
        st.sampled_from([1e300, 1e299, 2.0, 1.0, 1.0 + 1e-9, 0.1, 0.1 + 1e-10, 0.0, -0.0, -1e-46, -3.0]),
        min_size=2,
    )
)
def test_a_run_file_has_the_order_that_trec_eval_gives_it(
    tmp_path_factory: pytest.TempPathFactory, scores: dict[str, float]
) -> None:
    """The rank that trec_eval gives each document, from the reciprocal rank if only this document is relevant."""
    path = tmp_path_factory.getbasetemp() / "ties.trec"
    path.write_text("".join(f"q Q0 {id} 1 {score!r} t\n" for id, score in scores.items()), encoding="utf-8")
    ranking = Ranking.from_trec(path)["q"]
    for rank, id in enumerate(ranking.ids, 1):
        found = pytrec_eval.RelevanceEvaluator({"q": {id: 1}}, {"recip_rank"}).evaluate({"q": scores})
        assert found["q"]["recip_rank"] == pytest.approx(1 / rank)
    assert (np.diff(ranking.scores) <= 0).all()


def test_hits_of_a_run_file_that_share_their_score_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q Q0 a 1 2 t\nq Q0 b 2 1 t\nq Q0 c 3 1.000000001 t\nq Q0 d 4 1 t\np Q0 a 1 1 t\np Q0 b 2 0 t\n")
    runs, ties, upside_down = read_trec(path)
    assert (runs["q"].ids, ties, upside_down) == (("a", "d", "c", "b"), 3, 0)


def test_queries_of_a_run_file_whose_ranks_go_against_their_scores_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "distances.trec"
    path.write_text("q Q0 a 1 0.1 t\nq Q0 b 2 0.5 t\np Q0 b 2 0.9 t\np Q0 a 1 0.2 t\no Q0 a 1 1 t\no Q0 b 2 0 t\n")
    assert read_trec(path)[1:] == (0, 2)
    path.write_text("q Q0 a 0 0.1 t\nq Q0 b 0 0.5 t\np Q0 b x 0.9 t\np Q0 a 1.0 0.2 t\n")
    assert read_trec(path)[1:] == (0, 0)


def test_columns_and_lines_end_at_blanks_and_line_feeds_of_ascii_alone(tmp_path: Path) -> None:
    ids = ("line\u2028separator", "next\x85line", "no-break\xa0space", "form\u3000feed", "unit\x1fseparator")
    Ranking.to_trec({"q\u2029": Ranking(ids, np.arange(5.0, 0.0, -1.0))}, tmp_path / "run.trec")
    assert Ranking.from_trec(tmp_path / "run.trec")["q\u2029"].ids == ids


@pytest.mark.parametrize("name", ["run.trec.gz", "run.TREC.GZ", "run.trec"])
def test_a_compressed_run_file_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    with gzip.open(tmp_path / name, "wb") as file:
        file.write(b"q Q0 a 1 1.5 t\n")
    assert list(Ranking.from_trec(tmp_path / name)["q"]) == [("a", 1.5)]


def test_a_run_file_that_is_called_compressed_and_is_not_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.trec.gz").write_text("q Q0 a 1 1.5 t\n")
    assert Ranking.from_trec(tmp_path / "run.trec.gz")["q"].ids == ("a",)


def test_a_compressed_file_that_is_cut_or_damaged_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(b"q Q0 a 1 1.5 t\n" * 100)
    for raw in (whole[:20], whole[:12] + b"\xff\xff" + whole[14:]):
        (tmp_path / "run.gz").write_bytes(raw)
        with pytest.raises(StorageError, match=r"run\.gz cannot be read"):
            Ranking.from_trec(tmp_path / "run.gz")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q1 Q0 d1 1 0.5", "a run line is"),
        ("q1 Q0 d1 1 0.5 tag more", "a run line is"),
        ("q1 Q0 d1 1 high tag", "a run line is"),
        ("q1 Q0 d0 1 0.5 tag", "'d0' comes twice for query 'q1'"),
        ("q1 Q0 d1 1 nan tag", "NaN"),
        ("q1 Q0 d1 1 1_0 tag", "a run line is"),
        ("q1 Q0 d1 1 \u0661 tag", "a run line is"),
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
    for path, problem in ((tmp_path / "absent.txt", "no file"), (tmp_path, "is a folder"), ("a\0b", "null")):
        with pytest.raises(InvalidArgumentError, match=problem):
            Ranking.from_trec(path)


def test_a_run_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent/run\.trec cannot be written"):
        Ranking.to_trec({}, tmp_path / "absent" / "run.trec")
    with pytest.raises(InvalidArgumentError, match="not valid Unicode"):
        Ranking.to_trec({"q": Ranking(("\ud800",), np.ones(1))}, tmp_path / "run.trec")


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


@pytest.mark.parametrize("fusion", [RRF(), ScoreFusion("minmax"), ScoreFusion("zscore"), ScoreFusion("none")])
@given(scores=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([3.5, 1.0, 0.1])), min_size=2))
def test_runs_that_we_wrote_are_fused_as_the_rankings_themselves(
    tmp_path_factory: pytest.TempPathFactory, fusion: Fusion, scores: list[dict[str, float]]
) -> None:
    """The file must make equal scores different. Reading makes them equal again, for min-max fusion."""
    folder = tmp_path_factory.getbasetemp()
    rankings = {f"r{number}": Ranking.from_scores(one) for number, one in enumerate(scores)}
    for name, ranking in rankings.items():
        Ranking.to_trec({"q": ranking}, folder / f"{name}.trec")
    again = {name: Ranking.from_trec(folder / f"{name}.trec").get("q", EMPTY) for name in rankings}
    fused = dict(fusion.fuse(again))
    assert fused == pytest.approx(dict(fusion.fuse(rankings)), rel=1e-5, abs=1e-6)
    assert {name: ranking.ids for name, ranking in again.items()} == {
        name: ranking.ids for name, ranking in rankings.items()
    }


def test_a_written_run_keeps_scores_as_numbers_of_32_bits(tmp_path: Path) -> None:
    scores = np.array([1e300, 12.5, 3.1415927, 3.1415927, 0.0, 0.0, -7.25])
    Ranking.to_trec({"q": Ranking(tuple("abcdefg"), scores)}, tmp_path / "run.txt")
    rows = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
    written = np.array([float(row[4]) for row in rows])
    assert written[1:].tolist() == pytest.approx(scores[1:].tolist(), rel=1e-6, abs=1e-40)
    assert (np.diff(written.astype(np.float32)) < 0).all()  # as trec_eval reads it
    again = Ranking.from_trec(tmp_path / "run.txt")["q"]
    assert (again.ids, len(set(again.scores.tolist()))) == (tuple("abcdefg"), 5)


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
