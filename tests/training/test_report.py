"""Before and after training, and what is written about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.report import (
    Expansion,
    Report,
    changed_expansions,
    compare_models,
    compare_sparsity,
    write_report,
)

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
    """Of a comparison of runs; `hybrid` are further systems."""
    systems = {"before": run(before), "after": run(after), **{name: run(ranks) for name, ranks in hybrid.items()}}
    comparison = hs.compare(systems, hs.Dataset("exam", QUERIES, QRELS), show_progress_bar=False)
    return Report(
        kind="dense", base="base", data=["exam: 3 pairs"], settings={"seed": 7}, seconds=61, comparison=comparison
    )


def test_better_is_said_with_the_figures() -> None:
    assert report([2] * 20, [1] * 20).verdict.startswith("Better: nDCG@10 on exam from 0.6309 to 1.0000 (+0.3691, 95%")


def test_worse_is_said_in_the_first_line() -> None:
    assert report([1] * 20, [2] * 20).summary.splitlines()[0].startswith("WORSE: nDCG@10 on exam from 1.0000 to 0.63")


def test_worse_on_few_queries_is_still_called_worse() -> None:
    assert report([1] * 20, [1] * 19 + [2]).verdict.startswith("WORSE, though perhaps by chance: ")


def test_a_difference_that_may_be_chance_is_no_success() -> None:
    assert report([1] * 19 + [2], [1] * 20).verdict.startswith("Not clearly better: ")


def test_the_same_figures_are_no_difference() -> None:
    assert report([1] * 20, [1] * 20).verdict == "No different: nDCG@10 on exam is 1.0000 before and after."


def test_nothing_measured_is_said() -> None:
    assert replace(report([1] * 20, [1] * 20), comparison=None).verdict.startswith("Not measured: ")


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


def test_active_dimensions_are_those_of_the_model(splade: str, tiny_dataset: hs.Dataset) -> None:
    st: Any = pytest.importorskip("sentence_transformers")
    model = st.SparseEncoder(splade, device="cpu")
    texts = [document.content for document in tiny_dataset.corpus or ()]
    found = compare_sparsity(None, splade, tiny_dataset)
    assert list(found) == ["after"]
    active = model.sparsity(model.encode_document(texts))["active_dims"]
    assert found["after"].documents_mean == pytest.approx(active, abs=0.1)


def test_expansions_are_new_words_that_are_not_in_the_text(splade: str) -> None:
    st: Any = pytest.importorskip("sentence_transformers")
    model = st.SparseEncoder(splade, device="cpu")
    text = "Aspirin lowers the risk of a heart attack."
    terms = [term for term, _ in model.decode(model.encode_document([text]))[0]]
    (found,) = changed_expansions(st.SparseEncoder(splade, device="cpu", max_active_dims=5), splade, [text])
    new = [term for term in terms[5:] if term.isalpha() and term not in text.lower()]
    assert [term for term, _ in found.gained] == new[:6]
    assert not found.lost


def test_without_a_model_before_nothing_expanded_differently(splade: str) -> None:
    assert changed_expansions(None, splade, ["wing"]) == ()


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
    write_report(replace(report([2] * 20, [1] * 20), history=[{"step": 10, "exam nDCG@10": 0.5}]), tmp_path)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert hs.Comparison.from_dict(kept["comparison"])["after"].means["nDCG@10"].mean == 1
    assert kept["versions"]["hybridsearch"]
    text = (tmp_path / "report.md").read_text()
    assert text.splitlines()[2].startswith("Better: ")
    assert "| 10 | 0.5000 |" in text
    assert "Seed 7" in text


def test_the_command_is_kept_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "opensearch://me:secret@host/name"
    monkeypatch.setattr("sys.argv", ["/usr/bin/hybridsearch", "train", "dense", "--corpus", place, "api_key=secret"])
    command = report([1] * 20, [1] * 20).command
    assert command.startswith("hybridsearch train dense --corpus ")
    assert "secret" not in command
