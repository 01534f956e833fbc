"""The tokenisation of `hybridsearch.BM25`, which makes terms from texts.

`Rules` cut a text into chunks, and give the terms of each chunk. `counting` asks once for each distinct chunk.
`Tokenizer` is a function of your own in place of the rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from string import ascii_letters, digits

import numpy as np
import Stemmer

from hybridsearch.arguments import shown
from hybridsearch.encoders.counting import MAX_CHUNK
from hybridsearch.encoders.identifiers import (
    may_hold_identifiers,
    ordinary_word,
    parts_of,
    wholes_of,
    without_signed_names,
)
from hybridsearch.encoders.locating import Chunks, all_chunks
from hybridsearch.encoders.stopwords import STOP_WORDS
from hybridsearch.errors import EncodingError, InvalidArgumentError

LANGUAGES: tuple[str, ...] = tuple(sorted({*Stemmer.algorithms()} - {"porter", "dutch_porter"}))
"""Languages with a Snowball stemmer."""

TOKENIZER_VERSION = 3
"""Version of the rules, a part of every fingerprint. It grows if the same settings give other terms.

An index keeps the version that it was made with, so the rules of every version stay in the code. Version 1 gave no
single characters of unspaced scripts in documents. It kept the dot of a lower-cased "İ". It folded only accents that
Unicode separates from their letter. Version 2 had no identifiers."""

MAX_WORD = 255
"""Number of characters of a word that count. Longer words are usually data, and engines refuse them."""

_ELIDING = frozenset({"catalan", "french", "irish", "italian"})  # the apostrophe separates two words: l'homme
_IGNORED = re.compile(  # invisible within words: soft hyphen, joiners, direction marks, variation selectors
    "[\u00ad\u061c\u200c-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe0e\ufe0f\ufeff]"
)
_LONE_POINT = re.compile(r"\.(?:(?<![0-9]\.)|(?![0-9]))")  # every point except that of a decimal number
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNSPACED = (  # scripts without spaces between words, and Hangul, whose particles are attached to the word
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1100, 0x1200),  # Hangul letters
    range(0x1780, 0x1800),  # Khmer
    range(0x2E80, 0x9FFF + 1),  # Han radicals and characters, kana, Bopomofo
    range(0xA960, 0xA980),
    range(0xAC00, 0xD800),  # Hangul syllables
    range(0xF900, 0xFB00),
    range(0x1AFF0, 0x1B170),  # historic kana
    range(0x20000, 0x323B0),  # rare Han characters
)
_LETTERS = ("Lo", "Lm", "Nl")  # categories of the letters in them


_FOLDED = {  # letters that Unicode does not decompose, as Lucene's ASCIIFoldingFilter writes them
    "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "ẞ": "SS", "ß": "ss", "Þ": "TH", "þ": "th",
    "Ð": "D", "ð": "d", "Ŋ": "N", "ŋ": "n", "ĸ": "q", "ı": "i", "ȷ": "j",
}  # fmt: skip
_LATIN = (range(0xC0, 0x2B0), range(0x1E00, 0x1F00), range(0x2C60, 0x2C80), range(0xA720, 0xA800))
_CHANGED_LETTER = re.compile(r"LATIN (CAPITAL|SMALL) LETTER ([A-Z]) WITH [A-Z ]+").fullmatch  # "... O WITH STROKE"


def _number(character: str) -> int:
    """The number of an ASCII character, below 32. Case is ignored, and "?" stands for all other characters."""
    if character.isalpha():
        return ord(character) % 32
    return _SPACE if character.isspace() else 27 if character.isdigit() else _RARE if character == "?" else 28


_SPACE, _RARE = 0, 31
_NUMBERS = bytes(map(_number, map(chr, range(128)))).ljust(256)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A function that cuts texts into terms, for `BM25(tokenizer=...)`.

    Args:
        name: Name of the function, which an index remembers. If you change the function, change its name, for example
            `"jieba 2"`.
        function: Function that takes a text and returns its terms, in order. Terms are strings that are not empty. They
            are used as they are: fold case and drop stop words in the function if you want it. Several threads may call
            it at once.

    Raises:
        InvalidArgumentError: `name` is not a text, or `function` cannot be called.

    >>> Tokenizer("spaces", str.split)("red fox")
    ['red', 'fox']
    """

    name: str
    function: Callable[[str], Iterable[str]]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidArgumentError(f"A tokenizer has a name, such as 'jieba', not {shown(self.name)}.")
        if not callable(self.function):
            raise InvalidArgumentError(
                f"The tokenizer {self.name!r:.80} is a function from a text to its terms, not {shown(self.function)}."
            )

    def __call__(self, text: str) -> list[str]:
        """Cut a text into terms.

        Raises:
            EncodingError: The function raised an error.
            InvalidArgumentError: The function gives anything but strings that are not empty.
        """
        try:
            terms: object = self.function(text)
            terms = terms if isinstance(terms, str) or not isinstance(terms, Iterable) else list(terms)
        except Exception as error:
            raise EncodingError(
                f"The tokenizer {self.name!r:.80} failed on the text {text!r:.80}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(terms, list):
            raise InvalidArgumentError(
                f"The tokenizer {self.name!r:.80} returned {shown(terms)}, but it must return a list of terms."
            )
        if bad := [term for term in terms if not isinstance(term, str) or not term]:
            raise InvalidArgumentError(
                f"The tokenizer {self.name!r:.80} returned the term {shown(bad[0])}, but a term is a string that is "
                "not empty: leave it out."
            )
        plain = list(map(str.__str__, terms))  # engines refuse a subclass of str, such as numpy's
        try:
            "".join(plain).encode()
        except UnicodeEncodeError:
            raise InvalidArgumentError(
                f"The tokenizer {self.name!r:.80} returned a term with a lone surrogate, which is not valid Unicode: "
                "repair it or leave it out."
            ) from None
        return plain


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that turn a text into terms.

    Attributes:
        language: Language of the stemmer and of elisions such as "l'homme", one of `LANGUAGES`. None for no language.
        stop_words: Words that give no terms. Case is ignored.
        stemming: Whether words are reduced to stems.
        lowercase: Whether case is ignored (Unicode case folding).
        fold_accents: Whether "naïve" equals "naive", and "Øre" equals "ore". Vowel signs of Indic and other scripts
            are letters, and stay.
        bigrams: Whether a run of Chinese, Japanese, Korean, Thai, Lao, Khmer or Burmese characters gives its
            overlapping pairs, as in Lucene's CJKAnalyzer. If not, it is one word. A document also gives the single
            characters, so that a query of one character finds it. In a query, only a run of one character gives a
            single character.
        identifiers: Whether names in code, part numbers and quantities are found whole and by their parts.
        version: Version of the rules, at most `TOKENIZER_VERSION`.
    """

    language: str | None
    stop_words: frozenset[str]
    stemming: bool = True
    lowercase: bool = True
    fold_accents: bool = False
    bigrams: bool = True
    identifiers: bool = False
    version: int = TOKENIZER_VERSION

    def splitter(self, *, of_query: bool = False) -> Callable[[str], list[str]]:
        """Make a function that cuts the text of a document or of a query into words.

        The words are not stemmed, and stop words are still there. A word may have edge characters, which `stemmer`
        removes. An ASCII text takes a faster way, which gives the same words as the regular expressions: all separators
        become spaces, and the text is split at spaces.
        """
        apostrophe = "" if self.language in _ELIDING else "'"
        in_word = frozenset(f"{ascii_letters}{digits}_.{apostrophe}")
        ascii_words = {code: self.normalise(chr(code)) if chr(code) in in_word else " " for code in range(128)}
        words = re.compile(_word(rf"\w{apostrophe}")).findall
        parts = _pairs if of_query or self.version < 2 else _characters_and_pairs

        def split(text: str) -> list[str]:
            if text.isascii():
                text = text.translate(ascii_words)
                return (_LONE_POINT.sub(" ", text) if "." in text else text).split()
            text = self.normalise(text)
            rare = set(_beyond_ascii(text))
            if self.bigrams and any(map(_is_unspaced, rare)):
                text = _unspaced_run().sub(parts, text)
            return _words_with_marks(apostrophe)(text) if any(map(_is_mark, rare)) else words(text)

        return split

    def terms_maker(self, *, of_query: bool = False) -> Callable[[str], list[str]]:
        """Make a function that gives the terms of a chunk: a part of a text between white space, or a whole text.

        The terms of the words come first, then those of identifiers. In a query, an identifier counts as much as all
        its parts, so that a document with the identifier precedes others.

        Two threads cannot use the function at once.
        """
        split, stem = self.splitter(of_query=of_query), self.stemmer()
        known: dict[str, str] = {}

        def term_of(word: str) -> str:
            term = known.get(word)
            if term is None:
                term = stem(word)
                if len(word) <= MAX_CHUNK:
                    known[word] = term
            return term

        def terms(chunk: str) -> list[str]:
            if word := ordinary_word(chunk):
                term = term_of(self.normalise(word))
                return [term] if term else []
            if not self.identifiers or not may_hold_identifiers(chunk):
                return list(filter(None, map(term_of, split(chunk))))
            chunk = self.normalise(chunk, case=False)
            words = split(without_signed_names(chunk))
            if self.bigrams and not chunk.isascii() and any(map(_is_unspaced, _beyond_ascii(chunk))):
                chunk = _unspaced_run().sub(" ", chunk)
            found = [*map(term_of, words), *(self.normalise(whole)[:MAX_WORD] for whole in wholes_of(chunk))]
            words_of_parts = map(self.normalise, parts_of(chunk, of_query=of_query))
            parts = list(filter(None, map(term_of, words_of_parts)))
            return list(filter(None, found * max(1, len(parts) if of_query else 1) + parts))

        return terms

    def chunks_finder(self, terms: Set[str]) -> Callable[[str], Chunks]:
        """Make a function that finds the chunks of a text that may give `terms`.

        It leaves out ASCII chunks in which no word begins with the first three letters of a term. The English stemmer
        keeps them, because it changes ends of words, and at most one letter of what it leaves. Of a term with fewer
        than four letters, two are looked for, or one if there is one. There the stemmer may change a "y": the term of
        "dying" is "die". If the rules have another stemmer, or do not ignore case, the function finds all chunks.
        """
        if self.language not in (None, "english") or not self.lowercase:
            return all_chunks
        starts = np.zeros((32, 32, 32), bool)  # whether three characters may be the first of a word
        starts[_RARE] = True
        for term in filter(str.isascii, terms):
            start = term[: 3 if len(term) > 3 else 2]
            for letters in {start, start.replace("i", "y")}:
                starts[tuple(letters.encode().translate(_NUMBERS))] = True
        wanted = starts.ravel()

        def chunks(text: str) -> Iterator[tuple[int, str]]:
            raw = f" {text}  ".replace("?", "!").encode("ascii", "replace")
            codes, numbers = np.frombuffer(raw, np.uint8), np.frombuffer(raw.translate(_NUMBERS), np.uint8)
            wide = numbers.astype(np.uint16)
            places = np.flatnonzero(wanted.take(wide[:-2] << 10 | wide[1:-1] << 5 | wide[2:]))
            within = (codes[places] >= ord("a")) & (numbers[places] < 27) & (numbers[places - 1] - 1 < 26)
            spaces = np.flatnonzero(numbers == _SPACE)
            after = np.unique(np.searchsorted(spaces, places[~within]))
            for start, end in zip(spaces[after - 1].tolist(), (spaces[after] - 1).tolist(), strict=True):
                chunk = text[start:end]
                if chunk.isascii():
                    yield start, chunk
                else:  # it may have white space that is not ASCII
                    yield from ((start + at, part) for at, part in all_chunks(chunk))

        return chunks

    def normalise(self, text: str, *, case: bool = True) -> str:
        """Normalise a text by Unicode NFKC, remove invisible characters, and fold case and accents if wanted.

        With `case=False`, case is kept.
        """
        if text.isascii() and self.language != "turkish":
            return text.lower() if self.lowercase and case else text
        if _IGNORED.search(_beyond_ascii(text)):
            text = _IGNORED.sub("", text)
        text = unicodedata.normalize("NFKC", text).replace("’", "'")
        if self.lowercase and case:
            if self.language == "turkish":
                text = text.replace("İ", "i").replace("I", "ı")
            text = text.casefold()
            if self.version > 1:
                text = text.replace("i\u0307", "i")  # what "İ" becomes
            text = unicodedata.normalize("NFKC", text)
        if self.fold_accents and not text.isascii():
            apart = unicodedata.normalize("NFD", text)
            text = unicodedata.normalize("NFC", "".join(c for c in apart if not _is_accent(c)))
            if self.version > 1:
                text = text.translate(_folded_letters())
        return text

    def stemmer(self) -> Callable[[str], str]:
        """Make a function that turns a word into its term, or into `""` if the word gives no term.

        Two threads cannot use the function at once.
        """
        stem = Stemmer.Stemmer(self.language, 0).stemWord if self.stemming and self.language else None
        stop_words = {self.normalise(word).lower() for word in self.stop_words}

        def term(word: str) -> str:
            word = word[:MAX_WORD].strip("_'")
            if not word.isascii():
                word = "".join(str(unicodedata.decimal(c, c)) for c in word)
            if word.lower() in stop_words or not (word.isalnum() or any(map(str.isalnum, word))):
                return ""
            return (stem(word) or word) if stem else word

        return term


def stop_words_of(language: str | None) -> frozenset[str]:
    """The stop words of a language. The set is empty if there is no list."""
    return STOP_WORDS.get(language or "", frozenset())


def _is_accent(character: str) -> bool:
    """Whether a character is a mark above, below or through a letter, or an Arabic or Hebrew point."""
    place = unicodedata.combining(character)
    return place == 1 or 10 <= place <= 36 or place >= 200


@cache
def _folded_letters() -> dict[int, str]:
    """Plain letters for ligatures, and for letters with a stroke, a hook or a similar mark."""
    folded = {ord(letter): plain for letter, plain in _FOLDED.items()}
    for code in (code for block in _LATIN for code in block):
        if changed := _CHANGED_LETTER(unicodedata.name(chr(code), "")):
            case, letter = changed.groups()
            folded[code] = letter if case == "CAPITAL" else letter.lower()
    return folded


def _pairs(run: re.Match[str]) -> str:
    characters = _unspaced_character().findall(run.group())
    if len(characters) > 1:
        characters = [a + b for a, b in pairwise(characters)]
    return f" {' '.join(characters)} "


def _characters_and_pairs(run: re.Match[str]) -> str:
    characters = _unspaced_character().findall(run.group())
    return f" {' '.join([*characters, *(a + b for a, b in pairwise(characters))])} "


def _word(characters: str) -> str:
    """The pattern of a word. A decimal number or a version number is one word."""
    return rf"[{characters}]+(?:(?<=\d)\.(?=\d)[{characters}]+)*"


def _beyond_ascii(text: str) -> str:
    """The characters of a text that are not ASCII, and spaces."""
    return " ".join(_NOT_ASCII.findall(text))


# Python's \w does not match combining marks, so it would cut Hindi and Thai words apart. The classes below match them.
# They take 40 milliseconds to make and are slow to match, so they are used only for texts that need them.


@cache
def _words_with_marks(apostrophe: str) -> Callable[[str], list[str]]:
    return re.compile(_word(rf"\w{marks()}{apostrophe}")).findall


@cache
def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def _is_unspaced(character: str) -> bool:
    return any(ord(character) in block for block in _UNSPACED) and unicodedata.category(character) in _LETTERS


@cache
def _unspaced_run() -> re.Pattern[str]:
    return re.compile(f"[{unspaced_letters()}][{unspaced_letters()}{marks()}]*")


@cache
def _unspaced_character() -> re.Pattern[str]:
    return re.compile(f"[{unspaced_letters()}][{marks()}]*")


@cache
def marks() -> str:
    """The content of a character class that matches combining marks."""
    blocks = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))
    return character_class(c for block in blocks for c in block if unicodedata.category(chr(c))[0] == "M")


@cache
def unspaced_letters() -> str:
    """The content of a character class that matches letters of scripts without spaces between words."""
    return character_class(c for block in _UNSPACED for c in block if unicodedata.category(chr(c)) in _LETTERS)


def character_class(codes: Iterable[int]) -> str:
    """The content of a character class [...] of a regular expression, for ascending code points."""
    spans: list[list[int]] = []
    for code in codes:
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in spans)
