"""Where a document matched: highlights are spans of its text, and a snippet is a window with its highlights."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import whole_number
from hybridsearch.backends import Request
from hybridsearch.documents import Document
from hybridsearch.encoders import Counting, Encoder
from hybridsearch.encoders.locating import joins
from hybridsearch.rerank import TokenMatch
from hybridsearch.sentences import is_cuttable, sections, stripped
from hybridsearch.tables import Marked
from hybridsearch.vectors import DenseVectors, QueryVector, SparseQuery, TextQuery

if TYPE_CHECKING:
    from rich.text import Text

Explained: TypeAlias = "Callable[[Request, Sequence[str]], Mapping[str, Mapping[str, float]]]"
"""Function that gives the matched terms of documents with what they add to the score, by document id."""

BLOCK = 10
"""Number of hits whose highlights are computed together when the highlights of one of them are read."""

RERANKER = "reranker"
"""Name that stands for a retriever's in the highlights of a reranker."""

_SENTENCE_START = re.compile(r"(?:[.!?…][\"'”’»)\]]*\s+|[。！？]\s*|\n\s*)(?=\S)")
_REACH = 40  # characters in which a place between two words is looked for, before a word without spaces is cut
_UNIT = 1_000_000  # weights are summed as whole numbers, so that equal sums are equal


@dataclass(frozen=True, slots=True)
class Highlight:
    """A span of a document's text that a retriever found.

    Attributes:
        start: First character of the span in `Document.text`.
        end: Character after the last character of the span.
        weight: Part of the score that the term added. It is 0 if the term adds only to another passage of the document.
            For a dense retriever, it is the score of the sentence. For late interaction, it is a similarity.
        retriever: Name of the retriever, or "reranker" for a late-interaction reranker.
        term: Term, dimension or word of the query that the word matched. None for a dense retriever, which finds a
            sentence.
    """

    start: int
    end: int
    weight: float
    retriever: str
    term: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert the highlight to a dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A window of a document's text with its highlights.

    `print(snippet)` shows plain text in one line. rich prints the highlights in bold, and a notebook marks them. Words
    are shown as highlights. A sentence of a dense retriever is shown if the window has no such word.

    Attributes:
        text: Text of the window, `document.text[start:end]`.
        start: First character of the window in `Document.text`.
        end: Character after the last character of the window.
        highlights: Highlights in the window, in order. Their spans are those of `Hit.highlights`, in `Document.text`.
            A sentence that is longer than the window is cut to it.
        more_before: Whether the document has text before the window.
        more_after: Whether the document has text after the window.

    >>> snippet = Snippet("Lift grows", 20, 30, (Highlight(20, 24, 1.5, "bm25", "lift"),), more_after=True)
    >>> print(snippet, snippet.marks)
    Lift grows… [(0, 4)]
    """

    text: str
    start: int
    end: int
    highlights: tuple[Highlight, ...] = ()
    more_before: bool = False
    more_after: bool = False

    @property
    def marks(self) -> list[tuple[int, int]]:
        """The spans of `text` that are shown as highlights, in order and apart from each other."""
        words = [one for one in self.highlights if one.term is not None]
        spans = sorted((one.start - self.start, one.end - self.start) for one in words or self.highlights)
        marks: list[tuple[int, int]] = []
        for start, end in spans:
            if marks and start <= marks[-1][1]:
                marks[-1] = (marks[-1][0], max(end, marks[-1][1]))
            else:
                marks.append((start, end))
        return marks

    def to_dict(self) -> dict[str, Any]:
        """Convert the snippet to a dict that JSON can hold."""
        found = {"text": self.text, "start": self.start, "end": self.end}
        return {**found, "highlights": [one.to_dict() for one in self.highlights]}

    def line(self) -> Marked:
        """The snippet as one line with marked parts, for a table. An ellipsis says that there is more text."""
        parts = [("…" if self.more_before else "", False)]
        places = [0, *(place for span in self.marks for place in span), len(self.text)]
        parts += [(self.text[start:end], bool(number % 2)) for number, (start, end) in enumerate(pairwise(places))]
        parts.append(("…" if self.more_after else "", False))
        return Marked.of(parts)

    def __str__(self) -> str:
        return str(self.line())

    def __rich__(self) -> Text:
        return self.line().__rich__()

    def _repr_html_(self) -> str:
        return f"<p>{self.line().to_html()}</p>"


class Found(Protocol):
    """The parts of a `Hit` that `Finder` reads."""

    @property
    def id(self) -> str: ...
    @property
    def document(self) -> Document: ...
    @property
    def retrievers(self) -> Mapping[str, object]: ...
    @property
    def span(self) -> tuple[int, int]: ...


class Finder:
    """Finds the highlights of the hits of one query, and remembers them.

    Args:
        requests: Request to each retriever, by name.
        encoder: Function that returns the encoder of a retriever.
        explain: Function that gives the matched terms of documents.
        matched: Function that gives the words of a document that the reranker matched. None if it does not tell.
        own: Queries as they were before feedback changed them, by the name of a retriever with feedback. Terms that
            feedback added are found only in documents that have no term of these queries.
        query: Text of the query, which late-interaction retrievers read again.
        reading: How late-interaction retrievers read passages, as arguments of their methods.

    Attributes:
        hits: All hits of the query, in order. They are set after the hits are made.
    """

    def __init__(
        self,
        requests: Mapping[str, Request],
        encoder: Callable[[str], Encoder],
        explain: Explained,
        matched: Callable[[str], Sequence[TokenMatch]] | None = None,
        own: Mapping[str, QueryVector] | None = None,
        query: str = "",
        reading: Mapping[str, bool] | None = None,
    ) -> None:
        self._requests, self._encoder, self._explain, self._matched = requests, encoder, explain, matched
        self._own, self._query, self._reading = own or {}, query, reading or {}
        self._known: dict[tuple[str, bool], tuple[Highlight, ...]] = {}
        self.hits: Sequence[Found] = ()

    def of(self, hit: Found, *, models: bool) -> tuple[Highlight, ...]:
        """The highlights of one hit. The highlights of the hits beside it are found in the same calls.

        Args:
            hit: One of `hits`.
            models: Whether neural models may run.
        """
        if (hit.id, models) not in self._known:
            place = next(place for place, one in enumerate(self.hits) if one.id == hit.id)
            first = place // BLOCK * BLOCK
            self.find(self.hits[first : first + BLOCK], models=models)
        return self._known[hit.id, models]

    def find(self, hits: Sequence[Found], *, models: bool) -> None:
        """Find the highlights of several hits, in one call of the backend for each retriever."""
        hits = [hit for hit in hits if (hit.id, models) not in self._known]
        together: dict[str, set[Highlight]] = {hit.id: set() for hit in hits}
        for name, request in self._requests.items():
            of_retriever = [hit for hit in hits if name in hit.retrievers]
            if not of_retriever:
                continue
            query = self._own.get(name, request.query)
            if isinstance(query, np.ndarray) and query.ndim == 2:
                lists = self._similar_words(name, of_retriever) if models else []
            elif isinstance(query, np.ndarray):
                lists = self._sentences(name, query, of_retriever) if models else []
            else:
                lists = self._words(name, request, of_retriever, models=models)
            for hit, found in zip(of_retriever, lists, strict=False):
                together[hit.id].update(found)
        for id, highlights in together.items():
            if models and self._matched is not None:
                highlights.update(self._highlights(RERANKER, self._matched(id)))
            self._known[id, models] = tuple(sorted(highlights, key=_order))

    def _highlights(self, name: str, matches: Sequence[TokenMatch]) -> Iterator[Highlight]:
        """The words that late interaction matched, without the stop words of the BM25 retrievers."""
        common = frozenset[str]().union(*map(self._stop_words, self._requests))
        for one in matches:
            shown = common.isdisjoint((one.query.casefold(), one.document.casefold()))
            if shown and one.start is not None and one.end is not None:
                yield Highlight(one.start, one.end, one.weight, name, one.query)

    def _stop_words(self, name: str) -> frozenset[str]:
        """The words that a BM25 retriever leaves out, so that late interaction does not show them."""
        found: frozenset[str] = getattr(self._encoder(name), "stop_words", frozenset())
        return found

    def _words(self, name: str, request: Request, hits: Sequence[Found], *, models: bool) -> list[list[Highlight]]:
        """The words that give the terms of the query."""
        locate = getattr(self._encoder(name), "locate", None)
        if locate is None:
            return []
        query = request.query
        explained = self._explain(request, [hit.id for hit in hits])
        weights = [_weights(query, explained.get(hit.id, {}), self._own.get(name, query)) for hit in hits]
        spans = [hit.span for hit in hits]
        texts = [hit.document.text[start:end] for hit, (start, end) in zip(hits, spans, strict=True)]
        terms = [{query.text: 1.0}] * len(hits) if isinstance(query, TextQuery) else weights
        located = locate(texts, terms, models=models)
        return [
            [Highlight(first + a, first + b, of_hit.get(term, 1.0), name, term) for a, b, term in places]
            for (first, _), of_hit, places in zip(spans, weights, located, strict=True)
        ]

    def _similar_words(self, name: str, hits: Sequence[Found]) -> list[list[Highlight]]:
        """The words that a retriever of late interaction matched with words of the query."""
        words = getattr(self._encoder(name), "words", None)
        if words is None:
            return []
        whole = [hit.span == (0, len(hit.document.text)) for hit in hits]
        return [
            list(self._highlights(name, words(self._query, hit.document, spans, **self._reading)))
            for hit, of_all in zip(hits, whole, strict=True)
            for spans in [() if of_all else [hit.span]]
        ]

    def _sentences(self, name: str, query: NDArray[np.float32], hits: Sequence[Found]) -> list[list[Highlight]]:
        """The sentence of each hit that is nearest to the query."""
        encoder = self._encoder(name)
        spans = [list(_read_sentences(hit.document.text, *hit.span, encoder)) for hit in hits]
        texts = [hit.document.text[a:b] for hit, of_hit in zip(hits, spans, strict=True) for a, b in of_hit]
        vectors = encoder.encode_documents(texts) if texts else None
        if not isinstance(vectors, DenseVectors) or vectors.array.shape[1] != len(query):
            return []
        scores = similarities_to(query, vectors)
        scores[~vectors.array.any(axis=1)] = -np.inf
        found: list[list[Highlight]] = []
        first = 0
        for of_hit in spans:
            of_sentences = scores[first : first + len(of_hit)]
            first += len(of_hit)
            best = int(of_sentences.argmax()) if len(of_hit) else 0
            known = len(of_hit) and np.isfinite(of_sentences[best])
            found.append([Highlight(*of_hit[best], float(of_sentences[best]), name)] if known else [])
        return found


def make_snippet(text: str, span: tuple[int, int], highlights: Sequence[Highlight], length: int) -> Snippet:
    """Choose the best window of a text: the one whose distinct terms have the largest sum of weights.

    The weights of each retriever are divided by their sum, because retrievers have different scales. Of equal windows
    the first is taken. A window begins with a sentence if it can. It never cuts a character from its marks, and it cuts
    a word only if the word is longer than the window.

    Args:
        text: Text of a document.
        span: Part of the text that the window must be in, such as a passage.
        highlights: Highlights in this part, in order.
        length: Number of characters of the window, at least 1. It may be a little longer.

    Returns:
        The window. Without highlights it is the beginning of the part.

    >>> text = "Heat is lost at the surface. Lift grows with the angle of attack. Then the flow separates."
    >>> lift = Highlight(29, 33, 1.5, "bm25", "lift")
    >>> print(make_snippet(text, (0, len(text)), [lift], 40))
    Heat is lost at the surface. Lift grows…
    """
    length = whole_number("length", length)
    first, last = stripped(text, *span)
    if last - first > length:
        first, last = _window(text, first, last, _best(highlights, length) or (first, first), length)
    inside = [
        Highlight(max(one.start, first), min(one.end, last), one.weight, one.retriever, one.term)
        for one in highlights
        if (one.start >= first and one.end <= last) or (one.term is None and one.start < last and one.end > first)
    ]
    more_before, more_after = bool(text[:first].strip()), bool(text[last:].strip())
    return Snippet(text[first:last], first, last, tuple(inside), more_before, more_after)


def similarities_to(query: NDArray[np.float32], vectors: DenseVectors) -> NDArray[np.float32]:
    """The score of each vector for a query, as a dense retriever computes it."""
    scores: NDArray[np.float32]
    if vectors.metric == "euclidean":
        scores = -np.linalg.norm(vectors.array - query, axis=1).astype(np.float32)
    else:
        scores = vectors.array @ query
    return scores


def _weights(query: QueryVector, explained: Mapping[str, float], own: QueryVector) -> dict[str, float]:
    """The terms to find in a document, with their weights. If nothing is explained, they are those of the query.

    They are terms of `own`, the query before feedback, unless the document has none of them.
    """
    if not isinstance(query, SparseQuery) or not isinstance(own, SparseQuery):
        return {}
    if not explained:
        return dict(zip(own.terms, own.weights.tolist(), strict=True))
    terms = query.terms if explained.keys().isdisjoint(own.terms) else own.terms
    return {term: explained.get(term, 0.0) for term in terms}


def _order(highlight: Highlight) -> tuple[int, int, str, str]:
    return highlight.start, highlight.end, highlight.retriever, highlight.term or ""


def _read_sentences(text: str, start: int, end: int, encoder: Encoder) -> Iterator[tuple[int, int]]:
    """The sentences of a part of a text, as far as a model reads it."""
    most = encoder.max_tokens if isinstance(encoder, Counting) else None
    if most is not None:
        end = min(end, start + 16 * most)  # a longer part has more tokens than the model reads
    part = text[start:end]
    spans = [
        stripped(part, first, after)
        for section in sections(part, headings=False)
        for first, after in pairwise([section.start, *section.ends])
    ]
    spans = [span for span in spans if span[0] < span[1]]
    counts = encoder.count_tokens([part[a:b] for a, b in spans]) if isinstance(encoder, Counting) and most else None
    total = 0
    for number, (first, after) in enumerate(spans):
        if most is not None and total > most:
            return
        total += 0 if counts is None else counts[number]
        yield start + first, start + after


def _best(highlights: Sequence[Highlight], length: int) -> tuple[int, int] | None:
    """First and last character of the best group of highlights that fits into a window."""
    sums: dict[str, float] = defaultdict(float)
    for retriever, _, weight in {(one.retriever, one.term, one.weight) for one in highlights}:
        sums[retriever] += abs(weight)
    counts: dict[tuple[str, str | None], int] = defaultdict(int)
    total = best = first = 0
    found: tuple[int, int] | None = None
    ends = [min(one.end, one.start + length) for one in highlights]

    def value(one: Highlight) -> int:
        return 1 + round(_UNIT * abs(one.weight) / (sums[one.retriever] or 1))

    for number, one in enumerate(highlights):
        key = (one.retriever, one.term)
        counts[key] += 1
        total += value(one) if counts[key] == 1 else 0
        while ends[number] - highlights[first].start > length:
            gone = (highlights[first].retriever, highlights[first].term)
            counts[gone] -= 1
            total -= 0 if counts[gone] else value(highlights[first])
            first += 1
        if total > best:
            best, found = total, (first, number)
    return None if found is None else (highlights[found[0]].start, max(ends[found[0] : found[1] + 1]))


def _window(text: str, first: int, last: int, group: tuple[int, int], length: int) -> tuple[int, int]:
    """A window within [first, last) that has a group of highlights, and about `length` characters."""
    begin, stop = group
    near_end = begin + length > last  # then there is room before the group
    least = max(first, (last if near_end else stop) - length)
    starts = [first] if least == first else []
    starts += [match.end() for match in _SENTENCE_START.finditer(text, max(first, least - _REACH), begin)]
    starts = [place for place in starts if place >= least and last - place >= length // 2]
    if starts:
        start = starts[0] if near_end else starts[-1]
    else:
        wanted = least if near_end else max(least, begin - (length - (stop - begin)) // 3)
        start = _next_cut(text, wanted, begin, first)
    end = last if start + length >= last else _last_cut(text, max(stop, start + 1), start + length, last)
    return stripped(text, start, end)


def _next_cut(text: str, wanted: int, begin: int, first: int) -> int:
    """The first place from `wanted` to `begin` where a window may begin, else the last place before `wanted`."""
    between = next((place for place in range(wanted, begin + 1) if _is_between_words(text, place)), None)
    if between is not None and between - wanted <= _REACH:
        return between
    apart = next((place for place in range(wanted, begin + 1) if is_cuttable(text, place)), None)
    places = range(begin, max(first, begin - _REACH), -1)
    before = next((place for place in places if _is_between_words(text, place)), None)
    if (found := next((place for place in (apart, between, before) if place is not None), None)) is not None:
        return found
    found = max(first, begin - _REACH)
    while found > first and joins(text[found]):
        found -= 1
    return found


def _last_cut(text: str, stop: int, wanted: int, last: int) -> int:
    """The last place from `stop` to `wanted` where a window may end, else the first place after `wanted`."""
    places = range(wanted, max(stop, wanted - _REACH) - 1, -1)
    between = next((place for place in places if _is_between_words(text, place)), None)
    if between is not None:
        return between
    apart = next((place for place in range(wanted, stop - 1, -1) if is_cuttable(text, place)), None)
    places = range(wanted, min(last, wanted + _REACH))
    after = next((place for place in places if _is_between_words(text, place)), None)
    if (found := next((place for place in (apart, after) if place is not None), None)) is not None:
        return found
    found = min(last, wanted + _REACH)
    while found < last and joins(text[found]):
        found += 1
    return found


def _is_between_words(text: str, place: int) -> bool:
    if place == 0 or place == len(text):
        return True
    return (text[place - 1].isspace() or text[place].isspace()) and is_cuttable(text, place)
