"""The queries that are most worth reading, with the hits of each system and the reasons for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridsearch.backends import Request
from hybridsearch.documents import Document
from hybridsearch.evaluation.pipeline import SystemPlan
from hybridsearch.evaluation.results import DetailHit, QueryDetail
from hybridsearch.evaluation.stages import Stages
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.retrieval import matched_terms
from hybridsearch.search import HybridSearch
from hybridsearch.snippets import Finder, make_snippet
from hybridsearch.tables import Marked

HITS = 5
TERMS = 8
_TITLE = 120
_EXCERPT = 240


def pick_queries(scores: Mapping[str, Mapping[str, float]], count: int) -> list[str]:
    """The ids of the `count` queries that are most worth reading, the worst first.

    Two lists are read in turn: the queries with the worst mean over all systems, and the queries on which the systems
    differ most.

    Args:
        scores: System name -> query id -> value of the measure.
        count: Number of queries to pick.

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
    """The first hits of each system of `plans` for `queries`. `rankings` are by system name and query id."""
    shown = {plan.name: {query: rankings[plan.name].get(query) for query in queries} for plan in plans}
    relevant = {query: [id for id, grade in qrels[query].items() if grade > 0] for query in queries}
    ids = [id for of_system in shown.values() for ranking in of_system.values() if ranking for id in ranking.ids[:HITS]]
    documents = stages.documents([*ids, *(id for of_query in relevant.values() for id in of_query)], plans)

    listed = {
        (plan.name, query): {
            name: {id: rank for rank, id in enumerate(one.ids, 1)} for name, one in stages.rankings(plan, query).items()
        }
        for plan in plans
        for query in (queries if plan.retrievers else ())
    }
    asked: dict[tuple[object, ...], tuple[SystemPlan, str, str, dict[str, None]]] = {}  # once for all systems
    for plan in plans:
        for query in queries:
            best = (shown[plan.name][query] or EMPTY).ids[:HITS]
            for name, ranks in listed.get((plan.name, query), {}).items():
                *_, of_all = asked.setdefault(_terms_key(plan, name, query), (plan, name, query, {}))
                of_all.update(dict.fromkeys(one for one in best if one in ranks))
    terms = {key: _terms(plan, name, query, stages, list(ids)) for key, (plan, name, query, ids) in asked.items()}

    def hits(plan: SystemPlan, query: str) -> tuple[DetailHit, ...]:
        best = (shown[plan.name][query] or EMPTY).top(HITS)
        ranks_of = listed.get((plan.name, query), {})
        found = {name: terms[_terms_key(plan, name, query)] for name in ranks_of}
        windows = _windows(plan, query, stages, [documents[one] for one in best.ids if one in documents], found)
        return tuple(
            DetailHit(
                id=one,
                title=title(documents.get(one)),
                rank=rank,
                score=score,
                grade=qrels[query].get(one),
                retrievers={name: ranks[one] for name, ranks in ranks_of.items() if one in ranks},
                text=windows[one] if one in windows else excerpt(documents.get(one)),
                marks=windows[one].marks if one in windows else (),
                terms={
                    name: of_ids[one] for name, of_ids in found.items() if one in ranks_of[name] and of_ids.get(one)
                },
            )
            for rank, (one, score) in enumerate(best, 1)
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


def _terms_key(plan: SystemPlan, name: str, query: str) -> tuple[object, ...]:
    """A key that is equal for plans that share terms. Feedback adds terms of the documents that the filter allows."""
    return id(plan.source), name, query, plan.feedback_of(name), repr(plan.filter)


def _terms(plan: SystemPlan, name: str, query: str, stages: Stages, ids: list[str]) -> dict[str, dict[str, float]]:
    """What each matched term added to the score that a retriever gave a document, the largest first."""
    search, vector = plan.source, stages.asked(plan, name).vectors.get(query)
    if vector is None or not ids or not isinstance(search, HybridSearch):
        return {}
    found = matched_terms(search.backend, Request(name, vector, 1), ids)
    return {id: dict(list(of_id.items())[:TERMS]) for id, of_id in found.items()}


@dataclass(frozen=True, slots=True)
class _Shown:
    """A hit whose highlights are looked for."""

    document: Document
    retrievers: Mapping[str, object]

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def span(self) -> tuple[int, int]:
        return 0, len(self.document.text)


def _windows(
    plan: SystemPlan,
    query: str,
    stages: Stages,
    documents: Sequence[Document],
    terms: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, Marked]:
    """The windows of the documents with the words that matched. A document without highlights has none.

    `terms` are by retriever name and document id.
    """
    search = plan.source
    if not isinstance(search, HybridSearch):
        return {}
    vectors = {name: stages.asked(plan, name).vectors.get(query) for name in terms}
    requests = {name: Request(name, vector, 1) for name, vector in vectors.items() if vector is not None}
    finder = Finder(requests, search.retrievers.__getitem__, lambda request, _: terms[request.retriever])
    hits = [_Shown(one, {name: None for name, of in terms.items() if one.id in of}) for one in documents]
    finder.find(hits, models=False)
    found = {hit.id: (hit, finder.of(hit, models=False)) for hit in hits}
    return {
        id: make_snippet(hit.document.text, hit.span, highlights, _EXCERPT).line()
        for id, (hit, highlights) in found.items()
        if highlights
    }


def title(document: Document | None) -> str:
    """The title of a document, or its first words. "" for None."""
    if document is None:
        return ""
    return _shortened(" ".join((document.title or document.text[: 4 * _TITLE]).split()), _TITLE)


def excerpt(document: Document | None) -> str:
    """The beginning of the text, after the words that `title` shows. "" for None."""
    if document is None:
        return ""
    text = " ".join(document.text[: 4 * (_TITLE + _EXCERPT)].split())
    shown = "" if document.title else title(document).removesuffix(" ...")
    return _shortened(text[len(shown) :].strip(), _EXCERPT)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length].rsplit(' ', 1)[0]} ..."
