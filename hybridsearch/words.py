"""What messages are made of: counts, and where warnings point to."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


def number_of(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun, which takes an "s" where no plural is given.

    >>> number_of(1, "document"), number_of(2000, "query", "queries")
    ('1 document', '2,000 queries')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def warn(message: str) -> None:
    """A warning that points to the line which called this package, however deep the package is in itself."""
    frame: FrameType | None = sys._getframe()
    level = inside = 0
    while frame is not None:
        level += 1
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "hybridsearch":
            inside = level
        frame = frame.f_back
    warnings.warn(message, stacklevel=inside + 1)
