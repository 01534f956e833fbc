"""Where a user's files lie."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path | None:
    """`$XDG_CACHE_HOME`, or `~/.cache`; None for a user without a home, as in many containers."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given and os.path.isabs(given):  # noqa: PTH117 - the standard ignores relative ones
        return Path(given)
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return Path(home, ".cache") if os.path.isabs(home) else None  # noqa: PTH117


def can_be_written(folder: Path) -> bool:
    """Whether this user may write to `folder`, or make it if it does not exist."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK)
