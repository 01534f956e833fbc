"""The conformance suite: every test that a backend must pass, ours or a third party's.

A whole test file:

    import pytest
    from hybridsearch.testing import BackendSuite
    from my_package import MyBackend

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda name: MyBackend(tmp_path / name)

`connect` is the one thing to supply: a function from a name ("index", "copy") to a `Backend` that is neither opened
nor created yet. The same name is the same place, so that the suite can close an index and open it again; another name
is another, empty place; each test starts with empty places. A server engine makes index names from the name and
something unique, and deletes them in the fixture's teardown:

        @pytest.fixture
        def connect(self):
            unique = uuid.uuid4().hex[:8]
            yield lambda name: MyBackend(f"localhost:9200/test-{unique}-{name}")
            delete_indices(f"test-{unique}-*")

The tests that change nothing can share their indexes, which matters where an engine takes long to make one. A class
allows it with a second fixture, `connect_shared`: a function as `connect`, for places that stay until the last test of
the class.

        @pytest.fixture
        def connect_shared(self, names_of_class):  # a fixture of scope "class" that deletes the indexes
            return lambda name: MyBackend(f"localhost:9200/{names_of_class}-{name}")

A test goes through several cases with one index: kinds of retrievers, cuts, odd values. Its failure says in which case
it was.

A backend that can be published under a second name (`hybridsearch.backends.Aliased`) has more tests, in
`hybridsearch.testing.aliases.AliasTests`, for a class of their own.

What is skipped follows from the `Capabilities` that the backend declares and from nothing else: a kind it does not
store, filters, delete, explain, scan, persistence, concurrent readers. For a kind it declares approximate, the tests
ask for recall in place of equality. Scores are compared within `Capabilities.score_tolerance` with float64 arithmetic
that is written out in `hybridsearch.testing.oracles`.

The suite needs pytest, numpy and scipy. It takes a few seconds on an in-process engine.
"""

from __future__ import annotations

import pkgutil

from hybridsearch.errors import MissingExtraError

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError("pytest", "dev", "The conformance suite") from error

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from hybridsearch.testing.suite import BackendSuite  # noqa: E402 - after the line above, or asserts are not explained

__all__ = ["BackendSuite"]
