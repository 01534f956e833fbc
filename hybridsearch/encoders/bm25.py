"""BM25: the weighting of a lexical retriever, and the encoder that turns texts into term frequencies."""

from __future__ import annotations

import hashlib
import inspect
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.encoders.tokens import LANGUAGES, TOKENIZER_VERSION, TermTable, Tokenizer, stop_words_of
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.ingest import progress_bar
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

Variant: TypeAlias = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]

MAX_REMEMBERED_WORDS = 1_000_000
"""Distinct words that an encoder keeps the terms of, some 150 MB; then it starts anew."""

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
        _check_number("k1", self.k1, math.inf)
        _check_number("b", self.b, 1.0)
        if self.delta is None:
            object.__setattr__(self, "delta", _DELTAS.get(self.variant))
        elif self.variant not in _DELTAS:
            raise InvalidArgumentError(
                f"delta = {self.delta!r} was given for the variant {self.variant!r}: only bm25l and bm25+ have one."
            )
        else:
            _check_number("delta", self.delta, math.inf)

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


class BM25:
    """The lexical retriever: texts become term frequencies, which the backend weighs by `BM25Weighting`.

    Words are runs of letters, digits, marks and inner apostrophes after Unicode NFKC and case folding; a decimal or
    version number is one word; stop words are dropped and the rest is stemmed; scripts that are written without
    spaces give pairs of characters. Any number of threads may use one encoder.

    Args:
        language: of the Snowball stemmer and the stop words; None for texts of several or other languages: then
            nothing is stemmed and no stop word is dropped, unless `stop_words` lists them.
        variant, k1, b, delta: see `BM25Weighting`.
        stemming: whether words are reduced to stems: "wings" finds "wing".
        stop_words: True for the language's list (where `hybridsearch.encoders.stopwords` has one), False for none,
            or your own words; case does not matter.
        lowercase: whether case is ignored.
        fold_accents: whether accents are ignored: "naïve" finds "naive".
        bigrams: whether runs of Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese characters give their
            overlapping pairs, as in Lucene's CJKAnalyzer, instead of one word.

    Raises:
        InvalidArgumentError: the language has no stemmer, or another argument is outside its range.

    >>> BM25().tokenize("The wings’ flutter at Mach 1.5")
    ['wing', 'flutter', 'mach', '1.5']
    >>> BM25("french").tokenize("L’été des hôtels")
    ['hôtel']
    """

    def __init__(
        self,
        language: str | None = "english",
        *,
        variant: Variant = "lucene",
        k1: float = 1.2,
        b: float = 0.75,
        delta: float | None = None,
        stemming: bool = True,
        stop_words: bool | Sequence[str] = True,
        lowercase: bool = True,
        fold_accents: bool = False,
        bigrams: bool = True,
    ) -> None:
        if language is not None and language not in LANGUAGES:
            raise InvalidArgumentError(
                f"No language {language!r} is known: known are {', '.join(LANGUAGES)}, or None for any other."
            )
        if not isinstance(stop_words, bool):
            if isinstance(stop_words, str) or not all(isinstance(word, str) for word in stop_words):
                raise InvalidArgumentError(f"stop_words is True, False or a list of words, not {stop_words!r:.80}.")
            stop_words = list(stop_words)
        flags = {"stemming": stemming, "lowercase": lowercase, "fold_accents": fold_accents, "bigrams": bigrams}
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise InvalidArgumentError(f"{name} is True or False, not {flag!r:.80}.")
        self.weighting = BM25Weighting(variant, k1, b, delta)
        words = stop_words_of(language) if stop_words is True else frozenset(stop_words or ())
        self._arguments: dict[str, Any] = {
            "language": language,
            "variant": variant,
            "k1": float(k1),
            "b": float(b),
            "delta": delta if delta is None else float(delta),
            "stop_words": stop_words,
            **flags,
        }
        self._tokenizer = Tokenizer(language, stemming, words, lowercase, fold_accents, bigrams)
        self._split = self._tokenizer.splitter()
        self._table = TermTable(self._tokenizer)

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """How often each text holds each of its terms.

        Args:
            texts: any number; memory grows by 4 bytes a token and 8 bytes a distinct term of a text.
            show_progress_bar: whether to draw one on standard error.

        Returns:
            float32 frequencies of shape (texts, terms of this batch), a row's sum being its length in tokens; the
            columns are in the order of their terms by code point, and sorted within a row.

        Raises:
            InvalidArgumentError: `texts` is not a sequence of strings.
        """
        _check_texts(texts)
        table, split = self._fresh_table(), self._split
        look_up = table.__getitem__
        tokens, ends = array("i"), [0]
        with progress_bar("Counting terms", texts, show_progress_bar) as advance:
            for text in texts:
                tokens.fromlist(list(map(look_up, split(text))))
                ends.append(len(tokens))
                if not len(ends) % 1000:
                    advance(1000)
        numbers = np.frombuffer(tokens, dtype=np.intc)
        kept = numbers >= 0
        numbers = numbers[kept]
        starts = np.concatenate([[0], np.cumsum(kept)])[ends]

        used = np.unique(numbers).tolist()
        used.sort(key=table.terms.__getitem__)
        column = np.empty(len(table.terms), dtype=np.int32)
        column[used] = np.arange(len(used), dtype=np.int32)
        ones = np.ones(len(numbers), dtype=np.float32)
        matrix = csr_array((ones, column[numbers], starts), shape=(len(texts), len(used)))
        matrix.sum_duplicates()
        return SparseVectors(matrix, Vocabulary([table.terms[number] for number in used]))

    def encode_queries(self, texts: Sequence[str]) -> list[SparseQuery]:
        """The distinct terms of each text in order of first occurrence, weighted by how often they occur.

        Raises:
            InvalidArgumentError: `texts` is not a sequence of strings.
        """
        _check_texts(texts)
        counts = [Counter(self.tokenize(text)) for text in texts]
        return [SparseQuery(tuple(count), np.fromiter(count.values(), np.float32, len(count))) for count in counts]

    def tokenize(self, text: str) -> list[str]:
        """The terms of a text, in order, with repetitions."""
        table = self._fresh_table()
        numbers = map(table.__getitem__, self._split(text))
        return [table.terms[number] for number in numbers if number >= 0]

    def fingerprint(self) -> Fingerprint:
        """Every choice above; the stop words by a digest of the words themselves."""
        words = "\n".join(sorted(self._tokenizer.stop_words)).encode("utf-8", "surrogatepass")
        settings = self._arguments | {"delta": self.weighting.delta}
        settings["stop_words"] = hashlib.blake2b(words, digest_size=6).hexdigest()
        return Fingerprint("bm25", {"tokenizer": TOKENIZER_VERSION, **settings})

    def schema(self) -> RetrieverSchema:
        """What an index must remember: the constructor's arguments, and the weighting."""
        encoder = {"type": "bm25", **self._arguments}
        return RetrieverSchema("lexical", self.fingerprint(), encoder, weighting=asdict(self.weighting))

    @overload
    def decode(self, vector: str | SparseQuery) -> list[tuple[str, float]]: ...

    @overload
    def decode(self, vector: SparseVectors) -> list[list[tuple[str, float]]]: ...

    def decode(
        self, vector: str | SparseQuery | SparseVectors
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """What a vector says: its terms and how often they occur, the most frequent first, then by name.

        Args:
            vector: a text, a query from `encode_queries`, or documents from `encode_documents` (then there is one
                list for each).

        >>> BM25().decode("wing by wing, flow by flow past a wing")
        [('wing', 3.0), ('flow', 2.0), ('past', 1.0)]
        """
        if isinstance(vector, str):
            return self.decode(self.encode_queries([vector])[0])
        if isinstance(vector, SparseQuery):
            return _by_weight(zip(vector.terms, vector.weights.tolist(), strict=True))
        matrix, terms = vector.matrix, vector.vocabulary.terms
        pairs = list(zip([terms[column] for column in matrix.indices], matrix.data.tolist(), strict=True))
        return [_by_weight(pairs[start:end]) for start, end in pairwise(matrix.indptr)]

    def __repr__(self) -> str:
        default = inspect.signature(BM25).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self._arguments.items()
            if name != "language" and value != default[name].default
        ]
        return f"BM25({', '.join([repr(self._arguments['language']), *changed])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(BM25, **self._arguments), ()

    def _fresh_table(self) -> TermTable:
        if len(self._table) > MAX_REMEMBERED_WORDS:
            self._table = TermTable(self._tokenizer)  # a thread in the middle of a batch keeps the old one
        return self._table


def _by_weight(pairs: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InvalidArgumentError("texts is a list of strings, not one string: put it into a list.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"texts[{row}] is a string, not {type(text).__name__} {text!r:.80}.")


def _check_number(name: str, value: float, most: float) -> None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not (0 <= value <= most) or math.isinf(value):
        bound = f"from 0 to {most:g}" if math.isfinite(most) else "of at least 0"
        raise InvalidArgumentError(f"BM25's {name} is a number {bound}, not {value!r}.")
