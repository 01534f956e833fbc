"""The results of a search, and how they look in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from hybridsearch.documents import Document
from hybridsearch.errors import BackendError
from hybridsearch.messages import number_of
from hybridsearch.ranking import Ranking, round_score
from hybridsearch.tables import Grid, as_text, import_pandas

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

Explain: TypeAlias = "Callable[[Sequence[Hit]], list[Explanation]]"
"""Function that explains hits of one query."""

_SHOWN = 5
"""Number of ids that `repr` of results shows."""


@dataclass(frozen=True, slots=True)
class RetrieverHit:
    """Rank and score that one retriever gave a document.

    Attributes:
        rank: Rank of the document in the retriever's ranking, from 1.
        score: Score that the retriever gave. The scores of different retrievers have different scales.
        contribution: Number that the retriever added to the fused score.
    """

    rank: int
    score: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of the place of one document in the results of one query.

    `print(explanation)` shows it as text.

    Attributes:
        query: Text of the query.
        id: Id of the document.
        retrievers: Rank, score and contribution by retriever, for each retriever that has the document in its ranking.
        terms: Matched terms by retriever, for lexical and sparse retrievers. Each number is the part of the retriever's
            score that the term added. The largest comes first.
        fusion: Fusion that merged the rankings, as text.
        fused_rank: Rank by fused score, from 1. None if no retriever has the document in its ranking.
        fused_score: Score after fusion. None if no retriever has the document in its ranking.
        reranker_score: Score that the reranker gave. None if the document was not reranked.
        rank: Final rank, from 1. None if no retriever has the document in its ranking.
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

    def to_dict(self) -> dict[str, Any]:
        """Convert the explanation to a dict that JSON can hold."""
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
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _lines(self) -> Iterator[str]:
        if self.fused_rank is None:
            yield f"{self.id}: no retriever has it among its candidates for {self.query!r}"
        elif self.reranker_score is not None:
            yield f"{self.id}: rank {self.rank} by reranker score {self.reranker_score:.4f}"
            yield f"  rank {self.fused_rank} before reranking"
        else:
            yield f"{self.id}: rank {self.rank}"
        if self.fused_score is not None:
            yield f"  fused score {self.fused_score:.6g} = {self.fusion}"
        for name in dict.fromkeys([*self.retrievers, *self.terms]):
            place = "not listed"
            if hit := self.retrievers.get(name):
                place = f"rank {hit.rank}, score {hit.score:.4f}, adds {hit.contribution:.6g}"
            yield f"  {name}: {place}"
            if terms := self.terms.get(name):
                yield "    " + ", ".join(f"{term} {weight:.3f}" for term, weight in terms.items())


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, with its rank and scores.

    Attributes:
        id: Id of the document.
        rank: Rank in the results, from 1.
        score: Score of the reranker if the document was reranked, else the fused score.
        document: The document.
        retrievers: Rank, score and contribution by retriever, for each retriever that has the document in its ranking.
        fused_score: Score after fusion, before reranking.
        rank_before_reranking: Rank by fused score, from 1. Without reranking it equals `rank`.
        reranker_score: Score that the reranker gave. None if the document was not reranked.
    """

    id: str
    rank: int
    score: float
    document: Document
    retrievers: Mapping[str, RetrieverHit]
    fused_score: float
    rank_before_reranking: int
    reranker_score: float | None = None
    _explain: Explain | None = field(default=None, repr=False, compare=False)

    def explain(self) -> Explanation:
        """Explain why the document has its rank, with the matched terms of lexical and sparse retrievers.

        The terms are looked up in the index as it is now. Call `explain` before you change the index.

        Returns:
            Ranks, scores and contributions of the document, and its matched terms.

        Raises:
            BackendError: The hit was copied or unpickled, so it does not know its index.
        """
        return _explained([self])[0]

    def _repr_html_(self) -> str:
        return Results("", (self,), tuple(self.retrievers))._repr_html_()

    def __reduce__(self) -> tuple[Any, ...]:
        kept = (self.id, self.rank, self.score, self.document, self.retrievers, self.fused_score)
        return Hit, (*kept, self.rank_before_reranking, self.reranker_score)  # the index stays behind

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
        notes: Sentences for people who read the results. A note says that a retriever is missing, that a retriever read
            only a part of the query or found no term in it, or that no document has a field of the filter.
        timings: Seconds of each stage (`"encode NAME"`, `"search"`, `"fuse"`, `"fetch"`, `"rerank"`) for the whole
            call. If retrievers work side by side, `"search"` leaves out the longest `"encode NAME"`.
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
        """Explain each hit, as `Hit.explain` does, with one request to the engine for each retriever.

        Returns:
            One explanation for each hit, in the order of the hits.

        Raises:
            BackendError: The results were copied or unpickled, so they do not know their index.
        """
        return _explained(self.hits)

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
        rows = []
        for hit in self.hits:
            own = next(iter(hit.retrievers.values())).score if alone and hit.reranker_score is None else hit.score
            cells = [f"{hit.rank}", f"{own:.4f}", *(_rank_of(hit, name) for name in names)]
            rows.append([[cell] for cell in (*cells, hit.id, _summary(hit.document))])
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
    fused: Ranking,
    contributions: Mapping[str, Mapping[str, float]],
    rankings: Mapping[str, Ranking],
    documents: Mapping[str, Document],
    reranked: NDArray[np.float64],
    top_k: int | None,
    explain: Explain,
) -> tuple[Hit, ...]:
    """The hits in final order.

    Reranked documents come first, by reranker score and then by fused rank. The others follow by fused rank.
    """
    candidates = [(rank, id, score) for rank, (id, score) in enumerate(fused, 1) if id in documents]
    scores: list[float | None] = [round_score(score) for score in reranked.tolist()]
    head = sorted(zip(candidates, scores, strict=False), key=lambda pair: (-(pair[1] or 0.0), pair[0][0]))
    order = head + [(candidate, None) for candidate in candidates[len(head) :]]
    places = {
        name: {id: (rank, score) for rank, (id, score) in enumerate(ranking, 1)} for name, ranking in rankings.items()
    }
    hits = []
    for rank, ((fused_rank, id, fused_score), reranker_score) in enumerate(order[:top_k], 1):
        retrievers = {
            name: RetrieverHit(*places[name][id], contribution=of_retriever[id])
            for name, of_retriever in contributions.items()
            if id in of_retriever
        }
        score = fused_score if reranker_score is None else reranker_score
        hits.append(Hit(id, rank, score, documents[id], retrievers, fused_score, fused_rank, reranker_score, explain))
    return tuple(hits)


def _explained(hits: Sequence[Hit]) -> list[Explanation]:
    """Explanations of hits of one search."""
    if not hits:
        return []
    explain = hits[0]._explain
    if explain is None:
        raise BackendError("This hit has lost its index (it was copied or pickled): use search.explain(query, id).")
    return explain(hits)


def _rank_of(hit: Hit, name: str) -> str:
    if name in hit.retrievers:
        return str(hit.retrievers[name].rank)
    return str(hit.rank_before_reranking) if name == "fused" else "-"


def _summary(document: Document) -> str:
    text = " ".join(document.text[:300].split())
    return f"{document.title}: {text}" if document.title else text


def _retrievers_to_dict(retrievers: Mapping[str, RetrieverHit]) -> dict[str, dict[str, float]]:
    return {name: asdict(hit) for name, hit in retrievers.items()}
