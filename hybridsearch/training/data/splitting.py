"""Split training data and data sets into parts that share no text.

The module does not have the name of its function `split`: a submodule of that name would hide the function in
`hybridsearch.training.data`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.messages import number_of
from hybridsearch.training.data.columns import IDS
from hybridsearch.training.data.rows import TrainingData, normalized

Splittable = TypeVar("Splittable", TrainingData, Dataset)


def split(
    data: Splittable, fractions: tuple[float, float, float] = (0.90, 0.01, 0.09), seed: int = 0
) -> tuple[Splittable, Splittable, Splittable]:
    """Split training data or a data set into train, dev and test, which share no text.

    Rows that share a text stay together, also if they share it through other rows. Rows with the same query_id or
    document_id stay together too. Texts that differ only in case, spaces and punctuation count as the same. These
    groups are dealt out at random. Groups that are too large for dev and test go to train.

    A Dataset is split by its judged queries. Queries with the same text, and queries that share a relevant document,
    stay together. Each part has all documents to search.

    Args:
        data: Rows or judged queries. They must form at least three groups.
        fractions: Shares of train, dev and test, each above 0. They sum to 1 and are met approximately.
        seed: Seed that chooses the parts. The same seed gives the same parts.

    Returns:
        Train, dev and test.

    Raises:
        InvalidArgumentError: The fractions are not allowed, or there are fewer than three groups.

    >>> from hybridsearch.training.data import Kind
    >>> columns = {"anchor": ["q1", "q2", "q3", "q4"], "positive": ["a", "b", "c", "A "]}
    >>> train, dev, test = split(TrainingData.from_columns(Kind.PAIRS, columns), (0.5, 0.25, 0.25))
    >>> [sorted(part.rows["positive"]) for part in (train, dev, test)]
    [['A ', 'a'], ['b'], ['c']]
    """
    if len(fractions) != 3 or not min(fractions) > 0 or not abs(sum(fractions) - 1) <= 1e-6:  # NaN is neither
        raise InvalidArgumentError(
            f"The fractions of train, dev and test are {fractions}. Give three numbers above 0 that sum to 1."
        )
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
    """Make a data set with only some of the queries and their judgements.

    Args:
        dataset: Data set.
        name: Name of the new data set.
        ids: Ids of the queries to keep.
    """
    queries = {id: dataset.queries[id] for id in ids}
    return replace(
        dataset, name=name, queries=queries, qrels={id: dataset.qrels[id] for id in queries if id in dataset.qrels}
    )


_Columns: TypeAlias = list[tuple[str, Sequence[str | list[str] | None]]]
"""Columns of values that rows may share: the name ("text" for texts, else any name), and one or more values a row."""


def _shareable(data: TrainingData) -> _Columns:
    ids = data.ids
    known = [] if ids is None else [(name, ids[name]) for name in IDS if name in ids.column_names]
    return [*(("text", data.rows[column]) for column in data.inputs), *known]


def _deal(name: str, columns: _Columns, fractions: tuple[float, float, float], seed: int) -> list[list[int]]:
    """The rows of each of the three parts, in order."""
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
    for empty in (part for part in parts if not part):  # all groups are larger than its fraction: take the smallest
        donor = next((part for part in parts if len(part) > 1), [])
        if donor:
            empty.append(min(donor, key=len))
            donor.remove(empty[0])
    if not all(parts):
        raise InvalidArgumentError(
            f"The {number_of(size, 'row')} of {name!r} cannot be split into three parts, because they share texts and "
            f"form only {number_of(len(groups), 'group')}. Give more rows, or give data for dev and test."
        )
    return [sorted(row for group in part for row in group) for part in parts]


def _components(columns: _Columns) -> list[list[int]]:
    """The rows in groups. Rows of different groups share nothing."""
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
