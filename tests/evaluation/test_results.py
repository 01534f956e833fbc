"""A comparison survives JSON, prints at any width, and becomes Markdown and runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation import formats
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.evaluation.statistics import Interval
from hybridsearch.evaluation.tuning import tune
from hybridsearch.ranking import Ranking


def printed(shown: Any, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_json_and_back_is_the_same(comparison: Comparison) -> None:
    assert Comparison.from_dict(json.loads(comparison.to_json())) == comparison


def test_a_saved_comparison_is_loaded_again(comparison: Comparison, tmp_path: Path) -> None:
    comparison.save(tmp_path / "comparison.json")
    assert Comparison.load(tmp_path / "comparison.json") == comparison


def test_keys_of_a_later_version_are_ignored(comparison: Comparison) -> None:
    assert Comparison.from_dict(comparison.to_dict() | {"from_the_future": 1}) == comparison


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", "{}", '{"measures": 3}', '{"dataset": {"name": 1}}'],
)
def test_a_file_that_holds_something_else_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"other\.json does not hold a saved comparison"):
        Comparison.load(path)


def test_the_summary_that_json_prints_is_answered_with_what_to_save(comparison: Comparison, tmp_path: Path) -> None:
    summary = comparison.to_dict()
    del summary["systems"][0]["scores"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InvalidArgumentError, match=r"SystemResult has no scores.*--save FILE.*--json is a summary"):
        Comparison.load(tmp_path / "summary.json")


def test_a_kind_that_is_not_one_is_refused(comparison: Comparison) -> None:
    data = comparison.to_dict()
    data["systems"][0]["kind"] = "magic"
    with pytest.raises(InvalidArgumentError, match="magic"):
        Comparison.from_dict(data)


def test_systems_are_found_by_name(comparison: Comparison) -> None:
    assert comparison["rrf"].kind == "fused"
    with pytest.raises(KeyError, match="'sparse' was not compared"):
        comparison["sparse"]


def test_runs_are_written_in_order_under_names_that_files_can_have(comparison: Comparison, tmp_path: Path) -> None:
    paths = comparison.save_runs(tmp_path / "runs")
    assert list(paths) == [system.name for system in comparison.systems]
    assert len(set(paths.values())) == len(paths)
    assert all(path.parent == tmp_path / "runs" for path in paths.values())
    read = Ranking.from_trec(paths["rrf + rerank"])
    assert {query: ranking.ids for query, ranking in read.items()} == {
        query: tuple(id for id, _ in pairs) for query, pairs in comparison["rrf + rerank"].rankings.items()
    }


def test_systems_whose_names_make_one_file_name_get_two_files(comparison: Comparison, tmp_path: Path) -> None:
    names = ("a/b", "a b", "A B", "x" * 300, "x" * 301)
    twins = tuple(replace(comparison.systems[0], name=name) for name in names)
    paths = replace(comparison, systems=twins).save_runs(tmp_path)
    assert len({path.name.lower() for path in paths.values()}) == len(names)  # macOS and Windows ignore case


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_system_and_mean_is_printed(comparison: Comparison, width: int) -> None:
    text = printed(comparison, width)
    assert max(map(len, text.splitlines())) <= width
    for system in comparison.systems:
        assert f"{system.means['nDCG@10'].mean:.4f}" in text
        assert system.name.split()[0][:12] in text


def test_the_better_single_retriever_stands_beside_fused_rows(comparison: Comparison) -> None:
    line = next(line for line in printed(comparison, 120).splitlines() if line.startswith("rrf "))
    assert line.rstrip().endswith(f"bm25 {comparison['bm25'].means['nDCG@10'].mean:.4f}")


def test_a_system_that_no_query_tells_from_another_is_the_same_and_has_no_interval(twins: Comparison) -> None:
    quality, differences = (
        next(line for line in part.splitlines() if line.startswith("twin"))
        for part in printed(twins, 120).split("nDCG@10 against bm25")
    )
    assert quality.split()[-2:] == ["bm25", f"{twins['bm25'].means['nDCG@10'].mean:.4f}"]
    assert differences.split() == ["twin", "same", "–", "–", "0", "0", "60"]
    assert "±" not in printed(twins, 120)


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert formats.signed_interval(Interval(0.01, -0.00001, 0.02)) == "[0, +0.020]"


def test_warnings_are_the_first_notes(comparison: Comparison) -> None:
    lines = printed(comparison, 120).splitlines()
    warning = lines.index("The fusion of minmax & <zscore> was tuned on these queries.")
    assert lines[warning + 1].startswith("Best by nDCG@10")


def test_notes_say_what_marks_and_kinds_mean(comparison: Comparison) -> None:
    text = printed(comparison, 300)
    assert "*: differs significantly from bm25 (paired t test, Holm correction for 6 systems, p < 0.05)." in text
    assert "No real system can" in text
    assert "2 documents have an empty text." in text


def test_markdown_holds_every_system_and_no_markup_of_its_own(comparison: Comparison) -> None:
    text = comparison.to_markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert any("minmax &amp; &lt;zscore>" in line for line in rows)
    assert "<zscore>" not in text
    table = rows[: 2 + len(comparison.systems)]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_one_system_prints_alone(comparison: Comparison) -> None:
    text = printed(comparison["rrf"], 100)
    assert "The best single retriever is bm25" in text
    assert "R@100" in text


def test_a_data_frame_has_a_row_a_system_or_a_row_a_query(comparison: Comparison, twins: Comparison) -> None:
    frame = comparison.to_pandas()
    assert list(frame.index) == comparison.names
    assert frame.loc["rrf", "nDCG@10"] == comparison["rrf"].means["nDCG@10"].mean
    assert frame.loc["rrf", "p"] == comparison["rrf"].versus["nDCG@10"].p_adjusted
    assert frame.loc["bm25"].isna()[["difference", "p", "best_single", "best_single_p"]].all()
    single = comparison["rrf"].best_single
    assert single is not None
    versus = single.versus["nDCG@10"]
    of = versus.difference
    columns = ["best_single_difference", "best_single_low", "best_single_high", "best_single_p"]
    assert frame.loc["rrf", columns].tolist() == [of.mean, of.low, of.high, versus.p_adjusted]
    assert frame.loc["elsewhere.trec"].isna()[["milliseconds", "bytes"]].all()
    assert set(map(str, frame.dtypes)) == {"float64"}
    queries = comparison["rrf"].to_pandas()
    assert queries.shape == (60, 4)
    assert queries["AP"].to_dict() == comparison["rrf"].scores["AP"]


def test_a_notebook_shows_every_system_and_no_markup_of_its_own(comparison: Comparison) -> None:
    page = comparison._repr_html_()
    assert page.count("<table>") == 4
    assert "minmax &amp; &lt;zscore&gt;" in page
    assert "<zscore>" not in page
    assert "<table>" in comparison["rrf"]._repr_html_()


def test_texts_of_objects_that_hold_much_are_short_whatever_they_hold() -> None:
    documents = [hs.Document(f"d{number}", "wing " * 2000, metadata={"a": ["b"] * 500}) for number in range(300)]
    queries = {f"q{number}": "wing" for number in range(50)}
    dataset = hs.Dataset("many", queries, {id: {"d1": 1} for id in queries}, documents)
    ranking = Ranking.from_scores({document.id: 1.5 for document in documents})
    runs = {name: dict.fromkeys(queries, ranking) for name in ("a", "b")}
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index(documents, show_progress_bar=False)
        results = search.search("wing", 200)
        batch = next(search.backend.scan())
    tuned = tune(runs, dataset, kinds=[hs.RRF()], show_progress_bar=False)
    pipeline = Pipeline(runs, fusion=hs.RRF(5))
    shown = [documents[0], dataset, ranking, results, results[0], batch, tuned, pipeline, pipeline.resolve("x", 5)]
    assert [len(repr(one)) for one in shown if len(repr(one)) > 700] == []
    assert repr(dataset) == "Dataset('many': 50 queries, 50 judgements, with documents)"
    assert repr(ranking).startswith("Ranking([('d0', 1.5), ('d1', 1.5), ")
    assert repr(ranking).endswith(", ... 300 in all])")
    assert repr(pipeline) == "Pipeline(runs 'a', 'b', fusion=RRF(k=5))"
    assert repr(hs.Document("a", "b")) == "Document(id='a', text='b', title='', metadata={})"
    assert "<p>Use " in tuned._repr_html_()


def test_texts_of_objects_are_short(comparison: Comparison) -> None:
    assert len(repr(comparison)) < 300
    assert repr(comparison["bm25"]).startswith("SystemResult('bm25'")
