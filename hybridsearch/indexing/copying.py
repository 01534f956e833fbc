"""Moving an index between engines with its vectors, nothing encoded again; and putting it in the place of another."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hybridsearch import arguments
from hybridsearch.arguments import names, whole_number
from hybridsearch.backends import Aliased, Backend, Schema, connect, place_name
from hybridsearch.errors import BackendError, IndexExistsError, IndexNotFoundError, InvalidArgumentError
from hybridsearch.fusion.files import restricted
from hybridsearch.indexing.transfer import DEPTH, RetrieverCheck, Transfer
from hybridsearch.messages import number_of, redacted


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What `copy` did and found.

    Attributes:
        source, destination: the places, without passwords.
        copied: documents that were stored.
        unchanged: documents that were there already, exactly so.
        documents: how many the destination has now.
        checks: by retriever, the comparison of rankings.
        differences: what is not as it should be, a sentence each; empty for a faithful copy.
        seconds: for everything.
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
        """A JSON-able dict."""
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
    """Copy an index with its vectors to another place, of the same engine or another one; then compare the two.

    The copy opens with the same encoders, fusion and reranker. An engine that keeps the mean document length that BM25
    weights were made with gets the exact one of the documents, which takes a first pass over them.

    Args:
        source, destination: a folder, an engine's URL, or a `Backend`, which stays open.
        retrievers: the names to copy; None copies all.
        batch_size: documents that are read and sent together.
        resume: go on with a copy that was interrupted: documents that are there already, exactly so, are not sent
            again. Without it, an index at the destination is an error.
        verify: how many documents' own vectors are used as queries to compare the rankings; 0 compares only counts.
        show_progress_bar: None shows it in a terminal.
        source_options, destination_options: keyword arguments of the two backends.

    Raises:
        IndexNotFoundError: there is no index at `source`.
        IndexExistsError: there is one at `destination`, and not `resume`.
        FingerprintMismatchError: with `resume`, the index at `destination` holds other vectors.
        BackendError: the destination cannot store a kind of retriever, or the source cannot be read back.
        BulkIndexError: documents were refused; all others are stored.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()}, "papers")
    >>> _ = search.index([hs.Document("wing", "Lift grows with the angle of attack.")], show_progress_bar=False)
    >>> report = copy("papers", "elsewhere")
    >>> report.copied, report.checks[0].overlap, report.differences
    (1, 1.0, ())
    """
    started = time.perf_counter()
    batch_size, verify = whole_number("batch_size", batch_size), whole_number("verify", verify, 0)
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
                f"There is an index at {there_name!r} already: choose another place, or go on with a copy that was "
                "interrupted with resume=True (--resume)."
            )
        if not there.capabilities.persistent and not isinstance(destination, Backend):
            raise InvalidArgumentError(
                f"A copy to {there_name!r} is lost at once: give a folder or a URL, or a Backend that stays open."
            )
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
) -> str | None:
    """Let the name `alias` mean the index at `place`, in one step, and delete the index that it meant before.

    This is how documents are indexed anew while searches go on: searches use the alias, as in
    `hs.open("opensearch://host:9200/papers")`; the new index is built beside the old one, at ".../papers-2"; then
    `publish(".../papers-2", "papers")` swaps them.

    Args:
        place: an engine's URL, or a `Backend`, which stays open.
        alias: the name to search by.
        drop_old: whether the index that `alias` meant before is deleted.
        backend_options: keyword arguments of the backend.

    Returns:
        The name of the index that `alias` meant before; None if it is new.

    Raises:
        IndexNotFoundError: there is no index at `place`.
        BackendError: the engine has no aliases.
    """
    with _connected(place, backend_options) as backend:
        if not isinstance(backend, Aliased):
            raise BackendError(
                f"The engine of {place_name(place)!r} has no aliases, as servers of OpenSearch, Elasticsearch and "
                "Qdrant have: open the new index by its own name."
            )
        if backend.open() is None:
            raise IndexNotFoundError(f"There is no index at {place_name(place)!r} to publish: check the place.")
        return backend.publish(alias, drop_old)


def _count_difference(read: int, there: int) -> str:
    reason = "it had others before" if there > read else "copy again with resume=True (--resume)"
    return f"The source gave {number_of(read, 'document')} and the destination has {there:,}: {reason}."


# Arguments


def _only(schema: Schema, retrievers: Collection[str] | None) -> Schema:
    if retrievers is None:
        return schema
    asked = names(retrievers)
    for name in asked:
        if name not in schema.retrievers:
            raise InvalidArgumentError(
                f"retrievers names {name!r}, which the source does not have; it has "
                f"{', '.join(map(repr, schema.retrievers))}."
            )
    if not asked:
        raise InvalidArgumentError("No retriever is left to copy.")
    chosen = {name: of_retriever for name, of_retriever in schema.retrievers.items() if name in asked}
    settings = dict(schema.settings)
    if "fusion" in settings:
        settings["fusion"] = restricted(settings["fusion"], chosen)
    return replace(schema, retrievers=chosen, settings=settings)


def _same_place(one: str | Path | Backend, other: str | Path | Backend) -> bool:
    if not isinstance(one, str | Path) or not isinstance(other, str | Path):
        return False
    if "://" in f"{one}{other}":
        return redacted(one) == redacted(other)
    return arguments.path("source", one).resolve() == arguments.path("destination", other).resolve()


@contextmanager
def _connected(place: str | Path | Backend, options: Mapping[str, Any] | None) -> Iterator[Backend]:
    """The backend; closed afterwards where it was given by name."""
    backend = connect(place, options)
    try:
        yield backend
    finally:
        if backend is not place:
            backend.close()
