"""BM25's formulas: how term frequencies become scores. Encoders and backends share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number
from hybridsearch.errors import InvalidArgumentError

Variant: TypeAlias = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]

_DELTAS = {"bm25l": 0.5, "bm25+": 1.0}


@dataclass(frozen=True, slots=True)
class BM25Weighting:
    """How term frequencies become scores: score(d) = sum over query terms of count * idf(term) * weight(term, d).

    The variants are those of Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020), with N documents of which n
    hold the term, term frequency tf, document length L in tokens and B = 1 - b + b * L / average length:

    | variant   | idf                                   | weight                              |
    |-----------|---------------------------------------|-------------------------------------|
    | lucene    | ln(1 + (N - n + 0.5) / (n + 0.5))     | tf / (tf + k1 B)                    |
    | robertson | max(0, ln((N - n + 0.5) / (n + 0.5))) | tf / (tf + k1 B)                    |
    | atire     | ln(N / n)                             | (k1 + 1) tf / (tf + k1 B)           |
    | bm25l     | ln((N + 1) / (n + 0.5))               | (k1 + 1) (c + delta) / (k1 + c + delta), c = tf / B |
    | bm25+     | ln((N + 1) / n)                       | (k1 + 1) tf / (tf + k1 B) + delta   |

    The sum is over the terms that the document holds, as published. bm25s for "bm25l" and "bm25+", and rank-bm25 for
    the latter, add what a frequency of 0 would weigh for each query term that a document lacks, so that every document
    is a hit; their scores differ from these by exactly that amount. (rank-bm25's BM25L also has one factor tf more.)
    In "robertson" a term in more than half of the documents counts nothing rather than against a document, as in bm25s.

    Attributes:
        variant: see the table.
        k1: how slowly further occurrences stop to count; at least 0.
        b: how much longer documents are held back, from 0 (not at all) to 1.
        delta: of "bm25l" (default 0.5) and "bm25+" (default 1.0); None for the others.

    Raises:
        InvalidArgumentError: a parameter is outside its range.

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
                f"No BM25 variant {self.variant!r} is known: known are {', '.join(get_args(Variant))}."
            )
        self._check_number("k1")
        self._check_number("b", most=1)
        if self.delta is None:
            object.__setattr__(self, "delta", _DELTAS.get(self.variant))
        elif self.variant not in _DELTAS:
            raise InvalidArgumentError(
                f"delta = {self.delta!r} was given for the variant {self.variant!r}: only bm25l and bm25+ have one."
            )
        else:
            self._check_number("delta")

    def _check_number(self, name: str, most: float | None = None) -> None:
        object.__setattr__(self, name, number(f"BM25's {name}", getattr(self, name), least=0, most=most))

    def idf(self, document_frequency: NDArray[np.int64], documents: int) -> NDArray[np.float64]:
        """The query side.

        Args:
            document_frequency: how many documents hold each term, each from 1 to `documents`; any shape.
            documents: how many documents there are.

        Returns:
            float64, same shape, at least 0; each value depends on its own frequency alone.
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

    def term_weights(
        self, frequency: NDArray[np.float32], length: NDArray[np.float32], average_length: float
    ) -> NDArray[np.float32]:
        """The document side: how much an occurrence of a term counts, before its idf.

        Args:
            frequency: how often a document holds a term, above 0; any shape.
            length: of that document, in tokens; same shape, or one that broadcasts to it.
            average_length: over all documents.

        Returns:
            float32, within a few units in the last place. A value depends on its own inputs alone, never on its
            neighbours, so that a part of an index weighs like the whole.
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
