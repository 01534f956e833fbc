"""The verbs that list, read and delete documents without a query."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.cli import arguments
from hybridsearch.cli.app import KEEPING, Verb, app
from hybridsearch.cli.arguments import arg, backend_options, flag, of_documents, split_names
from hybridsearch.cli.terminal import console_on, parse_filter, print_error, print_json, print_plain
from hybridsearch.errors import HybridSearchError, InvalidArgumentError
from hybridsearch.messages import number_of, redacted, visible

if TYPE_CHECKING:
    from hybridsearch.documents import Document
    from hybridsearch.listing import Listing
    from hybridsearch.search import HybridSearch

_ROWS = 20
_SHOWN = 1000  # characters of a text that a row may need


Filter = Annotated[
    str | None,
    of_documents(
        "JSON",
        """Filter on metadata, title or id. Only documents that match count. Example: '{"year": {"$lt": 2000}}'.""",
    ),
]
JsonLines = Annotated[
    bool,
    flag(
        "--json",
        "Print each document as one line of JSON and nothing else. `hybridsearch index` reads such lines from a file.",
        rich_help_panel=arguments.OUTPUT,
    ),
]


@app.command("list", cls=Verb, rich_help_panel=KEEPING)
def list_documents(
    place: arguments.Place,
    filter: Filter = None,
    sort: Annotated[
        str | None,
        of_documents(
            "FIELDS",
            "Fields to sort by, with commas, such as title or -year,title. A dash before a field is for descending. "
            "Documents that do not have the field come last. Default: by id.",
        ),
    ] = None,
    limit: Annotated[
        int | None, of_documents("N", f"Number of documents. Default: {_ROWS}; all with --json.", min=1)
    ] = None,
    after: Annotated[
        str | None,
        of_documents("CURSOR", "Text that an earlier list printed. The list continues there. --sort must be the same."),
    ] = None,
    option: arguments.Options = None,
    as_json: JsonLines = False,
) -> None:
    """List the documents of an index, or those that a filter allows.

    The columns hold the id, the fields of --sort, and the beginning of the
    title and the text.

    \bExamples:
      hybridsearch list papers
      hybridsearch list papers --sort -year --limit 5
      hybridsearch list papers --filter '{"year": 1958}' --json > 1958.jsonl
    """
    import hybridsearch as hs

    parsed, names = parse_filter(filter), split_names(sort)
    with hs.open(place, backend_options=backend_options(option)) as searcher:
        limit = _ROWS if limit is None and not as_json else limit
        found = searcher.documents(parsed, sort=names, limit=limit, after=after)
        if as_json:
            for document in found:
                _print_line(document)
            if found.cursor is not None:
                print_error(f"there are more documents: --after {found.cursor}")
        else:
            _print_table(found, names or [], searcher.count(parsed))
            if found.cursor is not None:
                given = {"--filter": filter, "--sort": sort, "--limit": str(limit), "--after": found.cursor}
                options = [text for name, value in given.items() if value is not None for text in (name, value)]
                command = ["hybridsearch", "list", redacted(place), *options, *_repeated("--option", option)]
                print_plain(f"Next: {redacted(shlex.join(command))}")
        print_error(*found.notes)


@app.command(cls=Verb, rich_help_panel=KEEPING)
def get(
    place: arguments.Place,
    ids: Annotated[list[str], arg("ID", "Ids of the documents.")],
    option: arguments.Options = None,
    as_json: JsonLines = False,
) -> None:
    """Print documents by id.

    Each document is printed with its title, its metadata and its whole
    text.

    \bExamples:
      hybridsearch get papers some-document-id
      hybridsearch get papers id-1 id-2 --json
    """
    import hybridsearch as hs

    with hs.open(place, backend_options=backend_options(option)) as searcher:
        documents = searcher.get(ids)
    found = [document for document in documents if document is not None]
    for number, document in enumerate(found):
        if as_json:
            _print_line(document)
        else:
            _print_document(document, gap=number > 0)
    if missing := [id for id, document in zip(ids, documents, strict=True) if document is None]:
        raise InvalidArgumentError(
            f"There is no document {', '.join(map(repr, missing[:5]))}{', ...' if missing[5:] else ''} in "
            f"{redacted(place)}: `hybridsearch list` shows the ids."
        )


@app.command(cls=Verb, rich_help_panel=KEEPING)
def delete(
    place: arguments.Place,
    ids: Annotated[list[str] | None, arg("ID", "Ids of the documents. Unknown ids are ignored.")] = None,
    filter: Filter = None,
    yes: Annotated[bool, flag("--yes", "Delete without a question. Scripts need this.", rich_help_panel="Run")] = False,
    dry_run: Annotated[
        bool, flag("--dry-run", "Print how many documents would be deleted, and delete none.", rich_help_panel="Run")
    ] = False,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Delete documents by id, or all documents that a filter allows.

    The number of documents is shown first, and you are asked whether to
    delete them.

    \bExamples:
      hybridsearch delete papers id-1 id-2
      hybridsearch delete papers --filter '{"year": {"$lt": 1960}}' --dry-run
      hybridsearch delete papers --filter '{"draft": true}' --yes
    """
    if bool(ids) == (filter is not None):
        raise typer.BadParameter("give ids or --filter, and not both.", param_hint="ID")
    import hybridsearch as hs

    parsed, shown = parse_filter(filter), redacted(place)
    with hs.open(place, backend_options=backend_options(option)) as searcher:
        notes = searcher.documents(parsed).notes if parsed else ()
        if not as_json:
            print_error(*notes)
        found, deleted = _count(searcher, ids, parsed), 0
        if found and not dry_run:
            if not yes:
                _confirm(f"Delete {found:,} of {number_of(searcher.count(), 'document')} in {shown}?", as_json)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The filter ")  # the notes are printed already
                deleted = searcher.delete(ids, filter=parsed)
            searcher.backend.refresh()
        left = searcher.count()
    if as_json:
        print_json({"index": shown, "found": found, "deleted": deleted, "documents": left, "notes": list(notes)})
    elif dry_run:
        print_plain(f"{number_of(found, 'document')} of {left:,} in {shown} would be deleted.")
    else:
        print_plain(f"Deleted {number_of(deleted, 'document')}. {shown} holds {number_of(left, 'document')}.")


def _count(searcher: HybridSearch, ids: Sequence[str] | None, filter: dict[str, Any] | None) -> int:
    """The number of documents that `delete` would remove."""
    if ids:
        return len({document.id for document in searcher.get(ids) if document is not None})
    return searcher.count(filter)


def _confirm(question: str, as_json: bool) -> None:
    """Ask on standard error. Raises HybridSearchError if the answer is no, or if nobody can be asked."""
    if as_json or not sys.stdin.isatty():
        reason = "--json asks nothing" if as_json else "standard input is not a terminal"
        raise HybridSearchError(
            f"{question} Nobody can answer, because {reason}, so no document was deleted: give --yes to delete them."
        )
    if not typer.confirm(question, err=True):
        raise HybridSearchError("No document was deleted.")


def _repeated(name: str, values: Sequence[str] | None) -> list[str]:
    return [text for value in values or () for text in (name, value)]


# Printing


def _print_line(document: Document) -> None:
    print(json.dumps(document.to_dict(), allow_nan=False))


def _print_document(document: Document, *, gap: bool) -> None:
    from rich.text import Text

    console = console_on()
    if gap:
        console.print()
    console.print(Text(visible(document.id), style="bold"), Text(visible(document.title)), soft_wrap=True)
    for name, value in document.to_dict()["metadata"].items():
        console.print(Text(visible(f"{name}: {_shown(value)}"), style="dim"), soft_wrap=True)
    if document.text:
        console.print(Text(f"\n{visible(document.text, lines=True)}"), soft_wrap=True)


def _print_table(found: Listing, sort: Sequence[str], number: int) -> None:
    from hybridsearch.filters import composed, field_value
    from hybridsearch.tables import Grid

    fields = [composed(name.removeprefix("-")) for name in sort if name not in ("id", "-id", "title", "-title")]
    rows = []
    for document in found:
        values = (field_value(document, field) for field in fields)
        cells = ["" if value is None else _shown(value) for value in values]
        content = f"{document.title}: {document.text}" if document.title else document.text
        rows.append([[document.id], *([cell] for cell in cells), [" ".join(content[:_SHOWN].split())]])
    note = f"{len(rows):,} of {number_of(number, 'document')}"
    rows = rows or [[[""], *([""] for _ in fields), ["no documents"]]]
    columns = ["id", *fields, "document"]
    console_on().print(Grid("", columns, rows, [note], texts=range(len(columns)), wide=len(columns) - 1, cut=True))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
