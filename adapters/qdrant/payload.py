"""The payload of Qdrant points: a document or a passage, and two arrays for filters.

Qdrant compares payload by different rules: a float equals nothing, strings have no order, and 64-bit integers are
compared as float64. So filters never look at the metadata themselves. They look at two arrays that are made from the
metadata, with values that Qdrant compares correctly:

    {"id": "d1",
     "document": {"text": "...", "title": "...", "metadata": "{...}"},   metadata as JSON, so that 1, 1.0, true stay
     "tokens": ["[\\"year\\"]", "[\\"year\\",2020]", ...],                for equality
     "ordered": [{"field": "year", "n0": 2020.0}, ...]}                  for ranges

A token is JSON: `[field]` if the field is there, `[field, value]` for each value that the field equals,
`[field, [value]]` for each element of a list, and `[field, {}]` if the field is one string. Equal numbers give equal
tokens.

An ordered value is a sequence of digits that float64 holds exactly. The first different digit decides a comparison. A
number is `n0` and, from 2**53 on, the rest `n1` that float64 cannot hold. A string is one digit `s0`, `s1`, ... for
every six bytes of its UTF-8, which sorts like the code points. An instant is `i0`, `i1`, ... in the same way.

`filters.comparable` gives the values. If the metadata has no title, the title of the document is added. The id is added
in Unicode's composed form.

A document of an index with passages has two more keys:

    {"version": 1764390000000000000,                                    another one whenever the document is written
     "spans": [0, 120, 120, 260]}                                       start and end of each passage, in order

A passage is a point of another collection. It has the `id`, the `version`, the `ordered` and the `tokens` of its
document, and its `number` in the document. One more token stands for the id, because filters find documents by the ids
of their points.

An index of an earlier version is `literal` and stays so. It has only the metadata and the id, with the strings as they
came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias
from uuid import UUID

from qdrant_client import models

from hybridsearch.adapters.checks import encodable
from hybridsearch.corpus.parts import dump_metadata, load_metadata
from hybridsearch.documents import MAX_ID_BYTES, Document
from hybridsearch.filters import Instant, comparable, composed, enclosing, fields_of

INDEXES: Mapping[str, models.PayloadSchemaType] = {
    "tokens": models.PayloadSchemaType.KEYWORD,
    "ordered[].field": models.PayloadSchemaType.KEYWORD,
    "ordered[].n0": models.PayloadSchemaType.FLOAT,
    "ordered[].s0": models.PayloadSchemaType.FLOAT,
    "ordered[].i0": models.PayloadSchemaType.FLOAT,
}
"""The payload indexes, which make filters fast on a server."""

SHOWN = ["id", "document"]
"""The keys of the payload from which a document is made again."""

_NAMESPACE = UUID("5f1c9b1e-3f0a-5b0e-9d55-0c6a4f0d9b7e")
_EXACT = 2**53
_DIGIT_BYTES = 6
ORDERED_BYTES = MAX_ID_BYTES + _DIGIT_BYTES - MAX_ID_BYTES % _DIGIT_BYTES
_LONGEST_TOKEN = 200

Digits: TypeAlias = list[tuple[str, float]]
"""Pairs of a payload key and a digit. The most significant digit is the first."""


def point_id(id: str) -> str:
    """The UUID under which Qdrant stores a document.

    >>> point_id("d1") == point_id("d1") != point_id("d2")
    True
    """
    return _uuid(id)


def passage_ids(payload: Mapping[str, Any]) -> list[str]:
    """The UUIDs under which Qdrant stores the passages of a document with this payload."""
    head = f"{payload['version']} {payload['id']}"
    return [_uuid(f"{number} {head}") for number in range(len(payload["spans"]) // 2)]


def spans_of(payload: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The start and end of each passage of a document with this payload."""
    spans = payload["spans"]
    return list(zip(spans[::2], spans[1::2], strict=True))


def passage_payload(document: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The payload of a passage of a document, from the payload of the document."""
    shared = {key: document[key] for key in ("id", "version", "ordered")}
    return {**shared, "number": number, "tokens": [*document["tokens"], token("id", document["id"])]}


def to_payload(document: Document, *, literal: bool = False) -> dict[str, Any]:
    """The payload of a document. `literal` tells whether the index is literal."""
    tokens: dict[str, None] = {}
    found = fields_of(document)
    if literal:
        ordered = [_ordered("id", document.id)]
        found = {path: value for path, value in found.items() if value != {}}
    else:
        key = composed(document.id)
        ordered = [_ordered("id", key)]
        if key != document.id:
            tokens[token("id", key)] = None
        outer = dict.fromkeys(outer for path in found for outer in enclosing(path))
        tokens |= dict.fromkeys(map(token, outer))
        found = {path: comparable(value) for path, value in found.items()}
        if document.title and "title" not in found and "title" not in outer:
            found["title"] = comparable(document.title)
    for field, value in found.items():
        tokens[token(field)] = None
        if isinstance(value, str) and not isinstance(value, Instant):
            tokens[token(field, {})] = None
        several = isinstance(value, list)
        for item in value if several else [value]:
            if isinstance(item, list | Mapping):
                continue  # no filter value equals it, and it has no order
            tokens[token(field, canonical(item))] = None
            if several:
                tokens[token(field, [canonical(item)])] = None
            if isinstance(item, str | int | float) and not isinstance(item, bool):
                entry = _ordered(field, item)
                if several:
                    entry.pop("text", None)
                ordered.append(entry)
    text = {"text": document.text, "title": document.title, "metadata": dump_metadata(document)}
    return {"id": document.id, "document": text, "tokens": list(tokens), "ordered": ordered}


def from_payload(payload: Mapping[str, Any]) -> Document:
    """The document of a point. This is the inverse of `to_payload`."""
    document = payload["document"]
    return Document(payload["id"], document["text"], document["title"], load_metadata(document["metadata"]))


def _uuid(name: str) -> str:
    """The UUID that `uuid.uuid5` gives. A name with a lone surrogate has one, too."""
    raw = _NAMESPACE.bytes + name.encode("utf-8", "surrogatepass")
    return str(UUID(bytes=hashlib.sha1(raw, usedforsecurity=False).digest()[:16], version=5))


def token(*parts: Any) -> str:
    token = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    if len(token) <= _LONGEST_TOKEN and encodable(token):
        return token
    return "#" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> Any:
    """One form for all values that are equal in a filter. Numbers are equal by value, but not to booleans."""
    if isinstance(value, Instant):
        return {"at": value}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ordered(field: str, value: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"field": field, **dict(digits(value))}
    return entry | {"text": value} if type(value) is str else entry


def digits(value: Any) -> Digits:
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")[:ORDERED_BYTES]
        chunks = range(0, min(len(raw) + 1, ORDERED_BYTES), _DIGIT_BYTES)
        letter = "i" if isinstance(value, Instant) else "s"
        return [(f"{letter}{n}", _digit(raw[start : start + _DIGIT_BYTES])) for n, start in enumerate(chunks)]
    first = float(value)
    if abs(first) < _EXACT:
        return [("n0", first)]
    return [("n0", first), ("n1", float(int(value) - int(first)))]


def _digit(raw: bytes) -> float:
    """Six bytes as one number below 257**6 < 2**49. The end of the string sorts before every byte."""
    number = 0
    for place in range(_DIGIT_BYTES):
        number = 257 * number + (raw[place] + 1 if place < len(raw) else 0)
    return float(number)
