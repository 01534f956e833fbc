"""Tests of documents over HTTP: storing, reading, listing, counting and deleting them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

import hybridsearch as hs
from hybridsearch.errors import BackendError, BulkIndexError, IndexLockedError
from hybridsearch.service import documents
from hybridsearch.service.app import make_app
from hybridsearch.service.indexes import ServedIndex

Asked = Callable[..., list[httpx.Response]]
Patch = pytest.MonkeyPatch
PLACE = "/v1/mine/documents"
LINES = {"Content-Type": "application/x-ndjson"}
READ, WRITE = "r" * 20, "w" * 20


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The folder of an index that a test may change."""
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "mine") as search:
        search.index([{"id": id, "text": f"wing {id}", "year": year} for id, year in (("a", 1), ("b", 2), ("c/ü", 3))])
    return tmp_path / "mine"


@pytest.fixture
def asked(mine: Path, serving: Any) -> Callable[..., list[httpx.Response]]:
    """A function that sends some requests, one after the other, and returns the answers."""

    def send(*requests: tuple[str, str, dict[str, Any]], **settings: Any) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            async with serving(mine, **{"allow_write": True} | settings) as (client, _):
                return [await client.request(method, path, **request) for method, path, request in requests]

        return asyncio.run(run())

    return send


def test_documents_are_stored_read_and_deleted(mine: Path, asked: Asked) -> None:
    stored, read, one, again, deleted, gone, unknown = asked(
        (
            "PUT",
            PLACE,
            {"json": [{"id": "d", "text": "a jet"}, {"id": "a", "text": "wing a", "metadata": {"year": 1}}]},
        ),
        ("GET", f"{PLACE}/d", {}),
        ("PUT", f"{PLACE}/e/f%20%C3%BC", {"json": {"text": "a sail", "title": "Sail", "metadata": {"year": 4}}}),
        ("GET", f"{PLACE}/e%2Ff%20%C3%BC", {}),
        ("DELETE", f"{PLACE}/c/%C3%BC", {}),
        ("GET", f"{PLACE}/c/%C3%BC", {}),
        ("DELETE", f"{PLACE}/nothing", {}),
    )
    assert stored.json() == {"indexed": 1, "unchanged": 1, "refused": [], "notes": []}
    assert read.json() == {"id": "d", "text": "a jet", "title": "", "metadata": {}}
    assert one.json()["indexed"] == 1
    assert again.json() == {"id": "e/f ü", "text": "a sail", "title": "Sail", "metadata": {"year": 4}}
    assert (deleted.json(), unknown.json()) == ({"deleted": 1, "notes": []}, {"deleted": 0, "notes": []})
    assert (gone.status_code, gone.json()["detail"]) == (404, "There is no document with the id 'c/ü'.")
    with hs.open(mine) as search:
        assert [document.id for document in search.documents()] == ["a", "b", "d", "e/f ü"]


def test_of_documents_with_the_same_id_the_last_is_stored(asked: Asked) -> None:
    twice = [{"id": "d", "text": "first"}, {"id": "d", "text": "second"}]
    stored, read = asked(("PUT", PLACE, {"json": twice}), ("GET", f"{PLACE}/d", {}))
    note = "1 document had the same id as a later document. Only the later document is stored."
    assert (stored.json()["indexed"], stored.json()["notes"]) == (1, [note])
    assert read.json()["text"] == "second"


def test_ids_that_repeat_are_counted_however_far_apart_they_are(asked: Asked) -> None:
    lines = [*range(documents.BATCH + 1), 0, 1, 1]
    body = "\n".join(json.dumps({"id": f"n{number}", "text": f"wing {number}"}) for number in lines)
    (stored,) = asked(("PUT", PLACE, {"content": body, "headers": LINES}))
    note = "3 documents had the same id as a later document. Only the later document is stored."
    assert stored.json()["notes"] == [note]


def test_a_document_without_a_text_is_a_mistake_of_the_document(asked: Asked) -> None:
    one, several, other = asked(
        ("PUT", f"{PLACE}/a", {"json": {"txt": "x"}}),
        ("PUT", PLACE, {"json": [{"id": "a", "txt": "x"}]}),
        ("GET", f"{PLACE}?limit=0", {}),
    )
    told = "txt is not known: did you mean 'text'?"
    assert one.json()["detail"].endswith(told)
    for answer, kind in ((one, "document"), (several, "document"), (other, "invalid-argument")):
        assert (answer.status_code, answer.json()["type"]) == (400, f"urn:hybridsearch:error:{kind}")


def test_each_refused_line_is_reported_and_all_others_are_stored(mine: Path, asked: Asked) -> None:
    lines = [
        b'\xef\xbb\xbf{"id": "d", "text": "a jet"}',  # as some editors save a file
        b"not json",
        b"",
        b'{"id": "e"}',
        b'{"text": "no id"}',
        b"[1]",
        b'{"id": "f", "text": 7}',
        b'{"id": "g", "text": "' + b"x" * 1000 + b'"}',
        b'{"id": "h", "text": "\\ud800"}',
        b'{"_id": "i", "text": "a sail", "year": 4}',
        b'{"id": "j", "text": "", "year": 1e999}',
    ]
    (answer,) = asked(("PUT", PLACE, {"headers": LINES, "content": b"\r\n".join(lines)}), max_body=500)

    assert answer.status_code == 200
    assert answer.json()["indexed"] == 2
    refused = {one["line"]: (one["id"], one["reason"]) for one in answer.json()["refused"]}
    assert refused == {
        2: (None, "the line is not usable JSON: Expecting value: line 1 column 1 (char 0)."),
        4: ("e", "the document has no text."),
        5: (None, "the document has no id."),
        6: (None, 'a document is an object such as {"id": "a1", "text": "..."}.'),
        7: ("f", "Document 'f': text is a string, not int 7."),
        8: (None, "the line has more than 500 bytes."),
        9: (None, "the line has a string with a lone surrogate, which is not valid Unicode."),
        11: (None, "the line is not usable JSON: the number 1e999 is too large."),
    }
    with hs.open(mine) as search:
        assert search.count() == 5
        assert search.get("i")[0] == hs.Document("i", "a sail", metadata={"year": 4})


def test_many_lines_are_stored_some_at_a_time(mine: Path, serving: Any, monkeypatch: Patch) -> None:
    monkeypatch.setattr(documents, "BATCH", 10)
    sizes: list[int] = []

    async def parts() -> AsyncIterator[bytes]:
        text = b"".join(json.dumps({"id": f"n{n}", "text": f"word{n} é"}).encode() + b"\n" for n in range(35))
        for start in range(0, len(text), 7):
            yield text[start : start + 7]

    async def run() -> httpx.Response:
        async with serving(mine, allow_write=True) as (client, served):
            index = served.search.index

            def counted(found: Any, **options: Any) -> Any:
                sizes.append(len(found))
                return index(found, **options)

            monkeypatch.setattr(served.search, "index", counted)
            return await client.put(PLACE, headers=LINES, content=parts())

    answer = asyncio.run(run())
    assert answer.json()["indexed"] == 35
    assert sizes == [10, 10, 10, 5]


def test_a_body_of_garbage_is_not_read_to_its_end(mine: Path, asked: Asked, monkeypatch: Patch) -> None:
    monkeypatch.setattr(documents, "MOST_REFUSED", 3)
    content = b'{"id": "x", "text": "y"}\n' + b"garbage\n" * 10
    answer, count = asked(("PUT", PLACE, {"headers": LINES, "content": content}), ("GET", "/v1/mine/count", {}))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "3 documents were refused, so nothing after line 4 was read."
    assert [one["line"] for one in answer.json()["refused"]] == [2, 3, 4]
    assert (answer.json()["indexed"], count.json()) == (1, {"count": 4, "notes": []})


def test_documents_that_the_engine_refuses_are_reported_too(mine: Path, serving: Any, monkeypatch: Patch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise BulkIndexError([("y", "the field is full")])

    async def run() -> list[httpx.Response]:
        async with serving(mine, allow_write=True) as (client, served):
            monkeypatch.setattr(served.search, "index", refuse)
            many = await client.put(PLACE, json=[{"id": "x", "text": "a"}, {"id": "y", "text": "b"}])
            return [many, await client.put(f"{PLACE}/y", json={"text": "b"})]

    many, one = asyncio.run(run())
    assert many.json()["indexed"] == 1
    assert many.json()["refused"] == [{"line": 2, "id": "y", "reason": "the field is full"}]
    assert one.status_code == 400


def test_a_failure_tells_what_was_stored_before_it(mine: Path, serving: Any, monkeypatch: Patch) -> None:
    monkeypatch.setattr(documents, "BATCH", 1)

    async def run() -> httpx.Response:
        async with serving(mine, allow_write=True) as (client, served):
            index, calls = served.search.index, iter([False, True])

            def locked_later(found: Any, **options: Any) -> Any:
                if next(calls):
                    raise IndexLockedError(f"Another process writes to {mine}.")
                return index(found, **options)

            monkeypatch.setattr(served.search, "index", locked_later)
            return await client.put(PLACE, json=[{"id": "x", "text": "a"}, {"id": "y", "text": "b"}])

    answer = asyncio.run(run())
    assert (answer.status_code, answer.json()["indexed"]) == (503, 1)
    assert str(mine) not in answer.text


def test_documents_are_listed_in_parts(mine: Path, serving: Any) -> None:
    async def run() -> list[Any]:
        async with serving(mine, allow_write=True) as (client, _):
            first = (await client.get(PLACE, params={"limit": 2, "sort": "-year"})).json()
            after = {"limit": 2, "sort": "-year", "after": first["cursor"]}
            second = (await client.get(PLACE, params=after)).json()
            chosen = (await client.get(PLACE, params={"filter": '{"yeer": 1}'})).json()
            wrong = await client.get(PLACE, params={"after": "x"})
            return [first, second, chosen, wrong]

    first, second, chosen, wrong = asyncio.run(run())
    assert [[document["id"] for document in part["documents"]] for part in (first, second)] == [["c/ü", "b"], ["a"]]
    assert second["cursor"] is None
    assert chosen["notes"] == ["The filter asks about 'yeer', but no document has this field."]
    assert wrong.status_code == 404
    assert wrong.json()["detail"].startswith("after is 'x', which is not a cursor")


def test_documents_are_counted_and_deleted_by_a_filter(mine: Path, asked: Asked) -> None:
    counted, misspelt, deleted, left, neither, wrong, empty, deep = asked(
        ("GET", "/v1/mine/count", {"params": {"filter": '{"year": {"$gte": 2}}'}}),
        ("GET", "/v1/mine/count", {"params": {"filter": '{"yeer": 2}'}}),
        ("POST", f"{PLACE}/delete", {"json": {"filter": {"year": {"$gte": 3}}}}),
        ("GET", "/v1/mine/count", {}),
        ("POST", f"{PLACE}/delete", {"json": {}}),
        ("GET", "/v1/mine/count", {"params": {"filter": "{"}}),
        ("POST", f"{PLACE}/delete", {"json": {"filter": {}}}),
        ("GET", "/v1/mine/count", {"params": {"filter": '{"$not":' * 30 + '{"a": 1}' + "}" * 30}}),
    )
    assert (counted.json(), left.json()) == ({"count": 2, "notes": []}, {"count": 2, "notes": []})
    assert deleted.json() == {"deleted": 1, "notes": []}
    note = "The filter asks about 'yeer', but no document has this field."
    assert misspelt.json() == {"count": 0, "notes": [note]}
    assert [answer.status_code for answer in (neither, wrong, empty, deep)] == [400] * 4
    assert deep.json()["detail"].startswith("The filter is too large: at most 20 levels")


@pytest.fixture
def writes() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        ("PUT", PLACE, {"json": []}),
        ("PUT", f"{PLACE}/x", {"json": {"text": "x"}}),
        ("DELETE", f"{PLACE}/x", {}),
        ("POST", f"{PLACE}/delete", {"json": {"ids": ["x"]}}),
    ]


def test_only_some_may_write(asked: Asked, writes: list[tuple[str, str, dict[str, Any]]]) -> None:
    def statuses(token: str | None = None, **settings: Any) -> list[int]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        sent = [(method, path, request | {"headers": headers}) for method, path, request in writes]
        return [answer.status_code for answer in asked(*sent, **settings)]

    tokens = f"read:{READ},write:{WRITE}"
    assert statuses(allow_write=False) == [403] * 4
    assert statuses(allow_write=True) == [200] * 4
    assert statuses(READ, tokens=tokens, allow_write=True) == [403] * 4
    assert statuses(WRITE, tokens=tokens) == [200] * 4
    assert statuses(tokens=tokens) == [401] * 4


def test_clients_are_not_told_the_folders_of_models(tmp_path: Path, serving: Any) -> None:
    judged = hs.JudgedFusion({"bm25": 1.0}, judge="Dense('/data/models/minilm')")
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "judged", fusion=judged) as search:
        search.index([{"id": "a", "text": "wing"}], show_progress_bar=False)

    async def run() -> list[httpx.Response]:
        async with serving(tmp_path / "judged") as (client, _):
            look = await client.post("/workbench/judged/look", json={"query": "wing"})
            return [
                await client.get("/v1"),
                await client.get("/v1/judged"),
                await client.get("/workbench/judged"),
                look,
            ]

    for answer in asyncio.run(run()):
        assert "Dense('minilm')" in answer.text
        assert "/data" not in answer.text


def test_an_index_that_does_not_answer_is_named_and_the_others_are_listed(papers: Path, mine: Path) -> None:
    indexes = {name: ServedIndex(name, str(place)) for name, place in (("papers", papers), ("mine", mine))}

    def away() -> int:
        raise BackendError("The engine at /secret does not answer.")

    with TestClient(make_app(indexes), base_url="http://localhost") as client:
        assert client.get("/v1").json()["not_answering"] == []
        indexes["papers"].search.count = away  # type: ignore[method-assign, assignment]
        answer = client.get("/v1")
        assert (answer.status_code, "/secret" in answer.text) == (200, False)
        assert [one["name"] for one in answer.json()["indexes"]] == ["mine"]
        assert answer.json()["not_answering"] == ["papers"]


def test_an_index_is_described_and_explains_itself(mine: Path, asked: Asked) -> None:
    listed, one, explained, unknown, ready = asked(
        ("GET", "/v1", {}),
        ("GET", "/v1/mine", {}),
        ("POST", "/v1/mine/explain", {"json": {"query": "wing", "id": "c/ü"}}),
        ("POST", "/v1/mine/explain", {"json": {"query": "wing", "id": "x"}}),
        ("GET", "/ready", {}),
    )
    (of_list,) = listed.json()["indexes"]
    assert of_list == one.json() | {"ready": of_list["ready"]}
    assert of_list["documents"] == 3
    assert of_list["retrievers"]["bm25"]["kind"] == "lexical"
    assert str(mine.parent) not in listed.text
    assert explained.json()["rank"] == 3
    assert unknown.status_code == 404
    assert ready.status_code in (200, 503)


def test_any_bytes_are_lines_that_are_stored_or_refused(mine: Path, serving: Any) -> None:
    random = Random(1)
    parts = [
        b'\n{"id": "%d", "text": "y"}\n',
        b'{"id": "',
        b'", "text": "',
        b'"}',
        b"\n",
        b"\r\n",
        b"[1]",
        b"\\ud800",
        b"\xff",
        b"\x00",
        b"a",
    ]
    chosen = ([part.replace(b"%d", b"%d" % n) for n, part in enumerate(random.choices(parts, k=60))] for _ in range(40))
    bodies = [b"".join(of_body) for of_body in chosen]

    async def run() -> list[httpx.Response]:
        async with serving(mine, allow_write=True) as (client, _):
            return [await client.put(PLACE, headers=LINES, content=body) for body in bodies]

    stored = 0
    for body, answer in zip(bodies, asyncio.run(run()), strict=True):
        assert answer.status_code == 200
        report = answer.json()
        read = report["indexed"] + report["unchanged"] + len(report["refused"])
        assert read == sum(bool(line.strip()) for line in body.split(b"\n"))
        stored += report["indexed"]
    assert stored > 0
