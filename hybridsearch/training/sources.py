"""What a run trains on, what chooses its best checkpoint, and what judges it. The three share no query."""

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
from hybridsearch.errors import InvalidArgumentError
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
    """A source, and how `read_training_data` is to read it: its arguments by name."""

    source: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)


Source: TypeAlias = "str | Path | Dataset | TrainingData | Part | datasets.Dataset | Iterable[Mapping[str, Any]]"
"""Anything that `read_training_data` reads."""

DEV_QUERIES = 100
"""Queries, or rows, that are held out of the training data to choose the best checkpoint: a tenth, at most these."""

_FEWEST = 100  # rows without a test collection, below which nothing is held out
_DOCUMENTS = 20_000  # texts of such rows that are searched


@dataclass(frozen=True, slots=True)
class Sources:
    """What goes into a run.

    Attributes:
        training: what is trained on; one or more, with names that differ.
        dev: what chooses the best checkpoint; None keeps the last weights.
        test: judges the result, and never chooses anything; None where there is none.
        corpora: for each of `training` the documents to mine hard negatives from; None for its own positives.
    """

    training: tuple[TrainingData, ...]
    dev: Dev | None
    test: Dataset | None
    corpora: tuple[Iterable[Document] | None, ...]

    @property
    def chooser(self) -> str | None:
        """What `dev` is, as far as a later run can tell; JSON for what is no test collection."""
        if self.dev is None:
            return None
        if isinstance(self.dev, Dataset):
            return self.dev.digest
        if isinstance(self.dev, TrainingData):
            return repr(self.dev)
        return json.dumps(self.dev, default=lambda value: type(value).__name__)


def gather(
    data: Source | Sequence[Source] | Mapping[str, Source],
    *,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    seed: int = 0,
    measured: Collection[Question] = (),
) -> Sources:
    """Read the data, and hold out what is not given.

    * If the first folder has splits "dev" and "test", they become dev (at most 100 of its queries) and test.
    * If it has no dev, a tenth of the first queries with judgements, at most 100, become dev.
    * One set of pairs or tuples with at least 100 rows gives a tenth, at most 100, to dev and to test, if these are not
      given. Their questions must find their answers among all answers.
    * Nothing is held out of several sets of rows, or if `dev` is given.

    Training data that ask a question of dev, test or an evaluator are left out. So are queries of a given dev that test
    asks. A note says so.

    Args:
        data: one source, several, or several by name; of the same name, later ones get a number.
        dev, test: as in `Sources`; test also as a folder or name of `load_dataset`.
        corpus: documents to mine in, for all data; also what `read_documents` reads. None for each data set's own.
        seed: what is held out.
        measured: what evaluators ask (`hybridsearch.training.measure.measuring.asked_by`).

    Raises:
        InvalidArgumentError: all training data ask what dev, test or an evaluator ask, or all of dev what test asks.
        InvalidArgumentError, DocumentError, DatasetNotFoundError, MissingExtraError: as `read_training_data` says.
    """
    judged = test if isinstance(test, Dataset) or test is None else load_one(test, "test")
    corpus = _documents(corpus)
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
    """A data set without a tenth of its queries, at most 100, and these; None where it has fewer than ten.

    Queries of the same text stay together.

    Args:
        closed: normalized texts of queries that are not held out, such as those of a test set.

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
    rest = replace(  # also the judgements of queries that are not there, to be counted
        dataset,
        queries={id: text for id, text in dataset.queries.items() if id not in held.queries},
        qrels={id: grades for id, grades in dataset.qrels.items() if id not in held.queries},
    )
    return rest, held


def some_queries(
    dataset: Dataset, seed: int = 0, closed: Collection[Question] = (), most: int = DEV_QUERIES
) -> Dataset | None:
    """Some of a data set's queries with a relevant document, drawn by seed, at most `most`; None if there are none.

    Arguments are as in `hold_out`.
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
    """The sources with hard negatives in place of plain pairs.

    They are taken at random from ranks 6 to 40 of the hybrid of BM25 and the model, by reciprocal rank fusion: the
    first ranks often hold relevant documents that nobody has judged.

    Args:
        model: the model before training; None for BM25 alone.
        output: folder for what is mined; a call that was broken off goes on.
        retriever: what is searched instead, for all data.

    Raises:
        InvalidArgumentError: `per_query` is below 1, nothing among the data is pairs, or several processes train.
    """
    sentence = "{name} is a number of at least 1, or None, not {value}."
    per_query = whole_number("hard_negatives", per_query, sentence=sentence)
    pairs = [place for place, one in enumerate(sources.training) if one.kind is Kind.PAIRS]
    if not pairs:
        raise InvalidArgumentError(
            f"Hard negatives are mined for pairs, and {sources.training[0].name!r} holds {sources.training[0].kind}: "
            "leave hard_negatives out."
        )
    if has_several_processes():
        raise InvalidArgumentError(
            "Several processes cannot mine one set of negatives: run `hybridsearch mine`, then train on its folder."
        )
    from hybridsearch.training.negatives.mining import mine_hard_negatives

    together: dict[int, list[int]] = {}  # data that are mined in the same documents
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
    """The sources with a teacher's scores as labels, as `add_teacher_scores` gives them.

    Raises InvalidArgumentError where some are plain pairs, of which a teacher sees no differences, or cannot be scored.
    """
    for one in sources.training:
        if one.kind is Kind.PAIRS:
            raise InvalidArgumentError(
                f"A teacher tells positives from negatives, and {one.name!r} holds pairs without any: set "
                "hard_negatives, or give data with negatives."
            )
    scored = (add_teacher_scores(one, teacher, show_progress_bar=show_progress_bar) for one in sources.training)
    return replace(sources, training=tuple(scored))


# Below: how it is done


def _parts(data: Any) -> list[tuple[str | None, Part]]:
    if isinstance(data, Mapping):
        parts: list[tuple[str | None, Any]] = list(data.items())
    elif isinstance(data, list | tuple) and not (data and all(isinstance(one, Mapping) for one in data)):
        parts = [(None, one) for one in data]
    else:
        parts = [(None, data)]
    if not parts:
        raise InvalidArgumentError("There are no data to train on.")
    return [(name, one if isinstance(one, Part) else Part(one)) for name, one in parts]


def _judged(part: Part) -> Dataset | None:
    """The queries with judgements that the source is, or names; None for rows."""
    if isinstance(part.source, Dataset):
        return part.source
    if "sql" not in part.arguments and is_retrieval(part.source):
        return load_one(part.source, part.arguments.get("split", "train"))
    return None


def _texts_asked(dataset: Dataset) -> dict[str, str]:
    """Id -> normalized text of the queries with a relevant document."""
    answered = (id for id, grades in dataset.qrels.items() if any(grade > 0 for grade in grades.values()))
    return {id: normalized(dataset.queries[id]) for id in answered if id in dataset.queries}


def _own_split(source: object, split: str, training: Dataset) -> Dataset | None:
    """The judgements of a split of a folder or name, unless they are the training data."""
    if not isinstance(source, str | Path):
        return None
    try:
        found = load_one(source, split)
    except InvalidArgumentError:  # it has no such split
        return None
    return None if found.digest == training.digest else found


def _documents(corpus: Iterable[Document] | str | Path | None) -> Iterable[Document] | None:
    """A corpus that can be read again and again."""
    if isinstance(corpus, str | Path):
        return read_documents(corpus)
    return list(corpus) if isinstance(corpus, Iterator) else corpus


def asked_in(of: object) -> set[Question]:
    """What dev or test ask. What only an evaluator reads is not known here."""
    if isinstance(of, Dataset):
        return {normalized(text) for id, text in of.queries.items() if id in of.qrels}
    return set(questions_of(of)) if isinstance(of, TrainingData) else set()


def _apart(dev: Dev, closed: Collection[Question], notes: list[str]) -> Dev:
    """The given dev, without the questions of test."""
    if isinstance(dev, TrainingData):
        kept: Dev = _without(dev, closed)
    elif isinstance(dev, Dataset):
        ids = [id for id, text in dev.queries.items() if normalized(text) not in closed]
        if not ids and dev.queries:
            raise InvalidArgumentError(f"Test asks all queries of dev ({dev.name!r}): give another dev or test.")
        kept = dev if len(ids) == len(dev.queries) else with_queries(dev, dev.name, ids)
    else:
        return dev
    before, after = (len(one.queries if isinstance(one, Dataset) else one) for one in (dev, kept))
    if after < before:
        notes.append(f"questions of dev that test asks were left out: {before - after:,}")
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
            f"All rows of {data.name!r} ask what dev, test or an evaluator ask, so no row is left to train on: give "
            "other training data, or measure by other data."
        )
    note = f"rows that ask what dev, test or an evaluator ask were left out: {len(data) - len(kept):,}"
    return replace(data.select(kept), notes=(*data.notes, note))


def _hold_out_rows(
    data: TrainingData, test: Dataset | None, corpus: Iterable[Document] | None, seed: int
) -> tuple[TrainingData, Dataset | None, Dataset | None]:
    """Rows to train on, and test collections of rows that share no text with them: dev, and test unless it is given."""
    if len(data) < _FEWEST:
        return data, None, test
    share = min(0.1, DEV_QUERIES / len(data))
    try:
        parts = split(data, (1 - 2 * share, share, share), seed)
    except InvalidArgumentError:  # the rows hang together by their texts
        note = "nothing was held out, as the rows hang together by their texts"
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
