"""The verbs that move an index to another place."""

from __future__ import annotations

from typing import Annotated

from hybridsearch.cli import arguments
from hybridsearch.cli.app import MOVING, Verb, app
from hybridsearch.cli.arguments import arg, backend_options, flag, of_index, of_run, split_names
from hybridsearch.cli.terminal import print_json, print_plain
from hybridsearch.errors import HybridSearchError
from hybridsearch.messages import redacted


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
        of_run(
            "N",
            "Number of documents whose vectors are used as queries to compare the two indexes. 0 compares only how "
            "many documents there are.",
            min=0,
        ),
    ] = 20,
    batch_size: Annotated[int, of_run("N", "Number of documents that are read and sent together.", min=1)] = 1024,
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
