"""What the response to a search says: the ranking, or that the question must be asked in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hybridsearch.adapters.lucene import seismic
from hybridsearch.adapters.lucene.query.passages import ListedPassages
from hybridsearch.adapters.lucene.query.questions import Question
from hybridsearch.adapters.lucene.stored.reading import hit_document, hit_score, hit_scores
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.documents import Document
from hybridsearch.ranking import EMPTY, Ranking


def next_question(question: Question, response: Json) -> Question | None:
    """The question that must be asked next. It is the same question if the search was too deep.

    None if the hits of the response are those of the ranking.
    """
    k, hits = question.k, response["hits"]["hits"]
    ordered = replace(question, by_id=True)
    if question.retriever.kind == "dense":
        deepest = question.deepest
        if question.by_id:
            return question if response["hits"]["total"]["value"] >= deepest else None
        cut = len(hits) >= deepest and k >= deepest
        tied = (question.is_settled or not question.is_approximate) and _tied(hits, min(k, deepest - 1))
        return ordered if cut or tied else None
    if question.is_rough:
        few = response["hits"]["total"]["value"] < seismic.candidates(k)
        return ordered if few else None  # the next search is exact
    if question.heavy is not None and not question.heavy.has_all(hits, k, question.scored):
        return replace(question, all_terms=True)
    return ordered if not question.by_id and _tied(hits, k) else None


def ranking_of(question: Question, hits: Sequence[Json]) -> Ranking:
    """The ranking of the best hits, with what the hits tell about their documents and passages."""
    ids = [hit["fields"]["id"][0] for hit in hits]  # faster than many calls
    scored = question.scored
    pairs = [(id, scored(score)) for id, score in zip(ids, hit_scores(hits), strict=True)]
    if question.is_rough:  # leave out candidates that have none of the query's terms
        pairs = [(id, score) for id, score in pairs if score > 0]
    ranking = Ranking.from_scores(pairs, question.k)
    if not len(ranking):
        return EMPTY
    listed, documents = question.listed > 0, "document" in question.fields
    found: dict[str, Json] = {}
    if listed or documents:
        of_id = dict(zip(ids, hits, strict=True))
        found = {id: of_id[id] for id in ranking.ids}
    return Ranking(
        ranking.ids,
        ranking.scores,
        Documents(found) if documents else None,
        ListedPassages(found, scored) if listed else None,
    )


class Documents(Mapping[str, Document]):
    """The documents of hits. A document is made when it is looked up, because few get into the final results."""

    def __init__(self, hits: Mapping[str, Json]) -> None:
        self.hits = hits

    def __getitem__(self, id: str) -> Document:
        return hit_document(self.hits[id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


def _tied(hits: Sequence[Json], k: int) -> bool:
    """Whether the hits before and after the cut have the same score."""
    return len(hits) > k and hit_score(hits[k - 1]) == hit_score(hits[k])
