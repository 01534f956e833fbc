"""Fixtures of the tests of OpenSearch and Elasticsearch: backends of indexes on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridsearch.places import connect


@pytest.fixture(params=["opensearch", "elasticsearch"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine, which is also the scheme of its URLs. A module for one engine overrides this fixture."""
    return str(request.param)


@pytest.fixture
def server(engine: str, request: pytest.FixtureRequest) -> str:
    """`ENGINE://host:port` of a real server."""
    return str(request.getfixturevalue(f"{engine}_url"))


@pytest.fixture
def make(engine: str, server: str, lucene_names: Callable[[str, str], str]) -> Iterator[Callable[..., Any]]:
    """A function that makes backends of new indexes, which are deleted afterwards.

    `through` is the address of a proxy in front of the server.
    """
    made: list[Any] = []

    def make(name: str = "index", *, through: str | None = None, **options: Any) -> Any:
        location = lucene_names(server, name)
        if through is not None:
            location = location.replace(server, f"{engine}://{through.partition('://')[2]}")
        made.append(connect(location, {"replicas": 0, "dense": "exact", **options}))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def never_refreshed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A function that takes a backend without an index: the engine never refreshes the index that it creates.

    The setting is part of the request that makes the index. After a later change, a refresh that the engine has
    already scheduled may still run.
    """

    def never_refreshed(backend: Any) -> Any:
        settings = backend.settings
        monkeypatch.setattr(backend, "settings", lambda *of: {**settings(*of), "refresh_interval": "-1"})
        return backend

    return never_refreshed


@pytest.fixture
def make_shared(server: str, lucene_names_of_class: Callable[[str, str], str]) -> Callable[..., Any]:
    """A function like `make`, for indexes that the tests of a class share. The tests close the backends."""

    def make(name: str, **options: Any) -> Any:
        return connect(lucene_names_of_class(server, name), {"replicas": 0, "dense": "exact", **options})

    return make
