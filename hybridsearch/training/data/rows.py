"""Rows to train on, with their kind: what every source of training data becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data.kinds import Kind, columns_of
from hybridsearch.training.libraries import import_datasets

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, slots=True, repr=False)
class TrainingData:
    """Rows to train on, with their kind.

    Attributes:
        name: for messages and reports, and the name of this part in a mixture.
        rows: just the columns of its kind (see `Kind`), in the order in which trainers feed them.
        kind: what the rows are.
        loss: the name of a loss that is asked for, or None for the default of the kind; for mixtures.
        ids: row-parallel columns that are known of the texts and never fed, such as query_id and document_id.
        notes: what reading did to the rows, for the user to see.

    Raises:
        InvalidArgumentError: there are no rows, or their columns are not those of the kind.

    >>> pairs = {"anchor": ["What is lift?"], "positive": ["Lift is a force on a wing."]}
    >>> TrainingData.from_columns(Kind.PAIRS, pairs, name="wings")
    TrainingData('wings', 1 row of pairs: anchor, positive)
    """

    name: str
    rows: datasets.Dataset
    kind: Kind
    loss: str | None = None
    ids: datasets.Dataset | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows) == 0:
            raise InvalidArgumentError(f"The training data {self.name!r} has no rows.")
        columns = self.rows.column_names
        expected = columns_of(self.kind, sum(column.startswith("negative_") for column in columns))
        if columns != expected:
            raise InvalidArgumentError(
                f"Training data of the kind {self.kind.value!r} has the columns {', '.join(expected)}, "
                f"not {', '.join(columns)}: read_training_data finds and orders them."
            )
        if self.ids is not None and len(self.ids) != len(self.rows):
            raise InvalidArgumentError(f"There are ids of {len(self.ids)} rows for {len(self.rows)} rows.")

    @classmethod
    def from_columns(
        cls,
        kind: Kind,
        columns: Mapping[str, Sequence[Any]],
        *,
        name: str = "data",
        loss: str | None = None,
        ids: Mapping[str, Sequence[Any]] | None = None,
        notes: Sequence[str] = (),
    ) -> TrainingData:
        """Data whose columns are at hand, named and ordered as in `Kind`; the values are not checked."""
        make = import_datasets().Dataset
        known = None if ids is None else make(pa.table(dict(ids)))
        return cls(name, make(pa.table(dict(columns))), kind, loss, known, tuple(notes))

    @property
    def inputs(self) -> list[str]:
        """The columns that hold texts, in the order in which they are fed."""
        return [column for column in self.rows.column_names if column not in ("label", "labels")]

    @property
    def label(self) -> str | None:
        """The column of labels, "label" or "labels"; None without one."""
        return next((column for column in self.rows.column_names if column in ("label", "labels")), None)

    def select(self, places: Iterable[int]) -> TrainingData:
        """The rows at these places, in this order, with their ids."""
        chosen = list(places)
        ids = None if self.ids is None else self.ids.select(chosen)
        return replace(self, rows=self.rows.select(chosen), ids=ids)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        rows = f"{len(self):,} row{'' if len(self) == 1 else 's'} of {self.kind.value}"
        loss = f", loss={self.loss!r}" if self.loss else ""
        return f"TrainingData({self.name!r}, {rows}: {', '.join(self.rows.column_names)}{loss})"


def normalized(text: str) -> str:
    """What texts have in common that differ in case and spaces only, and so count as the same."""
    return " ".join(text.casefold().split())
