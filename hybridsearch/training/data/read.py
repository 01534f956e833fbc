"""Training data from anything that holds rows: files, databases, judged queries, mined negatives, rows at hand."""

from __future__ import annotations

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
    """Training data from a file, a folder, a database, the hub, or rows at hand.

    | source                                | rows                                                                 |
    |---------------------------------------|----------------------------------------------------------------------|
    | .csv, .tsv                            | below a header; .tsv has no quoting                                  |
    | .jsonl, .ndjson, .json                | one object a line, or one array of objects                           |
    | .parquet, .arrow                      | its rows                                                             |
    | a folder                              | of `Dataset.save_to_disk`; of mined negatives; with train.csv (or    |
    |                                       | another format, or parts train-*.parquet); or laid out as on the hub |
    | a BEIR folder, beir/scifact, Dataset  | each query of the split with each relevant document: pairs           |
    | a database (SQLite file or URL)       | of the query `sql`                                                   |
    | owner/name                            | of a data set on the hub                                             |
    | a Dataset of datasets, or mappings    | as they are                                                          |

    Text files may end in .gz. Columns are recognised by their names in any case, such as anchor, query, question,
    premise or sentence1, positive, answer or sentence2, negative, negative_2 ..., label or score
    (`hybridsearch.training.data.columns.NAMES` has all); a negative may be a list, of the same length in each row.
    The kind follows from the columns: a label of 0 and 1, or true and false, makes pairs with 0/1, names or 0, 1 and 2
    pairs with class, numbers with a fraction, or a column named score, pairs with score. Other whole numbers may be
    classes or scores: name their column as "class" or "score". Rows with -1 for no label are left out. Scores on a
    larger scale (STS: 0 to 5, SICK: 1 to 5) become 0 to 1. Pairs with the classes entailment, neutral and contradiction
    (NLI) become triplets: a premise, what it entails, what contradicts it; kind="pairs with class" keeps them as they
    are.

    Args:
        source: as above.
        columns: role -> column, as {"anchor": "question", "positive": "answer"}; then only these are read.
        ignore: columns to leave out where the others are recognised.
        kind: what the rows are, where the columns leave a choice.
        loss: the name of a loss to train this data with.
        split: of a folder or a data set on the hub.
        subset: of a data set on the hub.
        sql: the query to ask a database.
        score_range: the scores that become 0 and 1.
        limit: rows to read at most; of judged queries as many whole ones as fit, but at least one.
        name: for messages and reports; by default the name of the file, folder or data set.

    Raises:
        InvalidArgumentError: the source is none of these, a column has no role, or the kind does not fit.
        DocumentError: a row is malformed: a text that is missing, empty, NaN or no text, a label that is no number;
            the message has the file and the line or row. Or a query or document id has two texts.
        DatasetNotFoundError: there is no such data set, or it is not within reach.
        MissingExtraError: the package datasets (or sqlalchemy, for databases other than SQLite) is not installed.

    >>> rows = [{"question": "What is lift?", "answer": "A force.", "score": 4}]
    >>> data = read_training_data(rows, score_range=(0, 5))
    >>> data
    TrainingData('data', 1 row of pairs with score: anchor, positive, label)
    >>> data.rows[0]
    {'anchor': 'What is lift?', 'positive': 'A force.', 'label': 0.8}
    """
    wanted = None if kind is None else parse_kind(kind)
    if limit is not None:
        limit = whole_number("limit", limit, sentence="{name} is at least 1, not {value}.")
    if sql is None and _is_ready(source):
        if columns is not None or ignore:
            raise InvalidArgumentError(
                "Queries with judgements and mined negatives have no columns to map or ignore: leave these options out."
            )
        data = _ready(source, split, limit)
    else:
        table = open_table(source, split=split, subset=subset, sql=sql)
        roles = find_roles(table.columns, columns, ignore)
        data = read_rows(table, roles, wanted, score_range, limit)
    if wanted is not None and data.kind is not wanted:
        raise InvalidArgumentError(
            f"{name or data.name!r} holds {data.kind.value} (columns {', '.join(data.rows.column_names)}), "
            f"not {wanted.value}: leave kind out, or choose the columns with columns=... (--columns)."
        )
    return replace(data, name=name or data.name, loss=loss or data.loss)


def is_retrieval(source: object) -> bool:
    """Whether `source` names queries with relevance judgements."""
    if not isinstance(source, str | Path):
        return False
    path = arguments.path("The data", source)
    if path.is_dir():
        return any((path / name).exists() for name in ("qrels", "corpus.jsonl", "corpus.jsonl.gz"))
    return str(source).partition("/")[0] in ("beir", "nanobeir") and "/" in str(source)


def _is_ready(source: object) -> bool:
    """Whether no columns need to be recognised."""
    return isinstance(source, Dataset | TrainingData) or is_retrieval(source) or _is_mined(source)


def _is_mined(source: object) -> bool:
    return isinstance(source, str | Path) and (Path(source) / MANIFEST).is_file()


def _ready(source: Any, split: str, limit: int | None) -> TrainingData:
    """The training data that `source` is or holds, or the pairs of a retrieval data set."""
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
    """Each query with the content of each document that is relevant to it."""
    if dataset.corpus is None:
        raise InvalidArgumentError(
            f"The data set {dataset.name!r} has no corpus, so there are no texts to train on; in a BEIR folder it is "
            "corpus.jsonl."
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
            f"The data set {dataset.name!r} has no query with a relevant document whose text is in its corpus."
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
    """Each query with each relevant document; of whole queries, as a positive left out could be mined as a negative."""
    judged: list[tuple[str, str]] = []
    for query, grades in dataset.qrels.items():
        relevant = [(query, document) for document, grade in grades.items() if grade > 0]
        if limit is not None and judged and len(judged) + len(relevant) > limit:
            break
        judged += relevant
    return judged


def _contents(dataset: Dataset, needed: Collection[str]) -> dict[str, str]:
    """The contents of some documents by id; raises DocumentError where any id of the corpus has two."""
    corpus: Iterable[Document] = dataset.corpus or ()
    contents: dict[str, str] = {}
    hashes = array("q")  # of the id and the content of each document: millions of texts need not be held
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
    return DocumentError(f"In {where}, the {what} id {id!r} has two texts: give each text an id of its own.")
