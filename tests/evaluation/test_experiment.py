"""Tests of comparisons: rankings are measured as returned, shared work is done once, and runs can go on."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Backend, Fingerprint, Request, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError, MissingExtraError, RetrieverError
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.costs import measure_sparsity
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.details import excerpt, title
from hybridsearch.evaluation.experiment import Pipeline, compare, evaluate, retrieve_rerank
from hybridsearch.evaluation.stages import Stages
from hybridsearch.evaluation.tuning import tune
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import DenseVectors, MultiVectors, SparseQuery, SparseVectors

WORDS = "wing lift drag flow shock layer heat panel flutter jet nozzle laminar wake gust mach strain".split()  # noqa: SIM905
QUICK: dict[str, Any] = {"latency_queries": 0, "show_progress_bar": False}


@cache
def _direction(name: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest())
    return np.random.default_rng(seed).normal(size=8)


class Hashing:
    """A dense encoder whose vectors depend on the words. It counts its queries."""

    def __init__(self, name: str = "hashing", log: Path | None = None) -> None:
        self.name, self.log = name, log
        self.queries = self.documents = self.calls = 0

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        self.documents += len(texts)
        self._note("documents", len(texts))
        return DenseVectors(np.array([self._vector(text) for text in texts], dtype=np.float32).reshape(-1, 8))

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        self.queries += len(texts)
        self.calls += 1
        self._note("queries", len(texts))
        return [self._vector(text) for text in texts]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("hashing", {"name": self.name})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), None, 8, "cosine")

    def _vector(self, text: str) -> NDArray[np.float32]:
        total = np.zeros(8)
        for word in text.split():
            total += _direction(f"{self.name} {word}")
        norm = float(np.linalg.norm(total))
        return (total / norm if norm else total).astype(np.float32)

    def _note(self, what: str, count: int) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{what} {count}\n")


class Overlap:
    """A reranker that counts pairs. It has a fingerprint, so that its scores are shared."""

    def __init__(self, top_k: int = 20, log: Path | None = None, slow: float = 0) -> None:
        self.top_k, self.log, self.slow = top_k, log, slow
        self.pairs: list[tuple[str, str]] = []

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
        time.sleep(self.slow)
        self.pairs += [(query, one.id) for query, some in zip(queries, documents, strict=True) for one in some]
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"pairs {sum(map(len, documents))}\n")
        return [
            np.array([self.score(query, one.content) for one in some])
            for query, some in zip(queries, documents, strict=True)
        ]

    def score(self, query: str, text: str) -> float:
        digest = hashlib.blake2b(f"{query} {text}".encode(), digest_size=4).digest()
        shared = len(set(query.split()) & set(text.split()))
        return shared - 10 + int.from_bytes(digest) / 2**33

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("overlap", {})

    def to_json(self) -> dict[str, Any] | None:
        return None


class Listwise(Overlap):
    """A reranker whose scores depend on all documents of a query. So it has no fingerprint."""

    fingerprint = None  # type: ignore[assignment]

    def score(self, query: str, text: str) -> float:
        return super().score(query, text)


def make_dataset(documents: int = 150, queries: int = 40, seed: int = 3) -> Dataset:
    random = np.random.default_rng(seed)
    corpus = [
        Document(
            f"d{number}", " ".join(random.choice(WORDS, random.integers(3, 25))), metadata={"even": number % 2 == 0}
        )
        for number in range(documents)
    ]
    texts = {f"q{number}": " ".join(random.choice(WORDS, random.integers(1, 4))) for number in range(queries)}
    qrels = {
        query: {f"d{number}": int(random.integers(0, 3)) for number in random.choice(documents, 6, replace=False)}
        for query in texts
    }
    return Dataset("made up", texts, qrels, corpus)


def make_search(dataset: Dataset, place: str | Path | Backend = "memory", **arguments: Any) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": Hashing()}, place, **arguments)
    search.index(dataset.corpus or [], show_progress_bar=False)
    return search


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture
def search(dataset: Dataset) -> Iterator[hs.HybridSearch]:
    with make_search(dataset) as search:
        yield search


def returned(search: hs.HybridSearch, dataset: Dataset, **options: Any) -> dict[str, tuple[tuple[str, float], ...]]:
    results = search.search_many(list(dataset.queries.values()), 30, **options)
    alone = len(results[0].retrievers) == 1 and options.get("reranker") is None
    return {
        query: tuple((hit.id, next(iter(hit.retrievers.values())).score if alone else hit.score) for hit in of_query)
        for query, of_query in zip(dataset.queries, results, strict=True)
    }


# What systems return


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"retrievers": ["bm25"]},
        {"retrievers": ["dense"], "candidates": 40},
        {"fusion": hs.ScoreFusion("minmax"), "candidates": 35},
        {"fusion": hs.ScoreFusion("zscore", {"bm25": 0.3, "dense": 0.7})},
        {"fusion": hs.RRF(weights={"bm25": 0, "dense": 1})},
        {"filter": {"even": True}},
        {"reranker": Overlap()},
        {"reranker": Overlap(50), "retrievers": ["bm25"]},
        {"reranker": Listwise(7), "candidates": 60},
    ],
)
def test_a_system_returns_what_search_many_returns(
    options: dict[str, Any], search: hs.HybridSearch, dataset: Dataset, tmp_path: Path
) -> None:
    systems = {
        "deepest": Pipeline(search, candidates=150),
        "asked": Pipeline(search, **options),
        "other": Pipeline(search, reranker=Overlap(3)),
    }
    expected = returned(search, dataset, **options)
    for folder in (None, tmp_path, tmp_path):
        found = compare(systems, dataset, measures=["nDCG@10"], top_k=30, work_folder=folder, **QUICK)
        assert found["asked"].rankings == expected


def test_a_search_alone_is_what_it_was_made_with(dataset: Dataset) -> None:
    with make_search(dataset, fusion=hs.ScoreFusion("minmax"), reranker=Overlap(5), candidates=44) as search:
        found = compare({"as made": search}, dataset, measures=["AP"], top_k=30, **QUICK)
        assert found["as made"].rankings == returned(search, dataset)
        assert found["as made"].kind == "reranked"


def test_each_retriever_is_asked_once_for_all_systems(search: hs.HybridSearch, dataset: Dataset) -> None:
    dense = search.retrievers["dense"]
    assert isinstance(dense, Hashing)
    fusions = [hs.RRF(), hs.RRF(5), hs.ScoreFusion("minmax"), hs.ScoreFusion("zscore")]
    systems = {
        repr(fusion): Pipeline(search, fusion=fusion, candidates=50 + 10 * i) for i, fusion in enumerate(fusions)
    }
    compare(systems | {"dense": Pipeline(search, ["dense"])}, dataset, **QUICK)
    assert (dense.calls, dense.queries) == (1, len(dataset.queries))


def test_a_retriever_is_asked_again_only_where_it_was_not_read_as_deep(
    search: hs.HybridSearch, dataset: Dataset
) -> None:
    dense = search.retrievers["dense"]
    assert isinstance(dense, Hashing)
    stages = Stages(dataset.queries)
    plans = [Pipeline(search, ["dense"], candidates=depth).resolve("dense", 1) for depth in (5, 30, 10)]
    for plan in plans:
        stages.retrieve([plan])
        assert [len(stages.ranking(plan, "dense", query)) for query in stages.queries] == [plan.depth] * 40
    assert dense.calls == 2


def test_kept_answers_of_an_approximate_search_are_of_its_settings(dataset: Dataset, tmp_path: Path) -> None:
    class Words(Hashing):
        """A late-interaction encoder with one vector for each word."""

        def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> MultiVectors:  # type: ignore[override]
            return MultiVectors.of([self._vectors(text) for text in texts], 8)

        def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
            return [self._vectors(text) for text in texts]

        def schema(self) -> RetrieverSchema:
            return RetrieverSchema("multi_vector", self.fingerprint(), None, 8)

        def _vectors(self, text: str) -> NDArray[np.float32]:
            return np.array([self._vector(word) for word in text.split()])

    with hs.HybridSearch({"late": Words()}, tmp_path / "index") as search:
        search.index(dataset.corpus or [], show_progress_bar=False)
    for candidates in (30, 60):
        backend = MemoryBackend(tmp_path / "index", multi_vector_candidates=candidates)
        with hs.HybridSearch({"late": Words()}, backend) as search:
            options: dict[str, Any] = {"measures": ["AP"], "top_k": 30, "work_folder": tmp_path / "work", **QUICK}
            found = compare({"late": Pipeline(search, candidates=30)}, dataset, **options)
            assert found["late"].rankings == returned(search, dataset, candidates=30)


def test_kept_answers_are_of_one_mean_length(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client", reason="pip install 'hybridsearch[qdrant]'")
    documents = sorted(dataset.corpus or [], key=lambda document: len(document.text))
    options: dict[str, Any] = {"measures": ["AP"], "top_k": 30, "work_folder": tmp_path / "work", **QUICK}
    for first in (documents[:10], documents[-10:]):
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        with hs.HybridSearch({"bm25": hs.BM25()}, f"qdrant://{tmp_path}/index/made") as search:
            search.upsert(first)  # they decide the mean length of the weights
            search.upsert(documents)
            found = compare({"bm25": Pipeline(search, ["bm25"])}, dataset, **options)
            assert found["bm25"].rankings == returned(search, dataset)


@pytest.mark.parametrize("flips", [60, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_a_kept_answer_that_is_damaged_is_asked_again(
    flips: int, search: hs.HybridSearch, dataset: Dataset, tmp_path: Path
) -> None:
    plan = Pipeline(search, ["bm25"]).resolve("bm25", 30)

    def asked() -> tuple[Mapping[str, Ranking], dict[str, list[Any]]]:
        stages = Stages(dataset.queries, folder=tmp_path)
        stages.retrieve([plan])
        found = stages.asked(plan, "bm25")
        return found.rankings, {query: [one.terms, one.weights.tolist()] for query, one in found.vectors.items()}

    right = asked()
    (path,) = (tmp_path / "rankings").iterdir()
    whole, random = path.read_bytes(), np.random.default_rng(5)
    for _ in range(flips):
        damaged = bytearray(whole[: random.choice([len(whole), random.integers(1, len(whole))])])
        damaged[random.integers(len(damaged))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        assert asked() == right


def test_an_explanation_is_asked_once_for_all_systems(dataset: Dataset) -> None:
    class Asked(MemoryBackend):
        questions: list[tuple[str, tuple[str, ...]]]

        def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
            assert isinstance(request.query, SparseQuery)
            self.questions.append((" ".join(request.query.terms), tuple(ids)))
            return super().explain(request, ids)

    backend = Asked()
    backend.questions = []
    with make_search(dataset, backend) as search:
        fusions = {"rrf": hs.RRF(), "minmax": hs.ScoreFusion("minmax"), "zscore": hs.ScoreFusion("zscore")}
        systems = {name: Pipeline(search, fusion=fusion) for name, fusion in fusions.items()}
        found = compare(systems | {"bm25": Pipeline(search, ["bm25"])}, dataset, details=7, **QUICK)
        assert len(backend.questions) == len(found.details) == 7
        assert all(len(set(ids)) == len(ids) for _, ids in backend.questions)
        for detail in found.details:
            hit = detail.systems["minmax"][0]
            assert hit.terms == search.explain(detail.text, hit.id).terms


def test_an_index_that_is_not_kept_is_not_read_back(dataset: Dataset) -> None:
    class Closed(MemoryBackend):
        def scan(self, batch_size: int = 1024) -> Iterator[Any]:
            raise AssertionError("read back")

    with hs.HybridSearch({"dense": Hashing()}, Closed()) as search:
        search.index(dataset.corpus or [], show_progress_bar=False)
        assert evaluate(search, dataset, latency_queries=2, show_progress_bar=False).cost is not None


def test_without_a_work_folder_a_retriever_is_still_timed_once_for_all_systems(dataset: Dataset) -> None:
    with make_search(dataset) as search:
        dense = search.retrievers["dense"]
        assert isinstance(dense, Hashing)
        systems = {"a": Pipeline(search, ["dense"]), "b": search, "c": Pipeline(search, fusion=hs.RRF(5))}
        dense.documents = 0
        found = compare(systems, dataset, latency_queries=4, show_progress_bar=False)
    assert dense.documents < 2 * len(list(dataset.corpus or ()))
    assert len({one.cost.encode_ms for one in found.systems[1:] if one.cost}) == 1


def test_times_of_a_busy_machine_are_said_and_taken_again_when_asked(
    search: hs.HybridSearch, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"work_folder": tmp_path, "latency_queries": 3, "show_progress_bar": False}
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5 * (os.cpu_count() or 1), 0.0, 0.0))
    busy = compare({"both": search}, dataset, **options)
    said = "Other programs were running while this was measured: up to 3.5 processes per core"
    assert said in str(busy)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    assert compare({"both": search}, dataset, **options)["both"].cost == busy["both"].cost
    again = compare({"both": search}, dataset, time_again=True, **options)
    assert said not in str(again)
    assert again["both"].rankings == busy["both"].rankings
    assert compare({"both": search}, dataset, **options)["both"].cost == again["both"].cost


def test_each_pair_is_reranked_once_for_all_systems(search: hs.HybridSearch, dataset: Dataset) -> None:
    one, other = Overlap(20), Overlap(35)
    one.pairs = other.pairs  # one list
    systems = {
        "bm25": Pipeline(search, ["bm25"], reranker=one),
        "dense": Pipeline(search, ["dense"], reranker=other),
        "both": Pipeline(search, reranker=one),
    }
    compare(systems, dataset, **QUICK)
    assert one.pairs
    assert len(set(one.pairs)) == len(one.pairs)


def test_two_indexes_may_have_other_texts_under_the_same_ids(dataset: Dataset) -> None:
    changed = [Document(one.id, f"{one.text} wing wing lift") for one in dataset.corpus or ()]
    other = Dataset(dataset.name, dataset.queries, dataset.qrels, changed)
    with make_search(dataset) as first, make_search(other) as second:
        systems = {"first": Pipeline(first, reranker=Overlap()), "second": Pipeline(second, reranker=Overlap())}
        found = compare(systems, dataset, top_k=30, measures=["AP"], details=3, **QUICK)
        for name, search in (("first", first), ("second", second)):
            assert found[name].rankings == returned(search, dataset, reranker=Overlap())


def test_equal_texts_of_other_metadata_are_reranked_apart_if_the_metadata_is_read(dataset: Dataset) -> None:
    class ByEven(Overlap):
        def text_of(self, document: Document) -> str:
            return "wing" if document.metadata["even"] else "lift"

        def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
            return [
                np.array([self.score(query, self.text_of(one)) for one in some])
                for query, some in zip(queries, documents, strict=True)
            ]

    twins = [Document(one.id, "wing lift flow", metadata=one.metadata) for one in dataset.corpus or ()]
    twin_set = Dataset(dataset.name, dataset.queries, dataset.qrels, twins)
    with make_search(twin_set) as search:
        found = compare({"own": Pipeline(search, reranker=ByEven())}, twin_set, top_k=30, measures=["AP"], **QUICK)
        assert found["own"].rankings == returned(search, twin_set, reranker=ByEven())


def test_kept_rankings_are_not_those_of_other_synonyms(dataset: Dataset, tmp_path: Path) -> None:
    make_search(dataset, tmp_path / "index").close()
    for synonyms in (None, {"wing": "lift"}, {"wing": "flow"}):
        encoder = hs.BM25(synonyms=synonyms)
        with hs.open(tmp_path / "index", retrievers={"bm25": encoder, "dense": Hashing()}) as search:
            systems = {"bm25": Pipeline(search, ["bm25"])}
            found = compare(systems, dataset, top_k=30, measures=["AP"], work_folder=tmp_path / "work", **QUICK)
            assert found["bm25"].rankings == returned(search, dataset, retrievers=["bm25"])


def test_a_retriever_that_may_fail_elsewhere_may_not_fail_here(dataset: Dataset) -> None:
    class Broken(Hashing):
        def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
            raise ValueError("no model today")

    with hs.HybridSearch({"bm25": hs.BM25(), "dense": Broken()}, optional=["dense"]) as search:
        search.index(dataset.corpus or [], show_progress_bar=False)
        with pytest.raises(RetrieverError, match="no model today"):
            compare({"both": search}, dataset, **QUICK)


def test_a_hit_in_detail_has_a_title_and_the_text_after_it() -> None:
    assert (title(None), excerpt(None)) == ("", "")
    titled = Document("a", "Lift grows with the angle.", title="Wings")
    assert (title(titled), excerpt(titled)) == ("Wings", "Lift grows with the angle.")
    long = Document("b", "wing " * 30 + "lift " * 100)
    assert title(long) == ("wing " * 24).strip() + " ..."
    assert excerpt(long) == "wing " * 6 + ("lift " * 42).strip() + " ..."


# Figures


def test_figures_equal_ir_measures_on_the_saved_runs(search: hs.HybridSearch, dataset: Dataset, tmp_path: Path) -> None:
    names = ["nDCG@10", "RR@10", "AP", "R@30", "P@5", "Success@1"]
    systems = {"rrf": search, "reranked": Pipeline(search, reranker=Overlap(10)), "bm25": Pipeline(search, ["bm25"])}
    found = compare(systems, dataset, measures=names, top_k=30, **QUICK)
    qrels = [ir_measures.Qrel(q, d, grade) for q, of_query in dataset.qrels.items() for d, grade in of_query.items()]
    for name, path in found.save_runs(tmp_path).items():
        theirs = ir_measures.calc_aggregate(
            [ir_measures.parse_measure(one) for one in names], qrels, ir_measures.read_trec_run(str(path))
        )
        for measure, value in theirs.items():
            assert found[name].means[str(measure)].mean == pytest.approx(value, abs=1e-12)


def test_significance_equals_scipy_and_the_correction_is_for_all_systems(
    search: hs.HybridSearch, dataset: Dataset
) -> None:
    systems = {"rrf": search, "bm25": Pipeline(search, ["bm25"]), "dense": Pipeline(search, ["dense"])}
    found = compare(systems, dataset, baseline="dense", correction="bonferroni", **QUICK)
    assert found["dense"].versus == {}
    base = list(found["dense"].scores["AP"].values())
    for name in ("rrf", "bm25"):
        versus, own = found[name].versus["AP"], list(found[name].scores["AP"].values())
        expected = stats.ttest_rel(own, base).pvalue
        assert versus.p_value == pytest.approx(expected)
        assert versus.p_adjusted == pytest.approx(min(1, 2 * expected))
        assert versus.difference.mean == pytest.approx(np.mean(own) - np.mean(base))
        assert (versus.wins, versus.losses) == (
            sum(a > b for a, b in zip(own, base, strict=True)),
            sum(a < b for a, b in zip(own, base, strict=True)),
        )
        assert versus.wins + versus.losses + versus.ties == len(base)


def test_the_better_single_retriever_is_the_row_of_that_retriever(search: hs.HybridSearch, dataset: Dataset) -> None:
    systems = {"rrf": search, "bm25": Pipeline(search, ["bm25"]), "dense": Pipeline(search, ["dense"])}
    found = compare(systems, dataset, **QUICK)
    best = max(("bm25", "dense"), key=lambda name: found[name].means["nDCG@10"].mean)
    assert found["bm25"].best_single is None
    single = found["rrf"].best_single
    assert single is not None
    assert single.retriever == best
    assert single.means == pytest.approx({name: of.mean for name, of in found[best].means.items()})
    expected = found["rrf"].means["AP"].mean - found[best].means["AP"].mean
    assert single.versus["AP"].difference.mean == pytest.approx(expected)


def test_a_run_whose_ids_are_written_otherwise_is_told_from_a_bad_one(dataset: Dataset) -> None:
    bad = Ranking.from_scores({id: 1.0 for id, grade in dataset.qrels["q1"].items() if not grade} | {"d149": 0.5})
    systems = {"bad": {"q1": bad}, "other": {"q1": Ranking.from_scores({"D-1": 1.0})}}
    found = compare(systems, dataset, **QUICK)
    assert found["bad"].warnings == ()
    (told,) = found["other"].warnings
    assert told.startswith("other lists no judged document")
    assert "has ids such as 'D-1', and the judgements have ids such as 'd" in told


def test_how_deep_a_measure_without_a_cutoff_looks_is_said(search: hs.HybridSearch, dataset: Dataset) -> None:
    found = compare({"both": search}, dataset, measures=["AP", "nDCG@10"], top_k=30, **QUICK)
    assert "AP looks at the first 30 documents of each query" in " ".join(str(found).split())
    others = compare({"both": search}, dataset, measures=["SetP", "IPrec@0.1"], top_k=30, **QUICK)
    assert "SetP and IPrec@0.1 look at the first 30 documents" in " ".join(str(others).split())
    assert "the first" not in str(compare({"both": search}, dataset, measures=["nDCG@10"], top_k=30, **QUICK))
    deeper = compare({"both": search}, dataset, measures=["AP"], top_k=100, **QUICK)
    assert deeper["both"].means["AP"].mean > found["both"].means["AP"].mean


@pytest.mark.parametrize("given", ["beir/scifact", {"nq": None}, None])
def test_what_is_no_data_set_is_told_what_one_is(search: hs.HybridSearch, given: Any) -> None:
    for call in (evaluate, lambda one, other: compare({"one": one}, other), tune):
        with pytest.raises(InvalidArgumentError, match=r"hs\.load_dataset"):
            call(search, given)


def test_a_query_without_results_counts_0(dataset: Dataset) -> None:
    first = next(iter(dataset.queries))
    perfect = {query: Ranking.from_scores({id: g for id, g in of.items() if g}) for query, of in dataset.qrels.items()}
    judged = [query for query, ranking in perfect.items() if len(ranking)]
    found = compare({"run": {judged[0]: perfect[judged[0]]}}, dataset, measures=["nDCG@10"], **QUICK)
    assert found["run"].scores["nDCG@10"] == {query: float(query == judged[0]) for query in dataset.queries}
    assert first in found["run"].scores["nDCG@10"]


def test_equal_scores_in_a_run_file_are_counted_and_no_other_run_is_spoken_of(dataset: Dataset, tmp_path: Path) -> None:
    first, second, third, fourth = sorted(dataset.qrels["q1"])[:4]
    hits = [(first, 2.0), (second, 1.0), (third, 1.0), (fourth, 0.5)]
    (tmp_path / "tied.trec").write_text("".join(f"q1 Q0 {id} 1 {score} t\n" for id, score in hits))
    Ranking.to_trec({"q1": Ranking.from_scores(hits)}, tmp_path / "ours.trec")
    runs = {"tied": tmp_path / "tied.trec", "ours": tmp_path / "ours.trec"}
    systems = {**runs, "ready": {"q1": Ranking.from_scores(hits)}, "both": Pipeline(runs)}
    found = compare(systems, dataset, **QUICK)
    (told,) = found["tied"].warnings
    assert told.startswith(f"{tmp_path / 'tied.trec'}: 2 of 4 hits have the same score as another hit of their query")
    assert [found[name].warnings for name in ("ours", "ready", "both")] == [(), (), (told,)]
    assert found["tied"].ranking("q1").ids == (first, third, second, fourth)
    assert str(found).count("tied.trec: ") == 1
    found.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("tied.trec: 2 of 4") == 1


def test_a_run_file_without_hits_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "empty.trec").touch()
    with pytest.raises(InvalidArgumentError, match="Run 'cut' has no hits: check that it was written completely"):
        compare({"cut": tmp_path / "empty.trec"}, dataset, **QUICK)


def test_a_run_file_of_distances_is_told(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "far.trec").write_text("".join(f"q1 Q0 {id} {rank} {rank} t\n" for rank, id in enumerate("abc", 1)))
    found = compare({"far": tmp_path / "far.trec"}, dataset, **QUICK)
    assert any("in 1 of 1 queries the first rank in the file has a lower" in w for w in found["far"].warnings)
    assert found["far"].ranking("q1").ids == ("c", "b", "a")


def test_the_query_document_is_dropped_only_when_asked() -> None:
    documents = [Document("a", "wing lift"), Document("b", "wing"), Document("c", "lift")]
    dataset = Dataset("self", {"a": "wing lift"}, {"a": {"b": 1}}, documents)
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index(documents, show_progress_bar=False)
        options: dict[str, Any] = {"measures": ["RR@2"], "top_k": 2, **QUICK}
        assert evaluate(search, dataset, **options).ranking("a").ids == ("a", "b")
        dropped = evaluate(search, dataset, exclude_self=True, **options)
    assert dropped.ranking("a").ids == ("b", "c")
    assert dropped.means["RR@2"].mean == 1


@pytest.mark.parametrize(
    "options", [{}, {"fusion": hs.ScoreFusion("minmax")}, {"reranker": Overlap(5)}, {"retrievers": ["first"]}]
)
def test_dropping_equals_an_index_without_the_query_document(options: dict[str, Any], dataset: Dataset) -> None:
    documents = list(dataset.corpus or ())
    queries = {document.id: document.text for document in documents[:10]}  # so that each finds itself first
    own = Dataset("self", queries, {query: {"d1": 1, "d2": 1} for query in queries}, documents)
    encoders = {name: Hashing(name) for name in ("first", "second")}  # scores do not depend on other documents
    with hs.HybridSearch(encoders, candidates=30) as search:
        search.index(documents, show_progress_bar=False)
        system = Pipeline(search, **options)
        found = evaluate(system, own, top_k=30, measures=["nDCG@10"], exclude_self=True, **QUICK)
    for query, text in queries.items():
        with hs.HybridSearch(encoders, candidates=30) as without:
            without.index([one for one in documents if one.id != query], show_progress_bar=False)
            assert list(found.ranking(query).ids) == without.search(text, 30, **options).ids


def test_oracle_positives_do_not_put_the_dropped_document_back(search: hs.HybridSearch, dataset: Dataset) -> None:
    own = Dataset("self", {"d1": "wing lift"}, {"d1": {"d1": 1, "d2": 1}}, dataset.corpus)
    system = Pipeline(search, reranker=Overlap(5))
    found = compare({"r": system}, own, oracle_positives=True, exclude_self=True, **QUICK)
    for of_system in found.systems:
        assert "d1" not in of_system.ranking("d1").ids
    assert "d2" in found.systems[1].ranking("d1").ids


# Reranking


def test_oracle_positives_are_rows_of_their_own(search: hs.HybridSearch, dataset: Dataset) -> None:
    system = Pipeline(search, ["bm25"], candidates=10, reranker=Overlap(10))
    found = compare({"reranked": system}, dataset, top_k=10, measures=["R@10"], oracle_positives=True, **QUICK)
    assert [(one.name, one.kind) for one in found.systems] == [
        ("reranked", "reranked"),
        ("reranked (oracle positives)", "oracle-positives"),
    ]
    assert found.systems[1].means["R@10"].mean > found.systems[0].means["R@10"].mean
    assert (found.systems[1].versus, found.systems[1].best_single) == ({}, None)


def test_a_system_is_not_named_as_the_one_with_oracle_positives_is(search: hs.HybridSearch, dataset: Dataset) -> None:
    systems = {"r": Pipeline(search, reranker=Overlap()), "r (oracle positives)": search}
    with pytest.raises(InvalidArgumentError, match="two systems 'r \\(oracle positives\\)'"):
        compare(systems, dataset, oracle_positives=True, **QUICK)


def test_oracle_positives_equal_the_evaluator_of_sentence_transformers(minilm: str, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    folder = _cross_encoder(minilm, tmp_path)
    dataset = make_dataset(60, 8)
    with make_search(dataset) as search:
        system = Pipeline(search, ["bm25"], candidates=20, reranker=hs.CrossEncoderReranker(folder, top_k=20))
        found = compare(
            {"ce": system}, dataset, measures=["nDCG(gains={2:1})@10", "RR@10", "AP"], oracle_positives=True, **QUICK
        )
        first = returned(search, dataset, retrievers=["bm25"], candidates=20)
    texts = {document.id: document.content for document in dataset.corpus or ()}
    samples = [
        {
            "query": text,
            "positive": [texts[id] for id, grade in dataset.qrels[query].items() if grade],
            "documents": [texts[id] for id, _ in first[query][:20]],
        }
        for query, text in dataset.queries.items()
    ]
    theirs = CrossEncoderRerankingEvaluator(samples)(sentence_transformers.CrossEncoder(folder, device="cpu"))
    ours = found["ce (oracle positives)"].means
    assert ours["RR@10"].mean == pytest.approx(theirs["mrr@10"], abs=1e-6)
    assert ours["AP"].mean == pytest.approx(theirs["map"], abs=1e-6)
    assert ours["nDCG(gains={2:1})@10"].mean == pytest.approx(theirs["ndcg@10"], abs=1e-6)


def test_the_preset_has_six_systems(search: hs.HybridSearch, dataset: Dataset) -> None:
    systems = retrieve_rerank(search, Overlap(), sparse="bm25", dense="dense")
    found = compare(systems, dataset, measures=["nDCG@10", "RR@10", "AP"], **QUICK)
    assert [(one.name, one.kind) for one in found.systems] == [
        ("bm25", "single"),
        ("dense", "single"),
        ("bm25+dense", "fused"),
        ("bm25+rerank", "reranked"),
        ("dense+rerank", "reranked"),
        ("bm25+dense+rerank", "reranked"),
    ]
    best = found["bm25+rerank"].best_single
    assert best is not None
    assert best.retriever == "bm25"


# Runs


def test_runs_are_compared_fused_and_reranked_like_an_index(
    search: hs.HybridSearch, dataset: Dataset, tmp_path: Path
) -> None:
    names = {name: Pipeline(search, [name], fusion=hs.ScoreFusion("none")) for name in ("bm25", "dense")}
    paths = compare(names, dataset, **QUICK).save_runs(tmp_path)
    runs: Mapping[str, Any] = {"bm25": str(paths["bm25"]), "dense": paths["dense"]}
    found = compare(
        {
            "file": paths["bm25"],
            "single": Pipeline(runs, ["dense"]),
            "fused": Pipeline(runs),
            "reranked": Pipeline(runs, reranker=Overlap(20)),
        },
        dataset,
        **QUICK,
    )
    assert [one.kind for one in found.systems] == ["run", "single", "fused", "reranked"]
    expected = compare({"fused": search, "reranked": Pipeline(search, reranker=Overlap(20))}, dataset, **QUICK)
    for name in ("fused", "reranked"):
        assert found[name].scores == expected[name].scores
    assert found["file"].scores == compare(names, dataset, **QUICK)["bm25"].scores


def test_documents_that_are_nowhere_cannot_be_reranked(dataset: Dataset) -> None:
    run = {query: Ranking.from_scores({"elsewhere": 1.0}) for query in dataset.queries}
    with pytest.raises(InvalidArgumentError, match="'elsewhere', which are neither in its index nor in the data set"):
        compare({"run": Pipeline({"run": run}, reranker=Overlap())}, dataset, **QUICK)


def test_a_run_of_other_queries_is_refused(dataset: Dataset) -> None:
    with pytest.raises(
        InvalidArgumentError, match="query ids such as '7', and the data set has query ids such as 'q0'"
    ):
        compare({"run": {"7": Ranking.from_scores({"d1": 1.0})}}, dataset, **QUICK)


def test_an_index_of_another_collection_is_refused(search: hs.HybridSearch, dataset: Dataset) -> None:
    other = Dataset("other", dataset.queries, {query: {"elsewhere": 1} for query in dataset.queries})
    with pytest.raises(InvalidArgumentError, match="none of the documents that are judged in the data set 'other'"):
        compare({"system": search}, other, **QUICK)


def test_a_saved_run_of_one_retriever_has_its_own_scores(
    search: hs.HybridSearch, dataset: Dataset, tmp_path: Path
) -> None:
    systems = {name: Pipeline(search, [name]) for name in ("bm25", "dense")}
    paths = compare(systems, dataset, **QUICK).save_runs(tmp_path)
    merged = {"merged": Pipeline(search, fusion=hs.ScoreFusion("minmax"))}
    again = {"merged": Pipeline(paths, fusion=hs.ScoreFusion("minmax"))}
    assert compare(again, dataset, **QUICK)["merged"].scores == compare(merged, dataset, **QUICK)["merged"].scores


# Arguments


@pytest.mark.parametrize(
    ("systems", "options", "message"),
    [
        ({}, {}, "one or more systems"),
        ({"run": 3}, {}, "System 'run' must be a HybridSearch, a Pipeline or a run"),
        ({"run": {"q0": {"d1": 1.0}}}, {}, "rankings by query id"),
        ({"run": "missing.trec"}, {}, "missing.trec"),
        (None, {"baseline": "none"}, "The baseline 'none' is not one of the systems 'run'"),
        (None, {"measures": ["R@200"]}, "give top_k=200"),
        (None, {"measures": ["Magic@3"]}, "Magic"),
        (None, {"top_k": 0}, "top_k"),
        (None, {"test": "luck"}, "luck"),
        (None, {"correction": "hope"}, "hope"),
        (None, {"level": 95}, "between 0 and 1"),
        (None, {"latency_queries": -1}, "latency_queries"),
        (None, {"details": "20"}, "details"),
        (None, {"oracle_positives": "no"}, "oracle_positives"),
        (None, {"time_again": "no"}, "time_again"),
        (None, {"exclude_self": "no"}, "exclude_self"),
        ({1: {}}, {}, "The name of a system"),
        ({" ": {}}, {}, "The name of a system"),
        ({"p": Pipeline({"a": {}}, ["b"])}, {}, "not one of its runs"),
        ({"p": Pipeline({"a": {}}, reranker="cross-encoder/model")}, {}, "A reranker is an object"),
        ({"p": Pipeline({"a": {}}, filter={"x": 1})}, {}, "cannot be filtered"),
        ({"p": Pipeline({"a": {}}, candidates=0)}, {}, "The candidates of system 'p'"),
        ({"p": Pipeline({})}, {}, "runs by retriever name"),
    ],
)
def test_a_wrong_argument_is_explained(systems: Any, options: dict[str, Any], message: str, dataset: Dataset) -> None:
    run = {query: Ranking.from_scores({"d1": 1.0}) for query in dataset.queries}
    if systems is None:
        systems = {"run": run, **({"second": run} if "test" in options else {})}
        if "test" in options:
            systems["second"] = {query: Ranking.from_scores({f"d{i}": 1.0}) for i, query in enumerate(run)}
    with pytest.raises(InvalidArgumentError, match=message.replace("(", r"\(")):
        compare(systems, dataset, **{**QUICK, **options})


def test_a_pipeline_names_retrievers_that_are_there(search: hs.HybridSearch, dataset: Dataset) -> None:
    with pytest.raises(InvalidArgumentError, match="'sparse'"):
        compare({"p": Pipeline(search, ["sparse"])}, dataset, **QUICK)


def test_one_retriever_of_a_pipeline_may_be_named_without_a_list() -> None:
    runs = {name: {"q": Ranking.from_scores({"d": 1.0})} for name in ("bm25", "dense")}
    assert Pipeline(runs, retrievers="bm25").resolve("one", 10).retrievers == ("bm25",)


def test_a_data_set_without_judgements_is_refused(search: hs.HybridSearch) -> None:
    with pytest.raises(InvalidArgumentError, match="No query of the data set 'empty' has a judgement"):
        compare({"s": search}, Dataset("empty", {"q": "wing"}, {}, []), **QUICK)


# Going on


def test_the_second_run_does_nothing_again(dataset: Dataset, tmp_path: Path) -> None:
    with make_search(dataset, tmp_path / "index") as search:
        dense, reranker = search.retrievers["dense"], Overlap()
        assert isinstance(dense, Hashing)
        systems = {"rrf": search, "reranked": Pipeline(search, reranker=reranker)}
        options: dict[str, Any] = {"work_folder": tmp_path / "work", "latency_queries": 3, "show_progress_bar": False}
        first = compare(systems, dataset, **options)
        done = dense.queries, dense.documents, len(reranker.pairs)
        second = compare(systems, dataset, **options)
        assert (dense.queries, dense.documents, len(reranker.pairs)) == done
    assert second.systems == first.systems
    assert second.details == first.details


def test_another_process_goes_on_from_the_same_folder(dataset: Dataset, tmp_path: Path) -> None:
    for _ in range(2):
        with make_search(dataset, tmp_path / "index") as search:
            dense = search.retrievers["dense"]
            assert isinstance(dense, Hashing)
            compare({"rrf": search}, dataset, work_folder=tmp_path / "work", **QUICK)
    assert dense.queries == 0


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_nothing_old_is_used_after_the_index_changed(place: str, dataset: Dataset, tmp_path: Path) -> None:
    with make_search(dataset, tmp_path / "index" if place == "folder" else "memory") as search:
        options: dict[str, Any] = {"work_folder": tmp_path / "work", "top_k": 30, "measures": ["AP"], **QUICK}
        before = compare({"rrf": search}, dataset, **options)
        search.upsert([Document(f"new{number}", "wing lift drag flow") for number in range(20)])
        after = compare({"rrf": search}, dataset, **options)
        assert after["rrf"].rankings == returned(search, dataset)
        assert after["rrf"].rankings != before["rrf"].rankings


def test_what_one_engine_gave_is_not_taken_for_another_engines(dataset: Dataset, tmp_path: Path) -> None:
    class Blind(MemoryBackend):
        def search(self, requests: Sequence[Request]) -> list[Ranking]:
            return [Ranking.from_scores({"d0": 1.0}) for _ in requests]

    with make_search(dataset) as seeing, make_search(dataset, Blind()) as blind:
        options: dict[str, Any] = {"work_folder": tmp_path / "work", "show_progress_bar": False, "latency_queries": 2}
        compared = compare({"seeing": seeing, "blind": blind}, dataset, **options)
    assert {len(ranking) for ranking in compared["blind"].rankings.values()} == {1}
    assert compared["seeing"].cost != compared["blind"].cost


def test_a_damaged_file_is_made_again(dataset: Dataset, tmp_path: Path) -> None:
    with make_search(dataset, tmp_path / "index") as search:
        options: dict[str, Any] = {"work_folder": tmp_path / "work", "latency_queries": 2, "show_progress_bar": False}
        first = compare({"rrf": search}, dataset, **options)
        damaged = [*(tmp_path / "work").glob("*/*.parquet"), *(tmp_path / "work").glob("*/*.json")]
        assert len(damaged) >= 4
        for path in damaged:
            path.write_bytes(path.read_bytes()[:20])
        assert compare({"rrf": search}, dataset, **options)["rrf"].rankings == first["rrf"].rankings


def _compare_in(folder: Path, slow: float) -> None:
    dataset = make_dataset(400, 300)
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": Hashing(log=folder / "log")}, folder / "index") as search:
        search.index(dataset.corpus, show_progress_bar=False)
        reranker = Overlap(20, log=folder / "log", slow=slow)
        systems = {"rrf": search, "reranked": Pipeline(search, reranker=reranker)}
        compare(systems, dataset, work_folder=folder / "work", **QUICK).save(folder / "result.json")


def test_what_was_finished_before_a_crash_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", "off")

    def start(slow: float) -> BaseProcess:
        process = get_context("fork").Process(target=_compare_in, args=(tmp_path, slow))
        process.start()
        return process

    def counts() -> dict[str, int]:
        total = {"documents": 0, "queries": 0, "pairs": 0}
        for line in (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else ():
            total[line.split()[0]] += int(line.split()[1])
        return total

    process = start(0.5)
    deadline = time.monotonic() + 120
    while counts()["pairs"] < 2000 and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.join()
    before = counts()
    assert before["documents"] == 400
    assert before["queries"] == 300
    assert 2000 <= before["pairs"] < 6000
    assert not (tmp_path / "result.json").exists()

    second = start(0)
    second.join(120)
    assert second.exitcode == 0
    after = counts()
    assert after["documents"] == 400
    assert after["queries"] == 300
    assert after["pairs"] < before["pairs"] + 6000 - 1000  # all chunks except the last one were kept
    assert Comparison.load(tmp_path / "result.json")["reranked"].means["nDCG@10"].mean > 0


# Costs


def test_costs_are_of_each_stage_and_retriever(search: hs.HybridSearch, dataset: Dataset) -> None:
    systems = {
        "bm25": Pipeline(search, ["bm25"]),
        "dense": Pipeline(search, ["dense"]),
        "rrf": search,
        "reranked": Pipeline(search, reranker=Overlap(slow=0.01)),
    }
    found = compare(systems, dataset, latency_queries=10, show_progress_bar=False)
    costs = {one.name: one.cost for one in found.systems}
    for cost in costs.values():
        assert cost is not None
        assert cost.queries == 10
        assert cost.encode_ms
        assert cost.search_ms
        assert cost.total_ms
        assert 0 < cost.encode_ms.p50 <= cost.encode_ms.p95
        assert cost.total_ms.p50 >= cost.search_ms.p50
    bm25, dense, rrf, reranked = (costs[name] for name in systems)
    assert bm25 and dense and rrf and reranked  # noqa: PT018 - for the type checker
    assert (bm25.fuse_ms, bm25.rerank_ms) == (None, None)
    assert rrf.fuse_ms is not None
    assert reranked.rerank_ms is not None
    assert reranked.rerank_ms.p50 >= 10
    facts = search.backend.describe()["retrievers"]  # type: ignore[attr-defined]
    assert dense.index_bytes == facts["dense"]["bytes"]
    assert rrf.index_bytes == facts["dense"]["bytes"] + facts["bm25"]["bytes"]
    assert rrf.documents_per_second.keys() == {"bm25", "dense"}
    assert rrf.sparsity.keys() == {"bm25"}


def test_encoding_is_timed_without_the_cache(minilm: str, dataset: Dataset) -> None:
    few = Dataset("few", dict(list(dataset.queries.items())[:3]), dataset.qrels, list(dataset.corpus or ())[:40])
    with hs.HybridSearch({"dense": hs.Dense(minilm)}) as search:
        search.index(few.corpus or [], show_progress_bar=False)
        cost = evaluate(search, few, latency_queries=2, show_progress_bar=False).cost
    assert cost is not None
    assert cost.documents_per_second["dense"] < 5000  # a cache gives tens of thousands a second
    assert cost.encode_ms is not None
    assert cost.encode_ms.p50 > 0.5


def test_the_sparsity_of_expanded_queries_is_their_own() -> None:
    documents = [Document(f"d{i}", f"wing of aircraft{i} by maker{i}") for i in range(40)]
    dataset = Dataset("rare words", {"q": "wing"}, {"q": {"d1": 1}}, documents)
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(documents, show_progress_bar=False)
    plain, fed_back = Pipeline(search, ["bm25"]), Pipeline(search, ["bm25"], feedback=hs.RM3())
    options: dict[str, Any] = {"latency_queries": 1, "show_progress_bar": False}
    both = compare({"plain": plain, "rm3": fed_back}, dataset, **options)
    alone = evaluate(fed_back, dataset, **options)
    costs = [one.cost.sparsity["bm25"] for one in (*both.systems, alone) if one.cost]
    assert costs[1] == costs[2]
    assert costs[1].queries_mean > 2 * costs[0].queries_mean


def test_sparsity_equals_the_mean_over_all_pairs(search: hs.HybridSearch, dataset: Dataset) -> None:
    vectors = [batch.vectors["bm25"] for batch in search.backend.scan(64)]
    sparse = [of_batch for of_batch in vectors if isinstance(of_batch, SparseVectors)]
    queries = hs.BM25().encode_queries(list(dataset.queries.values()))
    found = measure_sparsity(sparse, [query for query in queries if isinstance(query, SparseQuery)])
    documents = [
        {of_batch.vocabulary.terms[column] for column in of_batch.matrix.indices[start:end]}
        for of_batch in sparse
        for start, end in zip(of_batch.matrix.indptr[:-1], of_batch.matrix.indptr[1:], strict=True)
    ]
    terms = [set(query.terms) for query in queries if isinstance(query, SparseQuery)]
    assert found.documents_mean == pytest.approx(np.mean([len(one) for one in documents]))
    assert found.queries_mean == pytest.approx(np.mean([len(one) for one in terms]))
    assert found.flops == pytest.approx(np.mean([len(q & d) for q in terms for d in documents]))
    assert sum(found.documents_histogram.counts) == len(documents)


def test_merging_other_runs_under_the_same_names_is_timed_again(dataset: Dataset, tmp_path: Path) -> None:
    def costs(depth: int) -> Any:
        ranking = Ranking.from_scores({f"d{number}": 1.0 / (number + 1) for number in range(depth)})
        runs = {name: dict.fromkeys(dataset.queries, ranking) for name in ("one", "other")}
        options: dict[str, Any] = {"latency_queries": 5, "work_folder": tmp_path, "show_progress_bar": False}
        return compare({"merged": Pipeline(runs)}, dataset, **options)["merged"].cost

    assert costs(5) == costs(5)
    assert costs(5) != costs(100)


def test_times_of_another_machine_are_not_used(
    search: hs.HybridSearch, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost() -> Any:
        options: dict[str, Any] = {"latency_queries": 5, "work_folder": tmp_path, "show_progress_bar": False}
        return evaluate(search, dataset, **options).cost

    here = cost()
    assert here == cost()
    monkeypatch.setattr("hybridsearch.evaluation.costs._processor", lambda: "another processor")
    there = cost()
    assert there.total_ms != here.total_ms
    assert there.encode_ms != here.encode_ms
    assert there.documents_per_second != here.documents_per_second


def test_a_comparison_tells_the_machine_below_its_costs(search: hs.HybridSearch, dataset: Dataset) -> None:
    found = compare({"rrf": search}, dataset, latency_queries=2, show_progress_bar=False)
    assert found.machine["Python"] == platform.python_version()
    assert int(found.machine["cores"]) <= (os.cpu_count() or 1)
    line = f"Machine: {', '.join([found.machine['CPU'], 'cores ' + found.machine['cores']])}"
    assert line in " ".join(str(found).split())
    assert line in found.to_markdown()
    assert Comparison.from_dict({k: v for k, v in found.to_dict().items() if k != "machine"}).machine == {}


# Details


def test_details_say_what_was_returned_and_why(search: hs.HybridSearch, dataset: Dataset) -> None:
    found = compare({"rrf": search, "bm25": Pipeline(search, ["bm25"])}, dataset, details=6, **QUICK)
    assert len(found.details) == 6
    for detail in found.details:
        assert detail.text == dataset.queries[detail.id]
        assert {id for id, _, _ in detail.relevant} == {id for id, g in dataset.qrels[detail.id].items() if g}
        results = search.search(detail.text, 5)
        assert [hit.id for hit in detail.systems["rrf"]] == results.ids
        for shown, hit in zip(detail.systems["rrf"], results, strict=True):
            assert shown.retrievers == {name: of.rank for name, of in hit.retrievers.items()}
            assert shown.grade == dataset.qrels[detail.id].get(hit.id)
            assert shown.terms.get("bm25", {}) == hit.explain().terms.get("bm25", {})
            assert hit.document.text.startswith(shown.title.removesuffix(" ..."))
            marked = {token for start, end in shown.marks for token in hs.BM25().tokenize(shown.text[start:end])}
            assert marked <= set(shown.terms.get("bm25", {}))
            assert bool(marked) == bool(shown.terms.get("bm25"))


def test_evaluate_prints_one_system(search: hs.HybridSearch, dataset: Dataset) -> None:
    found = evaluate(search, dataset, latency_queries=2, show_progress_bar=False)
    assert "bm25 + dense, RRF(k=60), 100 candidates" in str(found)
    assert f"{found.means['nDCG@10'].mean:.4f}" in str(found)


def test_without_ir_measures_the_extra_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[evaluation\]"):
        compare({"run": {"q0": Ranking.from_scores({"d1": 1.0})}}, dataset, **QUICK)


def _cross_encoder(minilm: str, folder: Path) -> str:
    """MiniLM with an untrained head for scores."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder / "bert")
    CrossEncoder(str(folder / "bert"), device="cpu").save_pretrained(str(folder / "model"))
    return str(folder / "model")
