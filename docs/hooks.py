"""What the site takes from the package beside its docstrings: the `--help` of the program, and examples as code."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import textwrap
from typing import Any

from griffe import Extension, Function, Object, Parameters

DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n *\S.*)*", re.MULTILINE)
VERBATIM = re.compile(r"(?<=\n\n)(?P<heading>\S[^\n]*:)\n(?P<lines>(?:  [^\n]+\n)+)")
NOTE = re.compile(r"^> `make docs` fills this page .*\n\n", re.MULTILINE)
HELP = "<!-- The help of every verb stands here. -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the help of every verb into the page that asks for it, and drops what only readers of the file need."""
    markdown = NOTE.sub("", markdown)
    return markdown.replace(HELP, _help()) if HELP in markdown else markdown


def _help() -> str:
    command = [sys.executable, "-m", "typer", "hybridsearch.cli", "utils", "docs", "--name", "hybridsearch"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    text = html.unescape(done.stdout).partition("\n")[2]
    return VERBATIM.sub(_verbatim, text)


def _verbatim(match: re.Match[str]) -> str:
    """Indented lines under a heading, such as examples, as a block of code."""
    return f"{match['heading']}\n\n```text\n{textwrap.dedent(match['lines'])}```\n"


class Docstrings(Extension):
    """Shows the examples of docstrings as code, and leaves private parameters out of signatures."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        func.parameters = Parameters(*(each for each in func.parameters if not each.name.startswith("_")))

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    return f"{match['indent']}```pycon\n{match[0]}\n{match['indent']}```"
