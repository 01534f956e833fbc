"""Maximal marginal relevance chooses hits that are relevant and differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, shown, whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import MultiVectors, SparseVectors, Vectors


@dataclass(frozen=True, slots=True)
class Likeness:
    """Similarity of a hit to the most similar hit that MMR put before it.

    Attributes:
        similarity: Cosine of the two vectors.
        to: The other hit: its number in the result of `MMR.order`, and its document id in `Hit.likeness`.
    """

    similarity: float
    to: int | str


@dataclass(frozen=True, slots=True)
class MMR:
    """Maximal marginal relevance: hits that are relevant, and that differ from the hits before them.

    The hit with the largest value comes next: relevance * (score) - (1 - relevance) * (similarity). The score is scaled
    from 0 to 1 among the hits that are compared. The similarity is the largest cosine with a hit that was chosen
    before, of the vectors in the index: dense vectors if the search asks a dense retriever, else the means of token
    vectors, else sparse vectors, else the terms of BM25.
    From Carbonell and Goldstein, "The use of MMR, diversity-based reranking" (SIGIR 1998).

    Args:
        relevance: Weight of the score, from 0 to 1. 1 keeps the order. Smaller values give more variety.
        depth: Number of first hits that are compared. Hits after them keep their order.
        retriever: Name of the retriever whose vectors are compared. The search need not ask it. None for the choice
            above.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> MMR(0.5).order([3.0, 2.9, 1.0], np.float32([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))
    [(0, None), (2, Likeness(similarity=0.0, to=0)), (1, Likeness(similarity=1.0, to=0))]
    """

    relevance: float = 0.7
    depth: int = 100
    retriever: str | None = None

    def __post_init__(self) -> None:
        number("relevance", self.relevance, least=0, most=1)
        whole_number("depth", self.depth)

    def order(self, scores: Sequence[float], similarities: NDArray[np.float32]) -> list[tuple[int, Likeness | None]]:
        """Put hits into their new order.

        Args:
            scores: Scores of the hits, the best first.
            similarities: Similarities between the hits, of shape (hits, hits), float32.

        Returns:
            The number of each hit in the new order, with the likeness to a hit before it. None for the first hit. Equal
            values keep the order of the scores.
        """
        relevance = np.asarray(scores, dtype=np.float64)
        low, high = relevance.min(initial=np.inf), relevance.max(initial=-np.inf)
        relevance = (relevance - low) / (high - low) if high > low else np.ones(len(relevance))
        likest = np.full(len(relevance), -np.inf)  # the similarity to the most similar hit that was chosen
        to = np.zeros(len(relevance), dtype=np.int64)
        left = np.ones(len(relevance), dtype=bool)
        order: list[tuple[int, Likeness | None]] = []
        for _ in range(len(relevance)):
            redundancy = likest if order else 0.0
            value = np.round(self.relevance * relevance - (1 - self.relevance) * redundancy, 12)
            place = int(np.argmax(np.where(left, value, -np.inf)))
            order.append((place, Likeness(float(likest[place]), int(to[place])) if order else None))
            left[place] = False
            nearer = similarities[place] > likest
            likest[nearer], to[nearer] = similarities[place][nearer], place
        return order


def similarities(vectors: Vectors) -> NDArray[np.float32]:
    """The cosine of each pair of rows, of shape (rows, rows), float32. Rows of zeros have the similarity 0.

    Term frequencies and weights are damped by log(1 + x), so that no single term decides. Of multi-vectors the means
    are compared.
    """
    if not isinstance(vectors, SparseVectors):
        rows = (vectors.pooled() if isinstance(vectors, MultiVectors) else vectors.array).astype(np.float64)
        products = rows @ rows.T
    else:
        damped = vectors.matrix.astype(np.float64)
        damped.data = np.log1p(np.maximum(damped.data, 0.0))
        products = (damped @ damped.T).toarray()
    lengths = np.sqrt(np.diagonal(products))
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    cosines: NDArray[np.float32] = (products * scale[:, None] * scale[None, :]).astype(np.float32)
    return cosines


def check_diversity(diversity: object) -> MMR | None:
    """The argument `diversity`: an `MMR` or None."""
    if diversity is None or isinstance(diversity, MMR):
        return diversity
    raise InvalidArgumentError(f"diversity is an object such as hs.MMR(0.7), not {shown(diversity)}.")
