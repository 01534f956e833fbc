"""The Elasticsearch backend passes the conformance suite against a real server, with HNSW and exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch.adapters.elasticsearch import ElasticsearchBackend
from hybridsearch.testing import BackendSuite
from hybridsearch.testing.filtering import FilterTests
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.ties import TieTests

Make = Callable[..., ElasticsearchBackend]


@pytest.fixture
def make(elasticsearch_url: str, lucene_names: Callable[[str, str], str]) -> Iterator[Make]:
    """Makes backends of indexes that nobody else uses and that are deleted afterwards."""
    made: list[ElasticsearchBackend] = []

    def make(name: str = "index", **options: Any) -> ElasticsearchBackend:
        made.append(ElasticsearchBackend(lucene_names(elasticsearch_url, name), replicas=0, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


class TestWithHnsw(BackendSuite):
    @pytest.fixture
    def connect(self, make: Make) -> Callable[[str], ElasticsearchBackend]:
        return make


class TestExact(RankingTests, TieTests, FilterTests):  # what else there is does not depend on it
    @pytest.fixture
    def connect(self, make: Make) -> Callable[[str], ElasticsearchBackend]:
        return lambda name: make(name, dense="exact")
