"""Compiled loops: how their machine code is kept, and when a process reads it.

Compiling takes 5 or 25 seconds. Reading compiled code takes a tenth of a second. Code is read from the first of these
folders that has it. New code is written to the first folder that can be written:

    $NUMBA_CACHE_DIR            if it is set, no other folder is tried
    __pycache__ beside the source, for those who install the package or build an image
    $XDG_CACHE_HOME/hybridsearch or ~/.cache/hybridsearch
    hybridsearch-<user id>      in the folder for temporary files, or in /dev/shm

A user who can write to this folder could run code in every process that reads it. So a folder is used only if it
belongs to this user, to root or to the owner of the source, and if nobody else can write to it or replace it.
$NUMBA_CACHE_DIR is not checked: the person who sets it is responsible for it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import logging
import os
import platform
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar
from weakref import WeakSet

import filelock

from hybridsearch.errors import HybridSearchError, StorageError
from hybridsearch.folders import cache_home

log = logging.getLogger(__name__)

_COMPLETE = "complete"
_WAY_OUT = (
    "set NUMBA_CACHE_DIR to a folder that can be written, or run `hybridsearch warmup` as the user who installed it"
)
_CHILD = (
    "import sys; sys.path[:] = sys.argv[5:]; from hybridsearch import compiled; compiled.give_way(); "
    "compiled.Loops(*sys.argv[1:4], tuple(sys.argv[4].split())).make()"
)

_importing = threading.Lock()


class Locator:
    """Tells numba that the code of the functions in the package `source` is in `folder`, which may be read-only."""

    folder: ClassVar[Path]
    source: ClassVar[Path]

    def __init__(self, file: str) -> None:
        self._py_file = file  # numba names it in warnings

    @classmethod
    def from_function(cls, function: object, file: str) -> Locator | None:
        return cls(file) if Path(file).parent == cls.source else None

    def get_cache_path(self) -> str:
        return str(self.folder)

    def ensure_cache_path(self) -> None:
        """Do nothing, because the folder is there."""

    def get_source_stamp(self) -> str:
        return self.folder.name  # the name has a digest of the sources

    def get_disambiguator(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Loops:
    """A module of compiled loops, with a function `compile_all`, and the place of its machine code.

    Attributes:
        module: Name of the module.
        what: What the loops do, such as "search". Messages and the name of the folder have it.
        instead: What is used until the loops are compiled.
        sources: Names of the files beside the module that the code depends on.
    """

    module: str
    what: str
    instead: str
    sources: tuple[str, ...]

    def load(self) -> ModuleType | None:
        """The module with the compiled code for this machine. None if there is none.

        If the code cannot be read, for example because it is damaged, numba's error is raised.
        """
        folder = self.find()
        return None if folder is None else self._read(folder)

    def find(self) -> Path | None:
        """The folder with the compiled code for this machine. None if there is none."""
        for place, trusted in _places(self._source()):
            folder = place / self.name
            if (folder / _COMPLETE).is_file() and (trusted or _safe(folder, self._source())):
                return folder
        return None

    def make(self) -> ModuleType:
        """The module with its code. It is compiled now if there is no compiled code yet.

        Only one process of a machine compiles at a time. The others wait.

        Raises:
            StorageError: No folder can keep the code.
        """
        folder = self.writable()
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{folder}.lock", timeout=300):
            loops = self.load()
            if loops is None:
                loops = self._read(folder)
                for file in folder.iterdir():
                    file.chmod(0o644)
                (folder / _COMPLETE).touch(0o644)
            return loops
        return self._read(folder)  # another process has held the lock for too long

    def make_elsewhere(self) -> subprocess.Popen[bytes]:
        """Run `make` in another process, which goes on after this process has ended.

        Raises:
            StorageError: No folder can keep the code, or there is no Python to start.
        """
        self.writable()
        program = Path(sys.executable or "")
        if not program.name.lower().startswith(("python", "pypy")):
            raise StorageError(f"{program.name or 'This program'} cannot compile in the background: {_WAY_OUT}.")
        path = [os.path.abspath(part) for part in sys.path]  # noqa: PTH100 - only the working folder is added
        return subprocess.Popen(  # noqa: S603
            [program, "-P", "-c", _CHILD, self.module, self.what, self.instead, " ".join(self.sources), *path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def writable(self) -> Path:
        """The first folder that can keep code for this machine. It is made if it does not exist.

        Raises:
            StorageError: There is none.
        """
        for place, trusted in _places(self._source()):
            mode = 0o755 if trusted or place.name == "__pycache__" else 0o700
            folder = place / self.name
            with contextlib.suppress(OSError):
                if not place.exists():
                    place.mkdir(mode, parents=True)
                folder.mkdir(mode, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
                if trusted or _safe(folder, self._source()):
                    return folder
        raise StorageError(f"No folder can keep the compiled {self.what} loops: {_WAY_OUT}.")

    @property
    def name(self) -> str:
        """The name of the folder for code that this interpreter, compiler and processor can use."""
        return _name(self.what, tuple(self._source() / source for source in self.sources))

    def _source(self) -> Path:
        """The folder of the module, which is not imported for that."""
        package = importlib.import_module(self.module.rpartition(".")[0])
        return Path(str(package.__file__)).parent

    def _read(self, folder: Path) -> ModuleType:
        """The module. Its code is read from `folder`, or compiled and written to `folder`."""
        from numba import config

        with _importing:
            Locator.folder, Locator.source = folder, self._source()
            before = config.CACHE_LOCATOR_CLASSES
            usual = (
                "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
            )
            config.CACHE_LOCATOR_CLASSES = f"{__name__}.{Locator.__name__},{before or usual}"
            try:  # other threads may compile functions of other packages meanwhile, and `Locator` ignores these
                module = importlib.import_module(self.module)
            finally:
                config.CACHE_LOCATOR_CLASSES = before
            module.compile_all()
        return module


class Fetcher:
    """Reads or compiles loops. Each call of `go_on` takes one step, and does not wait.

    Reading compiled code takes as long as thousands of calls of a short loop. Compiling takes as long as a hundred
    thousand. So a process begins with loops in Python. When they have taken `patience` seconds of processor time, a
    thread reads the compiled code. If there is none, another process compiles it, and this process goes on as it is.

    Attributes:
        loops: What is read or compiled.
        patience: Seconds of processor time that loops in Python may take.
        kernels: Module with the compiled loops. None until it can be used.
    """

    def __init__(self, loops: Loops, patience: float) -> None:
        self.loops, self.patience = loops, patience
        self.kernels: ModuleType | None = None
        self._spent = 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._over = bool(os.environ.get("NUMBA_DISABLE_JIT", "0").strip("0"))
        _fetchers.add(self)

    def warm_up(self) -> None:
        """Read the compiled loops now, or compile them.

        Raises:
            StorageError: No folder can keep the compiled loops.
        """
        self.kernels = self.loops.load() or self.loops.make()

    def spend(self, seconds: float) -> None:
        """Add the processor time of a loop in Python. Start reading the compiled loops if that was long."""
        self._spent += seconds
        if self._spent > self.patience:
            self.go_on()

    def go_on(self) -> None:
        """Take the next step: read the compiled loops, or begin to compile them."""
        if self._over or self.kernels is not None or not self._lock.acquire(blocking=False):
            return
        try:
            if not (self._thread and self._thread.is_alive()) and not (self._child and self._child.poll() is None):
                self._thread = threading.Thread(target=self._fetch, name="hybridsearch-loops")
                self._thread.start()  # at the end of the process, Python waits for it, a second at most
        except RuntimeError:  # the process is ending, or cannot start more threads
            self._over = True
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        what, instead = self.loops.what, self.loops.instead
        try:
            self.kernels = self.loops.load()
            if self.kernels is None and self._child is None:
                log.info(
                    "Compiling the %s loops in the background. Until then, %s is used: the results are the same, but "
                    "it takes longer.",
                    *(what, instead),
                )
                self._child = self.loops.make_elsewhere()
                return
            if self.kernels is None:
                log.warning(
                    "The %s loops could not be compiled, so %s stays in use: try `hybridsearch warmup`.", what, instead
                )
        except HybridSearchError as error:
            log.warning("The %s loops stay several times slower. The results are the same. %s", what, error)
        except Exception as error:  # a compiler may raise any error, and there is another way
            log.warning("The compiled %s loops cannot be used, so %s stays in use (%r).", what, instead, error)
        self._over = True

    def settle(self) -> None:
        """Wait for the thread that reads the code. A forked process would wait forever for what it is importing."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def forget(self) -> None:
        """After a fork, forget the lock and the thread of the parent."""
        self._lock, self._thread = threading.Lock(), None

    def leave(self) -> None:
        """At the end of the process, let the compiling process go on, for later processes."""
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # without this, Python warns about a child that is still running


_fetchers: WeakSet[Fetcher] = WeakSet()


def _places(source: Path) -> Iterator[tuple[Path, bool]]:
    """The folders listed above, for sources in the folder `source`. Each comes with whether it is used unchecked."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given).absolute(), True
        return
    yield source / "__pycache__", False
    home = cache_home()
    if home is not None:
        yield home / "hybridsearch", False
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    for folder in (tempfile.gettempdir(), "/dev/shm"):  # noqa: S108 - `_safe` checks it
        yield Path(folder) / f"hybridsearch-{user}", False


def _safe(folder: Path, source: Path) -> bool:
    """Whether only this user, root and the owner of `source` can write to `folder` or replace it."""
    if os.name != "posix":
        return True  # no other user can write to the folders of a user
    owners = {0, os.geteuid(), source.stat().st_uid}
    folder = folder.resolve()
    for path in (folder, *folder.iterdir()):
        info = path.lstat()
        if info.st_uid not in owners or info.st_mode & 0o022 or stat.S_ISLNK(info.st_mode):
            return False
    for parent in folder.parents:
        info = parent.lstat()
        if info.st_uid not in owners or (info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX):
            return False
    return True


@cache
def _name(what: str, sources: Sequence[Path]) -> str:
    import llvmlite  # type: ignore[import-untyped]
    import llvmlite.binding as llvm  # type: ignore[import-untyped]
    import numba

    about = [sys.implementation.cache_tag, getattr(sys, "abiflags", ""), sys.platform, platform.machine()]
    about += [numba.__version__, llvmlite.__version__, numba.config.CPU_NAME, numba.config.CPU_FEATURES]
    about += [numba.config.DISABLE_JIT, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    digest = hashlib.sha256(repr(about).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return f"{what}-loops-{digest.hexdigest()[:16]}"


def give_way() -> None:
    """Let all other processes of this machine go first.

    The compiling process has a session of its own. Linux shares the processor between sessions, and `nice` counts only
    within one. If the compiler had a whole core, the threads of a model would wait for each other: a query of the demo
    took 550 ms in place of 20.
    """
    if hasattr(os, "nice"):
        os.nice(10)
    with contextlib.suppress(OSError):  # there is no such file, or the session is not ours
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def _each(step: str) -> None:
    for fetcher in list(_fetchers):
        getattr(fetcher, step)()


atexit.register(_each, "leave")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _each("settle"), after_in_child=lambda: _each("forget"))
