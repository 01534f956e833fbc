"""Document frequencies of terms for idf, and the state of the index that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from hybridsearch.adapters.lucene.dialect import Dialect, Search
from hybridsearch.adapters.lucene.wire.connection import Json

Key: TypeAlias = tuple[str, str]
"""The name of a retriever, and an encoded term."""

_TERMS_REMEMBERED = 1_000_000
_TERMS_AT_ONCE = 5000  # terms in one search; the engines allow 65,535 buckets


class State(NamedTuple):
    """A state of the index: two numbers, at least one of which changes when the index changes."""

    documents: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """The document frequencies in one state of the index."""

    state: State | None = None
    frequencies: dict[Key, int] = field(default_factory=dict)


def searches_for(missing: Iterable[Key], dialect: Dialect) -> list[Search]:
    """Searches for the frequencies of the terms in `missing`. Each one also tells the state of the index."""
    keys = sorted(missing)
    bodies = []
    for start in range(0, max(len(keys), 1), _TERMS_AT_ONCE):
        body: Search = {"size": 0, "track_total_hits": True, "aggs": {"stamp": {"max": {"field": "stamp"}}}}
        part = keys[start : start + _TERMS_AT_ONCE]
        if filters := [dialect.term_clause(f"vectors.{name}", term) for name, term in part]:
            body["aggs"]["terms"] = {"filters": {"filters": filters}}
        bodies.append(body)
    return bodies


def read_statistics(responses: Sequence[Json], missing: Iterable[Key], known: Statistics) -> Statistics:
    """The statistics in the responses to `searches_for(missing)`.

    The frequencies in `known` are kept if the index is still in the same state.
    """
    states, counts = [], []
    for response in responses:
        found = response["aggregations"]
        states.append(State(response["hits"]["total"]["value"], int(found["stamp"]["value"] or 0)))
        counts += [bucket["doc_count"] for bucket in found["terms"]["buckets"]] if "terms" in found else []
    frequencies = dict(zip(sorted(missing), counts, strict=True))
    # If the index changed between two responses, use the older state. No later response confirms it.
    state = min(states, key=lambda state: (state.stamp, state.documents))
    if set(states) == {known.state} and len(known.frequencies) < _TERMS_REMEMBERED:
        known.frequencies.update(frequencies)
        return known
    return Statistics(state, frequencies)
