"""The encoder of BM25, which turns texts into term frequencies."""

from __future__ import annotations

import hashlib
import inspect
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from hybridsearch import arguments
from hybridsearch.arguments import shown, true_or_false, whole_number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.encoders import Place
from hybridsearch.encoders.counting import NO_WORD, TermCounter, by_weight
from hybridsearch.encoders.fields import field_weights, metadata_of, read_fields, sum_fields
from hybridsearch.encoders.locating import align, find_terms
from hybridsearch.encoders.synonyms import STOP, Synonyms, note_on, read_synonyms
from hybridsearch.encoders.tokens import LANGUAGES, TOKENIZER_VERSION, Rules, Tokenizer, stop_words_of
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import warn
from hybridsearch.registry import find, name_of, registered
from hybridsearch.vectors import SparseQuery, SparseVectors
from hybridsearch.weighting import BM25Weighting, Variant

_MADE = {"_rules", "_documents", "_queries", "_words", "_fields", "_synonyms"}  # attributes made from the arguments

MAX_SYNONYMS = 1_000_000
"""Number of characters of the synonyms that an index records, at most. A schema must stay small on every engine."""

MAX_KNOWN = 50_000
"""Number of chunks whose terms `locate` remembers between calls, about 15 MB."""


class BM25:
    """An encoder for lexical search by BM25, which counts the terms of each text.

    The text is first normalised by Unicode NFKC and case folding. A word is a run of letters, digits, marks and inner
    apostrophes. A decimal number or a version number is one word. Stop words are dropped, and the other words are
    stemmed. Scripts without spaces between words give single characters and pairs of characters. The backend computes
    the scores by `BM25Weighting`. Any number of threads may use one encoder.

    Args:
        language: Language of the stemmer and of the stop words, such as `"english"`. None for other languages, or for
            texts in several: then words are not stemmed, and no stop words are dropped unless `stop_words` lists them.
        variant: Variant of the BM25 formula: `"lucene"`, `"robertson"`, `"atire"`, `"bm25l"` or `"bm25+"`.
        k1: Number that decides how slowly the weight grows with repetitions of a term, from 0 to 1,000,000.
        b: Strength of the correction for long documents, from 0 (none) to 1 (full).
        delta: Parameter of the variants `"bm25l"` (default 0.5) and `"bm25+"` (default 1.0), from 0 to 1,000,000. None
            for the other variants.
        stemming: Whether words are reduced to stems. "wings" then finds "wing".
        stop_words: True for the language's list (if `hybridsearch.encoders.stopwords` has one), False for no stop
            words, or your own list of words. Case is ignored.
        lowercase: Whether case is ignored.
        fold_accents: Whether accents are ignored. "naïve" then finds "naive", and "smørrebrød" finds "smorrebrod".
        fields: Weight of each field that is read, such as `{"title": 3, "text": 1, "metadata.tags": 2}`, from 0.001 to
            1,000. None for title and text as one text. This is BM25F (Robertson, Zaragoza and Taylor, "Simple BM25
            extension to multiple weighted fields", 2004): frequencies and lengths are weighted sums over the fields.
        synonyms: Words that queries search too: a mapping such as `{"car": ["automobile", "auto"]}`, a list of rules in
            Solr's format such as `["car, automobile", "tv => television"]`, or the path of a file in Solr's format or
            in WordNet's Prolog format. Documents are not changed, so an index can be searched with other synonyms than
            those that it records (`with_synonyms`).
        bigrams: Whether runs of Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese characters give their
            overlapping pairs, as in Lucene's CJKAnalyzer. Documents also give each character. False keeps a run as one
            word.
        identifiers: Whether names in code, part numbers, quantities and names such as C++ are found whole and by their
            parts. "user" then finds "get_user_by_id", and "mg" finds "10mg". Needs version 3 of the rules.
        tokenizer: What cut texts into terms. A number is a version of the rules above. The default is the newest
            version, and an index keeps the version that it was made with. A `Tokenizer` is a function of your own. A
            text is the name of a function that `hybridsearch.registry.register("tokenizer", ...)` knows. The terms of a
            function are used as they are, so the arguments for words must keep their defaults.

    Raises:
        InvalidArgumentError: The language has no stemmer, or another argument is outside its range.

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
        fields: Mapping[str, float] | None = None,
        synonyms: Mapping[str, str | Sequence[str]] | Sequence[str] | str | Path | None = None,
        bigrams: bool = True,
        identifiers: bool = True,
        tokenizer: int | str | Tokenizer = TOKENIZER_VERSION,
    ) -> None:
        if language is not None and language not in LANGUAGES:
            raise InvalidArgumentError(
                f"No language {language!r} is known: known are {', '.join(LANGUAGES)}, or None for any other."
            )
        if isinstance(stop_words, Iterable) and not isinstance(stop_words, str | Mapping):
            stop_words = list(stop_words)
        listed = isinstance(stop_words, list) and all(isinstance(word, str) for word in stop_words)
        if not listed and not isinstance(stop_words, bool):
            raise InvalidArgumentError(f"stop_words is True, False or a list of words, not {shown(stop_words)}.")
        flags = {"stemming": stemming, "lowercase": lowercase, "fold_accents": fold_accents, "bigrams": bigrams}
        for name, flag in (flags | {"identifiers": identifiers}).items():
            true_or_false(name, flag)
        self.weighting = BM25Weighting(variant, k1, b, delta)
        weighting: dict[str, Any] = {"variant": variant, "k1": float(k1), "b": float(b)}
        weighting["delta"] = delta if delta is None else float(delta)
        self._arguments: dict[str, Any]
        self._rules: Rules | None = None
        self._known: dict[str, frozenset[str]] = {}  # for `locate`
        if isinstance(tokenizer, int) and not isinstance(tokenizer, bool):
            if whole_number("tokenizer", tokenizer) > TOKENIZER_VERSION:
                raise InvalidArgumentError(
                    f"tokenizer is {tokenizer}, and this hybridsearch knows the versions up to {TOKENIZER_VERSION}: "
                    "upgrade hybridsearch, or index the documents again."
                )
            if tokenizer >= 3:
                flags["identifiers"] = identifiers
            words = stop_words_of(language) if stop_words is True else frozenset(stop_words or ())
            self._rules = rules = Rules(language, words, **flags, version=tokenizer)
            self._arguments = {"language": language, **weighting, "stop_words": stop_words, **flags}
            self._documents = TermCounter(str.split, rules.terms_maker)
            self._queries = TermCounter(str.split, partial(rules.terms_maker, of_query=True))
            self._words: Callable[[str], list[str]] = rules.splitter(of_query=True)
        else:
            given = {"language": language, "stop_words": stop_words, "identifiers": identifiers, **flags}
            tokenizer = _own_tokenizer(tokenizer, given)
            self._arguments = weighting
            self._documents = self._queries = TermCounter(tokenizer, lambda: _itself)
            self._words = tokenizer
        self._arguments["tokenizer"] = tokenizer
        self._fields = None if fields is None else field_weights(fields)
        if self._fields:
            self._arguments["fields"] = self._fields
        self._synonyms: Synonyms | None = None
        if synonyms is not None:
            lines = read_synonyms(synonyms)
            self._synonyms = Synonyms(lines, self._query_words)
            self._arguments["synonyms"] = [line.text for line in lines]

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """Count the terms of texts.

        Args:
            texts: Texts of the documents. Memory use grows by 4 bytes for each token, and by 8 bytes for each distinct
                term of a text.
            show_progress_bar: Whether to show a progress bar on standard error.

        Returns:
            Term frequencies as a float32 matrix of shape (texts, terms of these texts). The sum of a row is the length
            of its text in tokens. The columns are ordered by term, by code point.

        Raises:
            InvalidArgumentError: `texts` is not a sequence of strings.
        """
        arguments.texts(texts)
        return self._documents.documents(texts, show_progress_bar=show_progress_bar)

    def encode_fields(self, documents: Sequence[Document]) -> SparseVectors:
        """Count the terms of documents, with the weights of their fields.

        Args:
            documents: Documents to encode.

        Returns:
            Term frequencies as from `encode_documents`. With `fields`, the frequency of a term is the sum over the
            fields of weight times count. The sum of a row is the weighted length of the document.

        >>> vectors = BM25(fields={"title": 3, "text": 0.5}).encode_fields([Document("1", "The lift of wings", "Wing")])
        >>> dict(zip(vectors.vocabulary.terms, vectors.matrix.data.tolist()))
        {'lift': 0.5, 'wing': 3.5}
        """
        if self._fields is None:
            return self.encode_documents([document.content for document in documents])
        names, weights = list(self._fields), list(self._fields.values())
        counts = self.encode_documents([text for document in documents for text in read_fields(document, names)])
        return sum_fields(counts, weights)

    @property
    def metadata_fields(self) -> tuple[str, ...]:
        """Paths of the metadata fields that `fields` names."""
        return metadata_of(self._fields or ())

    def encode_queries(self, texts: Sequence[str]) -> list[SparseQuery]:
        """Count the terms of queries.

        Args:
            texts: Texts of the queries.

        Returns:
            For each text, its distinct terms in the order of first occurrence, with their counts as weights. The terms
            of synonyms follow the words that they stand for. The terms of each synonym share half the weight of these
            words.

        Raises:
            InvalidArgumentError: `texts` is not a sequence of strings.
        """
        arguments.texts(texts)
        if self._synonyms is None:
            return list(map(self._queries.query, texts))
        weights = [self._synonyms.expand(self._query_words(text))[0] for text in texts]
        return [SparseQuery(tuple(one), np.fromiter(one.values(), np.float32, len(one))) for one in weights]

    def query_notes(self, texts: Sequence[str]) -> list[str]:
        """Write a note on each query that has no term left, and so finds nothing, or that has synonyms.

        Returns:
            One sentence for each text, or `""` if the query has terms.

        >>> BM25().query_notes(["to be or not to be"])
        ['each word of the query is a stop word (to, be, or, not), so it finds nothing. An index with \
BM25(stop_words=False) finds them.']
        """
        return list(map(self._query_note, texts))

    def with_synonyms(self, synonyms: Mapping[str, str | Sequence[str]] | Sequence[str] | str | Path | None) -> BM25:
        """Make the same encoder with other synonyms, or without synonyms for None.

        It searches any index of this encoder: `hs.open(place, retrievers={"bm25": encoder})`.

        >>> BM25("german").with_synonyms({"Rechner": "Computer"}).decode("Ein neuer Rechner")
        [('neu', 1.0), ('rechn', 1.0), ('comput', 0.5)]
        """
        again = copy(self)
        BM25.__init__(again, **{**self._arguments, "synonyms": synonyms})
        return again

    @property
    def stop_words(self) -> frozenset[str]:
        """Words that give no terms, in lower case. The set is empty with a tokenizer of your own."""
        return frozenset(map(str.casefold, self._rules.stop_words if self._rules else ()))

    @property
    def max_tokens(self) -> None:
        """Number of tokens that are read of a document: None, because all of them are read."""
        return None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the words of each text, also the stop words. Unspaced scripts count as in a query.

        >>> BM25().count_tokens(["The wings’ flutter at Mach 1.5", "東京タワー"])
        [6, 4]
        """
        return [len(self._words(text)) for text in texts]

    def tokenize(self, text: str) -> list[str]:
        """Cut the text of a document into terms, in order and with repetitions.

        >>> BM25().tokenize("東京 tower")
        ['東', '京', '東京', 'tower']
        """
        return self._documents.terms(text)

    def locate(
        self, texts: Sequence[str], terms: Sequence[Mapping[str, float]], *, models: bool = True
    ) -> list[list[Place]]:
        """Find the words that give terms.

        Args:
            texts: Texts of documents.
            terms: Terms to find in each text, with their weights, in the order of `texts`.
            models: Ignored, because no model runs.

        Returns:
            The places in each text, in order.

        >>> BM25().locate(["Slender wings. A wing's chord."], [{"wing": 1.0}])
        [[Place(start=8, end=13, term='wing'), Place(start=17, end=21, term='wing')]]
        """
        if self._rules is None:  # the terms of another function are looked for as they are written
            pairs = zip(texts, terms, strict=True)
            return [align(text, self.tokenize(text), wanted) for text, wanted in pairs]
        if len(self._known) > MAX_KNOWN:
            self._known = {}  # another thread may still use the old one
        return find_terms(texts, terms, self._rules.terms_maker(), self._known, self._rules.chunks_finder)

    def fingerprint(self) -> Fingerprint:
        """Name all settings that the terms and scores depend on. A digest stands for the stop words.

        Synonyms are left out, because they change queries only.
        """
        settings = self._recorded() | {"delta": self.weighting.delta}
        settings.pop("synonyms", None)
        if self._rules:
            words = "\n".join(sorted(self._rules.stop_words)).encode("utf-8", "surrogatepass")
            settings["stop_words"] = hashlib.blake2b(words, digest_size=6).hexdigest()
        return Fingerprint("bm25", settings)

    @property
    def query_settings(self) -> dict[str, Any]:
        """Settings that change queries only: the synonyms, if there are some."""
        return {"synonyms": self._arguments["synonyms"]} if self._synonyms else {}

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index: the arguments of the encoder, and the weighting.

        Synonyms of more than 1 MB are left out, with a warning. A subclass that is not registered has no arguments, so
        that `hs.open` never takes `BM25` for it.
        """
        name = name_of("encoder", type(self))
        encoder = None if name is None else {"type": name, **self._recorded()}
        if encoder and sum(map(len, encoder.get("synonyms", ()))) > MAX_SYNONYMS:
            del encoder["synonyms"]
            warn(
                f"The index does not record the synonyms, because they are longer than {MAX_SYNONYMS:,} characters. "
                "Give them to hs.open in retrievers, or to hybridsearch search as --synonyms."
            )
        return RetrieverSchema("lexical", self.fingerprint(), encoder, weighting=asdict(self.weighting))

    @overload
    def decode(self, vector: str | SparseQuery) -> list[tuple[str, float]]: ...

    @overload
    def decode(self, vector: SparseVectors) -> list[list[tuple[str, float]]]: ...

    def decode(
        self, vector: str | SparseQuery | SparseVectors
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """List the terms of a vector with their counts, the most frequent first, then by name.

        Args:
            vector: A text, a query from `encode_queries`, or documents from `encode_documents`.

        Returns:
            Pairs of term and count. For documents, one list of pairs for each.

        >>> BM25().decode("wing by wing, flow by flow past a wing")
        [('wing', 3.0), ('flow', 2.0), ('past', 1.0)]
        """
        if isinstance(vector, str):
            return self.decode(self.encode_queries([vector])[0])
        return by_weight(vector)[0] if isinstance(vector, SparseQuery) else by_weight(vector)

    def __repr__(self) -> str:
        default = inspect.signature(BM25).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self._arguments.items()
            if name != "language" and value != default[name].default
        ]
        language = [repr(self._arguments["language"])] if self._rules else []
        return f"{type(self).__name__}({', '.join([*language, *changed])})"

    def __getstate__(self) -> dict[str, Any]:
        """The state of pickles and copies: the arguments, and what a subclass adds."""
        return {name: value for name, value in vars(self).items() if name not in _MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        BM25.__init__(self, **state["_arguments"])
        vars(self).update({**state, "_arguments": self._arguments})

    def _recorded(self) -> dict[str, Any]:
        """The arguments as an index records them: a tokenizer of your own by its name."""
        tokenizer = self._arguments["tokenizer"]
        return self._arguments | {"tokenizer": tokenizer.name if isinstance(tokenizer, Tokenizer) else tokenizer}

    def _query_note(self, text: str) -> str:
        if self._synonyms and (expansions := self._synonyms.expand(self._query_words(text))[1]):
            return note_on(expansions)
        return "" if self._queries.terms(text) else self._note_on(text)

    def _query_words(self, text: str) -> list[str]:
        """The terms of a query, with the words in between that have no term."""
        if self._rules is None:
            return self._queries.terms(text)
        words = []
        for chunk in text.split():
            terms = self._queries.terms(chunk)
            if not terms and any(map(str.isalnum, chunk)):
                terms = [STOP + "".join(filter(str.isalnum, unicodedata.normalize("NFKC", chunk).casefold()))]
            words += terms
        return words

    def _note_on(self, text: str) -> str:
        """Why no word is a term. Words with a letter or a digit are stop words, and other words are never terms."""
        words = self._words(text) if self._rules else ()
        stopped = list(dict.fromkeys(word.strip("_'") for word in words if any(map(str.isalnum, word))))
        if not stopped:
            return NO_WORD
        first = f"{', '.join(stopped[:5])}{' and more' if len(stopped) > 5 else ''}"
        return (
            f"each word of the query is a stop word ({first}), so it finds nothing. An index with "
            "BM25(stop_words=False) finds them."
        )


def _own_tokenizer(tokenizer: object, of_words: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the argument names. `of_words` are the arguments that the terms of a function ignore."""
    default = inspect.signature(BM25).parameters
    for name, value in of_words.items():
        if value != default[name].default:
            raise InvalidArgumentError(
                f"{name}={value!r:.80} has no effect on the terms of your own tokenizer: leave it out, and do it in "
                "the function."
            )
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if isinstance(tokenizer, str):
        if tokenizer not in registered("tokenizer"):
            raise InvalidArgumentError(
                f"No tokenizer {tokenizer!r:.80} is registered: register it with hybridsearch.registry.register, or "
                f"give its function, as in retrievers={{'bm25': hs.BM25(tokenizer=hs.Tokenizer({tokenizer!r:.80}, "
                "function))}."
            )
        found = find("tokenizer", tokenizer)
        return Tokenizer(tokenizer, found.function if isinstance(found, Tokenizer) else found)
    if callable(tokenizer):
        raise InvalidArgumentError(
            "The function of a tokenizer needs a name, which the index remembers: write "
            "tokenizer=hs.Tokenizer('my-words', function)."
        )
    raise InvalidArgumentError(
        f"tokenizer is a version of the rules, an hs.Tokenizer or the name of a registered one, not {shown(tokenizer)}."
    )


def _itself(term: str) -> tuple[str]:
    return (term,)
