"""Training data: rows of texts, their kind, and the columns of each kind."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of
from hybridsearch.training.libraries import import_datasets

if TYPE_CHECKING:
    import datasets


class Kind(StrEnum):
    """The kind of the rows of training data, which decides the columns and the losses (`explain_losses`).

    The columns of each kind, in the order in which the model gets them:

    | kind          | columns                                                                                 |
    |---------------|-----------------------------------------------------------------------------------------|
    | TEXTS         | text                                                                                    |
    | EMBEDDED      | text, label: the teacher's embedding of the text, list of float                         |
    | CLASSED_TEXTS | text, label: int, a ClassLabel if names are known                                       |
    | PAIRS         | anchor, positive                                                                        |
    | CLASSED       | anchor, positive (here: any other text), label: int, a ClassLabel if names are known    |
    | LABELLED      | anchor, positive (here: any other text), label: int, 0 or 1                             |
    | SCORED        | anchor, positive (here: any other text), label: float, 0 to 1 (or -1 to 1)              |
    | TUPLES        | anchor, positive, negative_1, negative_2, ...                                           |
    | SCORED_TUPLES | anchor, positive, negative_1, ..., label: list of float, see below                      |
    | LISTS         | query, docs: list of str, labels: list of float                                         |

    The label of a scored tuple is a list of the teacher's scores: of the positive, then of each negative. It can also
    be the list of the margins score(positive) - score(negative), one for each negative.
    """

    TEXTS = "texts"
    EMBEDDED = "texts with embeddings"
    CLASSED_TEXTS = "texts with class"
    PAIRS = "pairs"
    CLASSED = "pairs with class"
    LABELLED = "pairs with 0/1"
    SCORED = "pairs with score"
    TUPLES = "tuples"
    SCORED_TUPLES = "tuples with scores"
    LISTS = "lists"


@dataclass(frozen=True, slots=True, repr=False)
class TrainingData:
    """Rows of texts to train on, with their kind.

    Attributes:
        name: Name of the data, for messages and reports. Data sets that are trained on together need different names.
        rows: Rows as a Dataset of the datasets library, with only the columns of the kind (see `Kind`), in the order in
            which the model gets them.
        kind: Kind of the rows.
        loss: Name of the loss for this data, or None for the default of the kind.
        ids: Further columns with one value for each row, such as query_id and document_id, or None. The model does not
            get them.
        notes: What reading did to the rows, for the user to see.

    Raises:
        InvalidArgumentError: There are no rows, or their columns are not the columns of the kind.

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
            raise InvalidArgumentError(f"The training data {self.name!r} has no rows. Give at least one row.")
        columns = self.rows.column_names
        expected = columns_of(self.kind, sum(column.startswith("negative_") for column in columns))
        if columns != expected:
            raise InvalidArgumentError(
                f"The columns are {', '.join(columns)}, but training data of the kind {self.kind.value!r} need the "
                f"columns {', '.join(expected)}. Use read_training_data, which finds and orders them."
            )
        if self.ids is not None and len(self.ids) != len(self.rows):
            raise InvalidArgumentError(
                f"There are ids of {number_of(len(self.ids), 'row')} for {number_of(len(self.rows), 'row')}. Give one "
                "id for each row."
            )

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
        """Make training data of columns that already have the names and the order of `Kind`.

        The values are not checked.

        Args:
            kind: Kind of the rows.
            columns: Values of each column by its name.
            name: Name of the data.
            loss: Name of the loss for this data, or None for the default.
            ids: Further columns with one value for each row, such as query_id, or None.
            notes: What was done to the rows, for the user to see.

        Raises:
            InvalidArgumentError: There are no rows, or the columns are not the columns of the kind.
        """
        make = import_datasets().Dataset
        known = None if ids is None else make(pa.table(dict(ids)))
        return cls(name, make(pa.table(dict(columns))), kind, loss, known, tuple(notes))

    @property
    def inputs(self) -> list[str]:
        """The columns that hold texts, in the order in which the model gets them."""
        return [column for column in self.rows.column_names if column not in ("label", "labels")]

    @property
    def label(self) -> str | None:
        """The name of the column of labels, "label" or "labels", or None without labels."""
        return next((column for column in self.rows.column_names if column in ("label", "labels")), None)

    @property
    def digest(self) -> str:
        """A digest of the rows, as 16 hexadecimal digits. It does not cover the ids."""
        total = hashlib.sha256()
        for batch in self.rows.with_format(None).iter(1000):  # an array as a text leaves out numbers
            total.update(json.dumps(batch, default=str).encode())
        return total.hexdigest()[:16]

    def select(self, places: Iterable[int]) -> TrainingData:
        """Make training data of some of the rows, with their ids.

        Args:
            places: Places of the rows, from 0. The new rows have this order.
        """
        chosen = list(places)
        ids = None if self.ids is None else self.ids.select(chosen)
        return replace(self, rows=self.rows.select(chosen), ids=ids)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        rows = f"{number_of(len(self), 'row')} of {self.kind.value}"
        loss = f", loss={self.loss!r}" if self.loss else ""
        return f"TrainingData({self.name!r}, {rows}: {', '.join(self.rows.column_names)}{loss})"


def parse_kind(kind: Kind | str) -> Kind:
    """Find a kind by its value ("pairs with score") or its name ("scored"), in upper or lower case.

    "triplets" are tuples.

    Args:
        kind: Kind, or its value or name.

    Raises:
        InvalidArgumentError: There is no such kind.
    """
    plain = str(kind).strip().lower().replace("_", " ").replace("-", " ")
    aliases = {member.name.lower().replace("_", " "): member for member in Kind} | {"triplets": Kind.TUPLES}
    aliases |= {member.value: member for member in Kind}
    if plain not in aliases:
        kinds = ", ".join(repr(member.value) for member in Kind)
        raise InvalidArgumentError(f"kind is {kind!r}. Give one of {kinds}.")
    return aliases[plain]


def columns_of(kind: Kind, negatives: int) -> list[str]:
    """The names of the columns of a kind, in order.

    Args:
        kind: Kind of the rows.
        negatives: Number of negatives of a tuple, at least 1.
    """
    pair = ["anchor", "positive"]
    tuples = pair + [f"negative_{number}" for number in range(1, max(negatives, 1) + 1)]
    return {
        Kind.TEXTS: ["text"],
        Kind.EMBEDDED: ["text", "label"],
        Kind.CLASSED_TEXTS: ["text", "label"],
        Kind.PAIRS: pair,
        Kind.CLASSED: [*pair, "label"],
        Kind.LABELLED: [*pair, "label"],
        Kind.SCORED: [*pair, "label"],
        Kind.TUPLES: tuples,
        Kind.SCORED_TUPLES: [*tuples, "label"],
        Kind.LISTS: ["query", "docs", "labels"],
    }[kind]


_OPENING = "\"'“”„‘’«»([{<¿¡"
_CLOSING = "\"'“”„‘’«»)]}>.,;:!?…。！？、，；："
_DASHES = frozenset("-–—·•")


def normalized(text: str) -> str:
    """Make a key that is the same for texts that differ only in case, spaces and punctuation.

    Args:
        text: Any text.

    >>> normalized("What is  lift?") == normalized("(what is lift)")
    True
    >>> normalized("C++") == normalized("C")
    False
    """
    words = unicodedata.normalize("NFKC", text).casefold().split()
    bare = (word.lstrip(_OPENING).rstrip(_CLOSING) for word in words)
    return " ".join(word for word in bare if word and word not in _DASHES) or " ".join(words)
