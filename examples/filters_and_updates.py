"""Filter by metadata, change documents, save the index, and open it again. It needs no model.

Run it: `python examples/filters_and_updates.py`
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import hybridsearch as hs

search = hs.HybridSearch({"bm25": hs.BM25()})
search.index(
    [
        hs.Document("rfc793", "Transmission control protocol.", metadata={"year": 1981, "layer": "transport"}),
        hs.Document("rfc1945", "Hypertext transfer protocol 1.0.", metadata={"year": 1996, "layer": "application"}),
        hs.Document("rfc9000", "QUIC: a transport protocol over UDP.", metadata={"year": 2021, "layer": "transport"}),
        {"id": "rfc9114", "text": "HTTP/3: the hypertext transfer protocol over QUIC.", "metadata": {"year": 2022}},
    ]
)

print(search.search("transport protocol", filter={"year": {"$gte": 2000}, "layer": "transport"}))
early_or_bare = {"$or": [{"year": {"$lt": 1990}}, {"layer": {"$exists": False}}]}
print(search.count(early_or_bare), "documents are early or have no layer.\n")

search.upsert({"id": "rfc9293", "text": "Transmission control protocol, revised.", "metadata": {"year": 2022}})
search.delete("rfc793")

with tempfile.TemporaryDirectory() as folder:
    place = Path(folder, "rfcs")
    search.save(place)
    with hs.open(place) as again:
        print(again.search("transmission control"))
