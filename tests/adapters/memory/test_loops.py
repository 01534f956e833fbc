"""Tests of the search loops: NumPy and compiled loops give the same bits, and the latter are read when needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.sparse import csc_array, random_array

from hybridsearch import compiled
from hybridsearch.adapters.memory import loops, plain
from hybridsearch.adapters.memory.dense import DenseMatrix
from hybridsearch.adapters.memory.multi_vectors import TokenMatrix, TokenQuery
from hybridsearch.adapters.memory.postings import Postings
from hybridsearch.errors import StorageError
from hybridsearch.vectors import DenseVectors, MultiVectors, Vocabulary

TEN = """
import json, sys, time
import hybridsearch as hs
search = hs.HybridSearch({"bm25": hs.BM25()}, *sys.argv[1:])
search.index([hs.Document(f"d{number}", f"wing {'jet ' * number}") for number in range(10)], show_progress_bar=False)
hits = [[hit.id, hit.score] for hit in search.search("jet wing")]
"""
"""A program that indexes ten documents and searches them."""

SHOWN = "print(json.dumps([hits, time.process_time(), 'numba' in sys.modules]))"

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


def python(code: str, *arguments: str | Path, **environment: str) -> str:
    """The output of a new process. Any text on standard error makes the test fail."""
    settings = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | environment
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# The same hits, the same scores


@given(
    seed=st.integers(0, 2**31),
    documents=st.sampled_from([1, 2, 50, 9000, 20_000, 65_537]),
    terms=st.integers(0, 12),
    density=st.sampled_from([0.0, 0.01, 0.3, 0.9]),
    kind=st.sampled_from(["few", "near", "far", "tiny", "huge", "equal"]),
    k=st.sampled_from([1, 3, 10, 1000]),
    share=st.sampled_from([None, 0.0, 0.02, 0.5]),
    part=st.booleans(),
    passages=st.sampled_from([None, 1, 4, 3000]),
)
def test_both_find_the_same_documents_with_the_same_float32_scores(
    compiled_loops: ModuleType,
    seed: int,
    documents: int,
    terms: int,
    density: float,
    kind: str,
    k: int,
    share: float | None,
    part: bool,
    passages: int | None,
) -> None:
    """Postings with values of many magnitudes, to test the order of summation, or with few values, to test ties.

    Up to 16,384 documents, the second search reads rows with the values of common terms.
    More than 16,384 documents are searched by codes, whose largest error depends on the largest value of each term.
    """
    rng = np.random.default_rng(seed)
    matrix = csc_array(random_array((documents, 10), density=density, rng=rng, dtype=np.float32))
    matrix.sort_indices()
    exact, size = kind in ("few", "equal"), len(matrix.data)
    signs = [-1, 1, 2] if seed % 2 else [1, 2]
    powers = {"near": rng.uniform(-1, 1, size), "far": rng.uniform(-20, 20, size), "tiny": -42.0, "huge": 36.0}
    matrix.data = np.ceil(matrix.data * 3) if exact else (matrix.data + 0.1) * 10.0 ** powers[kind]
    matrix.data = np.ones(size) if kind == "equal" else rng.choice(signs, size) * matrix.data
    indptr, rows, values = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data
    values = values.astype(np.float32)
    order = rng.permutation(documents).astype(np.int32)
    allowed = np.empty(0, np.bool_) if share is None else rng.random(documents) < share
    first, last = sorted(rng.integers(0, documents + 1, 2).tolist()) if part else (0, documents)
    columns = rng.integers(-1, 10, terms)
    columns = columns[np.sort(np.unique(columns, return_index=True)[1])]
    weights = (rng.integers(-1, 4, len(columns)) * (1 if exact else rng.random(len(columns)))).astype(np.float32)
    owners = np.empty(0, np.int32)
    if passages is not None:  # the passages of an owner are beside each other, and are in order
        owners = np.sort(rng.integers(0, documents // passages + 1, documents)).astype(np.int32)
        order = np.argsort(np.argsort(rng.permutation(documents + 1)[owners], kind="stable")).astype(np.int32)
    for array in (indptr, rows, values, order, allowed, owners):
        array.flags.writeable = False
    found_rows, found_scores = np.empty((1, k), np.int32), np.empty((1, k), np.float32)
    counts, starts = np.zeros(1, np.int64), np.array([0, len(columns)])
    names = Vocabulary([str(number) for number in range(10)])
    impacts = Postings(indptr, rows, values, np.zeros(documents, np.float32), names).impacts
    coded = loops.prepare(impacts, columns, 2 if seed % 4 else 1)  # one query does not yet make codes
    for _ in range(2):
        loops.top_k(
            *(impacts, coded, columns, weights, np.empty(0), starts, order, allowed, owners),
            *(0, 1, first, last, k, np.zeros(1, np.int64), found_rows, found_scores, counts),
        )
    plain_rows, plain_scores = np.empty(k, np.int32), np.empty(k, np.float32)
    count = plain.top_k(
        *(indptr, rows, values, columns, weights, order, allowed, owners, first, last), plain_rows, plain_scores
    )
    assert count == counts[0]
    assert plain_rows[:count].tolist() == found_rows[0, :count].tolist()
    assert plain_scores[:count].tobytes() == found_scores[0, :count].tobytes()
    if passages is not None:  # the best of each owner among all hits without owners
        everything, all_scores = np.empty(documents, np.int32), np.empty(documents, np.float32)
        hits = plain.top_k(
            *(indptr, rows, values, columns, weights, order, allowed, owners[:0], first, last), everything, all_scores
        )
        best = everything[:hits][plain.first_of_each(owners[everything[:hits]])]
        assert plain_rows[:count].tolist() == best[:k].tolist()

    wanted = np.unique(rng.integers(0, documents, 20))
    held = np.diff(indptr)[columns] > 0
    ours, theirs = np.empty((2, len(wanted)), np.float32)
    arguments = (indptr, rows, values, np.where(held, columns, -1), weights, wanted)
    compiled_loops.score_rows(*arguments, ours)
    plain.score_rows(*arguments, theirs)
    assert ours.tobytes() == theirs.tobytes()


def test_no_call_compiles_anything_more(compiled_loops: ModuleType) -> None:
    """The calls have the declared types. With another type, the caller would wait 20 seconds for the compiler."""
    import hybridsearch as hs

    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document(str(number), "wing") for number in range(10)], show_progress_bar=False)
    search.search("wing", filter={"id": {"$in": ["1", "2"]}})
    search.search_many(["wing"] * 20)
    matrix = DenseMatrix.from_vectors(DenseVectors(np.ones((600, 4), np.float32)))
    matrix.search(np.ones((1, 4), np.float32), 2, np.arange(600, dtype=np.int32), None)
    tokens = TokenMatrix.from_vectors(MultiVectors.of([np.ones((2, 4))] * 600, 4))
    tokens.best(TokenQuery.of(np.ones((3, 4), np.float32)), np.arange(600), 2, np.arange(600, dtype=np.int32))
    names = ("top_k", "top_k_by_values", "bound", "approximate", "score_rows", "most_similar")
    for loop in (getattr(compiled_loops, name) for name in names):
        assert len(loop.signatures) == 1


# When they come


def test_a_first_use_takes_no_compiler_and_less_than_three_seconds(tmp_path: Path) -> None:
    hits, seconds, compiler = json.loads(python(TEN + SHOWN, NUMBA_CACHE_DIR=str(tmp_path)))
    assert (len(hits), compiler) == (10, False)
    assert seconds < 3
    assert list(tmp_path.iterdir()) == []


def test_searches_that_take_long_fetch_the_code_that_is_kept_and_find_the_same(compiled_loops: ModuleType) -> None:
    code = f"""
import time
from hybridsearch.adapters.memory import loops
loops._fetcher.patience = -1
{TEN}
end = time.monotonic() + 60
while loops._fetcher.kernels is None and time.monotonic() < end:
    time.sleep(0.01)
print(loops._fetcher.kernels is not None, loops._fetcher._child is None)
print(hits == [[hit.id, hit.score] for hit in search.search("jet wing")])
"""
    assert python(code).split() == ["True"] * 3


def test_where_no_code_is_kept_another_process_compiles_it_and_outlives_this_one(tmp_path: Path) -> None:
    code = f"""
from hybridsearch.adapters.memory import loops
loops._fetcher.patience = -1
{TEN}
loops._fetcher._thread.join()
search.search("jet")
print(loops._fetcher._child.pid)
"""
    started = time.monotonic()
    child = int(python(code, NUMBA_CACHE_DIR=str(tmp_path)))
    assert time.monotonic() - started < 20
    os.kill(child, signal.SIGKILL)  # raises where it has not outlived the process
    assert list(tmp_path.glob("*/complete")) == []


@pytest.mark.skipif(
    not AUTOGROUP.exists() or AUTOGROUP.read_text().strip() != "1", reason="sessions do not share the processor"
)
def test_compiling_in_the_background_gives_way_to_other_sessions() -> None:
    code = "from hybridsearch import compiled; compiled.give_way(); print(open('/proc/self/autogroup').read())"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, start_new_session=True
    )
    assert done.stdout.split()[-1] == "19"


def test_where_compiling_fails_numpy_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled.Loops, "load", lambda self: None)
    failing = [sys.executable, "-c", "exit(1)"]
    monkeypatch.setattr(compiled.Loops, "make_elsewhere", lambda self: subprocess.Popen(failing))
    fetcher = compiled.Fetcher(loops.LOOPS, 1.0)
    end = time.monotonic() + 30
    while not fetcher._over and time.monotonic() < end:
        fetcher.go_on()
        time.sleep(0.01)
    fetcher.go_on()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "The search loops could not be compiled, so NumPy stays in use: try `hybridsearch warmup`."
    ]


def test_code_that_is_damaged_is_not_used(compiled_loops: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / loops.LOOPS.name
    shutil.copytree(str(loops.LOOPS.find()), folder)
    (next(folder.glob("kernels.top_k*.nbc"))).write_bytes(b"no machine code")
    code = f"""
import logging
from hybridsearch.adapters.memory import loops
loops._fetcher.patience = -1
logging.getLogger("hybridsearch").addHandler(logging.StreamHandler(sys.stdout))
{TEN}
loops._fetcher._thread.join()
print(loops._fetcher.kernels, len(search.search("jet")))
"""
    said, result = python("import sys" + code, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert "cannot be used, so NumPy stays in use" in said
    assert result == "None 9"


# Where they are kept


def test_the_folder_that_numba_is_told_is_honoured_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert loops.LOOPS.find() is None
    assert loops.LOOPS.writable().parent == tmp_path


def test_code_is_kept_in_the_users_cache_else_in_a_private_temporary_folder_else_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = [tmp_path / "file" / "__pycache__", tmp_path / "cache", tmp_path / "temporary"]
    (tmp_path / "file").touch()  # not even root can make a folder here
    monkeypatch.setattr(compiled, "_places", lambda source: ((place, False) for place in places))
    kept = loops.LOOPS.writable()
    assert kept.parent == tmp_path / "cache"
    assert stat.S_IMODE(kept.stat().st_mode) == stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    shutil.rmtree(places[1])
    places[1].touch()
    assert loops.LOOPS.writable().parent == tmp_path / "temporary"
    shutil.rmtree(places[2])
    places[2].touch()
    with pytest.raises(StorageError, match="set NUMBA_CACHE_DIR to a folder that can be written, or run `hybridse"):
        loops.LOOPS.writable()


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_code_is_not_read_from_where_another_user_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiled, "_places", lambda source: [(tmp_path / "place", False)])
    folder = loops.LOOPS.writable()
    (folder / "complete").touch(0o644)
    assert loops.LOOPS.find() == folder
    for path in (folder, folder / "complete"):
        mode = path.stat().st_mode
        for more in (0o020, 0o002):
            path.chmod(mode | more)
            assert loops.LOOPS.find() is None
        path.chmod(mode)
    folder.parent.chmod(0o777)
    assert loops.LOOPS.find() is None
    with pytest.raises(StorageError):
        loops.LOOPS.writable()
    folder.parent.chmod(0o1777)  # like /tmp: others may write there, but not move the files of this user
    assert loops.LOOPS.find() == folder
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        assert loops.LOOPS.find() is None
        os.chown(folder, 0, 0)
        assert loops.LOOPS.find() == folder
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "link").symlink_to(__file__)
    folder.symlink_to(tmp_path / "elsewhere")
    assert loops.LOOPS.find() is None


SOMEBODY = 54321
"""A user without a name and without a home, as in a container."""

AS_SOMEBODY = [
    *("setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
"""Let another user read all files and write none, because this folder may be private."""


def as_somebody(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run([*AS_SOMEBODY, *map(str, command)], capture_output=True, text=True, env=settings, check=False)


@pytest.fixture(scope="module")
def somebody() -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0 or as_somebody("true").returncode:
        pytest.skip("only root can become another user, by setpriv of util-linux")


@pytest.mark.usefixtures("somebody")
def test_another_user_without_a_home_on_a_tree_that_is_read_only_indexes_and_searches(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, SOMEBODY, SOMEBODY)
    done = as_somebody(sys.executable, "-c", TEN + SHOWN, own / "index", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    hits, seconds, _ = json.loads(done.stdout)
    assert hits == json.loads(python(TEN + SHOWN))[0]
    assert seconds < 3


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize(
    "verb", [["doctor", "--json"], ["search", "INDEX", "wing", "--json"]], ids=["doctor", "search"]
)
def test_the_program_works_for_a_user_without_a_name_and_a_home(verb: list[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    python(TEN, tmp_path / "index")
    subprocess.run(["chmod", "-R", "a+rX", tmp_path], check=True)  # noqa: S607
    verb = [str(tmp_path / "index") if part == "INDEX" else part for part in verb]
    done = as_somebody(sys.executable, "-m", "hybridsearch", *verb, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    json.loads(done.stdout)
