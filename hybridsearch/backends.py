"""The contract between hybridsearch and the engines that store and search its indexes.

A backend is one class with the methods of `Backend`. It needs only the types of this module and of `documents`,
`vectors`, `ranking`, `filters`, `listing` and `errors`. `hybridsearch.testing` has the tests that it must pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.listing import Key, Order
from hybridsearch.messages import number_of
from hybridsearch.ranking import PassageScore, Ranking
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    Metric,
    MultiVectors,
    QueryVector,
    SparseVectors,
    Vectors,
)

Kind: TypeAlias = Literal["lexical", "sparse", "dense", "multi_vector", "text"]
"""Kind of a retriever.

- `"lexical"`: its vectors are term frequencies, and the backend computes their weights.
- `"sparse"`: its vectors are weights.
- `"dense"`: its vectors are dense.
- `"multi_vector"`: it has several dense vectors for each text, and the score is their MaxSim (late interaction).
- `"text"`: it has no vectors. The engine analyses and scores `Document.content`.
"""

_TOLERANCES = {"fp32": 0.0, "bf16": 1e-3}
_ROUNDING = 0.02  # of the square of a length: bfloat16 has 8 bits, so it rounds a number by at most 0.4 %


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Name of an encoder and all settings that change its vectors, such as the model's content and the prompts.

    The vectors of two encoders with equal fingerprints can be compared with each other. The precisions "fp32" and
    "bf16" have a tolerance, so vectors of two encoders that differ only in these can be compared, too.

    Attributes:
        name: Name of the encoder's type.
        settings: Settings that the vectors depend on. JSON can hold them. "precision" is left out if it is "fp32".

    >>> str(Fingerprint("bm25", {"language": "english"}))
    'bm25 1b3e695c8bfa'
    >>> exact = Fingerprint("dense", {"model": "1f3a"})
    >>> fast = Fingerprint("dense", {"model": "1f3a", "precision": "bf16"})
    >>> exact.takes_queries(fast), exact.takes_documents(fast), fast.takes_documents(exact)
    (True, False, True)
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for the name and the settings."""
        raw = json.dumps([self.name, self.settings], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name} {self.digest}"

    @property
    def tolerance(self) -> float | None:
        """Cosine that the precision may cost: 0 for fp32, .001 for bf16. None for int8, which has no limit."""
        return _TOLERANCES.get(str(self.settings.get("precision", "fp32")))

    def takes_queries(self, other: Fingerprint) -> bool:
        """Whether queries of another encoder may search an index with this fingerprint."""
        close = self.tolerance is not None and other.tolerance is not None
        return self.digest == other.digest or (close and self._without_precision() == other._without_precision())

    def takes_documents(self, other: Fingerprint) -> bool:
        """Whether an index with this fingerprint may store vectors of another encoder. They must be as precise."""
        return self.takes_queries(other) and (other.tolerance or 0) <= (self.tolerance or 0)

    def _without_precision(self) -> str:
        settings = {name: value for name, value in self.settings.items() if name != "precision"}
        return Fingerprint(self.name, settings).digest

    def difference(self, other: Fingerprint) -> str:
        """Describe the settings that differ, for error messages."""
        ours, theirs = ({"precision": "fp32", **one.settings} for one in (self, other))
        keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        return ", ".join(f"{key}: {ours.get(key)!r} against {theirs.get(key)!r}" for key in keys)


@dataclass(frozen=True, slots=True)
class RetrieverSchema:
    """Description of one retriever that an index stores.

    Attributes:
        kind: Kind of the retriever. With `"text"`, batches have sparse vectors without terms, and queries are
            `TextQuery`.
        fingerprint: Fingerprint of the encoder.
        encoder: Arguments from which `hs.open` makes the encoder again: `{"type": registered name, **constructor
            arguments}`. None for an encoder that only the caller can make.
        dimensions: Number of dimensions of dense vectors or multi-vectors, else None.
        metric: Metric of dense vectors, else None.
        weighting: Arguments of `hybridsearch.weighting.BM25Weighting` for a lexical retriever,
            `{"analyzer": ..., "k1": ..., "b": ...}` for a text retriever, else None.
        average_length: Mean document length in tokens that the weights of a lexical retriever were computed with. It is
            used by engines without `Capabilities.live_average`. None if the first documents decide it.
        passages: Whether the retriever reads passages, so that it has one vector for each passage. If not, it reads
            whole documents. All numbers of BM25 (documents, document frequencies, mean length) then count passages.
    """

    kind: Kind
    fingerprint: Fingerprint
    encoder: Mapping[str, Any] | None = None
    dimensions: int | None = None
    metric: Metric | None = None
    weighting: Mapping[str, Any] | None = None
    average_length: float | None = None
    passages: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """Description of an index: its retrievers, and the search settings that `hs.open` uses.

    Attributes:
        retrievers: Description of each retriever, by name.
        settings: Settings of `HybridSearch` (fusion, reranker, candidates). JSON can hold them.
        passages: Settings of the passages of an index that stores passages, else None. JSON can hold them.
    """

    retrievers: Mapping[str, RetrieverSchema]
    settings: Mapping[str, Any] = field(default_factory=dict)
    passages: Mapping[str, Any] | None = None

    @property
    def version(self) -> int:
        """Version of the layout: 2 with passages, else 1. An index with a newer version cannot be opened."""
        return 1 if self.passages is None else 2

    def to_json(self) -> dict[str, Any]:
        """Convert the schema to a dict that JSON can hold. `from_json` converts it back."""
        passages = {} if self.passages is None else {"passages": dict(self.passages)}
        return {
            "version": self.version,
            "settings": dict(self.settings),
            **passages,
            "retrievers": {
                name: {
                    "kind": r.kind,
                    "fingerprint": {"name": r.fingerprint.name, "settings": dict(r.fingerprint.settings)},
                    "encoder": None if r.encoder is None else dict(r.encoder),
                    "dimensions": r.dimensions,
                    "metric": r.metric,
                    "weighting": None if r.weighting is None else dict(r.weighting),
                    "average_length": r.average_length,
                    **({"passages": True} if r.passages else {}),
                }
                for name, r in self.retrievers.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Make a schema from the dict that `to_json` made.

        Raises:
            IndexCorruptedError: `data` is not a schema, or it has a newer version.
        """
        try:
            if data["version"] > 2:
                raise IndexCorruptedError(
                    f"The index has schema version {data['version']}, and this hybridsearch reads up to 2: "
                    "upgrade hybridsearch, or index the documents again."
                )
            retrievers = {name: _retriever_from_json(r) for name, r in _mapping(data["retrievers"]).items()}
            passages = _mapping(data["passages"]) if data["version"] == 2 else None
            if passages is None and any(r.passages for r in retrievers.values()):
                raise ValueError("a retriever reads passages that the index does not have")
            return cls(retrievers, _mapping(data["settings"]), passages)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise IndexCorruptedError(
                f"The schema of the index is not readable ({error!r}): index the documents again."
            ) from error


def _retriever_from_json(data: Mapping[str, Any]) -> RetrieverSchema:
    optional = {name: None if data[name] is None else _mapping(data[name]) for name in ("encoder", "weighting")}
    fingerprint = Fingerprint(data["fingerprint"]["name"], _mapping(data["fingerprint"]["settings"]))
    average = data.get("average_length")
    known = data["kind"] in get_args(Kind) and data["metric"] in (None, *get_args(Metric))
    numbers = [(data["dimensions"], int), (average, int | float)]
    reads_passages = data.get("passages", False)
    known = known and isinstance(reads_passages, bool)
    known = known and all(
        n is None or (isinstance(n, kind) and n is not True and 0 <= n < 2**31) for n, kind in numbers
    )
    if not known or not isinstance(fingerprint.name, str):
        raise TypeError(f"unknown values in {dict(data)!r:.200}")
    return RetrieverSchema(
        data["kind"],
        fingerprint,
        dimensions=data["dimensions"],
        metric=data["metric"],
        average_length=average,
        passages=reads_passages,
        **optional,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.80} is no mapping")
    return value


def check_batch(batch: EncodedBatch, schema: Schema) -> None:
    """Check that a batch fits the schema of an index, and that all engines understand it alike.

    Raises:
        InvalidArgumentError: The batch does not fit, an id or a term comes twice, or a vector for the metric `"cosine"`
            does not have length 1.
    """
    if set(batch.vectors) != set(schema.retrievers):
        raise InvalidArgumentError(
            f"The batch has vectors of {_names(batch.vectors)}, but the index has the retrievers "
            f"{_names(schema.retrievers)}: encode with exactly these."
        )
    if (batch.passages is None) != (schema.passages is None):
        raise InvalidArgumentError(
            f"The batch has {'no ' if batch.passages is None else ''}passages, and the index has "
            f"{'no passages' if schema.passages is None else 'passages'}: both must have them, or none."
        )
    for name, retriever in schema.retrievers.items():
        vectors = batch.vectors[name]
        if len(vectors) != (len(batch.passages or ()) if retriever.passages else len(batch)):
            reads = "passages" if retriever.passages else "whole documents"
            raise InvalidArgumentError(
                f"Retriever {name!r} reads {reads}, but it has {number_of(len(vectors), 'vector')} for "
                f"{number_of(len(batch), 'document')} and {number_of(len(batch.passages or ()), 'passage')}."
            )
        if not isinstance(vectors, _TYPES.get(retriever.kind, SparseVectors)):
            raise InvalidArgumentError(f"Retriever {name!r} is {retriever.kind}, but got {type(vectors).__name__}.")
        if isinstance(vectors, MultiVectors) and vectors.array.shape[1] != retriever.dimensions:
            raise InvalidArgumentError(
                f"Retriever {name!r} has token vectors of {retriever.dimensions} dimensions, but got "
                f"{vectors.array.shape[1]}."
            )
        if isinstance(vectors, DenseVectors):
            given = (int(vectors.array.shape[1]), vectors.metric)
            if given != (retriever.dimensions, retriever.metric):
                raise InvalidArgumentError(
                    f"Retriever {name!r} has vectors of {retriever.dimensions} dimensions compared by "
                    f"{retriever.metric}, but got {given[0]} dimensions and {given[1]}."
                )
        _check_content(name, vectors)
    ids = {document.id for document in batch.documents}
    if len(ids) != len(batch):
        seen: set[str] = set()
        twice = next(d.id for d in batch.documents if d.id in seen or seen.add(d.id))  # type: ignore[func-returns-value]
        raise InvalidArgumentError(f"The id {twice!r} comes twice in one batch: keep the last document of each id.")


def _check_content(name: str, vectors: Vectors) -> None:
    """Check what engines would understand differently: lengths for cosine, and terms that come twice."""
    if isinstance(vectors, DenseVectors) and vectors.metric == "cosine":
        check_lengths(name, vectors.array)
    elif isinstance(vectors, SparseVectors):
        terms, matrix = vectors.vocabulary.terms, vectors.matrix
        if len(vectors.vocabulary.index) < len(terms):
            twice = next(term for column, term in enumerate(terms) if vectors.vocabulary.index[term] != column)
            raise InvalidArgumentError(f"The vocabulary of retriever {name!r} has the term {twice!r} twice.")
        if not matrix.has_canonical_format:
            once = matrix.copy()
            once.sum_duplicates()
            if once.nnz < matrix.nnz:
                raise InvalidArgumentError(
                    f"The sparse vectors of retriever {name!r} have a term twice in one row: call sum_duplicates()."
                )


def check_lengths(name: str, array: NDArray[np.float32]) -> None:
    """Check that vectors for the metric `"cosine"` have length 1 or are zero. They may be rounded to 16 bits.

    Args:
        name: Name of the retriever, for the message.
        array: Vectors of documents or queries, of shape (vectors, dimensions).

    Raises:
        InvalidArgumentError: A vector has another length.
    """
    squares = np.einsum("ij,ij->i", array, array)
    others = np.flatnonzero((np.abs(squares - 1) > _ROUNDING) & (squares > 0))
    if others.size:
        length = np.linalg.norm(array[others[0]].astype(np.float64))
        raise InvalidArgumentError(
            f"Retriever {name!r} has a vector of length {length:.4g}, but with the metric 'cosine' every vector has "
            "length 1: let the encoder divide each vector by its length, or choose the metric 'dot'."
        )


def check_schema(schema: Schema, backend: Backend) -> None:
    """Check that an engine can store the retrievers of a schema.

    Raises:
        BackendError: The engine cannot store one of the retrievers, or passages.
        InvalidArgumentError: JSON cannot hold the schema.
    """
    try:
        json.dumps(schema.to_json())
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"An index cannot store these settings ({error}): to_json of a fusion or reranker, and the schema of an "
            "encoder, may only have strings, numbers, lists and dicts."
        ) from error
    if schema.passages is not None and not backend.capabilities.passages:
        raise BackendError("The engine stores no passages: leave out passages (--passages), or choose another engine.")
    kinds = backend.capabilities.kinds
    lacking = [name for name, of_retriever in schema.retrievers.items() if of_retriever.kind not in kinds]
    if lacking:
        rest = [name for name in schema.retrievers if name not in lacking]
        way_out = f"leave them out with retrievers={rest!r} (--retrievers {','.join(rest)})"
        instead = {
            "text": ", or use hs.BM25() for BM25",
            "multi_vector": ", or use hs.LateInteraction as the reranker (--rerank late=MODEL)",
        }
        others = "".join(dict.fromkeys(instead.get(schema.retrievers[name].kind, "") for name in lacking))
        raise BackendError(
            f"The engine stores {', '.join(sorted(kinds))} retrievers only, not "
            f"{', '.join(f'{name!r} ({schema.retrievers[name].kind})' for name in lacking)}: "
            f"{way_out if rest else 'choose another engine'}{others}."
        )


_TYPES: Mapping[Kind, type[Vectors]] = {"dense": DenseVectors, "multi_vector": MultiVectors}


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"


@dataclass(frozen=True, slots=True)
class Request:
    """Request to one retriever for its best documents.

    Attributes:
        retriever: Name of the retriever.
        query: Vector or text of the query.
        k: Number of documents.
        filter: Filter that the documents must pass. None for all documents.
        passages: Number of passages to list for each document in `Ranking.passages`. 0 lists none. A retriever that
            reads whole documents ignores it.
        exact: Whether the search must miss no document, also if the backend searches this kind approximately. Default
            False. A backend without `Capabilities.exact_on_request` ignores it.
    """

    retriever: str
    query: QueryVector
    k: int
    filter: Filter | None = None
    passages: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Abilities and precision of a backend. Tests and messages depend on them, and never on an engine's name.

    Attributes:
        kinds: Kinds of retrievers that the backend stores. An index with another kind is refused.
        filters: Whether `search` and `count` can filter. If not, a filter is refused.
        delete: Whether documents can be deleted. If not, `delete` is refused.
        explain: Whether `explain` works. If not, explanations have no terms.
        scan: Whether `scan` works. If not, the index cannot be copied.
        persistent: Whether the index is still there after the process ends.
        approximate: Kinds whose search may miss a document. The set is empty for an exact engine.
        least_candidates: Least number of candidates that an approximate search keeps, by kind. A ranking of fewer
            documents is the beginning of the ranking of so many. A kind that is left out has no such number.
        exact_on_request: Whether a request with `Request.exact` is answered exactly, by the engine's own exact search.
            `hs.recall` compares both answers.
        finds_more: Sentence by approximate kind that says which option of the backend finds more, and what its value is
            now, for people. An evaluation keeps the answers of each value apart.
        score_tolerance: Relative error of a score by kind, compared with float64 arithmetic on the same vectors.
        atomic_batches: Whether batches appear at once: a search sees all of a batch or nothing of it, and all its
            requests see the same state. If not, the documents of a batch appear one after the other.
        live_average: Whether lexical scores use the present mean document length of the collection. If not, they use
            `RetrieverSchema.average_length`. The idf is up to date in both cases.
        passages: Whether the backend stores passages. If not, an index with passages is refused.
    """

    kinds: frozenset[Kind] = frozenset({"lexical", "sparse", "dense"})
    filters: bool = True
    delete: bool = True
    explain: bool = True
    scan: bool = True
    persistent: bool = False
    approximate: frozenset[Kind] = frozenset()
    least_candidates: Mapping[Kind, int] = field(default_factory=dict)
    exact_on_request: bool = False
    finds_more: Mapping[Kind, str] = field(default_factory=dict)
    score_tolerance: Mapping[Kind, float] = field(
        default_factory=lambda: {"lexical": 1e-6, "sparse": 1e-6, "dense": 1e-6, "multi_vector": 1e-6}
    )
    atomic_batches: bool = True
    live_average: bool = True
    passages: bool = False


@runtime_checkable
class Backend(Protocol):
    """One index in one engine, as hybridsearch uses it.

    `hybridsearch.places.connect` makes a backend, without any effect on the engine. The first call is `open`, and then
    `create` if there is no index. Methods never change their arguments. Many threads may search while one thread
    writes. No method is called after `close`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Abilities and precision of the backend."""
        ...

    def open(self) -> Schema | None:
        """Open the index at the backend's place. It may be called again.

        Returns:
            The schema of the index. None if there is no index.
        """
        ...

    def create(self, schema: Schema) -> None:
        """Make an empty index.

        Raises:
            IndexExistsError: There is an index already.
        """
        ...

    def upsert(self, batch: EncodedBatch) -> None:
        """Store documents. A document replaces the stored document that has the same id.

        Storing a batch twice changes nothing.

        Args:
            batch: Documents with vectors for exactly the retrievers of the schema.

        Raises:
            BulkIndexError: The engine refused some documents. All others are stored. After any other error, an engine
                with atomic batches has stored nothing of the batch.
            InvalidArgumentError: The batch does not fit the schema.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents by id. Unknown ids are ignored.

        Returns:
            Number of documents that were removed.
        """
        ...

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """Read documents by id.

        Returns:
            One document for each id, in the order of `ids`. None for an unknown id.
        """
        ...

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests in one round trip.

        Equal scores are ordered by document id, also at the cut. Lexical and sparse retrievers return only documents
        with a score above 0. A document whose dense vector is all zero is never a hit, nor is one without
        multi-vectors. A query whose dense vectors are all zero has no hits.

        The score of a document is that of its best passage if the retriever reads passages. Its passages with a score
        above 0 (dense: with a vector that is not all zero, multi-vectors: with a vector) can be listed, see
        `Request.passages`.

        Returns:
            One ranking for each request, in the order of `requests`.

        Raises:
            InvalidArgumentError: A retriever is unknown.
            FilterError: One of the filter's `checks` fails in the index.
        """
        ...

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """Find the matched terms of documents. Only lexical and sparse retrievers have terms.

        Returns:
            For each id, the part of the score that each matched term adds. The parts sum to the score. For a retriever
            that reads passages, they are those of the best passage. An unknown id, or a document without a matched
            term, has an empty dict.
        """
        ...

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """Read all documents with their vectors as they were stored, to copy them to another backend."""
        ...

    def count(self, filter: Filter | None = None) -> int:
        """Count all documents, or the documents that a filter allows.

        Raises:
            FilterError: One of the filter's `checks` fails in the index.
        """
        ...

    def refresh(self) -> None:
        """Make all earlier changes visible to searches. A persistent index has also written them to its storage."""
        ...

    def close(self) -> None:
        """Release files, locks and connections. It may be called again."""
        ...


@runtime_checkable
class Reopened(Backend, Protocol):
    """A backend that can read the changes of other processes: to the documents, or to the index as a whole."""

    def reopen(self) -> Schema | None:
        """Open the index that is at the backend's place now.

        Searches that have begun use the old state. If nothing has changed, the call costs next to nothing.

        Returns:
            The schema of the index. None if there is no index.
        """
        ...


@runtime_checkable
class AsyncBackend(Backend, Protocol):
    """A backend with an asynchronous client, which `HybridSearch.asearch` uses in place of threads."""

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests as `search` does. Cancelling the call frees its connection."""
        ...

    async def aclose(self) -> None:
        """Close the backend, and the connections that `asearch` opened in this event loop."""
        ...


@runtime_checkable
class Immediate(Backend, Protocol):
    """A backend that stores a few documents and refreshes with fewer requests than `upsert` and `refresh`."""

    def upsert_now(self, batch: EncodedBatch) -> None:
        """Store a batch as `upsert` does, and then `refresh`.

        Args:
            batch: Documents with vectors for exactly the retrievers of the schema.

        Raises:
            BulkIndexError: The engine refused some documents. All others are stored, but searches may not see them yet.
            InvalidArgumentError: The batch does not fit the schema.
        """
        ...


@runtime_checkable
class Explainer(Backend, Protocol):
    """A backend that explains the hits of several retrievers in one round trip."""

    def explain_all(self, requests: Sequence[Request], ids: Sequence[Sequence[str]]) -> list[list[dict[str, float]]]:
        """Find the matched terms of documents, as `explain` does, for several requests.

        Args:
            requests: Requests to lexical or sparse retrievers.
            ids: Ids of the documents to explain, for each request.

        Returns:
            What `explain` returns for each request, in order.
        """
        ...


@runtime_checkable
class Loader(Backend, Protocol):
    """A backend that loads many batches faster than `upsert` stores them one after the other."""

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """Store all batches as `upsert` does, several at a time and with bounded memory, and then `refresh`.

        `fetch` may be called while the next batch is read. If the backend changes settings for the load (refreshing,
        replicas), it restores them at the end, also after an error.

        Args:
            batches: Batches to store. No id is in two of them.

        Raises:
            BulkIndexError: The engine refused some documents. All others are stored. The error comes at the end.
        """
        ...


@runtime_checkable
class Finisher(Loader, Protocol):
    """A backend in which an interrupted `load` leaves something to do after all its documents are stored."""

    def finish_load(self) -> None:
        """Do what an interrupted `load` has not done. `HybridSearch.index` calls this after several batches."""
        ...


@runtime_checkable
class Selector(Backend, Protocol):
    """A backend that can list and delete the documents that a filter allows.

    Without these methods, `HybridSearch` reads all documents with `scan` and deletes by id.
    """

    def list_documents(
        self, filter: Filter | None, order: Order, after: Key | None = None, limit: int | None = None
    ) -> Iterator[tuple[Key, Document]]:
        """Read documents in an order, without their vectors and with bounded memory.

        Documents that are added, changed or deleted meanwhile may come or not. No document comes twice.

        Args:
            filter: Filter that the documents must pass. None for all documents.
            order: Order of the documents. `hybridsearch.listing` defines it, and has helpers.
            after: Place in the order. Only documents after it come. None begins at the first document.
            limit: Number of documents. None for no limit.

        Returns:
            Each document with its place (`order.key(document)`), in order.

        Raises:
            FilterError: One of the filter's `checks` fails in the index. It may come with the first document.
        """
        ...

    def delete_by_filter(self, filter: Filter) -> int:
        """Remove the documents that a filter allows, with one request to the engine if it can.

        Returns:
            Number of documents that were removed.

        Raises:
            FilterError: One of the filter's `checks` fails in the index. Nothing is removed.
        """
        ...


class OldIndex(str):
    """Name of the index that an alias pointed to before.

    Attributes:
        kept_for: Other aliases that point to the index, so that it was kept although it should have been deleted.
    """

    __slots__ = ("kept_for",)
    kept_for: tuple[str, ...]

    def __new__(cls, name: str, kept_for: Iterable[str] = ()) -> OldIndex:
        old = super().__new__(cls, name)
        old.kept_for = tuple(kept_for)
        return old


@runtime_checkable
class Aliased(Backend, Protocol):
    """A backend whose index can have an alias, so that a new index can replace an old one."""

    def publish(self, alias: str, drop_old: bool = True) -> str | None:
        """Point an alias to this index, in one step: each search uses either the old index or the new one.

        Args:
            alias: Name of the alias.
            drop_old: Whether to delete the index that the alias pointed to before. If another alias points to it, it
                is kept.

        Returns:
            Name of the index that the alias pointed to before, as an `OldIndex` if it was kept for other aliases. None
            if there was no such index.

        Raises:
            IndexExistsError: `alias` is the name of an index.
        """
        ...


@runtime_checkable
class Vectored(Backend, Protocol):
    """A backend that reads the vectors of single documents."""

    def fetch_vectors(self, ids: Sequence[str], retriever: str) -> EncodedBatch:
        """Read documents with the vectors of one retriever, by id.

        Returns:
            The documents in the order of `ids`, as `scan` gives them, with the vectors of this retriever only. Unknown
            ids are left out.

        Raises:
            InvalidArgumentError: The retriever is unknown.
        """
        ...


@runtime_checkable
class Counted(Backend, Protocol):
    """A backend that counts the documents that have a term. `hs.RM3` needs it, because it leaves out frequent terms."""

    def document_frequencies(self, retriever: str, terms: Sequence[str]) -> tuple[Sequence[int], int]:
        """Count the documents that have each term.

        Args:
            retriever: Name of a lexical retriever.
            terms: Distinct terms.

        Returns:
            The number of documents that have each term, in the order of `terms`, and the number of all documents. If
            the retriever reads passages, both count passages. Unknown terms have 0.

        Raises:
            InvalidArgumentError: The retriever is unknown, or it is not lexical.
        """
        ...


@runtime_checkable
class Lister(Backend, Protocol):
    """A backend that lists the passages of a few documents much faster than the passages of all hits of a search.

    If `HybridSearch` shows only some of the candidates, or if a retriever reads whole documents, it searches without
    passages. It then reads the documents that it needs by `fetch_passages`.
    """

    def fetch_passages(
        self, requests: Sequence[Request], ids: Sequence[Sequence[str]]
    ) -> tuple[Mapping[str, Document], list[Mapping[str, Sequence[PassageScore]] | None]]:
        """Read documents with the passages that requests find in them, in one round trip.

        A document and its passages are of the same version. If a document is replaced during the call, its passages
        may be left out.

        Args:
            requests: Requests that `search` has answered. `Request.passages` is the number of passages to list.
            ids: Ids of the documents to read, for each request. They may be documents that its `k` leaves out.

        Returns:
            The documents by id, and the `Ranking.passages` of each request. A document that is not there is left out.
            The passages of a document that is no hit any more are left out.

        Raises:
            InvalidArgumentError: A retriever is unknown.
        """
        ...


@runtime_checkable
class Described(Backend, Protocol):
    """A backend that can describe its engine."""

    def describe(self) -> Mapping[str, Any]:
        """Collect facts for people by name, such as versions, plugins and sizes.

        JSON can hold the facts. They have no secrets. The backend must be open.
        """
        ...
