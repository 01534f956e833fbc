"""The place of a collection of Qdrant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hybridsearch.arguments import path as checked_path
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import redacted

API_KEY = "HYBRIDSEARCH_QDRANT_API_KEY"
"""The environment variable for the API key, used if neither the argument nor the URL has a key."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a collection.

    Attributes:
        collection: Name of the collection.
        url: URL of the server. None for an embedded engine.
        folder: Folder of an embedded engine. None for a server, and for an engine in RAM.
        shown: The place as messages show it, without secrets.
        key: API key in the URL, or None.
    """

    collection: str
    url: str | None
    folder: Path | None
    shown: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, location: str) -> Place:
        """The place that a URL means.

        The URL is `qdrant://:memory:/name`, `qdrant:///a/folder/name`, `qdrant://host:6333/name` or
        `qdrant+https://host:6333/name`.

        Raises:
            InvalidArgumentError: The URL has none of these forms.

        >>> Place.parse("qdrant+https://:secret@search.example.org:6333/papers").shown
        'qdrant+https://***@search.example.org:6333/papers'
        """
        match = re.fullmatch(r"qdrant(\+https?)?://(.*)/([^/]+)", location, re.DOTALL)
        shown = redacted(location)
        if match is None:
            raise InvalidArgumentError(
                f"{shown!r:.200} names no Qdrant collection: write qdrant://host:6333/name, qdrant://:memory:/name or "
                "qdrant:///a/folder/name."
            )
        name = check_name(unquote(match[3]))
        scheme, middle = match[1], match[2]
        if not scheme and middle == ":memory:":
            return cls(name, None, None, shown)
        if not scheme and not middle.strip("/"):
            raise InvalidArgumentError(f"{shown!r:.200} lacks a folder or a collection: write qdrant:///a/folder/name.")
        if not scheme and middle.startswith("/"):
            return cls(name, None, checked_path("The folder of the index", middle), shown)
        try:
            url = urlsplit(f"{'https' if scheme == '+https' else 'http'}://{middle}")
            host, port = url.hostname, url.port or 6333
        except ValueError as error:
            raise InvalidArgumentError(
                f"{shown!r:.200} has no usable host ({error}): write qdrant://host:6333/name."
            ) from error
        if "@" in url.path:
            raise InvalidArgumentError(
                f"The API key in the URL contains '/', so the host is not clear: write '/' as %2F, or give the key as "
                f"{API_KEY}."
            )
        if not host:
            raise InvalidArgumentError(f"{shown!r:.200} names no host: write qdrant://host:6333/name.")
        host = f"[{host}]" if ":" in host else host
        key = unquote(url.password or url.username or "") or None
        return cls(name, f"{url.scheme}://{host}:{port}{url.path.rstrip('/')}", None, shown, key)


def check_name(name: str) -> str:
    """`name`. Raises InvalidArgumentError if a collection cannot have this name."""
    if not re.fullmatch(r'[^<>:"/\\|?*\x00-\x1f]{1,240}', name):
        raise InvalidArgumentError(
            f"{name!r:.80} cannot be the name of a Qdrant collection: use 1 to 240 characters, no control characters "
            'and none of <>:"/\\|?*.'
        )
    return name
