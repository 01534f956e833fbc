"""The order of documents: rank, ties and top k. All rankings are made by this module.

Ranks count from 1. A higher score is better. Documents with equal scores are ordered by id, ascending by code point.
There is one exception: a run file that was read has the order of trec_eval (`Ranking.from_trec`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import of_type
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.readers.lines import read_lines, words, writable

_SHOWN = 5
"""Number of documents that `repr` of a ranking shows."""


class PassageScore(NamedTuple):
    """A passage of a document with the score that a retriever gave it.

    Attributes:
        start: First character of the passage in `Document.text`.
        end: Character after the last character of the passage.
        score: Score of the passage.
    """

    start: int
    end: int
    score: float


class Source(Protocol):
    """The documents of an index at one moment. A key stands for a document, and is only valid for this source."""

    def ids_of(self, keys: Sequence[int]) -> list[str]:
        """Read the ids of documents."""
        ...

    def documents_of(self, keys: Sequence[int], ids: Sequence[str]) -> list[Document]:
        """Read documents. `ids` are their ids, which have been read already."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:  # noqa: PLW1641 (holds an array, so it has no hash)
    """Documents for one query, best first, with their scores.

    Attributes:
        ids: Distinct document ids. `ids[0]` has rank 1.
        scores: Scores in the order of `ids`, as float64. No score is higher than the one before it.
        documents: The documents by id if the engine sent them with the ranking, else None.
        passages: The best passages of each document by document id, best first, and equal scores by `start`. The first
            passage has the score of the document. None if the retriever reads whole documents, or if the request did
            not ask for passages.

    >>> ranking = Ranking.from_scores({"b": 1.0, "c": 2.0, "a": 1.0}, k=2)
    >>> ranking.ids, ranking.scores.tolist()
    (('c', 'a'), [2.0, 1.0])
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float64]
    documents: Mapping[str, Document] | None = field(default=None, repr=False)
    passages: Mapping[str, Sequence[PassageScore]] | None = field(default=None, repr=False)
    _lazy: tuple[Source, NDArray[np.int64]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.scores):
            raise InvalidArgumentError(
                f"A ranking needs one score for each id, not {len(self.scores)} for {len(self.ids)}."
            )

    @classmethod
    def lazy(cls, source: Source, keys: NDArray[np.int64], scores: NDArray[np.float64]) -> Ranking:
        """Make a ranking whose ids are read when they are first used. Most of them never are.

        Args:
            source: Documents that the keys stand for.
            keys: Distinct keys in the order of the ranking.
            scores: Scores in the same order.

        Returns:
            The ranking.
        """
        ranking = object.__new__(cls)
        for name, value in (("scores", scores), ("documents", None), ("passages", None), ("_lazy", (source, keys))):
            object.__setattr__(ranking, name, value)
        return ranking

    @classmethod
    def from_scores(cls, scores: Mapping[str, float] | Iterable[tuple[str, float]], k: int | None = None) -> Ranking:
        """Make a ranking from scores: the highest score first, equal scores by document id.

        Args:
            scores: Scores by document id, or pairs of document id and score.
            k: Number of documents to keep. None keeps all.

        Returns:
            The ranking.

        Raises:
            InvalidArgumentError: A score is NaN, or an id comes twice.
        """
        pairs = list(scores.items() if isinstance(scores, Mapping) else scores)
        if not pairs:
            return EMPTY
        ids, values = zip(*pairs, strict=True)
        found = np.array(values, dtype=np.float64)
        if np.isnan(found).any():
            id = ids[int(np.isnan(found).argmax())]
            raise InvalidArgumentError(f"The score of document {id!r} is NaN, but a score must be a number.")
        if len(set(ids)) != len(ids):
            raise InvalidArgumentError("A document id comes twice in one ranking: give each id once.")
        if (found[:-1] > found[1:]).all():  # most engines order by score
            return cls(ids[:k], found[:k])
        ordered = sorted(zip((-found).tolist(), ids, strict=True))[:k]
        return cls(tuple([id for _, id in ordered]), -np.array([score for score, _ in ordered], dtype=np.float64))

    def __repr__(self) -> str:
        first = ", ".join(f"({id!r}, {score:g})" for id, score in self.top(_SHOWN))
        return f"Ranking([{first}{f', ... {len(self):,} in all' if len(self) > _SHOWN else ''}])"

    def __getattr__(self, name: str) -> Any:
        """Read the ids of a lazy ranking. Python calls this method because the attribute is not set."""
        lazy = self._lazy if name == "ids" else None
        if lazy is None:
            if name == "ids":
                return object.__getattribute__(self, name)  # another thread has just read them
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        source, keys = lazy
        object.__setattr__(self, "ids", tuple(source.ids_of(keys.tolist())))
        object.__setattr__(self, "_lazy", None)  # so that the ranking does not keep the index in memory
        return self.ids

    def __reduce__(self) -> tuple[Any, ...]:
        return Ranking, (self.ids, self.scores, self.documents, self.passages)

    @property
    def located(self) -> tuple[Source, NDArray[np.int64]] | None:
        """Source and keys of the documents of a lazy ranking. None if the ids have been read."""
        return self._lazy

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Pairs of document id and score, best first."""
        return zip(self.ids, self.scores.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranking):
            return NotImplemented
        return self.ids == other.ids and np.array_equal(self.scores, other.scores)

    def top(self, k: int) -> Ranking:
        """Cut the ranking after the first `k` documents."""
        if len(self) <= k:
            return self
        if (lazy := self._lazy) is not None:
            return Ranking.lazy(lazy[0], lazy[1][:k], self.scores[:k])
        return Ranking(self.ids[:k], self.scores[:k], self.documents, self.passages)

    @staticmethod
    def from_trec(path: str | Path) -> dict[str, Ranking]:
        """Read a TREC run file.

        A line has the form `query-id Q0 document-id rank score tag`, one line for each hit. The documents get the order
        of trec_eval, so that measures equal those of trec_eval: by score as a 32-bit number, then by document id,
        descending. The rank column is ignored. A file that `to_trec` wrote keeps its order and its equal scores.

        Args:
            path: Path of the file, which may be compressed by gzip, bzip2, xz or Zstandard.

        Returns:
            Rankings by query id, in the order of the file.

        Raises:
            InvalidArgumentError: There is no such file, or a line is malformed. The message has the line number.
            StorageError: The file cannot be read.
        """
        return read_trec(path)[0]

    @staticmethod
    def to_trec(rankings: Mapping[str, Ranking], path: str | Path, tag: str = "hybridsearch") -> None:
        """Write rankings to a TREC run file.

        The scores are written as 32-bit numbers, because tools like trec_eval sort by scores of 32 bits. They order
        equal scores in different ways. So an equal score is lowered by the smallest possible step. Every tool then
        reads the documents in the order of the ranking.

        Args:
            rankings: Rankings by query id.
            path: Path of the file.
            tag: Name of the run, for the last column.

        Raises:
            InvalidArgumentError: The tag or an id is empty or contains a space, so a run file cannot hold it. Or a
                value of `rankings` is no ranking.
            StorageError: The file cannot be written.
        """
        for ranking in rankings.values():
            of_type("A ranking", ranking, Ranking, "an hs.Ranking such as hs.Ranking.from_scores({'d1': 2.0})")
        for name in (tag, *rankings, *(id for ranking in rankings.values() for id in ranking.ids)):
            if words(name) != [name]:
                raise InvalidArgumentError(
                    f"{name!r} is empty or holds a space, so a run file cannot hold it: give another id or tag."
                )
        with writable(path) as place, place.open("w", encoding="utf-8", newline="\n") as file:
            for query, ranking in rankings.items():
                scores = _strictly_decreasing(ranking.scores)
                for rank, (id, score) in enumerate(zip(ranking.ids, scores, strict=True), 1):
                    file.write(f"{query} Q0 {id} {rank} {score} {tag}\n")


def read_trec(path: str | Path) -> tuple[dict[str, Ranking], int, int]:
    """The rankings of `Ranking.from_trec`, the number of tied hits, and the number of queries in reverse order.

    A tied hit has the same score as another hit of its query. A query is in reverse order if the hit with the first
    rank has a lower score than the hit with the last rank. This happens if the scores are distances.
    """
    found: dict[str, dict[str, float]] = {}
    ends: dict[str, tuple[tuple[int, float], tuple[int, float]]] = {}
    for number, line in read_lines(path):
        try:
            query, _, id, rank, score, _ = words(line)
            if not score.isascii() or "_" in score:
                raise ValueError(score)  # Python reads it as a number, but other tools do not
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
    """The ranking that trec_eval makes from the scores of one query, and the number of tied hits."""
    ids = sorted(found, reverse=True)
    exact = np.array([found[id] for id in ids], dtype=np.float64)
    with np.errstate(over="ignore"):
        kept = exact.astype(np.float32)
    order = np.argsort(-kept, kind="stable")
    exact, kept = exact[order], kept[order]
    equal = kept[1:] == kept[:-1]
    ties = int((np.append(equal, False) | np.append(False, equal)).sum())
    lowered = kept[1:] >= np.nextafter(kept[:-1], np.float32(-np.inf))  # `to_trec` writes equal scores so
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
"""The empty ranking."""


def round_score(score: float) -> float:
    """The score with 12 significant digits. Fused scores and reranker scores are compared with these digits."""
    return float(f"{score:.12g}")
