"""`hs.recall` compares approximate answers with the exact ones of the same engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Capabilities, Fingerprint, RetrieverSchema
from hybridsearch.cli import app
from hybridsearch.evaluation.recall import Approximation, RecallReport, RetrieverRecall
from hybridsearch.evaluation.statistics import Interval, proportion_interval
from hybridsearch.tables import as_text
from hybridsearch.vectors import DenseVectors

ROWS, DIMENSIONS, QUERIES = 2500, 64, 30


class Looked:
    """An encoder that looks up random vectors, whose neighbours a graph finds badly."""

    def __init__(self) -> None:
        rows = np.random.default_rng(7).normal(size=(ROWS + QUERIES, DIMENSIONS)).astype(np.float32)
        self.vectors = dict(zip([f"d{n}" for n in range(ROWS)] + [f"q{n}" for n in range(QUERIES)], rows, strict=True))

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.stack([self.vectors[text] for text in texts]), "dot")

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self.vectors[text] for text in texts]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("looked", {})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=DIMENSIONS, metric="dot")


@pytest.fixture(scope="module")
def search() -> hs.HybridSearch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridsearch.adapters.memory.segment.MIN_ROWS", 100)
        patch.setattr("hybridsearch.adapters.memory.hnsw._CONNECTIVITY", 2)
        patch.setattr("hybridsearch.adapters.memory.hnsw._EXPANSION_SEARCH", 8)
        made = hs.HybridSearch({"bm25": hs.BM25(), "dense": Looked()}, backend_options={"hnsw": True}, candidates=20)
        made.index([hs.Document(f"d{n}", f"d{n}") for n in range(ROWS)], batch_size=ROWS, show_progress_bar=False)
    return made


def test_recall_is_the_share_of_the_true_neighbours_that_the_graph_finds(search: hs.HybridSearch) -> None:
    queries = [f"q{n}" for n in range(QUERIES)]
    report = hs.recall(search, queries, target=0.9)
    (dense,) = report.retrievers
    vectors = Looked().vectors
    stored = np.stack([vectors[f"d{n}"] for n in range(ROWS)]).astype(np.float64)
    shares = []
    for query, found in zip(queries, search.rankings(queries, retrievers=["dense"]), strict=True):
        best = np.argsort(-(stored @ vectors[query].astype(np.float64)))[:10]
        shares.append(len({f"d{n}" for n in best} & {*found["dense"].ids[:10]}) / 10)
    assert dense.recall == pytest.approx(np.mean(shares))
    assert dense.recall < 0.9, "the graph of the test is too good to test anything"
    assert dense.searched[0].top.low < dense.recall < dense.searched[0].top.high
    assert [one.candidates for one in dense.searched] == [20, 40, 80, 160][: len(dense.searched)]
    assert dense.searched[-1].top.mean > dense.recall
    assert report.exact == ("bm25",)
    assert report.fused is not None
    assert report.fused.mean == pytest.approx(dense.recall), "BM25 finds nothing, so the fused ranking is the dense one"
    assert report.same is not None
    assert report.same < 1
    assert "dense misses" in report.advice[0]
    assert "recall@10" in as_text(report.__rich__(), 80)
    assert json.loads(json.dumps(report.to_dict()))["retrievers"][0]["name"] == "dense"


def test_queries_come_from_documents_if_none_are_given(search: hs.HybridSearch) -> None:
    report = hs.recall(search, number=7, target=0.01)
    assert report.queries == 7
    assert "easier" in report.notes[0]
    assert report.advice == []
    assert len(report.retrievers[0].searched) == 1


def test_a_filter_is_searched_exactly_here(search: hs.HybridSearch) -> None:
    report = hs.recall(search, ["q1", "q2"], filter={"id": {"$exists": True}})
    assert report.retrievers[0].recall == 1


def test_an_engine_without_exact_search_is_refused(search: hs.HybridSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities: Capabilities = replace(search.backend.capabilities, exact_on_request=False)
    monkeypatch.setattr(MemoryBackend, "capabilities", capabilities)
    with pytest.raises(hs.HybridSearchError, match="no exact search to compare with"):
        hs.recall(search, ["q1"])


def test_advice_names_the_fewest_candidates_that_suffice() -> None:
    searched = [
        Approximation(candidates, Interval(mean, mean, mean), None, p50, 9.0)
        for candidates, mean, p50 in ((100, 0.8, 2.0), (200, 0.96, 3.0), (400, 0.99, 6.0))
    ]
    one = RetrieverRecall("dense", "dense", tuple(searched), 50.0, 60.0, "ef_search (now 100): raise it.")
    assert one.advice(0.95) == (
        "dense misses 20.0% of the first hits. With 200 candidates it misses 4.0%, and takes 1.5 times as long. "
        "The option of the engine is ef_search (now 100): raise it."
    )
    assert one.advice(0.8) == ""


def test_advice_does_not_say_that_candidates_fail_that_were_not_tried() -> None:
    searched = (Approximation(6_000, Interval(0.8, 0.8, 0.8), None, 2.0, 9.0),)
    advice = RetrieverRecall("dense", "dense", searched, 50.0, 60.0, "").advice(0.95)
    assert advice.endswith("It reads 6,000 candidates, too many to try with more.")


def test_blank_queries_do_not_count(search: hs.HybridSearch) -> None:
    report = hs.recall(search, ["q1", " ", "q2"], target=0.01)
    assert (report.queries, report.notes[0]) == (2, "The queries are 2 of the 2 that were given.")


def test_a_target_is_told_as_it_is() -> None:
    searched = (Approximation(100, Interval(0.999, 0.999, 0.999), None, 2.0, 9.0),)
    one = RetrieverRecall("dense", "dense", searched, 50.0, 60.0, "")
    report = RecallReport("here", "", 10, 10, 100, 0.999, (one,), (), None, None)
    assert report.notes[-1] == "Each retriever finds at least 99.9% of the first hits."


@pytest.mark.parametrize("queries", ["q1", [1]])
def test_queries_are_a_list_of_texts(search: hs.HybridSearch, queries: Any) -> None:
    with pytest.raises(hs.HybridSearchError, match="string"):
        hs.recall(search, queries)


def test_the_interval_is_wilsons_if_queries_are_alike_and_wider_if_they_are_not() -> None:
    alike = proportion_interval([9, 10, 10, 9, 10, 10, 9, 10], [10] * 8)
    wilson = binomtest(77, 80).proportion_ci(method="wilson")
    assert (alike.low, alike.high) == pytest.approx((wilson.low, wilson.high))
    together = proportion_interval([10] * 7 + [7], [10] * 8)
    assert together.mean == alike.mean
    assert together.low < alike.low


def test_the_command_line_reads_queries_from_a_file(tmp_path: Path) -> None:
    place, queries = tmp_path / "index", tmp_path / "queries.txt"
    queries.write_text("wing\nflow over a wing\n", encoding="utf-8")
    with hs.HybridSearch({"bm25": hs.BM25()}, place) as search:
        search.index([hs.Document("a", "a wing")], show_progress_bar=False)
    shown = CliRunner().invoke(app, ["recall", str(place), "--queries", str(queries)])
    assert shown.exit_code == 0, shown.output
    assert "searched exactly" in shown.stdout
