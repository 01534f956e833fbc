"""Passages: parts of a document that retrievers read one by one, because a model cannot read a long text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from hybridsearch.arguments import names, one_of, true_or_false, whole_number
from hybridsearch.backends import Kind
from hybridsearch.documents import Document
from hybridsearch.encoders import Counting, Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.sentences import Section, parts, path_at, sections
from hybridsearch.vectors import PassageSpans

DEFAULT_SIZE = 128
"""Number of tokens of a passage.

It was chosen on pages of MedQuAD, SciFact and Cranfield, where BM25 read whole documents. Of 60, 100 and 128 tokens, it
was best on the pages in dense search, RRF and the min-max mean, and it makes the fewest vectors. It lost at most .002
nDCG@10 on SciFact and Cranfield. docs/explanations/quality.md has the figures, and `benchmarks/passages.py` compares
sizes."""

CHARACTERS_A_TOKEN = 16
"""Number of characters that count as at least one token. Some tokenizers read a long word as one token."""

_PARTS_A_PASSAGE = 8
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Passages:
    """How documents are split into passages.

    A passage is a span of `Document.text`. It holds whole sentences, up to `size` tokens. The passages of a section
    have about the same length. A sentence that is longer is cut at line ends, after clauses or after words. A word is
    never cut, unless its script has no spaces between words. Retrievers read each passage together with the title and
    the Markdown headings above it. Title and headings have at most half as many tokens as a passage, and are shortened
    if they have more. A retriever ranks a document by its best passage, unless it reads whole documents.

    Attributes:
        size: Largest number of tokens of a passage, at least 8. The tokens are those of the retriever whose model reads
            the fewest. If that is too little for `size` tokens and the title, the passages are smaller.
        overlap: Largest number of tokens that a passage repeats of the passage before it, in whole sentences. It is
            less than `size`.
        by: Unit that is never cut if it fits: `"sentences"`.
        headings: Whether a Markdown heading begins a new passage.
        whole: Names of the retrievers that read whole documents. None for the lexical retrievers (`BM25`, `CharNGrams`,
            `NativeBM25`) if the index also has others, which read passages. `()` if all retrievers read passages.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> Passages(size=200, whole=("bm25",))
    Passages(size=200, overlap=0, by='sentences', headings=True, whole=('bm25',))
    """

    size: int = DEFAULT_SIZE
    overlap: int = 0
    by: str = "sentences"
    headings: bool = True
    whole: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole_number("size", self.size, 8))
        object.__setattr__(self, "overlap", whole_number("overlap", self.overlap, 0))
        if self.overlap >= self.size:
            raise InvalidArgumentError(
                f"overlap is {self.overlap}, but it must be less than size, which is {self.size}."
            )
        one_of("by", self.by, ("sentences",))
        true_or_false("headings", self.headings)
        if self.whole is not None:
            object.__setattr__(self, "whole", tuple(sorted(names(self.whole))))

    def to_json(self) -> dict[str, Any]:
        """Convert the settings to a dict that JSON can hold."""
        return {**asdict(self), "whole": None if self.whole is None else list(self.whole)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Passages:
        """Make the settings from what `to_json` gave. Other keys are ignored."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})

    def resolved(self, kinds: Mapping[str, Kind]) -> Passages:
        """Name the retrievers that read whole documents, if `whole` is None.

        Args:
            kinds: Kind of each retriever of the index, by name.

        >>> Passages().resolved({"bm25": "lexical", "dense": "dense"}).whole
        ('bm25',)
        """
        if self.whole is not None:
            return self
        lexical = tuple(name for name, kind in kinds.items() if kind in ("lexical", "text"))
        return replace(self, whole=lexical if len(lexical) < len(kinds) else ())

    def fits(self, recorded: Passages | None) -> bool:
        """Whether an index with the passages `recorded` has these settings. None is an index without passages.

        If `whole` is None, the other settings decide.

        >>> Passages().fits(Passages(whole=())), Passages(whole=("bm25",)).fits(Passages(whole=()))
        (True, False)
        """
        if recorded is None or self.whole is not None:
            return self == recorded
        return replace(self, whole=recorded.whole) == recorded


@dataclass(frozen=True, slots=True)
class Counter:
    """A way to count the tokens of passages.

    Attributes:
        count: Function that gives the number of tokens of each text.
        limit: Number of tokens that are read of a passage with its title and headings. None if all of it is read.
        name: Name of the retriever whose tokens are counted. `""` for words. An index keeps the name, so that
            later documents are split in the same way.
    """

    count: Callable[[Sequence[str]], Sequence[int]]
    limit: int | None = None
    name: str = ""


def counter_of(encoders: Mapping[str, Encoder], whole: Sequence[str] = (), name: str | None = None) -> Counter:
    """Choose the encoder whose tokens are counted: the one that reads the fewest. This may load models.

    Args:
        encoders: Encoders of the index, by name.
        whole: Names of the retrievers that read whole documents.
        name: Name of the counter that the index keeps. None to choose one.

    Returns:
        The encoder's counter. If no model has a limit, the words of BM25, else a simple count of words.

    >>> counter_of({"bm25": BM25()}).count(["Lift grows with the angle of attack."])
    [7]
    """
    counting = {key: e for key, e in encoders.items() if isinstance(e, Counting) and key not in whole}
    if name is None:
        limits = {key: limit for key, e in counting.items() if (limit := e.max_tokens) is not None}
        lexical = [key for key, encoder in counting.items() if isinstance(encoder, BM25)]
        name = min(limits, key=limits.__getitem__) if limits else next(iter([*lexical, *counting]), "")
    if name in counting:
        return Counter(counting[name].count_tokens, counting[name].max_tokens, name)
    return Counter(lambda texts: [len(_WORD.findall(text)) for text in texts])


class Passage(NamedTuple):
    """One passage of a document.

    Attributes:
        start: First character of the span.
        end: Character after the last character of the span.
        context: Title and headings that are read before the span, shortened if they are long. `""` if there are none.
    """

    start: int
    end: int
    context: str


class Splitter:
    """Splits documents into passages.

    Args:
        settings: Settings of the passages.
        counter: Way to count the tokens.

    >>> splitter = Splitter(Passages(size=8), counter_of({"bm25": BM25()}))
    >>> document = Document("1", "Wings give lift. Lift grows with the angle of attack. It ends.", "Flight")
    >>> spans, passages = splitter.read([document])
    >>> spans.spans.tolist()
    [[0, 17], [17, 54], [54, 62]]
    >>> [passage.content for passage in passages]
    ['Flight Wings give lift.', 'Flight Lift grows with the angle of attack.', 'Flight It ends.']
    """

    def __init__(self, settings: Passages, counter: Counter) -> None:
        self.settings, self.counter = settings, counter
        limit = counter.limit
        self._size = settings.size if limit is None else max(1, min(settings.size, limit * 2 // 3))
        self._title_tokens = self._size // 2  # for title and headings together, so that they leave room for the passage

    def read(self, documents: Sequence[Document]) -> tuple[PassageSpans, list[Document]]:
        """Split documents, and make a document of each passage, as encoders read it.

        Args:
            documents: Documents to split.

        Returns:
            The spans, and one document for each passage. Its text is the span without blanks at its ends, as rerankers
            read it. Its title is the title with the headings. A document that is one passage stays as it is. If a
            title is shortened, the first passage has the whole title behind the span, so that no word of it is lost.
        """
        split = self.split(documents)
        read = []
        for document, passages in zip(documents, split, strict=True):
            for number, (start, end, context) in enumerate(passages):
                span = document.text[start:end].strip() if len(passages) > 1 else document.text
                if not number and not context.startswith(document.title):
                    span = f"{span} {document.title}"
                read.append(replace(document, title=context, text=span))
        return PassageSpans.of([[(start, end) for start, end, _ in passages] for passages in split]), read

    def split(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """Split documents into passages. The tokens of all their sentences are counted in a few calls.

        Args:
            documents: Documents to split.

        Returns:
            The passages of each document, in order. Their spans cover the text.
        """
        outlined = [sections(document.text, headings=self.settings.headings) for document in documents]
        contexts = self._contexts(documents, outlined)
        rows = [(row, section) for row, found in enumerate(outlined) for section in found]
        units = self._units([documents[row].text for row, _ in rows], [section for _, section in rows], contexts)
        split: list[list[Passage]] = [[] for _ in documents]
        for (row, section), of_section, context in zip(rows, units, contexts, strict=True):
            spans = _packed(_with_headings(of_section, section.body, context.room), context.room, self.settings.overlap)
            split[row] += [
                Passage(start, end, context.above if start < section.body else context.path) for start, end in spans
            ]
        return split

    def _units(
        self, texts: Sequence[str], outlined: Sequence[Section], contexts: Sequence[_Context]
    ) -> list[list[_Unit]]:
        """The sentences of each section with their tokens. Sentences that do not fit into a passage are cut."""
        spans = [list(zip([section.start, *section.ends], section.ends, strict=False)) for section in outlined]
        counts = iter(self._count([text[a:b] for text, found in zip(texts, spans, strict=True) for a, b in found]))
        units = [[_Unit(a, b, next(counts)) for a, b in found] for found in spans]
        long: list[tuple[int, _Unit, int]] = []  # number of the section, sentence, and tokens that it may have
        for number, (section, context) in enumerate(zip(outlined, contexts, strict=True)):
            own = sum(unit.tokens for unit in units[number] if unit.end <= section.body)
            for unit in units[number]:
                after_headings = unit.start == section.body and own  # a passage is not only headings
                room = max(context.room - own, context.room // 4) if after_headings else context.room
                if unit.tokens > room:
                    long.append((number, unit, room))
        if long:
            self._cut(texts, units, long)
        return units

    def _cut(self, texts: Sequence[str], units: list[list[_Unit]], long: list[tuple[int, _Unit, int]]) -> None:
        """Replace long sentences by their parts, until all parts fit or cannot be cut."""
        replaced: dict[tuple[int, int], list[_Unit]] = {}
        pending = [(number, unit, room, (number, unit.start)) for number, unit, room in long]
        for *_, key in pending:
            replaced[key] = []
        while pending:
            cut = []
            for number, (start, end, tokens), room, key in pending:
                ends = parts(texts[number], start, end, math.ceil(tokens * _PARTS_A_PASSAGE / room))
                if len(ends) == 1:
                    replaced[key].append(_Unit(start, end, tokens))
                else:
                    cut += [(number, a, b, room, key) for a, b in zip([start, *ends], ends, strict=False)]
            counts = self._count([texts[number][a:b] for number, a, b, _, _ in cut])
            pending = []
            for (number, a, b, room, key), tokens in zip(cut, counts, strict=True):
                unit = _Unit(a, b, tokens)
                if tokens > room:
                    pending.append((number, unit, room, key))
                else:
                    replaced[key].append(unit)
        for number in dict.fromkeys(number for number, _ in replaced):
            units[number] = [
                part for unit in units[number] for part in sorted(replaced.get((number, unit.start), [unit]))
            ]

    def _contexts(self, documents: Sequence[Document], outlined: Sequence[Sequence[Section]]) -> list[_Context]:
        """What is read before the passages of each section of each document."""
        needed = [
            (document.title, _below(document.title, section.above), _below(document.title, section.path))
            for document, found in zip(documents, outlined, strict=True)
            for section in found
        ]
        distinct = list(dict.fromkeys(part for title, above, path in needed for part in (title, *above, *path) if part))
        tokens = dict(zip(distinct, self._count(distinct), strict=True))
        made: dict[tuple[str, tuple[str, ...]], tuple[str, int]] = {}
        for title, above, path in needed:
            for headings in (above, path):
                if (title, headings) not in made:
                    made[title, headings] = self._context(title, headings, tokens)
        result = []
        for title, above, path in needed:
            (before, fewer), (later, more) = made[title, above], made[title, path]
            room = self._size if self.counter.limit is None else min(self._size, self.counter.limit - max(fewer, more))
            result.append(_Context(before, later, room))
        return result

    def _context(self, title: str, headings: Sequence[str], tokens: Mapping[str, int]) -> tuple[str, int]:
        """Title and headings, shortened to the tokens that they may have, and their number of tokens.

        A long title keeps its beginning. Of many headings the innermost stay.
        """
        kept: list[str] = []
        room = self._title_tokens
        if title and tokens[title] > (most := room // 2 if headings else room):
            title = self._shortened(title, tokens[title], most)
            room -= most
        elif title:
            room -= tokens[title]
        for heading in reversed(headings):
            cost = tokens[heading] + 1  # and a sign between headings
            if cost > room:
                if not kept and (beginning := self._shortened(heading, cost, room)):
                    kept.append(beginning)
                    room = 0
                break
            kept.append(heading)
            room -= cost
        context = " > ".join(part for part in (title, *reversed(kept)) if part)
        return context, self._title_tokens - room

    def _shortened(self, text: str, tokens: int, most: int) -> str:
        """The longest beginning of a text that ends with a word and has at most about `most` tokens."""
        ends = [0, *(found.end() for found in re.finditer(r"\S+", text))]
        if len(ends) == 2:  # a title in Chinese may have no spaces
            ends = [0, *parts(text, 0, len(text), tokens)]
        keep = len(ends) - 1
        while keep and tokens > most:
            keep = min(keep - 1, keep * most // tokens)
            tokens = self._count([text[: ends[keep]]])[0]
        return text[: ends[keep]]

    def _count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, and at least one for 16 characters."""
        lengths = [len(text.strip()) for text in texts]
        counts = self.counter.count(texts) if texts else ()
        return [
            max(int(count), -(-length // CHARACTERS_A_TOKEN)) for count, length in zip(counts, lengths, strict=True)
        ]


def _below(title: str, headings: tuple[str, ...]) -> tuple[str, ...]:
    """The headings without the first if it is the title, so that the title is not read twice."""
    return headings[1:] if headings and headings[0].casefold() == title.strip().casefold() else headings


def with_passages(document: Document, spans: Sequence[tuple[int, int]], *, headings: bool = True) -> Document:
    """Make a document whose text is some passages of a document, in order, each after the headings above it.

    Args:
        document: Document of the index.
        spans: Spans of the passages in its text.
        headings: Whether the passages have headings, as `Passages.headings`.

    >>> document = Document("1", "# Pump\\n\\n## Repair\\n\\nTurn it. Pull it off.", "Manual")
    >>> with_passages(document, [(28, 40)]).content
    'Manual Pump > Repair: Pull it off.'
    """
    texts = []
    for start, end in sorted(spans):
        above = " > ".join(headings_above(document, start)) if headings else ""
        text = document.text[start:end].strip()
        texts.append(f"{above}: {text}" if above else text)
    return replace(document, text="\n".join(texts))


def headings_above(document: Document, start: int) -> tuple[str, ...]:
    """The headings above the place `start` of a text, outermost first. If the first repeats the title, it is left out.

    >>> headings_above(Document("1", "# Pump\\n\\n## Repair\\n\\nTurn it.", "Pump"), 20)
    ('Repair',)
    """
    return _below(document.title, path_at(document.text, start))


class _Unit(NamedTuple):
    start: int
    end: int
    tokens: int


class _Context(NamedTuple):
    above: str  # before the passage with the section's own headings
    path: str  # before the passages after it
    room: int  # number of tokens that a passage may have beside it


def _with_headings(units: list[_Unit], body: int, room: int) -> list[_Unit]:
    """The sentences of a section. Its headings and the first sentence after them are one if they fit."""
    headings = sum(unit.end <= body for unit in units)
    first = units[: headings + 1]
    tokens = sum(unit.tokens for unit in first)
    if not headings or tokens > room:
        return units
    return [_Unit(first[0].start, first[-1].end, tokens), *units[headings + 1 :]]


def _packed(units: Sequence[_Unit], room: int, overlap: int) -> list[tuple[int, int]]:
    """Pack the sentences of a section into passages: as few as possible, and of about the same length.

    A short rest would be found too often, because a short passage has a high score for each word that matches.
    """
    spans = _filled(units, room, overlap)
    least = -(-sum(unit.tokens for unit in units) // len(spans))
    while least < room:  # look for the smallest room that is enough for as many passages
        middle = (least + room) // 2
        found = _filled(units, middle, overlap)
        if len(found) <= len(spans):
            spans, room = found, middle
        else:
            least = middle + 1
    return spans


def _filled(units: Sequence[_Unit], room: int, overlap: int) -> list[tuple[int, int]]:
    """Fill passages with sentences, one after the other."""
    spans = []
    first = total = 0
    for number, unit in enumerate(units):
        if number > first and total + unit.tokens > room:
            spans.append((units[first].start, unit.start))
            begun, first, total = first, number, 0
            while first - 1 > begun and total + units[first - 1].tokens <= min(overlap, room - unit.tokens):
                first -= 1
                total += units[first].tokens
        total += unit.tokens
    spans.append((units[first].start, units[-1].end))
    return spans
