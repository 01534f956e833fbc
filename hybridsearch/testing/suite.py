"""The suite as a whole."""

from __future__ import annotations

from hybridsearch.testing.concurrency import ConcurrencyTests
from hybridsearch.testing.filtering import FilterTests
from hybridsearch.testing.misuse import MisuseTests
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.storage import StorageTests
from hybridsearch.testing.ties import TieTests
from hybridsearch.testing.updates import UpdateTests


class BackendSuite(RankingTests, TieTests, FilterTests, UpdateTests, StorageTests, MisuseTests, ConcurrencyTests):
    """All conformance tests. Subclass it, name the subclass `Test...`, and give it the fixture `connect`."""
