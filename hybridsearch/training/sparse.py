"""Train a sparse encoder (SPLADE, inference-free SPLADE or CSR) and measure what the training changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hybridsearch.arguments import number, one_of, whole_number_or_none
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.model_folders import family_of, find_model
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.data import TrainingData
from hybridsearch.training.distill import Teacher
from hybridsearch.training.loss_objects import LossObject
from hybridsearch.training.losses import Architecture, RegularizerSchedule
from hybridsearch.training.measure.comparing import changed_expansions, compare_sparsity
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.architectures import architecture_of, load_sparse, query_parameters
from hybridsearch.training.runs.record import is_main_process
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps, prompts_of_columns
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source, Sources, searched_texts, texts_of

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder
    from transformers import TrainerCallback

_SAMPLED = 32  # texts of each side that show how dropout changes sparsity
_COUNTED = 1000  # documents of dev whose active dimensions are counted; those of test are encoded in any case
_SHOWN = 200  # texts that are searched for the expansions that changed most


def train_sparse(
    model: str | Path | SparseEncoder,
    data: Source | Sequence[Source] | Mapping[str, Source],
    output: str | Path,
    *,
    architecture: Architecture | None = None,
    loss: str | LossObject | None = None,
    document_regularizer_weight: float = 1e-4,
    query_regularizer_weight: float = 1e-4,
    regularizer_schedule: RegularizerSchedule = "quadratic",
    regularizer_warmup: float = 1 / 3,
    target_active_dims: int | None = None,
    target_query_active_dims: int | None = None,
    query_learning_rate: float = 1e-3,
    hard_negatives: int | None = None,
    teacher: Teacher | str | Path | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    evaluators: Spec | Sequence[Spec] | None = None,
    settings: TrainingSettings | None = None,
    callbacks: Iterable[TrainerCallback] = (),
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a sparse model (a SparseEncoder), save it, and measure its quality and sparsity before and after training.

    Each evaluation reports the active dimensions and FLOPS together with the quality. Each log of the training loss
    has the weights of the regularisers and the active dimensions of the batches, which are measured with dropout.

    Args:
        model: Model to train: a folder, a name on the model hub, or a loaded SparseEncoder. A loaded model is copied
            and does not change.
        data: Training data, as in `hybridsearch.train_dense`.
        output: Folder for the trained model, as in `hybridsearch.train_dense`.
        architecture: Kind of sparse model. "splade" and "inference-free" start from a masked language model or a
            SPLADE, "csr" from a dense model or a CSR. None keeps the architecture of a sparse model, makes a SPLADE of
            a masked language model, and a CSR of a dense model.
        loss: Name of the loss, loss, or function from the model to a loss, as in `hybridsearch.train_dense`. The loss
            is wrapped in sentence-transformers' SpladeLoss, or in CSRLoss for CSR, if it is not one of them. None
            chooses a loss for each data set.
        document_regularizer_weight: Weight of the FLOPS regulariser (Paria et al., arXiv:2004.05665) of documents, 0 or
            more. A larger weight makes vectors sparser. CSR has no regulariser. With `target_active_dims`, this is only
            the first value of the weight.
        query_regularizer_weight: Weight of the FLOPS regulariser of queries, 0 or more. CSR and inference-free models
            do not use it. With `target_query_active_dims`, this is only the first value of the weight.
        regularizer_schedule: How the weights of the regularisers rise from 0: "quadratic", "linear", or "constant" for
            the full weight from the first step.
        regularizer_warmup: Share of the steps in which these weights rise, above 0 and at most 1.
        target_active_dims: Mean number of active dimensions that a document should have. None sets no target. CSR keeps
            exactly this number for documents and queries. For the other architectures, the weight of the regulariser
            first rises, and then follows the measured number (`hybridsearch.training.models.regularization`). A
            checkpoint that is more than a tenth above the target is chosen only if there is no other checkpoint.
            Regularisers only make vectors sparser, so a target above the number without regularisers is not reached.
        target_query_active_dims: Mean number of active dimensions that a query should have, for SPLADE only. None sets
            no target.
        query_learning_rate: Learning rate of the query weights of an inference-free model. All other weights have the
            learning rate of the settings.
        hard_negatives: Number of hard negatives to mine for each pair, as in `hybridsearch.train_dense`. They come from
            BM25 together with the model before training. If the model is a plain masked language model, they come from
            BM25 alone. None mines nothing.
        teacher: Model whose scores the student learns, as in `hybridsearch.train_dense`.
        corpus: Documents to mine from. A new inference-free model also counts its first query weights in them. None
            takes the documents of each data set, or else its positives.
        dev: Data or evaluators that choose the best checkpoint, as in `hybridsearch.train_dense`.
        test: Held-out queries with judgements, as in `hybridsearch.train_dense`.
        evaluators: Further evaluators, as in `hybridsearch.train_dense`.
        settings: Settings of the run. None takes the defaults.
        callbacks: Callbacks of transformers, as in `hybridsearch.train_dense`.
        trust_remote_code: Whether code in the folder of a named model may run.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The folder of the trained model, and the report of the run.

    Raises:
        InvalidArgumentError: The model cannot get this architecture, the architecture does not have an option that was
            given, or one of the reasons of `hybridsearch.train_dense`.
        DocumentError: A row of the data is malformed.
        DatasetNotFoundError: There is no such data set.
        ModelNotFoundError: There is no such model.
        TrainingError: The loss is NaN or infinite, the memory of the GPU is too small, or the model cannot be uploaded.
        MissingExtraError: The extra `training` is not installed.
    """
    targets = {
        "document": whole_number_or_none("target_active_dims", target_active_dims),
        "query": whole_number_or_none("target_query_active_dims", target_query_active_dims),
    }
    one_of("regularizer_schedule", regularizer_schedule, get_args(RegularizerSchedule))
    number("regularizer_warmup", regularizer_warmup, above=0, most=1)
    number("query_learning_rate", query_learning_rate, above=0, below=1)
    steps = Steps("sparse", data, output, settings, corpus, dev, test, evaluators, trust_remote_code, show_progress_bar)
    trained = load_sparse(
        model,
        architecture,
        documents=searched_texts(steps.sources),
        active_dims=target_active_dims,
        trust_remote_code=trust_remote_code,
        seed=steps.settings.seed,
    )
    from hybridsearch.training.models.splade import pool_directly

    pool_directly(trained)
    made = architecture_of(trained)
    if made != "splade" and target_query_active_dims is not None:
        raise InvalidArgumentError(
            f"target_query_active_dims is only for SPLADE, and this model is {made!r}. Its queries have as many active "
            f"dimensions as {'tokens' if made == 'inference-free' else 'documents'}. Leave the option out."
        )
    was = _kind_before(model)
    searching = _retriever(model, was, trust_remote_code)
    steps.mine(hard_negatives, searching)
    steps.teach(teacher)
    steps.take_loss(loss, model, trained)
    steps.choose_losses()
    weights = {
        "document_regularizer_weight": document_regularizer_weight,
        "query_regularizer_weight": query_regularizer_weight,
    }
    losses = steps.build_losses(trained, architecture=made, **weights)
    training = steps.sources.training
    asked = {side: target for side, target in targets.items() if target is not None}
    followed = {} if made == "csr" else asked
    query_weights = query_parameters(trained)
    steps.fit(
        trained,
        losses,
        _within(steps.dev_evaluator(), followed),
        {
            "architecture": made,
            "document_regularizer_weight": document_regularizer_weight if made != "csr" else None,
            "query_regularizer_weight": query_regularizer_weight if made == "splade" else None,
            "regularizer_schedule": regularizer_schedule if made != "csr" else None,
            "regularizer_warmup": regularizer_warmup if made != "csr" else None,
            "target_active_dims": target_active_dims,
            "target_query_active_dims": target_query_active_dims,
            "query_learning_rate": query_learning_rate if made == "inference-free" else None,
        },
        callbacks=[*_controls(losses, training, followed, regularizer_schedule, regularizer_warmup), *callbacks],
        prompts=prompts_of_columns(trained, training),
        router_mapping=_routes(training) if made == "inference-free" else None,
        learning_rate_mapping={} if query_weights is None else {query_weights: query_learning_rate},
    )
    before, after = steps.open(model) if was == "sparse" else None, steps.open(steps.output)
    beside: dict[str, Encoder] = {"dense": searching} if was == "dense" and searching is not None else {}
    said = {"targets": asked, **_sparsity(before, after, steps.sources)}
    return steps.conclude(model, before, after, said, beside={**beside, "bm25": BM25()})


def _kind_before(model: str | Path | SparseEncoder) -> Literal["sparse", "dense", "language model"]:
    """What the model was before training. Only a sparse and a dense model can search."""
    if not isinstance(model, str | Path):
        return "sparse"
    family = family_of(find_model(str(model), "SparseEncoder"))
    return "sparse" if family == "SparseEncoder" else "dense" if family == "SentenceTransformer" else "language model"


def _retriever(model: Any, kind: str, trust: bool) -> Encoder | None:
    """The encoder that mines negatives together with BM25. None for a language model."""
    if kind == "language model":
        return None
    return (Dense if kind == "dense" else Sparse)(model, trust_remote_code=trust)


def _routes(data: Iterable[TrainingData]) -> dict[str, str]:
    """The route of each column through an inference-free model."""
    return {column: "query" if column == "anchor" else "document" for one in data for column in one.inputs}


def _controls(
    losses: Mapping[str, Any],
    data: Iterable[TrainingData],
    targets: Mapping[str, int],
    schedule: RegularizerSchedule,
    warmup: float,
) -> list[Any]:
    """The callbacks that move the weights of the regularisers, one for each loss that has regularisers."""
    from sentence_transformers.sparse_encoder.losses import SpladeLoss

    from hybridsearch.training.models.regularization import RegularizerControl

    return [
        RegularizerControl(
            losses[one.name],
            schedule=schedule,
            warmup_ratio=warmup,
            targets=targets,
            samples={side: list(itertools.islice(texts_of(one, side), _SAMPLED)) for side in targets},
            name=one.name,
        )
        for one in data
        if isinstance(losses[one.name], SpladeLoss)
    ]


def _within(evaluator: Any, targets: Mapping[str, int]) -> Any:
    """The evaluator, changed so that a checkpoint above a target scores lower."""
    from hybridsearch.training.models.regularization import WithinTarget

    return WithinTarget(evaluator, targets) if evaluator is not None and targets else evaluator


def _sparsity(before: Any, after: Any, sources: Sources) -> dict[str, Any]:
    """Sparsity and expansions for the report, measured on test, else on dev, else on texts of the training data."""
    if not is_main_process():
        return {}
    test, on = sources.test, ""
    if test is None and isinstance(sources.dev, Dataset) and sources.dev.corpus is not None:
        test = replace(sources.dev, corpus=list(itertools.islice(sources.dev.corpus, _COUNTED)))
        on = f"dev ({test.name}), at most {_COUNTED:,} documents"
    if test is None:
        one = sources.training[0]
        on = f"texts of {one.name} that it was trained on"
        asked, found = (list(itertools.islice(texts_of(one, side), _SHOWN)) for side in ("query", "document"))
        documents = [Document(str(number), text) for number, text in enumerate(found)]
        test = Dataset(one.name, {str(number): text for number, text in enumerate(asked or found)}, {}, documents)
    return {
        "sparsity": compare_sparsity(before, after, test),
        "sparsity_on": on,
        "expansions": changed_expansions(before, after, list(test.queries.values())[:_SHOWN]),
    }
