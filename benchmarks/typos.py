"""Misspelt queries: BM25, character n-grams (`hybridsearch.CharNGrams`) and both together, on SciFact and Cranfield.

A share of the words of each query is misspelt, with a fixed seed: each gets one edit, and longer words one or two. An
edit replaces, removes, adds or swaps a letter. Words of at most three letters stay. `--sizes` compares the sizes of
n-grams. The tables have nDCG@10, the size of the index and the time to make it.
"""

from __future__ import annotations

import random
import string
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from _common import arguments, best_of, data_folder, finish, table

import hybridsearch as hs
from hybridsearch.encoders import Encoder
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.evaluation.measures import score_rankings
from hybridsearch.fusion import RRF, Fusion, ScoreFusion
from hybridsearch.ranking import Ranking

SHARES = (0.0, 0.3, 0.6)
DEPTH = 100
FUSIONS: dict[str, Fusion] = {
    "RRF": RRF(),
    "min-max": ScoreFusion("minmax"),
    "RRF, chars at .3": RRF(weights={"bm25": 1, "chars": 0.3}),
    "min-max, chars at .3": ScoreFusion("minmax", weights={"bm25": 1, "chars": 0.3}),
}
Run = dict[str, Ranking]


def misspell(text: str, share: float, seed: str) -> str:
    """Misspell about this share of the words of a text."""
    rng = random.Random(seed)
    words = text.split()
    return " ".join(
        _edited(word, rng) if len(word) > 3 and word.isalpha() and rng.random() < share else word for word in words
    )


def _edited(word: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 2)) if len(word) > 7 else 1):
        at, kind, letter = rng.randrange(len(word)), rng.randrange(4), rng.choice(string.ascii_lowercase)
        if kind == 0:
            word = word[:at] + letter + word[at + 1 :]
        elif kind == 1:
            word = word[:at] + word[at + 1 :]
        elif kind == 2:
            word = word[:at] + letter + word[at:]
        else:
            word = word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    return word


class Measured:
    """The rankings of one encoder for all shares of misspelt words, with the cost of its index."""

    def __init__(self, encoder: Encoder, dataset: Dataset, queries: Mapping[float, Mapping[str, str]]) -> None:
        with tempfile.TemporaryDirectory() as folder, hs.HybridSearch({"one": encoder}, folder) as search:
            before = time.perf_counter()
            search.index(dataset.corpus)
            self.seconds = time.perf_counter() - before
            self.megabytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
            self.runs = {share: self._rank(search, asked) for share, asked in queries.items()}
            texts = list(queries[0.0].values())
            self.milliseconds = best_of(lambda: [search.search(text) for text in texts], 3) / len(texts) * 1e3

    def _rank(self, search: hs.HybridSearch, queries: Mapping[str, str]) -> Run:
        found = search.search_many(list(queries.values()), DEPTH, fusion=ScoreFusion("none"))
        scores = [[(hit.id, hit.score) for hit in results] for results in found]
        return {id: Ranking.from_scores(pairs) for id, pairs in zip(queries, scores, strict=True)}


def ndcg(run: Run, dataset: Dataset) -> float:
    values = score_rankings({id: ranking.top(10) for id, ranking in run.items()}, dataset.qrels, "nDCG@10")
    return sum(values["nDCG@10"].values()) / len(dataset.qrels)


def together(fusion: Fusion, bm25: Measured, chars: Measured, share: float) -> Run:
    return {
        id: fusion.fuse({"bm25": ranking, "chars": chars.runs[share][id]}) for id, ranking in bm25.runs[share].items()
    }


def measure(name: str, dataset: Dataset, encoders: Mapping[str, Encoder]) -> dict[str, dict[str, float]]:
    queries = {
        share: {id: misspell(dataset.queries[id], share, f"{id} {share}") for id in dataset.qrels} for share in SHARES
    }
    bm25 = Measured(hs.BM25(), dataset, queries)
    results: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []

    def add(label: str, runs: Mapping[float, Run], cost: Measured | None = None) -> None:
        values = {f"{share:.0%}": ndcg(run, dataset) for share, run in runs.items()}
        costs = [cost.megabytes, cost.seconds, cost.milliseconds] if cost else ["", "", ""]
        rows.append([label, *(f"{value:.4f}" for value in values.values()), *costs])
        results[label] = values

    add("bm25", bm25.runs, bm25)
    for label, encoder in encoders.items():
        chars = Measured(encoder, dataset, queries)
        add(label, chars.runs, chars)
        for of_fusion, fusion in FUSIONS.items():
            runs = {share: together(fusion, bm25, chars, share) for share in SHARES}
            add(f"  bm25 + {label}, {of_fusion}", runs)
    columns = ["system", *(f"{share:.0%} misspelt" for share in SHARES), "index, MB", "index, s", "query, ms"]
    table(f"{name}: nDCG@10 of {len(dataset.qrels)} queries, by the share of misspelt words", columns, rows)
    return results


def main() -> None:
    options = arguments(__doc__, sizes={"action": "store_true", "help": "compare the sizes of n-grams, and k1"})
    encoders: dict[str, Encoder] = {"chars": hs.CharNGrams()}
    if options.sizes:
        encoders |= {f"n={n}": hs.CharNGrams(n) for n in (2, 3, 5)}
        encoders |= {f"n=4, k1={k1}": hs.CharNGrams(k1=k1) for k1 in (1.2, 3.0)}
    datasets = {"SciFact": "scifact", "Cranfield": "cranfield"}
    results = {
        name: measure(name, load_dataset(str(data_folder() / folder)), encoders) for name, folder in datasets.items()
    }
    finish(options, results)


if __name__ == "__main__":
    main()
