"""What the retrievers answer to some queries, before their rankings are merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hybridsearch.backends import Request
from hybridsearch.feedback import Expansion
from hybridsearch.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of the retrievers to several queries.

    Attributes:
        requests: One request for each query, by retriever name.
        rankings: One ranking for each query, by retriever name.
        failures: Reason by name, for each optional retriever that failed or was too slow.
        notes: One sentence or `""` for each query, by retriever name.
        timings: Seconds of each stage.
        expansions: What feedback did to each query, by the name of a retriever with feedback. None for a query for
            which the first pass found nothing.
        asked: Requests as they were before feedback changed them, by the name of a retriever with feedback.
    """

    requests: Mapping[str, Sequence[Request]]
    rankings: Mapping[str, Sequence[Ranking]]
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    expansions: Mapping[str, Sequence[Expansion | None]] = field(default_factory=dict)
    asked: Mapping[str, Sequence[Request]] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Put the answers of several retrievers together."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            {name: of_retriever for part in parts for name, of_retriever in part.requests.items()},
            {name: of_retriever for part in parts for name, of_retriever in part.rankings.items()},
            notes={name: of_retriever for part in parts for name, of_retriever in part.notes.items()},
            timings={stage: seconds for part in parts for stage, seconds in part.timings.items()},
            expansions={name: of_retriever for part in parts for name, of_retriever in part.expansions.items()},
            asked={name: of_retriever for part in parts for name, of_retriever in part.asked.items()},
        )

    @property
    def all_requests(self) -> list[Request]:
        """The requests of all retrievers, in order."""
        return [request for of_retriever in self.requests.values() for request in of_retriever]

    def with_rankings(self, rankings: Iterable[Ranking]) -> Answers:
        """Add the rankings that a backend gave for `all_requests`."""
        rest = iter(rankings)
        by_name = {name: [next(rest) for _ in asked] for name, asked in self.requests.items()}
        return replace(self, rankings=by_name)

    def expansions_of(self, number: int) -> dict[str, Expansion]:
        """Collect what feedback did to one query, by retriever name."""
        of_query = {name: of_retriever[number] for name, of_retriever in self.expansions.items()}
        return {name: one for name, one in of_query.items() if one is not None}

    def notes_of(self, number: int) -> list[str]:
        """Collect the notes on one query. Each note begins with the retriever's name."""
        return [f"{name}: {of_retriever[number]}" for name, of_retriever in self.notes.items() if of_retriever[number]]

    @property
    def by_query(self) -> list[dict[str, Ranking]]:
        """Rankings of each query, by retriever name."""
        return [
            dict(zip(self.rankings, of_query, strict=True)) for of_query in zip(*self.rankings.values(), strict=True)
        ]
