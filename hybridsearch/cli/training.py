"""The verb that adapts models."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperOption

from hybridsearch.cli.app import TRAINING, Verb, app
from hybridsearch.cli.arguments import MODELS, OUTPUT, flag, of_run, opt
from hybridsearch.cli.terminal import console_on, print_json, print_plain

if TYPE_CHECKING:
    from hybridsearch.training.runs.run import TrainingResult


class KindName(StrEnum):
    """The kind of model that is trained."""

    dense = "dense"
    sparse = "sparse"
    late_interaction = "late-interaction"
    reranker = "reranker"


# An option under a heading
_of_model = partial(opt, rich_help_panel="Model")
_of_data = partial(opt, rich_help_panel="Training data")
_of_negatives = partial(opt, rich_help_panel="Hard negatives and teacher")
_of_unlabelled = partial(opt, rich_help_panel="Training without judgements")
_of_measuring = partial(opt, rich_help_panel="Measuring")
_of_training = partial(opt, rich_help_panel="Training settings")
_of_dense = partial(opt, rich_help_panel="Dense models")
_of_dense_or_late = partial(opt, rich_help_panel="Dense and late-interaction models")
_of_sparse = partial(opt, rich_help_panel="Sparse models")
_of_late = partial(opt, rich_help_panel="Late-interaction models")
_of_late_or_reranker = partial(opt, rich_help_panel="Late-interaction models and rerankers")

_HERE = ("kind", "config", "as_json")  # parameters of the command line only

_PANELS = {
    "Dense models": ["dense"],
    "Dense and late-interaction models": ["dense", "late-interaction"],
    "Sparse models": ["sparse"],
    "Late-interaction models": ["late-interaction"],
    "Late-interaction models and rerankers": ["late-interaction", "reranker"],
}
"""The kinds of models that the options under a heading are for."""

_PAIRS = "mnr, cached-mnr, cosent, angle, cosine, contrastive, online-contrastive, triplet"
_LOSSES = {
    "dense": f"{_PAIRS}, gist, cached-gist, softmax, kl, margin-mse, mse, batch-hard, batch-semi-hard, batch-all, "
    "batch-hard-soft-margin or tsdae",
    "sparse": f"{_PAIRS}, margin-mse, kl, cached-margin-mse, cached-kl or mse",
    "late-interaction": "mnr, cached-mnr, kl or margin-mse",
    "reranker": "bce, mse, cross-entropy, mnr, cached-mnr, margin-mse, lambda, list-net, list-mle, p-list-mle, "
    "rank-net or adr-mse",
}
"""The losses of `hybridsearch.training.losses`. Importing that module takes too long for a help text."""

_ROLES = (
    "anchor, positive, negative, negative_2, text, docs, label, class, score, positive_scores, negative_scores, "
    "embedding, query_id, document_id"
)


class _Train(Verb):
    """The verb `train`. Its help for one kind of model shows only the options and losses of this kind."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["kind"] = next((one for one in args if one in _LOSSES), None)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        kind = ctx.meta.get("kind")
        were = [(param, param.hidden, param.help) for param in self.params if isinstance(param, TyperOption)]
        try:
            for param, _, help in were if kind is not None else ():
                param.hidden = kind not in _PANELS.get(str(param.rich_help_panel), _LOSSES)
                if param.name == "loss":
                    param.help = str(help).replace("Name of the loss", f"Name of the loss: {_LOSSES[kind]}")
            super().format_help(ctx, formatter)
        finally:
            for param, hidden, help in were:
                param.hidden, param.help = hidden, help


@app.command(cls=_Train, rich_help_panel=TRAINING)
def train(
    context: typer.Context,
    kind: Annotated[KindName, typer.Argument(help="Kind of the model.", show_default=False)],
    model: Annotated[str | None, _of_model("MODEL", f"Model to start from. {MODELS}")] = None,
    output: Annotated[Path | None, _of_model("FOLDER", "Folder for the trained model.")] = None,
    trust_remote_code: Annotated[
        bool | None, _of_model("", "Allow Python code in the model's folder to run.", "--trust-remote-code")
    ] = None,
    data: Annotated[
        list[str] | None,
        _of_data(
            "SOURCE",
            "Training data: a file (CSV, TSV, JSON, JSONL, Parquet, Arrow), a BEIR folder, a database, or a name on "
            "the Hugging Face hub. Can be repeated: the data sets are mixed.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        _of_data(
            "ROLE=COLUMN",
            "Roles of the columns, with commas, such as anchor=question,positive=answer. Default: columns that "
            f"have the name of a role. The roles are {_ROLES}.",
        ),
    ] = None,
    ignore: Annotated[str | None, _of_data("COLUMNS", "Columns to leave out, with commas.")] = None,
    rows: Annotated[
        str | None,
        _of_data(
            "KIND",
            "Kind of the rows, if the columns allow several: `lists` makes one list for each query of rows with a text "
            "and a label, `pairs with class` keeps NLI pairs as they are. A file of --dev is read in the same way. "
            "Default: found by the columns.",
        ),
    ] = None,
    sql: Annotated[str | None, _of_data("QUERY", "SQL query that selects the rows, if --data is a database.")] = None,
    split: Annotated[str | None, _of_data("NAME", "Split of the data. Default: train.")] = None,
    subset: Annotated[str | None, _of_data("NAME", "Subset (configuration) of a data set on the hub.")] = None,
    limit: Annotated[
        int | None,
        _of_data(
            "N", "Number of rows to use at most. A judged query is used with all of its rows or not at all.", min=1
        ),
    ] = None,
    hard_negatives: Annotated[
        int | None,
        _of_negatives(
            "N",
            "Number of hard negatives to mine for each pair, from a search with BM25 and the model. Default with "
            "--unsupervised: 1, or 5 with --teacher hybrid.",
            min=1,
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        _of_negatives(
            "SOURCE", "Documents in which negatives are mined: a file or folder. Default: the documents of --data."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        _of_negatives(
            "MODEL",
            "Cross-encoder, dense or late-interaction model whose scores of positives and negatives the model learns. "
            "With --unsupervised it can also be `hybrid`: a search with BM25 and the model, which grades documents "
            "for sentences.",
        ),
    ] = None,
    unsupervised: Annotated[
        str | None,
        _of_unlabelled(
            "SOURCE",
            "Documents, as a file or folder, to train on without judgements. Queries are made from titles, headings "
            "and sentences. Hard negatives are mined with BM25 and the model. With --loss tsdae the texts themselves "
            "are trained on.",
        ),
    ] = None,
    queries: Annotated[
        str | None,
        _of_unlabelled(
            "KINDS",
            "Kinds of queries that are made, with commas: title, generated, heading, sentence. The first are "
            "preferred. Default: all.",
        ),
    ] = None,
    generator: Annotated[
        str | None, _of_unlabelled("MODEL", "Language model that also writes queries for the documents.")
    ] = None,
    per_document: Annotated[
        int | None, _of_unlabelled("N", "Number of queries made from one document at most. Default: 3.", min=1)
    ] = None,
    dev: Annotated[
        list[str] | None,
        _of_measuring(
            "DATASET",
            "Data that choose the best checkpoint: a data set (its split dev), a file of rows, or an evaluator "
            "TYPE=SOURCE (see --evaluator). Can be repeated with evaluators: the first one chooses. Default: the split "
            "dev of --data. Without this split, a tenth of the judged queries (if there are 10 or more) or of the "
            "pairs (if there are 100 or more) of --data.",
        ),
    ] = None,
    test: Annotated[
        str | None,
        _of_measuring(
            "DATASET",
            "Data set that is measured before and after training (split test). It chooses nothing. Default: the split "
            "test of a data set in --data, or a tenth of the pairs in --data (if there are 100 or more).",
        ),
    ] = None,
    evaluator: Annotated[
        list[str] | None,
        _of_measuring(
            "TYPE=SOURCE",
            "Evaluator that also measures the model before and after training: nanobeir, sts=FOLDER, "
            "retrieval=DATASET, or TYPE=FILE with one of the types reranking, triplet, similarity, binary, translation "
            "and paraphrase-mining. Can be repeated.",
        ),
    ] = None,
    measure: Annotated[
        str | None, _of_measuring("NAME", "Measure that chooses the best checkpoint on --dev. Default: nDCG@10.")
    ] = None,
    evaluate_every: Annotated[
        float | None,
        _of_measuring(
            "N",
            "Number of steps between two evaluations on --dev. A number below 1 is a share of an epoch. Default: one "
            "epoch.",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        _of_measuring(
            "N",
            "Number of evaluations. Training stops if so many in a row are not better than an earlier one. Default: "
            "never stop.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        _of_training("NAME", "Name of the loss. Default: a loss that suits the data. It is printed with the reason."),
    ] = None,
    epochs: Annotated[float | None, _of_training("N", "Number of passes over the data. Default: 3.")] = None,
    max_steps: Annotated[int | None, _of_training("N", "Number of steps after which training stops.")] = None,
    batch_size: Annotated[int | None, _of_training("N", "Number of rows in a batch. Default: 32.")] = None,
    accumulation: Annotated[
        int | None, _of_training("N", "Number of batches for one step of the optimiser. Default: 1.")
    ] = None,
    mini_batch_size: Annotated[
        int | None,
        _of_training("N", "Number of rows that a cached loss computes at a time. Fewer need less memory. Default: 32."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _of_training(
            "N",
            "Highest learning rate. Default: 3e-5 for dense and late-interaction, 1e-4 for sparse, "
            "5e-5 for a reranker.",
        ),
    ] = None,
    warmup_ratio: Annotated[
        float | None, _of_training("N", "Share of the steps in which the learning rate rises. Default: 0.1.")
    ] = None,
    schedule: Annotated[
        str | None,
        _of_training("NAME", "How the learning rate falls afterwards: linear, cosine or constant. Default: linear."),
    ] = None,
    weight_decay: Annotated[float | None, _of_training("N", "Weight decay of AdamW. Default: 0.")] = None,
    dropout: Annotated[
        float | None,
        _of_training("N", "Dropout of the model. 0 is about twice as fast on a CPU. Default: the model's value."),
    ] = None,
    max_length: Annotated[
        int | None,
        _of_training(
            "N", "Number of tokens after which a text (for a reranker: a pair) is cut. Default: the model's value."
        ),
    ] = None,
    sampling: Annotated[
        str | None,
        _of_training("NAME", "Order of several data sets: proportional or round-robin. Default: proportional."),
    ] = None,
    precision: Annotated[
        str | None, _of_training("NAME", "Precision of the computation: fp32, fp16, bf16 or auto. Default: auto.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, _of_training("", "Use less memory and more time.", "--gradient-checkpointing")
    ] = None,
    seed: Annotated[int | None, _of_training("N", "Random seed. Default: 0.")] = None,
    config: Annotated[
        Path | None,
        of_run(
            "FILE",
            "YAML file with any of these options, such as `batch_size: 64`. Options of the command line replace "
            "options of the file.",
        ),
    ] = None,
    keep_checkpoints: Annotated[int | None, of_run("N", "Number of checkpoints that stay on disk. Default: 2.")] = None,
    resume: Annotated[bool | None, of_run("", "Go on after the last checkpoint in --output.", "--resume")] = None,
    trackers: Annotated[
        str | None, of_run("NAMES", "Tools that record the run, with commas, such as tensorboard, mlflow, wandb.")
    ] = None,
    push_to_hub: Annotated[
        str | None, of_run("NAME", "Name on the Hugging Face hub under which the model is uploaded.")
    ] = None,
    matryoshka_dims: Annotated[
        str | None,
        _of_dense("SIZES", "Shorter vector sizes that are trained too, with commas, such as 384,256,128."),
    ] = None,
    pooling: Annotated[
        str | None,
        _of_dense("NAME", "How token vectors become one vector: mean, cls or lasttoken. Default: the model's pooling."),
    ] = None,
    query_prompt: Annotated[str | None, _of_dense_or_late("TEXT", "Text that is put before each query.")] = None,
    document_prompt: Annotated[str | None, _of_dense_or_late("TEXT", "Text that is put before each document.")] = None,
    guide: Annotated[
        str | None,
        _of_dense(
            "MODEL",
            "Dense model for --loss gist: texts of a batch that it finds nearer than the positive are no negatives.",
        ),
    ] = None,
    lora: Annotated[
        int | None,
        _of_dense_or_late(
            "N",
            "Rank of LoRA adapters. Only the adapters are trained. The file of --config can set more: `lora: {rank: "
            "16, alpha: 32}`.",
            min=1,
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        _of_sparse("NAME", "Architecture: splade, inference-free or csr. Default: decided by the model."),
    ] = None,
    target_active_dims: Annotated[
        int | None, _of_sparse("N", "Number of active dimensions that a document should have on average.")
    ] = None,
    target_query_active_dims: Annotated[
        int | None, _of_sparse("N", "Number of active dimensions that a query should have on average.")
    ] = None,
    document_regularizer_weight: Annotated[
        float | None,
        _of_sparse(
            "N",
            "Weight that makes documents sparse. A larger one makes them sparser. With --target-active-dims it is only "
            "the start value. Default: 1e-4.",
        ),
    ] = None,
    query_regularizer_weight: Annotated[
        float | None,
        _of_sparse(
            "N",
            "Weight that makes queries sparse. A larger one makes them sparser. With --target-query-active-dims it is "
            "only the start value. Default: 1e-4.",
        ),
    ] = None,
    regularizer_schedule: Annotated[
        str | None,
        _of_sparse("NAME", "How these two weights rise: quadratic, linear or constant. Default: quadratic."),
    ] = None,
    regularizer_warmup: Annotated[
        float | None, _of_sparse("N", "Share of the steps in which these two weights rise. Default: a third.")
    ] = None,
    query_learning_rate: Annotated[
        float | None,
        _of_sparse("N", "Learning rate of the query weights of an inference-free model. Default: 1e-3."),
    ] = None,
    dimensions: Annotated[
        int | None,
        _of_late(
            "N",
            "Number of dimensions of a token vector, by a projection that is added to the model. ColBERT has 128. "
            "Default: the model's dimensions.",
            min=1,
        ),
    ] = None,
    retriever: Annotated[
        str | None,
        _of_late_or_reranker(
            "SPEC",
            "Retrievers whose results are reranked, with commas: bm25, chars, dense=MODEL, sparse=MODEL, late=MODEL. "
            "Default: bm25.",
        ),
    ] = None,
    as_json: Annotated[
        bool, flag("--json", "Print one JSON document and nothing else.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Train a model on your data, and measure on unseen queries whether it got better.

    --model, --output and either --data or --unsupervised are required. The
    folder of --output then holds the model, a model card and a report.
    sentence-transformers and hybridsearch can load it from there.

    `hybridsearch train dense --help` shows only the options and losses of
    dense models. The same works for the other kinds.

    \bExamples:
      hybridsearch train dense --data scifact/ --model MODEL --output out
      hybridsearch train dense --unsupervised notes/ --model MODEL --output out
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
        print(f"Interrupted: run {again} to go on after the last checkpoint.", file=sys.stderr)
        raise
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes of accelerate, only the first one prints
    if as_json:
        print_json(_as_dict(result))
        return
    print_plain(result.summary)
    if result.comparison is not None:
        console_on().print(result.comparison)
    print_plain(f"The model is in {result.path}. Its report.md has these figures too.")


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
