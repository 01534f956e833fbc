"""Choose negatives among the candidates of a query: which are allowed, in which order, and by which scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from hybridsearch.arguments import ALLOWED_FIRST, number, whole_number
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of
from hybridsearch.rerank import Reranker, score_pairs
from hybridsearch.training.data import normalized
from hybridsearch.training.data.mined import Format, Mined, OfQuery

Sampling: TypeAlias = Literal["top", "random"]

_SAME = 0.95  # share of common words from which two texts count as the same
_LONG = 20  # words of the shortest text for which this share is used


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the scores of negatives.

    Attributes:
        margin: Least distance to the score of the positive, 0 or more, or None.
        percentage: Largest share of the score of the positive, above 0 and at most 1, or None.
        max_score: Largest score, or None.
        min_score: Least score, or None.
    """

    margin: float | None = None
    percentage: float | None = None
    max_score: float | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        for name in ("margin", "percentage", "max_score", "min_score"):
            if (value := getattr(self, name)) is not None:
                plain = number(name, value, sentence="{name} is {value}. Give a number or None.")
                object.__setattr__(self, name, plain)
        if self.margin is not None:
            number("margin", self.margin, least=0)
        if self.percentage is not None:
            number("percentage", self.percentage, above=0, most=1)

    @property
    def relative(self) -> bool:
        """Whether the limits need the score of the positive."""
        return self.margin is not None or self.percentage is not None

    def refuse(self, score: float, positive: float) -> str | None:
        """The reason why a candidate with this score is dropped, or None if it passes.

        Args:
            score: Score of the candidate.
            positive: Lowest score of a positive, or -inf if a positive is not in the ranking.
        """
        if self.relative and positive == -math.inf:
            return "a positive is not among the candidates"
        if self.margin is not None and score + self.margin > positive:
            return f"less than {self.margin:g} below the positive" if self.margin else "scored above the positive"
        if self.percentage is not None and score > positive - (1 - self.percentage) * abs(positive):
            return f"more than {100 * self.percentage:g}% of the positive's score"
        if self.max_score is not None and score > self.max_score:
            return f"score above {self.max_score:g}"
        if self.min_score is not None and score < self.min_score:
            return f"score below {self.min_score:g}"
        return None


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a mining, which are arguments of `mine_hard_negatives`.

    Attributes:
        per_query: Number of negatives for each query.
        ranks: First and last rank that may be taken.
        sampling: "top" or "random".
        seed: Seed of random sampling.
        output_format: Format of the rows.
        limits: Limits of the scores.
    """

    per_query: int
    ranks: tuple[int, int]
    sampling: Sampling
    seed: int
    output_format: Format
    limits: Limits

    def __post_init__(self) -> None:
        whole_number("per_query", self.per_query, sentence=ALLOWED_FIRST)
        whole_number("seed", self.seed, 0)
        if self.sampling not in ("top", "random"):
            raise InvalidArgumentError(f"sampling is {self.sampling!r}. Give 'top' or 'random'.")
        if not isinstance(self.ranks, tuple | list) or len(self.ranks) != 2:
            raise InvalidArgumentError(f"ranks is {self.ranks!r}. Give the first and the last rank, such as (6, 40).")
        for rank in self.ranks:
            whole_number("A rank", rank, sentence=ALLOWED_FIRST)
        first, last = self.ranks
        if last < first:
            raise InvalidArgumentError(f"ranks is {self.ranks!r}. Give the first and the last rank, such as (6, 40).")
        if last - first + 1 < self.per_query:
            raise InvalidArgumentError(
                f"Ranks {first} to {last} cannot give {number_of(self.per_query, 'negative')} a query. Widen ranks, "
                "or ask for fewer negatives."
            )

    def to_dict(self) -> dict[str, Any]:
        """The options as a dictionary, ready for JSON."""
        limits = {name: getattr(self.limits, name) for name in Limits.__slots__}
        plain = {name: getattr(self, name) for name in ("per_query", "sampling", "seed", "output_format")}
        return {**plain, "ranks": list(self.ranks), **limits}


@dataclass(frozen=True, slots=True)
class Query:
    """A query with all texts that are known to answer it.

    Attributes:
        number: Number of the query among all queries, from 0.
        id: Id of the query, or None if it is not known.
        text: Text of the query.
        positives: Texts that are known to answer it.
    """

    number: int
    id: str | None
    text: str
    positives: tuple[Mined, ...]


@dataclass(slots=True)
class Found:
    """One query with its candidates: the negatives that are kept, and the counts of the others.

    Attributes:
        query: Query.
        positives: Known positives, with their ranks and scores in the ranking.
        window: Candidates that are not decided yet, in the order in which they are tried.
        candidates: Number of documents in the ranking.
        dropped: Number of dropped candidates for each reason.
        kept: Negatives.
    """

    query: Query
    positives: list[Mined]
    window: list[Mined]
    candidates: int
    dropped: Counter[str]
    kept: list[Mined] = field(default_factory=list)

    @classmethod
    def make(cls, query: Query, ranking: Sequence[Mined], options: Options) -> Found:
        """Drop the candidates that are not allowed, and the candidates outside the window of ranks."""
        keys = [_keys(one) for one in ranking]
        by_id = {one.id: one for one in ranking}
        by_text = {key: one for one, of_one in zip(reversed(ranking), reversed(keys), strict=True) for key in of_one}
        positives = [
            _placed(known, by_id.get(known.id) or by_text.get(normalized(known.text))) for known in query.positives
        ]
        ids = {known.id for known in query.positives}
        barred = {normalized(query.text): "the query itself"}
        barred |= {key: "known positive" for known in positives for key in _keys(known)}
        known_words = [Counter(key.split()) for known in positives for key in _keys(known)]
        dropped: Counter[str] = Counter()
        window: list[Mined] = []
        first, last = options.ranks
        rank = 0
        for one, of_one in zip(ranking, keys, strict=True):
            reason = next((barred[key] for key in of_one if key in barred), None)
            if one.id in ids:
                reason = "known positive"
            if reason is None and any(_nearly_same(key, words) for key in of_one for words in known_words):
                reason = "nearly the same text as a positive"
            if reason is None:
                barred[of_one[0]] = "same text as a better candidate"
                rank += 1
                if rank < first:
                    reason = "ranked before the window"
                elif rank > last:
                    reason = "ranked after the window"
            if reason is None:
                window.append(one)
            else:
                dropped[reason] += 1
        if options.sampling == "random":
            order = np.random.default_rng([options.seed, query.number]).permutation(len(window))
            window = [window[place] for place in order]
        return cls(query, positives, window, len(ranking), dropped)

    def decide(self, count: int, options: Options) -> None:
        """Keep or drop the next `count` candidates, by their scores."""
        lowest = min(positive.judged for positive in self.positives)
        for one in self.window[:count]:
            reason = options.limits.refuse(one.judged, lowest)
            if reason is None and len(self.kept) == options.per_query:
                reason = "not needed"
            if reason is None:
                self.kept.append(one)
            else:
                self.dropped[reason] += 1
        del self.window[:count]

    def drop_the_rest(self) -> None:
        """Drop all candidates that are left, because they are not needed."""
        self.dropped["not needed"] += len(self.window)
        self.window.clear()

    def result(self) -> OfQuery:
        """The query with its negatives, by rank."""
        kept = sorted(self.kept, key=lambda one: one.rank or 0)
        return OfQuery(self.query.id, self.query.text, self.positives, kept)


def decide_by_reranker(found: Sequence[Found], reranker: Reranker, options: Options) -> None:
    """Choose negatives by the scores of a reranker, which scores only as many candidates as are still needed."""
    asked = [one for one in found if one.window]
    for one, scored in zip(asked, _scored(reranker, asked, [one.positives for one in asked]), strict=True):
        one.positives = scored
    while asked := [one for one in asked if one.window and len(one.kept) < options.per_query]:
        heads = [one.window[: options.per_query - len(one.kept)] for one in asked]
        for one, scored in zip(asked, _scored(reranker, asked, heads), strict=True):
            one.window[: len(scored)] = scored
            one.decide(len(scored), options)
    for one in found:
        one.drop_the_rest()


def _scored(reranker: Reranker, found: Sequence[Found], texts: Sequence[Sequence[Mined]]) -> Iterator[list[Mined]]:
    documents = [[one.document or Document(one.id or "text", one.text) for one in of_query] for of_query in texts]
    scores = score_pairs(reranker, [one.query.text for one in found], documents)
    for of_query, values in zip(texts, scores, strict=True):
        yield [replace(one, reranker_score=value) for one, value in zip(of_query, values.tolist(), strict=True)]


def _nearly_same(text: str, words: Counter[str]) -> bool:
    """Whether two normalised texts have nearly the same words. False if one of them is shorter than 20 words."""
    own = text.split()
    shorter, longer = sorted((len(own), words.total()))
    if shorter < max(_LONG, _SAME * longer):
        return False
    return (Counter(own) & words).total() >= _SAME * longer


def _placed(known: Mined, there: Mined | None) -> Mined:
    """A known positive, with its rank and score if it is in the ranking."""
    return known if there is None else replace(there, id=known.id or there.id, text=known.text)


def _keys(one: Mined) -> list[str]:
    """Normalised texts by which a candidate is compared: first its whole content, then its text without the title."""
    texts = [one.text] if one.document is None else [one.text, one.document.content, one.document.text]
    return [normalized(text) for text in dict.fromkeys(texts) if text.strip()] or [""]
