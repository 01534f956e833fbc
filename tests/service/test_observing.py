"""Tests of the metrics and of the log: what they tell, and what they never tell."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import hybridsearch as hs
from hybridsearch.access import Tokens
from hybridsearch.service import logs
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.settings import Settings

KEY = "0123456789abcdef"


@pytest.fixture
def log() -> io.StringIO:
    """The log of the service."""
    stream = io.StringIO()
    logs.configure(stream)
    return stream


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def talk(
    papers: Path, *requests: tuple[str, str, dict[str, Any]], tokens: str = "", **options: Any
) -> list[httpx.Response]:
    """Send requests to one service, one after the other."""

    async def run() -> list[httpx.Response]:
        app = make_app({"papers": ServedIndex("papers", str(papers), **options)}, Settings(), Tokens.parse(tokens))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            return [await client.request(method, path, **more) for method, path, more in requests]

    return asyncio.run(run())


def numbers(text: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text)
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_metrics_count_requests_stages_batches_and_documents(papers: Path) -> None:
    body = {"queries": ["battery", "charge"], "top_k": 1}
    *_, answer = talk(
        papers,
        ("POST", "/v1/papers/search", {"json": body}),
        ("GET", "/v1/papers/search?q=battery", {}),
        ("GET", "/v1/other/search?q=battery", {}),
        ("BREW", "/a/path/that/a/client/made/up", {}),
        ("GET", "/metrics", {}),
    )
    found = numbers(answer.text)
    search = "/v1/{index}/search"
    assert found["hybridsearch_requests_total", search, "200", "POST"] == 1
    assert found["hybridsearch_requests_total", search, "200", "GET"] == 1
    assert found["hybridsearch_requests_total", search, "404", "GET"] == 1
    assert found["hybridsearch_requests_total", "404", "other", "unknown"] == 1
    assert found["hybridsearch_request_seconds_count", search] == 3
    assert found["hybridsearch_batch_queries_sum", "papers"] == 3
    assert found["hybridsearch_batch_queries_count", "papers"] == 2
    for stage in ("encode", "search", "fuse", "fetch"):
        assert found["hybridsearch_stage_seconds_count", *sorted(["papers", stage])] == 2
    assert found["hybridsearch_documents", "papers"] == 3
    assert found["hybridsearch_requests_in_flight",] == 1
    assert "made" not in answer.text
    assert "other/" not in answer.text


def test_metrics_count_searches_without_an_optional_retriever(papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hs.CharNGrams, "encode_queries", lambda *_: 1 / 0)
    *_, answer = talk(papers, ("GET", "/v1/papers/search?q=battery", {}), ("GET", "/metrics", {}), optional=["chars"])
    assert numbers(answer.text)["hybridsearch_degraded_searches_total", "chars", "papers"] == 1


def test_the_log_has_requests_with_their_ids_but_no_query_and_no_token(papers: Path, log: io.StringIO) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "mine-1"}
    found, refused = talk(
        papers,
        ("GET", "/v1/papers/search?q=battery", {"headers": headers}),
        ("POST", "/v1/papers/search", {"json": {"query": "battery"}, "headers": {"Authorization": "Bearer guessed"}}),
        tokens=f"read:{KEY}",
    )
    first, second = (line for line in lines(log) if line["message"] == "request")
    assert first["request_id"] == found.headers["X-Request-Id"] == "mine-1"
    assert second["request_id"] == refused.headers["X-Request-Id"]
    assert (first["status"], first["route"], first["index"]) == (200, "/v1/{index}/search", "papers")
    assert "problem" not in first
    assert (second["status"], second["problem"]) == (401, "wrong-token")
    assert (second["route"], second["index"]) == ("/v1/{index}/search", "papers")
    assert first["seconds"] > 0
    for secret in ("battery", KEY, "guessed"):
        assert secret not in log.getvalue()


def test_the_log_has_queries_if_asked(papers: Path, log: io.StringIO) -> None:
    look = {"query": "saddle", "configurations": [{}, {"candidates": 5}]}
    talk(
        papers,
        ("GET", "/v1/papers/search?q=battery&top_k=1", {}),
        ("POST", "/workbench/papers/look", {"json": look}),
        ("POST", "/workbench/papers/compare", {"json": {"queries": ["frozen"], "configurations": [{}, {}]}}),
        log_queries=True,
    )
    searched, looked, compared = [line for line in lines(log) if line["message"] == "query"]
    assert (searched["index"], searched["query"], len(searched["hits"])) == ("papers", "battery", 1)
    assert (looked["index"], looked["query"], looked["hits"][0]) == ("papers", "saddle", "long")
    assert (compared["query"], compared["hits"][0]) == ("frozen", "über 1")
    assert searched["request_id"] != looked["request_id"]


def test_the_log_has_the_reason_of_a_failure_that_the_client_is_not_told(
    papers: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hs.BM25, "encode_queries", lambda *_: 1 / 0)

    async def skip(*_: Any) -> None:
        pass

    monkeypatch.setattr(ServedIndex, "start", skip)
    [answer] = talk(papers, ("GET", "/v1/papers/search?q=battery", {}))
    assert answer.status_code == 503
    assert "ZeroDivisionError" not in answer.text
    [error] = [line for line in lines(log) if line["level"] == "error"]
    assert "ZeroDivisionError" in error["message"]
    assert error["request_id"] == answer.headers["X-Request-Id"]


def test_probes_are_logged_only_if_they_are_refused(
    papers: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServedIndex, "ready", False)
    elsewhere = {"headers": {"Host": "evil.example"}}
    probes = [("GET", path, dict[str, Any]()) for path in ("/health", "/metrics", "/ready")]
    *_, ready, _ = talk(papers, *probes, ("GET", "/ready", elsewhere))
    assert ready.json()["type"] == "urn:hybridsearch:error:not-ready"
    [line] = [line for line in lines(log) if line["message"] == "request"]
    assert (line["route"], line["status"], line["problem"]) == ("/ready", 421, "unknown-host")


def test_the_log_tells_when_the_service_is_ready_and_when_it_has_stopped(papers: Path, log: io.StringIO) -> None:
    async def run() -> None:
        app = make_app({"papers": ServedIndex("papers", str(papers))})
        async with app.router.lifespan_context(app):
            while "ready" not in log.getvalue():
                await asyncio.sleep(0.01)
            assert "stopped" not in log.getvalue()

    asyncio.run(asyncio.wait_for(run(), 20))
    told = [(line["message"], line["indexes"]) for line in lines(log)]
    assert told == [("ready", ["papers"]), ("stopped", ["papers"])]
