"""What a person types and sees on the command line: one question after another, tables, JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from hybridsearch.errors import FilterError, HybridSearchError, InvalidArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from hybridsearch.hits import Results
    from hybridsearch.search import HybridSearch

WELCOME = "Ask something; :help says what else there is, an empty line or Ctrl-D ends."
_HELP = """\
:filter JSON   only search documents that match; without JSON, search all again
:top N         show N hits
:explain       say why each hit is there, or stop saying it
Anything else is a question. An empty line or Ctrl-D ends."""


@dataclass(slots=True)
class Session:
    """An open index and how it is searched; `interact` lets a person change how."""

    searcher: HybridSearch
    top_k: int
    filter: dict[str, Any] | None
    retrievers: list[str] | None
    candidates: int | None
    fusion: str | None
    explain: bool

    def answer(self, query: str) -> Results:
        return self.searcher.search(
            query,
            self.top_k,
            filter=self.filter,
            retrievers=self.retrievers,
            candidates=self.candidates,
            fusion=self.fusion,
        )

    def json(self, query: str) -> dict[str, Any]:
        results = self.answer(query)
        data = results.to_dict()
        if self.explain:
            for explanation, of_hit in zip(results.explain(), data["hits"], strict=True):
                of_hit["explanation"] = explanation.to_dict()
        return data

    def show(self, query: str) -> Results:
        results = self.answer(query)
        console = console_on()
        console.print(results)
        if self.explain:
            for explanation in results.explain():
                console.print(f"\n{explanation}", markup=False, highlight=False)
        return results

    def interact(self) -> None:
        """Answer one question after another; a mistake is reported and the next question awaited."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - makes input() editable, with a history
        while line := _read_line("\n? "):
            try:
                if line.startswith(":"):
                    self.command(*line.split(None, 1))
                    continue
                started = time.perf_counter()
                results = self.show(line)
                stages = [*results.timings.items(), ("in all", time.perf_counter() - started)]
                spent = " · ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in stages)
                console_on().print(spent, style="dim", markup=False, highlight=False, soft_wrap=True)
            except HybridSearchError as error:
                console_on(sys.stderr).print(str(error), style="red", markup=False, highlight=False)

    def command(self, name: str, argument: str = "") -> None:
        """Do what a line with a leading colon says."""
        if name == ":filter":
            self.filter = parse_filter(argument or None)
        elif name == ":top":
            if not argument.isdecimal() or int(argument) < 1:
                raise InvalidArgumentError(f":top takes a number of at least 1, not {argument!r:.40}.")
            self.top_k = int(argument)
        elif name == ":explain":
            self.explain = not self.explain
            print_plain("Explaining hits." if self.explain else "No longer explaining hits.")
        else:
            print_plain(_HELP)


def _read_line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        print_plain("")
        return ""


def parse_filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    from hybridsearch.filters import Filter

    try:
        parsed: dict[str, Any] = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise FilterError(
            f"""The filter {text!r:.80} is not JSON ({error}): write it like '{{"year": {{"$gte": 2020}}}}'."""
        ) from error
    Filter.parse(parsed)  # says now what is wrong with it, not at the first query
    return parsed


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of an object that names a key twice, JSON keeps the last one only."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise FilterError(
                f"The filter names {key!r:.80} twice, and only the last one would count: put both conditions into one, "
                """as in '{"year": {"$gte": 2000, "$lt": 2020}}', or both filters into a list of "$and" or "$or"."""
            )
        made[key] = value
    return made


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def print_plain(*lines: str) -> None:
    for line in lines:
        print(line)


def print_error(*lines: str) -> None:
    """Print each line on standard error, like a warning."""
    for line in lines:
        print(f"hybridsearch: {' '.join(line.split())}", file=sys.stderr)


def console_on(file: TextIO | None = None) -> Console:
    """The console, as wide as the terminal. A file or a pipe has no width."""
    from rich.console import Console

    from hybridsearch.tables import UNLIMITED

    console = Console(file=file)
    return console if console.is_terminal else Console(file=file, width=UNLIMITED)
