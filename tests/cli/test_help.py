"""`--help` of the program and of each verb, as a new user reads it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hybridsearch.cli import app
from hybridsearch.cli.app import ORDER

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def help_of(*verb: str, columns: int = 80) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.rich_utils.MAX_WIDTH", columns)  # typer reads it only once from the environment
        shown = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": str(columns)})
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_the_program_lists_every_verb_in_the_order_of_first_use() -> None:
    text = help_of()
    assert set(ORDER) == set(COMMANDS)
    places = [re.search(rf"^│ {verb} ", text, re.MULTILINE) for verb in ORDER]
    assert all(places)
    assert [one.start() for one in places if one] == sorted(one.start() for one in places if one)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("verb", ["", *ORDER, "train dense"])
def test_no_line_is_cut_or_too_long(verb: str, columns: int) -> None:
    text = help_of(*verb.split(), columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text


@pytest.mark.parametrize("verb", ORDER)
def test_a_verb_says_what_it_does_and_shows_a_command(verb: str) -> None:
    first, _, rest = inspect.cleandoc(COMMANDS[verb].help).partition("\n\n")
    assert re.fullmatch(r"[A-Z][^.]*\.", first)
    assert f"\n  hybridsearch {verb} " in rest or f"\n  hybridsearch {verb}\n" in f"{rest}\n"


@pytest.mark.parametrize("verb", ORDER)
def test_each_option_has_a_heading_and_says_what_its_value_is(verb: str) -> None:
    for param in COMMANDS[verb].params:
        assert param.help[0].isupper(), param.name
        assert param.help.endswith("."), param.name
        if param.param_type_name == "option":
            assert param.rich_help_panel, param.name
