"""The questions that a search asks Qdrant, and what the answers show.

Qdrant cannot sort ties by id. So if an answer ends within a tie, the question is asked again with a larger limit, until
the answer contains the whole tie.

If an answer with passages does not show the best k documents for certain, the question is asked again with a larger
limit, too. So a document of any number of passages cannot crowd others out.

The embedded engine computes the scores of all dense vectors as one product of float32 matrices. There the scores of
equal vectors may differ in their last digits. So its candidates are scored again in float64, one by one, and equal
vectors get equal scores. A server scores each vector separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from hybridsearch.adapters.checks import dense_query, hits_of, multi_query, sparse_query
from hybridsearch.adapters.qdrant.payload import from_payload, passage_ids, spans_of
from hybridsearch.backends import Kind, Request, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.ranking import EMPTY, PassageScore, Ranking

_WIDTH = 4  # passages that one request asks for, for each document or passage that is wanted

_BYTES = 8 << 20  # bytes of questions in one request; servers refuse 32 MiB

_EMBEDDED_ERROR = 1e-5
"""The error of a dense score of the embedded engine, relative to the product of the lengths of the two vectors."""


@dataclass(eq=False)
class Search:
    """One request that is being answered.

    Attributes:
        request: The request.
        retriever: Schema of its retriever.
        vector: Query vector that is sent to Qdrant. None if no document can match.
        terms: Terms of a sparse `vector`, in its order.
        limit: Number of documents or passages that Qdrant is asked for.
        scores: Scores of the last answer, by document id.
        documents: Documents that came with the answers, by id.
        again: Whether the dense candidates are scored again here.
        passages: The passages of the last answer, best first, if the retriever reads passages.
        floor: Every passage or document with a higher score is in the last answer. Minus infinity if all are.
        states: The payloads of the documents of these passages, by id.
        within: The condition for the passages that are wanted, in place of the filter of the request.
    """

    request: Request
    retriever: RetrieverSchema
    vector: list[float] | list[list[float]] | models.SparseVector | None = None
    terms: list[str] = field(default_factory=list)
    limit: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    again: bool = False
    passages: list[Passage] = field(default_factory=list)
    floor: float = -np.inf
    states: dict[str, Any] = field(default_factory=dict)
    within: models.Filter | None = None
    _replaced: set[tuple[str, int]] = field(default_factory=set)
    _outdated: bool = False

    def __post_init__(self) -> None:
        self.limit = hits_of(self.request) * (_WIDTH if self.retriever.passages else 1) + 1
        checks: dict[Kind, Callable[[Request, RetrieverSchema], object]]
        checks = {"dense": dense_query, "multi_vector": multi_query}
        checks.get(self.retriever.kind, sparse_query)(self.request, self.retriever)

    def take(self, points: Sequence[models.ScoredPoint]) -> None:
        """Take Qdrant's answer to the question for `limit` documents."""
        sign = -1.0 if self.retriever.metric == "euclidean" else 1.0
        scores = sign * np.array([point.score for point in points], dtype=np.float64)
        if self.retriever.kind in ("lexical", "sparse"):
            points = points[: int((scores > 0).sum())]
        error = 0.0
        if self.again and points:
            found: list[Any] = [point.vector for point in points]
            vectors = np.array([next(iter(named.values())) for named in found], dtype=np.float64)
            error = _EMBEDDED_ERROR * float(
                np.linalg.norm(np.asarray(self.request.query)) * np.linalg.norm(vectors, axis=1).max()
            )
        self.floor = float(scores[-1]) + error if len(points) >= self.limit else -np.inf
        if self.again and points:
            scores = _score(self.request.query, vectors, self.retriever.metric)
        self.scores = {}
        found = [(point.payload or {}, score) for point, score in zip(points, scores.tolist(), strict=False)]
        if self.retriever.passages:
            self.passages = sorted(
                (Passage(of["id"], of["version"], of["number"], score) for of, score in found),
                key=lambda passage: (-passage.score, passage.number),
            )
            self._rank_passages()
            return
        for payload, score in found:
            self.scores[payload["id"]] = score
            if "document" in payload:
                self.documents[payload["id"]] = from_payload(payload)

    def drop_stale(self, states: Mapping[str, Any]) -> None:
        """Drop the passages that documents do not have now. `states` has their payloads, or None without a document."""
        self.states |= {id: state for id, state in states.items() if state is not None}
        kept = [
            passage
            for passage in self.passages
            if passage.id not in states or (states[passage.id] or {}).get("version") == passage.version
        ]
        if len(kept) < len(self.passages):
            lost = {passage.id for passage in self.passages} - {passage.id for passage in kept}
            replaced = {(id, states[id]["version"]) for id in lost if states[id] is not None}
            self._outdated = self._outdated or not replaced <= self._replaced
            self._replaced |= replaced
            self.passages = kept
            self._rank_passages()

    def _rank_passages(self) -> None:
        self.scores = {}
        for passage in self.passages:
            self.scores.setdefault(passage.id, passage.score)

    def undecided(self) -> bool:
        """Whether the question must be asked again: the last answer does not show the best documents for certain.

        Documents that are not in the answer may belong to the best, or tie with them: then `limit` is raised. Or a
        document was written anew after its old passages were found.
        """
        if self._outdated:
            self._outdated = False
            return True
        certain = sum(score > self.floor for score in self.scores.values())
        if undecided := self.floor > -np.inf and certain < self.request.k:
            self.limit *= 4
        return undecided

    def spans(self, id: str, best: Sequence[Scored]) -> list[PassageScore]:
        """Passages of a document with their spans."""
        spans = spans_of(self.states[id])
        return [PassageScore(*spans[number], score) for number, score in best]

    def ranking(self) -> Ranking:
        return Ranking.from_scores(self.scores, int(self.request.k)) if self.scores else EMPTY


class Passage(NamedTuple):
    """A passage that was found."""

    id: str
    version: int
    number: int
    score: float


Scored: TypeAlias = tuple[int, float]
"""The number of a passage, and its score."""


class Listing:
    """The best passages of some documents.

    A search for the best documents may show too few passages of a document. Then they are asked for, those of all
    documents in one question. Documents whose passages do not all come are asked for again without the others.

    Args:
        search: The search. Its last answer is used as far as it goes.
        ids: Ids of the documents.
        most: Largest number of passages of each document.
        embedded: Whether the engine is in this process. It finds ids faster than values of the payload.

    Attributes:
        pending: The documents whose best passages are not known yet: their versions by id.
        found: The best passages of the others, by document id.
        question: The search for the passages of these documents.
    """

    def __init__(self, search: Search, ids: Sequence[str], most: int, embedded: bool) -> None:
        self._most, self._embedded = most, embedded
        self._first = _by_document(search.passages)
        self.pending = {id: search.states[id]["version"] for id in ids} if most else {}
        self.found: dict[str, list[Scored]] = {}
        self.question = replace(search)
        if search.passages:
            self._settle(search)
        self._widen(1)

    def take(self) -> None:
        """Take the answer to the question."""
        before = len(self.pending)
        self._settle(self.question)
        self._widen(4 if len(self.pending) == before else 1)

    def _settle(self, search: Search) -> None:
        passages = _by_document(search.passages)
        for id in list(self.pending):
            scores = passages.get(id, {})
            if search.floor == -np.inf or sum(score > search.floor for score in scores.values()) >= self._most:
                scores |= self._first.get(id, {})  # so that the best passage has the score of its document
                self.found[id] = sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))[: self._most]
                del self.pending[id]

    def _widen(self, factor: int) -> None:
        condition: Any = models.FieldCondition(key="version", match=models.MatchAny(any=list(self.pending.values())))
        if self._embedded:
            ids: list[Any] = [id for document in self.pending for id in passage_ids(self.question.states[document])]
            condition = models.HasIdCondition(has_id=ids)
        self.question.within = models.Filter(must=[condition])
        wanted = _WIDTH * self._most * len(self.pending) + 1
        self.question.limit = wanted if factor == 1 else factor * self.question.limit


def parts_of(questions: Sequence[models.QueryRequest], *, whole: bool) -> Iterator[list[models.QueryRequest]]:
    """The questions in lists that fit into one request each. With `whole`, all are in one list."""
    part: list[models.QueryRequest] = []
    size = 0
    for question in questions:
        length = 0 if whole or len(questions) == 1 else len(question.model_dump_json(exclude_unset=True))
        if part and size + length > _BYTES:
            yield part
            part, size = [], 0
        part.append(question)
        size += length
    if part:
        yield part


def _by_document(passages: Sequence[Passage]) -> dict[str, dict[int, float]]:
    """The scores of passages, by document id and number."""
    scores: dict[str, dict[int, float]] = {}
    for passage in passages:
        scores.setdefault(passage.id, {})[passage.number] = passage.score
    return scores


def _score(query: Any, vectors: NDArray[np.float64], metric: str | None) -> NDArray[np.float64]:
    """The score of each row. It depends on that row only."""
    query = np.asarray(query, dtype=np.float64)
    euclidean = metric == "euclidean"
    scores: NDArray[np.float64] = np.square(vectors - query).sum(axis=1) if euclidean else (vectors * query).sum(axis=1)
    return -np.sqrt(scores) if euclidean else scores
