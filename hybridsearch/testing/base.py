"""The fixtures and helpers that all conformance tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import pytest

from hybridsearch.backends import Backend, Capabilities, Kind, Request, Schema
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.testing import oracles, samples
from hybridsearch.testing.samples import Item
from hybridsearch.vectors import EncodedBatch, Metric, QueryVector

Connect: TypeAlias = Callable[[str], Backend]
Load: TypeAlias = Callable[[str, Sequence[Sequence[Item]]], Backend]
Kinds: TypeAlias = tuple[Kind, ...]

_LOADED = pytest.StashKey[dict[str, Backend]]()

KINDS: Kinds = ("lexical", "sparse", "dense")


class Base:
    """Gives each test an empty index with one retriever of every kind that the backend stores."""

    @pytest.fixture
    def connect(self) -> Connect:
        """A function from a name to a backend, neither opened nor created; see `hybridsearch.testing`."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `connect`: see hybridsearch.testing.")

    @pytest.fixture
    def connect_shared(self) -> Connect | None:
        """As `connect`, for places that stay until the last test of the class; None where there are no such places.

        The tests that change nothing then share their indexes, which matters where making one takes long.
        """
        return None

    @pytest.fixture
    def capabilities(self, connect: Connect) -> Capabilities:
        """What the backend declares."""
        return connect("index").capabilities

    @pytest.fixture
    def kinds(self, capabilities: Capabilities) -> Kinds:
        """The kinds of retrievers that the backend stores, which are also the retrievers' names.

        A test makes one index and goes through them, as making an index is what takes time; `case` says which failed.
        """
        return tuple(kind for kind in KINDS if kind in capabilities.kinds)

    @pytest.fixture
    def term_kinds(self, kinds: Kinds) -> Kinds:
        """Those whose vectors are made of terms; skips where there is none."""
        return _some(tuple(kind for kind in kinds if kind != "dense"), "lexical or sparse retrievers")

    @pytest.fixture
    def exact_kinds(self, kinds: Kinds, capabilities: Capabilities) -> Kinds:
        """Those that are not declared approximate; skips where there is none."""
        return _some(tuple(kind for kind in kinds if kind not in capabilities.approximate), "exact search")

    @pytest.fixture
    def any_kind(self, kinds: Kinds, capabilities: Capabilities) -> Kind:
        """One kind that the backend stores, for tests of what all share; an exact one where there is one."""
        return next((kind for kind in kinds if kind not in capabilities.approximate), kinds[0])

    @pytest.fixture
    def lexical(self, capabilities: Capabilities) -> Kind:
        """Skips where the backend has no lexical retriever."""
        return require_kind("lexical", capabilities)

    @pytest.fixture
    def dense(self, capabilities: Capabilities) -> Kind:
        """Skips where the backend has no dense retriever."""
        return require_kind("dense", capabilities)

    @pytest.fixture
    def schema(self, capabilities: Capabilities) -> Schema:
        """One retriever of each kind."""
        return samples.make_schema(capabilities.kinds.intersection(KINDS), average_length=frozen_average(capabilities))

    @pytest.fixture
    def backend(self, connect: Connect, schema: Schema) -> Iterator[Backend]:
        """An empty index."""
        backend = connect("index")
        backend.create(schema)
        yield backend
        backend.close()

    @pytest.fixture
    def load(
        self, connect: Connect, connect_shared: Connect | None, schema: Schema, request: pytest.FixtureRequest
    ) -> Load:
        """A function from a name and batches of items to an index of them, which the test must not change."""
        share = connect_shared is not None
        owner = request.node.getparent(pytest.Class) if share else request.node
        loaded: dict[str, Backend] = owner.stash.setdefault(_LOADED, {})

        def load(name: str, batches: Sequence[Sequence[Item]]) -> Backend:
            if name not in loaded:
                backend = (connect_shared or connect)(name)
                (owner if share else request).addfinalizer(backend.close)
                backend.create(schema)
                for items in batches:
                    put(backend, items, schema)
                loaded[name] = backend
            return loaded[name]

        return load

    @pytest.fixture
    def filled(self, load: Load) -> Backend:
        """An index of the random items, which the test must not change."""
        return load("filled", [samples.random_items()])


@contextmanager
def case(**names: object) -> Iterator[None]:
    """One case of a loop: where it fails, the report says which it was."""
    try:
        yield
    except BaseException as error:  # pytest's own failures are no Exception
        error.add_note("in the case " + ", ".join(f"{name} = {value!r}" for name, value in names.items()))
        raise


def require_kind(kind: Kind, capabilities: Capabilities) -> Kind:
    """Skip unless the backend stores it."""
    if kind not in capabilities.kinds:
        pytest.skip(f"the backend declares no {kind} retrievers")
    return kind


def _some(kinds: Kinds, what: str) -> Kinds:
    require(bool(kinds), what)
    return kinds


def frozen_average(capabilities: Capabilities) -> float | None:
    """The mean document length of the suite's lexical retriever, where the backend keeps one."""
    return None if capabilities.live_average else samples.FROZEN_LENGTH


def require(capability: bool, what: str) -> None:
    """Skip unless the backend declares it."""
    if not capability:
        pytest.skip(f"the backend declares that it has no {what}")


def put(backend: Backend, items: Sequence[Item], schema: Schema) -> EncodedBatch:
    """Upsert `items` in one batch and make them searchable."""
    batch = samples.encode(items, schema)
    backend.upsert(batch)
    backend.refresh()
    return batch


def ask(backend: Backend, kind: Kind, query: QueryVector, k: int = 10, filter: Filter | None = None) -> Ranking:
    """The answer to one request."""
    (ranking,) = backend.search([Request(kind, query, k, filter)])
    return ranking


def find_all(backend: Backend, kind: Kind, filter: Filter | None = None) -> set[str]:
    """The ids of all plain items that are found."""
    return set(ask(backend, kind, samples.common_query(kind), 1000, filter).ids)


def assert_same(backend: Backend, kind: Kind, one: Ranking, other: Ranking) -> None:
    """Assert that two answers to one question are equal. Approximate scores may differ by the stated tolerance.

    The loops of a server's approximate search are compiled while it runs, which changes the last bits of a score.
    """
    if kind not in backend.capabilities.approximate:
        assert one == other, kind
    assert one.ids == other.ids, kind
    np.testing.assert_allclose(one.scores, other.scores, rtol=backend.capabilities.score_tolerance[kind], err_msg=kind)


def check(
    backend: Backend,
    kind: Kind,
    items: Sequence[Item],
    query: QueryVector,
    k: int = 10,
    metric: Metric = "cosine",
    among: Callable[[Item], bool] | None = None,
    filter: Filter | None = None,
) -> None:
    """Assert that the backend, which holds `items`, answers `query` rightly; a failure names the question.

    `among` says which items `filter` lets through. Collection statistics are always those of all items.
    """
    right = oracles.right_scores(kind, items, query, metric, frozen_average(backend.capabilities))
    if among is not None:
        allowed = {item.id for item in items if among(item)}
        right = {id: score for id, score in right.items() if id in allowed}
    capabilities = backend.capabilities
    with case(kind=kind, query=query, k=k, filter=filter):
        oracles.check_ranking(
            ask(backend, kind, query, k, filter),
            right,
            k,
            tolerance=capabilities.score_tolerance[kind],
            approximate=kind in capabilities.approximate,
        )
