"""How alike two rankings of the same query are."""

from __future__ import annotations

from collections.abc import Sequence

PERSISTENCE = 0.9
"""Default p of `rank_biased_overlap`. With it, the first ten documents have 86% of the weight."""


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Compute the part of the documents that two rankings have in common, without their order.

    Args:
        one: Document ids, best first.
        other: Document ids of the other ranking.

    Returns:
        Number of common documents divided by the length of the longer ranking. 1 if both are empty.

    >>> overlap(["a", "b", "c"], ["c", "x", "a"])
    0.6666666666666666
    """
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = PERSISTENCE) -> float:
    """Compute the rank-biased overlap (RBO), which counts the first ranks most.

    It is RBO_EXT of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings" (ACM TOIS 28(4), 2010),
    equation 32. It goes on after the end of the rankings as if the last agreement lasted.

    Args:
        one: Distinct document ids, best first.
        other: Distinct document ids of the other ranking.
        p: Persistence, above 0 and below 1. A small number makes the first ranks count more.

    Returns:
        A number from 0 (no common document) to 1 (equal rankings). 1 if both are empty.

    >>> rank_biased_overlap(["a", "b", "c"], ["a", "b", "c"]), rank_biased_overlap(["a", "b"], ["x", "y"])
    (1.0, 0.0)
    >>> round(rank_biased_overlap(["a", "b", "c"], ["b", "a", "c"]), 3)
    0.9
    """
    short, long = sorted((one, other), key=len)
    if not long:
        return 1.0
    if not short:
        return 0.0
    common: list[int] = []
    seen_short, seen_long = set[str](), set[str]()
    for depth, id in enumerate(long):
        seen_long.add(id)
        if depth < len(short):
            seen_short.add(short[depth])
        common.append(len(seen_short & seen_long))
    s, l = len(short), len(long)  # noqa: E741 (the names of the paper)
    agreements = sum(x / d * p**d for d, x in enumerate(common, 1))
    rest = sum(common[s - 1] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    last = ((common[-1] - common[s - 1]) / l + common[s - 1] / s) * p**l
    return min(1.0, round((1 - p) / p * (agreements + rest) + last, 12))
