"""Calibrating: a judge grades the first documents of each retriever, and the grades decide the weights of a fusion."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.dense import Dense
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.judging import (
    HIGHEST,
    Judgements,
    Scorer,
    checked_queries,
    description_of,
    documents_of,
    scores_of,
)
from hybridsearch.fusion import RRF, JudgedFusion
from hybridsearch.messages import warn
from hybridsearch.progress import progress_bar
from hybridsearch.ranking import Ranking
from hybridsearch.rerank import LateInteraction, Reranker
from hybridsearch.search import HybridSearch

Judge: TypeAlias = "Scorer | Dense | Judgements"
"""A reranker, a dense encoder, a function from a query and texts to a number for each text, or grades that exist."""

_Grades: TypeAlias = dict[str, dict[str, float]]

QUANTILES = (0.5, 0.75, 0.9)
"""Shares of all scores that are below the grades 1, 2 and 3, if the scores of a program are not grades already."""

SAME_BACKBONE = 0.5
"""Least mean cosine of the token embeddings of two models that were trained from the same model.

Training moves these embeddings little. In models with different origins, the cosine is about 0."""

_TOKENS = 2000


def calibrate(
    search: HybridSearch,
    queries: Mapping[str, str] | Sequence[str],
    judge: Judge,
    *,
    name: str = "judge",
    depth: int = 10,
    folder: str | Path | None = None,
    show_progress_bar: bool | None = None,
) -> JudgedFusion:
    """Let a judge grade the first documents of each retriever, and make a fusion with the weights that follow.

    `JudgedFusion.calibrated` computes the weights. The judge must make other mistakes than the retrievers. So a judge
    that is a retriever of the index is refused. A warning says if a judge and a retriever have the same backbone: the
    embeddings of their tokens are alike.

    Args:
        search: Index with two retrievers or more.
        queries: 50 to 500 queries of the kind that users ask: by id, or a list of texts.
        judge: A reranker such as `CrossEncoderReranker`, a `Dense` encoder, or a function from a query and a list of
            texts to a number for each text, such as one that asks a language model. Higher is better, and any scale is
            allowed. Or `Judgements`: then the grades of people count, and documents that nobody graded have no grade.
        name: Name of the judge in `folder`.
        depth: Number of first documents of each retriever that the judge grades.
        folder: Folder of `Judgements` that keeps the grades with the judge's description. A score that is no grade from
            0 to 3 gets a grade by its place among all scores: 1 above the median, 2 in the best quarter, 3 in the best
            tenth. Equal scores get the same grade, so there can be fewer grades. None keeps no grades. The grades of
            people are kept already.
        show_progress_bar: Whether to show a progress bar. None shows one in a terminal.

    Returns:
        The fusion, with the strength of each retriever.

    Raises:
        InvalidArgumentError: The index has one retriever, or the judge is one of its retrievers, or an argument is not
            allowed.
        EncodingError: The judge did not give one finite number for each text.
        RetrieverError: A retriever failed, also an optional one.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()})
    >>> documents = [hs.Document("a", "the lift of a wing"), hs.Document("b", "a lifting body")]
    >>> report = search.index(documents, show_progress_bar=False)
    >>> fusion = calibrate(search, ["lift", "wing"], lambda query, texts: [float(query in text) for text in texts])
    >>> sorted(fusion.weights)
    ['bm25', 'chars']
    """
    arguments.of_type("search", search, HybridSearch, "an index such as hs.open('my-index')")
    depth = arguments.whole_number("depth", depth)
    if len(search.retrievers) < 2:
        raise InvalidArgumentError("The index has one retriever, but a fusion needs two or more.")
    if isinstance(queries, Sequence) and not isinstance(queries, str):
        queries = {f"q{number}": text for number, text in enumerate(dict.fromkeys(queries), 1)}
    asked = checked_queries(queries)
    if not isinstance(judge, Judgements):
        _check_judge(judge, search)
    elif folder is not None:
        raise InvalidArgumentError(
            "folder (--keep) keeps the grades of a program, and the grades of people are kept already: leave it out."
        )
    if folder is not None and Judgements(folder).queries:
        raise InvalidArgumentError(f"{str(folder)!r} has judgements already: give a new folder.")
    plan = search.plan(depth, fusion=RRF(), reranker=None)  # the fusion of the index may leave retrievers out
    answers = replace(plan, optional=(), timeout={}, passages=()).ask(asked.values())
    rankings = dict(zip(asked, answers.by_query, strict=True))
    if isinstance(judge, Judgements):
        about = f"people: {', '.join(judge.people)}"
        grades = _of_people(judge, asked)
    else:
        about = description_of(judge)
        pools = {query: _pool(of.values(), depth) for query, of in rankings.items()}
        grades = _of_program(judge, search, asked, pools, show_progress_bar)
        if folder is not None:
            _keep(Judgements(folder), name, about, asked, rankings, grades, search, depth)
    return JudgedFusion.calibrated(rankings.values(), [grades.get(query, {}) for query in asked], judge=about)


def _pool(rankings: Any, depth: int) -> list[str]:
    return sorted({id for ranking in rankings for id in ranking.ids[:depth]})


def _of_people(judgements: Judgements, queries: Mapping[str, str]) -> _Grades:
    """The settled grades of people, for queries with the same text."""
    ids = {text: id for id, text in judgements.queries.items()}
    settled = judgements.settled()
    found = {query: settled.get(ids.get(text, ""), {}) for query, text in queries.items()}
    return {query: {id: float(grade) for id, grade in of.items()} for query, of in found.items()}


def _of_program(
    judge: Scorer | Dense,
    search: HybridSearch,
    queries: Mapping[str, str],
    pools: Mapping[str, Sequence[str]],
    show: bool | None,
) -> _Grades:
    """The number that a program gives to each document of each pool."""
    documents = documents_of({*itertools.chain(*pools.values())}, search)
    scorer = _by_cosine(judge, queries, documents) if isinstance(judge, Dense) else judge
    grades: _Grades = {}
    with progress_bar("Judging", range(sum(map(len, pools.values()))), show) as advance:
        for query, ids in pools.items():
            of_query = [documents[id] for id in ids if id in documents]
            scores = scores_of(scorer, queries[query], of_query) if of_query else []
            grades[query] = {one.id: score for one, score in zip(of_query, scores, strict=True)}
            advance(len(ids))
    return grades


def _by_cosine(judge: Dense, queries: Mapping[str, str], documents: Mapping[str, Document]) -> Scorer:
    """A function that scores texts by a dense encoder. All texts are encoded before, in large batches."""
    texts = list(dict.fromkeys(document.content for document in documents.values()))
    vectors = dict(zip(texts, judge.encode_documents(texts).array, strict=True))
    asked = dict(zip(queries.values(), judge.encode_queries(list(queries.values())), strict=True))
    return lambda query, some: [float(vectors[text] @ asked[query]) for text in some]


def _keep(
    kept: Judgements,
    name: str,
    about: str,
    queries: Mapping[str, str],
    rankings: Mapping[str, Mapping[str, Ranking]],
    grades: _Grades,
    search: HybridSearch,
    depth: int,
) -> None:
    """Write the grades to a folder of judgements."""
    scores = np.array([score for of in grades.values() for score in of.values()])
    graded = set(np.unique(scores)) <= set(range(HIGHEST + 1))
    limits = [1.0, 2.0, 3.0] if graded else _limits(scores)
    runs = {retriever: {query: of[retriever] for query, of in rankings.items()} for retriever in search.retrievers}
    kept.add_pool(cast("Mapping[str, Any]", runs), queries, depth=depth, show_progress_bar=False)
    ids = {text: id for id, text in queries.items()}
    documents = documents_of({*itertools.chain(*grades.values())}, search)
    texts = {(query, documents[id].content): score for query, of in grades.items() for id, score in of.items()}

    def look_up(query: str, some: Sequence[str]) -> list[float]:
        return [texts[ids[query], text] for text in some]

    kept.judge_with(name, look_up, search, thresholds=limits, about=about, show_progress_bar=False)


def _limits(scores: NDArray[np.float64]) -> list[float]:
    """The least scores of the grades: those just above the quantiles. Equal scores can leave fewer than three grades.

    >>> _limits(np.array([0.0, 0.0, 0.0, 0.1, 0.2])), _limits(np.array([0.5, 0.5, 0.5]))
    ([0.1, 0.2], [0.5000000000000001])
    """
    above = [scores[scores > limit] for limit in np.quantile(scores, QUANTILES).tolist()]
    return sorted({float(some.min()) for some in above if len(some)}) or [float(np.nextafter(scores.max(), np.inf))]


def _check_judge(judge: object, search: HybridSearch) -> None:
    """Refuse a judge that is a retriever, and warn of one with the same backbone."""
    if isinstance(judge, Encoder) and not isinstance(judge, Dense | Reranker):
        raise InvalidArgumentError(
            f"A judge is a reranker, a Dense encoder, a function or Judgements, not {arguments.shown(judge)}."
        )
    if not callable(judge) and not isinstance(judge, Reranker | Dense):
        raise InvalidArgumentError(
            f"A judge is a reranker, a Dense encoder, a function or Judgements, not {arguments.shown(judge)}."
        )
    for name, encoder in search.retrievers.items():
        own, theirs = getattr(judge, "model", None), getattr(encoder, "model", None)
        both_late = isinstance(judge, LateInteraction) and isinstance(encoder, LateInteraction)
        alike = isinstance(judge, Dense) or both_late
        if judge is encoder or (alike and own is not None and _digest(own) == _digest(theirs)):
            raise InvalidArgumentError(
                f"The judge is the retriever {name!r} of the index, and would prefer its own documents: use a model "
                "that is no part of the index."
            )
        if _same_backbone(own, theirs):
            warn(
                f"The judge was trained from the same model as the retriever {name!r}, so it may prefer its documents: "
                "use a judge of another kind if you can."
            )


def _digest(model: Any) -> str | None:
    return model.digest() if hasattr(model, "digest") else None


def _same_backbone(one: Any, other: Any) -> bool:
    """Whether the embeddings of the first tokens of two models are alike."""
    first, second = (_embeddings(model) for model in (one, other))
    if first is None or second is None or first.shape != second.shape:
        return False
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    used = lengths > 0
    return bool(used.any() and ((first * second).sum(axis=1)[used] / lengths[used]).mean() > SAME_BACKBONE)


def _embeddings(model: Any) -> NDArray[np.float32] | None:
    """The embeddings of the first tokens of a model of transformers. None for a model without them."""
    if not hasattr(model, "get"):
        return None
    import torch

    loaded = model.get()
    modules = loaded.modules() if isinstance(loaded, torch.nn.Module) else loaded.model.modules()
    found = [module.weight for module in modules if isinstance(module, torch.nn.Embedding)]
    if not found:
        return None
    largest = max(found, key=len)[:_TOKENS]
    values: NDArray[np.float32] = largest.detach().float().cpu().numpy()
    return values
