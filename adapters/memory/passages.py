"""Ranks documents by their best passage, from searches that rank passages.

Passages are ordered by score, then by the id of their document, then by their place in the document. So the documents
in the order of their first passage are the ranking of the documents, with all ties. `best_documents` asks for several
passages for each document that it needs. If they belong to too few documents, it asks again, without the passages of
the documents that it has. So a document of any number of passages cannot crowd others out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory.segment import Mask, Segment
from hybridsearch.documents import Document
from hybridsearch.ranking import PassageScore
from hybridsearch.vectors import PassageSpans

Hits: TypeAlias = tuple[NDArray[np.int32], NDArray[Any]]
"""Rows and scores, in descending order of score."""

Search: TypeAlias = Callable[[int, Mask | None], Hits]
"""A search for a number of passages among those in a mask. None allows all passages."""

WIDTH = 3
"""The number of passages that are asked for at first, for each document that is needed."""


def best_documents(search: Search, segment: Segment, allowed: Mask | None, k: int, first: Hits | None = None) -> Hits:
    """The best `k` documents of a segment by their best passage: their rows and scores.

    Args:
        search: A search that finds passages of the segment.
        segment: Segment with passages.
        allowed: Mask of the passages that may be hits. None allows all passages.
        k: Number of documents.
        first: Answer of `search(WIDTH * k, allowed)`, if it is known already.
    """
    asked, needed = WIDTH * k, k
    found: list[Hits] = []
    while True:
        rows, scores = search(asked, allowed) if first is None else first
        owners = segment.owners[rows]
        places = np.sort(np.unique(owners, return_index=True)[1])[:needed]
        found.append((owners[places], scores[places]))
        needed -= len(places)
        if needed == 0 or len(rows) < min(asked, len(segment.owners)):
            break
        allowed = np.ones(len(segment.owners), dtype=np.bool_) if allowed is None else allowed.copy()
        allowed[spans_of(segment).rows(owners[places])] = False
        asked, first = 2 * asked, None
    return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])


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
    rows = passages.rows(documents)
    owners = np.repeat(np.arange(len(documents)), passages.counts[documents])
    scores = score(rows)
    order = np.lexsort((-scores, owners))
    places = np.arange(len(order)) - np.searchsorted(owners, owners)  # place of each passage within its document
    order = order[(places < most) & (scores[order] > -np.inf)]
    best: list[list[PassageScore]] = [[] for _ in documents]
    found = zip(owners[order].tolist(), passages.spans[rows[order]].tolist(), scores[order].tolist(), strict=True)
    for owner, (start, end), value in found:
        best[owner].append(PassageScore(start, end, value))
    return best


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
