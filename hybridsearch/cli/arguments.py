"""Arguments that several verbs take, and what their texts mean."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated, Any

import typer

from hybridsearch.errors import InvalidArgumentError


def opt(metavar: str | None, help: str, *names: str, **others: Any) -> Any:
    """An option of a verb; `names` are needed where they do not follow from the parameter's, as of a flag."""
    return typer.Option(*names, metavar=metavar, help=help, **others)


def flag(name: str, help: str) -> Any:
    """An option that is there or not."""
    return typer.Option(name, help=help)


def arg(metavar: str, help: str) -> Any:
    """An argument of a verb, by its place."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def _checked_fusion(name: str | None) -> str | None:
    """Refuses a wrong name now, not at the first query."""
    from hybridsearch.fusion import read_fusion

    if name is not None:
        read_fusion(name, None)
    return name


Place = Annotated[str, arg("PLACE", "A folder, or an engine's URL.")]
Json = Annotated[bool, flag("--json", "Print one JSON document and nothing else.")]
Language = Annotated[str, typer.Option(help="Whose stemming and stop words BM25 uses; none for neither.")]
Names = Annotated[str | None, opt("NAMES", "Ask only these, such as bm25,dense. Default: all.", "--retrievers")]
Options = Annotated[
    list[str] | None,
    opt(
        "KEY=VALUE", "An option of the engine, such as shards=3; VALUE is JSON, else text. Can be repeated.", "--option"
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Documents that are read and stored together.")]
FusionName = Annotated[
    str | None,
    opt(
        "NAME",
        "rrf, minmax, zscore, adaptive, or a file that tune wrote. Default: what the index was made with (rrf).",
        "--fusion",
        callback=_checked_fusion,
    ),
]
Candidates = Annotated[
    int | None, typer.Option(help="How deep each retriever is read. Default: what the index was made with (100).")
]

_TEXTS = ("user", "password", "api_key", "ca_file")  # though they may look like a number


def backend_options(given: list[str] | None, hnsw: bool = False, place: str = "") -> dict[str, Any] | None:
    """The options of `--option KEY=VALUE` and `--hnsw`."""
    if hnsw and "://" in place:
        raise InvalidArgumentError("--hnsw is for a folder; a URL's engine has its own options (--option dense=hnsw).")
    options: dict[str, Any] = {"hnsw": True} if hnsw else {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidArgumentError(f"--option takes KEY=VALUE, such as shards=3, not {key!r:.40}.")
        if key in options:
            raise InvalidArgumentError(f"--option gives {key!r:.40} twice: leave one out.")
        options[key] = value
        if key not in _TEXTS:
            with contextlib.suppress(ValueError, RecursionError):
                options[key] = json.loads(value)
    return options or None


def split_names(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]
