"""The encoder of character n-grams, which finds words that are spelt wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hybridsearch import arguments
from hybridsearch.arguments import whole_number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.encoders.counting import TermCounter
from hybridsearch.encoders.tokens import Rules
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import SparseQuery, SparseVectors
from hybridsearch.weighting import BM25Weighting

VERSION = 1
"""Version of the rules that cut words into n-grams, a part of every fingerprint."""

_RULES = Rules(None, frozenset(), fold_accents=True)


class CharNGrams:
    """An encoder for lexical search by the character n-grams of words, weighted by BM25.

    "laminer" and "laminar" share the trigrams "_la", "lam", "ami" and "min". So a word that is spelt wrong still finds
    the right one. Case and accents are ignored. A word begins and ends with "_". A word that is shorter than an n-gram
    is one n-gram.

    Args:
        least: Number of characters of the shortest n-grams, at least 2.
        most: Number of characters of the longest n-grams, at least `least` and at most 8.
        k1: Number that decides how slowly the weight grows with repetitions of an n-gram, at least 0.
        b: Strength of the correction for long documents, from 0 (none) to 1 (full).

    Raises:
        InvalidArgumentError: An argument is outside its range.

    >>> CharNGrams(3, 3).tokenize("Boundry layer")
    ['_bo', 'bou', 'oun', 'und', 'ndr', 'dry', 'ry_', '_la', 'lay', 'aye', 'yer', 'er_']
    """

    def __init__(self, least: int = 3, most: int = 3, *, k1: float = 1.2, b: float = 0.75) -> None:
        if whole_number("least", least) < 2 or not least <= whole_number("most", most) <= 8:
            raise InvalidArgumentError(
                f"An n-gram has from 2 to 8 characters, and most is at least least, but least is {least} and most is "
                f"{most}."
            )
        self.weighting = BM25Weighting("lucene", k1, b)
        self._arguments: dict[str, Any] = {"least": least, "most": most, "k1": float(k1), "b": float(b)}
        self._counter = TermCounter(_RULES.splitter(of_query=True), lambda: self._ngrams)

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """Count the n-grams of documents.

        Args:
            texts: Texts of the documents.
            show_progress_bar: Whether to show a progress bar on standard error.

        Returns:
            Frequencies as a float32 matrix of shape (texts, n-grams of these texts). The columns are ordered by n-gram.

        Raises:
            InvalidArgumentError: `texts` is not a sequence of strings.
        """
        arguments.texts(texts)
        return self._counter.documents(texts, show_progress_bar=show_progress_bar)

    def encode_queries(self, texts: Sequence[str]) -> list[SparseQuery]:
        """Count the n-grams of queries.

        Args:
            texts: Texts of the queries.

        Returns:
            For each text, its distinct n-grams in the order of first occurrence, with their counts as weights.

        Raises:
            InvalidArgumentError: `texts` is not a sequence of strings.
        """
        arguments.texts(texts)
        return list(map(self._counter.query, texts))

    def tokenize(self, text: str) -> list[str]:
        """Cut a text into n-grams, in order and with repetitions."""
        return self._counter.terms(text)

    def fingerprint(self) -> Fingerprint:
        """Name all settings that the n-grams and scores depend on."""
        return Fingerprint("chars", {**self._arguments, "version": VERSION})

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index: the arguments of the encoder, and the weighting."""
        encoder = {"type": "chars", **self._arguments}
        return RetrieverSchema("lexical", self.fingerprint(), encoder, weighting=asdict(self.weighting))

    def __repr__(self) -> str:
        return f"CharNGrams({', '.join(f'{name}={value!r}' for name, value in self._arguments.items())})"

    def _ngrams(self, word: str) -> list[str]:
        marked = f"_{word.strip('_')}_"
        if len(marked) == 2:
            return []
        sizes = range(self._arguments["least"], self._arguments["most"] + 1)
        return [marked[i : i + n] for n in sizes for i in range(max(1, len(marked) - n + 1))]
