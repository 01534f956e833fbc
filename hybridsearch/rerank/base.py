"""The methods that every reranker has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.errors import EncodingError, HybridSearchError, RetrieverError
from hybridsearch.registry import make


@runtime_checkable
class Reranker(Protocol):
    """An object that gives new scores to the first documents of a fused ranking.

    In an index with passages, the text of a document is its best passage. A reranker that has an attribute `passages`
    reads that number of best passages, in the order of the text.
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
