"""Tests of real nodes that are killed, frozen, full or locked. No document is lost or doubled, and no secret is shown.

Bulk requests through a proxy that makes faults are in test_lucene_bulk.py. A cluster that loses a node is in
test_engine_cluster.py. Hostile strings are in test_engine_hostile.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from nodes import Nodes, start_nodes
from sent import assert_holds, batches

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import hybridsearch as hs
from hybridsearch.adapters.elasticsearch import ElasticsearchBackend
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.opensearch import OpenSearchBackend
from hybridsearch.backends import Request
from hybridsearch.errors import BackendError, StorageError
from hybridsearch.testing import samples
from hybridsearch.testing.base import check, find_all, put

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed <ssl\.SSLSocket:ResourceWarning")  # as nodes.py tells

Make = Callable[..., LuceneBackend]

SCHEMA = samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=samples.FROZEN_LENGTH)
ENGINES = {"opensearch": OpenSearchBackend, "elasticsearch": ElasticsearchBackend}
WRONG = "battery-staple"
NEVER = 10**9  # gigabytes; no disk has so many free

only_elasticsearch = pytest.mark.parametrize("node", ["elasticsearch"], indirect=True)
only_opensearch = pytest.mark.parametrize("node", ["opensearch"], indirect=True)
slow_for_elasticsearch = pytest.mark.parametrize(
    "node", ["opensearch", pytest.param("elasticsearch", marks=pytest.mark.slow)], indirect=True
)
slow_for_opensearch = pytest.mark.parametrize(
    "node", [pytest.param("opensearch", marks=pytest.mark.slow), "elasticsearch"], indirect=True
)
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["opensearch", "elasticsearch"])
def node(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A new node of each engine. Elasticsearch has TLS and passwords."""
    with start_nodes(request.param, secure=request.param == "elasticsearch") as node:
        yield node


@pytest.fixture
def make(node: Nodes) -> Iterator[Make]:
    """A function that makes backends of new indexes. The same name means the same index."""
    number = next(_numbers)
    made: list[LuceneBackend] = []

    def make(name: str = "index", **options: Any) -> LuceneBackend:
        location = node.location(f"{name}-{number}")
        made.append(ENGINES[node.engine](location, **{"replicas": 0, "dense": "exact", **node.options, **options}))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def opened(make: Make, **options: Any) -> LuceneBackend:
    backend = make(**options)
    assert backend.open() is not None
    return backend


def relaxed(node: Nodes, backend: LuceneBackend) -> tuple[str | None, str]:
    """The refresh interval and the number of replicas of the index."""
    (found,) = node.ask("GET", f"{backend.address.path}/_settings").values()
    return found["settings"]["index"].get("refresh_interval"), found["settings"]["index"]["number_of_replicas"]


# ---------------------------------------------------------------------------------------------------- killed nodes


@slow_for_opensearch  # test_engine_cluster.py kills a node of it during a load
def test_a_load_rides_out_a_node_that_is_killed_and_started_again(
    node: Nodes, make: Make, background: ThreadPoolExecutor
) -> None:
    backend, items = make(replicas=1), samples.random_items(3000)
    backend.create(SCHEMA)
    restarted: list[Future[None]] = []

    def crash() -> None:
        node.kill()
        restarted.append(background.submit(node.restart))

    backend.load(batches(items, SCHEMA, 10, crash))
    restarted[0].result()
    assert_holds(backend, items, SCHEMA)
    assert relaxed(node, backend) == (None, "1")
    for kind in ("lexical", "sparse", "dense"):
        for query in samples.random_queries(kind, 3):
            check(backend, kind, items, query, 50)


@only_opensearch
def test_indexing_that_a_killed_node_ended_is_completed_by_running_it_again(
    node: Nodes, make: Make, background: ThreadPoolExecutor
) -> None:
    place = node.location(f"papers-{next(_numbers)}")
    documents = [hs.Document(f"d{n}", f"wing number{n} of {n % 7}", metadata={"n": n}) for n in range(2000)]

    def stream() -> Iterator[hs.Document]:
        yield from documents[:1200]
        node.kill()
        yield from documents[1200:]

    with hs.HybridSearch({"bm25": hs.BM25()}, backend=place, backend_options=node.options) as search:
        search.index(documents[:100], show_progress_bar=False)
        with pytest.raises(BackendError, match="cannot be reached"):
            search.index(stream(), batch_size=50, show_progress_bar=False)
        node.restart()
        report = search.index(documents, batch_size=200, show_progress_bar=False)
        assert (report.unchanged, report.indexed) == (1200, 800)
        assert search.count() == len(documents)
        assert search.get([document.id for document in documents]) == documents
        assert [search.search(f"number{n}")[0].id for n in (0, 1150, 1250, 1999)] == ["d0", "d1150", "d1250", "d1999"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_load_whose_node_stays_away_is_one_sentence_and_is_completed_by_running_it_again(
    node: Nodes, make: Make
) -> None:
    backend, items = make(replicas=1), samples.random_items(2000)
    backend.create(SCHEMA)
    with pytest.raises(BackendError, match=r"cannot be reached|run the call again") as error:
        backend.load(batches(items, SCHEMA, 10, node.kill))
    assert len(str(error.value).splitlines()) == 1
    node.restart()
    assert relaxed(node, backend) == ("-1", "0")  # nobody has restored them
    backend.load(batches(items, SCHEMA))
    assert_holds(backend, items, SCHEMA)
    assert relaxed(node, backend) == (None, "1")


# ---------------------------------------------------------------------------------------------------- frozen nodes


def test_a_search_of_a_frozen_node_ends_with_the_timeout_and_the_same_object_works_afterwards(
    node: Nodes, make: Make
) -> None:
    writer, backend, items = make(), make(timeout=2.0), samples.random_items()
    writer.create(SCHEMA)
    put(writer, items, SCHEMA)
    backend.open()
    query = samples.random_queries("lexical", 1)[0]
    request = [Request("lexical", query, 10)]
    right = backend.search(request)
    assert asyncio.run(backend.asearch(request)) == right
    node.freeze()
    try:
        for attempt in (lambda: backend.search(request), lambda: asyncio.run(backend.asearch(request)), backend.count):
            start = time.monotonic()
            with pytest.raises(BackendError, match="did not answer within 2 seconds"):
                attempt()
            assert 1.9 < time.monotonic() - start < 4
    finally:
        node.thaw()
    assert backend.search(request) == right
    assert asyncio.run(backend.asearch(request)) == right
    assert backend.count() == len(items)


def test_a_load_goes_on_when_a_frozen_node_thaws(node: Nodes, make: Make, background: ThreadPoolExecutor) -> None:
    backend, items = make(timeout=2.0, replicas=1), samples.random_items(2000)
    backend.create(SCHEMA)
    thawed: list[Future[None]] = []

    def thaw() -> None:
        time.sleep(4.5)  # two timeouts
        node.thaw()

    def freeze() -> None:
        node.freeze()
        thawed.append(background.submit(thaw))

    backend.load(batches(items, SCHEMA, 10, freeze))
    thawed[0].result()
    assert_holds(backend, items, SCHEMA)
    assert relaxed(node, backend) == (None, "1")


# --------------------------------------------------------------------------------------------------------- full disk


@slow_for_elasticsearch
def test_a_disk_above_its_watermark_takes_nothing_and_loses_nothing(node: Nodes, make: Make) -> None:
    backend, items = make(replicas=1), samples.random_items(600)
    backend.create(SCHEMA)
    put(backend, items[:200], SCHEMA)
    query = samples.random_queries("sparse", 1)[0]
    blocked = partial(pytest.raises, StorageError, match=r"is read-only .*free some space.* goes away by itself")
    try:
        with blocked():
            backend.load(batches(items[200:], SCHEMA, 2, lambda: fill(node, backend)))
        with blocked():
            backend.upsert(samples.encode(items[500:], SCHEMA))
        with blocked():
            backend.delete([items[0].id])
        for one in (backend, opened(make, replicas=1)):
            assert one.fetch([item.id for item in items[:200]]) == [item.document for item in items[:200]]
            stored = {document.id for batch in one.scan() for document in batch.documents}
            assert stored >= {item.id for item in items[:200]}
            check(one, "sparse", [item for item in items if item.id in stored], query, 20)
    finally:
        empty(node, backend)
    backend.load(batches(items, SCHEMA))
    assert_holds(backend, items, SCHEMA)
    assert relaxed(node, backend) == (None, "1")


def fill(node: Nodes, backend: LuceneBackend) -> None:
    """Let the node find too little free space. Returns when it has blocked the index."""
    wanted = f"{NEVER}gb"
    watermarks = {f"cluster.routing.allocation.disk.watermark.{level}": wanted for level in ("low", "high")}
    settings = {
        "cluster.routing.allocation.disk.threshold_enabled": True,
        "cluster.info.update.interval": "10s",  # the least
        **watermarks,
        "cluster.routing.allocation.disk.watermark.flood_stage": wanted,
    }
    node.ask("PUT", "/_cluster/settings", {"transient": settings})
    wait_for_block(node, backend, there=True)


def empty(node: Nodes, backend: LuceneBackend) -> None:
    levels = ("low", "high", "flood_stage")
    settings = {f"cluster.routing.allocation.disk.watermark.{level}": "1kb" for level in levels}
    node.ask("PUT", "/_cluster/settings", {"transient": settings})
    wait_for_block(node, backend, there=False)
    names = [*settings, "cluster.routing.allocation.disk.threshold_enabled", "cluster.info.update.interval"]
    node.ask("PUT", "/_cluster/settings", {"transient": dict.fromkeys(names)})


def wait_for_block(node: Nodes, backend: LuceneBackend, there: bool) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (found,) = node.ask("GET", f"{backend.address.path}/_settings").values()
        blocks = found["settings"]["index"].get("blocks", {})
        if (blocks.get("read_only_allow_delete") == "true") == there:
            return
        time.sleep(0.3)
    pytest.fail(f"the node has {'not blocked' if there else 'kept the block of'} the index: {blocks}")


# ---------------------------------------------------------------------------------------------- TLS and credentials


@only_elasticsearch
def test_credentials_are_taken_from_arguments_the_url_and_the_environment(
    node: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, password, ca = f"papers-{next(_numbers)}", node.password, node.ca_file
    place, with_user = node.location(name), node.location(name, user="elastic", password=node.password)
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=place, backend_options=node.options) as search:
        search.index([hs.Document("a", "lift of a wing")], show_progress_bar=False)

    def finds_it(location: str, **options: Any) -> None:
        with hs.open(location, backend_options=options) as search:
            assert search.search("wing").ids == ["a"]
            assert asyncio.run(search.asearch("wing")).ids == ["a"]

    finds_it(place, user="elastic", password=password, ca_file=ca)
    finds_it(with_user, ca_file=str(ca))
    monkeypatch.setenv("HYBRIDSEARCH_ELASTICSEARCH_CA", str(ca))
    finds_it(with_user)
    monkeypatch.setenv("HYBRIDSEARCH_ELASTICSEARCH_USER", "elastic")
    monkeypatch.setenv("HYBRIDSEARCH_ELASTICSEARCH_PASSWORD", password)
    finds_it(place)
    finds_it(place, user="elastic")


@only_elasticsearch
def test_each_refusal_of_a_secure_server_has_its_sentence_and_tells_no_secret(
    node: Nodes, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [None, *logging.root.manager.loggerDict]:
        caplog.set_level(logging.DEBUG, name)
    backend = make()
    backend.create(SCHEMA)
    put(backend, [samples.plain("a")], SCHEMA)
    place, index = node.location(backend.address.index), backend.address.index
    wrong = node.location(index, user="elastic", password=WRONG)
    told = [repr(backend), repr(backend.address), str(backend.describe())]
    refusals: list[tuple[str, LuceneBackend]] = [
        ("does not accept the credentials", make(password=WRONG)),
        ("does not accept the credentials", ElasticsearchBackend(wrong, ca_file=node.ca_file)),
        ("needs credentials, and none were given", ElasticsearchBackend(place, ca_file=node.ca_file)),
        ("certificate .* is not trusted .* HYBRIDSEARCH_ELASTICSEARCH_CA", ElasticsearchBackend(wrong)),
        (r"speaks TLS, write elasticsearch\+https://", ElasticsearchBackend(wrong.replace("+https", ""))),
    ]
    for sentence, refused in refusals:
        for attempt in (refused.open, lambda refused=refused: refused.create(SCHEMA)):
            with pytest.raises(BackendError, match=sentence) as error:
                attempt()
            assert len(str(error.value).splitlines()) == 1
            told += [*traceback.format_exception(error.value), repr(error.value), repr(refused)]
        refused.close()
    told.append(caplog.text)
    assert "elastic_transport" in caplog.text
    for secret in (node.password, WRONG):
        for user in ("elastic", "reader"):
            hidden = b64encode(f"{user}:{secret}".encode()).decode()
            assert not any(hidden in text or secret in text for text in told)


@only_elasticsearch
def test_a_user_who_may_only_read_searches_and_is_told_what_is_missing_when_writing(node: Nodes, make: Make) -> None:
    backend, reader = make(), make(user="reader")
    backend.create(SCHEMA)
    put(backend, [samples.plain("a")], SCHEMA)
    sentence = "no permission for this .*view_index_metadata.* give the user this permission for the index"
    with pytest.raises(BackendError, match=sentence):
        reader.open()
    node.grant("viewer", "reader")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the node looks for changes every few seconds
        with contextlib.suppress(BackendError):
            reader.open()
            break
        time.sleep(0.5)
    assert find_all(reader, "lexical") == {"a"}
    assert reader.fetch(["a"]) == [samples.plain("a").document]
    writes: list[Callable[[], object]] = [
        lambda: reader.upsert(samples.encode([samples.plain("b")], SCHEMA)),
        lambda: reader.load([samples.encode([samples.plain("b")], SCHEMA)]),
        lambda: reader.delete(["a"]),
        lambda: make("other", user="reader").create(SCHEMA),
    ]
    for write in writes:
        with pytest.raises(BackendError, match=r"no permission for this .*unauthorized for user \[reader\]") as error:
            write()
        assert len(str(error.value).splitlines()) == 1
    assert find_all(backend, "lexical") == {"a"}
    assert relaxed(node, backend) == (None, "0")
