"""Training data and judged queries in parts that share nothing.

The module is not named after its function `split`, which `hybridsearch.training.data` offers: a submodule of that name
would take its place there whenever it is imported.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.data.columns import IDS
from hybridsearch.training.data.rows import TrainingData, normalized

Splittable = TypeVar("Splittable", TrainingData, Dataset)


def split(
    data: Splittable, fractions: tuple[float, float, float] = (0.90, 0.01, 0.09), seed: int = 0
) -> tuple[Splittable, Splittable, Splittable]:
    """(train, dev, test) that share no text, in about these fractions of the rows.

    Rows that share a text, directly or over other rows, stay together: the connected components of rows and texts
    are dealt out at random, the large ones to train. Texts count as the same whatever their case and spaces; rows with
    a common query_id or document_id stay together too, as those of several pseudo-queries of one document.

    A Dataset is split by its judged queries: those of the same text, and those with a relevant document in common, stay
    together. Each part has the whole corpus to search.

    Args:
        data: at least as many rows or queries without a common text as there are parts.
        fractions: of train, dev and test; they sum to 1. A part of 0 is not allowed.
        seed: the same seed gives the same parts.

    Raises:
        InvalidArgumentError: the fractions are not such, or the rows hang together too much.

    >>> from hybridsearch.training.data import Kind
    >>> columns = {"anchor": ["q1", "q2", "q3", "q4"], "positive": ["a", "b", "c", "A "]}
    >>> train, dev, test = split(TrainingData.from_columns(Kind.PAIRS, columns), (0.5, 0.25, 0.25))
    >>> [sorted(part.rows["positive"]) for part in (train, dev, test)]
    [['A ', 'a'], ['b'], ['c']]
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InvalidArgumentError(f"The fractions of train, dev and test are positive and sum to 1, not {fractions}.")
    names = (f"{data.name}/train", f"{data.name}/dev", f"{data.name}/test")
    if isinstance(data, Dataset):
        ids = [id for id in data.queries if id in data.qrels]
        relevant = [[document for document, grade in data.qrels[id].items() if grade > 0] for id in ids]
        shared: _Columns = [("text", [data.queries[id] for id in ids]), ("document_id", relevant)]
        dealt = _deal(data.name, shared, fractions, seed)
        parts = [with_queries(data, name, [ids[row] for row in rows]) for name, rows in zip(names, dealt, strict=True)]
    else:
        dealt = _deal(data.name, _shareable(data), fractions, seed)
        parts = [replace(data.select(rows), name=name) for name, rows in zip(names, dealt, strict=True)]
    train, dev, test = parts
    return train, dev, test


def with_queries(dataset: Dataset, name: str, ids: Iterable[str]) -> Dataset:
    """The data set with these of its queries, and their judgements, alone."""
    queries = {id: dataset.queries[id] for id in ids}
    return replace(
        dataset, name=name, queries=queries, qrels={id: dataset.qrels[id] for id in queries if id in dataset.qrels}
    )


_Columns: TypeAlias = list[tuple[str, Sequence[str | list[str] | None]]]
"""For each row what it may share with others, one or several; "text" in the first place for texts, else any name."""


def _shareable(data: TrainingData) -> _Columns:
    ids = data.ids
    known = [] if ids is None else [(name, ids[name]) for name in IDS if name in ids.column_names]
    return [*(("text", data.rows[column]) for column in data.inputs), *known]


def _deal(name: str, columns: _Columns, fractions: tuple[float, float, float], seed: int) -> list[list[int]]:
    """The rows of three parts, in order."""
    groups = _components(columns)
    random.Random(seed).shuffle(groups)  # noqa: S311
    size = sum(map(len, groups))
    wanted = [fraction * size for fraction in fractions]
    parts: tuple[list[list[int]], ...] = ([], [], [])
    sizes = [0, 0, 0]
    for group in groups:
        place = next((place for place in (2, 1) if sizes[place] + len(group) <= wanted[place]), 0)
        parts[place].append(group)
        sizes[place] += len(group)
    for empty in (part for part in parts if not part):  # its fraction is less than any group: it gets the smallest
        donor = next((part for part in parts if len(part) > 1), [])
        if donor:
            empty.append(min(donor, key=len))
            donor.remove(empty[0])
    if not all(parts):
        raise InvalidArgumentError(
            f"The {size:,} rows of {name!r} cannot be split into three parts, as they share texts and make "
            f"only {len(groups)} groups that do not: give more rows, or data for dev and test."
        )
    return [sorted(row for group in part for row in group) for part in parts]


def _components(columns: _Columns) -> list[list[int]]:
    """The rows in groups: those of two groups share nothing."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[tuple[str, str], int] = {}  # of what rows may share
    row_of: list[int] = []
    shared: list[int] = []
    rows = max(len(values) for _, values in columns)
    for space, values in columns:
        for row, value in enumerate(values):
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    row_of.append(row)
                    key = normalized(one) if space == "text" else one
                    shared.append(numbers.setdefault((space, key), len(numbers)))
    size = rows + len(numbers)
    edges = (np.ones(len(row_of), dtype=np.int8), (np.array(row_of), np.array(shared) + rows))
    _, labels = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(labels[:rows].tolist()):
        groups.setdefault(label, []).append(row)
    return list(groups.values())
