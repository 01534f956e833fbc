"""Samples of items at equal distances, and queries that are made from documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from hybridsearch.documents import Document

T = TypeVar("T")

_WORDS = 12  # of a text that has no title


def spread(items: Sequence[T], number: int) -> list[T]:
    """At most `number` items, at equal distances.

    >>> spread("abcdefgh", 3)
    ['a', 'd', 'h']
    """
    places = np.unique(np.linspace(0, len(items) - 1, min(number, len(items))).astype(int))
    return [items[place] for place in places.tolist()]


def first_sentences(documents: Sequence[Document], number: int) -> dict[str, str]:
    """A query for each of some documents, by id: its title, or the beginning of its text.

    >>> first_sentences([Document("a", "Lift of a wing.", title="Lift"), Document("b", "Heat")], 2)
    {'a': 'Lift', 'b': 'Heat'}
    """
    some = spread(documents, number)
    return {one.id: one.title.strip() or " ".join(one.text.split()[:_WORDS]) for one in some}
