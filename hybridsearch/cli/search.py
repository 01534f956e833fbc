"""The verbs that fill and search an index: `index`, `search`, `explain`, `copy`, `publish`, `doctor` and `warmup`."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.cli import arguments
from hybridsearch.cli.app import app
from hybridsearch.cli.arguments import arg, backend_options, flag, opt, split_names
from hybridsearch.cli.terminal import WELCOME, Session, console_on, parse_filter, print_error, print_json, print_plain
from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.messages import number_of, redacted

if TYPE_CHECKING:
    from hybridsearch.search import HybridSearch


OnError = StrEnum("OnError", ["stop", "skip"])


@app.command()
def index(
    corpus: Annotated[
        Path, arg("CORPUS", "A .jsonl, .csv or .parquet file, a BEIR folder, or a folder of .txt and .md files.")
    ],
    place: Annotated[str, opt("PLACE", "Where the index goes: a folder, or an engine's URL.", "--index")],
    retrievers: Annotated[
        str | None,
        opt(
            "SPEC",
            "bm25, dense=MODEL, sparse=MODEL, joined by commas; MODEL is a folder or a hub name; "
            "native=ANALYZER for the BM25 of OpenSearch or Elasticsearch. "
            "Default: those of the index that is there, else bm25.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Whose stemming and stop words BM25 uses; none for neither. Default for a new index: english."
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv, parquet, beir or text. Default: told by the name.")
    ] = None,
    id_field: Annotated[str | None, typer.Option(help="The column that holds the id.")] = None,
    text_field: Annotated[str | None, typer.Option(help="The column that holds the text.")] = None,
    title_field: Annotated[str | None, typer.Option(help="The column that holds the title.")] = None,
    auto_id: Annotated[bool, flag("--auto-id", "Make ids where there are none.")] = False,
    type: Annotated[
        list[str] | None,
        opt(
            "NAME=TYPE",
            "The type of a field of metadata, such as zip=str: str, int, float, bool, date, datetime or instant. Can "
            "be repeated. Default: a type that fits the whole column in CSV, else the type that a value has.",
            "--type",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of text files, such as cp1252. Default: UTF-8, or by the byte order mark."),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option(help="At a line that holds no usable document: stop, or skip it and list it at the end.")
    ] = OnError.stop,
    hnsw: Annotated[bool, flag("--hnsw", "Also make graphs for approximate dense search (`search --hnsw`).")] = False,
    via: Annotated[
        Path | None, opt("FOLDER", "Encode into this folder first, then load the engine from there.")
    ] = None,
    resume: Annotated[
        bool, flag("--resume", "Go on with what the folder of --via holds; nothing is encoded twice.")
    ] = False,
    sync: Annotated[
        bool,
        flag("--sync", "Remove from the index what CORPUS no longer has, after saying how many."),
    ] = False,
    batch_size: arguments.BatchSize = 1024,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Add documents to an index, which is made if it is not there; one with a known id replaces it."""
    from hybridsearch.readers import read_documents

    _check_via(via, resume)
    documents = read_documents(
        corpus,
        format=format,
        id_field=id_field,
        text_field=text_field,
        title_field=title_field,
        auto_id=auto_id,
        types=_types(type),
        encoding=encoding,
        on_error=on_error.value,
    )
    with _open_or_create(place, retrievers, language, backend_options(option, hnsw, place)) as searcher:
        if not searcher.backend.capabilities.persistent:
            raise InvalidArgumentError(
                f"--index {redacted(place)} is lost when the command ends; for a folder of that name write "
                f"{shlex.quote(f'./{place}')}."
            )
        _check_hnsw(searcher, hnsw)

        def going(gone: int) -> bool:
            print_error(f"{corpus} no longer has {gone:,} of {number_of(searcher.count(), 'document')}: removing them.")
            return True

        shown = redacted(place)
        try:
            report = searcher.index(documents, batch_size=batch_size, via=via, sync=going if sync else False)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(_how_to_go_on(searcher, shown, via)) from interrupt
        count = searcher.count()
        names = list(searcher.retrievers)
    skipped = [str(line) for line in documents.skipped]
    if as_json:
        print_json(
            {
                "index": shown,
                "retrievers": names,
                "documents": count,
                "indexed": report.indexed,
                "unchanged": report.unchanged,
                "duplicates": list(report.duplicates),
                "removed": report.removed,
                "types": documents.types,
                "notes": list(report.notes),
                "skipped": skipped,
                "seconds": report.seconds,
            }
        )
        return
    unchanged = f", {number_of(report.unchanged, 'was', 'were')} there already" if report.unchanged else ""
    rate = f" ({report.indexed / report.seconds:,.0f} a second)" if report.indexed and report.seconds else ""
    print_error(*report.notes)
    print_plain(f"Indexed {number_of(report.indexed, 'document')} in {report.seconds:.1f} s{rate}{unchanged}.")
    if sync:
        print_plain(f"Removed {number_of(report.removed, 'document')}.")
    if skipped:
        print_plain(f"Skipped {len(skipped):,}:", *(f"  {line}" for line in skipped[:10]))
        if len(skipped) > 10:
            print_plain(f"  and {len(skipped) - 10:,} more (--json lists them all)")
    holds = f"{shown} holds {number_of(count, 'document')} for {', '.join(names)}."
    print_plain(f"{holds} Next: hybridsearch search {shlex.quote(shown)}")


@app.command()
def search(
    place: arguments.Place,
    words: Annotated[
        list[str] | None,
        arg(
            "QUERY",
            "What to find, in quotes or not; after -- if it starts with a dash. "
            "Default: asks in a terminal, else reads one a line.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many hits.")] = 10,
    filter: Annotated[str | None, opt("JSON", """Such as '{"year": {"$gte": 2020}}'.""")] = None,
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    fusion: arguments.FusionName = None,
    rerank: Annotated[str | None, opt("MODEL", "Reorder the top by this cross-encoder.")] = None,
    hnsw: Annotated[
        bool, flag("--hnsw", "Search dense vectors approximately: faster where there are very many.")
    ] = False,
    explain: Annotated[bool, flag("--explain", "Say for each hit why it is there.")] = False,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Search an index."""
    query = " ".join(words) if words else None  # a query needs no quotes
    asking = query is None and sys.stdin.isatty()
    if asking and as_json:
        raise typer.BadParameter("give it a QUERY, or queries on standard input.", param_hint="--json")
    import hybridsearch as hs

    parsed, names = parse_filter(filter), split_names(retrievers)
    with hs.open(place, backend_options=backend_options(option, hnsw, place)) as searcher:
        _check_hnsw(searcher, hnsw)
        if rerank is not None:
            searcher.reranker = hs.CrossEncoderReranker(rerank)
        session = Session(searcher, top_k, parsed, names, candidates, fusion, explain)
        if asking:
            names_of_all = ", ".join(searcher.retrievers)
            print_plain(f"{redacted(place)}: {number_of(searcher.count(), 'document')} for {names_of_all}.", WELCOME)
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
    place: arguments.Place,
    words: Annotated[list[str], arg("QUERY", "What was asked.")],
    id: Annotated[str, arg("ID", "The document's id.")],
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Say why a document is where it is for a query, or why it was not found."""
    import hybridsearch as hs

    with hs.open(place, backend_options=backend_options(option)) as searcher:
        explanation = searcher.explain(" ".join(words), id, retrievers=split_names(retrievers), candidates=candidates)
    if as_json:
        print_json(explanation.to_dict())
    else:
        print_plain(str(explanation))


@app.command()
def copy(
    source: Annotated[str, arg("SOURCE", "A folder, or an engine's URL.")],
    destination: Annotated[str, arg("DESTINATION", "A folder, or an engine's URL.")],
    resume: Annotated[
        bool, flag("--resume", "Go on with a copy that was interrupted; what is there is not sent again.")
    ] = False,
    retrievers: Annotated[str | None, opt("NAMES", "Copy only these, such as bm25,dense. Default: all.")] = None,
    verify: Annotated[int, typer.Option(min=0, help="How many queries compare the two rankings.")] = 20,
    batch_size: arguments.BatchSize = 1024,
    option: arguments.Options = None,
    source_option: Annotated[list[str] | None, opt("KEY=VALUE", "The same for the source.", "--source-option")] = None,
    as_json: arguments.Json = False,
) -> None:
    """Copy an index with its vectors to another engine or folder, and compare the two; nothing is encoded."""
    import hybridsearch as hs

    try:
        report = hs.copy(
            source,
            destination,
            retrievers=split_names(retrievers),
            batch_size=batch_size,
            resume=resume,
            verify=verify,
            source_options=backend_options(source_option),
            destination_options=backend_options(option),
        )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("the same command with --resume goes on with the copy.") from interrupt
    if as_json:
        print_json(report.to_dict())
    else:
        print_plain(str(report))
    if report.differences:
        raise HybridSearchError(" ".join(report.differences))


@app.command()
def publish(
    place: Annotated[str, arg("URL", "The new index.")],
    alias: Annotated[str, arg("ALIAS", "The name to search by.")],
    keep_old: Annotated[bool, flag("--keep-old", "Do not delete the index that ALIAS meant.")] = False,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Let a name mean this index, in the place of the one that it means now, which is deleted."""
    import hybridsearch as hs

    old = hs.publish(place, alias, drop_old=not keep_old, backend_options=backend_options(option))
    if as_json:
        print_json({"index": redacted(place), "alias": alias, "before": old, "dropped": bool(old) and not keep_old})
        return
    before = "" if old is None else f" It was {old} before, which is {'kept' if keep_old else 'deleted'}."
    print_plain(f"{alias} now is {redacted(place)}.{before}")


@app.command()
def doctor(
    place: Annotated[str | None, arg("PLACE", "An index to check, too; of a server any name, as in URL/name.")] = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Say what is usable here: extras, engines, models, data, cache; and check an index."""
    from hybridsearch.cli import doctor

    report = doctor.examine(place, backend_options(option))
    if as_json:
        print_json(report.to_dict())
    else:
        console_on().print(report)
    if report.problems:
        raise HybridSearchError(" ".join(report.problems))


@app.command()
def warmup(as_json: arguments.Json = False) -> None:
    """Compile the search loops now, for example while an image is built, and say where they are kept."""
    from hybridsearch.registry import find

    compiled_loops = find("backend", "memory").compiled_loops
    there, started = compiled_loops() is not None, time.perf_counter()
    folder, seconds = compiled_loops(make=True), round(time.perf_counter() - started, 1)
    if as_json:
        print_json({"folder": str(folder), "compiled": not there, "seconds": seconds})
    else:
        print_plain(
            f"The search loops {'are' if there else f'were compiled in {seconds} s, and are kept'} in {folder}."
        )


# Opening


def _open_or_create(
    place: str, retrievers: str | None, language: str | None, options: dict[str, Any] | None
) -> HybridSearch:
    import hybridsearch as hs
    from hybridsearch.encoders.spec import make_encoders
    from hybridsearch.errors import IndexNotFoundError

    if retrievers is None:
        with contextlib.suppress(IndexNotFoundError):
            given = None if language is None else make_encoders("bm25", language)
            return hs.open(place, retrievers=given, backend_options=options)
    encoders = make_encoders(retrievers or "bm25", language or "english")
    return hs.HybridSearch(encoders, backend=place, backend_options=options)


def _types(given: list[str] | None) -> dict[str, str]:
    """The types of `--type NAME=TYPE`."""
    types: dict[str, str] = {}
    for text in given or ():
        name, equals, type = text.rpartition("=")
        if not equals or not name:
            raise InvalidArgumentError(f"--type takes NAME=TYPE, such as zip=str, not {text!r:.80}.")
        if types.setdefault(name, type) != type:
            raise InvalidArgumentError(f"--type gives {name!r:.80} two types, {types[name]} and {type}: leave one out.")
    return types


def _check_hnsw(searcher: HybridSearch, hnsw: bool) -> None:
    from hybridsearch.encoders.dense import Dense

    if hnsw and not any(isinstance(encoder, Dense) for encoder in searcher.retrievers.values()):
        names = ", ".join(searcher.retrievers)
        raise InvalidArgumentError(
            f"--hnsw is for dense vectors, but this index has none (its retrievers: {names}): leave out --hnsw, or "
            "make an index with --retrievers dense=MODEL."
        )


def _how_to_go_on(searcher: HybridSearch, place: str, via: Path | None) -> str:
    """What an interrupted `index` has stored, and what to do."""
    from hybridsearch.backends import Loader

    if via is not None:
        return f"what was encoded is kept in {via}; the same command with --resume goes on."
    try:
        if isinstance(searcher.backend, Loader):  # it counts documents once they are searchable
            searcher.backend.refresh()
        stored = number_of(searcher.count(), "document is", "documents are")
    except HybridSearchError as error:
        return f"how many documents are stored in {place} is not known ({error})"
    return f"{stored} stored in {place}. The same command goes on and does not encode these again."


def _check_via(via: Path | None, resume: bool) -> None:
    """What was encoded for another corpus is not loaded by accident."""
    if resume and via is None:
        raise InvalidArgumentError("--resume goes on with what a folder holds: name it with --via FOLDER.")
    there = via is not None and via.exists() and any(via.iterdir())
    if there and not resume:
        raise InvalidArgumentError(
            f"--via {via} holds something already: --resume goes on with it, or choose another folder."
        )
