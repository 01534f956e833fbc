"""Tests of Qdrant on a server: aliases that are moved during searches, faults during loads, and cancelled requests.

Each test uses an imitated server, and the real server that HYBRIDSEARCH_TEST_QDRANT names.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("qdrant_client", reason="pip install 'hybridsearch[qdrant]'")

import faulty_proxy
import sent
from faulty_proxy import FaultyProxy
from qdrant_client import QdrantClient, models
from qdrant_server import QdrantServer

import hybridsearch as hs
from hybridsearch.adapters.lucene.wire.connection import Address
from hybridsearch.adapters.qdrant import QdrantBackend, connection, points
from hybridsearch.backends import Request, Schema
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    FingerprintMismatchError,
    IndexCorruptedError,
    InvalidArgumentError,
)
from hybridsearch.testing import samples
from hybridsearch.testing.aliases import AliasTests
from hybridsearch.testing.base import ask, check, put
from hybridsearch.testing.samples import Item
from hybridsearch.testing.storage import StorageTests
from hybridsearch.testing.suite import BackendSuite

Make = Callable[..., QdrantBackend]
KINDS = frozenset({"lexical", "sparse", "dense"})
SCHEMA = samples.make_schema(KINDS, average_length=samples.FROZEN_LENGTH)


@pytest.fixture(params=["imitated", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """`qdrant://host:port`."""
    if request.param == "real":
        yield str(request.getfixturevalue("qdrant_url"))
        return
    with QdrantServer() as imitation:
        yield f"qdrant://{imitation.host}"


@pytest.fixture
def make(server: str, qdrant_names: Callable[[str, str], str]) -> Iterator[Make]:
    """A function that makes backends of new collections, which are deleted afterwards."""
    made: list[QdrantBackend] = []

    def make(name: str = "index", **options: Any) -> QdrantBackend:
        made.append(QdrantBackend(qdrant_names(server, name), **{"dense": "exact", **options}))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def filled(make: Make) -> Make:
    """A function that makes an index with items."""

    def filled(name: str, items: list[Item] | None = None, schema: Schema = SCHEMA) -> QdrantBackend:
        backend = make(name)
        backend.create(schema)
        put(backend, samples.random_items() if items is None else items, schema)
        return backend

    return filled


@pytest.fixture
def client(server: str) -> Iterator[QdrantClient]:
    """A client that does not use the backend, like another program."""
    client = QdrantClient(url=f"http{server.removeprefix('qdrant')}", check_compatibility=False)
    yield client
    client.close()


def name_of(backend: QdrantBackend) -> str:
    return backend._place.collection


class TestOnAServer(BackendSuite):
    @pytest.fixture
    def connect(self, qdrant_url: str, qdrant_names: Callable[[str, str], str]) -> Callable[[str], QdrantBackend]:
        return lambda name: QdrantBackend(qdrant_names(qdrant_url, name))


class TestOnAnImitatedServer(StorageTests):
    @pytest.fixture
    def connect(self) -> Iterator[Callable[[str], QdrantBackend]]:
        with QdrantServer() as imitation:
            yield lambda name: QdrantBackend(f"qdrant://{imitation.host}/{name}")


def test_the_documents_with_a_term_are_counted_by_its_idf(filled: Make) -> None:
    items, terms = samples.random_items(), ["unknown", *samples.WORDS]
    counts, total = filled("counted").document_frequencies("lexical", terms)
    assert counts == [sum(term in item.counts for item in items) for term in terms]
    assert total == len(items)


# -------------------------------------------------------------------------------------------------------- aliases


class TestAliases(AliasTests):
    @pytest.fixture(autouse=True)
    def few_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Items whose terms have other numbers in each index."""
        number_of = points.number_of
        monkeypatch.setattr(points, "number_of", lambda term, attempt: number_of(term, attempt) % 101 + 1)

    @pytest.fixture
    def connect(self, make: Make) -> Make:
        return make

    @pytest.fixture
    def name_of(self) -> Callable[[QdrantBackend], str]:
        return name_of


def test_shards_and_replicas_that_an_index_does_not_have_are_refused(make: Make) -> None:
    make("copies").create(SCHEMA)
    assert make("copies", shards=1, replicas=1).open() == SCHEMA
    for option in ("shards", "replicas"):
        with pytest.raises(InvalidArgumentError, match=f"has {option}=1, not 3: leave {option} out"):
            make("copies", **{option: 3}).open()


def test_a_server_is_described_without_an_index(make: Make) -> None:
    assert make("nothing").describe()["engine"].startswith("qdrant ")


def test_searching_and_counting_by_an_alias_go_on_while_indexes_are_swapped(make: Make, filled: Make) -> None:
    names = ("v1", "v2", "v3")
    items = {name: [samples.plain(f"{name}-{number}") for number in range(40)] for name in names}
    live = make("live")
    filled("v1", items["v1"]).publish(name_of(live))
    live.open()
    done = threading.Event()
    found: list[list[str]] = []
    counts: list[int] = []
    failures: list[BaseException] = []

    def search() -> None:
        for kind in sorted(KINDS):
            ranking = ask(live, kind, samples.common_query(kind), 30)
            assert list(ranking.documents or ()) == list(ranking.ids)
            found.append(list(ranking.ids))

    def search_asynchronously() -> None:
        requests = [Request(kind, samples.common_query(kind), 30) for kind in ("dense", "lexical")]
        found.extend(list(ranking.ids) for ranking in asyncio.run(live.asearch(requests)))

    def count() -> None:
        counts.append(live.count())

    def again_and_again(use: Callable[[], None]) -> None:
        try:
            while not done.is_set():
                use()
        except BaseException as error:
            failures.append(error)

    users = (search, search, search_asynchronously, count)
    threads = [threading.Thread(target=again_and_again, args=(use,)) for use in users]
    for thread in threads:
        thread.start()
    for name in names:
        if name != "v1":
            filled(name, items[name]).publish(name_of(live))
        assert {id[:2] for id in ask(live, "sparse", samples.common_query("sparse"), 40).ids} == {name}
        enough = len(found) + 4 * len(users)  # so that the threads have searched this index too
        while len(found) < enough and not failures:
            time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(counts) == {40}
    assert {len(ids) for ids in found} == {30}
    of_indexes = [{id.partition("-")[0] for id in ids} for ids in found]
    assert all(len(of_one) == 1 for of_one in of_indexes)
    assert [name for name in names if {name} in of_indexes] == list(names)


def test_an_index_made_anew_under_the_old_name_is_noticed(make: Make, filled: Make, client: QdrantClient) -> None:
    first = filled("v1")
    query = samples.random_queries("lexical", 1)[0]
    check(first, "lexical", samples.random_items(), query)
    for collection in (name_of(first), f"{name_of(first)}-terms"):
        client.delete_collection(collection)
    more = samples.random_items(90, seed=7)
    filled("v1", more)
    check(first, "lexical", more, query, 20)


@pytest.mark.parametrize("drop_old", [True, False])
def test_an_alias_of_a_foreign_collection_is_left_alone(
    make: Make, filled: Make, client: QdrantClient, drop_old: bool
) -> None:
    backend, foreign, alias = filled("v1"), name_of(make("foreign")), name_of(make("live"))
    client.create_collection(foreign, {})
    action = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=foreign, alias_name=alias))
    client.update_collection_aliases([action])
    with pytest.raises(BackendError, match=r"not made by hybridsearch, so nothing was changed"):
        backend.publish(alias, drop_old)
    assert {a.alias_name: a.collection_name for a in client.get_aliases().aliases}[alias] == foreign
    assert client.collection_exists(foreign)


def test_an_index_of_an_older_layout_is_replaced_by_publishing_a_new_one(
    make: Make, filled: Make, client: QdrantClient
) -> None:
    old, new, alias = filled("v1", []), filled("v2"), name_of(make("live"))
    old.publish(alias)
    ours: Any = (client.get_collection(name_of(old)).config.metadata or {})["hybridsearch"]
    client.update_collection(name_of(old), metadata={"hybridsearch": {**ours, "layout": 1}})
    assert new.publish(alias) == name_of(old)
    there = {collection.name for collection in client.get_collections().collections}
    assert not there & {name_of(old), f"{name_of(old)}-terms"}


def address_of(server: str) -> Address:
    """The address of a server without TLS, for the proxy."""
    host, _, port = server.removeprefix("qdrant://").rpartition(":")
    return Address("Qdrant", "http", ((host, int(port)),), "", "", {})


# ---------------------------------------------------------------------------------------------------------- loads


@pytest.fixture
def loaded(server: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[QdrantBackend, FaultyProxy]]:
    """An empty index behind a proxy. Its faults apply to requests that store or delete points."""
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.01)
    direct = make()
    direct.create(SCHEMA)
    with FaultyProxy(address_of(server), on=f"{name_of(direct)}/points?") as proxy:
        backend = QdrantBackend(f"qdrant{proxy.url.removeprefix('http')}/{name_of(direct)}", timeout=5, dense="exact")
        backend.open()
        yield backend, proxy
        backend.close()


ITEMS = samples.random_items(300)


@pytest.mark.parametrize(
    "fault",
    [
        faulty_proxy.status(429),
        faulty_proxy.status(503),
        faulty_proxy.reset_before,
        faulty_proxy.reset_after(0.5),
    ],
)
def test_a_storm_of_faults_during_a_load_loses_nothing(loaded: tuple[QdrantBackend, FaultyProxy], fault: Any) -> None:
    backend, proxy = loaded
    proxy.faults += [fault] * 8
    backend.load(sent.batches(ITEMS, SCHEMA))
    assert not proxy.faults
    sent.assert_holds(backend, ITEMS, SCHEMA)


def test_an_answer_to_a_write_that_is_slower_than_the_timeout_is_asked_for_again(
    loaded: tuple[QdrantBackend, FaultyProxy], server: str
) -> None:
    slow, proxy = loaded
    backend = QdrantBackend(f"{slow._place.shown}", timeout=1, dense="exact")
    backend.open()
    proxy.faults += [faulty_proxy.slow(2.5)]
    backend.upsert(samples.encode(ITEMS[:20], SCHEMA))
    assert len(proxy.seen) == 2
    sent.assert_holds(backend, ITEMS[:20], SCHEMA)
    backend.close()


def test_requests_shrink_below_a_payload_limit_and_stay_there(loaded: tuple[QdrantBackend, FaultyProxy]) -> None:
    backend, proxy = loaded
    items = [samples.plain(f"d{n:03}", text="x" * 2000) for n in range(300)]
    proxy.rule = faulty_proxy.too_large_above(100_000)
    backend.load(sent.batches(items[:200], SCHEMA))
    before = len(proxy.seen)
    backend.load(sent.batches(items[200:], SCHEMA))
    assert max(size for _, size in proxy.seen[:before]) > 100_000
    assert max(size for _, size in proxy.seen[before:]) <= 100_000
    sent.assert_holds(backend, items, SCHEMA)


@pytest.mark.parametrize("way", ["load", "upsert"])
def test_a_document_that_no_request_can_carry_is_reported_and_the_others_are_stored(
    loaded: tuple[QdrantBackend, FaultyProxy], way: str
) -> None:
    backend, proxy = loaded
    giant = samples.plain("giant", text="x" * 200_000)
    proxy.rule = faulty_proxy.too_large_above(150_000)
    batch = samples.encode([*ITEMS[:50], giant, *ITEMS[50:80]], SCHEMA)
    with pytest.raises(BulkIndexError, match="All others are stored") as caught:
        backend.upsert(batch) if way == "upsert" else backend.load([batch])
    ((id, reason),) = caught.value.failed
    assert id == "giant"
    assert "HTTP 413" in reason
    sent.assert_holds(backend, ITEMS[:80], SCHEMA)


def test_a_document_that_makes_the_server_refuse_its_whole_request_is_found(
    loaded: tuple[QdrantBackend, FaultyProxy],
) -> None:
    def picky(exchange: faulty_proxy.Exchange) -> None:
        if b'"d17"' in exchange.body:
            exchange.reply(400, b'{"status": {"error": "Wrong input: no seventeens"}}')
        else:
            faulty_proxy.passing(exchange)

    backend, proxy = loaded
    proxy.rule = picky
    with pytest.raises(BulkIndexError, match=r"'d17': .*no seventeens") as caught:
        backend.load(sent.batches(ITEMS, SCHEMA))
    assert len(caught.value.failed) == 1
    assert backend.count() == 299


def test_a_server_that_stays_busy_ends_a_load_in_one_error(
    loaded: tuple[QdrantBackend, FaultyProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, proxy = loaded
    monkeypatch.setattr(connection, "MAX_WAIT", 0.05)
    proxy.rule = faulty_proxy.status(503, b"busy")
    with pytest.raises(BackendError, match="HTTP 503"):
        backend.upsert(samples.encode(ITEMS[:5], SCHEMA))
    assert len(proxy.seen) == connection.ATTEMPTS["upsert"]


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"layout": 99}, "has layout 99, .*upgrade"),
        ({"layout": 1}, "has layout 1, .*index the documents again"),
        ({"layout": None}, "has layout None"),
        ({"layout": "2"}, "has layout '2'"),
        ({"schema": "{"}, "damaged record"),
        ({"schema": "[]"}, "not readable"),
        ({"mark": ...}, "damaged record .*mark"),
        ({"idf": 3}, "damaged record"),
    ],
)
def test_metadata_that_cannot_be_read_are_one_sentence(
    filled: Make, make: Make, client: QdrantClient, damage: dict[str, Any], says: str
) -> None:
    name = name_of(filled("index", []))
    ours: Any = (client.get_collection(name).config.metadata or {})["hybridsearch"]
    client.update_collection(
        name, metadata={"hybridsearch": {k: v for k, v in {**ours, **damage}.items() if v is not ...}}
    )
    with pytest.raises(IndexCorruptedError, match=says):
        make("index").open()


def test_an_index_with_another_encoder_is_refused_naming_both(server: str, make: Make) -> None:
    place = make()._place.shown
    with hs.HybridSearch({"bm25": hs.BM25("german")}, place) as search:
        search.index([hs.Document("1", "Auftrieb")])
    with pytest.raises(FingerprintMismatchError, match=r"(?s)german.*english|english.*german"):
        hs.HybridSearch({"bm25": hs.BM25("english")}, place)


# -------------------------------------------------------------------------------------------------------- requests


def test_lexical_sparse_and_dense_requests_of_a_call_travel_in_one() -> None:
    with QdrantServer() as server, contextlib.closing(QdrantBackend(f"qdrant://{server.host}/index")) as backend:
        backend.create(SCHEMA)
        put(backend, samples.random_items(), SCHEMA)
        requests = [Request(kind, query, 5) for kind in sorted(KINDS) for query in samples.random_queries(kind, 3)]
        first = backend.search(requests)
        server.asked.clear()
        assert backend.search(requests) == first
        assert asyncio.run(backend.asearch(requests)) == first
        assert server.asked == [("POST", "/collections/index/points/query/batch")] * 2


@pytest.mark.parametrize("way", ["search", "asearch"])
def test_the_counts_that_idf_comes_from_are_asked_for_at_once(make: Make, server: str, way: str) -> None:
    items = samples.random_items()
    direct = make(shards=2)
    direct.create(SCHEMA)
    put(direct, items, SCHEMA)
    query = samples.random_queries("lexical", 1)[0]
    check(direct, "lexical", items, query)
    together = threading.Barrier(1 + len(query.terms))  # type: ignore[union-attr]

    def only_together(exchange: faulty_proxy.Exchange) -> None:
        together.wait(5)
        faulty_proxy.passing(exchange)

    with FaultyProxy(address_of(server), on="/count") as proxy:
        proxy.rule = only_together
        backend = QdrantBackend(f"qdrant{proxy.url.removeprefix('http')}/{name_of(direct)}")
        backend.open()
        requests = [Request("lexical", query, 10)] * 2
        found = backend.search(requests) if way == "search" else asyncio.run(backend.asearch(requests))
        assert found == direct.search(requests)
        backend.close()
    assert len(proxy.seen) == together.parties > 2


@pytest.mark.parametrize("end", ["cancelled", "late"])
def test_an_asynchronous_search_that_is_given_up_frees_its_connection(filled: Make, server: str, end: str) -> None:
    backend = filled("index")
    asked, freed = threading.Event(), threading.Event()

    def hanging(exchange: faulty_proxy.Exchange) -> None:
        asked.set()
        if exchange.ended():
            freed.set()

    async def search(through: QdrantBackend) -> None:
        request = Request("dense", samples.common_query("dense"), 3)
        task = asyncio.ensure_future(through.asearch([request]))
        assert await asyncio.to_thread(asked.wait, 10)
        if end == "cancelled":
            task.cancel()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else BackendError):
            await task
        assert await asyncio.to_thread(freed.wait, 10)
        proxy.rule = faulty_proxy.passing
        assert len((await through.asearch([request]))[0]) == 3  # and another one goes on
        await through.aclose()

    with FaultyProxy(address_of(server), on="/query") as proxy:
        proxy.rule = hanging
        place = f"qdrant{proxy.url.removeprefix('http')}/{name_of(backend)}"
        through = QdrantBackend(place, timeout=60 if end == "cancelled" else 1)
        through.open()
        asyncio.run(search(through))
