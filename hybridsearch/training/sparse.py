"""Train a sparse encoder: SPLADE, inference-free SPLADE or CSR, as sparse as asked for, with the proof."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hybridsearch.arguments import number, one_of, whole_number_or_none
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.models import family_of, find_model
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.data import TrainingData
from hybridsearch.training.distill import Teacher
from hybridsearch.training.losses import Architecture, RegularizerSchedule
from hybridsearch.training.measure.comparing import changed_expansions, compare_sparsity
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.architectures import architecture_of, load_sparse, query_parameters
from hybridsearch.training.runs.record import is_main_process
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps, prompts_of_columns
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source, Sources

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

_SAMPLED = 32  # texts of each side on which dropout's effect on sparsity is measured
_SHOWN = 200  # texts among which the expansions that changed most are looked for


def train_sparse(
    model: str | Path | SparseEncoder,
    data: Source | Sequence[Source] | Mapping[str, Source],
    output: str | Path,
    *,
    architecture: Architecture | None = None,
    loss: str | None = None,
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
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a SparseEncoder, and measure what it gave: quality and sparsity, before and after.

    Data, dev and test are as in `hybridsearch.train_dense`. Each evaluation has the active dimensions and FLOPS beside
    the quality; each log of the training loss has the regularisers' weights and the active dimensions of its batches
    (dropout is on in these).

    Args:
        model: a folder, a name on the model hub, or a loaded SparseEncoder, which stays as it is.
        architecture: "splade" or "inference-free", from a masked language model or a SPLADE; "csr", from a dense model
            or a CSR; None for what the model is or suits (`hybridsearch.training.models.architectures`).
        loss: by name, for all data; None for the one that suits each (`hybridsearch.training.losses`). It goes into
            sentence-transformers' SpladeLoss, or for CSR into CSRLoss.
        document_regularizer_weight, query_regularizer_weight: of the FLOPS regulariser (Paria et al., arXiv:2004.05665)
            on either side: more is sparser. The queries of an inference-free model have none, CSR has none at all.
            On a side with a target it is only where the weight starts.
        regularizer_schedule: how these weights rise from 0; "constant" for the full weight at once.
        regularizer_warmup: in which share of the steps they rise, above 0 and at most 1.
        target_active_dims: mean active dimensions that a document shall have. CSR keeps just as many, of documents and
            queries. Of the others the weight follows what is measured, once it has risen
            (`hybridsearch.training.models.regularization`), and a checkpoint above the target by more than a tenth is
            chosen only where none is below. Regularisers only make vectors sparser: a target above what a model does
            without them is not reached.
        target_query_active_dims: the same for the queries of a SPLADE.
        query_learning_rate: of an inference-free model's query weights; all else has that of the settings.
        hard_negatives: as in `hybridsearch.train_dense`, from BM25 and what the model was before; from BM25 alone
            where that is a masked language model without any training for search.
        corpus: documents to mine from, and to count the first query weights of a new inference-free model in; None for
            those of each data set, or its positives.
        data, output, teacher, dev, test, evaluators, settings, trust_remote_code, show_progress_bar: as in
            `hybridsearch.train_dense`.

    Raises:
        InvalidArgumentError and others, as `hybridsearch.train_dense` says: also where the architecture cannot be made
            of the model, or has no such option.
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
        documents=_documents(steps.sources),
        active_dims=target_active_dims,
        trust_remote_code=trust_remote_code,
        seed=steps.settings.seed,
    )
    from hybridsearch.training.models.splade import pool_directly

    pool_directly(trained)
    made = architecture_of(trained)
    if made != "splade" and target_query_active_dims is not None:
        raise InvalidArgumentError(
            f"target_query_active_dims is for SPLADE: the queries of {made!r} have as many active dimensions as "
            f"{'tokens' if made == 'inference-free' else 'documents'}. Leave it out."
        )
    was = _kind_before(model)
    searching = _retriever(model, was, trust_remote_code)
    steps.mine(hard_negatives, searching)
    steps.teach(teacher)
    steps.choose_losses(loss)
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
        callbacks=_controls(losses, training, followed, regularizer_schedule, regularizer_warmup),
        prompts=prompts_of_columns(trained, training),
        router_mapping=_routes(training) if made == "inference-free" else None,
        learning_rate_mapping={} if query_weights is None else {query_weights: query_learning_rate},
    )
    before, after = steps.open(model) if was == "sparse" else None, steps.open(steps.output)
    beside: dict[str, Encoder] = {"dense": searching} if was == "dense" and searching is not None else {}
    said = {"targets": asked, **_sparsity(before, after, steps.sources)}
    return steps.conclude(model, before, after, said, beside={**beside, "bm25": BM25()})


def _documents(sources: Sources) -> Iterator[str]:
    """What may be searched: each corpus, and of data without one the texts that are no questions."""
    corpora = {id(corpus): corpus for corpus in sources.corpora if corpus is not None}
    for corpus in corpora.values():
        yield from (document.content for document in corpus)
    for one, own in zip(sources.training, sources.corpora, strict=True):
        if own is None:
            yield from _texts(one, "document")


def _texts(data: TrainingData, side: str) -> Iterator[str]:
    """The texts of one side, column by column."""
    for column in data.inputs:
        if (column == "anchor") == (side == "query"):
            yield from data.rows[column]


def _kind_before(model: str | Path | SparseEncoder) -> Literal["sparse", "dense", "language model"]:
    """What the model was before: only the first two were trained to search."""
    if not isinstance(model, str | Path):
        return "sparse"
    family = family_of(find_model(str(model), "SparseEncoder"))
    return "sparse" if family == "SparseEncoder" else "dense" if family == "SentenceTransformer" else "language model"


def _retriever(model: Any, kind: str, trust: bool) -> Encoder | None:
    """What negatives are mined with, beside BM25."""
    if kind == "language model":
        return None
    return (Dense if kind == "dense" else Sparse)(model, trust_remote_code=trust)


def _routes(data: Iterable[TrainingData]) -> dict[str, str]:
    """Column -> route of an inference-free model."""
    return {column: "query" if column == "anchor" else "document" for one in data for column in one.inputs}


def _controls(
    losses: Mapping[str, Any],
    data: Iterable[TrainingData],
    targets: Mapping[str, int],
    schedule: RegularizerSchedule,
    warmup: float,
) -> list[Any]:
    """What moves the weights of the regularisers, where a loss has any."""
    from sentence_transformers.sparse_encoder.losses import SpladeLoss

    from hybridsearch.training.models.regularization import RegularizerControl

    return [
        RegularizerControl(
            losses[one.name],
            schedule=schedule,
            warmup_ratio=warmup,
            targets=targets,
            samples={side: list(itertools.islice(_texts(one, side), _SAMPLED)) for side in targets},
            name=one.name,
        )
        for one in data
        if isinstance(losses[one.name], SpladeLoss)
    ]


def _within(evaluator: Any, targets: Mapping[str, int]) -> Any:
    """The evaluator, to which a checkpoint above a target counts less."""
    from hybridsearch.training.models.regularization import WithinTarget

    return WithinTarget(evaluator, targets) if evaluator is not None and targets else evaluator


def _sparsity(before: Any, after: Any, sources: Sources) -> dict[str, Any]:
    """What the report says of sparsity and expansions: of the test set, else of dev, else of training texts."""
    if not is_main_process():
        return {}
    test, on = sources.test, ""
    if test is None and isinstance(sources.dev, Dataset) and sources.dev.corpus is not None:
        test, on = sources.dev, f"dev ({sources.dev.name})"
    if test is None:
        one = sources.training[0]
        on = f"texts of {one.name} that it was trained on"
        asked, found = (list(itertools.islice(_texts(one, side), _SHOWN)) for side in ("query", "document"))
        documents = [Document(str(number), text) for number, text in enumerate(found)]
        test = Dataset(one.name, {str(number): text for number, text in enumerate(asked or found)}, {}, documents)
    return {
        "sparsity": compare_sparsity(before, after, test),
        "sparsity_on": on,
        "expansions": changed_expansions(before, after, list(test.queries.values())[:_SHOWN]),
    }
