"""Mined negatives: rows to train on, the source of each negative, and the reasons why candidates were dropped.

`mine_hard_negatives` makes them, and `read_training_data` reads them. A folder of mined negatives holds:

    mining.json          the settings, the data and the index
    part-00000.parquet   the rows of one batch of queries, in one of four formats, with the counts in the metadata

| format         | kind of data | columns                                   | one row for                            |
|----------------|--------------|-------------------------------------------|----------------------------------------|
| triplets       | TUPLES       | anchor, positive, negative_1              | each positive with each negative       |
| n-tuples       | TUPLES       | anchor, positive, negative_1, negative_2  | each positive with all negatives       |
| labelled pairs | LABELLED     | anchor, positive (here: any text), label  | each text, labelled 1 or 0             |
| lists          | LISTS        | query, docs, labels                       | each query: positives 1.0, negatives 0 |

Further columns hold the provenance, and the model does not get them:

    query_id, document_id, negative_id         ids of the query, the positive and the negative
    retriever                                  retrievers that listed the negative, joined by "+"
    rank, score, reranker_score                of the negative, in the mined ranking and by the reranker
    positive_score, positive_reranker_score    scores of the positive

In n-tuples and lists, the columns of negatives hold lists with one value for each text.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hybridsearch import arguments
from hybridsearch.arguments import one_of
from hybridsearch.corpus.files import sync_folder
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError, StorageError
from hybridsearch.messages import number_of
from hybridsearch.tables import Grid
from hybridsearch.training.data.rows import Kind, TrainingData, columns_of
from hybridsearch.training.libraries import import_datasets

if TYPE_CHECKING:
    import datasets
    from rich.console import RenderableType

Format: TypeAlias = Literal["triplets", "n-tuples", "labelled pairs", "lists"]

MANIFEST = "mining.json"
"""The file that marks a folder of mined negatives."""

_COUNTS = b"hybridsearch.mining"
_LAYOUT = 1

KINDS: dict[Format, Kind] = {
    "triplets": Kind.TUPLES,
    "n-tuples": Kind.TUPLES,
    "labelled pairs": Kind.LABELLED,
    "lists": Kind.LISTS,
}
"""The kind of training data of each format."""

_TYPES = {"docs": pa.list_(pa.string()), "label": pa.int64(), "labels": pa.list_(pa.float64())}
"""The types of columns to train on that do not hold one text."""


@dataclass(frozen=True, slots=True)
class Mined:
    """One text of a query, with its place in the mined ranking.

    Attributes:
        id: Id of the document, or None if it is not known.
        text: Text of the document.
        retriever: Retrievers that listed the document, joined by "+", or None.
        rank: Rank in the mined ranking, from 1, or None for a positive that the search did not find.
        score: Score in the mined ranking, or None for a positive that the search did not find.
        reranker_score: Score of the reranker, or None without a reranker.
        document: Document of the index, or None.
    """

    id: str | None
    text: str
    retriever: str | None = None
    rank: int | None = None
    score: float | None = None
    reranker_score: float | None = None
    document: Document | None = field(default=None, repr=False, compare=False)

    @property
    def judged(self) -> float:
        """The score that margins and limits compare.

        It is the score of the reranker, else the score of the ranking, else -inf.
        """
        found = self.score if self.reranker_score is None else self.reranker_score
        return -math.inf if found is None else found


@dataclass(frozen=True, slots=True)
class OfQuery:
    """A query, its positives, and the negatives that were chosen for it.

    Attributes:
        id: Id of the query, or None if it is not known.
        text: Text of the query.
        positives: Texts that are known to be relevant.
        negatives: Chosen negatives, by rank.
    """

    id: str | None
    text: str
    positives: Sequence[Mined]
    negatives: Sequence[Mined]


@dataclass(frozen=True, slots=True)
class MiningSummary:
    """The counts of a mining: kept negatives, and dropped candidates by reason.

    Attributes:
        queries: Number of queries that were searched. Equal texts are one query.
        short: Number of queries with fewer negatives than asked for, including the queries without negatives.
        empty: Number of queries without negatives.
        rows: Number of rows to train on.
        candidates: Number of documents that were read from the rankings.
        kept: Number of negatives.
        kept_by: Number of negatives for each retriever, or group of retrievers, that listed them.
        dropped: Number of dropped candidates for each reason. With `kept` they add up to `candidates`.
    """

    queries: int = 0
    short: int = 0
    empty: int = 0
    rows: int = 0
    candidates: int = 0
    kept: int = 0
    kept_by: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: MiningSummary) -> MiningSummary:
        return MiningSummary(
            self.queries + other.queries,
            self.short + other.short,
            self.empty + other.empty,
            self.rows + other.rows,
            self.candidates + other.candidates,
            self.kept + other.kept,
            dict(Counter(self.kept_by) + Counter(other.kept_by)),
            dict(Counter(self.dropped) + Counter(other.dropped)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The counts as a dictionary, ready for JSON.

        `MiningSummary(**d)` reads it.
        """
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"  {count:>10,}  {what}" for what, count in self._lines()]
        return "\n".join([self.title, *lines])

    def __rich__(self) -> RenderableType:
        rows = [[[f"{count:,}"], [f"{count / max(self.candidates, 1):.1%}"], [what]] for what, count in self._lines()]
        return Grid(self.title, ["documents", "share", "result"], rows, texts=(2,))

    @property
    def title(self) -> str:
        """One line with the numbers of negatives, queries and rows."""
        found = f"{number_of(self.kept, 'negative', 'negatives')} for {number_of(self.queries, 'query', 'queries')}"
        queries = number_of(self.short, "query", "queries")
        short = f"; {queries} with fewer than asked for, {self.empty:,} of them with none" if self.short else ""
        return f"{found}, {number_of(self.rows, 'row', 'rows')}{short}"

    def _lines(self) -> Iterator[tuple[str, int]]:
        yield "candidates", self.candidates
        for name, count in sorted(self.kept_by.items(), key=lambda item: (-item[1], item[0])):
            yield f"kept, listed by {name.replace('+', ' and ')}", count
        for reason, count in sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])):
            yield f"dropped: {reason}", count


@dataclass(frozen=True, slots=True)
class Negatives:
    """Mined negatives, ready to train on.

    Attributes:
        data: Rows to train on. `data.ids` holds their provenance.
        summary: Counts of kept and dropped candidates, ready to print.
        path: Folder of the rows, or None if they are in memory.
    """

    data: TrainingData
    summary: MiningSummary
    path: Path | None = None

    @property
    def provenance(self) -> datasets.Dataset:
        """The ids, retrievers, ranks and scores of the texts, as one row for each row of `data.rows`.

        The columns are query_id, document_id, negative_id, retriever, rank, score, reranker_score, positive_score and
        positive_reranker_score. Labelled pairs and lists do not have negative_id and the scores of the positive.

        Raises:
            InvalidArgumentError: The provenance is missing.
        """
        if self.data.ids is None:
            raise InvalidArgumentError("These negatives do not have their provenance. Mine them again.")
        return self.data.ids

    @classmethod
    def open(cls, folder: str | Path) -> Negatives:
        """Open the negatives in a folder of `mine_hard_negatives`.

        They are not read into memory.

        Args:
            folder: Folder with the finished mining.

        Raises:
            InvalidArgumentError: The folder holds no negatives, mining is not finished, or a file is damaged.
        """
        return MiningFolder.open(folder).negatives()

    def __str__(self) -> str:
        return str(self.summary)

    def __rich__(self) -> RenderableType:
        return self.summary.__rich__()


def check_format(output_format: str) -> Format:
    """Check the name of a format and return it.

    Raise InvalidArgumentError if there is no such format.
    """
    return cast(Format, one_of("output_format", output_format, KINDS))


def columns_fed(output_format: Format, per_query: int) -> list[str]:
    """The columns to train on.

    All other columns are provenance.
    """
    return columns_of(KINDS[output_format], 1 if output_format == "triplets" else per_query)


def to_table(mined: Sequence[OfQuery], output_format: Format, per_query: int) -> pa.Table:
    """The rows of some queries, with their provenance."""
    rows = [row for of_query in mined for row in _rows(of_query, output_format, per_query)]
    return pa.Table.from_pylist(rows, schema=_schema(output_format, per_query))


def to_negatives(
    table: datasets.Dataset,
    summary: MiningSummary,
    output_format: Format,
    per_query: int,
    name: str,
    path: Path | None = None,
) -> Negatives:
    """Separate the rows from their provenance."""
    fed = columns_fed(output_format, per_query)
    rows, ids = table.select_columns(fed), table.remove_columns(fed)
    return Negatives(TrainingData(name, rows, KINDS[output_format], ids=ids), summary, path)


def check_found(summary: MiningSummary, name: str) -> None:
    """Raise InvalidArgumentError if no negatives were mined.

    There may be rows of positives.
    """
    if not summary.kept or not summary.rows:
        error = InvalidArgumentError(
            f"No negatives were found for {name!r}. Widen ranks, the margins or the limits (such as with "
            "`hybridsearch mine --ranks 1-20`, whose folder can be trained on)."
        )
        error.add_note(str(summary))
        raise error


@dataclass(frozen=True, slots=True)
class MiningFolder:
    """A folder of mined rows on the disk, with one file for each batch of queries.

    Attributes:
        path: Folder.
        name: Name of the data.
        settings: Everything that the rows depend on, ready for JSON, with "output_format" and "per_query".
        parts: Number of batches.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    parts: int

    @classmethod
    def make(cls, path: str | Path, name: str, settings: Mapping[str, Any], parts: int) -> MiningFolder:
        """Make a new folder, or open a folder in which the same mining has begun.

        Raises:
            InvalidArgumentError: The folder holds something else.
            StorageError: The folder cannot be written.
        """
        folder = cls(arguments.path("output", path), name, dict(settings), parts)
        if (folder.path / MANIFEST).exists():
            folder._check_same(cls.open(path).settings)
            return folder
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The folder {folder.path} cannot be made ({error}). Give another folder.") from error
        if any(file.name != f"{MANIFEST}.tmp" for file in folder.path.iterdir()):
            raise InvalidArgumentError(
                f"{folder.path} holds other files, but no {MANIFEST}. Give a new folder for the negatives."
            )
        manifest = {"layout": _LAYOUT, "name": name, "parts": parts, "settings": folder.settings}
        folder._write(MANIFEST, lambda path: path.write_text(json.dumps(manifest, indent=1), encoding="utf-8"))
        return folder

    @classmethod
    def open(cls, path: str | Path) -> MiningFolder:
        """Open a folder of mined negatives.

        Raises InvalidArgumentError if it holds no mined negatives.
        """
        path = arguments.path("The folder of mined negatives", path)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidArgumentError(
                f"{path} holds no mined negatives ({MANIFEST}: {error.strerror}). Check the path."
            ) from error
        except ValueError as error:
            raise InvalidArgumentError(f"{path / MANIFEST} is damaged ({error}). Mine into a new folder.") from error
        if not isinstance(manifest, dict) or not {"layout", "name", "settings", "parts"} <= manifest.keys():
            raise InvalidArgumentError(f"{path / MANIFEST} is not the file of a mining. Check the path.")
        if manifest["layout"] != _LAYOUT:
            raise InvalidArgumentError(f"{path} was mined with another version of hybridsearch. Mine it again.")
        return cls(path, manifest["name"], manifest["settings"], manifest["parts"])

    def has(self, part: int) -> bool:
        """Whether the folder has all rows of a batch."""
        return self._file(part).exists()

    def write(self, part: int, table: pa.Table, summary: MiningSummary) -> None:
        """Write the rows of a batch.

        After a crash, the folder has all rows of a batch or none.

        Raises:
            StorageError: The file cannot be written.
        """
        table = table.replace_schema_metadata({_COUNTS: json.dumps(summary.to_dict())})
        self._write(self._file(part).name, lambda path: pq.write_table(table, path))

    def negatives(self) -> Negatives:
        """All rows of the folder, as mined negatives.

        Raises InvalidArgumentError if batches are missing.
        """
        files = [self._file(part) for part in range(self.parts)]
        if missing := sum(not file.exists() for file in files):
            raise InvalidArgumentError(
                f"{self.path} lacks {missing} of {self.parts} parts, because mining was interrupted. Make the same "
                "call again to continue."
            )
        counts = [self._counts(file) for file in files]
        summary = sum(counts, MiningSummary())
        check_found(summary, self.name)
        with _quiet():
            # datasets cannot read a file without rows
            names = [glob.escape(str(file)) for file, of_file in zip(files, counts, strict=True) if of_file.rows]
            table = import_datasets().Dataset.from_parquet(names, cache_dir=str(self.path / "arrow"))
        output_format = check_format(self.settings["output_format"])
        return to_negatives(table, summary, output_format, self.settings["per_query"], self.name, self.path)

    def _counts(self, file: Path) -> MiningSummary:
        try:
            return MiningSummary(**json.loads(pq.read_schema(file).metadata[_COUNTS]))
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            raise InvalidArgumentError(f"{file} is damaged ({error}). Delete it and mine again.") from error

    def _file(self, part: int) -> Path:
        return self.path / f"part-{part:05d}.parquet"

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        beside = self.path / f"{name}.tmp"
        try:
            write(beside)
            with beside.open("r+b") as file:
                os.fsync(file.fileno())
            beside.replace(self.path / name)
            sync_folder(self.path)
        except OSError as error:
            raise StorageError(
                f"{self.path / name} cannot be written ({error}). Make the same call again to continue."
            ) from error

    def _check_same(self, there: Mapping[str, Any]) -> None:
        differing = [key for key in {**there, **self.settings} if there.get(key) != self.settings.get(key)]
        if differing:
            shown = ", ".join(f"{key} {there.get(key)!r:.60}, now {self.settings.get(key)!r:.60}" for key in differing)
            raise InvalidArgumentError(f"{self.path} was mined in another way ({shown}). Give another folder.")


def _schema(output_format: Format, per_query: int) -> pa.Schema:
    columns: dict[str, Any] = {name: _TYPES.get(name, pa.string()) for name in columns_fed(output_format, per_query)}
    columns |= {"query_id": pa.string(), "document_id": pa.string()}
    found: dict[str, Any] = {
        "retriever": pa.string(),
        "rank": pa.int32(),
        "score": pa.float64(),
        "reranker_score": pa.float64(),
    }
    if output_format == "lists":
        columns["document_id"] = pa.list_(pa.string())
    if KINDS[output_format] is Kind.TUPLES:
        columns |= {"positive_score": pa.float64(), "positive_reranker_score": pa.float64()}
        found = {"negative_id": pa.string(), **found}
    if output_format in ("n-tuples", "lists"):
        found = {name: pa.list_(of_one) for name, of_one in found.items()}
    return pa.schema([*columns.items(), *found.items()])


def _rows(of: OfQuery, output_format: Format, per_query: int) -> Iterator[dict[str, Any]]:
    texts: dict[str, Any]
    if output_format == "triplets":
        for positive in of.positives:
            for negative in of.negatives:
                texts = {"anchor": of.text, "positive": positive.text, "negative_1": negative.text}
                yield texts | _ids(of, positive) | {"negative_id": negative.id} | _where(negative)
    elif output_format == "n-tuples" and len(of.negatives) == per_query:
        negatives = {f"negative_{number}": negative.text for number, negative in enumerate(of.negatives, 1)}
        for positive in of.positives:
            texts = {"anchor": of.text, "positive": positive.text, **negatives}
            listed = {"negative_id": [negative.id for negative in of.negatives]}
            yield texts | _ids(of, positive) | listed | _where_all(of.negatives)
    elif output_format == "labelled pairs":
        for label, mined in ((1, of.positives), (0, of.negatives)):
            for one in mined:
                texts = {"anchor": of.text, "positive": one.text, "label": label}
                yield texts | {"query_id": of.id, "document_id": one.id} | _where(one)
    elif output_format == "lists" and of.negatives:
        mined = [*of.positives, *of.negatives]
        labels = [1.0] * len(of.positives) + [0.0] * len(of.negatives)
        texts = {"query": of.text, "docs": [one.text for one in mined], "labels": labels}
        yield texts | {"query_id": of.id, "document_id": [one.id for one in mined]} | _where_all(mined)


def _ids(of: OfQuery, positive: Mined) -> dict[str, Any]:
    return {
        "query_id": of.id,
        "document_id": positive.id,
        "positive_score": positive.score,
        "positive_reranker_score": positive.reranker_score,
    }


def _where(one: Mined) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("retriever", "rank", "score", "reranker_score")}


def _where_all(mined: Sequence[Mined]) -> dict[str, Any]:
    return {name: [getattr(one, name) for one in mined] for name in ("retriever", "rank", "score", "reranker_score")}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of the library datasets."""
    datasets = import_datasets()
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
