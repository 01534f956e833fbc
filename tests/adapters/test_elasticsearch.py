"""The Elasticsearch backend passes the conformance suite against a real server, with HNSW and exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch.adapters.elasticsearch import ElasticsearchBackend
from hybridsearch.testing import BackendSuite
from hybridsearch.testing.filtering import FilterTests
from hybridsearch.testing.passages import PassageTests
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.ties import TieTests

Make = Callable[..., ElasticsearchBackend]


@pytest.fixture
def engine() -> str:
    return "elasticsearch"


class TestWithHnsw(BackendSuite):
    @pytest.fixture
    def connect(self, make: Make) -> Make:
        return partial(make, dense="hnsw")

    @pytest.fixture
    def connect_shared(self, make_shared: Make) -> Make:
        return partial(make_shared, dense="hnsw")


class TestExact(RankingTests, TieTests, FilterTests, PassageTests):  # the other tests do not depend on it
    @pytest.fixture
    def connect(self, make: Make) -> Make:
        return make

    @pytest.fixture
    def connect_shared(self, make_shared: Make) -> Make:
        return make_shared
