"""The addresses below `/workbench` that Judge and Choose use."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import Field

from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.evaluation.datasets import read_queries
from hybridsearch.evaluation.judging import HIGHEST, Judgements, Rule
from hybridsearch.evaluation.measures import write_qrels
from hybridsearch.evaluation.plain import to_plain
from hybridsearch.evaluation.report.page import policy
from hybridsearch.evaluation.spec import default_systems, parse_systems
from hybridsearch.fusion import RRF
from hybridsearch.rerank import Reranker
from hybridsearch.search import HybridSearch
from hybridsearch.service.choosing import Chooser, Settlement, without_folders
from hybridsearch.service.chosen import folder_of
from hybridsearch.service.guard import check_may_write, why_not_write
from hybridsearch.service.indexes import ServedIndex, served_index
from hybridsearch.service.jobs import Jobs
from hybridsearch.service.models import Strict
from hybridsearch.service.problems import Refusal
from hybridsearch.service.programs import Program
from hybridsearch.snippets import Snippet

SNIPPET = 1200
"""Number of characters of the part of a document that a judge sees first."""

MOST_CHARACTERS = 100_000
"""Number of characters of a document's text that a judge can see."""

MOST_DISAGREEMENTS = 200
"""Number of disagreements that are listed."""

MOST_EXPORTED = 100_000
"""Largest number of documents of an export."""

MOST_QUERIES = 10_000
"""Number of queries that the page takes at once."""

Format: TypeAlias = Literal["txt", "tsv", "jsonl", "csv"]
"""Format of a file of queries. In `txt` are lines, TREC topics, or a log of the service."""

router = APIRouter(prefix="/workbench/{index}", tags=["workbench"])
reports = APIRouter()

Id = Annotated[str, Field(max_length=2048)]
Name = Annotated[str, Field(max_length=200)]


class PoolBody(Strict):
    """What is judged: the first documents of some systems for some queries."""

    queries: str = Field(description="Queries, one in each line. A line can also have an id, a tab and the text.")
    systems: list[Name] = Field(min_length=1, max_length=20, description="Systems, as `compare --systems` takes them.")
    depth: int = Field(10, ge=1, le=100, description="Number of first documents of each system.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Random seed of the order of the documents.")


class GradeBody(Strict):
    """The grade of a document."""

    judge: Name
    query: Id
    document: Id
    grade: int | None = Field(ge=0, le=3, description="Grade, or null if the judge skips the document.")


class UndoBody(Strict):
    """The judge whose last grade or skip is taken back."""

    judge: Name


class ProgramBody(Strict):
    """The program that judges."""

    judge: Name = Field(description="Name of the judge.")
    thresholds: list[float] = Field(
        min_length=1, max_length=3, description="The least scores of the grades 1, 2 and 3, in rising order."
    )


class SettlementBody(Strict):
    """Which grades count."""

    judges: list[Name] | None = Field(None, max_length=100, description="Judges whose grades count. null: all people.")
    rule: Rule = Field("lower-median", description="How different grades are settled.")
    decider: Name | None = Field(None, description="Judge with the last word: its grade counts alone.")

    @property
    def made(self) -> Settlement:
        """The settlement."""
        return Settlement(self.judges, self.rule, self.decider)


class UseBody(Strict):
    """The system whose fusion goes into use."""

    system: Name | None = Field(description="Name of a measured system. null: the tuned fusion.")


class Desk:
    """The judgements, the jobs and the results of one index.

    Args:
        served: The index.
        folder: Folder of the judgements of this index.
        judge: Cross-encoder that can judge. None for the reranker of the index.

    Attributes:
        folder: Folder of the judgements of this index.
        judgements: The grades.
        jobs: The jobs.
        chooser: The results, and the fusion that is in use.
    """

    def __init__(self, served: ServedIndex, folder: Path, judge: Reranker | None = None) -> None:
        self._served, self._judge = served, judge
        self.folder = folder
        self.judgements = Judgements(folder)
        self.jobs = Jobs(folder)
        self.chooser = Chooser(folder)

    @property
    def name(self) -> str:
        """Name of the index."""
        return self._served.name

    @property
    def search(self) -> HybridSearch:
        """The search of the index."""
        return self._served.search

    @property
    def refused(self) -> bool:
        """Whether there is a chosen fusion that has no effect, because it does not fit the index."""
        return self._served.chosen is not None and self._served.chosen.refused

    @property
    def program(self) -> Program | None:
        """The program that can judge. None if there is none."""
        if self._judge is not None:
            return Program(self._judge, reranks=False)
        reranker = self.search.reranker
        return None if reranker is None else Program(reranker, reranks=True)


_opening = threading.Lock()


def desk(request: Request, served: Annotated[ServedIndex, Depends(served_index)]) -> Desk:
    """The desk of an index. It is a dependency of routes.

    Raises:
        Refusal: The service keeps no judgements (404).
    """
    folder = request.app.state.settings.judgements
    if not folder:
        raise Refusal(404, "no-judgements", "This service keeps no judgements: start it with --judgements FOLDER.")
    desks: dict[str, Desk] = request.app.state.__dict__.setdefault("desks", {})
    with _opening:  # two desks of one index would not see each other's grades
        if served.name not in desks:
            desks[served.name] = Desk(served, folder_of(folder, served.name), request.app.state.judge)
    return desks[served.name]


def may_judge(request: Request) -> bool:
    """Whether a client may write judgements: --judgements allows it, unless its token may only read."""
    return bool(request.state.right != "read")


def check_may_judge(request: Request) -> None:
    """A dependency of routes that write judgements. It refuses a client whose token may only read.

    Raises:
        Refusal: The client may not write (403).
    """
    if not may_judge(request):
        raise Refusal(403, "read-token", "This token may read, but not write.")


OfIndex = Annotated[Desk, Depends(desk)]
writes = [Depends(check_may_judge)]
changes = [Depends(check_may_write)]  # of the ranking of all searches

# Pools


@router.get("/judging", summary="What is judged, and who judges")
def state(of: OfIndex, request: Request) -> dict[str, Any]:
    """What is judged, and who judges."""
    judgements, search = of.judgements, of.search
    return {
        "may_write": may_judge(request),
        "queries": [
            {"id": id, "text": text, "documents": len(judgements.documents(id))}
            for id, text in judgements.queries.items()
        ],
        "systems": list(judgements.systems),
        "possible": default_systems(list(search.retrievers), search.reranker),
        "judges": [
            {"name": name, "about": without_folders(about), "grades": _numbers(of, name), **_progress(of, name)}
            for name, about in judgements.judges.items()
        ],
        "program": None if of.program is None else of.program.described(),
        "job": of.jobs.status(),
    }


@router.post("/judging/pool", dependencies=writes, summary="Add queries and the first documents of systems")
def add_pool(of: OfIndex, body: PoolBody) -> dict[str, Any]:
    """Start to make the pools. The job tells how far it is."""
    search, queries = of.search, queries_of_text(body.queries)
    numbered = list(queries) == [f"q{number}" for number in range(1, len(queries) + 1)]
    given = list(queries.values()) if numbered else queries  # texts without ids keep the ids that they have already
    systems = parse_systems([_checked_system(one) for one in body.systems], search, search.reranker)
    of.jobs.start("pool", lambda: of.judgements.add_pool(systems, given, depth=body.depth, seed=body.seed))
    return of.jobs.status()


def _checked_system(text: str) -> str:
    """The text of a system. A file is never one, because the text comes from a browser."""
    if any(mark in text for mark in "/\\.="):
        raise InvalidArgumentError(f"The system {text!r:.80} is not allowed: write it like bm25+dense or minmax.")
    return text


def queries_of_text(text: str, format: Format = "txt") -> dict[str, str]:
    """The queries in the content of a file, by id.

    Raises:
        InvalidArgumentError: It cannot be read, or has too many queries.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"queries.{format}"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            queries = read_queries(path)
        except HybridSearchError as error:
            raise InvalidArgumentError(str(error).replace(str(path), "The file of queries")) from None
    if len(queries) > MOST_QUERIES:
        raise InvalidArgumentError(f"There are {len(queries):,} queries, but the page takes at most {MOST_QUERIES:,}.")
    return queries


# Grades


@router.get("/judging/documents", summary="The documents of one query, as a judge sees them")
def documents(
    of: OfIndex, query: Annotated[str, Query(max_length=2048)], judge: Annotated[str, Query(max_length=200)]
) -> dict[str, Any]:
    """The documents of one query, with title and snippet, and the grades of this judge."""
    judgements = of.judgements
    ids, text, given = judgements.documents(query), judgements.queries[query], judgements.of(judge)
    shown = _shown(of.search, text, ids)
    return {
        "query": query,
        "text": text,
        "documents": [
            {
                "id": id,
                **(shown.get(id) or {"title": "", "snippet": None}),
                "done": (query, id) in given,
                "grade": given[query, id].grade if (query, id) in given else None,
            }
            for id in ids
        ],
    }


@router.get("/judging/text", summary="The text of one document, with the words of the query")
def text(
    of: OfIndex, query: Annotated[str, Query(max_length=2048)], document: Annotated[str, Query(max_length=2048)]
) -> dict[str, Any]:
    """The text of one document of a pool."""
    if document not in of.judgements.documents(query):
        raise Refusal(404, "unknown-document", f"Document {document!r:.80} is not in the pool of query {query!r:.80}.")
    shown = _shown(of.search, of.judgements.queries[query], [document], MOST_CHARACTERS)
    if document not in shown:
        raise Refusal(404, "unknown-document", f"The index has no document {document!r:.80} any more.")
    return shown[document]


def _shown(search: HybridSearch, query: str, ids: Sequence[str], length: int = SNIPPET) -> dict[str, dict[str, Any]]:
    """Title and snippet of documents, without their ranks. A document that the index has lost is left out.

    Only lexical retrievers are asked, because the others give no highlights without their models.
    """
    found: dict[str, dict[str, Any]] = {}
    schema = search.backend.open()
    kinds = {} if schema is None else schema.retrievers
    lexical = [name for name in search.retrievers if name in kinds and kinds[name].kind in ("lexical", "text")]
    if ids and lexical and search.backend.capabilities.filters:
        asked: dict[str, Any] = {"retrievers": lexical, "fusion": RRF(), "reranker": None}
        results = search.search(query, len(ids), filter={"id": {"$in": list(ids)}}, **asked)
        found = {hit.id: _with(hit.document.title, hit.snippet(length, models=False)) for hit in results}
    others = [id for id in ids if id not in found]
    for document in search.get(others) if others else []:
        if document is not None:
            part = document.text[:length]
            more = len(part) < len(document.text)
            found[document.id] = _with(document.title, Snippet(part, 0, len(part), more_after=more))
    return found


def _with(title: str, snippet: Snippet) -> dict[str, Any]:
    part = {"text": snippet.text, "marks": snippet.marks, "before": snippet.more_before, "after": snippet.more_after}
    return {"title": title[:500], "snippet": part}


@router.post("/judging/grade", dependencies=writes, summary="Grade or skip a document")
def grade(of: OfIndex, body: GradeBody) -> dict[str, Any]:
    """Keep a grade. It is on the disk when the answer comes."""
    if body.grade is None:
        of.judgements.skip(body.judge, body.query, body.document)
    else:
        of.judgements.grade(body.judge, body.query, body.document, body.grade)
    return {"saved": True}


@router.post("/judging/undo", dependencies=writes, summary="Take back the last grade or skip")
def undo(of: OfIndex, body: UndoBody) -> dict[str, Any]:
    """Take back the last grade or skip of a judge."""
    taken = of.judgements.undo(body.judge)
    return {"undone": None if taken is None else asdict(taken)}


@router.get("/judging/left", summary="How many documents of each query a judge has judged")
def left(of: OfIndex, judge: Annotated[str, Query(max_length=200)]) -> dict[str, Any]:
    """The number of judged documents of each query, and how far a judge is."""
    done: dict[str, int] = dict.fromkeys(of.judgements.queries, 0)
    skipped: dict[str, int] = {}
    for (query, _), one in of.judgements.of(judge).items():
        done[query] += 1
        if one.grade is None:
            skipped[query] = skipped.get(query, 0) + 1
    return {"done": done, "skipped": skipped, "progress": _progress(of, judge)}


def _progress(of: Desk, judge: str) -> dict[str, int]:
    return asdict(of.judgements.progress(judge.strip()))


def _numbers(of: Desk, judge: str) -> list[int]:
    """How often a judge gave each grade, from 0 on."""
    counts = Counter(one.grade for one in of.judgements.of(judge).values())
    return [counts[grade] for grade in range(HIGHEST + 1)]


# A program that judges


@router.post("/judging/scores", dependencies=writes, summary="The scores that a program gives to some documents")
def scores(of: OfIndex) -> dict[str, Any]:
    """Scores of some documents, so that people can choose thresholds."""
    return {"scores": _program(of).sample(of.judgements, of.search)}


@router.post("/judging/program", dependencies=writes, summary="Let a program grade the documents")
def judge(of: OfIndex, body: ProgramBody) -> dict[str, Any]:
    """Start to grade all documents of the pools by a program. The job tells how far it is."""
    program = _program(of)
    of.jobs.start("program", lambda: program.judge(of.judgements, of.search, body.judge, body.thresholds))
    return of.jobs.status()


def _program(of: Desk) -> Program:
    if of.program is None:
        raise Refusal(404, "no-program", "No program can judge: start the service with --judge MODEL, a cross-encoder.")
    return of.program


# Agreement and export


@router.get("/judging/agreement", summary="How far judges agree, and where they do not")
def agreement(of: OfIndex) -> dict[str, Any]:
    """How far each two judges agree, and the documents with different grades."""
    judgements = of.judgements
    differ = judgements.disagreements()
    listed = differ[:MOST_DISAGREEMENTS]
    stored = of.search.get(list({one.document for one in listed})) if listed else []
    titles = {one.id: (one.title or one.text)[:200] for one in stored if one is not None}
    return {
        "agreement": [_finite({**to_plain(one), "word": one.word}) for one in judgements.agreement()],
        "disagreements": [
            {**to_plain(one), "text": judgements.queries[one.query], "title": titles.get(one.document, one.document)}
            for one in listed
        ],
        "total": len(differ),
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN: null takes its place."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value


@router.post("/judging/export/{kind}", summary="The settled grades as TREC qrels or as a BEIR folder")
def export(of: OfIndex, kind: Literal["qrels", "beir"], body: SettlementBody) -> Response:
    """The settled grades: a file of TREC qrels, or a BEIR folder in a ZIP archive."""
    settled = body.made
    options: dict[str, Any] = {"judges": settled.judges, "rule": settled.rule, "decider": settled.decider}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "qrels":
            write_qrels(of.judgements.settled(**options), folder / "qrels")
            content, type_ = (folder / "qrels").read_bytes(), "text/plain"
        else:
            small = of.search.count() <= MOST_EXPORTED
            of.judgements.save(folder, of.search.documents() if small else None, unfinished=True, **options)
            content, type_ = _zipped(folder, of.name), "application/zip"
    return Response(content, media_type=type_)


def _zipped(folder: Path, name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{name}/{path.relative_to(folder).as_posix()}")
    return made.getvalue()


# Choose


@router.get("/choice", summary="The measured systems, and the fusion that is in use")
def choice(of: OfIndex, request: Request) -> dict[str, Any]:
    """The measured systems, the tuned fusion, and the fusion that is in use."""
    used, search, judgements = of.chooser.in_use, of.search, of.judgements
    refused = of.refused
    return {
        "may_write": may_judge(request),
        "use_refused": why_not_write(request),
        "judges": {name: without_folders(about) for name, about in judgements.judges.items()},
        "queries": len(judgements.queries),
        "finished": {name: judgements.progress(name).finished for name in judgements.judges},
        "job": of.jobs.status(),
        "result": of.chooser.result(),
        "in_use": json.loads(used.read_text(encoding="utf-8")) if used.exists() and not refused else None,
        "refused": refused,
        "fusion": repr(search.fusion),
        "candidates": search.candidates,
        "file": f"{of.folder.name}/{used.name}",
    }


@router.post("/choice", dependencies=writes, summary="Compare and tune on the judged queries")
def choose(of: OfIndex, body: SettlementBody) -> dict[str, Any]:
    """Start to compare and to tune. The job tells how far it is."""
    body.made.dataset(of.judgements, of.name)  # refuses what cannot be measured, before the job begins
    of.jobs.start("choose", lambda: of.chooser.run(of.judgements, of.search, of.name, body.made))
    return of.jobs.status()


@router.get("/job", summary="How far the running job is")
def job(of: OfIndex) -> dict[str, Any]:
    """How far the running job is, or how the last one ended."""
    return of.jobs.status()


@router.post("/job/cancel", dependencies=writes, summary="Cancel the running job")
def cancel(of: OfIndex) -> dict[str, Any]:
    """Ask the running job to end."""
    of.jobs.cancel()
    return of.jobs.status()


@router.post("/use", dependencies=changes, summary="Put the fusion of a system into use")
def use(of: OfIndex, body: UseBody) -> dict[str, Any]:
    """Let all searches of the service use the fusion of a measured system, or the tuned one."""
    of.chooser.use(of.search, body.system)
    return {"fusion": repr(of.search.fusion), "candidates": of.search.candidates}


@router.delete("/use", dependencies=changes, summary="Use the index's own fusion again")
def stop_using(of: OfIndex) -> dict[str, Any]:
    """Let all searches use the index's own fusion again."""
    of.chooser.stop_using()
    return {"fusion": repr(of.search.fusion), "candidates": of.search.candidates}


@reports.get("/report/{index}/{key}", include_in_schema=False)
def report(of: OfIndex, key: str) -> Response:
    """The report of a comparison.

    A browser opens it without a token, so its address has a key that cannot be guessed. It is in a sandbox: its script
    has no access to the workbench.
    """
    html = of.chooser.report(key)
    if html is None:
        raise Refusal(404, "unknown-report", "There is no report at this address any more.")
    headers = {
        "Content-Security-Policy": f"{policy()}; frame-ancestors 'self'; sandbox allow-scripts",
        "X-Frame-Options": "SAMEORIGIN",
    }
    return Response(html, media_type="text/html", headers=headers)
