"""Read training data from files, folders, databases, the model hub, data sets, mined negatives or Python objects."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch import arguments
from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError, InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.messages import number_of
from hybridsearch.readers.formats import BEIR_NAMES
from hybridsearch.training.data.columns import find_roles
from hybridsearch.training.data.conversion import read_rows
from hybridsearch.training.data.mined import MANIFEST, Negatives
from hybridsearch.training.data.rows import Kind, TrainingData, parse_kind
from hybridsearch.training.data.tables import open_table

if TYPE_CHECKING:
    import datasets


def read_training_data(
    source: str | Path | datasets.Dataset | Iterable[Mapping[str, Any]] | Dataset | TrainingData,
    *,
    columns: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    kind: Kind | str | None = None,
    loss: str | None = None,
    split: str = "train",
    subset: str | None = None,
    sql: str | None = None,
    score_range: tuple[float, float] | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> TrainingData:
    """Read training data from a file, a folder, a database, the model hub, a data set, or rows in memory.

    | source                                      | rows                                                       |
    |---------------------------------------------|------------------------------------------------------------|
    | .csv, .tsv                                  | lines below a header; .tsv has no quoting                  |
    | .jsonl, .ndjson, .json                      | one object a line, or one array of objects                 |
    | .parquet, .arrow                            | rows of the file                                           |
    | a folder with train.csv, or another format  | rows of the file, or of parts such as train-*.parquet      |
    | a folder of `Dataset.save_to_disk`          | rows of the split                                          |
    | a folder with the layout of the hub         | rows of the split                                          |
    | a folder of mined negatives                 | the mined rows                                             |
    | a BEIR folder, "beir/scifact", `hs.Dataset` | pairs: each query of the split with each relevant document |
    | a database (SQLite file or URL)             | rows of the query `sql`                                    |
    | "owner/name"                                | rows of a data set on the hub                              |
    | a Dataset of the library datasets           | its rows                                                   |
    | an iterable of mappings                     | the mappings                                               |

    Text files may be compressed. Columns are recognised by their names, in upper or lower case
    (`hybridsearch.training.data.columns.NAMES` has all names):

    | role     | some of its names                                              |
    |----------|----------------------------------------------------------------|
    | anchor   | anchor, query, question, premise, sentence1                    |
    | positive | positive, pos, positive_passages, answer, passage, sentence2   |
    | negative | negative, negative_1, negative_2, neg, negative_passages       |
    | label    | label, class, score; or pos_scores and neg_scores              |

    A column "text" or "sentence" beside an anchor is the positive.

    Positives and negatives may be lists, of any length, as Tevatron and FlagEmbedding write them. An item is a text, or
    a mapping with a text and perhaps a title. Let k be the number of negatives of the row that has the fewest, but at
    least one. Each row becomes tuples of one positive and k negatives, until each of its texts is in one: positives and
    negatives are taken in turn, and start again from the first. If no row has negatives, each positive makes a pair. A
    row without negatives beside rows with negatives takes positives of the rows that follow. The notes say so.

    With kind="lists", rows of a query, a text and a label become one list for each query, and keep their grades.

    The kind of the rows follows from the columns. A label of 0 and 1, or true and false, makes pairs with 0/1. Names,
    or the numbers 0, 1 and 2, make pairs with class. Numbers with a fraction, or a column named score, make pairs with
    score. Other whole numbers may be classes or scores, so name their column as "class" or "score". Classes and labels
    of -1 mean no label, and their rows are left out. Scores on a larger scale (STS: 0 to 5, SICK: 1 to 5) become scores
    from 0 to 1. Pairs with the classes entailment, neutral and contradiction (NLI) become triplets of a premise, a text
    that it entails and a text that contradicts it. kind="pairs with class" keeps them as pairs.

    A text with a class, or with a label that is a number, is a text with class. A text with a list of numbers is a text
    with embedding.

    Args:
        source: Source of the rows, as in the table above.
        columns: Mapping from roles to columns, such as {"anchor": "question", "positive": "answer"}. Only these columns
            are read. None recognises columns by their names.
        ignore: Names of columns to leave out. All other columns must be recognised.
        kind: Kind of the rows, if the columns allow several. None finds it by the columns.
        loss: Name of the loss for this data, or None for the default of the kind.
        split: Split to read of a folder or of a data set on the hub.
        subset: Subset to read of a data set on the hub.
        sql: SQL query for a database.
        score_range: Scores that become 0 and 1, as (lowest, highest). None finds them by the values.
        limit: Largest number of rows to read. None reads all. Of judged queries, and of rows that become lists, as many
            whole queries are read as fit, but at least one.
        name: Name for messages and reports. None takes the name of the file, folder or data set.

    Returns:
        The rows with their kind.

    Raises:
        InvalidArgumentError: The source is not one of the table, a column has no role, or the kind does not fit.
        DocumentError: A row is malformed: a text is missing, empty, NaN or not a text, or a label is not a number. The
            message has the file and the line or row. Or a query or document id has two texts.
        DatasetNotFoundError: There is no such data set, or it cannot be reached.
        MissingExtraError: The package datasets (or sqlalchemy, for databases) is not installed.

    >>> rows = [{"question": "What is lift?", "answer": "A force.", "score": 4}]
    >>> data = read_training_data(rows, score_range=(0, 5))
    >>> data
    TrainingData('data', 1 row of pairs with score: anchor, positive, label)
    >>> data.rows[0]
    {'anchor': 'What is lift?', 'positive': 'A force.', 'label': 0.8}
    """
    wanted = None if kind is None else parse_kind(kind)
    if limit is not None:
        limit = whole_number("limit", limit, sentence="{name} is {value}. Give at least 1.")
    if sql is None and _is_ready(source):
        if columns is not None or ignore:
            raise InvalidArgumentError(
                "Queries with judgements and mined negatives have no columns to map or ignore. Leave columns and "
                "ignore out."
            )
        data = _ready(source, split, limit)
    else:
        table = open_table(source, split=split, subset=subset, sql=sql)
        roles = find_roles(table.columns, columns, ignore)
        data = _with_note(read_rows(table, roles, wanted, score_range, limit))
    if wanted is not None and data.kind is not wanted:
        raise InvalidArgumentError(
            f"{name or data.name!r} holds {data.kind.value} (columns {', '.join(data.rows.column_names)}), "
            f"not {wanted.value}. Leave kind out, or choose the columns with columns=... (--columns)."
        )
    return replace(data, name=name or data.name, loss=loss or data.loss)


def _with_note(data: TrainingData) -> TrainingData:
    """The data, with a note if rows have their positive among their negatives, which teaches the opposite."""
    import pyarrow.compute as pc

    negatives = [column for column in data.inputs if column.startswith("negative_")]
    if not negatives:
        return data
    texts = data.rows.with_format("arrow")[:]
    same = [pc.equal(texts["positive"], texts[column]) for column in negatives]
    if not (wrong := pc.sum(functools.reduce(pc.or_, same)).as_py()):
        return data
    note = f"rows whose positive is also one of their negatives, which you should leave out: {wrong:,}"
    return replace(data, notes=(*data.notes, note))


def is_retrieval(source: object) -> bool:
    """Whether a source is the folder or the name of queries with judgements.

    Args:
        source: Any source of training data.
    """
    if not isinstance(source, str | Path):
        return False
    path = arguments.path("The data", source)
    if path.is_dir():
        return any((path / name).exists() for name in ("qrels", *BEIR_NAMES))
    return str(source).partition("/")[0] in ("beir", "nanobeir") and "/" in str(source)


def _is_ready(source: object) -> bool:
    """Whether a source has no columns that need to be recognised."""
    return isinstance(source, Dataset | TrainingData) or is_retrieval(source) or _is_mined(source)


def _is_mined(source: object) -> bool:
    return isinstance(source, str | Path) and (Path(source) / MANIFEST).is_file()


def _ready(source: Any, split: str, limit: int | None) -> TrainingData:
    """The training data that a source is or holds, or the pairs of a data set with judgements."""
    if isinstance(source, Dataset):
        return _pairs_of(source, limit)
    if isinstance(source, TrainingData):
        data = source
    elif _is_mined(source):
        data = Negatives.open(source).data
    else:
        return _pairs_of(load_dataset(str(source), split=split), limit)
    return data if limit is None else data.select(range(min(limit, len(data))))


def _pairs_of(dataset: Dataset, limit: int | None) -> TrainingData:
    """Pairs of each query with the content of each document that is relevant to it."""
    if dataset.corpus is None:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no documents, so there are no texts to train on. In a BEIR folder, the "
            "documents are in corpus.jsonl."
        )
    for id, path in dataset.repeated.items():
        raise _two_texts(path, "query", id)
    judged = _judged(dataset, limit)
    contents = _contents(dataset, {document for _, document in judged})
    kept = [
        (query, document)
        for query, document in judged
        if contents.get(document, "").strip() and dataset.queries.get(query, "").strip()
    ]
    left_out = len(judged) - len(kept)
    if not kept:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no query with a relevant document that has a text. Check that the ids "
            "of the judgements are the ids of the queries and documents."
        )
    return TrainingData.from_columns(
        Kind.PAIRS,
        {
            "anchor": [dataset.queries[query] for query, _ in kept],
            "positive": [contents[document] for _, document in kept],
        },
        name=dataset.name,
        ids={"query_id": [query for query, _ in kept], "document_id": [document for _, document in kept]},
        notes=[f"{number_of(left_out, 'judgement')} of missing or empty texts left out"] if left_out else [],
    )


def _judged(dataset: Dataset, limit: int | None) -> list[tuple[str, str]]:
    """Each query with all its relevant documents, because a positive that is left out could become a negative."""
    judged: list[tuple[str, str]] = []
    for query, grades in dataset.qrels.items():
        relevant = [(query, document) for document, grade in grades.items() if grade > 0]
        if limit is not None and judged and len(judged) + len(relevant) > limit:
            break
        judged += relevant
    return judged


def _contents(dataset: Dataset, needed: Collection[str]) -> dict[str, str]:
    """The contents of some documents by id. Raises DocumentError if an id of the corpus has two contents."""
    corpus: Iterable[Document] = dataset.corpus or ()
    contents: dict[str, str] = {}
    hashes = array("q")  # of the id and the content of each document, because the texts may not fit into memory
    for document in corpus:
        hashes.extend((hash(document.id), hash(document.content)))
        if document.id in needed:
            contents[document.id] = document.content
    distinct = np.unique(np.array(hashes, dtype=np.int64).reshape(-1, 2), axis=0)
    ids, times = np.unique(distinct[:, 0], return_counts=True)
    if twice := set(ids[times > 1].tolist()):
        where = ", ".join(map(str, getattr(corpus, "files", ()))) or f"the corpus of {dataset.name!r}"
        raise _two_texts(where, "document", next(document.id for document in corpus if hash(document.id) in twice))
    return contents


def _two_texts(where: str, what: str, id: str) -> DocumentError:
    return DocumentError(f"In {where}, the {what} id {id!r} has two texts. Give each text its own id.")
