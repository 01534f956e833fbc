"""Evaluators of sentence-transformers with the names of measures of this library, and an evaluator that searches."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridsearch.documents import Document
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.experiment import evaluate
from hybridsearch.evaluation.measures import parse_measures
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.search import HybridSearch
from hybridsearch.training.data.answers import Question, pair
from hybridsearch.training.data.rows import normalized
from hybridsearch.training.libraries import import_library
from hybridsearch.training.models.loading import dimensions_of
from hybridsearch.training.settings import ModelKind, TrainingSettings

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator


DOCUMENTS = 1000
"""Largest number of documents that are searched in training."""

RERANKED = 50
"""Number of documents of a ranking that a reranker reads."""

_BATCH = 32
_TOKEN_VECTORS_OF = 256  # documents whose token vectors are in memory at a time
_CLASSES: dict[ModelKind, tuple[str, str]] = {
    "dense": ("sentence_transformer", ""),
    "sparse": ("sparse_encoder", "Sparse"),
    "late-interaction": ("multi_vector_encoder", "MultiVector"),
    "reranker": ("cross_encoder", "CrossEncoder"),
}
"""The package of sentence-transformers with the evaluators of each kind of model, and the beginning of their names."""

_ST_MEASURES = {
    "nDCG": ("ndcg", "ndcg_at_k"),
    "RR": ("mrr", "mrr_at_k"),
    "AP": ("map", "map_at_k"),
    "R": ("recall", "precision_recall_at_k"),
    "P": ("precision", "precision_recall_at_k"),
    "Success": ("accuracy", "accuracy_at_k"),
}
_QUERIES = ("queries", "anchors")
_PAIRS = (("sentences1", "sentences2"), ("source_sentences", "target_sentences"))
"""Attributes of sentence-transformers' evaluators that hold the questions."""

_SPARSITY = {
    "document_active_dims": "(corpus_|positive_)?active_dims",
    "query_active_dims": "(query|anchor)_active_dims",
    "flops": "avg_flops",
}


def retrieval_evaluator(
    dataset: Dataset,
    kind: ModelKind,
    settings: TrainingSettings | None = None,
    *,
    documents: int | None = DOCUMENTS,
    retriever: HybridSearch | Pipeline | None = None,
) -> BaseEvaluator:
    """Make an evaluator that searches the documents of a data set.

    Relevance is binary, as in sentence-transformers: a document with a grade of 1 or more is relevant. A reranker reads
    only the first 50 documents of `retriever`. A query without a relevant document among these scores 0. The best
    possible order is the best order of the documents that the reranker reads.

    Args:
        dataset: Data set. Only queries with a relevant document are used.
        kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        settings: Settings whose `measure` decides: nDCG, RR, AP, R, P or Success with a cutoff, such as nDCG@10. For a
            reranker, nDCG or RR. None takes the defaults.
        documents: Largest number of documents to search: all relevant documents, then the best documents of BM25 for
            the queries. The figures are then higher than on the whole collection. None searches all.
        retriever: Index or pipeline whose results a reranker reads. None takes BM25.

    Returns:
        An evaluator as in `build_evaluator`.

    Raises:
        InvalidArgumentError: The measure is not allowed, or no query has a relevant document in the data set.
    """
    settings = settings or TrainingSettings()
    name, cutoff = _parse_measure(settings.measure, kind)
    queries = {id: text for id, text in dataset.queries.items() if _relevant(dataset, id)}
    if dataset.corpus is None or not queries:
        lacks = "documents" if dataset.corpus is None else "query with a relevant document"
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no {lacks}, so it cannot be searched. Give another data set."
        )
    if kind == "reranker":
        samples = _samples(dataset, queries, retriever)
        options = {"at_k": cutoff, "always_rerank_positives": False}
        inner = make_evaluator(kind, "RerankingEvaluator", samples, name=dataset.name, **options)
        return in_sequence(
            [Measured(inner, figures_of(dict.fromkeys([(name, cutoff), ("nDCG", cutoff), ("RR", cutoff)])))]
        )
    texts = _documents(dataset, queries, documents)
    figures = dict.fromkeys([(name, cutoff), ("nDCG", 10), ("RR", 10), ("R", min(100, len(texts)))])
    at_k: dict[str, list[int]] = {argument: [] for _, argument in _ST_MEASURES.values()}
    for measure, k in figures:
        at_k[_ST_MEASURES[measure][1]].append(k)
    inner = make_evaluator(
        kind,
        "InformationRetrievalEvaluator",
        queries,
        texts,
        {id: _relevant(dataset, id) for id in queries},
        **{argument: ks or [10] for argument, ks in at_k.items()},
        batch_size=_BATCH,
        name=dataset.name,
        **({"corpus_chunk_size": _TOKEN_VECTORS_OF} if kind == "late-interaction" else {}),
    )
    return in_sequence([Measured(inner, figures_of(figures))])


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """An evaluator of sentence-transformers that gives chosen figures under our names.

    Attributes:
        inner: Evaluator of sentence-transformers.
        figures: Pattern of the key in the result of `inner`, without the name of the evaluator, for each of our names.
            The first figure decides. Figures that are not in the result are left out. NaN becomes 0: it is the
            correlation of a model that gives all pairs the same score.
        dimensions: Number of dimensions that the embeddings of a model must have. None allows any number.
    """

    inner: Any
    figures: Mapping[str, str]
    dimensions: int | None = None

    @property
    def primary_metric(self) -> str:
        """The name of the figure that decides."""
        return self.names[0]

    @property
    def names(self) -> list[str]:
        """The names of the figures."""
        return [self._named(figure) for figure in self.figures]

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        self.check(model)
        prefix = f"{self.inner.name}_" if self.inner.name else ""
        answer = {
            key.removeprefix(prefix): float(value)
            for key, value in self.inner(model, output_path, epoch, steps).items()
            if key.startswith(prefix)
        }
        found: dict[str, float] = {}
        for name, pattern in {**self.figures, **_SPARSITY}.items():
            values = [value for key, value in answer.items() if re.fullmatch(pattern, key)]
            if values:
                found[self._named(name)] = 0.0 if math.isnan(values[0]) else values[0]
        return found

    def check(self, model: Any) -> None:
        """Raise InvalidArgumentError if the evaluator cannot measure a model."""
        if self.dimensions is not None and (size := dimensions_of(model)) not in (None, self.dimensions):
            raise InvalidArgumentError(
                f"The embeddings of the teacher of {self.inner.name!r} have {self.dimensions} dimensions, but the "
                f"embeddings of the model have {size}. Give a teacher with as many, or leave the evaluator out."
            )

    def _named(self, figure: str) -> str:
        return f"{self.inner.name} {figure}".strip()


def check_evaluator(evaluator: Any, model: Any) -> None:
    """Raise InvalidArgumentError if one of the evaluators of `build_evaluator` cannot measure a model."""
    for one in getattr(evaluator, "evaluators", ()):
        if isinstance(one, Measured):
            one.check(model)


def in_sequence(
    evaluators: Sequence[Any], decide: Callable[[Sequence[float]], float] = lambda scores: scores[0]
) -> BaseEvaluator:
    """Make one evaluator that runs several in order.

    `decide` computes the deciding figure from the first figure of each evaluator.
    """
    module = import_library("sentence_transformers.base.evaluation", "An evaluator")
    sequence = module.SequentialEvaluator(evaluators, main_score_function=decide)
    sequence.primary_metric = "sequential_score"  # otherwise it is known only after the first evaluation
    return sequence


def make_evaluator(kind: ModelKind, evaluator: str, /, *arguments: Any, **options: Any) -> Any:
    """Make an evaluator of sentence-transformers for a kind of model.

    `evaluator` is its class for dense models.
    """
    package, start = _CLASSES[kind]
    module = import_library(f"sentence_transformers.{package}.evaluation", f"The evaluator {evaluator}")
    return getattr(module, start + evaluator)(*arguments, write_csv=False, **options)


def asked_by(evaluator: Any) -> set[Question]:
    """The questions of an evaluator of sentence-transformers or of this library.

    Other evaluators have none.
    """
    inner = getattr(evaluator, "inner", None) or getattr(evaluator, "suite", None)
    if inner is not None:
        return asked_by(inner)
    if several := getattr(evaluator, "evaluators", None):  # a sequence, or NanoBEIR
        return set().union(*map(asked_by, several))

    def of(name: str) -> Any:
        return getattr(evaluator, name, None) or ()

    texts: set[Question] = {normalized(text) for name in _QUERIES for text in of(name)}
    samples = of("samples")  # a mapping until it has run
    samples = samples.values() if isinstance(samples, Mapping) else samples
    texts |= {normalized(sample["query"]) for sample in samples}
    texts |= {pair(*two) for two in of("sentence_pairs")}
    for first, second in _PAIRS:
        texts |= {pair(*two) for two in zip(of(first), of(second), strict=False)}
    if not of("source_sentences"):  # negative MSE keeps only the embeddings of these
        texts |= set(map(normalized, of("target_sentences")))
    numbers = dict(zip(of("ids"), of("sentences"), strict=True))  # of paraphrases
    duplicates = of("duplicates") or {}
    return texts | {pair(numbers[one], numbers[other]) for one, others in duplicates.items() for other in others}


def digest_of(evaluator: Any) -> str:
    """Sixteen hexadecimal digits that stand for what an evaluator measures with: its texts, labels and settings.

    Of an evaluator that the user made, only the class and the questions count, because it may change when it runs.
    """
    return hashlib.sha256(json.dumps(_content_of(evaluator)).encode()).hexdigest()[:16]


def _content_of(evaluator: Any, ours: bool = False) -> Any:
    if isinstance(evaluator, Measured):
        return [dict(evaluator.figures), _content_of(evaluator.inner, ours=True)]
    if (suite := getattr(evaluator, "suite", None)) is not None:
        return _content_of(suite, ours)
    if several := getattr(evaluator, "evaluators", None):
        return [_content_of(one, ours) for one in several]
    if not ours:
        questions = (one if isinstance(one, str) else sorted(one) for one in asked_by(evaluator))
        return [type(evaluator).__name__, sorted(map(str, questions))]
    return _plain(vars(evaluator))


def _plain(value: Any) -> Any:
    """A value ready for JSON. Embeddings and functions become the name of their class."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return [[str(name), _plain(one)] for name, one in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return list(map(_plain, value)) if isinstance(value, list | tuple) else type(value).__name__


def figures_of(measures: Iterable[tuple[str, int]]) -> dict[str, str]:
    """The patterns of sentence-transformers' keys by our names.

    A key may begin with the name of a similarity.
    """
    similarity = "((cosine|dot|euclidean|manhattan|maxsim|meanmaxsim)_)?"
    return {
        f"{name}@{k}" if k else name: f"{similarity}{_ST_MEASURES[name][0]}" + (f"@{k}" if k else "")
        for name, k in measures
    }


def _parse_measure(measure: str, kind: ModelKind) -> tuple[str, int]:
    """Name and cutoff: "nDCG@10" -> ("nDCG", 10)."""
    name, _, cutoff = str(parse_measures([measure])[0]).partition("@")
    known = ("nDCG", "RR") if kind == "reranker" else tuple(_ST_MEASURES)
    if name not in known or not cutoff.isdecimal():
        raise InvalidArgumentError(
            f"The measure is {measure}, which cannot choose a {kind} model. Give "
            f"{', '.join(f'{one}@K' for one in known)} with a number for K, such as nDCG@10."
        )
    return name, int(cutoff)


def _relevant(dataset: Dataset, query: str) -> set[str]:
    return {id for id, grade in dataset.qrels.get(query, {}).items() if grade > 0}


def _documents(dataset: Dataset, queries: Mapping[str, str], limit: int | None) -> dict[str, str]:
    """The texts by id: all, or about `limit`: all relevant documents, then the best documents of BM25."""
    texts = {document.id: document.content for document in dataset.corpus or ()}
    relevant = {id for query in queries for id in _relevant(dataset, query)} & texts.keys()
    if not relevant:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has none of the documents that are judged relevant. Check their ids."
        )
    if limit is None or len(texts) <= limit:
        return texts
    with HybridSearch({"bm25": BM25()}) as search:
        search.index((Document(id, text) for id, text in texts.items()), show_progress_bar=False)
        depth = max(10, 2 * limit // len(queries))
        found = search.search_many(list(queries.values()), top_k=depth, candidates=depth)
    ranked = [[hit.id for hit in of_query] for of_query in found]
    by_rank = (ids[rank] for rank in range(depth) for ids in ranked if rank < len(ids))
    chosen = list(dict.fromkeys([*sorted(relevant), *by_rank, *texts]))[: max(limit, len(relevant))]
    return {id: texts[id] for id in chosen}


def _samples(
    dataset: Dataset, queries: Mapping[str, str], retriever: HybridSearch | Pipeline | None
) -> list[dict[str, Any]]:
    """The relevant texts of each query, and the texts that a reranker reads."""
    if retriever is None:
        with HybridSearch({"bm25": BM25()}) as search:
            search.index(dataset.corpus or (), show_progress_bar=False)
            return _samples(dataset, queries, search)
    source = retriever.source if isinstance(retriever, Pipeline) else retriever
    relevant = sorted({id for query in queries for id in _relevant(dataset, query)})
    if isinstance(source, HybridSearch) and all(document is None for document in source.get(relevant)):
        raise InvalidArgumentError(
            f"The index of the retriever has none of the documents that are relevant in {dataset.name!r}. Index these "
            "documents with the same ids, or give dev and test with documents of the index."
        )
    result = evaluate(
        retriever, dataset, measures=["nDCG@10"], top_k=RERANKED, latency_queries=0, show_progress_bar=False
    )
    wanted = {id for query in queries for id in [*_relevant(dataset, query), *result.ranking(query).ids]}
    texts = {document.id: document.content for document in dataset.corpus or () if document.id in wanted}
    samples = []
    for query, text in queries.items():
        read = [texts[id] for id in result.ranking(query).ids if id in texts]
        read += [""] * (2 - len(read))  # scikit-learn computes no nDCG of a single document
        positive = [texts[id] for id in sorted(_relevant(dataset, query)) if id in texts]
        samples.append({"query": text, "positive": positive, "documents": read})
    return samples
