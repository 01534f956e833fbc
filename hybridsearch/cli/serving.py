"""The verbs that serve indexes to other programs."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import fields
from pathlib import Path, PurePath
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

from hybridsearch.cli import arguments
from hybridsearch.cli.app import SERVING, Verb, app
from hybridsearch.cli.arguments import arg, backend_options, flag, of_run, opt, ways
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.service.settings import Settings, kinds, read_settings

if TYPE_CHECKING:
    from hybridsearch.search import HybridSearch

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)=(?P<place>.+)", re.ASCII | re.DOTALL)

_PLACES = arg(
    "PLACE",
    "Places of indexes: folders, or URLs of engines. NAME=PLACE gives an index a name. Default: the last part of the "
    "place.",
)


def _with_settings(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with an option for each setting of the service."""
    signature = inspect.signature(verb, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _options()
    ]
    verb.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    verb.__annotations__ = {one.name: one.annotation for one in [*own, *added]}
    return verb


def _options() -> Iterator[tuple[str, Any]]:
    """The name and the annotation of the option of each setting."""
    types = kinds()
    for one in fields(Settings):
        kind, data, name = types[one.name], one.metadata, f"--{one.name.replace('_', '-')}"
        if kind is bool:
            yield one.name, Annotated[bool | None, flag(name, data["help"], rich_help_panel=data["panel"])]
            continue
        many = kind not in (int, float, str)
        default = one.default
        if kind is int and one.name != "port":
            default = f"{default:,}"
        elif kind is float:
            default = f"{default:g}"
        shown = f" Default: {default}." if default else ""
        option = opt(data["metavar"], data["help"] + shown, name, rich_help_panel=data["panel"], show_default=False)
        yield one.name, Annotated[(list[str] if many else kind) | None, option]


@app.command(cls=Verb, rich_help_panel=SERVING)
@_with_settings
def serve(
    places: Annotated[list[str] | None, _PLACES] = None,
    config: Annotated[
        Path | None,
        of_run("FILE", "YAML file with settings, and with places of indexes by name under `indexes`."),
    ] = None,
    option: arguments.Options = None,
    **given: Any,
) -> None:
    """Serve indexes to programs over HTTP, and to people on a page.

    The page is at http://127.0.0.1:8000/. Programs use the addresses below
    /v1, which /openapi.json describes.

    Each setting can also be an environment variable, such as
    HYBRIDSEARCH_SERVE_PORT=8080, or a line of the file of --config, such as
    max_top_k: 50. An option overrides a variable, and a variable the file.

    \bExamples:
      hybridsearch serve papers
      hybridsearch serve papers manuals=/data/manuals-index --allow-write
      hybridsearch serve --config service.yaml
    """
    settings, from_file = read_settings(given, os.environ, config)
    named = from_file | _named(places or [])
    if not named:
        raise InvalidArgumentError("A server needs an index: give its place, or `indexes` in a file of --config.")
    from hybridsearch.service.run import run

    run(named, settings, backend_options(option))


@app.command(cls=Verb, rich_help_panel=SERVING)
def mcp(
    places: Annotated[list[str], _PLACES],
    http: Annotated[
        bool,
        flag("--http", "Serve over streamable HTTP, and not over stdin and stdout.", rich_help_panel="Run"),
    ] = False,
    host: Annotated[
        str | None,
        of_run(
            "ADDRESS",
            "Address to listen on, with --http. Another address than 127.0.0.1 needs tokens in HYBRIDSEARCH_TOKENS, "
            "such as read:TOKEN,write:TOKEN. Default: 127.0.0.1.",
        ),
    ] = None,
    port: Annotated[int | None, of_run("N", "Port to listen on, with --http. Default: 8765.", min=1, max=65535)] = None,
    about: Annotated[
        str, of_run("TEXT", "Sentence that tells agents what the documents are about.", show_default=False)
    ] = "",
    allow_write: Annotated[
        bool,
        flag("--allow-write", "Also offer tools that store and delete documents.", rich_help_panel="Run"),
    ] = False,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
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
    from hybridsearch.access import Tokens
    from hybridsearch.integrations.mcp import make_server, serve_http

    for name, value in {"--host": host, "--port": port}.items():
        if value is not None and not http:
            raise InvalidArgumentError(f"{name} is a setting of --http: give --http too, or leave it out.")
    tokens = Tokens.from_environment() if http else None
    named = _named(places)
    options = {"backend_options": backend_options(option), **ways(precision, runtime)}
    with ExitStack() as stack:
        searches = {name: stack.enter_context(hs.open(place, refresh="1s", **options)) for name, place in named.items()}
        server = make_server(searches, allow_write=allow_write, about=about, tokens=tokens)
        Thread(target=_load_models, args=(searches.values(),), daemon=True).start()
        if http:
            serve_http(server, host or "127.0.0.1", port or 8765)
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
