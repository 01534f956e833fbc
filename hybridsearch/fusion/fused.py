"""`Fused` is the fused ranking of one query. It reads the ids and sums the scores of as few documents as it can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.ranking import EMPTY, Ranking, Source, round_score

_MARGIN = 4e-11
"""How far a sum may be below another and still be rounded to the same 12 digits, as a fraction of the largest sum."""


Key: TypeAlias = int | str


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
        key: Key of the document in its `Fused`: a key of the source of the rankings, or the id.
    """

    id: str
    score: float
    key: Key


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
        self._source, keys = _keys(self._rankings)
        self._places: list[dict[Key, int]] = [dict(zip(own, range(len(own)), strict=True)) for own in keys]
        self._values = [own.tolist() for own in contributions.values()]
        self._sums: dict[Key, float] = {}
        if keys:  # copying the first ranking at once saves half of the time
            self._sums = dict(zip(keys[0], self._values[0], strict=True))
        for places, values in zip(self._places[1:], self._values[1:], strict=True):
            for key, place in places.items():
                self._sums[key] = self._sums.get(key, 0.0) + values[place]

    def top(self, count: int | None = None) -> list[FusedHit]:
        """The first hits, best first. Equal scores are ordered by id.

        Args:
            count: Number of hits. None for all.
        """
        near = self._near(count)
        scores = map(self._sums.__getitem__ if len(self._values) < 3 else self._exact_sum, near)  # two sum exactly
        negated = [-round_score(score) for score in scores]
        ids = cast("list[str]", near) if self._source is None else self._source.ids_of(cast("list[int]", near))
        found = sorted(zip(negated, ids, near, strict=True))
        return [FusedHit(id, -score, key) for score, id, key in found[:count]]

    def ranking(self) -> Ranking:
        """All hits as a ranking."""
        hits = self.top()
        scores = np.array([hit.score for hit in hits], dtype=np.float64)
        return Ranking(tuple([hit.id for hit in hits]), scores) if hits else EMPTY

    def parts(self, key: Key) -> dict[str, RetrieverHit]:
        """What each retriever that has a document in its ranking gave it, by the retriever's name."""
        found = {}
        for name, places, ranking, values in zip(
            self.contributions, self._places, self._rankings, self._values, strict=True
        ):
            place = places.get(key)
            if place is not None:
                found[name] = RetrieverHit(place + 1, ranking.scores.item(place), values[place])
        return found

    def documents(self, hits: Sequence[FusedHit]) -> list[Document] | None:
        """The documents of hits. None if the rankings cannot read them."""
        if self._source is None:
            return None
        return self._source.documents_of([cast("int", hit.key) for hit in hits], [hit.id for hit in hits])

    def _near(self, count: int | None) -> list[Key]:
        """The first `count` documents, and those whose sums are too close to leave them out."""
        if count is None or count >= len(self._sums):
            return list(self._sums)
        ordered = sorted(self._sums.values(), reverse=True)
        largest = max(ordered[0], -ordered[-1])
        if len(self._values) > 2:
            largest = max(largest, sum(max(max(own), -min(own)) for own in self._values if own))  # noqa: PLW3301
        least = ordered[count - 1] - _MARGIN * largest
        return [key for key, score in self._sums.items() if score >= least]

    def _exact_sum(self, key: Key) -> float:
        found = zip(self._places, self._values, strict=True)
        return math.fsum([values[places[key]] for places, values in found if key in places])


def _keys(rankings: Sequence[Ranking]) -> tuple[Source | None, list[Sequence[Key]]]:
    """The keys of each ranking, with their source. Ids are the keys if the rankings have no source in common."""
    located = [ranking.located for ranking in rankings]
    source = located[0][0] if located and located[0] is not None else None
    keys: list[Sequence[Key]] = [of[1].tolist() for of in located if of is not None and of[0] is source]
    if source is not None and len(keys) == len(rankings):
        return source, keys
    return None, [ranking.ids for ranking in rankings]
