"""The results of a search, and how they look in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, overload

from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, HybridSearchError
from hybridsearch.feedback import Expansion
from hybridsearch.fusion.fused import Fused, FusedHit, RetrieverHit
from hybridsearch.messages import number_of, visible
from hybridsearch.rerank import Likeness, TokenMatch
from hybridsearch.selection import Candidate
from hybridsearch.snippets import Finder, Highlight, Snippet, make_snippet
from hybridsearch.tables import Grid, Marked, as_text, import_pandas

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from hybridsearch.context import Context, Tokenizer

Explain: TypeAlias = "Callable[[Sequence[Hit]], list[Explanation]]"
"""Function that explains hits of one query."""

_SHOWN_TEXT = 80
"""Number of characters of a passage that `repr` shows."""

_LENGTH = 200
"""Number of characters of a snippet in a table, if the column is wide enough."""

_SHOWN = 5
"""Number of ids that `repr` of results shows."""


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A passage of a hit that a retriever found.

    Attributes:
        start: First character of the passage in `Document.text`.
        end: Character after the last character of the passage.
        text: Text of the passage, `document.text[start:end]`.
        score: Fused score of the passage. 0 if `retrievers` is empty.
        retrievers: Rank, score and contribution by retriever, for each retriever that lists the passage. A retriever
            lists the 3 best passages of a document. They take the place of the document in the retriever's ranking.
            So the rank counts the documents that score higher, and the better passages of this document. Only documents
            that were read count. A search by one retriever with RRF reads as many as it shows. Empty if only retrievers
            of whole documents have the document among their candidates. Its passages are then those that the first
            retriever of passages finds best.
        pages: First and last page or slide, from 1, if the document was read from a PDF or PPTX file. None if the text
            has no pages.
    """

    start: int
    end: int
    text: str
    score: float
    retrievers: Mapping[str, RetrieverHit]
    pages: tuple[int, int] | None = None

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= _SHOWN_TEXT else f"{self.text[:_SHOWN_TEXT]}..."
        return f"PassageHit({self.start}, {self.end}, {text!r}, score={self.score:.6g})"

    def to_dict(self) -> dict[str, Any]:
        """Convert the passage to a dict that JSON can hold."""
        of_passage = {"start": self.start, "end": self.end, "text": self.text, "score": self.score}
        pages = {} if self.pages is None else {"pages": list(self.pages)}
        return {**of_passage, **pages, "retrievers": _retrievers_to_dict(self.retrievers)}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of the place of one document in the results of one query.

    `print(explanation)` shows it as text.

    Attributes:
        query: Text of the query.
        id: Id of the document.
        retrievers: Rank, score and contribution by retriever, for each retriever that has the document in its ranking.
        terms: Matched terms by retriever, for lexical and sparse retrievers. Each number is the part of the retriever's
            score that the term added. The largest comes first. If the retriever reads passages, they are the terms of
            the passage that it ranks best.
        fusion: Fusion that merged the rankings, as text.
        fused_rank: Rank by fused score, from 1. None if no retriever has the document in its ranking.
        fused_score: Score after fusion. None if no retriever has the document in its ranking.
        reranker_score: Score that the reranker gave. None if the document was not reranked.
        rank: Final rank, from 1. None if no retriever has the document in its ranking, or if a least score or a better
            document of its group leaves it out.
        blend: Weight of the fused score in the score after reranking. 0 if the reranker's score decides alone.
        matches: Token of the document that is most similar to each token of the query, for a late-interaction reranker.
            Empty without one, and if the document was not reranked.
        token_matches: The same by retriever, for late-interaction retrievers that have the document in their ranking.
            If the retriever reads passages, the tokens are of the passage that it ranks best.
        passages: Passages of the document that were found, best first. Empty for an index without passages.
        boosts: Factor that each boost gave the score, by the boost's name.
        min_score: Least score of a hit, or of a retriever by its name, that the search asked for. None without one.
        likeness: Most similar hit that MMR put before this hit. None without MMR.
        group: Value of the field that groups the hits. None without groups.
        grouped: Ids of the other documents of the group among the candidates, best first.
        notes: Sentences about retrievers that did not answer. If no retriever has the document in its ranking, there
            are also sentences about the query, for example that each word of it is a stop word.
        feedback: What feedback did to the query, by retriever: the documents that it read, and the terms that it
            added. Empty for a search without feedback.
    """

    query: str
    id: str
    retrievers: Mapping[str, RetrieverHit]
    terms: Mapping[str, Mapping[str, float]]
    fusion: str
    fused_rank: int | None
    fused_score: float | None
    reranker_score: float | None
    rank: int | None
    passages: Sequence[PassageHit] = ()
    boosts: Mapping[str, float] = field(default_factory=dict)
    min_score: float | Mapping[str, float] | None = None
    likeness: Likeness | None = None
    group: Any = None
    grouped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    blend: float = 0.0
    matches: tuple[TokenMatch, ...] = ()
    token_matches: Mapping[str, tuple[TokenMatch, ...]] = field(default_factory=dict)
    feedback: Mapping[str, Expansion] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert the explanation to a dict that JSON can hold."""
        of_retrievers = {name: [asdict(one) for one in found] for name, found in self.token_matches.items() if found}
        return {
            "query": self.query,
            "id": self.id,
            "rank": self.rank,
            "fused_rank": self.fused_rank,
            "fused_score": self.fused_score,
            "reranker_score": self.reranker_score,
            "fusion": self.fusion,
            "retrievers": _retrievers_to_dict(self.retrievers),
            "terms": {name: dict(terms) for name, terms in self.terms.items()},
            **_passages_to_dict(self.passages),
            **_selected_to_dict(self),
            **_limits_to_dict(self.min_score),
            **({"blend": self.blend} if self.blend else {}),
            **({"matches": [asdict(one) for one in self.matches]} if self.matches else {}),
            **({"token_matches": of_retrievers} if of_retrievers else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"feedback": {name: one.to_dict() for name, one in self.feedback.items()}} if self.feedback else {}),
        }

    def __str__(self) -> str:
        return "\n".join(map(visible, self._lines()))

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _lines(self) -> Iterator[str]:
        if self.fused_rank is None:
            yield f"{self.id}: no retriever has it among its candidates for {self.query!r}"
        elif self.rank is None:
            yield f"{self.id}: left out by a least score, or by a better document of its group"
        elif self.reranker_score is not None:
            blended = f", blended with {self.blend:g} of the fused score" if self.blend else ""
            yield f"{self.id}: rank {self.rank} by reranker score {self.reranker_score:.4f}{blended}"
            yield f"  rank {self.fused_rank} before reranking"
        else:
            yield f"{self.id}: rank {self.rank}"
        if self.fused_score is not None:
            yield f"  fused score {self.fused_score:.6g} = {self.fusion}"
        for boost, factor in self.boosts.items():
            yield f"  times {factor:.4g} by {boost}"
        limits = self.min_score if isinstance(self.min_score, Mapping) else {}
        if self.min_score is not None and not limits:
            yield f"  not below the min_score {self.min_score:g}"
        if self.likeness is not None:
            yield f"  similarity {self.likeness.similarity:.3f} to {self.likeness.to}, which MMR put before it"
        if self.group is not None:
            yield f"  best of the group {self.group!r}, with {number_of(len(self.grouped), 'other candidate')}"
        if self.passages:
            best = self.passages[0]
            pages = "" if best.pages is None else f" ({_pages(best.pages)})"
            score = f", fused score {best.score:.6g}" if best.retrievers else ""
            yield f"  best passage: characters {best.start:,} to {best.end:,}{pages}{score}"
        for name in dict.fromkeys([*self.retrievers, *self.terms]):
            place = "not listed"
            if hit := self.retrievers.get(name):
                least = f" (min_score {limits[name]:g})" if name in limits else ""
                place = f"rank {hit.rank}, score {hit.score:.4f}{least}, adds {hit.contribution:.6g}"
            yield f"  {name}: {place}"
            if terms := self.terms.get(name):
                yield "    " + ", ".join(f"{term} {weight:.3f}" for term, weight in terms.items())
            if found := self.token_matches.get(name):
                yield f"    {_pairs_of_words(found)}"
            if expansion := self.feedback.get(name):
                yield from (f"    {line}" for line in expansion.lines())
        if self.matches:
            yield f"  reranker: {_pairs_of_words(self.matches)}"
        yield from (f"  Note: {note}" for note in self.notes)


def _pairs_of_words(matches: Sequence[TokenMatch]) -> str:
    """The sum of the weights of each pair of words, which have several tokens, as text."""
    sums: dict[tuple[str, str], float] = {}
    for one in matches:
        sums[one.query, one.document] = sums.get((one.query, one.document), 0.0) + one.weight
    return ", ".join(f"{ours} ~ {theirs} {weight:.3f}" for (ours, theirs), weight in sums.items())


class _Origin:  # is no dataclass, because asdict would copy its parts
    """The search that found a hit. It explains the hit and finds its highlights."""

    __slots__ = ("explain", "finder")

    def __init__(self, explain: Explain, finder: Finder) -> None:
        self.explain, self.finder = explain, finder

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise BackendError(
            "A hit is tied to its index, so dataclasses.asdict and pandas.DataFrame cannot take it apart: use "
            "hit.to_dict(), results.to_dict() or results.to_pandas()."
        )


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, with its rank and scores.

    Attributes:
        id: Id of the document.
        rank: Rank in the results, from 1.
        score: Score of the reranker if the document was reranked, blended with the fused score if the reranker has a
            `blend`. Else the fused score. Boosts are included.
        document: The document.
        retrievers: Rank, score and contribution by retriever, for each retriever that has the document in its ranking.
        fused_score: Score after fusion, before reranking.
        rank_before_reranking: Rank by fused score after boosts, from 1. Without reranking, groups, MMR and a least
            score it equals `rank`.
        reranker_score: Score that the reranker gave. None if the document was not reranked.
        passages: Passages of the document that were found, best first by their fused scores, and equal scores by
            `start`. Empty for an index without passages, and if all retrievers that are asked read whole documents.
        boosts: Factor that each boost gave the score, by the boost's name.
        likeness: Most similar hit that MMR put before this hit, with the similarity. None without MMR.
        group: Value of the field that groups the hits. None without groups.
        grouped: Ids of the other documents of the group among the candidates, best first.
    """

    id: str
    rank: int
    score: float
    document: Document
    retrievers: Mapping[str, RetrieverHit]
    fused_score: float
    rank_before_reranking: int
    reranker_score: float | None = None
    passages: Sequence[PassageHit] = field(default=(), repr=False, compare=False)
    boosts: Mapping[str, float] = field(default_factory=dict, repr=False)
    likeness: Likeness | None = field(default=None, repr=False)
    group: Any = field(default=None, repr=False)
    grouped: tuple[str, ...] = field(default=(), repr=False)
    _origin: _Origin | None = field(default=None, repr=False, compare=False)

    @property
    def passage(self) -> PassageHit | None:
        """The best passage. None if `passages` is empty."""
        return self.passages[0] if self.passages else None

    @property
    def span(self) -> tuple[int, int]:
        """Start and end of the best passage in `document.text`. They are those of the whole text without passages."""
        return _span(self.document, self.passages)

    def explain(self) -> Explanation:
        """Explain why the document has its rank, with the matched terms of lexical and sparse retrievers.

        The terms are looked up in the index as it is now. Call `explain` before you change the index.

        Returns:
            Ranks, scores and contributions of the document, and its matched terms.

        Raises:
            BackendError: The hit was copied or unpickled, so it does not know its index.
            FingerprintMismatchError: The index was replaced by one with other encoders.
        """
        return _explained([self])[0]

    @property
    def highlights(self) -> tuple[Highlight, ...]:
        """Spans of `document.text` that the retrievers found, in order.

        For BM25 they are the words whose terms matched. For a sparse model they are also the words that give a
        dimension of the query its largest weight. For a dense model they are the sentence that is nearest to the query.
        For a late-interaction reranker they are the words that match words of the query, except stop words of BM25.
        Words that feedback added are found only in a document that has none of the query's own. All spans are in the
        best passage if the index has passages, and those of a reranker in the passages that it read. Models read the
        texts of up to 10 hits when the highlights of one of them are first read.

        Raises:
            BackendError: The hit was copied or unpickled, so it does not know its index.
        """
        return self._highlights(models=True)

    def snippet(self, length: int = 200, *, models: bool = True) -> Snippet:
        """Choose the window of the text in which the terms of the query add most to the score.

        The window is in the best passage if the index has passages. Without highlights it is the beginning.

        Args:
            length: Number of characters of the window. It may be a little longer, so that no word is cut.
            models: Whether the models of sparse and dense retrievers read the texts to find highlights. If not, the
                call takes less than a millisecond for a hit, and a dense retriever has no highlights.

        Returns:
            The window with its highlights.

        Raises:
            BackendError: The hit was copied or unpickled, so it does not know its index.

        >>> import hybridsearch as hs
        >>> search = hs.HybridSearch({"bm25": hs.BM25()})
        >>> text = "Heat is lost at the surface. Lift grows with the angle of attack. Then the flow separates."
        >>> report = search.index([{"id": "a", "text": text}], show_progress_bar=False)
        >>> snippet = search.search("angles of attack")[0].snippet(length=40)
        >>> print(snippet)
        …Lift grows with the angle of attack.…
        >>> [text[one.start : one.end] for one in snippet.highlights]
        ['angle', 'attack']
        """
        return make_snippet(self.document.text, self.span, self._highlights(models=models), length)

    def _highlights(self, *, models: bool) -> tuple[Highlight, ...]:
        if self._origin is None:
            raise BackendError("This hit has lost its index (it was copied or pickled): search again.")
        return self._origin.finder.of(self, models=models)

    def _repr_html_(self) -> str:
        return Results("", (self,), tuple(self.retrievers))._repr_html_()

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        return partial(Hit, **kept | {"passages": tuple(self.passages), "_origin": None}), ()

    def to_dict(self) -> dict[str, Any]:
        """Convert the hit to a dict that JSON can hold."""
        return {
            "id": self.id,
            "rank": self.rank,
            "score": self.score,
            "fused_score": self.fused_score,
            "rank_before_reranking": self.rank_before_reranking,
            "reranker_score": self.reranker_score,
            "retrievers": _retrievers_to_dict(self.retrievers),
            "document": self.document.to_dict(),
            **_passages_to_dict(self.passages),
            **_selected_to_dict(self),
        }


@dataclass(frozen=True, slots=True)
class Results(Sequence[Hit]):
    """Hits of one query as a sequence, best first.

    `print(results)` and a notebook show them as a table.

    Attributes:
        query: Text of the query.
        hits: The hits, best first.
        retrievers: Names of the retrievers that answered.
        failures: Reason by name, for each optional retriever that failed or was too slow.
        notes: Sentences for people who read the results. Some are about a retriever: it is missing, it read only a part
            of the query, it found no term in it, or it searched for synonyms. Others say that no document has a field
            of the filter or matches it, that the index is empty, that nothing reaches `min_score`, or that a boost or a
            group had no effect.
        timings: Seconds of each stage (`"encode NAME"`, `"feedback"`, `"search"`, `"fuse"`, `"fetch"`, `"rerank"`) for
            the whole call. `"feedback"` is the first pass. If retrievers work side by side, `"search"` includes it, and
            leaves out the longest `"encode NAME"`.
    """

    query: str
    hits: tuple[Hit, ...]
    retrievers: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def degraded(self) -> list[str]:
        """Names of the optional retrievers that failed or were too slow. The list is empty if all answered."""
        return list(self.failures)

    @property
    def ids(self) -> list[str]:
        """Document ids of the hits, best first."""
        return [hit.id for hit in self.hits]

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def explain(self) -> list[Explanation]:
        """Explain each hit, as `Hit.explain` does, with one request to OpenSearch or Elasticsearch for all hits.

        Other engines get one request for each retriever.

        Returns:
            One explanation for each hit, in the order of the hits.

        Raises:
            BackendError: The results were copied or unpickled, so they do not know their index.
        """
        return _explained(self.hits)

    def context(
        self,
        max_tokens: int | None = 2000,
        *,
        tokenizer: Tokenizer | None = None,
        per_document: int = 4,
        url: str | None = None,
    ) -> Context:
        """Put the best passages into a text for the prompt of a language model, numbered so that it can cite them.

        The hits come in the order of their ranks. The best passages of each hit are taken, as many as fit, and shown in
        the order of the text. Passages that touch become one source. A passage is left out if another one has the same
        title, headings and text. If a document has no passages, its text is taken from the beginning. If it does not
        fit, it is cut after a sentence. `Context.notes` tells what was left out or cut.

        Args:
            max_tokens: Largest number of tokens of the whole text, with tags and titles. None for no limit.
            tokenizer: Function that counts the tokens of a text, or an object with the method `encode`, such as a
                tokenizer of tiktoken or transformers. None estimates the number, rather too high
                (`hybridsearch.context.estimated_tokens`).
            per_document: Largest number of passages of one document.
            url: Name of the metadata field that holds the address of a document. None takes the field `url` or
                `source`, or the id if it is a URL.

        Returns:
            The text, and its sources by number. It is empty if there are no hits.

        Raises:
            InvalidArgumentError: An argument is not allowed.

        >>> import hybridsearch as hs
        >>> search = hs.HybridSearch({"bm25": hs.BM25()})
        >>> report = search.index([{"id": "a", "text": "Charge it indoors.", "url": "https://example.org/a"}])
        >>> (source,) = search.search("charge").context(max_tokens=500).sources
        >>> source.number, source.id, source.start, source.end, source.url
        (1, 'a', 0, 18, 'https://example.org/a')
        """
        from hybridsearch.context import make_context

        return make_context(self.hits, max_tokens, tokenizer, per_document, url)

    def to_dict(self) -> dict[str, Any]:
        """Convert the results to a dict that JSON can hold."""
        return {
            "query": self.query,
            "degraded": self.degraded,
            "failures": dict(self.failures),
            "notes": list(self.notes),
            "timings": dict(self.timings),
            "hits": [hit.to_dict() for hit in self.hits],
        }

    def to_pandas(self) -> pd.DataFrame:
        """Convert the results to a DataFrame with one row for each hit, best first.

        The columns are:

        - `rank`, `score`, `id`, `title` and `text`,
        - `NAME.rank` and `NAME.score` for each retriever,
        - `reranker_score` if documents were reranked,
        - `metadata.FIELD` for each field of metadata.

        A missing value is NaN or None.

        Raises:
            MissingExtraError: pandas is not installed.

        >>> import hybridsearch as hs
        >>> search = hs.HybridSearch({"bm25": hs.BM25()})
        >>> report = search.index([{"id": "a", "text": "a wing", "year": 1958}], show_progress_bar=False)
        >>> search.search("wing").to_pandas()[["rank", "id", "bm25.rank", "metadata.year"]].to_dict("records")
        [{'rank': 1, 'id': 'a', 'bm25.rank': 1, 'metadata.year': 1958}]
        """
        columns: dict[str, list[Any]] = {
            "rank": [hit.rank for hit in self.hits],
            "score": [hit.score for hit in self.hits],
            "id": self.ids,
            "title": [hit.document.title for hit in self.hits],
            "text": [hit.document.text for hit in self.hits],
        }
        for name in self.retrievers:
            places = [hit.retrievers.get(name) for hit in self.hits]
            columns[f"{name}.rank"] = [None if place is None else place.rank for place in places]
            columns[f"{name}.score"] = [None if place is None else place.score for place in places]
        if any(hit.reranker_score is not None for hit in self.hits):
            columns["reranker_score"] = [hit.reranker_score for hit in self.hits]
        for field_name in dict.fromkeys(name for hit in self.hits for name in hit.document.metadata):
            columns[f"metadata.{field_name}"] = [hit.document.metadata.get(field_name) for hit in self.hits]
        pandas = import_pandas()
        frame = pandas.DataFrame(columns)
        if not self.hits:  # then pandas does not know the types
            texts = pandas.Series([""]).dtype
            types = {"rank": "int64", "score": "float64", "id": texts, "title": texts, "text": texts}
            frame = frame.astype({name: types[name.rpartition(".")[2]] for name in columns})
        return frame

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self.ids[:_SHOWN])) + (", ..." if len(self) > _SHOWN else "")
        return f"Results({self.query!r:.200}, {number_of(len(self), 'hit')}{': ' if first else ''}{first})"

    def __str__(self) -> str:
        return as_text(self, 100)

    def __rich__(self) -> RenderableType:
        return self._grid()

    def _repr_html_(self) -> str:
        return self._grid().to_html()

    def _grid(self) -> Grid:
        alone = len(self.retrievers) == 1  # then the retriever's score says more than the fused score
        names = self._columns()
        rows: list[list[list[str]]] = []
        found = found_words(self.hits)
        for hit in self.hits:
            own = next(iter(hit.retrievers.values())).score if alone and hit.reranker_score is None else hit.score
            cells = [f"{hit.rank}", f"{own:.4f}", *(_rank_of(hit, name) for name in names)]
            rows.append([*([cell] for cell in (*cells, hit.id)), _summary(hit, found)])
        if not rows:
            rows = [[[""] for _ in range(len(names) + 3)] + [["no hits"]]]
        columns, last = ["rank", "score", *names, "id", "document"], len(names) + 3
        notes = [f"Note: {note}" for note in self.notes]
        return Grid(self.query, columns, rows, notes, texts=(last - 1, last), wide=last, cut=True)

    def _columns(self) -> list[str]:
        """The names of the rank columns: one for each retriever, and "fused" for the rank before reranking."""
        reranked = any(hit.reranker_score is not None for hit in self.hits)
        return [*self.retrievers, "fused"] if reranked else list(self.retrievers)


def make_hits(
    candidates: Sequence[Candidate],
    offset: int,
    fused: Fused,
    top: Sequence[FusedHit],
    explain: Explain,
    passages: Callable[[str], Sequence[PassageHit]],
    finder: Finder,
) -> tuple[Hit, ...]:
    """The hits of candidates in final order, the first with the rank `offset` + 1. `passages` are by document id."""
    keys = {hit.id: hit.key for hit in top}
    shown = [
        _Shown(id, one.document, fused.parts(keys[id]), passages(id)) for one in candidates for id in [one.document.id]
    ]
    finder.hits, origin = shown, _Origin(explain, finder)
    return tuple(
        [
            Hit(  # without names, because they take a fifth of the time
                of_hit.id,
                rank,
                one.score,
                of_hit.document,
                of_hit.retrievers,
                one.fused_score,
                one.rank,
                one.reranker_score,
                of_hit.passages,
                one.boosts,
                one.likeness,
                one.group,
                one.grouped,
                origin,
            )
            for rank, (one, of_hit) in enumerate(zip(candidates, shown, strict=True), offset + 1)
        ]
    )


class _Shown(NamedTuple):
    """The parts of a hit that its `Finder` reads. They do not refer to the hit, so results are freed at once."""

    id: str
    document: Document
    retrievers: Mapping[str, RetrieverHit]
    passages: Sequence[PassageHit]

    @property
    def span(self) -> tuple[int, int]:
        return _span(self.document, self.passages)


def _span(document: Document, passages: Sequence[PassageHit]) -> tuple[int, int]:
    """The best passage in the text of a document. It is the whole text if there are no passages."""
    return (passages[0].start, passages[0].end) if passages else (0, len(document.text))


def _explained(hits: Sequence[Hit]) -> list[Explanation]:
    """Explanations of hits of one search."""
    if not hits:
        return []
    origin = hits[0]._origin
    if origin is None:
        raise BackendError("This hit has lost its index (it was copied or pickled): use search.explain(query, id).")
    return origin.explain(hits)


def _rank_of(hit: Hit, name: str) -> str:
    if name in hit.retrievers:
        return str(hit.retrievers[name].rank)
    return str(hit.rank_before_reranking) if name == "fused" else "-"


def found_words(hits: Sequence[Hit]) -> dict[str, tuple[Highlight, ...]]:
    """The highlights of hits for a table, without models. There are none if the index is not known or is closed."""
    origin = hits[0]._origin if hits else None
    if origin is None:
        return {}
    finder = origin.finder
    try:
        finder.find(hits, models=False)
        return {hit.id: finder.of(hit, models=False) for hit in hits}
    except HybridSearchError:  # for example because the index was closed: the table needs no highlights
        return {}


def _summary(hit: Hit, found: Mapping[str, tuple[Highlight, ...]]) -> list[str]:
    """Title, pages of the best passage and snippet, as the lines of a cell."""

    def line(width: int) -> Marked:
        length = max(width - 2, 1)  # without the ellipses
        return make_snippet(hit.document.text, hit.span, found.get(hit.id, ()), length).line()

    shown = line(_LENGTH)
    shown.fit = line
    pages = None if hit.passage is None else hit.passage.pages
    head = ", ".join([part for part in (hit.document.title, pages and _pages(pages)) if part])
    return [head, shown] if head and shown else [head or shown]


def _pages(pages: tuple[int, int]) -> str:
    first, last = pages
    return f"page {first}" if first == last else f"pages {first} to {last}"


def _passages_to_dict(passages: Sequence[PassageHit]) -> dict[str, Any]:
    return {"passages": [passage.to_dict() for passage in passages]} if passages else {}


def _selected_to_dict(hit: Hit | Explanation) -> dict[str, Any]:
    """What the selection did to a hit. Steps that were not asked for are left out."""
    found: dict[str, Any] = {"boosts": dict(hit.boosts)} if hit.boosts else {}
    if hit.likeness is not None:
        found["likeness"] = asdict(hit.likeness)
    if hit.group is not None:
        found |= {"group": hit.group, "grouped": list(hit.grouped)}
    return found


def _limits_to_dict(min_score: float | Mapping[str, float] | None) -> dict[str, Any]:
    return {} if min_score is None else {"min_score": dict(min_score) if isinstance(min_score, Mapping) else min_score}


def _retrievers_to_dict(retrievers: Mapping[str, RetrieverHit]) -> dict[str, dict[str, float]]:
    return {
        name: {"rank": hit.rank, "score": hit.score, "contribution": hit.contribution}
        for name, hit in retrievers.items()
    }
