"""Mined texts as rows to train on, with their provenance, in the formats of `hybridsearch.training.data.mined`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from hybridsearch.documents import Document
from hybridsearch.training.data.kinds import Kind
from hybridsearch.training.data.mined import KINDS, Format, columns_fed

_TYPES = {"docs": pa.list_(pa.string()), "label": pa.int64(), "labels": pa.list_(pa.float64())}
"""Of columns to train on that hold no text."""


@dataclass(frozen=True, slots=True)
class Mined:
    """One text of a query, and where it was found. Rank and score are None for a positive that the search did not find.

    Attributes:
        retriever: those that listed it, joined by "+".
        rank, score: in the ranking that was mined, from 1.
        reranker_score: None without a reranker.
        document: that of the index.
    """

    id: str | None
    text: str
    retriever: str | None = None
    rank: int | None = None
    score: float | None = None
    reranker_score: float | None = None
    document: Document | None = field(default=None, repr=False, compare=False)

    @property
    def judged(self) -> float:
        """What margins and limits compare: the reranker's score, else that of the ranking, else -inf."""
        found = self.score if self.reranker_score is None else self.reranker_score
        return -math.inf if found is None else found


@dataclass(frozen=True, slots=True)
class OfQuery:
    """A query, its positives, and the negatives that were chosen, in the order of their ranks."""

    id: str | None
    text: str
    positives: Sequence[Mined]
    negatives: Sequence[Mined]


def to_table(mined: Sequence[OfQuery], output_format: Format, per_query: int) -> pa.Table:
    """The rows of some queries, with their provenance."""
    rows = [row for of_query in mined for row in _rows(of_query, output_format, per_query)]
    return pa.Table.from_pylist(rows, schema=_schema(output_format, per_query))


def _schema(output_format: Format, per_query: int) -> pa.Schema:
    columns: dict[str, Any] = {name: _TYPES.get(name, pa.string()) for name in columns_fed(output_format, per_query)}
    columns |= {"query_id": pa.string(), "document_id": pa.string()}
    found: dict[str, Any] = {
        "retriever": pa.string(),
        "rank": pa.int32(),
        "score": pa.float64(),
        "reranker_score": pa.float64(),
    }
    if output_format == "lists":
        columns["document_id"] = pa.list_(pa.string())
    if KINDS[output_format] is Kind.TUPLES:
        columns |= {"positive_score": pa.float64(), "positive_reranker_score": pa.float64()}
        found = {"negative_id": pa.string(), **found}
    if output_format in ("n-tuples", "lists"):
        found = {name: pa.list_(of_one) for name, of_one in found.items()}
    return pa.schema([*columns.items(), *found.items()])


def _rows(of: OfQuery, output_format: Format, per_query: int) -> Iterator[dict[str, Any]]:
    texts: dict[str, Any]
    if output_format == "triplets":
        for positive in of.positives:
            for negative in of.negatives:
                texts = {"anchor": of.text, "positive": positive.text, "negative_1": negative.text}
                yield texts | _ids(of, positive) | {"negative_id": negative.id} | _where(negative)
    elif output_format == "n-tuples" and len(of.negatives) == per_query:
        negatives = {f"negative_{number}": negative.text for number, negative in enumerate(of.negatives, 1)}
        for positive in of.positives:
            texts = {"anchor": of.text, "positive": positive.text, **negatives}
            listed = {"negative_id": [negative.id for negative in of.negatives]}
            yield texts | _ids(of, positive) | listed | _where_all(of.negatives)
    elif output_format == "labelled pairs":
        for label, mined in ((1, of.positives), (0, of.negatives)):
            for one in mined:
                texts = {"anchor": of.text, "positive": one.text, "label": label}
                yield texts | {"query_id": of.id, "document_id": one.id} | _where(one)
    elif output_format == "lists" and of.negatives:
        mined = [*of.positives, *of.negatives]
        labels = [1.0] * len(of.positives) + [0.0] * len(of.negatives)
        texts = {"query": of.text, "docs": [one.text for one in mined], "labels": labels}
        yield texts | {"query_id": of.id, "document_id": [one.id for one in mined]} | _where_all(mined)


def _ids(of: OfQuery, positive: Mined) -> dict[str, Any]:
    return {
        "query_id": of.id,
        "document_id": positive.id,
        "positive_score": positive.score,
        "positive_reranker_score": positive.reranker_score,
    }


def _where(one: Mined) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("retriever", "rank", "score", "reranker_score")}


def _where_all(mined: Sequence[Mined]) -> dict[str, Any]:
    return {name: [getattr(one, name) for one in mined] for name in ("retriever", "rank", "score", "reranker_score")}
