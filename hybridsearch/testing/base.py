"""The fixtures and helpers that all conformance tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import pytest

from hybridsearch.backends import Backend, Capabilities, Kind, Request, Schema
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.testing import oracles, samples
from hybridsearch.testing.samples import Item
from hybridsearch.vectors import EncodedBatch, Metric, QueryVector

Connect: TypeAlias = Callable[[str], Backend]

_KINDS: tuple[Kind, ...] = ("lexical", "sparse", "dense")


class Base:
    """Gives each test an empty index with one retriever of every kind that the backend stores."""

    @pytest.fixture
    def connect(self) -> Connect:
        """A function from a name to a backend, neither opened nor created; see `hybridsearch.testing`."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `connect`: see hybridsearch.testing.")

    @pytest.fixture
    def capabilities(self, connect: Connect) -> Capabilities:
        """What the backend declares."""
        return connect("index").capabilities

    @pytest.fixture(params=_KINDS)
    def kind(self, request: pytest.FixtureRequest, capabilities: Capabilities) -> Kind:
        """Each kind of retriever that the backend stores, in turn; also the retriever's name."""
        kind: Kind = request.param
        return _require_kind(kind, capabilities)

    @pytest.fixture(params=("lexical", "sparse"))
    def term_kind(self, request: pytest.FixtureRequest, capabilities: Capabilities) -> Kind:
        """Each kind whose vectors are made of terms, in turn; also the retriever's name."""
        kind: Kind = request.param
        return _require_kind(kind, capabilities)

    @pytest.fixture
    def any_kind(self, capabilities: Capabilities) -> Kind:
        """One kind that the backend stores, for tests of what all share; an exact one where there is one."""
        exact = [kind for kind in _KINDS if kind in capabilities.kinds - capabilities.approximate]
        return (exact or [kind for kind in _KINDS if kind in capabilities.kinds])[0]

    @pytest.fixture
    def lexical(self, capabilities: Capabilities) -> Kind:
        """Skips where the backend has no lexical retriever."""
        return _require_kind("lexical", capabilities)

    @pytest.fixture
    def dense(self, capabilities: Capabilities) -> Kind:
        """Skips where the backend has no dense retriever."""
        return _require_kind("dense", capabilities)

    @pytest.fixture
    def schema(self, capabilities: Capabilities) -> Schema:
        """One retriever of each kind."""
        return samples.make_schema(capabilities.kinds.intersection(_KINDS), average_length=frozen_average(capabilities))

    @pytest.fixture
    def backend(self, connect: Connect, schema: Schema) -> Iterator[Backend]:
        """An empty index."""
        backend = connect("index")
        backend.create(schema)
        yield backend
        backend.close()


def _require_kind(kind: Kind, capabilities: Capabilities) -> Kind:
    if kind not in capabilities.kinds:
        pytest.skip(f"the backend declares no {kind} retrievers")
    return kind


def frozen_average(capabilities: Capabilities) -> float | None:
    """The mean document length of the suite's lexical retriever, where the backend keeps one."""
    return None if capabilities.live_average else samples.FROZEN_LENGTH


def require(capability: bool, what: str) -> None:
    """Skip unless the backend declares it."""
    if not capability:
        pytest.skip(f"the backend declares that it has no {what}")


def exact_kind(kind: Kind, backend: Backend) -> Kind:
    """Skip where the backend declares searches of this kind approximate."""
    if kind in backend.capabilities.approximate:
        pytest.skip(f"the backend declares its {kind} search approximate")
    return kind


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
    """Assert that the backend, which holds `items`, answers `query` rightly.

    `among` says which items `filter` lets through. Collection statistics are always those of all items.
    """
    right = oracles.right_scores(kind, items, query, metric, frozen_average(backend.capabilities))
    if among is not None:
        allowed = {item.id for item in items if among(item)}
        right = {id: score for id, score in right.items() if id in allowed}
    capabilities = backend.capabilities
    oracles.check_ranking(
        ask(backend, kind, query, k, filter),
        right,
        k,
        tolerance=capabilities.score_tolerance[kind],
        approximate=kind in capabilities.approximate,
    )
