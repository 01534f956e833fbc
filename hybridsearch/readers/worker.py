"""A process that parses files, so that a hostile file can neither hang this process nor take its memory.

The process stays for many files. If a file takes too long or makes the parser crash, the file is an error, and the next
file gets a new process. The process gets the bytes of each file and answers with JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from hybridsearch.errors import DocumentError, MissingExtraError
from hybridsearch.messages import number_of
from hybridsearch.readers.markdown import Content

SECONDS = 120
"""Number of seconds that parsing one file may take."""

MEMORY = 2**31
"""Number of bytes of memory that parsing one file may need. It is enforced on Linux only."""

PARSERS = {
    "pdf": ("hybridsearch.readers.pdf", "pypdfium2"),
    "docx": ("hybridsearch.readers.office", "docx"),
    "pptx": ("hybridsearch.readers.office", "pptx"),
    "xlsx": ("hybridsearch.readers.office", "python_calamine"),
    "html": ("hybridsearch.readers.html", "lxml"),
    "eml": ("hybridsearch.readers.mail", "lxml"),
}
"""For each format, the module whose function `read_FORMAT` parses it, and the library that it needs."""

_PACKAGES = {"docx": "python-docx", "pptx": "python-pptx", "python_calamine": "python-calamine"}


class Worker:
    """Parses files in another process. It is a context manager that ends the process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def parse(self, format: str, raw: bytes, encoding: str | None) -> Content:
        """Parse a file.

        Args:
            format: One of `PARSERS`.
            raw: Content of the file.
            encoding: Encoding of its text. None finds it.

        Raises:
            DocumentError: The file is damaged, holds no text, or takes too much time or memory.
            MissingExtraError: The library for the format is not installed.
        """
        library = PARSERS[format][1]
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(_PACKAGES.get(library, library), "files", f"Reading .{format} files")
        process = self._started()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(SECONDS, stop)
        timer.daemon = True
        timer.start()
        try:
            answer = _ask(process, {"format": format, "size": len(raw), "encoding": encoding}, raw)
        except BaseException:  # an interruption leaves half an answer
            self._end()
            raise
        finally:
            timer.cancel()
            timer.join()
        if answer is None or late.is_set():  # else the next file would get a process that is being killed
            self._end()
        if answer is None:
            if late.is_set():
                raise DocumentError(
                    f"it takes longer than {number_of(SECONDS, 'second')} to parse, which is the limit. Split the "
                    "file, or convert it to text."
                )
            raise DocumentError("the parser crashed, because the file is damaged or needs too much memory.")
        if "error" in answer:
            raise DocumentError(answer["error"])
        return Content(**answer)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from hybridsearch.readers.worker import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        process.wait()


def _ask(process: subprocess.Popen[bytes], question: dict[str, Any], raw: bytes) -> dict[str, Any] | None:
    """The answer of the process. None if the process has ended."""
    if process.stdin is None or process.stdout is None:
        return None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n" + raw)
        process.stdin.flush()
        line = process.stdout.readline()
        return dict(json.loads(line)) if line.endswith(b"\n") else None
    except OSError:
        return None


# Below: what runs in the other process


def serve() -> None:
    """Parse the files that come on standard input, until it ends."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # what a library prints is no answer
        os.dup2(silent, stream)
    while line := questions.readline():
        question = json.loads(line)
        raw = questions.read(question["size"])
        _limit()
        answers.write(json.dumps(_answer(question["format"], raw, question["encoding"])).encode() + b"\n")
        answers.flush()


def _answer(format: str, raw: bytes, encoding: str | None) -> dict[str, Any]:
    parse = getattr(importlib.import_module(PARSERS[format][0]), f"read_{format}")
    try:
        return asdict(parse(raw, encoding))
    except DocumentError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY:,} bytes of memory to parse, which is the limit. Split the file."}
    except RecursionError:
        return {"error": f"it is not a readable .{format} file (it is nested too deeply)."}
    except Exception as error:  # a parser may raise any error for a damaged file
        reason = _in_one_line(error)
        return {"error": f"it is not a readable .{format} file ({reason})."}


def _in_one_line(error: Exception) -> str:
    """The kind and the message of an error, in one short line."""
    message = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _limit() -> None:
    """Limit the memory of this process from now on. Its time is limited too, in case that nobody ends it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(ValueError, OSError):
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 2 * SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if sys.platform == "linux":
        with suppress(ValueError, OSError):
            most = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY, most))


def _mapped() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
