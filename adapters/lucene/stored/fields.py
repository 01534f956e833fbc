"""The fields that hold metadata for filters. `query.filters` makes the queries on them.

A document has two indexed fields, `fields.tokens` and `fields.points`, however many keys its metadata has. So no
document can use up the field limit of an index.

`fields.tokens` holds tokens for each path that a filter can name. A token looks like the beginning of JSON:

    {"year": 2020, "draft": False, "author": {"name": "Ada"}, "tags": ["gpu", None]}
    year  year=2020  draft  draft=false  author  author.name  author.name="Ada  tags  tags=[  tags="gpu  tags=null

    PATH        the value is there and not None
    PATH=[      the value is a list
    PATH="...   the value is a string (of a long string: its first characters)
    PATH=+...   a later part of a long string
    PATH=~...   the digest of a long string
    PATH=@...   the value is an instant

`filters.comparable` gives the values. If the metadata has no title, the title of the document is added. If an id is not
in Unicode's composed form, the composed form is added.

An index of an earlier version is `literal` and stays so. It has only the metadata, with the strings as they came.

`fields.points` is for ranges. It holds a number of 128 bits for each number and string of the metadata. The number
begins with a digest of the path, and the rest is in the order of the values. Lucene's only type of this size is made
for IPv6 addresses. It finds a range in the time that it takes to list the hits, many times faster than a range of
tokens. Points hold only the beginning of a string. If that does not decide a comparison, tokens do.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from hybridsearch.adapters.checks import encodable
from hybridsearch.documents import Document, Scalar
from hybridsearch.filters import Instant, comparable, composed, enclosing, fields_of
from hybridsearch.listing import number_key

METADATA_MAPPING: dict[str, Any] = {
    "type": "object",
    "dynamic": False,
    "properties": {"tokens": {"type": "keyword", "doc_values": False}, "points": {"type": "ip"}},
}
"""The mapping of the field `fields`, for OpenSearch 3 and Elasticsearch 8 and 9."""

STEP = 4000
"""Number of characters between the starts of two parts of a long string. A part has twice as many characters.

A token has at most a path of `_MAX_NAME` characters, a sign, and one part. With 4 bytes for each character, this is
32,602 bytes. Lucene takes 32,766."""

_MAX_NAME = 150


def to_fields(document: Document, *, literal: bool = False) -> dict[str, Any]:
    """The content of the field `fields`, which filters search. It has no id, because filters read the field `id`.

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
                continue  # no filter value equals these
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
    """The value of each path. A mapping has the value {}."""
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
    """The start of a token: the path, or its digest if the path is long or could be mistaken for something else."""
    plain = len(path) <= _MAX_NAME and "=" not in path and not path.startswith("~") and encodable(path)
    return path if plain else "~" + _digest(path)


def token(name: str, value: Scalar) -> str:
    """The token of a value. Equal values of a path have the same token, and different values have different ones."""
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
    """The point of a value: a 1, then 53 bits for path and kind, then 74 bits for the key.

    The 1 is there because an address that begins with zeros can be an IPv4 address.
    """
    return (1 << 127 | _name_bits(name, kind) << 74 | key).to_bytes(16).hex(":", 2)


@lru_cache(4096)
def _name_bits(name: str, kind: str) -> int:
    return int(_digest(f"{kind} {name}"), 16) >> 256 - 53


def string_key(value: str) -> int:
    """The key of a string: an integer from 1 to 2**72, in the order of the first 9 bytes of its UTF-8.

    This is also the order of the code points.
    """
    return int.from_bytes(value[:9].encode()[:9].ljust(9, b"\0")) + 1


def kind_of(value: str) -> str:
    """The kind of a string's points: "instant" or "string"."""
    return "instant" if isinstance(value, Instant) else "string"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
