"""Translates documents and vectors to lines of the bulk API, and stored documents back.

A stored document is one object (`_source`):

| member       | content                                                                                   |
|--------------|-------------------------------------------------------------------------------------------|
| `id`         | the document's id; its `_id` is `document_key(id)`                                        |
| `document`   | id, text, title and metadata as they came: JSON, compressed by zlib if that is shorter,   |
|              | in base64. It is a binary field with doc values: a search can read it alone, and no       |
|              | engine interprets it. An index of an earlier version has no compressed documents          |
| `fields`     | what filters search, made by `fields.to_fields`; absent if empty                          |
| `vectors`    | by retriever: a list of numbers (dense, absent if all are 0), or weights by encoded term  |
| `counts`     | by lexical retriever: term frequencies by encoded term, from which the weights were made  |
| `long_terms` | the escaped term by encoded term, for terms that are too long for a name; usually absent  |
| `stamp`      | when this version was written, in microseconds                                            |
| `rough`      | rough vectors, see `seismic`; only with sparse="seismic", indexed but not stored          |
| `content`    | title and text, for the engine's own analysis; only with a text retriever                 |
| `passages`   | list of passages in the order of the text; only in an index with passages                 |
| `length`     | number of characters of `document`; only in an index with passages                        |

A passage is an object with `start`, `end`, `vectors`, `counts`, `long_terms`, `content` and `impacts`. `vectors`,
`counts`, `long_terms` and `content` are as above, for the retrievers that read passages. `impacts` has the weights as
texts, see `impacts`. `content` and `impacts` of a passage are indexed but not stored.

The object is sent as SMILE (`smile`), with all bits of a float32. Engines return a float32 as the shortest decimal that
reads as the same float32. So nothing is lost, although Lucene scores with fewer bits.
"""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import chain, pairwise
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.adapters.checks import encodable
from hybridsearch.adapters.lucene import impacts, seismic
from hybridsearch.adapters.lucene.stored.fields import to_fields
from hybridsearch.adapters.lucene.stored.mapping import PASSAGES
from hybridsearch.adapters.lucene.wire import smile
from hybridsearch.adapters.lucene.wire.bulk import Line
from hybridsearch.backends import RetrieverSchema, Schema
from hybridsearch.documents import MAX_ID_BYTES, Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import DenseVectors, EncodedBatch, PassageSpans, SparseVectors, Vectors, Vocabulary
from hybridsearch.weighting import BM25Weighting

Unchanged: TypeAlias = Mapping[str, int]
"""Members of an action that let it store a document only if this version of it is still there."""

MAX_NAME_BYTES = 200
"""The largest number of bytes of an encoded term in UTF-8. A longer term is named by its hash."""

SMALLEST_WEIGHT = float(np.finfo(np.float32).smallest_normal)
"""The smallest weight that Lucene's feature fields take."""

_ROWS = 1024  # documents or passages that are translated at a time, because their numbers become Python objects
_LEVEL = 1  # of zlib. Higher levels take longer, and save a few percent
_SPECIAL = re.compile(r"[\s\x00-\x1f\x7f.%~\ud800-\udfff]")
_EMPTY_TERM = "%"  # is not an escape, because an escape has two digits after the %


def document_key(id: str) -> str:
    """The engine's `_id` of a document: the id itself, or its hash if the id is not possible as an `_id`.

    An id that begins with "~" is hashed too, because it looks like a hash.

    >>> document_key("a/b c"), document_key("~a")
    ('a/b c', '~8d5679ec94e658e1de328401393caa90b352cc5bc28b6a3601f38f7fdf1de3cb')
    """
    short = len(id) <= MAX_ID_BYTES // 4 or len(id.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES
    return id if id and short and id[0] != "~" and encodable(id) else _hash(id)


def encode_term(term: str) -> str:
    """The name of a term in a feature field. It has 1 to 200 bytes, no dot and no space. No two terms share a name.

    White space, control characters, ".", "%", "~" and lone surrogates are written as %XX, byte by byte. The empty term
    is "%". If a name would be longer than 200 bytes, the name is "~" and the hash of the term.

    >>> encode_term("wing"), encode_term("1.5 m"), encode_term("")
    ('wing', '1%2E5%20m', '%')
    """
    name = _escape(term)
    if len(name) > MAX_NAME_BYTES // 4 and len(name.encode()) > MAX_NAME_BYTES:
        return _hash(term)
    return name


def text_lengths(vectors: SparseVectors) -> NDArray[np.float64]:
    """The length of each text (document or passage) in tokens, for a lexical retriever. The shape is (texts,)."""
    matrix = vectors.matrix
    of_value = np.repeat(np.arange(len(vectors)), np.diff(matrix.indptr))
    sums = np.bincount(of_value, weights=matrix.data[: len(of_value)], minlength=len(vectors))
    return sums.astype(np.float64)


def bulk_lines(
    batch: EncodedBatch,
    schema: Schema,
    average_lengths: Mapping[str, float],
    stamp: int,
    *,
    rough: bool = False,
    by_impacts: bool = False,
    literal: bool = False,
    compressed: bool = True,
    unchanged: Sequence[Unchanged] | None = None,
) -> Iterator[Line]:
    """Lines of the bulk API that index the documents of `batch`, in order.

    Args:
        batch: Documents and vectors that fit `schema`.
        schema: Schema of the index.
        average_lengths: Average document length in tokens that weights are made with, by lexical retriever.
        stamp: Time of this version, in microseconds.
        rough: Whether learned sparse vectors are also indexed for `seismic`. Default False.
        by_impacts: Whether sparse vectors of passages are indexed as `impacts`. Default False.
        literal: Whether the index is literal (see `fields`). Default False.
        compressed: Whether documents may be stored with compression. Default True.
        unchanged: Version of each document that the new one may replace. Default None: any.

    Raises:
        InvalidArgumentError: A weight is negative. Nothing was yielded.
    """
    _check_signs(batch, schema)
    actions = [
        {"_id": document_key(document.id), **version}
        for document, version in zip(batch.documents, unchanged or [{}] * len(batch), strict=True)
    ]
    return chain.from_iterable(
        _lines_of(batch, rows, actions[rows], schema, average_lengths, stamp, rough, by_impacts, literal, compressed)
        for rows in _parts(batch)
    )


def delete_lines(ids: Iterable[str]) -> Iterator[Line]:
    """Lines of the bulk API that delete the documents with these ids.

    >>> list(delete_lines(["a"]))
    [('a', b':)\\n\\x00\\xfa\\x85delete\\xfa\\x82_id@a\\xfb\\xfb\\xff')]
    """
    for id in ids:
        yield id, smile.dumps({"delete": {"_id": document_key(id)}}) + smile.END


def read_document(text: str) -> Document:
    """The document in a stored `document`. OpenSearch leaves the padding of base64 out of doc values."""
    held = b64decode(text + "==")
    return Document(**orjson.loads(held if held.startswith(b"{") else zlib.decompress(held)))


def vectors_from_source(sources: Sequence[Mapping[str, Any]], schema: Schema) -> dict[str, Vectors]:
    """The vectors in stored documents (`_source`), by retriever. They have the same bits as in `bulk_lines`.

    The terms of sparse vectors are sorted by code point, and each row is sorted. Weights below the smallest normal
    float32 cannot be stored: they come back as 0.
    """
    vectors: dict[str, Vectors] = {}
    passages = [passage for source in sources for passage in source.get(PASSAGES, ())]
    for name, retriever in schema.retrievers.items():
        member = "counts" if retriever.kind == "lexical" else "vectors"
        held = passages if retriever.passages else sources
        rows = [source.get(member, {}).get(name) for source in held]
        vectors[name] = _dense(rows, retriever) if retriever.kind == "dense" else _sparse(rows, held)
    return vectors


def spans_from_source(sources: Sequence[Mapping[str, Any]]) -> PassageSpans:
    """The passages in stored documents (`_source`) of an index with passages."""
    return PassageSpans.of([[(passage["start"], passage["end"]) for passage in source[PASSAGES]] for source in sources])


def _parts(batch: EncodedBatch) -> Iterator[slice]:
    """The documents in parts of at most `_ROWS` documents and passages. A document with more is a part."""
    offsets = np.arange(len(batch) + 1) if batch.passages is None else batch.passages.offsets
    start = 0
    while start < len(batch):
        most = int(np.searchsorted(offsets, offsets[start] + _ROWS, side="right")) - 1
        yield slice(start, max(most, start + 1))
        start = max(most, start + 1)


def _lines_of(
    batch: EncodedBatch,
    rows: slice,
    actions: Sequence[Mapping[str, Any]],
    schema: Schema,
    average_lengths: Mapping[str, float],
    stamp: int,
    rough: bool,
    by_impacts: bool,
    literal: bool,
    compressed: bool,
) -> Iterator[Line]:
    documents = batch.documents[rows]
    sources: list[dict[str, Any]] = [_source(document, stamp, literal, compressed) for document in documents]
    passages, of_passages = _add_passages(sources, batch, rows)
    of_text = {retriever.passages for retriever in schema.retrievers.values() if retriever.kind == "text"}
    for document, source in zip(documents, sources, strict=True):
        if False in of_text:
            source["content"] = document.content
        if True in of_text:
            for passage in source[PASSAGES]:
                passage["content"] = replace(document, text=document.text[passage["start"] : passage["end"]]).content
    for name, retriever in schema.retrievers.items():
        vectors = batch.vectors[name]
        held, read = (passages, of_passages) if retriever.passages else (sources, rows)
        if isinstance(vectors, DenseVectors):
            array = vectors.array[read]
            written = smile.numbers(array)
            for row in np.flatnonzero(array.any(axis=1)).tolist():
                held[row]["vectors"][name] = smile.list_of(written[row])
            continue
        if not isinstance(vectors, SparseVectors):
            raise TypeError(name)  # the schema has no such retriever
        part = SparseVectors(vectors.matrix[read], vectors.vocabulary)
        if retriever.kind == "lexical":
            _put(held, "counts", name, part)
            part = _weighted(part, BM25Weighting(**(retriever.weighting or {})), average_lengths[name])
        _put(held, "vectors", name, part)
        by_rough = rough and retriever.kind == "sparse"
        if by_rough or (by_impacts and retriever.passages):
            member, form = (seismic.MEMBER, seismic.rough_vector) if by_rough else (impacts.MEMBER, impacts.text)
            for source, weights in zip(held, _by_name(part), strict=True):
                if weights:
                    source.setdefault(member, {})[name] = form(weights)
    for document, action, source in zip(documents, actions, sources, strict=True):
        yield document.id, b"".join([smile.dumps({"index": action}), smile.END, smile.dumps(source), smile.END])


def _source(document: Document, stamp: int, literal: bool, compressed: bool) -> dict[str, Any]:
    raw = orjson.dumps(document.to_dict())
    held = min(raw, zlib.compress(raw, _LEVEL), key=len) if compressed else raw
    text = b64encode(held).decode()
    source: dict[str, Any] = {"id": document.id, "document": text, "vectors": {}, "stamp": stamp}
    if fields := to_fields(document, literal=literal):
        source["fields"] = fields
    return source


def _add_passages(
    sources: Sequence[dict[str, Any]], batch: EncodedBatch, rows: slice
) -> tuple[list[dict[str, Any]], slice]:
    """Add their passages to the documents `rows`. Returns all these passages, and their rows."""
    if batch.passages is None:
        return [], slice(0)
    offsets = batch.passages.offsets[rows.start : rows.stop + 1].tolist()
    of_passages = slice(offsets[0], offsets[-1])
    spans = batch.passages.spans[of_passages].tolist()
    passages: list[dict[str, Any]] = [{"start": start, "end": end, "vectors": {}} for start, end in spans]
    for source, (first, last) in zip(sources, pairwise(offsets), strict=True):
        source[PASSAGES] = passages[first - offsets[0] : last - offsets[0]]
        source["length"] = len(source["document"])
    return passages, of_passages


def _put(sources: Sequence[dict[str, Any]], member: str, name: str, vectors: SparseVectors) -> None:
    """Add the values of each row to its source, by encoded term, under `member` and `name`."""
    matrix, terms = vectors.matrix, vectors.vocabulary.terms
    kept = matrix.data >= SMALLEST_WEIGHT
    starts = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr].tolist()
    columns = matrix.indices[kept]
    names = np.empty(len(terms), dtype=object)
    used = np.zeros(len(terms), dtype=bool)
    used[columns] = True
    long: dict[int, str] = {}
    for column in np.flatnonzero(used).tolist():
        encoded = encode_term(terms[column])
        names[column] = smile.name(encoded)
        if encoded.startswith("~"):
            long[column] = encoded
    members = [b""] * (2 * len(columns))
    members[::2] = names[columns].tolist()
    members[1::2] = smile.numbers(matrix.data[kept]).view("V6")[:, 0].tolist()
    for source, start, end in zip(sources, starts, starts[1:], strict=False):
        if start < end:
            source.setdefault(member, {})[name] = smile.dict_of(members[2 * start : 2 * end])
    for column, encoded in long.items():
        places = np.flatnonzero(columns == column)
        for row in (np.searchsorted(starts, places, side="right") - 1).tolist():
            sources[row].setdefault("long_terms", {})[encoded] = _escape(terms[column])


def _by_name(vectors: SparseVectors) -> Iterator[dict[str, float]]:
    """The values of each row, by encoded term."""
    matrix, terms = vectors.matrix, vectors.vocabulary.terms
    names = {column: encode_term(terms[column]) for column in np.unique(matrix.indices).tolist()}
    for start, end in pairwise(matrix.indptr.tolist()):
        row = zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
        yield {names[column]: value for column, value in row if value >= SMALLEST_WEIGHT}


def _weighted(frequencies: SparseVectors, weighting: BM25Weighting, average_length: float) -> SparseVectors:
    matrix = frequencies.matrix
    lengths = np.repeat(text_lengths(frequencies).astype(np.float32), np.diff(matrix.indptr))
    weights = np.zeros_like(matrix.data)
    held = matrix.data > 0
    weights[held] = weighting.term_weights(matrix.data[held], lengths[held], average_length)
    return SparseVectors(csr_array((weights, matrix.indices, matrix.indptr), matrix.shape), frequencies.vocabulary)


def _check_signs(batch: EncodedBatch, schema: Schema) -> None:
    for name, retriever in schema.retrievers.items():
        vectors = batch.vectors[name]
        if not isinstance(vectors, SparseVectors):
            continue
        matrix = vectors.matrix
        negative = np.flatnonzero(matrix.data < 0)
        if negative.size:
            row = int(np.searchsorted(matrix.indptr, negative[0], side="right")) - 1
            if retriever.passages and batch.passages is not None:
                row = int(batch.passages.owners[row])
            term = vectors.vocabulary.terms[matrix.indices[negative[0]]]
            what = "frequency" if retriever.kind == "lexical" else "weight"
            raise InvalidArgumentError(
                f"Document {batch.documents[row].id!r:.80} has the {what} {matrix.data[negative[0]]!s} for the term "
                f"{term!r:.80} of retriever {name!r}, but Lucene stores no {what} below 0: leave the term out, or use "
                "the memory backend."
            )


def _dense(rows: Sequence[Sequence[float] | None], retriever: RetrieverSchema) -> DenseVectors:
    array = np.zeros((len(rows), retriever.dimensions or 0), dtype=np.float32)
    present = [row for row, values in enumerate(rows) if values is not None]
    if present:
        array[present] = _to_float32(np.array([rows[row] for row in present], dtype=np.float64))
    return DenseVectors(array, retriever.metric or "cosine")


def _sparse(rows: Sequence[Mapping[str, float] | None], sources: Sequence[Mapping[str, Any]]) -> SparseVectors:
    held = [row or {} for row in rows]
    names = list(dict.fromkeys(chain.from_iterable(held)))
    long_terms = {key: term for source in sources for key, term in source.get("long_terms", {}).items()}
    terms = [_unescape(long_terms.get(name, name)) for name in names]
    order = sorted(range(len(names)), key=terms.__getitem__)
    column = {names[place]: number for number, place in enumerate(order)}
    indptr = np.cumsum([0, *map(len, held)])
    indices = np.fromiter(map(column.__getitem__, chain.from_iterable(held)), np.int32, int(indptr[-1]))
    data = np.fromiter(chain.from_iterable(row.values() for row in held), np.float64, int(indptr[-1]))
    parts = _to_float32(data), indices, indptr.astype(np.int32)
    matrix: csr_array[np.float32, tuple[int, int]] = csr_array(parts, shape=(len(held), len(names)))
    matrix.sort_indices()
    return SparseVectors(matrix, Vocabulary([terms[place] for place in order]))


def _to_float32(doubles: NDArray[np.float64]) -> NDArray[np.float32]:
    """The float32 values whose shortest decimals were read as `doubles`.

    Rounding a decimal to a double and then to a float32 is wrong for exactly one shortest decimal. It is corrected.
    """
    values = doubles.astype(np.float32)
    wrong = np.abs(doubles) == 7.038531e-26
    if wrong.any():
        values[wrong] = np.copysign(np.uint32(0x15AE43FD).view(np.float32), doubles[wrong])
    return values


def _escape(term: str) -> str:
    if _SPECIAL.search(term) is None:
        return term or _EMPTY_TERM
    return _SPECIAL.sub(_escaped_character, term)


def _escaped_character(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _unescape(name: str) -> str:
    if "%" not in name:
        return name
    return "" if name == _EMPTY_TERM else unquote_to_bytes(name).decode("utf-8", "surrogatepass")


def _hash(string: str) -> str:
    return "~" + sha256(string.encode("utf-8", "surrogatepass")).hexdigest()
