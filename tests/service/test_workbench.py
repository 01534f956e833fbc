"""Tests of the addresses that the page asks. tests/service/test_page.py tests what a person sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="pip install 'hybridsearch[serve]'")

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.service import indexes
from hybridsearch.service.agreement import rank_biased_overlap
from hybridsearch.service.workbench import read_query_sets

Ask = Callable[..., Any]


def test_look_has_all_rankings_and_what_can_be_shown(ask: Ask, papers: Path) -> None:
    body: dict[str, Any] = {
        "query": "charge the battery",
        "filter": {"year": {"$exists": True}},
        "configurations": [
            {},
            {"fusion": {"type": "rrf", "k": 1, "weights": {"bm25": 0, "chars": 1}}, "candidates": 1},
        ],
    }
    found = ask("POST", "/workbench/papers/look", json=body).json()
    with hs.open(papers) as search:
        (rankings,) = search.rankings([body["query"]], filter=body["filter"])
        expected = search.search(body["query"], filter=body["filter"])
    assert {name: of["ids"] for name, of in found["retrievers"].items()} == {
        name: list(of.ids) for name, of in rankings.items()
    }
    own, other = found["systems"]
    assert own["fused"]["ids"] == expected.ids
    assert own["fused"]["scores"] == [hit.score for hit in expected]
    assert other["fused"]["ids"] == list(rankings["chars"].ids[:1])
    first = found["documents"]["manual/alder"]
    assert first["title"] == "Alder"
    assert ["Charge", True] in first["snippet"]
    assert "".join(text for text, _ in first["snippet"]) == "Charge the battery indoors."


def test_documents_without_a_retriever_are_explained_too(ask: Ask) -> None:
    found = ask("POST", "/workbench/papers/explain", json={"query": "zzz", "id": "über 1"}).json()
    assert (found["rank"], found["retrievers"]) == (None, {})
    assert found["document"]["text"] == [["Never charge a battery that is frozen.", [], False]]


def test_a_document_that_the_configuration_does_not_find_has_no_rank(ask: Ask) -> None:
    fusion = {"type": "rrf", "weights": {"bm25": 1, "chars": 0}}
    body = {"query": "charg", "id": "über 1", "configuration": {"fusion": fusion}}
    assert ask("POST", "/workbench/papers/explain", json={**body, "configuration": {}}).json()["rank"] is not None
    found = ask("POST", "/workbench/papers/explain", json={**body, "filter": {"year": 2020}}).json()
    assert (found["rank"], found["retrievers"]) == (None, {})
    found = ask("POST", "/workbench/papers/explain", json={**body, "query": "neverr"}).json()
    assert (found["rank"], found["fused_rank"], found["retrievers"]) == (None, None, {})
    assert found["fusion"] == "RRF(weights={'bm25': 1.0, 'chars': 0.0}, k=60)"
    assert ask("POST", "/workbench/papers/explain", json={**body, "id": "none"}).status_code == 400


def explained(serving: Any, folder: Path, query: str, id: str) -> dict[str, Any]:
    """The document of an explanation, from a service of the index in a folder."""

    async def ask() -> dict[str, Any]:
        async with serving(folder) as (client, _):
            answer = await client.post(f"/workbench/{folder.name}/explain", json={"query": query, "id": id})
            found: dict[str, Any] = answer.json()["document"]
            return found

    return asyncio.run(ask())


def test_a_long_text_is_cut_and_says_so(serving: Any, tmp_path: Path) -> None:
    text = "one two three " * 3000
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "books") as search:
        search.upsert({"id": "book", "text": text})
    found = explained(serving, tmp_path / "books", "three", "book")
    shown = "".join(part for part, _, _ in found["text"])
    assert len(shown) == 20_000
    assert found["before"] + len(shown) + found["after"] == len(text)


def test_the_best_passage_is_marked_wherever_it_is(serving: Any, tmp_path: Path) -> None:
    text = "\n\n".join(f"# Part {number}\n\n" + f"This is about topic{number}. " * 60 for number in range(30))
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "books", passages=hs.Passages()) as search:
        search.upsert({"id": "book", "text": text})
        best = search.search("topic25")[0].passage
    assert best is not None
    found = explained(serving, tmp_path / "books", "topic25", "book")
    assert found["before"] > 0
    assert "".join(part for part, _, is_best in found["text"] if is_best) == best.text


def test_no_answer_says_why_an_optional_retriever_failed_and_the_log_does(
    serving: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, tmp_path / "books") as search:
        search.upsert({"id": "book", "text": "one two three"})
    logged: list[str] = []
    monkeypatch.setattr(indexes.log, "warning", lambda text, *values: logged.append(text % values))

    def failing(self: hs.CharNGrams, texts: list[str]) -> Any:
        raise OSError("/secret/model is gone")

    async def ask() -> list[str]:
        async with serving(tmp_path / "books", optional=["chars"]) as (client, _):
            monkeypatch.setattr(hs.CharNGrams, "encode_queries", failing)
            body: dict[str, Any] = {"query": "three"}
            answers = [
                await client.post("/v1/books/search", json=body),
                await client.post("/workbench/books/look", json={**body, "configurations": [{}]}),
            ]
            compared = {"queries": ["three"], "configurations": [{}, {}]}
            answers.append(await client.post("/workbench/books/compare", json=compared))
            weights = [{"bm25": bm25, "chars": 1 - bm25} for bm25 in (1, 0)]
            fusions = [{"type": "rrf", "weights": of_fusion} for of_fusion in weights]
            alone, failed = [
                await client.post("/workbench/books/look", json={**body, "configurations": [{"fusion": fusion}]})
                for fusion in fusions
            ]
            assert "Without chars" not in alone.text
            assert (failed.status_code, failed.json()["type"]) == (503, "urn:hybridsearch:error:retriever")
            return [answer.text for answer in answers]

    for text in asyncio.run(ask()):
        assert "Without chars: The retriever did not answer." in text
        assert "secret" not in text
    assert [line.count("/secret/model is gone") for line in logged] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("look", {}, 400),
        ("look", {"query": "a", "configurations": []}, 400),
        ("look", {"query": "a", "configurations": [{}] * 3}, 400),
        ("look", {"query": "a", "configurations": [{"candidates": 501}]}, 400),
        ("look", {"query": "a", "configurations": [{"candidates": 51}]}, 400),
        ("look", {"query": "a" * 101}, 400),
        ("look", {"query": "a", "filter": {"$or": [{"$or": [{"$or": [{"year": 1}]}]}]}}, 400),
        ("look", {"query": "a", "filter": {"year": {"$newer": 1}}}, 400),
        ("look", {"query": "a", "configurations": [{"fusion": {"type": "os.system"}}]}, 400),
        ("look", {"query": "a", "configurations": [{"fusion": {"type": "rrf", "weights": {"x": 1}}}]}, 400),
        (
            "look",
            {"query": "a", "configurations": [{"fusion": {"type": "rrf", "weights": {"bm25": 0, "chars": 0}}}]},
            409,
        ),
        ("look", {"query": "a\ud800"}, 400),
        ("explain", {"query": "a", "id": "nothing"}, 400),
        ("compare", {"queries": ["a"] * 51, "configurations": [{}, {}]}, 400),
        ("compare", {"queries": ["a"], "configurations": [{}]}, 400),
        ("compare", {"queries": [], "configurations": [{}, {}]}, 200),
        ("compare", {"queries": ["", "a"], "configurations": [{}, {}]}, 200),
        ("look", {"query": ""}, 200),
    ],
)
def test_wrong_bodies_are_refused_with_a_sentence(ask: Ask, path: str, body: Mapping[str, Any], status: int) -> None:
    limits = {"max_query": 100, "max_candidates": 50, "max_filter_depth": 5}
    headers = {"Content-Type": "application/json"}
    answer = ask("POST", f"/workbench/papers/{path}", content=json.dumps(body), headers=headers, settings=limits)
    assert answer.status_code == status, answer.text
    if status in (400, 409):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].endswith(".")


def test_the_page_has_only_its_own_files(ask: Ask) -> None:
    for name in ("..%2Fapp.py", "nothing.js", "__init__.py"):
        assert ask("GET", f"/page/{name}").status_code == 404
    page = ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert ask("GET", "/page/main.js").headers["content-type"].startswith("text/javascript")


def test_the_queries_of_files_data_sets_and_judges_are_offered(ask: Ask, papers: Path, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("brake\n\nbrake\ncharger  and   cable\n")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "wing"}\n')
    settings = {"queries": (str(tmp_path / "log.txt"), str(folder))}
    assert ask("GET", "/workbench/papers/queries", settings=settings).json() == {"log": 2, "set": 1}
    assert ask("GET", "/workbench/papers/queries/log", settings=settings).json() == [
        ["q1", "brake"],
        ["q2", "charger and cable"],
    ]
    assert ask("GET", "/workbench/papers/queries/x", settings=settings).status_code == 404
    with hs.open(papers) as search:
        hs.Judgements(tmp_path / "judged" / "papers").add_pool({"bm25": hs.Pipeline(search)}, {"q1": "battery"})
    judged = {"judgements": str(tmp_path / "judged")}
    assert ask("GET", "/workbench/papers/queries", settings=judged).json() == {"judged": 1}
    assert ask("GET", "/workbench/papers/queries/judged", settings=judged).json() == [["q1", "battery"]]
    with pytest.raises(InvalidArgumentError, match="the name 'set'"):
        read_query_sets([folder, folder])


RANKING = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=8)


@given(one=RANKING, other=RANKING, p=st.floats(0.1, 0.95))
def test_rank_biased_overlap_goes_on_as_the_rankings_end(one: list[str], other: list[str], p: float) -> None:
    found = rank_biased_overlap(one, other, p)
    assert found == rank_biased_overlap(other, one, p)
    assert 0 <= found <= 1
    if len(one) == len(other) and one:  # then it is the sum over all depths, with the last agreement for ever
        agreements = [len({*one[:depth]} & {*other[:depth]}) / depth for depth in range(1, len(one) + 1)]
        agreements += agreements[-1:] * 1000
        assert found == pytest.approx((1 - p) * sum(of * p**depth for depth, of in enumerate(agreements)), abs=1e-9)
