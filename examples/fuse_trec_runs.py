"""Merge TREC run files of any search engines, and write the merged run. It needs no model and no index.

Run it: `python examples/fuse_trec_runs.py RUN RUN [RUN ...] > fused.run`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import hybridsearch as hs
from hybridsearch.ranking import EMPTY

SAMPLES = {
    "bm25.run": "q1 Q0 d1 1 12.5 bm25\nq1 Q0 d2 2 11.0 bm25\nq1 Q0 d3 3 7.2 bm25\n",
    "dense.run": "q1 Q0 d2 1 0.81 dense\nq1 Q0 d4 2 0.79 dense\nq2 Q0 d1 1 0.66 dense\n",
}

with tempfile.TemporaryDirectory() as folder:
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths:
        print("No run files are given, so two small ones are merged.", file=sys.stderr)
        for name, lines in SAMPLES.items():
            paths.append(Path(folder, name))
            paths[-1].write_text(lines, encoding="utf-8")
    runs = {path.stem: hs.Ranking.from_trec(path) for path in paths}
    queries = dict.fromkeys(query for run in runs.values() for query in run)
    fusion = hs.RRF(k=60)
    fused = {query: fusion.fuse({name: run.get(query, EMPTY) for name, run in runs.items()}) for query in queries}
    output = Path(folder, "fused.run")
    hs.Ranking.to_trec(fused, output, tag="rrf")
    print(output.read_text(encoding="utf-8"), end="")
