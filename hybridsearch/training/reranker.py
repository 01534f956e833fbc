"""Train a reranker: from labelled pairs, mined negatives or lists to a cross-encoder, with the proof end to end."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch.documents import Document
from hybridsearch.encoders.models import LazyModel, find_model
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.distill import Teacher
from hybridsearch.training.losses import count_classes
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.loading import load_to_train
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_OF_PAIRS = ("bce", "mse")
_OF_LISTS = ("lambda", "list-net", "p-list-mle", "list-mle", "rank-net", "adr-mse")


def train_reranker(
    model: str | Path | CrossEncoder,
    data: Source | Sequence[Source] | Mapping[str, Source],
    output: str | Path,
    *,
    loss: str | None = None,
    hard_negatives: int | None = None,
    teacher: Teacher | str | Path | None = None,
    retriever: HybridSearch | Pipeline | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    evaluators: Spec | Sequence[Spec] | None = None,
    settings: TrainingSettings | None = None,
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a CrossEncoder, and measure what it gives at the end of a search.

    Tuples, such as mined negatives, become what the loss takes: labelled pairs for "bce" and "mse", a list for each
    query for the list-wise losses such as "lambda"; for "mnr" they stay. The default for mined negatives is "bce", and
    for all else what `hybridsearch.training.losses` says.

    Before and after, the reranker reads the first 50 documents of `retriever` for each test query: what retrieval did
    not find counts as missed. The verdict compares with the same search before training, or without a reranker where
    the model had no trained head.

    Args:
        model: a folder, a name on the model hub, or a loaded CrossEncoder, which stays as it is. Any other encoder gets
            a new head.
        data, output, loss: as in `hybridsearch.train_dense`.
        hard_negatives: negatives to mine for each pair, at random from ranks 6 to 40 of `retriever`; None for none.
        teacher: as in `hybridsearch.train_dense`; tuples then stay tuples, trained by "margin-mse".
        retriever: whose results are reranked, and mined; its index holds the documents of dev and test. None for BM25.
        corpus: documents to mine from where there is no retriever; None for those of the data set, or the positives.
        dev, test, evaluators, settings, trust_remote_code, show_progress_bar: as in `hybridsearch.train_dense`.

    Raises:
        InvalidArgumentError and others as `hybridsearch.train_dense` says.
    """
    steps = Steps(
        "reranker", data, output, settings, corpus, dev, test, evaluators, trust_remote_code, show_progress_bar
    )
    was = {one.name: one.kind for one in steps.sources.training}
    steps.mine(hard_negatives, None, retriever)
    if teacher is None:
        steps.shape(lambda one: one if one.kind is was[one.name] else _by_default(one, loss))
    steps.teach(teacher)
    steps.shape(lambda one: shape_for(one, loss or one.loss))
    steps.choose_losses(loss)
    outputs = {count_classes(one) if one.kind is Kind.CLASSED else 1 for one in steps.sources.training}
    if len(outputs) > 1:
        raise InvalidArgumentError(f"A reranker has one number of outputs, and these data need {sorted(outputs)}.")
    seed = steps.settings.seed
    trained = load_reranker(model, outputs=max(outputs), trust_remote_code=trust_remote_code, seed=seed)
    steps.fit(trained, steps.build_losses(trained), steps.dev_evaluator(retriever), {})
    if outputs != {1}:  # classes order nothing
        steps.sources = replace(steps.sources, test=None)
    before = steps.open(model) if has_head(model) else None
    return steps.conclude(model, before, steps.open(steps.output), retriever=retriever)


def shape_for(data: TrainingData, loss: str | None) -> TrainingData:
    """The data as the loss takes them: tuples become labelled pairs or lists; all else, and without a loss, stays.

    A text that is a positive of a query in any row is never a negative of it, and each text of a query comes once.

    >>> columns = {"anchor": ["q", "q"], "positive": ["a", "b"], "negative_1": ["x", "a"]}
    >>> data = TrainingData.from_columns(Kind.TUPLES, columns)
    >>> shape_for(data, "bce").rows.to_dict()
    {'anchor': ['q', 'q', 'q'], 'positive': ['a', 'b', 'x'], 'label': [1, 1, 0]}
    >>> shape_for(data, "lambda").rows.to_dict()
    {'query': ['q'], 'docs': [['a', 'b', 'x']], 'labels': [[1.0, 1.0, 0.0]]}
    """
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
    """A CrossEncoder to train, in float32: a copy of the given one, or of another encoder with a new head.

    Args:
        model, trust_remote_code: as in `train_reranker`.
        outputs: of the head; one with another number gives way to a new one.
        seed: of the weights of a new head.

    Raises:
        ModelNotFoundError: there is no such model, or it cannot be loaded.
        InvalidArgumentError: a loaded model is no CrossEncoder, or has another number of outputs.
    """
    if not isinstance(model, str | Path):
        loaded = LazyModel(model, "CrossEncoder").get()
        if loaded.num_labels != outputs:
            raise InvalidArgumentError(f"These data need a model with {outputs} outputs; it has {loaded.num_labels}.")
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
    """Whether a model gives one trained score already. Raises ModelNotFoundError where there is none."""
    if not isinstance(model, str | Path):
        return bool(model.num_labels == 1)
    folder = find_model(str(model), "CrossEncoder")
    architectures = _config(folder).get("architectures") or []
    return any("ForSequenceClassification" in one for one in architectures) and _outputs(folder) == 1


def _by_default(mined: TrainingData, loss: str | None) -> TrainingData:
    """Mined negatives as labelled pairs, whose default loss is "bce", where no loss is asked for."""
    return mined if loss or mined.loss else shape_for(mined, "bce")


def _outputs(folder: Path) -> int:
    config = _config(folder)
    return len(config.get("id2label") or ()) or int(config.get("num_labels", 2))


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content
