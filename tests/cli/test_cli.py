"""Tests of the installed program, and of its verbs in this process."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch import places, registry
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Capabilities, OldIndex
from hybridsearch.cli.app import app

PROGRAM = Path(sys.executable).with_name("hybridsearch")
DOCUMENTS = [
    {"id": "wing", "title": "Wings", "text": "Lift grows with the angle of attack until flow separates.", "year": 1958},
    {"id": "heat", "title": "Heat", "text": "Heat transfer in a laminar boundary layer.", "year": 1962},
    {"id": "shock", "title": "Shock", "text": "A shock wave thickens the boundary layer of a wing.", "year": 1971},
    {"id": "markup", "title": "[red]Panels[/red]", "text": "Flutter of [bold]panels[/bold] at [/] supersonic speed."},
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "papers.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(corpus: Path) -> str:
    """An index that the program itself made."""
    place = str(corpus.with_name("index"))
    made = program("index", str(corpus), "--index", place)
    assert made.returncode == 0, made.stderr
    return place


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, encoding="utf-8", timeout=120, check=False, **options
    )


def invoke(*arguments: str, input: str | None = None, **environment: str) -> Any:
    return CliRunner().invoke(app, arguments, input=input, env=environment)


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert text.endswith("\n")
    return text


# What the program prints


def test_search_prints_a_table_with_the_best_document_first(place: str) -> None:
    found = program("search", place, "lift of a wing")

    assert found.returncode == 0
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert lines[0].strip() == "lift of a wing"
    assert "wing" in lines[2].split()
    assert "Lift grows" in lines[3]


def test_search_prints_one_json_document_and_nothing_else(place: str) -> None:
    found = program("search", place, "boundary layer", "--top-k", "1", "--json")

    assert found.stderr == ""
    results = json.loads(found.stdout)
    assert results["query"] == "boundary layer"
    [hit] = results["hits"]
    assert hit["rank"] == hit["retrievers"]["bm25"]["rank"] == 1
    snippet = hit["snippet"]
    assert snippet["text"] == hit["document"]["text"][snippet["start"] : snippet["end"]]
    assert {hit["document"]["text"][one["start"] : one["end"]].lower() for one in snippet["highlights"]} >= {"boundary"}


def test_json_agrees_with_the_library(place: str) -> None:
    printed = json.loads(invoke("search", place, "wing flow", "--json").stdout)
    with hs.open(place) as search:
        results = search.search("wing flow")
        snippets = [hit.snippet(models=False).to_dict() for hit in results]

    assert [hit.pop("snippet") for hit in printed["hits"]] == snippets
    assert printed["hits"] == results.to_dict()["hits"]


@pytest.mark.parametrize("verb", ["index", "search", "explain", "copy", "doctor"])
def test_every_verb_prints_one_json_object_with_json(verb: str, corpus: Path, tmp_path: Path, place: str) -> None:
    arguments = {
        "index": ["index", str(corpus), "--index", str(tmp_path / "index")],
        "search": ["search", place, "wing"],
        "explain": ["explain", place, "wing", "shock"],
        "copy": ["copy", place, str(tmp_path / "copy")],
        "doctor": ["doctor", place],
    }[verb]

    done = program(*arguments, "--json")

    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stderr == ""


def test_user_text_is_never_read_as_markup(place: str) -> None:
    found = invoke("search", place, "flutter panels", "--explain", COLUMNS="200")

    assert "[red]Panels[/red]" in found.stdout
    assert "Flutter of [bold]panels[/bold] at [/] supersonic" in found.stdout


def test_explain_tells_the_matched_terms_and_what_they_add(place: str) -> None:
    said = json.loads(invoke("explain", place, "wing in a boundary layer", "shock", "--json").stdout)

    terms = said["terms"]["bm25"]
    assert set(terms) == {"wing", "boundari", "layer"}
    assert sum(terms.values()) == pytest.approx(said["retrievers"]["bm25"]["score"], rel=1e-6)


def test_explain_works_for_a_document_that_was_not_found(place: str) -> None:
    said = invoke("explain", place, "heat transfer", "wing")

    assert said.exit_code == 0
    assert "no retriever has it" in said.stdout


def test_search_prints_the_context_of_a_prompt_and_what_is_missing_in_it(place: str) -> None:
    found = invoke("search", place, "boundary layer", "--context", "40")
    assert found.stdout.startswith('<source id="1">\nHeat\n\nHeat transfer')
    assert found.stderr == "hybridsearch: Text of 1 document was left out, because max_tokens is 40: shock.\n"
    context = json.loads(invoke("search", place, "boundary layer", "--context", "40", "--json").stdout)["context"]
    assert context["text"] == found.stdout.strip()
    assert [source["id"] for source in context["sources"]] == ["heat"]


def test_search_explains_every_hit_on_request(place: str) -> None:
    results = json.loads(invoke("search", place, "wing", "--explain", "--json").stdout)

    assert all(hit["explanation"]["terms"]["bm25"] for hit in results["hits"])


def test_a_query_needs_no_quotes(place: str) -> None:
    quoted = json.loads(invoke("search", place, "boundary layer of a wing", "--json").stdout)
    unquoted = invoke("search", place, "boundary", "layer", "--json", "of", "a", "wing").stdout
    assert json.loads(unquoted)["hits"] == quoted["hits"]
    asked = invoke("explain", place, "boundary", "layer", "shock", "--json").stdout
    assert asked == invoke("explain", place, "boundary layer", "shock", "--json").stdout


def test_what_a_message_says_both_ways_is_said_once(place: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("number,text\n1,wing\n")
    said = invoke("index", str(tmp_path / "rows.csv"), "--index", str(tmp_path / "index")).stderr
    assert "Name the field with --id-field, or number the records with --auto-id." in said
    invoke("copy", place, str(tmp_path / "copy"))
    assert (
        "give --resume to continue a copy that was interrupted." in invoke("copy", place, str(tmp_path / "copy")).stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["opensearch://me:hunter2@host/x"],
        ["search", "seismic://me:hunter2@host/x", "wing"],
        ["search", "--top-k", "opensearch://me:hunter2@host/x"],
        ["index", "opensearch://me:hunter2@host/x", "--index", "y"],
        ["publish", "a", "b", "opensearch://me:hunter2@host/x"],
        ["evaluate", "a", "opensearch://me:hunter2@host/x"],
        ["train", "dense", "--data", "opensearch://me:hunter2@host/x", "--model", "m", "--output", "o"],
        ["doctor", "magic://me:hunter2@host/x"],
    ],
)
def test_a_url_in_the_wrong_place_comes_back_without_its_password(arguments: Sequence[str]) -> None:
    done = invoke(*arguments)
    assert done.exit_code in (1, 2)
    assert "hunter2" not in done.stderr + done.stdout


def test_a_query_that_is_not_utf_8_is_refused_on_standard_input_too(place: str) -> None:
    for arguments, piped in (([], "wing caf\xe9".encode("latin-1")), (["wing caf\xe9".encode("latin-1")], b"")):
        refused = subprocess.run(
            [PROGRAM, "search", place, *arguments], input=piped, capture_output=True, timeout=120, check=False
        )
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"holds a lone surrogate, which is not valid Unicode" in refused.stderr


def test_queries_come_from_standard_input_one_a_line(place: str) -> None:
    answered = program("search", place, "--json", input="lift\n\nheat transfer\n")

    assert [results["query"] for results in json.loads(answered.stdout)] == ["lift", "heat transfer"]


# Options


def test_min_score_limits_all_hits_or_a_retriever(place: str) -> None:
    result = invoke("search", place, "wing layer", "--min-score", "2")
    assert "no hits" in result.stdout
    assert "No hit reaches the min_score 2" in result.stdout
    scores = [hit["retrievers"]["bm25"]["score"] for hit in _hits(place)]
    assert len(scores) > 1
    assert len(_hits(place, "--min-score", f"bm25={scores[0]}")) == 1
    result = invoke("search", place, "wing", "--min-score", "bm25=99")
    assert "bm25: no document reaches the min_score 99" in result.stdout
    for given, message in [("bm25=high", "takes a number, or numbers for"), ("bm25=1,bm25=2", "names 'bm25' twice")]:
        result = invoke("search", place, "wing", "--min-score", given)
        assert result.exit_code == 1
        assert f"--min-score {message}" in result.stderr


def _hits(place: str, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        invoke("search", place, "wing layer", "--retrievers", "bm25", *options, "--json").stdout
    )["hits"]
    return found


def test_a_filter_leaves_out_what_does_not_match(place: str) -> None:
    found = json.loads(invoke("search", place, "wing layer", "--filter", '{"year": {"$lt": 1960}}', "--json").stdout)

    assert [hit["id"] for hit in found["hits"]] == ["wing"]


def test_one_name_with_two_values_is_refused_as_only_the_last_would_count(place: str, tmp_path: Path) -> None:
    types = ["--type", "zip=str", "--type", "zip=int"]
    result = invoke("index", str(tmp_path), "--index", place, *types)
    assert "--type gives 'zip' two types, str and int" in one_line(result.stderr)
    result = invoke("search", place, "wing", "--option", "hnsw=true", "--option", "hnsw=false")
    assert "--option gives 'hnsw' twice" in one_line(result.stderr)


def test_a_query_whose_word_is_taken_for_an_option_is_told_the_way_out(place: str) -> None:
    result = invoke("search", place, "-5", "degrees")
    assert result.exit_code == 2
    assert (
        "No such option: -5. If it is a word of the query, put all options first and -- before the query."
        in one_line(result.stderr)
    )
    assert invoke("search", place, "--top-k", "2", "--", "-5", "degrees").exit_code == 0


def test_a_filter_that_names_a_field_twice_is_refused_as_json_keeps_the_last_only(place: str) -> None:
    for twice in ('{"year": {"$gte": 1960}, "year": {"$lt": 1980}}', '{"$and": [{"year": {"$lt": 1, "$lt": 2}}]}'):
        result = invoke("search", place, "wing", "--filter", twice)
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.search(r"The filter names '(year|.lt)' twice", result.stderr)


def test_notes_are_shown_with_the_hits(place: str) -> None:
    misspelt = ["--filter", '{"yaer": {"$ne": 1971}}']
    note = "The filter asks about 'yaer', but no document has this field."
    assert f"Note: {note}" in invoke("search", place, "wing", *misspelt).stdout
    assert json.loads(invoke("search", place, "wing", *misspelt, "--json").stdout)["notes"] == [note]


@pytest.mark.parametrize(("name", "fusion"), [("rrf", hs.RRF()), ("minmax", hs.ScoreFusion("minmax"))])
def test_fusion_chooses_how_rankings_are_merged(place: str, name: str, fusion: Any) -> None:
    found = json.loads(invoke("search", place, "wing layer", "--fusion", name, "--json").stdout)
    with hs.open(place) as search:
        expected = search.search("wing layer", fusion=fusion)

    assert [hit["score"] for hit in found["hits"]] == [hit.score for hit in expected]


def test_indexing_again_stores_only_what_is_new(corpus: Path, tmp_path: Path) -> None:
    place, more = str(tmp_path / "index"), tmp_path / "more.jsonl"
    more.write_text(corpus.read_text(encoding="utf-8") + '{"id": "new", "text": "A new one."}\n', encoding="utf-8")
    invoke("index", str(corpus), "--index", place)

    again = json.loads(invoke("index", str(more), "--index", place, "--json").stdout)

    assert (again["indexed"], again["unchanged"], again["documents"]) == (1, 4, 5)


def test_a_column_of_another_name_can_hold_the_id(tmp_path: Path) -> None:
    table, place = tmp_path / "table.csv", str(tmp_path / "index")
    table.write_text("key,body\na,First text.\nb,Second text.\n", encoding="utf-8")

    invoke("index", str(table), "--index", place, "--id-field", "key", "--text-field", "body")

    with hs.open(place) as search:
        assert search.get(["a", "b"]) == [hs.Document("a", "First text."), hs.Document("b", "Second text.")]


def test_a_delimiter_and_a_query_can_be_given(tmp_path: Path) -> None:
    import sqlite3

    table, database, place = tmp_path / "table.csv", tmp_path / "shop.db", str(tmp_path / "index")
    table.write_text("id^text\na^First, text.\n", encoding="utf-8")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE articles AS SELECT 'b' AS id, 'Second text.' AS body")
        connection.commit()

    invoke("index", str(table), "--index", place, "--delimiter", "^")
    invoke("index", f"sqlite:///{database}", "--index", place, "--query", "SELECT id, body FROM articles")

    with hs.open(place) as search:
        assert search.get(["a", "b"]) == [hs.Document("a", "First, text."), hs.Document("b", "Second text.")]


def test_the_types_of_columns_are_said_once_and_can_be_told(tmp_path: Path) -> None:
    table, place = tmp_path / "table.csv", str(tmp_path / "index")
    table.write_text("id,text,zip\n1,a wing,90210\n2,a jet,10001\n", encoding="utf-8")

    said = invoke("index", str(table), "--index", place)
    assert one_line(said.stderr).startswith(f"hybridsearch: {table}: column 'zip' is read as int. ")
    told = json.loads(invoke("index", str(table), "--index", place, "--type", "zip=str", "--json").stdout)

    assert (told["indexed"], told["types"], told["notes"]) == (2, {}, [])
    with hs.open(place) as search:
        assert search.count({"zip": "90210"}) == 1
    assert "--type takes NAME=TYPE" in one_line(invoke("index", str(table), "--index", place, "--type", "zip").stderr)
    wrong = invoke("index", str(table), "--index", place, "--type", "zip=text")
    assert "one of str, int, float, bool, date, datetime, instant, not 'text'" in one_line(wrong.stderr)


def test_another_encoding_can_be_told(tmp_path: Path) -> None:
    table, place = tmp_path / "table.csv", str(tmp_path / "index")
    table.write_bytes("id;text\n1;café\n".encode("cp1252"))

    assert "--encoding cp1252" in one_line(invoke("index", str(table), "--index", place).stderr)
    assert invoke("index", str(table), "--index", place, "--encoding", "cp1252").exit_code == 0

    with hs.open(place) as search:
        assert search.search("café").ids == ["1"]


@pytest.mark.parametrize(("name", "content"), [("empty.jsonl", ""), ("empty.csv", "id,text\n"), ("bad.jsonl", "{\n")])
def test_a_corpus_without_documents_is_an_error_and_makes_no_index(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")

    done = invoke("index", str(tmp_path / name), "--index", str(tmp_path / "index"), "--on-error", "skip")

    assert done.exit_code == 1
    assert f"{name} holds no document" in one_line(done.stderr)
    assert ("1 line was skipped" in done.stderr) == (name == "bad.jsonl")
    assert not (tmp_path / "index").exists()


def test_sync_says_how_many_documents_are_gone_and_removes_them(corpus: Path, tmp_path: Path) -> None:
    place, less = str(tmp_path / "index"), tmp_path / "less.jsonl"
    invoke("index", str(corpus), "--index", place)
    less.write_text("".join(corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:1]), encoding="utf-8")

    kept = invoke("index", str(less), "--index", place)
    assert "holds 4 documents" in kept.stdout
    synced = invoke("index", str(less), "--index", place, "--sync")

    assert one_line(synced.stderr) == f"hybridsearch: {less} no longer has 3 of 4 documents: removing them.\n"
    assert "Removed 3 documents." in synced.stdout
    assert "holds 1 document for bm25." in synced.stdout


def test_a_place_with_a_space_is_quoted_in_what_comes_next(corpus: Path, tmp_path: Path) -> None:
    done = invoke("index", str(corpus), "--index", str(tmp_path / "my index"))

    command = shlex.split(done.stdout.rpartition("Next: ")[2])
    assert json.loads(invoke(*command[1:], "wing", "--json").stdout)["hits"]


@pytest.mark.parametrize("verb", ["index", "search"])
def test_hnsw_without_dense_vectors_is_refused(verb: str, corpus: Path, place: str, tmp_path: Path) -> None:
    where = [str(corpus), "--index", str(tmp_path / "index")] if verb == "index" else [place, "wing"]

    assert "--hnsw is for dense vectors" in one_line(invoke(verb, *where, "--hnsw").stderr)


def test_bm25_without_a_language_is_called_none(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "1", "text": "the wings"}', encoding="utf-8")
    invoke("index", str(tmp_path / "c.jsonl"), "--index", str(tmp_path / "index"), "--language", "none")

    with hs.open(tmp_path / "index") as search:
        assert [search.search(text).ids for text in ("the", "wings", "wing")] == [["1"], ["1"], []]


def test_ctrl_c_in_index_says_what_is_stored_and_how_to_go_on(tmp_path: Path) -> None:
    place = tmp_path / "index"
    process = subprocess.Popen(
        [PROGRAM, "index", "/dev/stdin", "--format", "jsonl", "--index", place, "--batch-size", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no other thread runs here
    )
    assert process.stdin is not None
    process.stdin.write("".join(json.dumps({"id": str(n), "text": "a wing"}) + "\n" for n in range(4)))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # wait until the index is made
        with contextlib.suppress(hs.errors.HybridSearchError), hs.open(place):
            break
        time.sleep(0.05)
    time.sleep(1)  # both batches wait for more, because a new index is filled in few steps
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert one_line(error) == (
        f"hybridsearch: interrupted: 4 documents are stored in {place}. Run the same command to go on: it does not "
        "encode these documents again.\n"
    )


def test_skipped_lines_are_counted_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"id": "a", "text": "Good."}\n{broken\n{"id": "b", "text": "Good too."}\n', encoding="utf-8")

    stopped = invoke("index", str(path), "--index", str(tmp_path / "index"))
    assert stopped.exit_code == 1
    assert one_line(stopped.stderr).strip().endswith("To leave such records out, give --on-error skip.")

    done = invoke("index", str(path), "--index", str(tmp_path / "index"), "--on-error", "skip")

    assert done.exit_code == 0
    assert "Indexed 2 documents" in done.stdout
    assert "Skipped 1:" in done.stdout
    assert "some.jsonl" in done.stdout
    assert "line 2" in done.stdout


def test_a_dense_model_can_be_named(corpus: Path, tmp_path: Path, minilm: str) -> None:
    place = str(tmp_path / "index")
    made = invoke("index", str(corpus), "--index", place, "--retrievers", f"bm25,dense={minilm}")
    assert made.exit_code == 0, made.stderr

    found = json.loads(invoke("search", place, "aircraft", "--retrievers", "dense", "--json").stdout)

    assert {hit["retrievers"]["dense"]["rank"] for hit in found["hits"]} == {1, 2, 3, 4}


# Engines


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    """The scheme of an engine that exists only here: `testing://user:password@host/name`."""
    monkeypatch.setitem(registry._REGISTERED["backend"], "testing", registry._Registered(Engine))
    Engine.made.clear()
    return Engine


class Engine(MemoryBackend):
    """The memory backend at a URL. It keeps its content after `close`."""

    made: ClassVar[dict[str, Engine]] = {}

    def __new__(cls, location: str, **options: Any) -> Engine:
        name = location.rpartition("/")[2]
        return cls.made.setdefault(name, super().__new__(cls))

    def __init__(self, location: str, *, shards: int = 1, mode: str = "") -> None:
        if mode == "broken":
            raise TypeError("the engine's own")
        self.options: dict[str, Any] = {"shards": shards, "mode": mode}
        self.published: list[tuple[str, bool]] = []
        if "_state" not in vars(self):
            super().__init__()

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, persistent=True)

    def publish(self, alias: str, drop_old: bool = True) -> str | None:
        self.published.append((alias, drop_old))
        return "papers-1"

    def describe(self) -> dict[str, Any]:
        return {"version": "9.9", "plugins": ["knn", "ml"]}

    def close(self) -> None:
        pass


def test_options_reach_the_engine_as_json_or_else_text(corpus: Path, engine: type[Engine]) -> None:
    made = invoke("index", str(corpus), "--index", "testing://host/a", "--option", "shards=3", "--option", "mode=exact")
    assert made.exit_code == 0, made.stderr
    assert engine.made["a"].options == {"shards": 3, "mode": "exact"}

    invoke("search", "testing://host/a", "wing", "--option", 'mode="x=y"')
    assert engine.made["a"].options == {"shards": 1, "mode": "x=y"}


def test_credentials_stay_text_though_they_look_like_numbers(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(hs, "open", lambda place, backend_options: given.update(backend_options))
    invoke("search", place, "wing", "--option", "password=007", "--option", "api_key=1e3", "--option", "user=true")
    assert given == {"password": "007", "api_key": "1e3", "user": "true"}


def test_a_type_error_of_an_engine_is_not_taken_for_an_unknown_option(engine: type[Engine]) -> None:
    with pytest.raises(TypeError, match="the engine's own"):
        places.connect("testing://host/broken", {"mode": "broken"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--worker-gpus", "1"], "--worker-gpus is a setting of a cluster: give --cluster too, or leave it out."),
        (
            ["--retrievers", "chars", "--language", "german"],
            "--language is for bm25, which --retrievers chars does not",
        ),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(
    corpus: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    refused = invoke("index", str(corpus), "--index", str(tmp_path / "index"), *options)
    assert refused.exit_code == 1
    assert said in one_line(refused.stderr)


@pytest.mark.parametrize("more", [[], ["--passage-size", "8"], ["--whole", "bm25"]])
def test_index_with_passages_can_be_run_again_and_other_passages_are_refused(
    corpus: Path, tmp_path: Path, more: list[str]
) -> None:
    arguments = ["index", str(corpus), "--index", str(tmp_path / "index"), "--passages", *more]

    first = json.loads(invoke(*arguments, "--json").stdout)
    again = json.loads(invoke(*arguments, "--json").stdout)
    other = one_line(invoke(*arguments[:4], "--passages", "--passage-size", "9").stderr)

    assert (first["indexed"], again["indexed"], again["unchanged"]) == (4, 0, 4)
    assert "leave out --passages" in other


def test_a_corpus_is_encoded_into_a_folder_and_loaded_from_there(
    corpus: Path, engine: type[Engine], tmp_path: Path
) -> None:
    arguments = ["index", str(corpus), "--index", "testing://host/a", "--via", str(tmp_path / "encoded")]

    first = json.loads(invoke(*arguments, "--json").stdout)
    again = json.loads(invoke(*arguments, "--resume", "--json").stdout)

    assert (first["indexed"], first["unchanged"], first["documents"]) == (4, 0, 4)
    assert (again["indexed"], again["unchanged"], again["documents"]) == (0, 4, 4)
    with hs.open(tmp_path / "encoded") as folder:
        assert folder.count() == 4


def test_an_index_is_copied_to_an_engine_and_compared(place: str, engine: type[Engine]) -> None:
    copied = json.loads(invoke("copy", place, "testing://me:secret@host/b", "--option", "shards=2", "--json").stdout)

    assert (copied["destination"], copied["documents"]) == ("testing://***@host/b", 4)
    assert copied["checks"][0]["overlap"] == 1.0
    assert engine.made["b"].options["shards"] == 2
    said = invoke("copy", place, "testing://host/b", "--resume")
    assert "4 were there already" in said.stdout
    assert "bm25: 4 queries find 100.0% of the same 10 best" in said.stdout


def test_a_copy_that_differs_exits_with_1(place: str, engine: type[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "count", lambda self, filter=None: 3)

    done = invoke("copy", place, "testing://host/b")

    assert done.exit_code == 1
    assert "gave 4 documents and the destination has 3" in one_line(done.stderr)


@pytest.mark.parametrize(("flags", "fate"), [([], "deleted"), (["--keep-old"], "kept")])
def test_a_name_is_given_to_a_new_index(corpus: Path, engine: type[Engine], flags: Sequence[str], fate: str) -> None:
    invoke("index", str(corpus), "--index", "testing://host/papers-2")

    said = invoke("publish", "testing://me:secret@host/papers-2", "papers", *flags)

    assert engine.made["papers-2"].published == [("papers", fate == "deleted")]
    told = "papers now stands for the index at testing://***@host/papers-2. It stood for papers-1 before"
    assert one_line(said.stdout).strip() == f"{told}, which was {fate}."


def test_an_index_that_is_kept_for_another_alias_is_not_called_deleted(
    corpus: Path, engine: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "publish", lambda *_: OldIndex("papers-1", ["other"]))
    invoke("index", str(corpus), "--index", "testing://host/papers-2")

    said = one_line(invoke("publish", "testing://host/papers-2", "papers").stdout).strip()
    told = json.loads(invoke("publish", "testing://host/papers-2", "papers", "--json").stdout)

    assert said.endswith("It stood for papers-1 before, which was kept, because it has other aliases (other).")
    assert (told["before"], told["dropped"], told["kept_for"]) == ("papers-1", False, ["other"])


def test_only_an_index_that_is_there_can_get_a_name(engine: type[Engine]) -> None:
    assert "no index at 'testing://***@host/none'" in invoke("publish", "testing://a:b@host/none", "papers").stderr


def test_doctor_says_what_a_server_has(place: str, engine: type[Engine]) -> None:
    empty = invoke("doctor", "testing://me:secret@host/b", "--json")
    assert empty.exit_code == 1
    server = [(f["name"], f["detail"]) for f in json.loads(empty.stdout)["findings"] if f["part"] == "server"]
    assert server == [("version", "9.9"), ("plugins", "knn, ml")]
    assert "secret" not in empty.stdout + empty.stderr

    invoke("copy", place, "testing://host/b")
    found = json.loads(invoke("doctor", "testing://me:secret@host/b", "--json").stdout)["findings"][2]
    assert (found["part"], found["name"], found["usable"]) == ("index", "testing://***@host/b", True)
    assert found["detail"].startswith("4 documents; bm25 (bm25 ")


def test_passwords_in_urls_are_never_printed(corpus: Path, engine: type[Engine]) -> None:
    url = "testing://me:secret@host/a"
    done = [
        invoke("search", url, "wing"),
        invoke("index", str(corpus), "--index", url),
        invoke("index", str(corpus), "--index", url, "--json"),
        invoke("search", url, "wing"),
    ]
    assert [one.exit_code for one in done] == [1, 0, 0, 0]
    assert "secret" not in "".join(one.stdout + one.stderr for one in done)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "nowhere", "wing"], "nowhere"),
        (["search", "{place}", "wing", "--filter", "{year"], "not valid JSON"),
        (["search", "{place}", "wing", "--filter", '{"year": {"$near": 1}}'], "$near"),
        (["search", "{place}", "wing", "--retrievers", "dense"], "dense"),
        (["search", "{place}", "wing", "--candidates", "0"], "candidates"),
        (["search", "gopher://host/index", "wing"], "gopher"),
        (["explain", "{place}", "wing", "unknown-id"], "unknown-id"),
        (["index", "no-such-file.jsonl", "--index", "{new}"], "no-such-file.jsonl"),
        (["index", "{corpus}", "--index", "{new}", "--retrievers", "bm52"], "bm52"),
        (["index", "{corpus}", "--index", "{new}", "--retrievers", "dense"], "needs a model"),
        (["index", "{corpus}", "--index", "{new}", "--retrievers", "bm25,bm25"], "twice"),
        (["index", "{corpus}", "--index", "{new}", "--language", "klingon"], "klingon"),
        (["index", "{corpus}", "--index", "{new}", "--format", "docx"], "docx"),
        (["doctor", "nowhere"], "nowhere"),
        (["copy", "nowhere", "{new}"], "nowhere"),
        (["copy", "{place}", "{corpus}"], "choose another folder"),
        (["copy", "{place}", "{new}", "--retrievers", "dense"], "'dense'"),
        (["publish", "{place}", "papers"], "no aliases"),
        (["search", "{place}", "wing", "--option", "shards"], "KEY=VALUE"),
        (["search", "{place}", "wing", "--option", "shards=3"], "shards"),
        (["search", "opensearch://localhost/name", "wing", "--hnsw"], "--hnsw is for an index in a folder"),
        (["index", "{corpus}", "--index", "{new}", "--resume"], "--via FOLDER"),
        (["index", "{corpus}", "--index", "{new}", "--via", "{place}"], "give --resume to go on"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_1(
    arguments: Sequence[str], said: str, place: str, corpus: Path, tmp_path: Path
) -> None:
    places = {"{place}": place, "{corpus}": str(corpus), "{new}": str(tmp_path / "new")}

    done = invoke(*[places.get(argument, argument) for argument in arguments])

    assert done.exit_code == 1
    assert said in one_line(done.stderr)
    assert "Traceback" not in done.stderr


def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "a", "text": "Good."}\n{"id": "b", "text": 7}\n', encoding="utf-8")

    done = program("index", str(path), "--index", str(tmp_path / "index"))

    assert done.returncode == 1
    assert "bad.jsonl" in one_line(done.stderr)
    assert "line 2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("serch", "No such command 'serch'. Did you mean 'search', 'serve'? See `root --help`."),
        ("--nope", "No such option: --nope. See `root --help`."),
        ("search", "Missing argument 'PLACE'. See `root search --help`."),
        ("index x", "Missing option '--index'. See `root index --help`."),
        ("train", "Missing argument 'kind'. Choose from: dense, sparse, late-interaction, reranker."),
        ("doctor x y", "Got unexpected extra argument(s) (y). See `root doctor --help`."),
        ("search x --topk 3", "No such option: --topk (Possible options: --top-k). See `root search --help`."),
        ("search x --top-k", "Option '--top-k' requires an argument. See `root search --help`."),
        ("search x --json=3", "Option '--json' does not take a value."),
        ("search x -k 0", "Invalid value for '--top-k' / '-k': it should be greater than or equal to 1, not '0'."),
        ("search x -k two", "Invalid value for '--top-k' / '-k': it should be a valid integer, not 'two'."),
        ("index x --passage-size 0", "'--passage-size': it should be greater than or equal to 8, not '0'."),
        ("index x --worker-cpus many", "Invalid value for '--worker-cpus': it should be a valid number, not 'many'."),
        ("mcp x --port 99999", "Invalid value for '--port': it should be less than or equal to 65535, not '99999'."),
        ("search x --precision fp8", "'--precision': 'fp8' is not one of 'auto', 'fp32', 'bf16', 'int8'."),
        ("train wide", "'kind': 'wide' is not one of 'dense', 'sparse', 'late-interaction', 'reranker'."),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_the_help_text_and_exits_with_2(arguments: str, said: str) -> None:
    failed = invoke(*arguments.split())
    assert (failed.exit_code, failed.stdout) == (2, "")
    line = one_line(failed.stderr)
    assert line.startswith("hybridsearch: ")
    assert said in line
    assert "--help`.\n" in line


def test_a_refused_value_tells_no_secret_and_controls_no_terminal() -> None:
    failed = invoke("search", "x", "--precision", "https://me:secret@host/\x1b[2J")
    assert failed.exit_code == 2
    assert "me:" not in one_line(failed.stderr)
    assert "\x1b" not in failed.stderr


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(hs.HybridSearch, "search", fails)

    done = invoke("search", place, "wing")
    assert done.exit_code == 1
    assert "--debug" in one_line(done.stderr)

    assert "Traceback" in invoke("--debug", "search", place, "wing").stderr
    assert "Traceback" in invoke("search", place, "wing", HYBRIDSEARCH_DEBUG="1").stderr


def test_doctor_names_the_extras_and_the_command_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    from hybridsearch.cli import doctor

    def version(package: str) -> str:
        if package == "usearch":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)

    extras = {finding.name: finding for finding in doctor.examine().findings if finding.part == "extra"}
    assert extras["models"].usable
    assert not extras["hnsw"].usable
    assert "[hnsw]'" in extras["hnsw"].detail


def test_doctor_says_which_engine_of_another_package_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridsearch.cli import doctor

    (tmp_path / "broken_engine.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hybridsearch.registry.registered", lambda kind: {"broken": "broken_engine:Engine"})
    (engine,) = [finding for finding in doctor.examine().findings if finding.part == "engine"]
    assert (engine.name, engine.usable, engine.detail) == ("broken", False, "RuntimeError: no licence")


@pytest.mark.usefixtures("compiled_loops")
def test_warmup_and_doctor_say_where_the_compiled_loops_are() -> None:
    made = json.loads(invoke("warmup", "--json").stdout)
    assert (Path(made["folder"]) / "complete").exists()
    assert made["folder"] in invoke("warmup").stdout.replace("\n", "")
    assert (Path(made["indexing"]) / "complete").exists()
    details = {one["name"]: one["detail"] for one in json.loads(invoke("doctor", "--json").stdout)["findings"]}
    assert (details["search loops"], details["indexing loops"]) == (made["folder"], made["indexing"])


def test_doctor_sums_up_the_cache_and_names_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDSEARCH_CACHE", str(tmp_path))
    damaged = tmp_path / "dense-0123456789ab.sqlite"
    damaged.write_text("no database")
    shown = {one["name"]: one["detail"] for one in json.loads(invoke("doctor", "--json").stdout)["findings"]}
    assert shown["encodings"] == f"{tmp_path}: 0 vectors of 0 encoders, 0.0 MiB"
    assert shown["dense 0123456789ab"] == f"{damaged} is damaged: delete it"


def test_doctor_names_the_damaged_file_of_an_index(corpus: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    invoke("index", str(corpus), "--index", str(place))
    part = max(place.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    part.write_bytes(raw)

    done = invoke("doctor", str(place), "--json")

    assert done.exit_code == 1
    assert part.name in one_line(done.stderr)
    index = json.loads(done.stdout)["findings"][0]
    assert (index["part"], index["usable"]) == ("index", False)


# Interruptions


def test_help_loads_no_numerical_library() -> None:
    code = "import sys, hybridsearch.cli.app; print(*{'numpy', 'torch', 'numba', 'pyarrow', 'rich'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == ""


def test_a_reader_that_goes_away_is_no_error(place: str) -> None:
    queries = "lift of a wing\n" * 200
    command = f"'{PROGRAM}' search '{place}' | head -n 1"
    done = subprocess.run(  # noqa: S602
        command, shell=True, input=queries, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.stdout.strip() == "lift of a wing"
    assert done.stderr == ""


def heed_interrupts() -> None:
    """A background process of a script ignores Ctrl-C, and its children would ignore it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_quietly_with_130(place: str) -> None:
    process = subprocess.Popen(
        [PROGRAM, "search", place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no other thread runs here
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("lift\n" * 2000)
    process.stdin.flush()
    assert process.stdout.readline()  # libraries, which may swallow an interrupt, are loaded by now
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert error == ""


# One question after another


class Terminal:
    """The program in another terminal."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = os.environ | {"TERM": "dumb", "COLUMNS": "120"}
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509 - no other thread runs here
        )
        os.close(slave)

    def read_until(self, text: str) -> str:
        seen, deadline = "", time.monotonic() + 60
        while text not in seen:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {seen!r}"
            try:
                seen += os.read(self._master, 65536).decode().replace("\r", "")
            except OSError:  # the program has ended
                break
        return seen

    def say(self, text: str, until: str = "\n? ") -> str:
        os.write(self._master, text.encode())
        return self.read_until(until)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(place: str) -> Iterator[Terminal]:
    terminal = Terminal("search", place)
    try:
        terminal.read_until("? ")
        yield terminal
    finally:
        terminal.close()


def test_questions_are_answered_with_the_time_of_each_stage(terminal: Terminal) -> None:
    first = terminal.say("lift of a wing\n", until=" ms\n")
    second = terminal.say("heat transfer\n", until=" ms\n")

    assert "Lift grows" in first
    assert "encode bm25" in first
    assert "ms" in first
    assert "Heat transfer in a laminar" in second


def test_an_empty_line_ends_the_questions(terminal: Terminal) -> None:
    os.write(terminal._master, b"\n")

    assert terminal.process.wait(60) == 0


def test_the_end_of_input_ends_the_questions(terminal: Terminal) -> None:
    os.write(terminal._master, b"\x04")

    assert terminal.process.wait(60) == 0


def test_a_bad_filter_does_not_end_the_questions(terminal: Terminal) -> None:
    assert "not valid JSON" in terminal.say(":filter {year\n")
    assert "$near" in terminal.say(':filter {"year": {"$near": 1}}\n')
    terminal.say(':filter {"year": {"$gt": 1970}}\n')

    found = terminal.say("wing\n", until=" ms\n")

    assert "A shock wave" in found
    assert "Lift grows" not in found


def test_the_number_of_hits_can_change_between_questions(terminal: Terminal) -> None:
    assert "not 'many'" in terminal.say(":top many\n")
    terminal.say(":top 1\n")

    found = terminal.say("boundary layer\n", until=" ms\n")

    assert ("Heat transfer" in found) != ("A shock wave" in found)


def test_ctrl_c_at_the_question_ends_quietly_with_130(terminal: Terminal) -> None:
    time.sleep(0.5)  # from printing the prompt to waiting for an answer
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.process.wait(60) == 130
    assert "Traceback" not in terminal.read_until("never")


# Fields and templates


def test_index_reads_weighted_fields(tmp_path: Path) -> None:
    source, place = tmp_path / "docs.jsonl", str(tmp_path / "index")
    source.write_text(
        '{"id": "a", "title": "Wings", "text": "thing"}\n{"id": "b", "text": "thing", "tags": ["wing"]}\n'
    )

    made = invoke("index", str(source), "--index", place, "--fields", "title=1, text=1,metadata.tags=9")
    again = invoke("index", str(source), "--index", place, "--fields", "title=1,text=1,metadata.tags=9")
    other = invoke("index", str(source), "--index", place, "--fields", "title=2")

    assert (made.exit_code, again.exit_code) == (0, 0), made.output + again.output
    assert "2 were there already" in again.output
    assert other.exit_code == 1
    assert "fields: {'title': 1.0, " in other.output
    assert [hit["id"] for hit in json.loads(invoke("search", place, "wing", "--json").stdout)["hits"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fields", "title"], "--fields takes FIELD=WEIGHT"),
        (["--fields", "title=3,title=1"], "each field once"),
        (["--fields", "title=3,"], "--fields takes FIELD=WEIGHT"),
        (["--fields", "body=3"], "fields names 'body'"),
        (["--fields", "title=0"], "weight of the field 'title'"),
        (["--template", "{title}"], "--template is for dense, sparse and late"),
        (["--retrievers", "dense=MODEL", "--template", "{body}"], "template names 'body'"),
        (["--retrievers", "dense=MODEL", "--fields", "title=3"], "--fields is for bm25"),
    ],
)
def test_wrong_fields_and_templates_are_one_line(
    options: list[str], message: str, corpus: Path, tmp_path: Path
) -> None:
    failed = invoke("index", str(corpus), "--index", str(tmp_path / "index"), *options)

    assert failed.exit_code == 1
    assert message in one_line(failed.output)


# Synonyms


def test_synonyms_of_a_file_are_recorded_and_replaced(tmp_path: Path) -> None:
    source, place = tmp_path / "docs.jsonl", str(tmp_path / "index")
    source.write_text('{"id": "a", "text": "an automobile"}\n{"id": "b", "text": "a vehicle"}\n')
    first, second, broken = tmp_path / "first.txt", tmp_path / "second.txt", tmp_path / "broken.txt"
    first.write_text("car, automobile\n")
    second.write_text("car, vehicle\n")
    broken.write_text("# cars\ncar\n")

    def found(*options: str) -> list[str]:
        return [hit["id"] for hit in json.loads(invoke("search", place, "cars", *options, "--json").stdout)["hits"]]

    assert invoke("index", str(source), "--index", place, "--synonyms", str(first)).exit_code == 0
    assert found() == ["a"]
    assert found("--synonyms", str(second)) == ["b"]
    assert "vehicl" in invoke("explain", place, "cars", "b", "--synonyms", str(second)).output
    assert "synonyms were searched: automobile (beside car)" in invoke("search", place, "cars").output

    assert invoke("index", str(source), "--index", place, "--synonyms", str(first)).exit_code == 0
    for retrievers in ([], ["--retrievers", "bm25"]):
        refused = invoke("index", str(source), "--index", place, "--synonyms", str(second), *retrievers)
        assert refused.exit_code == 1
        assert "was made with other synonyms" in one_line(refused.output)
    malformed = invoke("search", place, "cars", "--synonyms", str(broken))
    assert malformed.exit_code == 1
    assert "broken.txt, line 2: 'car' has no synonym" in one_line(malformed.output)
    missing = invoke("search", place, "cars", "--synonyms", str(tmp_path / "nowhere.txt"))
    assert missing.exit_code == 1
    assert "cannot be read" in one_line(missing.output)
