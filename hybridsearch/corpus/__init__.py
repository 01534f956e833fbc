"""The store of encoded documents, in Parquet files that many tools can read.

    store = CorpusStore.create("corpus", schema)
    store.append(batch)                      # any number of times, and durable when it returns
    for batch in CorpusStore.open("corpus").batches():
        backend.upsert(batch)                # any backend

The embedded engine keeps an index in the same folder, with its search arrays beside each part.
"""

from __future__ import annotations

from hybridsearch.corpus.files import StoredFile
from hybridsearch.corpus.manifest import Part
from hybridsearch.corpus.store import CorpusStore

__all__ = ["CorpusStore", "Part", "StoredFile"]
