"""The verbs `train` and `mine`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.cli.app import app
from hybridsearch.cli.arguments import Json, Language, Options, backend_options
from hybridsearch.cli.terminal import console_on, print_json, print_plain
from hybridsearch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from hybridsearch.search import HybridSearch
    from hybridsearch.training.runs.run import TrainingResult


class KindName(StrEnum):
    """What is trained."""

    dense = "dense"
    sparse = "sparse"
    reranker = "reranker"


# An option of `train`, under a heading of its help
_of_data = partial(typer.Option, rich_help_panel="Data")
_of_unlabelled = partial(typer.Option, rich_help_panel="Without labels")
_of_training = partial(typer.Option, rich_help_panel="How to train")
_of_run = partial(typer.Option, rich_help_panel="The run")
_of_dense = partial(typer.Option, rich_help_panel="Dense models")
_of_sparse = partial(typer.Option, rich_help_panel="Sparse models")
_of_reranker = partial(typer.Option, rich_help_panel="Rerankers")

_HERE = ("kind", "config", "as_json")  # of the command itself, not of the run


@app.command()
def train(
    context: typer.Context,
    kind: Annotated[KindName, typer.Argument(help="What the model is.", show_default=False)],
    data: Annotated[
        list[str] | None,
        _of_data(
            metavar="SOURCE",
            help="A file (CSV, TSV, JSON, JSONL, Parquet, Arrow), a BEIR folder, a database or a hub name. Repeated: "
            "a mixture.",
        ),
    ] = None,
    model: Annotated[str | None, _of_run(metavar="MODEL", help="Where to start: a folder or a hub name.")] = None,
    output: Annotated[Path | None, _of_run(metavar="FOLDER", help="Where the model goes.")] = None,
    config: Annotated[
        Path | None,
        _of_run(
            metavar="FILE", help="YAML with any of these options, as in `batch_size: 64`. Options here go before it."
        ),
    ] = None,
    columns: Annotated[
        str | None, _of_data(metavar="ROLE=COLUMN", help="Such as anchor=q,positive=a,label=grade.")
    ] = None,
    ignore: Annotated[str | None, _of_data(metavar="COLUMNS", help="Joined by commas: leave these out.")] = None,
    sql: Annotated[str | None, _of_data(metavar="QUERY", help="What to select where --data is a database.")] = None,
    split: Annotated[str | None, _of_data(metavar="NAME", help="Part of the data. Default: train.")] = None,
    subset: Annotated[str | None, _of_data(metavar="NAME", help="Configuration of a hub data set.")] = None,
    limit: Annotated[
        int | None, _of_data(metavar="N", min=1, help="Use this many rows, or of judged queries whole ones.")
    ] = None,
    dev: Annotated[
        list[str] | None,
        _of_data(
            metavar="DATASET",
            help="Choose the best checkpoint by its split dev, or by an evaluator (TYPE=SOURCE, as below; the first "
            "of several). Default: a part of the train queries (at least 10), or of pairs (at least 100).",
        ),
    ] = None,
    test: Annotated[
        str | None,
        _of_data(
            metavar="DATASET",
            help="Report before and after on its split test, which chooses nothing. Default: that of --data, if it "
            "is a folder with one, or a part of its pairs (at least 100).",
        ),
    ] = None,
    corpus: Annotated[
        str | None, _of_data(metavar="CORPUS", help="Documents to mine negatives in. Default: that of --data.")
    ] = None,
    hard_negatives: Annotated[
        int | None, _of_data(metavar="N", min=1, help="Negatives mined for each pair from BM25 with the model.")
    ] = None,
    evaluator: Annotated[
        list[str] | None,
        _of_data(
            metavar="TYPE=SOURCE",
            help="Also measure before and after: nanobeir, sts=FOLDER, similarity=FILE, triplet=FILE, binary=FILE ... "
            "Can be repeated.",
        ),
    ] = None,
    unsupervised: Annotated[
        str | None,
        _of_unlabelled(
            metavar="CORPUS",
            help="Train from documents alone: questions made of titles, headings and sentences, negatives mined from "
            "BM25 with the model.",
        ),
    ] = None,
    generator: Annotated[
        str | None, _of_unlabelled(metavar="MODEL", help="Also let this seq2seq model or LLM ask.")
    ] = None,
    per_document: Annotated[
        int | None, _of_unlabelled(metavar="N", min=1, help="Questions made of a document, at most.")
    ] = None,
    teacher: Annotated[
        str | None,
        _of_data(
            metavar="MODEL",
            help="Learn the scores that this cross-encoder or dense model gives to mined or given negatives. With "
            "--unsupervised also hybrid: BM25 with the model.",
        ),
    ] = None,
    loss: Annotated[
        str | None, _of_training(metavar="NAME", help="Default: what suits the data, said with the reason.")
    ] = None,
    epochs: Annotated[float | None, _of_training(metavar="N", help="Default: 3.")] = None,
    max_steps: Annotated[int | None, _of_training(metavar="N", help="Stop after these steps.")] = None,
    batch_size: Annotated[int | None, _of_training(metavar="N", help="Default: 32.")] = None,
    accumulation: Annotated[
        int | None, _of_training(metavar="N", help="Batches to an optimizer step. Default: 1.")
    ] = None,
    mini_batch_size: Annotated[
        int | None, _of_training(metavar="N", help="Rows at a time in cached losses. Default: 32.")
    ] = None,
    learning_rate: Annotated[
        float | None, _of_training(metavar="N", help="Default: dense 3e-5, sparse 1e-4, reranker 5e-5.")
    ] = None,
    warmup_ratio: Annotated[float | None, _of_training(metavar="N", help="Default: 0.1.")] = None,
    schedule: Annotated[str | None, _of_training(metavar="NAME", help="linear, cosine or constant.")] = None,
    weight_decay: Annotated[float | None, _of_training(metavar="N", help="Default: 0.")] = None,
    dropout: Annotated[float | None, _of_training(metavar="N", help="0 is twice as fast on a CPU.")] = None,
    max_length: Annotated[
        int | None, _of_training(metavar="N", help="Tokens of a text, or of a reranker's pair.")
    ] = None,
    sampling: Annotated[
        str | None, _of_training(metavar="NAME", help="Of a mixture: proportional or round-robin.")
    ] = None,
    precision: Annotated[str | None, _of_training(metavar="NAME", help="fp32, fp16, bf16 or auto.")] = None,
    gradient_checkpointing: Annotated[
        bool | None, _of_training("--gradient-checkpointing", help="Save memory.")
    ] = None,
    seed: Annotated[int | None, _of_training(metavar="N", help="Default: 0.")] = None,
    measure: Annotated[str | None, _of_run(metavar="NAME", help="Chooses on --dev. Default: nDCG@10.")] = None,
    evaluate_every: Annotated[
        float | None, _of_run(metavar="N", help="Steps, or below 1 a part of an epoch. Default: an epoch.")
    ] = None,
    patience: Annotated[
        int | None, _of_run(metavar="N", help="Stop after so many evaluations without a better one.")
    ] = None,
    keep_checkpoints: Annotated[int | None, _of_run(metavar="N", help="Default: 2.")] = None,
    resume: Annotated[bool | None, _of_run("--resume", help="Go on after the last checkpoint.")] = None,
    trackers: Annotated[str | None, _of_run(metavar="NAMES", help="Of tensorboard, wandb, codecarbon.")] = None,
    push_to_hub: Annotated[str | None, _of_run(metavar="NAME", help="Upload the model under this name.")] = None,
    trust_remote_code: Annotated[
        bool | None, _of_run("--trust-remote-code", help="Let code in the model's folder run.")
    ] = None,
    as_json: Annotated[bool, _of_run("--json", help="Print one JSON document and nothing else.")] = False,
    matryoshka_dims: Annotated[
        str | None, _of_dense(metavar="SIZES", help="Such as 384,256,128: also train shorter vectors.")
    ] = None,
    pooling: Annotated[
        str | None, _of_dense(metavar="NAME", help="Of a model without one: mean, cls or lasttoken.")
    ] = None,
    query_prompt: Annotated[str | None, _of_dense(metavar="TEXT", help="Before each query.")] = None,
    document_prompt: Annotated[str | None, _of_dense(metavar="TEXT", help="Before each document.")] = None,
    lora: Annotated[
        int | None,
        _of_dense(
            metavar="N",
            min=1,
            help="Train adapters of this rank only. More of it in YAML: `lora: {rank: 16, alpha: 32}`.",
        ),
    ] = None,
    architecture: Annotated[
        str | None, _of_sparse(metavar="NAME", help="splade, inference-free or csr. Default: the model's.")
    ] = None,
    document_regularizer_weight: Annotated[
        float | None, _of_sparse(metavar="N", help="Larger: sparser documents; with a target only its start.")
    ] = None,
    query_regularizer_weight: Annotated[
        float | None, _of_sparse(metavar="N", help="Larger: sparser queries; with a target only its start.")
    ] = None,
    target_active_dims: Annotated[int | None, _of_sparse(metavar="N", help="How many a document should have.")] = None,
    target_query_active_dims: Annotated[int | None, _of_sparse(metavar="N", help="The same for a query.")] = None,
    regularizer_schedule: Annotated[
        str | None, _of_sparse(metavar="NAME", help="How the weights rise: quadratic, linear or constant.")
    ] = None,
    regularizer_warmup: Annotated[
        float | None, _of_sparse(metavar="N", help="In which part of the steps they do. Default: a third.")
    ] = None,
    query_learning_rate: Annotated[
        float | None, _of_sparse(metavar="N", help="Of an inference-free model's query table.")
    ] = None,
    retriever: Annotated[
        str | None,
        _of_reranker(
            metavar="SPEC", help="What it reorders: bm25, dense=MODEL, sparse=MODEL, joined by commas. Default: bm25."
        ),
    ] = None,
) -> None:
    """Train a model, and say whether it got better on queries that it did not see.

    Such as: hybridsearch train dense --data scifact/ --model MODEL --output out. The folder then loads with
    sentence-transformers, and holds a model card and a report.
    """
    from hybridsearch.cli.training_options import check_options, read_config, run_options

    known = [str(one.name) for one in context.command.params if one.name in context.params and one.name not in _HERE]
    options = {} if config is None else read_config(config, kind.value, known)
    given = {name: context.params[name] for name in known if context.params[name] not in (None, ())}
    options |= {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    check_options(kind.value, options)
    try:
        result = run_options(kind.value, options, show_progress_bar=False if as_json else None)
    except KeyboardInterrupt:
        print("Broken off: the same command with --resume goes on after the last checkpoint.", file=sys.stderr)
        raise
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes of accelerate; the first one speaks
    if as_json:
        print_json(_as_dict(result))
        return
    print_plain(result.summary)
    if result.comparison is not None:
        console_on().print(result.comparison)
    print_plain(f"The model is in {result.path}, with what is said here in report.md.")


@app.command()
def mine(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A BEIR folder with train qrels, or a file with pairs.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the negatives go; a run that was broken off goes on there.")
    ],
    index: Annotated[str | None, typer.Option("--index", metavar="PLACE", help="Search this index.")] = None,
    retrievers: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Without --index: index the BEIR folder for bm25, dense=MODEL, sparse=MODEL, joined by commas. "
            "Default: bm25.",
        ),
    ] = None,
    language: Language = "english",
    split: Annotated[str, typer.Option(help="Whose judgements.")] = "train",
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN", help="Such as anchor=q,positive=a.")] = None,
    per_query: Annotated[int, typer.Option(metavar="N", min=1, help="Negatives of each pair.")] = 1,
    ranks: Annotated[str, typer.Option(metavar="FIRST-LAST", help="Take them from these ranks.")] = "6-40",
    retriever: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take the ranking of this one. Default: all, fused.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="N", help="Score this much below the positive's, at least.")
    ] = None,
    percentage: Annotated[
        float | None, typer.Option(metavar="N", help="Score at most this part of the positive's, such as 0.95.")
    ] = None,
    max_score: Annotated[float | None, typer.Option(metavar="N", help="Score at most this.")] = None,
    min_score: Annotated[float | None, typer.Option(metavar="N", help="Score at least this.")] = None,
    reranker: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Let this cross-encoder's scores decide about the above.")
    ] = None,
    sampling: Annotated[str, typer.Option(metavar="NAME", help="top or random.")] = "top",
    seed: Annotated[int, typer.Option(metavar="N", help="For random.")] = 0,
    output_format: Annotated[
        str, typer.Option(metavar="NAME", help="triplets, n-tuples, labelled pairs or lists.")
    ] = "triplets",
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Find hard negatives for pairs: what a search ranks high and nobody judged relevant."""
    from hybridsearch.cli.training_options import read_source
    from hybridsearch.training.data import read_training_data
    from hybridsearch.training.negatives.mining import mine_hard_negatives

    part = read_source({"source": data, "split": split, "columns": columns})
    pairs = read_training_data(part.source, **part.arguments)
    with _searched(data, split, index, retrievers or "bm25", language, option) as search:
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
            reranker=reranker,
            sampling=sampling,  # type: ignore[arg-type]
            seed=seed,
            output_format=output_format,  # type: ignore[arg-type]
            output=output,
            show_progress_bar=False if as_json else None,
        )
    if as_json:
        print_json({"output": str(output), "rows": len(found.data), **found.summary.to_dict()})
    else:
        console_on().print(found.summary)
        rows = "1 row is" if len(found.data) == 1 else f"{len(found.data):,} rows are"
        print_plain(f"{rows} in {output}.")


# How it is done


@contextmanager
def _searched(
    data: str, split: str, index: str | None, retrievers: str, language: str, option: list[str] | None
) -> Iterator[HybridSearch]:
    """The index to mine: one that is there, or one of the BEIR folder's documents."""
    import hybridsearch as hs
    from hybridsearch.encoders.spec import make_encoders
    from hybridsearch.evaluation.datasets import load_one

    if index is not None:
        with hs.open(index, backend_options=backend_options(option)) as search:
            yield search
        return
    if not Path(data).is_dir():
        raise InvalidArgumentError(
            f"{data} has no documents to search: give the index of its documents, --index PLACE."
        )
    corpus = load_one(data, split).corpus
    if corpus is None:
        raise InvalidArgumentError(f"{data} has no corpus: give the index of its documents, --index PLACE.")
    with hs.HybridSearch(make_encoders(retrievers, language), backend_options=backend_options(option)) as search:
        search.index(corpus)
        yield search


def _parse_ranks(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.strip().isdecimal() and last.strip().isdecimal()):
        raise InvalidArgumentError(f"--ranks takes FIRST-LAST, such as 6-40, not {text!r:.40}.")
    return int(first), int(last)


def _as_dict(result: TrainingResult) -> dict[str, Any]:
    from hybridsearch.training.measure.report import without_rankings

    return {
        "path": str(result.path),
        "summary": result.summary,
        "comparison": None if result.comparison is None else without_rankings(result.comparison),
        "evaluators": {name: {"before": before, "after": after} for name, (before, after) in result.figures.items()},
        "history": result.history.to_dict(),
        "settings": result.settings.to_dict(),
    }
