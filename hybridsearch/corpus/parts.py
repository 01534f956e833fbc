"""The Parquet files that store encoded documents.

| column           | type                           | content                                                        |
|------------------|--------------------------------|----------------------------------------------------------------|
| id, title, text  | string                         | the document                                                   |
| metadata         | string                         | its metadata as one JSON object                                |
| `<name>.terms`   | list<string>, dictionary coded | its terms, for a lexical or sparse retriever                   |
| `<name>.values`  | list<float>                    | the term frequencies or weights, in the order of the terms     |
| `<name>`         | fixed_size_list<float>         | its vector, for a dense retriever                              |
| `<name>`         | list<halffloat>                | the vectors of its tokens, for a multi-vector retriever        |
| `<name>.counts`  | list<int>                      | the number of these vectors                                    |

With passages, there are these columns, too. A retriever that reads passages has the terms, values or numbers of all
passages of a document in one list, one passage after the other.

| column           | type                           | content                                                        |
|------------------|--------------------------------|----------------------------------------------------------------|
| passages.start   | list<int>                      | first character of each passage                                |
| passages.end     | list<int>                      | character after the last character of each passage             |
| `<name>.counts`  | list<int>                      | number of terms of each passage, for terms of passages         |
| `<name>`         | list<float>                    | the vectors of the passages, for a dense retriever             |
| `<name>.counts`  | list<int>                      | number of vectors of each passage, for multi-vectors           |

DuckDB, Spark, Ray and pandas can read these files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.arrow import ArrowArray, of_numbers, of_places, of_strings, to_numpy
from hybridsearch.backends import RetrieverSchema, Schema
from hybridsearch.documents import Document
from hybridsearch.errors import IndexCorruptedError, InvalidArgumentError, StorageError
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    MultiVectors,
    PassageSpans,
    SparseVectors,
    Vectors,
    Vocabulary,
)

GROUP_ROWS = 8192
"""Largest number of documents in a row group. A row group is read and written at once.

This number of passages ends a row group, too.
"""

GROUP_CHARACTERS = 1 << 25
"""Number of characters that ends a row group early, so that long documents do not need much memory.

The bytes of multi-vectors count, too.
"""

_TERMS = pa.list_(pa.dictionary(pa.int32(), pa.string()))
_INTEGERS = pa.list_(pa.int32())
_FLOATS = pa.list_(pa.float32())
_HALVES = pa.list_(pa.float16())
_DOCUMENT_COLUMNS = ("id", "title", "text", "metadata")
_PASSAGE_COLUMNS = ("passages.start", "passages.end")


def arrow_schema(schema: Schema) -> pa.Schema:
    """The columns of a part.

    Raises:
        InvalidArgumentError: Two retrievers, or a retriever and the document, would have the same column.
    """
    fields: list[tuple[str, Any]] = [(name, pa.large_string()) for name in _DOCUMENT_COLUMNS]
    if schema.passages is not None:
        fields += [(name, _INTEGERS) for name in _PASSAGE_COLUMNS]
    for name, retriever in schema.retrievers.items():
        if retriever.kind == "dense":
            if not retriever.dimensions or not retriever.metric:
                raise InvalidArgumentError(f"The dense retriever {name!r} needs dimensions and a metric in its schema.")
            fields.append((name, _FLOATS if retriever.passages else pa.list_(pa.float32(), retriever.dimensions)))
        elif retriever.kind == "multi_vector":
            if not retriever.dimensions:
                raise InvalidArgumentError(f"The multi-vector retriever {name!r} needs dimensions in its schema.")
            fields += [(name, _HALVES), (f"{name}.counts", _INTEGERS)]
        else:
            fields += [(f"{name}.terms", _TERMS), (f"{name}.values", _FLOATS)]
            if retriever.passages:
                fields.append((f"{name}.counts", _INTEGERS))
    columns = [name for name, _ in fields]
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise InvalidArgumentError(
            f"The retriever names {', '.join(map(repr, schema.retrievers))} would share the column "
            f"{min(twice)!r} of the index: give them other names ({', '.join(_DOCUMENT_COLUMNS)} are taken)."
        )
    return pa.schema(fields)


def to_tables(batch: EncodedBatch, schema: Schema) -> Iterator[pa.Table]:
    """Convert a batch to Arrow tables, each small enough for one row group."""
    columns, passages = arrow_schema(schema), batch.passages
    rows = np.arange(len(batch) + 1) if passages is None else passages.offsets
    sizes = _sizes(batch, schema)
    start = 0
    while start < len(batch):
        stop, characters = start, 0
        while stop < len(batch) and rows[stop] - rows[start] < GROUP_ROWS and characters < GROUP_CHARACTERS:
            characters += len(batch.documents[stop].text) + int(sizes[stop])
            stop += 1
        documents = batch.documents[start:stop]
        strings = zip(*((d.id, d.title, d.text, dump_metadata(d)) for d in documents), strict=True)
        arrays: list[ArrowArray] = [of_strings(column) for column in strings]
        own = rows[start : stop + 1]
        if passages is not None:
            spans = np.ascontiguousarray(passages.spans[own[0] : own[-1]].T)
            arrays += [_lists(own - own[0], of_numbers(bounds)) for bounds in spans]
        for name, retriever in schema.retrievers.items():
            if retriever.passages:
                arrays += _passage_columns(batch.vectors[name], own)
            else:
                arrays += _vector_columns(batch.vectors[name], start, stop)
        yield pa.Table.from_arrays(arrays, schema=columns)
        start = stop


def _sizes(batch: EncodedBatch, schema: Schema) -> NDArray[np.int64]:
    """The bytes of the multi-vectors of each document."""
    sizes = np.zeros(len(batch), dtype=np.int64)
    for name, vectors in batch.vectors.items():
        if isinstance(vectors, MultiVectors):
            ends = vectors.offsets
            if batch.passages is not None and schema.retrievers[name].passages:
                ends = ends[batch.passages.offsets]
            sizes += np.diff(ends) * vectors.array.itemsize * vectors.array.shape[1]
    return sizes


def from_table(table: pa.Table, schema: Schema) -> EncodedBatch:
    """Convert one table of `to_tables` back to a batch."""
    columns: list[list[Any]] = [table.column(name).to_pylist() for name in _DOCUMENT_COLUMNS]
    documents = [Document(id, text, title, load_metadata(data)) for id, title, text, data in zip(*columns, strict=True)]
    passages = None if schema.passages is None else _passages(table)
    vectors = {name: _vectors(table, name, r, passages) for name, r in schema.retrievers.items()}
    return EncodedBatch(documents, vectors, passages)


def write_part(path: Path, tables: Iterable[pa.Table], schema: Schema) -> int:
    """Write tables to one Parquet file. Small tables share a row group. Returns the number of rows."""
    columns = arrow_schema(schema)
    leaves = {name: _leaf(name, columns) for name in columns.names}
    rows = 0
    with pq.ParquetWriter(
        path,
        columns,
        compression={leaf: _codec(name, columns) for name, leaf in leaves.items()},
        use_dictionary=[leaf for name, leaf in leaves.items() if columns.field(name).type == _TERMS],  # type: ignore[arg-type]
        dictionary_pagesize_limit=1 << 27,
        write_page_checksum=True,
        write_statistics=["id"],
    ) as writer:
        for table in _joined(tables, columns):
            writer.write_table(table, row_group_size=max(len(table), 1))
            rows += len(table)
    return rows


def read_part(path: Path, live: NDArray[np.bool_] | None = None) -> Iterator[pa.Table]:
    """Read the row groups of a part, without the rows that are False in `live`.

    Raises:
        IndexCorruptedError: The file is damaged.
        StorageError: The file cannot be read.
        FileNotFoundError: The file is missing.
    """
    start = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                keep = None if live is None else live[start : start + len(table)]
                start += len(table)
                yield table if keep is None or keep.all() else table.filter(of_numbers(keep))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
        raise IndexCorruptedError(
            f"{path} is damaged ({str(error).splitlines()[0]:.200}): restore the index from a copy, or index again."
        ) from error


def dump_metadata(document: Document) -> str:
    """A document's metadata as JSON."""
    return _to_json(dict(document.metadata)) if document.metadata else "{}"


def load_metadata(text: str) -> dict[str, object]:
    """A document's metadata from the JSON of `dump_metadata`."""
    data: dict[str, object] = {} if text == "{}" else json.loads(text)
    return data


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _leaf(name: str, columns: pa.Schema) -> str:
    return f"{name}.list.element" if pa.types.is_nested(columns.field(name).type) else name


def _codec(name: str, columns: pa.Schema) -> Literal["zstd", "lz4", "none"]:
    if name in _DOCUMENT_COLUMNS:
        return "zstd"
    kind = columns.field(name).type
    dense = pa.types.is_fixed_size_list(kind) or kind == _HALVES or (kind == _FLOATS and not name.endswith(".values"))
    return "none" if dense else "lz4"  # dense values do not shrink


def _vector_columns(vectors: Vectors, start: int, stop: int) -> list[ArrowArray]:
    if isinstance(vectors, DenseVectors):
        values = of_numbers(np.ascontiguousarray(vectors.array[start:stop]).reshape(-1))
        return [pa.FixedSizeListArray.from_arrays(values, vectors.array.shape[1])]
    if isinstance(vectors, MultiVectors):
        return _multi_columns(vectors, np.arange(start, stop + 1))
    return _term_columns(vectors, vectors.matrix.indptr[start : stop + 1])


def _passage_columns(vectors: Vectors, rows: NDArray[np.int64]) -> list[ArrowArray]:
    """The columns of documents whose passages are `rows[0]` to `rows[1]`, `rows[1]` to `rows[2]`, and so on."""
    if isinstance(vectors, DenseVectors):
        values = of_numbers(np.ascontiguousarray(vectors.array[rows[0] : rows[-1]]).reshape(-1))
        return [_lists((rows - rows[0]) * vectors.array.shape[1], values)]
    if isinstance(vectors, MultiVectors):
        return _multi_columns(vectors, rows)
    indptr = vectors.matrix.indptr
    counts = of_places(np.diff(indptr[rows[0] : rows[-1] + 1]))
    return [*_term_columns(vectors, indptr[rows]), _lists(rows - rows[0], counts)]


def _multi_columns(vectors: MultiVectors, rows: NDArray[np.int64]) -> list[ArrowArray]:
    """The vectors and their numbers, of documents that have the rows `rows[0]` to `rows[1]`, and so on."""
    offsets = vectors.offsets[rows]
    values = of_numbers(np.ascontiguousarray(vectors.array[offsets[0] : offsets[-1]]).reshape(-1))
    counts = of_places(np.diff(vectors.offsets[rows[0] : rows[-1] + 1]))
    return [_lists((offsets - offsets[0]) * vectors.array.shape[1], values), _lists(rows - rows[0], counts)]


def _term_columns(vectors: SparseVectors, offsets: NDArray[np.integer]) -> list[ArrowArray]:
    """The terms and values of documents. `offsets` has their places in the data of the matrix."""
    matrix, terms = vectors.matrix, vectors.vocabulary.terms
    part = slice(int(offsets[0]), int(offsets[-1]))
    indices = matrix.indices[part]
    used = np.zeros(len(terms), dtype=bool)
    used[indices] = True
    codes = (np.cumsum(used) - 1)[indices]
    words = of_strings([terms[column] for column in np.flatnonzero(used).tolist()], large=False)
    at: ArrowArray = of_places(offsets - offsets[0])
    coded: ArrowArray = of_places(codes)
    return [
        pa.ListArray.from_arrays(at, pa.DictionaryArray.from_arrays(coded, words)),
        pa.ListArray.from_arrays(at, of_numbers(matrix.data[part])),
    ]


def _passages(table: pa.Table) -> PassageSpans:
    starts, ends = (_one(table.column(name)) for name in _PASSAGE_COLUMNS)
    offsets = to_numpy(starts.offsets).astype(np.int64)
    if not np.array_equal(np.diff(offsets), np.diff(to_numpy(ends.offsets))):
        raise ValueError("the starts and ends of the passages do not fit together")
    bounds = [_integers(column) for column in (starts, ends)]
    return PassageSpans(offsets - offsets[0], np.column_stack(bounds).astype(np.int32))


def _vectors(table: pa.Table, name: str, retriever: RetrieverSchema, passages: PassageSpans | None) -> Vectors:
    offsets = None if passages is None or not retriever.passages else passages.offsets
    rows = len(table) if offsets is None else int(offsets[-1])
    if retriever.kind == "dense" and retriever.dimensions and retriever.metric:
        column = _one(table.column(name))
        if offsets is not None:
            _check_lists(name, column, retriever.dimensions * np.diff(offsets))
        values = to_numpy(column.flatten())
        return DenseVectors(np.array(values, dtype=np.float32).reshape(rows, retriever.dimensions), retriever.metric)
    if retriever.kind == "multi_vector" and retriever.dimensions:
        return _multi_vectors(table, name, retriever.dimensions, np.arange(rows + 1) if offsets is None else offsets)
    terms, values = _one(table.column(f"{name}.terms")), _one(table.column(f"{name}.values"))
    words = terms.flatten()
    starts = to_numpy(terms.offsets)
    if words.null_count or words.dictionary.null_count:
        raise ValueError(f"a term of {name!r:.80} is missing")
    _check_lists(name, values, np.diff(starts))
    indptr = starts - starts[0]
    if offsets is not None:
        counts = _one(table.column(f"{name}.counts"))
        _check_lists(name, counts, np.diff(offsets))
        sizes = _integers(counts)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        if (sizes < 0).any() or not np.array_equal(ends[offsets], indptr):
            raise ValueError(f"the terms of {name!r:.80} do not fit the passages")
        indptr = ends
    vocabulary = Vocabulary(words.dictionary.to_pylist())
    data = np.array(to_numpy(values.flatten()), dtype=np.float32)
    indices = np.array(to_numpy(words.indices), dtype=np.int32)
    return SparseVectors(csr_array((data, indices, indptr.astype(np.int32)), shape=(rows, len(vocabulary))), vocabulary)


def _multi_vectors(table: pa.Table, name: str, dimensions: int, rows: NDArray[np.int64]) -> MultiVectors:
    """The vectors of documents that have the rows `rows[0]` to `rows[1]`, and so on."""
    column, counts = _one(table.column(name)), _one(table.column(f"{name}.counts"))
    _check_lists(name, counts, np.diff(rows))
    sizes = _integers(counts)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if (sizes < 0).any():
        raise ValueError(f"a number of vectors of {name!r:.80} is below 0")
    _check_lists(name, column, dimensions * np.diff(offsets[rows]))
    values = column.flatten()
    if values.null_count:
        raise ValueError(f"a number of {name!r:.80} is missing")
    array = np.array(to_numpy(values), dtype=np.float16)
    return MultiVectors(array.reshape(-1, dimensions), offsets)


def _integers(column: ArrowArray) -> NDArray[np.int64]:
    """All numbers of a column of lists."""
    numbers = column.flatten()
    if numbers.null_count:
        raise ValueError("a number of the passages is missing")
    return to_numpy(numbers).astype(np.int64)


def _check_lists(name: str, column: ArrowArray, lengths: NDArray[np.integer]) -> None:
    if not np.array_equal(np.diff(to_numpy(column.offsets)), lengths):
        raise ValueError(f"the columns of {name!r:.80} do not fit together")


def _joined(tables: Iterable[pa.Table], columns: pa.Schema) -> Iterator[pa.Table]:
    """The tables in groups of at most about GROUP_ROWS rows. Each column is one chunk with one dictionary."""
    waiting: list[pa.Table] = []
    for table in tables:
        together = sum(map(len, waiting)) + len(table)
        if waiting and (together > GROUP_ROWS or sum(t.nbytes for t in waiting) > 2 * GROUP_CHARACTERS):
            yield _concat(waiting, columns)
            waiting = []
        if len(table):
            waiting.append(table)
    if waiting:
        yield _concat(waiting, columns)


def _concat(tables: list[pa.Table], columns: pa.Schema) -> pa.Table:
    if len(tables) == 1 and tables[0].schema.equals(columns):
        return tables[0]
    arrays = [
        _one(pa.chunked_array([chunk for table in tables for chunk in table.column(name).chunks]))
        for name in columns.names
    ]
    return pa.Table.from_arrays(arrays, schema=columns)


def _one(column: ArrowArray) -> ArrowArray:
    """A column as one array. Lists of dictionary codes share one dictionary."""
    array: ArrowArray
    if column.num_chunks == 1:
        array = column.chunk(0)
    elif column.num_chunks == 0 or not pa.types.is_list(column.type):
        array = column.combine_chunks()
    else:
        values = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
        lengths = np.concatenate([np.diff(to_numpy(chunk.offsets)) for chunk in column.chunks])
        array = _lists(np.concatenate([[0], np.cumsum(lengths)]), values)
    if pa.types.is_list(array.type) and array.type.value_field.name != "item":  # Parquet names it "element"
        offsets = to_numpy(array.offsets)
        array = _lists(offsets - offsets[0], array.flatten())
    return array


def _lists(offsets: NDArray[np.integer], values: ArrowArray) -> ArrowArray:
    starts: ArrowArray = of_places(offsets)
    return pa.ListArray.from_arrays(starts, values)
