"""Read the data of a run: training data, dev (chooses the best checkpoint) and test. The three share no query."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import InvalidArgumentError, NoSplitError
from hybridsearch.evaluation.datasets import Dataset, load_one
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.readers import read_documents
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import (
    Kind,
    TrainingData,
    is_retrieval,
    normalized,
    read_training_data,
    split,
    with_queries,
)
from hybridsearch.training.data.answers import Answers, Question, asks, collection_of, questions_of, unlike
from hybridsearch.training.distill import Teacher, add_teacher_scores
from hybridsearch.training.measure.evaluators import Dev
from hybridsearch.training.runs.record import has_several_processes

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, slots=True)
class Part:
    """A source of training data, and the arguments with which `read_training_data` reads it.

    Attributes:
        source: Anything that `read_training_data` reads.
        arguments: Arguments of `read_training_data` by name.
    """

    source: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)


Source: TypeAlias = "str | Path | Dataset | TrainingData | Part | datasets.Dataset | Iterable[Mapping[str, Any]]"
"""Anything that `read_training_data` reads."""

DEV_QUERIES = 100
"""Largest number of queries or rows that are held out for dev. Of fewer than 1,000, a tenth is held out."""

_FEWEST = 100  # number of rows below which no rows are held out
_DOCUMENTS = 20_000  # texts that held-out rows are searched in


@dataclass(frozen=True, slots=True)
class Sources:
    """The data of one training run.

    Attributes:
        training: Data to train on, one or more sets with different names.
        dev: Data or evaluators that choose the best checkpoint. None keeps the last weights.
        test: Data set that judges the result and never chooses anything, or None.
        corpora: Documents to mine hard negatives from, one collection for each item of `training`. None in place of a
            collection takes the positives of the rows.
    """

    training: tuple[TrainingData, ...]
    dev: Dev | None
    test: Dataset | None
    corpora: tuple[Iterable[Document] | None, ...]

    @property
    def chooser(self) -> str | None:
        """A text by which a later run knows whether `dev` is the same, or None without dev.

        It is the digest of a data set or of rows, and JSON for evaluators.
        """
        if self.dev is None:
            return None
        if isinstance(self.dev, Dataset | TrainingData):
            return self.dev.digest
        return json.dumps(self.dev, default=lambda value: getattr(value, "digest", type(value).__name__))


def gather(
    data: Source | Sequence[Source] | Mapping[str, Source],
    *,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    seed: int = 0,
    measured: Collection[Question] = (),
) -> Sources:
    """Read the training data, and hold out dev and test if they are not given.

    - Queries with judgements: a split "dev" of the source becomes dev (at most 100 of its queries), and a split "test"
      becomes test. Without a split "dev", a tenth of the training queries, at most 100, becomes dev. If there are
      several sources, the first one that can give dev or test does.
    - One set of pairs or tuples with at least 100 rows: a tenth, at most 100 rows, becomes dev, and as many rows become
      test. The queries of these rows search for their positives among all positives and negatives.
    - Several sets of rows, or any rows if `dev` is given: no rows are held out.

    Training rows with a query of dev, test or an evaluator are left out. Queries of a given dev that are also in test
    are left out too. The notes of the data have the numbers.

    Args:
        data: Source of training data, a list of sources, or a mapping from names to sources. If two sources have the
            same name, the later one gets a number.
        dev: Data or evaluators that choose the best checkpoint, as in `Sources`.
        test: Data set that judges the result, or a folder or name for `load_dataset`.
        corpus: Documents to mine from for all data, or anything that `read_documents` reads. None takes the documents
            of each data set.
        seed: Seed that chooses what is held out.
        measured: Questions of the evaluators (`hybridsearch.training.measure.measuring.asked_by`).

    Returns:
        The data of the run.

    Raises:
        InvalidArgumentError: All training rows have queries of dev, test or an evaluator, or all queries of dev are in
            test, or `test` has no documents or no relevant ones, or a source cannot be read (`read_training_data`).
        DocumentError: A row of the data is malformed.
        DatasetNotFoundError: There is no such data set.
        MissingExtraError: A library that reads the source is not installed.
    """
    judged = test if isinstance(test, Dataset) or test is None else load_one(test, "test")
    if judged is not None:
        _check_test(judged)
    if corpus is not None:
        corpus = read_documents(list(corpus) if isinstance(corpus, Iterator) else corpus)
    parts = [(name, part, _judged(part)) for name, part in _parts(data)]
    for _, part, dataset in parts:
        if judged is None and dataset is not None:
            judged = _own_split(part.source, "test", dataset)
    notes: list[str] = []
    if dev is not None:
        dev = _apart(dev, asked_in(judged), notes)
    closed = asked_in(judged) | set(measured)
    chosen_by = asked_in(dev)
    training: list[TrainingData] = []
    corpora: list[Iterable[Document] | None] = []
    for name, part, dataset in parts:
        arguments = {**part.arguments, **({} if name is None else {"name": name})}
        rest = part.source if dataset is None else dataset
        if dataset is not None and dev is None:
            if (own := _own_split(part.source, "dev", dataset)) is not None:
                dev, chosen_by = some_queries(own, seed, closed), asked_in(own)
            if dev is None:
                rest, dev = hold_out(dataset, seed, closed)
        one = read_training_data(rest, **arguments)
        one = replace(one, name=unlike(one.name, [other.name for other in training]))
        training.append(one)
        corpora.append(dataset.corpus if corpus is None and dataset is not None else corpus)
    if dev is None and len(training) == 1 and training[0].kind in (Kind.PAIRS, Kind.TUPLES):
        training[0], dev, judged = _hold_out_rows(_without(training[0], closed), judged, corpora[0], seed)
    closed |= chosen_by | asked_in(dev)
    training[0] = replace(training[0], notes=(*training[0].notes, *notes))
    return Sources(tuple(_without(one, closed) for one in training), dev, judged, tuple(corpora))


def hold_out(dataset: Dataset, seed: int = 0, closed: Collection[Question] = ()) -> tuple[Dataset, Dataset | None]:
    """Split a data set into most of its queries and a held-out tenth of them, at most 100.

    Queries with the same text stay together.

    Args:
        dataset: Data set with judgements.
        seed: Seed that chooses the queries.
        closed: Normalised texts of queries that are not held out, such as the queries of a test set.

    Returns:
        The rest of the data set and the held-out data set. The second is None if there are fewer than ten queries.

    >>> queries = {f"q{number}": f"question {number}" for number in range(30)}
    >>> rest, held = hold_out(Dataset("mine", queries, {query: {"d": 1} for query in queries}))
    >>> len(rest.queries), len(held.queries), rest.queries.keys() & held.queries.keys()
    (27, 3, set())
    """
    asked = set(_texts_asked(dataset).values()) - set(closed)
    held = some_queries(dataset, seed, closed, min(DEV_QUERIES, len(asked) // 10))
    if held is None:
        return dataset, None
    held = replace(held, name=f"{dataset.name}/dev")
    rest = replace(  # it keeps judgements of queries that are missing, because they are counted later
        dataset,
        queries={id: text for id, text in dataset.queries.items() if id not in held.queries},
        qrels={id: grades for id, grades in dataset.qrels.items() if id not in held.queries},
    )
    return rest, held


def some_queries(
    dataset: Dataset, seed: int = 0, closed: Collection[Question] = (), most: int = DEV_QUERIES
) -> Dataset | None:
    """Draw some queries of a data set that have a relevant document.

    Args:
        dataset: Data set with judgements.
        seed: Seed that chooses the queries.
        closed: Normalised texts of queries that are not drawn.
        most: Largest number of query texts.

    Returns:
        The data set with the drawn queries only, or None if there are none.
    """
    texts = sorted(set(_texts_asked(dataset).values()) - set(closed))
    chosen = set(random.Random(seed).sample(texts, min(most, len(texts))))  # noqa: S311
    ids = [id for id, text in dataset.queries.items() if normalized(text) in chosen]
    return with_queries(dataset, dataset.name, ids) if ids else None


def mine(
    sources: Sources,
    per_query: int,
    model: Encoder | None,
    output: Path,
    *,
    retriever: HybridSearch | Pipeline | None = None,
    seed: int = 0,
    show_progress_bar: bool | None = None,
) -> Sources:
    """Mine hard negatives for all plain pairs of a run.

    They are drawn at random from ranks 6 to 40 of BM25 together with the model, fused by RRF. The first ranks are not
    used, because they often hold relevant documents that nobody has judged.

    Args:
        sources: Data of the run.
        per_query: Number of negatives for each query, at least 1.
        model: Encoder made of the model before training. None searches with BM25 alone.
        output: Folder for the mined negatives. If a call was interrupted, the next call continues it.
        retriever: Index or pipeline that is searched instead of BM25 and the model, for all data.
        seed: Seed of the random choice.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The data of the run, with tuples in place of pairs.

    Raises:
        InvalidArgumentError: `per_query` is below 1, no data are pairs, or several processes train.
    """
    sentence = "{name} is {value}. Give a whole number of at least 1, or None."
    per_query = whole_number("hard_negatives", per_query, sentence=sentence)
    pairs = [place for place, one in enumerate(sources.training) if one.kind is Kind.PAIRS]
    if not pairs:
        raise InvalidArgumentError(
            f"Hard negatives are mined for pairs, but {sources.training[0].name!r} holds {sources.training[0].kind}. "
            "Leave hard_negatives out."
        )
    if has_several_processes():
        raise InvalidArgumentError(
            "Several processes cannot mine one set of negatives. Run `hybridsearch mine` first, then train on its "
            "folder."
        )
    from hybridsearch.training.negatives.mining import mine_hard_negatives

    together: dict[int, list[int]] = {}  # data sets that are mined from the same documents
    for place in pairs:
        together.setdefault(0 if retriever is not None else id(sources.corpora[place]), []).append(place)
    training = list(sources.training)
    for places in together.values():
        documents = sources.corpora[places[0]]
        if documents is None:
            documents = Answers.of(training[place] for place in places).documents
        with _searched(documents, model, retriever, show_progress_bar) as search:
            for place in places:
                negatives = mine_hard_negatives(
                    training[place],
                    search,
                    per_query=per_query,
                    sampling="random",
                    seed=seed,
                    output_format="triplets" if per_query == 1 else "n-tuples",
                    output=output / str(place),
                    show_progress_bar=show_progress_bar,
                )
                was = training[place]
                notes = (*was.notes, f"mined {negatives.summary.title}")
                training[place] = replace(negatives.data, name=was.name, loss=was.loss, notes=notes)
    return replace(sources, training=tuple(training))


def teach(sources: Sources, teacher: Teacher | str | Path, show_progress_bar: bool | None = None) -> Sources:
    """Replace the labels of all training data by a teacher's scores, with `add_teacher_scores`.

    Args:
        sources: Data of the run.
        teacher: Teacher, as in `add_teacher_scores`.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The data of the run with the scores as labels.

    Raises:
        InvalidArgumentError: Some data are plain pairs, which have no negatives to compare, or cannot be scored.
    """
    for one in sources.training:
        if one.kind is Kind.PAIRS:
            raise InvalidArgumentError(
                f"A teacher scores positives and negatives, but {one.name!r} holds pairs without negatives. Set "
                "hard_negatives, or give data with negatives."
            )
    scored = (add_teacher_scores(one, teacher, show_progress_bar=show_progress_bar) for one in sources.training)
    return replace(sources, training=tuple(scored))


def searched_texts(sources: Sources) -> Iterator[str]:
    """The texts that may be searched: each collection, and the texts that are not queries of data without one."""
    corpora = {id(corpus): corpus for corpus in sources.corpora if corpus is not None}
    for corpus in corpora.values():
        yield from (document.content for document in corpus)
    for one, own in zip(sources.training, sources.corpora, strict=True):
        if own is None:
            yield from texts_of(one, "document")


def texts_of(data: TrainingData, side: str) -> Iterator[str]:
    """The texts of one side, "query" or "document", column by column."""
    for column in data.inputs:
        if (column == "anchor") == (side == "query"):
            yield from data.rows[column]


# Below: how it is done


def _parts(data: Any) -> list[tuple[str | None, Part]]:
    if isinstance(data, Mapping):
        parts: list[tuple[str | None, Any]] = list(data.items())
    elif isinstance(data, list | tuple) and not (data and all(isinstance(one, Mapping) for one in data)):
        parts = [(None, one) for one in data]
    else:
        parts = [(None, data)]
    if not parts:
        raise InvalidArgumentError("There are no data to train on. Give at least one source.")
    return [(name, one if isinstance(one, Part) else Part(one)) for name, one in parts]


def _judged(part: Part) -> Dataset | None:
    """The data set with judgements that the source is or names; None if the source holds rows."""
    if isinstance(part.source, Dataset):
        return part.source
    if "sql" not in part.arguments and is_retrieval(part.source):
        return load_one(part.source, part.arguments.get("split", "train"))
    return None


def _texts_asked(dataset: Dataset) -> dict[str, str]:
    """The normalised texts, by id, of the queries that have a relevant document."""
    answered = (id for id, grades in dataset.qrels.items() if any(grade > 0 for grade in grades.values()))
    return {id: normalized(dataset.queries[id]) for id in answered if id in dataset.queries}


def _check_test(test: Dataset) -> None:
    """Raises InvalidArgumentError if a data set cannot judge any model."""
    is_judged = any(grade > 0 for grades in test.qrels.values() for grade in grades.values())
    if test.corpus is None or not is_judged:
        lacks = "documents" if test.corpus is None else "query with a relevant document"
        raise InvalidArgumentError(
            f"The test data {test.name!r} have no {lacks}, so they cannot judge the model. Give other test data, or "
            "leave out test."
        )


def _own_split(source: object, split: str, training: Dataset) -> Dataset | None:
    """The data set of another split of a folder or name; None if there is none or if it is the training data."""
    if not isinstance(source, str | Path):
        return None
    try:
        found = load_one(source, split)
    except NoSplitError:
        return None
    return None if found.digest == training.digest else found


def asked_in(of: object) -> set[Question]:
    """The questions of dev or test.

    For evaluators the answer is empty.
    """
    if isinstance(of, Dataset):
        return {normalized(text) for id, text in of.queries.items() if id in of.qrels}
    return set(questions_of(of)) if isinstance(of, TrainingData) else set()


def _apart(dev: Dev, closed: Collection[Question], notes: list[str]) -> Dev:
    """The given dev without the questions of test."""
    if isinstance(dev, TrainingData):
        kept: Dev = _without(dev, closed)
    elif isinstance(dev, Dataset):
        ids = [id for id, text in dev.queries.items() if normalized(text) not in closed]
        if not ids and dev.queries:
            raise InvalidArgumentError(f"All queries of dev ({dev.name!r}) are also in test. Give another dev or test.")
        kept = dev if len(ids) == len(dev.queries) else with_queries(dev, dev.name, ids)
    else:
        return dev
    before, after = (len(one.queries if isinstance(one, Dataset) else one) for one in (dev, kept))
    if after < before:
        notes.append(f"questions of dev that are also in test were left out: {before - after:,}")
    return kept


def _without(data: TrainingData, closed: Collection[Question]) -> TrainingData:
    if not closed:
        return data
    rows = asks(data, pairs=any(isinstance(question, frozenset) for question in closed))
    kept = [place for place, asked in enumerate(rows) if asked.isdisjoint(closed)]
    if len(kept) == len(data):
        return data
    if not kept:
        raise InvalidArgumentError(
            f"All rows of {data.name!r} have questions of dev, test or an evaluator, so no row is left to train on. "
            "Give other training data, or measure with other data."
        )
    note = f"rows with a question of dev, test or an evaluator were left out: {len(data) - len(kept):,}"
    return replace(data.select(kept), notes=(*data.notes, note))


def _hold_out_rows(
    data: TrainingData, test: Dataset | None, corpus: Iterable[Document] | None, seed: int
) -> tuple[TrainingData, Dataset | None, Dataset | None]:
    """Hold out dev, and test if it is not given, as data sets that share no text with the other rows."""
    if len(data) < _FEWEST:
        return data, None, test
    share = min(0.1, DEV_QUERIES / len(data))
    try:
        parts = split(data, (1 - 2 * share, share, share), seed)
    except InvalidArgumentError:  # rows that share texts form one group
        note = "nothing was held out, because too many rows share their texts with other rows"
        return replace(data, notes=(*data.notes, note)), None, test
    train, dev, rest = parts
    answers = Answers.of([dev, rest, train], _DOCUMENTS)
    for document in () if corpus is None else corpus:
        answers.keep(document.content, document.id)
    if test is None:
        test = collection_of(rest, answers, rest.name)
    else:
        train = _joined(train, rest)
    return replace(train, name=data.name), collection_of(dev, answers, dev.name), test


def _joined(one: TrainingData, other: TrainingData) -> TrainingData:
    import datasets

    ids = None if one.ids is None or other.ids is None else datasets.concatenate_datasets([one.ids, other.ids])
    return replace(one, rows=datasets.concatenate_datasets([one.rows, other.rows]), ids=ids)


@contextmanager
def _searched(
    documents: Iterable[Document],
    model: Encoder | None,
    retriever: HybridSearch | Pipeline | None,
    show_progress_bar: bool | None,
) -> Iterator[HybridSearch | Pipeline]:
    if retriever is not None:
        yield retriever
        return
    encoders: dict[str, Encoder] = {"bm25": BM25()} | ({} if model is None else {"model": model})
    with HybridSearch(encoders) as search:
        search.index(documents, show_progress_bar=show_progress_bar)
        yield search
