"""What rows ask, and rows as a test collection."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count
from typing import TypeAlias

from hybridsearch.documents import Document
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.data.rows import Kind, TrainingData, normalized

Question: TypeAlias = str | frozenset[str]
"""A normalized query; or the two normalized texts of a pair, with the question whether they belong together."""

_ABOUT_PAIRS = (Kind.CLASSED, Kind.LABELLED, Kind.SCORED)


def questions_of(data: TrainingData) -> Iterator[Question]:
    """What rows ask when they measure a model: their pairs if these have labels, else their anchors.

    Texts alone ask nothing.
    """
    if data.kind in _ABOUT_PAIRS:
        yield from (pair(*texts) for texts in zip(data.rows["anchor"], data.rows["positive"], strict=True))
    elif data.kind not in (Kind.TEXTS, Kind.EMBEDDED):
        yield from map(normalized, data.rows[data.inputs[0]])


def asks(data: TrainingData, *, pairs: bool) -> Iterator[set[Question]]:
    """For each row, the questions whose answer it teaches: its anchor, and with `pairs` also each pair with a text.

    A text with an embedding teaches the embedding. A text alone teaches no answer.
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
    """The texts that are found, not asked, each once, under their ids where these are known."""

    def __init__(self) -> None:
        self._by_text: dict[str, Document] = {}
        self._ids: set[str] = set()

    @classmethod
    def of(cls, data: Iterable[TrainingData], most: int | None = None) -> Answers:
        """Those of some data, at most so many."""
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
        """One for each text."""
        return list(self._by_text.values())

    def keep(self, text: str, id: str | None) -> None:
        """Add a text that is not there yet, under an id that no other has."""
        if normalized(text) not in self._by_text:
            document = Document(unlike(id or f"text-{len(self._ids)}", self._ids), text)
            self._by_text[normalized(text)] = document
            self._ids.add(document.id)

    def id_of(self, text: str) -> str:
        """The id of a text that was kept."""
        return self._by_text[normalized(text)].id


def collection_of(data: TrainingData, answers: Answers, name: str) -> Dataset:
    """Anchors as queries, whose positives are to be found among the answers."""
    queries: dict[str, str] = {}
    ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for anchor, positive in zip(data.rows["anchor"], data.rows["positive"], strict=True):
        id = ids.setdefault(normalized(anchor), f"query-{len(ids)}")
        queries[id] = anchor
        qrels.setdefault(id, {})[answers.id_of(positive)] = 1
    return Dataset(name, queries, qrels, answers.documents)


def unlike(name: str, taken: Collection[str]) -> str:
    """The name, or where it is taken the first of name-2, name-3 ... that is not."""
    return next(one for one in chain([name], (f"{name}-{number}" for number in count(2))) if one not in taken)


def _ids(data: TrainingData, name: str, place: int = 0) -> Iterable[str | None]:
    """Row by row an id that is kept beside the rows; of lists of ids the one at this place."""
    if data.ids is None or name not in data.ids.column_names:
        return [None] * len(data)
    return (value[place] if isinstance(value, list) else value for value in data.ids[name])
