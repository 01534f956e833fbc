"""Compare one BM25 query through `HybridSearch.search` with one query through tantivy, documents included.

    python benchmarks/query_path.py [--documents N] [--rounds N] [--old PYTHON] [--json]

Both libraries answer the test queries of SciFact, one at a time in one thread, and give the first 10 documents with
title and text. The collections are the abstracts of SciFact, and generated documents of 190 words, whose sentences are
drawn from the answers of MedQuAD and the abstracts of SciFact. tantivy is measured with its English analyser
("en_stem"), which keeps stop words, and with the same stop words as `BM25`. Its index has one segment.

With `--old`, the Python of another environment also measures the hybridsearch that is installed there: these queries,
hybrid queries by BM25 and given vectors of 384 dimensions with RRF, and indexing.

The libraries take turns. A round is the median of all queries. The table has the median of the rounds and their spread.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence

import numpy as np
from _common import arguments, data_folder, finish, read_jsonl, table
from hybrid_latency import DIMENSIONS, Precomputed

import hybridsearch as hs
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.encoders import counting
from hybridsearch.encoders.tokens import stop_words_of
from hybridsearch.evaluation.measures import read_qrels

K = 10
WORDS = 190
Ask = Callable[[str], object]
indexing: dict[str, float] = {}
"""Seconds that a system took to index the last collection, by its name."""


def scifact() -> tuple[list[hs.Document], list[str]]:
    judged = read_qrels(data_folder() / "scifact/qrels/test.tsv")
    documents = [hs.Document(one["_id"], one["text"], one["title"]) for one in read_jsonl("scifact/corpus.jsonl")]
    return documents, [one["text"] for one in read_jsonl("scifact/queries.jsonl") if one["_id"] in judged]


def generate(count: int) -> list[hs.Document]:
    """Documents of about 190 words, made of sentences in random order."""
    answers = [pair["answer"] for pair in read_jsonl("medquad/pairs.jsonl")]
    texts = answers + [document.text for document in scifact()[0]]
    sentences = [one for text in texts for one in re.split(r"(?<=[.!?])\s+", text) if 5 <= one.count(" ") < 60]
    words = np.array([sentence.count(" ") + 1 for sentence in sentences])
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(sentences), size=int(count * WORDS / words.mean()))
    parts = np.split(drawn, np.searchsorted(np.cumsum(words[drawn]), WORDS * np.arange(1, count)))
    return [hs.Document(f"d{n}", " ".join([sentences[i] for i in part.tolist()])) for n, part in enumerate(parts)]


def ours(documents: Sequence[hs.Document], vectors: dict[str, np.ndarray] | None = None) -> Ask:
    retrievers = {"bm25": hs.BM25()} | ({} if vectors is None else {"dense": Precomputed(vectors)})
    search = hs.HybridSearch(retrievers)
    started = time.perf_counter()
    search.index(documents, show_progress_bar=False)
    indexing["hybridsearch"] = time.perf_counter() - started
    return lambda query: [(hit.score, hit.document.title, hit.document.text) for hit in search.search(query, K)]


def tantivy(documents: Sequence[hs.Document], *, stop_words: bool) -> Ask:
    import tantivy as peer

    schema = peer.SchemaBuilder()
    schema.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    schema.add_text_field("title", stored=True, tokenizer_name="raw", index_option="basic")
    schema.add_text_field("text", stored=True, tokenizer_name="ours" if stop_words else "en_stem", index_option="freq")
    index = peer.Index(schema.build())
    words = peer.Filter.custom_stopword(sorted(stop_words_of("english")))
    analyser = peer.TextAnalyzerBuilder(peer.Tokenizer.simple()).filter(peer.Filter.lowercase()).filter(words)
    index.register_tokenizer("ours", analyser.filter(peer.Filter.stemmer("English")).build())
    started = time.perf_counter()
    writer = index.writer(1_000_000_000, 1)
    for one in documents:
        writer.add_document(peer.Document(id=one.id, title=one.title, text=one.content))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    indexing["tantivy, same stop words" if stop_words else "tantivy"] = time.perf_counter() - started
    searcher = index.searcher()

    def ask(query: str) -> object:
        found = searcher.search(index.parse_query(query, ["text"]), K)
        documents = [(score, searcher.doc(address)) for score, address in found.hits]
        return [(score, document["title"], document["text"]) for score, document in documents]

    return ask


def given_vectors(documents: Sequence[hs.Document], queries: Sequence[str]) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(0).normal(size=(len(documents) + len(queries), DIMENSIONS)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return dict(zip([*(document.content for document in documents), *queries], rows, strict=True))


def in_turns(systems: dict[str, Ask], queries: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each system in each round: the medians of all queries. The first round is a warm-up."""
    found: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds + 1):
        for name, ask in systems.items():
            times = []
            for query in queries:
                started = time.perf_counter()
                ask(query)
                times.append(time.perf_counter() - started)
            found[name].append(statistics.median(times) * 1e3)
    return {name: times[1:] for name, times in found.items()}


def elsewhere(python: str, count: int) -> dict[str, float]:
    """What `alone` measures in another environment."""
    command = [python, __file__, "--alone", "--documents", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def alone(count: int) -> dict[str, float]:
    """Milliseconds of a query over SciFact, and seconds to index the generated documents, by hybridsearch alone."""
    documents, queries = scifact()
    systems = {"BM25": ours(documents), "hybrid": ours(documents, given_vectors(documents, queries))}
    found = {name: statistics.median(times) for name, times in in_turns(systems, queries, 3).items()}
    if count:
        ours(generate(count))
        found["index"] = indexing["hybridsearch"]
    return found


def row(collection: str, system: str, times: Sequence[float], ours: Sequence[float]) -> tuple[str | float, ...]:
    mine, own = statistics.median(ours), statistics.median(times)
    return collection, system, own, f"{min(times):.3f} to {max(times):.3f}", mine / own


def main() -> None:
    whole = {"type": int, "default": 104_000}
    rounds = {"type": int, "default": 7}
    options = arguments(__doc__, documents=whole, rounds=rounds, old={}, alone={"action": "store_true"})
    warm_up()
    getattr(counting, "warm_up", int)()  # versions before have none
    if options.alone:
        print(json.dumps(alone(options.documents)))
        return
    documents, queries = scifact()
    plain = [re.sub(r"\W+", " ", query).lower() for query in queries]  # tantivy reads other characters as operators
    rows, results = [], {}
    collections = {f"SciFact, {len(documents):,}": documents}
    if options.documents:
        collections[f"generated, {options.documents:,}"] = generate(options.documents)
    for name, texts in collections.items():
        systems = {
            "hybridsearch": ours(texts),
            "tantivy": tantivy(texts, stop_words=False),
            "tantivy, same stop words": tantivy(texts, stop_words=True),
        }
        times = in_turns(systems, plain, options.rounds)
        rows += [row(name, system, of, times["hybridsearch"]) for system, of in times.items()]
        results[name] = {"query_ms": times, "index_s": dict(indexing)}
    table(
        f"Milliseconds of one query, first {K} documents included: median and range of {options.rounds} rounds",
        ["documents", "system", "p50", "rounds", "hybridsearch takes, of this"],
        rows,
    )
    indexed = [(name, system, seconds) for name, of in results.items() for system, seconds in of["index_s"].items()]
    table("Seconds to index in RAM, in one run", ["documents", "system", "seconds"], indexed)
    if options.old:
        pairs = [(alone(options.documents), elsewhere(options.old, options.documents)) for _ in range(options.rounds)]
        both = {what: ([new[what] for new, _ in pairs], [old[what] for _, old in pairs]) for what in pairs[0][0]}
        results["versions"] = both
        table(
            f"This version and that of {options.old}: medians and ranges of {options.rounds} rounds",
            ["", "version", "", "rounds", "this takes, of this"],
            [
                row(what, name, side, new)
                for what, (new, old) in both.items()
                for name, side in (("this", new), ("that", old))
            ],
            "BM25 and hybrid: milliseconds of a query over SciFact. index: seconds for the generated documents.",
        )
    finish(options, results)


if __name__ == "__main__":
    main()
