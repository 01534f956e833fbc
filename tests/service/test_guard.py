"""Tests of what the service refuses, and of its limits."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import hybridsearch as hs
from hybridsearch.errors import BackendError, InvalidArgumentError, StorageError
from hybridsearch.service.app import make_app
from hybridsearch.service.bodies import strict_json
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.snippets import Snippet

Ask = Callable[..., Any]
Patch = pytest.MonkeyPatch
SEARCH = "/v1/papers/search"
READ, WRITE = "r" * 20, "w" * 20
TOKENS = f"read:{READ},write:{WRITE}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_each_answer_has_the_headers_that_protect_browsers(ask: Ask) -> None:
    for answer in (ask("GET", "/health"), ask("GET", "/nothing"), ask("POST", SEARCH, content=b"x")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'; ")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert len(answer.headers["x-request-id"]) == 32


def test_a_client_may_name_its_request_but_not_by_anything(ask: Ask) -> None:
    assert ask("GET", "/health", headers={"X-Request-Id": "my-1.a"}).headers["x-request-id"] == "my-1.a"
    assert ask("GET", "/health", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::2]:80"])
def test_a_name_that_is_rebound_to_loopback_is_refused(ask: Ask, host: str) -> None:
    answer = ask("GET", "/health", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_loopback_has_several_names(ask: Ask, host: str) -> None:
    assert ask("GET", "/health", headers={"Host": host}).status_code == 200


def test_another_name_can_be_allowed(ask: Ask) -> None:
    settings = {"allow_host": ["search.example"]}
    assert ask("GET", "/health", settings=settings, headers={"Host": "search.example"}).status_code == 200
    assert ask("GET", "/health", settings=settings, headers={"Host": "other.example"}).status_code == 421
    public = {"host": "192.0.2.1"}
    assert ask("GET", "/health", settings=public, headers={"Host": "other.example"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": "application/x-ndjson"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_send_bodies(ask: Ask, headers: dict[str, str], status: int) -> None:
    sent = {"Content-Type": "application/json"} | headers
    assert ask("POST", SEARCH, headers=sent, content=json.dumps({"query": "battery"})).status_code == status


def test_only_named_origins_may_read_answers(ask: Ask) -> None:
    settings = {"cors": "https://a.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = ask("OPTIONS", SEARCH, settings=settings, tokens=TOKENS, headers=asked | {"Origin": "https://a.example"})
    refused = ask("OPTIONS", SEARCH, settings=settings, tokens=TOKENS, headers=asked | {"Origin": "https://b.example"})
    answer = ask("POST", SEARCH, settings=settings, headers={"Origin": "https://a.example"}, json={"query": "battery"})

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in refused.headers
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")


def test_with_tokens_each_client_needs_one(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for headers in ({}, bearer(READ + "x"), bearer(""), {"Authorization": f"Basic {READ}"}, bearer("ü" * 20)):
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = ask("GET", f"{SEARCH}?q=battery", tokens=TOKENS, headers=raw)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        given = headers.get("Authorization", "").removeprefix("Bearer ")
        kind, part = ("no-token", "needs a token") if given[:5] in ("", "Basic") else ("wrong-token", "not know this")
        assert answer.json()["type"] == f"urn:hybridsearch:error:{kind}"
        assert part in answer.json()["detail"]
        assert READ not in answer.text
    for token in (READ, WRITE):
        assert ask("GET", f"{SEARCH}?q=battery", tokens=TOKENS, headers=bearer(token)).status_code == 200
    assert ask("GET", "/health", tokens=TOKENS).status_code == 200
    assert ask("GET", "/openapi.json", tokens=TOKENS).status_code == 401
    assert READ not in caplog.text


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_refused_before_it_is_read(ask: Ask, declared: bool) -> None:
    body = b'{"query": "' + b"a" * 5000 + b'"}'

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    content: Any = body if declared else parts()
    headers = {"Content-Type": "application/json"}
    answer = ask("POST", SEARCH, settings={"max_search_body": 1000}, headers=headers, content=content)
    assert (answer.status_code, answer.json()["detail"]) == (413, "The body has more than 1,000 bytes.")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not usable JSON"),
        (b"\xff", "not valid UTF-8"),
        (b'{"query": "a", "query": "b"}', "the key 'query' twice"),
        (b'{"query": "a", "min_score": NaN}', "NaN, which is no number"),
        (b'{"query": "a", "min_score": -Infinity}', "-Infinity, which is no number"),
        (b'{"query": "a", "min_score": 1e999}', "1e999 is too large"),
        (b'{"query": "\\ud800"}', "lone surrogate"),
        (b'{"query": "a", "\\udc00": 1}', "lone surrogate"),
        (json.dumps({str(n): n for n in range(1001)}).encode(), "an object has more than 1,000 keys"),
        (b'{"query": "a", "top_k": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
    ],
)
def test_hostile_json_is_refused(ask: Ask, body: bytes, reason: str) -> None:
    answer = ask("POST", SEARCH, headers={"Content-Type": "application/json"}, content=body)
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]


def test_escapes_of_whole_characters_are_read() -> None:
    assert strict_json(b'"\\ud83d\\ude00 \\u00e9"') == "\U0001f600 é"
    with pytest.raises(InvalidArgumentError, match="twice"):
        strict_json(b'{"a": {"b": 1, "b": 2}}')


def test_a_request_takes_limited_time_and_frees_its_work(papers: Path, serving: Any, monkeypatch: Patch) -> None:
    cancelled: list[str] = []

    async def slow(*_: Any, **__: Any) -> list[hs.Results]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append("search")
            raise
        return []

    async def run() -> Any:
        async with serving(papers, max_seconds=1, max_requests=1) as (client, served):
            monkeypatch.setattr(served, "search_many", slow)
            late = await client.get(f"{SEARCH}?q=a")
            monkeypatch.undo()
            return late, await client.get(f"{SEARCH}?q=battery")

    late, next_one = asyncio.run(run())
    assert (late.status_code, late.json()["detail"]) == (503, "The request took longer than 1 s.")
    assert late.headers["retry-after"] == "1"
    assert cancelled == ["search"]
    assert next_one.status_code == 200


def test_more_requests_than_allowed_are_told_to_come_again(papers: Path, serving: Any, monkeypatch: Patch) -> None:
    async def run() -> Any:
        async with serving(papers, max_requests=2) as (client, served):
            begun, finish = asyncio.Event(), asyncio.Event()

            async def slow(*_: Any, **__: Any) -> list[hs.Results]:
                begun.set()
                await finish.wait()
                return [hs.Results("a", ())]

            monkeypatch.setattr(served, "search_many", slow)
            first = [asyncio.create_task(client.get(f"{SEARCH}?q=a")) for _ in range(2)]
            await begun.wait()
            await asyncio.sleep(0)
            refused, health = await client.get(f"{SEARCH}?q=a"), await client.get("/health")
            finish.set()
            return refused, health, await asyncio.gather(*first), await client.get(f"{SEARCH}?q=a")

    refused, health, first, last = asyncio.run(run())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert health.status_code == 200
    assert [answer.status_code for answer in (*first, last)] == [200, 200, 200]


def test_the_work_of_a_client_that_goes_away_is_cancelled(papers: Path, monkeypatch: Patch) -> None:
    async def run() -> list[str]:
        served = ServedIndex("papers", str(papers))
        app = make_app({"papers": served})
        happened: list[str] = []
        begun = asyncio.Event()

        async def slow(*_: Any, **__: Any) -> list[hs.Results]:
            begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                happened.append("cancelled")
            return []

        async def receive() -> dict[str, Any]:
            if not begun.is_set() and not happened:
                happened.append("asked")
                return {"type": "http.request", "body": b"", "more_body": False}
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            happened.append(message["type"])

        monkeypatch.setattr(served, "search_many", slow)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": SEARCH,
            "query_string": b"q=a",
            "headers": [(b"host", b"localhost")],
            "scheme": "http",
            "server": ("localhost", 80),
        }
        await asyncio.wait_for(app(scope, receive, send), 5)
        await served.stop()
        return happened

    assert asyncio.run(run()) == ["asked", "cancelled"]


def test_snippets_that_nobody_waits_for_are_not_made(papers: Path, serving: Any, monkeypatch: Patch) -> None:
    made, ended = [], threading.Event()

    def slow(hit: hs.Hit, *_: Any, **__: Any) -> Any:
        made.append(hit.id)
        ended.wait(5)
        return Snippet(hit.document.text, 0, 1)

    async def run() -> httpx.Response:
        async with serving(papers, max_seconds=1) as (client, _):
            monkeypatch.setattr(hs.Hit, "snippet", slow)
            late = await client.post(SEARCH, json={"query": "battery", "snippets": True})
            ended.set()
            return late

    assert asyncio.run(run()).status_code == 503
    assert len(made) == 1


class NoAnswerError(BackendError):
    """An error of an adapter."""


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (StorageError("/home/somebody/index/7.parquet cannot be read."), 503, "storage"),
        (NoAnswerError("The engine at /home/somebody does not answer."), 503, "backend"),
        (ValueError("/home/somebody"), 500, "failed"),
    ],
)
def test_failures_are_logged_and_not_told(
    papers: Path,
    serving: Any,
    monkeypatch: Patch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    kind: str,
) -> None:
    async def fail(*_: Any, **__: Any) -> list[hs.Results]:
        raise error

    async def run() -> httpx.Response:
        async with serving(papers) as (client, served):
            monkeypatch.setattr(served, "search_many", fail)
            return await client.get(f"{SEARCH}?q=a")

    answer = asyncio.run(run())
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:hybridsearch:error:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "somebody" not in answer.text
    assert "/home/somebody" in caplog.text
