"""Tests of the comparison before and after training, and of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.results import Histogram, Sparsity
from hybridsearch.training.measure import comparing
from hybridsearch.training.measure.comparing import Expansion, changed_expansions, compare_models, compare_sparsity
from hybridsearch.training.measure.report import Report, write_report
from hybridsearch.training.runs.record import Evaluation, History
from hybridsearch.vectors import SparseVectors, Vocabulary

QUERIES = {f"q{number}": f"question {number}" for number in range(20)}
QRELS = {query: {f"d{query}": 1} for query in QUERIES}


def run(ranks: list[int]) -> dict[str, hs.Ranking]:
    """Rankings that have the relevant document of each query at a rank."""
    rankings = {}
    for query, rank in zip(QUERIES, ranks, strict=True):
        ids = [f"other{number}" for number in range(rank - 1)] + [f"d{query}"]
        rankings[query] = hs.Ranking.from_scores({id: float(len(ids) - place) for place, id in enumerate(ids)})
    return rankings


def report(before: list[int], after: list[int], **hybrid: list[int]) -> Report:
    """The report of a comparison of runs. `hybrid` has more systems."""
    systems = {"before": run(before), "after": run(after), **{name: run(ranks) for name, ranks in hybrid.items()}}
    comparison = hs.compare(systems, hs.Dataset("exam", QUERIES, QRELS), show_progress_bar=False)
    return Report(
        kind="dense",
        base="base",
        data=["exam: 3 pairs"],
        settings={"seed": 7},
        history=course([0.5, 0.25, 0.4]),
        comparison=comparison,
    )


def course(scores: list[float]) -> History:
    """The history of a run that was measured on dev before training and every ten steps."""
    evaluations = [
        Evaluation(10 * place, place, 10.0 * place, score, {"exam/dev nDCG@10": score})
        for place, score in enumerate(scores)
    ]
    best = max(evaluations[1:], key=lambda one: one.score)
    return History(tuple(evaluations), steps=evaluations[-1].step, best_step=best.step, seconds=61, precision="bf16")


def test_better_is_said_with_the_figures() -> None:
    assert report([2] * 20, [1] * 20).verdict.startswith("Better: nDCG@10 on exam from 0.6309 to 1.0000 (+0.3691, 95%")


def test_worse_is_said_in_the_first_line() -> None:
    assert report([1] * 20, [2] * 20).summary.splitlines()[0].startswith("WORSE: nDCG@10 on exam from 1.0000 to 0.63")


def test_worse_on_few_queries_is_still_called_worse() -> None:
    assert report([1] * 20, [1] * 19 + [2]).verdict.startswith("WORSE, perhaps by chance: ")


def test_a_difference_that_may_be_chance_is_no_success() -> None:
    assert report([1] * 19 + [2], [1] * 20).verdict.startswith("Not clearly better: ")


def test_the_same_figures_are_no_difference() -> None:
    assert report([1] * 20, [1] * 20).verdict == "No different: nDCG@10 on exam is 1.0000 before and after."


def test_the_same_figures_as_retrieval_are_not_those_of_a_model_before() -> None:
    both = report([1] * 20, [1] * 20)
    assert both.comparison is not None
    systems = tuple(replace(one, name=one.name.replace("before", "retrieval")) for one in both.comparison.systems)
    found = replace(both, comparison=replace(both.comparison, systems=systems, baseline="retrieval"))
    said = "No different: nDCG@10 on exam is 1.0000 after training, against retrieval alone."
    assert found.verdict == said
    assert "### After on exam" in found.to_markdown()
    assert "before" not in found.to_markdown().partition("### During training")[0]


def test_a_figure_that_is_no_number_is_neither_higher_nor_lower() -> None:
    found = replace(report([1] * 20, [1] * 20), comparison=None, figures={"own": (float("nan"), 0.5)})
    assert found.verdict.startswith("Not compared: own is nan before and 0.5000 after, by an evaluator")


def test_nothing_measured_is_said() -> None:
    nothing = replace(report([1] * 20, [1] * 20), comparison=None, history=History())
    assert nothing.verdict.startswith("Not measured: ")


def test_without_a_test_the_verdict_is_that_of_dev_with_a_warning() -> None:
    found = replace(report([1] * 20, [1] * 20), comparison=None)
    assert found.verdict.startswith("LOWER: exam/dev nDCG@10 from 0.5000 to 0.4000, on dev. Dev chose the checkpoint")
    higher = replace(found, history=course([0.25, 0.5]))
    assert higher.verdict.startswith("Higher: exam/dev nDCG@10 from 0.2500 to 0.5000, on dev")


def test_without_a_test_an_evaluator_goes_before_dev_as_it_chose_nothing() -> None:
    figures = {"sts Spearman": (0.9339, -0.1719), "sts Pearson": (0.5, 0.6)}
    found = replace(report([1] * 20, [1] * 20), comparison=None, figures=figures)
    assert found.verdict.startswith("LOWER: sts Spearman from 0.9339 to -0.1719, by an evaluator, without")
    shared = replace(found, shared=12)
    assert "by an evaluator (dev, which chose the checkpoint, has 12 of the same questions)" in shared.verdict
    assert "sts Pearson: 0.5000 before, 0.6000 after." in found.summary
    of_another_kind = replace(found, figures={"sts Spearman": (None, 0.5)}, history=History())
    assert of_another_kind.verdict == "Not compared: sts Spearman is 0.5000."


def test_with_a_test_an_evaluator_does_not_give_the_verdict() -> None:
    found = replace(report([2] * 20, [1] * 20), figures={"sts Spearman": (0.9, 0.1)})
    assert found.verdict.startswith("Better: nDCG@10 on exam")
    assert "sts Spearman: 0.9000 before, 0.1000 after." in found.summary


def test_another_measure_that_fell_is_in_the_first_line() -> None:
    both = report([2] * 20, [1] * 20)
    assert both.comparison is not None
    lost = hs.compare(
        {
            "before": {query: hs.Ranking.from_scores({f"d{query}": 1.0, f"e{query}": 0.5}) for query in QUERIES},
            "after": {query: hs.Ranking.from_scores({f"d{query}": 1.0, "other": 0.5}) for query in QUERIES},
        },
        hs.Dataset("exam", QUERIES, {query: {f"d{query}": 1, f"e{query}": 1} for query in QUERIES}),
        measures=["RR@10", "R@100"],
        show_progress_bar=False,
    )
    found = replace(both, comparison=lost)
    assert found.verdict.startswith(
        "No different: RR@10 on exam is 1.0000 before and after; R@100 FELL from 1.0000 to "
    )
    assert found.summary.splitlines()[0] == found.verdict


def test_a_model_that_became_denser_is_in_the_first_line() -> None:
    bins = Histogram((0.0, 1.0), (1,))
    before, after = Sparsity(20, 5, 1.0, bins, bins), Sparsity(200, 6, 9.0, bins, bins)
    same = report([1] * 20, [1] * 20)
    found = replace(same, sparsity={"before": before, "after": after}, sparsity_on="dev (exam)")
    assert found.verdict.endswith("before and after; a document has 200 active dimensions instead of 20.")
    assert "Active dimensions after on dev (exam): 200 a document" in found.summary
    assert "### Sparsity on dev (exam)" in found.to_markdown()


def test_a_difference_is_sure_only_where_test_and_interval_agree() -> None:
    found = report([1] * 20, [1] * 16 + [2] * 4)
    comparison = found.comparison
    assert comparison is not None
    versus = comparison["after"].versus["nDCG@10"]
    assert versus.difference.high < 0
    assert versus.p_value > 0.04
    disagree = replace(found, comparison=replace(comparison, test="randomization"))
    assert disagree.verdict.startswith("WORSE, perhaps by chance: ")
    assert ", but p and the interval disagree, because there are few queries or differences" in disagree.verdict


@pytest.mark.parametrize(
    ("reached", "said"),
    [(252, "MISSED: 252, which is 320% above"), (64, "reached: 64"), (30, "MISSED: 30, which is 50% below")],
)
def test_a_target_of_sparsity_is_held_against_what_was_reached(reached: float, said: str) -> None:
    bins = Histogram((0.0, 1.0), (1,))
    found = replace(
        report([1] * 20, [1] * 20), sparsity={"after": Sparsity(reached, 5, 1.0, bins, bins)}, targets={"document": 60}
    )
    assert f"The target of 60 active dimensions a document was {said}." in found.summary


def test_the_course_of_the_run_is_one_sentence() -> None:
    assert (
        "1 min 1 s from base. Step 20 of 20 was kept: the best on dev. It was computed in bf16."
        in report([1] * 20, [1] * 20).summary
    )
    broken = replace(course([0.5, 0.4, 0.3]), stopped_early=True, resumed_at=(10,))
    assert broken.course == (
        "Step 10 of 20 was kept: the best on dev. Training stopped early, because later steps were not better. "
        "The run was interrupted, and continued after step 10. It was computed in bf16."
    )


def test_the_hybrid_is_judged_against_the_hybrid_before() -> None:
    found = report([2] * 20, [1] * 20, **{"before + bm25": [1] * 20, "after + bm25": [3] * 20})
    assert found.summary.splitlines()[1].startswith("With bm25: WORSE: nDCG@10 on exam from 1.0000 to 0.5000")


def test_the_same_model_makes_no_difference(tiny_dense: Path, tiny_dataset: hs.Dataset) -> None:
    found = compare_models(tiny_dense, tiny_dense, tiny_dataset, "dense", show_progress_bar=False)
    assert found.names == ["before", "after", "bm25", "before + bm25", "after + bm25"]
    assert found.baseline == "before"
    assert found["after"].versus["nDCG@10"].same


def test_several_retrievers_stand_beside_the_model(
    tiny_splade: Path, tiny_dense: Path, tiny_dataset: hs.Dataset
) -> None:
    beside = {"bm25": hs.BM25(), "dense": hs.Dense(tiny_dense)}
    found = compare_models(None, tiny_splade, tiny_dataset, "sparse", beside=beside, show_progress_bar=False)
    assert found.names == ["after", "bm25", "dense", "bm25 + dense", "after + bm25 + dense"]
    assert found.baseline == "bm25"
    said = replace(report([1] * 20, [1] * 20), comparison=found)
    assert said.verdict.endswith("against bm25 alone.")
    assert "With bm25 + dense: " in said.summary


def test_a_name_that_is_taken_is_refused(tiny_dense: Path, tiny_dataset: hs.Dataset) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot have the name 'before'"):
        compare_models(tiny_dense, tiny_dense, tiny_dataset, "dense", beside={"before": hs.BM25()})


def test_a_reranker_is_compared_with_no_reranker(tiny_reranker: Path, tiny_dataset: hs.Dataset) -> None:
    found = compare_models(None, tiny_reranker, tiny_dataset, "reranker", show_progress_bar=False)
    assert found.names == ["retrieval", "after"]
    assert found["after"].kind == "reranked"
    bm25 = hs.HybridSearch({"bm25": hs.BM25()})
    bm25.index(tiny_dataset.corpus or (), show_progress_bar=False)
    alone = hs.evaluate(bm25, tiny_dataset, latency_queries=0, show_progress_bar=False)
    assert found["retrieval"].means["nDCG@10"] == alone.means["nDCG@10"]


def test_active_dimensions_are_those_of_the_model(tiny_splade: Path, tiny_dataset: hs.Dataset) -> None:
    st: Any = pytest.importorskip("sentence_transformers")
    model = st.SparseEncoder(str(tiny_splade), device="cpu")
    texts = [document.content for document in tiny_dataset.corpus or ()]
    found = compare_sparsity(None, tiny_splade, tiny_dataset)
    assert list(found) == ["after"]
    active = model.sparsity(model.encode_document(texts))["active_dims"]
    assert found["after"].documents_mean == pytest.approx(active, abs=0.1)


def test_expansions_are_new_words_that_are_not_in_the_text(tiny_splade: Path) -> None:
    st: Any = pytest.importorskip("sentence_transformers")
    model = st.SparseEncoder(str(tiny_splade), device="cpu")
    text = "Aspirin lowers the risk of a heart attack."
    terms = [term for term, _ in model.decode(model.encode_document([text]))[0]]
    cut = st.SparseEncoder(str(tiny_splade), device="cpu", max_active_dims=5)
    (found,) = changed_expansions(cut, tiny_splade, [text])
    new = [term for term in terms[5:] if term.isalpha() and term not in text.lower()]
    assert [term for term, _ in found.gained] == new[:6]
    assert not found.lost


@pytest.mark.parametrize(("mark", "part"), [("Ġ", "ache"), ("▁", "ache"), ("", "##ache")])
def test_the_words_of_an_expansion_are_those_of_its_tokenizer(
    mark: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = Vocabulary([f"{mark}pain", part, f"{mark}head", f"{mark}2", f"{mark},"])

    class Made:
        def __init__(self, model: str) -> None:
            self.weights = [0, 0, 1, 0, 0] if model == "before" else [2, 3, 1, 1, 1]

        def encode_documents(self, texts: list[str]) -> SparseVectors:
            return SparseVectors(csr_array(np.array([self.weights], dtype=np.float32)), vocabulary)

    monkeypatch.setattr(comparing, "Sparse", Made)
    (found,) = changed_expansions("before", "after", ["The head hurts."])
    assert found.gained == (("pain", 2.0),)
    assert not found.lost


def test_without_a_model_before_nothing_expanded_differently(tiny_splade: Path) -> None:
    assert changed_expansions(None, tiny_splade, ["wing"]) == ()


def test_an_expansion_reads_as_a_sentence() -> None:
    assert (
        str(Expansion("cephalalgia", (("headache", 1.234),), ())) == '"cephalalgia" gained headache 1.23; lost nothing'
    )


def test_the_model_card_keeps_its_front_matter_and_has_one_report(tiny_dense: Path, tmp_path: Path) -> None:
    st: Any = pytest.importorskip("sentence_transformers")
    st.SentenceTransformer(str(tiny_dense), device="cpu").save_pretrained(str(tmp_path))
    before = (tmp_path / "README.md").read_text()
    for verdict in ([2] * 20, [3] * 20):
        write_report(report([1] * 20, verdict), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\n")
    assert card.count("## What training changed") == 1
    assert "0.5000" in card
    assert "0.6309" not in card
    assert card.index("What training changed") < card.index("## Model Details")
    assert before.split("## Model Details")[1] in card
    st.SentenceTransformer(str(tmp_path), device="cpu")


def test_the_report_is_kept_as_json_and_markdown(tmp_path: Path) -> None:
    write_report(replace(report([2] * 20, [1] * 20), figures={"sts Spearman": (0.5, 0.75)}), tmp_path)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert hs.Comparison.from_dict(kept["comparison"])["after"].means["nDCG@10"].mean == 1
    assert kept["versions"]["hybridsearch"]
    text = (tmp_path / "report.md").read_text()
    assert text.splitlines()[2].startswith("Better: ")
    assert "| 10 | 0.2500 |" in text
    assert kept["figures"] == {"sts Spearman": {"before": 0.5, "after": 0.75}}
    assert "* sts Spearman: 0.5000 before, 0.7500 after." in text
    assert "Seed 7" in text


def test_the_command_is_kept_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "opensearch://me:secret@host/name"
    monkeypatch.setattr("sys.argv", ["/usr/bin/hybridsearch", "train", "dense", "--corpus", place, "api_key=secret"])
    command = report([1] * 20, [1] * 20).command
    assert command.startswith("hybridsearch train dense --corpus ")
    assert "secret" not in command
