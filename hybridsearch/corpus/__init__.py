"""The encoded-corpus store: documents with their vectors, encoded once, in Parquet files that every tool reads.

    store = CorpusStore.create("corpus", schema)
    store.append(batch)                      # as often as you like; each call is durable when it returns
    for batch in CorpusStore.open("corpus").batches():
        backend.upsert(batch)                # any backend

The memory backend keeps its index in the same folders, with its search arrays beside each part.
"""

from __future__ import annotations

from hybridsearch.corpus.store import CorpusStore, Part, StoredFile

__all__ = ["CorpusStore", "Part", "StoredFile"]
