"""Compare BM25 with bm25s (numba backend) and rank-bm25, on SciFact and the answers of MedQuAD, in one process.

All libraries get the same tokens (of `hybridsearch.BM25`) and use k1 = 1.2, b = 0.75 and k = 10, after a warm-up. The
formula is Lucene's. Only rank-bm25 has its own formula. bm25s gets lists of tokens, and hybridsearch gets
`SparseQuery`s of term counts. Both times include looking up the terms, weighing them by idf, and the numbers and scores
of the top 10. A time is the mean over the queries of the shortest time of each, asked several times in a row. In
batches, it is that of 100 queries in one call. So other programs on the machine count little. "build"
starts from token numbers and their vocabulary, and ends with an index whose weights are all computed. "texts to index"
also includes the tokenisation of each library. The hits of hybridsearch and bm25s are compared too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

import bm25s
import numpy as np
import Stemmer
from _common import arguments, best_of, data_folder, finish, read_jsonl, table
from rank_bm25 import BM25Okapi
from scipy.sparse import csr_array

from hybridsearch import BM25
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.adapters.memory.postings import LexicalWeights, Postings, TermStatistics
from hybridsearch.adapters.memory.sparse import Hits, SparseSlice, search
from hybridsearch.encoders import counting
from hybridsearch.evaluation.measures import read_qrels
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

K = 10
Numbered = tuple[list[list[int]], dict[str, int]]
"""Token numbers of each document, and the number of each term: what `bm25s.BM25.index` takes."""


class Index:
    """One segment of the embedded engine with BM25 weights."""

    def __init__(self, vectors: SparseVectors, encoder: BM25) -> None:
        postings = Postings.from_vectors(vectors)
        weights = LexicalWeights(postings, TermStatistics([(postings, None)], encoder.weighting))
        weights.columns(postings.terms)
        self.slice = SparseSlice(postings, np.arange(postings.documents, dtype=np.int32), weights=weights)

    def search(self, queries: Sequence[SparseQuery], threads: int) -> list[list[Hits]]:
        return search([self.slice], queries, K, threads=threads)


def count(numbered: Numbered) -> SparseVectors:
    """Count term frequencies of token numbers, as `BM25.encode_documents` does."""
    rows, vocabulary = numbered
    starts = np.concatenate([[0], np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))])
    columns = np.fromiter(chain.from_iterable(rows), np.int32, int(starts[-1]))
    matrix = csr_array((np.ones(len(columns), np.float32), columns, starts), shape=(len(rows), len(vocabulary)))
    matrix.sum_duplicates()
    return SparseVectors(matrix, Vocabulary(list(vocabulary)))


def build_bm25s(tokens: object) -> bm25s.BM25:
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba")
    peer.index(tokens, show_progress=False)
    return peer


def same_hits(ours: Sequence[list[Hits]], documents: np.ndarray, scores: np.ndarray) -> int:
    """The number of queries with the same documents, apart from equal scores at the cut."""
    same = 0
    for ((rows, mine),), their_rows, theirs in zip(ours, documents, scores, strict=True):
        if np.allclose(mine, theirs[theirs > 0], rtol=1e-4):
            floor = theirs[-1] * (1 + 1e-4)
            same += set(rows[mine > floor].tolist()) == set(their_rows[theirs > floor].tolist())
    return same


Row = tuple[str | float, ...]
BATCH = 100


def mean_of_best(ask: Callable[[int, int], object], queries: int, batch: int, repeats: int) -> float:
    """Seconds of a query. `ask(a, b)` answers the queries from a to before b in one call."""
    starts = range(0, queries, batch)
    best = [best_of(lambda a=a: ask(a, min(a + batch, queries)), repeats) for a in starts]
    return sum(best) / queries


def measure(name: str, texts: list[str], questions: list[str]) -> tuple[list[Row], dict[str, float]]:
    encoder = BM25()
    tokens = [encoder.tokenize(text) for text in texts]
    vocabulary = {term: number for number, term in enumerate(sorted(set(chain.from_iterable(tokens))))}
    numbered: Numbered = ([[vocabulary[token] for token in row] for row in tokens], vocabulary)
    words = [row for row in map(encoder.tokenize, questions) if any(word in vocabulary for word in row)]
    queries = [SparseQuery(tuple(n), np.fromiter(n.values(), np.float32, len(n))) for n in map(Counter, words)]

    peer, index, okapi = build_bm25s(numbered), Index(count(numbered), encoder), BM25Okapi(tokens)

    def ask_peer(some: list[list[str]], threads: int) -> object:
        return peer.retrieve(some, k=K, n_threads=0 if threads == 1 else threads, show_progress=False)

    def ask_okapi(query: list[str]) -> None:
        scores = okapi.get_scores(query)
        best = np.argpartition(-scores, K)[:K]
        best[np.argsort(-scores[best])]

    found = ask_peer(words, 1)
    same = same_hits(index.search(queries, 1), found.documents, found.scores)
    if same < len(queries):
        raise SystemExit(f"{name}: hybridsearch and bm25s differ on {len(queries) - same} of {len(queries)} queries.")

    n, few = len(queries), words[:20]
    stem = Stemmer.Stemmer("english")
    ask_peer(words, 2)
    index.search(queries, 2)
    seconds = {
        "single query, 1 thread": (
            mean_of_best(lambda a, b: index.search(queries[a:b], 1), n, 1, 50),
            mean_of_best(lambda a, b: ask_peer(words[a:b], 1), n, 1, 50),
            best_of(lambda: [ask_okapi(query) for query in few], 3) / len(few),
        ),
        "batch, per query, 1 thread": (
            mean_of_best(lambda a, b: index.search(queries[a:b], 1), n, BATCH, 100),
            mean_of_best(lambda a, b: ask_peer(words[a:b], 1), n, BATCH, 100),
            None,
        ),
        "batch, per query, 2 threads": (
            mean_of_best(lambda a, b: index.search(queries[a:b], 2), n, BATCH, 100),
            mean_of_best(lambda a, b: ask_peer(words[a:b], 2), n, BATCH, 100),
            None,
        ),
        "build": (
            best_of(lambda: Index(count(numbered), encoder), 5),
            best_of(lambda: build_bm25s(numbered), 5),
            best_of(lambda: BM25Okapi(tokens), 2),
        ),
        "texts to index": (
            best_of(lambda: Index(BM25().encode_documents(texts), encoder), 3),
            best_of(lambda: build_bm25s(bm25s.tokenize(texts, stopwords="en", stemmer=stem, show_progress=False)), 3),
            None,
        ),
    }
    rows = [
        (
            what,
            ours * 1e3,
            theirs * 1e3,
            theirs / ours,
            "" if other is None else other * 1e3,
            "" if other is None else other / ours,
        )
        for what, (ours, theirs, other) in seconds.items()
    ]
    ratio = {what: theirs / ours for what, (ours, theirs, _) in seconds.items()}
    ours, _, other = seconds["single query, 1 thread"]
    return rows, {
        "times_bm25s_single": ratio["single query, 1 thread"],
        "times_bm25s_batch": ratio["batch, per query, 1 thread"],
        "times_bm25s_batch_2_threads": ratio["batch, per query, 2 threads"],
        "times_bm25s_build": ratio["build"],
        "times_bm25s_texts_to_index": ratio["texts to index"],
        "times_rank_bm25": other / ours,
    }


def growth(documents: int) -> dict[str, float]:
    """Milliseconds of a single query with one thread. Texts have 80 words of a Zipf vocabulary of 50,000."""
    rng = np.random.default_rng(0)
    odds = np.cumsum(1 / np.arange(1, 50_001))
    drawn = np.searchsorted(odds / odds[-1], rng.random((documents + 200, 80)))
    numbered: Numbered = (drawn[:documents].tolist(), {f"w{number}": number for number in range(50_000)})
    asked = [[f"w{number}" for number in row] for row in drawn[documents:, :6].tolist()]
    queries = [SparseQuery(tuple(n), np.fromiter(n.values(), np.float32, len(n))) for n in map(Counter, asked)]
    peer, index = build_bm25s(numbered), Index(count(numbered), BM25())
    peer.retrieve(asked, k=K, n_threads=0, show_progress=False)
    ours = best_of(lambda: [index.search([query], 1) for query in queries], 5) / len(queries)
    theirs = best_of(lambda: [peer.retrieve([a], k=K, n_threads=0, show_progress=False) for a in asked], 5) / len(
        queries
    )
    return {"documents": documents, "ours_ms": ours * 1e3, "bm25s_ms": theirs * 1e3, "times_bm25s": theirs / ours}


def main() -> None:
    options = arguments(__doc__)
    warm_up()
    counting.warm_up()
    claims = read_qrels(data_folder() / "scifact/qrels/test.tsv")
    pairs = read_jsonl("medquad/pairs.jsonl")
    collections = {
        "SciFact": (
            [f"{line['title']} {line['text']}" for line in read_jsonl("scifact/corpus.jsonl")],
            [line["text"] for line in read_jsonl("scifact/queries.jsonl") if line["_id"] in claims],
        ),
        "MedQuAD": ([pair["answer"] for pair in pairs], [pair["question"] for pair in pairs[:: len(pairs) // 300]]),
    }
    results = {}
    for name, (texts, questions) in collections.items():
        rows, results[name] = measure(name, texts, questions)
        table(
            f"BM25 on {name}: {len(texts):,} documents, {len(questions)} queries; milliseconds, best of several runs",
            ["", "hybridsearch", "bm25s", "times faster", "rank-bm25", "times faster"],
            rows,
            note="All got the same tokens. hybridsearch and bm25s found the same documents on every query.",
        )
    grown = [growth(size) for size in [10_000, 100_000] + [1_000_000] * options.full]
    table(
        "Milliseconds of a single query by number of documents: generated texts, one thread",
        ["documents", "hybridsearch", "bm25s", "times faster"],
        [(f"{row['documents']:,}", *list(row.values())[1:]) for row in grown],
    )
    worst = {key: min(result[key] for result in results.values()) for key in results["SciFact"]}
    finish(options, {**worst, "collections": results, "growth": grown})


if __name__ == "__main__":
    main()
