"""Read rows from files, folders, SQL databases, the hub, or Python objects, each with its place."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch.errors import DatasetNotFoundError, DocumentError, InvalidArgumentError
from hybridsearch.readers.compression import SUFFIXES, plain_name
from hybridsearch.readers.sql import SQLITE, Query, is_url, query_rows
from hybridsearch.training.data.columns import listed
from hybridsearch.training.data.texts import TEXT_FORMATS, Placed, rows_of_text
from hybridsearch.training.libraries import import_datasets

if TYPE_CHECKING:
    import datasets

FILES = (*TEXT_FORMATS, ".parquet", ".arrow")
"""Endings of files that are read as tables. All but the last two may be compressed, such as .csv.gz."""

_ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_BATCH = 1000  # rows of Arrow that become Python objects at a time
_SPLITS = ({"dev", "validation", "valid", "val"}, {"test"}, {"train"})


@dataclass(frozen=True, slots=True)
class Table:
    """A table: named columns, and a function that reads the rows.

    Attributes:
        name: Name of the table, for messages.
        columns: Names of the columns, in order.
        rows: Function that starts to read the rows, each with its place.
        mapped: Rows as a Dataset of the datasets library, in the same order, if the source is one. They stay in files.
        classes: Names of the classes that integers stand for, by column.
    """

    name: str
    columns: Sequence[str]
    rows: Callable[[], Iterator[Placed]]
    mapped: datasets.Dataset | None = None
    classes: Mapping[str, Sequence[str]] | None = None


def open_table(source: object, *, split: str, subset: str | None, sql: str | None) -> Table:
    """Open the table that a source is or names, as in `hybridsearch.training.data.read_training_data`."""
    if sql is not None:
        if not isinstance(source, str | Path):
            raise InvalidArgumentError(
                f"sql was given with a source of type {type(source).__name__}. Give the file or URL of a database."
            )
        return _from_sql(str(source), sql)
    if isinstance(source, str | Path):
        return _from_path(source, split, subset)
    if isinstance(source, import_datasets().Dataset):
        return _from_dataset(source, "data")
    if isinstance(source, import_datasets().DatasetDict):
        return _from_dataset(_of_split(source, split), "data")
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping):
        return _from_rows(source)
    raise InvalidArgumentError(
        f"The source of training data is of type {type(source).__name__}. Give a path, a name on the hub, a Dataset, "
        "or an iterable of mappings."
    )


def _from_path(source: str | Path, split: str, subset: str | None) -> Table:
    path = Path(source)
    if path.is_file():
        return _from_file(path)
    if path.is_dir():
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return _from_saved(path, split)
        if subset is None and (files := _files_of(path, split)):
            return _from_files(f"{path.resolve().name}/{split}", files)
        if glob.has_magic(str(path.resolve())):
            raise InvalidArgumentError(
                f"The path of {str(path)!r} has one of the characters * ? [, which the library datasets takes for a "
                "pattern of names. Rename the folder."
            )
        return _from_hub(str(path), split, subset)
    if is_url(str(source)) or path.suffix.lower() in SQLITE:
        raise InvalidArgumentError(
            f"{str(source)!r} is not a file with rows. If it is a database, give sql='SELECT ...' (--sql). An index "
            "holds no training data."
        )
    if isinstance(source, Path) or path.suffix.lower() in (*FILES, *SUFFIXES) or not _ON_THE_HUB.fullmatch(source):
        raise InvalidArgumentError(f"There is no file or folder {str(source)!r}. Check the path.")
    return _from_hub(source, split, subset)


def _from_file(path: Path) -> Table:
    suffix = Path(plain_name(path.name)).suffix.lower()
    name = path.name.split(".")[0]
    if any(name in names for names in _SPLITS):
        name = f"{path.resolve().parent.name}/{name}"
    if suffix in SQLITE:
        raise InvalidArgumentError(f"{str(path)!r} is a database. Choose rows with sql='SELECT ...' (--sql).")
    if suffix == ".arrow":
        return _from_dataset(_arrow_file(path), name, str(path))
    if suffix == ".parquet":
        return _from_parquet(path, name)
    if suffix not in TEXT_FORMATS:
        raise InvalidArgumentError(
            f"The name of {str(path)!r} does not tell its format. Use one of the endings {', '.join(FILES)} (text also "
            f"with {', '.join(SUFFIXES)})."
        )

    return _with_first_columns(name, lambda: rows_of_text(path), str(path))


def _from_files(name: str, files: Sequence[Path]) -> Table:
    """A table of several files with the same columns, one after the other."""
    tables = [_from_file(path) for path in files]
    for path, table in zip(files, tables, strict=True):
        if set(table.columns) != set(tables[0].columns):
            raise InvalidArgumentError(
                f"{path} has the columns {listed(table.columns)}, but {files[0]} has {listed(tables[0].columns)}. Give "
                "the files one by one."
            )
        if table.classes != tables[0].classes:
            raise InvalidArgumentError(f"{path} has other classes than {files[0]}. Give the files one by one.")
    if len(tables) == 1:
        return tables[0]
    rows = lambda: chain.from_iterable(table.rows() for table in tables)  # noqa: E731
    return Table(name, tables[0].columns, rows, classes=tables[0].classes)


def _files_of(folder: Path, split: str) -> list[Path]:
    """The files of a folder that have the name of a split, or else all parts of a Parquet data set."""
    names = [split, *sorted(next((names for names in _SPLITS if split in names), {split}) - {split})]
    endings = [f"{suffix}{packed}" for suffix in FILES for packed in ("", *SUFFIXES)]
    for name in names:
        for ending in endings:
            if (folder / f"{name}{ending}").is_file():
                return [folder / f"{name}{ending}"]
        if parts := sorted(folder.glob(f"{name}-*.parquet")) or sorted(folder.glob(f"{name}-*.arrow")):
            return parts
    return sorted(folder.glob("part-*.parquet"))


def _from_parquet(path: Path, name: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, ValueError, OSError)
    try:
        schema = pq.read_schema(path)
        own = b"huggingface" in (schema.metadata or {})  # the library datasets wrote the file
        classes = _classes(import_datasets().Features.from_arrow_schema(schema)) if own else {}
    except damage as error:
        raise DocumentError(f"{path} is not a readable Parquet file ({error}). Check the file.") from error

    def rows() -> Iterator[Placed]:
        number = count(1)
        try:
            for batch in pq.ParquetFile(path).iter_batches(_BATCH):
                yield from ((f"{path}, row {next(number)}", row) for row in batch.to_pylist())
        except damage as error:
            raise DocumentError(f"{path} is damaged after row {next(number) - 1} ({error}). Write it again.") from error

    return Table(name, schema.names, rows, classes=classes)


def _arrow_file(path: Path) -> datasets.Dataset:
    """A file in Arrow's stream format (which the datasets library writes) or file format."""
    import pyarrow as pa

    datasets = import_datasets()
    try:
        return datasets.Dataset.from_file(str(path))
    except (pa.ArrowException, ValueError, OSError):
        try:
            with pa.memory_map(str(path)) as file:
                return datasets.Dataset(pa.ipc.open_file(file).read_all())
        except (pa.ArrowException, ValueError, OSError) as error:
            raise DocumentError(f"{path} is not a readable Arrow file ({error}). Check the file.") from error


def _from_saved(folder: Path, split: str) -> Table:
    """The table in a folder that `Dataset.save_to_disk` wrote."""
    datasets = import_datasets()
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DocumentError(f"{folder} is not a readable saved data set ({error}). Save it again.") from error
    if isinstance(saved, datasets.DatasetDict):
        saved = _of_split(saved, split)
    return _from_dataset(saved, folder.name, str(folder))


def _from_hub(name: str, split: str, subset: str | None) -> Table:
    """The table of a data set by its name on the hub, or of a folder with the same layout."""
    datasets = import_datasets()
    try:
        loaded = datasets.load_dataset(name, subset, split=split)
    except ValueError as error:  # no such subset or split
        raise InvalidArgumentError(f"{name!r} cannot be read as training data: {_one_line(error)}") from error
    except Exception as error:  # its client has no common base class: connections, servers, formats, disks
        raise DatasetNotFoundError(
            f"{name!r} is not a local file or folder with data, and cannot be loaded from the hub "
            f"({_one_line(error)}). Check the name, or give a file."
        ) from error
    return _from_dataset(loaded, Path(name).name)


def _of_split(parts: Mapping[str, datasets.Dataset], split: str) -> datasets.Dataset:
    if split not in parts:
        raise InvalidArgumentError(f"There is no split {split!r}. The splits are {listed(list(parts)) or 'none'}.")
    return parts[split]


def _from_dataset(rows: datasets.Dataset, name: str, where: str | None = None) -> Table:
    place = where or name

    def read() -> Iterator[Placed]:
        plain = rows.with_format(None)
        for start in range(0, len(rows), _BATCH):
            columns = plain[start : start + _BATCH]
            for number, values in enumerate(zip(*columns.values(), strict=True), start + 1):
                yield f"{place}, row {number}", dict(zip(columns, values, strict=True))

    return Table(name, rows.column_names, read, rows, _classes(rows.features))


def _classes(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the classes of each column that has classes."""
    label = import_datasets().ClassLabel
    return {column: feature.names for column, feature in features.items() if isinstance(feature, label)}


def _from_rows(source: Iterable[object]) -> Table:
    kept = source if isinstance(source, Sequence) else list(source)

    def rows() -> Iterator[Placed]:
        for number, row in enumerate(kept, 1):
            if not isinstance(row, Mapping):
                raise InvalidArgumentError(
                    f"Row {number} of the training data is {row!r:.80}. Give a mapping from columns to values."
                )
            yield f"data, row {number}", row

    return _with_first_columns("data", rows)


def _with_first_columns(name: str, rows: Callable[[], Iterator[Placed]], where: str = "The training data") -> Table:
    """A table whose columns are the columns of the first row."""
    with closing(rows()) as reading:  # type: ignore[type-var]
        first = next(reading, None)
    if first is None:
        raise InvalidArgumentError(f"{where} has no rows. Give at least one row.")
    return Table(name, list(first[1]), rows)


def _from_sql(database: str, sql: str) -> Table:
    """The table of an SQL query. Its rows are kept in memory, because a database may answer differently next time."""
    query = Query(database, sql)
    with query_rows(query) as (columns, found):
        rows = list(found)
    if not rows:
        raise InvalidArgumentError(f"The query {sql!r} gives no rows. Check the query.")

    def read() -> Iterator[Placed]:
        for number, row in enumerate(rows, 1):
            yield f"row {number} of the query", dict(zip(columns, row, strict=True))

    return Table(Path(database.rpartition("/")[2]).stem or "query", columns, read)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
