"""`Selection` chooses the hits of a query from its ranked documents: boosts, a least score, groups, variety, pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, shown, whole_number
from hybridsearch.documents import Document
from hybridsearch.errors import HybridSearchError, InvalidArgumentError, RetrieverError
from hybridsearch.filters import comparable, field_value
from hybridsearch.fusion.fused import FusedHit
from hybridsearch.messages import number_of
from hybridsearch.ranking import Ranking, round_score
from hybridsearch.rerank import (
    MMR,
    Boost,
    FieldBoost,
    Likeness,
    Recency,
    at_one_moment,
    blended,
    boosted,
    check_boosts,
    check_diversity,
)

Similarities = Callable[[Sequence["Candidate"]], NDArray[np.float32]]
"""Function from some candidates to the similarities between them."""


@dataclass(slots=True)  # is not frozen, because that takes three times as long to make, and it stays inside
class Candidate:
    """A document on its way to become a hit.

    Attributes:
        document: The document.
        rank: Rank by fused score after boosts, from 1.
        fused_score: Score after fusion.
        score: Score that decides the order: the fused score, the reranker's score or both blended, after boosts.
        reranker_score: Score that the reranker gave. None if the document was not reranked.
        boosts: Factor of each boost, by its name.
        likeness: Most similar hit that MMR put before it. None without MMR.
        group: Value of the field that groups the hits. None without groups.
        grouped: Ids of the other candidates of the group, best first.
    """

    document: Document
    rank: int
    fused_score: float
    score: float
    reranker_score: float | None = None
    boosts: Mapping[str, float] = field(default_factory=dict)
    likeness: Likeness | None = None
    group: Any = None
    grouped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """How the hits of a query are chosen from its ranked documents. `Selection.of` checks the arguments.

    The order of the steps is: the least scores of retrievers, fusion, boosts, reranking, boosts, the least score,
    groups, variety, and then the page of `offset`.

    Attributes:
        offset: Number of first hits to leave out.
        min_score: Least score of a hit. None for no limit.
        least: Least score by retriever name. A retriever's ranking ends before the first lower score.
        boosts: Boosts that change the scores.
        diversity: MMR that orders the hits. None for no MMR.
        group_by: Metadata field that groups the hits. Each value gives one hit. None for no groups.
    """

    offset: int = 0
    min_score: float | None = None
    least: Mapping[str, float] = field(default_factory=dict)
    boosts: tuple[Boost, ...] = ()
    diversity: MMR | None = None
    group_by: str | None = None

    @classmethod
    def of(
        cls, offset: object, min_score: object, boost: object, diversity: object, group_by: object, names: Sequence[str]
    ) -> Selection:
        """Check the arguments of a search. `names` are the retrievers of the index.

        Raises:
            InvalidArgumentError: An argument is not allowed, or names a retriever that the index does not have.
        """
        known = f"which is not a retriever of this index. Its retrievers are {', '.join(map(repr, names))}."
        least: dict[str, float] = {}
        if isinstance(min_score, Mapping):
            for name, value in min_score.items():
                if name not in names:
                    raise InvalidArgumentError(f"min_score names {shown(name)}, {known}")
                least[name] = number(f"The min_score of {name!r}", value)
            min_score = None
        elif min_score is not None:
            min_score = number("min_score", min_score)
        if group_by is not None and (not isinstance(group_by, str) or not group_by):
            raise InvalidArgumentError(f"group_by is the name of a metadata field, not {shown(group_by)}.")
        mmr = check_diversity(diversity)
        if mmr is not None and mmr.retriever is not None and mmr.retriever not in names:
            raise InvalidArgumentError(f"MMR names {shown(mmr.retriever)}, {known}")
        return cls(whole_number("offset", offset, 0), min_score, least, check_boosts(boost), mmr, group_by)

    def begun(self) -> Selection:
        """The selection of a search that begins now, so that all documents of the search get boosts of one moment."""
        return replace(self, boosts=at_one_moment(self.boosts)) if self.boosts else self

    def depth(self, top_k: int | None, reranked: int) -> int | None:
        """Number of first documents of a fused ranking that must be read. None for all."""
        if top_k is None or self.boosts or self.group_by is not None:
            return None
        return max(self.offset + top_k, reranked, 0 if self.diversity is None else self.diversity.depth)

    def cut(self, rankings: Mapping[str, Ranking]) -> Mapping[str, Ranking]:
        """The rankings of one query without scores that are too low."""
        if not self.least:
            return rankings
        return {
            name: ranking.top(int((ranking.scores >= self.least.get(name, -math.inf)).sum()))
            for name, ranking in rankings.items()
        }

    def ranked(self, fused: Sequence[FusedHit], documents: Mapping[str, Document]) -> list[Candidate]:
        """The documents of a fused ranking, with boosts, best first."""
        found = [(documents[hit.id], hit.score) for hit in fused if hit.id in documents]
        if not self.boosts:
            return [Candidate(document, rank, score, score) for rank, (document, score) in enumerate(found, 1)]
        factors = [self._factors(document) for document, _ in found]
        scores = [
            _boosted(score, of_document, document.id)
            for (document, score), of_document in zip(found, factors, strict=True)
        ]
        order = sorted(range(len(found)), key=lambda place: (-scores[place], found[place][0].id))
        return [
            Candidate(found[place][0], rank, found[place][1], scores[place], boosts=factors[place])
            for rank, place in enumerate(order, 1)
        ]

    def reranked(self, candidates: Sequence[Candidate], scores: Sequence[float], blend: float = 0.0) -> list[Candidate]:
        """The candidates after reranking. `scores` are of the first candidates, which stay before all others.

        `blend` is the weight of the fused scores, as in `hybridsearch.rerank.blended`.
        """
        final = blended(scores, [one.fused_score for one in candidates[: len(scores)]], blend)
        head = [
            replace(one, reranker_score=round_score(score), score=_boosted(mixed, one.boosts, one.document.id))
            for one, score, mixed in zip(candidates, scores, map(round_score, final), strict=False)
        ]
        return sorted(head, key=lambda one: (-one.score, one.rank)) + list(candidates[len(head) :])

    def choose(self, candidates: list[Candidate], similarities: Similarities) -> list[Candidate]:
        """All hits in their final order. `offset` is not applied yet."""
        if self.min_score is not None:
            by_reranker = any(one.reranker_score is not None for one in candidates)
            candidates = [
                one
                for one in candidates
                if one.score >= self.min_score and (one.reranker_score is not None or not by_reranker)
            ]
        if self.group_by is not None:
            candidates = self._grouped(candidates, self.group_by)
        return candidates if self.diversity is None else self._diverse(candidates, self.diversity, similarities)

    def notes(
        self, rankings: Mapping[str, Ranking], candidates: Sequence[Candidate], chosen: Sequence[Candidate]
    ) -> list[str]:
        """Sentences about limits that no hit reaches, and about boosts and groups that have no effect.

        Args:
            rankings: The rankings before `cut`.
            candidates: The documents before `choose`.
            chosen: The documents after `choose`.
        """
        notes = [
            f"{name}: no document reaches the min_score {least:g}: the highest score is {rankings[name].scores[0]:.4g}."
            for name, least in self.least.items()
            if name in rankings and len(rankings[name]) and rankings[name].scores[0] < least
        ]
        if not candidates:
            return notes
        for name, boost in {_name_of(boost): boost for boost in self.boosts}.items():
            if all(one.boosts[name] == 1 for one in candidates):
                why = f" It needs dates such as '2024-05-31' in {boost.field!r:.80}." if type(boost) is Recency else ""
                if type(boost) is FieldBoost and isinstance(boost.where, str):
                    why = f" It needs numbers above 0 in {boost.where!r:.80}."
                notes.append(f"The boost {name} changed no score.{why}")
        field = self.group_by
        if field is not None and all(_group(one.document, field) is None for one in candidates):
            mappings = any(field_value(one.document, field) == {} for one in candidates)
            within = f" It holds mappings: name a field of them, as in '{field:.80}.name'." if mappings else ""
            notes.append(f"No candidate has a value in {field!r:.80}, so each hit is a group of its own.{within}")
        if not chosen:
            note = f"No hit reaches the min_score {self.min_score:g}: the highest score is {candidates[0].score:.4g}."
            if candidates[0].reranker_score is None:
                name = next(iter(rankings))
                note += f" It is a fused score. To limit a retriever, name it: {{{name!r}: 1}} (--min-score {name}=1)."
            notes.append(note)
        elif self.offset >= len(chosen):
            notes.append(
                f"The offset {self.offset} is past the last of {number_of(len(chosen), 'hit')}: raise candidates to "
                "find more."
            )
        return notes

    def _factors(self, document: Document) -> dict[str, float]:
        factors: dict[str, float] = {}
        for boost in self.boosts:
            name = _name_of(boost)
            try:
                factor: object = boost.factor(document)
            except HybridSearchError:
                raise
            except Exception as error:
                raise RetrieverError(
                    f"The boost {name} failed for document {document.id!r:.80}: {type(error).__name__}: {error}"
                ) from error
            checked = float(number(f"The factor that {name} gives document {document.id!r}", factor, above=0))
            factors[name] = factors.get(name, 1.0) * checked
        return factors

    def _grouped(self, candidates: Sequence[Candidate], field: str) -> list[Candidate]:
        """The best candidate of each value of a field. A document without a value is a group of its own."""
        groups: dict[Any, list[Candidate]] = {}
        values: list[Any] = []
        for place, one in enumerate(candidates):
            value = _group(one.document, field)
            key = ("alone", place) if value is None else ("value", _group_key(comparable(value)))
            if key not in groups:
                values.append(value)
            groups.setdefault(key, []).append(one)
        return [
            replace(best, group=value, grouped=tuple(one.document.id for one in others))
            for value, (best, *others) in zip(values, groups.values(), strict=True)
        ]

    @staticmethod
    def _diverse(candidates: list[Candidate], mmr: MMR, similarities: Similarities) -> list[Candidate]:
        pool, rest = candidates[: mmr.depth], candidates[mmr.depth :]
        if len(pool) < 2:
            return candidates
        scored = pool[0].reranker_score is not None
        # The score of a document that was not reranked has another scale, so it stays behind the others.
        alike = [one for one in pool if (one.reranker_score is not None) == scored]
        order = mmr.order([one.score for one in alike], similarities(alike))
        chosen = [
            replace(
                alike[place],
                likeness=None if likeness is None else replace(likeness, to=alike[int(likeness.to)].document.id),
            )
            for place, likeness in order
        ]
        return chosen + pool[len(alike) :] + rest


def _name_of(boost: Boost) -> str:
    """The name of a boost in explanations. The address of an object says nothing, so its class is named instead."""
    kind = type(boost)
    return kind.__qualname__ if kind.__repr__ is object.__repr__ else repr(boost)


def _boosted(score: float, factors: Mapping[str, float], id: str) -> float:
    """The score of a document after its boosts."""
    factor = math.prod(factors.values())
    changed = boosted(score, factor)
    if not (math.isfinite(factor) and math.isfinite(changed)):
        raise InvalidArgumentError(
            f"The boosts multiply the score {score:.4g} of document {id!r:.80} by {factor:.4g}, which is too much to "
            "compute with: give them smaller weights."
        )
    return round_score(changed)


def _group(document: Document, field: str) -> Any:
    """The value that groups a document. None if it has no value, as `hybridsearch.listing` defines it."""
    value = field_value(document, field)
    return None if isinstance(value, dict) or value == [] else value


def _group_key(value: Any) -> Any:
    """The value in a form that is equal for equal values, as filters compare them: 1 is 1.0, but not true."""
    if isinstance(value, list):
        return tuple(_group_key(item) for item in value)
    return isinstance(value, bool), repr(value) if isinstance(value, dict) else value
