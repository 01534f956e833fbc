"""The command line: `hybridsearch index`, `search`, `explain`, `copy`, `publish` and `doctor`.

`hybridsearch.cli_evaluation` has the verbs that measure, `hybridsearch.cli_training` those that train.

Every verb prints for people, or with `--json` exactly one JSON document. It exits with 0, with 1 and one line on
standard error (after which a table may come), with 2 where the command line itself is wrong, or with 130 after Ctrl-C.
Libraries are imported by the verb that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hybridsearch import __version__
from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.terminal import WELCOME, Session, console_on, parse_filter, print_json, print_plain

if TYPE_CHECKING:
    from hybridsearch.encoders import Encoder
    from hybridsearch.fusion import Fusion
    from hybridsearch.search import HybridSearch


class OnError(StrEnum):
    """What to do about a line that holds no usable document."""

    stop = "stop"
    skip = "skip"


class _Verbs(TyperGroup):
    """The verbs, with what they all do about errors."""

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a broken pipe shows here, not while the interpreter ends
        except HybridSearchError as error:
            tables = getattr(error, "__notes__", ())
            _fail(_with_options(str(error), self.commands[ctx.invoked_subcommand]), debug, tables)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except OSError as error:
            _fail(f"{error}.", debug)
        except MemoryError:
            _fail("There is not enough memory for this; try a smaller --batch-size.", debug)
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise  # a usage error or an exit, which the framework handles
            _fail(
                f"Unexpected {type(error).__name__}: {error} "
                "(run `hybridsearch --debug ...`, or set HYBRIDSEARCH_DEBUG=1, to see where).",
                debug,
            )
        return result


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search your text with BM25, sparse and dense retrieval, fused, reranked and explained.",
    epilog="Start with: hybridsearch index FOLDER --index my-index, then: hybridsearch search my-index",
)


def main() -> None:
    """The program `hybridsearch`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _show_warning
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="hybridsearch")
    except KeyboardInterrupt:
        sys.exit(130)


# Arguments that several verbs take

Place = Annotated[str, typer.Argument(metavar="PLACE", help="A folder, or an engine's URL.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
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


@app.callback()
def _program(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="HYBRIDSEARCH_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=lambda on: _print_version(on), is_eager=True),  # noqa: PLW0108 - is defined below
    ] = False,
) -> None:
    pass


@app.command()
def index(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="A .jsonl, .csv or .parquet file, a BEIR folder, or a folder of .txt and .md files.",
            show_default=False,
        ),
    ],
    place: Annotated[
        str, typer.Option("--index", metavar="PLACE", help="Where the index goes: a folder, or an engine's URL.")
    ],
    retrievers: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="bm25, dense=MODEL, sparse=MODEL, joined by commas; MODEL is a folder or a hub name; "
            "native=ANALYZER for the BM25 of OpenSearch or Elasticsearch. "
            "Default: those of the index that is there, else bm25.",
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Whose stemming and stop words BM25 uses. Default for a new index: english.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv, parquet, beir or text. Default: told by the name.")
    ] = None,
    id_field: Annotated[str | None, typer.Option(help="The column that holds the id.")] = None,
    text_field: Annotated[str | None, typer.Option(help="The column that holds the text.")] = None,
    title_field: Annotated[str | None, typer.Option(help="The column that holds the title.")] = None,
    auto_id: Annotated[bool, typer.Option("--auto-id", help="Make ids where there are none.")] = False,
    on_error: Annotated[
        OnError, typer.Option(help="At a line that holds no usable document: stop, or skip it and list it at the end.")
    ] = OnError.stop,
    hnsw: Annotated[
        bool, typer.Option("--hnsw", help="Also make graphs for approximate dense search (`search --hnsw`).")
    ] = False,
    via: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Encode into this folder first, then load the engine from there."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the folder of --via holds; nothing is encoded twice.")
    ] = False,
    batch_size: BatchSize = 1024,
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Add documents to an index, which is made if it is not there; one with a known id replaces it."""
    from hybridsearch.backends import redacted
    from hybridsearch.readers import read_documents

    _check_via(via, resume)
    documents = read_documents(
        corpus,
        format=format,
        id_field=id_field,
        text_field=text_field,
        title_field=title_field,
        auto_id=auto_id,
        on_error=on_error.value,
    )
    with _open_or_create(place, retrievers, language, _backend_options(option, hnsw, place)) as searcher:
        if not searcher.backend.capabilities.persistent:
            raise InvalidArgumentError(
                f"--index {redacted(place)} is lost when the command ends; for a folder of that name write ./{place}."
            )
        report = searcher.index(documents, batch_size=batch_size, via=via)
        count = searcher.count()
        names = list(searcher.retrievers)
    place, skipped = redacted(place), [str(line) for line in documents.skipped]
    if as_json:
        print_json(
            {
                "index": place,
                "retrievers": names,
                "documents": count,
                "indexed": report.indexed,
                "unchanged": report.unchanged,
                "duplicates": list(report.duplicates),
                "skipped": skipped,
                "seconds": report.seconds,
            }
        )
        return
    unchanged = f", {report.unchanged:,} were there already" if report.unchanged else ""
    rate = f" ({report.indexed / report.seconds:,.0f} a second)" if report.indexed and report.seconds else ""
    print_plain(f"Indexed {report.indexed:,} documents in {report.seconds:.1f} s{rate}{unchanged}.")
    if skipped:
        print_plain(f"Skipped {len(skipped):,}:", *(f"  {line}" for line in skipped[:10]))
        if len(skipped) > 10:
            print_plain(f"  and {len(skipped) - 10:,} more (--json lists them all)")
    print_plain(f"{place} holds {count:,} documents for {', '.join(names)}. Next: hybridsearch search {place}")


@app.command()
def search(
    place: Place,
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY",
            help="What to find; after -- if it starts with a dash. Default: asks in a terminal, else reads one a line.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many hits.")] = 10,
    filter: Annotated[str | None, typer.Option(metavar="JSON", help="""Such as '{"year": {"$gte": 2020}}'.""")] = None,
    retrievers: Names = None,
    candidates: Candidates = None,
    fusion: FusionName = None,
    rerank: Annotated[str | None, typer.Option(metavar="MODEL", help="Reorder the top by this cross-encoder.")] = None,
    hnsw: Annotated[
        bool, typer.Option("--hnsw", help="Search dense vectors approximately: faster where there are very many.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say for each hit why it is there.")] = False,
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Search an index."""
    asking = query is None and sys.stdin.isatty()
    if asking and as_json:
        raise typer.BadParameter("give it a QUERY, or queries on standard input.", param_hint="--json")
    import hybridsearch as hs
    from hybridsearch.backends import redacted

    parsed, names, merge = parse_filter(filter), _split(retrievers), _make_fusion(fusion)
    with hs.open(place, backend_options=_backend_options(option, hnsw, place)) as searcher:
        if rerank is not None:
            searcher.reranker = hs.CrossEncoderReranker(rerank)
        session = Session(searcher, top_k, parsed, names, candidates, merge, explain)
        if asking:
            names_of_all = ", ".join(searcher.retrievers)
            print_plain(f"{redacted(place)}: {searcher.count():,} documents for {names_of_all}.", WELCOME)
            session.interact()
        elif query is not None and as_json:
            print_json(session.json(query))
        elif query is not None:
            session.show(query)
        else:
            queries = (line.strip() for line in sys.stdin if line.strip())
            if as_json:
                print_json([session.json(text) for text in queries])
            else:
                for text in queries:
                    session.show(text)


@app.command()
def explain(
    place: Place,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was asked.", show_default=False)],
    id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.", show_default=False)],
    retrievers: Names = None,
    candidates: Candidates = None,
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Say why a document is where it is for a query, or why it was not found."""
    import hybridsearch as hs

    with hs.open(place, backend_options=_backend_options(option)) as searcher:
        explanation = searcher.explain(query, id, retrievers=_split(retrievers), candidates=candidates)
    if as_json:
        print_json(explanation.to_dict())
    else:
        print_plain(str(explanation))


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or an engine's URL.", show_default=False)],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="A folder, or an engine's URL.", show_default=False)
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a copy that was interrupted; what is there is not sent again.")
    ] = False,
    retrievers: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Copy only these, such as bm25,dense. Default: all.")
    ] = None,
    verify: Annotated[int, typer.Option(min=0, help="How many queries compare the two rankings.")] = 20,
    batch_size: BatchSize = 1024,
    option: Options = None,
    source_option: Annotated[
        list[str] | None, typer.Option("--source-option", metavar="KEY=VALUE", help="The same for the source.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy an index with its vectors to another engine or folder, and compare the two; nothing is encoded."""
    import hybridsearch as hs

    report = hs.copy(
        source,
        destination,
        retrievers=_split(retrievers),
        batch_size=batch_size,
        resume=resume,
        verify=verify,
        source_options=_backend_options(source_option),
        destination_options=_backend_options(option),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        print_plain(str(report))
    if report.differences:
        raise HybridSearchError(" ".join(report.differences))


@app.command()
def publish(
    place: Annotated[str, typer.Argument(metavar="URL", help="The new index.", show_default=False)],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The name to search by.", show_default=False)],
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Do not delete the index that ALIAS meant.")] = False,
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Let a name mean this index, in the place of the one that it means now, which is deleted."""
    import hybridsearch as hs
    from hybridsearch.backends import redacted

    old = hs.publish(place, alias, drop_old=not keep_old, backend_options=_backend_options(option))
    if as_json:
        print_json({"index": redacted(place), "alias": alias, "before": old, "dropped": bool(old) and not keep_old})
        return
    before = "" if old is None else f" It was {old} before, which is {'kept' if keep_old else 'deleted'}."
    print_plain(f"{alias} now is {redacted(place)}.{before}")


@app.command()
def doctor(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="PLACE", help="An index to check, too; of a server any name, as in URL/name.", show_default=False
        ),
    ] = None,
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Say what is usable here: extras, engines, models, data, cache; and check an index."""
    from hybridsearch import doctor

    report = doctor.examine(place, _backend_options(option))
    if as_json:
        print_json(report.to_dict())
    else:
        console_on().print(report)
    if report.problems:
        raise HybridSearchError(" ".join(report.problems))


# Opening

_TEXTS = ("user", "password", "api_key", "ca_file")  # though they may look like a number
_EXAMPLE = "bm25,dense=sentence-transformers/all-MiniLM-L6-v2"


def _open_or_create(
    place: str, retrievers: str | None, language: str | None, options: dict[str, Any] | None
) -> HybridSearch:
    import hybridsearch as hs
    from hybridsearch.errors import IndexNotFoundError

    if retrievers is None:
        with contextlib.suppress(IndexNotFoundError):
            given = None if language is None else {"bm25": hs.BM25(language)}
            return hs.open(place, retrievers=given, backend_options=options)
    encoders = _make_encoders(retrievers or "bm25", language or "english")
    return hs.HybridSearch(encoders, backend=place, backend_options=options)


def _backend_options(given: list[str] | None, hnsw: bool = False, place: str = "") -> dict[str, Any] | None:
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


def _check_via(via: Path | None, resume: bool) -> None:
    """What was encoded for another corpus is not loaded by accident."""
    if resume and via is None:
        raise InvalidArgumentError("--resume goes on with what a folder holds: name it with --via FOLDER.")
    there = via is not None and via.exists() and any(via.iterdir())
    if there and not resume:
        raise InvalidArgumentError(
            f"--via {via} holds something already: --resume goes on with it, or choose another folder."
        )


def _make_encoders(spec: str, language: str) -> dict[str, Encoder]:
    """The encoders of `bm25,dense=MODEL,sparse=MODEL,native=ANALYZER`, by name."""
    import hybridsearch as hs

    encoders: dict[str, Encoder] = {}
    for part in spec.split(","):
        name, given, model = (text.strip() for text in part.partition("="))
        if name not in ("bm25", "dense", "sparse", "native"):
            raise InvalidArgumentError(
                f"--retrievers has {part.strip()!r}: known are bm25, dense=MODEL, sparse=MODEL and native=ANALYZER, "
                f"as in {_EXAMPLE}."
            )
        if name in encoders:
            raise InvalidArgumentError(f"--retrievers has {name!r} twice; from Python an index can have several.")
        if name == "bm25":
            if given:
                raise InvalidArgumentError("--retrievers: bm25 takes no model; its option is --language.")
            encoders[name] = hs.BM25(language=language)
        elif name == "native":
            encoders[name] = hs.NativeBM25(model or "standard")
        elif not model:
            raise InvalidArgumentError(f"--retrievers: {name} needs a model, a folder or a hub name, as in {_EXAMPLE}.")
        else:
            encoders[name] = hs.Dense(model) if name == "dense" else hs.Sparse(model)
    return encoders


def _make_fusion(name: str | None) -> Fusion | Path | None:
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


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


# Printing


def _with_options(message: str, verb: Any) -> str:
    """`message` with Python's arguments named as this verb's options are: `top_k=5` becomes `--top-k 5`."""
    names = [param.name for param in verb.params if "_" in param.name and f"--{_dashed(param.name)}" in param.opts]
    if not names:
        return message
    argument = re.compile(rf"(?<![\w/.'-])({'|'.join(names)})(=|(?![\w/'-]|\.\w))")  # and no part of a path
    return argument.sub(lambda found: f"--{_dashed(found[1])}{' ' if found[2] else ''}", message)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _fail(message: str, debug: bool, tables: Iterable[str] = ()) -> None:
    """One line on standard error, what is too long for it, and exit code 1; with `debug` the traceback before it."""
    if debug:
        import traceback

        traceback.print_exc()
    for text in (f"hybridsearch: {' '.join(message.split())}", *tables):
        print(text, file=sys.stderr)
    raise typer.Exit(1) from None


def _print_version(on: bool) -> None:
    if on:
        print(f"hybridsearch {__version__}")
        raise typer.Exit


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"hybridsearch: warning: {' '.join(str(message).split())}", file=sys.stderr)


from hybridsearch import cli_evaluation, cli_training  # noqa: E402, F401 - add their verbs to `app`, with what is above
