"""The queries most worth reading, with what each system returned for them and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hybridsearch.backends import Request
from hybridsearch.documents import Document
from hybridsearch.evaluation.pipeline import SystemPlan
from hybridsearch.evaluation.results import DetailHit, QueryDetail
from hybridsearch.evaluation.stages import Stages
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.retrieval import matched_terms
from hybridsearch.search import HybridSearch

HITS = 5
TERMS = 8
_TITLE = 120


def pick_queries(scores: Mapping[str, Mapping[str, float]], count: int) -> list[str]:
    """Query ids: in turn the next worst one over all systems, and the next on which they differ most; worst first.

    Args:
        scores: system name -> query id -> figure.

    >>> pick_queries({"a": {"q1": 0.9, "q2": 0.0, "q3": 1.0}, "b": {"q1": 0.8, "q2": 0.1, "q3": 0.2}}, 2)
    ['q2', 'q3']
    """
    queries = list(next(iter(scores.values())))
    table = np.array([[of_system[query] for query in queries] for of_system in scores.values()])
    worst = np.argsort(table.mean(axis=0), kind="stable")
    differing = np.argsort(table.min(axis=0) - table.max(axis=0), kind="stable")
    turns = [place for pair in zip(worst.tolist(), differing.tolist(), strict=True) for place in pair]
    picked = set(list(dict.fromkeys(turns))[: max(count, 0)])
    return [queries[place] for place in worst.tolist() if place in picked]


def make_details(
    queries: Sequence[str],
    plans: Sequence[SystemPlan],
    stages: Stages,
    rankings: Mapping[str, Mapping[str, Ranking]],
    qrels: Mapping[str, Mapping[str, int]],
) -> tuple[QueryDetail, ...]:
    """The first hits of each of `plans` for `queries`; `rankings` are by system name and query id."""
    shown = {plan.name: {query: rankings[plan.name].get(query) for query in queries} for plan in plans}
    relevant = {query: [id for id, grade in qrels[query].items() if grade > 0] for query in queries}
    ids = [id for of_system in shown.values() for ranking in of_system.values() if ranking for id in ranking.ids[:HITS]]
    documents = stages.documents([*ids, *(id for of_query in relevant.values() for id in of_query)], plans)

    def terms(plan: SystemPlan, name: str, query: str, ids: list[str]) -> dict[str, dict[str, float]]:
        search, vector = plan.source, stages.asked(plan, name).vectors.get(query)
        if vector is None or not ids or not isinstance(search, HybridSearch):
            return {}
        found = matched_terms(search.backend, Request(name, vector, 1), ids)
        return {id: dict(list(of_id.items())[:TERMS]) for id, of_id in found.items()}

    def hits(plan: SystemPlan, query: str) -> tuple[DetailHit, ...]:
        best = (shown[plan.name][query] or EMPTY).top(HITS)
        lists = stages.rankings(plan, query) if plan.retrievers else {}
        listed = {name: {id: rank for rank, id in enumerate(one.ids, 1)} for name, one in lists.items()}
        found = {name: terms(plan, name, query, [id for id in best.ids if id in of]) for name, of in listed.items()}
        return tuple(
            DetailHit(
                id=id,
                title=title(documents.get(id)),
                rank=rank,
                score=score,
                grade=qrels[query].get(id),
                retrievers={name: ranks[id] for name, ranks in listed.items() if id in ranks},
                terms={name: of_ids[id] for name, of_ids in found.items() if of_ids.get(id)},
            )
            for rank, (id, score) in enumerate(best, 1)
        )

    return tuple(
        QueryDetail(
            id=query,
            text=stages.queries[query],
            relevant=tuple(
                (id, qrels[query][id], title(documents.get(id)))
                for id in sorted(relevant[query], key=lambda id: (-qrels[query][id], id))
            ),
            systems={plan.name: hits(plan, query) for plan in plans},
        )
        for query in queries
    )


def title(document: Document | None) -> str:
    """The title or the first words; "" for no document."""
    if document is None:
        return ""
    text = " ".join((document.title or document.text[: 4 * _TITLE]).split())
    return text if len(text) <= _TITLE else f"{text[:_TITLE].rsplit(' ', 1)[0]} ..."
