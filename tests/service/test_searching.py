"""Tests of searches over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hybridsearch as hs

Ask = Callable[..., Any]


def test_an_answer_is_the_dict_of_the_results(ask: Ask, papers: Path) -> None:
    answer = ask("POST", "/v1/papers/search", json={"query": "charge the battery", "top_k": 2})

    with hs.open(papers) as search:
        expected = search.search("charge the battery", 2).to_dict()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() | {"timings": {}} == expected | {"timings": {}}


def test_all_arguments_of_a_search_work(ask: Ask, papers: Path) -> None:
    same: dict[str, Any] = {
        "offset": 1,
        "filter": {"id": {"$in": ["manual/alder", "long", "über 1"]}},
        "retrievers": ["bm25", "chars"],
        "candidates": 50,
        "min_score": 0.01,
        "group_by": "year",
    }
    body = same | {
        "query": "charge the battery",
        "top_k": 5,
        "fusion": {"type": "rrf", "k": 10, "weights": {"bm25": 2, "chars": 1}},
        "rerank": False,
        "boost": [
            {"type": "recency", "field": "published", "half_life": "0.5y", "weight": 0.5},
            {"type": "field", "where": {"year": 2023}, "weight": 5},
            {"type": "field", "where": "year"},
        ],
        "diversity": {"relevance": 0.5, "retriever": "bm25"},
        "feedback": {"rm3": {"documents": 2, "max_share": 1}},
        "snippets": {"length": 40},
        "explain": True,
    }
    found = ask("POST", "/v1/papers/search", json=body).json()["hits"]

    with hs.open(papers) as search:
        expected = search.search(
            "charge the battery",
            5,
            fusion=hs.RRF(10, {"bm25": 2, "chars": 1}),
            boost=[hs.Recency("published", "0.5y", 0.5), hs.FieldBoost({"year": 2023}, 5), hs.FieldBoost("year")],
            diversity=hs.MMR(0.5, retriever="bm25"),
            feedback=hs.RM3(2, max_share=1),
            **same,
        )
        snippets = [hit.snippet(40, models=False).to_dict() for hit in expected]
        told = [explanation.to_dict() for explanation in expected.explain()]
    assert len(expected) == 2
    assert [hit["id"] for hit in found] == expected.ids
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in expected], rel=1e-6)
    assert [hit["snippet"] for hit in found] == snippets
    for member in ("terms", "feedback"):
        assert [hit["explanation"][member] for hit in found] == [one[member] for one in told]


def test_several_queries_are_searched_together(ask: Ask) -> None:
    found = ask("POST", "/v1/papers/search", json={"queries": ["saddle", "frozen"], "top_k": 1, "fusion": "minmax"})
    assert [[hit["id"] for hit in results["hits"]] for results in found.json()["results"]] == [["long"], ["über 1"]]


def test_a_search_without_a_retriever_to_ask_is_a_conflict(ask: Ask) -> None:
    fusion = {"type": "rrf", "weights": {"bm25": 0, "chars": 1}}
    answer = ask("POST", "/v1/papers/search", json={"query": "battery", "retrievers": ["bm25"], "fusion": fusion})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:hybridsearch:error:no-retriever")


def test_feedback_takes_what_python_takes(ask: Ask) -> None:
    assert hs.Rocchio(beta=0).beta == 0
    answer = ask("POST", "/v1/papers/search", json={"query": "a", "feedback": {"rocchio": {"beta": 0}}})
    assert answer.json()["detail"].startswith("Rocchio is feedback for dense and sparse retrievers")  # it was made


def test_a_browser_asks_by_a_query_string(ask: Ask) -> None:
    filtered = ask("GET", "/v1/papers/search", params={"q": "battery", "filter": '{"year": 2020}'}).json()
    assert [hit["id"] for hit in filtered["hits"]] == ["manual/alder"]
    wrong = ask("GET", "/v1/papers/search", params={"q": "battery", "filter": "[1]"})
    assert (wrong.status_code, wrong.json()["type"]) == (400, "urn:hybridsearch:error:filter")
    found = ask("GET", "/v1/papers/search?q=frozen%20battery&top_k=1&snippets=true").json()
    assert [(hit["id"], hit["snippet"]["text"]) for hit in found["hits"]] == [
        ("über 1", "Never charge a battery that is frozen.")
    ]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "A search takes query or queries, but neither is given: give one of them."),
        ({"query": "a", "queries": ["b"]}, "A search takes query or queries, but both are given: give one of them."),
        (
            {"query": "a", "top_k": "3", "topk": 3},
            "top_k is '3', but it must be a whole number. topk is not known: did you mean 'top_k'?",
        ),
        (
            {"query": "a", "boost": [{"type": "recency", "fild": "year", "field": "year"}]},
            "boost[0].fild is not known: did you mean 'field'?",
        ),
        (
            {"query": "a", "fusion": "rff"},
            "fusion is 'rff', but it must be one of 'rrf', 'minmax', 'zscore' or 'adaptive'.",
        ),
        ({"query": "a", "fusion": {"type": "rrf", "k": -1}}, "fusion.k is -1, but it must be at least 0."),
        ({"query": "a", "snippets": {"length": 0}}, "snippets.length is 0, but it must be at least 1."),
        (
            {"query": "a", "boost": [{"type": "field", "field": "n"}]},
            "boost[0].where is missing. boost[0].field is not",
        ),
        ({"query": "a", "top_k": 1001}, "top_k is 1001, but it must be at most 1000."),
        ({"query": "a" * 2001}, "query has too many characters: at most 2000 are allowed."),
        ({"queries": ["a"] * 11, "top_k": 1000}, "11 queries with 1,000 hits each are too much: a request has at most"),
        ({"queries": ["a"] * 101}, "queries has too many entries: at most 100 are allowed."),
        ({"query": "a", "candidates": 10**6}, "candidates is 1000000, but it must be at most 10000."),
        ({"query": "a", "retrievers": ["x"]}, "retrievers names 'x', which is not a retriever of this index."),
        ({"query": "a", "filter": {"year": {"$newer": 1}}}, """filter['year'] has the unknown operator "$newer":"""),
    ],
)
def test_a_mistake_is_told_as_a_problem(ask: Ask, body: dict[str, Any], sentence: str) -> None:
    answer = ask("POST", "/v1/papers/search", json=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(sentence)
    assert "[function-" not in answer.json()["detail"]
    assert answer.json()["type"] == f"urn:hybridsearch:error:{'filter' if 'filter' in body else 'invalid-argument'}"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "detail"),
    [
        ("GET", "/v1/others/search?q=a", 404, "unknown-index", "There is no index 'others'. The indexes are 'papers'."),
        (
            "GET",
            "/v1/papers/search?q=a&topk=1",
            400,
            "invalid-argument",
            "topk is not known: did you mean 'top_k'?",
        ),
        (
            "GET",
            "/v1/papers/search?q=a&top_k=x",
            400,
            "invalid-argument",
            "top_k is 'x', but it must be a whole number.",
        ),
        (
            "GET",
            "/v1/papers/search?q=a&q=b",
            400,
            "invalid-argument",
            "q is given more than once: give it once.",
        ),
        (
            "GET",
            "/v1/papers/search?q=a&filter=%7B%22year",
            400,
            "invalid-argument",
            "The filter is not usable JSON: Unterminated string starting at: line 1 column 2 (char 1).",
        ),
        (
            "GET",
            "/v1/papers/search?q=caf%E9",
            400,
            "invalid-argument",
            "The address is not valid UTF-8: percent-encode its text as UTF-8.",
        ),
        (
            "GET",
            "/v1/papers/documents/caf%E9",
            400,
            "invalid-argument",
            "The address is not valid UTF-8: percent-encode its text as UTF-8.",
        ),
        ("GET", "/v1/papers?q=a", 400, "invalid-argument", "q is not known. There are no parameters here."),
        ("GET", "/nothing", 404, "unknown-address", "There is nothing at this address."),
        ("PATCH", "/v1/papers/search", 405, "unknown-method", "This address does not take PATCH."),
    ],
)
def test_an_address_that_is_not_known_is_a_problem_too(
    ask: Ask, method: str, path: str, status: int, kind: str, detail: str
) -> None:
    answer = ask(method, path)
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert answer.json()["type"] == f"urn:hybridsearch:error:{kind}"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("search", "GET, POST"),
        ("documents", "GET, PUT"),
        ("documents/a", "DELETE, GET, PUT"),
        ("documents/delete", "POST"),
    ],
)
def test_an_address_tells_all_its_methods(ask: Ask, path: str, methods: str) -> None:
    answer = ask("OPTIONS", f"/v1/papers/{path}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


def test_a_reranker_that_the_index_does_not_have_is_noted(ask: Ask) -> None:
    told, left = (
        ask("POST", "/v1/papers/search", json={"query": "battery", "top_k": 1} | more).json()
        for more in ({"rerank": True}, {})
    )
    assert told["notes"] == ["rerank has no effect, because the index has no reranker."]
    assert left["notes"] == []
