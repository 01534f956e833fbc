"""The methods that every reranker has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.encoders.neural import check_texts
from hybridsearch.errors import EncodingError, HybridSearchError, InvalidArgumentError, RetrieverError
from hybridsearch.fusion.score import normalize
from hybridsearch.messages import number_of
from hybridsearch.registry import make


@runtime_checkable
class Reranker(Protocol):
    """An object that gives new scores to the first documents of a fused ranking.

    In an index with passages, the text of a document is its best passage. A reranker that has an attribute `passages`
    reads that number of best passages, in the order of the text. The scores of a reranker that has an attribute `blend`
    are blended with the fused scores, as `blended` says. A reranker that has the methods `matches` and `words` of
    `LateInteraction` gives explanations and highlights. If it has the method `prepare`, an index calls it with the
    documents that it stores. In an index with `Passages(headings=False)`, these three methods get `headings=False`. If
    it is a `hybridsearch.encoders.sharing.TokenReader`, dense encoders of the index give it the token vectors that they
    make on the way.
    """

    @property
    def top_k(self) -> int:
        """Number of documents of each fused ranking that get new scores, at least 1."""
        ...

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
        """Score the first documents of each query. A larger score is better.

        Args:
            queries: All queries of a search, so that the reranker can make larger batches.
            documents: For each query, its first documents in fused order.

        Returns:
            For each query, one float64 array with a score for each document, in order.

        Raises:
            EncodingError: The model gives NaN.
        """
        ...

    def to_json(self) -> dict[str, Any] | None:
        """Convert the reranker to a dict that JSON can hold: `{"type": registered name, **constructor arguments}`.

        Return None for a reranker that only the caller can make.
        """
        ...


def score_pairs(
    reranker: Reranker, queries: Sequence[str], documents: Sequence[Sequence[Document]]
) -> list[NDArray[np.float64]]:
    """Call a reranker, and check its scores.

    Raises:
        RetrieverError: The reranker failed with an error that is not a `HybridSearchError`.
        EncodingError: The reranker did not give one finite score for each document.
    """
    try:
        scores = [np.asarray(of_query, dtype=np.float64) for of_query in reranker.rerank(queries, documents)]
    except HybridSearchError:
        raise
    except Exception as error:
        raise RetrieverError(f"The reranker failed: {type(error).__name__}: {error}") from error
    if [of_query.shape for of_query in scores] != [(len(of_query),) for of_query in documents]:
        raise EncodingError("The reranker did not give one score for each document of each query.")
    if not all(np.isfinite(of_query).all() for of_query in scores):
        raise EncodingError("The reranker gave NaN or infinity for a document.")
    return scores


def check_pairs(queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> None:
    """Check the arguments of `Reranker.rerank`.

    Raises:
        InvalidArgumentError: There is not one list of documents for each query, or a query is not usable.
    """
    if len(queries) != len(documents):
        raise InvalidArgumentError(
            f"{number_of(len(queries), 'query needs', 'queries need')} one list of documents "
            f"each, not {len(documents)}."
        )
    check_texts(queries)


def check_reranker(reranker: object) -> Reranker:
    """Return the object if it is a reranker. Otherwise raise InvalidArgumentError."""
    if isinstance(reranker, Reranker) and not isinstance(reranker, type):
        return reranker
    raise InvalidArgumentError(f"A reranker is an object such as hs.CrossEncoderReranker(...), not {reranker!r:.80}.")


def blended(scores: Sequence[float], fused: Sequence[float], weight: float) -> list[float]:
    """The scores that order the documents of a reranker.

    Args:
        scores: Scores that the reranker gave some documents.
        fused: Fused scores of these documents.
        weight: Weight of the fused scores, from 0 to 1. 0 leaves the scores as they are.

    Returns:
        (1 - weight) * (score) + weight * (fused score), both scaled to the range from 0 to 1 over these documents.

    >>> blended([7.0, 3.0, 5.0], [0.2, 0.4, 0.3], weight=0.25)
    [0.75, 0.25, 0.5]
    """
    if not weight or not scores:
        return list(scores)
    ours, theirs = (normalize(np.asarray(of, dtype=np.float64), "minmax") for of in (scores, fused))
    mixed: list[float] = ((1 - weight) * ours + weight * theirs).tolist()
    return mixed


def text_read(reranker: Reranker, document: Document) -> str:
    """The text that a reranker reads of a document: by its method `text_of` if it has one, else `Document.content`."""
    text_of: Callable[[Document], str] | None = getattr(reranker, "text_of", None)
    return document.content if text_of is None else text_of(document)


def make_reranker(description: Mapping[str, Any]) -> Reranker:
    """Make the reranker that `Reranker.to_json` described.

    Raises:
        InvalidArgumentError: The type is not known, or its class does not take the arguments.
    """
    reranker: Reranker = make("reranker", description)
    return reranker


def read_reranker(spec: str, **arguments: Any) -> Reranker:
    """Make a reranker from the text of an option: `MODEL` for a cross-encoder, `late=MODEL` for late interaction.

    Args:
        spec: Kind and model, as above.
        **arguments: Other arguments of the reranker.

    >>> read_reranker("late=a/model", top_k=20)
    LateInteraction('a/model', top_k=20)
    """
    kind = "late-interaction" if spec.startswith("late=") else "cross-encoder"
    return make_reranker({"type": kind, "model": spec.removeprefix("late="), **arguments})
