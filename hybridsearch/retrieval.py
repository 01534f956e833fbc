"""`Plan` answers queries: it asks the retrievers, merges their rankings, reads the documents and reranks them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hybridsearch import arguments
from hybridsearch.answers import Answers
from hybridsearch.backends import AsyncBackend, Backend, Counted, Explainer, Lister, Request
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder, encode
from hybridsearch.errors import (
    EncodingError,
    FilterError,
    FingerprintMismatchError,
    HybridSearchError,
    InvalidArgumentError,
    RetrieverError,
)
from hybridsearch.expanding import expand, first_requests, read_vectors
from hybridsearch.feedback import Expansion, Planned
from hybridsearch.filters import Condition, Filter
from hybridsearch.found_passages import FoundPassages
from hybridsearch.fusion import Fusion
from hybridsearch.fusion.fused import Fused, FusedHit
from hybridsearch.hits import Explanation, Hit, Results, make_hits
from hybridsearch.messages import number_of
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.rerank import Reranker, TokenMatch, score_pairs, similarities
from hybridsearch.selection import Candidate, Selection
from hybridsearch.side_by_side import in_a_thread, in_tasks, in_threads
from hybridsearch.snippets import Finder
from hybridsearch.vectors import QueryVector, SparseQuery, TextQuery
from hybridsearch.weighting import BM25Weighting

_LIKENESS: Final = ("dense", "multi_vector", "sparse", "lexical", "text")
"""The kinds of retrievers in the order in which their vectors are taken to compare documents."""

PASSAGES: Final = 3
"""Number of passages that each retriever lists for a document."""

BLANK: Final = "The query is blank, so it finds nothing."
"""Note on a query without a character that can be seen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The checked settings of a search, which answer queries. `HybridSearch.plan` makes a plan.

    If no retriever is optional and none has a timeout, one call of the backend asks all retrievers. Otherwise each
    retriever is asked in a separate call. `aask` and `aresults` give the same answers in an event loop. They await an
    `AsyncBackend`. Other backends, encoders, fusion and reranker work in threads.

    Attributes:
        retrievers: Names of the retrievers to ask. Each has a weight above 0.
        depth: Number of documents that are read from each retriever.
        filter: Filter that each retriever applies before it cuts its ranking. None searches all documents.
        fusion: Method that merges the rankings.
        reranker: Reranker that reorders the top of the fused ranking. None for no reranker.
        top_k: Number of hits. None for all candidates.
        backend: Backend that is asked.
        encoder: Function that returns the encoder of a retriever. It raises FingerprintMismatchError if the index was
            built with another encoder.
        optional: Names of the retrievers that may fail.
        timeout: Seconds that a retriever may take, by name.
        known: Conditions of expectations that are met. The set grows, so that each is looked up once.
        passages: Names of the retrievers that read passages, of those that are asked.
        selection: How the hits are chosen from the ranked documents.
        exact: Whether there is one retriever, and its ranking does not depend on how many documents are asked for.
            Default False.
        feedback: Feedback by the name of the retriever whose queries it expands.
        headings: Whether the passages have headings, as `Passages.headings`.
    """

    retrievers: tuple[str, ...]
    depth: int
    filter: Filter | None
    fusion: Fusion
    reranker: Reranker | None
    top_k: int | None
    backend: Backend
    encoder: Callable[[str], Encoder]
    optional: Collection[str] = ()
    timeout: Mapping[str, float] = field(default_factory=dict)
    known: set[Condition] = field(default_factory=set)
    passages: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    exact: bool = False
    feedback: Mapping[str, Planned] = field(default_factory=dict)
    headings: bool = True

    def results(self, queries: Iterable[str]) -> list[Results]:
        """Find the best documents for each of several queries.

        Args:
            queries: Texts of the queries.

        Returns:
            One `Results` for each query, in order.
        """
        queries = _check_queries(queries)
        asked = [query for query in queries if query.strip()]
        return self._with_blank(queries, self.merge(asked, self._asking.ask(asked)) if asked else [])

    async def aresults(self, queries: Iterable[str]) -> list[Results]:
        """Find the best documents for each of several queries without blocking the event loop.

        Args:
            queries: Texts of the queries.

        Returns:
            One `Results` for each query, in order.
        """
        queries = _check_queries(queries)
        if not isinstance(self.backend, AsyncBackend):
            return await asyncio.to_thread(self.results, queries)
        asked = [query for query in queries if query.strip()]
        found = await asyncio.to_thread(self.merge, asked, await self._asking.aask(asked)) if asked else []
        return self._with_blank(queries, found)

    def ask(self, queries: Iterable[str]) -> Answers:
        """Get the rankings of the retrievers, before they are merged.

        Args:
            queries: Texts of the queries.

        Returns:
            The requests, rankings, notes and failures of the retrievers.

        Raises:
            RetrieverError: A retriever that is not optional failed, or all retrievers failed.
            RetrieverTimeoutError: A retriever that is not optional took longer than its timeout.
        """
        queries = _check_queries(queries)
        if not queries:
            return self._nothing()
        if self._at_once():
            answers = self.encode(queries)
            if self.feedback:
                with _timed(answers.timings, "feedback"):
                    answers = self._fed_back(answers)
            with _timed(answers.timings, "search"):
                rankings = self.backend.search(answers.all_requests)
            return self._answered(answers, rankings)

        def one(name: str) -> Answers:
            answers = self._encode(name, queries)
            with _blame(name):
                answers = self._fed_back(answers)
                return self._answered(answers, self.backend.search(answers.all_requests))

        timings: dict[str, float] = {}
        with _timed(timings, "search"):
            given = in_threads({name: partial(one, name) for name in self.retrievers}, self.timeout)
        return self._gather(given, timings)

    async def aask(self, queries: Iterable[str]) -> Answers:
        """Get the rankings of the retrievers without blocking the event loop.

        If the call is cancelled, or a timeout ends, the requests of an `AsyncBackend` are cancelled.

        Args:
            queries: Texts of the queries.

        Returns:
            The requests, rankings, notes and failures of the retrievers.
        """
        queries, backend = _check_queries(queries), self.backend
        if not isinstance(backend, AsyncBackend):
            return await asyncio.to_thread(self.ask, queries)
        if not queries:
            return self._nothing()
        if self._at_once():
            answers = await asyncio.to_thread(self.encode, queries)
            if self.feedback:
                with _timed(answers.timings, "feedback"):
                    answers = await self._afed_back(answers)
            with _timed(answers.timings, "search"):
                rankings = await backend.asearch(answers.all_requests)
            return self._answered(answers, rankings)

        async def one(name: str) -> Answers:
            answers = await in_a_thread(partial(self._encode, name, queries))
            with _blame(name):
                answers = await self._afed_back(answers)
                return self._answered(answers, await backend.asearch(answers.all_requests))

        timings: dict[str, float] = {}
        with _timed(timings, "search"):
            given = await in_tasks({name: partial(one, name) for name in self.retrievers}, self.timeout)
        return self._gather(given, timings)

    # The stages

    @property
    def _asking(self) -> Plan:
        """The plan that asks for what `merge` needs.

        The first documents of a single retriever are the first hits, if the fusion keeps their order.
        Passages are left out here if `merge` asks a `Lister` for them: if it shows only some of the candidates, or if a
        retriever reads whole documents, because documents that only this retriever finds have no passages yet.
        """
        shown = self.selection.depth(self.top_k, 0 if self.reranker is None else self.reranker.top_k)
        if shown is not None and shown < self.depth and self.exact and self.fusion.keeps_order:
            return replace(self, depth=shown)
        if not self.passages or shown is None or not _is_lister(self.backend):
            return self
        later = shown < self.depth or len(self.passages) < len(self.retrievers)
        return replace(self, passages=()) if later else self

    @property
    def _reading(self) -> dict[str, bool]:
        """How late interaction reads passages, as arguments of its methods."""
        return {} if self.headings else {"headings": False}

    def _at_once(self) -> bool:
        return not self.timeout and not set(self.optional).intersection(self.retrievers)

    def _with_blank(self, queries: Sequence[str], found: Iterable[Results]) -> list[Results]:
        """The results of all queries. `found` has those of the queries that are not blank."""
        rest = iter(found)
        blank = Results("", (), self.retrievers, notes=(BLANK,))
        return [next(rest) if query.strip() else replace(blank, query=query) for query in queries]

    def _nothing(self) -> Answers:
        return Answers(dict.fromkeys(self.retrievers, ()), dict.fromkeys(self.retrievers, ()))

    def encode(self, queries: Sequence[str]) -> Answers:
        """Encode queries.

        Args:
            queries: Texts of the queries.

        Returns:
            The requests and notes of the retrievers, without rankings.
        """
        return Answers.joined([self._encode(name, queries) for name in self.retrievers])

    def _encode(self, name: str, queries: Sequence[str]) -> Answers:
        """The requests to one retriever, without rankings."""
        timings: dict[str, float] = {}
        encoder = self.encoder(name)
        with _timed(timings, f"encode {name}"), _blame(name):
            vectors: Sequence[QueryVector] = encoder.encode_queries(queries)
            query_notes = getattr(encoder, "query_notes", None)  # faster than isinstance(encoder, Noting)
            notes: Sequence[str] = [""] * len(queries) if query_notes is None else query_notes(queries)
        if len(vectors) != len(queries):
            raise EncodingError(
                f"Retriever {name!r} encoded {number_of(len(queries), 'query', 'queries')} into "
                f"{number_of(len(vectors), 'vector')}."
            )
        listed = PASSAGES if name in self.passages else 0
        requests = [Request(name, vector, self.depth, self.filter, listed) for vector in vectors]
        said = [note or _note_of(vector) for note, vector in zip(notes, vectors, strict=True)]
        return Answers({name: requests}, {}, notes={name: said}, timings=timings)

    def _fed_back(self, answers: Answers) -> Answers:
        """The answers with the requests of the second pass, for retrievers with feedback."""
        first = first_requests(answers.requests, self.feedback)
        return self._expanded(answers, self.backend.search(first)) if first else answers

    async def _afed_back(self, answers: Answers) -> Answers:
        """What `_fed_back` returns, for an `AsyncBackend`."""
        first = first_requests(answers.requests, self.feedback)
        if not first or not isinstance(self.backend, AsyncBackend):
            return answers
        return await in_a_thread(partial(self._expanded, answers, await self.backend.asearch(first)))

    def _expanded(self, answers: Answers, first: Sequence[Ranking]) -> Answers:
        requests, expansions = expand(
            answers.requests, self.feedback, first, self.backend, self.encoder, headings=self.headings
        )
        asked = {name: answers.requests[name] for name in requests}
        return replace(answers, requests={**answers.requests, **requests}, expansions=expansions, asked=asked)

    def _answered(self, answers: Answers, rankings: Sequence[Ranking]) -> Answers:
        """The answers with their rankings.

        Raises:
            FingerprintMismatchError: The index was replaced since the queries were encoded.
        """
        for name in answers.requests:
            self.encoder(name)
        return answers.with_rankings(rankings)

    def _gather(self, given: Mapping[str, Answers | BaseException], timings: dict[str, float]) -> Answers:
        """The answers of all retrievers as one. Raises the error of a retriever that is not optional."""
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
            raise unanswered(failures)
        joined = Answers.joined(good)
        # The retrievers encode side by side, so the longest encoding is subtracted.
        timings["search"] -= max(joined.timings.values())
        return replace(joined, failures=failures, timings=timings | joined.timings)

    def merge(self, queries: Sequence[str], answers: Answers) -> list[Results]:
        """Merge the rankings of `ask`, read the documents, and rerank them.

        Args:
            queries: Texts of the queries.
            answers: Answers of `ask` to these queries.

        Returns:
            One `Results` for each query, in order.
        """
        top_k, reranker, timings, chooser = self.top_k, self.reranker, answers.timings, self.selection.begun()
        rankings = answers.by_query
        by_query: Sequence[Mapping[str, Ranking]] = [chooser.cut(of_query) for of_query in rankings]
        with _timed(timings, "fuse"):
            rerank_depth = 0 if reranker is None else reranker.top_k
            shown = chooser.depth(top_k, rerank_depth)
            fused = [self.fusion.fused(of_query) for of_query in by_query]
            tops = [of_query.top(shown) for of_query in fused]
        with _timed(timings, "fetch"):
            by_query, others = self._with_passages(tops, answers, by_query)
            documents = self._documents(fused, tops, by_query)
        found = [
            FoundPassages(self.fusion, of_query, documents, of_other, self.headings)
            for of_query, of_other in zip(by_query, others, strict=True)
        ]
        candidates = [chooser.ranked(top, documents) for top in tops]
        if reranker is not None:
            read = getattr(reranker, "passages", 1)
            heads = [
                [of_query.read(one.document.id, read) for one in of_candidates[:rerank_depth]]
                for of_candidates, of_query in zip(candidates, found, strict=True)
            ]
            with _timed(timings, "rerank"):
                scores = score_pairs(reranker, queries, heads)
            blend = getattr(reranker, "blend", 0.0)
            candidates = [
                chooser.reranked(of_query, of_head.tolist(), blend)
                for of_query, of_head in zip(candidates, scores, strict=True)
            ]
        of_all = [f"Without {name}: {reason}" for name, reason in answers.failures.items()]
        if not of_all:  # after a failure, the engine may not answer this either
            of_all = filter_notes(self.backend, self.filter, self.known)
        absent = _absent(answers.failures)
        of_empty = [] if of_all or all(candidates) else self._why_empty()
        results = []
        for i, query in enumerate(queries):
            requests = {name: answers.requests[name][i] for name in answers.rankings}
            matches, words = (self._matched_by(name, query, found[i], candidates[i]) for name in ("matches", "words"))
            tokens = partial(self._matched_tokens, query, requests, by_query[i])
            explain = partial(self._explain, query, requests, matches, tokens, answers.expansions_of(i), absent)
            chosen = chooser.choose(candidates[i], partial(self._similarities, found[i]))
            page = chosen[chooser.offset :][:top_k]
            own = {name: of_retriever[i].query for name, of_retriever in answers.asked.items()}
            terms = partial(matched_terms, self.backend)
            finder = Finder(requests, self.encoder, terms, words, own, query, self._reading)
            hits = make_hits(page, chooser.offset, fused[i], tops[i], explain, found[i].lazily, finder)
            notes = of_all + answers.notes_of(i) if query.strip() else [BLANK]
            if gone := len(tops[i]) - len(candidates[i]):
                notes.append(f"{number_of(gone, 'document was', 'documents were')} deleted during the search.")
            notes += chooser.notes(rankings[i], candidates[i], chosen)
            notes = notes or ([] if candidates[i] else of_empty or list(self._without_weight(requests)))
            names = tuple(answers.rankings)
            results.append(Results(query, hits, names, answers.failures, tuple(notes), timings))
        return results

    def explain(self, query: str, document: Document) -> Explanation:
        """Explain the place of a document in the results of a query.

        Args:
            query: Text of the query.
            document: Document of the index. No retriever needs to have it in its ranking.

        Returns:
            The explanation.
        """
        answers = self.ask([query])
        whole = replace(self.selection, offset=0)
        unlimited = replace(whole, min_score=None, least={}, group_by=None)
        for selection in [whole] if whole == unlimited else [whole, unlimited]:
            for hit in replace(self, top_k=None, selection=selection).merge([query], answers)[0]:
                if hit.id == document.id:
                    explanation = hit.explain()
                    return explanation if selection is whole else replace(explanation, rank=None)
        requests = {name: of[0] for name, of in answers.requests.items()}
        found = all_matched_terms(self.backend, requests, {name: [document.id] for name in requests})
        tokens = {name: matched_tokens(self.encoder(name), query, document) for name in requests}
        return Explanation(
            query=query,
            id=document.id,
            retrievers={},
            terms={name: of_retriever[document.id] for name, of_retriever in found.items()},
            fusion=repr(self.fusion),
            fused_rank=None,
            fused_score=None,
            reranker_score=None,
            rank=None,
            token_matches={name: matches for name, matches in tokens.items() if matches},
            notes=(*_absent(answers.failures), *answers.notes_of(0)),
            feedback=answers.expansions_of(0),
        )

    def _why_empty(self) -> list[str]:
        """A note if there is no document that could be found."""
        try:
            there = self.backend.count(self.filter)
        except HybridSearchError:  # the search succeeded, so a note must not end it
            return []
        return [] if there else ["The index is empty." if self.filter is None else "No document matches the filter."]

    def _without_weight(self, requests: Mapping[str, Request]) -> Iterator[str]:
        """A note on each retriever whose BM25 variant gives no weight to any term that the index has."""
        for name, request in requests.items():
            weighting = getattr(self.encoder(name), "weighting", None)
            if not isinstance(weighting, BM25Weighting) or weighting.variant not in ("robertson", "atire"):
                continue
            if isinstance(self.backend, Counted) and isinstance(request.query, SparseQuery):
                with suppress(HybridSearchError):  # the search succeeded, so a note must not end it
                    counts, total = self.backend.document_frequencies(name, request.query.terms)
                    known = np.array([count for count in counts if count])
                    if len(known) and not weighting.idf(known, total).any():
                        yield (
                            f"{name}: each word of the query is in so many documents that the BM25 variant "
                            f"{weighting.variant!r} gives it no weight. The variant 'lucene' finds them."
                        )

    def _with_passages(
        self, tops: Sequence[Sequence[FusedHit]], answers: Answers, by_query: Sequence[Mapping[str, Ranking]]
    ) -> tuple[Sequence[Mapping[str, Ranking]], Sequence[Ranking]]:
        """The rankings of each query with the passages of the hits in `tops`, which a `Lister` has left out.

        Also a ranking of the documents that no retriever of passages has among its candidates, with their passages.
        """
        readers = [name for name in self.passages if name in answers.rankings]
        if not readers:
            return by_query, [EMPTY] * len(by_query)
        first, backend = readers[0], self.backend
        shown = [[hit.id for hit in top] for top in tops]
        found = [set[str]().union(*(rankings[name].ids for name in readers)) for rankings in by_query]
        others = [[id for id in ids if id not in known] for ids, known in zip(shown, found, strict=True)]
        if not _is_lister(backend) or any(request.passages for request in answers.all_requests):
            return by_query, self._list(answers.requests[first], others)
        requests = [
            replace(answers.requests[name][i], passages=PASSAGES) for i, of in enumerate(by_query) for name in of
        ]
        ids = [
            [id for id in of_query if id in there] + (of_others if name == first else [])
            for of_query, of_others, rankings in zip(shown, others, by_query, strict=True)
            for name, there in ((name, set(ranking.ids)) for name, ranking in rankings.items())
        ]
        documents, passages = backend.fetch_passages(requests, ids)
        listed = iter(passages)
        by_query = [
            {name: replace(ranking, documents=documents, passages=next(listed)) for name, ranking in of.items()}
            for of in by_query
        ]
        return by_query, [
            Ranking(tuple(ids), np.zeros(len(ids)), documents, rankings[first].passages)
            for ids, rankings in zip(others, by_query, strict=True)
        ]

    def list_passages(self, queries: Sequence[str], ids: Sequence[Sequence[str]]) -> list[Ranking]:
        """List the best passages of any documents, by the first retriever that reads passages.

        Args:
            queries: Texts of the queries.
            ids: Ids of the documents, for each query.

        Returns:
            One ranking of the documents for each query, with their passages. It is empty if no retriever reads
            passages, or if the backend has no filters.
        """
        if not self.passages or not any(ids):
            return [EMPTY] * len(queries)
        return self._list(self._encode(self.passages[0], queries).requests[self.passages[0]], ids)

    def _list(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> list[Ranking]:
        rankings = [EMPTY] * len(requests)
        places = [place for place, of_query in enumerate(ids) if of_query]
        if places and self.backend.capabilities.filters:
            asked = [
                replace(
                    requests[place],
                    k=len(ids[place]),
                    filter=Filter.parse({"id": {"$in": list(ids[place])}}),
                    passages=PASSAGES,
                )
                for place in places
            ]
            for place, ranking in zip(places, self.backend.search(asked), strict=True):
                rankings[place] = ranking
        return rankings

    def _documents(
        self,
        fused: Sequence[Fused],
        tops: Sequence[Sequence[FusedHit]],
        by_query: Sequence[Mapping[str, Ranking]],
    ) -> dict[str, Document]:
        """The documents of the hits by id. A document that was deleted since the search may be left out."""
        sent = [r.documents for of_query in by_query for r in of_query.values() if r.documents is not None]
        place = {id: documents for documents in sent for id in documents}
        found: dict[str, Document] = {}
        missing: dict[str, None] = {}
        for of_query, top in zip(fused, tops, strict=True):
            hits = [hit for hit in top if hit.id not in found]
            there = None if place else of_query.documents(hits)
            for number, hit in enumerate(hits):
                if there is not None:
                    found[hit.id] = there[number]
                elif hit.id in place:  # an engine may make a document when it is looked up
                    found[hit.id] = place[hit.id][hit.id]
                else:
                    missing[hit.id] = None
        fetched = self.backend.fetch(list(missing)) if missing else []
        found.update((id, document) for id, document in zip(missing, fetched, strict=True) if document is not None)
        return found

    def _similarities(self, found: FoundPassages, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """The similarities between candidates, by the vectors of one retriever."""
        schema = self.backend.open()
        kinds = {} if schema is None else {name: one.kind for name, one in schema.retrievers.items()}
        chosen = None if self.selection.diversity is None else self.selection.diversity.retriever
        name = chosen or min(self.retrievers, key=lambda name: _LIKENESS.index(kinds[name]))
        if kinds[name] == "text":
            raise InvalidArgumentError(
                f"Retriever {name!r} has no vectors, and MMR needs some: name another retriever of the index, such as "
                "hs.MMR(retriever='dense')."
            )
        documents = {one.document.id: one.document for one in candidates}
        parts = [(id, found.best_span(id)) for id in documents]
        there, vectors = read_vectors(
            self.backend, name, kinds[name], self.encoder, parts, documents, headings=self.headings
        )
        if len(there) < len(parts):  # a document was deleted meanwhile
            vectors = encode(self.encoder(name), [found.read(id) for id in documents])
        return similarities(vectors)

    def _matched_by(
        self, method: str, query: str, found: FoundPassages, candidates: Sequence[Candidate]
    ) -> Callable[[str], tuple[TokenMatch, ...]] | None:
        """A function from a document id to what the reranker matched. None if the reranker has no such method."""
        matches = getattr(self.reranker, method, None)
        if matches is None:
            return None
        read = getattr(self.reranker, "passages", 1)
        documents = {one.document.id: one.document for one in candidates if one.reranker_score is not None}
        matches = partial(matches, **self._reading)
        return lambda id: matches(query, documents[id], found.spans(id, read)) if id in documents else ()

    def _matched_tokens(
        self, query: str, requests: Mapping[str, Request], rankings: Mapping[str, Ranking], hit: Hit
    ) -> dict[str, tuple[TokenMatch, ...]]:
        """What the retrievers of late interaction matched in a hit, by name. They read its best passage."""
        found = {}
        for name in hit.retrievers:
            asked = requests[name].query
            if isinstance(asked, np.ndarray) and asked.ndim == 2:
                best = (rankings[name].passages or {}).get(hit.id, ())[:1]
                spans = [(one.start, one.end) for one in best]
                matches = matched_tokens(self.encoder(name), query, hit.document, spans, **self._reading)
                found.update({name: matches} if matches else {})
        return found

    def _explain(
        self,
        query: str,
        requests: Mapping[str, Request],
        matches: Callable[[str], tuple[TokenMatch, ...]] | None,
        tokens: Callable[[Hit], dict[str, tuple[TokenMatch, ...]]],
        expansions: Mapping[str, Expansion],
        notes: tuple[str, ...],
        hits: Sequence[Hit],
    ) -> list[Explanation]:
        """Explanations of hits for one query."""
        for name in requests:
            self.encoder(name)  # raises if the index was replaced by one with other encoders
        listed = {name: [hit.id for hit in hits if name in hit.retrievers] for name in requests}
        found = all_matched_terms(self.backend, requests, listed)
        return [
            Explanation(
                query=query,
                id=hit.id,
                retrievers=hit.retrievers,
                terms={name: found[name][hit.id] for name in hit.retrievers if name in found},
                fusion=repr(self.fusion),
                fused_rank=hit.rank_before_reranking,
                fused_score=hit.fused_score,
                reranker_score=hit.reranker_score,
                rank=hit.rank,
                passages=hit.passages,
                boosts=hit.boosts,
                min_score=self.selection.least or self.selection.min_score,
                likeness=hit.likeness,
                group=hit.group,
                grouped=hit.grouped,
                blend=0.0 if hit.reranker_score is None else getattr(self.reranker, "blend", 0.0),
                matches=() if matches is None else matches(hit.id),
                token_matches=tokens(hit),
                notes=notes,
                feedback=expansions,
            )
            for hit in hits
        ]


def _absent(failures: Mapping[str, str]) -> tuple[str, ...]:
    """Notes of an explanation on retrievers that failed. Clients of a service may read them, so they give no reason."""
    return tuple(f"The retriever {name!r} did not answer, so this explanation is without it." for name in failures)


def unanswered(failures: Mapping[str, str]) -> RetrieverError:
    """The error if all retrievers failed. `failures` has the reason of each."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    return RetrieverError(f"No retriever answered: {reasons}.")


def matched_tokens(
    encoder: Encoder, query: str, document: Document, spans: Sequence[tuple[int, int]] = (), **reading: bool
) -> tuple[TokenMatch, ...]:
    """What a retriever of late interaction matched in some spans of a document. Empty for another encoder."""
    matches: Callable[..., tuple[TokenMatch, ...]] | None = getattr(encoder, "matches", None)
    return () if matches is None else matches(query, document, spans, **reading)


def _is_lister(backend: Backend) -> TypeGuard[Lister]:
    """Whether a backend is a `Lister`. The method alone is looked for, because `isinstance` takes 20 µs here."""
    return hasattr(backend, "fetch_passages")


def filter_notes(backend: Backend, filter: Filter | None, known: set[Condition]) -> list[str]:
    """Notes on fields of the filter that no document has. Most often they are misspelt or have another type.

    `known` holds the conditions that the index is known to meet. The set grows.
    """
    notes: dict[str, str] = {}
    for expected in filter.expectations() if filter else ():
        if expected.condition not in known and expected.field not in notes:
            try:
                there = backend.count(Filter(expected.condition))
            except HybridSearchError:  # the search succeeded, so a note must not end it
                continue
            if bool(there) == expected.some:
                known.add(expected.condition)
            else:
                notes[expected.field] = expected.error
    return list(notes.values())


def matched_terms(backend: Backend, request: Request, ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """The matched terms by document id, the largest first. Empty for a dense or text retriever."""
    return all_matched_terms(backend, {request.retriever: request}, {request.retriever: ids}).get(request.retriever, {})


def all_matched_terms(
    backend: Backend, requests: Mapping[str, Request], ids: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, dict[str, float]]]:
    """The matched terms by retriever and document id. Dense and text retrievers, and those without ids, are left out.

    An `Explainer` is asked once for all retrievers. Another backend is asked once for each.
    """
    names = [name for name, request in requests.items() if isinstance(request.query, SparseQuery) and ids[name]]
    if not names or not backend.capabilities.explain:
        return {}
    asked, listed = [requests[name] for name in names], [ids[name] for name in names]
    if isinstance(backend, Explainer):
        found = backend.explain_all(asked, listed)
    else:
        found = [backend.explain(request, of) for request, of in zip(asked, listed, strict=True)]
    return {
        name: {
            id: dict(sorted(terms.items(), key=lambda item: (-abs(item[1]), item[0])))
            for id, terms in zip(ids[name], of_name, strict=True)
        }
        for name, of_name in zip(names, found, strict=True)
    }


def _check_queries(queries: Iterable[str]) -> list[str]:
    if arguments.is_keyed(queries):
        values = ": write list(queries.values())" if isinstance(queries, Mapping) else ""
        raise InvalidArgumentError(f"queries is a list of strings, not {arguments.keyed(queries)}{values}.")
    if isinstance(queries, str) or not isinstance(queries, Iterable):
        raise InvalidArgumentError(f"queries is a list of strings, not {queries!r:.80}: use search for one query.")
    queries = list(queries)
    for number, query in enumerate(queries):
        if not isinstance(query, str):
            raise InvalidArgumentError(f"Query {number} is of type {type(query).__name__}, but queries are strings.")
        try:
            query.encode()
        except UnicodeEncodeError:
            raise InvalidArgumentError(
                f"Query {number} holds a lone surrogate, which is not valid Unicode: repair the text."
            ) from None
    return queries


def _note_of(query: QueryVector) -> str:
    """A note if the vector of a query is empty, for example because all words are stop words. Otherwise ""."""
    if isinstance(query, TextQuery):
        return ""
    found = any(query.weights.tolist()) if isinstance(query, SparseQuery) else np.any(query)
    return "" if found else "the query has no term left to search for, so it finds nothing."


class _blame:  # noqa: N801 (a class, because contextlib takes longer than the rest of a small search)
    """Turns any error of an encoder or engine into an error of this package that names the retriever."""

    __slots__ = ("_who",)

    def __init__(self, who: str) -> None:
        self._who = who

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, HybridSearchError):
            raise RetrieverError(f"Retriever {self._who!r} failed: {type(error).__name__}: {error}") from error


class _timed:  # noqa: N801
    """Adds the seconds of a stage to `timings`."""

    __slots__ = ("_stage", "_started", "_timings")

    def __init__(self, timings: dict[str, float], stage: str) -> None:
        self._timings, self._stage = timings, stage

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        taken = time.perf_counter() - self._started
        self._timings[self._stage] = self._timings.get(self._stage, 0.0) + taken
