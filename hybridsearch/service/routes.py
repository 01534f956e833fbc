"""The addresses below `/v1`: searching, and reading and writing documents."""

# Without `from __future__ import annotations`: FastAPI reads annotations that are made for the limits of a service.

import asyncio
import logging
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Annotated, get_origin
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from hybridsearch.access import UNHEARD, notes_for_clients
from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.hits import Results
from hybridsearch.messages import not_known, number_of, redacted
from hybridsearch.search import HybridSearch
from hybridsearch.service import answers
from hybridsearch.service.bodies import answer
from hybridsearch.service.choosing import settings_of
from hybridsearch.service.documents import Filter, add_documents, filter_of, unknown
from hybridsearch.service.indexes import ServedIndex, served_index
from hybridsearch.service.models import (
    LARGEST,
    Explained,
    Json,
    SearchBody,
    SnippetSettings,
    checked_filter,
    explained_body,
    search_body,
)
from hybridsearch.service.openapi import returns
from hybridsearch.service.settings import Settings

Index = Annotated[ServedIndex, Depends(served_index)]

_log = logging.getLogger(__name__)

_NO_RERANKER = "rerank has no effect, because the index has no reranker."


def make_router(settings: Settings) -> APIRouter:
    """Make the routes of a service with these limits."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(_check_parameters)])
    _add_indexes(router, settings)
    _add_search(router, settings)
    add_documents(router, settings)
    return router


def _check_parameters(request: Request) -> None:
    """Refuse what would not count as a client thinks: unknown and repeated parameters, and bytes that are not UTF-8."""
    for part in (request.scope.get("raw_path") or b"", request.scope["query_string"]):
        try:
            unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            raise InvalidArgumentError("The address is not valid UTF-8: percent-encode its text as UTF-8.") from None
    fields = request.scope["route"].dependant.query_params
    known = [field.alias for field in fields]
    if unknown := [name for name in request.query_params if name not in known]:
        rest = not_known(unknown[0], known, "parameters") if known else "is not known. There are no parameters here."
        raise InvalidArgumentError(f"{unknown[0]:.80} {rest}")
    for field in fields:
        if get_origin(field.field_info.annotation) is not list and len(request.query_params.getlist(field.alias)) > 1:
            raise InvalidArgumentError(f"{field.alias} is given more than once: give it once.")


def _add_indexes(router: APIRouter, settings: Settings) -> None:
    @router.get("", **returns(answers.Indexes))
    async def list_indexes(request: Request) -> Response:
        """List the indexes, with their retrievers and settings. Indexes that do not answer now are only named."""
        indexes: list[ServedIndex] = list(request.app.state.indexes.values())
        described = await asyncio.gather(*(_described(served, settings.max_seconds / 2) for served in indexes))
        away = [served.name for served, found in zip(indexes, described, strict=True) if found is None]
        listed = [found for found in described if found is not None]
        return answer({"indexes": listed, "not_answering": away, "may_write": request.state.may_write})

    @router.get("/{index}", **returns(answers.Index))
    async def describe_index(served: Index) -> Response:
        """Describe an index: its documents, retrievers and settings."""
        return answer(await served.read(partial(_describe, served)))


async def _described(served: ServedIndex, seconds: float) -> Json | None:
    """What a client may know about an index. None if the index does not answer in some seconds, which is logged."""
    try:
        async with asyncio.timeout(seconds):
            return await served.read(partial(_describe, served))
    except (HybridSearchError, TimeoutError) as error:
        _log.error("The index %r does not answer: %s", served.name, redacted(error) or f"not in {seconds:g} s")
        return None


def _describe(served: ServedIndex, search: HybridSearch) -> Json:
    """What a client may know about an index. Models may be in folders, so they are not named."""
    schema = search.backend.open()
    retrievers = {} if schema is None else schema.retrievers
    return {
        "name": served.name,
        "ready": served.ready,
        "documents": search.count(),
        "retrievers": {
            name: {
                "kind": one.kind,
                "fingerprint": str(one.fingerprint),
                "dimensions": one.dimensions,
                "metric": one.metric,
                "passages": one.passages,
            }
            for name, one in retrievers.items()
        },
        "fusion": settings_of(search.fusion),
        "candidates": search.candidates,
        "reranker": search.reranker is not None,
        "optional": sorted(search.optional),
    }


def _add_search(router: APIRouter, settings: Settings) -> None:
    Body = search_body(settings)  # noqa: N806 - a class

    @router.post("/{index}/search", **returns(answers.Results | answers.ManyResults))
    async def search(served: Index, body: Body) -> Response:  # type: ignore[valid-type]
        """Search an index."""
        return await _searched(served, body, settings)

    @router.get("/{index}/search", **returns(answers.Results))
    async def find(
        served: Index,
        q: Annotated[str, Query(description="Text of the query.", max_length=settings.max_query, examples=["brakes"])],
        top_k: Annotated[int, Query(description="Number of hits.", ge=1, le=settings.max_top_k)] = 10,
        offset: Annotated[int, Query(description="Number of first hits to leave out.", ge=0, le=LARGEST)] = 0,
        snippets: Annotated[bool, Query(description="Whether each hit has a snippet of its text.")] = False,
        filter: Filter = None,
    ) -> Response:
        """Search an index from a browser or from curl."""
        chosen = filter_of(filter, settings)
        body = Body.model_construct(query=q, top_k=top_k, offset=offset, snippets=snippets, filter=chosen)
        return await _searched(served, body, settings)

    Explain = explained_body(settings)  # noqa: N806

    @router.post("/{index}/explain", **returns(answers.Explanation))
    async def explain(served: Index, body: Explain) -> Response:  # type: ignore[valid-type]
        """Explain the place of one document in the results of a query."""
        return answer(await served.read(lambda search: _explain(search, body)))


def _explain(search: HybridSearch, asked: Explained) -> Json:
    if search.get(asked.id) == [None]:
        raise unknown(asked.id)
    found = search.explain(
        asked.query,
        asked.id,
        retrievers=asked.retrievers,
        candidates=asked.candidates,
        feedback=None if asked.feedback is None else asked.feedback.made(),
    )
    return found.to_dict()


async def _searched(served: ServedIndex, body: SearchBody, settings: Settings) -> Response:
    for filter in body.filters:
        checked_filter(filter, settings)
    if len(body.asked) * body.top_k > settings.max_hits:
        raise InvalidArgumentError(
            f"{number_of(len(body.asked), 'query', 'queries')} with {body.top_k:,} hits each are too much: a request "
            f"has at most {settings.max_hits:,} hits. Lower top_k, or send fewer queries at once."
        )
    found = await served.search_many(body.asked, body.top_k, **body.options)
    if body.rerank and "rerank" in body.model_fields_set and served.search.reranker is None:
        found = [replace(results, notes=(*results.notes, _NO_RERANKER)) for results in found]
    stop = Event()
    if body.snippets or body.explain or len(found) > 1:
        try:
            return await asyncio.to_thread(_answer, body, found, stop)
        finally:
            stop.set()  # nobody waits for the answer any more
    return _answer(body, found, stop)  # a thread would take longer than the answer


def _answer(body: SearchBody, found: list[Results], stop: Event) -> Response:
    made = [_to_dict(results, body, stop) for results in found]
    return answer(made[0] if body.query is not None else {"results": made})


def _to_dict(results: Results, body: SearchBody, stop: Event) -> Json:
    """Results as JSON holds them, with what was asked for. Highlights are left out once `stop` is set."""
    found = results.to_dict()
    found["failures"] = dict.fromkeys(results.failures, UNHEARD)
    found["notes"] = notes_for_clients(results.notes, results.failures)
    hits: list[Json] = found["hits"]
    if not body.passages:
        for hit in hits:
            hit.pop("passages", None)
    if body.snippets:
        made = SnippetSettings() if body.snippets is True else body.snippets
        for hit, of in zip(hits, results, strict=True):
            if stop.is_set():
                break
            hit["snippet"] = of.snippet(made.length, models=made.models).to_dict()
    if body.explain and not stop.is_set():
        for hit, explanation in zip(hits, results.explain(), strict=True):
            hit["explanation"] = explanation.to_dict()
    return found
