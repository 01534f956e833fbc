"""Turn the rows of a table into training data of one kind: check each value, and read the labels."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hybridsearch.errors import DocumentError, InvalidArgumentError
from hybridsearch.messages import number_of
from hybridsearch.training.data.columns import (
    Roles,
    check_number,
    check_numbers,
    check_text,
    check_texts,
    values_of,
)
from hybridsearch.training.data.labels import Labels, read_labels, triplets
from hybridsearch.training.data.lists import Listed, grouped, read_scores, read_texts
from hybridsearch.training.data.rows import Kind, TrainingData, columns_of
from hybridsearch.training.data.tables import Table
from hybridsearch.training.libraries import import_datasets

if TYPE_CHECKING:
    import datasets

_MEANINGS = {Kind.CLASSED: "class", Kind.LABELLED: "0/1", Kind.SCORED: "score"}
_KINDS = {meaning: kind for kind, meaning in _MEANINGS.items()}
_CHUNK = 10_000  # rows of texts that are held as Python strings while reading


def read_rows(
    table: Table, roles: Roles, kind: Kind | None, score_range: tuple[float, float] | None, limit: int | None
) -> TrainingData:
    """Read the rows of a table as training data.

    Args:
        table: Table to read.
        roles: Columns by their roles.
        kind: Kind of the rows, if the labels can have several meanings. None finds it by the values.
        score_range: Scores that become 0 and 1. None finds them by the values.
        limit: Largest number of rows. None reads all.

    Raises:
        DocumentError: A row is malformed. The message has its place.
        InvalidArgumentError: There are no rows, or the meaning of the labels is not clear.
    """
    return _Reading(table, roles, kind, score_range, limit, copied=table.mapped is None).run()


class _Columns:
    """Rows of texts that become Arrow columns, one chunk at a time."""

    def __init__(self) -> None:
        self._rows: list[Mapping[str, Any]] = []
        self._chunks: list[pa.RecordBatch] = []
        self._schema: pa.Schema | None = None

    def add(self, row: Mapping[str, Any], where: str) -> None:
        """Add a row. It must have the columns of the first row."""
        if self._schema is None:
            kinds = {
                name: pa.list_(pa.string()) if isinstance(value, list) else pa.string() for name, value in row.items()
            }
            self._schema = pa.schema(kinds)
        if len(row) != len(self._schema):
            raise DocumentError(
                f"{where}: the row has {number_of(len(row), 'text')}, but the rows before have {len(self._schema)}. "
                "Give each row the same number of negatives."
            )
        self._rows.append(row)
        if len(self._rows) == _CHUNK:
            self._flush()

    def table(self) -> pa.Table:
        """All rows; there is at least one."""
        self._flush()
        return pa.Table.from_batches(self._chunks, self._schema)

    def _flush(self) -> None:
        if self._rows:
            self._chunks.append(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []


@dataclass(slots=True)
class _Reading:
    table: Table
    roles: Roles
    kind: Kind | None
    score_range: tuple[float, float] | None
    limit: int | None
    count: int = 0
    copied: bool = False  # whether texts are copied; a row with lists of texts sets it
    places: list[str] = field(default_factory=list)  # of the targets
    targets: list[Any] = field(default_factory=list)
    texts: _Columns = field(default_factory=_Columns)
    ids: _Columns = field(default_factory=_Columns)
    listed: Listed | None = None  # rows with lists, if the first row has one

    def run(self) -> TrainingData:
        roles = self.roles
        used = [column for _, column in roles.texts]
        used += [column for column in (roles.docs, roles.target) if column is not None]
        used += [*roles.scores, *(column for _, column in roles.ids)]
        most = None if self.limit is None or self._makes_lists() else min(self.limit, sys.maxsize)  # of islice
        for where, row in islice(values_of(self.table.rows(), used), most):
            self._add(where, dict(zip(used, row, strict=True)))
        if not self.count:
            raise InvalidArgumentError(f"The training data {self.table.name!r} has no rows. Give at least one row.")
        if self.listed is not None:
            return self._tuples(self.listed)
        if roles.target is None:
            return self._made(Kind.TEXTS if roles.text else Kind.TUPLES if roles.negatives else Kind.PAIRS)
        if isinstance(self.targets[0], list):
            return self._with_lists(roles.target)
        return self._with_labels(roles.target)

    def _makes_lists(self) -> bool:
        """Whether rows of a query, a text and a label become lists, which `limit` must not cut."""
        return self.kind is Kind.LISTS and self.roles.docs is None and self.roles.target is not None

    def _add(self, where: str, row: Mapping[str, Any]) -> None:
        roles = self.roles
        if not self.count and self._has_lists(row):
            self.listed = Listed()
        if self.listed is not None:
            self._add_listed(self.listed, where, row)
            return
        fed: dict[str, Any] = {role: check_text(row[column], column, role, where) for role, column in roles.texts}
        if roles.docs is not None:
            fed = {"query": fed["anchor"], "docs": check_texts(row[roles.docs], roles.docs, "docs", where)}
        if roles.target is not None:
            self.targets.append(self._target(row[roles.target], roles.target, fed, where))
            self.places.append(where)
        self.copied = self.copied or list(fed.values()) != [row[column] for _, column in roles.texts]
        if self.copied:
            self.texts.add(fed, where)
        self._add_ids(where, row)

    def _add_ids(self, where: str, row: Mapping[str, Any]) -> None:
        ids = {name: _id(row[column]) for name, column in self.roles.ids}
        self.ids.add(ids, where)
        self.count += 1

    def _has_lists(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has lists of positives or negatives, passages with a title, or a score for each of both."""
        roles = self.roles
        if roles.positive is None or len(roles.negatives) > 1:
            return False
        columns = [roles.positive, *roles.negatives]
        return bool(roles.scores) or any(isinstance(row[column], list | Mapping) for column in columns)

    def _add_listed(self, listed: Listed, where: str, row: Mapping[str, Any]) -> None:
        roles = self.roles
        anchor = check_text(row[str(roles.anchor)], str(roles.anchor), "anchor", where)
        positives = read_texts(row[str(roles.positive)], str(roles.positive), "positive", where)
        negatives = [
            text
            for column in roles.negatives
            for text in read_texts(row[column], column, "negative", where, may_be_empty=True)
        ]
        scored = roles.scores if roles.target is None else (roles.target,)
        scores = read_scores(row, scored, where)
        listed.add(where, anchor, positives, negatives, scores, may_be_margins=roles.target is not None)
        self._add_ids(where, row)

    def _tuples(self, listed: Listed) -> TrainingData:
        """The tuples of rows with lists, or their pairs if no row has negatives."""
        make = import_datasets().Dataset
        made = listed.tuples()
        ids = make(self.ids.table().take(pa.array(made.origins))) if self.roles.ids else None
        width = made.columns.num_columns - 2
        kind, columns = (Kind.TUPLES if width else Kind.PAIRS), made.columns
        if made.scores:
            kind = Kind.SCORED_TUPLES if width else Kind.SCORED
            labels = pa.array(made.scores if width else [score for (score,) in made.scores])
            columns = columns.append_column("label", labels)
        return TrainingData(self.table.name, make(columns), kind, ids=ids, notes=made.notes)

    def _target(self, value: Any, column: str, fed: Mapping[str, Any], where: str) -> Any:
        """A list of floats if the rows need one, or else the label unchanged."""
        wanted: tuple[int, ...]
        if "docs" in fed:
            scores, wanted = check_numbers(value, column, where), (len(fed["docs"]),)
        elif "negative_1" in fed:
            negatives = sum(role.startswith("negative_") for role in fed)
            one = not isinstance(value, list) and negatives == 1  # its margin
            scores, wanted = check_numbers([value] if one else value, column, where), (negatives + 1, negatives)
        elif "text" in fed:
            return value if self._has_classes(value) else check_numbers(value, column, where)
        elif isinstance(value, list):
            raise DocumentError(f"{where}: the column {column!r} is a list, but a pair has one label. Give one value.")
        else:
            return value
        if len(scores) not in wanted:
            raise DocumentError(
                f"{where}: the column {column!r} has {number_of(len(scores), 'number')}, but needs "
                f"{' or '.join(map(str, wanted))}. Give the score of each text, or for rows with negatives the margin "
                "to each negative."
            )
        return scores

    def _has_classes(self, value: Any) -> bool:
        """Whether the labels of single texts are classes, and not embeddings."""
        named = self.roles.target_role in ("class", "label")
        return named and not isinstance(value, list) and not hasattr(value, "tolist")

    def _with_lists(self, column: str) -> TrainingData:
        kind = Kind.LISTS if self.roles.docs else Kind.EMBEDDED if self.roles.text else Kind.SCORED_TUPLES
        if kind is not Kind.LISTS:
            length = len(self.targets[0])
            for place, target in zip(self.places, self.targets, strict=True):
                if len(target) != length:
                    raise DocumentError(
                        f"{place}: the column {column!r} has {number_of(len(target), 'number')}, but the first row has "
                        f"{length}. Give each row the same number."
                    )
        item = pa.float32() if kind is Kind.EMBEDDED else pa.float64()
        return self._made(kind, pa.array(self.targets, pa.list_(item)))

    def _with_labels(self, column: str) -> TrainingData:
        if self.kind is Kind.LISTS:  # the labels are grades, on any scale
            pairs = zip(self.targets, self.places, strict=True)
            grades = [check_number(target, column, place) for target, place in pairs]
            return grouped(self._made(Kind.SCORED, pa.array(grades, pa.float64())), self.limit)
        meaning = None if self.kind is None else _MEANINGS.get(self.kind)
        if meaning is None and self.kind is not Kind.TUPLES and self.roles.target_role == "score":
            meaning = "score"
        labels = read_labels(
            self.targets,
            self.places,
            column,
            meaning="class" if self.roles.text else meaning,
            names=(self.table.classes or {}).get(column),
            score_range=self.score_range,
            classes=self.roles.target_role == "class",
        )
        notes = (labels.note,) if labels.note else ()
        if self.roles.text:
            sizes = Counter(labels.values)
            if alone := sum(size == 1 for value, size in sizes.items() if value is not None):
                notes = (*notes, f"texts without another text of their class, which train nothing: {alone:,}")
            return self._classed(Kind.CLASSED_TEXTS, labels, notes)
        if labels.nli and self.kind in (None, Kind.TUPLES):
            return self._triplets(labels, notes)
        return self._classed(_KINDS[labels.meaning], labels, notes)

    def _classed(self, kind: Kind, labels: Labels, notes: tuple[str, ...]) -> TrainingData:
        """The rows that have a label, with the names of the classes."""
        made = self._made(kind, pa.array(labels.values), notes)
        kept = [place for place, value in enumerate(labels.values) if value is not None]
        if len(kept) < len(made):
            made = made.select(kept)
        return replace(made, rows=_with_names(made.rows, labels.classes)) if labels.classes else made

    def _triplets(self, labels: Labels, notes: tuple[str, ...]) -> TrainingData:
        rows = self._rows()
        found = list(triplets(rows["anchor"], rows["positive"], labels))
        if not found:
            raise InvalidArgumentError(
                f"No premise of {self.table.name!r} has both an entailment and a contradiction, so there are no "
                "triplets. Keep the pairs with kind='pairs with class'."
            )
        names = columns_of(Kind.TUPLES, 1)
        table = pa.table(dict(zip(names, map(list, zip(*found, strict=True)), strict=True)))
        made = f"{number_of(self.count, 'pair')} with entailments became {number_of(len(found), 'triplet')}"
        return TrainingData(self.table.name, import_datasets().Dataset(table), Kind.TUPLES, notes=(*notes, made))

    def _made(self, kind: Kind, target: pa.Array[Any] | None = None, notes: tuple[str, ...] = ()) -> TrainingData:
        make = import_datasets().Dataset
        rows = self._rows()
        if target is not None:
            table = rows.with_format("arrow")[:]
            rows = make(table.append_column("labels" if kind is Kind.LISTS else "label", target))
        ids = make(self.ids.table()) if self.roles.ids else None
        return TrainingData(self.table.name, rows, kind, ids=ids, notes=notes)

    def _rows(self) -> datasets.Dataset:
        """The texts that were read. The texts of a Dataset stay in its files and are not copied to memory."""
        if self.copied or self.table.mapped is None:
            return import_datasets().Dataset(self.texts.table())
        names = {column: role for role, column in self.roles.texts}
        rows = self.table.mapped.with_format(None).select(range(self.count)).select_columns(list(names))
        return rows.rename_columns({column: role for column, role in names.items() if column != role})


def _id(value: Any) -> str | None:
    """The id in a cell. None for an empty cell."""
    text = "" if value is None or value != value else str(value)
    return text if text.strip() else None


def _with_names(rows: datasets.Dataset, classes: Sequence[str]) -> datasets.Dataset:
    """The same rows, with names for the labels."""
    library = import_datasets()
    features = library.Features({**rows.features, "label": library.ClassLabel(names=list(classes))})
    return library.Dataset(rows.with_format("arrow")[:], library.DatasetInfo(features=features))
