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
from typer.core import TyperCommand, TyperOption

from hybridsearch.cli.app import app
from hybridsearch.cli.arguments import Json, Language, Options, arg, backend_options, opt
from hybridsearch.cli.terminal import console_on, print_json, print_plain
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of

if TYPE_CHECKING:
    from hybridsearch.search import HybridSearch
    from hybridsearch.training.runs.run import TrainingResult


class KindName(StrEnum):
    """What is trained."""

    dense = "dense"
    sparse = "sparse"
    reranker = "reranker"


# An option of `train`, under a heading of its help
_of_data = partial(opt, rich_help_panel="Data")
_of_unlabelled = partial(opt, rich_help_panel="Without labels")
_of_training = partial(opt, rich_help_panel="How to train")
_of_run = partial(opt, rich_help_panel="The run")
_of_dense = partial(opt, rich_help_panel="Dense models")
_of_sparse = partial(opt, rich_help_panel="Sparse models")
_of_reranker = partial(opt, rich_help_panel="Rerankers")

_HERE = ("kind", "config", "as_json")  # of the command itself, not of the run

_PANELS = {"Dense models": "dense", "Sparse models": "sparse", "Rerankers": "reranker"}
"""Whose options are under a heading."""

_PAIRS = "mnr, cached-mnr, cosent, angle, cosine, contrastive, online-contrastive, triplet"
_LOSSES = {
    "dense": f"{_PAIRS}, softmax, kl, margin-mse or mse",
    "sparse": f"{_PAIRS}, margin-mse, kl, cached-margin-mse, cached-kl or mse",
    "reranker": "bce, mse, cross-entropy, mnr, cached-mnr, margin-mse, lambda, list-net, list-mle, p-list-mle, "
    "rank-net or adr-mse",
}
"""The losses of `hybridsearch.training.losses`. That module loads too much for a help text."""

_ROLES = "anchor, positive, negative, negative_2, text, docs, label, class, score, embedding, query_id, document_id"


class _Train(TyperCommand):
    """`train`. Its help for one kind of model shows the options and losses of this kind."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["kind"] = next((one for one in args if one in _LOSSES), None)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        kind = ctx.meta.get("kind")
        were = [(param, param.hidden, param.help) for param in self.params if isinstance(param, TyperOption)]
        try:
            for param, _, help in were if kind is not None else ():
                param.hidden = _PANELS.get(str(param.rich_help_panel), kind) != kind
                if param.name == "loss":
                    param.help = f"{_LOSSES[kind]}. {help}"
            super().format_help(ctx, formatter)
        finally:
            for param, hidden, help in were:
                param.hidden, param.help = hidden, help


@app.command(cls=_Train)
def train(
    context: typer.Context,
    kind: Annotated[KindName, typer.Argument(help="What the model is.", show_default=False)],
    data: Annotated[
        list[str] | None,
        _of_data(
            "SOURCE",
            "A file (CSV, TSV, JSON, JSONL, Parquet, Arrow), a BEIR folder, a database or a hub name. Repeated: "
            "a mixture.",
        ),
    ] = None,
    model: Annotated[str | None, _of_run("MODEL", "Where to start: a folder or a hub name.")] = None,
    output: Annotated[Path | None, _of_run("FOLDER", "Where the model goes.")] = None,
    config: Annotated[
        Path | None,
        _of_run("FILE", "YAML with any of these options, as in `batch_size: 64`. Options here go before it."),
    ] = None,
    columns: Annotated[
        str | None, _of_data("ROLE=COLUMN", f"Such as anchor=q,positive=a,label=grade. Roles: {_ROLES}.")
    ] = None,
    ignore: Annotated[str | None, _of_data("COLUMNS", "Joined by commas: leave these out.")] = None,
    sql: Annotated[str | None, _of_data("QUERY", "What to select where --data is a database.")] = None,
    split: Annotated[str | None, _of_data("NAME", "Part of the data. Default: train.")] = None,
    subset: Annotated[str | None, _of_data("NAME", "Configuration of a hub data set.")] = None,
    limit: Annotated[int | None, _of_data("N", "Use this many rows, or of judged queries whole ones.", min=1)] = None,
    dev: Annotated[
        list[str] | None,
        _of_data(
            "DATASET",
            "Choose the best checkpoint by its split dev, by a file of rows, or by an evaluator (TYPE=SOURCE, as "
            "below; the first of several). Default: the split dev of --data, or a part of its queries (at least 10), "
            "or of pairs (at least 100).",
        ),
    ] = None,
    test: Annotated[
        str | None,
        _of_data(
            "DATASET",
            "Report before and after on its split test, which chooses nothing. Default: that of --data, if it "
            "is a folder with one, or a part of its pairs (at least 100).",
        ),
    ] = None,
    corpus: Annotated[
        str | None, _of_data("CORPUS", "Documents to mine negatives in. Default: that of --data.")
    ] = None,
    hard_negatives: Annotated[
        int | None, _of_data("N", "Negatives mined for each pair from BM25 with the model.", min=1)
    ] = None,
    evaluator: Annotated[
        list[str] | None,
        _of_data(
            "TYPE=SOURCE",
            "Also measure before and after: nanobeir, sts=FOLDER, retrieval=DATASET, or reranking, triplet, "
            "similarity, binary, translation, paraphrase-mining=FILE. Can be repeated.",
        ),
    ] = None,
    unsupervised: Annotated[
        str | None,
        _of_unlabelled(
            "CORPUS",
            "Train from documents alone: questions made of titles, headings and sentences, negatives mined from "
            "BM25 with the model.",
        ),
    ] = None,
    generator: Annotated[str | None, _of_unlabelled("MODEL", "Also let this seq2seq model or LLM ask.")] = None,
    per_document: Annotated[int | None, _of_unlabelled("N", "Questions made of a document, at most.", min=1)] = None,
    teacher: Annotated[
        str | None,
        _of_data(
            "MODEL",
            "Learn the scores that this cross-encoder or dense model gives to mined or given negatives. With "
            "--unsupervised also hybrid: BM25 with the model.",
        ),
    ] = None,
    loss: Annotated[str | None, _of_training("NAME", "Default: what suits the data, said with the reason.")] = None,
    epochs: Annotated[float | None, _of_training("N", "Default: 3.")] = None,
    max_steps: Annotated[int | None, _of_training("N", "Stop after these steps.")] = None,
    batch_size: Annotated[int | None, _of_training("N", "Default: 32.")] = None,
    accumulation: Annotated[int | None, _of_training("N", "Batches to an optimizer step. Default: 1.")] = None,
    mini_batch_size: Annotated[int | None, _of_training("N", "Rows at a time in cached losses. Default: 32.")] = None,
    learning_rate: Annotated[
        float | None, _of_training("N", "Default: dense 3e-5, sparse 1e-4, reranker 5e-5.")
    ] = None,
    warmup_ratio: Annotated[float | None, _of_training("N", "Default: 0.1.")] = None,
    schedule: Annotated[str | None, _of_training("NAME", "linear, cosine or constant.")] = None,
    weight_decay: Annotated[float | None, _of_training("N", "Default: 0.")] = None,
    dropout: Annotated[float | None, _of_training("N", "0 is twice as fast on a CPU.")] = None,
    max_length: Annotated[int | None, _of_training("N", "Tokens of a text, or of a reranker's pair.")] = None,
    sampling: Annotated[str | None, _of_training("NAME", "Of a mixture: proportional or round-robin.")] = None,
    precision: Annotated[str | None, _of_training("NAME", "fp32, fp16, bf16 or auto.")] = None,
    gradient_checkpointing: Annotated[
        bool | None, _of_training(None, "Save memory.", "--gradient-checkpointing")
    ] = None,
    seed: Annotated[int | None, _of_training("N", "Default: 0.")] = None,
    measure: Annotated[str | None, _of_run("NAME", "Chooses on --dev. Default: nDCG@10.")] = None,
    evaluate_every: Annotated[
        float | None, _of_run("N", "Steps, or below 1 a part of an epoch. Default: an epoch.")
    ] = None,
    patience: Annotated[int | None, _of_run("N", "Stop after so many evaluations without a better one.")] = None,
    keep_checkpoints: Annotated[int | None, _of_run("N", "Default: 2.")] = None,
    resume: Annotated[bool | None, _of_run(None, "Go on after the last checkpoint.", "--resume")] = None,
    trackers: Annotated[str | None, _of_run("NAMES", "Of tensorboard, wandb, codecarbon.")] = None,
    push_to_hub: Annotated[str | None, _of_run("NAME", "Upload the model under this name.")] = None,
    trust_remote_code: Annotated[
        bool | None, _of_run(None, "Let code in the model's folder run.", "--trust-remote-code")
    ] = None,
    as_json: Annotated[bool, _of_run(None, "Print one JSON document and nothing else.", "--json")] = False,
    matryoshka_dims: Annotated[
        str | None, _of_dense("SIZES", "Such as 384,256,128: also train shorter vectors.")
    ] = None,
    pooling: Annotated[str | None, _of_dense("NAME", "Of a model without one: mean, cls or lasttoken.")] = None,
    query_prompt: Annotated[str | None, _of_dense("TEXT", "Before each query.")] = None,
    document_prompt: Annotated[str | None, _of_dense("TEXT", "Before each document.")] = None,
    lora: Annotated[
        int | None,
        _of_dense("N", "Train adapters of this rank only. More of it in YAML: `lora: {rank: 16, alpha: 32}`.", min=1),
    ] = None,
    architecture: Annotated[
        str | None, _of_sparse("NAME", "splade, inference-free or csr. Default: the model's.")
    ] = None,
    document_regularizer_weight: Annotated[
        float | None, _of_sparse("N", "Larger: sparser documents; with a target only its start.")
    ] = None,
    query_regularizer_weight: Annotated[
        float | None, _of_sparse("N", "Larger: sparser queries; with a target only its start.")
    ] = None,
    target_active_dims: Annotated[int | None, _of_sparse("N", "How many a document should have.")] = None,
    target_query_active_dims: Annotated[int | None, _of_sparse("N", "The same for a query.")] = None,
    regularizer_schedule: Annotated[
        str | None, _of_sparse("NAME", "How the weights rise: quadratic, linear or constant.")
    ] = None,
    regularizer_warmup: Annotated[
        float | None, _of_sparse("N", "In which part of the steps they do. Default: a third.")
    ] = None,
    query_learning_rate: Annotated[float | None, _of_sparse("N", "Of an inference-free model's query table.")] = None,
    retriever: Annotated[
        str | None,
        _of_reranker("SPEC", "What it reorders: bm25, dense=MODEL, sparse=MODEL, joined by commas. Default: bm25."),
    ] = None,
) -> None:
    """Train a model, and say whether it got better on queries that it did not see.

    Such as: hybridsearch train dense --data scifact/ --model MODEL --output out. The folder then loads with
    sentence-transformers, and holds a model card and a report. `hybridsearch train dense --help` names the losses, and
    only what is for dense models.
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
        again = "the same command" if options.get("resume") else "the same command with --resume"
        print(f"Broken off: {again} goes on after the last checkpoint.", file=sys.stderr)
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
    data: Annotated[str, arg("DATA", "A BEIR folder with train qrels, or a file with pairs.")],
    output: Annotated[Path, opt("FOLDER", "Where the negatives go; a run that was broken off goes on there.")],
    index: Annotated[str | None, opt("PLACE", "Search this index.", "--index")] = None,
    retrievers: Annotated[
        str | None,
        opt(
            "SPEC",
            "Without --index: index the BEIR folder for bm25, dense=MODEL, sparse=MODEL, joined by commas. "
            "Default: bm25.",
        ),
    ] = None,
    language: Language = "english",
    split: Annotated[str, typer.Option(help="Whose judgements.")] = "train",
    columns: Annotated[str | None, opt("ROLE=COLUMN", "Such as anchor=q,positive=a.")] = None,
    per_query: Annotated[int, opt("N", "Negatives of each pair.", min=1)] = 1,
    ranks: Annotated[str, opt("FIRST-LAST", "Take them from these ranks.")] = "6-40",
    retriever: Annotated[str | None, opt("NAME", "Take the ranking of this one. Default: all, fused.")] = None,
    margin: Annotated[float | None, opt("N", "Score this much below the positive's, at least.")] = None,
    percentage: Annotated[float | None, opt("N", "Score at most this part of the positive's, such as 0.95.")] = None,
    max_score: Annotated[float | None, opt("N", "Score at most this.")] = None,
    min_score: Annotated[float | None, opt("N", "Score at least this.")] = None,
    reranker: Annotated[str | None, opt("MODEL", "Let this cross-encoder's scores decide about the above.")] = None,
    sampling: Annotated[str, opt("NAME", "top or random.")] = "top",
    seed: Annotated[int, opt("N", "For random.")] = 0,
    output_format: Annotated[str, opt("NAME", "triplets, n-tuples, labelled pairs or lists.")] = "triplets",
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Find hard negatives for pairs: what a search ranks high and nobody judged relevant."""
    from hybridsearch.cli.training_options import read_source
    from hybridsearch.training.data import read_training_data
    from hybridsearch.training.negatives.mining import mine_hard_negatives

    part = read_source({"source": data, "split": split, "columns": columns})
    pairs = read_training_data(part.source, **part.arguments)
    try:
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
    except KeyboardInterrupt:
        print(f"Broken off: the same command goes on with what is in {output}.", file=sys.stderr)
        raise
    if as_json:
        print_json({"output": str(output), "rows": len(found.data), **found.summary.to_dict()})
    else:
        console_on().print(found.summary)
        rows = number_of(len(found.data), "row is", "rows are")
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
