"""The fixtures and functions that all conformance tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, TypeAlias

import numpy as np
import pytest

from hybridsearch.backends import Backend, Capabilities, Kind, Request, Schema
from hybridsearch.filters import Filter
from hybridsearch.ranking import Ranking
from hybridsearch.testing import oracles, samples
from hybridsearch.testing.samples import Item
from hybridsearch.vectors import EncodedBatch, Metric, QueryVector

Connect: TypeAlias = Callable[[str], Backend]
Load: TypeAlias = Callable[..., Backend]
Kinds: TypeAlias = tuple[Kind, ...]

_LOADED = pytest.StashKey[dict[str, Backend]]()

KINDS: Kinds = ("lexical", "sparse", "dense", "multi_vector")
TERM_KINDS: Kinds = ("lexical", "sparse")


class Base:
    """The fixtures of the conformance tests. An index has one retriever of each kind that the backend stores.

    Attributes:
        many: Documents of a large index, and passages of a long document. Search servers return no more hits than
            10,000. A slow engine without such a limit may have a smaller number.
    """

    many: ClassVar[int] = 10_000

    @pytest.fixture
    def connect(self) -> Connect:
        """Write this fixture: a function from a name to a backend. See `hybridsearch.testing`."""
        pytest.fail(
            f"{type(self).__name__} has no fixture `connect`: write it as hybridsearch.testing describes.",
            pytrace=False,
        )

    @pytest.fixture
    def connect_shared(self) -> Connect | None:
        """A function like `connect`, for places that stay until the last test of the class. Default None: no sharing.

        Write this fixture if making an index takes long. Tests that change nothing then share their indexes.
        """
        return None

    @pytest.fixture
    def capabilities(self, connect: Connect) -> Capabilities:
        """The capabilities that the backend declares."""
        return connect("index").capabilities

    @pytest.fixture
    def kinds(self, capabilities: Capabilities) -> Kinds:
        """The kinds of retrievers that the backend stores. They are also the names of the retrievers.

        A test makes one index and checks all kinds, because making an index takes time. `case` tells which one failed.
        """
        return tuple(kind for kind in KINDS if kind in capabilities.kinds)

    @pytest.fixture
    def term_kinds(self, kinds: Kinds) -> Kinds:
        """The kinds whose vectors are made of terms. Skips the test if there are none."""
        return _some(tuple(kind for kind in kinds if kind in TERM_KINDS), "lexical or sparse retrievers")

    @pytest.fixture
    def exact_kinds(self, kinds: Kinds, capabilities: Capabilities) -> Kinds:
        """The kinds that are not declared approximate. Skips the test if there are none."""
        return _some(tuple(kind for kind in kinds if kind not in capabilities.approximate), "exact search")

    @pytest.fixture
    def any_kind(self, kinds: Kinds, capabilities: Capabilities) -> Kind:
        """One kind that the backend stores, an exact one if possible. Tests that need only one kind use it."""
        return next((kind for kind in kinds if kind not in capabilities.approximate), kinds[0])

    @pytest.fixture
    def lexical(self, capabilities: Capabilities) -> Kind:
        """The kind "lexical". Skips the test if the backend does not store it."""
        return require_kind("lexical", capabilities)

    @pytest.fixture
    def dense(self, capabilities: Capabilities) -> Kind:
        """The kind "dense". Skips the test if the backend does not store it."""
        return require_kind("dense", capabilities)

    @pytest.fixture
    def multi_vector(self, capabilities: Capabilities) -> Kind:
        """The kind "multi_vector". Skips the test if the backend does not store it."""
        return require_kind("multi_vector", capabilities)

    @pytest.fixture
    def schema(self, capabilities: Capabilities) -> Schema:
        """A schema with one retriever of each kind."""
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
        """A function from a name and batches of items to an index with these items. A test must not change it.

        A third argument gives the schema, if it is not the fixture `schema`.
        """
        share = connect_shared is not None
        owner = request.node.getparent(pytest.Class) if share else request.node
        loaded: dict[str, Backend] = owner.stash.setdefault(_LOADED, {})

        def load(name: str, batches: Sequence[Sequence[Item]], schema: Schema = schema) -> Backend:
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
        """An index with the random items. A test must not change it."""
        return load("filled", [samples.random_items()])


@contextmanager
def case(**names: object) -> Iterator[None]:
    """One case of a loop. If it fails, the report names the case."""
    try:
        yield
    except BaseException as error:  # the failures of pytest are not of type Exception
        error.add_note("in the case " + ", ".join(f"{name} = {value!r}" for name, value in names.items()))
        raise


def require_kind(kind: Kind, capabilities: Capabilities) -> Kind:
    """Skip the test unless the backend stores this kind. Returns the kind."""
    if kind not in capabilities.kinds:
        pytest.skip(f"the backend declares no {kind} retrievers")
    return kind


def _some(kinds: Kinds, what: str) -> Kinds:
    require(bool(kinds), what)
    return kinds


def frozen_average(capabilities: Capabilities) -> float | None:
    """The average document length in the schema of the lexical retriever. None if the backend follows the average."""
    return None if capabilities.live_average else samples.FROZEN_LENGTH


def require(capability: bool, what: str) -> None:
    """Skip the test unless the backend declares this capability."""
    if not capability:
        pytest.skip(f"the backend declares that it has no {what}")


def put(backend: Backend, items: Sequence[Item], schema: Schema) -> EncodedBatch:
    """Upsert items in one batch and make them searchable. Returns the batch."""
    batch = samples.encode(items, schema)
    backend.upsert(batch)
    backend.refresh()
    return batch


def ask(backend: Backend, kind: Kind, query: QueryVector, k: int = 10, filter: Filter | None = None) -> Ranking:
    """The answer to one request."""
    (ranking,) = backend.search([Request(kind, query, k, filter)])
    return ranking


def find_all(backend: Backend, kind: Kind, filter: Filter | None = None) -> set[str]:
    """The ids of all plain items that a search finds."""
    return set(ask(backend, kind, samples.common_query(kind), 1000, filter).ids)


def assert_same(backend: Backend, kind: Kind, one: Ranking, other: Ranking) -> None:
    """Assert that two answers to the same request are equal. Approximate scores may differ by the declared tolerance.

    A server compiles the loops of its approximate search while it runs, which changes the last bits of a score.
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
    """Assert that a backend with exactly these items gives the right answer. A failure names the query.

    `among` tells which items `filter` lets through. The statistics of the collection always cover all items.
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
