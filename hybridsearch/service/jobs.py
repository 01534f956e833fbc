"""Jobs: work that takes longer than a request. A job runs in a thread, tells how far it is, and can be cancelled.

The state of a job is in files, so that each worker of the service can tell it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import filelock

from hybridsearch.errors import DocumentError, FilterError, InvalidArgumentError, MissingExtraError
from hybridsearch.messages import redacted
from hybridsearch.progress import progress_to

_log = logging.getLogger(__name__)

_EVERY = 0.2  # seconds between two writes of the progress


class JobRunningError(InvalidArgumentError):
    """Another job of the same index is running."""


class _CancelledError(Exception):
    """Somebody cancelled the job."""


class Jobs:
    """The jobs of one index, one at a time.

    Args:
        folder: Folder for the files of the jobs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread: Thread | None = None

    def start(self, name: str, work: Callable[[], object]) -> None:
        """Start a job.

        Args:
            name: Name of the job, which `status` tells.
            work: Function that does the work. Its progress bars tell how far it is.

        Raises:
            JobRunningError: A job is running.
            StorageError: The folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(
            self._folder / "job.lock", timeout=1, thread_local=False
        )  # `status` may hold it briefly
        try:
            lock.acquire()
        except filelock.Timeout:
            raise JobRunningError("Another job of this index is running: wait for its end, or cancel it.") from None
        self._stop.unlink(missing_ok=True)
        self._tell(name, "running")
        self._thread = Thread(target=self._run, args=(name, work, lock), name=f"job {name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ask the running job to end. It ends at its next step."""
        if self.status().get("state") == "running":
            self._stop.touch()

    def status(self) -> dict[str, Any]:
        """The state of the last job: `name`, `state`, `stage`, `done`, `total`, `error`. Empty if there was no job.

        The state is "running", "done", "failed", "cancelled", or "interrupted" if its process was killed.
        """
        try:
            status: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # a machine that lost its power may leave an empty file
            return {}
        if status["state"] == "running" and not self._is_running():
            status = json.loads(self._file.read_text(encoding="utf-8"))  # it may have ended meanwhile
            if status["state"] == "running":
                status["state"] = "interrupted"
        return status

    def stop(self) -> None:
        """Cancel the job that this object started, if it is running."""
        if self._thread is not None and self._thread.is_alive():
            self._stop.touch()

    def wait(self) -> None:
        """Wait until the job that this object started has ended."""
        if self._thread is not None:
            self._thread.join()

    @property
    def _file(self) -> Path:
        return self._folder / "job.json"

    @property
    def _stop(self) -> Path:
        return self._folder / "job.cancel"

    def _is_running(self) -> bool:
        try:
            with filelock.FileLock(self._folder / "job.lock", timeout=0):
                return False
        except filelock.Timeout:
            return True

    def _tell(self, name: str, state: str, **more: Any) -> None:
        beside = self._folder / "job.json.tmp"
        beside.write_text(json.dumps({"name": name, "state": state, **more}), encoding="utf-8")
        beside.replace(self._file)

    def _run(self, name: str, work: Callable[[], object], lock: filelock.BaseFileLock) -> None:
        told = 0.0

        def listen(stage: str, done: int, total: int | None) -> None:
            nonlocal told
            if self._stop.exists():
                raise _CancelledError
            if done in (0, total) or time.monotonic() - told > _EVERY:
                told = time.monotonic()
                self._tell(name, "running", stage=stage, done=done, total=total)

        try:
            with progress_to(listen):
                work()
            self._tell(name, "done")
        except _CancelledError:
            self._tell(name, "cancelled")
        except (InvalidArgumentError, FilterError, DocumentError, MissingExtraError) as error:
            self._tell(name, "failed", error=redacted(str(error)))
        except Exception:
            _log.exception("The job %s failed", name)
            self._tell(name, "failed", error="The job failed. The log of the service has the reason.")
        finally:
            self._stop.unlink(missing_ok=True)
            lock.release()
