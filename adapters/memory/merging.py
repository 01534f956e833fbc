"""Which segments to merge: a policy that writes each document a logarithmic number of times.

Segments form tiers by size, each tier FACTOR times the one below. As soon as a tier holds FACTOR segments they become
one. So a million documents lie in a few dozen segments, and a small addition never rewrites a large segment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hybridsearch.adapters.memory.state import View

FACTOR = 8
SMALLEST_TIER = 2048
"""Segments with fewer documents than this are one tier: rewriting them takes milliseconds."""

MAX_BYTES = 512 << 20
"""Arrays of a merged segment, at most, which bounds the memory that merging needs."""

MAX_WAITING = 4 * FACTOR
"""With so many segments in one tier, a writer waits until merging has caught up."""


def choose(views: Sequence[View]) -> list[View]:
    """The segments to merge next; empty if all is well. One alone is to be rewritten without its deleted documents."""
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
    """Whether merging has fallen so far behind that adding more must wait."""
    return any(len(members) > MAX_WAITING for members in _tiers(views).values())


def group_by_size(views: Sequence[View]) -> list[list[View]]:
    """`views` in order, cut into groups that fit into one segment each."""
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
    """The share of a segment's arrays that its live documents take."""
    return view.segment.nbytes * view.documents / max(1, len(view.segment))


def _tiers(views: Sequence[View]) -> dict[int, list[View]]:
    tiers: dict[int, list[View]] = {}
    for view in views:
        if live_bytes(view) < MAX_BYTES / 2:
            tier = max(0, math.floor(math.log(max(1, view.documents) / SMALLEST_TIER, FACTOR)) + 1)
            tiers.setdefault(tier, []).append(view)
    return tiers
