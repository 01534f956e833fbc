"""Measure the peak memory of indexing one million generated documents from JSONL with BM25, on the command line.

    python benchmarks/memory.py [--documents N] [--into opensearch://localhost:9200/million] [--json]

The documents are first written to a temporary folder (about 500 MB). The result is the maximal resident set size of the
indexing process, as the operating system counts it. With `--into` (a new index) it is the size of the client.

Then this process opens the index in the folder, with and without comparing checksums, asks a query, adds 1,000
documents, and changes one. Each upsert is on disk when it returns.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import arguments, console, finish, table

import hybridsearch as hs


def write_corpus(path: Path, documents: int) -> None:
    """Write texts of 40 to 120 words from a Zipf vocabulary of 200,000 words."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(200_000)])
    odds = 1 / np.arange(1, len(words) + 1)
    odds = np.cumsum(odds / odds.sum())
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, documents, 10_000):
            lengths = rng.integers(40, 121, min(10_000, documents - start))
            drawn = words[np.searchsorted(odds, rng.random(int(lengths.sum())))]
            ends = np.cumsum(lengths)
            for i, (length, end) in enumerate(zip(lengths, ends, strict=True), start):
                file.write(
                    json.dumps({"_id": f"d{i}", "text": " ".join(drawn[end - length : end]), "year": i % 50}) + "\n"
                )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def changes(index: str) -> dict[str, float]:
    """Seconds of opening the index, and of small changes to it."""
    new = [hs.Document(f"new{i}", f"w{i} w7 w{2 * i} an added document") for i in range(1000)]
    changed = hs.Document("d7", "w7 w11 a changed document")
    hs.open(index).close()
    started = time.perf_counter()
    hs.open(index).close()
    times = [time.perf_counter()]
    search = hs.open(index, backend_options={"verify": False})
    for step in (
        lambda: None,
        lambda: search.search("w7 w11"),
        lambda: search.upsert(new),
        lambda: search.upsert(changed),
    ):
        step()
        times.append(time.perf_counter())
    assert search.search("w11 changed", 1).ids == ["d7"]
    search.close()
    names = ("open_and_verify_s", "open_s", "first_query_s", "add_1000_s", "change_one_s")
    return {name: b - a for name, a, b in zip(names, [started, *times], times, strict=False)}


def main() -> None:
    options = arguments(
        __doc__,
        documents={"type": int, "default": 1_000_000},
        into={"metavar": "URL", "help": "URL of a new index on an engine. Default: a folder"},
    )
    with tempfile.TemporaryDirectory() as folder:
        corpus, index = Path(folder, "corpus.jsonl"), options.into or str(Path(folder, "index"))
        with console.status("writing the corpus"):
            write_corpus(corpus, options.documents)
        size = corpus.stat().st_size
        command = [sys.executable, "-m", "hybridsearch", "index", str(corpus), "--index", index, "--json"]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        indexed = json.loads(done.stdout)["indexed"]
        if indexed != options.documents:
            raise SystemExit(f"{indexed} documents were indexed, not {options.documents}: {done.stderr}")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        with hs.open(index) as search:
            assert search.count() == options.documents
            stored = search.backend.describe()["bytes"] if options.into else _size(Path(index))
        changed = {} if options.into else changes(index)
    found = {
        "documents": options.documents,
        "peak_gib": peak / 2**30,
        "seconds": seconds,
        "documents_per_second": options.documents / seconds,
        "corpus_gib": size / 2**30,
        "index_gib": stored / 2**30,
        **changed,
    }
    table(
        "Indexing JSONL with BM25, and changing the index",
        ["what", "value"],
        [[name, value] for name, value in found.items()],
    )
    finish(options, found)


if __name__ == "__main__":
    main()
