"""Before and after: a model and what was trained from it, on queries that neither saw."""

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
from hybridsearch.fusion import ScoreFusion
from hybridsearch.rerank import CrossEncoderReranker
from hybridsearch.search import HybridSearch
from hybridsearch.training.settings import FAMILIES, ModelKind

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator

    from hybridsearch.evaluation.datasets import Dataset

MEASURES = ("nDCG@10", "RR@10", "R@100")
"""Of `compare_models`, the one that decides first."""

_SAMPLED = 20_000  # documents whose active dimensions are counted
_TERMS = 6  # shown of each expansion


@dataclass(frozen=True, slots=True)
class Expansion:
    """How the sparse vector of a text changed.

    Attributes:
        text: what was encoded, as a document.
        gained: terms that it has now and had not before, with their weights, heaviest first; no words of the text.
        lost: terms that it had before and has no more, with the weights they had, heaviest first.
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
    """What training changed, on queries that it did not see.

    Of a dense or sparse model the systems are "before", "after", those of `beside`, and "before + bm25" and
    "after + bm25", the same with all of `beside` by the mean of min-max scores. Of a reranker they are "retrieval",
    what `retriever` finds, and "before" and "after", the same with its first 50 documents reranked. The first is the
    baseline.

    Args:
        before, after: folders, hub names or loaded models. `before` may be None: for a reranker whose base has no
            trained head, and for a sparse model whose base is none; then "after" stands beside the others.
        dataset: held-out queries and the corpus they are about.
        kind: of both models.
        beside: by name, other encoders; None for BM25. Not for a reranker.
        retriever: for a reranker; None for BM25.
        measures: the first decides.
        show_progress_bar: None shows it in a terminal.

    Raises:
        InvalidArgumentError: the data set has no corpus, or a name in `beside` is taken.
    """
    if dataset.corpus is None:
        raise InvalidArgumentError(f"The data set {dataset.name!r} has no corpus, so nothing can be searched.")
    models = {name: model for name, model in (("before", before), ("after", after)) if model is not None}
    options: dict[str, Any] = {
        "measures": measures,
        "latency_queries": 0,
        "details": 0,
        "show_progress_bar": show_progress_bar,
    }
    if kind == "reranker":
        return _compare_rerankers(models, dataset, retriever, options)
    others = {"bm25": BM25()} if beside is None else dict(beside)
    if taken := [name for name in others if name in ("before", "after") or "+" in name]:
        raise InvalidArgumentError(f"A retriever beside the model cannot have the name {taken[0]!r}: rename it.")
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
    """Each figure of an evaluator (of `build_evaluator`), before and after; the one that decides is the first.

    `before` and `after` are as in `compare_models`; "before" is None in the answer where there is no such model.
    """
    if evaluator is None:
        return {}
    was, now = (
        {} if model is None else dict(evaluator(LazyModel(model, FAMILIES[kind]).get())) for model in (before, after)
    )
    return {name: (was.get(name), figure) for name, figure in now.items() if name != evaluator.primary_metric}


def compare_sparsity(before: Any, after: Any, dataset: Dataset) -> dict[str, Sparsity]:
    """Active dimensions and FLOPS of two sparse models, "before" and "after", on the first 20,000 documents.

    A model that is None is left out. Vectors that are in the cache are not made again.
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
    """The texts whose expansion gained most weight, most first, such as "cephalalgia" that gained "headache".

    Pieces of words and latent dimensions say nothing to people and are left out, as are texts that gained nothing.

    Args:
        before, after: sparse models, as in `compare_models`; without `before` there is nothing to compare.
        texts: encoded as documents: the side that is expanded by every sparse model.
        examples: how many are returned, at most.
    """
    if before is None or not texts:
        return ()
    rows = zip(texts, _weights(Sparse(before), texts), _weights(Sparse(after), texts), strict=True)
    changes = []
    for text, old, new in rows:
        gained = {term: weight for term, weight in new.items() if term not in old and not _is_in(term, text)}
        lost = {term: weight for term, weight in old.items() if term not in new}
        changes.append((sum(_heaviest(gained).values()), Expansion(text, *map(_terms, (gained, lost)))))
    changes.sort(key=lambda change: -change[0])
    return tuple(expansion for weight, expansion in changes[:examples] if weight > 0)


def _compare_rerankers(
    models: Mapping[str, Any], dataset: Dataset, retriever: HybridSearch | Pipeline | None, options: Mapping[str, Any]
) -> Comparison:
    if retriever is None:
        with HybridSearch({"bm25": BM25()}) as search:
            search.index(dataset.corpus or (), show_progress_bar=options["show_progress_bar"])
            return _compare_rerankers(models, dataset, search, options)
    pipeline = Pipeline(retriever) if isinstance(retriever, HybridSearch) else retriever
    systems = {"retrieval": replace(pipeline, reranker=None)}
    systems |= {name: replace(pipeline, reranker=CrossEncoderReranker(model)) for name, model in models.items()}
    return compare(systems, dataset, **options)


def _weights(encoder: Sparse, texts: Sequence[str]) -> Iterator[dict[str, float]]:
    """Weight by term of each text, without what is no word."""
    vectors = encoder.encode_documents(list(texts))
    terms, matrix = vectors.vocabulary.terms, vectors.matrix
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        row = zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
        yield {terms[column]: weight for column, weight in row if terms[column].isalpha()}


def _is_in(term: str, text: str) -> bool:
    return term.lower() in re.findall(r"\w+", text.lower())


def _heaviest(weights: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:_TERMS])


def _terms(weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple((term, round(weight, 4)) for term, weight in _heaviest(weights).items())


def _short(text: str, width: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
