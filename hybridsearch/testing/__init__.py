"""The conformance suite: the tests that every backend must pass.

This is a complete test file of a backend:

    import pytest
    from hybridsearch.testing import BackendSuite
    from my_package import MyBackend

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda name: MyBackend(tmp_path / name)

You write one fixture, `connect`. It is a function from a name ("index", "copy") to a `Backend`. Do not call `open` or
`create` of the backend. The same name must give the same place, so that a test can close an index and open it again.
Another name must give another place. Each test must start with empty places. For an engine on a server, make unique
index names, and delete the indexes at the end of the fixture:

        @pytest.fixture
        def connect(self):
            unique = uuid.uuid4().hex[:8]
            yield lambda name: MyBackend(f"localhost:9200/test-{unique}-{name}")
            delete_indices(f"test-{unique}-*")

If your engine takes long to make an index, let tests share indexes. Tests that change nothing then use the same index.
For this, write a second fixture, `connect_shared`. It is a function like `connect`, for places that stay until the last
test of the class.

        @pytest.fixture
        def connect_shared(self, names_of_class):  # a fixture of scope "class" that deletes the indexes
            return lambda name: MyBackend(f"localhost:9200/{names_of_class}-{name}")

A test checks several cases with one index: kinds of retrievers, values of k, unusual values. A failure names the case.

If your backend can be published under a second name (`hybridsearch.backends.Aliased`), also subclass
`hybridsearch.testing.aliases.AliasTests`.

The `Capabilities` of your backend decide which tests are skipped: tests of kinds that it does not store, filters,
delete, explain, scan, passages, persistence and concurrent readers. For an approximate kind, the tests measure recall
and do not require equal rankings. Scores are compared with float64 arithmetic, within `Capabilities.score_tolerance`.
The formulas are in `hybridsearch.testing.oracles`.

The suite needs pytest, numpy and scipy. It takes a few seconds for an engine in the same process.
"""

from __future__ import annotations

import pkgutil

from hybridsearch.errors import MissingExtraError

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError("pytest", "dev", "The conformance suite") from error

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from hybridsearch.testing.suite import BackendSuite  # noqa: E402 - after the line above, so that pytest explains asserts

__all__ = ["BackendSuite"]
