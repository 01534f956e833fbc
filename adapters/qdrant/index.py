"""The Qdrant collections of an index: their metadata, how they are made, and their aliases.

Each index gets a random mark when it is made. The mark is in the names of its vectors, and a search names the vectors.
So Qdrant refuses a search if the alias was moved or if the collection was deleted and made again. An index whose terms
have other numbers never answers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import numpy as np
from qdrant_client import models

from hybridsearch.adapters.checks import check_dense, check_layout, check_multi_vector, differing_retrievers
from hybridsearch.adapters.qdrant.connection import Call, Steps, call
from hybridsearch.adapters.qdrant.payload import INDEXES
from hybridsearch.adapters.qdrant.place import Place
from hybridsearch.backends import OldIndex, RetrieverSchema, Schema
from hybridsearch.errors import (
    BackendError,
    FingerprintMismatchError,
    IndexCorruptedError,
    IndexExistsError,
    InvalidArgumentError,
)
from hybridsearch.vectors import EncodedBatch, SparseVectors
from hybridsearch.weighting import BM25Weighting

LAYOUT = 3
"""The version of the layout of points and metadata. Layouts after `_PASSAGES` and before `_LITERAL` are refused."""

_PASSAGES = 4
"""The layout of an index with passages."""

_LITERAL = 2
"""The last layout in which the values for filters were stored as they came: see `payload`."""

Quantization: TypeAlias = Literal["int8", "binary", "product"]
"""How a server compresses a number of 32 bits: to 8 bits ("int8"), 1 bit ("binary"), or 2 on average ("product")."""

_METADATA_KEY = "hybridsearch"  # the key of our part of a collection's metadata
_DISTANCES = {"cosine": models.Distance.DOT, "dot": models.Distance.DOT, "euclidean": models.Distance.EUCLID}
_QUANTIZATIONS: dict[Quantization, Any] = {
    "int8": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    "product": models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
    ),
}


@dataclass(frozen=True)
class Index:
    """An index, as the metadata of its collection describe it.

    Attributes:
        schema: Schema of the index.
        collection: Name of the collection, not of an alias.
        mark: Random text that no other index has.
        idf: The lexical retrievers for which Qdrant itself computes idf.
        literal: Whether the index has the layout `_LITERAL`: see `payload`.
    """

    schema: Schema
    collection: str
    mark: str
    idf: frozenset[str]
    literal: bool = False

    def to_metadata(self) -> dict[str, Any]:
        """The metadata. They hold the schema as text, so that every number comes back as it was."""
        schema = json.dumps(self.schema.to_json(), ensure_ascii=False)
        ours = {"schema": schema, "collection": self.collection, "mark": self.mark, "idf": sorted(self.idf)}
        newest = LAYOUT if self.schema.passages is None else _PASSAGES
        return {_METADATA_KEY: {"layout": _LITERAL if self.literal else newest, **ours}}

    @classmethod
    def from_metadata(cls, metadata: Any, shown: str) -> Index:
        """The index that the metadata of the collection at `shown` describe. This is the inverse of `to_metadata`.

        Raises:
            BackendError: The collection was not made by hybridsearch.
            IndexCorruptedError: The index has another layout or a newer schema version, or `metadata` is damaged.
        """
        if not is_ours(metadata):
            raise BackendError(f"The collection at {shown} was not made by hybridsearch: choose another name.")
        ours = metadata[_METADATA_KEY]
        check_layout(layout := ours.get("layout"), _LITERAL, _PASSAGES, f"The index at {shown}")
        try:
            schema = Schema.from_json(json.loads(ours["schema"]))
            return cls(schema, ours["collection"], ours["mark"], frozenset(ours["idf"]), layout == _LITERAL)
        except (KeyError, TypeError, ValueError) as error:
            raise IndexCorruptedError(f"The index at {shown} has a damaged record of its schema ({error!r}).") from None

    @property
    def terms(self) -> str:
        """The name of the collection with the numbers of the terms."""
        return terms_of(self.collection)

    @property
    def passages(self) -> str | None:
        """The name of the collection with the passages. None if no retriever reads passages."""
        reads = any(retriever.passages for retriever in self.schema.retrievers.values())
        return passages_of(self.collection) if reads else None

    def collection_of(self, retriever: str) -> str:
        """The name of the collection with the vectors of a retriever."""
        return passages_of(self.collection) if self.schema.retrievers[retriever].passages else self.collection

    def vector(self, retriever: str) -> str:
        """The name of a retriever's vectors. It is quoted, because a server uses it as the name of a folder."""
        return f"{quote(retriever, safe='')}-{self.mark}"

    def check_same_vectors(self, other: Index, shown: str) -> None:
        """Raises FingerprintMismatchError if queries for this index do not fit `other`, which is now at `shown`."""
        if differing := differing_retrievers(self.schema, other.schema):
            raise FingerprintMismatchError(
                f"{shown} now means the collection {other.collection!r}, which has other retrievers "
                f"({', '.join(differing)}): open it again."
            )

    def counts_key(self, name: str) -> str:
        """The payload key of the term frequencies of a lexical retriever. It needs no quoting."""
        return f"counts{sorted(self.schema.retrievers).index(name)}"

    def missing_lengths(self, batch: EncodedBatch) -> dict[str, float]:
        """The average lengths in `batch`, for lexical retrievers that have no average length yet."""
        means = {
            name: float(vectors.matrix.sum(dtype=np.float64)) / len(vectors)
            for name, vectors in batch.vectors.items()
            if isinstance(vectors, SparseVectors)
            and len(vectors)
            and self.schema.retrievers[name].kind == "lexical"
            and self.schema.retrievers[name].average_length is None
        }
        return {name: mean for name, mean in means.items() if mean > 0}


def is_ours(metadata: Any) -> bool:
    """Whether hybridsearch made the collection with `metadata`, in any layout."""
    ours = (metadata or {}).get(_METADATA_KEY)
    return isinstance(ours, dict) and "schema" in ours


def terms_of(collection: str) -> str:
    """The name of the collection with the numbers of the terms of an index."""
    return f"{collection}-terms"


def passages_of(collection: str) -> str:
    """The name of the collection with the passages of an index."""
    return f"{collection}-passages"


def read_index(
    place: Place, quantization: Quantization | None, copies: Mapping[str, int | None] | None = None
) -> Steps[Index | None]:
    """The index at a place, or None if there is none.

    Raises:
        InvalidArgumentError: The index has another quantization, or another number of shards or replicas, than given.
            None means any.
    """
    if not (yield call(place.collection, "collection_exists")):
        return None
    info = yield call(place.collection, "get_collection")
    index = Index.from_metadata(info.config.metadata, place.shown)
    made = quantization if quantization is None else (yield from quantization_of(index))
    if made != quantization and any(r.kind == "dense" for r in index.schema.retrievers.values()):
        raise InvalidArgumentError(
            f"The index at {place.shown} was made with quantization={made!r}, not with {quantization!r}: leave "
            "quantization out, or index the documents again under another name."
        )
    for option, count in (copies or {}).items():
        has = getattr(info.config.params, option) or 1
        if place.url is not None and count not in (None, has):
            name = {"shard_number": "shards", "replication_factor": "replicas"}[option]
            raise InvalidArgumentError(
                f"The index at {place.shown} has {name}={has}, not {count}: leave {name} out, or index the documents "
                "again under another name."
            )
    return index


def create_index(
    place: Place, schema: Schema, quantization: Quantization | None, copies: Mapping[str, Any]
) -> Steps[Index]:
    """Make the collections of an empty index. `copies` has the numbers of shards and replicas on a server."""
    name, embedded = place.collection, place.url is None
    if (yield call(name, "collection_exists")):
        raise IndexExistsError(f"There is a collection at {place.shown} already: choose another name.")
    own_idf = embedded or copies["shard_number"] == 1
    weighted = {
        retriever
        for retriever, r in schema.retrievers.items()
        if r.kind == "lexical" and own_idf and BM25Weighting(**(r.weighting or {})).variant == "lucene"
    }
    index = Index(schema, name, secrets.token_hex(4), frozenset(weighted))
    shared = {} if embedded else copies
    left = {}  # by an attempt that was interrupted
    for kind, beside in {"terms": index.terms, "passages": index.passages}.items():
        left[kind] = beside is not None and (yield call(beside, "collection_exists"))
        if beside is not None and left[kind] and not (yield from _has(kind, beside, name)):
            raise IndexExistsError(
                f"There is a collection {beside!r} already, and hybridsearch needs this name for the {kind} of "
                f"{place.shown}: choose another name."
            )
    if not left["terms"]:
        of = {_METADATA_KEY: {"terms_of": name}}
        yield call(index.terms, "create_collection", vectors_config={}, metadata=of, **shared)
    if index.passages is not None:
        if left["passages"]:
            yield call(index.passages, "delete_collection")
        of = {_METADATA_KEY: {"passages_of": name}}
        yield from _make(index, index.passages, quantization, shared, of)
    yield from _make(index, name, quantization, shared, index.to_metadata())
    return index


def _make(
    index: Index, collection: str, quantization: Quantization | None, copies: Mapping[str, Any], metadata: Any
) -> Steps[None]:
    """Make a collection for the vectors of those retrievers of `index` that belong to it."""
    dense: dict[str, models.VectorParams] = {}
    sparse: dict[str, models.SparseVectorParams] = {}
    payload = dict(INDEXES)
    if collection == index.passages:
        payload["version"] = models.PayloadSchemaType.INTEGER
    for name, retriever in index.schema.retrievers.items():
        if index.collection_of(name) != collection:
            continue
        if retriever.kind == "dense":
            dense[index.vector(name)] = dense_params(name, retriever, quantization)
            continue
        if retriever.kind == "multi_vector":
            dense[index.vector(name)] = multi_vector_params(name, retriever)
            continue
        modifier = models.Modifier.IDF if name in index.idf else None
        sparse[index.vector(name)] = models.SparseVectorParams(modifier=modifier)
        if retriever.kind == "lexical" and name not in index.idf:
            payload[f"{index.counts_key(name)}.terms"] = models.PayloadSchemaType.INTEGER
    vectors = {"vectors_config": dense, "sparse_vectors_config": sparse}
    yield call(collection, "create_collection", metadata=metadata, **vectors, **copies)
    if copies:  # the collection is on a server
        for key, type_ in payload.items():
            yield call(collection, "create_payload_index", field_name=key, field_schema=type_)


def _has(kind: str, collection: str, name: str) -> Steps[bool]:
    """Whether a collection has the "terms" or "passages" of the index `name`."""
    info = yield call(collection, "get_collection")
    return bool(((info.config.metadata or {}).get(_METADATA_KEY) or {}).get(f"{kind}_of") == name)


def publish(place: Place, alias: str, drop_old: bool) -> Steps[OldIndex | None]:
    """Let `alias` mean the index at `place`. Returns the name of the index that it meant before."""
    collections = {collection.name for collection in (yield Call("get_collections", {})).collections}
    if alias in collections:
        raise IndexExistsError(
            f"{alias!r} is the name of a collection: choose another alias, or delete that collection."
        )
    known = yield Call("get_aliases", {})
    meant = {known.alias_name: known.collection_name for known in known.aliases}
    this, old = meant.get(place.collection, place.collection), meant.get(alias)
    if old == this:
        return None
    steps: list[Any] = []
    if old is not None:
        info = yield call(old, "get_collection")
        if not is_ours(info.config.metadata):
            raise BackendError(
                f"The alias {alias!r} means the collection {old!r}, which was not made by hybridsearch, so nothing was "
                "changed: choose another alias, or remove the alias from that collection first."
            )
        steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    create = models.CreateAlias(collection_name=this, alias_name=alias)
    steps.append(models.CreateAliasOperation(create_alias=create))
    yield Call("update_collection_aliases", {"change_aliases_operations": steps})
    if old is None:
        return None
    others = sorted(name for name, of in meant.items() if of == old and name != alias) if drop_old else []
    if drop_old and not others:
        passages = passages_of(old)
        deleted = [old, terms_of(old)]
        if passages in collections and (yield from _has("passages", passages, old)):
            deleted.append(passages)
        for name in deleted:
            yield call(name, "delete_collection")
    return OldIndex(old, kept_for=others)


def dense_params(name: str, retriever: RetrieverSchema, quantized: Quantization | None) -> models.VectorParams:
    """How the vectors of a dense retriever are stored.

    Raises:
        InvalidArgumentError: The retriever has no dimensions or no metric.
    """
    size, metric = check_dense(name, retriever)
    quantization: Any = _QUANTIZATIONS.get(quantized) if quantized else None
    return models.VectorParams(size=size, distance=_DISTANCES[metric], quantization_config=quantization)


def multi_vector_params(name: str, retriever: RetrieverSchema) -> models.VectorParams:
    """How the token vectors of a retriever are stored. They are compared by MaxSim, as they are.

    Raises:
        InvalidArgumentError: The retriever has no dimensions.
    """
    compared = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    size = check_multi_vector(name, retriever)
    return models.VectorParams(size=size, distance=models.Distance.DOT, multivector_config=compared)


def quantization_of(index: Index) -> Steps[Quantization | None]:
    """How the dense vectors of an index are compressed. None if they are not."""
    kinds = {type(stored): name for name, stored in _QUANTIZATIONS.items()}
    for collection in filter(None, (index.collection, index.passages)):
        vectors = (yield call(collection, "get_collection")).config.params.vectors
        for stored in vectors.values() if isinstance(vectors, dict) else ():
            if stored.quantization_config is not None:
                return kinds[type(stored.quantization_config)]
    return None
