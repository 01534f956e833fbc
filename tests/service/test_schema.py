"""Tests of the service against its own description in OpenAPI: schemathesis sends what fits it, and what does not.

The command `schemathesis run URL/openapi.json -c all --phases coverage,fuzzing,stateful` sends some thousand requests
more, in half an hour.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="pip install schemathesis")

from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode, openapi
from schemathesis.checks import CHECKS

import hybridsearch as hs
from hybridsearch.access import Tokens
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings

TOKEN = "w" * 20
EXAMPLES = int(os.environ.get("HYBRIDSEARCH_SCHEMA_EXAMPLES", "5"))
"""Number of requests of each kind for each operation. A long run has 500."""

OPERATIONS = [
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /v1",
    "GET /v1/{index}",
    "GET /v1/{index}/search",
    "POST /v1/{index}/search",
    "POST /v1/{index}/explain",
    "GET /v1/{index}/documents",
    "PUT /v1/{index}/documents",
    "GET /v1/{index}/documents/{id}",
    "PUT /v1/{index}/documents/{id}",
    "DELETE /v1/{index}/documents/{id}",
    "POST /v1/{index}/documents/delete",
    "GET /v1/{index}/count",
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a service whose clients need a token."""
    folder = str(tmp_path_factory.mktemp("described") / "papers")
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, folder) as search:
        search.index([{"id": "a", "text": "a wing", "year": 1958}, {"id": "b", "text": "a jet"}])
    served = ServedIndex("papers", folder)
    app = make_app({"papers": served}, Settings(), Tokens.parse(f"write:{TOKEN}"))
    app.router.lifespan_context = lambda _: nullcontext()  # schemathesis would start and stop the service several times
    asyncio.run(served.start())
    schema = openapi.from_dict(app.openapi())
    schema.app = app
    yield schema
    served.search.close()


def fits(case: Any) -> bool:
    """Whether a request fits what OpenAPI cannot say about the number of hits and the fields of an order."""
    body = case.body if isinstance(case.body, dict) else {}
    sort = [name.removeprefix("-") for name in (case.query or {}).get("sort", [])]
    return len(body.get("queries") or ()) * body.get("top_k", 10) <= 10_000 and len(sort) == len({*sort})


def test_the_description_has_all_operations(described: Any) -> None:
    assert sorted(result.ok().label for result in described.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_as_described(described: Any, label: str) -> None:
    operation = next(one for result in described.get_all_operations() if (one := result.ok()).label == label)
    sent = send(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), fits)
    if "{" in label:  # else there is nothing to be wrong
        sent += send(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), lambda _: True)
    assert sent > 0


def send(cases: Any, chosen: Callable[[Any], bool]) -> int:
    """Send some requests, and check the answers. Returns their number."""
    sent = 0

    @seed(1)
    @settings(max_examples=EXAMPLES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases)
    def check(case: Any) -> None:
        nonlocal sent
        if chosen(case):
            sent += 1
            case.call_and_validate(
                checks=CHECKS.get_all(), headers={"Host": "localhost", "Authorization": f"Bearer {TOKEN}"}
            )

    check()
    return sent


def test_weights_are_of_the_retrievers_of_one_index_and_follow_the_indexes(tmp_path: Path) -> None:
    indexes = {}
    for name, encoders in {"words": {"bm25": hs.BM25()}, "both": {"bm25": hs.BM25(), "chars": hs.CharNGrams()}}.items():
        with hs.HybridSearch(encoders, tmp_path / name) as search:
            search.index([{"id": "a", "text": "a wing"}])
        indexes[name] = ServedIndex(name, str(tmp_path / name))
    app = make_app(indexes, Settings())
    weights = app.openapi()["components"]["schemas"]["Weights"]
    assert (list(weights["properties"]), weights["required"]) == (["bm25", "chars"], ["bm25"])
    app.state.indexes.pop("words")  # as if the index at its place had other retrievers now
    assert app.openapi()["components"]["schemas"]["Weights"]["required"] == ["bm25", "chars"]
    for served in indexes.values():
        asyncio.run(served.stop())
