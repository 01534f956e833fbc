"""The servers of the tests, and requests to them without the library, as another program would make them.

The URL of a server may use https and have `user:password@`. Credentials and the CA file may also be in the environment,
as for `Address`. So the same tests run with a secured server.
"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import Any

import orjson
import pytest

from hybridsearch.adapters.lucene.wire.connection import Address

_ENGINES = {"opensearch": "OpenSearch", "elasticsearch": "Elasticsearch"}


def server_of(*engines: str) -> str:
    """`ENGINE://host:port` of the first engine that HYBRIDSEARCH_TEST_<ENGINE> names. Skips if there is none."""
    for engine in engines:
        if url := os.environ.get(f"HYBRIDSEARCH_TEST_{engine.upper()}"):
            scheme, _, rest = url.rstrip("/").partition("://")
            return f"{engine}+https://{rest}" if scheme == "https" else f"{engine}://{rest}"
    variable = f"HYBRIDSEARCH_TEST_{engines[0].upper()}"
    pytest.skip(f"no server: start one with `docker compose up {engines[0]}`, and set {variable} to its URL")


def address_of(location: str) -> Address:
    """The address of an index, from its URL."""
    return Address.parse(location, _ENGINES[location.partition(":")[0].partition("+")[0]])


def call(address: Address, method: str, path: str, body: Any = None, *, allowed: Collection[int] = ()) -> Any:
    """The answer to one request. It is repeated while other tests keep the server busy.

    The body is JSON. Bytes are a stream of SMILE or lines of JSON. An error fails the test, unless its HTTP status is
    `allowed`.
    """
    raw = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
    if raw is not None and raw.startswith(b":)"):
        kind = "application/smile"
    headers = {"accept": "application/json", "content-type": kind, **address.headers}
    request = urllib.request.Request(f"{address.urls[0]}{path}", raw, headers, method=method)  # noqa: S310
    for pause in (1, 2, 4, 8, None):
        try:
            with urllib.request.urlopen(request, timeout=60, context=address.ssl_context()) as answer:  # noqa: S310
                return orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            if error.code in allowed:
                return orjson.loads(text)
            if error.code != 429 or pause is None:
                pytest.fail(f"{method} {path}: HTTP {error.code} {text:.2000}")
            time.sleep(pause)
    raise AssertionError
