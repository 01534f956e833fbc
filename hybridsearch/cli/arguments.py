"""Arguments that several verbs take, and what their texts mean."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from hybridsearch.fusion import Fusion

Place = Annotated[str, typer.Argument(metavar="PLACE", help="A folder, or an engine's URL.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Language = Annotated[str, typer.Option(help="Whose stemming and stop words BM25 uses.")]
Names = Annotated[
    str | None, typer.Option("--retrievers", metavar="NAMES", help="Ask only these, such as bm25,dense. Default: all.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An option of the engine, such as shards=3; VALUE is JSON, else text. Can be repeated.",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Documents that are read and stored together.")]
FusionName = Annotated[
    str | None,
    typer.Option(
        "--fusion",
        metavar="NAME",
        help="rrf, minmax, zscore, adaptive, or a file that tune wrote. Default: what the index was made with (rrf).",
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
        options[key] = value
        if key not in _TEXTS:
            with contextlib.suppress(ValueError, RecursionError):
                options[key] = json.loads(value)
    return options or None


def make_fusion(name: str | None) -> Fusion | Path | None:
    from hybridsearch.evaluation.spec import FUSION_NAMES, named_fusion

    if name is None:
        return None
    if name in FUSION_NAMES:
        return named_fusion(name)
    if not name.endswith(".json"):
        raise InvalidArgumentError(
            f"--fusion: {name!r} is none of {', '.join(FUSION_NAMES)}, nor a .json file that `hybridsearch tune` wrote."
        )
    return Path(name)


def split_names(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]
