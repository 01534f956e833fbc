"""A program that builds one Seismic index in a separate process: `python build.py FOLDER`.

Seismic holds the interpreter lock while it builds, which takes minutes for many documents. It also prints its progress
to standard output. So `shards` starts this program, and the calling process can go on. The program is started by its
path and does not import the package, because the imports would take longer than building a small index.

FOLDER contains these files. The program adds `index.index.seismic`.

    job.json          {"terms": number of components, "parameters": of SeismicIndex.build_from_dataset}
    rows.npy          int64, the number of each document in the index
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
"""The name of the new file. Seismic adds `.index.seismic`."""

_STEP = 1 << 16
"""The number of documents given to Seismic at a time. It limits the memory for their 64-bit component numbers."""


def classes(terms: int) -> tuple[Any, Any]:
    """The classes of a dataset and an index with this number of components. Up to 65,535, they use 16-bit numbers."""
    if terms <= 65_535:
        return seismic.SeismicDataset, seismic.SeismicIndex
    return seismic.SeismicDatasetLV, seismic.SeismicIndexLV


def build(folder: Path) -> None:
    """Build the index that the files in `folder` describe."""
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
