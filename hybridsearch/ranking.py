"""The one definition of rank, tie and top-k. Everything that orders documents does it through this module.

Rank is 1-based; a higher score is better; equal scores are ordered by document id, ascending by code point. Only a run
file that was read has equal scores in another order, that of trec_eval (`Ranking.from_trec`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.readers.lines import read_lines, words, writable

_SHOWN = 5
"""Documents that `repr` of a ranking shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:  # noqa: PLW1641 (holds an array, so it has no hash)
    """Documents of one query in order, best first.

    Attributes:
        ids: distinct document ids; `ids[0]` has rank 1.
        scores: float64, same length, never increasing.
        documents: the documents themselves where the engine sent them along, else None.

    >>> ranking = Ranking.from_scores({"b": 1.0, "c": 2.0, "a": 1.0}, k=2)
    >>> ranking.ids, ranking.scores.tolist()
    (('c', 'a'), [2.0, 1.0])
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float64]
    documents: Mapping[str, Document] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.scores):
            raise InvalidArgumentError(
                f"A ranking needs one score for each id, not {len(self.scores)} for {len(self.ids)}."
            )

    @classmethod
    def from_scores(cls, scores: Mapping[str, float] | Iterable[tuple[str, float]], k: int | None = None) -> Ranking:
        """Order `scores` by the definition above and cut at `k`.

        Raises:
            InvalidArgumentError: a score is NaN, or an id comes twice.
        """
        pairs = list(scores.items() if isinstance(scores, Mapping) else scores)
        if not pairs:
            return EMPTY
        ids, values = zip(*pairs, strict=True)
        negated = -np.array(values, dtype=np.float64)
        if np.isnan(negated).any():
            id = ids[int(np.isnan(negated).argmax())]
            raise InvalidArgumentError(f"The score of document {id!r} is NaN; scores must be numbers.")
        if len(set(ids)) != len(ids):
            raise InvalidArgumentError("A document id comes twice in one ranking; ids must be distinct.")
        ordered = sorted(zip(negated.tolist(), ids, strict=True))[:k]
        return cls(tuple([id for _, id in ordered]), -np.array([score for score, _ in ordered], dtype=np.float64))

    def __repr__(self) -> str:
        first = ", ".join(f"({id!r}, {score:g})" for id, score in self.top(_SHOWN))
        return f"Ranking([{first}{f', ... {len(self):,} in all' if len(self) > _SHOWN else ''}])"

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """(id, score) pairs, best first."""
        return zip(self.ids, self.scores.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranking):
            return NotImplemented
        return self.ids == other.ids and np.array_equal(self.scores, other.scores)

    def top(self, k: int) -> Ranking:
        """The first `k` documents."""
        if len(self.ids) <= k:
            return self
        return Ranking(self.ids[:k], self.scores[:k], self.documents)

    @staticmethod
    def from_trec(path: str | Path) -> dict[str, Ranking]:
        """Read a TREC run file: `query-id Q0 document-id rank score tag`, one line a hit; may be compressed (.gz).

        The order is that of trec_eval, so measures are those that it prints: by score as a number of 32 bits, then by
        document id, descending. Like trec_eval it ignores the rank column. A file of `to_trec` has the order and the
        equal scores that `to_trec` was given.

        Returns:
            One ranking for each query id, in the order of the file.

        Raises:
            InvalidArgumentError: there is no such file, or a line is malformed (named by file and line number).
            StorageError: the file cannot be read.
        """
        return read_trec(path)[0]

    @staticmethod
    def to_trec(rankings: Mapping[str, Ranking], path: str | Path, tag: str = "hybridsearch") -> None:
        """Write `rankings` as a TREC run file that every tool reads in this order.

        The scores are written as 32-bit numbers. Tools of the trec_eval family keep no more digits, sort by score again
        and break ties their own way. So a score that is not below the one before it is lowered to just below that.

        Raises:
            InvalidArgumentError: a query id, document id or the tag is empty or holds a space, which the format has
                no way to write.
            StorageError: the file cannot be written.
        """
        for name in (tag, *rankings, *(id for ranking in rankings.values() for id in ranking.ids)):
            if words(name) != [name]:
                raise InvalidArgumentError(f"{name!r} is empty or holds a space, which a run file cannot hold.")
        with writable(path) as place, place.open("w", encoding="utf-8", newline="\n") as file:
            for query, ranking in rankings.items():
                scores = _strictly_decreasing(ranking.scores)
                for rank, (id, score) in enumerate(zip(ranking.ids, scores, strict=True), 1):
                    file.write(f"{query} Q0 {id} {rank} {score} {tag}\n")


def read_trec(path: str | Path) -> tuple[dict[str, Ranking], int, int]:
    """`Ranking.from_trec`, the number of tied hits, and the number of queries that seem to be upside down.

    A tied hit shares its score with another hit of the query: ids order these. A query is upside down if the hit with
    its first rank has a lower score than the one with its last rank. Scores that are distances are such.
    """
    found: dict[str, dict[str, float]] = {}
    ends: dict[str, tuple[tuple[int, float], tuple[int, float]]] = {}
    for number, line in read_lines(path):
        try:
            query, _, id, rank, score, _ = words(line)
            if not score.isascii() or "_" in score:
                raise ValueError(score)  # Python alone takes it for a number
            value = float(score)
        except ValueError:
            raise InvalidArgumentError(
                f"{path}, line {number}: a run line is `query-id Q0 document-id rank score tag` "
                f"with a numeric score, not {line.strip()[:80]!r}."
            ) from None
        of_query = found.setdefault(query, {})
        if id in of_query or value != value:
            problem = f"document {id!r} comes twice for query {query!r}" if id in of_query else "the score is NaN"
            raise InvalidArgumentError(f"{path}, line {number}: {problem}.")
        of_query[id] = value
        if rank.isascii() and rank.isdigit() and len(rank) < 10:
            ranked = (int(rank), value)
            first, last = ends.get(query, (ranked, ranked))
            ends[query] = (min(first, ranked), max(last, ranked))
    upside_down = sum(first[0] < last[0] and first[1] < last[1] for first, last in ends.values())
    rankings, ties = {}, 0
    for query, of_query in found.items():
        rankings[query], of_this = _as_trec_eval(of_query)
        ties += of_this
    return rankings, ties, upside_down


def _as_trec_eval(found: Mapping[str, float]) -> tuple[Ranking, int]:
    """The ranking that trec_eval makes of the scores of one query, and how many hits share their score."""
    ids = sorted(found, reverse=True)
    exact = np.array([found[id] for id in ids], dtype=np.float64)
    with np.errstate(over="ignore"):
        kept = exact.astype(np.float32)
    order = np.argsort(-kept, kind="stable")
    exact, kept = exact[order], kept[order]
    equal = kept[1:] == kept[:-1]
    ties = int((np.append(equal, False) | np.append(False, equal)).sum())
    lowered = kept[1:] >= np.nextafter(kept[:-1], np.float32(-np.inf))  # `to_trec` writes equal scores like this
    first = np.maximum.accumulate(np.where(np.append(False, lowered), 0, np.arange(len(kept))))
    return Ranking(tuple([ids[place] for place in order.tolist()]), exact[first]), ties


def _strictly_decreasing(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    most = np.finfo(np.float32).max / 2
    lowered = np.clip(scores, -most, most).astype(np.float32)
    for place in range(1, len(lowered)):
        if lowered[place] >= lowered[place - 1]:
            lowered[place] = np.nextafter(lowered[place - 1], np.float32(-np.inf))
    return lowered


EMPTY = Ranking((), np.empty(0, dtype=np.float64))
"""The ranking without hits."""


def round_score(score: float) -> float:
    """`score` to 12 significant digits: what fused and reranked scores are compared by."""
    return float(f"{score:.12g}")
