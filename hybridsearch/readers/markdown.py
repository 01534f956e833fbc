"""What a reader finds in a file, and the Markdown in which it writes headings, lists and tables."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from hybridsearch.errors import MissingExtraError
from hybridsearch.messages import number_of

_FRONT = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(.*?)^(?:\1|\.\.\.)[ \t]*\r?(?:\n|\Z)[\r\n]*", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"^[\w\"'][^:=\n]*(?::(?=\s)|=)", re.MULTILINE)
_STRUCTURE = re.compile(
    r"^ {0,3}(?:(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)"
    r"|(?P<level>\#{1,6})[ \t]+(?P<title>[^\n]*)"
    r"|(?P<line>={2,}|-{2,})[ \t\r]*$)",
    re.MULTILINE,
)
_NOT_A_TITLE = re.compile(r"[-*+>|#`~=]|\d+[.)]\s")  # the line is of a list, a quote, a table, a heading or code
_SPACE = re.compile(r"\s*")
_LONGEST_FRONT = 2**16  # characters
_DEEPEST = 100  # levels of front matter
_SCALARS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("0|-?[1-9][0-9]*", "-0123456789"),
    "float": (
        r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|-?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-.0123456789",
    ),
}
"""How numbers and booleans are written in YAML, and their first characters. Whatever is written otherwise is text."""


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


class Heading(NamedTuple):
    """A heading of Markdown, with its place in the text."""

    start: int  # after the white space before the heading
    end: int  # after the white space that follows it
    level: int
    title: str


def structure(text: str) -> tuple[list[Heading], list[tuple[int, int]]]:
    """The Markdown headings and the spans of fenced code.

    >>> [heading.title for heading in structure("Guide\\n=====\\n\\n```\\n# a comment\\n```\\n\\n## C# ##")[0]]
    ['Guide', 'C#']
    """
    headings: list[Heading] = []
    code: list[tuple[int, int]] = []
    if not any(sign in text for sign in ("#", "```", "~~~", "\n--", "\n ", "\n==")):
        return headings, code
    fence, opened = "", 0
    for found in _STRUCTURE.finditer(text):
        if fence:
            if (found["fence"] or "").startswith(fence) and not found["info"].strip():
                code.append((opened, found.end()))
                fence = ""
        elif found["fence"]:
            if "`" not in found["info"] or found["fence"][0] == "~":
                fence, opened = found["fence"], found.start()
        elif found["level"]:
            title = found["title"].strip()
            before = title.rstrip("#")  # signs end a heading only after a space: C# is a name
            title = title if before and not before[-1].isspace() else before.rstrip()
            if title:
                headings.append(_heading(text, found.start(), found.end(), len(found["level"]), title))
        elif underlined := _line_above(text, found.start()):
            headings.append(
                _heading(text, underlined[0], found.end(), 1 if found["line"][0] == "=" else 2, underlined[1])
            )
    if fence:
        code.append((opened, len(text)))
    return headings, code


def _line_above(text: str, start: int) -> tuple[int, str] | None:
    """The start and the title of the line above an underline. None if that line is not a paragraph of one line."""
    above = text.rfind("\n", 0, max(start - 1, 0)) + 1
    title = text[above:start].strip()
    before = text[text.rfind("\n", 0, max(above - 1, 0)) + 1 : above]
    return None if not title or before.strip() or _NOT_A_TITLE.match(title) else (above, title)


def _heading(text: str, start: int, end: int, level: int, title: str) -> Heading:
    return Heading(after_space(text, start), after_space(text, end), level, title)


def after_space(text: str, place: int) -> int:
    """The first place from `place` on that is no white space, or the end of the text."""
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches everywhere


def first_heading(text: str) -> str:
    """The text of the first heading, or "". Lines of fenced code are no headings."""
    titles, _ = structure(text)
    return titles[0].title if titles else ""


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
    loader = _loader()
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise ValueError("it has aliases")
        return yaml.load(text, loader)  # noqa: S506 - both loaders are safe
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 2}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


@cache
def _loader() -> Any:
    """The safe loader of PyYAML, whose numbers and booleans are those of CSV files.

    PyYAML follows YAML 1.1: it reads the postcode 01234 as 668, the time 12:30 as 750, and the country NO as false. It
    also takes the last of two values with the same name. This loader raises an error then.
    """
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C, if it is there
        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads it from the class
            first: [one for one in resolvers if one[0].rpartition(":")[2] not in _SCALARS]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            twice = next((name for name, count in names.items() if count > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(problem=f"it has the field {twice!r:.80} twice")
            return super().construct_mapping(node, deep)

    for name, (pattern, first) in _SCALARS.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"), list(first))
    return Loader


def _depth(text: str) -> int:
    """The most brackets and dashes of YAML that may be open at a time. PyYAML takes quadratic time for them."""
    steps = (1 if found in "[{" else -1 for found in re.findall(r"[][{}]", text))
    brackets = accumulate(steps, lambda depth, step: max(0, depth + step), initial=0)
    dashes = (len(found) // 2 for found in re.findall(r"(?:[-?][ \t]+)+", text))
    return max(*brackets, 0, *dashes)
