"""How a question is answered: requests, rankings, fusion, documents, reranking; in threads, or in an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hybridsearch.backends import AsyncBackend, Backend, Request
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.errors import (
    EncodingError,
    FilterError,
    FingerprintMismatchError,
    HybridSearchError,
    RetrieverError,
)
from hybridsearch.filters import Filter
from hybridsearch.fusion import Fusion
from hybridsearch.hits import Explanation, Hit, Results, make_hits
from hybridsearch.ranking import Ranking
from hybridsearch.rerank import Reranker, score_pairs
from hybridsearch.threads import ask_in_tasks, ask_in_threads, in_a_thread
from hybridsearch.vectors import QueryVector, SparseQuery


@dataclass(frozen=True, slots=True)
class Question:
    """What one call asks, checked: `queries` of the retrievers `names`, and what happens to their rankings.

    Attributes:
        depth: how deep each retriever is read.
        top_k: how many hits; None for all candidates.
    """

    queries: Sequence[str]
    names: Sequence[str]
    depth: int
    filter: Filter | None
    fusion: Fusion
    reranker: Reranker | None
    top_k: int | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the retrievers said: by name, one request and one ranking for each query; why optional ones are missing."""

    requests: Mapping[str, Sequence[Request]]
    rankings: Mapping[str, Sequence[Ranking]]
    failures: Mapping[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Answers questions from one backend.

    Retrievers that may neither fail nor time out are asked in one call of the backend, others each in a call of its
    own. `ask_async` and `results_async` wait for an `AsyncBackend` without a thread; the work of encoders, fusion and
    reranker, and all of another backend, goes to threads. The results are the same.

    Attributes:
        encoder: by name, the encoder that the index was built with; raises FingerprintMismatchError for another one.
        optional: retrievers that may fail.
        timeout: seconds by retriever.
    """

    backend: Backend
    encoder: Callable[[str], Encoder]
    optional: Collection[str] = ()
    timeout: Mapping[str, float] = field(default_factory=dict)

    def results(self, question: Question) -> list[Results]:
        """Hits for each query."""
        return self._merge(question, self.ask(question)) if question.queries else []

    async def results_async(self, question: Question) -> list[Results]:
        """`results`, with the event loop free meanwhile."""
        if not isinstance(self.backend, AsyncBackend):
            return await asyncio.to_thread(self.results, question)
        if not question.queries:
            return []
        answers = await self.ask_async(question, self.backend)
        return await asyncio.to_thread(self._merge, question, answers)

    def ask(self, question: Question) -> Answers:
        """The retrievers' rankings.

        Raises:
            RetrieverError, RetrieverTimeoutError: one that is not optional failed, or all did.
        """
        if self._at_once(question):
            answers = self._encode_all(question)
            with _timed(answers.timings, "search"):
                flat = self.backend.search(_flat(answers.requests))
            return _with_rankings(answers, flat)

        def one(name: str) -> Answers:
            answers = self._encode(name, question)
            with _blame(f"Retriever {name!r}"):
                return _with_rankings(answers, self.backend.search(_flat(answers.requests)))

        timings: dict[str, float] = {}
        with _timed(timings, "search"):
            given = ask_in_threads({name: partial(one, name) for name in question.names}, self.timeout)
        return self._gather(given, timings)

    async def ask_async(self, question: Question, backend: AsyncBackend) -> Answers:
        """`ask`. Cancelling it, or a timeout, cancels what the backend does for it."""
        if self._at_once(question):
            answers = await asyncio.to_thread(self._encode_all, question)
            with _timed(answers.timings, "search"):
                flat = await backend.asearch(_flat(answers.requests))
            return _with_rankings(answers, flat)

        async def one(name: str) -> Answers:
            answers = await in_a_thread(partial(self._encode, name, question))
            with _blame(f"Retriever {name!r}"):
                return _with_rankings(answers, await backend.asearch(_flat(answers.requests)))

        timings: dict[str, float] = {}
        with _timed(timings, "search"):
            given = await ask_in_tasks({name: partial(one, name) for name in question.names}, self.timeout)
        return self._gather(given, timings)

    def terms(self, id: str, requests: Mapping[str, Request]) -> dict[str, dict[str, float]]:
        """Matched terms of the document by lexical or sparse retriever, the heaviest first."""
        terms = {}
        for name, request in requests.items():
            if isinstance(request.query, SparseQuery) and self.backend.capabilities.explain:
                found = self.backend.explain(request, [id])[0]
                terms[name] = dict(sorted(found.items(), key=lambda item: (-abs(item[1]), item[0])))
        return terms

    # Below: the stages

    def _at_once(self, question: Question) -> bool:
        return not self.timeout and not set(self.optional).intersection(question.names)

    def _encode_all(self, question: Question) -> Answers:
        parts = [self._encode(name, question) for name in question.names]
        return Answers(
            {name: requests for part in parts for name, requests in part.requests.items()},
            {},
            timings={stage: seconds for part in parts for stage, seconds in part.timings.items()},
        )

    def _encode(self, name: str, question: Question) -> Answers:
        """The requests to one retriever, no rankings yet."""
        timings: dict[str, float] = {}
        encoder = self.encoder(name)
        with _timed(timings, f"encode {name}"), _blame(f"Retriever {name!r}"):
            vectors: Sequence[QueryVector] = encoder.encode_queries(question.queries)
        if len(vectors) != len(question.queries):
            raise EncodingError(
                f"Retriever {name!r} encoded {len(question.queries)} queries into {len(vectors)} vectors."
            )
        requests = [Request(name, vector, question.depth, question.filter) for vector in vectors]
        return Answers({name: requests}, {}, timings=timings)

    def _gather(self, given: Mapping[str, Answers | BaseException], timings: dict[str, float]) -> Answers:
        """One from each retriever's own; errors are raised, or of optional retrievers noted."""
        failures: dict[str, str] = {}
        good: list[Answers] = []
        for name, answer in given.items():
            if not isinstance(answer, BaseException):
                good.append(answer)
            elif (
                isinstance(answer, FingerprintMismatchError | FilterError)
                or not isinstance(answer, Exception)
                or name not in self.optional
            ):
                raise answer
            else:
                failures[name] = str(answer)
        if not good:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
            raise RetrieverError(f"No retriever answered: {reasons}.")
        for answer in good:
            timings.update(answer.timings)
        return Answers(
            {name: requests for answer in good for name, requests in answer.requests.items()},
            {name: rankings for answer in good for name, rankings in answer.rankings.items()},
            failures,
            timings,
        )

    def _merge(self, question: Question, answers: Answers) -> list[Results]:
        """Fuse, fetch, rerank."""
        queries, top_k, reranker, timings = question.queries, question.top_k, question.reranker, answers.timings
        by_query = [{name: rankings[i] for name, rankings in answers.rankings.items()} for i in range(len(queries))]
        with _timed(timings, "fuse"):
            fused = [question.fusion.explain(of_query) for of_query in by_query]
        rerank_depth = 0 if reranker is None else reranker.top_k
        with _timed(timings, "fetch"):
            documents = self._documents(
                dict.fromkeys(
                    id
                    for ranking, _ in fused
                    for id in (ranking.ids if top_k is None else ranking.ids[: max(top_k, rerank_depth)])
                ),
                by_query,
            )
        reranked: Sequence[NDArray[np.float64]] = [np.empty(0)] * len(queries)
        if reranker is not None:
            heads = [[documents[id] for id in ranking.ids[:rerank_depth] if id in documents] for ranking, _ in fused]
            with _timed(timings, "rerank"):
                reranked = score_pairs(reranker, queries, heads)
        results = []
        for i, query in enumerate(queries):
            requests = {name: answers.requests[name][i] for name in answers.rankings}
            explain = partial(self._explain_hit, query, question.fusion, requests)
            hits = make_hits(*fused[i], by_query[i], documents, reranked[i], top_k, explain)
            results.append(Results(query, hits, tuple(answers.rankings), answers.failures, timings))
        return results

    def _documents(self, ids: Iterable[str], by_query: Sequence[Mapping[str, Ranking]]) -> dict[str, Document]:
        """The documents by id; one that was deleted since the search is left out."""
        sent = [r.documents for of_query in by_query for r in of_query.values() if r.documents is not None]
        place = {id: documents for documents in sent for id in documents}
        ids = list(ids)
        found = {id: place[id][id] for id in ids if id in place}  # an engine may make documents as they are looked up
        missing = [id for id in ids if id not in found]
        fetched = self.backend.fetch(missing) if missing else []
        found.update((id, document) for id, document in zip(missing, fetched, strict=True) if document is not None)
        return found

    def _explain_hit(self, query: str, fusion: Fusion, requests: Mapping[str, Request], hit: Hit) -> Explanation:
        return Explanation(
            query=query,
            id=hit.id,
            retrievers=hit.retrievers,
            terms=self.terms(hit.id, {name: requests[name] for name in hit.retrievers}),
            fusion=repr(fusion),
            fused_rank=hit.rank_before_reranking,
            fused_score=hit.fused_score,
            reranker_score=hit.reranker_score,
            rank=hit.rank,
        )


def _flat(requests: Mapping[str, Sequence[Request]]) -> list[Request]:
    return [request for of_retriever in requests.values() for request in of_retriever]


def _with_rankings(answers: Answers, flat: Sequence[Ranking]) -> Answers:
    """`flat` is in the order of `_flat(answers.requests)`."""
    rest = iter(flat)
    rankings = {name: [next(rest) for _ in requests] for name, requests in answers.requests.items()}
    return Answers(answers.requests, rankings, answers.failures, answers.timings)


@contextmanager
def _blame(who: str) -> Iterator[None]:
    """Turns whatever an encoder, reranker or engine raises into one of our errors, which says whose it was."""
    try:
        yield
    except HybridSearchError:
        raise
    except Exception as error:
        raise RetrieverError(f"{who} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started
