"""The verb that makes an index, or adds documents to it."""

from __future__ import annotations

import contextlib
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hybridsearch.cli import arguments
from hybridsearch.cli.app import SEARCHING, Verb, app
from hybridsearch.cli.arguments import (
    MODELS,
    arg,
    backend_options,
    check_hnsw,
    flag,
    of_documents,
    of_index,
    of_run,
    split_names,
    ways,
)
from hybridsearch.cli.terminal import print_error, print_json, print_plain
from hybridsearch.errors import DocumentError, HybridSearchError, InvalidArgumentError
from hybridsearch.messages import number_of, redacted

if TYPE_CHECKING:
    from hybridsearch.indexing.cluster import RayCluster
    from hybridsearch.passages import Passages
    from hybridsearch.search import HybridSearch

OnError = StrEnum("OnError", ["stop", "skip"])


@app.command(cls=Verb, rich_help_panel=SEARCHING)
def index(
    source: Annotated[
        str,
        arg(
            "SOURCE",
            "Documents to read: a .jsonl, .csv, .tsv or .parquet file, a BEIR folder, or a folder of any of these and "
            "of .txt, .md, .pdf, .docx, .pptx, .xlsx, .html, .eml and .mbox files. Or the URL of a database, with "
            "--query.",
        ),
    ],
    place: Annotated[
        str, of_index("PLACE", "Place of the index: a folder, or the URL of an engine. Made if it is new.", "--index")
    ],
    retrievers: Annotated[
        str | None,
        of_index(
            "SPEC",
            "Retrievers of the index, with commas: bm25, chars, dense=MODEL, sparse=MODEL, late=MODEL for late "
            "interaction in a folder or on Qdrant, or native=ANALYZER for the BM25 of OpenSearch or Elasticsearch. "
            f"{MODELS} Default: the retrievers of the index; bm25 for a new index.",
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
    precision: arguments.IndexPrecision = None,
    runtime: arguments.IndexRuntime = None,
    format: Annotated[
        str | None,
        of_documents(
            "NAME",
            "Format of the source: jsonl, csv, tsv, parquet, beir, text, pdf, docx, pptx, xlsx, html, eml or mbox. In "
            "a folder, only files of this format are read. Default: decided by the files' names.",
        ),
    ] = None,
    id_field: Annotated[str | None, of_documents("NAME", "Field (column) that holds the id.")] = None,
    text_field: Annotated[str | None, of_documents("NAME", "Field (column) that holds the text.")] = None,
    title_field: Annotated[str | None, of_documents("NAME", "Field (column) that holds the title.")] = None,
    auto_id: Annotated[
        bool, flag("--auto-id", "Make an id for each document that has no id.", rich_help_panel="Documents")
    ] = False,
    type: Annotated[
        list[str] | None,
        of_documents(
            "NAME=TYPE",
            "Type of a metadata field, such as zip=str. TYPE is str, int, float, bool, date, datetime or instant. Can "
            "be repeated. Default: in CSV a type that fits the whole column, else the type of each value.",
            "--type",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        of_documents(
            "NAME",
            "Character encoding of text files, such as cp1252. Default: UTF-8, or the encoding that a byte order mark "
            "shows.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        of_documents(
            "CHAR",
            "Character between the columns of CSV and TSV files, such as ';' or tab. Default: found in the file.",
        ),
    ] = None,
    query: Annotated[
        str | None,
        of_documents("SQL", "Query that gives the documents, if SOURCE is the URL or the file of a database."),
    ] = None,
    on_error: Annotated[
        OnError,
        of_documents(
            None,
            "What to do at a line that holds no usable document: `stop`, or `skip` the line and list it at the end.",
        ),
    ] = OnError.stop,
    passages: Annotated[
        bool,
        flag(
            "--passages",
            "Split long documents into passages. A document is then found by its best passage.",
            rich_help_panel="Index",
        ),
    ] = False,
    passage_size: Annotated[
        int | None,
        of_index("N", "Largest number of tokens of a passage, with --passages. Default: 128.", min=8),
    ] = None,
    whole: Annotated[
        str | None,
        of_index(
            "NAMES",
            "Names of retrievers that read whole documents, with --passages. Default: the lexical retrievers (bm25, "
            "chars) if the index also has others.",
        ),
    ] = None,
    hnsw: Annotated[
        bool,
        flag("--hnsw", "Also make graphs for approximate dense search (see `search --hnsw`).", rich_help_panel="Index"),
    ] = False,
    via: Annotated[
        str | None,
        of_run(
            "FOLDER",
            "Folder that keeps the vectors, or a URL of object storage. Encode into it first, then load the engine "
            "from it.",
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
    cluster: Annotated[
        str | None,
        of_run(
            "ADDRESS",
            "Encode on a Ray cluster, into the place of --via: `ray` for the cluster of RAY_ADDRESS or for this "
            "machine, or an address such as ray://head:10001.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        of_run("N", "Number of workers, with --cluster. Default: as many as the cluster has room for.", min=1),
    ] = None,
    worker_cpus: Annotated[
        float | None,
        of_run("N", "Number of CPU cores that a worker reserves, with --cluster. Default: 1.", min=0),
    ] = None,
    worker_gpus: Annotated[
        float | None, of_run("N", "Number of GPUs that a worker reserves, with --cluster. Default: 0.", min=0)
    ] = None,
    sync: Annotated[
        bool,
        flag(
            "--sync",
            "Also remove documents from the index that SOURCE no longer has. Their number is printed first.",
            rich_help_panel="Run",
        ),
    ] = False,
    batch_size: Annotated[int, of_run("N", "Number of documents that are encoded together.", min=1)] = 1024,
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
    on = _cluster(cluster, workers, worker_cpus, worker_gpus)
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
    run = ways(precision, runtime)
    split = _passages(passages, passage_size, whole)
    with _open_or_create(
        place, retrievers, language, encoding_options, split, backend_options(option, hnsw, place), run
    ) as searcher:
        if not searcher.backend.capabilities.persistent:
            raise InvalidArgumentError(
                f"--index {redacted(place)} is lost when the command ends; for a folder of that name write "
                f"{shlex.quote(f'./{place}')}."
            )
        check_hnsw(searcher, hnsw)

        def going(gone: int) -> bool:
            all = number_of(searcher.count(), "document")
            print_error(f"{redacted(source)} no longer has {gone:,} of {all}: removing them.")
            return True

        shown = redacted(place)
        try:
            report = searcher.index(
                documents, batch_size=batch_size, via=via, cluster=on, sync=going if sync else False
            )
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(_how_to_go_on(searcher, shown, via)) from interrupt
        except DocumentError as error:
            if documents.stopped is None or "--on-error" in str(error):
                raise
            raise DocumentError(f"{error} To leave such records out, give --on-error skip.") from error
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


def _open_or_create(
    place: str,
    retrievers: str | None,
    language: str | None,
    encoding_options: dict[str, Any],
    passages: Passages | None,
    backend_options: dict[str, Any] | None,
    run: dict[str, Any],
) -> HybridSearch:
    """The index at a place, or a new one.

    `encoding_options` are those arguments of `make_encoders` that were given, and `run` the precision and the runtime.
    """
    import hybridsearch as hs
    from hybridsearch.encoders.spec import make_encoders
    from hybridsearch.errors import IndexNotFoundError

    if encoding_options["synonyms"] is not None:
        _check_recorded(place, encoding_options["synonyms"], backend_options)
    if retrievers is None:
        with contextlib.suppress(IndexNotFoundError):
            given = language or any(option is not None for option in encoding_options.values())
            encoders = make_encoders("bm25", language, **encoding_options) if given else None
            searcher = hs.open(place, retrievers=encoders, backend_options=backend_options, **run)
            if passages is not None and not passages.fits(searcher.passages):
                with searcher:
                    raise InvalidArgumentError(
                        f"The index at {redacted(place)} was made with {searcher.passages or 'whole documents'}, not "
                        f"with {passages}: leave out --passages, or index the documents into another place."
                    )
            return searcher
    encoders = make_encoders(retrievers or "bm25", language, **encoding_options, **run)
    return hs.HybridSearch(encoders, backend=place, passages=passages, backend_options=backend_options)


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


def _passages(passages: bool, size: int | None, whole: str | None) -> Passages | None:
    """The passages that the options ask for. None for whole documents."""
    from hybridsearch.passages import DEFAULT_SIZE, Passages

    if not passages:
        for option, value in {"--passage-size": size, "--whole": whole}.items():
            if value is not None:
                raise InvalidArgumentError(f"{option} is a setting of passages: give --passages too, or leave it out.")
        return None
    names = split_names(whole)
    return Passages(size=DEFAULT_SIZE if size is None else size, whole=None if names is None else tuple(names))


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


def _check_via(via: str | None, resume: bool) -> None:
    """Refuse a folder that may hold the vectors of other documents."""
    from hybridsearch.corpus.remote import PACKAGES
    from hybridsearch.places import connected

    if resume and via is None:
        raise InvalidArgumentError("--resume goes on with the folder of --via: give --via FOLDER too.")
    there = False
    scheme, mark, _ = (via or "").partition("://")
    if via is not None and mark and scheme in PACKAGES:
        with connected(via) as backend:
            there = backend.open() is not None
            backend.close()
    elif via is not None:
        there = Path(via).exists() and any(Path(via).iterdir())
    if there and not resume:
        raise InvalidArgumentError(
            f"The folder --via {redacted(via)} is not empty: give --resume to go on with it, or choose another folder."
        )


def _cluster(address: str | None, workers: int | None, cpus: float | None, gpus: float | None) -> RayCluster | None:
    """The cluster that `--cluster` names. None without it."""
    from hybridsearch.indexing.cluster import RayCluster

    if address is None:
        for option, value in {"--workers": workers, "--worker-cpus": cpus, "--worker-gpus": gpus}.items():
            if value is not None:
                raise InvalidArgumentError(f"{option} is a setting of a cluster: give --cluster too, or leave it out.")
        return None
    return RayCluster(None if address == "ray" else address, workers, 1 if cpus is None else cpus, gpus or 0)


def _how_to_go_on(searcher: HybridSearch, place: str, via: str | None) -> str:
    """What `index` has stored when it is interrupted, and how to go on."""
    if via is not None:
        return f"the vectors so far are in {redacted(via)}. Run the same command with --resume to go on."
    try:
        if "://" in place:  # an engine counts documents only when they are searchable
            searcher.backend.refresh()
        stored = number_of(searcher.count(), "document is", "documents are")
    except HybridSearchError as error:
        return f"the number of documents in {place} cannot be read ({error})"
    return f"{stored} stored in {place}. Run the same command to go on: it does not encode these documents again."
