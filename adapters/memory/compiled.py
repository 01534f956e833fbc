"""Compiles `kernels` and keeps the machine code.

Compiling takes about 25 seconds. Reading compiled code takes a tenth of a second. Code is read from the first of these
folders that has it. New code is written to the first folder that can be written:

    $NUMBA_CACHE_DIR            if it is set, no other folder is tried
    __pycache__ beside this     for those who install the package or build an image
    $XDG_CACHE_HOME/hybridsearch or ~/.cache/hybridsearch
    hybridsearch-<user id>      in the folder for temporary files, or in /dev/shm

A user who can write to this folder could run code in every process that reads it. So a folder is used only if it
belongs to this user, to root or to the owner of this file, and if nobody else can write to it or replace it.
$NUMBA_CACHE_DIR is not checked: the person who sets it is responsible for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import filelock

from hybridsearch.errors import StorageError
from hybridsearch.folders import cache_home

_COMPLETE = "complete"
_SOURCES = (
    *("kernels.py", "block_kernels.py", "value_kernels.py", "impacts.py", "dense_kernels.py", "token_kernels.py"),
    *("plain.py", "tiles.py", "prefetch.py"),
)
_WAY_OUT = (
    "set NUMBA_CACHE_DIR to a folder that can be written, or run `hybridsearch warmup` as the user who installed it"
)
_CHILD = (
    "import os, sys; sys.path[:] = sys.argv[1:]; getattr(os, 'nice', int)(10); "
    "from hybridsearch.adapters.memory.compiled import make; make()"
)

_importing = threading.Lock()


class Locator:
    """Tells numba that the code of the functions in this package is in `folder`, which may be read-only."""

    folder: ClassVar[Path]

    def __init__(self, file: str) -> None:
        self._py_file = file  # numba names it in warnings

    @classmethod
    def from_function(cls, function: object, file: str) -> Locator | None:
        return cls(file) if Path(file).parent == Path(__file__).parent else None

    def get_cache_path(self) -> str:
        return str(self.folder)

    def ensure_cache_path(self) -> None:
        """Do nothing, because the folder is there."""

    def get_source_stamp(self) -> str:
        return self.folder.name  # the name has a digest of the sources

    def get_disambiguator(self) -> str:
        return ""


def load() -> ModuleType | None:
    """`kernels` with the compiled code for this machine. None if there is none.

    If the code cannot be read, for example because it is damaged, numba's error is raised.
    """
    folder = find()
    return None if folder is None else _kernels(folder)


def find() -> Path | None:
    """The folder with the compiled code for this machine. None if there is none."""
    for place, trusted in _places():
        folder = place / _name()
        if (folder / _COMPLETE).is_file() and (trusted or _safe(folder)):
            return folder
    return None


def make() -> ModuleType:
    """`kernels` with its code. It is compiled now if there is no compiled code yet.

    Only one process of a machine compiles at a time. The others wait.

    Raises:
        StorageError: No folder can keep the code.
    """
    folder = _writable()
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{folder}.lock", timeout=300):
        kernels = load()
        if kernels is None:
            kernels = _kernels(folder)
            for file in folder.iterdir():
                file.chmod(0o644)
            (folder / _COMPLETE).touch(0o644)
        return kernels
    return _kernels(folder)  # another process has held the lock for too long


def make_elsewhere() -> subprocess.Popen[bytes]:
    """Run `make` in another process, which goes on after this process has ended.

    Raises:
        StorageError: No folder can keep the code, or there is no Python to start.
    """
    _writable()
    program = Path(sys.executable or "")
    if not program.name.lower().startswith(("python", "pypy")):
        raise StorageError(f"{program.name or 'This program'} cannot compile in the background: {_WAY_OUT}.")
    path = [os.path.abspath(part) for part in sys.path]  # noqa: PTH100 - only the working folder is added
    return subprocess.Popen(  # noqa: S603
        [program, "-P", "-c", _CHILD, *path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _places() -> Iterator[tuple[Path, bool]]:
    """The folders listed above. Each comes with whether it is used without checks."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given).absolute(), True
        return
    yield Path(__file__).parent / "__pycache__", False
    home = cache_home()
    if home is not None:
        yield home / "hybridsearch", False
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    for folder in (tempfile.gettempdir(), "/dev/shm"):  # noqa: S108 - `_safe` checks it
        yield Path(folder) / f"hybridsearch-{user}", False


def _writable() -> Path:
    """The first folder that can keep code for this machine. It is made if it does not exist."""
    for place, trusted in _places():
        mode = 0o755 if trusted or place.name == "__pycache__" else 0o700
        folder = place / _name()
        with contextlib.suppress(OSError):
            if not place.exists():
                place.mkdir(mode, parents=True)
            folder.mkdir(mode, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            if trusted or _safe(folder):
                return folder
    raise StorageError(f"No folder can keep the compiled search loops: {_WAY_OUT}.")


def _safe(folder: Path) -> bool:
    """Whether only this user, root and the owner of this file can write to `folder` or replace it."""
    if os.name != "posix":
        return True  # no other user can write to the folders of a user
    owners = {0, os.geteuid(), Path(__file__).stat().st_uid}
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
def _name() -> str:
    """The name of the folder for code that this interpreter, compiler and processor can use."""
    import llvmlite  # type: ignore[import-untyped]
    import llvmlite.binding as llvm  # type: ignore[import-untyped]
    import numba

    what = [sys.implementation.cache_tag, getattr(sys, "abiflags", ""), sys.platform, platform.machine()]
    what += [numba.__version__, llvmlite.__version__, numba.config.CPU_NAME, numba.config.CPU_FEATURES]
    what += [numba.config.DISABLE_JIT, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    digest = hashlib.sha256(repr(what).encode())
    for source in _SOURCES:
        digest.update(Path(__file__).with_name(source).read_bytes())
    return f"loops-{digest.hexdigest()[:16]}"


def _kernels(folder: Path) -> ModuleType:
    """`kernels`. Its code is read from `folder`, or compiled and written to `folder`."""
    from numba import config

    with _importing:
        Locator.folder = folder
        before = config.CACHE_LOCATOR_CLASSES
        usual = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
        config.CACHE_LOCATOR_CLASSES = f"{__name__}.{Locator.__name__},{before or usual}"
        try:  # other threads may compile functions of other packages meanwhile, and `Locator` ignores these
            kernels = importlib.import_module("hybridsearch.adapters.memory.kernels")
        finally:
            config.CACHE_LOCATOR_CLASSES = before
        kernels.compile_all()
    return kernels
