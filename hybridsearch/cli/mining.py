"""The verb that finds hard negatives for training."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hybridsearch.cli.app import TRAINING, Verb, app
from hybridsearch.cli.arguments import (
    Json,
    Language,
    Options,
    Precision,
    Runtime,
    arg,
    backend_options,
    check_built,
    of_index,
    of_output,
    opt,
    ways,
)
from hybridsearch.cli.arguments import (
    reranker as make_reranker,
)
from hybridsearch.cli.terminal import console_on, print_json, print_plain
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of

if TYPE_CHECKING:
    from hybridsearch.search import HybridSearch

_of_data = partial(opt, rich_help_panel="Training data")
_of_choice = partial(opt, rich_help_panel="Which documents are negatives")


@app.command(cls=Verb, rich_help_panel=TRAINING)
def mine(
    data: Annotated[str, arg("DATA", "Pairs of queries and relevant documents: a BEIR folder, or a file of pairs.")],
    output: Annotated[
        Path, of_output("FOLDER", "Folder for the negatives. After an interruption the same command goes on.")
    ],
    split: Annotated[str, _of_data("NAME", "Split of the judgements.")] = "train",
    columns: Annotated[
        str | None,
        _of_data("ROLE=COLUMN", "Roles of the columns, with commas, such as anchor=question,positive=answer."),
    ] = None,
    index: Annotated[
        str | None,
        of_index("PLACE", "Place of an index of the documents. It is searched for negatives.", "--index"),
    ] = None,
    retrievers: Annotated[
        str | None,
        of_index(
            "SPEC",
            "Retrievers of a temporary index of the documents of DATA, if there is no --index: bm25, chars, "
            "dense=MODEL, sparse=MODEL, late=MODEL, with commas. Default: bm25.",
        ),
    ] = None,
    precision: Precision = None,
    runtime: Runtime = None,
    language: Language = None,
    option: Options = None,
    per_query: Annotated[int, _of_choice("N", "Number of negatives for each query.", min=1)] = 1,
    ranks: Annotated[
        str,
        _of_choice(
            "FIRST-LAST",
            "Ranks from which negatives are taken. The first ranks often hold relevant documents that nobody judged.",
        ),
    ] = "6-40",
    retriever: Annotated[
        str | None,
        _of_choice("NAME", "Name of the one retriever whose ranking is used. Default: all retrievers, merged."),
    ] = None,
    margin: Annotated[
        float | None,
        _of_choice("N", "Least distance between the score of a negative and the score of the positive."),
    ] = None,
    percentage: Annotated[
        float | None,
        _of_choice("N", "Highest score of a negative as a share of the positive's score, such as 0.95."),
    ] = None,
    max_score: Annotated[float | None, _of_choice("N", "Highest score of a negative.")] = None,
    min_score: Annotated[float | None, _of_choice("N", "Lowest score of a negative.")] = None,
    reranker: Annotated[
        str | None,
        _of_choice(
            "MODEL",
            "Cross-encoder, or late=MODEL for a late-interaction model, whose scores are used for the margin, the "
            "share and the limits above.",
        ),
    ] = None,
    sampling: Annotated[
        str, _of_choice("NAME", "Choice among the documents that pass: `top` takes the best ranks, `random` takes any.")
    ] = "top",
    seed: Annotated[int, _of_choice("N", "Random seed of --sampling random.")] = 0,
    output_format: Annotated[
        str, of_output("NAME", "Format of the rows: triplets, n-tuples, labelled pairs or lists.")
    ] = "triplets",
    as_json: Json = False,
) -> None:
    """Find hard negatives: documents that a search ranks high although they are not judged relevant.

    The rows are training data for `hybridsearch train --data FOLDER`.

    \bExample:
      hybridsearch mine scifact/ --output negatives
      hybridsearch train dense --data negatives --model MODEL --output out
    """
    from hybridsearch.cli.training_options import read_source
    from hybridsearch.training.data import read_training_data
    from hybridsearch.training.negatives.mining import mine_hard_negatives

    check_built(index, retrievers=retrievers, language=language)
    part = read_source({"source": data, "split": split, "columns": columns})
    pairs = read_training_data(part.source, **part.arguments)
    try:
        run = ways(precision, runtime)
        spec = retrievers or "bm25"
        with _searched(data, split, index, spec, language, option, run) as search:
            found = mine_hard_negatives(
                pairs,
                search,
                per_query=per_query,
                ranks=_parse_ranks(ranks),
                retriever=retriever,
                margin=margin,
                percentage=percentage,
                max_score=max_score,
                min_score=min_score,
                reranker=make_reranker(reranker, None, **run),
                sampling=sampling,  # type: ignore[arg-type]
                seed=seed,
                output_format=output_format,  # type: ignore[arg-type]
                output=output,
                show_progress_bar=False if as_json else None,
            )
    except KeyboardInterrupt:
        print(f"Interrupted: run the same command to go on with the rows in {output}.", file=sys.stderr)
        raise
    if as_json:
        print_json({"output": str(output), "rows": len(found.data), **found.summary.to_dict()})
    else:
        console_on().print(found.summary)
        rows = number_of(len(found.data), "row is", "rows are")
        print_plain(f"{rows} in {output}.")


@contextmanager
def _searched(
    data: str,
    split: str,
    index: str | None,
    retrievers: str,
    language: str | None,
    option: list[str] | None,
    run: dict[str, Any],
) -> Iterator[HybridSearch]:
    """The index to mine: the one at `index`, or a temporary one of the BEIR folder's documents.

    `run` are the arguments `precision` and `runtime` of encoders.
    """
    import hybridsearch as hs
    from hybridsearch.encoders.spec import make_encoders
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.training.data import is_retrieval

    if index is not None:
        with hs.open(index, backend_options=backend_options(option), **run) as search:
            yield search
        return
    corpus = load_one(data, split).corpus if is_retrieval(data) else None
    if corpus is None:
        raise InvalidArgumentError(
            f"{data} has no documents to search: give an index of the documents with --index PLACE."
        )
    encoders = make_encoders(retrievers, language, **(run if re.search("dense=|sparse=|late=", retrievers) else {}))
    with hs.HybridSearch(encoders, backend_options=backend_options(option)) as search:
        search.index(corpus)
        yield search


def _parse_ranks(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.strip().isdecimal() and last.strip().isdecimal()):
        raise InvalidArgumentError(f"--ranks takes FIRST-LAST, such as 6-40, not {text!r:.40}.")
    return int(first), int(last)
