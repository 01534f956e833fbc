"""Judging and choosing over HTTP: grades are kept, jobs tell how far they are, and a chosen fusion goes into use."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import hybridsearch as hs
from hybridsearch.access import Tokens
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.progress import progress_bar
from hybridsearch.service.app import make_app
from hybridsearch.service.choosing import Chooser, Settlement
from hybridsearch.service.chosen import ChosenFusion
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.jobs import JobRunningError, Jobs
from hybridsearch.service.settings import Settings

READ, WRITE = "read-read-read-read", "write-write-write-write"
WORDS = ("alder", "birch", "cedar", "maple", "oaken", "poplar", "rowan", "spruce", "willow", "linden")


@pytest.fixture
def client(trees: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """A function that makes a client of a service of `trees`, which keeps judgements."""
    made: list[TestClient] = []

    def make(tokens: str = "", options: Any = None, **settings: Any) -> TestClient:
        served = {"trees": ServedIndex("trees", str(trees), **options or {})}
        settings = {"judgements": str(tmp_path / "judged"), **settings}
        app = make_app(served, Settings(**settings), Tokens.parse(tokens))
        made.append(TestClient(app, base_url="http://localhost"))
        made[-1].__enter__()
        return made[-1]

    yield make
    for one in made:
        one.__exit__(None, None, None)


def wait(client: TestClient) -> dict[str, Any]:
    """The state of the job when it has ended."""
    for _ in range(600):
        job: dict[str, Any] = client.get("/workbench/trees/job").json()
        if job["state"] != "running":
            return job
        time.sleep(0.05)
    raise AssertionError("The job does not end.")


def with_pools(
    client: TestClient, queries: str = "\n".join(WORDS), systems: tuple[str, ...] = ("bm25", "chars")
) -> None:
    body = {"queries": queries, "systems": list(systems), "depth": 5}
    answer = client.post("/workbench/trees/judging/pool", json=body)
    assert answer.status_code == 200, answer.text
    assert wait(client)["state"] == "done"


def judge_all(client: TestClient, judge: str = "anna") -> None:
    """The document that has the name of the query answers it, and the table helps a little."""
    for query in client.get("/workbench/trees/judging").json()["queries"]:
        params = {"query": query["id"], "judge": judge}
        for one in client.get("/workbench/trees/judging/documents", params=params).json()["documents"]:
            grade = 3 if one["id"] == query["text"] else int(one["id"] == f"{query['text']}/2")
            body = {"judge": judge, "query": query["id"], "document": one["id"], "grade": grade}
            assert client.post("/workbench/trees/judging/grade", json=body).status_code == 200


def test_a_judge_sees_documents_without_ranks_and_each_grade_is_on_the_disk(
    client: Callable[..., TestClient], tmp_path: Path
) -> None:
    asked = client()
    with_pools(asked)
    state = asked.get("/workbench/trees/judging").json()
    assert [query["text"] for query in state["queries"]] == list(WORDS)
    assert state["possible"] == ["bm25", "chars", "rrf", "minmax"]
    shown = asked.get("/workbench/trees/judging/documents", params={"query": "q1", "judge": "anna"}).json()
    first = shown["documents"][0]
    assert set(first) == {"id", "title", "snippet", "done", "grade"}
    alder = next(one for one in shown["documents"] if one["id"] == "alder")
    assert alder["title"] == "Alder"
    assert [alder["snippet"]["text"][start:end] for start, end in alder["snippet"]["marks"]] == ["alder"]
    body = {"judge": "anna", "query": "q1", "document": first["id"], "grade": 2}
    assert asked.post("/workbench/trees/judging/grade", json=body).json() == {"saved": True}
    line = json.loads((tmp_path / "judged" / "trees" / "grades.jsonl").read_text())
    assert (line["judge"], line["query"], line["document"], line["grade"]) == ("anna", "q1", first["id"], 2)
    asked.post("/workbench/trees/judging/grade", json={**body, "grade": None})
    left = asked.get("/workbench/trees/judging/left", params={"judge": "anna"}).json()
    assert (left["done"]["q1"], left["skipped"]) == (1, {"q1": 1})
    assert (left["progress"]["graded"], left["progress"]["skipped"]) == (0, 1)
    undone = asked.post("/workbench/trees/judging/undo", json={"judge": "anna"}).json()
    assert undone["undone"]["grade"] is None
    text = asked.get("/workbench/trees/judging/text", params={"query": "q1", "document": "alder"}).json()
    assert text["snippet"]["text"] == "The alder is a tree.\nIt grows."


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("grade", {"judge": "a", "query": "q1", "document": "none", "grade": 1}, "is not in the pool"),
        ("grade", {"judge": "a", "query": "q99", "document": "alder", "grade": 1}, "There is no query"),
        ("grade", {"judge": " ", "query": "q1", "document": "alder", "grade": 1}, "The name of a judge"),
        ("grade", {"judge": "a", "query": "q1", "document": "alder", "grade": 4}, "grade"),
        ("pool", {"queries": "", "systems": ["bm25"]}, "The file of queries has no query"),
        ("pool", {"queries": "1\ta\n1\tb", "systems": ["bm25"]}, "several texts"),
        ("pool", {"queries": "alder", "systems": ["/etc/passwd"]}, "is not allowed"),
        ("pool", {"queries": "alder", "systems": ["tuned.json"]}, "is not allowed"),
        ("grade", {"judge": "a", "query": "q1", "document": "alder", "grade": True}, "must be a whole number"),
        ("export/qrels", {"judges": []}, "No judge is chosen"),
        ("pool", {"queries": "alder", "systems": ["bm26"]}, "unknown part 'bm26'"),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_a_sentence(
    client: Callable[..., TestClient], path: str, body: dict[str, Any], sentence: str
) -> None:
    asked = client()
    with_pools(asked, "alder")
    answer = asked.post(f"/workbench/trees/judging/{path}", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["detail"]
    assert "/queries." not in answer.text


@pytest.mark.parametrize("format", ["txt", "tsv", "jsonl", "csv"])
def test_no_body_breaks_the_service_or_shows_a_path(
    client: Callable[..., TestClient], format: str, tmp_path: Path
) -> None:
    asked = client()
    with_pools(asked, "alder")
    wrong = [
        "",
        "\ud800",
        "\0",
        "BZh9xxxx",
        '{"query": 5}',
        '{"_id": "1", "text": "\ud800"}',
        '"a,b\n1',
        None,
        2**70,
        [None],
    ]
    bodies = {
        "judging/pool": {"queries": "alder", "systems": ["bm25"]},
        "queries": {"content": "alder", "format": format},
        "judging/grade": {"judge": "a", "query": "q1", "document": "alder", "grade": 1},
        "choice": {"judges": ["a"], "decider": "a"},
        "judging/export/qrels": {"judges": ["a"], "rule": "majority"},
    }
    for path, body in bodies.items():
        for name in body:
            for value in wrong:
                content = json.dumps({**body, name: value})
                answer = asked.post(
                    f"/workbench/trees/{path}", content=content, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code < 500, (path, name, value)
                assert str(tmp_path) not in answer.text
                assert "/queries." not in answer.text
    assert wait(asked)["state"] in ("done", "failed")


def test_queries_without_ids_can_be_added_later(client: Callable[..., TestClient]) -> None:
    asked = client()
    with_pools(asked, "alder\nbirch")
    with_pools(asked, "cedar\nalder")
    queries = asked.get("/workbench/trees/judging").json()["queries"]
    assert [(one["id"], one["text"]) for one in queries] == [("q1", "alder"), ("q2", "birch"), ("q3", "cedar")]


def test_a_token_that_may_only_read_cannot_write_judgements(client: Callable[..., TestClient]) -> None:
    asked = client(f"read:{READ},write:{WRITE}")
    reads, writes = ({"Authorization": f"Bearer {token}"} for token in (READ, WRITE))
    pool = {"queries": "alder", "systems": ["bm25"]}
    grade = {"judge": "a", "query": "q1", "document": "alder", "grade": 1}
    bodies = {"judging/pool": pool, "judging/grade": grade, "judging/undo": {"judge": "a"}, "choice": {}}
    bodies |= {"judging/scores": {}, "judging/program": {"judge": "p", "thresholds": [1]}}
    for path, body in {**bodies, "job/cancel": {}, "use": {"system": "rrf"}}.items():
        assert asked.post(f"/workbench/trees/{path}", json=body).status_code == 401
        assert asked.post(f"/workbench/trees/{path}", json=body, headers=reads).status_code == 403
    assert asked.get("/workbench/trees/judging", headers=reads).json()["may_write"] is False
    assert asked.post("/workbench/trees/judging/pool", json=pool, headers=writes).status_code == 200
    while asked.get("/workbench/trees/job", headers=reads).json()["state"] == "running":
        time.sleep(0.05)


def test_without_a_folder_the_service_says_how_to_get_one(client: Callable[..., TestClient]) -> None:
    answer = client(judgements="").get("/workbench/trees/judging")
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "This service keeps no judgements: start it with --judgements FOLDER.",
    )


def test_judged_queries_lead_to_a_fusion_that_the_service_and_the_command_line_use(
    client: Callable[..., TestClient], tmp_path: Path, trees: Path
) -> None:
    asked = client(allow_write=True)
    with_pools(asked, "\n".join([*(word[:4] for word in WORDS), "xyz"]), ("bm25", "chars", "rrf", "minmax"))
    answer = asked.post("/workbench/trees/choice", json={})
    assert (answer.status_code, "No person has graded" in answer.text) == (400, True)
    for query in asked.get("/workbench/trees/judging").json()["queries"]:
        params = {"query": query["id"], "judge": "anna"}
        for one in asked.get("/workbench/trees/judging/documents", params=params).json()["documents"]:
            grade = 3 if one["id"].startswith(query["text"]) else 0
            asked.post("/workbench/trees/judging/grade", json={**params, "document": one["id"], "grade": grade})
    assert asked.post("/workbench/trees/choice", json={"judges": ["anna"], "rule": "majority"}).status_code == 200
    assert wait(asked) == {"name": "choose", "state": "done"}

    choice = asked.get("/workbench/trees/choice").json()
    result = choice["result"]
    means = {one["name"]: one["means"]["nDCG@10"]["mean"] for one in result["systems"]}
    assert means["bm25"] < 0.2
    assert means["chars"] == 1.0
    assert result["tuned"]["recommended"] == "chars alone"
    assert any("There are only 10 judged queries" in note for note in result["problems"])
    assert "1 query is left out, because no system found a document." in result["problems"]

    report = asked.get(f"/report/trees/{result['report']}")
    assert report.status_code == 200
    policy = report.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox allow-scripts" in policy
    assert "unsafe" not in policy
    assert asked.get("/report/trees/another-key").status_code == 404

    before = choice["fusion"]
    assert choice["use_refused"] is None
    only_judges = client()
    reason = only_judges.get("/workbench/trees/choice").json()["use_refused"]
    for method in ("POST", "DELETE"):
        refused = only_judges.request(method, "/workbench/trees/use", json={"system": None})
        assert (refused.status_code, refused.json()["detail"]) == (403, reason)
    assert "--allow-write" in reason
    used = asked.post("/workbench/trees/use", json={"system": None}).json()
    assert used["fusion"] == "RRF(weights={'bm25': 0.0, 'chars': 1.0}, k=60)"
    found = asked.post("/v1/trees/search", json={"query": "alde tree", "top_k": 3, "explain": True}).json()
    assert set(found["hits"][0]["retrievers"]) == {"chars"}
    file = tmp_path / "judged" / choice["file"]
    with hs.open(trees, fusion=file) as again:
        assert again.search("alde").ids[:1] == ["alder"]
    # the next start of the service uses it too
    assert client().get("/workbench/trees/choice").json()["fusion"] == used["fusion"]
    assert asked.request("DELETE", "/workbench/trees/use").json()["fusion"] == before
    assert set(asked.post("/v1/trees/search", json={"query": "alder"}).json()["hits"][0]["retrievers"]) > {"chars"}
    assert asked.post("/workbench/trees/use", json={"system": "rrf"}).status_code == 200
    assert asked.post("/workbench/trees/use", json={"system": "../x"}).status_code == 400


def test_a_fusion_goes_into_use_with_the_candidates_with_which_it_was_measured(
    client: Callable[..., TestClient], trees: Path, tmp_path: Path
) -> None:
    asked = client(allow_write=True, options={"candidates": 20})
    with_pools(asked)
    judge_all(asked)
    asked.post("/workbench/trees/choice", json={})
    assert wait(asked)["state"] == "done"
    comparison = hs.Comparison.load(tmp_path / "judged" / "trees" / "results" / "comparison.json")
    measured = next(one.description for one in comparison.systems if one.name == "rrf")
    assert measured.endswith("100 candidates")
    used = asked.post("/workbench/trees/use", json={"system": "rrf"}).json()
    assert used["candidates"] == 100
    with hs.open(trees, fusion=tmp_path / "judged" / "trees" / "fusion.json") as search:
        assert search.candidates == 100
    assert asked.request("DELETE", "/workbench/trees/use").json()["candidates"] == 20


def test_a_retriever_may_have_the_name_tuned(tmp_path: Path) -> None:
    judgements = hs.Judgements(tmp_path / "judged")
    with hs.HybridSearch({"bm25": hs.BM25(), "tuned": hs.CharNGrams()}) as search:
        search.index([hs.Document(word, word) for word in WORDS], show_progress_bar=False)
        judgements.add_pool(search, [word[:4] for word in WORDS], show_progress_bar=False)
        for query, document in judgements.left("anna"):
            judgements.grade("anna", query, document, int(document.startswith(judgements.queries[query])))
        chooser = Chooser(tmp_path / "judged")
        chooser.run(judgements, search, "trees", Settlement())
        alone = {"type": "rrf", "weights": {"bm25": 0.0, "tuned": 1.0}, "k": 60}
        chooser.use(search, "tuned")
        assert json.loads(chooser.in_use.read_text()) == {"type": "tuned", "fusion": alone, "candidates": 100}
        chooser.use(search, None)
        assert json.loads(chooser.in_use.read_text())["recommendation"]


def test_a_program_that_has_the_last_word_is_noted(trees: Path, tmp_path: Path) -> None:
    judgements = hs.Judgements(tmp_path / "judged")
    with hs.open(trees) as search:
        judgements.add_pool(search, {"q1": "alder", "q2": "birch"}, show_progress_bar=False)
        judgements.judge_with("model", lambda _, texts: [1.0] * len(texts), search, show_progress_bar=False)
        for query, document in judgements.left("anna"):
            judgements.grade("anna", query, document, 1)
        chooser = Chooser(tmp_path / "judged")
        chooser.run(judgements, search, "trees", Settlement(["anna"], decider="model"))
    problems = (chooser.result() or {})["problems"]
    assert "The judge model is a program. Check its grades before you trust them." in problems


def test_two_indexes_cannot_share_a_folder_of_judgements(trees: Path, tmp_path: Path) -> None:
    indexes = {name: ServedIndex(name, str(trees)) for name in ("a b", "a-b")}
    with pytest.raises(InvalidArgumentError, match=r"'a b' and 'a-b' would share the folder .*a-b"):
        make_app(indexes, Settings(judgements=str(tmp_path)))


def test_a_fusion_in_use_is_not_taken_for_the_own_fusion_of_the_index(tmp_path: Path) -> None:
    chosen, file = ChosenFusion(tmp_path / "fusion.json"), tmp_path / "fusion.json"

    others: list[threading.Thread] = []
    given: list[hs.HybridSearch] = []

    class Slow(hs.HybridSearch):
        """A search that another thread asks for while its fusion changes."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "candidates" and value == 7:
                others.append(threading.Thread(target=lambda: given.append(chosen.used_by(search))))
                others[0].start()
                others[0].join(0.3)

    with Slow({"bm25": hs.BM25()}) as search:
        search.index([hs.Document("1", "alder")], show_progress_bar=False)
        file.write_text('{"type": "tuned", "fusion": {"type": "rrf", "k": 7}, "candidates": 7}')
        used = chosen.used_by(search)
        others[0].join()
        assert (repr(used.fusion), used.candidates) == ("RRF(k=7)", 7)
        assert given == [used]
        file.unlink()
        assert chosen.used_by(search) is search
        assert (repr(search.fusion), search.candidates) == (repr(hs.RRF()), 100)


def test_a_damaged_fusion_has_no_effect(client: Callable[..., TestClient], tmp_path: Path) -> None:
    asked = client()
    with_pools(asked, "alder")
    (tmp_path / "judged" / "trees" / "fusion.json").write_text('{"type": "rrf", "weights": {"other": 1}}')
    assert asked.post("/v1/trees/search", json={"query": "alder"}).json()["hits"][0]["id"] == "alder"
    choice = asked.get("/workbench/trees/choice").json()
    assert (choice["in_use"], choice["refused"]) == (None, True)
    (tmp_path / "judged" / "trees" / "fusion.json").write_text("{")
    assert asked.get("/workbench/trees/choice").json()["refused"] is True
    hs.RRF(7).save(tmp_path / "judged" / "trees" / "fusion.json")
    choice = asked.get("/workbench/trees/choice").json()
    assert (choice["in_use"]["k"], choice["refused"]) == (7, False)
    (tmp_path / "judged" / "trees" / "job.json").write_text("")  # the machine lost its power
    assert asked.get("/workbench/trees/choice").json()["job"] == {}


def test_a_chosen_fusion_stays_in_use_after_another_index_takes_the_place(tmp_path: Path) -> None:
    def make(language: str, candidates: int) -> None:
        shutil.rmtree(tmp_path / "trees", ignore_errors=True)
        retrievers = {"bm25": hs.BM25(language), "chars": hs.CharNGrams()}
        with hs.HybridSearch(retrievers, tmp_path / "trees", candidates=candidates) as made:
            made.index([hs.Document("1", "alder")], show_progress_bar=False)

    make("english", 20)
    file = tmp_path / "fusion.json"
    hs.RRF(7).save(file)
    chosen = ChosenFusion(file)
    with hs.open(tmp_path / "trees") as search:
        used = chosen.used_by(search)
        assert (repr(used.fusion), used.candidates, chosen.used_by(search) is used) == ("RRF(k=7)", 20, True)
        make("german", 30)
        search.refresh()
        used = chosen.used_by(search)
        assert (repr(used.fusion), used.candidates, used.search("alder").ids) == ("RRF(k=7)", 30, ["1"])
        hs.ScoreFusion("minmax", weights={"other": 1.0}).save(file)
        assert chosen.used_by(search) is search
        file.unlink()
        assert chosen.used_by(search) is search
        assert (repr(search.fusion), search.candidates) == (repr(hs.RRF()), 30)


def test_a_chosen_fusion_goes_into_use_when_the_index_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hs.RRF(7).save(tmp_path / "fusion.json")
    chosen = ChosenFusion(tmp_path / "fusion.json")

    def no_answer(*args: Any, **options: Any) -> Any:
        raise BackendError("The engine does not answer.")

    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index([hs.Document("1", "alder")], show_progress_bar=False)
        with monkeypatch.context() as broken:
            broken.setattr(hs.HybridSearch, "plan", no_answer)
            assert chosen.used_by(search) is search
        assert repr(chosen.used_by(search).fusion) == "RRF(k=7)"


def test_judges_are_compared_and_their_grades_are_exported(client: Callable[..., TestClient], tmp_path: Path) -> None:
    asked = client()
    with_pools(asked, "alder\nbirch")
    judge_all(asked, "anna")
    judge_all(asked, "ben")
    body = {"judge": "ben", "query": "q1", "document": "alder", "grade": 0}
    asked.post("/workbench/trees/judging/grade", json=body)
    found = asked.get("/workbench/trees/judging/agreement").json()
    (agreement,) = found["agreement"]
    assert (agreement["first"], agreement["second"]) == ("anna", "ben")
    assert 0 < agreement["kappa"]["mean"] < 1
    (differ,) = found["disagreements"]
    assert (differ["title"], differ["text"], differ["grades"]) == ("Alder", "alder", {"anna": 3, "ben": 0})
    settled = {"judges": ["anna", "ben"], "decider": "anna"}
    qrels = asked.post("/workbench/trees/judging/export/qrels", json=settled).text
    assert "q1 0 alder 3" in qrels.splitlines()
    archive = asked.post("/workbench/trees/judging/export/beir", json=settled).content
    zipfile.ZipFile(io.BytesIO(archive)).extractall(tmp_path)
    dataset = hs.load_dataset(tmp_path / "trees")
    assert dataset.qrels["q1"]["alder"] == 3
    assert dataset.check().documents == 21


class Matches:
    """A reranker whose scores are 3 if the title is the query, and else 0."""

    top_k = 5

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]) -> list[np.ndarray]:
        pairs = zip(queries, documents, strict=True)
        return [np.array([3.0 * (one.title.lower() == query) for one in of]) for query, of in pairs]

    def to_json(self) -> None:
        return None


def test_the_reranker_of_the_index_can_judge_before_people_do(client: Callable[..., TestClient]) -> None:
    asked = client(options={"reranker": Matches()})
    with_pools(asked, "alder\nbirch")
    program = asked.get("/workbench/trees/judging").json()["program"]
    assert (program["name"], program["reranks"]) == ("Matches", True)
    sample = asked.post("/workbench/trees/judging/scores", json={}).json()["scores"]
    assert [one["score"] for one in sample[:3]] == [3.0, 3.0, 0.0]
    assert {(one["query"], one["title"]) for one in sample[:2]} == {("alder", "Alder"), ("birch", "Birch")}
    judge_all(asked, "anna")  # she gives the tables grade 1
    for name, state in (("anna", "failed"), ("Matches", "done")):
        body = {"judge": name, "thresholds": [1, 2, 3]}
        assert asked.post("/workbench/trees/judging/program", json=body).status_code == 200
        assert wait(asked)["state"] == state
    found = asked.get("/workbench/trees/judging/agreement").json()
    assert {one["document"]: one["grades"] for one in found["disagreements"]} == {
        f"{word}/2": {"anna": 1, "Matches": 0} for word in ("alder", "birch")
    }
    none = client().post("/workbench/trees/judging/program", json=body)
    assert (none.status_code, none.json()["type"]) == (404, "urn:hybridsearch:error:no-program")


# Jobs


def test_a_job_tells_its_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    jobs, other = Jobs(tmp_path), Jobs(tmp_path)
    assert jobs.status() == {}
    steps: list[int] = []

    def work() -> None:
        with progress_bar("Counting", range(10_000), None) as advance:
            for step in range(10_000):
                advance(1)
                steps.append(step)
                time.sleep(0.01)

    jobs.start("count", work)
    while "stage" not in other.status():
        time.sleep(0.01)
    assert {"name": "count", "state": "running", "stage": "Counting", "total": 10_000}.items() <= other.status().items()
    with pytest.raises(JobRunningError, match="is running"):
        other.start("second", lambda: None)
    other.cancel()
    jobs.wait()
    assert other.status() == {"name": "count", "state": "cancelled"}
    assert len(steps) < 10_000


def test_a_job_that_fails_tells_why_but_no_secrets(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)

    def user() -> None:
        raise InvalidArgumentError("Judge more queries.")

    def ours() -> None:
        raise ValueError("/secret/path")

    for work, expected in (
        (user, "Judge more queries."),
        (ours, "The job failed. The log of the service has the reason."),
    ):
        jobs.start("job", work)
        jobs.wait()
        assert jobs.status() == {"name": "job", "state": "failed", "error": expected}


def test_a_job_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"name": "choose", "state": "running"}')
    assert Jobs(tmp_path).status()["state"] == "interrupted"
