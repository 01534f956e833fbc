"""Ranks documents by their best passage, and reads the passages that hits list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hybridsearch.adapters.lucene.stored.mapping import MAX_WINDOW, PASSAGES
from hybridsearch.adapters.lucene.stored.reading import NO_FIELDS, hit_score, hit_stamp
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.ranking import PassageScore

_BOUNDS = (f"{PASSAGES}.start", f"{PASSAGES}.end")


def by_best_passage(clause: Json, listed: int = 0, boost: int = 1) -> Json:
    """The query that ranks documents by their best passage. `clause` ranks passages.

    Hits come with their best `listed` passages. The engines order passages of equal score as they are stored.
    """
    nested: dict[str, Json] = {"path": PASSAGES, "score_mode": "max", "boost": boost, "query": clause}
    if listed:
        size = min(listed, MAX_WINDOW - 1)
        nested["inner_hits"] = {**NO_FIELDS, "size": size, "_source": False, "docvalue_fields": _BOUNDS}
    return {"nested": nested}


def with_lists(ranking: Json, clause: Json, listed: int) -> Json:
    """The query `ranking`, whose hits come with their best `listed` passages by `clause`.

    The engine looks at `clause` only for the hits that it sends. In the ranking it stands beside an id that no document
    has, so it matches nothing.
    """
    if not listed:
        return ranking
    nowhere = {"term": {"id": ""}}
    return {"bool": {"must": [ranking], "should": [{"bool": {"must": [nowhere, by_best_passage(clause, listed)]}}]}}


class ListedPassages(Mapping[str, Sequence[PassageScore]]):
    """The best passages of hits. They are made when they are looked up, because most hits are never shown.

    The first has the score of the document. Elasticsearch scores the others by quantized vectors, if there are any.

    Args:
        hits: Hits by id. Those that list no passage are left out.
        scored: Function that turns the engine's scores into ours.
    """

    def __init__(self, hits: Mapping[str, Json], scored: Callable[[float], float]) -> None:
        self._hits, self._scored = {id: hit for id, hit in hits.items() if _listed(hit)}, scored

    def __getitem__(self, id: str) -> Sequence[PassageScore]:
        hit = self._hits[id]
        best, found = self._scored(hit_score(hit)), _listed(hit)
        scores = [best, *(min(best, self._scored(passage["_score"])) for passage in found[1:])]
        bounds = [[passage["fields"][bound][0] for bound in _BOUNDS] for passage in found]
        passages = [PassageScore(start, end, score) for (start, end), score in zip(bounds, scores, strict=True)]
        return tuple(sorted(passages, key=lambda passage: (-passage.score, passage.start)))

    def of_versions(self, hits: Mapping[str, Json]) -> ListedPassages:
        """The passages of those documents that have the same version in `hits`."""
        same = {id: hit for id, hit in self._hits.items() if id in hits and hit_stamp(hit) == hit_stamp(hits[id])}
        return ListedPassages(same, self._scored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._hits)

    def __len__(self) -> int:
        return len(self._hits)


def _listed(hit: Json) -> Sequence[Json]:
    """The passages that a hit lists, best first."""
    found: Sequence[Json] = hit["inner_hits"][PASSAGES]["hits"]["hits"]
    return found
