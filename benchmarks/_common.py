"""Code that the benchmark scripts share: options, the machine, repeated measurements, tables, the JSON line at the end.

A script reads `options = arguments(__doc__)`, measures with `best_of` and prints with `table`. It ends with
`finish(options, {...})`, which prints one JSON object as the last line if `--json` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hybridsearch.tables import UNLIMITED, Grid

console = Console(highlight=False, width=None if sys.stdout.isatty() else UNLIMITED)


def arguments(description: str, **extra: Mapping[str, Any]) -> argparse.Namespace:
    """Parse `--full`, `--json` and the `extra` options: `arguments(__doc__, queries={"type": int, "default": 200})`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="measure also the sizes that take longer than five minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    return parser.parse_args()


def data_folder() -> Path:
    """The folder of real collections, from HYBRIDSEARCH_DATA or ../shared/data. Without it the script ends."""
    folder = Path(os.environ.get("HYBRIDSEARCH_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"There is no folder {folder}: set HYBRIDSEARCH_DATA to a folder of real collections.")
    return folder


def read_jsonl(name: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines in `data_folder()`, such as `read_jsonl("scifact/corpus.jsonl")`."""
    with (data_folder() / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rank_in_loop(model: Any, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
    """The scores of the texts of each query by `CrossEncoder.rank`, in a loop over the queries."""
    scores = []
    for query, of_query in zip(queries, texts, strict=True):
        ranked = model.rank(query, list(of_query), show_progress_bar=False)
        by_place = {hit["corpus_id"]: hit["score"] for hit in ranked}
        scores.append(np.array([by_place[place] for place in range(len(of_query))]))
    return scores


def best_of(function: Callable[[], object], repeats: int = 5, *, seconds: float = 10.0) -> float:
    """The shortest time of `repeats` calls of `function()`, in seconds. It stops early after `seconds`.

    The shortest time counts, because other programs on the machine can only add time.
    """
    best, deadline = float("inf"), time.perf_counter() + seconds
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > deadline:
            break
    return best


def read_bandwidth(threads: int = 1, megabytes: int = 512) -> float:
    """Bytes that `threads` threads read in a second from an array larger than the caches (numpy sum of int64)."""
    numbers = np.arange(megabytes * 2**17, dtype=np.int64)  # all different, because a host can share equal pages
    parts = np.array_split(numbers, threads)
    with ThreadPoolExecutor(threads) as pool:
        return numbers.nbytes / best_of(lambda: list(pool.map(np.sum, parts)), 7)


def machine() -> dict[str, Any]:
    """The machine and the versions on which the results depend."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
    """Print a table. Numbers have three significant digits."""
    console.print(Grid(title, columns, [[_cell(value).split("\n") for value in row] for row in rows]))
    if note:
        console.print(note)


def finish(options: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Print the machine. With `--json` print the results and the machine as a JSON object on the last line."""
    facts = machine()
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim")
    if options.json:
        print(json.dumps({**results, "machine": facts}))


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
