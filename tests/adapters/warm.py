"""Programs that start in a moment: they are forks of a Python that has loaded the package and what models need.

A program has the arguments, the environment, the folder and the files that Python itself would give it. For a script,
UserWarnings are errors. `python warm.py NUMBER` is the process that forks, which listens at a socket that is already
open. `python warm.py SOCKET hybridsearch ...` asks it to run the command line of the package.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

MODULES = (
    "pyarrow.parquet",
    "scipy.sparse",
    "sentence_transformers",
    "transformers.models.bert.modeling_bert",
    "hybridsearch.cli.indexing",
    "hybridsearch.cli.search",
    "hybridsearch.search",
    "hybridsearch.adapters.memory.backend",
)


class Warm:
    """The process that forks. It ends with the block.

    Attributes:
        folder: Folder with a program `hybridsearch`, for the PATH of a shell.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="warm-")
        self.folder = Path(self._temporary.name)
        self._socket = str(self.folder / "socket")
        listener = _socket()
        listener.bind(self._socket)
        listener.listen()
        with listener:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                env={**os.environ, **environment},
            )
        command = shlex.join([sys.executable, "-IS", __file__, self._socket, "hybridsearch"])
        program = self.folder / "hybridsearch"
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()
        self._temporary.cleanup()

    def run(
        self, *script: Path | str, cwd: Path, env: Mapping[str, str], apart: bool = False, timeout: float = 280
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with its arguments. `stdout` has its errors too, unless they are wanted `apart`."""
        program = [str(part) for part in script]
        with Path(os.devnull).open("rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            files = [nothing, out, error if apart else out]
            code = _ask(self._socket, program, cwd, env, files, timeout)
            out.seek(0)
            error.seek(0)
            return subprocess.CompletedProcess(program, code, out.read().decode("utf-8"), error.read().decode("utf-8"))


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _ask(
    path: str, program: Sequence[str], cwd: Path, env: Mapping[str, str], files: Sequence[BinaryIO], timeout: float
) -> int:
    """The exit code of a program. `files` are its standard input, output and error."""
    with _socket() as asking:
        asking.connect(path)
        request = json.dumps([program, str(cwd), dict(env)]).encode()
        socket.send_fds(asking, [request], [file.fileno() for file in files])
        process = int(asking.recv(100))  # the first program waits until the libraries are loaded
        asking.settimeout(timeout)
        try:
            return int(asking.recv(100))
        except TimeoutError:
            os.killpg(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(program), timeout) from None


def _serve(listener: socket.socket) -> None:
    """Fork for each program that is asked for, until the process that started this one closes standard input."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not ready:
            continue
        asking, _ = listener.accept()
        with asking:
            if os.fork():
                continue
            request, files, _, _ = socket.recv_fds(asking, 1 << 18, 3)
            process = os.fork()
            if not process:
                asking.close()
                listener.close()
                _run(request, files)
            asking.send(str(process).encode())
            _, status = os.waitpid(process, 0)
            asking.send(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)


def _become(program: list[str], cwd: str, env: dict[str, str], files: Sequence[int]) -> None:
    os.setsid()
    for given, number in zip(files, range(3), strict=True):
        os.dup2(given, number)
        os.close(given)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = program
    sys.path[:0] = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]
    if program[0] == "hybridsearch":
        from hybridsearch.cli import main

        main()
        return
    warnings.filterwarnings("error", category=UserWarning)
    script = Path(program[0])
    sys.path.insert(0, str(script.parent))
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    exec(compile(script.read_text(encoding="utf-8"), script, "exec"), vars(module))  # noqa: S102


def _run(request: bytes, files: Sequence[int]) -> NoReturn:
    """Run a program and end as Python does, but take no module apart: this would copy the memory of all libraries."""
    code: object = None
    try:
        _become(*json.loads(request), files)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        streams = [sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer]
        sys.exit(_ask(sys.argv[1], sys.argv[2:], Path.cwd(), os.environ, streams, 280))
    _serve(socket.socket(fileno=int(sys.argv[1])))
