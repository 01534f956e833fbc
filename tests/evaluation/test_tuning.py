"""Tests of tuning: it finds the best weights, reports only figures of other queries, and tells if fusion is useless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.errors import InvalidArgumentError, StorageError
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.evaluation.experiment import Pipeline, compare, evaluate
from hybridsearch.evaluation.measures import score_rankings, write_qrels
from hybridsearch.evaluation.shrinkage import choose
from hybridsearch.evaluation.spec import parse_systems
from hybridsearch.evaluation.tuned import Tuned, _written, kept_digests, load_tuned, share_tuned_on
from hybridsearch.evaluation.tuning import KINDS, merge, tune
from hybridsearch.fusion import RRF, AdaptiveFusion, Fusion, ScoreFusion, make_fusion
from hybridsearch.ranking import Ranking

Runs = dict[str, dict[str, Ranking]]


def collection(noise: dict[str, float], queries: int = 60, documents: int = 60, seed: int = 0) -> tuple[Runs, Dataset]:
    """Retrievers that see the relevance of each document with noise of the given standard deviation."""
    random = np.random.default_rng(seed)
    runs: Runs = {name: {} for name in noise}
    qrels = {}
    for query in (f"q{number}" for number in range(queries)):
        relevance = random.normal(size=documents)
        qrels[query] = {f"d{at}": 1 for at in np.argsort(-relevance)[:5].tolist()}
        for name, deviation in noise.items():
            seen = relevance + deviation * random.normal(size=documents)
            runs[name][query] = Ranking.from_scores({f"d{at}": float(score) for at, score in enumerate(seen)})
    return runs, Dataset("synthetic", dict.fromkeys(qrels, "?"), qrels)


def tuned_on(runs: Runs, data: Dataset, kinds: tuple[Fusion, ...] = (ScoreFusion("minmax"),)) -> Tuned:
    return tune(runs, data, kinds=kinds, candidates=[60], show_progress_bar=False)


def test_the_weights_of_two_equally_noisy_retrievers_stay_equal() -> None:
    tuned = tuned_on(*collection({"a": 1.0, "b": 1.0}, queries=200))
    assert tuned.best_single.beaten
    assert not tuned.best_untuned.beaten
    assert tuned.fusion.weights == {"a": 0.5, "b": 0.5}
    assert tuned.moved == 0
    assert tuned.recommendation.startswith("Use a+b+minmax with 60 candidates. On 200 held-out queries the tuned")
    assert "Tuning moved no weight away from equal weights" in tuned.recommendation


def test_weights_move_further_with_more_queries_and_the_result_says_how_far_and_why() -> None:
    """The weights that are best on few queries are best by chance: equal weights are about as likely."""
    noise = {"sharp": 0.7, "dull": 1.4}
    few, many = (tuned_on(*collection(noise, queries=queries, seed=3)) for queries in (10, 300))
    assert few.shift is not None
    assert many.shift is not None
    assert few.shift.equal > 0.05
    assert many.shift.equal < 1e-6
    best = tuple(few.shift.best.values())
    assert few.moved < abs(best[0] - best[1]) / 2
    assert few.moved < many.moved
    assert many.moved == pytest.approx(many.tuned.weight("sharp") - 0.5)
    written = f"{many.moved:.0%} of the weight away from equal weights"
    assert written in many.recommendation
    assert few.recommended == f"{_written(few.tuned)} with 60 candidates"  # although nothing is significant


def test_another_kind_is_chosen_only_if_it_is_significantly_better() -> None:
    random = np.random.default_rng(0)
    grid = np.array([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    default = np.clip(random.normal(0.5, 0.2, (1, 1, 40)), 0, 1) + np.zeros((1, 3, 1))
    noise = random.normal(0, 0.1, (1, 1, 40))
    for gain, chosen in ((0.01, 0), (0.2, 1)):
        assert choose(np.concatenate([default, default + noise - noise.mean() + gain]), grid) == (chosen, 0)


def test_a_fusion_without_judgements_is_recommended_if_it_is_significantly_better() -> None:
    runs, data = collection({"a": 1.0, "b": 1.0}, queries=60)
    tuned = tuned_on(runs, data, (RRF(1e9),))  # the sum of ranks, which few documents at the top cannot change
    rival = tuned.preferred
    assert rival is not None
    assert rival.name in ("minmax", "calibrated")
    assert rival.p_value < 0.05
    assert tuned.recommended == f"{rival.name} without tuning"
    assert tuned.recommendation.startswith(f"Use {rival.name} without tuning, because it is significantly better than")
    assert (tuned.fusion.name, tuned.candidates) == ({"minmax": "score", "calibrated": "adaptive"}[rival.name], 100)


def test_the_tuned_fusion_is_better_where_it_beats_single_retrievers_and_equal_weights() -> None:
    tuned = tuned_on(*collection({"sharp": 0.5, "dull": 1.5}, queries=300))
    assert tuned.better
    assert tuned.fusion is tuned.tuned
    assert tuned.recommendation.startswith(f"Use {_written(tuned.tuned)} with 60 candidates. On 300 held-out queries")


def test_untuned_fusions_are_measured_on_the_same_queries_as_the_tuned_one() -> None:
    runs, data = collection({"a": 1.0, "b": 1.2})
    tuned = tuned_on(runs, data)
    calibrated = AdaptiveFusion.calibrated({name: run[query] for name, run in runs.items()} for query in data.queries)
    fusions = {"rrf": RRF(), "minmax": ScoreFusion("minmax"), "calibrated": calibrated}
    systems = {name: Pipeline(runs, fusion=fusion) for name, fusion in fusions.items()}
    expected = compare(systems, data, measures=["nDCG@10"], show_progress_bar=False)
    assert [rival.name for rival in tuned.untuned] == list(fusions)
    for rival in tuned.untuned:
        assert rival.held_out.mean == pytest.approx(expected[rival.name].means["nDCG@10"].mean)
        assert rival.difference.mean == pytest.approx(tuned.held_out.mean - rival.held_out.mean)


def test_the_best_single_retriever_is_one_retriever_measured_on_all_queries_although_folds_chose_others() -> None:
    runs, data = collection({"a": 1.0, "b": 1.02}, queries=40)
    tuned = tuned_on(runs, data)
    assert {fold.best_single for fold in tuned.folds} == {"a", "b"}
    systems = {name: Pipeline(runs, [name]) for name in runs}
    expected = compare(systems, data, measures=["nDCG@10"], show_progress_bar=False)
    means = {name: expected[name].means["nDCG@10"].mean for name in runs}
    assert means[tuned.best_single.name] == max(means.values())
    assert tuned.best_single.held_out.mean == pytest.approx(max(means.values()))
    assert tuned.best_single.difference.mean == pytest.approx(tuned.held_out.mean - max(means.values()))


def test_the_less_noisy_retriever_gets_the_weight_that_averaging_measurements_gives_it() -> None:
    """The best weights of independent measurements are as 1 / variance: 0.69 for deviations of 0.8 and 1.2."""
    tuned = tuned_on(*collection({"sharp": 0.8, "dull": 1.2}, queries=300))
    assert tuned.tuned.weight("sharp") == pytest.approx(1.2**2 / (0.8**2 + 1.2**2), abs=0.15)


def test_a_retriever_that_knows_nothing_is_left_out_and_the_other_one_recommended_alone() -> None:
    tuned = tuned_on(*collection({"good": 0.3, "blind": 1000.0}, queries=200))
    assert not tuned.better
    assert tuned.best_single.name == "good"
    assert tuned.fusion.weights == {"good": 1.0, "blind": 0.0}
    assert tuned.recommendation.startswith("Use good alone")
    assert tuned.moved == 0.5


def test_a_document_that_only_one_retriever_lists_is_found_by_the_depth_that_reaches_it() -> None:
    order = {f"d{at:02}": float(-at) for at in range(40)}
    shallow = {f"q{n}": Ranking.from_scores(order) for n in range(20)}
    both = {f"q{n}": Ranking.from_scores({**order, "d30": -2.5}) for n in range(20)}  # second to fourth here
    data = Dataset("deep", dict.fromkeys(shallow, "?"), {query: {"d30": 1} for query in shallow})
    tuned = tune({"a": shallow, "b": both}, data, measure="RR@10", candidates=[2, 10, 40], show_progress_bar=False)
    assert tuned.best_single.name == "b"
    assert tuned.held_out.mean == pytest.approx(1 / 4)


def test_where_labels_have_nothing_to_do_with_rankings_the_held_out_figure_is_chance() -> None:
    """The best of 132 fusions looks better than chance only on the queries on which it was chosen.

    Chance is exact: 5 of 40 documents are relevant, so each of the first ten ranks has one with probability 1/8.
    """
    discounts = 1 / np.log2(np.arange(2, 12))
    chance = discounts.sum() * 5 / 40 / discounts[:5].sum()
    kinds = (ScoreFusion("minmax"), RRF(20))
    grid = np.array([[a, b, 10 - a - b] for a in range(11) for b in range(11 - a)]) / 10
    held_out, in_sample = [], []
    for seed in range(12):
        runs, data = collection({"a": 1e6, "b": 1e6, "c": 1e6}, queries=25, documents=40, seed=seed)
        tuned = tune(runs, data, kinds=kinds, candidates=[40], seed=seed, show_progress_bar=False)
        held_out.append(tuned.held_out.mean)
        fused = {
            query: merge(kinds[0], {name: run[query] for name, run in runs.items()}, grid, 10) for query in data.qrels
        }
        in_sample.append(max(mean_of({q: fused[q][row] for q in fused}, data) for row in range(len(grid))))
    assert np.mean(held_out) < chance + 3 * np.std(held_out) / len(held_out) ** 0.5
    assert np.mean(in_sample) > chance + 2 * np.std(in_sample) / len(in_sample) ** 0.5


def test_held_out_queries_have_no_part_in_the_choice() -> None:
    """The judgements of a fold do not change the fusion that is measured on this fold."""
    runs, data = collection({"a": 1.0, "b": 1.2})
    fold = np.array_split(np.random.default_rng(0).permutation(60), 5)[0]
    changed = {
        query: {"d59": 1} if number in fold else grades for number, (query, grades) in enumerate(data.qrels.items())
    }
    before = tuned_on(runs, data, KINDS[:3]).folds[0]
    after = tuned_on(runs, Dataset("changed", data.queries, changed), KINDS[:3]).folds[0]
    assert (repr(before.fusion), before.candidates) == (repr(after.fusion), after.candidates)
    assert before.value != after.value


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdefghij"), st.integers(-5, 20).map(lambda n: n / 4), max_size=10),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from([*KINDS, ScoreFusion("none")]),
    st.data(),
)
def test_many_weightings_at_once_give_what_fuse_gives_one_by_one(
    score_maps: list[dict[str, float]], kind: Fusion, data: st.DataObject
) -> None:
    rankings = {f"r{i}": Ranking.from_scores(score_map) for i, score_map in enumerate(score_maps)}
    parts = st.lists(st.integers(0, 8), min_size=len(rankings), max_size=len(rankings)).filter(any)
    weightings = np.array(data.draw(st.lists(parts, min_size=1, max_size=4))) / 8
    for weights, found in zip(weightings.tolist(), merge(kind, rankings, weightings, 6), strict=True):
        named = dict(zip(rankings, weights, strict=True))
        assert found.ids == with_weights(kind, named).fuse(rankings).ids[:6]


def test_the_held_out_figure_is_the_mean_over_what_each_folds_fusion_returns() -> None:
    runs, data = collection({"a": 1.0, "b": 1.2})
    tuned = tuned_on(runs, data, KINDS)
    assert tuned.held_out.mean == pytest.approx(np.mean([fold.value for fold in tuned.folds]))
    fold = tuned.folds[0]
    places = np.array_split(np.random.default_rng(0).permutation(60), 5)[0]
    asked = [list(data.qrels)[place] for place in places]
    fused = {q: fold.fusion.fuse({n: run[q].top(fold.candidates) for n, run in runs.items()}) for q in asked}
    found = score_rankings(fused, {query: data.qrels[query] for query in asked}, "nDCG@10")["nDCG@10"]
    assert fold.value == pytest.approx(np.mean(list(found.values())))


def test_an_index_is_tuned_like_the_runs_it_gives() -> None:
    words = ["wing", "lift", "drag", "shock", "heat", "flow", "layer", "plate", "jet", "wave"]
    random = np.random.default_rng(0)
    documents = [hs.Document(f"d{n}", " ".join(random.choice(words, 6))) for n in range(40)]
    queries = {f"q{n}": " ".join(random.choice(words, 2, replace=False)) for n in range(20)}
    data = Dataset("words", queries, {query: {f"d{n}": 1} for n, query in enumerate(queries)})
    search = hs.HybridSearch({"one": hs.BM25(k1=0.5), "two": hs.BM25(k1=3.0, b=0)})
    search.index(documents, show_progress_bar=False)
    runs: Runs = {
        name: {
            query: Ranking.from_scores(
                (hit.id, hit.score)
                for hit in search.search(text, 200, retrievers=[name], fusion=ScoreFusion("none"))  # its own scores
            )
            for query, text in queries.items()
        }
        for name in ("one", "two")
    }
    kinds = (RRF(60), ScoreFusion("minmax"))
    from_index = tune(search, data, kinds=kinds, show_progress_bar=False)
    from_runs = tune(runs, data, kinds=kinds, show_progress_bar=False)
    assert from_index.to_dict() == from_runs.to_dict()


def test_the_same_arguments_give_the_same_result_and_another_seed_other_folds() -> None:
    runs, data = collection({"a": 1.0, "b": 1.2}, queries=30)
    results = [tune(runs, data, candidates=[60], seed=seed, show_progress_bar=False).to_dict() for seed in (1, 1, 2)]
    assert results[0] == results[1]
    assert results[0]["folds"] != results[2]["folds"]


def test_a_judged_query_without_results_counts_zero() -> None:
    runs, data = collection({"a": 0.1, "b": 0.1}, queries=20)
    for run in runs.values():
        del run["q0"]
    tuned = tuned_on(runs, data)
    assert sum(fold.queries for fold in tuned.folds) == 20
    assert tuned.best_single.held_out.mean < 20 / 20


def test_the_documents_of_the_queries_themselves_can_be_dropped() -> None:
    runs, data = collection({"a": 0.5, "b": 0.5}, queries=20)
    found = {
        name: {q: Ranking.from_scores([(q, 1e6), *ranking]) for q, ranking in run.items()} for name, run in runs.items()
    }
    without = tune(found, data, candidates=[61], exclude_self=True, show_progress_bar=False)
    assert without.held_out == tune(runs, data, candidates=[60], show_progress_bar=False).held_out


def test_the_file_is_small_readable_and_gives_the_same_result_back(tmp_path: Path) -> None:
    tuned = tuned_on(*collection({"a": 1.0, "b": 1.0}), KINDS)
    path = tmp_path / "tuned.json"
    tuned.save(path)
    assert load_tuned(path).to_dict() == tuned.to_dict()
    assert path.stat().st_size < 5500
    assert json.loads(path.read_text())["recommendation"] == tuned.recommendation


def test_a_file_of_an_earlier_version_keeps_its_recommendation() -> None:
    tuned = tuned_on(*collection({"good": 0.3, "blind": 1000.0}, queries=20))
    assert tuned.preferred is None
    earlier = {**tuned.to_dict(), "fusion": RRF(weights={"good": 1, "blind": 0}).to_json()}
    del earlier["shift"]
    read = Tuned.from_dict(earlier)
    assert read.recommended == "good alone"
    assert "Tuning moved" not in read.recommendation


@pytest.mark.parametrize("width", [80, 120])
def test_the_result_prints_its_rivals_its_folds_and_what_to_do(width: int) -> None:
    from rich.console import Console

    tuned = tuned_on(*collection({"bm25": 1.0, "sparse": 1.0, "dense": 1.0}))
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(tuned)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    assert "synthetic: 60 held-out queries" in lines
    starts = [line.split()[0] for line in lines if line.strip()]
    assert {"tuned", tuned.best_single.name, "rrf", "minmax"} <= set(starts)
    for fold in tuned.folds:
        assert _written(fold.fusion) in starts  # in one piece
    assert " ".join(tuned.recommendation.split()) in " ".join(capture.get().split())


@pytest.mark.parametrize("kind", [RRF(5), ScoreFusion("minmax"), ScoreFusion("zscore"), AdaptiveFusion()])
def test_a_tuned_fusion_is_written_as_compare_reads_it(kind: Fusion) -> None:
    fusion = with_weights(kind, {"a": 0.3, "b": 0.7, "c": 0.0})
    text = _written(fusion)
    read = parse_systems([text], collection(dict.fromkeys("abc", 1.0), queries=1)[0])[text]
    assert isinstance(read, Pipeline)
    assert isinstance(read.fusion, Fusion)
    assert read.fusion.to_json() == with_weights(kind, {"a": 0.3, "b": 0.7}).to_json()


def test_a_fusion_on_the_queries_it_was_tuned_on_is_warned_of(tmp_path: Path) -> None:
    runs, data = collection({"sharp": 0.5, "dull": 1.5}, queries=300)
    seen, unseen = parted(data, 200)
    tuned_on(runs, seen).save(tmp_path / "tuned.json")
    pipeline = Pipeline(runs, fusion=tmp_path / "tuned.json")
    found = compare({"tuned": pipeline, "rrf": Pipeline(runs)}, data, show_progress_bar=False, details=0)
    [warning] = found["tuned"].warnings
    assert warning.startswith("The fusion of tuned was tuned on 200 of these 300 queries")
    assert found["rrf"].warnings == ()
    assert warning in " ".join(str(found).split())
    assert warning in found.to_markdown()
    assert json.loads(found.to_json())["systems"][0]["warnings"] == [warning]
    assert "tuned on 200 of these 200 queries" in str(evaluate(pipeline, seen, show_progress_bar=False))
    assert evaluate(pipeline, unseen, show_progress_bar=False).warnings == ()


def digests(count: int, start: int = 0) -> frozenset[str]:
    queries = {f"q{number}": f"text {number}" for number in range(start, start + count)}
    return Dataset("many", queries, {query: {"d": 1} for query in queries}).query_digests


def test_what_a_fusion_remembers_of_its_queries_is_small_and_tells_how_many_of_others_they_are() -> None:
    kept = kept_digests(digests(50_000))
    assert len(" ".join(kept)) < 13_001
    assert share_tuned_on(digests(50_000), kept) == 1
    assert share_tuned_on(digests(7_000, 50_000), kept) == 0
    assert share_tuned_on(digests(10_000, 45_000), kept) == pytest.approx(0.5, abs=0.15)
    few = kept_digests(digests(200))
    assert (share_tuned_on(digests(100), few), share_tuned_on(digests(40, 190), few)) == (1, 0.25)
    assert share_tuned_on(digests(10), frozenset()) == 0


def test_records_of_32_bits_are_still_read_and_what_may_be_chance_counts_as_none() -> None:
    others = digests(40_000, 100_000)
    alarm = min(others)[
        :8
    ]  # with 32 bits, about one in five pairs of data sets this large has an equal digest by chance
    first = frozenset({alarm, *(digest[:8] for digest in digests(20_000))})
    assert share_tuned_on(digests(50), first) == 1
    assert share_tuned_on(others, first) == 0
    fusion = make_fusion({"type": "rrf", "weights": {"a": 1, "b": 1}, "k": 60, "tuned_on": " ".join(first)})
    assert fusion.tuned_on == first


def test_an_index_made_with_a_tuned_fusion_still_knows_the_queries_when_it_is_opened_again(tmp_path: Path) -> None:
    runs, data = collection({"sharp": 0.5, "dull": 1.5}, queries=300)
    tuned = tuned_on(runs, data)
    encoders = {name: hs.BM25() for name in runs}
    documents = [hs.Document(f"d{number}", "?") for number in range(60)]
    with hs.HybridSearch(encoders, tmp_path / "index", tuned.fusion) as search:
        search.index(documents, show_progress_bar=False)
    with hs.open(tmp_path / "index") as search:
        assert search.fusion.tuned_on == data.query_digests
        assert repr(search.fusion) == repr(tuned.fusion)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"retrievers": ["a"]}, "two or more"),
        ({"folds": 40}, "40 folds need 80"),
        ({"folds": 1}, "2 or more"),
        ({"seed": -1}, "at least 0"),
        ({"measure": "quality"}, "'quality'"),
        ({"kinds": []}, "one or more fusions"),
        ({"kinds": [RRF(weights={"a": 1, "b": 1})]}, "without weights"),
        ({"candidates": [0]}, "at least 1"),
        ({"retrievers": ["a", "c"]}, "'c'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], part: str) -> None:
    runs, data = collection({"a": 1.0, "b": 1.0}, queries=20)
    with pytest.raises(InvalidArgumentError, match=part):
        tune(runs, data, **arguments, show_progress_bar=False)  # type: ignore[arg-type]


def test_judgements_without_a_relevant_document_are_refused() -> None:
    runs, data = collection({"a": 1.0, "b": 1.0}, queries=20)
    nothing = Dataset("nothing", data.queries, {query: dict.fromkeys(of, 0) for query, of in data.qrels.items()})
    with pytest.raises(InvalidArgumentError, match="No query of the data set 'nothing' has a relevant document"):
        tune(runs, nothing, show_progress_bar=False)


def test_a_run_of_other_queries_is_refused() -> None:
    runs, data = collection({"a": 1.0, "b": 1.0}, queries=20)
    runs["b"] = {f"other-{query}": ranking for query, ranking in runs["b"].items()}
    with pytest.raises(InvalidArgumentError, match="Run 'b' has no query of the data set 'synthetic'"):
        tune(runs, data, show_progress_bar=False)


def test_judged_queries_without_a_text_are_left_out_as_compare_does() -> None:
    runs, data = collection({"a": 1.0, "b": 1.0}, queries=30)
    nameless = Dataset(data.name, data.queries, {**data.qrels, "nameless": {"d1": 1}})
    assert tuned_on(runs, nameless).held_out == tuned_on(runs, data).held_out


@pytest.mark.parametrize("content", ["", "[]", '{"type": "rrf"}', '{"type": "tuned", "fusion": 3}'])
def test_a_file_that_is_no_tuned_fusion_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"tuned fusion|cannot be read"):
        load_tuned(path)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"none\.json"):
        load_tuned(tmp_path / "none.json")
    with pytest.raises(StorageError, match="missing"):
        tuned_on(*collection({"a": 1.0, "b": 1.0}, queries=20)).save(tmp_path / "missing" / "tuned.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BEIR folder with training judgements, and the runs of two retrievers."""
    runs, data = collection({"a": 1.0, "b": 1.0}, queries=40, documents=30)
    for name, run in runs.items():
        Ranking.to_trec(run, tmp_path / f"{name}.trec")
    (tmp_path / "corpus.jsonl").write_text("".join(f'{{"_id": "d{n}", "text": "text {n}"}}\n' for n in range(30)))
    (tmp_path / "queries.jsonl").write_text("".join(f'{{"_id": "{query}", "text": "?"}}\n' for query in data.queries))
    (tmp_path / "qrels").mkdir()
    write_qrels(data.qrels, tmp_path / "qrels" / "train.tsv")
    return tmp_path


def command(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


def test_the_command_prints_and_saves_what_the_function_returns(folder: Path) -> None:
    saved = folder / "tuned.json"
    runs = f"a={folder / 'a.trec'},b={folder / 'b.trec'}"
    result = command(folder, "--retrievers", runs, "--candidates", "10,30", "--save", saved, "--work", folder / "work")
    assert result.exit_code == 0, result.output
    expected = tune(
        {name: folder / f"{name}.trec" for name in "ab"}, load_dataset(str(folder), split="train"), candidates=[10, 30]
    )
    assert load_tuned(saved).to_dict() == expected.to_dict()
    shown = " ".join(result.output.split())
    assert " ".join(expected.recommendation.split()[:6]) in shown
    assert f"holds the recommended fusion, {expected.recommended}." in shown


def test_the_command_prints_json(folder: Path) -> None:
    runs = f"a={folder / 'a.trec'},b={folder / 'b.trec'}"
    result = command(folder, "--retrievers", runs, "--candidates", "30", "--json", "--work", folder / "work")
    assert json.loads(result.stdout)["measure"] == "nDCG@10"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "two or more retrievers"),
        (["--retrievers", "bm25", "--index", "place"], "leave out --retrievers"),
        (["--retrievers", "bm25", "--candidates", "many"], "'many'"),
        (["--retrievers", "bm25", "--save", "nowhere/tuned.json"], "nowhere"),
    ],
)
def test_a_wrong_option_of_the_command_is_named(folder: Path, arguments: list[str], part: str) -> None:
    result = command(folder, *arguments)
    assert result.exit_code != 0
    assert part in f"{result.output} {result.exception}"


def test_adaptive_fusion_is_among_the_kinds() -> None:
    assert any(isinstance(kind, AdaptiveFusion) for kind in KINDS)


def with_weights(kind: Fusion, weights: dict[str, float]) -> Fusion:
    return make_fusion({**kind.to_json(), "weights": weights})


def parted(data: Dataset, first: int) -> tuple[Dataset, Dataset]:
    """The first queries, and the others."""
    places = dict(zip(data.queries, range(len(data.queries)), strict=True))
    parts = [{query for query, place in places.items() if (place < first) == early} for early in (True, False)]
    one, other = (
        Dataset(data.name, dict.fromkeys(part, "?"), {query: data.qrels[query] for query in part}) for part in parts
    )
    return one, other


def mean_of(rankings: dict[str, Ranking], data: Dataset) -> float:
    return float(np.mean(list(score_rankings(rankings, data.qrels, "nDCG@10")["nDCG@10"].values())))
