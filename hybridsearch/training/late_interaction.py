"""Train a late-interaction model (ColBERT) and measure it as a reranker, before and after training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.model_folders import family_of, find_model
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.evaluation.samples import spread
from hybridsearch.search import HybridSearch
from hybridsearch.training.distill import Teacher
from hybridsearch.training.loss_objects import LossObject
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.loading import hub_name, quiet, set_prompts
from hybridsearch.training.models.lora import LoraSettings, add_adapters, merge_adapters, thaw_adapters
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps, prompts_of_columns
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source, searched_texts

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from transformers import TrainerCallback

_PROJECTED = 256  # texts whose token vectors give a new projection


def train_late_interaction(
    model: str | Path | MultiVectorEncoder,
    data: Source | Sequence[Source] | Mapping[str, Source],
    output: str | Path,
    *,
    loss: str | LossObject | None = None,
    hard_negatives: int | None = None,
    teacher: Teacher | str | Path | None = None,
    retriever: HybridSearch | Pipeline | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    evaluators: Spec | Sequence[Spec] | None = None,
    settings: TrainingSettings | None = None,
    callbacks: Iterable[TrainerCallback] = (),
    dimensions: int | None = None,
    lora: LoraSettings | None = None,
    prompts: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a late-interaction model (a MultiVectorEncoder), save it, and measure it before and after training.

    For each test query, the model reranks the first 50 documents of `retriever` by MaxSim. Documents that the retriever
    did not find count as missed. The verdict compares the search after training with the search before training. If the
    model was a plain language model, it compares with the search without a reranker. The queries of dev are searched
    with the model alone.

    Args:
        model: Model to train: a folder, a name on the model hub, or a loaded MultiVectorEncoder. A loaded model is
            copied and does not change. A dense model or a plain language model gives its token vectors, scaled to unit
            length.
        data: Training data, as in `hybridsearch.train_dense`.
        output: Folder for the trained model, as in `hybridsearch.train_dense`.
        loss: Name of the loss, loss, or function from the model to a loss, as in `hybridsearch.train_dense`.
        hard_negatives: Number of hard negatives to mine for each pair. They are drawn at random from ranks 6 to 40 of
            `retriever`. Without a retriever, they come from BM25, together with `model` if it is a dense model. None
            mines nothing.
        teacher: Model whose scores the student learns, as in `hybridsearch.train_dense`. With it, the default loss is
            "kl": the student learns how the teacher distributes its scores over the positive and all negatives of a
            row.
        retriever: Index or pipeline whose results are mined and reranked. Its index must hold the documents of test.
            None reranks BM25.
        corpus: Documents to mine from, as in `hybridsearch.train_dense`.
        dev: Data or evaluators that choose the best checkpoint, as in `hybridsearch.train_dense`.
        test: Held-out queries with judgements, as in `hybridsearch.train_dense`.
        evaluators: Further evaluators, as in `hybridsearch.train_dense`.
        settings: Settings of the run. None takes the defaults.
        callbacks: Callbacks of transformers, as in `hybridsearch.train_dense`.
        dimensions: Number of dimensions of a token vector, for a model without a projection. ColBERT has 128. A linear
            projection is added. Its first weights are the principal directions of the token vectors of some documents,
            so the model keeps most of what it knew. None keeps the dimensions of the model.
        lora: Settings of LoRA, as in `hybridsearch.train_dense`.
        prompts: Texts that are put before queries and documents, as in `hybridsearch.train_dense`.
        trust_remote_code: Whether code in the folder of a named model may run.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The folder of the trained model, and the report of the run.

    Raises:
        InvalidArgumentError: The model cannot get these dimensions, or one of the reasons of
            `hybridsearch.train_dense`.
        DocumentError: A row of the data is malformed.
        DatasetNotFoundError: There is no such data set.
        ModelNotFoundError: There is no such model.
        TrainingError: The loss is NaN or infinite, the memory of the GPU is too small, or the model cannot be uploaded.
        MissingExtraError: The extra `training` is not installed.
    """
    steps = Steps(
        "late-interaction", data, output, settings, corpus, dev, test, evaluators, trust_remote_code, show_progress_bar
    )
    trained = load_late_interaction(model, trust_remote_code=trust_remote_code)
    if prompts is not None:
        set_prompts(trained, prompts)
    if dimensions is not None:
        project(trained, dimensions, searched_texts(steps.sources))
    family = "MultiVectorEncoder"
    if isinstance(model, str | Path):
        family = family_of(find_model(str(model), "MultiVectorEncoder")) or "language model"
    searching: Encoder | None = None
    if family == "SentenceTransformer":
        searching = Dense(model, trust_remote_code=trust_remote_code)
    steps.mine(hard_negatives, searching, retriever)
    steps.teach(teacher)
    if lora is not None:
        add_adapters(trained, lora, hub_name(model), seed=steps.settings.seed)
    steps.take_loss(loss, model, trained)
    steps.choose_losses(trained)
    steps.fit(
        trained,
        steps.build_losses(trained),
        steps.dev_evaluator(),
        {
            "dimensions": dimensions,
            "lora": None if lora is None else lora.to_dict(),
            "prompts": prompts if prompts is None or isinstance(prompts, str) else dict(prompts),
        },
        callbacks=callbacks,
        prompts=prompts_of_columns(trained, steps.sources.training),
        finish=merge_adapters if lora is not None and lora.merge else None,
    )
    before = None if family == "language model" else steps.open(model)
    if before is not None and prompts is not None:
        before = load_late_interaction(model, trust_remote_code=trust_remote_code)
        set_prompts(before, prompts)
    return steps.conclude(model, before, steps.open(steps.output), retriever=retriever)


def load_late_interaction(model: str | Path | MultiVectorEncoder, *, trust_remote_code: bool = False) -> Any:
    """Load a MultiVectorEncoder to train it, in float32.

    Args:
        model: Model, as in `train_late_interaction`. A loaded model is copied.
        trust_remote_code: Whether code in the folder of a named model may run.

    Returns:
        The MultiVectorEncoder. A dense model or a language model has no projection.

    Raises:
        ModelNotFoundError: There is no such model, or it cannot be loaded.
        InvalidArgumentError: The model is a cross-encoder or a sparse encoder.
    """
    if not isinstance(model, str | Path):
        return copy.deepcopy(LazyModel(model, "MultiVectorEncoder").get()).float()
    options: dict[str, Any] = {"model_kwargs": {"dtype": "float32"}, "trust_remote_code": trust_remote_code}
    with quiet():
        loaded = LazyModel(model, "MultiVectorEncoder", **options).get()
    thaw_adapters(loaded)
    if name := hub_name(model):
        loaded.model_card_data.base_model = name
    return loaded


def project(model: Any, dimensions: int, texts: Iterable[str]) -> None:
    """Add a linear projection of the token vectors to a model, which is changed in place.

    Its rows are the eigenvectors with the largest eigenvalues of the sum of v v' over the token vectors v of the texts,
    each of unit length. Of all projections it keeps the largest part of these vectors.

    Args:
        model: MultiVectorEncoder without a projection.
        dimensions: Number of dimensions after the projection, from 1 to the dimensions before it.
        texts: Texts of documents. At most 256 are read, spread over all texts.

    Raises:
        InvalidArgumentError: The number of dimensions is not allowed, or the model has a projection already.
    """
    import torch
    from sentence_transformers.base.modules import Dense as Projection

    dimensions, size = whole_number("dimensions", dimensions), model.get_embedding_dimension()
    if any(isinstance(module, Projection) for module in model):
        raise InvalidArgumentError(
            f"dimensions is {dimensions}, but the model already projects its token vectors to {size} dimensions. Leave "
            "dimensions out, or start from the model without a projection."
        )
    if dimensions > size:
        raise InvalidArgumentError(
            f"dimensions is {dimensions}, but the token vectors of the model have {size}. Give at most {size}, or "
            "leave it out."
        )
    moments = torch.zeros(size, size, dtype=torch.float64)
    for vectors in model.encode_document(spread(list(texts), _PROJECTED), batch_size=32, show_progress_bar=False):
        wide = vectors.cpu().double()
        moments += wide.T @ wide
    directions = torch.linalg.eigh(moments).eigenvectors.T.flip(0)[:dimensions]
    directions = directions.round(decimals=6).float() + 0.0  # the same for any number of threads, to resume a run
    projection = Projection(
        size,
        dimensions,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=directions,
        module_input_name="token_embeddings",
    )
    model.insert(1, projection.to(model.device))
