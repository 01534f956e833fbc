"""Tests of several processes with one index: readers that follow a writer, forks, and pickled searches."""

from __future__ import annotations

import asyncio
import copy
import json
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.corpus import store as store_module
from hybridsearch.errors import (
    BackendError,
    FingerprintMismatchError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidArgumentError,
)

InAFork = Callable[..., Any]


def bm25(**options: Any) -> dict[str, Any]:
    return {"bm25": hs.BM25(**options)}


def store(search: hs.HybridSearch, *ids: str, text: str = "wing") -> None:
    search.index([hs.Document(id, text) for id in ids], show_progress_bar=False)


def found(search: hs.HybridSearch, query: str = "wing") -> list[str]:
    return sorted(search.search(query, 1000).ids)


# Following


def test_a_reader_finds_what_others_stored_after_a_refresh_and_not_before(tmp_path: Path) -> None:
    writer = hs.HybridSearch(bm25(), tmp_path / "index")
    store(writer, "a", "b")
    reader = hs.open(tmp_path / "index")
    store(writer, "c")
    writer.delete("a")
    assert (found(reader), reader.count()) == (["a", "b"], 2)
    reader.refresh()
    assert (found(reader), reader.count(), reader.get("a")) == (["b", "c"], 2, [None])


def test_with_an_interval_searches_look_for_themselves(tmp_path: Path) -> None:
    writer = hs.HybridSearch(bm25(), tmp_path / "index")
    store(writer, "a")
    reader, never = hs.open(tmp_path / "index", refresh="1ms"), hs.open(tmp_path / "index", refresh="1h")
    store(writer, "b")
    time.sleep(0.002)
    assert (found(reader), found(never)) == (["a", "b"], ["a"])


@pytest.mark.parametrize("refresh", ["soon", "1 week", -1, True, "", float("nan")])
def test_an_interval_that_is_none_is_refused(refresh: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^refresh is .*, but it must be a number of"):
        hs.HybridSearch(bm25(), refresh=refresh)


def test_an_index_that_is_made_later_is_found_by_whoever_waited_for_it(tmp_path: Path) -> None:
    reader = hs.HybridSearch(bm25(), tmp_path / "index")
    assert reader.count() == 0
    with pytest.raises(IndexNotFoundError):
        reader.search("wing")
    store(hs.HybridSearch(bm25(), tmp_path / "index"), "a")
    assert (found(reader), reader.count()) == (["a"], 1)


def test_whoever_brings_the_first_documents_too_late_adds_them(tmp_path: Path) -> None:
    late = hs.HybridSearch(bm25(), tmp_path / "index")
    first = hs.HybridSearch(bm25(), tmp_path / "index")
    store(first, "a")
    first.close()
    store(late, "b")
    assert found(late) == ["a", "b"]
    other = hs.HybridSearch(bm25(language="german"), tmp_path / "other")
    same = hs.HybridSearch(bm25(), tmp_path / "other")
    store(same, "a")
    same.close()
    with pytest.raises(FingerprintMismatchError):
        store(other, "b")


def test_a_reader_follows_an_index_that_was_deleted_and_made_again_with_other_settings(tmp_path: Path) -> None:
    place = tmp_path / "index"
    with hs.HybridSearch(bm25(), place) as writer:
        store(writer, "a")
    opened, made = hs.open(place), hs.HybridSearch(bm25(), place)
    assert found(opened) == ["a"]
    shutil.rmtree(place)
    opened.refresh()
    with pytest.raises(IndexNotFoundError):
        opened.search("wing")
    retrievers = {"words": hs.BM25(language="german"), "more": hs.BM25()}
    with hs.HybridSearch(retrievers, place, hs.ScoreFusion("minmax"), candidates=7) as writer:
        store(writer, "b", text="Flügel")
    opened.refresh()
    assert (found(opened, "Flügel"), list(opened.retrievers), opened.candidates) == (["b"], ["words", "more"], 7)
    assert repr(opened.fusion) == repr(hs.ScoreFusion("minmax"))
    assert repr(str(place)) in repr(opened)
    with pytest.raises(InvalidArgumentError, match="index' has the retrievers 'words', 'more', and 'bm25' cannot"):
        made.refresh()


def test_an_index_with_the_same_name_and_another_encoder_is_no_longer_searched(tmp_path: Path) -> None:
    with hs.HybridSearch(bm25(), tmp_path / "index") as writer:
        store(writer, "a")
    reader = hs.HybridSearch(bm25(), tmp_path / "index")
    shutil.rmtree(tmp_path / "index")
    with hs.HybridSearch(bm25(language="german"), tmp_path / "index") as writer:
        store(writer, "b")
    plan, second = reader.plan(), copy.copy(reader)
    with pytest.raises(FingerprintMismatchError):
        reader.refresh()
    for search in (reader.search, second.search, lambda query: plan.results([query])):
        with pytest.raises(FingerprintMismatchError, match="the index was built with bm25"):
            search("wing")


def test_a_copy_and_a_plan_do_not_search_an_index_that_another_search_found_in_its_place(tmp_path: Path) -> None:
    with hs.HybridSearch(bm25(), tmp_path / "index") as writer:
        store(writer, "a")
    reader = hs.open(tmp_path / "index")
    plan, second, made_again = reader.plan(), copy.copy(reader), copy.copy(reader)
    shutil.rmtree(tmp_path / "index")
    with hs.HybridSearch(bm25(language="german"), tmp_path / "index") as writer:
        store(writer, "b", text="Flügel")
    reader.refresh()
    assert found(reader, "Flügel") == ["b"]
    for search in (second.search, lambda query: plan.results([query]), lambda query: second.rankings([query])):
        with pytest.raises(FingerprintMismatchError, match="the index was built with bm25"):
            search("Flügel")
    second.refresh()
    assert found(second, "Flügel") == ["b"]
    shutil.rmtree(tmp_path / "index")
    with hs.HybridSearch({"words": hs.BM25()}, tmp_path / "index") as writer:
        store(writer, "c")
    second.refresh()
    with pytest.raises(FingerprintMismatchError, match="replaced by one that has no retriever 'bm25': call refresh"):
        made_again.search("wing")


def test_hits_of_an_index_that_was_replaced_are_not_explained_with_its_encoders(tmp_path: Path) -> None:
    with hs.HybridSearch(bm25(), tmp_path / "index") as writer:
        store(writer, "a")
    reader = hs.open(tmp_path / "index")
    (hit,) = reader.search("wing")
    shutil.rmtree(tmp_path / "index")
    with hs.HybridSearch(bm25(language="german"), tmp_path / "index") as writer:
        store(writer, "a")
    reader.refresh()
    for read in (hit.explain, hit.snippet, lambda: hit.highlights):
        with pytest.raises(FingerprintMismatchError, match="the index was built with bm25"):
            read()


def test_settings_that_were_set_stay_when_the_index_is_replaced(tmp_path: Path) -> None:
    def make(language: str, **settings: Any) -> None:
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        with hs.HybridSearch(bm25(language=language), tmp_path / "index", **settings) as writer:
            store(writer, "a")

    make("english")
    reader = hs.open(tmp_path / "index")
    chosen = reader.fusion = hs.RRF(7)
    for language, candidates in (("german", 30), ("english", 40)):
        make(language, candidates=candidates)
        reader.refresh()
        assert (reader.fusion is chosen, reader.candidates) == (True, candidates)
    reader.fusion = hs.ScoreFusion("minmax", weights={"bm25": 1.0})
    shutil.rmtree(tmp_path / "index")
    with hs.HybridSearch({"other": hs.BM25()}, tmp_path / "index") as writer:
        store(writer, "a")
    with pytest.raises(InvalidArgumentError, match="fusion"):
        reader.refresh()


def test_an_index_that_is_replaced_while_a_query_is_encoded_is_not_searched_with_it(tmp_path: Path) -> None:
    with hs.HybridSearch(bm25(), tmp_path / "index") as writer:
        store(writer, "a")
    reader = hs.open(tmp_path / "index")
    plan, encode = reader.plan(), reader.retrievers["bm25"].encode_queries

    def replaced_meanwhile(texts: Any) -> Any:
        shutil.rmtree(tmp_path / "index")
        with hs.HybridSearch(bm25(language="german"), tmp_path / "index") as writer:
            store(writer, "b")
        reader.refresh()
        return encode(texts)

    reader.retrievers["bm25"].encode_queries = replaced_meanwhile  # type: ignore[method-assign]
    with pytest.raises(FingerprintMismatchError, match="the index was built with bm25"):
        plan.results(["wing"])


def test_a_search_for_different_hits_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    search = hs.HybridSearch(bm25(), tmp_path / "index")
    store(search, "a", "b")
    search.search("wing", diversity=hs.MMR())
    backend, ids = search.backend, []
    assert isinstance(backend, MemoryBackend)
    with backend._writer:
        thread = threading.Thread(target=lambda: ids.extend(search.search("wing", diversity=hs.MMR()).ids), daemon=True)
        thread.start()
        thread.join(10)
    assert sorted(ids) == ["a", "b"]


def test_a_search_that_waits_for_an_index_looks_for_it_outside_of_the_event_loop(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    class Watched(MemoryBackend):
        def reopen(self) -> Any:
            threads.append(threading.current_thread())
            return super().reopen()

    reader = hs.HybridSearch(bm25(), Watched(tmp_path / "index"))
    with pytest.raises(IndexNotFoundError):
        asyncio.run(reader.asearch("wing"))
    store(hs.HybridSearch(bm25(), tmp_path / "index"), "a")
    assert asyncio.run(reader.asearch("wing")).ids == ["a"]
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_copy_has_the_present_settings(tmp_path: Path) -> None:
    search = hs.HybridSearch(bm25(), tmp_path / "index")
    store(search, "a")
    search.optional, search.timeout, search.candidates = frozenset({"bm25"}), {"bm25": 7.0}, 8
    pickled = pickle.loads(pickle.dumps(search))  # noqa: S301 - its own pickle
    for copied in (copy.copy(search), copy.deepcopy(search), pickled):
        assert (copied.optional, copied.timeout, copied.candidates) == ({"bm25"}, {"bm25": 7.0}, 8)


def test_where_nothing_has_changed_a_refresh_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(hs.HybridSearch(bm25(), tmp_path / "index"), "a")
    reader = hs.open(tmp_path / "index", refresh=0)
    time.sleep(0.11)  # a newer file is read again, because two commits may have the same time
    reader.refresh()
    monkeypatch.setattr(store_module, "read_manifest", lambda folder: pytest.fail("the manifest was read"))
    assert found(reader) == ["a"]


def test_a_writer_whose_index_was_replaced_by_others_is_not_the_writer_of_that_one(tmp_path: Path) -> None:
    old = hs.HybridSearch(bm25(), tmp_path / "index")
    store(old, "a")
    shutil.rmtree(tmp_path / "index")
    new = hs.HybridSearch(bm25(), tmp_path / "index")
    store(new, "b")
    old.refresh()
    assert found(old) == ["b"]
    with pytest.raises(IndexLockedError):
        store(old, "c")


READER = """
import sys, time
import hybridsearch as hs
reader = hs.open(sys.argv[1], refresh=0)
states = []
print("ready", flush=True)
while states[-1:] != [int(sys.argv[2])]:
    hits = reader.search("wing", 5000, filter={"kept": True})
    states.append(len(hits))
    for hit in hits:
        assert hit.document.text.split()[1] == hit.id, hit
    assert len(hits) % 5 == 0, f"half a batch: {len(hits)}"
    assert states == sorted(states), states
    time.sleep(0.005)
print(len(set(states)))
"""


@pytest.mark.parametrize("batches", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_four_reader_processes_follow_a_writer_batch_by_batch(batches: int, tmp_path: Path) -> None:
    """Write batches. Each adds five documents and deletes five that no search finds, so that segments are merged."""
    writer = hs.HybridSearch(bm25(), tmp_path / "index")

    def batch(number: int) -> None:
        documents = [
            hs.Document(f"{kind}{number}-{one}", f"wing {kind}{number}-{one}", metadata={"kept": kind == "k"})
            for kind in "kx"
            for one in range(5)
        ]
        writer.index(documents, show_progress_bar=False)
        writer.delete([document.id for document in documents if not document.metadata["kept"]])

    batch(0)
    command = [sys.executable, "-c", READER, str(tmp_path / "index"), str(5 * batches)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for number in range(1, batches):
        batch(number)
        time.sleep(0.01)
    for reader in readers:
        states, complaint = reader.communicate(timeout=240)
        assert complaint == ""
        assert int(states) > 1  # the reader saw more states than the first and the last


def test_searches_under_way_bear_refreshes_and_merges(tmp_path: Path) -> None:
    writer = hs.HybridSearch(bm25(), tmp_path / "index")
    store(writer, "always")
    reader = hs.open(tmp_path / "index", refresh=0)
    errors: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        try:
            while not over.is_set():
                assert "always" in found(reader)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        store(writer, f"d{number}")
    writer.backend.optimize()  # type: ignore[attr-defined]
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []


# Forks


def test_a_forked_process_is_not_the_writer_that_its_parent_is(in_a_fork: InAFork, tmp_path: Path) -> None:
    search = hs.HybridSearch(bm25(), tmp_path / "index")
    store(search, "a")

    def child() -> object:
        try:
            store(search, "child")
        except IndexLockedError:
            return found(search)
        finally:
            search.close()  # which must not release the parent's lock
        return "stored"

    assert in_a_fork(child) == ["a"]
    with pytest.raises(IndexLockedError):
        store(hs.HybridSearch(bm25(), tmp_path / "index"), "other")
    store(search, "b")
    assert found(hs.open(tmp_path / "index")) == ["a", "b"]


def test_a_forked_process_searches_though_threads_of_its_parent_held_the_locks(
    in_a_fork: InAFork, tmp_path: Path
) -> None:
    search = hs.HybridSearch(bm25(), tmp_path / "index")
    store(search, "a")
    backend = search.backend
    assert isinstance(backend, MemoryBackend)
    held, go = threading.Event(), threading.Event()

    words = search.retrievers["bm25"]._queries._table  # type: ignore[attr-defined] - where stems of new words go

    def hold() -> None:
        with backend._writer, search._refreshing, search._create_lock, words._lock:
            held.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child() -> object:
        search.refresh()
        return found(search, "a new word beside wing")

    try:
        assert in_a_fork(child, 20) == ["a"]
    finally:
        go.set()
        thread.join()


def test_a_forked_process_has_connections_of_its_own(
    in_a_fork: InAFork, opensearch_url: str, lucene_names: Any
) -> None:
    search = hs.HybridSearch(bm25(), lucene_names(opensearch_url, "fork"))
    search.index([hs.Document(f"d{number}", f"word{number}") for number in range(20)], show_progress_bar=False)
    search.search("word1")
    channel = search.backend._channel  # type: ignore[attr-defined]
    made = channel._made

    def ask(numbers: list[int]) -> bool:
        return all(search.search(f"word{number}").ids == [f"d{number}"] for number in numbers * 10)

    def child() -> object:
        return [channel._made is made, ask([3, 7, 11])]

    assert in_a_fork(child) == [False, True]
    assert ask([5, 9, 13])
    assert channel._made is made


def test_an_embedded_qdrant_is_its_parents(in_a_fork: InAFork, tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client", reason="pip install 'hybridsearch[qdrant]'")
    search = hs.HybridSearch(bm25(), f"qdrant://{tmp_path / 'folder'}/papers")
    store(search, "a")
    kind, message = in_a_fork(lambda: found(search))
    assert (kind, found(search)) == ("IndexLockedError", ["a"])
    assert "run a Qdrant server" in message
    search.close()


# Pickles and copies


def ask_there(search: hs.HybridSearch) -> tuple[list[str], int, str]:
    return found(search), search.candidates, repr(search.fusion)


@contextmanager
def placed(place: Path) -> Iterator[hs.HybridSearch]:
    with hs.HybridSearch(bm25(), place, hs.ScoreFusion("minmax"), candidates=7) as search:
        store(search, "a", "b")
        yield search


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 - its own


@pytest.mark.parametrize("opened", [False, True], ids=["made", "opened"])
@pytest.mark.parametrize("again", [pickled, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_search_with_a_place_comes_back_as_another_one_that_is_open_there(
    again: Callable[[Any], Any], opened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with placed(Path("index")) as made:
        search = hs.open("index", refresh="1h") if opened else made
        search.candidates = 8
        back = again(search)
        assert back.backend is not search.backend
        assert ask_there(back) == (["a", "b"], 8, "ScoreFusion(normalization='minmax')")
        monkeypatch.chdir("/")  # its path is no longer relative
        assert ask_there(again(back)) == (["a", "b"], 8, "ScoreFusion(normalization='minmax')")


def test_a_search_in_ram_says_what_to_do_in_place_of_a_pickle() -> None:
    search = hs.HybridSearch(bm25())
    store(search, "a")
    for again in (pickle.dumps, copy.deepcopy):
        with pytest.raises(BackendError, match=r"RAM cannot be pickled.*save it with save\(folder\)"):
            again(search)
    assert found(copy.copy(search)) == ["a"]


def test_a_copy_shares_the_index_and_has_settings_of_its_own() -> None:
    search = hs.HybridSearch(bm25())
    copied = copy.copy(search)
    copied.candidates = 3
    store(search, "a")
    assert (found(copied), search.candidates, copied.backend is search.backend) == (["a"], 100, True)


def test_what_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    class Mine(hs.RRF):
        pass

    search = hs.HybridSearch(bm25(), tmp_path / "index", Mine())
    with pytest.raises(BackendError, match="because 'fusion', a Mine, cannot"):
        pickle.dumps(search)
    assert isinstance(copy.deepcopy(search).fusion, Mine)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_take_a_search(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    with placed(tmp_path / "index") as search, multiprocessing.get_context(method).Pool(1) as pool:
        answers = pool.map(ask_there, [search, search, search])
        assert answers == [(["a", "b"], 7, "ScoreFusion(normalization='minmax')")] * 3
        assert pool.apply(search.search, ("wing",)).ids == ["a", "b"]


# The page on this

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "processes.md"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n\n^```text\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the code of the page was run, and the blocks that did not print what the page says."""
    folder = tmp_path_factory.mktemp("page")
    wrong = []
    for number, block in enumerate(BLOCK.finditer(PAGE.read_text(encoding="utf-8"))):
        code = folder / f"block{number}.py"
        code.write_text(block["code"], encoding="utf-8")
        if "import ray" in block["code"] and find_spec("ray") is None:
            continue
        command = [sys.executable, "-W", "error::UserWarning", str(code)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, check=False)
        if (done.returncode, done.stdout) != (0, block["output"] or ""):
            wrong.append(f"{block['code']}\n{done.stdout}\n{done.stderr}")
    return folder, wrong


def test_the_code_on_the_page_runs_and_prints_what_it_says(blocks: tuple[Path, list[str]]) -> None:
    assert blocks[1] == []


def test_preloaded_workers_of_gunicorn_answer_and_follow_a_writer(blocks: tuple[Path, list[str]]) -> None:
    pytest.importorskip("gunicorn", reason="pip install gunicorn")
    folder = blocks[0]
    (app,) = (code for code in folder.glob("block*.py") if "def app(" in code.read_text())
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0"]
    server = subprocess.Popen([*command, f"{app.stem}:app"], cwd=folder, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        lines = iter(server.stderr.readline, "")
        port = next(match[1] for match in map(re.compile(r"Listening at: http://[\d.]+:(\d+)").search, lines) if match)

        def ids() -> list[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/?q=lift") as answer:
                return [hit["id"] for hit in json.load(answer)["hits"]]

        assert ids() == ["wing", "tail"]
        with hs.open(folder / "papers") as writer:
            writer.upsert(hs.Document("fin", "Lift on a fin of a rocket that stands upright"))
        end = time.monotonic() + 20
        while not all(len(ids()) == 3 for _ in range(6)) and time.monotonic() < end:
            time.sleep(0.1)
        assert ids() == ["wing", "tail", "fin"]
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()
