"""Find the questions of training rows, and make a data set with documents of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count
from typing import TypeAlias

from hybridsearch.documents import Document
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.data.rows import Kind, TrainingData, normalized

Question: TypeAlias = str | frozenset[str]
"""A normalised query, or the two normalised texts of a pair. A pair asks whether the two texts belong together."""

_ABOUT_PAIRS = (Kind.CLASSED, Kind.LABELLED, Kind.SCORED)


def questions_of(data: TrainingData) -> Iterator[Question]:
    """The questions of rows that measure a model: their pairs if the pairs have labels, else their anchors.

    Single texts have no questions.
    """
    if data.kind in _ABOUT_PAIRS:
        yield from (pair(*texts) for texts in zip(data.rows["anchor"], data.rows["positive"], strict=True))
    elif data.kind not in (Kind.TEXTS, Kind.EMBEDDED, Kind.CLASSED_TEXTS):
        yield from map(normalized, data.rows[data.inputs[0]])


def asks(data: TrainingData, *, pairs: bool) -> Iterator[set[Question]]:
    """For each row, the questions whose answer it teaches: its anchor, and with `pairs` also its pairs of texts.

    The question of a text with an embedding or a class is the text. A single text has no question.
    """
    if data.kind is Kind.TEXTS:
        yield from (set() for _ in range(len(data)))
        return
    for batch in data.rows.select_columns(data.inputs).iter(1000):
        anchors, *others = (batch[column] for column in data.inputs)
        texts = others[0] if data.kind is Kind.LISTS else list(zip(*others, strict=True)) or [()] * len(anchors)
        for anchor, of_row in zip(anchors, texts, strict=True):
            yield {normalized(anchor), *(pair(anchor, text) for text in (of_row if pairs else ()))}


def pair(one: str, other: str) -> frozenset[str]:
    """The question whether two texts belong together."""
    return frozenset((normalized(one), normalized(other)))


class Answers:
    """The texts of rows that queries can find.

    Each text comes once, with its id if the id is known.
    """

    def __init__(self) -> None:
        self._by_text: dict[str, Document] = {}
        self._ids: set[str] = set()

    @classmethod
    def of(cls, data: Iterable[TrainingData], most: int | None = None) -> Answers:
        """The positives and negatives of some data, at most `most`."""
        answers = cls()
        for one in data:
            for number, column in enumerate(one.inputs[1:]):
                known = _ids(one, "document_id") if number == 0 else _ids(one, "negative_id", number - 1)
                for id, text in zip(known, one.rows[column], strict=True):
                    if most is not None and len(answers._ids) >= most:
                        return answers
                    answers.keep(text, id)
        return answers

    @property
    def documents(self) -> list[Document]:
        """One document for each text."""
        return list(self._by_text.values())

    def keep(self, text: str, id: str | None) -> None:
        """Add a text that is new, with an id that no other text has."""
        if normalized(text) not in self._by_text:
            document = Document(unlike(id or f"text-{len(self._ids)}", self._ids), text)
            self._by_text[normalized(text)] = document
            self._ids.add(document.id)

    def id_of(self, text: str) -> str:
        """The id of a text that was added."""
        return self._by_text[normalized(text)].id


def collection_of(data: TrainingData, answers: Answers, name: str) -> Dataset:
    """Make a data set: the anchors are the queries, the answers are the documents, the positives are relevant."""
    queries: dict[str, str] = {}
    ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for anchor, positive in zip(data.rows["anchor"], data.rows["positive"], strict=True):
        id = ids.setdefault(normalized(anchor), f"query-{len(ids)}")
        queries[id] = anchor
        qrels.setdefault(id, {})[answers.id_of(positive)] = 1
    return Dataset(name, queries, qrels, answers.documents)


def unlike(name: str, taken: Collection[str]) -> str:
    """The name, or if it is taken the first of name-2, name-3 ... that is free."""
    return next(one for one in chain([name], (f"{name}-{number}" for number in count(2))) if one not in taken)


def _ids(data: TrainingData, name: str, place: int = 0) -> Iterable[str | None]:
    """One id for each row, from the ids beside the rows. If a row has a list of ids, the id at `place`."""
    if data.ids is None or name not in data.ids.column_names:
        return [None] * len(data)
    return (value[place] if isinstance(value, list) else value for value in data.ids[name])
