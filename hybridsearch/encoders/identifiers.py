"""Identifiers in texts: names in code, part numbers, quantities and languages such as `get_user_by_id` or C++.

An identifier is found whole and by its parts. The words of a text are cut at `-`, `/` and most other signs, and are
folded to lower case. So the functions of this module read the text before that, and give the terms that would be lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_IDENTIFIER = 255
"""Number of characters of the longest identifier. Longer runs of characters are data."""

_NAMED_BY_SIGN = re.compile(r"(?<!\w)(\w)(?:\+\+|#)(?![^\W\d_])")  # C++, C#, F#: the sign is a part of the name
_SUFFIXED = re.compile(r"(?<!\w)\w++(?:\+\+|#)(?![^\W\d_])")  # also notepad++
_PREFIXED = re.compile(r"(?<![\w.])\.[^\W\d]\w*")  # .NET, .bashrc
_COMPOUND = re.compile(r"(?<!\w)\w++(?:(?:::|->|[-./:\\@&])\w++)++")
_IN_CODE = re.compile(r"::|->|\.|[\\@&]")  # "-", "/" and ":" also join ordinary words
_HINT = re.compile(r"[\d_#&@\\]|\+\+|::|->|\w\.\w|(?<![\w.])\.\w|[^\W\d_][A-Z]|[^\x00-\x7f]").search
_DECIMAL = re.compile(r"[\d.]+").fullmatch
_WORD = re.compile(r"\w++(?:(?<=\d)\.(?=\d)\w++)*+")
_PIECE = re.compile(r"[\d.]+|[^\W\d_]+")


def ordinary_word(text: str) -> str:
    """The word or the whole number that a text consists of, if it cannot be cut further. If not, `""`.

    It has only ASCII letters in `lower`, `UPPER` or `Title` case, or only ASCII digits. There may be parentheses before
    it, and punctuation after it. Most chunks of prose are such words.

    >>> ordinary_word("(Lift),"), ordinary_word("mRNA")
    ('Lift', '')
    """
    word = text.lstrip("(").rstrip(".,:;)")
    if not word.isascii() or not (word.isalpha() or word.isdigit()):
        return ""
    return word if word.islower() or word.istitle() or word.isupper() or word.isdigit() else ""


def may_hold_identifiers(text: str) -> bool:
    """Whether the functions below can find anything. This test is fast."""
    return not ordinary_word(text) and _HINT(text) is not None


def without_signed_names(text: str) -> str:
    """Remove names such as C++ from a text, so that the letter is not taken for a word."""
    return _NAMED_BY_SIGN.sub(" ", text) if "+" in text or "#" in text else text


def wholes_of(text: str) -> Iterator[str]:
    """The identifiers that the words of a text do not hold as a whole, because they have signs.

    >>> list(wholes_of("AB-1234/5 in C++ and .NET, state-of-the-art at 1.5"))
    ['C++', '.NET', 'AB-1234/5']
    """
    for pattern in (_SUFFIXED, _PREFIXED):
        yield from pattern.findall(text)
    for whole in _COMPOUND.findall(text):
        if len(whole) <= MAX_IDENTIFIER and _is_identifier(whole):
            yield whole


def parts_of(text: str, *, of_query: bool = False) -> Iterator[str]:
    """The parts of the words of a text: between underscores, at changes of case, and of digits and letters.

    A query gives no parts of digits and letters, so that the query "p53" does not find every 53. It gives the parts of
    camel case only if each has at least two characters, so that the query "mRNA" does not find every RNA.

    >>> list(parts_of("get_user HttpClient x86_64 10mg p53"))
    ['get', 'user', 'Http', 'Client', 'x86', '64', '86', '10', 'mg', '53']
    """
    for word in _WORD.findall(text):
        if len(word) > MAX_IDENTIFIER:
            continue
        between = [part for part in word.split("_") if part]
        if len(between) > 1:
            yield from between
        for part in between:
            pieces = [piece for run in _PIECE.findall(part) for piece in _at_case(run)]
            if len(pieces) > 1 and not (of_query and (min(map(len, pieces)) < 2 or any(map(_DECIMAL, pieces)))):
                yield from (piece for piece in pieces if len(piece) > 1)


def _is_identifier(whole: str) -> bool:
    if _DECIMAL(whole):
        return False
    return "_" in whole or any(map(str.isdecimal, whole)) or _IN_CODE.search(whole) is not None


def _at_case(run: str) -> Iterator[str]:
    """Cut a run of letters before each capital that begins a word: HTTPServer is HTTP, Server."""
    if run.islower() or run.isupper() or run.istitle():
        yield run
        return
    start = 0
    for i in range(1, len(run)):
        before, here, after = run[i - 1], run[i], run[i + 1 : i + 2]
        if here.isupper() and (before.islower() or (before.isupper() and after.islower())):
            yield run[start:i]
            start = i
    yield run[start:]
