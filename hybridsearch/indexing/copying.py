"""Copies an index with its vectors to another place, and publishes an index under an alias."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hybridsearch import arguments
from hybridsearch.arguments import names, whole_number
from hybridsearch.backends import Aliased, Backend, OldIndex, Schema
from hybridsearch.errors import BackendError, IndexExistsError, IndexNotFoundError, InvalidArgumentError
from hybridsearch.fusion.files import restricted
from hybridsearch.indexing.ingest import is_empty
from hybridsearch.indexing.transfer import DEPTH, RetrieverCheck, Transfer
from hybridsearch.messages import number_of, redacted, warn
from hybridsearch.places import connect, place_name

_FIRST = 256
"""Number of documents of the destination that must be in the source, if a copy is resumed."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """Report of a copy, with a comparison of the two indexes.

    Attributes:
        source: Place of the source, without passwords.
        destination: Place of the copy, without passwords.
        copied: Number of documents that were stored.
        unchanged: Number of documents that were in the destination already, with the same content.
        documents: Number of documents that the destination has now.
        checks: Comparison of the rankings of each retriever.
        differences: Sentences about differences that the precision of the engines does not explain. It is empty if the
            copy is right.
        seconds: Duration of the copy.
    """

    source: str
    destination: str
    copied: int
    unchanged: int
    documents: int
    checks: tuple[RetrieverCheck, ...]
    differences: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to a dict that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        unchanged = f", {number_of(self.unchanged, 'was', 'were')} there already" if self.unchanged else ""
        rate = f" ({self.copied / self.seconds:,.0f} a second)" if self.copied and self.seconds else ""
        lines = [
            f"Copied {number_of(self.copied, 'document')} in {self.seconds:.1f} s{rate}{unchanged}.",
            f"{self.destination} holds {number_of(self.documents, 'document')}.",
        ]
        for check in self.checks:
            if check.overlap is None or check.deviation is None:
                lines.append(f"  {check.retriever}: {check.note}")
            else:
                lines.append(
                    f"  {check.retriever}: {number_of(check.queries, 'query finds', 'queries find')} "
                    f"{check.overlap:.1%} of the same "
                    f"{DEPTH} best, scores differ by {check.deviation:.1g} at most"
                )
        return "\n".join(lines)


def copy(
    source: str | Path | Backend,
    destination: str | Path | Backend,
    *,
    retrievers: Collection[str] | None = None,
    batch_size: int = 1024,
    resume: bool = False,
    verify: int = 20,
    show_progress_bar: bool | None = None,
    source_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
) -> CopyReport:
    """Copy an index with its vectors to another place, and compare the copy with the source.

    Nothing is encoded again. The copy opens with the same encoders, fusion and reranker. Some engines store the mean
    document length for BM25 (see `Capabilities.live_average`). For them, a first pass over the documents computes it.

    Args:
        source: Place of the index to copy: a folder, an engine's URL, or a `Backend`, which stays open.
        destination: Place of the copy: a folder, an engine's URL, or a `Backend`, which stays open.
        retrievers: Names of the retrievers to copy. None copies all. If the one whose tokens passages count is left
            out, there is a warning.
        batch_size: Number of documents that are read and sent together.
        resume: Whether to continue a copy that was interrupted. Documents that are in the destination already are not
            sent again. Without `resume`, an index at the destination is an error.
        verify: Number of documents whose vectors are used as queries, to compare the rankings of both indexes. 0
            compares only the numbers of documents.
        show_progress_bar: Whether to show a progress bar. None shows one in a terminal.
        source_options: Keyword arguments of the source's backend.
        destination_options: Keyword arguments of the destination's backend.

    Returns:
        The numbers of documents, and the differences that were found.

    Raises:
        IndexNotFoundError: There is no index at `source`.
        IndexExistsError: There is an index at `destination`, and `resume` was not given. Or `resume` was given, and the
            first documents there are not all in the source.
        FingerprintMismatchError: The index at `destination` was built with other encoders.
        BackendError: The destination cannot store a retriever, or the source cannot give its vectors.
        BulkIndexError: The destination refused some documents. All others are stored.
        InvalidArgumentError: An argument is not allowed, or source and destination are the same place.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()}, "papers")
    >>> _ = search.index([hs.Document("wing", "Lift grows with the angle of attack.")], show_progress_bar=False)
    >>> report = copy("papers", "elsewhere")
    >>> report.copied, report.checks[0].overlap, report.differences
    (1, 1.0, ())
    """
    started = time.perf_counter()
    batch_size, verify = whole_number("batch_size", batch_size), whole_number("verify", verify, 0)
    arguments.true_or_false("resume", resume)
    with _connected(source, source_options) as here, _connected(destination, destination_options) as there:
        here_name, there_name = place_name(source), place_name(destination)
        if here is there or _same_place(source, destination):
            raise InvalidArgumentError(f"The source and the destination are both {here_name!r}: choose another place.")
        schema = here.open()
        if schema is None:
            raise IndexNotFoundError(f"There is no index at {here_name!r} to copy: check the place.")
        schema = _only(schema, retrievers)
        existing = there.open()
        if existing is not None and not resume:
            raise IndexExistsError(
                f"There is an index at {there_name!r} already: choose another place, or give resume=True (--resume) to "
                "continue a copy that was interrupted."
            )
        if not there.capabilities.persistent and not isinstance(destination, Backend):
            raise InvalidArgumentError(
                f"A copy to {there_name!r} would be lost at once: give a folder, a URL, or a Backend that stays open."
            )
        if existing is not None and not is_empty(there):
            _check_interrupted(here, there, there_name)
        transfer = Transfer(here, there, batch_size, show_progress_bar, sample=verify)
        transfer.run(schema, existing)
        documents = there.count()
        differences = [] if documents == transfer.total else [_count_difference(transfer.total, documents)]
        note = "not compared, because the counts differ"
        checks = [
            RetrieverCheck(name, 0, note=note) if differences else transfer.compare(name) for name in schema.retrievers
        ]
        differences += [sentence for check in checks for sentence in transfer.differences(check)]
    copied, unchanged, seconds = transfer.copied, transfer.unchanged, time.perf_counter() - started
    return CopyReport(here_name, there_name, copied, unchanged, documents, tuple(checks), tuple(differences), seconds)


def publish(
    place: str | Path | Backend, alias: str, *, drop_old: bool = True, backend_options: Mapping[str, Any] | None = None
) -> OldIndex | None:
    """Point an alias to an index in one step, and delete the index that the alias pointed to before.

    With an alias, you can build a new index while searches use the old one. Searches open the alias, as in
    `hs.open("opensearch://host:9200/papers")`. The new index is built at `".../papers-2"`. Then
    `publish(".../papers-2", "papers")` lets the searches use it.

    Args:
        place: Place of the index: an engine's URL, or a `Backend`, which stays open.
        alias: Name of the alias.
        drop_old: Whether to delete the index that the alias pointed to before. If another alias points to it, it is
            kept.
        backend_options: Keyword arguments of the backend.

    Returns:
        Name of the index that the alias pointed to before, as an `OldIndex`. Its `kept_for` has the other aliases that
        the index was kept for. None if the alias is new.

    Raises:
        IndexNotFoundError: There is no index at `place`.
        IndexExistsError: `alias` is the name of an index.
        BackendError: The engine has no aliases, or `alias` has a filter or a routing value.
    """
    arguments.true_or_false("drop_old", drop_old)
    with _connected(place, backend_options) as backend:
        if not isinstance(backend, Aliased):
            raise BackendError(
                f"The engine of {place_name(place)!r} has no aliases (servers of OpenSearch, Elasticsearch and Qdrant "
                "have them): open the new index by its own name."
            )
        if backend.open() is None:
            raise IndexNotFoundError(f"There is no index at {place_name(place)!r} to publish: check the place.")
        old = backend.publish(alias, drop_old)
        return None if old is None else OldIndex(old, getattr(old, "kept_for", ()))


def _check_interrupted(here: Backend, there: Backend, there_name: str) -> None:
    """Raises IndexExistsError if the source lacks one of the first documents of the destination."""
    if not there.capabilities.scan:
        return
    ids = [document.id for batch in islice(there.scan(_FIRST), 1) for document in batch.documents]
    for id, document in zip(ids, here.fetch(ids), strict=True):
        if document is None:
            raise IndexExistsError(
                f"The index at {there_name!r} has the document {id!r}, but the source does not: choose another place, "
                "or delete this index first."
            )


def _count_difference(read: int, there: int) -> str:
    reason = "it had other documents before" if there > read else "copy again with resume=True (--resume)"
    return f"The source gave {number_of(read, 'document')} and the destination has {there:,}: {reason}."


# Arguments


def _only(schema: Schema, retrievers: Collection[str] | None) -> Schema:
    if retrievers is None:
        return schema
    asked = names(retrievers)
    for name in asked:
        if name not in schema.retrievers:
            raise InvalidArgumentError(
                f"retrievers names {name!r}, which the source does not have. Its retrievers are "
                f"{', '.join(map(repr, schema.retrievers))}."
            )
    if not asked:
        raise InvalidArgumentError(
            "No retriever is left to copy: name at least one, or leave out retrievers to copy all."
        )
    chosen = {name: of_retriever for name, of_retriever in schema.retrievers.items() if name in asked}
    counter = (schema.passages or {}).get("counter")
    if counter and counter not in chosen and any(of_retriever.passages for of_retriever in chosen.values()):
        warn(
            f"The retriever {counter!r} counts the tokens of passages, and it is not copied. So documents that are "
            "added to the copy later get passages of other lengths."
        )
    settings = dict(schema.settings)
    if "fusion" in settings:
        settings["fusion"] = restricted(settings["fusion"], chosen)
    return replace(schema, retrievers=chosen, settings=settings)


def _same_place(one: str | Path | Backend, other: str | Path | Backend) -> bool:
    if not isinstance(one, str | Path) or not isinstance(other, str | Path):
        return False
    return _resolved(one) == _resolved(other)


def _resolved(place: str | Path) -> str | Path:
    """A place on a server as it is, without passwords. Any other place as a path without links and without a scheme."""
    _, mark, rest = str(place).rpartition("://")
    if mark and not rest.startswith("/"):
        return redacted(place)
    return arguments.path("place", rest if mark else place).resolve()


@contextmanager
def _connected(place: str | Path | Backend, options: Mapping[str, Any] | None) -> Iterator[Backend]:
    """Gives the backend of a place. It is closed at the end if it was given by its place."""
    backend = connect(place, options)
    try:
        yield backend
    finally:
        if backend is not place:
            backend.close()
