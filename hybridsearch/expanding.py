"""The first pass of a search with feedback: it finds the feedback documents, and makes the queries of the second pass.

    requests ──► `first_requests` ──► the backend ──► `expand` ──► requests of the second pass ──► the backend

The queries of a call share the requests of each step. A filter counts in both passes. If a retriever reads passages,
feedback reads the best passage of a document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import TypeAlias

from hybridsearch.backends import Backend, Counted, Kind, Request, RetrieverSchema, Vectored
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder, encode
from hybridsearch.feedback import RM3, Expansion, Feedback, Planned, Weights, largest, weights_of
from hybridsearch.passages import with_passages
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import EncodedBatch, QueryVector, SparseVectors, Vectors, take

Part: TypeAlias = tuple[str, tuple[int, int] | None]
"""Id of a document and the span of its best passage. The span is None if the retriever reads whole documents."""

Encoders: TypeAlias = Callable[[str], Encoder]
"""Function that returns the encoder of a retriever."""


def first_requests(requests: Mapping[str, Sequence[Request]], planned: Mapping[str, Planned]) -> list[Request]:
    """The requests of the first pass, one for each request to a retriever with feedback, in order."""
    return [
        replace(request, k=of.method.documents, passages=int(of.retriever.passages))
        for name, of in planned.items()
        for request in requests.get(name, ())
    ]


def expand(
    requests: Mapping[str, Sequence[Request]],
    planned: Mapping[str, Planned],
    first: Sequence[Ranking],
    backend: Backend,
    encoder: Encoders,
    *,
    headings: bool = True,
) -> tuple[dict[str, list[Request]], dict[str, list[Expansion | None]]]:
    """Expand the queries of the retrievers with feedback.

    Args:
        requests: One request for each query, by retriever name.
        planned: Feedback by retriever name.
        first: Rankings of the requests that `first_requests` made.
        backend: Backend that has the documents.
        encoder: Function that returns the encoder of a retriever.
        headings: Whether passages have headings, as `Passages.headings`.

    Returns:
        The requests of the second pass, and what feedback did to each query, by the names of these retrievers. None
        stands for a query for which the first pass found nothing.
    """
    rest = iter(first)
    expanded: dict[str, list[Request]] = {}
    expansions: dict[str, list[Expansion | None]] = {}
    for name, of in planned.items():
        if name in requests:
            rankings = [next(rest) for _ in requests[name]]
            found = _expansions(name, of, requests[name], rankings, backend, encoder, headings)
            expanded[name] = [replace(one, query=query) for one, (query, _) in zip(requests[name], found, strict=True)]
            expansions[name] = [expansion for _, expansion in found]
    return expanded, expansions


def _expansions(
    name: str,
    of: Planned,
    requests: Sequence[Request],
    rankings: Sequence[Ranking],
    backend: Backend,
    encoder: Encoders,
    headings: bool,
) -> list[tuple[QueryVector, Expansion | None]]:
    """The new query of each request to one retriever, and what feedback did to it."""
    method = of.method
    parts = [_parts(ranking, of.retriever) for ranking in rankings]
    known = {id: documents[id] for documents in map(_documents, rankings) for id in documents}
    wanted = list(chain.from_iterable(parts))
    there, vectors = read_vectors(backend, name, of.retriever.kind, encoder, wanted, known, headings=headings)
    rows = {part: row for row, part in enumerate(there)}
    usable = _usable_terms(method, name, vectors, backend) if isinstance(method, RM3) else []
    found: list[tuple[QueryVector, Expansion | None]] = []
    for request, ranking, of_query in zip(requests, rankings, parts, strict=True):
        kept = [(part, score) for part, (_, score) in zip(of_query, ranking, strict=True) if part in rows]
        chosen, query = [rows[part] for part, _ in kept], request.query
        if not kept:
            found.append((query, None))
            continue
        if isinstance(method, RM3):
            query = method.expand(query, [usable[row] for row in chosen], [score for _, score in kept])
        else:
            query = method.expand(query, take(vectors, chosen))
        found.append((query, _expansion(method, request.query, query, kept)))
    return found


def read_vectors(
    backend: Backend,
    name: str,
    kind: Kind,
    encoder: Encoders,
    parts: Sequence[Part],
    known: Mapping[str, Document],
    *,
    headings: bool = True,
) -> tuple[list[Part], Vectors]:
    """The vectors that a retriever has of some documents or passages.

    They are read from the index if the engine can. The terms of BM25 are counted again, because this takes less time.

    Args:
        backend: Backend that has the documents.
        name: Name of the retriever.
        kind: Kind of the retriever.
        encoder: Function that returns the encoder of a retriever.
        parts: Documents or passages.
        known: Documents by id that are not read again.
        headings: Whether passages have headings, as `Passages.headings`.

    Returns:
        The distinct parts whose documents are still there, and one vector for each.
    """
    parts = list(dict.fromkeys(parts))
    ids = list(dict.fromkeys(id for id, _ in parts))
    if kind != "lexical" and isinstance(backend, Vectored):
        batch = backend.fetch_vectors(ids, name)
        rows = {document.id: row for row, document in enumerate(batch.documents)}
        parts = [part for part in parts if part[0] in rows]
        if parts:
            return parts, take(batch.vectors[name], [_row_of(batch, name, rows[id], span) for id, span in parts])
    missing = [id for id in ids if id not in known]
    fetched = backend.fetch(missing) if missing else []
    documents = {**known, **{document.id: document for document in fetched if document is not None}}
    parts = [part for part in parts if part[0] in documents]
    read = [
        documents[id] if span is None else with_passages(documents[id], [span], headings=headings) for id, span in parts
    ]
    return parts, encode(encoder(name), read)


def _row_of(batch: EncodedBatch, name: str, document: int, span: tuple[int, int] | None) -> int:
    """The row of a passage of a document, or that of the document if the retriever reads whole documents.

    It is the row of the first passage if the document does not have this passage.
    """
    passages = batch.passages
    if passages is None or len(batch.vectors[name]) != len(passages):
        return document
    first, after = (int(bound) for bound in passages.offsets[document : document + 2])
    spans = [(start, end) for start, end in passages.spans[first:after].tolist()]
    return first + (spans.index(span) if span in spans else 0)


def _parts(ranking: Ranking, retriever: RetrieverSchema) -> list[Part]:
    """What feedback reads of each document of a ranking."""
    best = (ranking.passages or {}) if retriever.passages else {}
    return [(id, (best[id][0].start, best[id][0].end) if best.get(id) else None) for id in ranking.ids]


def _documents(ranking: Ranking) -> Mapping[str, Document]:
    """The documents that came with a ranking."""
    return {} if ranking.documents is None else ranking.documents


def _usable_terms(method: RM3, name: str, vectors: Vectors, backend: Backend) -> list[dict[str, float]]:
    """The terms of each document that RM3 may add, with their frequencies, the most frequent first.

    Few terms are looked up in the index: those that may be among the first `method.terms` of a document.
    """
    words = [{term: count for term, count in of.items() if _is_word(term)} for of in _term_weights(vectors)]
    documents = [largest(of, len(of)) for of in words]
    if method.max_share == 1 or not isinstance(backend, Counted):
        return documents
    rare: dict[str, bool] = {}
    while any(_unknown(document, rare, method.terms) for document in documents):
        wanted = list(dict.fromkeys(term for of in documents for term in _unknown(of, rare, 2 * method.terms)))
        counts, total = backend.document_frequencies(name, wanted)
        rare |= {term: count <= method.max_share * total for term, count in zip(wanted, counts, strict=True)}
    return [{term: count for term, count in document.items() if rare.get(term)} for document in documents]


def _unknown(document: Weights, rare: Mapping[str, bool], most: int) -> list[str]:
    """The terms of which it is not known whether they are rare, before `most` terms that are or may be rare."""
    unknown: list[str] = []
    for term in document:
        if most == 0:
            break
        if term not in rare:
            unknown.append(term)
        most -= rare.get(term, True)
    return unknown


def _is_word(term: str) -> bool:
    return 2 <= len(term) <= 20 and term.isalnum()


def _term_weights(vectors: Vectors) -> list[dict[str, float]]:
    """The weights of the terms of each row."""
    if not isinstance(vectors, SparseVectors):
        return []
    terms, matrix = vectors.vocabulary.terms, vectors.matrix
    columns, values = matrix.indices.tolist(), matrix.data.tolist()
    return [
        {terms[column]: value for column, value in zip(columns[start:end], values[start:end], strict=True) if value}
        for start, end in pairwise(matrix.indptr.tolist())
    ]


def _expansion(
    method: Feedback, before: QueryVector, after: QueryVector, kept: Sequence[tuple[Part, float]]
) -> Expansion:
    known = weights_of(before)
    return Expansion(
        repr(method),
        {id: score for (id, _), score in kept},
        {term: weight for term, weight in weights_of(after).items() if term not in known},
        {id: span for (id, span), _ in kept if span is not None},
    )
