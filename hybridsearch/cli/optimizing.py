"""The verb that makes a model faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from hybridsearch.cli import arguments
from hybridsearch.cli.app import CHECKING, Verb, app
from hybridsearch.cli.arguments import MODELS, arg, of_documents, of_output, of_run
from hybridsearch.cli.terminal import console_on, print_json, print_plain


@app.command(cls=Verb, rich_help_panel=CHECKING)
def optimize(
    model: Annotated[str, arg("MODEL", f"Dense, sparse or late-interaction model, or cross-encoder. {MODELS}")],
    data: Annotated[
        str,
        of_documents(
            "TEXTS",
            "Documents as they will be searched, as in `hybridsearch index`. Or a data set with queries and judgements "
            "(a BEIR folder), so that nDCG is measured too.",
            "--data",
        ),
    ],
    output: Annotated[Path, of_output("FOLDER", "New folder for the faster model.", "--output")],
    texts: Annotated[int, of_run("N", "Number of texts from which the number ranges are taken.", min=1)] = 300,
    split: Annotated[str, of_run("NAME", "Split of the judgements of a data set.")] = "test",
    as_json: arguments.Json = False,
) -> None:
    """Make a copy of a model that computes in int8, and measure what that costs and gives.

    It is for a CPU, and needs the extra openvino. Every verb takes the new
    folder as a model.

    \bExample:
      hybridsearch optimize MODEL --data papers.jsonl --output my-model
      hybridsearch index papers.jsonl --index papers --retrievers bm25,dense=my-model
    """
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.evaluation.optimizing import optimize as run
    from hybridsearch.readers import read_documents

    judged = Path(data, "qrels").is_dir()
    result = run(model, load_one(data, split) if judged else read_documents(data), output, texts=texts)
    if as_json:
        print_json(result.to_dict())
    else:
        console_on().print(result)
        print_plain(f"Use {output} as MODEL, in every verb and in Python.")
