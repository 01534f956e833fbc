"""Document frequencies of terms for idf, and the state of the index that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from hybridsearch.adapters.lucene.dialect import Dialect
from hybridsearch.adapters.lucene.stored.mapping import PASSAGES
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.adapters.lucene.wire.multisearch import Search

Key: TypeAlias = tuple[str, str]
"""The field of a retriever, and an encoded term."""

_TERMS_REMEMBERED = 1_000_000
_NO_STAMP = -1  # so that no later response confirms the state
_TERMS_AT_ONCE = 5000  # terms in one search; the engines allow 65,535 buckets


class State(NamedTuple):
    """A state of the index: two numbers, at least one of which changes when the index changes."""

    documents: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """The numbers behind idf in one state of the index.

    Attributes:
        state: The state.
        frequencies: Number of documents with a term, or of passages if the field is one of passages.
        passages: Number of all passages. 0 until the frequency of a term in passages was asked for.
    """

    state: State | None = None
    frequencies: dict[Key, int] = field(default_factory=dict)
    passages: int = 0

    def texts(self, path: str) -> int:
        """The number of documents, or of passages if the field `path` is one of passages."""
        return self.passages if _is_of_passages(path) else 0 if self.state is None else self.state.documents

    def with_older(self, older: Statistics) -> Statistics:
        """These numbers and those of an older state, for one search of an index that changes all the time."""
        if self.state is None or older is self:
            return self
        unsure = State(self.state.documents, _NO_STAMP)
        return Statistics(unsure, older.frequencies | self.frequencies, self.passages or older.passages)


def searches_for(missing: Iterable[Key], dialect: Dialect) -> list[Search]:
    """Searches for the frequencies of the terms in `missing`. Each one also tells the state of the index."""
    keys = sorted(missing)
    bodies = []
    for start in range(0, max(len(keys), 1), _TERMS_AT_ONCE):
        body: Search = {"size": 0, "track_total_hits": True, "aggs": {"stamp": {"max": {"field": "stamp"}}}}
        part = keys[start : start + _TERMS_AT_ONCE]
        by_passage, by_document = (
            [dialect.term_clause(path, term) for path, term in part if _is_of_passages(path) is of_passages]
            for of_passages in (True, False)
        )
        if by_document:
            body["aggs"] |= _counted(by_document)
        if by_passage:
            body["aggs"][PASSAGES] = {"nested": {"path": PASSAGES}, "aggs": _counted(by_passage)}
        bodies.append(body)
    return bodies


def read_statistics(responses: Sequence[Json], missing: Iterable[Key], known: Statistics) -> Statistics:
    """The statistics in the responses to `searches_for(missing)`.

    The frequencies in `known` are kept if the index is still in the same state.
    """
    states, counts, passages = [], [], 0
    for response in responses:
        found = response["aggregations"]
        states.append(State(response["hits"]["total"]["value"], int(found["stamp"]["value"] or 0)))
        if PASSAGES in found:
            passages = found[PASSAGES]["doc_count"]
        for counted in (found.get(PASSAGES, {}), found):  # as the keys are sorted
            counts += [bucket["doc_count"] for bucket in counted["terms"]["buckets"]] if "terms" in counted else []
    frequencies = dict(zip(sorted(missing), counts, strict=True))
    # If the index changed between two responses, use the older state. No later response confirms it.
    state = min(states, key=lambda state: (state.stamp, state.documents))
    if set(states) == {known.state} and len(known.frequencies) < _TERMS_REMEMBERED:
        known.frequencies.update(frequencies)
        return replace(known, passages=passages) if passages else known
    return Statistics(state, frequencies, passages)


def _counted(filters: Sequence[Json]) -> dict[str, Json]:
    return {"terms": {"filters": {"filters": filters}}}


def _is_of_passages(path: str) -> bool:
    return path.startswith(f"{PASSAGES}.")  # all other fields begin with "vectors.", which sorts after it
