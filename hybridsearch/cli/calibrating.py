"""The verb that computes the weights of a fusion from the grades of a judge."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from hybridsearch.cli import arguments
from hybridsearch.cli.app import MEASURING, Verb, app
from hybridsearch.cli.arguments import MODELS, backend_options, of_output, opt, ways
from hybridsearch.cli.sources import check_outputs
from hybridsearch.cli.terminal import console_on, print_json, print_plain

_of_judge = partial(opt, rich_help_panel="Judge")


@app.command(cls=Verb, rich_help_panel=MEASURING)
def calibrate(
    place: arguments.Place,
    queries: Annotated[
        str,
        _of_judge(
            "FILE",
            "File of 50 to 500 queries that users ask: a query in each line, a log of `serve --log-queries`, or TREC "
            "topics.",
            "--queries",
        ),
    ],
    judge: Annotated[
        str,
        _of_judge(
            "MODEL",
            "Judge of the documents. MODEL is a cross-encoder, late=MODEL a late-interaction model, and dense=MODEL a "
            f"dense model. {MODELS} Or a folder of judgements: then the grades of people count.",
            "--judge",
        ),
    ],
    depth: Annotated[
        int, _of_judge("N", "Number of first documents of each retriever to grade.", "--depth", min=1)
    ] = 10,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    option: arguments.Options = None,
    save: Annotated[
        Path | None, of_output("FILE", "JSON file for the fusion. `search --fusion FILE` takes it.", "--save")
    ] = None,
    keep: Annotated[
        Path | None, of_output("FOLDER", "New folder of judgements for the grades of the judge.", "--keep")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Let a judge weigh the retrievers, without judged queries.

    The judge grades the first documents of each retriever. A retriever gets
    more weight if its documents are better. The judge must not be one of the
    retrievers. The table has the strength of each retriever: how far its
    first ten documents are above the mean, in standard deviations of the
    grades. Fewer than 50 queries often leave the weights near equal.

    \bExamples:
      hybridsearch calibrate papers --queries q.txt --judge MODEL --save judged.json
      hybridsearch search papers "layer on a wing" --fusion judged.json
    """
    import hybridsearch as hs
    from hybridsearch.evaluation.datasets import read_queries
    from hybridsearch.fusion.base import check_file

    check_outputs(save=save)
    if save is not None:
        check_file(save)
    run = ways(precision, runtime)
    with hs.open(place, backend_options=backend_options(option), **run) as searcher:
        fusion = hs.calibrate(searcher, read_queries(queries), _read(judge, run), depth=depth, folder=keep)
    if save is not None:
        fusion.save(save)
    if as_json:
        print_json(fusion.to_json())
    else:
        console_on().print(fusion)
        if save is not None:
            print_plain(f"Saved: {save}. Give it to `hybridsearch search --fusion`.")


def _read(judge: str, run: dict[str, Any]) -> Any:
    """The judge that `--judge` names."""
    import hybridsearch as hs

    if (Path(judge) / "pool.json").is_file():
        return hs.Judgements(judge)
    if judge.startswith("dense="):
        return hs.Dense(judge.removeprefix("dense="), **run)
    return arguments.reranker(judge, None, **run)
