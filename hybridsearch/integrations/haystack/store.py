"""The document store of Haystack in an index."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from haystack import Document, default_from_dict, default_to_dict
from haystack.core.errors import SerializationError
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret

from hybridsearch.arguments import whole_number
from hybridsearch.backends import Backend, RetrieverSchema
from hybridsearch.documents import Document as StoredDocument
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import IndexNotFoundError, InvalidArgumentError
from hybridsearch.forks import Lock, after_fork
from hybridsearch.fusion import Fusion
from hybridsearch.integrations.asking import dense_retriever, is_indexed, log_notes
from hybridsearch.integrations.haystack.filters import ALL, filter_of, filtering
from hybridsearch.integrations.haystack.parts import from_plain, secret_value, to_plain
from hybridsearch.integrations.haystack.records import RECORD, EmbeddingsEncoder, document_of, stored_of, written
from hybridsearch.opening import open as open_index
from hybridsearch.passages import Passages
from hybridsearch.places import place_name
from hybridsearch.rerank import Reranker
from hybridsearch.search import CONFIGURED, HybridSearch

_log = logging.getLogger(__package__)


class _Index:
    """An index that stores open at their first use.

    Attributes:
        lock: Lock of those who open the index or write to it.
        search: The open index. None if it is closed.
        dense: What `HybridSearchDocumentStore.dense_retriever` found.
    """

    def __init__(self) -> None:
        self.search: HybridSearch | None = None
        self.dense: tuple[str, RetrieverSchema] | None = None
        self._make_lock()
        after_fork(self, _Index._make_lock)

    def _make_lock(self) -> None:
        self.lock = threading.RLock()


_SHARED: Final[WeakValueDictionary[str, _Index]] = WeakValueDictionary()
_SHARING: Final = Lock()


class HybridSearchDocumentStore:
    """A Haystack document store in an index. Its retrievers ask all retrievers of the index.

    Documents come back as they were written, in the order in which they were written. The index is opened, or made, at
    the first call that needs it. A store in which nothing is written is empty. A search in it logs a warning, because
    the place may be mistyped. Stores in one process that have the same arguments share the open index, unless it is in
    RAM or `to_dict` is not possible.

    Filters mean what they mean in Haystack's own store, with these differences:

    - A field with a list matches if one of its elements matches. `"in"` finds an element of a list.
    - A boolean equals only a boolean. Texts that Unicode treats as equal are equal.
    - `>`, `>=`, `<` and `<=` compare numbers, and dates in ISO 8601 form. Values of another kind do not match.
    - Some dates and times have an offset from UTC, and others have none. There is a FilterError if the field has both
      kinds, or if the filter has another kind than the field.
    - A filter selects by `id` and by metadata. Other fields of a document, and `meta.id`, are a FilterError.

    `to_dict` has the arguments, and no documents. A `Secret` of an environment variable is written as the name of the
    variable. A token, or a password or key in plain text, is an error.

    Args:
        place: Place of the index: `"memory"`, a folder, or an engine's URL. A `Secret` holds a URL with a password. A
            `Backend` cannot be written to YAML.
        retrievers: Encoders by name. None for those of the existing index, or `{"bm25": hs.BM25()}` for a new one. An
            `EmbeddingsEncoder` takes the embeddings of documents.
        fusion: Method that merges the rankings, as in `HybridSearch`.
        reranker: Reranker of each search. None for the reranker that the existing index was made with, if any.
        passages: Passages that the retrievers read, as in `HybridSearch`. They need `retrievers`. A retriever with an
            `EmbeddingsEncoder` reads whole documents: name it in `Passages.whole`.
        candidates: Number of documents that are read from each retriever, as in `HybridSearch`.
        optional: Names of the optional retrievers, as in `HybridSearch`.
        timeout: Seconds that a retriever may take, as in `HybridSearch`.
        backend_options: Keyword arguments of the backend, such as `{"api_key": Secret.from_env_var("SEARCH_KEY")}`.
        refresh: Time between two looks for changes that other stores and processes made, as in `HybridSearch`.

    Raises:
        InvalidArgumentError: `passages` is given without `retrievers`, or does not name an `EmbeddingsEncoder` in
            `whole`. `retrievers` or `backend_options` is not a mapping. At the first call that needs the index, an
            argument is not allowed, or a `Secret` has no value.

    >>> store = HybridSearchDocumentStore()
    >>> store.write_documents([Document(id="a", content="a wing", meta={"year": 1958}), Document(content="a jet")])
    2
    >>> [document.id for document in store.filter_documents({"field": "meta.year", "operator": "<", "value": 1960})]
    ['a']
    """

    def __init__(
        self,
        place: str | Path | Secret | Backend = "memory",
        *,
        retrievers: Mapping[str, Encoder] | None = None,
        fusion: Fusion | str | Path | None = None,
        reranker: Reranker | None = None,
        passages: Passages | None = None,
        candidates: int | None = None,
        optional: Collection[str] = (),
        timeout: float | Mapping[str, float] | None = None,
        backend_options: Mapping[str, Any] | None = None,
        refresh: float | str | None = None,
    ) -> None:
        if passages is not None and retrievers is None:
            raise InvalidArgumentError("passages needs retrievers: give the encoders of the new index, too.")
        for name, given in (("retrievers", retrievers), ("backend_options", backend_options)):
            if not isinstance(given, Mapping | None):
                raise InvalidArgumentError(f"{name} is a mapping from names to values, or None, not {given!r:.80}.")
        own = {name for name, encoder in (retrievers or {}).items() if isinstance(encoder, EmbeddingsEncoder)}
        if passages is not None and (reads := sorted(own.difference(passages.whole or ()))):
            raise InvalidArgumentError(
                f"The retriever {reads[0]!r} has one embedding for each document, and none for passages: name it in "
                f"whole, as in hs.Passages(whole={sorted(own)!r})."
            )
        self._place, self._retrievers, self._passages = place, retrievers, passages
        self._backend_options = backend_options
        self._settings: dict[str, Any] = {
            "fusion": fusion,
            "reranker": reranker,
            "candidates": candidates,
            "optional": optional,
            "timeout": timeout,
            "refresh": refresh,
        }
        self._found: _Index | None = None

    def __repr__(self) -> str:
        place = self._place if isinstance(self._place, Secret) else place_name(self._place)
        return f"HybridSearchDocumentStore({place!r})"

    def __getstate__(self) -> dict[str, Any]:
        if self._found is not None and self._found.search is not None:
            self._found.search.__reduce__()  # raises BackendError for an index in RAM
        return {**self.__dict__, "_found": None}

    @property
    def hybrid_search(self) -> HybridSearch:
        """The index. The first call opens it."""
        with self._index.lock:
            if self._index.search is None:
                self._index.search = self._open()
            return self._index.search

    def dense_retriever(self) -> tuple[str, RetrieverSchema]:
        """The name and the description of the retriever that gets the embeddings of queries.

        It is the first one with an `EmbeddingsEncoder`, or the first dense retriever if there is none.

        Raises:
            InvalidArgumentError: The index has no dense retriever, or nothing is written yet.
        """
        if self._index.dense is None:  # it is looked up once, because a backend may have to wait for a writer
            self._index.dense = dense_retriever(self.hybrid_search, EmbeddingsEncoder)
        return self._index.dense

    def close(self) -> None:
        """Close the index, also for stores that share it. The next call opens it again. Documents in RAM are lost."""
        if self._found is None:
            return
        with self._found.lock:
            if self._found.search is not None:
                self._found.search.close()
            self._found.search = self._found.dense = None

    def to_dict(self) -> dict[str, Any]:
        """Describe the store by its arguments, as YAML holds them.

        Raises:
            SerializationError: An argument cannot be written to YAML, or it has a password or a key in plain text.
            ValueError: A `Secret` is a token.
        """
        return default_to_dict(self, **self._plain())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HybridSearchDocumentStore:
        """Make a store from what `to_dict` gave."""
        return default_from_dict(cls, {**data, "init_parameters": from_plain(data.get("init_parameters", {}))})

    # Writing and removing documents

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents.

        Args:
            documents: Documents to write. They are not changed.
            policy: What happens to a document whose id is there already, or comes twice. `NONE` and `FAIL` write no
                document at all, and raise an error. `SKIP` keeps the first document. `OVERWRITE` keeps the last one.
                Threads write one after the other. Another process may write the same id meanwhile: then the last
                document stays.

        Returns:
            Number of documents that were written. With `OVERWRITE`, this is the number of all documents.

        Raises:
            ValueError: `documents` is not a list of documents, or the policy is not known.
            DuplicateDocumentError: An id is there already, or comes twice.
            DocumentError: A document is not usable, for example because its metadata has bytes. It is a ValueError.
            EncodingError: An embedding has a wrong length, or is not finite.
        """
        given, policy = _check_documents(documents), DuplicatePolicy(policy)
        start = time.time_ns()
        stored = [stored_of(document, start + number) for number, document in enumerate(given)]
        with self._index.lock:
            if policy == DuplicatePolicy.OVERWRITE:
                self._store({one.id: one for one in stored}.values())
                return len(stored)
            first = {one.id: one for one in reversed(stored)}
            there = self._existing(list(first))
            if policy != DuplicatePolicy.SKIP and (there or len(first) < len(stored)):
                seen: set[str] = set(there)
                twice = next(one.id for one in stored if one.id in seen or seen.add(one.id))  # type: ignore[func-returns-value]
                raise DuplicateDocumentError(
                    f"The id {twice!r:.80} is there already, or comes twice: give another id, or write with "
                    "DuplicatePolicy.OVERWRITE or SKIP. No document was written."
                )
            new = [one for id, one in reversed(first.items()) if id not in there]
            self._store(new)
            return len(new)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents by id.

        Args:
            document_ids: Ids of the documents. Unknown ids are ignored.
        """
        if is_indexed(self.hybrid_search):
            self.hybrid_search.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Remove all documents. The index stays."""
        self._delete(ALL)

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Remove the documents that a filter allows.

        Args:
            filters: Filter of Haystack. An empty filter is not allowed.

        Returns:
            Number of documents that were removed.

        Raises:
            InvalidArgumentError: The filter is empty. `delete_all_documents` removes all documents.
            FilterError: Haystack's error: the filter is not usable.
        """
        return self._delete(_given_filter(filters, "delete_all_documents"))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Change the metadata of the documents that a filter allows. The documents are encoded again.

        Args:
            filters: Filter of Haystack. An empty filter is not allowed.
            meta: Metadata fields to set. The other fields stay.

        Returns:
            Number of documents that were changed.

        Raises:
            InvalidArgumentError: The filter is empty, or `meta` is not a dict.
            FilterError: Haystack's error: the filter is not usable.
            DocumentError: A value of the metadata is not usable.
        """
        filter = _given_filter(filters, "write_documents")
        if not isinstance(meta, Mapping) or RECORD in meta:
            raise InvalidArgumentError(f"meta is a dict of metadata fields without the field {RECORD!r}.")
        with self._index.lock:
            changed = [replace(one, metadata={**one.metadata, **meta}) for one in self._listed(filter)]
            self._store(changed)
        return len(changed)

    # Reading documents

    def count_documents(self) -> int:
        """Count the documents."""
        return self.hybrid_search.count()

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Count the documents that a filter allows.

        Args:
            filters: Filter of Haystack. An empty filter counts all documents.

        Raises:
            FilterError: Haystack's error: the filter is not usable.
        """
        with filtering():
            return self.hybrid_search.count(filter_of(filters))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Read all documents, or those that a filter allows.

        Args:
            filters: Filter of Haystack. None or an empty filter for all documents.

        Returns:
            The documents, as they were written, in the order in which they were written.

        Raises:
            FilterError: Haystack's error: the filter is not usable.
        """
        return [document_of(stored) for stored in sorted(self._listed(filter_of(filters)), key=written)]

    # Metadata. These methods read all documents, or those that a filter allows.

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """List the metadata fields with their types.

        Returns:
            For each field that some document has, `{"type": ...}`: `"keyword"`, `"int"`, `"float"` or `"boolean"`. A
            field with whole and other numbers is `"float"`. A field with values of several types is `"keyword"`.
        """
        found: dict[str, set[str]] = {}
        for meta in self._metas(None):
            for name, value in meta.items():
                if value is not None:
                    found.setdefault(name, set()).add(_TYPES.get(type(value), "keyword"))
        return {name: {"type": _type_of(types)} for name, types in found.items()}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Find the least and the greatest value of a metadata field.

        Args:
            metadata_field: Field, such as `"year"` or `"meta.year"`.

        Returns:
            `{"min": ..., "max": ...}`. Both are None if no document has a number or a text in the field, or if it has
            numbers and texts.
        """
        values = [value for _, value in self._values(metadata_field, None) if isinstance(value, int | float | str)]
        if not values or len({isinstance(value, str) for value in values}) > 1:
            return {"min": None, "max": None}
        return {"min": min(values), "max": max(values)}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """List the different values of a metadata field, ordered by their texts.

        Args:
            metadata_field: Field, such as `"year"` or `"meta.year"`.
            search_term: Part of the text of a value, in upper or lower case. None for all values.
            from_: Number of first values to leave out.
            size: Largest number of values.
            filters: Filter of Haystack. None for all documents.

        Returns:
            The values, and the number of all of them. 1, 1.0, "1" and True are different values.

        Raises:
            InvalidArgumentError: A number is negative.
            FilterError: Haystack's error: the filter is not usable.
        """
        from_, size = whole_number("from_", from_, 0), whole_number("size", size, 0)
        found = dict(self._values(metadata_field, filters))
        wanted = (search_term or "").lower()
        values = sorted(
            (value for value in found.values() if wanted in str(value).lower()),
            key=lambda value: (str(value), type(value).__name__),
        )
        return values[from_ : from_ + size], len(values)

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        """Count the different values of metadata fields.

        Args:
            filters: Filter of Haystack. An empty filter for all documents.
            metadata_fields: Fields, such as `"year"` or `"meta.year"`.

        Returns:
            Number of different values by field, without `meta.`.

        Raises:
            FilterError: Haystack's error: the filter is not usable.
        """
        found: dict[str, set[str]] = {field.removeprefix("meta."): set() for field in metadata_fields}
        for meta in self._metas(filters):
            for field, keys in found.items():
                if (value := _value(meta, field)) is not None:
                    keys.add(_key(value))
        return {field: len(keys) for field, keys in found.items()}

    # Asynchronous twins, which do not block the event loop

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents, as `write_documents` does."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Remove documents, as `delete_documents` does."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_all_documents_async(self) -> None:
        """Remove all documents, as `delete_all_documents` does."""
        await asyncio.to_thread(self.delete_all_documents)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Remove documents, as `delete_by_filter` does."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Change metadata, as `update_by_filter` does."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    async def count_documents_async(self) -> int:
        """Count the documents, as `count_documents` does."""
        return await asyncio.to_thread(self.count_documents)

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Count documents, as `count_documents_by_filter` does."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Read documents, as `filter_documents` does."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """List the metadata fields, as `get_metadata_fields_info` does."""
        return await asyncio.to_thread(self.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """Find the least and the greatest value, as `get_metadata_field_min_max` does."""
        return await asyncio.to_thread(self.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """List the different values, as `get_metadata_field_unique_values` does."""
        arguments = (metadata_field, search_term, from_, size, filters)
        return await asyncio.to_thread(self.get_metadata_field_unique_values, *arguments)

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """Count the different values, as `count_unique_metadata_by_filter` does."""
        return await asyncio.to_thread(self.count_unique_metadata_by_filter, filters, metadata_fields)

    # Private parts

    @property
    def _index(self) -> _Index:
        with _SHARING:
            if self._found is None:
                self._found = self._find()
            return self._found

    def _find(self) -> _Index:
        """The index of this store, and of all stores in this process that have the same arguments."""
        try:
            plain = self._plain()
        except (SerializationError, ValueError):
            return _Index()
        if plain["place"] == "memory":
            return _Index()
        place, options = self._resolved()
        place = str(place) if "://" in str(place) else str(Path(str(place)).absolute())
        key = json.dumps({**plain, "place": place, "backend_options": options}, sort_keys=True, default=str)
        return _SHARED.setdefault(hashlib.sha256(key.encode()).hexdigest(), _Index())

    def _resolved(self) -> tuple[Any, dict[str, Any]]:
        """The place and the options of the backend, with the values of secrets."""
        place = secret_value("place", self._place)
        return place, {name: secret_value(name, value) for name, value in (self._backend_options or {}).items()}

    def _plain(self) -> dict[str, Any]:
        arguments = {
            "place": self._place,
            "retrievers": self._retrievers,
            "passages": self._passages,
            "backend_options": self._backend_options,
            **self._settings,
        }
        return {name: to_plain(name, value) for name, value in arguments.items()}

    def _open(self) -> HybridSearch:
        place, options = self._resolved()
        settings: dict[str, Any] = {**self._settings, "backend_options": options or None}
        if self._retrievers is None:
            try:
                return open_index(place, **{**settings, "reranker": settings["reranker"] or CONFIGURED})
            except IndexNotFoundError:
                pass
        retrievers = {"bm25": BM25()} if self._retrievers is None else self._retrievers
        return HybridSearch(retrievers, place, passages=self._passages, **settings)

    def _store(self, documents: Collection[StoredDocument]) -> None:
        if documents:
            report = self.hybrid_search.index(documents, show_progress_bar=False)
            log_notes(_log, report.notes)

    def _existing(self, ids: list[str]) -> set[str]:
        if not is_indexed(self.hybrid_search):
            return set()
        # `get` also finds a document whose id is another spelling in Unicode.
        found = self.hybrid_search.get(ids)
        return {id for id, one in zip(ids, found, strict=True) if one is not None and one.id == id}

    def _delete(self, filter: dict[str, Any]) -> int:
        with filtering():
            if not self.hybrid_search.count(filter):  # so that there is no warning about a field that is nowhere
                return 0
            return self.hybrid_search.delete(filter=filter)

    def _listed(self, filter: dict[str, Any] | None) -> Iterator[StoredDocument]:
        if is_indexed(self.hybrid_search):
            with filtering():
                yield from self.hybrid_search.documents(filter)

    def _metas(self, filters: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        return (document_of(stored).meta for stored in self._listed(filter_of(filters)))

    def _values(self, field: str, filters: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
        """The values of a field that are there, each with a text that only equal values of one type have."""
        values = (_value(meta, field.removeprefix("meta.")) for meta in self._metas(filters))
        return ((_key(value), value) for value in values if value is not None)


_TYPES: Final[Mapping[type, str]] = {bool: "boolean", int: "int", float: "float"}


def _type_of(types: set[str]) -> str:
    if len(types) == 1:
        return next(iter(types))
    return "float" if types == {"int", "float"} else "keyword"


def _value(meta: Mapping[str, Any], field: str) -> Any:
    """The value of a field, or of a dotted path into nested metadata. None if it is not there."""
    if field in meta:
        return meta[field]
    first, dot, rest = field.partition(".")
    inner = meta.get(first) if dot else None
    return _value(inner, rest) if isinstance(inner, Mapping) else None


def _key(value: Any) -> str:
    """A text that only equal values of one type have."""
    return json.dumps(value, sort_keys=True)


def _check_documents(documents: Any) -> list[Document]:
    if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
        raise InvalidArgumentError(f"documents is a list of Haystack documents, not {documents!r:.80}.")
    given = list(documents)
    for one in given:
        if not isinstance(one, Document):
            raise InvalidArgumentError(f"documents is a list of Haystack documents, but it has {one!r:.80}.")
    return given


def _given_filter(filters: Mapping[str, Any], method: str) -> dict[str, Any]:
    filter = filter_of(filters)
    if filter is None:
        raise InvalidArgumentError(f"The filter is empty: give one, or call {method}.")
    return filter
