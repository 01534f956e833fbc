"""The passages of the documents that a query found, merged from what the retrievers list."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import overload

from hybridsearch.documents import Document
from hybridsearch.fusion import Fusion
from hybridsearch.fusion.fused import RetrieverHit
from hybridsearch.hits import PassageHit
from hybridsearch.passages import with_passages
from hybridsearch.ranking import EMPTY, Ranking, round_score
from hybridsearch.readers.pages import pages_of


class FoundPassages:
    """The passages that the retrievers list for one query, merged by the fusion.

    Each retriever lists the best passages of a document. They take the place of the document in the retriever's
    ranking, and the fusion merges these rankings. So the ranks and the scores of passages do not depend on which
    documents are shown. A document may be replaced while the retrievers answer. If a retriever read another text of the
    document, the passages that it lists are left out.

    Args:
        fusion: Method that merges the rankings.
        rankings: Rankings of the query by retriever name.
        documents: Documents by id.
        others: Passages of documents that no retriever of passages has among its candidates. They get no ranks.
        headings: Whether the passages have headings, as `Passages.headings`.
    """

    def __init__(
        self,
        fusion: Fusion,
        rankings: Mapping[str, Ranking],
        documents: Mapping[str, Document],
        others: Ranking = EMPTY,
        headings: bool = True,
    ) -> None:
        self._fusion, self._documents, self._others, self._headings = fusion, documents, others, headings
        self._rankings = {name: ranking for name, ranking in rankings.items() if fusion.weight(name) > 0}
        self._any = any(ranking.passages is not None for ranking in (*self._rankings.values(), others))
        self._made: dict[str, tuple[PassageHit, ...]] = {}

    def lazily(self, id: str) -> Sequence[PassageHit]:
        """The passages of one document, best first. They are merged when they are first used."""
        return _LazyPassages(partial(self.of, id)) if self._any else ()

    def of(self, id: str) -> tuple[PassageHit, ...]:
        """The passages of one document, best first."""
        if id not in self._made:
            self._made[id] = self._merged(id)
        return self._made[id]

    def read(self, id: str, passages: int = 1) -> Document:
        """The document as a reranker reads it: its best passages in the order of the text, with their headings."""
        document, spans = self._documents[id], self.spans(id, passages)
        return with_passages(document, spans, headings=self._headings) if spans else document

    def spans(self, id: str, passages: int = 1) -> list[tuple[int, int]]:
        """The spans of the document's best passages, which `read` reads. Empty if it reads the whole document."""
        return [(one.start, one.end) for one in self.of(id)[:passages]] if self._any else []

    def best_span(self, id: str) -> tuple[int, int] | None:
        """The span of the document's best passage. None if no passage was found."""
        best = self.of(id)[:1] if self._any else ()
        return (best[0].start, best[0].end) if best else None

    def _merged(self, id: str) -> tuple[PassageHit, ...]:
        document = self._documents[id]
        listed = {name: self._listed(ranking, document) for name, ranking in self._rankings.items()}
        if not any(listed.values()):
            spans = map(_span, self._listed(self._others, document))
            return tuple(_passage(document, start, end, 0.0, {}) for start, end in spans)
        rankings = {
            name: Ranking.from_scores({other: score for other, score in ranking if other != id} | listed[name])
            if listed[name]
            else ranking
            for name, ranking in self._rankings.items()
        }
        found: dict[str, dict[str, RetrieverHit]] = {}
        for name, contributions in self._fusion.contributions(rankings).items():
            places = {key: place for place, key in enumerate(rankings[name].ids)} if listed[name] else {}
            for key, score in listed[name].items():
                place = places[key]
                found.setdefault(key, {})[name] = RetrieverHit(place + 1, score, float(contributions[place]))
        hits = [
            _passage(document, *_span(key), round_score(math.fsum(one.contribution for one in of.values())), of)
            for key, of in sorted(found.items())
        ]
        return tuple(sorted(hits, key=lambda hit: -hit.score))

    @staticmethod
    def _listed(ranking: Ranking, document: Document) -> dict[str, float]:
        """The scores of the passages that a ranking lists for its document. Empty if they are of another text."""
        passages = (ranking.passages or {}).get(document.id, ()) if document.id in ranking.ids else ()
        sent = (ranking.documents or {}).get(document.id)
        same = all(one.end <= len(document.text) for one in passages) if sent is None else sent.text == document.text
        return {_key(document.id, one.start, one.end): one.score for one in passages} if same else {}


class _LazyPassages(Sequence[PassageHit]):
    """The passages of one hit, which are made when they are first used.

    Args:
        make: Function that makes the passages.
    """

    def __init__(self, make: Callable[[], Sequence[PassageHit]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Sequence[PassageHit]:
        return self._make()

    @overload
    def __getitem__(self, index: int) -> PassageHit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PassageHit]: ...
    def __getitem__(self, index: int | slice) -> PassageHit | Sequence[PassageHit]:
        return self._made[index]

    def __len__(self) -> int:
        return len(self._made)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._made)


def _passage(
    document: Document, start: int, end: int, score: float, retrievers: Mapping[str, RetrieverHit]
) -> PassageHit:
    return PassageHit(start, end, document.text[start:end], score, retrievers, pages_of(document, start, end))


def _key(id: str, start: int, end: int) -> str:
    """A passage as an id that sorts by the document's id and then by `start`."""
    return f"{id}\0{start:010}\0{end:010}"


def _span(key: str) -> tuple[int, int]:
    _, start, end = key.rsplit("\0", 2)
    return int(start), int(end)
