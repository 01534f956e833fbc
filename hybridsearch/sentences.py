"""Finds the places where a text may be cut: headings, sentence ends, and places within a long sentence.

The library sentencex finds the ends of sentences. A few kinds of Markdown lines are known here, because they say where
a topic begins and where a sentence cannot end: headings, fenced code and table rows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from hybridsearch.encoders.stopwords import STOP_WORDS
from hybridsearch.encoders.tokens import marks, unspaced_letters
from hybridsearch.readers.markdown import Heading, after_space, structure

Span: TypeAlias = tuple[int, int]

_CODES = {  # English comes first, so that it wins ties
    "english": "en", "danish": "da", "dutch": "nl", "finnish": "fi", "french": "fr", "german": "de", "hungarian": "hu",
    "italian": "it", "norwegian": "no", "portuguese": "pt", "russian": "ru", "spanish": "es", "swedish": "sv",
    "turkish": "tr",
}  # fmt: skip
"""Code of each language that `_language` can tell."""

_ABBREVIATIONS = {
    "en": "approx avg ch chap chaps ed eds eq eqs est excl figs incl max refs resp secs sect suppl tab tel vol vols",
    "es": "aprox cf ed",
    "fr": "coll max min nb no réf",
    "hu": "kb old stb sz",
    "it": "pag pagg",
    "nl": "incl mevr ong tel",
    "no": "dvs inkl kap maks osv tab tlf",
    "pt": "aprox av cap cf ed etc máx mín núm pág págs tel vol",
    "ru": "гл др коп млн млрд напр обл ок прим рис ст табл",
    "sv": "dvs inkl kap max osv resp sid tab tel ung",
    "tr": "bkz cilt örn vb",
}
"""Abbreviations that sentencex does not know, by language. A number or a lower-case word after them goes on."""

_WINDOW = 1000
"""Number of characters that sentencex sees at a time. Its time grows with the square of a paragraph without spaces."""

_SAMPLE = 400
"""Number of characters that tell the language."""

_ROW = re.compile(r"^[ \t]*\|.*", re.MULTILINE)
_ROW_PART_END = re.compile(r"(?:[.!?](?!\s*\|)|\|)\s+")
_WORD = re.compile(r"\w+")
_LINE_END = re.compile(r"\n\s*")
_CLAUSE_END = re.compile(r"[,;:،؛)\]…—–][\"'”’»)\]]*\s+|[、，；：。！？]\s*")
_WORD_END = re.compile(r"\s+")


class Section(NamedTuple):
    """A part of a text, from a heading to the next heading.

    Attributes:
        above: Headings above the section, outermost first.
        path: Headings that hold for the text of the section, outermost first.
        start: First character of the section.
        body: First character after the headings of the section.
        ends: Ends of the sentences in order. White space belongs to the sentence before it. The headings of the section
            are the first sentence, or several.
    """

    above: tuple[str, ...]
    path: tuple[str, ...]
    start: int
    body: int
    ends: list[int]


def sections(text: str, *, headings: bool = True) -> list[Section]:
    """Cut a text into sections, and the sections into sentences.

    Args:
        text: Text of a document.
        headings: Whether Markdown headings begin a section. If not, the text is one section.

    Returns:
        The sections in order. Together their sentences cover the text. A text that is empty or only white space is one
        section with one sentence.

    >>> for section in sections("# Install\\n\\nRead this. Dr. Po did.\\n\\n## Linux\\n\\nRun it."):
    ...     print(section)
    Section(above=(), path=('Install',), start=0, body=11, ends=[11, 22, 35])
    Section(above=('Install',), path=('Install', 'Linux'), start=35, body=45, ends=[45, 52])
    """
    titles, code = structure(text)
    known = titles if headings else []
    rows = [row.span() for row in _ROW.finditer(text)] if "|" in text else []
    closed = sorted([*code, *rows, *((title.start, title.end) for title in known)])
    bounds = [place for title in known for place in (title.start, title.end)]
    bounds += [start for start, _ in rows]
    ends = _settled(text, [*_outside(_sentence_ends(text), closed), *_lines(text, code), *bounds])
    outlined = list(_outline(known, {0, *ends}))
    starts = [start for _, _, start, _ in outlined]
    return [
        Section(above, path, start, body, ends[bisect_right(ends, start) if start else 0 : bisect_right(ends, after)])
        for (above, path, start, body), after in zip(outlined, [*starts[1:], len(text)], strict=True)
    ]


def path_at(text: str, start: int) -> tuple[str, ...]:
    """The headings above a passage that begins at `start`, outermost first. Headings in it are left out."""
    titles, _ = structure(text)
    found: tuple[str, ...] = ()
    for above, path, begin, body in _outline(titles, {0, *(place for t in titles for place in (t.start, t.end))}):
        if begin > start:
            break
        found = above if start < body else path
    return found


def parts(text: str, start: int, end: int, wanted: int) -> list[int]:
    """Cut a long sentence at the best places: at line ends, else after clauses, else after words, else between letters.

    The row of a table is first cut after cells and sentences. A word is cut only if its script has no spaces between
    words, as in Chinese and Thai, or at a sign such as "/". A letter is never cut from its marks.

    Args:
        text: Text of a document.
        start: First character of the sentence.
        end: Character after the last character of the sentence.
        wanted: Number of parts. They have about the same length if the places allow it.

    Returns:
        Ends of the parts, in order. The last is `end`. It is the only one if the sentence cannot be cut.

    >>> text = "one, two, three four"
    >>> parts(text, 0, 20, 9), parts(text, 10, 20, 9), parts(text, 16, 20, 9)
    ([5, 10, 20], [16, 20], [20])
    """
    first = _ROW_PART_END if text.startswith("|", start) else _LINE_END
    for pattern in (first, _CLAUSE_END, _WORD_END, cuttable()):
        places = np.fromiter((found.end() for found in pattern.finditer(text, start, end)), dtype=np.int64)
        places = places[(places > start) & (places < end)]
        if len(places):
            targets = start + (end - start) * np.arange(1, max(wanted, 2)) // max(wanted, 2)
            nearest = np.unique(places[np.minimum(np.searchsorted(places, targets), len(places) - 1)]).tolist()
            if chosen := [place for place in nearest if is_cuttable(text, place)]:
                return [*chosen, end]
    return [end]


def _outline(
    headings: Sequence[Heading], cuts: set[int]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], int, int]]:
    """The headings above each section, its whole path, its start and its body. Headings in a row share a section."""
    path: list[Heading] = []
    number = 0
    usable = [heading for heading in headings if heading.start in cuts or not heading.start]
    if not usable or usable[0].start:
        yield (), (), 0, 0
    while number < len(usable):
        start, body = usable[number].start, usable[number].end
        outer = path
        while number < len(usable) and (usable[number].start in (start, body)):
            own = usable[number]
            path = [*(above for above in path if above.level < own.level), own]
            outer = [above for above in outer if above.level < own.level]
            body, number = own.end, number + 1
        yield tuple(h.title for h in outer), tuple(h.title for h in path), start, body


def _sentence_ends(text: str) -> Iterator[int]:
    """Ends of sentences as sentencex finds them, in windows. A window begins where a sentence begins."""
    from sentencex import get_sentence_boundaries

    start, language = 0, _language(text)
    while start < len(text):
        ends = [found["end_index"] for found in get_sentence_boundaries(language, text[start : start + _WINDOW])]
        if start + _WINDOW < len(text):
            ends = ends[:-1]  # the last sentence may go on
        yield from (start + end for end in ends if not _goes_on(text, start + end, language))
        start += ends[-1] if ends else _WINDOW


def _goes_on(text: str, place: int, language: str) -> bool:
    """Whether a sentence goes on at a place, because a number or a lower-case word follows an abbreviation."""
    following = text[place : place + 1]
    if not (following.isdecimal() or following.islower()):
        return False
    return _abbreviation(language).search(text, max(0, place - 20), place) is not None


@cache
def _abbreviation(language: str) -> re.Pattern[str]:
    """A pattern of an abbreviation at the end, with the space after it: a known one, or letters such as "i. e."."""
    known = _ABBREVIATIONS.get(language, "etc").replace(" ", "|")
    letter = r"[^\W\d_]"
    return re.compile(rf"(?<!\w)(?:{known}|{letter}|{letter}\.[ \xa0]?{letter}{{1,3}})\.[ \xa0]+\Z", re.IGNORECASE)


def _language(text: str) -> str:
    """The code of a text's language, by the stop words at its beginning. sentencex knows abbreviations by language."""
    counts = dict.fromkeys(_CODES.values(), 0)
    for word in _WORD.findall(text[:_SAMPLE].lower()):
        for code in _codes_of_stop_words().get(word, ()):
            counts[code] += 1
    return max(counts, key=counts.__getitem__)


@cache
def _codes_of_stop_words() -> dict[str, list[str]]:
    codes: dict[str, list[str]] = {}
    for name, code in _CODES.items():
        for word in STOP_WORDS[name]:
            codes.setdefault(word, []).append(code)
    return codes


def _outside(places: Iterable[int], spans: Sequence[Span]) -> Iterator[int]:
    """The ascending places that are not within a span."""
    number = 0
    for place in places:
        while number < len(spans) and spans[number][1] <= place:
            number += 1
        if number == len(spans) or place <= spans[number][0]:
            yield place


def _lines(text: str, code: Iterable[Span]) -> Iterator[int]:
    """Starts of the lines of code."""
    for start, end in code:
        yield start
        yield from (found.end() for found in _LINE_END.finditer(text, start, end))
        yield end


def _settled(text: str, places: Iterable[int]) -> list[int]:
    """The places in order, behind the white space that follows them, without those where a text must not be cut."""
    ends: list[int] = []
    last = after_space(text, 0)
    for place in sorted(set(places)):
        if place > last:
            last = after_space(text, place)
            if last < len(text) and _may_cut(text, last):
                ends.append(last)
    return [*ends, len(text)]


def _may_cut(text: str, place: int) -> bool:
    """Whether a sentence may end at a place. In ASCII a space must follow it, because "ASP.NET" is one word."""
    before, after = text[place - 1], text[place]
    if after.isascii() and before.isascii():
        return before.isspace()
    return is_cuttable(text, place)  # also where no space follows, as in Chinese


def stripped(text: str, start: int, end: int) -> Span:
    """The span without white space at its ends."""
    part = text[start:end].lstrip()
    start = end - len(part) if part else start
    return start, start + len(part.rstrip())


def is_cuttable(text: str, place: int) -> bool:
    """Whether the characters before and after a place may be cut apart, as `cuttable` says.

    Between Latin characters the answer is quick, because it needs no pattern.
    """
    around = text[place - 1 : place + 1] if place else ""
    if len(around) == 2 and max(around) < "\u0300":  # no mark, joiner or virama, and no letter of an unspaced script
        return not around[1].isspace() and not all(map(_is_of_word, around))
    return cuttable().match(text, place) is not None


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


@cache
def cuttable() -> re.Pattern[str]:
    """A pattern that matches, with length 0, where two characters may be cut apart.

    The pattern does not match within a word, unless the script of the word has no spaces between words. It does not
    match within a character that is written as several code points. So it does not match before a mark, a variation
    selector, a skin tone, a vowel or final consonant of Hangul, or SARA AM. It does not match after a joiner, a virama,
    or a Thai or Lao vowel that belongs to the next letter, and not between regional indicators.
    """
    word, letters = rf"\w{marks()}\u200c\u200d", unspaced_letters()
    attached = rf"{marks()}\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u1160-\u11ff\ud7b0-\ud7ff\u0e33\u0eb3"
    leading = r"\u200d\u0e40-\u0e44\u0ec0-\u0ec4\u1100-\u115f\ua960-\ua97f\u17d2\u1039\u0600-\u0605\u06dd\u070f"
    flags = r"\U0001f1e6-\U0001f1ff"
    apart = rf"(?:(?<=[^{word}])|(?<=[{letters}])|(?<=[{letters}][{marks()}])|(?=[^{word}])|(?=[{letters}]))"
    return re.compile(rf"{apart}(?![\s{attached}])(?<![{leading}])(?!(?<=[{flags}])[{flags}])")
