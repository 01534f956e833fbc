"""The addresses below `/v1`: searching, and reading and writing documents."""

# Without `from __future__ import annotations`: FastAPI reads annotations that are made for the limits of a service.

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from hybridsearch.hits import Results
from hybridsearch.service.indexes import ServedIndex, served_index
from hybridsearch.service.models import SearchBody, SnippetSettings, search_body
from hybridsearch.service.settings import Settings

Index = Annotated[ServedIndex, Depends(served_index)]


def make_router(settings: Settings) -> APIRouter:
    """Make the routes of a service with these limits."""
    router = APIRouter(prefix="/v1")
    _add_search(router, settings)
    return router


def _add_search(router: APIRouter, settings: Settings) -> None:
    Body = search_body(settings)  # noqa: N806 - a class

    @router.post("/{index}/search")
    async def search(served: Index, body: Body) -> Response:  # type: ignore[valid-type]
        """Search an index."""
        return await _searched(served, body)

    @router.get("/{index}/search")
    async def find(
        served: Index,
        q: Annotated[str, Query(description="Text of the query.", max_length=settings.max_query)],
        top_k: Annotated[int, Query(description="Number of hits.", ge=1, le=settings.max_top_k)] = 10,
        offset: Annotated[int, Query(description="Number of first hits to leave out.", ge=0)] = 0,
        snippets: Annotated[bool, Query(description="Whether each hit has the part of its text that fits.")] = False,
    ) -> Response:
        """Search an index from a browser or from curl."""
        return await _searched(served, Body(query=q, top_k=top_k, offset=offset, snippets=snippets))


async def _searched(served: ServedIndex, body: SearchBody) -> Response:
    found = await served.search_many(body.asked, body.top_k, **body.options)
    return await asyncio.to_thread(_answer, body, found)


def _answer(body: SearchBody, found: list[Results]) -> Response:
    answers = [_to_dict(results, body) for results in found]
    return answer(answers[0] if body.query is not None else {"results": answers})


def _to_dict(results: Results, body: SearchBody) -> dict[str, Any]:
    """Results as JSON holds them, with what was asked for."""
    found = results.to_dict()
    hits: list[dict[str, Any]] = found["hits"]
    if not body.passages:
        for hit in hits:
            hit.pop("passages", None)
    if body.snippets:
        made = SnippetSettings() if body.snippets is True else body.snippets
        for hit, of in zip(hits, results, strict=True):
            hit["snippet"] = of.snippet(made.length, models=made.models).to_dict()
    if body.explain:
        for hit, explanation in zip(hits, results.explain(), strict=True):
            hit["explanation"] = explanation.to_dict()
    return found


def answer(content: Any) -> Response:
    """The answer with this content. It is not checked again, because it was made here."""
    return Response(json.dumps(content, allow_nan=False, separators=(",", ":")), media_type="application/json")
