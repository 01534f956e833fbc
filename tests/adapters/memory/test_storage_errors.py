"""Tests of storage that fails during a call: there is one error of ours, and nothing that was stored is lost.

The system calls really fail, because `failing_storage.c` is loaded before the C library. This file is also the program
that uses it: `LD_PRELOAD=... python test_storage_errors.py FOLDER FEWER`. It prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridsearch.adapters.memory import MemoryBackend, storing
from hybridsearch.errors import HybridSearchError, IndexCorruptedError, StorageError

IDS = [str(number) for number in range(80)]
CODES = [errno.EIO, errno.ENOSPC, errno.EACCES]


class Storage:
    """Makes system calls on files in a folder fail."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fail_count.restype = ctypes.c_long
        self._folder = os.fsencode(folder)

    @contextlib.contextmanager
    def failing(self, first: int, number: int, code: int) -> Any:
        """Let this number of calls fail, from the call with the number `first` on."""
        plan = self._library.fail_plan
        plan(ctypes.c_char_p(self._folder), ctypes.c_long(first), ctypes.c_long(number), code)
        try:
            yield
        finally:
            plan(b"", ctypes.c_long(-1), ctypes.c_long(0), 0)

    def calls(self) -> int:
        """The number of calls since the last plan began."""
        return int(self._library.fail_count())


def state_of(backend: MemoryBackend) -> dict[str, int]:
    return {document.id: document.metadata["v"] for batch in backend.scan() for document in batch.documents}


@contextlib.contextmanager
def opened_at(folder: Path) -> Any:
    backend = MemoryBackend(folder)
    backend.open()
    yield backend
    backend.close()


class Case:
    """A new index in a folder for each failure, and one action on it."""

    def __init__(self, folder: Path, samples: Any) -> None:
        self.folder, self.samples = folder / "storage", samples
        self.index, self.saved = self.folder / "index", self.folder / "saved"
        self.intact = folder / "intact"
        backend = samples.backend(self.intact / "index", IDS)
        backend.upsert(samples.batch(["small", "7"], 1))
        backend.delete(["9"])
        backend.save(self.intact / "saved")
        backend.close()

    def fresh(self, opened: bool) -> MemoryBackend:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.intact, self.folder)
        backend = MemoryBackend(self.index)
        if opened:
            backend.open()
        return backend


def actions(samples: Any, case: Case) -> dict[str, tuple[bool, Callable[[MemoryBackend], Any]]]:
    """By name: whether the index is opened before, and the action."""
    return {
        "open": (False, lambda backend: backend.open()),
        "create": (False, lambda backend: samples.backend(case.folder / "new", IDS[:60]).close()),
        "upsert": (True, lambda backend: backend.upsert(samples.batch(IDS[5:70], 2))),
        "delete": (True, lambda backend: backend.delete(IDS[:3])),
        "optimize": (True, lambda backend: backend.optimize()),
        "save": (True, lambda backend: backend.save(case.folder / "new")),
        "save over": (True, lambda backend: backend.save(case.saved, overwrite=True)),
        "read": (True, lambda backend: (backend.search(samples.requests()), backend.fetch(IDS), backend.describe())),
        "close": (True, lambda backend: (backend.delete(["1"]), backend.close())),
    }


def try_one(storage: Storage, case: Case, name: str, first: int, number: int, code: int) -> str:
    """ "fine", "refused", or what is wrong."""
    samples = case.samples
    opened, act = actions(samples, case)[name]
    backend = case.fresh(opened)
    with opened_at(case.intact / "index") as intact:
        before = state_of(intact)
    allowed = [before, before | dict.fromkeys(IDS[5:70], 2)]
    allowed += [{id: v for id, v in before.items() if id not in gone} for gone in (IDS[:3], ["1"])]
    said = "fine"
    with storage.failing(first, number, code):
        try:
            act(backend)
        except IndexCorruptedError as error:
            if "is missing" not in str(error) and code != errno.EACCES:
                return f"called damaged: {error}"
            said = "refused"
        except HybridSearchError as error:
            said = "refused"
            if isinstance(error, StorageError) and str(case.folder) not in str(error):
                return f"names no file: {error}"
    with contextlib.suppress(HybridSearchError):
        backend.close()
    for folder in (case.index, case.saved):
        with opened_at(folder) as again:
            if state_of(again) not in allowed:
                return f"lost something in {folder.name}"
            again.upsert(samples.batch(["after"], 3))
    new = case.folder / "new"
    if (new / "manifest.json").exists():
        with opened_at(new) as made:
            if name == "save" and state_of(made) != before:
                return "saved something else"
    return said


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("making system calls fail needs a C compiler on Linux")
    made = tmp_path_factory.mktemp("library") / "failing_storage.so"
    source = Path(__file__).with_name("failing_storage.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


def campaign(library: Path, folder: Path, fewer: int) -> dict[str, dict[str, int]]:
    """The counts by action, after every `fewer`-th call failed: once alone, and once with all later calls."""
    command = [sys.executable, __file__, str(folder), str(fewer)]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=7200, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["wrong"], said["wrong"][0]
    counts: dict[str, dict[str, int]] = said["counts"]
    assert counts["upsert"]["refused"]
    return counts


def test_storage_that_fails_is_one_error_and_loses_nothing(library: Path, tmp_path: Path) -> None:
    counts = campaign(library, tmp_path, 601)
    assert counts["read"]["calls"] == 0  # an open index needs no file any more


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_each_fifth_call_of_the_storage_may_fail(library: Path, tmp_path: Path) -> None:
    campaign(library, tmp_path, 5)


def main(folder: Path, fewer: int) -> None:
    from conftest import Samples  # in the folder of this program

    storing.SMALL_ROWS = 50  # so that small segments have arrays, too
    case = Case(folder, Samples())
    storage = Storage(case.folder)
    counts: dict[str, Counter[str]] = {}
    wrong = []
    for name in actions(case.samples, case):
        opened, act = actions(case.samples, case)[name]
        backend = case.fresh(opened)
        with storage.failing(1 << 60, 0, 0):
            act(backend)
            calls = storage.calls()
        backend.close()
        counts[name] = Counter(calls=calls)
        for at in range(len(counts) % fewer, calls, fewer):
            for number in (1, 1 << 60):
                code = CODES[at // fewer % 3] if number == 1 else errno.EIO
                try:
                    said = try_one(storage, case, name, at, number, code)
                except BaseException:
                    said = traceback.format_exc()[-900:]
                counts[name][said if said in ("fine", "refused") else "wrong"] += 1
                if said not in ("fine", "refused"):
                    wrong.append((name, at, number, code, said))
    print(json.dumps({"counts": counts, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
