"""The file that keeps grades: one JSON object in each line. Lines are only added.

    {"judge": "anna", "query": "q1", "document": "d7", "grade": 2, "at": "2026-01-31T09:30:00Z"}
    {"judge": "anna", "query": "q1", "document": "d8", "grade": null, "at": ...}     skipped
    {"judge": "anna", "undo": true, "at": ...}                                       takes back her last grade or skip
    {"judge": "minilm", "about": "CrossEncoderReranker(...)", "at": ...}             a judge that is a program

The last grade that a judge gave a document counts. A line is on the disk before the call that wrote it returns. If a
process was killed, its last line may have no line end. This line does not count, and the next writer removes it.
Several processes may write at once.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from hybridsearch.corpus.files import storage_errors, sync_folder
from hybridsearch.errors import StorageError

Pair = tuple[str, str]
"""A query id and a document id."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of one judge about one document for one query.

    Attributes:
        judge: Name of the judge.
        query: Id of the query.
        document: Id of the document.
        grade: Grade from 0 to 3. None if the judge skipped the document.
        at: Time in UTC, in ISO 8601.
        score: Score from which the grade was made, if the judge is a program.
    """

    judge: str
    query: str
    document: str
    grade: int | None
    at: str
    score: float | None = None


@dataclass(slots=True)
class _State:
    """What the lines that were read so far say."""

    read: int = 0  # bytes
    last: bytes = b""  # the last line
    lines: int = 0
    about: dict[str, str] = field(default_factory=dict)  # by judge, in order of their first line
    done: dict[str, list[Judgement]] = field(default_factory=dict)  # by judge; undo takes the last away
    given: dict[str, dict[Pair, list[Judgement]]] = field(default_factory=dict)  # the same, by pair

    def add(self, line: Mapping[str, Any]) -> None:
        judge = str(line["judge"])
        done, given = self.done.setdefault(judge, []), self.given.setdefault(judge, {})
        self.about.setdefault(judge, "")
        if "about" in line:
            self.about[judge] = str(line["about"])
        elif "undo" in line:
            if done:
                last = done.pop()
                pair = last.query, last.document
                given[pair].pop()
                if not given[pair]:
                    del given[pair]
        else:
            one = Judgement(judge, line["query"], line["document"], line["grade"], line["at"], line.get("score"))
            done.append(one)
            given.setdefault((one.query, one.document), []).append(one)


class JudgementLog:
    """The grades of all judges, in one file. It sees what other processes add.

    Args:
        path: Path of the file. The first grade makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _State()
        self._guard = threading.Lock()  # of the state, not of the file
        self._lock = filelock.FileLock(path.parent / ".lock")

    @property
    def about(self) -> dict[str, str]:
        """What each judge is: "" for a person, a description for a program."""
        with self._guard:
            return dict(self._now().about)

    def last(self, judge: str) -> Judgement | None:
        """The last grade or skip of a judge, without those that were taken back."""
        with self._guard:
            done = self._now().done.get(judge)
            return done[-1] if done else None

    def of(self, judge: str) -> dict[Pair, Judgement]:
        """The last judgement of a judge about each document, by query id and document id."""
        with self._guard:
            return {pair: all_[-1] for pair, all_ in self._now().given.get(judge, {}).items()}

    def append(self, judge: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write lines of one judge. They are on the disk when the call returns.

        Raises:
            StorageError: The file cannot be written. Then none of the lines counts.
        """
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = "".join(json.dumps({"judge": judge, **line, "at": at}) + "\n" for line in lines)
        with self.writing():
            new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            with io.FileIO(descriptor, "r+") as file:
                end = _end_of_lines(file)
                file.truncate(end)
                try:
                    data = memoryview(text.encode())
                    while data:
                        data = data[file.write(data) :]
                    os.fsync(descriptor)
                except OSError:
                    file.truncate(end)
                    raise
            if new:
                sync_folder(self.path.parent)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep all others from writing to the folder of the file.

        Raises:
            StorageError: The folder cannot be written.
        """
        with storage_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                yield

    def _now(self) -> _State:
        """The state after all finished lines of the file."""
        with storage_errors(self.path.parent):
            data = self._after_last()
            if data is None:  # the file was replaced, or a write to a full disk was taken back
                self._state = _State()
                data = self._after_last() or b""
            self._read(data)
        return self._state

    def _after_last(self) -> bytes | None:
        """What comes after the last line that was read. None if this line is not there any more."""
        last = self._state.last
        try:
            with self.path.open("rb") as file:
                file.seek(self._state.read - len(last))
                return file.read() if file.read(len(last)) == last else None
        except FileNotFoundError:
            return None

    def _read(self, data: bytes) -> None:
        for raw in data.splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                return
            try:
                self._state.add(json.loads(raw))
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(
                    f"{self.path}, line {self._state.lines + 1} is damaged ({error!r:.80}): remove the line, or "
                    "restore the file from a copy."
                ) from error
            self._state.lines += 1
            self._state.read += len(raw)
            self._state.last = raw


def _end_of_lines(file: io.FileIO) -> int:
    """The place after the last line end, in bytes."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
