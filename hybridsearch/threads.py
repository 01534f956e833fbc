"""Asking several retrievers side by side, each with a time limit of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from hybridsearch.errors import RetrieverTimeoutError

T = TypeVar("T")


def ask_in_threads(calls: Mapping[str, Callable[[], T]], timeouts: Mapping[str, float]) -> dict[str, T | BaseException]:
    """Run `calls` side by side; what each returned or raised. One that is too slow goes on unheard in its thread."""
    answers: dict[str, T | BaseException] = {}

    def run(name: str) -> None:
        try:
            answers[name] = calls[name]()
        except BaseException as error:  # handed to the caller, who decides
            answers[name] = error

    started = time.perf_counter()
    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in calls}
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        limit = timeouts.get(name)
        thread.join(None if limit is None else max(0.0, started + limit - time.perf_counter()))
    late = {
        name: RetrieverTimeoutError(f"Retriever {name!r} took longer than its timeout of {timeouts[name]:g} s.")
        for name, thread in threads.items()
        if thread.is_alive()
    }
    return {name: late[name] if name in late else answers[name] for name in calls}
