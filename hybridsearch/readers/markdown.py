"""What a reader finds in a file, and the Markdown in which it writes headings, lists and tables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from hybridsearch.errors import MissingExtraError
from hybridsearch.messages import number_of

_FRONT = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(.*?)^(?:\1|\.\.\.)[ \t]*\r?(?:\n|\Z)[\r\n]*", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"^[\w\"'][^:=\n]*(?::(?=\s)|=)", re.MULTILINE)
_LONGEST_FRONT = 2**16  # characters
_DEEPEST = 100  # levels of front matter

HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t]*#*[ \t\r]*$", re.MULTILINE)
"""A heading of Markdown. Its first group is the text."""


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file.

    Attributes:
        text: The text, with headings, lists and tables in Markdown.
        title: Title of the document, or "" if the file has none.
        metadata: Values that the file has beside its text.
        unread: What is missing from the text, or uncertain. Each is the end of a sentence that begins with the file.
        once: Lines that the file has several times and the text once, as words for a note.
    """

    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)


def unread_comments(count: int) -> list[str]:
    """What `Content.unread` says of this number of comments."""
    return [f"has {number_of(count, 'comment')} that {'is' if count == 1 else 'are'} not read"] if count else []


def squeezed(text: str) -> str:
    """The text with one blank in place of each run of white space.

    >>> squeezed("  Lift\\n grows. ")
    'Lift grows.'
    """
    return " ".join(text.split())


def first_heading(text: str) -> str:
    """The text of the first heading, or ""."""
    found = HEADING.search(text)
    return found[1] if found else ""


def list_item(blocks: Sequence[str], mark: str) -> str:
    """The blocks of an item of a list as lines. All but the first are indented.

    >>> print(list_item(["Open it.", "- Turn the key."], "1."))
    1. Open it.
       - Turn the key.
    """
    indent = " " * (len(mark) + 1)
    lines = "\n".join(blocks).split("\n")
    return "\n".join([f"{mark} {lines[0]}", *(indent + line if line else line for line in lines[1:])])


def table(rows: Iterable[Sequence[str]]) -> str:
    """The rows as a table. The first row is its head. Rows and columns that hold nothing are left out.

    >>> print(table([["Part", "Nm"], ["Bolt", "12"], ["", ""]]))
    | Part | Nm |
    | --- | --- |
    | Bolt | 12 |
    """
    cells = [[squeezed(cell).replace("|", "\\|") for cell in row] for row in rows]
    cells = [row for row in cells if any(row)]
    width = max(map(len, cells), default=0)
    used = [place for place in range(width) if any(place < len(row) and row[place] for row in cells)]
    lines = [f"| {' | '.join(row[place] if place < len(row) else '' for place in used)} |" for row in cells]
    return "\n".join([*lines[:1], f"| {' | '.join('---' for _ in used)} |", *lines[1:]]) if lines else ""


def split_front_matter(text: str) -> Content:
    """The text without its front matter, which is metadata: YAML between lines of `---`, or TOML between `+++`.

    What is no mapping in YAML or TOML stays in the text.

    Raises:
        MissingExtraError: The front matter is YAML, and PyYAML is not installed.
    """
    found = _FRONT.match(text[:_LONGEST_FRONT])
    if found is None or not _NAMED.search(found[2]):
        return Content(text)
    try:
        values = _yaml(found[2]) if found[1] == "---" else tomllib.loads(found[2])
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        return Content(text, unread=[f"has front matter that is not valid and stays in the text ({reason:.120})"])
    if not isinstance(values, dict):
        return Content(text)
    return Content(text[found.end() :], metadata={str(name): value for name, value in values.items()})


def _yaml(text: str) -> Any:
    """The values of YAML, without aliases, by which a small text can stand for gigabytes.

    Raises:
        ValueError: The text is not valid YAML, or it has aliases.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", "files", "Reading the front matter of Markdown") from error
    if _depth(text) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, if it is there
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise ValueError("it has aliases")
        return yaml.load(text, loader)  # noqa: S506 - both loaders are safe
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 2}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _depth(text: str) -> int:
    """The most brackets and dashes of YAML that may be open at a time. PyYAML takes quadratic time for them."""
    steps = (1 if found in "[{" else -1 for found in re.findall(r"[][{}]", text))
    brackets = accumulate(steps, lambda depth, step: max(0, depth + step), initial=0)
    dashes = (len(found) // 2 for found in re.findall(r"(?:[-?][ \t]+)+", text))
    return max(*brackets, 0, *dashes)
