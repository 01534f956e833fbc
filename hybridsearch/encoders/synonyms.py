"""Synonyms, which add words to the queries of `BM25`.

A rule is a line in Solr's format:

    car, automobile, motor car      each of them finds the others too
    tv, telly => television         the words on the left are replaced by those on the right
    # a comment

A backslash takes the next character literally, such as a comma. A file may also be in the Prolog format of WordNet,
where the words of one synset find each other: `s(102961779,1,'car',n,1,71).`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from hybridsearch.arguments import path, shown
from hybridsearch.errors import InvalidArgumentError

WEIGHT = 0.5
"""Weight of a synonym in a query. A word of the query has the weight 1."""

STOP = "\0"
"""The first character of a word without a term: a stop word, which only rules of several words can match."""

Words: TypeAlias = tuple[str, ...]
"""The words of a text as terms. A word without a term begins with `STOP`."""

_SHOWN = 5
_EXAMPLE = "A rule is like 'car, automobile' or 'tv => television'."
_TOKEN = re.compile(r"\\(.)|(=>|,)|([^\\,=]+|=)", re.DOTALL)
_TO_ESCAPE = re.compile(r"[\\,#]|=>")
_SYNSET = re.compile(r"s\((\d+),\d+,'((?:[^']|'')+)',[a-z],\d+(?:,\d+)?\)\.")


class Line(NamedTuple):
    """A rule as text.

    Attributes:
        text: Rule in Solr's format.
        place: Place of the rule, for errors, such as "synonyms.txt, line 3".
    """

    text: str
    place: str


class Expansion(NamedTuple):
    """Words of a query for which synonyms are searched.

    Attributes:
        words: The words as the rule writes them.
        synonyms: Synonyms that are searched.
        replaced: Whether the synonyms are searched in place of the words. If not, both are searched.
    """

    words: str
    synonyms: tuple[str, ...]
    replaced: bool


def read_synonyms(given: object) -> list[Line]:
    """Read rules from any form that `BM25(synonyms=...)` takes.

    Args:
        given: Mapping from words to their synonyms, list of rules in Solr's format, or path of a file.

    Raises:
        InvalidArgumentError: `given` has another form, the file cannot be read, or a line of it is malformed.

    >>> [line.text for line in read_synonyms({"car": ["auto", "motor car"], "tv": "television"})]
    ['car => car, auto, motor car', 'tv => tv, television']
    """
    if isinstance(given, str | Path):
        return _of_file(path("synonyms", given))
    if isinstance(given, Mapping):
        return [_of_entry(word, synonyms) for word, synonyms in given.items()]
    if isinstance(given, Sequence) and all(isinstance(text, str) for text in given):
        return _rules(given, "synonyms, rule")
    raise InvalidArgumentError(
        "synonyms is a mapping such as {'car': ['automobile']}, a list of rules such as ['car, automobile'], or the "
        f"path of a file, not {shown(given)}."
    )


class Synonyms:
    """Rules that expand queries.

    At each word of the query, the longest rule that fits is applied. The next rule is looked for after its words.
    Synonyms of synonyms are not looked up.

    The terms of the query have the weight 1. The terms of a synonym share `WEIGHT` times the weight of the terms that
    the synonym stands for. A synonym that replaces words has the full weight. If two synonyms of the same words have a
    term in common, its larger weight counts.

    Args:
        lines: Rules.
        analyse: Function that cuts a text into words.

    Raises:
        InvalidArgumentError: A rule is malformed, or words of it cannot be found.

    >>> synonyms = Synonyms([Line("car, motor vehicle", "rule 1")], str.split)
    >>> synonyms.expand(("red", "car"))[0]
    {'red': 1.0, 'car': 1.0, 'motor': 0.25, 'vehicle': 0.25}
    """

    def __init__(self, lines: Iterable[Line], analyse: Callable[[str], Sequence[str]]) -> None:
        self._names: dict[Words, str] = {}
        self._outputs: dict[Words, list[dict[Words, None]]] = {}  # all words of a rule share one dict
        self._kept: set[Words] = set()  # words of rules whose words find each other
        self._longest: dict[str, int] = {}
        for line in lines:
            self._add(line, analyse)

    def expand(self, words: Sequence[str]) -> tuple[dict[str, float], list[Expansion]]:
        """Expand a query.

        Args:
            words: Words of the query.

        Returns:
            The weight of each term, in the order of first occurrence, and the words that have synonyms.
        """
        weights: dict[str, float] = {}
        expansions = []
        position = 0
        while position < len(words):
            matched = self._match(words, position)
            taken = matched or tuple(words[position : position + 1])
            for term, weight in self._weights(taken, matched is not None).items():
                weights[term] = weights.get(term, 0.0) + weight
            if matched is not None:
                expansions.append(self._expansion(matched))
            position += len(taken)
        return weights, [expansion for expansion in expansions if expansion.synonyms]

    def _match(self, words: Sequence[str], position: int) -> Words | None:
        """The longest words from `position` on that have synonyms."""
        for length in range(self._longest.get(words[position], 0), 0, -1):
            part = tuple(words[position : position + length])
            if part in self._outputs:
                return part
        return None

    def _weights(self, words: Words, matched: bool) -> dict[str, float]:
        """The weights of words of a query, with their synonyms if they have some."""
        own = _terms(words)
        if not matched:
            return dict.fromkeys(own, 1.0)
        outputs = self._found(words)
        kept = words in outputs
        weights = {term: float(count) for term, count in Counter(own).items()} if kept else {}
        for output in outputs:
            if output != words and (terms := _terms(output)):
                share = (WEIGHT if kept else 1.0) * max(1, len(own)) / len(terms)
                for term, count in Counter(terms).items():
                    weights[term] = max(weights.get(term, 0.0), share * count)
        return weights

    def _found(self, words: Words) -> dict[Words, None]:
        """What is searched for words that have synonyms, in the order of the rules."""
        outputs = {output: None for of_rule in self._outputs[words] for output in of_rule}
        return outputs | {words: None} if words in self._kept else outputs

    def _expansion(self, words: Words) -> Expansion:
        outputs = self._found(words)
        others = tuple(self._names[output] for output in outputs if output != words)
        return Expansion(self._names[words], others, words not in outputs)

    def _add(self, line: Line, analyse: Callable[[str], Sequence[str]]) -> None:
        inputs, outputs = parse_rule(line)
        analysed = {}
        for name in [*inputs, *outputs]:
            words = tuple(analyse(name))
            if not words:
                raise InvalidArgumentError(f"{line.place}: {name!r:.80} has no word.")
            self._names.setdefault(words, name)
            analysed[name] = words
        found = {analysed[name]: None for name in outputs if _terms(analysed[name])}
        if not found and inputs is not outputs:
            raise InvalidArgumentError(
                f"{line.place}: {', '.join(outputs)!r:.80} cannot be found, because each word is a stop word."
            )
        for words in (analysed[name] for name in inputs):
            if len(found) > (words in found):
                self._outputs.setdefault(words, []).append(found)
                if inputs is outputs:
                    self._kept.add(words)
                self._longest[words[0]] = max(self._longest.get(words[0], 0), len(words))


def parse_rule(line: Line) -> tuple[list[str], list[str]]:
    """Parse a rule into the words on its left and on its right. If it has no "=>", both are the same list.

    Raises:
        InvalidArgumentError: The rule is malformed.

    >>> parse_rule(Line("tv, telly => television", "rule 1"))
    (['tv', 'telly'], ['television'])
    """
    sides = [[""]]
    end = 0
    for token in _TOKEN.finditer(line.text):
        literal, separator, other = token.groups()
        end = token.end()
        if separator == "=>":
            sides.append([""])
        elif separator:
            sides[-1].append("")
        else:
            sides[-1][-1] += other if literal is None else literal
    sides = [[words.strip() for words in side] for side in sides]
    if end < len(line.text):
        raise _malformed(line, "ends with a backslash")
    if len(sides) > 2:
        raise _malformed(line, "has more than one '=>'")
    if not all(words for side in sides for words in side):
        raise _malformed(line, "has nothing before or after a comma or '=>'")
    if len(sides) == 1 and len(sides[0]) == 1:
        raise _malformed(line, "has no synonym")
    return sides[0], sides[-1]


def note_on(expansions: Sequence[Expansion]) -> str:
    """Write a sentence on the synonyms of a query. `""` if there are none.

    >>> note_on([Expansion("car", ("auto", "automobile"), False), Expansion("tv", ("television",), True)])
    'synonyms were searched: auto, automobile (beside car), television (in place of tv).'
    """
    parts = []
    for words, synonyms, replaced in dict.fromkeys(expansions):
        more = f" and {len(synonyms) - _SHOWN} more" if len(synonyms) > _SHOWN else ""
        parts.append(f"{', '.join(synonyms[:_SHOWN])}{more} ({'in place of' if replaced else 'beside'} {words})")
    return f"synonyms were searched: {', '.join(parts)}." if parts else ""


def _terms(words: Words) -> list[str]:
    return [word for word in words if not word.startswith(STOP)]


def _malformed(line: Line, problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{line.place}: {line.text!r:.80} {problem}. {_EXAMPLE}")


def _of_entry(word: object, synonyms: object) -> Line:
    """The rule of one entry of a mapping."""
    listed = [synonyms] if isinstance(synonyms, str) else synonyms
    if (
        not isinstance(word, str)
        or not isinstance(listed, Sequence)
        or not listed
        or not all(isinstance(synonym, str) for synonym in listed)
    ):
        raise InvalidArgumentError(
            f"synonyms has {shown(word)}: {shown(synonyms)}, but it maps words to their synonyms, as in "
            "{'car': ['automobile', 'auto']}."
        )
    return Line(f"{_escaped(word)} => {', '.join(map(_escaped, [word, *listed]))}", f"synonyms of {word!r:.80}")


def _escaped(words: str) -> str:
    return _TO_ESCAPE.sub(lambda match: f"\\{match[0]}", words)


def _of_file(file: Path) -> list[Line]:
    """The rules of a file in Solr's or WordNet's format."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidArgumentError(
            f"The file of synonyms {file} cannot be read ({error.strerror}). Rules themselves are given as a list or a "
            "mapping."
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"The file of synonyms {file} is not in UTF-8 ({error.reason}).") from None
    lines = _rules(text.split("\n"), f"{file}, line")
    return _of_wordnet(lines) if lines and _SYNSET.fullmatch(lines[0].text) else lines


def _rules(lines: Iterable[str], place: str) -> list[Line]:
    """The lines with their numbers, without comments and blank lines."""
    numbered = [Line(line.strip(), f"{place} {number}") for number, line in enumerate(lines, 1)]
    return [line for line in numbered if line.text and not line.text.startswith("#")]


def _of_wordnet(lines: Iterable[Line]) -> list[Line]:
    """One rule for each synset that has several words."""
    synsets: dict[str, tuple[dict[str, None], str]] = {}
    for line in lines:
        match = _SYNSET.fullmatch(line.text)
        if match is None:
            raise InvalidArgumentError(
                f"{line.place}: {line.text!r:.80} is not a line of WordNet such as s(102961779,1,'car',n,1,71)."
            )
        words, _ = synsets.setdefault(match[1], ({}, line.place))
        words[match[2].replace("''", "'")] = None
    return [Line(", ".join(map(_escaped, words)), place) for words, place in synsets.values() if len(words) > 1]
