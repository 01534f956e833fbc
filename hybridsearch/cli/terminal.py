"""Reading and printing in the terminal: one query after another, tables, JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from hybridsearch.errors import FilterError, HybridSearchError, InvalidArgumentError
from hybridsearch.messages import visible

if TYPE_CHECKING:
    from rich.console import Console

    from hybridsearch.hits import Results
    from hybridsearch.search import HybridSearch, SearchOptions

WELCOME = "Type a query. :help lists commands. An empty line or Ctrl-D ends."
_HELP = """\
:filter JSON   search only documents that match the filter
:filter        search all documents again
:top N         show N hits
:explain       show why each hit was found, or stop showing it
Any other line is a query. An empty line or Ctrl-D ends."""


@dataclass(slots=True)
class Session:
    """An open index and the settings of its searches. In `interact` a person can change the settings."""

    searcher: HybridSearch
    top_k: int
    options: SearchOptions
    explain: bool
    context: int | None = None  # tokens of the context that is printed in place of a table

    def answer(self, query: str) -> Results:
        return self.searcher.search(query, self.top_k, **self.options)

    def json(self, query: str) -> dict[str, Any]:
        results = self.answer(query)
        data = results.to_dict()
        for hit, of_hit in zip(results, data["hits"], strict=True):
            of_hit["snippet"] = hit.snippet(models=False).to_dict()
        if self.explain:
            for explanation, of_hit in zip(results.explain(), data["hits"], strict=True):
                of_hit["explanation"] = explanation.to_dict()
        if self.context is not None:
            data["context"] = results.context(self.context).to_dict()
        return data

    def show(self, query: str) -> Results:
        results = self.answer(query)
        if self.context is None:
            console_on().print(results)
        else:
            context = results.context(self.context)
            print_plain(str(context))
            print_error(*results.notes, *context.notes)
        if self.explain:
            for explanation in results.explain():
                print_plain("", str(explanation))
        return results

    def interact(self) -> None:
        """Answer one query after another. An error is printed, and the next query can follow."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - makes input() editable, with a history
        while line := _read_line("\n? "):
            try:
                if line.startswith(":"):
                    self.command(*line.split(None, 1))
                    continue
                started = time.perf_counter()
                results = self.show(line)
                stages = [*results.timings.items(), ("total", time.perf_counter() - started)]
                spent = " · ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in stages)
                console_on().print(spent, style="dim", markup=False, highlight=False, soft_wrap=True)
            except HybridSearchError as error:
                console_on(sys.stderr).print(visible(str(error)), style="red", markup=False, highlight=False)

    def command(self, name: str, argument: str = "") -> None:
        """Do the command of a line that begins with a colon."""
        if name == ":filter":
            self.options["filter"] = parse_filter(argument or None)
        elif name == ":top":
            if not argument.isdecimal() or int(argument) < 1:
                raise InvalidArgumentError(f":top takes a number of at least 1, not {argument!r:.40}.")
            self.top_k = int(argument)
        elif name == ":explain":
            self.explain = not self.explain
            print_plain("Hits are now explained." if self.explain else "Hits are no longer explained.")
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
    except FilterError:
        raise
    except (ValueError, RecursionError) as error:
        raise FilterError(
            f"""The filter {text!r:.80} is not valid JSON ({error}): write it like '{{"year": {{"$gte": 2020}}}}'."""
        ) from error
    Filter.parse(parsed)  # refuses a wrong filter now, and not at the first query
    return parsed


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `pairs`. A key that comes twice is an error, because `json` would keep only the last one."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise FilterError(
                f"The filter names {key!r:.80} twice. Put both conditions into one, "
                """as in '{"year": {"$gte": 2000, "$lt": 2020}}', or put both filters into a list of "$and" or "$or"."""
            )
        made[key] = value
    return made


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def print_plain(*lines: str) -> None:
    for line in lines:
        print(visible(line, lines=True))


def print_error(*lines: str) -> None:
    """Print each line on standard error, like a warning."""
    for line in lines:
        print(f"hybridsearch: {visible(' '.join(line.split()))}", file=sys.stderr)


def console_on(file: TextIO | None = None) -> Console:
    """The console. It is as wide as the terminal. In a file or a pipe, lines have no limit."""
    from rich.console import Console

    from hybridsearch.tables import UNLIMITED

    console = Console(file=file)
    return console if console.is_terminal else Console(file=file, width=UNLIMITED)
