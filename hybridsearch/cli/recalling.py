"""The verb that measures what an approximate search misses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from hybridsearch.cli import arguments
from hybridsearch.cli.app import MEASURING, Verb, app
from hybridsearch.cli.arguments import backend_options, check_hnsw, of_search, opt, split_names, ways
from hybridsearch.cli.terminal import console_on, parse_filter, print_json


@app.command(cls=Verb, rich_help_panel=MEASURING)
def recall(
    place: arguments.Place,
    queries: Annotated[
        str | None,
        opt(
            "SOURCE",
            "Queries to ask: a file with a query in each line, a log of `serve --log-queries`, TREC topics, or the "
            "name of a data set, as in `evaluate`. Default: titles or first words of documents of the index, which are "
            "easier.",
            "--queries",
            rich_help_panel="Queries",
        ),
    ] = None,
    number: Annotated[int, opt("N", "Number of queries, at most.", "--number", rich_help_panel="Queries", min=1)] = 100,
    top_k: Annotated[int, of_search("N", "Number of first hits to compare.", "--top-k", "-k", min=1)] = 10,
    filter: Annotated[
        str | None, of_search("JSON", """Filter of all queries, such as '{"year": {"$gte": 2020}}'.""")
    ] = None,
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    hnsw: arguments.Hnsw = False,
    option: arguments.Options = None,
    target: Annotated[
        float, opt("SHARE", "Recall from which nothing has to change.", rich_help_panel="Advice", min=0.01, max=1)
    ] = 0.95,
    as_json: arguments.Json = False,
) -> None:
    """Measure what an index misses because it is searched approximately.

    Each query is asked as always, and by the engine's own exact search.
    The table has the share of exact hits that were found, with its
    interval, and the time of both. If too much is missed, it says what to
    change.

    \bExamples:
      hybridsearch recall opensearch://localhost:9200/papers
      hybridsearch recall papers --hnsw --queries queries.txt
    """
    import hybridsearch as hs

    with hs.open(place, backend_options=backend_options(option, hnsw, place), **ways(precision, runtime)) as searcher:
        check_hnsw(searcher, hnsw)
        report = hs.recall(
            searcher,
            None if queries is None else _read(queries),
            number=number,
            top_k=top_k,
            candidates=candidates,
            retrievers=split_names(retrievers),
            filter=parse_filter(filter),
            target=target,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        console_on().print(report)


def _read(source: str) -> Any:
    """The queries of a file or of a data set."""
    from hybridsearch.evaluation.datasets import load_one, read_queries

    return read_queries(source) if Path(source).is_file() else load_one(source)
