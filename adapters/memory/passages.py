"""The best passages of documents, and the documents of passages that a graph of neighbours finds.

The exact searches rank documents by their best passage themselves: see `sparse` and `dense`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory.plain import first_of_each
from hybridsearch.adapters.memory.segment import Mask, Segment
from hybridsearch.documents import Document
from hybridsearch.ranking import PassageScore
from hybridsearch.vectors import PassageSpans

_WIDTH = 3
"""The number of passages that a graph is asked for at first, for each document that is needed."""


def find_documents(
    search: Callable[[int, Mask | None], NDArray[np.int32]], segment: Segment, allowed: Mask | None, k: int
) -> NDArray[np.int32]:
    """The rows of `k` documents, or of all documents that the search finds, from a search that finds passages.

    If the passages belong to too few documents, the search is asked again, without the passages of the documents that
    were found. So a document of any number of passages cannot crowd others out.

    Args:
        search: A search for a number of passages among those in a mask, best first. None allows all passages.
        segment: Segment with passages.
        allowed: Mask of the passages that may be found. None allows all passages.
        k: Number of documents.
    """
    asked, passages = _WIDTH * k, len(segment.owners)
    found = np.empty(0, dtype=np.int32)
    while True:
        rows = search(asked, allowed)
        owners = segment.owners[rows]
        new = owners[first_of_each(owners)]
        found = np.concatenate([found, new])[:k]
        if len(found) == k or len(rows) < min(asked, passages):
            return found
        allowed = np.ones(passages, dtype=np.bool_) if allowed is None else allowed.copy()
        allowed[spans_of(segment).rows(new)] = False
        asked *= 2


def best_passages(
    passages: PassageSpans,
    documents: Sequence[int],
    score: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    most: int,
) -> list[list[PassageScore]]:
    """The best passages of each document, best first, and equal scores in their order.

    Args:
        passages: Passages of the segment.
        documents: Rows of the documents, ascending.
        score: A function from rows of passages to scores. Minus infinity stands for a passage that is no hit.
        most: Largest number of passages of a document.
    """
    firsts, rows = passages.offsets[documents], passages.rows(documents)
    starts = np.searchsorted(rows, firsts)  # where the passages of each document begin in `rows`
    scores = score(rows)
    owners = np.repeat(np.arange(len(documents)), np.diff(starts, append=len(rows)))
    order = np.lexsort((-scores, owners))
    order = order[(np.arange(len(order)) - starts[owners] < most) & (scores[order] > -np.inf)]
    begins, ends = passages.spans[rows[order]].T.tolist()
    listed = list(map(PassageScore, begins, ends, scores[order].tolist()))
    cuts = np.searchsorted(owners[order], np.arange(len(documents) + 1)).tolist()
    return [listed[begin:end] for begin, end in pairwise(cuts)]


class RankedDocuments(Mapping[str, Document]):
    """The documents of a ranking, as they were at the search: an upsert may replace them before they are read.

    Args:
        places: Segment and row of each document, by id.
    """

    def __init__(self, places: Mapping[str, tuple[Segment, int]]) -> None:
        self._places = places

    def __getitem__(self, id: str) -> Document:
        segment, row = self._places[id]
        return segment.document(row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def spans_of(segment: Segment) -> PassageSpans:
    """The passages of a segment, which must have passages."""
    if segment.passages is None:
        raise TypeError("The segment has no passages.")
    return segment.passages
