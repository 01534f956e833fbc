"""What a search engine must be able to do to hold a hybridsearch index, and how one is reached at its place.

An adapter is one class with the methods of `Backend`. It imports only the contract types: this module,
`documents`, `vectors`, `ranking`, `filters` and `errors`. `hybridsearch.testing` has the tests that it must pass.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from hybridsearch.arguments import shown
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.messages import redacted
from hybridsearch.ranking import Ranking
from hybridsearch.registry import find, registered
from hybridsearch.vectors import DenseVectors, EncodedBatch, Metric, QueryVector

Kind: TypeAlias = Literal["lexical", "sparse", "dense", "text"]
"""What a retriever's vectors are: term frequencies that the backend weighs, weights as they are, dense rows, or none:
the engine analyses and scores `Document.content` itself."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an encoder's vectors depend on: model content, prompts, maximal length, vocabulary, tokenisation.

    Two encoders with equal fingerprints give interchangeable vectors.

    >>> str(Fingerprint("bm25", {"language": "english"}))
    'bm25 1b3e695c8bfa'
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over name and settings."""
        raw = json.dumps([self.name, self.settings], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name} {self.digest}"

    def difference(self, other: Fingerprint) -> str:
        """The settings that differ, for error messages."""
        ours, theirs = self.settings, other.settings
        keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        return ", ".join(f"{key}: {ours.get(key)!r} against {theirs.get(key)!r}" for key in keys)


@dataclass(frozen=True, slots=True)
class RetrieverSchema:
    """What an index remembers of one retriever.

    Attributes:
        kind: "lexical" (term frequencies, weighted by the backend), "sparse" (weights as they are), "dense", or "text"
            (the engine's own analysis and BM25; batches carry sparse vectors without a term, queries are `TextQuery`).
        fingerprint: what its vectors depend on.
        encoder: `{"type": registered name, **constructor arguments}`, from which `hs.open` makes the encoder again;
            None for an encoder that only the caller can make.
        dimensions, metric: of dense vectors, else None.
        weighting: for a lexical retriever, the arguments of `hybridsearch.weighting.BM25Weighting`; for a text
            retriever `{"analyzer": ..., "k1": ..., "b": ...}`; else None.
        average_length: for a lexical retriever in an engine without `Capabilities.live_average`, the mean document
            length in tokens that its weights were frozen at; None lets the first documents decide.
    """

    kind: Kind
    fingerprint: Fingerprint
    encoder: Mapping[str, Any] | None = None
    dimensions: int | None = None
    metric: Metric | None = None
    weighting: Mapping[str, Any] | None = None
    average_length: float | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """What an index remembers: its retrievers, and the search settings that `hs.open` restores.

    Attributes:
        retrievers: by name.
        settings: JSON-able settings of `HybridSearch` (fusion, reranker, candidates).
        version: of this layout; an index with a newer one is refused.
    """

    retrievers: Mapping[str, RetrieverSchema]
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` is its inverse."""
        return {
            "version": self.version,
            "settings": dict(self.settings),
            "retrievers": {
                name: {
                    "kind": r.kind,
                    "fingerprint": {"name": r.fingerprint.name, "settings": dict(r.fingerprint.settings)},
                    "encoder": None if r.encoder is None else dict(r.encoder),
                    "dimensions": r.dimensions,
                    "metric": r.metric,
                    "weighting": None if r.weighting is None else dict(r.weighting),
                    "average_length": r.average_length,
                }
                for name, r in self.retrievers.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Raises IndexCorruptedError where `data` is not a schema or is of a newer version."""
        try:
            if data["version"] > 1:
                raise IndexCorruptedError(
                    f"The index has schema version {data['version']}, and this hybridsearch reads up to 1: "
                    "upgrade hybridsearch, or index the documents again."
                )
            retrievers = {name: _retriever_from_json(r) for name, r in _mapping(data["retrievers"]).items()}
            return cls(retrievers, _mapping(data["settings"]), data["version"])
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
        **optional,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.80} is no mapping")
    return value


def check_batch(batch: EncodedBatch, schema: Schema) -> None:
    """Raises InvalidArgumentError where `batch` does not fit `schema` or has one id twice."""
    if set(batch.vectors) != set(schema.retrievers):
        raise InvalidArgumentError(
            f"The batch has vectors of {_names(batch.vectors)}, but the index has the retrievers "
            f"{_names(schema.retrievers)}: encode with exactly these."
        )
    for name, retriever in schema.retrievers.items():
        vectors = batch.vectors[name]
        if isinstance(vectors, DenseVectors) != (retriever.kind == "dense"):
            raise InvalidArgumentError(f"Retriever {name!r} is {retriever.kind}, but got {type(vectors).__name__}.")
        if isinstance(vectors, DenseVectors):
            given = (int(vectors.array.shape[1]), vectors.metric)
            if given != (retriever.dimensions, retriever.metric):
                raise InvalidArgumentError(
                    f"Retriever {name!r} has vectors of {retriever.dimensions} dimensions compared by "
                    f"{retriever.metric}, but got {given[0]} dimensions and {given[1]}."
                )
    ids = {document.id for document in batch.documents}
    if len(ids) != len(batch):
        seen: set[str] = set()
        twice = next(d.id for d in batch.documents if d.id in seen or seen.add(d.id))  # type: ignore[func-returns-value]
        raise InvalidArgumentError(f"The id {twice!r} comes twice in one batch: keep the last document of each id.")


def check_schema(schema: Schema, backend: Backend) -> None:
    """Raises BackendError if the engine cannot store a retriever, InvalidArgumentError if JSON cannot hold `schema`."""
    try:
        json.dumps(schema.to_json())
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"An index cannot remember these settings ({error}): to_json of a fusion or reranker, and the schema of an "
            "encoder, may only hold texts, numbers, lists and dicts."
        ) from error
    kinds = backend.capabilities.kinds
    lacking = [name for name, of_retriever in schema.retrievers.items() if of_retriever.kind not in kinds]
    if lacking:
        rest = [name for name in schema.retrievers if name not in lacking]
        way_out = f"leave them out with retrievers={rest!r} (--retrievers {','.join(rest)})"
        text = any(schema.retrievers[name].kind == "text" for name in lacking)
        raise BackendError(
            f"The engine stores {', '.join(sorted(kinds))} retrievers only, not "
            f"{', '.join(f'{name!r} ({schema.retrievers[name].kind})' for name in lacking)}: "
            f"{way_out if rest else 'choose another engine'}{', or use hs.BM25() for BM25' if text else ''}."
        )


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one retriever: the best `k` documents for `query` among those that `filter` lets through."""

    retriever: str
    query: QueryVector
    k: int
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do and how exactly; tests and messages follow this, never an engine's name.

    Attributes:
        kinds: the retriever kinds it stores. An index with another kind is refused.
        filters: whether `search` and `count` honour a filter. If not, a filter is refused.
        delete: whether documents can be deleted. If not, `delete` is refused.
        explain: whether `explain` works. If not, explanations have no terms.
        scan: whether `scan` works. If not, the index cannot be copied.
        persistent: whether the index outlives the process.
        approximate: the kinds whose search may miss a document; empty for exact engines.
        score_tolerance: by kind, the relative error of a score against float64 arithmetic on the same vectors.
        atomic_batches: whether a search sees all of an upserted batch or nothing of it, and one state in all its
            answers; without it, batches appear document by document.
        live_average: whether lexical scores follow the mean document length of the collection as it is; without it
            they keep the `RetrieverSchema.average_length` of the load, while idf follows all the same.
    """

    kinds: frozenset[Kind] = frozenset({"lexical", "sparse", "dense"})
    filters: bool = True
    delete: bool = True
    explain: bool = True
    scan: bool = True
    persistent: bool = False
    approximate: frozenset[Kind] = frozenset()
    score_tolerance: Mapping[Kind, float] = field(
        default_factory=lambda: {"lexical": 1e-6, "sparse": 1e-6, "dense": 1e-6}
    )
    atomic_batches: bool = True
    live_average: bool = True


@runtime_checkable
class Backend(Protocol):
    """One index in one engine. Constructed without side effects by `connect`; then `open`, or `create`.

    Inputs are never changed. Many threads may search while one writes. After `close` a backend is not used again.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def open(self) -> Schema | None:
        """The schema of the index at this place, or None if there is none (then `create` makes one). Idempotent."""
        ...

    def create(self, schema: Schema) -> None:
        """Make an empty index. Raises IndexExistsError if there is one."""
        ...

    def upsert(self, batch: EncodedBatch) -> None:
        """Add documents, replacing those with the same id. Idempotent.

        Stores all of them, or raises: BulkIndexError names those that were refused where the others are stored, any
        other error of an engine with atomic batches leaves what was stored before.

        The batch has vectors for exactly the schema's retrievers, else InvalidArgumentError.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; unknown ids are ignored. Returns how many were there."""
        ...

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents, in the order of `ids`; None for an unknown id."""
        ...

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests in one round trip, in order.

        Ties are ordered by id at the cut. Lexical and sparse retrievers return only documents with a score above 0;
        documents and queries with an all-zero dense vector are no hits. An unknown retriever is InvalidArgumentError.
        If one of the filter's `checks` does not hold in the index, `search` and `count` raise its FilterError.
        """
        ...

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        """For each id, what each matched term adds to its raw score (the values sum to it); lexical and sparse only.

        An unknown id, or one without a matched term, gets an empty dict.
        """
        ...

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        """All documents with their vectors as they were upserted, for copying to another backend."""
        ...

    def count(self, filter: Filter | None = None) -> int:
        """How many documents there are, or how many of them `filter` lets through."""
        ...

    def refresh(self) -> None:
        """What was upserted and deleted before is searchable (and, where persistent, durable) after this."""
        ...

    def close(self) -> None:
        """Release files, locks and connections. Idempotent."""
        ...


@runtime_checkable
class Reopened(Backend, Protocol):
    """A backend that can see what other processes changed: the documents, or the index at its place."""

    def reopen(self) -> Schema | None:
        """Use the index that is at this place now. Returns its schema, or None if there is none.

        Searches under way keep what they began with. The call costs next to nothing if nothing has changed.
        """
        ...


@runtime_checkable
class AsyncBackend(Backend, Protocol):
    """A backend that answers without a thread for each call; `HybridSearch.asearch` uses it."""

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        """`search`. Cancelling it frees its connection."""
        ...

    async def aclose(self) -> None:
        """`close`, also of what `asearch` has opened in this event loop."""
        ...


@runtime_checkable
class Loader(Backend, Protocol):
    """A backend that takes many batches faster than one `upsert` after the other."""

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        """`upsert` each batch, with several on the way at once and bounded memory, then `refresh`.

        No id is in two of the batches. `fetch` may be called while the next one is read.

        What is relaxed in the meantime (refreshing, replicas) is as before afterwards, also after an error. Refused
        documents are reported at the end, in one BulkIndexError.
        """
        ...


@runtime_checkable
class Aliased(Backend, Protocol):
    """A backend whose index can be reached by another name too, for a new index in the place of an old one."""

    def publish(self, alias: str, drop_old: bool = True) -> str | None:
        """Let the name `alias` mean this index, in one step: no search finds neither or both.

        Returns:
            The index that `alias` meant until now, deleted with `drop_old`; None if there was none.

        Raises:
            IndexExistsError: `alias` is the name of an index itself.
        """
        ...


@runtime_checkable
class Described(Backend, Protocol):
    """A backend that can say what its engine is and has."""

    def describe(self) -> Mapping[str, Any]:
        """JSON-able facts by name, for people: versions, plugins, figures. Without secrets; works once opened."""
        ...


def connect(target: str | Path | Backend, options: Mapping[str, Any] | None = None) -> Backend:
    """The backend for `target`, not yet opened.

    Args:
        target: "memory", a folder, a URL such as "opensearch://host:9200/name", or a ready `Backend`.
        options: keyword arguments of the adapter's constructor.

    Raises:
        InvalidArgumentError: the URL's scheme is unknown, or the adapter does not know an option.
        MissingExtraError: the adapter's package is not installed.
    """
    if not isinstance(options, Mapping | None) or not all(isinstance(name, str) for name in options or ()):
        raise InvalidArgumentError(
            f"The options of a backend are a mapping, such as {{'shards': 3}}, not {shown(options)}."
        )
    options = dict(options or {})
    if not isinstance(target, str | Path):
        if isinstance(target, type) or not isinstance(target, Backend):
            given = f"the class {target.__name__}" if isinstance(target, type) else type(target).__name__
            raise InvalidArgumentError(f"A backend is 'memory', a folder, a URL or a Backend, not {given}.")
        if options:
            raise InvalidArgumentError("Options are for a backend given by name; set them on the object itself.")
        return target
    location = str(target)
    if not location.strip():
        raise InvalidArgumentError("The backend's place is empty: give 'memory', a folder or a URL.")
    if "\0" in location:
        raise InvalidArgumentError(f"The place of the index is {redacted(location)!r:.80}; it cannot hold a zero byte.")
    head, colon, rest = location.partition(":")
    scheme = head.partition("+")[0]
    if not rest.startswith("//"):
        if colon and scheme in registered("backend"):  # a pathlib.Path makes "://" to ":/"
            raise InvalidArgumentError(
                f"A URL that begins with {head + colon!r} lacks the '//': write {head}://host/name as text, or put ./ "
                "before the name of a folder."
            )
        scheme = "memory"
    factory = find("backend", scheme)
    _check_options(scheme, factory, options)
    backend: Backend = factory(None if location == "memory" else location, **options)
    return backend


def place_name(place: str | Path | Backend) -> str:
    """A place as messages show it: a folder, a URL without passwords, or the class of a `Backend`."""
    return redacted(place) if isinstance(place, str | Path) else type(place).__name__


def _check_options(scheme: str, factory: Callable[..., Backend], options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(factory).parameters.values())
    known = [p.name for p in parameters[1:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unknown = [name for name in options if name not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InvalidArgumentError(f"The {scheme} backend has no option {unknown[0]!r}; {has}.")
