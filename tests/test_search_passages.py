"""Tests of long documents: passages from the index to the hits, on the memory backend and on servers."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.errors import BackendError, FingerprintMismatchError, InvalidArgumentError
from hybridsearch.passages import Splitter, counter_of
from hybridsearch.vectors import DenseVectors


class HashedWords:
    """A dense encoder that needs no model: each word is a fixed random direction."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.stack([self._row(text) for text in texts]), "cosine")

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> NDArray[np.float32]:
        row = np.zeros(self.dimensions)
        for word in text.lower().replace(".", " ").split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")
            row += np.random.default_rng(seed).normal(size=self.dimensions)
        norm = np.linalg.norm(row)
        return (row / norm if norm else row).astype(np.float32)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("hashed-words", {"dimensions": self.dimensions})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=self.dimensions, metric="cosine")


FILLER = "Water the plants in the office once a week. "
ANSWER = "Lift the battery out with the small key. "
LONG = hs.Document("long", FILLER * 30 + ANSWER + FILLER * 30, "Handbook", {"kind": "book"})
SHORT = hs.Document("short", "A battery is full after five hours.", metadata={"kind": "note"})
MARKDOWN = hs.Document(
    "md", "# Pump\n\nIt moves water.\n\n## Repair\n\nTurn the ring. Pull it off.\n", metadata={"kind": "note"}
)
DOCUMENTS = [LONG, SHORT, MARKDOWN, hs.Document("empty", "", "Nothing")]
PASSAGES = hs.Passages(size=40, whole=())

Make = Callable[..., hs.HybridSearch]


@pytest.fixture(params=["memory", "folder", "qdrant", "opensearch", "elasticsearch"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """A function that makes a search with the documents, at a place that is empty at first."""
    place: Any = request.param
    if place == "folder":
        place = tmp_path / "index"
    elif place == "qdrant":
        place = "qdrant://:memory:/passages"
    elif place != "memory":
        names = request.getfixturevalue("lucene_names")
        place = names(request.getfixturevalue(f"{place}_url"), "passages")
    made: list[hs.HybridSearch] = []

    def make(documents: Sequence[hs.Document] = DOCUMENTS, **settings: Any) -> hs.HybridSearch:
        retrievers = settings.pop("retrievers", None) or {"bm25": hs.BM25(), "dense": HashedWords(64)}
        on_server = request.param in ("opensearch", "elasticsearch")
        options = {"replicas": 0, "dense": "exact"} if on_server else {}
        settings = {"passages": PASSAGES, **settings}
        made.append(hs.HybridSearch(retrievers, place, backend_options=options, **settings))
        if documents:
            made[-1].index(documents, show_progress_bar=False)
        return made[-1]

    yield make
    for search in made:
        search.close()


def test_the_passage_that_answers_finds_the_document(make: Make) -> None:
    search = make()
    (hit,) = search.search("how do I lift the battery out", 1)
    assert hit.id == "long"
    assert hit.passage is not None
    assert ANSWER.strip() in hit.passage.text
    assert len(hit.passage.text) < 400
    assert [one.text for one in hit.passages] == [LONG.text[one.start : one.end] for one in hit.passages]
    assert set(hit.passage.retrievers) == {"bm25", "dense"}
    assert hit.passage.retrievers["bm25"].rank == 1
    (limited,) = search.search("how do I lift the battery out", 1, min_score={"dense": 2})
    assert {name for one in limited.passages for name in one.retrievers} == {"bm25"}
    assert [one.score for one in hit.passages] == sorted((one.score for one in hit.passages), reverse=True)
    assert hit.passage.score == pytest.approx(sum(one.contribution for one in hit.passage.retrievers.values()))


def test_the_context_of_a_prompt_has_the_passage_that_answers(make: Make) -> None:
    search = make()
    query = "how do I lift the battery out"
    contexts = [
        search.search(query, 2).context(300),
        search.search_many([query, "pump"], 2)[0].context(300),
        asyncio.run(search.asearch(query, 2)).context(300),
    ]
    for context in contexts:
        assert context.tokens <= 300
        assert context.sources[0].id == "long"
        assert any(ANSWER.strip() in source.text for source in context.sources if source.id == "long")
    assert contexts[0] == contexts[1] == contexts[2]


def test_the_ranks_of_passages_do_not_depend_on_the_number_of_hits(make: Make) -> None:
    search, query = make(), "water the plants with the battery key"
    several = search.search(query)
    assert len(several) > 1
    for count, hit in enumerate(several, 1):
        assert search.search(query, count)[-1].passages[:] == hit.passages[:]
    all_shown = search.search(query, search.candidates)  # a server lists the passages of all candidates at once
    assert [hit.passages[:] for hit in all_shown] == [hit.passages[:] for hit in several]
    (rankings,) = search.rankings([query])
    for hit in several:
        for name, ranking in rankings.items():
            others = [score for id, score in ranking if id != hit.id]
            found = [one.retrievers[name] for one in hit.passages if name in one.retrievers]
            for place, one in enumerate(sorted(found, key=lambda one: one.rank)):
                assert one.rank == 1 + place + sum(score > one.score for score in others)


def test_a_document_that_is_replaced_during_a_search_shows_passages_of_its_text(make: Make) -> None:
    new = replace(LONG, text=f"Another handbook. {FILLER * 41}{ANSWER}{FILLER * 20}")

    class Replacing(hs.RRF):
        """A fusion that replaces a document when the retrievers have found it."""

        def fused(self, rankings: Any) -> Any:
            search.upsert(new)
            return super().fused(rankings)

    search = make()
    splitter = Splitter(PASSAGES, counter_of(search.retrievers, name="bm25"))
    (hit,) = search.search("lift the battery out with the small key", 1, fusion=Replacing())
    assert hit.id == "long"
    assert hit.passage is not None
    (spans,) = splitter.split([hit.document])
    assert {(one.start, one.end) for one in hit.passages} <= {(start, end) for start, end, _ in spans}
    assert ANSWER.strip() in hit.passage.text


def test_the_document_stays_the_unit(make: Make) -> None:
    search = make()
    assert search.count() == len(DOCUMENTS)
    assert search.count({"kind": "note"}) == 2
    assert search.get("long") == [LONG]
    results = search.search("water the plants")
    assert len(set(results.ids)) == len(results)
    assert search.search("battery", filter={"kind": "note"}, retrievers=["bm25"]).ids == ["short"]
    assert search.search("battery", candidates=2, top_k=2, retrievers=["bm25"]).ids[0] in ("long", "short")
    assert len(search.search("battery", candidates=2, top_k=2, retrievers=["bm25"])) == 2


def test_headings_and_titles_are_read_with_each_passage(make: Make) -> None:
    search = make()
    (hit, *_) = search.search("repair of the pump", retrievers=["bm25"])
    assert hit.id == "md"
    assert hit.passage is not None
    assert "Turn the ring" in hit.passage.text
    assert search.search("handbook key", retrievers=["bm25"]).ids == ["long"]
    assert search.search("nothing", retrievers=["bm25"]).ids == ["empty"]
    (passage,) = search.search("nothing", retrievers=["bm25"])[0].passages
    assert (passage.start, passage.end, passage.text) == (0, 0, "")


def test_an_upsert_leaves_no_passage_of_the_old_text(make: Make) -> None:
    search = make()
    report = search.upsert(hs.Document("long", "Short now.", metadata={"kind": "book"}))
    assert report.indexed == 1
    assert search.search("lift key", retrievers=["bm25"]).ids == []
    assert search.count() == len(DOCUMENTS)
    assert search.delete("short") == 1
    assert search.search("battery", retrievers=["bm25"]).ids == []
    assert search.index(DOCUMENTS[2:], show_progress_bar=False).unchanged == 2


def test_a_retriever_may_read_whole_documents(make: Make) -> None:
    search = make([])
    search.close()
    whole = hs.Passages(size=40, whole=("bm25",))
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": HashedWords(64)}, passages=whole) as both:
        both.index(DOCUMENTS, show_progress_bar=False)
        both.search("battery office")
        hit = next(hit for hit in both.search("lift the battery with the key") if hit.id == "long")
        assert all(set(one.retrievers) == {"dense"} for one in hit.passages)
        only = both.search("battery", retrievers=["bm25"])[0]
        assert (only.passages, only.passage) == ((), None)


@pytest.mark.parametrize("candidates", [2, 100])
def test_a_server_is_asked_twice_if_a_retriever_reads_whole_documents(
    make: Make, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    near = [hs.Document(f"near{number}", "how to the out") for number in range(2)]
    search = make([LONG, *near], passages=hs.Passages(size=40, whole=("bm25",)))
    backend: Any = search.backend
    asked: list[str] = []
    for name in ("search", "fetch_passages"):
        method = getattr(backend, name, None)
        if method is None:
            return  # an embedded engine lists passages at no cost
        monkeypatch.setattr(backend, name, lambda *of, name=name, method=method: asked.append(name) or method(*of))
    found = search.search("how to lift the key out", 2, candidates=candidates)
    assert {len(hit.passages) for hit in found} <= {1, 3}
    assert asked == ["search", "fetch_passages"]


def test_one_retriever_of_passages_is_asked_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make([LONG, *(hs.Document(f"near{number}", "how to the out") for number in range(5))])
    backend: Any = search.backend
    sizes: list[int] = []
    monkeypatch.setattr(backend, "search", lambda asked, of=backend.search: sizes.append(asked[0].k) or of(asked))
    if hasattr(backend, "fetch_passages"):
        monkeypatch.setattr(backend, "fetch_passages", lambda *_: pytest.fail("a second request"))
    for name in search.retrievers:
        found, whole = (search.search("how to lift the key out", k, retrievers=[name]) for k in (2, 20))
        assert [hit.to_dict() for hit in found] == [hit.to_dict() for hit in whole[:2]]
        assert all(hit.passages for hit in found)
    assert sizes == [2, 20] * 2


def test_passages_have_the_same_order_whatever_number_of_documents_one_retriever_reads(make: Make) -> None:
    long = hs.Document("long", ANSWER * 4 + FILLER * 12 + "The key of the office is small. " + FILLER * 12)
    near = [hs.Document(f"near{n}", f"The battery is heavy, and the key number {n} fits it well.") for n in range(5)]
    search = make([long, *near])
    for name in search.retrievers:
        orders = []
        for k in (1, 2, 20):
            best = search.search("lift the battery out with the key", k, retrievers=[name])[0]
            assert best.passages[0].retrievers[name].rank == 1
            orders.append([(one.start, one.retrievers[name].score) for one in best.passages])
        assert orders[0] == orders[1] == orders[2]


def test_a_document_that_only_a_retriever_of_whole_documents_found_is_read_at_its_best_passage(make: Make) -> None:
    near = [hs.Document(f"near{number}", "how to the out") for number in range(2)]  # BM25 leaves out these words
    search = make([LONG, *near], passages=hs.Passages(size=40, whole=("bm25",)), candidates=2)
    query, reranker = "how to lift the key out", Reading()
    results = search.search(query, 2, candidates=2, reranker=reranker)
    hit = next(hit for hit in results if hit.id == "long")
    assert set(hit.retrievers) == {"bm25"}
    assert hit.passage is not None
    assert ANSWER.strip() in hit.passage.text
    assert [(one.score, dict(one.retrievers)) for one in hit.passages] == [(0, {})] * 3
    assert reranker.read[0] == hit.passage.text.strip()
    assert ANSWER.strip() in hit.snippet().text
    assert search.explain(query, "long", candidates=2).passages == hit.passages
    read = [one for one in reranker.read if "battery" in one]
    data = hs.Dataset("one", {"1": query}, {"1": {"long": 1}}, [LONG, *near])
    system = hs.Pipeline(search, candidates=2, reranker=reranker)
    hs.compare({"all": system}, data, measures=["RR@2"], top_k=2, latency_queries=0)
    assert [one for one in reranker.read if "battery" in one] == read * 2


@pytest.mark.parametrize(
    ("retrievers", "whole"),
    [({"dense": HashedWords(64), "bm25": hs.BM25()}, ("bm25",)), ({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, ())],
)
def test_lexical_retrievers_read_whole_documents_beside_others(
    retrievers: dict[str, Any], whole: tuple[str, ...], tmp_path: Path
) -> None:
    with hs.HybridSearch(retrievers, tmp_path / "index", passages=hs.Passages(size=40)) as search:
        search.index(DOCUMENTS, show_progress_bar=False)
        assert search.passages == hs.Passages(size=40, whole=whole)
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index", passages=hs.Passages(size=40)) as part:
        assert part.search("battery")[0].passages == () or not whole


def test_explanations_and_json_name_the_passage(make: Make) -> None:
    search = make()
    hit = search.search("lift the battery")[0]
    explanation = hit.explain()
    assert hit.passage is not None
    assert f"best passage: characters {hit.passage.start:,} to {hit.passage.end:,}" in str(explanation)
    assert sum(explanation.terms["bm25"].values()) == pytest.approx(hit.retrievers["bm25"].score, rel=1 / 100)
    assert explanation.to_dict()["passages"][0] == hit.passage.to_dict()
    assert hit.to_dict()["passages"][0]["text"] == hit.passage.text
    assert search.explain("lift the battery", hit.id).passages == hit.passages
    again = pickle.loads(pickle.dumps(hit))  # noqa: S301 - our own bytes
    assert list(again.passages) == list(hit.passages)
    assert copy.copy(hit).passages[0] == hit.passages[0]
    assert len(repr(hit.passage)) < 200


def test_the_terms_of_whole_documents_are_explained_beside_those_of_passages(make: Make) -> None:
    search = make(retrievers={"bm25": hs.BM25(), "chars": hs.CharNGrams()}, passages=hs.Passages(40, whole=("bm25",)))
    for hit in search.search("the battery"):
        terms = hit.explain().terms
        assert hit.retrievers
        for name, of in hit.retrievers.items():
            assert sum(terms[name].values()) == pytest.approx(of.score, rel=1 / 100)


def test_a_passage_of_a_file_with_pages_knows_its_pages(make: Make) -> None:
    pages = hs.Document("manual.pdf", f"{FILLER * 9}\f{ANSWER}Turn the pump\foff. {FILLER * 9}\f")
    search = make([pages, SHORT])
    hit = search.search("lift the battery out with the small key", retrievers=["bm25"])[0]
    assert hit.passage is not None
    assert hit.passage.pages is not None
    assert 2 in range(hit.passage.pages[0], hit.passage.pages[1] + 1)
    assert hit.passage.to_dict()["pages"] == list(hit.passage.pages)
    assert "page" in str(hit.explain())
    assert re.search(
        r"^ +1 .* pages? \d", str(search.search("lift the battery out", 1, retrievers=["bm25"])), re.MULTILINE
    )
    (short,) = search.search("hours", retrievers=["bm25"])
    assert short.passage is not None
    assert short.passage.pages is None


def test_the_passages_are_part_of_the_index(make: Make) -> None:
    search = make()
    if search.backend.capabilities.persistent:
        place = search._recipe.place
        search.close()
        with hs.open(place, retrievers={"dense": HashedWords(64)}) as again:
            assert again.passages == PASSAGES
            assert again.search("lift the battery")[0].passage is not None
        with pytest.raises(
            FingerprintMismatchError, match=r"was made with Passages\(size=40.*not with Passages\(size=9"
        ):
            hs.HybridSearch({"dense": HashedWords(64)}, place, passages=hs.Passages(size=9))
        with hs.HybridSearch({"bm25": hs.BM25()}, place) as part:
            assert part.passages == PASSAGES
            assert part.search("lift the battery").ids[0] == "long"


class Reading:
    """A reranker that keeps what it read. It prefers texts with "key"."""

    top_k = 5

    def __init__(self, passages: int | None = None) -> None:
        self.read: list[str] = []
        if passages is not None:
            self.passages = passages

    def rerank(self, queries: Any, documents: Any) -> list[Any]:
        self.read += [one.text for of_query in documents for one in of_query]
        return [np.array([float("key" in one.text) for one in of_query]) for of_query in documents]

    def to_json(self) -> None:
        return None


FLAPS = hs.Document(
    "wing",
    "# Wings\n\n## Brakes\n\n" + "The slot has lift. " * 8 + "The flap has drag. " * 8,
    "Wings",
)


@pytest.mark.parametrize("headings", [True, False])
def test_rerankers_and_feedback_read_what_the_retrievers_read(headings: bool) -> None:
    passages = hs.Passages(size=16, headings=headings, whole=())
    with hs.HybridSearch({"bm25": hs.BM25()}, passages=passages) as search:
        search.index([FLAPS, hs.Document("other", "Heat flows.")], show_progress_bar=False)
        reranker = Reading()
        (hit,) = search.search("flap", reranker=reranker, feedback=hs.RM3(max_share=1))
        assert hit.passage is not None
        above, text = "Brakes: " if headings else "", hit.passage.text.strip()
        assert reranker.read == [above + text]
        added = set(hit.explain().feedback["bm25"].terms)
        assert added == ({"drag", "wing", "brake"} if headings else {"drag", "wing"})


def test_late_interaction_explains_passages_without_headings(minilm: str) -> None:
    late = hs.LateInteraction(minilm)
    passages = hs.Passages(size=16, headings=False, whole=())
    with hs.HybridSearch({"bm25": hs.BM25()}, passages=passages, reranker=late) as search:
        search.index([FLAPS], show_progress_bar=False)
        (hit,) = search.search("flap")
        explanation = hit.explain()
        assert sum(one.weight for one in explanation.matches) == pytest.approx(hit.score, abs=0.01)
        assert "brakes" not in {one.document.lower() for one in explanation.matches}
        assert {one.retriever for one in hit.highlights} == {"bm25", "reranker"}


def test_a_reranker_reads_the_best_passages(make: Make) -> None:
    search, reranker = make(), Reading()
    results = search.search("battery", reranker=reranker, retrievers=["bm25"])
    assert results.ids[0] == "long"
    assert results[0].passage is not None
    assert results[0].passage.text.strip() in reranker.read
    assert all(len(text) < 400 for text in reranker.read)
    search.search("turn the ring", reranker=reranker, retrievers=["bm25"])
    assert "Pump: ## Repair\n\nTurn the ring. Pull it off." in reranker.read
    several = Reading(passages=3)
    hit = search.search("water the plants", reranker=several)[0]
    found = sorted(hit.passages[:3], key=lambda one: one.start)
    if hit.id == "long":
        assert len(found) == 3
        assert "\n".join(one.text.strip() for one in found) in several.read


def test_evaluation_reranks_the_passages_that_a_search_reranks(make: Make) -> None:
    search = make(reranker=Reading())
    queries = {"1": "battery", "2": "water the plants", "3": "ring"}
    data = hs.Dataset("three", queries, {"1": {"long": 1}, "2": {"md": 1}, "3": {"md": 1}}, DOCUMENTS)
    comparison = hs.compare({"all": search}, data, measures=["RR@10"], latency_queries=2)
    expected = np.mean(
        [1 / (search.search(text).ids.index(next(iter(data.qrels[id]))) + 1) for id, text in queries.items()]
    )
    assert comparison.systems[0].means["RR@10"].mean == pytest.approx(expected)


def test_mmr_compares_the_best_passages(make: Make) -> None:
    twin = hs.Document("twin", FILLER * 30 + ANSWER, "Handbook")
    search = make([*DOCUMENTS, twin])
    hits = search.search("lift the battery out with the small key", diversity=hs.MMR(0.5))
    (second,) = (hit for hit in hits[1:] if hit.id in ("long", "twin"))
    assert hits[0].id in ("long", "twin")
    assert second.likeness is not None
    one, other = (HashedWords(64)._row(f"{hit.document.title} {hit.passage.text}") for hit in (hits[0], second))
    assert (second.likeness.to, second.likeness.similarity) == (hits[0].id, pytest.approx(one @ other, abs=1e-4))


async def _async(search: hs.HybridSearch) -> hs.Results:
    return await search.asearch("lift the battery")


def test_asynchronous_searches_have_the_same_passages(make: Make) -> None:
    search = make()
    found, plain = asyncio.run(_async(search)), search.search("lift the battery")
    assert [list(hit.passages) for hit in found] == [list(hit.passages) for hit in plain]


def test_copies_keep_the_passages(make: Make, tmp_path: Path) -> None:
    search = make()
    report = hs.copy(search.backend, tmp_path / "copy", show_progress_bar=False)
    assert (report.copied, report.differences) == (4, ())
    with hs.open(tmp_path / "copy", retrievers={"dense": HashedWords(64)}) as copied:
        assert copied.passages == PASSAGES
        found, there = copied.search("lift the battery")[0], search.search("lift the battery")[0]
        assert [(one.start, one.end) for one in found.passages] == [(one.start, one.end) for one in there.passages]
        assert hs.copy(search.backend, tmp_path / "copy", resume=True, show_progress_bar=False).unchanged == 4


def test_documents_that_are_encoded_into_a_folder_first_keep_their_passages(make: Make, tmp_path: Path) -> None:
    search = make([])
    search.index(DOCUMENTS, via=tmp_path / "via", show_progress_bar=False)
    hit = search.search("lift the battery")[0]
    assert hit.passage is not None
    assert ANSWER.strip() in hit.passage.text


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"passages is an hs\.Passages"):
        hs.HybridSearch({"bm25": hs.BM25()}, passages=True)  # type: ignore[arg-type]
    with (
        pytest.raises(InvalidArgumentError, match="whole names 'dense', which is not a retriever"),
        hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "x", passages=hs.Passages(whole=("dense",))) as search,
    ):
        search.index(DOCUMENTS, show_progress_bar=False)
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "whole") as search:
        search.index(DOCUMENTS, show_progress_bar=False)
        assert search.search("battery")[0].passages == ()
    with pytest.raises(FingerprintMismatchError, match="made with whole documents, not with Passages"):
        hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "whole", passages=PASSAGES)


def test_an_engine_without_passages_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(MemoryBackend().capabilities, passages=False)
    monkeypatch.setattr(MemoryBackend, "capabilities", without)
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=PASSAGES)
    with pytest.raises(BackendError, match="stores no passages"):
        search.index(DOCUMENTS, show_progress_bar=False)


def test_a_document_that_is_replaced_during_a_search_shows_no_spans_of_the_other_text(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make(optional=["dense"])  # each retriever is asked for itself
    replaced = hs.Document("long", FILLER * 60 + ANSWER)
    search.search("battery")  # servers send documents with hits if they know that documents are short
    answer = search.backend.search

    def asked(requests: Any) -> Any:
        rankings = answer(requests)
        if requests[0].retriever == "bm25":
            search.upsert(replaced)
            search.backend.refresh()
        return rankings

    monkeypatch.setattr(search.backend, "search", asked)
    hit = next(hit for hit in search.search("lift the battery out with the small key") if hit.id == "long")
    for passage in hit.passages:
        assert passage.text == hit.document.text[passage.start : passage.end]
        if "bm25" in passage.retrievers and passage.retrievers["bm25"].rank == 1:
            assert ANSWER in passage.text
    hit = next(hit for hit in search.search("lift the battery", retrievers=["bm25"]) if hit.id == "long")
    assert hit.passage is not None
    assert "battery" in hit.passage.text
