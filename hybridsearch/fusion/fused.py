"""`Fused` is the fused ranking of one query. It reads the ids and sums the scores of as few documents as it can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.ranking import EMPTY, Ranking, Source, round_score

_MARGIN = 4e-11
"""How far a sum may be below another and still be rounded to the same 12 digits, as a fraction of the largest sum."""


_NO_KEYS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class RetrieverHit:
    """Rank and score that one retriever gave a document.

    Attributes:
        rank: Rank of the document in the retriever's ranking, from 1.
        score: Score that the retriever gave. The scores of different retrievers have different scales.
        contribution: Number that the retriever added to the fused score.
    """

    rank: int
    score: float
    contribution: float


class FusedHit(NamedTuple):
    """A document of a fused ranking.

    Attributes:
        id: Id of the document.
        score: Fused score.
        number: Number of the document in its `Fused`.
    """

    id: str
    score: float
    number: int


class Fused:
    """The fused ranking of one query.

    Args:
        rankings: Rankings by retriever name.
        contributions: By retriever name, one finite number for each document of the ranking.

    Attributes:
        contributions: The contributions that were given.
    """

    def __init__(self, rankings: Mapping[str, Ranking], contributions: Mapping[str, NDArray[np.float64]]) -> None:
        self.contributions = contributions
        self._rankings = [rankings[name] for name in contributions]
        self._values = [own.tolist() for own in contributions.values()]
        self._source: Source | None = None
        self._keys = _NO_KEYS
        self._names: Sequence[str] = ()
        self._number()

    def top(self, count: int | None = None) -> list[FusedHit]:
        """The first hits, best first. Equal scores are ordered by id.

        Args:
            count: Number of hits. None for all.
        """
        if self._places is None:
            near = self._first(self._values[0], count)
            scores = [self._values[0][number] for number in near]
        else:
            near = self._near(count)
            scores = [
                math.fsum([own[place] for own, place in zip(self._values, places, strict=True) if place >= 0])
                for places in self._places[:, near].T.tolist()
            ]
        negated = [-round_score(score) for score in scores]
        found = sorted(zip(negated, self._ids(near), near, strict=True))
        return [FusedHit(id, -score, number) for score, id, number in found[:count]]

    def ranking(self) -> Ranking:
        """All hits as a ranking."""
        hits = self.top()
        scores = np.array([hit.score for hit in hits], dtype=np.float64)
        return Ranking(tuple([hit.id for hit in hits]), scores) if hits else EMPTY

    def parts(self, numbers: Sequence[int]) -> list[dict[str, RetrieverHit]]:
        """For each of some documents, what each retriever that has it in its ranking gave it, by the retriever's name.

        Args:
            numbers: Numbers of the documents.
        """
        found: list[dict[str, RetrieverHit]] = [{} for _ in numbers]
        for row, (name, ranking, values) in enumerate(
            zip(self.contributions, self._rankings, self._values, strict=True)
        ):
            places = numbers if self._places is None else self._places[row, numbers].tolist()
            for parts, place in zip(found, places, strict=True):
                if place >= 0:
                    parts[name] = RetrieverHit(place + 1, ranking.scores.item(place), values[place])
        return found

    def documents(self, hits: Sequence[FusedHit]) -> list[Document] | None:
        """The documents of hits. None if the rankings cannot read them."""
        if self._source is None:
            return None
        return self._source.documents_of(self._keys[[hit.number for hit in hits]], [hit.id for hit in hits])

    def _number(self) -> None:
        """Number the documents of all rankings. The numbers of a single ranking are the places in it."""
        self._places: NDArray[np.int64] | None = None
        located = [ranking.located for ranking in self._rankings]
        first = located[0] if located else None
        keys = [of[1] for of in located if of is not None and first is not None and of[0] is first[0]]
        if first is not None and len(keys) == len(located):
            self._source = first[0]
            if len(keys) == 1:
                self._keys = keys[0]
                return
            self._keys, joined = np.unique(np.concatenate(keys), return_inverse=True)
            numbers = np.split(joined, np.cumsum([len(of) for of in keys])[:-1])
        else:
            index: dict[str, int] = {}
            numbers = [
                np.fromiter((index.setdefault(id, len(index)) for id in ranking.ids), np.int64, len(ranking))
                for ranking in self._rankings
            ]
            self._names = list(index)
        documents = max(len(self._keys), len(self._names))
        self._places = np.full((len(numbers), documents), -1, dtype=np.int64)
        self._sums = np.zeros(documents)
        for places, of_retriever, own in zip(self._places, numbers, self.contributions.values(), strict=True):
            places[of_retriever] = np.arange(len(of_retriever))
            self._sums[of_retriever] += own

    def _near(self, count: int | None) -> list[int]:
        """The numbers of the first `count` documents, and of those whose sums are too close to leave them out."""
        sums = self._sums
        if count is None or count >= len(sums):
            return list(range(len(sums)))
        margin = _MARGIN * sum(max(*own, -min(own)) for own in self._values if own)
        least = np.partition(sums, len(sums) - count)[len(sums) - count]
        return np.flatnonzero(sums >= least - margin).tolist()

    @staticmethod
    def _first(values: list[float], count: int | None) -> list[int]:
        """`_near` for a single ranking."""
        if count is None or count >= len(values):
            return list(range(len(values)))
        ordered = sorted(values, reverse=True)
        least = ordered[count - 1] - _MARGIN * max(ordered[0], -ordered[-1])
        if values != ordered:
            return [number for number, value in enumerate(values) if value >= least]
        while count < len(values) and values[count] >= least:
            count += 1
        return list(range(count))

    def _ids(self, numbers: list[int]) -> Sequence[str]:
        if self._source is None:
            return [self._names[number] for number in numbers]
        return self._source.ids_of(self._keys[numbers])
