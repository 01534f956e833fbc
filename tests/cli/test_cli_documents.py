"""Tests of the verbs `list`, `get` and `delete`."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.registry import register

PROGRAM = Path(sys.executable).with_name("hybridsearch")
PAPERS = [
    {"id": "wing", "title": "Wings", "text": "Lift grows\nuntil the flow separates.", "year": 1958, "tags": ["a", "b"]},
    {"id": "heat", "title": "Heat", "text": "Heat transfer in a laminar boundary layer.", "year": 1962},
    {"id": "shock", "text": "A shock wave \x1b[31mthickens the [bold]layer.", "year": 1971, "of": {"x": {"y": None}}},
    {"id": "old", "text": "", "draft": True, "\u00e9": "caf\u00e9"},
]


@pytest.fixture
def place(tmp_path: Path) -> str:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "papers") as search:
        search.upsert(PAPERS)
    return str(tmp_path / "papers")


def run(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, arguments, **options)


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL} | options
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, encoding="utf-8", timeout=120, check=False, **options
    )


def in_a_terminal(answer: str, *arguments: str) -> tuple[int, str]:
    """The exit code and the standard error of the program whose input is a terminal, where somebody types `answer`."""
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, answer.encode())
        done = program(*arguments, stdin=terminal)
    finally:
        os.close(keyboard)
        os.close(terminal)
    return done.returncode, done.stderr


def ids(place: str) -> list[str]:
    with hs.open(place) as search:
        return [document.id for document in search.documents()]


# list


def test_list_prints_a_table_by_id(place: str) -> None:
    lines = run("list", place).stdout.splitlines()
    assert lines[0].split() == ["id", "document"]
    assert [line.split()[0] for line in lines[1:5]] == ["heat", "old", "shock", "wing"]
    assert lines[3].endswith("A shock wave  [31mthickens the [bold]layer.")
    assert lines[4].endswith("Wings: Lift grows until the flow separates.")
    assert lines[5:] == ["4 of 4 documents"]


def test_list_shows_the_fields_that_it_sorts_by(place: str) -> None:
    lines = run("list", place, "--sort", "-year,title").stdout.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["id", "year"],
        ["shock", "1971"],
        ["heat", "1962"],
        ["wing", "1958"],
    ]
    assert run("list", place, "--sort", "tags").stdout.splitlines()[1].startswith('wing   ["a", "b"]  Wings')


def test_list_prints_the_command_that_continues(place: str) -> None:
    seen = []
    command = ["", "list", place, "--sort", "-year", "--limit", "1", "--filter", '{"id": {"$ne": "heat"}}']
    while command:
        lines = run(*command[1:]).stdout.splitlines()
        seen.append(lines[1].split()[0])
        command = shlex.split(lines[-1].removeprefix("Next: ")) if lines[-1].startswith("Next: ") else []
    assert seen == ["shock", "wing", "old"]


def test_list_prints_lines_that_index_reads_back(place: str, tmp_path: Path) -> None:
    listed = program("list", place, "--json")
    assert listed.stderr == ""
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == ["heat", "old", "shock", "wing"]
    (tmp_path / "back.jsonl").write_text(listed.stdout)
    assert run("index", str(tmp_path / "back.jsonl"), "--index", str(tmp_path / "back")).exit_code == 0
    with hs.open(place) as search, hs.open(tmp_path / "back") as back:
        assert list(back.documents()) == list(search.documents())


def test_list_tells_machines_where_to_continue(place: str) -> None:
    listed = program("list", place, "--json", "--limit", "3")
    cursor = listed.stderr.removeprefix("hybridsearch: there are more documents: --after ").strip()
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == ["heat", "old", "shock"]
    assert [json.loads(line)["id"] for line in run("list", place, "--json", "--after", cursor).stdout.splitlines()] == [
        "wing"
    ]


def test_list_without_a_limit_prints_twenty_rows_but_all_lines(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "many") as search:
        search.upsert([{"id": f"{number:02}", "text": ""} for number in range(30)])
    lines = run("list", str(tmp_path / "many")).stdout.splitlines()
    assert (len(lines), lines[21]) == (23, "20 of 30 documents")
    assert len(run("list", str(tmp_path / "many"), "--json").stdout.splitlines()) == 30


def test_list_says_what_is_wrong(place: str) -> None:
    for given, said in (
        (["--sort", "yaer"], "The order names 'yaer', but no document has this field."),
        (["--filter", '{"yaer": 1}'], "The filter asks about 'yaer', but no document has this field."),
    ):
        done = run("list", place, *given)
        assert (done.exit_code, done.stderr) == (0, f"hybridsearch: {said}\n")
    assert "no documents\n0 of 0 documents" in done.stdout
    for given, said in (
        (["--after", "x"], "after is 'x', which is not a cursor"),
        (["--filter", "{}"], "filter is empty"),
        (["--sort", "-year,year"], "sort names 'year' twice"),
    ):
        done = run("list", place, *given)
        assert done.exit_code == 1
        assert said in done.stderr


# get


def test_get_prints_whole_documents(place: str) -> None:
    shown = run("get", place, "wing", "shock").stdout
    assert shown == (
        'wing Wings\nyear: 1958\ntags: ["a", "b"]\n\nLift grows\nuntil the flow separates.\n\n'
        'shock \nyear: 1971\nof: {"x": {"y": null}}\n\nA shock wave  [31mthickens the [bold]layer.\n'
    )


def test_get_prints_a_line_of_json_for_each_document(place: str) -> None:
    lines = run("get", place, "old", "heat", "--json").stdout.splitlines()
    with hs.open(place) as search:
        assert [hs.Document(**json.loads(line)) for line in lines] == search.get(["old", "heat"])


def test_get_names_unknown_ids_after_the_known_documents(place: str) -> None:
    done = run("get", place, "nope", "heat", "neither", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["id"] == "heat"
    assert "There is no document 'nope', 'neither' in" in done.stderr


# delete


def test_delete_by_filter_shows_the_number_and_asks(place: str) -> None:
    code, said = in_a_terminal("n\n", "delete", place, "--filter", '{"year": {"$lt": 1970}}')
    assert code == 1
    assert f"Delete 2 of 4 documents in {place}? [y/N]" in said
    assert "No document was deleted." in said
    assert ids(place) == ["heat", "old", "shock", "wing"]
    code, _ = in_a_terminal("y\n", "delete", place, "--filter", '{"year": {"$lt": 1970}}')
    assert code == 0
    assert ids(place) == ["old", "shock"]


def test_delete_by_id_asks_too(place: str) -> None:
    code, said = in_a_terminal("y\n", "delete", place, "wing", "nope")
    assert (code, "Delete 1 of 4 documents" in said) == (0, True)
    assert ids(place) == ["heat", "old", "shock"]


@pytest.mark.parametrize("given", [["wing"], ["--filter", '{"year": 1958}']])
def test_delete_without_a_terminal_needs_yes(given: list[str], place: str) -> None:
    done = program("delete", place, *given)
    assert (done.returncode, done.stdout) == (1, "")
    assert "because standard input is not a terminal, so no document was deleted: give --yes" in done.stderr
    done = run("delete", place, *given, "--json")
    assert (done.exit_code, "--json asks nothing, so no document was deleted: give --yes" in done.stderr) == (1, True)
    assert len(ids(place)) == 4
    done = run("delete", place, *given, "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"Deleted 1 document. {place} holds 3 documents.\n"


def test_delete_tells_machines_what_it_did(place: str) -> None:
    told = json.loads(run("delete", place, "--filter", '{"year": {"$gt": 1960}}', "--yes", "--json").stdout)
    assert told == {"index": place, "found": 2, "deleted": 2, "documents": 2, "notes": []}


def test_a_dry_run_deletes_nothing(place: str) -> None:
    done = run("delete", place, "--filter", '{"year": {"$gt": 1960}}', "--dry-run")
    assert done.stdout == f"2 documents of 4 in {place} would be deleted.\n"
    told = json.loads(run("delete", place, "wing", "--dry-run", "--json").stdout)
    assert told == {"index": place, "found": 1, "deleted": 0, "documents": 4, "notes": []}
    assert len(ids(place)) == 4


def test_delete_of_nothing_asks_nothing(place: str) -> None:
    done = program("delete", place, "nope")
    assert (done.returncode, done.stdout) == (0, f"Deleted 0 documents. {place} holds 4 documents.\n")


def test_a_misspelt_field_is_named_once_before_the_question(place: str) -> None:
    done = program("delete", place, "--filter", '{"drfat": {"$ne": true}}')
    note, error = done.stderr.splitlines()
    assert note == "hybridsearch: The filter asks about 'drfat', but no document has this field."
    assert "Delete 4 of 4 documents" in error
    done = program("delete", place, "--filter", '{"drfat": {"$ne": true}}', "--yes")
    assert (done.returncode, done.stderr.splitlines()) == (0, [note])


def test_everything_is_deleted_only_if_the_filter_says_so(place: str) -> None:
    done = run("delete", place, "--filter", "{}", "--yes")
    assert (done.exit_code, len(ids(place))) == (1, 4)
    assert 'write {"id": {"$exists": true}} for every document' in done.stderr
    assert run("delete", place, "--filter", '{"id": {"$exists": true}}', "--yes").exit_code == 0
    assert ids(place) == []


@pytest.mark.parametrize("given", [[], ["wing", "--filter", '{"year": 1958}']])
def test_delete_takes_ids_or_a_filter(given: list[str], place: str) -> None:
    done = run("delete", place, *given, "--yes")
    assert done.exit_code == 2
    assert "give ids or --filter, and not both" in done.stderr


# Hostile texts


def words(text: str) -> list[str]:
    return text.split()


def test_no_text_of_a_document_controls_the_terminal(tmp_path: Path) -> None:
    place, hostile = str(tmp_path / "place"), "\x1b]0;owned\x07\x9b2J\u202egnp"
    with hs.HybridSearch({"bm25": hs.BM25(tokenizer=hs.Tokenizer("words", words))}, place) as search:
        search.upsert({"id": hostile, "title": hostile, "text": f"wing {hostile}", hostile: hostile})
        print_of_library = f"{search.search('wing')}{search.explain(f'wing {hostile}', hostile)}"
    register("tokenizer", "words", words)
    shown = [
        run("search", place, f"wing {hostile}", "--explain", "--filter", json.dumps({"nope": hostile})),
        run("search", place, f"wing {hostile}", "--explain", "--group-by", hostile),
        run("explain", place, f"wing {hostile}", hostile),
        run("list", place, "--sort", hostile),
        run("get", place, hostile),
        run("get", place, f"no {hostile}"),
    ]
    texts = [print_of_library, *(part for one in shown for part in (one.stdout, one.stderr))]
    assert "owned" in texts[1]
    assert [char for text in texts for char in text if not char.isprintable() and char not in "\n\t"] == []
    assert json.loads(run("get", place, hostile, "--json").stdout)["id"] == hostile


def test_an_id_that_begins_with_a_dash_is_told_the_way_out(place: str) -> None:
    assert "If it is an id, put all options first and -- before the ids." in run("get", place, "-x").stderr
