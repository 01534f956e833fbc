"""The workbench: the page at `/`, and what it needs of the service beyond `/v1`."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from pydantic import Field

from hybridsearch.access import notes_for_clients
from hybridsearch.backends import Schema
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.filters import fields_of
from hybridsearch.hits import Results, found_words
from hybridsearch.ranking import Ranking
from hybridsearch.search import HybridSearch
from hybridsearch.service.agreement import overlap, rank_biased_overlap
from hybridsearch.service.choosing import settings_of
from hybridsearch.service.configurations import Configuration, Found, search_with
from hybridsearch.service.indexes import ServedIndex, served_index
from hybridsearch.service.judging_routes import MOST_QUERIES, Format, desk, queries_of_text
from hybridsearch.service.models import Strict, checked_filter
from hybridsearch.service.problems import Refusal
from hybridsearch.service.settings import Settings
from hybridsearch.snippets import Highlight

SHOWN = 20
"""Number of first documents of each ranking that the page can show, so that they get a title and a snippet."""

SNIPPET = 200
"""Number of characters of a snippet."""

MOST_CHARACTERS = 20_000
"""Number of characters of a document's text, and of its metadata as JSON, that an explanation shows."""

_TITLE = 200  # characters
_SAMPLE = 200  # documents that are read to describe the fields of an index
_FIELDS = 50  # fields that are described
_VALUES = 20  # values of a field that are offered

router = APIRouter(include_in_schema=False)
Index = Annotated[ServedIndex, Depends(served_index)]


class Look(Strict):
    """What to look at: one query, and one or two configurations."""

    query: str
    filter: dict[str, Any] | None = None
    configurations: list[Configuration] = Field(default=[Configuration()], min_length=1, max_length=2)


class Explain(Strict):
    """The document to explain."""

    query: str
    id: str = Field(max_length=1000)
    filter: dict[str, Any] | None = None
    configuration: Configuration = Configuration()


class Compare(Strict):
    """The queries to compare two configurations by."""

    queries: list[str] = Field(max_length=50)
    configurations: list[Configuration] = Field(min_length=2, max_length=2)
    top: int = Field(default=10, ge=1, le=50)


class QueryFile(Strict):
    """A file of queries."""

    content: str
    format: Format = "txt"


def _limits(request: Request) -> Settings:
    limits: Settings = request.app.state.settings
    return limits


Limits = Annotated[Settings, Depends(_limits)]


def _check(limits: Settings, queries: Sequence[str], filter: Any, configurations: Sequence[Configuration]) -> None:
    """Refuse what is beyond the limits of the service."""
    checked_filter(filter, limits)
    if any(len(query) > limits.max_query for query in queries):
        raise InvalidArgumentError(f"A query has at most {limits.max_query:,} characters.")
    if any((one.candidates or 0) > limits.max_candidates for one in configurations):
        raise InvalidArgumentError(f"candidates is at most {limits.max_candidates:,}.")


# The page


@router.get("/")
async def page() -> FileResponse:
    return _asset("index.html")


@router.get("/page/{name}")
async def asset(name: str) -> FileResponse:
    return _asset(name)


def _asset(name: str) -> FileResponse:
    folder = files("hybridsearch.service").joinpath("page")
    if name not in {one.name for one in folder.iterdir()}:
        raise Refusal(404, "unknown-address", f"The page has no file {name!r:.80}.")
    with as_file(folder.joinpath(name)) as path:
        return FileResponse(path, media_type=_KINDS[path.suffix], headers={"Cache-Control": "no-cache"})


_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


# Indexes


@router.get("/workbench")
async def indexes(request: Request) -> dict[str, list[str]]:
    return {"indexes": list(request.app.state.indexes)}


@router.get("/workbench/{index}")
async def about(index: Index) -> dict[str, Any]:
    return await asyncio.to_thread(_about, index.name, index.search)


def _about(name: str, search: HybridSearch) -> dict[str, Any]:
    total, schema = search.count(), search.backend.open()
    reranker = None
    if search.reranker is not None:
        described = search.reranker.to_json() or {}
        reranker = {
            "name": described.get("type", type(search.reranker).__name__),
            "top_k": search.reranker.top_k,
            "blend": getattr(search.reranker, "blend", 0.0),
        }
    return {
        "name": name,
        "documents": total,
        "retrievers": {name: _kind_of(schema, name) for name in search.retrievers},
        "passages": search.passages is not None,
        "fusion": _described(search),
        "candidates": Configuration().depth_of(search),
        "reranker": reranker,
        "fields": _fields(search, total) if total else [],
    }


def _kind_of(schema: Schema | None, name: str) -> str:
    return "" if schema is None else str(schema.retrievers[name].kind)


def _described(search: HybridSearch, configuration: Configuration | None = None) -> dict[str, Any]:
    """The fusion as JSON, and as text."""
    fusion = (configuration or Configuration()).fusion_of(search)
    return settings_of(fusion) | {"shown": repr(fusion)}


def _fields(search: HybridSearch, total: int) -> list[dict[str, Any]]:
    """The fields of metadata, the most common first, with their types and values in a sample of the documents."""
    try:
        documents = list(search.documents(limit=_SAMPLE))
    except BackendError:  # the engine cannot list its documents
        return []
    values: dict[str, list[Any]] = {}
    for document in documents:
        for path, value in fields_of(document).items():
            values.setdefault(path, []).extend(value if isinstance(value, list) else [value])
    common = sorted(values, key=lambda path: (-len(values[path]), path))[:_FIELDS]
    return [{"path": path, "all": total <= len(documents), **_field(values[path])} for path in common]


def _field(values: Sequence[Any]) -> dict[str, Any]:
    if values and all(isinstance(value, bool) for value in values):
        return {"kind": "boolean", "values": []}
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"kind": "number", "low": min(values), "high": max(values), "values": []}
    texts = Counter(value for value in values if isinstance(value, str) and len(value) <= _TITLE)
    return {"kind": "text" if texts else "mixed", "values": [text for text, _ in texts.most_common(_VALUES)]}


# Look


@router.post("/workbench/{index}/look")
async def look(index: Index, limits: Limits, body: Look) -> dict[str, Any]:
    _check(limits, [body.query], body.filter, body.configurations)
    search, started = index.search, time.perf_counter()
    deepest = 0 if search.reranker is None else search.reranker.top_k
    found = await search_with(search, [body.query], body.configurations, max(SHOWN, deepest), filter=body.filter)
    systems = [results[0] for results in found.results]
    index.log_queries(systems[:1])  # the query once, with the hits of the first configuration
    index.log_failures(found.answers.failures)
    rankings = {name: of[0] for name, of in found.answers.rankings.items()}
    shown = dict.fromkeys(id for ranking in rankings.values() for id in ranking.ids[:SHOWN])
    shown |= dict.fromkeys(hit.id for results in systems for hit in results if hit.rank <= SHOWN)
    shown |= dict.fromkeys(hit.id for results in systems for hit in results if hit.rank_before_reranking <= SHOWN)
    documents = await asyncio.to_thread(_documents, body.query, found, shown)
    return {
        "query": body.query,
        "retrievers": {name: _ranking(ranking) for name, ranking in rankings.items()},
        "systems": [
            {"fusion": _described(search, one), "candidates": one.depth_of(search), **_system(results)}
            for one, results in zip(body.configurations, systems, strict=True)
        ],
        "documents": documents,
        "notes": _notes(systems),
        "timings": dict(systems[0].timings),
        "seconds": time.perf_counter() - started,
    }


def _notes(found: Iterable[Results]) -> list[str]:
    return list(dict.fromkeys(note for one in found for note in notes_for_clients(one.notes, one.failures)))


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {"ids": list(ranking.ids), "scores": ranking.scores.tolist()}


def _system(results: Results) -> dict[str, Any]:
    """The first hits by fused rank, and the scores of the reranker."""
    fused = sorted(results, key=lambda hit: hit.rank_before_reranking)
    scores = {hit.id: hit.reranker_score for hit in results if hit.reranker_score is not None}
    return {
        "fused": {"ids": [hit.id for hit in fused], "scores": [hit.fused_score for hit in fused]},
        "reranked": scores or None,
    }


def _documents(query: str, found: Found, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Title and snippet of documents that retrievers found."""
    every = replace(found.plan, top_k=None).merge([query], found.answers)[0]
    hits = [hit for hit in every if hit.id in ids]
    found_words(hits)  # for all at once
    return {
        hit.id: {
            "title": hit.document.title[:_TITLE],
            "snippet": list(hit.snippet(SNIPPET, models=False).line().parts()),
        }
        for hit in hits
    }


# Explain


@router.post("/workbench/{index}/explain")
async def explain(index: Index, limits: Limits, body: Explain) -> dict[str, Any]:
    _check(limits, [body.query], body.filter, [body.configuration])
    return await asyncio.to_thread(_explain, index.search, body)


def _explain(search: HybridSearch, body: Explain) -> dict[str, Any]:
    configuration = body.configuration
    plan = search.plan(
        1,
        filter=body.filter,
        fusion=configuration.fusion_of(search),
        candidates=configuration.depth_of(search),
        reranker=search.reranker if configuration.rerank else None,
    )
    results = replace(plan, top_k=None).results([body.query])[0]
    hit = next((hit for hit in results if hit.id == body.id), None)
    if hit is not None:
        return {**hit.explain().to_dict(), "document": _document(hit.document, hit.span, hit.highlights)}
    (document,) = search.get(body.id)
    if document is None:
        raise InvalidArgumentError(f"There is no document {body.id!r} in the index.")
    return {**plan.explain(body.query, document).to_dict(), "document": _document(document, (0, 0), ())}


def _document(document: Document, span: tuple[int, int], highlights: Sequence[Highlight]) -> dict[str, Any]:
    """A document with its highlights. A long text is cut around the best passage."""
    start = max(0, min(span[0] - 200, len(document.text) - MOST_CHARACTERS))
    end = min(len(document.text), start + MOST_CHARACTERS)
    metadata = document.to_dict()["metadata"]
    return {
        "id": document.id,
        "title": document.title,
        "metadata": metadata if len(json.dumps(metadata)) <= MOST_CHARACTERS else None,
        "text": _parts(document.text, start, end, span, highlights),
        "before": start,
        "after": len(document.text) - end,
    }


def _parts(
    text: str, start: int, end: int, best: tuple[int, int], highlights: Sequence[Highlight]
) -> list[tuple[str, list[str], bool]]:
    """The text in parts: the names of the retrievers that found a part, and whether it is in the best passage."""
    places = {start, end}
    for span in (best, *((one.start, one.end) for one in highlights)):
        places |= {place for place in span if start < place < end}
    return [
        (
            text[a:b],
            sorted({one.retriever for one in highlights if one.start <= a and b <= one.end}),
            best[0] <= a and b <= best[1],
        )
        for a, b in pairwise(sorted(places))
    ]


# Compare


@router.post("/workbench/{index}/compare")
async def compare(index: Index, limits: Limits, body: Compare) -> dict[str, Any]:
    _check(limits, body.queries, None, body.configurations)
    search, started = index.search, time.perf_counter()
    found = await search_with(search, body.queries, body.configurations, body.top)
    one, other = found.results
    index.log_queries(one)
    index.log_failures(found.answers.failures)
    titles = {hit.id: hit.document.title[:_TITLE] for results in (*one, *other) for hit in results}
    return {
        "queries": [
            {
                "query": query,
                "hits": [a.ids, b.ids],
                "overlap": overlap(a.ids, b.ids),
                "rbo": rank_biased_overlap(a.ids, b.ids),
            }
            for query, a, b in zip(body.queries, one, other, strict=True)
        ],
        "titles": titles,
        "notes": _notes((*one, *other)),
        "seconds": time.perf_counter() - started,
    }


@router.get("/workbench/{index}/queries")
def query_sets(index: Index, request: Request) -> dict[str, int]:
    return {name: len(queries) for name, queries in _query_sets(request, index).items()}


@router.get("/workbench/{index}/queries/{name}")
def query_set(index: Index, name: str, request: Request) -> list[tuple[str, str]]:
    sets = _query_sets(request, index)
    if name not in sets:
        raise Refusal(404, "unknown-queries", f"There is no set of queries {name!r:.80}.")
    return list(sets[name].items())  # pairs, because JavaScript would sort ids that are numbers


@router.post("/workbench/{index}/queries")
def queries_of_file(index: Index, body: QueryFile) -> list[tuple[str, str]]:
    """The queries of a file that a person opens."""
    return [(id, " ".join(text.split())) for id, text in queries_of_text(body.content, body.format).items()]


def _query_sets(request: Request, served: ServedIndex) -> dict[str, Mapping[str, str]]:
    """The queries that the service was given, and the queries of the index that people judge."""
    sets: dict[str, Mapping[str, str]] = dict(request.app.state.query_sets)
    if request.app.state.settings.judgements and (judged := desk(request, served).judgements.queries):
        sets.setdefault("judged", judged)
    return sets


def read_query_sets(paths: Iterable[str | Path]) -> dict[str, dict[str, str]]:
    """Read the queries that the page offers.

    Args:
        paths: Files of queries, and folders of BEIR data sets, which have a file `queries.jsonl`.

    Returns:
        Texts of the queries by id, by the name of the file or folder. A text that comes again is left out.

    Raises:
        InvalidArgumentError: A file cannot be read, it has too many queries, or two have the same name.
    """
    from hybridsearch.evaluation.datasets import read_queries

    sets: dict[str, dict[str, str]] = {}
    for given in map(Path, paths):
        file = given / "queries.jsonl" if given.is_dir() else given
        name = (given.resolve() if given.is_dir() else given.with_suffix("")).name
        ids: dict[str, str] = {}
        for id, text in read_queries(file).items():
            ids.setdefault(" ".join(text.split()), id)
        queries = {id: text for text, id in ids.items()}
        if len(queries) > MOST_QUERIES:
            raise InvalidArgumentError(
                f"{file} has {len(queries):,} queries, but the page takes {MOST_QUERIES:,}: give a part of them."
            )
        if name in sets:
            raise InvalidArgumentError(f"Two files of queries have the name {name!r:.80}: rename one of them.")
        sets[name] = queries
    return sets
