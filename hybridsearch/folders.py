"""Folders of the user."""

from __future__ import annotations

import os
from pathlib import Path


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
