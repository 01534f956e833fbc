"""The verbs that check and prepare this machine."""

from __future__ import annotations

import time
from typing import Annotated

from hybridsearch.cli import arguments
from hybridsearch.cli.app import CHECKING, Verb, app
from hybridsearch.cli.arguments import arg, backend_options
from hybridsearch.cli.terminal import console_on, print_json, print_plain
from hybridsearch.errors import HybridSearchError


@app.command(cls=Verb, rich_help_panel=CHECKING)
def doctor(
    place: Annotated[
        str | None,
        arg("PLACE", "Place of an index to check too, or the URL of a server, such as opensearch://localhost:9200."),
    ] = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Show what works on this machine, and check an index.

    The table lists versions, extras, engines, models, data sets and
    caches. It names the command that installs what is missing.

    \bExamples:
      hybridsearch doctor
      hybridsearch doctor papers
    """
    from hybridsearch.cli import doctor

    report = doctor.examine(place, backend_options(option))
    if as_json:
        print_json(report.to_dict())
    else:
        console_on().print(report)
    if report.problems:
        raise HybridSearchError(" ".join(report.problems))


@app.command(cls=Verb, rich_help_panel=CHECKING)
def warmup(as_json: arguments.Json = False) -> None:
    """Compile the loops of search and of indexing now, so that later calls are fast at once.

    The compiled loops are kept in folders, whose paths are printed. Use
    this verb while you build a container image.

    \bExample:
      hybridsearch warmup
    """
    from hybridsearch.encoders import counting
    from hybridsearch.registry import find

    compiled_loops = find("backend", "memory").compiled_loops
    there, started = None not in (compiled_loops(), counting.LOOPS.find()), time.perf_counter()
    counting.warm_up()
    folders = compiled_loops(make=True), counting.LOOPS.find()
    seconds = round(time.perf_counter() - started, 1)
    if as_json:
        search, indexing = map(str, folders)
        print_json({"folder": search, "indexing": indexing, "compiled": not there, "seconds": seconds})
    else:
        made = "are" if there else f"were compiled in {seconds} s. They are"
        print_plain(f"The loops of search and of indexing {made} in {' and '.join(map(str, folders))}.")
