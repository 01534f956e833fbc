"""Make pseudo-queries: training pairs from documents without queries."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from hybridsearch.arguments import ALLOWED_FIRST, whole_number
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.indexing.ingest import batches
from hybridsearch.messages import number_of
from hybridsearch.progress import progress_bar
from hybridsearch.readers import read_documents
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.libraries import import_datasets

QueryKind: TypeAlias = Literal["title", "generated", "heading", "sentence"]

Generator: TypeAlias = Callable[[Sequence[str]], Iterable[str | Iterable[str]]]
"""A function from texts to queries: one query, or several, for each text."""

SENTENCE_CHARACTERS = (20, 300)
"""Least and greatest length, in characters, of a sentence that becomes a query."""

_COLUMNS = ["anchor", "positive", "query_id", "document_id"]
_SCHEMA = pa.schema([(name, pa.string()) for name in _COLUMNS])
_DOCUMENTS = 256  # documents of one batch
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_HEADING_MARK = re.compile(r"#{1,6}\s+(?P<heading>.*?)\s*#*")
_UNDERLINE = re.compile(r"=+|-+")
_HEADING_WORDS = 12


@dataclass(frozen=True, slots=True)
class Pseudo:
    """A pseudo-query and the text that answers it.

    Attributes:
        query: Query.
        answer: Text that answers the query.
    """

    query: str
    answer: str


def pseudo_queries(
    documents: Iterable[Document | Mapping[str, Any]] | str | Path,
    *,
    kinds: Sequence[QueryKind] | None = None,
    generator: Generator | str | Path | None = None,
    per_document: int = 3,
    seed: int = 0,
    name: str = "pseudo-queries",
    show_progress_bar: bool | None = None,
) -> TrainingData:
    """Make training pairs of documents, each of a query from a document and the text that answers it.

    | kind      | query                                            | answer                            |
    |-----------|--------------------------------------------------|-----------------------------------|
    | title     | the title                                        | the text                          |
    | generated | a query that `generator` writes for the document | the document                      |
    | heading   | title and heading                                | the section below the heading     |
    | sentence  | a sentence, chosen at random                     | the document without the sentence |

    A heading is a line that starts with #, is underlined by = or -, or stands between blank lines.

    The answer does not contain its title, heading or sentence, so a model has to learn more than to find copies. This
    is the inverse cloze task of Lee, Chang and Toutanova (ACL 2019).

    Args:
        documents: Documents or dictionaries, or a file or folder that `hs.read_documents` reads. They are read once.
        kinds: Kinds of queries, from "title", "generated", "heading" and "sentence". The first kinds are preferred.
            None takes all in this order, and "generated" only with a generator.
        generator: Function from texts to queries, or the folder or name of a language model of transformers:
            sequence-to-sequence (such as docT5query) or causal. None generates no queries.
        per_document: Largest number of queries of a document.
        seed: Seed of the choice of sentences and of the sampling of a model.
        name: Name of the data.
        show_progress_bar: Whether a progress bar is shown. None shows it only in a terminal.

    Returns:
        Pairs with the ids query_id ("document id/number") and document_id. The notes have the number of queries of each
        kind, with an example.

    Raises:
        InvalidArgumentError: An argument cannot be used, or the documents give no queries.
        ModelNotFoundError: The model of the generator cannot be loaded.

    >>> documents = [Document("1", "Lift grows with the angle of attack. Then the flow separates from it.", "Wings")]
    >>> for row in pseudo_queries(documents, per_document=2, show_progress_bar=False).rows:
    ...     print(row)
    {'anchor': 'Wings', 'positive': 'Lift grows with the angle of attack. Then the flow separates from it.'}
    {'anchor': 'Then the flow separates from it.', 'positive': 'Wings Lift grows with the angle of attack.'}
    """
    per_document = whole_number("per_document", per_document, sentence=ALLOWED_FIRST)
    chosen = _check_kinds(kinds, generator)
    generate = _make_generator(generator, per_document, seed) if "generated" in chosen else None
    reader = read_documents(documents)
    sized = documents if isinstance(documents, Sized) and not isinstance(documents, str) else reader
    tables: list[pa.Table] = []
    counts: Counter[QueryKind] = Counter()
    examples: dict[QueryKind, str] = {}
    with progress_bar("Making queries", sized, show_progress_bar) as advance:
        for batch in batches(reader, _DOCUMENTS):
            rows = []
            for document, made in zip(batch, _of_batch(batch, chosen, generate, seed), strict=True):
                for number, (kind, pseudo) in enumerate(_distinct(made, per_document)):
                    rows.append((pseudo.query, pseudo.answer, f"{document.id}/{number}", document.id))
                    counts[kind] += 1
                    examples.setdefault(kind, pseudo.query)
            tables.append(pa.Table.from_pylist([dict(zip(_COLUMNS, row, strict=True)) for row in rows], _SCHEMA))
            advance(len(batch))
    if not counts:
        raise InvalidArgumentError(
            f"The documents give no queries of the kinds {', '.join(chosen)}, because they are empty or too short. "
            "Give other kinds or other documents."
        )
    table = pa.concat_tables(tables)
    fed, ids = (import_datasets().Dataset(table.select(names)) for names in (_COLUMNS[:2], _COLUMNS[2:]))
    notes = tuple(f"{kind} queries: {counts[kind]:,}{_example(examples.get(kind))}" for kind in chosen)
    return TrainingData(name, fed, Kind.PAIRS, ids=ids, notes=notes)


def titles(document: Document) -> Iterator[Pseudo]:
    """The title of a document as a query, if the document also has a text."""
    if document.title.strip() and document.text.strip():
        yield Pseudo(_one_line(document.title), document.text)


def headings(document: Document) -> Iterator[Pseudo]:
    """The headings of a document as queries, for sections that are not empty, in order.

    A heading is a line that starts with #, or a line above a line of = or -. A short line between blank lines is also a
    heading, if it does not end like a sentence.
    """
    lines = document.text.splitlines()
    starts = [(place, found) for place in range(len(lines)) if (found := _heading_at(lines, place)) is not None]
    for (place, heading), (end, _) in pairwise([*starts, (len(lines), "")]):
        body = [line for line in lines[place + 1 : end] if not _UNDERLINE.fullmatch(line.strip())]
        section = "\n".join(body).strip()
        if heading and section:
            title = _one_line(document.title)
            yield Pseudo(heading if not title or title in heading else f"{title} {heading}", section)


def sentences(document: Document) -> Iterator[Pseudo]:
    """The sentences of a document as queries, in order, if they have 20 to 300 characters.

    A text of a single sentence gives no queries.
    """
    parts = [part for part in _SENTENCE_END.split(document.text) if part.strip()]
    shortest, longest = SENTENCE_CHARACTERS
    for place, part in enumerate(parts):
        if len(parts) > 1 and shortest <= len(part.strip()) <= longest:
            rest = " ".join(other.strip() for other in [*parts[:place], *parts[place + 1 :]])
            yield Pseudo(_one_line(part), Document(document.id, rest, document.title).content)


# Below: how it is done


def _of_batch(
    documents: Sequence[Document], kinds: Sequence[QueryKind], generate: Generator | None, seed: int
) -> Iterator[Iterator[tuple[QueryKind, Pseudo]]]:
    """The queries of each document, by kind in the given order."""
    generated: list[str | Iterable[str]] = [()] * len(documents)
    if generate is not None:
        generated = list(generate([document.content for document in documents]))
    if len(generated) != len(documents):
        raise InvalidArgumentError(
            f"The generator gave {number_of(len(generated), 'answer')} to {number_of(len(documents), 'text')}. It must "
            "give one answer, a query or a list of queries, for each text."
        )
    for document, queries in zip(documents, generated, strict=True):
        shuffled = list(sentences(document))
        random.Random(f"{seed} {document.id}").shuffle(shuffled)  # noqa: S311
        asked = [queries] if isinstance(queries, str) else queries
        made: dict[QueryKind, Iterable[Pseudo]] = {
            "title": titles(document),
            "generated": [Pseudo(_one_line(query), document.content) for query in asked],
            "heading": headings(document),
            "sentence": shuffled,
        }
        yield chain.from_iterable(zip(repeat(kind), made[kind]) for kind in kinds)


def _distinct(made: Iterable[tuple[QueryKind, Pseudo]], count: int) -> list[tuple[QueryKind, Pseudo]]:
    """The first queries that are not empty and differ in more than case."""
    first: dict[str, tuple[QueryKind, Pseudo]] = {}
    for kind, pseudo in made:
        if pseudo.query and pseudo.answer.strip():
            first.setdefault(pseudo.query.casefold(), (kind, pseudo))
        if len(first) == count:
            break
    return list(first.values())


def _heading_at(lines: Sequence[str], place: int) -> str | None:
    line = lines[place].strip()
    if marked := _HEADING_MARK.fullmatch(line):
        return marked["heading"]
    before = lines[place - 1].strip() if place else ""
    after = lines[place + 1].strip() if place + 1 < len(lines) else ""
    if not line or before or _UNDERLINE.fullmatch(line):
        return None
    if len(after) > 2 and _UNDERLINE.fullmatch(after):
        return line
    alone = not after and place + 2 < len(lines)
    return line if alone and len(line.split()) <= _HEADING_WORDS and line[-1] not in ".!?:;,。！？" else None


def _example(query: str | None) -> str:
    return "" if query is None else f', such as "{query:.80}"'


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _check_kinds(kinds: Sequence[QueryKind] | None, generator: object) -> tuple[QueryKind, ...]:
    known: tuple[QueryKind, ...] = ("title", "generated", "heading", "sentence")
    if kinds is None:
        return tuple(kind for kind in known if kind != "generated" or generator is not None)
    if isinstance(kinds, str) or not kinds or any(kind not in known for kind in kinds):
        raise InvalidArgumentError(f"kinds is {kinds!r}. Give a list of some of {', '.join(known)}.")
    if ("generated" in kinds) != (generator is not None):
        raise InvalidArgumentError("The kind 'generated' and a generator need each other. Give both or leave both out.")
    return tuple(dict.fromkeys(kinds))


def _make_generator(generator: Generator | str | Path | None, queries: int, seed: int) -> Generator | None:
    if isinstance(generator, str | Path):
        from hybridsearch.training.unlabelled.generation import QueryModel

        return QueryModel(generator, queries=queries, seed=seed)
    if not callable(generator):
        raise InvalidArgumentError(f"The generator is {generator!r:.80}. Give a function or the name of a model.")
    return generator
