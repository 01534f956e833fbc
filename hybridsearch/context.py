"""The context of a prompt: the passages that a search found, numbered so that an answer can cite them.

`Results.context` makes a `Context`. Its text is a list of sources, each between tags:

    <source id="1">
    Alder > Battery > Charging, page 3

    Charge the battery indoors. A full charge takes five hours.
    </source>

The first line has the title of the document, the headings above the passage and its pages. No text of a document can
end a source or begin another one: the tag is `source`, or `source-2` and so on if a text holds `<source` or `</source`.
The texts themselves are never changed, so an answer can quote them word for word. This does not stop a model from
obeying an instruction that is in a document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, TypeAlias

from hybridsearch.arguments import shown, whole_number, whole_number_or_none
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.filters import field_value
from hybridsearch.messages import number_of
from hybridsearch.passages import headings_above
from hybridsearch.readers.pages import pages_of
from hybridsearch.sentences import cuttable, sections, stripped
from hybridsearch.tables import Grid

Span: TypeAlias = tuple[int, int]

URLS = ("url", "source")
"""Metadata fields that may hold the address of a document."""

_LONGEST_LINE = 300  # characters of title, headings and pages in the prompt
_SHOWN_TEXT = 80  # characters of a source in a table
_SHOWN_NAMES = 5  # ids and numbers in a note
_CHARACTERS_A_TOKEN = 8  # of a text that is too long, so many characters for each token of the budget are looked at

_PIECES = (
    (re.compile(r"[A-Z]{2,4}(?![a-z])|[A-Z][a-z]{0,3}|(?<![A-Za-z])[a-z]{1,4}|[a-z]{1,3}"), 4),
    (re.compile(r"[!-@\[-`{-~]|[ \t\r]*\n\s*|[ \t]{2,}"), 4),
    (re.compile(r"[\x80-\u024f]"), 8),
    (re.compile(r"[\u0250-\u07ff]"), 5),
    (re.compile(r"[\u0800-\u11ff\u1380-\uffff]"), 8),
    (re.compile(r"[\u1200-\u137f\U00010000-\U0010ffff]"), 12),
)
"""Parts of a text, and the quarters of a token that each counts."""

_CODE = r"```.*?(?:```|\Z)|`[^`\n]*`"
_SOURCE = r"(?:sources?(?:\s*:)?\s*)?[#^]?\d{1,9}"
_PAGES = r"(?:\s*[,;:])?\s*(?:pp?\.|pages?)[\d\s,–-]{1,40}"
_CITATION = re.compile(
    rf"{_CODE}|[\[［【]\s*(?P<numbers>{_SOURCE}(?:(?:\s*[-–—,;、，；&]\s*|\s+and\s+|\s+){_SOURCE})*)"
    rf"(?:{_PAGES})?\s*(?:†[^\[\]【】]{{0,80}})?[\]］】]",
    re.DOTALL | re.IGNORECASE,
)
_NUMBERS = re.compile(r"(\d+)(?:\s*[-–—]\s*(\d+))?")


@dataclass(frozen=True, slots=True)
class Source:
    """A numbered part of a document in a context.

    Attributes:
        number: Number that the answer cites, from 1.
        id: Id of the document.
        title: Title of the document, or `""`.
        start: First character of the part in `Document.text`.
        end: Character after the last character of the part.
        text: Text of the part, `document.text[start:end]`.
        headings: Headings above the part, outermost first.
        pages: First and last page or slide, from 1. None if the text has no pages.
        url: Address of the document. None if it is not known.
        score: Score of the hit.
        metadata: Metadata of the document.
    """

    number: int
    id: str
    title: str
    start: int
    end: int
    text: str
    headings: tuple[str, ...]
    pages: tuple[int, int] | None
    url: str | None
    score: float
    metadata: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Convert the source to a dict that JSON can hold."""
        pages = None if self.pages is None else list(self.pages)
        found = {name: getattr(self, name) for name in ("number", "id", "title", "start", "end", "text")}
        document = Document(self.id, "", metadata=self.metadata).to_dict()
        rest = {"headings": list(self.headings), "pages": pages, "url": self.url, "score": self.score}
        return {**found, **rest, "metadata": document["metadata"]}


@dataclass(frozen=True, slots=True)
class Citations:
    """The sources that an answer cites.

    Attributes:
        sources: The cited sources, in the order in which the answer first cites them.
        unknown: Numbers that the answer cites, but that no source has.
        places: Each citation in the answer: its first character, the character after its last, and its numbers.
    """

    sources: tuple[Source, ...]
    unknown: tuple[int, ...]
    places: tuple[tuple[int, int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Context:
    """The part of a prompt that holds what a search found. `Results.context` makes it.

    Attributes:
        text: Text for the prompt, with the sources between tags. `str(context)` is the same.
        sources: The sources in the order of their numbers, which begin with 1.
        tokens: Number of tokens of the text.
        notes: Sentences about what was left out or cut, and about brackets in a text that look like a citation.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.index([{"id": "a", "title": "Alder", "text": "Charge the battery indoors."}])
    >>> context = search.search("charge battery").context()
    >>> print(context)
    <source id="1">
    Alder
    <BLANKLINE>
    Charge the battery indoors.
    </source>
    >>> cited = context.cite("Charge it indoors [1], in five hours [2].")
    >>> [(source.id, source.start, source.end) for source in cited.sources], cited.unknown
    ([('a', 0, 27)], (2,))
    """

    text: str
    sources: tuple[Source, ...]
    tokens: int
    notes: tuple[str, ...] = ()

    def cite(self, answer: str) -> Citations:
        """Find the sources that an answer cites.

        A citation is a number in brackets: `[1]`, `[1, 2]`, `[1-3]`, `[1][2]`, `【1】`, `[^1]`, `[source 1]` or
        `[1, page 3]`. Numbers in code between backticks do not count. The numbers between the ends of a range count if
        they exist.

        Args:
            answer: Text that a model wrote.

        Returns:
            The cited sources, the numbers that do not exist, and the places of the citations.
        """
        if not isinstance(answer, str):
            raise InvalidArgumentError(f"answer is a string, not {shown(answer)}.")
        places = [
            (found.start(), found.end(), tuple(self._expanded(found["numbers"])))
            for found in _CITATION.finditer(answer)
            if found["numbers"]
        ]
        cited = list(dict.fromkeys(number for *_, numbers in places for number in numbers))
        there = tuple(self.sources[number - 1] for number in cited if 1 <= number <= len(self.sources))
        unknown = tuple(number for number in cited if not 1 <= number <= len(self.sources))
        return Citations(there, unknown, tuple(places))

    def _expanded(self, numbers: str) -> Iterator[int]:
        """The numbers of one citation, each once."""
        found: dict[int, None] = {}
        for first, last in _NUMBERS.findall(numbers):
            low, high = sorted((int(first), int(last or first)))
            between = range(max(low, 1), min(high, len(self.sources)) + 1)
            found |= dict.fromkeys([low, *between, high])
        yield from found

    def to_dict(self) -> dict[str, Any]:
        """Convert the context to a dict that JSON can hold."""
        sources = [source.to_dict() for source in self.sources]
        return {"text": self.text, "tokens": self.tokens, "notes": list(self.notes), "sources": sources}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Context({number_of(len(self.sources), 'source')}, {number_of(self.tokens, 'token')})"

    def _repr_html_(self) -> str:
        rows = []
        for one in self.sources:
            text = one.text if len(one.text) <= _SHOWN_TEXT else f"{one.text[:_SHOWN_TEXT]}…"
            head = _head(one.title, one.headings, one.pages)
            place = [one.id, *([one.url] if one.url else [])]
            rows.append([[str(one.number)], place, [f"{one.start:,} to {one.end:,}"], [head, text] if head else [text]])
        columns = ["source", "document", "characters", "text"]
        return Grid(repr(self), columns, rows, [f"Note: {note}" for note in self.notes], texts=(1, 3)).to_html()


class Encodes(Protocol):
    """A tokenizer, such as those of tiktoken, tokenizers and transformers."""

    def encode(self, text: str, /) -> Any: ...


Tokenizer: TypeAlias = "Callable[[str], int] | Encodes"
"""A function that counts the tokens of a text, or an object whose `encode` gives them."""


def estimated_tokens(text: str) -> int:
    """Estimate the number of tokens that a language model reads, without its tokenizer.

    The estimate is rather too high than too low, for texts of all scripts:

    - A word of ASCII letters counts one token for its first four letters, and one for each three letters more.
    - A digit, a sign, a line end and a run of blanks count one token each.
    - Another Latin letter counts two tokens, and a Greek, Cyrillic, Hebrew or Arabic letter 1.25.
    - An emoji or an Ethiopic letter counts three tokens, and a character of any other script two.

    On English prose this is about 1.5 times the number that the tokenizers of GPT-4 and GPT-4o give
    (`benchmarks/context.py`). It can be too low for strings without words, such as base64, and for languages that a
    tokenizer has hardly seen.

    >>> estimated_tokens("Charge the battery indoors."), estimated_tokens("充电")
    (8, 4)
    """
    return -(-sum(quarters * len(pattern.findall(text)) for pattern, quarters in _PIECES) // 4)


class Part(Protocol):
    """A span of a document's text. `PassageHit` is one."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class Found(Protocol):
    """What a context reads of a hit. `Hit` has it."""

    @property
    def id(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def document(self) -> Document: ...
    @property
    def passages(self) -> Sequence[Part]: ...


def make_context(
    hits: Sequence[Found],
    max_tokens: int | None,
    tokenizer: Tokenizer | None = None,
    per_document: int = 4,
    url: str | None = None,
) -> Context:
    """Make the context of the hits of one query, or of several. `Results.context` describes the arguments."""
    max_tokens = whole_number_or_none("max_tokens", max_tokens)
    per_document = whole_number("per_document", per_document)
    if url is not None and (not isinstance(url, str) or not url):
        raise InvalidArgumentError(f"url is the name of a metadata field, not {shown(url)}.")
    assembly = _Assembly(hits, max_tokens, _counter(tokenizer), per_document, (url,) if url else URLS)
    for hit in hits:
        assembly.add(hit)
    return assembly.context()


class _Assembly:
    """Chooses the sources of a context, one hit after the other.

    Args:
        hits: All hits.
        max_tokens: Largest number of tokens. None for no limit.
        count: Function that counts the tokens of a text.
        per_document: Largest number of passages of a document.
        urls: Metadata fields that may hold the address.
    """

    def __init__(
        self,
        hits: Sequence[Found],
        max_tokens: int | None,
        count: Callable[[str], int],
        per_document: int,
        urls: Sequence[str],
    ) -> None:
        self._max_tokens, self._count, self._per_document, self._urls = max_tokens, count, per_document, urls
        self._tag = _unused_tag(
            text for hit in hits for text in (hit.document.title, hit.document.text) if "source" in text.casefold()
        )
        self._sources: list[Source] = []
        self._used = 0
        self._known: dict[object, str] = {}  # id of the first document with these words, by the words
        self._too_long: dict[str, None] = {}  # ids of documents of which something does not fit
        self._duplicates: dict[str, str] = {}  # id of the document that has the same text, by id
        self._cut: dict[str, str] = {}  # note by id

    def add(self, hit: Found) -> None:
        """Add what fits of a hit."""
        text = hit.document.text
        whole = not hit.passages
        parts = [(0, len(text))] if whole else [(one.start, one.end) for one in hit.passages]
        spans = [stripped(text, start, end) for start, end in parts]
        if text.strip() or not hit.document.title.strip():
            spans = [(start, end) for start, end in spans if start < end]  # a text may be blank, but a title is not
        chosen: list[Span] = []
        taken = added = 0
        for span in spans:
            if taken == self._per_document:
                break
            words = self._words(hit, span)
            if words in self._known:
                if self._known[words] != hit.id:
                    self._duplicates[hit.id] = self._known[words]
                continue
            merged = _merged(text, [*chosen, span])
            cost = None if whole and self._is_long(span) else self._cost(hit, merged)
            if cost is None or not self._fits(cost):
                end = self._cut_end(hit, span) if not chosen and (whole or not self._sources) else None
                if end is None:
                    self._too_long[hit.id] = None
                    continue
                self._cut[hit.id] = _cut_note(hit.document, span, end, whole)
                merged = [(span[0], end)]
                cost = self._cost(hit, merged)
            self._known[words] = hit.id
            chosen, added, taken = merged, cost, taken + 1
        self._sources += self._made(hit, chosen)
        self._used += added

    def context(self) -> Context:
        """The context of what was added."""
        while True:
            text = self._text(self._sources)
            tokens = self._count(text) if text else 0
            if self._max_tokens is None or tokens <= self._max_tokens:
                break  # tokens at the borders of sources may make the whole longer than its parts
            self._too_long[self._sources.pop().id] = None
        return Context(text, tuple(self._sources), tokens, tuple(self._notes()))

    # Sources and their texts

    def _made(self, hit: Found, spans: Sequence[Span]) -> list[Source]:
        document = hit.document
        return [
            Source(
                number=number,
                id=hit.id,
                title=document.title,
                start=start,
                end=end,
                text=document.text[start:end],
                headings=headings_above(document, start),
                pages=pages_of(document, start, end),
                url=url_of(document, self._urls),
                score=hit.score,
                metadata=document.metadata,
            )
            for number, (start, end) in enumerate(spans, len(self._sources) + 1)
        ]

    def _text(self, sources: Iterable[Source]) -> str:
        blocks = []
        for one in sources:
            head = _head(one.title, one.headings, one.pages)
            body = "\n\n".join(part for part in (head, one.text) if part)
            blocks.append(f'<{self._tag} id="{one.number}">\n{body}\n</{self._tag}>')
        return "\n\n".join(blocks)

    def _cost(self, hit: Found, spans: Sequence[Span]) -> int:
        return self._count(f"{self._text(self._made(hit, spans))}\n\n")

    def _fits(self, cost: int) -> bool:
        return self._max_tokens is None or self._used + cost <= self._max_tokens

    def _words(self, hit: Found, span: Span) -> object:
        """What two passages have in common if one of them is left out."""
        document = hit.document
        above = (document.title, *headings_above(document, span[0]))
        return tuple(" ".join(text.casefold().split()) for text in (*above, document.text[span[0] : span[1]]))

    # Cutting

    def _room(self) -> int:
        return 0 if self._max_tokens is None else self._max_tokens - self._used

    def _is_long(self, span: Span) -> bool:
        """Whether a span is too long for the room, whatever its tokens are."""
        return self._max_tokens is not None and span[1] - span[0] > self._room() * _CHARACTERS_A_TOKEN

    def _cut_end(self, hit: Found, span: Span) -> int | None:
        """Where a text must end so that it fits: after a sentence, or after a word if it is the first source."""
        start, end = span
        part = hit.document.text[start : min(end, start + self._room() * _CHARACTERS_A_TOKEN)]
        ends = [place for section in sections(part, headings=False) for place in section.ends] if part else []
        ends = ends if len(part) == end - start else ends[:-1]  # the last sentence may go on
        found = self._longest(hit, start, ends)
        if found is None and not self._sources:
            places = (match.end() for match in cuttable().finditer(part, 0, ends[0] if ends else len(part)))
            found = self._longest(hit, start, [place for place in places if place])
        return found

    def _longest(self, hit: Found, start: int, ends: Sequence[int]) -> int | None:
        """The last of the ends with which a text fits, found by halving."""
        low, high, best = 0, len(ends), None
        while low < high:
            middle = (low + high) // 2
            end = stripped(hit.document.text, start, start + ends[middle])[1]
            if end > start and self._fits(self._cost(hit, [(start, end)])):
                low, best = middle + 1, end
            else:
                high = middle
        return best

    # Notes

    def _notes(self) -> Iterator[str]:
        if not self._sources and not self._too_long:
            yield "The search found nothing, so the context is empty."
        ids = {one.id for one in self._sources}
        yield from (note for id, note in self._cut.items() if id in ids)
        if self._too_long:
            of = number_of(len(self._too_long), "document")
            yield f"Text of {of} was left out, because max_tokens is {self._max_tokens:,}: {_listed(self._too_long)}."
        if self._duplicates:
            of = number_of(len(self._duplicates), "document")
            same = (f"{id} (like {other})" for id, other in self._duplicates.items())
            yield f"Text of {of} was left out, because it is there already with the same title: {_listed(same)}."
        looks = [one.number for one in self._sources if self._cites(f"{one.title} {one.text}")]
        if looks:
            numbers = _listed(f"[{number}]" for number in looks)
            yield f"The text of {numbers} has a number in brackets, which a model may copy as if it cited a source."

    def _cites(self, text: str) -> bool:
        numbers = (int(found[1]) for found in re.finditer(r"[\[［【](\d{1,6})[\]］】]", text))
        return any(1 <= number <= len(self._sources) for number in numbers)


def _counter(tokenizer: Tokenizer | None) -> Callable[[str], int]:
    """The function that counts tokens."""
    if tokenizer is None:
        return estimated_tokens
    # tiktoken's `encode` refuses texts that hold "<|endoftext|>", and `encode_ordinary` does not
    encode = getattr(tokenizer, "encode_ordinary", None) or getattr(tokenizer, "encode", None)
    if encode is not None and not isinstance(tokenizer, str):
        return lambda text: len(encode(text))
    if callable(tokenizer):
        return lambda text: whole_number("The tokenizer's count", tokenizer(text), 0)
    raise InvalidArgumentError(
        f"tokenizer is {shown(tokenizer)}, but it must be a function that counts the tokens of a text, or an object "
        "with the method encode."
    )


def _unused_tag(texts: Iterable[str]) -> str:
    """A tag that no text opens or closes, also if the text is cut in the middle of a word."""
    joined = "\n".join(texts)
    for number in count(1):
        tag = "source" if number == 1 else f"source-{number}"
        if not re.search(rf"[<＜﹤]\W{{0,9}}{tag}", joined, re.IGNORECASE):
            return tag
    raise AssertionError  # `count` does not end


def _head(title: str, headings: Sequence[str], pages: tuple[int, int] | None) -> str:
    """The first line of a source."""
    path = " > ".join(" ".join(part.split()) for part in (title, *headings) if part.strip())
    path = path if len(path) <= _LONGEST_LINE else f"{path[:_LONGEST_LINE]}…"
    place = "" if pages is None else f"page {pages[0]}" if pages[0] == pages[1] else f"pages {pages[0]} to {pages[1]}"
    return ", ".join(part for part in (path, place) if part)


def _merged(text: str, spans: Iterable[Span]) -> list[Span]:
    """The spans in order. Those that overlap, or have only white space between them, become one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and (start <= merged[-1][1] or not text[merged[-1][1] : start].strip()):
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def url_of(document: Document, names: Sequence[str] = URLS) -> str | None:
    """The address of a document: the first text that one of the fields holds, else an id that is a URL."""
    for name in names:
        value = field_value(document, name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and value.strip():
            return value
    return document.id if document.id.startswith(("http://", "https://")) else None


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    first, rest = (listed := list(names))[:_SHOWN_NAMES], len(listed) - _SHOWN_NAMES
    return ", ".join(first) + (f" and {rest:,} more" if rest > 0 else "")


def _cut_note(document: Document, span: Span, end: int, whole: bool) -> str:
    kept, all = end - span[0], span[1] - span[0]
    if not whole:
        return f"The passage of {document.id!r:.80} was cut to {kept:,} of {all:,} characters, because of max_tokens."
    return (
        f"The text of {document.id!r:.80} was cut to its first {kept:,} of {all:,} characters, because of max_tokens. "
        "A retriever that reads passages (passages=hs.Passages()) finds the part that answers."
    )
