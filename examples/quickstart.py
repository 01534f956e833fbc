"""Index a few texts with BM25 and a dense model, search them, and see why the best hit was found.

Run it: `python examples/quickstart.py [MODEL]`
"""

from __future__ import annotations

import sys

import hybridsearch as hs

model = sys.argv[1] if len(sys.argv) > 1 else "sentence-transformers/all-MiniLM-L6-v2"
search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(model)})
search.index(
    [
        hs.Document("butterworth", "Butterworth filters are maximally flat in the pass band."),
        hs.Document("filtfilt", "Running a filter forwards and then backwards over a signal cancels its phase shift."),
        hs.Document("savgol", "Savitzky and Golay smooth noisy data by fitting polynomials to a moving window."),
        hs.Document("dijkstra", "Dijkstra's algorithm finds the cheapest path between two nodes of a graph."),
        hs.Document("huber", "Huber regression fits a line that outliers cannot tilt."),
    ]
)
results = search.search("smooth a noisy signal without delay", top_k=3)
print(results)
print()
print(results[0].explain())
