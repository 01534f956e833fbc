"""How much an approximate search misses: its answers beside those of the engine's own exact search."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch import arguments
from hybridsearch.backends import Backend, Kind, Request
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.plain import to_plain
from hybridsearch.evaluation.samples import first_sentences, spread
from hybridsearch.evaluation.statistics import Interval, proportion_interval
from hybridsearch.messages import number_of
from hybridsearch.progress import progress_bar
from hybridsearch.ranking import Ranking
from hybridsearch.retrieval import Plan
from hybridsearch.search import HybridSearch
from hybridsearch.tables import Grid

if TYPE_CHECKING:
    from rich.console import RenderableType

_READ = 2000  # documents from which queries are sampled
_WARM = 5  # queries that are asked before the clock runs
_DEEPER = (2, 4, 8)  # multiples of the candidates that are tried if too much is missed
_DEEPEST = 10_000  # hits that every engine returns


@dataclass(frozen=True, slots=True)
class Approximation:
    """How much of the exact ranking an approximate search of one retriever finds.

    Attributes:
        candidates: Number of documents that were read from the retriever.
        top: Share of the exact first `top_k` hits that are among its first `top_k` hits, with its interval.
        all: Share of all exact hits, as many as `candidates`, with its interval. None if they were not compared.
        p50: Median time of a query in milliseconds.
        p95: 95th percentile of the time of a query in milliseconds.
    """

    candidates: int
    top: Interval
    all: Interval | None
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class RetrieverRecall:
    """The recall of one retriever that is searched approximately.

    Attributes:
        name: Name of the retriever.
        kind: Kind of the retriever, such as "dense".
        searched: The search as it is, and then searches with more candidates, if too much was missed.
        exact_p50: Median time of an exact query in milliseconds.
        exact_p95: 95th percentile of the time of an exact query in milliseconds.
        finds_more: Sentence on the option of the engine that finds more. "" if there is none.
    """

    name: str
    kind: Kind
    searched: tuple[Approximation, ...]
    exact_p50: float
    exact_p95: float
    finds_more: str

    @property
    def recall(self) -> float:
        """Share of the exact first hits that the search finds as it is."""
        return self.searched[0].top.mean

    def advice(self, target: float) -> str:
        """One or two sentences on what to change. "" if the recall is at least `target`."""
        if self.recall >= target:
            return ""
        best = max(self.searched, key=lambda one: (min(one.top.mean, target), -one.candidates))
        said = f"{self.name} misses {1 - self.recall:.1%} of the first hits."
        if len(self.searched) == 1:
            said += f" It reads {best.candidates:,} candidates, too many to try with more."
        elif best is self.searched[0]:
            said += " More candidates find no more of them."
        else:
            misses = f"{1 - best.top.mean:.1%}" if best.top.mean < 1 else "none"
            times = best.p50 / self.searched[0].p50
            said += f" With {best.candidates:,} candidates it misses {misses}, and takes {times:.1f} times as long."
        return f"{said} The option of the engine is {self.finds_more}" if self.finds_more else said


@dataclass(frozen=True, slots=True)
class RecallReport:
    """How much an index misses because it is searched approximately. It prints as a table.

    Attributes:
        place: Place of the index.
        source: Sentence on where the queries come from.
        queries: Number of queries.
        top_k: Number of first hits that are compared.
        candidates: Number of documents that are read from each retriever.
        target: Recall from which there is no advice.
        retrievers: Retrievers that are searched approximately.
        exact: Names of the retrievers that are searched exactly.
        fused: Share of the exact first `top_k` hits of the fused ranking that it has, with its interval. None if there
            is nothing to compare.
        same: Share of the queries whose first `top_k` fused hits are the exact ones.
    """

    place: str
    source: str
    queries: int
    top_k: int
    candidates: int
    target: float
    retrievers: tuple[RetrieverRecall, ...]
    exact: tuple[str, ...]
    fused: Interval | None
    same: float | None

    @property
    def advice(self) -> list[str]:
        """What to change, for each retriever that misses too much."""
        return [said for one in self.retrievers if (said := one.advice(self.target))]

    @property
    def notes(self) -> list[str]:
        """Sentences below the table."""
        if not self.retrievers:
            return ["Every retriever is searched exactly, so no document is missed."]
        notes = [self.source]
        if self.exact:
            notes.append(f"Searched exactly: {', '.join(self.exact)}.")
        if self.same is not None:
            notes.append(f"{self.same:.1%} of the queries have the same first {self.top_k} fused hits as exact search.")
        return [*notes, *(self.advice or [f"Each retriever finds at least {100 * self.target:g}% of the first hits."])]

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to a dict that JSON can hold."""
        return {**to_plain(self), "advice": self.advice}

    def __rich__(self) -> RenderableType:
        rows = [
            [
                [one.name if number == 0 else ""],
                [f"{search.candidates:,}"],
                _cell(search.top),
                _cell(search.all),
                [f"{search.p50:.1f}", f"{search.p95:.1f}"],
                [f"{one.exact_p50:.1f}", f"{one.exact_p95:.1f}"] if number == 0 else [""],
            ]
            for one in self.retrievers
            for number, search in enumerate(one.searched)
        ]
        if self.fused is not None:
            rows.append([["fused"], [f"{self.candidates:,}"], _cell(self.fused), [""], [""], [""]])
        heads = ["", "candidates", f"recall@{self.top_k}", "recall of all", "ms", "ms exact"]
        title = f"Approximate beside exact search: {self.place}, {number_of(self.queries, 'query', 'queries')}"
        return Grid(title if rows else self.place, heads if rows else [""], rows, self.notes)


def recall(
    search: HybridSearch,
    queries: Iterable[str] | Mapping[str, str] | Dataset | None = None,
    *,
    number: int = 100,
    top_k: int = 10,
    candidates: int | None = None,
    retrievers: Iterable[str] | None = None,
    filter: Mapping[str, Any] | None = None,
    target: float = 0.95,
    show_progress_bar: bool | None = None,
) -> RecallReport:
    """Measure how much an index misses because it is searched approximately.

    Each query is asked twice: as always, and with the engine's own exact search, which compares all vectors. Nothing
    is copied. If a retriever finds too little, it is asked again with 2, 4 and 8 times as many candidates, which makes
    engines look at more documents. Documents whose scores are equal at the cut count as found, whichever comes.

    Args:
        search: Index to measure.
        queries: Texts of queries, a mapping of such texts, or a data set. None samples titles or first words of the
            documents. These queries are easier than those of people, because a document near each of them is in the
            index.
        number: Number of queries, at most. If there are more, they are taken at equal distances.
        top_k: Number of first hits that are compared.
        candidates: Number of documents that are read from each retriever. None uses the setting of the index.
        retrievers: Names of the retrievers to ask. None asks all.
        filter: Filter of all queries. Engines search differently with a filter. None searches all documents.
        target: Recall from which nothing has to change, above 0 and at most 1.
        show_progress_bar: Whether to show a progress bar. None shows one in a terminal.

    Returns:
        Recall of each retriever that is searched approximately and of the fused ranking, times, and advice.

    Raises:
        BackendError: The engine has no exact search to compare with.
        InvalidArgumentError: There are no queries, or none of them finds anything.
        IndexNotFoundError: Nothing has been indexed yet.

    >>> import hybridsearch as hs
    >>> search = HybridSearch({"bm25": hs.BM25()})
    >>> report = search.index([hs.Document("a", "a wing"), hs.Document("b", "a jet")], show_progress_bar=False)
    >>> recall(search, ["wing"]).notes
    ['Every retriever is searched exactly, so no document is missed.']
    """
    arguments.of_type("search", search, HybridSearch, "an index such as hs.open('my-index')")
    if isinstance(queries, str):
        raise InvalidArgumentError(f"queries are several texts, not one string: write [{queries[:40]!r}].")
    number, top_k = arguments.whole_number("number", number), arguments.whole_number("top_k", top_k)
    target = arguments.number("target", target, above=0, most=1)
    names = None if retrievers is None else list(retrievers)
    plan = search.plan(top_k, filter=filter, retrievers=names, candidates=candidates, reranker=None)
    plan = replace(plan, passages=())
    backend, place = search.backend, search.place
    capabilities = backend.capabilities
    schema = backend.open()
    kinds = {name: schema.retrievers[name].kind for name in plan.retrievers} if schema else {}
    rough = {name: kind for name, kind in kinds.items() if kind in capabilities.approximate}
    exact = tuple(name for name in plan.retrievers if name not in rough)
    if not rough:
        return RecallReport(place, "", 0, top_k, plan.depth, target, (), exact, None, None)
    if not capabilities.exact_on_request:
        raise BackendError(
            f"The engine at {place} has no exact search to compare with. Elasticsearch needs its module lang-painless, "
            "which full distributions have."
        )
    texts, source = _queries(search, queries, number)
    asked = plan.encode(texts).requests
    found = _Comparison(backend, plan, asked, rough)
    with progress_bar("Comparing", texts, show_progress_bar, "queries") as advance:
        for query in range(len(texts)):
            found.ask(query)
            advance(1)
    compared = []
    for name, kind in rough.items():
        searched = [found.approximation(name)]
        for times in _DEEPER if searched[0].top.mean < target else ():
            if searched[-1].top.mean < target and plan.depth * times <= _DEEPEST:
                searched.append(found.deeper(name, plan.depth * times))
        p50, p95 = _percentiles(found.exact_seconds[name])
        more = capabilities.finds_more.get(kind, "")
        compared.append(RetrieverRecall(name, kind, tuple(searched), p50, p95, more))
    fused, same = found.fused()
    return RecallReport(place, source, len(texts), top_k, plan.depth, target, tuple(compared), exact, fused, same)


class _Comparison:
    """The approximate and the exact answers to queries, and their times.

    Args:
        backend: Backend to ask.
        plan: Plan of the searches.
        asked: Requests of each retriever, one for each query.
        rough: Kinds of the retrievers that are searched approximately, by name.
    """

    def __init__(
        self, backend: Backend, plan: Plan, asked: Mapping[str, Sequence[Request]], rough: Mapping[str, Kind]
    ) -> None:
        self._backend, self._plan, self._asked, self._rough = backend, plan, asked, rough
        self._tolerance = backend.capabilities.score_tolerance
        self._found: dict[str, list[Ranking]] = {name: [] for name in asked}
        self._right: dict[str, list[Ranking]] = {name: [] for name in asked}
        self._seconds: dict[str, list[float]] = {name: [] for name in rough}
        self.exact_seconds: dict[str, list[float]] = {name: [] for name in rough}
        for name in rough:
            for request in asked[name][:_WARM]:
                backend.search([request])
            backend.search([replace(asked[name][0], exact=True)])

    def ask(self, query: int) -> None:
        """Ask one query, both ways."""
        for name, requests in self._asked.items():
            request = requests[query]
            if name in self._rough:
                self._found[name].append(self._timed(request, self._seconds[name]))
                self._right[name].append(self._timed(replace(request, exact=True), self.exact_seconds[name]))
            else:
                (ranking,) = self._backend.search([request])
                self._found[name].append(ranking)
                self._right[name].append(ranking)

    def approximation(self, name: str) -> Approximation:
        """The recall of a retriever as it is asked."""
        depth = self._plan.depth
        top, whole = (self._recall(name, self._found[name], k) for k in (self._plan.top_k or depth, depth))
        return Approximation(depth, top, whole, *_percentiles(self._seconds[name]))

    def deeper(self, name: str, candidates: int) -> Approximation:
        """The recall of a retriever that is asked for more candidates."""
        seconds: list[float] = []
        found = [self._timed(replace(request, k=candidates), seconds) for request in self._asked[name]]
        top = self._recall(name, found, self._plan.top_k or candidates)
        return Approximation(candidates, top, None, *_percentiles(seconds))

    def fused(self) -> tuple[Interval, float]:
        """The recall of the fused ranking, and the share of queries whose first hits are the exact ones."""
        pairs = []
        for query in range(len(next(iter(self._found.values())))):
            rankings = ({name: of[query] for name, of in side.items()} for side in (self._found, self._right))
            found, right = ([hit.id for hit in self._plan.fusion.fused(one).top(self._plan.top_k)] for one in rankings)
            pairs.append((found, right))
        counts = [(len({*found} & {*right}), len(right)) for found, right in pairs if right]
        return _share(counts), float(np.mean([one == two for one, two in pairs]))

    def _recall(self, name: str, found: Sequence[Ranking], k: int) -> Interval:
        """The share of the exact first `k` hits that the first `k` of `found` have."""
        tolerance = self._tolerance[self._rough[name]]
        counts = []
        for ours, right in zip(found, self._right[name], strict=True):
            best = right.top(k)
            if not len(best):
                continue
            ids, least = set(best.ids), float(best.scores[-1])
            least -= tolerance * max(abs(least), 1.0)
            hits = sum(id in ids or score >= least for id, score in ours.top(k))
            counts.append((min(hits, len(best)), len(best)))
        if not counts:
            raise InvalidArgumentError(f"No query finds anything with retriever {name!r}: give other queries.")
        return _share(counts)

    def _timed(self, request: Request, seconds: list[float]) -> Ranking:
        started = time.perf_counter()
        (ranking,) = self._backend.search([request])
        seconds.append(time.perf_counter() - started)
        return ranking


def _queries(
    search: HybridSearch, given: Iterable[str] | Mapping[str, str] | Dataset | None, number: int
) -> tuple[list[str], str]:
    """The texts of the queries, and a sentence on where they come from."""
    if given is None:
        texts = [text for text in first_sentences(_some_documents(search), number).values() if text]
        said = (
            f"The queries are titles or first words of documents, from the first {_READ:,} that the engine reads. They "
            "are easier than queries of people."
        )
    else:
        queries: Iterable[str] | Mapping[str, str] = given.queries if isinstance(given, Dataset) else given
        listed = queries.values() if isinstance(queries, Mapping) else queries
        texts = [text for text in arguments.texts(list(listed)) if text.strip()]
        said = f"The queries are {min(number, len(texts)):,} of the {len(texts):,} that were given."
    texts = spread(texts, number)
    if not texts:
        raise InvalidArgumentError("There is no query to ask: give queries, or index documents with text.")
    return texts, said


def _some_documents(search: HybridSearch) -> list[Document]:
    if not search.backend.capabilities.scan:
        raise BackendError("The engine cannot list its documents, so no query is sampled from them: give queries.")
    batches = search.backend.scan(256)
    documents = (document for batch in batches for document in batch.documents)
    return [document for document in islice(documents, _READ) if document.content.strip()]


def _share(counts: Sequence[tuple[int, int]]) -> Interval:
    """The share of hits that were found. `counts` has how many were found and wanted, for each query."""
    return proportion_interval([found for found, _ in counts], [wanted for _, wanted in counts])


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95]).tolist()
    return p50, p95


def _cell(value: Interval | None) -> list[str]:
    return [""] if value is None else [f"{value.mean:.3f}", f"{value.low:.3f}–{value.high:.3f}"]
