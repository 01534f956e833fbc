"""Tests of aliases that are moved while they are searched, and of `describe`, on OpenSearch and Elasticsearch."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from servers import call

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import hybridsearch as hs
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.backends import Described, Fingerprint, Request, Schema
from hybridsearch.cli.doctor import examine
from hybridsearch.errors import (
    BackendError,
    FingerprintMismatchError,
    IndexNotFoundError,
    InvalidArgumentError,
)
from hybridsearch.testing import samples
from hybridsearch.testing.aliases import AliasTests
from hybridsearch.testing.base import ask, check, put
from hybridsearch.testing.samples import Item

Make = Callable[..., LuceneBackend]
KINDS = frozenset({"lexical", "sparse", "dense"})
SCHEMA = samples.make_schema(KINDS, average_length=samples.FROZEN_LENGTH)


@pytest.fixture
def filled(make: Make) -> Callable[..., LuceneBackend]:
    """A function that makes an index with items."""

    def filled(name: str, items: list[Item] | None = None, schema: Schema = SCHEMA) -> LuceneBackend:
        backend = make(name)
        backend.create(schema)
        put(backend, samples.random_items() if items is None else items, schema)
        return backend

    return filled


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


def meaning(backend: LuceneBackend, alias: str) -> dict[str, Any]:
    """The indexes that the alias means, as the engine tells."""
    return dict(call(backend.address, "GET", f"/{alias}/_alias"))


def exists(backend: LuceneBackend) -> bool:
    return backend.address.index in call(backend.address, "GET", f"{backend.address.path}?ignore_unavailable=true")


# --------------------------------------------------------------------------------------------------------- publishing


class TestAliases(AliasTests):
    @pytest.fixture
    def connect(self, make: Make) -> Make:
        return make

    @pytest.fixture
    def name_of(self) -> Callable[[LuceneBackend], str]:
        return lambda backend: backend.address.index


def test_documents_are_found_by_the_alias_at_once(
    make: Make, never_refreshed: Callable[[LuceneBackend], LuceneBackend]
) -> None:
    backend, live = never_refreshed(make("v1")), make("live")
    backend.create(SCHEMA)
    backend.upsert(samples.encode([samples.plain("a")], SCHEMA))
    backend.publish(live.address.index)
    live.open()
    assert live.count() == 1


def test_an_index_opened_by_one_alias_is_published_under_another(
    make: Make, filled: Callable[..., LuceneBackend]
) -> None:
    backend, first, second = filled("v1"), make("first"), make("second")
    backend.publish(first.address.index)
    first.open()
    assert first.publish(second.address.index) is None
    assert list(meaning(backend, second.address.index)) == [backend.address.index]


def test_an_alias_of_several_indexes_is_left_alone(make: Make, filled: Callable[..., LuceneBackend]) -> None:
    alias = make("live").address.index
    backend, *others = (filled(name) for name in ("v1", "v2", "v3"))
    for other in others:
        call(other.address, "PUT", f"{other.address.path}/_alias/{alias}")
    with pytest.raises(BackendError, match="means 2 indexes"):
        backend.publish(alias)
    assert set(meaning(backend, alias)) == {other.address.index for other in others}
    with pytest.raises(BackendError, match="means 2 indexes"):
        others[0].publish(alias)
    assert set(meaning(backend, alias)) == {other.address.index for other in others}


@pytest.mark.parametrize("drop_old", [True, False])
def test_an_alias_of_a_foreign_index_is_left_alone(
    make: Make, filled: Callable[..., LuceneBackend], drop_old: bool
) -> None:
    backend, foreign, alias = filled("v1"), make("foreign"), make("live").address.index
    call(foreign.address, "PUT", foreign.address.path, {"aliases": {alias: {}}})
    with pytest.raises(BackendError, match="not made by hybridsearch"):
        backend.publish(alias, drop_old)
    assert list(meaning(foreign, alias)) == [foreign.address.index]


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"filter": {"term": {"id": "d1"}}}, "has a filter.*give the filter with each search"),
        ({"routing": "a"}, "has a routing value"),
        ({"search_routing": "a"}, "has a routing value"),
        ({"index_routing": "a"}, "has a routing value"),
    ],
)
def test_an_alias_that_hides_documents_is_refused_and_not_ignored(
    make: Make, filled: Callable[..., LuceneBackend], properties: dict[str, Any], reason: str
) -> None:
    backend, live, other = filled("v1"), make("live"), filled("v2")
    alias, name = live.address.index, backend.address.index
    backend.publish(alias)
    live.open()
    call(backend.address, "PUT", f"{backend.address.path}/_alias/{alias}", properties)
    reason = rf"{alias}.*{reason}"
    uses: list[Callable[[], Any]] = [
        live.reopen,
        lambda: live.delete(["d1"]),
        lambda: list(live.scan()),
        lambda: make("live").open(),
        lambda: hs.open(f"{live.address.engine.lower()}://{live.address.urls[0].partition('://')[2]}/{alias}"),
        lambda: backend.publish(alias),
        lambda: other.publish(alias),
    ]
    for use in uses:
        with pytest.raises(BackendError, match=reason) as caught:
            use()
        assert repr(name) in str(caught.value)
    assert meaning(backend, alias)[name]["aliases"][alias]  # as it was
    assert backend.count() == 60


@pytest.mark.parametrize("properties", [{"is_write_index": True}, {"is_hidden": True}])
def test_an_alias_that_hides_no_document_is_opened(
    make: Make, filled: Callable[..., LuceneBackend], properties: dict[str, Any]
) -> None:
    backend, live = filled("v1"), make("live")
    path = f"{backend.address.path}/_alias"
    call(backend.address, "PUT", f"{path}/{live.address.index}", properties)
    filtered = make("filtered").address.index
    call(backend.address, "PUT", f"{path}/{filtered}", {"filter": {"term": {"id": "d1"}}})  # another alias
    live.open()
    assert live.count() == 60
    backend.reopen()
    assert backend.count() == 60


@pytest.mark.parametrize("name", ["", "Upper", "a,b", "a*", "-a", "_all", "a/b", ".."])
def test_what_cannot_be_a_name_is_no_alias(filled: Callable[..., LuceneBackend], name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="name"):
        filled("v1", []).publish(name)


def test_an_index_that_was_deleted_is_not_published(make: Make, filled: Callable[..., LuceneBackend]) -> None:
    old, new, alias = filled("v1"), filled("v2"), make("live").address.index
    old.publish(alias)
    call(new.address, "DELETE", new.address.path)
    with pytest.raises(IndexNotFoundError, match="may have been deleted"):
        new.publish(alias)
    assert list(meaning(old, alias)) == [old.address.index]


@pytest.mark.parametrize("drop_old", [True, False])
def test_an_alias_moved_by_somebody_else_at_the_same_time_is_left_as_they_made_it(
    make: Make, filled: Callable[..., LuceneBackend], monkeypatch: pytest.MonkeyPatch, drop_old: bool
) -> None:
    old, new, theirs = filled("v1"), filled("v2"), filled("v3")
    alias = make("live").address.index
    old.publish(alias)
    original = Channel.answer

    def answer(self: Channel, request: Call) -> Any:
        if request.path == "/_aliases" and self.address == new.address:
            theirs.publish(alias, drop_old)
        return original(self, request)

    monkeypatch.setattr(Channel, "answer", answer)
    with pytest.raises(BackendError, match="publish again"):
        new.publish(alias, drop_old)
    assert list(meaning(new, alias)) == [theirs.address.index]
    assert exists(old) is not drop_old


# ---------------------------------------------------------------------------------- searching while the alias moves


def test_searching_opening_and_counting_by_an_alias_go_on_while_indexes_are_swapped(
    make: Make, filled: Callable[..., LuceneBackend]
) -> None:
    names = ("v1", "v2", "v3")
    items = {name: [samples.plain(f"{name}-{number}") for number in range(40)] for name in names}
    live = make("live")
    filled("v1", items["v1"]).publish(live.address.index)
    live.open()
    done = threading.Event()
    found: list[list[str]] = []
    counts: list[int] = []
    failures: list[BaseException] = []

    def search() -> None:
        for kind in sorted(KINDS):
            found.append(list(ask(live, kind, samples.common_query(kind), 40).ids))

    def search_asynchronously() -> None:
        request = Request("dense", samples.common_query("dense"), 40)
        found.extend(list(ranking.ids) for ranking in asyncio.run(live.asearch([request, request])))

    def count() -> None:
        counts.append(live.count())

    def open_and_count() -> None:
        opened = make("live")
        assert opened.open() == SCHEMA
        counts.append(opened.count())
        opened.close()

    def again_and_again(use: Callable[[], None]) -> None:
        try:
            while not done.is_set():
                use()
        except BaseException as error:
            failures.append(error)

    users = (search, search, search_asynchronously, count, open_and_count)
    threads = [threading.Thread(target=again_and_again, args=(use,)) for use in users]
    for thread in threads:
        thread.start()
    for name in names:
        if name != "v1":
            filled(name, items[name]).publish(live.address.index)
        assert sorted(ask(live, "sparse", samples.common_query("sparse"), 40).ids) == sorted(i.id for i in items[name])
        enough = len(found) + 4 * len(users)  # so that the threads have searched this index too
        while len(found) < enough and not failures:
            time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(counts) == {40}
    assert {len(ids) for ids in found} == {40}
    of_indexes = [{id.partition("-")[0] for id in ids} for ids in found]
    assert all(len(of_one) == 1 for of_one in of_indexes)
    assert [name for name in names if {name} in of_indexes] == list(names)


def test_searches_by_an_alias_are_one_round_trip_once_frequencies_are_known(
    make: Make, filled: Callable[..., LuceneBackend], calls: list[Call]
) -> None:
    backend, live = filled("v1"), make("live")
    backend.publish(live.address.index)
    live.open()
    requests = [Request(kind, query, 60) for kind in sorted(KINDS) for query in samples.random_queries(kind, 3)]
    first = live.search(requests)
    assert first == backend.search(requests)
    calls.clear()
    assert live.search(requests) == first
    assert [(call.method, call.path.rpartition("/")[2]) for call in calls] == [("POST", "_msearch")]


def test_what_was_opened_by_an_alias_notices_an_index_made_anew_under_the_old_name(
    make: Make, filled: Callable[..., LuceneBackend]
) -> None:
    live = make("live")
    first, second = filled("blue"), None
    first.publish(live.address.index)
    live.open()
    query = samples.random_queries("lexical", 1)[0]
    check(live, "lexical", samples.random_items(), query)
    second = filled("green", [samples.plain("x")])
    second.publish(live.address.index)
    more = samples.random_items(90, seed=7)
    filled("blue", more).publish(live.address.index)
    check(live, "lexical", more, query, 20)
    second = filled("green", [samples.plain("x")], other_schema())
    second.publish(live.address.index)
    filled("blue", more, other_schema()).publish(live.address.index)
    with pytest.raises(FingerprintMismatchError, match="open it again"):
        ask(live, "lexical", query)


def test_an_alias_that_means_vectors_of_another_encoder_by_now_is_refused(
    make: Make, filled: Callable[..., LuceneBackend]
) -> None:
    live = make("live")
    filled("v1").publish(live.address.index)
    live.open()
    filled("v2", schema=other_schema()).publish(live.address.index)
    with pytest.raises(FingerprintMismatchError, match=r"v2.*\(dense\).*open it again"):
        live.load([samples.encode([samples.plain("a")], SCHEMA)])
    with pytest.raises(FingerprintMismatchError, match=r"v2.*\(dense\).*open it again"):
        asyncio.run(live.asearch([Request("sparse", samples.common_query("sparse"), 3)]))


def test_an_alias_that_is_gone_is_one_sentence(make: Make, filled: Callable[..., LuceneBackend]) -> None:
    backend, live = filled("v1"), make("live")
    backend.publish(live.address.index)
    live.open()
    call(backend.address, "DELETE", f"{backend.address.path}/_alias/{live.address.index}")
    with pytest.raises(IndexNotFoundError, match="There is no index"):
        live.count()
    assert backend.count() == 60


def other_schema() -> Schema:
    """SCHEMA, but its dense vectors are of another model."""
    dense = replace(SCHEMA.retrievers["dense"], fingerprint=Fingerprint("another model", {}))
    return replace(SCHEMA, retrievers={**SCHEMA.retrievers, "dense": dense})


# --------------------------------------------------------------------------------------------------------- describing


def test_the_engine_and_the_index_are_described(make: Make, filled: Callable[..., LuceneBackend], engine: str) -> None:
    backend, live = filled("v1"), make("live", user="somebody", password="s3cret-word")  # noqa: S106
    backend.publish(live.address.index)
    live.open()
    assert isinstance(live, Described)
    facts = live.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert "s3cret" not in str(facts)
    assert "somebody" not in str(facts)
    assert facts["engine"].lower() == engine
    version = call(backend.address, "GET", "/_nodes/_all/none")["nodes"].popitem()[1]["version"]
    assert facts["version"] == version

    def health() -> tuple[str, int]:
        found = call(backend.address, "GET", "/_cluster/health")
        return found["status"], found["number_of_nodes"]

    described = (live.describe() for _ in range(50))  # another test changes the status when it makes an index
    assert any((one["status"], one["nodes"]) == health() for one in described)
    assert (facts["index"], facts["aliases"]) == (backend.address.index, [live.address.index])
    assert (facts["documents"], facts["shards"], facts["replicas"]) == (60, 1, 0)
    assert facts["bytes"] > 1000
    assert facts["options"]["dense"] == "exact"


def test_the_engine_is_described_where_there_is_no_index(make: Make, engine: str) -> None:
    backend = make("nothing")
    assert backend.open() is None
    facts = backend.describe()
    assert facts["engine"].lower() == engine
    assert "documents" not in facts


def test_the_doctor_shows_what_the_engine_says(filled: Callable[..., LuceneBackend], server: str) -> None:
    backend = filled("v1")
    report = examine(f"{server}/{backend.address.index}")
    findings = {finding.name: finding.detail for finding in report.findings if finding.part == "server"}
    assert report.problems == ()
    assert findings["index"] == backend.address.index
    assert findings["documents"] == "60"


def test_the_doctor_asks_a_server_without_an_index(server: str, engine: str) -> None:
    for place in (server, f"{server}/"):
        report = examine(place)
        findings = {finding.name: finding.detail for finding in report.findings if finding.part == "server"}
        assert report.problems == ()
        assert report.findings[0].part == "server"
        assert findings["engine"].lower() == engine
        assert {"version", "status", "plugins"} <= findings.keys()
        assert "location" not in findings


def test_the_doctor_describes_the_server_of_a_foreign_index(make: Make, server: str, engine: str) -> None:
    foreign = make("foreign")
    call(foreign.address, "PUT", foreign.address.path, {})
    report = examine(f"{server}/{foreign.address.index}")
    findings = {finding.name: finding.detail for finding in report.findings if finding.part == "server"}
    assert findings["engine"].lower() == engine
    assert {"version", "status", "plugins"} <= findings.keys()
    (problem,) = report.problems
    assert "was not made by hybridsearch" in problem
    assert "a backend of your own" in problem


def test_the_doctor_knows_the_other_engine(server: str, engine: str) -> None:
    other = "opensearch" if engine == "elasticsearch" else "elasticsearch"
    (problem,) = examine(server.replace(engine, other)).problems
    assert f"write {engine}:// in place of {other}://" in problem


def test_reopening_follows_an_index_that_was_deleted_and_made_again(make: Make) -> None:
    reader, writer = make("again"), make("again")
    assert reader.reopen() is None
    writer.create(SCHEMA)
    put(writer, [samples.plain("old")], SCHEMA)
    assert reader.reopen() is not None
    searcher = reader._searcher
    assert reader.reopen() == reader.open()
    assert reader._searcher is searcher  # statistics are kept if nothing has changed
    call(writer.address, "DELETE", writer.address.path)
    assert reader.reopen() is None
    other = samples.make_schema(frozenset({"sparse"}))
    again = make("again")
    again.create(other)
    put(again, [samples.plain("new")], other)
    assert reader.reopen() == other
    assert [document is not None for document in reader.fetch(["old", "new"])] == [False, True]
    assert ask(reader, "sparse", samples.random_queries("sparse")[0]).ids in ((), ("new",))


def test_reopening_follows_an_alias_to_an_index_with_other_retrievers(make: Make) -> None:
    first, second = make("first"), make("second")
    first.create(SCHEMA)
    put(first, [samples.plain("old")], SCHEMA)
    alias = f"{first.address.index}-alias"
    first.publish(alias)
    reader = make("first-alias")
    assert list((reader.open() or SCHEMA).retrievers) == list(SCHEMA.retrievers)
    other = samples.make_schema(frozenset({"sparse"}))
    second.create(other)
    put(second, [samples.plain("new")], other)
    second.publish(alias)
    assert reader.reopen() == other
    assert [document is not None for document in reader.fetch(["old", "new"])] == [False, True]
