"""`BackendSuite`: all conformance tests in one class."""

from __future__ import annotations

from hybridsearch.testing.concurrency import ConcurrencyTests
from hybridsearch.testing.feedback import FeedbackTests
from hybridsearch.testing.fields import FieldTests
from hybridsearch.testing.filtering import FilterTests
from hybridsearch.testing.listing import ListingTests
from hybridsearch.testing.misuse import MisuseTests
from hybridsearch.testing.passages import PassageTests
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.storage import StorageTests
from hybridsearch.testing.ties import TieTests
from hybridsearch.testing.updates import UpdateTests
from hybridsearch.testing.vectors import VectorTests


class BackendSuite(
    RankingTests,
    TieTests,
    FieldTests,
    FeedbackTests,
    FilterTests,
    ListingTests,
    UpdateTests,
    StorageTests,
    PassageTests,
    VectorTests,
    MisuseTests,
    ConcurrencyTests,
):
    """All conformance tests of a backend.

    Subclass it, name the subclass `Test...`, and write the fixture `connect`: see `hybridsearch.testing`.
    """
