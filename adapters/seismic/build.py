"""Builds one Seismic index, in a process of its own: `python build.py FOLDER`.

Seismic holds the interpreter lock while it builds, which takes minutes where there are many documents, and it writes
what it does to standard output. So `shards` hands the work to this program, and everything else goes on meanwhile. It
is run by its path, without the package around it, whose imports take longer than many an index.

FOLDER holds, and afterwards also `index.index.seismic`:

    job.json          {"terms": how many components there are, "parameters": of SeismicIndex.build_from_dataset}
    rows.npy          int64, the number under which each document is to be found
    offsets.npy       int64, where each document begins in the next two files, and where the last one ends
    components.bin    int32, ascending within a document
    values.bin        float32
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import seismic  # type: ignore[import-untyped, unused-ignore]

STEM = "index"
"""Of the file that is made; Seismic adds `.index.seismic`."""

_STEP = 1 << 16
"""Documents handed over at a time, which bounds the memory for their 64-bit component numbers."""


def classes(terms: int) -> tuple[Any, Any]:
    """The classes of a dataset and an index with so many components, which are 16-bit numbers where they fit."""
    if terms <= 65_535:
        return seismic.SeismicDataset, seismic.SeismicIndex
    return seismic.SeismicDatasetLV, seismic.SeismicIndexLV


def build(folder: Path) -> None:
    """Make the index that `folder` describes."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    rows, offsets = np.load(folder / "rows.npy"), np.load(folder / "offsets.npy")
    components = np.memmap(folder / "components.bin", np.int32, "r")
    values = np.memmap(folder / "values.bin", np.float32, "r")
    dataset_class, index_class = classes(job["terms"])
    dataset = dataset_class(dim=job["terms"])
    for start in range(0, len(rows), _STEP):
        bounds = offsets[start : start + _STEP + 1]
        first, last = bounds[0], bounds[-1]
        ids = [str(row) for row in rows[start : start + _STEP].tolist()]
        dataset.add_documents_by_id(
            ids, components[first:last].astype(np.int64), np.array(values[first:last]), bounds - first
        )
    index_class.build_from_dataset(dataset, **job["parameters"]).save(str(folder / STEM))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
