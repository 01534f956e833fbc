"""Rows to train on, with their kind and its columns: what every source of training data becomes."""

from __future__ import annotations

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
    """What the rows of training data are; losses are chosen by it (`hybridsearch.training.losses`).

    The columns of each kind, in the order in which sentence-transformers' trainers feed them:

    | kind          | columns                                                                                 |
    |---------------|-----------------------------------------------------------------------------------------|
    | TEXTS         | text                                                                                    |
    | EMBEDDED      | text, label: the teacher's embedding of it, list of float                               |
    | PAIRS         | anchor, positive                                                                        |
    | CLASSED       | anchor, positive (here: any other text), label: int, a ClassLabel where names are known |
    | LABELLED      | anchor, positive (here: any other text), label: int, 0 or 1                             |
    | SCORED        | anchor, positive (here: any other text), label: float, 0 to 1 (or -1 to 1)              |
    | TUPLES        | anchor, positive, negative_1, negative_2, ...                                           |
    | SCORED_TUPLES | anchor, positive, negative_1, ..., label: list of float, see below                      |
    | LISTS         | query, docs: list of str, labels: list of float                                         |

    The label of a scored tuple is the teacher's score of the positive, then of each negative; or, one shorter, the
    margins score(positive) - score(negative).
    """

    TEXTS = "texts"
    EMBEDDED = "texts with embeddings"
    PAIRS = "pairs"
    CLASSED = "pairs with class"
    LABELLED = "pairs with 0/1"
    SCORED = "pairs with score"
    TUPLES = "tuples"
    SCORED_TUPLES = "tuples with scores"
    LISTS = "lists"


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
            raise InvalidArgumentError(
                f"There are ids of {number_of(len(self.ids), 'row')} for {number_of(len(self.rows), 'row')}."
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
        rows = f"{number_of(len(self), 'row')} of {self.kind.value}"
        loss = f", loss={self.loss!r}" if self.loss else ""
        return f"TrainingData({self.name!r}, {rows}: {', '.join(self.rows.column_names)}{loss})"


def parse_kind(kind: Kind | str) -> Kind:
    """The kind by its value ("pairs with score") or name ("scored"), in any case; "triplets" are tuples.

    Raises InvalidArgumentError where there is no such kind.
    """
    plain = str(kind).strip().lower().replace("_", " ").replace("-", " ")
    aliases = {member.name.lower().replace("_", " "): member for member in Kind} | {"triplets": Kind.TUPLES}
    aliases |= {member.value: member for member in Kind}
    if plain not in aliases:
        raise InvalidArgumentError(f"kind is one of {', '.join(repr(member.value) for member in Kind)}, not {kind!r}.")
    return aliases[plain]


def columns_of(kind: Kind, negatives: int) -> list[str]:
    """The columns of a kind, in order; tuples have at least one negative."""
    pair = ["anchor", "positive"]
    tuples = pair + [f"negative_{number}" for number in range(1, max(negatives, 1) + 1)]
    return {
        Kind.TEXTS: ["text"],
        Kind.EMBEDDED: ["text", "label"],
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
    """A key that is the same for texts that differ only in case, spaces and punctuation.

    >>> normalized("What is  lift?") == normalized("(what is lift)")
    True
    >>> normalized("C++") == normalized("C")
    False
    """
    words = unicodedata.normalize("NFKC", text).casefold().split()
    bare = (word.lstrip(_OPENING).rstrip(_CLOSING) for word in words)
    return " ".join(word for word in bare if word and word not in _DASHES) or " ".join(words)
