"""A realistic comparison made from code, without any index or model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridsearch.evaluation.comparison import Comparison, SystemResult
from hybridsearch.evaluation.results import (
    BestSingle,
    Cost,
    DatasetFacts,
    DetailHit,
    Histogram,
    Kind,
    QueryDetail,
    Sparsity,
    Timing,
    Versus,
)
from hybridsearch.evaluation.statistics import Interval

MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")
SYSTEMS: tuple[tuple[str, Kind, tuple[str, ...], float], ...] = (
    ("bm25", "single", ("bm25",), 0.00),
    ("dense", "single", ("dense",), -0.03),
    ("rrf", "fused", ("bm25", "dense"), 0.03),
    ("minmax & <zscore>", "fused", ("bm25", "dense"), 0.05),
    ("rrf + rerank", "reranked", ("bm25", "dense"), 0.08),
    ("rrf + rerank (oracle positives)", "oracle-positives", ("bm25", "dense"), 0.15),
    ("elsewhere.trec", "run", (), -0.10),
)
WORDS = ("wing", "lift", "drag", "shock layer", "heat panel", "laminar", "<script>alert(1)</script>", "翼")


def make_comparison(queries: int = 60, seed: int = 7) -> Comparison:
    """Seven systems of every kind on `queries` made-up queries, with details of a few of them.

    Names and texts contain markup, so that a report that does not escape them is noticed.
    """
    random = np.random.default_rng(seed)
    ids = [f"q{number}" for number in range(1, queries + 1)]
    hard = random.beta(1.6, 0.8, size=queries)  # how easy each query is for all systems
    scores = {
        name: {
            measure: np.clip(
                hard + gain + 0.1 * place + random.normal(0, 0.12, queries) * (random.random(queries) < 0.6), 0, 1
            ).round(4)
            for place, measure in enumerate(MEASURES)
        }
        for name, _, _, gain in SYSTEMS
    }
    systems = tuple(_system(number, ids, scores, random) for number in range(len(SYSTEMS)))
    order = np.argsort(scores["bm25"]["nDCG@10"])
    return Comparison(
        dataset=DatasetFacts("cranfield (made up)", 1400, queries, 3 * queries, ("2 documents have an empty text.",)),
        measures=MEASURES,
        baseline="bm25",
        test="t",
        correction="holm",
        systems=systems,
        details=tuple(_detail(ids[place], random) for place in order[:5]),
        seconds=12.5,
        created="2026-11-21T17:55:00+00:00",
        version="0.1.0",
        command="hybridsearch compare cranfield --systems bm25,dense",
        machine={"CPU": "Some Processor 7000 <fast>", "cores": "2", "memory": "8 GiB", "OS": "Linux 6.1"},
    )


@pytest.fixture
def comparison() -> Comparison:
    return make_comparison()


@pytest.fixture
def twins(comparison: Comparison) -> Comparison:
    """The comparison with one more fused system, "twin", which equals the baseline on every query."""
    rrf, baseline = comparison["rrf"], comparison[comparison.baseline]
    nothing = Versus(Interval(0.0, 0.0, 0.0), 1.0, 1.0, 0, 0, comparison.dataset.queries)
    versus = dict.fromkeys(MEASURES, nothing)
    single = BestSingle("bm25", {name: of.mean for name, of in baseline.means.items()}, versus)
    twin = replace(rrf, name="twin", scores=baseline.scores, means=baseline.means, versus=versus, best_single=single)
    return replace(comparison, systems=(*comparison.systems, twin))


def _interval(values: NDArray[np.float64]) -> Interval:
    spread = 1.96 * float(values.std()) / len(values) ** 0.5
    mean = float(values.mean())
    return Interval(mean, mean - spread, mean + spread)


def _versus(ours: NDArray[np.float64], others: NDArray[np.float64]) -> Versus:
    difference = ours - others
    strength = abs(float(difference.mean())) / (float(difference.std()) / len(ours) ** 0.5 + 1e-9)
    p = float(np.exp(-strength))
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return Versus(_interval(difference), p, min(1.0, 6 * p), wins, losses, len(ours) - wins - losses)


def _system(
    number: int, ids: Sequence[str], scores: dict[str, dict[str, NDArray[np.float64]]], random: np.random.Generator
) -> SystemResult:
    name, kind, retrievers, _ = SYSTEMS[number]
    own, baseline = scores[name], scores["bm25"]
    best = BestSingle("bm25", {m: float(baseline[m].mean()) for m in MEASURES}, _all_versus(own, baseline))
    return SystemResult(
        name=name,
        description={"single": name, "run": "run file elsewhere.trec"}.get(
            kind, "bm25 + dense, RRF(k=60), 100 candidates" + (", CrossEncoder(top_k=50)" if "rerank" in name else "")
        ),
        retrievers=retrievers,
        kind=kind,
        scores={measure: dict(zip(ids, own[measure].tolist(), strict=True)) for measure in MEASURES},
        means={measure: _interval(own[measure]) for measure in MEASURES},
        versus={} if number == 0 else _all_versus(own, baseline),
        best_single=best if len(retrievers) > 1 else None,
        cost=None if kind == "run" else _cost(retrievers, "rerank" in name, random),
        rankings={id: (("d1", 3.25), (f"d{place + 2}", 1.5)) for place, id in enumerate(ids)},
        warnings=(f"The fusion of {name} was tuned on these queries.",) if name == "minmax & <zscore>" else (),
    )


def _all_versus(own: dict[str, NDArray[np.float64]], other: dict[str, NDArray[np.float64]]) -> dict[str, Versus]:
    return {measure: _versus(own[measure], other[measure]) for measure in MEASURES}


def _cost(retrievers: tuple[str, ...], reranked: bool, random: np.random.Generator) -> Cost:
    encode = 9.0 if "dense" in retrievers else 0.1
    search = 0.4 * len(retrievers)
    fuse = 0.3 if len(retrievers) > 1 else None
    rerank = 480.0 if reranked else None
    total = encode + search + (fuse or 0) + (rerank or 0)

    def timing(p50: float | None) -> Timing | None:
        return None if p50 is None else Timing(p50, p50 * (1.3 + 0.4 * float(random.random())))

    lengths = random.gamma(6, 15, 1400)
    counts, edges = np.histogram(lengths, bins=20)
    query_counts, query_edges = np.histogram(random.poisson(8, 60), bins=8)
    sparsity = Sparsity(
        float(lengths.mean()),
        8.2,
        0.73,
        Histogram(tuple(edges.tolist()), tuple(counts.tolist())),
        Histogram(tuple(query_edges.tolist()), tuple(query_counts.tolist())),
    )
    return Cost(
        queries=50,
        encode_ms=timing(encode),
        search_ms=timing(search),
        fuse_ms=timing(fuse),
        rerank_ms=timing(rerank),
        total_ms=timing(total),
        index_bytes=2_150_400 * len(retrievers),
        documents_per_second={name: 15_000.0 if name == "bm25" else 34.0 for name in retrievers},
        sparsity={"bm25": sparsity} if "bm25" in retrievers else {},
    )


def _detail(id: str, random: np.random.Generator) -> QueryDetail:
    def text(words: int) -> str:
        return " ".join(random.choice(WORDS, words))

    def hit(rank: int, retrievers: tuple[str, ...]) -> DetailHit:
        number = int(random.integers(1, 9))
        return DetailHit(
            id=f"d{number}",
            title=text(9),
            rank=rank,
            score=round(10 / rank, 4),
            grade=2 if number == 1 else (0 if number < 4 else None),
            retrievers={name: int(random.integers(1, 80)) for name in retrievers},
            terms={"bm25": {"wing": 3.21, "lift": 1.07}} if "bm25" in retrievers else {},
            text="wing " + text(40),
            marks=((0, 4),),
        )

    return QueryDetail(
        id=id,
        text=f"what is known of {text(7)}?",
        relevant=(("d1", 2, text(8)), ("d77", 1, text(8))),
        systems={name: tuple(hit(rank, of) for rank in range(1, 6)) for name, _, of, _ in SYSTEMS},
    )
