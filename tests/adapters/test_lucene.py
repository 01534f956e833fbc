"""Tests of the code that OpenSearch and Elasticsearch share, with real servers of both."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from servers import call

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import hybridsearch as hs
from hybridsearch.adapters.elasticsearch import ElasticsearchBackend
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.lucene.dialect import Server
from hybridsearch.adapters.lucene.query.search import Searcher
from hybridsearch.adapters.lucene.stored.identity import LAYOUT
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.opensearch import OpenSearchBackend
from hybridsearch.backends import AsyncBackend, Fingerprint, Loader, Request, RetrieverSchema, Schema
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    FilterError,
    FingerprintMismatchError,
    IndexCorruptedError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidArgumentError,
    StorageError,
)
from hybridsearch.filters import Filter
from hybridsearch.testing import samples
from hybridsearch.testing.base import ask, check, put
from hybridsearch.testing.samples import Item, sparse_query
from hybridsearch.vectors import SparseQuery

Make = Callable[..., LuceneBackend]
KINDS = frozenset({"lexical", "sparse", "dense"})
LITERAL_LAYOUT = 3
SCHEMA = samples.make_schema(KINDS, average_length=samples.FROZEN_LENGTH)


@pytest.fixture
def backend(make: Make) -> LuceneBackend:
    """An index of 60 random items."""
    backend = make()
    backend.create(SCHEMA)
    put(backend, samples.random_items(), SCHEMA)
    return backend


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The requests that are sent to the engine."""
    sent: list[Call] = []
    original = Channel.send

    def send(self: Channel, call: Call) -> Any:
        sent.append(call)
        return original(self, call)

    monkeypatch.setattr(Channel, "send", send)
    return sent


def every_request(k: int = 10) -> list[Request]:
    """Some requests of each kind whose answers have no ties at the cut."""
    return [Request(kind, query, k) for kind in sorted(KINDS) for query in samples.random_queries(kind, 4)]


# ------------------------------------------------------------------------------------------------------ round trips


def test_all_requests_of_a_call_are_one_round_trip_once_frequencies_are_known(
    backend: LuceneBackend, calls: list[Call]
) -> None:
    requests = every_request(60)  # all that there are: no ties at a cut
    first = backend.search(requests)
    calls.clear()
    assert backend.search(requests) == first
    assert [(call.method, call.path.rpartition("/")[2]) for call in calls] == [("POST", "_msearch")]


def test_documents_come_with_the_hits_and_vectors_do_not(backend: LuceneBackend, monkeypatch: Any) -> None:
    answers: list[Any] = []
    original = Channel.send
    monkeypatch.setattr(Channel, "send", lambda self, call: answers.append(original(self, call)) or answers[-1])
    rankings = backend.search(every_request())
    by_id = {item.id: item.document for item in samples.random_items()}
    for ranking in rankings:
        assert dict(ranking.documents or {}) == {id: by_id[id] for id in ranking.ids}
    assert not any(b"vectors" in orjson.dumps(orjson.loads(body)) for _, body in answers)
    monkeypatch.setattr("hybridsearch.adapters.lucene.query.search.WITH_CHARACTERS", 500)
    without = backend.search(every_request())  # long documents come later
    assert without == rankings
    assert all(ranking.documents is None for ranking in without)


def test_explanations_of_all_hits_and_retrievers_are_one_round_trip(make: Make, calls: list[Call]) -> None:
    encoders = {"bm25": hs.BM25(), "other": hs.BM25(k1=2.0)}
    search = hs.HybridSearch(encoders, make())
    texts = {"a": "wing lift", "b": "wing wing drag", "c": "jet thrust"}
    search.index([{"id": id, "text": text} for id, text in texts.items()], show_progress_bar=False)
    results = search.search("wing lift")
    calls.clear()
    explained = results.explain()
    assert [one.path.rpartition("/")[2] for one in calls] == ["_msearch"]
    for hit, explanation in zip(results, explained, strict=True):
        assert {name: set(terms) for name, terms in explanation.terms.items()} == {
            name: {"wing", "lift"} & set(texts[hit.id].split()) for name in encoders
        }
        for name, terms in explanation.terms.items():
            assert sum(terms.values()) == pytest.approx(hit.retrievers[name].score, rel=1 / 256)


def test_ties_at_the_cut_cost_one_more_round_trip(make: Make, calls: list[Call]) -> None:
    backend = make()
    backend.create(SCHEMA)
    put(backend, [samples.plain(f"d{number}") for number in (3, 1, 4, 2)], SCHEMA)
    for kind in ("sparse", "dense"):
        calls.clear()
        assert ask(backend, kind, samples.common_query(kind), 2).ids == ("d1", "d2")
        assert len(calls) == 2
        calls.clear()
        assert len(ask(backend, kind, samples.common_query(kind), 4)) == 4
        assert len(calls) == 1


@pytest.mark.parametrize(("count", "share"), [(45, 1.0), (1000, 0.95)])
def test_a_graph_finds_the_same_documents_first_however_many_are_asked_for(
    make: Make, count: int, share: float
) -> None:
    schema = samples.make_schema(frozenset({"dense"}))
    backend = make(dense="hnsw")
    backend.create(schema)
    items = samples.random_items(count)
    backend.load([samples.encode([*items, *(replace(item, id=f"{item.id} again") for item in items)], schema)])
    most = backend.capabilities.least_candidates["dense"]
    same = []
    for query in samples.random_queries("dense", 20):
        whole = ask(backend, "dense", query, most)
        for k in (1, 2, 9, 80):  # each item is there twice, so there are ties at two of these cuts
            same.append(ask(backend, "dense", query, k) == whole.top(k))
    assert np.mean(same) >= share  # the engine may merge segments meanwhile, which changes a large graph


def test_frequencies_follow_what_another_writer_does(make: Make, backend: LuceneBackend) -> None:
    items = samples.random_items()
    queries = samples.random_queries("lexical", 5)
    for query in queries:
        check(backend, "lexical", items, query)
    other = make()
    other.open()
    more = [replace(item, id=f"more{item.id}") for item in samples.random_items(30, seed=7)]
    put(other, more, SCHEMA)
    for query in queries:
        check(backend, "lexical", items + more, query, 30)
    other.delete([item.id for item in items[:20]])
    other.refresh()
    for query in queries:
        check(backend, "lexical", items[20:] + more, query, 30)


def test_several_shards_rank_like_one(make: Make) -> None:
    backend = make(shards=3)
    backend.create(SCHEMA)
    items = [replace(item, id=f"{item.id}-{copy}") for item in samples.random_items(40) for copy in "abc"]
    put(backend, items, SCHEMA)
    for kind in sorted(KINDS):
        for query in samples.random_queries(kind, 5):
            check(backend, kind, items, query, 17)
            most = ask(backend, kind, query, 200)
            assert [ask(backend, kind, query, k) for k in (1, 5, 17)] == [most.top(k) for k in (1, 5, 17)]


def test_sparse_scores_do_not_need_the_neural_plugin(
    opensearch_url: str, lucene_names: Callable[[str, str], str]
) -> None:
    backend = OpenSearchBackend(lucene_names(opensearch_url, "index"), replicas=0)
    backend.create(SCHEMA)
    put(backend, samples.random_items(), SCHEMA)
    requests = [request for request in every_request() if request.retriever != "dense"]
    with_plugin = backend.search(requests)
    backend._server = Server((3, 6, 0), frozenset({"opensearch-knn"}))
    assert backend.search(requests) == with_plugin
    backend.close()


def test_approximate_sparse_search_is_declared_and_finds_the_best(make: Make, engine: str) -> None:
    option = {"opensearch": "two_phase", "elasticsearch": "prune"}[engine]
    backend = make(**{option: True})
    backend.create(SCHEMA)
    items = samples.random_items(300)
    put(backend, items, SCHEMA)
    assert backend.capabilities.approximate == {"sparse"}
    exact = make()
    exact.open()
    for query in samples.random_queries("sparse", 5):
        for filter in (None, Filter.parse({"parity": "odd"})):
            right = ask(exact, "sparse", query, 10, filter)
            assert len(set(ask(backend, "sparse", query, 10, filter).ids) & set(right.ids)) >= 7
    for query in samples.random_queries("lexical", 5):
        check(backend, "lexical", items, query)


def test_deep_dense_searches_of_a_graph_are_answered(make: Make) -> None:
    schema = samples.make_schema(frozenset({"dense"}), "dot", dimensions=2)
    backend = make(dense="hnsw")
    backend.create(schema)
    items = [Item(f"d{n:05}", vector=np.float32([n + 1, 1])) for n in range(10_300)]
    backend.load([samples.encode(items, schema)])
    found = ask(backend, "dense", np.float32([1, 0]), 10_200)
    assert len(found) == 10_200
    assert len(set(found.ids) & {item.id for item in items[100:]}) > 9_900


# ----------------------------------------------------------------------------------------------------------- limits


def test_weights_above_what_lucene_takes_are_scaled(make: Make) -> None:
    backend = make()
    backend.create(SCHEMA)
    items = samples.random_items()
    put(backend, items, SCHEMA)
    for kind in ("sparse", "lexical"):
        check(backend, kind, items, sparse_query({"word0": 5000.0, "word1": 63.0, "word4": 0.5}), 30)


def test_a_negative_weight_in_a_query_is_refused(backend: LuceneBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="below 0"):
        ask(backend, "sparse", sparse_query({"word0": -1.0}))


def test_dense_searches_deeper_than_the_engine_allows_are_exact(make: Make) -> None:
    schema = samples.make_schema(frozenset({"dense"}), "dot", dimensions=2)
    backend = make()
    backend.create(schema)
    numbers = np.random.default_rng(3).permutation(10_500)
    items = [Item(f"d{n:05}", vector=np.float32([n // 4 + 1, 1])) for n in numbers.tolist()]
    backend.load([samples.encode(items, schema)])
    query = np.float32([1, 0])
    found = ask(backend, "dense", query, 10_400)
    right = sorted(items, key=lambda item: (-float(item.vector[0] if item.vector is not None else 0), item.id))
    assert found.ids == tuple(item.id for item in right[:10_400])


def test_more_ties_than_the_engine_allows_candidates_are_cut_by_id(make: Make) -> None:
    schema = samples.make_schema(frozenset({"dense"}), "dot", dimensions=2)
    backend = make()
    backend.create(schema)
    numbers = np.random.default_rng(4).permutation(10_200)
    items = [Item(f"d{n:05}", vector=np.float32([1, 1])) for n in numbers.tolist()]
    backend.load([samples.encode(items, schema)])
    assert ask(backend, "dense", np.float32([1, 0]), 3).ids == ("d00000", "d00001", "d00002")


def test_the_largest_k_is_answered(backend: LuceneBackend) -> None:
    for kind in sorted(KINDS):
        query = samples.random_queries(kind, 1)[0]
        assert ask(backend, kind, query, 10**10) == ask(backend, kind, query, 60)


def test_more_terms_than_the_engine_allows_is_one_sentence(backend: LuceneBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="max_clause_count"):
        ask(backend, "sparse", sparse_query({f"word{number}": 1.0 for number in range(50_000)}))


# ----------------------------------------------------------------------------------------------------------- scores


def test_scores_are_too_small_by_no_more_than_the_tolerance_that_is_declared(make: Make) -> None:
    steps = np.nextafter(np.arange(257, 513) / np.float32(256), np.float32(0), dtype=np.float32)  # lose the most
    sparse = np.concatenate([steps, np.exp(np.random.default_rng(11).uniform(-7, 5, 2_000)).astype(np.float32)])
    items = [Item(f"d{row}", {"x": 1 + row % 500}, {"x": float(weight)}) for row, weight in enumerate(sparse)]
    backend = make()
    backend.create(SCHEMA)
    put(backend, items, SCHEMA)
    counts = np.array([item.counts["x"] for item in items], dtype=np.float64)
    lengths = 1 - samples.B + samples.B * counts / samples.FROZEN_LENGTH  # a document's only term is x
    idf = np.log(1 + 0.5 / (len(items) + 0.5))
    right = {"sparse": sparse.astype(np.float64), "lexical": idf * counts / (counts + samples.K1 * lengths)}
    lost = {}
    for kind in ("sparse", "lexical"):
        (ranking,) = backend.search([Request(kind, sparse_query({"x": 1.0}), len(items))])
        assert len(ranking) == len(items)
        lost[kind] = 1 - ranking.scores / right[kind][[int(id[1:]) for id in ranking.ids]]
        assert lost[kind].min() > -1e-6
        assert lost[kind].max() < backend.capabilities.score_tolerance[kind]
    assert (
        lost["sparse"].max() > 0.99 * backend.capabilities.score_tolerance["sparse"]
    )  # the tolerance is not wider than needed


# --------------------------------------------------------------------------------------------------------- identity


def test_an_index_is_opened_with_the_options_it_was_made_with(make: Make, engine: str) -> None:
    make(dense="exact").create(SCHEMA)
    again = make(dense=None)
    assert again.open() == SCHEMA
    assert again.capabilities.approximate == frozenset()
    with pytest.raises(InvalidArgumentError, match="made with dense='exact'"):
        make(dense="hnsw").open()


def test_a_foreign_index_is_refused(make: Make) -> None:
    backend = make()
    call(backend.address, "PUT", backend.address.path, {"mappings": {"properties": {"text": {"type": "text"}}}})
    with pytest.raises(BackendError, match="was not made by hybridsearch"):
        backend.open()
    with pytest.raises(IndexExistsError, match="already"):
        backend.create(SCHEMA)


def test_opening_the_url_of_an_index_with_another_encoder_is_refused_with_both_fingerprints(
    server: str, lucene_names: Callable[[str, str], str]
) -> None:
    place, indexed, other = lucene_names(server, "index"), hs.BM25(), hs.BM25("german")
    with hs.HybridSearch({"bm25": indexed}, backend=place, backend_options={"replicas": 0}) as search:
        search.index([hs.Document("a", "a wing")], show_progress_bar=False)
    for reopen in (
        lambda: hs.HybridSearch({"bm25": other}, backend=place),
        lambda: hs.open(place, retrievers={"bm25": other}),
    ):
        with pytest.raises(FingerprintMismatchError) as caught:
            reopen()
        assert str(indexed.fingerprint()) in str(caught.value)
        assert str(other.fingerprint()) in str(caught.value)
    with hs.open(place) as again:
        assert again.search("wing").ids == ["a"]


def test_vectors_that_the_engine_cannot_map_are_refused_with_its_reason(make: Make) -> None:
    backend = make(dense="hnsw")
    with pytest.raises(BackendError, match=r"does not fit the index 'hstest-.*(16000|4096).*: change the"):
        backend.create(samples.make_schema(frozenset({"dense"}), dimensions=20_000))


def test_documents_that_do_not_fit_the_mapping_are_named_with_the_engines_reason(make: Make) -> None:
    backend = make()
    backend.create(SCHEMA)
    (found,) = call(backend.address, "GET", backend.address.path).values()
    call(backend.address, "DELETE", backend.address.path)
    found["mappings"]["properties"]["id"] = {"type": "long"}  # as if another program had made the index
    call(backend.address, "PUT", backend.address.path, {"mappings": found["mappings"]})
    again = make(replicas=None)
    again.open()
    with pytest.raises(BulkIndexError) as caught:
        again.upsert(samples.encode([samples.plain("7"), samples.plain("seven")], SCHEMA))
    ((id, reason),) = caught.value.failed
    assert id == "seven"
    assert "[id] of type [long]" in reason
    assert again.count() == 1


@pytest.mark.parametrize(
    ("version", "way_out"), [(LAYOUT + 1, "upgrade"), (LITERAL_LAYOUT - 1, "index the documents again")]
)
def test_an_index_of_another_layout_is_refused(make: Make, version: int, way_out: str) -> None:
    backend = make()
    call(
        backend.address,
        "PUT",
        backend.address.path,
        {"mappings": {"_meta": {"hybridsearch": {"version": version}}}},
    )
    with pytest.raises(IndexCorruptedError, match=way_out):
        backend.open()


def test_an_index_of_the_layout_before_filters_as_it_did_and_refuses_instants(make: Make) -> None:
    old = make()
    old.create(SCHEMA)
    (found,) = call(old.address, "GET", old.address.path).values()
    meta = found["mappings"]["_meta"]
    meta["hybridsearch"]["version"] = LITERAL_LAYOUT
    call(old.address, "PUT", f"{old.address.path}/_mapping", {"_meta": meta})
    metadata = {"at": "2024-02-29T15:30:00Z", "by": {"name": "cafe\u0301"}}
    for id in ("e\u0301", "new"):  # by what is opened now
        backend = make()
        assert backend.open() == SCHEMA
        put(backend, [samples.plain(id, title="Wings", metadata=metadata)], SCHEMA)
    asked = {
        "at": {"$gte": "2024-02-29"},
        "by.name": "cafe\u0301",
        "by": {"$exists": False},
        "title": {"$exists": False},
        "id": {"$in": ["new", "e\u0301"]},
    }
    for field, test in asked.items():
        assert backend.count(Filter.parse({field: test})) == 2, field
    for name in ("caf\u00e9", "cafe\u0301"):
        asked = [name, {"$in": [name, None]}, {"$contains": name[3:]}, {"$gt": "cafe"}]
        assert [backend.count(Filter.parse({"by.name": test})) for test in asked] == [2, 2, 2, 2]
        assert backend.count(Filter.parse({"by.name": {"$ne": name}})) == 0
    assert backend.count(Filter.parse({"id": "\u00e9"})) == 1
    for field in ("at", "by.name"):
        with pytest.raises(FilterError, match=r"made by an earlier version.* index its documents again"):
            backend.count(Filter.parse({field: {"$lt": "2024-02-29T15:30:00Z"}}))
    (found,) = call(old.address, "GET", old.address.path).values()
    assert found["mappings"]["_meta"]["hybridsearch"]["version"] == LITERAL_LAYOUT
    stored = call(old.address, "GET", f"{old.address.path}/_doc/new")["_source"]["document"]
    assert orjson.loads(b64decode(stored))["id"] == "new"  # older versions read no compressed documents


def test_the_first_documents_decide_the_average_length_for_all_writers(make: Make) -> None:
    schema = samples.make_schema(frozenset({"lexical"}))
    first, second = make(), make()
    first.create(schema)
    assert second.open() == schema
    items = [Item("a", {"wing": 1, "x": 3}), Item("b", {"wing": 2, "x": 6})]
    put(first, [], schema)
    put(first, items, schema)
    put(second, [Item("c", {"wing": 1, "x": 99})], schema)
    reader = make()
    opened = reader.open()
    assert opened is not None
    assert opened.retrievers["lexical"].average_length == 6.0
    scores = dict(ask(reader, "lexical", sparse_query({"wing": 1.0})))
    idf = np.log(1 + 0.5 / 3.5)
    for id, tf, length in (("a", 1, 4), ("b", 2, 8), ("c", 1, 100)):
        assert scores[id] == pytest.approx(idf * tf / (tf + 1.2 * (0.25 + 0.75 * length / 6)), rel=1 / 256)


def test_an_alias_is_opened_like_its_index(make: Make, backend: LuceneBackend) -> None:
    alias = make("alias")
    call(backend.address, "PUT", f"{backend.address.path}/_alias/{alias.address.index}")
    try:
        assert alias.open() == SCHEMA
        assert alias.count() == 60
        with pytest.raises(IndexExistsError):
            make("alias").create(SCHEMA)
    finally:
        call(backend.address, "DELETE", f"{backend.address.path}/_alias/{alias.address.index}")


# ---------------------------------------------------------------------------------------------------------- writing


def test_without_refreshing_documents_come_as_this_object_wrote_them(
    make: Make, never_refreshed: Callable[[LuceneBackend], LuceneBackend]
) -> None:
    backend = never_refreshed(make(refresh=False))
    backend.create(SCHEMA)
    ids = [f"d{number}" for number in range(5)]
    put(backend, [samples.plain(id) for id in ids], SCHEMA)
    changed = samples.encode([Item(id, {"x": 7}) for id in ids[1:]], SCHEMA)
    backend.delete(ids[:1])
    backend.upsert(changed)
    assert backend.fetch(ids) == [None, *changed.documents]


def test_without_refreshing_writes_appear_when_refresh_is_called(
    make: Make, never_refreshed: Callable[[LuceneBackend], LuceneBackend]
) -> None:
    backend = never_refreshed(make(refresh=False))
    backend.create(SCHEMA)
    backend.upsert(samples.encode([samples.plain("a")], SCHEMA))
    assert backend.fetch(["a"]) != [None]
    assert backend.count() == 0
    backend.refresh()
    assert backend.count() == 1


@pytest.mark.parametrize("fails", [False, True])
def test_loading_restores_what_it_relaxed(make: Make, fails: bool) -> None:
    backend = make(replicas=1)
    backend.create(SCHEMA)
    call(backend.address, "PUT", f"{backend.address.path}/_settings", {"index": {"refresh_interval": "7s"}})
    seen: list[Any] = []

    def settings() -> Any:
        (found,) = call(backend.address, "GET", f"{backend.address.path}/_settings").values()
        return [found["settings"]["index"].get(name) for name in ("refresh_interval", "number_of_replicas")]

    def batches() -> Iterator[Any]:
        yield samples.encode(samples.random_items(), SCHEMA)
        seen.append(settings())
        if fails:
            raise RuntimeError("the source has failed")

    if fails:
        with pytest.raises(RuntimeError, match="source"):
            backend.load(batches())
    else:
        backend.load(batches())
        assert backend.count() == 60
    assert seen == [["-1", "0"]]
    assert settings() == ["7s", "1"]
    again = make(replicas=1)
    assert again.open() == SCHEMA


def test_loading_after_a_crash_restores_what_was_before_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make(replicas=1)
    backend.create(SCHEMA)

    def batches() -> Iterator[Any]:
        yield samples.encode(samples.random_items(), SCHEMA)
        monkeypatch.setattr(
            backend._channel, "call", lambda *_, **__: {"_": {"mappings": mappings}}
        )  # the process is killed here

    (found,) = call(backend.address, "GET", f"{backend.address.path}/_mapping").values()
    mappings = found["mappings"]
    backend.load(batches())
    again = make(replicas=1)
    again.open()
    again.load([samples.encode(samples.random_items(5), SCHEMA)])
    (found,) = call(again.address, "GET", f"{again.address.path}/_settings").values()
    assert found["settings"]["index"].get("refresh_interval") is None
    assert found["settings"]["index"]["number_of_replicas"] == "1"


@pytest.mark.parametrize(("by", "most"), [("index", 3), ("alias", 4)])
def test_an_upsert_of_one_document_takes_few_requests_and_one_refresh(
    make: Make, calls: list[Call], by: str, most: int
) -> None:
    index = make()
    encoder = {"bm25": hs.BM25()}
    hs.HybridSearch(encoder, index).index([{"id": id, "text": "wing lift"} for id in "abc"], show_progress_bar=False)
    name = f"{index.address.path}/_alias/{make('alias').address.index}"
    call(index.address, "PUT", name)
    search, reader = hs.HybridSearch(encoder, make(by)), hs.HybridSearch(encoder, make())
    try:
        assert reader.search("jet lift").ids == search.search("jet lift").ids == ["a", "b", "c"]
        search.delete("c")  # is not refreshed yet
        for id in ("d", "a"):
            calls.clear()
            assert search.upsert({"id": id, "text": "jet"}).indexed == 1
            assert len(calls) <= most
            assert sum("refresh" in one.path for one in calls) == 1
        for there in (reader, search):
            calls.clear()
            assert there.search("jet lift").ids == ["b", "a", "d"]  # "lift" is the rarer of the two words by now
            assert not any("refresh" in one.path for one in calls)
        calls.clear()
        assert search.upsert({"id": "a", "text": "jet"}).unchanged == 1
        assert len(calls) <= most
    finally:
        call(index.address, "DELETE", name)


def test_an_upsert_of_one_document_makes_earlier_writes_to_other_shards_visible(make: Make, calls: list[Call]) -> None:
    backend = make(shards=3)
    backend.create(SCHEMA)
    backend.upsert(samples.encode([samples.plain(f"d{number}") for number in range(9)], SCHEMA))
    backend.upsert_now(samples.encode([samples.plain("e")], SCHEMA))
    other = make()
    other.open()
    assert other.count() == 10
    backend.upsert_now(samples.encode([samples.plain("f")], SCHEMA))
    calls.clear()
    assert (backend.count(), other.count()) == (11, 11)
    assert len(calls) == 2  # no refresh was left to do


def test_an_index_that_was_deleted_meanwhile_is_not_made_anew(make: Make, backend: LuceneBackend) -> None:
    call(backend.address, "DELETE", backend.address.path)
    for use in (
        lambda: backend.upsert(samples.encode([samples.plain("a")], SCHEMA)),
        lambda: backend.search(every_request()),
        backend.count,
    ):
        with pytest.raises(IndexNotFoundError, match="may have been deleted"):
            use()
    assert make().open() is None


def test_a_read_only_index_is_one_sentence(backend: LuceneBackend) -> None:
    call(
        backend.address, "PUT", f"{backend.address.path}/_settings", {"index": {"blocks.read_only_allow_delete": True}}
    )
    with pytest.raises(StorageError, match=r"disk|read-only"):
        backend.upsert(samples.encode([samples.plain("a")], SCHEMA))
    assert len(backend.search(every_request())) == len(every_request())
    call(
        backend.address, "PUT", f"{backend.address.path}/_settings", {"index": {"blocks.read_only_allow_delete": None}}
    )


# ------------------------------------------------------------------------------------------------------------ async


def test_asearch_gives_what_search_gives(backend: LuceneBackend) -> None:
    assert isinstance(backend, AsyncBackend)
    assert isinstance(backend, Loader)
    requests = every_request()

    async def ask_all() -> list[Any]:
        return await asyncio.gather(
            *(backend.asearch([request]) for request in requests * 5), backend.asearch(requests)
        )

    for _ in range(2):  # each in another event loop
        *single, together = asyncio.run(ask_all())
        assert together == backend.search(requests)
        assert [ranking for (ranking,) in single] == together * 5
    gc.collect()  # an unclosed connection would warn


def test_closing_asynchronously_closes_both(backend: LuceneBackend) -> None:
    async def use() -> None:
        await backend.asearch(every_request())
        await backend.aclose()

    asyncio.run(use())
    with pytest.raises(BackendError, match="closed"):
        backend.count()
    gc.collect()


def test_cancelling_a_search_closes_its_connection(backend: LuceneBackend, make: Make, server: str) -> None:
    with proxy(server) as (through, hold, cut):
        slow = make(through=through)
        slow.address = replace(slow.address, index=backend.address.index)
        slow._channel.address = slow.address
        slow.open()

        async def cancelled() -> None:
            await slow.asearch(every_request())
            hold.set()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow.asearch(every_request()), 0.3)
            for _ in range(100):
                if cut.is_set():
                    break
                await asyncio.sleep(0.02)
            assert cut.is_set(), "the connection is still open"
            hold.clear()
            assert await slow.asearch(every_request()) == backend.search(every_request())

        asyncio.run(cancelled())


def test_a_slow_server_is_one_sentence(backend: LuceneBackend, make: Make, server: str) -> None:
    with proxy(server) as (through, hold, _):
        slow = make(through=through, timeout=0.5)
        slow.address = replace(slow.address, index=backend.address.index)
        slow._channel.address = slow.address
        slow.open()
        hold.set()
        with pytest.raises(BackendError, match=r"did not answer within 0\.5 seconds"):
            slow.search(every_request())
        with pytest.raises(BackendError, match=r"did not answer within 0\.5 seconds"):
            asyncio.run(slow.asearch(every_request()))


@contextmanager
def proxy(server: str) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A proxy that holds answers back while an event is set, and sets another event when a client disconnects."""
    host, _, port = server.rpartition("://")[2].partition(":")
    hold, cut, done = threading.Event(), threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, sink: socket.socket, *, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                while answers and hold.is_set() and not done.is_set():
                    time.sleep(0.01)
                sink.sendall(data)
        except OSError:
            pass
        if not answers and hold.is_set():
            cut.set()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection((host, int(port)))
            for source, sink, answers in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=forward, args=(source, sink), kwargs={"answers": answers}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    scheme = server.partition("://")[0]
    yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", hold, cut
    done.set()
    listener.close()


def test_elasticsearch_asks_exactly_by_a_script_if_it_has_painless() -> None:
    backend = ElasticsearchBackend("elasticsearch://localhost:9200/papers")
    backend._server = Server((9, 0, 0), modules=frozenset({"lang-painless"}))
    retriever = RetrieverSchema("dense", Fingerprint("dense", {}), dimensions=3, metric="cosine")
    searcher = Searcher(Schema({"dense": retriever}), backend)
    (body,) = next(searcher.search([Request("dense", np.array([1, 0, 0], np.float32), 10, exact=True)]))
    script = body["query"]["script_score"]["script"]
    assert script["params"]["field"] == "vectors.dense"
    assert "cosineSimilarity" in script["source"]
    assert body["size"] == 11, "one more than k shows whether there is a tie at the cut"
    assert backend.capabilities.exact_on_request
    backend._server = Server((9, 0, 0))
    assert not backend.capabilities.exact_on_request


def test_passages_of_more_documents_than_a_clause_takes_are_asked_for_by_several_clauses() -> None:
    retriever = RetrieverSchema("sparse", Fingerprint("sparse", {}), passages=True)
    backend = OpenSearchBackend("opensearch://localhost:9200/papers")
    searcher = Searcher(Schema({"sparse": retriever}, passages={}), backend)
    request = Request("sparse", SparseQuery(("wing",), np.ones(1, np.float32)), 10, passages=3)
    asked = orjson.dumps(next(searcher.list_passages([request], [[str(number) for number in range(70_000)]]))[0])
    ids = [one.split(b"]")[0].count(b",") + 1 for one in asked.split(b'"terms":{"id":[')[1:]]
    assert ids == [65_536, 70_000 - 65_536]


def test_a_search_of_an_index_that_changes_all_the_time_ends() -> None:
    retriever = RetrieverSchema("lexical", Fingerprint("bm25", {}), weighting={}, average_length=3.0)
    searcher = Searcher(Schema({"bm25": retriever}), OpenSearchBackend("opensearch://localhost:9200/papers"))
    stamps = itertools.count()

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        if "aggs" not in body:
            return {"hits": {"hits": []}}
        terms = body["aggs"].get("terms", {"filters": {"filters": ()}})["filters"]["filters"]
        found = {"stamp": {"value": next(stamps)}, "terms": {"buckets": [{"doc_count": 3} for _ in terms]}}
        return {"hits": {"total": {"value": 10}}, "aggregations": found}

    for words in (("wing", "flow"), ("flow", "heat"), ("heat", "jet")):  # the first word of a query may be known
        rounds = searcher.search([Request("bm25", SparseQuery(words, np.ones(2, np.float32)), 10)])
        bodies, asked = next(rounds), 0
        with suppress(StopIteration):
            while asked < 10:
                asked += 1
                bodies = rounds.send([answer(body) for body in bodies])
        assert asked <= 6
