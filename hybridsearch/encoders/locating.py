"""Where the terms of a text are, as spans of the original text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from functools import cache
from itertools import groupby

from hybridsearch.encoders import Place

Analyse = Callable[[str], Iterable[str]]
"""Function from a text to its terms."""

Chunks = Iterable[tuple[int, str]]
"""Parts of a text between white space, in order. Each has its first character in the text."""

MANY = 16
"""Largest number of units of which all groups of neighbours are tried. Of more units, groups of up to 4 are tried."""

LONGEST = 64
"""Number of characters of the longest part of a text whose terms are remembered."""

_PAGE = re.compile(r".{1,50000}\S*", re.DOTALL)  # texts are cut into chunks page by page, to save memory
_CHUNK = re.compile(r"\S+")
_VOICED = "\uff9e\uff9f"  # half-width marks of kana, which Unicode calls letters
_SIGNS = "\u0e33\u0eb3"  # vowels of Thai and Lao that follow their letter
_REACH = 256  # characters after a token in which the next one is looked for
_IGNORED = re.compile("[\u00ad\u061c\u200c-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_JAMO = (range(0x1160, 0x1200), range(0xD7B0, 0xD800))  # vowels and final consonants of decomposed Hangul


def find_terms(
    texts: Sequence[str],
    terms: Sequence[Collection[str]],
    analyse: Analyse,
    known: dict[str, frozenset[str]] | None = None,
    chunks_finder: Callable[[Set[str]], Callable[[str], Chunks]] = lambda _: all_chunks,
) -> list[list[Place]]:
    """Find the words that give terms.

    The terms of a text must be those of its parts between white space. Each distinct part is analysed once. A part with
    a term is then cut into smaller and smaller units. The place of a term is the smallest group of units that gives it.

    Args:
        texts: Texts to search in.
        terms: Terms to find in each text, in the order of `texts`.
        analyse: Function from a text to its terms.
        known: Terms of short parts that were analysed before. New parts are added. None to begin without any.
        chunks_finder: Function from the wanted terms to a function that gives the parts of a text that may give these
            terms. Other parts are not analysed.

    Returns:
        The places in each text, in order of `start`. A word with two terms has two places.

    >>> find_terms(["A wing, WINGS."], [{"wing"}], lambda text: re.findall("[a-z]{4}", text.lower()))
    [[Place(start=2, end=6, term='wing'), Place(start=8, end=13, term='wing')]]
    """
    known = {} if known is None else known
    searches: dict[frozenset[str], _Search] = {}
    found = []
    for text, of_text in zip(texts, terms, strict=True):
        wanted = frozenset(of_text)
        if wanted not in searches:
            searches[wanted] = _Search(wanted, analyse, known, chunks_finder(wanted))
        found.append(list(searches[wanted].in_text(text)) if wanted else [])
    return found


def align(text: str, tokens: Iterable[str], terms: Collection[str]) -> list[Place]:
    """Find tokens in the text that a function cut into them. They must be parts of the text, in order. Case is ignored.

    A token that is not found within 256 characters is skipped.

    Args:
        text: Text that was cut into the tokens.
        tokens: All tokens in order.
        terms: Tokens to find.

    Returns:
        The places in order of `start`.

    >>> align("Red fox, red", ["red", "fox", "red"], {"red"})
    [Place(start=0, end=3, term='red'), Place(start=9, end=12, term='red')]
    """
    lowered = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
    found, wanted, at = [], frozenset(terms), 0
    for token in tokens:
        start = lowered.find(token.lower(), at, at + _REACH + len(token))
        if start >= 0:
            at = start + len(token)
            if token in wanted:
                found.append(Place(start, at, token))
    return found


def all_chunks(text: str) -> Chunks:
    """All parts of a text between white space."""
    return ((found.start(), found.group()) for found in _CHUNK.finditer(text))


def joins(character: str) -> bool:
    """Whether a character belongs to the character before it: a combining mark or an invisible character."""
    return _kind(character) == "mark"


class _Search:
    """The search for terms in texts. It remembers the places in each chunk."""

    def __init__(
        self,
        wanted: frozenset[str],
        analyse: Analyse,
        known: dict[str, frozenset[str]],
        chunks: Callable[[str], Chunks],
    ) -> None:
        self._wanted, self._analyse, self._known, self._chunks = wanted, analyse, known, chunks
        self._letters = {letter for term in wanted for letter in term}
        self._places: dict[str, list[Place]] = {}  # of each chunk

    def in_text(self, text: str) -> Iterator[Place]:
        places = self._places
        for page in _PAGE.finditer(text):
            first = page.start()
            for at, chunk in self._chunks(page.group()):
                of_chunk = places.get(chunk)
                if of_chunk is None:
                    of_chunk = places[chunk] = self._in_chunk(chunk)
                for start, end, term in of_chunk:
                    yield Place(first + at + start, first + at + end, term)

    def _in_chunk(self, chunk: str) -> list[Place]:
        terms = self._wanted & self._terms(chunk)
        return sorted(set(self._narrowed(chunk, 0, len(chunk), terms, 0))) if terms else []

    def _terms(self, text: str) -> frozenset[str]:
        terms = self._known.get(text)
        if terms is None:
            terms = frozenset(self._analyse(text))
            if len(text) <= LONGEST:
                self._known[text] = terms
        return terms

    def _narrowed(self, text: str, start: int, end: int, terms: Set[str], level: int) -> Iterator[Place]:
        """The smallest groups of units in text[start:end] that give `terms`."""
        units = list(_CUTS[level](text, start, end))
        if len(units) == 1 and level + 1 < len(_CUTS):
            yield from self._narrowed(text, start, end, terms, level + 1)
            return
        left = set(terms)
        for width in range(1, 1 + (len(units) if len(units) <= MANY else 4)):
            found: set[str] = set()
            for first in range(len(units) - width + 1):
                begin, stop = units[first][0], units[first + width - 1][1]
                if not self._has_letters(text, units[first : first + width]):
                    continue
                given = self._terms(text[begin:stop])
                there = left & given
                found |= there
                if there and width == 1 and level + 1 < len(_CUTS) and not (level == 1 and len(given) == 1):
                    yield from self._narrowed(text, begin, stop, there, level + 1)
                else:
                    yield from (Place(begin, stop, term) for term in there)
            left -= found
            if not left:
                return
        if end - start <= LONGEST or len(units) == 1:
            yield from (Place(start, end, term) for term in left)

    def _has_letters(self, text: str, units: list[tuple[int, int]]) -> bool:
        """Whether each unit of a script without capital letters has a letter of the terms. This is a fast check."""
        return all(
            _kind(text[start]) != "single"
            or not self._letters.isdisjoint(unicodedata.normalize("NFKC", text[start:end]))
            for start, end in units
        )


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Words with inner points, apostrophes and underscores, and all other characters one by one."""
    at = start
    while at < end:
        stop = at
        while stop < end and (
            _in_word(text[stop]) or (text[stop] in ".'’" and at < stop and stop + 1 < end and _in_word(text[stop + 1]))
        ):
            stop += 1
        yield at, max(stop, at + 1)
        at = max(stop, at + 1)


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Words without points, apostrophes and underscores, and each of these characters."""
    at = start
    for inner, group in groupby(range(start, end), lambda place: text[place] in ".'’_"):
        size = sum(1 for _ in group)
        if inner:
            yield from ((place, place + 1) for place in range(at, at + size))
        else:
            yield at, at + size
        at += size


def _parts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Parts of a name such as "getUserById2", and each letter of scripts that have no capital letters."""
    kinds = [(place, kind) for place, kind in enumerate(map(_kind, text[start:end]), start) if kind != "mark"]
    at = start
    for (_, before), (place, kind), (_, after) in zip(kinds, kinds[1:], [*kinds[2:], (end, "")], strict=False):
        same = kind == before or (before == "upper" and kind == "lower")
        if kind == "single" or not same or (kind == before == "upper" and after == "lower"):
            yield at, place
            at = place
    yield at, end


_CUTS: tuple[Callable[[str, int, int], Iterator[tuple[int, int]]], ...] = (_words, _pieces, _parts)
"""The ways to cut a text into units, from the largest units to the smallest."""


def _in_word(character: str) -> bool:
    return _kind(character) != "other" or character == "_"


@cache
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "M" or character in _VOICED or character in _SIGNS or _IGNORED.match(character):
        return "mark"
    if any(ord(character) in block for block in _JAMO):
        return "mark"
    if category[0] == "N":
        return "digit"
    if category in ("Lu", "Lt"):
        return "upper"
    if category == "Ll":
        return "lower"
    return "single" if category in ("Lo", "Lm") else "other"
