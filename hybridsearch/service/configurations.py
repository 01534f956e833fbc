"""Configurations: the settings of a search that the workbench lets people change, and the search with several."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from hybridsearch.answers import Answers
from hybridsearch.fusion import RRF, Fusion
from hybridsearch.hits import Results
from hybridsearch.retrieval import Plan, unanswered
from hybridsearch.search import HybridSearch
from hybridsearch.service.models import AnyFusion, Strict

MOST_CANDIDATES = 500
"""Largest number of candidates of a configuration."""


class Configuration(Strict):
    """The settings of a search that the workbench lets people change.

    Attributes:
        fusion: The fusion with its settings. Retrievers with the weight 0 are left out. None uses the fusion of the
            index.
        candidates: Number of documents that are read from each retriever. None uses the number of the index.
        rerank: Whether the reranker of the index reorders the first documents, if the index has one.
    """

    fusion: AnyFusion | None = None
    candidates: int | None = Field(default=None, ge=1, le=MOST_CANDIDATES)
    rerank: bool = True

    def fusion_of(self, search: HybridSearch) -> Fusion:
        """Make the fusion.

        Args:
            search: The search whose fusion is used if the configuration has none.

        Returns:
            The fusion.
        """
        return search.fusion if self.fusion is None else self.fusion.made()

    def depth_of(self, search: HybridSearch) -> int:
        """The number of candidates.

        Args:
            search: The search whose number is used if the configuration has none.

        Returns:
            Number of documents that are read from each retriever, at most `MOST_CANDIDATES`.
        """
        return min(search.candidates, MOST_CANDIDATES) if self.candidates is None else self.candidates


@dataclass(frozen=True, slots=True)
class Found:
    """What a search with several configurations found.

    Attributes:
        plan: Plan that asked all retrievers.
        answers: The rankings of all retrievers, to the largest number of candidates, with notes and timings.
        results: Results of each query, for each configuration.
    """

    plan: Plan
    answers: Answers
    results: Sequence[Sequence[Results]]


async def search_with(
    search: HybridSearch,
    queries: Sequence[str],
    configurations: Sequence[Configuration],
    top_k: int,
    *,
    filter: Mapping[str, Any] | None = None,
) -> Found:
    """Search with several configurations. Each retriever is asked once for all configurations.

    Args:
        search: The search.
        queries: Texts of the queries.
        configurations: The configurations, at least one.
        top_k: Number of hits for each query.
        filter: Filter in the language of `hybridsearch.filters`. None searches all documents.

    Returns:
        The rankings and the results.

    Raises:
        InvalidArgumentError: A configuration is not usable, for example because it names an unknown retriever.
        FilterError: The filter is not usable.
        RetrieverError: No retriever of a configuration answered.
    """
    depths = [one.depth_of(search) for one in configurations]
    plans = [
        search.plan(
            top_k,
            filter=filter,
            fusion=one.fusion_of(search),
            candidates=depth,
            reranker=search.reranker if one.rerank else None,
        )
        for one, depth in zip(configurations, depths, strict=True)
    ]
    every = search.plan(1, filter=filter, fusion=RRF(), candidates=max(depths), reranker=None)
    answers = await every.aask(queries)

    def merged() -> list[list[Results]]:
        return [
            plan.merge(queries, _cut(answers, plan.retrievers, depth))
            for plan, depth in zip(plans, depths, strict=True)
        ]

    return Found(every, answers, await asyncio.to_thread(merged))


def _cut(answers: Answers, names: Sequence[str], depth: int) -> Answers:
    """The answers of some retrievers, with their first documents. Raises RetrieverError if none of them answered."""
    kept = {name: [ranking.top(depth) for ranking in of] for name, of in answers.rankings.items() if name in names}
    failures = {name: reason for name, reason in answers.failures.items() if name in names}
    if not kept:
        raise unanswered(failures)
    notes = {name: of for name, of in answers.notes.items() if name in names}
    return replace(answers, rankings=kept, failures=failures, notes=notes, timings=dict(answers.timings))
