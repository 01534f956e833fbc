"""The verbs that serve indexes to other programs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import PurePath
from threading import Thread
from typing import TYPE_CHECKING, Annotated

from hybridsearch.cli import arguments
from hybridsearch.cli.app import SERVING, Verb, app
from hybridsearch.cli.arguments import arg, backend_options, flag, of_run
from hybridsearch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from hybridsearch.search import HybridSearch

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)=(?P<place>.+)", re.ASCII | re.DOTALL)


@app.command(cls=Verb, rich_help_panel=SERVING)
def mcp(
    places: Annotated[
        list[str],
        arg(
            "PLACE",
            "Places of indexes: folders, or URLs of engines. NAME=PLACE gives an index a name. Default: the last part "
            "of the place.",
        ),
    ],
    http: Annotated[
        bool,
        flag("--http", "Serve over streamable HTTP, and not over stdin and stdout.", rich_help_panel="Run"),
    ] = False,
    host: Annotated[
        str,
        of_run(
            "ADDRESS",
            "Address to listen on, with --http. Another address than 127.0.0.1 needs tokens in HYBRIDSEARCH_TOKENS, "
            "such as read:TOKEN,write:TOKEN.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, of_run("N", "Port to listen on, with --http.", min=1, max=65535)] = 8765,
    about: Annotated[
        str, of_run("TEXT", "Sentence that tells agents what the documents are about.", show_default=False)
    ] = "",
    allow_write: Annotated[
        bool,
        flag("--allow-write", "Also offer tools that store and delete documents.", rich_help_panel="Run"),
    ] = False,
    option: arguments.Options = None,
) -> None:
    """Serve indexes to agents and chat clients, by the Model Context Protocol.

    The client starts this command and speaks to it over stdin and stdout.
    With --http, it listens on http://127.0.0.1:8765/mcp instead.

    \bExamples:
      hybridsearch mcp papers
      hybridsearch mcp papers manuals=/data/manuals-index --http
    """
    import hybridsearch as hs
    from hybridsearch.integrations.mcp import make_server, serve_http
    from hybridsearch.tokens import Tokens

    tokens = Tokens.from_environment() if http else None
    named = _named(places)
    options = backend_options(option)
    with ExitStack() as stack:
        searches = {
            name: stack.enter_context(hs.open(place, backend_options=options, refresh="1s"))
            for name, place in named.items()
        }
        server = make_server(searches, allow_write=allow_write, about=about, tokens=tokens)
        Thread(target=_load_models, args=(searches.values(),), daemon=True).start()
        if http:
            serve_http(server, host, port)
        else:
            server.run("stdio")


def _load_models(searches: Iterable[HybridSearch]) -> None:
    """Load the models now, because a client does not wait long for its first answer."""
    for search in searches:
        with suppress(Exception):  # the first call of a client tells what is wrong
            search.search("a first question loads the models", 1)


def _named(places: list[str]) -> dict[str, str]:
    """The places by the names of their indexes."""
    named: dict[str, str] = {}
    for given in places:
        found = _NAMED.fullmatch(given)
        place = found["place"] if found else given
        name = found["name"] if found else _last_part(place)
        if name in named:
            raise InvalidArgumentError(f"Two indexes have the name {name!r:.80}: give one a name by NAME=PLACE.")
        named[name] = place
    return named


def _last_part(place: str) -> str:
    """The name of a place: its last part, with "-" for characters that a name cannot have."""
    path = re.split(r"[?#]", place)[0] if "://" in place else place
    return re.sub(r"[^\w.-]+", "-", PurePath(path).name, flags=re.ASCII).strip("-._") or "index"
