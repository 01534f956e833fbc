"""Measures equal those of trec_eval (by pytrec_eval) on the ranking as returned, and qrels files can be read back."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.evaluation import measures
from hybridsearch.evaluation.measures import (
    DEFAULT_MEASURES,
    parse_measures,
    read_qrels,
    score_rankings,
    without,
    write_qrels,
)
from hybridsearch.ranking import Ranking

DOCUMENTS = [f"d{number:02}" for number in range(40)]
TREC_EVAL = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG": "ndcg",
    "AP": "map",
    "AP@10": "map_cut_10",
    "R@5": "recall_5",
    "P@5": "P_5",
    "Success@5": "success_5",
    "RR": "recip_rank",
    "Rprec": "Rprec",
    "Bpref": "bpref",
}

scores_of_query = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 6).map(float), min_size=1, max_size=40)
grades_of_query = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1, max_size=25)


@given(
    runs=st.dictionaries(st.sampled_from("abcd"), scores_of_query, min_size=1),
    qrels=st.dictionaries(st.sampled_from("abcd"), grades_of_query, min_size=1),
)
def test_measures_equal_trec_evals_on_random_runs_with_ties(
    runs: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]
) -> None:
    """Give trec_eval the tied scores unchanged, with documents renamed so that its order of ties equals ours.

    It puts the larger document number first, and we put the smaller number first. So the numbers are mirrored.
    """
    mirror = dict(zip(DOCUMENTS, reversed(DOCUMENTS), strict=True))
    theirs = pytrec_eval.RelevanceEvaluator(
        {query: {mirror[id]: grade for id, grade in of.items()} for query, of in qrels.items()}, set(TREC_EVAL.values())
    ).evaluate({query: {mirror[id]: score for id, score in of.items()} for query, of in runs.items()})
    ours = score_rankings({query: Ranking.from_scores(of) for query, of in runs.items()}, qrels, list(TREC_EVAL))
    for name, their_name in TREC_EVAL.items():
        expected = {query: theirs[query][their_name] if query in runs else 0.0 for query in qrels}
        assert ours[name] == pytest.approx(expected, abs=1e-12), name


def test_rr_with_a_cutoff_equals_trec_evals_on_the_cut_ranking() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        ranking = Ranking.from_scores(dict(zip(DOCUMENTS, generator.random(40).tolist(), strict=True)))
        qrels = {"q": {id: int(generator.integers(0, 2)) for id in generator.choice(DOCUMENTS, 6, replace=False)}}
        cut = {"q": dict(ranking.top(10))}
        expected = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut)["q"]["recip_rank"]
        assert score_rankings({"q": ranking}, qrels, "RR@10")["RR@10"]["q"] == pytest.approx(expected)


def test_ties_stay_in_the_order_returned() -> None:
    tied = Ranking(("b", "a", "c"), np.array([1.0, 1.0, 1.0]))
    for relevant, expected in (("b", 1.0), ("a", 1 / 2), ("c", 1 / 3)):
        found = score_rankings({"q": tied}, {"q": {relevant: 1}}, ["RR@10", "RR"])
        assert found["RR@10"]["q"] == found["RR"]["q"] == pytest.approx(expected)


def test_scores_that_single_precision_cannot_tell_apart_stay_in_the_order_returned() -> None:
    ranking = Ranking(("a", "b"), np.array([1.0 + 1e-12, 1.0]))
    assert score_rankings({"q": ranking}, {"q": {"a": 1}}, "AP")["AP"]["q"] == 1.0


def test_a_query_without_results_counts_zero() -> None:
    qrels = {"missing": {"a": 1}, "empty": {"a": 1}, "found": {"a": 1}}
    rankings = {"found": Ranking.from_scores({"a": 1.0}), "empty": Ranking.from_scores({})}
    for name, values in score_rankings(rankings, qrels, [*DEFAULT_MEASURES, "Judged@10", "Success@1"]).items():
        assert values == {"missing": 0.0, "empty": 0.0, "found": 1.0}, name


def test_a_query_without_judgements_is_ignored() -> None:
    rankings = {query: Ranking.from_scores({"a": 1.0}) for query in ("judged", "unjudged")}
    assert score_rankings(rankings, {"judged": {"a": 1}}, "AP") == {"AP": {"judged": 1.0}}


def test_nothing_found_at_all_is_zero_everywhere() -> None:
    assert score_rankings({}, {"q": {"a": 1}}, ["nDCG@10"]) == {"nDCG@10": {"q": 0.0}}


def test_a_negative_grade_counts_as_not_relevant() -> None:
    ranking = Ranking.from_scores({"spam": 2.0, "good": 1.0})
    values = score_rankings({"q": ranking}, {"q": {"spam": -2, "good": 1}}, ["RR@10", "nDCG@10", "R@10"])
    assert values["RR@10"]["q"] == 0.5
    assert values["nDCG@10"]["q"] == pytest.approx(1 / np.log2(3))
    assert values["R@10"]["q"] == 1.0


def test_a_process_survives_grades_below_zero_at_which_trec_eval_crashes_or_does_not_end() -> None:
    code = """
import random
from hybridsearch.evaluation.measures import score_rankings
from hybridsearch.ranking import Ranking

draw = random.Random(1)
ids = [f"d{n}" for n in range(50)]
for _ in range(300):
    qrels = {f"q{n}": {id: draw.randint(-2, 2) for id in draw.sample(ids, draw.randint(1, 10))} for n in range(20)}
    runs = {query: Ranking.from_scores({id: 1.0 for id in draw.sample(ids, 30)}) for query in qrels}
    score_rankings(runs, qrels, ["nDCG", "AP"])
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("ids", "query"),
    [(("a\0b", "a\0c"), "q\0"), (("a", "a\0b"), "q"), (("a b", "a c"), "a query"), (("\ud800", "b"), "q")],
)
def test_ids_may_have_characters_at_which_the_packages_end_or_split_them(ids: tuple[str, str], query: str) -> None:
    ranking = Ranking(ids, np.array([2.0, 1.0]))
    values = score_rankings(
        {query: ranking}, {query: {ids[1]: 1, "other": 0}}, ["nDCG@10", "RR@10", "Judged@2", "ERR@10"]
    )
    # ERR: the document at rank 2 stops the reader with (2 ** 1 - 1) / 2 ** 4
    assert {name: of[query] for name, of in values.items()} == pytest.approx(
        {"nDCG@10": 1 / np.log2(3), "RR@10": 0.5, "Judged@2": 0.5, "ERR@10": 1 / 16 / 2}, abs=1e-5
    )


def test_a_grade_that_would_take_all_memory_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="the grade 3000000000, but measures take grades up to 1,000,000"):
        score_rankings({"q": Ranking.from_scores({"a": 1.0})}, {"q": {"a": 3_000_000_000}}, ["nDCG@10"])


@pytest.mark.parametrize(
    "name",
    [
        "nDCG@10",
        "RR@10",
        "AP",
        "AP@100",
        "R@100",
        "P@5",
        "Success@1",
        "Judged@10",
        "AP(rel=2)",
        "nDCG(dcg='exp-log2')@5",
    ],
)
def test_every_name_of_ir_measures_is_understood(name: str) -> None:
    (measure,) = parse_measures(name)
    assert measure == ir_measures.parse_measure(name)


def test_a_measure_is_computed_once_under_whichever_name() -> None:
    assert [str(measure) for measure in parse_measures(["MRR@10", "RR@10", "MAP", ir_measures.nDCG @ 10])] == [
        "RR@10",
        "AP",
        "nDCG@10",
    ]


@pytest.mark.parametrize(
    "name", ["ndgc@10", "R", "nDCG@", "", "nDCG@-1", "P@0", "R@10, AP", "alpha_nDCG@10", 3, "nDCG(rel=2)"]
)
def test_what_is_no_measure_is_refused_with_one_sentence(name: object) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"is not a measure that can be computed \(.*nDCG@10, RR@10"
    ) as caught:
        parse_measures([name])  # type: ignore[list-item]
    assert "\n" not in str(caught.value)
    assert "object at 0x" not in str(caught.value)


def test_a_measure_that_its_package_cannot_compute_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"RR\(rel=0\) cannot be computed"):
        score_rankings({"q": Ranking.from_scores({"a": 1.0})}, {"q": {"a": 1}}, ["RR(rel=0)"])


def test_no_measure_at_all_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="No measure"):
        parse_measures([])


def test_without_ir_measures_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[evaluation\]'"):
        parse_measures("AP")


def test_importing_the_measures_loads_neither_ir_measures_nor_scipys_statistics() -> None:
    code = (
        f"import sys, {measures.__name__}, hybridsearch.evaluation.statistics, hybridsearch.evaluation.datasets\n"
        "print([name for name in ('ir_measures', 'scipy.stats', 'huggingface_hub', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_document_is_dropped_and_the_order_stays() -> None:
    ranking = Ranking(("c", "q", "a"), np.array([1.0, 1.0, 1.0]))
    dropped = without(ranking, "q")
    assert dropped.ids == ("c", "a")
    assert dropped.scores.tolist() == [1.0, 1.0]
    assert without(ranking, "other") is ranking


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("bm25", 0.5058), ("bm25_rm3", 0.5216), ("splade_pp_ed", 0.7308), ("tasb", 0.7210), ("openai_ada2", 0.7035),
        ("repllama", 0.7384),
    ],
)  # fmt: skip
def test_runs_of_trec_dl19_have_the_figures_of_trec_eval(data_folder: Path, run: str, expected: float) -> None:
    """The published values, and the values of each query. Most hits of repllama have the score of another hit."""
    folder = data_folder / "trec_dl19_pool"
    path, qrels = folder / "runs" / f"{run}.trec", read_qrels(folder / "qrels" / "test_full.tsv")
    values = score_rankings(Ranking.from_trec(path), qrels, ["nDCG@10", "AP"])
    with path.open() as file:
        theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "map"}).evaluate(pytrec_eval.parse_run(file))
    assert len(theirs) == 43
    assert values["nDCG@10"] == {query: of_query["ndcg_cut_10"] for query, of_query in theirs.items()}
    assert values["AP"] == {query: of_query["map"] for query, of_query in theirs.items()}
    assert np.mean(list(values["nDCG@10"].values())) == pytest.approx(expected, abs=5e-5)


def test_files_that_we_write_give_trec_evals_reader_our_figures(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "trec_dl19_pool"
    rankings, qrels = (
        Ranking.from_trec(folder / "runs" / "repllama.trec"),
        read_qrels(folder / "qrels" / "test_full.tsv"),
    )
    Ranking.to_trec(rankings, tmp_path / "run.trec")
    write_qrels(qrels, tmp_path / "qrels.txt")
    with (tmp_path / "run.trec").open() as run, (tmp_path / "qrels.txt").open() as judgements:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(judgements), {"ndcg_cut_10", "map"})
        theirs = evaluator.evaluate(pytrec_eval.parse_run(run))
    ours = score_rankings(rankings, qrels, ["nDCG@10", "AP"])
    assert ours["nDCG@10"] == pytest.approx({query: values["ndcg_cut_10"] for query, values in theirs.items()})
    assert ours["AP"] == pytest.approx({query: values["map"] for query, values in theirs.items()})


QRELS = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}


@pytest.mark.parametrize(("file", "first"), [("qrels.txt", "q1 0 d1 2"), ("test.tsv", "query-id\tcorpus-id\tscore")])
def test_judgements_survive_writing_and_reading(tmp_path: Path, file: str, first: str) -> None:
    write_qrels(QRELS, tmp_path / file)
    assert (tmp_path / file).read_text().splitlines()[0] == first
    assert read_qrels(tmp_path / file) == QRELS


def test_the_format_can_be_named(tmp_path: Path) -> None:
    write_qrels(QRELS, tmp_path / "a.tsv", "trec")
    assert (tmp_path / "a.tsv").read_text().startswith("q1 0 d1 2\n")


def test_ids_with_spaces_go_into_beir_files_only(tmp_path: Path) -> None:
    qrels = {"q 1": {"d 1": 1}}
    write_qrels(qrels, tmp_path / "test.tsv")
    assert read_qrels(tmp_path / "test.tsv") == qrels
    with pytest.raises(InvalidArgumentError, match="'q 1' is empty or has a space"):
        write_qrels(qrels, tmp_path / "qrels.txt")


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 -1\n",
        "q1\t0\td1\t2\nq1\tQ0\td2\t0\n\nq2\t0\td1\t-1",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n",
        "q1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n",
        "\ufeffq1\td1\t2.0\r\nq1\td2\t0\r\nq1\td2\t0\r\nq2\td1\t-1\r\n",
    ],
)
def test_judgements_are_read_however_they_are_laid_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "qrels").write_bytes(text.encode())
    with gzip.open(tmp_path / "qrels.gz", "wb") as file:
        file.write(text.encode())
    assert read_qrels(tmp_path / "qrels") == read_qrels(tmp_path / "qrels.gz") == QRELS


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("q1 0 d1 1\nq1 0 d2\n", 2),
        ("q1 0 d1 1\nq1 0 d2 high\n", 2),
        ("q1 0 d1 1.5\n", 1),
        ("q1 0 d1 1\n\nq1 0 d1 2\n", 3),
        ("query-id\tcorpus-id\tscore\nq1\t\t1\n", 2),
        ("q1 d1\n", 1),
        ("q1 0 d1 1\nq\xff 0 d2 1\n", 2),
    ],
)
def test_a_bad_line_of_judgements_is_named(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "qrels.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidArgumentError, match=rf"qrels\.txt, line {line}: "):
        read_qrels(tmp_path / "qrels.txt")


def test_judgements_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="There is no file"):
        read_qrels(tmp_path / "qrels.txt")
    (tmp_path / "qrels.txt").touch()
    with pytest.raises(InvalidArgumentError, match="holds no judgements"):
        read_qrels(tmp_path / "qrels.txt")
