"""A segment: documents as arrays in RAM or in memory-mapped files. It never changes."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory.arrays import (
    Arrays,
    DamagedArrayError,
    Layout,
    check_length,
    check_permutation,
    check_starts,
    read_group,
)
from hybridsearch.adapters.memory.dense import DenseMatrix
from hybridsearch.adapters.memory.filters import MetadataColumns, mask_of
from hybridsearch.adapters.memory.hnsw import MIN_ROWS
from hybridsearch.adapters.memory.multi_vectors import TokenMatrix
from hybridsearch.adapters.memory.postings import Postings
from hybridsearch.adapters.memory.strings import Strings
from hybridsearch.backends import Schema
from hybridsearch.corpus.files import REPAIR, damaged
from hybridsearch.corpus.parts import dump_metadata, load_metadata
from hybridsearch.documents import Document
from hybridsearch.errors import EncodingError, IndexCorruptedError
from hybridsearch.filters import Compare, Filter, composed
from hybridsearch.listing import Key, Order, sort_bytes
from hybridsearch.vectors import DenseVectors, EncodedBatch, MultiVectors, PassageSpans, SparseVectors, Vectors

Mask: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = Postings | DenseMatrix | TokenMatrix
P = TypeVar("P")

_CACHED_MASKS = 16
_SCANNED = 8192  # rows that a scan reads at a time
_TOKENS = 8  # token vectors that a scan counts as a row
_LISTED = 8192  # keys that are made at a time


class Segment:
    """Some documents, with all data that is needed to search them.

    Attributes:
        ids: Id of each row.
        texts: Title, text and metadata (as JSON) of row 0, then of row 1, and so on.
        hashes: 64-bit hashes of the ids, ascending. Documents are found by them.
        hashed_rows: Row of each hash.
        order: Rank of each id within the segment by code point, int32 of shape (rows,).
        metadata: Metadata in columns, for filters.
        indices: Inverted index or matrix of each retriever, with one row for each document. For a retriever that reads
            passages, it has one row for each passage.
        passages: Passages of the documents. None in an index without passages.
        reading: Names of the retrievers that read passages.
    """

    LAYOUT: ClassVar[Layout] = {
        "ids": (np.uint8, 1),
        "id_starts": (np.int64, 1),
        "texts": (np.uint8, 1),
        "text_starts": (np.int64, 1),
        "hashes": (np.uint64, 1),
        "hashed_rows": (np.int32, 1),
        "order": (np.int32, 1),
    }
    """The layout of the arrays that do not belong to a retriever or a field."""

    PASSAGES: ClassVar[Layout] = {"offsets": (np.int64, 1), "spans": (np.int32, 2)}
    """The layout of the arrays of `passages`."""

    def __init__(
        self,
        ids: Strings,
        texts: Strings,
        hashes: NDArray[np.uint64],
        hashed_rows: NDArray[np.int32],
        order: NDArray[np.int32],
        metadata: MetadataColumns,
        indices: Mapping[str, Index],
        passages: PassageSpans | None = None,
        reading: frozenset[str] = frozenset(),
    ) -> None:
        self.ids, self.texts = ids, texts
        self.hashes, self.hashed_rows, self.order = hashes, hashed_rows, order
        self.metadata, self.indices = metadata, indices
        self.passages, self.reading = passages, reading
        self._masks: OrderedDict[tuple[Filter, bool], Mask] = OrderedDict()

    @classmethod
    def build(cls, batch: EncodedBatch, schema: Schema | None = None) -> Segment:
        """Index the documents of one batch. `schema` tells which retrievers read passages. Default None: none do."""
        documents, passages = batch.documents, batch.passages
        if passages is not None:  # a copy, because the caller may change its arrays
            passages = PassageSpans(passages.offsets.copy(), passages.spans.copy())
        ids = Strings.of(document.id for document in documents)
        texts = Strings.of(part for d in documents for part in (d.title, d.text, dump_metadata(d)))
        hashes = hash_ids([document.id for document in documents])
        indices = {name: _index(vectors) for name, vectors in batch.vectors.items()}
        columns = MetadataColumns.build(documents)
        return cls(ids, texts, *_sorted(hashes), ids.order(), columns, indices, passages, _reading(schema))

    @classmethod
    def merge(cls, parts: Sequence[tuple[Segment, Mask | None]]) -> Segment:
        """Join segments. Each has a mask of the documents to keep. None keeps all documents."""
        ids = Strings.concat([(segment.ids, keep) for segment, keep in parts])
        texts = Strings.concat([(s.texts, None if keep is None else np.repeat(keep, 3)) for s, keep in parts])
        hashes = np.concatenate([_kept(segment._hashes_by_row(), keep) for segment, keep in parts])
        indices: dict[str, Index] = {}
        for name, first in parts[0][0].indices.items():
            sources = [(segment.indices[name], segment.mask_of_rows(name, keep)) for segment, keep in parts]
            if isinstance(first, Postings):
                indices[name] = Postings.merge([(s, keep) for s, keep in sources if isinstance(s, Postings)])
            elif isinstance(first, TokenMatrix):
                indices[name] = TokenMatrix.merge([(s, keep) for s, keep in sources if isinstance(s, TokenMatrix)])
            else:
                indices[name] = DenseMatrix.merge([(s, keep) for s, keep in sources if isinstance(s, DenseMatrix)])
        metadata = MetadataColumns.merge([(segment.metadata, keep) for segment, keep in parts])
        passages = [
            segment.passages if keep is None else segment.passages.take(np.flatnonzero(keep))
            for segment, keep in parts
            if segment.passages is not None
        ]
        joined, reading = PassageSpans.concat(passages) if passages else None, parts[0][0].reading
        return cls(ids, texts, *_sorted(hashes), ids.order(), metadata, indices, joined, reading)

    @classmethod
    def from_files(cls, folder: Path, schema: Schema, rows: int) -> Segment:
        """A segment with `rows` documents over the arrays in the files `<name>.npy`, memory-mapped.

        All positions are checked, so that no search reads beyond an array. The content of texts, weights and vectors
        is not checked, because only a checksum can do that.

        Raises:
            FileNotFoundError: An array is missing.
            IndexCorruptedError: An array does not fit the others.
        """
        group = "documents"
        try:
            base = read_group(folder, group, cls.LAYOUT)
            ids = Strings.from_arrays(base, "ids", "id_starts", rows, empty=False)
            ids.check_unicode("ids")
            texts = Strings.from_arrays(base, "texts", "text_starts", 3 * rows)
            hashes = base["hashes"]
            check_length(base, "hashes", rows)
            if not (hashes[1:] >= hashes[:-1]).all():
                raise DamagedArrayError("hashes", "it is out of order")
            check_permutation(base, "hashed_rows", rows)
            check_permutation(base, "order", rows)
            group = "metadata"
            metadata = MetadataColumns.from_arrays(rows, read_group(folder, group, MetadataColumns.LAYOUT))
            group, passages = "passages", None
            if schema.passages is not None:
                passages = _read_passages(read_group(folder, group, cls.PASSAGES), rows)
            indices: dict[str, Index] = {}
            for number, (name, retriever) in enumerate(schema.retrievers.items()):
                own = len(passages) if passages is not None and retriever.passages else rows
                group = f"retriever-{number}"
                if retriever.kind == "dense":
                    arrays = read_group(folder, group, DenseMatrix.LAYOUT, optional=DenseMatrix.OPTIONAL)
                    dimensions, metric = retriever.dimensions or 0, retriever.metric or "cosine"
                    indices[name] = DenseMatrix.from_arrays(arrays, own, dimensions, metric)
                elif retriever.kind == "multi_vector":
                    arrays = read_group(folder, group, TokenMatrix.LAYOUT, optional=TokenMatrix.OPTIONAL)
                    indices[name] = TokenMatrix.from_arrays(arrays, own, retriever.dimensions or 0)
                else:
                    indices[name] = Postings.from_arrays(read_group(folder, group, Postings.LAYOUT), own)
        except DamagedArrayError as error:
            raise damaged(folder / f"{group}.{error.name}.npy", str(error)) from error
        order, reading = base["order"], _reading(schema)
        return cls(ids, texts, hashes, base["hashed_rows"], order, metadata, indices, passages, reading)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """All data as plain arrays, with the names that `from_files` reads."""
        base: dict[str, NDArray[Any]] = {
            "ids": self.ids.blob,
            "id_starts": self.ids.starts,
            "texts": self.texts.blob,
            "text_starts": self.texts.starts,
            "hashes": self.hashes,
            "hashed_rows": self.hashed_rows,
            "order": self.order,
        }
        groups: dict[str, Mapping[str, NDArray[Any]]] = {"documents": base, "metadata": self.metadata.arrays()}
        if self.passages is not None:
            groups["passages"] = {"offsets": self.passages.offsets, "spans": self.passages.spans}
        for number, index in enumerate(self.indices.values()):
            groups[f"retriever-{number}"] = index.arrays()
        for group, arrays in groups.items():
            for name, array in arrays.items():
                yield f"{group}.{name}", array

    def __len__(self) -> int:
        return len(self.order)

    @property
    def rows(self) -> int:
        """The number of passages, or of documents in an index without passages."""
        return len(self) if self.passages is None else len(self.passages)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        base = (self.hashes, self.hashed_rows, self.order, self.ids, self.texts, self.metadata)
        spans = 0 if self.passages is None else self.passages.offsets.nbytes + self.passages.spans.nbytes
        return sum(part.nbytes for part in base) + spans + sum(index.nbytes for index in self.indices.values())

    def build_graphs(self) -> None:
        """Make the graphs for approximate dense search, if the segment is large enough."""
        for index in self.indices.values():
            if isinstance(index, DenseMatrix) and len(index.array) >= MIN_ROWS:
                index.build_graph()

    def find(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> list[tuple[int, int]]:
        """The position in `ids` and the row of every id in this segment. `hashes` is `hash_ids(ids)`."""
        if not len(self):
            return []
        at = np.searchsorted(self.hashes, hashes)
        at_most = np.minimum(at, len(self.hashes) - 1)
        found = []
        for position in np.flatnonzero(self.hashes[at_most] == hashes).tolist():
            wanted = ids[position].encode()
            slot = int(at[position])
            while slot < len(self) and self.hashes[slot] == hashes[position]:
                row = int(self.hashed_rows[slot])
                if self.ids.raw(row) == wanted:
                    found.append((position, row))
                    break
                slot += 1
        return found

    def repeated(self) -> list[int]:
        """The rows whose id comes again in a later row."""
        pairs = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        rows = zip(self.hashed_rows[pairs].tolist(), self.hashed_rows[pairs + 1].tolist(), strict=True)
        return [row for row, later in rows if self.ids.raw(row) == self.ids.raw(later)]

    def document(self, row: int) -> Document:
        return self.documents([row], [self.ids[row]])[0]

    def documents(self, rows: Iterable[int], ids: Sequence[str]) -> list[Document]:
        """The documents of some rows, which have these ids."""
        texts = self.texts.runs([3 * row for row in rows], 3)
        try:
            return [
                Document.restored(id, text, title, load_metadata(metadata))
                for id, (title, text, metadata) in zip(ids, texts, strict=True)
            ]
        except (ValueError, RecursionError) as error:  # the documents were valid when they were stored
            raise IndexCorruptedError(
                f"A document of the index is damaged ({error!s:.200}). Open the index with verify=True, which names "
                f"the damaged file. Then {REPAIR}."
            ) from error

    def sorted_ids(self, rows: NDArray[np.int64], after: str | None) -> Iterator[str]:
        """The ids of `rows` in order, only those after `after`."""
        rows = rows[np.argsort(self.order[rows])]
        start = 0 if after is None else bisect_right(rows, after, key=self.ids.__getitem__)
        for begin in range(start, len(rows), _LISTED):
            yield from self.ids.take(rows[begin : begin + _LISTED])

    def keys(self, rows: NDArray[np.int64], order: Order) -> Iterator[Key]:
        """The places of the documents in `rows`, see `Order.key`."""
        columns = [self._sort_column(path, descending) for path, descending in order.fields]
        for begin in range(0, len(rows), _LISTED):
            part = rows[begin : begin + _LISTED]
            parts = zip(*(column(part) for column in columns), strict=True)
            yield from zip(map(b"".join, parts), self.ids.take(part), strict=True)

    def _sort_column(self, path: str, descending: bool) -> Callable[[NDArray[np.int64]], list[bytes]]:
        """A function from rows to what `sort_bytes` gives for a field of these documents."""
        if path == "id":
            return lambda rows: [sort_bytes(id, path, descending) for id in self.ids.take(rows)]
        parts, codes = self.metadata.sort_parts(path, descending)
        if path != "title":
            return lambda rows: [parts[code] for code in codes[rows].tolist()]
        given = self.metadata.compare(Compare(path, "$exists", True))
        return lambda rows: [
            parts[code] if there else sort_bytes(title or None, path, descending)
            for code, there, title in zip(
                codes[rows].tolist(), given[rows].tolist(), self.texts.take(3 * rows), strict=True
            )
        ]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of rows of each document: its passages, or 1 in an index without passages."""
        return np.ones(len(self), np.int64) if self.passages is None else self.passages.counts

    @cached_property
    def owners(self) -> NDArray[np.int32]:
        """Row of the document that each passage belongs to, int32 of shape (passages,)."""
        return np.empty(0, np.int32) if self.passages is None else self.passages.owners.astype(np.int32)

    @cached_property
    def _passage_order(self) -> NDArray[np.int32]:
        """Rank of each passage: by the id of its document, then by its place in the document."""
        if self.passages is None:
            return self.order
        by_id = np.empty(len(self), dtype=np.int64)
        by_id[self.order] = np.arange(len(self))
        ranks = np.empty(len(self.passages), dtype=np.int32)
        ranks[self.passages.rows(by_id)] = np.arange(len(ranks), dtype=np.int32)
        return ranks

    def order_of_rows(self, name: str) -> NDArray[np.int32]:
        """Numbers that order equal scores of a retriever, int32 of shape (rows of its index,)."""
        return self._passage_order if name in self.reading else self.order

    def rows_of(self, name: str, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Rows of documents as rows of a retriever's index: these rows, or those of the passages, in order."""
        if self.passages is None or name not in self.reading:
            return rows.astype(np.int64, copy=False)
        return self.passages.rows(rows)

    def mask_of_rows(self, name: str, mask: Mask | None) -> Mask | None:
        """A mask over documents as a mask over the rows of a retriever's index. None stands for all."""
        return mask if mask is None or name not in self.reading else np.repeat(mask, self.counts)

    def mask(self, filter: Filter, name: str | None = None) -> Mask:
        """A mask over the documents that `filter` lets through, shape (rows,). It must not be changed.

        With `name` it is over the rows of this retriever's index.
        """
        of_passages = name is not None and name in self.reading
        mask = self._masks.get((filter, of_passages))
        if mask is None:
            mask = (
                np.repeat(self.mask(filter), self.counts) if of_passages else mask_of(filter.condition, self._compare)
            )
            self._masks[filter, of_passages] = mask
            while len(self._masks) > _CACHED_MASKS:
                try:
                    self._masks.popitem(last=False)
                except KeyError:  # another thread has removed it first
                    break
        return mask

    def postings(self, name: str) -> Postings:
        index = self.indices[name]
        if not isinstance(index, Postings):
            raise TypeError(name)
        return index

    def matrix(self, name: str) -> DenseMatrix:
        index = self.indices[name]
        if not isinstance(index, DenseMatrix):
            raise TypeError(name)
        return index

    def token_matrix(self, name: str) -> TokenMatrix:
        index = self.indices[name]
        if not isinstance(index, TokenMatrix):
            raise TypeError(name)
        return index

    def encoded(self, rows: Sequence[int], name: str) -> EncodedBatch:
        """The documents of some rows, with the vectors of one retriever."""
        taken = np.array(rows, dtype=np.int64)
        spans = None if self.passages is None else self.passages.take(taken)
        of_vectors = taken if self.passages is None or name not in self.reading else self.passages.rows(taken)
        vectors = _vectors(self.indices[name], of_vectors)
        return EncodedBatch([self.document(row) for row in rows], {name: vectors}, spans)

    def batches(self, live: Mask | None, size: int) -> Iterator[EncodedBatch]:
        """The documents in the mask `live` with their vectors, at most `size` at a time."""
        rows = np.arange(len(self)) if live is None else np.flatnonzero(live)
        for taken in self.steps(rows, max(size, _SCANNED)):
            documents = [self.document(row) for row in taken.tolist()]
            passages = None if self.passages is None else self.passages.take(taken)
            vectors = {name: _vectors(index, self.rows_of(name, taken)) for name, index in self.indices.items()}
            for begin in range(0, len(taken), size):
                end = min(begin + size, len(taken))
                spans = None if passages is None else passages.take(range(begin, end))
                head, tail = (begin, end) if passages is None else passages.offsets[[begin, end]].tolist()
                part = {
                    name: _slice(vector, head, tail) if name in self.reading else _slice(vector, begin, end)
                    for name, vector in vectors.items()
                }
                yield EncodedBatch(documents[begin:end], part, spans)

    def steps(self, rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
        """Ranges of `rows` with about `size` documents or passages each. Token vectors make them shorter.

        They are large, because reading rows from an inverted index is a pass over all of it.
        """
        if len(rows):
            sizes = self.counts[rows]
            for name, index in self.indices.items():
                if isinstance(index, TokenMatrix):
                    starts = index.starts
                    if self.passages is not None and name in self.reading:
                        starts = starts[self.passages.offsets]
                    sizes = sizes + (starts[rows + 1] - starts[rows]) // _TOKENS
            yield from np.split(rows, np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // size)) + 1)

    def _compare(self, compare: Compare) -> Mask:
        if compare.path == "id":
            return self._by_id(compare)
        mask = self.metadata.compare(compare)
        if compare.path == "title":
            rows = np.flatnonzero(~self.metadata.compare(Compare("title", "$exists", True)))
            mask[rows] = [compare.test(title or None) for title in self.texts.take(3 * rows)]
        return mask

    def _by_id(self, compare: Compare) -> Mask:
        if compare.operator in ("$eq", "$in"):
            mask = np.zeros(len(self), dtype=np.bool_)
            ids = [key for key in compare.keys if key is not None]
            mask[[row for _, row in self.find(ids, hash_ids(ids))]] = True
            mask[[row for row, key in self._decomposed.items() if key in compare.keys]] = True
            return mask
        return np.fromiter((compare.test(id) for id in self.ids.slice(0, len(self))), np.bool_, len(self))

    @cached_property
    def _decomposed(self) -> dict[int, str]:
        """The composed form of ids that are not in Unicode's composed form, by row."""
        foreign = np.searchsorted(self.ids.starts, np.flatnonzero(self.ids.blob & 0x80), side="right") - 1
        ids = {row: self.ids[row] for row in np.unique(foreign).tolist()}
        return {row: key for row, id in ids.items() if (key := composed(id)) != id}

    def _hashes_by_row(self) -> NDArray[np.uint64]:
        hashes = np.empty(len(self), dtype=np.uint64)
        hashes[self.hashed_rows] = self.hashes
        return hashes


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit hash of each id. It is the same in every process."""
    digests = (hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for id in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def _sorted(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    rows = np.argsort(hashes, kind="stable").astype(np.int32)
    return hashes[rows], rows


def _kept(array: NDArray[np.uint64], keep: Mask | None) -> NDArray[np.uint64]:
    return array if keep is None else array[keep]


def _reading(schema: Schema | None) -> frozenset[str]:
    retrievers = {} if schema is None else schema.retrievers
    return frozenset(name for name, retriever in retrievers.items() if retriever.passages)


def _read_passages(arrays: Arrays, documents: int) -> PassageSpans:
    """The passages of `documents` documents in these arrays. Raises DamagedArrayError if they do not fit."""
    check_starts(arrays, "offsets", documents, len(arrays["spans"]), empty=False)
    try:
        return PassageSpans(arrays["offsets"], arrays["spans"])
    except EncodingError as error:
        raise DamagedArrayError("spans", str(error)) from error


def _index(vectors: Vectors) -> Index:
    if isinstance(vectors, DenseVectors):
        return DenseMatrix.from_vectors(vectors)
    if isinstance(vectors, MultiVectors):
        return TokenMatrix.from_vectors(vectors)
    return Postings.from_vectors(vectors)


def _vectors(index: Index, rows: NDArray[np.int64]) -> Vectors:
    if isinstance(index, DenseMatrix):
        return DenseVectors(index.array[rows], index.metric)
    return index.to_vectors(rows)


def _slice(vectors: Vectors, begin: int, end: int) -> Vectors:
    if isinstance(vectors, DenseVectors):
        return DenseVectors(vectors.array[begin:end], vectors.metric)
    if isinstance(vectors, MultiVectors):
        offsets = vectors.offsets[begin : end + 1]
        return MultiVectors(vectors.array[offsets[0] : offsets[-1]], offsets - offsets[0])
    return SparseVectors(vectors.matrix[begin:end], vectors.vocabulary)
