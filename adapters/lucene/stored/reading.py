"""Reads stored documents: by id, or all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import orjson

from hybridsearch.adapters.checks import retriever_of
from hybridsearch.adapters.lucene.stored.lines import (
    Unchanged,
    document_key,
    read_document,
    spans_from_source,
    vectors_from_source,
)
from hybridsearch.adapters.lucene.stored.mapping import PASSAGES
from hybridsearch.adapters.lucene.wire.channel import Call, Channel, Steps
from hybridsearch.adapters.lucene.wire.connection import Address, Json
from hybridsearch.adapters.lucene.wire.refusals import refusal
from hybridsearch.backends import Schema
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, HybridSearchError
from hybridsearch.messages import number_of
from hybridsearch.vectors import EncodedBatch

NO_FIELDS: Mapping[str, Json] = {"stored_fields": "_none_"}
"""Members of a search whose hits have only a score.

Stored fields lie together with the vectors, in compressed blocks. Reading a stored field of a hit, even `_id`, takes
longer than finding the hit."""

ID: Mapping[str, Json] = {**NO_FIELDS, "docvalue_fields": ["id"]}
"""Members of a search whose hits have an id, for `hit_id`."""

DOCUMENT: Mapping[str, Json] = {**NO_FIELDS, "docvalue_fields": ["id", "document"]}
"""Members of a search whose hits have an id and a document, for `hit_id` and `hit_document`."""

LENGTH = "length"
"""Field with the number of characters of `document`, in an index with passages."""

STAMP = "stamp"
"""Field that tells the version of a document."""

FEW = 3
"""The largest number of documents that are always read with their stored fields, as they were last written.

A search for more documents takes less time, because it reads nothing but the field `document`."""

_IDS_AT_ONCE = 1000
_AT_ONCE = 2000  # documents, or about as many passages
_SCROLL = "5m"


def fetch(address: Address, ids: Sequence[str], members: Sequence[str]) -> Steps[list[Json | None]]:
    """These members of the stored documents as they were last written, in the order of `ids`.

    An unknown id gives None.
    """
    found: dict[str, Json] = {}
    keys = list(dict.fromkeys(document_key(id) for id in ids if id))
    for start in range(0, len(keys), _IDS_AT_ONCE):
        docs = [{"_id": key, "_source": members} for key in keys[start : start + _IDS_AT_ONCE]]
        answer = yield Call("POST", f"{address.path}/_mget", orjson.dumps({"docs": docs}))
        for item in answer["docs"]:
            if "error" in item:
                raise refusal(address, 500, item["error"])
            if item.get("found"):
                found[item["_id"]] = item["_source"]
    return [found.get(document_key(id)) if id else None for id in ids]


def documents_by_query(query: Json, size: int, *fields: str) -> dict[str, Json]:
    """The search for the documents that a query matches, at most `size`. Hits also have the fields `fields`."""
    members = {**DOCUMENT, "docvalue_fields": [*DOCUMENT["docvalue_fields"], *fields]}
    return {**members, "size": size, "track_total_hits": False, "query": {"bool": {"filter": [query]}}}


def fetch_documents(address: Address, ids: Sequence[str], *, latest: bool) -> Steps[list[Document | None]]:
    """The documents, in the order of `ids`. An unknown id gives None.

    With `latest`, they come as they were last written. Otherwise they come as searches see them, which takes less time
    for many documents. A document that searches do not see yet comes as it was last written.
    """
    found: dict[str, Document] = {}
    keys = [] if latest else list(dict.fromkeys(document_key(id) for id in ids if id))
    for start in range(0, len(keys), _IDS_AT_ONCE):
        part = keys[start : start + _IDS_AT_ONCE]
        body = documents_by_query({"ids": {"values": part}}, len(part))
        path = f"{address.path}/_search?allow_partial_search_results=false"
        answer = yield Call("POST", path, orjson.dumps(body))
        found.update((hit_id(hit), hit_document(hit)) for hit in answer["hits"]["hits"])
    unseen = [id for id in ids if id not in found]
    for id, source in zip(unseen, (yield from fetch(address, unseen, ["document"])), strict=True):
        if source is not None:
            found[id] = read_document(source["document"])
    return [found.get(id) for id in ids]


def fetch_vectors(address: Address, ids: Sequence[str], schema: Schema, name: str) -> Steps[EncodedBatch]:
    """The documents with the vectors of one retriever, in the order of `ids`. Unknown ids are left out."""
    retriever = retriever_of(schema, name)
    vectors = [f"vectors.{name}", f"counts.{name}", "long_terms"]
    members = ["document", *([] if retriever.passages else vectors)]
    if schema.passages is not None:
        members += [f"{PASSAGES}.{one}" for one in ("start", "end", *(vectors if retriever.passages else ()))]
    found = yield from fetch(address, ids, members)
    return _batch([source for source in found if source is not None], replace(schema, retrievers={name: retriever}))


def hit_document(hit: Json) -> Document:
    """The document of a hit."""
    return read_document(hit["fields"]["document"][0])


def hit_id(hit: Json) -> str:
    """The id of a hit."""
    return str(hit["fields"]["id"][0])


def hit_length(hit: Json) -> int:
    """The number of characters of `document` of a hit that has its length or its document."""
    fields = hit["fields"]
    return int(fields[LENGTH][0]) if LENGTH in fields else len(fields["document"][0])


def hit_stamp(hit: Json) -> int:
    """The stamp of a hit."""
    return int(hit["fields"][STAMP][0])


def hit_score(hit: Json) -> float:
    """The engine's score of a hit."""
    score = hit["_score"]
    return float(hit["sort"][0] if score is None else score)


def hit_scores(hits: Sequence[Json]) -> list[float]:
    """The engine's scores of the hits of one search. Either all hits have `_score`, or none has."""
    scores = [hit["_score"] for hit in hits]
    return scores if not hits or scores[0] is not None else [hit_score(hit) for hit in hits]


def read_batches(channel: Channel, address: Address, schema: Schema, batch_size: int) -> Iterator[EncodedBatch]:
    """All documents with their vectors, as they are when the first batch is taken.

    Raises:
        BackendError: Some documents did not come, see `scroll`.
    """
    return (batch for batch, _ in read_versions(channel, address, schema, batch_size))


def read_versions(
    channel: Channel, address: Address, schema: Schema, batch_size: int
) -> Iterator[tuple[EncodedBatch, list[Unchanged]]]:
    """The batches of `read_batches`, with the version of each document."""
    size = min(batch_size, _AT_ONCE)
    if schema.passages is not None:
        size = max(1, min(size, int(_AT_ONCE / _passages_of_a_document(channel, address))))
    for hits in scroll(channel, address, {"size": size, "seq_no_primary_term": True}):
        versions: list[Unchanged] = [
            {"if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]} for hit in hits
        ]
        yield _batch([hit["_source"] for hit in hits], schema), versions


def scroll(channel: Channel, address: Address, body: Mapping[str, Json]) -> Iterator[list[Json]]:
    """The hits of a search in any order, page by page, as they are when the first page is taken.

    Raises:
        BackendError: Some hits did not come. If the answer with a page is lost, the page is lost too, because the
            engine then gives the next page.
    """
    options = f"scroll={_SCROLL}&allow_partial_search_results=false"
    body = {**body, "sort": ["_doc"], "track_total_hits": True}
    page = channel.call("POST", f"{address.path}/_search?{options}", body)
    missing = int(page["hits"]["total"]["value"])
    try:
        while hits := page["hits"]["hits"]:
            yield hits
            missing -= len(hits)
            page = channel.call("POST", "/_search/scroll", {"scroll": _SCROLL, "scroll_id": page["_scroll_id"]})
    finally:
        with contextlib.suppress(HybridSearchError):  # the scroll also ends by itself
            channel.call("DELETE", "/_search/scroll", {"scroll_id": page["_scroll_id"]})
    if missing:
        raise BackendError(
            f"{number_of(missing, 'document')} of the index {address.index!r} at {address} did not come, because an "
            "answer of the engine was lost: start again and read all documents."
        )


def _batch(sources: Sequence[Json], schema: Schema) -> EncodedBatch:
    """The documents and vectors in stored documents (`_source`)."""
    documents = [read_document(source["document"]) for source in sources]
    spans = None if schema.passages is None else spans_from_source(sources)
    return EncodedBatch(documents, vectors_from_source(sources, schema), spans)


def _passages_of_a_document(channel: Channel, address: Address) -> float:
    """The mean number of passages, at least 1."""
    body = {"size": 0, "track_total_hits": True, "aggs": {PASSAGES: {"nested": {"path": PASSAGES}}}}
    answer = channel.call("POST", f"{address.path}/_search?allow_partial_search_results=false", body)
    documents: int = answer["hits"]["total"]["value"]
    passages: int = answer["aggregations"][PASSAGES]["doc_count"]
    return max(passages / max(documents, 1), 1.0)
