"""Rerank the best candidates with a cross-encoder, and see which documents it moved.

Run it: `python examples/rerank.py [RERANKER]`
"""

from __future__ import annotations

import sys

import hybridsearch as hs

model = sys.argv[1] if len(sys.argv) > 1 else "cross-encoder/ms-marco-MiniLM-L6-v2"
search = hs.HybridSearch({"bm25": hs.BM25()}, reranker=hs.CrossEncoderReranker(model))
search.index(
    [
        hs.Document("train", "The train to Zurich leaves at nine."),
        hs.Document("leave", "Parents may take leave for nine weeks, and train their deputies before."),
        hs.Document("model", "Models train for nine hours, then leave the cluster."),
        hs.Document("lake", "The lake of Zurich is nine kilometres wide."),
    ]
)
for hit in search.search("when does the train to Zurich leave"):
    print(f"{hit.rank} (was {hit.rank_before_reranking})  {hit.score:8.4f}  {hit.document.text}")

print("\nWithout the reranker, for this call only:")
print(search.search("when does the train to Zurich leave", reranker=None).ids)
