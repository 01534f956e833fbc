"""The verbs that search an index, and that explain a hit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.cli import arguments
from hybridsearch.cli.app import SEARCHING, Verb, app
from hybridsearch.cli.arguments import (
    arg,
    backend_options,
    check_hnsw,
    feedback_of,
    flag,
    of_search,
    opt,
    split_names,
    ways,
)
from hybridsearch.cli.terminal import WELCOME, Session, parse_filter, print_json, print_plain
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of, redacted

if TYPE_CHECKING:
    from hybridsearch.rerank import Recency
    from hybridsearch.search import HybridSearch, SearchOptions


@app.command(cls=Verb, rich_help_panel=SEARCHING)
def search(
    place: arguments.Place,
    words: Annotated[
        list[str] | None,
        arg(
            "QUERY",
            "Query, with or without quotes. Put -- before a query that begins with a dash. Default: in a terminal you "
            "are asked for one query after another, else each line of standard input is a query.",
        ),
    ] = None,
    top_k: Annotated[int, of_search("N", "Number of hits.", "--top-k", "-k", min=1)] = 10,
    filter: Annotated[
        str | None,
        of_search(
            "JSON",
            "Filter on metadata, title or id. Only documents that match are searched. Example: "
            """'{"year": {"$gte": 2020}}'.""",
        ),
    ] = None,
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    fusion: arguments.FusionName = None,
    rerank: arguments.Rerank = None,
    rerank_blend: arguments.RerankBlend = None,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    offset: Annotated[int, of_search("N", "Number of first hits to leave out, for the next page.", min=0)] = 0,
    min_score: Annotated[
        str | None,
        of_search(
            "SCORE",
            "Least score of a hit, after fusion and reranking. Or least scores of retrievers, such as "
            "bm25=2,dense=0.4: a retriever does not find documents with lower scores. Default: no limit.",
        ),
    ] = None,
    recent: Annotated[
        str | None,
        of_search(
            "FIELD=TIME",
            "Metadata field with dates: recent documents rank higher. After TIME, half of the advantage is left. "
            "Example: published=30d.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, of_search("FIELD", "Metadata field that groups the hits. Each value gives one hit, the best.")
    ] = None,
    mmr: Annotated[
        float | None,
        of_search(
            "RELEVANCE",
            "Variety of the hits by maximal marginal relevance: from 1 (only relevance counts) to 0 (only variety "
            "counts), such as 0.7.",
            min=0,
            max=1,
        ),
    ] = None,
    feedback: arguments.FeedbackNames = None,
    synonyms: arguments.Synonyms = None,
    hnsw: arguments.Hnsw = False,
    option: arguments.Options = None,
    explain: Annotated[
        bool, flag("--explain", "Show for each hit why it was found.", rich_help_panel=arguments.OUTPUT)
    ] = False,
    context: Annotated[
        int | None,
        opt(
            "TOKENS",
            "Print the best passages as a text for the prompt of a language model, with at most so many tokens.",
            rich_help_panel=arguments.OUTPUT,
            min=1,
        ),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Search an index and print the best documents.

    The columns named after the retrievers hold the rank that each
    retriever gave to the document.

    \bExamples:
      hybridsearch search papers "boundary layer on a wing"
      hybridsearch search papers heat --filter '{"year": {"$gte": 1960}}'
      hybridsearch search papers          (asks for one query after another)
    """
    query = " ".join(words) if words else None  # quotes around the query are optional
    asking = query is None and sys.stdin.isatty()
    if asking and as_json:
        raise typer.BadParameter("it needs a QUERY, or queries on standard input.", param_hint="--json")
    import hybridsearch as hs

    options: SearchOptions = {
        "filter": parse_filter(filter),
        "retrievers": split_names(retrievers),
        "candidates": candidates,
        "fusion": fusion,
        "offset": offset,
        "min_score": _least(min_score),
        "boost": _recency(recent),
        "group_by": group_by,
        "diversity": None if mmr is None else hs.MMR(mmr),
        "feedback": feedback_of(feedback),
    }
    run = ways(precision, runtime)
    with _open(place, synonyms, backend_options=backend_options(option, hnsw, place), **run) as searcher:
        check_hnsw(searcher, hnsw)
        if (made := arguments.reranker(rerank, rerank_blend, **run)) is not None:
            searcher.reranker = made
        session = Session(searcher, top_k, options, explain, context)
        if asking:
            names_of_all = ", ".join(searcher.retrievers)
            print_plain(f"{redacted(place)}: {number_of(searcher.count(), 'document')} for {names_of_all}.", WELCOME)
            session.interact()
        elif query is not None and as_json:
            print_json(session.json(query))
        elif query is not None:
            session.show(query)
        else:
            queries = (line.strip() for line in sys.stdin if line.strip())
            if as_json:
                print_json([session.json(text) for text in queries])
            else:
                for text in queries:
                    session.show(text)


@app.command(cls=Verb, rich_help_panel=SEARCHING)
def explain(
    place: arguments.Place,
    words: Annotated[list[str], arg("QUERY", "Query, with or without quotes.")],
    id: Annotated[str, arg("ID", "Id of the document.")],
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    feedback: arguments.FeedbackNames = None,
    synonyms: arguments.Synonyms = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Explain why a document has its rank for a query, or why it was not found.

    \bExample:
      hybridsearch explain papers "boundary layer on a wing" some-document-id
    """
    with _open(place, synonyms, backend_options=backend_options(option), **ways(precision, runtime)) as searcher:
        explanation = searcher.explain(
            " ".join(words),
            id,
            retrievers=split_names(retrievers),
            candidates=candidates,
            feedback=feedback_of(feedback),
        )
    if as_json:
        print_json(explanation.to_dict())
    else:
        print_plain(str(explanation))


def _open(place: str, synonyms: Path | None, **options: Any) -> HybridSearch:
    """The index at a place, with other synonyms if they are given. `options` are arguments of `hs.open`."""
    import hybridsearch as hs

    searcher = hs.open(place, **options)
    if synonyms is None:
        return searcher
    with searcher:
        lexical = {name: one for name, one in searcher.retrievers.items() if isinstance(one, hs.BM25)}
    if not lexical:
        names = ", ".join(searcher.retrievers)
        raise InvalidArgumentError(
            f"--synonyms is for bm25, but the retrievers of this index ({names}) are of other kinds: leave it out."
        )
    replaced = {name: one.with_synonyms(synonyms) for name, one in lexical.items()}
    return hs.open(place, retrievers=replaced, **options)


def _least(given: str | None) -> float | dict[str, float] | None:
    """The limit that `--min-score SCORE` gives, or the limits that `--min-score NAME=SCORE,...` gives."""
    if given is None:
        return None
    try:
        if "=" not in given:
            return float(given)
        pairs = [(name.strip(), float(score)) for name, _, score in (one.rpartition("=") for one in given.split(","))]
    except ValueError:
        raise InvalidArgumentError(
            f"--min-score takes a number, or numbers for retrievers such as bm25=2,dense=0.4, not {given!r:.80}."
        ) from None
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidArgumentError(f"--min-score names {twice!r:.80} twice: leave one out.")
    return dict(pairs)


def _recency(given: str | None) -> Recency | None:
    """The boost that `--recent FIELD=TIME` gives."""
    if given is None:
        return None
    from hybridsearch.rerank import Recency

    field, equals, half_life = given.rpartition("=")
    try:
        if equals:
            return Recency(field, half_life)
    except InvalidArgumentError:
        pass
    raise InvalidArgumentError(
        f"--recent takes FIELD=TIME with a time such as 12h, 30d or 1y, as in published=30d, not {given!r:.80}."
    )
