"""Train a reranker (a cross-encoder) and measure it at the end of a search, before and after training."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch.documents import Document
from hybridsearch.encoders.model_folders import find_model
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.messages import number_of
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.data.lists import grouped
from hybridsearch.training.distill import Teacher
from hybridsearch.training.loss_objects import LossObject
from hybridsearch.training.losses import count_classes
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.loading import load_to_train
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder
    from transformers import TrainerCallback

_OF_PAIRS = ("bce", "mse")
_OF_LISTS = ("lambda", "list-net", "p-list-mle", "list-mle", "rank-net", "adr-mse")


def train_reranker(
    model: str | Path | CrossEncoder,
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
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a reranker (a CrossEncoder), save it, and measure a search that it reranks before and after training.

    Tuples, such as mined negatives, take the form that the loss needs. "bce" and "mse" get labelled pairs. The losses
    on lists, such as "lambda", get one list for each query. "mnr" gets the tuples. The default loss for mined negatives
    is "bce". For other data, `hybridsearch.training.losses` has the defaults.

    For each test query, the reranker reads the first 50 documents of `retriever`. Documents that the retriever did not
    find count as missed. The verdict compares the search after training with the search before training. If the model
    had no trained head, it compares with the search without a reranker.

    Args:
        model: Model to train: a folder, a name on the model hub, or a loaded CrossEncoder. A loaded model is copied and
            does not change. Any other encoder gets a new head.
        data: Training data, as in `hybridsearch.train_dense`.
        output: Folder for the trained model, as in `hybridsearch.train_dense`.
        loss: Name of the loss, loss, or function from the model to a loss, as in `hybridsearch.train_dense`. Tuples
            take the form that a loss of sentence-transformers needs also if it is no name.
        hard_negatives: Number of hard negatives to mine for each pair. They are drawn at random from ranks 6 to 40 of
            `retriever`. None mines nothing.
        teacher: Model whose scores the student learns, as in `hybridsearch.train_dense`. Tuples then stay tuples, and
            the default loss is "margin-mse".
        retriever: Index or pipeline whose results are reranked and mined. Its index must hold the documents of dev and
            test. None searches with BM25.
        corpus: Documents to mine from if there is no `retriever`. None takes the documents of the data set, or else the
            positives.
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
        InvalidArgumentError: An argument does not fit the other arguments or the data, or the folder is taken.
        DocumentError: A row of the data is malformed.
        DatasetNotFoundError: There is no such data set.
        ModelNotFoundError: There is no such model.
        TrainingError: The loss is NaN or infinite, the memory of the GPU is too small, or the model cannot be uploaded.
        MissingExtraError: The extra `training` is not installed.
    """
    steps = Steps(
        "reranker", data, output, settings, corpus, dev, test, evaluators, trust_remote_code, show_progress_bar
    )
    was = {one.name: one.kind for one in steps.sources.training}
    steps.mine(hard_negatives, None, retriever)
    if teacher is None:
        steps.shape(lambda one: one if one.kind is was[one.name] else _by_default(one, loss))
    steps.teach(teacher)
    outputs = {count_classes(one) if one.kind is Kind.CLASSED else 1 for one in steps.sources.training}
    if len(outputs) > 1:
        raise InvalidArgumentError(
            f"A reranker has a single number of outputs, but these data sets need {sorted(outputs)}. Train one "
            "reranker for each number."
        )
    classes = _classes(steps.sources.training)
    seed = steps.settings.seed
    trained = load_reranker(model, outputs=max(outputs), trust_remote_code=trust_remote_code, seed=seed)
    if classes:
        trained.config.id2label = dict(enumerate(classes))
        trained.config.label2id = {name: number for number, name in enumerate(classes)}
    name = steps.take_loss(loss, model, trained)
    steps.shape(lambda one: shape_for(one, name or one.loss))
    steps.choose_losses()
    steps.fit(trained, steps.build_losses(trained), steps.dev_evaluator(retriever), {}, callbacks=callbacks)
    if outputs != {1}:  # classes give no order of documents
        steps.sources = replace(steps.sources, test=None)
    before = steps.open(model) if has_head(model) else None
    return steps.conclude(model, before, steps.open(steps.output), retriever=retriever)


def shape_for(data: TrainingData, loss: str | None) -> TrainingData:
    """Turn tuples into the labelled pairs or lists that a loss takes, and leave all other data as they are.

    A text that is a positive of a query in any row is never a negative of this query. Each text of a query comes once.
    For a loss on lists, labelled or scored pairs of the same query become one list.

    Args:
        data: Training data of any kind.
        loss: Name of the loss. None leaves the data as they are.

    Returns:
        Labelled pairs of tuples for "bce" and "mse", lists for the losses on lists, and otherwise `data`.

    >>> columns = {"anchor": ["q", "q"], "positive": ["a", "b"], "negative_1": ["x", "a"]}
    >>> data = TrainingData.from_columns(Kind.TUPLES, columns)
    >>> shape_for(data, "bce").rows.to_dict()
    {'anchor': ['q', 'q', 'q'], 'positive': ['a', 'b', 'x'], 'label': [1, 1, 0]}
    >>> shape_for(data, "lambda").rows.to_dict()
    {'query': ['q'], 'docs': [['a', 'b', 'x']], 'labels': [[1.0, 1.0, 0.0]]}
    """
    if data.kind in (Kind.LABELLED, Kind.SCORED) and loss in _OF_LISTS:
        return grouped(data)
    if data.kind is not Kind.TUPLES or loss not in (*_OF_PAIRS, *_OF_LISTS):
        return data
    grades: dict[str, dict[str, int]] = {}
    columns = [data.rows[column] for column in data.inputs]
    for anchor, positive in zip(*columns[:2], strict=True):
        grades.setdefault(anchor, {})[positive] = 1
    for negatives in columns[2:]:
        for anchor, negative in zip(columns[0], negatives, strict=True):
            grades[anchor].setdefault(negative, 0)
    if loss in _OF_LISTS:
        lists: dict[str, list[Any]] = {
            "query": list(grades),
            "docs": [list(of_query) for of_query in grades.values()],
            "labels": [[float(grade) for grade in of_query.values()] for of_query in grades.values()],
        }
        return TrainingData.from_columns(Kind.LISTS, lists, name=data.name, loss=data.loss, notes=data.notes)
    rows = [(anchor, text, grade) for anchor, of_query in grades.items() for text, grade in of_query.items()]
    pairs = dict(zip(("anchor", "positive", "label"), map(list, zip(*rows, strict=True)), strict=True))
    return TrainingData.from_columns(Kind.LABELLED, pairs, name=data.name, loss=data.loss, notes=data.notes)


def load_reranker(
    model: str | Path | CrossEncoder, *, outputs: int = 1, trust_remote_code: bool = False, seed: int = 0
) -> Any:
    """Load a CrossEncoder to train it, in float32.

    Args:
        model: Model, as in `train_reranker`. A loaded model is copied.
        outputs: Number of outputs of the head. If the head in a folder has another number, a new head takes its place.
        trust_remote_code: Whether code in the folder of a named model may run.
        seed: Seed of the weights of a new head.

    Returns:
        The CrossEncoder.

    Raises:
        ModelNotFoundError: There is no such model, or it cannot be loaded.
        InvalidArgumentError: A loaded model is not a CrossEncoder, or has another number of outputs.
    """
    if not isinstance(model, str | Path):
        loaded = LazyModel(model, "CrossEncoder").get()
        if loaded.num_labels != outputs:
            raise InvalidArgumentError(
                f"The model has {number_of(loaded.num_labels, 'output')}, but these data need {outputs}. Load it with "
                f"num_labels={outputs}."
            )
        return copy.deepcopy(loaded).float()
    folder = find_model(str(model), "CrossEncoder")
    replaced = not has_head(model) or _outputs(folder) != outputs
    return load_to_train(
        folder,
        "CrossEncoder",
        trust_remote_code=trust_remote_code,
        seed=seed,
        model_kwargs={"ignore_mismatched_sizes": True} if replaced else None,
        num_labels=outputs,
    )


def has_head(model: str | Path | CrossEncoder) -> bool:
    """Whether a model already has a trained head with one output.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    if not isinstance(model, str | Path):
        return bool(model.num_labels == 1)
    folder = find_model(str(model), "CrossEncoder")
    architectures = _config(folder).get("architectures") or []
    return any("ForSequenceClassification" in one for one in architectures) and _outputs(folder) == 1


def _classes(training: Sequence[TrainingData]) -> tuple[str, ...]:
    """The names of the classes, or () without names. Raises InvalidArgumentError if two data sets differ in them."""
    names = {
        one.name: tuple(getattr(one.rows.features["label"], "names", ()))
        for one in training
        if one.kind is Kind.CLASSED
    }
    first = next(iter(names.values()), ())
    for name, other in names.items():
        if other != first:
            raise InvalidArgumentError(
                f"The classes of {name!r} are {', '.join(other) or 'numbers'}, but those of {next(iter(names))!r} are "
                f"{', '.join(first) or 'numbers'}. Train one reranker for each, or give all the same names."
            )
    return first


def _by_default(mined: TrainingData, loss: str | LossObject | None) -> TrainingData:
    """Turn mined negatives into labelled pairs, whose default loss is "bce", if no loss is given."""
    return mined if loss or mined.loss else shape_for(mined, "bce")


def _outputs(folder: Path) -> int:
    config = _config(folder)
    return len(config.get("id2label") or ()) or int(config.get("num_labels", 2))


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content
