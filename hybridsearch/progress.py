"""The progress of long tasks: a bar in the terminal, or a function that watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int | None], None]
"""Function that gets the description of a task, the number of things done, and their total or None."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def progress_to(listener: Listener) -> Iterator[None]:
    """Call a function in place of each progress bar of this thread. If it raises an error, the task ends with it.

    Args:
        listener: Function to call when a task begins and whenever something of it is done.

    >>> with progress_to(lambda *told: print(told)), progress_bar("Reading", range(2), None) as advance:
    ...     advance(2)
    ('Reading', 0, 2)
    ('Reading', 2, 2)
    """
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


@contextmanager
def progress_bar(
    description: str, source: object, show: bool | None, unit: str = "documents"
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar. Gives a function to call with the number of things done since the last call.

    Args:
        description: Text before the bar.
        source: Source of the things. Its length, or its `bytes_read` and `bytes_total`, tell how much is left.
        show: Whether to show the bar. None shows it only in a terminal.
        unit: Word for the things that are counted.
    """
    of_bytes = getattr(source, "bytes_total", None)
    total = of_bytes or (len(source) if isinstance(source, Sized) else None)
    done = 0
    listener = _listener.get()
    if listener is not None:
        listener(description, 0, total)

        def tell(count: int) -> None:
            nonlocal done
            done += count
            listener(description, getattr(source, "bytes_read", 0) if of_bytes else done, total)

        yield tell
        return
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
