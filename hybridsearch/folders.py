"""Folders of the user, and folders that hold an index."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hybridsearch.errors import IndexExistsError

MANIFEST = "manifest.json"
"""Name of the file that says what an index in a folder holds."""

LOCK = "write.lock"
"""Name of the file that the writer of an index in a folder holds."""

CORPUS = "hybridsearch corpus"
"""Format of the manifest of an index, which is its first value."""


def cache_home() -> Path | None:
    """The folder of caches: `$XDG_CACHE_HOME`, or `~/.cache`. None if the user has no home, as in many containers."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given and os.path.isabs(given):  # noqa: PTH117 - the standard ignores relative paths
        return Path(given)
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises if there is no home
    return Path(home, ".cache") if os.path.isabs(home) else None  # noqa: PTH117


def can_be_written(folder: Path) -> bool:
    """Whether the user may write to a folder, or make the folder if it does not exist."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK)


def holds_index(folder: Path) -> bool:
    """Whether a folder holds an index or encoded documents. Other programs also have files named `manifest.json`."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            return CORPUS.encode() in file.read(100)
    except OSError:
        return False


def refuse_inside_index(folder: Path, around: Iterable[Path]) -> None:
    """Raises IndexExistsError if one of the folders `around` a new `folder` holds an index."""
    for outer in around:
        if (outer / MANIFEST).exists() and (outer / LOCK).exists():
            raise IndexExistsError(
                f"{folder} is inside the index in {outer}, which may delete it: choose a folder outside of it."
            )
