"""Judging: pools are blind, grades survive a kill, judges do not harm each other, and disagreements are settled."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.errors import EncodingError, InvalidArgumentError, StorageError
from hybridsearch.evaluation.agreement import agreement
from hybridsearch.evaluation.datasets import read_queries
from hybridsearch.evaluation.judgement_log import JudgementLog
from hybridsearch.evaluation.measures import read_qrels
from hybridsearch.ranking import Ranking

QUERIES = {"q1": "wing", "q2": "heat"}
RUNS = {
    "a": {query: Ranking.from_scores({f"d{at}": 9.0 - at for at in range(6)}) for query in QUERIES},
    "b": {query: Ranking.from_scores({f"d{at}": 1.0 + at for at in range(4, 12)}) for query in QUERIES},
}


@pytest.fixture
def judgements(tmp_path: Path) -> hs.Judgements:
    made = hs.Judgements(tmp_path / "judgements")
    assert made.add_pool(RUNS, QUERIES, depth=2, show_progress_bar=False) == 8
    return made


def grade_all(judgements: hs.Judgements, judge: str, grades: Sequence[int], query: str = "q1") -> None:
    for id, grade in zip(sorted(judgements.documents(query)), grades, strict=True):
        judgements.grade(judge, query, id, grade)


# Queries


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("lines.txt", "wing\n\nheat shield\nwing\n", {"q1": "wing", "q2": "heat shield"}),
        ("topics.tsv", "7\twing\n8\theat\n", {"7": "wing", "8": "heat"}),
        ("q.jsonl", '{"_id": "x", "text": "wing"}\n', {"x": "wing"}),
        ("serve.log", 'Listening\n{"level": "info"}\n{"query": "wing"}\n{"query": "wing "}\n', {"q1": "wing"}),
        ("t.txt", "<top>\n<num> Number: 301\n<title> wing\n</top>\n", {"301": "wing"}),
    ],
)
def test_queries_are_read_from_files_and_logs(
    tmp_path: Path, name: str, content: str, expected: dict[str, str]
) -> None:
    (tmp_path / name).write_text(content)
    assert read_queries(tmp_path / name) == expected


def test_a_query_file_without_a_query_or_with_two_texts_of_an_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "twice.tsv").write_text("1\twing\n1\theat\n")
    with pytest.raises(InvalidArgumentError, match="has no query"):
        read_queries(tmp_path / "empty.txt")
    with pytest.raises(InvalidArgumentError, match="several texts"):
        read_queries(tmp_path / "twice.tsv")


# Pools


def test_a_query_gets_a_new_id_only_as_long_as_it_has_no_grades(judgements: hs.Judgements) -> None:
    judgements.grade("anna", "q1", judgements.documents("q1")[0], 3)
    documents = judgements.documents("q2")
    runs = {name: run | {"h": run["q2"], "w": run["q1"]} for name, run in RUNS.items()}
    assert judgements.add_pool(runs, {"h": "heat"}, depth=3, show_progress_bar=False) == 2
    assert judgements.queries == {"q1": "wing", "h": "heat"}
    assert judgements.documents("h")[:4] == documents
    with pytest.raises(InvalidArgumentError, match="has grades under the id 'q1'"):
        judgements.add_pool(runs, {"w": "wing"}, depth=2, show_progress_bar=False)


def test_a_pool_has_the_first_documents_of_each_system_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    orders = set()
    for seed in range(20):
        judgements = hs.Judgements(tmp_path / str(seed))
        judgements.add_pool(RUNS, {"q1": "wing"}, depth=2, seed=seed, show_progress_bar=False)
        assert sorted(judgements.documents("q1")) == ["d0", "d1", "d10", "d11"]
        orders.add(judgements.documents("q1"))
    again = hs.Judgements(tmp_path / "again")
    again.add_pool(RUNS, {"q1": "wing"}, depth=2, seed=3, show_progress_bar=False)
    assert again.documents("q1") == hs.Judgements(tmp_path / "3").documents("q1")
    assert len({order[0] for order in orders}) == 4


def test_a_pool_grows_and_keeps_the_order_and_the_grades(judgements: hs.Judgements) -> None:
    before = judgements.documents("q1")
    judgements.grade("anna", "q1", before[0], 2)
    assert judgements.add_pool(RUNS, {**QUERIES, "q3": "?"}, depth=3, show_progress_bar=False) == 4
    assert judgements.documents("q1")[:4] == before
    assert len(judgements.documents("q1")) == 6
    assert judgements.of("anna")["q1", before[0]].grade == 2
    with pytest.raises(InvalidArgumentError, match="give the new query another id"):
        judgements.add_pool(RUNS, {"q1": "another text"}, show_progress_bar=False)
    for queries in ({"q\ud800": "wing"}, {"q9": "w\ud800ing"}):
        with pytest.raises(InvalidArgumentError, match="lone surrogate"):
            judgements.add_pool({"a": {}}, queries, show_progress_bar=False)


def test_the_name_of_a_person_is_not_free_after_an_undo(judgements: hs.Judgements) -> None:
    judgements.grade("anna", "q1", judgements.documents("q1")[0], 1)
    judgements.undo("anna")
    with pytest.raises(InvalidArgumentError, match="'anna' is a person who has graded"):
        judgements.judge_with("anna", lambda query, texts: [1.0 for _ in texts], [])


def test_texts_get_free_ids_and_keep_them(judgements: hs.Judgements) -> None:
    runs = {"a": {f"q{at}": Ranking.from_scores({"d0": 1.0}) for at in range(1, 6)}}
    judgements.add_pool(runs, ["heat", "lift", "drag"], show_progress_bar=False)
    assert judgements.queries == {"q1": "wing", "q2": "heat", "q3": "lift", "q4": "drag"}


def test_an_index_stands_for_its_retrievers_and_fusions(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()})
    search.index([hs.Document("a", "wing lift"), hs.Document("b", "wingspan")], show_progress_bar=False)
    judgements = hs.Judgements(tmp_path)
    judgements.add_pool(search, {"q1": "wing"}, show_progress_bar=False)
    assert list(judgements.systems) == ["bm25", "chars", "rrf", "minmax"]
    assert set(judgements.documents("q1")) == {"a", "b"}
    for scorer in (search.retrievers["bm25"].encode_queries, search.search, search):
        with pytest.raises(InvalidArgumentError, match="would prefer its own documents"):
            judgements.judge_with("mine", scorer, search)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="would prefer its own documents"):
        judgements.judge_with("chars", lambda query, texts: [0.0 for _ in texts], search)


# Grades


def test_a_judge_grades_skips_and_takes_back(judgements: hs.Judgements) -> None:
    first, second, *_ = judgements.documents("q1")
    judgements.grade("anna", "q1", first, 1)
    judgements.skip("anna", "q1", second)
    judgements.grade("anna", "q1", first, 3)
    progress = judgements.progress("anna")
    assert (progress.graded, progress.skipped, progress.left, progress.finished) == (1, 1, 6, 0)
    taken = judgements.undo("anna")
    assert taken is not None
    assert (taken.document, taken.grade) == (first, 3)
    assert judgements.of("anna")["q1", first].grade == 1
    assert judgements.undo("anna").document == second  # type: ignore[union-attr]
    assert judgements.left("anna")[0] == ("q1", second)
    judgements.undo("anna")
    assert judgements.undo("anna") is None
    assert judgements.of("anna") == {}


@pytest.mark.parametrize("judge", ["", "  ", "a\nb", "a" * 81, None, "../\x00"])
def test_the_name_of_a_judge_is_one_line(judgements: hs.Judgements, judge: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="The name of a judge is"):
        judgements.grade(judge, "q1", "d0", 1)


def test_names_are_never_paths(judgements: hs.Judgements) -> None:
    judgements.grade("../../anna", "q1", "d0", 1)
    assert judgements.people == ["../../anna"]
    assert sorted(path.name for path in judgements.folder.iterdir()) == [".lock", "grades.jsonl", "pool.json"]
    assert [path.name for path in judgements.folder.parent.iterdir()] == ["judgements"]


@pytest.mark.parametrize(("query", "document", "grade"), [("q9", "d0", 1), ("q1", "d5", 1), ("q1", "d0", 4)])
def test_only_pooled_documents_get_grades_from_0_to_3(
    judgements: hs.Judgements, query: str, document: str, grade: int
) -> None:
    with pytest.raises(InvalidArgumentError):
        judgements.grade("anna", query, document, grade)
    assert judgements.judges == {}


def test_a_folder_with_a_damaged_line_is_refused(judgements: hs.Judgements) -> None:
    judgements.grade("anna", "q1", "d0", 1)
    with (judgements.folder / "grades.jsonl").open("a") as file:
        file.write('{"judge": "anna", "que\n')
    with pytest.raises(StorageError, match=r"grades\.jsonl, line 2 is damaged"):
        hs.Judgements(judgements.folder).progress("anna")


def test_a_full_disk_is_an_error_and_the_grade_does_not_count(
    judgements: hs.Judgements, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgements.grade("anna", "q1", "d0", 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hybridsearch.evaluation.judgement_log.os.fsync", full)
    with pytest.raises(StorageError, match="free space"):
        judgements.grade("anna", "q1", "d1", 2)
    monkeypatch.undo()
    assert [one.grade for one in judgements.of("anna").values()] == [1]
    assert hs.Judgements(judgements.folder).progress("anna").graded == 1


ACTION = st.one_of(
    st.tuples(st.sampled_from(["anna", "ben"]), st.sampled_from(["d1", "d2"]), st.integers(0, 3) | st.none()),
    st.tuples(st.sampled_from(["anna", "ben"]), st.just(""), st.none()),
)


@settings(max_examples=30)
@given(actions=st.lists(ACTION, max_size=12), cut=st.floats(0, 1), after=st.lists(ACTION, max_size=4))
def test_any_actions_and_a_kill_at_any_byte_give_the_right_state(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[tuple[str, str, int | None]],
    cut: float,
    after: list[tuple[str, str, int | None]],
) -> None:
    """The oracle keeps the grades as a list, and makes the state from it anew."""
    log = JudgementLog(tmp_path_factory.mktemp("log") / "grades.jsonl")
    reader = JudgementLog(log.path)

    def act(judge: str, document: str, grade: int | None) -> None:
        log.append(judge, [{"query": "q", "document": document, "grade": grade} if document else {"undo": True}])

    def expected(done: list[tuple[str, str, int | None]], judge: str) -> dict[str, int | None]:
        stack: list[tuple[str, int | None]] = []
        for who, document, grade in done:
            if who == judge and document:
                stack.append((document, grade))
            elif who == judge and stack:
                stack.pop()
        return dict(stack)

    def state(of: JudgementLog, judge: str) -> dict[str, int | None]:
        return {document: one.grade for (_, document), one in of.of(judge).items()}

    for action in actions:
        act(*action)
        assert state(reader, action[0]) == state(log, action[0])
    if actions:
        content = log.path.read_bytes()
        kept = content[: int(cut * len(content))]
        log.path.write_bytes(kept)
        actions = actions[: kept.count(b"\n")]
    log, reader = JudgementLog(log.path), JudgementLog(log.path)
    assert state(reader, "anna") == expected(actions, "anna")
    for action in after:
        act(*action)
    for of in (log, reader, JudgementLog(log.path)):
        for judge in ("anna", "ben"):
            assert state(of, judge) == expected([*actions, *after], judge)


PROGRAM = """
import sys
import hybridsearch as hs
judgements, judge = hs.Judgements(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    judgements.grade(judge, "q1", f"d{number % 2}", number % 4)
    print(number, flush=True)
"""


def start(judgements: hs.Judgements, judge: str, grades: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(judgements.folder), judge, str(grades)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_no_grade_and_another_judge_notices_nothing(judgements: hs.Judgements) -> None:
    with start(judgements, "anna", 10**6) as killed, start(judgements, "ben", 40) as other:
        assert killed.stdout is not None
        told = [next(killed.stdout) for _ in range(30)]
        killed.send_signal(signal.SIGKILL)
        told += list(killed.stdout)
        assert other.communicate(timeout=60)[0].endswith("39\n")
    acknowledged = sum(line.strip().isdigit() and line.endswith("\n") for line in told)
    lines = [json.loads(line) for line in (judgements.folder / "grades.jsonl").read_text().splitlines()]
    by = {judge: [line["grade"] for line in lines if line["judge"] == judge] for judge in ("anna", "ben")}
    assert acknowledged <= len(by["anna"]) <= acknowledged + 1
    assert by["ben"] == [number % 4 for number in range(40)]
    judgements.grade("anna", "q1", "d0", 3)
    assert judgements.of("anna")["q1", "d0"].grade == 3


# Programs that judge


def test_a_program_judges_by_its_thresholds_and_goes_on_after_an_interruption(judgements: hs.Judgements) -> None:
    documents = [hs.Document(f"d{at}", str(at)) for at in range(12)]
    calls: list[str] = []

    def length(query: str, texts: Sequence[str]) -> list[float]:
        calls.append(query)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [float(text) / 10 for text in texts]

    for expected in (None, 4):
        if expected is None:
            with pytest.raises(KeyboardInterrupt):
                judgements.judge_with("length", length, documents, thresholds=[0.05, 1], about="the number")
        else:
            assert judgements.judge_with("length", length, documents, thresholds=[0.05, 1], about="the number") == 4
    assert {id: one.grade for (query, id), one in judgements.of("length").items() if query == "q1"} == {
        "d0": 0, "d1": 1, "d10": 2, "d11": 2
    }  # fmt: skip
    assert calls == ["wing", "heat", "heat"]
    assert judgements.judges == {"length": "the number, thresholds 0.05, 1"}
    with pytest.raises(InvalidArgumentError, match="is a program"):
        judgements.grade("length", "q1", "d0", 1)
    with pytest.raises(InvalidArgumentError, match="other thresholds another name"):
        judgements.judge_with("length", length, documents, thresholds=[0.5], about="the number")
    with pytest.raises(InvalidArgumentError, match="No person has graded"):
        judgements.settled()
    assert judgements.settled(["length"])["q1"]["d11"] == 2


def test_a_function_without_a_description_goes_on_in_another_process(judgements: hs.Judgements) -> None:
    documents = [hs.Document(f"d{at}", str(at)) for at in range(12)]

    def judge(fails: bool) -> Any:  # each call makes a function with another address
        def ones(query: str, texts: Sequence[str]) -> list[float]:
            if fails and query != "wing":
                raise OSError("no answer")
            return [1.0] * len(texts)

        return ones

    kept = [judge(fails=True), judge(fails=False)]
    with pytest.raises(OSError, match="no answer"):
        judgements.judge_with("ones", kept[0], documents)
    assert judgements.judge_with("ones", kept[1], documents) > 0
    assert " at 0x" not in judgements.judges["ones"]


def test_a_program_without_a_score_for_each_text_is_refused(judgements: hs.Judgements) -> None:
    documents = [hs.Document(f"d{at}", str(at)) for at in range(12)]
    wrong: list[Any] = [[float("nan")] * 12, ["good"] * 12, [{}] * 12, [1, [2]], "good", None]
    for answer in wrong:
        with pytest.raises(EncodingError, match="one finite score"):
            judgements.judge_with("bad", lambda query, texts, answer=answer: answer, documents, about="wrong")
    with pytest.raises(InvalidArgumentError, match="in rising order"):
        judgements.judge_with("more", lambda query, texts: [1.0], documents, thresholds=[2, 1])
    with pytest.warns(UserWarning, match="cannot be graded"):
        assert judgements.judge_with("some", lambda query, texts: [1.0] * len(texts), documents[:2]) == 4


# Agreement


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = zip(*pairs, strict=True)
    if len({*first, *second}) == 1:
        assert np.isnan(agreement(first, second, samples=100).kappa.mean)
        return
    for weights in ("linear", "quadratic"):
        found = agreement(first, second, weights=weights, samples=100)  # type: ignore[arg-type]
        assert found.kappa.mean == pytest.approx(metrics.cohen_kappa_score(first, second))
        labels = list(range(4))
        expected = metrics.cohen_kappa_score(first, second, labels=labels, weights=weights)
        assert found.weighted.mean == pytest.approx(expected)
    assert found.same == pytest.approx(np.mean(np.equal(first, second)))


def test_the_interval_of_kappa_covers_the_true_value_as_often_as_it_says() -> None:
    """Two judges who copy each other with probability 0.6 and else grade at random have kappa 0.6."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        first = random.integers(0, 4, 120)
        second = np.where(random.random(120) < 0.6, first, random.integers(0, 4, 120))
        found = agreement(first.tolist(), second.tolist(), samples=500)
        covered += found.kappa.low <= 0.6 <= found.kappa.high
    assert 180 <= covered <= 199


def test_two_judges_are_compared_on_what_both_graded(judgements: hs.Judgements) -> None:
    grade_all(judgements, "anna", [0, 1, 2, 3])
    grade_all(judgements, "ben", [0, 1, 2, 0])
    grade_all(judgements, "ben", [1, 1, 1, 1], "q2")
    (found,) = judgements.agreement()
    assert (found.pairs, found.same, found.kappa.mean) == (4, 0.75, pytest.approx(2 / 3))
    (differ,) = judgements.disagreements()
    assert (differ.query, differ.document, dict(differ.grades), differ.spread) == (
        "q1",
        "d11",
        {"anna": 3, "ben": 0},
        3,
    )


# Settling and export


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rule": "majority"}, [0, 0, 3, 1]),
        ({"rule": "lower-median"}, [0, 1, 3, 1]),
        ({"decider": "cleo"}, [2, 2, 3, 1]),
        ({"judges": ["ben"]}, [0, 1, 3, 1]),
    ],
)
def test_disagreements_are_settled_by_the_rule_that_is_named(
    judgements: hs.Judgements, options: dict[str, Any], expected: list[int]
) -> None:
    grade_all(judgements, "anna", [0, 0, 3, 1])
    grade_all(judgements, "ben", [0, 1, 3, 1])
    judgements.grade("cleo", "q1", "d0", 2)
    judgements.grade("cleo", "q1", "d1", 2)
    assert [judgements.settled(**options)["q1"][id] for id in ("d0", "d1", "d10", "d11")] == expected


def test_unfinished_queries_are_left_out_unless_they_are_wanted(judgements: hs.Judgements) -> None:
    judgements.grade("anna", "q2", "d0", 1)
    with pytest.raises(InvalidArgumentError, match="No query is finished"):
        judgements.dataset()
    grade_all(judgements, "anna", [0, 1, 2, 3])
    dataset = judgements.dataset("mine")
    assert (list(dataset.queries), dataset.left_out) == (["q1"], 1)
    assert list(judgements.dataset(unfinished=True).queries) == ["q1", "q2"]


def test_a_saved_folder_is_a_data_set_with_the_same_judgements(judgements: hs.Judgements, tmp_path: Path) -> None:
    grade_all(judgements, "anna", [0, 1, 2, 3])
    documents = [hs.Document(f"d{at}", f"text {at}", "title", {"year": at}) for at in range(12)]
    judgements.save(tmp_path / "beir", [one.to_dict() for one in documents])
    assert judgements.judge_with("all", lambda query, texts: [1] * len(texts), tmp_path / "beir") == 8
    loaded = hs.load_dataset(tmp_path / "beir")
    assert loaded.qrels == judgements.dataset().qrels
    assert loaded.queries == {"q1": "wing"}
    assert loaded.corpus is not None
    assert [one.id for one in loaded.corpus] == [one.id for one in documents]
    assert loaded.check().problems == ()
    assert read_qrels(tmp_path / "beir" / "qrels.trec") == loaded.qrels


def test_a_folder_that_is_saved_again_has_no_qrels_of_before(judgements: hs.Judgements, tmp_path: Path) -> None:
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "qrels.trec").write_text("q1 0 d0 3\n")
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document("a b", "wing")], show_progress_bar=False)  # TREC allows no blank in an id
    judgements.add_pool(search, {"q1": "wing"}, show_progress_bar=False)
    grade_all(judgements, "anna", [1, 0, 0, 0, 0])
    judgements.save(tmp_path / "beir")
    assert hs.load_dataset(tmp_path / "beir").qrels["q1"]["a b"] == 1
    assert not (tmp_path / "beir" / "qrels.trec").exists()
