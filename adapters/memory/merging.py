"""Chooses the segments to merge, so that each document is written a logarithmic number of times.

Segments form tiers by size. The segments of a tier are FACTOR times as large as those of the tier below. When a tier
has FACTOR segments, they are merged into one. So a million documents are in a few dozen segments, and adding a few
documents never rewrites a large segment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hybridsearch.adapters.memory.state import View

FACTOR = 8
SMALLEST_TIER = 2048
"""Segments with fewer documents or passages form the lowest tier. Rewriting them takes milliseconds."""

MAX_BYTES = 512 << 20
"""The largest size of the arrays of a merged segment. It limits the memory that merging needs."""

MAX_WAITING = 4 * FACTOR
"""The number of segments in one tier from which a writer waits for the merging."""


def choose(views: Sequence[View]) -> list[View]:
    """The segments to merge next. Empty if there is nothing to do.

    A single segment is rewritten without its deleted documents.
    """
    for view in views:
        if 2 * view.documents < len(view.segment):
            return [view]
    for tier in sorted(_tiers(views)):
        members = _tiers(views)[tier]
        if len(members) >= FACTOR:
            for group in group_by_size(members):
                if len(group) > 1:
                    return group
    return []


def behind(views: Sequence[View]) -> bool:
    """Whether there are so many segments to merge that a writer must wait."""
    return any(len(members) > MAX_WAITING for members in _tiers(views).values())


def group_by_size(views: Sequence[View]) -> list[list[View]]:
    """The views in groups, in order. Each group fits into one segment."""
    groups: list[list[View]] = []
    size = 0.0
    for view in views:
        if not groups or size + live_bytes(view) > MAX_BYTES:
            groups.append([])
            size = 0.0
        groups[-1].append(view)
        size += live_bytes(view)
    return groups


def live_bytes(view: View) -> float:
    """The bytes of a segment's arrays that belong to documents that are not deleted."""
    return view.segment.nbytes * view.documents / max(1, len(view.segment))


def _tiers(views: Sequence[View]) -> dict[int, list[View]]:
    tiers: dict[int, list[View]] = {}
    for view in views:
        if live_bytes(view) < MAX_BYTES / 2:
            rows = view.segment.rows * view.documents / max(1, len(view.segment))
            tier = max(0, math.floor(math.log(max(1, rows) / SMALLEST_TIER, FACTOR)) + 1)
            tiers.setdefault(tier, []).append(view)
    return tiers
