"""The best passages of documents, and the documents of passages that a graph of neighbours finds.

The exact searches rank documents by their best passage themselves: see `sparse` and `dense`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory.plain import first_of_each
from hybridsearch.adapters.memory.segment import Mask, Segment
from hybridsearch.ranking import PassageScore
from hybridsearch.vectors import PassageSpans

Value = TypeVar("Value")

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
    passages: PassageSpans, row: int, score: Callable[[NDArray[np.int64]], NDArray[np.float64]], most: int
) -> tuple[PassageScore, ...]:
    """The best passages of a document, best first, and equal scores in their order.

    Args:
        passages: Passages of the segment.
        row: Row of the document.
        score: A function from ascending rows of passages to scores. Minus infinity stands for a passage that is no hit.
        most: Largest number of passages.
    """
    begin, end = passages.offsets[row : row + 2].tolist()
    scores = score(np.arange(begin, end))
    best = np.argsort(-scores, kind="stable")[:most]
    found = zip(passages.spans[begin + best].tolist(), scores[best].tolist(), strict=True)
    return tuple(PassageScore(start, stop, value) for (start, stop), value in found if value > -np.inf)


class Lazy(Mapping[str, Value]):
    """A value for each document of a ranking, made when it is first read. Most documents are not shown.

    The values are those at the time of the search, because segments never change.

    Args:
        ids: Ids of the documents.
        make: A function from the id of a document to its value.
    """

    def __init__(self, ids: Iterable[str], make: Callable[[str], Value]) -> None:
        self._made: dict[str, Value | None] = dict.fromkeys(ids)
        self._make = make

    def __getitem__(self, id: str) -> Value:
        value = self._made[id]
        if value is None:
            value = self._made[id] = self._make(id)
        return value

    def __contains__(self, id: object) -> bool:
        return id in self._made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def spans_of(segment: Segment) -> PassageSpans:
    """The passages of a segment, which must have passages."""
    if segment.passages is None:
        raise TypeError("The segment has no passages.")
    return segment.passages
