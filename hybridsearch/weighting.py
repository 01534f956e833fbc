"""The formulas of BM25, which compute scores from term frequencies. Encoders and backends share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number
from hybridsearch.errors import InvalidArgumentError

Variant: TypeAlias = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]

_DELTAS = {"bm25l": 0.5, "bm25+": 1.0}
_LARGEST = 1e6  # far above useful values, and float32 holds all weights


@dataclass(frozen=True, slots=True)
class BM25Weighting:
    """Formula of BM25, which computes scores from term frequencies.

    The score of document d is the sum, over the query's terms, of count * idf(term) * weight(term, d). The variants are
    those of Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020). N is the number of documents, n the number of
    documents with the term, tf the term frequency, L the document's length in tokens, and
    B = 1 - b + b * L / average length.

    | variant   | idf                                   | weight                              |
    |-----------|---------------------------------------|-------------------------------------|
    | lucene    | ln(1 + (N - n + 0.5) / (n + 0.5))     | tf / (tf + k1 B)                    |
    | robertson | max(0, ln((N - n + 0.5) / (n + 0.5))) | tf / (tf + k1 B)                    |
    | atire     | ln(N / n)                             | (k1 + 1) tf / (tf + k1 B)           |
    | bm25l     | ln((N + 1) / (n + 0.5))               | (k1 + 1) (c + delta) / (k1 + c + delta), c = tf / B |
    | bm25+     | ln((N + 1) / n)                       | (k1 + 1) tf / (tf + k1 B) + delta   |

    Only terms that the document contains are summed, as published. Two libraries also add the weight of frequency 0 for
    query terms that the document does not contain: bm25s with "bm25l" and "bm25+", and rank-bm25 with "bm25+". There
    every document is a hit, and scores are larger by this amount. BM25L of rank-bm25 has one more factor tf. In
    "robertson" a term in more than half of the documents counts 0, and not a negative number, as in bm25s.

    Attributes:
        variant: Name of the variant in the table.
        k1: Number that decides how slowly the weight grows with repetitions of a term, from 0 to 1,000,000.
        b: Strength of the correction for long documents, from 0 (none) to 1 (full).
        delta: Parameter of `"bm25l"` (default 0.5) and `"bm25+"` (default 1.0), from 0 to 1,000,000. None for other
            variants.

    Raises:
        InvalidArgumentError: A parameter is outside its range.

    >>> BM25Weighting().term_weights(np.float32([1, 2]), np.float32([10, 10]), 10.0).round(4).tolist()
    [0.4544999897480011, 0.625]
    """

    variant: Variant = "lucene"
    k1: float = 1.2
    b: float = 0.75
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InvalidArgumentError(
                f"The BM25 variant {self.variant!r} is not known: known are {', '.join(get_args(Variant))}."
            )
        self._check_number("k1", most=_LARGEST)
        self._check_number("b", most=1)
        if self.delta is None:
            object.__setattr__(self, "delta", _DELTAS.get(self.variant))
        elif self.variant not in _DELTAS:
            raise InvalidArgumentError(
                f"delta = {self.delta!r} was given for the variant {self.variant!r}, but only bm25l and bm25+ have a "
                "delta: leave it out."
            )
        else:
            self._check_number("delta", most=_LARGEST)

    def _check_number(self, name: str, most: float | None = None) -> None:
        object.__setattr__(self, name, number(f"BM25's {name}", getattr(self, name), least=0, most=most))

    def idf(self, document_frequency: NDArray[np.int64], documents: int) -> NDArray[np.float64]:
        """Compute the idf of terms, which is the weight of a term in a query.

        Args:
            document_frequency: Number of documents with each term, from 1 to `documents`. The array has any shape.
            documents: Number of all documents.

        Returns:
            The idf of each term as float64, in the same shape, at least 0. It depends only on the term's frequency.
        """
        n = np.asarray(document_frequency, dtype=np.float64)
        if self.variant == "lucene":
            return np.log1p((documents - n + 0.5) / (n + 0.5))
        if self.variant == "robertson":
            return np.log(np.maximum((documents - n + 0.5) / (n + 0.5), 1.0))
        if self.variant == "atire":
            return np.log(documents / n)
        if self.variant == "bm25l":
            return np.log((documents + 1) / (n + 0.5))
        return np.log((documents + 1) / n)

    @property
    def largest(self) -> float:
        """The weight that no term of a document exceeds, without its idf.

        >>> BM25Weighting().largest, BM25Weighting("bm25+").largest
        (1.0, 3.2)
        """
        if self.variant in ("lucene", "robertson"):
            return 1.0
        return self.k1 + 1 + (self.delta or 0 if self.variant == "bm25+" else 0)

    def term_weights(
        self, frequency: NDArray[np.float32], length: NDArray[np.float32], average_length: float
    ) -> NDArray[np.float32]:
        """Compute the weights of terms in documents, without their idf.

        Args:
            frequency: Frequency of a term in a document, above 0. The array has any shape.
            length: Length of the document in tokens, in the same shape or in a shape that broadcasts to it.
            average_length: Mean length of all documents in tokens.

        Returns:
            The weights as float32, in the same shape, precise to a few units in the last place. A weight depends only
            on its own inputs, so that a part of an index gives the same weights as the whole index.
        """
        tf = np.asarray(frequency, dtype=np.float32)
        slope = self.b / average_length if average_length > 0 else 0.0
        norm = np.float32(1 - self.b) + np.float32(slope) * np.asarray(length, dtype=np.float32)
        k1, delta = np.float32(self.k1), np.float32(self.delta or 0)
        if self.variant == "bm25l":
            c = tf / norm + delta
            weights = (k1 + 1) * c / (k1 + c)
        elif self.variant in ("lucene", "robertson"):
            weights = tf / (tf + k1 * norm)
        else:
            weights = (k1 + 1) * tf / (tf + k1 * norm) + delta
        return weights.astype(np.float32, copy=False)
