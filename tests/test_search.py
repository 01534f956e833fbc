"""Tests of HybridSearch with the memory backend, from documents to explained hits."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import math
import pickle
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Capabilities, Fingerprint, Request, RetrieverSchema
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    DocumentError,
    EncodingError,
    FilterError,
    FingerprintMismatchError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidArgumentError,
    NoRetrieverError,
    RetrieverError,
    RetrieverTimeoutError,
)
from hybridsearch.vectors import DenseVectors, EncodedBatch

DOCUMENTS = [
    hs.Document("lift", "Lift grows with the angle of attack until the flow separates.", "Wings", {"year": 1956}),
    hs.Document("heat", "Heat transfer in a laminar boundary layer on a flat plate.", "Heat", {"year": 1958}),
    hs.Document("flutter", "Flutter couples bending and torsion of a wing.", "Flutter", {"year": 1961}),
    hs.Document("shock", "A shock wave thickens the boundary layer and the flow separates.", "Shocks", {"year": 1961}),
    hs.Document("empty", ""),
]


NO_MATCH = ("No document matches the filter.",)


class HashedWords:
    """A dense encoder that needs no model: each word is a fixed random direction."""

    def __init__(self, dimensions: int = 16, delay: float = 0.0, error: Exception | None = None) -> None:
        self.dimensions, self.delay, self.error = dimensions, delay, error
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        self.encoded += texts
        return DenseVectors(np.stack([self._row(text) for text in texts]), "cosine")

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        time.sleep(self.delay)
        if self.error:
            raise self.error
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> NDArray[np.float32]:
        row = np.zeros(self.dimensions)
        for word in text.lower().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")
            row += np.random.default_rng(seed).normal(size=self.dimensions)
        norm = np.linalg.norm(row)
        return (row / norm if norm else row).astype(np.float32)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("hashed-words", {"dimensions": self.dimensions})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=self.dimensions, metric="cosine")


class ByLength:
    """A reranker that prefers short texts."""

    def __init__(self, top_k: int = 50) -> None:
        self.top_k = top_k

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]) -> list[NDArray[np.float64]]:
        return [np.array([-float(len(d.text)) for d in of_query], dtype=np.float64) for of_query in documents]

    def to_json(self) -> None:
        return None


def hybrid(**arguments: object) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": HashedWords()}, **arguments)  # type: ignore[arg-type]
    search.index(DOCUMENTS)
    return search


def test_a_hit_knows_its_rank_score_and_contribution_in_every_retriever() -> None:
    results = hybrid().search("boundary layer flow")
    for hit in results:
        fused = sum(1 / (60 + of_retriever.rank) for of_retriever in hit.retrievers.values())
        assert hit.score == pytest.approx(fused)
        assert all(r.contribution == pytest.approx(1 / (60 + r.rank)) for r in hit.retrievers.values())
    assert [hit.rank for hit in results] == list(range(1, len(results) + 1))
    assert results[0].id == "shock"
    assert results[0].document == DOCUMENTS[3]


def test_search_many_equals_the_loop() -> None:
    search = hybrid()
    queries = ["boundary layer", "wing flutter", "", "flow separates", "unknownword"]
    assert search.search_many(iter(queries), 3) == [search.search(query, 3) for query in queries]


def test_search_many_of_nothing_is_nothing() -> None:
    assert hybrid().search_many([]) == []


def test_asking_for_more_never_reorders_the_top() -> None:
    search = hybrid()
    assert search.search("flow over a wing", 4).ids[:2] == search.search("flow over a wing", 2).ids


def test_empty_queries_and_empty_documents_are_never_hits() -> None:
    search = hybrid()
    assert search.search("").ids == search.search("   ").ids == []
    assert "empty" not in search.search("flow", 100).ids
    assert search.get(["empty"])[0] == DOCUMENTS[4]


def test_one_filter_counts_for_all_retrievers() -> None:
    results = hybrid().search("flow boundary wing", filter={"year": {"$gte": 1961}})
    assert set(results.ids) == {"flutter", "shock"}


def test_per_call_arguments_leave_the_index_as_it_is() -> None:
    search = hybrid()
    before = search.search("flow")
    only = search.search("flow", 1, retrievers=["bm25"], fusion=hs.ScoreFusion("none"), candidates=1)
    assert only.retrievers == ("bm25",)
    assert only[0].score == pytest.approx(only[0].retrievers["bm25"].score)
    assert search.search("flow") == before


def test_a_retriever_of_weight_zero_is_not_asked() -> None:
    search = hybrid(fusion=hs.RRF(weights={"bm25": 1, "dense": 0}))
    assert search.search("flow") == search.search("flow", retrievers=["bm25"])


def test_explain_sums_the_matched_terms_to_the_score() -> None:
    hit = hybrid().search("layer layer layer boundary flow")[0]
    explanation = hit.explain()
    terms = explanation.terms["bm25"]
    assert set(terms) == {"boundari", "layer", "flow"}
    assert list(terms.items()) == sorted(terms.items(), key=lambda item: (-item[1], item[0]))
    assert sum(terms.values()) == pytest.approx(hit.retrievers["bm25"].score)
    assert "dense" not in explanation.terms
    assert "boundari" in str(explanation)


def test_all_hits_are_explained_as_each_is_alone_in_one_call_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    results = hybrid().search("boundary layer flow")
    alone = [hit.explain() for hit in results]
    asked: list[list[str]] = []
    explain = MemoryBackend.explain

    def counted(self: MemoryBackend, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        asked.append(list(ids))
        return explain(self, request, ids)

    monkeypatch.setattr(MemoryBackend, "explain", counted)
    assert results.explain() == alone
    assert asked == [[hit.id for hit in results if "bm25" in hit.retrievers]]
    assert hybrid().search("").explain() == []


def test_a_plan_answers_like_a_search_with_its_settings() -> None:
    search = hybrid(candidates=7)
    plan = search.plan(2, filter={"year": 1961}, retrievers="bm25")
    assert (plan.retrievers, plan.depth, plan.top_k, plan.reranker) == (("bm25",), 7, 2, None)
    queries = ["boundary layer", "wing"]
    expected = search.search_many(queries, 2, filter={"year": 1961}, retrievers=["bm25"])
    assert plan.results(queries) == expected
    assert asyncio.run(plan.aresults(queries)) == expected
    assert plan.ask(queries).rankings["bm25"] == asyncio.run(plan.aask(queries)).rankings["bm25"]
    assert plan.ask([]).by_query == plan.results([]) == []
    with pytest.raises(InvalidArgumentError, match="queries is a list of strings"):
        plan.ask("wing")
    with pytest.raises(IndexNotFoundError, match="Nothing is indexed"):
        hs.HybridSearch({"bm25": hs.BM25()}).plan()


def test_explain_by_id_tells_why_a_document_is_not_found() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, candidates=1)
    search.index(DOCUMENTS)
    best = search.search("boundary layer")[0].id
    other = {"heat": "shock", "shock": "heat"}[best]
    missing = search.explain("boundary layer", other)
    assert missing.rank is None
    assert set(missing.terms["bm25"]) == {"boundari", "layer"}
    assert search.explain("boundary layer", best).rank == 1
    with pytest.raises(InvalidArgumentError, match="'nowhere'"):
        search.explain("boundary layer", "nowhere")


def test_explaining_a_document_that_is_no_candidate_encodes_and_searches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, candidates=1)
    search.index(DOCUMENTS)
    searches: list[int] = []
    ask, encode = MemoryBackend.search, hs.BM25.encode_queries
    monkeypatch.setattr(MemoryBackend, "search", lambda *given: (searches.append(1), ask(*given))[1])
    monkeypatch.setattr(hs.BM25, "encode_queries", lambda *given: (searches.append(2), encode(*given))[1])
    assert search.explain("boundary layer", "lift").rank is None
    assert searches == [2, 1]


def test_reranking_keeps_the_tail_below_and_remembers_the_rank_before() -> None:
    search = hybrid(reranker=ByLength(top_k=2))
    plain = search.search("boundary layer flow", reranker=None)
    reranked = search.search("boundary layer flow")
    assert set(reranked.ids[:2]) == set(plain.ids[:2])
    assert reranked.ids[2:] == plain.ids[2:]
    lengths = [len(hit.document.text) for hit in reranked[:2]]
    assert lengths == sorted(lengths)
    assert [plain.ids[hit.rank_before_reranking - 1] for hit in reranked] == reranked.ids
    assert [hit.reranker_score is None for hit in reranked] == [False, False, *[True] * (len(plain) - 2)]
    assert "reranker score" in str(reranked[0].explain())


def test_a_reranker_that_cannot_be_made_again_is_missed_aloud(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index", reranker=ByLength()) as search:
        search.index(DOCUMENTS)
    with pytest.warns(UserWarning, match="pass reranker="):
        hs.open(tmp_path / "index").close()
    with hs.open(tmp_path / "index", reranker=ByLength()) as again:
        assert again.search("flow")[0].reranker_score is not None


def test_equal_reranker_scores_keep_the_fused_order() -> None:
    class Indifferent(ByLength):
        def rerank(
            self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]
        ) -> list[NDArray[np.float64]]:
            return [np.array([0.1 + 0.2 if i % 2 else 0.3 for i in range(len(d))]) for d in documents]

    search = hybrid(reranker=Indifferent())
    assert search.search("boundary layer flow").ids == search.search("boundary layer flow", reranker=None).ids


@pytest.mark.parametrize("scores", [[0.5], [float("nan")] * 4, [0.5] * 4])
def test_a_reranker_must_give_one_finite_score_a_document(scores: list[float]) -> None:
    class Careless(ByLength):
        def rerank(
            self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]
        ) -> list[NDArray[np.float64]]:
            return [scores]  # type: ignore[list-item]

    search = hybrid(reranker=Careless())
    if scores == [0.5] * 4:
        assert len(search.search("flow")) == 4
    else:
        with pytest.raises(EncodingError, match="The reranker"):
            search.search("flow")


def test_explanations_and_rankings_tell_of_an_optional_retriever_that_failed() -> None:
    broken = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": broken}, optional=["dense"])
    search.index(DOCUMENTS)
    assert search.explain("flow", "empty").notes == ()
    broken.error = RuntimeError("no memory")
    note = "The retriever 'dense' did not answer, so this explanation is without it."
    assert search.search("boundary layer")[0].explain().notes == (note,)
    assert search.explain("boundary layer", "heat").notes == (note,)
    assert search.explain("flow", "empty").notes == (note,)
    with pytest.warns(UserWarning, match="The rankings are without dense: .*no memory"):
        assert [list(found) for found in search.rankings(["flow"])] == [["bm25"]]


def test_an_optional_retriever_that_fails_degrades_the_results() -> None:
    broken = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": broken}, optional=["dense"])
    search.index(DOCUMENTS)
    assert search.search("flow").degraded == []
    broken.error = OSError("the model server is gone")
    results = search.search("flow")
    assert results.degraded == ["dense"]
    assert "model server is gone" in results.failures["dense"]
    assert results.ids == search.search("flow", retrievers=["bm25"]).ids


def test_a_retriever_that_is_missing_is_noted_wherever_results_are_shown() -> None:
    broken = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": broken}, optional=["dense"])
    search.index(DOCUMENTS)
    assert search.search("flow").notes == ()
    broken.error = OSError("the <model> server is gone")
    note = "Without dense: Retriever 'dense' failed: OSError: the <model> server is gone"
    for results in (search.search("flow"), *search.search_many(["flow"]), asyncio.run(search.asearch("flow"))):
        assert results.notes == (note,)
    assert note in " ".join(str(results).split())
    assert note.replace("<", "&lt;").replace(">", "&gt;") in results._repr_html_().replace("&#x27;", "'")
    assert results.to_dict()["notes"] == [note]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("To be, or not to be", "each word of the query is a stop word (to, be, or, not)"),
        ("this and that, here and there", "each word of the query is a stop word (this, and, that, here, there)"),
        ("who am I and what are you", "each word of the query is a stop word (who, am, i, and, what and more)"),
        ("?!", "the query has no word"),
    ],
)
def test_a_query_without_a_term_is_noted_and_one_with_a_term_is_not(query: str, reason: str) -> None:
    search = hybrid()
    advice = " An index with BM25(stop_words=False) finds them." if "stop word" in reason else ""
    note = f"bm25: {reason}, so it finds nothing.{advice}"
    assert search.search(query).notes == (note,)
    assert [results.notes for results in search.search_many([query, "flow"])] == [(note,), ()]
    assert search.search(" ").notes == ("The query is blank, so it finds nothing.",)


def test_a_blank_query_loads_no_model() -> None:
    class NotAsked(hs.BM25):
        def encode_queries(self, queries: Sequence[str]) -> Any:
            raise AssertionError("a blank query was encoded")

    search = hs.HybridSearch({"bm25": NotAsked()})
    search.index(DOCUMENTS)
    found = [search.search(" \n"), asyncio.run(search.asearch("")), *search.search_many(["", "\t"])]
    assert [(results.ids, results.retrievers, results.notes) for results in found] == 4 * [
        ([], ("bm25",), ("The query is blank, so it finds nothing.",))
    ]


@pytest.mark.parametrize("variant", ["robertson", "atire"])
def test_a_query_whose_words_are_too_frequent_to_weigh_anything_is_noted(variant: Any) -> None:
    search = hs.HybridSearch({"words": hs.BM25(variant=variant)})
    search.index([{"id": "a", "text": "a wing and its lift"}, {"id": "b", "text": "a wing and its drag"}])
    found = search.search("wing")
    assert (len(found), len(found.notes)) == (0, 1)
    assert found.notes[0].startswith("words: each word of the query is in so many documents that the BM25 variant")
    assert search.search("zebra").notes == ()


def test_a_filter_on_a_field_that_no_document_has_is_noted() -> None:
    search = hybrid()
    note = "The filter asks about 'yaer', but no document has this field."
    for misspelt in ({"yaer": 1961}, {"yaer": {"$ne": 1961}}, {"$or": [{"year": 1961}, {"$not": {"yaer": 1961}}]}):
        assert search.search("flow", filter=misspelt).notes == (note,)
        assert asyncio.run(search.asearch("flow", filter=misspelt)).notes == (note,)
    assert search.search("flow", filter={"year": 1900, "id": "nowhere"}).notes == NO_MATCH
    search.upsert(hs.Document("late", "flow", metadata={"yaer": 1961}))
    assert search.search("flow", filter={"yaer": 1961}).notes == ()
    search.delete("late")
    assert search.search("flow", filter={"yaer": 1961}).notes == (note,)
    search.upsert(hs.Document("late", "flow", metadata={"yaer": 1961}))
    assert search.search("flow", filter={"yaer": 1961}).notes == ()
    search.delete(filter={"yaer": 1961})
    assert search.search("flow", filter={"yaer": 1961}).notes == (note,)


@pytest.mark.parametrize(
    ("test", "kind"),
    [
        ({"$gte": 2020}, "a number"),
        ({"$ne": 2020}, "a number"),
        ({"$in": [2020, True]}, "a number or a boolean"),
        ({"$contains": True}, "a boolean"),
        ({"$lt": "2024-01-01T00:00Z"}, "an instant"),
    ],
)
def test_a_filter_that_compares_with_another_kind_of_value_than_documents_have_is_noted(test: Any, kind: str) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert(hs.Document("a", "a wing", metadata={"year": ["unknown", "x2021"]}))
    note = f"The filter compares 'year' with {kind}, but all values of this field are of another kind."
    assert search.search("wing", filter={"year": test}).notes == (note,)
    assert search.search("wing", filter={"$or": [{"year": test}, {"yaer": test}]}).notes == (
        note,
        "The filter asks about 'yaer', but no document has this field.",
    )
    assert search.search("wing", filter={"year": {"$in": [2020, "unknown", None]}}).notes == ()
    held = {"a number": 1, "a number or a boolean": False, "a boolean": True, "an instant": "2023-01-01T00:00Z"}[kind]
    search.upsert(hs.Document("b", "a wing", metadata={"year": held}))
    results = search.search("wing", filter={"year": test})
    assert results.notes == (() if results else NO_MATCH)


def test_a_field_that_a_filter_has_met_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    search = hybrid()
    search.search("flow", filter={"year": 1961})
    monkeypatch.setattr(MemoryBackend, "count", lambda *_: pytest.fail("counted again"))
    assert search.search("flow", filter={"year": {"$gte": 1956}}).notes == ()


def test_timings_of_retrievers_side_by_side_add_up_to_the_call() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": HashedWords(delay=0.2)}, optional=["dense"])
    search.index(DOCUMENTS)
    search.search("flow")
    started = time.perf_counter()
    timings = search.search("flow").timings
    assert 0.2 < sum(timings.values()) < time.perf_counter() - started + 0.05
    assert timings["encode dense"] > 0.2


def test_an_optional_retriever_that_is_too_slow_degrades_the_results() -> None:
    slow = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": slow}, optional="dense", timeout={"dense": 0.2})
    search.index(DOCUMENTS)
    search.search("warm up", retrievers=["bm25"])
    slow.delay = 3.0
    started = time.perf_counter()
    results = search.search("flow")
    assert time.perf_counter() - started < 2
    assert results.degraded == ["dense"]
    assert results.ids


def test_a_required_retriever_that_fails_or_is_slow_raises() -> None:
    dense = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": dense}, optional=["bm25"], timeout=0.2)
    search.index(DOCUMENTS)
    dense.delay = 1.0
    with pytest.raises(RetrieverTimeoutError, match=r"'dense' took longer than its timeout of 0.2 s"):
        search.search("flow")
    dense.delay, dense.error = 0.0, ValueError("no")
    with pytest.raises(RetrieverError, match="'dense' failed: ValueError: no"):
        search.search("flow")


def test_when_every_optional_retriever_fails_there_is_an_error() -> None:
    dense = HashedWords()
    search = hs.HybridSearch({"dense": dense}, optional=["dense"])
    search.index(DOCUMENTS)
    dense.error = ValueError("no")
    with pytest.raises(RetrieverError, match="No retriever answered"):
        search.search("flow")


def test_asearch_leaves_the_event_loop_free() -> None:
    slow = HashedWords()
    search = hs.HybridSearch({"dense": slow})
    search.index(DOCUMENTS)
    expected = search.search("flow")
    slow.delay = 0.3

    async def both() -> tuple[hs.Results, int]:
        task = asyncio.create_task(search.asearch("flow"))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return task.result(), ticks

    results, ticks = asyncio.run(both())
    assert results == expected
    assert ticks > 5


class Asked(MemoryBackend):
    """A backend that remembers how many documents it was asked for. It says that its dense searches are approximate."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, approximate=frozenset({"dense"}), least_candidates={"dense": 100})

    def search(self, requests: Sequence[Request]) -> list[hs.Ranking]:
        self.depths = [request.k for request in requests]
        return super().search(requests)


@pytest.mark.parametrize(
    ("options", "depth"),
    [
        ({}, 3),
        ({"offset": 1}, 4),
        ({"fusion": "minmax"}, 100),  # the score of each hit depends on the last candidate
        ({"fusion": hs.RRF(k=1e12)}, 100),  # all ranks have the same score
        ({"min_score": 0.01}, 3),
        ({"retrievers": ["bm25", "dense"]}, 100),
        ({"retrievers": ["dense"]}, 3),
        ({"retrievers": ["dense"], "candidates": 101}, 101),  # an approximate search finds other documents then
    ],
)
def test_a_search_by_one_retriever_reads_as_many_documents_as_it_shows(options: dict[str, Any], depth: int) -> None:
    search = hybrid(backend=Asked())
    options = {"retrievers": ["bm25"], **options}
    found = search.search("flow over a wing", 3, **options)
    assert set(search.backend.depths) == {depth}  # type: ignore[attr-defined]
    whole = search.search("flow over a wing", 100, **options)
    assert [hit.to_dict() for hit in found] == [hit.to_dict() for hit in whole[:3]]


class Awaited(MemoryBackend):
    """The memory backend with a slow asynchronous search. It knows which searches are running."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = delay
        self.on_the_way = self.at_once = self.calls = self.cancelled = 0
        self.released = False

    async def asearch(self, requests: Sequence[Request]) -> list[hs.Ranking]:
        self.on_the_way += 1
        self.calls += 1
        self.at_once = max(self.at_once, self.on_the_way)
        try:
            await asyncio.sleep(self.delay)
            return self.search(requests)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.on_the_way -= 1

    async def aclose(self) -> None:
        self.released = True
        self.close()


def awaited(delay: float = 0.0, **arguments: Any) -> tuple[Awaited, hs.HybridSearch]:
    backend = Awaited(delay)
    return backend, hybrid(backend=backend, **arguments)


@pytest.mark.parametrize("options", [{}, {"optional": ["dense"]}, {"timeout": 30.0}, {"timeout": math.inf}])
def test_asearch_gives_what_search_gives(options: dict[str, Any]) -> None:
    _, search = awaited(reranker=ByLength(top_k=2), **options)
    queries = ["boundary layer flow", "wing", "", "unknownword"]
    expected = search.search_many(queries, 3, filter={"year": {"$gte": 1956}}, candidates=7)

    async def ask() -> tuple[list[hs.Results], list[hs.Results]]:
        one = [await search.asearch(query, 3, filter={"year": {"$gte": 1956}}, candidates=7) for query in queries]
        return one, await search.asearch_many(queries, 3, filter={"year": {"$gte": 1956}}, candidates=7)

    assert asyncio.run(ask()) == (expected, expected)


def test_all_retrievers_of_all_queries_are_asked_in_one_call() -> None:
    backend, search = awaited()
    asyncio.run(search.asearch_many(["flow", "wing", "heat"]))
    assert backend.calls == 1


def test_many_searches_are_on_the_way_at_once() -> None:
    backend, search = awaited(delay=0.3)

    async def ask() -> list[hs.Results]:
        return await asyncio.gather(*(search.asearch("flow") for _ in range(50)))

    started = time.perf_counter()
    results = asyncio.run(ask())
    assert time.perf_counter() - started < 5
    assert backend.at_once > 20
    assert all(found == results[0] for found in results)


@pytest.mark.parametrize("optional", [[], ["dense"]])
def test_cancelling_a_search_cancels_what_the_engine_does_for_it(optional: list[str]) -> None:
    backend, search = awaited(delay=30.0, optional=optional)

    async def ask() -> None:
        task = asyncio.create_task(search.asearch("flow"))
        while not backend.on_the_way:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert (backend.on_the_way, backend.cancelled) == (0, backend.calls)


def test_an_engine_that_is_too_slow_is_cancelled_and_the_results_are_degraded() -> None:
    class OnlyDenseIsSlow(Awaited):
        async def asearch(self, requests: Sequence[Request]) -> list[hs.Ranking]:
            self.delay = 30.0 if requests[0].retriever == "dense" else 0.0
            return await super().asearch(requests)

    backend = OnlyDenseIsSlow()
    search = hybrid(backend=backend, optional=["dense"], timeout={"dense": 0.2})
    results = asyncio.run(search.asearch("flow"))
    assert results.degraded == ["dense"]
    assert results.ids == search.search("flow", retrievers=["bm25"]).ids
    assert backend.cancelled == 1


def test_an_encoder_that_is_too_slow_keeps_no_asynchronous_search_waiting() -> None:
    slow = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": slow}, Awaited(), optional="dense", timeout={"dense": 0.2})
    search.index(DOCUMENTS)
    search.search("warm up", retrievers=["bm25"])
    slow.delay = 3.0
    started = time.perf_counter()
    assert asyncio.run(search.asearch("flow")).degraded == ["dense"]
    assert time.perf_counter() - started < 2


def test_a_required_retriever_that_fails_or_is_slow_raises_from_asearch() -> None:
    dense = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": dense}, Awaited(), optional=["bm25"], timeout=0.2)
    search.index(DOCUMENTS)
    dense.delay = 1.0
    with pytest.raises(RetrieverTimeoutError, match=r"'dense' took longer than its timeout of 0.2 s"):
        asyncio.run(search.asearch("flow"))
    dense.delay, dense.error = 0.0, ValueError("no")
    with pytest.raises(RetrieverError, match="'dense' failed: ValueError: no"):
        asyncio.run(search.asearch("flow"))


def test_aclose_releases_what_the_engine_holds_in_the_event_loop() -> None:
    backend, search = awaited()

    async def ask() -> hs.Results:
        async with contextlib.aclosing(search):
            return await search.asearch("flow")

    assert asyncio.run(ask()).ids
    assert backend.released
    asyncio.run(hybrid().aclose())


def test_indexing_the_same_documents_again_encodes_nothing() -> None:
    dense = HashedWords()
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": dense})
    first = search.index(DOCUMENTS)
    changed = hs.Document("lift", "Lift is now something else.")
    dense.encoded.clear()
    second = search.index([*DOCUMENTS[1:], changed])
    assert (first.indexed, first.unchanged) == (5, 0)
    assert (second.indexed, second.unchanged) == (1, 4)
    assert dense.encoded == ["Lift is now something else."]


def test_metadata_that_changes_only_its_type_is_stored() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "a", "text": "wing", "metadata": {"x": 1}})
    assert search.upsert({"id": "a", "text": "wing", "metadata": {"x": True}}).indexed == 1
    assert search.count({"x": True}) == 1


def test_an_index_of_no_documents_is_an_index() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    assert search.index([]).indexed == 0
    assert search.count() == 0
    assert search.search("flow").ids == []


def test_two_threads_may_bring_the_first_documents() -> None:
    class SlowToDescribe(hs.BM25):
        def schema(self) -> RetrieverSchema:
            time.sleep(0.1)
            return super().schema()

    search = hs.HybridSearch({"bm25": SlowToDescribe()})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: search.upsert({"id": str(i), "text": "wing"}), range(4)))
    assert search.count() == 4


def test_a_slow_fingerprint_of_an_optional_retriever_delays_no_other(tmp_path: Path) -> None:
    class SlowToIdentify(HashedWords):
        def fingerprint(self) -> Fingerprint:
            time.sleep(self.delay)
            return super().fingerprint()

    with hs.HybridSearch({"bm25": hs.BM25(), "dense": HashedWords()}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
        search.search("flow")
    slow = {"bm25": hs.BM25(), "dense": SlowToIdentify(delay=2.0)}
    with hs.HybridSearch(slow, tmp_path / "index", optional="dense", timeout=1.0) as search:
        assert search.search("flow").degraded == ["dense"]


def test_hits_can_be_pickled_without_their_index() -> None:
    results = hybrid().search("flow")
    again = pickle.loads(pickle.dumps(results))  # noqa: S301 (our own bytes)
    assert again == results
    with pytest.raises(BackendError, match="lost its index"):
        again[0].explain()


def test_of_duplicate_ids_the_last_wins_with_a_warning_that_names_them() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    documents = [hs.Document(id, f"text number{i}") for i, id in enumerate(["a", "b", "a", "c", "b"])]
    warning = r"2 document ids came more than once.*'a', 'b'"
    with pytest.warns(UserWarning, match=warning) as by_index:
        report = search.index(documents, batch_size=2)
    with pytest.warns(UserWarning, match=warning) as by_upsert:
        search.upsert(documents)
    assert [warned.filename for warned in (*by_index, *by_upsert)] == [__file__] * 2
    assert sorted(report.duplicates) == ["a", "b"]
    assert [d and d.text for d in search.get(["a", "b", "c"])] == ["text number2", "text number4", "text number3"]
    assert search.count() == 3


@pytest.mark.parametrize(("kept", "typed"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_an_id_means_its_document_in_either_form_of_unicode_and_comes_back_as_it_was_given(
    kept: str, typed: str
) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document(kept, "a wing"), hs.Document("jet", "a jet")], show_progress_bar=False)
    assert [document and document.id for document in search.get(["jet", typed, "other"])] == ["jet", kept, None]
    assert search.explain("wing", typed).rank == 1
    assert search.explain("jet", typed).id == kept
    assert search.search("wing", filter={"id": typed}).ids == [kept]
    assert search.delete([*map("\u00e9{}".format, range(2000)), typed]) == 1
    assert search.count() == 1


def test_two_documents_whose_ids_differ_in_form_alone_are_two_and_each_is_got_by_its_own() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document("\u00e9", "a wing"), hs.Document("e\u0301", "a jet")], show_progress_bar=False)
    assert [document and document.text for document in search.get(["\u00e9", "e\u0301"])] == ["a wing", "a jet"]
    assert search.count({"id": "\u00e9"}) == 2
    assert search.delete(["\u00e9", "jet"]) == 1
    assert [document.id for document in search.documents()] == ["e\u0301"]


def test_a_filter_by_date_finds_what_has_one_and_not_what_has_none() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    frame = pd.DataFrame({"id": ["dated", "open"], "text": ["a wing", "a wing"], "expires": ["2024-02-29", None]})
    frame["expires"] = pd.to_datetime(frame["expires"])
    documents = [
        hs.Document(row["id"], row["text"], metadata={"expires": row["expires"]}) for row in frame.to_dict("records")
    ]
    search.index(documents, show_progress_bar=False)
    assert search.search("wing", filter={"expires": {"$gte": "2020-01-01"}}).ids == ["dated"]
    assert search.search("wing", filter={"expires": None}).ids == ["open"]


def test_the_metadata_of_a_hit_cannot_be_changed() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document("a", "a wing", metadata={"by": {"name": "Ada"}})], show_progress_bar=False)
    with pytest.raises(TypeError, match="copy"):
        search.search("wing")[0].document.metadata["by"]["name"] = "nobody"
    assert search.search("wing")[0].document.metadata == {"by": {"name": "Ada"}}


def test_metadata_in_another_order_of_keys_is_unchanged_and_of_another_type_is_not() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "1", "text": "a wing", "x": {"a": 1, "b": [1, {"c": 1, "d": 2}]}, "y": 1})
    for changed, metadata in (
        (0, {"y": 1, "x": {"b": [1, {"d": 2, "c": 1}], "a": 1}}),
        (1, {"y": 1.0, "x": {"a": 1, "b": [1, {"c": 1, "d": 2}]}}),
        (1, {"y": 1.0, "x": {"a": True, "b": [1, {"c": 1, "d": 2}]}}),
        (1, {"y": 1.0, "x": {"a": True, "b": [{"c": 1, "d": 2}, 1]}}),
    ):
        assert search.upsert({"id": "1", "text": "a wing", **metadata}).indexed == changed


@pytest.mark.parametrize("loads", [False, True])
def test_documents_that_the_engine_refused_are_told_where_the_reader_fails_too(loads: bool) -> None:
    class Refusing(MemoryBackend):
        load = None  # type: ignore[assignment]

        def upsert(self, batch: EncodedBatch) -> None:
            raise BulkIndexError([(document.id, "too long") for document in batch.documents])

    class Loading(Refusing):
        def load(self, batches: Iterable[EncodedBatch]) -> None:
            refused = [(document.id, "too long") for batch in batches for document in batch.documents]
            raise BulkIndexError(refused)

    search = hs.HybridSearch({"bm25": hs.BM25()}, (Loading if loads else Refusing)())
    with pytest.raises(DocumentError, match="number 3") as failed:
        search.index([{"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "c"}], batch_size=1)
    assert failed.value.__notes__ == ["2 documents were refused ('a': too long; 'b': too long). All others are stored."]
    with pytest.raises(BulkIndexError, match="1 document was refused"):
        search.upsert({"id": "a", "text": "x"})


def test_sync_removes_what_the_source_no_longer_has() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    documents = [hs.Document(str(number), "a wing") for number in range(2500)]
    assert search.index(documents, sync=True).removed == 0
    asked: list[int] = []
    assert search.index(documents[:2000], sync=lambda count: bool(asked.append(count))).removed == 0
    assert (asked, search.count()) == ([500], 2500)
    report = search.index([*documents[:1000], hs.Document("new", "a jet")], sync=True, batch_size=300)
    assert (report.indexed, report.unchanged, report.removed, search.count()) == (1, 1000, 1500, 1001)
    assert search.get(["999", "1000", "new"]) == [documents[999], None, hs.Document("new", "a jet")]


def test_sync_removes_nothing_where_it_cannot_know_what_is_gone(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([{"id": "a", "text": "x"}, {"id": "b", "text": "x"}])
    (tmp_path / "c.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": \n')
    with pytest.raises(DocumentError, match=r"1 line was skipped.*No document was removed.*line 2"):
        search.index(hs.read_documents(tmp_path / "c.jsonl", on_error="skip"), sync=True)
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(DocumentError, match="holds no document"):
        search.index(tmp_path / "c.jsonl", sync=True)
    nothing: list[Iterable[hs.Document]] = [[], iter(())]
    for source in nothing:
        with pytest.raises(DocumentError, match="would remove every document"):
            search.index(source, sync=True)
    with pytest.raises(InvalidArgumentError, match="--via"):
        search.index([], sync=True, via=tmp_path / "via")
    for limit in (1, 0, None, "no"):
        with pytest.raises(InvalidArgumentError, match=r"sync is True, False or a function"):
            search.index([{"id": "a", "text": "x"}], sync=limit)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="overwrite is true or false, not 'no'"):
        search.save(tmp_path / "saved", overwrite="no")  # type: ignore[arg-type]
    assert search.count() == 2


def test_a_report_has_the_notes_of_its_reader(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,text,zip\n1,a,90210\n2,b,02134\n")
    [note] = hs.HybridSearch({"bm25": hs.BM25()}).index(tmp_path / "c.csv").notes
    assert "'zip' is read as str (line 3 holds '02134')" in note
    assert hs.HybridSearch({"bm25": hs.BM25()}).index([{"id": "1", "text": "a", "zip": 1}]).notes == ()
    reader = hs.read_documents([{"id": "1", "text": "a"}, {"text": "b"}], on_error="skip")
    [note] = hs.HybridSearch({"bm25": hs.BM25()}).index(reader).notes
    assert note.startswith("1 document was skipped: documents, number 2: there is no id")


def test_a_data_frame_is_indexed_as_it_is() -> None:
    pandas = pytest.importorskip("pandas")
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(pandas.DataFrame({"id": [7, 8], "text": ["a wing", "a jet"], "year": [1958, 1959]}))
    assert search.search("wing", filter={"year": {"$lt": 1959}}).ids == ["7"]


def test_results_become_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    search = hybrid()
    found = search.search("angle of attack", top_k=3)
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["id"]) == found.ids
    assert list(frame["score"]) == [hit.score for hit in found]
    assert list(frame["rank"]) == [1, 2, 3]
    for name in found.retrievers:
        ranks = [hit.retrievers[name].rank if name in hit.retrievers else None for hit in found]
        assert [None if pandas.isna(rank) else rank for rank in frame[f"{name}.rank"]] == ranks
    nothing = search.search("", top_k=3).to_pandas()
    assert list(nothing.columns[:5]) == ["rank", "score", "id", "title", "text"]
    assert {name: nothing[name].dtype for name in nothing} == {
        name: "int64" if name.endswith("rank") else frame[name].dtype for name in nothing
    }


def test_a_filter_by_a_date_on_datetimes_is_noted() -> None:
    pandas = pytest.importorskip("pandas")
    days = pandas.to_datetime(["2024-03-01", "2024-03-02"])
    table = pandas.DataFrame({"id": ["a", "b"], "text": ["a wing", "a jet wing"], "d": days})
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(table)
    first = dt.date(2024, 3, 1)
    for test in (first, "2024-03-01", {"$lte": first}, {"$gt": first}, {"$in": [first]}, {"$ne": first}):
        (note,) = search.search("wing", filter={"d": test}).notes
        assert note.startswith(
            "The filter compares 'd' with the date '2024-03-01', but some documents have a date and time, such as "
            "'2024-03-01T00:00:00', which is not equal to the date"
        )
    for test in ({"$gte": first}, {"$lt": first}, pandas.Timestamp(first), dt.date(2024, 3, 9)):
        results = search.search("wing", filter={"d": test})
        assert results.notes == (() if results else NO_MATCH)
    search.index(hs.read_documents(table, types={"d": "date"}))
    found = search.search("wing", filter={"d": {"$lte": first}})
    assert (found.ids, found.notes) == (["a"], ())
    search.upsert({"id": "c", "text": "a wing", "d": dt.datetime(2024, 3, 1)})
    (note,) = search.search("wing", filter={"d": {"$lte": first}}).notes
    assert note.startswith("The filter compares 'd' with the date '2024-03-01'")


def test_notes_on_a_filter_follow_the_changes_of_other_processes(tmp_path: Path) -> None:
    filter = {"d": {"$lte": "2024-03-01"}}
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as writer:
        writer.upsert({"id": "a", "text": "a wing", "d": "2024-03-01"})
        with hs.open(tmp_path / "index") as reader:
            assert reader.search("wing", filter=filter).notes == ()
            writer.upsert({"id": "b", "text": "a wing", "d": "2024-03-01T00:00:00"})
            reader.refresh()
            (note,) = reader.search("wing", filter=filter).notes
    assert note.startswith("The filter compares 'd' with the date '2024-03-01'")


def test_a_retriever_that_an_index_lacks_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        search.upsert({"id": "a", "text": "x"})
    with pytest.raises(InvalidArgumentError, match=r"'more' cannot be added\. Leave out 'more', or index"):
        hs.HybridSearch({"bm25": hs.BM25(), "more": hs.BM25()}, tmp_path / "index")


def test_upsert_and_delete_are_seen_by_the_next_search() -> None:
    search = hybrid()
    search.upsert({"id": "lift", "text": "Something about propellers."})
    assert search.search("propellers", retrievers=["bm25"]).ids == ["lift"]
    assert "lift" not in search.search("angle attack", retrievers=["bm25"]).ids
    assert search.delete("lift") == 1
    assert search.delete(["lift", "nowhere"]) == 0
    assert search.search("propellers", retrievers=["bm25"]).ids == []
    assert search.count() == 4


def test_a_saved_index_opens_with_everything_it_was_made_with(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25(variant="atire", k1=0.9)}, fusion=hs.ScoreFusion("minmax"), candidates=7)
    search.index(DOCUMENTS)
    search.save(tmp_path / "index")
    with hs.open(tmp_path / "index") as again:
        assert repr(again.fusion) == repr(search.fusion)
        assert again.candidates == 7
        assert again.search("boundary layer") == search.search("boundary layer")
        assert again.count({"year": 1961}) == 2


def test_save_never_replaces_what_is_there_unasked(tmp_path: Path) -> None:
    search = hybrid()
    search.save(tmp_path / "index")
    with pytest.raises(IndexExistsError, match="index"):
        search.save(tmp_path / "index")
    search.save(tmp_path / "index", overwrite=True)


def test_an_index_in_a_folder_is_there_again_without_saving(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
        found = search.search("flow")
    with hs.open(str(tmp_path / "index")) as again:
        assert again.search("flow") == found


def test_another_encoder_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
    german = hs.BM25("german")
    with pytest.raises(FingerprintMismatchError) as caught:
        hs.HybridSearch({"bm25": german}, tmp_path / "index")
    assert hs.BM25().fingerprint().digest in str(caught.value)
    assert german.fingerprint().digest in str(caught.value)
    assert "german" in str(caught.value)


def test_an_index_that_is_there_keeps_its_fusion_unless_told_otherwise(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index", hs.ScoreFusion("zscore"), candidates=7) as search:
        search.index(DOCUMENTS)
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as again:
        assert (repr(again.fusion), again.candidates) == (repr(search.fusion), 7)
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index", hs.RRF(), candidates=9) as again:
        assert (repr(again.fusion), again.candidates) == ("RRF(k=60)", 9)


@pytest.mark.parametrize(
    ("weights", "kept"),
    [({"bm25": 1, "dense": 3}, {"bm25": 1.0}), ({"bm25": 0, "dense": 1}, None), (None, None)],
)
def test_an_index_opens_with_some_of_its_retrievers(
    tmp_path: Path, weights: dict[str, float] | None, kept: dict[str, float] | None
) -> None:
    hybrid(fusion=hs.ScoreFusion("zscore", weights)).save(tmp_path / "index")
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as some:
        assert repr(some.fusion) == repr(hs.ScoreFusion("zscore", kept))
        assert some.search("flow").ids == hybrid().search("flow", retrievers="bm25").ids != []
    report = hs.copy(tmp_path / "index", tmp_path / "copy", retrievers=["bm25"])
    assert report.differences == ()
    with hs.open(tmp_path / "copy") as copied:
        assert repr(copied.fusion) == repr(some.fusion)
        assert copied.search("flow").ids == hybrid().search("flow", retrievers="bm25").ids


def test_a_retriever_without_a_weight_is_told_before_any_search() -> None:
    with pytest.raises(InvalidArgumentError, match="weights for 'bm25' but none for 'dense'"):
        hs.HybridSearch({"bm25": hs.BM25(), "dense": HashedWords()}, fusion=hs.RRF(weights={"bm25": 1}))
    search = hybrid(fusion=hs.RRF(weights={"bm25": 0, "dense": 1}))
    with pytest.raises(NoRetrieverError, match=r"the weight 0 to 'bm25'.*fusion='rrf'"):
        search.search("flow", retrievers=["bm25"])
    assert search.search("flow", retrievers=["bm25"], fusion="rrf").ids


def test_an_encoder_of_your_own_is_asked_for_when_opening(tmp_path: Path) -> None:
    hybrid().save(tmp_path / "index")
    with pytest.raises(InvalidArgumentError, match="'dense'"):
        hs.open(tmp_path / "index")
    with hs.open(tmp_path / "index", retrievers={"dense": HashedWords()}) as again:
        assert again.search("flow") == hybrid().search("flow")
    with pytest.raises(FingerprintMismatchError):
        hs.open(tmp_path / "index", retrievers={"dense": HashedWords(dimensions=8)})


def test_an_index_that_cannot_be_opened_is_not_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hybrid().save(tmp_path / "index")
    closed = []

    class Noted(MemoryBackend):
        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("hybridsearch.places.connect", lambda place, options: Noted(place))
    with pytest.raises(IndexNotFoundError):
        hs.open(tmp_path / "nothing")
    with pytest.raises(FingerprintMismatchError):
        hs.HybridSearch({"bm25": hs.BM25("german")}, tmp_path / "index")
    assert len(closed) == 2


def test_searching_before_indexing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="call index"):
        hs.HybridSearch({"bm25": hs.BM25()}).search("flow")
    with pytest.raises(IndexNotFoundError, match="hybridsearch index"):
        hs.open(tmp_path / "nothing")


def test_a_bad_document_stops_indexing_and_keeps_the_batches_before() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    with pytest.raises(DocumentError):
        search.index([{"id": "a", "text": "good"}, {"id": "b", "text": 5}], batch_size=1)
    assert search.count() == 1


def test_results_print_as_text_and_html_without_trusting_the_documents() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document("<b>", "nasty [red]markup[/red] <script>alert(1)</script>", "title")])
    results = search.search("markup")
    assert "[red]markup[/red]" in str(results)
    assert "<script>" not in results._repr_html_()
    assert "&lt;script&gt;" in results._repr_html_()
    assert "&lt;b&gt;" in results[0]._repr_html_()
    for shown in (results[0]._repr_html_(), results[0].explain()._repr_html_()):
        assert "<script>" not in shown
    assert results.to_dict()["hits"][0]["retrievers"]["bm25"]["rank"] == 1


@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        (lambda s: s.search("q", 0), InvalidArgumentError, "top_k is 0"),
        (lambda s: s.search("q", True), InvalidArgumentError, "top_k is True"),
        (lambda s: s.search(5), InvalidArgumentError, "int"),
        (lambda s: s.search("\ud800"), InvalidArgumentError, "lone surrogate"),
        (lambda s: s.search_many("query"), InvalidArgumentError, "list"),
        (lambda s: s.search("q", candidates=-1), InvalidArgumentError, "candidates is -1"),
        (lambda s: s.search("q", retrievers=["splade"]), InvalidArgumentError, "'splade'.*'bm25', 'dense'"),
        (lambda s: s.search("q", retrievers=[]), InvalidArgumentError, "No retriever"),
        (lambda s: s.search("q", fusion=hs.RRF(weights={"bm25": 1})), InvalidArgumentError, "none for 'dense'"),
        (lambda s: s.search("q", filter={"year": {"$near": 5}}), FilterError, r"\$near"),
        (lambda s: s.search("q", fusion=hs.RRF(weights={"bm25": 1, "dnse": 2})), InvalidArgumentError, "'dnse'"),
        (lambda s: s.search("q", fusion="max"), InvalidArgumentError, "hs.RRF"),
        (lambda s: s.search("q", reranker="a/model"), InvalidArgumentError, "hs.CrossEncoderReranker"),
        (lambda s: s.search("q", reranker=np.zeros(2)), InvalidArgumentError, "hs.CrossEncoderReranker"),
        (lambda s: s.search("q", retrievers=5), InvalidArgumentError, "not 5"),
        (lambda s: s.search("q", retrievers=[["bm25"]]), InvalidArgumentError, "not \\['bm25'\\]"),
        (lambda s: s.search_many(None), InvalidArgumentError, "queries is a list of strings"),
        (lambda s: s.get([7]), InvalidArgumentError, "not 7"),
        (lambda s: s.delete(None), InvalidArgumentError, "neither is given"),
        (lambda s: s.explain("q", 7), InvalidArgumentError, "one string, not 7"),
        (lambda s: s.explain("q", ["lift"]), InvalidArgumentError, "one string"),
        (lambda s: hs.open(s.backend, retrievers=5), InvalidArgumentError, "mapping"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, optional=5), InvalidArgumentError, "not 5"),
        (lambda s: hs.HybridSearch({"bm25": "bm25"}), InvalidArgumentError, "not an encoder"),
        (lambda s: hs.HybridSearch({"bm25": hs.BM25}), InvalidArgumentError, "not an encoder"),
        (lambda s: s.search("q", reranker=hs.CrossEncoderReranker), InvalidArgumentError, "hs.CrossEncoderReranker"),
        (lambda s: s.search("q", fusion=hs.RRF), InvalidArgumentError, "hs.RRF"),
        (lambda s: s.search("q", fusion=hs.AdaptiveFusion), InvalidArgumentError, "hs.RRF"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, type(s.backend)), InvalidArgumentError, "A backend is"),
        (lambda s: hs.HybridSearch(hs.BM25()), InvalidArgumentError, "mapping"),
        (lambda s: hs.open(5), InvalidArgumentError, "not int"),
        (lambda s: hs.HybridSearch({}), InvalidArgumentError, "no retriever"),
        (lambda s: hs.HybridSearch({"a b": hs.BM25()}), InvalidArgumentError, "'a b'"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, optional=["c"]), InvalidArgumentError, "'c'"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, timeout=-1), InvalidArgumentError, "-1"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, timeout={"c": 1}), InvalidArgumentError, "'c'"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, "magic://host/x"), InvalidArgumentError, "'magic'"),
        (lambda s: hs.HybridSearch({"b": hs.BM25()}, fusion=hs.RRF(weights={"c": 1})), InvalidArgumentError, "'c'"),
    ],
)
def test_a_wrong_argument_gets_one_clear_sentence(call: object, error: type[Exception], part: str) -> None:
    with pytest.raises(error, match=part):
        call(hybrid())  # type: ignore[operator]


def test_after_close_there_is_a_clear_error() -> None:
    search = hybrid()
    search.close()
    search.close()
    with pytest.raises(BackendError):
        search.search("flow")


def test_real_models_end_to_end(minilm: str, splade: str, tmp_path: Path) -> None:
    search = hs.HybridSearch(
        {"bm25": hs.BM25(), "splade": hs.Sparse(splade), "dense": hs.Dense(minilm)}, tmp_path / "index"
    )
    search.index(DOCUMENTS)
    hit = search.search("what makes an airfoil stall?")[0]
    assert hit.id == "lift"
    search.close()
    with hs.open(tmp_path / "index") as again:
        assert again.search("what makes an airfoil stall?")[0].id == "lift"
        terms = again.search("shock wave", retrievers=["splade"])[0].explain().terms["splade"]
        assert next(iter(terms)) in {"shock", "wave"}


def test_results_without_hits_say_if_there_is_nothing_to_find() -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.upsert({"id": "a", "text": "a wing", "year": 1958})
        assert search.search("wing", filter={"year": {"$gt": 1990}}).notes == NO_MATCH
        assert search.search("jet", filter={"year": 1958}).notes == search.search("jet").notes == ()
        assert asyncio.run(search.asearch("wing", filter={"id": "b"})).notes == NO_MATCH
        search.delete("a")
        assert search.search("wing").notes == ("The index is empty.",)


def test_an_explanation_says_why_a_retriever_finds_nothing() -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.upsert({"id": "a", "text": "The Who"})
        explanation = search.explain("The Who", "a")
        assert "Note: bm25: each word of the query is a stop word (the, who)" in str(explanation)
        assert explanation.to_dict()["notes"] == list(search.search("The Who").notes)
        assert search.explain("wing", "a").notes == ()


def test_a_hit_that_is_taken_apart_names_the_way() -> None:
    search = hybrid()
    with pytest.raises(BackendError, match=r"use hit\.to_dict.*results\.to_pandas"):
        pd.DataFrame(search.search("wing"))


def test_a_record_without_text_is_refused_with_the_function_that_takes_the_name_of_the_field() -> None:
    with pytest.raises(DocumentError, match=r"with text_field of hs\.read_documents \(--text-field\)\.$"):
        hs.HybridSearch({"bm25": hs.BM25()}).index([{"id": "1", "inhalt": "wing"}])


def test_rankings_name_their_own_argument_if_they_get_one_query() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.upsert({"id": "1", "text": "wing"})
    with pytest.raises(InvalidArgumentError, match=r"^queries is a list of strings, not 'wing'"):
        search.rankings("wing")
