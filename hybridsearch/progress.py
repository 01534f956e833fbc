"""The progress bar of long tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager


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
