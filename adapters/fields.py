"""The fields of a document's metadata, as filters see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridsearch.documents import Document
from hybridsearch.filters import field_value


def fields_of(document: Document) -> dict[str, Any]:
    """The value of each field that is there and is not None, by its dotted path; the id is left out.

    >>> fields_of(Document("1", "", metadata={"year": 1958, "author": {"name": "Ada", "born": None}}))
    {'year': 1958, 'author.name': 'Ada'}
    """
    found: dict[str, Any] = {}
    dotted = False

    def walk(mapping: Mapping[str, Any], prefix: str) -> None:
        nonlocal dotted
        for key, value in mapping.items():
            dotted = dotted or "." in key
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            else:
                found[f"{prefix}{key}"] = value

    walk(document.metadata, "")
    if dotted:  # one path may mean two places: the filter language decides
        found = {name: field_value(document, name) for name in found}
    return {name: value for name, value in found.items() if value is not None and name != "id"}
