"""Indexes that comparisons build in their work folder and use again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.search import HybridSearch


@contextmanager
def kept_index(
    retrievers: Mapping[str, Encoder],
    corpus: Iterable[Document],
    folder: str | Path,
    *,
    candidates: int = 100,
    backend_options: Mapping[str, Any] | None = None,
) -> Iterator[HybridSearch]:
    """The index of `corpus` with `retrievers` in `folder`. It is built if it is missing or not complete.

    The index is named `index-ASKED-MADE`. ASKED is a digest of the retrievers as they are given. MADE is a digest of
    the documents and of the models' content. An index with the same ASKED and another MADE was made of documents or
    models that have changed. It is removed when the new index is complete.

    Args:
        retrievers: Encoders by retriever name.
        corpus: Documents.
        folder: Folder in which the index is kept.
        candidates: Number of documents that are read from each retriever.
        backend_options: Keyword arguments of the backend.
    """
    asked = _digest([[name, repr(encoder)] for name, encoder in retrievers.items()], backend_options)
    made = _digest(
        [encoder.fingerprint().digest for encoder in retrievers.values()], *(document.to_dict() for document in corpus)
    )
    place = Path(folder) / f"index-{asked}-{made}"
    with HybridSearch(retrievers, place, candidates=candidates, backend_options=backend_options) as search:
        search.index(corpus)
        for old in place.parent.glob(f"index-{asked}-*"):
            if old != place:
                shutil.rmtree(old, ignore_errors=True)
        yield search


def _digest(*parts: Any) -> str:
    hashed = hashlib.blake2b(digest_size=6)
    for part in parts:
        hashed.update(json.dumps(part, default=str, sort_keys=True).encode())
    return hashed.hexdigest()
