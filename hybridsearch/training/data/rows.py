"""Training data: rows of texts, what kind they are, and reading them from anything that holds rows."""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError, InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.training.data.columns import IDS, find_roles
from hybridsearch.training.data.kinds import Kind, columns_of, parse_kind
from hybridsearch.training.data.reading import read_rows
from hybridsearch.training.data.tables import import_datasets, open_table

if TYPE_CHECKING:
    import datasets

__all__ = ["Kind", "TrainingData", "is_retrieval", "normalized", "read_training_data", "split", "with_queries"]


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


def read_training_data(
    source: str | Path | datasets.Dataset | Iterable[Mapping[str, Any]] | Dataset | TrainingData,
    *,
    columns: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    kind: Kind | str | None = None,
    loss: str | None = None,
    split: str = "train",
    subset: str | None = None,
    sql: str | None = None,
    score_range: tuple[float, float] | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> TrainingData:
    """Training data from a file, a folder, a database, the hub, or rows at hand.

    | source                                | rows                                                                 |
    |---------------------------------------|----------------------------------------------------------------------|
    | .csv, .tsv                            | below a header; .tsv has no quoting                                  |
    | .jsonl, .ndjson, .json                | one object a line, or one array of objects                           |
    | .parquet, .arrow                      | its rows                                                             |
    | a folder                              | of `Dataset.save_to_disk`; of mined negatives; with train.csv (or    |
    |                                       | another format, or parts train-*.parquet); or laid out as on the hub |
    | a BEIR folder, beir/scifact, Dataset  | each query of the split with each relevant document: pairs           |
    | a database (SQLite file or URL)       | of the query `sql`                                                   |
    | owner/name                            | of a data set on the hub                                             |
    | a Dataset of datasets, or mappings    | as they are                                                          |

    Text files may end in .gz. Columns are recognised by their names in any case, such as anchor, query, question,
    premise or sentence1, positive, answer or sentence2, negative, negative_2 ..., label or score
    (`hybridsearch.training.data.columns.NAMES` has all); a negative may be a list, of the same length in each row.
    The kind follows from the columns: a label of 0 and 1 makes pairs with 0/1, whole numbers or names pairs with
    class, other numbers, or a column named score, pairs with score. Scores on a larger scale (STS: 0 to 5, SICK:
    1 to 5) become 0 to 1. Pairs with the classes entailment, neutral and contradiction (NLI) become triplets: a
    premise, what it entails, what contradicts it; kind="pairs with class" keeps them as they are.

    Args:
        source: as above.
        columns: role -> column, as {"anchor": "question", "positive": "answer"}; then only these are read.
        ignore: columns to leave out where the others are recognised.
        kind: what the rows are, where the columns leave a choice.
        loss: the name of a loss to train this data with.
        split: of a folder or a data set on the hub.
        subset: of a data set on the hub.
        sql: the query to ask a database.
        score_range: the scores that become 0 and 1.
        limit: rows to read at most; of judged queries as many whole ones as fit, but at least one.
        name: for messages and reports; by default the name of the file, folder or data set.

    Raises:
        InvalidArgumentError: the source is none of these, a column has no role, or the kind does not fit.
        DocumentError: a row is malformed: a text that is missing, empty, NaN or no text, a label that is no number;
            the message has the file and the line or row. Or a query or document id has two texts.
        DatasetNotFoundError: there is no such data set, or it is not within reach.
        MissingExtraError: the package datasets (or sqlalchemy, for databases other than SQLite) is not installed.

    >>> rows = [{"question": "What is lift?", "answer": "A force.", "score": 4}]
    >>> data = read_training_data(rows, score_range=(0, 5))
    >>> data
    TrainingData('data', 1 row of pairs with score: anchor, positive, label)
    >>> data.rows[0]
    {'anchor': 'What is lift?', 'positive': 'A force.', 'label': 0.8}
    """
    wanted = None if kind is None else parse_kind(kind)
    if limit is not None and limit < 1:
        raise InvalidArgumentError(f"limit is at least 1, not {limit}.")
    if sql is None and _is_ready(source):
        if columns is not None or ignore:
            raise InvalidArgumentError(
                "Queries with judgements and mined negatives have no columns to map or ignore: leave these options out."
            )
        data = _ready(source, split, limit)
    else:
        table = open_table(source, split=split, subset=subset, sql=sql)
        roles = find_roles(table.columns, columns, ignore)
        read = read_rows(table, roles, wanted, score_range, limit)
        data = TrainingData(table.name, read.rows, read.kind, None, read.ids, read.notes)
    if wanted is not None and data.kind is not wanted:
        raise InvalidArgumentError(
            f"{name or data.name!r} holds {data.kind.value} (columns {', '.join(data.rows.column_names)}), "
            f"not {wanted.value}: leave kind out, or choose the columns with columns=... (--columns)."
        )
    return replace(data, name=name or data.name, loss=loss or data.loss)


Splittable = TypeVar("Splittable", TrainingData, Dataset)


def split(
    data: Splittable, fractions: tuple[float, float, float] = (0.90, 0.01, 0.09), seed: int = 0
) -> tuple[Splittable, Splittable, Splittable]:
    """(train, dev, test) of which no two share a text, in about these fractions of the rows.

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
        shared: Columns = [("text", [data.queries[id] for id in ids]), ("document_id", relevant)]
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


def normalized(text: str) -> str:
    """What texts have in common that differ in case and spaces only, and so count as the same."""
    return " ".join(text.casefold().split())


def is_retrieval(source: object) -> bool:
    """Whether `source` names queries with relevance judgements."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    if path.is_dir():
        return any((path / name).exists() for name in ("qrels", "corpus.jsonl", "corpus.jsonl.gz"))
    return str(source).partition("/")[0] in ("beir", "nanobeir") and "/" in str(source)


Columns: TypeAlias = list[tuple[str, Sequence[str | list[str] | None]]]
"""For each row what it may share with others, one or several; "text" in the first place for texts, else any name."""


def _shareable(data: TrainingData) -> Columns:
    ids = data.ids
    known = [] if ids is None else [(name, ids[name]) for name in IDS if name in ids.column_names]
    return [*(("text", data.rows[column]) for column in data.inputs), *known]


def _deal(name: str, columns: Columns, fractions: tuple[float, float, float], seed: int) -> list[list[int]]:
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


def _components(columns: Columns) -> list[list[int]]:
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


def _is_ready(source: object) -> bool:
    """Whether no columns need to be recognised."""
    return isinstance(source, Dataset | TrainingData) or is_retrieval(source) or _is_mined(source)


def _is_mined(source: object) -> bool:
    return isinstance(source, str | Path) and (Path(source) / "mining.json").is_file()


def _ready(source: Any, split: str, limit: int | None) -> TrainingData:
    """The training data that `source` is or holds, or the pairs of a retrieval data set."""
    if isinstance(source, Dataset):
        return _pairs_of(source, limit)
    if not isinstance(source, TrainingData) and not _is_mined(source):
        return _pairs_of(load_dataset(str(source), split=split), limit)
    if isinstance(source, TrainingData):
        data = source
    else:
        from hybridsearch.training.negatives.folder import MiningFolder  # it knows this module

        data = MiningFolder.open(source).negatives().data
    return data if limit is None else data.select(range(min(limit, len(data))))


def _pairs_of(dataset: Dataset, limit: int | None) -> TrainingData:
    """Each query with the content of each document that is relevant to it."""
    if dataset.corpus is None:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no corpus, so there are no texts to train on; in a BEIR folder it is "
            "corpus.jsonl."
        )
    for id, path in dataset.repeated.items():
        raise _two_texts(path, "query", id)
    judged = _judged(dataset, limit)
    contents = _contents(dataset, {document for _, document in judged})
    kept = [
        (query, document)
        for query, document in judged
        if contents.get(document, "").strip() and dataset.queries.get(query, "").strip()
    ]
    left_out = len(judged) - len(kept)
    if not kept:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no query with a relevant document whose text is in its corpus."
        )
    return TrainingData.from_columns(
        Kind.PAIRS,
        {
            "anchor": [dataset.queries[query] for query, _ in kept],
            "positive": [contents[document] for _, document in kept],
        },
        name=dataset.name,
        ids={"query_id": [query for query, _ in kept], "document_id": [document for _, document in kept]},
        notes=[f"{left_out:,} judgements of missing or empty texts were left out"] if left_out else [],
    )


def _judged(dataset: Dataset, limit: int | None) -> list[tuple[str, str]]:
    """Each query with each relevant document; of whole queries, as a positive left out could be mined as a negative."""
    judged: list[tuple[str, str]] = []
    for query, grades in dataset.qrels.items():
        relevant = [(query, document) for document, grade in grades.items() if grade > 0]
        if limit is not None and judged and len(judged) + len(relevant) > limit:
            break
        judged += relevant
    return judged


def _contents(dataset: Dataset, needed: Collection[str]) -> dict[str, str]:
    """The contents of some documents by id; raises DocumentError where any id of the corpus has two."""
    corpus: Iterable[Document] = dataset.corpus or ()
    contents: dict[str, str] = {}
    hashes = array("q")  # of the id and the content of each document: millions of texts need not be held
    for document in corpus:
        hashes.extend((hash(document.id), hash(document.content)))
        if document.id in needed:
            contents[document.id] = document.content
    distinct = np.unique(np.array(hashes, dtype=np.int64).reshape(-1, 2), axis=0)
    ids, times = np.unique(distinct[:, 0], return_counts=True)
    if twice := set(ids[times > 1].tolist()):
        where = ", ".join(map(str, getattr(corpus, "files", ()))) or f"the corpus of {dataset.name!r}"
        raise _two_texts(where, "document", next(document.id for document in corpus if hash(document.id) in twice))
    return contents


def _two_texts(where: str, what: str, id: str) -> DocumentError:
    return DocumentError(f"In {where}, the {what} id {id!r} has two texts: give each text an id of its own.")
