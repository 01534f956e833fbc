"""Compare the exact top 10 of learned sparse vectors with scipy, at 10,000 to 500,000 documents (--full: a million).

The queries are SPLADE-v3 vectors of MS MARCO questions that are held out. Each document is a weighted sum of six other
vectors (about 140 terms). So terms occur together, and are common or rare, as in real vectors.

scipy computes `Q @ D.T` row by row, with `D.T` in CSR form, then argpartition over the scores that are not 0. It uses
one thread, which is all that it can. Ours answers one query in a call, with one and with two threads. "batch" answers
all queries in one call with two threads, where no query waits for a thread to wake up. Both must find the same scores.
"bandwidth" compares our speed with the memory: the postings of the query's terms (3 bytes each), divided by the time of
one query on two threads, as a share of what two threads can read from memory in the same run.

The last table is about the public API. It opens a saved index of
499,000 documents and adds 1,000 documents. The second query of a term makes its codes.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import arguments, best_of, data_folder, finish, read_bandwidth, table
from scipy.sparse import csr_array, vstack

import hybridsearch as hs
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.adapters.memory.postings import Postings
from hybridsearch.adapters.memory.sparse import SparseSlice, search
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

K = 10
MIXED = 6
"""Number of queries that make a document."""


def read_queries(path: Path) -> tuple[csr_array, Vocabulary]:
    """The SPLADE vectors of the file. A line repeats each token as often as its weight, times 100."""
    columns: dict[str, int] = {}
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            counts = Counter(line.rstrip("\n").split("\t")[1].split(" "))
            indices += [columns.setdefault(term, len(columns)) for term in counts]
            values += [count / 100 for count in counts.values()]
            starts.append(len(indices))
    matrix = csr_array((np.array(values, np.float32), indices, starts), shape=(len(starts) - 1, len(columns)))
    return matrix, Vocabulary(list(columns))


def make_documents(source: csr_array, documents: int, seed: int = 0, mixed: int = MIXED) -> csr_array:
    """Random mixtures, each of `mixed` rows of `source`."""
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, documents, 100_000):
        rows = min(100_000, documents - start)
        chosen = rng.integers(0, source.shape[0], rows * mixed)
        strength = rng.uniform(0.3, 1.2, rows * mixed).astype(np.float32)
        mixture = csr_array((strength, chosen, np.arange(rows + 1) * mixed), shape=(rows, source.shape[0]))
        part = csr_array(mixture @ source)
        part.data *= rng.uniform(0.7, 1.3, part.nnz).astype(np.float32)
        part.sort_indices()
        parts.append(part)
    return csr_array(vstack(parts, format="csr"))


def scipy_top(queries: csr_array, row: int, transposed: csr_array) -> tuple[np.ndarray, np.ndarray]:
    scores = queries[[row]] @ transposed
    best = np.argpartition(scores.data, -K)[-K:] if scores.nnz > K else np.arange(scores.nnz)
    best = best[np.argsort(-scores.data[best])]
    return scores.indices[best], scores.data[best]


def measure(matrix: csr_array, vocabulary: Vocabulary, asked: csr_array, bandwidth: float) -> dict[str, float]:
    """One row of the first table: milliseconds per query and more."""
    documents, number = matrix.shape[0], asked.shape[0]
    vectors = SparseVectors(matrix, vocabulary)
    start = time.perf_counter()
    postings = Postings.from_vectors(vectors)
    build = time.perf_counter() - start
    slices = [SparseSlice(postings, np.arange(documents, dtype=np.int32))]
    queries = [
        SparseQuery(tuple(vocabulary.terms[column] for column in asked.indices[a:b].tolist()), asked.data[a:b])
        for a, b in zip(asked.indptr[:-1].tolist(), asked.indptr[1:].tolist(), strict=True)
    ]

    transposed = csr_array(matrix.T.tocsr())
    peers = [scipy_top(asked, row, transposed) for row in range(number)]
    for ((_, scores),), (_, expected) in zip(search(slices, queries, K), peers, strict=True):
        if not np.allclose(scores, expected, rtol=1e-4):
            raise SystemExit(f"hybridsearch and scipy differ: {scores} against {expected}.")

    def loop(threads: int) -> float:
        return best_of(lambda: [search(slices, [query], K, threads=threads) for query in queries], 7) / number

    theirs = best_of(lambda: [scipy_top(asked, row, transposed) for row in range(number)], 3, seconds=20) / number
    one, two, batch = loop(1), loop(2), best_of(lambda: search(slices, queries, K, threads=2), 7) / number
    counts = np.diff(matrix.tocsc().indptr)
    read = 3.0 * float(counts[asked.indices].sum()) / number
    return {
        "documents": documents,
        "terms_per_document": matrix.nnz / documents,
        "postings_per_query": read / 3,
        "build_s": build,
        "scipy_ms": theirs * 1e3,
        "one_thread_ms": one * 1e3,
        "two_threads_ms": two * 1e3,
        "batch_ms": batch * 1e3,
        "times_scipy_one_thread": theirs / one,
        "times_scipy": theirs / two,
        "times_scipy_batch": theirs / batch,
        "bandwidth_fraction": read / two / bandwidth,
        "bandwidth_fraction_batch": read / batch / bandwidth,
    }


class Precomputed:
    """An encoder whose texts are row numbers of a matrix: encoding costs nothing, so that the index is measured."""

    def __init__(self, matrix: csr_array, vocabulary: Vocabulary) -> None:
        self._matrix = matrix
        self._vocabulary = vocabulary

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        return SparseVectors(csr_array(self._matrix[[int(text) for text in texts]]), self._vocabulary)

    def encode_queries(self, texts: Sequence[str]) -> list[SparseQuery]:
        rows = [self._matrix[[int(text)]] for text in texts]
        return [SparseQuery(tuple(self._vocabulary.terms[c] for c in row.indices.tolist()), row.data) for row in rows]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("precomputed", {"documents": self._matrix.shape[0]})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("sparse", self.fingerprint())


def measure_index(matrix: csr_array, vocabulary: Vocabulary, folder: Path) -> dict[str, float]:
    """Seconds to build, save, open and extend an index through the public API; all but 1,000 documents are in first."""
    first = matrix.shape[0] - 1_000
    documents = [hs.Document(str(row), str(row)) for row in range(matrix.shape[0])]
    retrievers = {"splade": Precomputed(matrix, vocabulary)}

    def timed(action: object) -> tuple[float, object]:
        start = time.perf_counter()
        value = action()  # type: ignore[operator]
        return time.perf_counter() - start, value

    built = hs.HybridSearch(retrievers, backend=str(folder / "index"))
    index_s, _ = timed(lambda: built.index(documents[:first]))
    built.close()
    open_s, opened = timed(lambda: hs.open(str(folder / "index"), retrievers=retrievers))
    query_s, _ = timed(lambda: opened.search("0", top_k=K))
    again_s, _ = timed(lambda: opened.search("0", top_k=K))
    add_s, _ = timed(lambda: opened.upsert(documents[first:]))
    hits = opened.search(str(first), top_k=K)
    if hits[0].id != str(first):
        raise SystemExit(f"A document that was added is not found: the best is {hits[0].id}.")
    opened.close()
    return {
        "index_s": index_s,
        "open_s": open_s,
        "first_query_s": query_s,
        "second_query_s": again_s,
        "add_1000_s": add_s,
    }


def main() -> None:
    options = arguments(__doc__, queries={"type": int, "default": 200, "help": "number of queries"})
    warm_up()
    source, vocabulary = read_queries(data_folder() / "splade_v3_queries" / "msmarco-dev.tsv.gz")
    held_out = source.shape[0] * 4 // 5
    asked = csr_array(source[held_out : held_out + options.queries])
    sizes = [10_000, 50_000, 100_000, 500_000] + [1_000_000] * options.full
    bandwidth = {threads: read_bandwidth(threads) for threads in (1, 2)}
    matrix = make_documents(csr_array(source[:held_out]), sizes[-1])
    measured = {size: measure(csr_array(matrix[:size]), vocabulary, asked, bandwidth[2]) for size in sizes}
    table(
        f"Milliseconds per query for the exact top {K} of sparse vectors, best of several runs",
        [
            "documents",
            "scipy",
            "1 thread",
            "× scipy",
            "2 threads",
            "× scipy",
            "batch",
            "× scipy",
            "bandwidth",
            "build, s",
        ],
        [
            (
                f"{size:,}",
                *(row[key] for key in ("scipy_ms", "one_thread_ms", "times_scipy_one_thread")),
                *(row[key] for key in ("two_threads_ms", "times_scipy")),
                *(row[key] for key in ("batch_ms", "times_scipy_batch")),
                f"{row['bandwidth_fraction']:.0%}",
                row["build_s"],
            )
            for size, row in measured.items()
        ],
        note=f"Memory is read at {bandwidth[1] / 1e9:.1f} GB/s by one thread, {bandwidth[2] / 1e9:.1f} by two.",
    )
    with tempfile.TemporaryDirectory() as folder:
        index = measure_index(csr_array(matrix[:500_000]), vocabulary, Path(folder))
    table(
        "Seconds for an index of 499,000 documents through the public API",
        ["", "s"],
        [
            ("index and save", index["index_s"]),
            ("open", index["open_s"]),
            ("first query after opening", index["first_query_s"]),
            ("the same query again", index["second_query_s"]),
            ("add 1,000 documents", index["add_1000_s"]),
        ],
    )
    at_goal = measured[500_000]
    finish(
        options,
        {
            "times_scipy": at_goal["times_scipy"],
            "times_scipy_batch": at_goal["times_scipy_batch"],
            "bandwidth_fraction": at_goal["bandwidth_fraction"],
            "bandwidth_fraction_batch": at_goal["bandwidth_fraction_batch"],
            **index,
            "read_bandwidth": bandwidth,
            "sizes": list(measured.values()),
        },
    )


if __name__ == "__main__":
    main()
