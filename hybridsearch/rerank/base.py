"""What every reranker is, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.errors import EncodingError, HybridSearchError, RetrieverError
from hybridsearch.registry import make


@runtime_checkable
class Reranker(Protocol):
    """Gives new scores to the first `top_k` documents of a fused ranking."""

    @property
    def top_k(self) -> int:
        """How many documents of each fused ranking are scored; at least 1."""
        ...

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
        """Scores of each query's documents, larger is better.

        Args:
            queries: all queries of a search, so that work can be shared.
            documents: for each query its candidates, in fused order.

        Returns:
            For each query one float64 array, as long as its candidates and in their order. Raises EncodingError
            where the model gives NaN.
        """
        ...

    def to_json(self) -> dict[str, Any] | None:
        """`{"type": registered name, **constructor arguments}`; None for one that only the caller can make."""
        ...


def score_pairs(
    reranker: Reranker, queries: Sequence[str], documents: Sequence[Sequence[Document]]
) -> list[NDArray[np.float64]]:
    """`reranker.rerank`, whoever wrote it, with its answer checked.

    Raises:
        RetrieverError: it failed with an error that is none of ours.
        EncodingError: it did not give one finite score for each document.
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


def make_reranker(description: Mapping[str, Any]) -> Reranker:
    """The reranker of `Reranker.to_json`. Raises InvalidArgumentError as `hybridsearch.registry.make` does."""
    reranker: Reranker = make("reranker", description)
    return reranker
