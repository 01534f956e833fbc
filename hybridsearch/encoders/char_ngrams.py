"""The encoder of character n-grams, which finds words that are spelt wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from hybridsearch import arguments
from hybridsearch.arguments import whole_number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.encoders import Place
from hybridsearch.encoders.counting import NO_WORD, TermCounter
from hybridsearch.encoders.tokens import MAX_WORD, Rules
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.registry import name_of
from hybridsearch.vectors import SparseQuery, SparseVectors
from hybridsearch.weighting import BM25Weighting

VERSION = 1
"""Version of the rules that cut words into n-grams, a part of every fingerprint."""

_REMEMBERED = 20_000  # words whose n-grams are kept for the next texts
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_RULES = Rules(None, frozenset(), fold_accents=True, version=2)


class CharNGrams:
    """An encoder for lexical search by the character n-grams of words, weighted by BM25. It finds misspelt words.

    "boundry" and "boundary" share the 4-grams "_bou", "boun" and "ound", where "_" is the edge of a word. Case and
    accents are ignored. A word that is shorter than an n-gram is one n-gram. Scripts without spaces between words give
    single characters and pairs, as for `BM25`. Any number of threads may use one encoder.

    The defaults were best on SciFact and Cranfield with misspelt queries (`benchmarks/typos.py`).

    Args:
        n: Number of characters of an n-gram, from 2 to 8. The edges of a word count.
        k1: Number that decides how slowly the weight grows with repetitions of an n-gram, from 0 to 1,000,000.
        b: Strength of the correction for long documents, from 0 (none) to 1 (full).

    Raises:
        InvalidArgumentError: An argument is outside its range.

    >>> CharNGrams().tokenize("Boundry layer")
    ['_bou', 'boun', 'ound', 'undr', 'ndry', 'dry_', '_lay', 'laye', 'ayer', 'yer_']
    """

    def __init__(self, n: int = 4, *, k1: float = 2.0, b: float = 0.75) -> None:
        n = whole_number("n", n, 2)
        if n > 8:
            raise InvalidArgumentError(f"n is a number of characters from 2 to 8, not {n}.")
        self.weighting = BM25Weighting("lucene", k1, b)
        self._arguments: dict[str, Any] = {"n": n, "k1": float(k1), "b": float(b)}
        self._documents, self._queries = (
            TermCounter(_RULES.splitter(of_query=of_query), lambda: self._ngrams) for of_query in (False, True)
        )
        self._of_word = lru_cache(_REMEMBERED)(self._distinct)

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
        return self._documents.documents(texts, show_progress_bar=show_progress_bar)

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
        return list(map(self._queries.query, texts))

    def tokenize(self, text: str) -> list[str]:
        """Cut the text of a document into n-grams, in order and with repetitions.

        >>> CharNGrams(3).tokenize("a wing")
        ['_a_', '_wi', 'win', 'ing', 'ng_']
        """
        return self._documents.terms(text)

    def query_notes(self, texts: Sequence[str]) -> list[str]:
        """Write a note on each query that has no word, and so finds nothing.

        Returns:
            One sentence for each text, or `""` if the query has words.
        """
        return ["" if self._queries.terms(text) else NO_WORD for text in texts]

    @property
    def max_tokens(self) -> None:
        """Number of tokens that are read of a document: None, because all of them are read."""
        return None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the words of each text. Unspaced scripts count as in a query."""
        split = _RULES.splitter(of_query=True)
        return [len(split(text)) for text in texts]

    def locate(
        self, texts: Sequence[str], terms: Sequence[Mapping[str, float]], *, models: bool = True
    ) -> list[list[Place]]:
        """Find the words that match. A word matches if at least a third of its n-grams is in the query.

        Args:
            texts: Texts of documents.
            terms: N-grams to find in each text, with their weights, in the order of `texts`.
            models: Ignored, because no model runs.

        Returns:
            The places in each text, in order. A word has one place for each of its n-grams that is found.
        """
        return [self._places(text, wanted) for text, wanted in zip(texts, terms, strict=True)]

    def fingerprint(self) -> Fingerprint:
        """Name all settings that the n-grams and scores depend on."""
        return Fingerprint("chars", {**self._arguments, "version": VERSION})

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index: the arguments of the encoder, and the weighting.

        A subclass that is not registered has no arguments, so that `hs.open` never takes `CharNGrams` for it.
        """
        name = name_of("encoder", type(self))
        encoder = None if name is None else {"type": name, **self._arguments}
        return RetrieverSchema("lexical", self.fingerprint(), encoder, weighting=asdict(self.weighting))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._arguments.items())})"

    def __getstate__(self) -> dict[str, Any]:
        """The state of pickles and copies: the arguments, and what a subclass adds."""
        return {name: value for name, value in vars(self).items() if name not in ("_documents", "_queries", "_of_word")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        CharNGrams.__init__(self, **state["_arguments"])
        vars(self).update(state)

    def _places(self, text: str, wanted: Collection[str]) -> list[Place]:
        places: list[Place] = []
        known: dict[str, list[str]] = {}  # a text repeats half of its words
        for match in _WORD.finditer(text) if wanted else ():
            word = match.group()
            if word not in known:
                ngrams = self._of_word(word)
                found = [ngram for ngram in ngrams if ngram in wanted]
                known[word] = found if 3 * len(found) >= len(ngrams) else []
            places += [Place(match.start(), match.end(), ngram) for ngram in known[word]]
        return places

    def _distinct(self, word: str) -> tuple[str, ...]:
        """The n-grams of a word, each once."""
        return tuple(dict.fromkeys(self.tokenize(word)))

    def _ngrams(self, word: str) -> list[str]:
        word = word[:MAX_WORD].strip("_'")
        if not any(map(str.isalnum, word)):
            return []
        n, marked = self._arguments["n"], f"_{word}_"
        return [marked[i : i + n] for i in range(max(1, len(marked) - n + 1))]
