"""Evaluators of sentence-transformers with figures named as everywhere in this library; and the one that searches."""

from __future__ import annotations

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
from hybridsearch.training.settings import ModelKind, TrainingSettings

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator


DOCUMENTS = 1000
"""How many documents are searched while training, where the collection has more."""

RERANKED = 50
"""How many documents of a ranking a reranker reads."""

_BATCH = 32
_CLASSES: dict[ModelKind, tuple[str, str]] = {
    "dense": ("sentence_transformer", ""),
    "sparse": ("sparse_encoder", "Sparse"),
    "reranker": ("cross_encoder", "CrossEncoder"),
}
"""The package of sentence-transformers that has the evaluators of each kind of model, and how their names begin."""

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
"""Attributes of sentence-transformers' evaluators that hold what is asked."""

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
    """An evaluator that searches a test collection, made as `build_evaluator` says.

    Relevance is binary, as sentence-transformers has it: a grade of 1 or more is relevant.

    Args:
        dataset: its queries with a relevant document are asked.
        kind: of the model. A reranker reads the first 50 documents of `retriever`, and of these only: a query of which
            none is relevant has 0. The best possible order is that of the documents it reads.
        settings: their `measure` decides: nDCG, RR, AP, R, P or Success with a cutoff, such as nDCG@10; for a reranker
            nDCG or RR.
        documents: how many are searched: all relevant ones, then what BM25 finds best for the queries, so that figures
            are higher than on the whole collection; None searches all.
        retriever: for a reranker; None for BM25.

    Raises:
        InvalidArgumentError: the measure is not one of those, or no query has a relevant document in the corpus.
    """
    settings = settings or TrainingSettings()
    name, cutoff = _parse_measure(settings.measure, kind)
    queries = {id: text for id, text in dataset.queries.items() if _relevant(dataset, id)}
    if dataset.corpus is None or not queries:
        lacks = "corpus" if dataset.corpus is None else "query with a relevant document"
        raise InvalidArgumentError(f"The data set {dataset.name!r} has no {lacks}, so nothing can be searched for.")
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
    )
    return in_sequence([Measured(inner, figures_of(figures))])


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """An evaluator of sentence-transformers that answers with chosen figures under our names.

    `figures` has for each of our names a pattern for the key in its answer, after the evaluator's name. The first one
    decides. One that is not in the answer is left out.
    """

    inner: Any
    figures: Mapping[str, str]

    @property
    def primary_metric(self) -> str:
        return self._named(next(iter(self.figures)))

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
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
                found[self._named(name)] = values[0]
        return found

    def _named(self, figure: str) -> str:
        return f"{self.inner.name} {figure}".strip()


def in_sequence(
    evaluators: Sequence[Any], decide: Callable[[Sequence[float]], float] = lambda scores: scores[0]
) -> BaseEvaluator:
    module = import_library("sentence_transformers.base.evaluation", "An evaluator")
    sequence = module.SequentialEvaluator(evaluators, main_score_function=decide)
    sequence.primary_metric = "sequential_score"  # it would be known only after the first evaluation
    return sequence


def make_evaluator(kind: ModelKind, evaluator: str, /, *arguments: Any, **options: Any) -> Any:
    """sentence-transformers' evaluator for this kind of model; named as its class for dense models."""
    package, start = _CLASSES[kind]
    module = import_library(f"sentence_transformers.{package}.evaluation", f"The evaluator {evaluator}")
    return getattr(module, start + evaluator)(*arguments, write_csv=False, **options)


def asked_by(evaluator: Any) -> set[Question]:
    """What an evaluator of sentence-transformers or of this library asks; nothing for another kind."""
    inner = getattr(evaluator, "inner", None) or getattr(evaluator, "suite", None)
    if inner is not None:
        return asked_by(inner)
    if several := getattr(evaluator, "evaluators", None):  # in sequence, NanoBEIR
        return set().union(*map(asked_by, several))

    def of(name: str) -> Any:
        return getattr(evaluator, name, None) or ()

    texts: set[Question] = {normalized(text) for name in _QUERIES for text in of(name)}
    samples = of("samples")  # of a mapping only until it has run
    samples = samples.values() if isinstance(samples, Mapping) else samples
    texts |= {normalized(sample["query"]) for sample in samples}
    texts |= {pair(*two) for two in of("sentence_pairs")}
    for first, second in _PAIRS:
        texts |= {pair(*two) for two in zip(of(first), of(second), strict=False)}
    if not of("source_sentences"):  # of negative MSE, which keeps their embeddings
        texts |= set(map(normalized, of("target_sentences")))
    numbers = dict(zip(of("ids"), of("sentences"), strict=True))  # of paraphrases
    duplicates = of("duplicates") or {}
    return texts | {pair(numbers[one], numbers[other]) for one, others in duplicates.items() for other in others}


def figures_of(measures: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Our name -> pattern of sentence-transformers' key, which has a similarity's name before the measure's."""
    similarity = "((cosine|dot|euclidean|manhattan)_)?"
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
            f"A {kind} model is chosen by {', '.join(f'{one}@K' for one in known)} with a number for K, such as "
            f"nDCG@10, not by {measure}."
        )
    return name, int(cutoff)


def _relevant(dataset: Dataset, query: str) -> set[str]:
    return {id for id, grade in dataset.qrels.get(query, {}).items() if grade > 0}


def _documents(dataset: Dataset, queries: Mapping[str, str], limit: int | None) -> dict[str, str]:
    """Texts by id: all, or `limit` of them: the relevant ones, and what BM25 finds for the queries."""
    texts = {document.id: document.content for document in dataset.corpus or ()}
    relevant = {id for query in queries for id in _relevant(dataset, query)} & texts.keys()
    if not relevant:
        raise InvalidArgumentError(f"The corpus of {dataset.name!r} has none of the documents that are relevant.")
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
    """For each query its relevant texts, and those of the documents that a reranker reads."""
    if retriever is None:
        with HybridSearch({"bm25": BM25()}) as search:
            search.index(dataset.corpus or (), show_progress_bar=False)
            return _samples(dataset, queries, search)
    source = retriever.source if isinstance(retriever, Pipeline) else retriever
    relevant = sorted({id for query in queries for id in _relevant(dataset, query)})
    if isinstance(source, HybridSearch) and all(document is None for document in source.get(relevant)):
        raise InvalidArgumentError(
            f"The retriever's index has none of the documents that are relevant in {dataset.name!r}: index them under "
            "the same ids, or give dev and test about what it holds."
        )
    result = evaluate(
        retriever, dataset, measures=["nDCG@10"], top_k=RERANKED, latency_queries=0, show_progress_bar=False
    )
    wanted = {id for query in queries for id in [*_relevant(dataset, query), *result.ranking(query).ids]}
    texts = {document.id: document.content for document in dataset.corpus or () if document.id in wanted}
    samples = []
    for query, text in queries.items():
        read = [texts[id] for id in result.ranking(query).ids if id in texts]
        read += [""] * (2 - len(read))  # nDCG of one document has no meaning to scikit-learn
        positive = [texts[id] for id in sorted(_relevant(dataset, query)) if id in texts]
        samples.append({"query": text, "positive": positive, "documents": read})
    return samples
