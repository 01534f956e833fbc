"""Compare a model before and after training, on queries that were not used in training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.costs import measure_sparsity
from hybridsearch.evaluation.experiment import compare
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.evaluation.results import Sparsity
from hybridsearch.feedback import largest
from hybridsearch.fusion import ScoreFusion
from hybridsearch.rerank import CrossEncoderReranker, LateInteraction, Reranker
from hybridsearch.search import HybridSearch
from hybridsearch.training.settings import FAMILIES, ModelKind

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator

    from hybridsearch.evaluation.datasets import Dataset

MEASURES = ("nDCG@10", "RR@10", "R@100")
"""Measures of `compare_models`. The first measure decides."""

_SAMPLED = 20_000  # documents whose active dimensions are counted
_TERMS = 6  # terms that are shown of each expansion


@dataclass(frozen=True, slots=True)
class Expansion:
    """The change of the sparse vector of a text by training.

    Attributes:
        text: Text, encoded as a document.
        gained: Terms that only the new vector has, with their weights, heaviest first. Words of the text are left out.
        lost: Terms that only the old vector has, with their weights, heaviest first.
    """

    text: str
    gained: tuple[tuple[str, float], ...]
    lost: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        def listed(terms: Sequence[tuple[str, float]]) -> str:
            return ", ".join(f"{term} {weight:.2f}" for term, weight in terms) or "nothing"

        return f'"{_short(self.text)}" gained {listed(self.gained)}; lost {listed(self.lost)}'


def compare_models(
    before: Any,
    after: Any,
    dataset: Dataset,
    kind: ModelKind,
    *,
    beside: Mapping[str, Encoder] | None = None,
    retriever: HybridSearch | Pipeline | None = None,
    measures: Sequence[str] = MEASURES,
    show_progress_bar: bool | None = None,
) -> Comparison:
    """Compare a model before and after training, on queries that were not used in training.

    For a dense or sparse model, the systems are "before", "after", the retrievers of `beside`, and "before + bm25" and
    "after + bm25". These two fuse the model with all retrievers of `beside`, by the mean of min-max scores. For a
    reranker or a late-interaction model, the systems are "retrieval" (the results of `retriever`), "before" and "after"
    (the same results with the first 50 documents reranked). The baseline is "before", or the first system without it.

    Args:
        before: Model before training: a folder, a name on the hub, or a loaded model. None if the base has no trained
            head (reranker) or is not a sparse model (sparse). Then the baseline is another retriever.
        after: Model after training: a folder, a name on the hub, or a loaded model.
        dataset: Held-out queries with judgements, and the documents.
        kind: Kind of both models: "dense", "sparse", "late-interaction" or "reranker".
        beside: Other encoders by name, for a dense or sparse model. None takes BM25.
        retriever: Index or pipeline whose results are reranked. None takes BM25.
        measures: Names of the measures. The first measure decides.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The comparison of the systems.

    Raises:
        InvalidArgumentError: The data set has no documents, or a name in `beside` cannot be used.
    """
    if dataset.corpus is None:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no documents, so nothing can be searched. Give another data set."
        )
    models = {name: model for name, model in (("before", before), ("after", after)) if model is not None}
    options: dict[str, Any] = {
        "measures": measures,
        "latency_queries": 0,
        "details": 0,
        "show_progress_bar": show_progress_bar,
    }
    if kind in ("reranker", "late-interaction"):
        reranker = CrossEncoderReranker if kind == "reranker" else LateInteraction
        rerankers: dict[str, Reranker] = {name: reranker(model) for name, model in models.items()}
        return _compare_rerankers(rerankers, dataset, retriever, options)
    others = {"bm25": BM25()} if beside is None else dict(beside)
    if taken := [name for name in others if name in ("before", "after") or "+" in name]:
        raise InvalidArgumentError(f"Another retriever cannot have the name {taken[0]!r}. Give it another name.")
    encode = Dense if kind == "dense" else Sparse
    encoders: dict[str, Encoder] = {**{name: encode(model) for name, model in models.items()}, **others}
    with HybridSearch(encoders) as search:
        search.index(dataset.corpus, show_progress_bar=show_progress_bar)
        asked = {name: [name] for name in encoders}
        if len(others) > 1:
            asked[" + ".join(others)] = list(others)
        asked |= {" + ".join([name, *others]): [name, *others] for name in models if others}
        fusion = ScoreFusion("minmax")
        systems = {name: Pipeline(search, names, fusion) for name, names in asked.items()}
        baseline = "before" if before is not None else next(iter(others), "after")
        return compare(systems, dataset, baseline=baseline, **options)


def compare_figures(
    before: Any, after: Any, kind: ModelKind, evaluator: BaseEvaluator | None
) -> dict[str, tuple[float | None, float]]:
    """Measure a model with an evaluator before and after training.

    Args:
        before: Model before training, as in `compare_models`, or None.
        after: Model after training, as in `compare_models`.
        kind: Kind of both models.
        evaluator: Evaluator of `build_evaluator`. None measures nothing.

    Returns:
        The values before and after training, by the name of the figure. The value before is None if there is no such
        model. The first figure decides.
    """
    if evaluator is None:
        return {}
    was, now = (
        {} if model is None else dict(evaluator(LazyModel(model, FAMILIES[kind]).get())) for model in (before, after)
    )
    return {name: (was.get(name), figure) for name, figure in now.items() if name != evaluator.primary_metric}


def compare_sparsity(before: Any, after: Any, dataset: Dataset) -> dict[str, Sparsity]:
    """Count the active dimensions and FLOPS of a sparse model before and after training.

    At most the first 20,000 documents are encoded. Vectors in the cache are not made again.

    Args:
        before: Model before training, as in `compare_models`, or None.
        after: Model after training, as in `compare_models`, or None.
        dataset: Queries and documents to encode.

    Returns:
        The sparsity by name, "before" and "after". A model that is None is left out.
    """
    found = {}
    for name, model in (("before", before), ("after", after)):
        if model is None:
            continue
        encoder = Sparse(model)
        texts = [document.content for document in islice(dataset.corpus or (), _SAMPLED)]
        documents = (encoder.encode_documents(texts[start : start + 1024]) for start in range(0, len(texts), 1024))
        found[name] = measure_sparsity(documents, encoder.encode_queries(list(dataset.queries.values())))
    return found


def changed_expansions(before: Any, after: Any, texts: Sequence[str], *, examples: int = 5) -> tuple[Expansion, ...]:
    """Find the texts whose sparse vectors gained most weight by training, such as "cephalalgia" that gained "headache".

    Parts of words and latent dimensions are left out, because people cannot read them. Texts that gained nothing are
    left out too.

    Args:
        before: Sparse model before training, as in `compare_models`. None gives no examples.
        after: Sparse model after training, as in `compare_models`.
        texts: Texts, which are encoded as documents.
        examples: Largest number of examples.

    Returns:
        The changes, by gained weight, largest first.
    """
    if before is None or not texts:
        return ()
    rows = zip(texts, _weights(Sparse(before), texts), _weights(Sparse(after), texts), strict=True)
    changes = []
    for text, old, new in rows:
        gained = {term: weight for term, weight in new.items() if term not in old and not _is_in(term, text)}
        lost = {term: weight for term, weight in old.items() if term not in new}
        changes.append((sum(largest(gained, _TERMS).values()), Expansion(text, *map(_terms, (gained, lost)))))
    changes.sort(key=lambda change: -change[0])
    return tuple(expansion for weight, expansion in changes[:examples] if weight > 0)


def _compare_rerankers(
    rerankers: Mapping[str, Reranker],
    dataset: Dataset,
    retriever: HybridSearch | Pipeline | None,
    options: Mapping[str, Any],
) -> Comparison:
    if retriever is None:
        with HybridSearch({"bm25": BM25()}) as search:
            search.index(dataset.corpus or (), show_progress_bar=options["show_progress_bar"])
            return _compare_rerankers(rerankers, dataset, search, options)
    pipeline = Pipeline(retriever) if isinstance(retriever, HybridSearch) else retriever
    systems = {"retrieval": replace(pipeline, reranker=None)}
    systems |= {name: replace(pipeline, reranker=reranker) for name, reranker in rerankers.items()}
    return compare(systems, dataset, baseline="before" if "before" in systems else "retrieval", **options)


def _weights(encoder: Sparse, texts: Sequence[str]) -> Iterator[dict[str, float]]:
    """The weights of each text by term, for terms that are words."""
    vectors = encoder.encode_documents(list(texts))
    terms, matrix = _words(vectors.vocabulary.terms), vectors.matrix
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        row = zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
        yield {word: weight for column, weight in row if (word := terms[column])}


def _words(terms: Sequence[str]) -> list[str]:
    """The word that each term is, or "" for a part of a word. BPE and SentencePiece mark the beginnings of words."""
    counts = {mark: sum(term.startswith(mark) for term in terms) for mark in "\u0120\u2581"}
    mark = next((mark for mark, count in counts.items() if count > len(terms) / 10), "")  # else they are letters
    words = (term.removeprefix(mark) if term.startswith(mark) else "" for term in terms)
    return [word if word.isalpha() and (mark != "\u0120" or word.isascii()) else "" for word in words]


def _is_in(term: str, text: str) -> bool:
    return term.lower() in re.findall(r"\w+", text.lower())


def _terms(weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple((term, round(weight, 4)) for term, weight in largest(weights, _TERMS).items())


def _short(text: str, width: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
