"""Arguments that several verbs take, and the headings under which help texts list options."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from hybridsearch.feedback import Feedback
    from hybridsearch.rerank import Reranker
    from hybridsearch.search import HybridSearch

OUTPUT = "Output"
"""The heading of `--json` and `--help`, in every verb."""


def opt(metavar: str | None, help: str, *names: str, **others: Any) -> Any:
    """An option of a verb.

    Args:
        metavar: Placeholder for the value in the help text. "" for a flag. None shows the allowed values.
        help: Help text. It begins with what the value is.
        names: Names of the option, such as "--index". Without names, the parameter's name gives the option's name.
        others: Other arguments of `typer.Option`.
    """
    return typer.Option(*names, metavar=metavar, help=help, **others)


def flag(name: str, help: str, **others: Any) -> Any:
    """An option that takes no value."""
    return typer.Option(name, metavar="", help=help, **others)


def arg(metavar: str, help: str) -> Any:
    """A positional argument of a verb."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def _checked_fusion(name: str | None) -> str | None:
    """Refuse a wrong name now, and not at the first query."""
    from hybridsearch.fusion import read_fusion

    if name is not None:
        read_fusion(name, None)
    return name


# An option under a heading
of_index = partial(opt, rich_help_panel="Index")
of_search = partial(opt, rich_help_panel="Search")
of_run = partial(opt, rich_help_panel="Run")
of_documents = partial(opt, rich_help_panel="Documents")
of_data = partial(opt, rich_help_panel="Data set")
of_output = partial(opt, rich_help_panel=OUTPUT)

MODELS = "A MODEL is a folder, or a name on the Hugging Face hub."

Place = Annotated[str, arg("PLACE", "Place of the index: a folder, or the URL of an engine.")]
Json = Annotated[bool, flag("--json", "Print one JSON document and nothing else.", rich_help_panel=OUTPUT)]
Language = Annotated[
    str | None,
    of_index(
        "NAME",
        "Language of the documents. It decides the stemming and stop words of BM25. `none` uses neither of them. "
        "Default: english.",
    ),
]
Names = Annotated[
    str | None,
    of_search(
        "NAMES",
        "Names of the retrievers to ask, with commas, such as bm25,dense. Default: all of them.",
        "--retrievers",
    ),
]
Options = Annotated[
    list[str] | None,
    of_index(
        "KEY=VALUE",
        "One option of the engine, such as shards=3. VALUE is read as JSON if it is valid JSON, else as text. "
        "Can be repeated.",
        "--option",
    ),
]
FusionName = Annotated[
    str | None,
    of_search(
        "NAME",
        "Fusion that merges the rankings: rrf, minmax, zscore, adaptive, or a file that `hybridsearch tune --save` or "
        "`hybridsearch calibrate --save` wrote. Default: the fusion of the index (rrf, unless the index was made with "
        "another one).",
        "--fusion",
        callback=_checked_fusion,
    ),
]
FeedbackNames = Annotated[
    str | None,
    of_search(
        "NAMES",
        "Feedback, with commas: the first documents expand the query, and the retriever searches again. rm3 is for "
        "BM25, and rocchio for dense and sparse retrievers. rm3:20 reads 20 documents. Default: none.",
        "--feedback",
    ),
]
Candidates = Annotated[
    int | None,
    of_search(
        "N",
        "Number of documents that are read from each retriever. Default: the number of the index (100, unless the "
        "index was made with another one).",
    ),
]
Rerank = Annotated[
    str | None,
    of_search(
        "MODEL",
        "Cross-encoder that reorders the first documents, or late=MODEL for a late-interaction model. " + MODELS,
        "--rerank",
    ),
]
RerankBlend = Annotated[
    float | None,
    of_search(
        "X", "Weight of the fused score in the score after reranking, from 0 to 1. Default: 0.", "--rerank-blend"
    ),
]

PrecisionName = StrEnum("PrecisionName", ["auto", "fp32", "bf16", "int8"])
RuntimeName = StrEnum("RuntimeName", ["torch", "openvino"])

_PRECISION = (
    "Number format in which models compute: fp32; bf16, about twice as fast on a processor that has it; int8, for a "
    "folder that `hybridsearch optimize` wrote; or auto, the fastest here that loses at most .0001 of cosine."
)
_RUNTIME = "Library that runs models on the CPU: torch, or openvino (extra openvino)."

Precision = Annotated[
    PrecisionName | None, of_search("NAME", f"{_PRECISION} Default: the precision of the index.", "--precision")
]
Runtime = Annotated[
    RuntimeName | None, of_search("NAME", f"{_RUNTIME} Default: the library of the index.", "--runtime")
]
IndexPrecision = Annotated[
    PrecisionName | None, of_index("NAME", f"{_PRECISION} A new index records it. Default: fp32.", "--precision")
]
IndexRuntime = Annotated[
    RuntimeName | None, of_index("NAME", f"{_RUNTIME} A new index records it. Default: torch.", "--runtime")
]

Hnsw = Annotated[
    bool,
    flag(
        "--hnsw",
        "Search dense vectors approximately. This is faster if there are very many documents, and can miss some of the "
        "best documents.",
        rich_help_panel="Search",
    ),
]

Synonyms = Annotated[
    Path | None,
    of_search(
        "FILE",
        "File of synonyms that BM25 adds to queries, in Solr's or WordNet's format. Default: those of the index.",
        "--synonyms",
    ),
]

_TEXTS = ("user", "password", "api_key", "ca_file")  # texts, even if they look like numbers


def ways(precision: StrEnum | None, runtime: StrEnum | None) -> dict[str, Any]:
    """The arguments of an encoder or a reranker that `--precision` and `--runtime` give."""
    given = {"precision": precision, "runtime": runtime}
    return {name: one.value for name, one in given.items() if one is not None}


def reranker(model: str | None, blend: float | None, **arguments: Any) -> Reranker | None:
    """The reranker that `--rerank MODEL` and `--rerank-blend X` give. None without a model."""
    from hybridsearch.rerank import read_reranker

    if model is None:
        if blend is not None:
            raise InvalidArgumentError("--rerank-blend needs a reranker: give its model too.")
        return None
    return read_reranker(model, **({} if blend is None else {"blend": blend}), **arguments)


def backend_options(given: list[str] | None, hnsw: bool = False, place: str = "") -> dict[str, Any] | None:
    """The options that `--option KEY=VALUE` and `--hnsw` give to the backend."""
    if hnsw and "://" in place:
        raise InvalidArgumentError(
            "--hnsw is for an index in a folder. At a URL use an option of the engine: --option dense=hnsw on "
            "OpenSearch and Elasticsearch."
        )
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


def feedback_of(names: str | None) -> list[Feedback] | None:
    """The feedback that `--feedback NAMES` gives."""
    from hybridsearch.feedback import read_feedback

    return None if names is None else [read_feedback(name) for name in split_names(names) or []]


def split_names(names: str | None) -> list[str] | None:
    """The names of a text with commas. None for None."""
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def check_built(index: str | None, **options: str | None) -> None:
    """Refuse options of a new index beside `--index`, because nothing is built then."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if index is not None and given:
        raise InvalidArgumentError(
            f"--index searches an existing index, so nothing is built: leave out {' and '.join(given)}."
        )


def check_hnsw(searcher: HybridSearch, hnsw: bool) -> None:
    from hybridsearch.encoders.dense import Dense

    if hnsw and not any(isinstance(encoder, Dense) for encoder in searcher.retrievers.values()):
        names = ", ".join(searcher.retrievers)
        raise InvalidArgumentError(
            f"--hnsw is for dense vectors, but the retrievers of this index ({names}) have none. Leave out --hnsw, or "
            "make an index with --retrievers dense=MODEL."
        )
