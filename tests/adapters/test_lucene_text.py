"""Tests of the BM25 of the engine, which analyses the texts itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ir_measures
import pytest

import hybridsearch as hs
from hybridsearch.errors import BackendError, InvalidArgumentError

DOCUMENTS = [
    hs.Document("wing", "Lift of wings grows with the angle of attack.", title="Wings"),
    hs.Document("heat", "Heat transfer in a boundary layer.", metadata={"year": 1960}),
    hs.Document("blank", ""),
]


@pytest.fixture(params=["opensearch", "elasticsearch"])
def place(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A function that gives places of new indexes on each engine."""
    url = request.getfixturevalue(f"{request.param}_url")
    names = request.getfixturevalue("lucene_names")
    return lambda name: str(names(url, name))


def test_the_engine_analyses_title_and_text(place: Callable[[str], str]) -> None:
    target = place("text")
    with hs.HybridSearch({"native": hs.NativeBM25()}, backend=target) as search:
        search.index(DOCUMENTS, show_progress_bar=False)
        assert search.search("wings of lift").ids == ["wing"]
        assert search.search('wings AND "nothing" OR *:*').ids == ["wing"]
        assert search.search("boundary heat", filter={"year": {"$gt": 1960}}).ids == []
        assert search.search(" ").ids == []
    with hs.open(target) as again:
        assert repr(again.retrievers["native"]) == "NativeBM25(analyzer='standard', k1=1.2, b=0.75)"
        assert again.search("heat")[0].explain().terms == {}


def test_k1_and_b_are_those_asked_for(place: Callable[[str], str]) -> None:
    with hs.HybridSearch({"native": hs.NativeBM25(k1=0.0)}, backend=place("k1")) as search:
        search.index([hs.Document("once", "wing"), hs.Document("twice", "wing wing")], show_progress_bar=False)
        once, twice = (hit.retrievers["native"].score for hit in search.search("wing"))
        assert once == twice


def test_an_analyzer_that_the_server_lacks_is_named(place: Callable[[str], str]) -> None:
    search = hs.HybridSearch({"native": hs.NativeBM25("no_such_analyzer")}, backend=place("lacks"))
    with pytest.raises((BackendError, InvalidArgumentError), match="no analyzer 'no_such_analyzer'"):
        search.index(DOCUMENTS, show_progress_bar=False)
    search.close()


def scifact_ndcg(folder: Path, target: str, analyzer: str) -> float:
    with hs.HybridSearch({"native": hs.NativeBM25(analyzer)}, backend=target) as search:
        search.index(folder, show_progress_bar=False)
        qrels = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
        judged = [ir_measures.Qrel(query, document, int(grade)) for query, document, grade in qrels]
        wanted = {query for query, _, _ in qrels}
        lines = map(json.loads, (folder / "queries.jsonl").read_text().splitlines())
        queries = {line["_id"]: line["text"] for line in lines if line["_id"] in wanted}
        found = search.search_many(list(queries.values()), 100)
    run = [
        ir_measures.ScoredDoc(query, hit.id, 1 / hit.rank)
        for query, results in zip(queries, found, strict=True)
        for hit in results
    ]
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], judged, run)[ir_measures.nDCG @ 10])


def test_scifact_with_the_standard_analyzer_has_the_published_quality(
    place: Callable[[str], str], data_folder: Path
) -> None:
    assert scifact_ndcg(data_folder / "scifact", place("standard"), "standard") == pytest.approx(0.6606, abs=5e-5)


@pytest.mark.slow
def test_scifact_with_the_english_analyzer_has_the_published_quality(
    opensearch_url: str, lucene_names: Callable[[str, str], str], data_folder: Path
) -> None:
    target = lucene_names(opensearch_url, "english")
    assert scifact_ndcg(data_folder / "scifact", target, "english") == pytest.approx(0.6826, abs=5e-5)
