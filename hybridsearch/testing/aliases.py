"""Tests of publishing: an index gets a second name, which is moved to another index while it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from hybridsearch.backends import Aliased, Capabilities, Fingerprint, Kind, Request, Schema
from hybridsearch.errors import FingerprintMismatchError, IndexExistsError
from hybridsearch.testing import samples
from hybridsearch.testing.base import KINDS, TERM_KINDS, Base, Kinds, ask, check, put, require_kind
from hybridsearch.testing.samples import Item

Fill: TypeAlias = Callable[..., Aliased]


class AliasTests(Base):
    """Conformance tests of a backend that can be published under a second name (`Aliased`).

    Subclass it in addition to `BackendSuite`. It needs the fixtures `connect` and `name_of`.
    """

    @pytest.fixture
    def name_of(self) -> Callable[[Any], str]:
        """Write this fixture: a function from a backend that `connect` gave to the name that `publish` takes."""
        pytest.fail(
            f"{type(self).__name__} has no fixture `name_of`: write it as hybridsearch.testing.aliases describes.",
            pytrace=False,
        )

    @pytest.fixture
    def fill(self, connect: Callable[[str], Aliased], schema: Schema) -> Fill:
        """A function that makes an index with items, by default 60."""

        def fill(name: str, items: list[Item] | None = None, schema: Schema = schema) -> Aliased:
            backend = connect(name)
            backend.create(schema)
            items = samples.random_items() if items is None else items
            for start in range(0, len(items), 10):
                put(backend, items[start : start + 10], schema)
            return backend

        return fill

    @pytest.fixture(params=KINDS)
    def kind(self, request: pytest.FixtureRequest, capabilities: Capabilities) -> Kind:
        """Each kind of retriever that the backend stores, one after the other."""
        kind: Kind = request.param
        return require_kind(kind, capabilities)

    @pytest.fixture
    def live(self, connect: Callable[[str], Aliased]) -> Aliased:
        """A backend at the place of the alias. No index has this name yet."""
        return connect("live")

    @pytest.fixture
    def alias(self, live: Aliased, name_of: Callable[[Aliased], str]) -> str:
        """The name of the place of `live`."""
        return name_of(live)

    def test_an_index_is_published_in_the_place_of_the_one_before_which_is_deleted(
        self, connect: Any, fill: Fill, live: Aliased, alias: str, name_of: Any, schema: Schema, any_kind: Kind
    ) -> None:
        old, new = fill("v1", [samples.plain("old")]), fill("v2", [samples.plain("new")])
        assert isinstance(old, Aliased)
        assert old.publish(alias) is None
        assert new.publish(alias) == name_of(old)
        assert connect("v1").open() is None
        assert live.open() == schema
        assert live.count() == 1
        assert ask(live, any_kind, samples.common_query(any_kind)).ids == ("new",)

    def test_the_index_before_is_kept_where_that_is_asked_for(self, fill: Fill, alias: str, name_of: Any) -> None:
        old, new = fill("v1", [samples.plain("old")]), fill("v2", [samples.plain("new")])
        old.publish(alias)
        assert new.publish(alias, drop_old=False) == name_of(old)
        assert old.count() == 1
        assert old.publish(alias, drop_old=False) == name_of(new)

    def test_the_index_before_is_kept_if_another_alias_means_it(
        self, connect: Any, fill: Fill, alias: str, name_of: Any
    ) -> None:
        old, new = fill("v1", [samples.plain("old")]), fill("v2", [samples.plain("new")])
        others = sorted(name_of(connect(name)) for name in ("second", "third"))
        for name in (alias, *others):
            old.publish(name)
        before = new.publish(alias)
        assert before == name_of(old)
        assert getattr(before, "kept_for", None) == tuple(others)
        second = connect("second")
        second.open()
        assert second.count() == 1
        for name in others:
            new.publish(name)
        assert connect("v1").open() is None

    def test_publishing_what_the_alias_means_already_changes_nothing(
        self, fill: Fill, live: Aliased, alias: str
    ) -> None:
        backend = fill("v1")
        assert backend.publish(alias) is None
        live.open()
        for again in (backend, live):
            assert again.publish(alias) is None
            assert backend.count() == live.count() == 60

    def test_the_name_of_an_index_is_no_alias(self, fill: Fill, name_of: Any) -> None:
        backend, other = fill("v1"), fill("v2")
        for name in (name_of(other), name_of(backend)):
            with pytest.raises(IndexExistsError, match="is the name of"):
                backend.publish(name)
        assert other.count() == backend.count() == 60

    @pytest.mark.parametrize("drop_old", [True, False])
    def test_what_was_opened_by_an_alias_ranks_what_it_means_now(
        self, fill: Fill, live: Aliased, alias: str, exact_kinds: Kinds, drop_old: bool
    ) -> None:
        fill("v1").publish(alias)
        live.open()
        for kind in exact_kinds:
            check(live, kind, samples.random_items(), samples.random_queries(kind, 1)[0])
        more = [replace(item, id=f"new{item.id}") for item in samples.random_items(90, seed=7)]
        fill("v2", more).publish(alias, drop_old)
        for kind in exact_kinds:
            for query in samples.random_queries(kind, 3):
                check(live, kind, more, query, 20)
        assert live.count() == 90
        assert live.fetch(["d0", more[0].id])[1] == more[0].document
        assert sum(len(batch) for batch in live.scan()) == 90

    @pytest.mark.parametrize("drop_old", [True, False])
    def test_a_term_that_only_the_new_index_has_is_found_by_the_alias(
        self, fill: Fill, live: Aliased, alias: str, term_kinds: Kinds, drop_old: bool
    ) -> None:
        fill("v1").publish(alias)
        live.open()
        query = samples.sparse_query({"unheard": 1.0})
        for kind in term_kinds:
            assert not len(ask(live, kind, query)), kind
        fill("v2", [Item("new", {"unheard": 1}, {"unheard": 2.0})]).publish(alias, drop_old)
        for kind in term_kinds:
            assert ask(live, kind, query).ids == ("new",), kind

    def test_what_was_opened_by_an_alias_does_not_use_vectors_of_another_encoder(
        self, connect: Any, fill: Fill, live: Aliased, alias: str, name_of: Any, schema: Schema, kind: Kind
    ) -> None:
        fill("v1").publish(alias)
        live.open()
        other = replace(schema.retrievers[kind], fingerprint=Fingerprint("another model", {}))
        changed = replace(schema, retrievers={**schema.retrievers, kind: other})
        new = fill("v2", schema=changed)
        new.publish(alias)
        batch = samples.encode([samples.plain("a")], schema)
        query = samples.random_queries(kind, 1)[0]
        uses: list[Callable[[], Any]] = [
            lambda: ask(live, kind, query),
            lambda: live.upsert(batch),
            lambda: list(live.scan()),
        ]
        if kind in TERM_KINDS:
            uses.append(lambda: live.explain(Request(kind, query, 3), ["d0"]))
        for use in uses:
            with pytest.raises(FingerprintMismatchError, match=rf"{name_of(new)}.*\({kind}\).*open it again"):
                use()
        assert new.count() == 60
        again = connect("live")
        assert again.open() == changed
        assert len(ask(again, kind, query, 60))

    def test_what_is_written_by_an_alias_goes_to_what_it_means(
        self, fill: Fill, live: Aliased, alias: str, schema: Schema, any_kind: Kind
    ) -> None:
        old = fill("v1", [])
        old.publish(alias)
        live.open()
        put(live, [samples.plain("a")], schema)
        new = fill("v2", [])
        new.publish(alias, drop_old=False)
        put(live, [samples.plain("b"), samples.plain("c")], schema)
        assert live.delete(["c", "a"]) == 1
        for backend, ids in ((live, ("b",)), (new, ("b",)), (old, ("a",))):
            backend.refresh()
            assert ask(backend, any_kind, samples.common_query(any_kind)).ids == ids
