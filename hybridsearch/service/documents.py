"""The addresses of documents: storing, reading, listing, counting and deleting them."""

# Without `from __future__ import annotations`: FastAPI reads annotations that are made for the limits of a service.

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Collection
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import Field, TypeAdapter, ValidationError

from hybridsearch.documents import Document
from hybridsearch.errors import BulkIndexError, DocumentError, HybridSearchError, InvalidArgumentError
from hybridsearch.indexing.ingest import IndexReport, SeenIds
from hybridsearch.listing import Order, read_cursor
from hybridsearch.messages import number_of
from hybridsearch.readers.fields import ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, Fields
from hybridsearch.search import HybridSearch
from hybridsearch.service.answers import Count, Deleted, Documents, Stored
from hybridsearch.service.bodies import NDJSON, answer, lines_of, media_type, strict_json
from hybridsearch.service.guard import check_may_write
from hybridsearch.service.indexes import ServedIndex, served_index
from hybridsearch.service.models import DocumentBody, DocumentFields, Json, Removal, checked_filter
from hybridsearch.service.openapi import STORED_BODY, returns
from hybridsearch.service.problems import Problem, Refusal, problem_of
from hybridsearch.service.settings import Settings

BATCH = 1000
"""Number of documents that are stored together."""

BATCH_BYTES = 8_000_000
"""Number of bytes of documents that are stored together, and of one more document."""

MOST_REFUSED = 1000
"""Number of refused documents after which the rest of a request is not read."""

Record: TypeAlias = tuple[int, Any, int]
"""The number of a line or document, from 1, the document or what it is made of, and its size in bytes."""

Index = Annotated[ServedIndex, Depends(served_index)]
Id = Annotated[str, Path(description="Id of the document, percent-encoded. It may contain slashes.", min_length=1)]
Filter = Annotated[str | None, Query(description="Filter, as JSON.")]
Sort = Annotated[str, Field(pattern="[^-]")]

_FIELDS = Fields(ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, None, False)
_LIST = TypeAdapter(list[DocumentBody])
_WRITES = [Depends(check_may_write)]


class _Report:
    """What happened to the documents of one request."""

    def __init__(self) -> None:
        self.indexed = self.unchanged = self.repeated = 0
        self._seen = SeenIds()
        self.refused: list[Json] = []
        self.notes: dict[str, None] = {}

    def add(self, report: IndexReport) -> None:
        self.indexed += report.indexed
        self.unchanged += report.unchanged
        self.notes |= dict.fromkeys(report.notes)

    def last_ones(self, batch: Collection[Document]) -> list[Document]:
        """The last document of each id of a batch. The documents with the same id before it are counted."""
        last = {document.id: document for document in batch}
        self.repeated += len(batch) - len(last) + len(self._seen.add(list(last)))
        return list(last.values())

    def refuse(self, number: int, id: object, reason: str) -> None:
        self.refused.append({"line": number, "id": id if isinstance(id, str) else None, "reason": reason})

    def to_dict(self) -> Json:
        counts = {"indexed": self.indexed, "unchanged": self.unchanged}
        notes = list(self.notes)
        if self.repeated:
            came = number_of(self.repeated, "document")
            notes.append(f"{came} had the same id as a later document. Only the later document is stored.")
        return {**counts, "refused": self.refused, "notes": notes}


def add_documents(router: APIRouter, settings: Settings) -> None:
    """Add the routes of documents to a router."""
    _add_reading(router, settings)
    _add_writing(router, settings)


def _add_reading(router: APIRouter, settings: Settings) -> None:
    @router.get("/{index}/documents", **returns(Documents))
    async def list_documents(
        served: Index,
        limit: Annotated[int, Query(description="Number of documents.", ge=1, le=settings.max_top_k)] = 100,
        after: Annotated[str | None, Query(description="The cursor of the part before.")] = None,
        sort: Annotated[list[Sort], Query(description="Fields to sort by. `-` before a field: descending.")] = [],  # noqa: B006
        filter: Filter = None,
    ) -> Response:
        """List documents, a part at a time, by their ids or in another order."""
        chosen = filter_of(filter, settings)
        if after is not None:
            _check_cursor(after, sort)

        def read(search: HybridSearch) -> Json:
            listing = search.documents(chosen, sort=sort or None, limit=limit, after=after)
            documents = [document.to_dict() for document in listing]
            return {"documents": documents, "cursor": listing.cursor, "notes": list(listing.notes)}

        return answer(await served.read(read))

    @router.get("/{index}/count", **returns(Count))
    async def count(served: Index, filter: Filter = None) -> Response:
        """Count the documents of an index, or those that a filter allows."""
        chosen = filter_of(filter, settings)

        def read(search: HybridSearch) -> Json:
            return {"count": search.count(chosen), "notes": _notes(search, chosen)}

        return answer(await served.read(read))

    @router.get("/{index}/documents/{id:path}", **returns(DocumentBody))
    async def get_document(served: Index, id: Id) -> Response:
        """Read a document."""
        (document,) = await served.read(lambda search: search.get([id]))
        if document is None:
            raise unknown(id)
        return answer(document.to_dict())


def _add_writing(router: APIRouter, settings: Settings) -> None:
    @router.put("/{index}/documents", dependencies=_WRITES, **returns(Stored), openapi_extra=STORED_BODY)
    async def put_documents(served: Index, request: Request) -> Response:
        """Store documents, as a list or as lines of NDJSON. A document replaces the one that has the same id.

        A list is stored if all of its documents are usable. Lines are read as a stream, as `hybridsearch index` reads
        a file. The answer reports each line that is not usable, and all others are stored.
        """
        if media_type(request.headers) == NDJSON:
            return await _stored(served, _lines(request, settings.max_body))
        return await _stored(served, _list(await request.body()))

    @router.put("/{index}/documents/{id:path}", dependencies=_WRITES, **returns(Stored))
    async def put_document(served: Index, id: Id, fields: DocumentFields) -> Response:
        """Store a document. It replaces the document that has the same id."""
        document = Document(id, fields.text, fields.title, fields.metadata)
        report = _Report()
        report.add(await served.write(lambda search: search.upsert(document)))
        return answer(report.to_dict())

    @router.delete("/{index}/documents/{id:path}", dependencies=_WRITES, **returns(Deleted))
    async def delete_document(served: Index, id: Id) -> Response:
        """Delete a document."""
        return answer({"deleted": await served.write(lambda search: search.delete([id])), "notes": []})

    @router.post("/{index}/documents/delete", dependencies=_WRITES, **returns(Deleted))
    async def delete_documents(served: Index, body: Removal) -> Response:
        """Delete documents by their ids, or all that a filter allows. Unknown ids are ignored."""
        chosen = checked_filter(body.filter, settings)

        def delete(search: HybridSearch) -> Json:
            notes = _notes(search, chosen)
            return {"deleted": search.delete(body.ids, filter=chosen), "notes": notes}

        return answer(await served.write(delete))


def _notes(search: HybridSearch, filter: Json | None) -> list[str]:
    return [] if filter is None else list(search.documents(filter, limit=1).notes)


def unknown(id: str) -> Refusal:
    """The error for a document that is not in the index."""
    return Refusal(404, "unknown-document", f"There is no document with the id {id!r:.200}.")


def _check_cursor(after: str, sort: list[str]) -> None:
    """Raises Refusal (404) for a text that is no place in a list."""
    order = Order.parse(sort)
    try:
        read_cursor(order, after)
    except InvalidArgumentError as error:
        raise Refusal(404, "unknown-cursor", str(error)) from None


def filter_of(text: str | None, settings: Settings) -> Json | None:
    """The filter of a query string."""
    given = None if text is None else strict_json(text.encode("utf-8", "surrogatepass"), name="The filter")
    return None if given is None else checked_filter(given, settings)


# Storing


async def _stored(served: ServedIndex, records: AsyncIterator[Record]) -> Response:
    """Store the documents of a request, some at a time, and report what happened to them."""
    report, batch, size = _Report(), dict[int, Document](), 0
    try:
        async for number, record, length in records:
            try:
                batch[number] = _document(number, record)
            except DocumentError as error:
                report.refuse(number, record.get("id") if isinstance(record, dict) else None, str(error))
            size += length
            if len(batch) == BATCH or size >= BATCH_BYTES:
                await _store(served, batch, report)
                batch, size = {}, 0
            if len(report.refused) >= MOST_REFUSED:
                await _store(served, batch, report)
                detail = f"{MOST_REFUSED:,} documents were refused, so nothing after line {number:,} was read."
                return Problem(400, "document", detail, **report.to_dict())
        await _store(served, batch, report)
    except TimeoutError:
        return Problem(408, "too-slow", "The next documents did not come in time.", **report.to_dict())
    except HybridSearchError as error:
        return problem_of(error, **report.to_dict())
    return answer(report.to_dict())


async def _store(served: ServedIndex, batch: dict[int, Document], report: _Report) -> None:
    """Store some documents. Those that the engine refuses go into the report."""
    if not batch:
        return
    documents = report.last_ones(batch.values())
    try:
        report.add(await served.write(lambda search: search.index(documents, show_progress_bar=False)))
    except BulkIndexError as error:
        numbers = {document.id: number for number, document in batch.items()}
        for id, reason in error.failed:
            report.refuse(numbers[id], id, reason)
        report.indexed += len(documents) - len(error.failed)


async def _list(raw: bytes) -> AsyncIterator[Record]:
    """The documents of a list, all of which must be usable."""

    def read() -> list[Document]:
        return [one.made() for one in _LIST.validate_python(strict_json(raw or b"null"))]

    try:
        documents = await asyncio.to_thread(read)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None
    for number, document in enumerate(documents, 1):
        yield number, document, len(document.text)


async def _lines(request: Request, most: int) -> AsyncIterator[Record]:
    """The documents of the lines of a stream. An error stands for a line that is not usable."""
    async for number, line in lines_of(request.stream(), most):
        if line is None:
            yield number, DocumentError(f"the line has more than {most:,} bytes."), 0
            continue
        try:
            record = strict_json(line.removeprefix(BOM_UTF8) if number == 1 else line, name="the line")
        except InvalidArgumentError as error:
            record = DocumentError(str(error))
        yield number, record, len(line)


def _document(number: int, record: Any) -> Document:
    """The document of a record.

    Raises:
        DocumentError: The record is not a usable document.
    """
    if isinstance(record, DocumentError):
        raise record
    if isinstance(record, Document):
        return record
    if not isinstance(record, dict):
        raise DocumentError('a document is an object such as {"id": "a1", "text": "..."}.')
    for names in (ID_FIELDS, TEXT_FIELDS):
        if all(record.get(name) is None for name in names):
            raise DocumentError(f"the document has no {names[0]}.")
    return _FIELDS.document(record, "", number)
