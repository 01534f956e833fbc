"""Indexes that comparisons build in their work folder, and find again."""

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
    """The index of `corpus` by `retrievers` in `folder`: built, or finished, or found complete.

    It is named `index-ASKED-MADE`: a digest of the retrievers as they are given, and one of the documents and the
    models' content. One with the same first part and another second one was made of a corpus or model that has
    changed since; it is removed once its replacement is complete.
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
