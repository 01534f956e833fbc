"""The verbs that make, search, copy and check an index."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.cli import arguments
from hybridsearch.cli.app import CHECKING, MOVING, SEARCHING, Verb, app
from hybridsearch.cli.arguments import MODELS, arg, backend_options, flag, of_index, of_search, opt, split_names
from hybridsearch.cli.terminal import WELCOME, Session, console_on, parse_filter, print_error, print_json, print_plain
from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.messages import number_of, redacted

if TYPE_CHECKING:
    from hybridsearch.passages import Passages
    from hybridsearch.rerank import Recency
    from hybridsearch.search import HybridSearch, SearchOptions


OnError = StrEnum("OnError", ["stop", "skip"])

# An option of `index` or `copy`, under a heading
_of_documents = partial(opt, rich_help_panel="Documents")
_of_run = partial(opt, rich_help_panel="Run")


@app.command(cls=Verb, rich_help_panel=SEARCHING)
def index(
    source: Annotated[
        str,
        arg(
            "SOURCE",
            "Documents to read: a .jsonl, .csv, .tsv or .parquet file, a BEIR folder, or a folder of any of these and "
            "of .txt, .md, .pdf, .docx, .pptx, .xlsx, .html and .eml files. Or the URL of a database, with --query.",
        ),
    ],
    place: Annotated[
        str, of_index("PLACE", "Place of the index: a folder, or the URL of an engine. Made if it is new.", "--index")
    ],
    retrievers: Annotated[
        str | None,
        of_index(
            "SPEC",
            "Retrievers of the index, with commas: bm25, chars, dense=MODEL, sparse=MODEL, or native=ANALYZER for the "
            f"BM25 of OpenSearch or Elasticsearch. {MODELS} Default: the retrievers of the index; bm25 for a new "
            "index.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        of_index(
            "NAME",
            "Language of the documents. It decides the stemming and stop words of BM25. `none` uses neither of them. "
            "Default for a new index: english.",
        ),
    ] = None,
    fields: Annotated[
        str | None,
        of_index(
            "FIELD=WEIGHT",
            "Fields that BM25 reads, with their weights and commas between them, such as "
            "title=3,text=1,metadata.tags=2. Default: title and text as one text.",
        ),
    ] = None,
    synonyms: Annotated[
        Path | None,
        of_index(
            "FILE",
            "File of synonyms that BM25 adds to queries, in Solr's or WordNet's format. A new index records them. "
            "`search --synonyms` takes others.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        of_index(
            "TEXT",
            "Text that dense and sparse models read of a document, such as '{title}: {text} ({metadata.tags})'. "
            "Default: title and text.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        _of_documents(
            "NAME",
            "Format of the source: jsonl, csv, tsv, parquet, beir, text, pdf, docx, pptx, xlsx, html or eml. In a "
            "folder, only files of this format are read. Default: decided by the files' names.",
        ),
    ] = None,
    id_field: Annotated[str | None, _of_documents("NAME", "Field (column) that holds the id.")] = None,
    text_field: Annotated[str | None, _of_documents("NAME", "Field (column) that holds the text.")] = None,
    title_field: Annotated[str | None, _of_documents("NAME", "Field (column) that holds the title.")] = None,
    auto_id: Annotated[
        bool, flag("--auto-id", "Make an id for each document that has no id.", rich_help_panel="Documents")
    ] = False,
    type: Annotated[
        list[str] | None,
        _of_documents(
            "NAME=TYPE",
            "Type of a metadata field, such as zip=str. TYPE is str, int, float, bool, date, datetime or instant. Can "
            "be repeated. Default: in CSV a type that fits the whole column, else the type of each value.",
            "--type",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        _of_documents(
            "NAME",
            "Character encoding of text files, such as cp1252. Default: UTF-8, or the encoding that a byte order mark "
            "shows.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        _of_documents(
            "CHAR",
            "Character between the columns of CSV and TSV files, such as ';' or tab. Default: found in the file.",
        ),
    ] = None,
    query: Annotated[
        str | None,
        _of_documents("SQL", "Query that gives the documents, if SOURCE is the URL or the file of a database."),
    ] = None,
    on_error: Annotated[
        OnError,
        _of_documents(
            None,
            "What to do at a line that holds no usable document: `stop`, or `skip` the line and list it at the end.",
        ),
    ] = OnError.stop,
    passages: Annotated[
        bool,
        flag(
            "--passages",
            "Split long documents into passages. Each retriever then finds a document by its best passage.",
            rich_help_panel="Index",
        ),
    ] = False,
    passage_size: Annotated[
        int | None,
        of_index("N", "Largest number of tokens of a passage, with --passages. Default: 128.", min=8),
    ] = None,
    whole: Annotated[
        str | None,
        of_index("NAMES", "Names of retrievers that read whole documents, with --passages, such as bm25."),
    ] = None,
    hnsw: Annotated[
        bool,
        flag("--hnsw", "Also make graphs for approximate dense search (see `search --hnsw`).", rich_help_panel="Index"),
    ] = False,
    via: Annotated[
        Path | None,
        _of_run(
            "FOLDER", "Folder that keeps the vectors. Encode into this folder first, then load the engine from it."
        ),
    ] = None,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            "Go on with the folder of --via after an interruption. Nothing is encoded twice.",
            rich_help_panel="Run",
        ),
    ] = False,
    sync: Annotated[
        bool,
        flag(
            "--sync",
            "Also remove documents from the index that SOURCE no longer has. Their number is printed first.",
            rich_help_panel="Run",
        ),
    ] = False,
    batch_size: Annotated[int, _of_run("N", "Number of documents that are encoded and stored together.", min=1)] = 1024,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Make an index of your documents, or add documents to an index.

    A document replaces the one that has the same id. Documents that have
    not changed are not encoded again.

    \bExamples:
      hybridsearch index papers.jsonl --index papers
      hybridsearch index manuals/ --index manuals --passages
      hybridsearch index notes/ --index my-notes --retrievers bm25,dense=MODEL
    """
    from hybridsearch.readers import read_documents

    _check_via(via, resume)
    documents = read_documents(
        source,
        format=format,
        id_field=id_field,
        text_field=text_field,
        title_field=title_field,
        auto_id=auto_id,
        types=_types(type),
        encoding=encoding,
        delimiter=delimiter,
        query=query,
        on_error=on_error.value,
    )
    encoding_options = {"fields": _weights(fields), "synonyms": synonyms, "template": template}
    split = _passages(passages, passage_size, whole)
    with _open_or_create(
        place, retrievers, language, encoding_options, split, backend_options(option, hnsw, place)
    ) as searcher:
        if not searcher.backend.capabilities.persistent:
            raise InvalidArgumentError(
                f"--index {redacted(place)} is lost when the command ends; for a folder of that name write "
                f"{shlex.quote(f'./{place}')}."
            )
        _check_hnsw(searcher, hnsw)

        def going(gone: int) -> bool:
            all = number_of(searcher.count(), "document")
            print_error(f"{redacted(source)} no longer has {gone:,} of {all}: removing them.")
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
                "notes": [note for note in report.notes if note != documents.skipped_note],
                "truncated": dict(report.truncated),
                "skipped": skipped,
                "seconds": report.seconds,
            }
        )
        return
    unchanged = f", {number_of(report.unchanged, 'was', 'were')} there already" if report.unchanged else ""
    rate = f" ({report.indexed / report.seconds:,.0f} a second)" if report.indexed and report.seconds else ""
    print_error(*(note for note in report.notes if note != documents.skipped_note))
    print_plain(f"Indexed {number_of(report.indexed, 'document')} in {report.seconds:.1f} s{rate}{unchanged}.")
    if sync:
        print_plain(f"Removed {number_of(report.removed, 'document')}.")
    if skipped:
        print_plain(f"Skipped {len(skipped):,}:", *(f"  {line}" for line in skipped[:10]))
        if len(skipped) > 10:
            print_plain(f"  and {len(skipped) - 10:,} more (--json lists them all)")
    holds = f"{shown} holds {number_of(count, 'document')} for {', '.join(names)}."
    print_plain(f"{holds} Next: hybridsearch search {shlex.quote(shown)}")


@app.command(cls=Verb, rich_help_panel=SEARCHING)
def search(
    place: arguments.Place,
    words: Annotated[
        list[str] | None,
        arg(
            "QUERY",
            "Query, with or without quotes. Put -- before a query that begins with a dash. Default: in a terminal you "
            "are asked for one query after another, else each line of standard input is a query.",
        ),
    ] = None,
    top_k: Annotated[int, of_search("N", "Number of hits.", "--top-k", "-k", min=1)] = 10,
    filter: Annotated[
        str | None,
        of_search(
            "JSON",
            "Filter on metadata, title or id. Only documents that match are searched. Example: "
            """'{"year": {"$gte": 2020}}'.""",
        ),
    ] = None,
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    fusion: arguments.FusionName = None,
    rerank: arguments.Rerank = None,
    offset: Annotated[int, of_search("N", "Number of first hits to leave out, for the next page.", min=0)] = 0,
    min_score: Annotated[
        str | None,
        of_search(
            "SCORE",
            "Least score of a hit, after fusion and reranking. Or least scores of retrievers, such as "
            "bm25=2,dense=0.4: a retriever does not find documents with lower scores. Default: no limit.",
        ),
    ] = None,
    recent: Annotated[
        str | None,
        of_search(
            "FIELD=TIME",
            "Metadata field with dates, to rank recent documents higher, and the time after which half of that is "
            "left. Example: published=30d.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, of_search("FIELD", "Metadata field of which each value gives one hit, the best.")
    ] = None,
    mmr: Annotated[
        float | None,
        of_search(
            "RELEVANCE",
            "Variety of the hits by maximal marginal relevance: from 1 (only relevance counts) to 0 (only variety "
            "counts), such as 0.7.",
            min=0,
            max=1,
        ),
    ] = None,
    synonyms: arguments.Synonyms = None,
    hnsw: Annotated[
        bool,
        flag(
            "--hnsw",
            "Search dense vectors approximately. This is faster if there are very many documents, and can miss some "
            "of the best documents.",
            rich_help_panel="Search",
        ),
    ] = False,
    option: arguments.Options = None,
    explain: Annotated[
        bool, flag("--explain", "Show for each hit why it was found.", rich_help_panel=arguments.OUTPUT)
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Search an index and print the best documents.

    The columns named after the retrievers hold the rank that each
    retriever gave to the document.

    \bExamples:
      hybridsearch search papers "boundary layer on a wing"
      hybridsearch search papers heat --filter '{"year": {"$gte": 1960}}'
      hybridsearch search papers          (asks for one query after another)
    """
    query = " ".join(words) if words else None  # quotes around the query are optional
    asking = query is None and sys.stdin.isatty()
    if asking and as_json:
        raise typer.BadParameter("it needs a QUERY, or queries on standard input.", param_hint="--json")
    import hybridsearch as hs

    options: SearchOptions = {
        "filter": parse_filter(filter),
        "retrievers": split_names(retrievers),
        "candidates": candidates,
        "fusion": fusion,
        "offset": offset,
        "min_score": _least(min_score),
        "boost": _recency(recent),
        "group_by": group_by,
        "diversity": None if mmr is None else hs.MMR(mmr),
    }
    with _open(place, synonyms, backend_options(option, hnsw, place)) as searcher:
        _check_hnsw(searcher, hnsw)
        if rerank is not None:
            searcher.reranker = hs.CrossEncoderReranker(rerank)
        session = Session(searcher, top_k, options, explain)
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


@app.command(cls=Verb, rich_help_panel=SEARCHING)
def explain(
    place: arguments.Place,
    words: Annotated[list[str], arg("QUERY", "Query, with or without quotes.")],
    id: Annotated[str, arg("ID", "Id of the document.")],
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    synonyms: arguments.Synonyms = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Explain why a document has its rank for a query, or why it was not found.

    \bExample:
      hybridsearch explain papers "boundary layer on a wing" some-document-id
    """
    with _open(place, synonyms, backend_options(option)) as searcher:
        explanation = searcher.explain(" ".join(words), id, retrievers=split_names(retrievers), candidates=candidates)
    if as_json:
        print_json(explanation.to_dict())
    else:
        print_plain(str(explanation))


@app.command(cls=Verb, rich_help_panel=MOVING)
def copy(
    source: Annotated[str, arg("SOURCE", "Place of the index to copy: a folder, or the URL of an engine.")],
    destination: Annotated[str, arg("DESTINATION", "Place of the copy: a folder, or the URL of an engine.")],
    retrievers: Annotated[
        str | None,
        of_index("NAMES", "Names of the retrievers to copy, with commas, such as bm25,dense. Default: all of them."),
    ] = None,
    option: Annotated[
        list[str] | None,
        of_index(
            "KEY=VALUE",
            "One option of the destination's engine, such as shards=3. VALUE is read as JSON if it is valid JSON, else "
            "as text. Can be repeated.",
            "--option",
        ),
    ] = None,
    source_option: Annotated[
        list[str] | None,
        of_index("KEY=VALUE", "One option of the source's engine. Can be repeated.", "--source-option"),
    ] = None,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            "Go on with a copy that was interrupted. Documents that are in the copy are not sent again.",
            rich_help_panel="Run",
        ),
    ] = False,
    verify: Annotated[
        int,
        _of_run(
            "N",
            "Number of documents whose vectors are used as queries to compare the two indexes. 0 compares only how "
            "many documents there are.",
            min=0,
        ),
    ] = 20,
    batch_size: Annotated[int, _of_run("N", "Number of documents that are read and sent together.", min=1)] = 1024,
    as_json: arguments.Json = False,
) -> None:
    """Copy an index with its vectors to another folder or engine, then compare the two.

    The vectors are copied, so nothing is encoded again.

    \bExamples:
      hybridsearch copy papers papers-backup
      hybridsearch copy papers opensearch://localhost:9200/papers
    """
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
        raise KeyboardInterrupt("run the same command with --resume to go on with the copy.") from interrupt
    if as_json:
        print_json(report.to_dict())
    else:
        print_plain(str(report))
    if report.differences:
        raise HybridSearchError(" ".join(report.differences))


@app.command(cls=Verb, rich_help_panel=MOVING)
def publish(
    place: Annotated[str, arg("URL", "URL of the new index, on OpenSearch, Elasticsearch or a Qdrant server.")],
    alias: Annotated[str, arg("ALIAS", "Name (alias) that searches use instead of the index's own name.")],
    keep_old: Annotated[
        bool, flag("--keep-old", "Keep the index that ALIAS named before. Default: delete it.", rich_help_panel="Index")
    ] = False,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Replace the index behind a name by a new index, in one step and without downtime.

    The index that the name stood for before is deleted, unless you give
    --keep-old or another alias stands for it.

    \bExample:
      hybridsearch index papers.jsonl --index opensearch://localhost/papers-2
      hybridsearch publish opensearch://localhost/papers-2 papers
      hybridsearch search opensearch://localhost/papers "a query"
    """
    import hybridsearch as hs

    old = hs.publish(place, alias, drop_old=not keep_old, backend_options=backend_options(option))
    kept_for = [] if old is None else list(old.kept_for)
    if as_json:
        dropped = bool(old) and not keep_old and not kept_for
        told = {"index": redacted(place), "alias": alias, "before": old, "dropped": dropped, "kept_for": kept_for}
        print_json(told)
        return
    fate = "was kept" if keep_old or kept_for else "was deleted"
    reason = f", because it has other aliases ({', '.join(kept_for)})" if kept_for else ""
    before = "" if old is None else f" It stood for {old} before, which {fate}{reason}."
    print_plain(f"{alias} now stands for the index at {redacted(place)}.{before}")


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
    """Compile the search loops now, so that no later search waits for it.

    The compiled loops are kept in a folder, whose path is printed. Use
    this verb while you build a container image.

    \bExample:
      hybridsearch warmup
    """
    from hybridsearch.registry import find

    compiled_loops = find("backend", "memory").compiled_loops
    there, started = compiled_loops() is not None, time.perf_counter()
    folder, seconds = compiled_loops(make=True), round(time.perf_counter() - started, 1)
    if as_json:
        print_json({"folder": str(folder), "compiled": not there, "seconds": seconds})
    else:
        print_plain(f"The search loops {'are' if there else f'were compiled in {seconds} s. They are'} in {folder}.")


# Opening


def _open_or_create(
    place: str,
    retrievers: str | None,
    language: str | None,
    encoding_options: dict[str, Any],
    passages: Passages | None,
    backend_options: dict[str, Any] | None,
) -> HybridSearch:
    """The index at a place, or a new one. `encoding_options` are those arguments of `make_encoders` that were given."""
    import hybridsearch as hs
    from hybridsearch.encoders.spec import make_encoders
    from hybridsearch.errors import IndexNotFoundError

    if encoding_options["synonyms"] is not None:
        _check_recorded(place, encoding_options["synonyms"], backend_options)
    if retrievers is None:
        with contextlib.suppress(IndexNotFoundError):
            given = language or any(option is not None for option in encoding_options.values())
            encoders = make_encoders("bm25", language or "english", **encoding_options) if given else None
            searcher = hs.open(place, retrievers=encoders, backend_options=backend_options)
            if passages is not None and searcher.passages != passages:
                with searcher:
                    raise InvalidArgumentError(
                        f"The index at {redacted(place)} was made with {searcher.passages or 'whole documents'}, not "
                        f"with {passages}: leave out --passages, or index the documents into another place."
                    )
            return searcher
    encoders = make_encoders(retrievers or "bm25", language or "english", **encoding_options)
    return hs.HybridSearch(encoders, backend=place, passages=passages, backend_options=backend_options)


def _passages(passages: bool, size: int | None, whole: str | None) -> Passages | None:
    """The passages that the options ask for. None for whole documents."""
    from hybridsearch.passages import DEFAULT_SIZE, Passages

    if not passages:
        for option, value in {"--passage-size": size, "--whole": whole}.items():
            if value is not None:
                raise InvalidArgumentError(f"{option} is a setting of passages: give --passages too, or leave it out.")
        return None
    return Passages(size=DEFAULT_SIZE if size is None else size, whole=tuple(split_names(whole) or ()))


def _least(given: str | None) -> float | dict[str, float] | None:
    """The limit that `--min-score SCORE` gives, or the limits that `--min-score NAME=SCORE,...` gives."""
    if given is None:
        return None
    try:
        if "=" not in given:
            return float(given)
        return {name.strip(): float(score) for name, _, score in (one.rpartition("=") for one in given.split(","))}
    except ValueError:
        raise InvalidArgumentError(
            f"--min-score takes a number, or numbers for retrievers such as bm25=2,dense=0.4, not {given!r:.80}."
        ) from None


def _recency(given: str | None) -> Recency | None:
    """The boost that `--recent FIELD=TIME` gives."""
    if given is None:
        return None
    from hybridsearch.rerank import Recency

    field, equals, half_life = given.rpartition("=")
    if not equals:
        raise InvalidArgumentError(f"--recent takes FIELD=TIME, such as published=30d, not {given!r:.80}.")
    return Recency(field, half_life)


def _open(place: str, synonyms: Path | None, backend_options: dict[str, Any] | None) -> HybridSearch:
    """The index at a place, with other synonyms if they are given."""
    import hybridsearch as hs

    searcher = hs.open(place, backend_options=backend_options)
    if synonyms is None:
        return searcher
    with searcher:
        lexical = {name: one for name, one in searcher.retrievers.items() if isinstance(one, hs.BM25)}
    if not lexical:
        names = ", ".join(searcher.retrievers)
        raise InvalidArgumentError(
            f"--synonyms is for bm25, but the retrievers of this index ({names}) are of other kinds: leave it out."
        )
    replaced = {name: one.with_synonyms(synonyms) for name, one in lexical.items()}
    return hs.open(place, retrievers=replaced, backend_options=backend_options)


def _check_recorded(place: str, synonyms: Path, backend_options: dict[str, Any] | None) -> None:
    """Refuse synonyms for an index that was made with others, because they would not be recorded."""
    import hybridsearch as hs
    from hybridsearch.errors import IndexNotFoundError

    with contextlib.suppress(IndexNotFoundError), hs.open(place, backend_options=backend_options) as searcher:
        for one in searcher.retrievers.values():
            if isinstance(one, hs.BM25) and one.with_synonyms(synonyms).query_settings != one.query_settings:
                raise InvalidArgumentError(
                    f"The index at {redacted(place)} was made with other synonyms or with none, and keeps them: leave "
                    "out --synonyms here, and give it to hybridsearch search."
                )


def _weights(given: str | None) -> dict[str, float] | None:
    """The weight of each field that `--fields FIELD=WEIGHT,FIELD=WEIGHT` gives."""
    if given is None:
        return None
    weights: dict[str, float] = {}
    for text in given.split(","):
        name, equals, weight = text.strip().rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            equals = ""
        if not equals or name in weights:
            raise InvalidArgumentError(
                f"--fields takes FIELD=WEIGHT with commas, such as title=3,text=1, each field once, not {text!r:.80}."
            )
        weights[name] = value
    return weights


def _types(given: list[str] | None) -> dict[str, str]:
    """The type of each field that `--type NAME=TYPE` gives."""
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
            f"--hnsw is for dense vectors, but the retrievers of this index ({names}) have none. Leave out --hnsw, or "
            "make an index with --retrievers dense=MODEL."
        )


def _how_to_go_on(searcher: HybridSearch, place: str, via: Path | None) -> str:
    """What `index` has stored when it is interrupted, and how to go on."""
    from hybridsearch.backends import Loader

    if via is not None:
        return f"the vectors so far are in {via}. Run the same command with --resume to go on."
    try:
        if isinstance(searcher.backend, Loader):  # an engine counts documents only when they are searchable
            searcher.backend.refresh()
        stored = number_of(searcher.count(), "document is", "documents are")
    except HybridSearchError as error:
        return f"the number of documents in {place} cannot be read ({error})"
    return f"{stored} stored in {place}. Run the same command to go on: it does not encode these documents again."


def _check_via(via: Path | None, resume: bool) -> None:
    """Refuse a folder that may hold the vectors of other documents."""
    if resume and via is None:
        raise InvalidArgumentError("--resume goes on with the folder of --via: give --via FOLDER too.")
    there = via is not None and via.exists() and any(via.iterdir())
    if there and not resume:
        raise InvalidArgumentError(
            f"The folder --via {via} is not empty: give --resume to go on with it, or choose another folder."
        )
