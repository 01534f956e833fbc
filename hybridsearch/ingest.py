"""Documents on their way into an index: batches, duplicate ids, the progress bar and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document

_BATCH_CHARACTERS = 8_000_000


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What `HybridSearch.index` did.

    Attributes:
        indexed: documents encoded and stored.
        unchanged: documents that were there already, exactly so; nothing was done for them.
        duplicates: ids that came more than once in the call; the last one is stored.
        seconds: for everything.
    """

    indexed: int
    unchanged: int
    duplicates: tuple[str, ...]
    seconds: float


def batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Lists of at most `size` documents and about `_BATCH_CHARACTERS` characters."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == size or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class SeenIds:
    """Finds ids that come twice, in eight bytes an id (hashes; a false alarm has odds of 1 in 10^7 at 10^6 ids)."""

    def __init__(self) -> None:
        self._twice: dict[str, None] = {}
        self._runs: list[NDArray[np.int64]] = []  # sorted hashes, each run more than twice as long as the next

    @property
    def duplicates(self) -> tuple[str, ...]:
        """The ids that came again, in order."""
        return tuple(self._twice)

    def add(self, ids: Sequence[str]) -> None:
        hashes = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
        unique, first = np.unique(hashes, return_index=True)
        again = np.ones(len(ids), dtype=bool)
        again[first] = False
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            again |= run[places] == hashes
        self._twice.update(dict.fromkeys(ids[i] for i in np.flatnonzero(again).tolist()))
        if ids:
            self._runs.append(unique)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._runs.append(np.sort(np.concatenate([self._runs.pop(), self._runs.pop()]), kind="stable"))


@contextmanager
def progress_bar(
    description: str, source: object, show: bool | None, unit: str = "documents"
) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of things done since the last call.

    Args:
        source: what is worked through. Its end is known by its length, or by `bytes_read` and `bytes_total`.
        show: None shows the bar only in a terminal.
        unit: what is counted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.fields['count'] / max(task.elapsed or 0.0, 1e-9):,.0f}/s", "progress.data.speed")

    console = Console(stderr=True)
    if show is False or (show is None and not console.is_terminal):
        yield lambda count: None
        return
    of_bytes = getattr(source, "bytes_total", None)
    total = of_bytes or (len(source) if isinstance(source, Sized) else None)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        place = getattr(source, "bytes_read", 0) if of_bytes else done
        progress.update(task, completed=place, count=done)

    counter = TextColumn(f"{{task.fields[count]:,}} {unit}")
    columns = (TextColumn("{task.description}"), BarColumn(), counter, Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, speed_estimate_period=60) as progress:
        task = progress.add_task(description, total=total, count=0)
        yield advance
