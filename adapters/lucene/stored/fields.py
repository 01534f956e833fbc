"""Metadata as Lucene stores it, for the queries that `filters` makes.

A document has two indexed fields however many keys its metadata has, so no document can use up an index's field limit.

`fields.tokens` holds, for each path that a filter can name, tokens that look like the beginning of JSON:

    {"year": 2020, "draft": False, "author": {"name": "Ada"}, "tags": ["gpu", None]}
    year  year=2020  draft  draft=false  author  author.name  author.name="Ada  tags  tags=[  tags="gpu  tags=null

    PATH        it is there and not None      PATH=[     it is a list
    PATH="...   a string                      PATH=~...  the digest of a long string, whose first characters are
    PATH=+...   a further part of it          PATH="...
    PATH=@...   an instant

`filters.comparable` gives the values. The title is added if the metadata has none. An id that is not in Unicode's
composed form is added in that form.

An index of an earlier version is `literal` and stays so: it has only the metadata, and strings as they came.

`fields.points` is for ranges: a number of 128 bits for each number and string, which begins with a digest of the path
and goes on in the order of the values. Lucene has one type for such numbers, made for IPv6 addresses; like all of its
numeric types it finds a range in the time that it takes to list the hits, many times faster than a range of tokens.
The beginning of a string decides most comparisons; where it does not, tokens do.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from functools import lru_cache
from typing import Any

from hybridsearch.documents import Document, Scalar
from hybridsearch.filters import Instant, comparable, composed, enclosing, fields_of

METADATA_MAPPING: dict[str, Any] = {
    "type": "object",
    "dynamic": False,
    "properties": {"tokens": {"type": "keyword", "doc_values": False}, "points": {"type": "ip"}},
}
"""The mapping of the field `fields`, for OpenSearch 3 and Elasticsearch 8 and 9."""

STEP = 4000
"""Characters of a string between the starts of its parts; a part has twice as many, which is the longest in a token.

With 4 bytes for each of them, a path of `_MAX_NAME` characters and the sign between them, a token has at most 32,602
bytes, and Lucene takes 32,766."""

_MAX_NAME = 150


def to_fields(document: Document, *, literal: bool = False) -> dict[str, Any]:
    """What is indexed for filters, under `fields`. The id as it came is not in it: filters read the field `id`.

    >>> to_fields(Document("1", "", metadata={"draft": False, "tags": ["gpu"]}))["tokens"]
    ['draft', 'draft=false', 'tags', 'tags=[', 'tags="gpu']
    """
    tokens: dict[str, None] = {}  # a set in the order of insertion
    points: dict[str, None] = {}
    for path, value in (_literal_fields if literal else _fields)(document).items():
        name = path_name(path)
        tokens[name] = None
        if isinstance(value, list):
            tokens[f"{name}=["] = None
        elif isinstance(value, str):
            for start in range(STEP, len(value) - STEP, STEP):  # overlapping, so that no substring is cut in two
                tokens[f"{name}=+{value[start : start + 2 * STEP]}"] = None
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, (list, dict)):
                continue  # nothing equals these
            tokens[token(name, item)] = None
            if isinstance(item, str):
                points[point(name, kind_of(item), string_key(item))] = None
                if len(item) >= 2 * STEP:
                    tokens[f'{name}="{item[: 2 * STEP]}'] = None
            elif item is not None and not isinstance(item, bool):
                points[point(name, "number", number_key(item))] = None
    fields: dict[str, Any] = {"tokens": list(tokens)} if tokens else {}
    return fields | {"points": list(points)} if points else fields


def _fields(document: Document) -> dict[str, Any]:
    """The value of each path; {} for a mapping."""
    found = fields_of(document)
    fields: dict[str, Any] = {}
    for path, value in found.items():
        fields.update((outer, {}) for outer in enclosing(path) if outer not in found)
        fields[path] = comparable(value)
    if document.title and "title" not in fields:
        fields["title"] = comparable(document.title)
    if (key := composed(document.id)) != document.id:
        fields["id"] = key
    return fields


def _literal_fields(document: Document) -> dict[str, Any]:
    return {path: value for path, value in fields_of(document).items() if value != {}}


def path_name(path: str) -> str:
    """The path as it begins a token: itself, or its digest where it is long or could be taken for something else."""
    plain = len(path) <= _MAX_NAME and "=" not in path and not path.startswith("~") and encodable(path)
    return path if plain else "~" + _digest(path)


def token(name: str, value: Scalar) -> str:
    """The token that equal values of a path share, and no others."""
    if isinstance(value, Instant):
        return f"{name}=@{value}"
    if isinstance(value, str):
        short = len(value) < 2 * STEP and encodable(value)
        return f'{name}="{value}' if short else f"{name}=~{_digest(value)}"
    if value is None:
        return f"{name}=null"
    if isinstance(value, bool):
        return f"{name}=true" if value else f"{name}=false"
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**63)
    return f"{name}={int(value)}" if whole else f"{name}={float(value)!r}"


def point(name: str, kind: str, key: int) -> str:
    """53 bits for path and kind and 74 for the key after a 1 (addresses that begin with zeros can be IPv4 ones)."""
    return (1 << 127 | _name_bits(name, kind) << 74 | key).to_bytes(16).hex(":", 2)


@lru_cache(4096)
def _name_bits(name: str, kind: str) -> int:
    return int(_digest(f"{kind} {name}"), 16) >> 256 - 53


def number_key(value: float) -> int:
    """Below 2**74, in the exact order of integers and floats: the float at or below the value, then what is above it.

    Floats are read as integers of 64 bits that sort like them: positive ones above, negative ones turned around.
    Between neighbouring floats lie at most 1023 integers of 64 bits.
    """
    below = float(value) + 0.0  # no negative zero
    if below > value:
        below = math.nextafter(below, -math.inf)
    (bits,) = struct.unpack(">Q", struct.pack(">d", below))
    bits ^= 2**63 if bits < 2**63 else 2**64 - 1
    return int(bits) << 10 | (value - int(below) if isinstance(value, int) else 0)


def string_key(value: str) -> int:
    """From 1 to 2**72, in the order of the first 9 bytes of UTF-8, which is that of the code points."""
    return int.from_bytes(value[:9].encode()[:9].ljust(9, b"\0")) + 1


def kind_of(value: str) -> str:
    """Of its points."""
    return "instant" if isinstance(value, Instant) else "string"


def encodable(text: str) -> bool:
    """Whether there is no lone surrogate in it; documents hold none, filters may."""
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
